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
//! | [`watch`] | who has what while it goes on |
//! | [`account`] | who has what at the end: pure |
//! | [`screen`] | what is shown |
//!
//! The nodes are told nothing that a real one would not be: devices publish by MQTT, QoS 1, at the
//! neighbourhoods; an engineer sends a notice from the city; the account reads each node's own API.

pub mod account;
pub mod api;
pub mod case_account;
pub mod chengdu;
pub mod data;
pub mod generate;
pub mod processes;
pub mod screen;
pub mod town;
pub mod tree;
pub mod watch;

use crate::bring::Import;
use crate::cli::{Direct, Through};
use crate::mqtt_publisher::{self, Message, Target};
use crate::replay::{Skipped, told_to_stop};
use account::{Account, Committed, Latency, Notice, Published, Record};
use case_account::{CaseAccount, Expected};
use citybrain_shared::Tier;
use citybrain_shared::view::CasesBrought;
use citybrain_shared::words::with_causes;
use data::Script;
use miette::{IntoDiagnostic, WrapErr, miette};
use parking_lot::Mutex;
use processes::Processes;
use screen::{Moment, Screen};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use town::Press;
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
/// A killed node stays away this long: links notice, publishers queue.
const AWAY: Duration = Duration::from_millis(1_500);
/// Messages that one publisher has under way.
const WINDOW: usize = 256;

/// `--json`.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    input: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    ok: bool,
    nodes: usize,
    rows: u64,
    published: u64,
    urgent: u64,
    acknowledged: u64,
    committed: &'a Committed,
    missing: u64,
    doubled: u64,
    out_of_order: u64,
    strayed: u64,
    notice: NoticeReport,
    cases: &'a Town,
    killed: &'a [String],
    latency_ms: Option<Latency>,
    latency_urgent_ms: Option<Latency>,
    latency_undisturbed_ms: Option<Latency>,
    skipped: &'a BTreeMap<String, u64>,
    first_skipped: &'a [Skipped],
    holes: BTreeMap<&'a str, u64>,
    findings: &'a [String],
    tree: Vec<NodeReport<'a>>,
    /// The folder, if it is still there.
    dir: Option<String>,
    wall_s: f64,
}

/// What was done with cases, and what the nodes say of it in the end.
#[derive(Debug, Default, Serialize)]
pub struct Town {
    pub sos: Press,
    /// The file's rows as cases, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brought: Option<CasesBrought>,
    #[serde(flatten)]
    pub account: CaseAccount,
    /// How many stand how, at the city.
    pub by_status: BTreeMap<String, u64>,
    /// The city's, as `citybrain rates` gives them.
    pub rates: Value,
}

#[derive(Serialize)]
struct NoticeReport {
    targets: u64,
    delivered: u64,
    /// Neighbourhoods without exactly one copy.
    wrong: u64,
}

