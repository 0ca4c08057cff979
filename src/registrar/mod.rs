//! The use cases: who may do what, to whom, and what must hold before and after. Knows no framework and no wire format;
//! now is an argument.
//!
//! - [`caller`]: from a verified peer certificate to a caller in good standing, asked on every request.
//! - [`enroll`]: enroll, renew, confirm.
//! - [`standing`]: revoke, hold, release; lapse of what was never confirmed.
//! - [`fleets`], [`tokens`], [`subjects`]: what operators keep records of.
//! - [`certificates`]: search and look-up.
//! - [`authorities`]: the issuing authorities in memory: keys, certificates, index leases.
//! - [`publish`]: CRLs and OCSP answers as views of the ledger.
//! - [`audit`]: the ledgers' checkpoints, entries and proofs.
//! - [`install`]: what the first start makes.

pub mod audit;
pub mod authorities;
pub mod caller;
pub mod certificates;
pub mod enroll;
pub mod fleets;
pub mod install;
pub mod publish;
pub mod standing;
pub mod subjects;
pub mod tokens;

use std::sync::Arc;

use fleetmark_domain::{Refusal, TrustDomain};

use crate::store::{BoxError, Store, StoreError};

/// A use case's no: by name, with what may be said to the caller, and with what is for the log alone.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Error {
    /// The stable name.
    pub refusal: Refusal,
    /// One more sentence for the caller, where there is one; safe to show.
    pub detail: Option<String>,
    /// The cause, for the log alone.
    #[source]
    pub cause: Option<BoxError>,
}

/// What a use case gives.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None, cause: None }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let refusal = error.refusal();
        let cause = (!matches!(error, StoreError::Refused(_))).then(|| BoxError::from(error));
        Self { refusal, detail: None, cause }
    }
}

impl Error {
    /// A refusal with one more sentence for the caller.
    pub fn with_detail(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { refusal, detail: Some(detail.into()), cause: None }
    }

    /// A refusal because something below failed.
    pub fn caused(refusal: Refusal, cause: impl Into<BoxError>) -> Self {
        Self { refusal, detail: None, cause: Some(cause.into()) }
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Where the next page begins; None at the end. Opaque to clients.
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Where it begins; as an earlier page said.
    pub cursor: Option<String>,
    /// At most so many items, 1 to 500.
    pub limit: u32,
}

/// A create that may be repeated: `Idempotency-Key` and SHA-256 over the request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The header's value, 1 to 128 visible ASCII characters.
    pub key: String,
    /// SHA-256 over method, path and body.
    pub request_hash: [u8; 32],
}

/// The use cases, over their store, keys and profiles.
pub struct Registrar {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) authorities: authorities::Authorities,
    pub(crate) publisher: Arc<crate::ledger::Publisher>,
    pub(crate) trust_domain: TrustDomain,
}

impl Registrar {
    /// The installation's trust domain.
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities.
    pub const fn authorities(&self) -> &authorities::Authorities {
        &self.authorities
    }
}
