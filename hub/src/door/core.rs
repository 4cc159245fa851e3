//! What the front door needs of the rest of the hub. Behind a trait, so that its tests can hold
//! back a commit, or let it fail.

use crate::engine::{Error, Haste, Hub, Offered, Outcome, Ticket, Trouble};
use crate::log::{self, Entry};
use crate::note::Note;
use crate::state::State;
use citybrain_shared::Pos;
use citybrain_shared::words::with_causes;
use std::future::Future;
use std::pin::Pin;
use tokio::sync::watch;

pub(crate) type Offering<T> = Pin<Box<dyn Future<Output = Result<Ticket<T>, Error>> + Send>>;

/// See the methods of the same names of [`Hub`] and [`log::Reader`]; to offer is [`Hub::offer_groups`].
pub trait Core: Send + Sync {
    fn offer(&self, offered: Vec<Offered>) -> Offering<Vec<Outcome>>;
    fn note(&self, notes: Vec<Note>, haste: Haste) -> Offering<()>;
    fn jot(&self, client: &str, upto: Pos);
    fn first(&self) -> Pos;
    fn read(&self, after: Pos, records: usize, bytes: usize) -> Result<Vec<Entry>, log::Error>;
    fn get(&self, pos: Pos) -> Result<Option<Entry>, log::Error>;
    fn committed(&self) -> watch::Receiver<Pos>;
    /// Does it take only what lets its log go, for want of room?
    fn is_short(&self) -> bool;
    fn state(&self, look: &mut dyn FnMut(&State));
    fn state_ahead(&self, look: &mut dyn FnMut(&State));
}

impl Core for Hub {
    fn offer(&self, offered: Vec<Offered>) -> Offering<Vec<Outcome>> {
        let hub = self.clone();
        Box::pin(async move { hub.offer_groups(offered).await })
    }

    fn note(&self, notes: Vec<Note>, haste: Haste) -> Offering<()> {
        let hub = self.clone();
        Box::pin(async move { hub.note(notes, haste).await })
    }

    fn jot(&self, client: &str, upto: Pos) {
        Hub::jot(self, client, upto);
    }

    fn first(&self) -> Pos {
        self.reader().first()
    }

    fn read(&self, after: Pos, records: usize, bytes: usize) -> Result<Vec<Entry>, log::Error> {
        self.reader().read(after, None, records, bytes)
    }

    fn get(&self, pos: Pos) -> Result<Option<Entry>, log::Error> {
        self.reader().get(pos)
    }

    fn committed(&self) -> watch::Receiver<Pos> {
        Hub::committed(self)
    }

    fn is_short(&self) -> bool {
        matches!(self.trouble(), Some(Trouble::Short(_)))
    }

    fn state(&self, look: &mut dyn FnMut(&State)) {
        Hub::state(self, |s| look(s));
    }

    fn state_ahead(&self, look: &mut dyn FnMut(&State)) {
        Hub::state_ahead(self, |s| look(s));
    }
}

/// Looks at the state and returns what was seen.
pub(crate) fn look<R>(core: &dyn Core, look: impl FnOnce(&State) -> R) -> R {
    looked(look, |once| core.state(once))
}

/// As [`look`], without waiting for what is being committed: see [`Hub::state_ahead`]. All connections are
/// on few threads, and one that waited for an fsync would hold up the others.
pub(crate) fn look_ahead<R>(core: &dyn Core, look: impl FnOnce(&State) -> R) -> R {
    looked(look, |once| core.state_ahead(once))
}

/// What `look` sees of the state that `at` shows once.
fn looked<R>(look: impl FnOnce(&State) -> R, at: impl FnOnce(&mut dyn FnMut(&State))) -> R {
    let mut look = Some(look);
    let mut seen = None;
    at(&mut |state| seen = look.take().map(|l| l(state)));
    seen.expect("the state is shown once")
}

/// Records after `after`, oldest first; what cannot be read is stepped over and counted.
pub(crate) struct Chunk {
    pub entries: Vec<Entry>,
    /// Everything up to here was read or stepped over.
    pub upto: Pos,
    /// Positions that are gone or damaged.
    pub unreadable: u64,
    /// First and last of those that retention took.
    pub trimmed: Option<(Pos, Pos)>,
    /// The files could not be read just now: nothing is known to be lost, ask again later.
    pub broken: bool,
}

/// Reads on from `after`, at most up to `last`, which is durable.
pub(crate) fn read_on(core: &dyn Core, after: Pos, last: Pos, records: usize, bytes: usize) -> Chunk {
    let mut chunk = Chunk { entries: Vec::new(), upto: after, unreadable: 0, trimmed: None, broken: false };
    let first = core.first();
    if first.0 > after.0 + 1 {
        chunk.unreadable = first.0 - 1 - after.0;
        chunk.upto = Pos(first.0 - 1);
        chunk.trimmed = Some((after.next(), chunk.upto));
    }
    if chunk.upto >= last {
        return chunk;
    }
    match core.read(chunk.upto, records, bytes) {
        Ok(mut entries) => {
            entries.retain(|e| e.pos > chunk.upto && e.pos <= last);
            // Nothing where something must be: the rest of this range is lost, go on behind it.
            let upto = entries.last().map_or(last, |e| e.pos);
            chunk.unreadable += upto.0 - chunk.upto.0 - entries.len() as u64;
            chunk.upto = upto;
            chunk.entries = entries;
        }
        Err(log::Error::Damaged { upto, .. }) => {
            let first = chunk.upto.next();
            let upto = upto.clamp(first, last);
            tracing::error!(
                first = first.0,
                upto = upto.0,
                "Damaged records cannot be read for subscribers; they are stepped over."
            );
            chunk.unreadable += upto.0 - chunk.upto.0;
            chunk.upto = upto;
        }
        // Taken since we looked where the log begins: the next look finds it.
        Err(log::Error::Trimmed { .. }) => {}
        Err(error) => {
            tracing::warn!(after = chunk.upto.0, error = %with_causes(&error), "The log cannot be read for subscribers; they wait.");
            chunk.broken = true;
        }
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::tests::fake::Fake;
    use citybrain_shared::record::{Draft, Header, Kind};

    #[test]
    fn a_damaged_stretch_is_stepped_over_at_once_and_counted() {
        let fake = Fake::new();
        fake.commit(vec![Draft::new(&Header::local(Kind::Message, ""), b"1").unwrap(); 1200]);
        fake.damage(Pos(11), Pos(1000));
        let read = |after, last| {
            let chunk = read_on(&fake, Pos(after), Pos(last), 64, 1 << 20);
            (chunk.entries.first().map(|e| e.pos.0), chunk.entries.len(), chunk.upto.0, chunk.unreadable)
        };
        assert_eq!(read(0, 1200), (Some(1), 10, 10, 0));
        assert_eq!(read(10, 1200), (None, 0, 1000, 990));
        assert_eq!(read(500, 600), (None, 0, 600, 100), "no further than was asked for");
        assert_eq!(read(1000, 1200), (Some(1001), 64, 1064, 0));
    }
}
