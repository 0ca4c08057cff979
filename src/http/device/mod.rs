//! The device door: enroll, renew, confirm, time, EST.
//!
//! - [`rest`]: JSON under `/v1`.
//! - [`est`]: RFC 7030 with RFC 8951 under `/.well-known/est`.
//! - [`proof`]: tokens as they come in `Authorization`.
//! - [`answer`]: what a client gets with its certificate.

pub mod answer;
pub mod est;
pub mod proof;
pub mod rest;

use actix_web::web::ServiceConfig;

/// The door's resources.
pub fn configure(config: &mut ServiceConfig) {
    rest::configure(config);
    est::configure(config);
}
