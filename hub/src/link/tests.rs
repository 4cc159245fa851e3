//! Both drivers over two real engines, with a broker in memory between them.

use super::ask::{AskError, Handler};
use super::downlinks::Downlinks;
use super::driver::Context;
use super::pipe::{LocalPipe, Pipe};
use super::uplink::{self, Uplink};
use super::view::{Cause, LinkView, Links, Stage};
use crate::engine::{self, Haste, Hub};
use crate::ingress::Ingress;
use crate::note::Note;
use crate::state::Presence;
use bytes::Bytes;
use citybrain_shared::config::Config;
use citybrain_shared::record::Header;
use citybrain_shared::topic::Verb;
use citybrain_shared::wire::{
    self, BootMark, Cursor, Epoch, FrameBuilder, FrameHead, Hello, Message, Party, Welcome, Word,
};
use citybrain_shared::{Address, Boot, Inc, Lane, LogId, Pos, limits, topic};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

mod simulation;

/// Carries what the child says to the parent and back, and remembers one retained hello.
#[derive(Clone, Default)]
struct Broker(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    to_parent: Option<mpsc::Sender<(String, Bytes)>>,
    to_child: Option<mpsc::Sender<(String, Bytes)>>,
    retained: Option<(String, Bytes)>,
    /// Each how-many-th message is lost; 0 none.
    lose: u64,
    count: u64,
    /// So many of the next welcomes are lost.
    lose_welcomes: u32,
}

impl Broker {
    fn pipe(&self, is_child: bool) -> Pipe {
        let (tx, mut out) = mpsc::channel::<(String, Bytes, bool)>(64);
        let (inbox, rx) = mpsc::channel(1024);
        {
            let mut lines = self.0.lock();
            if is_child {
                lines.to_child = Some(inbox);
            } else {
                if let Some(hello) = lines.retained.clone() {
                    inbox.try_send(hello).unwrap();
                }
                lines.to_parent = Some(inbox);
            }
        }
        let broker = self.clone();
        tokio::spawn(async move {
            while let Some((topic, payload, retain)) = out.recv().await {
                let mut lines = broker.0.lock();
                if retain {
                    lines.retained = Some((topic.clone(), payload.clone()));
                }
                lines.count += 1;
                if lines.lose > 0 && lines.count.is_multiple_of(lines.lose) {
                    continue;
                }
                let is_welcome = matches!(super::driver::decode(&payload), Ok(Message::Word(Word::Welcome(_))));
                if is_welcome && lines.lose_welcomes > 0 {
                    lines.lose_welcomes -= 1;
                    continue;
                }
                let to = if is_child { &lines.to_parent } else { &lines.to_child };
                if let Some(to) = to {
                    let _ = to.try_send((topic, payload));
                }
            }
        });
        LocalPipe { tx, rx }.into()
    }
}

struct Node {
    hub: Hub,
    config: Config,
    links: Links,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
    drivers: Vec<tokio::task::JoinHandle<()>>,
    down: Option<Downlinks>,
}

fn a(s: &str) -> Address {
    Address::parse(s).unwrap()
}

impl Node {
    fn start(dir: &Path, address: &str, broker: &Broker) -> Node {
        Node::with(dir, address, broker, 1)
    }

    fn with(dir: &Path, address: &str, broker: &Broker, keep_alive_s: u32) -> Node {
        let is_child = address.contains('/');
        Node::at(dir, address, is_child.then_some(broker), (!is_child).then_some(broker), keep_alive_s)
    }

