//! `GET /v1/ledgers/{ledger}/policies/{version}`: the policy set whose hash a `policy-activated` entry holds.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Path};
use fleetmark_domain::Refusal;

use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;

/// The text. A version never changes.
pub async fn policy(caller: Identified, state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (ledger, version) = path.into_inner();
    let version = version.parse().map_err(|_| Refusal::NotFound)?;
    let set = state.registrar.followed_policy(&caller.0, &ledger_name(&ledger)?, version).await?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((CACHE_CONTROL, "private, max-age=31536000, immutable"))
        .body(set.text))
}
