//! Starts a node and runs it until it is told to stop: the only place that wires and spawns.
//!
//! Order of a start: log and state (whatever a kill left), the engine's thread, the front door, the
//! links, the API, then `ready`. Order of a stop: doors and links close, the engine commits what it
//! has, its state is written, and only then does the process end.

use crate::announce;
use crate::api::{self, listen};
use crate::brain::Brain;
use crate::codes::{BUSY, UNUSABLE, coded, usable};
use crate::ctx::{Ctx, Sources};
use crate::tokens::{self, Limits, Tokens};
use crate::turns::{READING_MAX, SENDING_MAX};
use crate::webhook::Webhooks;
use crate::{files, program_pages};
use citybrain_hub::Hub;
use citybrain_hub::broker::{self, Broker, Servers};
use citybrain_hub::door::entrance::Entrance;
use citybrain_hub::door::outside::{self, Outside};
use citybrain_hub::door::{self, Door};
use citybrain_hub::engine::{self, Facts};
use citybrain_hub::ingress::Ingress;
use citybrain_hub::link::pipe;
use citybrain_hub::link::{Context, Downlinks, Links, Uplink, downlinks};
use citybrain_hub::note::DeadLetter;
use citybrain_hub::state::Presence;
use citybrain_hub::tls::{self, ClientFiles};
use citybrain_shared::config::{Config, Endpoint};
use citybrain_shared::view;
use miette::{IntoDiagnostic, WrapErr, miette};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long tasks may take to end once they are asked to; then the engine is stopped anyway.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether threads have ended.
const HOOKS_EVERY: Duration = Duration::from_millis(5);
/// How often a node that could not write when it started looks whether it can.
const PRESENCE_EVERY: Duration = Duration::from_secs(2);

/// Runs a node.
///
/// # Errors
/// When it cannot start, or can no longer keep its promises: [`BUSY`], [`UNUSABLE`], or without a code.
pub fn run(mut config: Config) -> miette::Result<()> {
    crate::logging::start(&config.log);
    files::leave(&mut config);
    let started = Instant::now();
    let opened = match engine::open(&config, Brain::make(&config)) {
        Err(e) if e.is_in_use() => Err(coded(BUSY, &e)),
        opened => opened.into_diagnostic(),
    };
    let (hub, engine, facts) =
        opened.wrap_err_with(|| format!("cannot open the data folder `{}`", config.node.data.display()))?;
    tell(&config, &facts);
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || engine.run())
        .into_diagnostic()
        .wrap_err("cannot start the engine's thread")?;
    let runtime = runtime(config.runtime.threads).into_diagnostic().wrap_err("cannot start the runtime")?;
    let served = runtime.block_on(serve(config, hub.clone(), facts, started));
    runtime.block_on(hub.stop());
    runtime.shutdown_timeout(STOP_WITHIN);
    thread.join().map_err(|_| miette!("the engine panicked; what was acknowledged is on disk"))?;
    served
}

/// Threads for what must wait or count for long. Beside the questions' there are two for passwords, and
/// two for names that are looked up.
const THREADS: usize = READING_MAX + SENDING_MAX + 4;

/// Log, state and engine alone, without doors: for measuring.
///
/// # Errors
/// As [`run`].
pub fn open_bare(config: &Config) -> miette::Result<(Hub, std::thread::JoinHandle<()>)> {
    let (hub, engine, _) = engine::open(config, citybrain_hub::policy::none()).into_diagnostic()?;
    let thread = std::thread::Builder::new().name("engine".into()).spawn(move || engine.run()).into_diagnostic()?;
    Ok((hub, thread))
}

pub(crate) fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut b = tokio::runtime::Builder::new_multi_thread();
            b.worker_threads(n);
            b
        }
    };
    // Such work is rare; idle threads would only cost memory.
    builder.enable_all().max_blocking_threads(THREADS).thread_keep_alive(Duration::from_secs(5)).build()
}

