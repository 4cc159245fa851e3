//! Cases, for people.

use super::table::{Cell, Color};
use super::{Screen, clean, grouped, print};
use crate::ask::hint::as_flags;
use chrono::{DateTime, Utc};
use citybrain_shared::Address;
use citybrain_shared::case::{
    Assist, Booked, Booking, CALL_BACK, Case, Clock, Coming, Denial, Entry, RESPONSE, SOLUTION, Seat, assist_clock,
};
use citybrain_shared::{view, words};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

pub fn cases(v: &view::Cases, me: &str, now: DateTime<Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if v.cases.is_empty() {
        return how_many(v, out);
    }
    let beside = Beside::from(v);
    let mut table = s.table(&["CASE", "STANDS", "KIND", "CATEGORY", "OWNER", "DUE", "TITLE"]);
    for c in &v.cases {
        let known = beside.known(c);
        let (due, over) = due(&known, me, now, s);
        table.add_row(vec![
            s.mark(&c.id, c.urgent, Color::Red),
            s.mark(&beside.stands(c), known.status.is_open(), Color::Yellow),
            Cell::new(c.kind),
            Cell::new(clean(named(c))),
            Cell::new(format!("{}{}", c.owner, as_heard(c, me))),
            s.mark(&due, over, Color::Red),
            Cell::new(clean(&c.title)),
        ]);
    }
    print(&table, out)?;
    how_many(v, out)
}

/// What is said beside cases that their owners have not answered yet: who comes, or does not, and what is not over.
pub(super) struct Beside<'a> {
    coming: &'a BTreeMap<String, Vec<Coming>>,
    not_coming: &'a BTreeMap<String, Denial>,
    not_over: &'a BTreeMap<String, Denial>,
}

impl<'a> From<&'a view::Cases> for Beside<'a> {
    fn from(v: &'a view::Cases) -> Beside<'a> {
        Beside { coming: &v.coming, not_coming: &v.not_coming, not_over: &v.not_over }
    }
}

impl<'a> From<&'a view::Supervision> for Beside<'a> {
    fn from(v: &'a view::Supervision) -> Beside<'a> {
        Beside { coming: &v.coming, not_coming: &v.not_coming, not_over: &v.not_over }
    }
}

impl Beside<'_> {
    pub(super) fn stands(&self, c: &Case) -> String {
        let [coming, not_coming, not_over] =
            [self.coming.contains_key(&c.id), self.not_coming.contains_key(&c.id), self.not_over.contains_key(&c.id)];
        stands(c, coming, not_coming, not_over)
    }

    pub(super) fn known<'c>(&self, c: &'c Case) -> Cow<'c, Case> {
        known(c, self.not_coming.contains_key(&c.id) || self.not_over.contains_key(&c.id))
    }
}

/// The case as it stands, though its owner may not have answered yet what is said of it.
fn known(c: &Case, is_denied: bool) -> Cow<'_, Case> {
    if is_denied { Cow::Owned(c.unanswered()) } else { Cow::Borrowed(c) }
}

/// Where it stands, and whether somebody is said to come, or not to, or it is said not to be over.
fn stands(c: &Case, is_coming: bool, is_not_coming: bool, is_not_over: bool) -> String {
    let beside = match (is_coming, is_not_coming, is_not_over) {
        (true, ..) => " (coming)",
        (false, true, _) => " (nobody comes)",
        (false, false, true) => " (reopened)",
        (false, false, false) => "",
    };
    // How it ended does not count any more.
    let stands = if is_not_over { c.status.to_string() } else { c.standing() };
    format!("{}{beside}", clean(&stands))
}

/// What this node has to help with: a row for each summons that has no report yet, by when it is wanted.
pub fn summoned(v: &view::Cases, me: &str, now: DateTime<Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["CASE", "SUMMONS", "STANDS", "UNIT", "DUE", "REASON", "OWNER", "TITLE"]);
    let mut rows = 0;
    for c in &v.cases {
        let is_ours = |a: &&Assist| a.reported.is_none() && a.node.as_ref().is_some_and(|node| node.as_str() == me);
        for a in c.assists.iter().filter(is_ours) {
            rows += 1;
            let due = c.clock(&assist_clock(&a.id)).filter(|clock| clock.stopped.is_none());
            let due = due.and_then(|clock| clock.due);
            let is_over = due.is_some_and(|due| due < now);
            let shown =
                due.map_or("-".into(), |due| format!("{}{}", s.zone.short(due), if is_over { ", over" } else { "" }));
            table.add_row(vec![
                s.mark(&c.id, c.urgent, Color::Red),
                Cell::new(&a.id),
                Cell::new(Beside::from(v).stands(c)),
                Cell::new(clean(&a.unit)),
                s.mark(&shown, is_over, Color::Red),
                Cell::new(clean(&a.reason)),
                Cell::new(format!("{}{}", c.owner, as_heard(c, me))),
                Cell::new(clean(&c.title)),
            ]);
        }
    }
    if v.cases.is_empty() {
        return how_many(v, out);
    }
    print(&table, out)?;
    how_many_of(&format!("{} summons to ", grouped(rows)), " cases", v, out)
}

/// Appointments and participants of a service, the earliest first.
pub fn bookings(v: &view::Cases, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["WHEN", "SEATS", "WHO", "BOOKING", "SERVICE", "OF", "STANDS", "OWNER", "CASE"]);
    for c in &v.cases {
        let Some(b) = &c.booking else { continue };
        let helps = if b.seat == Seat::Volunteer { ", to help" } else { "" };
        let who = v.contacts.get(&c.id).map(|contact| [contact.name.as_str(), &contact.phone].join(" "));
        let who = who.as_deref().map(str::trim).filter(|who| !who.is_empty()).unwrap_or("-");
        table.add_row(vec![
            Cell::new(b.at.map_or("-".into(), |at| s.zone.short(at))),
            Cell::new(format!("{}{helps}", b.seats)),
            Cell::new(clean(who)),
            s.mark(&state(b), b.state == Booked::Cancelled, Color::Red),
            Cell::new(clean(&b.name)),
            Cell::new(&b.node),
            Cell::new(Beside::from(v).stands(c)),
            Cell::new(&c.owner),
            Cell::new(&c.id),
        ]);
    }
    if !v.cases.is_empty() {
        print(&table, out)?;
    }
    how_many(v, out)?;
    let Some((of, others)) = v.of.as_ref().zip(v.of_others.as_ref()) else { return Ok(()) };
    let (cases, node) = (grouped(others.cases), &others.such_as);
    writeln!(out, "this is the service of {of}; asked of others that have one of that code: {cases} (`--of {node}`)")
}

