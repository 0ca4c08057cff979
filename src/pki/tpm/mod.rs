//! Keys that live in a TPM 2.0, as the TPM itself writes them down, and a secret that one TPM alone can read.
//!
//! "Part 1" and "Part 2" are the TCG's Trusted Platform Module Library, revision 1.59: Architecture, and Structures. "EK profile" is the
//! TCG's EK Credential Profile for TPM Family 2.0, version 2.5.
//!
//! - `public`: public areas (`TPM2B_PUBLIC`), parsed strictly.
//! - `credential`: `TPM2_MakeCredential` in software.

mod credential;
mod public;

use fleetmark_domain::Refusal;

pub use credential::make_credential;
pub use public::{CertifiableKey, EndorsementKey};

/// The longest `TPM2B_PUBLIC`, in octets: one of an RSA key of 4096 bits has 600 or so.
pub const MAX_PUBLIC: usize = 1024;

/// Why a TPM's structure is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// It is not the structure that it should be.
    #[error("This is not the public area of a TPM 2.0 key: {0}.")]
    Malformed(&'static str),
    /// It is no endorsement key of a kind that is known here.
    #[error("This is not an endorsement key of the TCG's default templates (RSA 2048 or ECC P-256): {0}.")]
    NotEndorsementKey(&'static str),
    /// It is no key that a certificate should be issued for.
    #[error("This key cannot be certified: {0}.")]
    NotCertifiable(&'static str),
}

impl TpmError {
    /// What a caller is told.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Malformed(_) => Refusal::MalformedRequest,
            Self::NotEndorsementKey(_) => Refusal::InvalidValue,
            Self::NotCertifiable(_) => Refusal::TpmKeyNotAcceptable,
        }
    }
}

#[cfg(test)]
mod tests;
