//! How a session begins: hello, and welcome or refusal. Pure; what must be written to the node's
//! own log first comes out as notes.
//!
//! **Constraints.** A position that a peer has seen never names another record. A restored backup
//! breaks that: the node goes on writing at positions that it had used before. So nobody gets a
//! session before it is *proven* that the sender's history continues what the receiver holds: the
//! receiver keeps the sender's chain hash at its cursor, and the sender shows its own hash there.
//! Where they differ, or where the sender has not got so far, the sender mints a new history
//! (*epoch*) from the first start that the receiver never saw; its records from there on have new
//! names, and what the receiver holds beyond keeps the old ones.
//!
//! **Situations and outcomes** (played in `tests.rs`):
//!
//! | situation | outcome |
//! |---|---|
//! | the address is no child of the receiver, or is the receiver (loop, wrong tier) | `wrong-parent` |
//! | no common version | `version` |
//! | the holder of the address is alive and starts before, or is another folder or clone | `stale`, `duplicate` |
//! | newer start of the holder | a restart: it takes over under a higher lease |
//! | new incarnation, nobody alive | `enrol = auto`: new cursors; `manual`: `unenrolled` until an operator admits it |
//! | first time under its address | the same |
//! | the cursor lies within the child's log, unproven | `prove`: the next hello shows the hashes |
//! | proven | welcome; the parent's cursor is what counts (parent in the past: the child sends again) |
//! | the parent's cursor is trimmed at the child | welcome from `first − 1`; the range is recorded as lost |
//! | the child has not got to the cursor | `past`: the child mints, and says hello again |
//! | the hash differs | `forked`: the same |
//! | the child's history is one that the parent does not know, and was not minted for it | `forked` |
//! | it was minted for it | the cursor moves into it, at most to where it begins |
//! | a child unknown here that another parent acknowledged (moved) | starts at what that one acknowledged |
//! | a reinstalled child, also if its first welcome was lost | is served behind all that the boxes before it had |
//! | a child unknown here that this address acknowledged (parent reinstalled) | sends all that it retained; what the box before had it marks |
//! | a restored node, parent or child | is sent again what it had since its backup, marked likewise |
//! | the child holds more of the parent than there is, or another hash | the parent mints first |

mod history;
#[cfg(test)]
mod tests;

use super::sender::Ms;
use crate::note::Note;
use crate::state::{Me, Peer, slot};
use citybrain_shared::config::Enrol;
use citybrain_shared::limits::BOOTS_KEPT;
use citybrain_shared::wire::{self, BootMark, Cursor, Hello, Party, Reason, Refuse, Welcome};
use citybrain_shared::{Address, Boot, Inc, Lane, LogId, Pos};
pub(crate) use history::log_at;
use history::{At, Fit, History, Shown};
use std::cell::RefCell;
use std::cmp::Ordering;

/// This node and the facts of its log.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    pub address: &'a Address,
    pub me: &'a Me,
    /// Oldest retained and newest durable position.
    pub first: Pos,
    pub last: Pos,
    /// Chain hash at a position; `None` where it is trimmed or not written.
    pub chain: &'a dyn Fn(Pos) -> Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Terms {
    /// For people.
    pub name: String,
    pub message_bytes_max: u32,
    /// In session a peer hears at least so often that this node is there, ms. MQTT's own keep-alive is between
    /// a node and a broker; this goes from end to end.
    pub alive_every_ms: Ms,
    pub enrol: Enrol,
    pub credit: u16,
}

/// Why a child in session says hello again when its parent, back, found the one that the broker kept.
pub(crate) const ANSWERED_BEFORE: &str = "a hello that was answered before was answered again";

/// What a parent does with a hello. Notes are committed before anything is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OnHello {
    Welcome {
        notes: Vec<Note>,
        welcome: Box<Welcome>,
    },
    Refuse(Box<Refuse>),
    /// Commit a new history of this node's own log that begins at `first`, then ask again with
    /// `minted_for`.
    Mint(Mint),
}

/// New histories are to be minted because a peer holds `held`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mint {
    /// Where each begins, in order. The last is where the two nodes' pasts part.
    pub firsts: Vec<Pos>,
    pub held: LogId,
    pub why: String,
}

