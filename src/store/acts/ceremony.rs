//! The root is asked, and answers.

use fleetmark_domain::{Fingerprint, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::authorities::set_values;
use super::found::mark_changed;
use crate::store::model::{AuthorityRecord, EpochRecord, RootRequest, StoredBundle, StoredCrl};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Writes down what the root is asked for. Where the same is asked for already, that stays, and is given.
#[derive(Debug)]
pub struct AskRoot {
    /// What is asked for.
    pub request: RootRequest,
}

impl Act for AskRoot {
    type Outcome = RootRequest;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<RootRequest, StoreError> {
        let wanted = &self.request;
        let known = transaction.rows.root_requests()?;
        if let Some(known) = known.into_iter().find(|known| (known.kind, &known.fleet) == (wanted.kind, &wanted.fleet)) {
            return Ok(known);
        }
        transaction.rows.put_root_request(wanted)?;
        Ok(wanted.clone())
    }
}

/// Keeps what a root's answer brought: certificates with the requests that they are for, and the root's list. Its record's number must
/// be higher than that of every answer before.
#[derive(Debug)]
pub struct AcceptAnswer {
    /// The installation's value that holds the newest record: its number (8 octets) and its hash (32).
    pub key: String,
    /// The record's number.
    pub number: u64,
    /// SHA-256 over its text.
    pub hash: [u8; 32],
    /// Requests with their certificates.
    pub answered: Vec<RootRequest>,
    /// The root's list.
    pub list: StoredCrl,
    /// A trust bundle that has all its signatures by it.
    pub bundle: Option<StoredBundle>,
    /// Other values of the installation that change with it.
    pub values: Vec<(String, Vec<u8>)>,
}

impl Act for AcceptAnswer {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let last = transaction.rows.value(&self.key)?.and_then(|value| Some(u64::from_be_bytes(*value.first_chunk()?)));
        let newest = transaction.rows.crl(self.list.authority)?;
        if last.is_some_and(|last| last >= self.number) || newest.is_some_and(|newest| newest.number >= self.list.number) {
            return Err(Refusal::RootAnswerReplayed.into());
        }
        let known = transaction.rows.root_requests()?;
        let waits = |one: &RootRequest| known.iter().any(|known| known.id == one.id && known.certificate.is_none());
        if !self.answered.iter().all(waits) {
            return Err(Refusal::RootAnswerReplayed.into());
        }
        for request in &self.answered {
            transaction.rows.put_root_request(request)?;
        }
        transaction.rows.put_crl(&self.list)?;
        let value = [&self.number.to_be_bytes()[..], &self.hash].concat();
        transaction.rows.set_value(&self.key, &value)?;
        if let Some(bundle) = &self.bundle {
            transaction.rows.insert_trust_bundle(bundle)?;
            mark_changed(transaction)?;
        }
        set_values(transaction, &self.values)
    }
}

/// Adds a root that another authority certified: its certificate has no place in our numbering.
#[derive(Debug)]
pub struct AddForeignRoot {
    /// The root.
    pub authority: AuthorityRecord,
    /// SHA-256 over its certificate.
    pub fingerprint: Fingerprint,
    /// Its first epoch.
    pub epoch: EpochRecord,
    /// Values of the installation to set with it.
    pub values: Vec<(&'static str, Vec<u8>)>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for AddForeignRoot {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let Self { authority, fingerprint, epoch, values, details, at } = self;
        transaction.rows.insert_authority(authority)?;
        transaction.rows.insert_epoch(epoch)?;
        let opened = Event::EpochOpened { authority: epoch.authority, epoch: epoch.number };
        transaction.append(&LedgerName::System, *at, opened, None)?;
        let changed = Event::AuthorityChanged {
            authority: authority.id,
            kind: authority.kind,
            state: authority.state,
            fingerprint: *fingerprint,
        };
        transaction.append(&LedgerName::System, *at, changed, Some(details))?;
        for (name, value) in values {
            transaction.rows.set_value(name, value)?;
        }
        transaction.rows.delete_root_request(authority.kind, None)
    }
}
