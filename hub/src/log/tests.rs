use super::disk::test::Faulty;
use super::*;
use citybrain_shared::Lane;
use citybrain_shared::record::{Header, Kind, key_of, lane_of};
use proptest::prelude::*;
use std::collections::HashMap;

const SMALL: Options = Options { segment_bytes: 4096, tail_bytes: 2048, ballast_bytes: 0 };
const ONE: Options = Options { segment_bytes: 1 << 30, tail_bytes: 0, ballast_bytes: 0 };

fn record(lane: Lane, key: u64, committed_us: i64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header { lane, key, committed_us, ..Header::local(Kind::Event, "t") };
    header.encode(payload, &mut out).unwrap();
    out
}

fn plain(n: u64) -> Vec<u8> {
    record(Lane::Routine, n, n as i64, format!("payload {n}").as_bytes())
}

fn open(dir: &Path, options: &Options) -> Log {
    Log::open(dir, options.clone()).unwrap().log
}

fn add(log: &mut Log, group: &[Vec<u8>]) -> (Pos, Pos) {
    log.append(group.iter().map(Vec::as_slice))
}

/// Commits the records `1..=n`, each by itself.
fn fill(log: &mut Log, n: u64) {
    for i in log.last().0 + 1..=n {
        add(log, &[plain(i)]);
        log.commit().unwrap();
    }
}

/// Everything that can be read, and the holes between.
fn read_all(reader: &Reader, lane: Option<Lane>) -> (Vec<Entry>, Vec<(Pos, Pos)>) {
    let (mut entries, mut holes) = (Vec::new(), Vec::new());
    let mut after = Pos(reader.first().0 - 1);
    loop {
        match reader.read(after, lane, 7, 1000) {
            Ok(some) if some.is_empty() => return (entries, holes),
            Ok(some) => {
                after = some.last().unwrap().pos;
                entries.extend(some);
            }
            Err(Error::Damaged { after: from, upto, .. }) => {
                assert!(from >= after && upto > from, "{after} {from} {upto}");
                holes.push((from.next(), upto));
                after = upto;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn flip(path: &Path, offset: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset as usize] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

#[test]
fn nothing_is_visible_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    let reader = log.reader();
    assert_eq!((reader.first(), reader.last(), reader.chain_at(Pos::ZERO).unwrap()), (Pos(1), Pos::ZERO, Some(0)));
    assert_eq!(add(&mut log, &[plain(1), plain(2)]), (Pos(1), Pos(2)));
    log.write().unwrap();
    assert_eq!((reader.last(), reader.find(1).unwrap(), reader.get(Pos(1)).unwrap()), (Pos::ZERO, None, None));
    assert_eq!(log.commit().unwrap(), Pos(2));
    assert_eq!((reader.last(), reader.find(1).unwrap()), (Pos(2), Some(Pos(1))));
    assert_eq!(&reader.get(Pos(2)).unwrap().unwrap().bytes[..], plain(2));
    assert_eq!(reader.get(Pos(3)).unwrap(), None);
    assert_eq!(reader.get(Pos::ZERO).unwrap(), None);
    assert_eq!(reader.find(0).unwrap(), None);
}

#[test]
fn a_read_stops_at_its_limits_but_returns_at_least_one() {
    let dir = tempfile::tempdir().unwrap();
    for tail_bytes in [0, 1 << 20] {
        let mut log = open(dir.path(), &Options { tail_bytes, ..ONE });
        fill(&mut log, 10);
        let reader = log.reader();
        let positions = |entries: Vec<Entry>| entries.iter().map(|e| e.pos.0).collect::<Vec<_>>();
        assert_eq!(positions(reader.read(Pos(2), None, 3, 1 << 20).unwrap()), [3, 4, 5]);
        assert_eq!(positions(reader.read(Pos(2), None, 0, 0).unwrap()), [3]);
        let len = plain(3).len();
        assert_eq!(positions(reader.read(Pos(2), None, 100, 2 * len).unwrap()), [3, 4]);
        assert_eq!(positions(reader.read(Pos(2), None, 100, 2 * len + 1).unwrap()), [3, 4]);
        assert_eq!(positions(reader.read(Pos(10), None, 100, 100).unwrap()), [0_u64; 0]);
        assert_eq!(positions(reader.read(Pos(99), None, 100, 100).unwrap()), [0_u64; 0]);
    }
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path(), &SMALL);
    assert!(matches!(Log::open(dir.path(), SMALL), Err(Error::Locked { .. })));
}

#[test]
fn rollback_forgets_what_was_not_written_and_gives_its_positions_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 3);
    add(&mut log, &[plain(4)]);
    log.write().unwrap();
    add(&mut log, &[plain(50), plain(60)]);
    log.rollback();
    assert_eq!(log.last(), Pos(4));
    assert_eq!(add(&mut log, &[plain(5)]), (Pos(5), Pos(5)));
    log.commit().unwrap();
    let (entries, _) = read_all(&log.reader(), None);
    assert_eq!(entries.iter().map(|e| key_of(&e.bytes)).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let chain = log.reader().chain_at(Pos(5)).unwrap();
    drop(log);
    assert_eq!(open(dir.path(), &SMALL).reader().chain_at(Pos(5)).unwrap(), chain);
    let other = tempfile::tempdir().unwrap();
    let mut never_rolled_back = open(other.path(), &SMALL);
    fill(&mut never_rolled_back, 5);
    assert_eq!(never_rolled_back.reader().chain_at(Pos(5)).unwrap(), chain);
}

#[test]
fn good_records_of_an_unfinished_group_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &ONE);
    fill(&mut log, 3);
    let end = log.segments()[0].bytes;
    add(&mut log, &[plain(4), plain(5), plain(6)]);
    log.commit().unwrap();
    drop(log);
    let two = 2 * (format::ENTRY_BYTES + plain(4).len()) as u64;
    File::options().write(true).open(path_of(dir.path(), Pos(1))).unwrap().set_len(end + two).unwrap();
    let Opened { log, found } = Log::open(dir.path(), ONE).unwrap();
    assert_eq!((log.last(), found.records, found.cut_bytes), (Pos(3), 3, two));
    assert_eq!((log.reader().find(4).unwrap(), log.segments()[0].bytes), (None, end));
}

