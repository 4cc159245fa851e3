//! Alarms: a condition that holds, or has ended; seen by somebody, or not yet.
//!
//! **Owner**: the node whose rule raised it. Only its records change an alarm; all others hold
//! copies, and ask. **Identity**: owner, name and key, the same on every node, for as long as anybody
//! remembers it: raised again it is the same alarm, raised once more. **Order**: each change carries
//! a revision that only grows, so copies converge whatever overtakes what.

use chrono::{DateTime, Utc};
use citybrain_shared::case::Place;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::prefix::{self, Named};
use citybrain_shared::view::{self, Alarm};
use citybrain_shared::{Address, Tier};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64;

pub const RAISED: &str = "city.brain.alarm.raised";
pub const CHANGED: &str = "city.brain.alarm.changed";
pub const ACKNOWLEDGED: &str = "city.brain.alarm.acknowledged";
pub const CLEARED: &str = "city.brain.alarm.cleared";
/// Downward, to the owner: somebody above wants a change.
pub const ASK: &str = "city.brain.alarm.ask";
/// Downward, to the owner, which has lost its disk: what was active when that was.
pub const KNOWN: &str = "city.brain.alarm.known";

/// Alarms that a node remembers: 16 for each of a city's 3,000 communities. Beyond it the oldest
/// that are over give way.
pub const ALARMS_MAX: usize = 50_000;

/// Changes of one raising that are remembered: a flapping severity must not make its record grow.
const CHANGES_MAX: usize = 32;

/// 16 hex digits, the same on every node.
pub fn id_of(owner: &Address, name: &str, key: &str) -> String {
    format!("{:016x}", xxh3_64(format!("{owner}\0{name}\0{key}").as_bytes()))
}

/// Is it one that [`id_of`] may have made?
pub fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Of a name and a key.
pub fn hash(name: &str, key: &str) -> u64 {
    xxh3_64([name, "\0", key].concat().as_bytes())
}

/// What makes an alarm what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub owner: Address,
    pub name: String,
    pub key: String,
}

impl Identity {
    pub fn of(alarm: &Alarm) -> Identity {
        Identity { owner: alarm.origin.clone(), name: alarm.name.clone(), key: alarm.key.clone() }
    }
}

/// What a rule says of an alarm that it raises.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub severity: Severity,
    pub title: String,
    pub reach: Tier,
    pub rule: String,
    pub rule_key: String,
    pub place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Raise(Told),
    /// Whoever raised it is over, and another raises it still.
    HandOn(Told),
    /// As the box that was here before had it, which goes on under whatever this one has said of it since.
    GoOn(Box<Alarm>),
    /// `by`: a person, or `rule:NAME`.
    Clear {
        by: String,
    },
    Acknowledge {
        by: String,
    },
    /// Until µs since 1970; a time that is over takes it off the shelf.
    Shelve {
        by: String,
        until_us: i64,
    },
}

