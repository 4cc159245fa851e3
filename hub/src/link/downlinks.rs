//! The driver of the links to all children: this node as a client of its own broker.
//!
//! One task owns all children. What waits (handshakes, which need an fsync; frames and their answers) runs
//! in tasks of its own, so that no child waits for another.

use super::ask::{self, ANSWER_BYTES_MAX, AskError, OUTSTANDING_MAX, Question};
use super::downward::Downward;
use super::driver::{self, ALIVE_WITHIN_MS, Backoff, Context, End, Intake, SHOW_EVERY_MS, Watch, random_u128};
use super::frames::Audience;
use super::handshake::{self, Holder, OnHello, Session};
use super::outbound::{Halt, Outbound};
use super::pipe::{Event, Outlet, Pipe};
use super::sender::{Acked, Ms};
use super::unheard;
use super::view::{Asking, LinkView, Lost, Role, Stage};
use crate::engine::{self, Error, Haste, Hub, LAZY_NOTES};
use bytes::Bytes;
use citybrain_shared::topic::{self, Verb};
use citybrain_shared::wire::{Alive, Hello, Message, Party, Reason, Refuse, Welcome, Word};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, LogId, Pos};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Handshakes under way at a time: after a city's restart the others wait their turn, retained.
const HANDSHAKES_MAX: usize = 64;
/// Children of one node, seen on the pipe. Far above any plan's 5,000.
const CHILDREN_MAX: usize = 20_000;
const LEFT: &str = "the child said bye, or its connection broke";
/// Frames under way for so long without any acknowledgement: the child is asked for a hello, ms.
const PROGRESS_AFTER_MS: Ms = 10_000;

/// Makes a pipe to this node's own broker, subscribed to [`filters`]; a new one after each end.
pub type Dial = Box<dyn FnMut() -> Pipe + Send>;

/// What a parent subscribes to.
pub fn filters(root: &str) -> Vec<String> {
    [Verb::Hello, Verb::Up, Verb::DownAck, Verb::Answer].map(|v| topic::link_filter(root, v)).to_vec()
}

/// A handle on the driver; cheap to clone.
#[derive(Clone)]
pub struct Downlinks {
    address: Address,
    commands: mpsc::Sender<Command>,
}

enum Command {
    Ask(Asked),
    /// Drops all that is kept of a child's link, if it has no session. The answer: it had none.
    Forget {
        child: Address,
        reply: oneshot::Sender<bool>,
    },
}

/// A question for a child, or for somebody below it.
struct Asked {
    child: Address,
    target: Address,
    body: Bytes,
    within: Duration,
    reply: oneshot::Sender<Result<Bytes, AskError>>,
}

impl Downlinks {
    /// The handle, and the driver to be spawned.
    pub fn new(cx: Context, dial: Dial) -> (Downlinks, Driver) {
        let (commands, rx) = mpsc::channel(OUTSTANDING_MAX);
        (Downlinks { address: cx.address.clone(), commands }, Driver::new(cx, dial, rx))
    }

    /// Asks a node below this one, hop by hop.
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn ask(&self, target: &Address, body: Bytes, within: Duration) -> Result<Bytes, AskError> {
        let child = self.address.child_towards(target).ok_or_else(|| AskError::NotBelow(target.clone()))?;
        if body.len() > ANSWER_BYTES_MAX {
            return Err(AskError::TooLarge);
        }
        let (reply, answer) = oneshot::channel();
        self.put(Command::Ask(Asked { child, target: target.clone(), body, within, reply }))?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(AskError::Stopping),
            Err(_) => Err(AskError::Late),
        }
    }

    /// Drops what is kept in memory of a child that is away. False: it has a session.
    ///
    /// # Errors
    /// [`AskError::Busy`], [`AskError::Stopping`].
    pub async fn forget(&self, child: &Address) -> Result<bool, AskError> {
        let (reply, answer) = oneshot::channel();
        self.put(Command::Forget { child: child.clone(), reply })?;
        answer.await.map_err(|_| AskError::Stopping)
    }

    fn put(&self, command: Command) -> Result<(), AskError> {
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Stopping,
        })
    }
}

