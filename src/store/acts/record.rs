//! A certificate is recorded: enrollment, renewal, the installation's own.

use std::collections::BTreeMap;

pub use fleetmark_domain::Reenrollment;
use fleetmark_domain::{AuthorityState, KeyHash, LedgerName, Refusal, RevocationReason, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::admit;
use super::found::issued;
use super::lifecycle::still_departs;
use super::served;
use super::standing::set_standing;
use super::subjects::with_attributes;
use super::tokens::token_admits;
use crate::store::model::{
    ApprovalRequest, Certificate, Credential, Group, GroupId, GroupProof, HardwareId, RequestState, Subject, SubjectId,
    SubjectState, Token, TokenId,
};
use crate::store::rows::certificate_id;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Records a certificate that was signed and not given out yet, with its `issued` entry, and reserves its proof.
#[derive(Debug)]
pub struct RecordCertificate {
    /// The certificate. Subject, generation and position are set here.
    pub certificate: Certificate,
    /// Who is to hold it.
    pub holder: Holder,
    /// By what right.
    pub proof: Proof,
    /// The request that a person approved; it is done by this.
    pub approval: Option<u64>,
    /// The device's attributes from here on, where the fleet's hook said so.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Whether the holder was in quarantine when its policy was asked.
    pub was_quarantined: bool,
    /// Under which of the installation's values the server remembers it as its own.
    pub credential: Option<(String, Credential)>,
    /// The mark of the request that the server made the key for: an unconfirmed certificate of the same request is replaced.
    pub made_for: Option<KeyHash>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

/// Who is to hold a certificate.
#[derive(Debug, Clone)]
pub enum Holder {
    /// The installation itself: an OCSP responder.
    Installation,
    /// A subject that is known.
    Known(SubjectId),
    /// A subject that registers by an open token, under a name that nobody holds a certificate for.
    ByName(Box<Subject>),
    /// A subject that an enrollment group, or its own hardware, lets in: new, registered before, or enrolled before, as the rule
    /// says.
    Admitted(Box<Subject>, Reenrollment),
}

/// By what right a certificate is issued.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// The server itself does it.
    Installation,
    /// An enrollment token or invitation.
    Token(TokenId),
    /// An enrollment group.
    Group(Admission),
    /// Hardware that a device was registered with: a TPM's endorsement key.
    Hardware(HardwareId),
    /// The certificate that it renews.
    Current(fleetmark_domain::Serial),
    /// Root's rights on the server's machine: all earlier certificates end.
    Rescue,
}

impl Proof {
    /// Whether a device enrolls by it: it needs no certificate of its own in good standing.
    pub const fn enrolls(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Group(_) | Self::Hardware(_))
    }
}

/// By what an enrollment group lets a device in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Which group.
    pub group: GroupId,
    /// The proof's kind.
    pub proof: GroupProof,
    /// What the hardware proved to be; None: a claim, a person's approval.
    pub hardware: Option<HardwareId>,
}

/// What became of it.
#[derive(Debug)]
pub enum Recorded {
    /// Recorded; it may be given out.
    New(Certificate),
    /// The key has this certificate already; the new one must be forgotten.
    Existing(Certificate),
}

impl Act for RecordCertificate {
    type Outcome = Recorded;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![self.certificate.ledger.clone()]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Recorded, StoreError> {
        let key = self.certificate.key_hash;
        if let Some(existing) = transaction.rows.certificate_by_key(&key)? {
            return Ok(Recorded::Existing(existing));
        }
        if transaction.rows.blocked_key(&key)?.is_some() {
            return Err(Refusal::KeyBlocked.into());
        }
        self.check_authority(transaction)?;
        let replaced = served::replaced(transaction.rows, self.made_for.as_ref(), self.at)?;
        let shown = self.check_proof(transaction, replaced.as_ref())?;
        let subject = self.check_holder(transaction, &shown, replaced.as_ref())?;
        let token = match (&shown, &replaced) {
            (Shown::Token(token), None) => {
                Some(super::tokens::spent(transaction.rows, Token::clone(token), key, subject.as_ref(), self.at)?)
            }
            (Shown::Token(token), Some(_)) => Some(super::tokens::spent_again(Token::clone(token), key)),
            (Shown::None | Shown::Group(_), _) => None,
        };
        let admitted = match (&shown, &subject) {
            (Shown::Group(group), Some(subject)) => Some((group.id, admit::counted(group, subject)?)),
            _ => None,
        };
        let approval = self.check_approval(transaction)?;
        let earlier = match &subject {
            Some(subject) => self.check_earlier(transaction, subject)?,
            None => Vec::new(),
        };

        let subject = match subject {
            Some(subject) if subject.id == 0 => Some(self.register(transaction, self.with_own_attributes(subject))?),
            Some(known) => Some(self.change(transaction, known)?),
            None => None,
        };
        set_standing(transaction, &earlier, Standing::Revoked(RevocationReason::Superseded), self.at, Some(&self.details))?;
        let origin = match &shown {
            Shown::Token(token) => token.origin,
            _ => None,
        };
        if let Some(token) = token {
            transaction.rows.set_token_state(&token)?;
        }
        if let Some((group, admitted)) = admitted {
            transaction.rows.set_admitted(group, admitted)?;
        }
        if let Some(request) = approval {
            transaction.rows.put_request(&ApprovalRequest { state: RequestState::Done, ..request })?;
        }
        if let Some(mark) = &self.made_for {
            served::remember(transaction.rows, mark, &key)?;
        }
        if let Some((name, credential)) = &self.credential {
            transaction.rows.set_value(name, &credential.encode())?;
        }
        let subject = subject.map(|subject| Subject { moved_from: origin.or(subject.moved_from), ..subject });
        Ok(Recorded::New(self.write(transaction, subject)?))
    }
}

