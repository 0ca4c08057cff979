//! The holder keeps the certificate; what it replaces is superseded.

use fleetmark_domain::{Fingerprint, FleetName, LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::Event;

use super::standing::set_standing;
use crate::store::model::{Certificate, Subject, SubjectState, Token, TokenId, TokenState};
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
        if is_good(&certificate, self.at)? {
            return Ok(certificate);
        }
        let subject = certificate.subject.ok_or(Refusal::TransitionNotAllowed)?;
        let subject = transaction.rows.subject(subject)?.ok_or(Refusal::DeviceUnknown)?;
        make_good(transaction, certificate, subject, self.at)
    }
}

/// Confirms the certificate that was enrolled with a token, for who shows the token.
///
/// A token that is refused costs the writer one row's reading, no commit to the disk, and spoils no batch; how many may be
/// shown the doors limit for each address.
#[derive(Debug)]
pub struct ConfirmByToken {
    /// The token.
    pub token: TokenId,
    /// SHA-256 over the secret that was shown.
    pub secret_hash: [u8; 32],
    /// The fleet at whose door it was shown; None: the installation's.
    pub fleet: Option<FleetName>,
    /// Which certificate.
    pub fingerprint: Fingerprint,
    /// Now.
    pub at: Timestamp,
}

impl Act for ConfirmByToken {
    type Outcome = (Certificate, Subject);

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::from(self.fleet.as_ref())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let token = transaction.rows.token(&self.token)?.filter(|token| token.has_secret(&self.secret_hash));
        let token = token.ok_or(Refusal::TokenUnknown)?;
        if token.fleet != self.fleet {
            return Err(Refusal::TokenWrongFleet.into());
        }
        let key = token.state.bound_key().ok_or(Refusal::NotOnLedger)?;
        let certificate = transaction.rows.certificate_by_key(&key)?;
        let certificate = certificate.filter(|certificate| certificate.fingerprint == self.fingerprint);
        let certificate = certificate.ok_or(Refusal::NotOnLedger)?;
        let subject = certificate.subject.ok_or(Refusal::NotOnLedger)?;
        let subject = transaction.rows.subject(subject)?.ok_or(Refusal::NotOnLedger)?;
        if is_good(&certificate, self.at)? {
            return Ok((certificate, subject));
        }
        Ok((make_good(transaction, certificate, subject.clone(), self.at)?, subject))
    }
}

/// Whether a certificate is confirmed already; otherwise it may be confirmed.
fn is_good(certificate: &Certificate, at: Timestamp) -> Result<bool, Refusal> {
    match certificate.standing {
        Standing::Good => Ok(true),
        Standing::Unconfirmed if certificate.has_lapsed(at) => Err(Refusal::Lapsed),
        Standing::Unconfirmed => Ok(false),
        Standing::Superseded => Err(Refusal::Superseded),
        Standing::Held => Err(Refusal::Held),
        Standing::Quarantined => Err(Refusal::Quarantined),
        Standing::Revoked(_) => Err(Refusal::Revoked),
    }
}

/// Makes an unconfirmed certificate good, as its holder's newest.
fn make_good(
    transaction: &mut Transaction<'_>,
    certificate: Certificate,
    subject: Subject,
    at: Timestamp,
) -> Result<Certificate, StoreError> {
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
    if let Some(token) = token.filter(|token| token.uses() == 1) {
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
    // Who confirms holds a key: a permit to enroll anew served, or is not needed. Until then it lasts, so that power lost in between
    // costs no second permit.
    if subject.permits.reenroll_until.take().is_some() {
        transaction.rows.update_subject(subject)?;
    }
    if subject.state == SubjectState::Registered {
        subject.state = SubjectState::Active;
    }
    Ok(())
}
