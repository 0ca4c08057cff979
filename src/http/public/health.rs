//! Whether the server lives, and whether it is fit to be sent requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data, ServiceConfig};
use arc_swap::ArcSwap;
use fleetmark_domain::Timestamp;
use rustls::sign::CertifiedKey;
use serde::Serialize;

use super::files::readable;
use crate::http::State;
use crate::pki::issue::facts;
use crate::store::model::StoredCrl;

/// A store that took no write for so long is not taken for writable.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// When the store last took a write.
#[derive(Debug, Default)]
pub struct Pulse(AtomicI64);

impl Pulse {
    /// The store took a write at `now`, which a clock that was put right has before the last one's time.
    pub fn written(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// When it last did.
    pub fn last(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// The certificates that the doors show, by the door's name.
#[derive(Clone)]
pub struct DoorCertificates(pub Vec<(&'static str, Arc<ArcSwap<CertifiedKey>>)>);

/// The answer of `/readyz`. It names what is wrong and no more: anybody may ask.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Whether all checks are passed.
    pub ready: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
}

/// The resources.
pub fn configure(config: &mut ServiceConfig) {
    config.service(readable("/healthz", web::route().to(alive))).service(readable("/readyz", web::route().to(ready)));
}

async fn alive() -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(serde_json::json!({ "alive": true }))
}

async fn ready(state: Data<State>, doors: Data<DoorCertificates>) -> HttpResponse {
    let readiness = readiness(&state.pulse, &state.registrar.crls(), &doors, state.clock.now());
    let mut response = if readiness.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((CACHE_CONTROL, "no-store")).json(readiness)
}

/// The checks at `now`. A server without any list is not ready: gateways that ask for one would refuse everybody.
pub fn readiness(pulse: &Pulse, lists: &[Arc<StoredCrl>], doors: &DoorCertificates, now: Timestamp) -> Readiness {
    let check = |name: &str, ok| Check { name: name.to_owned(), ok };
    let mut checks = vec![
        check("store_writable", now.0.abs_diff(pulse.last().0) <= WRITTEN_WITHIN.as_secs()),
        check("crls_current", !lists.is_empty() && lists.iter().all(|list| now < list.next_update)),
    ];
    for (door, certificate) in &doors.0 {
        let facts = certificate.load().cert.first().and_then(|der| facts(der).ok());
        let valid = facts.is_some_and(|facts| facts.not_before <= now && now < facts.not_after);
        checks.push(check(&format!("{door}_door_certificate"), valid));
    }
    Readiness { ready: checks.iter().all(|check| check.ok), checks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let list = |next_update| {
            let (der, this_update) = (Vec::new(), Timestamp(0));
            Arc::new(StoredCrl { authority: 1, number: 1, this_update, next_update: Timestamp(next_update), position: 0, der })
        };
        let pulse = Pulse::default();
        // The clock was ahead, and was put right.
        pulse.written(Timestamp(90_000));
        pulse.written(Timestamp(1000));
        let doors = DoorCertificates(Vec::new());
        let wrong = |lists: &[_], now| {
            let readiness = readiness(&pulse, lists, &doors, Timestamp(now));
            let wrong: Vec<_> = readiness.checks.into_iter().filter(|check| !check.ok).map(|check| check.name).collect();
            assert_eq!(readiness.ready, wrong.is_empty());
            wrong
        };
        assert!(wrong(&[list(2000)], 1060).is_empty());
        assert_eq!(wrong(&[list(2000)], 1061), ["store_writable"]);
        assert_eq!(wrong(&[list(2000)], 939), ["store_writable"]);
        assert_eq!(wrong(&[list(2000), list(1001)], 1001), ["crls_current"]);
        assert_eq!(wrong(&[], 1001), ["crls_current"]);
    }
}