    /// `above`: its parent's broker; `below`: its own.
    fn at(dir: &Path, address: &str, above: Option<&Broker>, below: Option<&Broker>, keep_alive_s: u32) -> Node {
        let parent = if above.is_some() { "[parent]\nurl = \"mqtt://127.0.0.1:1\"\n" } else { "" };
        let link = format!("[link]\nresend_after_ms = 50\nkeep_alive_s = {keep_alive_s}\ncompress = true\n");
        let text = format!("{link}[node]\naddress = \"{address}\"\ndata = \"{}\"\n{parent}", dir.display());
        let config: Config = toml::from_str(&text).unwrap();
        let (hub, engine, _) = engine::open(&config, crate::policy::none()).unwrap();
        let thread = std::thread::spawn(|| engine.run());
        let links = Links::default();
        let cx = Context::new(hub.clone(), &config.node, config.link.clone(), links.clone());
        let (stop, stopped) = watch::channel(false);
        let (mut drivers, mut down) = (Vec::new(), None);
        if let Some(broker) = below.cloned() {
            let (handle, driver) = Downlinks::new(cx.clone(), Box::new(move || broker.pipe(false)));
            drivers.push(tokio::spawn(driver.run(stopped.clone())));
            down = Some(handle);
        }
        if let Some(broker) = above.cloned() {
            let parent = config.node.address.parent().unwrap();
            let answer: Handler =
                Arc::new(|q: Bytes| Box::pin(async move { [&b"you asked "[..], &q].concat().into() }));
            let dial: uplink::Dial = Box::new(move |_, _, _| broker.pipe(true));
            drivers.push(tokio::spawn(Uplink::over(cx, parent, dial, answer, down.clone()).run(stopped)));
        }
        Node { hub, config, links, stop, thread, drivers, down }
    }

    async fn offer(&self, ids: std::ops::Range<u32>, more: &str) {
        let ingress = Ingress::new(&self.config);
        let draft = |id| {
            let json = format!(r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"city.test"{more}}}"#);
            ingress.accept(json.as_bytes()).unwrap()
        };
        engine::wait(self.hub.offer(ids.map(draft).collect()).await.unwrap()).await.unwrap();
    }

    /// As its program does at a start.
    async fn say_who_it_is(&self) {
        let (address, me) = (self.config.node.address.clone(), self.hub.state(|s| s.me.clone()));
        let (name, code, labels, version) = (String::new(), None, Default::default(), "1".into());
        let about = Presence { address, name, code, labels, inc: me.inc, version };
        engine::wait(self.hub.offer(vec![engine::presence(&about, me.boot)]).await.unwrap()).await.unwrap();
    }

    /// Ids of the test's events in the log, in order.
    fn ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut after = Pos::ZERO;
        loop {
            let entries = self.hub.reader().read(after, None, 1000, usize::MAX).unwrap();
            let Some(last) = entries.last() else { return ids };
            after = last.pos;
            for e in &entries {
                let (h, payload) = Header::decode(&e.bytes).unwrap();
                if h.kind.is_event() && h.name == "city.test" {
                    let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
                    ids.push(json["id"].as_str().unwrap().parse().unwrap());
                }
            }
        }
    }

    fn link(&self) -> Option<LinkView> {
        self.links.links().into_iter().next()
    }

    async fn close(self) {
        self.stop.send_replace(true);
        for driver in self.drivers {
            driver.await.unwrap();
        }
        self.hub.stop().await;
        tokio::task::spawn_blocking(|| self.thread.join().unwrap()).await.unwrap();
    }
}

fn is_up(node: &Node) -> bool {
    node.link().is_some_and(|l| l.stage == Stage::Up)
}