fn tell(config: &Config, facts: &Facts) {
    tracing::info!(
        node = %config.node.address,
        tier = %config.node.address.tier(),
        records = facts.records,
        last = facts.last.0,
        replayed = facts.replayed,
        took_ms = facts.took_ms,
        "Log and state are open."
    );
    if let Some((first, last)) = facts.lost_end {
        tracing::error!(
            first = first.0,
            last = last.0,
            cut_bytes = facts.cut_bytes,
            "Records that had been durable are gone from the log's end: the disk lost or changed them, or the log is an older copy. What had been sent to the parent is safe there."
        );
    } else if facts.cut_bytes > 0 {
        tracing::info!(
            bytes = facts.cut_bytes,
            "An unfinished write at the log's end was cut off; nothing of it was acknowledged."
        );
    }
    for damage in &facts.damages {
        tracing::error!(damage, "The log is damaged; the rest stays readable.");
    }
    if let Some(why) = &facts.rebuilt {
        tracing::warn!(reason = why, "The state was rebuilt.");
    }
}

/// Rules may have been taken out of the file while the node was down.
fn tell_left(hub: &Hub) {
    let (left, more) = hub.state(|s| Brain::of(s).map(|brain| brain.rules.left_named())).unwrap_or_default();
    if let Some(first) = left.first() {
        tracing::warn!(
            alarms = left.len() as u64 + more,
            first = first.id,
            name = first.named(),
            rule = first.rule,
            "Alarms are active that no rule in force ends: `citybrain doctor` names them."
        );
    }
}

/// An activity may have been moved to a wrong year while the node was down.
fn tell_past(ctx: &Ctx) {
    let past = ctx.hub.state(|s| Brain::of(s).map(|brain| brain.past_by_a_slip(ctx.as_of())));
    for sentence in past.unwrap_or_default() {
        tracing::warn!(sentence, "What is booked is past by the config.");
    }
}

async fn serve(config: Config, hub: Hub, facts: Facts, started: Instant) -> miette::Result<()> {
    tell_left(&hub);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let ingress = Arc::new(Ingress::new(&config).before(hub.reader()));
    hub.state(|state| ingress.recall(&state.retained));
    let links = Links::default();
    let context = Context::new(hub.clone(), &config.node, config.link.clone(), links.clone());

    let entrances = if config.broker.url.is_none() { entrances(&config).await? } else { Vec::new() };
    // Before whatever else may come, wills of the last life too: rules know by this record how long the node was
    // down, and a directive is counted for the nodes that are known when it comes.
    if !say_presence(&config, &hub).await? {
        tasks.spawn(say_presence_later(config.clone(), hub.clone(), stopped.clone()));
    }
    let front = match &config.broker.url {
        None => {
            outside::retire(&hub).await.into_diagnostic()?;
            let door = Door::new(
                Arc::new(hub.clone()),
                ingress.clone(),
                &config.node,
                &config.broker,
                (&config.access, &config.role),
                &config.link,
            );
            tasks.spawn(door::serve(entrances, door.clone(), stopped.clone()));
            Front::Embedded(door)
        }
        Some(url) => {
            let b = &config.broker;
            let tls = ClientFiles::of_broker(b);
            let broker = broker(&config, url, b.username.clone(), b.password_file.as_deref(), tls)?;
            let client = Outside::new(hub.clone(), ingress.clone(), &config, broker);
            let seen = client.seen.clone();
            tasks.spawn(client.run(stopped.clone()));
            Front::Outside(seen)
        }
    };
    let downlinks = match downlink_pipe(&config, front.door(), &hub)? {
        None => None,
        Some(dial) => {
            let (handle, driver) = Downlinks::new(context.clone(), dial);
            tasks.spawn(driver.run(stopped.clone()));
            Some(handle)
        }
    };
    let mut operations = operations(facts, &links, front.door(), ingress.clone());
    let local = tokens::mint().into_diagnostic()?;
    let known = config.api.tokens_file.clone().map(|file| Arc::new(Tokens::new(file, &local, Limits::of(&config.api))));
    let local = known.is_some().then_some(local);
    let reads = |token: &str| api::outward::of(&hub, known.clone(), &config.node.address, token);
    let webhooks = Webhooks::open(&config, &hub, &stopped, &reads).await?;
    operations.webhooks = webhooks.hooks().into();
    operations.tokens = known;
    let ctx = Arc::new(Ctx {
        hub: hub.clone(),
        config: config.clone(),
        links: {
            let (links, hub) = (links.clone(), hub.clone());
            Arc::new(move || api::links::views(&links.links(), &hub))
        },
        door: {
            let (broker, hub) = (config.broker.clone(), hub.clone());
            Arc::new(move || door_view(&broker, &front, &hub))
        },
        ready: {
            let hub = hub.clone();
            Arc::new(move || ready(&hub))
        },
        accept: Arc::new(move |json, via| {
            ingress.accept(json).map_err(|r| DeadLetter::new(r.reason, r.detail, via, "", json))
        }),
        operations,
        downlinks: downlinks.clone(),
        offline: None,
        started,
        turns: Default::default(),
        stop: stopped.clone(),
    });
    tell_past(&ctx);
    if let (Some(parent), Some(address)) = (&config.parent, config.node.address.parent()) {
        let tls = ClientFiles::of_parent(parent);
        let broker = broker(&config, &parent.url, parent.username.clone(), parent.password_file.as_deref(), tls)?;
        let answer = api::road::handler(&ctx, api::routes(ctx.clone()));
        tasks.spawn(Uplink::new(context, address, broker, answer, downlinks).run(stopped.clone()));
    }

    tasks.spawn(announce::run(ctx.clone(), stopped.clone()));
    let listener = bind(config.api.listen, "api.listen").await?;
    let tls = usable(tls::ServerFiles::of_api(&config.api).map(tls::Server::open).transpose())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().into_diagnostic()?);
    warn_of_expiry(&config);
    tasks.spawn(listen::serve(listener, tls, api::router(ctx), stopped.clone()));

    let hooks = webhooks.run()?;
    tasks.spawn(reload_on_hangup(hub.clone(), stopped.clone()));
    let note = Advertisement::write(&config, url.clone(), local);
    tasks.spawn(watchdog(hub.clone(), stopped.clone()));
    let mut ending = stopped.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = program_pages::give_back() => {}
            _ = ending.wait_for(|s| *s) => {}
        }
    });
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mqtt = config.broker.url.clone().unwrap_or_else(|| config.broker.listen.to_string());
    tracing::info!(node = %config.node.address, %mqtt, api = %url, "The node is ready.");

    let broken = tokio::select! {
        why = told_to_stop(hub.clone()) => {
            tracing::info!(reason = why, "Stopping.");
            None
        }
        what = first_panic(&mut tasks) => {
            tracing::error!(panic = %what, "A part of the node is gone; the node ends, so that whoever started it starts it whole again.");
            Some(what)
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    drop(note);
    let _ = stop.send(true);
    tasks.spawn(async move {
        while !hooks.iter().all(std::thread::JoinHandle::is_finished) {
            tokio::time::sleep(HOOKS_EVERY).await;
        }
    });
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_WITHIN, all).await.is_err() {
        tracing::warn!("Some connections did not end in time and are cut.");
    }
    match broken {
        None => Ok(()),
        Some(what) => Err(miette!("a part of the node panicked ({what}); what was acknowledged is on disk")),
    }
}

