//! Certificates of external authorities are adopted: their devices are registered, and the ledger numbers them.

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{DeviceEvent, Epoch, FleetName, Index, KeyHash, Kind, LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_external::{Foreign, serial_key, sha256};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Adopted, Event};

use crate::store::acts::external::as_we_say;
use crate::store::acts::lease::epoch_floor;
use crate::store::acts::subjects::with_attributes;
use crate::store::model::{
    AdoptWhen, AuthorityId, Certificate, CertificateFilter, External, ExternalCertificate, ExternalSwitch, Sighted, Subject,
    SubjectId, SubjectState,
};
use crate::store::rows::{Rows, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// So many earlier certificates of a device are looked at.
const EARLIER: u32 = 500;

/// By what right a certificate is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// An operator has it.
    Import,
    /// It was seen, and an operator gave its fingerprint.
    Listed,
    /// It was seen.
    Sight,
}

/// A certificate to adopt; the caller verified its chain, and named its device.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// What it says.
    pub foreign: Foreign,
    /// The certificate.
    pub der: Vec<u8>,
    /// The device as it is registered where it is not there yet.
    pub device: Subject,
    /// By what right.
    pub permit: Permit,
    /// Until when what the authority said of it alone holds.
    pub next_update: Option<Timestamp>,
    /// Who did it.
    pub details: Details,
}

/// What became of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It counts from now on.
    Adopted,
    /// It was adopted before.
    Known,
}

/// Adopts certificates of one external authority. Each is judged by itself: a refusal of one keeps no other out.
#[derive(Debug)]
pub struct Adopt {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which external authority.
    pub authority: AuthorityId,
    /// The certificates.
    pub arrivals: Vec<Arrival>,
    /// Now.
    pub at: Timestamp,
}

impl Act for Adopt {
    type Outcome = Vec<Result<Fate, Refusal>>;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let mut external = transaction.rows.external(self.authority)?.ok_or(Refusal::NotFound)?;
        if external.switch == ExternalSwitch::Ended {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        if !transaction.rows.fleet(&self.fleet)?.ok_or(Refusal::FleetUnknown)?.open {
            return Err(Refusal::FleetClosed.into());
        }
        let before = external.clone();
        let mut outcomes = Vec::with_capacity(self.arrivals.len());
        for arrival in &self.arrivals {
            outcomes.push(match self.judge(transaction.rows, &external, arrival) {
                Ok(None) => Ok(Fate::Known),
                Ok(Some(plan)) => {
                    self.adopt(transaction, &mut external, arrival, plan)?;
                    transaction.rows.delete_expected(&arrival.foreign.fingerprint)?;
                    Ok(Fate::Adopted)
                }
                Err(StoreError::Refused(refusal)) => Err(refusal),
                Err(error) => return Err(error),
            });
        }
        if external != before {
            transaction.rows.update_external(&external)?;
        }
        Ok(outcomes)
    }
}

/// Under what a certificate is adopted.
struct Plan {
    device: Subject,
    key_hash: KeyHash,
    sighted: Sighted,
}

