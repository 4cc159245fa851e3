//! Numbers, lengths of time, sizes and texts from outside, as people are shown them; and errors in one line.

use chrono::{DateTime, Utc};
use std::error::Error;
use std::fmt::Write;

/// An error and its causes, in one line. A cause that a message before it has said already is not said
/// again: other people's errors often carry it in their own text.
pub fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !line.contains(&said) {
            line.push_str(": ");
            line.push_str(&said);
        }
        next = cause.source();
    }
    line
}

/// 1204881 as `1,204,881`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 node`, `1,204 nodes`.
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Milliseconds in two units at most: `0.4 s`, `7 m 12 s`, `3 h 5 m`, `2 d 4 h`.
pub fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..10 => format!("{}.{} s", s, ms % 1000 / 100),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} m {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A moment, to the second, where it is not known who will read it: `2026-11-20 10:00:00Z`.
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A size: `512 bytes`, `1.5 kB`, `20.0 MB`, `1.2 GB`, each a thousand of the one before.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// A text from outside in one line and without control characters, so that it cannot steer a terminal.
pub fn clean(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.replace("\r\n", "\n").chars().map(plain).collect()
}

/// So many characters are enough to recognise a text by.
const SHORT_CHARS: usize = 64;

/// As much of a text from outside as an error shows of it.
pub fn short(text: &str) -> &str {
    beginning(text, SHORT_CHARS)
}

/// At most so many characters of a text.
pub fn beginning(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

/// Bytes as the text that they are.
///
/// # Errors
/// Where they are none, in words.
pub fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        format!("byte {} (0x{:02X}) is no UTF-8", at + 1, bytes[at])
    })
}

/// Bytes as a text in any case: whichever is no UTF-8 stands as U+FFFD with its two digits behind it. So what was
/// sent can still be told, and two things that differed still do.
pub fn readable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "{}{byte:02X}", char::REPLACEMENT_CHARACTER);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        #[source]
        cause: Option<Box<Said>>,
    }

    fn said(words: &[&'static str]) -> Said {
        let (first, rest) = words.split_first().expect("an error says something");
        Said { said: first, cause: (!rest.is_empty()).then(|| Box::new(said(rest))) }
    }

    #[test]
    fn causes_follow_in_one_line_and_none_is_said_twice() {
        assert_eq!(with_causes(&said(&["no link"])), "no link");
        assert_eq!(with_causes(&said(&["no link", "no socket", "port in use"])), "no link: no socket: port in use");
        assert_eq!(with_causes(&said(&["no link: refused", "refused", "by whom"])), "no link: refused: by whom");
    }

    #[test]
    fn what_is_no_utf8_is_told_by_its_place_and_still_read() {
        assert_eq!(utf8("温 1".as_bytes()), Ok("温 1"));
        assert_eq!(utf8(b"ab\xc8\xcb").unwrap_err(), "byte 3 (0xC8) is no UTF-8");
        assert_eq!(utf8(b"\xe6\xb8").unwrap_err(), "byte 1 (0xE6) is no UTF-8", "it ends within a character");
        assert_eq!(readable(b"ab\xc8\xcb c\xff"), "ab\u{fffd}C8\u{fffd}CB c\u{fffd}FF");
        assert_eq!(readable("温".as_bytes()), "温");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 1204].map(|n| counted(n, "node")), ["0 nodes", "1 node", "1,204 nodes"]);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (ms, want) in
            [(0, "0.0 s"), (9_950, "9.9 s"), (59_999, "59 s"), (3_599_000, "59 m 59 s"), (90_000_000, "1 d 1 h")]
        {
            assert_eq!(span(ms), want);
        }
    }

    #[test]
    fn a_text_from_outside_is_cut_between_characters_and_steers_no_terminal() {
        assert_eq!([0, 2, 3, 9].map(|n| beginning("路灯 7", n)), ["", "路灯", "路灯 ", "路灯 7"]);
        assert_eq!(short(&"灯".repeat(65)), "灯".repeat(64));
        assert_eq!(clean("a\u{1b}[2Jb\r"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(clean("三号门\r\n夜里\n很吵\t"), "三号门 夜里 很吵 ");
    }
}
