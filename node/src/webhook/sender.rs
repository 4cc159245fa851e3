//! One lane of a webhook at its work: what it reads, sends, tries again and notes.

use super::hook::{Ended, Hook, NotSkipped, PAUSE_FIRST, PAUSE_MAX};
use super::post::Answer;
use super::{Said, Skip, client_of};
use crate::https::without_path;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::log::{self, Entry, Reader};
use citybrain_hub::note::Note;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Lane, Pos};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Records read, and events delivered, before the cursor is noted.
pub(super) const BURST: usize = 64;
const BURST_BYTES: usize = 256 * 1024;
/// Positions without an event for this webhook before its cursor is noted anyway, so that the log
/// can be trimmed.
const SKIPPED_MAX: u64 = 10_000;
/// Until it is looked again for what this node lacks to ask a receiver, such as its token.
const UNASKED: Duration = Duration::from_secs(1);

pub(super) struct Sender {
    hook: Arc<Hook>,
    lane: Lane,
    reader: Reader,
    committed: watch::Receiver<Pos>,
    skips: mpsc::Receiver<Skip>,
    /// Everything of the lane up to here is settled, and that is noted up to there.
    upto: Pos,
    noted: Pos,
    /// Read, and to be delivered: those that fit, of all up to `end`.
    read: VecDeque<Entry>,
    end: Pos,
    /// Something was delivered since `noted`.
    told: bool,
    /// The first of `read` is not tried again before then.
    again: Option<Instant>,
    /// After the next attempt that fails.
    pause: Duration,
}