impl Mint {
    /// What to commit before anything else is sent. `fresh` makes random ids.
    pub fn notes(&self, mut fresh: impl FnMut() -> LogId) -> Vec<Note> {
        self.firsts.iter().map(|first| Note::Epoch { log: fresh(), first: *first, why: self.why.clone() }).collect()
    }
}

/// A session that is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub party: Party,
    pub lease: u64,
    /// Name of the sender's history in this session's frames.
    pub log: LogId,
    /// Where the sender starts, by lane.
    pub starts: [Cursor; 2],
    /// Up to where the sender's lanes were acknowledged from the receiver's address: by this box, or by one before it.
    /// What is sent again from there on back was had before; the receiver's folder is new, or older than that.
    pub had_before: [Pos; 2],
    pub credit: u16,
    /// Largest message that both accept, bytes.
    pub message_bytes_max: u32,
    /// The slower of the two says so often that it is there, ms: a peer is given as long as one is asked for.
    pub alive_every_ms: Ms,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OnWelcome {
    /// Commit the notes, then send from `session.starts` on.
    Up { notes: Vec<Note>, session: Session },
    /// It answers an older hello, or does not fit: say hello again.
    Again(String),
    /// Not for this start of this node.
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OnRefuse {
    /// Commit the new history, then say hello with `minted_for`.
    Mint(Mint),
    /// Say hello again with these positions' hashes.
    Prove(Vec<Pos>),
    /// Say hello again at once: the parent does not know the session.
    Again,
    /// Wait and try again; the reason stays on show.
    Wait,
    /// Late, or for another start of this node.
    Ignore,
}

/// What a child says in the hello besides what its state says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Saying {
    /// Counts up from 1 within one start.
    pub id: u64,
    pub prove: Vec<Pos>,
    pub minted_for: Option<LogId>,
}

/// The child's hello to `parent`. `peers` are all that it ever spoke with: a parent of former days
/// says from where a new one has to be served.
pub(crate) fn hello<'a>(
    own: &Own<'_>,
    terms: &Terms,
    parent: &Address,
    peers: impl IntoIterator<Item = (&'a Address, &'a Peer)>,
    saying: &Saying,
) -> Hello {
    let mut here: Option<&Peer> = None;
    let mut acked: Option<(&Address, &Peer)> = None;
    for (address, peer) in peers {
        if address == parent {
            here = Some(peer);
        }
        let is_parent = address == parent || address.depth() < own.address.depth();
        if !is_parent || peer.peer_has_inc.is_none() {
            continue;
        }
        let better = |(a, p): (&Address, &Peer)| a != parent && (address == parent || newest(peer) > newest(p));
        if acked.is_none_or(better) {
            acked = Some((address, peer));
        }
    }
    let epoch = own.me.epoch();
    let prove = |at: &Pos| (*at, own.shown(*at));
    // Proving what the parent is known to hold saves a round trip in nearly every case.
    let known = acked.iter().flat_map(|(_, p)| p.peer_has.iter().flatten()).map(|c| c.upto).filter(|p| *p <= own.last);
    let mut positions: Vec<Pos> = saying.prove.iter().copied().filter(|p| *p <= own.last).chain(known).collect();
    positions.sort_unstable();
    positions.dedup();
    Hello {
        from: own.party(),
        address: own.address.clone(),
        name: terms.name.clone(),
        version_min: wire::VERSION_MIN,
        version_max: wire::VERSION,
        message_bytes_max: terms.message_bytes_max,
        alive_every_ms: terms.alive_every_ms,
        epoch,
        first: own.first,
        last: own.last,
        boots: own.me.boots.clone(),
        peer: acked.and_then(|(_, p)| p.peer_has_inc),
        peer_has: acked.map_or([None; 2], |(_, p)| p.peer_has),
        has: here.map_or([None; 2], |p| p.has),
        peer_boots: here.map_or_else(Vec::new, |p| p.boots.clone()),
        id: saying.id,
        epochs: own.me.epochs.clone(),
        proofs: positions.iter().map(prove).collect(),
        minted_for: saying.minted_for,
        peer_address: acked.map(|(a, _)| a.clone()),
    }
}

fn newest(peer: &Peer) -> Pos {
    peer.peer_has.iter().flatten().map(|c| c.upto).max().unwrap_or_default()
}

