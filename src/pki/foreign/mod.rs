//! Other authorities: their CA certificates as anchors, and what they say of the certificates that they issued.
//!
//! - [`crl`]: revocation lists, verified and read.
//! - [`ocsp`]: questions to a responder, and its answers, verified.

pub mod crl;
pub mod ocsp;

use std::collections::BTreeSet;

use fleetmark_domain::Refusal;
use fleetmark_external::{Foreign, issuer_hash};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;
use x509_parser::verify::verify_signature;
use x509_parser::x509::AlgorithmIdentifier;

use super::PkiError;
use super::anchors::split;
use super::idevid::{MAX_INTERMEDIATES, Makers};

/// The external authorities whose certificates a handshake takes.
#[derive(Debug, Clone, Default)]
pub struct Externals {
    anchors: Makers,
    /// SHA-256 over the Name of each CA certificate's subject.
    issuers: BTreeSet<[u8; 32]>,
}

impl Externals {
    /// Adds an external authority's CA certificates: DER, one after the other.
    ///
    /// # Errors
    /// [`PkiError::Certificate`]. Nothing is added then.
    pub fn add(&mut self, material: &[u8]) -> Result<(), PkiError> {
        let issuers: Result<Vec<_>, _> = split(material)?.iter().map(|der| issuer_hash(der)).collect();
        let issuers = issuers.map_err(|error| PkiError::Certificate(error.to_string()))?;
        self.anchors.add(material)?;
        self.issuers.extend(issuers);
        Ok(())
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Verifies a certificate up to one of these authorities, as [`Makers::verify`] does.
    ///
    /// # Errors
    /// Those of [`Makers::verify`].
    pub fn verify(&self, certificate: &[u8], beside: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Refusal> {
        self.anchors.verify(certificate, beside, now)
    }

    /// Whether one of a chain's certificates names one of these authorities as its issuer. Only of a chain that the handshake
    /// took this tells something.
    pub fn are_named_by<T: AsRef<[u8]>>(&self, chain: &[T]) -> bool {
        let names = |der: &T| Foreign::parse(der.as_ref()).is_ok_and(|foreign| self.issuers.contains(&foreign.issuer));
        !self.is_empty() && chain.iter().take(1 + MAX_INTERMEDIATES).any(names)
    }
}

/// The CA certificates whose subject's name has this hash, one of each key.
pub fn named<'a>(authorities: &'a [CertificateDer<'a>], issuer: &[u8; 32]) -> Vec<&'a CertificateDer<'a>> {
    let mut keys = BTreeSet::new();
    let is_named = |der: &&CertificateDer<'_>| issuer_hash(der).is_ok_and(|hash| hash == *issuer);
    let is_new = |der: &&'a CertificateDer<'a>| {
        X509Certificate::from_der(der).is_ok_and(|(_, one)| keys.insert(one.public_key().raw.to_vec()))
    };
    authorities.iter().filter(is_named).filter(is_new).collect()
}

/// The one among CA certificates whose key signed a certificate.
pub fn signer<'a>(authorities: &[&'a CertificateDer<'a>], certificate: &[u8]) -> Option<&'a CertificateDer<'a>> {
    let (_, signed) = X509Certificate::from_der(certificate).ok()?;
    let (algorithm, signature) = (&signed.signature_algorithm, &signed.signature_value.data);
    let by = |authority: &&&CertificateDer<'_>| {
        let parsed = X509Certificate::from_der(authority);
        parsed.is_ok_and(|(_, authority)| is_signed(&authority, algorithm, signature, signed.tbs_certificate.as_ref()))
    };
    authorities.iter().find(by).copied()
}

/// Verifies what a CA or a responder signed, by the certificate that holds its key. SHA-1 is none.
fn is_signed(by: &X509Certificate<'_>, algorithm: &AlgorithmIdentifier<'_>, signature: &[u8], octets: &[u8]) -> bool {
    let is_broken = algorithm.algorithm == OID_PKCS1_SHA1WITHRSA || algorithm.algorithm == OID_SHA1_WITH_RSA;
    let signature = x509_parser::der_parser::asn1_rs::BitString::new(0, signature);
    !is_broken && verify_signature(by.public_key(), algorithm, &signature, octets).is_ok()
}

/// The certificates as they can be asked.
fn parsed<'a>(authorities: &'a [CertificateDer<'a>]) -> impl Iterator<Item = X509Certificate<'a>> {
    authorities.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate))
}
