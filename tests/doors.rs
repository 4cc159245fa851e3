//! Doors: TLS, client certificates, WebSocket and links by TLS.

use crate::clients::{is_there, mosquitto_is_there};
use crate::harness::certs::{self, Ca, Pair};
use crate::harness::mqtt::{
    Client, connect_five_packet, connect_packet, event, packet, puback, publish_all, publish_five, publish_packet, text,
};
use crate::harness::ran::run;
use crate::harness::{Tree, add_user, binary, free_port, wait_for};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tungstenite::{Bytes, Message};

const SOON: Duration = Duration::from_secs(20);

/// TOML of a listener.
fn listener(port: u16, protocol: &str, pair: Option<&Pair>, more: &str) -> String {
    let mut text = format!("\n[[listener]]\nlisten = \"127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\n{more}\n");
    if let Some(pair) = pair {
        let (cert, key) = (pair.cert.display(), pair.key.display());
        let _ = write!(text, "cert_file = \"{cert}\"\nkey_file = \"{key}\"\n");
    }
    text
}

/// One node, and its further door.
fn city(protocol: &str, pair: Option<&Pair>, more: &str) -> (Tree, u16) {
    let port = free_port();
    let mut tree = Tree::with(&["c"], &Default::default(), &listener(port, protocol, pair, more));
    tree.start();
    (tree, port)
}

/// CONNECT; the answer's code. `None`: there was no answer, only an end.
fn greet(client: &mut Client, packet: &[u8]) -> Option<u8> {
    client.send(packet).ok()?;
    client.read(SOON).filter(|p| p.kind == 2).map(|p| p.body[1])
}

#[test]
fn devices_come_in_by_tls_and_others_trust_nobody_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let (tree, port) = city("mqtts", Some(&ca.issue("node", "node")), "");
    let mut device = Client::over(certs::tls(port, ca.client(None)).expect("a TLS connection"));
    assert_eq!(greet(&mut device, &connect_packet("device", true)), Some(0));
    // More than one TLS record in each direction.
    device.subscribe("big", 1);
    let big = vec![b'x'; 300_000];
    device.send(&publish_packet("big", 1, false, false, 9, &big)).expect("it is sent");
    let message = device.next_message(SOON).expect("the message");
    assert_eq!((message.topic.as_str(), message.payload.len()), ("big", big.len()));
    let mut other = Client::over(certs::tls(port, ca.client(None)).expect("a TLS connection"));
    assert_eq!(greet(&mut other, &connect_packet("other", true)), Some(0));
    for i in 0..600 {
        other.publish_later("in/x", event(&format!("tls-{i}"), false).as_bytes());
    }
    other.wait_acknowledged();
    assert_eq!(tree.node("c").records().iter().filter(|r| r.id.starts_with("tls-")).count(), 600);

    let stranger = Ca::new(dir.path(), "another-ca");
    let refused = certs::tls(port, stranger.client(None)).expect_err("nobody trusts it").to_string();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    // Who speaks plainly is turned away, and counted; the door stays open.
    let mut plain = Client::dial(port).expect("the port is open");
    plain.send(&connect_packet("plain", true)).expect("it is sent");
    assert!(plain.is_closed(SOON));
    let mut device = Client::over(certs::tls(port, ca.client(None)).expect("a TLS connection"));
    assert_eq!(greet(&mut device, &connect_packet("device", true)), Some(0));
    wait_for("both failures are counted", || {
        (counter(&tree, "citybrain_door_handshakes_failed_total") == 2).then_some(())
    });
}

fn counter(tree: &Tree, name: &str) -> u64 {
    let metrics = tree.node("c").get_text("/metrics").unwrap_or_default();
    let value = metrics.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is a metric"))
}