/// What the parent knows about the address besides its state.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holder {
    /// The party of the newest lease was heard within the last keep-alives and said no bye.
    pub alive: bool,
}

/// The parent's answer. `minted_for`: the history of ours for which we minted within this very
/// handshake.
pub(crate) fn on_hello(
    own: &Own<'_>,
    terms: &Terms,
    peer: Option<&Peer>,
    holder: Holder,
    minted_for: Option<LogId>,
    hello: &Hello,
) -> OnHello {
    let same = of_inc(peer, hello.from.inc);
    if let Some((reason, detail)) = unfit(own, terms, peer, holder, hello) {
        return OnHello::Refuse(Box::new(own.refuse(hello, reason, detail)));
    }
    // What the child may still need of us: our own history is put right before anything is sent.
    let down = match downward(own, peer, same.is_some(), minted_for, hello) {
        Ok(down) => down,
        Err(mint) => return OnHello::Mint(mint),
    };
    let places = match place(own, same, hello) {
        Ok(places) => places,
        Err(refuse) => return OnHello::Refuse(refuse),
    };
    let lease = peer.map_or(0, |p| p.lease) + 1;
    let (notes, has) = welcome_notes(peer, hello, lease, &places, &down);
    OnHello::Welcome {
        notes,
        welcome: Box::new(Welcome {
            from: own.party(),
            to: hello.from.boot,
            address: own.address.clone(),
            version: version(hello),
            message_bytes_max: terms.message_bytes_max,
            alive_every_ms: terms.alive_every_ms,
            lease,
            epoch: own.me.epoch(),
            first: own.first,
            last: own.last,
            has,
            credit: terms.credit,
            answers: hello.id,
            sends: down,
            boots: own.me.boots.clone(),
        }),
    }
}

/// What is known of the peer, if it is of this incarnation.
fn of_inc(peer: Option<&Peer>, inc: Inc) -> Option<&Peer> {
    peer.filter(|p| p.party.is_some_and(|p| p.inc == inc))
}

/// The newest that both speak, if there is one.
fn version(hello: &Hello) -> u8 {
    hello.version_max.min(wire::VERSION)
}

/// Why a child gets no session, whatever its log is.
fn unfit(own: &Own<'_>, terms: &Terms, peer: Option<&Peer>, holder: Holder, hello: &Hello) -> Option<(Reason, String)> {
    if !hello.address.is_child_of(own.address) {
        return Some((
            Reason::WrongParent,
            format!("{} is no child of {}: check the address and the parent's url", hello.address, own.address),
        ));
    }
    if version(hello) < hello.version_min.max(wire::VERSION_MIN) {
        return Some((
            Reason::Version,
            format!(
                "the child speaks {} to {}, the parent {} to {}: upgrade the older one",
                hello.version_min,
                hello.version_max,
                wire::VERSION_MIN,
                wire::VERSION
            ),
        ));
    }
    let before = peer.and_then(|p| p.party).filter(|_| holder.alive);
    before.and_then(|before| taken(before, hello.from)).or_else(|| unenrolled(terms, peer, hello))
}

/// Why `party` does not get the address from the one before, who is alive.
fn taken(before: Party, party: Party) -> Option<(Reason, String)> {
    if before == party {
        return None;
    }
    if before.inc != party.inc {
        return Some((
            Reason::Duplicate,
            format!("another data folder (incarnation {}) holds this address and is alive", before.inc),
        ));
    }
    let (start, now) = (before.boot.counter, party.boot.counter);
    match now.cmp(&start) {
        Ordering::Less => Some((Reason::Stale, format!("start {start} of this node is alive; this is start {now}"))),
        Ordering::Equal => Some((
            Reason::Duplicate,
            "a copy of this data folder holds the address and is alive: stop one of them".into(),
        )),
        Ordering::Greater => None,
    }
}

