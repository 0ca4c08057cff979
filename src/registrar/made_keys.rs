//! Enrollment with a key that the server makes (RFC 7030 4.4), where the profile turns it on. The key is in memory until it was
//! answered with, and nowhere else. docs/est.md says what a fleet gives up by this.
//!
//! A repeat cannot be given the same certificate, since its key is gone. So the earlier certificate, while it is unconfirmed, is
//! revoked as superseded, and the proof stays bound to the device: of however many repeats one certificate is left.

use fleetmark_domain::{FleetName, KeyHash, Refusal, Standing, Timestamp};

use super::caller::Caller;
use super::enroll::{EnrollRequest, Enrollment};
use super::proofs::Shown;
use super::{Error, Registrar, Result};
use crate::pki::keygen::{MadeKey, digest};
use crate::store::model::{Certificate, Subject, Token};

/// A certificate with the key that was made for it.
#[derive(Debug)]
pub struct MadeEnrollment {
    /// The certificate.
    pub enrollment: Enrollment,
    /// The key, cleared when this is dropped.
    pub key: MadeKey,
}

impl Registrar {
    /// Enrolls as [`Registrar::enroll`] does, with a key made here. The request's own key marks the request: sent again with it,
    /// and with the same name and proof, the request gets another key and a certificate that replaces the earlier one, until that
    /// one is confirmed.
    ///
    /// # Errors
    /// `ServerKeygenOff`, also where a person must approve the device; those of enrollment.
    pub async fn enroll_with_made_key(&self, request: EnrollRequest, now: Timestamp) -> Result<MadeEnrollment> {
        let fleet = request.fleet.as_ref().ok_or(Refusal::FleetUnknown)?;
        let mut key = self.make_key(fleet).await?;
        key.csr = key.csr.for_request(mark(&request, fleet)?);
        let enrollment = self.enroll(EnrollRequest { csr: key.csr.clone(), ..request }, now).await?;
        Ok(MadeEnrollment { enrollment, key })
    }

    /// Renews as [`Registrar::renew`] does, with a key made here. An earlier certificate that is not confirmed is replaced.
    ///
    /// # Errors
    /// `ServerKeygenOff`, `WrongKind`; those of renewal.
    pub async fn renew_with_made_key(&self, caller: &Caller, now: Timestamp) -> Result<MadeEnrollment> {
        let key = self.make_key(caller.identity.fleet().ok_or(Refusal::WrongKind)?).await?;
        let enrollment = self.renew(caller, &key.csr, now).await?;
        Ok(MadeEnrollment { enrollment, key })
    }

    async fn make_key(&self, fleet: &FleetName) -> Result<MadeKey> {
        let profile = self.fleet_profile(fleet).await?;
        if !profile.est.server_key_generation {
            return Err(Refusal::ServerKeygenOff.into());
        }
        MadeKey::new(&profile.keys).map_err(|error| Error::caused(Refusal::AuthorityUnavailable, error))
    }
}

/// By what a request for a key is known again: fleet, name, proof, and the key that signed it.
fn mark(request: &EnrollRequest, fleet: &FleetName) -> Result<KeyHash> {
    let proof = if let Shown::Token(token) = &request.shown {
        token.id.as_slice()
    } else if let Shown::Certificate(chain) = &request.shown {
        chain.first().ok_or(Refusal::ProofRequired)?
    } else {
        return Err(Refusal::ProofRequired.into());
    };
    let name = request.name.as_ref().map_or("", |name| name.as_str());
    Ok(digest(&[fleet.as_str().as_bytes(), name.as_bytes(), proof, request.csr.spki()]))
}

/// Whether an earlier answer, with a key that nobody keeps, may be replaced.
///
/// # Errors
/// `KeyOfAnother`; `Lapsed`, `TokenUsed`, `KeyEnded`: it had its time, was taken into use, or ended.
pub(super) fn may_be_replaced(subject: &Subject, token: Option<&Token>, existing: &Certificate, now: Timestamp) -> Result<()> {
    if existing.subject != Some(subject.id) {
        return Err(Refusal::KeyOfAnother.into());
    }
    let refusal = match existing.standing {
        Standing::Unconfirmed if existing.has_lapsed(now) => Refusal::Lapsed,
        Standing::Unconfirmed => return Ok(()),
        Standing::Held => Refusal::Held,
        Standing::Quarantined => Refusal::Quarantined,
        Standing::Good if token.is_some() => Refusal::TokenUsed,
        Standing::Good | Standing::Superseded | Standing::Revoked(_) => Refusal::KeyEnded,
    };
    Err(refusal.into())
}
