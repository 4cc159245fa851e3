//! What else is asked of a city while a community is away: readings that a rule watches, the last seats of a
//! service, a request by Open311. All of it is told to the neighbourhoods by HTTP, as gateways and apps
//! would. Blocking: each call has a deadline.

use super::account::Record;
use super::api::Api;
use super::processes::Processes;
use super::town::{self, ms, opened, patiently, until, until_case, until_json};
use super::tree::Tree;
use crate::ask::Fail;
use chrono::{DateTime, Utc};
use citybrain_shared::Tier;
use citybrain_shared::case::{Booked as Seat, Solved, Status};
use citybrain_shared::view;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Instant;

/// The rule of `config/demo/neighbourhood.toml` that watches this gauge: from 450 mm on, over below 400.
const RULE: &str = "flood";
const GAUGE: &str = "gauge";
/// The second batch begins to fall.
const RISING: [i64; 3] = [380, 430, 470];
const FALLING: [i64; 3] = [460, 420, 390];
const READINGS: usize = RISING.len() + FALLING.len();
const SERVICE: &str = "haircut";
/// What a handler says, and who the app of the request is to the node.
const CLEANED: &str = "已清理";
const BATCH: &str = "application/cloudevents-batch+json";

/// Who is asked.
pub struct Errands {
    /// From the neighbourhood up to the city.
    way: Vec<Api>,
    /// Another neighbourhood of the same community, if it has one.
    neighbour: Api,
    address: String,
    community: String,
}

/// What was asked, and after how long it came.
pub struct Done {
    errands: Errands,
    /// The appointment that more residents asked for than it has seats.
    slot: DateTime<Utc>,
    seats: u64,
    bookings: Vec<String>,
    filed: String,
    alarm_to_city_ms: f64,
    alarm_cleared_ms: f64,
    closed_ms: f64,
}

