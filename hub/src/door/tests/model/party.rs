//! A client with its session on both sides: what it says when it comes, what it may expect, and what it
//! finds wrong.

use super::*;

/// A published message; its number in [`World::messages`] begins its payload.
pub(super) struct Message {
    /// A client; or that and [`CLIENTS`], for its wills.
    pub source: usize,
    pub topic: &'static str,
    pub qos: u8,
    /// Larger than a packet for some clients.
    pub is_large: bool,
    pub expiry_s: Option<u32>,
    /// It was sent again by 3.1.1, without its expiry.
    pub is_mixed: bool,
    /// A QoS 1 message that was not acknowledged is sent again, and may be there as often. 0: a will
    /// whose time has not come.
    pub sent: u32,
    pub acked: bool,
}

impl Message {
    pub(super) fn new(source: usize, topic: &'static str, qos: u8) -> Message {
        Message { source, topic, qos, is_large: false, expiry_s: None, is_mixed: false, sent: 0, acked: false }
    }

    pub(super) fn payload(&self, n: usize) -> String {
        if self.is_large { format!("{n} {}", "x".repeat(LARGE_BYTES)) } else { n.to_string() }
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.topic == BELLS
    }

    fn is_of(&self, client: usize) -> bool {
        self.source % CLIENTS == client
    }

    /// Its time is known, and its commit is not.
    fn is_will(&self) -> bool {
        self.source >= CLIENTS
    }

    fn is_brief(&self) -> bool {
        self.expiry_s == Some(BRIEF_S)
    }
}

/// At least and at most this QoS; `None`: not at all.
type Range = (Option<u8>, Option<u8>);

/// What a filter is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grant {
    others: Range,
    /// Of the client's own messages: none with No Local.
    own: Range,
}

impl Grant {
    pub(super) fn of(options: u8) -> Grant {
        let all = (Some(options & 3), Some(options & 3));
        Grant { others: all, own: if options & NO_LOCAL == 0 { all } else { (None, None) } }
    }

    /// Either may hold.
    fn or(self, other: Grant) -> Grant {
        let or = |a: Range, b: Range| (a.0.min(b.0), a.1.max(b.1));
        Grant { others: or(self.others, other.others), own: or(self.own, other.own) }
    }

    fn of_source(self, is_own: bool) -> Range {
        if is_own { self.own } else { self.others }
    }
}

/// What a session may expect of one message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hope {
    low: Option<u8>,
    high: Option<u8>,
    pub seen: u32,
    /// As often without the mark of a repetition.
    fresh: u32,
    /// How often by the connection with this number.
    seen_now: (u32, u32),
    /// It was sent while the door knew that the client was away, and the client has not come since.
    waits: bool,
    /// It has expired before it could be given.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Down,
    /// CONNECT is sent.
    Coming,
    Up,
}

/// SUBSCRIBE, with each filter's options, or UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub subscribes: bool,
    pub filters: Vec<(&'static str, u8)>,
    /// Of an UNSUBSCRIBE: is the filter there? `None`: nobody knows.
    were_there: Vec<Option<bool>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flying {
    pub id: u16,
    pub message: usize,
    /// QoS 2: PUBREC has come.
    pub released: bool,
}

/// What a client says in its CONNECT.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub version: Version,
    pub clean: bool,
    /// The session does not end with the connection.
    pub lasts: bool,
    receive_maximum: Option<u16>,
    aliases_max: u16,
    pub packet_bytes_max: usize,
    /// Longer than any run; 0: none.
    will_delay_s: u32,
}

impl Terms {
    /// `clean`: it must be.
    pub(super) fn roll(rng: &mut Rng, clean: bool) -> Terms {
        let (version, way) = (BOTH[rng.below(2)], rng.below(8));
        let clean = clean || way < 2;
        let plain = Terms {
            version,
            clean,
            // 3.1.1 has no clean start with a session that lasts, nor one that ends with its next connection.
            lasts: !clean,
            receive_maximum: None,
            aliases_max: 0,
            packet_bytes_max: usize::MAX,
            will_delay_s: 0,
        };
        match version {
            Version::V4 => plain,
            Version::V5 => Terms {
                lasts: !matches!(way, 0 | 2),
                receive_maximum: [None, Some(1), Some(3)][rng.below(3)],
                aliases_max: [0, 2][rng.below(2)],
                packet_bytes_max: if rng.below(5) == 0 { SMALL_BYTES } else { usize::MAX },
                will_delay_s: [0, 1000][rng.below(2)],
                ..plain
            },
        }
    }

