//! A child and its parent over a pipe that loses, repeats and reorders, with crashes of either
//! side between any two steps, folders restored from backups and boxes with new disks: the real
//! judge, handshake and sender over logs in memory of which only a part is on disk.
//!
//! [`run`] returns what is wrong, so that broken machines can be shown to be noticed.

use crate::link::handshake::{self, Holder, OnHello, OnRefuse, OnWelcome, Own, Saying, Session, Terms};
use crate::link::sender::{self, Ms, Sender};
use crate::note::Note;
use crate::protocol::Received;
use crate::protocol::judge::{self, Verdict};
use crate::state::{Me, Peer, State, slot};
use citybrain_shared::config::Enrol;
use citybrain_shared::wire::{Ack, Cursor, Epoch, FrameHead, Hello, Refuse, Welcome};
use citybrain_shared::{Address, Boot, Inc, Lane, LogId, Pos};
use std::collections::{BTreeMap, HashSet};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The receiver takes a frame although something before it is missing.
    IgnoreGap,
    /// The sender never goes back.
    ForgetRewind,
    /// Acknowledgements leave before the fsync.
    AckBeforeFsync,
    /// Frames carry what is not on disk yet (and nobody looks at chain hashes, which would notice
    /// it after the crash and heal it as if a backup had been restored).
    SendBeforeFsync,
    /// Nobody looks at chain hashes.
    NoChains,
    /// The node goes on under its old history after it was told that it is in the past.
    NoMint,
}

#[derive(Clone, Copy, Debug)]
struct Scene {
    /// Percent of messages that are lost, and that are repeated.
    lost: u64,
    repeated: u64,
    crashes: bool,
    /// How often at most each side comes back from a backup, where it may.
    restores: u32,
    child_restored: bool,
    parent_restored: bool,
    /// It comes with a new disk in place of its own, as often as `restores`.
    child_renewed: bool,
    parent_renewed: bool,
    /// Retention takes a record as soon as its peer has it.
    trim: bool,
    /// Duplicates are told by origin. Off: the cursor alone has to prevent them.
    by_origin: bool,
}

const CALM: Scene = Scene {
    lost: 0,
    repeated: 0,
    crashes: false,
    restores: 1,
    child_restored: false,
    parent_restored: false,
    child_renewed: false,
    parent_renewed: false,
    trim: false,
    by_origin: false,
};
const STORMY: Scene = Scene { lost: 20, repeated: 15, crashes: true, ..CALM };

/// xorshift64*: a run is its seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
    fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

#[derive(Clone, Debug)]
enum Body {
    Own { payload: u64 },
    Came { log: LogId, pos: Pos, payload: u64 },
    Note(Note),
}

#[derive(Clone, Debug)]
struct Rec {
    chain: u64,
    lane: Lane,
    body: Body,
}

/// What becomes of a node that goes down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It comes back with what is on its disk.
    Crash,
    /// With its disk as it was some time ago.
    Backup,
    /// With an empty one.
    NewDisk,
}

/// A log and what it adds up to.
#[derive(Clone)]
struct Disk {
    log: Vec<Rec>,
    me: Me,
    /// The one peer that each has here, and its address.
    peer: Peer,
    other: Address,
    origins: HashSet<(LogId, Pos)>,
    /// What its parent knew that the disks before this one had.
    settled: HashSet<u64>,
    /// What its peer knew that this address had had when a backup was put back.
    done: HashSet<u64>,
}

impl Disk {
    /// Of a new box.
    fn new(other: Address, rng: &mut Rng) -> Disk {
        let me = Me {
            inc: Inc(rng.next().into()),
            epochs: vec![Epoch { log: LogId(rng.next().into()), first: Pos(1) }],
            ..Me::default()
        };
        let (log, peer) = (Vec::new(), Peer::default());
        Disk { log, me, peer, other, origins: HashSet::new(), settled: HashSet::new(), done: HashSet::new() }
    }

