//! Certificate requests: PKCS#10 (RFC 2986), parsed and verified by checks of our own.

use fleetmark_domain::{KeyHash, Refusal};

use super::keys::KeyAlgorithm;

/// The largest certificate request, in octets of DER.
pub const MAX_CSR: usize = 16 * 1024;

/// A certificate request whose proof of possession was checked and whose key is acceptable. Nothing of its names is
/// ever copied into a certificate; they are kept to be compared.
#[derive(Debug, Clone)]
pub struct VerifiedCsr {
    spki: Vec<u8>,
    key_hash: KeyHash,
    algorithm: KeyAlgorithm,
    common_name: Option<String>,
    uris: Vec<String>,
}

impl VerifiedCsr {
    /// Reads and verifies DER: one request, nothing behind it, a sound signature by an acceptable key.
    ///
    /// # Errors
    /// `CsrTooLarge`, `CsrMalformed`, `CsrTrailingOctets`, `CsrBadSignature`, `CsrDigestWeak`, `KeyWeak`, `KeyTypeNotAllowed`.
    pub fn from_der(_der: &[u8]) -> Result<Self, Refusal> {
        todo!()
    }

    /// Reads a request as clients send it: PEM, base64 on one line or wrapped (LF or CRLF), or DER.
    pub fn from_body(_body: &[u8]) -> Result<Self, Refusal> {
        todo!()
    }

    /// `SubjectPublicKeyInfo` in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 over [`Self::spki`].
    pub const fn key_hash(&self) -> KeyHash {
        self.key_hash
    }

    /// The key's algorithm.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The subject's common name, if it is valid UTF-8 of at most 64 characters.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// URI names in a requested subjectAltName.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }
}
