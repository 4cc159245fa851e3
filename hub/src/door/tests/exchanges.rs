//! Messages of QoS 2 to a group against a model: members come, fall, end their sessions, receive,
//! release and complete while commits are held back and the node is killed.
//!
//! **Once**: a client hands a message on when it is told to release it. Nobody is given a message that
//! was handed on, or that another holds whose session lasts, whatever was killed. **Must**: what was
//! acknowledged to its publisher is handed on; where a session has ended, all but as many as the door
//! counts as abandoned. Messages of QoS 1 among them come at least once.
//!
//! A failure prints its seed; `CITYBRAIN_MODEL_SEED=n` runs that one alone.

use super::fake::Flaw;
use super::groups::{id_of, name};
use super::stage::{Stage, each_is_noticed, play, seeds};
use super::*;
use std::collections::{HashMap, HashSet, VecDeque};

const NAME: &str = "$share/g/work/+";
const MEMBERS: usize = 3;
const STEPS: usize = 150;
const RUNS: u64 = 60;

struct Message {
    qos: u8,
    /// Acknowledged to its publisher.
    must: bool,
    handed_on: u32,
}

#[derive(Default)]
struct Member {
    wire: Option<Client>,
    lasts: bool,
    exists: bool,
    /// Received and not released, by packet id: kept as long as the session.
    received: HashMap<u16, usize>,
    /// Released by an earlier connection: what became of its PUBCOMP is not known.
    released: HashSet<u16>,
    /// Released by this one.
    completed: HashSet<u16>,
    /// Answers that it has not sent.
    owes: VecDeque<(u8, u16)>,
}

impl Member {
    /// Its connection is gone.
    fn fall(&mut self) {
        self.owes.clear();
        self.released.extend(self.completed.drain());
        if !self.lasts {
            *self = Member::default();
        }
    }
}

struct World {
    stage: Stage,
    /// No session ends.
    all_last: bool,
    publisher: Option<Client>,
    /// Publishes that are not answered.
    open: VecDeque<usize>,
    members: Vec<Member>,
    messages: Vec<Message>,
    /// By earlier processes.
    abandoned: u64,
}

impl World {
    async fn new(seed: u64, flaw: Option<Flaw>) -> World {
        let mut world = World {
            stage: Stage::new(seed, flaw).await,
            all_last: seed.is_multiple_of(2),
            publisher: None,
            open: VecDeque::new(),
            members: (0..MEMBERS).map(|_| Member::default()).collect(),
            messages: Vec::new(),
            abandoned: 0,
        };
        world.join(0).await;
        world
    }

    async fn step(&mut self) -> Result<(), String> {
        let who = self.stage.rng.below(MEMBERS);
        match self.stage.rng.below(100) {
            0..4 => self.crash().await,
            4..9 => self.hold().await,
            9..16 => self.fall(who),
            16..20 => self.end(who).await,
            20..32 => self.join(who).await,
            32..70 => self.answer(who).await,
            _ => self.publish().await,
        }
        let other = self.stage.rng.below(MEMBERS);
        self.hear(other).await?;
        let gone = self.abandoned();
        self.stage.tell(format!("({gone} abandoned)"));
        Ok(())
    }

    async fn crash(&mut self) {
        self.publisher = None;
        self.open.clear();
        for who in 0..MEMBERS {
            self.fall(who);
        }
        self.abandoned += self.stage.crash().await.counters.abandoned.get();
    }

