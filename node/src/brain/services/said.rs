//! What a stopped node offered: its config is not in its folder, but its own catalogue is.

use super::{CATALOGUE, Catalogue, PART, row_of};
use crate::brain::cases::letter::data;
use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::record::{Direction, Draft, Header, Kind};
use citybrain_shared::{Address, Pos};
use std::any::Any;
use std::collections::BTreeMap;

/// A mind that only remembers catalogues: it reads a folder before it is known whose that is.
#[derive(Default)]
pub struct Said {
    catalogues: BTreeMap<Address, Catalogue>,
}

impl Said {
    /// As the node itself said it last, if it ever did.
    pub fn of(state: &State, node: &Address) -> Option<Catalogue> {
        state.policy_as::<Said>()?.catalogues.get(node).cloned()
    }
}

impl Policy for Said {
    fn decide(&self, _: &State, _: i64, _: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        Vec::new()
    }

    fn next_due_us(&self) -> Option<i64> {
        None
    }

    fn on_due(&self, _: &State, _: i64) -> Vec<Draft> {
        Vec::new()
    }

    fn apply(&mut self, _: Pos, header: &Header<'_>, payload: &[u8]) {
        // Others' words come with an origin, or are passed on to a child: the node's own it writes itself.
        let is_written_here = header.origin.is_none() && header.direction == Direction::Down;
        if header.kind == Kind::Event && header.name == CATALOGUE && is_written_here {
            self.catalogues.extend(data::<Catalogue>(payload).map(|c| (c.node.clone(), c)));
        }
    }

    fn take_rows(&mut self) -> Vec<Row> {
        Vec::new()
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Some(catalogue) = key.strip_prefix(&[PART]).and_then(|key| row_of(key, value)) {
            let catalogue = catalogue?;
            self.catalogues.insert(catalogue.node.clone(), catalogue);
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
