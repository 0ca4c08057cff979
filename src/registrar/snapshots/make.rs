//! From a ledger's entries to its snapshot. Everything here blocks its thread.

use std::sync::Arc;

use fleetmark_domain::Refusal;
use fleetmark_ledger::entry::{Entry, Event};
use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::state::State;
use tokio::runtime::Handle;

use super::SnapshotFile;
use super::files::Files;
use crate::registrar::{Error, Result};
use crate::store::model::{LedgerRecord, StoredEntry};
use crate::store::{Store, StoreError, read};

/// Entries read at once.
const PAGE: u32 = 256;

/// What a snapshot of one ledger is made of.
#[derive(Clone)]
pub struct Maker {
    pub store: Arc<dyn Store>,
    /// The ledger as it was read: its size is that of a new snapshot.
    pub ledger: LedgerRecord,
    pub key: VerifierKey,
    pub files: Files,
}

impl Maker {
    /// A new snapshot of all entries, from an earlier one and the entries since.
    pub fn make(&self, from: Option<&SnapshotFile>, runtime: &Handle) -> Result<SnapshotFile> {
        let state = self.state(from, self.ledger.frontier.size(), runtime)?;
        if *state.frontier() != self.ledger.frontier {
            return Err(StoreError::Unreadable { what: "ledger entry" }.into());
        }
        Ok(self.files.write(&state)?)
    }

    /// The snapshot that the ledger names last: its file, or the same made again; None where it names none, or one that this
    /// program makes otherwise.
    pub fn find(&self, runtime: &Handle) -> Result<Option<SnapshotFile>> {
        let Some((size, hash)) = self.named(runtime)? else { return Ok(None) };
        if let Some(found) = self.files.find(size, hash)? {
            return Ok(Some(found));
        }
        let made = self.files.write(&self.state(None, size, runtime)?)?;
        if made.hash != hash {
            tracing::warn!(ledger = self.ledger.name.as_str(), size, "the snapshot that the ledger names cannot be made again");
            return Ok(None);
        }
        tracing::info!(ledger = self.ledger.name.as_str(), size, "made a snapshot again whose file was missing");
        Ok(Some(made))
    }

    /// Size and hash in the ledger's last `snapshot-made`; looked for from its end.
    fn named(&self, runtime: &Handle) -> Result<Option<(u64, [u8; 32])>> {
        let mut end = self.ledger.frontier.size();
        while end > 0 {
            let from = end.saturating_sub(PAGE.into());
            for stored in self.page(from, runtime)?.iter().rev().filter(|stored| stored.position < end) {
                let entry = Entry::decode(&stored.entry).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
                if let Event::SnapshotMade { size, hash } = entry.event {
                    return Ok(Some((size, hash)));
                }
            }
            end = from;
        }
        Ok(None)
    }

    /// The state after the first `size` entries.
    fn state(&self, from: Option<&SnapshotFile>, size: u64, runtime: &Handle) -> Result<State> {
        let loaded = from.and_then(|file| Files::load(self.key.clone(), file));
        let mut state = loaded.unwrap_or_else(|| State::new(self.key.clone()));
        while state.frontier().size() < size {
            let position = state.frontier().size();
            let page = self.page(position, runtime)?;
            if page.first().is_none_or(|first| first.position != position) {
                return Err(StoreError::Unreadable { what: "ledger entry" }.into());
            }
            for stored in page.iter().filter(|stored| stored.position < size) {
                state.append(&stored.entry).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            }
        }
        Ok(state)
    }

    fn page(&self, from: u64, runtime: &Handle) -> Result<Vec<StoredEntry>> {
        let name = self.ledger.name.clone();
        Ok(runtime.block_on(read(&*self.store, move |rows| rows.entries(&name, from, PAGE)))?)
    }
}
