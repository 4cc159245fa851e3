//! Prometheus text (exposition format 0.0.4).

use super::{Ctx, status};
use axum::extract::State as From;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use citybrain_shared::view::{self, LinkRole};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub async fn text(From(ctx): From<Arc<Ctx>>) -> Response {
    let reader = ctx.hub.reader();
    let (counters, descendants, open) = ctx.hub.state(|state| {
        (status::counters(state), status::descendants(state, &ctx.config), state.dead_letters.len() as u64)
    });
    let mut page = Page::default();
    let node = &ctx.config.node;
    let about = [
        ("address", node.address.as_str()),
        ("tier", node.address.tier().as_str()),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.family("info", "gauge", "The node; always 1.");
    page.sample("info", &about, 1.0);
    page.one("uptime_seconds", "gauge", "Since the process began its work.", ctx.started.elapsed().as_secs_f64());
    page.one(
        "ready",
        "gauge",
        "1 when the node takes events and can make them durable.",
        u8::from((ctx.ready)().ready).into(),
    );
    page.one("log_first_position", "gauge", "Oldest record that is kept.", reader.first().0 as f64);
    page.one("log_last_position", "gauge", "Newest durable record.", reader.last().0 as f64);
    page.one("descendants", "gauge", "Nodes below that ever told of themselves.", descendants as f64);
    page.one("dead_letters_open", "gauge", "Refused and not yet looked at.", open as f64);
    totals(&mut page, &counters);

    let work = ctx.hub.work();
    page.one("commits_total", "counter", "Groups of records made durable.", work.commits.load(Relaxed) as f64);
    page.one(
        "commit_seconds_total",
        "counter",
        "Time spent making them durable.",
        work.commit_us_sum.load(Relaxed) as f64 / 1e6,
    );
    page.one(
        "frames_ignored_total",
        "counter",
        "Frames that were damaged or late.",
        work.frames_ignored.load(Relaxed) as f64,
    );
    door(&mut page, &(ctx.door)());
    links(&mut page, &(ctx.links)());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text).into_response()
}

fn totals(page: &mut Page, c: &view::Counters) {
    for (name, help, value) in [
        ("events_accepted_total", "Events that began here.", c.accepted),
        ("events_urgent_total", "Urgent events, begun here or received.", c.urgent),
        ("messages_total", "Plain MQTT messages kept.", c.messages),
        ("duplicates_total", "Records received again and dropped.", c.duplicates),
        ("dead_letters_total", "Everything that was refused.", c.dead_letters),
        ("receipts_total", "Answers to directives.", c.receipts),
        ("expired_total", "Directives for this node that came too late.", c.expired),
        ("lost_records_total", "Records recorded as lost.", c.lost),
    ] {
        page.one(name, "counter", help, value as f64);
    }
    page.family("events_received_total", "counter", "Events of other nodes.");
    page.sample("events_received_total", &[("direction", "up")], c.received_up as f64);
    page.sample("events_received_total", &[("direction", "down")], c.received_down as f64);
}

fn door(page: &mut Page, d: &view::Door) {
    page.one("door_connections", "gauge", "MQTT connections now.", d.connections as f64);
    page.one("door_sessions", "gauge", "Durable MQTT sessions, connected or not.", d.sessions as f64);
    page.one("door_received_total", "counter", "Publishes taken.", d.received as f64);
    page.one("door_delivered_total", "counter", "Publishes sent to subscribers.", d.delivered as f64);
    page.one("door_dropped_total", "counter", "QoS 0 publishes that a slow subscriber did not get.", d.dropped as f64);
    page.one("door_refused_total", "counter", "Connections and publishes turned away.", d.refused as f64);
}

fn links(page: &mut Page, links: &[view::Link]) {
    let way = |l: &view::Link| if l.role == LinkRole::Up { "up" } else { "down" };
    page.family("link_up", "gauge", "1 while records flow.");
    for l in links {
        page.sample("link_up", &[("role", way(l)), ("peer", l.peer.as_str())], f64::from(u8::from(l.state == "up")));
    }
    page.family("link_last_heard_seconds", "gauge", "Since the peer's last message.");
    for l in links {
        if let Some(ms) = l.last_heard_ms_ago {
            page.sample("link_last_heard_seconds", &[("role", way(l)), ("peer", l.peer.as_str())], ms as f64 / 1e3);
        }
    }
    for (name, help, of) in [
        (
            "link_unsent_records",
            "For the peer and not yet on their way.",
            (|lane| lane.unsent) as fn(&view::LinkLane) -> u64,
        ),
        ("link_in_flight_records", "Sent and not yet acknowledged.", |lane| lane.in_flight),
    ] {
        page.family(name, "gauge", help);
        for l in links {
            for (lane, of_lane) in [("urgent", &l.urgent), ("routine", &l.routine)] {
                page.sample(name, &[("role", way(l)), ("peer", l.peer.as_str()), ("lane", lane)], of(of_lane) as f64);
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
}
