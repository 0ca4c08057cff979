//! Approval by a person: requests wait, operators decide, the same request then succeeds.

use std::collections::BTreeMap;

use fleetmark_domain::{Action, FleetName, LedgerName, Name, Refusal, Timestamp};

use super::caller::Caller;
use super::enroll::EnrollRequest;
use super::proofs::Proven;
use super::standing::checked_note;
use super::subjects::identity_of;
use super::{Error, Page, PageRequest, Registrar, Result};
use crate::pki::keys::KeyAlgorithm;
pub use crate::store::acts::requests::Decision;
use crate::store::acts::requests::{AskApproval, DecideRequest, ForgetExpired, HOLDS, MOST_WAITING, known_request};
use crate::store::model::{ApprovalRequest, RequestState, SubjectId};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, look_up, read};

/// How many fleets are read at a time.
const FLEETS: u32 = 500;

/// A request, with the name of who decided it.
#[derive(Debug, Clone)]
pub struct RequestView {
    /// As it is kept.
    pub request: ApprovalRequest,
    /// Who decided it.
    pub decided_by: Option<Name>,
}

/// A request that was approved.
pub(super) struct Approved {
    /// Which.
    pub id: u64,
    /// By whom: a SPIFFE ID.
    pub by: String,
}

/// How a key's algorithm is called where people and hooks read it.
pub(super) const fn key_type(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::P256 => "P-256",
        KeyAlgorithm::P384 => "P-384",
        KeyAlgorithm::Ed25519 => "Ed25519",
        KeyAlgorithm::Rsa => "RSA",
    }
}

impl Registrar {
    /// A person's approval of this request, where one is needed. A request that comes for the first time is taken down, unless it
    /// could not succeed however the person decided.
    ///
    /// # Errors
    /// `ApprovalPending`, `ApprovalRefused`, `TooManyRequests`, `FleetClosed`, `KeyTypeNotAllowed`, `KeyBlocked`.
    pub(super) async fn approval_of(
        &self,
        proven: &Proven,
        request: &EnrollRequest,
        now: Timestamp,
    ) -> Result<Option<Approved>> {
        if !proven.approval {
            return Ok(None);
        }
        let fleet = proven.fleet.as_ref().ok_or(Refusal::FleetUnknown)?;
        if !fleet.open {
            return Err(Refusal::FleetClosed.into());
        }
        if !self.profile_of(&proven.subject, Some(fleet))?.keys.contains(&request.csr.algorithm()) {
            return Err(Refusal::KeyTypeNotAllowed.into());
        }
        let asked = ApprovalRequest {
            id: u64::from_be_bytes(self.random()?) >> 1,
            fleet: fleet.name.clone(),
            name: proven.subject.name.clone(),
            key_hash: request.csr.key_hash(),
            state: RequestState::Waiting,
            proof: proven.note.clone(),
            source: request.source,
            key_type: key_type(request.csr.algorithm()).to_owned(),
            reason: String::new(),
            asked_at: now,
            decided_at: None,
            decided_by: None,
            expires_at: now + HOLDS,
        };
        let known = self.taken_down(asked, now).await?;
        match known.state {
            RequestState::Waiting => {
                let detail = format!("SHA-256 of the key: {}", known.key_hash);
                Err(Error::with_detail(Refusal::ApprovalPending, detail))
            }
            RequestState::Refused if known.reason.is_empty() => Err(Refusal::ApprovalRefused.into()),
            RequestState::Refused => Err(Error::with_detail(Refusal::ApprovalRefused, known.reason)),
            RequestState::Approved => Ok(Some(Approved { id: known.id, by: self.decider(known.decided_by).await? })),
            // The key got its certificate a moment ago, and the next try finds it.
            RequestState::Done => Err(StoreError::Collision.into()),
        }
    }

    /// The request as it is kept; a new one is written down. Whoever floods us is refused by a reading, before the writer is asked.
    async fn taken_down(&self, asked: ApprovalRequest, now: Timestamp) -> Result<ApprovalRequest> {
        let looked_for = asked.clone();
        let known = match look_up(&*self.store, move |rows| known_request(rows, &looked_for, now)).await {
            Ok(Some(known)) => return Ok(known),
            Ok(None) => commit(&*self.store, AskApproval { request: asked.clone(), at: now }).await,
            Err(error) => Err(error),
        };
        match known {
            Ok(known) => {
                tracing::info!(fleet = %known.fleet, device = %known.name, "a request waits for approval");
                Ok(known)
            }
            Err(error) => {
                let error = Error::from(error);
                if error.refusal == Refusal::TooManyRequests {
                    let what = format!("{} asked from {:?}", asked.name, asked.source);
                    self.raise("too_many_waiting", LedgerName::Fleet(asked.fleet.clone()), 0, &what, now);
                }
                Err(error)
            }
        }
    }

