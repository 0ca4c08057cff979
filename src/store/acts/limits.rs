//! The blast radius: how many devices of a fleet one operator may change in an hour, and what another one allows it beyond.
//!
//! It is asked in the same transaction that changes a device, under the fleet's ledger's lock, so that two requests at once
//! cannot both be the last one that fits.

use std::time::Duration;

use fleetmark_domain::{FleetName, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::{Repeatable, made_before, remember};
use crate::store::model::{Allowance, Subject, SubjectId, SubjectState};
use crate::store::rows::Rows;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// How far back a changed device counts. As far ahead too: servers' clocks differ. What is further ahead is of a clock that was put back.
const WINDOW: Duration = Duration::from_secs(3_600);
/// What an operator may always change where the fleet sets nothing.
const LEAST: u64 = 10;
/// One device in a hundred, where that is more.
const SHARE: u64 = 100;
/// One device in a thousand, for what the server does by itself.
const OWN_SHARE: u64 = 1_000;
/// How long the number of a fleet's devices is taken to be right: it costs a count over the fleet.
const COUNTED_FOR: Duration = Duration::from_secs(600);

/// What an operator did in the last hour, and may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Devices changed.
    pub used: u64,
    /// Devices that may be changed.
    pub limit: u64,
}

/// Counts a change of `subject` against `operator`'s limit. None, the server itself, has no limit; nor has what is no device.
///
/// # Errors
/// [`Refusal::BlastRadiusExceeded`]; nothing was written then but, at most, the number of the fleet's devices.
pub(super) fn spend(
    rows: &mut dyn Rows,
    operator: Option<SubjectId>,
    fleet: Option<&FleetName>,
    subject: SubjectId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (Some(operator), Some(fleet)) = (operator, fleet) else { return Ok(()) };
    if !has_touched(rows, operator, fleet, subject, now)? {
        let used = touched(rows, operator, fleet, now)?;
        if used >= limit(rows, operator, fleet, used, now)? {
            return Err(Refusal::BlastRadiusExceeded.into());
        }
    }
    rows.touch(operator, fleet, subject, now)
}

/// Whether `operator` may change so many devices more at once. Nothing is counted.
pub(super) fn fits(
    rows: &mut dyn Rows,
    operator: SubjectId,
    fleet: &FleetName,
    devices: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(others) = devices.checked_sub(1) else { return Ok(true) };
    let used = touched(rows, operator, fleet, now)?.saturating_add(others);
    Ok(used < limit(rows, operator, fleet, used, now)?)
}

/// Whether the server itself, as `operator`, may act on one more device of `fleet`: beyond the larger of 10 and 0.1 % in an hour it
/// may not, since so many at once are no attack but a mistake of the fleet's own. Nothing is counted.
pub(super) fn has_room(
    rows: &mut dyn Rows,
    operator: SubjectId,
    fleet: &FleetName,
    subject: SubjectId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if has_touched(rows, operator, fleet, subject, now)? {
        return Ok(true);
    }
    let used = touched(rows, operator, fleet, now)?;
    Ok(used < LEAST || used < counted(rows, fleet, now)? / OWN_SHARE)
}

/// What `operator` changed in `fleet` in the last hour, and may.
pub fn usage(rows: &mut dyn Rows, operator: SubjectId, fleet: &FleetName, now: Timestamp) -> Result<Usage, StoreError> {
    let used = touched(rows, operator, fleet, now)?;
    let rules = rows.fleet(fleet)?.ok_or(Refusal::FleetUnknown)?;
    let own = match rules.blast_radius {
        Some(own) => own,
        None => LEAST.max(rows.devices(fleet)? / SHARE),
    };
    Ok(Usage { used, limit: own.saturating_add(allowed(rows, operator, fleet, now)?) })
}

/// Whether `operator` changed this device in the last hour.
pub(super) fn has_touched(
    rows: &mut dyn Rows,
    operator: SubjectId,
    fleet: &FleetName,
    subject: SubjectId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let at = rows.touched_at(operator, fleet, subject)?;
    Ok(at.is_some_and(|at| now.0.abs_diff(at.0) < WINDOW.as_secs()))
}

