//! What waits for whom, counted in the log when somebody asks: a link's cursors are positions, and
//! most of what lies between two positions is not for this peer.

use super::frames::Audience;
use crate::log::Reader;
use citybrain_shared::record::Header;
use citybrain_shared::{Lane, Pos};

/// Records looked through for one answer, a few ms of work. What lies before them is counted by
/// positions: no fewer than there are records.
pub const LOOKED_THROUGH_MAX: u64 = 10_000;
/// Of what lies before them so many, for the age of the oldest.
const FIRST_RECORDS: u64 = 1_024;

/// A lane of a link, and where its peer stands.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    pub audience: &'a Audience,
    pub lane: Lane,
    /// On the peer's disk up to here …
    pub acked: Pos,
    /// … sent, if it was for the peer, up to here, …
    pub looked: Pos,
    /// … and to be sent up to here.
    pub upto: Pos,
}

/// What of a lane is not on the peer's disk yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub unsent: u64,
    pub in_flight: u64,
    /// Bytes of all these records as they lie in the log.
    pub bytes: u64,
    /// When the oldest of them was committed here, µs since 1970.
    pub oldest_us: Option<i64>,
    /// The log is too long to be looked through now: the numbers are at most so high, `bytes` is of
    /// the newest records only.
    pub at_most: bool,
}

/// One answer for each of `waits`. What the log has lost, or trimmed, waits for nobody.
pub fn count(reader: &Reader, waits: &[Wait<'_>]) -> Vec<Backlog> {
    let mut found = vec![Backlog::default(); waits.len()];
    let behind = || waits.iter().filter(|w| w.acked < w.upto);
    let Some(upto) = behind().map(|w| w.upto).max() else { return found };
    let first = Pos(reader.first().0.saturating_sub(1));
    let oldest = behind().map(|w| w.acked).min().unwrap_or(upto).max(first);
    let from = oldest.max(Pos(upto.0.saturating_sub(LOOKED_THROUGH_MAX)));
    for (wait, backlog) in waits.iter().zip(&mut found).filter(|(w, _)| w.acked.max(first) < w.upto.min(from)) {
        *backlog = by_positions(wait, first, from);
        // The first few are enough to know how long the oldest has waited, or nearly.
        let acked = wait.acked.max(first);
        let few = wait.upto.min(from).min(Pos(acked.0 + FIRST_RECORDS));
        let _ = reader.walk(acked, few, |entry| {
            let header = Header::decode(&entry.bytes).ok().map(|(header, _)| header);
            backlog.oldest_us = header.filter(|h| is_of(wait, entry.pos, h)).map(|h| h.committed_us);
            backlog.oldest_us.is_none()
        });
    }
    let counted = reader.each(from, upto, |entry| {
        let Ok((header, _)) = Header::decode(&entry.bytes) else { return };
        for (wait, backlog) in waits.iter().zip(&mut found).filter(|(w, _)| is_of(w, entry.pos, &header)) {
            *(if entry.pos > wait.looked { &mut backlog.unsent } else { &mut backlog.in_flight }) += 1;
            backlog.bytes += entry.bytes.len() as u64;
            backlog.oldest_us.get_or_insert(header.committed_us);
        }
    });
    if counted.is_err() {
        // A log that does not read is told of elsewhere; nothing here may look as if nothing waited.
        for (wait, backlog) in waits.iter().zip(&mut found).filter(|(w, _)| w.acked.max(first) < w.upto) {
            *backlog = by_positions(wait, first, wait.upto);
        }
    }
    found
}

/// At most so much of a lane lies in (`first`, `before`].
fn by_positions(wait: &Wait<'_>, first: Pos, before: Pos) -> Backlog {
    let (acked, before) = (wait.acked.max(first), wait.upto.min(before));
    let looked = wait.looked.max(acked);
    Backlog {
        in_flight: looked.min(before).0.saturating_sub(acked.0),
        unsent: before.0.saturating_sub(looked.0),
        at_most: true,
        ..Backlog::default()
    }
}

fn is_of(wait: &Wait<'_>, pos: Pos, header: &Header<'_>) -> bool {
    pos > wait.acked && pos <= wait.upto && header.lane == wait.lane && wait.audience.wants(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Options};
    use citybrain_shared::record::{Direction, Kind};
    use citybrain_shared::{Address, Tier};

    /// Of ten positions one is an urgent event, four are routine ones, for the city; the rest stays.
    fn log(dir: &std::path::Path, positions: u64) -> Log {
        let mut log = Log::open(dir, Options::default()).unwrap().log;
        for n in 1..=positions {
            let local = Header { committed_us: n as i64, ..Header::local(Kind::Event, "t") };
            let up = Header { direction: Direction::Up, reach: Tier::City, ..local };
            let header = match n % 10 {
                0 => Header { lane: Lane::Urgent, ..up },
                1..=4 => up,
                _ => local,
            };
            let mut bytes = Vec::new();
            header.encode(b"{}", &mut bytes).unwrap();
            log.append([bytes.as_slice()]);
            if n % 1_000 == 0 || n == positions {
                log.commit().unwrap();
            }
        }
        log
    }

    #[test]
    fn only_what_is_for_the_peer_waits_and_what_was_sent_is_in_flight() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 100);
        let up = Audience::Up(Address::parse("c").unwrap());
        let down = Audience::Down(Address::parse("c/s/m").unwrap());
        let wait = |audience, lane, acked, looked, upto| Wait {
            audience,
            lane,
            acked: Pos(acked),
            looked: Pos(looked),
            upto: Pos(upto),
        };
        let found = count(
            &log.reader(),
            &[
                wait(&up, Lane::Urgent, 20, 40, 100),
                wait(&up, Lane::Routine, 0, 0, 95),
                wait(&up, Lane::Routine, 100, 100, 100),
                wait(&down, Lane::Routine, 0, 0, 100),
            ],
        );
        assert_eq!((found[0].in_flight, found[0].unsent, found[0].oldest_us), (2, 6, Some(30)));
        assert_eq!((found[1].in_flight, found[1].unsent, found[1].oldest_us), (0, 40, Some(1)));
        assert!(found[0].bytes / 8 == found[1].bytes / 40 && found[0].bytes > 0);
        assert_eq!(found[2..], [Backlog::default(); 2]);
        assert!(found.iter().all(|b| !b.at_most));
    }

    #[test]
    fn what_is_too_far_back_to_be_looked_through_is_counted_by_positions() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), LOOKED_THROUGH_MAX + 1_000);
        let up = Audience::Up(Address::parse("c").unwrap());
        let last = log.last();
        let routine = Wait { audience: &up, lane: Lane::Routine, acked: Pos(5), looked: Pos(500), upto: last };
        let urgent = Wait { lane: Lane::Urgent, acked: Pos(last.0 - 100), looked: last, ..routine };
        let found = count(&log.reader(), &[routine, urgent]);
        let newest = LOOKED_THROUGH_MAX / 10 * 4;
        assert_eq!(
            (found[0].in_flight, found[0].unsent, found[0].oldest_us, found[0].at_most),
            (495, 500 + newest, Some(11), true)
        );
        assert_eq!((found[1].in_flight, found[1].unsent, found[1].at_most), (10, 0, false));
    }
}
