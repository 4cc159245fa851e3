//! `citybrain bench --door`: the front door under load, and Mosquitto, where it is installed, under
//! the same load on the same machine in the same run.
//!
//! The broker is another process, so that its memory and its processor time are its own; both are
//! read from `/proc`. The clients of this process share the machine with it: rates are of both
//! together, memory and processor time of the broker alone.

use super::broker::{Broker, Which, mosquitto_path};
use super::client::Client;
use crate::cli::render::Measured;
use citybrain_shared::words::grouped;
use miette::{IntoDiagnostic, WrapErr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How much of each load.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Load {
    pub connections: usize,
    pub subscribers: usize,
    /// Published to all subscribers.
    pub fan_out_messages: usize,
    pub filters: usize,
    /// Published beside the filters, and published to one subscriber.
    pub messages: usize,
    pub message_bytes: usize,
}

impl Load {
    /// What a large gatehouse or a small city might see, or so many per cent of it.
    pub fn of(percent: u8) -> Load {
        let of = |n: usize| n * usize::from(percent) / 100;
        Load {
            connections: of(10_000),
            subscribers: of(1_000),
            fan_out_messages: of(300),
            filters: of(100_000),
            messages: of(100_000),
            message_bytes: 200,
        }
    }
}

/// What one broker made of it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Figures {
    /// CONNECT to CONNACK, 64 at a time.
    connects_per_s: f64,
    /// Memory of the broker with all of them idle, and what each added.
    idle_mb: f64,
    idle_bytes_per_connection: f64,
    /// QoS 1, acknowledged by each subscriber.
    fan_out_deliveries_per_s: f64,
    fan_out_cpu_us_per_delivery: f64,
    filters_mb: f64,
    filters_bytes_each: f64,
    /// QoS 1, one of them delivered in a hundred.
    filters_publishes_per_s: f64,
    filters_cpu_us_per_publish: f64,
    /// QoS 1: published, committed, acknowledged, delivered to a durable session, acknowledged there.
    through_per_s: f64,
    through_cpu_us: f64,
    /// QoS 1, acknowledged, to nobody: 100 under way on one connection, and one on each of 100.
    one_connection_per_s: f64,
    hundred_connections_per_s: f64,
}

#[derive(serde::Serialize)]
struct Report {
    schema: &'static str,
    cores: usize,
    load: Load,
    citybrain: Figures,
    mosquitto: Option<Figures>,
    /// Ours divided by Mosquitto's.
    ratios: Option<Figures>,
}

/// # Errors
/// When a broker does not start or answer, or fewer files may be open than there are connections.
pub fn measure(dir: &Path, load: Load) -> miette::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    let one = |which: Which| {
        runtime.block_on(figures(which, dir, load)).wrap_err_with(|| format!("the bench of {which:?} failed"))
    };
    let citybrain = one(Which::Citybrain)?;
    let mosquitto = mosquitto_path().map(|_| one(Which::Mosquitto)).transpose()?;
    let report = Report {
        schema: "citybrain.bench-door/1",
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        load,
        citybrain,
        mosquitto,
        ratios: mosquitto.map(|m| citybrain.over(&m)),
    };
    Ok(Measured {
        json: serde_json::to_value(&report).into_diagnostic()?,
        head: vec!["LOAD", "CITYBRAIN", "MOSQUITTO", "RATIO"],
        rows: report.rows(),
    })
}

impl Report {
    /// As README's table has them.
    fn rows(&self) -> Vec<Vec<String>> {
        let (l, n) = (&self.load, |n: usize| grouped(n as u64));
        type Shown = fn(f64) -> String;
        type Row = (String, fn(&Figures) -> f64, Shown);
        let per_s: Shown = super::rate;
        let mb: Shown = |mb| format!("{mb:.1} MB");
        let each: Shown = |bytes| format!("{} B", grouped(bytes as u64));
        let us: Shown = |us| format!("{us:.1} µs");
        let of: [Row; 13] = [
            (format!("connects, {} clients", n(l.connections)), |f| f.connects_per_s, per_s),
            ("memory with them idle".into(), |f| f.idle_mb, mb),
            ("of one of them".into(), |f| f.idle_bytes_per_connection, each),
            (format!("deliveries to {} subscribers, QoS 1", n(l.subscribers)), |f| f.fan_out_deliveries_per_s, per_s),
            ("CPU of a delivery".into(), |f| f.fan_out_cpu_us_per_delivery, us),
            (format!("memory with {} filters", n(l.filters)), |f| f.filters_mb, mb),
            ("of one of them".into(), |f| f.filters_bytes_each, each),
            ("publishes beside them, QoS 1".into(), |f| f.filters_publishes_per_s, per_s),
            ("CPU of a publish".into(), |f| f.filters_cpu_us_per_publish, us),
            ("QoS 1 through to a durable session".into(), |f| f.through_per_s, per_s),
            ("CPU of a message through".into(), |f| f.through_cpu_us, us),
            ("QoS 1 acknowledged, 100 under way on one connection".into(), |f| f.one_connection_per_s, per_s),
            ("the same, one under way on each of 100".into(), |f| f.hundred_connections_per_s, per_s),
        ];
        let row = |(what, figure, shown): Row| {
            let mosquitto = self.mosquitto.as_ref().map_or("-".into(), |m| shown(figure(m)));
            let ratio = self.ratios.as_ref().map_or("-".into(), |r| format!("{:.2}", figure(r)));
            vec![what, shown(figure(&self.citybrain)), mosquitto, ratio]
        };
        of.into_iter().map(row).collect()
    }
}

