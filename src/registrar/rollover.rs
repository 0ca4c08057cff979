//! Authorities are prepared, activated, tainted, revoked; so are roots. The table is [`fleetmark_domain::authority`]'s; here is asked
//! who may, and what must hold around it.

pub(super) mod by_list;
pub(super) mod plan;
mod roots;
#[cfg(test)]
mod tests;

use fleetmark_domain::{
    Action, AuthorityEvent, AuthorityState, FleetName, Kind, LedgerName, Refusal, RevocationReason, Timestamp,
};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::AuthorityKind;

use plan::{PLAN, Plan};

use super::authorities::Authority;
use super::caller::Caller;
use super::install::NewAuthority;
use super::standing::checked_note;
use super::trust_bundle::WANTED;
use super::{Error, Registrar, Result};
use crate::pki::issue::facts;
use crate::pki::keys::{KeyAlgorithm, Keys};
use crate::store::acts::authorities::{ChangeAuthority, changes};
use crate::store::acts::found::AUTHORITIES_CHANGED;
use crate::store::acts::limits::usage;
use crate::store::model::{AuthorityId, AuthorityRecord, InHands};
use crate::store::{StoreError, commit, read};

/// A successor to prepare.
#[derive(Debug, Clone)]
pub struct Successor {
    /// What it is to issue for.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    pub fleet: Option<FleetName>,
    /// Its key's; None: the profile's first.
    pub algorithm: Option<KeyAlgorithm>,
    /// Of a root: whether its key is to be on another machine; None: as that of the root before.
    pub elsewhere: Option<bool>,
    /// What the operator writes; at most 1,024 characters.
    pub note: String,
}

/// What an operator does to an authority.
#[derive(Debug, Clone)]
pub struct Change {
    /// Activated, tainted or revoked.
    pub event: AuthorityEvent,
    /// Although something is against it: see [`ChangeAuthority::forced`]; of a revocation also, although certificates are in use.
    pub forced: bool,
    /// Of a revocation.
    pub reason: RevocationReason,
    /// What the operator writes; at most 1,024 characters.
    pub note: String,
}

impl Registrar {
    /// Prepares a successor: it is trusted everywhere from now on, and issues nothing.
    ///
    /// # Errors
    /// `NotPermitted`, `FleetUnknown`, `SuccessorPrepared`, `KeyTypeNotAllowed`; `WaitsForRoot` where a root's key is needed that is
    /// not on this machine: its ceremony is asked, and the same call goes on afterwards.
    pub async fn prepare_authority(&self, caller: &Caller, new: Successor, now: Timestamp) -> Result<AuthorityRecord> {
        caller.may(Action::ManageFleets, None)?;
        let note = checked_note(&new.note)?;
        self.refresh_authorities().await?;
        let _one_at_a_time = self.founding.lock().await;
        let is_same = |record: &AuthorityRecord| record.kind == new.kind && record.fleet == new.fleet && !record.is_cross();
        let all = self.authorities.all();
        let mut same = all.iter().map(|authority| &authority.record).filter(|record| is_same(record));
        match (new.kind, &new.fleet) {
            (AuthorityKind::Of(Kind::Device), None) => {
                return Err(Error::with_detail(Refusal::InvalidValue, "A device authority is one fleet's: say which."));
            }
            (AuthorityKind::Of(Kind::Device), Some(fleet)) => drop(self.fleet(caller, fleet).await?),
            (_, Some(_)) => {
                return Err(Error::with_detail(Refusal::InvalidValue, "Only device authorities belong to a fleet."));
            }
            (_, None) => {}
        }
        if new.elsewhere.is_some() && new.kind != AuthorityKind::Root {
            return Err(Error::with_detail(Refusal::InvalidValue, "Only a root's key is elsewhere."));
        }
        if same.any(|record| record.state == AuthorityState::Prepared) {
            return Err(Refusal::SuccessorPrepared.into());
        }
        let kind = match new.kind {
            AuthorityKind::Root => return self.prepare_root(caller, (new.algorithm, new.elsewhere), note, now).await,
            AuthorityKind::Of(kind) => kind,
        };
        let wanted = NewAuthority { kind, fleet: new.fleet, state: AuthorityState::Prepared, algorithm: new.algorithm, note };
        let made = self.new_authority(wanted, caller.actor(self), now).await?;
        let record = made.authority.clone();
        if let Err(error) = commit(&*self.store, made).await {
            if left_nothing(&error) {
                self.forget_key(&record.key_label).await;
            }
            return Err(error.into());
        }
        self.authorities.take_on(record.clone())?;
        self.publish_change(now).await;
        Ok(record)
    }