    /// What was given to this node, and its peer is known to have.
    fn acked(&self) -> impl Iterator<Item = u64> {
        let acked = |lane: Lane| self.peer.peer_has[slot(lane)].map_or(Pos::ZERO, |c| c.upto);
        let acked = Lane::ALL.map(acked);
        self.log.iter().enumerate().filter_map(move |(i, r)| match r.body {
            Body::Own { payload } if Pos(i as u64 + 1) <= acked[slot(r.lane)] => Some(payload),
            _ => None,
        })
    }

    /// What came from the peer, in order.
    fn came(&self) -> impl Iterator<Item = (Lane, LogId, Pos, u64)> {
        self.log.iter().filter_map(|r| match r.body {
            Body::Came { log, pos, payload } => Some((r.lane, log, pos, payload)),
            _ => None,
        })
    }

    fn last(&self) -> Pos {
        Pos(self.log.len() as u64)
    }

    fn chain(&self, at: Pos) -> Option<u64> {
        if at == Pos::ZERO { Some(0) } else { self.log.get(at.0 as usize - 1).map(|r| r.chain) }
    }

    /// Oldest retained position.
    fn first(&self, trim: bool) -> Pos {
        let acked = |lane: Lane| self.peer.peer_has[slot(lane)].map_or(Pos::ZERO, |c| c.upto);
        if trim { acked(Lane::Urgent).min(acked(Lane::Routine)).next() } else { Pos(1) }
    }

    /// What the handshake may know of the chain.
    fn shown(&self, trim: bool, at: Pos) -> Option<u64> {
        if at < self.first(trim) { None } else { self.chain(at) }
    }

    fn append(&mut self, lane: Lane, body: Body) {
        let before = self.log.last().map_or(0, |r| r.chain);
        let chain = xxhash_rust::xxh3::xxh3_64(format!("{before} {lane} {body:?}").as_bytes());
        let pos = self.last().next();
        match &body {
            Body::Came { log, pos, .. } => drop(self.origins.insert((*log, *pos))),
            Body::Note(note) => self.fold(pos, note),
            Body::Own { .. } => {}
        }
        self.log.push(Rec { chain, lane, body });
    }

    fn note(&mut self, note: Note) {
        self.append(Lane::Routine, Body::Note(note));
    }

    /// As a node does it.
    fn fold(&mut self, pos: Pos, note: &Note) {
        let mut state = State::default();
        state.skip_to(Pos(pos.0 - 1));
        state.me = std::mem::take(&mut self.me);
        state.peers.insert(self.other.clone(), std::mem::take(&mut self.peer));
        let draft = note.draft();
        let (header, payload) = draft.parts();
        state.apply(pos, &header, payload);
        self.me = state.me;
        self.peer = state.peers.remove(&self.other).unwrap_or_default();
        assert!(state.peers.is_empty(), "the note is of another peer: {note:?}");
    }
}

/// A record in a frame.
#[derive(Clone)]
struct Sent {
    log: LogId,
    pos: Pos,
    payload: u64,
    /// Says its sender.
    had_before: bool,
}

#[derive(Clone)]
enum Msg {
    Hello(Hello),
    Welcome(Welcome),
    Refuse(Refuse),
    Frame(FrameHead, Vec<Sent>),
    Ack(Ack),
}

struct Node {
    address: Address,
    other: Address,
    is_child: bool,
    disk: Disk,
    /// What a crash leaves.
    durable: Disk,
    backup: Option<Disk>,
    /// Disks that were lost, and those that a backup has taken the place of since.
    former: Vec<Disk>,
    replaced: Vec<Disk>,
    /// What its disk ever said that the peer has.
    acked: HashSet<u64>,
    restores: u32,
    sender: Sender,
    session: Option<Session>,
    saying: Saying,
    said: Option<Hello>,
    awaiting: bool,
    hello_at: Ms,
    heard_at: Ms,
    /// Held back until the fsync.
    answers: Vec<Msg>,
}

