//! `/v1/fleets/{fleet}/allowances`

use std::time::Duration;

use actix_web::{get, post, web};
use fleetmark_domain::Refusal;

use super::extract::{By, IdempotencyKey, Json, Path, name, within};
use super::fleets::{FleetPath, MOST_DEVICES};
use super::openapi::{Act, Look};
use super::{Answer, created, ok, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::limits::{AllowanceView, NewAllowance};

/// The longest time that an allowance holds, in hours.
const LONGEST: u64 = 24;

/// List what operators may change beyond the fleet's blast radius now
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "All of them", body = wire::Page<wire::Allowance>), Look)
)]
#[get("/v1/fleets/{fleet}/allowances")]
pub async fn list_allowances(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let views = state.registrar.allowances(&by.0, &path.0.fleet, state.clock.now()).await?;
    let items = views.into_iter().map(wire::Allowance::from).collect();
    Ok(ok(&wire::Page { items, next: None }))
}

/// Allow another operator to change more devices of the fleet
#[utoipa::path(
    tag = "fleets",
    params(FleetPath, IdempotencyKey),
    responses((status = 201, description = "Created", body = wire::Allowance, headers(("Location" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/allowances")]
pub async fn allow(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    key: IdempotencyKey,
    body: Json<wire::NewAllowance>,
) -> Answer {
    let idempotency = key.over(&body);
    let new = NewAllowance::try_from(body.value)?;
    let view = state.registrar.allow(&by.0, &path.0.fleet, new, idempotency, state.clock.now()).await?;
    let location = format!("/v1/fleets/{}/allowances", path.0.fleet);
    Ok(created(&wire::Allowance::from(view), location, None))
}

impl From<AllowanceView> for wire::Allowance {
    fn from(view: AllowanceView) -> Self {
        Self {
            operator: view.operator,
            devices: view.allowance.devices,
            allowed_by: view.allowed_by,
            allowed_at: view.allowance.allowed_at,
            expires_at: view.allowance.expires_at,
        }
    }
}

impl TryFrom<wire::NewAllowance> for NewAllowance {
    type Error = Problem;

    fn try_from(new: wire::NewAllowance) -> Result<Self, Problem> {
        let required = || Problem::from(Refusal::InvalidValue);
        let hours = within("hours", new.hours, 1, LONGEST)?.unwrap_or(1);
        Ok(Self {
            operator: name("operator", &new.operator)?,
            devices: within("devices", Some(new.devices), 1, MOST_DEVICES)?.ok_or_else(required)?,
            lifetime: Duration::from_secs(hours.saturating_mul(3_600)),
        })
    }
}
