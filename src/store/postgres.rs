//! PostgreSQL, over tokio-postgres and rustls. One server serves a database at a time; other processes may read and write beside it.
//!
//! Transactions are READ COMMITTED. A batch first locks the heads of its ledgers (`FOR UPDATE`, in sorted order); all that
//! acts change belongs to a fleet, or to the installation, and every act on it locks that ledger: the lock is what puts
//! them in order, and each statement after it sees what the holder before it committed. Unique indices decide the rest
//! (places, keys, names, generations, epoch numbers). SERIALIZABLE would add aborts of whole batches of 256 acts by
//! conflicts that these locks exclude anyway.

mod alone;
mod connect;
mod location;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use fleetmark_domain::Refusal;

use super::StoreError;
use super::backend::{Backend, Connection};
use super::migrations::bring_up_to_date;
use alone::ServerLock;
use connect::Driver;
pub use location::{PostgresLocation, PostgresLocationError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Keeps two servers from migrating at once. The number is arbitrary and never changes.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_lock(6074003512104397)";
const MIGRATION_UNLOCK: &str = "SELECT pg_advisory_unlock(6074003512104397)";

/// A PostgreSQL database.
pub struct Postgres {
    location: PostgresLocation,
    driver: Arc<Driver>,
    /// Of a server that serves.
    _lock: Option<ServerLock>,
}

impl Postgres {
    /// Connects, checks that commits are durable, and brings the schema up to date. Blocks; must not be called from within
    /// an asynchronous runtime.
    ///
    /// # Errors
    /// - [`StoreError::Unavailable`]: it cannot be reached, or would lose what it acknowledged.
    /// - [`StoreError::NewerSchema`]: a newer Fleetmark wrote it.
    pub fn open(location: PostgresLocation) -> Result<Self, StoreError> {
        let driver = Arc::new(Driver::new(&location)?);
        let postgres = Self { location, driver, _lock: None };
        let mut rows = postgres.connect_writer()?;
        rows.run(MIGRATION_LOCK)?;
        let migrated = bring_up_to_date(&mut rows.connection, MIGRATIONS, StoreError::Unavailable);
        rows.run(MIGRATION_UNLOCK)?;
        migrated?;
        Ok(postgres)
    }

    /// Keeps every other server out, for as long as this lives: each signs the heads that it remembers, and a second one would sign
    /// what the first has outgrown. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Locked`]: another server serves the database.
    pub fn alone(self) -> Result<Self, StoreError> {
        let lock = ServerLock::take(Arc::clone(&self.driver), self.location.clone())?;
        Ok(Self { _lock: Some(lock), ..self })
    }
}

impl Backend for Postgres {
    type Connection = PostgresRows;

    const EMBEDDED: bool = false;

    fn connect_writer(&self) -> Result<PostgresRows, StoreError> {
        let mut rows = self.driver.connect(&self.location)?;
        // A statement or a lock that takes this long will not come to an end any more.
        rows.run("SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'")?;
        // Each time: after a failover or a restart the settings may be others.
        if !self.location.danger_async_replication {
            connect::check_durability(&mut rows)?;
        }
        Ok(rows)
    }

    fn connect_reader(&self) -> Result<PostgresRows, StoreError> {
        let mut rows = self.driver.connect(&self.location)?;
        rows.run("SET statement_timeout = '30s'; SET default_transaction_read_only = on")?;
        Ok(rows)
    }

    fn copy_to(&self, _: &Path) -> Result<(), StoreError> {
        Err(Refusal::BackedUpElsewhere.into())
    }
}

/// A connection to the database.
pub struct PostgresRows {
    connection: AsyncConnectionWrapper<AsyncPgConnection>,
    /// Set by the task that drives the connection, when it ends.
    closed: Arc<AtomicBool>,
}

impl PostgresRows {
    #[expect(clippy::unused_self, reason = "the queries, written once, ask the connection")]
    fn fault(&self, error: Error) -> StoreError {
        match &error {
            Error::DatabaseError(DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::SerializationFailure, _) => {
                StoreError::Collision
            }
            Error::DatabaseError(_, information) => {
                let message = information.message();
                // SQLSTATE 53100 disk_full, 55P03 lock_not_available, 40P01 deadlock_detected; diesel gives the text alone.
                if message.contains("No space left on device") {
                    StoreError::Full(Box::new(error))
                } else if message.contains("lock timeout") || message.contains("deadlock detected") {
                    StoreError::Locked(Box::new(error))
                } else {
                    StoreError::Unavailable(Box::new(error))
                }
            }
            Error::DeserializationError(_) => StoreError::Unreadable { what: "column" },
            _ => StoreError::Unavailable(Box::new(error)),
        }
    }

    fn run(&mut self, statements: &str) -> Result<(), StoreError> {
        self.connection.batch_execute(statements).map_err(|error| self.fault(error))
    }
}

impl Connection for PostgresRows {
    fn begin_write(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    }

    fn begin_read(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    }

    /// PostgreSQL answers the COMMIT of a transaction that has failed with ROLLBACK and no error; an act's failed statement
    /// is an error of the act, so that such a transaction is never committed.
    fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT")
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        self.run("ROLLBACK")
    }

    fn stands(&self) -> bool {
        !self.closed.load(std::sync::atomic::Ordering::Acquire)
    }
}

// A round trip costs more than a long statement.
rows!(PostgresRows, 100, for_update);

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
