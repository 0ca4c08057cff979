//! Authorities and ledgers come to be.

use fleetmark_domain::{AuthorityState, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Event, Issued};

use crate::store::model::{AuthorityRecord, Certificate, EpochRecord, LedgerRecord};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Opens the installation's ledger. Does nothing where it is open.
#[derive(Debug)]
pub struct OpenSystemLedger {
    /// The ledger, empty.
    pub ledger: LedgerRecord,
    /// Now.
    pub at: Timestamp,
}

impl Act for OpenSystemLedger {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        if transaction.rows.ledger(&LedgerName::System)?.is_some() {
            return Ok(());
        }
        open_ledger(transaction, &self.ledger, self.at)
    }
}

/// Opens a ledger; its first entry names its origin and key.
pub(super) fn open_ledger(transaction: &mut Transaction<'_>, ledger: &LedgerRecord, at: Timestamp) -> Result<(), StoreError> {
    transaction.open_ledger(ledger.clone())?;
    let opened = Event::Opened { origin: ledger.origin.clone(), key: ledger.key };
    transaction.append(&ledger.name, at, opened, None)?;
    Ok(())
}

/// Adds an authority with its certificate.
#[derive(Debug)]
pub struct AddAuthority {
    /// The authority.
    pub authority: AuthorityRecord,
    /// Its certificate, as its issuer's (a root's: its own) epoch numbers it.
    pub certificate: Certificate,
    /// A root's own first epoch; others open theirs at their first lease.
    pub epoch: Option<EpochRecord>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for AddAuthority {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        add_authority(transaction, self)
    }
}

/// Writes the authority, its certificate and their entries into the system ledger.
pub(super) fn add_authority(transaction: &mut Transaction<'_>, new: &AddAuthority) -> Result<(), StoreError> {
    let AddAuthority { authority, certificate, epoch, details, at } = new;
    // The root may have been replaced since it signed. A tainted one still signs the key of its successor.
    let issuer = match authority.issuer {
        Some(issuer) => transaction.rows.authority_state(issuer)?,
        None => None,
    };
    let stands = match issuer {
        None | Some(AuthorityState::Active) => true,
        Some(AuthorityState::Prepared | AuthorityState::Tainted) => authority.is_cross(),
        Some(AuthorityState::Revoked) => false,
    };
    if !stands {
        return Err(Refusal::AuthorityReplaced.into());
    }
    transaction.rows.insert_authority(authority)?;
    transaction.rows.delete_root_request(authority.kind, authority.fleet.as_ref())?;
    if let Some(epoch) = epoch {
        transaction.rows.insert_epoch(epoch)?;
        let opened = Event::EpochOpened { authority: epoch.authority, epoch: epoch.number };
        transaction.append(&LedgerName::System, *at, opened, None)?;
    }
    let position = transaction.append(&LedgerName::System, *at, issued(certificate), Some(details))?;
    transaction.rows.insert_certificate(&Certificate { position, ..certificate.clone() })?;
    let changed = Event::AuthorityChanged {
        authority: authority.id,
        kind: authority.kind,
        state: authority.state,
        fingerprint: certificate.fingerprint,
    };
    transaction.append(&LedgerName::System, *at, changed, Some(details))?;
    mark_changed(transaction)
}

/// Under this name the store keeps a number that rises whenever an authority comes or changes: by it other processes of the
/// installation notice.
pub const AUTHORITIES_CHANGED: &str = "authorities-changed";

pub(super) fn mark_changed(transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
    let kept = transaction.rows.value(AUTHORITIES_CHANGED)?;
    let number = kept.and_then(|octets| octets.try_into().ok()).map_or(0, u64::from_be_bytes);
    transaction.rows.set_value(AUTHORITIES_CHANGED, &number.saturating_add(1).to_be_bytes())
}

/// The entry of a certificate that was issued.
pub(super) fn issued(certificate: &Certificate) -> Event {
    Event::Issued(Issued {
        authority: certificate.authority,
        epoch: certificate.serial.epoch(),
        index: certificate.serial.index(),
        fingerprint: certificate.fingerprint,
        subject: certificate.subject.unwrap_or(0),
        generation: certificate.generation,
        standing: certificate.standing,
        not_after: certificate.not_after,
    })
}
