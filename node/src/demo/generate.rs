//! A day in a city, made up: appeals of residents and readings of sensors, each kind with its own
//! rhythm. The same seed gives the same day, byte for byte.

use super::data::Planned;
use super::tree::Tree;
use bytes::Bytes;
use chrono::{DateTime, Duration, SecondsFormat};
use citybrain_shared::Tier;
use serde_json::{Value, json};

/// The day that is made up; a Monday.
const DAY: &str = "2026-06-15T00:00:00+08:00";

/// How often something happens, by hour of the day; only the proportions count.
type Rhythm = [u8; 24];
/// Residents: little at night, most in the morning and after work.
const RESIDENTS: Rhythm = [1, 1, 0, 0, 0, 1, 3, 7, 10, 10, 9, 8, 6, 6, 8, 8, 8, 8, 9, 10, 9, 6, 4, 2];
/// What is noticed in the dark.
const EVENING: Rhythm = [6, 4, 2, 1, 1, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 7, 10, 10, 9, 9, 8];
/// Coming and going.
const TRAFFIC: Rhythm = [1, 1, 1, 1, 1, 2, 5, 10, 10, 5, 4, 5, 6, 5, 4, 4, 5, 9, 10, 8, 6, 4, 3, 2];
/// A sensor that reports by the clock.
const STEADY: Rhythm = [1; 24];

struct Kind {
    /// `city.` is put before it.
    name: &'static str,
    /// Of 1,000 events.
    share: u32,
    rhythm: &'static Rhythm,
    urgent: bool,
    /// What it says; a reading's unit for a sensor.
    texts: &'static [&'static str],
    /// A sensor's smallest and largest reading.
    range: Option<(i64, i64)>,
}

const fn appeal(name: &'static str, share: u32, rhythm: &'static Rhythm, texts: &'static [&'static str]) -> Kind {
    Kind { name, share, rhythm, urgent: false, texts, range: None }
}

const fn sensor(
    name: &'static str,
    share: u32,
    rhythm: &'static Rhythm,
    unit: &'static [&'static str],
    range: (i64, i64),
) -> Kind {
    Kind { name, share, rhythm, urgent: false, texts: unit, range: Some(range) }
}

const KINDS: [Kind; 16] = [
    appeal(
        "appeal.garbage",
        75,
        &RESIDENTS,
        &["暴露垃圾：垃圾堆在单元门口", "暴露垃圾：大件家具占用消防通道", "垃圾桶满溢"],
    ),
    appeal("appeal.streetlight", 45, &EVENING, &["路灯不亮：小区东门外两盏", "路灯整夜闪烁"]),
    appeal("appeal.manhole", 20, &RESIDENTS, &["井盖松动，车过有响声", "井盖周边路面下沉"]),
    appeal("appeal.noise", 65, &EVENING, &["噪音：夜间施工", "噪音：广场舞音响", "噪音：楼上装修"]),
    appeal("appeal.leak", 40, &RESIDENTS, &["漏水：楼道水管渗水", "漏水：地下车库顶板滴水"]),
    appeal("appeal.parking", 55, &TRAFFIC, &["乱停车：堵住小区出入口", "乱停车：占用盲道"]),
    appeal("appeal.elevator", 25, &TRAFFIC, &["电梯异响", "电梯停在三楼不动，轿厢无人"]),
    appeal("appeal.service", 35, &RESIDENTS, &["咨询：老年人助餐点在哪里", "咨询：居住证怎么办理"]),
    sensor("sensor.smoke", 120, &STEADY, &["ppm"], (0, 40)),
    sensor("sensor.water-level", 130, &STEADY, &["mm"], (80, 420)),
    sensor("sensor.manhole", 80, &STEADY, &["degrees"], (0, 3)),
    sensor("sensor.parking", 140, &TRAFFIC, &["free places"], (0, 120)),
    sensor("sensor.air", 120, &STEADY, &["ug/m3 PM2.5"], (12, 96)),
    Kind {
        name: "alarm.smoke",
        share: 20,
        rhythm: &EVENING,
        urgent: true,
        texts: &["烟感报警：楼道烟雾浓度超过阈值"],
        range: None,
    },
    Kind {
        name: "alarm.manhole-open",
        share: 15,
        rhythm: &STEADY,
        urgent: true,
        texts: &["井盖缺失：井口敞开"],
        range: None,
    },
    Kind {
        name: "sos.button",
        share: 15,
        rhythm: &STEADY,
        urgent: true,
        texts: &["一键呼救：独居老人按下按钮"],
        range: None,
    },
];

