//! The standings behind OCSP answers, in memory: an array for each slice of an epoch, read from the store when it is first asked
//! about, and followed by the ledger from then on. A question compares the ledger's newest head, which is set before any act is
//! answered, with the entries that were read; so a change that was acknowledged is seen by the next question.
//!
//! Where other processes write into the same database, their heads are not signed here: the store is asked for the head, once for all
//! questions that wait for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetmark_domain::standing::{Choices, RevocationReason};
use fleetmark_domain::{Epoch, Index, LedgerName, Refusal, Serial, Sight, Standing, Timestamp, View};
use fleetmark_ledger::entry::Event;

use super::super::authorities::Authority;
use super::super::{Registrar, Result};
use super::shards::{SLICE_BITS, places};
use super::{choices_of, size_of};
use crate::pki::ocsp::Status;
use crate::store::model::{AuthorityId, CertificateStanding};
use crate::store::rows::certificate_id;
use crate::store::{look_up, read};

/// The most slices in memory: 256 KiB each.
const SLICES: usize = 256;
/// A table that is so many entries behind is read anew instead.
const MAX_BEHIND: u64 = 4_096;
/// A question that is not answered from memory after so many readings is answered from the store.
const TRIES: usize = 8;

/// Standings by ledger.
#[derive(Default)]
pub(super) struct Standings {
    tables: Mutex<BTreeMap<LedgerName, Table>>,
    /// Held by whoever reads a slice: all who wait for it have it read once.
    turn: tokio::sync::Mutex<()>,
    heads: Mutex<BTreeMap<LedgerName, Arc<StoredHead>>>,
}

/// How many entries a ledger has in the store.
#[derive(Default)]
struct StoredHead {
    /// How many asked.
    asked: AtomicU64,
    read: tokio::sync::Mutex<HeadRead>,
}

/// The last reading.
#[derive(Default)]
struct HeadRead {
    /// It began after the first so many had asked, and answers them.
    answers: u64,
    /// None: the store could not be read.
    size: Option<u64>,
}

/// The standings that one ledger tells of, as far as they were asked for.
#[derive(Default)]
struct Table {
    /// So many entries are in it.
    upto: u64,
    choices: Choices,
    slices: HashMap<(Epoch, u32), Slice>,
}

/// A slice of an epoch.
struct Slice {
    authority: AuthorityId,
    /// By place in the slice, up to the last that was issued.
    slots: Vec<Slot>,
}

/// What is known of one place.
#[derive(Clone, Copy)]
struct Slot {
    /// The serial's random octets.
    random: [u8; 8],
    /// Seconds since 1970 of the last change.
    since: u32,
    worth: Worth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// Nothing was issued here.
    Nothing,
    /// Something changed: the store knows.
    Ask,
    /// It lapses by itself, or does not fit in here: the store is asked each time.
    AskAlways,
    Is(Standing),
}

/// What memory says to a question.
enum Look {
    Statuses(Vec<Status>),
    /// Entries from here on are not in it.
    Behind(u64),
    /// This slice is not in it.
    Slice(Epoch, u32),
    /// These places want to be asked for.
    Places(Vec<(Epoch, Index)>),
    /// It cannot answer.
    Nothing,
}

const EMPTY: Slot = Slot { random: [0; 8], since: 0, worth: Worth::Nothing };

impl From<&CertificateStanding> for Slot {
    fn from(one: &CertificateStanding) -> Self {
        let random = one.serial.octets().last_chunk().copied().unwrap_or_default();
        let since = u32::try_from(one.changed_at.0).ok();
        let lapses = one.standing == Standing::Unconfirmed && one.confirm_before.is_some();
        let worth = if lapses || since.is_none() { Worth::AskAlways } else { Worth::Is(one.standing) };
        Self { random, since: since.unwrap_or(0), worth }
    }
}

impl Slice {
    fn of(authority: AuthorityId, standings: &[CertificateStanding]) -> Self {
        let mut slice = Self { authority, slots: Vec::new() };
        for one in standings {
            slice.set(one.serial.index(), one.into());
        }
        slice
    }

    fn set(&mut self, index: Index, slot: Slot) {
        let place = place_in_slice(index);
        if self.slots.len() <= place {
            self.slots.resize(place.saturating_add(1), EMPTY);
        }
        if let Some(known) = self.slots.get_mut(place) {
            *known = slot;
        }
    }
}

impl Table {
    fn outdate(&mut self, epoch: Epoch, index: Index) {
        if let Some(slice) = self.slices.get_mut(&(epoch, index.0 >> SLICE_BITS)) {
            slice.set(index, Slot { worth: Worth::Ask, ..EMPTY });
        }
    }

