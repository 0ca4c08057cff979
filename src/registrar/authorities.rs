//! The authorities in memory: certificates, keys, index leases. Swapped in whole when one is added or changes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::{AuthorityState, Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, Refusal, Timestamp};
use fleetmark_ledger::entry::AuthorityKind;

use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::pki::PkiError;
use crate::pki::issue::{Issuer, Pointers, facts};
use crate::pki::keys::{KeyAlgorithm, Keys, Signer};
use crate::pki::ocsp::IssuerHashes;
use crate::pki::profile::Profiles;
use crate::store::acts::lease::LeaseIndices;
use crate::store::commit;
use crate::store::model::{AuthorityId, AuthorityRecord};

/// How many indices a lease asks for.
const LEASE_SIZE: u32 = 256;
/// How long a lease holds.
const LEASE_TIME: Duration = Duration::from_secs(600);
/// So long before its end a lease is not used any more.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// An authority, ready to be used.
#[derive(Debug)]
pub struct Authority {
    /// Its record.
    pub record: AuthorityRecord,
    /// Its certificate and key.
    pub issuer: Issuer,
    /// Whether its key is on this machine; an offline root's is not.
    pub has_key: bool,
    /// How CertIDs name it.
    pub hashes: IssuerHashes,
    /// Its subject key identifier: the AKI of what it issued.
    pub key_id: Vec<u8>,
    /// SHA-256 over its certificate.
    pub fingerprint: Fingerprint,
    /// End of its certificate.
    pub not_after: Timestamp,
    /// What stands in the certificates that it issues.
    pub pointers: Pointers,
    /// Indices leased and not used.
    leased: tokio::sync::Mutex<VecDeque<(Epoch, Index)>>,
    lease_ends: Mutex<Timestamp>,
}

impl Authority {
    /// Opens an authority's keys and reads its certificate.
    pub fn open(record: AuthorityRecord, keys: &Keys, public_url: &str) -> std::result::Result<Self, PkiError> {
        let facts = facts(&record.certificate)?;
        // An offline root's key is not here: what it signed goes on, and what it should sign is refused by name.
        let has_key = record.kind != AuthorityKind::Root || keys.contains(&record.key_label);
        let signer: Arc<dyn Signer> = if has_key {
            keys.load_for(&record.key_label, &record.certificate)?
        } else {
            Arc::new(Absent(record.key_label.clone()))
        };
        if has_key && KeyHash(sha256(signer.public_key())) != facts.key_hash {
            return Err(PkiError::KeyMismatch(record.key_label));
        }
        let issuer = Issuer { certificate: record.certificate.as_slice().into(), signer };
        Ok(Self {
            has_key,
            hashes: IssuerHashes::of(&record.certificate)?,
            key_id: facts.subject_key_id.unwrap_or_default(),
            fingerprint: facts.fingerprint,
            not_after: facts.not_after,
            pointers: pointers(public_url, &record),
            issuer,
            record,
            leased: tokio::sync::Mutex::default(),
            lease_ends: Mutex::new(Timestamp(0)),
        })
    }

    /// The ledger that holds the entries of its epochs and certificates.
    pub fn ledger(&self) -> LedgerName {
        LedgerName::from(self.record.fleet.as_ref())
    }

    /// The same authority in another state. Indices that it had leased are left to expire.
    fn in_state(&self, state: AuthorityState) -> Self {
        Self {
            record: AuthorityRecord { state, ..self.record.clone() },
            issuer: self.issuer.clone(),
            has_key: self.has_key,
            hashes: self.hashes.clone(),
            key_id: self.key_id.clone(),
            fingerprint: self.fingerprint,
            not_after: self.not_after,
            pointers: self.pointers.clone(),
            leased: tokio::sync::Mutex::default(),
            lease_ends: Mutex::new(Timestamp(0)),
        }
    }

    /// Whether it may issue now.
    pub fn issues(&self) -> bool {
        self.record.state == AuthorityState::Active
    }

