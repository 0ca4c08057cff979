//! Tokens are minted and withdrawn. A token changes no standing, so the ledger does not speak of it.

use fleetmark_domain::{FleetName, Kind, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::subjects::{ledger_of, with_attributes};
use super::{Repeatable, made_before, remember};
use crate::store::model::{Subject, SubjectState, Token, TokenId, TokenState};
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// Mints a token; registers the device that it is bound to, where that is not known.
#[derive(Debug)]
pub struct MintToken {
    /// The token; its subject is set here.
    pub token: Token,
    /// The subject that it is bound to.
    pub subject: Option<Subject>,
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
        if made_before(transaction.rows, self.repeatable.as_ref())?.is_some() {
            let token = transaction.rows.token(&self.token.id)?.ok_or(Refusal::NotFound)?;
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
            (Some(known), _) => Some(known),
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
}

impl Act for ForgetRequests {
    type Outcome = u64;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        transaction.rows.forget_touched(self.before)?;
        transaction.rows.forget(self.before)
    }
}
