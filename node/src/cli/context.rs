//! `citybrain context`: names for nodes elsewhere, with their tokens, so that nobody types URLs.
//!
//! They stand in `contexts.toml` in `$XDG_CONFIG_HOME/citybrain`, or `~/.config/citybrain`. A token
//! is never in it: only the name of the file that holds it.

use super::confirm::Yes;
use super::render::Ops;
use super::{Fail, Output, own};
use crate::https::Trust;
use crate::replace::{Rights, replace};
use crate::tokens::{TOKEN_HINT, token_in};
use citybrain_hub::tls::Pair;
use citybrain_shared::view;
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

#[derive(Debug, Subcommand)]
pub enum Context {
    /// Give a node a name; the first one is used at once
    Add {
        /// What it is called from now on
        name: String,
        /// The node's API, such as https://10.0.0.5:8080
        url: String,
        /// A file with a token that the node knows
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// For https://: PEM file of the certificates that sign the node's [default: whom this machine trusts]
        #[arg(long = "ca", value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// For https://: PEM file of the certificate that is shown instead of a token
        #[arg(long = "cert", value_name = "FILE", requires = "key_file")]
        cert_file: Option<PathBuf>,
        /// PEM file of the key that belongs to --cert
        #[arg(long = "cert-key", value_name = "FILE", requires = "cert_file")]
        key_file: Option<PathBuf>,
    },
    /// Ask this node from now on, where a command names no other
    Use {
        /// As `context list` shows it
        name: String,
    },
    /// All, and which one is used
    List,
    /// Forget one
    Remove {
        /// As `context list` shows it
        name: String,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    context: BTreeMap<String, Place>,
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

impl Context {
    pub fn act(self) -> Result<Output, Fail> {
        let path = path()?;
        let mut all = read(&path)?;
        let done = match self {
            Context::List => return Ok(list(all)),
            Context::Add { name, url, token_file, ca_file, cert_file, key_file } => {
                if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(Fail::usage(format!("`{name}` is no name"), "a word, such as `city`"));
                }
                if let Some(known) = all.context.get(&name) {
                    return Err(Fail::usage(
                        format!("there is a context `{name}` already: {}", known.url),
                        format!("another name, or first `citybrain context remove {name}`"),
                    ));
                }
                super::ask::is_http(&url)?;
                // From another folder the file has to be found, too.
                let absolute = |f: PathBuf| std::path::absolute(&f).unwrap_or(f);
                let [token_file, ca_file, cert_file, key_file] =
                    [token_file, ca_file, cert_file, key_file].map(|file| file.map(absolute));
                let tls = Trust::of(ca_file.as_deref()).config_showing(&url, Pair::of(&cert_file, &key_file).as_ref());
                tls.map_err(|why| Fail::usage(why, "--ca, --cert and --cert-key name PEM files"))?;
                if let Some(file) = &token_file {
                    token_in(file).map_err(|why| Fail::usage(why, TOKEN_HINT))?;
                }
                let url = url.trim_end_matches('/').to_owned();
                let place = Place { url, token_file, ca_file, cert_file, key_file };
                all.context.insert(name.clone(), place);
                if all.current.is_none() {
                    all.current = Some(name.clone());
                    format!("{name} is added, and used from now on\n")
                } else {
                    format!("{name} is added; `citybrain context use {name}` uses it\n")
                }
            }
            Context::Use { name } => {
                all.place(&name)?;
                all.current = Some(name.clone());
                format!("{name} is used from now on\n")
            }
            Context::Remove { name, yes } => {
                all.place(&name)?;
                yes.confirm(&format!("The context `{name}` is forgotten; its token's file stays."))?;
                all.context.remove(&name);
                all.current.take_if(|c| *c == name);
                format!("{name} is removed\n")
            }
        };
        write(&path, &all)?;
        Ok(Output::Text(done))
    }
}

fn list(all: Contexts) -> Output {
    let contexts = all
        .context
        .into_iter()
        .map(|(name, place)| view::ContextKept {
            used: all.current.as_ref() == Some(&name),
            name,
            url: place.url,
            token_file: place.token_file.map(|f| f.display().to_string()),
            ca_file: place.ca_file.map(|f| f.display().to_string()),
            cert_file: place.cert_file.map(|f| f.display().to_string()),
        })
        .collect();
    Output::Ops(Ops::Contexts(own(view::Contexts { contexts })))
}

impl Contexts {
    fn place(&self, name: &str) -> Result<&Place, Fail> {
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
        Some(name) => all.place(name).cloned().map(Some),
    }
}

fn path() -> Result<PathBuf, Fail> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let folder = config.ok_or_else(|| Fail::usage("there is no home folder to keep contexts in", "set HOME"))?;
    Ok(folder.join("citybrain").join("contexts.toml"))
}

fn read(path: &Path) -> Result<Contexts, Fail> {
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

fn write(path: &Path, all: &Contexts) -> Result<(), Fail> {
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
        assert_eq!(back.place("city").unwrap().url, "https://h:1");
        assert_eq!(back.place("city").unwrap().ca_file.as_deref(), Some(Path::new("/ca")));
        let fail = back.place("moon").unwrap_err();
        assert_eq!((fail.code, fail.failure.hint.as_str()), (2, "there is city"));
        fs::write(&path, "context = 7").unwrap();
        assert_eq!(read(&path).unwrap_err().code, 2);
    }
}
