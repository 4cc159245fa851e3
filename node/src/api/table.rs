//! The table of routes: a row for each, with its method, path, who may ask, what goes in and what
//! comes out.
//!
//! The router is made of it, [`guard`](super::guard) looks up in it who may ask, and a test writes
//! `docs/openapi.json` from it (`describe`), which the node serves: so none of them can drift.
//! What only the document needs of a row (the types) is kept in tests alone.

use super::input::{Nothing, query};
use super::{
    Ctx, alarms, asyncapi, audit, cap, cases, counts, dead_letters, directives, downward, enrol, events, filter,
    intake, ledger, links, metrics, ops, reload, road, services, settle, status, supervision, trace, webhooks, why,
};
use crate::tokens::Role;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use citybrain_shared::case::Ask;
use citybrain_shared::view::{self, View};
use std::sync::{Arc, OnceLock};

/// What a schema can be written of; only tests write any.
#[cfg(test)]
pub use schemars::JsonSchema as Shape;
#[cfg(not(test))]
pub trait Shape {}
#[cfg(not(test))]
impl<T: ?Sized> Shape for T {}

/// What is said of a route.
#[derive(Clone)]
pub struct Said {
    pub method: Method,
    /// As axum writes it: `/v1/cases/{id}`.
    pub path: &'static str,
    /// `None`: everybody, also without a token.
    pub needs: Option<Role>,
    /// A role beside those above [`Said::needs`], which has this and little else.
    pub also: Option<Role>,
    /// A list of which `next` is the rest, in a header too.
    pub is_paged: bool,
    takes_query: bool,
    #[cfg(test)]
    pub about: &'static str,
    #[cfg(test)]
    pub types: super::describe::Types,
}

pub struct Row<S> {
    said: Said,
    handler: MethodRouter<S>,
}

fn row<S>(method: Method, path: &'static str, about: &'static str, needs: Role, handler: MethodRouter<S>) -> Row<S> {
    #[cfg(not(test))]
    let _ = about;
    let said = Said {
        method,
        path,
        needs: Some(needs),
        also: None,
        is_paged: false,
        takes_query: false,
        #[cfg(test)]
        about,
        #[cfg(test)]
        types: Default::default(),
    };
    Row { said, handler }
}

/// For whoever may read.
pub fn read<S, H, T>(path: &'static str, about: &'static str, handler: H) -> Row<S>
where
    S: Clone + Send + Sync + 'static,
    H: Handler<T, S>,
    T: 'static,
{
    row(Method::GET, path, about, Role::Reader, routing::get(handler))
}

/// For this role and those above it.
fn change<S, H, T>(needs: Role, path: &'static str, about: &'static str, handler: H) -> Row<S>
where
    S: Clone + Send + Sync + 'static,
    H: Handler<T, S>,
    T: 'static,
{
    row(Method::POST, path, about, needs, routing::post(handler))
}

impl<S: Clone + Send + Sync + 'static> Row<S> {
    /// For everybody, also without a token.
    fn open(mut self) -> Row<S> {
        self.said.needs = None;
        self
    }

    /// For this role too.
    fn also(mut self, role: Role) -> Row<S> {
        self.said.also = Some(role);
        self
    }

    /// A list that comes page by page.
    fn paged(mut self) -> Row<S> {
        self.said.is_paged = true;
        self
    }

    /// Takes a larger body than others.
    fn body_max(mut self, bytes: usize) -> Row<S> {
        self.handler = self.handler.layer(DefaultBodyLimit::max(bytes));
        self
    }
}

/// What only the document needs.
#[cfg(not(test))]
impl<S> Row<S> {
    pub fn query<Q: Shape>(mut self) -> Row<S> {
        self.said.takes_query = true;
        self
    }

    fn takes<B: Shape>(self) -> Row<S> {
        self
    }

    fn takes_events(self) -> Row<S> {
        self
    }