/// The alarm after a step, and the type of the event that says so; `None` when nothing changes.
pub fn step(old: Option<&Alarm>, who: &Identity, step: Step, now_us: i64) -> Option<(Alarm, &'static str)> {
    let now = view::time_of(now_us);
    // Ahead of the known one, and of whatever was forgotten: the clock stands in for memory.
    let rev = old.map_or(0, |a| a.rev.saturating_add(1)).max(now_us);
    let changed = |a: &Alarm| Alarm { rev, asked: None, ..a.clone() };
    match (step, old) {
        (Step::Raise(told), Some(a)) if a.active => {
            // Only told further, it is still the alarm of whoever raised it.
            let is_same = a.severity == told.severity && a.title == told.title;
            let of = is_same.then(|| (a.rule.clone(), a.rule_key.clone()));
            let (rule, rule_key) = of.unwrap_or((told.rule, told.rule_key));
            self::step(old, who, Step::HandOn(Told { rule, rule_key, ..told }), now_us)
        }
        (Step::HandOn(Told { severity, title, reach, rule, rule_key, .. }), Some(a)) if a.active => {
            // Whoever was told that it began must hear how it goes on, though its rule reaches less far by now.
            let reach = reach.min(a.reach);
            let is_another = a.severity != severity || a.title != title;
            if !is_another && a.reach == reach && a.rule == rule && a.rule_key == rule_key {
                return None;
            }
            // Worse than what was acknowledged is news again.
            let acknowledged = a.acknowledged && severity >= a.severity;
            let mut changed_at = a.changed_at.clone();
            changed_at.extend(is_another.then_some(now));
            changed_at.drain(..changed_at.len().saturating_sub(CHANGES_MAX));
            let a = if stays_shelved(a, severity, now) { changed(a) } else { off_the_shelf(changed(a)) };
            Some((Alarm { severity, title, reach, rule, rule_key, acknowledged, changed_at, ..a }, CHANGED))
        }
        (Step::Raise(Told { severity, title, reach, rule, rule_key, place }), old) => {
            let shelved = old.filter(|a| stays_shelved(a, severity, now));
            let alarm = Alarm {
                id: id_of(&who.owner, &who.name, &who.key),
                origin: who.owner.clone(),
                name: who.name.clone(),
                key: who.key.clone(),
                rule,
                rule_key,
                severity,
                title,
                reach,
                active: true,
                acknowledged: false,
                raised_at: now,
                first_raised_at: old.map_or(now, |a| a.first_raised_at),
                raises: old.map_or(0, |a| a.raises) + 1,
                changed_at: Vec::new(),
                place,
                acknowledged_at: None,
                acknowledged_by: None,
                cleared_at: None,
                cleared_by: None,
                shelved_until: shelved.and_then(|a| a.shelved_until),
                shelved_by: shelved.and_then(|a| a.shelved_by.clone()),
                shelved_severity: shelved.and_then(|a| a.shelved_severity),
                rev,
                asked: None,
                answer: old.and_then(|a| a.answer.clone()),
            };
            Some((alarm, RAISED))
        }
        (Step::GoOn(known), None) => Some((Alarm { rev, asked: None, ..*known }, RAISED)),
        (Step::GoOn(known), Some(a)) => {
            let kind = if a.active { CHANGED } else { RAISED };
            Some((Alarm { rev, ..gone_on(*known, a, now) }, kind))
        }
        (Step::Clear { by }, Some(a)) if a.active => {
            Some((Alarm { active: false, cleared_at: Some(now), cleared_by: Some(by), ..changed(a) }, CLEARED))
        }
        (Step::Acknowledge { by }, Some(a)) if !a.acknowledged => {
            let a = changed(a);
            Some((
                Alarm { acknowledged: true, acknowledged_at: Some(now), acknowledged_by: Some(by), ..a },
                ACKNOWLEDGED,
            ))
        }
        (Step::Shelve { by, until_us }, Some(a)) => {
            let until = view::time_of(until_us);
            let on = until > now;
            // Off the shelf goes what is on it; onto it what is there to be put away.
            if if on { !a.active } else { a.shelved_until.is_none() } {
                return None;
            }
            let alarm = match on {
                true => Alarm {
                    shelved_until: Some(until),
                    shelved_by: Some(by),
                    shelved_severity: Some(a.severity),
                    ..changed(a)
                },
                false => off_the_shelf(changed(a)),
            };
            Some((alarm, CHANGED))
        }
        _ => None,
    }
}

