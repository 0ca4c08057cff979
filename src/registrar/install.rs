//! What the first start makes: ledger, root, authorities, the first fleet, the first operator. Each step is there or is made whole; a start that died goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{
    Epoch, FleetName, Index, Kind, LedgerName, Name, Refusal, Role, Serial, Standing, Timestamp, TrustDomain,
};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_ledger::merkle::Frontier;
use fleetmark_ledger::note::{LedgerKey, origin};
use ring::hmac;
use ring::rand::SystemRandom;

use super::alarms::Alarms;
use super::authorities::Authorities;
use super::enroll::{Enrollment, Ticket};
use super::issue::Order;
use super::policies::InForce;
use super::rates::{RateSettings, Rates};
use super::secrets::Secrets;
use super::signing::{Turns, unsigned};
use super::snapshots::Snapshots;
use super::subjects::new_subject;
use super::{Error, Registrar, Result};
use crate::ceremony::authority_names;
use crate::ledger::Publisher;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::{Issuer, Template, facts, prepare};
use crate::pki::keys::pkcs11::Token;
use crate::pki::keys::{KeyAlgorithm, Keys};
use crate::pki::profile::{Profile, Profiles};
use crate::pki::weak::lists::WeakLists;
use crate::store::acts::found::{AddAuthority, OpenSystemLedger};
use crate::store::acts::lease::RaiseEpochs;
use crate::store::acts::lists::{SetValue, SetValues};
use crate::store::acts::record::{Holder, Proof};
use crate::store::acts::subjects::Register;
use crate::store::acts::tokens::ForgetRequests;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, EpochRecord, Fleet, LedgerRecord};
use crate::store::{HeadSigner as _, Store, commit, read};

/// Who the server is by itself, in the ledger's details.
pub(super) const ITSELF: &str = "fleetmark";
/// The installation's value that holds the trust domain.
const TRUST_DOMAIN: &str = "trust-domain";
/// The first authority's id.
pub(super) const ROOT: AuthorityId = 1;
/// The label of the system ledger's key.
const SYSTEM_KEY: &str = "ledger-system";

/// So many epochs may have been opened between a backup and its restore.
const RESTORE_LEAP: u32 = 1 << 16;
/// How long a repeated request is recognized.
const REMEMBERED_FOR: Duration = Duration::from_secs(86_400);

/// An authority to make.
#[derive(Debug, Clone)]
pub(super) struct NewAuthority {
    /// What it issues for.
    pub kind: Kind,
    /// The one fleet, of a device authority.
    pub fleet: Option<FleetName>,
    /// The state that it begins in.
    pub state: AuthorityState,
    /// The key's; None: the profile's first.
    pub algorithm: Option<KeyAlgorithm>,
    /// What the operator wrote.
    pub note: Option<String>,
}

impl NewAuthority {
    /// The first of its kind, which issues at once.
    pub const fn first(kind: Kind, fleet: Option<FleetName>) -> Self {
        Self { kind, fleet, state: AuthorityState::Active, algorithm: None, note: None }
    }
}

/// What a registrar is made of.
pub struct Parts {
    /// The store; its writer signs with `publisher`.
    pub store: Arc<dyn Store>,
    /// Where keys live.
    pub keys: Arc<Keys>,
    /// The profiles.
    pub profiles: Profiles,
    /// Lists of keys that are known to all.
    pub weak_lists: WeakLists,
    /// The ledgers' publisher, without ledgers yet.
    pub publisher: Arc<Publisher>,
    /// Where the ledgers' snapshots lie, none looked at yet.
    pub snapshots: Snapshots,
    /// The installation's trust domain.
    pub trust_domain: TrustDomain,
    /// The public door, as relying parties reach it: `http://HOST:PORT`.
    pub public_url: String,
    /// How often certificates are issued.
    pub rates: RateSettings,
}

