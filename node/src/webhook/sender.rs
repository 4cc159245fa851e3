//! One webhook at its work: what it reads, sends, tries again and notes.

use super::post::{Answer, Post, host_name};
use super::{NotSkipped, Said, Skip, Stands, URGENT, VIA, fits};
use crate::brain;
use crate::https::without_path;
use chrono::Utc;
use citybrain_hub::Hub;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::log::{self, Entry, Reader};
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_hub::state::WEBHOOK;
use citybrain_shared::config::Webhook;
use citybrain_shared::record::Header;
use citybrain_shared::words::with_causes;
use citybrain_shared::{Lane, Pos, event};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use ureq::tls::TlsConfig;

/// Records read, and events delivered, before the cursor is noted.
pub(super) const BURST: usize = 64;
const BURST_BYTES: usize = 256 * 1024;
/// Positions without an event for this webhook before its cursor is noted anyway, so that the log
/// can be trimmed.
const SKIPPED_MAX: u64 = 10_000;
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to write while the node cannot.
const PAUSE_UNWRITABLE_MAX: Duration = Duration::from_secs(5);

/// How far it is with one lane.
struct Cursor {
    lane: Lane,
    /// Its session.
    client: String,
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

impl Cursor {
    /// The first of `read` is settled.
    fn go_past(&mut self) {
        if let Some(entry) = self.read.pop_front() {
            self.upto = entry.pos;
        }
        if self.read.is_empty() {
            self.upto = self.upto.max(self.end);
        }
        (self.told, self.again, self.pause) = (true, None, PAUSE_FIRST);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }
}

pub(super) struct Sender {
    hub: Hub,
    handle: Handle,
    stop: watch::Receiver<bool>,
    pub(super) config: Webhook,
    pub(super) post: Post,
    skips: mpsc::Receiver<Skip>,
    own_origin: String,
    /// Between two deliveries, as the receiver wants it.
    gap: Duration,
    /// Its receiver has said that nothing more is to be sent.
    is_gone: bool,
}

/// The node is stopping.
struct Ended;

impl Sender {
    /// `secret` is the key itself.
    pub(super) fn new(
        hub: &Hub,
        config: &Webhook,
        secret: Option<Vec<u8>>,
        tls: TlsConfig,
        address: &str,
        stop: watch::Receiver<bool>,
    ) -> Sender {
        let (post, skips) = Post::new(config, secret, tls);
        Sender {
            hub: hub.clone(),
            handle: Handle::current(),
            stop,
            config: config.clone(),
            post,
            skips,
            gap: Duration::ZERO,
            is_gone: false,
            own_origin: address.to_owned(),
        }
    }

    /// Blocks until the node stops. Not on a thread of the runtime.
    pub(super) fn run(mut self) {
        let _ = self.work();
    }

    fn work(&mut self) -> Result<(), Ended> {
        let (reader, mut committed) = (self.hub.reader(), self.hub.committed());
        let mut lanes = [self.open(Lane::Urgent)?, self.open(Lane::Routine)?];
        self.show(&lanes);
        if self.config.handshake {
            self.shake_hands()?;
        }
        loop {
            if let Err(ended) = self.turn(&reader, &mut lanes, &mut committed) {
                // Of an orderly end nothing comes twice.
                if !self.is_gone && lanes.iter().any(|c| c.told) {
                    let _ = self.note(settled(&lanes), Haste::Lazy);
                }
                return Err(ended);
            }
        }
    }

    /// One event, of the urgent lane if there is one, or a wait until there may be one.
    fn turn(
        &mut self,
        reader: &Reader,
        lanes: &mut [Cursor; 2],
        committed: &mut watch::Receiver<Pos>,
    ) -> Result<(), Ended> {
        if *self.stop.borrow() {
            return Err(Ended);
        }
        // Where a lane is always due there is no wait.
        while let Ok(skip) = self.skips.try_recv() {
            self.skip(lanes, skip)?;
        }
        // Before the reads, so that a commit behind them is not slept through.
        committed.borrow_and_update();
        let mut is_busy = false;
        for cursor in lanes.iter_mut() {
            if !is_busy && cursor.is_due(Instant::now()) {
                is_busy = cursor.read.is_empty() && self.read(reader, cursor)?;
                is_busy |= self.deliver(cursor)?;
            }
        }
        self.show(lanes);
        let is_through =
            |c: &Cursor| c.told && (c.read.is_empty() || c.again.is_some()) || c.upto.0 - c.noted.0 > SKIPPED_MAX;
        if lanes.iter().any(is_through) {
            self.note(settled(lanes), Haste::Lazy)?;
            lanes.iter_mut().for_each(|c| (c.noted, c.told) = (c.upto, false));
        }
        if is_busy { Ok(()) } else { self.wait(lanes, committed) }
    }

