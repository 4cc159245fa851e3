//! What a demo plays: a generated day, or a file of service requests.

use super::tree::{self, Tree, Words};
use super::{chengdu, generate};
use crate::replay::mapping::Mapping;
use crate::replay::{self, SKIPPED_LISTED, Skipped};
use bytes::Bytes;
use miette::{IntoDiagnostic, miette};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// One event, before it is published.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The neighbourhood where it enters, in [`Tree::places`].
    pub leaf: usize,
    pub source: String,
    pub id: String,
    pub urgent: bool,
    /// Its own time, counted from the first event's.
    pub at_ms: u64,
    pub topic: Arc<str>,
    pub payload: Bytes,
}

pub struct Script {
    /// For people: what it is.
    pub title: String,
    /// For programs: `generated` or the file's name.
    pub input: String,
    pub tree: Tree,
    /// In the order of publishing.
    pub events: Vec<Planned>,
    /// Rows read; without a file the events.
    pub rows: u64,
    /// The rows are cases too, and all of them are played.
    pub are_cases: bool,
    /// Rows that enter nowhere, by reason.
    pub skipped: BTreeMap<String, u64>,
    pub first_skipped: Vec<Skipped>,
    /// Columns with rows that have no value in them, in the order of the file.
    pub holes: Vec<(String, u64)>,
}

/// A made-up day of `n` events.
pub fn generated(seed: u64, n: usize, nodes_max: usize) -> Script {
    let mut tree = chengdu::tree(nodes_max);
    let events = generate::day(&mut tree, seed, n);
    Script {
        title: format!("a day in Chengdu, generated from seed {seed}"),
        input: "generated".into(),
        tree,
        rows: events.len() as u64,
        are_cases: false,
        events,
        skipped: BTreeMap::new(),
        first_skipped: Vec::new(),
        holes: Vec::new(),
    }
}

/// Rows that a demo plays at most without being told: as many as it can carry to the city, and
/// account for by id, within a minute on two cores.
pub const ROWS_PLAYED: usize = 20_000;

/// The first `rows_max` events of a file; every other row is counted with its reason.
///
/// # Errors
/// When the file cannot be read, or its mapping does not say where rows belong.
pub fn from_file(
    file: &Path,
    mapping: Option<&Path>,
    utc_offset: Option<&str>,
    rows_max: usize,
    nodes_max: usize,
) -> miette::Result<Script> {
    let (mut rows, mapping) = replay::open(file, mapping, utc_offset).map_err(replay::usage)?;
    let no_place = || {
        miette!(
            help = "give it a [place] section, as in config/replay/la311.toml; or play the file into a running node with `citybrain replay`",
            "the mapping does not say where in a city the rows of {} belong",
            file.display()
        )
    };
    let mapping = mapping.ok_or_else(no_place)?;
    let city = mapping.city().ok_or_else(no_place)?;

    let mut script = Script {
        title: mapping.title.clone(),
        input: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        tree: Tree::default(),
        events: Vec::new(),
        rows: 0,
        are_cases: false,
        skipped: BTreeMap::new(),
        first_skipped: Vec::new(),
        holes: Vec::new(),
    };
    let mut holes: HashMap<Arc<str>, u64> = HashMap::new();
    let mut order: Vec<Arc<str>> = rows.header().to_vec();
    let mut seen: HashMap<(String, String), u64> = HashMap::new();
    let mut paths = Vec::new();
    let mut began = None;
    let topic: Arc<str> = format!("in/{}", city.segment).into();
    while let Some(row) = rows.next_row().into_diagnostic()? {
        script.rows += 1;
        let row = match row {
            Ok(row) => row,
            Err(bad) => {
                script.skip(bad.label, bad.number, bad.line, bad.reason);
                continue;
            }
        };
        if script.events.len() >= rows_max {
            *script.skipped.entry(format!("behind the first {rows_max} that are played")).or_default() += 1;
            continue;
        }
        count_holes(&mapping, &row.fields, &mut holes, &mut order);
        let event = match mapping.apply(&row) {
            Ok(event) => event,
            Err(refused) => {
                script.skip(refused.label(), row.number, row.line, refused.to_string());
                continue;
            }
        };
        let key = (event.source.clone(), event.id.clone());
        if let Some(line) = seen.get(&key) {
            script.skip("same id twice", row.number, row.line, format!("its id `{}` is in line {line} too", event.id));
            continue;
        }
        seen.insert(key, row.line);
        let began = *began.get_or_insert(event.time);
        paths.push(event.place);
        script.events.push(Planned {
            leaf: 0,
            source: event.source,
            id: event.id,
            urgent: event.urgent,
            at_ms: u64::try_from((event.time - began).num_milliseconds()).unwrap_or(0),
            topic: topic.clone(),
            payload: Bytes::from(event.json),
        });
    }
    if script.events.is_empty() {
        return Err(miette!("no row of {} became an event ({} rows read)", file.display(), script.rows));
    }
    let words = [1, 2, 3].map(|i| {
        let level = &mapping.levels[i];
        Words { word: level.word.clone(), rest: level.rest.clone() }
    });
    let (tree, leaves) = tree::from_rows(&city, &words, &paths, nodes_max);
    for (event, leaf) in script.events.iter_mut().zip(leaves) {
        event.leaf = leaf;
    }
    script.tree = tree;
    script.are_cases = mapping.is_of_cases() && script.rows <= rows_max as u64;
    script.holes = order.into_iter().filter_map(|name| holes.get(&name).map(|n| (name.to_string(), *n))).collect();
    Ok(script)
}

