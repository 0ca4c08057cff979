//! Shards: the list of each slice of an epoch, 2^14 certificates at most. A certificate names its shard as its one distribution
//! point, so the list is there before the certificate is: whoever fetches it finds one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Epoch, Index, Refusal, Timestamp};

use super::super::authorities::Authority;
use super::super::signing::off_the_worker;
use super::super::{Error, Registrar, Result};
use super::changes::Pass;
use super::{CRL_LIFETIME, Outcome, Published, Work, choices_of, ended_since, is_due, is_listed, is_sharded};
use super::{kept_list, lines, next_number, size_of};
use crate::pki::crl::{CrlHeader, build, entries, entries_in};
use crate::pki::issue::Pointers;
use crate::store::acts::lists::{DropList, PutList};
use crate::store::model::{AuthorityId, EpochRecord, ListKey, ListKind, PublishedList};
use crate::store::rows::{CertificateId, certificate_id};
use crate::store::{commit, look_up, read};

/// A slice has 2^14 certificates: revoked all of them, its list has 800 KiB.
pub const SLICE_BITS: u32 = 14;

/// Shards that are made anew in one pass only because they are old.
const OLD_AT_ONCE: usize = 16;
/// The shards in memory are compared with those in the store so often, where other servers make some too.
const SETTLE_EVERY: Duration = Duration::from_secs(30);
/// So long after its end nothing is issued in an epoch any more: leases of its indices have expired.
const EPOCH_SETTLED: Duration = Duration::from_secs(3_600);

/// A shard's list as it was last made.
#[derive(Debug)]
pub struct Shard {
    /// The list.
    pub list: PublishedList,
    entries: Range<usize>,
}

impl Shard {
    fn new(list: PublishedList) -> Result<Self> {
        let entries = entries_in(&list.octets)
            .ok_or_else(|| Error::caused(Refusal::StorageDamaged, "a kept revocation list cannot be read"))?;
        Ok(Self { list, entries })
    }

    /// Its entries, one after the other.
    pub fn entries(&self) -> &[u8] {
        self.list.octets.get(self.entries.clone()).unwrap_or_default()
    }
}

/// The keys of all shards of an authority.
pub(super) fn of(authority: AuthorityId) -> RangeInclusive<ListKey> {
    let key = |epoch, slice| ListKey { kind: ListKind::CrlShard, authority, epoch: Epoch(epoch), slice };
    key(0, 0)..=key(u32::MAX, u32::MAX)
}

/// The places of a slice, the first and the last.
pub(super) fn places(epoch: Epoch, slice: u32) -> (CertificateId, CertificateId) {
    let first = slice << SLICE_BITS;
    (certificate_id(epoch, Index(first)), certificate_id(epoch, Index(first | ((1 << SLICE_BITS) - 1))))
}

impl Authority {
    /// Where the status of the certificate at this place is found. The root's certificates name the plain list.
    pub(in crate::registrar) fn pointers_at(&self, epoch: Epoch, index: Index) -> Pointers {
        let crl = if is_sharded(self) { self.shard_point(epoch, index.0 >> SLICE_BITS) } else { self.pointers.crl.clone() };
        Pointers { crl, ..self.pointers.clone() }
    }

    /// The distribution point of a shard: `{public_url}/crl/{authority}/{epoch}-{slice}.crl`.
    fn shard_point(&self, epoch: Epoch, slice: u32) -> Option<String> {
        let plain = self.pointers.crl.as_deref()?.strip_suffix(".crl")?;
        Some(format!("{plain}/{}-{slice}.crl", epoch.0))
    }
}

impl Published {
    fn set_shard(&self, shard: Shard) {
        let shard = Arc::new(shard);
        self.change_shards(|shards| {
            let is_newer = shards.get(&shard.list.key).is_none_or(|known| known.list.number < shard.list.number);
            if is_newer {
                shards.insert(shard.list.key, shard.clone());
            }
        });
    }

    pub(super) fn change_shards(&self, change: impl Fn(&mut BTreeMap<ListKey, Arc<Shard>>)) {
        self.shards.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            change(&mut next);
            next
        });
    }
}

