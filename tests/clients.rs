//! MQTT clients that we did not write: Mosquitto's and Eclipse Paho's.

use crate::harness::mqtt::{event, publish_all};
use crate::harness::{Tree, wait_for};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// True when `program` can be started; else says aloud that the test is skipped.
pub fn is_there(program: &str, args: &[&str], how: &str) -> bool {
    let done = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    // mosquitto_pub --help ends with 1; that it could be started is enough for it.
    let there = match done {
        Ok(status) => status.success() || program.starts_with("mosquitto"),
        Err(_) => false,
    };
    if !there {
        crate::harness::skipped(&format!("{program} is not there ({how})"));
    }
    there
}

pub fn mosquitto_is_there() -> bool {
    is_there("mosquitto_pub", &["--help"], "apt-get install mosquitto-clients")
}

#[test]
fn mosquitto_s_clients_publish_and_subscribe_in_both_versions() {
    if !mosquitto_is_there() {
        return;
    }
    let mut tree = Tree::new(&["c/s"]);
    tree.start();
    let (low, high) = (tree.node("c/s").mqtt.to_string(), tree.node("c").mqtt.to_string());
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let id = format!("{version}-{qos}");
            let filter = "events/city.test";
            let listener = Command::new("mosquitto_sub")
                .args(["-p", &high, "-V", version, "-q", qos, "-t", filter, "-C", "1", "-W", "30", "-i", &id, "-d"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto_sub starts");
            // A subscription is only good for what comes after it: publish until it has been served.
            let mut listener = listener;
            let mut n = 0;
            let status = loop {
                n += 1;
                let done = Command::new("mosquitto_pub")
                    .args([
                        "-p",
                        &low,
                        "-V",
                        version,
                        "-q",
                        qos,
                        "-t",
                        "in/x",
                        "-m",
                        &event(&format!("{id}-{n}"), false),
                    ])
                    .status()
                    .expect("mosquitto_pub starts");
                assert!(done.success(), "mosquitto_pub {version} QoS {qos}");
                if let Some(status) = listener.try_wait().expect("its status can be asked") {
                    break status;
                }
            };
            assert!(status.success(), "mosquitto_sub {version} QoS {qos} got its message");
            let output = listener.wait_with_output().expect("its output");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("\"origin\":\"c/s\""), "{text}");
            // `PUBLISH (d0, q1, r0, m1, …)`: given as it was asked for.
            assert!(
                text.contains(&format!(", q{}, r0, ", qos.min("1"))) || text.contains(&format!(", q{qos}, r0, ")),
                "{text}"
            );
        }
    }
}

#[test]
fn retained_messages_and_last_wills_reach_mosquitto_s_client() {
    if !mosquitto_is_there() {
        return;
    }
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt.to_string();
    let publish = |args: &[&str]| {
        let done = Command::new("mosquitto_pub").args(["-p", &port]).args(args).status().expect("mosquitto_pub starts");
        assert!(done.success(), "{args:?}");
    };
    let first = |args: &[&str]| {
        let out = Command::new("mosquitto_sub")
            .args(["-p", &port, "-C", "1", "-W", "20"])
            .args(args)
            .output()
            .expect("mosquitto_sub starts");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    publish(&["-q", "1", "-r", "-t", "state/lamp", "-m", "on"]);
    assert_eq!(first(&["-t", "state/#", "-v"]), "state/lamp on\n");
    tree.kill9("c");
    tree.start_node("c");
    tree.wait_ready();
    assert_eq!(first(&["-t", "state/#", "-v"]), "state/lamp on\n", "it outlives a kill");
    publish(&["-q", "1", "-r", "-t", "state/lamp", "-n"]);
    publish(&["-q", "1", "-r", "-t", "state/other", "-m", "x"]);
    assert_eq!(first(&["-t", "state/#", "-v"]), "state/other x\n", "an empty one removes it");

    let mut doomed = Command::new("mosquitto_sub")
        .args(["-p", &port, "-t", "nothing", "--will-topic", "state/gone", "--will-payload", "yes", "--will-qos", "1"])
        .arg("--will-retain")
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub starts");
    // What it prints shows that it is in session.
    let mut lines = BufReader::new(doomed.stdout.take().expect("its output is piped")).lines();
    let (heard, hears) = std::sync::mpsc::channel();
    // Read to its end: a pipe that nobody reads would end the client before it is killed.
    let reader = std::thread::spawn(move || {
        let _ = heard.send(lines.next().is_some());
        lines.for_each(drop);
    });
    wait_for("it has heard something", || {
        publish(&["-q", "1", "-t", "nothing", "-m", "x"]);
        hears.try_recv().ok()
    });
    assert!(doomed.try_wait().expect("its status can be asked").is_none(), "it is still connected");
    doomed.kill().expect("it can be killed");
    doomed.wait().expect("it ends");
    reader.join().expect("the reader ends");
    wait_for("its will is there", || (first(&["-t", "state/gone"]) == "yes\n").then_some(()));
}

#[test]
fn a_durable_session_of_mosquitto_s_client_gets_what_came_while_both_were_away() {
    if !mosquitto_is_there() {
        return;
    }
    for (version, session) in [("mqttv311", &[][..]), ("mqttv5", &["-x", "3600"])] {
        let mut tree = Tree::new(&["c"]);
        tree.start();
        let port = tree.node("c").mqtt;
        let subscribe = |more: &[&str]| {
            let mut command = Command::new("mosquitto_sub");
            command.args(["-p", &port.to_string(), "-V", version, "-c", "-i", "app", "-q", "1", "-t", "events/#"]);
            command.args(session).args(more).stdout(Stdio::piped());
            command
        };
        // `-E` leaves once the subscription is acknowledged.
        let there = subscribe(&["-E"]).status().expect("mosquitto_sub starts");
        assert!(there.success());
        let mut sent = publish_all("c", port, "away", 200, false);
        tree.kill9("c");
        tree.start_node("c");
        sent.extend(publish_all("c", port, "restarted", 200, false));
        let out = subscribe(&["-C", "400", "-W", "60"]).output().expect("mosquitto_sub starts");
        assert!(out.status.success(), "{version}");
        let ids: Vec<String> = String::from_utf8_lossy(&out.stdout)
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).expect("an event"))
            .filter(|e| e["type"] == "city.test")
            .map(|e| e["id"].as_str().expect("an id").to_owned())
            .collect();
        let wanted: Vec<String> = sent.into_iter().map(|s| s.id).collect();
        // The node's own presence of its restart is among the 400.
        assert_eq!(ids, wanted[..ids.len()], "{version}: all of them, in order, each once");
        assert!(ids.len() >= 399, "{version}: {}", ids.len());
    }
}

