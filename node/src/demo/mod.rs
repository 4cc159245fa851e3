//! `citybrain demo`: a tree of real processes, a day of events, a few kills, and an account by id.
//!
//! | module | what it owns |
//! |---|---|
//! | [`data`] | what is played: a generated day or a file |
//! | [`generate`] | the generated day |
//! | [`chengdu`] | the table of places behind it |
//! | [`tree`] | the tree of nodes, from that table or from where a file's rows belong |
//! | [`processes`] | starting, killing and stopping the nodes |
//! | [`api`] | what is asked of them |
//! | [`town`] | a press, some appeals, and those who deal with them |
//! | [`case_account`] | is every case the same at every tier: pure |
//! | [`errands`] | a rule, the last seats of a service, a request by Open311, batches by HTTP |
//! | [`hook`] | a platform that is told by webhook |
//! | [`watch`] | who has what while it goes on |
//! | [`account`] | who has what at the end: pure |
//! | `drive` | the day itself: publishing, kills, the notice, and waiting until all has settled |
//! | [`screen`] | what is shown |
//! | `report` | the same for programs |
//!
//! The nodes are told nothing that a real one would not be: devices publish by MQTT, QoS 1, at the
//! neighbourhoods; an engineer sends a notice from the city; the account reads each node's own API.

pub mod account;
pub mod api;
pub mod case_account;
pub mod chengdu;
pub mod data;
mod drive;
pub mod errands;
pub mod generate;
pub mod hook;
pub mod processes;
mod report;
pub mod screen;
pub mod town;
pub mod tree;
pub mod watch;

use crate::ask::{Direct, Through};
use crate::bring::Import;
use crate::replay::{USAGE, told_to_stop};
use account::{Account, Record};
use case_account::{CaseAccount, Expected};
use citybrain_shared::Tier;
use citybrain_shared::view::CasesBrought;
use citybrain_shared::words::with_causes;
use data::Script;
use drive::{Driven, Shared, blocking};
use errands::Told;
use hook::{Hook, HookAccount};
use miette::{IntoDiagnostic, WrapErr, miette};
use processes::Processes;
use report::Town;
use screen::{Moment, Screen};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use watch::Watch;

/// A whole city on this machine for about a minute: real processes, a generated or a real day, some of them killed, and an account.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Play this CSV of service requests instead of a generated day.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// How its rows become events and where they belong; a known header needs none.
    #[arg(long, value_name = "TOML", requires = "input")]
    pub mapping: Option<PathBuf>,
    /// Offset of the file's local times, such as -08:00; in place of the mapping's own.
    #[arg(long, value_name = "OFFSET", requires = "input", allow_hyphen_values = true)]
    pub utc_offset: Option<String>,
    /// The generated day's seed: the same seed, the same day.
    #[arg(long, value_name = "N", default_value_t = 12345)]
    pub seed: u64,
    /// Events to generate (4,000 unless given), or to play of the file (20,000 at most unless given).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub events: Option<u64>,
    /// Publish the day within this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Nodes at most, each a process (15 to 64).
    #[arg(long, value_name = "N", default_value_t = 22, value_parser = clap::value_parser!(u64).range(15..=64))]
    pub nodes_max: u64,
    /// Leave the tree running until Ctrl-C, and its folder where it is.
    #[arg(long)]
    pub keep: bool,
    /// Folder of the nodes' data and logs, new or empty; it stays. Default: one in the system's
    /// temporary folder, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Kill no node.
    #[arg(long)]
    pub no_kill: bool,
    /// One JSON object at the end.
    #[arg(long)]
    pub json: bool,
}

