//! `/v1/fleets/{fleet}/expected-certificates`

use actix_web::{HttpRequest, delete, get, post, web};
use fleetmark_domain::Refusal;

use super::{AdoptedPath, AdoptedQuery, ImportInto};
use crate::http::State;
use crate::http::admin::extract::{By, Path, Query, page, refuse};
use crate::http::admin::fleets::FleetPath;
use crate::http::admin::openapi::{Act, Delete, List};
use crate::http::admin::{Answer, ok, page_of, wire};
use crate::http::limits::{is_of_type, read_body};
use crate::registrar::external::{MAX_LIST, expecting};

/// List the certificates that are adopted when they are first seen
#[utoipa::path(
    tag = "external authorities",
    params(FleetPath, AdoptedQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::ExpectedCertificate>), List)
)]
#[get("/v1/fleets/{fleet}/expected-certificates")]
pub async fn list_expected_certificates(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    query: Query<AdoptedQuery>,
) -> Answer {
    let AdoptedQuery { authority, cursor, limit } = query.0;
    let request = page(cursor, limit)?;
    let found = state.registrar.expected_certificates(&by.0, &path.0.fleet, authority.as_ref(), &request).await?;
    Ok(ok(&page_of(found, wire::ExpectedCertificate::from)))
}

/// Expect certificates of an external authority by their fingerprints
///
/// CSV of `fingerprint,device`, at most 5,000 lines and 1 MiB; the device may be left out. Each is adopted when it is first seen.
#[utoipa::path(
    tag = "external authorities",
    params(FleetPath, ImportInto),
    request_body(content((String = "text/csv"))),
    responses((status = 200, description = "What became of them", body = wire::ExternalExpectation), Act)
)]
#[post("/v1/fleets/{fleet}/expected-certificates")]
pub async fn expect_certificates(
    http: HttpRequest,
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    query: Query<ImportInto>,
    payload: web::Payload,
) -> Answer {
    if !is_of_type(&http, "text/csv") {
        return Err(refuse(Refusal::MediaTypeNotSupported, "send text/csv"));
    }
    let body = read_body(&http, payload, MAX_LIST).await?;
    let text = std::str::from_utf8(&body).map_err(|_| refuse(Refusal::MalformedRequest, "it is not UTF-8"))?;
    let lines = expecting(text).map_err(|why| refuse(Refusal::MalformedRequest, why))?;
    let place = (&path.0.fleet, &query.0.authority);
    let told = state.registrar.expect_external(&by.0, place, lines, state.clock.now()).await?;
    Ok(ok(&wire::ExternalExpectation::from(told)))
}

/// Expect a certificate no longer
#[utoipa::path(
    tag = "external authorities",
    params(AdoptedPath),
    responses((status = 200, description = "What was expected", body = wire::ExpectedCertificate), Delete)
)]
#[delete("/v1/fleets/{fleet}/expected-certificates/{fingerprint}")]
pub async fn unexpect_certificate(state: web::Data<State>, by: By, path: Path<AdoptedPath>) -> Answer {
    let view = state.registrar.unexpect_external(&by.0, &path.0.fleet, path.0.fingerprint).await?;
    Ok(ok(&wire::ExpectedCertificate::from(view)))
}
