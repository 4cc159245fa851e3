//! `citybrain bench`: what this machine's disk and processor make of a node: first commits alone,
//! then one link alone (a parent that catches up with a child's whole log). With `--door` the front
//! door under load, beside Mosquitto ([`door`]); with `--press` a whole tree ([`press`]).

mod broker;
mod client;
mod door;
mod press;
mod slept;

use super::render::Measured;
use super::{Fail, Output};
use crate::run::open_bare;
use citybrain_hub::Hub;
use citybrain_hub::broker::{Broker, Servers};
use citybrain_hub::door::entrance::Entrance;
use citybrain_hub::door::{Door, serve};
use citybrain_hub::engine::{self, Outcome};
use citybrain_hub::ingress::Ingress;
use citybrain_hub::link::{Context, Downlinks, Links, Uplink, ask, pipe};
use citybrain_shared::config::Config;
use citybrain_shared::words::grouped;
use clap::Args;
use miette::IntoDiagnostic;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Debug, Args)]
pub struct Bench {
    /// Events to commit
    #[arg(long, default_value_t = 100_000)]
    pub events: usize,
    /// Bytes of one event
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(120..=200_000))]
    pub size: u32,
    /// Events under way: offered and not yet committed
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub inflight: u32,
    /// Where to write; default a temporary folder (is that a real disk?)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Measure the front door: 9,900 idle connections, 1,000 subscribers of a topic, 100,000 filters,
    /// 100,000 messages to one subscriber, and as many from one connection and from 100; and Mosquitto
    /// beside it, if it is installed
    #[arg(long, conflicts_with_all = ["events", "size", "inflight"])]
    pub door: bool,
    /// Instead: a durable session that is away for 1,000,000 messages and comes back (about a minute, and
    /// 700 MB of disk)
    #[arg(long, requires = "door")]
    pub slept: bool,
    /// Measure a press for help, from its publish until a subscriber at the city has its case, while 100,000
    /// events wait on each of the three hops between (300 presses in ten rounds; about a minute)
    #[arg(long, conflicts_with_all = ["events", "size", "inflight", "door"])]
    pub press: bool,
    /// Per cent of the load of `--door`, or of what waits, and how often, with `--press`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: u8,
}

#[derive(serde::Serialize)]
struct Report {
    schema: &'static str,
    dir: String,
    events: usize,
    event_bytes: u32,
    inflight: u32,
    events_per_s: f64,
    commit_ms_p50: f64,
    commit_ms_p99: f64,
    commits: u64,
    events_per_commit: f64,
    reopen_ms: u64,
    /// Committed at the parent, and acknowledged to the child, over MQTT on loopback.
    link_events_per_s: f64,
}

impl Report {
    fn measured(&self) -> miette::Result<Measured> {
        let events = grouped(self.events as u64);
        let row = |what: &str, found: String| vec![what.to_owned(), found];
        let rows = vec![
            row("events", format!("{events} of {} bytes, {} under way", self.event_bytes, self.inflight)),
            row("committed", rate(self.events_per_s)),
            row("a commit, median / p99", format!("{:.1} / {:.1} ms", self.commit_ms_p50, self.commit_ms_p99)),
            row("commits", format!("{}, of {:.1} events", grouped(self.commits), self.events_per_commit)),
            row("opened again in", format!("{} ms", grouped(self.reopen_ms))),
            row("taken by a parent", rate(self.link_events_per_s)),
        ];
        let json = serde_json::to_value(self).into_diagnostic()?;
        Ok(Measured { json, head: Vec::new(), rows })
    }
}

/// `12,345/s`
fn rate(per_s: f64) -> String {
    format!("{}/s", grouped(per_s as u64))
}

/// Ctrl-C ends the program at once, and leaves nothing in `dir` either.
fn removed_when_interrupted(dir: PathBuf) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(crate::replay::told_to_stop());
        let _ = std::fs::remove_dir_all(&dir);
        std::process::exit(130);
    });
}

