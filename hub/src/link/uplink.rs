//! The driver of the link to the parent: this node as a client of its parent's broker.
//!
//! One task owns the link; `select!` over pipe, log, timer and shutdown; facts into the machines,
//! effects out of them, notes before frames.

use super::ask::{self, AskError, Handler, OUTSTANDING_MAX, Question};
use super::downlinks::Downlinks;
use super::driver::{self, Backoff, Context, End, Intake, SHOW_EVERY_MS, Watch};
use super::frames::Audience;
use super::handshake::{self, OnRefuse, OnWelcome, Saying};
use super::outbound::{Halt, Outbound};
use super::pipe::{self, Event, Outlet, Pipe};
use super::sender::{Acked, Ms};
use super::unheard;
use super::view::{LinkView, Lost, Role, Stage};
use crate::broker::Broker;
use crate::engine::{Error, Haste};
use crate::state::Me;
use bytes::Bytes;
use citybrain_shared::Address;
use citybrain_shared::limits::BOOTS_KEPT;
use citybrain_shared::topic::{self, Verb};
use citybrain_shared::wire::{Ack, Alive, Hello, Message, Party, Refuse, Welcome, Word};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// A hello is repeated after so long without an answer, ms.
const HELLO_AFTER_MS: Ms = 2_000;
/// Two hellos are so far apart at least, ms: each is a session at the parent, with a commit of its own. One that shows
/// what the parent has asked for does not wait.
const HELLOS_APART_MS: Ms = 100;
/// After so many hellos without an answer, or sessions without any progress, the connection is
/// built anew: it may be open at this end only.
const HELLOS_MAX: u32 = 3;
/// Frames under way for so long without any acknowledgement end the session, ms.
const PROGRESS_AFTER_MS: Ms = 5_000;
/// A broker that does not answer, ms.
const CONNECT_WITHIN_MS: u64 = 10_000;

/// A bye on its way into the pipe: a node that stops waits no longer for a connection that is busy.
const BYE_WITHIN: Duration = Duration::from_millis(200);
/// From the pipe to the socket: the connection ends with the pipe, and nothing says when it is empty.
const BYE_LEAVES_WITHIN: Duration = Duration::from_millis(20);

/// Makes a pipe to the parent's broker: client id, will (topic, payload), filters.
pub(crate) type Dial = Box<dyn FnMut(String, (String, Vec<u8>), Vec<String>) -> Pipe + Send>;

pub struct Uplink {
    cx: Context,
    parent: Address,
    dial: Dial,
    answer: Handler,
    /// To pass on questions that are for somebody further down.
    downlinks: Option<Downlinks>,
    asks: Arc<Semaphore>,
}

impl Uplink {
    /// `downlinks`: this node as a parent, if it may have children.
    pub fn new(cx: Context, parent: Address, broker: Broker, answer: Handler, downlinks: Option<Downlinks>) -> Uplink {
        let dial = move |id, will, filters| pipe::connect(&broker, id, Some(will), filters);
        Uplink::over(cx, parent, Box::new(dial), answer, downlinks)
    }

    /// As [`Uplink::new`], over any pipe.
    pub fn over(cx: Context, parent: Address, dial: Dial, answer: Handler, downlinks: Option<Downlinks>) -> Uplink {
        Uplink { cx, parent, dial, answer, downlinks, asks: Arc::new(Semaphore::new(OUTSTANDING_MAX)) }
    }

    /// Runs until `stop` turns true or its sender is gone.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut link = Link::new(self);
        let mut backoff = Backoff::default();
        while !*stop.borrow() {
            match link.connection(&mut stop, &mut backoff).await {
                End::Stop => return,
                End::Again(why) => link.ended(why),
            }
            let wait = Duration::from_millis(backoff.next_ms());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = driver::stopped(&mut stop) => return,
            }
        }
    }
}

/// The log may be readable again at the next connection.
fn unreadable(e: Error) -> End {
    End::again(e)
}

struct Link {
    up: Uplink,
    cx: Arc<Context>,
    outbound: Outbound,
    view: LinkView,
    heard: Option<std::time::Instant>,
    heard_ms: Ms,
    watch: Watch,
    me: Me,
    saying: Saying,
    said: Option<Hello>,
    awaiting: bool,
    /// When to say hello, if not in session.
    hello_at: Ms,
    /// When the last one was said.
    said_at: Ms,
    hellos: u32,
    stalls: u32,
    refusals: Backoff,
    /// Sessions in a row that ended before anything was acknowledged in them.
    bounces: u32,
    /// When to say that this node is there.
    alive_at: Ms,
    /// When to look whether others below are not heard than the parent was told.
    look_at: Ms,
    /// Those that it was told, and how many more.
    told: (Vec<Address>, u64),
    shown_at: Ms,
}