    /// Takes what an entry changes: the place is asked for anew, since an entry has neither the serial nor the reason.
    fn take(&mut self, event: &Event) {
        match event {
            Event::Issued(issued) => self.outdate(issued.epoch, issued.index),
            Event::Confirmed { epoch, index } => self.outdate(*epoch, *index),
            Event::StandingChanged { certificates, .. } => {
                certificates.certificates().for_each(|(epoch, index)| self.outdate(epoch, index));
            }
            // What the fleet lists may have changed.
            Event::FleetChanged { .. } => self.slices.clear(),
            _ => {}
        }
    }

    fn look(&self, head: u64, authority: AuthorityId, serials: &[Option<Serial>]) -> Look {
        if self.upto < head {
            return Look::Behind(self.upto);
        }
        let mut statuses = Vec::with_capacity(serials.len());
        let mut places = Vec::new();
        for serial in serials {
            let Some(serial) = serial else {
                statuses.push(Status::Unknown);
                continue;
            };
            let (epoch, index) = (serial.epoch(), serial.index());
            let key = (epoch, index.0 >> SLICE_BITS);
            let Some(slice) = self.slices.get(&key) else { return Look::Slice(key.0, key.1) };
            let slot = slice.slots.get(place_in_slice(index)).copied().unwrap_or(EMPTY);
            match slot.worth {
                Worth::Ask => places.push((epoch, index)),
                Worth::AskAlways => return Look::Nothing,
                Worth::Is(standing) if slice.authority == authority && serial.octets().ends_with(&slot.random) => {
                    statuses.push(status(standing, false, Timestamp(slot.since.into()), self.choices));
                }
                Worth::Nothing | Worth::Is(_) => statuses.push(Status::Unknown),
            }
        }
        if places.is_empty() { Look::Statuses(statuses) } else { Look::Places(places) }
    }
}

impl Standings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LedgerName, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, ledger: &LedgerName, head: u64, authority: AuthorityId, serials: &[Option<Serial>]) -> Look {
        match self.lock().get(ledger) {
            Some(table) => table.look(head, authority, serials),
            None => Look::Behind(0),
        }
    }

    /// Changes a ledger's table, where `fits` what it holds by now.
    fn change(&self, ledger: &LedgerName, fits: impl FnOnce(&Table) -> bool, change: impl FnOnce(&mut Table)) {
        let mut tables = self.lock();
        if !tables.contains_key(ledger) {
            tables.insert(ledger.clone(), Table::default());
        }
        if let Some(table) = tables.get_mut(ledger).filter(|table| fits(table)) {
            change(table);
        }
    }

    /// Whether something of this ledger is in memory.
    #[cfg(test)]
    pub(super) fn holds(&self, ledger: &LedgerName) -> bool {
        self.lock().get(ledger).is_some_and(|table| !table.slices.is_empty())
    }

    fn has_slice(&self, ledger: &LedgerName, slice: (Epoch, u32)) -> bool {
        self.lock().get(ledger).is_some_and(|table| table.slices.contains_key(&slice))
    }

    fn has_room(&self) -> bool {
        self.lock().values().map(|table| table.slices.len()).sum::<usize>() < SLICES
    }
}

impl Registrar {
    /// What each of these certificates of the authority is worth, by the table; None, and what the authority never issued, is
    /// unknown.
    pub(super) async fn statuses(
        &self,
        authority: &Arc<Authority>,
        serials: &[Option<Serial>],
        now: Timestamp,
    ) -> Result<Vec<Status>> {
        let (ledger, standings) = (authority.ledger(), &self.published.standings);
        for _ in 0..TRIES {
            let head =
                if self.store.is_alone() { self.publisher.size(&ledger) } else { Some(self.stored_head(&ledger).await?) };
            let Some(head) = head else { break };
            match standings.look(&ledger, head, authority.record.id, serials) {
                Look::Statuses(statuses) => return Ok(statuses),
                Look::Behind(from) => self.catch_up(&ledger, from, head).await?,
                Look::Places(places) => self.learn_places(&ledger, places).await?,
                Look::Slice(epoch, slice) => {
                    if !standings.has_room() || !self.learn_slice(authority, epoch, slice).await? {
                        break;
                    }
                }
                Look::Nothing => break,
            }
        }
        self.stored_statuses(authority, serials, now).await
    }

    /// The same from the store.
    pub(super) async fn stored_statuses(
        &self,
        authority: &Arc<Authority>,
        serials: &[Option<Serial>],
        now: Timestamp,
    ) -> Result<Vec<Status>> {
        let (authority, serials) = (authority.clone(), serials.to_vec());
        let statuses =
            look_up(&*self.store, move |rows| {
                let choices = choices_of(rows, authority.record.fleet.as_ref())?;
                let mut statuses = Vec::with_capacity(serials.len());
                for serial in serials {
                    let found = match serial.map(|serial| certificate_id(serial.epoch(), serial.index())) {
                        Some(place) => rows.standings(place, place)?.pop(),
                        None => None,
                    };
                    let found = found.filter(|found| Some(found.serial) == serial && found.authority == authority.record.id);
                    statuses.push(found.map_or(Status::Unknown, |found| {
                        status(found.standing, found.has_lapsed(now), found.changed_at, choices)
                    }));
                }
                Ok(statuses)
            });
        Ok(statuses.await?)
    }