struct Child {
    outbound: Outbound,
    view: LinkView,
    heard: Option<Instant>,
    heard_ms: Option<Ms>,
    is_gone: bool,
    /// Whose hello is being answered.
    greeting: Option<Party>,
    /// And who has said bye while it was: its session would be one with nobody.
    has_left: bool,
    /// Came while another hello of this child was being answered; the newest counts.
    next_hello: Option<Box<Hello>>,
    /// When to say to it that this node is there.
    alive_at: Ms,
    shown: bool,
}

/// The outcome of a handshake that ran in a task of its own.
struct Greeted {
    child: Address,
    outcome: Result<Greeting, Error>,
}

enum Greeting {
    Welcome { hello: Box<Hello>, welcome: Box<Welcome>, session: Session },
    Refuse { refuse: Box<Refuse>, asking: Asking },
}

struct Waiting {
    child: Address,
    reply: oneshot::Sender<Result<Bytes, AskError>>,
    until: Ms,
}

pub struct Driver {
    cx: Arc<Context>,
    dial: Dial,
    commands: mpsc::Receiver<Command>,
    children: BTreeMap<Address, Child>,
    downward: Downward,
    /// It has not caught up with the log yet.
    is_behind: bool,
    waiting: HashMap<u64, Waiting>,
    questions: u64,
    greeted_tx: mpsc::Sender<Greeted>,
    greeted: mpsc::Receiver<Greeted>,
    greetings: Arc<Semaphore>,
    /// Two children that show the same lost past must not mint twice.
    minting: Arc<Semaphore>,
    shown_at: Ms,
    watch: Watch,
    /// Children with something new since the last look at them.
    touched: BTreeSet<Address>,
    /// All children are looked at then, or once something new goes down.
    wake_at: Ms,
    goal: Pos,
}

impl Driver {
    fn new(cx: Context, dial: Dial, commands: mpsc::Receiver<Command>) -> Driver {
        let (greeted_tx, greeted) = mpsc::channel(HANDSHAKES_MAX);
        let downward = Downward::new(cx.hub.reader().last());
        Driver {
            cx: Arc::new(cx),
            dial,
            commands,
            children: BTreeMap::new(),
            downward,
            is_behind: false,
            waiting: HashMap::new(),
            questions: driver::random_u128() as u64,
            greeted_tx,
            greeted,
            greetings: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            minting: Arc::new(Semaphore::new(1)),
            shown_at: 0,
            watch: Watch::default(),
            touched: BTreeSet::new(),
            wake_at: 0,
            goal: Pos::ZERO,
        }
    }