impl Link {
    fn new(up: Uplink) -> Link {
        Link {
            outbound: Outbound::new(up.cx.address.clone(), up.cx.sender_terms(), Audience::Up(up.parent.clone())),
            view: LinkView::new(up.parent.clone(), Role::Up),
            heard: None,
            heard_ms: 0,
            watch: Watch::default(),
            me: Me::default(),
            saying: Saying::default(),
            said: None,
            awaiting: false,
            hello_at: 0,
            said_at: 0,
            hellos: 0,
            stalls: 0,
            refusals: Backoff::default(),
            bounces: 0,
            alive_at: 0,
            look_at: 0,
            told: Default::default(),
            shown_at: 0,
            cx: Arc::new(up.cx.clone()),
            up,
        }
    }

    fn cx(&self) -> Arc<Context> {
        self.cx.clone()
    }

    fn dial(&mut self) -> Pipe {
        let cx = self.cx();
        self.me = cx.hub.state(|s| s.me.clone());
        let party = Party { inc: self.me.inc, boot: self.me.boot };
        let own = &cx.address;
        let filters = [Verb::UpAck, Verb::Down, Verb::Ask].map(|v| cx.topic(v, own)).to_vec();
        let will = (cx.topic(Verb::Hello, own), Word::Bye(party).encode());
        (self.up.dial)(format!("{own}@{:x}", self.me.boot.nonce), will, filters)
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self, stop: &mut watch::Receiver<bool>, backoff: &mut Backoff) -> End {
        self.stage(Stage::Connecting);
        let cx = self.cx();
        let Pipe { outlet, mut inlet } = self.dial();
        let within = Duration::from_millis(CONNECT_WITHIN_MS);
        tokio::select! {
            e = tokio::time::timeout(within, inlet.recv()) => match e {
                Ok(Event::Connected) => {}
                Ok(Event::Disconnected(why)) => return End::Again(why),
                Ok(Event::Message { .. } | Event::Dropped(_)) | Err(_) => return End::again(Lost::because("the broker does not answer")),
            },
            () = driver::stopped(stop) => return End::Stop,
        }
        let (refuse, mut refused) = mpsc::channel(1);
        let intake = Intake::new(&cx, &outlet, Verb::DownAck, Some(refuse));
        let mut committed = cx.hub.committed();
        let reader = cx.hub.reader();
        (self.hellos, self.stalls, self.hello_at) = (0, 0, cx.now());
        self.outbound.down();
        loop {
            let now = cx.now();
            if let Err(end) = self.tick(now, &outlet).await {
                return end;
            }
            self.outbound.sender.on_log_grew(*committed.borrow_and_update());
            if let Err(end) = self.send(&outlet, &reader).await {
                return end;
            }
            if self.view.stage == Stage::Up {
                backoff.reset();
            }
            tokio::select! {
                event = inlet.recv() => match event {
                    Event::Message { topic, payload } => {
                        if let Err(end) = self.take(&topic, payload, &outlet, &intake).await {
                            return end;
                        }
                    }
                    Event::Disconnected(why) => return End::Again(why),
                    Event::Dropped(n) => cx.ignored(n),
                    Event::Connected => {}
                },
                r = committed.changed() => if r.is_err() { return End::Stop },
                // Out of session it is of one that has not begun here, or is over: the hello under way settles it.
                Some(why) = refused.recv() => if self.outbound.session().is_some() {
                    self.bounced(cx.now(), Lost::because(why));
                },
                () = tokio::time::sleep_until(cx.at(self.deadline(now))) => {}
                () = driver::stopped(stop) => {
                    let notes = self.outbound.notes(&reader);
                    if !notes.is_empty() {
                        // The engine ends after the links; what it refuses is only sent again.
                        let _ = cx.hub.note(notes, Haste::Lazy).await;
                    }
                    let party = Party { inc: self.me.inc, boot: self.me.boot };
                    let bye = outlet.publish(cx.topic(Verb::Hello, &cx.address), Word::Bye(party).encode(), true);
                    // A broker that does not take it publishes the will instead.
                    let _ = tokio::time::timeout(BYE_WITHIN, bye).await;
                    tokio::time::sleep(BYE_LEAVES_WITHIN).await;
                    return End::Stop;
                }
            }
        }
    }