/// What a city and a street need: a folder each, and the broker between them.
fn folders_and_broker() -> (TempDir, TempDir, Broker) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Broker::default())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn events_go_up_and_directives_down_once_and_in_order_over_a_pipe_that_loses() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        broker.0.lock().lose = 7;
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &broker);
        for i in 0..20 {
            child.offer(i * 50..i * 50 + 50, "").await;
        }
        parent.offer(5000..5100, r#","target":"c/s""#).await;
        let (up, down) = ((0..1000).collect::<Vec<_>>(), (5000..5100).collect::<Vec<_>>());
        let kept = |n: &Node, below: bool| n.ids().into_iter().filter(|i| (*i < 5000) == below).collect::<Vec<_>>();
        until("all came up", || kept(&parent, true).len() >= 1000).await;
        until("all came down", || kept(&child, false).len() >= 100).await;
        assert_eq!((kept(&parent, true), kept(&child, false)), (up, down));
        until("both show the link as up", || [&parent, &child].iter().all(|n| is_up(n))).await;
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn a_child_with_an_empty_disk_is_given_no_old_directive_though_its_first_welcomes_are_lost() {
    run(async {
        let (city, broker) = (tempfile::tempdir().unwrap(), Broker::default());
        let parent = Node::start(city.path(), "c", &broker);
        let acked = || parent.hub.state(|s| s.peers.get(&a("c/s"))?.peer_has[Lane::Routine as usize].map(|c| c.upto));
        let first = tempfile::tempdir().unwrap();
        let child = Node::start(first.path(), "c/s", &broker);
        parent.offer(0..3, r#","target":"c/s""#).await;
        until("they went down", || child.ids() == [0, 1, 2]).await;
        let entries = parent.hub.reader().read(Pos::ZERO, None, 1000, usize::MAX).unwrap();
        let is_event = |bytes| Header::decode(bytes).unwrap().0.name == "city.test";
        let last = entries.iter().rfind(|e| is_event(&e.bytes)).unwrap().pos;
        until("the parent has noted it", || acked().is_some_and(|upto| upto >= last)).await;
        child.close().await;
        broker.0.lock().lose_welcomes = 2;
        let second = tempfile::tempdir().unwrap();
        let child = Node::start(second.path(), "c/s", &broker);
        parent.offer(3..5, r#","target":"c/s""#).await;
        until("the new ones went down", || child.ids().contains(&4)).await;
        assert_eq!((child.ids(), broker.0.lock().lose_welcomes), (vec![3, 4], 0));
        child.close().await;
        parent.close().await;
    });
}

/// Of a first session: no records, up to position 1.
fn first_frame(lane: Lane) -> Vec<u8> {
    frame(Party::default(), 1, lane)
}

/// The same under another lease.
fn frame(from: Party, lease: u64, lane: Lane) -> Vec<u8> {
    let head = FrameHead {
        from,
        lease,
        log: LogId(1),
        lane,
        after: Pos::ZERO,
        upto: Pos(1),
        after_chain: 0,
        upto_chain: 1,
        records: 0,
    };
    FrameBuilder::default().finish(head, |_| None)
}

/// The city's engine in that folder, running.
fn city(dir: &Path) -> (Config, Hub, std::thread::JoinHandle<()>) {
    let config: Config = toml::from_str(&format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.display())).unwrap();
    let (hub, engine, _) = engine::open(&config, crate::policy::none()).unwrap();
    (config, hub, std::thread::spawn(|| engine.run()))
}

#[test]
fn an_urgent_frame_does_not_wait_behind_one_for_which_the_engine_has_no_room() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (config, hub, thread) = city(dir.path());
        let mut notes = vec![Note::Granted { child: a("c/s"), party: Party::default(), lease: 1 }];
        for lane in Lane::ALL {
            let cursor = Cursor { log: LogId(1), upto: Pos::ZERO, chain: 0 };
            let (peer, inc) = (a("c/s"), Party::default().inc);
            notes.push(Note::CursorSet { peer, inc, lane, cursor, why: "test".into() });
        }
        engine::wait(hub.note(notes, Haste::Now).await.unwrap()).await.unwrap();
        let links = Links::default();
        let cx = Context::new(hub.clone(), &config.node, config.link.clone(), links.clone());
        let (stop, stopped) = watch::channel(false);
        let (tx, mut out) = mpsc::channel(64);
        let (inbox, rx) = mpsc::channel(64);
        let mut pipe = Some(LocalPipe { tx, rx }.into());
        let (_down, driver) = Downlinks::new(cx, Box::new(move || pipe.take().expect("one connection")));
        let driver = tokio::spawn(driver.run(stopped));
        // The engine stands still, its queue is full, and others wait for a place in it.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..limits::ENGINE_QUEUE_MAX + 50 {
            let (hub, wait) = (hub.clone(), wait.clone());
            let decide: engine::Decide = Box::new(move |_, _| {
                let _ = wait.lock().recv(); // an error: it may go on
                Vec::new()
            });
            tokio::spawn(async move { hub.decide(Lane::Routine, decide).await.map(drop) });
        }
        tokio::task::yield_now().await;
        for lane in [Lane::Routine, Lane::Urgent] {
            let topic = topic::link(&config.link.root, Verb::Up, &a("c/s"));
            inbox.send((topic, first_frame(lane).into())).await.unwrap();
        }
        until("the driver has read both", || inbox.capacity() == inbox.max_capacity()).await;
        drop(go);
        let mut acked = Vec::new();
        while acked.len() < 2 {
            let (_, payload, _) = out.recv().await.unwrap();
            if let Ok(Message::Word(Word::Ack(ack))) = super::driver::decode(&payload) {
                assert_eq!((ack.upto, ack.gap), (Pos(1), false));
                acked.push(ack.lane);
            }
        }
        let entries = hub.reader().read(Pos::ZERO, None, 1000, usize::MAX).unwrap();
        let taken = entries.iter().filter_map(|e| match Note::parse(Header::decode(&e.bytes).unwrap().1) {
            Ok(Note::Received { lane, .. }) => Some(lane),
            _ => None,
        });
        assert_eq!(taken.collect::<Vec<_>>(), [Lane::Urgent, Lane::Routine]);
        stop.send_replace(true);
        driver.await.unwrap();
        hub.stop().await;
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    });
}

