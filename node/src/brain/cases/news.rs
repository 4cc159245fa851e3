//! What a record says anew of a case that is known here, for whoever is told of it outside of the tree. Letters of
//! nodes to each other bring news, too: what another node did with a case that began here.

use super::letter::{self, Body, COMING, LETTER, Letter, Step};
use super::{Cases, Held, is_of_its_node, is_true};
use citybrain_shared::case::{self, Case, Status};
use citybrain_shared::record::{Direction, Header};
use serde::Deserialize;

/// A case, and how it stands by one record.
pub struct News<'a> {
    pub held: &'a Held,
    pub status: Status,
    pub term: u32,
    pub version: u32,
    /// The case itself has changed; else what is said of it: who comes, that a wish was refused.
    pub is_step: bool,
}

impl Cases {
    /// What this record of the log says anew; `None`: nothing, or nothing that this node believes.
    pub fn news(&self, header: &Header<'_>, payload: &[u8]) -> Option<News<'_>> {
        match header.name {
            LETTER => {
                let letter = letter::data::<Letter>(payload)?;
                let is_mine = letter.to == self.me;
                // Its own letters say what its records have said.
                let comes = letter.from != self.me && (is_mine || header.direction == Direction::Down);
                match &letter.body {
                    _ if !comes || !is_true(header, &letter) => None,
                    Body::Copy { case, .. } => self.stepped(case),
                    Body::Refused { case, .. } if is_mine => self.said_of(case),
                    _ => None,
                }
            }
            COMING => {
                #[derive(Deserialize)]
                struct About {
                    case: String,
                }
                self.said_of(&letter::data::<About>(payload)?.case)
            }
            kind if kind.starts_with(letter::PREFIX) && !case::is_letter(kind) => {
                let step = letter::data::<Step>(payload)?;
                if is_of_its_node(&self.me, header, &step) { self.stepped(&step.case) } else { None }
            }
            _ => None,
        }
    }

    /// A version that is newer than all that is held was not believed.
    fn stepped(&self, case: &Case) -> Option<News<'_>> {
        let held = self.get(&case.id).filter(|held| case.order() <= held.case.order())?;
        Some(News { held, status: case.status, term: case.term, version: case.version, is_step: true })
    }

    fn said_of(&self, case: &str) -> Option<News<'_>> {
        let held = self.get(case)?;
        let Case { status, term, version, .. } = held.case;
        Some(News { held, status, term, version, is_step: false })
    }
}
