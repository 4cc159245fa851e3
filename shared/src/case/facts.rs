//! What is known of a case: its clocks, its place, and who said what of it.

use super::{Booked, ClosedReason, Satisfied, Seat, Solved, Status};
use crate::config::cases::{Category, Limit, Unit};
use crate::{Address, Tier};
use chrono::{DateTime, Datelike, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A time of a case, from whoever says it. What lies beyond the years that people write would be counted
/// on with, and past the end of the calendar.
pub(super) fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    let at = DateTime::<Utc>::deserialize(from)?;
    if (1..=9999).contains(&at.year()) { Ok(at) } else { Err(D::Error::custom("its year is not 1 to 9999")) }
}

pub(super) fn some_moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(Deserialize)]
    struct Moment(#[serde(deserialize_with = "moment")] DateTime<Utc>);
    Option::<Moment>::deserialize(from).map(|at| at.map(|Moment(at)| at))
}

/// A clock of a case. The limits are those of its category at the node that started it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Clock {
    /// `response`, `dispatch`, `solution`, `climb`, `assist:ID`.
    pub name: String,
    /// As in config: `4wh`, `2wd`, `24h`.
    pub limit: String,
    #[serde(deserialize_with = "moment")]
    pub started: DateTime<Utc>,
    /// `None` while one that had not passed is suspended, and when it was sent back in time.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// What was left of it when it was suspended, in the time of its own kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_us: Option<i64>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub stopped: Option<DateTime<Utc>>,
    /// Its limit passed while it ran; when that was seen.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub missed: Option<DateTime<Utc>>,
    /// A limit that had passed when the clock was begun anew or extended, the first of them: the period in which it
    /// counts. Of the response to a call for help that calls again: the first limit, kept or not.
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub due_before: Option<DateTime<Utc>>,
    /// It was missed before it was begun anew or extended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missed_before: bool,
}

/// The clock until somebody has signed for a case and called the resident.
pub const RESPONSE: &str = "response";
/// The clock until it is dispatched.
pub const DISPATCH: &str = "dispatch";
/// The clock until the handler's answer.
pub const SOLUTION: &str = "solution";
/// The clock from that answer until the resident's word on it 回访.
pub const CALL_BACK: &str = "call_back";
/// The clock of a press that nobody has accepted.
pub const CLIMB: &str = "climb";
/// Before the id of a unit that was summoned.
const ASSIST: &str = "assist:";

/// The clock of a unit that was summoned.
pub fn assist_clock(id: &str) -> String {
    format!("{ASSIST}{id}")
}

impl Clock {
    pub fn is_assist(&self) -> bool {
        self.name.starts_with(ASSIST)
    }

    /// Does it run in working time? One that was extended (`4wh+2d`) does if any part of it does.
    pub fn is_working(&self) -> bool {
        let is_working = |part: &str| Limit::parse(part).is_ok_and(|l| !matches!(l.unit, Unit::Clock(..)));
        self.limit.split('+').any(is_working)
    }

    /// Is it a limit of the case itself? That nobody came to a press at once is none, and a unit that was
    /// summoned has its own.
    pub fn is_limit(&self) -> bool {
        self.name != CLIMB && !self.is_assist()
    }

    pub fn runs(&self) -> bool {
        self.stopped.is_none() && self.due.is_some()
    }

    /// Stopped in time, and never missed.
    pub fn is_kept(&self) -> bool {
        !self.missed_before && matches!((self.stopped, self.due), (Some(stopped), Some(due)) if stopped <= due)
    }

    /// By which limit it is counted: whoever begins the clock anew, or extends it, takes none that has passed out of
    /// its period.
    pub fn counted_due(&self) -> Option<DateTime<Utc>> {
        self.due_before.or(self.due)
    }

    /// Over its limit: it ran past it, or runs past it now.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.due.is_some_and(|due| self.stopped.unwrap_or(now) > due)
    }
}

/// Where it is. WGS84.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Place {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
}

/// As people read it: `3号门 (30.698, 103.836)`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text.as_str(), self.lat.zip(self.lon)) {
            (text, None) => f.write_str(text),
            ("", Some((lat, lon))) => write!(f, "({lat}, {lon})"),
            (text, Some((lat, lon))) => write!(f, "{text} ({lat}, {lon})"),
        }
    }
}

/// Metres to one degree of latitude.
const DEGREE_M: f64 = 111_195.0;

impl Place {
    /// How far the other is from here, where both say where they are in degrees; true to a metre for places
    /// of one town.
    pub fn metres_to(&self, other: &Place) -> Option<u64> {
        let ((lat, lon), (to_lat, to_lon)) = (self.lat.zip(self.lon)?, other.lat.zip(other.lon)?);
        let north = to_lat - lat;
        let east = (to_lon - lon) * f64::midpoint(lat, to_lat).to_radians().cos();
        Some((north.hypot(east) * DEGREE_M).round() as u64)
    }
}