    async fn decider(&self, id: Option<SubjectId>) -> Result<String> {
        let Some(id) = id else { return Ok("nobody".to_owned()) };
        let operator = look_up(&*self.store, move |rows| rows.subject(id)).await?.ok_or(Refusal::StorageDamaged)?;
        Ok(identity_of(&operator)?.uri(&self.trust_domain))
    }

    /// The fleet's requests, in no particular order; those that expired are not there any more.
    pub async fn requests(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        state: Option<RequestState>,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<RequestView>> {
        caller.may(Action::Read, Some(fleet))?;
        let (after, limit, fleet) = (page.after()?, page.limit, fleet.clone());
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let mut names = BTreeMap::new();
            let requests = rows.requests(&fleet, state, after, limit)?;
            requests.into_iter().map(|request| view(rows, &mut names, request)).collect::<std::result::Result<Vec<_>, _>>()
        });
        let mut page = Page::of(found.await?, limit, |last| last.request.id.to_string());
        page.items.retain(|view| now < view.request.expires_at);
        Ok(page)
    }

    /// One request.
    pub async fn request(&self, caller: &Caller, fleet: &FleetName, id: u64, now: Timestamp) -> Result<RequestView> {
        caller.may(Action::Read, Some(fleet))?;
        let fleet = fleet.clone();
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let request = rows.request(id)?.filter(|request| request.fleet == fleet && now < request.expires_at);
            request.map(|request| view(rows, &mut BTreeMap::new(), request)).transpose()
        });
        found.await?.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Decides a request. The same decision again succeeds and changes nothing; another one is refused. An approval closes the
    /// requests of other keys under the same name.
    ///
    /// # Errors
    /// `NotFound`, `TransitionNotAllowed`, `NotPermitted`.
    pub async fn decide_request(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        id: u64,
        decision: Decision,
        reason: &str,
        now: Timestamp,
    ) -> Result<RequestView> {
        caller.may(Action::MintToken, Some(fleet))?;
        let reason = checked_note(reason)?.unwrap_or_default();
        let act = DecideRequest { fleet: fleet.clone(), id, decision, reason, by: caller.subject.id, at: now };
        let request = commit(&*self.store, act).await.map_err(|error| match Error::from(error) {
            Error { refusal: Refusal::TransitionNotAllowed, .. } => {
                Error::with_detail(Refusal::TransitionNotAllowed, "The request was decided otherwise already.")
            }
            error => error,
        })?;
        let word = if request.state == RequestState::Refused { "refused" } else { "approved" };
        metrics::counter!("fleetmark_requests_decided_total", "decision" => word).increment(1);
        tracing::info!(fleet = %request.fleet, device = %request.name, by = caller.actor(self), "a request is {word}");
        Ok(read(&*self.store, move |rows| view(rows, &mut BTreeMap::new(), request)).await?)
    }

    /// Forgets requests that expired, and counts those that wait.
    pub(super) async fn tend_requests(&self, now: Timestamp) -> Result<()> {
        commit(&*self.store, ForgetExpired { at: now }).await?;
        let waiting = read(&*self.store, |rows| {
            let mut waiting = Vec::new();
            let mut after: Option<FleetName> = None;
            loop {
                let fleets = rows.fleets(after.as_ref().map(FleetName::as_str), FLEETS)?;
                for fleet in &fleets {
                    waiting.push((fleet.name.clone(), rows.waiting_requests(&fleet.name)?));
                }
                match fleets.last() {
                    Some(last) => after = Some(last.name.clone()),
                    None => return Ok(waiting),
                }
            }
        });
        for (fleet, count) in waiting.await? {
            let count = u32::try_from(count.min(MOST_WAITING)).unwrap_or(u32::MAX);
            metrics::gauge!("fleetmark_requests_waiting", "fleet" => fleet.to_string()).set(f64::from(count));
        }
        Ok(())
    }
}

fn view(
    rows: &mut dyn Rows,
    names: &mut BTreeMap<SubjectId, Name>,
    request: ApprovalRequest,
) -> std::result::Result<RequestView, StoreError> {
    let Some(id) = request.decided_by else { return Ok(RequestView { request, decided_by: None }) };
    let name = match names.get(&id) {
        Some(name) => name.clone(),
        None => rows.subject(id)?.ok_or(StoreError::Unreadable { what: "request" })?.name,
    };
    names.insert(id, name.clone());
    Ok(RequestView { request, decided_by: Some(name) })
}
