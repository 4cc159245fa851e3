//! The store as the engine uses it, and over what damage does to its files.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(super) const CACHE: u64 = 1 << 20;
pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn open(dir: &Path) -> (Store, Opened) {
    Store::open(dir, CACHE).unwrap()
}

pub(super) fn row(key: &str, value: &[u8]) -> Row {
    (key.as_bytes().to_vec(), Some(value.to_vec()))
}

fn db(dir: &Path) -> PathBuf {
    dir.join("state").join("db")
}

/// A store with 300 rows at 20, snapshots at 10 and 20, and one more row at 25.
pub(super) fn filled(dir: &Path) -> Model {
    let (mut store, opened) = open(dir);
    assert_eq!(opened, Opened::default());
    let mut model = Model::new();
    for upto in [10, 20, 25] {
        let n = if upto == 25 { 1 } else { 300 };
        let rows: Vec<Row> = (0..n).map(|i| row(&format!("row/{i}"), format!("{upto} {i}").as_bytes())).collect();
        model.extend(rows.iter().cloned().map(|(k, v)| (k, v.unwrap())));
        store.write(rows, Pos(upto)).unwrap();
        if upto < 25 {
            store.snapshot(Pos(upto)).unwrap();
        }
    }
    model
}

fn at(dir: &Path) -> (u64, usize, Option<String>) {
    let (_, opened) = open(dir);
    (opened.upto.0, opened.rows.len(), opened.rebuilt)
}

#[test]
fn rows_and_their_position_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path());
    let (mut store, opened) = open(dir.path());
    assert_eq!((opened.upto, opened.rebuilt), (Pos(25), None));
    assert_eq!(opened.rows.into_iter().collect::<Model>(), model);
    assert_eq!(store.trim_floor(), Pos(10));
    let third = store.snapshot(Pos(25)).unwrap();
    assert_eq!((third.rows, third.trim_to), (300, Pos(20)));
    assert_eq!(snapshot::list(&dir.path().join("snapshots")).len(), 2);
}

#[test]
fn how_large_a_snapshot_will_be_is_known_before_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let large = vec![7; 100_000];
    store.write((0..50).map(|n| row(&format!("large/{n}"), &large)).collect(), Pos(1)).unwrap();
    // They go again, and one becomes smaller: sled's file keeps its size.
    let gone = (1..50).map(|n| (format!("large/{n}").into_bytes(), None)).chain([row("large/0", b"small")]);
    store.write(gone.collect(), Pos(2)).unwrap();
    let guess = store.snapshot_bytes();
    drop(store);
    let (mut store, _) = open(dir.path());
    assert_eq!(store.snapshot_bytes(), guess, "counted anew");
    let written = store.snapshot(Pos(2)).unwrap().bytes;
    assert!(guess <= written && written <= guess + 64, "{guess} {written}");
    assert!(store.bytes() > 10 * written, "or this test says nothing: {}", store.bytes());
}

#[test]
fn a_row_of_256_kib_and_a_key_of_many_bytes_are_kept_without_sleds_unsynced_files() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let keys = ["k".repeat(1000), "k".repeat(1001), "short".to_owned()];
    for (i, key) in keys.iter().enumerate() {
        store.write((0..20).map(|n| row(&format!("{key}{n}"), &vec![n; 256 * 1024])).collect(), Pos(1)).unwrap();
        store.write(vec![row(key, &vec![i as u8; 256 * 1024 - i]), row("empty", b"")], Pos(2)).unwrap();
    }
    store.write((0..20).map(|n| (format!("short{n}").into_bytes(), None)).collect(), Pos(3)).unwrap();
    store.write(vec![row("short", b"now it is short")], Pos(4)).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("state/blobs")).map_or(0, |files| files.count()), 0);
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!((opened.rebuilt, opened.upto, opened.rows.len()), (None, Pos(4), 44));
    let rows: Model = opened.rows.into_iter().collect();
    assert_eq!(rows[keys[1].as_bytes()], vec![1; 256 * 1024 - 1]);
    assert_eq!(rows[b"short".as_slice()], b"now it is short");
    assert_eq!(store.table.keys_below(b"pshort"), 0, "pieces of removed rows are removed");
}

