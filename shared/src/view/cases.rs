//! Cases and their rates.

use super::{Alarm, GroupBy};
use crate::Address;
use crate::case::{Case, Coming, Contact, Entry, Kind, NotComing, Place, Role, Status, Verb, Words};
use crate::config::cases::Cases as Settings;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

views! {
    Cases = "citybrain.cases/1",
    CaseShown = "citybrain.case/1",
    Rates = "citybrain.rates/1",
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cases {
    /// Newest first.
    pub cases: Vec<Case>,
    /// That fit the question, on this page or not.
    pub fit: u64,
    /// Of them those of nodes above and beside, where they are counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fit_elsewhere: u64,
    /// Of this node and of those below it, whatever the question.
    pub open: u64,
    pub overdue: u64,
    /// Open ones of nodes above and beside, as far as they are known here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub open_elsewhere: u64,
    /// Whom to call, by case: of those that ask for one service, and only for workers and supervisors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contacts: BTreeMap<String, Contact>,
    /// Who comes to a press whose owner has not answered yet, by case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coming: BTreeMap<String, Vec<Coming>>,
    /// That whoever has accepted a press does not come, whose owner has not answered that yet, by case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_coming: BTreeMap<String, NotComing>,
    /// Of those that ask for one service: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Address>,
    /// What asks for a service of that code and is not in the list, where none was named whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_others: Option<OfOthers>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<Away>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    /// Where the next page goes on: `after=…`; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Cases that would fit if they did not ask for a service of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OfOthers {
    pub cases: u64,
    /// One of those nodes.
    pub such_as: Address,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
pub(super) fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A case, with all that the node knows of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaseShown {
    pub case: Case,
    /// Oldest first.
    pub history: Vec<Entry>,
    pub overdue: bool,
    /// What others call where it stands.
    pub words: Words,
    /// What it takes now, of what whoever asks may ask for.
    pub allowed: Vec<Verb>,
    /// The node has lost some of what it knew: this is how the case stood then, and it may have gone on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// What it waits for: then it goes on, and what it asks for is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    /// The node that was asked to do what was wanted here; empty when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Address>,
    /// What this node asked for and has no good answer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<CaseWish>,
    /// Who comes to a press whose owner has not answered yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coming: Vec<Coming>,
    /// That whoever has accepted a press does not come, whose owner has not answered that yet. `case` is as that said
    /// last; `overdue`, `words` and `allowed` are as if nobody had accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_coming: Option<NotComing>,
    /// Where a call for help is by now, by a word that its owner has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<Place>,
    /// Whom to call is forgotten here; the case's owner has not answered yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten_here: bool,
    /// Only for workers and supervisors, and only where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// It is kept here, and whoever asks may not see it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contact_withheld: bool,
    /// Open cases that may be about the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub similar: Vec<SimilarCase>,
    /// The alarm that it was opened beside, as it is now, if this node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
}

/// What tells whether another case is about the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SimilarCase {
    pub id: String,
    pub title: String,
    /// Its name, or its code where that has none.
    pub category: String,
    pub status: Status,
    pub owner: Address,
    pub opened: DateTime<Utc>,
    /// From the case that is shown; left out where one of the two has no coordinates: then their places are
    /// called the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_m: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaseWish {
    /// Its name: once it is done, that of its line in the history (`wish`).
    pub id: String,
    pub verb: Verb,
    pub by: String,
    pub to: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What is needed to open one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CaseNew {
    /// Code or name.
    pub category: String,
    pub title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governance: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub channel: String,
    /// Answers to the category's form; of several choices with commas between them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, String>,
    /// Pictures and the like: http or https URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<String>,
    pub contact: Contact,
    pub by: String,
    /// As what he speaks. Of an operator who says whom to call, and not by which name, it is the resident's own
    /// word unless this says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Of the asker's own; asked twice with the same one, today or tomorrow, it opens one case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Of the first dispatch, in the calendar's zone; from short to long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RatePeriod {
    Day,
    Month,
    Year,
    All,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rates {
    pub by: GroupBy,
    pub period: RatePeriod,
    /// By period, then best score first.
    pub rows: Vec<RateRow>,
    pub total: RateRow,
    /// What the score is made of.
    pub weights: RateWeights,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<CasesGone>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<Away>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaited>,
    pub at: DateTime<Utc>,
}

/// A node that its parent does not hear: what it, and those below it, have done since it was heard last is not in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Away {
    pub node: Address,
    pub last_heard: DateTime<Utc>,
}

/// The node's folder is new, or has lost some of what it knew, and others have not told it yet what they know: that is
/// not in the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Awaited {
    pub node: Address,
    /// Its own cases that wait, as far as they are known.
    pub cases: u64,
    /// It has not lost all.
    pub knows_some: bool,
    /// The parent has not said all yet.
    pub parent: bool,
    /// Nodes below whose word is needed, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Address>,
    /// How many more there are than `nodes` says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nodes_more: u64,
}

impl Awaited {
    /// Nodes that an answer names.
    pub const NODES: usize = 20;

    /// Of whom its `cases`, or `alarms`, wait for what.
    pub fn sentence(&self, what: &str) -> String {
        const NAMED: usize = 5;
        if self.parent {
            return format!("its {what} wait until the parent has said what it knows of them");
        }
        if self.nodes.is_empty() {
            return format!("what others know of its {what} is being taken up");
        }
        let names: Vec<&str> = self.nodes.iter().take(NAMED).map(Address::as_str).collect();
        let more = self.nodes_more + self.nodes.len().saturating_sub(NAMED) as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("its {what} wait for the word of {}{more}, who may know more of them", names.join(", "))
    }

    /// The same, and why.
    pub fn whole(&self, what: &str) -> String {
        let why = match (self.knows_some, self.parent) {
            (true, _) => "has lost some of what it knew",
            // Whether there was another box before, the parent has to say.
            (false, true) => "is new",
            (false, false) => "is in place of a box that lost its disk",
        };
        format!("{} {why}; {}", self.node, self.sentence(what))
    }

    /// What is said beside a list.
    pub fn lacking(&self, what: &str) -> String {
        format!("some may be missing here, or old: {}", self.whole(what))
    }

    /// What to type, to see how far it is.
    pub fn hint(&self) -> String {
        format!("`citybrain why {}` says how far that is", self.node)
    }

    /// For whoever is told nothing of the nodes.
    pub fn without_nodes(self) -> Awaited {
        Awaited { cases: 0, nodes: Vec::new(), nodes_more: 0, ..self }
    }
}

/// Closed cases that gave way to newer ones at this node, and are in no count of it any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CasesGone {
    pub cases: u64,
    /// The latest moment at which one of them was opened or dispatched.
    pub upto: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RateWeights {
    pub response: f64,
    pub solution: f64,
    pub satisfaction: f64,
    pub partly_solved: f64,
    pub mostly_is_satisfied: bool,
}

impl RateWeights {
    pub fn of(settings: &Settings) -> RateWeights {
        RateWeights {
            response: settings.weight_response,
            solution: settings.weight_solution,
            satisfaction: settings.weight_satisfaction,
            partly_solved: settings.partly_solved,
            mostly_is_satisfied: settings.mostly_is_satisfied,
        }
    }

    /// The same settings, weighed by these.
    pub fn in_place_of(self, settings: Settings) -> Settings {
        Settings {
            weight_response: self.response,
            weight_solution: self.solution,
            weight_satisfaction: self.satisfaction,
            partly_solved: self.partly_solved,
            mostly_is_satisfied: self.mostly_is_satisfied,
            ..settings
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RateRow {
    pub key: String,
    #[serde(flatten)]
    pub now: PeriodRates,
    /// 万人诉求比: appeals to 10,000 people, where the key's node says how many live there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeals_per_10000: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people: Option<u64>,
    /// The same of the period before 环比, and of a year before 同比, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PeriodRates>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year_before: Option<PeriodRates>,
}

/// The rates of one period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PeriodRates {
    pub period: String,
    #[serde(flatten)]
    pub counts: RateCounts,
    /// 0 to 1; none while nothing can be divided by.
    pub response: Option<f64>,
    pub solution: Option<f64>,
    pub satisfaction: Option<f64>,
    /// 0 to 100.
    pub score: Option<f64>,
    /// 准确派单率: those that nobody has sent back, of all that were dispatched.
    pub accurate_dispatch: Option<f64>,
    /// 结案率, 按期结案率: closed, and closed in time, of those whose limit fell in the period.
    pub closing: Option<f64>,
    pub closing_in_time: Option<f64>,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Exact counts: every rate can be made from them, and they add up.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(default)]
        pub struct RateCounts { $($(#[$doc])* pub $name: u64),* }

        impl RateCounts {
            pub fn fields(&self) -> Vec<u64> {
                vec![$(self.$name),*]
            }

            pub fn fields_mut(&mut self) -> Vec<&mut u64> {
                vec![$(&mut self.$name),*]
            }
        }
    };
}

counts! {
    /// Dispatched for the first time in the period; everything below but the last three is of these.
    dispatched,
    /// Not counted in any rate: 剔除, withdrawn, rejected, merged into another.
    excluded,
    withdrawn,
    rejected,
    merged,
    closed,
    /// Over the limit for the solution.
    overdue,
    /// Signed for, and the resident called, in time.
    response_kept,
    /// Those with a response limit.
    response_of,
    /// Of them: their limit still runs. The rate has them as not kept until somebody has called.
    response_open,
    response_without_limit,
    solved,
    partly_solved,
    unsolved,
    /// Nobody asked yet, or nobody answered.
    unanswered,
    /// Of them: asked, and nobody answered.
    asked_in_vain,
    satisfied,
    mostly_satisfied,
    dissatisfied,
    returned,
    reworked,
    reopened,
    /// Residents' appeals, the ones not counted in rates among them.
    appeals,
    /// 应结案: the limit for their solution fell in the period, and has passed. Not those left out of rates.
    due,
    due_closed,
    /// Closed before that limit.
    due_closed_in_time,
}