fn count_holes(
    mapping: &Mapping,
    fields: &replay::rows::Fields,
    holes: &mut HashMap<Arc<str>, u64>,
    order: &mut Vec<Arc<str>>,
) {
    for (name, value) in &fields.0 {
        if mapping.is_empty(value) {
            *holes.entry(name.clone()).or_default() += 1;
            if !order.contains(name) {
                order.push(name.clone());
            }
        }
    }
}

impl Script {
    fn skip(&mut self, label: &str, row: u64, line: u64, reason: String) {
        *self.skipped.entry(label.to_owned()).or_default() += 1;
        if self.first_skipped.len() < SKIPPED_LISTED {
            self.first_skipped.push(Skipped { row, line, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "SRNumber,CreatedDate,RequestType,APC,NC,NCName,ZipCode,Latitude,Longitude";

    fn script(rows: &[&str], rows_max: usize) -> Script {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.csv");
        std::fs::write(&path, format!("{HEADER}\n{}\n", rows.join("\n"))).unwrap();
        from_file(&path, None, None, rows_max, 15).unwrap()
    }

    #[test]
    fn every_row_of_a_file_enters_somewhere_or_is_counted_with_its_reason() {
        let s = script(
            &[
                "1,01/01/2018 08:00:00 AM,Bulky Items,A,1,N,90001,,",
                "2,01/01/2018 09:00:00 AM,Report Water Waste,,,,,,",
                "1,01/01/2018 09:00:00 AM,Bulky Items,A,1,N,90001,,",
                ",01/01/2018 09:00:00 AM,Bulky Items,A,1,N,90001,,",
                "4,yesterday,Bulky Items,A,1,N,90001,,",
                "5,too,few",
                "6,01/01/2018 07:00:00 AM,Bulky Items,B,1,M,90002,34.0,-118.0",
                "7,01/01/2018 09:00:00 AM,Bulky Items,B,1,M,90002,34.0,-118.0",
            ],
            3,
        );
        assert_eq!(s.rows, s.events.len() as u64 + s.skipped.values().sum::<u64>());
        let reasons: Vec<_> = s.skipped.iter().map(|(label, n)| (label.as_str(), *n)).collect();
        assert_eq!(
            reasons,
            [
                ("behind the first 3 that are played", 1),
                ("no id", 1),
                ("same id twice", 1),
                ("time not readable", 1),
                ("wrong number of fields", 1)
            ]
        );
        assert_eq!(s.first_skipped[0].reason, "its id `1` is in line 2 too");
        assert_eq!(s.holes[0], ("SRNumber".into(), 1));
        assert!(s.holes.contains(&("APC".into(), 1)));
        assert_eq!(s.events.iter().map(|e| e.at_ms).collect::<Vec<_>>(), [0, 3_600_000, 0]);
        assert!(s.events[1].urgent);
    }

    /// Runs where the public data files are, and says so where they are not.
    #[test]
    fn real_files_are_placed_whole() {
        let Some(dir) = std::env::var_os("CITYBRAIN_PUBLIC_DATA") else {
            // Past libtest, which keeps what a passing test prints to itself.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"SKIPPED: CITYBRAIN_PUBLIC_DATA names no folder with la311-2018.csv\n",
            );
            return;
        };
        for (name, rows) in
            [("la311-2018.csv", 10_000), ("boston311-2011.csv", 5_000), ("chengdu-air-2014-2015.csv", 17_520)]
        {
            let s = from_file(&Path::new(&dir).join(name), None, None, ROWS_PLAYED, 22).unwrap();
            assert_eq!((s.rows, s.events.len()), (rows, rows as usize), "{name}: {:?}", s.skipped);
            assert_eq!(s.tree.places[0].events, rows);
            eprintln!("{name}: {:?}", s.holes);
            for p in &s.tree.places {
                eprintln!("{:60} {:6} {:4} {:4}  {}", p.address, p.events, p.areas, p.holes, p.name);
            }
        }
    }
}