/// What the first task said that panicked; waits for ever while none does. A node without its door or
/// its links would look well to everybody but those whom it no longer serves.
async fn first_panic(tasks: &mut JoinSet<()>) -> String {
    loop {
        match tasks.join_next().await {
            Some(Err(e)) if e.is_panic() => return said(e.into_panic()),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

/// Where devices and apps are: at this node, or at an outside broker.
enum Front {
    Embedded(Arc<Door>),
    Outside(Arc<outside::Seen>),
}

impl Front {
    fn door(&self) -> Option<Arc<Door>> {
        match self {
            Front::Embedded(door) => Some(door.clone()),
            Front::Outside(_) => None,
        }
    }
}

async fn bind(address: std::net::SocketAddr, key: &str) -> miette::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let is_taken = e.kind() == std::io::ErrorKind::AddrInUse;
        let whose = if is_taken { "; is another node running there?" } else { "" };
        coded(if is_taken { BUSY } else { UNUSABLE }, &e).wrap_err(format!("cannot listen on {address} ({key}){whose}"))
    })
}

/// The doors of the embedded broker.
async fn entrances(config: &Config) -> miette::Result<Vec<Entrance>> {
    let mut all = vec![Entrance::plain(bind(config.broker.listen, "broker.listen").await?)];
    for (i, listener) in config.listener.iter().enumerate() {
        let socket = bind(listener.listen, &format!("listener.{i}.listen")).await?;
        all.push(usable(Entrance::new(socket, listener))?);
        tracing::info!(listen = %listener.listen, protocol = listener.protocol.as_str(), "A further door is open.");
    }
    Ok(all)
}

/// `citybrain check` says it too. No reason not to start: all else works, and the clock may be wrong.
fn warn_of_expiry(config: &Config) {
    for named in crate::certificates::of(config) {
        if named.validity().is_ok_and(|v| !v.holds(SystemTime::now())) {
            let (key, file) = (named.key, named.file.display().to_string());
            tracing::warn!(key, file, "A certificate or a revocation list is not valid now: clients may be refused.");
        }
    }
}

