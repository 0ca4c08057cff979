//! A device asks what its certificate is worth. It shows no credential: a certificate that is revoked or expired gets it into no door,
//! and whoever knows the serial number, of which 64 bits are random, learns no more than OCSP tells.

use std::time::Duration;

use fleetmark_domain::{AuthorityState, DeviceState, Refusal, RevocationReason, Serial, Sight, Standing, Timestamp, View};
use fleetmark_ledger::entry::AuthorityKind;
use fleetmark_status::statement::{Action, NONCE_LENGTH, Statement, Worth};

use crate::pki::issue::facts;
use crate::registrar::authorities::Authority;
use crate::registrar::waves::{Advice, advise};
use crate::registrar::{Error, Registrar, Result};
use crate::store::look_up;
use crate::store::model::{Certificate, Subject, Wave};
use crate::store::rows::certificate_id;

/// When to ask again, where nothing says sooner.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3_600);
/// When to ask again, where somebody is about to decide.
const WAIT: Duration = Duration::from_secs(900);

/// A statement, with what a device needs to verify it.
#[derive(Debug, Clone)]
pub struct SignedStatement {
    /// What is said.
    pub statement: Statement,
    /// The octets with their signature.
    pub octets: Vec<u8>,
    /// The certificate of the key that signed, and its authority's, in DER.
    pub signer: [Vec<u8>; 2],
}

impl Registrar {
    /// What a certificate is worth now, and what its holder should do.
    ///
    /// # Errors
    /// `NotFound` for a serial number that was never issued.
    pub async fn own_standing(&self, serial: Serial, nonce: [u8; NONCE_LENGTH], now: Timestamp) -> Result<SignedStatement> {
        let found = look_up(&*self.store, move |rows| {
            let certificate = rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
            let Some(certificate) = certificate.filter(|certificate| certificate.serial == serial) else { return Ok(None) };
            let Some(subject) = certificate.subject else { return Ok(None) };
            let Some(subject) = rows.subject(subject)? else { return Ok(None) };
            let fleet = subject.fleet.as_ref().map(|fleet| rows.fleet(fleet)).transpose()?.flatten();
            Ok(Some((certificate, subject, fleet.and_then(|fleet| fleet.wave))))
        });
        let (certificate, subject, wave) = found.await?.ok_or(Refusal::NotFound)?;
        let authority = self.authorities.by_id(certificate.authority).ok_or(Refusal::AuthorityUnavailable)?;
        debug_assert!(authority.record.kind != AuthorityKind::Root, "a root certifies no subject");
        let signer = self.status_signer(certificate.authority).ok_or(Refusal::AuthorityUnavailable)?;
        let circumstances = self.circumstances(&certificate, &subject, (&authority, wave), now).await?;
        let (worth, action, reason) = advice(&certificate, &subject, &circumstances, now);
        let seconds = |at: Timestamp| u64::try_from(at.0).unwrap_or(0);
        let statement = Statement {
            key_id: signer.key_id,
            nonce,
            serial: *serial.octets(),
            worth,
            action,
            reason: reason.map_or(0, RevocationReason::code),
            at: seconds(now),
            ask_again_at: seconds(ask_again(&circumstances.renewal, action, now)),
        };
        let said = statement.signed_octets();
        let signature = signer.sign(&said).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        metrics::counter!("fleetmark_statements_total", "standing" => worth.name()).increment(1);
        let octets = [&said[..], &signature].concat();
        Ok(SignedStatement { statement, octets, signer: [signer.certificate.clone(), authority.record.certificate.clone()] })
    }

    async fn circumstances(
        &self,
        certificate: &Certificate,
        holder: &Subject,
        (authority, wave): (&Authority, Option<Wave>),
        now: Timestamp,
    ) -> Result<Circumstances> {
        let is_tainted = authority.record.state == AuthorityState::Tainted;
        let is_trusted = authority.record.state.is_trusted();
        Ok(Circumstances {
            is_renewable: now <= certificate.not_after || self.may_be_late(certificate, holder, now).await?,
            renewal: advise(certificate, is_tainted, wave.as_ref(), now),
            authority_revoked: if is_trusted { None } else { Some(self.reason_of(authority).await?) },
        })
    }

