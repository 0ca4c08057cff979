//! The device's side of Fleetmark: a key that is born here and stays here, a certificate for it, and its renewal.
//!
//! - [`agent`]: one directory, one identity; enroll, confirm, renew, run, status. Start here.
//! - [`client`]: the server's resources, one method each; keeps nothing.
//! - [`door`]: a fleet's door or the installation's, and the server's address.
//! - [`proof`]: what a device shows to be allowed to enroll.
//! - [`bootstrap`]: the first contact, pinned by a fingerprint. Sends nothing that matters.
//! - [`bundle`]: from a former root to those of today, by what roots signed.
//! - [`trust`] and `verifier`: the roots, and who the server is, for a device whose clock may stand at 1970.
//! - [`clock`]: wall clock, monotonic clock, and what a verified server said.
//! - [`answer`]: judges a certificate before it may replace anything.
//! - [`store`]: the files; each step whole or not done.
//! - [`key`], [`pkcs7`], [`wire`], `http`, [`backoff`]: the parts. None of them decides anything.
//! - [`cli`]: the program `fleetmark-device`.
//!
//! ```no_run
//! # async fn example() -> Result<(), fleetmark_device::Error> {
//! use std::{path::Path, sync::Arc};
//! use fleetmark_device::{Agent, Door, Setup, SystemClock, Token};
//!
//! let setup = Setup {
//!     server: "https://ca.example:8443".parse()?,
//!     ca_fingerprint: "00".repeat(32).parse().map_err(|_| fleetmark_device::Error::Usage("fingerprint".into()))?,
//!     door: Door::Installation,
//!     name: None,
//! };
//! let mut agent = Agent::set_up(Path::new("/var/lib/fleetmark"), &setup, Arc::new(SystemClock::default())).await?;
//! agent.enroll(&Token::new("fmt_…")?.into(), false).await?;
//! agent.confirm().await?;
//! # Ok(()) }
//! ```

pub mod agent;
pub mod answer;
pub mod backoff;
pub mod bootstrap;
pub mod bundle;
pub mod cli;
pub mod client;
pub mod clock;
pub mod door;
pub mod error;
mod http;
pub mod key;
pub mod pkcs7;
pub mod proof;
pub mod store;
#[cfg(test)]
mod testing;
pub mod trust;
mod verifier;
pub mod wire;

pub use agent::{Agent, Confirmation, Enrollment, Renewal, Setup, Status, TrustUpdate, status};
pub use answer::Record;
pub use client::{Client, Token};
pub use clock::{Clock, DeviceTime, SystemClock};
pub use door::{Door, ServerUrl};
pub use error::{Error, Refused};
pub use http::tls_config;
pub use key::DeviceKey;
pub use proof::{DerivedKey, Presented, Proof};
pub use store::{Generation, Store};
pub use trust::{Roots, fingerprint};
pub use wire::{Confirmed, Issued, RenewalTime};
