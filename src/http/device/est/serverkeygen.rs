//! `serverkeygen` (RFC 7030 4.4): the server makes the key, gives it out and forgets it. Off unless the profile turns it on.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Refusal;
use zeroize::Zeroizing;

use super::EstProblem;
use crate::http::State;
use crate::http::device::proof::admit;

/// Between the parts. No line of base64 can be like it.
const BOUNDARY: &str = "fleetmark-serverkeygen";

/// Makes a key and enrolls a device with it.
pub(super) async fn answer(
    request: HttpRequest,
    _state: Data<State>,
    _payload: web::Payload,
) -> Result<HttpResponse, EstProblem> {
    admit(&request)?;
    Err(Refusal::ServerKeygenOff.into())
}

/// The key and the certificate as multipart/mixed (RFC 7030 4.4.2): `application/pkcs8`, then certs-only.
fn multipart(pkcs8: &[u8], certificates: &[u8]) -> HttpResponse {
    let encoded = |octets: &[u8]| Zeroizing::new(STANDARD.encode(octets));
    let mut body = Zeroizing::new(Vec::with_capacity((pkcs8.len() + certificates.len()) * 2 + 1024));
    for (of, content) in [("application/pkcs8", encoded(pkcs8)), (super::CERTS_ONLY, encoded(certificates))] {
        for line in ["--", BOUNDARY, "\r\nContent-Type: ", of, "\r\nContent-Transfer-Encoding: base64\r\n\r\n", &content, "\r\n"] {
            body.extend_from_slice(line.as_bytes());
        }
    }
    for line in ["--", BOUNDARY, "--\r\n"] {
        body.extend_from_slice(line.as_bytes());
    }
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, format!("multipart/mixed; boundary={BOUNDARY}")))
        .insert_header((CACHE_CONTROL, "no-store"))
        // The owner goes, and clears itself, when the last octet was written.
        .body(Bytes::from_owner(body))
}
