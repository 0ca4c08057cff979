//! Enroll, renew, confirm. A repeat with the same key is answered with the same certificate.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetmark_domain::{
    Fingerprint, FleetName, Identity, Kind, LedgerName, Name, Refusal, RevocationReason, Serial, Standing, Timestamp,
};

use fleetmark_external::is_external;

use super::authorities::Authority;
use super::caller::{Caller, alarm};
use super::issue::Order;
use super::made_keys::may_be_replaced;
use super::proofs::{Proven, Shown};
use super::subjects::identity_of;
use super::tokens::PresentedToken;
use super::{Registrar, Result};
use crate::pki::csr::VerifiedCsr;
use crate::pki::profile::Profile;
use crate::store::acts::confirm::{Confirm, ConfirmByToken};
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded, suspects};
use crate::store::acts::subjects::ledger_of;
use crate::store::model::{Certificate, Fleet, Subject};
use crate::store::{StoreError, commit, look_up, read};

/// How often a request that lost a race is tried again.
const RACES: usize = 4;

/// A request to enroll.
#[derive(Debug)]
pub struct EnrollRequest {
    /// The fleet whose door it came through; None: the installation's (gateways, services, operators).
    pub fleet: Option<FleetName>,
    /// The name that it asks for, where it gave one.
    pub name: Option<Name>,
    /// The enrollment group that it asks for, where it gave one.
    pub group: Option<Name>,
    /// Its proof.
    pub shown: Shown,
    /// Its key.
    pub csr: VerifiedCsr,
    /// Where it comes from, where that is known.
    pub source: Option<IpAddr>,
}

/// A certificate for its holder, with what must go with it.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// Whose.
    pub identity: Identity,
    /// Its record, the DER in it.
    pub certificate: Certificate,
    /// The issuing authority's certificate in DER, then those up to the root exclusive.
    pub chain: Vec<Vec<u8>>,
    /// Roots in DER.
    pub trust_bundle: Vec<Vec<u8>>,
    /// Whether this is an earlier answer given again.
    pub replayed: bool,
}

/// A certificate that is confirmed.
#[derive(Debug, Clone)]
pub struct Confirmation {
    /// Whose.
    pub identity: Identity,
    /// Its record.
    pub certificate: Certificate,
}

impl Registrar {
    /// Enrolls. The same request with the same key gets the same certificate.
    pub async fn enroll(&self, request: EnrollRequest, now: Timestamp) -> Result<Enrollment> {
        for race in 0..RACES {
            match self.try_enroll(&request, race > 0, now).await {
                Err(error) if error.is_race() => {}
                Err(error) => {
                    if matches!(error.refusal, Refusal::HardwareOfAnother | Refusal::HardwareMismatch) {
                        let ledger = LedgerName::from(request.fleet.as_ref());
                        let name = request.name.as_ref().map_or("the proof's own", Name::as_str);
                        self.raise("hardware_conflict", ledger, 0, &format!("{}, name {name}", error.refusal), now);
                    }
                    return Err(error);
                }
                done => return done,
            }
        }
        Err(Refusal::Overloaded.into())
    }

