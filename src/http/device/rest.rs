//! JSON under `/v1`.

use actix_web::web::{self, Data, Json, Path, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use fleetmark_domain::{Fingerprint, FleetName, Name, Refusal, Serial};
use serde::Deserialize;

use super::answer::{ConfirmationAnswer, EnrollmentAnswer, TimeAnswer, private_json};
use super::challenge::BodyProof;
use super::proof::{Bearer, InHead, admit, has_credentials};
use super::renewal::Renewing;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::limits::read_json;
use crate::http::problem::{Problem, not_allowed};
use crate::pki::csr::VerifiedCsr;
use crate::registrar::enroll::{Confirmation, EnrollRequest, Enrollment};
use crate::registrar::proofs::Shown;

/// The body of enroll for a device.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceEnrollment {
    /// PKCS#10 in PEM, or its DER in base64.
    csr: String,
    /// The device's name; may be left out where the proof says it.
    device: Option<String>,
    /// The enrollment group that it asks for, where the fleet has several of its proof.
    group: Option<String>,
    /// What it answers to a question; none where the head of the request holds a proof.
    proof: Option<BodyProof>,
}

/// The body of enroll for others, and of renew.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// PKCS#10 in PEM, or its DER in base64.
    csr: String,
}

/// The body of confirm by token.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// SHA-256 over the certificate to confirm, hexadecimal.
    fingerprint: String,
    /// Its serial, hexadecimal; needed where the token is for several devices.
    serial: Option<String>,
}

/// The resources.
pub fn configure(config: &mut ServiceConfig) {
    let post = |path: &str, route: actix_web::Route| web::resource(path).route(route).default_service(not_allowed("POST"));
    config
        .service(post("/v1/fleets/{fleet}/enroll", web::post().to(enroll_device)))
        .service(post("/v1/fleets/{fleet}/renew", web::post().to(renew_device)))
        .service(post("/v1/fleets/{fleet}/confirm", web::post().to(confirm_device)))
        .service(post("/v1/enroll", web::post().to(enroll)))
        .service(post("/v1/renew", web::post().to(renew)))
        .service(post("/v1/confirm", web::post().to(confirm)))
        .service(web::resource("/v1/time").route(web::get().to(time)).default_service(not_allowed("GET")));
}

/// Enrolls a device, by what its head shows, else by what its body holds; else a person is to approve it.
async fn enroll_device(
    http: HttpRequest,
    head: InHead,
    state: Data<State>,
    fleet: Path<String>,
    body: Json<DeviceEnrollment>,
) -> Result<HttpResponse, Problem> {
    let body = body.into_inner();
    let fleet = fleet_name(&fleet)?;
    let shown = match (head.0, body.proof) {
        (Some(shown), _) => shown,
        (None, Some(proof)) => proof.shown()?,
        // Asked before its request is read.
        (None, None) => state.registrar.shown_nothing(&fleet).await?,
    };
    let name = |text: Option<String>| text.map(|text| text.parse::<Name>().map_err(|_| Refusal::InvalidName)).transpose();
    let request = EnrollRequest {
        fleet: Some(fleet),
        name: name(body.device)?,
        group: name(body.group)?,
        shown,
        csr: VerifiedCsr::from_body(body.csr.as_bytes())?,
        source: source(&http),
    };
    let now = state.clock.now();
    let enrollment = state.registrar.enroll(request, now).await?;
    Ok(answer(&state, &enrollment))
}

/// Enrolls a gateway, service or operator by its invitation.
async fn enroll(http: HttpRequest, token: Bearer, state: Data<State>, body: Json<KeyRequest>) -> Result<HttpResponse, Problem> {
    let csr = VerifiedCsr::from_body(body.csr.as_bytes())?;
    let request =
        EnrollRequest { fleet: None, name: None, group: None, shown: Shown::Token(token.0), csr, source: source(&http) };
    let enrollment = state.registrar.enroll(request, state.clock.now()).await?;
    Ok(answer(&state, &enrollment))
}

