//! When a rule is to look at a key again, if nothing more is heard of it. Whoever plans asks here.

use super::expression::{Expression, Facts};
use super::keys::{Due, KeyState, What};
use super::rule::Rule;
use super::window::Window;

/// Moments at which a window is looked at ahead, to know when it will be over.
const LOOK_AHEAD: usize = 16;

/// What waits for a rule whose text is another one now, planned from what is known. What is past by then is due at
/// once.
pub fn plan_anew(rule: &Rule, state: &mut KeyState) {
    if state.text == rule.text {
        return;
    }
    let (now, was_due) = (state.last_us, state.due.take());
    let anew = rule.window.as_ref().filter(|w| w.value.is_some() && w.counts != state.counts);
    if let Some(w) = anew {
        // What it counts is another: sums of both would be of neither.
        state.window = None;
        state.whole_us = if state.on { Some(w.span.forgets(now)) } else { state.whole_us };
    }
    (state.text, state.edited) = (rule.text, state.on);
    if let Some(absent) = rule.absent_us {
        (state.since_us, state.ended, state.retitle_us) = (None, None, None);
        let is_told = state.on || state.held.is_none();
        state.due = (!is_told).then(|| Due { at_us: now + state.deaf_us + absent, what: What::Absent });
    } else if state.on {
        state.due = match &state.ended {
            _ if rule.clear.is_none() => None,
            Some(ended) => Some(Due { at_us: ended.at_us + rule.calm_us, what: What::Over }),
            None if anew.is_some() || state.held.is_none() => emptied(rule, now),
            None => fading(rule, state, now),
        };
    } else {
        let waits = match was_due {
            Some(due) => due.what == What::Held,
            None => state.since_us.is_some() || state.held.is_some(),
        };
        if waits && rule.latches() && still_holds(rule, state) {
            let since = state.since_us.unwrap_or(now);
            wait_to_fire(rule, state, since, now);
        } else {
            (state.since_us, state.held) = (None, None);
        }
    }
}

/// Plans when it may fire, if its condition goes on holding as it has since then.
pub fn wait_to_fire(rule: &Rule, state: &mut KeyState, since: i64, now: i64) {
    state.since_us = rule.hold_us.map(|_| since);
    state.due = match rule.hold_us {
        Some(hold) => Some(holding(rule, state, since + hold, now)),
        None => time_to_fire(rule, state, now).map(|at_us| Due { at_us, what: What::Held }),
    };
}

/// Does the condition, as the rule has it now, hold for what was heard last?
fn still_holds(rule: &Rule, state: &KeyState) -> bool {
    let Some(when) = &rule.when else { return state.held.is_some() };
    let Some(held) = &state.held else { return false };
    let window = state.summary(rule, state.last_us);
    held.facts(&rule.node).is_some_and(|facts| when.truth(&facts, window.as_ref()) == Ok(true))
}

/// Has the rule been quiet long enough, and is it within its hours?
pub fn is_time(rule: &Rule, state: &KeyState, now: i64) -> bool {
    time_to_fire(rule, state, now) == Some(now)
}

/// The first moment from `now` on at which it may fire, as far as time alone goes; `None`: within a year
/// there is none.
pub fn time_to_fire(rule: &Rule, state: &KeyState, now: i64) -> Option<i64> {
    let quiet_until = state.fired_us.filter(|at| *at <= now).map_or(now, |at| at + rule.quiet_us);
    rule.next_open_us(quiet_until.max(now))
}

