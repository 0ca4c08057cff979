//! Devices, gateways, services and operators are registered and change.

use std::collections::BTreeMap;

use fleetmark_domain::{Kind, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::limits::spend;
use super::standing::is_working_owner;
use super::{Repeatable, made_before, remember};
use crate::store::model::{Subject, SubjectId, Token};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Registers a subject, with its invitation where it has one.
#[derive(Debug)]
pub struct Register {
    /// Who; its id is set here.
    pub subject: Subject,
    /// The invitation; its subject is set here.
    pub invitation: Option<Token>,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

/// The details of a `registered` or `changed` entry: of a device, with the attributes that it has from here on.
pub(super) fn with_attributes(details: &Details, subject: &Subject) -> Details {
    let attributes = if subject.kind == Kind::Device { subject.attributes.clone() } else { BTreeMap::new() };
    Details { attributes, ..details.clone() }
}

/// The ledger that a subject's entries stand in.
pub fn ledger_of(subject: &Subject) -> LedgerName {
    LedgerName::from(subject.fleet.as_ref())
}

impl Act for Register {
    /// The record, and its invitation as it was minted, where it was.
    type Outcome = (Subject, Option<Token>);

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![ledger_of(&self.subject)]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let Subject { kind, fleet, name, .. } = &self.subject;
        let known = transaction.rows.subject_by_name(*kind, fleet.as_ref(), &name.folded())?;
        match (made_before(transaction.rows, self.repeatable.as_ref())?, known) {
            (Some(_), Some(known)) => {
                let minted = match &self.invitation {
                    Some(again) => transaction.rows.token(&again.id)?,
                    None => None,
                };
                return Ok((known, minted));
            }
            (Some(_), None) => return Err(Refusal::NotFound.into()),
            (None, Some(_)) => return Err(Refusal::NameTaken.into()),
            (None, None) => {}
        }
        if let Some(fleet) = fleet
            && transaction.rows.fleet(fleet)?.is_none()
        {
            return Err(Refusal::FleetUnknown.into());
        }
        let id = transaction.rows.insert_subject(&self.subject)?;
        transaction.append(
            &ledger_of(&self.subject),
            self.at,
            Event::Registered { subject: id, kind: *kind },
            Some(&with_attributes(&self.details, &self.subject)),
        )?;
        let invitation = self.invitation.clone().map(|invitation| Token { subject: Some(id), ..invitation });
        if let Some(invitation) = &invitation {
            transaction.rows.insert_token(invitation)?;
        }
        remember(transaction.rows, self.repeatable.as_ref())?;
        Ok((Subject { id, ..self.subject.clone() }, invitation))
    }
}

/// Changes a subject's record.
#[derive(Debug)]
pub struct ChangeSubject {
    /// The record as it is to be; its version is the one that was read.
    pub subject: Subject,
    /// The operator against whose limit it counts; None for the server itself.
    pub by: Option<SubjectId>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for ChangeSubject {
    type Outcome = Subject;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![ledger_of(&self.subject)]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Subject, StoreError> {
        let current = transaction.rows.subject(self.subject.id)?.ok_or(Refusal::NotFound)?;
        if current.version != self.subject.version {
            return Err(Refusal::EtagMismatch.into());
        }
        let stays_owner = self.subject.role == current.role;
        if is_working_owner(&current) && !stays_owner && transaction.rows.owners()? <= 1 {
            return Err(Refusal::LastOwner.into());
        }
        spend(transaction.rows, self.by, current.fleet.as_ref(), current.id, self.at)?;
        let changed = Subject {
            version: current.version + 1,
            last_generation: current.last_generation,
            confirmed_generation: current.confirmed_generation,
            state: current.state,
            // What enrollment writes beside the version.
            group: current.group,
            permits: current.permits,
            moved_from: current.moved_from,
            ..self.subject.clone()
        };
        transaction.rows.update_subject(&changed)?;
        let details = with_attributes(&self.details, &changed);
        transaction.append(&ledger_of(&changed), self.at, Event::Changed { subject: changed.id }, Some(&details))?;
        Ok(changed)
    }
}