impl Node {
    fn new(address: &str, other: &str, is_child: bool, rng: &mut Rng) -> Node {
        let other = Address::parse(other).unwrap();
        let disk = Disk::new(other.clone(), rng);
        let mut node = Node {
            address: Address::parse(address).unwrap(),
            durable: disk.clone(),
            disk,
            other,
            is_child,
            backup: None,
            former: Vec::new(),
            replaced: Vec::new(),
            acked: HashSet::new(),
            restores: 0,
            sender: Sender::new(terms()),
            session: None,
            saying: Saying::default(),
            said: None,
            awaiting: false,
            hello_at: 0,
            heard_at: 0,
            answers: Vec::new(),
        };
        node.boot(0, rng);
        node
    }

    fn boot(&mut self, now: Ms, rng: &mut Rng) {
        let boot = Boot { counter: self.disk.me.boot.counter + 1, nonce: rng.next() };
        let inc = self.disk.me.inc;
        self.disk.note(Note::Booted { inc, boot });
        self.durable = self.disk.clone();
        self.sender = Sender::new(terms());
        (self.session, self.said, self.awaiting, self.hello_at) = (None, None, false, now);
        self.heard_at = now;
        self.saying = Saying::default();
        self.answers.clear();
    }

    fn fsync(&mut self) -> Vec<Msg> {
        self.durable = self.disk.clone();
        self.acked.extend(self.durable.acked());
        self.sender.on_log_grew(self.durable.last());
        std::mem::take(&mut self.answers)
    }

    /// Commits at once, as notes in a hurry are.
    fn commit(&mut self, notes: Vec<Note>) -> Vec<Msg> {
        notes.into_iter().for_each(|n| self.disk.note(n));
        self.fsync()
    }

    /// Whether it was here before is a promise both ways: what was is not done again, and what was not is done. Of the
    /// first a sender knows nothing that has lost its own disk.
    fn wrongly_told(&self, sent: &Sent, sender_knows: bool) -> Option<String> {
        let (payload, name) = (sent.payload, &self.address);
        let has_had = |disk: &Disk| disk.came().any(|(.., came)| came == payload);
        if sent.had_before && !self.former.iter().chain(&self.replaced).any(has_had) {
            return Some(format!("{name} is told that it had {payload} before, which came to none of its disks"));
        }
        let is_known = sender_knows && !sent.had_before && self.disk.done.contains(&payload);
        is_known.then(|| format!("{name} is not told that it had {payload} before"))
    }

    fn up(&mut self, session: Session) {
        self.sender.on_welcome(session.starts.map(|c| c.upto), self.durable.last(), session.credit);
        self.session = Some(session);
    }
}

fn terms() -> sender::Terms {
    sender::Terms { window_frames: 4, resend_after_ms: 50 }
}

fn hello_terms() -> Terms {
    Terms { name: String::new(), message_bytes_max: 1 << 20, alive_every_ms: 10_000, enrol: Enrol::Auto, credit: 4 }
}

struct World {
    rng: Rng,
    now: Ms,
    nodes: [Node; 2],
    /// (due, to, message)
    pipe: Vec<(Ms, usize, Msg)>,
    retained: Option<Hello>,
    scene: Scene,
    broken: Broken,
    payload: u64,
    /// What must never be, and was.
    wrong: Option<String>,
}

/// A child that hears nothing for so long takes its session for over. (Peers with nothing to say send
/// signs of life, which are not modelled: an idle child says hello again.)
const SILENCE_MS: Ms = 2_000;

