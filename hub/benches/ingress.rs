//! What a publish costs until it is a draft for the log.
//! Answers: a CloudEvent as it is, and a device's own JSON through a mapping.

use citybrain_hub::door::{Ingress as _, Publish};
use citybrain_hub::ingress::Ingress;
use citybrain_shared::config::Config;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish::plain("bench", topic, payload)
}

fn benches(c: &mut Criterion) {
    let config: Config = toml::from_str(
        "[node]\naddress = \"c/s/m/n\"\ndata = \"d\"\n[[map]]\nfilter = \"zigbee2mqtt/+\"\nformat = \"json\"\nsubject = \"{2}\"\n",
    )
    .expect("a good config");
    let ingress = Ingress::new(&config);
    let event = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/cam/1","type":"traffic.count","data":{{"note":"{}"}}}}"#,
        "x".repeat(300)
    );
    let mut g = c.benchmark_group("ingress");
    g.throughput(Throughput::Elements(1));
    g.bench_function("a CloudEvent, 400 B", |b| {
        b.iter(|| ingress.take(black_box(&publish("in/cam/1", event.as_bytes()))).reason)
    });
    g.bench_function("a device's JSON, mapped", |b| {
        let p = publish("zigbee2mqtt/door", br#"{"contact":false,"battery":97,"linkquality":120}"#);
        b.iter(|| ingress.take(black_box(&p)).reason)
    });
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