impl Registrar {
    /// The list of this slice, as it was last made.
    ///
    /// # Errors
    /// Of the store, which is asked where other servers make lists too.
    pub async fn shard(&self, authority: AuthorityId, epoch: Epoch, slice: u32) -> Result<Option<Arc<Shard>>> {
        let key = ListKey { kind: ListKind::CrlShard, authority, epoch, slice };
        let known = || self.published.shards.load().get(&key).cloned();
        let is_listed = || self.authorities.by_id(authority).is_some_and(|authority| is_listed(&authority));
        if known().is_none() && !self.store.is_alone() && is_listed() {
            let kept = look_up(&*self.store, move |rows| kept_list(rows, &key)).await?;
            kept.map(Shard::new).transpose()?.into_iter().for_each(|shard| self.published.set_shard(shard));
        }
        Ok(known())
    }

    /// Makes sure that there is a list for whoever is issued at this place.
    pub(in crate::registrar) async fn found_shard(
        &self,
        authority: &Authority,
        epoch: Epoch,
        index: Index,
        now: Timestamp,
    ) -> Result<()> {
        let (id, slice) = (authority.record.id, index.0 >> SLICE_BITS);
        if !is_sharded(authority) || self.shard(id, epoch, slice).await?.is_some() {
            return Ok(());
        }
        let _alone = self.published.founding.lock().await;
        if self.shard(id, epoch, slice).await?.is_none() {
            let key = ListKey { kind: ListKind::CrlShard, authority: id, epoch, slice };
            self.make_shard(authority, key, now).await?;
        }
        Ok(())
    }

    /// Makes anew the authority's shards that are missing or behind. False where one of them could not be.
    pub(super) async fn refresh_changed_shards(
        &self,
        pass: &mut Pass,
        authority: &Authority,
        now: Timestamp,
        work: &mut Work,
    ) -> bool {
        let id = authority.record.id;
        let mut all = true;
        for key in self.changed_shards(pass, authority) {
            let outcome = self.make_shard(authority, key, now).await;
            let is_done = work.count(&format!("shard {}-{} of authority {id}", key.epoch.0, key.slice), outcome);
            if is_done {
                pass.missing.remove(&key);
            }
            all &= is_done;
        }
        all
    }