fn state(b: &Booking) -> String {
    b.state.as_str().replace('-', " ")
}

fn how_many(v: &view::Cases, out: &mut dyn Write) -> io::Result<()> {
    how_many_of("", "", v, out)
}

/// `rows`: what is listed, where that is not the cases.
fn how_many_of(rows: &str, cases: &str, v: &view::Cases, out: &mut dyn Write) -> io::Result<()> {
    let (open, overdue) = (grouped(v.open), grouped(v.overdue));
    let open = match v.open_elsewhere {
        0 => format!("{open} are open, {overdue} of them overdue"),
        more => format!("{open} are open here and below, {overdue} of them overdue, and {} elsewhere", grouped(more)),
    };
    if v.cases.is_empty() {
        return writeln!(out, "no cases that fit; {open}");
    }
    let (shown, fit) = (grouped(v.cases.len() as u64), grouped(v.fit));
    let elsewhere = match v.fit_elsewhere {
        0 => String::new(),
        some => format!(", {} of them elsewhere", grouped(some)),
    };
    let more = v.next.as_ref().map_or(String::new(), |next| format!(" (`--after {next}` shows more)"));
    writeln!(out, "{rows}{shown} of {fit}{cases} that fit{elsewhere}{more}; {open}")
}

pub(super) fn named(c: &Case) -> &str {
    match (c.category_name.as_str(), c.category.as_str()) {
        ("", "") => "-",
        ("", code) => code,
        (name, _) => name,
    }
}

/// Those above the owner, and where the case was opened, hear of every step. Others that had it hear when it
/// is closed: until then it may have another owner.
fn as_heard(c: &Case, me: &str) -> &'static str {
    let is_sure = me.is_empty() || !c.status.is_open() || hears_all(me, &c.owner, &c.opened_at);
    if is_sure { "" } else { " (as last heard)" }
}

/// Does whoever is shown it hear whether it is late?
fn is_told(c: &Case, me: &str) -> bool {
    Address::parse(me).is_ok_and(|me| c.concerns(&me))
}

fn hears_all(me: &str, owner: &Address, opened_at: &Address) -> bool {
    Address::parse(me).is_ok_and(|me| me.covers(owner) || me == *opened_at)
}

fn due(c: &Case, me: &str, now: DateTime<Utc>, s: &Screen) -> (String, bool) {
    match c.due() {
        Some((clock, at)) => {
            let is_over = clock.missed.is_some() || (at < now && is_told(c, me));
            let stands = match clock.missed {
                Some(_) => ", missed",
                // That it is missed only its owner says.
                None if is_over => ", over",
                None if clock.missed_before => ", missed before",
                None => "",
            };
            (format!("{} {}{stands}", clock.name, s.zone.short(at)), is_over)
        }
        None => ("-".into(), false),
    }
}

pub fn case(v: &view::CaseShown, me: &str, now: DateTime<Utc>, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let stands = stands(c, !v.coming.is_empty(), v.not_coming.is_some(), v.not_over.is_some());
    let known = known(c, v.not_coming.is_some() || v.not_over.is_some());
    writeln!(out, "{}  {stands}{}  {}", c.id, if v.overdue { ", overdue" } else { "" }, clean(&c.title))?;
    what(v, s, out)?;
    places(v, out)?;
    reported(v, s, out)?;
    whose(v, me, s, out)?;
    handled(c, out)?;
    judged(c, out)?;
    assists(c, s, out)?;
    followed(c, out)?;
    for clock in &known.clocks {
        line(out, "clock", told(c, clock, me, now, s))?;
    }
    history(&v.history, s, out)?;
    waits(v, out)?;
    under_way(v, s, out)?;
    wishes(&v.wishes, out)?;
    for other in &v.similar {
        line(out, "similar", similar(other, &c.owner, now))?;
    }
    if let Some(to) = &v.asked {
        let whose = match *to == c.owner {
            _ if to.as_str() == me => "it waits here with the case".to_owned(),
            true => format!("{to} owns it and was asked"),
            false => format!("it is on its way to {to}, which was asked"),
        };
        line(out, "sent", format!("{whose}; its answer will stand here"))?;
    }
    let takes: Vec<&str> = v.allowed.iter().map(|verb| verb.as_str()).collect();
    let none = if v.unproven { "nothing until it has been taken" } else { "nothing by this token" };
    line(out, "takes", if takes.is_empty() { none.into() } else { takes.join(", ") })
}

fn line(out: &mut dyn Write, word: &str, text: String) -> io::Result<()> {
    writeln!(out, "{word:<12}{}", clean(&text))
}

fn what(v: &view::CaseShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let of = if c.department.is_empty() { String::new() } else { format!(", {}", c.department) };
    line(out, "what", format!("{} {}{of}, by {}", c.kind, named(c), c.channel))?;
    let w = &v.words;
    let step = if w.step > 0 { format!(", step {} of 7", w.step) } else { String::new() };
    let shown = !w.open311.is_empty();
    let open311 = if shown { format!("; Open311: {}, {}", w.open311, w.update) } else { String::new() };
    line(out, "elsewhere", format!("{}{step}; 12345: {}{open311}", w.urban, w.hotline))?;
    if !c.description.is_empty() {
        line(out, "described", c.description.clone())?;
    }
    if let Some(i) = &c.imported {
        let here = if c.version > i.version { "; dealt with here since then" } else { "" };
        line(out, "from", format!("{} of {}, as of {}{here}", i.id, i.source, s.zone.whole(i.updated)))?;
    }
    Ok(())
}

