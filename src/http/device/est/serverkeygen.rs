//! `serverkeygen` (RFC 7030 4.4): the server makes the key, gives it out and forgets it. Off unless the profile turns it on.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Bytes, Data};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Refusal;
use zeroize::Zeroizing;

use super::simplereenroll::same_names;
use super::{CERTS_ONLY, EstProblem, binding, bundle, label, proof, read_csr};
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::device::proof::{admit, has_credentials};
use crate::http::device::rest::{require_fleet, source};
use crate::pki::csr::VerifiedCsr;
use crate::pki::profile::Profile;
use crate::registrar::caller::Peer;
use crate::registrar::enroll::EnrollRequest;

/// Between the parts. No line of base64 can be like it.
const BOUNDARY: &str = "fleetmark-serverkeygen";

/// Makes a key and enrolls a device with it, or renews the certificate of who comes with one of ours and shows no token.
pub(super) async fn answer(
    request: HttpRequest,
    state: Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, EstProblem> {
    admit(&request)?;
    let fleet = label(&request, &state)?;
    let profile = state.registrar.fleet_profile(&fleet).await?;
    if !profile.est.server_key_generation {
        return Err(Refusal::ServerKeygenOff.into());
    }
    let made = if !has_credentials(&request) && request.conn_data::<Peer>().is_some() {
        let caller = Identified::extract(&request).await?;
        require_fleet(&caller, &fleet)?;
        let csr = wanted(&request, payload, profile).await?;
        same_names(&csr, &caller.0)?;
        state.registrar.renew_with_made_key(&caller.0, state.clock.now()).await?
    } else {
        let (said, shown) = proof::of(&request)?;
        let csr = wanted(&request, payload, profile).await?;
        let name = proof::name(said, &shown, &csr);
        let wanted = EnrollRequest { fleet: Some(fleet), name, group: None, shown, csr, source: source(&request) };
        state.registrar.enroll_with_made_key(wanted, state.clock.now()).await?
    };
    let certificate = bundle(&[&made.enrollment.certificate.der])?;
    Ok(multipart(made.key.expose_pkcs8(), &certificate))
}

/// Reads the request. It is signed, as at `simpleenroll`: its key goes into no certificate, but by it a repeat is known
/// (RFC 7030 4.4.1 lets a server ignore both).
async fn wanted(request: &HttpRequest, payload: web::Payload, profile: &Profile) -> Result<VerifiedCsr, EstProblem> {
    let csr = read_csr(request, payload).await?;
    binding::require(request, profile, &csr)?;
    // RFC 7030 4.4.1: a server that cannot encrypt the key as it is asked to must refuse.
    if csr.asked().wants_encrypted_key() {
        return Err(Refusal::ServerKeygenEncryption.into());
    }
    Ok(csr)
}

/// The key and the certificate as multipart/mixed (RFC 7030 4.4.2): `application/pkcs8`, then certs-only.
fn multipart(pkcs8: &[u8], certificates: &[u8]) -> HttpResponse {
    let encoded = |octets: &[u8]| Zeroizing::new(STANDARD.encode(octets));
    let mut body = Zeroizing::new(Vec::with_capacity((pkcs8.len() + certificates.len()) * 2 + 1024));
    for (of, content) in [("application/pkcs8", encoded(pkcs8)), (CERTS_ONLY, encoded(certificates))] {
        for line in
            ["--", BOUNDARY, "\r\nContent-Type: ", of, "\r\nContent-Transfer-Encoding: base64\r\n\r\n", &content, "\r\n"]
        {
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
