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
    Ok(found.iter().flat_map(AsRef::as_ref).copied().collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::bundle::pem;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::Installation;

    #[test]
    fn authorities_are_kept_and_told_apart() {
        let (one, two) = (Installation::new(KeyAlgorithm::P256), Installation::new(KeyAlgorithm::P384));
        let authority = one.authority("authority-device", KeyAlgorithm::P256);
        let ders = [&*one.root.certificate, &*two.root.certificate, &*authority.certificate];
        let material = read(&pem(&ders)).unwrap();
        assert_eq!(split(&material).unwrap().iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), ders);
        assert!(split(&material[..material.len() - 1]).is_err());
        let device = one.device(&authority, 1, "sensor-01");
        for (text, why) in [
            (String::new(), "1 to 8"),
            (pem(&[&device.der]), "certificate 1"),
            (pem(&[ders[0], &device.der]), "certificate 2"),
            (pem(&[ders[0], ders[0]]), "twice"),
            (pem(&[b"no certificate"]), "certificate 1"),
            (pem(&[ders[0]]).repeat(9), "1 to 8"),
        ] {
            let error = read(&text).expect_err(why).to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
