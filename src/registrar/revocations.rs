//! Orders: many certificates revoked, held, quarantined or released at once, by whatever they have in common.
//!
//! - `select`: from what an operator says to what the store is asked.
//! - `work`: the server does what was ordered, part by part.

mod select;
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use fleetmark_domain::{
    Action, CertificateEvent, Fingerprint, FleetName, KeyHash, Kind, LedgerName, Name, Refusal, Serial, Timestamp,
};
use tokio::sync::Notify;

use super::caller::Caller;
use super::standing::{Change, checked_note};
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::acts::limits::{Usage, usage};
use crate::store::acts::revocations::{ApproveOrder, CancelOrder, MOST_OPEN, PlaceOrder, needs_approval, reach};
use crate::store::model::{AuthorityId, Order, OrderId, OrderState, Reach, SubjectId, SubjectState};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};
pub use select::MAX_LISTED;

/// How far ahead an order may be scheduled.
const LONGEST_AHEAD: Duration = Duration::from_secs(366 * 86_400);
/// How many bits of an order's id are random.
const RANDOM_BITS: u32 = 31;

/// An order to give, or to try.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Whose devices; None where a certificate, a public key or an authority tells.
    pub fleet: Option<FleetName>,
    /// What is to happen.
    pub change: Change,
    /// To which certificates.
    pub select: Select,
    /// For the ledger's details; at most 1,024 characters.
    pub note: String,
    /// Not before this; None: now.
    pub at: Option<Timestamp>,
}

/// Which certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// These.
    Certificates(Vec<Serial>),
    /// All of these devices'.
    Devices(Vec<Name>),
    /// All of the devices' that came in by this enrollment group.
    Group(Name),
    /// All of the devices' that came in by a group that takes certificates of this maker's CA, whose own certificate has this
    /// fingerprint.
    Maker(Fingerprint),
    /// The one of this public key.
    PublicKey(KeyHash),
    /// All that this authority issued.
    Authority(AuthorityId),
    /// All that meet conditions.
    Query(Query),
}

/// Conditions, which hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// The device's name is like this, without regard to case; `*` stands for any text.
    pub name: Option<String>,
    /// The device has these attributes.
    pub attributes: BTreeMap<String, String>,
    /// The device is in this state.
    pub state: Option<SubjectState>,
    /// The device came in by this enrollment group.
    pub group: Option<Name>,
    /// The certificate is of this standing, by its name.
    pub standing: Option<String>,
    /// It was issued before this.
    pub issued_before: Option<Timestamp>,
    /// It was issued at or after this.
    pub issued_after: Option<Timestamp>,
    /// It ends before this.
    pub ends_before: Option<Timestamp>,
    /// There is no condition: all of the fleet.
    pub everything: bool,
}

/// An order, with names.
#[derive(Debug, Clone)]
pub struct OrderView {
    /// As it is kept.
    pub order: Order,
    /// Who ordered it.
    pub ordered_by: Name,
    /// Who approved it.
    pub approved_by: Option<Name>,
    /// Who cancelled it.
    pub cancelled_by: Option<Name>,
}

/// What an order would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// In which ledger it would be written.
    pub ledger: LedgerName,
    /// Which certificates, for people.
    pub selection: String,
    /// How much it reaches.
    pub reach: Reach,
    /// Whether a second operator would have to approve it.
    pub needs_approval: bool,
    /// What the caller changed of the fleet in the last hour, and may; None where the order is no fleet's.
    pub usage: Option<Usage>,
}

/// Wakes the job that works on orders, and knows when the lists were last told of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    changed: Notify,
    told: AtomicI64,
}

impl Registrar {
    /// Counts what an order would reach, and does nothing.
    ///
    /// # Errors
    /// See [`Self::order`].
    pub async fn preview(&self, caller: &Caller, new: NewOrder, now: Timestamp) -> Result<Preview> {
        let draft = self.draft_order(caller, new, now).await?;
        let counted = draft.clone();
        let (needs_approval, usage) = read(&*self.store, move |rows| {
            let usage = match &counted.ledger {
                LedgerName::Fleet(fleet) => Some(usage(rows, counted.ordered_by, fleet, now)?),
                LedgerName::System => None,
            };
            Ok((needs_approval(rows, &counted, now)?, usage))
        })
        .await?;
        let reach = Reach { certificates: draft.certificates, holders: draft.devices };
        Ok(Preview { ledger: draft.ledger, selection: draft.selection, reach, needs_approval, usage })
    }