/// Whether the holder of this live certificate is in quarantine by it: one that a newer one took the place of is superseded.
pub fn suspects(certificate: &Certificate) -> bool {
    certificate.standing == Standing::Quarantined
}

/// The record behind a proof.
enum Shown {
    None,
    Token(Box<Token>),
    Group(Box<Group>),
}

impl RecordCertificate {
    /// The hardware that the proof shows.
    const fn hardware(&self) -> Option<HardwareId> {
        match self.proof {
            Proof::Group(Admission { hardware, .. }) => hardware,
            Proof::Hardware(id) => Some(id),
            Proof::Installation | Proof::Token(_) | Proof::Current(_) | Proof::Rescue => None,
        }
    }

    /// Whether the authority issues still: it may have been replaced, by another process too, since it signed. One that issues no
    /// more certifies its OCSP responder alone.
    fn check_authority(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let is_responder = matches!(self.holder, Holder::Installation) && self.credential.is_some();
        match transaction.rows.authority_state(self.certificate.authority)? {
            Some(AuthorityState::Active) => Ok(()),
            Some(AuthorityState::Tainted) if is_responder => Ok(()),
            _ => Err(Refusal::AuthorityReplaced.into()),
        }
    }

    /// The request that was approved for this fleet, name and key.
    fn check_approval(&self, transaction: &mut Transaction<'_>) -> Result<Option<ApprovalRequest>, StoreError> {
        let Some(id) = self.approval else { return Ok(None) };
        let request = transaction.rows.request(id)?.ok_or(Refusal::ApprovalPending)?;
        let holds = request.state == RequestState::Approved && self.at < request.expires_at;
        if !holds || request.key_hash != self.certificate.key_hash {
            return Err(Refusal::ApprovalPending.into());
        }
        Ok(Some(request))
    }

    /// Checks the proof; returns its record.
    fn check_proof(&self, transaction: &mut Transaction<'_>, replaced: Option<&Certificate>) -> Result<Shown, StoreError> {
        match self.proof {
            Proof::Installation | Proof::Rescue => Ok(Shown::None),
            // It may have been taken from the device a moment ago.
            Proof::Hardware(id) => match transaction.rows.hardware(&id)? {
                Some(_) => Ok(Shown::None),
                None => Err(Refusal::EndorsementKeyUnknown.into()),
            },
            Proof::Token(id) => {
                let token = transaction.rows.token(&id)?.ok_or(Refusal::TokenUnknown)?;
                match replaced {
                    Some(replaced) => served::token_admits_again(&token, replaced)?,
                    None => token_admits(&token, self.certificate.key_hash, self.at)?,
                }
                still_departs(transaction, &token)?;
                Ok(Shown::Token(Box::new(token)))
            }
            Proof::Group(admission) => Ok(Shown::Group(Box::new(admit::open_group(transaction.rows, &admission)?))),
            Proof::Current(serial) => {
                let id = certificate_id(serial.epoch(), serial.index());
                let current = transaction.rows.certificate(id)?.ok_or(Refusal::NotOnLedger)?;
                match current.standing {
                    Standing::Good => Ok(Shown::None),
                    Standing::Superseded => Err(Refusal::Superseded.into()),
                    Standing::Held => Err(Refusal::Held.into()),
                    Standing::Quarantined => Err(Refusal::Quarantined.into()),
                    Standing::Unconfirmed | Standing::Revoked(_) => Err(Refusal::Revoked.into()),
                }
            }
        }
    }