/// The alarm that was `known` to be active and has been since, also while this box spoke of it: the worse word counts,
/// or else the newer, and what people have done with the alarm stands as far as it has not become worse.
fn gone_on(known: Alarm, own: &Alarm, now: DateTime<Utc>) -> Alarm {
    let is_own_word = own.active && own.severity <= known.severity;
    let said = if is_own_word { own.clone() } else { known.clone() };
    let is_seen = |a: &&Alarm| a.active && a.acknowledged && said.severity >= a.severity;
    let seen = [&known, own].into_iter().find(is_seen);
    let shelved = [own, &known].into_iter().find(|a| stays_shelved(a, said.severity, now));
    let is_another = !own.active || (said.severity, &said.title) != (own.severity, &own.title);
    // Each moment at which something was told of it, by either box.
    let own_moments = [own.raised_at].into_iter().chain(own.changed_at.iter().copied()).chain(own.cleared_at);
    let moments = known.changed_at.iter().copied().chain(own_moments).chain(is_another.then_some(now));
    let moments: BTreeSet<DateTime<Utc>> = moments.filter(|at| *at > known.raised_at).collect();
    Alarm {
        active: true,
        acknowledged: seen.is_some(),
        acknowledged_at: seen.and_then(|a| a.acknowledged_at),
        acknowledged_by: seen.and_then(|a| a.acknowledged_by.clone()),
        shelved_until: shelved.and_then(|a| a.shelved_until),
        shelved_by: shelved.and_then(|a| a.shelved_by.clone()),
        shelved_severity: shelved.and_then(|a| a.shelved_severity),
        reach: own.reach.min(known.reach),
        raised_at: known.raised_at,
        first_raised_at: own.first_raised_at.min(known.first_raised_at),
        raises: own.raises.max(known.raises),
        changed_at: moments.iter().copied().skip(moments.len().saturating_sub(CHANGES_MAX)).collect(),
        asked: None,
        ..said
    }
}

/// Is it on the shelf at that moment, and no worse than when it was put there?
fn stays_shelved(a: &Alarm, severity: Severity, now: DateTime<Utc>) -> bool {
    a.shelved_until.is_some_and(|until| until > now) && severity >= a.shelved_severity.unwrap_or(a.severity)
}

fn off_the_shelf(a: Alarm) -> Alarm {
    Alarm { shelved_until: None, shelved_by: None, shelved_severity: None, ..a }
}

/// The first alarm of a name has begun, or the last has ended: of this key, or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub name: String,
    pub key: Option<String>,
}

/// Every alarm that this node knows of: its own and those that came from below.
#[derive(Debug, Default)]
pub struct Table {
    all: BTreeMap<String, Alarm>,
    /// Active ones by name and key.
    active: HashMap<String, HashMap<String, u32>>,
    /// Active ones by a hash of the rule, and its key, that have raised them.
    raised: BTreeSet<(u64, String)>,
    /// Nodes that were taken out of the tree, and when: what they have said may still be on its way.
    retired: BTreeMap<Address, DateTime<Utc>>,
    dirty_retired: bool,
    dirty: HashSet<String>,
    /// The newest revision of the box that was here before, where this one's clock is behind it.
    floor: i64,
    dirty_floor: bool,
    pub given_way: u64,
}

impl Table {
    pub fn get(&self, id: &str) -> Option<&Alarm> {
        self.all.get(id)
    }

    /// By the beginning of its id, or by what a list calls it: of several nodes' alarms that is none's alone.
    pub fn named(&self, text: &str) -> Named<&Alarm> {
        let rest = self.all.range::<str, _>((Bound::Included(text), Bound::Unbounded));
        match prefix::named(text, rest.map(|(id, alarm)| (id.as_str(), alarm))) {
            Named::Nothing => self.called(text),
            named => named,
        }
    }

    /// People leave out the source, which a preset's rules have behind the subject.
    fn called(&self, text: &str) -> Named<&Alarm> {
        match self.called_by(text, |key, said| key == said) {
            Named::Nothing => {
                self.called_by(text, |key, said| key.strip_prefix(said).is_some_and(|s| s.starts_with(" /")))
            }
            named => named,
        }
    }

    /// Those that a list calls by a name that begins so.
    pub fn beginning(&self, text: &str) -> impl Iterator<Item = &Alarm> {
        self.all.values().filter(move |a| a.named().starts_with(text))
    }