/// Nothing lost, nothing doubled, order kept; or what is wrong.
fn run(seed: u64, scene: Scene, broken: Broken) -> Result<(), String> {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let nodes = [Node::new("c/s", "c", true, &mut rng), Node::new("c", "c/s", false, &mut rng)];
    let mut w = World { rng, now: 0, nodes, pipe: Vec::new(), retained: None, scene, broken, payload: 0, wrong: None };
    for step in 0..600 {
        let at = w.rng.below(2) as usize;
        match w.rng.below(if step < 400 { 12 } else { 8 }) {
            0..8 => w.work(at),
            8..10 => w.write(at),
            10 if scene.crashes && w.rng.percent(25) => w.crash(at, Fate::Crash),
            11 if w.rng.percent(20) => {
                let n = &mut w.nodes[at];
                n.backup = Some(n.durable.clone());
            }
            11 if w.rng.percent(10) => w.crash(at, Fate::Backup),
            11 if w.rng.percent(10) => w.crash(at, Fate::NewDisk),
            _ => w.work(at),
        }
        w.now += w.rng.below(12);
    }
    w.scene = Scene { lost: 0, repeated: 0, ..scene };
    // A timer that has doubled to its longest runs out within.
    for _ in 0..14_000 {
        for at in 0..2 {
            w.work(at);
        }
        w.now += 5;
        if w.is_settled() {
            return w.check();
        }
    }
    Err(format!("never settled; so far: {:?}", w.check()))
}

impl World {
    fn send(&mut self, to: usize, msg: Msg) {
        let copies =
            if self.rng.percent(self.scene.lost) { 0 } else { 1 + u64::from(self.rng.percent(self.scene.repeated)) };
        for _ in 0..copies {
            let due = self.now + 1 + self.rng.below(if self.scene.lost > 0 { 25 } else { 3 });
            self.pipe.push((due, to, msg.clone()));
        }
    }

    /// A device, or an operator, gives the node something for the other one.
    fn write(&mut self, at: usize) {
        for _ in 0..1 + self.rng.below(4) {
            self.payload += 1;
            let lane = if self.rng.percent(30) { Lane::Urgent } else { Lane::Routine };
            self.nodes[at].disk.append(lane, Body::Own { payload: self.payload });
        }
    }

    fn crash(&mut self, at: usize, fate: Fate) {
        let Some(disk) = self.after(at, fate) else { return };
        if fate != Fate::Crash {
            // A pipe is a connection with a clean session: whoever puts another disk in gets nothing of what was
            // under way to the one before. (What is sent again does come.)
            self.pipe.retain(|(_, to, _)| *to != at);
        }
        let node = &mut self.nodes[at];
        node.disk = disk;
        node.boot(self.now, &mut self.rng);
        // A parent that comes back finds the retained hello.
        if at == 1
            && let Some(h) = self.retained.clone()
        {
            self.send(1, Msg::Hello(h));
        }
    }

    /// The disk that a node comes back with; `None`: that does not happen to it here.
    fn after(&mut self, at: usize, fate: Fate) -> Option<Disk> {
        let scene = self.scene;
        let (restored, renewed) =
            [(scene.child_restored, scene.child_renewed), (scene.parent_restored, scene.parent_renewed)][at];
        let [child, parent] = &mut self.nodes;
        let (node, peer) = if at == 0 { (child, parent) } else { (parent, child) };
        let acked = if at == 0 { peer.acked.clone() } else { HashSet::new() };
        let done = peer.acked.clone();
        let is_more = node.restores < scene.restores;
        let disk = match fate {
            Fate::Crash => return Some(node.durable.clone()),
            Fate::Backup if restored && is_more => {
                let backup = node.backup.take()?;
                node.replaced.push(node.durable.clone());
                Disk { done, ..backup }
            }
            Fate::NewDisk if renewed && is_more => {
                node.backup = None;
                node.former.append(&mut node.replaced);
                node.former.push(node.durable.clone());
                Disk { settled: acked, done, ..Disk::new(node.other.clone(), &mut self.rng) }
            }
            Fate::Backup | Fate::NewDisk => return None,
        };
        node.restores += 1;
        Some(disk)
    }