#[test]
fn a_connection_that_breaks_with_frames_still_queued_is_made_anew() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (config, hub, thread) = city(dir.path());
        let cx = Context::new(hub.clone(), &config.node, config.link.clone(), Links::default());
        let (stop, stopped) = watch::channel(false);
        // The inbox of each connection; nothing can be sent over the first, as when its broker died.
        let (dialled, mut inboxes) = mpsc::unbounded_channel();
        let mut broken = true;
        let dial = move || {
            let (tx, out) = mpsc::channel::<(String, Bytes, bool)>(64);
            let (inbox, rx) = mpsc::channel::<(String, Bytes)>(64);
            let kept = (!std::mem::take(&mut broken)).then_some(out);
            dialled.send((inbox, kept)).unwrap();
            LocalPipe { tx, rx }.into()
        };
        let (_down, driver) = Downlinks::new(cx, Box::new(dial));
        let driver = tokio::spawn(driver.run(stopped));
        let (inbox, _) = inboxes.recv().await.unwrap();
        let frame = first_frame(Lane::Routine);
        let topic = topic::link(&config.link.root, Verb::Up, &a("c/s"));
        while inbox.send((topic.clone(), frame.clone().into())).await.is_ok() {}
        assert!(inboxes.recv().await.is_some(), "the driver has ended");
        stop.send_replace(true);
        driver.await.unwrap();
        hub.stop().await;
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    });
}

#[test]
fn a_child_whose_session_a_late_will_has_ended_gets_a_new_one() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &broker);
        until("the link is up", || is_up(&parent) && is_up(&child)).await;
        let party = child.hub.state(|s| Party { inc: s.me.inc, boot: s.me.boot });
        let topic = topic::link(&parent.config.link.root, Verb::Hello, &a("c/s"));
        let to = broker.0.lock().to_parent.clone().unwrap();
        to.send((topic, Word::Bye(party).encode().into())).await.unwrap();
        until("the parent takes it for gone", || !is_up(&parent)).await;
        until("it has a session again", || is_up(&parent) && is_up(&child)).await;
        parent.offer(5000..5003, r#","target":"c/s""#).await;
        until("what is for it goes down", || child.ids() == [5000, 5001, 5002]).await;
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn each_side_notices_that_the_other_no_longer_says_that_it_is_there_though_nothing_waits() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &broker);
        until("the link is up", || is_up(&parent) && is_up(&child)).await;
        // The broker between them stands, and carries nothing.
        broker.0.lock().lose = 1;
        let is_silent =
            |l: LinkView| l.stage == Stage::Hello && l.last_reason.is_some_and(|r| r.cause == Cause::Silent);
        until("the parent says so", || parent.link().is_some_and(is_silent)).await;
        until("the child says so", || !is_up(&child)).await;
        broker.0.lock().lose = 0;
        until("they have each other again", || is_up(&parent) && is_up(&child)).await;
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn a_parent_that_is_back_and_finds_an_old_hello_has_a_session_at_once_also_on_a_quiet_link() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let parent = Node::with(city.path(), "c", &broker, 240);
        let child = Node::with(street.path(), "c/s", &broker, 240);
        until("the link is up", || is_up(&parent) && is_up(&child)).await;
        // The hello that the broker keeps is of before this.
        child.offer(1..4, "").await;
        until("the parent has it", || parent.ids() == [1, 2, 3]).await;
        parent.close().await;
        let parent = Node::with(city.path(), "c", &broker, 240);
        until("the parent has a session", || is_up(&parent) && is_up(&child)).await;
        parent.offer(5000..5003, r#","target":"c/s""#).await;
        until("what is for it goes down", || child.ids().ends_with(&[5000, 5001, 5002])).await;
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn an_old_hello_of_a_child_that_is_gone_does_not_make_it_one_that_was_restored_from_a_backup() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &broker);
        until("the link is up", || is_up(&parent) && is_up(&child)).await;
        child.offer(1..4, "").await;
        until("the parent has it", || parent.ids() == [1, 2, 3]).await;
        let kept = broker.0.lock().retained.clone();
        child.close().await;
        parent.close().await;
        // As where the broker died with the child, and its will was never said.
        broker.0.lock().retained = kept;
        let parent = Node::start(city.path(), "c", &broker);
        until("the parent waits for a new one", || parent.link().is_some_and(|l| l.stage == Stage::Hello)).await;
        let child = Node::start(street.path(), "c/s", &broker);
        until("it has come", || is_up(&parent)).await;
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn who_below_is_away_and_who_is_back_is_told_farther_up_long_before_the_next_sign_of_life() {
    run(async {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let (upper, lower) = (Broker::default(), Broker::default());
        let city = Node::with(dirs[0].path(), "c", &upper, 240);
        let street = Node::at(dirs[1].path(), "c/s", Some(&upper), Some(&lower), 240);
        let community = || Node::with(dirs[2].path(), "c/s/k", &lower, 240);
        let first = community();
        first.say_who_it_is().await;
        until("the street knows it", || street.hub.state(|s| s.registry.contains_key(&a("c/s/k")))).await;
        let unheard = || city.link().map(|l| l.unheard.into_iter().map(|u| u.node).collect::<Vec<_>>());
        first.close().await;
        until("the city knows that it is away", || unheard() == Some(vec![a("c/s/k")])).await;
        let second = community();
        until("the city knows that it is back", || unheard() == Some(Vec::new())).await;
        second.close().await;
        street.close().await;
        city.close().await;
    });
}

