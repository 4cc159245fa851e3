//! What is wrong with a node or its host, and what to do.
//!
//! | module | what it owns |
//! |---|---|
//! | [`facts`] | what can be known: plain data, also read back from a bundle |
//! | [`host`] | gathering it from the machine: disk, clock, limits, ports |
//! | [`checks`] | facts to findings: pure, one function a check |
//! | [`bundle`] | facts and answers in one file, to be looked at elsewhere |
//!
//! A check that could not be made says so; it never counts as good.

pub mod bundle;
pub mod checks;
pub mod facts;
pub mod host;

pub use checks::examine;
pub use facts::Facts;

use crate::brain::Brain;
use crate::ctx::Ctx;
use citybrain_hub::door::users::RefusedLogin;
use citybrain_hub::engine::{COMMIT_BUCKETS_US, House};
use citybrain_hub::log::Reader;
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::record::Header;
use citybrain_shared::view::{self, LinkRole};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Pos, limits};
use facts::{Ahead, Configured, Node};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Records looked at for clocks that are ahead.
const RECORDS_LOOKED_AT: u64 = 500;

/// What is known of a node that runs, taken from inside it.
pub struct Running {
    node: Node,
    /// After a reload it is another than it was started with.
    in_force: Arc<Config>,
    reader: Reader,
}

/// `liucheng, refused in a row: 29, the last from 10.0.0.7: wrong user or password`
pub fn login_in_words(login: &RefusedLogin) -> String {
    format!("{}, refused in a row: {}, the last from {}: {}", login.name, login.times, login.peer, login.why.words())
}

impl Running {
    pub fn of(ctx: &Ctx) -> Running {
        let (ready, door, links) = ((ctx.ready)(), (ctx.door)(), (ctx.links)());
        let House { log_bytes, log_segments, state_bytes, snapshot_pos, needed_pos, needed_by, .. } = ctx.hub.house();
        let reader = ctx.hub.reader();
        let found = &ctx.operations.found;
        let work = ctx.hub.work();
        let commits = work.commits.load(Relaxed);
        let fast: u64 = COMMIT_BUCKETS_US
            .iter()
            .zip(&work.commit_buckets)
            .filter(|(bound, _)| **bound <= 100_000)
            .map(|(_, n)| n.load(Relaxed))
            .sum();
        let left = |state: &State| Brain::of(state).map(|brain| brain.rules.left_named());
        // A folder alone does not say which rules are in force.
        let of_rules = ctx.offline.is_none().then(|| ctx.hub.state(left)).flatten();
        let (alarms_left, alarms_left_more) = of_rules.unwrap_or_default();
        let nameless = ctx.hub.state(|state| Brain::of(state).map(|brain| brain.nameless()).unwrap_or_default());
        let now = ctx.as_of();
        let failing = ctx.hub.state(|state| Brain::of(state).map(|brain| brain.failing(now)).unwrap_or_default());
        let past = ctx.hub.state(|state| Brain::of(state).map(|brain| brain.past_by_a_slip(now)).unwrap_or_default());
        let awaits = ctx.hub.state(|state| Brain::of(state)?.cases.awaited());
        let (children, calendar, days, dead_letters_open, lost) = ctx.hub.state(|state| {
            let below = state.registry.iter().filter(|(a, _)| a.parent().as_ref() == Some(&ctx.config.node.address));
            let children = below.map(|(a, k)| (a.to_string(), k.version.clone())).collect();
            let calendar = Brain::of(state).map(|brain| brain.cases.calendar_shown());
            let days = Brain::of(state).map(|brain| {
                let (days, now) = (brain.cases.calendar(), ctx.as_of());
                let latest = brain.cases.latest_working_due().unwrap_or(now).max(now);
                (days.unknown_from(), days.day(latest))
            });
            (children, calendar, days, state.dead_letters.len() as u64, state.counters.lost)
        });
        let node = Node {
            address: ctx.config.node.address.to_string(),
            uptime_s: ctx.started.elapsed().as_secs(),
            ready: ready.ready,
            reasons: ready.reasons,
            connections: door.connections,
            broker_away: door.away,
            links: links
                .iter()
                .map(|l| facts::Link {
                    up: l.role == LinkRole::Up,
                    peer: l.peer.to_string(),
                    state: l.state.clone(),
                    why: l.why.clone(),
                    heard_ms_ago: l.last_heard_ms_ago,
                    unsent: l.urgent.unsent + l.routine.unsent,
                })
                .collect(),
            children,
            webhooks: ctx.webhooks(),
            refused_logins: (ctx.operations.refused_logins)().iter().map(login_in_words).collect(),
            calendar: calendar.as_ref().map(|c| c.words.clone()).unwrap_or_default(),
            calendar_of: calendar.and_then(|c| c.of).map(|of| of.to_string()),
            days_unknown_from: days.and_then(|(from, _)| from),
            working_until: days.map(|(_, until)| until),
            dead_letters_open,
            alarms_left,
            alarms_left_more,
            awaits,
            nameless,
            failing,
            past,
            lost,
            last_pos: reader.last(),
            snapshot_pos,
            log_bytes,
            log_segments,
            state_bytes,
            needed_pos,
            needed_by,
            torn_bytes: found.cut_bytes,
            damages: found.damages.clone(),
            lost_end: found.lost_end,
            rebuilt: found.rebuilt.clone(),
            is_restored: found.is_restored,
            commits,
            commits_over_100_ms: commits.saturating_sub(fast),
            newest_record_us: 0,
            ahead: None,
        };
        let in_force = ctx.hub.state(|state| Brain::of(state).map(Brain::in_force));
        Running { node, in_force: in_force.unwrap_or_else(|| Arc::new(ctx.config.clone())), reader }
    }
}

