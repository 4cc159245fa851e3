//! The command line: `citybrain NOUN [VERB]`, one file a noun.
//!
//! A command returns an [`Output`], which holds a `citybrain_shared::view`, or a [`Fail`]; [`render`]
//! prints it, but for what goes on for long (`run`, `demo`, `replay`, `bench`, `top`); only `main` ends the
//! process.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | yes |
//! | 1 | answered, and the answer is no: not found, refused, not ready |
//! | 2 | usage or config |
//! | 3 | unreachable, or too late: also a step that another node owns and did not answer within `--wait`, if that is not 0 |
//! | 75 | `run`: another process has its folder or a port; to be tried again (`EX_TEMPFAIL` of sysexits.h) |
//! | 130 | interrupted |
//!
//! stdout carries the answer and stderr everything else. A closed pipe is success.

mod alarm;
mod asking;
mod audit;
mod bench;
mod cap;
mod case;
mod check;
mod completions;
mod config;
pub mod confirm;
mod context;
mod directives;
mod dlq;
mod doctor;
mod enrol;
mod events;
mod examples;
mod kept;
mod links;
mod log;
mod log_level;
mod man;
mod preset;
mod rates;
pub mod render;
mod rule;
mod run;
mod send;
mod service;
mod show;
mod sos;
mod status;
mod store;
mod supervision;
mod token;
mod top;
mod trace;
mod tree;
mod user;
mod watch;
mod webhook;
mod whom;
mod why;

pub use crate::ask::{At, Direct, Fail, Lines, Through};
pub use render::Output;

use chrono::Utc;
use citybrain_shared::config::Variables;
use citybrain_shared::view::{self, Answer};
use citybrain_shared::wire;
use citybrain_shared::words::with_causes;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// A layered event hub for a city: city, street, community and neighbourhood nodes in one tree.
#[derive(Debug, Parser)]
#[command(
    name = "citybrain",
    version,
    propagate_version = true,
    after_help = "Examples:
  citybrain demo                             a whole city on this machine, in about a minute
  citybrain check city.toml                  is this file right?
  citybrain run --config city.toml           a node
  citybrain why                              what is wrong with the node here?
  citybrain tree --at chengdu/liucheng       one below it, through the links
