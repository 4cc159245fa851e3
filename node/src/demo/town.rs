//! Residents and those who help them: a press, a few appeals, and what becomes of them; told to the
//! nodes by HTTP as their apps and desks would. Blocking: each call has a deadline.

use super::api::{Api, Error};
use super::processes::Processes;
use super::tree::Tree;
use citybrain_shared::Tier;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Appeals in a demo: enough for rates, few enough for its minute.
const APPEALS: usize = 9;
/// Until something that is under way has come.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One neighbourhood, and those above it.
#[derive(Clone)]
struct Home {
    leaf: Api,
    community: Api,
    community_address: String,
    street: Api,
}

/// What was pressed, and how soon the city knew.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Press {
    pub case: String,
    pub at: String,
    /// From before the request was sent until the city answered with the case.
    pub to_city_ms: f64,
    /// Somebody at the street said that they are coming, and the neighbourhood knew after this time.
    pub accepted_ms: f64,
}

pub struct Town {
    city: Api,
    homes: Vec<Home>,
    first: String,
    /// Appeals, with the homes that they came from.
    appeals: Vec<(usize, String)>,
}

impl Town {
    pub fn new(tree: &Tree, processes: &Processes) -> Town {
        let api = |place: usize| processes.nodes[place].api.clone();
        let leaves: Vec<usize> = tree.of_tier(Tier::Neighbourhood).collect();
        let homes = leaves.iter().filter_map(|leaf| {
            let above: Vec<usize> = tree.upward(*leaf).collect();
            let (community, street) = (*above.get(1)?, *above.get(2)?);
            let community_address = tree.places[community].address.to_string();
            Some(Home { leaf: api(*leaf), community: api(community), community_address, street: api(street) })
        });
        let first = leaves.first().map_or(String::new(), |leaf| tree.places[*leaf].address.to_string());
        Town { city: api(0), homes: homes.collect(), first, appeals: Vec::new() }
    }

    /// Somebody presses a button, somebody at the street comes; then residents write.
    pub fn open(&mut self) -> Result<Press, Error> {
        // A neighbourhood has its categories from the city; a moment after it has found its way up.
        let is_told =
            |services: &Value| services.as_array().is_some_and(|all| all.iter().any(|s| s["service_code"] == "litter"));
        for home in &self.homes {
            until(&home.leaf, "/open311/v2/services.json", is_told)?;
        }
        let home = &self.homes[0];
        let began = Instant::now();
        let place = "7栋301";
        let sos = json!({ "sos": true, "title": place, "place": { "text": place }, "channel": "button",
            "by": "王大妈", "contact": { "phone": "13900000000" }, "key": "demo-sos" });
        let case = id_of(&patiently(|| home.leaf.post("/v1/cases", &sos))?);
        let shown = format!("/v1/cases/{case}");
        until(&self.city, &shown, |_| true)?;
        let to_city_ms = ms(began);
        let began = Instant::now();
        patiently(|| home.street.post(&format!("{shown}/accept"), &json!({ "by": "李队", "role": "worker" })))?;
        until(&home.leaf, &shown, |c| c["case"]["status"] == "accepted")?;
        let press = Press { case, at: self.first.clone(), to_city_ms, accepted_ms: ms(began) };
        for i in 0..APPEALS {
            let home = i % self.homes.len();
            let new = json!({ "category": "litter", "title": "三号门堆了垃圾", "place": { "text": format!("{i} 号门") },
                "channel": (if i % 2 == 0 { "app" } else { "12345" }), "by": "居民", "key": format!("demo-{i}"),
                "contact": { "name": "居民", "phone": format!("1390000{i:04}") } });
            let answer = patiently(|| self.homes[home].leaf.post("/v1/cases", &new))?;
            self.appeals.push((home, id_of(&answer)));
        }
        Ok(press)
    }

    /// The appeals' cases.
    pub fn cases(&self) -> impl Iterator<Item = &String> {
        self.appeals.iter().map(|(_, case)| case)
    }

    /// The communities, which took the appeals, work on them; the residents say what they think; every
    /// third is still being worked on in the end.
    pub fn work(&self) -> Result<(), Error> {
        for (i, (home, case)) in self.appeals.iter().enumerate() {
            let Home { leaf, community, community_address, .. } = &self.homes[*home];
            let shown = format!("/v1/cases/{case}");
            handle(community, community_address, case)?;
            if i % 3 == 2 {
                continue;
            }
            resolve(community, case, "已清理")?;
            let (solved, satisfied) = if i % 4 == 1 { ("unsolved", "no") } else { ("solved", "yes") };
            let said = json!({ "by": "居民", "role": "resident", "solved": solved, "satisfied": satisfied });
            // Said at the neighbourhood, which holds a copy; it goes to the community.
            until(leaf, &shown, |c| c["case"]["status"] == "resolved")?;
            step(leaf, case, "evaluate", said)?;
            until(community, &shown, |c| c["case"]["status"] == "evaluated")?;
            close(community, case)?;
        }
        Ok(())
    }
}

fn step(at: &Api, case: &str, verb: &str, ask: Value) -> Result<(), Error> {
    at.post(&format!("/v1/cases/{case}/{verb}"), &ask).map(drop)
}

/// The community that `case` was handed to takes it, sends somebody, and he begins.
pub(super) fn handle(community: &Api, address: &str, case: &str) -> Result<(), Error> {
    let is_there = |c: &Value| c["case"]["owner"] == address && c["case"]["handing_to"].is_null();
    until(community, &format!("/v1/cases/{case}"), is_there)?;
    step(community, case, "accept", json!({ "by": "小张", "role": "worker" }))?;
    step(community, case, "dispatch", json!({ "by": "小张", "role": "worker", "unit": "环卫所" }))?;
    step(community, case, "start", json!({ "by": "老赵", "role": "worker", "contacted": true }))
}

pub(super) fn resolve(community: &Api, case: &str, text: &str) -> Result<(), Error> {
    step(community, case, "resolve", json!({ "by": "老赵", "role": "worker", "text": text }))
}

pub(super) fn close(community: &Api, case: &str) -> Result<(), Error> {
    step(community, case, "close", json!({ "by": "站长", "role": "supervisor" }))
}

pub(super) fn ms(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

pub(super) fn id_of(answer: &Value) -> String {
    answer["case"]["id"].as_str().unwrap_or_default().to_owned()
}

/// Asks again while nobody answers: a node may just have been killed. Only for what may be said twice.
pub(super) fn patiently(ask: impl Fn() -> Result<Value, Error>) -> Result<Value, Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(Error::Unreachable { .. }) if Instant::now() < end => std::thread::sleep(LOOK_EVERY * 10),
            told => return told,
        }
    }
}

/// Looks until what is shown fits.
pub(super) fn until(api: &Api, path: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        let told = api.get_json(path);
        match told {
            Ok(value) if fits(&value) => return Ok(value),
            Ok(value) if Instant::now() > end => {
                return Err(api.wrong(path, format!("it stays {}", value["case"]["status"])));
            }
            Err(e) if Instant::now() > end => return Err(e),
            _ => std::thread::sleep(LOOK_EVERY),
        }
    }
}