#[test]
fn who_is_gone_before_its_hello_is_answered_does_not_keep_another_box_out() {
    run(async {
        let (city, street, new) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (broker, nowhere) = (Broker::default(), Broker::default());
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &nowhere);
        until("both have spoken", || nowhere.0.lock().retained.is_some() && broker.0.lock().to_parent.is_some()).await;
        let party = child.hub.state(|s| Party { inc: s.me.inc, boot: s.me.boot });
        let (topic, hello) = nowhere.0.lock().retained.clone().unwrap();
        child.close().await;
        let to = broker.0.lock().to_parent.clone().unwrap();
        to.send((topic.clone(), hello)).await.unwrap();
        to.send((topic, Word::Bye(party).encode().into())).await.unwrap();
        let other = Node::start(new.path(), "c/s", &broker);
        until("another box has a session", || is_up(&parent) && is_up(&other)).await;
        other.close().await;
        parent.close().await;
    });
}

#[test]
fn what_is_not_sent_because_its_time_was_over_is_counted() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let child = Node::start(street.path(), "c/s", &broker);
        let over = chrono::Utc::now() + chrono::TimeDelta::milliseconds(300);
        child.offer(0..3, &format!(r#","expirytime":"{}""#, over.to_rfc3339())).await;
        child.offer(3..5, "").await;
        until("their time is over", || chrono::Utc::now() > over).await;
        let parent = Node::start(city.path(), "c", &broker);
        until("the others came", || parent.ids() == [3, 4]).await;
        until("they are counted", || child.link().is_some_and(|l| l.expired_records == 3)).await;
        parent.close().await;
        // They are looked at once more in the next session, and counted once.
        let parent = Node::start(city.path(), "c", &broker);
        child.offer(5..6, "").await;
        until("what is new came", || parent.ids() == [3, 4, 5]).await;
        assert_eq!(child.link().map(|l| l.expired_records), Some(3));
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn either_side_may_restart_and_the_link_goes_on_where_it_was() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let mut parent = Node::start(city.path(), "c", &broker);
        let mut child = Node::start(street.path(), "c/s", &broker);
        for round in 0..3u32 {
            child.offer(round * 100..round * 100 + 100, "").await;
            parent.close().await;
            parent = Node::start(city.path(), "c", &broker);
            until("this round came", || parent.ids().len() as u32 >= round * 100 + 100).await;
            child.close().await;
            child = Node::start(street.path(), "c/s", &broker);
        }
        assert_eq!(parent.ids(), (0..300).collect::<Vec<_>>());
        child.close().await;
        parent.close().await;
    });
}