impl Registrar {
    /// Opens the registrar over what is there: ledgers and authorities with their keys. On the first start it opens the
    /// system ledger.
    pub async fn open(parts: Parts, now: Timestamp) -> Result<Self> {
        let Parts { store, keys, profiles, weak_lists, publisher, snapshots, trust_domain, public_url, rates } = parts;
        check_trust_domain(&*store, &trust_domain).await?;
        open_system_ledger(&*store, &keys, &publisher, &trust_domain, now).await?;
        for ledger in read(&*store, |rows| rows.ledgers()).await? {
            let key = ledger_key(&keys, &ledger)?;
            publisher.add(ledger.name.clone(), key, Some(ledger.head()));
        }
        let system = keys.load_pkcs8(SYSTEM_KEY).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        let token_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &system), b"fleetmark: secrets of repeatable tokens");
        let secrets = Secrets::open(&keys)?;
        let turns = Turns::of(&keys);
        let authorities = Authorities::new(profiles, keys, public_url);
        for record in read(&*store, |rows| rows.authorities()).await? {
            authorities.take_on(record)?;
        }
        let random = SystemRandom::new();
        let policies = InForce::open(&*store, &random, now).await?;
        let registrar = Self {
            policies: Arc::new(policies),
            weak_lists,
            store,
            authorities: Arc::new(authorities),
            publisher,
            snapshots,
            published: super::publish::Published::default(),
            status: super::status::StatusViews::default(),
            trust_domain,
            random,
            secrets,
            turns,
            rates: Rates::new(rates),
            alarms: Alarms::default(),
            groups: super::groups::Watch::default(),
            hooks: super::hook::Calls::default(),
            orders: super::revocations::Watch::default(),
            makers: super::proofs::maker::KnownMakers::default(),
            externals: super::external::Watch::default(),
            token_key: hmac::Key::new(hmac::HMAC_SHA256, token_key.as_ref()),
            founding: Arc::default(),
            renewing: tokio::sync::Mutex::default(),
            above: arc_swap::ArcSwap::default(),
            bundles: super::trust_bundle::Bundles::default(),
            authorities_seen: std::sync::Mutex::default(),
            lists_seen: std::sync::Mutex::default(),
        };
        registrar.open_corporate().await?;
        Ok(registrar)
    }

    /// Makes root, authorities and the first fleet, as far as they are not there.
    pub async fn install(&self, first_fleet: &FleetName, now: Timestamp) -> Result<()> {
        if self.waits_for_root().await? {
            let detail = "This installation's root is asked elsewhere: `fleetmark init --continue FILE` brings its answer.";
            return Err(Error::with_detail(Refusal::WaitsForRoot, detail));
        }
        if self.authorities.root().is_err() {
            self.make_root(now).await?;
        }
        for kind in [Kind::Service, Kind::Operator, Kind::Gateway] {
            if self.authorities.issuing(kind, None).is_err() {
                let new = self.new_authority(NewAuthority::first(kind, None), ITSELF.to_owned(), now).await?;
                let record = new.authority.clone();
                commit(&*self.store, new).await?;
                self.authorities.add(record)?;
            }
        }
        let fleets = read(&*self.store, |rows| rows.fleets(None, 1)).await?;
        if fleets.is_empty() {
            let fleet = Fleet {
                name: first_fleet.clone(),
                open: true,
                profile: Kind::Device.as_str().to_owned(),
                unconfirmed_ttl: None,
                choices: fleetmark_domain::standing::Choices::default(),
                max_age: super::fleets::DEFAULT_MAX_AGE,
                created_at: now,
                version: 1,
                blast_radius: None,
                hook: None,
                wave: None,
            };
            self.make_fleet(fleet, ITSELF.to_owned(), None, now).await?;
        }
        Ok(())
    }

    /// Whether root, authorities and a fleet were made, in whatever state they are now.
    pub async fn is_founded(&self) -> Result<bool> {
        let all = self.authorities.all();
        let has = |kind| all.iter().any(|authority| authority.record.kind == AuthorityKind::Of(kind));
        let has_authorities =
            self.authorities.root().is_ok() && [Kind::Service, Kind::Operator, Kind::Gateway].into_iter().all(has);
        Ok(has_authorities && !read(&*self.store, |rows| rows.fleets(None, 1)).await?.is_empty())
    }

    /// The root signs itself, as the first certificate of the first epoch.
    async fn make_root(&self, now: Timestamp) -> Result<()> {
        let profile = self.find_profile("root")?;
        let (key_label, signer) = self.authority_key("root", profile, None).await?;
        let (epoch, serial) = (Epoch(1), Serial::new(Epoch(1), Index(0), self.random()?));
        let issuer = Issuer { certificate: Vec::new().into(), signer: signer.clone() };
        let common_name = format!("{} root", self.trust_domain);
        let template = Template {
            profile,
            serial,
            common_name: common_name.get(..64).unwrap_or(&common_name),
            organization: organization(&self.trust_domain),
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before: now - profile.backdate,
            not_after: now + profile.lifetime,
            spki: signer.public_key(),
            pointers: &crate::pki::issue::Pointers::default(),
        };
        let prepared = prepare(&issuer, &template).map_err(unsigned)?;
        let root = self.with_key(&signer, move |signer| prepared.sign(signer)).await?;
        let (authority, certificate) = root_of(key_label, &root.der, now)?;
        let epoch = EpochRecord { number: epoch, authority: ROOT, opened_at: now, closed_at: None, next_index: 1 };
        let details = self.details(ITSELF.to_owned(), Some(common_name), None, None)?;
        let act = AddAuthority { authority: authority.clone(), certificate, epoch: Some(epoch), details, at: now };
        commit(&*self.store, act).await?;
        self.authorities.add(authority)?;
        Ok(())
    }

    /// Makes an authority's key and has the root certify it. It counts once the act is committed.
    pub(super) async fn new_authority(&self, new: NewAuthority, actor: String, now: Timestamp) -> Result<AddAuthority> {
        let NewAuthority { kind: of, fleet, state, algorithm, note } = new;
        let root = match self.authorities.root() {
            Ok(root) if root.has_key => root,
            _ => {
                let made = self.by_ceremony(of, fleet, actor, now).await?;
                return Ok(AddAuthority { authority: AuthorityRecord { state, ..made.authority }, ..made });
            }
        };
        let profile = self.find_profile(&format!("authority-{of}"))?;
        let common_name = self.authority_name(of, fleet.as_ref());
        let (key_label, signer) = self.authority_key(&format!("authority-{of}"), profile, algorithm).await?;
        let order = Order {
            authority: &root,
            profile,
            subject: None,
            common_name: &common_name,
            spki: signer.public_key(),
            standing: Standing::Good,
            unconfirmed_ttl: None,
            token: None,
        };
        let certificate = self.sign(&order, now).await?;
        let authority = AuthorityRecord {
            id: self.authorities.next_id(),
            kind: AuthorityKind::Of(of),
            fleet,
            state,
            key_label,
            certificate: certificate.der.clone(),
            issuer: Some(root.record.id),
            created_at: now,
        };
        let details = self.details(actor, Some(common_name), None, note)?;
        Ok(AddAuthority { authority, certificate, epoch: None, details, at: now })
    }

    /// Each of an authority's successors has a name of its own: who looks for a revocation list by its issuer's name alone, as
    /// mbedTLS does, finds one. At most 64 characters (RFC 5280 A.1).
    fn authority_name(&self, kind: Kind, fleet: Option<&FleetName>) -> String {
        authority_names(&self.trust_domain, kind, fleet, self.successor_number(kind, fleet)).1
    }

    /// The number of the next authority for this kind and fleet; None for the first.
    pub(super) fn successor_number(&self, kind: Kind, fleet: Option<&FleetName>) -> Option<u32> {
        let all = self.authorities.all();
        let before = all.iter().filter(|authority| authority.is_bound_to(kind, fleet)).count();
        u32::try_from(before).ok().filter(|before| *before > 0).map(|before| before.saturating_add(1))
    }

    /// A new ledger's record and key.
    pub(super) fn new_ledger(&self, name: &LedgerName) -> Result<(LedgerRecord, LedgerKey)> {
        let label = self.label("ledger")?;
        make_ledger(self.authorities.keys(), &self.trust_domain, name, label)
    }

    /// Takes on a ledger that the store has, unless it is known here.
    pub(super) async fn take_on_ledger(&self, name: &LedgerName) -> Result<()> {
        if self.publisher.size(name).is_some() {
            return Ok(());
        }
        let look = || {
            let wanted = name.clone();
            read(&*self.store, move |rows| rows.ledger(&wanted))
        };
        let Some(record) = look().await? else { return Ok(()) };
        self.publisher.add(name.clone(), ledger_key(self.authorities.keys(), &record)?, None);
        // From here on every commit has its head signed; this one is for those before.
        if let Some(record) = look().await? {
            self.publisher.committed(name, &record.head(), &[]);
        }
        Ok(())
    }

    pub(super) fn find_profile(&self, name: &str) -> Result<&Profile> {
        let missing = || Error::with_detail(Refusal::AuthorityUnavailable, format!("the profile {name} is not there"));
        self.authorities.profiles().find(name).ok_or_else(missing)
    }

    /// After a restore: no epoch that may have been used since the backup is used again.
    pub async fn raise_epochs(&self, highest: Epoch, now: Timestamp) -> Result<()> {
        let floor = Epoch(highest.0.saturating_add(RESTORE_LEAP));
        // A root that was planned at the backup may have been prepared after it, in the numbering that was reserved for it.
        let restored = (super::publish::RESTORED.to_owned(), now.0.to_be_bytes().to_vec());
        commit(&*self.store, SetValues(vec![(super::rollover::plan::PLAN.to_owned(), Vec::new()), restored])).await?;
        Ok(commit(&*self.store, RaiseEpochs { floor, at: now }).await?)
    }

    /// Does the smallest write there is, so that a store that takes none is noticed; forgets remembered requests by it, and
    /// requests for approval that expired.
    pub async fn housekeeping(&self, now: Timestamp) -> Result<()> {
        commit(&*self.store, ForgetRequests { before: now - REMEMBERED_FOR, after: now + REMEMBERED_FOR }).await?;
        self.tend_requests(now).await
    }

    /// Finishes what is being written, closes the store, and lets go of the token.
    pub async fn stop(&self) {
        self.store.stop().await;
        let keys = self.authorities.shared_keys();
        if keys.token().is_some() {
            // An Err means that the runtime is ending already.
            let _ = tokio::task::spawn_blocking(move || keys.token().map(Token::rest)).await;
        }
    }

    /// Whether there is no owner yet, whom [`Self::first_operator`] would make.
    pub async fn lacks_owner(&self) -> Result<bool> {
        Ok(read(&*self.store, |rows| rows.owners()).await? == 0)
    }

    /// Admits the first operator, an owner, for the key in `csr`. None where there are operators already.
    pub async fn first_operator(&self, name: &Name, csr: &VerifiedCsr, now: Timestamp) -> Result<Option<Enrollment>> {
        let (folded, key) = (name.folded(), csr.key_hash());
        let (owners, subject, existing) = read(&*self.store, move |rows| {
            let subject = rows.subject_by_name(Kind::Operator, None, &folded)?;
            Ok((rows.owners()?, subject, rows.certificate_by_key(&key)?))
        })
        .await?;
        let subject = match subject {
            Some(subject) if existing.is_some() || subject.last_generation == 0 => subject,
            None if owners == 0 => {
                let mut subject = new_subject(Kind::Operator, None, name.clone(), now);
                subject.role = Some(Role::Owner);
                let details =
                    self.details(ITSELF.to_owned(), Some(name.to_string()), None, Some("first operator".to_owned()))?;
                commit(&*self.store, Register { subject, invitation: None, repeatable: None, details, at: now }).await?.0
            }
            _ => return Ok(None),
        };
        if let Some(existing) = existing {
            return self.replay(&subject, existing, super::enroll::Replay::Current, now).map(Some);
        }
        let ticket = Ticket {
            holder: Holder::Known(subject.id),
            approval: None,
            attributes: None,
            proof: Proof::Installation,
            standing: Standing::Good,
            source: None,
            note: "first operator".to_owned(),
        };
        self.issue_to(&subject, None, csr, ticket, now).await.map(Some)
    }
}