    fn work(&mut self, at: usize) {
        let other = 1 - at;
        let due = |w: &World| {
            w.pipe
                .iter()
                .enumerate()
                .filter(|(_, m)| m.0 <= w.now && m.1 == at)
                .min_by_key(|(_, m)| m.0)
                .map(|(i, _)| i)
        };
        while let Some(i) = due(self) {
            let (_, _, msg) = self.pipe.swap_remove(i);
            self.take(at, msg);
        }
        if self.rng.percent(60) {
            for m in self.nodes[at].fsync() {
                self.send(other, m);
            }
        }
        // A hello may be lost, and so may the only one that a parent that is back would have heard.
        let n = &mut self.nodes[at];
        if n.is_child && n.session.is_some() && self.now > n.heard_at + SILENCE_MS {
            n.session = None;
            n.sender.on_down();
        }
        if n.is_child && (n.session.is_none() || n.awaiting) && self.now >= n.hello_at {
            self.hello();
        }
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.sender.waiting_ms(now) > 1_000 && node.is_child {
            node.session = None;
            node.sender.on_down();
        }
        if self.broken != Broken::ForgetRewind {
            node.sender.on_tick(now);
        }
        self.drain(at);
    }

    fn hello(&mut self) {
        let trim = self.scene.trim;
        let n = &mut self.nodes[0];
        n.saying.id += 1;
        let chain = |p| n.durable.shown(trim, p);
        let own = Own {
            address: &n.address,
            me: &n.durable.me,
            first: n.durable.first(trim),
            last: n.durable.last(),
            chain: &chain,
        };
        let hello = handshake::hello(&own, &hello_terms(), &n.other, [(&n.other, &n.durable.peer)], &n.saying);
        n.said = Some(hello.clone());
        n.awaiting = true;
        n.hello_at = self.now + 100;
        self.retained = Some(hello.clone());
        self.send(1, Msg::Hello(hello));
    }

    fn drain(&mut self, at: usize) {
        let now = self.now;
        while let Some(send) = self.nodes[at].sender.poll_send(now) {
            let n = &mut self.nodes[at];
            let Some(session) = n.session.clone() else { return };
            let disk = if self.broken == Broken::SendBeforeFsync { &n.disk } else { &n.durable };
            let frame_max = 1 + (self.rng.next() % 3) as usize;
            let (mut upto, mut records) = (send.looked, Vec::new());
            for (i, r) in disk.log.iter().enumerate().skip(send.looked.0 as usize) {
                if records.len() >= frame_max {
                    break;
                }
                upto = Pos(i as u64 + 1);
                if let (true, Body::Own { payload }) = (r.lane == send.lane, &r.body) {
                    let log = handshake::log_at(&disk.me.epochs, upto);
                    let had_before = upto <= session.had_before[slot(send.lane)];
                    records.push(Sent { log, pos: upto, payload: *payload, had_before });
                }
            }
            if records.is_empty() && !send.cover {
                n.sender.on_skipped(now, send.lane, upto);
                continue;
            }
            let head = FrameHead {
                from: disk.me_party(),
                lease: session.lease,
                log: session.log,
                lane: send.lane,
                after: send.after,
                upto,
                after_chain: if send.after == session.starts[slot(send.lane)].upto {
                    session.starts[slot(send.lane)].chain
                } else {
                    disk.chain(send.after).unwrap_or(0)
                },
                upto_chain: disk.chain(upto).unwrap_or(0),
                records: records.len() as u32,
            };
            // Large ones, so that the pace has a say.
            n.sender.on_sent(now, send.lane, upto, 5_000 * records.len());
            self.send(1 - at, Msg::Frame(head, records));
        }
    }

    fn take(&mut self, at: usize, msg: Msg) {
        let other = 1 - at;
        self.nodes[at].heard_at = self.now;
        let out = match msg {
            Msg::Hello(h) => self.take_hello(h),
            Msg::Welcome(w) => self.take_welcome(w),
            Msg::Refuse(r) if at == 0 => self.take_refuse(r),
            Msg::Refuse(_) => Vec::new(),
            Msg::Frame(head, records) => self.take_frame(at, head, records),
            Msg::Ack(a) => {
                self.take_ack(at, a);
                Vec::new()
            }
        };
        for m in out {
            self.send(other, m);
        }
    }

