//! Who waits for a fetch, and how often one may be asked for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// Fetches that callers may ask for within [`WINDOW`].
const PER_WINDOW: u32 = 4;
const WINDOW: Duration = Duration::from_secs(1);

/// Fetches are numbered from 1. One that began after a caller asked has what the server had when it asked.
#[derive(Debug)]
pub(crate) struct Fetching {
    turn: Mutex<Turn>,
    wanted: Notify,
    finished: watch::Sender<u64>,
}

#[derive(Debug)]
struct Turn {
    begun: u64,
    wanted: bool,
    window: Instant,
    used: u32,
}

impl Fetching {
    pub(crate) fn new(now: Instant) -> Self {
        let turn = Turn { begun: 0, wanted: false, window: now, used: 0 };
        Self { turn: Mutex::new(turn), wanted: Notify::new(), finished: watch::Sender::new(0) }
    }

    /// Asks for a fetch and waits for its end, at most `patience`; returns at once when too many were asked for.
    pub(crate) async fn ask(&self, now: Instant, patience: Duration) {
        let Some(number) = self.number(now) else {
            return;
        };
        let mut finished = self.finished.subscribe();
        // Patience ended, or the follower did: either way the caller judges by what is here.
        let _ = tokio::time::timeout(patience, finished.wait_for(|finished| *finished >= number)).await;
    }

    fn number(&self, now: Instant) -> Option<u64> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !turn.wanted {
            if now.saturating_duration_since(turn.window) >= WINDOW {
                (turn.window, turn.used) = (now, 0);
            }
            if turn.used >= PER_WINDOW {
                return None;
            }
            turn.used += 1;
            turn.wanted = true;
            self.wanted.notify_one();
        }
        Some(turn.begun + 1)
    }

    /// Waits until somebody asks.
    pub(crate) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// A fetch of every ledger begins; whoever asks from now on waits for the next one.
    pub(crate) fn begin(&self) -> u64 {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.wanted = false;
        turn.begun += 1;
        turn.begun
    }

    /// The fetch with this number ended, well or not.
    pub(crate) fn finish(&self, number: u64) {
        self.finished.send_modify(|finished| *finished = number.max(*finished));
    }

    /// Whether a fetch is asked for and has not begun.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_wanted(&self) -> bool {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).wanted
    }
}