    /// Runs until `stop` turns true or its sender is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::default();
        while !*stop.borrow() {
            match self.connection(&mut stop, &mut backoff).await {
                End::Stop => return,
                End::Again(why) => {
                    tracing::warn!(reason = %why.text, "The connection to this node's own broker ended.");
                    for child in self.children.values_mut() {
                        child.end(&self.cx.hub, Stage::Connecting, why.clone());
                        child.view.reconnects += 1;
                    }
                }
            }
            let wait = Duration::from_millis(backoff.next_ms());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = driver::stopped(&mut stop) => return,
            }
        }
    }

    async fn connection(&mut self, stop: &mut watch::Receiver<bool>, backoff: &mut Backoff) -> End {
        let Pipe { outlet, mut inlet } = (self.dial)();
        let intake = Intake::new(&self.cx, &outlet, Verb::UpAck, None);
        let mut committed = self.cx.hub.committed();
        loop {
            let now = self.cx.now();
            committed.borrow_and_update();
            if let Err(end) = self.work(now, &outlet).await {
                return end;
            }
            let deadline = self.cx.at(self.deadline(now));
            tokio::select! {
                event = inlet.recv() => match event {
                    Event::Connected => backoff.reset(),
                    Event::Disconnected(why) => return End::Again(why),
                    Event::Dropped(n) => self.cx.ignored(n),
                    Event::Message { topic, payload } => {
                        if let Err(end) = self.take(&topic, payload, &outlet, &intake).await {
                            return end;
                        }
                    }
                },
                r = committed.changed() => if r.is_err() { return End::Stop },
                Some(greeted) = self.greeted.recv() => {
                    if let Err(end) = self.greeted(greeted, &outlet).await {
                        return end;
                    }
                }
                Some(command) = self.commands.recv() => {
                    if let Err(end) = self.command(command, &outlet).await {
                        return end;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
                () = driver::stopped(stop) => return End::Stop,
            }
        }
    }

    fn deadline(&self, now: Ms) -> Ms {
        if self.is_behind { now } else { self.wake_at }
    }

    /// Timers, and whatever can be sent.
    async fn work(&mut self, now: Ms, outlet: &Outlet) -> Result<(), End> {
        let cx = self.cx.clone();
        self.watch.look(now);
        let reader = cx.hub.reader();
        let mut told = Pos::ZERO;
        match self.downward.fill(&reader) {
            Ok(caught_up) => self.is_behind = !caught_up,
            // Children read the log themselves, and say which of them cannot.
            Err(e) => {
                tracing::warn!(error = %with_causes(&e), "The log cannot be read for what goes down to children.");
                self.downward = Downward::new(reader.last());
                // What the old one had not come to may be for any of them.
                told = reader.last();
            }
        }
        let goal = self.downward.goal().max(told);
        let is_show = now >= self.shown_at + SHOW_EVERY_MS;
        let touched = std::mem::take(&mut self.touched);
        let is_for_all = is_show || now >= self.wake_at || goal != self.goal;
        self.goal = goal;
        if is_for_all {
            self.shown_at = if is_show { now } else { self.shown_at };
            self.wake_at = self.shown_at + SHOW_EVERY_MS;
        }
        // Most messages are of one child, and there may be thousands.
        let due: Vec<Address> =
            if is_for_all { self.children.keys().cloned().collect() } else { touched.into_iter().collect() };
        // All that they have by now is one job of the engine's.
        let (place, mut has) = (cx.hub.place().map_err(|_| End::Stop)?, Vec::new());
        for address in &due {
            let Some(child) = self.children.get_mut(address) else { continue };
            child.outbound.sender.on_log_grew(goal);
            child.outbound.sender.on_tick(now);
            let is_place = place.is_some() && has.len() < LAZY_NOTES;
            child.outbound.note_due(now, &reader, is_place.then_some(&mut has));
            let limit =
                PROGRESS_AFTER_MS.max(3 * cx.config.resend_after_ms).max(2 * child.outbound.sender.patience_ms());
            if child.outbound.sender.waiting_ms(now) > limit && child.greeting.is_none() {
                let why = Lost::no_progress();
                child.ask_for_hello(&cx, address, outlet, &why.text.clone(), why).await?;
            }
            if child.is_silent(&self.watch) {
                let told = "nothing was heard of this child";
                child.ask_for_hello(&cx, address, outlet, told, Lost::silent()).await?;
            }
            loop {
                match child.outbound.send_next(&cx, &reader, Some(&self.downward), outlet).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(Halt::End(end)) => return Err(end),
                    Err(Halt::Unnoted(e)) => {
                        child.ask_for_hello(&cx, address, outlet, &e.to_string(), e.into()).await?
                    }
                    Err(Halt::Unread(e)) => child.ask_for_hello(&cx, address, outlet, &e.to_string(), e.into()).await?,
                }
                break;
            }
            if now >= child.alive_at && child.outbound.session().is_some() {
                child.alive_at = now + cx.terms.alive_every_ms;
                let me = cx.hub.state(|s| Party { inc: s.me.inc, boot: s.me.boot });
                publish(outlet, cx.topic(Verb::UpAck, address), Word::Alive(Alive::of(me)).encode()).await?;
            }
            if is_show || !child.shown {
                child.shown = true;
                child.outbound.show(&mut child.view);
                cx.links.set(&child.view, child.heard);
            }
            self.wake_at = child.outbound.poll_timeout().map_or(self.wake_at, |at| self.wake_at.min(at));
        }
        if let Some(place) = place {
            place.note_lazily(&has);
        }
        let late: Vec<u64> = self.waiting.iter().filter(|(_, w)| w.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(w) = self.waiting.remove(&id) {
                let _ = w.reply.send(Err(AskError::Late));
            }
        }
        Ok(())
    }

    fn child(&mut self, address: &Address) -> Option<&mut Child> {
        if !self.children.contains_key(address) {
            if self.children.len() >= CHILDREN_MAX {
                return None;
            }
            let audience = Audience::Down(address.clone());
            let child = Child {
                outbound: Outbound::new(self.cx.address.clone(), self.cx.sender_terms(), audience),
                view: LinkView::new(address.clone(), Role::Down),
                heard: None,
                heard_ms: None,
                is_gone: false,
                greeting: None,
                has_left: false,
                next_hello: None,
                alive_at: 0,
                shown: false,
            };
            self.children.insert(address.clone(), child);
        }
        self.children.get_mut(address)
    }

    async fn take(&mut self, topic: &str, payload: Bytes, outlet: &Outlet, intake: &Intake) -> Result<(), End> {
        let cx = self.cx.clone();
        let Some((verb, address)) = topic::parse_link(&cx.config.root, topic).filter(|(v, _)| v.is_from_child()) else {
            cx.ignored(1);
            return Ok(());
        };
        if !address.is_child_of(&cx.address) {
            cx.ignored(1);
            return match driver::decode(&payload) {
                Ok(Message::Word(Word::Hello(hello))) if verb == Verb::Hello => {
                    turn_away(&cx, &address, &hello, outlet).await
                }
                _ => Ok(()),
            };
        }
        match verb {
            Verb::Up => {
                // Whoever is not known, as after a start, is told so there, if it is a frame at all.
                if let Some(child) = self.children.get_mut(&address) {
                    child.hear(cx.now());
                    child.view.received_frames += 1;
                    child.view.received_bytes += payload.len() as u64;
                }
                return intake.take(&address, &address, payload);
            }
            Verb::Answer => {
                if let Some((id, answer)) = ask::decode_answer(payload)
                    && self.waiting.get(&id).is_some_and(|w| w.child == address)
                    && let Some(w) = self.waiting.remove(&id)
                {
                    let _ = w.reply.send(answer); // the asker may have given up
                }
                return Ok(());
            }
            _ => {}
        }
        match driver::decode(&payload) {
            Ok(Message::Word(word)) => return self.hear(verb, address, word, outlet).await,
            Ok(Message::Frame(_)) => {}
            Err(e) => tracing::debug!(peer = %address, error = %e, "A message of a child does not decode."),
        }
        match self.children.get_mut(&address) {
            None => cx.ignored(1),
            Some(child) => child.view.bad_messages += 1,
        }
        Ok(())
    }

    /// What a child says of its session.
    async fn hear(&mut self, verb: Verb, address: Address, word: Word, outlet: &Outlet) -> Result<(), End> {
        let (cx, now) = (self.cx.clone(), self.cx.now());
        // Anybody may publish on a child's topics; a child is whoever says hello as one.
        let is_hello = verb == Verb::Hello && matches!(&word, Word::Hello(hello) if hello.address == address);
        if !is_hello && !self.children.contains_key(&address) {
            cx.ignored(1);
            return match (verb, word) {
                (Verb::DownAck, Word::Alive(alive)) => session_is_over(&cx, &address, alive.from, outlet).await,
                _ => Ok(()),
            };
        }
        self.touched.insert(address.clone());
        let Some(child) = self.child(&address) else { return Ok(()) };
        match (verb, word) {
            (Verb::DownAck, Word::Ack(ack)) => {
                child.hear(now);
                if child.outbound.on_ack(now, &ack) == Acked::Beyond {
                    let told = "the child acknowledged more than there is";
                    child.ask_for_hello(&cx, &address, outlet, told, Lost::because(told)).await?;
                }
            }
            (Verb::DownAck, Word::Alive(Alive { from: party, unheard, unheard_more })) => {
                if child.outbound.session().is_some_and(|s| s.party == party) {
                    child.hear(now);
                    child.view.unheard = unheard::believed(&address, unheard);
                    child.view.unheard_more = unheard_more;
                    child.shown = false;
                } else if child.greeting.is_none() {
                    session_is_over(&cx, &address, party, outlet).await?;
                }
            }
            (Verb::Hello, Word::Hello(hello)) if hello.address == address => self.greet(address, hello, now),
            (Verb::Hello, Word::Bye(party)) => {
                let holder = cx.hub.state(|s| s.peers.get(&address).and_then(|p| p.party));
                child.has_left |= child.greeting == Some(party);
                child.next_hello.take_if(|hello| hello.from == party);
                // The will of an older connection comes late; it is not about the present one.
                let is_asking = child.view.asking.as_ref().is_some_and(|a| a.inc == party.inc);
                if holder == Some(party) || is_asking {
                    child.is_gone = true;
                    child.view.asking = None;
                    child.end(&cx.hub, Stage::Away, Lost::because(LEFT));
                }
            }
            _ => child.view.bad_messages += 1,
        }
        Ok(())
    }

    /// Starts a handshake, or queues the hello behind the one that is under way with this child.
    fn greet(&mut self, address: Address, hello: Hello, now: Ms) {
        let (cx, minting, done) = (self.cx.clone(), self.minting.clone(), self.greeted_tx.clone());
        let greetings = self.greetings.clone();
        let Some(child) = self.child(&address) else { return };
        if child.greeting.is_some() {
            child.next_hello = Some(Box::new(hello));
            return;
        }
        // Nobody is kept waiting in memory: whoever finds no place says hello again, with a jitter.
        let Ok(permit) = greetings.try_acquire_owned() else { return };
        (child.greeting, child.has_left) = (Some(hello.from), false);
        let alive = !child.is_gone && child.heard_ms.is_some_and(|at| now.saturating_sub(at) < ALIVE_WITHIN_MS);
        let holder = Holder { alive };
        tokio::spawn(async move {
            let outcome = greet(&cx, &minting, holder, hello).await;
            drop(permit);
            let _ = done.send(Greeted { child: address, outcome }).await; // the driver has stopped
        });
    }

    async fn greeted(&mut self, greeted: Greeted, outlet: &Outlet) -> Result<(), End> {
        let (cx, now) = (self.cx.clone(), self.cx.now());
        let address = greeted.child;
        let Some(child) = self.child(&address) else { return Ok(()) };
        (child.greeting, child.shown) = (None, false);
        let word = match greeted.outcome {
            Ok(Greeting::Welcome { .. }) if child.has_left => {
                child.is_gone = true;
                child.end(&cx.hub, Stage::Away, Lost::because(LEFT));
                return self.greet_next(address, now);
            }
            Ok(Greeting::Welcome { hello, welcome, session }) => {
                child.hear(now);
                child.is_gone = false;
                (child.view.asking, child.view.refused_another) = (None, None);
                child.view.reconnects += u64::from(child.view.stage != Stage::Connecting);
                child.view.stage = Stage::Up;
                child.outbound.up(session, welcome.from, cx.hub.reader().last());
                tracing::info!(peer = %address, lease = welcome.lease, name = %hello.name, "A child has a session.");
                Word::Welcome(*welcome)
            }
            Ok(Greeting::Refuse { refuse, asking }) => {
                child.refused(&address, &refuse, asking);
                Word::Refuse(*refuse)
            }
            Err(Error::Stopping) => return Err(End::Stop),
            Err(e) => {
                child.view.last_reason = Some(e.into());
                return Ok(());
            }
        };
        publish(outlet, cx.topic(Verb::UpAck, &address), word.encode()).await?;
        self.greet_next(address, now)
    }

    /// Whoever has said hello meanwhile.
    fn greet_next(&mut self, address: Address, now: Ms) -> Result<(), End> {
        self.touched.insert(address.clone());
        if let Some(hello) = self.child(&address).and_then(|child| child.next_hello.take()) {
            self.greet(address, *hello, now);
        }
        Ok(())
    }

    async fn command(&mut self, command: Command, outlet: &Outlet) -> Result<(), End> {
        let is_there = |child| self.children.get(child).is_some_and(|c| c.outbound.session().is_some() && !c.is_gone);
        let Asked { child, target, body, within, reply } = match command {
            Command::Ask(asked) => asked,
            Command::Forget { child, reply } => {
                let is_away = !is_there(&child);
                if is_away {
                    self.children.remove(&child);
                    self.cx.links.remove(&child);
                }
                let _ = reply.send(is_away); // the asker may have given up
                return Ok(());
            }
        };
        let is_there = is_there(&child);
        let refusal = if !is_there {
            Some(AskError::Away(child.clone()))
        } else if self.waiting.len() >= OUTSTANDING_MAX {
            Some(AskError::Busy)
        } else {
            None
        };
        if let Some(e) = refusal {
            let _ = reply.send(Err(e)); // the asker may have given up
            return Ok(());
        }
        let left_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        self.questions = self.questions.wrapping_add(1);
        let id = self.questions;
        let topic = self.cx.topic(Verb::Ask, &child);
        let until = self.cx.now() + Ms::from(left_ms);
        self.wake_at = self.wake_at.min(until);
        self.waiting.insert(id, Waiting { child, reply, until });
        publish(outlet, topic, Question { id, left_ms, target, body }.encode()).await
    }
}