    fn take_hello(&mut self, mut hello: Hello) -> Vec<Msg> {
        let (broken, trim) = (self.broken, self.scene.trim);
        let n = &mut self.nodes[1];
        if matches!(broken, Broken::NoChains | Broken::SendBeforeFsync) {
            hello.proofs = n.disk.peer.has.iter().flatten().map(|c| (c.upto, Some(c.chain))).collect();
        }
        let mut minted_for = None;
        let mut out = n.fsync();
        loop {
            let chain = |p| n.durable.shown(trim, p);
            let own = Own {
                address: &n.address,
                me: &n.durable.me,
                first: n.durable.first(trim),
                last: n.durable.last(),
                chain: &chain,
            };
            let peer = n.durable.peer.party.map(|_| &n.durable.peer);
            match handshake::on_hello(&own, &hello_terms(), peer, Holder::default(), minted_for, &hello) {
                OnHello::Mint(m) => {
                    minted_for = Some(m.held);
                    let notes = m.notes(|| LogId(self.rng.next().into()));
                    out.extend(n.commit(notes));
                }
                OnHello::Refuse(r) => {
                    out.push(Msg::Refuse(*r));
                    return out;
                }
                OnHello::Welcome { notes, welcome } => {
                    let known = peer.cloned();
                    out.extend(n.commit(notes));
                    n.up(handshake::session_of(known.as_ref(), &hello, &welcome, &hello_terms()));
                    out.push(Msg::Welcome(*welcome));
                    return out;
                }
            }
        }
    }

    fn take_welcome(&mut self, welcome: Welcome) -> Vec<Msg> {
        let trim = self.scene.trim;
        let n = &mut self.nodes[0];
        let Some(said) = n.said.clone() else { return Vec::new() };
        let mut out = n.fsync();
        let chain = |p| n.durable.shown(trim, p);
        let own = Own {
            address: &n.address,
            me: &n.durable.me,
            first: n.durable.first(trim),
            last: n.durable.last(),
            chain: &chain,
        };
        match handshake::on_welcome(&own, &hello_terms(), &n.other, Some(&n.durable.peer), &said, n.awaiting, &welcome)
        {
            OnWelcome::Up { notes, session } => {
                out.extend(n.commit(notes));
                n.saying = Saying { id: n.saying.id, ..Saying::default() };
                n.awaiting = false;
                n.up(session);
            }
            OnWelcome::Again(_) => self.hello(),
            OnWelcome::Ignore => {}
        }
        out
    }

    fn take_refuse(&mut self, refuse: Refuse) -> Vec<Msg> {
        let (broken, trim) = (self.broken, self.scene.trim);
        let n = &mut self.nodes[0];
        let Some(said) = n.said.clone() else { return Vec::new() };
        let chain = |p| n.durable.shown(trim, p);
        let own = Own {
            address: &n.address,
            me: &n.durable.me,
            first: n.durable.first(trim),
            last: n.durable.last(),
            chain: &chain,
        };
        let mut out = Vec::new();
        match handshake::on_refuse(&own, &said, n.awaiting, &refuse) {
            OnRefuse::Ignore => return out,
            OnRefuse::Wait => n.hello_at = self.now + 100,
            OnRefuse::Prove(at) => n.saying.prove = at,
            OnRefuse::Again => {}
            OnRefuse::Mint(m) => {
                n.saying.minted_for = Some(m.held);
                if broken != Broken::NoMint {
                    let notes = m.notes(|| LogId(self.rng.next().into()));
                    out.extend(n.commit(notes));
                }
            }
        }
        self.nodes[0].session = None;
        self.nodes[0].sender.on_down();
        self.hello();
        out
    }

