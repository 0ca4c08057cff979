//! Certificates as clients take them: PEM, and certs-only PKCS#7 (RFC 5652 5, RFC 7030 4.1.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use der::asn1::{Any, SetOfVec};
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};

use super::PkiError;

const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

/// Certificates in PEM, LF line ends.
pub fn pem<D: AsRef<[u8]>>(certificates: &[D]) -> String {
    certificates.iter().map(|certificate| block("CERTIFICATE", certificate.as_ref())).collect()
}

/// A CRL in PEM.
pub fn crl_pem(der: &[u8]) -> String {
    block("X509 CRL", der)
}

/// A CMS message in PEM (RFC 7468 9).
pub fn cms_pem(der: &[u8]) -> String {
    block("CMS", der)
}

/// A degenerate `SignedData` that holds these certificates and nothing else, in DER. DER sorts them: their order is lost.
///
/// # Errors
/// [`PkiError::Certificate`] for one that cannot be read or stands there twice.
pub fn certs_only<D: AsRef<[u8]>>(certificates: &[D]) -> Result<Vec<u8>, PkiError> {
    let mut set = SetOfVec::new();
    for der in certificates {
        let certificate =
            x509_cert::Certificate::from_der(der.as_ref()).map_err(|error| PkiError::Certificate(error.to_string()))?;
        set.insert(CertificateChoices::Certificate(certificate)).map_err(|error| PkiError::Certificate(error.to_string()))?;
    }
    let data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::default(),
        encap_content_info: EncapsulatedContentInfo { econtent_type: ID_DATA, econtent: None },
        certificates: Some(CertificateSet(set)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::default()),
    };
    let failed = |error: der::Error| PkiError::Encoding(error.to_string());
    let content = Any::encode_from(&data).map_err(failed)?;
    ContentInfo { content_type: ID_SIGNED_DATA, content }.to_der().map_err(failed)
}

/// RFC 7468 2: 64 characters a line.
pub(super) fn block(label: &str, der: &[u8]) -> String {
    const OCTETS_A_LINE: usize = 48;
    let mut text = String::with_capacity(der.len() / 3 * 4 + der.len() / OCTETS_A_LINE + 64);
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    for line in der.chunks(OCTETS_A_LINE) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::keys::KeyAlgorithm;
    use crate::pki::testing::{Installation, openssl};

    #[test]
    fn openssl_reads_the_certificates_back() {
        let installation = Installation::new(KeyAlgorithm::P256);
        let authority = installation.authority("authority-device", KeyAlgorithm::P256);
        let both = [&*installation.root.certificate, &*authority.certificate];
        let pkcs7 = certs_only(&both).unwrap();
        let printed = openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &pkcs7).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert_eq!(printed.matches("BEGIN CERTIFICATE").count(), 2);
        for der in both {
            let text = pem(&[der]);
            assert!(printed.contains(&text), "openssl wraps PEM as we do");
            assert_eq!(openssl(&["x509", "-outform", "DER"], text.as_bytes()).unwrap(), der);
        }
        openssl(&["cms", "-inform", "DER", "-cmsout", "-print", "-noout"], &pkcs7).unwrap();
        assert!(certs_only(&[b"no certificate"]).is_err());
        assert!(certs_only(&[both[0], both[0]]).is_err());
        let none: [&[u8]; 0] = [];
        openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &certs_only(&none).unwrap()).unwrap();
    }
}
