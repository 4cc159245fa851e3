//! Clients that we did not write. Of MQTT: Mosquitto's here; Eclipse Paho's and MQTT.js in `foreign`. Of
//! Open311: in `open311`.

mod apps;
mod flows;
mod foreign;
mod open311;

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
            // `PUBLISH (d0, q1, r0, m1, …)`: what came by a link has QoS 1.
            let given = qos.min("1");
            assert!(text.contains(&format!("PUBLISH (d0, q{given}, r0, ")), "{version} QoS {qos}: {text}");
        }
    }
}

#[test]
fn what_is_said_beside_a_payload_of_which_a_map_makes_an_event_reaches_the_subscribers_of_its_topic() {
    if !mosquitto_is_there() {
        return;
    }
    let map = "[[map]]\nfilter = \"meter/+\"\nformat = \"text\"\ntype = \"city.meter\"\n";
    let mut tree = Tree::with(&["c"], &Default::default(), map);
    tree.start();
    let port = tree.node("c").mqtt.to_string();
    let said = ["-D", "publish", "user-property", "room", "厨房", "-D", "publish", "content-type", "text/plain"];
    let done = Command::new("mosquitto_pub")
        .args(["-p", &port, "-V", "5", "-q", "2", "-r", "-t", "meter/1", "-m", " 21.5"])
        .args(said)
        .status();
    assert!(done.expect("mosquitto_pub starts").success());
    for restarted in [false, true] {
        if restarted {
            tree.kill9("c");
            tree.start_node("c");
            tree.wait_ready();
        }
        let out = Command::new("mosquitto_sub")
            .args(["-p", &port, "-V", "5", "-q", "2", "-t", "meter/#", "-C", "1", "-W", "20", "-F", "%p|%P|%C"])
            .output()
            .expect("mosquitto_sub starts");
        assert_eq!(String::from_utf8_lossy(&out.stdout), " 21.5|room:厨房|text/plain\n");
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
