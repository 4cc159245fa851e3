//! The same promises with brokers between the nodes that we did not write: killed in mid-stream, with
//! and without what they have on disk.

use crate::harness::brokers::{Broker, Kind};
use crate::harness::certs::Ca;
use crate::harness::mqtt::{Client, publish_all, publish_packet};
use crate::harness::{PATIENCE, Sent, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const LEAVES: [&str; 2] = ["c/s/m/n1", "c/s/m/n2"];

/// How many events of a device may be on their way: enough that every kill comes in mid-stream, however slow the
/// broker is, and no more, so that the end of the test does not depend on how fast devices are.
const UNDER_WAY_MAX: usize = 2_000;

/// Devices that publish until they are told to stop, and what of it the city has.
struct Stream {
    enough: Arc<AtomicBool>,
    /// Of each device on average.
    there: Arc<AtomicUsize>,
    devices: Vec<JoinHandle<Vec<Sent>>>,
    /// Of the city's log, as far as it was looked through.
    seen: u64,
    count: usize,
}

impl Stream {
    /// One device at each of these: a node, and the port at which it takes what devices publish.
    fn begin(doors: &[(&str, u16)]) -> Stream {
        let (enough, there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let device = |(i, (place, port)): (usize, &(&str, u16))| {
            let (place, port) = ((*place).to_owned(), *port);
            let (enough, there) = (enough.clone(), there.clone());
            std::thread::spawn(move || {
                let mut sent = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    if sent.len() < there.load(Ordering::Relaxed) + UNDER_WAY_MAX {
                        sent.extend(publish_all(&place, port, &format!("o{i}-{:06}", sent.len()), 200, false));
                    } else {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                sent
            })
        };
        let devices = doors.iter().enumerate().map(device).collect();
        Stream { enough, there, devices, seen: 0, count: 0 }
    }

    fn at_leaves(tree: &Tree) -> Stream {
        Stream::begin(&LEAVES.map(|leaf| (leaf, tree.node(leaf).mqtt)))
    }

    /// Something gets through to the city.
    fn wait_for_more(&mut self, tree: &Tree) {
        self.look(tree);
        let before = self.count;
        wait_for("the stream runs", || {
            self.look(tree);
            (self.count > before + 300).then_some(())
        });
    }

    fn look(&mut self, tree: &Tree) {
        let new = tree.node("c").records_after(self.seen);
        self.seen = new.last().map_or(self.seen, |r| r.pos);
        self.count += new.iter().filter(|r| r.event_type == "city.test").count();
        self.there.store(self.count / self.devices.len(), Ordering::Relaxed);
    }

    /// All that was acknowledged to the devices.
    fn end(self) -> Vec<Sent> {
        self.enough.store(true, Ordering::Relaxed);
        self.devices.into_iter().flat_map(|d| d.join().expect("the device is done")).collect()
    }
}

/// Mosquitto knows dots within a level.
fn as_it_knows_dots<'a>(tree: &Tree, kind: Kind, places: impl IntoIterator<Item = &'a str>) {
    if kind != Kind::Mosquitto {
        for address in places {
            tree.edit(address, |text| text.replace("[broker]\n", "[broker]\ndots_as_slashes = true\n"));
        }
    }
}

/// A tree whose nodes at `places` use outside brokers; each of these is killed twice in mid-stream
/// and started again, the second time, with `delete`, without its data.
fn nothing_is_lost_or_doubled(kind: Kind, places: &[&str], delete: bool) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Some(mut brokers) = places.iter().map(|_| Broker::start(kind, dir.path())).collect::<Option<Vec<_>>>() else {
        return;
    };
    let outside: HashMap<String, u16> =
        places.iter().zip(&brokers).map(|(place, broker)| ((*place).to_owned(), broker.port)).collect();
    let mut tree = Tree::with(&LEAVES, &outside, "");
    as_it_knows_dots(&tree, kind, places.iter().copied());
    tree.start();
    tree.wait_all_known();
    for (place, port) in &outside {
        let told = tree.node(place).output();
        assert!(told.contains(&format!("mqtt=mqtt://127.0.0.1:{port} ")), "it names where its devices are: {told}");
    }
    let (status, sent) =
        tree.node("c").post("/v1/send", &json!({"target": "c/**@neighbourhood", "type": "city.notice", "data": {}}));
    assert_eq!(status, 202, "{sent}");
    killed_in_mid_stream(&tree, &mut brokers, delete);
    let id = sent["id"].as_str().expect("an id").to_owned();
    wait_for("both neighbourhoods have answered", || {
        (tree.node("c").get(&format!("/v1/directives/{id}"))?["delivered"] == 2).then_some(())
    });
    for leaf in LEAVES {
        assert_eq!(tree.node(leaf).records().iter().filter(|r| r.id == id).count(), 1, "{leaf}");
    }
}

/// Kills each broker twice while devices publish; the second time, with `delete`, it loses its data.
fn killed_in_mid_stream(tree: &Tree, brokers: &mut [Broker], delete: bool) {
    let mut stream = Stream::at_leaves(tree);
    for round in 0..2 {
        for broker in &mut *brokers {
            stream.wait_for_more(tree);
            broker.kill9();
            if delete && round == 1 {
                broker.delete_data();
            }
            broker.run();
        }
    }
    stream.wait_for_more(tree);
    tree.wait_all_up(&stream.end());
}

// The street's broker is its own.

#[test]
fn mosquitto_killed_in_mid_stream_and_robbed_of_its_data_loses_and_doubles_nothing() {
    nothing_is_lost_or_doubled(Kind::Mosquitto, &["c/s/m", "c"], true);
}

#[test]
fn nats_killed_in_mid_stream_and_robbed_of_its_data_loses_and_doubles_nothing() {
    nothing_is_lost_or_doubled(Kind::Nats, &["c/s/m", "c"], true);
}

#[test]
fn rabbitmq_killed_in_mid_stream_and_robbed_of_its_data_loses_and_doubles_nothing() {
    nothing_is_lost_or_doubled(Kind::RabbitMq, &["c"], true);
}

/// Devices and apps at the brokers themselves: what a street's broker took while the street was
/// killed is in the city's log once, and comes to an app at the city's broker; and a street's broker that
/// comes back without its data is served again.
fn devices_and_apps_are_served_through_it(kind: Kind) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (Some(mut low), Some(high)) = (Broker::start(kind, dir.path()), Broker::start(kind, dir.path())) else {
        return;
    };
    let outside = HashMap::from([("c/s".to_owned(), low.port), ("c".to_owned(), high.port)]);
    let mut tree = Tree::with(&["c/s"], &outside, "");
    let topic = if kind == Kind::Mosquitto { "events/city.test" } else { "events/city/test" };
    as_it_knows_dots(&tree, kind, ["c", "c/s"]);
    tree.start();
    for address in ["c", "c/s"] {
        wait_for("the node is at its broker", || {
            (tree.node(address).get("/v1/status")?["door"]["connections"] == 1).then_some(())
        });
    }
    let mut app = Client::connect(high.port, "app", false);
    app.subscribe(topic, 1);
    let port = low.port;
    let mut stream = Stream::begin(&[("c/s", port)]);
    for _ in 0..2 {
        stream.wait_for_more(&tree);
        tree.kill9("c/s");
        tree.start_node("c/s");
    }
    let mut sent = stream.end();
    wait_for("all is at the city", || {
        let there: HashSet<String> = tree.node("c").records().into_iter().map(|r| r.id).collect();
        sent.iter().all(|s| there.contains(&s.id)).then_some(())
    });
    low.kill9();
    low.delete_data();
    low.run();
    // What comes before the node has subscribed again is for nobody, and the broker's alone.
    let mut tries = 0;
    wait_for("the node is back at its broker", || {
        tries += 1;
        publish_all("c/s", port, &format!("probe{tries}"), 1, false);
        tree.node("c").records().iter().any(|r| r.id.starts_with("probe")).then_some(())
    });
    sent.extend(publish_all("c/s", port, "after", 500, false));
    let wanted: HashSet<&str> = sent.iter().map(|s| s.id.as_str()).collect();
    wait_for("the city holds all, once", || {
        let records = tree.node("c").records();
        let ids: Vec<&str> = records.iter().map(|r| r.id.as_str()).filter(|id| wanted.contains(id)).collect();
        assert!(ids.len() <= wanted.len(), "the city holds some twice");
        (ids.len() == wanted.len()).then_some(())
    });
    let mut got = HashSet::new();
    while got.len() < wanted.len() {
        let message =
            app.next_message(PATIENCE).unwrap_or_else(|| panic!("the app got {} of {}", got.len(), wanted.len()));
        let event: Value = serde_json::from_slice(&message.payload).expect("a CloudEvent");
        assert_eq!((message.topic.as_str(), &event["origin"]), (topic, &json!("c/s")), "{event}");
        let id = event["id"].as_str().expect("an id");
        if !id.starts_with("probe") {
            got.insert(id.to_owned());
        }
    }
    assert!(wanted.iter().all(|id| got.contains(*id)));
}

