//! Forms as `multipart/form-data` (RFC 7578), read as they come: what is text is kept, what is a file is
//! counted and let go, so that a picture costs no memory. Pure.

use super::charset::{Charset, NAME};

/// Bytes of all texts together, as of any other form.
const TEXT_BYTES_MAX: usize = super::FORM_BYTES_MAX;
/// Bytes of the headers of one part.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields of one form, with those that are files or were left empty.
const FIELDS_MAX: usize = 500;

enum State {
    /// Before the first part, or in a file: nothing of it is kept.
    Passing,
    /// Behind a delimiter: another part, or the end.
    Behind,
    Head,
    Text(String, Charset, Vec<u8>),
    Done,
}

/// Name and text of a field; or why that is none.
pub type Field = Result<(String, String), String>;

/// A form being read.
pub struct Form {
    delimiter: Vec<u8>,
    /// What could still be a part of a delimiter, or of a head.
    rest: Vec<u8>,
    /// Of those bytes the first so many are known to hold no end of a head.
    searched: usize,
    state: State,
    text_bytes: usize,
    parts: usize,
    /// Of those parts that say nothing of their own.
    charset: Charset,
    fields: Vec<Field>,
    files: usize,
}

impl Form {
    /// Of this content type; `None`: it is no multipart form.
    pub fn of(content_type: &str) -> Option<Form> {
        let (kind, more) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let is_boundary = |p: &&str| p.trim_start().get(..9).is_some_and(|name| name.eq_ignore_ascii_case("boundary="));
        let boundary = more.split(';').find(is_boundary)?.trim().get(9..)?.trim_matches('"');
        // RFC 2046 has 1 to 70 characters.
        (1..=70).contains(&boundary.len()).then(|| Form {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first delimiter may stand at the very beginning.
            rest: b"\r\n".to_vec(),
            searched: 0,
            state: State::Passing,
            text_bytes: 0,
            parts: 0,
            charset: Charset::of(content_type).unwrap_or(Charset::UTF8),
            fields: Vec::new(),
            files: 0,
        })
    }

    /// Each byte is looked at a few times, however the form is cut into parts and comes in pieces.
    ///
    /// # Errors
    /// In words: what does not read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        while let Some(read) = self.step(&rest[at..])? {
            at += read;
            self.searched = 0;
        }
        self.rest = rest;
        // Once a piece, not once a part.
        self.rest.drain(..at);
        Ok(())
    }

    /// Takes what comes next, up to where something else begins: how many bytes that were. `None`: it waits for more.
    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, String> {
        match &mut self.state {
            State::Done => Ok(Some(rest.len()).filter(|n| *n > 0)),
            State::Behind => {
                self.state = match rest.get(..2) {
                    None => return Ok(None),
                    Some(b"--") => State::Done,
                    Some(b"\r\n") => State::Head,
                    Some(_) => return Err("behind a boundary of the form stands neither a part nor its end".into()),
                };
                // The line break of the delimiter's own line counts: a head may be empty.
                Ok(Some(0))
            }
            State::Head => {
                let found = find(rest, b"\r\n\r\n", self.searched);
                if found.unwrap_or(rest.len()) > HEAD_BYTES_MAX {
                    return Err("a part of the form has too long a head".into());
                }
                let Some(end) = found else {
                    self.searched = rest.len().saturating_sub(3);
                    return Ok(None);
                };
                self.state = self.begin(&rest[..end])?;
                Ok(Some(end + 4))
            }
            State::Passing | State::Text(..) => {
                let found = find(rest, &self.delimiter, 0);
                let safe = rest.len().saturating_sub(self.delimiter.len() - 1);
                self.keep(&rest[..found.unwrap_or(safe)])?;
                let Some(end) = found else { return Ok(Some(safe).filter(|n| *n > 0)) };
                if let State::Text(name, charset, text) = std::mem::replace(&mut self.state, State::Behind) {
                    self.fields.push(charset.value(&name, &text).map(|text| (name, text)));
                }
                Ok(Some(end + self.delimiter.len()))
            }
        }
    }

    /// Of a part's body: what is text stays.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), String> {
        let State::Text(_, _, text) = &mut self.state else { return Ok(()) };
        self.text_bytes += bytes.len();
        if self.text_bytes > TEXT_BYTES_MAX {
            return Err(format!("the texts of a form may have {TEXT_BYTES_MAX} bytes"));
        }
        text.extend_from_slice(bytes);
        Ok(())
    }

    /// The fields, and how many files there were.
    ///
    /// # Errors
    /// It broke off.
    pub fn done(self) -> Result<(Vec<Field>, usize), String> {
        match self.state {
            State::Done => Ok((self.fields, self.files)),
            _ => Err("the form breaks off before its end".into()),
        }
    }

    fn begin(&mut self, head: &[u8]) -> Result<State, String> {
        // The name of a file may be written in anything: it is not looked at.
        let head = self.charset.glance(head);
        let header = |name: &str| {
            let is_it = |line: &&str| line.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name));
            head.lines().find(is_it).unwrap_or_default()
        };
        let line = header("content-disposition:");
        let name = parameter(line, "name").ok_or("a part of the form has no name")?;
        self.parts += 1;
        if self.parts > FIELDS_MAX {
            return Err(format!("a form may have {FIELDS_MAX} fields"));
        }
        if let Some(file) = parameter(line, "filename").or_else(|| line.contains("filename*=").then(|| "*".to_owned()))
        {
            // A page's empty choice of a file is none.
            self.files += usize::from(!file.is_empty());
            return Ok(State::Passing);
        }
        if name.contains(char::REPLACEMENT_CHARACTER) {
            return Err(self.charset.refused(NAME));
        }
        let charset = Charset::of(header("content-type:")).unwrap_or(self.charset);
        Ok(State::Text(name, charset, Vec::new()))
    }
}

