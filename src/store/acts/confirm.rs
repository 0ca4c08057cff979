//! The holder keeps the certificate; what it replaces is superseded.

use fleetmark_domain::{
    CertificateEvent, DeviceEvent, Fingerprint, FleetName, LedgerName, Refusal, Serial, Standing, Timestamp,
};
use fleetmark_ledger::entry::Event;

use super::lifecycle::{Departure, Origin, origin_of};
use super::standing::set_standing;
use crate::store::model::{Certificate, Subject, Token, TokenId, TokenState};
use crate::store::rows::{StandingUpdate, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Confirms a certificate: a compare-and-set on device, generation and standing. Of a device that was moved here, its life in the
/// fleet that it came from ends in the same transaction.
#[derive(Debug)]
pub struct Confirm {
    /// Which.
    pub serial: Serial,
    /// Its ledger.
    pub ledger: LedgerName,
    /// The fleet that it came from, once [`StoreError::NeedsLedger`] named it.
    pub departure: Option<Departure>,
    /// Now.
    pub at: Timestamp,
}

impl Confirm {
    /// Of this certificate.
    pub fn of(certificate: &Certificate, departure: Option<Departure>, at: Timestamp) -> Self {
        Self { serial: certificate.serial, ledger: certificate.ledger.clone(), departure, at }
    }
}

impl Act for Confirm {
    type Outcome = Certificate;

    fn ledgers(&self) -> Vec<LedgerName> {
        Departure::ledgers(&self.ledger, self.departure.as_ref())
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Certificate, StoreError> {
        let id = certificate_id(self.serial.epoch(), self.serial.index());
        let certificate = transaction.rows.certificate(id)?.ok_or(Refusal::NotOnLedger)?;
        if is_good(&certificate, self.at)? {
            return Ok(certificate);
        }
        let subject = certificate.subject.ok_or(Refusal::TransitionNotAllowed)?;
        let subject = transaction.rows.subject(subject)?.ok_or(Refusal::DeviceUnknown)?;
        make_good(transaction, certificate, subject, self.departure.as_ref(), self.at)
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
    /// Its serial, by which it is found where the token is bound to no key: that of a token for several devices.
    pub serial: Option<Serial>,
    /// See [`Confirm::departure`].
    pub departure: Option<Departure>,
    /// Now.
    pub at: Timestamp,
}

impl Act for ConfirmByToken {
    type Outcome = (Certificate, Subject);

    fn ledgers(&self) -> Vec<LedgerName> {
        Departure::ledgers(&LedgerName::from(self.fleet.as_ref()), self.departure.as_ref())
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let token = transaction.rows.token(&self.token)?.filter(|token| token.has_secret(&self.secret_hash));
        let token = token.ok_or(Refusal::TokenUnknown)?;
        if token.fleet != self.fleet {
            return Err(Refusal::TokenWrongFleet.into());
        }
        let certificate = match token.state {
            TokenState::Reserved(key) | TokenState::Used(key) => transaction.rows.certificate_by_key(&key)?,
            TokenState::Fresh | TokenState::Withdrawn if token.uses() == 1 => None,
            TokenState::Withdrawn => return Err(Refusal::TokenWithdrawn.into()),
            TokenState::Fresh => {
                let place = self.serial.map(|serial| certificate_id(serial.epoch(), serial.index()));
                let certificate = transaction.rows.certificate(place.ok_or(Refusal::NotOnLedger)?)?;
                certificate.filter(|certificate| certificate.token == Some(token.id))
            }
        };
        let certificate = certificate.filter(|certificate| certificate.fingerprint == self.fingerprint);
        let certificate = certificate.ok_or(Refusal::NotOnLedger)?;
        let subject = certificate.subject.ok_or(Refusal::NotOnLedger)?;
        let subject = transaction.rows.subject(subject)?.ok_or(Refusal::NotOnLedger)?;
        if is_good(&certificate, self.at)? {
            return Ok((certificate, subject));
        }
        let departure = self.departure.as_ref();
        Ok((make_good(transaction, certificate, subject.clone(), departure, self.at)?, subject))
    }
}

/// Whether a certificate is confirmed already; otherwise it may be confirmed.
fn is_good(certificate: &Certificate, at: Timestamp) -> Result<bool, Refusal> {
    if certificate.has_lapsed(at) {
        return Err(Refusal::Lapsed);
    }
    Ok(certificate.standing.next(CertificateEvent::Confirmed)? == certificate.standing)
}

/// Makes an unconfirmed certificate good, as its holder's newest.
fn make_good(
    transaction: &mut Transaction<'_>,
    certificate: Certificate,
    subject: Subject,
    departure: Option<&Departure>,
    at: Timestamp,
) -> Result<Certificate, StoreError> {
    subject.state.next(DeviceEvent::Confirmed)?;
    if certificate.generation <= subject.confirmed_generation {
        return Err(Refusal::TransitionNotAllowed.into());
    }
    let origin = origin_of(transaction, &subject, departure)?;
    let confirmed = Event::Confirmed { epoch: certificate.serial.epoch(), index: certificate.serial.index() };
    transaction.append(&certificate.ledger, at, confirmed, None)?;
    let good = Certificate { standing: Standing::Good, changed_at: at, ..certificate };
    transaction.rows.update_standing(&StandingUpdate { serial: good.serial, standing: Standing::Good, at })?;
    settle(transaction, subject, origin, &good, at)?;
    Ok(good)
}

/// What follows when a certificate became its holder's newest good one: those before it are superseded, its token is
/// used up, and the device that it was in another fleet ends.
pub(super) fn settle(
    transaction: &mut Transaction<'_>,
    mut subject: Subject,
    origin: Option<Origin>,
    good: &Certificate,
    at: Timestamp,
) -> Result<(), StoreError> {
    succeed(transaction, &mut subject, good, at)?;
    match origin {
        Some(origin) => origin.end(transaction, subject, at)?,
        None => transaction.rows.advance_subject(&subject)?,
    }
    let token = match good.token {
        Some(id) => transaction.rows.token(&id)?,
        None => None,
    };
    // One that was withdrawn after it was used stays so.
    if let Some(token) = token.filter(|token| token.uses() == 1 && token.state != TokenState::Withdrawn) {
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
    let state = subject.state.next(DeviceEvent::Confirmed)?;
    // Not only confirmed ones: one that was quarantined before it was confirmed must not be released beside this one.
    if good.generation > 1 {
        let is_succeeded = |old: &Certificate| {
            let next = old.standing.next(CertificateEvent::Succeeded);
            old.generation < good.generation && next.is_ok_and(|next| next != old.standing)
        };
        let live = transaction.rows.live_certificates_of(subject.id)?;
        let earlier: Vec<_> = live.into_iter().filter(is_succeeded).collect();
        set_standing(transaction, &earlier, Standing::Superseded, at, None)?;
    }
    subject.confirmed_generation = good.generation;
    // Who confirms holds a key: a permit to enroll anew served, or is not needed. Until then it lasts, so that power lost in between
    // costs no second permit.
    if subject.permits.reenroll_until.take().is_some() {
        transaction.rows.update_subject(subject)?;
    }
    subject.state = state;
    Ok(())
}