impl Figures {
    fn over(&self, m: &Figures) -> Figures {
        let ratio = |a: f64, b: f64| if b > 0.0 { (a / b * 100.0).round() / 100.0 } else { 0.0 };
        Figures {
            connects_per_s: ratio(self.connects_per_s, m.connects_per_s),
            idle_mb: ratio(self.idle_mb, m.idle_mb),
            idle_bytes_per_connection: ratio(self.idle_bytes_per_connection, m.idle_bytes_per_connection),
            fan_out_deliveries_per_s: ratio(self.fan_out_deliveries_per_s, m.fan_out_deliveries_per_s),
            fan_out_cpu_us_per_delivery: ratio(self.fan_out_cpu_us_per_delivery, m.fan_out_cpu_us_per_delivery),
            filters_mb: ratio(self.filters_mb, m.filters_mb),
            filters_bytes_each: ratio(self.filters_bytes_each, m.filters_bytes_each),
            filters_publishes_per_s: ratio(self.filters_publishes_per_s, m.filters_publishes_per_s),
            filters_cpu_us_per_publish: ratio(self.filters_cpu_us_per_publish, m.filters_cpu_us_per_publish),
            through_per_s: ratio(self.through_per_s, m.through_per_s),
            through_cpu_us: ratio(self.through_cpu_us, m.through_cpu_us),
            one_connection_per_s: ratio(self.one_connection_per_s, m.one_connection_per_s),
            hundred_connections_per_s: ratio(self.hundred_connections_per_s, m.hundred_connections_per_s),
        }
    }
}

async fn figures(which: Which, dir: &Path, load: Load) -> miette::Result<Figures> {
    let data = dir.join(format!("{which:?}").to_lowercase());
    let mut f = idle(&Broker::start(which, &data).await?, load).await?;
    fan_out(&Broker::start(which, &data).await?, load, &mut f).await?;
    filters(&Broker::start(which, &data).await?, load, &mut f).await?;
    through(&Broker::start(which, &data).await?, load, &mut f).await?;
    let broker = Broker::start(which, &data).await?;
    f.one_connection_per_s = publishers(&broker, load, 1, UNDER_WAY).await?;
    f.hundred_connections_per_s = publishers(&broker, load, UNDER_WAY, 1).await?;
    Ok(f)
}

/// Waits until the broker has been quiet for a moment.
async fn quiet(broker: &Broker) -> miette::Result<()> {
    let mut last = broker.cpu_us()?;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = broker.cpu_us()?;
        if now - last < 20_000.0 {
            break;
        }
        last = now;
    }
    Ok(())
}

async fn clients(port: u16, n: usize, name: &str) -> miette::Result<Vec<Client>> {
    const AT_ONCE: usize = 64;
    let mut all = Vec::with_capacity(n);
    let mut coming = JoinSet::new();
    for i in 0..n {
        if coming.len() >= AT_ONCE
            && let Some(client) = coming.join_next().await
        {
            all.push(client.into_diagnostic()??);
        }
        coming.spawn(Client::connect(port, format!("{name}{i}"), true));
    }
    while let Some(client) = coming.join_next().await {
        all.push(client.into_diagnostic()??);
    }
    Ok(all)
}

async fn idle(broker: &Broker, load: Load) -> miette::Result<Figures> {
    quiet(broker).await?;
    let before = broker.memory()?;
    let began = Instant::now();
    let all = clients(broker.port, load.connections, "idle").await?;
    let took = began.elapsed().as_secs_f64();
    quiet(broker).await?;
    let after = broker.memory()?;
    drop(all);
    Ok(Figures {
        connects_per_s: (load.connections as f64 / took).round(),
        idle_mb: megabytes(after),
        idle_bytes_per_connection: ((after - before) / load.connections as f64).round(),
        ..Figures::default()
    })
}