/// Why a box that nobody here knows has to wait for an operator.
fn unenrolled(terms: &Terms, peer: Option<&Peer>, hello: &Hello) -> Option<(Reason, String)> {
    let inc = hello.from.inc;
    if terms.enrol != Enrol::Manual || of_inc(peer, inc).is_some() {
        return None;
    }
    let word = peer.and_then(|p| p.enrolled).filter(|(of, _)| *of == inc).map(|(_, is_admitted)| is_admitted);
    let detail = match word {
        Some(true) => return None,
        Some(false) => format!("an operator has refused this box (incarnation {inc})"),
        None if peer.is_some_and(|p| p.party.is_some()) => {
            format!("the box is new under a known address (incarnation {inc})")
        }
        None => format!("the box comes for the first time (incarnation {inc})"),
    };
    Some((Reason::Unenrolled, detail))
}

/// Where the parent goes on in one lane of the child's log, and what it held there before.
struct Place {
    held: Option<Cursor>,
    at: At,
}

/// Where the parent goes on in the child's log, by lane; or what the child must do first.
fn place(own: &Own<'_>, same: Option<&Peer>, hello: &Hello) -> Result<[Place; 2], Box<Refuse>> {
    // All that is looked at is asked for, also what this hello shows: the next one shows only what
    // it is asked for.
    let asked = RefCell::new(Vec::new());
    let shown = |at: Pos| {
        asked.borrow_mut().push(at);
        match hello.proofs.iter().find(|(p, _)| *p == at) {
            None => Shown::NotAsked,
            Some((_, None)) => Shown::Trimmed,
            Some((_, Some(chain))) => Shown::Chain(*chain),
        }
    };
    let sender = History {
        epochs: if hello.epochs.is_empty() { std::slice::from_ref(&hello.epoch) } else { &hello.epochs },
        first: hello.first,
        last: hello.last,
        minted_for: hello.minted_for,
    };
    let held = same.map_or([None; 2], |p| p.has);
    let fits = Lane::ALL.map(|lane| match held[slot(lane)] {
        Some(cursor) => sender.fit(&cursor, &shown),
        None => sender.start(start_of(own, hello, lane), &shown),
    });
    let other = fits.iter().find_map(|fit| match fit {
        Fit::Past => Some((
            Reason::Past,
            "the parent holds positions that the child has not written: it was restored from a backup",
        )),
        Fit::Forked => Some((
            Reason::Forked,
            "the child's history is not the one that the parent holds: a restored backup or a copied disk",
        )),
        Fit::At(_) | Fit::Prove => None,
    });
    if let Some((reason, detail)) = other {
        let boots = same.map_or_else(Vec::new, |p| p.boots.clone());
        return Err(Box::new(Refuse { boots, held, ..own.refuse(hello, reason, detail) }));
    }
    let ([held_urgent, held_routine], [Fit::At(urgent), Fit::At(routine)]) = (held, fits) else {
        let mut prove = asked.into_inner();
        prove.sort_unstable();
        prove.dedup();
        let detail = "show the chain hashes at these positions";
        return Err(Box::new(Refuse { prove, ..own.refuse(hello, Reason::Prove, detail) }));
    };
    Ok([Place { held: held_urgent, at: urgent }, Place { held: held_routine, at: routine }])
}

/// What is to be committed before the welcome, and the cursors that it tells.
fn welcome_notes(
    peer: Option<&Peer>,
    hello: &Hello,
    lease: u64,
    places: &[Place; 2],
    down: &[Option<Cursor>; 2],
) -> (Vec<Note>, [Cursor; 2]) {
    let (child, inc) = (&hello.address, hello.from.inc);
    let same = of_inc(peer, inc);
    let is_new_inc = same.is_none() && peer.is_some_and(|p| p.party.is_some());
    let mut notes = Vec::new();
    grant(child, hello.from, &hello.boots, same, lease, &mut notes);
    let has = Lane::ALL.map(|lane| {
        let Place { held, at } = &places[slot(lane)];
        let cursor = Cursor { log: hello.epoch.log, upto: at.upto, chain: at.chain };
        if let Some(after) = at.lost_after {
            notes.push(lost(child, lane, after, at.upto));
        }
        if *held != Some(cursor) {
            let why = match held {
                Some(c) if c.log != cursor.log => "the child's history has a new name",
                Some(_) => "the child no longer has what comes next",
                None if is_new_inc => "the child was reinstalled",
                None => "the child is new here",
            };
            notes.push(Note::CursorSet { peer: child.clone(), inc, lane, cursor, why: why.into() });
        }
        cursor
    });
    for lane in Lane::ALL {
        if same.is_none_or(|p| p.peer_has[slot(lane)] != down[slot(lane)])
            && let Some(cursor) = down[slot(lane)]
        {
            notes.push(Note::PeerHas { peer: child.clone(), inc, lane, cursor });
        }
    }
    (notes, has)
}