    fn deadline(&self, now: Ms) -> Ms {
        let show = self.shown_at + SHOW_EVERY_MS;
        let hello = self.outbound.session().is_none().then_some(self.hello_at);
        [Some(show.max(now + 1)), self.outbound.poll_timeout(), hello].into_iter().flatten().min().unwrap_or(now)
    }

    /// Timers.
    async fn tick(&mut self, now: Ms, outlet: &Outlet) -> Result<(), End> {
        self.outbound.sender.on_tick(now);
        self.watch.look(now);
        let limit = PROGRESS_AFTER_MS
            .max(2 * self.cx().config.resend_after_ms)
            .max(2 * self.outbound.sender.patience_ms())
            .max((3.0 * self.outbound.sender.rtt_ms().unwrap_or(0.0)) as Ms);
        if self.outbound.sender.waiting_ms(now) > limit {
            self.stalls += 1;
            if self.stalls >= HELLOS_MAX {
                let why = "frames are not acknowledged, session after session";
                return Err(End::again(Lost::because(why)));
            }
            self.again(now, Lost::no_progress());
        }
        if self.outbound.session().is_some_and(|s| self.watch.is_silent(self.heard_ms, s.alive_every_ms)) {
            self.again(now, Lost::silent());
        }
        match self.cx.hub.place().map_err(|_| End::Stop)? {
            Some(place) => {
                let mut notes = Vec::new();
                self.outbound.note_due(now, &self.cx.hub.reader(), Some(&mut notes));
                place.note_lazily(&notes);
            }
            None => self.outbound.note_due(now, &self.cx.hub.reader(), None),
        }
        if self.outbound.session().is_none() && now >= self.hello_at {
            if self.awaiting && self.hellos >= HELLOS_MAX {
                self.awaiting = false;
                return Err(End::again(Lost::because("the parent does not answer")));
            }
            self.hello(now, outlet).await?;
        }
        // A node that shows itself wakes often enough for this.
        if self.outbound.session().is_some() && now >= self.alive_at.min(self.look_at) {
            self.alive(now, outlet).await?;
        }
        if now >= self.shown_at + SHOW_EVERY_MS {
            self.show(now);
        }
        Ok(())
    }

    /// Says that this node is there, if it is time for that, or if others below are not heard than the parent was told.
    async fn alive(&mut self, now: Ms, outlet: &Outlet) -> Result<(), End> {
        let links = self.cx.links.links();
        let (unheard, unheard_more) = {
            let now_us = chrono::Utc::now().timestamp_micros();
            self.cx.hub.state(|s| unheard::told(s, &self.cx.address, &links, now_us))
        };
        self.look_at = now + unheard::apart_ms(unheard.len());
        let tell = (unheard.iter().map(|u| u.node.clone()).collect(), unheard_more);
        if now < self.alive_at && tell == self.told {
            return Ok(());
        }
        (self.told, self.alive_at) = (tell, now + self.cx.terms.alive_every_ms);
        let from = Party { inc: self.me.inc, boot: self.me.boot };
        let topic = self.cx.topic(Verb::DownAck, &self.cx.address);
        let said = outlet.publish(topic, Word::Alive(Alive { from, unheard, unheard_more }).encode(), false).await;
        said.map_err(End::again)
    }

    /// Ends the session, if any, and has a hello said as soon as may be.
    fn again(&mut self, now: Ms, why: impl Into<Lost>) {
        self.outbound.leave(&self.cx.hub);
        self.awaiting = false;
        self.hello_at = now.max(self.said_at + HELLOS_APART_MS);
        self.view.last_reason = Some(why.into().or_login(self.view.last_reason.take()));
    }

    /// As `again`; from the second time in a row on, not at once.
    fn bounced(&mut self, now: Ms, why: impl Into<Lost>) {
        self.again(now, why);
        self.bounces += 1;
        if self.bounces > 1 {
            self.hello_at = self.hello_at.max(now + self.refusals.next_ms());
        }
    }

