//! A root with a new key: its own certificate, its key by the old root and the old root's by it (RFC 4210 4.4), and the trust bundles that
//! tell devices of it. Whose key is here signs at once; whose is not is asked by its ceremony, and the same act goes on afterwards.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{AuthorityState, Epoch, Index, KeyHash, LedgerName, Refusal, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;

use super::left_nothing;
use super::plan::{PLAN, Plan, PlannedCross};
use crate::ceremony::judge::{Cross, common_name, cross_profile};
use crate::ceremony::request::BundleState;
use crate::ceremony::root_names;
use crate::pki::PkiError;
use crate::pki::issue::{CertificateFacts, IssuedCertificate, Issuer, Pointers, Template, facts, issue};
use crate::pki::keys::{KeyAlgorithm, Signer};
use crate::pki::request::verified_list;
use crate::registrar::authorities::Authority;
use crate::registrar::caller::Caller;
use crate::registrar::install::organization;
use crate::registrar::tokens::sha256;
use crate::registrar::trust_bundle::{WANTED, Wanted};
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::authorities::{PrepareRoot, ReserveEpoch};
use crate::store::acts::found::AddAuthority;
use crate::store::acts::lists::SetValue;
use crate::store::model::{AuthorityRecord, Certificate, EpochRecord, StoredBundle, StoredCrl};
use crate::store::{StoreError, commit};

/// How long the new root vouches for the old one's key at most. Who knows the new root alone needs it until nothing shows what hangs
/// from the old one; a thief of the old key would need it too, and many devices look at no revocation list.
const OLD_WITH_NEW: Duration = Duration::from_secs(400 * 86_400);
/// How often a root is prepared again whose id another act took.
const RACES: usize = 4;

/// What an act records that prepares a root.
struct Prepared {
    root: AuthorityRecord,
    crosses: Vec<AuthorityRecord>,
    list: Option<StoredCrl>,
}

impl Prepared {
    fn of(act: &PrepareRoot) -> Self {
        let crosses = act.crosses.iter().map(|cross| cross.authority.clone()).collect();
        Self { root: act.root.authority.clone(), crosses, list: act.list.clone() }
    }
}

/// A bundle that is whole, and values of the installation that change with it.
type Bundled = (Option<StoredBundle>, Vec<(String, Vec<u8>)>);

impl Registrar {
    /// A root with a new key, its key by the active root and the active root's by it. Where a signature is missing whose key is not
    /// here, the plan is kept, and the same call goes on with it.
    pub(super) async fn prepare_root(
        &self,
        caller: &Caller,
        (algorithm, elsewhere): (Option<KeyAlgorithm>, Option<bool>),
        note: Option<String>,
        now: Timestamp,
    ) -> Result<AuthorityRecord> {
        let goes_on = |plan: &Plan| elsewhere.is_none_or(|elsewhere| plan.elsewhere == elsewhere) && self.is_of_today(plan);
        let (known, dropped): (Option<Plan>, Option<Plan>) = match self.kept_plan().await? {
            Some(plan) if goes_on(&plan) => (Some(plan), None),
            other => (None, other),
        };
        let actor = caller.actor(self);
        for _ in 0..RACES {
            let mut plan = match known.clone() {
                Some(plan) => plan,
                None => self.plan_root((algorithm, elsewhere), (actor.clone(), note.clone()), now).await?,
            };
            self.sign_plan(&mut plan, now)?;
            if !self.is_whole(&plan) {
                commit(&*self.store, SetValue { name: PLAN.to_owned(), value: plan.value() }).await?;
                self.forget_plan(dropped).await;
                self.authorities.reserve(plan.id);
                return Err(waits(&plan, self.missing_of_roots().await?.first().map(|(id, _)| id.as_str())));
            }
            let act = self.act_of_plan(&plan, now)?;
            let prepared = Prepared::of(&act);
            match commit(&*self.store, act).await {
                Ok(()) => {
                    self.forget_plan(dropped).await;
                    return self.root_is_prepared(prepared, now).await;
                }
                Err(error) => {
                    if known.is_none() && left_nothing(&error) {
                        self.forget_plan(Some(plan)).await;
                    }
                    if known.is_some() || !matches!(error, StoreError::Collision) {
                        return Err(error.into());
                    }
                    self.refresh_authorities().await?;
                }
            }
        }
        Err(Refusal::Overloaded.into())
    }

