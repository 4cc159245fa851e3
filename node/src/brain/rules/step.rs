//! What one event, or one moment, makes of what a rule remembers of a key. Pure: the fold goes by it, and whoever
//! speaks asks it what the fold will make of what is said.

use super::alarms;
use super::expression::Facts;
use super::keys::{Due, Held, KeyState, What};
use super::queue::{Counted, Meet};
use super::raisers::Raised;
use super::rule::{Dependency, Rule};
use super::said::Outcome;
use super::timing::{again, emptied, fading, has_faded, holding, is_time, time_to_fire, wait_to_fire};
use super::window::{Seen, Summary};
use citybrain_shared::Pos;
use citybrain_shared::view::Alarm;
use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_64;

/// What an event makes of a rule's state for one key.
pub enum Step {
    Nothing,
    /// It would fire, and another alarm has a say in that.
    Later,
    Fire,
    Change,
    /// With the event that it was raised by.
    Over(Option<Held>),
}

/// May a rule fire, as far as other alarms go?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Free {
    Yes,
    No,
    /// It is known when all that came before is said. By what is known already, it may or may not.
    Open {
        by_now: bool,
    },
}

/// May the rule fire, as far as other alarms go, of which those are active?
pub fn depends(rule: &Rule, key: &str, is_active: impl Fn(&str, Option<&str>) -> bool) -> bool {
    let is_active = |d: &Dependency| is_active(&d.alarm, (!d.any_key).then_some(key));
    !rule.unless.as_ref().is_some_and(is_active) && rule.whilst.as_ref().is_none_or(is_active)
}

/// An event as one rule meets it.
pub struct Met<'a> {
    pub facts: &'a Facts,
    pub counted: &'a Counted,
    pub held: &'a dyn Fn() -> Held,
    pub now: i64,
    pub free: Free,
}

/// Is a moment that was planned for the key past by then? It is concluded first, however late that is looked at: so it
/// is what the log's own times say.
pub fn is_behind(state: &KeyState, now: i64) -> bool {
    state.next().is_some_and(|due| due.at_us <= now)
}

/// Would it fire if an alarm had begun or ended before then? Until that is known nothing newer may take the place of what
/// waits for it.
pub fn awaits_alarm(rule: &Rule, state: &KeyState, now: i64) -> bool {
    let is_silent = |absent: i64| state.last_us + state.deaf_us + absent <= now;
    rule.depends() && !state.on && state.held.is_some() && rule.absent_us.is_none_or(is_silent)
}

/// An event is heard, and counted, before it is met.
pub fn count(rule: &Rule, state: &mut KeyState, value: Option<&Json>, now: i64) -> Counted {
    (state.text, state.hears, state.deaf_us, state.last_us) = (rule.text, rule.hears, 0, now);
    let faded = has_faded(rule, state, now);
    let (window, grew) = grown(rule, state, value, now);
    Counted { window, grew, faded }
}

/// An event that waited is met now. Gives what its window holds by it, too.
pub fn meet_again(
    rule: &Rule,
    state: &mut KeyState,
    meet: &Meet,
    free: bool,
    now: i64,
) -> Result<(Step, Option<Summary>), String> {
    let Meet { key, held, counted, .. } = meet;
    let Some(facts) = held.facts(&rule.node) else { return Ok((Step::Nothing, None)) };
    let now = now.max(state.last_us);
    let counted = match counted {
        Some(counted) => counted.clone(),
        None => count(rule, state, value_of(rule, &facts)?.as_ref(), now),
    };
    // Who is silent now may have said that before.
    if rule.absent_us.is_some() && state.on && held.had_before {
        return Ok((Step::Nothing, None));
    }
    let (free, held) = (if free || !rule.depends() { Free::Yes } else { Free::No }, || held.clone());
    let met = Met { facts: &facts, counted: &counted, held: &held, now, free };
    let step = advance(rule, key, state, &met)?;
    Ok((step, counted.window))
}