#[test]
fn devices_and_apps_at_mosquitto_are_served_while_their_node_is_killed() {
    devices_and_apps_are_served_through_it(Kind::Mosquitto);
}

#[test]
fn devices_and_apps_at_nats_are_served_while_their_node_is_killed() {
    devices_and_apps_are_served_through_it(Kind::Nats);
}

#[test]
fn devices_and_apps_at_rabbitmq_are_served_while_their_node_is_killed() {
    devices_and_apps_are_served_through_it(Kind::RabbitMq);
}

#[test]
fn one_server_of_a_nats_cluster_is_killed_in_mid_stream_and_its_nodes_go_on_at_another() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Some(mut servers) = Broker::nats_cluster(dir.path()) else { return };
    let outside = HashMap::from([("c".to_owned(), servers[0].port)]);
    let mut tree = Tree::with(&LEAVES, &outside, "");
    let one = format!("url = \"mqtt://127.0.0.1:{}\"", servers[0].port);
    let all: Vec<String> = servers.iter().map(|s| format!("mqtt://127.0.0.1:{}", s.port)).collect();
    for address in ["c", "c/s"] {
        tree.edit(address, |text| text.replace(&one, &format!("url = \"{}\"", all.join(","))));
    }
    as_it_knows_dots(&tree, Kind::Nats, ["c"]);
    tree.start();
    tree.wait_all_known();
    let mut stream = Stream::at_leaves(&tree);
    // The first of the list, where all nodes are, and then the next, to which they went.
    for server in &mut servers[..2] {
        stream.wait_for_more(&tree);
        server.kill9();
        stream.wait_for_more(&tree);
        server.run();
    }
    tree.wait_all_up(&stream.end());
}

