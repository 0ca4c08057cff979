//! Enroll, renew, confirm. A repeat with the same key is answered with the same certificate.

use fleetmark_domain::{Fingerprint, FleetName, Identity, Kind, Name, Refusal, Standing, Timestamp};

use super::authorities::Authority;
use super::caller::{Caller, alarm};
use super::issue::Order;
use super::subjects::{identity_of, new_subject};
use super::tokens::PresentedToken;
use super::{Registrar, Result};
use crate::pki::csr::VerifiedCsr;
use crate::pki::profile::Profile;
use crate::store::acts::confirm::{Confirm, ConfirmByToken};
use crate::store::acts::record::{Holder, Proof, RecordCertificate, Recorded, token_admits};
use crate::store::model::{Certificate, Fleet, Subject, SubjectState, Token, TokenState};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, look_up, read};

/// How often a request that lost a race is tried again.
const RACES: usize = 4;

/// A request to enroll with a token.
#[derive(Debug)]
pub struct EnrollRequest {
    /// The fleet whose door it came through; None: the installation's (gateways, services, operators).
    pub fleet: Option<FleetName>,
    /// The name that it asks for, where it gave one.
    pub name: Option<Name>,
    /// Its proof.
    pub token: PresentedToken,
    /// Its key.
    pub csr: VerifiedCsr,
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

/// What the store knows of a key and the subject that wants it certified.
struct Standpoint {
    subject: Option<Subject>,
    fleet: Option<Fleet>,
    existing: Option<Certificate>,
}

impl Registrar {
    /// Enrolls by token. The same request with the same key gets the same certificate.
    pub async fn enroll(&self, request: EnrollRequest, now: Timestamp) -> Result<Enrollment> {
        for race in 0..RACES {
            match self.try_enroll(&request, race > 0, now).await {
                Err(error) if error.is_race() => {}
                done => return done,
            }
        }
        Err(Refusal::Overloaded.into())
    }

    async fn try_enroll(&self, request: &EnrollRequest, is_race: bool, now: Timestamp) -> Result<Enrollment> {
        let (token, standpoint) = self.standpoint_of_token(request, is_race).await?;
        let subject = match &standpoint.subject {
            Some(subject) => subject.clone(),
            None => newcomer(request, &token, now)?,
        };
        if let Some(existing) = standpoint.existing {
            return self.replay(&subject, existing, Some(&token), now);
        }
        if let Err(refusal) = token_admits(&token, request.csr.key_hash(), now) {
            if refusal == Refusal::TokenBoundToOtherKey {
                alarm("token_second_key", &format!("token {}, name {}", hex::encode(token.id), subject.name));
            }
            return Err(refusal.into());
        }
        let holder = match standpoint.subject {
            Some(known) if token.subject == Some(known.id) => Holder::Known(known.id),
            _ => Holder::ByName(Box::new(subject.clone())),
        };
        let note = format!("token {}", hex::encode(token.id));
        let ticket = Ticket { holder, proof: Proof::Token(token.id), standing: Standing::Unconfirmed, note };
        self.issue_to(&subject, standpoint.fleet.as_ref(), &request.csr, ticket, now).await
    }

    /// Reads token, subject, fleet and the key's certificate, in one state of things. With a fresh token the key is hardly
    /// ever known; where it is, the act that records the certificate finds it, and the second try looks for it.
    async fn standpoint_of_token(&self, request: &EnrollRequest, is_race: bool) -> Result<(Token, Standpoint)> {
        let (id, secret_hash) = (request.token.id, request.token.secret_hash);
        let (fleet, name, key) = (request.fleet.clone(), request.name.clone(), request.csr.key_hash());
        let found = look_up(&*self.store, move |rows| {
            let Some(token) = rows.token(&id)?.filter(|token| token.has_secret(&secret_hash)) else {
                return Err(Refusal::TokenUnknown.into());
            };
            if token.fleet != fleet {
                return Err(Refusal::TokenWrongFleet.into());
            }
            let subject = subject_of_token(rows, &token, name.as_ref())?;
            let fleet = match &fleet {
                Some(fleet) => rows.fleet(fleet)?,
                None => None,
            };
            let existing = match token.state {
                TokenState::Fresh if !is_race => None,
                _ => rows.certificate_by_key(&key)?,
            };
            Ok((token, Standpoint { subject, fleet, existing }))
        });
        Ok(found.await?)
    }

