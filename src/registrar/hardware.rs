//! Which hardware a device is: endorsement keys that operators register, and what devices proved themselves to be.

use fleetmark_domain::{Action, Refusal, Timestamp};

use super::caller::Caller;
use super::challenge::{hardware_id, told};
use super::subjects::Who;
use super::{Error, Registrar, Result};
use crate::pki::tpm::EndorsementKey;
use crate::store::acts::hardware::{ChangeHardware, HardwareChange};
use crate::store::model::{Hardware, HardwareId, HardwareSource, Subject};
use crate::store::{commit, read};

/// An endorsement key, as an operator has it.
#[derive(Debug, Clone)]
pub enum GivenKey {
    /// `SubjectPublicKeyInfo` in DER.
    Spki(Vec<u8>),
    /// `TPM2B_PUBLIC`.
    Tpm(Vec<u8>),
}

impl Registrar {
    /// Registers an endorsement key with a device; a repeat changes nothing.
    ///
    /// # Errors
    /// `MalformedRequest`, `InvalidValue`: no endorsement key; `HardwareOfAnother`, `IdentityOut`, `QuotaUsed`.
    pub async fn add_hardware(&self, caller: &Caller, who: &Who, key: &GivenKey, now: Timestamp) -> Result<Hardware> {
        caller.may(Action::RegisterDevice, who.fleet.as_ref())?;
        let key = match key {
            GivenKey::Spki(der) => EndorsementKey::from_spki(der),
            GivenKey::Tpm(octets) => EndorsementKey::from_tpm(octets),
        };
        let id = hardware_id(&key.map_err(told)?);
        let subject = self.find(who).await?;
        let new = Hardware { id, subject: subject.id, source: HardwareSource::EndorsementKey, since: now };
        self.change_hardware(caller, subject, HardwareChange::Add(new), now).await
    }

    /// Takes a piece of hardware from a device; its certificates stay.
    ///
    /// # Errors
    /// `NotFound` where it is none of the device's.
    pub async fn remove_hardware(&self, caller: &Caller, who: &Who, id: HardwareId, now: Timestamp) -> Result<Hardware> {
        caller.may(Action::RegisterDevice, who.fleet.as_ref())?;
        let subject = self.find(who).await?;
        self.change_hardware(caller, subject, HardwareChange::Remove(id), now).await
    }

    /// A device's hardware, at most 16 pieces.
    pub async fn hardware(&self, caller: &Caller, who: &Who) -> Result<Vec<Hardware>> {
        caller.may(Action::Read, who.fleet.as_ref())?;
        let id = self.find(who).await?.id;
        Ok(read(&*self.store, move |rows| rows.hardware_of(id)).await?)
    }

    async fn change_hardware(
        &self,
        caller: &Caller,
        subject: Subject,
        change: HardwareChange,
        now: Timestamp,
    ) -> Result<Hardware> {
        let (what, id) = match change {
            HardwareChange::Add(new) => ("added", new.id),
            HardwareChange::Remove(id) => ("removed", id),
        };
        let note = format!("hardware {} {what}", hex::encode(id));
        let details = self.details(caller.actor(self), Some(subject.name.to_string()), None, Some(note))?;
        let fleet = subject.fleet.clone();
        let act = ChangeHardware { subject, change, by: caller.subject.id, details, at: now };
        match commit(&*self.store, act).await {
            Ok(hardware) => Ok(hardware),
            Err(error) if error.refusal() == Refusal::QuotaUsed => {
                Err(Error::with_detail(Refusal::QuotaUsed, "A device has at most 16 pieces of hardware."))
            }
            Err(error) => Err(self.told(error, caller, fleet.as_ref(), now).await),
        }
    }
}
