//! Orders: many certificates revoked, held, quarantined or released by one act of an operator.
//!
//! An order is done in parts, each a transaction of its own with its ledger entry. How far it is stands in its row, in the same
//! transaction, so that after whatever interruption it goes on where it stopped, and does nothing twice. What a part holds is found
//! by a reading beforehand; the transaction looks at standings alone, and never at all of a fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetmark_domain::{CertificateEvent, LedgerName, Refusal, RevocationReason, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Event, IndexSet};

use super::confirm::settle;
use super::limits::fits;
use super::standing::MAX_RANGES;
use super::{Repeatable, made_before, remember};
use crate::store::model::{
    Among, BlockedKey, Certificate, Order, OrderId, OrderState, Pick, Picked, Reach, Selector, SubjectId, SubjectState,
};
use crate::store::rows::{CertificateId, Rows, certificate_id};
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// How many certificates a part has at most. In a release build on a small machine that keeps the writer for some 30 ms.
pub const PART: u32 = 2_000;
/// How many items of a list are looked up for a part.
pub const LISTED_AT_ONCE: usize = 500;
/// The most orders of one ledger that wait or run.
pub const MOST_OPEN: u64 = 100;
/// How long an order waits for a second operator.
pub const APPROVAL_HOLDS: Duration = Duration::from_secs(86_400);
/// How many holders that are no devices one operator may order something for alone.
const HOLDERS_ALONE: u64 = 10;
/// An approval covers so many devices more than were counted for it, or a tenth more.
const LEAST_MORE: u64 = 10;

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
    let mut holders = std::collections::BTreeSet::new();
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
    let mut standings = applies_to(order.change);
    if let Among::Where(condition) = &among
        && let Some(wanted) = condition.standing
    {
        standings.retain(|standing| *standing == wanted);
    }
    Pick { ledger: order.ledger.clone(), standings, among }
}

fn place_of(picked: &Picked) -> CertificateId {
    certificate_id(picked.serial.epoch(), picked.serial.index())
}

fn lane(change: CertificateEvent) -> Lane {
    if change == CertificateEvent::Released { Lane::Ordinary } else { Lane::Urgent }
}

/// Whether the one who ordered it may do that alone, now.
fn fits_alone(rows: &mut dyn Rows, order: &Order, at: Timestamp) -> Result<bool, StoreError> {
    match &order.ledger {
        LedgerName::Fleet(fleet) => fits(rows, order.ordered_by, fleet, order.devices, at),
        LedgerName::System => Ok(order.devices <= HOLDERS_ALONE),
    }
}

/// Begins it. What one operator does alone counts against its limit; what two do, against nobody's.
fn begin(rows: &mut dyn Rows, order: Order, at: Timestamp) -> Result<Order, StoreError> {
    if let (LedgerName::Fleet(fleet), None) = (&order.ledger, order.approved_by)
        && order.devices > 0
    {
        rows.count_touched(order.ordered_by, fleet, at, order.devices)?;
    }
    // The one certificate of a key that somebody else has must not be followed by another one.
    if let (Selector::Key(_, key), CertificateEvent::Revoked(RevocationReason::KeyCompromise)) = (&order.selector, order.change)
    {
        let reason = RevocationReason::KeyCompromise.to_string();
        rows.block_key(&BlockedKey { key_hash: *key, reason, blocked_at: at, blocked_by: order.ordered_by })?;
    }
    Ok(Order { state: OrderState::Running, started_at: Some(at), expires_at: None, ..order })
}

fn awaiting(order: Order, at: Timestamp) -> Order {
    let expires_at = Some(at + APPROVAL_HOLDS);
    Order { state: OrderState::AwaitingApproval, approved_by: None, approved_at: None, covered: 0, expires_at, ..order }
}

/// Takes an order down; what may run at once begins.
#[derive(Debug)]
pub struct PlaceOrder {
    /// The order, with what it reaches now; its state is set here.
    pub order: Order,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Now.
    pub at: Timestamp,
}

impl Act for PlaceOrder {
    /// As it is kept.
    type Outcome = Order;