/// When a timer is asked again that has come and could not fire at `now`.
pub fn again(rule: &Rule, state: &mut KeyState, due: Due, now: i64) -> Option<i64> {
    let long_enough = state.since_us.zip(rule.hold_us).map(|(since, hold)| since + hold);
    if let Some(end) = long_enough.filter(|end| due.at_us < *end && due.what == What::Held) {
        // It was planned for the window's emptying; events that share a cell have come since.
        return Some(holding(rule, state, end, now).at_us);
    }
    // Outside its hours it has held, or nothing has come, all the same.
    if rule.next_open_us(now) != Some(now) {
        return rule.next_open_us(now);
    }
    if due.what == What::Absent {
        // Another alarm holds it back: looked at again when as much time has gone by once more.
        return rule.absent_us.map(|us| now + us);
    }
    // Too soon behind the last time; else another alarm holds it back, and counts how long it holds when it ends.
    let later = time_to_fire(rule, state, now).filter(|at| *at > now);
    state.since_us = state.since_us.filter(|_| later.is_some());
    later
}

/// When the condition will have held long enough, which is at `end`, or has ended by the window's emptying.
pub fn holding(rule: &Rule, state: &KeyState, end: i64, now: i64) -> Due {
    let ends = rule.when.as_ref().and_then(|when| turns(rule, state, when, false, now));
    Due { at_us: ends.filter(|at| *at < end).unwrap_or(end), what: What::Held }
}

/// When the condition will be over by the window's emptying alone. A window that lacks something says nothing yet.
pub fn fading(rule: &Rule, state: &KeyState, now: i64) -> Option<Due> {
    let clear = rule.clear.as_ref()?;
    let whole = state.whole_us(now);
    let is_over_then = |at: &i64| asks(rule, state, clear).is_some_and(|is| is(*at) == Some(true));
    let at = whole.filter(is_over_then).or_else(|| turns(rule, state, clear, true, whole.unwrap_or(now)))?;
    Some(Due { at_us: at + rule.calm_us, what: What::Over })
}

/// When the window will be empty of all that came until now, of which nothing is known any more, if it is over then.
pub fn emptied(rule: &Rule, now: i64) -> Option<Due> {
    let (w, clear) = (rule.window.as_ref()?, rule.clear.as_ref().filter(|clear| clear.uses_window)?);
    let at_us = w.span.forgets(now);
    // If it asks for the event as well, only an event can say.
    let nothing = Facts::new(b"{}", "", at_us, &rule.node)?;
    let empty = Window::default().summary(w.span, at_us);
    let is_over = clear.truth(&nothing, Some(&empty)) == Ok(true);
    is_over.then(|| Due { at_us: at_us + rule.calm_us, what: What::Over })
}

/// Has the window's emptying alone made it calm, as was planned, at a moment that has passed by `now`?
pub fn has_faded(rule: &Rule, state: &KeyState, now: i64) -> bool {
    let planned = state.due.filter(|d| state.on && d.what == What::Over && state.ended.is_none());
    let since = planned.map(|d| d.at_us - rule.calm_us).filter(|since| rule.calm_us > 0 && *since <= now);
    let Some((since, clear)) = since.zip(rule.clear.as_ref()) else { return false };
    asks(rule, state, clear).is_some_and(|is| is(since) == Some(true))
}

/// When the window's emptying alone makes `asked` hold, or hold no more: found by looking ahead, so that no
/// timer has to ask again and again. What asks for the average of nothing does not hold.
fn turns(rule: &Rule, state: &KeyState, asked: &Expression, to: bool, now: i64) -> Option<i64> {
    let (span, asks) = (rule.window.as_ref()?.span, asks(rule, state, asked)?);
    let window = state.window.as_ref()?;
    window.changes(span, now, LOOK_AHEAD).into_iter().find(|at| (asks(*at) == Some(true)) == to)
}

/// What the window makes of `asked` at a moment, for the event that the rule tells of.
fn asks<'a>(rule: &'a Rule, state: &'a KeyState, asked: &'a Expression) -> Option<impl Fn(i64) -> Option<bool> + 'a> {
    let (w, held) = (rule.window.as_ref()?, state.held.as_ref()?);
    let window = state.window.as_ref().filter(|_| asked.uses_window)?;
    let facts = held.facts(&rule.node)?;
    Some(move |at| asked.truth(&facts, Some(&window.summary(w.span, at))).ok())
}
