//! The server does what was ordered, part by part.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use fleetmark_domain::{Action, FleetName, Refusal, RevocationReason, Standing, Timestamp};
use fleetmark_ledger::details::Details;

use super::{fleet_of, shown};
use crate::registrar::caller::Caller;
use crate::registrar::subjects::identity_of;
use crate::registrar::{Registrar, Result};
use crate::store::acts::revocations::{DoPart, ExpireOrder, StartOrder, next_part, reach};
use crate::store::model::{Certificate, Order, OrderId, OrderState, Subject, SubjectId, SubjectState};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, read};

/// How many orders are looked at in one go.
const AT_ONCE: u32 = 64;

impl Registrar {
    /// Completes when an order was given or approved since the last time.
    pub async fn order_given(&self) {
        self.orders.changed.notified().await;
    }

    /// Takes each order a step further: one that runs by a part, one whose time has come begins, one that nobody approved in time
    /// ends. Returns whether there is more to do at once. An order that cannot go on keeps no other from it.
    ///
    /// # Errors
    /// The first failure, after all orders were tried.
    pub async fn work_on_orders(&self, now: Timestamp) -> Result<bool> {
        let due = read(&*self.store, move |rows| rows.due_orders(now, AT_ONCE)).await?;
        let mut is_more = false;
        let mut failure = None;
        for (id, state) in due {
            match self.work_on(id, state, now).await {
                Ok(goes_on) => is_more |= goes_on,
                Err(error) => {
                    tracing::warn!(order = %shown(id), code = error.refusal.code(), cause = error.chain(), "an order waits");
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(is_more), Err)
    }

    async fn work_on(&self, id: OrderId, state: OrderState, now: Timestamp) -> Result<bool> {
        match state {
            OrderState::Running => self.do_part(id, now).await,
            OrderState::Scheduled => self.start(id, now).await,
            _ => {
                let ledger = read(&*self.store, move |rows| rows.order(id)).await?.ok_or(Refusal::NotFound)?.ledger;
                if let Some(order) = commit(&*self.store, ExpireOrder { id, ledger, at: now }).await? {
                    self.tell_of_order(&order, now);
                }
                Ok(false)
            }
        }
    }

    async fn do_part(&self, id: OrderId, now: Timestamp) -> Result<bool> {
        let (order, part, people) = read(&*self.store, move |rows| {
            let order = rows.order(id)?.ok_or(Refusal::NotFound)?;
            let people = (rows.subject(order.ordered_by)?, order.approved_by.map(|id| rows.subject(id)).transpose()?.flatten());
            Ok((order.clone(), next_part(rows, &order)?, people))
        })
        .await?;
        let details = self.order_details(&order, people.0.as_ref(), people.1.as_ref())?;
        let done = commit(&*self.store, DoPart { order, part, details, at: now }).await?;
        let Some(order) = done else { return Ok(true) };
        let is_done = order.state != OrderState::Running;
        // Gateways have learnt of each part. Lists are made anew once a second at most: they are written whole.
        if is_done || self.orders.told.swap(now.0, Ordering::Relaxed) != now.0 {
            self.published.standing_changed();
        }
        if is_done {
            tracing::info!(order = %shown(order.id), changed = order.changed, "an order is done");
            self.tell_of_order(&order, now);
        }
        Ok(!is_done)
    }

    /// What an auditor reads of each part: who ordered it, who approved it, and why.
    fn order_details(&self, order: &Order, by: Option<&Subject>, approved_by: Option<&Subject>) -> Result<Details> {
        let uri = |subject: &Subject| identity_of(subject).map(|identity| identity.uri(&self.trust_domain));
        let actor = by.map(uri).transpose()?.unwrap_or_else(|| "fleetmark".to_owned());
        let mut note = format!("order {}: {}", shown(order.id), order.selection);
        if let Some(approved_by) = approved_by {
            note = format!("{note}; approved by {}", uri(approved_by)?);
        }
        if !order.note.is_empty() {
            note = format!("{note}; {}", order.note);
        }
        self.details(actor, None, reason_of(order), Some(note))
    }

    /// Begins a scheduled order, unless who ordered it has lost the right since.
    async fn start(&self, id: OrderId, now: Timestamp) -> Result<bool> {
        let (order, reach, people) = read(&*self.store, move |rows| {
            let order = rows.order(id)?.ok_or(Refusal::NotFound)?;
            let people: Vec<_> = [Some(order.ordered_by), order.approved_by].into_iter().flatten().collect();
            let people = people.into_iter().map(|id| person(rows, id)).collect::<std::result::Result<Vec<_>, _>>()?;
            Ok((order.clone(), reach(rows, &order)?, people))
        })
        .await?;
        let actions = self.actions_for(&order).await?;
        let mut refusal = None;
        for person in people {
            if !self.may_still(person, &actions, fleet_of(&order.ledger), now)? {
                refusal = Some(Refusal::NotPermitted);
            }
        }
        let act = StartOrder { id, ledger: order.ledger.clone(), reach, refusal, at: now };
        let Some(order) = commit(&*self.store, act).await? else { return Ok(false) };
        self.tell_of_order(&order, now);
        Ok(order.state == OrderState::Running)
    }

    /// Whether a person has these rights now, as if asking with the newest certificate; from which address, nobody knows.
    /// That the certificate ended since stops no order: it was given while it held, and a recall must not wait for a renewal.
    fn may_still(
        &self,
        (subject, certificate): Person,
        actions: &BTreeSet<Action>,
        fleet: Option<&FleetName>,
        now: Timestamp,
    ) -> Result<bool> {
        let stands = |certificate: &Certificate| matches!(certificate.standing, Standing::Good | Standing::Superseded);
        let Some(certificate) = certificate.filter(stands).filter(|_| subject.state != SubjectState::Out) else {
            return Ok(false);
        };
        let (identity, policies) = (identity_of(&subject)?, self.policies());
        let caller = Caller { identity, subject, certificate, at: now, source: None, policies };
        Ok(actions.iter().all(|action| caller.may(*action, fleet).is_ok()))
    }
}

/// An operator with its newest confirmed certificate.
type Person = (Subject, Option<Certificate>);

fn person(rows: &mut dyn Rows, id: SubjectId) -> std::result::Result<Person, StoreError> {
    let subject = rows.subject(id)?.ok_or(StoreError::Unreadable { what: "subject" })?;
    let certificate = rows.certificate_of(id, subject.confirmed_generation)?;
    Ok((subject, certificate))
}

fn reason_of(order: &Order) -> Option<RevocationReason> {
    match order.change {
        fleetmark_domain::CertificateEvent::Revoked(reason) => Some(reason),
        _ => None,
    }
}
