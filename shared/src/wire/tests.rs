use super::frame::CORE_BYTES;
use super::*;
use crate::record::{Direction, Header, Kind, Origin};
use crate::view::Unheard;
use crate::{Address, Tier};
use proptest::prelude::*;

fn party() -> Party {
    Party { inc: Inc(7), boot: Boot { counter: 3, nonce: 99 } }
}

fn head() -> FrameHead {
    FrameHead {
        from: party(),
        lease: 4,
        log: LogId(11),
        lane: Lane::Routine,
        after: Pos(10),
        upto: Pos(20),
        after_chain: 1,
        upto_chain: 2,
        records: 0,
    }
}

fn frame(payloads: &[&[u8]]) -> Vec<u8> {
    let mut b = FrameBuilder::default();
    for (i, p) in payloads.iter().enumerate() {
        let h = Header {
            kind: Kind::Event,
            lane: Lane::Routine,
            direction: Direction::Up,
            reach: Tier::City,
            received_us: 5,
            committed_us: 6,
            key: 9,
            ttl_ms: 0,
            origin: (i % 2 == 1).then_some(Origin { address: "c/s/m/n", log: LogId(1), pos: Pos(i as u64) }),
            name: "lamp.failed",
            topic: "in/not/carried",
            target: "",
            ..Header::local(Kind::Event, "")
        };
        b.push(&h, Origin { address: "c/s", log: LogId(2), pos: Pos(100 + i as u64) }, 0, p);
    }
    b.finish(head(), |_| None)
}

fn no(_: &[u8], _: usize) -> Option<Vec<u8>> {
    None
}

#[test]
fn a_frame_carries_records_with_their_origins() {
    let bytes = frame(&[b"one", b"two", b"three"]);
    let Message::Frame(f) = decode(&bytes, no).unwrap() else { panic!("not a frame") };
    assert_eq!(f.head, FrameHead { records: 3, ..head() });
    let got: Vec<_> = f.records().map(|r| r.unwrap()).collect();
    assert_eq!(got.iter().map(|r| r.payload).collect::<Vec<_>>(), [b"one".as_slice(), b"two", b"three"]);
    assert_eq!(got[0].origin, Origin { address: "c/s", log: LogId(2), pos: Pos(100) });
    assert_eq!(got[1].origin, Origin { address: "c/s/m/n", log: LogId(1), pos: Pos(1) });
    assert_eq!(got[2].header(8).topic, "");
}

#[test]
fn acks_byes_and_signs_of_life_survive_the_wire() {
    let ack = Word::Ack(Ack {
        from: party(),
        to: Boot { counter: 1, nonce: 2 },
        lease: 3,
        log: LogId(5),
        lane: Lane::Urgent,
        upto: Pos(77),
        credit: 8,
        gap: true,
    });
    assert_eq!(decode(&ack.encode(), no).unwrap(), Message::Word(ack));
    let node = Address::parse("c/s/m").unwrap();
    let unheard = vec![Unheard { node, last_heard_ms_ago: Some(7) }];
    let far = Alive { unheard, unheard_more: 2, ..Alive::of(party()) };
    for word in [Word::Bye(party()), Word::Alive(Alive::of(party())), Word::Alive(far)] {
        assert_eq!(decode(&word.encode(), no).unwrap(), Message::Word(word));
    }
}

#[test]
fn an_unknown_field_is_skipped_unless_it_is_critical() {
    for (tag, want) in [(0x0077u16, None), (0x8077, Some(Error::Critical(0x8077)))] {
        let plain = Word::Bye(party()).encode();
        let mut out = plain[..8].to_vec();
        put_field(&mut out, tag, b"new");
        out.extend_from_slice(&plain[8..]);
        assert_eq!(decode(&seal(out), no).err(), want);
    }
}

#[test]
fn a_frame_that_claims_a_huge_body_is_refused_before_it_is_unpacked() {
    let mut b = FrameBuilder::default();
    let mut bytes = b.finish(head(), |_| Some(vec![1, 2, 3]));
    let at = bytes.windows(2).position(|w| w == FIELD_ZSTD.to_le_bytes()).unwrap();
    bytes[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let bytes = seal(bytes);
    assert!(matches!(decode(&bytes, |_, _| panic!("must not be called")), Err(Error::Bomb { .. })));
}

#[test]
fn a_frame_that_claims_more_records_than_one_may_have_is_refused() {
    let mut bytes = frame(&[b"one"]);
    let at = 8 + 4 + CORE_BYTES - 4; // envelope, tag and length, the last of the core
    assert_eq!(bytes[at..at + 4], 1u32.to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let max = limits::FRAME_RECORDS_MAX;
    assert_eq!(decode(&seal(bytes), no).err(), Some(Error::Crowded { records: u32::MAX, max }));
}

proptest! {
    #[test]
    fn a_flipped_bit_is_noticed(bit in 0usize..64 * 8) {
        let mut bytes = frame(&[b"some payload that is long enough"]);
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes, no).is_err());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..8) {
        let mut out = open(kind, 0);
        out.extend_from_slice(&bytes);
        if let Ok(Message::Frame(f)) = decode(&seal(out), no) {
            f.records().for_each(drop);
        }
    }
}

#[test]
fn a_frames_lane_is_known_without_reading_the_rest_of_it() {
    for lane in Lane::ALL {
        let mut b = FrameBuilder::default();
        b.push(&Header::local(Kind::Event, "t"), Origin { address: "c/s", log: LogId(2), pos: Pos(1) }, 0, b"one");
        let bytes = b.finish(FrameHead { lane, ..head() }, |_| None);
        assert_eq!(lane_of(&bytes), Some(lane));
        for cut in 0..bytes.len() {
            assert!(lane_of(&bytes[..cut]).is_none_or(|l| l == lane));
        }
    }
    assert_eq!(lane_of(&Word::Alive(Alive::of(party())).encode()), None);
}