impl Child {
    fn hear(&mut self, now: Ms) {
        self.heard = Some(Instant::now());
        self.heard_ms = Some(now);
    }

    fn is_silent(&self, watch: &Watch) -> bool {
        let session = self.outbound.session().filter(|_| self.greeting.is_none());
        session.is_some_and(|s| watch.is_silent(self.heard_ms.unwrap_or_default(), s.alive_every_ms))
    }

    fn end(&mut self, hub: &Hub, stage: Stage, why: Lost) {
        self.outbound.leave(hub);
        self.view.stage = stage;
        (self.view.last_reason, self.view.refused_another) = (Some(why), None);
        (self.view.unheard, self.view.unheard_more) = (Vec::new(), 0);
        self.shown = false;
    }

    /// What is shown of a hello that got no session.
    fn refused(&mut self, address: &Address, refuse: &Refuse, asking: Asking) {
        let (reason, detail) = (refuse.reason, refuse.detail.clone());
        match (reason, &self.view.stage) {
            (Reason::Prove, _) => {}
            // The holder's session goes on.
            _ if self.outbound.session().is_some() => self.view.refused_another = Some(detail),
            // The child mends it and says hello again; and an old hello, which the broker kept, proves nothing.
            (Reason::Past | Reason::Forked, Stage::Connecting | Stage::Away) => self.view.stage = Stage::Hello,
            (_, stage) => {
                if !matches!(stage, Stage::Refused { reason: r, .. } if *r == reason) {
                    tracing::warn!(peer = %address, reason = reason.as_str(), "A child was refused.");
                }
                self.view.asking = (reason == Reason::Unenrolled).then_some(asking);
                self.view.stage = Stage::Refused { reason, detail };
            }
        }
    }

