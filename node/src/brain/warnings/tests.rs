//! Chains of messages from several nodes, and boxes that lost what they knew.

use super::held::{bound, first};
use super::read::Below;
use super::*;
use crate::cap::{self, Message};
use citybrain_shared::LogId;
use citybrain_shared::config::{Variables, parse};
use citybrain_shared::record::Origin;
use serde_json::json;

fn a(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn city() -> Warnings {
    node("c")
}

fn node(address: &str) -> Warnings {
    let parsed = parse(&format!("[node]\naddress = \"{address}\"\ndata = \"d\"\n"), &Variables::new());
    Warnings::new(&parsed.config.unwrap())
}

fn at(second: u32) -> DateTime<Utc> {
    format!("2026-07-01T00:00:{second:02}Z").parse().unwrap()
}

fn key(identifier: u32, second: u32) -> String {
    cap::key("a@b", &identifier.to_string(), at(second))
}

/// A message of the chain, sent at that second; it begins with the first.
fn told(msg_type: &str, second: u32, level: Severity) -> Told {
    Told {
        root: key(1, 1),
        key: key(second, second),
        sent: at(second),
        msg_type: msg_type.into(),
        status: "Actual".into(),
        scope: "Public".into(),
        level,
        event: "暴雨".into(),
        headline: String::new(),
        urgent: true,
        expires: "2026-07-01T06:00:00Z".parse().unwrap(),
        nodes: Vec::new(),
        came_in: Vec::new(),
        message: Value::Null,
        xml: String::new(),
    }
}

/// Comes to the city from there: do rules hear of it?
fn hears(warnings: &mut Warnings, from: &str, told: &Told) -> bool {
    let origin = Origin { address: from, log: LogId(1), pos: Pos(1) };
    let (origin, direction) = if from == "c" { (None, Direction::Local) } else { (Some(origin), Direction::Up) };
    let header = Header { origin, direction, ..Header::local(Kind::Event, MESSAGE) };
    let event = json!({"data": told}).to_string();
    let is_news = warnings.is_news(&header, event.as_bytes());
    warnings.apply(Pos(1), &header, event.as_bytes());
    is_news
}

fn level(warnings: &Warnings) -> Option<Severity> {
    warnings.in_force().next().map(|(told, _)| told.level)
}

#[test]
fn of_a_long_chain_the_first_message_and_the_newest_are_known() {
    let at = |i: usize| format!("a@b,{},2026-07-01T{:02}:{:02}:00.000Z", KEYS_MAX * 3 - i, i / 60, i % 60);
    let mut keys: Vec<String> = (0..KEYS_MAX + 10).map(at).collect();
    bound(&mut keys, &at(0));
    let wanted: Vec<String> = std::iter::once(at(0)).chain((11..KEYS_MAX + 10).map(at)).collect();
    assert_eq!(keys, wanted);
    assert_eq!(first(&keys), Some(&at(0)));
}

#[test]
fn what_came_in_at_two_nodes_below_is_over_above_when_both_have_cancelled_it() {
    let mut warnings = city();
    for from in ["c/s", "c/t"] {
        assert!(hears(&mut warnings, from, &told("Alert", 1, Severity::Major)));
    }
    let cancel = told("Cancel", 3, Severity::Major);
    assert!(!hears(&mut warnings, "c/s", &cancel), "it goes on at the other");
    assert!(!hears(&mut warnings, "c/t/m", &cancel), "one below the other does not speak for it");
    assert_eq!(level(&warnings), Some(Severity::Major));
    assert!(hears(&mut warnings, "c/t", &cancel));
    assert_eq!(level(&warnings), None);
}

#[test]
fn what_two_nodes_below_have_is_as_both_say_it_is() {
    let mut warnings = city();
    for from in ["c/s", "c/t"] {
        hears(&mut warnings, from, &told("Alert", 1, Severity::Major));
    }
    assert!(!hears(&mut warnings, "c/s", &told("Update", 2, Severity::Warning)), "the other has it as it was");
    assert_eq!(level(&warnings), Some(Severity::Major));
    assert!(hears(&mut warnings, "c/t", &told("Update", 2, Severity::Warning)));
    assert_eq!(level(&warnings), Some(Severity::Warning));
}

#[test]
fn of_one_message_the_worst_word_counts_and_one_that_was_overtaken_does_not() {
    let mut warnings = city();
    for (from, told, is_heard) in [
        ("c/s", told("Alert", 1, Severity::Minor), true),
        ("c/t", told("Alert", 1, Severity::Critical), true),
        ("c/u", told("Alert", 1, Severity::Minor), false),
        ("c", told("Update", 4, Severity::Major), true),
        ("c/v", told("Alert", 1, Severity::Critical), false),
    ] {
        assert_eq!(hears(&mut warnings, from, &told), is_heard, "{from} at {}", told.sent);
    }
    assert_eq!(level(&warnings), Some(Severity::Major));
    hears(&mut warnings, "c", &told("Cancel", 5, Severity::Major));
    assert!(!hears(&mut warnings, "c/w", &told("Alert", 1, Severity::Critical)), "what was cancelled stays so");
    assert_eq!(level(&warnings), None);
}

#[test]
fn an_update_of_the_same_second_is_taken_though_it_is_milder() {
    let mut warnings = city();
    hears(&mut warnings, "c", &told("Alert", 1, Severity::Major));
    let update = Told { key: key(2, 1), ..told("Update", 1, Severity::Minor) };
    assert!(hears(&mut warnings, "c", &update));
    assert_eq!(level(&warnings), Some(Severity::Minor));
}

#[test]
fn of_more_nodes_than_are_told_by_name_none_ends_a_warning_above() {
    let mut warnings = city();
    let nodes: Vec<String> = (0..=TARGETS_MAX).map(|i| format!("c/s{i}")).collect();
    for from in &nodes {
        hears(&mut warnings, from, &Told { nodes: vec![a(from)], ..told("Alert", 1, Severity::Major) });
    }
    let held = warnings.held.get(&key(1, 1)).unwrap();
    assert_eq!((held.told.nodes.clone(), held.holders.len()), (vec![a("c")], 1));
    for from in &nodes {
        hears(&mut warnings, from, &told("Cancel", 2, Severity::Major));
    }
    assert_eq!(level(&warnings), Some(Severity::Major));
}

fn cancellation(references: &[&str]) -> Message {
    let message = json!({"sender": "a@b", "identifier": "9", "sent": "2026-07-01T00:00:09+00:00",
        "status": "Actual", "msgType": "Cancel", "references": references.join(" ")});
    message.as_object().unwrap().clone()
}

/// Types and targets of what follows.
fn follows(warnings: &Warnings, message: Message) -> Vec<(String, String)> {
    let read = warnings.read(message, "", &[(a("c"), None), (a("c/s"), None)]);
    let drafts = warnings.drafts(&read, 0).unwrap();
    drafts.iter().map(|d| (d.header().name.to_owned(), d.header().target.to_owned())).collect()
}

#[test]
fn a_cancellation_of_what_is_not_known_goes_to_all_below_once_for_each() {
    let mut warnings = city();
    let two = ["a@b,1,2026-07-01T00:00:01+00:00", "x@y,2,2026-07-01T00:00:00+00:00"];
    let wanted = |target: &str| [(MESSAGE.to_owned(), String::new()), (NOTICE.to_owned(), target.to_owned())];
    assert_eq!(follows(&warnings, cancellation(&two)), [wanted("c/**"), wanted("c/**")].concat());
    // Known, it goes to those who have it: the one at which it came in.
    hears(&mut warnings, "c/s", &told("Alert", 1, Severity::Major));
    assert_eq!(follows(&warnings, cancellation(&two[..1])), wanted("c/s"));
    // And again to nobody.
    hears(&mut warnings, "c", &told("Cancel", 9, Severity::Major));
    assert_eq!(follows(&warnings, cancellation(&two[..1])), wanted("")[..1]);
}

/// The child's disk is empty or old: what its parent tells it again comes there.
fn is_told_again(parent: &Warnings, child: &mut Warnings) {
    for draft in parent.told_again(&child.me, at(20).timestamp_micros()) {
        let sent = draft.header();
        let origin = Some(Origin { address: parent.me.as_str(), log: LogId(1), pos: Pos(1) });
        let target = Address::parse(sent.target.trim_end_matches("/**")).unwrap();
        assert!(child.me.covers(&target), "{target} is not of {}", child.me);
        child.apply(Pos(1), &Header { origin, ..sent }, draft.payload());
    }
}

#[test]
fn a_box_that_was_lost_or_restored_hears_of_what_was_cancelled_above_it_at_it_and_below_it() {
    for (posted, cancelled) in [("c/s/m", "c/s"), ("c/s", "c/s"), ("c/s/m", "c"), ("c/s/m", "c/s/m"), ("c", "c")] {
        let mut parent = city();
        hears(&mut parent, posted, &told("Alert", 1, Severity::Major));
        assert!(hears(&mut parent, cancelled, &told("Cancel", 3, Severity::Major)), "{cancelled} ends it");
        // Its parent's memory is on a disk.
        let mut again = city();
        for (key, row) in parent.take_rows() {
            again.load_row(&key, &row.unwrap()).unwrap();
        }
        let mut lost = node("c/s");
        is_told_again(&again, &mut lost);
        assert!(!hears(&mut lost, "c/s/m", &told("Alert", 1, Severity::Major)), "{posted}, {cancelled}: an old word");
        assert_eq!(level(&lost), None);
        let mut restored = node("c/s");
        hears(&mut restored, posted, &told("Alert", 1, Severity::Major));
        is_told_again(&again, &mut restored);
        assert_eq!(level(&restored), None, "{posted}, {cancelled}");
        assert!(hears(&mut restored, "c/s", &told("Update", 4, Severity::Minor)), "a newer word");
    }
    let mut parent = city();
    hears(&mut parent, "c/s", &told("Alert", 1, Severity::Major));
    hears(&mut parent, "c/s", &Told { expires: at(9), ..told("Cancel", 3, Severity::Major) });
    let us = told("Alert", 1, Severity::Major).expires.timestamp_micros();
    assert_eq!(parent.told_again(&a("c/s"), us - 1).len(), 1, "as long as the warning would be believed");
    assert!(parent.told_again(&a("c/s"), us).is_empty());
}

#[test]
fn a_lost_box_says_that_what_came_in_at_it_goes_on_above_only_if_it_had_come_from_there() {
    for (posted, above, goes_on) in [
        (&["c/s"][..], None, false),
        (&["c/s/m"], None, false),
        (&["c/s", "c/s/m"], None, false),
        // Of a neighbour's it was never told, and who has it by then only those above know.
        (&["c/s", "c/t"], None, true),
        (&["c"], Some("c"), true),
        (&["c/s", "c"], Some("c"), true),
    ] {
        let mut parent = city();
        for from in posted {
            let nodes = vec![a(from)];
            hears(&mut parent, from, &Told { nodes, ..told("Alert", 1, Severity::Major) });
        }
        let mut lost = node("c/s");
        is_told_again(&parent, &mut lost);
        assert_eq!(level(&lost), Some(Severity::Major));
        let read = lost.read(cancellation(&["a@b,1,2026-07-01T00:00:01+00:00"]), "", &[]);
        assert_eq!(read.above, above.map(a), "it came in at {posted:?}");
        hears(&mut parent, "c/s", &told("Cancel", 9, Severity::Major));
        assert_eq!(level(&parent).is_some(), goes_on, "it came in at {posted:?}");
    }
}

#[test]
fn what_came_in_below_a_lost_box_and_beside_it_is_over_there_when_the_one_below_cancels_it() {
    let mut parent = city();
    for from in ["c/s/m", "c/t"] {
        hears(&mut parent, from, &Told { nodes: vec![a(from)], ..told("Alert", 1, Severity::Major) });
    }
    let mut lost = node("c/s");
    is_told_again(&parent, &mut lost);
    assert_eq!(level(&lost), Some(Severity::Major));
    assert!(hears(&mut lost, "c/s/m", &told("Cancel", 9, Severity::Major)));
    assert_eq!(level(&lost), None);
    // What the parent has told as its own goes on.
    hears(&mut parent, "c", &Told { nodes: vec![a("c")], ..told("Update", 4, Severity::Major) });
    let mut lost = node("c/s");
    is_told_again(&parent, &mut lost);
    assert!(!hears(&mut lost, "c/s/m", &told("Cancel", 9, Severity::Major)));
    assert_eq!(level(&lost), Some(Severity::Major));
}

#[test]
fn what_one_below_has_cancelled_comes_again_from_another_and_is_over_for_the_first() {
    let mut parent = city();
    for from in ["c/s", "c/t"] {
        hears(&mut parent, from, &Told { nodes: vec![a(from)], ..told("Alert", 1, Severity::Major) });
    }
    hears(&mut parent, "c/s", &told("Cancel", 3, Severity::Major));
    let over = |parent: &Warnings, address: &str| {
        let mut lost = node(address);
        is_told_again(parent, &mut lost);
        level(&lost).is_none()
    };
    assert_eq!([over(&parent, "c/s"), over(&parent, "c/t")], [true, false]);
    assert!(!hears(&mut parent, "c/s/m", &told("Alert", 1, Severity::Critical)), "it was cancelled there");
    hears(&mut parent, "c/t", &told("Cancel", 3, Severity::Major));
    assert_eq!([over(&parent, "c/s"), over(&parent, "c/t")], [true, true]);
    // The line of a third was cut.
    assert!(hears(&mut parent, "c/u", &told("Alert", 1, Severity::Major)), "it is in force there");
    assert_eq!([over(&parent, "c/s"), over(&parent, "c/t")], [true, true]);
    assert!(hears(&mut parent, "c", &told("Update", 4, Severity::Minor)));
    assert!(parent.held.cancelled().next().is_none(), "the newest word is for all");
}

#[test]
fn what_one_below_a_lost_box_has_cancelled_goes_on_there_while_another_below_it_has_it() {
    let mut parent = city();
    for from in ["c/s/m", "c/s/n"] {
        hears(&mut parent, from, &Told { nodes: vec![a(from)], ..told("Alert", 1, Severity::Major) });
    }
    hears(&mut parent, "c/s/m", &told("Cancel", 3, Severity::Major));
    let mut lost = node("c/s");
    is_told_again(&parent, &mut lost);
    assert_eq!(level(&lost), Some(Severity::Major), "the other has it");
    hears(&mut lost, "c/s/m", &told("Alert", 1, Severity::Critical));
    assert_eq!(level(&lost), Some(Severity::Major), "an old word of whoever has cancelled it");
    assert!(hears(&mut lost, "c/s/n", &told("Cancel", 3, Severity::Major)));
    assert_eq!(level(&lost), None);
}

/// A message of the chain, one `info` for each area.
fn of_areas(msg_type: &str, second: u32, infos: &[(&str, &str)]) -> Message {
    let info = |(area, severity): &(&str, &str)| {
        json!({"event": "暴雨", "severity": severity, "headline": severity,
            "area": [{"areaDesc": area, "geocode": [{"valueName": "citybrain-address", "value": area}]}]})
    };
    let infos: Vec<Value> = infos.iter().map(info).collect();
    let references = if second == 1 { "" } else { "a@b,1,2026-07-01T00:00:01+00:00" };
    let message = json!({"sender": "a@b", "identifier": second.to_string(),
        "sent": format!("2026-07-01T00:00:{second:02}+00:00"), "status": "Actual", "msgType": msg_type,
        "references": references, "info": infos});
    message.as_object().unwrap().clone()
}

#[test]
fn an_update_of_other_areas_raises_nothing_in_those_it_has_left_and_its_cancellation_reaches_them() {
    let known = ["c", "c/s", "c/s/m", "c/t", "c/t/m", "c/t/n"].map(|node| (a(node), None));
    let mut city = city();
    city.notify = Notify::Areas;
    let mut says = |message: Message| {
        let read = city.read(message, "", &known);
        hears(&mut city, "c", &read.told);
        let told = |below: &Below| (below.node.to_string(), below.words.headline.clone());
        read.below.iter().map(told).collect::<Vec<_>>()
    };
    let pair = |(node, headline): (&str, &str)| (node.to_owned(), headline.to_owned());
    assert_eq!(says(of_areas("Alert", 1, &[("c/s", "Minor")])), [("c/s", "Minor")].map(pair));
    let moved = of_areas("Update", 2, &[("c/t/m", "Severe"), ("c/t/n", "Minor")]);
    assert_eq!(says(moved), [("c/t/m", "Severe"), ("c/t/n", "Minor")].map(pair));
    let of_both = of_areas("Update", 3, &[("c/t/m", "Minor"), ("c/s/m", "Minor")]);
    assert_eq!(says(of_both), [("c/s", "Minor"), ("c/t/m", "Minor")].map(pair));
    // What names no area may be of anybody.
    let bare = json!({"event": "暴雨", "severity": "Severe", "headline": "all"});
    let mut of_none = of_areas("Update", 4, &[]);
    of_none.insert("info".into(), json!([bare]));
    assert_eq!(says(of_none), [("c/s", "all"), ("c/t/m", "all"), ("c/t/n", "all")].map(pair));
    // Nor is it known whose an area is that no node here has.
    let of_unknown = of_areas("Update", 5, &[("c/z", "Minor")]);
    assert_eq!(says(of_unknown), [("c/s", "Minor"), ("c/t/m", "Minor"), ("c/t/n", "Minor")].map(pair));
    let nodes: Vec<String> = says(of_areas("Cancel", 9, &[("c/t/m", "Severe")])).into_iter().map(|b| b.0).collect();
    assert_eq!(nodes, ["c/s", "c/t/m", "c/t/n"]);
}

#[test]
fn what_no_code_says_where_it_is_may_be_of_anybody_and_what_names_none_of_these_nodes_is_of_nobody_here() {
    let known = ["c", "c/s", "c/t"].map(|node| (a(node), None));
    let mut city = city();
    city.notify = Notify::Areas;
    let bare = json!({"event": "暴雨", "severity": "Severe", "area": [{"areaDesc": "全市", "polygon": ["30,103 30,104 31,104 30,103"]}]});
    let with = |infos: Vec<Value>| {
        let mut message = of_areas("Alert", 1, &[]);
        message.insert("info".into(), infos.into());
        message
    };
    let of = |area: &str| of_areas("Alert", 1, &[(area, "Minor")])["info"][0].clone();
    let told = |city: &Warnings, message: Message| {
        let read = city.read(message, "", &known);
        (read.told.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), read.nobodys)
    };
    let none = Vec::<String>::new;
    assert_eq!(told(&city, with(vec![bare.clone()])), (vec!["c".into()], none()));
    assert_eq!(told(&city, with(vec![of("c/z"), bare.clone()])), (vec!["c".into()], none()));
    assert_eq!(told(&city, with(vec![of("c/s"), bare.clone()])), (vec!["c/s".into()], none()));
    assert_eq!(told(&city, with(vec![of("c/y"), of("c/z"), of("c/z")])), (none(), vec!["c/y".into(), "c/z".into()]));
    // One of elsewhere may stand beside one of here.
    assert_eq!(told(&city, with(vec![of("c/s"), of("c/z")])), (vec!["c/s".into()], none()));
    // Who was told nothing of an alert hears of an update that may be his.
    hears(&mut city, "c", &super::tests::told("Alert", 1, Severity::Major));
    let mut update = of_areas("Update", 2, &[]);
    update.insert("info".into(), json!([bare]));
    assert_eq!(told(&city, update), (vec!["c".into()], none()));
    city.notify = Notify::Nobody;
    assert_eq!(told(&city, with(vec![of("c/z")])), (none(), none()));
    let exercise = |mut message: Message| {
        message.insert("status".into(), "Exercise".into());
        message
    };
    city.notify = Notify::Areas;
    assert_eq!(told(&city, exercise(with(vec![bare]))), (none(), none()));
    assert_eq!(told(&city, exercise(with(vec![of("c/z")]))), (none(), none()));
}

#[test]
fn nobody_is_told_whom_this_node_cannot_tell() {
    let mut warnings = node("c/s");
    let told = Told { nodes: vec![a("c/t"), a("c/s/m"), a("c/s/m/n")], ..told("Alert", 1, Severity::Major) };
    hears(&mut warnings, "c/s/m", &told);
    let read = warnings.read(cancellation(&["a@b,1,2026-07-01T00:00:01+00:00"]), "", &[]);
    assert_eq!(read.told.nodes, [a("c/s/m")]);
    // Told from above, it is this node's, with all below it.
    hears(&mut warnings, "c/s/m", &Told { nodes: vec![a("c")], ..told });
    let read = warnings.read(cancellation(&["a@b,1,2026-07-01T00:00:01+00:00"]), "", &[]);
    assert_eq!(read.told.nodes, [a("c/s")]);
}
