//! `citybrain case import`: the cases that another system ran, brought into a tree, each to the node
//! that it belongs to, with the times that it had there.
//!
//! | module | what it owns |
//! |---|---|
//! | [`plan`] | which case goes where, and in which order its life is told: pure |
//! | here | telling it to the nodes, through the links of the one that is asked |
//!
//! **Promise.** Each row is told to its node and acknowledged after that node's fsync, or counted with
//! its line and reason. Told again (the command was stopped, a node was killed) nothing happens twice:
//! a node takes an account only if it is newer than what it knows. So there is no file that
//! remembers how far it came.

pub mod plan;

use crate::api::road::CHANGE_BYTES_MAX;
use crate::ask::{Fail, Through};
use crate::replay;
use chrono::Utc;
use citybrain_shared::Address;
use citybrain_shared::view::{self, Answer, CaseAccount, CaseImport, CasesBrought, CasesImported, SkippedRow};
use citybrain_shared::words::{grouped, with_causes};
use clap::Args;
use parking_lot::Mutex;
use plan::Plan;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Accounts in one request at most, and their bytes: what goes through the links, with room for who asks.
const TOGETHER: usize = 48;
const TOGETHER_BYTES: usize = CHANGE_BYTES_MAX - 2 * 1024;
/// Nodes that are told something at the same time. One that is away holds up only those that share its turn.
const AT_ONCE: usize = 8;
/// How long one node's answer may take, ms.
const WITHIN_MS: u64 = 5_000;
const PAUSE: Duration = Duration::from_millis(300);
/// Refusals that are told one by one.
const TOLD_MAX: usize = 20;

#[derive(Clone, Debug, Args)]
pub struct Import {
    /// CSV or NDJSON
    pub file: PathBuf,
    /// What its rows mean, with a `[case]` section; a known header needs none
    #[arg(long, value_name = "TOML")]
    pub mapping: Option<PathBuf>,
    /// Offset of the file's local times, such as -08:00; in place of the mapping's own
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub utc_offset: Option<String>,
    /// Every case to the node that is asked, wherever its row says that it belongs
    #[arg(long)]
    pub here: bool,
    /// Only how each case stands now, and not how it came there
    #[arg(long)]
    pub last: bool,
    /// Give up when a node has not answered for so long, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub give_up_after: u64,
    #[command(flatten)]
    pub at: Through,
}

/// What the threads of one import share.
struct Shared {
    done: Mutex<Done>,
    at: Through,
    nodes: Vec<Address>,
    give_up_after: Duration,
}

#[derive(Default)]
struct Done {
    told: u64,
    /// Of the refusals only the first.
    became: CasesImported,
    refused: u64,
    trouble: Option<String>,
    failed: Option<Fail>,
}

type Batch = (usize, Vec<CaseAccount>);

