//! `GET /v1/ledgers/{ledger}/tile/entries/{place}`: an entry bundle (C2SP tlog-tiles).

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use super::{bundle, ledger_name, octets, place};
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;

/// The entries, each behind its length.
pub async fn entries(caller: Identified, state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let place = place::parse(&path.1)?;
    let entries = state.registrar.bundle(&caller.0, &ledger_name(&path.0)?, place).await?;
    Ok(octets(place, bundle(entries.iter().map(|stored| stored.entry.as_slice()))?))
}
