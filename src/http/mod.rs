//! The doors: wire in, wire out. Parses once, asks the registrar, writes the answer; decides nothing.
//!
//! - [`problem`]: refusals as problem documents (RFC 9457), logged once and counted here.
//! - [`caller`]: who calls, as typed extractors; standing is asked on every request.
//! - [`device`]: enroll, renew, confirm, time, EST.
//! - [`public`]: CRLs, OCSP, CA certificates, health.
//! - [`admin`]: the operators' REST API.

pub mod admin;
pub mod caller;
pub mod device;
pub mod problem;
pub mod public;

use std::sync::Arc;

use crate::registrar::Registrar;
use crate::telemetry::clock::SharedClock;

/// What every handler may use.
#[derive(Clone)]
pub struct State {
    /// The use cases.
    pub registrar: Arc<Registrar>,
    /// Now.
    pub clock: SharedClock,
}
