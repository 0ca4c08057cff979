//! `/v1/fleets/{fleet}/devices`

use actix_web::{get, patch, post, web};
use fleetmark_domain::{FleetName, Kind, Name, RevocationReason, TrustDomain};
use serde::Deserialize;
use utoipa::IntoParams;

use super::certificates::{MAX_REMARK, apply};
use super::extract::{By, IdempotencyKey, IfMatch, Json, Path, Query, name, page, text};
use super::fleets::FleetPath;
use super::openapi::{Act, Change, List, Look};
use super::{Answer, created, ok, page_of, schema, versioned, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::standing::{Change as StandingChange, Target};
use crate::registrar::subjects::{NewDevice, SubjectChange, SubjectSearch, SubjectView, Who};
use crate::store::model::SubjectState;

/// A device in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct DevicePath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The device's name, in any case.
    #[param(value_type = schema::Name)]
    pub name: Name,
}

impl From<DevicePath> for Who {
    fn from(path: DevicePath) -> Self {
        Self { kind: Kind::Device, fleet: Some(path.fleet), name: path.name }
    }
}

/// Which devices, or members.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SubjectQuery {
    /// Whose name holds this text.
    #[param(max_length = 63)]
    pub search: Option<String>,
    /// In this state.
    #[param(inline)]
    pub state: Option<wire::SubjectState>,
    /// Where the page begins, as the page before said.
    pub cursor: Option<String>,
    /// At most so many items; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

impl SubjectQuery {
    /// What to look for.
    pub fn search(&self) -> Result<SubjectSearch, Problem> {
        let search = self.search.clone().filter(|text| !text.is_empty());
        let search = search.map(|search| text("search", Some(search), fleetmark_domain::name::MAX_NAME)).transpose()?;
        Ok(SubjectSearch { search, state: self.state.map(Into::into) })
    }
}

/// List a fleet's devices
#[utoipa::path(
    tag = "devices",
    params(FleetPath, SubjectQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Device>), List)
)]
#[get("/v1/fleets/{fleet}/devices")]
pub async fn list_devices(state: web::Data<State>, by: By, path: Path<FleetPath>, query: Query<SubjectQuery>) -> Answer {
    let search = query.0.search()?;
    let request = page(query.0.cursor, query.0.limit)?;
    let fleet = path.0.fleet;
    let devices = state.registrar.subjects(&by.0, Kind::Device, Some(&fleet), search, &request).await?;
    Ok(ok(&page_of(devices, |device| shown(&state, &fleet, device))))
}

/// Register a device, without a certificate
#[utoipa::path(
    tag = "devices",
    params(FleetPath, IdempotencyKey),
    responses(
        (status = 201, description = "Created", body = wire::Device, headers(("Location" = String), ("ETag" = String))),
        Act
    )
)]
#[post("/v1/fleets/{fleet}/devices")]
pub async fn register_device(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    key: IdempotencyKey,
    body: Json<wire::NewDevice>,
) -> Answer {
    let idempotency = key.over(&body);
    let fleet = path.0.fleet;
    let new = NewDevice { fleet: fleet.clone(), name: name("name", &body.value.name)?, attributes: body.value.attributes };
    let device = state.registrar.register_device(&by.0, new, idempotency, state.clock.now()).await?;
    let device = shown(&state, &fleet, device);
    let location = format!("/v1/fleets/{fleet}/devices/{}", device.name);
    Ok(created(&device, location, Some(device.version)))
}

/// One device
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Look)
)]
#[get("/v1/fleets/{fleet}/devices/{name}")]
pub async fn show_device(state: web::Data<State>, by: By, path: Path<DevicePath>) -> Answer {
    let fleet = path.0.fleet.clone();
    let device = state.registrar.subject(&by.0, &path.0.into()).await?;
    let device = shown(&state, &fleet, device);
    Ok(versioned(&device, device.version))
}