    /// Orders a change of standing of many certificates. It begins at once, or at its time; beyond what the caller may change alone
    /// it waits for a second operator.
    ///
    /// # Errors
    /// `NotPermitted`, `FleetUnknown`; `NotFound`, `DeviceUnknown` for something named that is not there; `InvalidValue`;
    /// `TooManyRequests` where 100 orders of the fleet are open.
    pub async fn order(
        &self,
        caller: &Caller,
        new: NewOrder,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<OrderView> {
        let draft = self.draft_order(caller, new, now).await?;
        let (id, ledger) = (draft.id, draft.ledger.clone());
        let repeatable = idempotency.map(|key| key.repeatable(caller, id.to_string(), now));
        let placed = commit(&*self.store, PlaceOrder { order: draft, repeatable, at: now }).await;
        let order = placed.map_err(|error| match Error::from(error) {
            Error { refusal: Refusal::TooManyRequests, .. } => {
                let detail = format!("{MOST_OPEN} orders of {ledger} are open: wait for them, or cancel some.");
                Error::with_detail(Refusal::TooManyRequests, detail)
            }
            error => error,
        })?;
        if order.id == id {
            self.tell_of_order(&order, now);
        }
        self.orders.changed.notify_one();
        self.order_view(order).await
    }

    /// Orders, the newest first.
    pub async fn orders(
        &self,
        caller: &Caller,
        fleet: Option<FleetName>,
        state: Option<OrderState>,
        page: &PageRequest,
    ) -> Result<Page<OrderView>> {
        caller.may(Action::Read, fleet.as_ref())?;
        let ledgers = match (fleet, &caller.subject.grants) {
            (Some(fleet), _) => Some(vec![LedgerName::Fleet(fleet)]),
            (None, None) => None,
            (None, Some(grants)) => Some(grants.iter().cloned().map(LedgerName::Fleet).chain([LedgerName::System]).collect()),
        };
        let (before, limit) = (page.after()?, page.limit);
        let before = if before == 0 { u64::MAX } else { before };
        let views = read(&*self.store, move |rows| {
            let mut names = BTreeMap::new();
            let orders = rows.orders(ledgers.as_deref(), state, before, limit)?;
            orders.into_iter().map(|order| view(rows, &mut names, order)).collect::<std::result::Result<Vec<_>, _>>()
        });
        Ok(Page::of(views.await?, limit, |last| last.order.id.to_string()))
    }

    /// One order.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn order_of(&self, caller: &Caller, id: OrderId) -> Result<OrderView> {
        caller.may(Action::Read, None)?;
        let order = self.visible_order(caller, id).await?;
        self.order_view(order).await
    }

    /// Approves an order that waits for it. It begins at once, or at its time. The approval covers the devices counted now, and a
    /// tenth (or ten) more. The same approval again changes nothing.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`; `TransitionNotAllowed` where it waits no more.
    pub async fn approve_order(&self, caller: &Caller, id: OrderId, now: Timestamp) -> Result<OrderView> {
        let order = self.order_to_decide(caller, id).await?;
        if order.ordered_by == caller.subject.id {
            return Err(Error::with_detail(Refusal::NotPermitted, "Nobody approves their own order; ask another operator."));
        }
        self.may_at_its_time(caller, &order, now).await?;
        let counted = order.clone();
        let reach = read(&*self.store, move |rows| reach(rows, &counted)).await?;
        let act = ApproveOrder { id, ledger: order.ledger, reach, by: caller.subject.id, at: now };
        let order = commit(&*self.store, act).await.map_err(|error| closed(error, "is not, or no more, awaiting approval"))?;
        tracing::info!(order = %shown(id), by = caller.actor(self), "an order is approved");
        self.tell_of_order(&order, now);
        self.orders.changed.notify_one();
        self.order_view(order).await
    }

    /// Cancels an order that is not done. What was done of it stays done.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`; `TransitionNotAllowed` where it has ended.
    pub async fn cancel_order(&self, caller: &Caller, id: OrderId, now: Timestamp) -> Result<OrderView> {
        let order = self.order_to_decide(caller, id).await?;
        let act = CancelOrder { id, ledger: order.ledger, by: caller.subject.id, at: now };
        let order = commit(&*self.store, act).await.map_err(|error| closed(error, "has ended"))?;
        tracing::info!(order = %shown(id), by = caller.actor(self), "an order is cancelled");
        if order.changed > 0 {
            self.published.standing_changed();
        }
        self.order_view(order).await
    }

    /// An order as a draft, with what it reaches now.
    async fn draft_order(&self, caller: &Caller, new: NewOrder, now: Timestamp) -> Result<Order> {
        let NewOrder { fleet, change, select, note, at } = new;
        let note = checked_note(&note)?.unwrap_or_default();
        if at.is_some_and(|at| at > now + LONGEST_AHEAD) {
            return Err(Error::with_detail(Refusal::InvalidValue, "at: at most 366 days from now."));
        }
        let selected = self.select(caller, fleet, &select).await?;
        let random = u64::from(u32::from_be_bytes(self.random()?) >> (u32::BITS - RANDOM_BITS));
        let order = Order {
            id: (u64::try_from(now.0).unwrap_or(0) << RANDOM_BITS) | random,
            ledger: selected.ledger,
            state: OrderState::Running,
            change: event_of(change),
            selector: selected.selector,
            selection: selected.shown,
            note,
            ordered_by: caller.subject.id,
            ordered_at: now,
            approved_by: None,
            approved_at: None,
            cancelled_by: None,
            runs_at: at.unwrap_or(now).max(now),
            expires_at: None,
            devices: 0,
            certificates: 0,
            covered: 0,
            sweep: false,
            place: 0,
            changed: 0,
            started_at: None,
            ended_at: None,
            failure: String::new(),
        };
        let counted = order.clone();
        self.may_at_its_time(caller, &order, now).await?;
        let Reach { certificates, holders } = read(&*self.store, move |rows| reach(rows, &counted)).await?;
        Ok(Order { certificates, devices: holders, ..order })
    }

