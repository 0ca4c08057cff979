//! What gateways and services learn of the ledgers that they may follow: `system`, and the fleets that they were granted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Fingerprint, Kind, LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::Entry;
use fleetmark_ledger::merkle::{Hash, Node};
use fleetmark_ledger::note::VerifierKey;
use futures_util::future::join_all;

use super::audit::StoredNodes;
use super::authorities::Authority;
use super::caller::{Caller, alarm};
use super::fleets::DEFAULT_MAX_AGE;
use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::store::acts::confirm::Confirm;
use crate::store::model::{Certificate, Fleet, StoredEntry, Subject, SubjectFilter, SubjectId};
use crate::store::rows::certificate_id;
use crate::store::{StoreError, read};

pub use crate::ledger::News;

/// A whole tile's hashes, a whole bundle's entries (C2SP tlog-tiles).
pub const TILE_WIDTH: u16 = 256;
/// So many entries are looked through for a follower that resumes; one that is further behind fetches bundles.
pub const RESUME_MOST: u64 = 4_096;
/// The most sightings in one report.
pub const MAX_SIGHTINGS: usize = 1_000;
/// Rows read at once.
const PAGE: u32 = 1_000;

/// A ledger that the caller may follow.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its name.
    pub ledger: LedgerName,
    /// Verifies its checkpoints.
    pub key: VerifierKey,
    /// After how long without a verified signature a gateway refuses; of `system`: the smallest of the fleets'.
    pub max_age: Duration,
}

/// Part of a level of the tree, or of the entries: `width` of them from `index * 256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which tile, from 0.
    pub index: u64,
    /// How many of it from its left edge, 1 to 256.
    pub width: u16,
}

/// What a follower that was away has missed.
#[derive(Debug)]
pub enum Missed {
    /// The urgent entries since then.
    Entries(Vec<StoredEntry>),
    /// More than are looked through for it, or it knows what is not here: it must fetch bundles.
    TooMuch,
}

/// A certificate that a gateway saw in use.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// Which.
    pub serial: Serial,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
}

/// What became of a report of sightings.
#[derive(Debug, Default)]
pub struct Sighted {
    /// So many were confirmed by it.
    pub confirmed: usize,
    /// So many were confirmed before.
    pub known: usize,
    /// The others, with why.
    pub refused: Vec<(Serial, Refusal)>,
}

impl Registrar {
    /// The ledgers that the caller may follow, `system` first.
    ///
    /// # Errors
    /// `WrongKind` for who is neither gateway nor service.
    pub async fn followed(&self, caller: &Caller) -> Result<Vec<Followed>> {
        is_follower(caller)?;
        let mut fleets = read(&*self.store, |rows| {
            let mut fleets: Vec<Fleet> = Vec::new();
            loop {
                let after = fleets.last().map(|fleet| fleet.name.as_str().to_owned());
                let page = rows.fleets(after.as_deref(), PAGE)?;
                if page.is_empty() {
                    return Ok(fleets);
                }
                fleets.extend(page);
            }
        })
        .await?;
        fleets.retain(|fleet| caller.reaches(&fleet.name));
        let smallest = fleets.iter().map(|fleet| fleet.max_age).min().unwrap_or(DEFAULT_MAX_AGE);
        let fleets = fleets.into_iter().map(|fleet| (LedgerName::Fleet(fleet.name), fleet.max_age));
        let all = std::iter::once((LedgerName::System, smallest)).chain(fleets);
        let followed = all.filter_map(|(ledger, max_age)| {
            let key = self.publisher.verifier(&ledger)?;
            Some(Followed { ledger, key, max_age })
        });
        Ok(followed.collect())
    }

    /// The newest signed checkpoint.
    ///
    /// # Errors
    /// As all that follow here: `WrongKind` for who is neither gateway nor service, `NotFound` for a ledger that the caller
    /// was not granted, or that is not here.
    pub fn followed_checkpoint(&self, caller: &Caller, ledger: &LedgerName) -> Result<Arc<str>> {
        may_follow(caller, ledger)?;
        self.publisher.checkpoint(ledger).ok_or_else(|| Refusal::NotFound.into())
    }

