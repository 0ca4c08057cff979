//! What the gateway knows, how old it is, and who is told when it changes. Shared by every thread.

pub(crate) mod abroad;
pub(crate) mod fetching;
pub(crate) mod pushed;
pub(crate) mod sightings;
pub(crate) mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fleetmark_domain::{Epoch, Fingerprint, FleetName, Identity, Index, LedgerName, Naming, Serial, Standing, TrustDomain};
use fleetmark_external::{Foreign, name};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState, ExternalState, IndexSet};
use fleetmark_ledger::state::ShortFingerprint;
use fleetmark_policy::Policies;
use rustls_pki_types::CertificateDer;
use tokio::sync::broadcast;

use crate::clock::{Clock, SystemClock};
use abroad::Abroad;
use fetching::Fetching;
use sightings::Sightings;
use table::Ledger;

/// Changes that a receiver may lag behind before it has to look at everything.
const CHANGES: usize = 1_024;

/// What is known of one certificate.
#[derive(Debug, Clone)]
pub struct Known {
    /// The ledger that it is on.
    pub ledger: LedgerName,
    /// Of the one certificate that was issued there.
    pub fingerprint: ShortFingerprint,
    /// The worse of what is verified and what was pushed ahead of its proof.
    pub standing: Standing,
    /// The holder's id.
    pub subject: u64,
    /// The authority of its epoch: id, what it issues for, where it is in its life. None: the `system` ledger has none such.
    pub authority: Option<KnownAuthority>,
    /// The external authority of its epoch, where it is one.
    pub external: Option<KnownExternal>,
}

/// An external authority, as its fleet's ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownExternal {
    /// Whether its certificates count, pushed news included.
    pub state: ExternalState,
    /// How the devices of its certificates are called.
    pub naming: Naming,
}

impl Known {
    /// Who holds an adopted certificate; None where its authority's rule names nobody by it.
    pub fn named(&self, foreign: &Foreign) -> Option<Identity> {
        let LedgerName::Fleet(fleet) = &self.ledger else { return None };
        let name = name(&self.external.as_ref()?.naming, &foreign.said).ok()?;
        Some(Identity::Device { fleet: fleet.clone(), name })
    }
}

/// An authority, as the `system` ledger has it.
#[derive(Debug, Clone)]
pub struct KnownAuthority {
    /// Its id.
    pub id: u32,
    /// What it issues for.
    pub kind: AuthorityKind,
    /// Where it is in its life, pushed news included.
    pub state: AuthorityState,
    /// Its certificate, once it was fetched; its SHA-256 is the ledger's.
    pub certificate: Option<CertificateDer<'static>>,
}

/// How far, and how old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Entries verified.
    pub position: u64,
    /// Time since the signature of the newest verified checkpoint, by the monotonic clock.
    pub age: Duration,
    /// Beyond this age nothing new is allowed.
    pub max_age: Duration,
    /// A fork, a gap or a step back was seen, or nothing was verified yet: as bad as stale, and named otherwise.
    pub broken: bool,
}

impl Freshness {
    /// Past `max_age`.
    pub fn is_stale(&self) -> bool {
        self.age > self.max_age
    }
}

/// Something that live connections must be judged again for.
#[derive(Debug, Clone)]
pub enum Change {
    /// These certificates are worth less.
    Worsened {
        /// The ledger that says so.
        ledger: LedgerName,
        /// Which.
        certificates: Arc<IndexSet>,
    },
    /// An authority was tainted or revoked, a policy set activated, attributes changed, or a ledger found broken: look at all.
    Everything,
}

/// A first use of an unconfirmed certificate, to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 over the certificate.
    pub fingerprint: [u8; 32],
}

/// The knowledge. Cheap to clone: one shared thing.
#[derive(Debug, Clone)]
pub struct Knowledge {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share. The follower writes, everybody reads.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) clock: Arc<dyn Clock>,
    /// `system` first.
    ledgers: RwLock<Arc<[Arc<Ledger>]>>,
    /// By ledger: the sets that count for it.
    policies: RwLock<HashMap<LedgerName, Arc<Policies>>>,
    /// Authorities' certificates by their SHA-256.
    certificates: RwLock<HashMap<Fingerprint, CertificateDer<'static>>>,
    /// Every authority's certificate is here that can be had, or was when this gateway ran before.
    has_authorities: AtomicBool,
    generation: AtomicU64,
    changes: broadcast::Sender<Change>,
    pub(crate) sightings: Mutex<Sightings>,
    pub(crate) fetching: Fetching,
    pub(crate) abroad: Abroad,
}

