//! Which events are meant: by header, by attributes, by a condition in CEL.

use super::guard::Caller;
use super::{Ctx, Refusal, events};
use crate::brain::rules::expression::{Expression, Facts, Fault, NodeFacts, Scope, Wants};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use citybrain_shared::config::Node;
use citybrain_shared::record::{Header, Kind};
use citybrain_shared::view::CountBy;
use citybrain_shared::{Address, Lane, event};
use serde::Deserialize;
use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of a condition, bytes: several screens' lines; what reads it goes one call deeper for each bracket.
const CONDITION_BYTES_MAX: usize = 1_000;
/// Of one piece of work (a part of a stream, the newest, a count), spent on its condition: some 200,000
/// events by an ordinary one.
const CONDITION_WORK_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Only after this position; from the beginning without it, and with `follow` from now on.
    pub(super) after: Option<u64>,
    /// At most this many lines.
    pub(super) limit: Option<NonZeroUsize>,
    /// Instead of `after`: the newest so many that fit.
    pub(super) last: Option<usize>,
    /// A type, or the beginning of one with `*`.
    #[serde(rename = "type")]
    event_type: Option<String>,
    source: Option<String>,
    /// The node where it began; `c/s/*` for all that begin so.
    origin: Option<String>,
    governance: Option<String>,
    /// A condition in CEL, such as `event.data.pm25 > 75.0`; an event that lacks what it names does not fit.
    #[serde(rename = "where")]
    condition: Option<String>,
    priority: Option<Lane>,
    /// Committed here at this time or later, by this node's clock.
    pub(super) time_after: Option<DateTime<Utc>>,
    time_before: Option<DateTime<Utc>>,
    /// Stay, and send what is committed from now on; before that what `after`, `last` or `time_after` asks for, if any.
    pub(super) follow: bool,
    /// Also the events in which nodes tell who they are.
    presence: bool,
}

