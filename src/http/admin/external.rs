//! `/v1/fleets/{fleet}/external-authorities`, `/v1/fleets/{fleet}/external-certificates`

mod convert;
pub mod expected;

use actix_web::{HttpRequest, HttpResponse, get, post, put, web};
use fleetmark_domain::{Fingerprint, FleetName, Name, Refusal, RevocationReason, TrustDomain};
use fleetmark_ledger::entry::ExternalState;
use serde::Deserialize;
use utoipa::IntoParams;

use super::certificates::MAX_REMARK;
use super::extract::{By, IdempotencyKey, IfMatch, Json, Path, Query, name, page, parsed, parsed_option, refuse, text};
use super::fleets::{FleetPath, PageQuery};
use super::openapi::{Act, Change, List, Look};
use super::{Answer, created, ok, page_of, schema, versioned, wire};
use crate::http::State;
use crate::http::limits::{is_of_type, read_body};
use crate::http::problem::Problem;
use crate::pki::{anchors, issue};
use crate::registrar::external::{AdoptedView, ExternalChange, ExternalView, MAX_IMPORT, NewExternal};
use crate::registrar::standing::Change as StandingChange;
use crate::store::model::{ExternalRules, ExternalSwitch};

/// An external authority in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct ExternalPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The external authority.
    #[param(value_type = schema::Name)]
    pub authority: Name,
}

/// An adopted certificate in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct AdoptedPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// SHA-256 over the certificate.
    #[param(value_type = schema::Fingerprint)]
    #[serde(deserialize_with = "parsed")]
    pub fingerprint: Fingerprint,
}

/// Whose certificates to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AdoptedQuery {
    /// Of this external authority alone.
    #[serde(default, deserialize_with = "parsed_option")]
    #[param(value_type = Option<schema::Name>)]
    pub authority: Option<Name>,
    /// Where it begins, as the page before said.
    pub cursor: Option<String>,
    /// At most so many items; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// Into which external authority's certificates to import.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ImportInto {
    /// The external authority.
    #[serde(deserialize_with = "parsed")]
    #[param(value_type = schema::Name)]
    pub authority: Name,
}

/// List a fleet's external authorities
#[utoipa::path(
    tag = "external authorities",
    params(FleetPath, PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::ExternalAuthority>), List)
)]
#[get("/v1/fleets/{fleet}/external-authorities")]
pub async fn list_external_authorities(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    query: Query<PageQuery>,
) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    Ok(ok(&page_of(state.registrar.external_authorities(&by.0, &path.0.fleet, &request).await?, shown)))
}

/// Make an external authority
///
/// What it says of its certificates is asked for before the answer; `failures` tells what went wrong.
#[utoipa::path(
    tag = "external authorities",
    params(FleetPath, IdempotencyKey),
    responses(
        (status = 201, description = "Made", body = wire::ExternalAuthority, headers(("Location" = String), ("ETag" = String))),
        Act
    )
)]
#[post("/v1/fleets/{fleet}/external-authorities")]
pub async fn create_external_authority(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    key: IdempotencyKey,
    body: Json<wire::NewExternalAuthority>,
) -> Answer {
    let idempotency = key.over(&body);
    let wire::NewExternalAuthority { name: called, ca, rules } = body.value;
    let new = NewExternal { fleet: path.0.fleet, name: name("name", &called)?, ca, rules: rules.into() };
    let view = state.registrar.create_external(&by.0, new, idempotency, state.clock.now()).await?;
    let location = format!("/v1/fleets/{}/external-authorities/{}", view.external.fleet, view.external.name);
    let version = view.external.version;
    Ok(created(&shown(view), location, Some(version)))
}

/// One external authority
#[utoipa::path(
    tag = "external authorities",
    params(ExternalPath),
    responses((status = 200, description = "As it is now", body = wire::ExternalAuthority, headers(("ETag" = String))), Look)
)]
#[get("/v1/fleets/{fleet}/external-authorities/{authority}")]
pub async fn show_external_authority(state: web::Data<State>, by: By, path: Path<ExternalPath>) -> Answer {
    Ok(answer(state.registrar.external_authority(&by.0, &path.0.fleet, &path.0.authority).await?))
}

/// Change an external authority's rules or CA certificates
#[utoipa::path(
    tag = "external authorities",
    params(ExternalPath, IfMatch),
    responses((status = 200, description = "As it is now", body = wire::ExternalAuthority, headers(("ETag" = String))), Change)
)]
#[put("/v1/fleets/{fleet}/external-authorities/{authority}")]
pub async fn change_external_authority(
    state: web::Data<State>,
    by: By,
    path: Path<ExternalPath>,
    read: IfMatch,
    body: Json<wire::ExternalAuthorityChange>,
) -> Answer {
    let wire::ExternalAuthorityChange { ca, rules } = body.value;
    let change = ExternalChange { rules: rules.map(ExternalRules::from), ca };
    let place = (&path.0.fleet, &path.0.authority);
    Ok(answer(state.registrar.change_external(&by.0, place, change, read.0, state.clock.now()).await?))
}