    /// Whether it is bound to this kind and fleet.
    pub fn is_bound_to(&self, kind: Kind, fleet: Option<&FleetName>) -> bool {
        self.record.kind == AuthorityKind::Of(kind) && self.record.fleet.as_ref() == fleet
    }
}

/// A key that is kept elsewhere.
#[derive(Debug)]
struct Absent(String);

impl Signer for Absent {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::P256
    }

    fn public_key(&self) -> &[u8] {
        &[]
    }

    fn sign(&self, _: &[u8]) -> std::result::Result<Vec<u8>, PkiError> {
        Err(PkiError::KeyMissing(self.0.clone().into()))
    }
}

/// Where relying parties find what the authority publishes.
/// A root answers no OCSP requests: its key may be offline, and its list changes rarely.
fn pointers(public_url: &str, record: &AuthorityRecord) -> Pointers {
    let id = record.id;
    Pointers {
        ocsp: (record.kind != AuthorityKind::Root).then(|| format!("{public_url}/ocsp")),
        ca_issuers: Some(format!("{public_url}/ca/{id}.crt")),
        crl: Some(format!("{public_url}/crl/{id}.crl")),
    }
}

/// All authorities at one moment, ascending by id.
pub type AuthoritySet = Vec<Arc<Authority>>;

/// The authorities, their keys, and the profiles by which they issue.
pub struct Authorities {
    current: ArcSwap<AuthoritySet>,
    /// Roots' keys under other roots (RFC 4210 4.4): certificates alone, which issue nothing.
    crosses: ArcSwap<Vec<Arc<AuthorityRecord>>>,
    changed: tokio::sync::Notify,
    profiles: Profiles,
    keys: Arc<Keys>,
    public_url: String,
    observer: Mutex<Option<Observer>>,
    /// The certificates above our root, upwards; none above one that signs itself.
    above: ArcSwap<Vec<Vec<u8>>>,
    /// The id of a root that is planned: it stands in certificates already. 0 for none.
    reserved: AtomicU32,
}

/// Who is told of every set of authorities.
pub type Observer = Box<dyn Fn(&AuthoritySet) + Send>;

