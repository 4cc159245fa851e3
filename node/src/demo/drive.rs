//! The day itself: publishes it, kills nodes, sends the notice, and waits until all has settled.

use super::account::{Notice, Published};
use super::data::Script;
use super::errands::{Done as Errand, Errands};
use super::processes::Processes;
use super::town::{self, Press};
use super::watch::Watch;
use super::{DemoArgs, SETTLE_MAX};
use crate::ask::Fail;
use crate::mqtt_publisher::{self, Message, Target};
use citybrain_shared::Tier;
use citybrain_shared::words::with_causes;
use miette::{IntoDiagnostic, miette};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A killed node stays away this long: links notice, publishers queue.
const AWAY: Duration = Duration::from_millis(1_500);
/// Messages that one publisher has under way.
const WINDOW: usize = 256;

/// What the tasks of a running demo share.
pub(super) struct Shared {
    pub(super) acknowledged: Vec<AtomicBool>,
    /// For each place of the tree, what was acknowledged at or below it.
    pub(super) due: Arc<Vec<AtomicU64>>,
    pub(super) published_count: AtomicU64,
    pub(super) doing: Mutex<String>,
    /// Lines to be shown above the moving picture.
    pub(super) said: Mutex<Vec<String>>,
}

impl Shared {
    pub(super) fn new(script: &Script) -> Shared {
        Shared {
            acknowledged: script.events.iter().map(|_| AtomicBool::new(false)).collect(),
            due: Arc::new(script.tree.places.iter().map(|_| AtomicU64::new(0)).collect()),
            published_count: AtomicU64::new(0),
            doing: Mutex::new("publishing".into()),
            said: Mutex::new(Vec::new()),
        }
    }

    fn say(&self, text: String) {
        self.doing.lock().clone_from(&text);
        self.said.lock().push(text);
    }
}

pub(super) struct Driven {
    pub(super) published: Vec<Published>,
    pub(super) notice: Notice,
    pub(super) sos: Press,
    pub(super) errands: Option<Errand>,
    /// Cases that a node said it has opened.
    pub(super) opened: BTreeSet<String>,
    pub(super) killed: Vec<usize>,
}

