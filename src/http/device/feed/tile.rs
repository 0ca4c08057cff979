//! `GET /v1/ledgers/{ledger}/tile/{level}/{place}`: hashes of the tree (C2SP tlog-tiles).

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use fleetmark_domain::Refusal;

use super::{ledger_name, octets, place};
use crate::http::State;
use crate::http::caller::Identified;
use crate::http::problem::Problem;

/// The hashes, 32 octets each.
pub async fn tile(
    caller: Identified,
    state: Data<State>,
    path: Path<(String, String, String)>,
) -> Result<HttpResponse, Problem> {
    let (ledger, level, tile) = path.into_inner();
    // Levels have no leading zeros: each tile has one path.
    let number = level.parse::<u8>().ok().filter(|number| number.to_string() == level).ok_or(Refusal::NotFound)?;
    let place = place::parse(&tile)?;
    let hashes = state.registrar.tile(&caller.0, &ledger_name(&ledger)?, number, place).await?;
    Ok(octets(place, hashes.iter().flat_map(|hash| hash.0).collect()))
}