    fn takes_as(self, _: &str, _: &str) -> Row<S> {
        self
    }

    fn gives<V: View + Shape>(self, _: u16) -> Row<S> {
        self
    }

    pub fn lines<L: Shape>(self) -> Row<S> {
        self
    }

    fn tagged(self) -> Row<S> {
        self
    }

    fn stepped(self) -> Row<S> {
        self
    }

    pub fn gives_any(self, _: &str) -> Row<S> {
        self
    }

    fn gives_as(self, _: &str, _: &str) -> Row<S> {
        self
    }

    fn or(self, _: &[u16]) -> Row<S> {
        self
    }
}

#[cfg(test)]
impl<S> Row<S> {
    pub fn query<Q: Shape>(mut self) -> Row<S> {
        self.said.takes_query = true;
        self.said.types.query::<Q>();
        self
    }

    fn takes<B: Shape>(mut self) -> Row<S> {
        self.said.types.takes::<B>();
        self
    }

    fn takes_as(mut self, content_type: &'static str, what: &'static str) -> Row<S> {
        self.said.types.takes_as = Some((content_type, what));
        self
    }

    fn takes_events(mut self) -> Row<S> {
        self.said.types.takes_events = true;
        self
    }

    fn gives<V: View + Shape>(mut self, status: u16) -> Row<S> {
        self.said.types.gives::<V>(status);
        self
    }

    pub fn lines<L: Shape>(mut self) -> Row<S> {
        self.said.types.lines::<L>();
        self
    }

    /// Its answer has an entity tag, and whoever has it is told so.
    fn tagged(mut self) -> Row<S> {
        self.said.types.is_tagged = true;
        self
    }

    /// May be asked for of what was seen only.
    fn stepped(mut self) -> Row<S> {
        self.said.types.is_stepped = true;
        self
    }

    pub fn gives_any(mut self, what: &'static str) -> Row<S> {
        self.said.types.gives_as("*/*", what);
        self
    }

    fn gives_as(mut self, content_type: &'static str, what: &'static str) -> Row<S> {
        self.said.types.gives_as(content_type, what);
        self
    }

    /// Other statuses, beside those that every route may answer.
    fn or(mut self, statuses: &[u16]) -> Row<S> {
        self.said.types.or.extend_from_slice(statuses);
        self
    }
}

pub fn router<S: Clone + Send + Sync + 'static>(rows: Vec<Row<S>>) -> Router<S> {
    rows.into_iter().fold(Router::new(), |router, Row { said, handler }| {
        // What is asked from outside the API (health, counters) may have anything behind it.
        let has_none = said.method == Method::GET && said.path.starts_with("/v1/") && !said.takes_query;
        let handler = if has_none { handler.layer(axum::middleware::from_fn(without_query)) } else { handler };
        router.route(said.path, handler)
    })
}

/// A parameter that nobody reads is a slip.
async fn without_query(request: Request, next: Next) -> Response {
    match query::<Nothing>(request.uri()) {
        Ok(Nothing {}) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// What is said of every route but Open311's, which says it itself.
pub fn said() -> &'static [Said] {
    static SAID: OnceLock<Vec<Said>> = OnceLock::new();
    SAID.get_or_init(|| rows().into_iter().map(|r| r.said).chain(road::rows().into_iter().map(|r| r.said)).collect())
}

/// What is said of the route of a request, if there is one.
pub fn of(method: &Method, path: &str) -> Option<&'static Said> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let fits = |said: &&Said| said.method == *method && is_of(said.path, path);
    // A word in its place goes before a variable, as it does in the router.
    said().iter().filter(fits).min_by_key(|said| said.path.matches('{').count())
}

