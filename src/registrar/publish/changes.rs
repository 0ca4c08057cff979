//! What the ledgers said since the lists were made. A change of standing names places, and a place names its shard: no list is
//! made anew for another's change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{Epoch, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::entry::{Entry, Event, IndexSet};

use super::super::authorities::Authority;
use super::super::{Error, Registrar, Result};
use super::choices_of;
use super::shards::{self, SLICE_BITS};
use crate::store::acts::lists::MarkListed;
use crate::store::model::{AuthorityId, ListKey, ListKind, StoredEntry};
use crate::store::{commit, look_up, read};

/// Entries read at once.
const PAGE: u32 = 1_000;
/// The mark is moved when it is so far behind: it only saves reading at the next start.
const MARK_EVERY: u64 = 1_000;

/// What whoever makes lists knows from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Pass {
    ledgers: BTreeMap<LedgerName, Seen>,
    /// Whose an epoch is; None: nobody's, as far as the store knows.
    epochs: BTreeMap<Epoch, AuthorityId>,
    /// When the shards in memory were last compared with those in the store.
    pub(super) settled_at: Option<Timestamp>,
    /// Shards that are missing: their certificates were issued before there were shards, or the list could not be kept.
    pub(super) missing: BTreeSet<ListKey>,
    /// Shards whose certificates have all ended.
    pub(super) over: BTreeSet<ListKey>,
    /// Before when an authority's plain list is not made again: making one of a million takes its time.
    pub(super) rests: BTreeMap<AuthorityId, Instant>,
}

/// What one ledger said.
#[derive(Debug, Default)]
struct Seen {
    /// So many entries were read.
    upto: u64,
    /// So many entries are known to the store as read.
    marked: u64,
    /// The last change in each shard, by position.
    shards: BTreeMap<ListKey, u64>,
    /// The last change of what the fleet lists, by position.
    fleet: Option<u64>,
    /// What the fleet lists.
    choices: Option<Choices>,
}

impl Pass {
    /// Whether the shard lacks something that happened at or after `position`.
    pub(super) fn is_behind(&self, ledger: &LedgerName, key: &ListKey, position: u64) -> bool {
        let Some(seen) = self.ledgers.get(ledger) else { return false };
        seen.fleet.is_some_and(|at| at >= position) || seen.shards.get(key).is_some_and(|at| *at >= position)
    }

    /// The same of the authority's plain list.
    pub(super) fn is_any_behind(&self, ledger: &LedgerName, authority: AuthorityId, position: u64) -> bool {
        let Some(seen) = self.ledgers.get(ledger) else { return false };
        seen.fleet.is_some_and(|at| at >= position) || seen.shards.range(shards::of(authority)).any(|(_, at)| *at >= position)
    }

    /// The authority's shards that changed since they were first looked at.
    pub(super) fn changed(&self, ledger: &LedgerName, authority: AuthorityId) -> impl Iterator<Item = ListKey> {
        let seen = self.ledgers.get(ledger).into_iter();
        seen.flat_map(move |seen| seen.shards.range(shards::of(authority)).map(|(key, _)| *key))
    }

    /// How many of the ledger's entries were read.
    pub(super) fn upto(&self, ledger: &LedgerName) -> u64 {
        self.ledgers.get(ledger).map_or(0, |seen| seen.upto)
    }
}

impl Registrar {
    /// Reads what the authority's ledger said since the last time.
    pub(super) async fn scan(&self, pass: &mut Pass, authority: &Authority) -> Result<()> {
        let ledger = authority.ledger();
        if !pass.ledgers.contains_key(&ledger) {
            let seen = self.first_seen(&ledger).await?;
            pass.ledgers.insert(ledger.clone(), seen);
        }
        loop {
            let upto = pass.upto(&ledger);
            // Where nobody else writes, what was not signed here is not there.
            if self.store.is_alone() && self.publisher.size(&ledger).is_some_and(|size| size <= upto) {
                return Ok(());
            }
            let events = self.events(&ledger, upto, PAGE).await?;
            let Some(last) = events.last().map(|(position, _)| *position) else { return Ok(()) };
            self.take(pass, authority, &ledger, events).await?;
            if let Some(seen) = pass.ledgers.get_mut(&ledger) {
                seen.upto = last + 1;
            }
        }
    }