/// Measures and looks. Takes as long as a few dozen fsyncs; call it where waiting is allowed.
pub fn gather(config: &Config, running: Option<Running>) -> Facts {
    let mut facts = Facts {
        host: host::gather(config, if running.is_some() { host::Reach::Write } else { host::Reach::Ports }),
        ..Facts::of(config)
    };
    if let Some(Running { mut node, in_force, reader }) = running {
        file_now(&in_force, &mut facts.config);
        let (newest, ahead) = clocks(&reader);
        (node.newest_record_us, node.ahead) = (newest, ahead);
        facts.node = Some(node);
    } else {
        facts.stopped = Some(stopped(config));
    }
    facts
}

/// Of a stopped node's folder, which is only read: without what its config says, and without a write to its disk.
pub fn of_folder(config: &Config, running: Running) -> Facts {
    let Running { mut node, reader, .. } = running;
    (node.newest_record_us, node.ahead) = clocks(&reader);
    let host = host::gather(config, host::Reach::Read);
    Facts { host, node: Some(node), is_folder: true, ..Facts::of(config) }
}

/// The file that a node was started from, as it is now: the next start goes by that.
fn file_now(in_force: &Config, facts: &mut Configured) {
    let Some(from) = &in_force.read_from else { return };
    let file = crate::config::read(&from.path, &from.variables);
    facts.problems = file.problem_places();
    facts.differs = file.config.map(|fresh| crate::config::differing(in_force, &fresh)).unwrap_or_default();
    facts.file = Some(crate::config::whole(&from.path).display().to_string());
}

/// The newest commit time, and the origin whose clock is furthest ahead of ours among the newest.
fn clocks(reader: &Reader) -> (i64, Option<Ahead>) {
    let after = Pos(reader.last().0.saturating_sub(RECORDS_LOOKED_AT));
    let Ok(entries) = reader.read(after, None, RECORDS_LOOKED_AT as usize, limits::COMMIT_BYTES_MAX_SLOW) else {
        return (0, None);
    };
    let mut newest = 0;
    let mut ahead: Option<Ahead> = None;
    for entry in &entries {
        let Ok((header, _)) = Header::decode(&entry.bytes) else { continue };
        newest = newest.max(header.committed_us);
        let Some(origin) = header.origin else { continue };
        let by_us = header.received_us - header.committed_us;
        if by_us > ahead.as_ref().map_or(0, |a| a.by_us) {
            ahead = Some(Ahead { origin: origin.address.to_owned(), by_us });
        }
    }
    (newest, ahead)
}

fn stopped(config: &Config) -> facts::Stopped {
    let dir = config.node.data.join("log");
    let in_use = citybrain_hub::log::is_in_use(&dir).unwrap_or(false);
    match citybrain_hub::log::open_read_only(&dir) {
        Ok((reader, found)) => {
            let newest_record_us = clocks(&reader).0;
            facts::Stopped {
                in_use,
                records: found.records,
                torn_bytes: if in_use { 0 } else { found.cut_bytes },
                damages: found.damage.iter().map(|d| format!("records {} to {}", d.first, d.last)).collect(),
                newest_record_us,
                trouble: None,
            }
        }
        Err(citybrain_hub::log::Error::Io(e)) if e.source.kind() == std::io::ErrorKind::NotFound => {
            facts::Stopped { in_use, ..facts::Stopped::default() }
        }
        Err(e) => facts::Stopped { in_use, trouble: Some(with_causes(&e)), ..facts::Stopped::default() },
    }
}

/// Nothing is bad. What only warns is no failure.
pub fn ok(checks: &[view::Finding]) -> bool {
    checks.iter().all(|c| c.severity < view::Verdict::Bad)
}