#[test]
fn a_deleted_folder_is_made_anew_from_the_newest_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let (upto, rows, rebuilt) = at(dir.path());
    assert_eq!((upto, rows), (20, 300));
    assert_eq!(rebuilt.unwrap(), "The state was made anew from the snapshot at 20, because its folder was gone.");
    assert_eq!(at(dir.path()), (20, 300, None));
}

#[test]
fn a_deleted_folder_without_a_snapshot_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).0.write(vec![row("a", b"b")], Pos(3)).unwrap();
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let (upto, rows, rebuilt) = at(dir.path());
    assert_eq!((upto, rows), (0, 0));
    assert!(rebuilt.unwrap().contains("without a snapshot"));
}

#[test]
fn a_store_rebuilt_by_hand_begins_at_the_newest_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    rewind(dir.path(), Pos(u64::MAX)).unwrap();
    let (_, opened) = open(dir.path());
    assert_eq!((opened.upto, opened.rows.len(), opened.rebuilt.is_some()), (Pos(20), 300, true));
    assert!(dir.path().join("state.damaged-1").exists());
}

#[test]
fn a_damaged_newest_snapshot_does_not_condemn_a_good_state() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::write(snapshot::path_of(&dir.path().join("snapshots"), Pos(99)), b"half of one").unwrap();
    assert_eq!(at(dir.path()), (25, 300, None));
}

#[test]
fn half_a_snapshot_that_a_kill_has_left_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let half = snapshot::path_of(&dir.path().join("snapshots"), Pos(99)).with_extension("tmp");
    fs::write(&half, b"half of one").unwrap();
    assert_eq!(at(dir.path()).0, 25);
    assert!(!half.exists());
}

#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_older() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let newest = snapshot::path_of(&dir.path().join("snapshots"), Pos(20));
    let mut bytes = fs::read(&newest).unwrap();
    bytes[100] ^= 1;
    fs::write(&newest, bytes).unwrap();
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert_eq!(at(dir.path()).0, 10);
}

#[test]
fn a_sled_that_went_back_behind_the_newest_snapshot_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.write(vec![row("a", b"1")], Pos(1)).unwrap();
    drop(store);
    let old = Scratch::make(dir.path()).unwrap();
    copy_folder(&dir.path().join("state"), &old.0).unwrap();
    let (mut store, _) = open(dir.path());
    store.write(vec![row("a", b"2")], Pos(2)).unwrap();
    store.snapshot(Pos(2)).unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    copy_folder(&old.0, &dir.path().join("state")).unwrap();
    let (upto, _, rebuilt) = at(dir.path());
    assert_eq!(upto, 2);
    assert!(rebuilt.unwrap().contains("before the newest good snapshot"));
}