    /// How far it is, for metrics and `status`.
    fn show(&self, lanes: &[Cursor; 2]) {
        let upto = lanes.iter().map(|c| c.upto).min().unwrap_or_default();
        self.post.counters.upto.store(upto.0, Ordering::Relaxed);
    }

    /// What comes next, where all that was read is settled: was there anything?
    fn read(&mut self, reader: &Reader, cursor: &mut Cursor) -> Result<bool, Ended> {
        let last = reader.last();
        match reader.read(cursor.upto, Some(cursor.lane), BURST, BURST_BYTES) {
            Ok(entries) => {
                cursor.end = entries.last().map_or(last, |e| e.pos).max(cursor.upto);
                let fits = |e: &&Entry| {
                    Header::decode(&e.bytes)
                        .is_ok_and(|(header, payload)| fits(&self.config.types, &self.config.sources, &header, payload))
                };
                // What is not taken is kept for long.
                cursor.read = entries.iter().filter(fits).map(Entry::alone).collect();
                if cursor.read.is_empty() {
                    cursor.upto = cursor.end;
                }
                return Ok(!entries.is_empty());
            }
            // Lost, and recorded as lost by the log; what follows is still to be delivered.
            Err(log::Error::Damaged { upto: lost, .. }) => cursor.upto = lost.max(cursor.upto.next()),
            Err(log::Error::Trimmed { first }) => cursor.upto = Pos(first.0 - 1).max(cursor.upto),
            Err(error) => {
                tracing::warn!(webhook = self.config.name, error = %with_causes(&error), "The log does not read; trying again.");
                self.pause(PAUSE_FIRST)?;
            }
        }
        Ok(true)
    }

    /// Where a lane goes on; its session is made if there is none.
    fn open(&mut self, lane: Lane) -> Result<Cursor, Ended> {
        let end = if lane == Lane::Urgent { URGENT } else { "" };
        let client = format!("{WEBHOOK}{}{end}", self.config.name);
        let known = |me: &Sender| me.hub.state(|s| s.sessions.get(&client).map(|s| s.upto));
        let mut upto = known(self);
        if upto.is_none() {
            self.note(Note::open_own(&client, 5, &["events/#"], 1), Haste::Now)?;
            upto = known(self);
        }
        let upto = upto.ok_or(Ended)?;
        let (read, again, pause) = (VecDeque::new(), None, PAUSE_FIRST);
        Ok(Cursor { lane, client, upto, noted: upto, read, end: upto, told: false, again, pause })
    }

    /// Until it is noted: a disk that is full or fails for a while is no reason to end.
    fn note(&mut self, notes: Vec<Note>, haste: Haste) -> Result<(), Ended> {
        let mut pause = PAUSE_FIRST;
        loop {
            let all = async { engine::wait(self.hub.note(notes.clone(), haste).await?).await };
            match self.handle.block_on(all) {
                Ok(()) => return Ok(()),
                Err(engine::Error::Stopping) => return Err(Ended),
                Err(error) => {
                    if pause == PAUSE_FIRST {
                        let webhook = &self.config.name;
                        tracing::warn!(webhook, %error, "A webhook waits until the node can write again.");
                    }
                }
            }
            self.pause(pause)?;
            pause = (pause * 2).min(PAUSE_UNWRITABLE_MAX);
        }
    }