    /// Its will waits as long as the session.
    pub(super) fn delays_will(&self) -> bool {
        self.lasts && self.will_delay_s > 0
    }

    fn takes_large(&self) -> bool {
        self.packet_bytes_max > LARGE_BYTES
    }

    /// The body of a CONNECT. `will`: topic, QoS and payload.
    pub(super) fn connect(&self, name: &str, will: Option<(&str, u8, &str)>) -> Vec<u8> {
        let flags = u8::from(self.clean) << 1 | will.map_or(0, |(_, qos, _)| 4 | qos << 3);
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', self.version.level(), flags, 0, 60];
        let is_5 = self.version == Version::V5;
        if is_5 {
            let mut all = Vec::new();
            if self.lasts {
                all.extend([0x11, 0, 0, 0, 100]);
            }
            if let Some(n) = self.receive_maximum {
                all.extend([&[0x21][..], &n.to_be_bytes()].concat());
            }
            if self.aliases_max > 0 {
                all.extend([&[0x22][..], &self.aliases_max.to_be_bytes()].concat());
            }
            if let Ok(n) = u32::try_from(self.packet_bytes_max) {
                all.extend([&[0x27][..], &n.to_be_bytes()].concat());
            }
            body.push(all.len() as u8);
            body.extend(all);
        }
        put_text(name, &mut body);
        if let Some((topic, _, payload)) = will {
            if is_5 {
                body.extend([&[5, 0x18][..], &self.will_delay_s.to_be_bytes()].concat());
            }
            put_text(topic, &mut body);
            put_text(payload, &mut body);
        }
        body
    }
}

pub(super) struct Party {
    number: usize,
    pub name: String,
    pub phase: Phase,
    pub wire: Option<Client>,
    connection: u32,
    pub terms: Terms,
    /// The message that its will is, this time.
    pub will: Option<usize>,
    /// Wills of earlier connections that wait for their delay, and whether the door has heard of them.
    pub pending: Vec<(usize, bool)>,
    /// The node has a session of it.
    pub exists: bool,
    /// Which session there is nobody knows: a CONNECT was not answered.
    pub unsure: bool,
    /// The door knows that it is away.
    pub is_away: bool,
    pub asked: Option<Asked>,
    filters: BTreeMap<&'static str, Grant>,
    pub hopes: BTreeMap<usize, Hope>,
    /// Newest message of each source, by whether it is urgent.
    newest: [[Option<usize>; 2]; 2 * CLIENTS],
    pub flying: VecDeque<Flying>,
    /// QoS 2 messages received and not released, by packet id.
    pub received: HashMap<u16, usize>,
    /// Of those: their filter may have changed before their turn came, and then the node was killed.
    excused: HashSet<u16>,
    /// This connection has asked for filters.
    has_asked: bool,
    /// Released by an earlier connection: what became of its PUBCOMP is not known.
    released: HashSet<u16>,
    /// Released by this one.
    completed: HashSet<u16>,
    /// A connection of this session took no large messages: those of QoS 2 that an earlier one may have brought
    /// were released instead.
    was_small: bool,
    /// Under way to it by this connection.
    open: HashSet<u16>,
    /// Acknowledgements that the client has not given yet.
    pub owed: VecDeque<(u8, u16)>,
    pub next_id: u16,
    /// This connection's aliases: its own, and the door's.
    pub aliases: [Option<&'static str>; 2],
    aliases_got: HashMap<u16, String>,
}

impl Party {
    pub(super) fn new(number: usize) -> Party {
        Party {
            number,
            name: format!("party-{number}"),
            phase: Phase::Down,
            wire: None,
            connection: 0,
            terms: Terms::roll(&mut Rng(number as u64 + 1), true),
            will: None,
            pending: Vec::new(),
            exists: false,
            unsure: false,
            is_away: true,
            asked: None,
            filters: BTreeMap::new(),
            hopes: BTreeMap::new(),
            newest: [[None; 2]; 2 * CLIENTS],
            flying: VecDeque::new(),
            received: HashMap::new(),
            excused: HashSet::new(),
            has_asked: false,
            released: HashSet::new(),
            completed: HashSet::new(),
            was_small: false,
            open: HashSet::new(),
            owed: VecDeque::new(),
            next_id: 0,
            aliases: [None; 2],
            aliases_got: HashMap::new(),
        }
    }