    /// How many entries the ledger has by now, those of other processes too.
    async fn stored_head(&self, ledger: &LedgerName) -> Result<u64> {
        let head = {
            let mut heads = self.published.standings.heads.lock().unwrap_or_else(PoisonError::into_inner);
            heads.entry(ledger.clone()).or_default().clone()
        };
        let own = head.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = head.read.lock().await;
        if last.answers < own {
            // Whoever asked until here asked before it is read.
            let answers = head.asked.load(Ordering::SeqCst);
            let name = ledger.clone();
            let size = look_up(&*self.store, move |rows| size_of(rows, &name)).await;
            *last = HeadRead { answers, size: size.as_ref().ok().copied() };
            return Ok(size?);
        }
        last.size.ok_or_else(|| Refusal::StorageUnavailable.into())
    }

    /// Reads the ledger's entries from `from` to `head`, or begins anew where they are too many.
    async fn catch_up(&self, ledger: &LedgerName, from: u64, head: u64) -> Result<()> {
        let is_at = |table: &Table| table.upto == from;
        if head - from > MAX_BEHIND {
            let anew = |table: &mut Table| *table = Table { upto: head, ..Table::default() };
            self.published.standings.change(ledger, is_at, anew);
            return Ok(());
        }
        let events = self.events(ledger, from, u32::try_from(head - from).unwrap_or(u32::MAX)).await?;
        let upto = events.last().map_or(head, |(position, _)| position + 1);
        self.published.standings.change(ledger, is_at, |table| {
            for (_, event) in &events {
                table.take(event);
            }
            table.upto = upto;
        });
        Ok(())
    }

    /// Reads a slice. False for one that this authority has not begun: nobody may fill the memory with invented epochs, nor keep
    /// others waiting for them.
    async fn learn_slice(&self, authority: &Authority, epoch: Epoch, slice: u32) -> Result<bool> {
        let (id, ledger, fleet) = (authority.record.id, authority.ledger(), authority.record.fleet.clone());
        let begun = look_up(&*self.store, move |rows| {
            Ok(rows.epoch(epoch)?.is_some_and(|record| record.authority == id && record.next_index > slice << SLICE_BITS))
        });
        if !begun.await? {
            return Ok(false);
        }
        let standings = &self.published.standings;
        let _turn = standings.turn.lock().await;
        if standings.has_slice(&ledger, (epoch, slice)) {
            return Ok(true);
        }
        let (from, to) = places(epoch, slice);
        let name = ledger.clone();
        let found = read(&*self.store, move |rows| {
            Ok((size_of(rows, &name)?, choices_of(rows, fleet.as_ref())?, rows.standings(from, to)?))
        });
        let (size, choices, found) = found.await?;
        // What the table holds already must be in the slice too; what comes after is taken a second time, which does no harm.
        standings.change(
            &ledger,
            |table| table.upto <= size,
            |table| {
                table.choices = choices;
                table.slices.insert((epoch, slice), Slice::of(id, &found));
            },
        );
        Ok(true)
    }

    /// Reads the places that changed.
    async fn learn_places(&self, ledger: &LedgerName, places: Vec<(Epoch, Index)>) -> Result<()> {
        let name = ledger.clone();
        let found = look_up(&*self.store, move |rows| {
            let size = size_of(rows, &name)?;
            let mut found = Vec::with_capacity(places.len());
            for (epoch, index) in places {
                let place = certificate_id(epoch, index);
                found.push((epoch, index, rows.standings(place, place)?.pop()));
            }
            Ok((size, found))
        });
        let (size, found) = found.await?;
        self.published.standings.change(
            ledger,
            |table| table.upto <= size,
            |table| {
                for (epoch, index, standing) in &found {
                    if let Some(slice) = table.slices.get_mut(&(*epoch, index.0 >> SLICE_BITS)) {
                        slice.set(*index, standing.as_ref().map_or(EMPTY, Slot::from));
                    }
                }
            },
        );
        Ok(())
    }
}

/// The index's place in its slice.
fn place_in_slice(index: Index) -> usize {
    usize::try_from(index.0 & ((1 << SLICE_BITS) - 1)).unwrap_or(usize::MAX)
}

/// What OCSP says of a standing.
fn status(standing: Standing, has_lapsed: bool, since: Timestamp, choices: Choices) -> Status {
    match standing.seen_by(View::Ocsp, has_lapsed, choices) {
        Sight::Good | Sight::Restricted | Sight::Refused => Status::Good,
        Sight::Held => Status::Revoked(since, None),
        Sight::Revoked(reason) => Status::Revoked(since, Some::<RevocationReason>(reason)),
    }
}
