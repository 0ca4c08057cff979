//! From a verified peer certificate to a caller in good standing.

use std::net::IpAddr;
use std::sync::Arc;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{Action, DeviceEvent, FleetName, Identity, Kind, LedgerName, Refusal, Sight, Standing, Timestamp, View};

use fleetmark_external::is_external;

use super::policies::Table;
use super::{Registrar, Result};
use crate::pki::issue::CertificateFacts;
use crate::store::acts::confirm::Confirm;
use crate::store::acts::subjects::ledger_of;
use crate::store::look_up;
use crate::store::model::{AuthorityId, Certificate, Subject, SubjectState};
use crate::store::rows::certificate_id;

/// A client certificate whose chain the TLS handshake verified to one of our authorities.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The authority that its chain was verified to; of another authority's certificate [`fleetmark_external::FIRST_ID`], whichever it is.
    pub authority: AuthorityId,
    /// What it says.
    pub facts: Arc<CertificateFacts>,
}

/// A client certificate that is no identity's: a maker's, or a claim. In DER, its own first, with what the client sent beside it. The
/// handshake verified it, and that the client holds its key; enrollment verifies it again, and nothing else looks at it.
#[derive(Debug, Clone)]
pub struct Presented(pub Vec<Vec<u8>>);

/// Who calls: a subject with a certificate of ours in good standing at this moment.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// Its record.
    pub subject: Subject,
    /// The certificate that it came with.
    pub certificate: Certificate,
    /// When it asks.
    pub at: Timestamp,
    /// The address that it asks from, where that is known; policies may look at it.
    pub source: Option<IpAddr>,
    /// The policies that counted when it asked.
    pub policies: Arc<Table>,
}

/// Whether an expired certificate may be good enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lateness {
    Refused,
    Granted,
}

impl Registrar {
    /// Asks who the peer is and whether its certificate is in good standing now. Called for every request; a first use of
    /// an unconfirmed certificate confirms it.
    ///
    /// # Errors
    /// `NotOnLedger`, `ExternalUnknown`, `ExternalDisabled`, `ExternalStatusStale`, `WrongAuthority`, `CertificateExpired`, `CertificateNotYetValid`, `Revoked`, `Held`, `Superseded`,
    /// `Quarantined`, `Lapsed`, `IdentityOut`, `DeviceMoved`.
    pub async fn identify(&self, peer: &Peer, now: Timestamp) -> Result<Caller> {
        self.identify_within(peer, Lateness::Refused, now).await
    }

    /// The same for one who comes to renew: its certificate may have ended, where it is its newest and profile or permit give it
    /// time.
    ///
    /// # Errors
    /// See [`Self::identify`].
    pub async fn identify_late(&self, peer: &Peer, now: Timestamp) -> Result<Caller> {
        self.identify_within(peer, Lateness::Granted, now).await
    }

    async fn identify_within(&self, peer: &Peer, lateness: Lateness, now: Timestamp) -> Result<Caller> {
        let (certificate, subject) = self.holder(peer, now).await?;
        let identity = self.check_authority(peer, &subject, now)?;
        if now > certificate.not_after
            && !(lateness == Lateness::Granted && self.may_be_late(&certificate, &subject, now).await?)
        {
            return Err(Refusal::CertificateExpired.into());
        }
        if now < certificate.not_before {
            return Err(Refusal::CertificateNotYetValid.into());
        }
        if subject.state == SubjectState::Out {
            let refusal = if subject.permits.moving.is_some() { Refusal::DeviceMoved } else { Refusal::IdentityOut };
            return Err(refusal.into());
        }
        if let Err(error) = check_standing(&certificate, now) {
            if error.refusal == Refusal::Superseded {
                let Certificate { serial, generation, .. } = &certificate;
                let what = format!("{identity:?}, serial {serial}, generation {generation}");
                self.raise("superseded_certificate_used", ledger_of(&subject), subject.id, &what, now);
                self.react(&subject, &certificate, now).await;
            }
            return Err(error);
        }
        let policies = self.policies();
        if certificate.standing != Standing::Unconfirmed {
            return Ok(Caller { identity, subject, certificate, at: now, source: None, policies });
        }
        let certificate = self.commit_confirming(|departure| Confirm::of(&certificate, departure, now)).await?;
        let state = subject.state.next(DeviceEvent::Confirmed)?;
        let subject = Subject { state, confirmed_generation: certificate.generation, moved_from: None, ..subject };
        Ok(Caller { identity, subject, certificate, at: now, source: None, policies })
    }

