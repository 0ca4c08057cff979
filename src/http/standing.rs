//! `POST /v1/standing`, at the device door and the public door: what the caller's certificate is worth, signed and bound to its nonce
//! (docs/own-standing.md). In JSON, or as octets for firmware.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{Refusal, RevocationReason, Serial, Timestamp};
use fleetmark_status::statement::{NONCE_LENGTH, REQUEST_LENGTH};
use serde::{Deserialize, Serialize};

use super::State;
use super::limits::{read_body, read_json};
use super::problem::{Problem, not_allowed};
use crate::pki::bundle::pem;
use crate::registrar::Error;
use crate::registrar::status::statements::SignedStatement;

/// Nonce and serial, and the statement with its signature, in their octets.
const OCTETS: &str = "application/octet-stream";

/// A question in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StandingRequest {
    /// The certificate's serial number, hexadecimal.
    serial: String,
    /// 32 random octets, hexadecimal.
    nonce: String,
}

/// The answer in JSON. What is signed is `statement` alone; the rest says the same in words.
#[derive(Debug, Serialize)]
struct StandingAnswer {
    standing: &'static str,
    /// What the device should do.
    action: &'static str,
    /// Why it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    server_time: Timestamp,
    ask_again_at: Timestamp,
    /// The statement with its signature, in base64.
    statement: String,
    /// The certificate of the key that signed, and its authority's, PEM.
    signer: String,
}

/// The resource.
pub fn configure(config: &mut ServiceConfig) {
    config.service(web::resource("/v1/standing").route(web::post().to(standing)).default_service(not_allowed("POST")));
}

async fn standing(request: HttpRequest, state: Data<State>, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let now = state.clock.now();
    let content = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content == OCTETS {
        let body = read_body(&request, payload, REQUEST_LENGTH).await?;
        let (nonce, serial) = body.split_first_chunk().ok_or(Refusal::MalformedRequest)?;
        let signed = state.registrar.own_standing(read_serial(serial)?, *nonce, now).await?;
        return Ok(uncached().content_type(OCTETS).body(signed.octets));
    }
    let asked: StandingRequest = read_json(&request, payload).await?;
    let octets = |text: &str| hex::decode(text).map_err(|_| wrong("serial and nonce are written in hexadecimal digits."));
    let nonce: [u8; NONCE_LENGTH] =
        octets(&asked.nonce)?.try_into().map_err(|_| wrong("A nonce has 32 octets: 64 hexadecimal digits."))?;
    let signed = state.registrar.own_standing(read_serial(&octets(&asked.serial)?)?, nonce, now).await?;
    Ok(uncached().json(answer(&signed)))
}

fn read_serial(octets: &[u8]) -> Result<Serial, Problem> {
    // A number that we never write was never issued.
    Ok(Serial::from_octets(octets).map_err(|_| Refusal::NotFound)?)
}

fn answer(signed: &SignedStatement) -> StandingAnswer {
    let statement = &signed.statement;
    let time = |seconds: u64| Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    let is_revoked = statement.worth == fleetmark_status::statement::Worth::Revoked;
    StandingAnswer {
        standing: statement.worth.name(),
        action: statement.action.name(),
        reason: RevocationReason::from_code(statement.reason).filter(|_| is_revoked).map(RevocationReason::as_str),
        server_time: time(statement.at),
        ask_again_at: time(statement.ask_again_at),
        statement: STANDARD.encode(&signed.octets),
        signer: pem(&signed.signer.each_ref().map(Vec::as_slice)),
    }
}

fn uncached() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "no-store"));
    response
}

fn wrong(detail: &str) -> Problem {
    Problem(Error::with_detail(Refusal::InvalidValue, detail))
}
