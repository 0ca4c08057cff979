//! The status lists: for every slice of every epoch of every authority, which certificates are good (docs/status-list.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{Epoch, FleetName, Index, LedgerName, Refusal, Standing, Timestamp, TrustDomain, View};
use fleetmark_ledger::entry::{AuthorityState, Event};
use fleetmark_status::Scope;
use fleetmark_status::encoder::{Heading, Standings, encode};
use fleetmark_status::header::{SLICE_INDICES, SLICE_SHIFT};

use super::insert;
use super::signers::StatusSigner;
use crate::registrar::authorities::Authority;
use crate::registrar::caller::alarm;
use crate::registrar::publish::kept_list;
use crate::registrar::tokens::sha256;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::lists::{DropList, PutList};
use crate::store::model::{ListKey, ListKind, PublishedList};
use crate::store::rows::{CertificateId, Rows, certificate_id};
use crate::store::{StoreError, commit, read};

/// How long a list holds (DESIGN §3.3).
const LIFETIME: Duration = Duration::from_secs(86_400);
/// From this age on a list is made anew though nothing changed; each has its own moment in the eighth of a life that follows.
const REFRESH: Duration = Duration::from_secs(86_400 / 2);
/// Entries read at once.
const PAGE: u32 = 1_000;
/// Where more entries than this were not looked at, as after a long rest, every list is made anew instead.
const MANY: u64 = 100_000;
/// Standings read at once.
const STANDINGS: u64 = 1 << 16;

/// A list that is given out.
#[derive(Debug)]
pub struct MadeList {
    /// The list.
    pub list: PublishedList,
    /// The key that signed it.
    pub key_id: [u8; 8],
    /// Whether it was made when its authority was revoked already, so that it calls nothing good.
    is_of_revoked: bool,
    /// What it says, for the next one; None of a list that was made before this process began.
    standings: Option<Standings>,
}

/// How far each ledger was looked at.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<LedgerName, u64>);

/// What a ledger's new entries say of the certificates, by slice and in their order.
enum News {
    /// Too much to tell, or a rule changed: every list is read from the rows.
    Everything,
    Of(BTreeMap<(Epoch, u32), Vec<Change>>),
}

/// What is new in a ledger, how far it was looked at, and what its fleet's lists name.
struct Told {
    news: News,
    upto: u64,
    choices: Choices,
}

/// These indices of a slice, counted from its first, are good from here on, or not.
struct Change {
    first: u32,
    count: u32,
    is_good: bool,
}

impl Registrar {
    /// The list as it was last made.
    pub fn status_list(&self, key: &ListKey) -> Option<Arc<MadeList>> {
        self.status.lists.load().get(key).cloned()
    }

    /// All lists.
    pub fn status_lists(&self) -> Arc<BTreeMap<ListKey, Arc<MadeList>>> {
        self.status.lists.load_full()
    }