    /// Those that are active are meant first: of those that are over a node may know many.
    fn called_by(&self, text: &str, fits: fn(&str, &str) -> bool) -> Named<&Alarm> {
        let is_called = |a: &&Alarm| match text.strip_prefix(a.name.as_str()) {
            Some("") => a.key.is_empty(),
            Some(rest) => rest.strip_prefix('/').is_some_and(|said| !said.is_empty() && fits(&a.key, said)),
            None => false,
        };
        let mut all: Vec<&Alarm> = self.all.values().filter(is_called).collect();
        if all.iter().any(|a| a.active) {
            all.retain(|a| a.active);
        }
        match all[..] {
            [] => Named::Nothing,
            [one] => Named::One(one),
            [one, other, ..] => Named::Several(one, other),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Alarm> {
        self.all.values()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn is_active(&self, name: &str, key: Option<&str>) -> bool {
        self.active.get(name).is_some_and(|keys| key.is_none_or(|k| keys.contains_key(k)))
    }

    /// How many of them are active, at whatever nodes.
    pub fn active(&self, name: &str, key: Option<&str>) -> u32 {
        let Some(keys) = self.active.get(name) else { return 0 };
        key.map_or_else(|| keys.values().sum(), |key| keys.get(key).copied().unwrap_or(0))
    }

    /// Active ones that this rule has raised for this key.
    pub fn raised_by<'a>(&'a self, rule: &'a str, key: &'a str) -> impl Iterator<Item = &'a Alarm> {
        let hash = hash(rule, key);
        let ids = self.raised.range((hash, String::new())..).take_while(move |(h, _)| *h == hash);
        ids.filter_map(|(_, id)| self.all.get(id)).filter(move |a| a.rule == rule && a.rule_key == key)
    }

    /// Takes an owner's word, unless a newer one is known. What has begun or ended by that.
    pub fn fold(&mut self, alarm: Alarm) -> Vec<Turn> {
        let old = self.all.get(&alarm.id);
        if old.is_some_and(|a| a.rev >= alarm.rev) {
            return Vec::new();
        }
        // Whoever asked for something waits for the answer, whatever its owner says of it before.
        let is_open = |asked: &view::AlarmAsked| alarm.answer.as_ref().is_none_or(|answer| answer.asked.at < asked.at);
        let asked = old.and_then(|a| a.asked.clone()).filter(is_open);
        let alarm = self.unless_retired(Alarm { asked, ..alarm });
        let stood = self.stand([(alarm.name.clone(), alarm.key.clone())].into());
        self.put(alarm);
        if self.all.len() > ALARMS_MAX {
            self.give_way();
        }
        self.turned(stood)
    }

    /// Names and keys, and names alone, with whether one of them is active.
    fn stand(&self, of: BTreeSet<(String, String)>) -> Vec<(Turn, bool)> {
        let names: BTreeSet<String> = of.iter().map(|(name, _)| name.clone()).collect();
        let keys = of.into_iter().map(|(name, key)| Turn { name, key: Some(key) });
        let all = keys.chain(names.into_iter().map(|name| Turn { name, key: None }));
        all.map(|turn| (self.is_active(&turn.name, turn.key.as_deref()), turn)).map(|(is, turn)| (turn, is)).collect()
    }

    /// Those that stand otherwise now.
    fn turned(&self, stood: Vec<(Turn, bool)>) -> Vec<Turn> {
        let is_other = |(turn, was): &(Turn, bool)| self.is_active(&turn.name, turn.key.as_deref()) != *was;
        stood.into_iter().filter(is_other).map(|(turn, _)| turn).collect()
    }

    /// A node was taken out of the tree at that moment, with all below it, or is back: its alarms are over until then.
    /// Those that were taken out below it by a word of their own stay out. What has begun or ended by that.
    pub fn leave(&mut self, node: &Address, gone: Option<DateTime<Utc>>) -> Vec<Turn> {
        self.dirty_retired = true;
        match gone {
            Some(at) => drop(self.retired.insert(node.clone(), at)),
            None => drop(self.retired.remove(node)),
        }
        let is_theirs = |a: &&Alarm| {
            let is_retired = !a.active && a.cleared_by.as_deref() == Some(Alarm::RETIRED);
            node.covers(&a.origin) && if gone.is_some() { a.active } else { is_retired }
        };
        let theirs: Vec<Alarm> = self.all.values().filter(is_theirs).cloned().collect();
        let stood = self.stand(theirs.iter().map(|a| (a.name.clone(), a.key.clone())).collect());
        for alarm in theirs {
            let alarm = Alarm { active: true, cleared_at: None, cleared_by: None, ..alarm };
            self.put(self.unless_retired(alarm));
        }
        self.turned(stood)
    }

    /// What its node said last, unless nobody is there to say more of it.
    fn unless_retired(&self, alarm: Alarm) -> Alarm {
        match self.retired.iter().find(|(node, _)| alarm.active && node.covers(&alarm.origin)) {
            Some((_, at)) => {
                let cleared_by = Some(Alarm::RETIRED.to_owned());
                Alarm { active: false, cleared_at: Some(*at), cleared_by, asked: None, ..alarm }
            }
            None => alarm,
        }
    }

    fn put(&mut self, alarm: Alarm) {
        self.dirty.insert(alarm.id.clone());
        if let Some(old) = self.all.remove(&alarm.id) {
            self.not_active(&old);
        }
        if alarm.active {
            self.raised.insert((hash(&alarm.rule, &alarm.rule_key), alarm.id.clone()));
            *self.active.entry(alarm.name.clone()).or_default().entry(alarm.key.clone()).or_default() += 1;
        }
        self.all.insert(alarm.id.clone(), alarm);
    }

    fn not_active(&mut self, old: &Alarm) {
        if old.active {
            self.raised.remove(&(hash(&old.rule, &old.rule_key), old.id.clone()));
        }
        let Some(keys) = self.active.get_mut(&old.name).filter(|_| old.active) else { return };
        if let Some(n) = keys.get_mut(&old.key) {
            *n -= 1;
            if *n == 0 {
                keys.remove(&old.key);
            }
        }
        if keys.is_empty() {
            self.active.remove(&old.name);
        }
    }

    /// A sixteenth at a time, so that it is rare.
    fn give_way(&mut self) {
        let mut order: Vec<(bool, i64, String)> = self.all.values().map(|a| (a.active, a.rev, a.id.clone())).collect();
        order.sort_unstable();
        for (_, _, id) in order.into_iter().take(ALARMS_MAX / 16) {
            if let Some(old) = self.all.remove(&id) {
                self.not_active(&old);
                self.dirty.insert(id);
                self.given_way += 1;
            }
        }
    }

    /// The box that was here before has said so much; false if that is known.
    pub fn outrun(&mut self, rev: i64) -> bool {
        let is_news = rev > self.floor;
        self.floor = self.floor.max(rev);
        self.dirty_floor |= is_news;
        is_news
    }

    /// What this node says is ahead of this.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    pub fn load_floor(&mut self, floor: i64) {
        self.floor = floor;
    }