impl Default for Knowledge {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl Knowledge {
    /// Knows nothing yet. A [`crate::follow::Follower`] fills it.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let fetching = Fetching::new(clock.now());
        let inner = Inner {
            clock,
            ledgers: RwLock::new(Arc::from([])),
            policies: RwLock::default(),
            certificates: RwLock::default(),
            has_authorities: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            changes: broadcast::Sender::new(CHANGES),
            sightings: Mutex::default(),
            fetching,
            abroad: Abroad::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The certificate at this place, if a followed ledger has one. None where two ledgers claim the same place.
    pub fn certificate(&self, epoch: Epoch, index: Index) -> Option<Known> {
        let mut found = None;
        for ledger in self.inner.ledgers().iter() {
            let found_here = ledger.read(|table| {
                let (holding, authority) = table.certificate(epoch, index)?;
                Some((holding, authority, authority.and_then(|id| table.external(id))))
            });
            let Some((holding, authority, external)) = found_here else {
                continue;
            };
            if found.is_some() {
                return None;
            }
            found = Some((ledger.name.clone(), holding, authority, external));
        }
        let (ledger, holding, authority, external) = found?;
        let authority = authority.and_then(|id| self.inner.authority(id));
        let (fingerprint, standing, subject) = (holding.fingerprint, holding.standing, holding.subject);
        Some(Known { ledger, fingerprint, standing, subject, authority, external })
    }

    /// The certificate of another authority that a followed ledger adopted, with its place.
    pub fn adopted(&self, fingerprint: &Fingerprint) -> Option<((Epoch, Index), Known)> {
        let adopted = |ledger: &Arc<Ledger>| ledger.read(|table| table.state.adopted(fingerprint));
        let place = self.inner.ledgers().iter().find_map(adopted)?;
        let known = self.certificate(place.0, place.1).filter(|known| known.external.is_some())?;
        Some((place, known))
    }

    /// Whether a followed ledger has an external authority whose certificates name this issuer.
    pub fn has_issuer(&self, issuer: &[u8; 32]) -> bool {
        let has = |ledger: &Arc<Ledger>| {
            ledger.read(|table| table.state.externals().any(|external| external.issuers.binary_search(issuer).is_ok()))
        };
        self.inner.ledgers().iter().any(has)
    }

    /// The installation's trust domain: the ledgers' keys are called `TRUST-DOMAIN/ledger/NAME`.
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        let system = self.inner.ledger(&LedgerName::System)?;
        system.read(|table| table.state.key().name.split_once("/ledger/").and_then(|(domain, _)| domain.parse().ok()))
    }

    /// Has what is new fetched at once because a certificate is not known, and waits for it, at most `patience`. Bounded: at most
    /// one fetch at a time, and at most a few a second; who comes beyond that gets no wait.
    pub async fn refresh(&self, patience: Duration) {
        self.inner.fetching.ask(self.inner.clock.now(), patience).await;
    }

    /// Whether devices can be told apart: every ledger is fresh and has its policies, and the authorities' certificates are here.
    pub fn is_ready(&self) -> bool {
        let (now, ledgers) = (self.inner.clock.now(), self.inner.ledgers());
        let is_fresh = |ledger: &Arc<Ledger>| {
            let freshness = ledger.read(|table| table.freshness(now, self.inner.clock.as_ref()));
            let fleet = match &ledger.name {
                LedgerName::System => None,
                LedgerName::Fleet(fleet) => Some(fleet),
            };
            !freshness.broken && !freshness.is_stale() && self.policies(fleet).is_some()
        };
        !ledgers.is_empty() && ledgers.iter().all(is_fresh) && self.inner.has_authorities.load(Ordering::Relaxed)
    }

    /// How far and how old; None for a ledger that is not followed.
    pub fn freshness(&self, ledger: &LedgerName, now: Instant) -> Option<Freshness> {
        let ledger = self.inner.ledger(ledger)?;
        Some(ledger.read(|table| table.freshness(now, self.inner.clock.as_ref())))
    }

    /// The sets that count for a fleet (None: for the installation alone); None while their text is not here.
    pub fn policies(&self, fleet: Option<&FleetName>) -> Option<Arc<Policies>> {
        let policies = self.inner.policies.read().unwrap_or_else(PoisonError::into_inner);
        policies.get(&LedgerName::from(fleet)).cloned()
    }

