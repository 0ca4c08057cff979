//! What a device shows to be allowed to enroll, and who it is by that. One file a proof; each gives the same [`Proven`], and the
//! rest of the pipeline ([`super::enroll`]) knows no proof.

mod approval;
mod claim;
mod derived;
mod external;
pub mod maker;
mod token;
mod tpm;

use fleetmark_domain::{KeyHash, Kind, Name, Refusal, Timestamp};

use super::challenge::Answer;
use super::enroll::EnrollRequest;
use super::tokens::PresentedToken;
use super::{Registrar, Result};
use crate::store::StoreError;
use crate::store::acts::record::{Holder, Proof};
use crate::store::acts::served::key_made_for;
use crate::store::acts::tokens::token_admits;
use crate::store::model::{Certificate, Fleet, Group, Subject, Token, TokenState};
use crate::store::rows::Rows;

/// What a device shows.
#[derive(Debug)]
pub enum Shown {
    /// Nothing: a person is to approve it, where the fleet has a group for that.
    Nothing,
    /// An enrollment token or invitation.
    Token(PresentedToken),
    /// The certificate of its connection, with the chain that it sent, in DER, its own first: another authority's, a maker's, or a claim. The
    /// handshake proved that it holds the key.
    Certificate(Vec<Vec<u8>>),
    /// An answer by a key that is derived from its group's.
    DerivedKey(Answer),
    /// An answer by its TPM.
    Tpm(Answer),
}

/// Who it is by its proof, and on what terms it comes in.
pub(super) struct Proven {
    /// Who; with id 0 where no record is there yet.
    pub subject: Subject,
    /// The fleet.
    pub fleet: Option<Fleet>,
    /// The certificate that the key has already.
    pub existing: Option<Certificate>,
    /// How its record is found again in the transaction.
    pub holder: Holder,
    /// By what right.
    pub proof: Proof,
    /// The token, where it is one.
    pub token: Option<Token>,
    /// The group, where it is one.
    pub group: Option<Group>,
    /// Whether a person must approve it.
    pub approval: bool,
    /// How the proof is called in the ledger's details, and in a request for approval.
    pub note: String,
}

/// What the store knows of a request by a group's proof that says which device it is of.
struct InGroup {
    fleet: Fleet,
    group: Group,
    /// The record of that name.
    known: Option<Subject>,
    /// The certificate that the key has already.
    existing: Option<Certificate>,
    /// Whether it is on the group's list, where the group goes by one.
    is_listed: bool,
}

impl Proven {
    /// Whether an earlier answer may be given again for `key`; a fresh token is not spent on it, a foreign one is refused as ever.
    ///
    /// # Errors
    /// Those of [`token_admits`].
    pub fn admits_replay(&self, key: KeyHash, now: Timestamp) -> std::result::Result<(), Refusal> {
        match &self.token {
            // A token for several devices is bound to no key: what it gave it gives again, past its end and when it is used up.
            Some(token) if token.uses() > 1 && token.state == TokenState::Fresh => {
                let is_own = self.existing.as_ref().is_some_and(|existing| existing.token == Some(token.id));
                if is_own { Ok(()) } else { token_admits(token, key, now) }
            }
            Some(token) => token_admits(token, key, now),
            None => Ok(()),
        }
    }
}

impl Registrar {
    /// Judges what was shown. `is_race` says that another request took the same place a moment ago.
    pub(super) async fn judge_proof(&self, request: &EnrollRequest, is_race: bool, now: Timestamp) -> Result<Proven> {
        match &request.shown {
            Shown::Token(token) => self.prove_by_token(request, token, is_race, now).await,
            Shown::Certificate(chain) => match claim::claim(chain) {
                Some(claim) => self.prove_by_claim(request, claim, now).await,
                None => self.prove_by_foreign(request, chain, now).await,
            },
            Shown::DerivedKey(answer) => self.prove_by_derived_key(request, answer, now).await,
            Shown::Tpm(answer) => self.prove_by_tpm(request, answer, now).await,
            Shown::Nothing => self.prove_by_approval(request, now).await,
        }
    }
}

/// The key by which a proof is judged: the request's; where the server makes the keys, the one that it made for the same request
/// before.
pub(super) fn judged_key(rows: &mut dyn Rows, request: (KeyHash, Option<KeyHash>)) -> std::result::Result<KeyHash, StoreError> {
    let (key, made_for) = request;
    let earlier = match made_for {
        Some(mark) => key_made_for(rows, &mark)?,
        None => None,
    };
    Ok(earlier.unwrap_or(key))
}

/// The record of this name, where there is one. A twin that differs in case alone is another name, and it is taken.
pub(super) fn known_by_name(
    rows: &mut dyn Rows,
    kind: Kind,
    fleet: Option<&fleetmark_domain::FleetName>,
    name: &Name,
) -> std::result::Result<Option<Subject>, StoreError> {
    match rows.subject_by_name(kind, fleet, &name.folded())? {
        Some(known) if known.name != *name => Err(Refusal::NameTaken.into()),
        known => Ok(known),
    }
}