    /// Forgets the key of a root that is planned no more.
    async fn forget_plan(&self, plan: Option<Plan>) {
        if let Some(plan) = plan.filter(|plan| !plan.elsewhere) {
            self.forget_key(&plan.key_label).await;
        }
    }

    /// Names and places for a new root and for what it and the one before it certify of each other.
    async fn plan_root(
        &self,
        (algorithm, elsewhere): (Option<KeyAlgorithm>, Option<bool>),
        (actor, note): (String, Option<String>),
        now: Timestamp,
    ) -> Result<Plan> {
        let old = self.authorities.root()?;
        if !old.record.state.is_trusted() {
            return Err(Refusal::AuthorityUnavailable.into());
        }
        let elsewhere = elsewhere.unwrap_or(!old.has_key);
        let epoch = commit(&*self.store, ReserveEpoch).await?;
        let (id, name) = (self.authorities.next_id(), self.root_name(&old)?);
        let all = self.authorities.all();
        let roots: Vec<_> = all.iter().map(|root| root.record.clone()).filter(AuthorityRecord::is_root).collect();
        let mut bundle = self.wanted_bundle(&roots, self.awaited_bundle().await?.map_or(0, |wanted| wanted.number), now)?;
        // Signatures are for the bundle with the new root in it.
        bundle.voices.clear();
        let crosses = self.plan_crosses(&old, (id, epoch), now).await?;
        let (asked_at, epoch) = (now, epoch.0);
        let (key_label, root) = if elsewhere {
            (format!("root-elsewhere-{id}"), None)
        } else {
            let profile = self.find_profile("root")?;
            let (label, signer) = self.authority_key("root", profile, algorithm).await?;
            let serial = Serial::new(Epoch(epoch), Index(0), self.random()?);
            let der = self.self_signed(&signer, (&name, serial), now)?.der;
            bundle.roots.push((BundleState::Prepared, der.clone()));
            (label, Some(der))
        };
        let first = None;
        Ok(Plan { id, name, key_label, elsewhere, epoch, asked_at, actor, note, root, first, crosses, bundle })
    }

    /// `NewWithOld`, and `OldWithNew` unless the old key is suspected: what is suspected is certified by nobody any more.
    async fn plan_crosses(&self, old: &Authority, (id, epoch): (u32, Epoch), now: Timestamp) -> Result<Vec<PlannedCross>> {
        let of_old = old.record.id;
        let place = if old.has_key { self.index(old, now).await } else { self.place_for_ever(old, now).await };
        let mut crosses = Vec::new();
        match place {
            Ok((space, index)) => crosses.push(PlannedCross {
                id: format!("root-{id}-by-{of_old}"),
                by: of_old,
                of: id,
                place: (space.0, index.0),
                lifetime_seconds: self.find_profile("root")?.lifetime.as_secs(),
                certificate: None,
            }),
            // It is suspected, not here, and its numbering has ended: nobody asks it.
            Err(_) if !self.is_asked(of_old) => {}
            Err(error) => return Err(error),
        }
        if old.record.state != AuthorityState::Tainted {
            crosses.push(PlannedCross {
                id: format!("root-{of_old}-by-{id}"),
                by: id,
                of: of_old,
                place: (epoch.0, 1),
                lifetime_seconds: OLD_WITH_NEW.as_secs(),
                certificate: None,
            });
        }
        Ok(crosses)
    }

