//! How a segment file is laid out, byte by byte (see `log/mod.rs`, "Format").

use citybrain_shared::Pos;
use crc32c::{crc32c, crc32c_append};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"cbrainlg";
const VERSION: u32 = 1;

/// Bytes before the first entry.
pub(super) const HEAD_BYTES: usize = 32;
/// Bytes before each record.
pub(super) const ENTRY_BYTES: usize = 16;
/// A record has at least its fixed header, from which lane, key and time are read.
pub const RECORD_BYTES_MIN: usize = 40;
/// Above any packet that a door or a link lets in. A length above it can only be damage.
pub const RECORD_BYTES_MAX: usize = citybrain_shared::limits::RECORD_BYTES_MAX;

/// The last entry of its group.
const END: u32 = 1 << 31;
/// The first entry after an fsync: all before it is on disk.
const BARRIER: u32 = 1 << 30;

/// The head of a segment file: magic (8), version (4), first position (8), chain before it (8), crc32c (4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub first: Pos,
    /// The chain hash at `first - 1`.
    pub before: u64,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.first.0.to_le_bytes());
        out[20..28].copy_from_slice(&self.before.to_le_bytes());
        let crc = crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None`: these are not the first bytes of a segment of this format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Head> {
        let head = Head {
            first: Pos(u64::from_le_bytes(bytes.get(12..20)?.try_into().ok()?)),
            before: u64::from_le_bytes(bytes.get(20..28)?.try_into().ok()?),
        };
        (bytes.get(..HEAD_BYTES)? == head.encode()).then_some(head)
    }

    /// Goes into every entry's checksum, so that bytes of another segment, or a record that carries
    /// something like an entry in its payload, are never taken for an entry of this one.
    pub(super) fn salt(&self) -> u32 {
        crc32c(&self.encode()[..28])
    }
}

/// What an entry says besides its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Bytes of the record.
    pub len: usize,
    pub end: bool,
    pub barrier: bool,
    pub chain: u64,
}

pub(super) enum Parsed {
    Good(Tag),
    /// Undecided until so many bytes are there.
    Short(usize),
    Bad,
}

/// The chain hash at `pos`: xxh3-64 over the hash before it, the position, the record's crc32c and
/// length, and its fixed header (which has its times and its key). 64 bytes, little-endian.
///
/// It depends on content alone, not on segments, groups or commits: two logs have the same hash at
/// a position if and only if they hold the same records up to there (but for chance, 2^-64).
pub(super) fn chain(before: u64, pos: Pos, record: &[u8], crc: u32) -> u64 {
    let mut input = [0; 64];
    input[..8].copy_from_slice(&before.to_le_bytes());
    input[8..16].copy_from_slice(&pos.0.to_le_bytes());
    input[16..20].copy_from_slice(&crc.to_le_bytes());
    input[20..24].copy_from_slice(&(record.len() as u32).to_le_bytes());
    input[24..].copy_from_slice(&record[..RECORD_BYTES_MIN]);
    xxh3_64(&input)
}

/// Appends one entry and returns the chain hash at it.
pub(super) fn put(out: &mut Vec<u8>, salt: u32, before: u64, pos: Pos, record: &[u8], end: bool, barrier: bool) -> u64 {
    assert!(
        (RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&record.len()),
        "a record of {} bytes is outside {RECORD_BYTES_MIN}..={RECORD_BYTES_MAX}",
        record.len()
    );
    let word = record.len() as u32 | if end { END } else { 0 } | if barrier { BARRIER } else { 0 };
    let body = crc32c(record);
    let chain = chain(before, pos, record, body);
    out.extend_from_slice(&word.to_le_bytes());
    out.extend_from_slice(&check(body, salt, pos, word, chain).to_le_bytes());
    out.extend_from_slice(&chain.to_le_bytes());
    out.extend_from_slice(record);
    chain
}

/// crc32c over the record, then position, length with flags, chain and salt.
fn check(body: u32, salt: u32, pos: Pos, word: u32, chain: u64) -> u32 {
    let mut rest = [0; 24];
    rest[..8].copy_from_slice(&pos.0.to_le_bytes());
    rest[8..12].copy_from_slice(&word.to_le_bytes());
    rest[12..20].copy_from_slice(&chain.to_le_bytes());
    rest[20..].copy_from_slice(&salt.to_le_bytes());
    crc32c_append(body, &rest)
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn tag_of(bytes: &[u8]) -> (Tag, u32) {
    let word = word_at(bytes, 0);
    let chain = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    let tag =
        Tag { len: (word & !(END | BARRIER)) as usize, end: word & END != 0, barrier: word & BARRIER != 0, chain };
    (tag, word)
}

/// The tag of an entry that is known to be whole.
pub(super) fn tag(bytes: &[u8]) -> Tag {
    tag_of(bytes).0
}

/// Is there an entry for `pos` at the start of `bytes`?
pub(super) fn parse(bytes: &[u8], salt: u32, pos: Pos) -> Parsed {
    let (tag, word, body) = match open(bytes) {
        Ok(opened) => opened,
        Err(Some(need)) => return Parsed::Short(need),
        Err(None) => return Parsed::Bad,
    };
    if check(body, salt, pos, word, tag.chain) == word_at(bytes, 4) { Parsed::Good(tag) } else { Parsed::Bad }
}

/// Is there an entry for a position in `from..=upto` at the start of `bytes`? The position is computed
/// from the checksum, so that a wide range costs no more than a narrow one. By chance any bytes are an
/// entry of a range with a probability of its length by 2^32.
pub(super) fn parse_any(bytes: &[u8], salt: u32, from: Pos, upto: Pos) -> Option<(Pos, Tag)> {
    let (tag, word, body) = open(bytes).ok()?;
    let stored = word_at(bytes, 4);
    // The range is far narrower than 2^32: its ends have all the upper halves that there are in it.
    let highs = [(from.0 >> 32) as u32, (upto.0 >> 32) as u32];
    highs[..if highs[0] == highs[1] { 1 } else { 2 }].iter().find_map(|high| {
        let mut rest = [0; 20];
        rest[..4].copy_from_slice(&high.to_le_bytes());
        rest[4..8].copy_from_slice(&word.to_le_bytes());
        rest[8..16].copy_from_slice(&tag.chain.to_le_bytes());
        rest[16..].copy_from_slice(&salt.to_le_bytes());
        let low = word_before(body, &rest, stored);
        let pos = Pos(u64::from(*high) << 32 | u64::from(low));
        ((from..=upto).contains(&pos) && check(body, salt, pos, word, tag.chain) == stored).then_some((pos, tag))
    })
}

/// Do `bytes` begin with an entry for `pos` that follows one whose chain hash is `before`?
pub(super) fn follows(bytes: &[u8], salt: u32, pos: Pos, before: u64) -> bool {
    let Parsed::Good(tag) = parse(bytes, salt, pos) else { return false };
    let record = &bytes[ENTRY_BYTES..ENTRY_BYTES + tag.len];
    tag.chain == chain(before, pos, record, crc32c(record))
}

/// An entry's tag, its length with flags, and its record's crc32c. An error that holds a number says how
/// many bytes it takes to know.
fn open(bytes: &[u8]) -> Result<(Tag, u32, u32), Option<usize>> {
    if bytes.len() < ENTRY_BYTES {
        return Err(Some(ENTRY_BYTES));
    }
    let (tag, word) = tag_of(bytes);
    if !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&tag.len) {
        return Err(None);
    }
    let whole = ENTRY_BYTES + tag.len;
    if bytes.len() < whole {
        return Err(Some(whole));
    }
    Ok((tag, word, crc32c(&bytes[ENTRY_BYTES..whole])))
}

/// The four bytes (little-endian) that must stand between what has the crc32c `before` and `rest` for all
/// to have the crc32c `after`: there is exactly one answer.
///
/// A step of the CRC is a shift by a byte and a table's entry, known by its top byte, so it goes backwards
/// too. Undone over `rest` and four bytes of zero it gives the state that `before` and the wanted bytes,
/// which are added to it bit by bit, must make.
fn word_before(before: u32, rest: &[u8], after: u32) -> u32 {
    let undo = |state: u32, byte: u8| (state << 8) ^ UNDO[(state >> 24) as usize] ^ u32::from(byte);
    let state = rest.iter().rev().fold(!after, |state, byte| undo(state, *byte));
    let state = [0; 4].iter().fold(state, |state, byte| undo(state, *byte));
    state ^ !before
}

/// By the top byte of the CRC's table entry: that entry, shifted, and which it was.
static UNDO: [u32; 256] = {
    // Castagnoli, as in iSCSI (RFC 3720), bits reversed.
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut undo = [0; 256];
    let mut byte = 0u32;
    while byte < 256 {
        let (mut entry, mut bit) = (byte, 0);
        while bit < 8 {
            entry = (entry >> 1) ^ (if entry & 1 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        undo[(entry >> 24) as usize] = (entry << 8) ^ byte;
        byte += 1;
    }
    undo
};

/// µs since 1970 at which the record was committed.
pub(super) fn committed_us(record: &[u8]) -> i64 {
    i64::from_le_bytes(record[12..20].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_a_fixed_function_of_content() {
        // Peers compare these across builds: a change here is a change of the protocol.
        let record = [7; 48];
        let one = chain(0, Pos(1), &record, crc32c(&record));
        let two = chain(one, Pos(2), &record, crc32c(&record));
        assert_ne!(one, two);
        assert_eq!((one, two), (15_108_839_584_732_016_482, 3_364_726_039_268_340_695));
    }

    #[test]
    fn the_position_is_found_by_the_checksum_alone_in_any_range() {
        for pos in [1, 77, u64::from(u32::MAX), 1 << 32, (5 << 32) + 3] {
            let mut out = Vec::new();
            put(&mut out, 0xDEAD_BEEF, 9, Pos(pos), &[7; 61], true, true);
            let found = |from, upto| parse_any(&out, 0xDEAD_BEEF, Pos(from), Pos(upto)).map(|(p, _)| p.0);
            assert_eq!(found(pos, pos), Some(pos));
            assert_eq!(found(pos.saturating_sub(1 << 20).max(1), pos + (1 << 20)), Some(pos));
            assert_eq!(found(pos + 1, pos + (1 << 20)), None);
            assert_eq!(parse_any(&out, 1, Pos(pos), Pos(pos)), None);
        }
    }

    #[test]
    fn an_entry_is_good_only_at_its_own_position_and_in_its_own_segment() {
        let mut out = Vec::new();
        put(&mut out, 5, 9, Pos(3), &[1; 40], true, false);
        assert!(matches!(parse(&out, 5, Pos(3)), Parsed::Good(t) if t.len == 40 && t.end && !t.barrier));
        assert!(matches!(parse(&out, 5, Pos(4)), Parsed::Bad));
        assert!(matches!(parse(&out, 6, Pos(3)), Parsed::Bad));
        assert!(matches!(parse(&out[..55], 5, Pos(3)), Parsed::Short(56)));
        for at in 0..out.len() {
            let mut bad = out.clone();
            bad[at] ^= 0x10;
            assert!(!matches!(parse(&bad, 5, Pos(3)), Parsed::Good(_)), "byte {at}");
        }
    }
}
