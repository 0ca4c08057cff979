//! The CA certificates of makers: read, checked, kept one after the other, told apart again.

use der::{Reader, SliceReader};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::issue::facts;

/// The most certificates of one maker.
pub const MAX_ANCHORS: usize = 8;

/// Reads 1 to 8 CA certificates in PEM, each of at most 16 KiB; gives their DER, one after the other.
///
/// # Errors
/// [`PkiError::Anchor`], with the number of the certificate and what is wrong.
pub fn read(pem: &str) -> Result<Vec<u8>, PkiError> {
    let wrong = |why: String| PkiError::Anchor(why);
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_ANCHORS + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("it is not certificates in PEM".to_owned()))?;
    if found.is_empty() || found.len() > MAX_ANCHORS {
        return Err(wrong(format!("it is 1 to {MAX_ANCHORS} certificates in PEM")));
    }
    for (at, certificate) in found.iter().enumerate() {
        check(certificate).map_err(|why| wrong(format!("certificate {}: {why}", at + 1)))?;
        if found.iter().take(at).any(|earlier| earlier == certificate) {
            return Err(wrong(format!("certificate {} stands there twice", at + 1)));
        }
    }
    Ok(found.iter().flat_map(|certificate| certificate.as_ref()).copied().collect())
}

/// The certificates that [`read`] put one after the other.
///
/// # Errors
/// [`PkiError::Certificate`] for anything else.
pub fn split(material: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let damaged = |error: der::Error| PkiError::Certificate(error.to_string());
    let mut reader = SliceReader::new(material).map_err(damaged)?;
    let mut certificates = Vec::new();
    while !reader.is_finished() {
        certificates.push(CertificateDer::from(reader.tlv_bytes().map_err(damaged)?.to_vec()));
    }
    Ok(certificates)
}

/// RFC 5280 4.2.1.9, 4.2.1.3. An anchor's own dates are not looked at: makers' roots were made once, by clocks of all kinds.
fn check(certificate: &CertificateDer<'_>) -> Result<(), String> {
    facts(certificate).map_err(|error| error.to_string())?;
    webpki::anchor_from_trusted_cert(certificate).map_err(|error| error.to_string())?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let is_authority = parsed.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca);
    let may_sign = match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if is_authority && may_sign { Ok(()) } else { Err("it is no authority's: it may not sign certificates".to_owned()) }
}