    /// Signs whatever is to be signed by keys that are here.
    pub(in crate::registrar) fn sign_plan(&self, plan: &mut Plan, now: Timestamp) -> Result<()> {
        let Some(root) = plan.root.clone() else { return Ok(()) };
        let new = if plan.elsewhere {
            None
        } else {
            let signer = self.authorities.keys().load(&plan.key_label).map_err(unavailable)?;
            Some(Issuer { certificate: root.clone().into(), signer })
        };
        let profile = cross_profile(self.authorities.profiles()).ok_or(Refusal::AuthorityUnavailable)?;
        for at in 0..plan.crosses.len() {
            let Some(cross) = plan.crosses.get(at).filter(|cross| cross.certificate.is_none()).cloned() else { continue };
            let above = self.authorities.by_id(cross.by).filter(|authority| authority.has_key);
            let issuer = if cross.by == plan.id { new.clone() } else { above.map(|authority| authority.issuer.clone()) };
            let (Some(issuer), Some(of)) = (issuer, self.root_certificate(plan, cross.of)) else { continue };
            let pointers = self.authorities.pointers_of_root(cross.by);
            let shape = Cross { profile: &profile, domain: &self.trust_domain, of: &of, pointers: &pointers };
            let serial = Serial::new(Epoch(cross.place.0), Index(cross.place.1), self.random()?);
            let made = shape.certify(&issuer, serial, now + cross.lifetime(), now).map_err(unavailable)?;
            if let Some(cross) = plan.crosses.get_mut(at) {
                cross.certificate = Some(made.der);
            }
        }
        self.sign_bundle_here(&mut plan.bundle)?;
        new.map_or(Ok(()), |new| plan.bundle.sign(&self.trust_domain, &new))
    }

    /// Whether nothing is missing.
    fn is_whole(&self, plan: &Plan) -> bool {
        let new = plan.fingerprint();
        plan.crosses.iter().all(|cross| cross.certificate.is_some() || !self.is_asked(cross.by))
            && self.missing_voices(&plan.bundle).is_empty()
            && new.is_some_and(|new| !plan.bundle.waits_for(&new))
    }

    /// The act that records the root, with all that goes with it.
    fn act_of_plan(&self, plan: &Plan, now: Timestamp) -> Result<PrepareRoot> {
        let der = plan.root.clone().ok_or(Refusal::AuthorityUnavailable)?;
        let known = facts(&der).map_err(unavailable)?;
        let details = |subject: String| self.details(plan.actor.clone(), Some(subject), None, plan.note.clone());
        let record = AuthorityRecord {
            id: plan.id,
            kind: AuthorityKind::Root,
            fleet: None,
            state: AuthorityState::Prepared,
            key_label: plan.key_label.clone(),
            certificate: der,
            issuer: None,
            created_at: now,
        };
        // Index 1 is the old root's key by it.
        let epoch =
            EpochRecord { number: Epoch(plan.epoch), authority: plan.id, opened_at: now, closed_at: None, next_index: 2 };
        let certificate = own_record(plan.id, &record.certificate, &known, false, now)?;
        let (authority, subject) = (record.clone(), format!("{}: root", plan.name));
        let root = AddAuthority { authority, certificate, epoch: Some(epoch), details: details(subject)?, at: now };
        let mut crosses = Vec::new();
        let first_id = self.authorities.next_id().max(plan.id.saturating_add(1));
        let signed = plan.crosses.iter().filter_map(|cross| Some((cross, cross.certificate.clone()?)));
        for ((cross, der), id) in signed.zip(first_id..) {
            let of = self.authorities.by_id(cross.of).map(|root| root.record.key_label.clone());
            let key_label = of.unwrap_or_else(|| plan.key_label.clone());
            let known = facts(&der).map_err(unavailable)?;
            let certificate = own_record(cross.by, &der, &known, true, now)?;
            let authority = AuthorityRecord { id, key_label, certificate: der, issuer: Some(cross.by), ..record.clone() };
            let details = details(format!("{}: cross certificate", plan.name))?;
            crosses.push(AddAuthority { authority, certificate, epoch: None, details, at: now });
        }
        let (bundle, mut values) = self.bundle_of_plan(plan, &crosses, now)?;
        values.push((PLAN.to_owned(), Vec::new()));
        let list = first_list(plan, &record)?;
        values.extend(plan.first.iter().map(|(_, last)| (super::super::ceremony::record_key(plan.id), last.clone())));
        Ok(PrepareRoot { root, crosses, roots: self.roots_of_plan(plan), bundle, list, values })
    }