    /// Rises whenever policies or attributes change: answers kept under another number are void.
    pub fn policy_generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// A device's attributes; none where there are none or they are withheld.
    pub fn attributes(&self, ledger: &LedgerName, subject: u64) -> Arc<BTreeMap<String, String>> {
        self.inner.ledger(ledger).and_then(|ledger| ledger.read(|table| table.attributes(subject))).unwrap_or_default()
    }

    /// The ledgers followed, `system` first.
    pub fn ledgers(&self) -> Vec<LedgerName> {
        self.inner.ledgers().iter().map(|ledger| ledger.name.clone()).collect()
    }

    /// Every authority with a certificate that may sign clients' certificates: prepared, active or tainted.
    pub fn authorities(&self) -> Vec<KnownAuthority> {
        let Some(system) = self.inner.ledger(&LedgerName::System) else {
            return Vec::new();
        };
        let signs = |kind| matches!(kind, AuthorityKind::Of(_));
        let ids = system.read(|table| table.state.authorities());
        ids.into_iter()
            .filter(|(_, authority)| signs(authority.kind))
            .filter_map(|(id, _)| self.inner.authority(id))
            .filter(|authority| authority.certificate.is_some() && authority.state != AuthorityState::Revoked)
            .collect()
    }

    /// Told of every [`Change`]. A receiver that lags looks at everything.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Takes a sighting for the next report; bounded, repeated ones are dropped.
    pub fn saw(&self, sighting: Sighting) {
        let Some(known) = self.certificate(sighting.serial.epoch(), sighting.serial.index()) else {
            return;
        };
        let mut sightings = self.inner.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        sightings.take(known.ledger, sighting);
    }
}

impl Inner {
    pub(crate) fn ledgers(&self) -> Arc<[Arc<Ledger>]> {
        self.ledgers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn ledger(&self, name: &LedgerName) -> Option<Arc<Ledger>> {
        self.ledgers().iter().find(|ledger| ledger.name == *name).cloned()
    }

    /// Replaces the list of ledgers; `system` comes first in it.
    pub(crate) fn follow(&self, mut ledgers: Vec<Arc<Ledger>>) {
        ledgers.sort_by(|one, other| one.name.cmp(&other.name));
        *self.ledgers.write().unwrap_or_else(PoisonError::into_inner) = ledgers.into();
    }

    fn authority(&self, id: u32) -> Option<KnownAuthority> {
        let authority = self.ledger(&LedgerName::System)?.read(|table| table.authority(id))?;
        let certificates = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        let certificate = certificates.get(&authority.fingerprint).cloned();
        Some(KnownAuthority { id, kind: authority.kind, state: authority.state, certificate })
    }

    /// Keeps an authority's certificate; the caller has compared its SHA-256.
    pub(crate) fn keep_certificate(&self, fingerprint: Fingerprint, certificate: CertificateDer<'static>) {
        self.certificates.write().unwrap_or_else(PoisonError::into_inner).insert(fingerprint, certificate);
    }

    /// All authorities' certificates are here that can be had.
    pub(crate) fn has_authorities(&self) {
        self.has_authorities.store(true, Ordering::Relaxed);
    }

    /// Whether an authority's certificate is here.
    pub(crate) fn has_certificate(&self, fingerprint: &Fingerprint) -> bool {
        self.certificates.read().unwrap_or_else(PoisonError::into_inner).contains_key(fingerprint)
    }

    /// Puts together, for every ledger, the sets that count; after one of them changed.
    pub(crate) fn combine_policies(&self) {
        let ledgers = self.ledgers();
        let set = |ledger: &Arc<Ledger>| ledger.read(|table| table.set.clone());
        let installation = ledgers.iter().find(|ledger| ledger.name == LedgerName::System).and_then(set);
        let mut combined = HashMap::new();
        for ledger in ledgers.iter() {
            let (Some(installation), Some(own)) = (&installation, set(ledger)) else {
                continue;
            };
            let fleet = matches!(ledger.name, LedgerName::Fleet(_)).then_some(own);
            combined.insert(ledger.name.clone(), Arc::new(Policies { installation: installation.clone(), fleet }));
        }
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = combined;
        self.answers_are_void();
    }

    /// Answers that were kept by [`Knowledge::policy_generation`] count no more.
    pub(crate) fn answers_are_void(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, change: Change) {
        // Nobody listens: nobody has to be told.
        let _ = self.changes.send(change);
    }
}