/// Links and their broker know each other by certificate, and by nothing else.
fn reached_by_tls_and_killed_in_mid_stream(kind: Kind) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let node = ca.issue("node", "node");
    let Some(mut broker) = Broker::start_tls(kind, dir.path(), &ca) else { return };
    let outside = HashMap::from([("c".to_owned(), broker.port)]);
    let mut tree = Tree::with(&LEAVES, &outside, "");
    let plain = format!("url = \"mqtt://127.0.0.1:{}\"", broker.port);
    let secure = format!(
        "url = \"mqtts://localhost:{}\"\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"",
        broker.port,
        ca.pem.display(),
        node.cert.display(),
        node.key.display()
    );
    for address in ["c", "c/s"] {
        tree.edit(address, |text| text.replace(&plain, &secure));
    }
    as_it_knows_dots(&tree, kind, ["c"]);
    tree.start();
    tree.wait_all_known();
    killed_in_mid_stream(&tree, std::slice::from_mut(&mut broker), true);
}

#[test]
fn mosquitto_reached_by_tls_with_a_certificate_is_killed_in_mid_stream() {
    reached_by_tls_and_killed_in_mid_stream(Kind::Mosquitto);
}

#[test]
fn nats_reached_by_tls_with_a_certificate_is_killed_in_mid_stream() {
    reached_by_tls_and_killed_in_mid_stream(Kind::Nats);
}

