//! The device door: enroll, renew, confirm, time, EST; the ledgers, for gateways and services.
//!
//! - [`rest`]: JSON under `/v1`.
//! - [`challenge`]: questions to devices that prove themselves by an answer.
//! - [`est`]: RFC 7030 with RFC 8951 under `/.well-known/est`.
//! - [`feed`]: ledgers, tiles, entries and the stream of news (docs/feed.md).
//! - [`proof`]: tokens as they come in `Authorization`.
//! - [`renewal`]: when a device is to renew, and who may renew late.
//! - [`answer`]: what a client gets with its certificate.

pub mod answer;
pub mod challenge;
pub mod est;
pub mod feed;
pub mod proof;
pub mod renewal;
pub mod rest;

use actix_web::web::ServiceConfig;

/// The door's resources.
pub fn configure(config: &mut ServiceConfig) {
    rest::configure(config);
    renewal::configure(config);
    challenge::configure(config);
    est::configure(config);
    feed::configure(config);
    super::standing::configure(config);
    super::trust_bundle::configure(config);
}
