//! Tokens are minted and withdrawn. A token changes no standing, so the ledger does not speak of it.

use fleetmark_domain::{FleetName, KeyHash, Kind, LedgerName, Refusal, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::limits::spend;
use super::subjects::{ledger_of, with_attributes};
use super::{Repeatable, made_before, remember};
use crate::store::model::{Subject, SubjectState, Token, TokenId, TokenState};
use crate::store::rows::Rows;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Whether a token admits this key now. How many devices came with one for several is asked by [`room_for`].
///
/// # Errors
/// `TokenWithdrawn`, `TokenExpired`, `TokenUsed`, `TokenBoundToOtherKey`.
pub fn token_admits(token: &Token, key: KeyHash, at: Timestamp) -> Result<(), Refusal> {
    match token.state {
        TokenState::Withdrawn => Err(Refusal::TokenWithdrawn),
        TokenState::Fresh if token.expires_at <= at => Err(Refusal::TokenExpired),
        TokenState::Fresh => Ok(()),
        TokenState::Reserved(bound) | TokenState::Used(bound) if bound == key => Ok(()),
        TokenState::Reserved(_) => Err(Refusal::TokenBoundToOtherKey),
        TokenState::Used(_) => Err(Refusal::TokenUsed),
    }
}

/// Whether a token for several devices has room for the one that comes under the name of `known`; None: a name that nobody has.
/// Returns whether that one is counted already: its certificate of this token lapsed before it was confirmed, and it may come again.
///
/// # Errors
/// `NameTaken` where the name is held by what did not come with this token, or was confirmed; `TokenBoundToOtherKey` while the
/// certificate of this token under this name may still be confirmed; `Held`, `Quarantined`, `TokenUsed`.
pub fn room_for(rows: &mut dyn Rows, token: &Token, known: Option<&Subject>, at: Timestamp) -> Result<bool, StoreError> {
    let came_before = match known {
        Some(known) if known.last_generation > 0 => {
            comes_again(rows, token, known, at)?;
            true
        }
        _ => false,
    };
    if !came_before && token.spent >= token.uses() {
        return Err(Refusal::TokenUsed.into());
    }
    Ok(came_before)
}

/// Whether the holder of this name may come again with the same token.
fn comes_again(rows: &mut dyn Rows, token: &Token, known: &Subject, at: Timestamp) -> Result<(), StoreError> {
    let newest = rows.certificate_of(known.id, known.last_generation)?;
    let Some(newest) = newest.filter(|newest| known.confirmed_generation == 0 && newest.token == Some(token.id)) else {
        return Err(Refusal::NameTaken.into());
    };
    let has_ended = newest.confirm_before.is_some_and(|end| end <= at);
    match newest.standing {
        Standing::Held => Err(Refusal::Held.into()),
        Standing::Quarantined => Err(Refusal::Quarantined.into()),
        Standing::Unconfirmed if !has_ended => Err(Refusal::TokenBoundToOtherKey.into()),
        // What an operator revoked in time was not a lapse: that name needs a token of its own.
        Standing::Revoked(_) if newest.confirm_before.is_none_or(|end| newest.changed_at < end) => {
            Err(Refusal::NameTaken.into())
        }
        Standing::Unconfirmed | Standing::Revoked(_) => Ok(()),
        Standing::Good | Standing::Superseded => Err(Refusal::NameTaken.into()),
    }
}

/// A token after one more enrollment: of one for a single device, bound to the key; of one for several, counted.
///
/// # Errors
/// See [`room_for`].
pub(super) fn spent(
    rows: &mut dyn Rows,
    token: Token,
    key: KeyHash,
    subject: Option<&Subject>,
    at: Timestamp,
) -> Result<Token, StoreError> {
    let one_more = token.spent.saturating_add(1);
    if token.uses() == 1 {
        return Ok(Token { spent: one_more, state: TokenState::Reserved(key), ..token });
    }
    let is_counted = room_for(rows, &token, subject, at)?;
    Ok(if is_counted { token } else { Token { spent: one_more, ..token } })
}

/// A token after another enrollment of the same device, whose key the server made anew ([`super::served`]).
pub(super) fn spent_again(token: Token, key: KeyHash) -> Token {
    let state = if token.uses() == 1 { TokenState::Reserved(key) } else { token.state };
    Token { state, ..token }
}

/// The token as it was minted before, by a repeat. Id and secret come from the caller's key and request: so a repeat is known also once
/// it is remembered no more.
///
/// # Errors
/// `IdempotencyKeyReused`; `NotFound` where it is there no more.
pub(super) fn minted_before(
    rows: &mut dyn Rows,
    token: &Token,
    repeatable: Option<&Repeatable>,
) -> Result<Option<Token>, StoreError> {
    let is_remembered = made_before(rows, repeatable)?.is_some();
    match rows.token(&token.id)? {
        Some(earlier) if earlier.secret_hash == token.secret_hash => Ok(Some(earlier)),
        Some(_) => Err(Refusal::IdempotencyKeyReused.into()),
        None if is_remembered => Err(Refusal::NotFound.into()),
        None => Ok(None),
    }
}

/// Mints a token; registers the device that it is bound to, where that is not known.
#[derive(Debug)]
pub struct MintToken {
    /// The token; its subject is set here.
    pub token: Token,
    /// The subject that it is bound to.
    pub subject: Option<Subject>,
    /// Whether the one who mints it may change standings too.
    pub may_change: bool,
    /// For a repeat.
    pub repeatable: Option<Repeatable>,
    /// Who did it.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

impl Act for MintToken {
    type Outcome = (Token, Option<Subject>);

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::from(self.token.fleet.as_ref())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Self::Outcome, StoreError> {
        let known = match &self.subject {
            Some(Subject { kind, fleet, name, .. }) => {
                transaction.rows.subject_by_name(*kind, fleet.as_ref(), &name.folded())?
            }
            None => None,
        };
        if let Some(token) = minted_before(transaction.rows, &self.token, self.repeatable.as_ref())? {
            return Ok((token, known));
        }
        if let Some(fleet) = &self.token.fleet
            && transaction.rows.fleet(fleet)?.is_none()
        {
            return Err(Refusal::FleetUnknown.into());
        }
        let subject = match (known, &self.subject) {
            (Some(known), _) if known.state == SubjectState::Out => return Err(Refusal::IdentityOut.into()),
            (Some(known), Some(asked)) if known.name != asked.name => return Err(Refusal::NameTaken.into()),
            (Some(known), _) => {
                self.check_anew(transaction.rows, &known)?;
                Some(known)
            }
            (None, Some(new)) => Some(self.register(transaction, new)?),
            (None, None) => None,
        };
        let token = Token { subject: subject.as_ref().map(|subject| subject.id), ..self.token.clone() };
        transaction.rows.insert_token(&token)?;
        remember(transaction.rows, self.repeatable.as_ref())?;
        Ok((token, subject))
    }
}

impl MintToken {
    /// By a token another key takes the place of a device that was enrolled before: that changes the device. One that never confirmed
    /// a certificate, or is to enroll anew since it was let in again, whoever prepares devices may let in.
    fn check_anew(&self, rows: &mut dyn Rows, known: &Subject) -> Result<(), StoreError> {
        if known.last_generation == 0 {
            return Ok(());
        }
        if !self.may_change && known.state != SubjectState::Registered {
            return Err(Refusal::NotPermitted.into());
        }
        spend(rows, Some(self.token.created_by), known.fleet.as_ref(), known.id, self.at)
    }

    fn register(&self, transaction: &mut Transaction<'_>, new: &Subject) -> Result<Subject, StoreError> {
        let id = transaction.rows.insert_subject(new)?;
        let details = with_attributes(&self.details, new);
        transaction.append(&ledger_of(new), self.at, Event::Registered { subject: id, kind: new.kind }, Some(&details))?;
        Ok(Subject { id, ..new.clone() })
    }
}

/// Withdraws a token that is not used up.
#[derive(Debug)]
pub struct WithdrawToken {
    /// Which.
    pub id: TokenId,
    /// The kind that it admits.
    pub kind: Kind,
    /// Its fleet.
    pub fleet: Option<FleetName>,
}

impl Act for WithdrawToken {
    type Outcome = Token;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Token, StoreError> {
        let found = transaction.rows.token(&self.id)?.filter(|token| token.kind == self.kind && token.fleet == self.fleet);
        let token = found.ok_or(Refusal::NotFound)?;
        match token.state {
            TokenState::Withdrawn => Ok(token),
            TokenState::Used(_) => Err(Refusal::TokenUsed.into()),
            TokenState::Fresh | TokenState::Reserved(_) => {
                let withdrawn = Token { state: TokenState::Withdrawn, ..token };
                transaction.rows.set_token_state(&withdrawn)?;
                Ok(withdrawn)
            }
        }
    }
}

/// Forgets requests that were remembered for their repeats, and what counted against operators' limits.
#[derive(Debug)]
pub struct ForgetRequests {
    /// Those before this.
    pub before: Timestamp,
    /// Of what counted against limits, what lies after this, too: a clock was ahead.
    pub after: Timestamp,
}

impl Act for ForgetRequests {
    type Outcome = u64;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        transaction.rows.forget_touched(self.before, self.after)?;
        transaction.rows.forget(self.before)
    }
}
