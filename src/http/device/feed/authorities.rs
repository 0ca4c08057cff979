//! `GET /v1/authorities/{fingerprint}`: the certificate that an entry names by its hash.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Path};
use fleetmark_domain::{Fingerprint, Refusal};

use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;

/// The certificate in DER.
pub async fn authority(caller: Identified, state: Data<State>, fingerprint: Path<String>) -> Result<HttpResponse, Problem> {
    let fingerprint: Fingerprint = fingerprint.parse().map_err(|_| Refusal::NotFound)?;
    let certificate = state.registrar.followed_authority(&caller.0, fingerprint).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/pkix-cert")
        .insert_header((CACHE_CONTROL, "private, max-age=31536000, immutable"))
        .body(certificate))
}