    /// Forgets a key that nothing in the store names: neither an authority nor a request to a root's ceremony, nor a root that is
    /// planned. It stays where the store cannot be asked.
    async fn forget_key(&self, key_label: &str) {
        let label = key_label.to_owned();
        let is_named = read(&*self.store, move |rows| {
            let is_recorded = rows.authorities()?.iter().any(|authority| authority.key_label == label);
            let is_asked = rows.root_requests()?.iter().any(|request| request.id == Keys::name(&label));
            let planned = rows.value(PLAN)?.filter(|value| !value.is_empty());
            let plan = planned.map(|value| serde_json::from_slice::<Plan>(&value));
            // A plan that cannot be read may be about it.
            let is_planned = plan.is_some_and(|plan| plan.map_or(true, |plan| plan.key_label == label));
            Ok(is_recorded || is_asked || is_planned)
        });
        match is_named.await {
            Ok(false) => {
                if let Err(error) = self.authorities.keys().remove(key_label) {
                    tracing::warn!(%error, "the key of an authority that was not recorded stays");
                }
            }
            Ok(true) => {}
            Err(error) => tracing::warn!(%error, "a key stays: it is not known whether an authority has it"),
        }
    }

    /// Activates, taints or revokes an authority.
    ///
    /// # Errors
    /// `NotPermitted`, `NotFound`; those of [`changes`]; `AuthorityInUse`, `BlastRadiusExceeded`.
    pub async fn change_authority(
        &self,
        caller: &Caller,
        id: AuthorityId,
        change: Change,
        now: Timestamp,
    ) -> Result<AuthorityRecord> {
        let Change { event, forced, reason, note } = change;
        let note = checked_note(&note)?;
        self.refresh_authorities().await?;
        let authority = self.authorities.by_id(id).ok_or(Refusal::NotFound)?;
        may_change(caller, &authority.record, event)?;
        // What a root that is prepared signs tells of the others' states.
        let _one_at_a_time = if authority.record.is_root() { Some(self.founding.lock().await) } else { None };
        let all = read(&*self.store, |rows| rows.authorities()).await?;
        let planned = changes(&all, id, event, forced).map_err(|refusal| explained(refusal, event))?;
        if planned.is_empty() {
            return Ok(authority.record.clone());
        }
        if event == AuthorityEvent::Revoked {
            self.check_use(caller, &authority, &planned, forced, now).await?;
        }
        let details = self.details(
            caller.actor(self),
            Some(format!("authority {id}")),
            (event == AuthorityEvent::Revoked).then_some(reason),
            note,
        )?;
        self.commit_change((id, event, forced), reason, (&all, &planned, details), now).await?;
        let authority = self.authorities.by_id(id).ok_or(Refusal::NotFound)?;
        Ok(authority.record.clone())
    }

    /// Does it, and has everybody know. The trust bundle that tells devices of a change of roots is made at once where the keys of all
    /// whose word counts are here; else their ceremonies are asked for it, and the change does not wait.
    async fn commit_change(
        &self,
        (id, event, forced): (AuthorityId, AuthorityEvent, bool),
        reason: RevocationReason,
        (all, planned, details): (&[AuthorityRecord], &[(AuthorityRecord, AuthorityState)], Details),
        now: Timestamp,
    ) -> Result<()> {
        let is_root = planned.iter().any(|(record, _)| record.is_root());
        let (mut bundle, mut values) = (None, Vec::new());
        if is_root {
            let above = self.awaited_bundle().await?.map_or(0, |wanted| wanted.number);
            if let Some((wanted, crosses)) = self.bundle_after(all, planned, above, now)? {
                let is_whole = wanted.missing().is_empty();
                bundle = if is_whole { Some(self.made_bundle(&wanted, &crosses)?) } else { None };
                values.push((WANTED.to_owned(), if is_whole { Vec::new() } else { wanted.value() }));
            }
        }
        let said = |record: &AuthorityRecord| {
            let facts = facts(&record.certificate).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            Ok((record.id, (facts.fingerprint, facts.serial)))
        };
        let certificates = all.iter().map(said).collect::<Result<_>>()?;
        let act = ChangeAuthority { authority: id, event, forced, reason, bundle, values, certificates, details, at: now };
        let changed = commit(&*self.store, act).await?;
        for record in &changed {
            tracing::warn!(authority = record.id, state = record.state.as_str(), "an authority changed");
            self.authorities.set_state(record.id, record.state);
            if !record.state.is_trusted() {
                self.published.drop_responder(record.id);
            }
        }
        if is_root {
            self.refresh_bundles().await?;
        }
        self.publish_change(now).await;
        Ok(())
    }

    /// What hangs from an authority that is to be revoked.
    async fn check_use(
        &self,
        caller: &Caller,
        authority: &Authority,
        planned: &[(AuthorityRecord, AuthorityState)],
        forced: bool,
        now: Timestamp,
    ) -> Result<()> {
        let ends = |id: AuthorityId| planned.iter().any(|(record, _)| record.id == id);
        if ends(caller.certificate.authority) {
            let detail = "Your own certificate is of it: renew that first, or you would be locked out.";
            return Err(Error::with_detail(Refusal::AuthorityInUse, detail));
        }
        let count = self.in_hands(&authority.record, now).await?.all();
        if count == 0 {
            return Ok(());
        }
        if !forced {
            let detail = format!("{count} certificates of it are in use. Move their holders by a renewal wave, or force it.");
            return Err(Error::with_detail(Refusal::AuthorityInUse, detail));
        }
        let Some(fleet) = authority.record.fleet.clone() else { return Ok(()) };
        let (operator, name) = (caller.subject.id, fleet.clone());
        let usage = read(&*self.store, move |rows| usage(rows, operator, &name, now)).await?;
        if usage.used.saturating_add(count) > usage.limit {
            let refused = StoreError::Refused(Refusal::BlastRadiusExceeded);
            return Err(self.told(refused, caller, Some(&fleet), now).await);
        }
        Ok(())
    }