    /// Until there is something new, or something is to be tried again.
    fn wait(&mut self, lanes: &mut [Cursor; 2], committed: &mut watch::Receiver<Pos>) -> Result<(), Ended> {
        let again = lanes.iter().filter_map(|c| c.again).min();
        let (stop, skips) = (&mut self.stop, &mut self.skips);
        let skip = self.handle.block_on(async {
            let again = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                Some(skip) = skips.recv() => Ok(Some(skip)),
                changed = committed.changed() => changed.map(|()| None).map_err(|_| Ended),
                () = again => Ok(None),
            }
        })?;
        skip.map_or(Ok(()), |skip| self.skip(lanes, skip))
    }

    /// Passes over what stands, by an operator's word: who said it, the dead letter and the cursor are one group.
    /// The letter has nothing of whoever is forgotten, nor what the receiver says of him.
    fn skip(&mut self, lanes: &mut [Cursor; 2], skip: Skip) -> Result<(), Ended> {
        let Skip { pos, act, told } = skip;
        // Whoever asked was told that it was not done.
        if told.is_closed() {
            return Ok(());
        }
        let stands = |c: &&mut Cursor| c.again.is_some() && c.read.front().is_some_and(|e| e.pos == pos);
        let Some(cursor) = lanes.iter_mut().find(stands) else {
            let _ = told.send(Err(NotSkipped::Moving(format!("it does not stand at {}", pos.0))));
            return Ok(());
        };
        let is_forgotten = cursor.read.front().is_none_or(|e| self.is_forgotten(e));
        let why = self.post.counters.stands.lock()[cursor.lane as usize]
            .as_ref()
            .map_or(String::new(), |s| if is_forgotten { s.why.status.clone() } else { s.why.whole() });
        let url = without_path(&self.config.url);
        let detail = format!("{url} did not take it ({why}), and it was passed over by an operator");
        let body = cursor.read.front().filter(|_| !is_forgotten).map(|e| self.body_of(e)).unwrap_or_default();
        let letter = Note::DeadLetter(self.letter("webhook-skipped", pos, detail, &body)).draft();
        let group = vec![act, letter, Note::settled(&cursor.client, pos, Vec::new()).draft()];
        let lane = cursor.lane;
        let noted = self
            .handle
            .block_on(async { engine::wait(self.hub.decide(lane, Box::new(move |_, _| group)).await?).await });
        match noted {
            Ok(_) => {
                cursor.go_past();
                self.post.counters.stands.lock()[cursor.lane as usize] = None;
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

    fn pause(&mut self, pause: Duration) -> Result<(), Ended> {
        let stop = &mut self.stop;
        self.handle.block_on(async {
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                () = tokio::time::sleep(pause) => Ok(()),
            }
        })
    }

    /// Until the receiver says that it wants events from here.
    fn shake_hands(&mut self) -> Result<(), Ended> {
        let origin = self.config.origin.clone().unwrap_or_else(host_name);
        let mut pause = PAUSE_FIRST;
        loop {
            match self.post.may_send(&origin) {
                Ok(gap) => {
                    self.gap = gap;
                    *self.post.counters.not_agreed.lock() = None;
                    return Ok(());
                }
                Err(why) => {
                    if self.post.counters.retries.fetch_add(1, Ordering::Relaxed) == 0 || pause == PAUSE_MAX {
                        tracing::warn!(
                            webhook = self.config.name,
                            reason = why,
                            "A receiver does not want events from here; nothing is sent, and it is asked again."
                        );
                    }
                    self.post.counters.keep_not_agreed(why);
                    self.pause(pause)?;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// The first that was read, once: was there one? Nobody may have it any more whose person was forgotten while
    /// the receiver was away.
    fn deliver(&mut self, cursor: &mut Cursor) -> Result<bool, Ended> {
        let Some(entry) = cursor.read.front() else { return Ok(false) };
        let (pos, body) = (entry.pos, self.body_of(entry));
        let key = Header::decode(&entry.bytes).map_or(0, |(header, _)| header.key);
        let answer = if self.is_forgotten(entry) { None } else { Some(self.post.send(key, &body)) };
        match answer {
            None => {}
            Some(Answer::Taken) => {
                self.post.counters.delivered.fetch_add(1, Ordering::Relaxed);
                if !self.gap.is_zero() {
                    // If the node ends meanwhile, whoever asks next is told.
                    let _ = self.pause(self.gap);
                }
            }
            Some(Answer::Refused(said)) => {
                self.post.counters.refused.fetch_add(1, Ordering::Relaxed);
                let detail = format!("{} refused it: {}", without_path(&self.config.url), said.whole());
                let letter = self.letter("webhook-refused", pos, detail, &body);
                self.note(vec![Note::DeadLetter(letter)], Haste::Lazy)?;
            }
            Some(Answer::Gone(said)) => return self.end(pos, said, &body),
            Some(Answer::Later(said, after)) => {
                self.try_later(cursor, said, after);
                return Ok(true);
            }
        }
        self.post.counters.stands.lock()[cursor.lane as usize] = None;
        cursor.go_past();
        Ok(true)
    }

    fn try_later(&mut self, cursor: &mut Cursor, why: Said, after: Option<Duration>) {
        if self.post.counters.retries.fetch_add(1, Ordering::Relaxed) == 0 || cursor.pause == PAUSE_MAX {
            let reason = &why.status;
            tracing::warn!(webhook = self.config.name, reason, "A receiver does not take events; trying again.");
        }
        let (lane, pos) = (cursor.lane, cursor.read.front().map_or(cursor.upto, |e| e.pos));
        let stands = &mut self.post.counters.stands.lock()[lane as usize];
        let since = stands.as_ref().filter(|s| s.pos == pos).map_or_else(Utc::now, |s| s.since);
        *stands = Some(Stands { pos, lane, since, why });
        cursor.again = Some(Instant::now() + later(cursor.pause, after));
        cursor.pause = (cursor.pause * 2).min(PAUSE_MAX);
    }

    /// The receiver takes nothing any more.
    fn end(&mut self, pos: Pos, said: Said, body: &[u8]) -> Result<bool, Ended> {
        self.post.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            webhook = self.config.name,
            reason = said.status,
            "A receiver is gone for good; nothing more is sent to it."
        );
        let url = without_path(&self.config.url);
        let detail = format!(
            "{url} is gone ({}): what there is by now, and what comes until the node starts again, is never sent to it",
            said.whole()
        );
        let letter = Note::DeadLetter(self.letter("webhook-gone", pos, detail, body));
        // Its cursors would hold the log for nobody.
        let ended = ["", URGENT].map(|lane| Note::SessionEnded {
            client: format!("{WEBHOOK}{}{lane}", self.config.name),
            why: "its receiver is gone".into(),
        });
        self.note([letter].into_iter().chain(ended).collect(), Haste::Now)?;
        *self.post.counters.stands.lock() = [None, None];
        *self.post.counters.gone.lock() = Some((Utc::now(), said.status));
        self.is_gone = true;
        Err(Ended)
    }

    /// Nobody may have it any more.
    fn is_forgotten(&self, entry: &Entry) -> bool {
        Header::decode(&entry.bytes).map_or(true, |(header, payload)| brain::is_forgotten(&self.hub, &header, payload))
    }

    /// As it is sent.
    fn body_of(&self, entry: &Entry) -> Vec<u8> {
        let Ok((header, payload)) = Header::decode(&entry.bytes) else { return Vec::new() };
        event::with_origin(payload, header.origin.map_or(self.own_origin.as_str(), |o| o.address))
    }

    fn letter(&self, reason: &str, pos: Pos, detail: String, body: &[u8]) -> DeadLetter {
        let via = format!("{VIA}{}", self.config.name);
        DeadLetter { of: Some(pos), ..DeadLetter::new(reason, detail, via, "", body) }
    }
}

/// As far as each lane is by now.
fn settled(lanes: &[Cursor; 2]) -> Vec<Note> {
    lanes.iter().map(|c| Note::settled(&c.client, c.upto, Vec::new())).collect()
}

/// How long it is left alone. A receiver may ask for more time, and not for less: `Retry-After: 0` would
/// be a loop without end.
fn later(pause: Duration, after: Option<Duration>) -> Duration {
    after.map_or(pause, |after| after.max(pause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_left_alone_for_as_long_as_it_says_and_for_no_less_than_without_a_word() {
        let s = Duration::from_secs;
        assert_eq!(later(s(4), None), s(4));
        assert_eq!(later(s(4), Some(s(0))), s(4));
        assert_eq!(later(s(4), Some(s(9))), s(9));
    }
}