#[test]
fn rabbitmq_reached_by_tls_with_a_certificate_is_killed_in_mid_stream() {
    reached_by_tls_and_killed_in_mid_stream(Kind::RabbitMq);
}

/// What a broker retains where a map gives no id: an event once, however often the node connects and starts, also
/// where the map is new.
fn what_it_retains_is_taken_once(kind: Kind) {
    const METERS: usize = 20;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Some(broker) = Broker::start(kind, dir.path()) else { return };
    let mut device = Client::connect(broker.port, "device", true);
    for n in 0..=METERS {
        let id = n as u16 + 1;
        device.send(&publish_packet(&format!("meter/{n}"), 1, true, false, id, b"7")).expect("it is sent");
        assert_eq!(device.read(PATIENCE).expect("an acknowledgement").kind, 4);
    }
    // Each topic by itself: RabbitMQ gives to no wildcard what it retains.
    let map = |n| format!("[[map]]\nfilter = \"meter/{n}\"\nformat = \"text\"\ntype = \"t.meter\"\n");
    let maps: String = (0..METERS).map(map).collect();
    let mut tree = Tree::with(&["c"], &HashMap::from([("c".to_owned(), broker.port)]), &maps);
    as_it_knows_dots(&tree, kind, ["c"]);
    tree.start();
    let taken = |tree: &Tree| tree.node("c").records().iter().filter(|r| r.event_type == "t.meter").count();
    wait_for("all is taken", || (taken(&tree) >= METERS).then_some(()));
    let mut marks = 0;
    // Behind what came before it.
    let mut mark = |tree: &Tree| {
        wait_for("the node is at its broker", || {
            (tree.node("c").get("/v1/status")?["door"]["connections"] == 1).then_some(())
        });
        for _ in 0..2 {
            marks += 1;
            let id = publish_all("c", broker.port, &format!("mark{marks}"), 1, false).remove(0).id;
            wait_for("it is taken", || tree.node("c").records().iter().any(|r| r.id == id).then_some(()));
        }
    };
    mark(&tree);
    for kill in [false, true, true] {
        if kill {
            tree.kill9("c")
        } else {
            tree.stop_node("c")
        }
        tree.start_node("c");
        mark(&tree);
        assert_eq!(taken(&tree), METERS);
    }
    tree.stop_node("c");
    tree.edit("c", |text| map(METERS) + &text);
    tree.start_node("c");
    wait_for("the new one is taken", || (taken(&tree) > METERS).then_some(()));
    for _ in 0..2 {
        mark(&tree);
        assert_eq!(taken(&tree), METERS + 1);
        tree.kill9("c");
        tree.start_node("c");
    }
    device.publish(&format!("meter/{METERS}"), b"8");
    wait_for("what comes is taken", || (taken(&tree) == METERS + 2).then_some(()));
}

#[test]
fn what_mosquitto_retains_is_taken_once() {
    what_it_retains_is_taken_once(Kind::Mosquitto);
}

#[test]
fn what_nats_retains_is_taken_once() {
    what_it_retains_is_taken_once(Kind::Nats);
}

#[test]
fn what_rabbitmq_retains_is_taken_once() {
    what_it_retains_is_taken_once(Kind::RabbitMq);
}
