//! The holder keeps the certificate; what it replaces is superseded.

use fleetmark_domain::{LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::Event;

use super::standing::set_standing;
use crate::store::model::{Certificate, Subject, SubjectState, Token, TokenState};
use crate::store::rows::{StandingUpdate, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Confirms a certificate: a compare-and-set on device, generation and standing.
#[derive(Debug)]
pub struct Confirm {
    /// Which.
    pub serial: Serial,
    /// Its ledger.
    pub ledger: LedgerName,
    /// Now.
    pub at: Timestamp,
}

impl Act for Confirm {
    type Outcome = Certificate;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Certificate, StoreError> {
        let id = certificate_id(self.serial.epoch(), self.serial.index());
        let certificate = transaction.rows.certificate(id)?.ok_or(Refusal::NotOnLedger)?;
        match certificate.standing {
            Standing::Good => return Ok(certificate),
            Standing::Unconfirmed if certificate.has_lapsed(self.at) => return Err(Refusal::Lapsed.into()),
            Standing::Unconfirmed => {}
            Standing::Superseded => return Err(Refusal::Superseded.into()),
            Standing::Held => return Err(Refusal::Held.into()),
            Standing::Quarantined => return Err(Refusal::Quarantined.into()),
            Standing::Revoked(_) => return Err(Refusal::Revoked.into()),
        }
        make_good(transaction, certificate, self.at)
    }
}

/// Makes an unconfirmed certificate good, as its holder's newest.
fn make_good(transaction: &mut Transaction<'_>, certificate: Certificate, at: Timestamp) -> Result<Certificate, StoreError> {
    let subject = certificate.subject.ok_or(Refusal::TransitionNotAllowed)?;
    let subject = transaction.rows.subject(subject)?.ok_or(Refusal::DeviceUnknown)?;
    if subject.state == SubjectState::Out {
        return Err(Refusal::IdentityOut.into());
    }
    if certificate.generation <= subject.confirmed_generation {
        return Err(Refusal::TransitionNotAllowed.into());
    }
    let confirmed = Event::Confirmed { epoch: certificate.serial.epoch(), index: certificate.serial.index() };
    transaction.append(&certificate.ledger, at, confirmed, None)?;
    let good = Certificate { standing: Standing::Good, changed_at: at, ..certificate };
    transaction.rows.update_standing(&StandingUpdate { serial: good.serial, standing: Standing::Good, at })?;
    settle(transaction, subject, &good, at)?;
    Ok(good)
}

/// What follows when a certificate became its holder's newest good one: those before it are superseded, its token is
/// used up.
pub(super) fn settle(
    transaction: &mut Transaction<'_>,
    mut subject: Subject,
    good: &Certificate,
    at: Timestamp,
) -> Result<(), StoreError> {
    succeed(transaction, &mut subject, good, at)?;
    transaction.rows.advance_subject(&subject)?;
    let token = match good.token {
        Some(id) => transaction.rows.token(&id)?,
        None => None,
    };
    if let Some(token) = token {
        transaction.rows.set_token_state(&Token { state: TokenState::Used(good.key_hash), ..token })?;
    }
    Ok(())
}

/// Puts a good certificate in the place of its holder's earlier ones, which are superseded.
pub(super) fn succeed(
    transaction: &mut Transaction<'_>,
    subject: &mut Subject,
    good: &Certificate,
    at: Timestamp,
) -> Result<(), StoreError> {
    if subject.confirmed_generation > 0 {
        let earlier: Vec<_> = transaction
            .rows
            .live_certificates_of(subject.id)?
            .into_iter()
            .filter(|old| old.generation < good.generation && old.standing.may_become(Standing::Superseded))
            .collect();
        set_standing(transaction, &earlier, Standing::Superseded, at, None)?;
    }
    subject.confirmed_generation = good.generation;
    subject.state = SubjectState::Active;
    Ok(())
}
