//! What is kept, and how it becomes durable. Decides nothing about who may do what.
//!
//! - [`model`]: the records, as the rest of the server sees them.
//! - [`rows`]: the row operations that a backend offers; written once, run by SQLite and PostgreSQL.
//! - [`acts`]: named transactions over rows: the checks and writes of every use case, in one place, for both backends.
//! - [`transaction`]: rows and ledger tails within one transaction.
//! - [`writer`]: the one batching writer of a process, with two lanes.
//! - [`engine`]: the [`Store`] over a backend: writer and read pool.
//! - [`backend`]: what the engine asks of a backend; [`sqlite`], [`postgres`]: the two.
//! - [`location`]: where the database is, and how it is opened.

#[macro_use]
mod queries;

pub mod acts;
pub mod backend;
#[cfg(test)]
mod contract;
pub mod engine;
pub mod location;
mod migrations;
pub mod model;
pub mod postgres;
mod queue;
pub mod rows;
mod schema;
pub mod sqlite;
pub mod transaction;
pub mod writer;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use fleetmark_domain::{LedgerName, Refusal};
use fleetmark_ledger::merkle::Head;

use model::StoredEntry;
use rows::Rows;
use transaction::Transaction;

/// Why the store did not do what it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The act's own checks refused it.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Two acts raced for the same unique value; the caller may read again and retry.
    #[error("another act took the same place")]
    Collision,
    /// Only its own reading told the act that it appends to this ledger too, which it had not named. It is to be performed again,
    /// naming both: heads are locked in sorted order before a batch begins, and never within it.
    #[error("the ledger {0} must be locked too")]
    NeedsLedger(LedgerName),
    /// The disk is full.
    #[error("the disk is full")]
    Full(#[source] BoxError),
    /// Another process holds the database.
    #[error("the database is locked by another process")]
    Locked(#[source] BoxError),
    /// The database file is damaged, or is no database.
    #[error("the database is damaged")]
    Damaged(#[source] BoxError),
    /// The database was written by a newer Fleetmark.
    #[error("the database's schema ({found}) is newer than this program knows ({known}); use the newer program")]
    NewerSchema {
        /// The newest migration in the database.
        found: String,
        /// The newest migration that this program has.
        known: String,
    },
    /// The database cannot be reached, or said no.
    #[error("the database cannot be used")]
    Unavailable(#[source] BoxError),
    /// A row does not hold what this program would have written.
    #[error("the database holds a {what} that cannot be read")]
    Unreadable {
        /// Which kind of row.
        what: &'static str,
    },
    /// The writer's queue is full.
    #[error("the writer's queue is full")]
    Busy,
    /// The store is stopping.
    #[error("the store is stopping")]
    Stopping,
}

/// Any error of a library below.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl StoreError {
    /// The name under which the doors refuse because of it.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => *refusal,
            Self::Collision | Self::Busy | Self::NeedsLedger(_) => Refusal::Overloaded,
            Self::Full(_) => Refusal::StorageFull,
            Self::Locked(_) => Refusal::StorageLocked,
            Self::Damaged(_) | Self::NewerSchema { .. } | Self::Unreadable { .. } => Refusal::StorageDamaged,
            Self::Unavailable(_) => Refusal::StorageUnavailable,
            Self::Stopping => Refusal::Stopping,
        }
    }

    /// The same error for another caller: what lies below it becomes text.
    pub(crate) fn again(&self) -> Self {
        let text = |source: &BoxError| -> BoxError { source.to_string().into() };
        match self {
            Self::Refused(refusal) => Self::Refused(*refusal),
            Self::Collision => Self::Collision,
            Self::NeedsLedger(ledger) => Self::NeedsLedger(ledger.clone()),
            Self::Full(source) => Self::Full(text(source)),
            Self::Locked(source) => Self::Locked(text(source)),
            Self::Damaged(source) => Self::Damaged(text(source)),
            Self::NewerSchema { found, known } => Self::NewerSchema { found: found.clone(), known: known.clone() },
            Self::Unavailable(source) => Self::Unavailable(text(source)),
            Self::Unreadable { what } => Self::Unreadable { what },
            Self::Busy => Self::Busy,
            Self::Stopping => Self::Stopping,
        }
    }
}

/// The writer's two lanes: bad news goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Revocations, holds, quarantines.
    Urgent,
    /// All else.
    Ordinary,
}