/// Where it was reported, and where it is now.
fn places(v: &view::CaseShown, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let now_at = v.moved_to.as_ref().or(c.place_again.as_ref());
    for (word, place) in [("where", c.place.as_ref()), ("now at", now_at)] {
        let Some(p) = place else { continue };
        let heard = if word == "now at" && v.moved_to.is_some() { "; its owner has not answered yet" } else { "" };
        line(out, word, format!("{p}{heard}"))?;
    }
    Ok(())
}

/// What else came with it.
fn reported(v: &view::CaseShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    if let Some(id) = &c.alarm {
        line(out, "alarm", v.alarm.as_ref().map_or(format!("{id}, which is not known here"), |a| alarm(a, s)))?;
    }
    if !c.form.is_empty() {
        let form: Vec<String> = c.form.iter().map(|(name, answer)| format!("{name}: {answer}")).collect();
        line(out, "answers", form.join("; "))?;
    }
    if !c.media.is_empty() {
        line(out, "media", c.media.join(" "))?;
    }
    Ok(())
}

/// Who has it, whose service it asks for, and whom to call.
fn whose(v: &view::CaseShown, me: &str, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let c = &v.case;
    let unit = c.unit_at_work().map_or(String::new(), |unit| format!(", {unit}"));
    let heard = as_heard(c, me);
    line(out, "owner", format!("{}{heard}{unit}; opened at {} {}", c.owner, c.opened_at, s.zone.short(c.opened)))?;
    if let Some(b) = &c.booking {
        let at = b.at.map_or(String::new(), |at| format!(", {}", s.zone.short(at)));
        let seats = if b.seats > 1 { format!(", {} seats", b.seats) } else { String::new() };
        let helps = if b.seat == Seat::Volunteer { ", as a volunteer" } else { "" };
        let form: Vec<String> = b.form.iter().map(|(name, answer)| format!("{name}: {answer}")).collect();
        let form = if form.is_empty() { String::new() } else { format!(" [{}]", form.join("; ")) };
        line(out, "service", format!("{} of {}{at}{seats}{helps}: {}{form}", b.name, b.node, state(b)))?;
    }
    if let Some(contact) = &v.contact {
        let more = contact.more.iter().map(|(name, answer)| format!("{name}: {answer}"));
        let words = [contact.name.clone(), contact.phone.clone(), contact.address.clone()].into_iter().chain(more);
        let words: Vec<String> = words.filter(|w| !w.is_empty()).collect();
        line(out, "to call", words.join(", "))?;
    } else if c.has_contact && !c.forgotten && !v.forgotten_here {
        // The owner has it, if it has come there with the case.
        let keeper = if c.contact_came { &c.owner } else { &c.opened_at };
        let is_below = Address::parse(me).is_ok_and(|me| me.covers(keeper));
        let kept = match &c.contact_lost {
            _ if v.contact_withheld => "withheld".to_owned(),
            Some(node) => format!("not known any more: it was lost with the disk of {node}"),
            None if keeper.as_str() == me => "not known here any more: it was lost with this node's disk".to_owned(),
            None if is_below => format!("kept at {keeper}: `citybrain case show {} --at {keeper}`", c.id),
            // Only a node above another asks it.
            None => format!("kept at {keeper}: ask there"),
        };
        line(out, "to call", kept)?;
    }
    Ok(())
}

/// What came of it, by those who worked on it.
fn handled(c: &Case, out: &mut dyn Write) -> io::Result<()> {
    if c.terms.as_ref().is_some_and(|terms| terms.excluded) {
        line(out, "excluded", "as all of its category: it is in no rate".into())?;
    }
    let to_show = c.terms.as_ref().map(|t| t.evidence.join(", ")).filter(|names| !names.is_empty());
    if let Some(names) = to_show.filter(|_| c.status.is_open() && c.outcome.is_none()) {
        line(out, "to show", format!("{names}, when it is solved"))?;
    }
    if let Some(o) = &c.outcome {
        let shown = if o.evidence.is_empty() { String::new() } else { format!(" [{}]", o.evidence.join(" ")) };
        line(out, "handler", format!("{} ({}): {}{shown}", o.solved, o.by, o.text))?;
    }
    if let Some(f) = &c.finding {
        line(out, "verifier", format!("{} ({}): {}", if f.passed { "passed" } else { "failed" }, f.by, f.text))?;
    }
    Ok(())
}

/// What residents say of it, in this round and in those before.
fn judged(c: &Case, out: &mut dyn Write) -> io::Result<()> {
    for w in c.verdicts() {
        let word = |w: Option<&str>| w.unwrap_or("no answer").to_owned();
        let (solved, satisfied) = (word(w.solved.map(|s| s.as_str())), word(w.satisfied.map(|s| s.as_str())));
        let by = if w.by == "resident" { String::new() } else { format!(" ({})", w.by) };
        let text = if w.text.is_empty() { String::new() } else { format!(": {}", w.text) };
        let who = if w.is_residents { "resident" } else { "noted" };
        line(out, who, format!("solved: {solved}, satisfied: {satisfied}{by}{text}"))?;
    }
    let j = &c.judged_before;
    let said = [
        ("solved", j.solved),
        ("partly solved", j.partly_solved),
        ("unsolved", j.unsolved),
        ("satisfied", j.satisfied),
        ("mostly satisfied", j.mostly_satisfied),
        ("not satisfied", j.dissatisfied),
    ];
    let said: Vec<String> = said.iter().filter(|(_, n)| *n > 0).map(|(word, n)| format!("{word} {n}")).collect();
    if !said.is_empty() {
        line(out, "before", format!("{}: what was said in rounds that are over, and stays counted", said.join(", ")))?;
    }
    Ok(())
}

/// Who was asked to help.
fn assists(c: &Case, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    for a in &c.assists {
        let done = a
            .reported
            .map_or("has not reported".to_owned(), |at| format!("reported {}: {}", s.zone.short(at), a.result));
        let rated = a.rating.map_or(String::new(), |r| format!("; rated {r} of 5"));
        let node = a.node.as_ref().map(ToString::to_string).filter(|node| *node != a.unit);
        let node = node.map_or(String::new(), |node| format!(" ({node})"));
        line(out, "assist", format!("{} {}{node}: {}; {done}{rated}", a.id, a.unit, a.reason))?;
    }
    Ok(())
}