impl Bench {
    pub fn act(self) -> Result<Output, Fail> {
        let fail = |what: String| Fail::no("bench", what, "`citybrain bench --dir DIR` writes to another disk");
        let dir = self
            .dir
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("citybrain-bench-{}", std::process::id())));
        if dir.exists() {
            return Err(fail(format!("`{}` exists already", dir.display())));
        }
        // The folder alone, because it alone is removed again.
        std::fs::create_dir(&dir).map_err(|e| {
            let hint = "`citybrain bench --dir DIR` takes a folder that is not there yet, on the disk in question";
            Fail::usage(format!("cannot make `{}`: {e}", dir.display()), hint)
        })?;
        removed_when_interrupted(dir.clone());
        if self.press {
            let report = press::measure(&dir, self.percent).map_err(|e| fail(format!("{e:#}")));
            let _ = std::fs::remove_dir_all(&dir);
            return Ok(Output::Measured(Box::new(report?)));
        }
        if self.door {
            let load = door::Load::of(self.percent);
            let report = if self.slept { slept::measure(&dir, load, self.percent) } else { door::measure(&dir, load) };
            let report = report.map_err(|e| fail(format!("{e:#}")));
            let _ = std::fs::remove_dir_all(&dir);
            return Ok(Output::Measured(Box::new(report?)));
        }
        let report = self.measure(&dir).and_then(|report| report.measured()).map_err(|e| fail(format!("{e:#}")));
        let _ = std::fs::remove_dir_all(&dir);
        Ok(Output::Measured(Box::new(report?)))
    }

    fn measure(&self, dir: &Path) -> miette::Result<Report> {
        let text = format!(
            "[node]\naddress = \"bench/child\"\ndata = {:?}\n[parent]\nurl = \"mqtt://127.0.0.1\"\n[log]\nlevel = \"error\"\n",
            dir.display().to_string()
        );
        let config: Config = toml::from_str(&text).into_diagnostic()?;
        let (hub, thread) = open_bare(&config)?;
        let ingress = Ingress::new(&config);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
        let started = Instant::now();
        let mut waits: Vec<Duration> = Vec::with_capacity(self.events);
        runtime.block_on(async {
            // Offered one by one, as separate devices would; the engine makes the groups.
            let mut flying = std::collections::VecDeque::new();
            let mut next = 0;
            while next < self.events || !flying.is_empty() {
                while next < self.events && flying.len() < self.inflight as usize {
                    let draft = ingress
                        .accept(event(next, self.size as usize).as_bytes())
                        .map_err(|r| miette::miette!("{}", r.detail))?;
                    flying.push_back((Instant::now(), hub.offer(vec![draft]).await.into_diagnostic()?));
                    next += 1;
                }
                if let Some((at, ticket)) = flying.pop_front() {
                    let outcome = engine::wait(ticket).await.into_diagnostic()?;
                    if !matches!(outcome.as_slice(), [Outcome::Committed(_)]) {
                        miette::bail!("an event was taken for a duplicate");
                    }
                    waits.push(at.elapsed());
                }
            }
            hub.stop().await;
            Ok(())
        })?;
        let took = started.elapsed();
        let commits = hub.work().commits.load(std::sync::atomic::Ordering::Relaxed).max(1);
        drop(hub);
        thread.join().map_err(|_| miette::miette!("the engine panicked"))?;
        let reopened = Instant::now();
        let (hub, thread) = open_bare(&config)?;
        let reopen_ms = reopened.elapsed().as_millis() as u64;
        let link_events_per_s = runtime.block_on(link(&config, hub.clone(), &dir.join("parent"), self.events))?;
        runtime.block_on(hub.stop());
        drop(hub);
        thread.join().map_err(|_| miette::miette!("the engine panicked"))?;
        waits.sort_unstable();
        let at =
            |q: f64| waits.get(((waits.len().max(1) - 1) as f64 * q) as usize).map_or(0.0, |d| d.as_secs_f64() * 1e3);
        Ok(Report {
            schema: "citybrain.bench/1",
            dir: dir.display().to_string(),
            events: self.events,
            event_bytes: self.size,
            inflight: self.inflight,
            events_per_s: (self.events as f64 / took.as_secs_f64()).round(),
            commit_ms_p50: at(0.5),
            commit_ms_p99: at(0.99),
            commits,
            events_per_commit: self.events as f64 / commits as f64,
            reopen_ms,
            link_events_per_s: link_events_per_s.round(),
        })
    }
}

/// Events a second at which a parent takes the child's log. Ends with the last acknowledgement.
async fn link(child: &Config, hub: Hub, dir: &Path, events: usize) -> miette::Result<f64> {
    let text = format!("[node]\naddress = \"bench\"\ndata = {:?}\n", dir.display().to_string());
    let config: Config = toml::from_str(&text).into_diagnostic()?;
    let (parent, thread) = open_bare(&config)?;
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.into_diagnostic()?;
    let broker = Broker {
        servers: Servers::new([("127.0.0.1".into(), listener.local_addr().into_diagnostic()?.port())]),
        username: None,
        password_file: None,
        tls: None,
        keep_alive_s: config.link.keep_alive_s,
        message_bytes_max: config.link.message_bytes_max,
    };
    let ingress = Arc::new(Ingress::new(&config));
    let door = Door::new(
        Arc::new(parent.clone()),
        ingress,
        &config.node,
        &config.broker,
        (&config.access, &config.role),
        &config.link,
    );
    tokio::spawn(serve(vec![Entrance::plain(listener)], door.clone(), stopped.clone()));
    let context = |hub: &Hub, c: &Config| Context::new(hub.clone(), &c.node, c.link.clone(), Links::default());
    let (_downlinks, driver) = Downlinks::new(context(&parent, &config), Box::new(move || pipe::local(door.local())));
    tokio::spawn(driver.run(stopped.clone()));
    let started = Instant::now();
    let answer: ask::Handler = Arc::new(|_| Box::pin(async { bytes::Bytes::new() }));
    let uplink = Uplink::new(context(&hub, child), config.node.address.clone(), broker, answer, None);
    tokio::spawn(uplink.run(stopped));
    let mut committed = parent.committed();
    // One received record a position, and a few notes beside them.
    let all = |hub: &Hub| hub.state(|s| s.counters.received_up >= events as u64);
    while !all(&parent) {
        let change = committed.changed();
        match tokio::time::timeout(Duration::from_secs(30), change).await {
            Ok(Ok(())) => {}
            _ => miette::bail!("the link stood still for 30 s"),
        }
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    let _ = stop.send(true);
    parent.stop().await;
    thread.join().map_err(|_| miette::miette!("the parent's engine panicked"))?;
    Ok(rate)
}

fn event(n: usize, size: usize) -> String {
    let mut e =
        format!(r#"{{"specversion":"1.0","id":"{n}","source":"/bench","type":"city.bench","data":{{"n":{n},"note":""#);
    while e.len() + 3 < size {
        e.push((b'a' + (e.len() % 26) as u8) as char);
    }
    e.push_str("\"}}");
    e
}
