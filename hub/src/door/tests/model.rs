//! Sessions against a model: clients do anything in any order, the node is killed in between, and
//! what each session got is compared with what it must and may have got.
//!
//! **Must**: every QoS 1 or 2 message that was acknowledged to its publisher and matched a filter of
//! the session from before it was sent. **Once**: QoS 2 in both directions. **Order**: of each
//! publisher's messages of a lane, as they come for the first time. **Urgent**: what is so is in the log once it
//! was read, also while there is no room for what is not. A filter that comes or goes while a
//! message is on its way makes of "must" a "may". **Wills**: of each connection that ended without a
//! goodbye, once, also when it was the node that ended it, and with a delay when the session ends; of
//! no other. **Terms**: no more is under way, nothing is larger and no alias higher than the client takes;
//! nothing of its own comes by a filter with No Local, and nothing that expired before its turn.
//!
//! A failure prints its seed; `CITYBRAIN_MODEL_SEED=n` runs that one alone, `CITYBRAIN_MODEL_RUNS=n`
//! more of them. The tasks behind the sockets are not seeded, so that a seed is nearly a replay.

mod party;

use super::fake::{BELLS, Flaw};
use super::stage::{Rng, Stage, each_is_noticed, play, seeds};
use super::*;
use party::{Flying, Message, Party, Phase, Terms};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Long enough that an alias is worth it.
const TOPICS: [&str; 4] = ["area", "area/b", "area/c", BELLS];
const FILTERS: [&str; 6] = ["area", "area/b", "area/+", "area/#", "#", BELLS];
const CLIENTS: usize = 3;
const STEPS: usize = 120;
const RUNS: u64 = 60;
/// The door's receive maximum.
const TAKEN_MAX: usize = 6;
/// Publishes that a client of 3.1.1 has under way, at most: it cannot be told of the maximum.
const FLYING_MAX: usize = 12;
/// Payloads that are too large for some clients, and the packets that those take.
const LARGE_BYTES: usize = 200;
const SMALL_BYTES: usize = 120;
/// Of messages that expire when time passes, and of those that do not.
const BRIEF_S: u32 = 10;
const LONG_S: u32 = 100_000;
/// Of a subscription's options.
const NO_LOCAL: u8 = 4;

struct World {
    stage: Stage,
    parties: Vec<Party>,
    messages: Vec<Message>,
}

