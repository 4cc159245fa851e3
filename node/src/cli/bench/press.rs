//! `citybrain bench --press`: from the press of a button to its commit at the city, while a backlog
//! waits on every hop between.
//!
//! Four processes, a node of each tier. While the others are stopped, each of the lower three takes
//! as many events as the backlog is to have. Then all start, and while they catch up somebody
//! presses again and again at the neighbourhood. All are on this machine, so one clock tells both ends.

use super::client::Client;
use super::door::tenths;
use crate::cli::render::Measured;
use crate::demo::processes::Processes;
use crate::demo::tree::Tree;
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::view::{self, LinkRole};
use citybrain_shared::words::grouped;
use miette::{Context, IntoDiagnostic};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// So many events wait for each link, at 100 per cent.
const BACKLOG: usize = 100_000;
const EVENT_BYTES: usize = 400;
const PRESSES: usize = 100;
const EVERY: Duration = Duration::from_millis(20);
/// Until the last press is at the city.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(serde::Serialize)]
struct Report {
    schema: &'static str,
    cores: usize,
    /// Events that waited on each of the three links before they came up, and their bytes.
    backlog: usize,
    event_bytes: usize,
    presses: usize,
    /// Of the backlog, what was still to be sent over each link when the first and the last button were
    /// pressed: from the street, the community, the neighbourhood.
    waited_at_first: Vec<u64>,
    waited_at_last: Vec<u64>,
    /// From a press's PUBLISH to its case's commit at the city.
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
    let report = runtime.block_on(press(dir, BACKLOG * usize::from(percent) / 100))?;
    Ok(Measured { json: serde_json::to_value(&report).into_diagnostic()?, head: Vec::new(), rows: report.rows() })
}

impl Report {
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, found: String| vec![what.to_owned(), found];
        let hops = |all: &[u64]| all.iter().map(|n| grouped(*n)).collect::<Vec<_>>().join(" / ");
        vec![
            row("waited at street / community / neighbourhood, first press", hops(&self.waited_at_first)),
            row("last press", hops(&self.waited_at_last)),
            row("presses", grouped(self.presses as u64)),
            row("to the city's commit, median", format!("{:.1} ms", self.median_ms)),
            row("p90", format!("{:.1} ms", self.p90_ms)),
            row("p99", format!("{:.1} ms", self.p99_ms)),
            row("longest", format!("{:.1} ms", self.longest_ms)),
        ]
    }
}

async fn press(dir: &Path, backlog: usize) -> miette::Result<Report> {
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
    for node in places.clone().skip(1) {
        nodes.start(node).into_diagnostic()?;
        nodes.wait_ready().await.into_diagnostic()?;
        fill(nodes.nodes[node].mqtt, &tree.places[node].address, backlog).await?;
        nodes.stop().await;
    }
    for node in places {
        nodes.start(node).into_diagnostic()?;
    }
    nodes.wait_ready().await.into_diagnostic()?;
    let until = Instant::now() + PATIENCE;
    while !is_linked(&nodes).await? {
        if Instant::now() > until {
            miette::bail!("not all links are up after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let mut button = Client::connect(nodes.nodes[at].mqtt, "button".into(), true).await?;
    let waited_at_first = waiting(&nodes).await?;
    let mut pressed = HashMap::new();
    let mut tick = tokio::time::interval(EVERY);
    for n in 0..PRESSES {
        tick.tick().await;
        let name = format!("button-{n}");
        let press = format!(
            r#"{{"specversion":"1.0","id":"press-{n}","source":"/bench/button","subject":"{name}","type":"city.sos.pressed.v1","data":{{"location":"{n}"}}}}"#
        );
        pressed.insert(name, Utc::now());
        button.publish_texts(1, 1, "in/sos", |_| press.clone().into_bytes()).await?;
    }
    let waited_at_last = waiting(&nodes).await?;
    let mut ms = until_committed(&nodes, &pressed).await?;
    nodes.stop().await;
    ms.sort_by(f64::total_cmp);
    let at = |per_cent: usize| tenths(ms.get(ms.len() * per_cent / 100).copied().unwrap_or_default());
    Ok(Report {
        schema: "citybrain.bench-press/1",
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        backlog,
        event_bytes: EVENT_BYTES,
        presses: PRESSES,
        waited_at_first,
        waited_at_last,
        median_ms: at(50),
        p90_ms: at(90),
        p99_ms: at(99),
        longest_ms: tenths(ms.last().copied().unwrap_or_default()),
    })
}

/// Events that the node is to send up later.
async fn fill(port: u16, address: &Address, n: usize) -> miette::Result<()> {
    let mut publisher = Client::connect(port, "backlog".into(), true).await?;
    let event = |i: usize| {
        let mut e = format!(
            r#"{{"specversion":"1.0","id":"{address}-{i}","source":"/bench","type":"city.bench","data":{{"text":""#
        );
        e.extend(std::iter::repeat_n('x', EVENT_BYTES.saturating_sub(e.len() + 3)));
        e.push_str("\"}}");
        e.into_bytes()
    };
    publisher.publish_texts(n, 1000, "in/bench", event).await.wrap_err_with(|| format!("{address} took no backlog"))
}

async fn links(nodes: &Processes, node: usize) -> miette::Result<Vec<view::Link>> {
    let api = nodes.nodes[node].api.clone();
    let told = tokio::task::spawn_blocking(move || api.get::<view::Links>("/v1/links")).await.into_diagnostic()?;
    Ok(told.into_diagnostic()?.links)
}

/// Every node but the last has a link to the one below: waiting for a line is no part of what is measured.
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

/// How long each press took, ms, when all are at the city.
async fn until_committed(nodes: &Processes, pressed: &HashMap<String, DateTime<Utc>>) -> miette::Result<Vec<f64>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let query = [("type", "city.brain.case.submitted".to_owned()), ("limit", (pressed.len() * 2).to_string())];
        let api = nodes.nodes[0].api.clone();
        let events = tokio::task::spawn_blocking(move || api.events(&query)).await.into_diagnostic()?;
        let events = events.into_diagnostic()?;
        let took = events.iter().filter_map(|e| {
            let event: Value = serde_json::from_str(e.event.get()).ok()?;
            let began = pressed.get(event["data"]["case"]["title"].as_str()?)?;
            Some((e.committed_at - *began).num_microseconds()? as f64 / 1e3)
        });
        let took: Vec<f64> = took.collect();
        if took.len() == pressed.len() {
            return Ok(took);
        }
        if Instant::now() > until {
            miette::bail!(
                "{} of {} presses are at the city {} s after the last",
                took.len(),
                pressed.len(),
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
