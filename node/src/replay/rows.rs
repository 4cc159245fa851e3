//! Rows of a CSV or NDJSON file, one at a time, bad ones as values.

use serde::ser::SerializeMap;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest line of NDJSON and the longest CSV record, bytes: four times the largest event.
const ROW_BYTES_MAX: usize = 4 * citybrain_shared::limits::EVENT_BYTES_MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A header, then records; quotes as in RFC 4180.
    #[default]
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// One row that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Counted from 1, without the header, bad rows included.
    pub number: u64,
    /// The line of the file where it begins, from 1.
    pub line: u64,
    pub fields: Fields,
    /// It ends where the file does, without the end of a line: somebody may still be writing it.
    pub is_open: bool,
    /// As it stands in a file of NDJSON: a number has all its digits. Empty of CSV.
    pub text: Vec<u8>,
}

/// Columns and their values, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Vec<(Arc<str>, Value)>);

impl Fields {
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| &**name == column).map(|(_, value)| value)
    }
}

impl serde::Serialize for Fields {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

/// One row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub number: u64,
    pub line: u64,
    /// A few words that stay the same from row to row.
    pub label: &'static str,
    pub reason: String,
}

/// U+FEFF in UTF-8.
const BOM: &[u8] = &[0xEF, 0xBB, 0xBF];

/// Label of a last row that is not there whole.
pub const UNFINISHED: &str = "not finished";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read `{path}`")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` has no header")]
    Header { path: PathBuf, reason: String },
    #[error("`{path}` stops being readable at line {line}")]
    Read {
        path: PathBuf,
        line: u64,
        #[source]
        source: io::Error,
    },
}

/// Reads a file from its beginning.
pub struct Rows {
    path: PathBuf,
    header: Vec<Arc<str>>,
    input: Input,
    delimiter: u8,
    number: u64,
}

enum Input {
    Csv { reader: Box<csv::Reader<File>>, record: csv::ByteRecord },
    Ndjson { reader: BufReader<File>, line: u64 },
}

impl Rows {
    /// # Errors
    /// [`Error::Open`], [`Error::Header`].
    pub fn open(path: &Path, format: Format, delimiter: u8) -> Result<Rows, Error> {
        let file = File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        // It opens, and only reading it fails, with words that say nothing of a folder.
        if file.metadata().is_ok_and(|about| about.is_dir()) {
            let source = io::ErrorKind::IsADirectory.into();
            return Err(Error::Open { path: path.to_owned(), source });
        }
        let mut header = Vec::new();
        let input = match format {
            Format::Ndjson => Input::Ndjson { reader: BufReader::new(file), line: 0 },
            Format::Csv => {
                let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
                let names = reader
                    .headers()
                    .map_err(|e| Error::Header { path: path.to_owned(), reason: e.to_string() })?
                    .clone();
                header = names.iter().map(|name| name.trim_start_matches('\u{feff}').trim().into()).collect();
                if header.iter().all(|name: &Arc<str>| name.is_empty()) {
                    return Err(Error::Header { path: path.to_owned(), reason: "it is empty".into() });
                }
                Input::Csv { reader: Box::new(reader), record: csv::ByteRecord::new() }
            }
        };
        Ok(Rows { path: path.to_owned(), header, input, delimiter, number: 0 })
    }

    /// The columns' names; none for NDJSON, whose rows name their own.
    pub fn header(&self) -> &[Arc<str>] {
        &self.header
    }

