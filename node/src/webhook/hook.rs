//! What both lanes of a webhook have in common: its receiver and whether that wants anything, what is sent of a
//! record, its counters, its end.

use super::pace::Pace;
use super::post::{Answer, Post, host_name};
use super::{Reads, Said, Share, Skip, VIA, client_of, fits, fits_instead};
use crate::brain;
use crate::https::without_path;
use chrono::{DateTime, Utc};
use citybrain_hub::Hub;
use citybrain_hub::engine::{self, Haste};
use citybrain_hub::log::Entry;
use citybrain_hub::note::{DeadLetter, Note};
use citybrain_shared::config::Webhook;
use citybrain_shared::record::{Draft, Header, Kind};
use citybrain_shared::{Lane, Pos, event, view};
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(250);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to write while the node cannot.
const PAUSE_UNWRITABLE_MAX: Duration = Duration::from_secs(5);

/// One webhook of the config. Its lanes work, and operators ask it for something.
pub struct Hook {
    pub(super) hub: Hub,
    pub(super) handle: Handle,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) config: Webhook,
    post: Post,
    own_origin: String,
    /// Whose token it speaks to; `None`: whoever it is, he may have all.
    reads: Option<Reads>,
    /// Where each lane goes on, once its receiver may be sent something.
    begun: OnceLock<Result<[Pos; 2], Ended>>,
    pace: Mutex<Pace>,
    skips: [mpsc::Sender<Skip>; 2],
    pub counters: Counters,
    trouble: Mutex<Trouble>,
}

/// What a webhook has done since the start. Plain numbers, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    pub delivered: AtomicU64,
    pub refused: AtomicU64,
    pub retries: AtomicU64,
    /// Everything of a lane up to here is settled.
    upto: [AtomicU64; 2],
}