    /// Why an authority was revoked, as one of its certificates has it.
    async fn reason_of(&self, authority: &Authority) -> Result<RevocationReason> {
        let facts = facts(&authority.record.certificate).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
        // A corporate root's certificate has a number of its own, and is not among ours.
        let Some(serial) = facts.serial else { return Ok(RevocationReason::Unspecified) };
        let place = certificate_id(serial.epoch(), serial.index());
        let own = look_up(&*self.store, move |rows| rows.certificate(place)).await?;
        let own = own.filter(|own| own.fingerprint == facts.fingerprint);
        Ok(match own.and_then(|own| own.standing.reason()) {
            // RFC 5280 5.3.1: of whoever hangs from a key that was stolen.
            Some(RevocationReason::KeyCompromise) => RevocationReason::CaCompromise,
            reason => reason.unwrap_or(RevocationReason::Unspecified),
        })
    }
}

/// What is around a certificate.
#[derive(Debug)]
struct Circumstances {
    /// It has not ended, or may be renewed late.
    is_renewable: bool,
    /// When it is to be renewed, by its own dates or the fleet's wave.
    renewal: Advice,
    /// Why its authority was revoked, where it was: nothing that it issued opens any door then, whatever its standing.
    authority_revoked: Option<RevocationReason>,
}

/// The table: what a certificate's holder is told.
fn advice(
    certificate: &Certificate,
    holder: &Subject,
    circumstances: &Circumstances,
    now: Timestamp,
) -> (Worth, Action, Option<RevocationReason>) {
    let is_renewable = circumstances.is_renewable;
    let is_out = holder.state == DeviceState::Out;
    let own = certificate.standing.seen_by(
        View::Verdict,
        certificate.has_lapsed(now),
        fleetmark_domain::standing::Choices::default(),
    );
    let sight = match circumstances.authority_revoked {
        // Who has a newer certificate uses that, whatever became of the old one's authority.
        Some(reason) if !matches!(own, Sight::Revoked(_)) && certificate.standing != Standing::Superseded => {
            Sight::Revoked(reason)
        }
        _ => own,
    };
    match (certificate.standing, sight) {
        (_, Sight::Revoked(reason)) if is_out => (Worth::Revoked, Action::Stop, Some(reason)),
        (_, Sight::Revoked(reason)) => (Worth::Revoked, Action::Enroll, Some(reason)),
        (Standing::Superseded, _) => (Worth::Superseded, Action::UseNewer, None),
        (Standing::Held, _) => (Worth::Held, Action::Wait, None),
        (Standing::Quarantined, _) => (Worth::Quarantined, Action::Update, None),
        _ if certificate.not_after < now && is_renewable => (Worth::Expired, Action::Renew, None),
        _ if certificate.not_after < now => (Worth::Expired, Action::Enroll, None),
        (Standing::Unconfirmed, _) => (Worth::Unconfirmed, Action::Confirm, None),
        _ if holder.permits.renewals_held => (Worth::Good, Action::GoOn, None),
        _ if circumstances.renewal.renew_after <= now => (Worth::Good, Action::Renew, None),
        _ => (Worth::Good, Action::GoOn, None),
    }
}

fn ask_again(renewal: &Advice, action: Action, now: Timestamp) -> Timestamp {
    match action {
        Action::Wait | Action::Update => now + WAIT,
        // As often as for a renewal: a wave may begin, or pass.
        Action::GoOn => (now + renewal.poll_after).min(renewal.renew_after.max(now + WAIT)),
        _ => now + ASK_AGAIN,
    }
}

#[cfg(test)]
pub(super) mod tests;
