//! The routes over a real engine, asked by the CLI's own client.

use super::router;
use crate::ask::{Direct, Fail};
use crate::brain::Brain;
use crate::ctx::Ctx;
use bytes::Bytes;
use citybrain_hub::engine;
use citybrain_hub::ingress::Ingress;
use citybrain_hub::note::DeadLetter;
use citybrain_hub::state::Presence;
use citybrain_shared::config::{Config, Variables, parse};
use citybrain_shared::record::{Draft, Header, Kind};
use citybrain_shared::view::{self, Answer};
use citybrain_shared::{Address, Pos};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

mod late;

/// A node that has a log, and neither links nor a door.
fn ctx(config: Config, hub: &citybrain_hub::Hub, stop: watch::Receiver<bool>) -> Ctx {
    let ingress = Ingress::new(&config);
    Ctx {
        hub: hub.clone(),
        config,
        links: Arc::new(Vec::new),
        door: Arc::new(view::Door::default),
        ready: Arc::new(|| view::Ready { ready: true, reasons: vec![] }),
        accept: Arc::new(move |json: &Bytes, via: &str| {
            ingress.accept(json).map_err(|r| DeadLetter::new(r.reason, r.detail, via, "", json))
        }),
        operations: crate::ctx::Sources::default(),
        downlinks: None,
        offline: None,
        started: Instant::now(),
        turns: Default::default(),
        stop,
    }
}

/// As a start tells it: only then does the state know whose directives it counts, and is anything said that is due.
fn presence(config: &Config, hub: &citybrain_hub::Hub) -> Draft {
    let about = Presence {
        address: config.node.address.clone(),
        name: config.node.name.clone(),
        code: None,
        labels: Default::default(),
        inc: hub.state(|s| s.me.inc),
        version: "0".into(),
    };
    engine::presence(&about, hub.state(|s| s.me.boot))
}

struct Served {
    hub: citybrain_hub::Hub,
    at: Direct,
    url: String,
    stop: watch::Sender<bool>,
    runtime: tokio::runtime::Runtime,
    engine: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Served {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[node]\naddress = \"c/s\"\nname = \"街道\"\ndata = \"{}\"\n", dir.path().display());
        let config = parse(&text, &Variables::new()).config.unwrap();
        let (hub, engine, _) = engine::open(&config, citybrain_hub::policy::none()).unwrap();
        let engine = std::thread::spawn(move || engine.run());
        let presence = presence(&config, &hub);
        let (stop, stopped) = watch::channel(false);
        let ctx = ctx(config, &hub, stopped);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ticket = runtime.block_on(hub.offer(vec![presence])).unwrap();
        runtime.block_on(engine::wait(ticket)).unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ending = ctx.stop.clone();
        runtime.spawn(super::listen::serve(listener, None, router(Arc::new(ctx)), ending));
        let at = Direct { node: Some(url.clone()), ..Direct::default() };
        Served { hub, at, url, stop, runtime, engine: Some(engine), _dir: dir }
    }

    /// Commits many plain events at once.
    fn fill(&self, ids: std::ops::Range<u32>) {
        let drafts = ids.map(|i| {
            let padding = "x".repeat(250);
            let json = format!(
                "{{\"specversion\":\"1.0\",\"id\":\"{i}\",\"source\":\"/c/s/x\",\"type\":\"t.{}\",\"data\":\"{padding}\"}}",
                i % 2
            );
            let name = format!("t.{}", i % 2);
            let key = citybrain_shared::record::event_key("/c/s/x", &i.to_string());
            Draft::new(&Header { key, ..Header::local(Kind::Event, &name) }, json.as_bytes()).unwrap()
        });
        let drafts: Vec<Draft> = drafts.collect();
        for some in drafts.chunks(4096) {
            let ticket = self.runtime.block_on(self.hub.offer(some.to_vec())).unwrap();
            self.runtime.block_on(engine::wait(ticket)).unwrap();
        }
    }

    fn ids(&self, query: &[(&str, &str)]) -> Vec<String> {
        let query: Vec<(&str, String)> = query.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let lines = self.at.node().unwrap().lines("/v1/events", &query).unwrap();
        lines.map(|l| id_of(&l.unwrap())).collect()
    }

    fn post(&self, body: &str, content_type: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(format!("{}/v1/events", self.url)).header("content-type", content_type);
        let mut response = request.send(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.runtime.block_on(self.hub.stop());
        if let Some(engine) = self.engine.take() {
            let _ = engine.join();
        }
    }
}

fn id_of(line: &str) -> String {
    let event: view::Event = serde_json::from_str(line).unwrap();
    let json: serde_json::Value = serde_json::from_str(event.event.get()).unwrap();
    json["id"].as_str().unwrap().to_owned()
}

