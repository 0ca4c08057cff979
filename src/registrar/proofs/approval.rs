//! By nothing but a person's approval, where the fleet has an enrollment group for that.

use fleetmark_domain::{FleetName, Kind, Name, Refusal, Timestamp};

use super::{InGroup, Proven, Shown, known_by_name};
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::subjects::new_subject;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::record::{Admission, Holder, Proof, Reenrollment};
use crate::store::model::{Group, GroupProof, GroupState, Subject, SubjectState};
use crate::store::rows::Rows;
use crate::store::{StoreError, look_up};

/// How many groups are read at a time.
const PAGE: u32 = 100;

impl Registrar {
    /// What a device shows that shows nothing; asked before its request is read.
    ///
    /// # Errors
    /// `ProofRequired` where the fleet, which may not be there, lets nobody in that way.
    pub async fn shown_nothing(&self, fleet: &FleetName) -> Result<Shown> {
        let fleet = fleet.clone();
        let open = look_up(&*self.store, move |rows| open_groups(rows, &fleet)).await?;
        if open.is_empty() { Err(Refusal::ProofRequired.into()) } else { Ok(Shown::Nothing) }
    }

    pub(super) async fn prove_by_approval(&self, request: &EnrollRequest, now: Timestamp) -> Result<Proven> {
        let name = request
            .name
            .clone()
            .ok_or_else(|| Error::with_detail(Refusal::InvalidName, "Say in `device` under which name to enroll."))?;
        let InGroup { fleet, group, known, existing, is_listed } = self.approval_standpoint(request, &name).await?;
        if existing.is_none() {
            group.rules.terms.admit(&name, request.source, now)?;
            if !is_listed {
                return Err(Refusal::SerialNotListed.into());
            }
            if let Some(known) = &known {
                may_enroll(known, now)?;
            }
        }
        let mut new = new_subject(Kind::Device, Some(fleet.name.clone()), name, now);
        new.attributes.clone_from(&group.rules.attributes);
        Ok(Proven {
            subject: known.unwrap_or_else(|| new.clone()),
            fleet: Some(fleet),
            existing,
            holder: Holder::Admitted(Box::new(new), Reenrollment::Permit),
            proof: Proof::Group(Admission { group: group.id, proof: GroupProof::Approval, hardware: None }),
            token: None,
            approval: true,
            note: format!("group {}", group.name),
            group: Some(group),
        })
    }

    async fn approval_standpoint(&self, request: &EnrollRequest, name: &Name) -> Result<InGroup> {
        let (fleet, asked) = (request.fleet.clone().ok_or(Refusal::FleetUnknown)?, request.group.clone());
        let (name, key) = (name.clone(), request.csr.key_hash());
        let found = look_up(&*self.store, move |rows| {
            let fleet = rows.fleet(&fleet)?.ok_or(Refusal::FleetUnknown)?;
            let group = group_of(rows, &fleet.name, asked.as_ref())?;
            let known = known_by_name(rows, Kind::Device, Some(&fleet.name), &name)?;
            let existing = rows.certificate_by_key(&key)?;
            let is_listed = !group.rules.listed_only || rows.listed_serial(group.id, name.as_str())?.is_some();
            Ok(InGroup { fleet, group, known, existing, is_listed })
        });
        Ok(found.await?)
    }
}

/// The fleet's groups of this proof that are enabled.
fn open_groups(rows: &mut dyn Rows, fleet: &FleetName) -> std::result::Result<Vec<Group>, StoreError> {
    let (mut open, mut after) = (Vec::new(), 0);
    loop {
        let page = rows.groups(Some(fleet), after, PAGE)?;
        let Some(last) = page.last() else { return Ok(open) };
        after = last.id;
        open.extend(page.into_iter().filter(|group| group.proof == GroupProof::Approval && group.state == GroupState::Enabled));
    }
}

/// The group that was asked for, or the fleet's only one.
fn group_of(rows: &mut dyn Rows, fleet: &FleetName, asked: Option<&Name>) -> std::result::Result<Group, StoreError> {
    if let Some(asked) = asked {
        let group = rows.group_by_name(fleet, &asked.folded())?.filter(|group| group.proof == GroupProof::Approval);
        let group = group.ok_or(Refusal::GroupUnknown)?;
        return if group.state == GroupState::Enabled { Ok(group) } else { Err(Refusal::GroupDisabled.into()) };
    }
    let mut open = open_groups(rows, fleet)?;
    match (open.pop(), open.is_empty()) {
        (None, _) => Err(Refusal::ProofRequired.into()),
        (Some(group), true) => Ok(group),
        // Which of them is for the device to say, in `group`.
        (Some(_), false) => Err(Refusal::GroupUnknown.into()),
    }
}

/// Nobody is asked to approve what would be refused afterwards. The transaction that records the certificate asks again.
fn may_enroll(known: &Subject, now: Timestamp) -> std::result::Result<(), Refusal> {
    let is_permitted = known.permits.reenroll_until.is_some_and(|until| now < until);
    match known.state {
        SubjectState::Out => Err(Refusal::IdentityOut),
        _ if known.confirmed_generation > 0 && !is_permitted => Err(Refusal::ReenrollmentDenied),
        _ => Ok(()),
    }
}
