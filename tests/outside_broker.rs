//! The same promises with Mosquitto between the nodes: without persistence, killed in mid-stream.

use crate::harness::certs::Ca;
use crate::harness::mqtt::publish_all;
use crate::harness::{Tree, free_port, wait_for};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Mosquitto {
    config: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    /// `None`, aloud, where it is not installed.
    fn start(dir: &std::path::Path) -> Option<Mosquitto> {
        Mosquitto::start_with(dir, "")
    }

    /// As [`Mosquitto::start`], with lines of its listener.
    fn start_with(dir: &std::path::Path, more: &str) -> Option<Mosquitto> {
        let port = free_port();
        let config = dir.join(format!("mosquitto-{port}.conf"));
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nmessage_size_limit 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\n{more}"
        );
        std::fs::write(&config, text).expect("the broker's config is written");
        let mut broker = Mosquitto { config, port, process: None };
        if broker.run() { Some(broker) } else { None }
    }

    fn run(&mut self) -> bool {
        let path = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "mosquitto"];
        let spawned = path.iter().find_map(|exe| {
            Command::new(exe).arg("-c").arg(&self.config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let Some(child) = spawned else {
            eprintln!("SKIPPED: mosquitto is not installed (apt-get install mosquitto)");
            return false;
        };
        self.process = Some(child);
        let port = self.port;
        wait_for("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        true
    }

    fn kill9(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("SIGKILL can be sent");
        child.wait().expect("it ends");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill9();
        }
    }
}

#[test]
fn an_outside_broker_without_memory_killed_in_mid_stream_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (Some(mut low), Some(mut high)) = (Mosquitto::start(dir.path()), Mosquitto::start(dir.path())) else { return };
    // The community's and the city's brokers are outside; the street's is its own.
    let outside = HashMap::from([("c/s/m".to_owned(), low.port), ("c".to_owned(), high.port)]);
    let leaves = ["c/s/m/n1", "c/s/m/n2"];
    let mut tree = Tree::with(&leaves, &outside, "");
    tree.start();
    wait_for("the city knows all", || {
        let known = tree.node("c").get("/v1/tree")?;
        (known["nodes"].as_array()?.len() == tree.nodes.len()).then_some(())
    });
    let enough = Arc::new(AtomicBool::new(false));
    let devices: Vec<_> = leaves
        .iter()
        .enumerate()
        .map(|(i, leaf)| {
            let (leaf, port) = (leaf.to_string(), tree.node(leaf).mqtt);
            let enough = enough.clone();
            // It goes on until the last kill has come in mid-stream.
            std::thread::spawn(move || {
                let mut sent = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    sent.extend(publish_all(&leaf, port, &format!("o{i}-{:06}", sent.len()), 200, false));
                }
                sent
            })
        })
        .collect();
    let (status, sent) =
        tree.node("c").post("/v1/send", &json!({"target": "c/**@neighbourhood", "type": "city.notice", "data": {}}));
    assert_eq!(status, 202, "{sent}");
    for _ in 0..2 {
        for broker in [&mut low, &mut high] {
            // Each time something has got through since the last kill.
            let there = tree.node("c").records().len();
            wait_for("the stream runs", || (tree.node("c").records().len() > there + 300).then_some(()));
            broker.kill9();
            assert!(broker.run(), "it ran before");
        }
    }
    enough.store(true, Ordering::Relaxed);
    let events: Vec<_> = devices.into_iter().flat_map(|d| d.join().expect("the device is done")).collect();
    tree.wait_all_up(&events);
    let id = sent["id"].as_str().expect("an id").to_owned();
    wait_for("both neighbourhoods have answered", || {
        (tree.node("c").get(&format!("/v1/directives/{id}"))?["delivered"] == 2).then_some(())
    });
    for leaf in leaves {
        assert_eq!(tree.node(leaf).records().iter().filter(|r| r.id == id).count(), 1, "{leaf}");
    }
}

#[test]
fn an_outside_broker_is_reached_by_tls_with_a_certificate() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let (broker, node) = (ca.issue("broker", "broker"), ca.issue("node", "node"));
    // Started by root it would change to a user who may not read this folder.
    let tls = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuser root\n",
        ca.pem.display(),
        broker.cert.display(),
        broker.key.display()
    );
    let Some(broker) = Mosquitto::start_with(dir.path(), &tls) else { return };
    let outside = HashMap::from([("c".to_owned(), broker.port)]);
    let mut tree = Tree::with(&["c/s"], &outside, "");
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
    tree.start();
    let sent = publish_all("c/s", tree.node("c/s").mqtt, "tls", 500, false);
    tree.wait_all_up(&sent);
}
