//! `/v1/whoami`, `/v1/status`, `/metrics`

use std::collections::BTreeSet;

use actix_web::{HttpResponse, get, web};

use super::extract::By;
use super::openapi::Look;
use super::{Answer, ok, wire};
use crate::http::State;
use crate::store::model::StoredCrl;

/// Who you are here
#[utoipa::path(
    tag = "server",
    responses((status = 200, description = "As it is now", body = wire::Whoami), Look)
)]
#[get("/v1/whoami")]
pub async fn show_whoami(state: web::Data<State>, by: By) -> Answer {
    let caller = by.0;
    Ok(ok(&wire::Whoami {
        identity: caller.identity.uri(state.registrar.trust_domain()),
        role: caller.subject.role,
        fleets: caller.subject.grants,
        serial: caller.certificate.serial.to_string(),
        not_after: caller.certificate.not_after,
        renew_after: caller.certificate.renew_after,
    }))
}

/// How the server is
///
/// What `fleetmark doctor` looks at.
#[utoipa::path(
    tag = "server",
    responses((status = 200, description = "As it is now", body = wire::Status), Look)
)]
#[get("/v1/status")]
pub async fn show_status(state: web::Data<State>, by: By) -> Answer {
    let registrar = &state.registrar;
    let authorities = registrar.authority_views(&by.0).await?;
    let known: BTreeSet<_> = authorities.iter().map(|authority| authority.record.id).collect();
    let crls = registrar.crls().iter().filter(|crl| known.contains(&crl.authority)).map(|crl| shown(crl)).collect();
    let ledgers = registrar.ledgers(&by.0).await?;
    let (urgent, ordinary) = registrar.waiting();
    Ok(ok(&wire::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: registrar.trust_domain().to_string(),
        started_at: state.started_at,
        now: state.clock.now(),
        queue: wire::Queue { urgent, ordinary },
        ledgers: ledgers
            .iter()
            .map(|record| wire::LedgerHead { name: record.name.to_string(), size: record.frontier.size() })
            .collect(),
        crls,
        authorities: authorities.into_iter().map(wire::AuthorityStatus::from).collect(),
        token_reachable: registrar.token_reachable(),
    }))
}

/// Counters and gauges for Prometheus
#[utoipa::path(
    tag = "server",
    responses((status = 200, description = "As it is now", body = String, content_type = "text/plain"), Look)
)]
#[get("/metrics")]
pub async fn show_metrics(state: web::Data<State>, _by: By) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(state.metrics.render())
}

fn shown(crl: &StoredCrl) -> wire::CrlStatus {
    wire::CrlStatus { authority: crl.authority, number: crl.number, this_update: crl.this_update, next_update: crl.next_update }
}
