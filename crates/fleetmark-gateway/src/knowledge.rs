//! What the gateway knows, how old it is, and who is told when it changes. Shared by every thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_domain::{Epoch, FleetName, Index, LedgerName, Standing};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState, IndexSet};
use fleetmark_ledger::state::ShortFingerprint;
use fleetmark_policy::Policies;
use rustls_pki_types::CertificateDer;
use tokio::sync::broadcast;

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
    /// Its epoch.
    pub epoch: Epoch,
    /// Its index.
    pub index: Index,
    /// SHA-256 over the certificate.
    pub fingerprint: [u8; 32],
}

/// The knowledge. Cheap to clone: one shared thing.
#[derive(Debug, Clone)]
pub struct Knowledge {}

impl Knowledge {
    /// The certificate at this place, if a followed ledger has one.
    pub fn certificate(&self, _epoch: Epoch, _index: Index) -> Option<Known> {
        todo!()
    }

    /// Has what is new fetched at once because a certificate is not known, and waits for it, at most `patience`. Bounded: at most
    /// one fetch at a time, and at most a few a second; who comes beyond that gets no wait.
    pub async fn refresh(&self, _patience: Duration) {
        todo!()
    }

    /// How far and how old; None for a ledger that is not followed.
    pub fn freshness(&self, _ledger: &LedgerName, _now: Instant) -> Option<Freshness> {
        todo!()
    }

    /// The sets that count for a fleet (None: for the installation alone); None while their text is not here.
    pub fn policies(&self, _fleet: Option<&FleetName>) -> Option<Arc<Policies>> {
        todo!()
    }

    /// Rises whenever policies or attributes change: answers kept under another number are void.
    pub fn policy_generation(&self) -> u64 {
        todo!()
    }

    /// A device's attributes; none where there are none or they are withheld.
    pub fn attributes(&self, _ledger: &LedgerName, _subject: u64) -> Arc<BTreeMap<String, String>> {
        todo!()
    }

    /// The ledgers followed, `system` first.
    pub fn ledgers(&self) -> Vec<LedgerName> {
        todo!()
    }

    /// Every authority with a certificate that may sign clients' certificates: prepared, active or tainted.
    pub fn authorities(&self) -> Vec<KnownAuthority> {
        todo!()
    }

    /// Told of every [`Change`]. A receiver that lags looks at everything.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        todo!()
    }

    /// Takes a sighting for the next report; bounded, repeated ones are dropped.
    pub fn saw(&self, _sighting: Sighting) {
        todo!()
    }
}