impl Adopt {
    /// None for one that was adopted before.
    fn judge(&self, rows: &mut dyn Rows, external: &External, arrival: &Arrival) -> Result<Option<Plan>, StoreError> {
        let Foreign { fingerprint, issuer, serial, key_hash, .. } = &arrival.foreign;
        match rows.external_certificate(fingerprint)? {
            Some(known) if known.authority == self.authority => return Ok(None),
            Some(_) => return Err(Refusal::ExternalAuthorityTaken.into()),
            None => {}
        }
        let sighted = self.check_permit(rows, external, arrival)?;
        if rows.external_by_serial(self.authority, issuer, serial)?.is_some() {
            return Err(Refusal::ExternalSerial.into());
        }
        if rows.blocked_key(key_hash)?.is_some() {
            return Err(Refusal::KeyBlocked.into());
        }
        let asked = &arrival.device;
        let device = match rows.subject_by_name(Kind::Device, Some(&self.fleet), &asked.name.folded())? {
            None => asked.clone(),
            Some(known) => self.check_known(rows, known, asked)?,
        };
        device.state.next(DeviceEvent::Confirmed)?;
        let earlier = rows.certificate_by_key(key_hash)?;
        // Who has the other authority's key writes what name he likes: by sight he gets no device that is here already.
        if arrival.permit == Permit::Sight && device.id != 0 {
            match &earlier {
                None => return Err(Refusal::ExternalNameTaken.into()),
                Some(earlier) if matches!(earlier.standing, Standing::Revoked(_)) => return Err(Refusal::KeyEnded.into()),
                Some(_) => {}
            }
        }
        let key_hash = match earlier {
            None => *key_hash,
            // The other authority renewed its certificate for the same key. A key stands in one record here.
            Some(earlier) if earlier.authority == self.authority && earlier.subject == Some(device.id) => {
                KeyHash(sha256(&[b"fleetmark adopted ", fingerprint.octets()]))
            }
            Some(_) => return Err(Refusal::KeyOfAnother.into()),
        };
        Ok(Some(Plan { device, key_hash, sighted }))
    }

    /// What the external authority has used of its limits with this one; asked where nobody can come between.
    fn check_permit(&self, rows: &mut dyn Rows, external: &External, arrival: &Arrival) -> Result<Sighted, StoreError> {
        let limits = &external.rules.adopt;
        if arrival.permit != Permit::Import && external.switch != ExternalSwitch::Enabled {
            return Err(Refusal::ExternalDisabled.into());
        }
        match (arrival.permit, limits.when) {
            (Permit::Import, _) => Ok(external.sighted),
            (Permit::Sight, AdoptWhen::OnSight) => {
                let next = external.sighted.one_more(limits, self.at);
                next.ok_or_else(|| Refusal::ExternalAdoptionLimit.into())
            }
            (Permit::Listed, AdoptWhen::Listed | AdoptWhen::OnSight) => {
                let expected = rows.expected(&arrival.foreign.fingerprint)?;
                let is_listed = expected.is_some_and(|expected| expected.authority == self.authority);
                if is_listed { Ok(external.sighted) } else { Err(Refusal::ExternalUnknown.into()) }
            }
            _ => Err(Refusal::ExternalUnknown.into()),
        }
    }

    /// A device that is here already: the other authority may not take over one that has certificates from elsewhere, or hardware of
    /// its own.
    fn check_known(&self, rows: &mut dyn Rows, known: Subject, asked: &Subject) -> Result<Subject, StoreError> {
        if known.name != asked.name {
            return Err(Refusal::NameTaken.into());
        }
        if known.state == SubjectState::Out {
            return Err(Refusal::IdentityOut.into());
        }
        let filter = CertificateFilter { subject: Some(known.id), ..CertificateFilter::default() };
        let earlier = if known.last_generation == 0 { Vec::new() } else { rows.certificates(&filter, 0, EARLIER)? };
        let is_elsewhere = earlier.iter().any(|certificate| certificate.authority != self.authority);
        if is_elsewhere || !rows.hardware_of(known.id)?.is_empty() {
            return Err(Refusal::ExternalNameTaken.into());
        }
        self.check_suspended(rows, known.id)?;
        Ok(known)
    }