impl Authorities {
    /// Without authorities yet. `public_url` is the public door's, as relying parties reach it.
    pub fn new(profiles: Profiles, keys: Arc<Keys>, public_url: String) -> Self {
        let (current, crosses, changed, observer, above) = Default::default();
        Self { current, crosses, changed, profiles, keys, public_url, observer, above, reserved: AtomicU32::new(0) }
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Arc<AuthoritySet> {
        self.current.load_full()
    }

    /// The authority with this id.
    pub fn by_id(&self, id: AuthorityId) -> Option<Arc<Authority>> {
        self.current.load().iter().find(|authority| authority.record.id == id).cloned()
    }

    /// The active authority for this kind and fleet.
    pub fn issuing(&self, kind: Kind, fleet: Option<&FleetName>) -> Result<Arc<Authority>> {
        let all = self.current.load();
        let found = all.iter().find(|authority| authority.issues() && authority.is_bound_to(kind, fleet));
        found.cloned().ok_or_else(|| {
            let detail = format!("There is no active authority for {kind}s: prepare one and activate it.");
            Error::with_detail(Refusal::AuthorityUnavailable, detail)
        })
    }

    /// The root that issues, with its key.
    ///
    /// # Errors
    /// `AuthorityUnavailable`, which says that the key is needed on this machine, or that no root is active.
    pub fn issuing_root(&self) -> Result<Arc<Authority>> {
        let root = self.root()?;
        if !root.issues() {
            return Err(Error::with_detail(Refusal::AuthorityUnavailable, "No root is active: prepare one and activate it."));
        }
        if root.has_key {
            return Ok(root);
        }
        let detail = "The root's key is kept elsewhere: its ceremony certifies authorities (docs/root-ceremony.md).";
        Err(Error::with_detail(Refusal::AuthorityUnavailable, detail))
    }

    /// The root: the active one, else the newest that is trusted, else the newest.
    pub fn root(&self) -> Result<Arc<Authority>> {
        let all = self.current.load();
        let rank = |authority: &&Arc<Authority>| {
            let record = &authority.record;
            (record.state == AuthorityState::Active, record.state.is_trusted(), record.id)
        };
        let found = all.iter().filter(|authority| authority.record.is_root()).max_by_key(rank);
        found.cloned().ok_or_else(|| Refusal::AuthorityUnavailable.into())
    }

    /// The public door, as relying parties reach it.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// The certificates above our root, upwards; none above one that signs itself.
    pub fn above(&self) -> Arc<Vec<Vec<u8>>> {
        self.above.load_full()
    }

    pub(super) fn set_above(&self, above: Vec<Vec<u8>>) {
        self.above.store(Arc::new(above));
    }

    /// All roots that are trusted, ascending by id.
    pub fn roots(&self) -> Vec<Arc<Authority>> {
        let all = self.current.load();
        all.iter().filter(|authority| authority.record.is_root() && authority.record.state.is_trusted()).cloned().collect()
    }

    /// The certificates of [`Self::roots`], in DER.
    pub fn trust_bundle(&self) -> Vec<Vec<u8>> {
        self.roots().iter().map(|root| root.record.certificate.clone()).collect()
    }

    /// Roots' keys under other roots, revoked ones among them, ascending by id.
    pub fn crosses(&self) -> Arc<Vec<Arc<AuthorityRecord>>> {
        self.crosses.load_full()
    }

    /// The authority's certificate, then its root's key under the other roots that are trusted: whoever knows one of them finds its
    /// way, and who knows the root itself passes over the rest. Where our root is under a corporate one, our root's and those
    /// between, without the corporate root.
    pub fn chain_of(&self, authority: &Authority) -> Vec<Vec<u8>> {
        let (roots, crosses) = (self.roots(), self.crosses());
        let mut chain = vec![authority.record.certificate.clone()];
        let mut reached: Vec<AuthorityId> = authority.record.issuer.into_iter().collect();
        let mut at = 0;
        // Each root is reached once, so it ends.
        while let Some(root) = reached.get(at).and_then(|id| roots.iter().find(|root| root.record.id == *id)) {
            for cross in crosses.iter().filter(|cross| cross.state.is_trusted() && cross.key_label == root.record.key_label) {
                let Some(above) = cross.issuer.filter(|above| !reached.contains(above)) else { continue };
                if roots.iter().any(|root| root.record.id == above) {
                    chain.push(cross.certificate.clone());
                    reached.push(above);
                }
            }
            at = at.saturating_add(1);
        }
        if let Some((_, between)) = self.above.load().split_last()
            && let Ok(root) = self.root()
        {
            chain.push(root.record.certificate.clone());
            chain.extend(between.iter().cloned());
        }
        chain
    }

    /// What stands in the certificates that the root with this id issues.
    pub(super) fn pointers_of_root(&self, id: AuthorityId) -> Pointers {
        crate::ceremony::request::pointers(&self.public_url, id)
    }

    /// The profiles.
    pub const fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// Where keys live.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The same, to take along to another thread.
    pub fn shared_keys(&self) -> Arc<Keys> {
        self.keys.clone()
    }

    /// An id that no authority has.
    pub fn next_id(&self) -> AuthorityId {
        let (current, crosses) = (self.current.load(), self.crosses.load());
        let all = current.iter().map(|authority| authority.record.id).chain(crosses.iter().map(|cross| cross.id));
        all.max().unwrap_or(0).max(self.reserved.load(Ordering::Relaxed)).saturating_add(1)
    }

    /// From now on this id is a planned root's, and nobody else's; 0 for none.
    pub(super) fn reserve(&self, id: AuthorityId) {
        self.reserved.store(id, Ordering::Relaxed);
    }

    /// Takes a record on: an authority, or a root's key under another root.
    pub fn take_on(&self, record: AuthorityRecord) -> Result<()> {
        if !record.is_cross() {
            return self.add(record).map(drop);
        }
        let record = Arc::new(record);
        self.crosses.rcu(|current| {
            let mut next = Vec::clone(current);
            next.retain(|known| known.id != record.id);
            next.push(record.clone());
            next
        });
        self.changed.notify_one();
        Ok(())
    }

    /// From now on the authority is in this state, unless it is in a later one already: what was read a moment before another change
    /// does not undo it. One that is not here is passed over.
    pub fn set_state(&self, id: AuthorityId, state: AuthorityState) {
        self.current.rcu(|current| {
            let change = |authority: &Arc<Authority>| {
                let is_meant = authority.record.id == id && authority.record.state < state;
                if is_meant { Arc::new(authority.in_state(state)) } else { authority.clone() }
            };
            current.iter().map(change).collect::<AuthoritySet>()
        });
        self.crosses.rcu(|current| {
            let change = |cross: &Arc<AuthorityRecord>| {
                let is_meant = cross.id == id && cross.state < state;
                if is_meant { Arc::new(AuthorityRecord { state, ..AuthorityRecord::clone(cross) }) } else { cross.clone() }
            };
            current.iter().map(change).collect::<Vec<_>>()
        });
        self.tell();
    }

    /// Completes when an authority came or changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn tell(&self) {
        if let Some(observer) = &*self.observer.lock().unwrap_or_else(PoisonError::into_inner) {
            observer(&self.all());
        }
        self.changed.notify_one();
    }