impl Wanted {
    /// A list that is empty because of a slip says so.
    fn check(&self) -> Result<(), Refusal> {
        if let Some(word) = self.governance.as_deref().filter(|word| !event::GOVERNANCE.contains(word)) {
            let detail = format!("`{word}` is none of {}", event::GOVERNANCE.join(", "));
            return Err(Refusal::bad("bad-query", detail, "`governance` says by what something is governed"));
        }
        for (name, wanted) in [("type", &self.event_type), ("source", &self.source)] {
            let text = wanted.as_deref().unwrap_or_default();
            if let Some((begins, _)) = text.strip_suffix('*').unwrap_or(text).split_once('*') {
                let hint = format!("`{begins}*` takes all that begin so");
                return Err(Refusal::bad("bad-query", format!("`{name}`: a `*` stands at the end only"), hint));
            }
        }
        let begins = self.origin.as_deref().map(|origin| origin.strip_suffix('*').unwrap_or(origin));
        let begins =
            begins.map(|origin| origin.strip_suffix('/').unwrap_or(origin)).filter(|origin| !origin.is_empty());
        match begins.map(Address::parse) {
            Some(Err(error)) => {
                Err(Refusal::bad("bad-query", format!("`origin`: {error}"), "such as `c/s` or `c/s/*`"))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// When its condition is none, or no event can be of that governance or origin.
    pub(super) fn filter(&self, ctx: &Ctx, caller: Caller) -> Result<Filter, Refusal> {
        let condition = self.condition.as_deref().map(|text| Condition::new(text, ctx)).transpose()?;
        self.check()?;
        Ok(Filter {
            event_type: self.event_type.clone(),
            source: self.source.clone(),
            origin: self.origin.clone(),
            governance: self.governance.clone(),
            lane: self.priority,
            after_us: self.time_after.map(|t| t.timestamp_micros()),
            before_us: self.time_before.map(|t| t.timestamp_micros()),
            presence: self.presence,
            own: ctx.address().to_owned(),
            short: false,
            condition,
            caller,
            forgotten: events::Forgotten::of(&ctx.hub),
        })
    }
}

/// A condition in CEL, and the node whose events it is asked about.
pub(super) struct Condition {
    expression: Expression,
    node: Arc<NodeFacts>,
    /// Of the piece of work that is under way, microseconds.
    spent_us: AtomicU64,
    /// Its time was over within an evaluation, which has no answer then.
    is_cut: AtomicBool,
}

impl Condition {
    fn new(text: &str, ctx: &Ctx) -> Result<Condition, Refusal> {
        let expression = condition(text).map_err(|fault| {
            let help = if fault.help.is_empty() { "such as `event.data.pm25 > 75.0`".to_owned() } else { fault.help };
            Refusal::bad("bad-query", format!("`where={text}`: {}", fault.message), help)
        })?;
        Ok(Condition::of(expression, &ctx.config.node))
    }

    fn of(expression: Expression, node: &Node) -> Condition {
        Condition {
            expression,
            node: Arc::new(NodeFacts::new(node)),
            spent_us: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        }
    }

    /// No, too, where its time is over meanwhile.
    fn holds(&self, header: &Header<'_>, payload: &[u8], own: &str) -> bool {
        let began = Instant::now();
        let spent = Duration::from_micros(self.spent_us.load(Ordering::Relaxed));
        let left = CONDITION_WORK_MAX.saturating_sub(spent);
        let may_go_on = || {
            let in_time = began.elapsed() <= left;
            if !in_time {
                self.is_cut.store(true, Ordering::Relaxed);
            }
            in_time
        };
        let origin = header.origin.map_or(own, |at| at.address);
        let facts = Facts::new(payload, origin, header.committed_us, &self.node);
        let holds = facts.is_some_and(|facts| self.expression.truth_while(&facts, None, &may_go_on).unwrap_or(false));
        self.spent_us.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        holds && !self.is_cut.load(Ordering::Relaxed)
    }
}

/// # Errors
/// What is wrong with it, or why it is too dear: whoever may read could fill a node's memory by one line.
pub fn condition(text: &str) -> Result<Expression, Fault> {
    let fault = |message: &str, help: &str| Fault { message: message.into(), at: 0..text.len(), help: help.into() };
    if text.len() > CONDITION_BYTES_MAX {
        return Err(fault(&format!("it is longer than {CONDITION_BYTES_MAX} bytes"), "ask for less at a time"));
    }
    let compiled = Expression::compile(text, Scope { window: false }, Wants::Bool);
    let expression = compiled.map_err(|faults| {
        faults.into_iter().next().unwrap_or_else(|| fault("it does not read", "such as `event.data.pm25 > 75.0`"))
    })?;
    expression.judge_cost().map_err(|(does, instead)| fault(&does, instead))?;
    Ok(expression)
}

/// Which records.
#[derive(Default)]
pub(super) struct Filter {
    pub(super) event_type: Option<String>,
    pub(super) source: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) governance: Option<String>,
    pub(super) lane: Option<Lane>,
    pub(super) after_us: Option<i64>,
    pub(super) before_us: Option<i64>,
    pub(super) presence: bool,
    pub(super) own: String,
    /// [`citybrain_shared::view::Record`] instead of [`citybrain_shared::view::Event`].
    pub(super) short: bool,
    pub(super) condition: Option<Condition>,
    pub(super) caller: Caller,
    pub(super) forgotten: events::Forgotten,
}

impl Filter {
    /// A new piece of work, with all of its time.
    pub(super) fn begin(&self) {
        if let Some(condition) = &self.condition {
            condition.spent_us.store(0, Ordering::Relaxed);
            condition.is_cut.store(false, Ordering::Relaxed);
        }
    }

    /// Has the condition had its time? What is looked at then is not looked at by it.
    pub(super) fn is_spent(&self) -> bool {
        let spent = self.condition.as_ref().map_or(0, |c| c.spent_us.load(Ordering::Relaxed));
        self.is_cut() || spent > u64::try_from(CONDITION_WORK_MAX.as_micros()).unwrap_or(u64::MAX)
    }

    /// Was its time over while it looked at the record that came last? Then nobody knows whether that fits.
    pub(super) fn is_cut(&self) -> bool {
        self.condition.as_ref().is_some_and(|c| c.is_cut.load(Ordering::Relaxed))
    }

    /// # Errors
    /// When a piece of work that must be done whole was too long.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if !self.is_spent() {
            return Ok(());
        }
        let detail = format!("the condition takes more than {} s of this node's time", CONDITION_WORK_MAX.as_secs());
        let hint = "look at less: `?type=…`, `?origin=…`, `?time_after=…`; or `?after=POS`, which comes in parts";
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-long", detail, hint))
    }

    /// By what is in its header.
    pub(super) fn wants_header(&self, header: &Header<'_>) -> bool {
        header.kind.is_event()
            && (header.kind != Kind::Presence || self.presence)
            && self.event_type.as_deref().is_none_or(|t| fits(t, header.name))
            && self.origin.as_deref().is_none_or(|o| fits(o, header.origin.map_or(&self.own, |at| at.address)))
            && self.after_us.is_none_or(|us| header.committed_us >= us)
            && self.before_us.is_none_or(|us| header.committed_us < us)
    }

