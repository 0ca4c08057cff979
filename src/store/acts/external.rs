//! Other authorities come to be and change; their certificates are adopted; what they say of them is merged with what we say.

use std::borrow::Cow;

use fleetmark_domain::serial::EPOCH_CAPACITY;
use fleetmark_domain::{
    DeviceEvent, Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, Refusal, Serial, Standing, Timestamp,
};
use fleetmark_external::{FIRST_ID, Foreign, is_external, issuer_hash, serial_key};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Adopted, Event, ExternalAuthority};
use ring::digest::{SHA256, digest};

use super::lease::epoch_floor;
use super::standing::write_standing;
use super::subjects::with_attributes;
use super::{Repeatable, made_before, remember};
use crate::store::model::{
    AuthorityId, Certificate, CertificateFilter, External, ExternalCertificate, ExternalRules, ExternalSwitch, ForeignList,
    Subject, SubjectState,
};
use crate::store::rows::{Rows, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// So many earlier certificates of a device are looked at.
const EARLIER: u32 = 500;

/// Makes an external authority.
#[derive(Debug)]
pub struct CreateExternal {
    /// As it is to be; its id is set here.
    pub external: External,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for CreateExternal {
    type Outcome = External;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.external.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<External, StoreError> {
        let External { fleet, name, .. } = &self.external;
        if let Some(id) = made_before(transaction.rows, self.repeatable.as_ref())? {
            let id = id.parse().map_err(|_| StoreError::Unreadable { what: "remembered external authority" })?;
            return transaction.rows.external(id)?.ok_or_else(|| Refusal::NotFound.into());
        }
        if transaction.rows.fleet(fleet)?.is_none() {
            return Err(Refusal::FleetUnknown.into());
        }
        if transaction.rows.external_by_name(fleet, &name.folded())?.is_some() {
            return Err(Refusal::NameTaken.into());
        }
        let all = transaction.rows.externals(None)?;
        check_material(&all, 0, &self.external.material)?;
        let id = all.last().map_or(FIRST_ID, |last| last.id.saturating_add(1));
        let external = External { id, ..self.external.clone() };
        transaction.rows.insert_external(&external)?;
        let repeatable = self.repeatable.clone().map(|mut repeatable| {
            repeatable.value.resource = id.to_string();
            repeatable
        });
        remember(transaction.rows, repeatable.as_ref())?;
        write_external(transaction, &external, self.at, &self.details)?;
        Ok(external)
    }
}

/// A CA certificate belongs to one external authority that has not ended: who holds its certificates must be clear.
fn check_material(all: &[External], own: AuthorityId, material: &[u8]) -> Result<(), StoreError> {
    let new = split(material)?;
    for other in all.iter().filter(|other| other.id != own && other.switch != ExternalSwitch::Ended) {
        if split(&other.material)?.iter().any(|der| new.contains(der)) {
            return Err(Refusal::ExternalAuthorityTaken.into());
        }
    }
    Ok(())
}

fn split(material: &[u8]) -> Result<Vec<&[u8]>, StoreError> {
    fleetmark_external::split(material).map_err(|_| StoreError::Unreadable { what: "external authority's certificates" })
}

/// What rules and CA certificates come to: what the ledger has of them, and docs/external.md says.
pub fn rules_hash(external: &External) -> [u8; 32] {
    let rules = serde_json::to_vec(&external.rules).unwrap_or_default();
    let length = u64::try_from(rules.len()).unwrap_or(u64::MAX).to_be_bytes();
    sha256(&[&length[..], &rules, &external.material].concat())
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut().zip(digest(&SHA256, octets).as_ref()).for_each(|(to, from)| *to = *from);
    out
}

fn write_external(
    transaction: &mut Transaction<'_>,
    external: &External,
    at: Timestamp,
    details: &Details,
) -> Result<(), StoreError> {
    let hashes: Result<_, _> = split(&external.material)?.iter().map(|der| issuer_hash(der)).collect();
    let mut issuers: Vec<_> = hashes.map_err(|_| StoreError::Unreadable { what: "external authority's certificate" })?;
    issuers.sort_unstable();
    issuers.dedup();
    let event = Event::ExternalAuthorityChanged(ExternalAuthority {
        authority: external.id,
        state: external.state(),
        rules: rules_hash(external),
        issuers,
        naming: external.rules.naming.clone(),
    });
    transaction.append(&LedgerName::Fleet(external.fleet.clone()), at, event, Some(details)).map(drop)
}

/// Changes an external authority; what is None stays. One that has ended does not change any more.
#[derive(Debug)]
pub struct ChangeExternal {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which.
    pub id: AuthorityId,
    /// What was read, where the caller said so.
    pub version: Option<u64>,
    /// Its rules anew; the naming rule must be the same.
    pub rules: Option<ExternalRules>,
    /// Its CA certificates anew.
    pub material: Option<Vec<u8>>,
    /// What operators say.
    pub switch: Option<ExternalSwitch>,
    /// Whether what it says is past its end.
    pub stale: Option<bool>,
    /// Who did it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for ChangeExternal {
    type Outcome = External;

    fn lane(&self) -> Lane {
        let is_bad_news = self.stale == Some(true) || self.switch.is_some_and(|switch| switch != ExternalSwitch::Enabled);
        if is_bad_news { Lane::Urgent } else { Lane::Ordinary }
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<External, StoreError> {
        let current = transaction.rows.external(self.id)?.ok_or(Refusal::NotFound)?;
        if self.version.is_some_and(|version| version != current.version) {
            return Err(Refusal::EtagMismatch.into());
        }
        let mut next = current.clone();
        next.rules = self.rules.clone().unwrap_or(next.rules);
        next.material = self.material.clone().unwrap_or(next.material);
        next.switch = self.switch.unwrap_or(next.switch);
        next.stale = self.stale.unwrap_or(next.stale);
        if next == current {
            return Ok(current);
        }
        if current.switch == ExternalSwitch::Ended || next.rules.naming != current.rules.naming {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        if next.material != current.material {
            check_material(&transaction.rows.externals(None)?, next.id, &next.material)?;
        }
        // The server's own news about the status is no change that an operator could have missed.
        if self.stale.is_none() {
            next.version = current.version.saturating_add(1);
        }
        transaction.rows.update_external(&next)?;
        write_external(transaction, &next, self.at, &self.details)?;
        Ok(next)
    }
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
            outcomes.push(match self.judge(transaction.rows, arrival) {
                Ok(None) => Ok(Fate::Known),
                Ok(Some(plan)) => self.adopt(transaction, &mut external, arrival, plan).map(|()| Ok(Fate::Adopted))?,
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
}

impl Adopt {
    /// None for one that was adopted before.
    fn judge(&self, rows: &mut dyn Rows, arrival: &Arrival) -> Result<Option<Plan>, StoreError> {
        let Foreign { fingerprint, issuer, serial, key_hash, .. } = &arrival.foreign;
        match rows.external_certificate(fingerprint)? {
            Some(known) if known.authority == self.authority => return Ok(None),
            Some(_) => return Err(Refusal::ExternalAuthorityTaken.into()),
            None => {}
        }
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
        let key_hash = match rows.certificate_by_key(key_hash)? {
            None => *key_hash,
            // The other authority renewed its certificate for the same key. A key stands in one record here.
            Some(earlier) if earlier.authority == self.authority && earlier.subject == Some(device.id) => {
                KeyHash(sha256(&[b"fleetmark adopted ", fingerprint.octets().as_slice()].concat()))
            }
            Some(_) => return Err(Refusal::KeyOfAnother.into()),
        };
        Ok(Some(Plan { device, key_hash }))
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
        Ok(known)
    }

    fn adopt(
        &self,
        transaction: &mut Transaction<'_>,
        external: &mut External,
        arrival: &Arrival,
        Plan { device, key_hash }: Plan,
    ) -> Result<(), StoreError> {
        let ledger = LedgerName::Fleet(self.fleet.clone());
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

/// What an external authority says of certificates that were adopted: merged with what we say; the worse counts.
#[derive(Debug)]
pub struct MergeForeign {
    /// Its fleet.
    pub fleet: FleetName,
    /// Which external authority.
    pub authority: AuthorityId,
    /// The certificates, each with what is said of it (good, held or revoked), and until when that holds, where it is said of it alone.
    pub said: Vec<(Fingerprint, Standing, Option<Timestamp>)>,
    /// The server itself.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for MergeForeign {
    /// How many certificates are worth something else by it.
    type Outcome = usize;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
        let mut changed: Vec<(Standing, Vec<Certificate>)> = Vec::new();
        for (fingerprint, said, next_update) in &self.said {
            let known = transaction.rows.external_certificate(fingerprint)?;
            let Some(known) = known.filter(|known| known.authority == self.authority) else { continue };
            // RFC 5280 3.3: only a hold is lifted.
            let foreign = if matches!(known.foreign, Standing::Revoked(_)) { known.foreign } else { *said };
            if foreign == known.foreign && *next_update == known.next_update {
                continue;
            }
            let next = merged(known.own, foreign);
            let place = known.place;
            let known = ExternalCertificate { foreign, next_update: *next_update, ..known };
            transaction.rows.update_external_certificate(&known)?;
            let Some(current) = transaction.rows.certificate(place)? else { continue };
            if current.standing == next || !current.standing.may_become(next) {
                continue;
            }
            match changed.iter_mut().find(|(standing, _)| *standing == next) {
                Some((_, certificates)) => certificates.push(current),
                None => changed.push((next, vec![current])),
            }
        }
        let mut count = 0;
        for (standing, certificates) in changed {
            count += certificates.len();
            write_standing(transaction, &certificates, standing, self.at, Some(&self.details))?;
        }
        Ok(count)
    }
}

/// Keeps the newest list at a URL.
#[derive(Debug)]
pub struct PutForeignList {
    /// The fleet of its authority.
    pub fleet: FleetName,
    /// The list.
    pub list: ForeignList,
}

impl Act for PutForeignList {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.put_foreign_list(&self.list)
    }
}

/// The worse of what we say and what the other authority says; of two revocations ours.
pub const fn merged(own: Standing, foreign: Standing) -> Standing {
    if rank(foreign) > rank(own) { foreign } else { own }
}

const fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::Unconfirmed | Standing::Good => 0,
        Standing::Quarantined => 1,
        Standing::Held => 2,
        Standing::Superseded => 3,
        Standing::Revoked(_) => 4,
    }
}

/// We say that these certificates are worth this. Of adopted ones that is noted; gives those whose standing changes by it, which is
/// not so where the other authority says worse.
pub(super) fn by_us<'a>(
    transaction: &mut Transaction<'_>,
    certificates: &'a [Certificate],
    standing: Standing,
) -> Result<Cow<'a, [Certificate]>, StoreError> {
    if !certificates.iter().any(|certificate| is_external(certificate.authority)) {
        return Ok(Cow::Borrowed(certificates));
    }
    let mut changed = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        if !is_external(certificate.authority) {
            changed.push(certificate.clone());
            continue;
        }
        let place = certificate_id(certificate.serial.epoch(), certificate.serial.index());
        let known = transaction.rows.external_at(place)?.ok_or(StoreError::Unreadable { what: "external certificate" })?;
        let current = transaction.rows.certificate(place)?.ok_or(StoreError::Unreadable { what: "certificate" })?;
        let next = merged(standing, known.foreign);
        transaction.rows.update_external_certificate(&ExternalCertificate { own: standing, ..known })?;
        if next == standing && current.standing != next {
            changed.push(current);
        }
    }
    Ok(Cow::Owned(changed))
}

/// A certificate with the standing that we gave it, whatever its own authority says.
pub(super) fn as_we_say(rows: &mut dyn Rows, certificate: Certificate) -> Result<Certificate, StoreError> {
    if !is_external(certificate.authority) {
        return Ok(certificate);
    }
    let known = rows.external_at(certificate_id(certificate.serial.epoch(), certificate.serial.index()))?;
    let known = known.ok_or(StoreError::Unreadable { what: "external certificate" })?;
    // A revocation by the other authority is as final as one by us.
    let standing = if matches!(certificate.standing, Standing::Revoked(_)) { certificate.standing } else { known.own };
    Ok(Certificate { standing, ..certificate })
}

/// Certificates as the store has them now, where they are adopted ones.
pub(super) fn as_they_are(rows: &mut dyn Rows, certificates: Vec<Certificate>) -> Result<Vec<Certificate>, StoreError> {
    let mut now = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        let place = certificate_id(certificate.serial.epoch(), certificate.serial.index());
        let current = if is_external(certificate.authority) { rows.certificate(place)? } else { None };
        now.push(current.unwrap_or(certificate));
    }
    Ok(now)
}
