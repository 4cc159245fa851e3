//! Residents and those who help them: a press, a few appeals, and what becomes of them; told to the
//! nodes by HTTP as their apps and desks would. Blocking: each call has a deadline.

use super::api::Api;
use super::processes::Processes;
use super::tree::Tree;
use crate::ask::Fail;
use citybrain_shared::Tier;
use citybrain_shared::case::{Case, Status};
use citybrain_shared::view::{self, View};
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
    pub fn open(&mut self) -> Result<Press, Fail> {
        // A neighbourhood has its categories from the city; a moment after it has found its way up.
        let is_told =
            |services: &Value| services.as_array().is_some_and(|all| all.iter().any(|s| s["service_code"] == "litter"));
        for home in &self.homes {
            until_json(&home.leaf, "/open311/v2/services.json", is_told)?;
        }
        let home = &self.homes[0];
        let began = Instant::now();
        let place = "7栋301";
        let sos = json!({ "sos": true, "title": place, "place": { "text": place }, "channel": "button",
            "by": "王大妈", "contact": { "phone": "13900000000" }, "key": "demo-sos" });
        let case = opened(|| home.leaf.post("/v1/cases", &sos))?;
        until_case(&self.city, &case, |_| true)?;
        let to_city_ms = ms(began);
        let began = Instant::now();
        patiently(|| step(&home.street, &case, "accept", json!({ "by": "李队", "role": "worker" })))?;
        until_case(&home.leaf, &case, |c| c.status == Status::Accepted)?;
        let press = Press { case, at: self.first.clone(), to_city_ms, accepted_ms: ms(began) };
        for i in 0..APPEALS {
            let home = i % self.homes.len();
            let new = json!({ "category": "litter", "title": "三号门堆了垃圾", "place": { "text": format!("{i} 号门") },
                "channel": (if i % 2 == 0 { "app" } else { "12345" }), "by": "居民", "key": format!("demo-{i}"),
                "contact": { "name": "居民", "phone": format!("1390000{i:04}") } });
            self.appeals.push((home, opened(|| self.homes[home].leaf.post("/v1/cases", &new))?));
        }
        Ok(press)
    }

    /// The appeals' cases.
    pub fn cases(&self) -> impl Iterator<Item = &String> {
        self.appeals.iter().map(|(_, case)| case)
    }

    /// The communities, which took the appeals, work on them; the residents say what they think; every
    /// third is still being worked on in the end.
    pub fn work(&self) -> Result<(), Fail> {
        for (i, (home, case)) in self.appeals.iter().enumerate() {
            let Home { leaf, community, community_address, .. } = &self.homes[*home];
            handle(community, community_address, case)?;
            if i % 3 == 2 {
                continue;
            }
            resolve(community, case, "已清理")?;
            let (solved, satisfied) = if i % 4 == 1 { ("unsolved", "no") } else { ("solved", "yes") };
            let said = json!({ "by": "居民", "role": "resident", "solved": solved, "satisfied": satisfied });
            // Said at the neighbourhood, which holds a copy; it goes to the community.
            until_case(leaf, case, |c| c.status == Status::Resolved)?;
            step(leaf, case, "evaluate", said)?;
            until_case(community, case, |c| c.status == Status::Evaluated)?;
            close(community, case)?;
        }
        Ok(())
    }
}

fn step(at: &Api, case: &str, verb: &str, ask: Value) -> Result<(), Fail> {
    at.post::<view::CaseShown>(&format!("/v1/cases/{case}/{verb}"), &ask).map(drop)
}

/// The community that `case` was handed to takes it, sends somebody, and he begins.
pub(super) fn handle(community: &Api, address: &str, case: &str) -> Result<(), Fail> {
    until_case(community, case, |c| c.owner.as_str() == address && c.handing_to.is_none())?;
    step(community, case, "accept", json!({ "by": "小张", "role": "worker" }))?;
    step(community, case, "dispatch", json!({ "by": "小张", "role": "worker", "unit": "环卫所" }))?;
    step(community, case, "start", json!({ "by": "老赵", "role": "worker", "contacted": true }))
}

pub(super) fn resolve(community: &Api, case: &str, text: &str) -> Result<(), Fail> {
    step(community, case, "resolve", json!({ "by": "老赵", "role": "worker", "text": text }))
}

pub(super) fn close(community: &Api, case: &str) -> Result<(), Fail> {
    step(community, case, "close", json!({ "by": "站长", "role": "supervisor" }))
}

pub(super) fn ms(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// Opens a case, and gives its id.
pub(super) fn opened(ask: impl Fn() -> Result<view::CaseShown, Fail>) -> Result<String, Fail> {
    Ok(patiently(ask)?.case.id)
}

/// Asks again while nobody answers: a node may just have been killed. Only for what may be said twice.
pub(super) fn patiently<T>(ask: impl Fn() -> Result<T, Fail>) -> Result<T, Fail> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(e) if e.failure.error == "unreachable" && Instant::now() < end => std::thread::sleep(LOOK_EVERY * 10),
            told => return told,
        }
    }
}

/// Looks until what is shown fits.
pub(super) fn until<T: View>(api: &Api, path: &str, fits: impl Fn(&T) -> bool) -> Result<T, Fail> {
    until_asked(|| api.get(path), fits, |_| api.wrong(path, "it stays as it is"))
}

pub(super) fn until_case(api: &Api, id: &str, fits: impl Fn(&Case) -> bool) -> Result<(), Fail> {
    let path = format!("/v1/cases/{id}");
    let stays = |shown: &view::CaseShown| api.wrong(&path, format!("it stays {}", shown.case.status));
    until_asked(|| api.get(&path), |shown| fits(&shown.case), stays).map(drop)
}

pub(super) fn until_json(api: &Api, path: &str, fits: impl Fn(&Value) -> bool) -> Result<(), Fail> {
    until_asked(|| api.get_json(path), fits, |_| api.wrong(path, "it stays as it is")).map(drop)
}

fn until_asked<T>(
    ask: impl Fn() -> Result<T, Fail>,
    fits: impl Fn(&T) -> bool,
    stays: impl Fn(&T) -> Fail,
) -> Result<T, Fail> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(value) if fits(&value) => return Ok(value),
            Ok(value) if Instant::now() > end => return Err(stays(&value)),
            Err(e) if Instant::now() > end => return Err(e),
            _ => std::thread::sleep(LOOK_EVERY),
        }
    }
}