#[test]
fn mosquitto_s_clients_come_in_by_tls() {
    if !mosquitto_is_there() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let (tree, port) = city("mqtts", Some(&ca.issue("node", "node")), "");
    let port = port.to_string();
    let run = |program: &str, ca: &Path, args: &[&str]| {
        let tls = ["-h", "localhost", "-p", &port, "-q", "1", "--cafile"];
        Command::new(program).args(tls).arg(ca).args(args).output().expect("it starts")
    };
    let retained = ["-r", "-t", "state/lamp", "-m", "on"];
    assert!(run("mosquitto_pub", &ca.pem, &retained).status.success());
    let heard = run("mosquitto_sub", &ca.pem, &["-t", "state/#", "-C", "1", "-W", "20"]);
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "on\n");
    let stranger = Ca::new(dir.path(), "another-ca");
    assert!(!run("mosquitto_pub", &stranger.pem, &retained).status.success());
    drop(tree);
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client_and_a_broken_one_to_none() {
    for protocol in ["mqtts", "wss"] {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(dir.path(), "city-ca");
        let first = ca.issue("node", "node");
        let (tree, port) = city(protocol, Some(&first), "");
        let dial = || -> (Vec<u8>, Client) {
            let stream = certs::tls(port, ca.client(None)).expect("a TLS connection");
            let shown = stream.conn.peer_certificates().expect("a certificate")[0].to_vec();
            let mut client = match protocol {
                "wss" => Client::over(certs::web(stream, Some("mqtt"), None).expect("it is let in")),
                _ => Client::over(stream),
            };
            assert_eq!(greet(&mut client, &connect_packet(&format!("of-{port}"), true)), Some(0), "{protocol}");
            (shown, client)
        };
        let (before, mut open) = dial();
        // The files that config names, with other contents.
        ca.issue("node", "node");
        assert!(open.publish("in/x", event("open", false).as_bytes()), "{protocol}: who was here before goes on");
        let (after, _) = dial();
        assert_ne!(before, after, "{protocol}: the new one is shown");
        assert_eq!(dial().0, after, "{protocol}");
        std::fs::write(&first.key, "rubbish").expect("it is written");
        let (last, mut client) = dial();
        assert_eq!(last, after, "{protocol}: the last good one stays");
        assert!(tree.node("c").output().contains("The changed TLS files are of no use"), "{protocol}");
        assert!(client.publish("in/x", event("last", false).as_bytes()), "{protocol}");
    }
}

#[test]
fn a_certificate_that_is_over_is_found_by_check_and_by_clients() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let (tree, port) = city("mqtts", Some(&ca.issue_until("node", "node", 2001)), "");
    let refused = certs::tls(port, ca.client(None)).expect_err("it is over").to_string();
    assert!(refused.contains("certificate expired"), "{refused}");
    assert!(tree.node("c").output().contains("A certificate or a revocation list is not valid now"));
    let config = &tree.node("c").config;
    let check = Command::new(binary()).arg("check").arg(config).output().expect("it runs");
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    // The node has started, and `check`, which the unit runs before each start, must not keep it from that.
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(said.contains("is good from 2000-01-01 to 2001-01-01, and not now"), "{said}");
}

