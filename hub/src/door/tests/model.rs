//! Sessions against a model: clients do anything in any order, the node is killed in between, and
//! what each session got is compared with what it must and may have got.
//!
//! **Must**: every QoS 1 or 2 message that was acknowledged to its publisher and matched a filter of
//! the session from before it was sent. **Once**: QoS 2 in both directions. **Order**: of each
//! publisher's messages, as they come for the first time. A filter that comes or goes while a
//! message is on its way makes of "must" a "may". **Wills**: of each connection that ended without a
//! goodbye, once, also when it was the node that ended it; of no other.
//!
//! A failure prints its seed; `CITYBRAIN_MODEL_SEED=n` runs that one alone, `CITYBRAIN_MODEL_RUNS=n`
//! more of them. The tasks behind the sockets are not seeded, so that a seed is nearly a replay.

use super::stage::{Stage, each_is_noticed, play, seeds};
use super::*;
use crate::door::fake::Flaw;
use std::collections::{BTreeMap, HashMap, VecDeque};

const TOPICS: [&str; 4] = ["a", "a/b", "a/c", "b"];
const FILTERS: [&str; 6] = ["a", "a/b", "a/+", "a/#", "#", "b"];
const CLIENTS: usize = 3;
/// In whose order messages come: what a client publishes, and its wills.
const SOURCES: usize = 2 * CLIENTS;
const STEPS: usize = 120;
const RUNS: u64 = 60;
/// Publishes that a client has under way, at most; the door takes more.
const FLYING_MAX: usize = 12;

/// A published message; its number in [`World::messages`] is its payload.
struct Message {
    /// A client; or that and [`CLIENTS`], for its wills.
    source: usize,
    topic: &'static str,
    qos: u8,
    /// A QoS 1 message that was not acknowledged is sent again, and may be there as often. 0: a will
    /// whose time has not come.
    sent: u32,
    acked: bool,
}