#[derive(Serialize)]
struct NodeReport<'a> {
    address: &'a str,
    name: &'a str,
    events: u64,
    mqtt_port: u16,
    api_port: u16,
}

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
    eprintln!("{}", screen::introduce(&script, args.input.is_some(), args.seed));
    let dir = folder(args.dir.as_deref())?;
    let exe = std::env::current_exe().into_diagnostic().wrap_err("cannot find this program's own file")?;
    let mut processes = Processes::new(&exe, &dir, &script.tree).map_err(|e| miette!("{}", with_causes(&e)))?;

    // One for the whole of it: a signal that comes while the account is written is not lost.
    let mut stop = std::pin::pin!(told_to_stop());
    let played = tokio::select! {
        played = play(&script, &mut processes, &args) => played,
        () = &mut stop => {
            processes.stop().await;
            remove(&dir, args.dir.is_some() || args.keep);
            eprintln!("\ninterrupted");
            return Ok(130);
        }
    };
    let Played { account, town, killed } = match played {
        Ok(played) => played,
        Err(report) => {
            processes.stop().await;
            eprintln!("the nodes' logs stay in {}", dir.display());
            return Err(report);
        }
    };
    let wall_s = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let is_good = account.is_good() && town.account.is_good();
    // What is wrong can only be looked into while the logs are there.
    let stays = args.keep || args.dir.is_some() || !is_good;
    let mut text = if args.json {
        report(&script, &args, (&account, &town), &killed, &processes, stays.then_some(dir.as_path()), wall_s)
    } else {
        screen::account(&account, &town, &script, &killed, wall_s)
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

struct Played {
    account: Account,
    town: Town,
    killed: Vec<String>,
}

/// What the tasks of a running demo share.
struct Shared {
    acknowledged: Vec<AtomicBool>,
    /// For each place of the tree, what was acknowledged at or below it.
    due: Arc<Vec<AtomicU64>>,
    published_count: AtomicU64,
    doing: Mutex<String>,
    /// Lines to be shown above the moving picture.
    said: Mutex<Vec<String>>,
}

impl Shared {
    fn say(&self, text: String) {
        self.doing.lock().clone_from(&text);
        self.said.lock().push(text);
    }
}

async fn play(script: &Script, processes: &mut Processes, args: &DemoArgs) -> miette::Result<Played> {
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
    let shared = Arc::new(Shared {
        acknowledged: script.events.iter().map(|_| AtomicBool::new(false)).collect(),
        due: Arc::new(tree.places.iter().map(|_| AtomicU64::new(0)).collect()),
        published_count: AtomicU64::new(0),
        doing: Mutex::new("publishing".into()),
        said: Mutex::new(Vec::new()),
    });
    let watch = Watch::begin(processes.nodes.iter().map(|n| n.api.clone()).collect(), &numbers, &shared.due);
    let mut work = Box::pin(drive(script, processes, &watch, &shared, args));
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
    let Driven { published, notice, sos, opened, killed } = driven?;
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
    let told = tokio::task::spawn_blocking(asked).await.into_diagnostic()?;
    let (mut rates, stats) = told.map_err(|e: api::Error| miette!("the city does not count: {}", with_causes(&e)))?;
    let by_status = stats["rows"].as_array().into_iter().flatten();
    let by_status = by_status.filter_map(|r| Some((r["key"].as_str()?.to_owned(), r["cases"].as_u64()?))).collect();
    let town = Town { sos, brought, account: cases, by_status, rates: rates["total"].take() };
    screen.say("reading every node's log");
    let mut logs = Vec::new();
    for node in &processes.nodes {
        let api = node.api.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut log: Vec<Record> = Vec::new();
            api.records(0, |record| log.push(record)).map(|_| log)
        });
        logs.push(
            read.await.into_diagnostic()?.map_err(|e| miette!("cannot read {}: {}", node.address, with_causes(&e)))?,
        );
    }
    let mut account = account::account(tree, &published, &logs, &notice, &killed);
    if !town.account.is_good() {
        let wrong = town.account.wrong_in_words();
        account.findings.push(format!("the cases are not the same at every node above their owner: {wrong}"));
    }
    let ended = processes.ended();
    account.ended = ended.len() as u64;
    account.findings.extend(ended);
    screen.say("done");
    let killed = killed.iter().map(|place| tree.places[*place].address.to_string()).collect();
    Ok(Played { account, town, killed })
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

struct Driven {
    published: Vec<Published>,
    notice: Notice,
    sos: Press,
    /// Cases that a node said it has opened.
    opened: BTreeSet<String>,
    killed: Vec<usize>,
}

