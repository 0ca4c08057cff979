//! By token: one for one device, or for several; or an invitation.

use fleetmark_domain::{Kind, Name, Refusal, Timestamp};

use super::{Proven, judged_key, known_by_name};
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::subjects::new_subject;
use crate::registrar::tokens::PresentedToken;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::record::{Holder, Proof};
use crate::store::acts::subjects::ledger_of;
use crate::store::acts::tokens::{room_for, token_admits};
use crate::store::model::{Certificate, Fleet, Subject, SubjectState, Token, TokenState};
use crate::store::rows::Rows;
use crate::store::{StoreError, look_up};

/// What the store knows of a token and of the key that comes with it.
struct Standpoint {
    token: Token,
    subject: Option<Subject>,
    fleet: Option<Fleet>,
    existing: Option<Certificate>,
    /// What [`room_for`] says of a token for several devices.
    room: std::result::Result<(), Refusal>,
}

impl Registrar {
    pub(super) async fn prove_by_token(
        &self,
        request: &EnrollRequest,
        shown: &PresentedToken,
        is_race: bool,
        now: Timestamp,
    ) -> Result<Proven> {
        let Standpoint { token, subject: known, fleet, existing, room } = self.standpoint(request, shown, is_race, now).await?;
        let subject = match &known {
            Some(subject) => subject.clone(),
            None => newcomer(request, &token, now)?,
        };
        if existing.is_none() {
            let key = request.csr.key_hash();
            let judged = token_admits(&token, key, now).and_then(|()| token.terms.admit(&subject.name, request.source, now));
            if let Err(refusal) = judged.and(room) {
                if refusal == Refusal::TokenBoundToOtherKey {
                    let what = format!("token {}, name {}", hex::encode(token.id), subject.name);
                    self.raise("token_second_key", ledger_of(&subject), subject.id, &what, now);
                }
                return Err(refusal.into());
            }
        }
        let holder = match known {
            Some(known) if token.subject == Some(known.id) => Holder::Known(known.id),
            _ => Holder::ByName(Box::new(subject.clone())),
        };
        Ok(Proven {
            subject,
            fleet,
            existing,
            holder,
            proof: Proof::Token(token.id),
            group: None,
            approval: token.terms.approval,
            note: format!("token {}", hex::encode(token.id)),
            token: Some(token),
        })
    }

    /// Reads token, subject, fleet and the key's certificate, in one state of things. With a fresh token the key is hardly
    /// ever known; where it is, the act that records the certificate finds it, and the second try looks for it.
    async fn standpoint(
        &self,
        request: &EnrollRequest,
        shown: &PresentedToken,
        is_race: bool,
        now: Timestamp,
    ) -> Result<Standpoint> {
        let (id, secret_hash) = (shown.id, shown.secret_hash);
        let (fleet, name) = (request.fleet.clone(), request.name.clone());
        let key = (request.csr.key_hash(), request.csr.made_for());
        let found = look_up(&*self.store, move |rows| {
            let Some(token) = rows.token(&id)?.filter(|token| token.has_secret(&secret_hash)) else {
                return Err(Refusal::TokenUnknown.into());
            };
            if token.fleet != fleet {
                return Err(Refusal::TokenWrongFleet.into());
            }
            let subject = subject_of(rows, &token, name.as_ref())?;
            let fleet = match &fleet {
                Some(fleet) => rows.fleet(fleet)?,
                None => None,
            };
            let key = judged_key(rows, key)?;
            let existing = match token.state {
                TokenState::Fresh if !is_race && token.spent == 0 => None,
                _ => rows.certificate_by_key(&key)?,
            };
            let room = match (&existing, token.uses()) {
                (None, 2..) => refused(room_for(rows, &token, subject.as_ref(), now))?,
                _ => Ok(()),
            };
            Ok(Standpoint { token, subject, fleet, existing, room })
        });
        Ok(found.await?)
    }
}

/// A refusal as a value: only what fails below it fails the reading.
fn refused(room: std::result::Result<bool, StoreError>) -> std::result::Result<std::result::Result<(), Refusal>, StoreError> {
    match room {
        Ok(_) => Ok(Ok(())),
        Err(StoreError::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error),
    }
}

/// The subject that an open token's first user becomes.
fn newcomer(request: &EnrollRequest, token: &Token, now: Timestamp) -> Result<Subject> {
    let name = request.name.clone().ok_or_else(|| {
        Error::with_detail(Refusal::InvalidName, "This token is bound to no name: say under which name to enroll.")
    })?;
    if token.kind != Kind::Device {
        return Err(Refusal::DeviceUnknown.into());
    }
    Ok(new_subject(token.kind, token.fleet.clone(), name, now))
}

/// The subject that a token admits: the one that it is bound to, or the one of the name asked for.
fn subject_of(rows: &mut dyn Rows, token: &Token, asked: Option<&Name>) -> std::result::Result<Option<Subject>, StoreError> {
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
        Some(name) => known_by_name(rows, token.kind, token.fleet.as_ref(), name),
        None => Ok(None),
    }
}
