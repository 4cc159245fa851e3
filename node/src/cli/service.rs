//! `citybrain service`, `citybrain scene`

use super::asking::Wait;
use super::whom::{self, Coordinates, Whom};
use super::{At, Direct, Fail, Output};
use citybrain_shared::Address;
use citybrain_shared::case::Booked;
use citybrain_shared::view::{self, segment};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Service {
    /// What is offered here: by this node, and by those above it
    List {
        /// Only what has this word in its code, name, description, provider or place
        #[arg(long, value_name = "WORD")]
        search: Option<String>,
        /// Only those of this node
        #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
        of: Option<Address>,
        /// Only those with a date
        #[arg(long)]
        activities: bool,
        /// Activities that are over, too
        #[arg(long)]
        past: bool,
        #[command(flatten)]
        at: At,
    },
    /// One, with what is free if this node offers it
    Show {
        /// Code or name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        service: String,
        /// Whose, where several nodes have one of that name
        #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
        of: Option<Address>,
        #[command(flatten)]
        at: At,
    },
    /// Ask for it: a case of the node that offers it, with the appointment or the seats
    Request(Box<Request>),
}

#[derive(Debug, Args)]
pub struct Request {
    /// Code or name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub service: String,
    /// Whose, where several nodes have one of that name
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    pub of: Option<Address>,
    /// An appointment's begin: `2026-11-28 10:00`
    #[arg(long, value_name = "TIME")]
    pub slot: Option<String>,
    /// Help at an activity
    #[arg(long)]
    pub volunteer: bool,
    /// Seats of an activity [default: 1]
    #[arg(long, value_name = "N")]
    pub seats: Option<u32>,
    /// An answer to what it asks; may be repeated
    #[arg(long, value_name = "NAME=ANSWER", value_parser = super::variable)]
    pub form: Vec<(String, String)>,
    /// What else the node that offers it should know
    #[arg(long, default_value = "", hide_default_value = true)]
    pub text: String,
    /// Where, in words
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub location: String,
    #[command(flatten)]
    pub coordinates: Coordinates,
    #[command(flatten)]
    pub whom: Whom,
    /// Yours: asked twice with the same one, it opens one case
    #[arg(long)]
    pub key: Option<String>,
    /// Who asks [default: the user of this shell]
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub by: String,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub at: Direct,
}

#[derive(Debug, Subcommand)]
pub enum Scene {
    /// Scenes of this node and of those above it
    List(At),
}

impl Service {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Service::List { search, of, activities, past, at } => {
                let mut query: Vec<(&str, String)> = search.map(|s| ("search", s)).into_iter().collect();
                query.extend(of.map(|of| ("of", of.to_string())));
                if activities {
                    query.push(("activities", "true".into()));
                }
                if past {
                    query.push(("past", "true".into()));
                }
                at.ask("/v1/services", &query, Output::Services)
            }
            Service::Show { service, of, at } => {
                let query: Vec<(&str, String)> = of.map(|of| ("of", of.to_string())).into_iter().collect();
                at.ask(&format!("/v1/services/{}", segment(&service)), &query, |a| Output::Service(Box::new(a)))
            }
            Service::Request(request) => request.act(),
        }
    }
}

impl Request {
    fn act(self) -> Result<Output, Fail> {
        let wanted = view::ServiceRequest {
            of: self.of,
            slot: self.slot,
            volunteer: self.volunteer,
            seats: self.seats,
            form: whom::answers(self.form)?,
            text: self.text,
            place: self.coordinates.place(self.location),
            channel: "cli".into(),
            contact: self.whom.contact(),
            by: self.by,
            key: self.key,
        };
        let node = self.at.node()?;
        let path = format!("/v1/services/{}/requests", segment(&self.service));
        let answer = node.post::<view::CaseShown>(&path, &wanted)?;
        let path = format!("/v1/cases/{}", segment(&answer.body.case.id));
        let is_asked = |shown: &view::CaseShown| {
            shown.case.status.is_open() && shown.case.booking.as_ref().is_some_and(|b| b.state == Booked::Asked)
        };
        let answer = node.until(&path, answer, self.wait.time(), is_asked)?;
        let is_open = is_asked(&answer.body);
        let is_refused = answer.body.case.booking.as_ref().is_some_and(|b| b.state == Booked::Refused);
        let shown = Output::Case(Box::new(answer));
        Ok(if is_refused { Output::Refused(Box::new(shown)) } else { self.wait.shown(shown, is_open) })
    }
}

impl Scene {
    pub fn act(self) -> Result<Output, Fail> {
        let Scene::List(at) = self;
        at.ask("/v1/scenes", &[], Output::Scenes)
    }
}
