//! The check of a client's certificate at the handshake. Each refusal is logged once and counted by name here, since no
//! answer can carry it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::{Kind, Refusal};
use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Trust;

/// The verifier of one door, over trust that may be swapped.
#[derive(Debug)]
pub struct Verifier {
    door: &'static str,
    trust: Arc<ArcSwap<Trust>>,
    mandatory: bool,
    kind: Option<Kind>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Clients may come without a certificate.
    pub fn optional(door: &'static str, trust: Arc<ArcSwap<Trust>>) -> Self {
        Self::new(door, trust, false, None)
    }

    /// Clients come with a certificate of an authority for `kind`.
    pub fn mandatory(door: &'static str, trust: Arc<ArcSwap<Trust>>, kind: Kind) -> Self {
        Self::new(door, trust, true, Some(kind))
    }

    fn new(door: &'static str, trust: Arc<ArcSwap<Trust>>, mandatory: bool, kind: Option<Kind>) -> Self {
        Self { door, trust, mandatory, kind, algorithms: default_provider().signature_verification_algorithms }
    }

    fn refuse(&self, refusal: Refusal, certificate: &CertificateDer<'_>) -> Error {
        let fingerprint = hex::encode(digest(&SHA256, certificate));
        metrics::counter!("fleetmark_handshake_refused_total", "door" => self.door, "code" => refusal.code()).increment(1);
        tracing::info!(door = self.door, code = refusal.code(), fingerprint, "handshake refused");
        Error::InvalidCertificate(match refusal {
            Refusal::CertificateExpired => CertificateError::Expired,
            Refusal::CertificateNotYetValid => CertificateError::NotValidYet,
            Refusal::WrongKind => CertificateError::InvalidPurpose,
            Refusal::AuthorityRevoked => CertificateError::Revoked,
            Refusal::CertificateNotHeld => CertificateError::BadSignature,
            _ => CertificateError::UnknownIssuer,
        })
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: the list could not follow a swap, and it would tell anybody which fleets there are.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.trust
            .load()
            .verify(end_entity, intermediates, self.kind, self.algorithms, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(|refusal| self.refuse(refusal, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
            .map_err(|_| self.refuse(Refusal::CertificateNotHeld, certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .map_err(|_| self.refuse(Refusal::CertificateNotHeld, certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
