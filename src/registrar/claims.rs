//! Claim certificates: a batch of devices shares one, and each may enroll by it once.

use fleetmark_domain::{Action, FleetName, Kind, Name, Refusal, Standing, Timestamp};

use super::caller::Caller;
use super::groups::{GroupView, claim_name};
use super::issue::Order;
use super::{Error, Registrar, Result};
use crate::pki::csr::VerifiedCsr;
use crate::store::acts::groups::RecordClaim;
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded};
use crate::store::model::{Certificate, Group, GroupProof, GroupState};
use crate::store::{StoreError, commit};

/// The profile of claim certificates.
const PROFILE: &str = "claim";

/// A claim certificate, with what must go with it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its group.
    pub group: Group,
    /// Its record, the DER in it.
    pub certificate: Certificate,
    /// The issuing authority's certificate in DER.
    pub chain: Vec<Vec<u8>>,
    /// Roots in DER.
    pub trust_bundle: Vec<Vec<u8>>,
}

impl Registrar {
    /// Issues a group's claim certificate for this key, or gives it again. There is one at a time: while the former holds, a new
    /// one is made only where `replace` is said, and then the former is revoked.
    ///
    /// # Errors
    /// `KeyEnded` for the key of one that has ended; `TransitionNotAllowed` while the former holds; `ClaimEnded`, `KeyOfAnother`,
    /// `KeyTypeNotAllowed`.
    pub async fn issue_claim(
        &self,
        caller: &Caller,
        (fleet, name): (&FleetName, &Name),
        csr: &VerifiedCsr,
        replace: bool,
        now: Timestamp,
    ) -> Result<Claim> {
        let GroupView { group, claim } = self.group(caller, fleet, name).await?;
        caller.may(Action::ManagePolicy, Some(fleet))?;
        if group.proof != GroupProof::Claim {
            return Err(Error::with_detail(Refusal::InvalidValue, "The devices of this group come in by another proof."));
        }
        if group.state == GroupState::Ended {
            return Err(Error::with_detail(Refusal::ClaimEnded, "The group has ended. Make another one."));
        }
        if let Some(claim) = claim.filter(|claim| claim.key_hash == csr.key_hash()) {
            // A key is certified once: past its certificate's end the group needs another one.
            if claim.standing != Standing::Good || claim.not_after <= now {
                return Err(Refusal::KeyEnded.into());
            }
            return self.claim(group, claim);
        }
        let authority = self.authorities.issuing(Kind::Device, Some(fleet))?;
        let profile = self.find_profile(PROFILE)?;
        if !profile.keys.contains(&csr.algorithm()) {
            return Err(Refusal::KeyTypeNotAllowed.into());
        }
        let order = Order {
            authority: &authority,
            profile,
            subject: None,
            common_name: group.name.as_str(),
            spki: csr.spki(),
            standing: Standing::Good,
            unconfirmed_ttl: None,
            token: None,
        };
        let certificate = self.sign(&order, now).await?;
        let place = (certificate.serial.epoch(), certificate.serial.index());
        let details = self.details(caller.actor(self), Some(claim_name(&group)), None, None)?;
        let record = RecordCertificate {
            certificate,
            holder: Holder::Installation,
            proof: Proof::Installation,
            approval: None,
            attributes: None,
            was_quarantined: false,
            credential: None,
            made_for: None,
            details,
            at: now,
        };
        let recorded = commit(&*self.store, RecordClaim { record, group: group.id, replace }).await;
        if !matches!(recorded, Ok(Recorded::New(_)) | Err(StoreError::Collision)) {
            self.return_index(&authority, place).await;
        }
        match recorded.map_err(in_the_way)? {
            Recorded::New(certificate) => {
                self.published.standing_changed();
                self.claim(group, certificate)
            }
            Recorded::Existing(_) => Err(Refusal::KeyOfAnother.into()),
        }
    }

    fn claim(&self, group: Group, certificate: Certificate) -> Result<Claim> {
        let authority = self.authorities.by_id(certificate.authority).ok_or(Refusal::AuthorityUnavailable)?;
        Ok(Claim {
            group,
            certificate,
            chain: self.authorities.chain_of(&authority),
            trust_bundle: self.authorities.trust_bundle(),
        })
    }
}

fn in_the_way(error: StoreError) -> Error {
    match Error::from(error) {
        error if error.refusal == Refusal::TransitionNotAllowed => Error::with_detail(
            Refusal::TransitionNotAllowed,
            "The group has a claim certificate that still holds. Say `replace` to revoke it and have another one.",
        ),
        error => error,
    }
}

#[cfg(test)]
mod tests;
