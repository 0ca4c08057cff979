//! `GET /v1/status` and `GET /healthz`.

use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::web::Data;
use fleetmark_domain::{LedgerName, Timestamp};
use serde::{Deserialize, Serialize};

use super::State;
use crate::knowledge::Knowledge;

/// The gateway at this moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The wall clock.
    pub time: Timestamp,
    /// The gateway's own certificate.
    pub identity: Option<IdentityStatus>,
    /// The ledgers followed, `system` first.
    pub ledgers: Vec<LedgerStatus>,
    /// The proxies.
    pub proxies: Vec<ProxyStatus>,
}

/// The gateway's own certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Its SPIFFE ID.
    pub identity: String,
    /// Its last second.
    pub not_after: Timestamp,
    /// When it is renewed.
    pub renew_after: Timestamp,
}

/// One ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Its name.
    pub ledger: String,
    /// Entries verified.
    pub position: u64,
    /// Time since the signature of the newest verified checkpoint, in milliseconds; null while there is none.
    pub age_ms: Option<u64>,
    /// Beyond this age nothing new is allowed, in milliseconds.
    pub max_age_ms: u64,
    /// Whether it is beyond.
    pub stale: bool,
    /// Whether it contradicted itself, or nothing of it was verified yet.
    pub broken: bool,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Where it listens.
    pub listen: String,
    /// Where it leads to.
    pub upstream: String,
    /// Connections now, those in their handshake included.
    pub connections: usize,
}

/// Each ledger that is followed.
fn ledgers(knowledge: &Knowledge) -> Vec<LedgerStatus> {
    let now = Instant::now();
    let status = |ledger: LedgerName| {
        let freshness = knowledge.freshness(&ledger, now)?;
        Some(LedgerStatus {
            ledger: ledger.to_string(),
            position: freshness.position,
            age_ms: u64::try_from(freshness.age.as_millis()).ok(),
            max_age_ms: u64::try_from(freshness.max_age.as_millis()).unwrap_or(u64::MAX),
            stale: freshness.is_stale(),
            broken: freshness.broken,
        })
    };
    knowledge.ledgers().into_iter().filter_map(status).collect()
}

pub(super) async fn status(state: Data<State>) -> HttpResponse {
    let (identity, proxies) = (state.report)();
    HttpResponse::Ok().json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: (state.clock)(),
        identity,
        ledgers: ledgers(&state.knowledge),
        proxies,
    })
}

/// 200 while every ledger that is followed can be relied on, `system` among them; else 503. The answer names the others.
pub(super) async fn health(state: Data<State>) -> HttpResponse {
    let ledgers = ledgers(&state.knowledge);
    let word = |ledger: &LedgerStatus| match ledger {
        LedgerStatus { broken: true, ledger, .. } => Some(format!("ledger_broken {ledger}\n")),
        LedgerStatus { stale: true, ledger, .. } => Some(format!("ledger_stale {ledger}\n")),
        _ => None,
    };
    let troubles: String = ledgers.iter().filter_map(word).collect();
    if ledgers.is_empty() {
        return HttpResponse::ServiceUnavailable().body("ledger_broken system\n");
    }
    if troubles.is_empty() { HttpResponse::Ok().body("ok\n") } else { HttpResponse::ServiceUnavailable().body(troubles) }
}
