//! The keys that sign status lists and statements of standing: delegated by each authority, P-256 always, since firmware verifies them.
//!
//! Firmware keeps such a key. So its successor is made and published at half of its life, and signs only when its end is near: whoever
//! looked once in the year between knows it in time.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Refusal, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_status::encoder::{point_of_spki, raw_signature};
use fleetmark_status::header::SIGNATURE_LENGTH;

use super::insert;
use crate::pki::PkiError;
use crate::pki::keys::Signer;
use crate::registrar::authorities::Authority;
use crate::registrar::caller::alarm;
use crate::registrar::own::{OwnCertificate, OwnOrder};
use crate::registrar::tokens::sha256;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::lists::SetValues;
use crate::store::model::{AuthorityId, Certificate, Credential};
use crate::store::{commit, read};

/// The profile of their certificates.
const PROFILE: &str = "status";
/// So long before the end of a key its successor takes over; of one that lives less than a year, at most in the last sixth of its life.
const HANDOVER: Duration = Duration::from_secs(60 * 86_400);
const HANDOVER_SHARE: u32 = 6;

/// A key that signs for an authority.
#[derive(Debug)]
pub struct StatusSigner {
    /// Its certificate in DER.
    pub certificate: Vec<u8>,
    /// The certificate of the key that will sign next, where it is there.
    pub successor: Option<Vec<u8>>,
    /// The first 8 octets of SHA-256 over its point.
    pub key_id: [u8; 8],
    /// Octets 0 to 19 of the list's scope: the authority's subject key identifier.
    pub authority: [u8; 20],
    signer: Arc<dyn Signer>,
}

impl StatusSigner {
    /// r and s over the message.
    pub(super) fn sign(&self, message: &[u8]) -> std::result::Result<[u8; SIGNATURE_LENGTH], PkiError> {
        let der = self.signer.sign(message)?;
        raw_signature(&der).ok_or_else(|| PkiError::Encoding("an ECDSA signature on P-256 was expected".to_owned()))
    }
}

impl Registrar {
    /// The key that signs for an authority now.
    pub fn status_signer(&self, authority: AuthorityId) -> Option<Arc<StatusSigner>> {
        self.status.signers.load().get(&authority).cloned()
    }