#[test]
fn the_copy_that_is_looked_at_is_for_its_owner_alone_and_does_not_stay() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    fs::create_dir_all(dir.join("state")).unwrap();
    let copy = Scratch::of(&dir, &dir.join("state")).unwrap();
    assert_eq!(copy.0.parent().unwrap(), fs::canonicalize(root.path()).unwrap());
    assert_eq!(fs::metadata(&copy.0).unwrap().permissions().mode() & 0o777, 0o700);
    // Of a process that was killed; no number is that high.
    let left = root.path().join(format!("{SCRATCH}4294967295-0"));
    fs::create_dir(&left).unwrap();
    fs::write(left.join("db"), "names").unwrap();
    let second = Scratch::of(&dir, &dir.join("state")).unwrap();
    assert!(!left.exists() && copy.0.exists());
    drop((copy, second));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn looking_at_a_stopped_store_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path());
    let bytes = fs::read(db(dir.path())).unwrap();
    let opened = read(dir.path(), CACHE).unwrap();
    assert_eq!((opened.rows.into_iter().collect::<Model>(), opened.upto), (model, Pos(25)));
    let verdict = verify(dir.path(), CACHE).unwrap();
    assert_eq!(verdict, Verdict { state: Ok((300, Pos(25))), snapshots: vec![(Pos(20), Ok(300)), (Pos(10), Ok(300))] });
    assert_eq!(fs::read(db(dir.path())).unwrap(), bytes);
    fs::write(db(dir.path()), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(snapshot::path_of(&dir.path().join("snapshots"), Pos(10)), b"?").unwrap();
    let verdict = verify(dir.path(), CACHE).unwrap();
    assert!(verdict.state.is_err() || verdict.state.is_ok_and(|(_, upto)| upto < Pos(25)));
    assert!(verdict.snapshots[0].1.is_ok() && verdict.snapshots[1].1.is_err());
}

#[test]
fn a_row_that_cannot_be_snapshotted_leaves_the_older_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (mut store, _) = open(dir.path());
    store.table.lose_row(b"row/7");
    assert!(matches!(store.snapshot(Pos(25)), Err(Error::Failed { .. })));
    assert_eq!(store.trim_floor(), Pos(10));
    assert!(!snapshot::path_of(&dir.path().join("snapshots"), Pos(25)).with_extension("tmp").exists());
}

#[test]
fn a_snapshot_that_is_given_up_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (mut store, _) = open(dir.path());
    assert!(matches!(store.snapshot_unless(Pos(25), &AtomicBool::new(true)), Err(Error::GivenUp)));
    assert_eq!(store.trim_floor(), Pos(10));
    assert!(!snapshot::path_of(&dir.path().join("snapshots"), Pos(25)).with_extension("tmp").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_good_or_older_or_made_anew_but_never_wrong(
        at in any::<prop::sample::Index>(), how in 0..4) {
        let dir = tempfile::tempdir().unwrap();
        let model = filled(dir.path());
        let path = db(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] ^= 0x10,
            1 => bytes[at..].iter_mut().take(4096).for_each(|b| *b = 0),
            2 => bytes.truncate(at),
            _ => bytes.truncate(bytes.len() - at.min(4000)),
        }
        fs::write(&path, bytes).unwrap();
        let (mut store, opened) = open(dir.path());
        let rows: Model = opened.rows.into_iter().collect();
        match (&opened.rebuilt, opened.upto) {
            (_, Pos(25)) => prop_assert_eq!(&rows, &model),
            (_, Pos(20)) => {
                prop_assert_eq!(rows.len(), 300);
                prop_assert_eq!(&rows[b"row/0".as_slice()], b"20 0");
                prop_assert!(opened.rebuilt.is_none() || dir.path().join("state.damaged-1").exists());
            }
            other => prop_assert!(false, "{:?}", other),
        }
        store.write(vec![row("new", b"1")], Pos(26)).unwrap();
    }

    #[test]
    fn the_store_agrees_with_a_map(
        writes in prop::collection::vec((prop::collection::vec((0..40_u8, prop::option::of(0..9000_usize)), 0..60), any::<bool>()), 1..8)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        let mut model = Model::new();
        for (upto, (rows, reopen)) in (1..).zip(writes) {
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|(key, len)| (vec![b'k', key], len.map(|len| vec![key; len])))
                .collect();
            for (key, value) in rows.clone() {
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
            store.write(rows, Pos(upto)).unwrap();
            if reopen {
                drop(store);
                let (again, opened) = open(dir.path());
                prop_assert_eq!((opened.upto, opened.rebuilt), (Pos(upto), None));
                prop_assert_eq!(opened.rows.into_iter().collect::<Model>(), model.clone());
                store = again;
            }
        }
    }
}