    /// Takes an authority on. One that was taken on meanwhile, as by who looks for what other processes made, stays as it is.
    pub fn add(&self, record: AuthorityRecord) -> Result<Arc<Authority>> {
        let opened = Authority::open(record, &self.keys, &self.public_url);
        let authority = Arc::new(opened.map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?);
        let id = authority.record.id;
        self.current.rcu(|current| {
            let mut next = AuthoritySet::clone(current);
            if !next.iter().any(|known| known.record.id == id) {
                next.push(authority.clone());
                next.sort_by_key(|known| known.record.id);
            }
            next
        });
        self.tell();
        Ok(self.by_id(id).unwrap_or(authority))
    }

    /// Has `observer` told of every set of authorities from now on, this one first: before anything is issued by an
    /// authority, the doors trust it.
    pub fn observe(&self, observer: Observer) {
        observer(&self.all());
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }
}

impl Registrar {
    /// An index to issue under, from the lease in memory or a new one.
    pub(super) async fn index(&self, authority: &Authority, now: Timestamp) -> Result<(Epoch, Index)> {
        let mut leased = authority.leased.lock().await;
        let ends = *authority.lease_ends.lock().unwrap_or_else(PoisonError::into_inner);
        if now + LEASE_MARGIN >= ends {
            leased.clear();
        }
        if let Some(place) = leased.pop_front() {
            return Ok(place);
        }
        let longest = self.authorities.profiles.longest_lifetime();
        let expires_at = now + LEASE_TIME;
        let act = LeaseIndices {
            authority: authority.record.id,
            ledger: authority.ledger(),
            // A root and other rarely used authorities would leave holes for nothing.
            count: if authority.record.kind == AuthorityKind::Of(Kind::Device) { LEASE_SIZE } else { 8 },
            window: longest / 4,
            expires_at,
            at: now,
        };
        let lease = commit(&*self.store, act).await?;
        leased.extend(lease.indices.into_iter().map(|index| (lease.epoch, index)));
        *authority.lease_ends.lock().unwrap_or_else(PoisonError::into_inner) = expires_at;
        leased.pop_front().ok_or_else(|| Refusal::Overloaded.into())
    }

    /// Gives an index back that was never seen outside.
    pub(super) async fn return_index(&self, authority: &Authority, place: (Epoch, Index)) {
        authority.leased.lock().await.push_front(place);
    }
}