/// A root's own records: authority 1, and the first certificate of the installation.
pub(super) fn root_of(key_label: String, der: &[u8], now: Timestamp) -> Result<(AuthorityRecord, Certificate)> {
    let known = facts(der).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
    let authority = AuthorityRecord {
        id: ROOT,
        kind: AuthorityKind::Root,
        fleet: None,
        state: AuthorityState::Active,
        key_label,
        certificate: der.to_vec(),
        issuer: None,
        created_at: now,
    };
    let certificate = Certificate {
        serial: known.serial.ok_or(Refusal::AuthorityUnavailable)?,
        authority: ROOT,
        subject: None,
        generation: 0,
        key_hash: known.key_hash,
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
    };
    Ok((authority, certificate))
}

/// The trust domain is written down at the first start, and never changes: every identity hangs from it.
async fn check_trust_domain(store: &dyn Store, wanted: &TrustDomain) -> Result<()> {
    match read(store, |rows| rows.value(TRUST_DOMAIN)).await? {
        None => {
            Ok(commit(store, SetValue { name: TRUST_DOMAIN.to_owned(), value: wanted.as_str().as_bytes().to_vec() }).await?)
        }
        Some(known) if known == wanted.as_str().as_bytes() => Ok(()),
        Some(known) => {
            let known = String::from_utf8_lossy(&known).into_owned();
            let detail = format!("This installation's trust domain is {known}; it cannot become {wanted}.");
            Err(Error::with_detail(Refusal::InvalidValue, detail))
        }
    }
}

