//! One server at a time: a session's advisory lock, on a connection that is kept for it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::connect::Driver;
use super::{PostgresLocation, PostgresRows};
use crate::store::StoreError;
use crate::store::backend::Connection as _;

/// Keeps a second server out. The number is arbitrary and never changes.
const SERVER_LOCK: &str = "SELECT pg_advisory_lock(6074003512104398)";
/// How long a server that starts waits: the one before may be on its way out.
const PATIENCE: &str = if cfg!(test) { "1s" } else { "10s" };
/// How long one waits that lost the lock, each time.
const AGAIN: &str = "1s";
/// How often it is looked whether the connection still stands.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(5) };

/// The lock, as long as this lives.
pub struct ServerLock {
    _held: Sender<()>,
}

impl ServerLock {
    /// Takes the lock. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Locked`]: another server has it.
    pub fn take(driver: Arc<Driver>, location: PostgresLocation) -> Result<Self, StoreError> {
        let mut lock = Some(hold(&driver, &location, PATIENCE)?);
        let (held, dropped) = channel();
        let keep = move || {
            // Nothing is ever sent: this ends when the other end is dropped.
            while dropped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if lock.as_mut().is_some_and(stands) {
                    continue;
                }
                if lock.take().is_some() {
                    metrics::counter!("fleetmark_alarms_total", "alarm" => "store_lock_lost").increment(1);
                    tracing::warn!(
                        alarm = "store_lock_lost",
                        "another server may begin to use the database; the lock is taken again"
                    );
                }
                match hold(&driver, &location, AGAIN) {
                    Ok(rows) => {
                        tracing::info!("the database is this server's alone again");
                        lock = Some(rows);
                    }
                    Err(error) => {
                        tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the database's lock is not had");
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-lock".to_owned()).spawn(keep);
        thread.map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        Ok(Self { _held: held })
    }
}

fn stands(rows: &mut PostgresRows) -> bool {
    rows.stands() && rows.run("SELECT 1").is_ok()
}

fn hold(driver: &Driver, location: &PostgresLocation, patience: &str) -> Result<PostgresRows, StoreError> {
    let mut rows = driver.connect(location)?;
    // Where this machine is gone without a word, the lock is free half a minute later.
    rows.run("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3")?;
    rows.run(&format!("SET lock_timeout = '{patience}'"))?;
    match rows.run(SERVER_LOCK) {
        Ok(()) => Ok(rows),
        Err(StoreError::Locked(_)) => {
            Err(StoreError::Locked("another server serves this database, one does so at a time: stop that one first".into()))
        }
        Err(error) => Err(error),
    }
}