impl World {
    async fn new(seed: u64, flaw: Option<Flaw>) -> World {
        let broker = config::Broker { receive_maximum: TAKEN_MAX as u16, ..Default::default() };
        World {
            stage: Stage::with(seed, flaw, broker).await,
            parties: (0..CLIENTS).map(Party::new).collect(),
            messages: Vec::new(),
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        let who = self.stage.rng.below(CLIENTS);
        match self.stage.rng.below(100) {
            0..3 => self.crash().await,
            3..8 => self.drop_connection(who),
            8..12 => self.say_goodbye(who).await?,
            12..16 => self.let_time_pass(),
            16..21 => self.hold(),
            21..31 => self.ask(who).await,
            31..52 => self.acknowledge(who).await,
            52..60 => self.hear(who).await?,
            60..80 if self.parties[who].phase == Phase::Down => self.connect(who).await,
            60..62 => self.connect(who).await,
            _ => self.publish(who).await,
        }
        let other = self.stage.rng.below(CLIENTS);
        self.hear(other).await
    }

    async fn crash(&mut self) {
        let fallen: Vec<_> = self.parties.iter().map(|p| p.phase).collect();
        for p in &mut self.parties {
            p.fall(true);
        }
        // Said by the next start: whose session ended with the connection is no longer there.
        for (who, phase) in fallen.into_iter().enumerate() {
            self.leave_will(who, phase);
        }
        self.stage.crash().await;
    }

    fn drop_connection(&mut self, who: usize) {
        let phase = self.parties[who].phase;
        if phase != Phase::Down {
            self.parties[who].fall(false);
            self.leave_will(who, phase);
            self.stage.tell(format!("{who} falls"));
        }
    }

    /// The connection has ended in this phase without a goodbye: now its will is a message like any, or waits
    /// for its delay. Whether the door has heard of it is not known before CONNACK.
    fn leave_will(&mut self, who: usize, phase: Phase) {
        let p = &mut self.parties[who];
        if phase == Phase::Coming {
            // What waited may have been taken back, and may not.
            p.pending.iter_mut().for_each(|(_, is_sure)| *is_sure &= p.terms.clean);
        }
        let Some(n) = p.will.take() else { return };
        if p.terms.delays_will() {
            p.pending.push((n, phase == Phase::Up));
        } else {
            self.is_sent(n, phase == Phase::Up);
        }
    }

    /// A will is said now; `acked`: it is sure to be.
    fn is_sent(&mut self, n: usize, acked: bool) {
        let m = &mut self.messages[n];
        (m.sent, m.acked) = (1, acked);
        for p in &mut self.parties {
            p.hopes_for(n, m);
        }
    }

    fn let_time_pass(&mut self) {
        self.stage.fake.age(Duration::from_secs(u64::from(BRIEF_S) + 1));
        for p in &mut self.parties {
            p.grows_older(&self.messages);
        }
        self.stage.tell("time passes");
    }

    /// With nothing held back, its will is forgotten when the door closes the connection.
    async fn say_goodbye(&mut self, who: usize) -> Result<(), String> {
        if self.parties[who].phase != Phase::Up || self.stage.held {
            return Ok(());
        }
        let p = &mut self.parties[who];
        let is_5 = p.terms.version == Version::V5;
        let says_will = is_5 && self.stage.rng.below(3) == 0;
        // Another expiry: 0, or longer; a session that does not last cannot be made to.
        let expiry_s =
            [None, Some(0), Some(200)][self.stage.rng.below(3)].filter(|s| is_5 && (p.terms.lasts || *s == 0));
        let mut body = Vec::new();
        if says_will || expiry_s.is_some() {
            body.push(if says_will { 4 } else { 0 });
        }
        if let Some(s) = expiry_s {
            body.extend([5, 0x11, 0, 0, 0, s]);
        }
        p.wire.as_mut().expect("it is up").send(0xe0, &body).await;
        loop {
            let packet = timeout(PATIENCE, self.parties[who].wire.as_mut().expect("it is up").packet()).await;
            match packet.map_err(|_| format!("{who}'s goodbye is not heard"))? {
                Some((first, body)) => self.heard(who, first, &body).await?,
                None => break,
            }
        }
        let p = &mut self.parties[who];
        p.terms.lasts &= expiry_s != Some(0);
        p.fall(false);
        p.is_away = true;
        if says_will {
            self.leave_will(who, Phase::Up);
        }
        self.parties[who].will = None;
        self.stage.tell(format!("{who} says goodbye, with its will {says_will}, expiry {expiry_s:?}"));
        Ok(())
    }

    fn hold(&mut self) {
        match self.stage.rng.below(2) {
            _ if self.stage.held => self.stage.release(),
            0 => self.stage.hold(),
            _ => self.stage.fill_queue(),
        }
    }

    async fn connect(&mut self, who: usize) {
        let rng = &mut self.stage.rng;
        let will = (rng.below(2) == 0).then(|| (TOPICS[rng.below(TOPICS.len())], 1 + rng.below(2) as u8));
        // Where it is connected already, the new connection ends the old.
        self.drop_connection(who);
        let terms = Terms::roll(&mut self.stage.rng, self.parties[who].unsure);
        let mut client = self.stage.house().dial(terms.version).await;
        let n = self.messages.len();
        if let Some((topic, qos)) = will {
            self.messages.push(Message::new(CLIENTS + who, topic, qos));
            self.parties[who].will = Some(n);
        }
        let payload = n.to_string();
        let will = will.map(|(topic, qos)| (topic, qos, &*payload));
        client.send(0x10, &terms.connect(&self.parties[who].name, will)).await;
        self.stage.tell(format!("{who} comes: {terms:?}, will {will:?}"));
        let is_end = terms.clean;
        self.parties[who].comes(client, terms, &self.messages);
        if is_end {
            // The old session is over, and with it the delay of what waits. Not sure before CONNACK.
            for (n, _) in self.parties[who].pending.clone() {
                if self.messages[n].sent == 0 {
                    self.is_sent(n, false);
                }
            }
        }
    }

    async fn ask(&mut self, who: usize) {
        let rng = &mut self.stage.rng;
        let p = &mut self.parties[who];
        if p.phase != Phase::Up || p.asked.is_some() {
            return;
        }
        let is_5 = p.terms.version == Version::V5;
        let subscribes = rng.below(4) > 0;
        let mut filters: Vec<(&str, u8)> = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let filter = FILTERS[rng.below(FILTERS.len())];
            let no_local = if is_5 && rng.below(4) == 0 { NO_LOCAL } else { 0 };
            if filters.iter().all(|(f, _)| *f != filter) {
                filters.push((filter, rng.below(3) as u8 | no_local));
            }
        }
        let mut body = vec![0, 9];
        body.extend(vec![0; usize::from(is_5)]);
        for (filter, options) in &filters {
            put_text(filter, &mut body);
            body.extend(subscribes.then_some(*options));
        }
        p.wire.as_mut().expect("it is up").send(if subscribes { 0x82 } else { 0xa2 }, &body).await;
        p.asks(subscribes, filters, &self.messages);
        self.stage.tell(format!("{who} asks: {:?}", p.asked));
    }