    /// Ends the session; the child begins a new one. What it is told has none of the causes: they may name files
    /// of this node.
    async fn ask_for_hello(
        &mut self,
        cx: &Context,
        address: &Address,
        outlet: &Outlet,
        told: &str,
        why: Lost,
    ) -> Result<(), End> {
        let Some(to) = self.outbound.session().map(|s| s.party.boot) else { return Ok(()) };
        let me = cx.hub.state(|s| Party { inc: s.me.inc, boot: s.me.boot });
        let refuse = Word::Refuse(Refuse::new(me, to, Reason::Unknown, told)).encode();
        self.end(&cx.hub, Stage::Hello, why);
        publish(outlet, cx.topic(Verb::UpAck, address), refuse).await
    }
}

async fn publish(outlet: &Outlet, topic: String, payload: impl Into<Bytes>) -> Result<(), End> {
    outlet.publish(topic, payload, false).await.map_err(End::again)
}

/// Nothing is kept of a node that is no child; it only hears why.
async fn turn_away(cx: &Context, address: &Address, hello: &Hello, outlet: &Outlet) -> Result<(), End> {
    let me = cx.hub.state(|s| s.me.clone());
    let answer = cx.with_own(&me, |own| handshake::on_hello(own, &cx.terms, None, Holder::default(), None, hello));
    // If the log does not read it hears nothing, and asks again.
    let Ok(OnHello::Refuse(refuse)) = answer else { return Ok(()) };
    publish(outlet, cx.topic(Verb::UpAck, address), Word::Refuse(*refuse).encode()).await
}