    /// Renews for the holder of a current certificate, with a new key (or gives the certificate of this key again).
    pub async fn renew(&self, caller: &Caller, csr: &VerifiedCsr, now: Timestamp) -> Result<Enrollment> {
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
            return self.replay(&caller.subject, existing, None, now);
        }
        let ticket = Ticket {
            holder: Holder::Known(caller.subject.id),
            proof: Proof::Current(caller.certificate.serial),
            standing: Standing::Unconfirmed,
            note: format!("renewal of {}", caller.certificate.serial),
        };
        self.issue_to(&caller.subject, fleet.as_ref(), csr, ticket, now).await
    }

    /// Confirms the certificate that the caller came with.
    pub async fn confirm(&self, caller: &Caller, now: Timestamp) -> Result<Confirmation> {
        let Certificate { serial, ledger, .. } = caller.certificate.clone();
        let certificate = commit(&*self.store, Confirm { serial, ledger, at: now }).await?;
        Ok(Confirmation { identity: caller.identity.clone(), certificate })
    }

    /// Confirms the certificate with this fingerprint, enrolled with this token.
    pub async fn confirm_by_token(
        &self,
        fleet: Option<&FleetName>,
        token: &PresentedToken,
        fingerprint: Fingerprint,
        now: Timestamp,
    ) -> Result<Confirmation> {
        let PresentedToken { id, secret_hash, .. } = *token;
        let act = ConfirmByToken { token: id, secret_hash, fleet: fleet.cloned(), fingerprint, at: now };
        let (certificate, subject) = commit(&*self.store, act).await?;
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
            return self.replay(&subject, existing, None, now);
        }
        alarm("operator_recovered", subject.name.as_str());
        let ticket = Ticket {
            holder: Holder::Known(subject.id),
            proof: Proof::Rescue,
            standing: Standing::Good,
            note: "recovered on the server's machine".to_owned(),
        };
        self.issue_to(&subject, None, csr, ticket, now).await
    }

    /// Signs and records a certificate, and answers once it is durable.
    pub(super) async fn issue_to(
        &self,
        subject: &Subject,
        fleet: Option<&Fleet>,
        csr: &VerifiedCsr,
        ticket: Ticket,
        now: Timestamp,
    ) -> Result<Enrollment> {
        if fleet.is_some_and(|fleet| !fleet.open) {
            return Err(Refusal::FleetClosed.into());
        }
        self.policies().admit(subject, &ticket.proof, now)?;
        let authority = self.authorities.issuing(subject.kind, subject.fleet.as_ref())?;
        let profile = self.profile_of(subject, fleet)?;
        if !profile.keys.contains(&csr.algorithm()) {
            return Err(Refusal::KeyTypeNotAllowed.into());
        }
        csr.asked().check(&profile.request)?;
        self.weak_lists.check(csr)?;
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
        let act =
            RecordCertificate { certificate, holder: ticket.holder, proof: ticket.proof, credential: None, details, at: now };
        match commit(&*self.store, act).await {
            Ok(Recorded::New(certificate)) => {
                if subject.last_generation > subject.confirmed_generation || certificate.standing == Standing::Good {
                    self.published.standing_changed();
                }
                self.enrollment(identity, certificate, &authority, false)
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

    /// Gives the certificate of a key again, while it holds.
    pub(super) fn replay(
        &self,
        subject: &Subject,
        existing: Certificate,
        token: Option<&Token>,
        now: Timestamp,
    ) -> Result<Enrollment> {
        if existing.subject != Some(subject.id) {
            alarm("key_of_another", &format!("serial {}, asked by {}", existing.serial, subject.name));
            return Err(Refusal::KeyOfAnother.into());
        }
        // A fresh token is not spent on a key that has its certificate; a foreign one is refused as ever.
        if let Some(token) = token {
            token_admits(token, existing.key_hash, now)?;
        }
        match existing.standing {
            Standing::Held => return Err(Refusal::Held.into()),
            Standing::Quarantined => return Err(Refusal::Quarantined.into()),
            Standing::Superseded | Standing::Revoked(_) => return Err(Refusal::KeyEnded.into()),
            Standing::Unconfirmed if existing.has_lapsed(now) => return Err(Refusal::Lapsed.into()),
            Standing::Good if existing.not_after <= now => return Err(Refusal::KeyEnded.into()),
            Standing::Good if token.is_none() && existing.renew_after <= now => return Err(Refusal::KeyReused.into()),
            Standing::Unconfirmed | Standing::Good => {}
        }
        let authority = self.authorities.by_id(existing.authority).ok_or(Refusal::AuthorityUnavailable)?;
        self.enrollment(identity_of(subject)?, existing, &authority, true)
    }

    fn enrollment(
        &self,
        identity: Identity,
        certificate: Certificate,
        authority: &Authority,
        replayed: bool,
    ) -> Result<Enrollment> {
        let root = self.authorities.root()?;
        let standing = if replayed { "replayed" } else { "issued" };
        metrics::counter!("fleetmark_enrollments_total", "kind" => identity.kind().as_str(), "outcome" => standing)
            .increment(1);
        Ok(Enrollment {
            identity,
            certificate,
            chain: vec![authority.record.certificate.clone()],
            trust_bundle: vec![root.record.certificate.clone()],
            replayed,
        })
    }

    /// The profile of a subject's certificates.
    pub(super) fn profile_of(&self, subject: &Subject, fleet: Option<&Fleet>) -> Result<&Profile> {
        let name = fleet.map_or(subject.kind.as_str(), |fleet| fleet.profile.as_str());
        let missing = || super::Error::with_detail(Refusal::AuthorityUnavailable, format!("the profile {name} is not there"));
        self.authorities.profiles().find(name).ok_or_else(missing)
    }
}

/// The subject that an open token's first user becomes.
fn newcomer(request: &EnrollRequest, token: &Token, now: Timestamp) -> Result<Subject> {
    let name = request.name.clone().ok_or_else(|| {
        super::Error::with_detail(Refusal::InvalidName, "This token is bound to no name: say under which name to enroll.")
    })?;
    if token.kind != Kind::Device {
        return Err(Refusal::DeviceUnknown.into());
    }
    Ok(new_subject(token.kind, token.fleet.clone(), name, now))
}

/// By what right, and with what standing, a certificate is issued.
pub(super) struct Ticket {
    pub holder: Holder,
    pub proof: Proof,
    pub standing: Standing,
    pub note: String,
}

/// The subject that a token admits: the one that it is bound to, or the one of the name asked for.
fn subject_of_token(
    rows: &mut dyn Rows,
    token: &Token,
    asked: Option<&Name>,
) -> std::result::Result<Option<Subject>, StoreError> {
    if let Some(id) = token.subject {
        let subject = rows.subject(id)?.ok_or(Refusal::DeviceUnknown)?;
        if asked.is_some_and(|asked| *asked != subject.name) {
            return Err(Refusal::TokenWrongName.into());
        }
        if subject.state == SubjectState::Out {
            return Err(Refusal::IdentityOut.into());
        }
        return Ok(Some(subject));
    }
    match asked {
        // A twin that differs in case alone is another name, and it is taken.
        Some(name) => match rows.subject_by_name(token.kind, token.fleet.as_ref(), &name.folded())? {
            Some(known) if known.name != *name => Err(Refusal::NameTaken.into()),
            known => Ok(known),
        },
        None => Ok(None),
    }
}
