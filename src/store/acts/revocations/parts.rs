//! The parts of an order: found by a reading, done by a transaction each.

use std::collections::{BTreeMap, BTreeSet};

use fleetmark_domain::{CertificateEvent, LedgerName, Refusal, Standing, Timestamp};
use fleetmark_external::is_external;
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Event, IndexSet};

use super::lane;
use crate::store::acts::confirm::settle;
use crate::store::acts::external::say;
use crate::store::acts::standing::MAX_RANGES;
use crate::store::model::{Among, Certificate, Order, OrderState, Pick, Picked, Reach, Selector, SubjectId, SubjectState};
use crate::store::rows::{CertificateId, Rows, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// How many certificates a part has at most: for so long nobody else writes.
pub const PART: u32 = 2_000;
/// How many items of a list are looked up for a part.
pub const LISTED_AT_ONCE: usize = 500;

/// The standings that `change` makes another one of, by code.
pub fn applies_to(change: CertificateEvent) -> Vec<u8> {
    let becomes = |code: &u8| {
        let standing = Standing::from_code(*code, None);
        standing.is_some_and(|standing| standing.next(change).is_ok_and(|next| next.code() != standing.code()))
    };
    (0..=5).filter(becomes).collect()
}

/// What `change` makes of a certificate.
const fn outcome(change: CertificateEvent) -> Result<Standing, Refusal> {
    match change {
        CertificateEvent::Revoked(reason) => Ok(Standing::Revoked(reason)),
        CertificateEvent::Held => Ok(Standing::Held),
        CertificateEvent::Quarantined => Ok(Standing::Quarantined),
        CertificateEvent::Released => Ok(Standing::Good),
        _ => Err(Refusal::TransitionNotAllowed),
    }
}

/// The next part of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its certificates, ascending.
    pub certificates: Vec<CertificateId>,
    /// What was looked at by then: [`Order::place`].
    pub place: u64,
    /// Whether nothing follows.
    pub is_last: bool,
}

/// What of `order` comes next. A reading.
pub fn next_part(rows: &mut dyn Rows, order: &Order) -> Result<Part, StoreError> {
    let mut part = Part { certificates: Vec::new(), place: order.place, is_last: true };
    let chunk = |listed: &[u64]| {
        let from = usize::try_from(order.place).unwrap_or(usize::MAX);
        listed.get(from..).unwrap_or_default().iter().copied().take(LISTED_AT_ONCE).collect::<Vec<_>>()
    };
    let (among, count, all) = match &order.selector {
        Selector::Certificates(ids) => (Among::Certificates(chunk(ids)), chunk(ids).len(), ids.len()),
        Selector::Key(id, _) => (Among::Certificates(chunk(&[*id])), chunk(&[*id]).len(), 1),
        Selector::Subjects(ids) => (Among::Subjects(chunk(ids)), chunk(ids).len(), ids.len()),
        Selector::Where(condition) => {
            let pick = picking(order, Among::Where(condition.clone()));
            let found = rows.pick(&pick, order.place, PART)?;
            part.is_last = u32::try_from(found.len()).is_ok_and(|count| count < PART);
            part.certificates = found.iter().map(place_of).collect();
            part.place = part.certificates.last().copied().unwrap_or(order.place);
            return Ok(part);
        }
    };
    part.place = order.place.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    part.is_last = part.place >= u64::try_from(all).unwrap_or(u64::MAX);
    let mut after = 0;
    loop {
        let found = rows.pick(&picking(order, among.clone()), after, PART)?;
        part.certificates.extend(found.iter().map(place_of));
        match found.last() {
            Some(last) => after = place_of(last),
            None => return Ok(part),
        }
    }
}

