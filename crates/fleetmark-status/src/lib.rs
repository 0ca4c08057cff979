//! The status list: a signed, compact list of the certificates of an epoch that are not good, small enough for firmware.
//! docs/status-list.md says the same for a second implementation.
//!
//! Read without an allocator and without a panic; made with feature `std`. No I/O, no clock, no randomness.
//!
//! - [`header`]: what a list is about, and where its parts are.
//! - [`reason`]: answers and refusals, with their stable codes.
//! - [`reader`]: opens a list and answers for an index; the only module that firmware needs.
//! - [`blocks`]: the Golomb-Rice blocks of a list; knows nothing of signatures and times.
//! - [`statement`]: what one certificate is worth, told to its holder.
//! - [`key`]: P-256 and SHA-256 in Rust, for firmware that has none (feature `p256`).
//! - [`encoder`]: makes a list; the signature is the caller's (feature `std`).
//! - `ffi`: the C functions (feature `ffi`); the only module with `unsafe`.

#![no_std]
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

#[cfg(any(feature = "std", test))]
extern crate std;

pub mod blocks;
#[cfg(any(feature = "std", test))]
pub mod encoder;
#[cfg(any(feature = "ffi", test))]
pub mod ffi;
pub mod header;
#[cfg(feature = "p256")]
pub mod key;
pub mod reader;
pub mod reason;
pub mod statement;

/// The extended key usage (RFC 5280 4.2.1.12) of the keys that sign status lists and statements of standing,
/// 2.25.257790598835804158408139993016795951822, from the UUID c1f0a9d2-7b34-4e86-a5d9-0b6e3f4872ce: content octets, without tag and
/// length. It is ours alone, so that nobody else takes such a key for anything.
pub const STATUS_SIGNING_EKU: [u8; 20] =
    [0x69, 0x83, 0x83, 0xf0, 0xd4, 0xf4, 0xcf, 0xb3, 0xa2, 0xba, 0x8d, 0xa5, 0xec, 0xc2, 0xed, 0xe3, 0xfa, 0xa1, 0xe5, 0x4e];

pub use header::{Scope, slice_of};
pub use reader::{List, Terms, Verify};
pub use reason::{Answer, Refusal};
