//! The account: what was acknowledged against what each node has, by id and never by count.
//!
//! Pure: it takes the list of what was published and every node's own records, and says what is
//! missing, doubled, out of order or where it does not belong.

use super::tree::Tree;
use citybrain_shared::{Tier, view};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// One line of `GET /v1/records`, kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub pos: u64,
    pub kind: String,
    pub id: Option<String>,
    pub source: Option<String>,
    pub name: Option<String>,
    pub origin: Option<String>,
    pub origin_pos: Option<u64>,
    pub lane: Option<String>,
    pub direction: Option<String>,
    pub received_us: Option<i64>,
    pub committed_us: Option<i64>,
}

impl From<view::Record<'_>> for Record {
    fn from(r: view::Record<'_>) -> Record {
        Record {
            pos: r.pos.0,
            kind: r.kind.into_owned(),
            id: Some(r.id.into_owned()),
            source: Some(r.source.into_owned()),
            name: Some(r.event_type.into_owned()),
            origin: Some(r.origin.into_owned()),
            origin_pos: Some(r.origin_pos.0),
            lane: Some(r.lane.into_owned()),
            direction: Some(r.direction.into_owned()),
            received_us: Some(r.received_us),
            committed_us: Some(r.committed_us),
        }
    }
}

/// One event that was handed to a publisher; per neighbourhood in the order of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub leaf: usize,
    pub source: String,
    pub id: String,
    pub urgent: bool,
    pub acknowledged: bool,
}