    /// The roots that are known here, each in the state that the plan's signatures tell of.
    fn roots_of_plan(&self, plan: &Plan) -> Vec<(u32, AuthorityState)> {
        let all = self.authorities.all();
        let roots = all.iter().map(|root| &root.record).filter(|record| record.is_root());
        let told = |record: &AuthorityRecord| {
            let root = plan.bundle.roots.iter().find(|(_, der)| *der == record.certificate);
            root.map_or(AuthorityState::Revoked, |(state, _)| match state {
                BundleState::Prepared => AuthorityState::Prepared,
                BundleState::Active => AuthorityState::Active,
                BundleState::Tainted => AuthorityState::Tainted,
            })
        };
        roots.map(|record| (record.id, told(record))).collect()
    }

    /// Takes on a root that is recorded: whatever fails from here on, its key stays.
    async fn root_is_prepared(&self, prepared: Prepared, now: Timestamp) -> Result<AuthorityRecord> {
        let Prepared { root, crosses, list } = prepared;
        self.authorities.take_on(root.clone())?;
        for cross in crosses {
            self.authorities.take_on(cross)?;
        }
        if let Some(list) = list {
            self.published.set_crl(list);
        }
        self.refresh_bundles().await?;
        self.publish_change(now).await;
        Ok(root)
    }

    /// The bundle as it was signed; where another one was made meanwhile, one above that, which waits for what is missing.
    fn bundle_of_plan(&self, plan: &Plan, crosses: &[AddAuthority], now: Timestamp) -> Result<Bundled> {
        let mut known = self.trusted_crosses();
        known.extend(crosses.iter().map(|cross| cross.authority.certificate.clone()));
        if plan.bundle.number > self.trust_bundle_number() {
            return Ok((Some(self.made_bundle(&plan.bundle, &known)?), vec![(WANTED.to_owned(), Vec::new())]));
        }
        let number = self.bundle_number(plan.bundle.number, now);
        let wanted = Wanted { voices: Vec::new(), number, made_at: now, ..plan.bundle.clone() };
        Ok((None, vec![(WANTED.to_owned(), wanted.value())]))
    }

    /// Roots' keys by other roots, as far as they are trusted.
    pub(in crate::registrar) fn trusted_crosses(&self) -> Vec<Vec<u8>> {
        let known = self.authorities.crosses();
        known.iter().filter(|cross| cross.state.is_trusted()).map(|cross| cross.certificate.clone()).collect()
    }

    /// The bundle after a change of roots, signed by those whose keys are here; None where it would leave devices with nobody to
    /// believe: a root that is tainted before there is another one stays their root until its successor is prepared.
    pub(super) fn bundle_after(
        &self,
        all: &[AuthorityRecord],
        planned: &[(AuthorityRecord, AuthorityState)],
        above: u64,
        now: Timestamp,
    ) -> Result<Option<(Wanted, Vec<Vec<u8>>)>> {
        let after = |record: &AuthorityRecord| {
            let changed = planned.iter().find(|(changed, _)| changed.id == record.id);
            AuthorityRecord { state: changed.map_or(record.state, |(_, state)| *state), ..record.clone() }
        };
        let roots: Vec<_> = all.iter().filter(|record| record.is_root()).map(after).collect();
        if !roots.iter().any(|root| matches!(root.state, AuthorityState::Active | AuthorityState::Prepared)) {
            return Ok(None);
        }
        let crosses = all.iter().filter(|record| record.is_cross()).map(after).filter(|cross| cross.state.is_trusted());
        Ok(Some((self.wanted_bundle(&roots, above, now)?, crosses.map(|cross| cross.certificate).collect())))
    }