    /// How many certificates of the authority are in their holders' hands. Counts them all.
    pub(super) async fn in_hands(&self, record: &AuthorityRecord, now: Timestamp) -> Result<InHands> {
        let (id, ledger) = (record.id, LedgerName::from(record.fleet.as_ref()));
        Ok(read(&*self.store, move |rows| rows.in_hands(id, &ledger, None, now)).await?)
    }

    /// The same, for who may see the authority.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`.
    pub async fn authority_use(&self, caller: &Caller, id: AuthorityId, now: Timestamp) -> Result<InHands> {
        let authority = self.authorities.by_id(id).ok_or(Refusal::NotFound)?;
        caller.may(Action::Read, authority.record.fleet.as_ref()).map_err(|_| Refusal::NotFound)?;
        self.in_hands(&authority.record, now).await
    }

    /// Lists and responders as the authorities are now. What fails is tried again by the jobs.
    pub(super) async fn publish_change(&self, now: Timestamp) {
        self.published.standing_changed();
        let outcomes = [self.renew_responders(now).await.err(), self.refresh_crls(now).await.err()];
        for error in outcomes.into_iter().flatten() {
            tracing::error!(code = error.refusal.code(), cause = error.chain(), "not published yet");
        }
    }

    /// Takes on what another process of this installation changed. Cheap where nothing was.
    pub async fn refresh_authorities(&self) -> Result<()> {
        let mark = read(&*self.store, |rows| rows.value(AUTHORITIES_CHANGED)).await?;
        let seen = || self.authorities_seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *seen() == mark {
            return Ok(());
        }
        for record in read(&*self.store, |rows| rows.authorities()).await? {
            let known = if record.is_cross() {
                self.authorities.crosses().iter().find(|cross| cross.id == record.id).map(|cross| cross.state)
            } else {
                self.authorities.by_id(record.id).map(|authority| authority.record.state)
            };
            match known {
                Some(state) if state >= record.state => {}
                Some(_) => {
                    self.authorities.set_state(record.id, record.state);
                    if !record.state.is_trusted() {
                        self.published.drop_responder(record.id);
                    }
                }
                // A key that is not on this machine: its own process says so too.
                None => {
                    let id = record.id;
                    if let Err(error) = self.authorities.take_on(record) {
                        tracing::error!(authority = id, cause = error.chain(), "an authority's key is not here");
                    }
                }
            }
        }
        self.refresh_bundles().await?;
        *seen() = mark;
        Ok(())
    }
}

/// Whether it is sure that an act that failed so left nothing in the store. Any other failure may have come after the commit, or in
/// place of its answer.
const fn left_nothing(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused(_) | StoreError::Collision | StoreError::NeedsLedger(_) | StoreError::Busy)
}

/// Prepare, activate and revoke are an owner's. To stop an authority that may be in a thief's hands is a security officer's, who may
/// revoke what it issued: nothing gets worse by it that a successor does not mend.
fn may_change(caller: &Caller, record: &AuthorityRecord, event: AuthorityEvent) -> Result<()> {
    match (event, record.kind) {
        (AuthorityEvent::Tainted, AuthorityKind::Of(Kind::Device)) => {
            let may = caller.may(Action::ChangeStanding, record.fleet.as_ref());
            may.map_err(|error| if error.refusal == Refusal::FleetUnknown { Refusal::NotFound.into() } else { error })
        }
        (AuthorityEvent::Tainted, AuthorityKind::Of(Kind::Gateway | Kind::Service)) => caller.may(Action::ManageGateways, None),
        (AuthorityEvent::Tainted, AuthorityKind::Of(Kind::Operator)) => caller.may(Action::ManageOperators, None),
        _ => caller.may(Action::ManageFleets, None),
    }
}

fn explained(refusal: Refusal, event: AuthorityEvent) -> Error {
    match (refusal, event) {
        (Refusal::NoSuccessor, _) => {
            let detail =
                "Nothing would issue in its place. Prepare and activate a successor, which taints it; or say `emergency`.";
            Error::with_detail(refusal, detail)
        }
        (Refusal::AuthorityActive, AuthorityEvent::Revoked) => {
            Error::with_detail(refusal, "It, or an authority that it issued, issues still. Activate successors first.")
        }
        (Refusal::AuthorityInUse, AuthorityEvent::Revoked) => {
            Error::with_detail(refusal, "Authorities that it issued are trusted still. Revoke them first, or force it.")
        }
        _ => refusal.into(),
    }
}
