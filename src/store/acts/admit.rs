//! Who may come in by an enrollment group, or by its own hardware: asked in the transaction that records the certificate.

use fleetmark_domain::{Refusal, Standing, Timestamp};

use super::record::{Admission, Reenrollment};
use crate::store::StoreError;
use crate::store::model::{Group, GroupProof, GroupState, Hardware, HardwareId, HardwareSource, Subject, SubjectState};
use crate::store::rows::Rows;

/// The group, where it lets one more device in. A device that came in by it before does not count again.
///
/// # Errors
/// `GroupUnknown`, `GroupDisabled`.
pub(super) fn open_group(rows: &mut dyn Rows, admission: &Admission) -> Result<Group, StoreError> {
    let group = rows.group(admission.group)?.ok_or(Refusal::GroupUnknown)?;
    match group.state {
        GroupState::Enabled => Ok(group),
        GroupState::Disabled | GroupState::Ended => Err(Refusal::GroupDisabled.into()),
    }
}

/// Counts a device against the group's quota; returns how many there are with it.
///
/// # Errors
/// `QuotaUsed`.
pub(super) fn counted(group: &Group, subject: &Subject) -> Result<u64, Refusal> {
    if subject.id != 0 && subject.group == Some(group.id) {
        return Ok(group.admitted);
    }
    match group.rules.terms.quota {
        Some(quota) if group.admitted >= quota => Err(Refusal::QuotaUsed),
        _ => Ok(group.admitted.saturating_add(1)),
    }
}

/// The subject that comes in under `new`'s name: `new` itself, with id 0, where nobody has it.
///
/// Hardware is one device: what it proved to be must not be known as another that is still let in. A device that has, or had, a
/// confirmed certificate enrolls anew as the rule says; one that has not may go on with another key where the proof tells one
/// device from another, and not where the proof is a claim.
///
/// # Errors
/// `NameTaken`, `HardwareOfAnother`, `HardwareMismatch`, `ReenrollmentDenied`, `ClaimBoundToOtherKey`.
pub(super) fn newcomer(
    rows: &mut dyn Rows,
    new: &Subject,
    rule: Reenrollment,
    hardware: Option<HardwareId>,
    at: Timestamp,
) -> Result<Subject, StoreError> {
    let known = rows.subject_by_name(new.kind, new.fleet.as_ref(), &new.name.folded())?;
    let owner = match hardware {
        Some(id) => rows.hardware(&id)?,
        None => None,
    };
    if let Some(owner) = owner
        && known.as_ref().is_none_or(|known| known.id != owner.subject)
        && rows.subject(owner.subject)?.is_some_and(|owner| owner.state != SubjectState::Out)
    {
        return Err(Refusal::HardwareOfAnother.into());
    }
    let Some(known) = known else { return Ok(new.clone()) };
    if known.name != new.name {
        return Err(Refusal::NameTaken.into());
    }
    let own = owner.is_some_and(|owner| owner.subject == known.id);
    if known.confirmed_generation == 0 {
        return unconfirmed(rows, known, hardware, own, at);
    }
    let is_permitted = known.permits.reenroll_until.is_some_and(|until| at < until);
    match (rule, hardware) {
        _ if is_permitted => Ok(known),
        (Reenrollment::SameHardware, Some(_)) if own => Ok(known),
        (Reenrollment::SameHardware, Some(_)) => Err(Refusal::HardwareMismatch.into()),
        (Reenrollment::Always, Some(_)) => Ok(known),
        _ => Err(Refusal::ReenrollmentDenied.into()),
    }
}

/// A device that never confirmed a certificate. One that other hardware began to enroll stays that hardware's.
fn unconfirmed(
    rows: &mut dyn Rows,
    known: Subject,
    hardware: Option<HardwareId>,
    own: bool,
    at: Timestamp,
) -> Result<Subject, StoreError> {
    if hardware.is_some() {
        let is_foreign = !own && !rows.hardware_of(known.id)?.is_empty();
        return if is_foreign { Err(Refusal::HardwareMismatch.into()) } else { Ok(known) };
    }
    let live = rows.live_certificates_of(known.id)?;
    let is_claimed = |standing| matches!(standing, Standing::Unconfirmed | Standing::Held | Standing::Quarantined);
    if live.iter().any(|certificate| is_claimed(certificate.standing) && !certificate.has_lapsed(at)) {
        return Err(Refusal::ClaimBoundToOtherKey.into());
    }
    Ok(known)
}

/// From now on this hardware is this subject.
pub(super) fn bind(
    rows: &mut dyn Rows,
    id: HardwareId,
    proof: GroupProof,
    subject: &Subject,
    at: Timestamp,
) -> Result<(), StoreError> {
    let source = match proof {
        GroupProof::Maker => HardwareSource::MakerKey,
        GroupProof::DerivedKey => HardwareSource::DerivedKey,
        // They prove no hardware.
        GroupProof::Claim | GroupProof::Approval => return Ok(()),
    };
    rows.put_hardware(&Hardware { id, subject: subject.id, source, since: at })
}
