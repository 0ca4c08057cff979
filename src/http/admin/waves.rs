//! `/v1/fleets/{fleet}/renewal-wave`

use actix_web::{delete, get, post, put, web};
use fleetmark_domain::Refusal;

use super::certificates::MAX_REMARK;
use super::extract::{By, Json, Path, refuse, text};
use super::fleets::FleetPath;
use super::openapi::{Act, Delete, Look};
use super::{Answer, ok, wire};
use crate::http::State;
use crate::registrar::waves::{NewWave, Pace, Progress, Whose};
use crate::store::model;

/// The fleet's renewal wave
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now, with how far it is", body = wire::WaveProgress), Look)
)]
#[get("/v1/fleets/{fleet}/renewal-wave")]
pub async fn show_wave(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let (wave, progress) = state.registrar.wave_progress(&by.0, &path.0.fleet, state.clock.now()).await?;
    let Progress { waiting, suspended, renewed, unconfirmed } = progress;
    Ok(ok(&wire::WaveProgress { wave: wave.into(), waiting, suspended, renewed, unconfirmed }))
}

/// Pull the renewal of a fleet's certificates forward
///
/// Those issued before `issued_before`, or with `to_active_authority` those of the fleet's authorities that issue no more, renew between
/// `from` and `until`, or `devices_per_hour` of them from `from` on, each at its own moment, as its device asks when to. It takes the
/// place of an earlier wave.
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Wave), Act)
)]
#[put("/v1/fleets/{fleet}/renewal-wave")]
pub async fn start_wave(state: web::Data<State>, by: By, path: Path<FleetPath>, body: Json<wire::NewWave>) -> Answer {
    let wire::NewWave { issued_before, to_active_authority, from, until, devices_per_hour, note } = body.value;
    let now = state.clock.now();
    let whose = match (issued_before, to_active_authority) {
        (Some(_), true) => {
            return Err(refuse(Refusal::InvalidValue, "issued_before and to_active_authority exclude each other"));
        }
        (None, true) => Whose::OfTaintedAuthorities,
        (before, false) => Whose::IssuedBefore(before.unwrap_or(now)),
    };
    let pace = match (until, devices_per_hour) {
        (Some(until), None) => Pace::Until(until),
        (None, Some(rate)) => Pace::PerHour(rate),
        _ => return Err(refuse(Refusal::InvalidValue, "say until or devices_per_hour")),
    };
    let new = NewWave { whose, from, pace, note: text("note", note, MAX_REMARK)? };
    let wave = state.registrar.start_wave(&by.0, &path.0.fleet, new, now).await?;
    Ok(ok(&wire::Wave::from(wave)))
}

/// Let the fleet's renewal wave stand still
///
/// Nobody else is asked to renew by it. A device that was told its moment before hears of it when it asks next: within 70 minutes.
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Wave), Act)
)]
#[post("/v1/fleets/{fleet}/renewal-wave/pause")]
pub async fn pause_wave(state: web::Data<State>, by: By, path: Path<FleetPath>, body: Json<wire::Remark>) -> Answer {
    let note = text("note", body.value.note, MAX_REMARK)?;
    let wave = state.registrar.pause_wave(&by.0, &path.0.fleet, &note, state.clock.now()).await?;
    Ok(ok(&wire::Wave::from(wave)))
}

/// Let the fleet's renewal wave go on
///
/// What was still to come comes later by as long as it stood still.
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Wave), Act)
)]
#[post("/v1/fleets/{fleet}/renewal-wave/resume")]
pub async fn resume_wave(state: web::Data<State>, by: By, path: Path<FleetPath>, body: Json<wire::Remark>) -> Answer {
    let note = text("note", body.value.note, MAX_REMARK)?;
    let wave = state.registrar.resume_wave(&by.0, &path.0.fleet, &note, state.clock.now()).await?;
    Ok(ok(&wire::Wave::from(wave)))
}

/// End the fleet's renewal wave
///
/// What was renewed stays renewed.
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it was", body = wire::Wave), Delete)
)]
#[delete("/v1/fleets/{fleet}/renewal-wave")]
pub async fn end_wave(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let wave = state.registrar.end_wave(&by.0, &path.0.fleet, state.clock.now()).await?;
    Ok(ok(&wire::Wave::from(wave)))
}

impl From<model::Wave> for wire::Wave {
    fn from(wave: model::Wave) -> Self {
        let model::Wave { issued_before, from, until, note, to_active_authority, devices_per_hour, devices, paused_at } = wave;
        Self { issued_before, to_active_authority, from, until, devices_per_hour, devices, paused_at, note }
    }
}