    fn changed_shards(&self, pass: &Pass, authority: &Authority) -> Vec<ListKey> {
        if !is_sharded(authority) {
            return Vec::new();
        }
        let (id, ledger) = (authority.record.id, authority.ledger());
        let shards = self.published.shards.load();
        let behind = shards.range(of(id)).filter(|(key, shard)| pass.is_behind(&ledger, key, shard.list.position));
        // A slice that another server founded since the shards were settled is not known here, and its change all the same.
        let missing = pass.missing.range(of(id)).copied().chain(pass.changed(&ledger, id));
        let missing = missing.filter(|key| !shards.contains_key(key) && !pass.over.contains(key));
        behind.map(|(key, _)| *key).chain(missing).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn old_shards(&self, listed: &[&Arc<Authority>], now: Timestamp) -> Vec<(Arc<Authority>, ListKey)> {
        let shards = self.published.shards.load();
        let mut due = Vec::new();
        for authority in listed.iter().filter(|authority| authority.has_key) {
            let is_old = |list: &PublishedList| is_due((list.this_update, list.next_update), place(&list.key), now);
            let old = shards.range(of(authority.record.id)).filter(|(_, shard)| is_old(&shard.list));
            due.extend(old.map(|(key, _)| (Arc::clone(authority), *key)));
        }
        due
    }

    /// Makes anew some of the shards that are past their half, and drops those whose certificates have all ended.
    pub(super) async fn refresh_old_shards(
        &self,
        pass: &mut Pass,
        listed: &[&Arc<Authority>],
        now: Timestamp,
        work: &mut Work,
    ) {
        let due = self.old_shards(listed, now);
        work.is_left |= due.len() > OLD_AT_ONCE;
        for (authority, key) in due.into_iter().take(OLD_AT_ONCE) {
            let outcome = self.renew_shard(pass, &authority, key, now).await;
            work.count(&format!("shard {}-{} of authority {}", key.epoch.0, key.slice, key.authority), outcome);
        }
    }

    async fn renew_shard(&self, pass: &mut Pass, authority: &Authority, key: ListKey, now: Timestamp) -> Result<Outcome> {
        let (from, to) = places(key.epoch, key.slice);
        let (epoch, end) = read(&*self.store, move |rows| Ok((rows.epoch(key.epoch)?, rows.latest_end(from, to)?))).await?;
        if !is_over(epoch.as_ref(), end, now) {
            return self.make_shard(authority, key, now).await;
        }
        commit(&*self.store, DropList { key }).await?;
        self.published.change_shards(|shards| drop(shards.remove(&key)));
        pass.over.insert(key);
        tracing::info!(authority = key.authority, epoch = key.epoch.0, slice = key.slice, "revocation list dropped");
        Ok(Outcome::Kept)
    }

    async fn make_shard(&self, authority: &Authority, key: ListKey, now: Timestamp) -> Result<Outcome> {
        let (id, ledger, fleet) = (authority.record.id, authority.ledger(), authority.record.fleet.clone());
        let (from, to) = places(key.epoch, key.slice);
        let since = ended_since(CRL_LIFETIME, now);
        let read_all = read(&*self.store, move |rows| {
            let choices = choices_of(rows, fleet.as_ref())?;
            let position = size_of(rows, &ledger)?;
            Ok((position, rows.list_number(&key)?, lines(&rows.not_good(id, from, to, since)?, choices)))
        });
        let (position, newest, lines) = read_all.await?;
        let Some(number) = next_number(newest, now) else { return Ok(Outcome::PutOff) };
        let next_update = now + CRL_LIFETIME;
        let point = authority.shard_point(key.epoch, key.slice);
        let (issuer, revoked) = (authority.issuer.clone(), entries(&lines));
        let octets = off_the_worker(&authority.issuer.signer, move |_| {
            let header = CrlHeader { number, this_update: now, next_update, point: point.as_deref() };
            build(&issuer, &header, &[&revoked])
        });
        let octets = octets.await?;
        let list = PublishedList { key, number, this_update: now, next_update, position, octets };
        let kept = commit(&*self.store, PutList { list: list.clone() }).await?;
        tracing::debug!(
            authority = id,
            epoch = key.epoch.0,
            slice = key.slice,
            number,
            revoked = lines.len(),
            kept,
            "shard made"
        );
        if kept {
            metrics::counter!("fleetmark_shards_made_total").increment(1);
            self.published.set_shard(Shard::new(list)?);
            return Ok(Outcome::Made);
        }
        // Another server made one with this number: take that.
        if let Some(newest) = read(&*self.store, move |rows| rows.published_list(&key)).await? {
            self.published.set_shard(Shard::new(newest)?);
        }
        Ok(Outcome::Kept)
    }

    /// Takes the shards that the store has, and finds those that it lacks: once, and again and again where other servers make
    /// lists and epochs too.
    pub(super) async fn settle_shards(&self, pass: &mut Pass, listed: &[&Arc<Authority>], now: Timestamp) -> Result<()> {
        // A clock that was set back is no reason not to look.
        let is_recent = |at: Timestamp| at <= now && now.since(at) < SETTLE_EVERY;
        let is_settled = pass.settled_at.is_some_and(|at| self.store.is_alone() || is_recent(at));
        if is_settled {
            return Ok(());
        }
        let mut stored: BTreeMap<_, _> =
            read(&*self.store, |rows| rows.list_numbers(ListKind::CrlShard)).await?.into_iter().collect();
        stored.retain(|key, _| listed.iter().any(|authority| authority.record.id == key.authority));
        for (key, number) in &stored {
            let is_known = self.published.shards.load().get(key).is_some_and(|known| known.list.number >= *number);
            let key = *key;
            if !is_known && let Some(list) = read(&*self.store, move |rows| kept_list(rows, &key)).await? {
                self.published.set_shard(Shard::new(list)?);
            }
        }
        self.published.change_shards(|shards| shards.retain(|key, _| stored.contains_key(key)));
        for authority in listed.iter().filter(|authority| is_sharded(authority)) {
            self.find_missing(pass, authority.record.id, now).await?;
        }
        pass.settled_at = Some(now);
        Ok(())
    }

    async fn find_missing(&self, pass: &mut Pass, authority: AuthorityId, now: Timestamp) -> Result<()> {
        let shards = self.published.shards.load_full();
        for epoch in read(&*self.store, move |rows| rows.epochs_of(authority)).await? {
            let Some(last) = epoch.next_index.checked_sub(1) else { continue };
            for slice in 0..=(last >> SLICE_BITS) {
                let key = ListKey { kind: ListKind::CrlShard, authority, epoch: epoch.number, slice };
                if shards.contains_key(&key) || pass.over.contains(&key) {
                    continue;
                }
                let (from, to) = places(key.epoch, slice);
                let end = read(&*self.store, move |rows| rows.latest_end(from, to)).await?;
                if is_over(Some(&epoch), end, now) {
                    pass.over.insert(key);
                } else {
                    pass.missing.insert(key);
                }
            }
        }
        Ok(())
    }
}

/// Whether nobody will ask for the slice any more: nothing is issued in it, and all that was has ended and was listed so.
fn is_over(epoch: Option<&EpochRecord>, latest_end: Option<Timestamp>, now: Timestamp) -> bool {
    let is_closed = epoch.and_then(|epoch| epoch.closed_at).is_some_and(|at| at + EPOCH_SETTLED <= now);
    is_closed && latest_end.is_none_or(|end| end <= ended_since(CRL_LIFETIME, now))
}

/// What tells a shard from others.
fn place(key: &ListKey) -> u64 {
    (u64::from(key.authority) << 48) ^ (u64::from(key.epoch.0) << 16) ^ u64::from(key.slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hour at which a shard that was made at 0 is due.
    fn due_hour(slice: u32) -> i64 {
        let place = place(&ListKey { kind: ListKind::CrlShard, authority: 2, epoch: Epoch(7), slice });
        let is_due = |hour: &i64| is_due((Timestamp(0), Timestamp(0) + CRL_LIFETIME), place, Timestamp(hour * 3_600 + 3_599));
        (0..200).find(is_due).unwrap()
    }

    #[test]
    fn shards_that_were_made_together_are_due_one_after_the_other() {
        let hours: Vec<i64> = (0..64).map(due_hour).collect();
        // Seven days' half is hour 84; an eighth before it is hour 63.
        assert!(hours.iter().all(|hour| (63..=84).contains(hour)), "{hours:?}");
        let apart: BTreeSet<_> = hours.iter().collect();
        assert!(apart.len() >= 20, "{hours:?}");
        let fullest = apart.iter().map(|hour| hours.iter().filter(|other| *other == *hour).count()).max();
        assert!(fullest.is_some_and(|fullest| fullest <= 6), "{hours:?}");
        assert_eq!(due_hour(3), due_hour(3), "always the same");
    }

    #[test]
    fn a_slice_is_over_when_its_epoch_is_closed_and_its_certificates_have_ended() {
        let epoch = |closed_at: Option<i64>| EpochRecord {
            number: Epoch(7),
            authority: 2,
            opened_at: Timestamp(0),
            closed_at: closed_at.map(Timestamp),
            next_index: 5,
        };
        let now = Timestamp(1_000_000);
        let end = |at| Some(Timestamp(at));
        // Eight days before: they were on a list that was made after their end.
        assert!(is_over(Some(&epoch(Some(996_400))), end(308_800), now));
        assert!(is_over(Some(&epoch(Some(0))), None, now));
        assert!(!is_over(Some(&epoch(Some(996_401))), None, now), "a lease may still be used");
        assert!(!is_over(Some(&epoch(Some(0))), end(308_801), now));
        assert!(!is_over(Some(&epoch(None)), end(5), now));
        assert!(!is_over(None, None, now));
    }

    #[test]
    fn a_slice_has_its_places() {
        let (from, to) = places(Epoch(3), 2);
        assert_eq!((from, to), ((3 << 32) + 32_768, (3 << 32) + 49_151));
    }
}
