//! One link's sending side: a pure machine. Facts go in by `on_*`, effects come out by `poll_*`;
//! time is an argument, in monotonic milliseconds.
//!
//! **Constraints.** A receiver takes only the frame that begins where it stands, and acknowledges
//! cumulatively after its fsync. The way there loses, repeats and reorders.
//!
//! **Operation.** Each lane has a window of frames under way. `acked ≤ base ≤ looked ≤ last`:
//! what the peer has on disk, where the next frame begins, how far the log was looked through
//! (what lies between `base` and `looked` is not for this peer and is covered by the next frame),
//! and the log's end. How many bytes may be under way is for [`Pace`] to say. On a gap, or when the timer runs out, the lane goes back to `acked`:
//! resending is cheap and the receiver drops what it has, so nothing is remembered per record.

use super::pace::{Mark, Pace};
use citybrain_shared::{Lane, Pos};
use std::collections::VecDeque;

/// Monotonic milliseconds since some start of the caller's.
pub(crate) type Ms = u64;

/// Longest wait before an unacknowledged frame is sent again, ms.
pub(crate) const RESEND_AFTER_MAX_MS: Ms = 30_000;

/// After this many urgent frames in a row, one routine frame goes if there is one.
pub(crate) const URGENT_RUN_MAX: u32 = 8;

/// An empty frame moves the peer's cursor over records that are not for it once so many have
/// gathered. Fewer would keep an idle tree busy with itself: each such frame makes a note at both
/// ends, which again is a record that is for nobody.
pub(crate) const COVER_RECORDS_MIN: u64 = 1024;

/// And not more often than this, ms.
pub(crate) const COVER_AFTER_MS: Ms = 1_000;

#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub window_frames: usize,
    pub resend_after_ms: Ms,
}

/// Build and send a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    pub lane: Lane,
    /// The frame begins here.
    pub after: Pos,
    /// Records up to here were looked through and are not for this peer: read on from here.
    pub looked: Pos,
    /// Send (`after`, `looked`] without records.
    pub cover: bool,
    /// With so many bytes of records the frame is full.
    pub bytes_max: usize,
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The peer has more on disk than before.
    Progress,
    Nothing,
    /// It names a position that this log has not got to: the two disagree about the session, which
    /// only a new hello can settle. (What an older session sent may well be acknowledged in this one.)
    Beyond,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    upto: Pos,
    bytes: usize,
    sent_at: Ms,
    mark: Mark,
    /// Sent for the first time: only then does its acknowledgement measure the round trip.
    fresh: bool,
}

#[derive(Clone, Debug, Default)]
struct Line {
    acked: Pos,
    base: Pos,
    looked: Pos,
    sent_max: Pos,
    flight: VecDeque<Flight>,
    credit: u16,
    resend_at: Option<Ms>,
    cover_at: Option<Ms>,
    tries: u32,
    /// When the lane last went back, and to where: the frames that were under way then all report
    /// the same gap.
    went_back: Option<(Ms, Pos)>,
    /// Since when something is under way without any progress.
    waiting_since: Option<Ms>,
}

#[derive(Clone, Debug)]
pub(crate) struct Sender {
    terms: Terms,
    lines: [Line; 2],
    last: Pos,
    urgent_run: u32,
    rtt_ms: Option<f64>,
    pace: Pace,
    up: bool,
    resends: u64,
}

impl Sender {
    pub(crate) fn new(terms: Terms) -> Sender {
        Sender {
            terms,
            lines: Default::default(),
            last: Pos::ZERO,
            urgent_run: 0,
            rtt_ms: None,
            pace: Pace::default(),
            up: false,
            resends: 0,
        }
    }

    /// A session begins: the peer has everything up to `has` (urgent, routine). Whatever was under
    /// way in the session before counts for nothing.
    pub(crate) fn on_welcome(&mut self, has: [Pos; 2], last: Pos, credit: u16) {
        for (line, at) in self.lines.iter_mut().zip(has) {
            *line = Line { acked: at, base: at, looked: at, sent_max: at, credit: credit.max(1), ..Line::default() };
        }
        self.last = self.last.max(last);
        self.urgent_run = 0;
        self.pace.begin();
        self.up = true;
    }

