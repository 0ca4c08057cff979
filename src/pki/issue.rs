//! Issuing: template → to-be-signed octets → lint → the real key's signature.

use std::net::IpAddr;
use std::sync::Arc;

use fleetmark_domain::{Fingerprint, KeyHash, Serial, Timestamp};

use super::PkiError;
use super::keys::Signer;
use super::profile::Profile;

/// An authority that can sign: its certificate and its key.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The certificate in DER.
    pub certificate: Arc<[u8]>,
    /// The key.
    pub signer: Arc<dyn Signer>,
}

/// Where relying parties find an authority's status and certificate; written into what it issues.
#[derive(Debug, Clone, Default)]
pub struct Pointers {
    /// AIA id-ad-ocsp.
    pub ocsp: Option<String>,
    /// AIA id-ad-caIssuers.
    pub ca_issuers: Option<String>,
    /// The one CRL distribution point.
    pub crl: Option<String>,
}

/// What goes into a certificate, all of it from our own records.
#[derive(Debug, Clone)]
pub struct Template<'a> {
    /// Usages, constraints and what names are allowed.
    pub profile: &'a Profile,
    /// Serial number.
    pub serial: Serial,
    /// Subject CN.
    pub common_name: &'a str,
    /// Subject O: the fleet, or the trust domain.
    pub organization: &'a str,
    /// The SPIFFE ID.
    pub uri: Option<&'a str>,
    /// Registered DNS names.
    pub dns_names: &'a [String],
    /// Registered addresses.
    pub addresses: &'a [IpAddr],
    /// Start of validity, backdated already.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The holder's `SubjectPublicKeyInfo` in DER.
    pub spki: &'a [u8],
    /// The issuer's pointers.
    pub pointers: &'a Pointers,
}

/// A certificate as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate.
    pub der: Vec<u8>,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// SHA-256 over its `SubjectPublicKeyInfo`.
    pub key_hash: KeyHash,
}

/// Signs a certificate: encodes the template with a capturing key, lints those octets, signs exactly them.
/// A root signs itself: its issuer's `certificate` is empty and its `signer` holds the key in `spki`.
pub fn issue(_issuer: &Issuer, _template: &Template<'_>) -> Result<IssuedCertificate, PkiError> {
    todo!()
}

/// What the server reads back from a certificate of its own or a peer's. Parsed once, at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The serial; None for one that we never write.
    pub serial: Option<Serial>,
    /// SHA-256 over the certificate.
    pub fingerprint: Fingerprint,
    /// Authority key identifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// Subject key identifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// SHA-256 over the `SubjectPublicKeyInfo`.
    pub key_hash: KeyHash,
    /// URI names of the subjectAltName.
    pub uris: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Reads a certificate in DER of at most 16 KiB, with nothing behind it.
pub fn facts(_der: &[u8]) -> Result<CertificateFacts, PkiError> {
    todo!()
}