/// What a category asked of whoever deals with its cases, when this one was opened: it goes with the case, and no
/// node asks its own catalogue again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseTerms"))]
pub struct Terms {
    /// From submission, until somebody has signed for it and called the resident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Limit>,
    /// From acceptance, or a return, until dispatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Limit>,
    /// From dispatch, or a check that failed, until the handler's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solution: Option<Limit>,
    /// From the handler's answer, until the resident's word or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_back: Option<Limit>,
    /// What the handler must show, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// The highest tier that is told whom to call; default: only nodes that have the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_reach: Option<Tier>,
    /// It is in no rate, wherever it is counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}

impl Terms {
    pub fn of(category: &Category) -> Terms {
        let Category { response, dispatch, solution, call_back, contact_reach, counted, .. } = *category;
        let evidence = category.evidence.clone();
        Terms { response, dispatch, solution, call_back, evidence, contact_reach, excluded: !counted }
    }
}

impl Place {
    /// Has it both degrees or neither, and such as there are?
    pub fn is_one(&self) -> bool {
        match (self.lat, self.lon) {
            (Some(lat), Some(lon)) => is_on_earth(lat, lon),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Latitude -90 to 90, longitude -180 to 180 degrees.
pub fn is_on_earth(lat: f64, lon: f64) -> bool {
    lat.abs() <= 90.0 && lon.abs() <= 180.0
}

/// What the handler reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outcome {
    pub by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    pub solved: Solved,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// `photo-after=https://…`: references, not the things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// What the verifier found on the spot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseFinding"))]
pub struct Finding {
    pub by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    pub passed: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// What the resident says. Without `solved` nobody could be asked, or nobody answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseVerdict"))]
pub struct Verdict {
    pub by: String,
    /// A resident said so; otherwise somebody notes what is thought.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_residents: bool,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solved: Option<Solved>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfied: Option<Satisfied>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Verdicts, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "VerdictTally"))]
#[serde(default)]
pub struct Tally {
    pub solved: u32,
    pub partly_solved: u32,
    pub unsolved: u32,
    pub satisfied: u32,
    pub mostly_satisfied: u32,
    pub dissatisfied: u32,
}

impl Tally {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    pub fn is_empty(&self) -> bool {
        *self == Tally::default()
    }

    /// A round: what a resident says, and what somebody else notes, count both where they differ.
    pub fn add(&mut self, verdict: Option<&Verdict>, other: Option<&Verdict>) {
        let one = |n: &mut u32| *n = n.saturating_add(1);
        let said = [verdict, other].map(|v| v.map_or((None, None), |v| (v.solved, v.satisfied)));
        let [(solved, satisfied), (other_solved, other_satisfied)] = said;
        for solved in [solved, other_solved.filter(|other| solved != Some(*other))].into_iter().flatten() {
            match solved {
                Solved::Solved => one(&mut self.solved),
                Solved::Partly => one(&mut self.partly_solved),
                Solved::Unsolved => one(&mut self.unsolved),
            }
        }
        for satisfied in [satisfied, other_satisfied.filter(|other| satisfied != Some(*other))].into_iter().flatten() {
            match satisfied {
                Satisfied::Yes => one(&mut self.satisfied),
                Satisfied::Mostly => one(&mut self.mostly_satisfied),
                Satisfied::No => one(&mut self.dissatisfied),
            }
        }
    }
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "CaseEnding"))]
pub struct Ending {
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ClosedReason>,
}

impl Ending {
    /// Has somebody worked on the matter, with whatever result? Otherwise it was taken back or refused.
    pub fn is_dealt_with(&self) -> bool {
        self.status == Status::Closed && matches!(self.reason, Some(ClosedReason::Solved | ClosedReason::Unsolved))
    }
}

/// Something that needs a second person's word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Approved {
    pub by: String,
    pub approved_by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    pub reason: String,
}

/// A unit that was summoned 吹哨; its clock is `assist:ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assist {
    pub id: String,
    pub unit: String,
    /// The unit's node, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Address>,
    #[serde(deserialize_with = "moment")]
    pub asked: DateTime<Utc>,
    /// Who summoned it, and so rates it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    pub reason: String,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub reported: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reported_by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// 1 (bad) to 5 (good), by the one who summoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<u8>,
}

/// Somebody comes to a press whose own box has not said so: it may be dead, or cut off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Coming {
    /// Where it was accepted.
    pub node: Address,
    pub by: String,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    /// Of the letter that asks the owner to accept it.
    pub wish: String,
    /// The case as it was known there.
    pub term: u32,
    pub version: u32,
}

/// Somebody says of a press that whoever has accepted it does not come, or that it is not over though it is closed, and
/// its own box has not answered that: nobody comes until somebody accepts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Denial {
    /// Who says so: whoever has accepted it himself, or a supervisor; that it is not over, a resident, too.
    pub by: String,
    /// Where he has said it.
    pub node: Address,
    #[serde(deserialize_with = "moment")]
    pub at: DateTime<Utc>,
    /// The name of the wish by which he did: its owner's answer has it.
    pub wish: String,
}

/// A requested service, and the appointment or the seats that go with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Booking {
    /// Whose service it is; it alone counts.
    pub node: Address,
    pub service: String,
    pub name: String,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "some_moment", skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    pub seat: Seat,
    pub seats: u32,
    /// Answers that are nobody's secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, String>,
    /// Where it is given, as its node said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub state: Booked,
}

/// Where a case comes from that another system ran, or runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Imported {
    /// That system, as events' `source` names it.
    pub source: String,
    /// Its number there.
    pub id: String,
    /// When it was last changed there.
    #[serde(deserialize_with = "moment")]
    pub updated: DateTime<Utc>,
    /// The case's version since then; a higher one means that it is now dealt with here.
    pub version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_in_metres_also_far_north_and_none_without_degrees() {
        let at = |lat, lon| Place { text: String::new(), lat: Some(lat), lon: Some(lon) };
        // A degree is 111,195 m to the north; to the east half of it, or nearly so, at 60 degrees.
        assert_eq!(at(30.698, 103.836).metres_to(&at(30.699, 103.836)), Some(111));
        assert_eq!(at(60.0, 10.0).metres_to(&at(60.0, 10.01)), Some(556));
        assert_eq!(at(30.0, 103.0).metres_to(&at(30.0003, 103.0004)), Some(51));
        assert_eq!(at(30.0, 103.0).metres_to(&at(30.0, 103.0)), Some(0));
        assert_eq!(at(30.0, 103.0).metres_to(&Place { text: "三号门".into(), ..Place::default() }), None);
    }
}