    /// The next row; `None` at the end. A last line without its end that does not read, or ends within quotes,
    /// is [`UNFINISHED`]: somebody may still be writing it.
    ///
    /// # Errors
    /// [`Error::Read`]: the file itself fails. A row that is only badly written is a [`Bad`] value.
    pub fn next_row(&mut self) -> Result<Option<Result<Row, Bad>>, Error> {
        let number = self.number + 1;
        let delimiter = self.delimiter;
        let mut begins = 0;
        let row = match &mut self.input {
            Input::Csv { reader, record } => {
                let line = reader.position().line();
                match reader.read_byte_record(record) {
                    Ok(false) => return Ok(None),
                    Ok(true) => {
                        begins = record.position().map_or(0, csv::Position::byte);
                        let line = record.position().map_or(line, csv::Position::line);
                        csv_row(&self.header, record, number, line)
                    }
                    Err(e) if e.is_io_error() => {
                        return Err(Error::Read { path: self.path.clone(), line, source: e.into() });
                    }
                    Err(e) => Err(Bad { number, line, label: "not readable as CSV", reason: e.to_string() }),
                }
            }
            Input::Ndjson { reader, line } => loop {
                let mut text = Vec::new();
                *line += 1;
                let read = read_line(reader, &mut text).map_err(|source| Error::Read {
                    path: self.path.clone(),
                    line: *line,
                    source,
                })?;
                match read {
                    None => return Ok(None),
                    Some(false) => {
                        let reason = format!("it is longer than {ROW_BYTES_MAX} bytes");
                        break Err(Bad { number, line: *line, label: "too long", reason });
                    }
                    Some(true) => {
                        // Windows' programs write it before the first line.
                        let text = text.strip_prefix(BOM).filter(|_| *line == 1).unwrap_or(&text).trim_ascii();
                        if !text.is_empty() {
                            break json_row(text.to_vec(), number, *line);
                        }
                    }
                }
            },
        };
        self.number = number;
        if !self.is_unfinished() {
            return Ok(Some(row));
        }
        Ok(Some(match row {
            Err(bad) => Err(Bad { label: UNFINISHED, ..bad }),
            Ok(row) if self.is_within_quotes(begins, delimiter) => {
                let reason = "a quote is not closed".into();
                Err(Bad { number, line: row.line, label: UNFINISHED, reason })
            }
            Ok(row) => Ok(Row { is_open: true, ..row }),
        }))
    }

    /// Does the file's last CSV record, which begins there, end within quotes?
    fn is_within_quotes(&self, begins: u64, delimiter: u8) -> bool {
        let Input::Csv { reader, .. } = &self.input else { return false };
        let length = reader.position().byte().saturating_sub(begins).min(ROW_BYTES_MAX as u64) as usize;
        let mut text = vec![0; length];
        reader.get_ref().read_exact_at(&mut text, begins).is_ok_and(|()| ends_within_quotes(&text, delimiter))
    }

    /// Is the file read to its end, and that not the end of a line?
    fn is_unfinished(&mut self) -> bool {
        let (file, at) = match &mut self.input {
            Input::Csv { reader, .. } => {
                let at = reader.position().byte();
                (reader.get_ref(), at)
            }
            Input::Ndjson { reader, .. } => match reader.stream_position() {
                Ok(at) => (reader.get_ref(), at),
                Err(_) => return false,
            },
        };
        let mut last = [0];
        file.metadata().is_ok_and(|m| m.len() <= at)
            && at > 0
            && file.read_exact_at(&mut last, at - 1).is_ok_and(|()| last != *b"\n")
    }
}

/// Quotes count where a field begins with one, and there a doubled one is a character.
fn ends_within_quotes(record: &[u8], delimiter: u8) -> bool {
    let (mut is_quoted, mut begins_field) = (false, true);
    for b in record {
        match b {
            // The second of two opens again what the first has closed.
            b'"' if is_quoted || begins_field => (is_quoted, begins_field) = (!is_quoted, is_quoted),
            _ if is_quoted => {}
            b => begins_field = *b == delimiter || matches!(b, b'\r' | b'\n'),
        }
    }
    is_quoted
}

fn csv_row(header: &[Arc<str>], record: &csv::ByteRecord, number: u64, line: u64) -> Result<Row, Bad> {
    let bad = |label, reason| Bad { number, line, label, reason };
    if record.len() != header.len() {
        let reason = format!("it has {} fields, the header has {}", record.len(), header.len());
        return Err(bad("wrong number of fields", reason));
    }
    if record.as_slice().len() > ROW_BYTES_MAX {
        return Err(bad("too long", format!("it is longer than {ROW_BYTES_MAX} bytes")));
    }
    let mut fields = Vec::with_capacity(header.len());
    for (name, value) in header.iter().zip(record) {
        let text = std::str::from_utf8(value).map_err(|e| bad("not UTF-8", format!("column `{name}`: {e}")))?;
        fields.push((name.clone(), Value::String(text.to_owned())));
    }
    Ok(Row { number, line, fields: Fields(fields), is_open: false, text: Vec::new() })
}

fn json_row(text: Vec<u8>, number: u64, line: u64) -> Result<Row, Bad> {
    match serde_json::from_slice::<Value>(&text) {
        Ok(Value::Object(map)) => {
            let fields = map.into_iter().map(|(name, value)| (name.into(), value)).collect();
            Ok(Row { number, line, fields: Fields(fields), is_open: false, text })
        }
        Ok(_) => Err(Bad { number, line, label: "no JSON object", reason: "it is JSON, but no object".into() }),
        Err(e) => Err(Bad { number, line, label: "not JSON", reason: e.to_string() }),
    }
}

