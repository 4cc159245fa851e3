//! Packets that come in.

use super::super::local::Full;
use super::super::packet::control::{Disconnect, Subscribe, Unsubscribe};
use super::super::packet::publish::In;
use super::super::packet::{Ack, Fault, Head, LONG, Version, kind, put_ack, put_pingresp, reason};
use super::super::route::{CHUNK_DELIVERIES, live_message};
use super::super::{Publish, Taken, now_us};
use super::{After, Answer, Connection, End};
use crate::engine::Offered;
use crate::meta;
use crate::note::Note;
use bytes::{Buf, Bytes};
use citybrain_shared::limits::DEAD_LETTER_BYTES_MAX;
use citybrain_shared::record::Draft;
use citybrain_shared::topic;

/// Packets taken before others have their turn, unless they make [`CHUNK_DELIVERIES`] before. So many publishes fit into the inbox of a subscriber
/// that reads.
const PACKETS_AT_ONCE: usize = 512;

/// Publishes of a client that may wait for room in the engine's queues while it is read on, so that what is urgent
/// behind them comes past them: as many as it may have under way unless the file says otherwise.
const WAITING_MAX: usize = 1024;
/// Bytes of their topics and payloads, with those that are taken at once: by an alias a topic of 64 KiB costs its
/// sender nine bytes, and a full queue makes a connection no larger.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Topic aliases that a client may set.
pub(super) const ALIASES_MAX: u16 = 32;

const NO_TOPIC: Fault = Fault::malformed("a topic that is none");

/// An oversized publish: its first bytes are kept for the dead-letter list, the rest is read and
/// dropped. Only 3.1.1 gets this: it has no word for "too large", and a client whose connection is
/// closed would send the same again for ever.
pub(super) struct Skip {
    left: usize,
    size: usize,
    flags: u8,
    kept: Vec<u8>,
}

