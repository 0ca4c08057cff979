//! `/v1/fleets/{fleet}/requests`

use actix_web::{get, post, web};
use fleetmark_domain::{FleetName, Refusal};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, Json, Path, Query, page, text};
use super::fleets::FleetPath;
use super::openapi::{Act, List, Look};
use super::{Answer, ok, page_of, schema, wire};
use crate::http::State;
use crate::registrar::requests::{Decision, RequestView};
use crate::store::model::RequestState;

/// The most characters of a reason.
const MAX_REASON: usize = 256;

/// A request in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct RequestPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The request's id: 16 hexadecimal digits.
    pub id: String,
}

/// Which requests, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct RequestsQuery {
    /// In this state.
    pub state: Option<wire::RequestState>,
    /// Where the page begins, as the page before said.
    pub cursor: Option<String>,
    /// At most so many items; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// List requests that a person decides
#[utoipa::path(
    tag = "requests",
    params(FleetPath, RequestsQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::EnrollmentRequest>), List)
)]
#[get("/v1/fleets/{fleet}/requests")]
pub async fn list_requests(state: web::Data<State>, by: By, path: Path<FleetPath>, query: Query<RequestsQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let wanted = query.0.state.map(RequestState::from);
    let views = state.registrar.requests(&by.0, &path.0.fleet, wanted, &request, state.clock.now()).await?;
    Ok(ok(&page_of(views, wire::EnrollmentRequest::from)))
}

/// One request
#[utoipa::path(
    tag = "requests",
    params(RequestPath),
    responses((status = 200, description = "As it is now", body = wire::EnrollmentRequest), Look)
)]
#[get("/v1/fleets/{fleet}/requests/{id}")]
pub async fn show_request(state: web::Data<State>, by: By, path: Path<RequestPath>) -> Answer {
    let view = state.registrar.request(&by.0, &path.0.fleet, request_id(&path.0.id)?, state.clock.now()).await?;
    Ok(ok(&wire::EnrollmentRequest::from(view)))
}

/// Approve a request
///
/// The same request then succeeds, within 7 days. Requests of other keys under the same name are refused.
#[utoipa::path(
    tag = "requests",
    params(RequestPath),
    responses((status = 200, description = "As it is now", body = wire::EnrollmentRequest), Act)
)]
#[post("/v1/fleets/{fleet}/requests/{id}/approve")]
pub async fn approve_request(state: web::Data<State>, by: By, path: Path<RequestPath>, body: Json<wire::Approval>) -> Answer {
    decide(&state, &by, &path.0, Decision::Approve, body.value.note).await
}

/// Refuse a request
///
/// The reason is shown to whoever holds the key.
#[utoipa::path(
    tag = "requests",
    params(RequestPath),
    responses((status = 200, description = "As it is now", body = wire::EnrollmentRequest), Act)
)]
#[post("/v1/fleets/{fleet}/requests/{id}/refuse")]
pub async fn refuse_request(state: web::Data<State>, by: By, path: Path<RequestPath>, body: Json<wire::NoApproval>) -> Answer {
    let decision = if body.value.take_back { Decision::TakeBack } else { Decision::Refuse };
    decide(&state, &by, &path.0, decision, body.value.reason).await
}

async fn decide(state: &State, by: &By, path: &RequestPath, decision: Decision, reason: Option<String>) -> Answer {
    let reason = text("reason", reason, MAX_REASON)?;
    let id = request_id(&path.id)?;
    let view = state.registrar.decide_request(&by.0, &path.fleet, id, decision, &reason, state.clock.now()).await?;
    Ok(ok(&wire::EnrollmentRequest::from(view)))
}

/// An id as we write it: 16 lower-case hexadecimal digits.
fn request_id(text: &str) -> Result<u64, Refusal> {
    let id = u64::from_str_radix(text, 16).ok();
    id.filter(|id| format!("{id:016x}") == text).ok_or(Refusal::NotFound)
}

impl From<wire::RequestState> for RequestState {
    fn from(state: wire::RequestState) -> Self {
        match state {
            wire::RequestState::Waiting => Self::Waiting,
            wire::RequestState::Approved => Self::Approved,
            wire::RequestState::Refused => Self::Refused,
            wire::RequestState::Done => Self::Done,
        }
    }
}

impl From<RequestState> for wire::RequestState {
    fn from(state: RequestState) -> Self {
        match state {
            RequestState::Waiting => Self::Waiting,
            RequestState::Approved => Self::Approved,
            RequestState::Refused => Self::Refused,
            RequestState::Done => Self::Done,
        }
    }
}

impl From<RequestView> for wire::EnrollmentRequest {
    fn from(view: RequestView) -> Self {
        let request = view.request;
        Self {
            id: format!("{:016x}", request.id),
            device: request.name,
            state: request.state.into(),
            key_sha256: request.key_hash.to_string(),
            key_type: request.key_type,
            proof: request.proof,
            source: request.source.map(|source| source.to_string()),
            asked_at: request.asked_at,
            expires_at: request.expires_at,
            decided_at: request.decided_at,
            decided_by: view.decided_by,
            reason: request.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for id in [0, 1, 0x00ff_00ff_00ff_00ff, u64::MAX >> 2] {
            assert_eq!(request_id(&format!("{id:016x}")), Ok(id));
        }
        for text in ["", "1", "00FF00FF00FF00FF", "+0ff00ff00ff00ff", "00ff00ff00ff00ff0", "../../etc/passwd"] {
            assert_eq!(request_id(text), Err(Refusal::NotFound), "{text}");
        }
    }
}
