//! The Fleetmark server and the operators' command line.

pub mod pki;
pub mod store;
