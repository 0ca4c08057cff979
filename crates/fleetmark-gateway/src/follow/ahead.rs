//! A policy set's text, fetched when its activation is pushed, so that it is here when the proof is. It counts with the proof.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleetmark_ledger::state::ActivePolicy;
use fleetmark_policy::MAX_TEXT;

use super::Shared;
use super::client::Trouble;
use super::worker::Worker;
use crate::disk::sha256;

/// Between two fetches: of many activations, the newest is fetched, and what comes sooner comes with its proof.
const PAUSE: Duration = Duration::from_millis(250);
/// The proof is not kept waiting longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was pushed, and what was fetched for it.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    wanted: Option<(u64, ActivePolicy)>,
    here: Option<(ActivePolicy, String)>,
    fetched: Option<Instant>,
}

impl Ahead {
    /// A set was said to be activated at `position`; returns whether that is news.
    fn want(&mut self, position: u64, active: ActivePolicy) -> bool {
        let is_here = self.here.as_ref().is_some_and(|(here, _)| *here == active);
        let is_newest = self.wanted.is_none_or(|(newest, _)| position > newest);
        if is_here || !is_newest {
            return false;
        }
        self.wanted = Some((position, active));
        true
    }

    /// The set to fetch; none when the last fetch was a moment ago.
    fn due(&mut self, now: Instant) -> Option<ActivePolicy> {
        let (_, wanted) = self.wanted.take()?;
        if self.fetched.is_some_and(|fetched| now.saturating_duration_since(fetched) < PAUSE) {
            return None;
        }
        self.fetched = Some(now);
        Some(wanted)
    }

    /// The text of this set, if it is here. Whatever else is here is of no use any more.
    pub(super) fn take(&mut self, active: ActivePolicy) -> Option<String> {
        self.here.take().filter(|(here, _)| *here == active).map(|(_, text)| text)
    }
}

impl Worker {
    pub(super) fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An activation was pushed.
    pub(super) fn expect_policy(&self, position: u64, active: ActivePolicy) {
        if position >= self.size() && self.ahead().want(position, active) {
            self.wake();
        }
    }

    /// Fetches the text that is expected. Where that fails the proof does it again, and says why.
    pub(super) async fn get_policy_ahead(&self, shared: &Shared) {
        let Some(active) = self.ahead().due(shared.clock.now()) else {
            return;
        };
        if let Ok(Ok(Some(text))) = tokio::time::timeout(PATIENCE, self.text(shared, active)).await {
            self.ahead().here = Some((active, text));
        }
    }

    /// The text, where it is the one that was pushed.
    async fn text(&self, shared: &Shared, active: ActivePolicy) -> Result<Option<String>, Trouble> {
        let octets = shared.client.get(&self.policy_path(active), &[], MAX_TEXT).await?;
        let is_it = sha256(&octets).0 == active.hash;
        Ok(String::from_utf8(octets).ok().filter(|_| is_it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(version: u64) -> ActivePolicy {
        ActivePolicy { version, hash: [u8::try_from(version).unwrap(); 32] }
    }

    #[test]
    fn of_a_burst_the_newest_is_fetched_and_no_more_than_one_at_a_time() {
        let (mut ahead, start) = (Ahead::default(), Instant::now());
        assert!((0..100).all(|version| ahead.want(version, set(version))));
        assert!(!ahead.want(50, set(50)), "an older one");
        assert_eq!(ahead.due(start), Some(set(99)));
        assert_eq!(ahead.due(start), None, "nothing is wanted");
        for version in 100..200 {
            ahead.want(version, set(version));
            assert_eq!(ahead.due(start + PAUSE / 2), None, "too soon");
        }
        ahead.want(200, set(200));
        assert_eq!(ahead.due(start + PAUSE), Some(set(200)));
    }

    #[test]
    fn what_is_here_counts_for_its_own_set() {
        let mut ahead = Ahead { here: Some((set(1), "text".to_owned())), ..Ahead::default() };
        assert!(!ahead.want(9, set(1)), "it is here");
        assert_eq!(ahead.take(set(1)), Some("text".to_owned()));
        ahead.here = Some((set(1), "text".to_owned()));
        assert_eq!(ahead.take(set(2)), None);
        assert_eq!(ahead.take(set(1)), None, "it was thrown away");
    }
}