/// The case that it follows, and those that follow it.
fn followed(c: &Case, out: &mut dyn Write) -> io::Result<()> {
    if let Some(main) = &c.merged_into {
        let ended = c.leader_ended.map(|e| e.reason.map_or(e.status.to_string(), |reason| reason.to_string()));
        line(
            out,
            "follows",
            format!("{main}{}", ended.map_or(String::new(), |how| format!(", which is over: {how}"))),
        )?;
    }
    if !c.followers.is_empty() {
        line(out, "followers", c.followers.join(", "))?;
    }
    Ok(())
}

/// Why it does not go on, and may have gone on.
fn waits(v: &view::CaseShown, out: &mut dyn Write) -> io::Result<()> {
    let Some(awaits) = &v.awaits else { return Ok(()) };
    let then = if v.unproven { "; this is how it stood then" } else { "" };
    line(out, "waits", format!("{}{then}", awaits.whole("cases")))
}

/// What its owner has not answered.
fn under_way(v: &view::CaseShown, s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    if let Some(said) = &v.not_coming {
        let who = v.case.accepted_by.as_deref().unwrap_or_default();
        let then = if v.coming.is_empty() { ": nobody comes until somebody accepts it" } else { "" };
        let text = format!(
            "{who} has accepted it and does not come, as {} of {} has said {}; the press's own box has not answered that \
             yet{then}",
            said.by,
            said.node,
            s.zone.short(said.at)
        );
        line(out, "not coming", text)?;
    }
    if let Some(said) = &v.not_over {
        let then = if v.coming.is_empty() { ": nobody comes until somebody accepts it" } else { "" };
        let text = format!(
            "{} of {} has said {} that it is not solved; the press's own box has not opened it again yet{then}",
            said.by,
            said.node,
            s.zone.short(said.at)
        );
        line(out, "not over", text)?;
    }
    for who in &v.coming {
        let text = format!(
            "{} of {}, since {}; the press's own box has not answered yet",
            who.by,
            who.node,
            s.zone.short(who.at)
        );
        line(out, "coming", text)?;
    }
    if v.forgotten_here {
        line(out, "forgotten", "here, at once; its owner was asked to".into())?;
    }
    Ok(())
}

/// The alarm beside a case, as it is now.
fn alarm(a: &view::Alarm, s: &Screen) -> String {
    let stands = match (a.cleared_at.filter(|_| !a.active), a.acknowledged_by.as_ref().filter(|_| a.acknowledged)) {
        (Some(at), _) => {
            format!("cleared {} by {}", s.zone.short(at), a.cleared_by.as_deref().unwrap_or("?"))
        }
        (None, Some(by)) => format!("active since {}, acked by {by}", s.zone.short(a.raised_at)),
        (None, None) => format!("active since {}, not acked", s.zone.short(a.raised_at)),
    };
    format!("{} {} {stands}: {}", a.id, a.severity.as_str(), a.title)
}

/// What whoever decides on a merger wants to know of the other one.
fn similar(other: &view::SimilarCase, owner: &Address, now: DateTime<Utc>) -> String {
    let away = other.distance_m.map_or("at the same place".to_owned(), |m| format!("{} m away", grouped(m)));
    let age = words::span((now - other.opened).num_milliseconds().unsigned_abs());
    let of = if other.owner == *owner { String::new() } else { format!(", of {}", other.owner) };
    format!("{} {}, {away}, opened {age} ago{of}: {}, {}", other.id, other.status, other.category, other.title)
}

/// Refusals that are shown, the newest, and whole, as their ends say how to go on: all of them are in `--json`.
const REFUSALS_SHOWN: usize = 3;

/// What this node has asked for: what has no answer yet, and why the newest others were refused.
fn wishes(all: &[view::CaseWish], out: &mut dyn Write) -> io::Result<()> {
    let refusals = all.iter().filter(|w| w.refused.is_some()).count();
    let mut older = refusals.saturating_sub(REFUSALS_SHOWN);
    if older > 0 {
        writeln!(out, "{:<12}{older} more that were refused before (`--json` has them)", "asked")?;
    }
    for w in all {
        let answer = match &w.refused {
            None => "no answer yet".to_owned(),
            Some(_) if older > 0 => {
                older -= 1;
                continue;
            }
            Some(why) => format!("refused: {}", as_flags(why)),
        };
        writeln!(out, "{:<12}{}", "asked", clean(&format!("{} by {} of {}: {answer}", w.verb, w.by, w.to)))?;
    }
    Ok(())
}

/// What a clock that stopped was to see, if that never came.
fn lacking(case: &Case, c: &Clock) -> Option<&'static str> {
    // A report after the end of the case is none that its clock has seen.
    let in_its_time = |at: DateTime<Utc>| c.stopped.is_none_or(|stopped| at <= stopped);
    let has_reported =
        || case.assists.iter().any(|a| assist_clock(&a.id) == c.name && a.reported.is_some_and(in_its_time));
    match c.name.as_str() {
        RESPONSE => case.responded().is_none().then_some("a response"),
        SOLUTION => (case.outcome.is_none() && !case.status.is_open()).then_some("a result"),
        CALL_BACK => case.ended_uncalled().then_some("a word of the resident"),
        _ if c.is_assist() => (!has_reported()).then_some("a report"),
        _ => None,
    }
}

