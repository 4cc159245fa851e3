//! Prometheus text (exposition format 0.0.4).
//!
//! Names are `citybrain_NOUN_UNIT`, counters end in `_total`, units are base units (seconds, bytes).
//! Labels are few and bounded: a link's peer is the parent or a direct child, never a descendant,
//! and nothing that came from outside is a label.

use super::{Ctx, status};
use crate::brain::Brain;
use axum::extract::State as From;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use citybrain_hub::engine::{COMMIT_BUCKETS_US, House, Work};
use citybrain_hub::link::view::LinkView;
use citybrain_shared::case::Kind;
use citybrain_shared::config::Config;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::view::{self, LinkRole};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

pub async fn text(From(ctx): From<Arc<Ctx>>) -> Response {
    let mut page = Page::default();
    node(&mut page, &ctx);
    matters(&mut page, &ctx);
    certificates(&mut page, &ctx.config);
    log(&mut page, &ctx, &ctx.hub.house());
    commits(&mut page, ctx.hub.work());
    door(&mut page, &(ctx.door)(), &(ctx.operations.door)());
    links(&mut page, &(ctx.links)(), &(ctx.operations.links)());
    webhooks(&mut page, &ctx);
    requests(&mut page, &ctx);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text).into_response()
}

fn node(page: &mut Page, ctx: &Ctx) {
    let (counters, descendants, open) = ctx.hub.state(|state| {
        (status::counters(state), status::descendants(state, &ctx.config), state.dead_letters.len() as u64)
    });
    let node = &ctx.config.node;
    let about = [
        ("address", node.address.as_str()),
        ("tier", node.address.tier().as_str()),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.family("build_info", "gauge", "The node and its build; always 1.");
    page.sample("build_info", &about, 1.0);
    let started = super::now().timestamp_millis() as f64 / 1e3 - ctx.started.elapsed().as_secs_f64();
    page.one("start_time_seconds", "gauge", "When the process began its work, seconds since 1970.", started.round());
    let ready = u8::from((ctx.ready)().ready);
    page.one("ready", "gauge", "1 when the node takes events and can make them durable.", ready.into());
    page.one("descendants", "gauge", "Nodes below that ever told of themselves.", descendants as f64);
    page.one("dead_letters_open", "gauge", "Refused, and nobody has looked yet.", open as f64);
    totals(page, &counters);
}

/// What the node is for, as it knows it: here and below. Numbers are kept as cases change; counted here are
/// alarms, of which there are few, and cases over a limit, which stand side by side in an index by time.
fn matters(page: &mut Page, ctx: &Ctx) {
    let now = super::now();
    let of = |brain: &Brain| {
        let active = brain.rules.alarms.iter().filter(|a| a.active);
        let mut alarms = [0_u64; Severity::ALL.len()];
        active.for_each(|a| alarms[a.severity as usize] += 1);
        (brain.cases.open_by_kind(), brain.cases.overdue(now), brain.cases.calls_for_help(), alarms)
    };
    let Some((open, overdue, calls, alarms)) = ctx.hub.state(|state| Brain::of(state).map(of)) else { return };
    page.family("cases_open", "gauge", "Cases that are open, at this node and below.");
    for (kind, count) in Kind::ALL.iter().zip(open) {
        page.sample("cases_open", &[("kind", kind.as_str())], count as f64);
    }
    page.one("cases_overdue", "gauge", "Of them those over a limit.", overdue as f64);
    page.family(
        "help_wanted",
        "gauge",
        "Of the open cases the calls for help, by whether somebody has accepted them, or is coming.",
    );
    page.sample("help_wanted", &[("accepted", "no")], calls.unaccepted as f64);
    page.sample("help_wanted", &[("accepted", "yes")], (calls.open - calls.unaccepted) as f64);
    page.family("alarms_active", "gauge", "Conditions that hold now, at this node and below.");
    for (severity, count) in Severity::ALL.iter().zip(alarms) {
        page.sample("alarms_active", &[("severity", severity.as_str())], count as f64);
    }
}

fn certificates(page: &mut Page, config: &Config) {
    let all = crate::certificates::of(config);
    if all.is_empty() {
        return;
    }
    let name = "certificate_expiry_seconds";
    page.family(name, "gauge", "When a certificate or a revocation list ends, seconds since 1970.");
    for named in all {
        // One that does not read is `doctor`'s to tell of.
        let Ok(validity) = named.validity() else { continue };
        let until = validity.until.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let what = if named.is_list { "revocations" } else { "certificate" };
        page.sample(name, &[("key", &named.key), ("what", what)], until as f64);
    }
}

fn webhooks(page: &mut Page, ctx: &Ctx) {
    let all = &ctx.operations.webhooks;
    if all.is_empty() {
        return;
    }
    let last = ctx.hub.reader().last().0;
    type Count = fn(&crate::webhook::Hook) -> u64;
    let counts: [(&str, &str, &str, Count); 4] = [
        ("webhook_delivered_total", "counter", "Events that a receiver took, since the start.", |w| {
            w.counters.delivered.load(Relaxed)
        }),
        ("webhook_refused_total", "counter", "Events that a receiver refused for good: dead letters.", |w| {
            w.counters.refused.load(Relaxed)
        }),
        ("webhook_retries_total", "counter", "Attempts that failed and were or will be made again.", |w| {
            w.counters.retries.load(Relaxed)
        }),
        ("webhook_upto_position", "gauge", "Everything in the log up to here is settled.", |w| w.counters.upto()),
    ];
    for (name, kind, help, count) in counts {
        page.family(name, kind, help);
        all.iter().for_each(|w| page.sample(name, &[("webhook", w.name())], count(w) as f64));
    }
    page.family("webhook_behind_records", "gauge", "Records in the log that a webhook has not looked at.");
    for w in all.iter() {
        page.sample("webhook_behind_records", &[("webhook", w.name())], last.saturating_sub(w.counters.upto()) as f64);
    }
}

fn requests(page: &mut Page, ctx: &Ctx) {
    let Some(tokens) = &ctx.operations.tokens else { return };
    let name = "api_requests_limited_total";
    page.family(name, "counter", "Requests answered 429: more than api.requests_per_minute of one token.");
    for (role, refused) in tokens.refused() {
        page.sample(name, &[("role", role.as_str())], refused as f64);
    }
}

fn totals(page: &mut Page, c: &view::Counters) {
    for (name, help, value) in [
        ("events_accepted_total", "Events that began here.", c.accepted),
        ("events_urgent_total", "Urgent events, begun here or received.", c.urgent),
        ("messages_total", "Plain MQTT messages kept.", c.messages),
        ("duplicates_total", "Records received again and dropped.", c.duplicates),
        ("dead_letters_total", "Everything that was refused.", c.dead_letters),
        ("receipts_total", "Answers to directives.", c.receipts),
        ("directives_expired_total", "Directives for this node that came too late.", c.expired),
        ("records_lost_total", "Records recorded as lost.", c.lost),
    ] {
        page.one(name, "counter", help, value as f64);
    }
    page.family("events_received_total", "counter", "Events of other nodes.");
    page.sample("events_received_total", &[("direction", "up")], c.received_up as f64);
    page.sample("events_received_total", &[("direction", "down")], c.received_down as f64);
}

fn log(page: &mut Page, ctx: &Ctx, house: &House) {
    let reader = ctx.hub.reader();
    let last = reader.last().0;
    for (name, help, value) in [
        ("log_first_position", "Oldest record that is kept.", reader.first().0),
        ("log_last_position", "Newest durable record.", last),
        ("log_bytes", "The log's segments and indexes on disk.", house.log_bytes),
        ("log_segments", "Segment files of the log.", house.log_segments),
        (
            "log_needed_records",
            "Records that some peer or session has not read: retention keeps them.",
            (last + 1).saturating_sub(house.needed_pos.0),
        ),
        (
            "log_bytes_max",
            "store.log_bytes_max: beyond it retention takes what nobody needs.",
            ctx.config.store.log_bytes_max,
        ),
        ("state_bytes", "The state's file.", house.state_bytes),
        ("state_rows", "Rows of the state.", house.state_rows),
        ("snapshot_behind_records", "Records since the newest snapshot.", last.saturating_sub(house.snapshot_pos.0)),
    ] {
        page.one(name, "gauge", help, value as f64);
    }
    if let Ok(fs) = rustix::fs::statvfs(&ctx.config.node.data) {
        let free = fs.f_bavail * fs.f_frsize;
        page.one("disk_free_bytes", "gauge", "Free for the node on the data folder's disk.", free as f64);
        let min = ctx.config.store.free_bytes_min;
        page.one("disk_free_bytes_min", "gauge", "store.free_bytes_min: below it nothing is accepted.", min as f64);
    }
}

fn commits(page: &mut Page, work: &Work) {
    page.family("commit_duration_seconds", "histogram", "From the first decision of a commit to the end of its fsync.");
    let mut sum = 0;
    for (bound, bucket) in COMMIT_BUCKETS_US.iter().zip(&work.commit_buckets) {
        sum += bucket.load(Relaxed);
        let le = (*bound as f64 / 1e6).to_string();
        page.sample("commit_duration_seconds_bucket", &[("le", &le)], sum as f64);
    }
    // A commit may end between two loads: the last bucket is never below those before it.
    let commits = work.commits.load(Relaxed).max(sum);
    page.sample("commit_duration_seconds_bucket", &[("le", "+Inf")], commits as f64);
    page.sample("commit_duration_seconds_sum", &[], work.commit_us_sum.load(Relaxed) as f64 / 1e6);
    page.sample("commit_duration_seconds_count", &[], commits as f64);
    let records = work.records.load(Relaxed);
    page.one("commit_records_total", "counter", "Records made durable.", records as f64);
    let turns = work.turns.load(Relaxed);
    page.one(
        "engine_turns_total",
        "counter",
        "Turns of the engine's loop: grows while it makes progress.",
        turns as f64,
    );
    let ignored = work.frames_ignored.load(Relaxed);
    let help = "Link messages that were damaged, late, of no child, or too many at once.";
    page.one("frames_ignored_total", "counter", help, ignored as f64);
}

fn door(page: &mut Page, d: &view::Door, counters: &[(&'static str, u64)]) {
    page.one("door_connections", "gauge", "MQTT connections now.", d.connections as f64);
    page.one(
        "door_connections_max",
        "gauge",
        "broker.connections_max; 0: a bound of the outside broker's.",
        d.connections_max as f64,
    );
    let help = "0: the outside broker that this node uses is not reached, and nothing comes or goes.";
    page.one("door_open", "gauge", help, f64::from(d.away.is_none()));
    page.one("door_sessions", "gauge", "Durable MQTT sessions, connected or not.", d.sessions as f64);
    for (name, value) in counters.iter().filter(|(name, _)| *name != "connections") {
        // Units go behind the noun: `bytes_in` becomes `door_received_bytes_total`.
        let (name, help) = match *name {
            "bytes_in" => ("received_bytes", "Bytes that came in.".to_owned()),
            "bytes_out" => ("sent_bytes", "Bytes that went out.".to_owned()),
            name => (name, format!("The front door's own count of `{name}`.")),
        };
        page.one(&format!("door_{name}_total"), "counter", &help, *value as f64);
    }
}

/// A figure of a link: its name, its kind, its help, and where it stands.
type Figure<V> = (&'static str, &'static str, &'static str, fn(&V) -> Option<f64>);

fn links(page: &mut Page, links: &[view::Link], details: &[LinkView]) {
    let way = |role: LinkRole| if role == LinkRole::Up { "up" } else { "down" };
    let figures: [Figure<view::Link>; 6] = [
        ("link_up", "gauge", "1 while records flow.", |l| Some(f64::from(u8::from(l.state == "up")))),
        ("link_refused", "gauge", "1 while one side refuses the other: an operator must act.", |l| {
            Some(f64::from(u8::from(l.state == "refused")))
        }),
        ("link_last_heard_seconds", "gauge", "Since the peer's last message.", |l| {
            l.last_heard_ms_ago.map(|ms| ms as f64 / 1e3)
        }),
        ("link_round_trip_seconds", "gauge", "Of the newest acknowledged frame.", |l| {
            l.round_trip_us.map(|us| us as f64 / 1e6)
        }),
        ("link_received_records_total", "counter", "Records received from the peer.", |l| Some(l.received as f64)),
        ("link_duplicates_total", "counter", "Of them those that were here already.", |l| Some(l.dropped as f64)),
    ];
    for (name, kind, help, of) in figures {
        page.family(name, kind, help);
        for l in links {
            if let Some(value) = of(l) {
                page.sample(name, &[("role", way(l.role)), ("peer", l.peer.as_str())], value);
            }
        }
    }
    type Lane = fn(&view::LinkLane) -> u64;
    let lanes: [(&str, &str, Lane); 2] = [
        ("link_unsent_records", "For the peer and not yet on their way.", |lane| lane.unsent),
        ("link_in_flight_records", "Sent and not yet acknowledged.", |lane| lane.in_flight),
    ];
    for (name, help, of) in lanes {
        page.family(name, "gauge", help);
        for l in links {
            for (lane, of_lane) in [("urgent", &l.urgent), ("routine", &l.routine)] {
                page.sample(
                    name,
                    &[("role", way(l.role)), ("peer", l.peer.as_str()), ("lane", lane)],
                    of(of_lane) as f64,
                );
            }
        }
    }
    let more: [Figure<LinkView>; 8] = [
        ("link_sent_records_total", "counter", "Records sent, again included, since the start.", |l| {
            Some(l.sent_records as f64)
        }),
        ("link_sent_bytes_total", "counter", "Bytes of frames sent.", |l| Some(l.sent_bytes as f64)),
        ("link_received_bytes_total", "counter", "Bytes of frames received.", |l| Some(l.received_bytes as f64)),
        ("link_resends_total", "counter", "Times that it went back and sent again.", |l| Some(l.resends as f64)),
        ("link_expired_records_total", "counter", "Records not sent because their time was over.", |l| {
            Some(l.expired_records as f64)
        }),
        ("link_reconnects_total", "counter", "Connections after the first.", |l| Some(l.reconnects as f64)),
        ("link_bad_messages_total", "counter", "Messages that did not decode, or were not for this link.", |l| {
            Some(l.bad_messages as f64)
        }),
        ("link_late_acks_total", "counter", "Acknowledgements of an older connection.", |l| Some(l.late_acks as f64)),
    ];
    for (name, kind, help, of) in more {
        page.family(name, kind, help);
        for l in details {
            let role = if l.role == citybrain_hub::link::view::Role::Up { "up" } else { "down" };
            if let Some(value) = of(l) {
                page.sample(name, &[("role", role), ("peer", l.peer.as_str())], value);
            }
        }
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP citybrain_{name} {help}\n# TYPE citybrain_{name} {kind}");
    }

    /// Values of labels here are addresses and words of ours: nothing in them needs escaping.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "citybrain_{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_once_above_its_samples() {
        let mut page = Page::default();
        totals(&mut page, &view::Counters { accepted: 7, received_up: 9, ..Default::default() });
        assert!(
            page.text.contains("# TYPE citybrain_events_accepted_total counter\ncitybrain_events_accepted_total 7\n")
        );
        assert!(page.text.contains("citybrain_events_received_total{direction=\"up\"} 9\n"));
        assert_eq!(page.text.matches("# TYPE citybrain_events_received_total").count(), 1);
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let work = Work::default();
        work.commit_buckets[0].store(3, Relaxed);
        work.commit_buckets[4].store(2, Relaxed);
        work.commits.store(6, Relaxed);
        let mut page = Page::default();
        commits(&mut page, &work);
        for want in [
            "citybrain_commit_duration_seconds_bucket{le=\"0.0001\"} 3\n",
            "citybrain_commit_duration_seconds_bucket{le=\"0.0025\"} 5\n",
            "citybrain_commit_duration_seconds_bucket{le=\"5\"} 5\n",
            "citybrain_commit_duration_seconds_bucket{le=\"+Inf\"} 6\n",
            "citybrain_commit_duration_seconds_count 6\n",
        ] {
            assert!(page.text.contains(want), "{want}{}", page.text);
        }
    }
}
