use super::super::facts::{Ahead, Certificate, Link, Node, Stopped};
use super::*;
use chrono::NaiveDate;
use citybrain_shared::view::{AlarmLeft, Awaited, Webhook, WebhookStands, time_of};
use citybrain_shared::{Address, Lane, Pos};

/// A node and a host with nothing to complain about.
fn well() -> Facts {
    let mut f = Facts { version: "0.2.0".into(), ..Facts::default() };
    f.config.connections_max = 1000;
    f.config.free_bytes_min = 1 << 20;
    f.config.log_bytes_max = 1 << 30;
    f.config.snapshot_records = 100;
    f.config.has_parent = true;
    let h = &mut f.host;
    h.data = "/d".into();
    h.data_mode = Some(0o750);
    h.filesystem = Some("ext4".into());
    (h.free_bytes, h.total_bytes) = (Some(50 << 30), Some(100 << 30));
    (h.free_inodes, h.total_inodes) = (Some(1 << 20), Some(1 << 21));
    h.fsync_us = vec![400, 500, 900];
    h.files_max = Some(4096);
    h.memory_available_bytes = Some(1 << 30);
    (h.now, h.program_at) = (Some(time_of(2_000_000_000_000_000)), Some(time_of(1_900_000_000_000_000)));
    h.clock_synchronised = Some(true);
    h.certificates = vec![Certificate {
        key: "listener.0.cert_file".into(),
        from: Some(time_of(0)),
        until: Some(time_of(2_100_000_000_000_000)),
        is_list: false,
        trouble: None,
    }];
    h.ports = vec![("api.listen".into(), None)];
    f.node = Some(Node {
        ready: true,
        links: vec![
            Link { up: true, peer: "c".into(), state: "up".into(), ..Link::default() },
            Link { peer: "c/s/m".into(), state: "up".into(), ..Link::default() },
        ],
        children: vec![("c/s/m".into(), "0.1.9".into())],
        calendar_of: Some("c".into()),
        last_pos: Pos(150),
        snapshot_pos: Pos(100),
        newest_record_us: 2_000_000_000_000_000,
        ..Node::default()
    });
    f
}

fn standing(since_us: i64) -> Webhook {
    let (pos, since, why) = (Pos(88), time_of(since_us), "500 Internal Server Error".into());
    let stands = vec![WebhookStands { pos, lane: Lane::Routine, since, why, unasked: false }];
    let (not_agreed_since, not_agreed_why, gone_since, gone_why) = (None, None, None, None);
    Webhook { name: "hotline".into(), behind: 12, stands, not_agreed_since, not_agreed_why, gone_since, gone_why }
}

fn severity(f: &Facts, id: &str) -> Verdict {
    let found = examine(f).checks.into_iter().find(|c| c.id == id);
    found.unwrap_or_else(|| panic!("no finding {id}")).severity
}

#[test]
fn a_running_nodes_file_that_would_not_start_is_bad_and_one_that_says_otherwise_is_told() {
    let mut f = well();
    f.config.file = Some("/etc/c.toml".into());
    assert_eq!(severity(&f, "config"), Verdict::Ok);
    f.config.differs = vec!["rule".into(), "store".into()];
    assert_eq!(severity(&f, "config"), Verdict::Note);
    let found = |f: &Facts| examine(f).checks.into_iter().find(|c| c.id == "config").unwrap().found;
    assert_eq!(found(&f), "/etc/c.toml says otherwise than what the node goes by: rule, store");
    f.config.problems = vec!["line 7".into(), "line 9".into()];
    assert_eq!(severity(&f, "config"), Verdict::Bad);
    assert_eq!(found(&f), "/etc/c.toml has 2 problems by now, and the next start would fail: line 7; line 9");
}

#[test]
fn a_calendar_whose_days_end_behind_all_that_is_due_is_well() {
    let mut f = well();
    let node = f.node.as_mut().unwrap();
    node.days_unknown_from = NaiveDate::from_ymd_opt(2027, 1, 1);
    node.working_until = NaiveDate::from_ymd_opt(2026, 12, 31);
    assert_eq!(severity(&f, "calendar"), Ok);
}

