//! Authorities are prepared, activated, tainted, revoked; so are roots. The table is [`fleetmark_domain::authority`]'s; here is asked
//! who may, and what must hold around it.

use std::time::Duration;

use fleetmark_domain::{
    Action, AuthorityEvent, AuthorityState, Epoch, FleetName, Index, Kind, LedgerName, Refusal, RevocationReason, Serial,
    Standing, Timestamp,
};
use fleetmark_ledger::entry::AuthorityKind;

use super::authorities::Authority;
use super::caller::Caller;
use super::install::{NewAuthority, organization};
use super::standing::checked_note;
use super::tokens::sha256;
use super::trust_bundle::Signing;
use super::{Error, Registrar, Result};
use crate::pki::PkiError;
use crate::pki::issue::{IssuedCertificate, Issuer, Pointers, Template, facts, issue};
use crate::pki::keys::KeyAlgorithm;
use crate::pki::profile::Profile;
use crate::store::acts::authorities::{ChangeAuthority, PrepareRoot, changes};
use crate::store::acts::found::{AUTHORITIES_CHANGED, AddAuthority};
use crate::store::acts::limits::usage;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, EpochRecord, InHands, StoredBundle};
use crate::store::{StoreError, commit, read};

/// How long the new root vouches for the old one's key at most. Who knows the new root alone needs it until nothing shows what hangs
/// from the old one; a thief of the old key would need it too, and many devices look at no revocation list.
const OLD_WITH_NEW: Duration = Duration::from_secs(400 * 86_400);
/// How often a root is prepared again whose number another act took.
const RACES: usize = 4;