async fn fan_out(broker: &Broker, load: Load, f: &mut Figures) -> miette::Result<()> {
    let mut taking = JoinSet::new();
    for mut client in clients(broker.port, load.subscribers, "fan").await? {
        client.subscribe(["fan/out"].into_iter()).await?;
        taking.spawn(async move { client.take(load.fan_out_messages).await });
    }
    let mut publisher = Client::connect(broker.port, "publisher".into(), true).await?;
    let (cpu, began) = (broker.cpu_us()?, Instant::now());
    publisher.publish(load.fan_out_messages, 16, load.message_bytes, |_| "fan/out".into()).await?;
    while let Some(taken) = taking.join_next().await {
        taken.into_diagnostic()??;
    }
    let deliveries = (load.subscribers * load.fan_out_messages) as f64;
    f.fan_out_deliveries_per_s = (deliveries / began.elapsed().as_secs_f64()).round();
    f.fan_out_cpu_us_per_delivery = tenths((broker.cpu_us()? - cpu) / deliveries);
    Ok(())
}

async fn filters(broker: &Broker, load: Load, f: &mut Figures) -> miette::Result<()> {
    const CLIENTS: usize = 100;
    let each = load.filters / CLIENTS;
    quiet(broker).await?;
    let mut all = clients(broker.port, CLIENTS, "filters").await?;
    let before = broker.memory()?;
    for (c, client) in all.iter_mut().enumerate() {
        let names: Vec<String> = (0..each).map(|i| format!("city/{c}/sensor/{i}/+")).collect();
        for some in names.chunks(100) {
            client.subscribe(some.iter().map(String::as_str)).await?;
        }
    }
    quiet(broker).await?;
    f.filters_mb = megabytes(broker.memory()?);
    f.filters_bytes_each = ((broker.memory()? - before) / load.filters as f64).round();
    let mut publisher = Client::connect(broker.port, "publisher".into(), true).await?;
    let mut taking = JoinSet::new();
    // One topic in a hundred has a subscriber, a different one each time.
    let topic = move |n: usize| {
        if n.is_multiple_of(100) {
            let n = n / 100;
            format!("city/{}/sensor/{}/t", n % CLIENTS, n / CLIENTS % each)
        } else {
            format!("city/{}/nothing/{n}/t", n % CLIENTS)
        }
    };
    for (c, mut client) in all.into_iter().enumerate() {
        let mine = (0..load.messages.div_ceil(100)).filter(|n| n % CLIENTS == c).count();
        taking.spawn(async move { client.take(mine).await.map(|()| client) });
    }
    let (cpu, began) = (broker.cpu_us()?, Instant::now());
    publisher.publish(load.messages, 100, load.message_bytes, topic).await?;
    // Whoever leaves takes its filters with it, which is not what is measured.
    let mut staying = Vec::new();
    while let Some(taken) = taking.join_next().await {
        staying.push(taken.into_diagnostic()??);
    }
    f.filters_publishes_per_s = (load.messages as f64 / began.elapsed().as_secs_f64()).round();
    f.filters_cpu_us_per_publish = tenths((broker.cpu_us()? - cpu) / load.messages as f64);
    Ok(())
}

async fn through(broker: &Broker, load: Load, f: &mut Figures) -> miette::Result<()> {
    let mut subscriber = Client::connect(broker.port, "subscriber".into(), false).await?;
    subscriber.subscribe(["plant/#"].into_iter()).await?;
    let mut publisher = Client::connect(broker.port, "publisher".into(), true).await?;
    let (cpu, began) = (broker.cpu_us()?, Instant::now());
    let taking = tokio::spawn(async move { subscriber.take(load.messages).await });
    publisher.publish(load.messages, 100, load.message_bytes, |n| format!("plant/{}", n % 16)).await?;
    taking.await.into_diagnostic()??;
    f.through_per_s = (load.messages as f64 / began.elapsed().as_secs_f64()).round();
    f.through_cpu_us = tenths((broker.cpu_us()? - cpu) / load.messages as f64);
    Ok(())
}

/// Messages under way together, on however many connections.
const UNDER_WAY: usize = 100;

/// Messages a second that `connections` get acknowledged with `window` under way on each.
async fn publishers(broker: &Broker, load: Load, connections: usize, window: usize) -> miette::Result<f64> {
    let each = load.messages / connections;
    let all = clients(broker.port, connections, "publisher").await?;
    let began = Instant::now();
    let mut publishing = JoinSet::new();
    for mut client in all {
        let bytes = load.message_bytes;
        publishing.spawn(async move { client.publish(each, window, bytes, |n| format!("plant/{}", n % 16)).await });
    }
    while let Some(published) = publishing.join_next().await {
        published.into_diagnostic()??;
    }
    Ok(((each * connections) as f64 / began.elapsed().as_secs_f64()).round())
}

pub fn megabytes(bytes: f64) -> f64 {
    tenths(bytes / 1e6)
}

pub fn tenths(n: f64) -> f64 {
    (n * 10.0).round() / 10.0
}
