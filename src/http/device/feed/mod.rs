//! The ledgers, for gateways and services (docs/feed.md): what they are, their checkpoints, tiles and entries, and the
//! stream of news. One file an operation.
//!
//! - [`ledgers`], [`checkpoint`], [`tile`], [`entries`], [`details`], [`snapshot`]: what is fetched.
//! - [`attributes`], [`authorities`], [`policies`]: what the ledgers name and do not hold.
//! - [`sightings`], [`external`]: what gateways report.
//! - [`follow`]: the stream; [`follower`]: one that is open; [`followers`]: how many may be.
//! - [`place`]: tiles in paths.

pub mod attributes;
pub mod authorities;
pub mod checkpoint;
pub mod details;
pub mod entries;
pub mod external;
pub mod follow;
pub mod follower;
pub mod followers;
pub mod ledgers;
pub mod place;
pub mod policies;
pub mod sightings;
pub mod snapshot;
pub mod tile;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Route};
use fleetmark_domain::{LedgerName, Refusal};

use crate::http::problem::not_allowed;
use crate::registrar::feed::{Place, TILE_WIDTH};

/// The resources.
pub fn configure(config: &mut ServiceConfig) {
    let get = |path: &str, route: Route| web::resource(path).route(route).default_service(not_allowed("GET"));
    let post = |path: &str, route: Route| web::resource(path).route(route).default_service(not_allowed("POST"));
    config
        .service(get("/v1/feed", web::get().to(follow::follow)))
        .service(get("/v1/ledgers", web::get().to(ledgers::ledgers)))
        .service(get("/v1/ledgers/{ledger}/checkpoint", web::get().to(checkpoint::checkpoint)))
        // The fixed words before what holds for any word.
        .service(get("/v1/ledgers/{ledger}/tile/entries/{place:.*}", web::get().to(entries::entries)))
        .service(get("/v1/ledgers/{ledger}/tile/details/{place:.*}", web::get().to(details::details)))
        .service(get("/v1/ledgers/{ledger}/tile/{level}/{place:.*}", web::get().to(tile::tile)))
        .service(get("/v1/ledgers/{ledger}/snapshot", web::get().to(snapshot::snapshot)))
        .service(get("/v1/ledgers/{ledger}/attributes", web::get().to(attributes::attributes)))
        .service(get("/v1/ledgers/{ledger}/policies/{version}", web::get().to(policies::policy)))
        .service(post("/v1/ledgers/{ledger}/sightings", web::post().to(sightings::sightings)))
        .service(get("/v1/ledgers/{ledger}/external-rules/{hash}", web::get().to(external::rules)))
        .service(post("/v1/ledgers/{ledger}/external-sightings", web::post().to(external::sightings)))
        .service(get("/v1/authorities/{fingerprint}", web::get().to(authorities::authority)));
}

/// A ledger's name in a path or a query; what cannot be one is not there.
fn ledger_name(text: &str) -> Result<LedgerName, Refusal> {
    text.parse().map_err(|_| Refusal::NotFound)
}

/// A tile or bundle: a whole one never changes.
fn octets(place: Place, body: Vec<u8>) -> HttpResponse {
    let cache = if place.width == TILE_WIDTH { "private, max-age=31536000, immutable" } else { "no-store" };
    HttpResponse::Ok().content_type("application/octet-stream").insert_header((CACHE_CONTROL, cache)).body(body)
}

/// For each: its length in two octets, big-endian, and itself (C2SP tlog-tiles, entry bundles).
fn bundle<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, Refusal> {
    let mut octets = Vec::new();
    for item in items {
        // Entries have at most 60,000 octets, details 16 KiB.
        let length = u16::try_from(item.len()).map_err(|_| Refusal::StorageDamaged)?;
        octets.extend(length.to_be_bytes());
        octets.extend(item);
    }
    Ok(octets)
}

#[cfg(test)]
mod tests;
