//! What those who ask over HTTP may hold of the node at a time: threads, and streams that are under way.
//!
//! The runtime has few threads for what must wait or count for long
//! (`THREADS` in `run`), and a login at the door, a child's among them, needs one for its
//! password, a link one for its parent's name. So questions take turns, and leave some to those. Whoever
//! goes away while he waits has no turn; what has begun on a thread goes on to its end, which is bounded by
//! who asked for it.

use super::Refusal;
use axum::http::StatusCode;
use axum::response::Response;
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

/// Marks an answer that may take as long as its client likes.
#[derive(Clone, Copy, Debug)]
pub struct Streamed;

impl Streamed {
    pub fn is(response: &Response) -> bool {
        response.extensions().get::<Streamed>().is_some()
    }
}

impl Turns {
    /// Reads the log on a thread.
    ///
    /// # Errors
    /// The log does not read, or there is no turn for it: 503.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, log::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.count(work).await?.map_err(|e| Refusal::log(&e))
    }

    /// Does what takes long on a thread.
    ///
    /// # Errors
    /// There is no turn for it: 503.
    pub async fn count<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        on_thread(place(&self.reading, "questions").await?, work).await
    }

    /// As [`Turns::count`], for a stream's next part: it has been let in, and waits as long as it must.
    ///
    /// # Errors
    /// The work ended in a panic.
    pub async fn go_on<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        on_thread(self.reading.clone().acquire_owned().await.map_err(|_| busy("questions"))?, work).await
    }

    /// Sends something to somebody else, and waits for the answer.
    ///
    /// # Errors
    /// There is no turn for it: 503.
    pub async fn send<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        on_thread(place(&self.sending, "posts").await?, work).await
    }

    /// For whoever goes through all cases, part by part.
    ///
    /// # Errors
    /// There are too many who do: 503.
    pub async fn sweep(&self) -> Result<Place, Refusal> {
        place(&self.sweeping, "questions about cases").await
    }

    /// # Errors
    /// There are too many streams: 503.
    pub async fn stream(&self) -> Result<Place, Refusal> {
        place(&self.streams, "streams").await
    }
}

async fn on_thread<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    done.await.map_err(|_| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(status, "bug", "it ended in a panic", "the node's log says more")
    })
}

async fn place(places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(WAIT, places.clone().acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(busy(what)),
    }
}

fn busy(what: &str) -> Refusal {
    let detail = format!("the node is busy with other {what}: there was no turn within {} s", WAIT.as_secs());
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail, "ask again in a moment, and for less at a time")
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
        assert_eq!(busy("streams").status, StatusCode::SERVICE_UNAVAILABLE);
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
