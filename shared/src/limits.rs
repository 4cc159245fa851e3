//! Bounds that several parts share: the unit of each, and why this number. The others stand where they
//! hold.

/// Bytes of one event's JSON. CloudEvents asks every intermediary to forward 64 KiB; four times
/// that leaves room for a picture's thumbnail and keeps one event inside two frames' budget.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one record in the log, the largest that a length there is believed for.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of an event's type. It becomes a topic, `events/TYPE`.
pub const TYPE_BYTES_MAX: usize = 255;

/// Bytes of an event's `id`, and of its `source`. Both are in every record, in the keys of alarms and in dead letters.
pub const ID_BYTES_MAX: usize = 1024;

/// Attributes of one event beyond those that CloudEvents and a node know. The specification asks for
/// few, and each is compared with all others; with 32,000 of them one message took seconds.
pub const EXTENSIONS_MAX: usize = 64;

/// Bytes of an MQTT packet at the front door: an event, its topic and properties.
pub const PACKET_BYTES_MAX: usize = 512 * 1024;

/// Bytes of an MQTT packet before its sender is authenticated: a CONNECT with most wills fits, a
/// stranger cannot make the node allocate more. (Through a WebSocket it can: one whole message.)
pub const PACKET_BYTES_UNAUTHENTICATED_MAX: usize = 64 * 1024;

/// Records in one frame. Above 256 the cost per record no longer falls (measured: 0.5 µs CPU).
pub const FRAME_RECORDS_MAX: usize = 256;

/// Bytes of records in one frame before compression; one record larger than this travels alone.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;

/// Frames under way on one lane of one link. 8 × 256 records cover the loopback's and a city
/// network's round trip at 200,000 records/s; more only grows the brokers' queues.
pub const WINDOW_FRAMES: usize = 8;

/// Records and bytes that one commit takes at most, so that an acknowledgement is never more than
/// a few milliseconds of work away, nor what is urgent: it waits for the commit before its own. With eight times as
/// much a press behind backlogs takes half as long again and more, and a link carries four tenths more (measured).
pub const COMMIT_RECORDS_MAX: usize = 2048;
pub const COMMIT_BYTES_MAX: usize = 64 * 1024;
/// The same where the disk is slow.
pub const COMMIT_BYTES_MAX_SLOW: usize = 512 * 1024;

/// Requests waiting for the engine. Full means back-pressure: the doors stop reading. As many may be urgent
/// ones, beside these.
pub const ENGINE_QUEUE_MAX: usize = 256;

/// Bytes of records in them: some 10 s of a slow memory card. Full means the same. Urgent ones have a quarter
/// of this beside it.
pub const ENGINE_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of the log kept in memory for links and live subscribers: about 7,500 records, more than
/// what one round trip to the parent has under way (two lanes of 2,048).
pub const LOG_TAIL_BYTES: usize = 3 * 1024 * 1024;

/// Bytes of a file that is given up when the disk is full, so that a node can still start there and
/// write what it must.
pub const BALLAST_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of a payload kept with a dead letter. Enough to see what was sent; the whole of a 5 MB
/// accident is not worth the gatehouse's disk.
pub const DEAD_LETTER_BYTES_MAX: usize = 16 * 1024;

/// Interval sets remember at most this many separate runs a stream. One run is normal; each move to
/// another parent or restored backup adds one or two.
pub const RUNS_PER_STREAM_MAX: usize = 256;

/// Origins (an address with one history of its log) below one child, 100 bytes each: a whole city has
/// 20,000. Beyond it a child invents them.
pub const ORIGINS_PER_CHILD_MAX: usize = 20_000;

/// Of them, histories of one node. It mints one when its past is in doubt, one or two for each restored
/// backup: more than so many are one box's doing, and not to be to the cost of others.
pub const HISTORIES_PER_NODE_MAX: usize = 1_024;

/// Bytes of the event in which a node tells who it is: name, code and labels. Each node above keeps it.
pub const PRESENCE_BYTES_MAX: usize = 4 * 1024;

/// Starts of a node that it and its peers remember, to find where two histories parted.
pub const BOOTS_KEPT: usize = 16;

/// Directives (commands and notices) whose receipts are counted, about 1 KB each; the oldest that
/// everybody has answered give way first. The receipts themselves stay in the log.
pub const DIRECTIVES_KEPT: usize = 2_000;
