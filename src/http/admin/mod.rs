//! The admin door: the operators' REST API.

/// The door's resources.
pub fn configure(_: &mut actix_web::web::ServiceConfig) {}
