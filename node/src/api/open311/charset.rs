//! In which encoding a form's texts are: what its content type says, or UTF-8. Nothing is guessed: what does not read
//! so is refused, for what is lost on its way in nobody can tell the resident's handlers any more. Pure.

use citybrain_shared::words;
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// How an error calls what a field is called.
pub const NAME: &str = "the name of a field";

/// How the texts of a form, or of a part of one, are written.
#[derive(Clone, Copy, Debug)]
pub struct Charset(&'static Encoding);

impl Charset {
    /// What whoever says nothing writes.
    pub const UTF8: Charset = Charset(UTF_8);

    /// As a content type says it; `None`: it does not, or names one that is not known, or in which a form's own
    /// letters would be others.
    pub fn of(content_type: &str) -> Option<Charset> {
        let (_, parameters) = content_type.split_once(';')?;
        let mut parameters = parameters.split(';').filter_map(|p| p.split_once('='));
        let (_, label) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
        let found = Encoding::for_label_no_replacement(label.trim().trim_matches('"').as_bytes());
        found.filter(|encoding| encoding.is_ascii_compatible()).map(Charset)
    }

    /// # Errors
    /// In words: it is none in this encoding.
    pub fn name(self, bytes: &[u8]) -> Result<String, String> {
        self.text(bytes).ok_or_else(|| self.refused(NAME))
    }

    /// # Errors
    /// In words: it is none in this encoding.
    pub fn value(self, name: &str, bytes: &[u8]) -> Result<String, String> {
        self.text(bytes).ok_or_else(|| self.refused(words::short(name)))
    }

    /// What can be read of it; U+FFFD for the rest.
    pub fn glance(self, bytes: &[u8]) -> String {
        self.text(bytes).unwrap_or_else(|| self.0.decode_without_bom_handling(bytes).0.into_owned())
    }

    fn text(self, bytes: &[u8]) -> Option<String> {
        // Libraries of clients say Latin-1 (or ASCII, which is the same here) of UTF-8 when nobody has told them.
        let is_default = self.0 == UTF_8 || self.0 == WINDOWS_1252;
        if let (true, Ok(text)) = (is_default, std::str::from_utf8(bytes)) {
            return Some(text.to_owned());
        }
        Some(self.0.decode_without_bom_handling_and_without_replacement(bytes)?.into_owned())
    }

    pub fn refused(self, what: &str) -> String {
        format!("{what} is no {}: send UTF-8, or say in the content type what it is: charset=GBK", self.0.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_is_what_the_content_type_says_if_it_is_known() {
        for (kind, wanted) in [
            ("text/plain; charset=GBK", Some("GBK")),
            ("text/plain;format=flowed; CHARSET = \"gb18030\" ", Some("gb18030")),
            ("text/plain; charset=big5", Some("Big5")),
            ("text/plain; charset=\"\"", None),
            ("text/plain; charset=utf-16", None),
            ("text/plain; charset=hz-gb-2312", None),
            ("text/plain; xcharset=GBK", None),
            ("charset=GBK", None),
        ] {
            assert_eq!(Charset::of(kind).map(|charset| charset.0.name()), wanted, "{kind}");
        }
    }

    #[test]
    fn a_text_is_read_whole_or_not_at_all() {
        let gbk = Charset::of("a/b; charset=gb2312").unwrap();
        // Of these four bytes UTF-8 would make two other letters.
        assert_eq!(gbk.text(b"\xCD\xA8\xC4\xA7").as_deref(), Some("通魔"));
        assert_eq!(gbk.text(b"\xC8\xFD\xBA"), None);
        assert_eq!(Charset::UTF8.text(b"\xC8\xFD"), None);
        let latin = Charset::of("a/b; charset=US-ASCII").unwrap();
        assert_eq!((latin.text("é".as_bytes()), latin.text(b"\xE9")), (Some("é".into()), Some("é".into())));
        assert!(gbk.name(b"\xFF").unwrap_err().starts_with("the name of a field is no GBK"));
        assert!(gbk.value("phone", b"\xFF").unwrap_err().starts_with("phone is no GBK"));
    }
}
