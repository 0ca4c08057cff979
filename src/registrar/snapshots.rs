//! Snapshots of the ledgers, as files: for gateways that start with nothing. Each is named by an entry of its ledger, so that
//! who starts from it can check it. The files can be lost: they are made again from the entries.

mod files;
mod make;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::caller::Caller;
use super::feed::may_follow;
use super::{Error, Registrar, Result};
use crate::store::acts::snapshots::NoteSnapshot;
use crate::store::model::LedgerRecord;
use crate::store::{commit, read};
use files::Files;
use make::Maker;

/// A snapshot that can be given out: it is on the disk, and its ledger names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Of so many entries.
    pub size: u64,
    /// SHA-256 over its octets.
    pub hash: [u8; 32],
    /// Where it lies. It may be gone when it is opened, because a newer one took its place.
    pub path: PathBuf,
    /// Its length in octets.
    pub length: u64,
}

/// The newest snapshot of each ledger.
pub struct Snapshots {
    /// `LEDGER/SIZE.snapshot` lie in it.
    directory: PathBuf,
    /// So many entries, or an eighth of the ledger's, are between two snapshots.
    every: u64,
    /// None: it was looked for, and there is none. A ledger that is not here was not looked at yet.
    newest: Mutex<BTreeMap<LedgerName, Option<SnapshotFile>>>,
}

impl Snapshots {
    /// Snapshots in `directory`, which is made when it is needed. A new one is made when more than `every` entries and more
    /// than an eighth of the ledger came after the last.
    pub const fn new(directory: PathBuf, every: u64) -> Self {
        Self { directory, every, newest: Mutex::new(BTreeMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LedgerName, Option<SnapshotFile>>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, size: u64, newest: Option<&SnapshotFile>) -> bool {
        let since = size.saturating_sub(newest.map_or(0, |newest| newest.size));
        since > self.every.max(size / 8)
    }
}

impl Registrar {
    /// The newest snapshot of a ledger, once there is one.
    pub fn snapshot(&self, ledger: &LedgerName) -> Option<SnapshotFile> {
        self.snapshots.lock().get(ledger)?.clone()
    }

    /// The same for a gateway or service.
    ///
    /// # Errors
    /// `WrongKind` for who is neither gateway nor service, `NotFound` for a ledger that the caller was not granted, or that has
    /// no snapshot yet.
    pub fn followed_snapshot(&self, caller: &Caller, ledger: &LedgerName) -> Result<SnapshotFile> {
        may_follow(caller, ledger)?;
        self.snapshot(ledger).ok_or_else(|| Refusal::NotFound.into())
    }

    /// Makes the snapshots that are due; after the start, also those again whose files are missing. Ledgers whose snapshot
    /// fails do not keep the others from theirs.
    ///
    /// # Errors
    /// The first failure. What is due stays due.
    pub async fn make_snapshots(&self, now: Timestamp) -> Result<()> {
        let mut first = Ok(());
        for ledger in read(&*self.store, |rows| rows.ledgers()).await? {
            first = first.and(self.make_snapshot(&ledger, now).await);
        }
        first
    }

    async fn make_snapshot(&self, ledger: &LedgerRecord, now: Timestamp) -> Result<()> {
        // Another server's new ledger is not known here before the next start.
        let Some(key) = self.publisher.verifier(&ledger.name) else { return Ok(()) };
        let files = Files::new(&self.snapshots.directory, &ledger.name);
        let maker = Maker { store: Arc::clone(&self.store), ledger: ledger.clone(), key, files };
        let known = self.snapshots.lock().get(&ledger.name).cloned();
        let newest = match known {
            Some(known) => known,
            None => self.find_snapshot(&maker).await?,
        };
        let size = ledger.frontier.size();
        if !self.snapshots.is_due(size, newest.as_ref()) {
            return Ok(());
        }
        let (from, making) = (newest.clone(), maker.clone());
        let made = blocking(move |runtime| making.make(from.as_ref(), runtime)).await?;
        let act = NoteSnapshot { ledger: ledger.name.clone(), size, hash: made.hash, at: now };
        commit(&*self.store, act).await?;
        metrics::counter!("fleetmark_snapshots_made_total").increment(1);
        tracing::info!(ledger = ledger.name.as_str(), size, length = made.length, "made a snapshot");
        self.snapshots.lock().insert(ledger.name.clone(), Some(made.clone()));
        blocking(move |_| Ok(maker.files.keep(made.size)?)).await
    }

    /// The snapshot that the ledger names last, from its file, or made again.
    async fn find_snapshot(&self, maker: &Maker) -> Result<Option<SnapshotFile>> {
        let finding = maker.clone();
        let found = blocking(move |runtime| finding.find(runtime)).await?;
        self.snapshots.lock().insert(maker.ledger.name.clone(), found.clone());
        Ok(found)
    }
}

/// Runs what takes long on a thread of its own; it reads the store by the runtime's handle.
async fn blocking<T: Send + 'static>(work: impl FnOnce(&Handle) -> Result<T> + Send + 'static) -> Result<T> {
    let runtime = Handle::current();
    spawn_blocking(move || work(&runtime)).await.map_err(|error| Error::caused(Refusal::Stopping, error))?
}

impl From<files::FileError> for Error {
    fn from(error: files::FileError) -> Self {
        Self::caused(Refusal::StorageUnavailable, error)
    }
}
