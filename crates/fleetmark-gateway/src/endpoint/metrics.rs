//! `GET /metrics`, and what each metric of the gateway counts.

use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Data;

use super::State;
use crate::knowledge::Knowledge;

/// What each counter of verdicts, endpoint and ledgers counts; docs/gateway.md has the same list.
pub const COUNTERS: [(&str, &str); 4] = [
    ("fleetmark_gateway_verdicts_total", "Verdicts, by decision and reason."),
    ("fleetmark_gateway_requests_refused_total", "Requests to the verdict endpoint that could not be answered, by code."),
    ("fleetmark_gateway_alarms_total", "Alarms, by name."),
    ("fleetmark_gateway_renewal_failures_total", "Tries to confirm or renew the gateway's certificate that failed, by code."),
];

/// The same of gauges.
pub const GAUGES: [(&str, &str); 4] = [
    ("fleetmark_gateway_ledger_position", "Entries of a ledger that were verified."),
    ("fleetmark_gateway_ledger_age_seconds", "Time since the signature of a ledger's newest verified checkpoint."),
    ("fleetmark_gateway_ledger_stale", "1 while a ledger is older than its fleet allows."),
    ("fleetmark_gateway_ledger_broken", "1 while a ledger contradicts itself, or nothing of it was verified yet."),
];

/// Tells the recorder that is installed what the metrics are.
pub fn describe() {
    for (name, text) in COUNTERS {
        metrics::describe_counter!(name, text);
    }
    for (name, text) in GAUGES {
        metrics::describe_gauge!(name, text);
    }
}

/// Sets the gauges to what is known now.
pub fn show(knowledge: &Knowledge) {
    let now = Instant::now();
    for ledger in knowledge.ledgers() {
        let Some(freshness) = knowledge.freshness(&ledger, now) else { continue };
        let name = ledger.to_string();
        let set = |metric: &'static str, value: f64| metrics::gauge!(metric, "ledger" => name.clone()).set(value);
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        // Beyond 2^32 entries the gauge stands still; the status says more.
        set("fleetmark_gateway_ledger_position", f64::from(u32::try_from(freshness.position).unwrap_or(u32::MAX)));
        set("fleetmark_gateway_ledger_age_seconds", freshness.age.as_secs_f64());
        set("fleetmark_gateway_ledger_stale", flag(freshness.is_stale()));
        set("fleetmark_gateway_ledger_broken", flag(freshness.broken));
    }
}

pub(super) async fn page(state: Data<State>) -> HttpResponse {
    show(&state.knowledge);
    state.metrics.run_upkeep();
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; version=0.0.4")).body(state.metrics.render())
}
