//! What rules cost: an event that no rule names, and one that ten of a thousand rules look at.
//!
//! The first is paid by every event that a node relays (150,000/s: 20 ns are 0.3 % of a core); the
//! second decides how many events a second a city with a thousand rules can take (20,000/s: 50 µs).

use citybrain_hub::policy::Policy;
use citybrain_hub::state::State;
use citybrain_node::brain::rules::Rules;
use citybrain_shared::Pos;
use citybrain_shared::config::{Config, Variables, parse};
use citybrain_shared::record::{Direction, Header, Kind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::fmt::Write as _;
use std::hint::black_box;

fn config(rules: &str) -> Config {
    let parsed = parse(&format!("[node]\naddress = \"c\"\ndata = \"/x\"\n{rules}"), &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.config.expect("a config")
}

/// A thousand rules over a hundred types: conditions, durations and windows, true above that level.
fn thousand(level: f64) -> String {
    let mut text = String::new();
    for i in 0..1000 {
        let more = match i / 100 % 3 {
            0 => "for = \"5m\"\nclear = \"event.data.level < 2.5\"",
            1 => "window = { within = \"10m\", value = \"event.data.level\" }\nclear = \"window.avg < 2.0\"",
            _ => "clear = \"event.data.level < 2.5\"",
        };
        let when = match i / 100 % 3 {
            1 => format!("window.avg > {level:?} && window.count > 3"),
            _ => format!("event.data.level > {level:?}"),
        };
        let _ = write!(
            text,
            "[[rule]]\nname = \"r{i}\"\non = [\"city.t{}\"]\nby = \"event.subject\"\nwhen = \"{when}\"\n{more}\nthen = [{{ raise = {{ title = \"x\" }} }}]\n",
            i % 100
        );
    }
    text
}

/// Says what is due, as the engine does after each commit of some hundred records.
fn speak(rules: &mut Rules, state: &State, now_us: i64, n: &mut u64) {
    while rules.next_due_us().is_some_and(|due| due <= now_us) {
        for mut draft in rules.on_due(state, now_us) {
            draft.stamp(now_us, 0);
            let (header, payload) = draft.parts();
            *n += 1;
            rules.apply(Pos(*n), &header, payload);
        }
    }
}

/// 400 bytes, as the other benches have.
fn payload(i: u64, kind: &str) -> Vec<u8> {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{i:012}\",\"source\":\"/c/s/m/n/gauge\",\"type\":\"{kind}\",\"subject\":\"g{}\",\"time\":\"2026-07-01T08:00:00Z\",\"data\":{{\"level\":{}.5,\"text\":\"{}\"}}}}",
        i % 50,
        i % 80,
        "x".repeat(230)
    )
    .into_bytes()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("rules");
    group.throughput(Throughput::Elements(1));
    let other = payload(1, "city.other");
    let header = Header { direction: Direction::Up, ..Header::local(Kind::Event, "city.other") };
    for (name, text) in [("no rules", String::new()), ("none of 1000 rules", thousand(90.0))] {
        let mut rules = Rules::new(&config(&text));
        let state = State::default();
        group.bench_function(format!("decide and apply, {name}"), |b| {
            b.iter(|| {
                black_box(rules.decide(&state, 1, black_box(&header), black_box(&other)));
                rules.apply(Pos(1), black_box(&header), black_box(&other));
            });
        });
    }
    // Levels go to 79.5: the first thousand always say no, the second are mostly on.
    for (name, level) in [("that say no", 90.0), ("that hold", 20.0)] {
        let (types, state) = (100u64, State::default());
        let mut rules = Rules::new(&config(&thousand(level)));
        let kinds: Vec<String> = (0..types).map(|i| format!("city.t{i}")).collect();
        let events: Vec<(usize, Vec<u8>)> =
            (0..4096u64).map(|i| ((i * 7 % types) as usize, payload(i, &kinds[(i * 7 % types) as usize]))).collect();
        let (mut n, mut pos) = (0usize, 0u64);
        group.bench_function(format!("apply and say, 10 of 1000 rules {name}"), |b| {
            b.iter(|| {
                let (kind, payload) = &events[n % events.len()];
                let committed_us = 1_000_000_000 + n as i64 * 50;
                let header =
                    Header { committed_us, direction: Direction::Up, ..Header::local(Kind::Event, &kinds[*kind]) };
                pos += 1;
                rules.apply(Pos(pos), &header, payload);
                n += 1;
                if n.is_multiple_of(256) {
                    speak(&mut rules, &state, committed_us, &mut pos);
                }
                // As the engine does every half a second.
                if n.is_multiple_of(10_000) {
                    black_box(rules.take_rows());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