/// A successor to prepare.
#[derive(Debug, Clone)]
pub struct Successor {
    /// What it is to issue for.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    pub fleet: Option<FleetName>,
    /// Its key's; None: the profile's first.
    pub algorithm: Option<KeyAlgorithm>,
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
    /// `NotPermitted`, `FleetUnknown`, `SuccessorPrepared`, `KeyTypeNotAllowed`; `AuthorityUnavailable` where the root's key is not
    /// on this machine.
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
        if same.any(|record| record.state == AuthorityState::Prepared) {
            return Err(Refusal::SuccessorPrepared.into());
        }
        let kind = match new.kind {
            AuthorityKind::Root => return self.prepare_root(caller, new.algorithm, note, now).await,
            AuthorityKind::Of(kind) => kind,
        };
        let wanted = NewAuthority { kind, fleet: new.fleet, state: AuthorityState::Prepared, algorithm: new.algorithm, note };
        let made = self.new_authority(wanted, caller.actor(self), now).await?;
        let record = made.authority.clone();
        self.commit_new(&record.key_label, commit(&*self.store, made)).await?;
        self.authorities.take_on(record.clone())?;
        self.publish_change(now).await;
        Ok(record)
    }

    /// Forgets the key of an authority that could not be recorded.
    async fn commit_new<T>(
        &self,
        key_label: &str,
        committed: impl Future<Output = std::result::Result<T, StoreError>>,
    ) -> std::result::Result<T, StoreError> {
        let outcome = committed.await;
        if outcome.is_err()
            && let Err(error) = self.authorities.keys().remove(key_label)
        {
            tracing::warn!(%error, "the key of an authority that was not recorded stays");
        }
        outcome
    }

    /// Activates, taints or revokes an authority.
    ///
    /// # Errors
    /// `NotPermitted`, `NotFound`; those of [`changes`]; `AuthorityInUse`, `BlastRadiusExceeded`; `AuthorityUnavailable` where a
    /// root's key is needed that is not on this machine.
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
        let all = read(&*self.store, |rows| rows.authorities()).await?;
        let planned = changes(&all, id, event, forced).map_err(|refusal| explained(refusal, event))?;
        if planned.is_empty() {
            return Ok(authority.record.clone());
        }
        if event == AuthorityEvent::Revoked {
            self.check_use(caller, &authority, &planned, forced, now).await?;
        }
        let is_root = authority.record.is_root();
        if is_root && event == AuthorityEvent::Activated && !authority.has_key {
            let detail = "The new root's key is kept elsewhere: it would issue nothing here.";
            return Err(Error::with_detail(Refusal::AuthorityUnavailable, detail));
        }
        let bundle = if is_root { self.bundle_after(&all, &planned, now)? } else { None };
        let details = self.details(
            caller.actor(self),
            Some(format!("authority {id}")),
            (event == AuthorityEvent::Revoked).then_some(reason),
            note,
        )?;
        let said = |record: &AuthorityRecord| {
            let facts = facts(&record.certificate).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            Ok((record.id, (facts.fingerprint, facts.serial)))
        };
        let certificates = all.iter().map(said).collect::<Result<_>>()?;
        let act = ChangeAuthority { authority: id, event, forced, reason, bundle, certificates, details, at: now };
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
        let authority = self.authorities.by_id(id).ok_or(Refusal::NotFound)?;
        Ok(authority.record.clone())
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
    async fn publish_change(&self, now: Timestamp) {
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
            let known = match record.is_cross() {
                true => self.authorities.crosses().iter().find(|cross| cross.id == record.id).map(|cross| cross.state),
                false => self.authorities.by_id(record.id).map(|authority| authority.record.state),
            };
            match known {
                Some(state) if state >= record.state => {}
                Some(_) => self.authorities.set_state(record.id, record.state),
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

/// A root that is being made, with its issuer's part.
struct NewRoot {
    record: AuthorityRecord,
    issuer: Issuer,
    pointers: Pointers,
    common_name: String,
    not_after: Timestamp,
}

impl Registrar {
    /// A root with a new key under the same name, its key by the active root and the active root's by it.
    async fn prepare_root(
        &self,
        caller: &Caller,
        algorithm: Option<KeyAlgorithm>,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<AuthorityRecord> {
        let old = self.authorities.root()?;
        // In an emergency it is tainted already, and still the only one that devices know.
        if !old.has_key {
            self.authorities.issuing_root()?;
        }
        let profile = self.find_profile("root")?;
        let (key_label, signer) = self.authority_key("root", profile, algorithm).await?;
        for _ in 0..RACES {
            let made = self.try_prepare_root(caller, &old, (&key_label, signer.clone()), note.clone(), now).await;
            match made {
                Err(error) if error.is_race() => {}
                Ok(record) => return Ok(record),
                Err(error) => {
                    self.commit_new(&key_label, async { Err::<(), _>(StoreError::Collision) }).await.ok();
                    return Err(error);
                }
            }
        }
        Err(Refusal::Overloaded.into())
    }

    async fn try_prepare_root(
        &self,
        caller: &Caller,
        old: &Authority,
        (key_label, signer): (&str, std::sync::Arc<dyn crate::pki::keys::Signer>),
        note: Option<String>,
        now: Timestamp,
    ) -> Result<AuthorityRecord> {
        let profile = self.find_profile("root")?;
        let epoch = Epoch(self.next_epoch().await?);
        let id = self.authorities.next_id();
        let serial = Serial::new(epoch, Index(0), self.random()?);
        let (common_name, own) = self.self_signed(&signer, serial, now)?;
        let not_after = now + profile.lifetime;
        let record = AuthorityRecord {
            id,
            kind: AuthorityKind::Root,
            fleet: None,
            state: AuthorityState::Prepared,
            key_label: key_label.to_owned(),
            certificate: own.der.clone(),
            issuer: None,
            created_at: now,
        };
        let pointers = self.authorities.pointers_of(&record);
        let issuer = Issuer { certificate: own.der.as_slice().into(), signer };
        let new = NewRoot { record, issuer, pointers, common_name, not_after };

        let place = self.index(old, now).await?;
        let with_old = Serial::new(place.0, place.1, self.random()?);
        let with_new = Serial::new(epoch, Index(1), self.random()?);
        let old_part = (&old.issuer, &old.pointers);
        let new_part = (&new.issuer, &new.pointers);
        let end = new.not_after.min(old.not_after);
        let new_with_old = cross(profile, &new, (old_part, new_part), (with_old, end), self, now).map_err(unavailable)?;
        let mut crosses = vec![(old.record.id, key_label, with_old, end, new_with_old)];
        // A key that is suspected is certified by nobody any more: who knows the new root alone does not believe it.
        if old.record.state != AuthorityState::Tainted {
            let end = end.min(now + OLD_WITH_NEW);
            let issued = cross(profile, &new, (new_part, old_part), (with_new, end), self, now).map_err(unavailable)?;
            crosses.push((id, &old.record.key_label, with_new, end, issued));
        }

        let label = |what: &str| Some(format!("{}: {what}", new.common_name));
        let mut added = Vec::new();
        for ((above, key_label, serial, end, issued), number) in crosses.into_iter().zip(1..) {
            let record = AuthorityRecord {
                id: id.saturating_add(number),
                key_label: key_label.to_owned(),
                certificate: issued.der.clone(),
                issuer: Some(above),
                ..new.record.clone()
            };
            let certificate = own_record(above, serial, (now - profile.backdate, end), &issued, true, now);
            let details = self.details(caller.actor(self), label("cross certificate"), None, note.clone())?;
            added.push(AddAuthority { authority: record, certificate, epoch: None, details, at: now });
        }
        let bundle = self.bundle_with(&new, &added, now)?;
        let first = own_record(id, serial, (now - profile.backdate, not_after), &own, false, now);
        let epoch = EpochRecord { number: epoch, authority: id, opened_at: now, closed_at: None, next_index: 2 };
        let details = self.details(caller.actor(self), label("root"), None, note)?;
        let root = AddAuthority { authority: new.record.clone(), certificate: first, epoch: Some(epoch), details, at: now };
        let records: Vec<_> = added.iter().map(|cross| cross.authority.clone()).collect();
        commit(&*self.store, PrepareRoot { root, crosses: added, bundle }).await?;
        self.authorities.take_on(new.record.clone())?;
        for record in records {
            self.authorities.take_on(record)?;
        }
        self.refresh_bundles().await?;
        self.publish_change(now).await;
        Ok(new.record)
    }

    async fn next_epoch(&self) -> Result<u32> {
        let next = read(&*self.store, |rows| {
            let floor = rows.value(crate::store::acts::lease::EPOCH_FLOOR)?;
            let floor = floor.and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_be_bytes);
            Ok(rows.highest_epoch()?.0.max(floor))
        });
        next.await?.checked_add(1).ok_or_else(|| Refusal::AuthorityUnavailable.into())
    }

    /// The bundle after a change of roots; None where it would leave devices with nobody to believe: a root that is tainted before
    /// there is another one stays their root until its successor is prepared.
    fn bundle_after(
        &self,
        all: &[AuthorityRecord],
        planned: &[(AuthorityRecord, AuthorityState)],
        now: Timestamp,
    ) -> Result<Option<StoredBundle>> {
        let after = |record: &AuthorityRecord| {
            let changed = planned.iter().find(|(changed, _)| changed.id == record.id);
            AuthorityRecord { state: changed.map_or(record.state, |(_, state)| *state), ..record.clone() }
        };
        let roots: Vec<_> = all.iter().filter(|record| record.is_root()).map(after).collect();
        if !roots.iter().any(|root| matches!(root.state, AuthorityState::Active | AuthorityState::Prepared)) {
            return Ok(None);
        }
        let crosses = all.iter().filter(|record| record.is_cross()).map(after).filter(|cross| cross.state.is_trusted());
        let here = self.authorities.all();
        let signs = |authority: &&std::sync::Arc<Authority>| {
            authority.has_key && roots.iter().any(|root| root.id == authority.record.id && root.state.is_trusted())
        };
        let issuers: Vec<_> = here.iter().filter(signs).map(|authority| &authority.issuer).collect();
        if issuers.is_empty() {
            let detail = "No root's key is on this machine: the trust bundle that tells devices of it cannot be signed.";
            return Err(Error::with_detail(Refusal::AuthorityUnavailable, detail));
        }
        let crosses = crosses.map(|cross| cross.certificate).collect();
        self.new_bundle(&Signing { roots: roots.clone(), crosses, issuers }, now).map(Some)
    }

    /// The bundle that tells of a root that is about to be prepared.
    fn bundle_with(&self, new: &NewRoot, added: &[AddAuthority], now: Timestamp) -> Result<Option<StoredBundle>> {
        let here = self.authorities.all();
        let mut roots: Vec<_> = here.iter().map(|root| root.record.clone()).filter(AuthorityRecord::is_root).collect();
        roots.push(new.record.clone());
        let signs = |root: &&std::sync::Arc<Authority>| root.record.is_root() && root.has_key && root.record.state.is_trusted();
        let mut issuers: Vec<_> = here.iter().filter(signs).map(|root| &root.issuer).collect();
        issuers.push(&new.issuer);
        let known = self.authorities.crosses();
        let trusted = known.iter().filter(|cross| cross.state.is_trusted()).map(|cross| cross.certificate.clone());
        let crosses = trusted.chain(added.iter().map(|cross| cross.authority.certificate.clone())).collect();
        self.new_bundle(&Signing { roots, crosses, issuers }, now).map(Some)
    }

    /// A root's own certificate. All roots have one name: RFC 4210 4.4 changes the key of an authority, and by their names' being the
    /// same a certificate of one by another does not count in a path (RFC 5280 4.2.1.9).
    pub(super) fn self_signed(
        &self,
        signer: &std::sync::Arc<dyn crate::pki::keys::Signer>,
        serial: Serial,
        now: Timestamp,
    ) -> Result<(String, IssuedCertificate)> {
        let profile = self.find_profile("root")?;
        let common_name = format!("{} root", self.trust_domain);
        let common_name = common_name.get(..64).unwrap_or(&common_name).to_owned();
        let issuer = Issuer { certificate: Vec::new().into(), signer: signer.clone() };
        let template = Template {
            profile,
            serial,
            common_name: &common_name,
            organization: organization(&self.trust_domain),
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before: now - profile.backdate,
            not_after: now + profile.lifetime,
            spki: signer.public_key(),
            pointers: &Pointers::default(),
        };
        let issued = issue(&issuer, &template).map_err(unavailable)?;
        Ok((common_name, issued))
    }
}

/// A root's part in a cross certificate: its certificate with its key, and where it publishes.
type Part<'a> = (&'a Issuer, &'a Pointers);

/// `of`'s key, certified by `by`.
fn cross(
    profile: &Profile,
    new: &NewRoot,
    (by, of): (Part<'_>, Part<'_>),
    (serial, not_after): (Serial, Timestamp),
    registrar: &Registrar,
    now: Timestamp,
) -> std::result::Result<IssuedCertificate, PkiError> {
    let template = Template {
        profile,
        serial,
        common_name: &new.common_name,
        organization: organization(&registrar.trust_domain),
        uri: None,
        dns_names: &[],
        addresses: &[],
        not_before: now - profile.backdate,
        not_after,
        spki: of.0.signer.public_key(),
        pointers: by.1,
    };
    issue(by.0, &template)
}

/// The record of a root's certificate. A key has one certificate in the store, by which it is found again: a second one, which certifies
/// it across, is kept under its own hash instead.
fn own_record(
    authority: AuthorityId,
    serial: Serial,
    (not_before, not_after): (Timestamp, Timestamp),
    issued: &IssuedCertificate,
    is_cross: bool,
    now: Timestamp,
) -> Certificate {
    Certificate {
        serial,
        authority,
        subject: None,
        generation: 0,
        key_hash: if is_cross { fleetmark_domain::KeyHash(sha256(&issued.der)) } else { issued.key_hash },
        fingerprint: issued.fingerprint,
        standing: Standing::Good,
        not_before,
        not_after,
        renew_after: not_after,
        confirm_before: None,
        issued_at: now,
        changed_at: now,
        ledger: LedgerName::System,
        position: 0,
        token: None,
        der: issued.der.clone(),
    }
}

fn unavailable(cause: PkiError) -> Error {
    Error::caused(Refusal::AuthorityUnavailable, cause)
}