/// What may be asked at a path, by [`said`].
pub fn methods_at(path: &str) -> Vec<Method> {
    let fitting: Vec<&Said> = said().iter().filter(|said| is_of(said.path, path)).collect();
    // The router goes by the path alone: of those that fit it takes the one with the fewest variables.
    let nearest = fitting.iter().map(|said| said.path).min_by_key(|path| path.matches('{').count());
    let mut all: Vec<Method> =
        fitting.iter().filter(|said| Some(said.path) == nearest).map(|said| said.method.clone()).collect();
    all.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    all.dedup();
    all
}

/// Is this a list that comes page by page?
pub fn is_paged(path: &str) -> bool {
    of(&Method::GET, path).is_some_and(|said| said.is_paged)
}

fn is_of(template: &str, path: &str) -> bool {
    let (mut parts, mut words) = (path.split('/'), template.split('/'));
    loop {
        match (words.next(), parts.next()) {
            (None, None) => return true,
            (Some(word), Some(part)) if word.starts_with("{*") => return !part.is_empty(),
            (Some(word), Some(part)) if word == part || (word.starts_with('{') && !part.is_empty()) => {}
            _ => return false,
        }
    }
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../../docs/openapi.json")).into_response()
}

async fn alive() -> &'static str {
    "ok\n"
}

/// All that the node answers itself.
pub fn rows() -> Vec<Row<Arc<Ctx>>> {
    let mut all = node();
    all.extend(log());
    all.extend(brain());
    all.extend(tree());
    all
}

fn node() -> Vec<Row<Arc<Ctx>>> {
    use Role::Operator;
    vec![
        read("/livez", "Is the process alive?", alive).open().gives_as("text/plain", "it is"),
        read("/readyz", "Can the node do its work: take events, make them durable, answer?", status::ready)
            .open()
            .gives::<view::Ready>(200)
            .gives::<view::Ready>(503),
        read("/openapi.json", "This document", document).open().gives_as("application/json", "OpenAPI 3.1"),
        read("/asyncapi.json", "The node's MQTT topics, with its own mappings and listeners", asyncapi::document)
            .gives_as("application/json", "AsyncAPI 3.0"),
        read("/metrics", "All counters", metrics::text).gives_as("text/plain", "Prometheus' text format 0.0.4"),
        read("/v1/status", "What the node is and has done", status::status).gives::<view::Status>(200),
        read("/v1/health", "The node's condition in short", status::health).gives::<view::Health>(200),
        read("/v1/version", "Versions of the program and of its links", ops::version).gives::<view::Version>(200),
        read("/v1/doctor", "Host, disk, clock, config, links: what is wrong, and what to do", ops::doctor)
            .gives::<view::Doctor>(200),
        read("/v1/config", "What the node works with; secrets are hidden", ops::config).gives::<view::ConfigShown>(200),
        read("/v1/log-level", "What the process logs", ops::log_level).gives::<view::LogLevel>(200),
        change(Operator, "/v1/log-level", "Log otherwise until the process ends", ops::set_log_level)
            .takes::<view::LogLevel>()
            .gives::<view::LogLevel>(200),
        read("/v1/log-lines", "The last lines that the process has logged", ops::log_lines)
            .gives_as("text/plain", "a line each"),
        change(
            Operator,
            "/v1/reload",
            "Read the config file again and put its rules, offers, categories and calendar in force",
            reload::reload,
        )
        .gives::<view::Reloaded>(200)
        .or(&[409]),
        read("/v1/enrolments", "Children that wait for an operator's word", enrol::list).gives::<view::Enrolments>(200),
        change(Operator, "/v1/enrolments", "Let children in, or refuse them", enrol::decide)
            .takes::<view::Enrol>()
            .gives::<view::Enrolled>(200),
        change(Operator, "/v1/enrolments/retire", "Take a child that is gone for good out of the tree", enrol::retire)
            .takes::<view::Retire>()
            .gives::<view::Retired>(200)
            .or(&[404, 409]),
    ]
}

