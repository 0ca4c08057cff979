//! The real server, started as an operator starts it, and asked over its doors as devices, gateways and operators ask.
//!
//! - [`harness`]: the server's process, clients, keys, forged certificates.
//! - the other modules: the tests, by what they try to break.
//!
//! Tests that disturb nobody share one server, each with a fleet of its own; the others start their own.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::missing_panics_doc,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::single_match_else,
    clippy::format_push_string,
    clippy::match_same_arms,
    clippy::disallowed_methods,
    clippy::must_use_candidate,
    reason = "a test fails by panicking, and tells its story in one piece"
)]

mod abuse;
mod approval;
mod authorities;
mod ceremony;
mod certificates;
mod claims;
mod corporate;
mod csr;
mod derived;
mod drill;
mod enrollment;
mod est;
mod external;
mod feed;
mod gateway;
mod groups;
mod harness;
mod hsm;
mod import;
mod kill;
mod layering;
mod ledger;
mod lifecycle;
mod limits;
mod lists;
mod machine;
mod makers;
mod manual;
mod matrix;
mod operators;
mod policies;
mod power;
mod production;
mod races;
mod renewal;
mod rest;
mod restart;
mod revocations;
mod root_rollover;
mod standing;
mod status_lists;
mod tokens;
mod tpm;
mod webhook;