    /// Finds the holder. A new one comes back with id 0.
    fn check_holder(
        &self,
        transaction: &mut Transaction<'_>,
        shown: &Shown,
        replaced: Option<&Certificate>,
    ) -> Result<Option<Subject>, StoreError> {
        let subject = match (&self.holder, replaced) {
            (Holder::Installation, _) => return Ok(None),
            (holder, Some(replaced)) => served::holder(transaction.rows, replaced, holder)?,
            (Holder::Known(id), None) => transaction.rows.subject(*id)?.ok_or(Refusal::DeviceUnknown)?,
            (Holder::ByName(new), None) => {
                match transaction.rows.subject_by_name(new.kind, new.fleet.as_ref(), &new.name.folded())? {
                    Some(known) if known.name != new.name => return Err(Refusal::NameTaken.into()),
                    // An open token must not take over a name that somebody holds a certificate for. Of one for several devices
                    // `tokens::room_for` tells which names may come again.
                    Some(known) if known.last_generation > 0 && !matches!(shown, Shown::Token(token) if token.uses() > 1) => {
                        return Err(Refusal::NameTaken.into());
                    }
                    // Nor one that an operator registered with its hardware.
                    Some(known) if !transaction.rows.hardware_of(known.id)?.is_empty() => {
                        return Err(Refusal::HardwareMismatch.into());
                    }
                    Some(known) => known,
                    None => (**new).clone(),
                }
            }
            (Holder::Admitted(new, rule), None) => admit::newcomer(transaction.rows, new, *rule, self.hardware(), self.at)?,
        };
        if subject.state == SubjectState::Out {
            return Err(Refusal::IdentityOut.into());
        }
        // What is enrolled goes on in a closed fleet.
        if let Some(fleet) = &subject.fleet
            && !matches!(self.proof, Proof::Current(_))
            && !transaction.rows.fleet(fleet)?.ok_or(Refusal::FleetUnknown)?.open
        {
            return Err(Refusal::FleetClosed.into());
        }
        Ok(Some(subject))
    }

    /// The earlier certificates that end by this one: an unconfirmed one, and after a rescue all.
    /// A suspended holder gets no new certificate, and one in quarantine none that its policy did not decide on.
    fn check_earlier(&self, transaction: &mut Transaction<'_>, subject: &Subject) -> Result<Vec<Certificate>, StoreError> {
        if subject.last_generation == 0 {
            return Ok(Vec::new());
        }
        let live = transaction.rows.live_certificates_of(subject.id)?;
        let rescue = matches!(self.proof, Proof::Rescue);
        if !rescue && live.iter().any(|certificate| certificate.standing == Standing::Held) {
            return Err(Refusal::Held.into());
        }
        // It came into quarantine since its policy was asked: that would let it out unasked.
        if self.proof.enrolls() && !self.was_quarantined && live.iter().any(suspects) {
            return Err(Refusal::Quarantined.into());
        }
        Ok(live.into_iter().filter(|certificate| rescue || certificate.standing == Standing::Unconfirmed).collect())
    }

    fn register(&self, transaction: &mut Transaction<'_>, subject: Subject) -> Result<Subject, StoreError> {
        let id = transaction.rows.insert_subject(&subject)?;
        let registered = Event::Registered { subject: id, kind: subject.kind };
        let details = with_attributes(&self.details, &subject);
        transaction.append(&self.certificate.ledger, self.at, registered, Some(&details))?;
        Ok(Subject { id, ..subject })
    }

    fn with_own_attributes(&self, subject: Subject) -> Subject {
        match &self.attributes {
            Some(attributes) => Subject { attributes: attributes.clone(), ..subject },
            None => subject,
        }
    }

    /// Gives a subject that is known the attributes that it is to have.
    fn change(&self, transaction: &mut Transaction<'_>, known: Subject) -> Result<Subject, StoreError> {
        if self.attributes.as_ref().is_none_or(|attributes| *attributes == known.attributes) {
            return Ok(known);
        }
        let changed = self.with_own_attributes(Subject { version: known.version.saturating_add(1), ..known });
        transaction.rows.update_subject(&changed)?;
        let details = with_attributes(&self.details, &changed);
        transaction.append(&self.certificate.ledger, self.at, Event::Changed { subject: changed.id }, Some(&details))?;
        Ok(changed)
    }

    fn write(&self, transaction: &mut Transaction<'_>, subject: Option<Subject>) -> Result<Certificate, StoreError> {
        let mut certificate = self.certificate.clone();
        if let Some(mut subject) = subject {
            subject.last_generation = subject.last_generation.saturating_add(1);
            certificate.subject = Some(subject.id);
            certificate.generation = subject.last_generation;
            self.mark(transaction, &mut subject)?;
            if certificate.standing == Standing::Good {
                super::confirm::succeed(transaction, &mut subject, &certificate, self.at)?;
            }
            transaction.rows.advance_subject(&subject)?;
        }
        certificate.position = transaction.append(&certificate.ledger, self.at, issued(&certificate), Some(&self.details))?;
        transaction.rows.insert_certificate(&certificate)?;
        Ok(certificate)
    }
}

impl RecordCertificate {
    /// Writes down by which group and as which hardware the holder came in, and from which fleet.
    fn mark(&self, transaction: &mut Transaction<'_>, subject: &mut Subject) -> Result<(), StoreError> {
        let group = match self.proof {
            Proof::Group(admission) => Some(admission.group),
            _ => subject.group,
        };
        if subject.group != group || subject.moved_from.is_some() {
            subject.group = group;
            transaction.rows.update_subject(subject)?;
        }
        match self.proof {
            Proof::Group(Admission { hardware: Some(id), proof, .. }) => {
                admit::bind(transaction.rows, id, proof, subject, self.at)
            }
            _ => Ok(()),
        }
    }
}