fn told(case: &Case, c: &Clock, me: &str, now: DateTime<Utc>, s: &Screen) -> String {
    let state = match (c.stopped.zip(lacking(case, c)), c.stopped, c.due, c.missed) {
        (Some((at, what)), ..) => format!("stopped {}, without {what}", s.zone.short(at)),
        (None, Some(at), Some(due), _) => {
            format!("stopped {}, {}", s.zone.short(at), if at <= due { "in time" } else { "too late" })
        }
        (None, Some(at), None, _) => format!("stopped {}", s.zone.short(at)),
        (None, None, None, _) => "paused".into(),
        (None, None, Some(_), Some(at)) => format!("missed, seen {}", s.zone.short(at)),
        (None, None, Some(due), None) if due < now && !is_told(case, me) => "ran when it was last heard of".into(),
        (None, None, Some(due), None) if due < now && case.owner.as_str() != me => {
            "over; its owner has not said so".into()
        }
        (None, None, Some(due), None) if due < now => "over".into(),
        (None, None, Some(_), None) => "runs".into(),
    };
    let due = c.due.map_or(String::new(), |d| format!(", due {}", s.zone.short(d)));
    let before = c.due_before.filter(|_| c.missed_before);
    let before = before.map_or(String::new(), |d| format!("; missed before, when it was due {}", s.zone.short(d)));
    format!("{} {} from {}{due}: {state}{before}", c.name, c.limit, s.zone.short(c.started))
}

/// What was said, and whole what shows it: a place on the web that was cut leads nowhere.
fn said(what: &str, shows: &str) -> String {
    match (what, shows) {
        (what, "") => what.to_owned(),
        ("", shows) => format!("[{shows}]"),
        (what, shows) => format!("{what} [{shows}]"),
    }
}

/// `solution runs until TIME`, with the time as all others are shown.
fn in_zone(text: &str, s: &Screen) -> String {
    let parts = text.rsplit_once(' ').and_then(|(said, at)| Some((said, at.parse::<DateTime<Utc>>().ok()?)));
    parts.map_or_else(|| text.to_owned(), |(said, at)| format!("{said} {}", s.zone.short(at)))
}

fn history(entries: &[Entry], s: &Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut table = s.table(&["STEP", "WHEN", "WHERE", "WHO", "WHAT", "CLOCKS"]);
    for e in entries {
        let beside = e.role.filter(|r| r.as_str() != e.by);
        let who = beside.map_or(e.by.clone(), |r| format!("{} ({r})", e.by));
        let from = e.from.as_ref().map_or(String::new(), |f| format!(", from {f}"));
        let what = [e.to.clone().unwrap_or_default(), e.text.clone()];
        let shows = e.evidence.join(" ");
        let what: Vec<&str> = what.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
        table.add_row(vec![
            Cell::new(format!("{:>2} {}", e.version, e.step)),
            Cell::new(s.zone.short(e.at)),
            Cell::new(format!("{}{from}", e.node)),
            Cell::new(clean(&who)),
            Cell::new(clean(&said(&what.join(": "), &shows))),
            Cell::new(clean(&e.clocks.iter().map(|text| in_zone(text, s)).collect::<Vec<_>>().join("; "))),
        ]);
    }
    print(&table, out)
}

