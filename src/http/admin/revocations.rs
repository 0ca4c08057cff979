//! `/v1/revocations`

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, get, post, web};
use fleetmark_domain::{CertificateEvent, FleetName, Name, Refusal, RevocationReason};
use serde::Deserialize;
use utoipa::IntoParams;

use super::certificates::MAX_REMARK;
use super::extract::{By, IdempotencyKey, Json, Path, Query, name, page, refuse, text};
use super::openapi::{Act, Delete, List, Look};
use super::{Answer, created, ok, page_of, schema, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::revocations::{NewOrder, OrderView, Preview, Select, shown};
use crate::registrar::standing::Change;
use crate::registrar::{Idempotency, revocations};
use crate::store::model::{OrderId, OrderState, SubjectState};

/// The largest body: 10,000 names or serials fit.
const MAX_BODY: usize = 1 << 20;

/// An order in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct OrderPath {
    /// The order's id: 16 hexadecimal digits.
    pub id: String,
}

/// Which orders, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct OrdersQuery {
    /// Of this fleet.
    #[param(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// In this state.
    pub state: Option<wire::OrderState>,
    /// Where the page begins, as the page before said.
    pub cursor: Option<String>,
    /// At most so many items; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// An order in a body of at most [`MAX_BODY`] octets.
#[derive(Debug)]
pub struct OrderBody(Json<wire::NewRevocationOrder>);

impl FromRequest for OrderBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = Json::read(request, payload, MAX_BODY);
        Box::pin(async move { read.await.map(Self) })
    }
}

/// List orders, the newest first
#[utoipa::path(
    tag = "revocations",
    params(OrdersQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::RevocationOrder>), List)
)]
#[get("/v1/revocations")]
pub async fn list_revocations(state: web::Data<State>, by: By, query: Query<OrdersQuery>) -> Answer {
    let OrdersQuery { fleet, state: wanted, cursor, limit } = query.0;
    let request = page(cursor, limit)?;
    let orders = state.registrar.orders(&by.0, fleet, wanted.map(OrderState::from), &request).await?;
    Ok(ok(&page_of(orders, wire::RevocationOrder::from)))
}

/// Revoke, hold, quarantine or release many certificates at once
///
/// It begins at once, or at its time, and goes on by itself; it can be looked at meanwhile. Beyond what the caller may change alone in an
/// hour it waits, a day long, until another operator approves it.
#[utoipa::path(
    tag = "revocations",
    params(IdempotencyKey),
    request_body = wire::NewRevocationOrder,
    responses((status = 201, description = "Ordered", body = wire::RevocationOrder, headers(("Location" = String))), Act)
)]
#[post("/v1/revocations")]
pub async fn order_revocation(state: web::Data<State>, by: By, key: IdempotencyKey, body: OrderBody) -> Answer {
    let OrderBody(body) = body;
    let idempotency: Option<Idempotency> = key.over(&body);
    let new = NewOrder::try_from(body.value)?;
    let view = state.registrar.order(&by.0, new, idempotency, state.clock.now()).await?;
    let location = format!("/v1/revocations/{}", shown(view.order.id));
    Ok(created(&wire::RevocationOrder::from(view), location, None))
}

/// Count what an order would reach, and do nothing
#[utoipa::path(
    tag = "revocations",
    request_body = wire::NewRevocationOrder,
    responses((status = 200, description = "What it would do", body = wire::RevocationPreview), Act)
)]
#[post("/v1/revocations/dry-run")]
pub async fn try_revocation(state: web::Data<State>, by: By, body: OrderBody) -> Answer {
    let new = NewOrder::try_from(body.0.value)?;
    let preview = state.registrar.preview(&by.0, new, state.clock.now()).await?;
    Ok(ok(&wire::RevocationPreview::from(preview)))
}

/// One order, and how far it is
#[utoipa::path(
    tag = "revocations",
    params(OrderPath),
    responses((status = 200, description = "As it is now", body = wire::RevocationOrder), Look)
)]
#[get("/v1/revocations/{id}")]
pub async fn show_revocation(state: web::Data<State>, by: By, path: Path<OrderPath>) -> Answer {
    let view = state.registrar.order_of(&by.0, order_id(&path.0.id)?).await?;
    Ok(ok(&wire::RevocationOrder::from(view)))
}

