//! `citybrain bench --press`: from the press of a button to who hears of it at the city, while a backlog
//! waits on every hop between.
//!
//! Four processes, a node of each tier. While the others are stopped, each of the lower three takes
//! as many events as the backlog is to have. Then all start, and while they catch up somebody
//! presses again and again at the neighbourhood; then once more from the beginning, as a backlog does not
//! last for many presses. A subscriber at the city hears a case only when it is committed there: so what is
//! measured is the commit and a little more, by one clock, this process's own.

use super::client::Client;
use super::door::tenths;
use crate::cli::render::Measured;
use crate::demo::processes::Processes;
use crate::demo::tree::Tree;
use citybrain_shared::view::{self, LinkRole};
use citybrain_shared::words::grouped;
use miette::{Context, IntoDiagnostic};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// So many events wait for each link, at 100 per cent.
const BACKLOG: usize = 100_000;
const EVENT_BYTES: usize = 400;
/// So often the nodes are stopped, given a backlog, and started; at 100 per cent.
const ROUNDS: usize = 10;
/// In a round: less than a second, in which a backlog of this size is not caught up with.
const PRESSES: usize = 30;
const EVERY: Duration = Duration::from_millis(20);
/// Until all links are up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(serde::Serialize)]
struct Report {
    schema: &'static str,
    cores: usize,
    /// Events that waited on each of the three links before they came up, and their bytes.
    backlog: usize,
    event_bytes: usize,
    rounds: usize,
    presses: usize,
    /// Of the backlog, what was still to be sent over each link when the first and the last button of a round
    /// were pressed, the least of all rounds: from the street, the community, the neighbourhood.
    waited_at_first: Vec<u64>,
    waited_at_last: Vec<u64>,
    /// From a press's PUBLISH until a subscriber at the city, QoS 1, has its case.
    median_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

/// # Errors
/// When a node does not start, or a press is not at the city within a minute.
pub fn measure(dir: &Path, percent: u8) -> miette::Result<Measured> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().into_diagnostic()?;
    let of = |load: usize| (load * usize::from(percent)).div_ceil(100);
    let report = runtime.block_on(press(dir, of(BACKLOG), of(ROUNDS)))?;
    Ok(Measured { json: serde_json::to_value(&report).into_diagnostic()?, head: Vec::new(), rows: report.rows() })
}

impl Report {
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, found: String| vec![what.to_owned(), found];
        let hops = |all: &[u64]| all.iter().map(|n| grouped(*n)).collect::<Vec<_>>().join(" / ");
        vec![
            row("waited at street / community / neighbourhood, first press", hops(&self.waited_at_first)),
            row("last press", hops(&self.waited_at_last)),
            row("presses, in how many rounds", format!("{}, {}", grouped(self.presses as u64), self.rounds)),
            row("to a subscriber at the city, median", format!("{:.1} ms", self.median_ms)),
            row("p90", format!("{:.1} ms", self.p90_ms)),
            row("p99", format!("{:.1} ms", self.p99_ms)),
            row("longest", format!("{:.1} ms", self.longest_ms)),
        ]
    }
}

async fn press(dir: &Path, backlog: usize, rounds: usize) -> miette::Result<Report> {
    let exe = std::env::current_exe().into_diagnostic()?;
    let mut tree = Tree::new("bench", "bench", "");
    let mut at = 0;
    for segment in ["street", "community", "neighbourhood"] {
        at = tree.add(at, segment, segment, "");
    }
    let mut nodes = Processes::new(&exe, dir, &tree, None).into_diagnostic()?;
    let places = 0..tree.places.len();
    // They know each other before, so that finding their places in the tree is no part of what is measured.
    for node in places.clone() {
        nodes.start(node).into_diagnostic()?;
    }
    nodes.wait_ready().await.into_diagnostic()?;
    nodes.wait_connected().await.into_diagnostic()?;
    nodes.stop().await;
    let (mut at_first, mut at_last, mut ms) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        for node in places.clone().skip(1) {
            nodes.start(node).into_diagnostic()?;
            nodes.wait_ready().await.into_diagnostic()?;
            fill(nodes.nodes[node].mqtt, &format!("{}-{round}", tree.places[node].address), backlog).await?;
            nodes.stop().await;
        }
        for node in places.clone() {
            nodes.start(node).into_diagnostic()?;
        }
        nodes.wait_ready().await.into_diagnostic()?;
        let heard = listen(nodes.nodes[0].mqtt).await?;
        let mut button = Client::connect(nodes.nodes[at].mqtt, "button".into(), true).await?;
        until_linked(&nodes).await?;
        at_first.push(waiting(&nodes).await?);
        let pressed = press_often(&mut button, round).await?;
        at_last.push(waiting(&nodes).await?);
        for (name, at) in heard.await.into_diagnostic()?? {
            let began = pressed.get(&name).ok_or_else(|| miette::miette!("nobody pressed {name}"))?;
            ms.push((at - *began).as_secs_f64() * 1e3);
        }
        nodes.stop().await;
    }
    ms.sort_by(f64::total_cmp);
    // The nearest rank: so many per cent took no longer.
    let at = |per_cent: usize| tenths(ms[(ms.len() * per_cent).div_ceil(100).max(1) - 1]);
    Ok(Report {
        schema: "citybrain.bench-press/1",
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        backlog,
        event_bytes: EVENT_BYTES,
        rounds,
        presses: ms.len(),
        waited_at_first: least(&at_first),
        waited_at_last: least(&at_last),
        median_ms: at(50),
        p90_ms: at(90),
        p99_ms: at(99),
        longest_ms: at(100),
    })
}