async fn open_system_ledger(
    store: &dyn Store,
    keys: &Keys,
    publisher: &Publisher,
    domain: &TrustDomain,
    now: Timestamp,
) -> Result<()> {
    if read(store, |rows| rows.ledger(&LedgerName::System)).await?.is_some() {
        return Ok(());
    }
    let (ledger, key) = make_ledger(keys, domain, &LedgerName::System, SYSTEM_KEY.to_owned())?;
    publisher.add(LedgerName::System, key, None);
    Ok(commit(store, OpenSystemLedger { ledger, at: now }).await?)
}

/// A ledger's record and key. A key that is there already is used: the start before this one died in between.
fn make_ledger(keys: &Keys, domain: &TrustDomain, name: &LedgerName, key_label: String) -> Result<(LedgerRecord, LedgerKey)> {
    if !keys.contains(&key_label) {
        let made = keys.create(&key_label, KeyAlgorithm::Ed25519);
        made.map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
    }
    let origin = origin(domain, name);
    let mut record = LedgerRecord { name: name.clone(), origin, key_label, key: [0; 32], frontier: Frontier::default() };
    let key = ledger_key(keys, &record)?;
    record.key = key.verifier().key;
    Ok((record, key))
}

fn ledger_key(keys: &Keys, ledger: &LedgerRecord) -> Result<LedgerKey> {
    let pkcs8 = keys.load_pkcs8(&ledger.key_label).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
    LedgerKey::from_pkcs8(&ledger.origin, &pkcs8).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))
}

/// Subject O of the installation's own certificates; RFC 5280 A.1 bounds it to 64 characters.
pub(super) fn organization(domain: &TrustDomain) -> &str {
    domain.as_str().get(..64).unwrap_or(domain.as_str())
}
