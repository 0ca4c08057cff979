//! The authorities that clients' certificates may be signed by, as trust anchors, found by their key identifier.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fleetmark_domain::Timestamp;
use fleetmark_external::Foreign;
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Refused;
use crate::judge::Reason;
use crate::knowledge::{Knowledge, KnownAuthority};

/// The longest certificate that is looked at, in octets.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// Certificates of an authority that is not here make it look for new ones at most so often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The anchors. The table is made anew when authorities change, and when a certificate names one that is not in it.
#[derive(Debug)]
pub(super) struct Trust {
    knowledge: Knowledge,
    anchors: ArcSwap<HashMap<Vec<u8>, Anchor>>,
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Anchor {
    not_before: Timestamp,
    not_after: Timestamp,
    key: TrustAnchor<'static>,
}

impl Trust {
    pub(super) fn new(knowledge: Knowledge) -> Self {
        let anchors = ArcSwap::from_pointee(anchors(&knowledge.authorities()));
        Self { knowledge, anchors, looked: Mutex::new(None) }
    }

    /// Takes the authorities as they are known now.
    pub(super) fn refresh(&self) {
        self.anchors.store(anchors(&self.knowledge.authorities()).into());
    }

    /// Verifies that an authority known now signed this certificate, by one verification with the key that the
    /// certificate names; its time; and that it is for TLS clients.
    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: UnixTime,
    ) -> Result<(), Refused> {
        if certificate.len() > MAX_CERTIFICATE {
            return Err(Refused::Denied(Reason::CertificateMalformed));
        }
        let Some(anchor) = authority_key(certificate).and_then(|named| self.anchor(&named)) else {
            return self.verify_abroad(certificate);
        };
        let leaf = EndEntityCert::try_from(certificate).map_err(|_| Refused::CertificateForeign)?;
        let key = std::slice::from_ref(&anchor.key);
        leaf.verify_for_usage(algorithms, key, &[], now, KeyUsage::client_auth(), None, None).map_err(|e| refused(&e))?;
        anchor.in_time(now)
    }

    /// A certificate of another authority that a ledger here speaks of. Its chain was verified when it was adopted: whether it was,
    /// by its fingerprint, the judge says after the handshake, which shows that the client holds the key.
    fn verify_abroad(&self, certificate: &CertificateDer<'_>) -> Result<(), Refused> {
        let foreign = Foreign::parse(certificate).map_err(|_| Refused::CertificateForeign)?;
        let is_known = self.knowledge.has_issuer(&foreign.issuer) || self.knowledge.adopted(&foreign.fingerprint).is_some();
        // rustls must be able to read its key.
        EndEntityCert::try_from(certificate).map_err(|_| Refused::CertificateForeign)?;
        if is_known { Ok(()) } else { Err(Refused::CertificateForeign) }
    }

    fn anchor(&self, key_id: &[u8]) -> Option<Anchor> {
        let found = self.anchors.load().get(key_id).cloned();
        if found.is_none() && self.may_look() {
            self.refresh();
            return self.anchors.load().get(key_id).cloned();
        }
        found
    }

    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN);
        if may {
            *looked = Some(Instant::now());
        }
        may
    }
}

/// By subject key identifier. Of two certificates for one key, the one that ends later.
fn anchors(authorities: &[KnownAuthority]) -> HashMap<Vec<u8>, Anchor> {
    let mut anchors: HashMap<Vec<u8>, Anchor> = HashMap::new();
    for authority in authorities {
        if authority.kind == AuthorityKind::Root || authority.state == AuthorityState::Revoked {
            continue;
        }
        let Some((key_id, anchor)) = authority.certificate.as_ref().and_then(anchor) else {
            tracing::debug!(authority = authority.id, "no certificate of this authority yet, or none that can be read");
            continue;
        };
        if anchors.get(&key_id).is_none_or(|other| other.not_after < anchor.not_after) {
            anchors.insert(key_id, anchor);
        }
    }
    anchors
}

fn anchor(certificate: &CertificateDer<'static>) -> Option<(Vec<u8>, Anchor)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })?;
    let validity = parsed.validity();
    let (not_before, not_after) = (Timestamp(validity.not_before.timestamp()), Timestamp(validity.not_after.timestamp()));
    let key = anchor_from_trusted_cert(certificate).ok()?.to_owned();
    Some((key_id, Anchor { not_before, not_after, key }))
}

fn authority_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    if !rest.is_empty() {
        return None;
    }
    parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    })
}

impl Anchor {
    /// webpki does not look at an anchor's own dates.
    fn in_time(&self, now: UnixTime) -> Result<(), Refused> {
        let now = Timestamp(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        match now {
            now if now < self.not_before => Err(Refused::Denied(Reason::CertificateNotYetValid)),
            now if now > self.not_after => Err(Refused::Denied(Reason::CertificateExpired)),
            _ => Ok(()),
        }
    }
}

/// Anything that is not about time or purpose is a certificate that no authority of ours signed.
fn refused(error: &webpki::Error) -> Refused {
    match error {
        webpki::Error::CertExpired { .. } => Refused::Denied(Reason::CertificateExpired),
        webpki::Error::CertNotValidYet { .. } => Refused::Denied(Reason::CertificateNotYetValid),
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::CaUsedAsEndEntity => Refused::WrongKind,
        _ => Refused::CertificateForeign,
    }
}