    /// CONNECT is sent.
    pub(super) fn comes(&mut self, wire: Client, terms: Terms, messages: &[Message]) {
        (self.wire, self.phase, self.terms) = (Some(wire), Phase::Coming, terms);
        self.connection += 1;
        self.is_away = false;
        self.was_small |= !self.terms.takes_large();
        for (n, hope) in &mut self.hopes {
            hope.waits = false;
            // What is too large for this connection is done with as soon as it would be its turn.
            if messages[*n].is_large && !self.terms.takes_large() {
                hope.low = None;
            }
        }
    }

    /// Its CONNACK has come. The wills whose delay has ended with the session are returned.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn is_welcome(&mut self, body: &[u8]) -> Result<Vec<usize>, String> {
        let present = body[0] & 1 == 1;
        if body[1] != 0 || present != (self.exists && !self.terms.clean) {
            let (name, is) = (&self.name, if self.exists { "is" } else { "is not" });
            return Err(format!("{name} comes to a session that {is} there: {body:x?}"));
        }
        let pending = std::mem::take(&mut self.pending);
        let said = pending.into_iter().filter(|(_, is_sure)| *is_sure && !present).map(|(n, _)| n).collect();
        if !present {
            self.forget();
        }
        (self.phase, self.exists, self.unsure) = (Phase::Up, true, false);
        Ok(said)
    }

    /// The session and everything in it is over.
    pub(super) fn forget(&mut self) {
        self.filters.clear();
        self.hopes.clear();
        self.newest = [[None; 2]; 2 * CLIENTS];
        self.flying.clear();
        self.received.clear();
        self.excused.clear();
        self.released.clear();
        self.completed.clear();
        self.was_small = !self.terms.takes_large();
        self.owed.clear();
    }

    /// The connection is gone, by whoever's doing.
    pub(super) fn fall(&mut self, is_kill: bool) {
        if self.phase == Phase::Coming {
            // Opened or not: a session that is there is empty, or what it was.
            self.unsure |= self.terms.clean || self.terms.lasts != self.exists;
        }
        if is_kill && !self.is_away {
            // What may have been given when the process was killed comes again, though it has expired.
            self.hopes.values_mut().for_each(|hope| hope.is_over = false);
        }
        if is_kill && self.has_asked {
            self.excused.extend(self.received.keys().filter(|id| !self.open.contains(id)));
        }
        self.has_asked = false;
        self.wire = None;
        self.owed.clear();
        self.open.clear();
        self.released.extend(self.completed.drain());
        (self.aliases, self.asked) = ([None; 2], None);
        self.aliases_got.clear();
        if self.phase == Phase::Up && !self.terms.lasts {
            self.forget();
            self.exists = false;
        }
        self.phase = Phase::Down;
        self.is_away = is_kill;
    }

    /// This message is being sent.
    pub(super) fn hopes_for(&mut self, n: usize, m: &Message) {
        let matching = || {
            let all = self.filters.iter().filter(|(f, _)| topic::matches(f, m.topic));
            all.map(|(_, g)| g.of_source(m.is_of(self.number)))
        };
        let of = |grant: Option<u8>| grant.map(|q| q.min(m.qos));
        let low = of(matching().map(|g| g.0).max().flatten());
        let high = of(matching().map(|g| g.1).max().flatten());
        // For all the door knows the connection may still be there.
        let may_lack = m.is_large && !self.is_away && !self.terms.takes_large();
        let low = low.filter(|_| !may_lack);
        self.hopes.insert(n, Hope { low, high, waits: self.is_away, ..Hope::default() });
    }