    /// If it has changed since the last call.
    pub fn take_floor(&mut self) -> Option<i64> {
        std::mem::take(&mut self.dirty_floor).then_some(self.floor)
    }

    /// Notes that somebody here or above asked its owner for a change.
    pub fn note_asked(&mut self, id: &str, asked: view::AlarmAsked) {
        if let Some(alarm) = self.all.get_mut(id) {
            alarm.asked = Some(asked);
            self.dirty.insert(id.to_owned());
        }
    }

    pub fn load(&mut self, alarm: Alarm) {
        self.put(alarm);
        self.dirty.clear();
    }

    pub fn load_retired(&mut self, retired: BTreeMap<Address, DateTime<Utc>>) {
        self.retired = retired;
    }

    /// The nodes that are out of the tree, if that has changed since the last call.
    pub fn take_retired(&mut self) -> Option<&BTreeMap<Address, DateTime<Utc>>> {
        std::mem::take(&mut self.dirty_retired).then_some(&self.retired)
    }

    /// Ids that changed since the last call, with what they are now.
    pub fn take_dirty(&mut self) -> Vec<(String, Option<Alarm>)> {
        std::mem::take(&mut self.dirty).into_iter().map(|id| (id.clone(), self.all.get(&id).cloned())).collect()
    }
}