/// What came of a file of another system's cases.
pub fn brought(v: &view::CasesBrought, out: &mut dyn Write) -> io::Result<()> {
    let skipped: u64 = v.skipped.values().sum();
    writeln!(
        out,
        "{} rows: {} cases, {} skipped; nodes that got some: {}; {:.1} s",
        grouped(v.rows),
        grouped(v.cases),
        grouped(skipped),
        v.nodes.len(),
        v.wall_s
    )?;
    writeln!(
        out,
        "accounts told: {}; new cases {}, changed {}, nothing new {}, refused {}",
        grouped(v.accounts),
        grouped(v.opened),
        grouped(v.changed),
        grouped(v.known),
        grouped(v.refused)
    )?;
    if v.too_early > 0 {
        let n = grouped(v.too_early);
        writeln!(out, "  closed or changed before they were opened: {n}, told as of when they were opened")?;
    }
    for (label, n) in &v.skipped {
        writeln!(out, "  skipped: {} {}", grouped(*n), clean(label))?;
    }
    for s in &v.first_skipped {
        writeln!(out, "    line {}: {}", s.line, clean(&s.reason))?;
    }
    for r in &v.first_refused {
        writeln!(out, "  refused: {}: {}", clean(&r.id), clean(&r.detail))?;
    }
    for (node, n) in &v.nodes {
        writeln!(out, "{:>9}  {node}", grouped(*n))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::export::tests::{clock, with};
    use super::*;
    use crate::cli::render::clock::Zone;

    const PLAIN: Screen =
        Screen { json: false, color: false, color_stderr: false, width: None, zone: Zone::utc_in(2026) };

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The screen of one case, as node `me` shows it at noon.
    fn screen(case: &Case, me: &str, change: impl FnOnce(&mut view::CaseShown)) -> String {
        let mut shown = view::CaseShown {
            case: case.clone(),
            history: Vec::new(),
            overdue: false,
            due: None,
            words: case.words(),
            allowed: Vec::new(),
            unproven: false,
            awaits: None,
            asked: None,
            wishes: Vec::new(),
            coming: Vec::new(),
            not_coming: None,
            not_over: None,
            moved_to: None,
            forgotten_here: false,
            contact: None,
            contact_withheld: false,
            similar: Vec::new(),
            alarm: None,
        };
        change(&mut shown);
        let mut out = Vec::new();
        super::case(&shown, me, at("2026-11-20T12:00:00Z"), &PLAIN, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_clock_says_what_is_known_of_it_and_no_more() {
        let stopped = |name: &str| clock(name, serde_json::json!({"stopped": "2026-11-20T03:00:00Z"}));
        let assist = serde_json::json!({"id": "a1", "unit": "u", "asked": "2026-11-20T02:00:00Z", "reason": "r"});
        let (runs, withdrawn) = (clock("solution", serde_json::json!({})), serde_json::json!("withdrawn"));
        let much_later = serde_json::json!({"due": "2027-01-04T04:00:00Z"});
        let in_time = serde_json::json!({"stopped": "2026-11-20T03:00:00Z"});
        let extended = |more: &serde_json::Value| {
            let mut more = more.clone();
            (more["due_before"], more["missed_before"]) = ("2026-11-20T01:00:00Z".into(), true.into());
            clock("solution", more)
        };
        for (case, me, says) in [
            (serde_json::json!({"clocks": [runs]}), "c", "due 11-20 04:00:00Z: over; its owner has not said so"),
            (serde_json::json!({"clocks": [runs]}), "c/s/a", "due 11-20 04:00:00Z: over\n"),
            (
                serde_json::json!({"clocks": [clock("solution", serde_json::json!({"due": "2027-01-04T04:00:00Z"}))]}),
                "c",
                "due 2027-01-04 04:00:00Z: runs",
            ),
            (serde_json::json!({"clocks": [stopped("solution")]}), "c", "stopped 11-20 03:00:00Z, in time\n"),
            (
                serde_json::json!({"clocks": [extended(&much_later)]}),
                "c",
                "runs; missed before, when it was due 11-20 01:00:00Z",
            ),
            (
                serde_json::json!({"clocks": [extended(&in_time)]}),
                "c",
                "stopped 11-20 03:00:00Z, in time; missed before, when it was due 11-20 01:00:00Z",
            ),
            (
                serde_json::json!({"clocks": [stopped("solution")], "status": withdrawn}),
                "c",
                "stopped 11-20 03:00:00Z, without a result",
            ),
            (
                serde_json::json!({"clocks": [stopped("assist:a1")], "assists": [assist]}),
                "c",
                "stopped 11-20 03:00:00Z, without a report",
            ),
        ] {
            let told = screen(&with(case.clone()), me, |_| {});
            assert!(told.contains(says), "{says}: {told}");
        }
        let mut reported = assist;
        reported["reported"] = "2026-11-20T03:00:00Z".into();
        let case = with(serde_json::json!({"clocks": [stopped("assist:a1")], "assists": [&reported]}));
        assert!(screen(&case, "c", |_| {}).contains("stopped 11-20 03:00:00Z, in time"));
        // It was the end of the case that stopped the clock.
        reported["reported"] = "2026-11-20T05:00:00Z".into();
        let case = with(serde_json::json!({"clocks": [stopped("assist:a1")], "assists": [reported]}));
        assert!(screen(&case, "c", |_| {}).contains("stopped 11-20 03:00:00Z, without a report"));
        // What the resident says after the end of the case is no word in time.
        let said = |closed: &str, at: &str| {
            let case = with(serde_json::json!({
                "clocks": [stopped("call_back")], "status": "closed", "closed": closed,
                "verdict": {"by": "resident", "is_residents": true, "at": at, "solved": "solved"},
            }));
            screen(&case, "c", |_| {}).lines().find(|l| l.starts_with("clock")).unwrap().to_owned()
        };
        let (asked, later) = ("2026-11-20T03:00:00Z", "2026-11-20T05:00:00Z");
        assert!(said(asked, later).ends_with("stopped 11-20 03:00:00Z, without a word of the resident"));
        // He says more than when he was asked.
        assert!(said("2026-11-20T04:00:00Z", later).ends_with("stopped 11-20 03:00:00Z, in time"));
        // In a list, too.
        let listed = [serde_json::json!({"clocks": [runs]}), serde_json::json!({"clocks": [extended(&much_later)]})];
        let list = view::Cases {
            cases: listed.into_iter().map(with).collect(),
            fit: 2,
            fit_elsewhere: 0,
            open: 2,
            overdue: 1,
            open_elsewhere: 0,
            contacts: Default::default(),
            coming: Default::default(),
            not_coming: Default::default(),
            not_over: Default::default(),
            of: None,
            of_others: None,
            away: vec![],
            awaits: None,
            next: None,
        };
        let mut out = Vec::new();
        cases(&list, "c", at("2026-11-20T12:00:00Z"), &PLAIN, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("solution 11-20 04:00:00Z, over"), "{out}");
        assert!(out.contains("solution 2027-01-04 04:00:00Z, missed before"), "{out}");
    }

    #[test]
    fn a_press_to_which_somebody_comes_says_so_in_what_is_supervised_too() {
        let case = with(serde_json::json!({"status": "submitted", "urgent": true}));
        let coming = serde_json::json!({
            "node": "c", "by": "王", "at": "2026-11-20T02:00:00Z", "wish": "w", "term": 1, "version": 1,
        });
        let told = |coming: serde_json::Value| {
            let told = serde_json::json!({
                "overdue": [case], "overdue_in_all": 1, "suspended": [case], "suspended_in_all": 1,
                "reopened": [case], "reopened_in_all": 1, "hot_spots": [], "repeat_callers": [],
                "coming": coming, "at": "2026-11-20T12:00:00Z",
            });
            let mut out = Vec::new();
            super::super::supervision::supervision(&serde_json::from_value(told).unwrap(), &PLAIN, &mut out).unwrap();
            String::from_utf8(out).unwrap().matches("submitted (coming)").count()
        };
        assert_eq!((told(serde_json::json!({case.id.clone(): [coming]})), told(serde_json::json!({}))), (3, 0));
    }

    #[test]
    fn a_press_that_nobody_comes_to_any_more_says_so_and_since_when_it_is_over_its_limit() {
        let case = with(serde_json::json!({
            "status": "accepted", "urgent": true, "accepted_by": "王", "clocks": [{
                "name": "response", "limit": "15m", "started": "2026-11-20T02:00:00Z", "due": "2026-11-20T02:15:00Z",
                "stopped": "2026-11-20T02:01:00Z",
            }],
        }));
        let said = denial();
        let shown = screen(&case, "c", |shown| shown.not_coming = Some(said.clone()));
        assert!(shown.starts_with(&format!("{}  accepted (nobody comes)  ", case.id)), "{shown}");
        let line = "not coming  王 has accepted it and does not come, as 街长 of c/s has said 11-20 02:02:00Z; the press's \
                    own box has not answered that yet: nobody comes until somebody accepts it\n";
        assert!(shown.contains(line), "{shown}");
        let listed = |not_coming: serde_json::Value, coming: serde_json::Value| {
            let list = serde_json::json!({
                "cases": [case], "fit": 1, "open": 1, "overdue": 1, "not_coming": not_coming, "coming": coming,
            });
            let mut out = Vec::new();
            let list = serde_json::from_value(list).unwrap();
            super::cases(&list, "c", at("2026-11-20T12:00:00Z"), &PLAIN, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let none = serde_json::json!({});
        let (not, is) = (serde_json::json!({case.id.clone(): said}), serde_json::json!({case.id.clone(): []}));
        let list = listed(not.clone(), none.clone());
        assert!(list.contains("accepted (nobody comes)") && list.contains("response 11-20 02:15:00Z, over"), "{list}");
        // Somebody else does.
        let list = listed(not, is);
        assert!(list.contains("accepted (coming)") && !list.contains("nobody"), "{list}");
        assert!(!listed(none.clone(), none).contains("response"), "who has accepted it comes");
    }

    #[test]
    fn a_clock_of_a_press_that_nobody_comes_to_is_not_said_to_have_stopped_in_time() {
        let clock = |name: &str| {
            clock(name, serde_json::json!({"due": "2026-11-20T02:15:00Z", "stopped": "2026-11-20T02:01:00Z"}))
        };
        let case = with(serde_json::json!({
            "status": "accepted", "urgent": true, "signed": "2026-11-20T02:01:00Z",
            "clocks": [clock("response"), clock("climb"), clock("dispatch")],
        }));
        let clocks = |is_said: bool| {
            let shown = screen(&case, "c", |shown| {
                shown.not_coming = Some(denial()).filter(|_| is_said);
                shown.overdue = is_said;
            });
            shown.lines().filter(|line| line.starts_with("clock")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(clocks(false)[0].ends_with("in time"), "{:?}", clocks(false));
        let [response] = &clocks(true)[..] else { panic!("{:?}", clocks(true)) };
        assert!(response.starts_with("clock       response ") && response.ends_with("over; its owner has not said so"));
    }

    #[test]
    fn a_press_that_is_closed_and_not_over_says_so_and_who_has_said_it() {
        let case = with(serde_json::json!({
            "status": "closed", "urgent": true, "closed": "2026-11-20T01:00:00Z", "closed_reason": "solved",
        }));
        let shown = screen(&case, "c", |shown| shown.not_over = Some(denial()));
        assert!(shown.starts_with(&format!("{}  closed (reopened)  ", case.id)), "{shown}");
        let line = "not over    街长 of c/s has said 11-20 02:02:00Z that it is not solved; the press's own box has not opened \
                    it again yet: nobody comes until somebody accepts it\n";
        assert!(shown.contains(line), "{shown}");
        let listed = |beside: serde_json::Value| {
            let mut list = serde_json::json!({"cases": [case], "fit": 1, "open": 1, "overdue": 0});
            list.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
            let mut out = Vec::new();
            let list = serde_json::from_value(list).unwrap();
            super::cases(&list, "c", at("2026-11-20T12:00:00Z"), &PLAIN, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let (id, none) = (case.id.clone(), serde_json::json!({}));
        let list = listed(serde_json::json!({"not_over": {id.clone(): denial()}}));
        assert!(list.contains(" closed (reopened) "), "{list}");
        let list = listed(serde_json::json!({"not_over": {id.clone(): denial()}, "coming": {id: []}}));
        assert!(list.contains(" closed (coming) "), "{list}");
        assert!(listed(none).contains(" closed (solved) "));
    }

    fn denial() -> Denial {
        let (by, node, wish) = ("街长".into(), Address::parse("c/s").unwrap(), "w".into());
        Denial { by, node, at: at("2026-11-20T02:02:00Z"), wish }
    }

    #[test]
    fn the_foot_of_a_list_says_what_is_known_of_nodes_above_and_beside_apart() {
        let foot = |elsewhere: (u64, u64), cases: Vec<Case>| {
            let list = view::Cases {
                cases,
                fit: 3,
                fit_elsewhere: elsewhere.0,
                open: 2,
                overdue: 1,
                open_elsewhere: elsewhere.1,
                contacts: Default::default(),
                coming: Default::default(),
                not_coming: Default::default(),
                not_over: Default::default(),
                of: None,
                of_others: None,
                away: vec![],
                awaits: None,
                next: None,
            };
            let mut out = Vec::new();
            super::cases(&list, "c", at("2026-11-20T12:00:00Z"), &PLAIN, &mut out).unwrap();
            String::from_utf8(out).unwrap().lines().last().unwrap().to_owned()
        };
        let one = || vec![with(serde_json::json!({}))];
        assert_eq!(foot((0, 0), one()), "1 of 3 that fit; 2 are open, 1 of them overdue");
        let open = "2 are open here and below, 1 of them overdue, and 4 elsewhere";
        assert_eq!(foot((2, 4), one()), format!("1 of 3 that fit, 2 of them elsewhere; {open}"));
        assert_eq!(foot((0, 4), Vec::new()), format!("no cases that fit; {open}"));
    }

    #[test]
    fn a_clock_that_was_missed_and_extended_says_so_also_while_it_is_paused() {
        let paused = |more: serde_json::Value| {
            let mut clock = clock("solution", more);
            clock["due"] = serde_json::Value::Null;
            screen(&with(serde_json::json!({"clocks": [clock]})), "c", |_| {})
        };
        let missed = serde_json::json!({"due_before": "2026-11-20T04:00:00Z", "missed_before": true});
        assert!(paused(missed).contains(": paused; missed before, when it was due 11-20 04:00:00Z\n"));
        assert!(paused(serde_json::json!({})).contains("02:00:00Z: paused\n"));
    }

    #[test]
    fn where_whom_to_call_is_not_shown_it_says_who_has_it() {
        let shown = |more: serde_json::Value, me: &str, withheld: bool| {
            let mut case = serde_json::json!({"opened_at": "c/s/a/n", "has_contact": true, "contact_came": true});
            for (key, value) in more.as_object().unwrap() {
                case[key] = value.clone();
            }
            let told = screen(&with(case), me, |shown| shown.contact_withheld = withheld);
            told.lines().find_map(|line| line.strip_prefix("to call     ").map(str::to_owned))
        };
        let known = |more: serde_json::Value, me: &str| shown(more, me, false);
        let of = |node: &str| Some(format!("kept at {node}: `citybrain case show 20261120-0 --at {node}`"));
        let as_it_is = || serde_json::json!({});
        assert_eq!(known(as_it_is(), "c/s"), of("c/s/a"));
        assert_eq!(shown(as_it_is(), "c/s/a", true).as_deref(), Some("withheld"), "from whoever may only read");
        let lost = Some("not known here any more: it was lost with this node's disk");
        assert_eq!(known(as_it_is(), "c/s/a").as_deref(), lost);
        // Only a node above can be asked for it by way of this one.
        for beside in ["c/s/b", "c/s/a/n", "c/s/ab"] {
            assert_eq!(known(as_it_is(), beside).as_deref(), Some("kept at c/s/a: ask there"), "{beside}");
        }
        // It did not travel with the case.
        assert_eq!(known(serde_json::json!({"contact_came": false}), "c/s/a"), of("c/s/a/n"));
        // Its owner knows that it is lost, and so does whoever has heard of that.
        let gone = || serde_json::json!({"contact_came": false, "contact_lost": "c/s/a"});
        for node in ["c", "c/s", "c/s/a", "c/s/a/n"] {
            let told = known(gone(), node);
            assert_eq!(told.as_deref(), Some("not known any more: it was lost with the disk of c/s/a"), "{node}");
        }
        assert_eq!(known(serde_json::json!({"forgotten": true}), "c/s"), None);
        assert_eq!(known(serde_json::json!({"has_contact": false}), "c/s"), None);
    }

    #[test]
    fn a_refusal_is_shown_to_its_end_which_says_how_to_go_on() {
        let why = format!("{}; `citybrain case show 20261120-0` says how it stands", "it is so ".repeat(40));
        let wish = serde_json::json!({"id": "w1", "verb": "accept", "by": "w", "to": "c/s/a", "refused": why});
        let told = screen(&with(serde_json::json!({})), "c", |shown| {
            shown.wishes.push(serde_json::from_value(wish).unwrap());
        });
        assert!(told.contains(&format!("asked       accept by w of c/s/a: refused: {why}\n")), "{told}");
    }

    #[test]
    fn a_line_of_history_has_its_times_as_all_others_are_shown() {
        let entry = serde_json::json!({
            "term": 1, "version": 2, "step": "accepted", "at": "2026-11-20T02:00:00Z", "node": "c/s/a", "by": "w",
            "clocks": ["solution runs until 2026-11-29T21:27:00.491Z", "response stopped"],
        });
        let entry: Entry = serde_json::from_value(entry).unwrap();
        let told = screen(&with(serde_json::json!({})), "c", |shown| shown.history.push(entry));
        assert!(told.contains("solution runs until 11-29 21:27:00Z; response stopped"), "{told}");
    }

    #[test]
    fn who_was_asked_owns_the_case_or_is_to_get_it() {
        let to = |node: &str| {
            let node = Address::parse(node).unwrap();
            screen(&with(serde_json::json!({})), "c", |shown| shown.asked = Some(node))
        };
        assert!(to("c/s/a").contains("c/s/a owns it and was asked; its answer will stand here"));
        assert!(to("c/s/b").contains("it is on its way to c/s/b, which was asked; its answer will stand here"));
    }

    #[test]
    fn a_node_s_summons_are_listed_by_when_they_are_to_be_answered() {
        let assist = |id: &str, node: &str, more: serde_json::Value| {
            let mut assist = serde_json::json!({
                "id": id, "unit": format!("unit-{id}"), "node": node, "asked": "2026-11-20T02:00:00Z", "reason": "crane",
            });
            for (key, value) in more.as_object().unwrap() {
                assist[key] = value.clone();
            }
            assist
        };
        let case = with(serde_json::json!({
            "clocks": [
                clock("solution", serde_json::json!({"due": "2026-11-20T11:00:00Z"})),
                clock("assist:a1", serde_json::json!({"due": "2026-11-20T13:00:00Z"})),
                clock("assist:a4", serde_json::json!({"stopped": "2026-11-20T03:00:00Z"})),
            ],
            "assists": [
                assist("a1", "c/s/b", serde_json::json!({})),
                assist("a2", "c/s/x", serde_json::json!({})),
                assist("a3", "c/s/b", serde_json::json!({"reported": "2026-11-20T03:00:00Z"})),
                assist("a4", "c/s/b", serde_json::json!({})),
            ],
        }));
        let list = view::Cases {
            cases: vec![case],
            fit: 1,
            fit_elsewhere: 0,
            open: 1,
            overdue: 0,
            open_elsewhere: 0,
            contacts: Default::default(),
            coming: Default::default(),
            not_coming: Default::default(),
            not_over: Default::default(),
            of: None,
            of_others: None,
            away: vec![],
            awaits: None,
            next: None,
        };
        let mut out = Vec::new();
        summoned(&list, "c/s/b", at("2026-11-20T12:00:00Z"), &PLAIN, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<&str>> =
            out.lines().map(|line| line.split("  ").filter(|c| !c.is_empty()).collect()).collect();
        let row =
            ["20261120-0", "a1", "dispatched", "unit-a1", "11-20 13:00:00Z", "crane", "c/s/a (as last heard)", "t"];
        assert_eq!(rows[1].iter().map(|cell| cell.trim()).collect::<Vec<_>>(), row, "{out}");
        assert_eq!(rows[2][4].trim(), "-", "its time ran out with the case: {out}");
        assert_eq!(rows[3..].concat(), ["2 summons to 1 of 1 cases that fit; 1 are open, 0 of them overdue"], "{out}");
    }

    #[test]
    fn the_owner_of_a_case_is_hearsay_where_its_steps_are_not_told() {
        let [owner, opened_at] = ["c/t/n", "c/s"].map(|a| Address::parse(a).unwrap());
        for (me, want) in [("c", true), ("c/t", true), ("c/t/n", true), ("c/s", true), ("c/t/m", false)] {
            assert_eq!(hears_all(me, &owner, &opened_at), want, "{me}");
        }
    }
}