    /// The next root's name. By a name of its own a revocation list is found by its issuer's name alone, as mbedTLS looks for it. But a
    /// certificate of one root by another does not count in a path only if their names are the same (RFC 5280 4.2.1.9): under a root
    /// that allows one level below it, as those of older installations do, the name stays.
    fn root_name(&self, old: &Authority) -> Result<String> {
        let known = common_name(&old.record.certificate).map_err(unavailable)?;
        if path_length(&old.record.certificate).is_some_and(|levels| levels < 2) {
            return Ok(known);
        }
        let all = self.authorities.all();
        let roots = u32::try_from(all.iter().filter(|root| root.record.is_root()).count()).unwrap_or(u32::MAX);
        Ok(root_names(&self.trust_domain, Some(roots.saturating_add(1))).1)
    }

    /// A root's own certificate.
    fn self_signed(
        &self,
        signer: &Arc<dyn Signer>,
        (common_name, serial): (&str, Serial),
        now: Timestamp,
    ) -> Result<IssuedCertificate> {
        let profile = self.find_profile("root")?;
        let issuer = Issuer { certificate: Vec::new().into(), signer: signer.clone() };
        let template = Template {
            profile,
            serial,
            common_name,
            organization: organization(&self.trust_domain),
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before: now - profile.backdate,
            not_after: now + profile.lifetime,
            spki: signer.public_key(),
            pointers: &Pointers::default(),
        };
        issue(&issuer, &template).map_err(unavailable)
    }
}

/// The list that a root brought that is elsewhere.
fn first_list(plan: &Plan, root: &AuthorityRecord) -> Result<Option<StoredCrl>> {
    let Some((der, _)) = &plan.first else { return Ok(None) };
    let said = verified_list(der, &root.certificate).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
    let next_update = said.next_update.unwrap_or(said.this_update);
    let (authority, number, this_update, position) = (root.id, said.number, said.this_update, 0);
    Ok(Some(StoredCrl { authority, number, this_update, next_update, position, der: der.clone() }))
}

/// basicConstraints pathLenConstraint (RFC 5280 4.2.1.9); None for a certificate without one.
fn path_length(der: &[u8]) -> Option<u32> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    certificate.basic_constraints().ok()??.value.path_len_constraint
}

/// The record of a root's certificate. A key has one certificate in the store, by which it is found again: a second one, which certifies
/// it across, is kept under its own hash instead.
fn own_record(authority: u32, der: &[u8], known: &CertificateFacts, is_cross: bool, now: Timestamp) -> Result<Certificate> {
    Ok(Certificate {
        serial: known.serial.ok_or(Refusal::AuthorityUnavailable)?,
        authority,
        subject: None,
        generation: 0,
        key_hash: if is_cross { KeyHash(sha256(der)) } else { known.key_hash },
        fingerprint: known.fingerprint,
        standing: Standing::Good,
        not_before: known.not_before,
        not_after: known.not_after,
        renew_after: known.not_after,
        confirm_before: None,
        issued_at: now,
        changed_at: now,
        ledger: LedgerName::System,
        position: 0,
        token: None,
        der: der.to_vec(),
    })
}

fn waits(plan: &Plan, first: Option<&str>) -> Error {
    let id = plan.id;
    let detail = if plan.root.is_none() {
        format!(
            "The new root is to be made elsewhere: `fleetmark root request --root {id} --out FILE`, then `fleetmark root create --request \
             FILE` on its machine, and `fleetmark root accept` of the answer. Ask again then."
        )
    } else {
        let what = first.unwrap_or("a root's signature");
        format!(
            "{what} is missing: `fleetmark root request --out FILE` fetches what that root's ceremony needs. Ask again when its answer was accepted."
        )
    };
    Error::with_detail(Refusal::WaitsForRoot, detail)
}

fn unavailable(cause: PkiError) -> Error {
    Error::caused(Refusal::AuthorityUnavailable, cause)
}
