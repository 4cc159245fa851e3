//! Which case goes where, and in which order the lives of all are told. Pure.

use super::TOGETHER_BYTES;
use crate::replay::mapping::{Area, Mapping};
use crate::replay::rows::{self, Rows};
use crate::replay::{SKIPPED_LISTED, Skipped};
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::Status;
use citybrain_shared::view::CaseAccount;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Rows of one file, about 1 KB of memory each. More are split into several files.
const ROWS_MAX: usize = 2_000_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the file does not read to its end")]
    Rows(#[from] rows::Error),
    #[error("the file has more than {ROWS_MAX} rows: split it")]
    Many,
    #[error("no row of the file is a case that belongs here ({0} were read)")]
    None(u64),
}

pub struct Plan {
    pub rows: u64,
    /// Nodes that get cases, and how many.
    pub nodes: Vec<Address>,
    pub per_node: Vec<u64>,
    /// Cases of which the file says that they were closed, or changed, before they were opened.
    pub too_early: u64,
    pub skipped: BTreeMap<String, u64>,
    pub first_skipped: Vec<Skipped>,
    /// As each stands at last, with its node.
    cases: Vec<(usize, CaseAccount)>,
    /// Moments at which something is told of a case, in their order.
    moments: Vec<(DateTime<Utc>, usize)>,
}

impl Plan {
    /// Reads a file. `known`: the nodes below `root`; without them everything goes to `root`. `last`:
    /// only how each case stands at last.
    ///
    /// # Errors
    /// [`Error`]. A row that is no case is counted, and no error.
    pub fn read(
        mut rows: Rows,
        mapping: &Mapping,
        root: &Address,
        known: Option<BTreeSet<Address>>,
        last: bool,
    ) -> Result<Plan, Error> {
        let mut plan = Plan {
            rows: 0,
            nodes: Vec::new(),
            per_node: Vec::new(),
            too_early: 0,
            skipped: BTreeMap::new(),
            first_skipped: Vec::new(),
            cases: Vec::new(),
            moments: Vec::new(),
        };
        let rests = [1, 2, 3].map(|i| mapping.levels.get(i).map_or("", |level| level.rest.as_str()));
        let mut numbers: HashMap<Address, usize> = HashMap::new();
        let mut seen: HashMap<(String, String), u64> = HashMap::new();
        while let Some(row) = rows.next_row()? {
            plan.rows += 1;
            let row = match row {
                Ok(row) => row,
                Err(bad) => {
                    plan.skip(bad.label, bad.number, bad.line, bad.reason);
                    continue;
                }
            };
            let account = match mapping.account(&row) {
                Ok(account) => account,
                Err((label, reason)) => {
                    plan.skip(label, row.number, row.line, reason);
                    continue;
                }
            };
            let bytes = serde_json::to_vec(&account).map_or(0, |json| json.len());
            if bytes > TOGETHER_BYTES {
                let reason =
                    format!("as a case it has {bytes} bytes; at most {TOGETHER_BYTES} go through a link at once");
                plan.skip("too long", row.number, row.line, reason);
                continue;
            }
            let name = (account.source.clone(), account.id.clone());
            if let Some(line) = seen.get(&name) {
                let reason = format!("its id `{}` is in line {line} too", account.id);
                plan.skip("same id twice", row.number, row.line, reason);
                continue;
            }
            let to = match &known {
                None => Some(root.clone()),
                Some(known) => place(root, known, &mapping.place(&row.fields), &rests),
            };
            let Some(to) = to else {
                plan.skip("of another part of the city", row.number, row.line, format!("it is not below {root}"));
                continue;
            };
            if plan.cases.len() >= ROWS_MAX {
                return Err(Error::Many);
            }
            seen.insert(name, row.line);
            let node = *numbers.entry(to.clone()).or_insert_with(|| {
                plan.nodes.push(to);
                plan.per_node.push(0);
                plan.nodes.len() - 1
            });
            plan.per_node[node] += 1;
            plan.too_early += u64::from(account.updated.min(account.closed.unwrap_or(account.opened)) < account.opened);
            let case = plan.cases.len();
            let moments = if last { vec![end(&account)] } else { moments(&account) };
            plan.moments.extend(moments.into_iter().map(|at| (at, case)));
            plan.cases.push((node, account));
        }
        if plan.cases.is_empty() {
            return Err(Error::None(plan.rows));
        }
        plan.moments.sort_unstable();
        Ok(plan)
    }

    pub fn cases(&self) -> usize {
        self.cases.len()
    }

    /// Accounts there are to tell.
    pub fn len(&self) -> usize {
        self.moments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.moments.is_empty()
    }

    /// Every account, with its node, in the order of the times that they tell of.
    pub fn accounts(&self) -> impl Iterator<Item = (usize, CaseAccount)> + '_ {
        self.moments.iter().map(|(at, case)| {
            let (node, account) = &self.cases[*case];
            (*node, as_of(account, *at))
        })
    }

    fn skip(&mut self, label: &str, row: u64, line: u64, reason: String) {
        *self.skipped.entry(label.to_owned()).or_default() += 1;
        if self.first_skipped.len() < SKIPPED_LISTED {
            self.first_skipped.push(Skipped { row, line, reason });
        }
    }
}

