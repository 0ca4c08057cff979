//! What the engine asks of a backend.

use std::path::Path;

use super::StoreError;
use super::rows::Rows;

/// A kind of database.
pub trait Backend: Send + Sync + 'static {
    /// A connection to it.
    type Connection: Connection;

    /// Whether it answers in this process: a look-up of a few rows then takes less time than handing it to another thread.
    const EMBEDDED: bool;

    /// Connects, to write.
    fn connect_writer(&self) -> Result<Self::Connection, StoreError>;

    /// Connects, to read.
    fn connect_reader(&self) -> Result<Self::Connection, StoreError>;

    /// See [`Store::copy_to`](super::Store::copy_to).
    fn copy_to(&self, file: &Path) -> Result<(), StoreError>;
}

/// A connection: rows, within transactions.
pub trait Connection: Rows + Send + 'static {
    /// Begins a transaction that may write.
    fn begin_write(&mut self) -> Result<(), StoreError>;

    /// Begins a transaction that reads one state of things.
    fn begin_read(&mut self) -> Result<(), StoreError>;

    /// Ends a transaction and makes it durable.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Ends a transaction and leaves nothing of it.
    fn rollback(&mut self) -> Result<(), StoreError>;

    /// Whether the connection still stands. One which does not is replaced by a new one.
    fn stands(&self) -> bool;
}
