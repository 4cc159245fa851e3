//! `citybrain doctor`

use super::render::Ops;
use super::{At, Fail, Output, Set, own};
use crate::doctor::{self, bundle};
use chrono::Utc;
use citybrain_shared::view::{self, Answer};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Doctor {
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// A node that does not run: from its config file (goes before --node)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle", "data_dir", "below", "offline"])]
    pub config: Option<PathBuf>,
    /// A bundle from another machine (goes before --node)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data_dir", "below", "offline"])]
    pub bundle: Option<PathBuf>,
    #[command(flatten)]
    pub set: Set,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Everything that somebody elsewhere needs, in one tar, without secrets and without what residents sent
    Bundle {
        /// The file to make, such as node.tar
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
}

/// What goes into a bundle, beside the facts.
const JSON: [(&str, &str); 6] = [
    ("status.json", "/v1/status"),
    ("links.json", "/v1/links"),
    ("tree.json", "/v1/tree"),
    ("config.json", "/v1/config"),
    ("version.json", "/v1/version"),
    ("dlq.json", "/v1/dlq?limit=100"),
];
const TEXT: [(&str, &str); 2] = [("metrics.txt", "/metrics"), ("log-lines.txt", "/v1/log-lines")];

impl Doctor {
    pub fn act(self) -> Result<Output, Fail> {
        let answer = match (self.verb, self.config, self.bundle) {
            (Some(Verb::Bundle { file, at }), _, _) => return bundled(&file, &at),
            (None, Some(config), _) => own(stopped(&config, &self.set)?),
            (None, None, Some(file)) => return read(&file),
            (None, None, None) => {
                return self.at.ask("/v1/doctor", &[], |a| Output::Ops(Ops::Doctor(a)));
            }
        };
        Ok(Output::Ops(Ops::Doctor(answer)))
    }
}

fn stopped(path: &Path, set: &Set) -> Result<view::Doctor, Fail> {
    let checked = crate::check::check(&[path.to_owned()], &set.variables());
    let file = checked.files.first().expect("one file was given");
    // A file that does not even say who the node is leaves nothing else to look at.
    let Some(config) = &file.config else {
        return Err(checked
            .invalid()
            .into_iter()
            .next()
            .map_or_else(|| Fail::no("config", "no config", ""), Fail::from));
    };
    let mut facts = doctor::gather(config, None);
    facts.config.problems = file.problems.iter().map(|p| p.message.clone()).collect();
    Ok(doctor::examine(&facts))
}

/// Whose it is and of when says the bundle.
#[allow(clippy::disallowed_methods, reason = "how old a bundle is depends on now")]
fn read(path: &Path) -> Result<Output, Fail> {
    let fail = |e: std::io::Error| {
        Fail::usage(format!("cannot read `{}`: {e}", path.display()), "`citybrain doctor bundle FILE` makes one")
    };
    let file = File::open(path).map_err(fail)?;
    let (facts, head) = bundle::read(BufReader::new(file)).map_err(fail)?;
    let age_ms = u64::try_from((Utc::now() - head.as_of).num_milliseconds()).unwrap_or(0);
    let mut answer = Answer::new(&head.node, head.as_of, doctor::examine(&facts));
    answer.head.offline = head.offline;
    Ok(Output::Ops(Ops::Bundle(answer, age_ms)))
}

#[allow(clippy::disallowed_methods, reason = "files in an archive have a time")]
fn bundled(path: &Path, at: &At) -> Result<Output, Fail> {
    let node = at.node()?;
    let doctor: Answer<view::Doctor> = node.get("/v1/doctor", &[])?;
    let mut files =
        vec![("facts.json".to_owned(), pretty(&doctor.body.facts)), ("doctor.json".to_owned(), pretty(&doctor))];
    let mut missing = Vec::new();
    for (name, path) in JSON.into_iter().chain(TEXT) {
        // One answer less is still a bundle.
        match node.raw(path) {
            Ok(bytes) if name == "dlq.json" => files.push((name.into(), bundle::without_payloads(&bytes))),
            Ok(bytes) if name == "config.json" => files.push((name.into(), bundle::without_paths(&bytes))),
            Ok(bytes) => files.push((name.into(), bytes)),
            Err(fail) => missing.push(format!("{name}: {}", fail.failure.detail)),
        }
    }
    let fail = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Fail::usage(format!("`{}` is there already", path.display()), "give a file that is not there yet")
        }
        _ => Fail::usage(format!("cannot write `{}`: {e}", path.display()), "give a place that is yours to write to"),
    };
    let out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    bundle::write(out, &files, Utc::now().timestamp() as u64).map_err(|e| {
        // Half a bundle is none, and would be in the way of the next try.
        let _ = std::fs::remove_file(path);
        fail(e)
    })?;
    let mut text = format!(
        "{}: {} files of {}; without secrets, without what was sent\n`citybrain doctor --bundle {}` looks at it anywhere\n",
        path.display(),
        files.len(),
        doctor.head.node,
        path.display()
    );
    missing.iter().for_each(|m| text.push_str(&format!("not in it: {m}\n")));
    Ok(Output::Text(text))
}

fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("views have string keys only")
}