    async fn hello(&mut self, now: Ms, outlet: &Outlet) -> Result<(), End> {
        let cx = self.cx();
        self.hellos += 1;
        self.saying.id += 1;
        let (me, peers) = cx.hub.state(|s| {
            let mut parents = s.peers.clone();
            parents.retain(|a, _| a.depth() < cx.address.depth());
            (s.me.clone(), parents)
        });
        self.me = me;
        let hello = cx
            .with_own(&self.me, |own| handshake::hello(own, &cx.terms, &self.up.parent, &peers, &self.saying))
            .map_err(unreadable)?;
        let message = Word::Hello(hello.clone()).encode();
        self.said = Some(hello);
        self.awaiting = true;
        (self.said_at, self.hello_at) = (now, now + HELLO_AFTER_MS);
        if !matches!(self.view.stage, Stage::Refused { .. }) {
            self.stage(Stage::Hello);
        }
        let topic = cx.topic(Verb::Hello, &cx.address);
        outlet.publish(topic, message, true).await.map_err(End::again)
    }

    async fn send(&mut self, outlet: &Outlet, reader: &crate::log::Reader) -> Result<(), End> {
        let cx = self.cx();
        loop {
            match self.outbound.send_next(&cx, reader, None, outlet).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Halt::End(end)) => return Err(end),
                Err(Halt::Unnoted(e)) => return Err(End::again(e)),
                Err(Halt::Unread(e)) => {
                    self.again(cx.now(), e);
                    self.hello_at = cx.now() + self.refusals.next_ms();
                    return Ok(());
                }
            }
        }
    }

    async fn take(&mut self, topic: &str, payload: Bytes, outlet: &Outlet, intake: &Intake) -> Result<(), End> {
        let cx = self.cx();
        (self.heard, self.heard_ms) = (Some(std::time::Instant::now()), cx.now());
        let verb = topic::parse_link(&cx.config.root, topic).filter(|(_, child)| *child == cx.address).map(|(v, _)| v);
        match verb {
            Some(Verb::Down) => {
                self.view.received_frames += 1;
                self.view.received_bytes += payload.len() as u64;
                intake.take(&self.up.parent, &cx.address, payload)
            }
            Some(Verb::Ask) => {
                // Who has no session does not answer: the question is for whoever holds the address.
                if self.outbound.session().is_some() {
                    self.ask(payload, outlet);
                }
                Ok(())
            }
            Some(Verb::UpAck) => self.hear(&payload).await,
            _ => {
                self.view.bad_messages += 1;
                Ok(())
            }
        }
    }

    /// What the parent says of the session.
    async fn hear(&mut self, payload: &[u8]) -> Result<(), End> {
        let Ok(Message::Word(word)) = driver::decode(payload) else {
            self.view.bad_messages += 1;
            return Ok(());
        };
        match word {
            Word::Ack(ack) => self.on_ack(&ack),
            Word::Welcome(welcome) => return self.on_welcome(&welcome).await,
            Word::Refuse(refuse) => return self.on_refuse(refuse).await,
            Word::Alive(alive) => self.on_alive(alive.from),
            Word::Hello(_) | Word::Bye(_) => self.view.bad_messages += 1,
        }
        Ok(())
    }

    fn on_ack(&mut self, ack: &Ack) {
        let now = self.cx.now();
        match self.outbound.on_ack(now, ack) {
            Acked::Progress => (self.stalls, self.bounces) = (0, 0),
            Acked::Nothing => {}
            Acked::Beyond => self.again(now, Lost::because("the parent acknowledged more than there is")),
        }
    }

    /// That it was heard is all it is for, if it is the one in session.
    fn on_alive(&mut self, party: Party) {
        if self.outbound.session().is_some_and(|s| s.party != party) {
            self.again(self.cx.now(), Lost::because("the parent has started anew"));
        }
    }

    async fn on_welcome(&mut self, welcome: &Welcome) -> Result<(), End> {
        let (cx, now) = (self.cx(), self.cx.now());
        // To a hello that was given up: the next one is said when it is time.
        if !self.awaiting && self.outbound.session().is_none() {
            return Ok(());
        }
        let Some(said) = &self.said else { return Ok(()) };
        let (me, peer) = cx.hub.state(|s| (s.me.clone(), s.peers.get(&self.up.parent).cloned()));
        self.me = me;
        let outcome = cx.with_own(&self.me, |own| {
            let (terms, parent) = (&cx.terms, &self.up.parent);
            handshake::on_welcome(own, terms, parent, peer.as_ref(), said, self.awaiting, welcome)
        });
        match outcome.map_err(unreadable)? {
            OnWelcome::Ignore => {}
            OnWelcome::Again(why) => {
                let wait = if self.awaiting { self.refusals.next_ms() } else { 0 };
                self.again(now, Lost::because(why));
                self.hello_at = self.hello_at.max(now + wait);
            }
            OnWelcome::Up { notes, session } => {
                cx.commit(notes, Haste::Lazy).await.map_err(End::again)?;
                self.saying = Saying { id: self.saying.id, ..Saying::default() };
                // With the session the parent hears who below is not heard.
                self.alive_at = now;
                (self.awaiting, self.hellos) = (false, 0);
                self.refusals.reset();
                let party = Party { inc: self.me.inc, boot: self.me.boot };
                self.outbound.up(session, party, cx.hub.reader().last());
                self.stage(Stage::Up);
                tracing::info!(peer = %self.up.parent, lease = welcome.lease, "The link to the parent is up.");
            }
        }
        Ok(())
    }

    async fn on_refuse(&mut self, refuse: Refuse) -> Result<(), End> {
        let (cx, now) = (self.cx(), self.cx.now());
        let Some(said) = &self.said else { return Ok(()) };
        // To a hello that was given up, as in `on_welcome`.
        if refuse.answers != 0 && !self.awaiting && self.outbound.session().is_none() {
            return Ok(());
        }
        let outcome = cx.with_own(&self.me, |own| handshake::on_refuse(own, said, self.awaiting, &refuse));
        match outcome.map_err(unreadable)? {
            OnRefuse::Ignore => {}
            OnRefuse::Again => {
                // What a parent that is back finds wrong with an old hello says nothing of this node.
                let why = if refuse.answers == 0 { &refuse.detail } else { handshake::ANSWERED_BEFORE };
                self.bounced(now, Lost::because(why));
            }
            OnRefuse::Prove(mut at) => {
                at.truncate(BOOTS_KEPT);
                self.saying.prove = at;
                self.again(now, Lost::because(refuse.detail));
                self.hello_at = now;
                self.hellos = self.hellos.saturating_sub(1);
            }
            OnRefuse::Mint(mint) => {
                cx.mint(&mint).await.map_err(End::again)?;
                self.saying.minted_for = Some(mint.held);
                self.again(now, Lost::because(refuse.detail));
                // Should it not be enough, the next try is not at once.
                self.hello_at = now + self.refusals.next_ms();
            }
            OnRefuse::Wait => {
                self.again(now, Lost::because(refuse.detail.clone()));
                self.hello_at = now + self.refusals.next_ms().max(500);
                self.hellos = 0;
                let stage = Stage::Refused { reason: refuse.reason, detail: refuse.detail };
                if self.view.stage != stage {
                    tracing::warn!(peer = %self.up.parent, reason = refuse.reason.as_str(), "The parent refuses this node.");
                }
                self.stage(stage);
            }
        }
        Ok(())
    }

    fn ask(&mut self, payload: Bytes, outlet: &Outlet) {
        let Some(q) = Question::decode(payload) else {
            self.view.bad_messages += 1;
            return;
        };
        let cx = self.cx();
        let (outlet, handler, downlinks) = (outlet.clone(), self.up.answer.clone(), self.up.downlinks.clone());
        // Too many: the asker hears nothing and gives up at its deadline.
        let Ok(permit) = self.up.asks.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _permit = permit;
            let left = Duration::from_millis(q.left_ms.into());
            let answer = if q.target == cx.address {
                tokio::time::timeout(left, handler(q.body)).await.map_err(|_| AskError::Late)
            } else if let Some(d) = downlinks {
                d.ask(&q.target, q.body, left).await
            } else {
                Err(AskError::NotBelow(q.target))
            };
            // The connection may be gone; the asker's deadline covers that.
            let _ = outlet.publish(cx.topic(Verb::Answer, &cx.address), ask::encode_answer(q.id, &answer), false).await;
        });
    }

    fn ended(&mut self, why: Lost) {
        self.outbound.leave(&self.cx.hub);
        self.awaiting = false;
        self.view.reconnects += 1;
        tracing::debug!(peer = %self.up.parent, reason = %why.text, "The connection to the parent's broker ended.");
        self.view.last_reason = Some(why.or_login(self.view.last_reason.take()));
        // Also when it was connecting before: the newest reason is the one that counts.
        self.view.stage = Stage::Connecting;
        self.show(self.cx().now());
    }

    fn stage(&mut self, stage: Stage) {
        if self.view.stage != stage || self.shown_at == 0 {
            self.view.stage = stage;
            self.show(self.cx().now());
        }
    }

    fn show(&mut self, now: Ms) {
        self.shown_at = now;
        self.outbound.show(&mut self.view);
        self.cx().links.set(&self.view, self.heard);
    }
}
