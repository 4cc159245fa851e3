//! Names for nodes elsewhere, with what opens them: `contexts.toml` in `$XDG_CONFIG_HOME/citybrain`, or
//! `~/.config/citybrain`. A token is never in it: only the name of the file that holds it.

use super::Fail;
use crate::replace::{Rights, replace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    pub context: BTreeMap<String, Place>,
}

/// Where a node is asked, and what opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Contexts {
    /// # Errors
    /// There is none of that name.
    pub fn named(&self, name: &str) -> Result<&Place, Fail> {
        self.context.get(name).ok_or_else(|| {
            let hint = match self.context.keys().map(String::as_str).collect::<Vec<_>>().as_slice() {
                [] => "there is none yet: `citybrain context add NAME URL`".to_owned(),
                known => format!("there is {}", known.join(", ")),
            };
            Fail::usage(format!("there is no context `{name}`"), hint)
        })
    }
}

/// The context of this name, or the one in use; `None` if none is in use.
///
/// # Errors
/// When there is none of that name, or the file does not read.
pub fn place(name: Option<&str>) -> Result<Option<Place>, Fail> {
    let all = match (path(), name) {
        (Ok(path), _) => read(&path)?,
        // Without a home folder there are no contexts; only who asks for one has to hear it.
        (Err(_), None) => return Ok(None),
        (Err(fail), Some(_)) => return Err(fail),
    };
    match name.or(all.current.as_deref()) {
        None => Ok(None),
        Some(name) => all.named(name).cloned().map(Some),
    }
}

/// # Errors
/// There is no home folder.
pub fn path() -> Result<PathBuf, Fail> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let folder = config.ok_or_else(|| Fail::usage("there is no home folder to keep contexts in", "set HOME"))?;
    Ok(folder.join("citybrain").join("contexts.toml"))
}

/// # Errors
/// It is there, and does not read.
pub fn read(path: &Path) -> Result<Contexts, Fail> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(e) => return Err(Fail::usage(format!("cannot read `{}`: {e}", path.display()), "whose file is it?")),
    };
    toml::from_str(&text).map_err(|e| {
        let hint = "correct it, or delete it and add the contexts again";
        Fail::usage(format!("`{}` does not read: {}", path.display(), e.message()), hint)
    })
}

/// # Errors
/// It cannot be written.
pub fn write(path: &Path, all: &Contexts) -> Result<(), Fail> {
    let text =
        toml::to_string(all).map_err(|e| Fail::no("unwritable", format!("a context cannot be kept: {e}"), ""))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let done = fs::create_dir_all(folder).and_then(|()| replace(path, text.as_bytes(), Rights::Kept { new: 0o644 }));
    done.map_err(|e| Fail::no("unwritable", format!("cannot write `{}`: {e}", path.display()), "whose folder is it?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_read_back_and_an_unknown_one_names_those_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/contexts.toml");
        assert!(read(&path).unwrap().context.is_empty());
        let place = Place {
            url: "https://h:1".into(),
            token_file: Some("/t".into()),
            ca_file: Some("/ca".into()),
            cert_file: None,
            key_file: None,
        };
        let all = Contexts { current: Some("city".into()), context: [("city".to_owned(), place)].into() };
        write(&path, &all).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.named("city").unwrap().url, "https://h:1");
        assert_eq!(back.named("city").unwrap().ca_file.as_deref(), Some(Path::new("/ca")));
        let fail = back.named("moon").unwrap_err();
        assert_eq!((fail.code, fail.failure.hint.as_str()), (2, "there is city"));
        fs::write(&path, "context = 7").unwrap();
        assert_eq!(read(&path).unwrap_err().code, 2);
    }
}