    /// proof → identity → approval → policy → index, serial, lint, signature → record and ledger → answer (DESIGN §5).
    async fn try_enroll(&self, request: &EnrollRequest, is_race: bool, now: Timestamp) -> Result<Enrollment> {
        let proven = self.judge_proof(request, is_race, now).await?;
        if let Some(existing) = &proven.existing {
            if request.csr.made_for().is_none() {
                proven.admits_replay(existing.key_hash, now)?;
                return self.replay(&proven.subject, existing.clone(), Replay::Proof, now);
            }
            may_be_replaced(&proven.subject, proven.token.as_ref(), existing, now)?;
        }
        // A request for approval is known by its key, and a key that the server makes is another one each time.
        if proven.approval && request.csr.made_for().is_some() {
            let detail = "A person must approve this device: it must come with a key of its own.";
            return Err(super::Error::with_detail(Refusal::ServerKeygenOff, detail));
        }
        // Whoever is not approved yet may have shown nothing: it uses up nobody's share.
        let approval = self.approval_of(&proven, request, now).await?;
        self.rates.admit(&proven.proof, request.fleet.as_ref())?;
        let amended = self.ask_hook(&proven, request, now).await?;
        let Proven { mut subject, fleet, holder, proof, mut note, group, .. } = proven;
        if let Some(approval) = &approval {
            note = format!("{note}, approved by {}", approval.by);
        }
        if let Some(attributes) = &amended {
            subject.attributes.clone_from(attributes);
            note.push_str(", attributes by the fleet's hook");
        }
        let approval = approval.map(|approval| approval.id);
        let (standing, source) = (Standing::Unconfirmed, request.source);
        let ticket = Ticket { holder, proof, approval, attributes: amended, standing, source, note };
        let enrollment = self.issue_to(&subject, fleet.as_ref(), &request.csr, ticket, now).await?;
        if let Some(group) = &group {
            self.count_arrival(group, now);
        }
        Ok(enrollment)
    }

    /// Renews for the holder of a current certificate, with a new key (or gives the certificate of this key again).
    pub async fn renew(&self, caller: &Caller, csr: &VerifiedCsr, now: Timestamp) -> Result<Enrollment> {
        if caller.subject.permits.renewals_held {
            return Err(Refusal::RenewalHeld.into());
        }
        let key = csr.key_hash();
        let fleet = caller.subject.fleet.clone();
        let (existing, fleet) = look_up(&*self.store, move |rows| {
            let existing = rows.certificate_by_key(&key)?;
            let fleet = match &fleet {
                Some(fleet) => rows.fleet(fleet)?,
                None => None,
            };
            Ok((existing, fleet))
        })
        .await?;
        if let Some(existing) = existing {
            return self.replay(&caller.subject, existing, Replay::Current, now);
        }
        self.rates.admit_renewal(caller.subject.id)?;
        let ticket = Ticket {
            holder: Holder::Known(caller.subject.id),
            proof: Proof::Current(caller.certificate.serial),
            approval: None,
            attributes: None,
            standing: Standing::Unconfirmed,
            source: caller.source,
            note: format!("renewal of {}", caller.certificate.serial),
        };
        self.issue_to(&caller.subject, fleet.as_ref(), csr, ticket, now).await
    }

    /// Confirms the certificate that the caller came with.
    pub async fn confirm(&self, caller: &Caller, now: Timestamp) -> Result<Confirmation> {
        let certificate = self.commit_confirming(|departure| Confirm::of(&caller.certificate, departure, now)).await?;
        Ok(Confirmation { identity: caller.identity.clone(), certificate })
    }

    /// Confirms the certificate with this fingerprint, enrolled with this token; of a token for several devices it is found by its
    /// serial.
    pub async fn confirm_by_token(
        &self,
        fleet: Option<&FleetName>,
        token: &PresentedToken,
        (fingerprint, serial): (Fingerprint, Option<Serial>),
        now: Timestamp,
    ) -> Result<Confirmation> {
        let PresentedToken { id, secret_hash, .. } = *token;
        let fleet = fleet.cloned();
        let act = |departure| ConfirmByToken {
            token: id,
            secret_hash,
            fleet: fleet.clone(),
            fingerprint,
            serial,
            departure,
            at: now,
        };
        let (certificate, subject) = self.commit_confirming(act).await?;
        Ok(Confirmation { identity: identity_of(&subject)?, certificate })
    }