/// How much `order` reaches now. A reading.
pub fn reach(rows: &mut dyn Rows, order: &Order) -> Result<Reach, StoreError> {
    let ids = match &order.selector {
        Selector::Where(condition) => return rows.reach(&picking(order, Among::Where(condition.clone()))),
        Selector::Certificates(ids) => Among::Certificates(ids.clone()),
        Selector::Key(id, _) => Among::Certificates(vec![*id]),
        Selector::Subjects(ids) => Among::Subjects(ids.clone()),
    };
    let mut holders = BTreeSet::new();
    let mut certificates = 0_u64;
    let chunks: Vec<Among> = match &ids {
        Among::Certificates(ids) => ids.chunks(LISTED_AT_ONCE).map(|ids| Among::Certificates(ids.to_vec())).collect(),
        Among::Subjects(ids) => ids.chunks(LISTED_AT_ONCE).map(|ids| Among::Subjects(ids.to_vec())).collect(),
        Among::Where(_) => Vec::new(),
    };
    for among in chunks {
        let pick = picking(order, among);
        let mut after = 0;
        loop {
            let found = rows.pick(&pick, after, PART)?;
            holders.extend(found.iter().map(|picked| picked.subject));
            certificates = certificates.saturating_add(u64::try_from(found.len()).unwrap_or(u64::MAX));
            match found.last() {
                Some(last) => after = place_of(last),
                None => break,
            }
        }
    }
    Ok(Reach { certificates, holders: u64::try_from(holders.len()).unwrap_or(u64::MAX) })
}

fn picking(order: &Order, among: Among) -> Pick {
    Pick { ledger: order.ledger.clone(), standings: applies_to(order.change), among }
}

fn place_of(picked: &Picked) -> CertificateId {
    certificate_id(picked.serial.epoch(), picked.serial.index())
}

/// Does a part of an order.
#[derive(Debug)]
pub struct DoPart {
    /// The order as it was when the part was found: where it has moved on since, nothing is done.
    pub order: Order,
    /// The part.
    pub part: Part,
    /// Who ordered it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for DoPart {
    /// The order as it is from here on; None where it moved on in between.
    type Outcome = Option<Order>;

    fn lane(&self) -> Lane {
        lane(self.order.change)
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.order.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Option<Order>, StoreError> {
        let order = transaction.rows.order(self.order.id)?.ok_or(Refusal::NotFound)?;
        if order.state != OrderState::Running || (order.sweep, order.place) != (self.order.sweep, self.order.place) {
            return Ok(None);
        }
        let standing = outcome(order.change)?;
        let mut found = self.picked(transaction.rows)?;
        let confirmed = match order.change {
            CertificateEvent::Released => confirming(transaction.rows, &mut found)?,
            _ => Vec::new(),
        };
        let changed = u64::try_from(found.len()).unwrap_or(u64::MAX);
        let found = heeded(transaction, found, standing)?;
        set_all(transaction, &order.ledger, &found, standing, &self.details, self.at)?;
        for (subject, certificate) in confirmed {
            let holder = transaction.rows.subject(subject)?.ok_or(StoreError::Unreadable { what: "subject" })?;
            let good = Certificate { standing: Standing::Good, changed_at: self.at, ..certificate };
            // An earlier one of the same part may have confirmed a newer generation.
            if good.generation > holder.confirmed_generation {
                settle(transaction, holder, None, &good, self.at)?;
            }
        }
        let next = self.advanced(Order { changed: order.changed.saturating_add(changed), ..order });
        transaction.rows.update_order(&next)?;
        Ok(Some(next))
    }
}

impl DoPart {
    /// The part's certificates that the change still applies to.
    fn picked(&self, rows: &mut dyn Rows) -> Result<Vec<Picked>, StoreError> {
        let mut found = Vec::with_capacity(self.part.certificates.len());
        for ids in self.part.certificates.chunks(LISTED_AT_ONCE) {
            let pick = picking(&self.order, Among::Certificates(ids.to_vec()));
            found.extend(rows.pick(&pick, 0, u32::MAX)?);
        }
        // Updates go by ranges, which want places that ascend.
        found.sort_unstable_by_key(place_of);
        found.dedup_by_key(|picked| place_of(picked));
        Ok(found)
    }

