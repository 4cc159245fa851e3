//! Forms as `multipart/form-data` (RFC 7578), read as they come: what is text is kept, what is a file is
//! counted and let go, so that a picture costs no memory. Pure.

/// Bytes of all texts together, as of any other form.
const TEXT_BYTES_MAX: usize = super::FORM_BYTES_MAX;
/// Bytes of the headers of one part.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Fields of one form.
const FIELDS_MAX: usize = 500;

enum State {
    /// Before the first part, or in a file: nothing of it is kept.
    Passing,
    /// Behind a delimiter: another part, or the end.
    Behind,
    Head,
    Text(String, Vec<u8>),
    Done,
}

/// A form being read.
pub struct Form {
    delimiter: Vec<u8>,
    /// What could still be a part of a delimiter, or of a head.
    rest: Vec<u8>,
    state: State,
    text_bytes: usize,
    fields: Vec<(String, String)>,
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
            state: State::Passing,
            text_bytes: 0,
            fields: Vec::new(),
            files: 0,
        })
    }

    /// # Errors
    /// In words: what does not read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        loop {
            let state = std::mem::replace(&mut self.state, State::Done);
            self.state = match state {
                State::Done => {
                    self.rest.clear();
                    return Ok(());
                }
                State::Behind => match self.rest.get(..2) {
                    None => return self.wait(State::Behind),
                    Some(b"--") => State::Done,
                    Some(b"\r\n") => State::Head,
                    Some(_) => return Err("behind a boundary of the form stands neither a part nor its end".into()),
                },
                // The line break of the delimiter's own line counts: a head may be empty.
                State::Head => match find(&self.rest, b"\r\n\r\n") {
                    None if self.rest.len() > HEAD_BYTES_MAX => {
                        return Err("a part of the form has too long a head".into());
                    }
                    None => return self.wait(State::Head),
                    Some(at) => {
                        let head: Vec<u8> = self.rest.drain(..at + 4).collect();
                        self.begin(&String::from_utf8_lossy(&head))?
                    }
                },
                in_part => match find(&self.rest, &self.delimiter) {
                    Some(at) => {
                        let last: Vec<u8> = self.rest.drain(..at + self.delimiter.len()).take(at).collect();
                        if let State::Text(name, mut text) = in_part {
                            self.count(last.len())?;
                            text.extend(last);
                            self.fields.push((name, String::from_utf8_lossy(&text).into_owned()));
                        }
                        State::Behind
                    }
                    None => {
                        let safe = self.rest.len().saturating_sub(self.delimiter.len() - 1);
                        let passed: Vec<u8> = self.rest.drain(..safe).collect();
                        let state = match in_part {
                            State::Text(name, mut text) => {
                                self.count(passed.len())?;
                                text.extend(passed);
                                State::Text(name, text)
                            }
                            other => other,
                        };
                        return self.wait(state);
                    }
                },
            };
        }
    }

    /// Names and texts, and how many files there were.
    ///
    /// # Errors
    /// It broke off.
    pub fn done(self) -> Result<(Vec<(String, String)>, usize), String> {
        match self.state {
            State::Done => Ok((self.fields, self.files)),
            _ => Err("the form breaks off before its end".into()),
        }
    }

    fn wait(&mut self, state: State) -> Result<(), String> {
        self.state = state;
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.text_bytes += bytes;
        if self.text_bytes > TEXT_BYTES_MAX {
            return Err(format!("the texts of a form may have {TEXT_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn begin(&mut self, head: &str) -> Result<State, String> {
        let is_disposition = |l: &&str| l.get(..20).is_some_and(|n| n.eq_ignore_ascii_case("content-disposition:"));
        let line = head.lines().find(is_disposition).unwrap_or_default();
        let name = parameter(line, "name").ok_or("a part of the form has no name")?;
        if self.fields.len() + self.files >= FIELDS_MAX {
            return Err(format!("a form may have {FIELDS_MAX} fields"));
        }
        if let Some(file) = parameter(line, "filename").or_else(|| line.contains("filename*=").then(|| "*".to_owned()))
        {
            // A page's empty choice of a file is none.
            self.files += usize::from(!file.is_empty());
            return Ok(State::Passing);
        }
        Ok(State::Text(name, Vec::new()))
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

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|w| w == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "--x\r\nContent-Disposition: form-data; name=\"service_code\"\r\n\r\nSJ0102\r\n\
        --x\r\nContent-Disposition: form-data; name=\"attribute[KIND][]\"\r\nContent-Type: text/plain\r\n\r\n垃圾\r\nzwei\r\n\
        --x\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a;b.jpg\"\r\n\r\n\u{1}--x\r\n--y\r\n\r\n\
        --x\r\nContent-Disposition: form-data; filename=\"\"; name=\"more\"\r\n\r\n\r\n--x--\r\nwhatever";

    fn read(kind: &str, body: &[u8], step: usize) -> Result<(Vec<(String, String)>, usize), String> {
        let mut form = Form::of(kind).unwrap();
        body.chunks(step).try_for_each(|part| form.push(part))?;
        form.done()
    }

    #[test]
    fn texts_are_kept_and_files_are_counted_however_the_form_is_cut() {
        let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let wanted = vec![own("service_code", "SJ0102"), own("attribute[KIND][]", "垃圾\r\nzwei")];
        for step in 1..BODY.len() {
            let got = read("multipart/form-data; charset=utf-8; Boundary=\"x\"", BODY.as_bytes(), step);
            assert_eq!(got.unwrap(), (wanted.clone(), 1), "in parts of {step} bytes");
        }
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
}