/// A parent by hand that has nothing and sends nothing.
fn welcome(from: Party, hello: &Hello, lease: u64) -> Bytes {
    let at = |log| Cursor { log, upto: Pos::ZERO, chain: 0 };
    let epoch = Epoch { log: LogId(1), first: Pos(1) };
    let welcome = Welcome {
        from,
        to: hello.from.boot,
        address: a("c"),
        version: wire::VERSION,
        message_bytes_max: 1 << 20,
        alive_every_ms: 1_000,
        lease,
        epoch,
        first: Pos(1),
        last: Pos::ZERO,
        has: [at(hello.epoch.log); 2],
        credit: 8,
        answers: hello.id,
        sends: [Some(at(epoch.log)); 2],
        boots: vec![BootMark { boot: from.boot, first: Pos(1) }],
    };
    Word::Welcome(welcome).encode().into()
}

#[test]
fn a_child_says_hello_once_where_frames_overtake_its_welcome_and_never_twice_within_a_moment() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let node = format!("[node]\naddress = \"c/s\"\ndata = \"{}\"\n", dir.path().display());
        let config: Config = toml::from_str(&format!("{node}[parent]\nurl = \"mqtt://127.0.0.1:1\"\n")).unwrap();
        let (hub, engine, _) = engine::open(&config, crate::policy::none()).unwrap();
        let thread = std::thread::spawn(|| engine.run());
        let links = Links::default();
        let cx = Context::new(hub.clone(), &config.node, config.link.clone(), links.clone());
        let (tx, mut out) = mpsc::channel(64);
        let (inbox, rx) = mpsc::channel(64);
        let mut pipe = Some(LocalPipe { tx, rx }.into());
        let dial: uplink::Dial = Box::new(move |_, _, _| pipe.take().expect("one connection"));
        let answer: Handler = Arc::new(|q: Bytes| Box::pin(async move { q }));
        let (stop, stopped) = watch::channel(false);
        let driver = tokio::spawn(Uplink::over(cx, a("c"), dial, answer, None).run(stopped));
        let parent = Party { inc: Inc(7), boot: Boot { counter: 1, nonce: 1 } };
        let topic_of = |verb| topic::link(&config.link.root, verb, &a("c/s"));
        let (down, said) = (topic_of(Verb::Down), topic_of(Verb::UpAck));
        let mut next = async || loop {
            let (_, payload, _) = out.recv().await.unwrap();
            match super::driver::decode(&payload) {
                Ok(Message::Word(Word::Hello(hello))) => return (hello, std::time::Instant::now()),
                _ => continue,
            }
        };
        let is_up = |lease| hub.state(|s| s.peers.get(&a("c")).is_some_and(|p| p.lease == lease));
        let (first, _) = next().await;
        inbox.send((down.clone(), frame(parent, 1, Lane::Routine).into())).await.unwrap();
        until("it has read the frame", || links.links().first().is_some_and(|l| l.received_frames == 1)).await;
        inbox.send((said.clone(), welcome(parent, &first, 1))).await.unwrap();
        until("it is in session", || is_up(1)).await;
        // Its hello is found once more, by a parent that was started anew, and twice at that.
        inbox.send((said.clone(), welcome(parent, &first, 2))).await.unwrap();
        let (second, before) = next().await;
        assert_eq!(second.id, first.id + 1);
        for lease in [3, 4] {
            inbox.send((said.clone(), welcome(parent, &second, lease))).await.unwrap();
        }
        let (third, after) = next().await;
        assert_eq!(third.id, second.id + 1);
        assert!(after - before > Duration::from_millis(50), "{:?}", after - before);
        stop.send_replace(true);
        driver.await.unwrap();
        hub.stop().await;
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    });
}

#[test]
fn a_question_is_answered_through_the_link_or_says_why_not() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let parent = Node::start(city.path(), "c", &broker);
        let down = parent.down.clone().unwrap();
        let within = Duration::from_secs(5);
        assert_eq!(down.ask(&a("c/s"), Bytes::new(), within).await, Err(AskError::Away(a("c/s"))));
        let child = Node::start(street.path(), "c/s", &broker);
        until("the link is up", || is_up(&parent)).await;
        let answer = down.ask(&a("c/s"), Bytes::from_static(b"status"), within).await;
        assert_eq!(answer, Ok(Bytes::from_static(b"you asked status")));
        let deeper = down.ask(&a("c/s/m"), Bytes::new(), within).await;
        assert_eq!(deeper, Err(AskError::Below(AskError::NotBelow(a("c/s/m")).to_string())));
        assert_eq!(down.ask(&a("d"), Bytes::new(), within).await, Err(AskError::NotBelow(a("d"))));
        child.close().await;
        until("the child is away", || parent.link().is_some_and(|l| l.stage == Stage::Away)).await;
        parent.close().await;
    });
}

