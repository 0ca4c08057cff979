//! The server's side of the ledgers: their keys, and the newest signed checkpoint of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetmark_domain::{LedgerName, Timestamp};
use fleetmark_ledger::merkle::Head;
use fleetmark_ledger::note::{LedgerKey, VerifierKey};
use tokio::sync::watch;

use crate::store::HeadSigner;
use crate::telemetry::clock::SharedClock;

/// Signs heads after their commit, and keeps the newest checkpoint of every ledger.
pub struct Publisher {
    ledgers: Mutex<BTreeMap<LedgerName, Signed>>,
    clock: SharedClock,
    /// Rises with every commit that appended to a ledger; views that must be made anew wait for it.
    commits: watch::Sender<u64>,
}

/// A ledger's key and its newest signed head.
struct Signed {
    key: LedgerKey,
    head: Option<Head>,
    checkpoint: Option<Arc<str>>,
}

impl Publisher {
    /// A publisher without ledgers.
    pub fn new(clock: SharedClock) -> Self {
        Self { ledgers: Mutex::default(), clock, commits: watch::Sender::new(0) }
    }

    /// Takes a ledger on, with its key and, where it has entries, its durable head, which is signed at once: a crash
    /// between a commit and its signature is made good here.
    pub fn add(&self, ledger: LedgerName, key: LedgerKey, head: Option<Head>) {
        let checkpoint = head.map(|head| Arc::from(key.sign(&head, self.clock.now())));
        self.lock().insert(ledger, Signed { key, head, checkpoint });
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self, ledger: &LedgerName) -> Option<Arc<str>> {
        self.lock().get(ledger)?.checkpoint.clone()
    }

    /// The key that verifies a ledger's checkpoints.
    pub fn verifier(&self, ledger: &LedgerName) -> Option<VerifierKey> {
        Some(self.lock().get(ledger)?.key.verifier())
    }

    /// Signs every head again, so that a follower can tell a quiet ledger from a dead server.
    pub fn heartbeat(&self, now: Timestamp) {
        for signed in self.lock().values_mut() {
            signed.checkpoint = signed.head.map(|head| Arc::from(signed.key.sign(&head, now)));
        }
    }

    /// Told after every commit that appended to a ledger.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LedgerName, Signed>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeadSigner for Publisher {
    fn committed(&self, ledger: &LedgerName, head: &Head) {
        let now = self.clock.now();
        if let Some(signed) = self.lock().get_mut(ledger)
            // A head that is behind the newest signed one is never signed: that would be a step back.
            && signed.head.is_none_or(|newest| newest.size < head.size)
        {
            signed.checkpoint = Some(Arc::from(signed.key.sign(head, now)));
            signed.head = Some(*head);
        }
        self.commits.send_modify(|count| *count += 1);
    }
}
