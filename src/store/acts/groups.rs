//! Enrollment groups come to be, change and end. A group changes no certificate's standing but a claim certificate's, so of the
//! rest the ledger does not speak. Each act holds the fleet's ledger all the same: enrollments count a group's devices under it.

use fleetmark_domain::{FleetName, LedgerName, Refusal, RevocationReason, Standing, Timestamp};
use fleetmark_ledger::details::Details;

use super::record::{RecordCertificate, Recorded};
use super::standing::set_standing;
use super::{Repeatable, made_before, remember};
use crate::store::model::{Certificate, Group, GroupId, GroupProof, GroupRules, GroupState, ListedSerial};
use crate::store::rows::Rows;
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// Creates a group.
#[derive(Debug)]
pub struct CreateGroup {
    /// The group.
    pub group: Group,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
}

impl Act for CreateGroup {
    type Outcome = Group;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.group.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Group, StoreError> {
        let Group { fleet, name, .. } = &self.group;
        if let Some(id) = made_before(transaction.rows, self.repeatable.as_ref())? {
            let id: GroupId = id.parse().map_err(|_| StoreError::Unreadable { what: "remembered group" })?;
            return transaction.rows.group(id)?.ok_or_else(|| Refusal::NotFound.into());
        }
        if transaction.rows.fleet(fleet)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        if transaction.rows.group_by_name(fleet, &name.folded())?.is_some() {
            return Err(Refusal::NameTaken.into());
        }
        transaction.rows.insert_group(&self.group)?;
        remember(transaction.rows, self.repeatable.as_ref())?;
        Ok(self.group.clone())
    }
}

/// Changes a group; what is None stays. One that has ended does not change any more.
#[derive(Debug)]
pub struct ChangeGroup {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which.
    pub id: GroupId,
    /// What was read, where the caller said so.
    pub version: Option<u64>,
    /// Its rules anew.
    pub rules: Option<GroupRules>,
    /// What its proof is judged by, anew.
    pub material: Option<Vec<u8>>,
    /// Whether it lets devices in: enabled or disabled.
    pub state: Option<GroupState>,
}

impl Act for ChangeGroup {
    type Outcome = Group;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Group, StoreError> {
        let current = transaction.rows.group(self.id)?.ok_or(Refusal::NotFound)?;
        if self.version.is_some_and(|version| version != current.version) {
            return Err(Refusal::EtagMismatch.into());
        }
        let mut group = current.clone();
        group.rules = self.rules.clone().unwrap_or(group.rules);
        group.material = self.material.clone().unwrap_or(group.material);
        group.state = self.state.unwrap_or(group.state);
        if group == current {
            return Ok(current);
        }
        if current.state == GroupState::Ended {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        group.version = current.version.saturating_add(1);
        transaction.rows.update_group(&group)?;
        Ok(group)
    }
}

/// Ends a group for good, and revokes its claim certificate. Certificates of its devices stay.
#[derive(Debug)]
pub struct EndGroup {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which.
    pub id: GroupId,
    /// Why its claim certificate is revoked.
    pub reason: RevocationReason,
    /// Who did it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for EndGroup {
    type Outcome = Group;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Group, StoreError> {
        let group = transaction.rows.group(self.id)?.ok_or(Refusal::NotFound)?;
        let revoked = Standing::Revoked(self.reason);
        let claim = claim_of(transaction.rows, &group)?.filter(|claim| claim.standing.may_become(revoked));
        set_standing(transaction, claim.as_slice(), revoked, self.at, Some(&self.details))?;
        if group.state == GroupState::Ended {
            return Ok(group);
        }
        let ended = Group { state: GroupState::Ended, version: group.version.saturating_add(1), ..group };
        transaction.rows.update_group(&ended)?;
        Ok(ended)
    }
}

/// The newest claim certificate of a group.
pub fn claim_of(rows: &mut dyn Rows, group: &Group) -> Result<Option<Certificate>, StoreError> {
    match &group.key_hash {
        Some(key) if group.proof == GroupProof::Claim => rows.certificate_by_key(key),
        _ => Ok(None),
    }
}

/// Records a claim certificate, and revokes the one that it replaces.
#[derive(Debug)]
pub struct RecordClaim {
    /// The certificate, held by the installation itself.
    pub record: RecordCertificate,
    /// Its group.
    pub group: GroupId,
    /// Whether it may take the place of one that still holds.
    pub replace: bool,
}

impl Act for RecordClaim {
    type Outcome = Recorded;

    fn ledgers(&self) -> Vec<LedgerName> {
        self.record.ledgers()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Recorded, StoreError> {
        let RecordCertificate { certificate, details, at, .. } = &self.record;
        let group = transaction.rows.group(self.group)?.ok_or(Refusal::NotFound)?;
        if group.state == GroupState::Ended {
            return Err(Refusal::ClaimEnded.into());
        }
        let revoked = Standing::Revoked(RevocationReason::Superseded);
        let former = claim_of(transaction.rows, &group)?.filter(|former| former.standing.may_become(revoked));
        let in_the_way =
            former.as_ref().is_some_and(|former| former.not_after > *at && former.key_hash != certificate.key_hash);
        if in_the_way && !self.replace {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        let recorded = self.record.perform(transaction)?;
        if let Recorded::New(certificate) = &recorded {
            set_standing(transaction, former.as_slice(), revoked, *at, Some(details))?;
            let version = group.version.saturating_add(1);
            transaction.rows.update_group(&Group { key_hash: Some(certificate.key_hash), version, ..group })?;
        }
        Ok(recorded)
    }
}

/// Lists serials, or takes some off the list; at most so many that the writer is not kept from others.
#[derive(Debug)]
pub struct ListSerials {
    /// The group's fleet.
    pub fleet: FleetName,
    /// Which group.
    pub group: GroupId,
    /// To list; one that is listed is replaced.
    pub put: Vec<ListedSerial>,
    /// To take off.
    pub remove: Vec<String>,
}

impl Act for ListSerials {
    /// How many were taken off.
    type Outcome = u64;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        if transaction.rows.group(self.group)?.is_none() {
            return Err(Refusal::NotFound.into());
        }
        for listed in &self.put {
            transaction.rows.put_serial(self.group, listed)?;
        }
        let mut removed = 0_u64;
        for serial in &self.remove {
            removed = removed.saturating_add(transaction.rows.delete_serial(self.group, serial)?.into());
        }
        Ok(removed)
    }
}
