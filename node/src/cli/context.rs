//! `citybrain context`: names for nodes elsewhere, with their tokens, so that nobody types URLs.

use super::confirm::Yes;
use super::render::Ops;
use super::{Fail, Output, own};
use crate::ask::contexts::{self, Contexts, Place};
use crate::ask::is_http;
use crate::https::Trust;
use crate::tokens::{TOKEN_HINT, token_in};
use citybrain_hub::tls::Pair;
use citybrain_shared::view;
use clap::Subcommand;
use std::path::PathBuf;

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

impl Context {
    pub fn act(self) -> Result<Output, Fail> {
        let path = contexts::path()?;
        let mut all = contexts::read(&path)?;
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
                is_http(&url)?;
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
                all.named(&name)?;
                all.current = Some(name.clone());
                format!("{name} is used from now on\n")
            }
            Context::Remove { name, yes } => {
                all.named(&name)?;
                yes.confirm(&format!("The context `{name}` is forgotten; its token's file stays."))?;
                all.context.remove(&name);
                all.current.take_if(|c| *c == name);
                format!("{name} is removed\n")
            }
        };
        contexts::write(&path, &all)?;
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
