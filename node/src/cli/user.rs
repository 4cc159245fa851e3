//! `citybrain user`: the file of accounts that `[access] users_file` names.

use super::confirm::Yes;
use super::kept::Kept;
use super::render::Ops;
use super::{Fail, Output, own};
use crate::replace::{self, Rights};
use citybrain_hub::door::users;
use citybrain_shared::Address;
use citybrain_shared::config::Role;
use citybrain_shared::view;
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

const KEPT: Kept = Kept { key: "[access] users_file", made_by: "user add" };

#[derive(Debug, Subcommand)]
pub enum User {
    /// Add a user; the password is asked for, or read as a line from standard input
    Add {
        #[command(flatten)]
        who: Who,
        /// The account of a child node, which may then speak only as this address
        #[arg(long)]
        address: Option<Address>,
        /// A role of `[[role]]` in the node's config; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// No password: it comes in only by a TLS certificate of this name
        #[arg(long)]
        certificate: bool,
    },
    /// Give a user another password
    Passwd {
        #[command(flatten)]
        who: Who,
    },
    /// Users: name, child node's address, roles, and by what they come in
    List {
        /// The node's `access.users_file`
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take a user out
    Remove {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        yes: Yes,
    },
}

#[derive(Debug, Args)]
pub struct Who {
    /// The user's name, as in a CONNECT
    pub name: String,
    /// The node's `access.users_file`; a running node sees a change at once
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

impl User {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            User::Add { who, address, roles, certificate } => {
                if who.name.is_empty() || who.name.starts_with('#') || who.name.contains([':', '\n', '\r', '\0']) {
                    return Err(Fail::usage(
                        "a name may not be empty, begin with `#` or contain `:`",
                        "choose another",
                    ));
                }
                if address.as_ref().is_some_and(|a| a.depth() < 2) {
                    return Err(Fail::usage("a city is nobody's child", "give the child's whole address, such as c/s"));
                }
                if let Some(bad) = roles.iter().find(|r| !Role::is_name(r)) {
                    return Err(Fail::usage(format!("`{bad}` is no name of a role"), "use a-z, 0-9 and `-`"));
                }
                let is_new = |lines: &Lines| match lines.find(&who.name) {
                    None => Ok(()),
                    Some(_) => {
                        let hint = format!("`citybrain user passwd {} --file …` gives another password", who.name);
                        Err(Fail::no("exists", format!("there is a user `{}` already", who.name), hint))
                    }
                };
                // Before a password is asked for in vain, and again when nobody else may write.
                is_new(&Lines::read(&who.file, true)?)?;
                let hash = if certificate { None } else { Some(asked_hash()?.into()) };
                edit(&who.file, true, |lines| {
                    is_new(lines)?;
                    lines.all.push(users::Account { hash, child: address, roles }.line(&who.name));
                    Ok(())
                })?;
                Ok(Output::Text(format!("added {}\n", who.name)))
            }
            User::Passwd { who } => {
                Lines::read(&who.file, false)?.must_find(&who.name)?;
                let hash = Some(asked_hash()?.into());
                edit(&who.file, false, |lines| {
                    let at = lines.must_find(&who.name)?;
                    let (mut known, _) = users::parse(&lines.all[at]);
                    let before = known.remove(&who.name);
                    let (child, roles) = before.map_or((None, Vec::new()), |a| (a.child, a.roles));
                    lines.all[at] = users::Account { hash, child, roles }.line(&who.name);
                    Ok(())
                })?;
                Ok(Output::Text(format!("changed {}\n", who.name)))
            }
            User::List { file } => {
                let lines = Lines::read(&file, false)?;
                let (known, bad) = users::parse(&lines.all.join("\n"));
                let mut known: Vec<_> = known.into_iter().collect();
                known.sort_by(|a, b| a.0.cmp(&b.0));
                let held = |(name, account): (String, users::Account)| view::UserHeld {
                    name,
                    by: if account.hash.is_some() { "password" } else { "certificate" }.into(),
                    child: account.child,
                    roles: account.roles,
                };
                let users = known.into_iter().map(held).collect();
                let unreadable = bad.iter().map(ToString::to_string).collect();
                Ok(Output::Ops(Ops::Users(own(view::Users { users, unreadable }))))
            }
            User::Remove { who, yes } => {
                Lines::read(&who.file, false)?.must_find(&who.name)?;
                yes.confirm(&format!("The user `{}` is refused from now on, and sent away where it is in.", who.name))?;
                edit(&who.file, false, |lines| {
                    let at = lines.must_find(&who.name)?;
                    lines.all.remove(at);
                    Ok(())
                })?;
                Ok(Output::Text(format!("removed {}\n", who.name)))
            }
        }
    }
}

/// Of a password in a CONNECT (MQTT 5.0, 1.5.6: binary data).
const PASSWORD_BYTES_MAX: usize = 65_535;

/// The file's lines, comments and all.
struct Lines {
    all: Vec<String>,
}

/// Whole or not at all, alone, and for its owner's eyes only.
fn edit(path: &Path, may_be_new: bool, change: impl FnOnce(&mut Lines) -> Result<(), Fail>) -> Result<(), Fail> {
    let changed = |text: Option<String>| {
        if text.is_none() && !may_be_new {
            return Err(KEPT.unreadable(path, &ErrorKind::NotFound.into()));
        }
        let mut lines = Lines::of(&text.unwrap_or_default());
        change(&mut lines)?;
        Ok(lines.all.join("\n") + "\n")
    };
    replace::edit(path, Rights::Private, changed).map_err(|stopped| KEPT.stopped(path, stopped))
}

impl Lines {
    fn of(text: &str) -> Lines {
        Lines { all: text.lines().map(str::to_owned).collect() }
    }

    fn read(path: &Path, may_be_new: bool) -> Result<Lines, Fail> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Lines::of(&text)),
            Err(e) if may_be_new && e.kind() == ErrorKind::NotFound => Ok(Lines::of("")),
            Err(e) => Err(KEPT.unreadable(path, &e)),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|l| l.trim().split_once(':').is_some_and(|(n, _)| n == name))
    }

    fn must_find(&self, name: &str) -> Result<usize, Fail> {
        let no =
            || Fail::no("not-found", format!("there is no user `{name}`"), "`citybrain user list --file …` shows all");
        self.find(name).ok_or_else(no)
    }
}

fn asked_hash() -> Result<String, Fail> {
    let password = ask().map_err(|e| Fail::no("input", format!("no password: {e}"), "give it as a line on stdin"))?;
    if password.is_empty() {
        return Err(Fail::usage("the password is empty", "give it as a line on standard input"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        let detail = format!("the password has {} bytes; MQTT carries {PASSWORD_BYTES_MAX}", password.len());
        return Err(Fail::usage(detail, "give a shorter one"));
    }
    users::hash(password.as_bytes()).map_err(|e| Fail::no("hash", e, "try again"))
}

/// A line of standard input; a terminal is asked, and does not show it.
fn ask() -> std::io::Result<String> {
    let stdin = std::io::stdin();
    let shown = if stdin.is_terminal() {
        eprint!("Password: ");
        let shown = tcgetattr(&stdin)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
        Some(shown)
    } else {
        None
    };
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = shown {
        tcsetattr(&stdin, OptionalActions::Now, &shown)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