    /// From where on the ledger is read: the mark, or before it the list that is furthest behind.
    async fn first_seen(&self, ledger: &LedgerName) -> Result<Seen> {
        let name = ledger.clone();
        let marked = read(&*self.store, move |rows| MarkListed::read(rows, &name)).await?;
        let shards = self.published.shards.load();
        let crls = self.published.crls.load();
        let mut positions = Vec::new();
        for authority in self.authorities.all().iter().filter(|authority| authority.ledger() == *ledger) {
            let id = authority.record.id;
            positions.extend(shards.range(shards::of(id)).map(|(_, shard)| shard.list.position));
            let kept = read(&*self.store, move |rows| rows.crl(id)).await?;
            positions.extend(crls.get(&id).map(|crl| crl.position).or(kept.map(|crl| crl.position)));
        }
        // Of a list that is not there nothing need be read: it is made of what is there.
        let upto = marked.max(positions.into_iter().min().unwrap_or(0));
        Ok(Seen { upto, marked, ..Seen::default() })
    }

    /// The ledger's entries from this position on, at most so many, with their positions: what every view is made of. Before any of
    /// it counts as read, all of it is understood.
    pub(in crate::registrar) async fn events(&self, ledger: &LedgerName, from: u64, limit: u32) -> Result<Vec<(u64, Event)>> {
        let name = ledger.clone();
        let entries = look_up(&*self.store, move |rows| rows.entries(&name, from, limit)).await?;
        let understood = |stored: StoredEntry| {
            let entry = Entry::decode(&stored.entry).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            Ok((stored.position, entry.event))
        };
        entries.into_iter().map(understood).collect()
    }

    async fn take(&self, pass: &mut Pass, authority: &Authority, ledger: &LedgerName, events: Vec<(u64, Event)>) -> Result<()> {
        let mut changes = Vec::new();
        let mut fleet = None;
        for (position, event) in events {
            match event {
                Event::StandingChanged { certificates, .. } => changes.push((position, certificates)),
                Event::FleetChanged { .. } => fleet = Some(position),
                _ => {}
            }
        }
        self.find_epochs(pass, changes.iter().map(|(_, certificates)| certificates)).await?;
        let choices = match (fleet, authority.record.fleet.clone()) {
            (Some(_), Some(fleet)) => Some(read(&*self.store, move |rows| choices_of(rows, Some(&fleet))).await?),
            _ => None,
        };
        let Pass { ledgers, epochs, .. } = pass;
        let Some(seen) = ledgers.get_mut(ledger) else { return Ok(()) };
        if let (Some(position), Some(choices)) = (fleet, choices)
            && seen.choices.replace(choices) != Some(choices)
        {
            seen.fleet = Some(position);
        }
        for (position, certificates) in &changes {
            for key in touched(certificates, epochs) {
                seen.shards.insert(key, *position);
            }
        }
        Ok(())
    }

    /// Learns whose the epochs of these certificates are.
    async fn find_epochs(&self, pass: &mut Pass, changed: impl Iterator<Item = &IndexSet>) -> Result<()> {
        let epochs = changed.flat_map(|certificates| certificates.ranges().iter().map(|range| range.epoch));
        let unknown: BTreeSet<Epoch> = epochs.filter(|epoch| !pass.epochs.contains_key(epoch)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let found = read(&*self.store, move |rows| {
            let mut found = Vec::new();
            for epoch in unknown {
                found.extend(rows.epoch(epoch)?.map(|record| (epoch, record.authority)));
            }
            Ok(found)
        });
        pass.epochs.extend(found.await?);
        Ok(())
    }

    /// Every list is as the ledgers say: the next start need not read that again.
    pub(super) async fn remember_scanned(&self, pass: &mut Pass) -> Result<()> {
        for (ledger, seen) in &mut pass.ledgers {
            if seen.upto < seen.marked.saturating_add(MARK_EVERY) {
                continue;
            }
            commit(&*self.store, MarkListed { ledger: ledger.clone(), position: seen.upto }).await?;
            seen.marked = seen.upto;
        }
        Ok(())
    }
}

/// The shards of these certificates.
fn touched(certificates: &IndexSet, epochs: &BTreeMap<Epoch, AuthorityId>) -> BTreeSet<ListKey> {
    let mut keys = BTreeSet::new();
    for range in certificates.ranges() {
        let Some(authority) = epochs.get(&range.epoch) else { continue };
        let last = range.first.0.saturating_add(range.count.saturating_sub(1));
        for slice in (range.first.0 >> SLICE_BITS)..=(last >> SLICE_BITS) {
            keys.insert(ListKey { kind: ListKind::CrlShard, authority: *authority, epoch: range.epoch, slice });
        }
    }
    keys
}
