//! What the models stand on: a door over an engine in memory that can be held back and killed, the seeds of what
//! happens, and its story.

use super::fake::Flaw;
use super::*;

pub(super) struct Stage {
    pub rng: Rng,
    pub fake: Fake,
    broker: config::Broker,
    house: Option<House>,
    /// Commits are held back, or what is not urgent finds no room.
    pub held: bool,
    /// The latter.
    pub is_full: bool,
    /// With nothing coming, while something is missing at the end.
    patience: Duration,
    story: Vec<String>,
}

impl Stage {
    pub(super) async fn new(seed: u64, flaw: Option<Flaw>) -> Stage {
        Stage::with(seed, flaw, config::Broker::default()).await
    }

    pub(super) async fn with(seed: u64, flaw: Option<Flaw>, broker: config::Broker) -> Stage {
        let fake = Fake::with_flaw(flaw);
        let house = Some(House::with(&fake, broker.clone(), config::Access::default()).await);
        // What a flaw has lost will not come, however long one waits.
        let patience = if flaw.is_some() { Duration::from_millis(200) } else { PATIENCE };
        Stage { rng: Rng(seed), fake, broker, house, held: false, is_full: false, patience, story: Vec::new() }
    }

    pub(super) fn house(&self) -> &House {
        self.house.as_ref().expect("it is open between steps")
    }

    pub(super) fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    pub(super) fn patience(&self) -> Patience {
        Patience { max: self.patience, since: std::time::Instant::now(), seen: None }
    }

    pub(super) fn hold(&mut self) {
        self.fake.hold();
        self.held = true;
        self.tell("commits are held back");
    }

    /// Has no room but for what is urgent.
    pub(super) fn fill_queue(&mut self) {
        self.fake.fill_queue();
        (self.held, self.is_full) = (true, true);
        self.tell("there is room for what is urgent alone");
    }

    pub(super) fn release(&mut self) {
        self.is_full = false;
        if std::mem::take(&mut self.held) {
            self.fake.release();
            self.tell("commits are released");
        }
    }

    /// Kills the node and starts it again. The door that is gone.
    pub(super) async fn crash(&mut self) -> Arc<Door> {
        let rng = &mut self.rng;
        self.fake = self.fake.crash(|held| rng.below(held + 1));
        (self.held, self.is_full) = (false, false);
        let house = self.house.take().expect("it is open between steps");
        let door = house.door.clone();
        house.kill().await;
        self.house = Some(House::with(&self.fake, self.broker.clone(), config::Access::default()).await);
        self.tell("the node is killed");
        door
    }

    /// The last of it; a failure with all that led to it.
    pub(super) async fn end(self, seed: u64, outcome: Result<(), String>) -> Result<(), String> {
        self.house.expect("it is open between steps").kill().await;
        let notes: Vec<_> = self.fake.notes().iter().map(|n| format!("{n:?}")).collect();
        outcome.map_err(|e| format!("seed {seed}: {e}\n{}\n{}", self.story.join("\n"), notes.join("\n")))
    }
}

/// Waits for as long as something still changes.
pub(super) struct Patience {
    max: Duration,
    since: std::time::Instant,
    seen: Option<usize>,
}

impl Patience {
    /// `so_far`: any number that changes with what comes.
    pub(super) fn is_over(&mut self, so_far: usize) -> bool {
        if self.seen.replace(so_far) != Some(so_far) {
            self.since = std::time::Instant::now();
        }
        self.since.elapsed() > self.max
    }
}

pub(super) struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Plays a world: so many steps, then what must hold in the end.
pub(super) async fn play<W>(
    mut world: W,
    steps: usize,
    step: impl AsyncFn(&mut W) -> Result<(), String>,
    settle: impl AsyncFn(&mut W) -> Result<(), String>,
) -> (W, Result<(), String>) {
    for _ in 0..steps {
        if let Err(why) = step(&mut world).await {
            return (world, Err(why));
        }
    }
    let outcome = settle(&mut world).await;
    (world, outcome)
}

/// The seeds to be run: as the environment says, or the first so many.
pub(super) fn seeds(runs: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    match number("CITYBRAIN_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CITYBRAIN_MODEL_RUNS").unwrap_or(runs),
    }
}

/// Runs a model with each flaw, by so many seeds at most, until it has failed.
pub(super) async fn each_is_noticed<F: Future<Output = Result<(), String>>>(
    flaws: &[Flaw],
    runs: u64,
    run: impl Fn(u64, Option<Flaw>) -> F,
) {
    for flaw in flaws {
        let mut caught = false;
        for seed in 0..runs {
            if let Err(why) = run(seed, Some(*flaw)).await {
                eprintln!("{flaw:?}: {}", why.lines().next().unwrap_or_default());
                caught = true;
                break;
            }
        }
        assert!(caught, "{flaw:?} goes unnoticed");
    }
}