fn broker(
    config: &Config,
    url: &str,
    username: Option<String>,
    file: Option<&Path>,
    tls: Option<ClientFiles>,
) -> miette::Result<Broker> {
    let servers = Endpoint::parse_all(url).map_err(|why| miette!(code = UNUSABLE, "`{url}` {why}"))?;
    if servers.iter().any(|s| s.is_tls) && tls.is_none() {
        return Err(miette!(code = UNUSABLE, "`{url}` needs `ca_file`"));
    }
    // It is read again for each connection; one that cannot be is said at the start.
    file.map(broker::password_in).transpose().map_err(|why| miette!(code = UNUSABLE, "{why}"))?;
    Ok(Broker {
        servers: Servers::new(servers.into_iter().map(|s| (s.host, s.port))),
        username,
        password_file: file.map(Path::to_owned),
        tls,
        keep_alive_s: config.link.keep_alive_s,
        message_bytes_max: config.link.message_bytes_max,
    })
}

/// How this node, as a parent, reaches the broker that its children use; `None` for the lowest tier.
fn downlink_pipe(config: &Config, door: Option<Arc<Door>>, hub: &Hub) -> miette::Result<Option<downlinks::Dial>> {
    if config.node.address.tier() == citybrain_shared::Tier::Neighbourhood {
        return Ok(None);
    }
    if let Some(door) = door {
        return Ok(Some(Box::new(move || pipe::local(door.local()))));
    }
    let Some(url) = &config.broker.url else { return Ok(None) };
    let b = &config.broker;
    let broker = broker(config, url, b.username.clone(), b.password_file.as_deref(), ClientFiles::of_broker(b))?;
    let id = format!("{}-parent-{:x}", config.node.address, hub.state(|s| s.me.boot.nonce));
    let filters = downlinks::filters(&config.link.root);
    Ok(Some(Box::new(move || pipe::connect(&broker, id.clone(), None, filters.clone()))))
}

/// A login that was refused longer ago is no longer news.
const REFUSED_LATELY: Duration = Duration::from_secs(600);

/// What only whoever keeps the node running asks for.
fn operations(facts: Facts, links: &Links, door: Option<Arc<Door>>, ingress: Arc<Ingress>) -> Sources {
    let links = links.clone();
    let logins = door.clone();
    Sources {
        found: facts,
        refused_logins: Arc::new(move || logins.as_ref().map_or_else(Vec::new, |d| d.refused_logins(REFUSED_LATELY))),
        door: Arc::new(move || door.as_ref().map_or_else(Vec::new, |door| door.counters().all())),
        links: Arc::new(move || links.links()),
        webhooks: Arc::default(),
        again: Arc::new(move |client, topic, payload| {
            let again = if topic.is_empty() {
                ingress.accept(payload).map(Some)
            } else {
                ingress.again(client, topic, payload)
            };
            again.map_err(|r| (r.reason.to_owned(), r.detail))
        }),
        tokens: None,
    }
}

fn ready(hub: &Hub) -> view::Ready {
    let why: Vec<String> = hub.trouble().into_iter().map(|why| why.to_string()).collect();
    view::Ready { ready: why.is_empty(), reasons: why }
}

fn door_view(broker: &citybrain_shared::config::Broker, front: &Front, hub: &Hub) -> view::Door {
    let sessions = hub.state(|s| s.sessions.len()) as u64;
    let door = match front {
        Front::Embedded(door) => door,
        Front::Outside(seen) => {
            let away = seen.away.lock().clone();
            return view::Door {
                kind: "outside".into(),
                address: broker.url.clone().unwrap_or_default(),
                connections: away.is_none().into(),
                connections_max: 0,
                away_ms: away.as_ref().map(|away| away.since.elapsed().as_millis() as u64),
                away: away.map(|away| away.why),
                sessions,
                received: seen.received.load(Ordering::Relaxed),
                delivered: seen.delivered.load(Ordering::Relaxed),
                dropped: 0,
                refused: seen.refused.load(Ordering::Relaxed),
            };
        }
    };
    let c = door.counters();
    view::Door {
        kind: "embedded".into(),
        address: broker.listen.to_string(),
        connections: c.connections.load(Ordering::Relaxed),
        connections_max: broker.connections_max as u64,
        away: None,
        away_ms: None,
        sessions,
        received: c.publishes_qos0.get() + c.publishes_qos1.get() + c.publishes_qos2.get(),
        delivered: c.delivered.get(),
        dropped: c.qos0_dropped.get(),
        refused: c.refused.get() + c.forbidden.get() + c.forbidden_subscriptions.get(),
    }
}