    fn lane(&self) -> Lane {
        lane(self.order.change)
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.order.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Order, StoreError> {
        let rows = &mut *transaction.rows;
        if let Some(id) = made_before(rows, self.repeatable.as_ref())? {
            let id = id.parse().map_err(|_| StoreError::Unreadable { what: "order" })?;
            return rows.order(id)?.ok_or_else(|| Refusal::NotFound.into());
        }
        if rows.open_orders(&self.order.ledger)? >= MOST_OPEN {
            return Err(Refusal::TooManyRequests.into());
        }
        let order = self.order.clone();
        let order = if !fits_alone(rows, &order, self.at)? {
            awaiting(order, self.at)
        } else if order.runs_at > self.at {
            Order { state: OrderState::Scheduled, ..order }
        } else {
            begin(rows, order, self.at)?
        };
        rows.insert_order(&order)?;
        remember(rows, self.repeatable.as_ref())?;
        Ok(order)
    }
}

/// Whether an order would wait for a second operator, and the limits that say so. A reading.
pub fn needs_approval(rows: &mut dyn Rows, order: &Order, at: Timestamp) -> Result<bool, StoreError> {
    match &order.ledger {
        LedgerName::Fleet(fleet) => {
            let usage = super::limits::usage(rows, order.ordered_by, fleet, at)?;
            Ok(usage.used.saturating_add(order.devices) > usage.limit && order.devices > 0)
        }
        LedgerName::System => Ok(order.devices > HOLDERS_ALONE),
    }
}

/// A second operator approves an order. A repeat changes nothing.
#[derive(Debug)]
pub struct ApproveOrder {
    /// Which.
    pub id: OrderId,
    /// Its ledger.
    pub ledger: LedgerName,
    /// What it reaches now.
    pub reach: Reach,
    /// Who approves it.
    pub by: SubjectId,
    /// Now.
    pub at: Timestamp,
}

impl Act for ApproveOrder {
    type Outcome = Order;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Order, StoreError> {
        let rows = &mut *transaction.rows;
        let order = rows.order(self.id)?.ok_or(Refusal::NotFound)?;
        if order.ordered_by == self.by {
            return Err(Refusal::NotPermitted.into());
        }
        if order.approved_by == Some(self.by) && order.state != OrderState::AwaitingApproval {
            return Ok(order);
        }
        let holds = order.expires_at.is_some_and(|end| self.at < end);
        if order.state != OrderState::AwaitingApproval || !holds {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        let order = Order {
            approved_by: Some(self.by),
            approved_at: Some(self.at),
            covered: self.reach.holders,
            devices: self.reach.holders,
            certificates: self.reach.certificates,
            expires_at: None,
            ..order
        };
        let order = if order.runs_at > self.at {
            Order { state: OrderState::Scheduled, ..order }
        } else {
            begin(rows, order, self.at)?
        };
        rows.update_order(&order)?;
        Ok(order)
    }
}

/// Ends an order that is not done. What was done of it stays done.
#[derive(Debug)]
pub struct CancelOrder {
    /// Which.
    pub id: OrderId,
    /// Its ledger.
    pub ledger: LedgerName,
    /// Who cancels it.
    pub by: SubjectId,
    /// Now.
    pub at: Timestamp,
}

impl Act for CancelOrder {
    type Outcome = Order;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Order, StoreError> {
        let order = transaction.rows.order(self.id)?.ok_or(Refusal::NotFound)?;
        if order.state == OrderState::Cancelled {
            return Ok(order);
        }
        if !order.state.is_open() {
            return Err(Refusal::TransitionNotAllowed.into());
        }
        let ended = Order { state: OrderState::Cancelled, cancelled_by: Some(self.by), ended_at: Some(self.at), ..order };
        transaction.rows.update_order(&ended)?;
        Ok(ended)
    }
}

/// The time of a scheduled order has come.
#[derive(Debug)]
pub struct StartOrder {
    /// Which.
    pub id: OrderId,
    /// Its ledger.
    pub ledger: LedgerName,
    /// What it reaches now.
    pub reach: Reach,
    /// Why it may not run: who ordered it has lost the right.
    pub refusal: Option<Refusal>,
    /// Now.
    pub at: Timestamp,
}

impl Act for StartOrder {
    /// As it is from here on; None where it was started, or cancelled, in between.
    type Outcome = Option<Order>;

    fn lane(&self) -> Lane {
        Lane::Urgent
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Option<Order>, StoreError> {
        let rows = &mut *transaction.rows;
        let order = rows.order(self.id)?.ok_or(Refusal::NotFound)?;
        if order.state != OrderState::Scheduled || self.at < order.runs_at {
            return Ok(None);
        }
        let Reach { certificates, holders } = self.reach;
        let order = Order { devices: holders, certificates, ..order };
        let order = match self.refusal {
            Some(refusal) => {
                let failure = refusal.code().to_owned();
                Order { state: OrderState::Failed, failure, ended_at: Some(self.at), ..order }
            }
            None if is_covered(rows, &order, self.at)? => begin(rows, order, self.at)?,
            None => awaiting(order, self.at),
        };
        rows.update_order(&order)?;
        Ok(Some(order))
    }
}

/// Whether its approval, or else its operator's limit, covers what it reaches by now.
fn is_covered(rows: &mut dyn Rows, order: &Order, at: Timestamp) -> Result<bool, StoreError> {
    if order.approved_by.is_none() {
        return fits_alone(rows, order, at);
    }
    let more = LEAST_MORE.max(order.covered / 10);
    Ok(order.devices <= order.covered.saturating_add(more))
}

/// An order that nobody approved in time ends.
#[derive(Debug)]
pub struct ExpireOrder {
    /// Which.
    pub id: OrderId,
    /// Now.
    pub at: Timestamp,
}

impl Act for ExpireOrder {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let order = transaction.rows.order(self.id)?.ok_or(Refusal::NotFound)?;
        let is_over = order.expires_at.is_some_and(|end| end <= self.at);
        if order.state != OrderState::AwaitingApproval || !is_over {
            return Ok(());
        }
        transaction.rows.update_order(&Order { state: OrderState::Expired, ended_at: Some(self.at), ..order })
    }
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
        let changed = set_all(transaction, &order.ledger, &found, standing, &self.details, self.at)?;
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

/// Sets the standing of all of them, with one entry. They ascend.
fn set_all(
    transaction: &mut Transaction<'_>,
    ledger: &LedgerName,
    found: &[Picked],
    standing: Standing,
    details: &Details,
    at: Timestamp,
) -> Result<u64, StoreError> {
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
    Ok(changed)
}

#[cfg(test)]
mod tests {
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