/// Publishes and subscribes with Paho while the node is killed: prints what was acknowledged and
/// what arrived.
const PAHO: &str = r#"
import sys, json, threading, time
import paho.mqtt.client as mqtt
port, version, n = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
proto = mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311
kw = {}
if version == 5:
    from paho.mqtt.properties import Properties
    from paho.mqtt.packettypes import PacketTypes
    props = Properties(PacketTypes.CONNECT); props.SessionExpiryInterval = 3600
    kw = dict(clean_start=False, properties=props)
def client(name):
    extra = {} if version == 5 else dict(clean_session=False)
    c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=proto, **extra)
    c.reconnect_delay_set(1, 1)
    return c
got, acked, ready = [], set(), threading.Event()
sub = client("paho-sub")
sub.on_connect = lambda c, u, f, rc, p: c.subscribe("events/city.paho", 1)
sub.on_subscribe = lambda *a: ready.set()
sub.on_message = lambda c, u, m: got.append(json.loads(m.payload)["id"])
sub.connect("127.0.0.1", port, **kw); sub.loop_start()
assert ready.wait(30)
pub = client("paho-pub")
mids = {}
pub.on_publish = lambda c, u, mid, rc, p: acked.add(mid)
pub.connect("127.0.0.1", port, **kw); pub.loop_start()
infos = []
for i in range(n):
    e = {"specversion": "1.0", "id": "%06d" % i, "source": "/paho", "type": "city.paho", "data": i}
    infos.append(pub.publish("in/paho", json.dumps(e), 1))
    if i == n // 3: print("RUNNING", flush=True)
    if i % 50 == 0: time.sleep(0.01)
end = time.time() + 60
while time.time() < end and not all(i.is_published() for i in infos): time.sleep(0.02)
want = {"%06d" % i for i in range(n)}
while time.time() < end and not want <= set(got): time.sleep(0.02)
first = list(dict.fromkeys(got))
print(json.dumps({"acked": sum(i.is_published() for i in infos), "missing": len(want - set(got)), "came": first}), flush=True)
"#;

#[test]
fn paho_loses_nothing_over_a_kill_of_the_node_in_both_versions() {
    if !is_there("python3", &["-c", "import paho.mqtt; assert paho.mqtt.__version__ >= '2'"], "pip install paho-mqtt") {
        return;
    }
    for version in ["4", "5"] {
        let mut tree = Tree::new(&["c"]);
        tree.start();
        let port = tree.node("c").mqtt.to_string();
        let mut paho = Command::new("python3")
            .args(["-c", PAHO, &port, version, "3000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut lines = BufReader::new(paho.stdout.take().expect("its output is piped")).lines();
        assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("RUNNING"));
        tree.kill9("c");
        tree.start_node("c");
        let account = lines.next().and_then(Result::ok).expect("an account");
        assert!(paho.wait().expect("it ends").success());
        let account: serde_json::Value = serde_json::from_str(&account).expect("JSON");
        assert_eq!((&account["acked"], &account["missing"]), (&3000.into(), &0.into()), "version {version}");
        let records = tree.node("c").records();
        let log: Vec<&str> = records.iter().filter(|r| r.event_type == "city.paho").map(|r| r.id.as_str()).collect();
        assert_eq!(log.len(), 3000, "each is in the log once");
        // Not by their numbers: what Paho's `publish` sends between TCP and CONNACK goes ahead of what it
        // repeats behind CONNACK.
        let came: Vec<&str> = account["came"].as_array().expect("ids").iter().filter_map(|id| id.as_str()).collect();
        for (n, (came, logged)) in came.iter().zip(&log).enumerate() {
            assert_eq!(came, logged, "version {version}: message {n} comes as the log has it");
        }
    }
}
