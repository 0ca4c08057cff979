//! The TLS handshake: our certificate as it is now, the client's by the authorities as they are known now, nothing resumed.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::{Fingerprint, Serial, Standing};
use fleetmark_ledger::state::ShortFingerprint;
use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::trust::Trust;
use super::{Refused, WallClock};
use crate::judge::Reason;
use crate::knowledge::Knowledge;

tokio::task_local! {
    /// What the verifier saw in the handshake that this task is in: rustls tells who accepts neither the certificate that
    /// was refused nor our name for the refusal.
    static SEEN: Seen;
}

#[derive(Debug, Default)]
struct Seen {
    fingerprint: Cell<Option<Fingerprint>>,
    refused: Cell<Option<Refused>>,
}

/// A refusal, and the fingerprint of the certificate that was shown, if one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) refused: Refused,
    pub(super) fingerprint: Option<Fingerprint>,
}

/// The server's side of TLS 1.2 and 1.3.
///
/// # Errors
/// None that ring's provider could give; rustls's own, so that nothing is hidden.
pub(super) fn config(
    certified: Arc<ArcSwap<CertifiedKey>>,
    trust: Arc<Trust>,
    knowledge: Knowledge,
    clock: WallClock,
) -> Result<ServerConfig, Error> {
    let provider = default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ServerConfig::builder_with_details(provider.into(), Arc::new(Wall(clock)))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(Arc::new(Verifier { trust, knowledge, algorithms }))
        .with_cert_resolver(Arc::new(Current(certified)));
    // A session that is resumed never comes to the verifier: a revoked device would come back in by it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Does the handshake over `stream`.
pub(super) async fn accept<S>(acceptor: &TlsAcceptor, stream: S) -> Result<TlsStream<S>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    SEEN.scope(Seen::default(), async {
        let shaken = acceptor.accept(stream).await;
        shaken.map_err(|error| SEEN.with(|seen| failed(seen, &error)))
    })
    .await
}

fn failed(seen: &Seen, error: &io::Error) -> Failed {
    let refused = seen.refused.get().unwrap_or_else(|| match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => Refused::CertificateRequired,
        _ => Refused::HandshakeFailed,
    });
    Failed { refused, fingerprint: seen.fingerprint.get() }
}

/// The certificate that counts now.
#[derive(Debug)]
struct Current(Arc<ArcSwap<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The wall clock that the gateway has, for rustls.
struct Wall(WallClock);

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().0).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// The check of a client's certificate in the handshake.
#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    knowledge: Knowledge,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Once the client has shown that it holds the key, a revocation is told by the alert that TLS has for it: a device can
    /// read that. Everything else is the judge's, after the handshake.
    fn told(&self, certificate: &CertificateDer<'_>, valid: HandshakeSignatureValid) -> Result<HandshakeSignatureValid, Error> {
        if is_revoked(&self.knowledge, certificate).unwrap_or(false) {
            Err(refuse(Refused::Denied(Reason::Revoked)))
        } else {
            Ok(valid)
        }
    }
}

/// None for a certificate that is not on a ledger.
fn is_revoked(knowledge: &Knowledge, certificate: &CertificateDer<'_>) -> Option<bool> {
    if let Some((_, adopted)) = knowledge.adopted(&fingerprint(certificate)) {
        return Some(matches!(adopted.standing, Standing::Revoked(_)));
    }
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let serial = Serial::from_octets(parsed.raw_serial()).ok()?;
    let known = knowledge.certificate(serial.epoch(), serial.index())?;
    let same = known.fingerprint == ShortFingerprint::from(&fingerprint(certificate));
    Some(same && matches!(known.standing, Standing::Revoked(_)))
}

/// SHA-256 over a certificate.
fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut octets = [0; 32];
    octets.iter_mut().zip(digest(&SHA256, certificate).as_ref()).for_each(|(to, from)| *to = *from);
    Fingerprint(octets)
}

/// Keeps our name for the refusal, and gives rustls the error whose alert comes nearest.
fn refuse(refused: Refused) -> Error {
    // Outside of `accept` there is nobody to tell.
    let _ = SEEN.try_with(|seen| seen.refused.set(Some(refused)));
    Error::InvalidCertificate(match refused {
        Refused::Denied(Reason::Revoked) => CertificateError::Revoked,
        Refused::Denied(Reason::CertificateExpired) => CertificateError::Expired,
        Refused::Denied(Reason::CertificateNotYetValid) => CertificateError::NotValidYet,
        Refused::Denied(Reason::CertificateMalformed) => CertificateError::BadEncoding,
        Refused::WrongKind => CertificateError::InvalidPurpose,
        Refused::CertificateNotHeld => CertificateError::BadSignature,
        _ => CertificateError::UnknownIssuer,
    })
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// None: the list could not follow the knowledge, and it would tell anybody which fleets there are.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let _ = SEEN.try_with(|seen| seen.fingerprint.set(Some(fingerprint(end_entity))));
        self.trust.verify(end_entity, self.algorithms.all, now).map(|()| ClientCertVerified::assertion()).map_err(refuse)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
            .map_err(|_| refuse(Refused::CertificateNotHeld))
            .and_then(|valid| self.told(certificate, valid))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .map_err(|_| refuse(Refused::CertificateNotHeld))
            .and_then(|valid| self.told(certificate, valid))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