#[test]
fn a_client_s_certificate_is_its_user() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ca, clients) = (Ca::new(dir.path(), "city-ca"), Ca::new(dir.path(), "clients-ca"));
    let more = format!("client_ca_file = \"{}\"\nclient_required = true\n", clients.pem.display());
    let port = free_port();
    let door = listener(port, "mqtts", Some(&ca.issue("node", "node")), &more);
    let access = "[access]\nanonymous = false\npublish = [\"in/{user}/#\"]\nsubscribe = [\"{user}/#\"]\n";
    let mut tree = Tree::with(&["c"], &Default::default(), &format!("{access}{door}"));
    tree.start();
    let lamp = clients.issue("lamp", "lamp-7");
    let dial = |pair: Option<&Pair>| Client::over(certs::tls(port, ca.client(pair)).expect("the server is good"));

    let mut c = dial(Some(&lamp));
    assert_eq!(greet(&mut c, &connect_five_packet("c", None)), Some(0));
    for (topic, code) in [("in/lamp-7/x", 0), ("in/lamp-8/x", 0x87), ("in/x", 0x87)] {
        c.send(&publish_five(topic.as_bytes(), 7, &[], event(topic, false).as_bytes())).expect("it is sent");
        assert_eq!(puback(&mut c, topic), code, "{topic}");
    }
    let mut old = dial(Some(&lamp));
    assert_eq!(greet(&mut old, &connect_packet("old", true)), Some(0));
    let mut subscribe = vec![0, 9];
    for filter in ["lamp-7/#", "lamp-8/#", "#"] {
        text(&mut subscribe, filter);
        subscribe.push(1);
    }
    old.send(&packet(0x82, &subscribe)).expect("it is sent");
    assert_eq!(old.read(SOON).map(|p| p.body), Some(vec![0, 9, 1, 0x80, 0x80]));
    // The name in the certificate is the name.
    let mut pretender = dial(Some(&lamp));
    assert_eq!(greet(&mut pretender, &connect_five_packet("p", Some(("lamp-8", "x")))), Some(0x87));
    let mut same = dial(Some(&lamp));
    assert_eq!(greet(&mut same, &connect_five_packet("s", Some(("lamp-7", "x")))), Some(0));

    for (why, pair) in [
        ("no certificate", None),
        ("one that is over", Some(clients.issue_until("late", "lamp-7", 2001))),
        ("one of another CA", Some(ca.issue("foreign", "lamp-7"))),
    ] {
        // In TLS 1.3 the client hears of it behind its handshake.
        let let_in = certs::tls(port, ca.client(pair.as_ref())).ok().and_then(|stream| {
            let mut c = Client::over(stream);
            greet(&mut c, &connect_packet("c", true))
        });
        assert_eq!(let_in, None, "{why}");
    }
    wait_for("all three are counted", || (counter(&tree, "citybrain_door_handshakes_failed_total") == 3).then_some(()));
    let told = || tree.node("c").output().matches("A client's certificate was refused in the TLS handshake.").count();
    wait_for("somebody can read of a certificate that is refused", || (told() > 0).then_some(()));
    assert_eq!(told(), 1, "once a minute for each address");
}

#[test]
fn whose_certificate_is_on_the_revocation_list_does_not_come_in_from_the_next_connection_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ca, clients) = (Ca::new(dir.path(), "city-ca"), Ca::new(dir.path(), "clients-ca"));
    let other = Ca::new(dir.path(), "other-ca");
    let both = dir.path().join("both.pem");
    let pem = |path: &Path| std::fs::read_to_string(path).expect("it reads");
    std::fs::write(&both, pem(&clients.pem) + &pem(&other.pem)).expect("it is written");
    let (lamp, meter) = (clients.issue_numbered("lamp", 7), clients.issue_numbered("meter", 8));
    let list = clients.revoke("list", &[], 2100);
    let more = format!("client_ca_file = \"{}\"\nclient_crl_file = \"{}\"\n", both.display(), list.display());
    let port = free_port();
    let door = listener(port, "mqtts", Some(&ca.issue("node", "node")), &more);
    let mut tree = Tree::with(&["c"], &Default::default(), &door);
    tree.start();
    let comes_in = |pair: &Pair| {
        let stream = certs::tls(port, ca.client(Some(pair))).ok()?;
        greet(&mut Client::over(stream), &connect_packet("c", true))
    };
    assert_eq!((comes_in(&lamp), comes_in(&meter)), (Some(0), Some(0)));
    // Nobody knows of this one whether it still counts.
    assert_eq!(comes_in(&other.issue_numbered("stranger", 7)), None);
    // The list of 2001 is over; what it says holds.
    clients.revoke("list", &[7], 2001);
    assert_eq!((comes_in(&lamp), comes_in(&meter)), (None, Some(0)));
    let url = tree.node("c").url();
    let doctor = run(&["doctor", "--node", &url]);
    assert!(doctor.out.contains("listener.0.client_crl_file should have been renewed by 2001-01-01"), "{}", doctor.out);
    // Half a file is no list: the one before stays.
    std::fs::write(&list, "-----BEGIN X509 CRL-----\n").expect("it is written");
    assert_eq!((comes_in(&lamp), comes_in(&meter)), (None, Some(0)));
    let check = run(&["check", tree.node("c").config.to_str().expect("UTF-8")]);
    check.says(2, &["list.pem"]);
}

