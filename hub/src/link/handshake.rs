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
//! **Situations and outcomes** (each has a test of that name below):
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
//! | a child unknown here that this address acknowledged (parent reinstalled) | sends all that it retained |
//! | the child holds more of the parent than there is, or another hash | the parent mints first |

use crate::note::Note;
use crate::state::{Me, Peer, slot};
use citybrain_shared::config::Enrol;
use citybrain_shared::limits::BOOTS_KEPT;
use citybrain_shared::wire::{self, BootMark, Cursor, Epoch, Hello, Party, Reason, Refuse, Welcome};
use citybrain_shared::{Address, Boot, Lane, LogId, Pos};
use std::cell::RefCell;

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
    pub enrol: Enrol,
    pub credit: u16,
}

/// What a parent does with a hello. Notes are committed before anything is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum OnHello {
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
    pub credit: u16,
    /// Largest message that both accept, bytes.
    pub message_bytes_max: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OnWelcome {
    /// Commit the notes, then send from `session.starts` on.
    Up { notes: Vec<Note>, session: Session },
    /// It answers an older hello, or does not fit: say hello again.
    Again(String),
    /// Not for this start of this node.
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OnRefuse {
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
pub struct Saying {
    /// Counts up from 1 within one start.
    pub id: u64,
    pub prove: Vec<Pos>,
    pub minted_for: Option<LogId>,
}

/// The child's hello to `parent`. `peers` are all that it ever spoke with: a parent of former days
/// says from where a new one has to be served.
pub fn hello<'a>(
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
    let epoch = own.epoch();
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
pub struct Holder {
    /// The party of the newest lease was heard within the last keep-alives and said no bye.
    pub alive: bool,
}

/// The parent's answer. `minted_for`: the history of ours for which we minted within this very
/// handshake.
pub fn on_hello(
    own: &Own<'_>,
    terms: &Terms,
    peer: Option<&Peer>,
    holder: Holder,
    minted_for: Option<LogId>,
    hello: &Hello,
) -> OnHello {
    let refuse = |reason, detail: String| {
        OnHello::Refuse(Box::new(Refuse {
            answers: hello.id,
            ..Refuse::new(own.party(), hello.from.boot, reason, detail)
        }))
    };
    if !hello.address.is_child_of(own.address) {
        return refuse(
            Reason::WrongParent,
            format!("{} is no child of {}: check the address and the parent's url", hello.address, own.address),
        );
    }
    let version = hello.version_max.min(wire::VERSION);
    if version < hello.version_min.max(wire::VERSION_MIN) {
        return refuse(
            Reason::Version,
            format!(
                "the child speaks {} to {}, the parent {} to {}: upgrade the older one",
                hello.version_min,
                hello.version_max,
                wire::VERSION_MIN,
                wire::VERSION
            ),
        );
    }
    let party = peer.and_then(|p| p.party);
    if let Some(before) = party.filter(|p| holder.alive && *p != hello.from) {
        if before.inc != hello.from.inc {
            return refuse(
                Reason::Duplicate,
                format!("another data folder (incarnation {}) holds this address and is alive", before.inc),
            );
        }
        if hello.from.boot.counter < before.boot.counter {
            return refuse(
                Reason::Stale,
                format!(
                    "start {} of this node is alive; this is start {}",
                    before.boot.counter, hello.from.boot.counter
                ),
            );
        }
        if hello.from.boot.counter == before.boot.counter {
            return refuse(
                Reason::Duplicate,
                "a copy of this data folder holds the address and is alive: stop one of them".into(),
            );
        }
    }
    let is_new_inc = party.is_some_and(|p| p.inc != hello.from.inc);
    if terms.enrol == Enrol::Manual && party.is_none_or(|p| p.inc != hello.from.inc) {
        let inc = hello.from.inc;
        let word = peer.and_then(|p| p.enrolled).filter(|(of, _)| *of == inc).map(|(_, is_admitted)| is_admitted);
        let detail = match word {
            Some(true) => None,
            Some(false) => Some(format!("an operator has refused this box (incarnation {inc})")),
            None if is_new_inc => Some(format!("the box is new under a known address (incarnation {inc})")),
            None => Some(format!("the box comes for the first time (incarnation {inc})")),
        };
        if let Some(detail) = detail {
            return refuse(Reason::Unenrolled, detail);
        }
    }
    let same = peer.filter(|p| p.party.is_some_and(|p| p.inc == hello.from.inc));

    // What the child may still need of us: our own history is put right before anything is sent.
    let down = match downward(own, peer, same.is_some(), minted_for, hello) {
        Ok(down) => down,
        Err(mint) => return OnHello::Mint(mint),
    };

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
    let mut is_proven = true;
    let mut fits = [None; 2];
    for lane in Lane::ALL {
        let held = same.and_then(|p| p.has[slot(lane)]);
        let fit = match held {
            Some(cursor) => sender.fit(&cursor, &shown),
            None => sender.start(start_of(own, hello, lane), &shown),
        };
        match fit {
            Fit::Prove => is_proven = false,
            Fit::At(at) => fits[slot(lane)] = Some((held, at)),
            Fit::Past | Fit::Forked => {
                let (reason, detail) = if fit == Fit::Past {
                    (
                        Reason::Past,
                        "the parent holds positions that the child has not written: it was restored from a backup",
                    )
                } else {
                    (
                        Reason::Forked,
                        "the child's history is not the one that the parent holds: a restored backup or a copied disk",
                    )
                };
                return OnHello::Refuse(Box::new(Refuse {
                    answers: hello.id,
                    boots: same.map_or_else(Vec::new, |p| p.boots.clone()),
                    held: same.map_or([None; 2], |p| p.has),
                    ..Refuse::new(own.party(), hello.from.boot, reason, detail)
                }));
            }
        }
    }
    if !is_proven {
        let mut prove = asked.into_inner();
        prove.sort_unstable();
        prove.dedup();
        return OnHello::Refuse(Box::new(Refuse {
            answers: hello.id,
            prove,
            ..Refuse::new(own.party(), hello.from.boot, Reason::Prove, "show the chain hashes at these positions")
        }));
    }

    let lease = peer.map_or(0, |p| p.lease) + 1;
    let mut notes = Vec::new();
    grant(&hello.address, hello.from, &hello.boots, same, lease, &mut notes);
    let mut has = [Cursor { log: hello.epoch.log, upto: Pos::ZERO, chain: 0 }; 2];
    for lane in Lane::ALL {
        let Some((held, at)) = fits[slot(lane)] else { continue };
        let cursor = Cursor { log: hello.epoch.log, upto: at.upto, chain: at.chain };
        has[slot(lane)] = cursor;
        if let Some(after) = at.lost_after {
            notes.push(lost(&hello.address, lane, after, at.upto));
        }
        if held != Some(cursor) {
            let why = match held {
                Some(c) if c.log != cursor.log => "the child's history has a new name",
                Some(_) => "the child no longer has what comes next",
                None if is_new_inc => "the child was reinstalled",
                None => "the child is new here",
            };
            notes.push(Note::CursorSet {
                peer: hello.address.clone(),
                inc: hello.from.inc,
                lane,
                cursor,
                why: why.into(),
            });
        }
    }
    for lane in Lane::ALL {
        if same.is_none_or(|p| p.peer_has[slot(lane)] != down[slot(lane)])
            && let Some(cursor) = down[slot(lane)]
        {
            notes.push(Note::PeerHas { peer: hello.address.clone(), inc: hello.from.inc, lane, cursor });
        }
    }
    OnHello::Welcome {
        notes,
        welcome: Box::new(Welcome {
            from: own.party(),
            to: hello.from.boot,
            address: own.address.clone(),
            version,
            message_bytes_max: terms.message_bytes_max,
            lease,
            epoch: own.epoch(),
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

/// The parent's own session with a child that it welcomes.
pub fn session_of(hello: &Hello, welcome: &Welcome, message_bytes_max: u32, credit: u16) -> Session {
    let none = Cursor { log: welcome.epoch.log, upto: Pos::ZERO, chain: 0 };
    Session {
        party: hello.from,
        lease: welcome.lease,
        log: welcome.epoch.log,
        starts: welcome.sends.map(|c| c.unwrap_or(none)),
        credit,
        message_bytes_max: message_bytes_max.min(hello.message_bytes_max),
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
            let held = own.epoch().log;
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
            // A reinstalled child goes on where the former incarnation was, so that a command that
            // was carried out is not carried out again; a new one gets all that is retained.
            None => {
                let before = peer.filter(|_| !is_same).and_then(|p| p.peer_has[slot(lane)]);
                let at = before.map_or(Pos::ZERO, |c| c.upto).max(Pos(own.first.0.saturating_sub(1))).min(own.last);
                At { upto: at, chain: own.shown(at).unwrap_or(0), lost_after: None }
            }
        };
        down[slot(lane)] = Some(Cursor { log: own.epoch().log, upto: fit.upto, chain: fit.chain });
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

/// The child's part: may this welcome be acted on, and what is to be written first?
///
/// `said` is the newest hello, `awaiting` whether it is unanswered.
pub fn on_welcome(
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
        let why = "a hello that was answered before was answered again";
        return if is_repeated { OnWelcome::Ignore } else { OnWelcome::Again(why.into()) };
    }
    if welcome.answers != said.id {
        return OnWelcome::Ignore;
    }
    if peer.map_or([None; 2], |p| p.has) != said.has {
        return OnWelcome::Again("frames of the session before came in meanwhile".into());
    }
    let log = own.epoch().log;
    for cursor in &welcome.has {
        let unlike = own.shown(cursor.upto).is_some_and(|chain| chain != cursor.chain);
        if cursor.log != log || cursor.upto > own.last || cursor.upto.next() < own.first || unlike {
            return OnWelcome::Again(format!("the parent's cursor at {} does not fit this log any more", cursor.upto));
        }
    }
    let mut notes = Vec::new();
    let same = peer.filter(|p| p.party.is_some_and(|p| p.inc == welcome.from.inc));
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
            credit: welcome.credit,
            message_bytes_max: terms.message_bytes_max.min(welcome.message_bytes_max),
        },
    }
}

/// The child's part: what a refusal demands. `said` and `awaiting` as for [`on_welcome`].
pub fn on_refuse(own: &Own<'_>, said: &Hello, awaiting: bool, refuse: &Refuse) -> OnRefuse {
    let is_late = if awaiting { refuse.answers != said.id } else { refuse.answers != 0 };
    if refuse.to != own.me.boot || is_late {
        return OnRefuse::Ignore;
    }
    match refuse.reason {
        Reason::Prove => OnRefuse::Prove(refuse.prove.clone()),
        // The hello names what the parent really needs; the refusal of a frame only knows one lane.
        Reason::Unknown => OnRefuse::Again,
        Reason::Past | Reason::Forked if refuse.answers == 0 => OnRefuse::Again,
        Reason::Past | Reason::Forked => {
            let held = refuse.held.iter().flatten().next().map_or_else(|| own.epoch().log, |c| c.log);
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

    /// The present history.
    pub fn epoch(&self) -> Epoch {
        self.me.epochs.last().copied().unwrap_or(Epoch { log: LogId::default(), first: Pos(1) })
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
        let before = (minted_for == Some(held)).then(|| self.epoch().first);
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

/// The name of the history that holds `pos`: the newest that had begun.
pub fn log_at(epochs: &[Epoch], pos: Pos) -> LogId {
    epochs.iter().rev().find(|e| e.first <= pos).map_or_else(LogId::default, |e| e.log)
}

/// What a sender shows of its chain.
enum Shown {
    NotAsked,
    Trimmed,
    Chain(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct At {
    upto: Pos,
    chain: u64,
    /// What lies between this and `upto` can no longer be sent.
    lost_after: Option<Pos>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fit {
    At(At),
    /// The sender has to show a hash first.
    Prove,
    Past,
    Forked,
}

/// A sender's log as its receiver gets to know it.
struct History<'a> {
    epochs: &'a [Epoch],
    first: Pos,
    last: Pos,
    minted_for: Option<LogId>,
}

impl History<'_> {
    /// Where a receiver that stands at `cursor` goes on.
    fn fit(&self, cursor: &Cursor, shown: &impl Fn(Pos) -> Shown) -> Fit {
        let known = self.epochs.iter().position(|e| e.log == cursor.log);
        // The earliest position that got another name after the receiver's.
        let renamed = match known {
            Some(i) => self.epochs[i + 1..].iter().map(|e| e.first).min(),
            None if self.minted_for == Some(cursor.log) => self.epochs.last().map(|e| e.first),
            None => return Fit::Forked,
        };
        let renamed = renamed.filter(|f| *f <= cursor.upto);
        if cursor.upto > self.last {
            return match renamed {
                Some(f) => self.start(Some(Pos(f.0.saturating_sub(1))), shown),
                None => Fit::Past,
            };
        }
        if cursor.upto.next() < self.first {
            return self.start(Some(cursor.upto), shown);
        }
        match (shown(cursor.upto), renamed) {
            (Shown::NotAsked, _) => Fit::Prove,
            (Shown::Chain(c), Some(f)) if c != cursor.chain => self.start(Some(Pos(f.0.saturating_sub(1))), shown),
            (Shown::Chain(c), None) if c != cursor.chain => Fit::Forked,
            // Equal; or just trimmed, which is as far as anybody can look.
            _ => Fit::At(At { upto: cursor.upto, chain: cursor.chain, lost_after: None }),
        }
    }

    /// A cursor at `at`, or at the oldest that can be served.
    fn start(&self, at: Option<Pos>, shown: &impl Fn(Pos) -> Shown) -> Fit {
        let oldest = Pos(self.first.0.saturating_sub(1)).min(self.last);
        let upto = at.unwrap_or(oldest).clamp(oldest, self.last.max(oldest));
        let lost_after = at.filter(|a| *a < upto);
        match shown(upto) {
            _ if upto == Pos::ZERO => Fit::At(At { upto, chain: 0, lost_after }),
            Shown::NotAsked => Fit::Prove,
            // The hash before a trimmed log's first record may be gone; both ends then write 0.
            Shown::Trimmed => Fit::At(At { upto, chain: 0, lost_after }),
            Shown::Chain(chain) => Fit::At(At { upto, chain, lost_after }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Inc;

    const CHILD: Inc = Inc(1);
    const PARENT: Inc = Inc(2);
    const E0: LogId = LogId(100);
    const E1: LogId = LogId(101);
    const P0: LogId = LogId(200);

    fn a(s: &str) -> Address {
        Address::parse(s).unwrap()
    }

    fn boot(n: u64) -> Boot {
        Boot { counter: n, nonce: n * 7 }
    }

    fn mark(n: u64, first: u64) -> BootMark {
        BootMark { boot: boot(n), first: Pos(first) }
    }

    fn me(inc: Inc, log: LogId, marks: &[BootMark]) -> Me {
        Me {
            inc,
            boot: marks.last().unwrap().boot,
            boots: marks.to_vec(),
            epochs: vec![Epoch { log, first: Pos(1) }],
            ..Me::default()
        }
    }

    /// The hash of everybody's shared history; a fork's differ.
    fn hash(at: Pos) -> u64 {
        at.0 * 10
    }

    fn at(log: LogId, upto: u64) -> Cursor {
        Cursor { log, upto: Pos(upto), chain: upto * 10 }
    }

    fn terms() -> Terms {
        Terms { name: "东街".into(), message_bytes_max: 1 << 20, enrol: Enrol::Auto, credit: 8 }
    }

    /// A child with 100 records in three starts, and a parent with 50 that holds 40 and 60 of them.
    struct Scene {
        child: Me,
        child_first: Pos,
        child_last: Pos,
        child_peers: Vec<(Address, Peer)>,
        parent: Me,
        parent_last: Pos,
        parent_hash: fn(Pos) -> u64,
        child_hash: fn(Pos) -> u64,
        known: Option<Peer>,
        holder: Holder,
        terms: Terms,
        saying: Saying,
    }

    impl Scene {
        fn usual() -> Scene {
            let child = me(CHILD, E0, &[mark(1, 1), mark(2, 30), mark(3, 90)]);
            let parent = me(PARENT, P0, &[mark(8, 1), mark(9, 20)]);
            let of_parent = Peer {
                party: Some(Party { inc: PARENT, boot: boot(9) }),
                boots: vec![boot(8), boot(9)],
                lease: 4,
                has: [Some(at(P0, 10)), Some(at(P0, 45))],
                peer_has: [Some(at(E0, 40)), Some(at(E0, 60))],
                peer_has_inc: Some(PARENT),
                ..Peer::default()
            };
            let of_child = Peer {
                party: Some(Party { inc: CHILD, boot: boot(2) }),
                boots: vec![boot(1), boot(2)],
                lease: 4,
                has: [Some(at(E0, 40)), Some(at(E0, 60))],
                peer_has: [Some(at(P0, 10)), Some(at(P0, 45))],
                peer_has_inc: Some(CHILD),
                ..Peer::default()
            };
            Scene {
                child,
                child_first: Pos(1),
                child_last: Pos(100),
                child_peers: vec![(a("c"), of_parent)],
                parent,
                parent_last: Pos(50),
                parent_hash: hash,
                child_hash: hash,
                known: Some(of_child),
                holder: Holder::default(),
                terms: terms(),
                saying: Saying { id: 3, ..Saying::default() },
            }
        }

        fn with_child<R>(&self, look: impl FnOnce(&Own<'_>) -> R) -> R {
            let chain = |p: Pos| (p >= self.child_first && p <= self.child_last).then(|| (self.child_hash)(p));
            let (first, last) = (self.child_first, self.child_last);
            look(&Own { address: &a("c/s"), me: &self.child, first, last, chain: &chain })
        }

        fn hello(&self) -> Hello {
            let peers = self.child_peers.iter().map(|(a, p)| (a, p));
            self.with_child(|own| super::hello(own, &terms(), &a("c"), peers, &self.saying))
        }

        fn answer_to(&self, hello: &Hello, minted_for: Option<LogId>) -> OnHello {
            let chain = |p: Pos| (p <= self.parent_last).then(|| (self.parent_hash)(p));
            let own = Own { address: &a("c"), me: &self.parent, first: Pos(1), last: self.parent_last, chain: &chain };
            on_hello(&own, &self.terms, self.known.as_ref(), self.holder, minted_for, hello)
        }

        fn answer(&self) -> OnHello {
            self.answer_to(&self.hello(), None)
        }

        fn welcome(&self) -> (Vec<Note>, Welcome) {
            match self.answer() {
                OnHello::Welcome { notes, welcome } => (notes, *welcome),
                other => panic!("{other:?}"),
            }
        }

        fn refusal(&self) -> Refuse {
            match self.answer() {
                OnHello::Refuse(r) => *r,
                other => panic!("{other:?}"),
            }
        }
    }

    fn cursors_set(notes: &[Note]) -> Vec<(Lane, Cursor)> {
        let set = |n: &Note| match n {
            Note::CursorSet { lane, cursor, .. } => Some((*lane, *cursor)),
            _ => None,
        };
        notes.iter().filter_map(set).collect()
    }

    #[test]
    fn a_restart_is_welcomed_at_the_cursors_under_a_higher_lease() {
        let (notes, w) = Scene::usual().welcome();
        assert_eq!((w.lease, w.has, w.answers), (5, [at(E0, 40), at(E0, 60)], 3));
        assert_eq!(w.sends, [Some(at(P0, 10)), Some(at(P0, 45))]);
        let party = Party { inc: CHILD, boot: boot(3) };
        assert_eq!(notes, [Note::Granted { child: a("c/s"), party, lease: 5 }]);
    }

    #[test]
    fn a_broker_without_memory_only_means_the_same_hello_again() {
        let s = Scene::usual();
        assert_eq!(s.welcome().1.has, s.welcome().1.has);
    }

    #[test]
    fn a_loop_a_wrong_tier_and_a_stranger_are_told_that_this_is_not_their_parent() {
        let s = Scene::usual();
        for address in ["c", "c/s/m", "d/s"] {
            let hello = Hello { address: a(address), ..s.hello() };
            let OnHello::Refuse(r) = s.answer_to(&hello, None) else { panic!("{address}") };
            assert_eq!(r.reason, Reason::WrongParent, "{address}");
        }
    }

    #[test]
    fn without_a_common_version_both_are_named() {
        let s = Scene::usual();
        let hello = Hello { version_min: 7, version_max: 9, ..s.hello() };
        let OnHello::Refuse(r) = s.answer_to(&hello, None) else { panic!() };
        assert_eq!(r.reason, Reason::Version);
        assert!(r.detail.contains("7 to 9"), "{}", r.detail);
    }

    #[test]
    fn while_the_holder_is_alive_only_a_newer_start_of_it_takes_over() {
        let mut s = Scene::usual();
        s.holder.alive = true;
        assert_eq!(s.welcome().1.lease, 5);
        let mut hold = |party| {
            s.known.as_mut().unwrap().party = Some(party);
            s.refusal().reason
        };
        assert_eq!(hold(Party { inc: CHILD, boot: boot(4) }), Reason::Stale);
        let twin = Boot { counter: 3, nonce: 1 };
        assert_eq!(hold(Party { inc: CHILD, boot: twin }), Reason::Duplicate);
        assert_eq!(hold(Party { inc: Inc(9), boot: boot(1) }), Reason::Duplicate);
    }

    #[test]
    fn a_reinstalled_child_starts_anew_where_it_offers_and_is_not_given_old_commands_again() {
        let mut s = Scene::usual();
        s.known.as_mut().unwrap().party = Some(Party { inc: Inc(9), boot: boot(1) });
        s.child_peers.clear();
        let (notes, w) = s.welcome();
        assert_eq!(w.has, [at(E0, 0), at(E0, 0)]);
        assert_eq!(cursors_set(&notes), [(Lane::Urgent, at(E0, 0)), (Lane::Routine, at(E0, 0))]);
        assert_eq!(w.sends, [Some(at(P0, 10)), Some(at(P0, 45))]);
    }

    #[test]
    fn where_config_says_so_a_new_or_reinstalled_child_waits_for_an_operator() {
        let mut s = Scene::usual();
        s.terms.enrol = Enrol::Manual;
        s.known.as_mut().unwrap().party = Some(Party { inc: Inc(9), boot: boot(1) });
        s.child_peers.clear();
        assert_eq!(s.refusal().reason, Reason::Unenrolled);
        s.known.as_mut().unwrap().enrolled = Some((CHILD, false));
        assert!(s.refusal().detail.contains("has refused"));
        // A word on another incarnation is none on this one.
        s.known.as_mut().unwrap().enrolled = Some((Inc(9), true));
        assert_eq!(s.refusal().reason, Reason::Unenrolled);
        s.known.as_mut().unwrap().enrolled = Some((CHILD, true));
        s.welcome();
        // One that never came before waits, too.
        s.known = None;
        assert!(s.refusal().detail.contains("first time"));
        s.known = Some(Peer { enrolled: Some((CHILD, true)), ..Peer::default() });
        s.welcome();
    }

    #[test]
    fn a_parent_ahead_of_what_its_child_remembers_asks_for_proof_of_all_at_once() {
        let mut s = Scene::usual();
        s.known.as_mut().unwrap().has = [Some(at(E0, 44)), Some(at(E0, 66))];
        let r = s.refusal();
        assert_eq!((r.reason, &r.prove[..]), (Reason::Prove, &[Pos(44), Pos(66)][..]));
        let said = s.hello();
        assert_eq!(s.with_child(|own| on_refuse(own, &said, true, &r)), OnRefuse::Prove(vec![Pos(44), Pos(66)]));
        s.saying.prove = r.prove;
        assert_eq!(s.welcome().1.has, [at(E0, 44), at(E0, 66)]);
    }

    #[test]
    fn a_parent_restored_from_a_backup_is_sent_again_what_it_lost_after_it_took_a_new_name() {
        let mut s = Scene::usual();
        s.known.as_mut().unwrap().has = [Some(at(E0, 20)), Some(at(E0, 25))];
        s.saying.prove = vec![Pos(20), Pos(25)];
        s.parent.boots.push(mark(10, 48));
        let OnHello::Mint(m) = s.answer() else { panic!() };
        assert_eq!(m.firsts, [Pos(48)]);
        s.parent.epochs.push(Epoch { log: E1, first: Pos(48) });
        assert_eq!(s.welcome().1.has, [at(E0, 20), at(E0, 25)]);
    }

    #[test]
    fn what_the_child_trimmed_before_its_parent_was_restored_is_recorded_as_lost() {
        let mut s = Scene::usual();
        s.child_first = Pos(31);
        s.known.as_mut().unwrap().has = [Some(at(E0, 40)), Some(at(E0, 25))];
        s.parent.epochs.push(Epoch { log: E1, first: Pos(1) });
        s.child_peers[0].1.boots.clear();
        s.child_peers[0].1.has = [None; 2];
        s.saying.prove = vec![Pos(30), Pos(40)];
        let (notes, w) = s.welcome();
        assert_eq!(w.has[1].upto, Pos(30));
        let lost = |n: &Note| matches!(n, Note::Lost { after: Pos(25), upto: Pos(30), lane: Some(Lane::Routine), .. });
        assert!(notes.iter().any(lost), "{notes:?}");
    }

    #[test]
    fn a_parent_that_sent_what_it_no_longer_has_mints_from_its_first_unseen_start() {
        let mut s = Scene::usual();
        s.parent.boots.push(mark(10, 31));
        s.parent_last = Pos(35);
        let OnHello::Mint(m) = s.answer() else { panic!() };
        assert_eq!((m.firsts.as_slice(), m.held), (&[Pos(31)][..], P0));
        s.parent.epochs.push(Epoch { log: E1, first: Pos(31) });
        let hello = s.hello();
        let OnHello::Welcome { welcome: w, .. } = s.answer_to(&hello, Some(P0)) else { panic!() };
        assert_eq!(w.epoch.log, E1);
        assert_eq!(w.sends, [Some(at(E1, 10)), Some(at(E1, 30))]);
    }

    #[test]
    fn a_parent_whose_hash_differs_where_the_child_stands_mints_too() {
        let mut s = Scene::usual();
        s.parent.boots.push(mark(10, 31));
        s.parent_hash = |p| if p.0 > 30 { p.0 } else { p.0 * 10 };
        let OnHello::Mint(m) = s.answer() else { panic!() };
        assert_eq!(m.firsts, [Pos(31)]);
    }

    #[test]
    fn a_child_in_the_past_mints_from_its_first_unseen_start_and_goes_on() {
        let mut s = Scene::usual();
        s.known.as_mut().unwrap().has = [Some(at(E0, 40)), Some(at(E0, 130))];
        let r = s.refusal();
        assert_eq!((r.reason, &r.boots), (Reason::Past, &vec![boot(1), boot(2)]));
        let said = s.hello();
        let OnRefuse::Mint(m) = s.with_child(|own| on_refuse(own, &said, true, &r)) else { panic!() };
        assert_eq!((m.firsts.as_slice(), m.held), (&[Pos(90)][..], E0));
        s.child.epochs.push(Epoch { log: E1, first: Pos(90) });
        s.saying = Saying { id: 4, prove: vec![Pos(40), Pos(89)], minted_for: Some(E0) };
        let (notes, w) = s.welcome();
        assert_eq!(w.has, [at(E1, 40), at(E1, 89)]);
        assert_eq!(cursors_set(&notes).len(), 2);
        assert_eq!((log_at(&s.child.epochs, Pos(89)), log_at(&s.child.epochs, Pos(90))), (E0, E1));
    }

    #[test]
    fn a_cloned_disk_shows_as_a_forked_chain() {
        let mut s = Scene::usual();
        s.child_hash = |p| if p.0 > 50 { p.0 } else { p.0 * 10 };
        let r = s.refusal();
        assert_eq!((r.reason, r.held), (Reason::Forked, [Some(at(E0, 40)), Some(at(E0, 60))]));
    }

    #[test]
    fn a_new_name_that_was_not_needed_here_moves_the_cursor_and_sends_nothing_again() {
        let mut s = Scene::usual();
        s.child.epochs.push(Epoch { log: E1, first: Pos(30) });
        assert_eq!(s.welcome().1.has, [at(E1, 40), at(E1, 60)]);
    }

    #[test]
    fn a_history_that_the_child_has_lost_is_refused_until_it_mints_for_it() {
        let mut s = Scene::usual();
        s.known.as_mut().unwrap().has = [Some(at(E1, 40)), Some(at(E1, 60))];
        let r = s.refusal();
        assert_eq!(r.reason, Reason::Forked);
        let said = s.hello();
        let OnRefuse::Mint(m) = s.with_child(|own| on_refuse(own, &said, true, &r)) else { panic!() };
        // Nothing that the parent still lacks keeps a name that may have been used twice.
        assert_eq!((m.firsts.as_slice(), m.held), (&[Pos(41), Pos(90)][..], E1));
        let mut ids = [LogId(7), LogId(8)].into_iter();
        assert_eq!(m.notes(|| ids.next().unwrap()).len(), 2);
    }

    #[test]
    fn minted_and_still_refused_goes_one_start_further_back() {
        let mut s = Scene::usual();
        s.child.epochs.push(Epoch { log: E1, first: Pos(90) });
        s.saying.minted_for = Some(E0);
        let said = s.hello();
        let r = Refuse {
            answers: 3,
            boots: vec![boot(1), boot(2)],
            held: [None, Some(at(E0, 60))],
            ..Refuse::new(Party::default(), boot(3), Reason::Forked, "")
        };
        let OnRefuse::Mint(m) = s.with_child(|own| on_refuse(own, &said, true, &r)) else { panic!() };
        assert_eq!(m.firsts, [Pos(30)]);
    }

    #[test]
    fn a_child_that_moved_starts_at_what_the_former_parent_acknowledged() {
        let mut s = Scene::usual();
        s.known = None;
        s.child_peers[0].1.peer_has = [Some(at(E0, 40)), Some(at(E0, 60))];
        let hello = Hello { peer_address: Some(a("old")), peer: Some(Inc(9)), has: [None; 2], ..s.hello() };
        let OnHello::Welcome { notes, welcome } = s.answer_to(&hello, None) else { panic!() };
        assert_eq!(welcome.has, [at(E0, 40), at(E0, 60)]);
        assert_eq!(cursors_set(&notes).len(), 2);
        assert_eq!(welcome.sends, [Some(at(P0, 0)), Some(at(P0, 0))]);
    }

    #[test]
    fn a_reinstalled_parent_gets_all_that_its_child_retained() {
        let mut s = Scene::usual();
        s.known = None;
        s.child_first = Pos(31);
        s.parent = me(Inc(3), LogId(300), &[mark(1, 1)]);
        s.parent_last = Pos(1);
        s.saying.prove = vec![Pos(30)];
        let hello = Hello { has: [None; 2], ..s.hello() };
        let OnHello::Welcome { welcome, .. } = s.answer_to(&hello, None) else { panic!() };
        assert_eq!(welcome.has.map(|c| c.upto), [Pos(30), Pos(30)]);
    }

    #[test]
    fn the_child_takes_the_welcome_it_waits_for_and_no_other() {
        let s = Scene::usual();
        let said = s.hello();
        let (_, w) = s.welcome();
        let take = |awaiting, w: &Welcome| {
            let peer = &s.child_peers[0].1;
            s.with_child(|own| on_welcome(own, &terms(), &a("c"), Some(peer), &said, awaiting, w))
        };
        let OnWelcome::Up { notes, session } = take(true, &w) else { panic!() };
        assert_eq!((session.lease, session.log, session.starts), (5, E0, [at(E0, 40), at(E0, 60)]));
        assert_eq!(cursors_set(&notes), []);
        assert!(matches!(take(false, &w), OnWelcome::Again(_)));
        assert_eq!(take(true, &Welcome { answers: 2, ..w.clone() }), OnWelcome::Ignore);
        assert_eq!(take(true, &Welcome { to: boot(2), ..w.clone() }), OnWelcome::Ignore);
        assert_eq!(take(false, &Welcome { lease: 4, ..w.clone() }), OnWelcome::Ignore);
        assert!(matches!(take(true, &Welcome { address: a("d"), ..w }), OnWelcome::Again(_)));
    }

    #[test]
    fn a_child_follows_its_parents_new_name_and_records_what_was_trimmed() {
        let s = Scene::usual();
        let said = s.hello();
        let (_, mut w) = s.welcome();
        w.sends = [Some(at(E1, 10)), Some(at(P0, 48))];
        let peer = &s.child_peers[0].1;
        let up = s.with_child(|own| on_welcome(own, &terms(), &a("c"), Some(peer), &said, true, &w));
        let OnWelcome::Up { notes, .. } = up else { panic!("{up:?}") };
        assert_eq!(cursors_set(&notes), [(Lane::Urgent, at(E1, 10)), (Lane::Routine, at(P0, 48))]);
        assert!(notes.iter().any(|n| matches!(n, Note::Lost { after: Pos(45), upto: Pos(48), .. })), "{notes:?}");
    }

    #[test]
    fn late_refusals_and_those_for_another_start_are_ignored() {
        let s = Scene::usual();
        let said = s.hello();
        let says = |awaiting, answers, to, reason| {
            let r = Refuse { answers, ..Refuse::new(Party::default(), to, reason, "") };
            s.with_child(|own| on_refuse(own, &said, awaiting, &r))
        };
        assert_eq!(says(true, 2, boot(3), Reason::Past), OnRefuse::Ignore);
        assert_eq!(says(true, 0, boot(3), Reason::Unknown), OnRefuse::Ignore);
        assert_eq!(says(false, 3, boot(3), Reason::Past), OnRefuse::Ignore);
        assert_eq!(says(true, 3, boot(2), Reason::Stale), OnRefuse::Ignore);
        assert_eq!(says(false, 0, boot(3), Reason::Unknown), OnRefuse::Again);
        assert_eq!(says(false, 0, boot(3), Reason::Forked), OnRefuse::Again);
        assert_eq!(says(true, 3, boot(3), Reason::Unenrolled), OnRefuse::Wait);
    }
}
