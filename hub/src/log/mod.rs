//! The log (contract; the body is being written).

use bytes::Bytes;
use citybrain_shared::{Lane, Pos};

#[derive(Clone)]
pub struct Reader {}

/// One record as read: `bytes` is its log form ([`citybrain_shared::record::Header::decode`]).
#[derive(Clone, Debug)]
pub struct Entry {
    pub pos: Pos,
    /// The rolling chain hash at this position.
    pub chain: u64,
    pub bytes: Bytes,
}
#[derive(Debug, thiserror::Error)]
#[error("")]
pub struct Error;
impl Reader {
    /// Oldest retained position (`Pos(1)` in an empty, never trimmed log).
    pub fn first(&self) -> Pos { unimplemented!() }
    /// Newest durable position; `Pos::ZERO` if there is none.
    pub fn last(&self) -> Pos { unimplemented!() }
    /// Chain hash at a durable position; 0 at `Pos::ZERO`; `None` if it is trimmed or not written.
    pub fn chain_at(&self, pos: Pos) -> Result<Option<u64>, Error> { unimplemented!() }
    /// Durable records after `after`, oldest first, until `records` or `bytes` are reached (at
    /// least one if there is one). With a lane, only records of that lane.
    pub fn read(&self, after: Pos, lane: Option<Lane>, records: usize, bytes: usize) -> Result<Vec<Entry>, Error> { unimplemented!() }
    pub fn get(&self, pos: Pos) -> Result<Option<Entry>, Error> { unimplemented!() }
    /// Position of the newest record with this key.
    pub fn find(&self, key: u64) -> Result<Option<Pos>, Error> { unimplemented!() }
}
