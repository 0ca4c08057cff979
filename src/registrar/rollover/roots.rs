//! A root with a new key: its own certificate, its key by the old root and the old root's by it (RFC 4210 4.4), and the trust bundles that
//! tell devices of it.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{AuthorityState, Epoch, Index, LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;

use crate::pki::PkiError;
use crate::pki::issue::{IssuedCertificate, Issuer, Pointers, Template, issue};
use crate::pki::keys::{KeyAlgorithm, Signer};
use crate::pki::profile::Profile;
use crate::registrar::authorities::Authority;
use crate::registrar::caller::Caller;
use crate::registrar::install::organization;
use crate::registrar::tokens::sha256;
use crate::registrar::trust_bundle::Signing;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::authorities::PrepareRoot;
use crate::store::acts::found::AddAuthority;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, EpochRecord, StoredBundle};
use crate::store::{commit, read};

/// How long the new root vouches for the old one's key at most. Who knows the new root alone needs it until nothing shows what hangs
/// from the old one; a thief of the old key would need it too, and many devices look at no revocation list.
const OLD_WITH_NEW: Duration = Duration::from_secs(400 * 86_400);
/// How often a root is prepared again whose number another act took.
const RACES: usize = 4;

/// A root that is being made, with its issuer's part.
struct NewRoot {
    record: AuthorityRecord,
    issuer: Issuer,
    pointers: Pointers,
    epoch: Epoch,
    common_name: String,
    not_after: Timestamp,
}

impl Registrar {
    /// A root with a new key under the same name, its key by the active root and the active root's by it.
    pub(super) async fn prepare_root(
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
                    self.forget_key(&key_label);
                    return Err(error);
                }
            }
        }
        self.forget_key(&key_label);
        Err(Refusal::Overloaded.into())
    }

    async fn try_prepare_root(
        &self,
        caller: &Caller,
        old: &Authority,
        (key_label, signer): (&str, Arc<dyn Signer>),
        note: Option<String>,
        now: Timestamp,
    ) -> Result<AuthorityRecord> {
        let (new, root) = self.new_root(caller, (key_label, signer), note.clone(), now).await?;
        let crosses = self.certify_across(caller, old, &new, note, now).await?;
        let bundle = self.bundle_with(&new, &crosses, now)?;
        let records: Vec<_> = crosses.iter().map(|cross| cross.authority.clone()).collect();
        commit(&*self.store, PrepareRoot { root, crosses, bundle }).await?;
        self.authorities.take_on(new.record.clone())?;
        for record in records {
            self.authorities.take_on(record)?;
        }
        self.refresh_bundles().await?;
        self.publish_change(now).await;
        Ok(new.record)
    }

    /// A root that signs itself, as the first certificate of its first epoch.
    async fn new_root(
        &self,
        caller: &Caller,
        (key_label, signer): (&str, Arc<dyn Signer>),
        note: Option<String>,
        now: Timestamp,
    ) -> Result<(NewRoot, AddAuthority)> {
        let profile = self.find_profile("root")?;
        let (number, id) = (Epoch(self.next_epoch().await?), self.authorities.next_id());
        let serial = Serial::new(number, Index(0), self.random()?);
        let (common_name, own) = self.self_signed(&signer, serial, now)?;
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
        let not_after = now + profile.lifetime;
        let first = own_record(id, serial, (now - profile.backdate, not_after), &own, false, now);
        // Index 1 is the old root's key by it.
        let epoch = EpochRecord { number, authority: id, opened_at: now, closed_at: None, next_index: 2 };
        let details = self.details(caller.actor(self), Some(format!("{common_name}: root")), None, note)?;
        let root = AddAuthority { authority: record.clone(), certificate: first, epoch: Some(epoch), details, at: now };
        let pointers = self.authorities.pointers_of(&record);
        let issuer = Issuer { certificate: own.der.as_slice().into(), signer };
        Ok((NewRoot { record, issuer, pointers, epoch: number, common_name, not_after }, root))
    }

    /// `NewWithOld`, and `OldWithNew` unless the old key is suspected.
    async fn certify_across(
        &self,
        caller: &Caller,
        old: &Authority,
        new: &NewRoot,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Vec<AddAuthority>> {
        let profile = self.find_profile("root")?;
        let place = self.index(old, now).await?;
        let (with_old, with_new) =
            (Serial::new(place.0, place.1, self.random()?), Serial::new(new.epoch, Index(1), self.random()?));
        let (old_part, new_part) = ((&old.issuer, &old.pointers), (&new.issuer, &new.pointers));
        let end = new.not_after.min(old.not_after);
        let mut crosses = vec![(old.record.id, &new.record.key_label, (old_part, new_part), (with_old, end))];
        // A key that is suspected is certified by nobody any more: who knows the new root alone does not believe it.
        if old.record.state != AuthorityState::Tainted {
            let end = end.min(now + OLD_WITH_NEW);
            crosses.push((new.record.id, &old.record.key_label, (new_part, old_part), (with_new, end)));
        }
        let mut added = Vec::new();
        for ((above, key_label, parts, (serial, end)), number) in crosses.into_iter().zip(1..) {
            let made = cross(profile, new, parts, (serial, end), self, now).map_err(unavailable)?;
            let record = AuthorityRecord {
                id: new.record.id.saturating_add(number),
                key_label: key_label.clone(),
                certificate: made.der.clone(),
                issuer: Some(above),
                ..new.record.clone()
            };
            let certificate = own_record(above, serial, (now - profile.backdate, end), &made, true, now);
            let subject = Some(format!("{}: cross certificate", new.common_name));
            let details = self.details(caller.actor(self), subject, None, note.clone())?;
            added.push(AddAuthority { authority: record, certificate, epoch: None, details, at: now });
        }
        Ok(added)
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
    pub(super) fn bundle_after(
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
        let signs = |authority: &&Arc<Authority>| {
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
        let signs = |root: &&Arc<Authority>| root.record.is_root() && root.has_key && root.record.state.is_trusted();
        let mut issuers: Vec<_> = here.iter().filter(signs).map(|root| &root.issuer).collect();
        issuers.push(&new.issuer);
        let known = self.authorities.crosses();
        let trusted = known.iter().filter(|cross| cross.state.is_trusted()).map(|cross| cross.certificate.clone());
        let crosses = trusted.chain(added.iter().map(|cross| cross.authority.certificate.clone())).collect();
        self.new_bundle(&Signing { roots, crosses, issuers }, now).map(Some)
    }

    /// A root's own certificate. All roots have one name: RFC 4210 4.4 changes the key of an authority, and by their names' being the
    /// same a certificate of one by another does not count in a path (RFC 5280 4.2.1.9).
    fn self_signed(&self, signer: &Arc<dyn Signer>, serial: Serial, now: Timestamp) -> Result<(String, IssuedCertificate)> {
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
        let own = issue(&issuer, &template).map_err(unavailable)?;
        Ok((common_name, own))
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
