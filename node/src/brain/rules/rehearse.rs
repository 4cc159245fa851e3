//! Rules over recorded events: what would have fired, and why. The events' own `time` is the clock; of what
//! a node has recorded, when it was committed there, which is what its rules went by.

use super::fold::HOPS;
use super::keys::What;
use super::said::{FIRED, Said};
use super::{Rules, alarms};
use chrono::DateTime;
use citybrain_hub::policy::Policy;
use citybrain_hub::state::State;
use citybrain_shared::config::Config;
use citybrain_shared::record::{Direction, Draft, Header, Kind, Origin};
use citybrain_shared::view::{self, Firing, RuleWaits, RulesTested, time_of};
use citybrain_shared::{LogId, Pos};
use serde_json::Value as Json;

const UNREAD_MAX: usize = 100;
const WAITING_MAX: usize = 100;

/// Runs the config's rules over lines of CloudEvents JSON, or of what `citybrain events --json` gives;
/// each with its number in the file. One that could not even be read says why.
pub fn rehearse(config: &Config, lines: impl Iterator<Item = (u64, Result<String, String>)>) -> RulesTested {
    let me = config.node.address.as_str();
    let mut stage = Stage { rules: Rules::new(config), state: State::default(), pos: Pos::ZERO, fired: Vec::new() };
    let (mut events, mut left_out, mut unread, mut unread_more) = (0, 0, Vec::new(), 0);
    let mut clock = i64::MIN;
    for (number, line) in lines {
        if line.as_ref().is_ok_and(|l| l.trim().is_empty()) {
            continue;
        }
        match line.and_then(|l| read(&l)) {
            Ok(event) => {
                clock = clock.max(event.at_us);
                stage.until(clock);
                if event.is_concluded_by(me) {
                    left_out += 1;
                } else {
                    stage.event(&event, clock);
                    events += 1;
                }
            }
            Err(why) if unread.len() < UNREAD_MAX => unread.push(format!("line {number}: {why}")),
            Err(_) => unread_more += 1,
        }
    }
    let (waiting, waiting_more) = waiting(&stage.rules);
    let view::Rules { rules, calendar, .. } = stage.rules.view();
    RulesTested { events, unread, unread_more, left_out, fired: stage.fired, waiting, waiting_more, rules, calendar }
}

/// What the end of the events has cut short.
fn waiting(rules: &Rules) -> (Vec<RuleWaits>, u64) {
    let mut all = Vec::new();
    for (index, rule) in (0..).zip(&rules.set.rules) {
        for (key, state) in rules.memories.keys(index) {
            let what = match state.due.map(|due| due.what) {
                Some(What::Held) => "held",
                Some(What::Absent) => "absent",
                Some(What::Over) => "over",
                None if !state.on && state.held.is_some() => "alarm",
                Some(What::Title) | None => continue,
            };
            let (rule, key, what) = (rule.name.clone(), key.clone(), what.to_owned());
            all.push(RuleWaits { rule, key, what, until: state.due.map(|due| time_of(due.at_us)) });
        }
    }
    all.sort_by(|a, b| {
        (a.until.is_none(), a.until, &a.rule, &a.key).cmp(&(b.until.is_none(), b.until, &b.rule, &b.key))
    });
    let more = all.len().saturating_sub(WAITING_MAX);
    all.truncate(WAITING_MAX);
    (all, more as u64)
}

struct Event {
    kind: String,
    origin: Option<String>,
    at_us: i64,
    json: Json,
}

impl Event {
    /// Is it what that node's own rules have made? Those that are tested make it anew, if they do. What a person has
    /// ended they cannot know.
    fn is_concluded_by(&self, me: &str) -> bool {
        if self.origin.as_deref().is_some_and(|origin| origin != me) {
            return false;
        }
        let text = |pointer: &str| self.json.pointer(pointer).and_then(Json::as_str).unwrap_or_default();
        let is_by_rule = text("/data/cleared_by").starts_with("rule:");
        let is_of_alarms = self.kind.starts_with("city.brain.alarm.") && (self.kind != alarms::CLEARED || is_by_rule);
        let is_sent = text("/source").strip_prefix('/') == Some(me) && self.json.get(HOPS).is_some();
        self.kind.starts_with("city.brain.rule.") || is_of_alarms || is_sent
    }
}

fn read(line: &str) -> Result<Event, String> {
    let json: Json = serde_json::from_str(line).map_err(|e| e.to_string())?;
    // A line of `events --json` has the event inside, and says when it was committed.
    let (event, outer) = match json.get("event") {
        Some(inner @ Json::Object(_)) => (inner, Some(&json)),
        _ => (&json, None),
    };
    let text = |of: &Json, name: &str| of.get(name).and_then(Json::as_str).map(str::to_owned);
    let kind = text(event, "type").ok_or("it has no `type`")?;
    let time = outer.and_then(|o| text(o, "committed_at")).or_else(|| text(event, "time"));
    let time = time.ok_or("it has no `time`: record with `citybrain events --json`, which says when each came")?;
    let at = DateTime::parse_from_rfc3339(&time).map_err(|e| format!("its time `{time}`: {e}"))?;
    let origin = text(event, "origin").or_else(|| outer.and_then(|o| text(o, "origin")));
    Ok(Event { kind, origin, at_us: at.timestamp_micros(), json: event.clone() })
}

struct Stage {
    rules: Rules,
    state: State,
    pos: Pos,
    fired: Vec<Firing>,
}

impl Stage {
    fn event(&mut self, event: &Event, now_us: i64) {
        let me = self.rules.me.clone();
        let origin = event.origin.as_deref().filter(|o| *o != me.as_str());
        let origin = origin.map(|address| Origin { address, log: LogId(0), pos: self.pos });
        let header = Header {
            direction: Direction::Up,
            origin,
            received_us: now_us,
            committed_us: now_us,
            ..Header::local(Kind::Event, &event.kind)
        };
        self.pos = self.pos.next();
        self.rules.apply(self.pos, &header, event.json.to_string().as_bytes());
        self.settle(now_us);
    }

    /// Timers that are over by then, each at its own moment.
    fn until(&mut self, now_us: i64) {
        while let Some(due) = self.rules.next_due_us().filter(|due| *due <= now_us) {
            if !self.settle(due) {
                return;
            }
        }
    }

    fn settle(&mut self, now_us: i64) -> bool {
        let mut any = false;
        loop {
            let drafts = self.rules.on_due(&self.state, now_us);
            if drafts.is_empty() {
                return any;
            }
            any = true;
            for draft in drafts {
                self.apply(draft, now_us);
            }
        }
    }

    fn apply(&mut self, mut draft: Draft, now_us: i64) {
        draft.stamp(now_us, 0);
        let (header, payload) = draft.parts();
        if header.name == FIRED
            && let Ok(mut json) = serde_json::from_slice::<Json>(payload)
            && let Ok(said) = serde_json::from_value::<Said>(json["data"].take())
        {
            self.fired.extend(said.fired.into_iter().map(Firing::from));
        }
        self.pos = self.pos.next();
        self.rules.apply(self.pos, &header, payload);
    }
}
