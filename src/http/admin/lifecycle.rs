//! `/v1/fleets/{fleet}/devices/{name}`: moves between fleets, permits, quarantine, letting in again.

use actix_web::{post, web};

use super::certificates::{MAX_REMARK, apply};
use super::devices::{DevicePath, shown};
use super::extract::{By, IdempotencyKey, Json, Path, name, text};
use super::openapi::Act;
use super::tokens::{lifetime, shown_once};
use super::{Answer, created, versioned, wire};
use crate::http::State;
use crate::registrar::lifecycle::{Grant, MoveRequest};
use crate::registrar::standing::{Change, Target};

/// Quarantine all certificates of a device
///
/// Policy decides what it may still do: to update and to enroll, unless the policy says otherwise. `release` ends it.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/quarantine")]
pub async fn quarantine_device(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Remark>) -> Answer {
    apply(&state, &by, Target::Subject(path.0.into()), Change::Quarantine, body.value.note).await
}

/// Let a retired device in again
///
/// Its certificates stay revoked: it must enroll anew.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/readmit")]
pub async fn readmit_device(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Remark>) -> Answer {
    grant(&state, &by, path.0, Grant::Readmit, body.value.note).await
}

/// Permit a device to renew its expired certificate
///
/// Only its newest confirmed certificate, until then. Renewals that were held back are let go on, with `until` or without.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/permit-renewal")]
pub async fn permit_renewal(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Permit>) -> Answer {
    grant(&state, &by, path.0, Grant::LateRenewal(body.value.until), body.value.note).await
}

/// Permit a device to enroll anew, once
///
/// For a device that was enrolled before and lost its key, as by a factory reset.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/permit-enrollment")]
pub async fn permit_enrollment(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Permit>) -> Answer {
    grant(&state, &by, path.0, Grant::Enrollment(body.value.until), body.value.note).await
}

async fn grant(state: &State, by: &By, path: DevicePath, grant: Grant, note: Option<String>) -> Answer {
    let fleet = path.fleet.clone();
    let note = text("note", note, MAX_REMARK)?;
    let device = state.registrar.grant(&by.0, &path.into(), grant, &note, state.clock.now()).await?;
    let device = shown(state, &fleet, device);
    Ok(versioned(&device, device.version))
}

/// Release a device for a move into another fleet
///
/// The token in the answer enrolls it there, under its name. It works on in this fleet until it confirms its certificate there;
/// then it ends here.
#[utoipa::path(
    tag = "devices",
    params(DevicePath, IdempotencyKey),
    responses((status = 201, description = "Created", body = wire::MintedToken, headers(("Location" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/move")]
pub async fn move_device(
    state: web::Data<State>,
    by: By,
    path: Path<DevicePath>,
    key: IdempotencyKey,
    body: Json<wire::Move>,
) -> Answer {
    let idempotency = key.over(&body);
    let wire::Move { to, expires_in_seconds, note } = body.value;
    let request =
        MoveRequest { to: name("to", &to)?, lifetime: lifetime(expires_in_seconds)?, note: text("note", note, MAX_REMARK)? };
    let now = state.clock.now();
    let minted = state.registrar.move_device(&by.0, &path.0.into(), request, idempotency, now).await?;
    let minted = shown_once(minted, now);
    let location = format!("/v1/fleets/{to}/tokens/{}", minted.record.id);
    Ok(created(&minted, location, None))
}

/// Take the release for a move back
///
/// The token is withdrawn, and a certificate that the device got in the other fleet is revoked.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/cancel-move")]
pub async fn cancel_move(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Remark>) -> Answer {
    let fleet = path.0.fleet.clone();
    let note = text("note", body.value.note, MAX_REMARK)?;
    let device = state.registrar.cancel_move(&by.0, &path.0.into(), &note, state.clock.now()).await?;
    let device = shown(&state, &fleet, device);
    Ok(versioned(&device, device.version))
}