/// Events of a generated day unless asked for another number.
const EVENTS: usize = 4_000;
/// From the last publish until all is acknowledged, and from then until the city has all.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Plays a day and gives account of it. Exit codes: 0 the account closes; 1 it does not;
/// 130 interrupted. No node outlives this call.
///
/// # Errors
/// When the input cannot be read, or a node does not start or connect in time; the message names
/// the node and its log.
pub async fn demo(args: DemoArgs) -> miette::Result<u8> {
    let began = Instant::now();
    let nodes_max = args.nodes_max as usize;
    let script = match &args.input {
        None => data::generated(args.seed, args.events.map_or(EVENTS, |n| n as usize), nodes_max),
        Some(file) => {
            let rows_max = args.events.map_or(data::ROWS_PLAYED, |n| n as usize);
            data::from_file(file, args.mapping.as_deref(), args.utc_offset.as_deref(), rows_max, nodes_max)?
        }
    };
    let dir = folder(args.dir.as_deref())?;
    eprintln!("{}", screen::introduce(&script, args.input.is_some(), args.seed));
    let exe = std::env::current_exe().into_diagnostic().wrap_err("cannot find this program's own file")?;
    let hook = Hook::start().await.into_diagnostic().wrap_err("no port for the webhooks' receiver")?;
    let mut processes =
        Processes::new(&exe, &dir, &script.tree, Some(hook.url())).map_err(|e| miette!("{}", with_causes(&e)))?;

    // One for the whole of it: a signal that comes while the account is written is not lost.
    let mut stop = std::pin::pin!(told_to_stop());
    let played = tokio::select! {
        played = play(&script, &mut processes, &hook, &args) => played,
        () = &mut stop => {
            processes.stop().await;
            remove(&dir, args.dir.is_some() || args.keep);
            eprintln!("\ninterrupted");
            return Ok(130);
        }
    };
    let played = match played {
        Ok(played) => played,
        Err(report) => {
            processes.stop().await;
            eprintln!("the nodes' logs stay in {}", dir.display());
            return Err(report);
        }
    };
    let wall_s = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let is_good = played.is_good();
    // What is wrong can only be looked into while the logs are there.
    let stays = args.keep || args.dir.is_some() || !is_good;
    let mut text = if args.json {
        report::json(&script, &args, &played, &processes, stays.then_some(dir.as_path()), wall_s)
    } else {
        screen::account(&played, &script, wall_s)
    };
    if !args.json {
        text.push_str(&what_next(&args, &script, &processes, &dir, stays));
    }
    // A closed pipe is no failure of the demo.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    if args.keep {
        eprintln!("the tree is running; Ctrl-C stops it");
        stop.await;
    }
    processes.stop().await;
    remove(&dir, stays);
    Ok(u8::from(!is_good))
}

/// What became of it all.
struct Played {
    account: Account,
    town: Town,
    /// `None` where no community has a neighbourhood.
    errands: Option<Told>,
    webhooks: HookAccount,
    killed: Vec<String>,
}

impl Played {
    fn is_good(&self) -> bool {
        self.account.is_good() && self.town.account.is_good() && self.is_answered()
    }

    /// Is what was asked of rules, services, Open311 and webhooks as it should be?
    fn is_answered(&self) -> bool {
        self.errands.as_ref().is_none_or(Told::is_good) && self.webhooks.is_good()
    }
}

