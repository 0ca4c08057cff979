//! The Fleetmark server and the operators' command line.
//!
//! - [`pki`]: keys, certificates, revocation lists, OCSP answers; knows neither who asks nor where anything is kept.
//! - [`ceremony`]: a root on a machine of its own, by files; knows no server and no network.
//! - [`ledger`]: signs the ledgers' checkpoints; never decides what is written in them.
//! - [`store`]: what is kept, and how it becomes durable; never decides who may do what.
//! - [`registrar`]: the use cases; knows no framework and no wire format.
//! - [`http`]: the doors: wire in, wire out; decides nothing.
//! - [`tls`]: handshakes at the doors; knows chains, not standing.
//! - [`telemetry`]: clock, logs, metrics.
//! - [`config`]: read once, checked, then a type; never read again.
//! - [`backup`]: the encrypted file that an installation is restored from; knows files, not what is in them.
//! - [`jobs`]: what the server does by itself.
//! - [`server`]: all of it put together.
//! - [`cli`]: the operators' command line; talks to the admin door, never to the database.

pub mod backup;
pub mod ceremony;
pub mod cli;
pub mod config;
pub mod http;
pub mod jobs;
pub mod ledger;
pub mod pki;
pub mod registrar;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