    /// Makes anew each list in whose slice something was issued or changed its standing, or that is due by [`is_due`]. Returns how
    /// many were made. One that cannot be made keeps no other from being made.
    ///
    /// # Errors
    /// The first failure, after all lists were tried.
    pub async fn refresh_status_lists(&self, now: Timestamp) -> Result<usize> {
        let mut seen = self.status.seen.lock().await;
        let all = self.authorities.all();
        let signed = || all.iter().filter_map(|authority| Some((authority, self.status_signer(authority.record.id)?)));
        let ledgers: BTreeSet<LedgerName> = signed().map(|(authority, _)| authority.ledger()).collect();
        let (mut made, mut failure) = (0, None);
        for ledger in ledgers {
            let own: Vec<_> = signed().filter(|(authority, _)| authority.ledger() == ledger).collect();
            let (count, looked) = self.refresh_lists_of(&ledger, &own, seen.0.get(&ledger).copied(), now).await;
            made += count;
            match looked {
                Ok(upto) => {
                    seen.0.insert(ledger, upto);
                }
                Err(error) => {
                    alarm("status_list_not_made", &format!("ledger {ledger}: {}", error.refusal));
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(made), Err)
    }

    /// The lists over one ledger. Returns how many were made, and how far the ledger was looked at; or the first failure, after which
    /// what was new is looked at again.
    async fn refresh_lists_of(
        &self,
        ledger: &LedgerName,
        authorities: &[(&Arc<Authority>, Arc<StatusSigner>)],
        seen: Option<u64>,
        now: Timestamp,
    ) -> (usize, Result<u64>) {
        let (mut keys, mut failure) = (Vec::new(), None);
        for (authority, signer) in authorities {
            match self.slices_of(authority).await {
                Ok(slices) => keys.extend(slices.into_iter().map(|key| (*authority, signer, key))),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        for (_, signer, key) in &keys {
            if let Err(error) = self.recall(*key, signer).await {
                failure = failure.or(Some(error));
            }
        }
        let known = keys.iter().filter_map(|(_, _, key)| self.status_list(key)).map(|made| made.list.position).min();
        let news = match self.news_of(ledger, seen.or(known).unwrap_or(0)).await {
            Ok(news) => news,
            Err(error) => return (0, Err(failure.unwrap_or(error))),
        };
        let mut made = 0;
        for (authority, signer, key) in keys {
            match self.refresh_list(authority, signer, key, &news, now).await {
                Ok(is_made) => made += usize::from(is_made),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        (made, failure.map_or(Ok(news.upto), Err))
    }

    async fn news_of(&self, ledger: &LedgerName, from: u64) -> Result<Told> {
        let choices = self.choices_of(ledger).await?;
        let (news, upto) = self.news_since(ledger, from, choices).await?;
        Ok(Told { news, upto, choices })
    }

    /// Makes one list anew where it says something else now, or is due.
    async fn refresh_list(
        &self,
        authority: &Authority,
        signer: &StatusSigner,
        key: ListKey,
        Told { news, upto, choices }: &Told,
        now: Timestamp,
    ) -> Result<bool> {
        // An authority's own state stands in another ledger than its certificates.
        let is_revoked = authority.record.state == AuthorityState::Revoked;
        let kept = self.status_list(&key).filter(|kept| !is_due(kept, signer.key_id, is_revoked, now));
        let changes = match news {
            News::Everything => None,
            News::Of(slices) => Some(slices.get(&(key.epoch, key.slice))),
        };
        let told = match (kept, changes) {
            (Some(_), Some(None)) => return Ok(false),
            // Made in a pass in which another one failed.
            (Some(kept), Some(Some(_))) if kept.list.position >= *upto => return Ok(false),
            (Some(kept), Some(Some(changes))) => kept.standings.as_ref().map(|standings| (applied(standings, changes), *upto)),
            _ => None,
        };
        let told = match told {
            Some(told) => Some(told),
            None => self.standings_of(authority, &key, *choices, now).await?,
        };
        self.make_status_list(authority, signer, key, told, now).await
    }

    /// The slices of an authority's epochs in which something was, or may have been, issued.
    async fn slices_of(&self, authority: &Authority) -> Result<Vec<ListKey>> {
        let id = authority.record.id;
        let epochs = read(&*self.store, move |rows| rows.epochs_of(id)).await?;
        let slices = |next: u32| 0..next.div_ceil(SLICE_INDICES);
        let key = |epoch, slice| ListKey { kind: ListKind::StatusList, authority: id, epoch, slice };
        Ok(epochs.into_iter().flat_map(|epoch| slices(epoch.next_index).map(move |slice| key(epoch.number, slice))).collect())
    }

    /// Takes up a list that was made before this process began, unless it came with a backup: devices may have a newer one.
    async fn recall(&self, key: ListKey, signer: &StatusSigner) -> Result<()> {
        if self.status_list(&key).is_some() {
            return Ok(());
        }
        if let Some(list) = read(&*self.store, move |rows| kept_list(rows, &key)).await? {
            // After the magic stands the id of the key that signed it.
            let key_id = list.octets.get(4..12).and_then(|id| id.try_into().ok()).unwrap_or(signer.key_id);
            // What it says is not read: a revoked authority's is made anew.
            insert(&self.status.lists, key, MadeList { list, key_id, is_of_revoked: false, standings: None });
        }
        Ok(())
    }

    async fn choices_of(&self, ledger: &LedgerName) -> Result<Choices> {
        let LedgerName::Fleet(fleet) = ledger.clone() else { return Ok(Choices::default()) };
        let fleet = read(&*self.store, move |rows| rows.fleet(&fleet)).await?;
        Ok(fleet.map(|fleet| fleet.choices).unwrap_or_default())
    }

    async fn news_since(&self, ledger: &LedgerName, from: u64, choices: Choices) -> Result<(News, u64)> {
        let name = ledger.clone();
        let size = read(&*self.store, move |rows| Ok(rows.ledger(&name)?.map_or(0, |tail| tail.frontier.size()))).await?;
        if size.saturating_sub(from) > MANY {
            return Ok((News::Everything, size));
        }
        let (mut slices, mut at) = (BTreeMap::new(), from);
        while at < size {
            let events = self.events(ledger, at, PAGE).await?;
            let Some((last, _)) = events.last() else { break };
            at = last + 1;
            for (_, event) in events {
                match event {
                    Event::Issued(issued) => {
                        note(&mut slices, (issued.epoch, issued.index, 1), is_good(issued.standing, choices));
                    }
                    Event::StandingChanged { standing, certificates } => {
                        for range in certificates.ranges() {
                            note(&mut slices, (range.epoch, range.first, range.count), is_good(standing, choices));
                        }
                    }
                    Event::FleetChanged { .. } | Event::AuthorityChanged { .. } => return Ok((News::Everything, size)),
                    _ => {}
                }
            }
        }
        Ok((News::Of(slices), at))
    }

    /// What the rows say of a slice, and at which position of the ledger; None where all of its certificates have ended, or there is
    /// none.
    async fn standings_of(
        &self,
        authority: &Authority,
        key: &ListKey,
        choices: Choices,
        now: Timestamp,
    ) -> Result<Option<(Standings, u64)>> {
        let (ledger, (from, to)) = (authority.ledger(), places(key));
        let found = read(&*self.store, move |rows| {
            let position = rows.ledger(&ledger)?.map_or(0, |tail| tail.frontier.size());
            if rows.latest_end(from, to)?.is_none_or(|end| end < now) {
                return Ok(None);
            }
            Ok(Some((standings(rows, (from, to), choices, now)?, position)))
        });
        Ok(found.await?)
    }

    /// Makes one list; whether there is one.
    async fn make_status_list(
        &self,
        authority: &Authority,
        signer: &StatusSigner,
        key: ListKey,
        told: Option<(Standings, u64)>,
        now: Timestamp,
    ) -> Result<bool> {
        let Some((standings, position)) = told else {
            self.drop_status_list(key).await?;
            return Ok(false);
        };
        // Of an authority that is revoked nothing is good.
        let is_revoked = authority.record.state == AuthorityState::Revoked;
        let standings = if is_revoked { Standings::none_good(standings.count()) } else { standings };
        let last = read(&*self.store, move |rows| rows.list_number(&key)).await?;
        let seconds = |at: Timestamp| u64::try_from(at.0).unwrap_or(0);
        let (number, next_update) = (seconds(now).max(last.map_or(0, |last| last.saturating_add(1))), now + LIFETIME);
        let heading = Heading {
            key_id: signer.key_id,
            scope: scope(&self.trust_domain, authority.record.fleet.as_ref(), signer, &key),
            sequence: number,
            this_update: seconds(now),
            next_update: seconds(next_update),
        };
        let octets = encode(&heading, &standings, |message| signer.sign(message))
            .map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        let made = PublishedList { key, number, this_update: now, next_update, position, octets };
        if commit(&*self.store, PutList { list: made.clone() }).await? {
            let (size, certificates) = (made.octets.len(), standings.count());
            tracing::info!(
                authority = key.authority,
                epoch = key.epoch.0,
                slice = key.slice,
                number,
                certificates,
                size,
                "status list made"
            );
            metrics::counter!("fleetmark_status_lists_made_total").increment(1);
            let made = MadeList { list: made, key_id: signer.key_id, is_of_revoked: is_revoked, standings: Some(standings) };
            insert(&self.status.lists, key, made);
            return Ok(true);
        }
        // Another server made one with this number: take that.
        if let Some(list) = read(&*self.store, move |rows| rows.published_list(&key)).await? {
            let made = MadeList { list, key_id: signer.key_id, is_of_revoked: false, standings: None };
            insert(&self.status.lists, key, made);
        }
        Ok(false)
    }

    async fn drop_status_list(&self, key: ListKey) -> Result<()> {
        if self.status_list(&key).is_none() {
            return Ok(());
        }
        commit(&*self.store, DropList { key }).await?;
        self.status.lists.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.remove(&key);
            next
        });
        Ok(())
    }
}

/// Whether a list is to be made anew though no certificate changed: it is past half of its life, or from the future, since the clock was
/// set back; it was signed by a key that was replaced; or its authority was revoked since.
fn is_due(kept: &MadeList, signer: [u8; 8], is_revoked: bool, now: Timestamp) -> bool {
    let key = kept.list.key;
    let spread = LIFETIME.as_secs() / 8;
    let own =
        u64::from(key.authority).wrapping_mul(7_919) ^ u64::from(key.epoch.0).wrapping_mul(104_729) ^ u64::from(key.slice);
    let moment = kept.list.this_update + REFRESH + Duration::from_secs(own.wrapping_mul(2_654_435_761) % spread);
    moment <= now || kept.list.this_update > now || kept.key_id != signer || (is_revoked && !kept.is_of_revoked)
}

/// What a list is about. The installation's own authorities have no fleet: their lists name the trust domain alone.
fn scope(domain: &TrustDomain, fleet: Option<&FleetName>, signer: &StatusSigner, key: &ListKey) -> Scope {
    let name = format!("{domain}/{}", fleet.map_or("", |fleet| fleet.as_str())).to_ascii_lowercase();
    Scope {
        fleet: sha256(name.as_bytes()).first_chunk().copied().unwrap_or_default(),
        authority: signer.authority,
        epoch: key.epoch.0,
        slice: u16::try_from(key.slice).unwrap_or(u16::MAX),
    }
}

/// The certificates of a slice: the first id and the last.
fn places(key: &ListKey) -> (CertificateId, CertificateId) {
    let first = certificate_id(key.epoch, Index(key.slice << SLICE_SHIFT));
    (first, first + u64::from(SLICE_INDICES - 1))
}

fn is_good(standing: Standing, choices: Choices) -> bool {
    !standing.seen_by(View::StatusList, false, choices).is_listed()
}

/// Notes that `count` indices of an epoch from `first` on are good, or not, in each slice that they are in.
fn note(slices: &mut BTreeMap<(Epoch, u32), Vec<Change>>, (epoch, first, count): (Epoch, Index, u32), is_good: bool) {
    let (mut at, end) = (u64::from(first.0), u64::from(first.0) + u64::from(count));
    while at < end {
        let slice = at >> SLICE_SHIFT;
        let upto = end.min((slice + 1) << SLICE_SHIFT);
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let change = Change { first: number(at - (slice << SLICE_SHIFT)), count: number(upto - at), is_good };
        slices.entry((epoch, number(slice))).or_default().push(change);
        at = upto;
    }
}

/// What a list said, with what is new.
fn applied(standings: &Standings, changes: &[Change]) -> Standings {
    let end = |change: &Change| change.first.saturating_add(change.count);
    // What was never issued is in no entry, so the highest index that is told of was issued.
    let count = changes.iter().map(end).fold(standings.count(), u32::max);
    let mut next = Standings::none_good(count);
    for index in (0..standings.count()).filter(|index| standings.is_good(*index)) {
        next.set_good(index);
    }
    for change in changes {
        for index in change.first..end(change) {
            if change.is_good { next.set_good(index) } else { next.set_not_good(index) }
        }
    }
    next
}

/// Which indices are good, by the rows.
fn standings(
    rows: &mut dyn Rows,
    (from, to): (CertificateId, CertificateId),
    choices: Choices,
    now: Timestamp,
) -> std::result::Result<Standings, StoreError> {
    let (mut good, mut count, mut first) = (Vec::new(), 0, from);
    while first <= to {
        let last = to.min(first + (STANDINGS - 1));
        for certificate in rows.standings(first, last)? {
            let place = certificate_id(certificate.serial.epoch(), certificate.serial.index());
            let index = u32::try_from(place.saturating_sub(from)).unwrap_or(u32::MAX);
            count = count.max(index.saturating_add(1));
            if !certificate.standing.seen_by(View::StatusList, certificate.has_lapsed(now), choices).is_listed() {
                good.push(index);
            }
        }
        first = last + 1;
    }
    let mut standings = Standings::none_good(count);
    for index in good {
        standings.set_good(index);
    }
    Ok(standings)
}

#[cfg(test)]
mod tests;