    /// Gives an operator a new key on the server's own machine: revokes the old certificates and issues for this key.
    /// The door that calls this is the rescue socket alone.
    pub async fn recover_operator(&self, name: &Name, csr: &VerifiedCsr, now: Timestamp) -> Result<Enrollment> {
        let (folded, key) = (name.folded(), csr.key_hash());
        let (subject, existing) = read(&*self.store, move |rows| {
            Ok((rows.subject_by_name(Kind::Operator, None, &folded)?, rows.certificate_by_key(&key)?))
        })
        .await?;
        let subject = subject.ok_or(Refusal::NotFound)?;
        if let Some(existing) = existing {
            return self.replay(&subject, existing, Replay::Current, now);
        }
        alarm("operator_recovered", subject.name.as_str());
        let ticket = Ticket {
            holder: Holder::Known(subject.id),
            proof: Proof::Rescue,
            approval: None,
            attributes: None,
            standing: Standing::Good,
            source: None,
            note: "recovered on the server's machine".to_owned(),
        };
        self.issue_to(&subject, None, csr, ticket, now).await
    }

    /// Signs and records a certificate, and answers once it is durable. Where the authority was replaced meanwhile, its successor
    /// signs.
    pub(super) async fn issue_to(
        &self,
        subject: &Subject,
        fleet: Option<&Fleet>,
        csr: &VerifiedCsr,
        ticket: Ticket,
        now: Timestamp,
    ) -> Result<Enrollment> {
        match self.issue_once(subject, fleet, csr, ticket.clone(), now).await {
            Err(error) if error.refusal == Refusal::AuthorityReplaced => {
                self.refresh_authorities().await?;
                self.issue_once(subject, fleet, csr, ticket, now).await
            }
            outcome => outcome,
        }
    }

    async fn issue_once(
        &self,
        subject: &Subject,
        fleet: Option<&Fleet>,
        csr: &VerifiedCsr,
        ticket: Ticket,
        now: Timestamp,
    ) -> Result<Enrollment> {
        let is_enrolled = matches!(ticket.proof, Proof::Current(_));
        if !is_enrolled && fleet.is_some_and(|fleet| !fleet.open) {
            return Err(Refusal::FleetClosed.into());
        }
        let is_quarantined = ticket.proof.enrolls() && self.is_quarantined(subject).await?;
        self.policies().admit(subject, &ticket.proof, is_quarantined, ticket.source, now)?;
        let authority = self.authorities.issuing(subject.kind, subject.fleet.as_ref())?;
        let profile = self.profile_of(subject, fleet)?;
        if !profile.keys.contains(&csr.algorithm()) {
            return Err(Refusal::KeyTypeNotAllowed.into());
        }
        csr.asked().check(&profile.request)?;
        self.weak_lists.check_request(csr)?;
        let order = Order {
            authority: &authority,
            profile,
            subject: Some(subject),
            common_name: subject.name.as_str(),
            spki: csr.spki(),
            standing: ticket.standing,
            unconfirmed_ttl: fleet.and_then(|fleet| fleet.unconfirmed_ttl).or(profile.unconfirmed_ttl),
            token: match ticket.proof {
                Proof::Token(id) => Some(id),
                _ => None,
            },
        };
        let certificate = self.sign(&order, now).await?;
        let identity = identity_of(subject)?;
        let whom = identity.uri(&self.trust_domain);
        let details = self.details(whom.clone(), Some(whom), None, Some(ticket.note))?;
        let place = (certificate.serial.epoch(), certificate.serial.index());
        let act = RecordCertificate {
            certificate,
            holder: ticket.holder,
            proof: ticket.proof,
            approval: ticket.approval,
            attributes: ticket.attributes,
            was_quarantined: is_quarantined,
            credential: None,
            made_for: csr.made_for(),
            details,
            at: now,
        };
        match commit(&*self.store, act).await {
            Ok(Recorded::New(certificate)) => {
                if subject.last_generation > subject.confirmed_generation || certificate.standing == Standing::Good {
                    self.published.standing_changed();
                }
                Ok(self.enrollment(identity, certificate, &authority, false))
            }
            // The key was certified by a request that came at the same time.
            Ok(Recorded::Existing(_)) => {
                self.return_index(&authority, place).await;
                Err(StoreError::Collision.into())
            }
            Err(error) => {
                if !matches!(error, StoreError::Collision) {
                    self.return_index(&authority, place).await;
                }
                Err(error.into())
            }
        }
    }