    /// Hashes of the tree's level `8 * level`.
    ///
    /// # Errors
    /// See [`Self::followed_checkpoint`]; `NotFound` beyond the newest signed checkpoint.
    pub async fn tile(&self, caller: &Caller, ledger: &LedgerName, level: u8, place: Place) -> Result<Vec<Hash>> {
        let height = level.checked_mul(8).filter(|height| *height < 64).ok_or(Refusal::NotFound)?;
        let first = self.within(caller, ledger, height, place)?;
        let name = ledger.clone();
        let hashes = read(&*self.store, move |rows| {
            use fleetmark_ledger::proof::NodeSource as _;
            StoredNodes { rows, ledger: &name }.hashes(Node { level: height, index: first }, place.width)
        })
        .await?;
        whole(hashes, place, "ledger node")
    }

    /// Entries with their details, as they are kept; the details of `system` are withheld.
    ///
    /// # Errors
    /// See [`Self::tile`].
    pub async fn bundle(&self, caller: &Caller, ledger: &LedgerName, place: Place) -> Result<Vec<StoredEntry>> {
        let first = self.within(caller, ledger, 0, place)?;
        let name = ledger.clone();
        let entries = read(&*self.store, move |rows| rows.entries(&name, first, place.width.into())).await?;
        let mut entries = whole(entries, place, "ledger entry")?;
        if *ledger == LedgerName::System {
            for entry in &mut entries {
                entry.details = None;
            }
        }
        Ok(entries)
    }

    /// The first node of a place that lies wholly below the newest signed checkpoint.
    fn within(&self, caller: &Caller, ledger: &LedgerName, height: u8, place: Place) -> Result<u64> {
        may_follow(caller, ledger)?;
        let size = self.publisher.size(ledger).ok_or(Refusal::NotFound)?;
        let first = place.index.checked_mul(TILE_WIDTH.into()).ok_or(Refusal::NotFound)?;
        let end = first.checked_add(place.width.into()).ok_or(Refusal::NotFound)?;
        if end <= size >> height { Ok(first) } else { Err(Refusal::NotFound.into()) }
    }

    /// The fleet's devices that have attributes, ascending by id, from among the next `limit` devices; with where the next
    /// page begins.
    ///
    /// # Errors
    /// See [`Self::followed_checkpoint`].
    pub async fn attributes(
        &self,
        caller: &Caller,
        ledger: &LedgerName,
        after: SubjectId,
        limit: u32,
    ) -> Result<(Vec<(SubjectId, BTreeMap<String, String>)>, Option<SubjectId>)> {
        may_follow(caller, ledger)?;
        let LedgerName::Fleet(fleet) = ledger else { return Ok((Vec::new(), None)) };
        let filter = SubjectFilter { kind: Kind::Device, fleet: Some(fleet.clone()), search: None, state: None, group: None };
        let subjects = read(&*self.store, move |rows| rows.subjects(&filter, after, limit)).await?;
        let is_full = u32::try_from(subjects.len()).is_ok_and(|count| count >= limit);
        let next = if is_full { subjects.last().map(|subject| subject.id) } else { None };
        let some = subjects.into_iter().filter(|subject| !subject.attributes.is_empty());
        Ok((some.map(|Subject { id, attributes, .. }| (id, attributes)).collect(), next))
    }

    /// The authority with this certificate: one of the installation, or of a fleet that the caller was granted.
    ///
    /// # Errors
    /// `WrongKind`; `NotFound`.
    pub async fn followed_authority(&self, caller: &Caller, fingerprint: Fingerprint) -> Result<Vec<u8>> {
        is_follower(caller)?;
        let all = self.authorities.all();
        let has_it = |authority: &&Arc<Authority>| {
            may_follow(caller, &authority.ledger()).is_ok() && authority.fingerprint == fingerprint
        };
        if let Some(authority) = all.iter().find(has_it) {
            return Ok(authority.record.certificate.clone());
        }
        // One whose entry is in the ledger already and that is not in memory yet; or a root's key under another root.
        let records = read(&*self.store, |rows| rows.authorities()).await?;
        let mut permitted =
            records.into_iter().filter(|record| may_follow(caller, &LedgerName::from(record.fleet.as_ref())).is_ok());
        let found = permitted.find(|record| sha256(&record.certificate) == *fingerprint.octets());
        found.map(|record| record.certificate).ok_or_else(|| Refusal::NotFound.into())
    }