/// The parent's own session with a child that it welcomes, of which it knew `peer`.
pub(crate) fn session_of(peer: Option<&Peer>, hello: &Hello, welcome: &Welcome, terms: &Terms) -> Session {
    let none = Cursor { log: welcome.epoch.log, upto: Pos::ZERO, chain: 0 };
    Session {
        party: hello.from,
        lease: welcome.lease,
        log: welcome.epoch.log,
        starts: welcome.sends.map(|c| c.unwrap_or(none)),
        had_before: had_before(peer),
        credit: terms.credit,
        message_bytes_max: terms.message_bytes_max.min(hello.message_bytes_max),
        alive_every_ms: terms.alive_every_ms.max(hello.alive_every_ms),
    }
}

/// Where the parent starts on its downward lanes; or the history that it must mint before.
fn downward(
    own: &Own<'_>,
    peer: Option<&Peer>,
    is_same: bool,
    minted_for: Option<LogId>,
    hello: &Hello,
) -> Result<[Option<Cursor>; 2], Mint> {
    let shown = |at: Pos| match own.shown(at) {
        Some(chain) => Shown::Chain(chain),
        None => Shown::Trimmed,
    };
    let mine = History { epochs: &own.me.epochs, first: own.first, last: own.last, minted_for };
    let mint = |held: LogId, why: &str| {
        own.mint(&hello.has, held, &hello.peer_boots, minted_for, format!("{} {why}", hello.address))
    };
    // It acknowledged nothing that we do not have on disk; so we lost what we had. Whatever was
    // written since then gets a new name before it is sent to anybody.
    let lost_some = is_same
        && hello.peer == Some(own.me.inc)
        && Lane::ALL.iter().any(|lane| {
            let ours = peer.and_then(|p| p.has[slot(*lane)]);
            match (hello.peer_has[slot(*lane)], ours) {
                (Some(said), Some(ours)) => said.log == ours.log && said.upto > ours.upto,
                _ => false,
            }
        });
    if lost_some {
        let first = own.unseen_since(&hello.peer_boots, None);
        if !own.me.epochs.iter().any(|e| e.first == first) {
            let held = own.me.epoch().log;
            return Err(Mint {
                firsts: vec![first],
                held,
                why: format!("{} got acknowledgements of a lost past", hello.address),
            });
        }
    }
    let mut down = [None; 2];
    for lane in Lane::ALL {
        let fit = match hello.has[slot(lane)] {
            Some(cursor) => match mine.fit(&cursor, &shown) {
                Fit::Past => return Err(mint(cursor.log, "holds more of this log than there is")),
                Fit::Forked | Fit::Prove => return Err(mint(cursor.log, "holds another history of this log")),
                Fit::At(at) => at,
            },
            // A reinstalled child goes on behind all that was there before it, so that a command that was
            // carried out is not carried out again; a new one gets all that is retained.
            None => {
                let begin = peer.map_or(Pos::ZERO, |p| p.begin_of(hello.from.inc, lane));
                let at = begin.max(Pos(own.first.0.saturating_sub(1))).min(own.last);
                At { upto: at, chain: own.shown(at).unwrap_or(0), lost_after: None }
            }
        };
        down[slot(lane)] = Some(Cursor { log: own.me.epoch().log, upto: fit.upto, chain: fit.chain });
    }
    Ok(down)
}

/// From where a child that is unknown here is to be served.
fn start_of(own: &Own<'_>, hello: &Hello, lane: Lane) -> Option<Pos> {
    let here = hello.peer_address.as_ref() == Some(own.address);
    // This very address acknowledged, and yet nothing is known: our folder is new. All that the
    // child still has comes again; above, what was passed on before is told by its origin.
    if here { None } else { hello.peer_has[slot(lane)].map(|c| c.upto) }
}