fn touched(rows: &mut dyn Rows, operator: SubjectId, fleet: &FleetName, now: Timestamp) -> Result<u64, StoreError> {
    rows.touched(operator, fleet, now - WINDOW, now + WINDOW)
}

/// The limit, as far as it is needed to know whether it is above `used`.
fn limit(rows: &mut dyn Rows, operator: SubjectId, fleet: &FleetName, used: u64, now: Timestamp) -> Result<u64, StoreError> {
    let rules = rows.fleet(fleet)?.ok_or(Refusal::FleetUnknown)?;
    let own = rules.blast_radius.unwrap_or(LEAST);
    if used < own {
        return Ok(own);
    }
    let allowed = allowed(rows, operator, fleet, now)?;
    if rules.blast_radius.is_some() || used < own.saturating_add(allowed) {
        return Ok(own.saturating_add(allowed));
    }
    Ok(LEAST.max(counted(rows, fleet, now)? / SHARE).saturating_add(allowed))
}

fn allowed(rows: &mut dyn Rows, operator: SubjectId, fleet: &FleetName, now: Timestamp) -> Result<u64, StoreError> {
    let allowances = rows.allowances(fleet, now)?;
    let own = allowances.iter().filter(|allowance| allowance.operator == operator);
    Ok(own.fold(0, |sum, allowance| sum.saturating_add(allowance.devices)))
}

/// The number of the fleet's devices, counted at most every ten minutes.
fn counted(rows: &mut dyn Rows, fleet: &FleetName, now: Timestamp) -> Result<u64, StoreError> {
    let key = format!("devices/{fleet}");
    let number = |octets: &[u8]| octets.try_into().map(u64::from_be_bytes).ok();
    let kept = rows.value(&key)?;
    let kept = kept.as_deref().and_then(|value| value.split_at_checked(8));
    if let Some((Some(devices), Some(at))) = kept.map(|(devices, at)| (number(devices), number(at)))
        && let Ok(at) = i64::try_from(at)
        && Timestamp(at) <= now
        && now.since(Timestamp(at)) < COUNTED_FOR
    {
        return Ok(devices);
    }
    let devices = rows.devices(fleet)?;
    let at = u64::try_from(now.0).unwrap_or(0);
    rows.set_value(&key, &[devices.to_be_bytes(), at.to_be_bytes()].concat())?;
    Ok(devices)
}

/// Lets an operator change more devices of a fleet for a while.
#[derive(Debug)]
pub struct Allow {
    /// The allowance.
    pub allowance: Allowance,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Who did it, and what it allows.
    pub details: Details,
}

impl Act for Allow {
    type Outcome = Allowance;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    /// The entry is a change of the operator's record, in the installation's ledger: that is where its rights stand.
    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Allowance, StoreError> {
        let Allowance { fleet, operator, allowed_by, allowed_at, .. } = &self.allowance;
        if let Some(id) = made_before(transaction.rows, self.repeatable.as_ref())? {
            let current = transaction.rows.allowances(fleet, *allowed_at)?;
            let earlier = current.into_iter().find(|allowance| allowance.id.to_string() == id);
            return earlier.ok_or_else(|| Refusal::NotFound.into());
        }
        if transaction.rows.fleet(fleet)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        let holder: Subject = transaction.rows.subject(*operator)?.ok_or(Refusal::NotFound)?;
        if holder.state == SubjectState::Out {
            return Err(Refusal::IdentityOut.into());
        }
        if operator == allowed_by {
            return Err(Refusal::NotPermitted.into());
        }
        transaction.rows.insert_allowance(&self.allowance)?;
        let changed = Event::Changed { subject: *operator };
        transaction.append(&LedgerName::System, *allowed_at, changed, Some(&self.details))?;
        remember(transaction.rows, self.repeatable.as_ref())?;
        Ok(self.allowance.clone())
    }
}
