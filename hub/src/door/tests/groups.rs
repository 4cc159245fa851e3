//! Shared subscriptions against a model: members of one group come, fall, end their sessions and
//! acknowledge while commits are held back and the node is killed.
//!
//! **Must**: a message that was acknowledged to its publisher is acknowledged by some member; one
//! member's session lasts throughout, so the group does. **One at a time**: what a member holds is
//! nobody else's until its session is over or the node was killed. **Once**: what was acknowledged
//! does not come again while the node lives, and after a kill not if the group's cursor was written.
//! **Order**: of messages that nobody has had, as long as nobody falls.
//!
//! A failure prints its seed; `CITYBRAIN_MODEL_SEED=n` runs that one alone.

use super::fake::Flaw;
use super::stage::{Stage, each_is_noticed, play, seeds};
use super::*;
use std::collections::VecDeque;

const NAME: &str = "$share/g/work/+";
const MEMBERS: usize = 3;
const STEPS: usize = 150;
const RUNS: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nobody has it; whoever had it is gone for good.
    Nobody,
    /// A member has it, and is connected or will come back for it.
    With(usize),
    /// Its acknowledgement is sent, and may not have been read.
    Acknowledged(usize),
    /// It was acknowledged, and that may be lost: it comes again, to this member alone if its session
    /// lasts, or it does not.
    Perhaps(Option<usize>),
    /// The acknowledgement was read.
    Settled,
    /// And is in the log.
    Noted,
}

struct Message {
    at: At,
    /// Acknowledged to its publisher.
    must: bool,
    given: u32,
    /// How often it may come again: for each kill, and each fall of who had it.
    excuses: u32,
}

#[derive(Default)]
struct Member {
    wire: Option<Client>,
    lasts: bool,
    /// The node has a session of it.
    exists: bool,
    /// Received and not acknowledged: packet id and message.
    held: VecDeque<(u16, usize)>,
    /// Newest message that came as nobody's before.
    newest: Option<usize>,
}

struct World {
    stage: Stage,
    publisher: Option<Client>,
    /// Packet ids of publishes that are not answered.
    open: VecDeque<usize>,
    members: Vec<Member>,
    messages: Vec<Message>,
    /// Messages from here on were published since somebody fell, and the door knows of it.
    calm: usize,
    /// Somebody fell, and the door may not know of it.
    stirred: bool,
}

impl World {
    async fn new(seed: u64, flaw: Option<Flaw>) -> World {
        let mut world = World {
            stage: Stage::new(seed, flaw).await,
            publisher: None,
            open: VecDeque::new(),
            members: (0..MEMBERS).map(|_| Member::default()).collect(),
            messages: Vec::new(),
            calm: 0,
            stirred: false,
        };
        world.join(0).await;
        world
    }

    async fn step(&mut self) -> Result<(), String> {
        let who = self.stage.rng.below(MEMBERS);
        match self.stage.rng.below(100) {
            0..3 => self.crash().await,
            3..8 => self.hold().await,
            8..14 => self.fall(who),
            14..18 => self.end(who).await,
            18..30 => self.join(who).await,
            30..60 => self.acknowledge(who).await,
            60..75 => self.look_around().await?,
            _ => self.publish().await,
        }
        let other = self.stage.rng.below(MEMBERS);
        self.hear(other).await
    }

    async fn crash(&mut self) {
        self.publisher = None;
        self.open.clear();
        for m in &mut self.members {
            (m.wire, m.exists) = (None, m.exists && m.lasts);
            m.held.clear();
        }
        for m in self.messages.iter_mut().filter(|m| m.at != At::Noted) {
            m.excuses += 1;
            m.at = match m.at {
                At::Nobody | At::With(_) => At::Nobody,
                _ => At::Perhaps(None),
            };
        }
        self.stirred = true;
        self.stage.crash().await;
    }

    async fn hold(&mut self) {
        if self.stage.held {
            return self.release().await;
        }
        self.stage.hold();
    }

    async fn release(&mut self) {
        self.stage.release();
        while let (Some(n), Some(p)) = (self.open.pop_front(), &mut self.publisher) {
            p.acked(kind::PUBACK, id_of(n)).await;
            self.messages[n].must = true;
        }
    }

