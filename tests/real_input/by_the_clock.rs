//! Readings of air at a node that judges by its own clock: an hour of the file is 300 ms there.
//!
//! No reading is sent by a clock. Where the file says that a span is over, the feeder waits until the node has said
//! so, however late; all else follows at once, so that what the file ends below a span is over in milliseconds, and
//! only a machine that stands for the whole of one (900 ms, 1.8 s) changes anything. That is seen in the log, where
//! the times are by which the rules have judged: the file is then played again. So a slow machine makes this late,
//! and never wrong.

use super::{Told, air_oracle, made_up_air, public};
use crate::harness::mqtt::Client;
use crate::harness::{Node, Record, Tree, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const RULES: &str = r#"
[[rule]]
name = "foul-for-long"
on = ["air.foul-for-long"]
only = "event.data.pm != null"
by = "event.subject"
when = "event.data.pm > 115"
for = "1800ms"
clear = "event.data.pm <= 115"
then = [{ raise = { title = "PM2.5 for six hours" } }]
[[rule]]
name = "silent"
on = ["air.silent"]
only = "event.data.pm != null"
by = "event.subject"
absent = "900ms"
then = [{ raise = { title = "no reading for three hours" } }]
"#;
/// Each with its span, µs.
const SPANS: [(&str, i64); 2] = [("foul-for-long", 1_800_000), ("silent", 900_000)];
/// Days in which there are holes and highs on either side of three and six hours, by the readings' numbers.
const DAYS: std::ops::Range<u32> = 52_249..52_489;
/// The machine may stand in so many of them before it is told to be none to judge on.
const ATTEMPTS: u32 = 20;

struct Reading {
    no: String,
    value: Option<f64>,
}

fn readings(file: &Path) -> Vec<Reading> {
    let text = std::fs::read_to_string(file).expect("the file is read");
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let titles = lines.next().expect("a header");
    let place = |title: &str| titles.iter().position(|t| *t == title).expect("a column");
    let (no, value) = (place("No"), place("PM_US Post"));
    lines.map(|row| Reading { no: row[no].to_owned(), value: row[value].trim().parse().ok() }).collect()
}

/// Where a reading stands in the node's log, and when it was committed, µs.
struct Committed {
    pos: u64,
    us: i64,
}

/// The part of a file that has these numbers.
fn part(file: &Path, numbers: &std::ops::Range<u32>, dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(file).expect("the file is read");
    let is_in = |line: &&str| line.split(',').next().and_then(|n| n.parse().ok()).is_none_or(|n| numbers.contains(&n));
    let lines: Vec<&str> = text.lines().filter(is_in).collect();
    let path = dir.join("part.csv");
    std::fs::write(&path, lines.join("\n")).expect("the file is written");
    path
}

/// One rule over all readings, of a station of its own.
struct Play<'a> {
    node: &'a Node,
    rule: &'a str,
    span_us: i64,
    station: String,
    readings: &'a [Reading],
    told: &'a [Told],
}