/// The least at each place.
fn least(rounds: &[Vec<u64>]) -> Vec<u64> {
    let mut least = rounds.first().cloned().unwrap_or_default();
    for round in rounds {
        least.iter_mut().zip(round).for_each(|(l, n)| *l = (*l).min(*n));
    }
    least
}

/// Each press, and the moment before its PUBLISH.
async fn press_often(button: &mut Client, round: usize) -> miette::Result<HashMap<String, Instant>> {
    let mut pressed = HashMap::new();
    let mut tick = tokio::time::interval(EVERY);
    for n in 0..PRESSES {
        tick.tick().await;
        let name = format!("button-{round}-{n}");
        let press = format!(
            r#"{{"specversion":"1.0","id":"press-{round}-{n}","source":"/bench/button","subject":"{name}","type":"city.sos.pressed.v1","data":{{"location":"{n}"}}}}"#
        );
        pressed.insert(name, Instant::now());
        button.publish_texts(1, 1, "in/sos", |_| press.clone().into_bytes()).await?;
    }
    Ok(pressed)
}

/// When the case of each press was heard at the city.
async fn listen(port: u16) -> miette::Result<JoinHandle<miette::Result<Vec<(String, Instant)>>>> {
    let mut desk = Client::connect(port, "desk".into(), true).await?;
    desk.subscribe(["events/city.brain.case.submitted"].into_iter()).await?;
    Ok(tokio::spawn(async move {
        let mut heard = Vec::new();
        let hear = |payload: &[u8]| {
            let event: Value = serde_json::from_slice(payload).unwrap_or_default();
            let title = event["data"]["case"]["title"].as_str();
            heard.extend(title.map(|title| (title.to_owned(), Instant::now())));
            title.is_some()
        };
        desk.take_each(PRESSES, hear).await?;
        Ok(heard)
    }))
}

/// Events that the node is to send up later.
async fn fill(port: u16, name: &str, n: usize) -> miette::Result<()> {
    let mut publisher = Client::connect(port, "backlog".into(), true).await?;
    let event = |i: usize| {
        let mut e = format!(
            r#"{{"specversion":"1.0","id":"{name}-{i}","source":"/bench","type":"city.bench","data":{{"text":""#
        );
        e.extend(std::iter::repeat_n('x', EVENT_BYTES.saturating_sub(e.len() + 3)));
        e.push_str("\"}}");
        e.into_bytes()
    };
    publisher.publish_texts(n, 1000, "in/bench", event).await.wrap_err_with(|| format!("{name} took no backlog"))
}

async fn links(nodes: &Processes, node: usize) -> miette::Result<Vec<view::Link>> {
    let api = nodes.nodes[node].api.clone();
    let told = tokio::task::spawn_blocking(move || api.get::<view::Links>("/v1/links")).await.into_diagnostic()?;
    Ok(told.into_diagnostic()?.links)
}

/// Waiting for a line is no part of what is measured.
async fn until_linked(nodes: &Processes) -> miette::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !is_linked(nodes).await? {
        if Instant::now() > until {
            miette::bail!("not all links are up after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Has every node but the last a link to the one below?
async fn is_linked(nodes: &Processes) -> miette::Result<bool> {
    for node in 0..nodes.nodes.len() - 1 {
        let is_up = |l: &view::Link| l.role == LinkRole::Down && l.state == "up";
        if !links(nodes, node).await?.iter().any(is_up) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Routine records that each node below the city has still to send up.
async fn waiting(nodes: &Processes) -> miette::Result<Vec<u64>> {
    let mut all = Vec::new();
    for node in 1..nodes.nodes.len() {
        let links = links(nodes, node).await?;
        let up = links.iter().find(|l| l.role == LinkRole::Up);
        all.push(up.map_or(0, |l| l.routine.unsent));
    }
    Ok(all)
}