    fn take_frame(&mut self, at: usize, mut head: FrameHead, records: Vec<Sent>) -> Vec<Msg> {
        let (broken, by_origin) = (self.broken, self.scene.by_origin);
        let peer_knows = self.nodes[1 - at].restores == 0;
        let n = &mut self.nodes[at];
        if let (Broken::NoChains | Broken::SendBeforeFsync, Some(c)) = (broken, n.disk.peer.has[slot(head.lane)]) {
            if head.after == c.upto {
                head.after_chain = c.chain;
            }
            if head.upto == c.upto {
                head.upto_chain = c.chain;
            }
        }
        let mut verdict = judge::judge(&n.disk.peer, judge::granted(&n.disk.peer), &head);
        let session = n.session.as_ref().map(|s| (s.party, s.lease));
        if verdict == Verdict::Stale && session == Some((head.from, head.lease)) {
            let why = format!("{} drops the frames of its session under lease {} in silence", n.address, head.lease);
            self.wrong.get_or_insert(why);
        }
        if verdict == Verdict::Gap && broken == Broken::IgnoreGap {
            verdict = Verdict::Take;
        }
        if verdict == Verdict::Take {
            let cursor = judge::taken(&head);
            let (peer, from) = (n.other.clone(), head.from);
            n.disk.note(Note::Received { peer, from, lane: head.lane, cursor, records: head.records, dropped: 0 });
            for sent in records {
                let Sent { log, pos, payload, .. } = sent;
                if !by_origin || !n.disk.origins.contains(&(log, pos)) {
                    if let Some(why) = n.wrongly_told(&sent, peer_knows) {
                        self.wrong.get_or_insert(why);
                    }
                    n.disk.append(head.lane, Body::Came { log, pos, payload });
                }
            }
        }
        let me = n.disk.me_party();
        match judge::answer(verdict, &n.disk.peer, me, hello_terms().credit, &head) {
            Received::Ack(a) => n.answers.push(Msg::Ack(a)),
            Received::Refuse(r) => n.answers.push(Msg::Refuse(r)),
            Received::Ignore => {}
        }
        if broken == Broken::AckBeforeFsync { std::mem::take(&mut n.answers) } else { Vec::new() }
    }

    fn take_ack(&mut self, at: usize, ack: Ack) {
        let now = self.now;
        let n = &mut self.nodes[at];
        let Some(session) = &n.session else { return };
        if ack.from != session.party
            || ack.to != n.durable.me.boot
            || ack.lease != session.lease
            || ack.log != session.log
        {
            return;
        }
        let gap = ack.gap && self.broken != Broken::ForgetRewind;
        if n.sender.on_ack(now, ack.lane, ack.upto, ack.credit, gap) == sender::Acked::Progress {
            let cursor = Cursor { log: ack.log, upto: ack.upto, chain: n.durable.chain(ack.upto).unwrap_or(0) };
            let (peer, inc) = (n.other.clone(), session.party.inc);
            n.disk.note(Note::PeerHas { peer, inc, lane: ack.lane, cursor });
        }
    }

    fn is_settled(&self) -> bool {
        let all = |n: &Node| {
            n.session.is_some()
                && n.disk.last() == n.durable.last()
                && Lane::ALL
                    .iter()
                    .all(|l| n.sender.looked(*l) == n.durable.last() && n.sender.frames_in_flight(*l) == 0)
        };
        self.pipe.is_empty() && self.nodes.iter().all(all)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(why) = &self.wrong {
            return Err(why.clone());
        }
        for at in 0..2 {
            let (from, to) = (&self.nodes[at].disk, &self.nodes[1 - at]);
            let name = if at == 0 { "up" } else { "down" };
            let mut came = HashSet::new();
            for disk in to.former.iter().chain([&to.disk]) {
                disk.check().map_err(|why| format!("{name}: {why}"))?;
                came.extend(disk.came().map(|(.., payload)| payload));
            }
            for r in &from.log {
                if let Body::Own { payload } = &r.body
                    && !came.contains(payload)
                {
                    return Err(format!("{name}: {payload} was lost"));
                }
            }
        }
        Ok(())
    }
}

