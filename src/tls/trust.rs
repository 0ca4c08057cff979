//! The issuing authorities that a client's certificate may come from: our own, other authorities of fleets, and those of makers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Kind, Refusal, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::pki::PkiError;
use crate::pki::foreign::Externals;
use crate::pki::idevid::{Makers, refusal};
use crate::pki::issue::{CertificateFacts, facts};
use crate::pki::profile::CLAIM_EKU;
use crate::store::model::AuthorityId;

/// The issuing authorities. Each of ours is a trust anchor of its own: a client's certificate is signed by one of them directly, so
/// whatever chain its client sends is not looked at. Beside them are the makers of devices, whose certificates may come with a
/// chain; they prove hardware, and are nobody here until they enroll.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// By subject key identifier.
    anchors: Arc<HashMap<Vec<u8>, Anchor>>,
    /// Those of authorities that are trusted no more.
    revoked: Arc<HashSet<Vec<u8>>>,
    makers: Arc<Makers>,
    externals: Arc<Externals>,
    grace: Duration,
}

/// What a certificate that a door takes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    /// One of an identity, from this authority of ours. It may have expired within the grace: that is asked again at each request.
    Identity(AuthorityId),
    /// A claim certificate, from this authority of ours.
    Claim(AuthorityId),
    /// A device's, from its maker.
    Maker,
    /// A device's, from another authority of a fleet. Whether it was adopted is asked at each request.
    External,
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
        Ok(Self { anchors: Arc::new(anchors), ..Self::default() })
    }

    /// The same, with the authorities of another.
    #[must_use]
    pub fn with_authorities_of(&self, other: &Self) -> Self {
        Self { anchors: Arc::clone(&other.anchors), revoked: Arc::clone(&other.revoked), ..self.clone() }
    }

    /// The same, with the subject key identifiers of authorities that are trusted no more: what names one of them is refused by that
    /// name, and never looked at further.
    #[must_use]
    pub fn with_revoked(&self, key_ids: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { revoked: Arc::new(key_ids.into_iter().collect()), ..self.clone() }
    }

    /// The same, with other makers.
    #[must_use]
    pub fn with_makers(&self, makers: Arc<Makers>) -> Self {
        Self { makers, ..self.clone() }
    }

    /// The same, with other authorities of fleets.
    #[must_use]
    pub fn with_externals(&self, externals: Arc<Externals>) -> Self {
        Self { externals, ..self.clone() }
    }

    /// Whether a chain that was taken, and is none of ours, names another authority of a fleet.
    pub fn is_external<T: AsRef<[u8]>>(&self, chain: &[T]) -> bool {
        self.externals.are_named_by(chain)
    }

    /// So long after its end a certificate of ours is still taken at the handshake of the device door.
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// The same, with another grace: so long after its end a certificate of ours is still taken at the handshake of the device door,
    /// for a late renewal. Whoever serves a request says whether it is good for that.
    #[must_use]
    pub fn with_grace(&self, grace: Duration) -> Self {
        Self { grace, ..self.clone() }
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

    /// Verifies a client's certificate. One that names an authority of ours is judged by that one's key alone: in time, for
    /// clientAuth, and by an authority for `kind`, where the door takes one kind only. A door for all kinds takes claim certificates,
    /// makers' certificates with what was sent `beside` them, and ours within the grace, too.
    ///
    /// # Errors
    /// `AuthorityRevoked`, `CertificateForeign`, `CertificateExpired`, `CertificateNotYetValid`; `WrongKind` for a certificate that is not for
    /// clients, or not for this door.
    pub fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        beside: &[CertificateDer<'_>],
        kind: Option<Kind>,
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<Kin, Refusal> {
        let facts = facts(certificate).map_err(|_| Refusal::CertificateForeign)?;
        if facts.authority_key_id.as_ref().is_some_and(|key_id| self.revoked.contains(key_id)) {
            return Err(Refusal::AuthorityRevoked);
        }
        let Some(anchor) = self.named_by(&facts) else {
            return match kind {
                None => self.verify_foreign(certificate, beside, now),
                Some(_) => Err(Refusal::CertificateForeign),
            };
        };
        let leaf = EndEntityCert::try_from(certificate).map_err(|_| Refusal::CertificateForeign)?;
        let check = |usage: KeyUsage, at: UnixTime| {
            let anchors = std::slice::from_ref(&anchor.key);
            leaf.verify_for_usage(algorithms.all, anchors, &[], at, usage, None, None)
                .map_err(|error| refusal(&error))
                .map(drop)
        };
        let claim = kind.is_none() && anchor.kind == Kind::Device && facts.is_claim;
        let kin = if claim {
            check(KeyUsage::required(CLAIM_EKU), now).map(|()| Kin::Claim(anchor.id))
        } else {
            let verdict = match check(KeyUsage::client_auth(), now) {
                Err(Refusal::CertificateExpired) if kind.is_none() && self.is_graced(&facts, now) => {
                    check(KeyUsage::client_auth(), unix(facts.not_after))
                }
                verdict => verdict,
            };
            verdict.map(|()| Kin::Identity(anchor.id))
        }?;
        anchor.in_time(now)?;
        // Asked last: that an authority is here is told to those alone whose certificate is from it.
        if kind.is_some_and(|kind| kind != anchor.kind) { Err(Refusal::WrongKind) } else { Ok(kin) }
    }

    /// By another authority of a fleet, else by a maker. What either knows of the certificate is told.
    fn verify_foreign(
        &self,
        certificate: &CertificateDer<'_>,
        beside: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Kin, Refusal> {
        let external = if self.externals.is_empty() {
            Err(Refusal::CertificateForeign)
        } else {
            self.externals.verify(certificate, beside, now).map(|()| Kin::External)
        };
        external.or_else(|why| match self.makers.verify(certificate, beside, now) {
            Err(Refusal::CertificateForeign) => Err(why),
            verdict => verdict.map(|()| Kin::Maker),
        })
    }

    /// Whether a certificate that has ended ended within the grace.
    fn is_graced(&self, facts: &CertificateFacts, now: UnixTime) -> bool {
        !self.grace.is_zero() && now <= unix(facts.not_after + self.grace)
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

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.0).unwrap_or(0)))
}
