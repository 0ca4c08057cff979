//! How many devices of a fleet one operator may change in an hour, and what a second operator allows it beyond.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetmark_domain::{Action, FleetName, Kind, LedgerName, Name, Refusal, Timestamp};

use super::caller::Caller;
use super::subjects::{Who, identity_of};
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::acts::limits::{Allow, usage};
use crate::store::model::{Allowance, SubjectId};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};

/// An allowance to give.
#[derive(Debug, Clone)]
pub struct NewAllowance {
    /// Whom.
    pub operator: Name,
    /// How many more devices in an hour.
    pub devices: u64,
    /// For how long.
    pub lifetime: Duration,
}

/// An allowance, with names.
#[derive(Debug, Clone)]
pub struct AllowanceView {
    /// As it is kept.
    pub allowance: Allowance,
    /// Whom.
    pub operator: Name,
    /// Who allowed it.
    pub allowed_by: Name,
}

impl Registrar {
    /// Lets another operator change more devices of `fleet` for a while. It is written into the installation's ledger as a
    /// change of that operator.
    pub async fn allow(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        new: NewAllowance,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<AllowanceView> {
        caller.may(Action::ChangeStanding, Some(fleet))?;
        let NewAllowance { operator, devices, lifetime } = new;
        let holder = self.find(&Who { kind: Kind::Operator, fleet: None, name: operator }).await?;
        if holder.id == caller.subject.id {
            return Err(Error::with_detail(Refusal::NotPermitted, "Nobody allows more to themselves; ask another operator."));
        }
        let expires_at = now + lifetime;
        let allowance = Allowance {
            id: u64::from_be_bytes(self.random()?) >> 1,
            fleet: fleet.clone(),
            operator: holder.id,
            devices,
            allowed_by: caller.subject.id,
            allowed_at: now,
            expires_at,
        };
        let note = format!("may change {devices} more devices an hour of fleet {fleet} until {expires_at}");
        let whom = identity_of(&holder)?.uri(&self.trust_domain);
        let details = self.details(caller.actor(self), Some(whom), None, Some(note))?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, allowance.id.to_string(), now));
        let allowance = commit(&*self.store, Allow { allowance, repeatable, details }).await?;
        let allowed_by = caller.subject.name.clone();
        Ok(AllowanceView { allowance, operator: holder.name, allowed_by })
    }

    /// The fleet's allowances that hold now, the first to expire first.
    pub async fn allowances(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<AllowanceView>> {
        caller.may(Action::Read, Some(fleet))?;
        let (after, limit) = (page.after()?, page.limit);
        let fleet = fleet.clone();
        let views = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let mut names = BTreeMap::new();
            let mut views = Vec::new();
            // They are few: each was given by a person, and holds a day at most.
            let all = rows.allowances(&fleet, now)?.into_iter().filter(|allowance| allowance.id > after);
            for allowance in all.take(usize::try_from(limit).unwrap_or(0)) {
                let operator = name(rows, &mut names, allowance.operator)?;
                let allowed_by = name(rows, &mut names, allowance.allowed_by)?;
                views.push(AllowanceView { allowance, operator, allowed_by });
            }
            Ok(views)
        });
        Ok(Page::of(views.await?, limit, |view| view.allowance.id.to_string()))
    }

    /// What the store said; where it was the limit, with what the caller used of it and can do. Such a refusal is an alarm.
    pub(super) async fn told(&self, error: StoreError, caller: &Caller, fleet: Option<&FleetName>, now: Timestamp) -> Error {
        let error = Error::from(error);
        let (Refusal::BlastRadiusExceeded, Some(fleet)) = (error.refusal, fleet) else { return error };
        let what = format!("{} reached the limit", caller.actor(self));
        self.raise("blast_radius", LedgerName::Fleet(fleet.clone()), 0, &what, now);
        let (operator, name) = (caller.subject.id, fleet.clone());
        match read(&*self.store, move |rows| usage(rows, operator, &name, now)).await {
            Ok(usage) => {
                let left = usage.limit.saturating_sub(usage.used);
                let detail = format!(
                    "You changed {} devices of fleet {fleet} in the last hour, of {} that you may; {left} are left. Wait, or ask \
                     another security officer or owner to allow you more (POST /v1/fleets/{fleet}/allowances).",
                    usage.used, usage.limit
                );
                Error::with_detail(Refusal::BlastRadiusExceeded, detail)
            }
            Err(_) => error,
        }
    }
}

fn name(rows: &mut dyn Rows, names: &mut BTreeMap<SubjectId, Name>, id: SubjectId) -> std::result::Result<Name, StoreError> {
    if let Some(name) = names.get(&id) {
        return Ok(name.clone());
    }
    let subject = rows.subject(id)?.ok_or(StoreError::Unreadable { what: "allowance" })?;
    names.insert(id, subject.name.clone());
    Ok(subject.name)
}
