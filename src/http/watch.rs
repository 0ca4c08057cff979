//! Around every request: its id, its limits, its time, its metrics, and what becomes of a handler that panics.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use fleetmark_domain::Refusal;
use futures_util::FutureExt;
use metrics::{Counter, Histogram};
use ring::rand::{SecureRandom, SystemRandom};
use tracing::{Instrument, Span};

use super::device::est::{EstProblem, is_est};
use super::limits::{Body, check_uri};
use super::problem::{Problem, status};

/// The route of what reached none.
const NO_ROUTE: Cow<'static, str> = Cow::Borrowed("none");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request of `door`.
pub async fn watch(
    door: &'static str,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let watched = Watched::begin(door, request.head());
    let body = Body::bound(&mut request);
    let is_est = is_est(request.path());
    if let Err(refusal) = check_uri(request.uri()) {
        let response = watched.span.in_scope(|| {
            if is_est {
                request.error_response(EstProblem::from(refusal))
            } else {
                request.error_response(Problem::from(refusal))
            }
        });
        return Ok(finish(&watched, response));
    }
    let Some(answered) = watched.catch(next.call(request)).await else {
        let refusal = Refusal::InternalError;
        return Err(if is_est { EstProblem::from(refusal).into() } else { Problem::from(refusal).into() });
    };
    let response = answered?;
    if response.status() != StatusCode::REQUEST_TIMEOUT {
        body.drain().await;
    }
    Ok(finish(&watched, response))
}

fn finish(watched: &Watched, mut response: ServiceResponse) -> ServiceResponse {
    let route = response.request().match_pattern().map_or(NO_ROUTE, Cow::Owned);
    let status = response.status();
    watched.end(route, status, response.headers_mut());
    response
}

/// A request that is being answered.
pub struct Watched {
    door: &'static str,
    id: String,
    started: Instant,
    span: Span,
}

impl Watched {
    /// The span holds method and path; never a header, a query or a body, where tokens may be.
    pub fn begin(door: &'static str, head: &RequestHead) -> Self {
        let (started, id) = (Instant::now(), request_id());
        let span = tracing::info_span!("request", door, id, method = %head.method, path = head.uri.path());
        Self { door, id, started, span }
    }

    /// What `answer` comes to; None if it panics, which is logged and counted. The worker goes on: handlers share no locks.
    pub async fn catch<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let answered = AssertUnwindSafe(answer).catch_unwind().instrument(self.span.clone()).await;
        answered.ok().or_else(|| {
            // The panic's words went to the log by the hook.
            self.span.in_scope(|| tracing::error!("a handler panicked"));
            self.count(NO_ROUTE, status(Refusal::InternalError.class()));
            None
        })
    }

    /// Counts the answer, and gives it the headers that all have.
    pub fn end(&self, route: Cow<'static, str>, status: StatusCode, headers: &mut HeaderMap) {
        self.count(route, status);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }

    fn count(&self, route: Cow<'static, str>, status: StatusCode) {
        COUNTED.with_borrow_mut(|counted| {
            let key = (self.door, status.as_u16(), route);
            let counted = counted.entry(key).or_insert_with_key(|(door, status, route)| Counted {
                seconds: metrics::histogram!("fleetmark_request_seconds", "door" => *door, "route" => route.clone()),
                requests: metrics::counter!(
                    "fleetmark_requests_total", "door" => *door, "route" => route.clone(), "status" => status.to_string()
                ),
            });
            counted.seconds.record(self.started.elapsed());
            counted.requests.increment(1);
        });
    }
}

/// What counts the requests of a door, a route and a status.
struct Counted {
    seconds: Histogram,
    requests: Counter,
}

/// By door, status and route.
type Counts = HashMap<(&'static str, u16, Cow<'static, str>), Counted>;

thread_local! {
    /// Each worker keeps its own: to look a metric up by its labels costs many times what it costs to count.
    static COUNTED: RefCell<Counts> = RefCell::default();
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

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::{App, HttpResponse, web};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::http::limits::extractors;

    async fn panics() -> HttpResponse {
        panic!("as the test wants it")
    }

    #[actix_web::test]
    async fn a_panic_is_answered_by_name_and_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let app = init_service(
            App::new()
                .configure(extractors)
                .route("/panics", web::get().to(panics))
                .route("/works/{name}", web::get().to(HttpResponse::Ok))
                .wrap(from_fn(|request: ServiceRequest, next: Next<BoxBody>| watch("test", request, next))),
        )
        .await;
        for _ in 0..2 {
            // The server writes an error as its response; so does this.
            let error = actix_web::dev::Service::call(&app, TestRequest::get().uri("/panics").to_request()).await.unwrap_err();
            let response = error.error_response();
            assert_eq!(response.status(), 500);
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&document["code"], &document["type"]),
                (&"internal_error".into(), &"urn:fleetmark:problem:internal_error".into())
            );
        }
        let response = call_service(&app, TestRequest::get().uri("/works/a").to_request()).await;
        assert_eq!(response.status(), 200);
        let ids: Vec<_> = response.headers().get_all(X_REQUEST_ID).cloned().collect();
        assert_eq!(ids.len(), 1);
        assert!(read_body(response).await.is_empty());
        let counted = recorder.handle().render();
        for line in [
            "fleetmark_requests_total{door=\"test\",route=\"none\",status=\"500\"} 2",
            "fleetmark_requests_total{door=\"test\",route=\"/works/{name}\",status=\"200\"} 1",
            "fleetmark_refused_total{code=\"internal_error\"} 2",
        ] {
            assert!(counted.contains(line), "{line}\n{counted}");
        }
    }

    #[test]
    fn ids_are_distinct() {
        assert_ne!(request_id(), request_id());
    }
}
