//! `GET /v1/ledgers/{ledger}/checkpoint`: the newest signed checkpoint.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Path};

use super::ledger_name;
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;

/// The signed note.
pub async fn checkpoint(caller: Identified, state: Data<State>, ledger: Path<String>) -> Result<HttpResponse, Problem> {
    let note = state.registrar.followed_checkpoint(&caller.0, &ledger_name(&ledger)?)?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(note.to_string()))
}