impl Sender {
    pub(super) fn new(hook: &Arc<Hook>, lane: Lane, skips: mpsc::Receiver<Skip>) -> Sender {
        Sender {
            lane,
            reader: hook.hub.reader(),
            committed: hook.hub.committed(),
            hook: hook.clone(),
            skips,
            upto: Pos::ZERO,
            noted: Pos::ZERO,
            read: VecDeque::new(),
            end: Pos::ZERO,
            told: false,
            again: None,
            pause: PAUSE_FIRST,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.hook.name()
    }

    /// Blocks until the node stops. Not on a thread of the runtime.
    pub(super) fn run(mut self) {
        let Ok(upto) = self.hook.begin(self.lane) else { return };
        (self.upto, self.noted, self.end) = (upto, upto, upto);
        while self.turn().is_ok() {}
        // Of an orderly end nothing comes twice.
        if self.told && !self.hook.is_gone() {
            self.hook.counters.set_upto(self.lane, self.upto);
            let _ = self.hook.settle();
        }
    }

    /// One event, or a wait until there may be one.
    fn turn(&mut self) -> Result<(), Ended> {
        if self.hook.is_over() {
            return Err(Ended);
        }
        // Where there is always something to send there is no wait.
        while let Ok(skip) = self.skips.try_recv() {
            self.skip(skip)?;
        }
        // Before the read, so that a commit behind it is not slept through.
        self.committed.borrow_and_update();
        let has_read = self.read.is_empty() && self.read()?;
        let due = self.due();
        if due.is_ok() {
            self.deliver()?;
        }
        self.hook.counters.set_upto(self.lane, self.upto);
        let is_through = self.told && (self.read.is_empty() || self.again.is_some());
        if is_through || self.upto.0 - self.noted.0 > SKIPPED_MAX {
            self.hook.settle()?;
            (self.noted, self.told) = (self.upto, false);
        }
        match due {
            Err(at) if !has_read => self.wait(at),
            _ => Ok(()),
        }
    }

    /// May the first that was read leave now?
    ///
    /// # Errors
    /// From when on it may; if there is none, not by the clock alone.
    fn due(&self) -> Result<(), Option<Instant>> {
        match self.again.filter(|again| *again > Instant::now()) {
            _ if self.read.is_empty() => Err(None),
            Some(again) => Err(Some(again)),
            None => self.hook.turn(self.lane).map_err(Some),
        }
    }

    /// What comes next, where all that was read is settled: was there anything?
    fn read(&mut self) -> Result<bool, Ended> {
        let last = self.reader.last();
        match self.reader.read(self.upto, Some(self.lane), BURST, BURST_BYTES) {
            Ok(entries) => {
                self.end = entries.last().map_or(last, |e| e.pos).max(self.upto);
                let may_be_sent = |e: &&Entry| !matches!(self.hook.sent_of(e), Ok(None));
                // What is not taken is kept for long.
                self.read = entries.iter().filter(may_be_sent).map(Entry::alone).collect();
                if self.read.is_empty() {
                    self.upto = self.end;
                }
                return Ok(!entries.is_empty());
            }
            // Lost, and recorded as lost by the log; what follows is still to be delivered.
            Err(log::Error::Damaged { upto: lost, .. }) => self.upto = lost.max(self.upto.next()),
            Err(log::Error::Trimmed { first }) => self.upto = Pos(first.0 - 1).max(self.upto),
            Err(error) => {
                tracing::warn!(webhook = self.name(), error = %with_causes(&error), "The log does not read; trying again.");
                self.hook.pause(PAUSE_FIRST)?;
            }
        }
        Ok(true)
    }

    /// The first that was read, once. What may be sent of it is judged anew: while the receiver was away somebody may
    /// have been forgotten.
    fn deliver(&mut self) -> Result<(), Ended> {
        let Some(entry) = self.read.front() else { return Ok(()) };
        let pos = entry.pos;
        let body = match self.hook.sent_of(entry) {
            Ok(Some(body)) => body,
            Ok(None) => {
                self.go_past();
                return Ok(());
            }
            Err(why) => {
                self.try_later(pos, Said { unasked: true, ..Said::nothing(why) }, None);
                return Ok(());
            }
        };
        match self.hook.send(&body) {
            Answer::Taken => {
                self.hook.counters.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Refused(said) => {
                self.hook.counters.refused.fetch_add(1, Ordering::Relaxed);
                let detail = format!("{} refused it: {}", without_path(&self.hook.config.url), said.whole());
                let letter = Note::DeadLetter(self.hook.letter("webhook-refused", pos, detail, &body));
                // In one group: behind a kill it is not asked, and refused, once more.
                let settled = Note::settled(&client_of(self.name(), self.lane), pos, Vec::new());
                self.hook.note(vec![letter, settled], Haste::Lazy)?;
            }
            Answer::Gone(said) => return self.hook.end(pos, said, &body),
            Answer::Later(said, after) => {
                self.try_later(pos, said, after);
                return Ok(());
            }
        }
        self.go_past();
        Ok(())
    }

    fn try_later(&mut self, pos: Pos, why: Said, after: Option<Duration>) {
        let retries = &self.hook.counters.retries;
        let is_first = !why.unasked && retries.fetch_add(1, Ordering::Relaxed) == 0;
        let reason = &why.status;
        match is_news(self.hook.stands_because(self.lane).as_ref(), &why, is_first || self.pause == PAUSE_MAX) {
            true if why.unasked => {
                tracing::warn!(webhook = self.name(), reason, "A receiver cannot be asked from here; looking again.");
            }
            true => tracing::warn!(webhook = self.name(), reason, "A receiver does not take events; trying again."),
            false => {}
        }
        self.again = Some(Instant::now() + later(&mut self.pause, why.unasked, after));
        self.hook.keep_standing(self.lane, pos, why);
    }

    /// The first of `read` is settled.
    fn go_past(&mut self) {
        if let Some(entry) = self.read.pop_front() {
            self.upto = entry.pos;
        }
        if self.read.is_empty() {
            self.upto = self.upto.max(self.end);
        }
        (self.told, self.again, self.pause) = (true, None, PAUSE_FIRST);
        self.hook.goes_on(self.lane);
    }

    /// Until there is something new, or it is `at`.
    fn wait(&mut self, at: Option<Instant>) -> Result<(), Ended> {
        let (mut stop, skips, committed) = (self.hook.stop.clone(), &mut self.skips, &mut self.committed);
        let skip = self.hook.handle.block_on(async {
            let at = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                Some(skip) = skips.recv() => Ok(Some(skip)),
                changed = committed.changed() => changed.map(|()| None).map_err(|_| Ended),
                () = at => Ok(None),
            }
        })?;
        skip.map_or(Ok(()), |skip| self.skip(skip))
    }

    /// Passes over what stands, by an operator's word: who said it, the dead letter and the cursor are one group.
    /// The letter has nothing of whoever is forgotten by now, nor what the receiver says of him.
    fn skip(&mut self, skip: Skip) -> Result<(), Ended> {
        let Skip { pos, who, act, told } = skip;
        // Whoever asked was told that it was not done.
        if told.is_closed() {
            return Ok(());
        }
        let Some(entry) = self.read.front().filter(|e| e.pos == pos && self.again.is_some()) else {
            let _ = told.send(Err(NotSkipped::not_at(pos)));
            return Ok(());
        };
        let body = self.hook.sent_of(entry).ok().flatten();
        let said = self.hook.stands_because(self.lane);
        let said = said.unwrap_or_default();
        let not_taken = if said.unasked { "was not asked" } else { "did not take it" };
        let why = if body.is_some() { said.whole() } else { said.status };
        let url = without_path(&self.hook.config.url);
        let detail = format!("{url} {not_taken} ({why}), and it was passed over by the operator {who}");
        let letter =
            Note::DeadLetter(self.hook.letter("webhook-skipped", pos, detail, &body.unwrap_or_default())).draft();
        let group = vec![act, letter, Note::settled(&client_of(self.name(), self.lane), pos, Vec::new()).draft()];
        let (hub, lane) = (&self.hook.hub, self.lane);
        let noted = self
            .hook
            .handle
            .block_on(async { engine::wait(hub.decide(lane, Box::new(move |_, _| group)).await?).await });
        match noted {
            Ok(_) => {
                self.go_past();
                let _ = told.send(Ok(()));
                Ok(())
            }
            Err(error) => {
                let ended = if matches!(error, engine::Error::Stopping) { Err(Ended) } else { Ok(()) };
                let _ = told.send(Err(NotSkipped::Log(error)));
                ended
            }
        }
    }
}

/// Is it told that it stands? What a receiver says, the first time and whenever it `is_due`; what this node itself lacks
/// is looked for each second, and told once.
fn is_news(before: Option<&Said>, why: &Said, is_due: bool) -> bool {
    if why.unasked { before.is_none_or(|before| !before.unasked || before.status != why.status) } else { is_due }
}

/// How long it is left alone, and twice as long the next time. A receiver may ask for more time, and not for less:
/// `Retry-After: 0` would be a loop without end. Where it was not asked, what this node lacks is looked for again soon,
/// however long it has lacked it.
fn later(pause: &mut Duration, unasked: bool, after: Option<Duration>) -> Duration {
    if unasked {
        return UNASKED;
    }
    let next = (*pause * 2).min(PAUSE_MAX);
    let pause = std::mem::replace(pause, next);
    after.map_or(pause, |after| after.max(pause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_left_alone_for_as_long_as_it_says_and_for_no_less_than_without_a_word() {
        let s = Duration::from_secs;
        let mut pause = s(4);
        let asked = [None, Some(s(0)), Some(s(99))].map(|after| later(&mut pause, false, after));
        assert_eq!((asked, pause), ([s(4), s(8), s(99)], s(32)));
    }

    #[test]
    fn what_the_node_itself_lacks_is_told_once_however_long_the_receiver_was_away_before() {
        let says = |status: &str, unasked| Said { status: status.into(), unasked, ..Said::default() };
        let (away, lacks, other) = (says("503", false), says("no token", true), says("no roles", true));
        assert!(
            is_news(None, &lacks, false) && is_news(Some(&away), &lacks, true) && is_news(Some(&lacks), &other, true)
        );
        assert!(!is_news(Some(&lacks), &lacks, true));
        assert_eq!([true, false].map(|is_due| is_news(Some(&lacks), &away, is_due)), [true, false]);
    }

    #[test]
    fn what_the_node_itself_lacks_is_looked_for_again_soon_however_long_it_has_lacked_it() {
        let mut pause = PAUSE_FIRST;
        let lacks: Vec<Duration> = (0..200).map(|_| later(&mut pause, true, None)).collect();
        assert_eq!(lacks, [UNASKED; 200]);
        assert_eq!(later(&mut pause, false, None), PAUSE_FIRST, "the receiver was never asked");
    }
}