impl Disk {
    /// Each came once, in order, and not if the box before is known to have had it.
    fn check(&self) -> Result<(), String> {
        let mut count: BTreeMap<u64, u32> = BTreeMap::new();
        let mut newest: BTreeMap<(LogId, Lane), Pos> = BTreeMap::new();
        for (lane, log, pos, payload) in self.came() {
            *count.entry(payload).or_default() += 1;
            if let Some(before) = newest.insert((log, lane), pos)
                && before >= pos
            {
                return Err(format!("{pos} came after {before}"));
            }
            if self.settled.contains(&payload) {
                return Err(format!("{payload} came again with a new disk"));
            }
        }
        match count.iter().find(|(_, n)| **n > 1) {
            Some((payload, n)) => Err(format!("{payload} came {n} times")),
            None => Ok(()),
        }
    }

    fn me_party(&self) -> citybrain_shared::wire::Party {
        citybrain_shared::wire::Party { inc: self.me.inc, boot: self.me.boot }
    }
}

const SEEDS: u64 = 300;

fn all_hold(scene: Scene) {
    for seed in 0..SEEDS {
        if let Err(why) = run(seed, scene, Broken::Nothing) {
            panic!("seed {seed}: {why}; {scene:?}");
        }
    }
}

fn is_noticed(scene: Scene, broken: Broken) -> bool {
    (0..SEEDS).any(|seed| run(seed, scene, broken).is_err())
}

#[test]
fn a_calm_link_delivers_everything_once_and_in_order() {
    all_hold(CALM);
}

#[test]
fn loss_repetition_reordering_and_crashes_lose_nothing_and_double_nothing() {
    all_hold(STORMY);
}

#[test]
fn what_the_peer_has_may_be_forgotten_at_once() {
    all_hold(Scene { trim: true, ..STORMY });
}

#[test]
fn a_child_restored_from_a_backup_goes_on_under_a_new_name() {
    all_hold(Scene { child_restored: true, by_origin: true, ..STORMY });
}

#[test]
fn a_parent_restored_from_a_backup_gets_everything_again() {
    all_hold(Scene { parent_restored: true, by_origin: true, ..STORMY });
}

#[test]
fn both_restored_at_any_time_still_settle() {
    all_hold(Scene { parent_restored: true, child_restored: true, by_origin: true, ..STORMY });
}

#[test]
fn a_box_with_a_new_disk_is_given_nothing_that_those_before_it_had() {
    all_hold(Scene { child_renewed: true, restores: 3, trim: true, ..STORMY });
}

#[test]
fn a_new_box_restored_from_a_backup_of_its_own_is_given_nothing_that_those_before_it_had() {
    all_hold(Scene { child_renewed: true, child_restored: true, by_origin: true, restores: 3, ..STORMY });
}

#[test]
fn new_disks_of_a_parent_and_its_child_lose_and_double_nothing_that_the_other_still_has() {
    all_hold(Scene { parent_renewed: true, child_renewed: true, restores: 3, ..STORMY });
}

#[test]
fn a_receiver_that_takes_frames_past_a_gap_is_noticed() {
    assert!(is_noticed(STORMY, Broken::IgnoreGap));
}

#[test]
fn a_sender_that_never_goes_back_is_noticed() {
    assert!(is_noticed(Scene { crashes: false, ..STORMY }, Broken::ForgetRewind));
}

#[test]
fn an_acknowledgement_before_the_fsync_is_noticed() {
    assert!(is_noticed(Scene { trim: true, ..STORMY }, Broken::AckBeforeFsync));
}

#[test]
fn a_frame_before_the_fsync_is_noticed() {
    assert!(is_noticed(Scene { by_origin: true, ..STORMY }, Broken::SendBeforeFsync));
}

#[test]
fn a_link_without_chain_hashes_is_noticed() {
    assert!(is_noticed(Scene { child_restored: true, by_origin: true, ..STORMY }, Broken::NoChains));
}

#[test]
fn a_restored_node_that_keeps_its_old_name_is_noticed() {
    assert!(is_noticed(Scene { child_restored: true, by_origin: true, ..STORMY }, Broken::NoMint));
}
