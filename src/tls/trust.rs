//! The issuing authorities that a client's certificate may come from.

use std::collections::HashMap;

use fleetmark_domain::{Kind, Refusal, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::pki::PkiError;
use crate::pki::issue::{CertificateFacts, facts};
use crate::store::model::AuthorityId;

/// The issuing authorities, each a trust anchor of its own: a client's certificate is signed by one of them directly, so
/// whatever chain a client sends is not looked at.
#[derive(Debug, Default)]
pub struct Trust {
    /// By subject key identifier.
    anchors: HashMap<Vec<u8>, Anchor>,
}

#[derive(Debug)]
struct Anchor {
    id: AuthorityId,
    kind: Kind,
    not_before: Timestamp,
    not_after: Timestamp,
    key: TrustAnchor<'static>,
}

impl Trust {
    /// Trust in these authorities (id, what it issues for, certificate in DER). The caller leaves revoked ones out; a
    /// root is passed over, since it issues to no client.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] for one that cannot be read or has no subject key identifier.
    pub fn from_authorities(authorities: &[(AuthorityId, AuthorityKind, Vec<u8>)]) -> Result<Self, PkiError> {
        let mut anchors = HashMap::new();
        for (id, kind, der) in authorities {
            let AuthorityKind::Of(kind) = *kind else { continue };
            let facts = facts(der)?;
            let key_id = facts
                .subject_key_id
                .ok_or_else(|| PkiError::Certificate(format!("authority {id} has no subject key identifier")))?;
            let certificate = CertificateDer::from(der.as_slice());
            let key = anchor_from_trusted_cert(&certificate)
                .map_err(|error| PkiError::Certificate(format!("authority {id}: {error}")))?
                .to_owned();
            let (not_before, not_after) = (facts.not_before, facts.not_after);
            anchors.insert(key_id, Anchor { id: *id, kind, not_before, not_after, key });
        }
        Ok(Self { anchors })
    }

    /// The authority that the certificate says it is from. Only of a certificate that [`Self::verify`] accepted does this
    /// tell the truth: there it was verified against this authority's key alone.
    pub fn authority(&self, facts: &CertificateFacts) -> Option<AuthorityId> {
        self.named_by(facts).map(|anchor| anchor.id)
    }

    /// What the authority of [`Self::authority`] issues for.
    pub fn kind(&self, facts: &CertificateFacts) -> Option<Kind> {
        self.named_by(facts).map(|anchor| anchor.kind)
    }

    /// Verifies a client's certificate: signed by the authority that its authority key identifier names, in time, for
    /// clientAuth, and by an authority for `kind`, where the door takes one kind only.
    ///
    /// # Errors
    /// `CertificateForeign`, `CertificateExpired`, `CertificateNotYetValid`; `WrongKind` for a certificate of ours that is
    /// not for clients, or not for this door.
    pub fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        kind: Option<Kind>,
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<AuthorityId, Refusal> {
        let facts = facts(certificate).map_err(|_| Refusal::CertificateForeign)?;
        let anchor = self.named_by(&facts).ok_or(Refusal::CertificateForeign)?;
        let leaf = EndEntityCert::try_from(certificate).map_err(|_| Refusal::CertificateForeign)?;
        leaf.verify_for_usage(algorithms.all, std::slice::from_ref(&anchor.key), &[], now, KeyUsage::client_auth(), None, None)
            .map_err(|error| refusal(&error))?;
        anchor.in_time(now)?;
        // Asked last: that an authority is here is told to those alone whose certificate is from it.
        if kind.is_some_and(|kind| kind != anchor.kind) { Err(Refusal::WrongKind) } else { Ok(anchor.id) }
    }

    fn named_by(&self, facts: &CertificateFacts) -> Option<&Anchor> {
        self.anchors.get(facts.authority_key_id.as_ref()?)
    }
}

impl Anchor {
    /// webpki does not look at an anchor's own dates.
    fn in_time(&self, now: UnixTime) -> Result<(), Refusal> {
        let now = Timestamp(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        match now {
            now if now < self.not_before => Err(Refusal::CertificateNotYetValid),
            now if now > self.not_after => Err(Refusal::CertificateExpired),
            _ => Ok(()),
        }
    }
}

/// Anything that is not about time or purpose is a certificate that no authority of ours signed.
fn refusal(error: &webpki::Error) -> Refusal {
    match error {
        webpki::Error::CertExpired { .. } => Refusal::CertificateExpired,
        webpki::Error::CertNotValidYet { .. } => Refusal::CertificateNotYetValid,
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::CaUsedAsEndEntity => Refusal::WrongKind,
        _ => Refusal::CertificateForeign,
    }
}
