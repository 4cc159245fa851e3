//! `citybrain bench --door --slept`: a durable subscriber is away while a million messages are
//! published, comes back, and reads them. Beside it a publisher and a subscriber send each other one
//! message at a time, and show whether anybody else notices.

use super::broker::{Broker, Which, mosquitto_path};
use super::client::Client;
use super::door::{Load, megabytes, tenths};
use crate::cli::render::Measured;
use citybrain_shared::words::grouped;
use miette::{IntoDiagnostic, WrapErr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A whole load, messages.
const MESSAGES: usize = 1_000_000;

/// How long the others are watched while nothing else happens.
const ALONE: Duration = Duration::from_secs(2);

#[derive(serde::Serialize)]
struct Report {
    schema: &'static str,
    cores: usize,
    messages: usize,
    message_bytes: usize,
    citybrain: Figures,
    mosquitto: Option<Figures>,
}

#[derive(Clone, Debug, serde::Serialize)]
struct Figures {
    /// QoS 1, into the session of the one who is away.
    published_per_s: f64,
    /// From its CONNECT to its last message; each came once and in order, or the bench fails.
    read_per_s: f64,
    /// Memory of the broker before the first message, and the most it had until the last was
    /// published, and until it was read.
    memory_mb_before: f64,
    memory_mb_asleep_max: f64,
    memory_mb_reading_max: f64,
    /// From a PUBLISH to its delivery to another client.
    others_alone: Latency,
    others_while_it_sleeps: Latency,
    others_while_it_reads: Latency,
    /// The same at a second broker that has nothing else to do, while the first one's slept session
    /// is read: what the machine alone, with the bench's own clients on it, adds.
    elsewhere_while_it_reads: Latency,
}

#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Latency {
    messages: usize,
    median_us: f64,
    p99_us: f64,
}

/// # Errors
/// When a broker does not start or answer, or a message is missing, twice or out of order.
pub fn measure(dir: &Path, load: Load, percent: u8) -> miette::Result<Measured> {
    let messages = MESSAGES * usize::from(percent) / 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    let one = |which: Which| {
        let figures = runtime.block_on(figures(which, dir, messages, load.message_bytes));
        figures.wrap_err_with(|| format!("the bench of {which:?} failed"))
    };
    let report = Report {
        schema: "citybrain.bench-slept/1",
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        messages,
        message_bytes: load.message_bytes,
        citybrain: one(Which::Citybrain)?,
        mosquitto: mosquitto_path().map(|_| one(Which::Mosquitto)).transpose()?,
    };
    Ok(Measured {
        json: serde_json::to_value(&report).into_diagnostic()?,
        head: vec!["LOAD", "CITYBRAIN", "MOSQUITTO"],
        rows: report.rows(),
    })
}

impl Report {
    /// As README's table has them.
    fn rows(&self) -> Vec<Vec<String>> {
        let mb = |mb: f64| format!("{mb:.1} MB");
        let waits = |l: &Latency| format!("{:.2} / {:.1} ms", l.median_us / 1e3, l.p99_us / 1e3);
        type Row<'a> = (String, &'a dyn Fn(&Figures) -> String);
        let of: [Row<'_>; 8] = [
            (format!("published, {} messages", grouped(self.messages as u64)), &|f| super::rate(f.published_per_s)),
            ("read".into(), &|f| super::rate(f.read_per_s)),
            ("memory while it sleeps, at most".into(), &|f| mb(f.memory_mb_asleep_max)),
            ("memory while it reads, at most".into(), &|f| mb(f.memory_mb_reading_max)),
            ("others' round trip, median / p99: alone".into(), &|f| waits(&f.others_alone)),
            ("while it sleeps".into(), &|f| waits(&f.others_while_it_sleeps)),
            ("while it reads".into(), &|f| waits(&f.others_while_it_reads)),
            ("at a second broker meanwhile".into(), &|f| waits(&f.elsewhere_while_it_reads)),
        ];
        let row = |(what, shown): Row<'_>| {
            vec![what, shown(&self.citybrain), self.mosquitto.as_ref().map_or("-".into(), shown)]
        };
        of.into_iter().map(row).collect()
    }
}

async fn figures(which: Which, dir: &Path, messages: usize, bytes: usize) -> miette::Result<Figures> {
    let broker = Broker::start(which, &dir.join(format!("{which:?}").to_lowercase())).await?;
    let sleeper = || Client::connect(broker.port, "sleeper".into(), false);
    let mut first = sleeper().await?;
    first.subscribe(["plant/#"].into_iter()).await?;
    drop(first);

    let before = broker.memory()?;
    let others = Others::start(broker.port);
    tokio::time::sleep(ALONE).await;
    let others_alone = others.stop()?;

    let others = Others::start(broker.port);
    let began = Instant::now();
    let mut publisher = Client::connect(broker.port, "publisher".into(), true).await?;
    let publishing = publisher.publish_numbered(messages, 100, bytes, "plant/3");
    let asleep_max = watch_memory(&broker, publishing).await?;
    let published_s = began.elapsed().as_secs_f64();
    let others_while_it_sleeps = others.stop()?;

    let idle = Broker::start(which, &dir.join(format!("{which:?}-idle").to_lowercase())).await?;
    let others = Others::start(broker.port);
    let elsewhere = Others::start(idle.port);
    let began = Instant::now();
    let mut back = sleeper().await?;
    let reading_max = watch_memory(&broker, back.take_numbered(messages)).await?;
    let read_s = began.elapsed().as_secs_f64();
    Ok(Figures {
        published_per_s: (messages as f64 / published_s).round(),
        read_per_s: (messages as f64 / read_s).round(),
        memory_mb_before: megabytes(before),
        memory_mb_asleep_max: megabytes(asleep_max),
        memory_mb_reading_max: megabytes(reading_max),
        others_alone,
        others_while_it_sleeps,
        others_while_it_reads: others.stop()?,
        elsewhere_while_it_reads: elsewhere.stop()?,
    })
}

/// The most memory that the broker has until `done`, bytes.
async fn watch_memory(broker: &Broker, done: impl Future<Output = miette::Result<()>>) -> miette::Result<f64> {
    let mut max = broker.memory()?;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    tokio::pin!(done);
    loop {
        tokio::select! {
            result = &mut done => return result.map(|()| max),
            _ = tick.tick() => max = max.max(broker.memory()?),
        }
    }
}

/// A publisher and a subscriber on a thread of their own, so that the bench's other clients do not
/// hold them up.
struct Others {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<miette::Result<Vec<f64>>>,
}

impl Others {
    fn start(port: u16) -> Others {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
            runtime.block_on(async {
                let mut subscriber = Client::connect(port, "other-subscriber".into(), true).await?;
                subscriber.subscribe(["other/t"].into_iter()).await?;
                let mut publisher = Client::connect(port, "other-publisher".into(), true).await?;
                let mut took_us = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let (published, taken) =
                        tokio::join!(publisher.publish_numbered(1, 1, 200, "other/t"), subscriber.take_numbered(1));
                    published.and(taken)?;
                    took_us.push(began.elapsed().as_secs_f64() * 1e6);
                }
                Ok(took_us)
            })
        });
        Others { stop, thread }
    }

    fn stop(self) -> miette::Result<Latency> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = self.thread.join().map_err(|_| miette::miette!("the other clients' thread panicked"))??;
        all.sort_by(f64::total_cmp);
        let at = |per_cent: usize| all.get(all.len() * per_cent / 100).copied().unwrap_or_default();
        Ok(Latency { messages: all.len(), median_us: tenths(at(50)), p99_us: tenths(at(99)) })
    }
}