#[test]
fn a_lost_block_takes_the_records_in_it_and_no_more() {
    for options in [ONE, SMALL] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), &options);
        fill(&mut log, 150);
        drop(log);
        let path = path_of(dir.path(), Pos(1));
        let mut bytes = fs::read(&path).unwrap();
        bytes[1000..2000].fill(0);
        fs::write(&path, bytes).unwrap();
        let log = open(dir.path(), &options);
        let (entries, holes) = read_all(&log.reader(), None);
        let lost = holes[0].1.0 - holes[0].0.0 + 1;
        assert_eq!((holes.len(), entries.len() as u64), (1, 150 - lost));
        let entry = (format::ENTRY_BYTES + plain(10).len()) as u64;
        assert!((1000 / entry..=1000 / entry + 2).contains(&lost), "{lost}");
        assert!(entries.iter().all(|e| e.bytes == plain(e.pos.0)));
    }
}

#[test]
fn the_tail_forgets_the_oldest_commits_with_all_that_belongs_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    for i in 1..=500 {
        add(&mut log, &[record(Lane::Urgent, i, 0, b"x")]);
        log.commit().unwrap();
    }
    let reader = log.reader();
    let inner = reader.shared.inner.read();
    let (bytes, urgent) = inner.tail.held();
    assert!(bytes <= SMALL.tail_bytes && bytes > SMALL.tail_bytes / 2, "{bytes}");
    assert_eq!(urgent as u64, 501 - inner.tail.first().0);
}

#[test]
fn equal_records_give_equal_chains_however_they_are_grouped_and_segmented() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut one, mut other) = (open(a.path(), &SMALL), open(b.path(), &ONE));
    fill(&mut one, 100);
    let all: Vec<_> = (1..=100).map(plain).collect();
    add(&mut other, &all);
    other.commit().unwrap();
    assert!(one.segments().len() > 1);
    for pos in 0..=100 {
        assert_eq!(one.reader().chain_at(Pos(pos)).unwrap(), other.reader().chain_at(Pos(pos)).unwrap());
    }
    assert_eq!(one.reader().chain_at(Pos(101)).unwrap(), None);
}