/// An event is met.
///
/// # Errors
/// An expression cannot be evaluated on it.
pub fn advance(rule: &Rule, key: &str, state: &mut KeyState, met: &Met<'_>) -> Result<Step, String> {
    let Met { facts, counted, held, now, free } = *met;
    let (window, grew, faded) = (counted.window.as_ref(), counted.grew, counted.faded);
    if let Some(absent) = rule.absent_us {
        let was_on = state.on;
        state.from_backup = false;
        let first = end(state);
        state.held = Some(held().kept());
        state.due = Some(Due { at_us: now + absent, what: What::Absent });
        return Ok(if was_on { Step::Over(first) } else { Step::Nothing });
    }
    // An event that lacks the field says nothing: it neither begins nor ends anything.
    let holds = match &rule.when {
        Some(when) => when.truth(facts, window)?,
        None => true,
    };
    if let Some(w) = rule.window.as_ref().filter(|_| state.from_backup) {
        state.whole_us.get_or_insert(w.span.forgets(now));
    }
    state.from_backup &= !holds;
    if state.on {
        state.held.get_or_insert_with(|| held().kept());
        let over = match &rule.clear {
            // A window that lacks something does not say that it is over.
            Some(clear) if clear.uses_window && state.whole_us(now).is_some() => clear.truth(facts, None) == Ok(true),
            Some(clear) => clear.truth(facts, window)?,
            None => !rule.raises() && !holds,
        };
        state.from_backup &= !over;
        if over && rule.calm_us > 0 {
            let calm = Due { at_us: now + rule.calm_us, what: What::Over };
            // It may be calm for a while already: since an event before this, or by the window's emptying.
            let began = state.due.filter(|d| (faded || state.ended.is_some()) && d.at_us < calm.at_us);
            state.due = Some(began.unwrap_or(calm));
            state.ended.get_or_insert_with(|| held().kept());
            return Ok(Step::Nothing);
        }
        let was_ending = state.ended.take().is_some();
        if over {
            return Ok(Step::Over(end(state)));
        }
        // What shares a cell has made no plan, and has outlived this one.
        let is_stale = rule.calm_us > 0 && state.due.is_some_and(|d| d.at_us - rule.calm_us <= now);
        if grew || was_ending || is_stale {
            state.due = fading(rule, state, now);
        }
        if !holds || !is_news(rule, key, state, met) {
            return Ok(Step::Nothing);
        }
        state.held = Some(held().kept());
        return Ok(Step::Change);
    }
    if holds {
        state.calm_us = None;
    } else if let Some(clear) =
        // A window may have been emptied by the loss alone.
        rule.clear.as_ref().filter(|clear| rule.raises() && state.calm_us.is_none() && !clear.uses_window)
    {
        let is_calm = state.fired_us.is_none() && clear.truth(facts, window) == Ok(true);
        state.calm_us = is_calm.then_some(now);
    }
    if !holds || free == Free::No {
        // Wanted while the condition holds, also if nothing more is heard: as soon as the other alarm lets it be.
        state.held = (holds && rule.latches()).then(|| held().kept());
        (state.since_us, state.due) = (None, None);
        return Ok(Step::Nothing);
    }
    if let Some(hold) = rule.hold_us {
        let since = *state.since_us.get_or_insert(now);
        // What is said then should tell of the newest event.
        state.held = Some(held().kept());
        if now - since < hold {
            if grew || state.due.is_none() {
                state.due = Some(holding(rule, state, since + hold, now));
            }
            return Ok(Step::Nothing);
        }
    }
    if !is_time(rule, state, now) {
        // An alarm is wanted while the condition holds, also if nothing more is heard: as soon as it may be.
        if rule.raises() {
            state.held = Some(held().kept());
            // An alarm that lets it fire, and is still to be said, plans that when it is.
            let may_be = free != Free::Open { by_now: false };
            let at_us = time_to_fire(rule, state, now).filter(|_| may_be);
            state.due = at_us.map(|at_us| Due { at_us, what: What::Held });
        }
        return Ok(Step::Nothing);
    }
    if matches!(free, Free::Open { .. }) {
        return Ok(Step::Later);
    }
    (state.since_us, state.due, state.fired_us) = (None, None, Some(now));
    if rule.latches() {
        begin(rule, key, state, Some(facts), window, now);
        state.held = Some(held().kept());
        state.due = fading(rule, state, now);
    }
    Ok(Step::Fire)
}

