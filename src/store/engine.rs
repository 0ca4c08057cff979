//! The [`Store`] over a backend: a writer and a pool of readers, each a thread with a connection of its own.
//!
//! Own threads and not the runtime's blocking ones: the server runs several single-threaded runtimes, each of which would
//! bring up to 512 threads; here a reading waits in a bounded queue for one of a few connections. A look-up of a few rows in
//! an embedded database is done where it is asked: handing it over would cost more than it does.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::backend::{Backend, Connection};
use super::queue::Queue;
use super::writer::{Answer, Writer};
use super::{ErasedAct, ErasedRead, Lane, SharedHeadSigner, Store, StoreError};

/// How many readings run at once, beside look-ups.
pub const READERS: usize = 4;

/// A reading that waits, and where its answer goes.
type Reading = (ErasedRead, oneshot::Sender<Answer>);

/// The store over a backend.
pub struct Engine<B: Backend> {
    backend: Arc<B>,
    writer: Writer,
    readings: Arc<Queue<Reading>>,
    /// For look-ups in the caller's own thread: as many as there were threads that looked something up at once.
    idle: Mutex<Vec<Reader<B>>>,
}

impl<B: Backend> Engine<B> {
    /// Starts a writer and [`READERS`] readers. Blocks while they connect.
    pub fn start(backend: B, signer: SharedHeadSigner) -> Result<Self, StoreError> {
        let backend = Arc::new(backend);
        let writer = Writer::start(Arc::clone(&backend), signer)?;
        let engine = Self { backend, writer, readings: Arc::default(), idle: Mutex::default() };
        for number in 0..READERS {
            let mut reader =
                Reader { connection: Some(engine.backend.connect_reader()?), backend: Arc::clone(&engine.backend) };
            let readings = Arc::clone(&engine.readings);
            let run = move || {
                while let Some(batch) = readings.take(1) {
                    for (read, answer) in batch {
                        // A caller that went away misses its answer, nothing else.
                        let _ = answer.send(reader.read(read));
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("store-reader-{number}")).spawn(run);
            thread.map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        }
        Ok(engine)
    }
}

impl<B: Backend> Drop for Engine<B> {
    fn drop(&mut self) {
        self.readings.stop();
    }
}

#[async_trait]
impl<B: Backend> Store for Engine<B> {
    async fn write(&self, act: Box<dyn ErasedAct>) -> Answer {
        self.writer.write(act).await
    }

    async fn look(&self, read: ErasedRead) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.readings.push(Lane::Ordinary, (read, answer))?;
        answered.await.unwrap_or(Err(StoreError::Stopping))
    }

    async fn look_up(&self, read: ErasedRead) -> Answer {
        if !B::EMBEDDED {
            return self.look(read).await;
        }
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle().pop();
        let mut reader = known.unwrap_or_else(|| Reader { connection: None, backend: Arc::clone(&self.backend) });
        let answer = reader.read(read);
        idle().push(reader);
        answer
    }

    fn waiting(&self) -> (usize, usize) {
        self.writer.waiting()
    }

    fn is_alone(&self) -> bool {
        B::EMBEDDED
    }

    async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        let backend = Arc::clone(&self.backend);
        let file = PathBuf::from(file);
        on_a_thread(move || backend.copy_to(&file)).await
    }

    async fn stop(&self) {
        self.writer.stop().await;
        self.readings.stop();
    }
}

/// A reader thread's belongings.
struct Reader<B: Backend> {
    backend: Arc<B>,
    /// None after it broke, until the next reading.
    connection: Option<B::Connection>,
}

impl<B: Backend> Reader<B> {
    fn read(&mut self, read: ErasedRead) -> Answer {
        // One that was lost since the last reading is replaced before it fails this one.
        let sound = self.connection.take().filter(Connection::stands);
        let mut connection = sound.map_or_else(|| self.backend.connect_reader(), Ok)?;
        let result = catch_unwind(AssertUnwindSafe(|| read_all(&mut connection, read)))
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the reading panicked".into())));
        // A reading has nothing to commit. A connection that cannot even end it is replaced.
        if connection.rollback().is_ok() && connection.stands() {
            self.connection = Some(connection);
        }
        result
    }
}

fn read_all(connection: &mut impl Connection, read: ErasedRead) -> Result<Box<dyn Any + Send>, StoreError> {
    connection.begin_read()?;
    read(connection)
}

/// Runs what blocks on a thread of its own: for what is rare.
pub async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("store-work".to_owned()).spawn(move || {
        let _ = answer.send(work());
    });
    thread.map_err(|source| StoreError::Unavailable(Box::new(source)))?;
    answered.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store's thread panicked".into())))
}
