//! The account for programs: one JSON object.

use super::account::{Committed, Latency};
use super::case_account::CaseAccount;
use super::data::Script;
use super::errands::Told;
use super::hook::HookAccount;
use super::processes::Processes;
use super::town::Press;
use super::{DemoArgs, Played};
use crate::replay::Skipped;
use citybrain_shared::view::CasesBrought;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// `--json`.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    input: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    ok: bool,
    nodes: usize,
    rows: u64,
    published: u64,
    urgent: u64,
    acknowledged: u64,
    committed: &'a Committed,
    missing: u64,
    doubled: u64,
    out_of_order: u64,
    strayed: u64,
    notice: NoticeReport,
    cases: &'a Town,
    errands: Option<&'a Told>,
    webhooks: &'a HookAccount,
    killed: &'a [String],
    latency_ms: Option<Latency>,
    latency_urgent_ms: Option<Latency>,
    latency_undisturbed_ms: Option<Latency>,
    skipped: &'a BTreeMap<String, u64>,
    first_skipped: &'a [Skipped],
    holes: BTreeMap<&'a str, u64>,
    findings: &'a [String],
    tree: Vec<NodeReport<'a>>,
    /// The folder, if it is still there.
    dir: Option<String>,
    wall_s: f64,
}

/// What was done with cases, and what the nodes say of it in the end.
#[derive(Debug, Default, Serialize)]
pub struct Town {
    pub sos: Press,
    /// The file's rows as cases, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brought: Option<CasesBrought>,
    #[serde(flatten)]
    pub account: CaseAccount,
    /// How many stand how, at the city.
    pub by_status: BTreeMap<String, u64>,
    /// The city's, as `citybrain rates` gives them.
    pub rates: Value,
}

#[derive(Serialize)]
struct NoticeReport {
    targets: u64,
    delivered: u64,
    /// Neighbourhoods without exactly one copy.
    wrong: u64,
}

#[derive(Serialize)]
struct NodeReport<'a> {
    address: &'a str,
    name: &'a str,
    events: u64,
    mqtt_port: u16,
    api_port: u16,
}

/// The account as one JSON object; `dir` is the folder, if it stays.
pub(super) fn json(
    script: &Script,
    args: &DemoArgs,
    played: &Played,
    processes: &Processes,
    dir: Option<&Path>,
    wall_s: f64,
) -> String {
    let Played { account, town, errands, webhooks, killed } = played;
    let tree = script.tree.places.iter().zip(&processes.nodes).map(|(place, node)| NodeReport {
        address: place.address.as_str(),
        name: &place.name,
        events: place.events,
        mqtt_port: node.mqtt,
        api_port: node.api_port,
    });
    let report = Report {
        schema: "citybrain.demo/1",
        input: &script.input,
        seed: args.input.is_none().then_some(args.seed),
        ok: played.is_good(),
        nodes: script.tree.places.len(),
        rows: script.rows,
        published: account.published,
        urgent: account.urgent,
        acknowledged: account.acknowledged,
        committed: &account.committed,
        missing: account.missing,
        doubled: account.doubled,
        out_of_order: account.out_of_order,
        strayed: account.strayed,
        notice: NoticeReport {
            targets: account.notice.targets,
            delivered: account.notice.delivered,
            wrong: account.notice_wrong,
        },
        cases: town,
        errands: errands.as_ref(),
        webhooks,
        killed,
        latency_ms: account.latency,
        latency_urgent_ms: account.latency_urgent,
        latency_undisturbed_ms: account.latency_undisturbed,
        skipped: &script.skipped,
        first_skipped: &script.first_skipped,
        holes: script.holes.iter().map(|(column, n)| (column.as_str(), *n)).collect(),
        findings: &account.findings,
        tree: tree.collect(),
        dir: dir.map(|d| d.display().to_string()),
        wall_s,
    };
    serde_json::to_string(&report).expect("a report has only text keys")
}
