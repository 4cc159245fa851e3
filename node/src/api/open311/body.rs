//! Answers of GeoReport v2, in XML and in JSON from one tree, by the Spark convention: a list is a
//! wrapper with an element each in XML and a bare array in JSON; what is empty is an empty element
//! and `null`.

use crate::cap::write::escape;
use std::fmt::Write as _;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Xml,
    Json,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Xml => "text/xml; charset=utf-8",
            Format::Json => "application/json; charset=utf-8",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Null,
    Text(String),
    Number(f64),
    Count(u64),
    Bool(bool),
    /// The name of each element in XML.
    List(&'static str, Vec<Body>),
    /// In this order.
    Object(Vec<(&'static str, Body)>),
}

impl Body {
    /// Empty text is nothing.
    pub fn text(text: impl Into<String>) -> Body {
        let text = text.into();
        if text.is_empty() { Body::Null } else { Body::Text(text) }
    }

    pub fn number(n: Option<f64>) -> Body {
        n.map_or(Body::Null, Body::Number)
    }

    /// `root` is the outermost element in XML; JSON has none.
    pub fn write(&self, root: &str, format: Format) -> String {
        match format {
            Format::Json => self.json().to_string() + "\n",
            Format::Xml => {
                let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
                self.xml(root, &mut out);
                out.push('\n');
                out
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Body::Null => serde_json::Value::Null,
            Body::Text(t) => t.as_str().into(),
            Body::Number(n) => (*n).into(),
            Body::Count(n) => (*n).into(),
            Body::Bool(b) => (*b).into(),
            Body::List(_, items) => items.iter().map(Body::json).collect(),
            Body::Object(fields) => fields.iter().map(|(name, value)| ((*name).to_owned(), value.json())).collect(),
        }
    }

    fn xml(&self, name: &str, out: &mut String) {
        // Writing into a String cannot fail.
        if *self == Body::Null {
            let _ = write!(out, "<{name}/>");
            return;
        }
        let _ = match self {
            Body::Null => Ok(()),
            Body::Number(n) => write!(out, "<{name}>{n}"),
            Body::Count(n) => write!(out, "<{name}>{n}"),
            Body::Bool(b) => write!(out, "<{name}>{b}"),
            Body::Text(text) => write!(out, "<{name}>").map(|()| escape(text, out)),
            Body::List(item, items) => write!(out, "<{name}>").map(|()| items.iter().for_each(|i| i.xml(item, out))),
            Body::Object(fields) => {
                write!(out, "<{name}>").map(|()| fields.iter().for_each(|(field, value)| value.xml(field, out)))
            }
        };
        let _ = write!(out, "</{name}>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Body {
        Body::List(
            "service",
            vec![Body::Object(vec![
                ("service_code", Body::text("SJ0102")),
                ("service_name", Body::text("暴露垃圾")),
                ("description", Body::text("")),
                ("metadata", Body::Bool(true)),
                ("type", Body::text("realtime")),
                ("keywords", Body::text("垃圾,环卫")),
                ("group", Body::text("市容环境")),
            ])],
        )
    }

    #[test]
    fn a_service_list_is_written_as_the_specification_has_it() {
        assert_eq!(
            service().write("services", Format::Xml),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<services><service><service_code>SJ0102</service_code>\
             <service_name>暴露垃圾</service_name><description/><metadata>true</metadata><type>realtime</type>\
             <keywords>垃圾,环卫</keywords><group>市容环境</group></service></services>\n"
        );
        let json: serde_json::Value = serde_json::from_str(&service().write("services", Format::Json)).unwrap();
        let wanted = r#"[{"service_code":"SJ0102","service_name":"暴露垃圾","description":null,"metadata":true,"type":"realtime","keywords":"垃圾,环卫","group":"市容环境"}]"#;
        assert_eq!(json, serde_json::from_str::<serde_json::Value>(wanted).unwrap());
    }

    #[test]
    fn nothing_that_somebody_wrote_becomes_markup() {
        let body = Body::Text("a<b>&\"'c\r\n\u{0}\u{1b}\u{ffff}]]>温".into());
        assert_eq!(
            body.write("d", Format::Xml),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<d>a&lt;b&gt;&amp;\"'c&#13;\n\u{fffd}\u{fffd}\u{fffd}]]&gt;温</d>\n"
        );
    }

    #[test]
    fn empty_lists_and_numbers() {
        let body = Body::Object(vec![
            ("values", Body::List("value", vec![])),
            ("lat", Body::Number(30.698)),
            ("n", Body::Count(1)),
            ("long", Body::number(None)),
        ]);
        assert!(body.write("x", Format::Xml).ends_with("<x><values></values><lat>30.698</lat><n>1</n><long/></x>\n"));
        let json: serde_json::Value = serde_json::from_str(&body.write("x", Format::Json)).unwrap();
        assert_eq!(json, serde_json::json!({"lat": 30.698, "long": null, "n": 1, "values": []}));
    }
}