    /// Makes sure that every authority whose certificates still count has a status key, and from half of its life on a successor. A
    /// revoked one keeps the key that it had, to say so with. One that cannot be made keeps no other from being made.
    ///
    /// # Errors
    /// The first failure, after all authorities were tried.
    pub async fn renew_status_signers(&self, now: Timestamp) -> Result<()> {
        let mut failure = None;
        for authority in self.authorities.all().iter() {
            if now >= authority.not_after || authority.record.kind == AuthorityKind::Root {
                continue;
            }
            let outcome = match authority.record.state {
                AuthorityState::Prepared => continue,
                AuthorityState::Revoked => self.keep_status_signer(authority, now).await,
                AuthorityState::Active | AuthorityState::Tainted => self.renew_status_signer(authority, now).await,
            };
            if let Err(error) = outcome {
                alarm("status_key_not_renewed", &format!("authority {}: {}", authority.record.id, error.refusal));
                failure = failure.or(Some(error));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn renew_status_signer(&self, authority: &Authority, now: Timestamp) -> Result<()> {
        let id = authority.record.id;
        let names = Names::of(id);
        self.forget_former(&names).await?;
        let serves = |own: &OwnCertificate| serves(&own.certificate, authority.not_after, now);
        let kept = self.kept_certificate(&names.current).await?;
        let current = kept.clone().filter(serves);
        let next = self.kept_certificate(&names.next).await?.filter(serves);
        let (current, mut next) = match (current, next) {
            // A server of an earlier version died while it handed over.
            (Some(current), Some(next)) if current.key_label == next.key_label => {
                commit(&*self.store, SetValues(vec![(names.next.clone(), Vec::new())])).await?;
                (current, None)
            }
            (Some(current), next) => (current, next),
            (None, Some(successor)) => {
                self.promote(&names, &successor).await?;
                (successor, None)
            }
            (None, None) => match self.make_status_key(authority, names.current, now).await {
                Ok(made) => (made, None),
                Err(error) => {
                    // The one that is there signs while it holds.
                    let kept = kept.filter(|own| now < own.certificate.not_after);
                    kept.map(|own| self.sign_with(authority, own, None)).transpose()?;
                    return Err(error);
                }
            },
        };
        let mut failure = None;
        // None follows a key that ends with its authority.
        let is_last = current.certificate.not_after >= authority.not_after;
        if next.is_none() && !is_last && current.certificate.renew_after <= now {
            match self.make_status_key(authority, names.next, now).await {
                Ok(made) => next = Some(made),
                // The one that is there signs all the same.
                Err(error) => failure = Some(error),
            }
        }
        self.sign_with(authority, current, next)?;
        failure.map_or(Ok(()), Err)
    }

    /// The key that a revoked authority had goes on signing that nothing of it is good, till it ends; it gets no other.
    async fn keep_status_signer(&self, authority: &Authority, now: Timestamp) -> Result<()> {
        let kept = self.kept_certificate(&Names::of(authority.record.id).current).await?;
        let kept = kept.filter(|own| now < own.certificate.not_after);
        kept.map_or(Ok(()), |own| self.sign_with(authority, own, None))
    }

    fn sign_with(&self, authority: &Authority, current: OwnCertificate, next: Option<OwnCertificate>) -> Result<()> {
        let id = authority.record.id;
        let successor = next.map(|own| own.certificate.der);
        let known = self.status_signer(id);
        if known.is_some_and(|known| known.certificate == current.certificate.der && known.successor == successor) {
            return Ok(());
        }
        let unavailable = |cause| Error::caused(Refusal::AuthorityUnavailable, cause);
        let signer = self.authorities.keys().load(&current.key_label).map_err(unavailable)?;
        let point = point_of_spki(signer.public_key());
        let point = point.ok_or_else(|| unavailable(PkiError::Encoding("a status key is a P-256 key".to_owned())))?;
        let key_id = sha256(&point).first_chunk().copied().unwrap_or_default();
        let authority = authority.key_id.as_slice().try_into().map_err(|_| {
            unavailable(PkiError::Certificate("an authority's subject key identifier has 20 octets".to_owned()))
        })?;
        insert(
            &self.status.signers,
            id,
            StatusSigner { certificate: current.certificate.der, successor, key_id, authority, signer },
        );
        Ok(())
    }

    async fn make_status_key(&self, authority: &Authority, credential: String, now: Timestamp) -> Result<OwnCertificate> {
        let name = format!("status signer {}", authority.record.id);
        let order = OwnOrder { authority, profile: self.find_profile(PROFILE)?, subject: None, common_name: &name };
        self.make_own(credential, "status", order, now).await
    }

    /// The successor takes the place, in one transaction; the former key's file goes after that.
    async fn promote(&self, names: &Names, successor: &OwnCertificate) -> Result<()> {
        let (key_label, key_hash) = (successor.key_label.clone(), successor.certificate.key_hash);
        let value = Credential { key_label, key_hash }.encode();
        let current = names.current.clone();
        let former = read(&*self.store, move |rows| rows.value(&current)).await?.unwrap_or_default();
        let values = vec![(names.current.clone(), value), (names.next.clone(), Vec::new()), (names.former.clone(), former)];
        commit(&*self.store, SetValues(values)).await?;
        tracing::info!(serial = %successor.certificate.serial, "a status key hands over to its successor");
        self.forget_former(names).await
    }

    /// Removes the file of the key that handed over; what a server did not come to before it died is done by the next.
    async fn forget_former(&self, names: &Names) -> Result<()> {
        let former = names.former.clone();
        let Some(value) = read(&*self.store, move |rows| rows.value(&former)).await?.filter(|value| !value.is_empty()) else {
            return Ok(());
        };
        if let Some(former) = Credential::decode(&value) {
            self.forget_own_key(&former.key_label);
        }
        Ok(commit(&*self.store, SetValues(vec![(names.former.clone(), Vec::new())])).await?)
    }
}

/// Whether a key signs now: till its successor takes over, or to its end where that is its authority's, since no successor would last
/// longer.
fn serves(own: &Certificate, authority_ends: Timestamp, now: Timestamp) -> bool {
    let handover = HANDOVER.min(own.not_after.since(own.issued_at) / HANDOVER_SHARE);
    now < own.not_after && (now + handover < own.not_after || own.not_after >= authority_ends)
}

/// Under which names the store keeps an authority's status keys.
struct Names {
    current: String,
    /// The successor, till it takes over.
    next: String,
    /// The one that handed over, till its file is gone.
    former: String,
}

impl Names {
    fn of(authority: AuthorityId) -> Self {
        Self {
            current: format!("credential/status/{authority}"),
            next: format!("credential/status-next/{authority}"),
            former: format!("credential/status-former/{authority}"),
        }
    }
}

#[cfg(test)]
mod tests;