/// Is its alarm of another severity now, or called otherwise, or is there one more? After an edit it may be, and reach
/// farther.
fn is_news(rule: &Rule, key: &str, state: &mut KeyState, met: &Met<'_>) -> bool {
    let window = met.counted.window.as_ref();
    let raised = (state.edited || rule.raised_varies()).then(|| rule.raised(key, met.facts, window));
    let title = rule.titles(met.facts, window);
    let may_retitle = title.and_then(|title| state.may_retitle_us(title, met.now));
    let is_retitled = may_retitle.is_some_and(|at| at <= met.now);
    let is_other = raised.as_ref().is_some_and(|raised| !raised.iter().all(|one| state.raised.contains(one)));
    // What it has raised under another name before it was edited goes on as it is, unless there is news of it.
    let is_renamed = state.edited && raised.as_ref().is_some_and(|raised| is_renamed(rule, key, state, raised));
    let is_edited = state.edited && !is_renamed;
    state.edited = is_renamed;
    let is_worse = || {
        let severities = |raised: &[Raised]| raised.iter().map(|(_, severity)| *severity).collect::<Vec<_>>();
        rule.severity_varies() && raised.as_deref().map(severities) != Some(severities(&state.raised))
    };
    let is_news = if is_renamed { is_worse() } else { is_other };
    let was_late = std::mem::replace(&mut state.retitle_us, may_retitle).is_some();
    if !is_news && !is_edited && !is_retitled {
        // Too soon behind the last: told later, if nothing newer is until then.
        if was_late || may_retitle.is_some() {
            state.held = Some((met.held)().kept());
        }
        return false;
    }
    state.retitle_us = None;
    let raised = raised.unwrap_or_else(|| rule.raised(key, met.facts, window));
    state.raise(raised);
    title.into_iter().for_each(|title| state.entitle(title, met.now));
    true
}

/// Does the rule, by the words that it has now, call what it has raised otherwise? By this event it may raise one more.
fn is_renamed(rule: &Rule, key: &str, state: &KeyState, raised: &[Raised]) -> bool {
    let is_known = |raised: &[Raised]| raised.iter().all(|(alarm, _)| state.raised.iter().any(|(a, _)| a == alarm));
    let by_then = || {
        let held = state.held.as_ref()?;
        Some(rule.raised(key, &held.facts(&rule.node)?, state.summary(rule, held.at_us).as_ref()))
    };
    !is_known(raised) && !by_then().is_some_and(|raised| is_known(&raised))
}

/// It is on from now on, by what these facts say.
fn begin(rule: &Rule, key: &str, state: &mut KeyState, facts: Option<&Facts>, window: Option<&Summary>, now: i64) {
    (state.on, state.since_us, state.fired_us) = (true, None, Some(now));
    state.whole_us = None;
    state.called.clear();
    state.raised = facts.map(|facts| rule.raised(key, facts, window)).unwrap_or_default();
    (state.title, state.retitle_us) = (None, None);
    let title = facts.and_then(|facts| rule.titles(facts, window));
    title.into_iter().for_each(|title| state.entitle(title, now));
}

/// It is over. Gives the event that it was raised by.
fn end(state: &mut KeyState) -> Option<Held> {
    (state.on, state.due, state.retitle_us) = (false, None, None);
    state.raised.clear();
    state.called.clear();
    state.held.take()
}

/// What a moment that was planned has come to, if other alarms leave the rule `free` to fire.
pub fn come(rule: &Rule, state: &KeyState, due: Due, free: bool) -> Outcome {
    let Some(held) = &state.held else {
        // Nobody knows any more what it was to tell of.
        return if due.what == What::Over { Outcome::Over } else { Outcome::Lapsed };
    };
    let facts = held.facts(&rule.node);
    let facts = facts.as_ref();
    let window = state.summary(rule, due.at_us);
    let free = free && is_time(rule, state, due.at_us);
    let holds = || {
        let truth = |f: &Facts| rule.when.as_ref().is_none_or(|w| w.truth(f, window.as_ref()).unwrap_or(false));
        facts.is_some_and(truth)
    };
    let has_ended = || {
        let when = rule.when.as_ref().filter(|when| when.uses_window);
        when.zip(facts).is_some_and(|(when, facts)| when.truth(facts, window.as_ref()) != Ok(true))
    };
    // It was planned for the window's emptying; events that share a cell have come since. Where it must be calm
    // for a while it is so from the beginning of that.
    let goes_on = || {
        let clear = rule.clear.as_ref().filter(|clear| clear.uses_window && state.ended.is_none());
        clear.zip(facts).is_some_and(|(clear, facts)| {
            let is_on = |at_us| clear.truth(facts, state.summary(rule, at_us).as_ref()) == Ok(false);
            is_on(due.at_us) || rule.calm_us > 0 && is_on(due.at_us - rule.calm_us)
        })
    };
    let is_long_enough = state.since_us.zip(rule.hold_us).is_none_or(|(since, hold)| due.at_us >= since + hold);
    match due.what {
        // Nothing came, and the window has emptied under the condition.
        What::Held if has_ended() => Outcome::Lapsed,
        What::Held if free && is_long_enough => Outcome::Fired,
        What::Absent if free && holds() => Outcome::Fired,
        What::Over if !goes_on() => Outcome::Over,
        What::Held | What::Absent | What::Over => Outcome::Held,
        What::Title => Outcome::Changed,
    }
}