    /// SUBSCRIBE or UNSUBSCRIBE is sent.
    pub(super) fn asks(&mut self, subscribes: bool, filters: Vec<(&'static str, u8)>, messages: &[Message]) {
        self.has_asked = true;
        let mut were_there = Vec::new();
        for (filter, options) in &filters {
            let old = self.filters.get(filter).copied();
            were_there.push(match old {
                None => Some(false),
                Some(old) => old.others.0.is_some().then_some(true),
            });
            if subscribes {
                self.filters.insert(filter, old.unwrap_or_default().or(Grant::of(*options)));
            } else if let Some(old) = old {
                self.filters.insert(filter, old.or(Grant::default()));
            }
            self.regrade(filter, old.is_some(), messages);
        }
        self.asked = Some(Asked { subscribes, filters, were_there });
    }

    /// SUBACK or UNSUBACK has come.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn is_answered(&mut self, first: u8, body: &[u8]) -> Result<(), String> {
        let heard = format!("{first:x} {body:x?}");
        let Some(asked) = self.asked.take() else {
            return Err(format!("{} asked nothing and heard {heard}", self.name));
        };
        let wrong = || Err(format!("{} asked {asked:?} and heard {heard}", self.name));
        if first != if asked.subscribes { 0x90 } else { 0xb0 } {
            return wrong();
        }
        let codes = match self.terms.version {
            Version::V4 => &body[2..],
            Version::V5 => &body[3..],
        };
        let wants: Vec<Option<u8>> = match (asked.subscribes, self.terms.version) {
            (true, _) => asked.filters.iter().map(|(_, options)| Some(options & 3)).collect(),
            (false, Version::V4) => Vec::new(),
            (false, Version::V5) => asked.were_there.iter().map(|w| w.map(|w| if w { 0 } else { 0x11 })).collect(),
        };
        if codes.len() != wants.len() || codes.iter().zip(&wants).any(|(code, want)| want.is_some_and(|w| w != *code)) {
            return wrong();
        }
        for (filter, options) in &asked.filters {
            if asked.subscribes {
                self.filters.insert(filter, Grant::of(*options));
            } else {
                self.filters.remove(filter);
            }
        }
        Ok(())
    }

    /// `filter` has changed: what is on its way may come by the old or the new. Another that matches
    /// promises nothing here, as it may have come behind the message.
    fn regrade(&mut self, filter: &str, was_there: bool, messages: &[Message]) {
        let grant = self.filters.get(filter).copied().unwrap_or_default();
        for (n, m) in messages.iter().enumerate().filter(|(_, m)| m.sent > 0 && topic::matches(filter, m.topic)) {
            let (low, high) = grant.of_source(m.is_of(self.number));
            let (low, high) = (low.map(|q| q.min(m.qos)), high.map(|q| q.min(m.qos)));
            match self.hopes.get_mut(&n) {
                Some(hope) => {
                    hope.high = hope.high.max(high);
                    if was_there {
                        hope.low = hope.low.min(low);
                    }
                }
                None if !m.acked || m.is_will() => drop(self.hopes.insert(n, Hope { high, ..Hope::default() })),
                None => {}
            }
        }
    }

    /// So much time has passed that the brief messages have expired.
    pub(super) fn grows_older(&mut self, messages: &[Message]) {
        for (n, hope) in self.hopes.iter_mut().filter(|(n, _)| messages[**n].is_brief()) {
            hope.low = None;
            hope.is_over |= hope.waits && messages[*n].acked && !messages[*n].is_mixed;
        }
    }

    /// The topic, of which an alias may stand in its place.
    fn topic_of(&mut self, p: &publish::In<'_>) -> Result<String, String> {
        let topic = p.topic.to_owned();
        let Some(alias) = p.properties.alias else { return Ok(topic) };
        if alias == 0 || alias > self.terms.aliases_max || p.qos == 2 {
            return Err(format!("{} cannot have the alias {alias} of {topic:?}", self.name));
        }
        if topic.is_empty() {
            return self.aliases_got.get(&alias).cloned().ok_or_else(|| format!("the alias {alias} was never set"));
        }
        self.aliases_got.insert(alias, topic.clone());
        Ok(topic)
    }

