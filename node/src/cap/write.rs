//! CAP 1.2 as XML, in the order that CAP demands.

use super::{ALERT, Element, Holds, Message, NAMESPACE};
use serde_json::{Map, Value};

/// The message; an element that the table does not know is left out.
pub fn write(message: &Message) -> String {
    let mut out = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<alert xmlns=\"{NAMESPACE}\">\n");
    parts(message, ALERT, 1, &mut out);
    out.push_str("</alert>\n");
    out
}

fn parts(within: &Map<String, Value>, table: &[Element], depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for element in table {
        let all = match within.get(element.name) {
            Some(Value::Array(all)) => all.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => continue,
        };
        for value in all {
            out.push_str(&format!("{indent}<{}>", element.name));
            match (element.holds, value) {
                (Holds::Parts(table), Value::Object(within)) => {
                    out.push('\n');
                    parts(within, table, depth + 1, out);
                    out.push_str(&indent);
                }
                (_, Value::String(text)) => escape(text, out),
                _ => {}
            }
            out.push_str(&format!("</{}>\n", element.name));
        }
    }
}

/// What XML 1.0 cannot hold (section 2.2: most control characters) becomes U+FFFD. A carriage return
/// would be read as a line feed, so it goes as a reference.
pub fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}