#[test]
fn who_is_taken_out_of_the_users_file_comes_in_by_no_certificate() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let users = dir.path().join("users");
    add_user(&users, "ann", "secret", None);
    add_user(&users, "bob", "secret", None);
    let port = free_port();
    let more = format!("client_ca_file = \"{}\"\n", ca.pem.display());
    let door = listener(port, "mqtts", Some(&ca.issue("node", "node")), &more);
    let access = format!("[access]\nanonymous = false\nusers_file = \"{}\"\n", users.display());
    let mut tree = Tree::with(&["c"], &Default::default(), &format!("{access}{door}"));
    tree.start();
    let bob = ca.issue("bob", "bob");
    let dial = |pair: Option<&Pair>| Client::over(certs::tls(port, ca.client(pair)).expect("the server is good"));
    let (by_name, by_password) = (connect_five_packet("c", None), connect_five_packet("c", Some(("ann", "secret"))));
    assert_eq!(greet(&mut dial(Some(&bob)), &by_name), Some(0));
    assert_eq!(greet(&mut dial(None), &by_password), Some(0), "a certificate is not demanded here");
    assert_eq!(greet(&mut dial(None), &by_name), Some(0x87));
    assert_eq!(greet(&mut dial(Some(&ca.issue("eve", "eve"))), &by_name), Some(0x87));
    let removed = Command::new(binary()).args(["user", "remove", "bob", "--yes", "--file"]).arg(&users).status();
    assert!(removed.expect("it runs").success());
    assert_eq!(greet(&mut dial(Some(&bob)), &by_name), Some(0x87));
}

#[test]
fn packets_come_in_web_socket_messages_of_any_cut() {
    let (tree, port) = city("ws", None, "origins = [\"https://app.example\"]");
    let dial = || {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        socket
    };
    for (protocol, origin, status) in
        [(None, None, 400), (Some("chat"), None, 400), (Some("mqtt"), Some("https://evil.example"), 403)]
    {
        match certs::web(dial(), protocol, origin).map(drop) {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status().as_u16(), status),
            other => panic!("{protocol:?} {origin:?}: {other:?}"),
        }
    }
    let mut web = certs::web(dial(), Some("chat, mqtt"), Some("https://app.example")).expect("it is let in");
    let all = [
        connect_packet("web", true),
        publish_packet("in/x", 1, false, false, 1, event("w-1", false).as_bytes()),
        publish_packet("in/x", 1, false, false, 2, event("w-2", false).as_bytes()),
    ]
    .concat();
    // Three packets in five messages and one that is empty.
    for part in [&all[..1], &all[1..20], &[], &all[20..21], &all[21..all.len() - 3], &all[all.len() - 3..]] {
        web.send(Message::Binary(Bytes::copy_from_slice(part)));
    }
    web.send(Message::Ping(Bytes::from_static(b"?")));
    let mut client = Client::over(web);
    let kinds: Vec<u8> = (0..3).map(|_| client.read(SOON).expect("an answer").kind).collect();
    assert_eq!(kinds, [2, 4, 4]);
    client.subscribe("big", 1);
    let big = vec![b'x'; 300_000];
    client.send(&publish_packet("big", 1, false, false, 9, &big)).expect("it is sent");
    assert_eq!(client.next_message(SOON).map(|m| m.payload.len()), Some(big.len()), "in several messages");
    assert_eq!(tree.node("c").records().iter().filter(|r| r.id.starts_with("w-")).count(), 2);

    // [MQTT-6.0.0-1]: text ends the connection.
    let mut text = certs::web(dial(), Some("mqtt"), None).expect("it is let in");
    text.send(Message::Binary(connect_packet("text", true).into()));
    text.send(Message::Text("hello".into()));
    let mut client = Client::over(text);
    assert_eq!(client.read(SOON).map(|p| p.kind), Some(2));
    assert!(client.is_closed(SOON));
}