#[test]
fn trim_removes_only_whole_sealed_segments_and_reads_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 200);
    let segments = log.segments();
    assert!(segments.len() >= 3 && segments[0].sealed && !segments.last().unwrap().sealed);
    assert_eq!(segments[0].newest_us, segments[0].last.0 as i64);
    assert_eq!(log.trim(segments[0].last).unwrap(), None);
    let before = log.bytes();
    let (first, last) = (segments[0].first, segments[1].last);
    assert_eq!(log.trim(segments[2].last).unwrap(), Some((first, last)));
    assert!(log.bytes() < before);
    let reader = log.reader();
    assert_eq!(reader.first(), last.next());
    assert!(matches!(reader.read(Pos(0), None, 1, 1), Err(Error::Trimmed { first }) if first == last.next()));
    assert_eq!(reader.get(last).unwrap(), None);
    assert_eq!(reader.find(last.0).unwrap(), None);
    assert_eq!(reader.find(last.0 + 1).unwrap(), Some(last.next()));
    assert!(reader.chain_at(last).unwrap().is_some(), "a peer may have it as its cursor");
    assert_eq!(reader.chain_at(Pos(last.0 - 1)).unwrap(), None);
    log.trim(Pos(u64::MAX)).unwrap();
    let left = log.segments();
    assert_eq!(left.len(), 1, "the newest segment stays");
    drop(log);
    let log = open(dir.path(), &SMALL);
    assert_eq!(log.segments(), left);
    assert_eq!(log.last(), Pos(200));
}

#[test]
fn a_segment_that_cannot_be_removed_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 300);
    let segments = log.segments();
    let (path, aside) = (path_of(dir.path(), segments[1].first), dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap(); // no file can be removed there
    assert!(log.trim(segments[3].first).is_err());
    // By their positions: an index may have been written meanwhile, which counts among the bytes.
    let firsts = |segments: &[Segment]| segments.iter().map(|s| s.first).collect::<Vec<_>>();
    assert_eq!(firsts(&log.segments()), firsts(&segments[1..]));
    assert_eq!(log.reader().first(), segments[1].first);
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(read_all(&log.reader(), None).1, []);
    assert_eq!(log.trim(segments[3].first).unwrap(), Some((segments[1].first, segments[2].last)));
    assert_eq!(firsts(&log.segments()), firsts(&segments[3..]));
}

#[test]
fn a_log_whose_records_are_all_trimmed_goes_on_at_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    while log.segments().len() < 2 {
        let next = log.last().0 + 1;
        fill(&mut log, next);
    }
    let last = log.last();
    let chain = log.reader().chain_at(last).unwrap();
    log.trim(Pos(u64::MAX)).unwrap();
    assert_eq!((log.reader().first(), log.reader().last()), (last.next(), last));
    drop(log);
    let mut log = open(dir.path(), &SMALL);
    assert_eq!((log.last(), log.reader().chain_at(last).unwrap()), (last, chain));
    assert_eq!(add(&mut log, &[plain(7)]).0, last.next());
}

#[test]
fn missing_and_damaged_indexes_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 300);
    let indexes: Vec<_> = log
        .segments()
        .iter()
        .filter(|s| s.sealed)
        .map(|s| path_of(dir.path(), s.first).with_extension("idx"))
        .collect();
    drop(log);
    for (i, path) in indexes.iter().enumerate() {
        let len = fs::metadata(path).unwrap().len();
        match i % 4 {
            0 => fs::remove_file(path).unwrap(),
            1 => flip(path, 50),         // the head: seen at start
            2 => flip(path, 120),        // the resident part: seen when it is loaded
            _ => flip(path, len - 2000), // a page: seen when it is read
        }
    }
    let log = open(dir.path(), &SMALL);
    let reader = log.reader();
    for n in 1..=300 {
        assert_eq!(reader.find(n).unwrap(), Some(Pos(n)));
        assert_eq!(key_of(&reader.get(Pos(n)).unwrap().unwrap().bytes), n);
    }
    for path in &indexes {
        assert!(index::Resident::load(path).is_some());
    }
}

