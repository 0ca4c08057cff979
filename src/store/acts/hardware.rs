//! Hardware is registered with a device, or taken from it.

use fleetmark_domain::{Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::limits::spend;
use super::subjects::{ledger_of, with_attributes};
use crate::store::model::{Hardware, HardwareId, Subject, SubjectId, SubjectState};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// The most pieces of hardware of one device.
pub const MOST_HARDWARE: usize = 16;

/// Changes a device's hardware, with a `changed` entry.
#[derive(Debug)]
pub struct ChangeHardware {
    /// The device, as it was read.
    pub subject: Subject,
    /// What to do.
    pub change: HardwareChange,
    /// The operator against whose limit it counts, where the device was enrolled before.
    pub by: SubjectId,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

/// What to change.
#[derive(Debug, Clone, Copy)]
pub enum HardwareChange {
    /// From now on it is this device; where it was before, nothing changes.
    Add(Hardware),
    /// It is this device no more.
    Remove(HardwareId),
}

impl Act for ChangeHardware {
    type Outcome = Hardware;

    fn ledgers(&self) -> Vec<fleetmark_domain::LedgerName> {
        vec![ledger_of(&self.subject)]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Hardware, StoreError> {
        let subject = transaction.rows.subject(self.subject.id)?.ok_or(Refusal::DeviceUnknown)?;
        let own = |known: Hardware| (known.subject == subject.id).then_some(known);
        let changed = match self.change {
            HardwareChange::Add(new) => match transaction.rows.hardware(&new.id)? {
                Some(known) if known.subject == subject.id => return Ok(known),
                Some(known)
                    if transaction.rows.subject(known.subject)?.is_some_and(|owner| owner.state != SubjectState::Out) =>
                {
                    return Err(Refusal::HardwareOfAnother.into());
                }
                _ if subject.state == SubjectState::Out => return Err(Refusal::IdentityOut.into()),
                _ if transaction.rows.hardware_of(subject.id)?.len() >= MOST_HARDWARE => return Err(Refusal::QuotaUsed.into()),
                _ => Hardware { subject: subject.id, ..new },
            },
            HardwareChange::Remove(id) => transaction.rows.hardware(&id)?.and_then(own).ok_or(Refusal::NotFound)?,
        };
        // Who prepares devices for their first enrollment changes none that works.
        if subject.last_generation > 0 {
            spend(transaction.rows, Some(self.by), subject.fleet.as_ref(), subject.id, self.at)?;
        }
        match self.change {
            HardwareChange::Add(_) => transaction.rows.put_hardware(&changed)?,
            HardwareChange::Remove(id) => {
                transaction.rows.delete_hardware(&id)?;
            }
        }
        let details = with_attributes(&self.details, &subject);
        transaction.append(&ledger_of(&subject), self.at, Event::Changed { subject: subject.id }, Some(&details))?;
        Ok(changed)
    }
}