    /// The session ended; nothing is sent until the next welcome.
    pub(crate) fn on_down(&mut self) {
        if self.up && self.lines.iter().any(|l| !l.flight.is_empty()) {
            self.pace.ran_out();
        }
        self.up = false;
        for line in &mut self.lines {
            line.flight.clear();
            (line.resend_at, line.waiting_since, line.cover_at) = (None, None, None);
        }
    }

    /// The log is durable up to `last`.
    pub(crate) fn on_log_grew(&mut self, last: Pos) {
        self.last = self.last.max(last);
    }

    /// A frame left. Call it for each [`Send`] that found records, or had `cover` set.
    pub(crate) fn on_sent(&mut self, now: Ms, lane: Lane, upto: Pos, bytes: usize) {
        match lane {
            Lane::Urgent => self.urgent_run += 1,
            Lane::Routine => self.urgent_run = 0,
        }
        let mark = self.pace.mark(now);
        let line = &mut self.lines[lane as usize];
        line.flight.push_back(Flight { upto, bytes, sent_at: now, mark, fresh: upto > line.sent_max });
        let timeout = self.timeout_ms(lane);
        let line = &mut self.lines[lane as usize];
        line.base = upto;
        line.looked = line.looked.max(upto);
        line.sent_max = line.sent_max.max(upto);
        line.cover_at = None;
        line.resend_at.get_or_insert(now + timeout);
        line.waiting_since.get_or_insert(now);
        self.on_log_grew(upto);
    }

    /// A [`Send`] found nothing for this peer up to `upto`.
    pub(crate) fn on_skipped(&mut self, now: Ms, lane: Lane, upto: Pos) {
        let line = &mut self.lines[lane as usize];
        line.looked = line.looked.max(upto);
        if line.looked.0 - line.base.0 >= COVER_RECORDS_MIN {
            line.cover_at.get_or_insert(now + COVER_AFTER_MS);
        }
    }

    /// The peer has every record up to and including `upto` on disk.
    pub(crate) fn on_ack(&mut self, now: Ms, lane: Lane, upto: Pos, credit: u16, gap: bool) -> Acked {
        if !self.up {
            return Acked::Nothing;
        }
        if upto > self.last {
            return Acked::Beyond;
        }
        let line = &mut self.lines[lane as usize];
        // Never none: what the peer has no room for it drops, and nobody else would tell when there is some.
        line.credit = credit.max(1);
        let mut measured = None;
        let progress = upto > line.acked;
        if progress {
            line.acked = upto;
            while let Some(f) = line.flight.front().copied().filter(|f| f.upto <= upto) {
                line.flight.pop_front();
                self.pace.delivered(f.bytes);
                if f.fresh {
                    measured = Some(f);
                }
            }
            // A late acknowledgement may overtake a rewind.
            line.base = line.base.max(upto);
            line.looked = line.looked.max(upto);
            line.tries = 0;
        }
        if let Some(f) = measured {
            self.pace.measure(now, f.mark);
            let ms = now.saturating_sub(f.sent_at) as f64;
            self.rtt_ms = Some(self.rtt_ms.map_or(ms, |r| r * 0.875 + ms * 0.125));
        }
        let timeout = self.timeout_ms(lane);
        let rtt = self.rtt_ms.unwrap_or(0.0) as Ms;
        let line = &mut self.lines[lane as usize];
        if progress {
            line.resend_at = (!line.flight.is_empty()).then_some(now + timeout);
            line.waiting_since = (!line.flight.is_empty()).then_some(now);
        }
        let told = line.went_back.is_some_and(|(at, to)| to == line.acked && now <= at + rtt);
        if gap && !told {
            line.went_back = Some((now, line.acked));
            self.go_back(lane);
        }
        if progress { Acked::Progress } else { Acked::Nothing }
    }

