//! What those who ask over HTTP may hold of the node at a time: threads, and streams that are under way.
//!
//! The runtime has few threads for what must wait or count for long
//! (`THREADS` in `run`), and a login at the door, a child's among them, needs one for its
//! password, a link one for its parent's name. So questions take turns, and leave some to those. Whoever
//! goes away while he waits has no turn; what has begun on a thread goes on to its end, which is bounded by
//! who asked for it.

use citybrain_hub::log;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Threads that read the log or count for a question: a gatehouse's box has two cores.
pub const READING_MAX: usize = 2;
/// Threads that wait for a receiver whom a dead letter is sent to again, up to 15 s each.
pub const SENDING_MAX: usize = 2;
/// Goes through all cases. One that is far down in Open311's pages remembers 100,000 keys, 13 MB.
const SWEEPING_MAX: usize = 4;
/// Streams of lines. One holds up to three chunks of a quarter of a megabyte for a slow client.
const STREAMS_MAX: usize = 64;
/// How long a question waits for its turn before it is told that the node is busy.
const WAIT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub struct Turns {
    reading: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    sweeping: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Turns {
        let of = |places| Arc::new(Semaphore::new(places));
        Turns {
            reading: of(READING_MAX),
            sending: of(SENDING_MAX),
            sweeping: of(SWEEPING_MAX),
            streams: of(STREAMS_MAX),
        }
    }
}

/// Held as long as it is under way.
pub type Place = OwnedSemaphorePermit;

/// Why there was no turn, or nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the node is busy with other {0}: there was no turn within {wait} s", wait = WAIT.as_secs())]
    Busy(&'static str),
    #[error("it ended in a panic")]
    Panicked,
    #[error("the log does not read")]
    Log(#[from] log::Error),
}

impl Turns {
    /// Reads the log on a thread.
    ///
    /// # Errors
    /// The log does not read, or there is no turn for it.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, log::Error> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.count(work).await??)
    }

    /// Does what takes long on a thread.
    ///
    /// # Errors
    /// There is no turn for it.
    pub async fn count<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        on_thread(place(&self.reading, "questions").await?, work).await
    }

    /// As [`Turns::count`], for a stream's next part: it has been let in, and waits as long as it must.
    ///
    /// # Errors
    /// The work ended in a panic.
    pub async fn go_on<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        on_thread(self.reading.clone().acquire_owned().await.map_err(|_| Error::Busy("questions"))?, work).await
    }

    /// Sends something to somebody else, and waits for the answer.
    ///
    /// # Errors
    /// There is no turn for it.
    pub async fn send<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        on_thread(place(&self.sending, "posts").await?, work).await
    }

    /// For whoever goes through all cases, part by part.
    ///
    /// # Errors
    /// There are too many who do.
    pub async fn sweep(&self) -> Result<Place, Error> {
        place(&self.sweeping, "questions about cases").await
    }

    /// # Errors
    /// There are too many streams.
    pub async fn stream(&self) -> Result<Place, Error> {
        place(&self.streams, "streams").await
    }
}

async fn on_thread<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    done.await.map_err(|_| Error::Panicked)
}

async fn place(places: &Arc<Semaphore>, what: &'static str) -> Result<OwnedSemaphorePermit, Error> {
    match tokio::time::timeout(WAIT, places.clone().acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(Error::Busy(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn what_waits_has_its_turn_when_another_is_done() {
        let turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..STREAMS_MAX {
            held.push(turns.stream().await.unwrap());
        }
        let mut next = tokio::spawn(async move { turns.stream().await.is_ok() });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err(), "there is none left");
        held.pop();
        assert!(tokio::time::timeout(Duration::from_secs(10), next).await.expect("its turn").unwrap());
    }

    #[test]
    fn however_many_ask_a_login_and_a_name_find_a_thread() {
        let runtime = crate::run::runtime(1).unwrap();
        runtime.block_on(async {
            let turns = Turns::default();
            let (go, wait) = mpsc::channel::<()>();
            let wait = Arc::new(parking_lot::Mutex::new(wait));
            let mut asked = Vec::new();
            for i in 0..100 {
                let (turns, wait) = (turns.clone(), wait.clone());
                let long = move || wait.lock().recv().is_ok();
                asked.push(tokio::spawn(async move {
                    if i % 2 == 0 { turns.count(long).await } else { turns.send(long).await }
                }));
            }
            tokio::task::yield_now().await;
            // Two passwords are hashed at a time; a name is looked up.
            let others: Vec<_> = (0..3).map(|n| tokio::task::spawn_blocking(move || n)).collect();
            for other in others {
                tokio::time::timeout(Duration::from_secs(10), other).await.expect("there is a thread").unwrap();
            }
            drop(go);
            // Who is gone has no turn any more.
            asked.iter().for_each(|task| task.abort());
        });
    }
}