async fn play(script: &Script, processes: &mut Processes, hook: &Hook, args: &DemoArgs) -> miette::Result<Played> {
    let tree = &script.tree;
    let mut screen = Screen::default();
    let plain = |e: processes::Error| miette!("{}", with_causes(&e));
    screen.say(&format!("starting {} nodes", tree.places.len()));
    for node in 0..tree.places.len() {
        processes.start(node).map_err(plain)?;
    }
    processes.wait_ready().await.map_err(plain)?;
    screen.say("all are ready; waiting for their links");
    processes.wait_connected().await.map_err(plain)?;
    screen.say("all are connected");

    let numbers: watch::Numbers =
        Arc::new(script.events.iter().enumerate().map(|(i, e)| ((e.source.clone(), e.id.clone()), i)).collect());
    let shared = Arc::new(Shared::new(script));
    let watch = Watch::begin(processes.nodes.iter().map(|n| n.api.clone()).collect(), &numbers, &shared.due);
    let mut work = Box::pin(drive::drive(script, processes, &watch, &shared, args));
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let driven = loop {
        tokio::select! {
            driven = &mut work => break driven,
            _ = tick.tick() => {
                for line in std::mem::take(&mut *shared.said.lock()) {
                    screen.say(&line);
                }
                screen.show(&moment(script, &watch, &shared));
            }
        }
    };
    for line in std::mem::take(&mut *shared.said.lock()) {
        screen.say(&line);
    }
    drop(work);
    let Driven { published, notice, sos, errands, opened, killed } = driven?;
    drop(watch);

    let brought = match &args.input {
        Some(file) if script.are_cases => {
            screen.say("bringing the file's rows as cases, by the city, each to its node");
            Some(bring(file, args, processes.nodes[0].api.base()).await?)
        }
        _ => None,
    };
    screen.say("reading every node's cases");
    let expected = Expected { opened, brought: brought.as_ref().map_or(0, |b| b.opened) };
    let cases = settled_cases(tree, processes, &expected).await?;
    let city = processes.nodes[0].api.clone();
    let asked = move || Ok((city.get_json("/v1/rates?by=all")?, city.get_json("/v1/case-stats?by=status")?));
    let (mut rates, stats) = blocking("the city does not count", asked).await?;
    let by_status = stats["rows"].as_array().into_iter().flatten();
    let by_status = by_status.filter_map(|r| Some((r["key"].as_str()?.to_owned(), r["cases"].as_u64()?))).collect();
    let town = Town { sos, brought, account: cases, by_status, rates: rates["total"].take() };
    screen.say("reading every node's log");
    let mut logs = Vec::new();
    for node in &processes.nodes {
        let api = node.api.clone();
        let read = move || {
            let mut log: Vec<Record> = Vec::new();
            api.records(0, |record| log.push(record)).map(|_| log)
        };
        logs.push(blocking(&format!("cannot read {}", node.address), read).await?);
    }
    let logs = Arc::new(logs);
    let webhooks = told_by_webhook(hook, tree, &logs).await;
    let errands = match errands {
        Some(done) => {
            let (tree, logs) = (tree.clone(), logs.clone());
            Some(blocking("what was asked cannot be looked up", move || done.look(&tree, &logs)).await?)
        }
        None => None,
    };
    let mut account = account::account(tree, &published, &logs, &notice, &killed);
    account.findings.extend(errands.iter().flat_map(Told::wrong));
    account.findings.extend(webhooks.wrong());
    if !town.account.is_good() {
        let wrong = town.account.wrong_in_words();
        account.findings.push(format!("the cases are not the same at every node above their owner: {wrong}"));
    }
    let ended = processes.ended();
    account.ended = ended.len() as u64;
    account.findings.extend(ended);
    screen.say("done");
    let killed = killed.iter().map(|place| tree.places[*place].address.to_string()).collect();
    Ok(Played { account, town, errands, webhooks, killed })
}

fn moment(script: &Script, watch: &Watch, shared: &Shared) -> Moment {
    Moment {
        events: script.events.len() as u64,
        published: shared.published_count.load(Ordering::Relaxed),
        acknowledged: shared.due[0].load(Ordering::Relaxed),
        at_tier: Tier::ALL.map(|tier| watch.of_tier(&script.tree, tier)),
        nodes: Tier::ALL.map(|tier| script.tree.of_tier(tier).count()),
        doing: shared.doing.lock().clone(),
    }
}

/// The file's rows as cases: told to the city, which passes each on to its node.
async fn bring(file: &Path, args: &DemoArgs, city: &str) -> miette::Result<CasesBrought> {
    let import = Import {
        file: file.to_owned(),
        mapping: args.mapping.clone(),
        utc_offset: args.utc_offset.clone(),
        here: false,
        last: true,
        give_up_after: SETTLE_MAX.as_secs(),
        at: Through { direct: Direct { node: Some(city.to_owned()), ..Direct::default() }, ..Through::default() },
    };
    let brought = tokio::task::spawn_blocking(move || import.bring()).await.into_diagnostic()?;
    brought.map(|answer| answer.body).map_err(|fail| miette!("the cases are not brought: {}", fail.failure.detail))
}