    /// Lets timers run out. True if a lane went back.
    pub(crate) fn on_tick(&mut self, now: Ms) -> bool {
        let mut any = false;
        for lane in Lane::ALL {
            let line = &mut self.lines[lane as usize];
            if line.resend_at.is_some_and(|at| at <= now) {
                line.tries = line.tries.saturating_add(1);
                line.resend_at = None;
                self.go_back(lane);
                self.pace.ran_out();
                any = true;
            }
        }
        any
    }

    /// The next frame to build, until the windows are full or the log is looked through.
    pub(crate) fn poll_send(&self, now: Ms) -> Option<Send> {
        if !self.up {
            return None;
        }
        let urgent = self.wants(now, Lane::Urgent);
        let routine = self.wants(now, Lane::Routine);
        match (urgent, routine) {
            (Some(_), Some(r)) if self.urgent_run >= URGENT_RUN_MAX => Some(r),
            (Some(u), _) => Some(u),
            (None, r) => r,
        }
    }

    /// When [`Sender::on_tick`] or [`Sender::poll_send`] may have something new.
    pub(crate) fn poll_timeout(&self) -> Option<Ms> {
        if !self.up {
            return None;
        }
        let line = |l: &Line| [l.resend_at, l.cover_at.filter(|_| l.flight.is_empty())].into_iter().flatten().min();
        self.lines.iter().filter_map(line).min()
    }

    /// How long something has been under way without any progress, ms.
    pub(crate) fn waiting_ms(&self, now: Ms) -> Ms {
        self.lines.iter().filter_map(|l| l.waiting_since).min().map_or(0, |t| now.saturating_sub(t))
    }

    /// So long the line may need for what is under way, ms.
    pub(crate) fn patience_ms(&self) -> Ms {
        self.pace.patience_ms(self.lines.iter().flat_map(|l| &l.flight).map(|f| f.bytes).sum())
    }

    pub(crate) fn acked(&self, lane: Lane) -> Pos {
        self.lines[lane as usize].acked
    }

    /// How far the log was looked through for this peer.
    pub(crate) fn looked(&self, lane: Lane) -> Pos {
        self.lines[lane as usize].looked
    }

    pub(crate) fn credit(&self, lane: Lane) -> u16 {
        self.lines[lane as usize].credit
    }

    #[cfg(test)]
    pub(crate) fn frames_in_flight(&self, lane: Lane) -> usize {
        self.lines[lane as usize].flight.len()
    }

    pub(crate) fn last(&self) -> Pos {
        self.last
    }

    pub(crate) fn rtt_ms(&self) -> Option<f64> {
        self.rtt_ms
    }

    /// How often a lane went back and sent again.
    pub(crate) fn resends(&self) -> u64 {
        self.resends
    }

    fn wants(&self, now: Ms, lane: Lane) -> Option<Send> {
        let line = &self.lines[lane as usize];
        let window = self.terms.window_frames.min(line.credit.into());
        let bytes: usize = line.flight.iter().map(|f| f.bytes).sum();
        if line.flight.len() >= window || bytes >= self.pace.window() {
            return None;
        }
        let bytes_max = self.pace.frame();
        let send = |cover| Send { lane, after: line.base, looked: line.looked, cover, bytes_max };
        if line.looked < self.last {
            Some(send(false))
        } else if line.looked > line.base && line.flight.is_empty() && line.cover_at.is_some_and(|at| at <= now) {
            Some(send(true))
        } else {
            None
        }
    }

    fn go_back(&mut self, lane: Lane) {
        let line = &mut self.lines[lane as usize];
        line.base = line.acked;
        line.looked = line.acked;
        line.flight.clear();
        line.cover_at = None;
        self.resends += 1;
    }