    /// Whether the subject is in quarantine, so that its policy may keep it from enrolling anew.
    async fn is_quarantined(&self, subject: &Subject) -> Result<bool> {
        if subject.last_generation == 0 {
            return Ok(false);
        }
        let id = subject.id;
        Ok(look_up(&*self.store, move |rows| rows.live_certificates_of(id)).await?.iter().any(suspects))
    }

    /// Gives the certificate of a key again, while it holds.
    pub(super) fn replay(&self, subject: &Subject, existing: Certificate, by: Replay, now: Timestamp) -> Result<Enrollment> {
        if existing.subject != Some(subject.id) {
            let what = format!("serial {}, asked by {}", existing.serial, subject.name);
            self.raise("key_of_another", ledger_of(subject), subject.id, &what, now);
            return Err(Refusal::KeyOfAnother.into());
        }
        // The key of another authority's certificate: ours is for a key of its own.
        if is_external(existing.authority) {
            return Err(Refusal::KeyReused.into());
        }
        match existing.standing {
            Standing::Held => return Err(Refusal::Held.into()),
            Standing::Quarantined => return Err(Refusal::Quarantined.into()),
            Standing::Revoked(RevocationReason::KeyCompromise) => return Err(Refusal::KeyCompromised.into()),
            Standing::Superseded | Standing::Revoked(_) => return Err(Refusal::KeyEnded.into()),
            Standing::Unconfirmed if existing.has_lapsed(now) => return Err(Refusal::Lapsed.into()),
            Standing::Good if existing.not_after <= now => return Err(Refusal::KeyEnded.into()),
            Standing::Good if by == Replay::Current && existing.renew_after <= now => return Err(Refusal::KeyReused.into()),
            Standing::Unconfirmed | Standing::Good => {}
        }
        let authority = self.authorities.by_id(existing.authority).ok_or(Refusal::AuthorityUnavailable)?;
        Ok(self.enrollment(identity_of(subject)?, existing, &authority, true))
    }

    fn enrollment(&self, identity: Identity, certificate: Certificate, authority: &Authority, replayed: bool) -> Enrollment {
        let standing = if replayed { "replayed" } else { "issued" };
        metrics::counter!("fleetmark_enrollments_total", "kind" => identity.kind().as_str(), "outcome" => standing)
            .increment(1);
        Enrollment {
            identity,
            certificate,
            chain: self.authorities.chain_of(authority),
            trust_bundle: self.authorities.trust_bundle(),
            replayed,
        }
    }

    /// The profile of a subject's certificates.
    pub(super) fn profile_of(&self, subject: &Subject, fleet: Option<&Fleet>) -> Result<&Profile> {
        let name = fleet.map_or(subject.kind.as_str(), |fleet| fleet.profile.as_str());
        let missing = || super::Error::with_detail(Refusal::AuthorityUnavailable, format!("the profile {name} is not there"));
        self.authorities.profiles().find(name).ok_or_else(missing)
    }
}

/// By what an earlier answer is asked for again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// The proof, shown again.
    Proof,
    /// The certificate in use: a key that is due for renewal is not given again.
    Current,
}

/// By what right, and with what standing, a certificate is issued.
#[derive(Clone)]
pub(super) struct Ticket {
    pub holder: Holder,
    pub proof: Proof,
    pub approval: Option<u64>,
    /// The device's attributes from here on; None: as they are.
    pub attributes: Option<BTreeMap<String, String>>,
    pub standing: Standing,
    /// Where it is asked for, where that is known; policies may look at it.
    pub source: Option<IpAddr>,
    pub note: String,
}