    fn abandoned(&self) -> u64 {
        self.abandoned + self.stage.house().door.counters.abandoned.get()
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
            let m = &mut self.messages[n];
            p.acked(if m.qos == 1 { kind::PUBACK } else { kind::PUBREC }, id_of(n)).await;
            m.must = true;
        }
    }

    fn fall(&mut self, who: usize) {
        let m = &mut self.members[who];
        if m.wire.take().is_some() {
            let lasts = m.lasts;
            m.fall();
            self.stage.tell(format!("{who} falls, lasting {lasts}"));
        }
    }

    /// A clean start. The first member's session is never over, so that the group is not.
    async fn end(&mut self, who: usize) {
        if who > 0 && !self.all_last && self.members[who].exists {
            self.release().await;
            self.fall(who);
            self.stage.house().client(Version::V5, &name(who), true).await.leaves().await;
            self.members[who] = Member::default();
            self.stage.tell(format!("{who}'s session is ended"));
        }
    }

    async fn join(&mut self, who: usize) {
        if self.members[who].wire.is_some() {
            return;
        }
        self.release().await;
        let lasts = who == 0 || self.all_last || self.members[who].exists || self.stage.rng.below(2) == 0;
        let version = if lasts { BOTH[self.stage.rng.below(2)] } else { Version::V5 };
        let (mut wire, connack) = self.stage.house().connect(version, &name(who), !lasts, &[]).await;
        let m = &mut self.members[who];
        assert_eq!(connack[..2], [u8::from(m.exists), 0], "{who} comes");
        if !m.exists {
            assert_eq!(wire.subscribe(NAME, 2).await, 2);
        }
        (m.wire, m.lasts, m.exists) = (Some(wire), lasts, true);
        self.stage.tell(format!("{who} comes by {version:?}, lasting {lasts}"));
    }

    async fn publish(&mut self) {
        if self.publisher.is_none() {
            self.publisher = Some(self.stage.house().client(Version::V4, "publisher", true).await);
        }
        for _ in 0..1 + self.stage.rng.below(4) {
            let (n, qos) = (self.messages.len(), if self.stage.rng.below(4) == 0 { 1 } else { 2 });
            let wire = self.publisher.as_mut().expect("it has just come");
            // Its exchange is never completed: this is about what comes out.
            wire.publish("work/x", n.to_string().as_bytes(), qos, id_of(n), false).await;
            self.messages.push(Message { qos, must: false, handed_on: 0 });
            self.open.push_back(n);
            self.stage.tell(format!("{n} is published as QoS {qos}"));
        }
        if !self.stage.held {
            self.release().await;
        }
    }

    /// Some of what a member owes, in any order for different messages.
    async fn answer(&mut self, who: usize) {
        let some = 1 + self.stage.rng.below(6);
        let m = &mut self.members[who];
        let Some(wire) = &mut m.wire else { return };
        for _ in 0..some.min(m.owes.len()) {
            let (kind, id) = m.owes.remove(self.stage.rng.below(m.owes.len())).expect("counted");
            wire.ack(kind, id).await;
            self.stage.tell(format!("{who} answers {kind:x} for {id}"));
        }
    }

    async fn hear(&mut self, who: usize) -> Result<(), String> {
        let Some(wire) = &mut self.members[who].wire else { return Ok(()) };
        wire.send(0xc0, &[]).await;
        loop {
            let wire = self.members[who].wire.as_mut().expect("it is there");
            let version = wire.version;
            let Some((first, body)) = wire.packet().await else {
                return Err(format!("the door has ended {who}'s connection"));
            };
            match first >> 4 {
                13 => return Ok(()),
                kind::PUBLISH => self.take(who, &got(version, first, &body))?,
                kind::PUBREL => self.hand_on(who, Ack::parse(version, kind::PUBREL, &body).unwrap())?,
                _ => return Err(format!("{who} does not expect {first:x} {body:x?}")),
            }
        }
    }

    fn take(&mut self, who: usize, got: &Got) -> Result<(), String> {
        let n: usize = got.payload.parse().map_err(|_| format!("{got:?} is nobody's"))?;
        self.stage.tell(format!("{who} gets {n} as {}{}", got.id, if got.dup { ", again" } else { "" }));
        let qos = self.messages[n].qos;
        if got.qos != qos {
            return Err(format!("{n} was published as QoS {qos}: {got:?}"));
        }
        if qos == 1 {
            self.messages[n].handed_on += 1;
            self.members[who].owes.push_back((kind::PUBACK, got.id));
            return Ok(());
        }
        if self.messages[n].handed_on > 0 {
            return Err(format!("{who} gets {n}, which was handed on"));
        }
        if let Some(other) = (0..MEMBERS).find(|o| *o != who && self.members[*o].received.values().any(|r| *r == n)) {
            return Err(format!("{who} gets {n}, which {other} has received"));
        }
        let m = &mut self.members[who];
        match m.received.insert(got.id, n) {
            Some(old) if old != n => return Err(format!("{who} gets {n} under the id of {old}")),
            Some(_) if !got.dup => return Err(format!("{who} gets {n} again, and is not told so")),
            _ => {}
        }
        m.owes.push_back((kind::PUBREC, got.id));
        Ok(())
    }

    fn hand_on(&mut self, who: usize, ack: Ack) -> Result<(), String> {
        let m = &mut self.members[who];
        if m.owes.contains(&(kind::PUBREC, ack.id)) {
            return Err(format!("{who} has not said that it has {ack:?}"));
        }
        match m.received.remove(&ack.id) {
            Some(n) if ack.reason == 0 => {
                self.messages[n].handed_on += 1;
                self.stage.tell(format!("{who} hands {n} on"));
            }
            None if ack.reason == 0 && m.released.remove(&ack.id) => {}
            had => return Err(format!("{who} did not ask for {ack:?}, has {had:?} under it")),
        }
        m.completed.insert(ack.id);
        m.owes.push_back((kind::PUBCOMP, ack.id));
        Ok(())
    }

    /// All come back and answer all that there is; then nothing may be missing.
    async fn settle(&mut self) -> Result<(), String> {
        self.release().await;
        for who in 0..MEMBERS {
            self.join(who).await;
        }
        let mut patience = self.stage.patience();
        loop {
            for who in 0..MEMBERS {
                self.hear(who).await?;
                self.answer(who).await;
            }
            let missing: Vec<usize> = (0..self.messages.len())
                .filter(|n| self.messages[*n].must && self.messages[*n].handed_on == 0)
                .collect();
            let is_rest = |n: &usize| self.messages[*n].qos == 2;
            if missing.iter().all(is_rest) && missing.len() as u64 <= self.abandoned() {
                break;
            }
            if patience.is_over(missing.len()) {
                return Err(format!("{missing:?} are missing, and {} were abandoned", self.abandoned()));
            }
        }
        if self.all_last && self.abandoned() > 0 {
            return Err(format!("{} were abandoned, and no session has ended", self.abandoned()));
        }
        match self.messages.iter().position(|m| m.qos == 2 && m.handed_on > 1) {
            Some(n) => Err(format!("{n} was handed on {} times", self.messages[n].handed_on)),
            None => Ok(()),
        }
    }
}

async fn run(seed: u64, flaw: Option<Flaw>) -> Result<(), String> {
    let (world, outcome) = play(World::new(seed, flaw).await, STEPS, World::step, World::settle).await;
    world.stage.end(seed, outcome).await
}

#[tokio::test]
async fn a_group_gets_each_message_of_qos_2_exactly_once_whatever_happens_to_its_members() {
    for seed in seeds(RUNS) {
        run(seed, None).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The model's own test.
#[tokio::test]
async fn the_model_of_exchanges_notices_an_engine_that_does_not_keep_what_it_says() {
    let flaws =
        [Flaw::EarlyTickets, Flaw::ForgetsCursors, Flaw::ForgetsReleasing, Flaw::ForgetsOwners, Flaw::ForgetsApart];
    each_is_noticed(&flaws, 4 * RUNS, run).await;
}
