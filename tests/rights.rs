//! Who may connect, publish and subscribe by MQTT: as config and docs/door.md say, to the code and the
//! counter.

use crate::harness::mqtt::{
    Client, connect_five_packet, connect_packet, event, packet, publish_five, publish_packet, text,
};
use crate::harness::ran::{run, text as path};
use crate::harness::{Node, Tree, add_user, add_user_as, free_port, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_door_is_on_loopback_unless_config_says_otherwise_and_then_it_must_say_who_comes_in() {
    let tree = Tree::new(&["c"]);
    let config = tree.node("c").config.clone();
    let before = std::fs::read_to_string(&config).expect("the config reads");
    let write = |text: &str| std::fs::write(&config, text).expect("it is written");
    let data = tree.node("c").data.display().to_string();
    write(&format!("[node]\naddress = \"c\"\ndata = \"{data}\"\n"));
    let shown = run(&["config", "show", "--effective", "--config", path(&config)]);
    shown.says(0, &["listen = \"127.0.0.1:1883\"", "listen = \"127.0.0.1:8080\""]);
    assert_eq!(shown.out.matches("listen = ").count(), 2, "there is no further door: {}", shown.out);

    let port = tree.node("c").mqtt;
    let open = before.replace(&format!("listen = \"127.0.0.1:{port}\""), &format!("listen = \"0.0.0.0:{port}\""));
    assert_ne!(before, open);
    let web = free_port();
    let further = format!("\n[[listener]]\nlisten = \"[::]:{web}\"\nprotocol = \"ws\"\n");
    let users = "\n[access]\nanonymous = false\nusers_file = \"users\"\n";
    add_user(&tree.dir().join("users"), "ann", "pw", None);
    for (text, at) in [(open, format!("0.0.0.0:{port}")), (before + &further, format!("[::]:{web}"))] {
        write(&text);
        for command in [&["check"][..], &["run", "--config"]] {
            let problem = format!("{at} is not on loopback, and no `[access]` says who may come in");
            run(&[command, &[path(&config)]].concat()).says(2, &[&problem, "users_file"]);
        }
        write(&(text.clone() + users));
        run(&["check", path(&config)]).says(0, &[]);
        // Whoever wants it so has to write it.
        write(&(text + "\n[access]\nanonymous = true\n"));
        run(&["check", path(&config)]).says(0, &[]);
    }
}

fn counted(node: &Node) -> [u64; 4] {
    let page = node.get_text("/metrics").expect("the node answers");
    let names = ["logins_failed", "forbidden", "forbidden_subscriptions", "refused"];
    names.map(|name| {
        let value = page.lines().find_map(|l| l.strip_prefix(&format!("citybrain_door_{name}_total "))?.parse().ok());
        value.unwrap_or_else(|| panic!("{name} is counted"))
    })
}

/// CONNECT of 3.1.1, or of 5.0.
fn connect(five: bool, id: &str, user: Option<(&str, &str)>) -> Vec<u8> {
    if five {
        return connect_five_packet(id, user);
    }
    let Some((name, password)) = user else { return connect_packet(id, true) };
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, 0xc2, 0, 0]);
    for part in [id, name, password] {
        text(&mut body, part);
    }
    packet(0x10, &body)
}

#[test]
fn what_is_refused_at_the_door_has_its_code_and_is_counted() {
    let access = "[access]\nanonymous = false\nusers_file = \"users\"\n\
        [[role]]\nname = \"sensor\"\npublish = [\"in/{user}/#\"]\nsubscribe = [\"cmd/#\"]\n";
    let mut tree = Tree::with(&["c"], &Default::default(), access);
    let users = tree.dir().join("users");
    add_user_as(&users, "lamp-7", "pw", Some("--role=sensor"));
    tree.start();
    let node = tree.node("c");
    let mut wanted = [0; 4];
    assert_eq!(counted(node), wanted);
    for five in [false, true] {
        let which = if five { "5.0" } else { "3.1.1" };
        let dial = |id: &str, user| {
            let mut client = Client::dial(node.mqtt).expect("the port is open");
            client.send(&connect(five, id, user)).expect("it is sent");
            let answer = client.read(SOON).expect("a CONNACK");
            (client, answer.body[1])
        };
        for (user, old, new) in
            [(None, 5, 0x87), (Some(("lamp-7", "wrong")), 4, 0x86), (Some(("nobody", "pw")), 4, 0x86)]
        {
            let (mut client, code) = dial("refused", user);
            assert_eq!(code, if five { new } else { old }, "{which} {user:?}");
            assert!(client.is_closed(SOON), "{which} {user:?}");
            wanted[0] += 1;
            wanted[3] += 1;
            // It is a socket that was turned away once it is closed on both sides.
            drop(client);
            wait_for(&format!("{which} {user:?} is counted"), || (counted(node) == wanted).then_some(()));
        }
        let (mut client, code) = dial("lamp", Some(("lamp-7", "pw")));
        assert_eq!(code, 0, "{which}");
        for (topic, may) in [("in/lamp-7/x", true), ("in/lamp-8/x", false), ("chat/x", false)] {
            let payload = event(&format!("{which} {topic}"), false);
            client
                .send(&match five {
                    true => publish_five(topic.as_bytes(), 7, &[], payload.as_bytes()),
                    false => publish_packet(topic, 1, false, false, 7, payload.as_bytes()),
                })
                .expect("it is sent");
            let answer = client.read(SOON).expect("a PUBACK");
            let code = answer.body.get(2).copied().unwrap_or(0);
            assert_eq!((answer.kind, code), (4, if five && !may { 0x87 } else { 0 }), "{which} {topic}");
            wanted[1] += u64::from(!may);
            assert_eq!(counted(node), wanted, "{which} {topic}");
        }
        let mut subscribe = vec![0, 9];
        if five {
            subscribe.push(0);
        }
        for filter in ["cmd/#", "events/#", "cmd/city.valve.open", "#"] {
            text(&mut subscribe, filter);
            subscribe.push(1);
        }
        client.send(&packet(0x82, &subscribe)).expect("it is sent");
        let answer = client.read(SOON).expect("a SUBACK").body;
        let no = if five { 0x87 } else { 0x80 };
        assert_eq!(answer[answer.len() - 4..], [1, no, 1, no], "{which}");
        wanted[2] += 2;
        assert_eq!(counted(node), wanted, "{which}");
    }
    // What may not be published is kept, whatever its sender was told.
    let letters = node.get("/v1/dlq").expect("an answer")["dead_letters"].as_array().expect("a list").clone();
    assert_eq!(letters.iter().filter(|l| l["reason"] == "forbidden").count(), 4, "{letters:?}");
    let events = node.records().iter().filter(|r| r.event_type == "city.test").count();
    assert_eq!(events, 2);
}
