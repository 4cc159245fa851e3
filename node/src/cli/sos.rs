//! `citybrain sos`: one press.

use super::whom::{self, Coordinates, Whom};
use super::{Direct, Fail, Output};
use citybrain_shared::case::Role;
use citybrain_shared::view;
use clap::Args;

#[derive(Debug, Args)]
pub struct Sos {
    /// Where, in words; a second call from the same place is recorded on the first while that is open
    #[arg(value_name = "PLACE")]
    pub place: String,
    /// What happened
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub note: String,
    #[command(flatten)]
    pub coordinates: Coordinates,
    #[command(flatten)]
    pub whom: Whom,
    /// Who presses [default: the user of this shell]; with a number and no `--name`, whom to call
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub by: String,
    /// As what: `worker` presses for somebody whose name is not known
    #[arg(long)]
    pub role: Option<Role>,
    #[command(flatten)]
    pub at: Direct,
}

impl Sos {
    pub fn act(self) -> Result<Output, Fail> {
        let text = self.place.trim().to_owned();
        if text.is_empty() {
            return Err(Fail::usage("nobody can help at no place", "such as `citybrain sos 7栋301`"));
        }
        let new = view::CaseNew {
            title: text.clone(),
            description: self.note,
            place: self.coordinates.place(text),
            sos: true,
            channel: "cli".into(),
            contact: self.whom.contact(),
            role: whom::role(self.role, &self.by),
            // A press must not fail for want of a name.
            by: if self.by.is_empty() { "cli".into() } else { self.by },
            ..view::CaseNew::default()
        };
        self.at.node()?.post("/v1/cases", &new).map(|a| Output::Case(Box::new(a)))
    }
}