    /// A PUBLISH has come.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn gets(&mut self, first: u8, body: &[u8], messages: &[Message]) -> Result<(), String> {
        let p = parse_publish(self.terms.version, first & 15, body);
        let got = Got { topic: self.topic_of(&p)?, ..got(self.terms.version, first, body) };
        let n = got.payload.split(' ').next().and_then(|n| n.parse::<usize>().ok());
        let (n, m) = n.and_then(|n| Some((n, messages.get(n)?))).ok_or_else(|| format!("{got:?} is nobody's"))?;
        if got.topic != m.topic || got.payload != m.payload(n) || got.retain {
            return Err(format!("{n} was published on {} as it never came: {got:?}", m.topic));
        }
        let is_5 = self.terms.version == Version::V5;
        let left = p.properties.expiry_s;
        let is_right = match (left, m.expiry_s) {
            (Some(left), Some(at_first)) => is_5 && left <= at_first,
            (None, Some(_)) => !is_5 || m.is_mixed,
            (left, None) => left.is_none(),
        };
        if !is_right {
            return Err(format!("{n} has {left:?} s left of {:?}", m.expiry_s));
        }
        if got.qos > 0 {
            self.open.insert(got.id);
            let (open, max) = (self.open.len(), usize::from(self.terms.receive_maximum.unwrap_or(u16::MAX)));
            if open > max {
                return Err(format!("with {got:?} {open} are under way, and {max} may be"));
            }
        }
        match got.qos {
            0 => {}
            1 => self.owed.push_back((kind::PUBACK, got.id)),
            _ => {
                self.owed.push_back((kind::PUBREC, got.id));
                match self.received.insert(got.id, n) {
                    Some(old) if old == n && got.dup => return Ok(()),
                    Some(old) => return Err(format!("{got:?} has the id of {old}, which is not released")),
                    None => {}
                }
            }
        }
        self.take(n, m, &got)
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
        if hope.is_over {
            return Err(format!("{got:?} has expired"));
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
            let newest = &mut self.newest[m.source][usize::from(m.is_urgent())];
            if newest.is_some_and(|newest| newest > n) {
                return Err(format!("{got:?} came behind {newest:?}"));
            }
            *newest = Some(n);
        }
        Ok(())
    }

    /// A PUBREL has come.
    ///
    /// # Errors
    /// Nobody asked for it.
    pub(super) fn releases(&mut self, ack: Ack) -> Result<(), String> {
        let was_asked = !self.owed.contains(&(kind::PUBREC, ack.id));
        let is_known = self.received.remove(&ack.id).is_some() || self.released.remove(&ack.id) || self.was_small;
        if ack.reason != 0 || !was_asked || !is_known {
            return Err(format!("{} did not ask for {ack:?}", self.name));
        }
        self.completed.insert(ack.id);
        self.open.insert(ack.id);
        self.owed.push_back((kind::PUBCOMP, ack.id));
        Ok(())
    }

    /// Messages that are to be released.
    pub(super) fn waits_for_release(&self) -> bool {
        self.received.keys().any(|id| !self.excused.contains(id))
    }

    /// Gives the acknowledgement that it owes longest.
    pub(super) async fn acknowledges(&mut self) {
        if let (Some((kind, id)), Some(wire)) = (self.owed.pop_front(), &mut self.wire) {
            wire.ack(kind, id).await;
            if kind != kind::PUBREC {
                self.open.remove(&id);
            }
        }
    }

    pub(super) fn must_have(&self, messages: &[Message]) -> Option<usize> {
        let missing =
            |(n, h): (&usize, &Hope)| (messages[*n].acked && h.low.is_some_and(|q| q > 0) && h.seen == 0).then_some(*n);
        self.hopes.iter().find_map(missing)
    }
}