/// The lowest node that stands for the row's place: at each level the area's own, or the one for the
/// rest. `None`: it belongs to a part of the city that `root` is not above.
fn place(root: &Address, known: &BTreeSet<Address>, areas: &[Option<Area>; 3], rests: &[&str; 3]) -> Option<Address> {
    let mut at = Address::parse(root.as_str().split('/').next()?).ok()?;
    for (area, rest) in areas.iter().zip(rests) {
        let own = area.as_ref().map(|a| a.segment.as_str());
        let below = own.into_iter().chain((!rest.is_empty()).then_some(*rest));
        let is_there = |a: &Address| a.covers(root) || known.contains(a);
        let next = below.filter_map(|segment| Address::parse(&format!("{at}/{segment}")).ok()).find(is_there);
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    root.covers(&at).then_some(at)
}

fn end(account: &CaseAccount) -> DateTime<Utc> {
    account.opened.max(account.updated).max(account.closed.unwrap_or(account.opened))
}

/// When something is known to have happened: opened, changed, closed; none before it was opened.
fn moments(account: &CaseAccount) -> Vec<DateTime<Utc>> {
    let all = [Some(account.opened), Some(account.updated), account.closed];
    let mut all: Vec<_> = all.into_iter().flatten().map(|at| at.max(account.opened)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What was known at that moment.
fn as_of(account: &CaseAccount, at: DateTime<Utc>) -> CaseAccount {
    let told = CaseAccount { updated: at, ..account.clone() };
    let was_closed = account.closed.is_some_and(|closed| closed <= at);
    let is_known = if account.status.is_open() { account.updated <= at } else { was_closed };
    if is_known {
        return told;
    }
    // Open, and with its department since it was opened: more the file does not say.
    CaseAccount {
        status: if account.department.is_empty() { Status::Accepted } else { Status::Dispatched },
        reason: None,
        closed: None,
        solved: None,
        satisfied: None,
        ..told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const HEADER: &str = "SRNumber,CreatedDate,UpdatedDate,Owner,RequestType,Status,RequestSource,ClosedDate,Address,ZipCode,Latitude,Longitude,APC,NC,NCName";

    fn plan(rows: &[&str], root: &str, known: &[&str], last: bool) -> Plan {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("requests.csv");
        std::fs::write(&path, format!("{HEADER}\n{}\n", rows.join("\n"))).unwrap();
        let (rows, mapping) = crate::replay::open(Path::new(&path), None, None).unwrap();
        let a = |text: &str| Address::parse(text).unwrap();
        Plan::read(rows, &mapping.unwrap(), &a(root), Some(known.iter().map(|k| a(k)).collect()), last).unwrap()
    }

    const CLOSED: &str = "1,01/01/2018 08:00:00 AM,01/03/2018 08:00:00 AM,BOS,Bulky Items,Closed,Call,01/02/2018 08:00:00 AM,\"1 A ST\",90001,34.0,-118.0,South APC,1,N NC";

    #[test]
    fn the_life_of_a_case_is_told_in_the_order_of_its_times() {
        let plan = plan(&[CLOSED], "la", &[], false);
        let told: Vec<_> =
            plan.accounts().map(|(_, a)| (a.updated.to_rfc3339(), a.status, a.closed.is_some())).collect();
        assert_eq!(
            told,
            [
                ("2018-01-01T16:00:00+00:00".into(), Status::Dispatched, false),
                ("2018-01-02T16:00:00+00:00".into(), Status::Closed, true),
                ("2018-01-03T16:00:00+00:00".into(), Status::Closed, true),
            ]
        );
        assert_eq!(super::tests::plan(&[CLOSED], "la", &[], true).len(), 1);
    }

    #[test]
    fn what_was_closed_before_it_was_opened_is_told_at_once() {
        let row = CLOSED.replace("01/02/2018 08:00:00 AM", "01/01/2018 12:00:00 AM");
        let plan = plan(&[&row], "la", &[], false);
        let first = plan.accounts().next().unwrap().1;
        assert_eq!((first.status, first.updated), (Status::Closed, first.opened));
        let changed = CLOSED.replacen('1', "2", 1).replace("01/03/2018 08:00:00 AM", "01/01/2018 12:00:00 AM");
        let in_order = CLOSED.replacen('1', "3", 1);
        for last in [false, true] {
            let plan = super::tests::plan(&[&row, &changed, &in_order], "la", &[], last);
            assert_eq!(
                (plan.cases(), plan.too_early),
                (3, 2),
                "what it was told otherwise than the file says is counted"
            );
        }
    }

    #[test]
    fn each_goes_to_the_lowest_node_that_stands_for_its_place() {
        let known = ["la", "la/south-apc", "la/south-apc/n-nc", "la/other-apcs", "la/other-apcs/other-councils"];
        let elsewhere = CLOSED.replacen('1', "2", 1).replace("South APC", "").replace("N NC", "");
        let p = plan(&[CLOSED, &elsewhere], "la", &known, true);
        let nodes: Vec<_> = p.nodes.iter().map(Address::as_str).collect();
        assert_eq!(nodes, ["la/south-apc/n-nc", "la/other-apcs/other-councils"]);
        // Asked at a street, only what belongs there is brought; the rest is counted.
        let p = plan(&[CLOSED, &elsewhere], "la/south-apc", &["la/south-apc", "la/south-apc/n-nc"], true);
        assert_eq!((p.cases(), p.skipped["of another part of the city"]), (1, 1));
    }

    #[test]
    fn a_row_that_is_no_case_is_counted_with_its_reason() {
        let strange = CLOSED.replacen('1', "3", 1).replace("Closed", "Lost");
        let p = plan(&[CLOSED, CLOSED, &strange, "4,too,few"], "la", &[], true);
        let skipped: Vec<_> = p.skipped.iter().map(|(label, n)| (label.as_str(), *n)).collect();
        assert_eq!(skipped, [("same id twice", 1), ("status not known", 1), ("wrong number of fields", 1)]);
        assert_eq!((p.rows, p.cases()), (4, 1));
    }
}