    /// The urgent entries from `from` on, below `size`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn missed(&self, ledger: &LedgerName, from: u64, size: u64) -> Result<Missed> {
        let Some(count) = size.checked_sub(from).filter(|count| *count <= RESUME_MOST) else { return Ok(Missed::TooMuch) };
        let (name, limit) = (ledger.clone(), u32::try_from(count).unwrap_or(u32::MAX));
        let entries = read(&*self.store, move |rows| rows.entries(&name, from, limit)).await?;
        let mut urgent = Vec::new();
        for stored in entries {
            let entry = Entry::decode(&stored.entry).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            if entry.event.is_urgent() {
                urgent.push(stored);
            }
        }
        Ok(Missed::Entries(urgent))
    }

    /// Confirms the certificates that a gateway saw in use and that are unconfirmed.
    ///
    /// # Errors
    /// See [`Self::followed_checkpoint`]; `InvalidValue` for none, or more than 1,000. What is wrong with one certificate
    /// is told of it and harms no other.
    pub async fn sighted(
        &self,
        caller: &Caller,
        ledger: &LedgerName,
        sightings: Vec<Sighting>,
        now: Timestamp,
    ) -> Result<Sighted> {
        may_follow(caller, ledger)?;
        if sightings.is_empty() || sightings.len() > MAX_SIGHTINGS {
            return Err(Error::with_detail(Refusal::InvalidValue, "A report has 1 to 1,000 sightings."));
        }
        let places: Vec<_> = sightings.iter().map(|seen| certificate_id(seen.serial.epoch(), seen.serial.index())).collect();
        let found = read(&*self.store, move |rows| {
            places.into_iter().map(|place| rows.certificate(place)).collect::<std::result::Result<Vec<_>, _>>()
        })
        .await?;
        let confirmed = join_all(sightings.iter().zip(found).map(|(seen, found)| self.sight(ledger, *seen, found, now))).await;
        let mut sighted = Sighted::default();
        for (seen, outcome) in sightings.iter().zip(confirmed) {
            match outcome {
                Ok(true) => sighted.confirmed += 1,
                Ok(false) => sighted.known += 1,
                Err(StoreError::Refused(refusal)) => sighted.refused.push((seen.serial, refusal)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sighted)
    }

    /// Whether this confirmed it; false where it was confirmed before.
    async fn sight(
        &self,
        ledger: &LedgerName,
        seen: Sighting,
        found: Option<Certificate>,
        now: Timestamp,
    ) -> std::result::Result<bool, StoreError> {
        let certificate = found.filter(|found| found.ledger == *ledger).ok_or(Refusal::NotOnLedger)?;
        if certificate.serial != seen.serial || certificate.fingerprint != seen.fingerprint {
            alarm("forged_certificate", &format!("serial {}, fingerprint {}", seen.serial, seen.fingerprint));
            return Err(Refusal::NotOnLedger.into());
        }
        if now > certificate.not_after {
            return Err(Refusal::CertificateExpired.into());
        }
        if certificate.standing == Standing::Good {
            return Ok(false);
        }
        // No reaction to a superseded one: a report tells not when it was seen, and may have waited.
        self.commit_confirming(|departure| Confirm::of(&certificate, departure, now)).await.map(|_| true)
    }
}

/// # Errors
/// `WrongKind` for who is neither gateway nor service.
fn is_follower(caller: &Caller) -> Result<()> {
    match caller.identity.kind() {
        Kind::Gateway | Kind::Service => Ok(()),
        Kind::Device | Kind::Operator => Err(Refusal::WrongKind.into()),
    }
}

/// What the caller may not follow is not there.
///
/// # Errors
/// `WrongKind` for who is neither gateway nor service; `NotFound` for a fleet's ledger that the caller was not granted.
pub fn may_follow(caller: &Caller, ledger: &LedgerName) -> Result<()> {
    is_follower(caller)?;
    match ledger {
        LedgerName::Fleet(fleet) if !caller.reaches(fleet) => Err(Refusal::NotFound.into()),
        LedgerName::System | LedgerName::Fleet(_) => Ok(()),
    }
}

/// All that a place has: what lies below a signed checkpoint is in the store.
fn whole<T>(found: Vec<T>, place: Place, what: &'static str) -> Result<Vec<T>> {
    if found.len() == usize::from(place.width) { Ok(found) } else { Err(StoreError::Unreadable { what }.into()) }
}