    /// An order that the caller may decide about.
    async fn order_to_decide(&self, caller: &Caller, id: OrderId) -> Result<Order> {
        caller.may(Action::Read, None)?;
        let order = self.visible_order(caller, id).await?;
        for action in self.actions_for(&order).await? {
            caller.may(action, fleet_of(&order.ledger))?;
        }
        Ok(order)
    }

    /// What runs later is judged again then, when nobody's address is known: what would be refused for that is refused now.
    async fn may_at_its_time(&self, caller: &Caller, order: &Order, now: Timestamp) -> Result<()> {
        if order.runs_at <= now {
            return Ok(());
        }
        let later = Caller { source: None, ..caller.clone() };
        for action in self.actions_for(order).await? {
            later.may(action, fleet_of(&order.ledger)).map_err(|error| {
                Error::with_detail(
                    error.refusal,
                    "at: no address is known then, and the policies do not permit it without one.",
                )
            })?;
        }
        Ok(())
    }

    async fn visible_order(&self, caller: &Caller, id: OrderId) -> Result<Order> {
        let order = read(&*self.store, move |rows| rows.order(id)).await?.ok_or(Refusal::NotFound)?;
        if fleet_of(&order.ledger).is_some_and(|fleet| !caller.reaches(fleet)) {
            return Err(Refusal::NotFound.into());
        }
        Ok(order)
    }

    async fn order_view(&self, order: Order) -> Result<OrderView> {
        Ok(read(&*self.store, move |rows| view(rows, &mut BTreeMap::new(), order)).await?)
    }

    /// Log and metric of where an order came to; an alarm where somebody should look at it.
    fn tell_of_order(&self, order: &Order, now: Timestamp) {
        let state = order.state.as_str();
        metrics::counter!("fleetmark_revocation_orders_total", "state" => state).increment(1);
        let (id, ledger, devices) = (shown(order.id), &order.ledger, order.devices);
        tracing::info!(order = %id, %ledger, state, devices, certificates = order.certificates, selection = order.selection,
            "an order");
        let about = format!("order {id}: {} for {devices} holders ({})", order.change.as_str(), order.selection);
        match order.state {
            OrderState::AwaitingApproval => {
                let what = format!("{about} waits for a second operator");
                self.raise("blast_radius", order.ledger.clone(), order.ordered_by, &what, now);
            }
            OrderState::Failed => {
                let what = format!("{about} did not run: {}", order.failure);
                self.raise("order_failed", order.ledger.clone(), order.ordered_by, &what, now);
            }
            OrderState::Expired => {
                let what = format!("{about} was approved by nobody");
                self.raise("order_expired", order.ledger.clone(), order.ordered_by, &what, now);
            }
            _ => {}
        }
    }
}

/// What it takes to change the standing of holders of this kind.
const fn action_for(kind: Kind) -> Action {
    match kind {
        Kind::Device => Action::ChangeStanding,
        Kind::Gateway | Kind::Service => Action::ManageGateways,
        Kind::Operator => Action::ManageOperators,
    }
}

/// An order's id as people and programs see it: 16 hexadecimal digits.
pub fn shown(id: OrderId) -> String {
    format!("{id:016x}")
}

const fn fleet_of(ledger: &LedgerName) -> Option<&FleetName> {
    match ledger {
        LedgerName::Fleet(fleet) => Some(fleet),
        LedgerName::System => None,
    }
}

const fn event_of(change: Change) -> CertificateEvent {
    match change {
        Change::Revoke(reason) => CertificateEvent::Revoked(reason),
        Change::Hold => CertificateEvent::Held,
        Change::Quarantine => CertificateEvent::Quarantined,
        Change::Release => CertificateEvent::Released,
    }
}

fn closed(error: StoreError, why: &str) -> Error {
    match Error::from(error) {
        Error { refusal: Refusal::TransitionNotAllowed, .. } => {
            Error::with_detail(Refusal::TransitionNotAllowed, format!("The order {why}."))
        }
        error => error,
    }
}

type Names = BTreeMap<SubjectId, Name>;

fn view(rows: &mut dyn Rows, names: &mut Names, order: Order) -> std::result::Result<OrderView, StoreError> {
    let mut name = |id: SubjectId| {
        if let Some(name) = names.get(&id) {
            return Ok(name.clone());
        }
        let name = rows.subject(id)?.ok_or(StoreError::Unreadable { what: "order" })?.name;
        names.insert(id, name.clone());
        Ok::<_, StoreError>(name)
    };
    Ok(OrderView {
        ordered_by: name(order.ordered_by)?,
        approved_by: order.approved_by.map(&mut name).transpose()?,
        cancelled_by: order.cancelled_by.map(&mut name).transpose()?,
        order,
    })
}