/// Publishes, kills, sends the notice, and waits until all has settled or the deadline has passed.
async fn drive(
    script: &Script,
    processes: &mut Processes,
    watch: &Watch,
    shared: &Arc<Shared>,
    args: &DemoArgs,
) -> miette::Result<Driven> {
    let tree = &script.tree;
    let begin = Instant::now();
    let mut publishers = publish(script, processes, shared, begin, Duration::from_secs(args.seconds));
    let events = script.events.len() as u64;
    let part = |share: f64| (events as f64 * share).ceil() as u64;

    let mut residents = town::Town::new(tree, processes);
    let opened = tokio::task::spawn_blocking(move || residents.open().map(|press| (residents, press)));
    let opened = opened.await.into_diagnostic()?;
    let (residents, sos) = opened.map_err(|e| miette!("a case does not open: {}", with_causes(&e)))?;
    let opened = residents.cases().chain([&sos.case]).cloned().collect();
    shared.say(format!("sos at {}: known to the city after {} ms; accepted from the street", sos.at, sos.to_city_ms));

    let victims = if args.no_kill { Vec::new() } else { victims(script) };
    let mut notice = None;
    let mut killed = Vec::new();
    for (victim, share) in victims.into_iter().zip([0.3, 0.6]) {
        published(part(share), shared, &mut publishers, processes).await?;
        let place = &tree.places[victim];
        processes.kill(victim).await;
        killed.push(victim);
        let back = Instant::now() + AWAY;
        shared.say(format!("killed -9 {} ({}, {})", place.address, place.name, place.address.tier()));
        if notice.is_none() {
            // While one community is away: its neighbourhoods must get it all the same.
            notice = Some(send_notice(script, processes, shared).await?);
        }
        sleep_until(back).await;
        processes.start(victim).map_err(|e| miette!("{}", with_causes(&e)))?;
        shared.say(format!("started {} again", place.address));
    }
    if notice.is_none() {
        published(part(0.3), shared, &mut publishers, processes).await?;
        notice = Some(send_notice(script, processes, shared).await?);
    }
    let mut notice = notice.expect("sent in one of two places");
    shared.say("communities work on the appeals".into());
    let worked = tokio::task::spawn_blocking(move || residents.work()).await.into_diagnostic()?;
    worked.map_err(|e| miette!("a case is not dealt with: {}", with_causes(&e)))?;

    published(events, shared, &mut publishers, processes).await?;
    let settle = Instant::now() + SETTLE_MAX;
    shared.say("all is published; waiting for the last acknowledgements".into());
    while let Ok(Some(done)) = timeout_at(settle, publishers.join_next()).await {
        went_well(done, processes)?;
    }
    let published: Vec<Published> = script
        .events
        .iter()
        .zip(&shared.acknowledged)
        .map(|(event, acknowledged)| Published {
            leaf: event.leaf,
            source: event.source.clone(),
            id: event.id.clone(),
            urgent: event.urgent,
            acknowledged: acknowledged.load(Ordering::Relaxed),
        })
        .collect();
    shared.say("waiting until the city has all, and every receipt".into());
    let settle = Instant::now() + SETTLE_MAX;
    let mut trouble = None;
    while Instant::now() < settle {
        let (api, id) = (processes.nodes[0].api.clone(), notice.id.clone());
        match tokio::task::spawn_blocking(move || api.directive(&id)).await.into_diagnostic()? {
            Ok(now) => notice = now,
            Err(e) => trouble = Some(with_causes(&e)),
        }
        let has_all = shared.due.iter().enumerate().all(|(i, due)| watch.count(i) >= due.load(Ordering::Relaxed));
        if has_all && notice.targets > 0 && notice.delivered == notice.targets {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    if let (0, Some(trouble)) = (notice.targets, trouble) {
        shared.say(format!("the notice's receipts are not known: {trouble}"));
    }
    // Every neighbourhood was meant, whatever the city thinks.
    notice.targets = notice.targets.max(tree.of_tier(Tier::Neighbourhood).count() as u64);
    Ok(Driven { published, notice, sos, opened, killed })
}

/// Until so many events are with their publishers.
///
/// # Errors
/// When a publisher gives up, or a node ends by itself: then they never would be.
async fn published(
    goal: u64,
    shared: &Shared,
    publishers: &mut Publishing,
    processes: &mut Processes,
) -> miette::Result<()> {
    while shared.published_count.load(Ordering::Relaxed) < goal {
        while let Some(done) = publishers.try_join_next() {
            went_well(done, processes)?;
        }
        if let Some(ended) = processes.ended().first() {
            return Err(miette!("{ended}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn went_well(done: Result<Done, tokio::task::JoinError>, processes: &Processes) -> miette::Result<()> {
    let (leaf, done) = done.into_diagnostic()?;
    let node = &processes.nodes[leaf];
    done.map_err(|e| {
        miette!("publishing at {}: {}; its log is {}", node.address, with_causes(&e), node.log.display())
    })?;
    Ok(())
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
        let held = tokio::task::spawn_blocking(read).await.into_diagnostic()?;
        let held = held.map_err(|e| miette!("cannot read a node's cases: {}", with_causes(&e)))?;
        let account = case_account::account(tree, &held, expected);
        // A step may be on its way while they are read.
        if account.is_good() || Instant::now() > settle {
            return Ok(account);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The busiest community, and the busiest neighbourhood that is not below it.
fn victims(script: &Script) -> Vec<usize> {
    let tree = &script.tree;
    let busiest = |tier: Tier, not_below: Option<usize>| {
        tree.of_tier(tier)
            .filter(|place| not_below.is_none_or(|other| !tree.upward(*place).any(|up| up == other)))
            .max_by_key(|place| (tree.places[*place].events, std::cmp::Reverse(*place)))
    };
    let community = busiest(Tier::Community, None);
    let neighbourhood = busiest(Tier::Neighbourhood, community).or_else(|| busiest(Tier::Neighbourhood, None));
    community.into_iter().chain(neighbourhood).collect()
}

async fn send_notice(script: &Script, processes: &Processes, shared: &Shared) -> miette::Result<Notice> {
    let city = script.tree.places[0].address.to_string();
    let targets = script.tree.of_tier(Tier::Neighbourhood).count() as u64;
    let api = processes.nodes[0].api.clone();
    let data = serde_json::json!({ "text": "暴雨橙色预警：请检查地下车库和井盖 / Heavy rain: look after garages and manholes" });
    let sent = tokio::task::spawn_blocking(move || api.send_notice(&city, &data)).await.into_diagnostic()?;
    let id = sent.map_err(|e| miette!("the city does not take the notice: {}", with_causes(&e)))?;
    shared.say(format!("the city sent a notice to its {targets} neighbourhoods"));
    Ok(Notice { id, targets: 0, delivered: 0 })
}

/// What became of a publisher, with the place that it publishes at.
type Done = (usize, Result<mqtt_publisher::Totals, mqtt_publisher::Error>);
type Publishing = JoinSet<Done>;

/// One publisher for each neighbourhood with events, each at its own pace: one that waits for a
/// node which is away holds up no other.
fn publish(
    script: &Script,
    processes: &Processes,
    shared: &Arc<Shared>,
    begin: Instant,
    within: Duration,
) -> Publishing {
    let mut publishers = JoinSet::new();
    let span_ms = script.events.iter().map(|e| e.at_ms).max().unwrap_or(0).max(1);
    let mut queues: BTreeMap<usize, Vec<(Instant, Message)>> = BTreeMap::new();
    let mut latest = 0;
    for (number, event) in script.events.iter().enumerate() {
        // A row older than the one before it is played in its turn all the same.
        latest = event.at_ms.max(latest);
        let due = begin + within.mul_f64(latest as f64 / span_ms as f64);
        let message = Message { number: number as u64, topic: event.topic.clone(), payload: event.payload.clone() };
        queues.entry(event.leaf).or_default().push((due, message));
    }
    for (leaf, queue) in queues {
        let (messages, outbox) = mpsc::channel(WINDOW);
        let (tell, mut told) = mpsc::channel(WINDOW);
        let options = mqtt_publisher::Options {
            target: Target::local(processes.nodes[leaf].mqtt),
            tls: None,
            client_id: format!("demo-{}", script.tree.places[leaf].address.leaf()),
            window: WINDOW,
            give_up_after: Some(SETTLE_MAX),
        };
        let ours = shared.clone();
        tokio::spawn(async move {
            for (due, message) in queue {
                sleep_until(due).await;
                if messages.send(message).await.is_err() {
                    return;
                }
                ours.published_count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ours = shared.clone();
        let path: Vec<usize> = script.tree.upward(leaf).collect();
        let listening = tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                match event {
                    mqtt_publisher::Event::Acknowledged { number } => {
                        ours.acknowledged[number as usize].store(true, Ordering::Relaxed);
                        for place in &path {
                            ours.due[*place].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    mqtt_publisher::Event::Refused { number, reason } => {
                        ours.say(format!("an event was refused (number {number}): {reason}"));
                    }
                    _ => {}
                }
            }
        });
        publishers.spawn(async move {
            let done = mqtt_publisher::run(options, outbox, tell).await;
            // Its last acknowledgements are told, but perhaps not noted yet.
            let _ = listening.await;
            (leaf, done)
        });
    }
    publishers
}

fn report(
    script: &Script,
    args: &DemoArgs,
    (account, town): (&Account, &Town),
    killed: &[String],
    processes: &Processes,
    dir: Option<&Path>,
    wall_s: f64,
) -> String {
    let tree = script.tree.places.iter().zip(&processes.nodes).map(|(place, node)| NodeReport {
        address: place.address.as_str(),
        name: &place.name,
        events: place.events,
        mqtt_port: node.mqtt,
        api_port: node.api_port,
    });
    let report = Report {
        schema: "citybrain.demo/1",
        input: &script.input,
        seed: args.input.is_none().then_some(args.seed),
        ok: account.is_good() && town.account.is_good(),
        nodes: script.tree.places.len(),
        rows: script.rows,
        published: account.published,
        urgent: account.urgent,
        acknowledged: account.acknowledged,
        committed: &account.committed,
        missing: account.missing,
        doubled: account.doubled,
        out_of_order: account.out_of_order,
        strayed: account.strayed,
        notice: NoticeReport {
            targets: account.notice.targets,
            delivered: account.notice.delivered,
            wrong: account.notice_wrong,
        },
        cases: town,
        killed,
        latency_ms: account.latency,
        latency_urgent_ms: account.latency_urgent,
        latency_undisturbed_ms: account.latency_undisturbed,
        skipped: &script.skipped,
        first_skipped: &script.first_skipped,
        holes: script.holes.iter().map(|(column, n)| (column.as_str(), *n)).collect(),
        findings: &account.findings,
        tree: tree.collect(),
        dir: dir.map(|d| d.display().to_string()),
        wall_s,
    };
    serde_json::to_string(&report).expect("a report has only text keys")
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
        std::fs::create_dir_all(dir).into_diagnostic().wrap_err_with(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize().into_diagnostic()?;
        if std::fs::read_dir(&dir).into_diagnostic()?.next().is_some() {
            return Err(miette!(
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
    fn the_victims_are_a_community_and_a_neighbourhood_elsewhere() {
        let script = data::generated(1, 500, 22);
        let [community, neighbourhood] = victims(&script)[..] else { panic!("two victims") };
        assert_eq!(script.tree.places[community].address.tier(), Tier::Community);
        assert_eq!(script.tree.places[neighbourhood].address.tier(), Tier::Neighbourhood);
        assert!(script.tree.upward(neighbourhood).all(|up| up != community));
    }

    #[tokio::test]
    async fn a_node_that_ends_by_itself_ends_the_wait_for_its_events() {
        let dir = tempfile::tempdir().unwrap();
        let tree = chengdu::tree(15);
        let mut processes = Processes::new(Path::new("/bin/false"), dir.path(), &tree).unwrap();
        let shared = Shared {
            acknowledged: Vec::new(),
            due: Arc::default(),
            published_count: AtomicU64::new(3),
            doing: Mutex::default(),
            said: Mutex::default(),
        };
        published(3, &shared, &mut JoinSet::new(), &mut processes).await.unwrap();
        processes.start(7).unwrap();
        let told = published(4, &shared, &mut JoinSet::new(), &mut processes).await.unwrap_err().to_string();
        assert!(told.contains(&format!("{} ended by itself", processes.nodes[7].address)), "{told}");
        processes.kill(7).await;
        let mut publishers: Publishing = JoinSet::new();
        let error = mqtt_publisher::Error::Refused { host: "h".into(), port: 1, reason: "nobody is there".into() };
        publishers.spawn(async { (7, Err(error)) });
        let told = published(4, &shared, &mut publishers, &mut processes).await.unwrap_err().to_string();
        assert!(told.contains("publishing at"), "{told}");
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(folder(Some(&dir.path().join("new"))).is_ok());
        assert!(folder(Some(dir.path())).is_err());
    }
}