/// What the nodes say of it in the end.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Told {
    /// The neighbourhood, and the community that it belongs to.
    pub at: String,
    pub community: String,
    pub alarm: Alarm,
    pub booking: Booked,
    pub open311: Filed,
    pub batches: Batches,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Alarm {
    /// From before the readings were sent until the city showed the alarm, and from before those that end it
    /// until the city showed that.
    pub to_city_ms: f64,
    pub cleared_ms: f64,
    /// Nodes from the neighbourhood to the city that show it, raised once and over.
    pub at_nodes: usize,
    pub of_nodes: usize,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Booked {
    pub service: String,
    pub seats: u64,
    pub asked: u64,
    /// What the community says of them.
    pub booked: u64,
    pub refused: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Filed {
    pub case: String,
    /// From the resident's verdict until the city showed the request closed.
    pub closed_ms: f64,
    /// Nodes from the neighbourhood to the city that show it closed, with the resident's verdict.
    pub at_nodes: usize,
    pub of_nodes: usize,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Batches {
    pub readings: usize,
    /// Nodes from the neighbourhood to the city whose log has each of them once.
    pub at_nodes: usize,
    pub of_nodes: usize,
}

impl Told {
    pub fn is_good(&self) -> bool {
        self.wrong().is_empty()
    }

    /// What is not as it should be, a line each.
    pub fn wrong(&self) -> Vec<String> {
        let Told { alarm, booking, open311, batches, .. } = self;
        let mut wrong = Vec::new();
        if alarm.at_nodes != alarm.of_nodes {
            wrong.push(format!("of {} nodes {} show the alarm raised once and over", alarm.of_nodes, alarm.at_nodes));
        }
        let Booked { seats, asked, booked, refused, .. } = booking;
        if booked != seats || booked + refused != *asked {
            wrong.push(format!("{asked} asked for {seats} seats: {booked} booked, {refused} refused"));
        }
        if open311.at_nodes != open311.of_nodes {
            wrong.push(format!(
                "of {} nodes {} show the request closed with its verdict",
                open311.of_nodes, open311.at_nodes
            ));
        }
        if batches.at_nodes != batches.of_nodes {
            wrong.push(format!("of {} nodes {} have each reading once", batches.of_nodes, batches.at_nodes));
        }
        wrong
    }
}

impl Errands {
    /// In that community; `None` where it has no neighbourhood.
    pub fn new(tree: &Tree, processes: &Processes, community: usize) -> Option<Errands> {
        let api = |place: usize| processes.nodes[place].api.clone();
        let mut leaves = tree.of_tier(Tier::Neighbourhood).filter(|leaf| tree.places[*leaf].parent == Some(community));
        let leaf = leaves.next()?;
        Some(Errands {
            way: tree.upward(leaf).map(api).collect(),
            neighbour: api(leaves.next().unwrap_or(leaf)),
            address: tree.places[leaf].address.to_string(),
            community: tree.places[community].address.to_string(),
        })
    }

    fn leaf(&self) -> &Api {
        &self.way[0]
    }

    fn at_community(&self) -> &Api {
        &self.way[1]
    }

    fn city(&self) -> &Api {
        &self.way[self.way.len() - 1]
    }

    /// The last appointment that can be had, and how many can have it. To be asked while the community is there.
    pub fn free(&self) -> Result<(DateTime<Utc>, u64), Fail> {
        let path = format!("/v1/services/{SERVICE}?of={}", self.community);
        for node in [self.leaf(), &self.neighbour] {
            until::<view::ServiceShown>(node, &path, |_| true)?;
        }
        let shown: view::ServiceShown = until(self.at_community(), &path, |_| true)?;
        let slot = shown.free.and_then(|free| free.slots.last().map(|slot| (slot.at, slot.free.into())));
        slot.ok_or_else(|| self.at_community().wrong(&path, "it has no appointment"))
    }

    /// All of it: asked at once, and then waited for.
    pub fn run(self, (slot, seats): (DateTime<Utc>, u64)) -> Result<Done, Fail> {
        let began = Instant::now();
        self.read(0, &RISING)?;
        let bookings = self.book(slot, seats + 1)?;
        let filed = self.file()?;
        until(self.city(), &self.alarms(), |told| the_alarm(told).is_some_and(|a| a.active))?;
        let alarm_to_city_ms = ms(began);

        let began = Instant::now();
        self.read(RISING.len(), &FALLING)?;
        // A gateway that has not heard the answer says it once more.
        self.read(RISING.len(), &FALLING)?;
        until(self.city(), &self.alarms(), |told| the_alarm(told).is_some_and(|a| !a.active))?;
        let alarm_cleared_ms = ms(began);
        for case in &bookings {
            until_case(self.at_community(), case, |c| c.booking.as_ref().is_some_and(|b| b.state != Seat::Asked))?;
        }
        let closed_ms = self.handle(&filed)?;
        Ok(Done { errands: self, slot, seats, bookings, filed, alarm_to_city_ms, alarm_cleared_ms, closed_ms })
    }

    /// One batch of readings, whose ids count on from `first`.
    fn read(&self, first: usize, values: &[i64]) -> Result<(), Fail> {
        let reading = |(i, value): (usize, &i64)| {
            json!({
                "specversion": "1.0", "id": format!("demo-{}", first + i), "source": self.source(),
                "type": "city.sensor.water-level", "data": { "value": value, "unit": "mm", "device": GAUGE },
            })
        };
        let batch = Value::from_iter(values.iter().enumerate().map(reading)).to_string();
        patiently(|| self.leaf().post_as::<view::AcceptedBatch>("/v1/events", BATCH, &batch)).map(drop)
    }

    fn source(&self) -> String {
        format!("/{}/{GAUGE}", self.address)
    }

    fn alarms(&self) -> String {
        format!("/v1/alarms?name={RULE}&active=false&address={}", self.address)
    }

    /// So many residents of both neighbourhoods ask for one appointment of their community; the cases.
    fn book(&self, slot: DateTime<Utc>, residents: u64) -> Result<Vec<String>, Fail> {
        let path = format!("/v1/services/{SERVICE}/requests");
        let ask = |i: u64| {
            let at = if i.is_multiple_of(2) { self.leaf() } else { &self.neighbour };
            let wanted = json!({ "of": self.community, "slot": slot, "form": { "floor": "3" }, "by": "居民",
                "key": format!("demo-seat-{i}") });
            opened(|| at.post(&path, &wanted))
        };
        (0..residents).map(ask).collect()
    }

    fn file(&self) -> Result<String, Fail> {
        let form =
            "service_code=litter&lat=30.698&long=103.8368&phone=13900000001&description=%E4%B8%89%E5%8F%B7%E9%97%A8";
        let path = "/open311/v2/requests.json";
        let answer = patiently(|| self.leaf().post_form(path, Some("\"demo-request\""), form))?;
        let id = answer[0]["service_request_id"].as_str();
        id.map(str::to_owned).ok_or_else(|| self.leaf().wrong(path, "it has no `service_request_id`"))
    }

    /// The community works on it, the resident says that it is solved, by Open311, and it is closed; how long
    /// after the resident's word the city's Open311 says so.
    fn handle(&self, case: &str) -> Result<f64, Fail> {
        let community = self.at_community();
        town::handle(community, &self.community, case)?;
        town::resolve(community, case, CLEANED)?;
        let request = format!("/open311/v2/requests/{case}.json");
        until_json(self.leaf(), &request, |all| all[0]["status_notes"] == CLEANED)?;
        let began = Instant::now();
        let verdict = format!("service_request_id={case}&status=FIXED&update_id=demo-verdict");
        patiently(|| self.leaf().post_form("/open311/v2/servicerequestupdates.json", None, &verdict))?;
        until_case(community, case, |c| c.status == Status::Evaluated)?;
        town::close(community, case)?;
        until_json(self.city(), &request, |all| all[0]["status"] == "closed")?;
        Ok(ms(began))
    }
}

impl Done {
    /// Ids of the cases that were opened.
    pub fn cases(&self) -> impl Iterator<Item = &String> {
        self.bookings.iter().chain([&self.filed])
    }

    pub fn say(&self) -> String {
        let Done { errands, alarm_to_city_ms, .. } = self;
        format!("{RULE} at {}: known to the city after {alarm_to_city_ms} ms, and over", errands.address)
    }

    /// Asks the nodes once more.
    pub fn look(&self, tree: &Tree, logs: &[Vec<Record>]) -> Result<Told, Fail> {
        let Done { errands, slot, seats, bookings, filed, .. } = self;
        let nodes = &errands.way;
        let (mut alarm_at, mut closed_at) = (0, 0);
        for node in nodes {
            let alarms = node.get(&errands.alarms())?;
            alarm_at += usize::from(the_alarm(&alarms).is_some_and(|a| !a.active && a.raises == 1));
            let case = node.get::<view::CaseShown>(&shown(filed))?.case;
            let solved = case.verdict.and_then(|verdict| verdict.solved);
            let is_right = case.status == Status::Closed && solved == Some(Solved::Solved);
            closed_at += usize::from(is_right);
        }
        let (mut booked, mut refused) = (0, 0);
        for case in bookings {
            let Some(booking) = errands.at_community().get::<view::CaseShown>(&shown(case))?.case.booking else {
                continue;
            };
            booked += u64::from(booking.state == Seat::Booked && booking.at == Some(*slot));
            refused += u64::from(booking.state == Seat::Refused);
        }
        let ids: HashSet<String> = (0..READINGS).map(|i| format!("demo-{i}")).collect();
        let leaf = tree.find(&errands.address).into_iter();
        let way = leaf.flat_map(|leaf| tree.upward(leaf));
        let at_nodes = way.filter(|place| has_each_once(&logs[*place], &errands.source(), &ids)).count();
        Ok(Told {
            at: errands.address.clone(),
            community: errands.community.clone(),
            alarm: Alarm {
                to_city_ms: self.alarm_to_city_ms,
                cleared_ms: self.alarm_cleared_ms,
                at_nodes: alarm_at,
                of_nodes: nodes.len(),
            },
            booking: Booked { service: SERVICE.into(), seats: *seats, asked: bookings.len() as u64, booked, refused },
            open311: Filed {
                case: filed.clone(),
                closed_ms: self.closed_ms,
                at_nodes: closed_at,
                of_nodes: nodes.len(),
            },
            batches: Batches { readings: ids.len(), at_nodes, of_nodes: nodes.len() },
        })
    }
}

/// Has the log each of these events of a source, and none of them twice?
fn has_each_once(log: &[Record], source: &str, ids: &HashSet<String>) -> bool {
    let there: Vec<&String> =
        log.iter().filter(|r| r.source.as_deref() == Some(source)).filter_map(|r| r.id.as_ref()).collect();
    there.len() == ids.len() && there.into_iter().collect::<HashSet<_>>() == ids.iter().collect()
}

/// The one that the rule has raised of the gauge; a file that is played may have water of its own.
fn the_alarm(told: &view::Alarms) -> Option<&view::Alarm> {
    let mut of_gauge = told.alarms.iter().filter(|alarm| alarm.key == GAUGE);
    of_gauge.next().filter(|_| of_gauge.next().is_none())
}

fn shown(case: &str) -> String {
    format!("/v1/cases/{case}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(id: &str) -> Record {
        Record { source: Some("/g".into()), id: Some(id.into()), ..Record::default() }
    }

    #[test]
    fn a_reading_that_is_lacking_or_there_twice_is_found() {
        let ids = HashSet::from(["1".to_owned(), "2".to_owned()]);
        let other = Record { source: Some("/x".into()), ..reading("1") };
        assert!(has_each_once(&[reading("2"), other, reading("1")], "/g", &ids));
        assert!(!has_each_once(&[reading("1")], "/g", &ids));
        assert!(!has_each_once(&[reading("1"), reading("1")], "/g", &ids));
        assert!(!has_each_once(&[reading("1"), reading("2"), reading("2")], "/g", &ids));
    }

    #[test]
    fn a_seat_that_was_given_twice_an_alarm_that_stays_and_a_request_that_is_open_are_told() {
        let right = Told {
            alarm: Alarm { at_nodes: 4, of_nodes: 4, ..Alarm::default() },
            booking: Booked { seats: 2, asked: 3, booked: 2, refused: 1, ..Booked::default() },
            open311: Filed { at_nodes: 4, of_nodes: 4, ..Filed::default() },
            batches: Batches { readings: 6, at_nodes: 4, of_nodes: 4 },
            ..Told::default()
        };
        assert!(right.is_good());
        let wrong = Told {
            alarm: Alarm { at_nodes: 3, of_nodes: 4, ..Alarm::default() },
            booking: Booked { seats: 2, asked: 3, booked: 3, refused: 0, ..Booked::default() },
            open311: Filed { at_nodes: 0, of_nodes: 4, ..Filed::default() },
            batches: Batches { readings: 6, at_nodes: 2, of_nodes: 4 },
            ..Told::default()
        };
        assert_eq!(wrong.wrong().len(), 4, "{:?}", wrong.wrong());
        let unsure = Told { booking: Booked { booked: 2, refused: 0, ..right.booking }, ..right };
        assert!(!unsure.is_good(), "who was told neither yes nor no still waits");
    }
}