/// A named transaction. It makes all its checks before its first write, so that a refusal leaves nothing behind, and may
/// be performed again when the batch that it was in failed.
pub trait Act: Send + 'static {
    /// What the caller learns.
    type Outcome: Send + 'static;

    /// Its lane.
    fn lane(&self) -> Lane {
        Lane::Ordinary
    }

    /// The ledgers that it may append to. Their heads are locked, in sorted order, before the batch begins.
    fn ledgers(&self) -> Vec<LedgerName>;

    /// Checks and writes.
    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError>;
}

/// An [`Act`] whose outcome's type was erased.
pub trait ErasedAct: Send {
    /// See [`Act::lane`].
    fn lane(&self) -> Lane;
    /// See [`Act::ledgers`].
    fn ledgers(&self) -> Vec<LedgerName>;
    /// See [`Act::perform`].
    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Box<dyn Any + Send>, StoreError>;
}

impl<A: Act> ErasedAct for A {
    fn lane(&self) -> Lane {
        Act::lane(self)
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        Act::ledgers(self)
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Box<dyn Any + Send>, StoreError> {
        let outcome = Act::perform(self, transaction)?;
        Ok(Box::new(outcome))
    }
}

/// A reading, whose result's type was erased.
pub type ErasedRead = Box<dyn FnOnce(&mut dyn Rows) -> Result<Box<dyn Any + Send>, StoreError> + Send>;

/// The store, as the registrar sees it. Two primitives; [`commit`] and [`read`] give them their types.
#[async_trait]
pub trait Store: Send + Sync {
    /// Performs an act. Answers once its transaction is durable and the checkpoint over its entries is signed.
    async fn write(&self, act: Box<dyn ErasedAct>) -> Result<Box<dyn Any + Send>, StoreError>;

    /// Reads a consistent state of things.
    async fn look(&self, read: ErasedRead) -> Result<Box<dyn Any + Send>, StoreError>;

    /// Reads a few rows by their keys: what every request asks, and what an embedded database answers on the spot.
    async fn look_up(&self, read: ErasedRead) -> Result<Box<dyn Any + Send>, StoreError>;

    /// How many acts wait in the writer's queue: urgent, ordinary.
    fn waiting(&self) -> (usize, usize);

    /// Whether no other process writes into this database: what this process knows of its own commits is all that there is.
    fn is_alone(&self) -> bool {
        false
    }

    /// A consistent copy of the database in a file, where the backend can make one (SQLite); else
    /// [`Refusal::BackedUpElsewhere`].
    async fn copy_to(&self, file: &std::path::Path) -> Result<(), StoreError>;

    /// Finishes what is queued and stops.
    async fn stop(&self);
}

/// Performs an act; see [`Store::write`].
pub async fn commit<A: Act>(store: &dyn Store, act: A) -> Result<A::Outcome, StoreError> {
    let outcome = store.write(Box::new(act)).await?;
    outcome.downcast::<A::Outcome>().map(|outcome| *outcome).map_err(|_| StoreError::Unreadable { what: "outcome" })
}

/// Reads; see [`Store::look`].
pub async fn read<T: Send + 'static>(
    store: &dyn Store,
    read: impl FnOnce(&mut dyn Rows) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    typed(store.look(erased(read)).await?)
}

/// Reads a few rows by their keys; see [`Store::look_up`].
pub async fn look_up<T: Send + 'static>(
    store: &dyn Store,
    read: impl FnOnce(&mut dyn Rows) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    typed(store.look_up(erased(read)).await?)
}

fn erased<T: Send + 'static>(read: impl FnOnce(&mut dyn Rows) -> Result<T, StoreError> + Send + 'static) -> ErasedRead {
    Box::new(move |rows| Ok(Box::new(read(rows)?)))
}

fn typed<T: 'static>(value: Box<dyn Any + Send>) -> Result<T, StoreError> {
    value.downcast::<T>().map(|value| *value).map_err(|_| StoreError::Unreadable { what: "reading" })
}

/// Who signs checkpoints. Called by the writer after a commit and before its callers are answered.
pub trait HeadSigner: Send + Sync {
    /// The newest durable head of `ledger`, and those of the entries under it that followers must learn at once, ascending.
    /// May not block: the writer thread calls it.
    fn committed(&self, ledger: &LedgerName, head: &Head, urgent: &[StoredEntry]);
}

/// A signer to share.
pub type SharedHeadSigner = Arc<dyn HeadSigner>;
