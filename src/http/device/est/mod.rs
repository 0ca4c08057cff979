//! Enrollment over Secure Transport: RFC 7030 with the clarifications of RFC 8951 and RFC 9908. The label of the path is a
//! fleet; without one it is the default fleet. Every refusal is one line of text that begins with its code. docs/est.md tells
//! clients' makers what is taken for what.
//!
//! - [`cacerts`], [`csrattrs`], [`simpleenroll`], [`simplereenroll`], [`serverkeygen`]: the operations.
//! - [`proof`]: what a client shows.
//! - [`binding`]: requests bound to their TLS connection.

mod binding;
mod cacerts;
mod csrattrs;
mod proof;
mod serverkeygen;
mod simpleenroll;
mod simplereenroll;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError, Route};
use fleetmark_domain::{FleetName, Refusal};

use super::answer::base64_line;
use super::rest::fleet_name;
use crate::http::State;
use crate::http::limits::{MAX_EST, is_of_type, read_body};
use crate::http::problem::Problem;
use crate::pki::bundle::certs_only;
use crate::pki::csr::VerifiedCsr;
use crate::registrar;

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

/// Whether a path is below EST's, where refusals are lines of text, also those that no handler of EST gives.
pub fn is_est(path: &str) -> bool {
    path.starts_with("/.well-known/est/")
}

/// The resources, with and without a label.
pub fn configure(config: &mut ServiceConfig) {
    for base in ["/.well-known/est", "/.well-known/est/{label}"] {
        let resource = |name: &str| web::resource(format!("{base}/{name}"));
        config
            .service(resource("cacerts").route(web::get().to(cacerts::answer)).default_service(not_allowed("GET")))
            .service(resource("csrattrs").route(web::get().to(csrattrs::answer)).default_service(not_allowed("GET")))
            .service(resource("simpleenroll").route(web::post().to(simpleenroll::answer)).default_service(not_allowed("POST")))
            .service(
                resource("simplereenroll").route(web::post().to(simplereenroll::answer)).default_service(not_allowed("POST")),
            )
            .service(resource("serverkeygen").route(web::post().to(serverkeygen::answer)).default_service(not_allowed("POST")));
    }
    // fullcmc among them, which is optional (RFC 7030 4.3).
    config.service(web::resource("/.well-known/est/{rest:.*}").to(not_found));
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

/// 200 with these certificates.
fn certificates<D: AsRef<[u8]>>(certificates: &[D]) -> Result<HttpResponse, EstProblem> {
    Ok(base64_line(CERTS_ONLY, &bundle(certificates)?))
}

/// These certificates as certs-only PKCS#7, in DER.
fn bundle<D: AsRef<[u8]>>(certificates: &[D]) -> Result<Vec<u8>, EstProblem> {
    Ok(certs_only(certificates).map_err(|error| registrar::Error::caused(Refusal::InternalError, error))?)
}

fn not_allowed(allow: &'static str) -> Route {
    web::route().to(move || async move {
        let mut response = EstProblem::from(Refusal::MethodNotAllowed).error_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        response
    })
}

/// What EST answers for a path that is not there.
async fn not_found() -> HttpResponse {
    EstProblem::from(Refusal::NotFound).error_response()
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::http::header::RETRY_AFTER;

    use super::*;

    #[actix_web::test]
    async fn every_refusal_is_one_line_that_begins_with_its_code() {
        for refusal in Refusal::ALL {
            let response = EstProblem::from(*refusal).error_response();
            let status = response.status().as_u16();
            let header = |name| response.headers().get(name).cloned();
            assert_eq!(header(CONTENT_TYPE).unwrap(), "text/plain; charset=utf-8");
            assert_eq!(header(WWW_AUTHENTICATE).is_some(), status == 401, "{refusal}");
            assert_eq!(header(RETRY_AFTER).is_some(), matches!(status, 202 | 429 | 503), "{refusal}");
            let body = to_bytes(response.into_body()).await.unwrap();
            let line = std::str::from_utf8(&body).unwrap().strip_suffix('\n').unwrap();
            assert!(line.starts_with(&format!("{}: ", refusal.code())) && !line.contains(char::is_control), "{line}");
        }
    }

    /// RFC 7030 4.2.3: 202 with Retry-After where a person has to decide.
    #[actix_web::test]
    async fn who_must_wait_is_told_when_to_come_again() {
        let response = EstProblem::from(Refusal::ApprovalPending).error_response();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let after: u32 = response.headers().get(RETRY_AFTER).unwrap().to_str().unwrap().parse().unwrap();
        assert!(after > 0);
    }

    #[actix_web::test]
    async fn a_detail_stays_on_the_line() {
        let error = registrar::Error::with_detail(Refusal::InvalidName, "one\r\ntwo: \u{7}three");
        let body = to_bytes(EstProblem::from(error).error_response().into_body()).await.unwrap();
        let line = String::from_utf8(body.to_vec()).unwrap();
        assert!(line.ends_with("onetwo: three\n") && line.matches('\n').count() == 1, "{line}");
    }
}