/// It is said what a moment has come to.
pub fn settle(rule: &Rule, key: &str, state: &mut KeyState, outcome: Outcome, due: Due, at_us: i64) {
    match (outcome, due.what) {
        (Outcome::Fired, what) => {
            let facts = state.held.as_ref().and_then(|held| held.facts(&rule.node));
            let window = state.summary(rule, at_us);
            begin(rule, key, state, facts.as_ref(), window.as_ref(), at_us);
            state.due = if what == What::Held { fading(rule, state, at_us) } else { None };
        }
        (Outcome::Over, _) => {
            end(state);
            let ended = state.ended.take();
            // Its parent may still say that it went on.
            state.calm_us = ended.filter(|_| state.from_backup).map(|ended| ended.at_us);
        }
        // Another has spoken since.
        (Outcome::Lapsed, What::Title) => state.retitle_us = None,
        (_, What::Title) => {
            state.retitle_us = None;
            state.called.clear();
            let titles = |held: &Held| rule.titles(&held.facts(&rule.node)?, state.summary(rule, held.at_us).as_ref());
            let title = state.held.as_ref().and_then(titles);
            title.into_iter().for_each(|title| state.entitle(title, at_us));
        }
        (Outcome::Lapsed, _) => (state.since_us, state.held, state.due) = (None, None, None),
        (_, what @ (What::Held | What::Absent)) => {
            state.due = again(rule, state, due, at_us).map(|at_us| Due { at_us, what });
        }
        // Events that shared a cell have come since it was planned. It may have become calm since then, however
        // late that was looked at.
        (_, What::Over) => state.due = fading(rule, state, due.at_us - rule.calm_us),
    }
}

/// What came before that position is a backup's: what it waits for may have come since, and may be over. Is it still to
/// be remembered? What it raises goes on.
pub fn begin_anew(rule: &Rule, state: &mut KeyState, first: Pos, now_us: i64) -> bool {
    let heard = state.held.iter().chain(&state.ended).map(|held| held.pos).max();
    if Some(state.concluded).max(heard) >= Some(first) {
        return true;
    }
    (state.from_backup, state.whole_us) = (true, None);
    if let Some(absent) = rule.absent_us {
        // Whoever is silent is told by an alarm. What else follows may be done. But first there is time to come back, and
        // for the parent to say what it knows.
        state.held.iter_mut().for_each(|held| held.had_before = true);
        put_off(state, now_us + absent);
        return true;
    }
    state.retitle_us = None;
    if state.ended.is_some() {
        // What a window empties of ends by itself; an event that says it is over need not come again.
        let faded = fading(rule, state, state.last_us);
        state.ended = state.ended.take().filter(|_| faded.is_none());
        state.due = faded.or(Some(Due { at_us: now_us + rule.calm_us, what: What::Over }));
    }
    state.on
}

/// What is missed is not before then: nothing could come, because the node was down. Does that change anything?
pub fn put_off(state: &mut KeyState, until_us: i64) -> bool {
    let Some(due) = state.due.as_mut().filter(|due| due.at_us < until_us) else { return false };
    state.deaf_us += until_us - due.at_us;
    due.at_us = until_us;
    true
}

/// Somebody has ended what it raises: it may raise that again.
pub fn rest(state: &mut KeyState) {
    (state.on, state.since_us, state.raised, state.ended) = (false, None, Vec::new(), None);
    state.retitle_us = None;
    state.called.clear();
    // An absence is told with the last event that there was.
    state.due = state.due.filter(|d| d.what == What::Absent);
    state.held = state.held.take().filter(|_| state.due.is_some());
}

