//! What a record costs to read where it enters, and to carry over a link.
//! Answers: is an event parsed once under a microsecond, and does a hop stay far below that?

use citybrain_shared::address::Tier;
use citybrain_shared::event::{self, Envelope};
use citybrain_shared::record::{Direction, Header, Kind, Origin};
use citybrain_shared::wire::{self, FrameBuilder, FrameHead, Message, Party};
use citybrain_shared::{Lane, LogId, Pos};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn event() -> Vec<u8> {
    let mut e = br#"{"specversion":"1.0","id":"0001-0000000001","source":"cam-0001","type":"traffic.count","datacontenttype":"application/json","data":{"ts":1700000000000000000,"lat":31.230416,"lon":121.473701,"vehicles":12,"bikes":7,"mean_kmh":31.5,"note":""#.to_vec();
    while e.len() < 397 {
        e.push(b'a' + (e.len() % 26) as u8);
    }
    e.extend_from_slice(b"\"}}");
    e
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut b = FrameBuilder::default();
    let header = Header { direction: Direction::Up, reach: Tier::City, ..Header::local(Kind::Event, "traffic.count") };
    let own = Origin { address: "bench/street/community/neighbourhood", log: LogId(7), pos: Pos(1) };
    for seq in 1..=256 {
        b.push(&Header { seq, ..header }, own, 0, payload);
    }
    let head = FrameHead {
        from: Party::default(),
        lease: 1,
        log: LogId(7),
        lane: Lane::Routine,
        after: Pos(0),
        upto: Pos(256),
        after_chain: 0,
        upto_chain: 1,
        records: 0,
    };
    b.finish(head, |_| None)
}

fn benches(c: &mut Criterion) {
    let event = event();
    let mut g = c.benchmark_group("event");
    g.throughput(Throughput::Elements(1));
    g.bench_function("parse the envelope, 400 B", |b| {
        b.iter(|| Envelope::parse(black_box(&event)).map(|e| e.kind.len()))
    });
    g.bench_function("what it is told by, 400 B", |b| {
        b.iter(|| event::identity(black_box(&event)).map(|e| e.id.len()))
    });
    g.finish();

    let bytes = frame(&event);
    let mut g = c.benchmark_group("frame of 256 records");
    g.throughput(Throughput::Elements(256));
    g.bench_function("build", |b| b.iter(|| frame(black_box(&event)).len()));
    g.bench_function("read and write as records", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            let Ok(Message::Frame(f)) = wire::decode(black_box(&bytes), |_, _| None) else { panic!("a good frame") };
            for r in f.records().flatten() {
                r.header(5).encode(r.payload, &mut out).expect("it fits");
            }
            out.len()
        })
    });
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