/// SplitMix64: small, good enough for a day in a city, and the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `n` − 1; `n` is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }

    /// An index, as often as its weight says. Some weight is not 0.
    fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut at = self.below(weights.clone().sum());
        for (i, weight) in weights.enumerate() {
            if at < weight {
                return i;
            }
            at -= weight;
        }
        unreachable!("what is below the sum falls on one of the weights")
    }
}

/// `n` events of one day, in the order of their times. Counts them in `tree`.
pub fn day(tree: &mut Tree, seed: u64, n: usize) -> Vec<Planned> {
    let midnight = DateTime::parse_from_rfc3339(DAY).expect("the constant is a time");
    let mut random = Random::new(seed);
    let leaves: Vec<usize> = tree.of_tier(Tier::Neighbourhood).collect();
    let mut moments: Vec<(u64, usize)> = (0..n)
        .map(|_| {
            let kind = random.weighted(KINDS.iter().map(|k| u64::from(k.share)));
            let hour = random.weighted(KINDS[kind].rhythm.iter().map(|w| u64::from(*w)));
            (hour as u64 * 3_600_000 + random.below(3_600_000), kind)
        })
        .collect();
    moments.sort_unstable();
    let mut events = Vec::with_capacity(n);
    for (i, (ms, kind)) in moments.into_iter().enumerate() {
        let kind = &KINDS[kind];
        let leaf = leaves[random.below(leaves.len() as u64) as usize];
        tree.count(leaf);
        let address = &tree.places[leaf].address;
        let time = midnight + Duration::milliseconds(ms as i64);
        let family = kind.name.split('.').next().unwrap_or(kind.name);
        let device = random.below(12) + 1;
        let source = match family {
            "appeal" => format!("/{address}/residents"),
            _ => format!("/{address}/{}/{device}", kind.name.rsplit('.').next().unwrap_or(kind.name)),
        };
        let id = format!("{seed}-{i:06}");
        let text = kind.texts[random.below(kind.texts.len() as u64) as usize];
        let data: Value = match kind.range {
            Some((low, high)) => {
                json!({ "value": low + random.below((high - low + 1) as u64) as i64, "unit": text, "device": device })
            }
            None => {
                let channel = ["12345", "app", "网格员", "小程序"][random.below(4) as usize];
                json!({
                    "text": text,
                    "channel": if family == "appeal" { channel } else { "device" },
                    "building": random.below(18) + 1,
                })
            }
        };
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": format!("city.{}", kind.name),
            "time": time.to_rfc3339_opts(SecondsFormat::Millis, true),
            "datacontenttype": "application/json", "data": data,
        });
        if kind.urgent {
            event["priority"] = "urgent".into();
        }
        if family == "sos" {
            // By itself a press stays where it enters, for the names that may be in it; these have none.
            event["reach"] = "city".into();
        }
        events.push(Planned {
            leaf,
            source,
            id,
            urgent: kind.urgent,
            at_ms: ms,
            topic: format!("in/{}", kind.name.replace('.', "/")).into(),
            payload: Bytes::from(event.to_string()),
        });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::chengdu;

    #[test]
    fn the_same_seed_gives_the_same_day_and_another_seed_another() {
        let make = |seed| day(&mut chengdu::tree(15), seed, 500);
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }

    #[test]
    fn a_day_is_mostly_routine_has_its_hours_and_reaches_every_neighbourhood() {
        let mut tree = chengdu::tree(22);
        let events = day(&mut tree, 1, 4000);
        let urgent = events.iter().filter(|e| e.urgent).count();
        assert!((120..280).contains(&urgent), "{urgent}");
        let night = events.iter().filter(|e| (1..5).contains(&(e.at_ms / 3_600_000))).count();
        let morning = events.iter().filter(|e| (7..11).contains(&(e.at_ms / 3_600_000))).count();
        assert!(night * 3 < morning * 2, "{night} {morning}");
        assert!(events.is_sorted_by_key(|e| e.at_ms));
        assert!(tree.of_tier(Tier::Neighbourhood).all(|leaf| tree.places[leaf].events > 100));
        assert_eq!(tree.places[0].events, 4000);
        let mut ids: Vec<_> = events.iter().map(|e| (&e.source, &e.id)).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4000);
    }

    #[test]
    fn the_shares_add_up_to_a_thousand() {
        assert_eq!(KINDS.iter().map(|k| k.share).sum::<u32>(), 1000);
    }
}