/// The cases of every node, once they are the same at every tier, or as they are after a while.
async fn settled_cases(tree: &tree::Tree, processes: &Processes, expected: &Expected) -> miette::Result<CaseAccount> {
    let settle = Instant::now() + SETTLE_MAX;
    loop {
        let apis: Vec<api::Api> = processes.nodes.iter().map(|n| n.api.clone()).collect();
        let read = move || apis.iter().map(api::Api::cases).collect::<Result<Vec<_>, _>>();
        let held = blocking("cannot read a node's cases", read).await?;
        let account = case_account::account(tree, &held, expected);
        // A step may be on its way while they are read.
        if account.is_good() || Instant::now() > settle {
            return Ok(account);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What the receiver was told, once it is all that these logs have, or as it is after a while.
async fn told_by_webhook(hook: &Hook, tree: &tree::Tree, logs: &[Vec<Record>]) -> HookAccount {
    let settle = Instant::now() + SETTLE_MAX;
    loop {
        let told = hook.account(tree, logs);
        if told.is_good() || Instant::now() > settle {
            return told;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn what_next(args: &DemoArgs, script: &Script, processes: &Processes, dir: &Path, stays: bool) -> String {
    let mut lines = vec![String::new()];
    if args.keep {
        let city = &processes.nodes[0];
        let leaf = script.tree.of_tier(Tier::Neighbourhood).next().unwrap_or(0);
        let leaf = &processes.nodes[leaf];
        lines.push("Look into the running tree, from another terminal:".into());
        for command in ["tree", "links", "status", "events", "case list", "alarm list", "rates"] {
            lines.push(format!("  citybrain {command} --node {}", city.api.base()));
        }
        for command in ["rule list", "service list", "service show haircut", "scene list"] {
            lines.push(format!("  citybrain {command} --node {}    # {}", leaf.api.base(), leaf.address));
        }
        lines.push(format!("  citybrain links --node {}    # {}", leaf.api.base(), leaf.address));
        lines.push(format!(
            "  mosquitto_pub -p {} -q 1 -t in/hello -m '{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/me\",\"type\":\"city.hello\"}}'",
            leaf.mqtt
        ));
        lines.push(format!("Data and logs: {}", dir.display()));
    } else {
        let mut again = vec!["citybrain demo --keep".to_owned()];
        again.extend(args.input.as_ref().map(|file| format!("--input {}", file.display())));
        lines.push(format!("To look into the tree, leave it running: {}", again.join(" ")));
        if stays {
            lines.push(format!("Data and logs stay in {}", dir.display()));
        }
    }
    lines.join("\n")
}

/// The folder to work in: a new one, or the one named if nothing is in it.
fn folder(named: Option<&Path>) -> miette::Result<PathBuf> {
    if let Some(dir) = named {
        let unusable = |e: std::io::Error| {
            miette!(code = USAGE, help = "name another folder", "cannot use {}: {e}", dir.display())
        };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        let dir = dir.canonicalize().map_err(unusable)?;
        if std::fs::read_dir(&dir).map_err(unusable)?.next().is_some() {
            return Err(miette!(
                code = USAGE,
                help = "name a new folder; what older nodes left there would mix with this demo's",
                "{} is not empty",
                dir.display()
            ));
        }
        return Ok(dir);
    }
    let dir = std::env::temp_dir().join(format!("citybrain-demo-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&dir).into_diagnostic().wrap_err_with(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn remove(dir: &Path, stays: bool) {
    if !stays && let Err(e) = std::fs::remove_dir_all(dir) {
        eprintln!("{} could not be removed: {e}", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(folder(Some(&dir.path().join("new"))).is_ok());
        std::fs::write(dir.path().join("file"), "x").unwrap();
        for unusable in [dir.path().to_owned(), dir.path().join("file")] {
            let report = folder(Some(&unusable)).unwrap_err();
            assert_eq!(report.code().map(|code| code.to_string()).as_deref(), Some(USAGE), "{report}");
        }
    }
}
