//! The words of Fleetmark, as types. No I/O, no clock, no randomness.
//!
//! - [`name`]: one segment of an identity; parsed once, safe in paths, topics and logs ever after.
//! - [`identity`]: the SPIFFE ID of a device, gateway, service or operator.
//! - [`naming`]: how the device of a foreign certificate is called.
//! - [`serial`]: the 17-octet certificate serial, which carries its epoch and index.
//! - [`authority`]: the life of an authority.
//! - [`standing`]: what a certificate is worth now, and the one table of how each view shows it.
//! - [`lifecycle`]: what may happen to a device and to a certificate, and what comes of it.
//! - [`role`]: operators' roles and what each may do.
//! - [`terms`]: what a proof that devices share admits: names, networks, how many, until when.
//! - [`reenrollment`]: whether a device that was enrolled before may enroll anew.
//! - [`refusal`]: every reason for which Fleetmark says no, by its stable name.
//! - [`digest`]: fingerprints and key hashes, which must never be mixed up.
//! - [`time`]: seconds since 1970; never read from a clock here.

pub mod authority;
pub mod digest;
pub mod identity;
pub mod lifecycle;
pub mod name;
pub mod naming;
pub mod reenrollment;
pub mod refusal;
pub mod role;
pub mod serial;
pub mod standing;
pub mod terms;
pub mod time;

pub use authority::{AuthorityEvent, AuthorityState};
pub use digest::{Fingerprint, KeyHash};
pub use identity::{Identity, Kind, TrustDomain};
pub use lifecycle::{CertificateEvent, DeviceEvent, DeviceState};
pub use name::{FleetName, LedgerName, Name};
pub use naming::{NameForm, NamePart, NameSource, Naming};
pub use reenrollment::Reenrollment;
pub use refusal::Refusal;
pub use role::{Action, Role};
pub use serial::{Epoch, Index, Serial};
pub use standing::{RevocationReason, Sight, Standing, View};
pub use terms::{NamePattern, Network, Terms};
pub use time::Timestamp;
