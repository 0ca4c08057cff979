//! Certificates as clients take them: PEM, and certs-only PKCS#7 (RFC 5652 5, RFC 7030 4.1.3).

use super::PkiError;

/// Certificates in PEM, LF line ends.
pub fn pem<D: AsRef<[u8]>>(_certificates: &[D]) -> String {
    todo!()
}

/// A CRL in PEM.
pub fn crl_pem(_der: &[u8]) -> String {
    todo!()
}

/// A degenerate SignedData that holds these certificates and nothing else, in DER.
pub fn certs_only<D: AsRef<[u8]>>(_certificates: &[D]) -> Result<Vec<u8>, PkiError> {
    todo!()
}
