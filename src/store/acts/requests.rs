//! Requests for approval: they come in, a person decides, and they are forgotten.
//!
//! Each act locks the fleet's ledger, as the act that records a certificate does: two decisions, or a decision and the use of an
//! earlier one, never meet half-way, however many servers share the database.

use std::time::Duration;

use fleetmark_domain::{FleetName, LedgerName, Network, Refusal, Timestamp};

use crate::store::model::{ApprovalRequest, RequestState, SubjectId};
use crate::store::rows::Rows;
use crate::store::transaction::Transaction;
use crate::store::{Act, StoreError};

/// How long a request waits, and how long a decision holds.
pub const HOLDS: Duration = Duration::from_secs(7 * 86_400);
/// The most requests that wait in one fleet.
pub const MOST_WAITING: u64 = 1_000;
/// The most requests that wait from one network.
pub const MOST_FROM_NETWORK: usize = 10;

/// How many requests are read at a time.
const PAGE: u32 = 500;
/// What the holders of the other keys are told.
const ANOTHER_KEY: &str = "Another key was approved for this name.";

/// The request of this fleet, name and key that is there; None where it may be taken down.
///
/// # Errors
/// `TooManyRequests`, `KeyBlocked`; [`StoreError::Collision`] where the key has a certificate by now.
pub fn known_request(
    rows: &mut dyn Rows,
    asked: &ApprovalRequest,
    at: Timestamp,
) -> Result<Option<ApprovalRequest>, StoreError> {
    let known = rows.request_by_key(&asked.fleet, &asked.name.folded(), &asked.key_hash)?;
    if let Some(known) = known.filter(|known| at < known.expires_at) {
        return Ok(Some(known));
    }
    if rows.certificate_by_key(&asked.key_hash)?.is_some() {
        return Err(StoreError::Collision);
    }
    if rows.blocked_key(&asked.key_hash)?.is_some() {
        return Err(Refusal::KeyBlocked.into());
    }
    if rows.waiting_requests(&asked.fleet)? >= MOST_WAITING || from_network(rows, asked, at)? >= MOST_FROM_NETWORK {
        return Err(Refusal::TooManyRequests.into());
    }
    Ok(None)
}

/// How many requests wait that came from this one's network.
fn from_network(rows: &mut dyn Rows, asked: &ApprovalRequest, at: Timestamp) -> Result<usize, StoreError> {
    let network = asked.source.map(Network::of_customer);
    let (mut count, mut after) = (0, 0);
    loop {
        let page = rows.requests(&asked.fleet, Some(RequestState::Waiting), after, PAGE)?;
        let is_same = |known: &&ApprovalRequest| known.source.map(Network::of_customer) == network && at < known.expires_at;
        count += page.iter().filter(is_same).count();
        match page.last() {
            Some(last) if count < MOST_FROM_NETWORK => after = last.id,
            _ => return Ok(count),
        }
    }
}

/// Takes a request down. The same one again changes nothing.
#[derive(Debug)]
pub struct AskApproval {
    /// The request, waiting.
    pub request: ApprovalRequest,
    /// Now.
    pub at: Timestamp,
}

impl Act for AskApproval {
    /// As it is kept.
    type Outcome = ApprovalRequest;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.request.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<ApprovalRequest, StoreError> {
        if let Some(known) = known_request(transaction.rows, &self.request, self.at)? {
            return Ok(known);
        }
        // An expired one of the same key goes with them: there is one of each key.
        transaction.rows.forget_requests(self.at)?;
        transaction.rows.put_request(&self.request)?;
        Ok(self.request.clone())
    }
}

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same request will succeed; those of other keys under the name are refused.
    Approve,
    /// It will not.
    Refuse,
    /// It will not, even where it was approved, as long as it has no certificate.
    TakeBack,
}

/// Decides a request.
#[derive(Debug)]
pub struct DecideRequest {
    /// In this fleet.
    pub fleet: FleetName,
    /// Which.
    pub id: u64,
    /// How.
    pub decision: Decision,
    /// What the operator wrote.
    pub reason: String,
    /// The operator.
    pub by: SubjectId,
    /// Now.
    pub at: Timestamp,
}

impl Act for DecideRequest {
    /// As it is from here on. The same decision again changes nothing.
    type Outcome = ApprovalRequest;

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::Fleet(self.fleet.clone())]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<ApprovalRequest, StoreError> {
        let found = transaction.rows.request(self.id)?;
        let request = found.filter(|request| request.fleet == self.fleet && self.at < request.expires_at);
        let request = request.ok_or(Refusal::NotFound)?;
        let state = match (self.decision, request.state) {
            (Decision::Approve, RequestState::Approved | RequestState::Done)
            | (Decision::Refuse | Decision::TakeBack, RequestState::Refused) => return Ok(request),
            (Decision::Approve, RequestState::Waiting) => RequestState::Approved,
            (Decision::Refuse | Decision::TakeBack, RequestState::Waiting) | (Decision::TakeBack, RequestState::Approved) => {
                RequestState::Refused
            }
            _ => return Err(Refusal::TransitionNotAllowed.into()),
        };
        if state == RequestState::Approved {
            let of_name = transaction.rows.requests_of_name(&request.fleet, &request.name.folded())?;
            let is_open = |state| matches!(state, RequestState::Waiting | RequestState::Approved);
            for other in of_name.into_iter().filter(|other| other.id != request.id && is_open(other.state)) {
                transaction.rows.put_request(&self.decided(other, RequestState::Refused, ANOTHER_KEY))?;
            }
        }
        let decided = self.decided(request, state, &self.reason);
        transaction.rows.put_request(&decided)?;
        Ok(decided)
    }
}

impl DecideRequest {
    fn decided(&self, request: ApprovalRequest, state: RequestState, reason: &str) -> ApprovalRequest {
        ApprovalRequest {
            state,
            reason: reason.to_owned(),
            decided_at: Some(self.at),
            decided_by: Some(self.by),
            expires_at: self.at + HOLDS,
            ..request
        }
    }
}

/// Forgets requests that expired.
#[derive(Debug)]
pub struct ForgetExpired {
    /// Now.
    pub at: Timestamp,
}

impl Act for ForgetExpired {
    /// How many.
    type Outcome = u64;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        transaction.rows.forget_requests(self.at)
    }
}