    fn fall(&mut self, who: usize) {
        let m = &mut self.members[who];
        if m.wire.take().is_none() {
            return;
        }
        m.held.clear();
        m.exists &= m.lasts;
        let lasts = m.lasts;
        self.stage.tell(format!("{who} falls, lasting {lasts}"));
        self.bereave(who, lasts);
    }

    /// What a member that is gone had may come again: to itself if its session lasts, else to others.
    fn bereave(&mut self, who: usize, lasts: bool) {
        self.stirred = true;
        for m in &mut self.messages {
            let at = match m.at {
                At::With(with) if with == who && lasts => At::With(who),
                At::With(with) if with == who => At::Nobody,
                At::Acknowledged(by) | At::Perhaps(Some(by)) if by == who => At::Perhaps(lasts.then_some(who)),
                _ => continue,
            };
            m.at = at;
            m.excuses += 1;
        }
    }

    /// Comes back with a clean start, or for the first time. The first member's session is never over.
    async fn end(&mut self, who: usize) {
        if who > 0 && self.members[who].exists {
            self.release().await;
            self.fall(who);
            let wire = self.stage.house().client(Version::V5, &name(who), true).await;
            wire.leaves().await;
            self.members[who].exists = false;
            self.bereave(who, false);
            self.stage.tell(format!("{who}'s session is ended"));
        }
    }

    async fn join(&mut self, who: usize) {
        if self.members[who].wire.is_some() {
            return;
        }
        self.release().await;
        let lasts = who == 0 || self.members[who].exists || self.stage.rng.below(2) == 0;
        let version = if lasts { BOTH[self.stage.rng.below(2)] } else { Version::V5 };
        let (mut wire, connack) = self.stage.house().connect(version, &name(who), !lasts, &[]).await;
        let m = &mut self.members[who];
        assert_eq!(connack[..2], [u8::from(m.exists), 0], "{who} comes");
        if !m.exists {
            assert_eq!(wire.subscribe(NAME, 1).await, 1);
        }
        (m.wire, m.lasts, m.exists, m.newest) = (Some(wire), lasts, true, None);
        self.stage.tell(format!("{who} comes by {version:?}, lasting {lasts}"));
    }

