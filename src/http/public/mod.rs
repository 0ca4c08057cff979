//! The public door: CRLs, OCSP, CA certificates, health. Plain HTTP: all of it is signed, or tells nothing (RFC 5280 8).
//!
//! - [`files`]: CA certificates and CRLs.
//! - [`ocsp`]: RFC 6960 over HTTP.
//! - [`lane`]: OCSP goes past the application.
//! - [`status`]: status lists and the keys that sign them, for firmware.
//! - [`health`]: whether the server lives, and whether it is fit to be sent requests.
//! - [`cache`]: validators and their answers.

pub mod cache;
pub mod files;
pub mod health;
pub mod lane;
pub mod ocsp;
pub mod status;

use actix_web::web::ServiceConfig;

/// The door's resources.
pub fn configure(config: &mut ServiceConfig) {
    ocsp::configure(config);
    files::configure(config);
    status::configure(config);
    super::standing::configure(config);
    health::configure(config);
    super::trust_bundle::configure(config);
}
