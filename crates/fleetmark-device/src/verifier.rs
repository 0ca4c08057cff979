//! Who the server is: webpki's verification, at a time that a device without a clock can stand behind.
//!
//! [`ServerVerifier`] judges every connection but the first one. [`UnverifiedVerifier`] belongs to
//! [`crate::bootstrap`] alone, which sends nothing and compares what it fetched with a fingerprint.

use std::sync::{Arc, Mutex, PoisonError};

use fleetmark_domain::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::{Dates, DeviceTime};
use crate::trust::dates;

/// What the verifier saw at the newest handshake; the HTTP layer asks for it afterwards.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The validity of the server certificate that was verified.
    pub(crate) dates: Option<Dates>,
    /// Why the server was not trusted.
    pub(crate) objection: Option<String>,
}

/// Verifies chain, name and dates against the device's own roots.
///
/// A clock before the server certificate's notBefore is taken to be wrong, and the chain is verified at the
/// earliest moment within the certificate's validity at which all that was presented is valid. A clock after notAfter
/// is believed: going back in time would make expired certificates good again.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    time: DeviceTime,
    seen: Arc<Mutex<Seen>>,
}

impl ServerVerifier {
    pub(crate) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>, time: DeviceTime, seen: Arc<Mutex<Seen>>) -> Self {
        Self { roots, provider, time, seen }
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
    ) -> Result<Dates, TlsError> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let leaf = dates(end_entity).map_err(|_| TlsError::InvalidCertificate(CertificateError::BadEncoding))?;
        let begins = intermediates.iter().filter_map(|one| dates(one).ok()).map(|dates| dates.not_before);
        let at = clamp(self.time.now(), leaf, begins);
        let at = UnixTime::since_unix_epoch(at.since(Timestamp(0)));
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, at, algorithms)?;
        verify_server_name(&parsed, server_name)?;
        Ok(leaf)
    }

    /// Says why, in words for the person at the device.
    fn objection(&self, error: &TlsError, end_entity: &CertificateDer<'_>, server_name: &ServerName<'_>) -> String {
        match error {
            TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                let until = dates(end_entity).map_or_else(|_| "?".to_owned(), |dates| dates.not_after.to_string());
                format!("its certificate ended at {until}, and it is {} by this device's clock", self.time.now())
            }
            TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "its certificate is not from an authority that this device trusts".to_owned()
            }
            TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {
                format!("its certificate is not for {}", server_name.to_str())
            }
            other => other.to_string(),
        }
    }
}

/// The time to verify at: `now`, or for a clock that is behind the leaf's notBefore the earliest moment within the leaf's
/// validity at which no other presented certificate is still to come.
fn clamp(now: Timestamp, leaf: Dates, begins: impl Iterator<Item = Timestamp>) -> Timestamp {
    if now >= leaf.not_before {
        return now;
    }
    begins.fold(leaf.not_before, Timestamp::max).min(leaf.not_after)
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verdict = self.judge(end_entity, intermediates, server_name);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Ok(dates) => {
                *seen = Seen { dates: Some(dates), objection: None };
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => {
                *seen = Seen { dates: None, objection: Some(self.objection(&error, end_entity, server_name)) };
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes any certificate: for the one request of RFC 7030 4.1.1, whose answer is compared with a fingerprint and whose
/// connection carries nothing else, neither way.
#[derive(Debug)]
pub(crate) struct UnverifiedVerifier {
    provider: Arc<CryptoProvider>,
}

impl UnverifiedVerifier {
    pub(crate) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ServerCertVerifier for UnverifiedVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