/// The notice, as the city counts its receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Notice {
    #[serde(skip)]
    pub id: String,
    pub targets: u64,
    pub delivered: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Committed {
    pub neighbourhood: u64,
    pub community: u64,
    pub street: u64,
    pub city: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub published: u64,
    pub acknowledged: u64,
    pub urgent: u64,
    /// Published events that some node of the tier has, each once.
    pub committed: Committed,
    /// Acknowledged events that some node on their way up does not have.
    pub missing: u64,
    /// Records of an event that the same node has already.
    pub doubled: u64,
    /// Records that stand behind one that came after them.
    pub out_of_order: u64,
    /// Events at a node that is not on their way up.
    pub strayed: u64,
    /// Neighbourhoods that do not have exactly one copy of the notice.
    pub notice_wrong: u64,
    /// Nodes whose process ended by itself.
    pub ended: u64,
    pub notice: Notice,
    /// From the neighbourhood to the city.
    pub latency: Option<Latency>,
    pub latency_urgent: Option<Latency>,
    /// Of events whose way up was not cut by a kill.
    pub latency_undisturbed: Option<Latency>,
    /// The first few of everything that is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Findings that are told one by one.
const FINDINGS: usize = 12;

impl Account {
    pub fn is_good(&self) -> bool {
        self.acknowledged == self.published
            && [self.missing, self.doubled, self.out_of_order, self.strayed, self.notice_wrong, self.ended] == [0; 6]
            && self.notice.delivered == self.notice.targets
    }

    fn find(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS {
            self.findings.push(finding());
        }
    }
}

/// `logs[i]` are the records of the tree's place `i`, in any order; `killed` the places that were.
pub fn account(
    tree: &Tree,
    published: &[Published],
    logs: &[Vec<Record>],
    notice: &Notice,
    killed: &[usize],
) -> Account {
    assert_eq!(logs.len(), tree.places.len(), "one log for each place");
    let mut out = Account {
        published: published.len() as u64,
        acknowledged: published.iter().filter(|p| p.acknowledged).count() as u64,
        urgent: published.iter().filter(|p| p.urgent).count() as u64,
        notice: notice.clone(),
        ..Account::default()
    };
    let numbers: HashMap<(&str, &str), usize> =
        published.iter().enumerate().map(|(i, p)| ((p.source.as_str(), p.id.as_str()), i)).collect();
    let mut at_tier = [const { Vec::new() }; 4];
    for seen in &mut at_tier {
        seen.resize(published.len(), false);
    }
    let mut received = vec![None; published.len()];
    let mut at_city = vec![None; published.len()];
    let mut has = vec![vec![false; published.len()]; tree.places.len()];

    for (place, log) in logs.iter().enumerate() {
        let here = &tree.places[place].address;
        let mut log: Vec<&Record> = log.iter().collect();
        log.sort_by_key(|r| r.pos);
        let mut seen: HashSet<(&str, &str)> = HashSet::new();
        let mut last_of_origin: HashMap<(&str, &str, &str), u64> = HashMap::new();
        let mut last_of_leaf: HashMap<(usize, bool), usize> = HashMap::new();
        let mut copies = 0;
        for record in log {
            let (Some(source), Some(id)) = (record.source.as_deref(), record.id.as_deref()) else { continue };
            if matches!(record.kind.as_str(), "note" | "message") || id.is_empty() {
                continue;
            }
            if id == notice.id && record.kind == "event" {
                copies += 1;
            }
            if !seen.insert((source, id)) {
                out.doubled += 1;
                out.find(|| format!("{here} has `{id}` of {source} twice, again at position {}", record.pos));
                continue;
            }
            let (lane, direction) = (record.lane.as_deref().unwrap_or(""), record.direction.as_deref().unwrap_or(""));
            let mut is_late = false;
            if let (Some(origin), Some(pos)) = (record.origin.as_deref(), record.origin_pos) {
                let last = last_of_origin.entry((origin, lane, direction)).or_insert(pos);
                is_late = pos < *last;
                *last = pos.max(*last);
            }
            let Some(&number) = numbers.get(&(source, id)) else {
                if is_late {
                    out.out_of_order += 1;
                    out.find(|| format!("{here} has `{id}` of {source} behind one that came after it"));
                }
                continue;
            };
            let sent = &published[number];
            if !tree.upward(sent.leaf).any(|up| up == place) {
                out.strayed += 1;
                out.find(|| format!("{here} has `{id}` of {}", tree.places[sent.leaf].address));
                continue;
            }
            // Numbers grow in the order of publishing, which each lane keeps.
            let last = last_of_leaf.entry((sent.leaf, sent.urgent)).or_insert(number);
            is_late |= number < *last;
            *last = number.max(*last);
            if is_late {
                out.out_of_order += 1;
                out.find(|| format!("{here} has `{id}` of {source} behind one that came after it"));
            }
            has[place][number] = true;
            at_tier[here.tier().depth() - 1][number] = true;
            if place == sent.leaf {
                received[number] = record.received_us;
            }
            if place == 0 {
                at_city[number] = record.committed_us;
            }
        }
        if here.tier() == Tier::Neighbourhood && !notice.id.is_empty() && copies != 1 {
            out.notice_wrong += 1;
            out.find(|| format!("{here} has {copies} copies of the notice"));
        }
    }
    for (number, sent) in published.iter().enumerate() {
        if !sent.acknowledged {
            out.find(|| format!("`{}` of {} was never acknowledged", sent.id, sent.source));
            continue;
        }
        let lacking: Vec<&str> =
            tree.upward(sent.leaf).filter(|up| !has[*up][number]).map(|up| tree.places[up].address.as_str()).collect();
        if !lacking.is_empty() {
            out.missing += 1;
            out.find(|| {
                format!("`{}` of {} was acknowledged and is not at {}", sent.id, sent.source, lacking.join(", "))
            });
        }
    }
    let [city, street, community, neighbourhood] = at_tier.map(|seen| seen.iter().filter(|s| **s).count() as u64);
    out.committed = Committed { neighbourhood, community, street, city };

    let latency = |of: &dyn Fn(&Published) -> bool| {
        let micros = published.iter().enumerate().filter(|(_, p)| of(p));
        percentiles(micros.filter_map(|(i, _)| Some(at_city[i]? - received[i]?)).collect())
    };
    out.latency = latency(&|_| true);
    out.latency_urgent = latency(&|p| p.urgent);
    out.latency_undisturbed = latency(&|p| !tree.upward(p.leaf).any(|up| killed.contains(&up)));
    out
}

/// Milliseconds, from microseconds; `None` without any.
fn percentiles(mut micros: Vec<i64>) -> Option<Latency> {
    micros.sort_unstable();
    let at = |share: f64| {
        let rank = (share * micros.len() as f64).ceil() as usize;
        micros.get(rank.saturating_sub(1)).map(|us| (*us as f64 / 10.0).round() / 100.0)
    };
    Some(Latency { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::chengdu;

    struct Case {
        tree: Tree,
        published: Vec<Published>,
        logs: Vec<Vec<Record>>,
        notice: Notice,
    }

    /// A tree in which everything arrived: `n` events from each neighbourhood, every fifth urgent.
    fn whole(n: usize) -> Case {
        let tree = chengdu::tree(15);
        let leaves: Vec<usize> = tree.of_tier(Tier::Neighbourhood).collect();
        let notice = Notice { id: "n-1".into(), targets: leaves.len() as u64, delivered: leaves.len() as u64 };
        let mut published = Vec::new();
        let mut logs: Vec<Vec<Record>> = vec![Vec::new(); tree.places.len()];
        for leaf in &leaves {
            for i in 0..n {
                let origin = tree.places[*leaf].address.to_string();
                let (source, id, urgent) = (format!("/{origin}/x"), format!("{i}"), i % 5 == 0);
                for (hop, up) in tree.upward(*leaf).enumerate() {
                    let pos = logs[up].len() as u64 + 1;
                    logs[up].push(Record {
                        pos,
                        kind: "event".into(),
                        id: Some(id.clone()),
                        source: Some(source.clone()),
                        name: Some("t".into()),
                        origin: Some(origin.clone()),
                        origin_pos: Some(i as u64 + 1),
                        lane: Some(if urgent { "urgent" } else { "routine" }.into()),
                        direction: Some("up".into()),
                        received_us: Some(1_000_000),
                        committed_us: Some(1_000_000 + hop as i64 * 1000),
                    });
                }
                published.push(Published { leaf: *leaf, source, id, urgent, acknowledged: true });
            }
            let pos = logs[*leaf].len() as u64 + 1;
            let (id, source) = (Some("n-1".into()), Some("/chengdu".into()));
            logs[*leaf].push(Record { pos, kind: "event".into(), id, source, ..Record::default() });
        }
        Case { tree, published, logs, notice }
    }

    impl Case {
        fn account(&self) -> Account {
            account(&self.tree, &self.published, &self.logs, &self.notice, &[])
        }

        fn log(&mut self, address: &str) -> &mut Vec<Record> {
            let at = self.tree.find(address).unwrap();
            &mut self.logs[at]
        }
    }

    #[test]
    fn a_whole_tree_has_a_good_account() {
        let a = whole(20).account();
        assert!(a.is_good(), "{a:?}");
        assert_eq!(a.committed, Committed { neighbourhood: 160, community: 160, street: 160, city: 160 });
        assert_eq!((a.published, a.acknowledged, a.urgent), (160, 160, 32));
        assert_eq!(a.latency, Some(Latency { p50: 3.0, p99: 3.0, max: 3.0 }));
        assert!(a.findings.is_empty());
    }

    #[test]
    fn an_acknowledged_event_that_a_street_lacks_is_missing_even_if_the_city_has_it() {
        let mut case = whole(20);
        case.log("chengdu/liucheng").remove(3);
        let a = case.account();
        assert_eq!((a.missing, a.committed.street, a.committed.city), (1, 159, 160));
        assert!(!a.is_good() && a.findings[0].ends_with("is not at chengdu/liucheng"), "{:?}", a.findings);
    }

    #[test]
    fn equal_counts_do_not_hide_that_one_is_missing_and_another_doubled() {
        let mut case = whole(20);
        let log = case.log("chengdu");
        let mut twin = log[0].clone();
        twin.pos = log[7].pos;
        log[7] = twin;
        let a = case.account();
        assert_eq!((a.missing, a.doubled), (1, 1));
    }

    #[test]
    fn two_events_that_changed_places_are_out_of_order_in_one_lane_and_not_across_lanes() {
        let mut case = whole(20);
        let log = case.log("chengdu");
        (log[6].pos, log[7].pos) = (log[7].pos, log[6].pos);
        assert_eq!(case.account().out_of_order, 1);
        // 4 is routine, 5 is urgent: an urgent event may overtake.
        let mut case = whole(20);
        let log = case.log("chengdu");
        (log[4].pos, log[5].pos) = (log[5].pos, log[4].pos);
        assert!(case.account().is_good());
    }

    #[test]
    fn a_publishers_order_counts_even_when_the_origin_numbered_otherwise() {
        let mut case = whole(20);
        for log in &mut case.logs {
            for r in log.iter_mut().filter(|r| r.origin.as_deref().is_some_and(|o| o.ends_with("jiche-yuan"))) {
                r.origin_pos = r.origin_pos.map(|p| match p {
                    7 => 8,
                    8 => 7,
                    p => p,
                });
            }
            let at = |log: &[Record], id: &str| {
                log.iter().position(|r| {
                    r.id.as_deref() == Some(id) && r.origin.as_deref().is_some_and(|o| o.ends_with("jiche-yuan"))
                })
            };
            if let (Some(a), Some(b)) = (at(log, "6"), at(log, "7")) {
                (log[a].pos, log[b].pos) = (log[b].pos, log[a].pos);
            }
        }
        assert_eq!(case.account().out_of_order, 4, "once at each tier");
    }

    #[test]
    fn an_event_at_a_node_beside_its_way_has_strayed() {
        let mut case = whole(5);
        let mut lost = case.log("chengdu/liucheng")[0].clone();
        lost.pos = 1_000;
        case.log("chengdu/erxianqiao").push(lost);
        assert_eq!(case.account().strayed, 1);
    }

    #[test]
    fn a_neighbourhood_needs_exactly_one_copy_of_the_notice_and_the_city_every_receipt() {
        let mut case = whole(5);
        case.log("chengdu/liucheng/guanghua/shili-guanghua").pop();
        assert_eq!(case.account().notice_wrong, 1);
        let mut case = whole(5);
        case.notice.delivered -= 1;
        assert!(!case.account().is_good());
    }

    #[test]
    fn what_was_never_acknowledged_is_no_loss_but_no_good_account_either() {
        let mut case = whole(5);
        case.published[0].acknowledged = false;
        for log in &mut case.logs {
            log.retain(|r| !(r.id.as_deref() == Some("0") && r.source.as_deref() == Some(&*case.published[0].source)));
        }
        let a = case.account();
        assert_eq!((a.missing, a.acknowledged, a.is_good()), (0, 39, false));
    }

    #[test]
    fn notes_and_records_of_others_are_left_alone() {
        let mut case = whole(5);
        let pos = 900;
        for kind in ["note", "presence", "receipt"] {
            let (id, source) = (Some("p".into()), Some("/p".into()));
            let id = if kind == "note" { None } else { id };
            case.log("chengdu").push(Record { pos, kind: kind.into(), id, source, ..Record::default() });
        }
        // Two kinds with one id are still one id.
        assert_eq!(case.account().doubled, 1);
    }

    #[test]
    fn percentiles_are_of_the_ranks_that_exist() {
        assert_eq!(percentiles(vec![]), None);
        assert_eq!(percentiles(vec![1500]), Some(Latency { p50: 1.5, p99: 1.5, max: 1.5 }));
        let a = percentiles((1..=100).map(|n| n * 1000).collect()).unwrap();
        assert_eq!((a.p50, a.p99, a.max), (50.0, 99.0, 100.0));
    }

    #[test]
    fn a_line_of_the_api_is_read_and_unknown_keys_are_left_alone() {
        let line = r#"{"pos":3,"kind":"event","id":"1","source":"/s","type":"t","origin":"a","origin_pos":9,
            "lane":"urgent","direction":"up","received_us":1,"committed_us":2,"more":true}"#;
        let r = Record::from(serde_json::from_str::<view::Record<'_>>(line).unwrap());
        assert_eq!((r.pos, r.origin_pos, r.name.as_deref()), (3, Some(9), Some("t")));
    }
}