/// Take an external authority's certificates again
#[utoipa::path(
    tag = "external authorities",
    params(ExternalPath),
    responses((status = 200, description = "As it is now", body = wire::ExternalAuthority, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/external-authorities/{authority}/enable")]
pub async fn enable_external_authority(
    state: web::Data<State>,
    by: By,
    path: Path<ExternalPath>,
    body: Json<wire::Remark>,
) -> Answer {
    switch(&state, &by, path.0, ExternalSwitch::Enabled, body.value).await
}

/// Take none of an external authority's certificates for now
#[utoipa::path(
    tag = "external authorities",
    params(ExternalPath),
    responses((status = 200, description = "As it is now", body = wire::ExternalAuthority, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/external-authorities/{authority}/disable")]
pub async fn disable_external_authority(
    state: web::Data<State>,
    by: By,
    path: Path<ExternalPath>,
    body: Json<wire::Remark>,
) -> Answer {
    switch(&state, &by, path.0, ExternalSwitch::Disabled, body.value).await
}

/// End an external authority, for ever: none of its certificates counts any more
#[utoipa::path(
    tag = "external authorities",
    params(ExternalPath),
    responses((status = 200, description = "As it is now", body = wire::ExternalAuthority, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/external-authorities/{authority}/end")]
pub async fn end_external_authority(
    state: web::Data<State>,
    by: By,
    path: Path<ExternalPath>,
    body: Json<wire::Remark>,
) -> Answer {
    switch(&state, &by, path.0, ExternalSwitch::Ended, body.value).await
}

/// Ask an external authority now for what it says of its certificates
#[utoipa::path(
    tag = "external authorities",
    params(ExternalPath),
    responses((status = 200, description = "As it is now", body = wire::ExternalAuthority, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/external-authorities/{authority}/check")]
pub async fn check_external_authority(
    state: web::Data<State>,
    by: By,
    path: Path<ExternalPath>,
    body: Json<wire::Remark>,
) -> Answer {
    // Nothing is written down by it.
    drop(body);
    let place = (&path.0.fleet, &path.0.authority);
    Ok(answer(state.registrar.check_external(&by.0, place, state.clock.now()).await?))
}

/// List the adopted certificates of a fleet's external authorities
#[utoipa::path(
    tag = "external authorities",
    params(FleetPath, AdoptedQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::ExternalCertificate>), List)
)]
#[get("/v1/fleets/{fleet}/external-certificates")]
pub async fn list_external_certificates(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    query: Query<AdoptedQuery>,
) -> Answer {
    let AdoptedQuery { authority, cursor, limit } = query.0;
    let request = page(cursor, limit)?;
    let found = state.registrar.external_certificates(&by.0, &path.0.fleet, authority.as_ref(), &request).await?;
    Ok(ok(&page_of(found, |view| shown_certificate(state.registrar.trust_domain(), view))))
}

/// Adopt certificates of an external authority
///
/// PEM, at most 1,000 certificates and 4 MiB. Each is judged by itself: the answer is 200 where some were refused too.
#[utoipa::path(
    tag = "external authorities",
    params(FleetPath, ImportInto),
    request_body(content((String = "application/x-pem-file"))),
    responses((status = 200, description = "What became of them", body = wire::ExternalImport), Act)
)]
#[post("/v1/fleets/{fleet}/external-certificates")]
pub async fn import_external_certificates(
    http: HttpRequest,
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    query: Query<ImportInto>,
    payload: web::Payload,
) -> Answer {
    if !is_of_type(&http, "application/x-pem-file") {
        return Err(refuse(Refusal::MediaTypeNotSupported, "send application/x-pem-file"));
    }
    let pem = read_body(&http, payload, MAX_IMPORT).await?;
    let place = (&path.0.fleet, &query.0.authority);
    let imported = state.registrar.import_external(&by.0, place, &pem, state.clock.now()).await?;
    Ok(ok(&wire::ExternalImport::from(imported)))
}

/// One adopted certificate
#[utoipa::path(
    tag = "external authorities",
    params(AdoptedPath),
    responses((status = 200, description = "As it is now", body = wire::ExternalCertificate), Look)
)]
#[get("/v1/fleets/{fleet}/external-certificates/{fingerprint}")]
pub async fn show_external_certificate(state: web::Data<State>, by: By, path: Path<AdoptedPath>) -> Answer {
    let view = state.registrar.external_certificate(&by.0, &path.0.fleet, path.0.fingerprint).await?;
    Ok(ok(&shown_certificate(state.registrar.trust_domain(), view)))
}

/// Revoke an adopted certificate here, for ever, whatever its authority says
#[utoipa::path(
    tag = "external authorities",
    params(AdoptedPath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/external-certificates/{fingerprint}/revoke")]
pub async fn revoke_external_certificate(
    state: web::Data<State>,
    by: By,
    path: Path<AdoptedPath>,
    body: Json<wire::Revocation>,
) -> Answer {
    let reason = body.value.reason.unwrap_or(RevocationReason::Unspecified);
    standing(&state, &by, path.0, StandingChange::Revoke(reason), body.value.note).await
}

/// Suspend an adopted certificate here
#[utoipa::path(
    tag = "external authorities",
    params(AdoptedPath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/external-certificates/{fingerprint}/hold")]
pub async fn hold_external_certificate(
    state: web::Data<State>,
    by: By,
    path: Path<AdoptedPath>,
    body: Json<wire::Remark>,
) -> Answer {
    standing(&state, &by, path.0, StandingChange::Hold, body.value.note).await
}

/// End our suspension of an adopted certificate; its authority's goes on
#[utoipa::path(
    tag = "external authorities",
    params(AdoptedPath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/fleets/{fleet}/external-certificates/{fingerprint}/release")]
pub async fn release_external_certificate(
    state: web::Data<State>,
    by: By,
    path: Path<AdoptedPath>,
    body: Json<wire::Remark>,
) -> Answer {
    standing(&state, &by, path.0, StandingChange::Release, body.value.note).await
}

async fn switch(state: &State, by: &By, path: ExternalPath, switch: ExternalSwitch, body: wire::Remark) -> Answer {
    let note = text("note", body.note, MAX_REMARK)?;
    let place = (&path.fleet, &path.authority);
    Ok(answer(state.registrar.switch_external(&by.0, place, switch, &note, state.clock.now()).await?))
}

async fn standing(
    state: &State,
    by: &By,
    path: AdoptedPath,
    change: StandingChange,
    note: Option<String>,
) -> Result<HttpResponse, Problem> {
    let note = text("note", note, MAX_REMARK)?;
    let place = (&path.fleet, path.fingerprint);
    let changed = state.registrar.change_external_standing(&by.0, place, change, &note, state.clock.now()).await?;
    Ok(ok(&wire::StandingChange::from(changed)))
}

fn answer(view: ExternalView) -> HttpResponse {
    let version = view.external.version;
    versioned(&shown(view), version)
}

fn shown(ExternalView { external, lists, failures, rules_hash }: ExternalView) -> wire::ExternalAuthority {
    let state = match external.state() {
        ExternalState::Active => wire::ExternalState::Active,
        ExternalState::Stale => wire::ExternalState::Stale,
        ExternalState::Disabled => wire::ExternalState::Disabled,
        ExternalState::Ended => wire::ExternalState::Ended,
    };
    let certificates = anchors::split(&external.material).unwrap_or_default();
    let facts = certificates.iter().filter_map(|certificate| issue::facts(certificate).ok());
    let ca = facts.map(|facts| wire::MakerCertificate { fingerprint: facts.fingerprint, not_after: facts.not_after });
    let lists = lists.into_iter().map(|list| wire::ExternalList {
        url: list.url,
        number: hex::encode(list.number),
        this_update: list.this_update,
        next_update: list.next_update,
        fetched_at: list.fetched_at,
    });
    let failures =
        failures.into_iter().map(|failure| wire::ExternalFailure { url: failure.url, what: failure.what, at: failure.at });
    wire::ExternalAuthority {
        id: external.id,
        name: external.name,
        fleet: external.fleet,
        state,
        rules: external.rules.into(),
        rules_hash: hex::encode(rules_hash),
        ca: ca.collect(),
        lists: lists.collect(),
        failures: failures.collect(),
        adopted_on_sight: external.sighted.all,
        created_at: external.created_at,
        version: external.version,
    }
}

fn shown_certificate(domain: &TrustDomain, view: AdoptedView) -> wire::ExternalCertificate {
    let AdoptedView { known, certificate, holder, authority } = view;
    wire::ExternalCertificate {
        fingerprint: known.fingerprint,
        authority,
        foreign_serial: hex::encode(known.serial),
        serial: certificate.serial.to_string(),
        identity: holder.uri(domain),
        standing: certificate.standing.to_string(),
        own_standing: known.own.to_string(),
        foreign_standing: known.foreign.to_string(),
        reason: certificate.standing.reason(),
        generation: certificate.generation,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        adopted_at: certificate.issued_at,
        position: certificate.position,
    }
}