    /// By what has to be read of the event itself. Nobody learns by a condition what he may not read.
    pub(super) fn wants_payload(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        if self.source.is_some() || self.governance.is_some() {
            let Some(probe) = probe(payload) else { return false };
            let fits = self.source.as_deref().is_none_or(|s| fits(s, &probe.source))
                && self.governance.as_deref().is_none_or(|g| g == probe.governance);
            if !fits {
                return false;
            }
        }
        self.condition.as_ref().is_none_or(|condition| match self.forgotten.withheld(&self.caller, header, payload) {
            None => condition.holds(header, payload, &self.own),
            Some(why) => condition.holds(header, events::without_data(payload, why).get().as_bytes(), &self.own),
        })
    }

    pub(super) fn wants(&self, header: &Header<'_>, payload: &[u8]) -> bool {
        self.lane.is_none_or(|lane| lane == header.lane)
            && self.wants_header(header)
            && self.wants_payload(header, payload)
    }

    /// What an event is counted under.
    pub(super) fn name(&self, by: CountBy, header: &Header<'_>, payload: &[u8]) -> String {
        match by {
            CountBy::Type => header.name.to_owned(),
            CountBy::Origin => header.origin.map_or(self.own.as_str(), |at| at.address).to_owned(),
            CountBy::Source => probe(payload).map(|p| p.source.into_owned()).unwrap_or_default(),
            CountBy::Priority => header.lane.as_str().to_owned(),
        }
    }
}

/// A word, or the beginning of one with `*` at its end.
fn fits(pattern: &str, word: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == word, |stem| word.starts_with(stem))
}

/// What is wanted of an event's bytes when they are only passed on.
#[derive(Default, Deserialize)]
pub(super) struct Probe<'a> {
    #[serde(borrow, default)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    #[serde(borrow, default)]
    governance: Cow<'a, str>,
}