Exit codes: 0 yes; 1 answered, and the answer is no; 2 typed wrong, or a file that cannot be used;
3 unreachable or too late; 75 the folder or a port of `run` is taken, to be tried again;
130 interrupted (demo, replay, bench)."
)]
pub struct Cli {
    /// One JSON object (streams: one a line) instead of a table
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Ask again every so many seconds (without a number 2) until ctrl-c; of commands that only read
    #[arg(long, global = true, help_heading = "Output", value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = watch::seconds)]
    pub watch: Option<std::time::Duration>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node and run it until SIGTERM or ctrl-c
    Run(run::Run),
    /// Check config files as a start would, without starting: one file, or a tree of them
    Check(check::Check),
    /// Start a whole city of nodes, play a day, kill some, and account for every event
    Demo(crate::demo::DemoArgs),
    /// Play a file of rows (CSV, NDJSON) into a running node; resumes where it stopped
    Replay(crate::replay::ReplayArgs),
    /// Measure this machine: how fast a node commits
    Bench(bench::Bench),
    /// Is the node well, and what has it done?
    Status(status::Status),
    /// The node and everything below it that has told of itself
    Tree(tree::Tree),
    /// The links to the parent and the children: what waits, what is on its way
    Links(links::Links),
    /// A range of the node's log, sent to another place
    #[command(subcommand)]
    Log(log::Log),
    /// Events in the node's log: the newest, those after a position, or as they come
    Events(events::Events),
    /// One event by its id, byte for byte
    Show(show::Show),
    /// The way of an event through the tree: where is it, how long did each hop take, what came of it?
    Trace(trace::Trace),
    /// Why does a node not report? One sentence, with a reason code and what to do
    Why(why::Why),
    /// Does every link below, and the one up, account for every event and directive?
    Audit(audit::Audit),
    /// Send a command or a notice to nodes below
    Send(send::Send),
    /// What was sent down, and who answered
    #[command(subcommand)]
    Directives(directives::Directives),
    /// Conditions that hold in this node's subtree, and who has seen them
    #[command(subcommand)]
    Alarm(alarm::Alarm),
    /// Warnings by the Common Alerting Protocol: those in force, send one, cancel one
    #[command(subcommand)]
    Cap(cap::Cap),
    /// 一键求助: one press, at once to everybody who can help
    Sos(sos::Sos),
    /// Matters that somebody must deal with: open, step, look, export
    #[command(subcommand)]
    Case(Box<case::Case>),
    /// Response, solution and satisfaction rates of the cases in this node's subtree
    Rates(rates::Rates),
    /// What needs a look: overdue, suspended, reopened, hot spots, people who call again and again
    Supervision(supervision::Supervision),
    /// Services and activities: what is offered, and a request for it
    #[command(subcommand)]
    Service(Box<service::Service>),
    /// Scenes: what belongs together in a community
    #[command(subcommand)]
    Scene(service::Scene),
    /// Rules: those in force, and what a file's rules would make of recorded events
    #[command(subcommand)]
    Rule(rule::Rule),
    /// Devices from a shop: which are known, what to set at them, what becomes of a message
    #[command(subcommand)]
    Preset(preset::Preset),
    /// What was refused, and why
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Webhooks: past what a receiver does not take
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    /// Who belongs to the tree: let children in (`link.enrol = "manual"`), keep them out, take out one that is gone
    #[command(subcommand)]
    Enrol(enrol::Enrol),
    /// Who may log in: the file that `[access] users_file` names
    #[command(subcommand)]
    User(user::User),
    /// A node's data folder: verify, measure, copy and export it, running or not; rebuild and restore it stopped
    #[command(subcommand)]
    Store(store::Store),
    /// What is wrong with a node or its host, and what to do; 1 if anything is bad
    Doctor(doctor::Doctor),
    /// A live screen of a node and its tree
    Top(top::Top),
    /// What a running node logs, or will from now on
    LogLevel(log_level::LogLevel),
    /// What a config amounts to, and how it differs from a running node's
    #[command(subcommand)]
    Config(config::Config),
    /// Names for nodes elsewhere, with their tokens
    #[command(subcommand)]
    Context(context::Context),
    /// Who may ask a node over HTTP: its file of tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Write man pages into a folder
    Man(man::Man),
    /// A completion script for your shell
    Completions(completions::Completions),
    /// The version of this build, and of the link protocol that it speaks
    Version(Version),
}

#[derive(Debug, Args)]
pub struct Version {
    /// Of the running node instead of this program; so it is where a node is named, too
    #[arg(long)]
    pub running: bool,
    #[command(flatten)]
    pub at: At,
}

/// `--set NAME=VALUE`, as often as needed.
#[derive(Debug, Default, Args)]
pub struct Set {
    /// Fill in `${NAME}` in the config; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
}

impl Set {
    /// The last one wins.
    pub fn variables(&self) -> Variables {
        self.set.iter().cloned().collect()
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// `EX_TEMPFAIL` of sysexits.h.
pub const TRY_AGAIN: u8 = 75;

/// A position as it is printed, `1,212`, or without commas.
fn position(text: &str) -> Result<u64, String> {
    let mut groups = text.split(',');
    let first = groups.next().unwrap_or_default();
    let is_grouped = text.contains(',');
    let fits = (!is_grouped || (1..=3).contains(&first.len())) && groups.all(|group| group.len() == 3);
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b == b',');
    let number = text.replace(',', "").parse().ok().filter(|_| fits && is_number);
    number.ok_or_else(|| "a position is a whole number, such as 1212 or 1,212".to_owned())
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let cli = match parsed(&args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version come this way too, with code 0.
            let _ = e.print();
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    let screen = render::Screen::of_this_process(cli.json);
    if let Some(every) = cli.watch {
        return watch::watch(&args, cli, screen, every);
    }
    let done = cli.command.act().and_then(|output| screen.show(output));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(fail) => {
            screen.fail(&fail);
            ExitCode::from(fail.code)
        }
    }
}

/// The command line as somebody typed it.
fn parsed(args: &[std::ffi::OsString]) -> Result<Cli, clap::Error> {
    let mut command = examples::with(Cli::command());
    let matches = command.try_get_matches_from_mut(args).map_err(|e| told(e, args))?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command))?;
    if let (Command::Version(version), Some((_, of_version))) = (&mut cli.command, matches.subcommand()) {
        // Whoever names a node means that one; a name in the environment says nothing of what is asked here.
        let typed = |name: &&str| of_version.value_source(name) == Some(ValueSource::CommandLine);
        version.running |= ["node", "context", "data_dir", "below", "offline"].iter().any(typed);
    }
    Ok(cli)
}