    /// The certificate's record and its holder's. Any other certificate under a serial of ours is a forgery.
    async fn holder(&self, peer: &Peer, now: Timestamp) -> Result<(Certificate, Subject)> {
        if is_external(peer.authority) {
            return self.external_holder(peer.facts.fingerprint).await;
        }
        let serial = peer.facts.serial.ok_or(Refusal::NotOnLedger)?;
        let fingerprint = peer.facts.fingerprint;
        let authority = peer.authority;
        let found = look_up(&*self.store, move |rows| {
            let Some(certificate) = rows.certificate(certificate_id(serial.epoch(), serial.index()))? else {
                return Ok(None);
            };
            let Some(subject) = certificate.subject else { return Ok(None) };
            Ok(rows.subject(subject)?.map(|subject| (certificate, subject)))
        })
        .await?;
        match found {
            Some((certificate, subject)) if certificate.fingerprint == fingerprint && certificate.authority == authority => {
                Ok((certificate, subject))
            }
            _ => {
                let what = format!("serial {serial}, fingerprint {fingerprint}");
                self.raise("forged_certificate", LedgerName::System, 0, &what, now);
                Err(Refusal::NotOnLedger.into())
            }
        }
    }

    /// A chain is not enough: the authority must be bound to this kind and fleet, and the certificate must say what the
    /// record says.
    fn check_authority(&self, peer: &Peer, subject: &Subject, now: Timestamp) -> Result<Identity> {
        // What was adopted is known by its fingerprint, and says of whom it is in its own way.
        if is_external(peer.authority) {
            return super::subjects::identity_of(subject);
        }
        let authority = self.authorities.by_id(peer.authority).ok_or(Refusal::WrongAuthority)?;
        // Of a connection that was open before.
        if !authority.record.state.is_trusted() {
            return Err(Refusal::AuthorityRevoked.into());
        }
        if !authority.is_bound_to(subject.kind, subject.fleet.as_ref()) {
            let what = format!("authority {}, subject {}", peer.authority, subject.id);
            self.raise("wrong_authority", LedgerName::System, 0, &what, now);
            return Err(Refusal::WrongAuthority.into());
        }
        let identity = super::subjects::identity_of(subject)?;
        if peer.facts.uris != [identity.uri(&self.trust_domain)] {
            return Err(Refusal::NotOnLedger.into());
        }
        Ok(identity)
    }
}

/// The table decides; here its answer gets its name.
fn check_standing(certificate: &Certificate, now: Timestamp) -> Result<()> {
    let refusal = match certificate.standing.seen_by(View::Verdict, certificate.has_lapsed(now), Choices::default()) {
        Sight::Good => return Ok(()),
        Sight::Restricted => Refusal::Quarantined,
        Sight::Held => Refusal::Held,
        Sight::Refused => Refusal::Superseded,
        Sight::Revoked(_) if certificate.standing == Standing::Unconfirmed => Refusal::Lapsed,
        Sight::Revoked(_) => Refusal::Revoked,
    };
    Err(refusal.into())
}

/// Something that a person should look at: logged as a warning, counted by name.
pub(super) fn alarm(name: &'static str, what: &str) {
    metrics::counter!("fleetmark_alarms_total", "alarm" => name).increment(1);
    tracing::warn!(alarm = name, what);
}

impl Caller {
    /// Whether an operator's, gateway's or service's grants reach `fleet`; a device reaches its own.
    pub fn reaches(&self, fleet: &FleetName) -> bool {
        match self.identity.fleet() {
            Some(own) => own == fleet,
            None => self.subject.grants.as_ref().is_none_or(|grants| grants.contains(fleet)),
        }
    }

    /// Whether the caller may do `action` to something of `fleet`; None: of the installation. Its role's rights are policies;
    /// that the grants bound them is not.
    ///
    /// # Errors
    /// `WrongKind` for who is no operator; `FleetUnknown` for a fleet that the caller may not know of; `NotPermitted`.
    pub fn may(&self, action: Action, fleet: Option<&FleetName>) -> Result<()> {
        if self.identity.kind() != Kind::Operator {
            return Err(Refusal::WrongKind.into());
        }
        if fleet.is_some_and(|fleet| !self.reaches(fleet)) {
            return Err(Refusal::FleetUnknown.into());
        }
        let everywhere = self.subject.grants.is_none();
        let within_grants = everywhere || !action.is_installation_wide();
        if self.subject.role.is_some() && within_grants && self.policies.permits(self, action, fleet) {
            Ok(())
        } else {
            Err(Refusal::NotPermitted.into())
        }
    }

    /// Who did it, for the ledger's details.
    pub(super) fn actor(&self, registrar: &Registrar) -> String {
        self.identity.uri(&registrar.trust_domain)
    }
}