    /// `max(3 × round trip, resend_after, what the line needs)`, doubled with each try that brought nothing.
    fn timeout_ms(&self, lane: Lane) -> Ms {
        let way = (3.0 * self.rtt_ms.unwrap_or(0.0)) as Ms;
        let plain = self.terms.resend_after_ms.max(way).max(self.patience_ms()).max(1);
        let tries = self.lines[lane as usize].tries.min(16);
        plain.saturating_mul(1 << tries).min(RESEND_AFTER_MAX_MS.max(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(last: u64) -> Sender {
        let mut s = Sender::new(Terms { window_frames: 8, resend_after_ms: 2_000 });
        s.on_welcome([Pos::ZERO; 2], Pos(last), 8);
        s
    }

    /// Sends frames of one record on `lane` while the machine lets it; the other lane is empty.
    fn drain(s: &mut Sender, now: Ms, lane: Lane) -> Vec<Pos> {
        let mut sent = Vec::new();
        while let Some(send) = s.poll_send(now) {
            if send.lane == lane {
                s.on_sent(now, lane, send.after.next(), 100);
                sent.push(send.after.next());
            } else {
                s.on_skipped(now, send.lane, s.last());
            }
        }
        sent
    }

    #[test]
    fn a_window_of_eight_frames_is_under_way_and_no_more() {
        let mut s = sender(100);
        assert_eq!(drain(&mut s, 0, Lane::Routine).len(), 8);
        assert_eq!(s.on_ack(1, Lane::Routine, Pos(3), 8, false), Acked::Progress);
        assert_eq!(drain(&mut s, 1, Lane::Routine), [Pos(9), Pos(10), Pos(11)]);
    }

    #[test]
    fn less_credit_makes_a_smaller_window_and_none_still_lets_one_frame_go() {
        let mut s = sender(100);
        drain(&mut s, 0, Lane::Routine);
        s.on_ack(1, Lane::Routine, Pos(8), 2, false);
        assert_eq!(drain(&mut s, 1, Lane::Routine).len(), 2);
        s.on_ack(2, Lane::Routine, Pos(10), 0, false);
        assert_eq!(drain(&mut s, 3, Lane::Routine), [Pos(11)]);
    }

    #[test]
    fn urgent_goes_first_and_routine_is_never_starved() {
        let mut s = sender(1000);
        let mut order = String::new();
        for _ in 0..20 {
            let send = s.poll_send(0).unwrap();
            order.push(if send.lane == Lane::Urgent { 'u' } else { 'r' });
            let upto = send.after.next();
            s.on_sent(0, send.lane, upto, 100);
            s.on_ack(0, send.lane, upto, 8, false);
        }
        assert_eq!(order, "uuuuuuuuruuuuuuuuruu");
    }

    #[test]
    fn what_the_line_needs_long_for_is_not_sent_again_meanwhile() {
        // 20 s of a line of 10 kB/s, before and after the rate is known.
        let mut s = sender(100);
        s.on_sent(0, Lane::Routine, Pos(1), 200_000);
        assert!(!s.on_tick(20_000), "nothing is known of the line");
        s.on_ack(20_000, Lane::Routine, Pos(1), 8, false);
        s.on_sent(20_000, Lane::Routine, Pos(2), 200_000);
        assert!(!s.on_tick(40_000));
        assert!(s.on_tick(100_000), "it is lost");
        // Small frames are soon asked for again, though little traffic has measured little.
        let mut s = sender(100);
        s.on_sent(0, Lane::Routine, Pos(1), 100);
        s.on_ack(100, Lane::Routine, Pos(1), 8, false);
        s.on_sent(100, Lane::Routine, Pos(2), 4_000);
        assert!(s.on_tick(2_100));
    }

    #[test]
    fn a_gap_goes_back_once_and_not_for_every_frame_that_was_behind_it() {
        let mut s = sender(100);
        drain(&mut s, 0, Lane::Routine);
        s.on_ack(4, Lane::Routine, Pos(1), 8, false);
        drain(&mut s, 4, Lane::Routine);
        s.on_ack(5, Lane::Routine, Pos(1), 8, true);
        assert_eq!(drain(&mut s, 5, Lane::Routine)[0], Pos(2));
        s.on_ack(5, Lane::Routine, Pos(1), 8, true);
        assert_eq!(drain(&mut s, 5, Lane::Routine), []);
        assert_eq!(s.resends(), 1);
    }

    #[test]
    fn silence_sends_again_each_time_after_twice_the_wait() {
        let mut s = sender(1);
        drain(&mut s, 0, Lane::Routine);
        let mut waits = Vec::new();
        let mut now = 0;
        for _ in 0..7 {
            let at = s.poll_timeout().unwrap();
            waits.push(at - now);
            now = at;
            assert!(s.on_tick(now));
            assert_eq!(drain(&mut s, now, Lane::Routine), [Pos(1)]);
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(s.waiting_ms(now), now);
    }

    #[test]
    fn an_ack_that_overtakes_a_rewind_is_not_sent_again() {
        let mut s = sender(10);
        drain(&mut s, 0, Lane::Routine);
        s.on_tick(2_000);
        s.on_ack(2_001, Lane::Routine, Pos(8), 8, false);
        assert_eq!(drain(&mut s, 2_001, Lane::Routine), [Pos(9), Pos(10)]);
    }

    #[test]
    fn an_ack_for_a_record_that_was_never_written_is_refused() {
        let mut s = sender(10);
        assert_eq!(s.on_ack(0, Lane::Routine, Pos(11), 8, false), Acked::Beyond);
        assert_eq!(s.acked(Lane::Routine), Pos::ZERO);
    }

    #[test]
    fn an_acknowledgement_of_what_was_sent_is_never_beyond_what_there_is() {
        // A frame is made of the log as it is, which may have grown since this was told of it.
        let mut s = sender(10);
        assert!(s.poll_send(0).is_some());
        s.on_sent(0, Lane::Routine, Pos(12), 100);
        assert_eq!(s.on_ack(5, Lane::Routine, Pos(12), 8, false), Acked::Progress);
        assert_eq!(s.on_ack(5, Lane::Routine, Pos(13), 8, false), Acked::Beyond);
    }

    #[test]
    fn an_ack_for_what_an_older_session_sent_counts() {
        let mut s = sender(10);
        assert_eq!(s.on_ack(0, Lane::Routine, Pos(4), 8, false), Acked::Progress);
        assert_eq!(drain(&mut s, 0, Lane::Routine)[0], Pos(5));
    }

    #[test]
    fn an_older_ack_never_moves_the_cursor_back() {
        let mut s = sender(10);
        drain(&mut s, 0, Lane::Routine);
        s.on_ack(1, Lane::Routine, Pos(6), 8, false);
        assert_eq!(s.on_ack(2, Lane::Routine, Pos(2), 8, false), Acked::Nothing);
        assert_eq!(s.acked(Lane::Routine), Pos(6));
    }

    #[test]
    fn records_for_nobody_are_covered_once_there_are_many_and_then_lazily() {
        let mut s = sender(COVER_RECORDS_MIN - 1);
        assert_eq!(drain(&mut s, 0, Lane::Urgent).len(), 8);
        let mut s = sender(COVER_RECORDS_MIN - 1);
        for lane in Lane::ALL {
            s.on_skipped(0, lane, s.last());
        }
        assert_eq!(s.poll_timeout(), None);
        s.on_log_grew(Pos(COVER_RECORDS_MIN));
        for lane in Lane::ALL {
            s.on_skipped(5, lane, s.last());
        }
        assert_eq!(s.poll_timeout(), Some(5 + COVER_AFTER_MS));
        assert_eq!(s.poll_send(6), None);
        let send = s.poll_send(5 + COVER_AFTER_MS).unwrap();
        assert!(send.cover);
        assert_eq!((send.after, send.looked), (Pos::ZERO, Pos(COVER_RECORDS_MIN)));
    }

    #[test]
    fn after_the_session_ends_nothing_is_sent() {
        let mut s = sender(10);
        drain(&mut s, 0, Lane::Routine);
        s.on_down();
        assert_eq!((s.poll_send(9_999), s.poll_timeout()), (None, None));
        assert_eq!(s.on_ack(1, Lane::Routine, Pos(1), 8, false), Acked::Nothing);
    }
}
