//! The roots that this device trusts: pinned by fingerprint at first, added to by verified answers.

use fleetmark_domain::{Fingerprint, Timestamp};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Dates;
use crate::error::Error;

/// The most roots that a device keeps.
pub const MAX_ROOTS: usize = 16;

/// SHA-256 over `octets`.
pub(crate) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // SHA-256 gives 32 octets, so the zip is whole.
    out.iter_mut().zip(digest(&SHA256, octets).as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// The fingerprint of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint(sha256(certificate))
}

/// A certificate's validity.
///
/// # Errors
/// [`Error::BadAnswer`] when it is no certificate.
pub(crate) fn dates(certificate: &CertificateDer<'_>) -> Result<Dates, Error> {
    let parsed = parse(certificate)?;
    Ok(Dates {
        not_before: Timestamp(parsed.validity().not_before.timestamp()),
        not_after: Timestamp(parsed.validity().not_after.timestamp()),
    })
}

/// Reads a certificate; octets after it are refused.
pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(Error::BadAnswer("octets follow a certificate".to_owned())),
        Err(error) => Err(Error::BadAnswer(format!("not a certificate: {error}"))),
    }
}

/// All certificates of a PEM text, which may hold no other sort of block's content in their place.
pub(crate) fn certificates_of(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::BadAnswer(format!("not certificates in PEM: {error}")))
}

/// Certificates as PEM (RFC 7468), one after the other.
pub(crate) fn pem_of(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut out = String::new();
    for certificate in certificates {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        for (at, letter) in text.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                out.push('\n');
            }
            out.push(letter);
        }
        out.push_str("\n-----END CERTIFICATE-----\n");
    }
    out
}

/// Trust anchors: at least one certificate of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots(Vec<CertificateDer<'static>>, Vec<[u8; 32]>);

impl Roots {
    /// Takes certificates as anchors.
    ///
    /// # Errors
    /// [`Error::BadAnswer`] when there are none or more than [`MAX_ROOTS`], or one is no authority's certificate.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let mut roots = Self(Vec::new(), Vec::new());
        roots.extend(certificates)?;
        if roots.0.is_empty() { Err(Error::BadAnswer("there is no root certificate".to_owned())) } else { Ok(roots) }
    }

    /// Reads PEM; the errors are those of [`Self::new`].
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        Self::new(certificates_of(pem)?)
    }

    /// The anchor with this fingerprint among certificates that nobody has vouched for.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when it is not among them; [`Error::BadAnswer`] when it is no authority's certificate.
    pub fn pinned(certificates: Vec<CertificateDer<'static>>, pin: &Fingerprint) -> Result<Self, Error> {
        let found = certificates.into_iter().find(|certificate| fingerprint(certificate) == *pin);
        let missing = || Error::Untrusted(format!("none of its authorities has the fingerprint {pin}"));
        Self::new(vec![found.ok_or_else(missing)?])
    }

    /// These roots and `others`, each once. Nothing is ever taken away by an answer.
    pub fn with(&self, others: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let mut roots = self.clone();
        roots.extend(others)?;
        Ok(roots)
    }

    fn extend(&mut self, certificates: Vec<CertificateDer<'static>>) -> Result<(), Error> {
        for certificate in certificates {
            if !parse(&certificate)?.is_ca() {
                return Err(Error::BadAnswer("a root certificate is not an authority's (RFC 5280 4.2.1.9)".to_owned()));
            }
            webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| Error::BadAnswer(format!("a root certificate cannot be used: {error}")))?;
            if !self.0.contains(&certificate) {
                self.0.push(certificate);
            }
        }
        if self.0.len() > MAX_ROOTS { Err(Error::BadAnswer("there are more than 16 roots".to_owned())) } else { Ok(()) }
    }

    /// The same anchors, and no way to them by a certificate of one of these keys (SHA-256 over `SubjectPublicKeyInfo`): roots that
    /// were revoked, which another root may have certified before.
    #[must_use]
    pub fn refusing(self, keys: Vec<[u8; 32]>) -> Self {
        Self(self.0, keys)
    }

    /// The keys of [`Self::refusing`].
    pub(crate) fn refused(&self) -> &[[u8; 32]] {
        &self.1
    }

    /// Whether the root with this fingerprint is one of them.
    pub fn contain(&self, pin: &Fingerprint) -> bool {
        self.0.iter().any(|certificate| fingerprint(certificate) == *pin)
    }

    /// Their fingerprints.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.0.iter().map(fingerprint).collect()
    }

    /// The roots as PEM.
    pub fn pem(&self) -> String {
        pem_of(&self.0)
    }

    /// The roots' certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    pub(crate) fn store(&self) -> Result<RootCertStore, Error> {
        let mut store = RootCertStore::empty();
        for certificate in &self.0 {
            store.add(certificate.clone()).map_err(|error| Error::Untrusted(format!("a root cannot be used: {error}")))?;
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(ca: bool) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = if ca { rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained) } else { rcgen::IsCa::ExplicitNoCa };
        params.self_signed(&key).expect("certificate").der().clone()
    }

    #[test]
    fn only_the_pinned_root_becomes_an_anchor() {
        let (wanted, other) = (certificate(true), certificate(true));
        let roots = Roots::pinned(vec![other.clone(), wanted.clone()], &fingerprint(&wanted)).expect("found");
        assert_eq!(roots.certificates(), std::slice::from_ref(&wanted));
        let refused = Roots::pinned(vec![other], &fingerprint(&wanted)).expect_err("not there");
        assert_eq!(refused.exit_code(), 5);
        let leaf = certificate(false);
        assert!(Roots::pinned(vec![leaf.clone()], &fingerprint(&leaf)).is_err());
    }

    #[test]
    fn pem_comes_back_and_roots_are_counted() {
        let roots = Roots::new(vec![certificate(true), certificate(true)]).expect("roots");
        assert_eq!(Roots::from_pem(&roots.pem()).expect("read"), roots);
        assert!(Roots::from_pem("").is_err());
        let many = (0..=MAX_ROOTS).map(|_| certificate(true)).collect();
        assert!(roots.with(many).is_err());
        assert_eq!(roots.with(roots.certificates().to_vec()).expect("same"), roots);
    }
}