    /// A suspended device is let in by no other certificate. A hold by its authority alone counts until that certificate ends: nobody
    /// asks about it from then on.
    fn check_suspended(&self, rows: &mut dyn Rows, device: SubjectId) -> Result<(), StoreError> {
        for certificate in rows.live_certificates_of(device)? {
            let certificate = if certificate.not_after < self.at { as_we_say(rows, certificate)? } else { certificate };
            match certificate.standing {
                Standing::Held => return Err(Refusal::Held.into()),
                Standing::Quarantined => return Err(Refusal::Quarantined.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn adopt(
        &self,
        transaction: &mut Transaction<'_>,
        external: &mut External,
        arrival: &Arrival,
        Plan { device, key_hash, sighted }: Plan,
    ) -> Result<(), StoreError> {
        let ledger = LedgerName::Fleet(self.fleet.clone());
        external.sighted = sighted;
        let (epoch, index) = self.place(transaction, external)?;
        let mut device = if device.id == 0 { self.register(transaction, arrival, device)? } else { device };
        device.last_generation = device.last_generation.saturating_add(1);
        device.confirmed_generation = device.last_generation;
        device.state = device.state.next(DeviceEvent::Confirmed)?;
        transaction.rows.advance_subject(&device)?;
        let Foreign { fingerprint, issuer, serial, not_before, not_after, .. } = &arrival.foreign;
        let adopted = Adopted {
            authority: external.id,
            epoch,
            index,
            fingerprint: *fingerprint,
            subject: device.id,
            generation: device.last_generation,
            not_after: *not_after,
            key: serial_key(external.id, issuer, serial),
        };
        let position = transaction.append(&ledger, self.at, Event::ExternalAdopted(adopted), Some(&arrival.details))?;
        let own = fingerprint.octets().first_chunk().copied().unwrap_or_default();
        let certificate = Certificate {
            serial: Serial::new(epoch, index, own),
            authority: external.id,
            subject: Some(device.id),
            generation: device.last_generation,
            key_hash,
            fingerprint: *fingerprint,
            standing: Standing::Good,
            not_before: *not_before,
            not_after: *not_after,
            renew_after: *not_before + not_after.since(*not_before).mul_f64(2.0 / 3.0),
            confirm_before: None,
            issued_at: self.at,
            changed_at: self.at,
            ledger,
            position,
            token: None,
            der: arrival.der.clone(),
        };
        transaction.rows.insert_certificate(&certificate)?;
        transaction.rows.insert_external_certificate(&ExternalCertificate {
            fingerprint: *fingerprint,
            place: certificate_id(epoch, index),
            authority: external.id,
            issuer: *issuer,
            serial: serial.clone(),
            key_hash: arrival.foreign.key_hash,
            own: Standing::Good,
            foreign: Standing::Good,
            not_after: *not_after,
            next_update: arrival.next_update,
        })
    }

    fn register(&self, transaction: &mut Transaction<'_>, arrival: &Arrival, new: Subject) -> Result<Subject, StoreError> {
        let id = transaction.rows.insert_subject(&new)?;
        let details = with_attributes(&arrival.details, &new);
        let registered = Event::Registered { subject: id, kind: Kind::Device };
        transaction.append(&LedgerName::Fleet(self.fleet.clone()), self.at, registered, Some(&details))?;
        Ok(Subject { id, ..new })
    }

    /// The next place; opens an epoch where there is none, or none with room.
    fn place(&self, transaction: &mut Transaction<'_>, external: &mut External) -> Result<(Epoch, Index), StoreError> {
        let open = external.epoch.filter(|_| external.next_index < EPOCH_CAPACITY);
        let epoch = if let Some(epoch) = open {
            epoch
        } else {
            let highest = transaction.rows.highest_epoch()?.0.max(epoch_floor(transaction)?);
            let number = Epoch(highest.checked_add(1).ok_or(StoreError::Unreadable { what: "epoch number" })?);
            (external.epoch, external.next_index) = (Some(number), 0);
            // Who takes the highest number next must see this one.
            transaction.rows.update_external(external)?;
            let opened = Event::EpochOpened { authority: external.id, epoch: number };
            transaction.append(&LedgerName::Fleet(self.fleet.clone()), self.at, opened, None)?;
            number
        };
        let index = Index(external.next_index);
        external.next_index = external.next_index.saturating_add(1);
        Ok((epoch, index))
    }
}