/// One line without its end. `None` at the end of the file; `false` if it was too long and passed over.
fn read_line(reader: &mut BufReader<File>, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
    let n = reader.by_ref().take(ROW_BYTES_MAX as u64).read_until(b'\n', text)?;
    if n == 0 {
        return Ok(None);
    }
    if text.last() == Some(&b'\n') || n < ROW_BYTES_MAX {
        return Ok(Some(true));
    }
    loop {
        let rest = reader.fill_buf()?;
        if rest.is_empty() {
            return Ok(Some(false));
        }
        let end = rest.iter().position(|b| *b == b'\n');
        let used = end.map_or(rest.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, format: Format) -> (Vec<Arc<str>>, Vec<Result<Row, Bad>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, text).unwrap();
        let mut rows = Rows::open(&path, format, b',').unwrap();
        let header = rows.header().to_vec();
        let mut all = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            all.push(row);
        }
        (header, all)
    }

    #[test]
    fn a_csv_row_knows_its_line_even_behind_quoted_line_breaks() {
        let (header, rows) = read("\u{feff}a,b\n1,\"x\ny\"\n2\n3,z\n", Format::Csv);
        assert_eq!(header, ["a".into(), "b".into()]);
        let first = rows[0].as_ref().unwrap();
        assert_eq!((first.line, first.fields.get("b")), (2, Some(&Value::from("x\ny"))));
        let bad = rows[1].as_ref().unwrap_err();
        assert_eq!((bad.number, bad.line, bad.label), (2, 4, "wrong number of fields"));
        assert_eq!(rows[2].as_ref().unwrap().number, 3);
    }

    #[test]
    fn a_bad_line_of_ndjson_does_not_stop_the_rest() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(ROW_BYTES_MAX));
        let (_, rows) = read(&format!("{{\"a\":1}}\n\n[1]\n{{\n{long}\n{{\"a\":2}}"), Format::Ndjson);
        let labels: Vec<_> = rows.iter().map(|r| r.as_ref().map_or_else(|b| b.label, |_| "ok")).collect();
        assert_eq!(labels, ["ok", "no JSON object", "not JSON", "too long", "ok"]);
        assert_eq!(rows[4].as_ref().unwrap().line, 6);
    }

    #[test]
    fn a_byte_order_mark_costs_no_row_and_a_line_is_kept_as_it_stands() {
        let (_, rows) = read("\u{feff}{\"a\":123456789012345678901234}\r\n\u{feff}{\"a\":2}\n", Format::Ndjson);
        assert_eq!(rows[0].as_ref().unwrap().text, br#"{"a":123456789012345678901234}"#);
        assert_eq!(rows[1].as_ref().unwrap_err().label, "not JSON", "only before the first line");
    }

    #[test]
    fn a_last_line_that_is_still_being_written_is_told_from_a_bad_one() {
        let last = |text: &str, format| read(text, format).1.pop().unwrap().map_or_else(|b| b.label, |_| "ok");
        assert_eq!(last("{\"a\":1}\n{\"a\":", Format::Ndjson), UNFINISHED);
        assert_eq!(last("{\"a\":1}\n{\"a\":\n", Format::Ndjson), "not JSON");
        assert_eq!(last("{\"a\":1}\n{\"a\":2}", Format::Ndjson), "ok", "whole, only without its end");
        assert_eq!(last("a,b\n1,2\n3", Format::Csv), UNFINISHED);
        assert_eq!(last("a,b\n1,2\n3\n", Format::Csv), "wrong number of fields");
        assert_eq!(last("a,b\n1,2\n3,4", Format::Csv), "ok");
        assert_eq!(last("a,b\n1,2\n3,\"Gra", Format::Csv), UNFINISHED);
        assert_eq!(last("a,b\n1,2\n3,\"Gra\"\"", Format::Csv), UNFINISHED);
        for whole in ["3,\"Gra\"", "3,5\" pipe", "3,\"a \"\"b\"\"\"", "\"3\",\"\""] {
            assert_eq!(last(&format!("a,b\n1,2\n{whole}"), Format::Csv), "ok", "{whole}");
        }
    }
}
