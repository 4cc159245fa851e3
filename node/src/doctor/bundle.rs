//! One file with all that somebody elsewhere needs to say what is wrong: a tar, with secrets removed.
//!
//! | file | what |
//! |---|---|
//! | `facts.json` | what [`super::examine`] works from |
//! | `doctor.json`, `status.json`, `links.json`, `tree.json`, `config.json`, `dlq.json`, `version.json` | the node's answers |
//! | `metrics.txt`, `log-lines.txt` | as text |
//!
//! Dead letters go in without what was sent: payloads are residents' matters. Web addresses go in
//! without their paths.

use super::Facts;
use crate::https::without_path;
use crate::webhook;
use citybrain_shared::view::Head;
use std::io::{self, Read, Write};

/// A bundle larger than this is none of ours.
const ENTRY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Writes the files into a tar.
///
/// # Errors
/// When it cannot be written.
pub fn write(out: impl Write, files: &[(String, Vec<u8>)], mtime_s: u64) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(mtime_s);
        tar.append_data(&mut header, name, bytes.as_slice())?;
    }
    tar.into_inner()?.flush()
}

/// The facts in a bundle, and the head of the answer that they came with: whose they are, and of when.
///
/// # Errors
/// When it is no bundle.
pub fn read(from: impl Read) -> io::Result<(Facts, Head)> {
    let mut tar = tar::Archive::new(from);
    let (mut facts, mut head) = (None, None);
    for entry in tar.entries()? {
        let entry = entry?;
        let name = entry.path()?.into_owned();
        let mut text = Vec::new();
        match name.to_str() {
            Some("facts.json") => {
                entry.take(ENTRY_BYTES_MAX).read_to_end(&mut text)?;
                facts = Some(serde_json::from_slice(&text)?);
            }
            Some("doctor.json") => {
                entry.take(ENTRY_BYTES_MAX).read_to_end(&mut text)?;
                head = Some(serde_json::from_slice(&text)?);
            }
            _ => {}
        }
    }
    let no = |name| {
        let why = format!("it has no `{name}`: it is no bundle of `citybrain doctor`");
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    Ok((facts.ok_or_else(|| no("facts.json"))?, head.ok_or_else(|| no("doctor.json"))?))
}

/// Takes what was sent out of a list of dead letters, and what receivers said to it.
pub fn without_payloads(dlq: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(dlq) else { return Vec::new() };
    for letter in value["dead_letters"].as_array_mut().into_iter().flatten() {
        if let Some(map) = letter.as_object_mut() {
            map.remove("payload");
            if map.get("via").and_then(|via| via.as_str()).is_some_and(|via| via.starts_with(webhook::VIA)) {
                map.remove("detail");
            }
        }
    }
    serde_json::to_vec_pretty(&value).unwrap_or_default()
}

/// Leaves of the web addresses in a config what is before their path: the rest may be a secret of who
/// gave the address.
pub fn without_paths(config: &[u8]) -> Vec<u8> {
    fn shorten(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Array(all) => all.iter_mut().for_each(shorten),
            serde_json::Value::Object(map) => map.values_mut().for_each(shorten),
            serde_json::Value::String(text) if text.starts_with("http://") || text.starts_with("https://") => {
                *text = without_path(text);
            }
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(config) else { return Vec::new() };
    shorten(&mut value);
    serde_json::to_vec_pretty(&value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_reads_back_and_anything_else_is_refused() {
        let facts = Facts { version: "9".into(), ..Facts::default() };
        let head = br#"{"schema":"citybrain.doctor/1","node":"c/s","as_of":"2026-07-01T08:00:00Z","ok":true}"#;
        let files = [
            ("a.txt".to_owned(), b"x".to_vec()),
            ("facts.json".to_owned(), serde_json::to_vec(&facts).unwrap()),
            ("doctor.json".to_owned(), head.to_vec()),
        ];
        let mut out = Vec::new();
        write(&mut out, &files, 0).unwrap();
        let (back, whose) = read(out.as_slice()).unwrap();
        assert_eq!((back, whose.node.as_str()), (facts, "c/s"));
        assert_eq!(whose.as_of, "2026-07-01T08:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap());
        assert!(read(&b"no tar at all"[..]).is_err());
        let mut other = Vec::new();
        write(&mut other, &files[..1], 0).unwrap();
        assert!(read(other.as_slice()).unwrap_err().to_string().contains("facts.json"));
    }

    #[test]
    fn the_paths_of_web_addresses_stay_at_home() {
        let text = br#"{"webhook":[{"url":"https://u:p@app.example:8443/hook/s3cret?k=v","name":"https"}],"n":1}"#;
        let got = String::from_utf8(without_paths(text)).unwrap();
        assert!(got.contains("\"https://app.example:8443/\u{2026}\"") && got.contains("\"name\": \"https\""), "{got}");
        assert!(!got.contains("s3cret") && !got.contains("u:p"), "{got}");
    }

    #[test]
    fn what_residents_sent_stays_at_home() {
        let text = br#"{"open":1,"dead_letters":[{"pos":1,"payload":"my address","reason":"not-json"}]}"#;
        let got = String::from_utf8(without_payloads(text)).unwrap();
        assert!(got.contains("not-json") && !got.contains("my address"), "{got}");
    }
}