#[test]
fn a_bad_record_with_a_later_commit_is_told_and_the_rest_stays_readable() {
    for options in [ONE, SMALL] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), &options);
        fill(&mut log, 150);
        let entry = (format::ENTRY_BYTES + plain(20).len()) as u64;
        drop(log);
        // In the middle of record 20: all before it have one digit less or the same length.
        let nine = (format::ENTRY_BYTES + plain(9).len()) as u64;
        flip(&path_of(dir.path(), Pos(1)), HEAD_BYTES as u64 + 9 * nine + 10 * entry + 30);
        let Opened { mut log, found } = Log::open(dir.path(), options.clone()).unwrap();
        assert_eq!(found.cut_bytes, 0);
        if options.segment_bytes == ONE.segment_bytes {
            assert_eq!((found.damage.len(), found.damage[0].first, found.damage[0].last), (1, Pos(20), Pos(20)));
            assert_eq!(found.records, 149);
            assert!(log.reader().read(Pos(15), Some(Lane::Urgent), 1, 1).is_err(), "it may have been urgent");
            assert_eq!(log.reader().read(Pos(20), Some(Lane::Urgent), 1, 1).unwrap(), []);
        }
        let (entries, holes) = read_all(&log.reader(), None);
        assert_eq!(holes, [(Pos(20), Pos(20))]);
        assert_eq!(entries.len(), 149);
        assert!(entries.iter().all(|e| e.bytes == plain(e.pos.0)));
        assert!(matches!(log.reader().chain_at(Pos(20)), Err(Error::Damaged { .. })));
        let damage = log.reader().verify(|_, _| {}).unwrap();
        assert_eq!(damage.iter().map(|d| (d.first, d.last)).collect::<Vec<_>>(), [(Pos(20), Pos(20))]);
        fill(&mut log, 160);
        assert_eq!(read_all(&log.reader(), None).0.len(), 159);
    }
}

#[test]
fn a_missing_segment_is_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 300);
    let gone = log.segments()[1];
    drop(log);
    fs::remove_file(path_of(dir.path(), gone.first)).unwrap();
    let Opened { log, found } = Log::open(dir.path(), SMALL).unwrap();
    assert_eq!(found.damage.iter().map(|d| (d.first, d.last)).collect::<Vec<_>>(), [(gone.first, gone.last)]);
    assert_eq!(read_all(&log.reader(), None).1, [(gone.first, gone.last)]);
    assert_eq!(read_all(&log.reader(), Some(Lane::Urgent)).1, [(gone.first, gone.last)]);
    assert_eq!(log.last(), Pos(300));
    assert_eq!(log.reader().verify(|_, _| {}).unwrap(), found.damage);
}

#[test]
fn a_damaged_head_is_replaced_by_what_is_known_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 300);
    let segments = log.segments();
    drop(log);
    for segment in &segments {
        flip(&path_of(dir.path(), segment.first), 22);
    }
    let Opened { mut log, found } = Log::open(dir.path(), SMALL).unwrap();
    assert_eq!((found.records, found.cut_bytes, log.last()), (300, 0, Pos(300)));
    assert_eq!(read_all(&log.reader(), None).0.len(), 300);
    // Without any other trace of the chain, nothing is guessed and nothing is cut.
    log.trim(Pos(u64::MAX)).unwrap();
    drop(log);
    let newest = path_of(dir.path(), segments.last().unwrap().first);
    flip(&newest, 22);
    let before = fs::read(&newest).unwrap();
    assert!(matches!(Log::open(dir.path(), SMALL), Err(Error::Headless { .. })));
    assert_eq!(fs::read(&newest).unwrap(), before);
}

#[test]
fn a_payload_that_looks_like_an_entry_is_never_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &ONE);
    fill(&mut log, 1);
    // The bytes of another log's entry for position 3, in the payload of record 2.
    let mut forged = Vec::new();
    format::put(&mut forged, 0, 0, Pos(3), &plain(666), true, true);
    add(&mut log, &[record(Lane::Routine, 2, 0, &forged)]);
    log.commit().unwrap();
    let start = log.segments()[0].bytes - forged.len() as u64 - 20;
    fill(&mut log, 4);
    drop(log);
    flip(&path_of(dir.path(), Pos(1)), start);
    let log = open(dir.path(), &ONE);
    let (entries, holes) = read_all(&log.reader(), None);
    assert_eq!(holes, [(Pos(2), Pos(2))]);
    assert_eq!(entries.iter().map(|e| key_of(&e.bytes)).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn bytes_that_a_checksum_of_32_bits_would_let_pass_are_no_entry_unless_the_log_goes_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &ONE);
    fill(&mut log, 1);
    // Lengths wherever one looks, so that one of the sums that follow would be right by chance: here by force.
    let mut payload = 40_u32.to_le_bytes().repeat(16 * 1024);
    let salt = Head { first: Pos(1), before: 0 }.salt();
    format::put(&mut payload, salt, 0, Pos(3), &plain(666), true, true);
    payload.extend(40_u32.to_le_bytes().repeat(1024));
    let offset = log.segments()[0].bytes;
    add(&mut log, &[record(Lane::Routine, 2, 0, &payload)]);
    log.commit().unwrap();
    fill(&mut log, 3);
    drop(log);
    // The last record, alone behind all that, is known by its place.
    flip(&path_of(dir.path(), Pos(1)), offset + 20);
    for n in [3, 5] {
        let mut log = open(dir.path(), &ONE);
        fill(&mut log, n);
        let (entries, holes) = read_all(&log.reader(), None);
        assert_eq!(holes, [(Pos(2), Pos(2))]);
        assert_eq!(
            entries.iter().map(|e| key_of(&e.bytes)).collect::<Vec<_>>(),
            [&[1], &[3, 4, 5][..n as usize - 2]].concat()
        );
    }
}