impl Import {
    /// # Errors
    /// The file or its mapping does not read; the node is not reached, or does not let import.
    pub fn bring(self) -> Result<Answer<CasesBrought>, Fail> {
        let plain = |report: miette::Report| {
            let hint = report.help().map_or_else(String::new, |h| h.to_string());
            Fail::usage(with_causes(report.as_ref()), hint)
        };
        let (rows, mapping) =
            replay::open(&self.file, self.mapping.as_deref(), self.utc_offset.as_deref()).map_err(plain)?;
        let mapping = mapping.filter(replay::mapping::Mapping::is_of_cases).ok_or_else(|| {
            Fail::usage(
                format!("nothing says what the rows of {} mean as cases", self.file.display()),
                "give its mapping a [case] section, as in config/replay/la311.toml, and name it with --mapping",
            )
        })?;
        let tree = self.at.node()?.get::<view::Tree>("/v1/tree", &[])?;
        let root = Address::parse(&tree.head.node).map_err(|e| {
            Fail::no("foreign", format!("the node calls itself `{}`: {e}", tree.head.node), "is it a citybrain?")
        })?;
        let known = tree.body.nodes.into_iter().map(|n| n.address).collect();
        let plan = Plan::read(rows, &mapping, &root, if self.here { None } else { Some(known) }, self.last)
            .map_err(|e| Fail::usage(with_causes(&e), "is the file whole?"))?;
        eprintln!(
            "{}: {}; cases: {}, nodes: {}, accounts to tell: {}",
            self.file.display(),
            mapping.title,
            grouped(plan.cases() as u64),
            plan.nodes.len(),
            grouped(plan.len() as u64)
        );
        let shared = Shared {
            done: Mutex::default(),
            at: Through { below: None, within: Some(WITHIN_MS), ..self.at.clone() },
            nodes: plan.nodes.clone(),
            give_up_after: Duration::from_secs(self.give_up_after),
        };
        let began = Instant::now();
        std::thread::scope(|scope| {
            let lanes: Vec<SyncSender<Batch>> = (0..AT_ONCE.min(plan.nodes.len()))
                .map(|_| {
                    let (lane, batches) = sync_channel(2);
                    let shared = &shared;
                    scope.spawn(move || tell_all(shared, &batches));
                    lane
                })
                .collect();
            deal(&plan, &lanes, &shared);
        });
        let Done { told, became, refused, failed, .. } = shared.done.into_inner();
        if let Some(fail) = failed {
            eprintln!("{} accounts were taken before that; the same command goes on", grouped(told));
            return Err(fail);
        }
        let body = CasesBrought {
            file: self.file.display().to_string(),
            rows: plan.rows,
            cases: plan.cases() as u64,
            accounts: told,
            opened: became.opened,
            changed: became.changed,
            known: became.known,
            refused,
            first_refused: became.refused,
            too_early: plan.too_early,
            skipped: plan.skipped,
            first_skipped: plan
                .first_skipped
                .into_iter()
                .map(|s| SkippedRow { line: s.line, reason: s.reason })
                .collect(),
            nodes: plan.nodes.into_iter().zip(plan.per_node).collect(),
            wall_s: (began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        };
        #[allow(clippy::disallowed_methods, reason = "an answer says when it was given")]
        Ok(Answer::new(root.as_str(), Utc::now(), body))
    }
}

/// Gives every account to its node's lane, in the order of the times that they tell of.
fn deal(plan: &Plan, lanes: &[SyncSender<Batch>], shared: &Shared) {
    let mut waiting: HashMap<usize, (usize, Vec<CaseAccount>)> = HashMap::new();
    let mut said = Instant::now();
    for (node, account) in plan.accounts() {
        let bytes = serde_json::to_vec(&account).map_or(0, |b| b.len() + 1);
        let (size, batch) = waiting.entry(node).or_default();
        if !batch.is_empty() && (batch.len() >= TOGETHER || *size + bytes > TOGETHER_BYTES) {
            let full = std::mem::take(batch);
            *size = 0;
            // A lane that is gone has failed, and said why.
            if lanes[node % lanes.len()].send((node, full)).is_err() {
                return;
            }
        }
        let (size, batch) = waiting.entry(node).or_default();
        *size += bytes;
        batch.push(account);
        if said.elapsed() >= Duration::from_secs(5) {
            said = Instant::now();
            let done = shared.done.lock();
            let trouble = done.trouble.as_deref().map(|t| format!("; {t}")).unwrap_or_default();
            eprintln!("{} of {} accounts are taken{trouble}", grouped(done.told), grouped(plan.len() as u64));
        }
    }
    for (node, (_, batch)) in waiting {
        if lanes[node % lanes.len()].send((node, batch)).is_err() {
            return;
        }
    }
}

fn tell_all(shared: &Shared, batches: &Receiver<Batch>) {
    while let Ok((node, cases)) = batches.recv() {
        let count = cases.len() as u64;
        match tell(shared, &shared.nodes[node], &CaseImport { cases }) {
            Ok(became) => {
                let mut done = shared.done.lock();
                done.told += count;
                done.trouble = None;
                let sum = &mut done.became;
                sum.opened += became.opened;
                sum.changed += became.changed;
                sum.known += became.known;
                let room = TOLD_MAX.saturating_sub(sum.refused.len());
                let refused = became.refused.len() as u64;
                sum.refused.extend(became.refused.into_iter().take(room));
                done.refused += refused;
            }
            Err(fail) => {
                shared.done.lock().failed.get_or_insert(fail);
                return;
            }
        }
        if shared.done.lock().failed.is_some() {
            return;
        }
    }
}

/// Tells one node, again and again while it is away.
fn tell(shared: &Shared, to: &Address, body: &CaseImport) -> Result<CasesImported, Fail> {
    let node = Through { below: Some(to.to_string()), ..shared.at.clone() }.node()?;
    let began = Instant::now();
    loop {
        let fail = match node.post::<CasesImported>("/v1/cases/import", body) {
            Ok(answer) => return Ok(answer.body),
            Err(fail) => fail,
        };
        let passes =
            fail.code == 3 || ["busy", "too-many", "unwritable", "stopping"].contains(&fail.failure.error.as_str());
        if !passes || began.elapsed() > shared.give_up_after {
            return Err(fail);
        }
        shared.done.lock().trouble = Some(format!("waiting for {to}: {}", fail.failure.detail));
        std::thread::sleep(PAUSE);
    }
}