pub(super) fn probe(payload: &[u8]) -> Option<Probe<'_>> {
    serde_json::from_slice(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, caller: Caller) -> Filter {
        let node: Node = toml::from_str("address = \"c\"\ndata = \"d\"").unwrap();
        let condition = Condition::of(condition(text).unwrap(), &node);
        Filter { own: "c".into(), condition: Some(condition), caller, ..Filter::default() }
    }

    #[test]
    fn a_condition_is_asked_of_each_event_and_what_lacks_a_field_does_not_fit() {
        let header = Header::local(Kind::Event, "city.air.v1");
        let payload =
            |data: &str| format!("{{\"id\":\"1\",\"source\":\"/x\",\"type\":\"city.air.v1\",\"data\":{data}}}");
        for (text, data, want) in [
            ("event.data.pm25 > 75", "{\"pm25\":76}", true),
            ("event.data.pm25 > 75", "{\"pm25\":75}", false),
            ("event.data.pm25 > 75", "{}", false),
            ("event.data.pm25 > 75", "\"text\"", false),
            ("event.type == 'city.air.v1' && event.origin == node.address", "{}", true),
            ("event.data.tags.exists(t, t == '水')", "{\"tags\":[\"电\",\"水\"]}", true),
            ("event.data.tags.filter(t, t != '水').size() > 1", "{\"tags\":[\"电\",\"水\",\"气\"]}", true),
            ("event.data.tags.exists_one(t, t == '水' || t.startsWith('气'))", "{\"tags\":[\"电\",\"水\"]}", true),
            ("event.data.a + event.data.b + 1 > 5", "{\"a\":2,\"b\":3}", true),
            ("event.type in ['a', 'b', 'c', 'd', 'e', 'city.air.v1']", "{}", true),
            ("[event.data.a, event.data.b].exists(n, n > 2)", "{\"a\":2,\"b\":3}", true),
            ("event.data.text.matches('^lamp-[0-9]+$')", "{\"text\":\"lamp-7\"}", true),
            (
                "int(event.data.a) + int(event.data.b) + int(event.data.a) + int(event.data.b) + int(event.data.a) == 12",
                "{\"a\":\"2\",\"b\":\"3\"}",
                true,
            ),
        ] {
            assert_eq!(with(text, Caller::Operator).wants(&header, payload(data).as_bytes()), want, "{text} {data}");
        }
    }

    #[test]
    fn a_star_that_does_not_stand_at_the_end_is_refused() {
        let check = |event_type: &str, source: &str| {
            let (event_type, source) = (Some(event_type.to_owned()), Some(source.to_owned()));
            Wanted { event_type, source, ..Wanted::default() }.check().is_ok()
        };
        assert!(check("city.*", "/c/x*") && check("*", "*") && check("city.air", "/x"));
        assert!(!check("city.*.v1", "/x") && !check("city.**", "/x") && !check("city.*", "/*/x"));
    }

    #[test]
    fn a_condition_tells_a_reader_nothing_that_he_may_not_see() {
        let header = Header::local(Kind::Event, "city.appeal");
        let payload =
            b"{\"id\":\"1\",\"source\":\"/x\",\"type\":\"city.appeal\",\"data\":{\"contact\":{\"phone\":\"139\"}}}";
        let text = "event.data.contact.phone.startsWith('139')";
        assert!(with(text, Caller::Operator).wants(&header, payload));
        assert!(!with(text, Caller::Reader).wants(&header, payload));
        assert!(with("has(event.data.withheld)", Caller::Reader).wants(&header, payload));
    }

    #[test]
    fn a_condition_that_takes_too_long_is_refused_and_a_new_piece_of_work_has_its_own_time() {
        let filter = with("event.data.list.all(x, event.data.list[0] == x)", Caller::Operator);
        let list = vec!["1"; 20_000].join(",");
        let payload = format!("{{\"id\":\"1\",\"source\":\"/x\",\"type\":\"t\",\"data\":{{\"list\":[{list}]}}}}");
        let header = Header::local(Kind::Event, "t");
        for _ in 0..100_000 {
            if filter.is_spent() {
                break;
            }
            filter.wants(&header, payload.as_bytes());
        }
        assert_eq!(filter.check().unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY);
        filter.begin();
        assert!(filter.check().is_ok() && with("true", Caller::Operator).check().is_ok());
    }

    #[test]
    fn an_evaluation_ends_when_its_time_is_over_and_is_then_no_answer() {
        // Of 100,000 numbers each is looked for among all: minutes, were it not ended.
        let list = (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let payload = format!("{{\"id\":\"1\",\"source\":\"/x\",\"type\":\"t\",\"data\":{{\"list\":[{list}]}}}}");
        let header = Header::local(Kind::Event, "t");
        for text in
            ["event.data.list.all(x, x in event.data.list)", "!event.data.list.exists(x, !(x in event.data.list))"]
        {
            let filter = with(text, Caller::Operator);
            let began = Instant::now();
            assert!(!filter.wants(&header, payload.as_bytes()), "{text}");
            assert!(filter.is_cut() && filter.is_spent(), "{text}");
            assert!(began.elapsed() < CONDITION_WORK_MAX * 10, "{text}: {:?}", began.elapsed());
            filter.begin();
            assert!(!filter.is_cut());
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_to_write() {
        for (text, word) in [
            ("event.data.pm25 >", "not CEL"),
            ("evnt.data.pm25 > 1", "did you mean `event`"),
            ("event.data.n + 1", "not true or false"),
            ("window.count > 1", "no window here"),
            ("[1].all(a, [2].all(b, a < b))", "a loop inside of a loop"),
            ("event.data.list.map(x, event.data.text + event.data.text).size() > 0", "`map` makes a list"),
            ("event.data.list.map(x, x > 1, [x, x]).size() > 0", "`map` makes a list"),
            ("event.data.a + event.data.a + event.data.a + event.data.a + event.data.a == ''", "puts together 5"),
            ("[event, event, event, event, event].exists(x, x.id == '1')", "puts together 5"),
            ("{1: [event.data], 2: event.data + [event, event, event]}.size() > 1", "puts together 5"),
            ("[string(event), event.data.list.filter(x, true), dyn(event), event, event].size() > 1", "puts together"),
            ("event.data.text.matches(event.data.pattern)", "does not say itself"),
            ("event.data.list.exists(x, x.matches('a'))", "`matches` inside of a loop"),
            ("matches(event.data.text, '(a|b)*a(a|b){5000}')", "too large"),
            ("event.data.text.matches('(')", "is no pattern"),
            (&format!("event.data.n == '{}'", "x".repeat(CONDITION_BYTES_MAX)), "longer than"),
        ] {
            let fault = condition(text).unwrap_err();
            assert!(format!("{} {}", fault.message, fault.help).contains(word), "{text}: {fault:?}");
        }
    }

    #[test]
    fn however_deep_its_brackets_a_condition_ends_no_node() {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("!", ""), ("-", ""), ("{1:", "}"), ("a.", ""), ("a(", ")"), ("1+", "")]
        {
            let times = CONDITION_BYTES_MAX / (open.len() + close.len()) - 2;
            let text = format!("{}1{}", open.repeat(times), close.repeat(times));
            // Whatever it is, there is an answer, on a thread no larger than tokio's.
            let asked = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || condition(&text).is_ok());
            asked.unwrap().join().unwrap();
        }
    }
}