/// Approve an order that another operator gave
#[utoipa::path(
    tag = "revocations",
    params(OrderPath),
    responses((status = 200, description = "As it is now", body = wire::RevocationOrder), Delete)
)]
#[post("/v1/revocations/{id}/approve")]
pub async fn approve_revocation(state: web::Data<State>, by: By, path: Path<OrderPath>) -> Answer {
    let view = state.registrar.approve_order(&by.0, order_id(&path.0.id)?, state.clock.now()).await?;
    Ok(ok(&wire::RevocationOrder::from(view)))
}

/// Cancel an order
///
/// What was done of it stays done.
#[utoipa::path(
    tag = "revocations",
    params(OrderPath),
    responses((status = 200, description = "As it is now", body = wire::RevocationOrder), Delete)
)]
#[post("/v1/revocations/{id}/cancel")]
pub async fn cancel_revocation(state: web::Data<State>, by: By, path: Path<OrderPath>) -> Answer {
    let view = state.registrar.cancel_order(&by.0, order_id(&path.0.id)?, state.clock.now()).await?;
    Ok(ok(&wire::RevocationOrder::from(view)))
}

/// An id as we write it: 16 lower-case hexadecimal digits.
fn order_id(text: &str) -> Result<OrderId, Refusal> {
    let id = OrderId::from_str_radix(text, 16).ok();
    id.filter(|id| shown(*id) == text).ok_or(Refusal::NotFound)
}

fn invalid(detail: impl Into<String>) -> Problem {
    refuse(Refusal::InvalidValue, detail)
}

impl TryFrom<wire::NewRevocationOrder> for NewOrder {
    type Error = Problem;

    fn try_from(new: wire::NewRevocationOrder) -> Result<Self, Problem> {
        let wire::NewRevocationOrder { fleet, act, reason, select, note, at } = new;
        let change = match act {
            wire::OrderAct::Revoke => Change::Revoke(reason.unwrap_or(RevocationReason::Unspecified)),
            _ if reason.is_some() => return Err(invalid("reason: goes with a revocation")),
            wire::OrderAct::Hold => Change::Hold,
            wire::OrderAct::Quarantine => Change::Quarantine,
            wire::OrderAct::Release => Change::Release,
        };
        let fleet = fleet.map(|fleet| name::<FleetName>("fleet", &fleet)).transpose()?;
        Ok(Self { fleet, change, select: Select::try_from(select)?, note: text("note", note, MAX_REMARK)?, at })
    }
}

impl TryFrom<wire::Selection> for Select {
    type Error = Problem;

    fn try_from(selection: wire::Selection) -> Result<Self, Problem> {
        let wire::Selection { certificates, devices, group, maker, public_key, authority, query } = selection;
        let mut given = Vec::new();
        if let Some(serials) = certificates {
            listed("certificates", &serials)?;
            let serial = |text: &String| text.parse().map_err(|error| invalid(format!("certificates: {error}")));
            given.push(Self::Certificates(serials.iter().map(serial).collect::<Result<_, _>>()?));
        }
        if let Some(devices) = devices {
            listed("devices", &devices)?;
            let names = devices.iter().map(|device| name::<Name>("devices", device));
            given.push(Self::Devices(names.collect::<Result<_, _>>()?));
        }
        if let Some(group) = group {
            given.push(Self::Group(name("group", &group)?));
        }
        if let Some(maker) = maker {
            let wanted = "maker: SHA-256 over the CA's certificate, 64 hexadecimal digits";
            given.push(Self::Maker(maker.parse().map_err(|_| invalid(wanted))?));
        }
        if let Some(key) = public_key {
            let wanted = "public_key: SHA-256 over its SubjectPublicKeyInfo, 64 hexadecimal digits";
            given.push(Self::PublicKey(key.parse().map_err(|_| invalid(wanted))?));
        }
        given.extend(authority.map(Self::Authority));
        if let Some(query) = query {
            given.push(Self::Query(revocations::Query::try_from(query)?));
        }
        match (given.pop(), given.is_empty()) {
            (Some(one), true) => Ok(one),
            _ => Err(invalid("select: exactly one of certificates, devices, group, maker, public_key, authority, query")),
        }
    }
}

/// What is too long is refused before it is read.
fn listed(field: &str, items: &[String]) -> Result<(), Problem> {
    let most = revocations::MAX_LISTED;
    if (1..=most).contains(&items.len()) { Ok(()) } else { Err(invalid(format!("{field}: 1 to {most}"))) }
}

