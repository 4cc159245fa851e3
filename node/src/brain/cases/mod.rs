//! Being written.

use citybrain_hub::policy::{Policy, Row};
use citybrain_hub::state::State;
use citybrain_shared::Pos;
use citybrain_shared::config::Config;
use citybrain_shared::record::{Draft, Header};
use std::any::Any;

pub struct Cases;

impl Cases {
    pub fn new(_config: &Config) -> Cases {
        Cases
    }
}

impl Policy for Cases {
    fn decide(&self, _: &State, _: i64, _: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        Vec::new()
    }
    fn next_due_us(&self) -> Option<i64> {
        None
    }
    fn on_due(&self, _: &State, _: i64) -> Vec<Draft> {
        Vec::new()
    }
    fn apply(&mut self, _: Pos, _: &Header<'_>, _: &[u8]) {}
    fn take_rows(&mut self) -> Vec<Row> {
        Vec::new()
    }
    fn load_row(&mut self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