/// Tells every ancestor who this node is; committed here like any event. False: the node cannot write.
async fn say_presence(config: &Config, hub: &Hub) -> miette::Result<bool> {
    let (inc, boot) = hub.state(|s| (s.me.inc, s.me.boot));
    let about = Presence {
        address: config.node.address.clone(),
        name: config.node.name.clone(),
        code: config.node.code.clone(),
        labels: config.node.labels.clone(),
        inc,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let ticket = hub.offer(vec![engine::presence(&about, boot)]).await.into_diagnostic()?;
    match engine::wait(ticket).await {
        Ok(_) => Ok(true),
        // A full disk is no reason not to start: reads are served, and writes resume when there is room.
        Err(engine::Error::Unwritable(why)) => {
            tracing::error!(reason = why, "The node starts, but cannot write.");
            Ok(false)
        }
        Err(e) => Err(e).into_diagnostic(),
    }
}

/// As [`say_presence`], as soon as the node can write.
async fn say_presence_later(config: Config, hub: Hub, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PRESENCE_EVERY) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        if hub.trouble().is_none() && !matches!(say_presence(&config, &hub).await, Ok(false)) {
            return;
        }
    }
}

/// `api.json` in the data folder: where the running node answers. Gone when it stops.
struct Advertisement(PathBuf);

impl Advertisement {
    fn write(config: &Config, url: String, token: Option<String>) -> Advertisement {
        let path = config.node.data.join("api.json");
        let about = view::ApiFile { url, pid: std::process::id(), address: config.node.address.clone(), token };
        let text = serde_json::to_vec(&about).expect("it has only string keys");
        // A new file, for its rights: what opens the API is for the node's own user.
        let _ = std::fs::remove_file(&path);
        let opened = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
        // Only a convenience for the CLI: a node that cannot write it (a full disk) runs all the same.
        if let Err(error) = opened.and_then(|mut file| file.write_all(&text)) {
            tracing::warn!(%error, path = %path.display(), "The CLI's pointer could not be written.");
        }
        Advertisement(path)
    }
}

impl Drop for Advertisement {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Keeps systemd's watchdog quiet only while the engine makes progress.
async fn watchdog(hub: Hub, mut stop: watch::Receiver<bool>) {
    let every = match sd_notify::watchdog_enabled() {
        Some(limit) => limit / 3,
        None => return,
    };
    let mut before = u64::MAX;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        let turns = hub.work().turns.load(Ordering::Relaxed);
        if turns != before {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
        before = turns;
    }
}

/// SIGHUP puts what can be of the config file in force, as `citybrain config reload` does.
async fn reload_on_hangup(hub: Hub, mut stop: watch::Receiver<bool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    loop {
        tokio::select! {
            heard = hangup.recv() => if heard.is_none() { return },
            _ = stop.wait_for(|s| *s) => return,
        }
        match api::reload::file_again(&hub).await {
            Ok(now) => tracing::info!(changed = api::reload::in_words(&now), "The config file was read again."),
            Err(error) => tracing::warn!(error, "The config stays as it was."),
        }
    }
}

/// SIGTERM, SIGINT, the engine's end, or, where asked for, the end of standard input (whoever
/// started the node is gone).
async fn told_to_stop(hub: Hub) -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return "signals cannot be heard";
    };
    let stdin = async {
        if std::env::var_os("CITYBRAIN_STOP_WITH_STDIN").is_none() {
            return std::future::pending().await;
        }
        let (tx, rx) = tokio::sync::oneshot::channel::<()>();
        // A thread of its own: a blocked read of standard input cannot be cancelled.
        std::thread::spawn(move || {
            let _tx = tx;
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        });
        let _ = rx.await;
    };
    let mut committed = hub.committed();
    let ended = async { while committed.changed().await.is_ok() {} };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
        () = stdin => "standard input has ended",
        () = ended => "the engine has ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_of_the_node_that_panics_is_told_and_one_that_ends_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(async { panic!("the {} is gone", "door") });
        assert_eq!(first_panic(&mut tasks).await, "the door is gone");
    }
}