#[test]
fn a_sealed_segment_whose_head_and_index_are_gone_is_not_taken_for_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 300);
    let second = log.segments()[1];
    log.trim(second.first).unwrap();
    drop(log);
    let path = path_of(dir.path(), second.first);
    fs::remove_file(segment::index_path(&path)).unwrap();
    flip(&path, 22);
    assert!(matches!(Log::open(dir.path(), SMALL), Err(Error::Headless { .. })));
    flip(&path, 22);
    assert_eq!(read_all(&open(dir.path(), &SMALL).reader(), None).1, []);
}

fn faulty(dir: &Path, options: &Options) -> (Arc<Faulty>, Log) {
    let disk = Arc::new(Faulty::default());
    let log = Log::open_on(dir, options.clone(), disk.clone()).unwrap().log;
    (disk, log)
}

#[test]
fn after_a_failed_write_nothing_is_accepted_until_it_is_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut log) = faulty(dir.path(), &SMALL);
    fill(&mut log, 5);
    disk.fail_write(0, io::ErrorKind::StorageFull);
    add(&mut log, &[plain(6)]);
    assert!(matches!(log.commit(), Err(Error::Io(e)) if e.source.kind() == io::ErrorKind::StorageFull));
    assert!(matches!(log.commit(), Err(Error::Poisoned { .. })));
    assert!(matches!(log.write(), Err(Error::Poisoned { .. })));
    assert_eq!(read_all(&log.reader(), None).0.len(), 5);
    log.rollback();
    disk.heal();
    assert!(log.poison().is_some(), "healing is not enough");
    log.reopen().unwrap();
    assert_eq!(add(&mut log, &[plain(6)]).0, Pos(6));
    log.commit().unwrap();
    drop(log);
    let Opened { log, found } = Log::open(dir.path(), SMALL).unwrap();
    assert_eq!((found.records, found.cut_bytes, log.last()), (6, 0, Pos(6)));
}

#[test]
fn a_failed_fsync_is_final_for_the_file_and_its_records_are_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut log) = faulty(dir.path(), &SMALL);
    fill(&mut log, 5);
    add(&mut log, &[plain(6)]);
    log.write().unwrap();
    add(&mut log, &[plain(7)]);
    disk.fail_sync(0);
    log.commit().unwrap_err();
    assert_eq!(log.reader().last(), Pos(5));
    log.reopen().unwrap_err();
    disk.heal();
    log.rollback();
    log.reopen().unwrap();
    // Record 6 had been told to somebody as written: it is written again. Record 7 is forgotten.
    assert_eq!(log.last(), Pos(6));
    assert_eq!(log.commit().unwrap(), Pos(6));
    drop(log);
    let log = open(dir.path(), &SMALL);
    assert_eq!(
        read_all(&log.reader(), None).0.iter().map(|e| key_of(&e.bytes)).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
}

#[test]
fn small_commits_go_into_room_made_ahead_and_a_sealed_segment_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 256 * 1024, ..ONE };
    let mut log = open(dir.path(), &options);
    let path = path_of(dir.path(), Pos(1));
    let len = || fs::metadata(&path).unwrap().len();
    fill(&mut log, 1);
    let room = len();
    assert_eq!(room, log.segments()[0].bytes + ROOM_BYTES);
    while log.segments()[0].bytes + 200 < room {
        let next = log.last().0 + 1;
        fill(&mut log, next);
        assert_eq!(len(), room);
    }
    // A large commit goes past the room and makes none.
    add(&mut log, &[record(Lane::Routine, 7, 0, &[1; 2 * ROOM_COMMIT_BYTES])]);
    log.commit().unwrap();
    assert_eq!(len(), log.segments()[0].bytes);
    while log.segments().len() == 1 {
        let next = log.last().0 + 1;
        fill(&mut log, next);
    }
    assert_eq!(len(), log.segments()[0].bytes - log.shared.inner.read().sealed[0].index_bytes());
}

