//! Other authorities, for gateways that see certificates of theirs: `GET /v1/ledgers/{ledger}/external-rules/{hash}`, by what they verify
//! them, and `POST /v1/ledgers/{ledger}/external-sightings`, by which they report those that are not adopted.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_domain::{Fingerprint, Refusal};
use serde::{Deserialize, Serialize};

use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::device::answer::private_json;
use crate::http::limits::read_json_within;
use crate::http::problem::Problem;
use crate::registrar::external::Fate;
use crate::registrar::feed::may_follow;

/// The largest report, in octets: 16 certificates of 16 KiB in base64, and some space between.
const MAX_REPORT: usize = 384 * 1024;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    /// 1 to 16, DER in base64.
    certificates: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Judged {
    certificates: Vec<Outcome>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    fingerprint: String,
    outcome: &'static str,
}

/// Rules and CA certificates, by their hash in the ledger.
pub async fn rules(caller: Identified, state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (ledger, hash) = path.into_inner();
    let hash: Fingerprint = hash.parse().map_err(|_| Refusal::NotFound)?;
    let document = state.registrar.followed_rules(&caller.0, &ledger_name(&ledger)?, hash).await?;
    Ok(HttpResponse::Ok().content_type("application/octet-stream").insert_header((CACHE_CONTROL, "no-store")).body(document))
}

/// Judges what a gateway saw; what may be is adopted.
pub async fn sightings(
    caller: Identified,
    request: HttpRequest,
    state: Data<State>,
    ledger: Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let ledger = ledger_name(&ledger)?;
    // Who may not report is told so before the body is read.
    may_follow(&caller.0, &ledger)?;
    let report: Report = read_json_within(&request, payload, MAX_REPORT).await?;
    let read = |text: &String| BASE64_STANDARD.decode(text).map_err(|_| Refusal::InvalidValue);
    let reported = report.certificates.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let judged = state.registrar.adopt_reported(&caller.0, &ledger, &reported, state.clock.now()).await?;
    let certificates = judged.into_iter().map(|one| Outcome {
        fingerprint: one.fingerprint.to_string(),
        outcome: match one.outcome {
            Ok(Fate::Adopted) => "adopted",
            Ok(Fate::Known) => "known",
            Err(refusal) => refusal.code(),
        },
    });
    Ok(private_json(&Judged { certificates: certificates.collect() }))
}
