//! Index leases and epochs.

use std::collections::HashSet;
use std::time::Duration;

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{AuthorityState, Epoch, Index, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::entry::Event;

use crate::store::model::{AuthorityId, EpochRecord, External, LeaseRecord};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Leases indices of an authority's open epoch; closes an epoch that is full or over, and opens the next.
#[derive(Debug)]
pub struct LeaseIndices {
    /// Whose epoch.
    pub authority: AuthorityId,
    /// The ledger that says which epochs there are: the fleet's, of a device authority.
    pub ledger: LedgerName,
    /// How many at most.
    pub count: u32,
    /// After how long an epoch ends: a quarter of the longest lifetime.
    pub window: Duration,
    /// Until when the lease holds.
    pub expires_at: Timestamp,
    /// Now.
    pub at: Timestamp,
}

/// Indices that nobody else issues until the lease expires.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Numbering space.
    pub epoch: Epoch,
    /// Ascending; at least one.
    pub indices: Vec<Index>,
}

impl Act for LeaseIndices {
    type Outcome = Lease;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Lease, StoreError> {
        let mut epoch = self.epoch(transaction)?;
        let rows = &mut *transaction.rows;
        while let Some(expired) = rows.expired_lease(epoch.number, self.at)? {
            rows.delete_lease(epoch.number, expired.first)?;
            let taken: HashSet<_> = rows.taken(epoch.number, expired.first, expired.count)?.into_iter().collect();
            let end = expired.first.0.saturating_add(expired.count);
            let indices: Vec<_> = (expired.first.0..end).map(Index).filter(|index| !taken.contains(index)).collect();
            if !indices.is_empty() {
                rows.insert_lease(&LeaseRecord { expires_at: self.expires_at, ..expired })?;
                return Ok(Lease { epoch: epoch.number, indices });
            }
        }
        let first = epoch.next_index;
        let count = self.count.min(EPOCH_CAPACITY - first);
        epoch.next_index = first + count;
        rows.update_epoch(&epoch)?;
        rows.insert_lease(&LeaseRecord { epoch: epoch.number, first: Index(first), count, expires_at: self.expires_at })?;
        Ok(Lease { epoch: epoch.number, indices: (first..first + count).map(Index).collect() })
    }
}

impl LeaseIndices {
    /// The epoch to issue in: the open one while it lasts, else a new one.
    fn epoch(&self, transaction: &mut Transaction<'_>) -> Result<EpochRecord, StoreError> {
        let state = transaction.rows.authority_state(self.authority)?;
        let issues = !matches!(state, Some(AuthorityState::Tainted | AuthorityState::Revoked));
        if let Some(open) = transaction.rows.open_epoch(self.authority)? {
            // One that issues no more opens no epoch: its last one lasts for the certificates of its OCSP responder.
            let is_young = self.at.since(open.opened_at) < self.window;
            if open.next_index < EPOCH_CAPACITY && (is_young || state == Some(AuthorityState::Tainted)) {
                return Ok(open);
            }
            if !issues {
                return Err(Refusal::AuthorityReplaced.into());
            }
            transaction.rows.update_epoch(&EpochRecord { closed_at: Some(self.at), ..open })?;
        }
        if !issues {
            return Err(Refusal::AuthorityReplaced.into());
        }
        let number = next_epoch(transaction)?;
        let epoch = EpochRecord { number, authority: self.authority, opened_at: self.at, closed_at: None, next_index: 0 };
        transaction.rows.insert_epoch(&epoch)?;
        transaction.append(&self.ledger, self.at, Event::EpochOpened { authority: self.authority, epoch: number }, None)?;
        Ok(epoch)
    }
}

/// The number of the next epoch that is opened.
pub(super) fn next_epoch(transaction: &mut Transaction<'_>) -> Result<Epoch, StoreError> {
    let highest = transaction.rows.highest_epoch()?.0.max(epoch_floor(transaction)?);
    highest.checked_add(1).map(Epoch).ok_or(StoreError::Unreadable { what: "epoch number" })
}

/// The installation's value below which no epoch is opened.
pub const EPOCH_FLOOR: &str = "epoch-floor";

pub(super) fn epoch_floor(transaction: &mut Transaction<'_>) -> Result<u32, StoreError> {
    let Some(value) = transaction.rows.value(EPOCH_FLOOR)? else { return Ok(0) };
    let octets = value.try_into().map_err(|_| StoreError::Unreadable { what: EPOCH_FLOOR })?;
    Ok(u32::from_be_bytes(octets))
}

/// An authority's own certificates since a backup are fewer than so many, leased indices counted.
const TAINTED_LEAP: u32 = 1 << 14;

/// Closes every open epoch, and opens none at or below `floor` any more: after a restore, which knows nothing of what was
/// issued since the backup. A tainted authority may open none, and has its OCSP responder to certify: its epoch stays open, and goes on
/// far above what may have been issued.
#[derive(Debug)]
pub struct RaiseEpochs {
    /// The highest number that may have been used.
    pub floor: Epoch,
    /// Now.
    pub at: Timestamp,
}

impl Act for RaiseEpochs {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        for authority in transaction.rows.authorities()? {
            let Some(open) = transaction.rows.open_epoch(authority.id)? else { continue };
            if authority.state != AuthorityState::Tainted {
                transaction.rows.update_epoch(&EpochRecord { closed_at: Some(self.at), ..open })?;
                continue;
            }
            // What was leased before the backup may have been issued since.
            while let Some(lease) = transaction.rows.expired_lease(open.number, Timestamp(i64::MAX))? {
                transaction.rows.delete_lease(open.number, lease.first)?;
            }
            let next_index = open.next_index.saturating_add(TAINTED_LEAP).min(EPOCH_CAPACITY);
            transaction.rows.update_epoch(&EpochRecord { next_index, ..open })?;
        }
        for external in transaction.rows.externals(None)? {
            transaction.rows.update_external(&External { epoch: None, next_index: 0, ..external })?;
        }
        let floor = self.floor.0.max(epoch_floor(transaction)?);
        transaction.rows.set_value(EPOCH_FLOOR, &floor.to_be_bytes())
    }
}