#[test]
fn room_made_ahead_is_no_part_of_the_log_for_whoever_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &ONE);
    // Its last bytes are zeros, too.
    add(&mut log, &[record(Lane::Routine, 1, 0, &[0; 3000])]);
    log.commit().unwrap();
    fill(&mut log, 2);
    add(&mut log, &[record(Lane::Routine, 3, 0, &[0; 3000])]);
    log.commit().unwrap();
    let end = log.segments()[0].bytes;
    drop(log);
    let path = path_of(dir.path(), Pos(1));
    assert!(fs::metadata(&path).unwrap().len() > end);
    let (reader, found) = open_read_only(dir.path()).unwrap();
    assert_eq!((found.records, found.cut_bytes, found.damage), (3, 0, vec![]));
    assert_eq!(read_all(&reader, None).0.len(), 3);
    // What is torn lies in it, and that alone is told.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"torn", end + 600).unwrap();
    let Opened { log, found } = Log::open(dir.path(), ONE).unwrap();
    assert_eq!((found.records, found.cut_bytes, found.damage), (3, 604, vec![]));
    assert_eq!(fs::metadata(&path).unwrap().len(), end);
    drop(log);
}

#[test]
fn a_log_goes_on_where_there_is_no_room_to_make_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut log) = faulty(dir.path(), &ONE);
    // The first page of zeros is written, the second half.
    disk.fail_write(2, io::ErrorKind::StorageFull);
    fill(&mut log, 1);
    assert_eq!(fs::metadata(path_of(dir.path(), Pos(1))).unwrap().len(), log.segments()[0].bytes);
    disk.heal();
    fill(&mut log, 5);
    drop(log);
    let Opened { log, found } = Log::open(dir.path(), ONE).unwrap();
    assert_eq!((found.records, found.cut_bytes, log.last()), (5, 0, Pos(5)));
}

#[test]
fn a_segment_that_cannot_be_begun_does_not_undo_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut log) = faulty(dir.path(), &Options { segment_bytes: 100, ..SMALL });
    disk.fail_write(1, io::ErrorKind::StorageFull);
    add(&mut log, &[plain(1), plain(2)]);
    assert_eq!(log.commit().unwrap(), Pos(2));
    assert_eq!(log.segments().len(), 1);
    disk.heal();
    fill(&mut log, 3);
    assert_eq!(log.segments().len(), 2);
    drop(log);
    assert_eq!(open(dir.path(), &SMALL).last(), Pos(3));
}

#[test]
fn a_segment_left_behind_by_a_failed_rotation_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &ONE);
    fill(&mut log, 10);
    drop(log);
    fs::write(path_of(dir.path(), Pos(5)), Head { first: Pos(5), before: 1 }.encode()).unwrap();
    fs::write(path_of(dir.path(), Pos(11)), [0; 7]).unwrap();
    let Opened { mut log, found } = Log::open(dir.path(), ONE).unwrap();
    assert_eq!((found.records, found.damage, log.last()), (10, vec![], Pos(10)));
    fill(&mut log, 11);
    assert_eq!(read_all(&log.reader(), None).0.len(), 11);
}

#[test]
fn the_ballast_is_made_given_up_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { ballast_bytes: 300_000, ..SMALL };
    let mut log = open(dir.path(), &options);
    let path = dir.path().join("ballast");
    assert_eq!(fs::metadata(&path).unwrap().len(), 300_000);
    log.release_ballast().unwrap();
    log.release_ballast().unwrap();
    assert!(!path.exists());
    log.restore_ballast(300_000).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 300_000);
}

#[test]
fn looking_at_a_stopped_log_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    fill(&mut log, 120);
    let segments = log.segments();
    let (sealed, newest) = (segments[0], *segments.last().unwrap());
    drop(log);
    fs::remove_file(path_of(dir.path(), sealed.first).with_extension("idx")).unwrap();
    let file = File::options().write(true).open(path_of(dir.path(), newest.first)).unwrap();
    file.write_all_at(&[9; 30], newest.bytes).unwrap();
    let names = |dir: &Path| {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|f| f.unwrap())
            .map(|f| (f.file_name(), f.metadata().unwrap().len()))
            .collect();
        all.sort();
        all
    };
    let before = names(dir.path());
    let (reader, found) = open_read_only(dir.path()).unwrap();
    assert_eq!((found.records, found.cut_bytes), (120, 30));
    assert_eq!(read_all(&reader, None).0.len(), 120);
    assert_eq!(reader.find(3).unwrap(), Some(Pos(3)));
    assert_eq!(names(dir.path()), before);
    assert!(open_read_only(&dir.path().join("none")).is_err());
}

