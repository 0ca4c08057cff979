//! `/v1/fleets/{fleet}/renewal-wave`

use actix_web::{delete, get, put, web};

use super::certificates::MAX_REMARK;
use super::extract::{By, Json, Path, text};
use super::fleets::FleetPath;
use super::openapi::{Act, Delete, Look};
use super::{Answer, ok, wire};
use crate::http::State;
use crate::registrar::waves::NewWave;
use crate::store::model;

/// The fleet's renewal wave
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Wave), Look)
)]
#[get("/v1/fleets/{fleet}/renewal-wave")]
pub async fn show_wave(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let wave = state.registrar.wave(&by.0, &path.0.fleet).await?;
    Ok(ok(&wire::Wave::from(wave)))
}

/// Pull the renewal of a fleet's certificates forward
///
/// Those issued before `issued_before` renew between `from` and `until`, each at its own moment, as its device asks when to. It
/// takes the place of an earlier wave.
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Wave), Act)
)]
#[put("/v1/fleets/{fleet}/renewal-wave")]
pub async fn start_wave(state: web::Data<State>, by: By, path: Path<FleetPath>, body: Json<wire::NewWave>) -> Answer {
    let wire::NewWave { issued_before, from, until, note } = body.value;
    let new = NewWave { issued_before, from, until, note: text("note", note, MAX_REMARK)? };
    let wave = state.registrar.start_wave(&by.0, &path.0.fleet, new, state.clock.now()).await?;
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
        let model::Wave { issued_before, from, until, note } = wave;
        Self { issued_before, from, until, note }
    }
}
