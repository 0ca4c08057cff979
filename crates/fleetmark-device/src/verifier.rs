//! Who the server is: webpki's verification, at a time that a device without a clock can stand behind.
//!
//! [`ServerVerifier`] judges every connection but those of [`crate::bootstrap`], which has [`UnverifiedVerifier`]: it sends nothing, and
//! compares what it fetched with a fingerprint, or with a root's signature.

use std::sync::{Arc, Mutex, PoisonError};

use fleetmark_domain::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::{Dates, DeviceTime};
use crate::error::Error;
use crate::trust::{Roots, dates, parse, sha256};

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
    /// SHA-256 over keys by which no path leads to a root.
    refused: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
    time: DeviceTime,
    seen: Arc<Mutex<Seen>>,
}

impl ServerVerifier {
    pub(crate) fn new(
        roots: &Roots,
        provider: Arc<CryptoProvider>,
        time: DeviceTime,
        seen: Arc<Mutex<Seen>>,
    ) -> Result<Self, Error> {
        Ok(Self { roots: roots.store()?, refused: roots.refused().to_vec(), provider, time, seen })
    }

    fn is_refused(&self, certificate: &CertificateDer<'_>) -> bool {
        parse(certificate).is_ok_and(|parsed| self.refused.contains(&sha256(parsed.public_key().raw)))
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
        let refused = |one: &&CertificateDer<'_>| self.refused.is_empty() || !self.is_refused(one);
        let intermediates: Vec<_> = intermediates.iter().filter(refused).cloned().collect();
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, &intermediates, at, algorithms)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::tests::FakeClock;
    use crate::testing::{Authority, DAY, around};
    use rcgen::SanType;

    const BEGIN: Timestamp = Timestamp(1_800_000_000);

    /// The verdict on a certificate of 90 days from [`BEGIN`], under an authority of 10 years from `authority`.
    fn verdict(wall: Timestamp, authority: Timestamp, host: &str) -> Result<(), String> {
        let authority = Authority::valid("ca", around(authority, DAY * 3650));
        let name = SanType::DnsName("ca.example".try_into().expect("name"));
        let (leaf, _) = authority.server(name, around(BEGIN, DAY * 90));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let roots = Roots::new(vec![authority.root.clone()]).expect("roots");
        let time = DeviceTime::new(FakeClock::at(wall.0), None);
        let verifier = ServerVerifier::new(&roots, crate::http::provider(), time, seen.clone()).expect("verifier");
        let host = ServerName::try_from(host.to_owned()).expect("host");
        let chain = [authority.issuing.clone()];
        let verdict = verifier.verify_server_cert(&leaf, &chain, &host, &[], UnixTime::since_unix_epoch(DAY));
        let seen = seen.lock().expect("seen");
        assert_eq!(verdict.is_ok(), seen.dates == Some(around(BEGIN, DAY * 90)));
        assert_eq!(verdict.is_err(), seen.objection.is_some());
        verdict.map(|_| ()).map_err(|_| seen.objection.clone().unwrap_or_default())
    }

    #[test]
    fn a_clock_behind_is_lifted_and_a_clock_ahead_is_believed() {
        for wall in [Timestamp(0), BEGIN - DAY, BEGIN, BEGIN + DAY * 89, BEGIN + DAY * 90] {
            assert_eq!(verdict(wall, BEGIN - DAY, "ca.example"), Ok(()), "{wall}");
        }
        for wall in [BEGIN + DAY * 91, BEGIN + DAY * 10_000] {
            let objection = verdict(wall, BEGIN - DAY, "ca.example").expect_err("ended");
            assert!(objection.contains("ended at 2027-04-15T"), "{objection}");
        }
    }

    #[test]
    fn the_time_is_lifted_no_further_than_the_leaf_reaches() {
        // An authority younger than the server's certificate, as after a backdated issue.
        assert_eq!(verdict(Timestamp(0), BEGIN + DAY * 30, "ca.example"), Ok(()));
        assert!(verdict(Timestamp(0), BEGIN + DAY * 91, "ca.example").is_err());
        // A clock within the leaf's validity is believed: this authority is not valid yet.
        assert!(verdict(BEGIN + DAY, BEGIN + DAY * 30, "ca.example").is_err());
    }

    #[test]
    fn name_and_authority_count_at_any_time() {
        for wall in [Timestamp(0), BEGIN] {
            assert!(verdict(wall, BEGIN - DAY, "other.example").expect_err("name").contains("other.example"));
        }
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let (leaf, _) = one.server(SanType::DnsName("ca.example".try_into().expect("name")), around(BEGIN, DAY));
        let roots = Roots::new(vec![other.root]).expect("roots");
        let time = DeviceTime::new(FakeClock::at(0), None);
        let verifier = ServerVerifier::new(&roots, crate::http::provider(), time, Arc::default()).expect("verifier");
        let host = ServerName::try_from("ca.example").expect("host");
        // Presenting the foreign root as an intermediate is no help.
        let chain = [one.issuing, one.root];
        assert!(verifier.verify_server_cert(&leaf, &chain, &host, &[], UnixTime::since_unix_epoch(DAY)).is_err());
    }
}