/// Whatever is asked for again up to there was had before, also by the same box: nobody acknowledges what is not on its
/// disk, so that disk was lost or an older copy of it was put back.
fn had_before(peer: Option<&Peer>) -> [Pos; 2] {
    peer.map_or([Pos::ZERO; 2], |p| p.furthest)
}

/// The child's part: may this welcome be acted on, and what is to be written first?
///
/// `said` is the newest hello, `awaiting` whether it is unanswered.
pub(crate) fn on_welcome(
    own: &Own<'_>,
    terms: &Terms,
    parent: &Address,
    peer: Option<&Peer>,
    said: &Hello,
    awaiting: bool,
    welcome: &Welcome,
) -> OnWelcome {
    if welcome.to != own.me.boot {
        return OnWelcome::Ignore;
    }
    if welcome.address != *parent {
        return OnWelcome::Again(format!("the broker leads to {}, and not to {parent}", welcome.address));
    }
    if !awaiting {
        let is_repeated = peer.is_some_and(|p| p.party == Some(welcome.from) && p.lease == welcome.lease);
        // A parent that comes back finds the retained hello. It may be as old as this start: what
        // was agreed upon it could lie in a past of the parent that is gone.
        return if is_repeated { OnWelcome::Ignore } else { OnWelcome::Again(ANSWERED_BEFORE.into()) };
    }
    if welcome.answers != said.id {
        return OnWelcome::Ignore;
    }
    if peer.map_or([None; 2], |p| p.has) != said.has {
        return OnWelcome::Again("frames of the session before came in meanwhile".into());
    }
    let log = own.me.epoch().log;
    for cursor in &welcome.has {
        let unlike = own.shown(cursor.upto).is_some_and(|chain| chain != cursor.chain);
        if cursor.log != log || cursor.upto > own.last || cursor.upto.next() < own.first || unlike {
            return OnWelcome::Again(format!("the parent's cursor at {} does not fit this log any more", cursor.upto));
        }
    }
    let mut notes = Vec::new();
    let same = of_inc(peer, welcome.from.inc);
    grant(parent, welcome.from, &welcome.boots, same, welcome.lease, &mut notes);
    for lane in Lane::ALL {
        let Some(sends) = welcome.sends[slot(lane)] else { continue };
        let has = same.and_then(|p| p.has[slot(lane)]);
        match has {
            Some(has) if has.log == sends.log && has.upto >= sends.upto => continue,
            Some(has) if sends.upto > has.upto => notes.push(lost(parent, lane, has.upto, sends.upto)),
            _ => {}
        }
        let why = match has {
            Some(_) => "the parent's history has a new name, or no longer has what comes next",
            None => "the parent is new here",
        };
        notes.push(Note::CursorSet {
            peer: parent.clone(),
            inc: welcome.from.inc,
            lane,
            cursor: sends,
            why: why.into(),
        });
    }
    // A parent restored from a backup holds less than it said: the tail must be kept for it again.
    for lane in Lane::ALL {
        let cursor = welcome.has[slot(lane)];
        if peer.is_none_or(|p| p.peer_has[slot(lane)] != Some(cursor) || p.peer_has_inc != Some(welcome.from.inc)) {
            notes.push(Note::PeerHas { peer: parent.clone(), inc: welcome.from.inc, lane, cursor });
        }
    }
    OnWelcome::Up {
        notes,
        session: Session {
            party: welcome.from,
            lease: welcome.lease,
            log,
            starts: welcome.has,
            had_before: had_before(peer),
            credit: welcome.credit,
            message_bytes_max: terms.message_bytes_max.min(welcome.message_bytes_max),
            alive_every_ms: terms.alive_every_ms.max(welcome.alive_every_ms),
        },
    }
}

