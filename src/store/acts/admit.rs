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
/// Hardware is one device: what it proved to be must not be known as another. Where that other one was put out, its hardware is out
/// with it, until an operator permits the new name to enroll. A device that has, or had, a confirmed certificate enrolls anew as the
/// rule says, or by a permit. One that has not may go on with another key where its hardware is known; where it is not, a certificate
/// that waits for its confirmation keeps the name.
///
/// # Errors
/// `NameTaken`, `HardwareOfAnother`, `IdentityOut`, `HardwareMismatch`, `ReenrollmentDenied`, `ClaimBoundToOtherKey`.
pub(in crate::store) fn newcomer(
    rows: &mut dyn Rows,
    new: &Subject,
    rule: Reenrollment,
    hardware: Option<HardwareId>,
    at: Timestamp,
) -> Result<Subject, StoreError> {
    let known = rows.subject_by_name(new.kind, new.fleet.as_ref(), &new.name.folded())?;
    let is_permitted = known.as_ref().and_then(|known| known.permits.reenroll_until).is_some_and(|until| at < until);
    let owner = match hardware {
        Some(id) => rows.hardware(&id)?.map(|owner| owner.subject),
        None => None,
    };
    let own = owner.is_some() && owner == known.as_ref().map(|known| known.id);
    if let Some(owner) = owner
        && !own
        && known.as_ref().is_none_or(|known| known.moved_from != Some(owner))
        && let Some(other) = rows.subject(owner)?
    {
        match other.state {
            SubjectState::Out if is_permitted => {}
            SubjectState::Out => return Err(Refusal::IdentityOut.into()),
            SubjectState::Registered | SubjectState::Active | SubjectState::Released => {
                return Err(Refusal::HardwareOfAnother.into());
            }
        }
    }
    let Some(known) = known else { return Ok(new.clone()) };
    if known.name != new.name {
        return Err(Refusal::NameTaken.into());
    }
    if is_permitted {
        return Ok(known);
    }
    let is_bound = !rows.hardware_of(known.id)?.is_empty();
    let is_anew = known.confirmed_generation > 0;
    match hardware {
        Some(_) if own && !is_anew => Ok(known),
        None if is_bound => Err(Refusal::HardwareMismatch.into()),
        _ if !is_anew => unclaimed(rows, known, hardware.is_some(), is_bound, at),
        Some(_) => match rule {
            Reenrollment::SameHardware if own => Ok(known),
            Reenrollment::SameHardware if is_bound => Err(Refusal::HardwareMismatch.into()),
            Reenrollment::Always => Ok(known),
            Reenrollment::Deny | Reenrollment::SameHardware | Reenrollment::Permit => Err(Refusal::ReenrollmentDenied.into()),
        },
        None => Err(Refusal::ReenrollmentDenied.into()),
    }
}

/// A device that never confirmed a certificate, where the proof is none of its known hardware: nobody may hold the name meanwhile.
fn unclaimed(
    rows: &mut dyn Rows,
    known: Subject,
    is_hardware: bool,
    is_bound: bool,
    at: Timestamp,
) -> Result<Subject, StoreError> {
    if is_bound {
        return Err(Refusal::HardwareMismatch.into());
    }
    let live = rows.live_certificates_of(known.id)?;
    let waits = |standing| matches!(standing, Standing::Unconfirmed | Standing::Held | Standing::Quarantined);
    match live.iter().any(|certificate| waits(certificate.standing) && !certificate.has_lapsed(at)) {
        true if is_hardware => Err(Refusal::NameTaken.into()),
        true => Err(Refusal::ClaimBoundToOtherKey.into()),
        false => Ok(known),
    }
}

/// From now on this hardware is this subject, and other hardware of its source no more.
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
    let known = rows.hardware_of(subject.id)?;
    if known.iter().any(|known| known.id == id) {
        return Ok(());
    }
    for other in known.iter().filter(|known| known.source == source) {
        rows.delete_hardware(&other.id)?;
    }
    rows.put_hardware(&Hardware { id, subject: subject.id, source, since: at })
}