impl Play<'_> {
    fn id(&self, no: &str) -> String {
        format!("{}-{no}", self.station)
    }

    /// Does time alone raise it before that reading comes, as the file says?
    fn is_due_before(&self, no: &str) -> bool {
        self.told.iter().any(|(_, what, before)| what == "fired" && before == no)
    }

    fn feed(&self, client: &mut Client) {
        let mut raises = 0;
        for reading in self.readings {
            if self.is_due_before(&reading.no) {
                raises += 1;
                let what = format!("{} is raised before reading {}", self.rule, reading.no);
                wait_for(&what, || (self.times_raised()? >= raises).then_some(()));
            }
            let event = json!({
                "specversion": "1.0", "id": self.id(&reading.no), "source": "/air", "type": format!("air.{}", self.rule),
                "subject": self.station, "data": {"pm": reading.value},
            });
            assert!(client.publish("in/air", event.to_string().as_bytes()), "the door takes it");
        }
        wait_for("all of it is told", || (self.said().len() >= self.told.len()).then_some(()));
    }

    /// How often its alarm was raised, if it is active.
    fn times_raised(&self) -> Option<u64> {
        let all = self.node.get("/v1/alarms")?;
        let own = all["alarms"].as_array()?.iter().find(|a| a["key"] == self.station && a["active"] == true)?;
        own["raises"].as_u64()
    }

    /// Position and facts of all that the rule has said of the station.
    fn said(&self) -> Vec<(u64, Value)> {
        let text = self.node.get_text("/v1/events?type=city.brain.rule.fired&last=5000").unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let each = |line: Value| {
            let fired = line["event"]["data"]["fired"].as_array().cloned().unwrap_or_default();
            let pos = line["pos"].as_u64().expect("a position");
            fired.into_iter().filter(|f| f["key"] == self.station).map(move |f| (pos, f)).collect::<Vec<_>>()
        };
        lines.flat_map(each).collect()
    }

    /// The same as the script tells it: before which reading an alarm was raised, and which cleared it; with the
    /// moments at which each was raised.
    fn came(&self, at: &HashMap<String, Committed>) -> (Vec<Told>, Vec<i64>) {
        let next = |pos: u64| self.readings.iter().find(|r| at[&r.no].pos > pos).map(|r| r.no.clone());
        let (mut came, mut raised_us) = (Vec::new(), Vec::new());
        for (pos, said) in self.said() {
            let done = said["done"][0].as_str().expect("it did something");
            let (what, no) = if done.starts_with("raised") {
                // Behind the last reading it is silent for good.
                let Some(no) = next(pos) else { continue };
                raised_us.push(said["at_us"].as_i64().expect("a moment"));
                ("fired", no)
            } else {
                assert!(done.starts_with("cleared"), "{said}");
                let by = said["event"].as_str().and_then(|id| id.strip_prefix(&self.id("")));
                ("over", by.expect("a reading clears it").to_owned())
            };
            came.push((self.rule.to_owned(), what.to_owned(), no));
        }
        (came, raised_us)
    }

    /// The moments at which time alone must have raised it, by the times that the rules had; `None`: the machine
    /// stood, so that a span was over which is not over in the file.
    fn due_us(&self, at: &HashMap<String, Committed>) -> Option<Vec<i64>> {
        let (mut since, mut is_on, mut due) = (None, false, Vec::new());
        for reading in self.readings {
            let now = at[&reading.no].us;
            if self.is_due_before(&reading.no) {
                due.push(since.take().expect("something has begun") + self.span_us);
                is_on = true;
            }
            if since.is_some_and(|since| now - since >= self.span_us) {
                return None;
            }
            match reading.value {
                None => {}
                Some(_) if self.rule == "silent" => since = Some(now),
                Some(value) if value > 115.0 => since = since.or(Some(now)).filter(|_| !is_on),
                Some(_) => (since, is_on) = (None, false),
            }
        }
        Some(due)
    }
}

/// Plays the file until the machine was fast enough, and says what became of it.
fn judge(node: &Node, name: &str, (rule, span_us): (&str, i64), readings: &[Reading], told: &[Told]) -> Vec<Told> {
    let mut client = Client::connect(node.mqtt, &format!("station-{name}-{rule}"), true);
    for attempt in 0..ATTEMPTS {
        let station = format!("{name}-{rule}-{attempt}");
        let play = Play { node, rule, span_us, station, readings, told };
        play.feed(&mut client);
        let own = play.id("");
        let records = node.records().into_iter();
        let committed =
            |r: Record| Some((r.id.strip_prefix(&own)?.to_owned(), Committed { pos: r.pos, us: r.committed_us }));
        let at = records.filter_map(committed).collect();
        if let Some(due_us) = play.due_us(&at) {
            let (came, raised_us) = play.came(&at);
            assert_eq!(raised_us, due_us, "{rule} in {name}: as long as its span behind what began it");
            return came;
        }
        eprintln!("{name}: the machine stood for longer than {rule} waits; once more");
    }
    panic!("{name}: the machine stood for longer than {rule} waits in each of {ATTEMPTS} attempts");
}

#[test]
fn long_highs_and_long_holes_of_the_air_are_told_by_a_nodes_own_clock_where_their_file_says() {
    let mut tree = Tree::new(&["chengdu"]);
    tree.edit("chengdu", |text| format!("{text}{RULES}"));
    tree.start();
    let files =
        [("made-up", Some(made_up_air(tree.dir())), 0..130), ("chengdu", public("chengdu-air-2014-2015.csv"), DAYS)];
    for (name, file, numbers) in files {
        let Some(file) = file.map(|file| part(&file, &numbers, tree.dir())) else { continue };
        let Some((_, told)) = air_oracle(&file) else { return };
        let readings = readings(&file);
        for (rule, span_us) in SPANS {
            let told: Vec<Told> = told.iter().filter(|(of, ..)| of == rule).cloned().collect();
            assert!(told.len() > 2, "{rule} hardly fires in {name}: {told:?}");
            assert_eq!(judge(tree.node("chengdu"), name, (rule, span_us), &readings, &told), told, "{rule} in {name}");
        }
    }
}