impl TryFrom<wire::RevocationQuery> for revocations::Query {
    type Error = Problem;

    fn try_from(query: wire::RevocationQuery) -> Result<Self, Problem> {
        Ok(Self {
            name: query.name,
            attributes: query.attributes,
            state: query.state.map(SubjectState::from),
            group: query.group.map(|group| name("group", &group)).transpose()?,
            standing: query.standing,
            issued_before: query.issued_before,
            issued_after: query.issued_after,
            ends_before: query.ends_before,
            everything: query.everything,
        })
    }
}

impl From<Preview> for wire::RevocationPreview {
    fn from(preview: Preview) -> Self {
        Self {
            ledger: preview.ledger.to_string(),
            selection: preview.selection,
            devices: preview.reach.holders,
            certificates: preview.reach.certificates,
            needs_approval: preview.needs_approval,
            used: preview.usage.map(|usage| usage.used),
            limit: preview.usage.map(|usage| usage.limit),
        }
    }
}

impl From<OrderView> for wire::RevocationOrder {
    fn from(view: OrderView) -> Self {
        let OrderView { order, ordered_by, approved_by, cancelled_by } = view;
        let (act, reason) = match order.change {
            CertificateEvent::Held => (wire::OrderAct::Hold, None),
            CertificateEvent::Quarantined => (wire::OrderAct::Quarantine, None),
            CertificateEvent::Revoked(reason) => (wire::OrderAct::Revoke, Some(reason)),
            _ => (wire::OrderAct::Release, None),
        };
        Self {
            id: shown(order.id),
            state: order.state.into(),
            ledger: order.ledger.to_string(),
            act,
            reason,
            selection: order.selection,
            note: order.note,
            devices: order.devices,
            certificates: order.certificates,
            changed: order.changed,
            ordered_by,
            ordered_at: order.ordered_at,
            runs_at: order.runs_at,
            approve_before: order.expires_at,
            approved_by,
            approved_at: order.approved_at,
            cancelled_by,
            started_at: order.started_at,
            ended_at: order.ended_at,
            failure: (!order.failure.is_empty()).then_some(order.failure),
        }
    }
}

impl From<OrderState> for wire::OrderState {
    fn from(state: OrderState) -> Self {
        match state {
            OrderState::Scheduled => Self::Scheduled,
            OrderState::AwaitingApproval => Self::AwaitingApproval,
            OrderState::Running => Self::Running,
            OrderState::Done => Self::Done,
            OrderState::Cancelled => Self::Cancelled,
            OrderState::Expired => Self::Expired,
            OrderState::Failed => Self::Failed,
        }
    }
}

impl From<wire::OrderState> for OrderState {
    fn from(state: wire::OrderState) -> Self {
        match state {
            wire::OrderState::Scheduled => Self::Scheduled,
            wire::OrderState::AwaitingApproval => Self::AwaitingApproval,
            wire::OrderState::Running => Self::Running,
            wire::OrderState::Done => Self::Done,
            wire::OrderState::Cancelled => Self::Cancelled,
            wire::OrderState::Expired => Self::Expired,
            wire::OrderState::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_exactly_one_thing() {
        let read = |text: &str| {
            let new: wire::NewRevocationOrder = serde_json::from_str(text).expect(text);
            NewOrder::try_from(new).map(|new| new.select)
        };
        assert_eq!(read(r#"{"select":{"authority":3}}"#).ok(), Some(Select::Authority(3)));
        for text in [
            r#"{"select":{}}"#,
            r#"{"select":{"group":"a","authority":3}}"#,
            r#"{"select":{"devices":[]}}"#,
            r#"{"select":{"devices":["a b"]}}"#,
            r#"{"select":{"certificates":["00"]}}"#,
            r#"{"select":{"maker":"00"}}"#,
            r#"{"select":{"authority":3},"act":"hold","reason":"keyCompromise"}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let long: Vec<String> = (0..=revocations::MAX_LISTED).map(|number| format!("d{number}")).collect();
        assert!(Select::try_from(wire::Selection { devices: Some(long), ..Default::default() }).is_err());
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for id in [0, 1, (1_795_400_000 << 31) | 5] {
            assert_eq!(order_id(&shown(id)), Ok(id));
        }
        for text in ["", "1", "00FF00FF00FF00FF", "00ff00ff00ff00ff0"] {
            assert_eq!(order_id(text), Err(Refusal::NotFound), "{text}");
        }
    }
}
