//! Whatever comes: a replay, kills in between, and copies elsewhere come to the same.

use super::*;
use proptest::prelude::*;

/// What may happen to a node.
#[derive(Clone, Debug)]
enum Act {
    Event {
        kind: u8,
        key: u8,
        value: u8,
    },
    Wait(u16),
    Ask {
        key: u8,
        clear: bool,
    },
    Rows,
    /// Killed after the commit of an event, before what follows.
    KilledAfter {
        kind: u8,
        key: u8,
        value: u8,
    },
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let event = || (0u8..4, 0u8..3, 0u8..6);
    let act = prop_oneof![
        8 => event().prop_map(|(kind, key, value)| Act::Event { kind, key, value }),
        3 => (0u16..900).prop_map(Act::Wait),
        1 => (0u8..3, any::<bool>()).prop_map(|(key, clear)| Act::Ask { key, clear }),
        1 => Just(Act::Rows),
        1 => event().prop_map(|(kind, key, value)| Act::KilledAfter { kind, key, value }),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 0..60)
}

const MANY: &str = r#"
[[rule]]
name = "level"
on = ["t.0", "t.1"]
by = "event.subject"
when = "event.data >= 3"
for = "2m"
clear = "event.data < 2"
calm = "30s"
then = [{ raise = { severity = "${event.data > 4 ? 'critical' : 'minor'}", title = "${event.data}" } }]
[[rule]]
name = "count"
on = ["t.*"]
by = "/subject"
window = { within = "5m", value = "event.data" }
when = "window.count >= 4 && window.distinct > 1"
clear = "window.count < 3"
quiet = "3m"
then = [{ raise = { alarm = "busy", title = "${window.sum}" } }, { emit = { type = "u.busy", reach = "street" } }]
[[rule]]
name = "silent"
on = ["t.2"]
by = "event.subject"
absent = "4m"
unless_alarm = "busy/*"
then = [{ raise = { title = "silent" } }]
[[rule]]
name = "beside"
on = ["t.*"]
by = "event.subject"
when = "event.data >= 2"
clear = "event.data < 1"
while_alarm = "busy"
for = "30s"
then = [{ raise = { key = "all", severity = "${event.data > 3 ? 'major' : 'minor'}", title = "beside" } }]
[[rule]]
name = "busy-again"
on = ["u.*"]
window = { kind = "tumbling", within = "10m" }
when = "window.count > 1"
then = [{ clear = { alarm = "busy", key = "${event.subject}" } }, { emit = { type = "v", reach = "street" } }]
"#;

fn run(acts: &[Act], with_kills: bool) -> Node {
    let mut node = Node::new(MANY);
    for act in acts {
        match act {
            Act::Event { kind, key, value } | Act::KilledAfter { kind, key, value } => {
                node.only_hear(&format!("t.{kind}"), &format!("k{key}"), &json!(value));
                let killed = with_kills && matches!(act, Act::KilledAfter { .. });
                if killed && value % 2 == 0 {
                    node.write_rows(); // with what is concluded and not spoken yet
                }
                if killed { node.restart() } else { node.settle() }
            }
            Act::Wait(s) => node.wait(i64::from(*s) * S),
            Act::Ask { key, clear } => {
                let id = id_of(&node.config.node.address, "busy", &format!("k{key}"));
                let wish = if *clear { Wish::Clear } else { Wish::Acknowledge };
                if let Ok((_, drafts)) = node.rules.ask(&id, wish, "Li", node.now) {
                    drafts.into_iter().for_each(|d| node.commit(d));
                    node.settle();
                }
            }
            Act::Rows if with_kills => node.write_rows(),
            Act::Restart if with_kills => node.restart(),
            Act::Rows | Act::Restart => {}
        }
        node.now += 1;
    }
    node
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Folding the log anew gives what the node has, row by row.
    #[test]
    fn a_replay_gives_the_same_state(acts in acts()) {
        let mut node = run(&acts, false);
        node.write_rows();
        let anew = node.folded_anew();
        for (key, value) in &node.rows {
            let text = String::from_utf8_lossy(value);
            prop_assert_eq!(Some(value), anew.get(key), "{}: {}", String::from_utf8_lossy(key), text);
        }
        prop_assert_eq!(node.rows.len(), anew.len());
    }

    /// Killed anywhere, any number of times, it says the same as one that never was.
    #[test]
    fn kills_change_nothing_that_is_said(acts in acts()) {
        let (calm, killed) = (run(&acts, false), run(&acts, true));
        // Absence is counted anew from a start; all else is not.
        let said = |n: &Node| n.said().into_iter().filter(|(rule, _, _)| rule != "silent").collect::<Vec<_>>();
        prop_assert_eq!(said(&calm), said(&killed));
        for kind in [alarms::RAISED, alarms::CLEARED, alarms::CHANGED, "u.busy", "v"] {
            let count = |n: &Node| n.events(kind).iter().filter(|e| e["data"]["name"] != "silent").count();
            prop_assert_eq!(count(&calm), count(&killed), "{}", kind);
        }
    }

    /// However an owner's words are mixed up, repeated and lost on the way, whoever heard the newest
    /// has the owner's table; and there is one alarm for each identity.
    #[test]
    fn copies_converge_on_one_alarm_for_each_identity(acts in acts(), order in prop::collection::vec(any::<prop::sample::Index>(), 0..200)) {
        let node = run(&acts, false);
        let words: Vec<&Vec<u8>> = node.log.iter().filter(|b| {
            let name = Header::decode(b).unwrap().0.name.to_owned();
            name.starts_with("city.brain.alarm.")
        }).collect();
        prop_assume!(!words.is_empty());
        let mut above = Rules::new(&parse("[node]\naddress = \"c\"\ndata = \"/x\"\n", &Variables::new()).config.unwrap());
        let mut hear = |bytes: &[u8], pos: u64| {
            let (mut header, payload) = Header::decode(bytes).unwrap();
            header.origin = Some(Origin { address: "c/s", log: LogId(1), pos: Pos(pos) });
            above.apply(Pos(pos), &header, payload);
        };
        for (i, pick) in order.iter().enumerate() {
            hear(words[pick.index(words.len())], i as u64 + 1);
        }
        // At last everything arrives, backwards.
        for (i, bytes) in words.iter().rev().enumerate() {
            hear(bytes, 1000 + i as u64);
        }
        let own: Vec<&Alarm> = node.rules.alarms.iter().collect();
        let copies: Vec<&Alarm> = above.alarms.iter().collect();
        prop_assert_eq!(own, copies);
        let mut names: Vec<_> = above.alarms.iter().map(|a| (&a.origin, &a.name, &a.key)).collect();
        names.dedup();
        prop_assert_eq!(names.len(), above.alarms.len());
    }
}
