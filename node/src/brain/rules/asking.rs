//! What people want done with an alarm, turned into records.

use super::Rules;
use super::alarms::{self, Identity, Step};
use super::drafts::Directive;
use super::telling::Telling;
use citybrain_shared::Tier;
use citybrain_shared::record::Draft;
use citybrain_shared::view::{self, Alarm, AlarmAsked};
use serde::{Deserialize, Serialize};

/// `data` of [`alarms::ASK`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    #[serde(flatten)]
    pub asked: AlarmAsked,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
    /// What whoever asks had before him. Its node may have lost its disk since, and then knows it from here.
    pub known: Box<Alarm>,
    /// Of whoever asks: the answer goes as far.
    pub tier: Tier,
}

/// What somebody wants done with an alarm.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    Acknowledge,
    Clear,
    Shelve { until_us: i64 },
}

impl Wish {
    fn word(&self) -> &'static str {
        match self {
            Wish::Acknowledge => "ack",
            Wish::Clear => "clear",
            Wish::Shelve { .. } => "shelve",
        }
    }

    pub(super) fn step(self, by: String) -> Step {
        match self {
            Wish::Acknowledge => Step::Acknowledge { by },
            Wish::Clear => Step::Clear { by },
            Wish::Shelve { until_us } => Step::Shelve { by, until_us },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no alarm `{0}` is known here")]
    Unknown(String),
    #[error("alarm `{id}` is {state} already")]
    Nothing { id: String, state: &'static str },
}

impl Rules {
    /// The records by which an alarm is acknowledged, cleared or shelved: the change itself where the
    /// alarm is ours, else a word downward to the node that owns it.
    ///
    /// # Errors
    /// [`AskError`]: there is nothing to do.
    pub fn ask(&self, id: &str, wish: Wish, by: &str, now_us: i64) -> Result<(Alarm, Vec<Draft>), AskError> {
        let alarm = self.alarms.get(id).ok_or_else(|| AskError::Unknown(id.to_owned()))?;
        let who = Identity::of(alarm);
        let word = wish.word();
        let until_us = match wish {
            Wish::Shelve { until_us } => Some(until_us),
            _ => None,
        };
        let state = match wish {
            Wish::Acknowledge => "acknowledged",
            Wish::Clear => "cleared",
            Wish::Shelve { until_us } if until_us > now_us => "cleared",
            Wish::Shelve { .. } => "off the shelf",
        };
        let Some((after, kind)) = alarms::step(Some(alarm), &who, wish.step(by.to_owned()), now_us) else {
            return Err(AskError::Nothing { id: id.to_owned(), state });
        };
        let mut telling = Telling::new(self, now_us);
        if alarm.origin == self.me {
            telling.tell(after.clone(), kind, 0);
            return Ok((after, telling.drafts.into_all()));
        }
        let asked = AlarmAsked { action: word.to_owned(), by: by.to_owned(), at: view::time_of(now_us) };
        let known = Box::new(Alarm { asked: None, ..alarm.clone() });
        let data = Ask { asked: asked.clone(), until_us, known, tier: self.me.tier() };
        let target = alarm.origin.to_string();
        let data = serde_json::to_value(data).unwrap_or_default();
        let urgent = alarm.severity.is_urgent();
        let directive =
            Directive { kind: alarms::ASK, word: "command", target: &target, subject: None, ttl_ms: 0, urgent };
        telling.drafts.push_down(directive, data, 0);
        Ok((Alarm { asked: Some(asked), ..alarm.clone() }, telling.drafts.into_all()))
    }
}