/// What a session may expect of one message.
#[derive(Clone, Copy, Debug, Default)]
struct Hope {
    /// At least and at most this QoS; `None`: not at all.
    low: Option<u8>,
    high: Option<u8>,
    seen: u32,
    /// As often without the mark of a repetition.
    fresh: u32,
    /// How often by the connection with this number.
    seen_now: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    /// CONNECT is sent.
    Coming,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Subscribe(&'static str, u8),
    Unsubscribe(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    id: u16,
    message: usize,
    /// QoS 2: PUBREC has come.
    released: bool,
}

/// A client with its session's state on both sides.
struct Party {
    name: String,
    phase: Phase,
    wire: Option<Client>,
    connection: u32,
    /// How it came this time: with a clean start, and with a session that lasts.
    clean: bool,
    lasts: bool,
    /// The message that its will is, this time.
    will: Option<usize>,
    /// The node has a session of it.
    exists: bool,
    /// A clean start was asked for, and no answer heard: nobody knows which session there is.
    unsure: bool,
    asked: Option<Asked>,
    /// Granted at least, and at most.
    filters: BTreeMap<&'static str, (Option<u8>, Option<u8>)>,
    hopes: BTreeMap<usize, Hope>,
    /// Newest message of each source.
    newest: [Option<usize>; SOURCES],
    flying: VecDeque<Flying>,
    /// QoS 2 messages received and not released, by packet id.
    received: HashMap<u16, usize>,
    /// Acknowledgements that the client has not given yet.
    owed: VecDeque<(u8, u16)>,
    next_id: u16,
}

impl Party {
    fn new(n: usize) -> Party {
        Party {
            name: format!("party-{n}"),
            phase: Phase::Down,
            wire: None,
            connection: 0,
            clean: false,
            lasts: false,
            will: None,
            exists: false,
            unsure: false,
            asked: None,
            filters: BTreeMap::new(),
            hopes: BTreeMap::new(),
            newest: [None; SOURCES],
            flying: VecDeque::new(),
            received: HashMap::new(),
            owed: VecDeque::new(),
            next_id: 0,
        }
    }

    /// The session and everything in it is over.
    fn forget(&mut self) {
        self.filters.clear();
        self.hopes.clear();
        self.newest = [None; SOURCES];
        self.flying.clear();
        self.received.clear();
        self.owed.clear();
    }

    /// The connection is gone, by whoever's doing.
    fn fall(&mut self) {
        self.unsure |= self.phase == Phase::Coming && self.clean;
        if self.phase == Phase::Coming && self.lasts {
            // Opened or not: a session that is there is empty, or what it was.
            self.unsure |= !self.exists;
        }
        self.wire = None;
        self.owed.clear();
        self.asked = None;
        if self.phase == Phase::Up && !self.lasts {
            self.forget();
            self.exists = false;
        }
        self.phase = Phase::Down;
    }

    fn grade(&self, topic: &str, qos: u8) -> (Option<u8>, Option<u8>) {
        let matching = || self.filters.iter().filter(|(f, _)| topic::matches(f, topic)).map(|(_, g)| *g);
        let of = |grant: Option<u8>| grant.map(|q| q.min(qos));
        (of(matching().map(|g| g.0).max().flatten()), of(matching().map(|g| g.1).max().flatten()))
    }

    /// `filter` has changed: what is on its way may come by the old or the new. Another that matches
    /// promises nothing here, as it may have come behind the message.
    fn regrade(&mut self, filter: &str, was_there: bool, messages: &[Message]) {
        let grant = self.filters.get(filter).copied().unwrap_or_default();
        for (n, m) in messages.iter().enumerate().filter(|(_, m)| m.sent > 0 && topic::matches(filter, m.topic)) {
            let (low, high) = (grant.0.map(|q| q.min(m.qos)), grant.1.map(|q| q.min(m.qos)));
            match self.hopes.get_mut(&n) {
                Some(hope) => {
                    hope.high = hope.high.max(high);
                    if was_there {
                        hope.low = hope.low.min(low);
                    }
                }
                None if !m.acked => drop(self.hopes.insert(n, Hope { high, ..Hope::default() })),
                None => {}
            }
        }
    }

    /// A message has come, and is no repetition that QoS 2 tells.
    fn take(&mut self, n: usize, m: &Message, got: &Got) -> Result<(), String> {
        let connection = self.connection;
        let hope = self.hopes.get_mut(&n).ok_or_else(|| format!("{got:?} was never asked for"))?;
        if hope.high.is_none_or(|high| got.qos > high) || hope.low.is_some_and(|low| got.qos < low) {
            return Err(format!("{got:?} is not of the QoS that was granted: {hope:?}"));
        }
        if got.qos == 0 {
            return Ok(());
        }
        hope.seen += 1;
        hope.fresh += u32::from(!got.dup);
        hope.seen_now = if hope.seen_now.0 == connection { (connection, hope.seen_now.1 + 1) } else { (connection, 1) };
        let copies = if m.qos == 2 { 1 } else { m.sent };
        if hope.low == Some(2) && hope.seen > 1 {
            return Err(format!("{got:?} came twice"));
        }
        if hope.seen_now.1 > copies {
            return Err(format!("{got:?} came {} times by one connection", hope.seen_now.1));
        }
        if hope.fresh > copies {
            return Err(format!("{got:?} came again and does not say so"));
        }
        // Where a filter came meanwhile, an older message may come only when it is sent again; where
        // one was raised from QoS 0, what was given may come once more.
        if hope.seen == 1 && hope.low.is_some_and(|low| low > 0) {
            let newest = &mut self.newest[m.source];
            if newest.is_some_and(|newest| newest > n) {
                return Err(format!("{got:?} came behind {newest:?}"));
            }
            *newest = Some(n);
        }
        Ok(())
    }

    fn must_have(&self, messages: &[Message]) -> Option<usize> {
        let missing =
            |(n, h): (&usize, &Hope)| (messages[*n].acked && h.low.is_some_and(|q| q > 0) && h.seen == 0).then_some(*n);
        self.hopes.iter().find_map(missing)
    }
}

struct World {
    stage: Stage,
    parties: Vec<Party>,
    messages: Vec<Message>,
}

impl World {
    async fn new(seed: u64, flaw: Option<Flaw>) -> World {
        World {
            stage: Stage::new(seed, flaw).await,
            parties: (0..CLIENTS).map(Party::new).collect(),
            messages: Vec::new(),
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        let who = self.stage.rng.below(CLIENTS);
        match self.stage.rng.below(100) {
            0..3 => self.crash().await,
            3..8 => self.drop_connection(who),
            8..10 => self.say_goodbye(who).await?,
            10..18 => self.hold(),
            18..28 => self.ask(who).await,
            28..50 => self.acknowledge(who).await,
            50..60 => self.hear(who).await?,
            _ if self.parties[who].phase == Phase::Down => self.connect(who).await,
            60..62 => self.connect(who).await,
            _ => self.publish(who).await,
        }
        let other = self.stage.rng.below(CLIENTS);
        self.hear(other).await
    }

    async fn crash(&mut self) {
        let fallen: Vec<_> = (0..CLIENTS).filter(|who| self.parties[*who].phase != Phase::Down).collect();
        let phases: Vec<_> = fallen.iter().map(|who| self.parties[*who].phase).collect();
        for p in &mut self.parties {
            p.fall();
        }
        // Said by the next start: whose session ended with the connection is no longer there.
        for (who, phase) in fallen.into_iter().zip(phases) {
            self.leave_will(who, phase);
        }
        self.stage.crash().await;
    }

    fn drop_connection(&mut self, who: usize) {
        let phase = self.parties[who].phase;
        if phase != Phase::Down {
            self.parties[who].fall();
            self.leave_will(who, phase);
            self.stage.tell(format!("{who} falls"));
        }
    }

    /// The connection has ended in this phase without a goodbye: now its will is a message like any.
    fn leave_will(&mut self, who: usize, phase: Phase) {
        let Some(n) = self.parties[who].will.take() else { return };
        let m = &mut self.messages[n];
        // Whether the node had heard of it is not known before CONNACK.
        (m.sent, m.acked) = (1, phase == Phase::Up);
        let (topic, qos) = (m.topic, m.qos);
        for p in &mut self.parties {
            let (low, high) = p.grade(topic, qos);
            p.hopes.insert(n, Hope { low, high, ..Hope::default() });
        }
    }

    /// With nothing held back, its will is forgotten when the door closes the connection.
    async fn say_goodbye(&mut self, who: usize) -> Result<(), String> {
        if self.parties[who].phase != Phase::Up || self.stage.held {
            return Ok(());
        }
        let wire = self.parties[who].wire.as_mut().expect("it is up");
        wire.send(0xe0, &[]).await;
        loop {
            let packet = timeout(PATIENCE, self.parties[who].wire.as_mut().expect("it is up").packet()).await;
            match packet.map_err(|_| format!("{who}'s goodbye is not heard"))? {
                Some((first, body)) => self.heard(who, first, &body).await?,
                None => break,
            }
        }
        self.parties[who].fall();
        self.parties[who].will = None;
        self.stage.tell(format!("{who} says goodbye"));
        Ok(())
    }

    fn hold(&mut self) {
        if self.stage.held { self.stage.release() } else { self.stage.hold() }
    }

    async fn connect(&mut self, who: usize) {
        let version = BOTH[self.stage.rng.below(2)];
        let kind = self.stage.rng.below(8);
        let will = (self.stage.rng.below(2) == 0)
            .then(|| (TOPICS[self.stage.rng.below(TOPICS.len())], 1 + self.stage.rng.below(2) as u8));
        // Where it is connected already, the new connection ends the old.
        self.drop_connection(who);
        let mut client = self.stage.house().dial(version).await;
        let p = &mut self.parties[who];
        p.will = will.map(|(topic, qos)| {
            self.messages.push(Message { source: CLIENTS + who, topic, qos, sent: 0, acked: false });
            self.messages.len() - 1
        });
        p.clean = p.unsure || kind < 2;
        // 3.1.1 has no clean start with a session that lasts.
        p.lasts = !p.clean || (version == Version::V5 && kind != 0);
        let flags = u8::from(p.clean) << 1 | will.map_or(0, |(_, qos)| 4 | qos << 3);
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), flags, 0, 60];
        if version == Version::V5 {
            body.extend_from_slice(if p.lasts { &[5, 0x11, 0, 0, 0, 100] } else { &[0] });
        }
        put_text(&p.name, &mut body);
        if let (Some((topic, _)), Some(n)) = (will, p.will) {
            if version == Version::V5 {
                body.push(0);
            }
            put_text(topic, &mut body);
            put_text(&n.to_string(), &mut body);
        }
        client.send(0x10, &body).await;
        (p.wire, p.phase) = (Some(client), Phase::Coming);
        p.connection += 1;
        let what = format!("{who} connects by {version:?}, clean {}, lasting {}, will {:?}", p.clean, p.lasts, p.will);
        self.stage.tell(what);
    }

    async fn ask(&mut self, who: usize) {
        let filter = FILTERS[self.stage.rng.below(FILTERS.len())];
        let qos = self.stage.rng.below(3) as u8;
        let p = &mut self.parties[who];
        if p.phase != Phase::Up || p.asked.is_some() {
            return;
        }
        let asked =
            if self.stage.rng.below(4) > 0 { Asked::Subscribe(filter, qos) } else { Asked::Unsubscribe(filter) };
        let wire = p.wire.as_mut().expect("it is up");
        let mut body = vec![0, 9];
        if wire.version == Version::V5 {
            body.push(0);
        }
        put_text(filter, &mut body);
        let old = p.filters.get(filter).copied();
        match asked {
            Asked::Subscribe(..) => {
                body.push(qos);
                wire.send(0x82, &body).await;
                let old = old.unwrap_or_default();
                p.filters.insert(filter, (old.0.min(Some(qos)), old.1.max(Some(qos))));
            }
            Asked::Unsubscribe(_) => {
                wire.send(0xa2, &body).await;
                if let Some((_, high)) = old {
                    p.filters.insert(filter, (None, high));
                }
            }
        }
        p.asked = Some(asked);
        p.regrade(filter, old.is_some(), &self.messages);
        self.stage.tell(format!("{who} asks: {asked:?}"));
    }

    async fn publish(&mut self, who: usize) {
        let topic = TOPICS[self.stage.rng.below(TOPICS.len())];
        let qos = self.stage.rng.below(8).div_ceil(3).min(2) as u8;
        if self.parties[who].phase != Phase::Up || self.parties[who].flying.len() >= FLYING_MAX {
            return;
        }
        let n = self.messages.len();
        self.messages.push(Message { source: who, topic, qos, sent: 0, acked: false });
        for p in &mut self.parties {
            let (low, high) = p.grade(topic, qos);
            p.hopes.insert(n, Hope { low, high, ..Hope::default() });
        }
        let p = &mut self.parties[who];
        p.next_id = p.next_id % 1000 + 1;
        let flying = Flying { id: p.next_id, message: n, released: false };
        if qos > 0 {
            p.flying.push_back(flying);
        }
        self.send(who, flying).await;
        self.stage.tell(format!("{who} publishes {n} on {topic} with QoS {qos}"));
    }

    /// For the first time or again.
    async fn send(&mut self, who: usize, f: Flying) {
        let wire = self.parties[who].wire.as_mut().expect("it is up");
        if f.released {
            return wire.ack(kind::PUBREL, f.id).await;
        }
        let m = &mut self.messages[f.message];
        let payload = f.message.to_string();
        let dup = m.sent > 0;
        m.sent += 1;
        wire.put(publish::Out { dup, qos: m.qos, id: f.id, ..out(m.topic, payload.as_bytes()) }).await;
    }

    /// Gives some of the acknowledgements that are due, oldest first.
    async fn acknowledge(&mut self, who: usize) {
        let some = 1 + self.stage.rng.below(4);
        let p = &mut self.parties[who];
        let (Some(wire), Phase::Up) = (&mut p.wire, p.phase) else { return };
        for _ in 0..some.min(p.owed.len()) {
            let (kind, id) = p.owed.pop_front().expect("counted");
            wire.ack(kind, id).await;
        }
    }

    /// Takes what has come. Without a commit to wait for, everything that the door has read so far
    /// is answered then.
    async fn hear(&mut self, who: usize) -> Result<(), String> {
        let waits = |p: &Party| p.phase == Phase::Coming || p.asked.is_some();
        if self.parties[who].phase == Phase::Down {
            return Ok(());
        }
        if self.stage.held && waits(&self.parties[who]) {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            while let Some((first, body)) = self.parties[who].wire.as_mut().expect("it is not down").at_hand() {
                self.heard(who, first, &body).await?;
            }
            return Ok(());
        }
        let mut pinged = false;
        loop {
            let p = &mut self.parties[who];
            let wire = p.wire.as_mut().expect("it is not down");
            if p.phase == Phase::Up && p.asked.is_none() && !pinged {
                wire.send(0xc0, &[]).await;
                pinged = true;
            }
            let packet = timeout(PATIENCE, wire.packet()).await.map_err(|_| format!("{who} waits for ever"))?;
            let Some((first, body)) = packet else { return Err(format!("the door has ended {who}'s connection")) };
            if first == 0xd0 {
                return Ok(());
            }
            self.heard(who, first, &body).await?;
        }
    }

    async fn heard(&mut self, who: usize, first: u8, body: &[u8]) -> Result<(), String> {
        let p = &mut self.parties[who];
        let version = p.wire.as_ref().expect("it speaks").version;
        match first >> 4 {
            2 => self.welcome(who, body).await,
            kind::PUBLISH => {
                let got = got(version, first, body);
                self.received(who, &got)
            }
            9 | 11 => {
                match p.asked.take() {
                    Some(Asked::Subscribe(f, qos)) if first == 0x90 && body.last() == Some(&qos) => {
                        p.filters.insert(f, (Some(qos), Some(qos)));
                    }
                    Some(Asked::Unsubscribe(f)) if first == 0xb0 => drop(p.filters.remove(f)),
                    asked => return Err(format!("{who} asked {asked:?} and heard {first:x} {body:x?}")),
                }
                Ok(())
            }
            kind::PUBREL => {
                let ack = Ack::parse(version, kind::PUBREL, body).map_err(|e| e.to_string())?;
                p.received.remove(&ack.id);
                p.owed.push_back((kind::PUBCOMP, ack.id));
                Ok(())
            }
            kind @ (kind::PUBACK | kind::PUBREC | kind::PUBCOMP) => {
                let ack = Ack::parse(version, kind, body).map_err(|e| e.to_string())?;
                let Some(i) = p.flying.iter().position(|f| f.id == ack.id) else {
                    return Err(format!("{who} hears of {ack:?}, which it did not send"));
                };
                if ack.reason != 0 && kind != kind::PUBCOMP {
                    return Err(format!("{who} is refused: {ack:?}"));
                }
                self.messages[p.flying[i].message].acked = true;
                if kind == kind::PUBREC {
                    p.flying[i].released = true;
                    p.wire.as_mut().expect("it speaks").ack(kind::PUBREL, ack.id).await;
                } else {
                    p.flying.remove(i);
                }
                Ok(())
            }
            _ => Err(format!("{who} does not expect {first:x} {body:x?}")),
        }
    }

    async fn welcome(&mut self, who: usize, body: &[u8]) -> Result<(), String> {
        let p = &mut self.parties[who];
        let present = body[0] & 1 == 1;
        if body[1] != 0 || present != (p.exists && !p.clean) {
            return Err(format!(
                "{who} comes to a session that {} there: {body:x?}",
                if p.exists { "is" } else { "is not" }
            ));
        }
        if !present {
            p.forget();
        }
        (p.phase, p.exists, p.unsure) = (Phase::Up, p.lasts, false);
        for f in p.flying.clone() {
            self.send(who, f).await;
        }
        self.stage.tell(format!("{who} is there, session present: {present}"));
        Ok(())
    }

    fn received(&mut self, who: usize, got: &Got) -> Result<(), String> {
        let p = &mut self.parties[who];
        let n: usize = got.payload.parse().map_err(|_| format!("{got:?} is nobody's"))?;
        match got.qos {
            0 => {}
            1 => p.owed.push_back((kind::PUBACK, got.id)),
            _ => {
                p.owed.push_back((kind::PUBREC, got.id));
                match p.received.insert(got.id, n) {
                    Some(old) if old == n && got.dup => return Ok(()),
                    Some(old) => return Err(format!("{got:?} has the id of {old}, which is not released")),
                    None => {}
                }
            }
        }
        p.take(n, &self.messages[n], got).map_err(|e| format!("{who}: {e}"))
    }

    /// Everybody comes back and takes what there is; then nothing may be missing.
    async fn settle(&mut self) -> Result<(), String> {
        self.stage.release();
        self.stage.tell("all come back");
        for who in 0..CLIENTS {
            if self.parties[who].phase == Phase::Down {
                self.connect(who).await;
            }
        }
        let mut patience = self.stage.patience();
        loop {
            for who in 0..CLIENTS {
                self.hear(who).await?;
                self.acknowledge(who).await;
            }
            let open = |p: &Party| {
                let missing = p.must_have(&self.messages);
                let open = missing.is_some() || !p.flying.is_empty() || !p.received.is_empty() || !p.owed.is_empty();
                open.then(|| {
                    format!("{} lacks {missing:?}; unacknowledged {:?}, unreleased {:?}", p.name, p.flying, p.received)
                })
            };
            let seen: u32 = self.parties.iter().flat_map(|p| p.hopes.values()).map(|h| h.seen).sum();
            let busy = |p: &Party| p.flying.len() + p.received.len() + p.owed.len();
            let is_over = patience.is_over(seen as usize * 1000 + self.parties.iter().map(busy).sum::<usize>());
            match self.parties.iter().find_map(open) {
                None => return Ok(()),
                Some(open) if is_over => return Err(open),
                Some(_) => {}
            }
        }
    }
}

async fn run(seed: u64, flaw: Option<Flaw>) -> Result<(), String> {
    let (world, outcome) = play(World::new(seed, flaw).await, STEPS, World::step, World::settle).await;
    world.stage.end(seed, outcome).await
}

#[tokio::test]
async fn sessions_do_what_the_model_says_whatever_happens_to_them() {
    for seed in seeds(RUNS) {
        run(seed, None).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The model's own test: a door that does not keep its promises is caught.
#[tokio::test]
async fn the_model_notices_an_engine_that_does_not_keep_what_it_says() {
    use Flaw::*;
    let flaws = [
        EarlyTickets,
        ForgetsCursors,
        HastyCursors,
        ForgetsReceived,
        ForgetsReleasing,
        ForgetsSubscriptions,
        ForgetsWills,
        ForgetsGoodbyes,
    ];
    each_is_noticed(&flaws, 4 * RUNS, run).await;
}