/// It goes on raising these, though it remembers nothing of it.
pub fn take_up(rule: &Rule, state: &mut KeyState, lasting: &[Alarm], now_us: i64) {
    // One that has fired here, and whose end was not said, has its window.
    if let Some(w) = rule.window.as_ref().filter(|_| state.from_backup || state.fired_us.is_none()) {
        state.whole_us = Some(w.span.forgets(now_us));
    }
    // What a backup has of its end counts unless they were raised once more since.
    let was_restored = state.from_backup;
    let ends = |since: i64| !was_restored || lasting.iter().all(|a| a.raised_at.timestamp_micros() <= since);
    state.ended = state.ended.take().filter(|ended| was_restored && ends(ended.at_us));
    (state.on, state.text, state.hears, state.from_backup) = (true, rule.text, rule.hears, false);
    // It may have been edited since it raised them.
    (state.edited, state.since_us) = (true, None);
    // What it has heard since then was calm already, and has nothing to end any more.
    let calm = state.calm_us.take().filter(|since| ends(*since)).map(|since| since + rule.calm_us);
    let calm = calm.map(|at_us| Due { at_us, what: What::Over });
    if state.ended.is_none() {
        state.due = calm.or_else(|| emptied(rule, now_us));
    }
    state.last_us = state.last_us.max(now_us);
    state.fired_us = state.fired_us.max(lasting.iter().map(|a| a.raised_at.timestamp_micros()).max());
    state.raised = lasting.iter().map(|a| (alarms::hash(&a.name, &a.key), a.severity)).collect();
    state.called = lasting.iter().map(|a| (alarms::hash(&a.name, &a.key), a.title.clone())).collect();
}

/// An alarm has begun or ended, and leaves the rule free to fire now, or not: it waits on, or begins to count how long
/// its condition holds. Does that change anything?
pub fn look_again(rule: &Rule, state: &mut KeyState, is_free: impl FnOnce() -> bool, now_us: i64) -> bool {
    if state.on || state.held.is_none() {
        return false;
    }
    let free = is_free();
    let before = (state.due, state.since_us);
    if let Some(absent) = rule.absent_us {
        // Put off for as long once more, it has been silent for long enough all the same.
        let since = now_us.max(state.last_us + state.deaf_us + absent);
        state.due.iter_mut().filter(|_| free).for_each(|due| due.at_us = due.at_us.min(since));
    } else if !free {
        (state.since_us, state.due) = (None, None);
    } else if state.due.is_none() {
        let now = now_us.max(state.last_us);
        wait_to_fire(rule, state, now, now);
    }
    before != (state.due, state.since_us)
}

/// The window with that event in it, and whether it has a cell more than before.
fn grown(rule: &Rule, state: &mut KeyState, value: Option<&Json>, now: i64) -> (Option<Summary>, bool) {
    let Some(w) = &rule.window else { return (None, false) };
    let number = value.and_then(Json::as_f64).unwrap_or(0.0);
    let hash = w.distinct.then(|| xxh3_64(value.map(told_apart).unwrap_or_default().as_bytes()));
    state.counts = w.counts;
    let window = state.window.get_or_insert_default();
    let grew = window.add(w.span, Seen { at: now, value: number, hash });
    (Some(window.summary(w.span, now)), grew)
}

/// What tells a value from others: a number may come with a fraction of nothing.
fn told_apart(value: &Json) -> String {
    match value.as_f64().filter(|number| number.fract() == 0.0) {
        Some(number) if value.is_f64() => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

/// What an event brings into the rule's window.
///
/// # Errors
/// It has no such value, or the rule computes with it and it is no number.
pub fn value_of(rule: &Rule, facts: &Facts) -> Result<Option<Json>, String> {
    let Some((window, cel)) = rule.window.as_ref().and_then(|w| Some((w, w.value.as_ref()?))) else { return Ok(None) };
    let value = match cel.pointer.as_ref().and_then(|p| facts.json.pointer(p)) {
        Some(found) => found.clone(),
        None => cel.json(facts, None)?,
    };
    if window.numbers && value.as_f64().is_none() {
        let kind = match value {
            Json::Null => "null",
            Json::Bool(_) => "true or false",
            Json::String(_) => "a string",
            Json::Array(_) => "a list",
            Json::Object(_) | Json::Number(_) => "a map",
        };
        return Err(format!("`{}` gives {kind}, which is no number to compute with", cel.text));
    }
    Ok(Some(value))
}
