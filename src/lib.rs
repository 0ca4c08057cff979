//! The Fleetmark server and the operators' command line.
//!
//! - [`pki`]: keys, certificates, revocation lists, OCSP answers; knows neither who asks nor where anything is kept.
//! - [`ledger`]: signs the ledgers' checkpoints; never decides what is written in them.
//! - [`store`]: what is kept, and how it becomes durable; never decides who may do what.
//! - [`registrar`]: the use cases; knows no framework and no wire format.
//! - [`http`]: the doors: wire in, wire out; decides nothing.
//! - [`tls`]: handshakes at the doors; knows chains, not standing.
//! - [`telemetry`]: clock, logs, metrics.

pub mod http;
pub mod ledger;
pub mod pki;
pub mod registrar;
pub mod store;
pub mod telemetry;
pub mod tls;
