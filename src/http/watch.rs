//! Around every request: its id, its limits, its time, its metrics, and what becomes of a handler that panics.

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use fleetmark_domain::Refusal;
use futures_util::FutureExt;
use ring::rand::{SecureRandom, SystemRandom};
use tracing::Instrument;

use super::limits;
use super::problem::{Problem, status};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request of `door`. The span holds method and path; never a header, a query or a body, where tokens may be.
pub async fn watch(
    door: &'static str,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = request_id();
    let span = tracing::info_span!("request", door, id, method = %request.method(), path = request.path());
    if let Err(refusal) = limits::bound(&mut request) {
        let response = span.in_scope(|| request.error_response(Problem::from(refusal)));
        return Ok(finish(door, &id, started, response));
    }
    let answered = AssertUnwindSafe(next.call(request)).catch_unwind().instrument(span.clone()).await;
    let Ok(response) = answered else {
        // The panic's words went to the log by the hook. The worker goes on: handlers share no locks.
        span.in_scope(|| tracing::error!("a handler panicked"));
        count(door, "none", status(Refusal::InternalError.class()).as_u16(), started);
        return Err(Problem::from(Refusal::InternalError).into());
    };
    Ok(finish(door, &id, started, response?))
}

fn finish(door: &'static str, id: &str, started: Instant, mut response: ServiceResponse) -> ServiceResponse {
    let route = response.request().match_pattern();
    count(door, route.as_deref().unwrap_or("none"), response.status().as_u16(), started);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}

fn count(door: &'static str, route: &str, status: u16, started: Instant) {
    let (route, status) = (route.to_owned(), status.to_string());
    metrics::histogram!("fleetmark_request_seconds", "door" => door, "route" => route.clone()).record(started.elapsed());
    metrics::counter!("fleetmark_requests_total", "door" => door, "route" => route, "status" => status).increment(1);
}

/// Distinct over restarts: random octets of this process, and a count.
fn request_id() -> String {
    static PROCESS: LazyLock<String> = LazyLock::new(|| {
        let mut octets = [0; 4];
        // Without random octets the count alone must do: the id names a line in a log and guards nothing.
        let _ = SystemRandom::new().fill(&mut octets);
        hex::encode(octets)
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
