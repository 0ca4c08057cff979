//! The ledger's formats, made and verified: what the server writes is what an auditor reads. No I/O, no clock, no
//! randomness; docs/ledger.md says the same for a second implementation.
//!
//! - [`entry`]: one act that changed a standing or a policy, in deterministic CBOR.
//! - [`details`]: names, reasons and who did it: committed to by a salted hash, erasable.
//! - [`merkle`]: leaf and node hashes, the frontier that grows, RFC 6962 roots.
//! - [`proof`]: inclusion and consistency proofs, made from stored nodes and checked from nothing.
//! - [`note`]: keys, checkpoints, signatures and timestamped cosignatures (C2SP signed-note, tlog-checkpoint,
//!   tlog-cosignature).
//! - [`state`]: what the entries add up to, for whoever gives verdicts.
//! - [`snapshot`]: a state in octets; its hash is a leaf.
//! - [`audit`]: reads a whole ledger and names the first entry that breaks a rule.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions,
        reason = "a test fails by panicking"
    )
)]

pub mod audit;
mod cbor;
pub mod details;
pub mod entry;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod snapshot;
pub mod state;