/// Renews a device's certificate.
async fn renew_device(
    caller: Renewing,
    state: Data<State>,
    fleet: Path<String>,
    body: Json<KeyRequest>,
) -> Result<HttpResponse, Problem> {
    require_fleet(&caller.0, &fleet_name(&fleet)?)?;
    renew(caller, state, body).await
}

/// Renews the certificate of whoever calls.
async fn renew(caller: Renewing, state: Data<State>, body: Json<KeyRequest>) -> Result<HttpResponse, Problem> {
    let csr = VerifiedCsr::from_body(body.csr.as_bytes())?;
    let enrollment = state.registrar.renew(&caller.0.0, &csr, state.clock.now()).await?;
    Ok(answer(&state, &enrollment))
}

/// Confirms a device's certificate.
async fn confirm_device(
    request: HttpRequest,
    state: Data<State>,
    fleet: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    confirm_for(&request, &state, Some(fleet_name(&fleet)?), payload).await
}

/// Confirms the certificate of whoever calls.
async fn confirm(request: HttpRequest, state: Data<State>, payload: web::Payload) -> Result<HttpResponse, Problem> {
    confirm_for(&request, &state, None, payload).await
}

/// By the token where one is shown, else by the certificate of the connection; then the body is not read.
async fn confirm_for(
    request: &HttpRequest,
    state: &State,
    fleet: Option<FleetName>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let confirmation = if has_credentials(request) {
        confirm_by_token(request, state, fleet.as_ref(), payload).await?
    } else {
        let caller = Identified::extract(request).await?;
        if let Some(fleet) = &fleet {
            require_fleet(&caller, fleet)?;
        }
        state.registrar.confirm(&caller.0, state.clock.now()).await?
    };
    Ok(private_json(&ConfirmationAnswer::new(&confirmation, state.registrar.trust_domain(), state.clock.now())))
}

async fn confirm_by_token(
    request: &HttpRequest,
    state: &State,
    fleet: Option<&FleetName>,
    payload: web::Payload,
) -> Result<Confirmation, Problem> {
    admit(request)?;
    let token = Bearer::of(request)?;
    let body: ConfirmRequest = read_json(request, payload).await?;
    let fingerprint: Fingerprint = body.fingerprint.parse().map_err(|_| Refusal::InvalidValue)?;
    let serial = body.serial.map(|serial| serial.parse::<Serial>().map_err(|_| Refusal::InvalidValue)).transpose()?;
    Ok(state.registrar.confirm_by_token(fleet, &token.0, (fingerprint, serial), state.clock.now()).await?)
}

/// The server's clock, for devices that have none.
async fn time(state: Data<State>) -> HttpResponse {
    private_json(&TimeAnswer { server_time: state.clock.now() })
}

fn answer(state: &State, enrollment: &Enrollment) -> HttpResponse {
    private_json(&EnrollmentAnswer::new(enrollment, state.registrar.trust_domain(), state.clock.now()))
}

/// Where a request comes from.
pub fn source(request: &HttpRequest) -> Option<std::net::IpAddr> {
    request.peer_addr().map(|peer| peer.ip())
}

/// A fleet's name in a path.
///
/// # Errors
/// `InvalidName`.
pub fn fleet_name(text: &str) -> Result<FleetName, Refusal> {
    text.parse().map_err(|_| Refusal::InvalidName)
}

/// # Errors
/// `WrongFleet` for a device of another fleet, `WrongKind` for anybody who is no device.
pub fn require_fleet(caller: &Identified, fleet: &FleetName) -> Result<(), Refusal> {
    match caller.0.identity.fleet() {
        Some(own) if own == fleet => Ok(()),
        Some(_) => Err(Refusal::WrongFleet),
        None => Err(Refusal::WrongKind),
    }
}