/// The child's part: what a refusal demands. `said` and `awaiting` as for [`on_welcome`].
pub(crate) fn on_refuse(own: &Own<'_>, said: &Hello, awaiting: bool, refuse: &Refuse) -> OnRefuse {
    let answers_hello = refuse.answers == said.id;
    if refuse.to != own.me.boot || !answers_hello && (awaiting || refuse.answers != 0) {
        return OnRefuse::Ignore;
    }
    // A parent that comes back finds the retained hello, which is of before what this node has written since: it has no
    // session of it. Somebody else at that broker, whose child this node is not, says nothing of the session.
    if answers_hello && !awaiting {
        return if refuse.reason == Reason::WrongParent { OnRefuse::Ignore } else { OnRefuse::Again };
    }
    match refuse.reason {
        Reason::Prove => OnRefuse::Prove(refuse.prove.clone()),
        // The hello names what the parent really needs; the refusal of a frame only knows one lane.
        Reason::Unknown => OnRefuse::Again,
        Reason::Past | Reason::Forked if refuse.answers == 0 => OnRefuse::Again,
        Reason::Past | Reason::Forked => {
            let held = refuse.held.iter().flatten().next().map_or_else(|| own.me.epoch().log, |c| c.log);
            let why = format!("refused by the parent: {}", refuse.detail);
            OnRefuse::Mint(own.mint(&refuse.held, held, &refuse.boots, said.minted_for, why))
        }
        Reason::Duplicate
        | Reason::Stale
        | Reason::Unenrolled
        | Reason::Version
        | Reason::WrongParent
        | Reason::Unavailable => OnRefuse::Wait,
    }
}

/// The session, and before it the starts that the peer lived through without us: they are known
/// now, for what it wrote in them is proven to be part of the history that we hold.
fn grant(peer: &Address, party: Party, boots: &[BootMark], same: Option<&Peer>, lease: u64, notes: &mut Vec<Note>) {
    let granted = |boot| Note::Granted { child: peer.clone(), party: Party { inc: party.inc, boot }, lease };
    let unknown = boots.iter().filter(|m| m.boot != party.boot && !same.is_some_and(|p| p.boots.contains(&m.boot)));
    notes.extend(unknown.take(BOOTS_KEPT).map(|m| granted(m.boot)));
    notes.push(granted(party.boot));
}

fn lost(peer: &Address, lane: Lane, after: Pos, upto: Pos) -> Note {
    Note::Lost {
        peer: Some(peer.clone()),
        lane: Some(lane),
        after,
        upto,
        reason: "the sender's retention had taken it".into(),
    }
}

impl Own<'_> {
    pub fn party(&self) -> Party {
        Party { inc: self.me.inc, boot: self.me.boot }
    }

    /// The answer to a hello that gets no session.
    fn refuse(&self, hello: &Hello, reason: Reason, detail: impl Into<String>) -> Refuse {
        Refuse { answers: hello.id, ..Refuse::new(self.party(), hello.from.boot, reason, detail) }
    }

    fn shown(&self, at: Pos) -> Option<u64> {
        if at == Pos::ZERO { Some(0) } else { (self.chain)(at) }
    }

    /// The history to mint for a peer that stands at `cursors`, in `held`, and saw the starts `seen`.
    fn mint(
        &self,
        cursors: &[Option<Cursor>; 2],
        held: LogId,
        seen: &[Boot],
        minted_for: Option<LogId>,
        why: String,
    ) -> Mint {
        // Minted already, and still no fit: the peer saw starts whose records differ. Go further back.
        let before = (minted_for == Some(held)).then(|| self.me.epoch().first);
        let first = self.unseen_since(seen, before);
        let mut firsts = vec![first];
        if !self.me.epochs.iter().any(|e| e.log == held) {
            // `held` was minted in a past that is gone, because names before it had been used twice.
            // From where is gone too; so nothing that the peer still lacks keeps its old name.
            let lacks = cursors.iter().flatten().map(|c| c.upto.next()).min().filter(|p| *p < first);
            firsts.splice(0..0, lacks);
        }
        Mint { firsts, held, why }
    }

    /// First position of the earliest start that a peer, who saw `seen`, does not know. With
    /// `before`, at least one start further back than that.
    fn unseen_since(&self, seen: &[Boot], before: Option<Pos>) -> Pos {
        let marks: &[BootMark] = &self.me.boots;
        let known = marks.iter().rposition(|m| seen.contains(&m.boot));
        let unseen = match known {
            // The newest start that it saw, and all before it, are the past that both share.
            Some(i) => marks.get(i + 1).or(marks.last()),
            None => marks.first(),
        };
        let first = unseen.map_or(Pos(1), |m| m.first);
        match before {
            Some(b) if first >= b => marks.iter().rev().map(|m| m.first).find(|f| *f < b).unwrap_or(Pos(1)),
            _ => first,
        }
    }
}