/// Change a device's record
#[utoipa::path(
    tag = "devices",
    params(DevicePath, IfMatch),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Change)
)]
#[patch("/v1/fleets/{fleet}/devices/{name}")]
pub async fn change_device(
    state: web::Data<State>,
    by: By,
    path: Path<DevicePath>,
    read: IfMatch,
    body: Json<wire::DeviceChange>,
) -> Answer {
    let fleet = path.0.fleet.clone();
    let change = SubjectChange { attributes: body.value.attributes, ..SubjectChange::default() };
    let device = state.registrar.change_subject(&by.0, &path.0.into(), change, read.0, state.clock.now()).await?;
    let device = shown(&state, &fleet, device);
    Ok(versioned(&device, device.version))
}

/// Revoke all certificates of a device
///
/// The device itself may enroll again; to put it out for good, retire it.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/revoke")]
pub async fn revoke_device(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Revocation>) -> Answer {
    let reason = body.value.reason.unwrap_or(RevocationReason::Unspecified);
    apply(&state, &by, Target::Subject(path.0.into()), StandingChange::Revoke(reason), body.value.note).await
}

/// Suspend all certificates of a device
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/hold")]
pub async fn hold_device(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Remark>) -> Answer {
    apply(&state, &by, Target::Subject(path.0.into()), StandingChange::Hold, body.value.note).await
}

/// End the suspension of a device's certificates
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/release")]
pub async fn release_device(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Remark>) -> Answer {
    apply(&state, &by, Target::Subject(path.0.into()), StandingChange::Release, body.value.note).await
}

/// Put a device out for good
///
/// Revokes all its certificates (`cessationOfOperation` unless a reason is given) and admits it no more.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "As it is now", body = wire::Device, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/retire")]
pub async fn retire_device(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::Revocation>) -> Answer {
    let fleet = path.0.fleet.clone();
    let reason = body.value.reason.unwrap_or(RevocationReason::CessationOfOperation);
    let note = text("note", body.value.note, MAX_REMARK)?;
    let device = state.registrar.put_out(&by.0, &path.0.into(), reason, &note, state.clock.now()).await?;
    let device = shown(&state, &fleet, device);
    Ok(versioned(&device, device.version))
}

/// A device as the wire shows it.
pub(super) fn shown(state: &State, fleet: &FleetName, view: SubjectView) -> wire::Device {
    wire_device(state.registrar.trust_domain(), fleet, view)
}

fn wire_device(domain: &TrustDomain, fleet: &FleetName, view: SubjectView) -> wire::Device {
    let SubjectView { identity, subject, certificate } = view;
    wire::Device {
        identity: identity.uri(domain),
        fleet: subject.fleet.unwrap_or_else(|| fleet.clone()),
        name: subject.name,
        state: subject.state.into(),
        attributes: subject.attributes,
        generation: certificate.as_ref().map_or(0, |certificate| certificate.generation),
        standing: certificate.as_ref().map(|certificate| certificate.standing.to_string()),
        not_after: certificate.as_ref().map(|certificate| certificate.not_after),
        certificate: certificate.map(|certificate| certificate.serial.to_string()),
        moving_to: subject.permits.moving.map(|moving| moving.to),
        renewal_permitted_until: subject.permits.late_until,
        enrollment_permitted_until: subject.permits.reenroll_until,
        renewals_held: subject.permits.renewals_held,
        created_at: subject.created_at,
        version: subject.version,
    }
}

impl From<SubjectState> for wire::SubjectState {
    fn from(state: SubjectState) -> Self {
        match state {
            SubjectState::Registered => Self::Registered,
            SubjectState::Active => Self::Active,
            SubjectState::Out => Self::Retired,
            SubjectState::Released => Self::Released,
        }
    }
}

impl From<wire::SubjectState> for SubjectState {
    fn from(state: wire::SubjectState) -> Self {
        match state {
            wire::SubjectState::Registered => Self::Registered,
            wire::SubjectState::Active => Self::Active,
            wire::SubjectState::Retired => Self::Out,
            wire::SubjectState::Released => Self::Released,
        }
    }
}
