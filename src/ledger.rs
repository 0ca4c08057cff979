//! The server's side of the ledgers: their keys, the newest signed checkpoint of each, and the news for those who follow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetmark_domain::{LedgerName, Timestamp};
use fleetmark_ledger::merkle::Head;
use fleetmark_ledger::note::{LedgerKey, VerifierKey};
use tokio::sync::{broadcast, watch};

use crate::store::HeadSigner;
use crate::store::model::StoredEntry;
use crate::telemetry::clock::SharedClock;

/// So many news are kept for a follower that is slow; one that is further behind missed some. They are kept once for all.
const NEWS_KEPT: usize = 1_024;

/// So far ahead of a clock that was set back times go on; gateways take what is signed up to five minutes ahead.
const MOST_AHEAD: Duration = Duration::from_secs(240);
const SECOND: Duration = Duration::from_secs(1);

/// What followers are told.
#[derive(Debug, Clone)]
pub enum News {
    /// An urgent entry, durable; the checkpoint that covers it is signed and follows.
    Urgent {
        /// Where.
        ledger: LedgerName,
        /// Its position, from 0.
        position: u64,
        /// CBOR.
        entry: Arc<[u8]>,
    },
    /// A signed checkpoint, the newest.
    Checkpoint {
        /// Of which ledger.
        ledger: LedgerName,
        /// The size that it states.
        size: u64,
        /// The signed note.
        note: Arc<str>,
    },
}

/// A checkpoint as it was signed.
#[derive(Debug, Clone)]
pub struct SignedHead {
    /// Size and root.
    pub head: Head,
    /// When it was signed, as the note says.
    pub at: Timestamp,
    /// The signed note.
    pub note: Arc<str>,
}

/// Signs heads after their commit, keeps the newest checkpoint of every ledger, and tells who follows.
pub struct Publisher {
    ledgers: Mutex<BTreeMap<LedgerName, Signed>>,
    clock: SharedClock,
    /// Rises with every commit that appended to a ledger; views that must be made anew wait for it.
    commits: watch::Sender<u64>,
    news: broadcast::Sender<News>,
}

/// A ledger's key and its newest signed head.
struct Signed {
    key: LedgerKey,
    newest: Option<SignedHead>,
    /// Whether `newest` was told to followers.
    is_told: bool,
}

impl Signed {
    /// Signs at a time that is not before the last one, where the clock was set back by little. Returns whether it was set back by more.
    fn sign(&mut self, head: Head, now: Timestamp) -> bool {
        let last = self.newest.as_ref().filter(|last| last.at > now);
        let goes_back = last.is_some_and(|last| last.at > now + MOST_AHEAD);
        let at = match last {
            // The same head signed later, if by a second only: to who follows it is fresh. The clock catches up between heartbeats.
            Some(last) if !goes_back && last.head == head => (last.at + SECOND).min(now + MOST_AHEAD),
            Some(last) if !goes_back => last.at,
            _ => now,
        };
        self.newest = Some(SignedHead { head, at, note: Arc::from(self.key.sign(&head, at)) });
        self.is_told = false;
        goes_back
    }
}

impl Publisher {
    /// A publisher without ledgers.
    pub fn new(clock: SharedClock) -> Self {
        Self { ledgers: Mutex::default(), clock, commits: watch::Sender::new(0), news: broadcast::Sender::new(NEWS_KEPT) }
    }

    /// Takes a ledger on, with its key and, where it has entries, its durable head, which is signed at once: a crash
    /// between a commit and its signature is made good here.
    pub fn add(&self, ledger: LedgerName, key: LedgerKey, head: Option<Head>) {
        let mut signed = Signed { key, newest: None, is_told: false };
        if let Some(head) = head {
            signed.sign(head, self.clock.now());
        }
        self.lock().insert(ledger, signed);
    }

    /// The newest signed checkpoint.
    pub fn checkpoint(&self, ledger: &LedgerName) -> Option<Arc<str>> {
        self.newest(ledger).map(|newest| newest.note)
    }