    /// Where the order goes on. After its first pass it looks at everything once more: a holder may have renewed before its turn
    /// came, and cannot any more.
    fn advanced(&self, order: Order) -> Order {
        if !self.part.is_last {
            return Order { place: self.part.place, ..order };
        }
        let is_list = matches!(order.selector, Selector::Certificates(_) | Selector::Key(..));
        if order.sweep || is_list || order.change == CertificateEvent::Released {
            return Order { state: OrderState::Done, place: self.part.place, ended_at: Some(self.at), ..order };
        }
        Order { sweep: true, place: 0, ..order }
    }
}

/// Of those to release: the newest of each holder that was never confirmed, which its release confirms. Those that only a release of
/// their own can confirm, since it ends a device in another fleet, are taken out, and those of holders that are out.
fn confirming(rows: &mut dyn Rows, found: &mut Vec<Picked>) -> Result<Vec<(SubjectId, Certificate)>, StoreError> {
    let mut newest: BTreeMap<SubjectId, Picked> = BTreeMap::new();
    for picked in found.iter().filter(|picked| picked.generation > picked.confirmed_generation) {
        let known = newest.entry(picked.subject).or_insert(*picked);
        if known.generation < picked.generation {
            *known = *picked;
        }
    }
    let mut kept = Vec::new();
    for (subject, picked) in newest {
        let holder = rows.subject(subject)?.ok_or(StoreError::Unreadable { what: "subject" })?;
        if holder.moved_from.is_some() || holder.state == SubjectState::Out {
            found.retain(|other| other.subject != subject || other.generation <= other.confirmed_generation);
        } else {
            let certificate = rows.certificate(place_of(&picked))?;
            kept.push((subject, certificate.ok_or(StoreError::Unreadable { what: "certificate" })?));
        }
    }
    Ok(kept)
}

/// Notes what we say of adopted ones; gives all whose standing changes by it, which is not so where their own authority says worse.
fn heeded(transaction: &mut Transaction<'_>, found: Vec<Picked>, standing: Standing) -> Result<Vec<Picked>, StoreError> {
    let mut changed = Vec::with_capacity(found.len());
    for picked in found {
        if !is_external(picked.authority) || say(transaction, place_of(&picked), standing)?.is_some() {
            changed.push(picked);
        }
    }
    Ok(changed)
}

/// Sets the standing of all of them, with one entry. They ascend.
fn set_all(
    transaction: &mut Transaction<'_>,
    ledger: &LedgerName,
    found: &[Picked],
    standing: Standing,
    details: &Details,
    at: Timestamp,
) -> Result<(), StoreError> {
    let places = found.iter().map(|picked| (picked.serial.epoch(), picked.serial.index()));
    let certificates = IndexSet::from_certificates(places);
    let mut changed = 0_u64;
    for range in certificates.ranges() {
        let first = certificate_id(range.epoch, range.first);
        let last = first.saturating_add(u64::from(range.count).saturating_sub(1));
        changed = changed.saturating_add(transaction.rows.set_standings(first, last, standing, at)?);
    }
    if changed != certificates.len() {
        return Err(StoreError::Unreadable { what: "certificate" });
    }
    for certificates in certificates.split(MAX_RANGES) {
        transaction.append(ledger, at, Event::StandingChanged { standing, certificates }, Some(details))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::RevocationReason;

    use super::*;

    #[test]
    fn a_change_is_for_the_standings_that_it_changes() {
        assert_eq!(applies_to(CertificateEvent::Revoked(RevocationReason::KeyCompromise)), [0, 1, 2, 3, 4]);
        assert_eq!(applies_to(CertificateEvent::Held), [0, 1, 4]);
        assert_eq!(applies_to(CertificateEvent::Quarantined), [0, 1, 3]);
        assert_eq!(applies_to(CertificateEvent::Released), [3, 4]);
        for change in [CertificateEvent::Confirmed, CertificateEvent::Lapsed, CertificateEvent::Succeeded] {
            assert!(outcome(change).is_err(), "no order does that");
        }
    }
}
