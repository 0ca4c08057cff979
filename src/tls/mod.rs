//! TLS at the doors: client certificates verified against the authorities as they are now, server certificates swapped
//! without a restart, no resumption. Knows chains, not standing: that is asked on every request.
//!
//! - [`trust`]: the issuing authorities that a client's certificate may come from, ours and makers'.
//! - [`verifier`]: the check at the handshake, and the refusals' names.
//! - [`connection`]: from a finished handshake to a [`crate::registrar::caller::Peer`], or a [`crate::registrar::caller::Presented`].

pub mod connection;
pub mod trust;
pub mod verifier;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::Kind;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use trust::Trust;
use verifier::Verifier;

/// What the handshakes at a door go by. Both parts can be swapped while the door serves; new handshakes see the change.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Whose clients are let in.
    pub trust: Arc<ArcSwap<Trust>>,
    /// The server's certificate, its chain and its key.
    pub certificate: Arc<ArcSwap<CertifiedKey>>,
}

/// The device door: a client may come without a certificate; one that it shows must be of an authority of ours, or of a maker of
/// devices.
///
/// # Errors
/// None in practice: the provider supports both protocol versions.
pub fn device_door(doors: &Doors) -> Result<ServerConfig, rustls::Error> {
    door(doors, Verifier::optional("device", Arc::clone(&doors.trust)))
}

/// The admin door: a certificate of the operators' authority, and of no other, is mandatory (DESIGN §3, 8).
///
/// # Errors
/// None in practice: the provider supports both protocol versions.
pub fn admin_door(doors: &Doors) -> Result<ServerConfig, rustls::Error> {
    door(doors, Verifier::mandatory("admin", Arc::clone(&doors.trust), Kind::Operator))
}

/// The server's certificate with its key.
///
/// # Errors
/// The key is none that TLS can use, or not that of the first certificate.
pub fn certified_key(chain: Vec<CertificateDer<'static>>, pkcs8: &[u8]) -> Result<CertifiedKey, rustls::Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let key = default_provider().key_provider.load_private_key(key.clone_key())?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(certified)
}

fn door(doors: &Doors, verifier: Verifier) -> Result<ServerConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(default_provider());
    // mbedTLS 2.28 speaks no TLS 1.3.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Current(Arc::clone(&doors.certificate))));
    // A resumed session restores the client's certificate and never asks the verifier: a revoked or expired device came
    // back without its key. So nothing is kept to resume from.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The server's certificate as it is now.
#[derive(Debug)]
struct Current(Arc<ArcSwap<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
