//! The CA certificates of makers as operators give them: read, checked, kept one after the other, told apart again.

use der::{Reader, SliceReader};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::PkiError;
use super::idevid::Makers;

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
        Makers::default().add(certificate).map_err(|error| wrong(format!("certificate {}: {error}", at + 1)))?;
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