#[test]
fn readers_in_other_threads_see_a_growing_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &SMALL);
    let reader = log.reader();
    std::thread::scope(|scope| {
        for lane in [None, Some(Lane::Routine), Some(Lane::Urgent)] {
            let reader = reader.clone();
            scope.spawn(move || {
                let (mut after, mut last) = (Pos::ZERO, Pos::ZERO);
                while last < Pos(600) {
                    last = reader.last();
                    for entry in reader.read(after, lane, 50, 10_000).unwrap() {
                        assert!(entry.pos > after && lane.is_none_or(|l| l == lane_of(&entry.bytes)));
                        assert_eq!(key_of(&entry.bytes), entry.pos.0);
                        after = entry.pos;
                    }
                }
            });
        }
        for i in 1..=600_u64 {
            let lane = if i % 10 == 0 { Lane::Urgent } else { Lane::Routine };
            add(&mut log, &[record(lane, i, 0, b"x")]);
            log.commit().unwrap();
        }
    });
}

/// What a step does to the log.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(bool, u8, u16)>),
    Write,
    Commit,
    Reopen,
    DropIndexes,
    /// Cuts the power: these sectors of what was not synced survive.
    Crash(u64),
    Trim(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = prop::collection::vec((any::<bool>(), 0..20_u8, 0..600_u16), 1..6);
    let step = prop_oneof![
        8 => group.prop_map(Step::Append),
        2 => Just(Step::Write),
        6 => Just(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::DropIndexes),
        2 => any::<u64>().prop_map(Step::Crash),
        1 => any::<u8>().prop_map(Step::Trim),
    ];
    prop::collection::vec(step, 1..40)
}

/// The log as a list.
#[derive(Default)]
struct Model {
    first: u64,
    /// From position 1.
    records: Vec<Vec<u8>>,
    committed: usize,
    /// Ends of groups, also uncommitted ones.
    ends: Vec<usize>,
}

fn agrees(reader: &Reader, model: &Model) {
    let committed = &model.records[..model.committed];
    assert_eq!(reader.last().0 as usize, committed.len());
    let mut newest = HashMap::new();
    for (i, record) in committed.iter().enumerate() {
        newest.insert(key_of(record), i as u64 + 1);
    }
    let first = reader.first().0;
    assert!(first >= model.first);
    for key in 1..=21 {
        let expected = newest.get(&key).copied().filter(|pos| *pos >= first);
        assert_eq!(reader.find(key).unwrap().map(|p| p.0), expected, "key {key}");
    }
    for lane in [None, Some(Lane::Urgent), Some(Lane::Routine)] {
        let (entries, holes) = read_all(reader, lane);
        assert!(holes.is_empty());
        let expected: Vec<(u64, &[u8])> = committed
            .iter()
            .enumerate()
            .map(|(i, r)| (i as u64 + 1, r.as_slice()))
            .filter(|(pos, r)| *pos >= first && lane.is_none_or(|l| l == lane_of(r)))
            .collect();
        assert_eq!(entries.iter().map(|e| (e.pos.0, &e.bytes[..])).collect::<Vec<_>>(), expected);
    }
}

fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, mut log) = faulty(dir.path(), &SMALL);
    let mut model = Model { first: 1, ..Model::default() };
    let mut serial = 0_u64;
    for step in steps {
        match step {
            Step::Append(group) => {
                let group: Vec<_> = group
                    .into_iter()
                    .map(|(urgent, key, len)| {
                        serial += 1;
                        let lane = if urgent { Lane::Urgent } else { Lane::Routine };
                        record(lane, u64::from(key), serial as i64, &vec![serial as u8; len as usize])
                    })
                    .collect();
                assert_eq!(add(&mut log, &group).0.0 as usize, model.records.len() + 1);
                model.records.extend(group);
                model.ends.push(model.records.len());
            }
            Step::Write => log.write().unwrap(),
            Step::Commit => {
                log.commit().unwrap();
                model.committed = model.records.len();
            }
            Step::Trim(at) => {
                if let Some((_, last)) = log.trim(Pos(u64::from(at))).unwrap() {
                    assert!(last < Pos(u64::from(at)));
                    model.first = last.0 + 1;
                }
            }
            Step::Reopen | Step::DropIndexes | Step::Crash(_) => {
                drop(log);
                if let Step::Crash(kept) = step {
                    disk.cut_power(kept);
                }
                if let Step::DropIndexes = step {
                    for item in fs::read_dir(dir.path()).unwrap() {
                        let path = item.unwrap().path();
                        if path.extension().is_some_and(|e| e == "idx") {
                            fs::remove_file(path).unwrap();
                        }
                    }
                }
                disk = Arc::new(Faulty::default());
                let opened = Log::open_on(dir.path(), SMALL, disk.clone()).unwrap();
                assert_eq!(opened.found.damage, []);
                log = opened.log;
                // All that was committed, and of the rest some whole groups.
                let last = log.last().0 as usize;
                assert!(last == model.committed || (last > model.committed && model.ends.contains(&last)));
                model.records.truncate(last);
                model.committed = last;
                model.ends.retain(|end| *end <= last);
            }
        }
        agrees(&log.reader(), &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_a_list_across_rotation_trim_crash_and_restart(steps in steps()) {
        run(steps);
    }

    #[test]
    fn a_file_cut_at_any_byte_holds_exactly_the_groups_that_were_whole(
        groups in prop::collection::vec(1..4_u64, 1..12), cut in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut log) = faulty(dir.path(), &ONE);
        let mut ends = vec![(0, HEAD_BYTES as u64)];
        for n in groups {
            let next = log.last().0 + 1;
            add(&mut log, &(next..next + n).map(plain).collect::<Vec<_>>());
            log.commit().unwrap();
            ends.push((log.last().0, log.segments()[0].bytes));
        }
        drop(log);
        let path = path_of(dir.path(), Pos(1));
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(ends.last().unwrap().1 as usize);
        let cut = cut.index(bytes.len() + 1);
        fs::write(&path, &bytes[..cut]).unwrap();
        let Opened { log, found } = Log::open(dir.path(), ONE).unwrap();
        let whole = ends.iter().rev().find(|(_, end)| *end <= cut as u64).copied().unwrap_or((0, 0));
        prop_assert_eq!(log.last().0, whole.0);
        let torn = &bytes[(whole.1.max(HEAD_BYTES as u64) as usize).min(cut)..cut];
        let told = torn.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        prop_assert_eq!(found.cut_bytes, told as u64);
        prop_assert_eq!(found.damage, vec![]);
        let (entries, holes) = read_all(&log.reader(), None);
        prop_assert!(holes.is_empty());
        prop_assert_eq!(entries.len() as u64, whole.0);
    }

    #[test]
    fn flipped_bytes_are_told_and_never_returned_as_good(
        at in prop::collection::vec(any::<prop::sample::Index>(), 1..4), small: bool) {
        let options = if small { SMALL } else { ONE };
        let dir = tempfile::tempdir().unwrap();
        let (_, mut log) = faulty(dir.path(), &options);
        fill(&mut log, 150);
        let segments = log.segments();
        drop(log);
        for (i, at) in at.iter().enumerate() {
            let segment = segments[(i * 7) % segments.len()];
            let path = path_of(dir.path(), segment.first);
            flip(&path, at.index(fs::metadata(&path).unwrap().len() as usize) as u64);
        }
        let Opened { log, found } = Log::open(dir.path(), options).unwrap();
        let (entries, holes) = read_all(&log.reader(), None);
        prop_assert!(entries.iter().all(|e| e.bytes == plain(e.pos.0)));
        let lost: u64 = holes.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
        prop_assert_eq!(entries.len() as u64 + lost, log.last().0);
        prop_assert!(lost <= at.len() as u64 + 1);
        // What was last may be taken for torn; all else is a hole at most.
        prop_assert!(log.last().0 >= 150 - at.len() as u64 || found.cut_bytes > 0);
        prop_assert!(log.last().0 >= 150 - 2 * at.len() as u64);
        let expected: Vec<_> = log.reader().verify(|_, _| {}).unwrap().iter().map(|d| (d.first, d.last)).collect();
        prop_assert_eq!(holes, expected);
    }
}
