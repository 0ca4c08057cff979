//! Orders: many certificates revoked, held, quarantined or released by one act of an operator.
//!
//! An order is done in parts, each a transaction of its own with its ledger entry. How far it is stands in its row, in the same
//! transaction, so that after whatever interruption it goes on where it stopped, and does nothing twice. What a part holds is found
//! by a reading beforehand; the transaction looks at standings alone, and never at all of a fleet ([`DoPart`]).

mod parts;

use std::time::Duration;

use fleetmark_domain::{CertificateEvent, LedgerName, Refusal, RevocationReason, Timestamp};

use super::limits::fits;
use super::{Repeatable, made_before, remember};
use crate::store::model::{BlockedKey, Order, OrderId, OrderState, Reach, Selector, SubjectId};
use crate::store::rows::Rows;
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};
pub use parts::{DoPart, LISTED_AT_ONCE, PART, Part, applies_to, next_part, reach};

/// The most orders of one ledger that wait or run.
pub const MOST_OPEN: u64 = 100;
/// How long an order waits for a second operator.
pub const APPROVAL_HOLDS: Duration = Duration::from_secs(86_400);
/// How many holders that are no devices one operator may order something for alone.
const HOLDERS_ALONE: u64 = 10;
/// An approval covers so many devices more than were counted for it, or a tenth more.
const LEAST_MORE: u64 = 10;

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
    /// Its ledger.
    pub ledger: LedgerName,
    /// Now.
    pub at: Timestamp,
}

impl Act for ExpireOrder {
    /// As it is from here on; None where it was approved, or cancelled, in between.
    type Outcome = Option<Order>;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Option<Order>, StoreError> {
        let order = transaction.rows.order(self.id)?.ok_or(Refusal::NotFound)?;
        let is_over = order.expires_at.is_some_and(|end| end <= self.at);
        if order.state != OrderState::AwaitingApproval || !is_over {
            return Ok(None);
        }
        let expired = Order { state: OrderState::Expired, ended_at: Some(self.at), ..order };
        transaction.rows.update_order(&expired)?;
        Ok(Some(expired))
    }
}