/// Says what to type where the parser alone knows only that it does not know this.
fn told(mut error: clap::Error, args: &[std::ffi::OsString]) -> clap::Error {
    let is_at = args.iter().any(|arg| arg == "--at" || arg.to_string_lossy().starts_with("--at="));
    let unknown = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    let no_command = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string).unwrap_or_default();
    let is = |command: &str| args.get(1).is_some_and(|arg| arg == command);
    let way = if is_at && unknown == "--at" {
        // A flag that other commands have for the node below: what is done by its owner needs no way to it.
        "where it is asked for it goes to whose it is by itself; `--node URL` or `--context NAME` asks elsewhere".into()
    } else if is("run") && unknown.ends_with(".toml") {
        format!("`citybrain run --config {unknown}`")
    } else if is("case") && no_command.contains('-') && no_command.starts_with(|c: char| c.is_ascii_digit()) {
        format!("`citybrain case show {no_command}` shows it; a step stands before the id, as in `case accept ID`")
    } else {
        return error;
    };
    error.remove(ContextKind::SuggestedArg);
    error.remove(ContextKind::Usage);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![way.into()]));
    error
}

impl Command {
    /// Does it, and gives what there is to show.
    ///
    /// # Errors
    /// [`Fail`] with the exit code, the reason and what to type next.
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Command::Run(c) => c.act(),
            Command::Check(c) => c.act(),
            Command::Demo(c) => played(crate::demo::demo(c)),
            Command::Replay(c) => played(crate::replay::replay(c)),
            Command::Bench(c) => c.act(),
            Command::Status(c) => c.act(),
            Command::Tree(c) => c.act(),
            Command::Links(c) => c.act(),
            Command::Log(c) => c.act(),
            Command::Events(c) => c.act(),
            Command::Show(c) => c.act(),
            Command::Trace(c) => c.act(),
            Command::Why(c) => c.act(),
            Command::Audit(c) => c.act(),
            Command::Send(c) => c.act(),
            Command::Directives(c) => c.act(),
            Command::Alarm(c) => c.act(),
            Command::Cap(c) => c.act(),
            Command::Sos(c) => c.act(),
            Command::Case(c) => c.act(),
            Command::Rates(c) => c.act(),
            Command::Supervision(c) => c.act(),
            Command::Service(s) => s.act(),
            Command::Scene(s) => s.act(),
            Command::Rule(c) => c.act(),
            Command::Preset(c) => c.act(),
            Command::Dlq(c) => c.act(),
            Command::Webhook(c) => c.act(),
            Command::Enrol(c) => c.act(),
            Command::User(c) => c.act(),
            Command::Store(c) => c.act(),
            Command::Doctor(c) => c.act(),
            Command::Top(c) => c.act(),
            Command::LogLevel(c) => c.act(),
            Command::Config(c) => c.act(),
            Command::Context(c) => c.act(),
            Command::Token(c) => c.act(),
            Command::Man(c) => c.act(),
            Command::Completions(c) => c.act(),
            Command::Version(v) if v.running => v.at.ask("/v1/version", &[], Output::Version),
            Command::Version(_) => Ok(Output::Version(own(view::Version {
                version: env!("CARGO_PKG_VERSION").into(),
                link_version_min: wire::VERSION_MIN,
                link_version_max: wire::VERSION,
            }))),
        }
    }
}

/// Runs a command that prints as it goes and ends with an exit code.
fn played(work: impl Future<Output = miette::Result<u8>>) -> Result<Output, Fail> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|e| Fail::no("start", format!("cannot start the runtime: {e}"), "try again"))?;
    let done = runtime.block_on(work);
    // What still waits for a node's answer on a thread of its own waits for nobody any more.
    runtime.shutdown_background();
    match done {
        Ok(code) => Ok(Output::Code(code)),
        Err(report) => {
            let hint = report.help().map_or_else(|| "`--help` shows the flags".to_owned(), |h| h.to_string());
            let code = report.code().map_or_else(String::new, |code| code.to_string());
            let detail = with_causes(report.as_ref());
            Err(match code.as_str() {
                crate::replay::USAGE => Fail::usage(detail, hint),
                crate::replay::UNREACHABLE => Fail::unreachable(detail, hint),
                _ => Fail::no("failed", detail, hint),
            })
        }
    }
}

