//! The doors: wire in, wire out. Parses once, asks the registrar, writes the answer; decides nothing.
//!
//! - [`listeners`]: the doors' sockets, bound before anything else is done.
//! - [`descriptors`]: how many connections they can have.
//! - [`server`]: the servers behind them.
//! - [`watch`]: around every request: its id, its time, its metrics, and what becomes of a handler that panics.
//! - [`limits`]: how large, how long and how often.
//! - [`problem`]: refusals as problem documents (RFC 9457), logged once and counted here.
//! - [`caller`]: who calls, as typed extractors; standing is asked on every request.
//! - [`device`]: enroll, renew, confirm, time, EST.
//! - [`public`]: CRLs, OCSP, CA certificates, health.
//! - [`admin`]: the operators' REST API.
//! - [`trust_bundle`]: which roots are trusted, for anybody.
//! - [`rescue`]: the Unix socket on the server's own machine.

pub mod admin;
pub mod caller;
pub mod descriptors;
pub mod device;
pub mod limits;
pub mod listeners;
pub mod problem;
pub mod public;
pub mod rescue;
pub mod server;
mod standing;
pub mod trust_bundle;
pub mod watch;

use std::sync::Arc;

use fleetmark_domain::{FleetName, Timestamp};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::registrar::Registrar;
use crate::telemetry::clock::SharedClock;
use device::feed::followers::Followers;
use limits::AddressLimit;
use public::files::Texts;
use public::health::Pulse;

/// What every handler may use.
#[derive(Clone)]
pub struct State {
    /// The use cases.
    pub registrar: Arc<Registrar>,
    /// Now.
    pub clock: SharedClock,
    /// The fleet of EST requests without a label.
    pub default_fleet: FleetName,
    /// How often one address may try to enroll; None: as often as it likes.
    pub enrollments: Option<Arc<AddressLimit>>,
    /// When the store was last known to take writes; whoever writes on a schedule reports here.
    pub pulse: Arc<Pulse>,
    /// Large revocation lists in PEM.
    pub texts: Arc<Texts>,
    /// When this process started.
    pub started_at: Timestamp,
    /// Renders what was counted, for `GET /metrics`.
    pub metrics: PrometheusHandle,
    /// What backups are made of.
    pub backups: Arc<admin::backups::Backups>,
    /// Who follows the ledgers.
    pub followers: Arc<Followers>,
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