fn log() -> Vec<Row<Arc<Ctx>>> {
    use Role::Operator;
    vec![
        read("/v1/events", "Events of the node's log, oldest first, a line each; `follow` stays", events::list)
            .query::<filter::Wanted>()
            .lines::<view::Event>()
            .or(&[410, 422]),
        change(
            Operator,
            "/v1/events",
            "Take CloudEvents: one, or a batch of which all are taken or none",
            intake::event,
        )
        .body_max(intake::BATCH_BYTES_MAX)
        .takes_events()
        .gives::<view::Accepted>(202)
        .gives::<view::AcceptedBatch>(202)
        .gives::<view::Accepted>(200)
        .gives::<view::AcceptedBatch>(200)
        .or(&[415]),
        read("/v1/events/{id}", "An event by its id", events::show)
            .query::<events::Which>()
            .gives::<view::Shown>(200)
            .or(&[404]),
        read("/v1/records", "Every event record in short, a line each", events::records)
            .query::<events::Span>()
            .lines::<view::Record<'_>>()
            .or(&[410]),
        read("/v1/counts", "The newest events, counted by what they have in common", counts::counts)
            .query::<counts::By>()
            .query::<filter::Wanted>()
            .gives::<view::Counts>(200)
            .or(&[422]),
        read("/v1/dlq", "What was refused and nobody has settled: dead letters", dead_letters::list)
            .query::<dead_letters::Wanted>()
            .gives::<view::DeadLetters>(200),
        read("/v1/dlq/{pos}", "A dead letter by its position", dead_letters::show)
            .gives::<view::DeadLetter>(200)
            .or(&[404]),
        change(Operator, "/v1/dlq/retry", "Take dead letters again, as they came in", settle::retry)
            .takes::<view::DlqSettle>()
            .gives::<view::DlqSettled>(200),
        change(Operator, "/v1/dlq/drop", "Close dead letters", settle::drop_letters)
            .takes::<view::DlqSettle>()
            .gives::<view::DlqSettled>(200),
        change(
            Operator,
            "/v1/webhooks/skip",
            "Pass over the event that a webhook's receiver does not take",
            webhooks::skip,
        )
        .takes::<view::WebhookSkip>()
        .gives::<view::WebhookSkipped>(200)
        .or(&[404]),
        read(
            "/v1/alarms/{id}/cap",
            "The newest message of CAP 1.2 that an alarm has come to, or the warning for which it was raised",
            cap::show,
        )
        .also(Role::Gateway)
        .gives_as(crate::cap::CONTENT_TYPE, "an alert, an update or a cancellation")
        .or(&[404]),
        read("/v1/cap.atom", "Active alarms by CAP 1.2, a feed", cap::atom)
            .also(Role::Gateway)
            .gives_as("application/atom+xml", "RFC 4287, an entry each"),
        read("/v1/cap", "Warnings that came in by CAP and are in force, worst first", cap::list)
            .also(Role::Gateway)
            .gives::<view::CapWarnings>(200)
            .tagged(),
        change(Operator, "/v1/cap/cancel", "Cancel a warning that is in force, by this node's word", cap::cancel)
            .takes::<view::CapCancel>()
            .gives::<view::CapTaken>(202)
            .or(&[404]),
        change(
            Operator,
            "/v1/cap",
            "Take a warning of CAP 1.2: an event, and notices to those whom it concerns",
            cap::take,
        )
        .also(Role::Gateway)
        .takes_as(crate::cap::CONTENT_TYPE, "a message of CAP 1.2, also as `application/xml` or `text/xml`")
        .gives::<view::CapTaken>(202)
        .gives::<view::CapTaken>(200)
        .or(&[404, 415]),
        change(Operator, "/v1/send", "Send a notice or a command to nodes at or below this one", intake::send)
            .takes::<view::Send>()
            .gives::<view::Sent>(202),
        read("/v1/directives", "What was sent down, newest last", directives::list)
            .query::<directives::Wanted>()
            .gives::<view::Directives>(200)
            .tagged()
            .paged(),
        read("/v1/directives/{id}", "What was sent down, and who has answered", directives::show)
            .gives::<view::Directive>(200)
            .tagged()
            .or(&[404]),
    ]
}