fn get<T: view::View>(served: &Served, path: &str) -> Result<Answer<T>, Fail> {
    served.at.node().unwrap().get(path, &[])
}

#[test]
fn events_are_listed_by_position_by_newness_and_by_type() {
    let served = Served::start();
    assert_eq!(served.ids(&[("last", "5")]), [""; 0]);
    served.fill(0..5000);
    assert_eq!(served.ids(&[("last", "3")]), ["4997", "4998", "4999"]);
    assert_eq!(served.ids(&[("last", "2"), ("type", "t.0")]), ["4996", "4998"]);
    assert_eq!(served.ids(&[("last", "9999")]).len(), 5000);
    assert_eq!(served.ids(&[("limit", "2")]), ["0", "1"]);
    assert_eq!(served.ids(&[("type", "t.*")]).len(), 5000);
    assert_eq!(served.ids(&[("source", "/c/*"), ("priority", "urgent")]), [""; 0]);
    let first = served.at.node().unwrap().lines("/v1/events", &[("limit", "1".into())]).unwrap();
    assert_eq!(first.node, "c/s");
    let wrong = served.at.node().unwrap().lines("/v1/events", &[("limitt", "1".into())]);
    assert_eq!(wrong.err().unwrap().failure.error, "bad-query");
}

#[test]
fn a_follower_sees_what_is_committed_later_and_ends_with_the_node() {
    let served = Served::start();
    served.fill(0..3);
    let query = [("last", "1".to_owned()), ("follow", "true".to_owned())];
    let mut lines = served.at.node().unwrap().lines("/v1/events", &query).unwrap();
    assert_eq!(id_of(&lines.next().unwrap().unwrap()), "2");
    served.fill(3..5);
    assert_eq!(id_of(&lines.next().unwrap().unwrap()), "3");
    assert_eq!(id_of(&lines.next().unwrap().unwrap()), "4");
    served.stop.send_replace(true);
    assert!(lines.next().is_none());
}

#[test]
fn an_event_is_taken_once_shown_whole_and_a_bad_one_kept_with_its_reason() {
    let served = Served::start();
    let json = "{\"specversion\":\"1.0\",\"id\":\"a/1\",\"source\":\"/x\",\"type\":\"t\",\n\"data\":1.10}";
    let (status, body) = served.post(json, "application/cloudevents+json; charset=utf-8");
    assert_eq!(status, 202, "{body}");
    let accepted = Answer::<view::Accepted>::parse(body.as_bytes()).unwrap().body;
    assert_eq!((accepted.id.as_str(), accepted.source.as_str(), accepted.duplicate), ("a/1", "/x", false));
    let (status, body) = served.post(json, "application/cloudevents+json");
    assert_eq!(status, 200);
    assert!(Answer::<view::Accepted>::parse(body.as_bytes()).unwrap().body.duplicate);

    for path in ["/v1/events/a%2F1", "/v1/events/a%2F1?source=/x"] {
        let shown = get::<view::Shown>(&served, path).unwrap().body;
        assert_eq!(shown.record.pos, accepted.pos);
        assert!(shown.record.event.get().contains("1.10"));
    }
    let fail = get::<view::Shown>(&served, "/v1/events/none").unwrap_err();
    assert_eq!((fail.code, fail.failure.error.as_str()), (1, "not-found"));

    assert_eq!(served.post("{}", "text/plain").0, 415);
    assert_eq!(served.post("{not json", "application/cloudevents+json").0, 400);
    let letters = wait_for(|| Some(get::<view::DeadLetters>(&served, "/v1/dlq").unwrap().body).filter(|l| l.open == 1));
    let letter = &letters.dead_letters[0];
    assert_eq!(
        (letter.reason.as_str(), letter.via.as_str(), letter.payload.as_str()),
        ("not-json", "http", "{not json")
    );
    let one = get::<view::DeadLetter>(&served, &format!("/v1/dlq/{}", letter.pos)).unwrap();
    assert_eq!(one.body, *letter);
}