impl Counters {
    /// Everything up to here is settled.
    pub fn upto(&self) -> u64 {
        self.upto.iter().map(|upto| upto.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    pub(super) fn set_upto(&self, lane: Lane, upto: Pos) {
        self.upto[lane as usize].store(upto.0, Ordering::Relaxed);
    }
}

/// What keeps it from going on.
#[derive(Debug, Default)]
struct Trouble {
    /// What the receiver does not take, of each lane.
    stands: [Option<Stands>; 2],
    /// Since when, and why, nothing is sent to it: its receiver has not agreed to it by now,
    not_agreed: Option<(DateTime<Utc>, String)>,
    /// or it is gone.
    gone: Option<(DateTime<Utc>, String)>,
}

/// What is tried again and again.
#[derive(Debug)]
struct Stands {
    pos: Pos,
    since: DateTime<Utc>,
    /// As the last attempt ended.
    why: Said,
}

/// The node is stopping, or the receiver is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended;

/// Why nothing may be sent to a receiver now.
#[derive(Debug)]
pub enum NoTurn {
    /// It has not agreed to events from here.
    NotAgreed,
    /// It wants no more before then.
    Until(Instant),
}

/// Why an event was not passed over.
#[derive(Debug)]
pub enum NotSkipped {
    /// It does not stand, in a sentence.
    Moving(String),
    /// The log did not take it.
    Log(engine::Error),
}

impl Hook {
    /// What operators want passed over comes by `skips`, to each lane by its own.
    pub(super) fn new(
        hub: &Hub,
        config: &Webhook,
        post: Post,
        address: &str,
        reads: Option<Reads>,
        skips: [mpsc::Sender<Skip>; 2],
        stop: watch::Receiver<bool>,
    ) -> Hook {
        Hook {
            hub: hub.clone(),
            handle: Handle::current(),
            stop,
            config: config.clone(),
            post,
            own_origin: address.to_owned(),
            reads,
            begun: OnceLock::new(),
            pace: Mutex::default(),
            skips,
            counters: Counters::default(),
            trouble: Mutex::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// As it is shown, the log ending at `last`.
    pub fn view(&self, last: Pos) -> view::Webhook {
        let trouble = self.trouble.lock();
        // To a receiver that is gone nothing is sent that could stand.
        let all = || Lane::ALL.into_iter().zip(&trouble.stands).filter(|_| trouble.gone.is_none());
        let stands = all().filter_map(|(lane, stands)| {
            let Stands { pos, since, why } = stands.as_ref()?;
            let Said { status, unasked, .. } = why.clone();
            Some(view::WebhookStands { pos: *pos, lane, since: *since, why: status, unasked })
        });
        let (not_agreed, gone) = (trouble.not_agreed.clone(), trouble.gone.clone());
        view::Webhook {
            name: self.config.name.clone(),
            behind: last.0.saturating_sub(self.counters.upto()),
            stands: stands.collect(),
            not_agreed_since: not_agreed.as_ref().map(|(since, _)| *since),
            not_agreed_why: not_agreed.map(|(_, why)| why),
            gone_since: gone.as_ref().map(|(since, _)| *since),
            gone_why: gone.map(|(_, why)| why),
        }
    }

    // ---- what operators ask for ----

    /// Has what stands passed over, by the lane in which it stands. Who no longer waits for the answer takes the
    /// wish back, unless the log has it by then.
    ///
    /// # Errors
    /// It does not stand there, or the log does not take it.
    pub async fn skip(&self, pos: Pos, who: String, act: Draft) -> Result<(), NotSkipped> {
        let lane = {
            let trouble = self.trouble.lock();
            trouble.stands.iter().position(|s| s.as_ref().is_some_and(|s| s.pos == pos))
        };
        let lane = lane.ok_or_else(|| NotSkipped::not_at(pos))?;
        let (told, answer) = oneshot::channel();
        let gone = || NotSkipped::Moving("nothing is sent to its receiver any more".into());
        self.skips[lane].send(Skip { pos, who, act, told }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// A turn for something that an operator sends again: it goes among what is routine, and only to a receiver
    /// that has agreed to events.
    ///
    /// # Errors
    /// Why it has none by now.
    pub fn turn_again(&self) -> Result<(), NoTurn> {
        if self.config.handshake && !matches!(self.begun.get(), Some(Ok(_))) {
            return Err(NoTurn::NotAgreed);
        }
        self.turn(Lane::Routine).map_err(NoTurn::Until)
    }

    /// Sends what it refused once more, as it was, in a turn that it was given.
    ///
    /// # Errors
    /// A sentence: what is there is no event, or the receiver does not take it.
    pub fn again(&self, body: &[u8]) -> Result<(), String> {
        self.post.again(body)?;
        self.counters.delivered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    // ---- what its lanes ask for ----

    /// Where this lane goes on. Once for both of them, as the first asks and the other waits: their cursors are
    /// there before anything is sent, and the receiver has agreed.
    pub(super) fn begin(&self, lane: Lane) -> Result<Pos, Ended> {
        let begun = self.begun.get_or_init(|| {
            let upto = [self.open(Lane::Urgent)?, self.open(Lane::Routine)?];
            if self.config.handshake {
                self.shake_hands()?;
            }
            Ok(upto)
        });
        begun.map(|upto| upto[lane as usize])
    }

    /// Where a lane goes on; its session is made if there is none.
    fn open(&self, lane: Lane) -> Result<Pos, Ended> {
        let client = client_of(self.name(), lane);
        let known = || self.hub.state(|s| s.sessions.get(&client).map(|s| s.upto));
        if known().is_none() {
            self.note(Note::open_own(&client, 5, &["events/#"], 1), Haste::Now)?;
        }
        let upto = known().ok_or(Ended)?;
        self.counters.set_upto(lane, upto);
        Ok(upto)
    }

    /// Until the receiver says that it wants events from here.
    fn shake_hands(&self) -> Result<(), Ended> {
        let origin = self.config.origin.clone().unwrap_or_else(host_name);
        let mut pause = PAUSE_FIRST;
        loop {
            let why = match self.post.may_send(&origin) {
                Ok(gap) => {
                    *self.pace.lock() = Pace::new(gap);
                    self.trouble.lock().not_agreed = None;
                    return Ok(());
                }
                Err(why) => why,
            };
            if self.counters.retries.fetch_add(1, Ordering::Relaxed) == 0 || pause == PAUSE_MAX {
                tracing::warn!(
                    webhook = self.config.name,
                    reason = why,
                    "A receiver does not want events from here; nothing is sent, and it is asked again."
                );
            }
            {
                let held = &mut self.trouble.lock().not_agreed;
                let since = held.as_ref().map_or_else(Utc::now, |(since, _)| *since);
                *held = Some((since, why));
            }
            self.pause(pause)?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Is there nothing to do any more?
    pub(super) fn is_over(&self) -> bool {
        *self.stop.borrow() || self.is_gone()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.trouble.lock().gone.is_some()
    }

    /// May something of this lane be sent now?
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn turn(&self, lane: Lane) -> Result<(), Instant> {
        self.pace.lock().take(lane, Instant::now())
    }

    /// One attempt. Blocks.
    pub(super) fn send(&self, body: &[u8]) -> Answer {
        self.post.send(body)
    }

    /// The receiver does not take what is at `pos`.
    pub(super) fn keep_standing(&self, lane: Lane, pos: Pos, why: Said) {
        let stands = &mut self.trouble.lock().stands[lane as usize];
        let since = stands.as_ref().filter(|s| s.pos == pos).map_or_else(Utc::now, |s| s.since);
        *stands = Some(Stands { pos, since, why });
    }

    /// As the last attempt of what stands ended.
    pub(super) fn stands_because(&self, lane: Lane) -> Option<Said> {
        self.trouble.lock().stands[lane as usize].as_ref().map(|s| s.why.clone())
    }

    pub(super) fn goes_on(&self, lane: Lane) {
        self.trouble.lock().stands[lane as usize] = None;
    }

    /// The receiver takes nothing any more. Whichever lane is told first says so for both.
    pub(super) fn end(&self, pos: Pos, said: Said, body: &[u8]) -> Result<(), Ended> {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        if self.trouble.lock().gone.replace((Utc::now(), said.status.clone())).is_some() {
            return Err(Ended);
        }
        tracing::warn!(
            webhook = self.config.name,
            reason = said.status,
            "A receiver is gone for good; nothing more is sent to it."
        );
        let detail = format!(
            "{} is gone ({}): what there is by now, and what comes until the node starts again, is never sent to it",
            without_path(&self.config.url),
            said.whole()
        );
        let letter = Note::DeadLetter(self.letter("webhook-gone", pos, detail, body));
        // Its cursors would hold the log for nobody.
        let ended = Lane::ALL.map(|lane| Note::SessionEnded {
            client: client_of(self.name(), lane),
            why: "its receiver is gone".into(),
        });
        self.note([letter].into_iter().chain(ended).collect(), Haste::Now)?;
        Err(Ended)
    }

    /// What is sent of a record, now: nothing of what config does not name, what its reader may not read, or what is
    /// about somebody who is forgotten.
    ///
    /// # Errors
    /// A sentence: nobody knows now what may be read.
    pub fn sent_of(&self, entry: &Entry) -> Result<Option<Vec<u8>>, String> {
        let Some((header, payload)) = Header::decode(&entry.bytes).ok().filter(|(h, _)| h.kind == Kind::Event) else {
            return Ok(None);
        };
        let share = match &self.reads {
            None => Share::Same(payload.into()),
            Some(reads) => reads(&header, payload)?,
        };
        let Webhook { types, sources, .. } = &self.config;
        Ok(match share {
            Share::Same(event) if fits(types, sources, &header, payload) => {
                let origin = header.origin.map_or(self.own_origin.as_str(), |o| o.address);
                let is_forgotten = brain::is_forgotten(&self.hub, &header, payload);
                (!is_forgotten).then(|| event::with_origin(&event, origin))
            }
            Share::Instead(kind, event) if fits_instead(types, sources, kind, &event) => {
                Some(event::with_origin(&event, &self.own_origin))
            }
            _ => None,
        })
    }

    /// Is what it sends judged by a token?
    pub fn has_token(&self) -> bool {
        self.reads.is_some()
    }

    pub(super) fn letter(&self, reason: &str, pos: Pos, detail: String, body: &[u8]) -> DeadLetter {
        let via = format!("{VIA}{}", self.config.name);
        DeadLetter { of: Some(pos), ..DeadLetter::new(reason, detail, via, "", body) }
    }

    /// Notes how far both lanes are by now: the cursor of one in which nothing comes would hold the log.
    pub(super) fn settle(&self) -> Result<(), Ended> {
        let upto = |lane: Lane| Pos(self.counters.upto[lane as usize].load(Ordering::Relaxed));
        let settled = |lane| Note::settled(&client_of(self.name(), lane), upto(lane), Vec::new());
        self.note(Lane::ALL.map(settled).into(), Haste::Lazy)
    }

    /// Until it is noted: a disk that is full or fails for a while is no reason to end.
    pub(super) fn note(&self, notes: Vec<Note>, haste: Haste) -> Result<(), Ended> {
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

    pub(super) fn pause(&self, pause: Duration) -> Result<(), Ended> {
        let mut stop = self.stop.clone();
        self.handle.block_on(async {
            tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => Err(Ended),
                () = tokio::time::sleep(pause) => Ok(()),
            }
        })
    }
}

impl NotSkipped {
    pub(super) fn not_at(pos: Pos) -> NotSkipped {
        NotSkipped::Moving(format!("it does not stand at {}", pos.0))
    }
}