fn brain() -> Vec<Row<Arc<Ctx>>> {
    use Role::{App, Operator, Supervisor, Worker};
    vec![
        read("/v1/rules", "Rules in force", alarms::rules).gives::<view::Rules>(200),
        read("/v1/alarms", "Alarms of the node and of all below it, worst first", alarms::list)
            .query::<alarms::Wanted>()
            .gives::<view::Alarms>(200)
            .tagged()
            .paged(),
        read("/v1/alarms/{id}", "An alarm", alarms::show).gives::<view::AlarmShown>(200).tagged().or(&[404]),
        change(Worker, "/v1/alarms/{id}/{action}", "Acknowledge or shelve an alarm", alarms::change)
            .takes::<view::AlarmAction>()
            .gives::<view::AlarmShown>(200)
            .gives::<view::AlarmShown>(202)
            .or(&[404, 409]),
        // Whatever its rule says: that somebody else should stand for.
        change(Supervisor, "/v1/alarms/{id}/clear", "Clear an alarm", alarms::clear)
            .takes::<view::AlarmAction>()
            .gives::<view::AlarmShown>(200)
            .gives::<view::AlarmShown>(202)
            .or(&[404, 409]),
        read("/v1/cases", "Cases, newest first; for an app those that it brought", cases::list)
            .also(App)
            .query::<cases::Wanted>()
            .gives::<view::Cases>(200)
            .tagged()
            .paged()
            .or(&[404]),
        change(Worker, "/v1/cases", "Open a case", cases::open)
            .also(App)
            .takes::<view::CaseNew>()
            .gives::<view::CaseShown>(201)
            .gives::<view::CaseShown>(200)
            .or(&[404, 409]),
        change(Operator, "/v1/cases/import", "Take cases that another system ran", cases::import)
            .takes::<view::CaseImport>()
            .gives::<view::CasesImported>(200)
            .or(&[404]),
        read("/v1/cases/{id}", "A case, with its history", cases::show)
            .also(App)
            .gives::<view::CaseShown>(200)
            .tagged()
            .or(&[404, 409]),
        change(Worker, "/v1/cases/{id}/{step}", "Step a case, or ask its owner to", cases::step)
            .also(App)
            .takes::<Ask>()
            .stepped()
            .gives::<view::CaseShown>(200)
            .gives::<view::CaseShown>(202)
            .or(&[404, 409]),
        read("/v1/case-stats", "How many cases there are of what, and how long they took", supervision::counted)
            .query::<supervision::Counted>()
            .gives::<view::CaseStats>(200)
            .or(&[404, 422]),
        read("/v1/rates", "Response, solution, satisfaction", supervision::rated)
            .query::<supervision::Rated>()
            .gives::<view::Rates>(200)
            .or(&[404, 422]),
        read(
            "/v1/supervision",
            "What is overdue or suspended, was reopened, is told again and again",
            supervision::watched,
        )
        .query::<supervision::Watched>()
        .gives::<view::Supervision>(200)
        .or(&[404]),
        read("/v1/services", "Services and activities of the node and of those above it", services::list)
            .also(App)
            .query::<services::Wanted>()
            .gives::<view::Services>(200)
            .tagged()
            .or(&[404]),
        read("/v1/services/{code}", "A service, with what is free at the node that offers it", services::show)
            .also(App)
            .query::<services::Whose>()
            .gives::<view::ServiceShown>(200)
            .tagged()
            .or(&[404, 409]),
        change(
            Worker,
            "/v1/services/{code}/requests",
            "Request a service: a case of the node that offers it",
            services::request,
        )
        .also(App)
        .takes::<view::ServiceRequest>()
        .gives::<view::CaseShown>(201)
        .gives::<view::CaseShown>(200)
        .or(&[404, 409]),
        read("/v1/scenes", "What belongs to a theme", services::scenes)
            .also(App)
            .gives::<view::Scenes>(200)
            .tagged()
            .or(&[404]),
        read("/v1/scenes.geojson", "Scenes on a map", services::geojson)
            .also(App)
            .gives_as("application/geo+json", "RFC 7946, a feature each")
            .tagged()
            .or(&[404]),
    ]
}