/// Publishes, kills, sends the notice, and waits until all has settled or the deadline has passed.
pub(super) async fn drive(
    script: &Script,
    processes: &mut Processes,
    watch: &Watch,
    shared: &Arc<Shared>,
    args: &DemoArgs,
) -> miette::Result<Driven> {
    let tree = &script.tree;
    let begin = Instant::now();
    let mut publishers = publish(script, processes, shared, begin, Duration::from_secs(args.seconds));
    let events = script.events.len() as u64;
    let part = |share: f64| (events as f64 * share).ceil() as u64;

    let mut residents = town::Town::new(tree, processes);
    let open = move || residents.open().map(|press| (residents, press));
    let (residents, sos) = blocking("a case does not open", open).await?;
    let mut opened: BTreeSet<String> = residents.cases().chain([&sos.case]).cloned().collect();
    shared.say(format!("sos at {}: known to the city after {} ms; accepted from the street", sos.at, sos.to_city_ms));

    let victims = victims(script);
    // The community whose neighbourhoods ask for something while it is away.
    let errands = victims.first().and_then(|community| Errands::new(tree, processes, *community));
    let errands =
        blocking("what is free is not known", move || errands.map(|e| Ok((e.free()?, e))).transpose()).await?;
    let mut errands = errands.map(|(free, errands)| move || errands.run(free));
    let mut asked = None;
    let victims = if args.no_kill { Vec::new() } else { victims };
    let mut notice = None;
    let mut killed = Vec::new();
    for (victim, share) in victims.into_iter().zip([0.3, 0.6]) {
        published(part(share), shared, &mut publishers, processes).await?;
        let place = &tree.places[victim];
        processes.kill(victim).await;
        killed.push(victim);
        let back = Instant::now() + AWAY;
        shared.say(format!("killed -9 {} ({}, {})", place.address, place.name, place.address.tier()));
        if notice.is_none() {
            // While one community is away: its neighbourhoods must get it all the same.
            notice = Some(send_notice(script, processes, shared).await?);
            asked = errands.take().map(tokio::task::spawn_blocking);
        }
        sleep_until(back).await;
        processes.start(victim).map_err(|e| miette!("{}", with_causes(&e)))?;
        shared.say(format!("started {} again", place.address));
    }
    if notice.is_none() {
        published(part(0.3), shared, &mut publishers, processes).await?;
        notice = Some(send_notice(script, processes, shared).await?);
        asked = errands.take().map(tokio::task::spawn_blocking);
    }
    let mut notice = notice.expect("sent in one of two places");
    let errands = match asked {
        Some(asked) => Some(answered("a rule, a service or a request is not as it should be", asked).await?),
        None => None,
    };
    if let Some(done) = &errands {
        opened.extend(done.cases().cloned());
        shared.say(done.say());
    }
    shared.say("communities work on the appeals".into());
    blocking("a case is not dealt with", move || residents.work()).await?;

    published(events, shared, &mut publishers, processes).await?;
    let settle = Instant::now() + SETTLE_MAX;
    shared.say("all is published; waiting for the last acknowledgements".into());
    while let Ok(Some(done)) = timeout_at(settle, publishers.join_next()).await {
        went_well(done, processes)?;
    }
    let published: Vec<Published> = script
        .events
        .iter()
        .zip(&shared.acknowledged)
        .map(|(event, acknowledged)| Published {
            leaf: event.leaf,
            source: event.source.clone(),
            id: event.id.clone(),
            urgent: event.urgent,
            acknowledged: acknowledged.load(Ordering::Relaxed),
        })
        .collect();
    shared.say("waiting until the city has all, and every receipt".into());
    let settle = Instant::now() + SETTLE_MAX;
    let mut trouble = None;
    while Instant::now() < settle {
        let (api, id) = (processes.nodes[0].api.clone(), notice.id.clone());
        match tokio::task::spawn_blocking(move || api.directive(&id)).await.into_diagnostic()? {
            Ok(now) => notice = now,
            Err(e) => trouble = Some(with_causes(&e)),
        }
        let has_all = shared.due.iter().enumerate().all(|(i, due)| watch.count(i) >= due.load(Ordering::Relaxed));
        if has_all && notice.targets > 0 && notice.delivered == notice.targets {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    if let (0, Some(trouble)) = (notice.targets, trouble) {
        shared.say(format!("the notice's receipts are not known: {trouble}"));
    }
    // Every neighbourhood was meant, whatever the city thinks.
    notice.targets = notice.targets.max(tree.of_tier(Tier::Neighbourhood).count() as u64);
    Ok(Driven { published, notice, sos, errands, opened, killed })
}

/// What blocks, on a thread of its own; `trouble` is what its error means.
pub(super) async fn blocking<T: Send + 'static>(
    trouble: &str,
    ask: impl FnOnce() -> Result<T, Fail> + Send + 'static,
) -> miette::Result<T> {
    answered(trouble, tokio::task::spawn_blocking(ask)).await
}

async fn answered<T>(trouble: &str, asked: JoinHandle<Result<T, Fail>>) -> miette::Result<T> {
    asked.await.into_diagnostic()?.map_err(|e| miette!("{trouble}: {}", with_causes(&e)))
}

/// Until so many events are with their publishers.
///
/// # Errors
/// When a publisher gives up, or a node ends by itself: then they never would be.
async fn published(
    goal: u64,
    shared: &Shared,
    publishers: &mut Publishing,
    processes: &mut Processes,
) -> miette::Result<()> {
    while shared.published_count.load(Ordering::Relaxed) < goal {
        while let Some(done) = publishers.try_join_next() {
            went_well(done, processes)?;
        }
        if let Some(ended) = processes.ended().first() {
            return Err(miette!("{ended}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn went_well(done: Result<Done, tokio::task::JoinError>, processes: &Processes) -> miette::Result<()> {
    let (leaf, done) = done.into_diagnostic()?;
    let node = &processes.nodes[leaf];
    done.map_err(|e| {
        miette!("publishing at {}: {}; its log is {}", node.address, with_causes(&e), node.log.display())
    })?;
    Ok(())
}

/// The busiest community, and the busiest neighbourhood that is not below it.
fn victims(script: &Script) -> Vec<usize> {
    let tree = &script.tree;
    let busiest = |tier: Tier, not_below: Option<usize>| {
        tree.of_tier(tier)
            .filter(|place| not_below.is_none_or(|other| !tree.upward(*place).any(|up| up == other)))
            .max_by_key(|place| (tree.places[*place].events, std::cmp::Reverse(*place)))
    };
    let community = busiest(Tier::Community, None);
    let neighbourhood = busiest(Tier::Neighbourhood, community).or_else(|| busiest(Tier::Neighbourhood, None));
    community.into_iter().chain(neighbourhood).collect()
}

async fn send_notice(script: &Script, processes: &Processes, shared: &Shared) -> miette::Result<Notice> {
    let city = script.tree.places[0].address.to_string();
    let targets = script.tree.of_tier(Tier::Neighbourhood).count() as u64;
    let api = processes.nodes[0].api.clone();
    let data = serde_json::json!({ "text": "暴雨橙色预警：请检查地下车库和井盖 / Heavy rain: look after garages and manholes" });
    let sent = tokio::task::spawn_blocking(move || api.send_notice(&city, data)).await.into_diagnostic()?;
    let id = sent.map_err(|e| miette!("the city does not take the notice: {}", with_causes(&e)))?;
    shared.say(format!("the city sent a notice to its {targets} neighbourhoods"));
    Ok(Notice { id, targets: 0, delivered: 0 })
}

/// What became of a publisher, with the place that it publishes at.
type Done = (usize, Result<mqtt_publisher::Totals, mqtt_publisher::Error>);
type Publishing = JoinSet<Done>;

/// One publisher for each neighbourhood with events, each at its own pace: one that waits for a
/// node which is away holds up no other.
fn publish(
    script: &Script,
    processes: &Processes,
    shared: &Arc<Shared>,
    begin: Instant,
    within: Duration,
) -> Publishing {
    let mut publishers = JoinSet::new();
    let span_ms = script.events.iter().map(|e| e.at_ms).max().unwrap_or(0).max(1);
    let mut queues: BTreeMap<usize, Vec<(Instant, Message)>> = BTreeMap::new();
    let mut latest = 0;
    for (number, event) in script.events.iter().enumerate() {
        // A row older than the one before it is played in its turn all the same.
        latest = event.at_ms.max(latest);
        let due = begin + within.mul_f64(latest as f64 / span_ms as f64);
        let message = Message { number: number as u64, topic: event.topic.clone(), payload: event.payload.clone() };
        queues.entry(event.leaf).or_default().push((due, message));
    }
    for (leaf, queue) in queues {
        let (messages, outbox) = mpsc::channel(WINDOW);
        let (tell, mut told) = mpsc::channel(WINDOW);
        let options = mqtt_publisher::Options {
            target: Target::local(processes.nodes[leaf].mqtt),
            tls: None,
            client_id: format!("demo-{}", script.tree.places[leaf].address.leaf()),
            window: WINDOW,
            give_up_after: Some(SETTLE_MAX),
        };
        let ours = shared.clone();
        tokio::spawn(async move {
            for (due, message) in queue {
                sleep_until(due).await;
                if messages.send(message).await.is_err() {
                    return;
                }
                ours.published_count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ours = shared.clone();
        let path: Vec<usize> = script.tree.upward(leaf).collect();
        let listening = tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                match event {
                    mqtt_publisher::Event::Acknowledged { number } => {
                        ours.acknowledged[number as usize].store(true, Ordering::Relaxed);
                        for place in &path {
                            ours.due[*place].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    mqtt_publisher::Event::Refused { number, reason } => {
                        ours.say(format!("an event was refused (number {number}): {reason}"));
                    }
                    _ => {}
                }
            }
        });
        publishers.spawn(async move {
            let done = mqtt_publisher::run(options, outbox, tell).await;
            // Its last acknowledgements are told, but perhaps not noted yet.
            let _ = listening.await;
            (leaf, done)
        });
    }
    publishers
}

#[cfg(test)]
mod tests {
    use super::super::{chengdu, data};
    use super::*;
    use std::path::Path;

    #[test]
    fn the_victims_are_a_community_and_a_neighbourhood_elsewhere() {
        let script = data::generated(1, 500, 22);
        let [community, neighbourhood] = victims(&script)[..] else { panic!("two victims") };
        assert_eq!(script.tree.places[community].address.tier(), Tier::Community);
        assert_eq!(script.tree.places[neighbourhood].address.tier(), Tier::Neighbourhood);
        assert!(script.tree.upward(neighbourhood).all(|up| up != community));
    }

    #[tokio::test]
    async fn a_node_that_ends_by_itself_ends_the_wait_for_its_events() {
        let dir = tempfile::tempdir().unwrap();
        let tree = chengdu::tree(15);
        let mut processes = Processes::new(Path::new("/bin/false"), dir.path(), &tree, None).unwrap();
        let shared = Shared {
            acknowledged: Vec::new(),
            due: Arc::default(),
            published_count: AtomicU64::new(3),
            doing: Mutex::default(),
            said: Mutex::default(),
        };
        published(3, &shared, &mut JoinSet::new(), &mut processes).await.unwrap();
        processes.start(7).unwrap();
        let told = published(4, &shared, &mut JoinSet::new(), &mut processes).await.unwrap_err().to_string();
        assert!(told.contains(&format!("{} ended by itself", processes.nodes[7].address)), "{told}");
        processes.kill(7).await;
        let mut publishers: Publishing = JoinSet::new();
        let error = mqtt_publisher::Error::Refused { host: "h".into(), port: 1, reason: "nobody is there".into() };
        publishers.spawn(async { (7, Err(error)) });
        let told = published(4, &shared, &mut publishers, &mut processes).await.unwrap_err().to_string();
        assert!(told.contains("publishing at"), "{told}");
    }
}