/// An answer that no node gave.
#[allow(clippy::disallowed_methods, reason = "an answer says when it was given")]
fn own<T: view::View>(body: T) -> Answer<T> {
    Answer::new("", Utc::now(), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_says_what_it_is() {
        fn silent(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let without = command.get_arguments().filter(|arg| arg.get_help().is_none() && !arg.is_hide_set());
            found.extend(without.map(|arg| format!("{path} {}", arg.get_id())));
            command.get_subcommands().for_each(|below| silent(below, &path, found));
        }
        let mut found = Vec::new();
        silent(&Cli::command(), "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn who_leaves_out_what_a_check_found_is_told_of_both_answers() {
        let refused = |line: &str| parse(line).err().map(|e| e.to_string()).unwrap_or_default();
        let said = refused("citybrain case verify x --by v");
        assert_eq!(said.matches("<--passed|--failed>").count(), 2, "what is missing, and in the usage: {said}");
        assert!(refused("citybrain case verify x --passed --failed").contains("cannot be used with"));
        for line in ["citybrain case verify x --passed", "citybrain case verify x --failed --reason y"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn an_id_that_is_empty_is_asked_for_before_any_node_is() {
        for line in [
            "case show",
            "case accept",
            "case merge x --into",
            "alarm show",
            "alarm ack",
            "cap show",
            "cap cancel",
            "cap alarm",
            "directives show",
            "show",
            "trace",
            "service show",
            "service request",
        ] {
            let args = ["citybrain"].into_iter().chain(line.split(' ')).chain([""]);
            let refused = Cli::try_parse_from(args).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{line}");
            assert!(refused.to_string().contains("a value is required for"), "{line}: {refused}");
        }
    }

    #[test]
    fn a_span_of_no_days_is_refused_and_not_told_as_peace() {
        for question in ["supervision", "case stats"] {
            assert!(parse(&format!("citybrain {question} --days 0")).is_err(), "{question}");
            assert!(parse(&format!("citybrain {question} --days 1")).is_ok(), "{question}");
        }
    }

    #[test]
    fn common_flags_stand_before_or_behind_the_command() {
        assert!(parse("citybrain --json status").unwrap().json);
        let cli = parse("citybrain status --json --data-dir /d").unwrap();
        let Command::Status(status) = cli.command else { panic!() };
        assert_eq!(status.at.through.direct.data_dir.unwrap().to_str(), Some("/d"));
    }

    #[test]
    fn a_command_takes_no_flag_that_its_node_would_always_refuse() {
        let takes = |line: &str| parse(&format!("citybrain {line}")).is_ok();
        for line in [
            "case accept x",
            "case new",
            "sos here",
            "alarm ack x",
            "alarm shelve x",
            "service request x",
            "cap send f",
            "cap cancel x",
            "send --target c",
        ] {
            assert!(takes(line), "{line}");
            assert!(!takes(&format!("{line} --at c/s")) && !takes(&format!("{line} --offline d")), "{line}");
        }
        for line in [
            "dlq drop 1",
            "dlq retry 1",
            "webhook skip app 1",
            "rule reload",
            "log-level",
            "enrol retire c/s",
            "case import f",
        ] {
            assert!(takes(&format!("{line} --at c/s")), "{line}");
            assert!(!takes(&format!("{line} --offline d")), "{line}");
        }
        for line in ["case list", "case show x", "alarm list", "cap list", "dlq list"] {
            assert!(takes(&format!("{line} --at c/s")) && takes(&format!("{line} --offline d")), "{line}");
        }
    }

    #[test]
    fn what_says_which_node_is_asked_stands_apart_from_what_a_command_does() {
        let mut command = Cli::command();
        command.build();
        let links = command.find_subcommand_mut("links").unwrap();
        let help = links.render_help().to_string();
        let (own, rest) = help.split_once("Which node:").unwrap();
        assert!(!own.contains("--node") && rest.contains("--node") && rest.contains("--offline"), "{help}");
        let (_, output) = help.split_once("Output:").unwrap();
        assert!(output.contains("--json") && output.contains("--watch"), "{help}");
    }

    #[test]
    fn only_what_reads_is_watched_and_a_number_of_seconds_stands_behind_an_equals_sign() {
        let cli = parse("citybrain links --watch").unwrap();
        assert_eq!(cli.watch, Some(std::time::Duration::from_secs(2)));
        assert!(watch::only_reads(&cli.command));
        let cli = parse("citybrain --watch=0.5 why c/s").unwrap();
        assert_eq!(cli.watch, Some(std::time::Duration::from_millis(500)));
        for line in
            ["dlq drop 7 --watch", "events --follow --watch", "trace --probe --watch", "store rebuild d --watch"]
        {
            assert!(!watch::only_reads(&parse(&format!("citybrain {line}")).unwrap().command), "{line}");
        }
        assert_eq!(parse("citybrain links --watch=0").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_way_that_a_command_does_not_take_is_told_apart_from_a_slip() {
        let said = |line: &str| {
            let args: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
            parsed(&args).unwrap_err().to_string()
        };
        for line in ["citybrain alarm ack x --at c/s", "citybrain case accept x --at=c/s"] {
            let said = said(line);
            assert!(said.contains("goes to whose it is") && !said.contains("--watch"), "{said}");
        }
        assert!(said("citybrain alarm ack x --wacht").contains("--watch"));
        // `check` takes a bare file, and `case show` a bare id.
        assert!(said("citybrain run city.toml").contains("`citybrain run --config city.toml`"));
        let id = "20261129-fe5sz7djvj";
        assert!(said(&format!("citybrain case {id}")).contains(&format!("`citybrain case show {id}`")));
        assert!(said("citybrain case accpet").contains("'accept'"));
    }

    #[test]
    fn a_version_is_that_of_the_node_that_is_named() {
        let is_of_a_node = |line: &str| {
            let args: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
            let Command::Version(version) = parsed(&args).unwrap().command else { panic!() };
            version.running
        };
        assert!(!is_of_a_node("citybrain version"));
        for which in
            ["--running", "--node http://127.0.0.1:9", "--context city", "--data-dir d", "--at c/s", "--offline d"]
        {
            assert!(is_of_a_node(&format!("citybrain version {which}")), "{which}");
        }
    }

    #[test]
    fn variables_are_pairs_and_the_last_one_wins() {
        let cli = parse("citybrain run --config f --set A=1 --set B=x=y --set A=2").unwrap();
        let Command::Run(run) = cli.command else { panic!() };
        assert_eq!(run.set.variables(), Variables::from([("A".into(), "2".into()), ("B".into(), "x=y".into())]));
        assert_eq!(parse("citybrain run --config f --set A").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn send_takes_json_and_a_duration() {
        let cli =
            parse("citybrain send --target c/** --type t --data {\"a\":1} --urgent --directive command --ttl 60s");
        let Command::Send(send) = cli.unwrap().command else { panic!() };
        let request = send.request().unwrap();
        assert_eq!(request.ttl_ms, Some(60_000));
        assert_eq!(request.priority.as_deref(), Some("urgent"));
        assert_eq!(request.data, Some(serde_json::json!({"a": 1})));
        assert_eq!(parse("citybrain send --target c --ttl soon").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_position_is_typed_as_it_is_printed() {
        for (text, wanted) in [("0", 0), ("1212", 1212), ("1,212", 1212), ("12,345,678", 12_345_678)] {
            assert_eq!(position(text), Ok(wanted), "{text}");
        }
        for text in ["", ",", "1,2", "1,2123", ",123", "1234,567", "+1", "1,212,", "-1", "1.5", "99999999999999999999"]
        {
            assert!(position(text).is_err(), "{text}");
        }
        for line in ["dlq show 1,212", "dlq retry 1,212 7", "dlq drop 1,212", "events --after 1,200"] {
            assert!(parse(&format!("citybrain {line}")).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_check_without_a_file_is_wrong_usage() {
        assert_eq!(parse("citybrain check").unwrap_err().exit_code(), 2);
        assert_eq!(parse("citybrain events --priority high").unwrap_err().exit_code(), 2);
    }
}