#[test]
fn a_web_socket_message_holds_a_packet_and_64_kib_and_one_byte_more_ends_its_connection_alone() {
    // `broker.packet_bytes_max` as it is by default, and the room beside it.
    const BYTES_MAX: usize = 512 * 1024 + 64 * 1024;
    let (tree, port) = city("ws", None, "");
    let dial = |id: &str| {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let mut web = certs::web(socket, Some("mqtt"), None).expect("it is let in");
        web.send(Message::Binary(connect_packet(id, true).into()));
        web
    };
    // Two packets of this many bytes together.
    let two = |bytes: usize| {
        let first = publish_packet("chat/x", 1, false, false, 1, &[b'x'; 400_000]);
        let head = publish_packet("chat/x", 1, false, false, 2, &[b'x'; 100_000]).len() - 100_000;
        let second = publish_packet("chat/x", 1, false, false, 2, &vec![b'x'; bytes - first.len() - head]);
        let both = [first, second].concat();
        assert_eq!(both.len(), bytes);
        both
    };
    let mut bystander = Client::over(dial("bystander"));
    assert_eq!(bystander.read(SOON).map(|p| p.kind), Some(2));
    let mut web = dial("full");
    web.send(Message::Binary(two(BYTES_MAX).into()));
    let mut client = Client::over(web);
    let kinds: Vec<u8> = (0..3).map(|_| client.read(SOON).expect("an answer").kind).collect();
    assert_eq!(kinds, [2, 4, 4], "as much as it may hold is taken");

    let mut client = Client::over(dial("over"));
    assert_eq!(client.read(SOON).map(|p| p.kind), Some(2));
    // Each write is one message. The connection may end before all of it is written.
    let _ = client.send(&two(BYTES_MAX + 1));
    assert_eq!(client.read(SOON), None, "nothing of it is taken");
    assert!(client.is_closed(SOON));
    assert!(bystander.publish("in/x", event("beside", false).as_bytes()));
    assert_eq!(tree.node("c").get("/v1/status").expect("an answer")["counters"]["messages"], 2);
}

const PAHO_WEB: &str = r#"
import json, sys, threading
import paho.mqtt.client as mqtt
port, ca = int(sys.argv[1]), sys.argv[2]
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "web", transport="websockets", protocol=mqtt.MQTTv5)
if ca: c.tls_set(ca_certs=ca)
got, done = [], threading.Event()
c.on_connect = lambda c, u, f, rc, p: c.subscribe("events/city.web", 1)
def subscribed(*a):
    for i in range(200):
        e = {"specversion": "1.0", "id": "%03d" % i, "source": "/web", "type": "city.web", "data": i}
        c.publish("in/web", json.dumps(e), 1)
c.on_subscribe = subscribed
def heard(c, u, m):
    got.append(json.loads(m.payload)["id"])
    if len(got) == 200: done.set()
c.on_message = heard
c.connect("localhost", port)
c.loop_start()
done.wait(60)
print(got == ["%03d" % i for i in range(200)])
"#;

#[test]
fn paho_comes_in_by_web_socket_plain_and_secure() {
    if !is_there("python3", &["-c", "import paho.mqtt; assert paho.mqtt.__version__ >= '2'"], "pip install paho-mqtt") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let (plain, secure) = (free_port(), free_port());
    let doors = listener(plain, "ws", None, "") + &listener(secure, "wss", Some(&ca.issue("node", "node")), "");
    let mut tree = Tree::with(&["c"], &Default::default(), &doors);
    tree.start();
    for (port, ca) in [(plain, ""), (secure, ca.pem.to_str().expect("a path"))] {
        let out =
            Command::new("python3").args(["-c", PAHO_WEB, &port.to_string(), ca]).output().expect("python3 starts");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "True\n", "{}", String::from_utf8_lossy(&out.stderr));
        // The same ids again would be known.
        tree.stop_node("c");
        tree.lose_disk("c");
        tree.start_node("c");
        tree.wait_ready();
    }
}

