//! Looks again at live connections: at once for news, over time when knowledge grows old, and each minute for policies that
//! speak of the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_domain::LedgerName;
use fleetmark_policy::Act;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::registry::{Live, Registry};
use super::trust::Trust;
use super::{CutReason, WallClock};
use crate::judge::{Judge, Reason, Verdict, Wanted};
use crate::knowledge::{Change, Freshness, Knowledge};

/// All are looked at again after so long without news.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// So many are judged before others get their turn on the thread.
const SLICE: usize = 64;
/// How often it is asked at most, and at least, whether a ledger has become stale.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Connections of a stale ledger are cut over this part of the ledger's greatest age.
const STALE_PART: f64 = 0.1;

/// Who judges live connections again.
pub(super) struct Watcher {
    pub(super) judge: Judge,
    pub(super) knowledge: Knowledge,
    pub(super) clock: WallClock,
    pub(super) protocol: Option<String>,
    pub(super) registry: Arc<Registry>,
    pub(super) trust: Arc<Trust>,
    /// [`EVERY`], but in tests.
    pub(super) every: Duration,
}

impl Watcher {
    /// Runs until it is dropped.
    pub(super) async fn run(self: Arc<Self>, changes: Receiver<Change>) {
        let (again, news) = watch::channel(None);
        tokio::join!(self.hear(changes, again), self.sweep(news), self.age());
    }

    /// What `live` wants, as it did when it came.
    pub(super) fn judge(&self, live: &Live) -> Verdict {
        let protocol = self.protocol.as_deref();
        let wanted =
            Wanted { act: Act::Connect, topic: None, source: Some(live.source), protocol, firmware: None, shown: true };
        self.judge.judge(&live.presented, &wanted, (self.clock)())
    }

    /// Worsened certificates are looked at here and now; what concerns all is left to [`Self::sweep`], so that the next
    /// revocation does not wait for it.
    async fn hear(&self, mut changes: Receiver<Change>, again: watch::Sender<Option<Instant>>) {
        loop {
            match changes.recv().await {
                Ok(Change::Worsened { certificates, .. }) => {
                    let since = Instant::now();
                    self.judge_again(self.registry.of(&certificates), Some(since)).await;
                }
                Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                    self.trust.refresh();
                    again.send_replace(Some(Instant::now()));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn sweep(&self, mut news: watch::Receiver<Option<Instant>>) {
        loop {
            let since = match timeout(self.every, news.changed()).await {
                Ok(Ok(())) => *news.borrow_and_update(),
                Ok(Err(_)) => {
                    sleep(self.every).await;
                    None
                }
                Err(_) => None,
            };
            self.trust.refresh();
            self.judge_again(self.registry.all(), since).await;
        }
    }

    async fn judge_again(&self, connections: Vec<Arc<Live>>, since: Option<Instant>) {
        for slice in connections.chunks(SLICE) {
            for live in slice {
                self.look_at(live, since);
            }
            yield_now().await;
        }
    }

    fn look_at(&self, live: &Live, since: Option<Instant>) {
        let verdict = self.judge(live);
        let keep = verdict.allow || (verdict.reason == Reason::LedgerStale && !self.is_due(live));
        if !keep {
            live.cut(CutReason::Denied(verdict.reason), since);
        }
    }

    /// Whether the turn of `live` has come, if its ledger is stale. One that is stale for the judge and not here is due.
    fn is_due(&self, live: &Live) -> bool {
        let now = Instant::now();
        let ledgers = [Some(&LedgerName::System), live.ledger.as_ref()];
        let overdue = ledgers.into_iter().flatten().filter_map(|ledger| self.overdue(ledger, now));
        overdue.reduce(f64::max).is_none_or(|overdue| live.turn() <= overdue)
    }

    /// How much of the time over which its connections are cut is over, of a stale ledger; 1 is all of it.
    fn overdue(&self, ledger: &LedgerName, now: Instant) -> Option<f64> {
        let freshness = self.knowledge.freshness(ledger, now).filter(Freshness::is_stale)?;
        let over = freshness.age.saturating_sub(freshness.max_age).as_secs_f64();
        Some(over / (freshness.max_age.as_secs_f64() * STALE_PART))
    }

    /// Cuts connections of stale ledgers, each at its turn.
    async fn age(&self) {
        loop {
            let now = Instant::now();
            sleep(self.next_look(now)).await;
            let now = Instant::now();
            if self.knowledge.ledgers().iter().any(|ledger| self.overdue(ledger, now).is_some()) {
                let due = self.registry.all().into_iter().filter(|live| self.is_due_by_age(live, now)).collect();
                self.judge_again(due, None).await;
            }
        }
    }

    fn is_due_by_age(&self, live: &Live, now: Instant) -> bool {
        let ledgers = [Some(&LedgerName::System), live.ledger.as_ref()];
        ledgers.into_iter().flatten().filter_map(|ledger| self.overdue(ledger, now)).any(|overdue| live.turn() <= overdue)
    }

    /// Until a ledger becomes stale, or until the next few of a stale one have their turn.
    fn next_look(&self, now: Instant) -> Duration {
        let (least, most) = LOOKS;
        let until = |ledger: &LedgerName| {
            let freshness = self.knowledge.freshness(ledger, now)?;
            let part = freshness.max_age.mul_f64(STALE_PART / 32.0);
            Some(if freshness.is_stale() { part } else { freshness.max_age.saturating_sub(freshness.age) })
        };
        self.knowledge.ledgers().iter().filter_map(until).min().unwrap_or(most).clamp(least, most)
    }
}