    /// The newest signed head, with its checkpoint.
    pub fn newest(&self, ledger: &LedgerName) -> Option<SignedHead> {
        self.lock().get(ledger)?.newest.clone()
    }

    /// How many entries the newest checkpoint covers.
    pub fn size(&self, ledger: &LedgerName) -> Option<u64> {
        Some(self.lock().get(ledger)?.newest.as_ref()?.head.size)
    }

    /// The key that verifies a ledger's checkpoints.
    pub fn verifier(&self, ledger: &LedgerName) -> Option<VerifierKey> {
        Some(self.lock().get(ledger)?.key.verifier())
    }

    /// Signs every head again and tells it, so that a follower can tell a quiet ledger from a dead server.
    pub fn heartbeat(&self, now: Timestamp) {
        let mut goes_back = false;
        for (ledger, signed) in &mut *self.lock() {
            if let Some(head) = signed.newest.as_ref().map(|newest| newest.head) {
                goes_back |= signed.sign(head, now);
                self.tell(ledger, signed);
            }
        }
        alarm_if(goes_back);
    }

    /// Tells the checkpoints that were signed since the last time. Called after commits, at most every 200 ms: many commits
    /// are one piece of news.
    pub fn announce(&self) {
        for (ledger, signed) in &mut *self.lock() {
            self.tell(ledger, signed);
        }
    }

    /// The newest signed heads of these ledgers, as far as they are here, and the news from exactly there on. A receiver
    /// that is more than 1,024 news behind is told that it missed some; no receiver keeps a commit waiting.
    pub fn follow<'a>(
        &self,
        ledgers: impl IntoIterator<Item = &'a LedgerName>,
    ) -> (BTreeMap<LedgerName, SignedHead>, broadcast::Receiver<News>) {
        let all = self.lock();
        let newest = |name: &LedgerName| Some((name.clone(), all.get(name)?.newest.clone()?));
        let heads = ledgers.into_iter().filter_map(newest).collect();
        // Under the lock, under which all news are sent.
        (heads, self.news.subscribe())
    }

    /// Told after every commit that was about a ledger.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Under the lock, so that checkpoints are told in the order of their sizes.
    fn tell(&self, ledger: &LedgerName, signed: &mut Signed) {
        if let Some(newest) = &signed.newest
            && !signed.is_told
        {
            let (size, note) = (newest.head.size, newest.note.clone());
            // Nobody follows: nobody need be told.
            let _ = self.news.send(News::Checkpoint { ledger: ledger.clone(), size, note });
            signed.is_told = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LedgerName, Signed>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeadSigner for Publisher {
    fn committed(&self, ledger: &LedgerName, head: &Head, urgent: &[StoredEntry]) {
        let now = self.clock.now();
        let mut ledgers = self.lock();
        let signed = ledgers.get_mut(ledger);
        if signed.is_none() {
            alarm(
                "ledger_not_signed",
                &format!("ledger {ledger}: its key is not known here, and {} entries are durable", head.size),
            );
        }
        if let Some(signed) = signed
            // A head that is behind the newest signed one is never signed: that would be a step back. Nor is the same one again.
            && signed.newest.as_ref().is_none_or(|newest| newest.head.size < head.size)
        {
            alarm_if(signed.sign(*head, now));
            for stored in urgent {
                let entry = Arc::from(stored.entry.as_slice());
                // Nobody follows: nobody need be told.
                let _ = self.news.send(News::Urgent { ledger: ledger.clone(), position: stored.position, entry });
            }
            if !urgent.is_empty() {
                self.tell(ledger, signed);
            }
        }
        drop(ledgers);
        self.commits.send_modify(|count| *count += 1);
    }
}

fn alarm_if(goes_back: bool) {
    if goes_back {
        let what = "the clock was set back by more than four minutes: gateways take no checkpoint until it is where it was";
        alarm("clock_set_back", what);
    }
}

/// Something that a person should look at: logged as a warning, counted by name.
fn alarm(name: &'static str, what: &str) {
    metrics::counter!("fleetmark_alarms_total", "alarm" => name).increment(1);
    tracing::warn!(alarm = name, what);
}

#[cfg(test)]
mod tests;