#[test]
fn events_come_in_by_each_mode_of_the_http_binding() {
    let served = Served::start();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let binary = |id: &str| {
        let request = agent.post(format!("{}/v1/events", served.url)).header("content-type", "application/json");
        let request = request.header("ce-specversion", "1.0").header("ce-id", id).header("ce-type", "city.smoke");
        let request = request.header("ce-source", "/c/s/gate").header("ce-subject", "%E4%BA%8C%E4%BB%99%E6%A1%A5");
        request.send("{\"smoke\":true}").unwrap().status().as_u16()
    };
    assert_eq!((binary("b1"), binary("b1")), (202, 200), "sent again it is there once");
    let shown = served.at.node().unwrap().get::<view::Shown>("/v1/events/b1", &[]);
    let text = shown.unwrap().body.record.event.get().to_owned();
    assert!(text.contains("二仙桥") && text.contains("smoke"), "{text}");

    let event =
        |id: &str| format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/c/s/gate\",\"type\":\"t\"}}");
    let batch = |all: &[String]| served.post(&format!("[{}]", all.join(",")), "application/cloudevents-batch+json");
    let (status, text) = batch(&[event("1"), event("2"), event("b1")]);
    assert_eq!(status, 202, "{text}");
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let duplicate: Vec<bool> = (0..3).map(|i| told["events"][i]["duplicate"].as_bool().unwrap()).collect();
    assert_eq!(duplicate, [false, false, true]);
    assert_eq!((batch(&[]).0, batch(&[event("1"), event("2")]).0), (200, 200));
    // One that is wrong, and none is taken.
    let (status, text) = batch(&[event("3"), "{\"id\":7}".into()]);
    assert!(status == 400 && text.contains("event 2 of the batch"), "{text}");
    assert_eq!(served.ids(&[("source", "/c/s/gate")]), ["b1", "1", "2"]);
    assert_eq!(served.post(&format!("[{}]", "0,".repeat(1001) + "0"), "application/cloudevents-batch+json").0, 400);
    assert_eq!(served.post(&" ".repeat(1024 * 1024 + 1), "application/cloudevents-batch+json").0, 413);
    let large = event("large").replace('}', &format!(",\"data\":\"{}\"}}", "x".repeat(256 * 1024)));
    assert_eq!(served.post(&large, "application/cloudevents+json").0, 413);
}

#[test]
fn a_directive_is_sent_below_and_never_above() {
    let served = Served::start();
    let send = |target: &str| {
        let request = view::Send { target: target.into(), event_type: "city.notice".into(), ..Default::default() };
        served.at.node().unwrap().post::<view::Sent>("/v1/send", &request)
    };
    let sent = send("c/s/**").unwrap().body;
    assert_eq!(sent.source, "/c/s");
    let directive = get::<view::Directive>(&served, &format!("/v1/directives/{}", sent.id)).unwrap().body;
    assert_eq!(
        (directive.pos, directive.target.as_str(), directive.directive.as_str()),
        (sent.pos, "c/s/**", "notice")
    );
    assert_eq!(get::<view::Directives>(&served, "/v1/directives").unwrap().body.directives.len(), 1);
    let fail = send("c/**").unwrap_err();
    assert_eq!((fail.code, fail.failure.error.as_str()), (1, "not-below"));
}

#[test]
fn the_node_tells_of_itself() {
    let served = Served::start();
    served.fill(0..10);
    let status = get::<view::Status>(&served, "/v1/status").unwrap();
    assert_eq!(
        (status.head.node.as_str(), status.body.name.as_str(), status.body.counters.accepted),
        ("c/s", "街道", 11)
    );
    // Ten, and its own presence.
    assert_eq!(status.body.boots, 1);
    let tree = get::<view::Tree>(&served, "/v1/tree").unwrap().body;
    assert_eq!(tree.nodes[0].address, Address::parse("c/s").unwrap());
    let text =
        |path: &str| ureq::get(format!("{}{path}", served.url)).call().unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(text("/livez"), "ok\n");
    let metrics = text("/metrics");
    assert!(metrics.contains("citybrain_events_accepted_total 11\n"), "{metrics}");
    let fail = get::<view::Tree>(&served, "/v1/trees").unwrap_err();
    assert_eq!(fail.failure.error, "not-found");
}

#[test]
fn records_come_in_order_without_a_gap_and_fast() {
    let served = Served::start();
    served.fill(0..50_000);
    let began = Instant::now();
    let lines = served.at.node().unwrap().lines("/v1/records", &[]).unwrap();
    let (mut count, mut last) = (0u32, Pos::ZERO);
    for line in lines {
        let line = line.unwrap();
        let record: view::Record<'_> = serde_json::from_str(&line).unwrap();
        assert!(record.pos > last);
        if record.kind == "presence" {
            continue;
        }
        assert_eq!(record.id, count.to_string());
        (count, last) = (count + 1, record.pos);
    }
    assert_eq!(count, 50_000);
    eprintln!("50,000 records in {:?}", began.elapsed());
    let after = [("after", last.to_string())];
    assert_eq!(served.at.node().unwrap().lines("/v1/records", &after).unwrap().count(), 0);
}

#[test]
fn who_has_no_turn_is_told_to_come_again() {
    let refusal = super::Refusal::from(crate::turns::Error::Busy("streams"));
    assert_eq!((refusal.status.as_u16(), refusal.failure.error.as_str()), (503, "busy"));
    assert!(refusal.failure.detail.contains("other streams"), "{}", refusal.failure.detail);
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited 20 s in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