#[test]
fn a_child_reaches_its_parent_by_tls_with_a_certificate_as_its_account() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(dir.path(), "city-ca");
    let users = dir.path().join("users");
    let added = Command::new(binary())
        .args(["user", "add", "street", "--certificate", "--address=c/s", "--file"])
        .arg(&users)
        .status();
    assert!(added.expect("it runs").success());
    let port = free_port();
    let mut tree = Tree::new(&["c/s"]);
    let more = format!("client_ca_file = \"{}\"\nclient_required = true\n", ca.pem.display());
    let door = listener(port, "mqtts", Some(&ca.issue("city", "city")), &more);
    let access = format!("[access]\nanonymous = false\nusers_file = \"{}\"\n", users.display());
    tree.edit("c", |text| text + &door + &access);
    let plain = format!("url = \"mqtt://127.0.0.1:{}\"", tree.node("c").mqtt);
    let (own, stranger) = (ca.issue("street", "street"), Ca::new(dir.path(), "another-ca"));
    let url = |trusted: &Ca| {
        let (ca, cert, key) = (trusted.pem.display(), own.cert.display(), own.key.display());
        format!("url = \"mqtts://localhost:{port}\"\nca_file = \"{ca}\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"")
    };
    let right = url(&ca);
    tree.edit("c/s", |text| text.replace(&plain, &right));
    let (city, street) = (tree.node("c").config.clone(), tree.node("c/s").config.clone());
    let check = Command::new(binary()).arg("check").args([&city, &street]).output().expect("it runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    tree.start();
    let sent = publish_all("c/s", tree.node("c/s").mqtt, "tls", 1000, false);
    tree.wait_all_up(&sent);
    // A parent whom it cannot trust gets nothing, and `links` says why.
    tree.stop_node("c/s");
    tree.edit("c/s", |text| text.replace(&right, &url(&stranger)));
    tree.start_node("c/s");
    wait_for("the link says why", || {
        let links = tree.node("c/s").get("/v1/links")?;
        let why = links["links"][0]["why"].as_str()?.to_owned();
        why.contains("UnknownIssuer").then_some(())
    });
    let more = publish_all("c/s", tree.node("c/s").mqtt, "more", 100, false);
    tree.stop_node("c/s");
    tree.edit("c/s", |text| text.replace(&url(&stranger), &right));
    tree.start_node("c/s");
    tree.wait_all_up(&more);
}

/// The payloads of a device are constants in its firmware, ids and all.
#[test]
fn a_device_that_says_the_same_each_time_is_shown_as_it_is() {
    let mut tree = Tree::new(&["c"]);
    tree.start();
    let port = tree.node("c").mqtt;
    let mut watcher = Client::connect(port, "watcher", true);
    watcher.subscribe("in/d/status", 1);
    let mut events = Client::connect(port, "events", true);
    events.subscribe("events/city.test", 1);
    let heard = |c: &mut Client| c.next_message(SOON).expect("a message").payload;
    let (on, off) = (event("on", false), event("off", false));
    let mut ids = Vec::new();
    for round in 0..3 {
        let mut connect = Vec::new();
        text(&mut connect, "MQTT");
        // Clean, with a will of QoS 1, retained.
        connect.extend_from_slice(&[4, 0x2e, 0, 0]);
        for part in ["d", "in/d/status", &off] {
            text(&mut connect, part);
        }
        let mut device = Client::dial(port).expect("the door is open");
        assert_eq!(greet(&mut device, &packet(0x10, &connect)), Some(0));
        device.send(&publish_packet("in/d/status", 1, true, false, 7, on.as_bytes())).expect("it is sent");
        assert_eq!(puback(&mut device, "on"), 0);
        assert_eq!(heard(&mut watcher), on.as_bytes(), "round {round}");
        let mut late = Client::connect(port, "late", true);
        late.subscribe("in/d/status", 1);
        assert_eq!(heard(&mut late), on.as_bytes(), "round {round}");
        drop(device);
        assert_eq!(heard(&mut watcher), off.as_bytes(), "round {round}");
        // One event that it is there, and one for each time that it died.
        for _ in 0..if round == 0 { 2 } else { 1 } {
            let event: serde_json::Value = serde_json::from_slice(&heard(&mut events)).expect("JSON");
            ids.push(event["id"].as_str().expect("an id").to_owned());
        }
    }
    assert!(ids[0] == "on" && !ids[1..].iter().any(|id| id == "on" || id == "off"), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}
