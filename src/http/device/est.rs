//! Enrollment over Secure Transport: RFC 7030 with the clarifications of RFC 8951. The label of the path is a fleet;
//! without one it is the default fleet. Channel binding by `tls-unique` (RFC 7030 3.5) is not asked for and not looked at.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, Route};
use fleetmark_domain::{FleetName, Kind, Refusal, TrustDomain};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

use super::answer::base64_line;
use super::proof::{Basic, admit};
use super::rest::{fleet_name, require_fleet, source};
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::limits::{MAX_EST, is_of_type, read_body};
use crate::http::problem::Problem;
use crate::pki::bundle::certs_only;
use crate::pki::csr::VerifiedCsr;
use crate::registrar;
use crate::registrar::authorities::AuthoritySet;
use crate::registrar::caller::Caller;
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::proofs::Shown;

const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
const REALM: &str = "Basic realm=\"fleetmark\"";

/// A refusal as EST clients show it: one line of text (RFC 7030 4.2.3).
#[derive(Debug)]
pub struct EstProblem(Problem);

impl<E: Into<Problem>> From<E> for EstProblem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl std::fmt::Display for EstProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for EstProblem {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        self.0.record();
        let registrar::Error { refusal, detail, .. } = &self.0.0;
        let mut line = format!("{}: {}", refusal.code(), refusal.text());
        if let Some(detail) = detail {
            line.push(' ');
            line.extend(detail.chars().filter(|c| !c.is_control()));
        }
        line.push('\n');
        let mut response = self.0.head();
        if self.status_code() == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, REALM));
        }
        response
            .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(line)
    }
}

/// The resources, with and without a label.
pub fn configure(config: &mut ServiceConfig) {
    for base in ["/.well-known/est", "/.well-known/est/{label}"] {
        let resource = |name: &str| web::resource(format!("{base}/{name}"));
        config
            .service(resource("cacerts").route(web::get().to(ca_certificates)).default_service(not_allowed("GET")))
            .service(resource("csrattrs").route(web::get().to(attributes)).default_service(not_allowed("GET")))
            .service(resource("simpleenroll").route(web::post().to(enroll)).default_service(not_allowed("POST")))
            .service(resource("simplereenroll").route(web::post().to(renew)).default_service(not_allowed("POST")));
    }
    // serverkeygen among them: a private key is born on its device and stays there (DESIGN §3, 4).
    config.service(web::resource("/.well-known/est/{rest:.*}").to(not_found));
}

/// RFC 7030 4.1: the fleet's authority and the root.
async fn ca_certificates(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, EstProblem> {
    let fleet = label(&request, &state)?;
    let chain = chain(&state.registrar.authorities().all(), &fleet)?;
    bundle(&chain)
}

/// RFC 7030 4.5.2: no attributes are wanted. The label is checked so that a typing error is found here.
async fn attributes(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, EstProblem> {
    let fleet = label(&request, &state)?;
    chain(&state.registrar.authorities().all(), &fleet)?;
    Ok(HttpResponse::NoContent().finish())
}

/// RFC 7030 4.2.1, with a token in place of a password.
async fn enroll(request: HttpRequest, state: Data<State>, payload: web::Payload) -> Result<HttpResponse, EstProblem> {
    admit(&request)?;
    let Basic { name, token } = Basic::of(&request)?;
    let fleet = Some(label(&request, &state)?);
    let csr = read_csr(&request, payload).await?;
    let enrollment = {
        let request = EnrollRequest { fleet, name, group: None, shown: Shown::Token(token), csr, source: source(&request) };
        state.registrar.enroll(request, state.clock.now()).await?
    };
    bundle(&[enrollment.certificate.der])
}

/// RFC 7030 4.2.2, by the certificate of the connection.
async fn renew(request: HttpRequest, state: Data<State>, payload: web::Payload) -> Result<HttpResponse, EstProblem> {
    let caller = Identified::extract(&request).await?;
    require_fleet(&caller, &label(&request, &state)?)?;
    let csr = read_csr(&request, payload).await?;
    same_names(&csr, &caller.0, state.registrar.trust_domain())?;
    let enrollment = state.registrar.renew(&caller.0, &csr, state.clock.now()).await?;
    bundle(&[enrollment.certificate.der])
}

/// RFC 7030 4.2.2: a request to re-enroll names who the current certificate names. We compare where it names anybody.
fn same_names(csr: &VerifiedCsr, caller: &Caller, domain: &TrustDomain) -> Result<(), Refusal> {
    let name = caller.identity.name().as_str();
    let uri = caller.identity.uri(domain);
    let same =
        csr.common_name().is_none_or(|requested| requested == name) && csr.uris().iter().all(|requested| *requested == uri);
    if same { Ok(()) } else { Err(Refusal::InvalidValue) }
}

fn label(request: &HttpRequest, state: &State) -> Result<FleetName, Refusal> {
    request.match_info().get("label").map_or_else(|| Ok(state.default_fleet.clone()), fleet_name)
}

async fn read_csr(request: &HttpRequest, payload: web::Payload) -> Result<VerifiedCsr, Refusal> {
    if !is_of_type(request, "application/pkcs10") {
        return Err(Refusal::MediaTypeNotSupported);
    }
    VerifiedCsr::from_body(&read_body(request, payload, MAX_EST).await?)
}

/// The fleet's authorities, the active one first, and what they were issued by, up to the root.
fn chain(authorities: &AuthoritySet, fleet: &FleetName) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut chosen: Vec<_> = authorities
        .iter()
        .map(|authority| &authority.record)
        .filter(|record| record.kind == AuthorityKind::Of(Kind::Device) && record.fleet.as_ref() == Some(fleet))
        .filter(|record| record.state != AuthorityState::Revoked)
        .collect();
    chosen.sort_by_key(|record| record.state != AuthorityState::Active);
    let mut issuer = chosen.first().ok_or(Refusal::FleetUnknown)?.issuer;
    while let Some(record) = authorities.iter().map(|authority| &authority.record).find(|record| Some(record.id) == issuer) {
        // A root names nobody as its issuer, so this ends; a record that named itself would be found in the list.
        if chosen.iter().any(|known| known.id == record.id) {
            break;
        }
        chosen.push(record);
        issuer = record.issuer;
    }
    Ok(chosen.into_iter().map(|record| record.certificate.clone()).collect())
}

fn bundle(certificates: &[Vec<u8>]) -> Result<HttpResponse, EstProblem> {
    let der = certs_only(certificates).map_err(|error| registrar::Error::caused(Refusal::InternalError, error))?;
    Ok(base64_line(CERTS_ONLY, &der))
}

fn not_allowed(allow: &'static str) -> Route {
    web::route().to(move || async move {
        let mut response = EstProblem::from(Refusal::MethodNotAllowed).error_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        response
    })
}

async fn not_found() -> HttpResponse {
    EstProblem::from(Refusal::NotFound).error_response()
}