impl Connection<'_> {
    /// Takes whole packets from the input until there is none or the reading must stop; then offers
    /// what they made. True if there was any.
    pub(super) fn take_packets(&mut self) -> Result<bool, End> {
        let mut input = std::mem::take(&mut self.input);
        let (mut at, mut taken) = (0, 0);
        self.deliveries = 0;
        self.leftover = false;
        self.after_held = false;
        let done = loop {
            if self.skip.is_some() {
                match self.skip_on(&input[at..]) {
                    Ok(bytes) => at += bytes,
                    Err(fault) => break Err(fault.into()),
                }
                if self.skip.is_some() {
                    break Ok(());
                }
            }
            if taken == PACKETS_AT_ONCE || self.must_stop() {
                self.leftover = at < input.len();
                break Ok(());
            }
            let rest = &input[at..];
            if rest.first().is_some_and(|first| !kind::is_clients(first >> 4)) {
                break Err(Fault::protocol("a packet that no client may send").into());
            }
            let head = match Head::parse(rest) {
                Ok(Some(head)) if self.tongue.version == Version::V5 && !head.is_shortest() => {
                    break Err(LONG.into());
                }
                Ok(Some(head)) => head,
                Ok(None) => break Ok(()),
                Err(fault) => break Err(End::Fault(fault)),
            };
            if head.total_bytes() > self.packet_bytes_max || head.total_bytes() > self.door.broker.packet_bytes_max {
                match self.is_oversized(&head, rest) {
                    None => break Ok(()),
                    Some(false) => {}
                    Some(true) => {
                        if let Err(end) = self.refuse_oversized(&head, &rest[head.head_bytes..]) {
                            break Err(end);
                        }
                        at += head.head_bytes;
                        continue;
                    }
                }
            }
            let Some(body) = rest.get(head.head_bytes..head.total_bytes()) else { break Ok(()) };
            // What the client published before it subscribes is retained by then, and no news.
            if head.kind == kind::SUBSCRIBE && !(self.drafts.is_empty() && self.held.is_empty()) {
                self.leftover = true;
                self.after_held = true;
                break Ok(());
            }
            at += head.total_bytes();
            taken += 1;
            if let Err(end) = self.take_packet(&head, body) {
                break Err(end);
            }
        };
        input.advance(at);
        self.input = input;
        self.offer_batch();
        self.batch_bytes = 0;
        done.map(|()| at > 0)
    }

    fn must_stop(&self) -> bool {
        self.is_held_up() || self.deliveries >= CHUNK_DELIVERIES || self.publish_pace.wait_until(self.heard).is_some()
    }

    /// Of what was taken too much is under way for more to be.
    pub(super) fn is_held_up(&self) -> bool {
        let waiting = self.held.waiting();
        self.handing_on.is_some()
            || self.asks_more
            || self.notes.waits_with(|after| matches!(after, After::Asked(_)))
            || self.held.len() + self.answers.len() >= usize::from(self.door.broker.receive_maximum)
            || waiting.records + self.drafts.len() >= WAITING_MAX
            // What is urgent, or has no answer, leaves a place here behind what waits.
            || self.held.offers() >= WAITING_MAX
            || waiting.bytes + self.batch_bytes >= WAITING_BYTES_MAX
    }

    /// Puts a draft to those that are offered next. What is urgent does not wait with what is not; and what a
    /// node without room takes is not refused with what it does not.
    pub(super) fn put_draft(&mut self, draft: Draft) {
        let offered = Offered::from(draft);
        let core = &self.door.core;
        let is_apart = |last: &Offered| {
            last.lane() != offered.lane() || core.is_short() && last.lets_log_go() != offered.lets_log_go()
        };
        if self.drafts.last().is_some_and(is_apart) {
            self.offer_batch();
        }
        self.drafts.push(offered);
    }

    fn offer_batch(&mut self) {
        let (drafts, answers) = (std::mem::take(&mut self.drafts), std::mem::take(&mut self.answers));
        self.held.push(&*self.door.core, drafts, answers);
    }

    /// A packet above the common limit: may it be, as a link message? `None`: its topic is not here yet.
    fn is_oversized(&self, head: &Head, packet: &[u8]) -> Option<bool> {
        if head.kind != kind::PUBLISH || head.total_bytes() > self.packet_bytes_max {
            return Some(true);
        }
        let body = &packet[head.head_bytes..];
        let root = self.door.link.root.as_bytes();
        let start = body.get(2..2 + root.len() + 1)?;
        Some(!(start.starts_with(root) && start[root.len()] == b'/'))
    }

    fn refuse_oversized(&mut self, head: &Head, body: &[u8]) -> Result<(), End> {
        self.door.counters.oversized.add(1);
        let too_large = Fault { reason: reason::TOO_LARGE, what: "a packet above the limit" };
        if head.kind != kind::PUBLISH {
            return Err(End::Fault(too_large));
        }
        if self.tongue.version == Version::V4 {
            self.skip =
                Some(Skip { left: head.body_bytes, size: head.body_bytes, flags: head.flags, kept: Vec::new() });
            return Ok(());
        }
        let kept = &body[..body.len().min(DEAD_LETTER_BYTES_MAX)];
        // What else is wrong with it may be behind what is here.
        let _ = self.refuse_large(head.body_bytes, kept, head.flags);
        Err(End::Fault(too_large))
    }

    /// Swallows what belongs to the oversized publish; how much that is.
    ///
    /// # Errors
    /// All of it is here, and it is malformed besides.
    fn skip_on(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let Some(skip) = &mut self.skip else { return Ok(0) };
        let n = skip.left.min(bytes.len());
        // The topic may be 64 KiB; what is kept is enough to have it, its id and some payload.
        let keep = (topic::BYTES_MAX + DEAD_LETTER_BYTES_MAX).saturating_sub(skip.kept.len()).min(n);
        skip.kept.extend_from_slice(&bytes[..keep]);
        skip.left -= n;
        if skip.left == 0
            && let Some(skip) = self.skip.take()
            && let Some(id) = self.refuse_large(skip.size, &skip.kept, skip.flags)?
        {
            let kind = if skip.flags & 4 != 0 { kind::PUBREC } else { kind::PUBACK };
            self.held.take(id);
            self.answers.push(Answer { kind, id, reason: reason::QUOTA, stands: false });
        }
        Ok(n)
    }

    /// The dead letter of an oversized publish; its packet id, if it has one.
    ///
    /// # Errors
    /// What is wrong with it besides.
    fn refuse_large(&mut self, size: usize, start: &[u8], flags: u8) -> Result<Option<u16>, Fault> {
        let publish = In::parse(self.tongue.version, flags, start);
        let (topic, payload) = publish.as_ref().map_or(("", start), |p| (p.topic, p.payload));
        let limit = self.door.broker.packet_bytes_max;
        let detail =
            format!("the packet has {size} bytes, the front door takes {limit}; send less or raise `packet_bytes_max`");
        let mut letter =
            crate::note::DeadLetter::new("too-large", detail, format!("mqtt:{}", self.client), topic, payload);
        letter.payload_bytes = (size - (start.len() - payload.len()).min(size)) as u64;
        self.put_draft(Note::DeadLetter(letter).draft());
        let publish = publish?;
        topic::check_topic(publish.topic).map_err(|_| NO_TOPIC)?;
        Ok((publish.id > 0).then_some(publish.id))
    }

    fn take_packet(&mut self, head: &Head, body: &[u8]) -> Result<(), End> {
        match head.kind {
            kind::PUBLISH => self.publish(head.flags, body),
            kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
                let ack = Ack::parse(self.tongue.version, head.kind, body)?;
                Ok(self.acknowledged(head.kind, ack)?)
            }
            kind::SUBSCRIBE => self.subscribe(Subscribe::parse(self.tongue.version, body)?),
            kind::UNSUBSCRIBE => self.unsubscribe(Unsubscribe::parse(self.tongue.version, body)?),
            kind::PINGREQ if body.is_empty() => {
                put_pingresp(&mut self.output);
                Ok(())
            }
            kind::DISCONNECT => Err(self.disconnect(body)?),
            kind::AUTH if self.tongue.version == Version::V5 => {
                Err(Fault::protocol("AUTH without an authentication method in CONNECT").into())
            }
            kind::CONNECT => Err(Fault::protocol("a second CONNECT").into()),
            _ => Err(Fault::malformed("a packet that its protocol version does not have").into()),
        }
    }

    fn disconnect(&mut self, body: &[u8]) -> Result<End, End> {
        if self.tongue.version == Version::V4 {
            return if body.is_empty() {
                Ok(End::Said { will: false })
            } else {
                Err(Fault::malformed("bytes behind DISCONNECT").into())
            };
        }
        let d = Disconnect::parse(body)?;
        if let Some(s) = d.expiry_s {
            if !self.asked_to_last && s > 0 {
                return Err(Fault::protocol("a session that ends with its connection cannot be made to last").into());
            }
            self.expiry_s = s.min(self.door.broker.session_expiry_s_max);
        }
        Ok(End::Said { will: d.reason != 0 })
    }

    fn publish(&mut self, flags: u8, body: &[u8]) -> Result<(), End> {
        let p = In::parse(self.tongue.version, flags, body)?;
        self.publish_pace.take(1, self.heard);
        let counters = &self.door.counters;
        [&counters.publishes_qos0, &counters.publishes_qos1, &counters.publishes_qos2][usize::from(p.qos)].add(1);
        let known;
        let topic = match p.properties.alias {
            None if p.topic.is_empty() => return Err(Fault::protocol("neither a topic nor an alias of one").into()),
            None => p.topic,
            Some(alias) => {
                known = self.resolve(alias, p.topic)?;
                &*known
            }
        };
        self.batch_bytes += topic.len() + p.payload.len();
        if let Err(why) = topic::check_topic(topic) {
            self.refuse("topic", &format!("the topic is not one: {why}"), topic, p.payload);
            return Err(NO_TOPIC.into());
        }
        let print = if p.qos == 2 { Note::print_of(topic, p.payload) } else { 0 };
        // A client that came back without its memory counts its ids from the beginning, and never releases
        // those of before. What it says under one of them is a repetition only if it is the same, whatever
        // DUP says: some clients repeat without it, and a new message has it if its first sending broke off.
        if self.received_before.get(&p.id).is_some_and(|before| p.qos == 2 && *before != print) {
            self.received_before.remove(&p.id);
            self.received.remove(&p.id);
        }
        if p.qos > 0 && (self.held.holds(p.id) || (p.qos == 2 && self.received.contains(&p.id))) {
            counters.repeats.add(1);
            // Held: the one answer is on its way. Committed: it was given, and is given again.
            if !self.held.holds(p.id) {
                self.answers.push(Answer { kind: kind::PUBREC, id: p.id, reason: reason::SUCCESS, stands: true });
            }
            return Ok(());
        }
        // Of QoS 1 no more is read than may be under way; a QoS 2 message is so until its PUBREL.
        if p.qos == 2
            && self.tongue.version == Version::V5
            && self.received.len() - self.received_before.len() >= usize::from(self.door.broker.receive_maximum)
        {
            return Err(Fault { reason: reason::RECEIVE_MAXIMUM, what: "more than the receive maximum" }.into());
        }
        if topic::is_link(&self.door.link.root, topic) {
            self.link_publish(&p, topic);
            return Ok(());
        }
        let mut door = Vec::with_capacity(self.client.len() + 64);
        let fits = meta::put(&self.client, p.properties.expiry_s, |out| p.properties.put_forwarded(out), &mut door);
        let publish = Publish {
            client: &self.client,
            user: &self.user.name,
            topic,
            qos: p.qos,
            retain: p.retain,
            payload: p.payload,
            content_type: p.properties.content_type,
            user_properties: p.properties.user(),
            expiry_s: p.properties.expiry_s,
            is_will: false,
            door: &door,
        };
        let refusal = self.door.refusal(&self.user, &publish, p.properties.is_text, fits);
        let is_refused = refusal.is_some();
        let taken = match refusal {
            Some(r) => {
                if r.is_forbidden() {
                    counters.forbidden.add(1);
                }
                self.refuse(r.name, &r.detail, topic, p.payload);
                Taken { draft: None, beside: None, reason: r.reason }
            }
            None => self.door.ingress.take(&publish),
        };
        let is_kept = is_refused || taken.draft.is_some();
        if let Some(letter) = taken.beside {
            self.put_draft(letter);
        }
        match taken.draft {
            Some(draft) => self.put_draft(draft),
            None if taken.reason < reason::UNSPECIFIED => {
                let payload = Bytes::copy_from_slice(p.payload);
                let message = live_message(topic, &door, payload, p.qos, p.retain, now_us());
                self.deliveries += self.door.router.live(message);
            }
            None => {}
        }
        self.answer_publish(p.qos, p.id, print, taken.reason, is_kept);
        Ok(())
    }

    /// Puts the answer to a publish into the queue of those that wait; `is_kept`: the last draft is what is kept
    /// of it.
    fn answer_publish(&mut self, qos: u8, id: u16, print: u32, reason: u8, is_kept: bool) {
        match qos {
            0 => return,
            1 => self.answers.push(Answer { kind: kind::PUBACK, id, reason, stands: false }),
            _ => {
                // A refused one ends with PUBREC; 3.1.1 does not hear of the refusal.
                if reason < reason::UNSPECIFIED || self.tongue.version == Version::V4 {
                    self.received.insert(id);
                    if self.durable {
                        // In one group with the record: a power cut keeps both or neither.
                        let held = Note::Qos2Held { client: self.client.to_string(), id, print }.draft();
                        match self.drafts.last_mut().filter(|_| is_kept) {
                            Some(kept) => kept.with = Some(held),
                            None => self.put_draft(held),
                        }
                    }
                }
                self.answers.push(Answer { kind: kind::PUBREC, id, reason, stands: false });
            }
        }
        self.held.take(id);
    }

    fn resolve(&mut self, alias: u16, topic: &str) -> Result<Box<str>, Fault> {
        if alias == 0 || alias > ALIASES_MAX {
            return Err(Fault { reason: reason::ALIAS_INVALID, what: "a topic alias above the maximum, or 0" });
        }
        let i = usize::from(alias) - 1;
        if self.aliases.len() <= i {
            self.aliases.resize(i + 1, None);
        }
        if topic.is_empty() {
            return self.aliases[i].clone().ok_or(Fault::protocol("a topic alias that was never set"));
        }
        self.aliases[i] = Some(topic.into());
        Ok(topic.into())
    }

    fn link_publish(&mut self, p: &In<'_>, topic: &str) {
        let door = self.door;
        door.counters.link_publishes.add(1);
        let reason = if door.access.may_link(&self.user, topic, true) {
            if self.link_topic.as_deref() != Some(topic) {
                self.link_topic = Some(topic.to_owned());
            }
            match door.links.take(&self.client, topic, Bytes::copy_from_slice(p.payload), p.retain) {
                Ok(()) => reason::SUCCESS,
                Err(Full::Refused(reason)) => reason,
                Err(Full::Wait(driver, message)) => {
                    self.handing_on = Some(Box::pin(async move { drop(driver.send(message).await) }));
                    reason::SUCCESS
                }
            }
        } else {
            door.counters.forbidden.add(1);
            self.refuse("forbidden", "only a child node may speak on its own link topics", topic, p.payload);
            reason::NOT_AUTHORIZED
        };
        match p.qos {
            0 => {}
            1 => {
                self.held.take(p.id);
                self.answers.push(Answer { kind: kind::PUBACK, id: p.id, reason, stands: false });
            }
            // Nothing is stored of link traffic, but while the connection lives it is once.
            _ => {
                self.held.take(p.id);
                // A refused one ends with PUBREC, of which 3.1.1 does not hear.
                if reason < reason::UNSPECIFIED || self.tongue.version == Version::V4 {
                    self.received.insert(p.id);
                }
                self.answers.push(Answer { kind: kind::PUBREC, id: p.id, reason, stands: false });
            }
        }
    }

    fn acknowledged(&mut self, kind: u8, ack: Ack) -> Result<(), Fault> {
        if kind != kind::PUBREL && !self.delivery.takes(kind, ack.id) {
            return Err(Fault::protocol("an acknowledgement that the message's QoS does not have, or not yet"));
        }
        match kind {
            kind::PUBACK => self.delivery.complete(ack.id, &self.client),
            kind::PUBCOMP => self.delivery.complete(ack.id, &self.client),
            kind::PUBREC => {
                if ack.reason >= reason::UNSPECIFIED {
                    self.delivery.complete(ack.id, &self.client);
                } else if let Some(reason) = self.delivery.release(ack.id, &self.client, self.durable) {
                    put_ack(self.tongue.version, kind::PUBREL, ack.id, reason, &mut self.output);
                }
            }
            _ => {
                let known = self.received.remove(&ack.id);
                self.received_before.remove(&ack.id);
                if known && self.durable {
                    // Noted before PUBCOMP: after it the client may use the id for another message.
                    let released = Note::Qos2Released { client: self.client.to_string(), id: ack.id };
                    self.put_draft(released.draft());
                }
                // After a reconnect it is no error: the client repeats what it has not seen completed, and
                // some take 0x92 for a message that was not delivered.
                let reason = if known || self.resumed { reason::SUCCESS } else { reason::ID_NOT_FOUND };
                self.answers.push(Answer { kind: kind::PUBCOMP, id: ack.id, reason, stands: false });
            }
        }
        self.show_in_flight();
        Ok(())
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Fault(fault)
    }
}
