//! `GET /v1/ledgers/{ledger}/tile/details/{place}`: the details of a bundle's entries.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Path};

use super::{bundle, ledger_name, place};
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;

/// The details, each behind its length; of length 0 where there are none, or none any more, or none for the caller. They may
/// be erased: never to be kept by a cache.
pub async fn details(caller: Identified, state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let place = place::parse(&path.1)?;
    let entries = state.registrar.bundle(&caller.0, &ledger_name(&path.0)?, place).await?;
    let body = bundle(entries.iter().map(|stored| stored.details.as_deref().unwrap_or_default()))?;
    Ok(HttpResponse::Ok().content_type("application/octet-stream").insert_header((CACHE_CONTROL, "no-store")).body(body))
}