fn tree() -> Vec<Row<Arc<Ctx>>> {
    vec![
        read("/v1/tree", "All nodes below; with `deep` each is asked how it is", status::tree)
            .query::<status::Depth>()
            .gives::<view::Tree>(200),
        read("/v1/links", "The links to the parent and the children", links::links).gives::<view::Links>(200),
        read("/v1/trace/{id}", "The way of an event through the tree", trace::trace)
            .query::<trace::Which>()
            .gives::<view::Trace>(200)
            .or(&[404]),
        read("/v1/hop/{id}", "What this node alone knows of an event", trace::hop)
            .query::<trace::Which>()
            .gives::<view::Hop>(200),
        read("/v1/why", "Why something does not move", why::why).query::<why::Wanted>().gives::<view::Why>(200),
        read("/v1/symptoms", "What the node finds wrong with itself, and with a child", why::symptoms)
            .query::<why::Child>()
            .gives::<view::Symptoms>(200),
        read("/v1/known", "What this node last knew of another", road::known_of)
            .query::<road::Of>()
            .gives::<view::Known>(200),
        read("/v1/audit", "Does every link from here down account for every event?", audit::audit)
            .query::<audit::Depth>()
            .gives::<view::Audit>(200),
        read("/v1/ledger", "What the node holds that must climb, a page of it", ledger::page)
            .query::<ledger::Page>()
            .gives::<view::Ledger>(200),
        read("/v1/explain", "What became of numbers that the parent lacks", ledger::explain)
            .query::<ledger::Asked>()
            .gives::<view::Explained>(200),
        read("/v1/held", "Which of a parent's directives the node does not hold", downward::held)
            .query::<downward::Keys>()
            .gives::<view::Held>(200),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_has_what_a_resident_needs_and_no_other_route() {
        let may = |said: &&Said| said.also == Some(Role::App) || said.needs == Some(Role::App);
        let mut routes: Vec<String> =
            said().iter().filter(may).map(|said| format!("{} {}", said.method, said.path)).collect();
        routes.sort();
        assert_eq!(
            routes,
            [
                "GET /v1/cases",
                "GET /v1/cases/{id}",
                "GET /v1/scenes",
                "GET /v1/scenes.geojson",
                "GET /v1/services",
                "GET /v1/services/{code}",
                "POST /v1/cases",
                "POST /v1/cases/{id}/{step}",
                "POST /v1/services/{code}/requests",
            ]
        );
        assert!(Role::ALL.iter().all(|role| *role >= Role::App), "so that no route has it by its rank");
    }

    #[test]
    fn a_word_in_its_place_goes_before_a_variable_and_what_is_not_there_is_nobodys() {
        let at = |method: &Method, path: &str| of(method, path).map(|s| s.path);
        assert_eq!(at(&Method::POST, "/v1/cases/import"), Some("/v1/cases/import"));
        assert_eq!(at(&Method::GET, "/v1/cases/import"), Some("/v1/cases/{id}"));
        assert_eq!(at(&Method::HEAD, "/v1/cases"), Some("/v1/cases"));
        assert_eq!(at(&Method::POST, "/v1/cases/7/accept"), Some("/v1/cases/{id}/{step}"));
        assert_eq!(at(&Method::GET, "/v1/at/c/s/m"), Some("/v1/at/{*address}"));
        for path in ["/v1/cases/", "/v1/casesx", "/v1/cases/7/accept/8", "/v1/at/", "", "/v1"] {
            assert_eq!(at(&Method::POST, path), None, "{path}");
        }
    }
}
