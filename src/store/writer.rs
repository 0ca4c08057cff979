//! The one batching writer of a process: a thread with a connection of its own, and two lanes.
//!
//! It takes what waits, at most [`BATCH`] acts, into one transaction, and never waits for more: while one batch is being
//! committed the next one gathers. A batch that fails is run again singly, so that one bad act harms no other.

mod batch;

use std::any::Any;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::backend::Backend;
use super::queue::Queue;
use super::{ErasedAct, SharedHeadSigner, StoreError};
use batch::Performer;

/// How many acts a transaction holds at most.
pub const BATCH: usize = 256;

/// What an act's caller gets.
pub type Answer = Result<Box<dyn Any + Send>, StoreError>;

/// An act that waits, and where its answer goes.
pub struct Job {
    act: Box<dyn ErasedAct>,
    answer: oneshot::Sender<Answer>,
}

/// The writer's handle.
pub struct Writer {
    queue: Arc<Queue<Job>>,
    ended: tokio::sync::watch::Receiver<bool>,
}

impl Writer {
    /// Connects, and starts the thread.
    pub fn start<B: Backend>(backend: Arc<B>, signer: SharedHeadSigner) -> Result<Self, StoreError> {
        let connection = backend.connect_writer()?;
        let queue = Arc::new(Queue::<Job>::default());
        let (end, ended) = tokio::sync::watch::channel(false);
        let jobs = Arc::clone(&queue);
        let run = move || {
            let mut performer = Performer::new(backend, connection, signer);
            while let Some(batch) = jobs.take(BATCH) {
                performer.perform(batch);
            }
            drop(performer);
            end.send_replace(true);
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(run);
        thread.map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        Ok(Self { queue, ended })
    }

    /// Performs an act; see [`Store::write`](super::Store::write).
    pub async fn write(&self, act: Box<dyn ErasedAct>) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.queue.push(act.lane(), Job { act, answer })?;
        answered.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// How many acts wait: urgent, ordinary.
    pub fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    /// Finishes what is queued and ends the thread.
    pub async fn stop(&self) {
        self.queue.stop();
        // An error means that the thread is gone already.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

#[cfg(test)]
mod tests;