    async fn publish(&mut self, who: usize) {
        let rng = &mut self.stage.rng;
        let topic = TOPICS[rng.below(TOPICS.len())];
        let qos = rng.below(8).div_ceil(3).min(2) as u8;
        let p = &mut self.parties[who];
        let is_5 = p.terms.version == Version::V5;
        if p.phase != Phase::Up || p.flying.len() >= if is_5 { TAKEN_MAX } else { FLYING_MAX } {
            return;
        }
        let n = self.messages.len();
        let expiry_s = [None, None, Some(BRIEF_S), Some(LONG_S)][rng.below(4)].filter(|_| is_5);
        let m = Message { is_large: rng.below(6) == 0, expiry_s, ..Message::new(who, topic, qos) };
        p.next_id = p.next_id % 1000 + 1;
        let flying = Flying { id: p.next_id, message: n, released: false };
        if qos > 0 {
            p.flying.push_back(flying);
        }
        for p in &mut self.parties {
            p.hopes_for(n, &m);
        }
        let how = if m.is_large { "large, " } else { "" };
        self.stage.tell(format!("{who} publishes {n} on {topic} with QoS {qos}, {how}expiry {expiry_s:?}"));
        self.messages.push(m);
        self.send(who, flying).await;
    }

    /// For the first time or again.
    async fn send(&mut self, who: usize, f: Flying) {
        let p = &mut self.parties[who];
        let wire = p.wire.as_mut().expect("it is up");
        if f.released {
            return wire.ack(kind::PUBREL, f.id).await;
        }
        let m = &mut self.messages[f.message];
        let payload = m.payload(f.message);
        let dup = m.sent > 0;
        m.sent += 1;
        // By an alias, which may be new or stand for another topic until now.
        let alias = self.stage.rng.below(4);
        let is_5 = wire.version == Version::V5;
        let (alias, topic) = match p.aliases.get_mut(alias).filter(|_| is_5) {
            None => (None, m.topic),
            Some(known) => (Some(alias as u16 + 1), if known.replace(m.topic) == Some(m.topic) { "" } else { m.topic }),
        };
        let expiry_s = m.expiry_s.filter(|_| is_5);
        m.is_mixed |= expiry_s != m.expiry_s;
        wire.put(publish::Out { dup, qos: m.qos, id: f.id, alias, expiry_s, ..out(topic, payload.as_bytes()) }).await;
    }

    /// Gives some of the acknowledgements that are due, oldest first.
    async fn acknowledge(&mut self, who: usize) {
        let some = 1 + self.stage.rng.below(4);
        let p = &mut self.parties[who];
        if p.phase != Phase::Up {
            return;
        }
        for _ in 0..some.min(p.owed.len()) {
            p.acknowledges().await;
        }
    }

    /// Takes what has come. Without a commit to wait for, everything that the door has read so far
    /// is answered then.
    async fn hear(&mut self, who: usize) -> Result<(), String> {
        // While as many answers are held as may be, the door reads nothing more.
        let waits = |p: &Party| p.phase == Phase::Coming || p.asked.is_some() || p.flying.len() >= TAKEN_MAX;
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
                return self.has_pressed(who);
            }
            self.heard(who, first, &body).await?;
        }
    }

    /// Everything that `who` has sent was read.
    fn has_pressed(&self, who: usize) -> Result<(), String> {
        let kept = self.stage.fake.published(BELLS);
        let presses = self.parties[who].flying.iter().map(|f| (f.message, &self.messages[f.message]));
        let mut presses = presses.filter(|(_, m)| m.is_urgent() && self.stage.is_full);
        match presses.find(|(n, m)| !kept.contains(&m.payload(*n))) {
            Some((n, _)) => Err(format!("{n} is urgent, and waits for room with what is not")),
            None => Ok(()),
        }
    }

    async fn heard(&mut self, who: usize, first: u8, body: &[u8]) -> Result<(), String> {
        let p = &mut self.parties[who];
        let version = p.terms.version;
        if 2 + body.len() > p.terms.packet_bytes_max {
            return Err(format!("{who} takes no packet of more than {} bytes: {body:x?}", p.terms.packet_bytes_max));
        }
        match first >> 4 {
            2 => self.welcome(who, body).await,
            kind::PUBLISH => p.gets(first, body, &self.messages),
            9 | 11 => p.is_answered(first, body),
            kind::PUBREL => p.releases(Ack::parse(version, kind::PUBREL, body).map_err(|e| e.to_string())?),
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
        for n in p.is_welcome(body)? {
            self.messages[n].acked = true;
        }
        for f in p.flying.clone() {
            self.send(who, f).await;
        }
        self.stage.tell(format!("{who} is there, session present: {}", body[0]));
        Ok(())
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
                let open = missing.is_some() || !p.flying.is_empty() || p.waits_for_release() || !p.owed.is_empty();
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