    async fn publish(&mut self) {
        if self.publisher.is_none() {
            self.publisher = Some(self.stage.house().client(Version::V4, "publisher", true).await);
        }
        if self.stirred {
            let here = 1 + self.members.iter().filter(|m| m.wire.is_some()).count() as u64;
            self.stirred = self.stage.house().door.counters.connections.load(Ordering::Relaxed) != here;
            self.calm = self.messages.len();
        }
        for _ in 0..1 + self.stage.rng.below(4) {
            let n = self.messages.len();
            let wire = self.publisher.as_mut().expect("it has just come");
            wire.publish("work/x", n.to_string().as_bytes(), 1, id_of(n), false).await;
            self.messages.push(Message { at: At::Nobody, must: false, given: 0, excuses: 0 });
            self.open.push_back(n);
            self.stage.tell(format!("{n} is published"));
        }
        if !self.stage.held {
            return self.release().await;
        }
        // Held back, none should come; what comes all the same is a promise.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        while let Some((first, _)) = self.publisher.as_mut().expect("it has come").at_hand() {
            assert_eq!(first >> 4, kind::PUBACK);
            let n = self.open.pop_front().expect("an answer to a publish");
            self.messages[n].must = true;
        }
    }

    async fn acknowledge(&mut self, who: usize) {
        let some = 1 + self.stage.rng.below(4);
        let m = &mut self.members[who];
        let Some(wire) = &mut m.wire else { return };
        for _ in 0..some.min(m.held.len()) {
            // In any order, as a client with many hands does.
            let (id, n) = m.held.remove(self.stage.rng.below(m.held.len())).expect("counted");
            wire.ack(kind::PUBACK, id).await;
            self.messages[n].at = At::Acknowledged(who);
            self.stage.tell(format!("{who} acknowledges {n}"));
        }
    }

    /// Everybody is heard, so often that the group's cursor is written, if nothing is held back.
    async fn look_around(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            for who in 0..MEMBERS {
                self.hear(who).await?;
            }
        }
        // A note is made by a connection; without any there is none.
        if !self.stage.held && self.members.iter().any(|m| m.wire.is_some()) {
            for m in self.messages.iter_mut().filter(|m| m.at == At::Settled) {
                m.at = At::Noted;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, who: usize) -> Result<(), String> {
        let Some(wire) = &mut self.members[who].wire else { return Ok(()) };
        wire.send(0xc0, &[]).await;
        loop {
            let m = &mut self.members[who];
            let wire = m.wire.as_mut().expect("it is there");
            let version = wire.version;
            let Some((first, body)) = wire.packet().await else {
                return Err(format!("the door has ended {who}'s connection"));
            };
            if first == 0xd0 {
                break;
            }
            if first >> 4 != kind::PUBLISH {
                return Err(format!("{who} does not expect {first:x} {body:x?}"));
            }
            self.take(who, &got(version, first, &body))?;
        }
        // Every acknowledgement was sent before the ping.
        for m in self.messages.iter_mut().filter(|m| m.at == At::Acknowledged(who)) {
            m.at = At::Settled;
        }
        Ok(())
    }

    fn take(&mut self, who: usize, got: &Got) -> Result<(), String> {
        let n: usize = got.payload.parse().map_err(|_| format!("{got:?} is nobody's"))?;
        let (m, member) = (&mut self.messages[n], &mut self.members[who]);
        self.stage.tell(format!("{who} gets {n}{}", if got.dup { ", again" } else { "" }));
        match m.at {
            At::With(other) | At::Acknowledged(other) | At::Perhaps(Some(other)) if other != who => {
                return Err(format!("{who} gets {n}, which is with {other}"));
            }
            At::Noted => return Err(format!("{n} comes again, and that it is settled was in the log")),
            At::With(_) if !got.dup => return Err(format!("{who} gets {n} again, and is not told so")),
            _ => {}
        }
        m.given += 1;
        if m.given > 1 + m.excuses {
            return Err(format!("{n} comes for the {}. time: {:?}, {} excuses", m.given, m.at, m.excuses));
        }
        if got.qos != 1 {
            return Err(format!("{got:?} is not of QoS 1"));
        }
        if m.given == 1 && !self.stirred && n >= self.calm {
            if member.newest.is_some_and(|newest| newest > n) {
                return Err(format!("{who} gets {n} behind {:?}", member.newest));
            }
            member.newest = Some(n);
        }
        m.at = At::With(who);
        member.held.push_back((got.id, n));
        Ok(())
    }

    /// All come back and acknowledge all that there is; then nothing may be missing.
    async fn settle(&mut self) -> Result<(), String> {
        self.release().await;
        for who in 0..MEMBERS {
            self.join(who).await;
        }
        let mut patience = self.stage.patience();
        loop {
            for who in 0..MEMBERS {
                self.hear(who).await?;
                self.acknowledge(who).await;
            }
            let is_done = |m: &Message| matches!(m.at, At::Perhaps(_) | At::Settled | At::Noted);
            let missing = self.messages.iter().position(|m| m.must && !is_done(m));
            let Some(missing) = missing else { return Ok(()) };
            let done = self.messages.iter().filter(|m| is_done(m)).count();
            if patience.is_over(done) {
                return Err(format!("{missing} is missing: {:?}", self.messages[missing].at));
            }
        }
    }
}

pub(super) fn name(who: usize) -> String {
    format!("member-{who}")
}

pub(super) fn id_of(n: usize) -> u16 {
    (n % 1000) as u16 + 1
}

async fn run(seed: u64, flaw: Option<Flaw>) -> Result<(), String> {
    let (world, outcome) = play(World::new(seed, flaw).await, STEPS, World::step, World::settle).await;
    world.stage.end(seed, outcome).await
}

#[tokio::test]
async fn a_group_does_what_the_model_says_whatever_happens_to_its_members() {
    for seed in seeds(RUNS) {
        run(seed, None).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The model's own test.
#[tokio::test]
async fn the_model_of_groups_notices_an_engine_that_does_not_keep_what_it_says() {
    let flaws = [Flaw::EarlyTickets, Flaw::ForgetsCursors, Flaw::HastyCursors];
    each_is_noticed(&flaws, 4 * RUNS, run).await;
}
