//! A mind that has much to say, and who waits for it meanwhile.

use super::*;
use crate::policy::{Policy, Row};
use std::any::Any;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Always has something to say, and is behind, until it is told to be still.
struct Talker(Arc<AtomicBool>);

impl Policy for Talker {
    fn decide(&self, _: &State, _: i64, _: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        Vec::new()
    }
    fn next_due_us(&self) -> Option<i64> {
        self.is_behind().then_some(0)
    }
    fn on_due(&self, _: &State, _: i64) -> Vec<Draft> {
        if self.is_behind() { vec![message(Lane::Routine, b"said")] } else { Vec::new() }
    }
    fn is_behind(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
    fn apply(&mut self, _: Pos, _: &Header<'_>, _: &[u8]) {}
    fn take_rows(&mut self) -> Vec<Row> {
        Vec::new()
    }
    fn load_row(&mut self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn message(lane: Lane, payload: &[u8]) -> Draft {
    Draft::new(&Header { lane, ..Header::local(Kind::Message, "") }, payload).unwrap()
}

#[test]
fn a_press_for_help_does_not_wait_for_what_the_rules_have_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().display());
    let config: Config = toml::from_str(&text).unwrap();
    let talks = Arc::new(AtomicBool::new(true));
    let minds = talks.clone();
    let (hub, engine, _) = open(&config, Arc::new(move || Box::new(Talker(minds.clone())))).unwrap();
    let node = Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config };
    let said = || node.hub.work().turns.load(Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    let begun = said();
    while said() < begun + 10 {
        assert!(Instant::now() < deadline, "a watchdog would take it for stuck");
        std::thread::yield_now();
    }
    // More than its queue holds: whoever floods waits.
    let mut routine: Vec<Ticket<Vec<Outcome>>> = Vec::new();
    run(async {
        for _ in 0..limits::ENGINE_QUEUE_MAX {
            routine.push(node.hub.offer(vec![message(Lane::Routine, b"flood")]).await.unwrap());
        }
    });
    let patient = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let press = || {
        let press = async { wait(node.hub.offer(vec![message(Lane::Urgent, b"sos")]).await?).await };
        patient
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), press).await })
            .expect("it waits")
            .unwrap()
    };
    let (one, two) = (press()[0], press()[0]);
    assert!(matches!((one, two), (Outcome::Committed(a), Outcome::Committed(b)) if a < b));
    // What is decided about it neither.
    let accept = async {
        let decide: Decide = Box::new(|_, _| vec![message(Lane::Urgent, b"coming")]);
        wait(node.hub.decide(Lane::Urgent, decide).await?).await
    };
    let accepted = patient.block_on(async { tokio::time::timeout(Duration::from_secs(20), accept).await });
    assert!(accepted.expect("it waits").is_ok());
    assert!(routine.last_mut().unwrap().try_recv().is_err(), "it is not its turn");
    talks.store(false, Ordering::SeqCst);
    for ticket in routine {
        assert!(matches!(run(wait(ticket)).unwrap()[0], Outcome::Committed(_)));
    }
    node.close();
}

/// So many wait, urgent and routine.
fn put(queues: &Queues, n: [usize; 2]) {
    run(async {
        for (lane, n) in Lane::ALL.into_iter().zip(n) {
            for _ in 0..n {
                let room = queues.of(lane).room(100).await.unwrap();
                let offered = vec![Offered::from(message(lane, b"1"))];
                queues.of(lane).send(Job::Offer { offered, reply: oneshot::channel().0, room }).await.unwrap();
            }
        }
    });
}

fn lane_of(job: &Job) -> char {
    match job {
        Job::Offer { offered, .. } if offered[0].lane() == Lane::Urgent => 'u',
        _ => 'r',
    }
}

#[test]
fn urgent_requests_come_first_and_starve_nobody() {
    let (queues, mut waiting) = Queues::new();
    put(&queues, [20, 20]);
    let taken: String = std::iter::from_fn(|| waiting.next()).map(|job| lane_of(&job)).collect();
    assert_eq!(taken, format!("{0}{0}uuuu{1}", "uuuuuuuur", "r".repeat(18)));
}

#[test]
fn nothing_routine_joins_a_batch_behind_something_urgent_and_the_batch_after_eight_takes_all_that_is_routine() {
    let (queues, mut waiting) = Queues::new();
    let mut batch = || {
        let first = waiting.next();
        first.into_iter().chain(std::iter::from_fn(|| waiting.also())).map(|job| lane_of(&job)).collect::<String>()
    };
    put(&queues, [3, 20]);
    assert_eq!(batch(), "uuu");
    for _ in 0..5 {
        put(&queues, [1, 0]);
        assert_eq!(batch(), "u");
    }
    put(&queues, [2, 0]);
    assert_eq!(batch(), format!("{}uu", "r".repeat(20)));
    put(&queues, [1, 1]);
    assert_eq!(batch(), "u", "they begin anew");
    assert_eq!(batch(), "r");
}