/// It believes in a session that there is none of, as after a copy of it was here and went, or after a start.
async fn session_is_over(cx: &Context, address: &Address, party: Party, outlet: &Outlet) -> Result<(), End> {
    let me = cx.hub.state(|s| Party { inc: s.me.inc, boot: s.me.boot });
    let refuse = Refuse::new(me, party.boot, Reason::Unknown, "this session is over");
    publish(outlet, cx.topic(Verb::UpAck, address), Word::Refuse(refuse).encode()).await
}

/// Asks the pure handshake, mints if it demands it, and commits what it says.
async fn greet(cx: &Context, minting: &Semaphore, holder: Holder, hello: Hello) -> Result<Greeting, Error> {
    let mut minted_for: Option<LogId> = None;
    let mut turn = None;
    // Each round but the last mints, one start further back each time.
    for _ in 0..=citybrain_shared::limits::BOOTS_KEPT + 1 {
        let (me, peer) = cx.hub.state(|s| (s.me.clone(), s.peers.get(&hello.address).cloned()));
        let answer =
            cx.with_own(&me, |own| handshake::on_hello(own, &cx.terms, peer.as_ref(), holder, minted_for, &hello))?;
        match answer {
            OnHello::Refuse(refuse) => return Ok(Greeting::Refuse { refuse, asking: asking_of(&hello) }),
            OnHello::Welcome { notes, welcome } => {
                // Those above may know one as gone that this folder has never met and another box here has: by the word
                // of that one.
                let has_met = peer.as_ref().is_some_and(|p| p.party.is_some());
                if !has_met && hello.peer.is_some() || peer.as_ref().is_some_and(|p| p.retired) {
                    let id = format!("{:032x}", random_u128());
                    let ticket = cx.hub.offer(vec![engine::subtree(&cx.address, &hello.address, false, &id)]).await?;
                    engine::wait(ticket).await?;
                }
                cx.commit(notes, Haste::Now).await?;
                let session = handshake::session_of(peer.as_ref(), &hello, &welcome, &cx.terms);
                return Ok(Greeting::Welcome { hello: Box::new(hello), welcome, session });
            }
            // Look again once it is our turn: another child may have shown the same.
            OnHello::Mint(_) if turn.is_none() => {
                turn = Some(minting.acquire().await.map_err(|_| Error::Stopping)?);
            }
            OnHello::Mint(mint) => {
                cx.mint(&mint).await?;
                minted_for = Some(mint.held);
            }
        }
    }
    let me = cx.hub.state(|s| Party { inc: s.me.inc, boot: s.me.boot });
    let detail = "this node found no common past with the child";
    let refuse = Refuse { answers: hello.id, ..Refuse::new(me, hello.from.boot, Reason::Unavailable, detail) };
    Ok(Greeting::Refuse { refuse: Box::new(refuse), asking: asking_of(&hello) })
}

fn asking_of(hello: &Hello) -> Asking {
    Asking { inc: hello.from.inc, name: hello.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_may_run_on_any_thread() {
        fn is_send<T: Send>(_: impl FnOnce(Driver, super::super::uplink::Uplink, watch::Receiver<bool>) -> T) {}
        is_send(|driver, _, stop| driver.run(stop));
        is_send(|_, uplink, stop| uplink.run(stop));
    }

    #[test]
    fn a_parent_listens_to_what_children_say_and_to_nothing_else() {
        let wanted = ["r/hello/#", "r/up/#", "r/downack/#", "r/answer/#"];
        assert_eq!(filters("r"), wanted);
    }
}
