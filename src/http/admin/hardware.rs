//! `/v1/fleets/{fleet}/devices/{name}/hardware`

use actix_web::{delete, get, post, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{FleetName, Kind, Name, Refusal};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use utoipa::IntoParams;

use super::devices::DevicePath;
use super::extract::{By, Json, Path};
use super::openapi::{Act, Delete, Look};
use super::{Answer, created, ok, schema, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::Error;
use crate::registrar::hardware::GivenKey;
use crate::registrar::subjects::Who;
use crate::store::model::{Hardware, HardwareId, HardwareSource};

/// The longest text of an endorsement key, in characters: PEM of an RSA key of 2048 bits has 451.
const MAX_KEY: usize = 2048;

/// A piece of hardware in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct HardwarePath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The device's name, in any case.
    #[param(value_type = schema::Name)]
    pub name: Name,
    /// The hardware's id: 64 hexadecimal digits.
    pub id: String,
}

/// Which hardware a device is
///
/// At most 16 pieces: what operators registered, and what the device proved itself to be.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 200, description = "All of it", body = wire::HardwareList), Look)
)]
#[get("/v1/fleets/{fleet}/devices/{name}/hardware")]
pub async fn list_hardware(state: web::Data<State>, by: By, path: Path<DevicePath>) -> Answer {
    let hardware = state.registrar.hardware(&by.0, &path.0.into()).await?;
    Ok(ok(&wire::HardwareList { items: hardware.iter().map(shown).collect(), next: None }))
}

/// Register a TPM's endorsement key with a device
///
/// The device enrolls by its TPM from now on. A repeat changes nothing.
#[utoipa::path(
    tag = "devices",
    params(DevicePath),
    responses((status = 201, description = "Registered", body = wire::Hardware, headers(("Location" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/devices/{name}/hardware")]
pub async fn add_hardware(state: web::Data<State>, by: By, path: Path<DevicePath>, body: Json<wire::NewHardware>) -> Answer {
    let key = given_key(&body.value.endorsement_key)?;
    let at = format!("/v1/fleets/{}/devices/{}/hardware", path.0.fleet, path.0.name);
    let hardware = state.registrar.add_hardware(&by.0, &path.0.into(), &key, state.clock.now()).await?;
    let hardware = shown(&hardware);
    let location = format!("{at}/{}", hardware.id);
    Ok(created(&hardware, location, None))
}

/// Take a piece of hardware from a device
///
/// It enrolls by that no more. Its certificates stay.
#[utoipa::path(
    tag = "devices",
    params(HardwarePath),
    responses((status = 200, description = "What was taken", body = wire::Hardware), Delete)
)]
#[delete("/v1/fleets/{fleet}/devices/{name}/hardware/{id}")]
pub async fn remove_hardware(state: web::Data<State>, by: By, path: Path<HardwarePath>) -> Answer {
    let HardwarePath { fleet, name, id } = path.0;
    let id: HardwareId = hex::decode(id).ok().and_then(|id| id.try_into().ok()).ok_or(Refusal::NotFound)?;
    let who = Who { kind: Kind::Device, fleet: Some(fleet), name };
    Ok(ok(&shown(&state.registrar.remove_hardware(&by.0, &who, id, state.clock.now()).await?)))
}

fn shown(hardware: &Hardware) -> wire::Hardware {
    let source = match hardware.source {
        HardwareSource::EndorsementKey => wire::HardwareSource::EndorsementKey,
        HardwareSource::MakerKey => wire::HardwareSource::MakerKey,
        HardwareSource::DerivedKey => wire::HardwareSource::DerivedKey,
    };
    wire::Hardware { id: hex::encode(hardware.id), source, since: hardware.since }
}

/// A public key in PEM, or `TPM2B_PUBLIC` in base64. Which of the two is told by the first dash.
fn given_key(text: &str) -> Result<GivenKey, Problem> {
    let wrong = || {
        let detail = "endorsement_key: a public key in PEM, or TPM2B_PUBLIC in base64, of at most 2048 characters is expected";
        Problem(Error::with_detail(Refusal::InvalidValue, detail))
    };
    let text = text.trim();
    if text.len() > MAX_KEY {
        return Err(wrong());
    }
    if text.starts_with('-') {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong())?;
        return Ok(GivenKey::Spki(der.as_ref().to_vec()));
    }
    STANDARD.decode(text).map(GivenKey::Tpm).map_err(|_| wrong())
}
