//! `citybrain token`: the file that `api.tokens_file` names, who may ask a node over HTTP.

use super::confirm::Yes;
use super::kept::Kept;
use super::render::Ops;
use super::{Fail, Output, own};
use crate::tokens::{self, Entry, Role};
use chrono::Utc;
use citybrain_shared::view;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

const KEPT: Kept = Kept { key: "api.tokens_file", made_by: "token add" };

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token for somebody; it is shown once, and only its hash is kept
    Add {
        #[command(flatten)]
        who: Who,
        /// What it may do
        #[arg(long)]
        role: Role,
    },
    /// Whose tokens there are, and their roles
    List {
        /// The node's `api.tokens_file`
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take a token out: whoever holds it is refused from the next request on
    Remove {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Args)]
pub struct Who {
    /// Whose it is: a person or a program; records of changes name it
    pub name: String,
    /// The node's `api.tokens_file`; a running node sees a change at once
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

impl Token {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Token::Add { who, role } => add(&who, role),
            Token::List { file } => {
                let (entries, bad) = tokens::parse(&tokens::read(&file).map_err(|e| KEPT.unreadable(&file, &e))?);
                let tokens = entries
                    .into_iter()
                    .map(|e| view::TokenHeld { name: e.name, role: e.role.to_string(), created: e.created })
                    .collect();
                let unreadable = bad.into_iter().map(|(line, why)| format!("line {line}: {why}")).collect();
                Ok(Output::Ops(Ops::Tokens(own(view::Tokens { tokens, unreadable }))))
            }
            Token::Remove { who, yes } => {
                let without = |text: String| -> Result<String, Fail> {
                    if !tokens::parse(&text).0.iter().any(|e| e.name == who.name) {
                        let hint = format!("`citybrain token list --file {}` shows all", who.file.display());
                        return Err(Fail::no("not-found", format!("there is no token `{}`", who.name), hint));
                    }
                    let is_its = |line: &&str| line.split_whitespace().next() == Some(&who.name);
                    Ok(text.lines().filter(|l| !is_its(l)).map(|l| format!("{l}\n")).collect())
                };
                // Asked about what is there, and asked before the file is held.
                without(tokens::read(&who.file).map_err(|e| KEPT.unreadable(&who.file, &e))?)?;
                yes.confirm(&format!("Whoever holds the token `{}` is refused from now on.", who.name))?;
                rewrite(&who.file, without)?;
                Ok(Output::Text(format!("removed {}\n", who.name)))
            }
        }
    }
}

fn rewrite(file: &Path, change: impl FnOnce(String) -> Result<String, Fail>) -> Result<(), Fail> {
    tokens::rewrite(file, change).map_err(|stopped| KEPT.stopped(file, stopped))
}

#[allow(clippy::disallowed_methods, reason = "a token has a day on which it was made, for people")]
fn add(who: &Who, role: Role) -> Result<Output, Fail> {
    tokens::check_name(&who.name).map_err(|e| Fail::usage(e, "such as `anna` or `prometheus`"))?;
    let token = tokens::mint().map_err(|e| Fail::no("random", e.to_string(), "try again"))?;
    let created = Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let entry = Entry { name: who.name.clone(), role, hash: tokens::hash(&token), created: Some(created) };
    rewrite(&who.file, |mut text| {
        if tokens::parse(&text).0.iter().any(|e| e.name == who.name) {
            let hint = format!("`citybrain token remove {} --file {}` first", who.name, who.file.display());
            return Err(Fail::no("exists", format!("there is a token `{}` already", who.name), hint));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(format!("{text}{entry}\n"))
    })?;
    // Alone on stdout, so that a shell can put it into a file.
    eprintln!("The token of {} ({role}); it is shown only now:", who.name);
    Ok(Output::Text(format!("{token}\n")))
}
