//! By a claim certificate, which a batch of devices shares. It proves that a device is of the batch, and not which one: so the
//! device says its name, and a name that was claimed stays with its key.

use fleetmark_domain::{Kind, Name, Refusal, Standing, Timestamp};

use super::{Proven, known_by_name};
use crate::pki::issue::{CertificateFacts, facts};
use crate::registrar::caller::alarm;
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::subjects::new_subject;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::record::{Admission, Holder, Proof, Reenrollment};
use crate::store::model::{Certificate, Fleet, Group, GroupProof, GroupState, Subject};
use crate::store::rows::{Rows, certificate_id};
use crate::store::{StoreError, look_up};

/// What the store knows of a claim certificate and of who comes with it.
struct Standpoint {
    claim: Certificate,
    group: Option<Group>,
    fleet: Fleet,
    /// The name under which it enrolls; None: it said none.
    name: Option<Name>,
    subject: Option<Subject>,
    existing: Option<Certificate>,
}

/// The facts of a claim certificate; None for any other.
pub(super) fn claim(chain: &[Vec<u8>]) -> Option<CertificateFacts> {
    facts(chain.first()?).ok().filter(|facts| facts.is_claim)
}

impl Registrar {
    pub(super) async fn prove_by_claim(
        &self,
        request: &EnrollRequest,
        shown: CertificateFacts,
        now: Timestamp,
    ) -> Result<Proven> {
        let Standpoint { claim, group, fleet, name, subject, existing } = self.claimed(request, shown).await?;
        self.check_claim(&claim, &fleet, now)?;
        let group = group.filter(|group| group.fleet == fleet.name).ok_or(Refusal::ClaimEnded)?;
        if request.group.as_ref().is_some_and(|asked| asked.folded() != group.name.folded()) {
            return Err(Error::with_detail(Refusal::GroupUnknown, "The claim certificate is of another group."));
        }
        match group.state {
            GroupState::Enabled => {}
            GroupState::Disabled => return Err(Refusal::GroupDisabled.into()),
            GroupState::Ended => return Err(Refusal::ClaimEnded.into()),
        }
        let name = name.ok_or_else(|| Error::with_detail(Refusal::InvalidName, "Say under which name to enroll."))?;
        if existing.is_none() {
            group.rules.terms.admit(&name, request.source, now)?;
        }
        let subject = subject.unwrap_or_else(|| {
            let newcomer = new_subject(Kind::Device, Some(fleet.name.clone()), name, now);
            Subject { attributes: group.rules.attributes.clone(), ..newcomer }
        });
        Ok(Proven {
            holder: Holder::Admitted(Box::new(subject.clone()), Reenrollment::Permit),
            subject,
            fleet: Some(fleet),
            existing,
            proof: Proof::Group(Admission { group: group.id, proof: GroupProof::Claim, hardware: None }),
            token: None,
            approval: group.rules.terms.approval,
            note: format!("claim, group {}", group.name),
            group: Some(group),
        })
    }

    /// Reads claim, group, name, subject and the key's certificate, in one state of things.
    async fn claimed(&self, request: &EnrollRequest, shown: CertificateFacts) -> Result<Standpoint> {
        let serial = shown.serial.ok_or(Refusal::NotOnLedger)?;
        let asked = (request.fleet.clone(), request.name.clone(), request.csr.key_hash());
        let found = look_up(&*self.store, move |rows| {
            let claim = rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
            let claim = claim.filter(|claim| claim.fingerprint == shown.fingerprint && claim.subject.is_none());
            let Some(claim) = claim else { return Ok(None) };
            let (fleet, said, key) = asked;
            let fleet = rows.fleet(&fleet.ok_or(Refusal::FleetUnknown)?)?.ok_or(Refusal::FleetUnknown)?;
            let group = rows.group_by_key(&claim.key_hash)?;
            let name = match (&group, said) {
                (Some(group), Some(said)) if group.fleet == fleet.name => Some(listed_name(rows, group, said)?),
                (_, said) => said,
            };
            let subject = match &name {
                Some(name) => known_by_name(rows, Kind::Device, Some(&fleet.name), name)?,
                None => None,
            };
            Ok(Some(Standpoint { claim, group, fleet, name, subject, existing: rows.certificate_by_key(&key)? }))
        });
        if let Some(standpoint) = found.await? {
            return Ok(standpoint);
        }
        alarm("forged_certificate", &format!("claim of serial {serial}, fingerprint {}", shown.fingerprint));
        Err(Refusal::NotOnLedger.into())
    }

    /// The certificate itself: of an authority of the fleet's that is not revoked, in time, and not revoked itself.
    fn check_claim(&self, claim: &Certificate, fleet: &Fleet, now: Timestamp) -> Result<()> {
        let authority = self.authorities.by_id(claim.authority).ok_or(Refusal::WrongAuthority)?;
        // Of a connection that was open before.
        if !authority.record.state.is_trusted() {
            return Err(Refusal::AuthorityRevoked.into());
        }
        if !authority.is_bound_to(Kind::Device, Some(&fleet.name)) {
            return Err(Refusal::WrongFleet.into());
        }
        if now < claim.not_before {
            return Err(Refusal::CertificateNotYetValid.into());
        }
        if claim.not_after < now || claim.standing != Standing::Good {
            return Err(Refusal::ClaimEnded.into());
        }
        Ok(())
    }
}

/// The name under which a device enrolls: what it says, or what the list says for it.
fn listed_name(rows: &mut dyn Rows, group: &Group, said: Name) -> std::result::Result<Name, StoreError> {
    match rows.listed_serial(group.id, said.as_str())? {
        Some(listed) => Ok(listed.device.unwrap_or(said)),
        None if group.rules.listed_only => Err(Refusal::SerialNotListed.into()),
        None => Ok(said),
    }
}
