//! What a commit and a read cost. The questions: is it worth waiting for a larger group (no: the fsync
//! is most of a commit, and what arrives meanwhile makes the next group), and what does the tail save.
//!
//! Records of 400 bytes, 2 vCPU, ext4 on a virtual disk, otherwise idle: a commit of 1 / 16 / 64 / 256
//! takes 0.11 / 0.18 / 0.23 / 0.27 ms (p50), 0.2 / 0.3 / 0.3 / 0.8 ms (p99). With both cores taken by
//! others it is 4 ms, a scheduler's tick, whatever its size.

use citybrain_hub::log::{Log, Options};
use citybrain_shared::record::{Header, Kind};
use citybrain_shared::{Lane, Pos};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Records of 400 bytes with distinct keys.
fn records(n: usize, from: u64) -> Vec<Vec<u8>> {
    (0..n as u64)
        .map(|i| {
            let key = (from + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let header = Header { key, ..Header::local(Kind::Event, "street.lamp.failed") };
            let mut out = Vec::new();
            header.encode(&[b'x'; 342], &mut out).expect("the name is short");
            out
        })
        .collect()
}

fn open(dir: &std::path::Path, tail_bytes: usize) -> Log {
    let options = Options { tail_bytes, ..Options::default() };
    Log::open(dir, options).expect("a fresh folder opens").log
}

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    for size in [1, 16, 64, 256] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut log = open(dir.path(), 4 << 20);
        let some = records(size, 0);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("fsync/{size}"), |b| {
            b.iter(|| {
                some.iter().for_each(|r| _ = log.append([r.as_slice()]));
                log.commit().expect("the disk works")
            });
        });
        group.bench_function(format!("append only/{size}"), |b| {
            b.iter(|| {
                log.rollback();
                some.iter().for_each(|r| _ = log.append([r.as_slice()]));
            });
        });
        log.rollback();
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    const N: usize = 200_000;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut log = open(dir.path(), 4 << 20);
    for from in (0..N).step_by(1000) {
        let some = records(1000, from as u64);
        log.append(some.iter().map(Vec::as_slice));
        log.commit().expect("the disk works");
    }
    let reader = log.reader();
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(256));
    let routine = Some(Lane::Routine);
    group.bench_function("256 from the tail", |b| {
        b.iter(|| reader.read(Pos(N as u64 - 3000), routine, 256, 128 << 10).expect("it is there"));
    });
    group.bench_function("256 from disk", |b| {
        b.iter(|| reader.read(Pos(50_000), routine, 256, 128 << 10).expect("it is there"));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one from disk", |b| b.iter(|| reader.get(Pos(50_000)).expect("it is there")));
    group.bench_function("no urgent ones", |b| {
        b.iter(|| reader.read(Pos(0), Some(Lane::Urgent), 256, 128 << 10).expect("none is damaged"));
    });
    let mut key = 0_u64;
    group.bench_function("find an absent key, one sealed segment", |b| {
        b.iter(|| {
            key = key.wrapping_add(0x6a09_e667_f3bc_c909);
            reader.find(key).expect("the index reads")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = commit, read
}
criterion_main!(benches);