#[test]
fn where_all_is_well_every_check_says_so() {
    let doctor = examine(&well());
    assert!(doctor.ok);
    for c in &doctor.checks {
        assert_eq!((c.severity, c.remedy.as_str()), (Ok, ""), "{c:?}");
    }
    assert_eq!(doctor.checks.len(), CHECKS.len());
    let back: Facts = serde_json::from_value(doctor.facts).unwrap();
    assert_eq!(back, well(), "facts read back from a bundle");
}

/// Each check's other answer, by what is changed in a node that is well.
#[test]
fn every_check_has_another_answer() {
    type Break = fn(&mut Facts);
    fn node(f: &mut Facts) -> &mut Node {
        f.node.as_mut().unwrap()
    }
    let cases: &[(&str, Verdict, Break)] = &[
        ("node-ready", Bad, |f| node(f).ready = false),
        ("node-ready", Note, |f| f.node = None),
        ("config", Bad, |f| f.config.problems.push("no".into())),
        ("data-folder", Bad, |f| f.host.unwritable = Some("denied".into())),
        ("data-rights", Warn, |f| f.host.data_mode = Some(0o755)),
        ("disk-kind", Bad, |f| f.host.filesystem = Some("tmpfs".into())),
        ("disk-kind", Warn, |f| f.host.filesystem = Some("overlay".into())),
        ("disk-kind", Warn, |f| f.host.filesystem = Some("nfs4".into())),
        ("disk-kind", Note, |f| f.host.filesystem = None),
        ("disk-fsync", Warn, |f| f.host.fsync_us = vec![2, 3, 4]),
        ("disk-fsync", Warn, |f| f.host.fsync_us = vec![30_000; 3]),
        ("disk-fsync", Bad, |f| f.host.fsync_us = vec![300_000; 3]),
        ("disk-fsync", Bad, |f| f.host.fsync_error = Some("EIO".into())),
        ("disk-fsync", Note, |f| f.host.fsync_us.clear()),
        ("disk-space", Bad, |f| f.host.free_bytes = Some(1)),
        ("disk-space", Warn, |f| f.host.free_bytes = Some(1 << 30)),
        ("disk-inodes", Bad, |f| f.host.free_inodes = Some(3)),
        ("memory", Warn, |f| f.host.memory_available_bytes = Some(1 << 20)),
        ("files-limit", Warn, |f| f.host.files_max = Some(1024)),
        ("clock-sane", Bad, |f| f.host.now = Some(time_of(0))),
        ("clock-sane", Bad, |f| node(f).newest_record_us += 60_000_000),
        ("clock-sync", Warn, |f| f.host.clock_synchronised = Some(false)),
        ("clock-sync", Note, |f| f.host.clock_synchronised = None),
        ("clock-of-children", Warn, |f| {
            node(f).ahead = Some(Ahead { origin: "c/s/m".into(), by_us: 60_000_000 });
        }),
        ("ports", Bad, |f| f.host.ports[0].1 = Some("in use".into())),
        ("certificates", Bad, |f| f.host.certificates[0].until = f.host.now),
        ("certificates", Bad, |f| f.host.certificates[0].from = Some(time_of(2_100_000_000_000_000))),
        ("certificates", Bad, |f| f.host.certificates[0].trouble = Some("no such file".into())),
        ("certificates", Warn, |f| f.host.certificates[0].until = Some(time_of(2_001_000_000_000_000))),
        ("certificates", Warn, |f| {
            let list = Certificate { is_list: true, until: f.host.now, ..f.host.certificates[0].clone() };
            f.host.certificates.push(list);
        }),
        ("exposure", Bad, |f| f.config.api_open = true),
        ("exposure", Note, |f| (f.config.api_open, f.config.api_tokens) = (true, true)),
        ("exposure", Warn, |f| (f.config.broker_open, f.config.anonymous) = (true, true)),
        ("broker-kind", Warn, |f| f.config.broker_url = Some("mqtt://h:1".into())),
        ("broker-kind", Bad, |f| {
            f.config.broker_url = Some("mqtt://h:1".into());
            node(f).broker_away = Some("Connection refused".into());
        }),
        ("log-damage", Bad, |f| node(f).damages.push("records 3 to 4".into())),
        ("log-damage", Bad, |f| {
            f.stopped = Some(Stopped { trouble: Some("headless".into()), ..Stopped::default() });
        }),
        ("log-torn", Note, |f| node(f).torn_bytes = 7),
        ("log-torn", Bad, |f| node(f).lost_end = Some((Pos(7), Pos(9)))),
        ("state-rebuilt", Warn, |f| node(f).rebuilt = Some("it was damaged".into())),
        ("snapshot-age", Warn, |f| node(f).last_pos = Pos(1000)),
        ("log-size", Warn, |f| node(f).log_bytes = 2 << 30),
        ("link-to-parent", Bad, |f| node(f).links[0].state = "refused".into()),
        ("link-to-parent", Warn, |f| node(f).links[0].state = "connecting".into()),
        ("link-to-parent", Warn, |f| drop(node(f).links.remove(0))),
        ("links-to-children", Bad, |f| node(f).links[1].state = "refused".into()),
        ("links-to-children", Warn, |f| node(f).links[1].state = "away".into()),
        ("versions", Warn, |f| node(f).children[0].1 = "0.10.0".into()),
        ("dead-letters", Warn, |f| node(f).dead_letters_open = 1),
        ("calendar", Note, |f| node(f).calendar_of = None),
        ("calendar", Warn, |f| {
            node(f).days_unknown_from = NaiveDate::from_ymd_opt(2027, 1, 1);
            node(f).working_until = NaiveDate::from_ymd_opt(2027, 1, 1);
        }),
        ("refused-logins", Warn, |f| node(f).refused_logins.push("ann, once, the last from ::1: wrong".into())),
        ("webhook-stands", Warn, |f| node(f).webhooks.push(standing(1_999_999_995_000_000))),
        ("webhook-stands", Bad, |f| node(f).webhooks.push(standing(1_999_999_000_000_000))),
        ("services", Warn, |f| node(f).nameless.push("service a: nobody here or above has a category `b`".into())),
        ("rules", Warn, |f| node(f).failing.push("rule hot has failed 2 times, the last: No such key: t".into())),
        ("services", Warn, |f| node(f).past.push("service a: its time is past, 2019-12-05".into())),
        ("cases-not-recovered", Warn, |f| {
            let (nodes, nodes_more) = (vec![Address::parse("c/s/m").unwrap()], 0);
            let awaits =
                Awaited { node: nodes[0].clone(), cases: 1, knows_some: false, parent: false, nodes, nodes_more };
            node(f).awaits = Some(awaits);
        }),
        ("lost-records", Bad, |f| node(f).lost = 1),
        ("commit-time", Warn, |f| (node(f).commits, node(f).commits_over_100_ms) = (1000, 50)),
    ];
    for (id, want, change) in cases {
        let mut f = well();
        change(&mut f);
        assert_eq!(severity(&f, id), *want, "{id}");
        let doctor = examine(&f);
        assert_eq!(doctor.ok, *want != Bad, "{id}");
        let found = doctor.checks.into_iter().find(|c| c.id == *id).unwrap();
        assert!(!found.remedy.is_empty() && !found.found.is_empty(), "{id} says what to do");
    }
    for (id, _) in CHECKS {
        assert!(cases.iter().any(|(i, ..)| *i == id), "{id} has no case for its other answer");
    }
}

#[test]
fn an_alarm_that_no_rule_ends_is_named() {
    let mut f = well();
    let left =
        |n: u32| AlarmLeft { id: format!("{n:016x}"), name: "sum".into(), key: format!("k{n}"), rule: "gone".into() };
    let node = f.node.as_mut().unwrap();
    (node.alarms_left, node.alarms_left_more) = ((0..7).map(left).collect(), 3);
    let found = examine(&f).checks.into_iter().find(|c| c.id == "alarms-left").unwrap();
    assert_eq!(found.severity, Warn);
    assert!(
        found.found.contains("sum/k0 (0000000000000000)") && found.found.ends_with("and 5 more"),
        "{}",
        found.found
    );
}
