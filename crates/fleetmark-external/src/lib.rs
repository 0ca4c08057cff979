//! What a certificate of another authority says of its device, and how Fleetmark calls that device. The server names a device when it
//! adopts its certificate, and a gateway names it again when the certificate is shown: both must come to the same name, so that both
//! use this. No I/O, no clock, no randomness.
//!
//! - [`certificate`]: a foreign certificate, parsed once.
//! - [`naming`]: the rule, applied.
//! - [`rules`]: an external authority's rules and CA certificates as one document.

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

pub mod certificate;
pub mod naming;
pub mod rules;

pub use certificate::{Foreign, Said, Unreadable, issuer_hash, split};
pub use naming::{Unnamed, name};

/// Ids of external authorities begin here; those of the installation's own are below.
pub const FIRST_ID: u32 = 1 << 30;

/// Whether an authority of this id is an external one.
pub const fn is_external(authority: u32) -> bool {
    authority >= FIRST_ID
}

/// SHA-256 over these parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// By what an auditor finds a certificate again on the other authority's list: SHA-256 over the external authority's id in four
/// octets, the hash of the issuer's name, and the serial number's octets.
pub fn serial_key(authority: u32, issuer: &[u8; 32], serial: &[u8]) -> [u8; 32] {
    sha256(&[&authority.to_be_bytes(), issuer, serial])
}