/// `name="value"` of a header; a quotation mark in it is written `%22`, or behind a backslash.
fn parameter(line: &str, name: &str) -> Option<String> {
    let mut from = 0;
    let wanted = format!("{name}=");
    loop {
        let at = from + line.get(from..)?.find(&wanted)?;
        from = at + wanted.len();
        if !line[..at].ends_with([' ', ';', '\t']) {
            continue;
        }
        let value = &line[from..];
        let Some(quoted) = value.strip_prefix('"') else {
            return Some(value.split([';', ' ']).next().unwrap_or_default().to_owned());
        };
        let mut text = String::new();
        let mut chars = quoted.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => text.extend(chars.next()),
                c => text.push(c),
            }
        }
        return Some(text.replace("%22", "\""));
    }
}

/// Where it stands, if that is not before `from`.
fn find(all: &[u8], part: &[u8], from: usize) -> Option<usize> {
    all.get(from..)?.windows(part.len()).position(|w| w == part).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--x\r\nContent-Disposition: form-data; name=\"service_code\"\r\n\r\nSJ0102\r\n\
        --x\r\nContent-Disposition: form-data; name=\"attribute[KIND][]\"\r\nContent-Type: text/plain\r\n\r\n垃圾\r\nzwei\r\n\
        --x\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a;b.jpg\"\r\n\r\n\u{1}--x\r\n--y\r\n\r\n\
        --x\r\nContent-Disposition: form-data; filename=\"\"; name=\"more\"\r\n\r\n\r\n--x--\r\nwhatever";

    fn read(kind: &str, body: &[u8], step: usize) -> Result<(Vec<Field>, usize), String> {
        let mut form = Form::of(kind).unwrap();
        body.chunks(step).try_for_each(|part| form.push(part))?;
        form.done()
    }

    #[test]
    fn texts_are_kept_and_files_are_counted_however_the_form_is_cut() {
        let own = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        let wanted = vec![own("service_code", "SJ0102"), own("attribute[KIND][]", "垃圾\r\nzwei")];
        for step in 1..BODY.len() {
            let got = read("multipart/form-data; charset=utf-8; Boundary=\"x\"", BODY.as_bytes(), step);
            assert_eq!(got.unwrap(), (wanted.clone(), 1), "in parts of {step} bytes");
        }
    }

    #[test]
    fn a_part_may_have_a_charset_of_its_own_and_the_name_of_a_file_any() {
        let part = |head: &[u8], text: &[u8]| {
            [b"--x\r\nContent-Disposition: form-data; ", head, b"\r\n\r\n", text, b"\r\n"].concat()
        };
        let form = |parts: &[Vec<u8>]| [parts.concat(), b"--x--".to_vec()].concat();
        let of_file = part(b"name=\"media\"; filename=\"\xC8\xFD.jpg\"", b"\xFF");
        let text = part(b"name=\"a\"\r\ncontent-type: text/plain; charset=GBK", b"\xC8\xFD");
        let (fields, files) = read("multipart/form-data; boundary=x", &form(&[of_file, text]), 5).unwrap();
        assert_eq!((fields, files), (vec![Ok(("a".into(), "三".into()))], 1));
        let named = form(&[part(b"name=\"\xC8\xFD\"", b"\xBA\xC5")]);
        let (fields, _) = read("multipart/form-data; boundary=x; charset=gbk", &named, 5).unwrap();
        assert_eq!(fields, [Ok(("三".into(), "号".into()))]);
        assert!(read("multipart/form-data; boundary=x", &named, 5).unwrap_err().starts_with("the name of a field"));
        let bare = form(&[part(b"name=a", b"\xC8\xFD")]);
        let (fields, _) = read("multipart/form-data; boundary=x", &bare, 5).unwrap();
        assert!(fields[0].as_ref().is_err_and(|why| why.starts_with("a is no UTF-8")), "{fields:?}");
    }

    #[test]
    fn what_is_no_form_is_refused_and_a_large_file_needs_no_room() {
        assert!(Form::of("application/x-www-form-urlencoded").is_none() && Form::of("multipart/form-data").is_none());
        assert!(Form::of("multipart/form-data; boundary=").is_none());
        for bad in [&BODY[..BODY.len() - 20], "--x\r\n\r\n\r\ny\r\n--x--", "--xy", "nothing"] {
            assert!(read("multipart/form-data; boundary=x", bad.as_bytes(), 7).is_err(), "{bad}");
        }
        let mut form = Form::of("multipart/form-data; boundary=x").unwrap();
        form.push(b"--x\r\nContent-Disposition: form-data; name=\"m\"; filename=\"a\"\r\n\r\n").unwrap();
        for _ in 0..1_000 {
            form.push(&[b'\r'; 4096]).unwrap();
            assert!(form.rest.len() <= 4096 + 8);
        }
        form.push(b"\r\n--x\r\nContent-Disposition: form-data; name=\"m\"\r\n\r\n").unwrap();
        let long = (0..100).try_for_each(|_| form.push(&[b'a'; 4096]));
        assert!(long.unwrap_err().contains("65536"));
    }

    #[test]
    fn every_part_of_a_form_counts_as_a_field_a_choice_of_no_file_too() {
        for part in ["filename=", "filename=a", "x"] {
            let parts = |n| format!("--x\r\ncontent-disposition:;name=a;{part}\r\n\r\n\r\n").repeat(n) + "--x--";
            let read = |n| read("multipart/form-data; boundary=x", parts(n).as_bytes(), 4096);
            assert!(read(FIELDS_MAX).is_ok(), "{part}");
            assert!(read(FIELDS_MAX + 1).unwrap_err().contains("500 fields"), "{part}");
        }
    }

    #[test]
    fn a_head_has_its_bound_however_it_comes() {
        let long = |n| format!("--x\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n\r\n--x--", "a".repeat(n));
        for step in [1, 1000, 1 << 20] {
            let read = |n| read("multipart/form-data; boundary=x", long(n).as_bytes(), step);
            assert!(read(HEAD_BYTES_MAX - 100).is_ok(), "in parts of {step} bytes");
            assert!(read(HEAD_BYTES_MAX).unwrap_err().contains("too long a head"), "in parts of {step} bytes");
        }
    }
}