#[test]
fn who_has_nothing_to_say_is_heard_all_the_same() {
    run(async {
        let (city, street, broker) = folders_and_broker();
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &broker);
        let both = [&parent, &child];
        until("the link is up", || both.iter().all(|n| is_up(n))).await;
        for node in both {
            let frames = node.link().unwrap().received_frames;
            // Silence becomes longer until something is heard.
            let mut silent_ms = 0;
            for _ in 0..2 {
                let (mut is_heard, before) = (false, std::time::Instant::now());
                while !is_heard {
                    assert!(before.elapsed() < Duration::from_secs(20), "nothing heard for {silent_ms} ms");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let now_ms = node.link().unwrap().last_heard_ms_ago.unwrap();
                    is_heard = now_ms < silent_ms;
                    silent_ms = now_ms;
                }
            }
            assert_eq!(node.link().unwrap().received_frames, frames, "it was idle");
        }
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn what_anybody_publishes_in_the_name_of_a_node_that_is_not_there_makes_no_child_of_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (config, hub, thread) = city(dir.path());
        let links = Links::default();
        let cx = Context::new(hub.clone(), &config.node, config.link.clone(), links.clone());
        let (stop, stopped) = watch::channel(false);
        let (tx, mut out) = mpsc::channel(64);
        let (inbox, rx) = mpsc::channel(64);
        let mut pipe = Some(LocalPipe { tx, rx }.into());
        let (_down, driver) = Downlinks::new(cx, Box::new(move || pipe.take().expect("one connection")));
        let driver = tokio::spawn(driver.run(stopped));
        let party = Party::default();
        let alive = Word::Alive(wire::Alive::of(party)).encode();
        let said = [
            (Verb::Up, b"hello".to_vec()),
            (Verb::Hello, b"hello".to_vec()),
            (Verb::DownAck, b"hello".to_vec()),
            (Verb::Hello, Word::Bye(party).encode()),
            (Verb::Up, first_frame(Lane::Routine)),
            (Verb::DownAck, alive),
        ];
        for (verb, payload) in &said {
            let topic = topic::link(&config.link.root, *verb, &a("c/s"));
            inbox.send((topic, payload.clone().into())).await.unwrap();
        }
        // Whoever believes in a session is told that there is none: by its frame, and by its sign of life.
        for _ in 0..2 {
            let (_, payload, _) = out.recv().await.unwrap();
            let word = super::driver::decode(&payload);
            assert!(
                matches!(&word, Ok(Message::Word(Word::Refuse(r))) if r.reason == wire::Reason::Unknown),
                "{word:?}"
            );
        }
        // All but the frame, which was answered.
        assert_eq!(hub.work().frames_ignored.load(Ordering::Relaxed), said.len() as u64 - 1);
        assert!(links.links().is_empty(), "{:?}", links.links());
        stop.send_replace(true);
        driver.await.unwrap();
        hub.stop().await;
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    });
}

#[test]
fn two_copies_of_one_folder_do_not_take_turns() {
    run(async {
        let (city, street, clone) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let broker = Broker::default();
        let parent = Node::start(city.path(), "c", &broker);
        let child = Node::start(street.path(), "c/s", &broker);
        child.offer(0..10, "").await;
        until("the link is up", || parent.ids().len() == 10).await;
        // A clone that was never here is a reinstalled child to its parent, and the holder is alive.
        let other = Node::start(clone.path(), "c/s", &broker);
        until("the other is refused", || {
            other.link().is_some_and(|l| {
                matches!(l.stage, Stage::Refused { reason: citybrain_shared::wire::Reason::Duplicate, .. })
            })
        })
        .await;
        assert_eq!(parent.ids().len(), 10);
        other.close().await;
        child.close().await;
        parent.close().await;
    });
}

#[test]
fn link_topics_are_the_only_ones_that_the_drivers_use() {
    let child = a("c/s");
    for verb in topic::Verb::ALL {
        assert!(topic::is_link("citybrain/v1", &topic::link("citybrain/v1", verb, &child)));
    }
}
