//! `POST /v1/ledgers/{ledger}/sightings`: certificates that a gateway saw in use.

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::{Fingerprint, Refusal, Serial};
use serde::{Deserialize, Serialize};

use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::device::answer::private_json;
use crate::http::limits::read_json_within;
use crate::http::problem::Problem;
use crate::registrar::feed::{Sighting, may_follow};

/// The largest report, in octets: 1,000 sightings and some space between.
const MAX_REPORT: usize = 256 * 1024;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    /// 1 to 1,000.
    sightings: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// Hexadecimal.
    serial: String,
    /// SHA-256 over the certificate, hexadecimal.
    fingerprint: String,
}

#[derive(Debug, Serialize)]
struct Sighted {
    /// So many were confirmed by this report.
    confirmed: usize,
    /// So many were confirmed before.
    known: usize,
    /// The others.
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    serial: String,
    code: &'static str,
}

/// Confirms what was unconfirmed.
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
    let sightings = report.sightings.iter().map(Seen::read).collect::<Result<_, _>>()?;
    let sighted = state.registrar.sighted(&caller.0, &ledger, sightings, state.clock.now()).await?;
    let refused = sighted.refused.iter().map(|(serial, refusal)| Refused { serial: serial.to_string(), code: refusal.code() });
    Ok(private_json(&Sighted { confirmed: sighted.confirmed, known: sighted.known, refused: refused.collect() }))
}

impl Seen {
    fn read(&self) -> Result<Sighting, Refusal> {
        let serial: Serial = self.serial.parse().map_err(|_| Refusal::InvalidValue)?;
        let fingerprint: Fingerprint = self.fingerprint.parse().map_err(|_| Refusal::InvalidValue)?;
        Ok(Sighting { serial, fingerprint })
    }
}
