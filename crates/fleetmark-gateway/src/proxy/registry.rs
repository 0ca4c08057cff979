//! The live connections, found by their certificate's place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use fleetmark_domain::{Epoch, Index, LedgerName};
use fleetmark_ledger::entry::IndexSet;
use tokio_util::sync::CancellationToken;

use super::CutReason;
use crate::judge::Presented;

/// One live connection, as those see it who judge it again.
#[derive(Debug)]
pub(super) struct Live {
    /// The certificate that it was opened with.
    pub(super) presented: Presented,
    /// Where it comes from.
    pub(super) source: IpAddr,
    /// The ledger that it was allowed by.
    pub(super) ledger: Option<LedgerName>,
    cut: CancellationToken,
    why: OnceLock<Why>,
}

/// Why a connection was cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why {
    pub(super) reason: CutReason,
    /// When the news came that it was cut for; None where it was not for news.
    pub(super) since: Option<Instant>,
}

impl Live {
    /// `ending` cuts it too.
    pub(super) fn new(presented: Presented, source: IpAddr, ledger: Option<LedgerName>, ending: &CancellationToken) -> Self {
        Self { presented, source, ledger, cut: ending.child_token(), why: OnceLock::new() }
    }

    /// Has it cut. The first reason counts.
    pub(super) fn cut(&self, reason: CutReason, since: Option<Instant>) {
        // An error says that it is being cut already.
        let _ = self.why.set(Why { reason, since });
        self.cut.cancel();
    }

    /// Ready once it is to be cut.
    pub(super) async fn told_to_end(&self) -> Why {
        self.cut.cancelled().await;
        self.why.get().copied().unwrap_or(Why { reason: CutReason::Stopped, since: None })
    }

    /// Its place in the time over which connections of a stale ledger are cut, from 0 to 1: by the certificate's
    /// fingerprint, which is as good as chance.
    pub(super) fn turn(&self) -> f64 {
        let [a, b, c, d, ..] = *self.presented.fingerprint.octets();
        f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
    }

    fn place(&self) -> Option<(Epoch, Index)> {
        self.presented.serial.map(|serial| (serial.epoch(), serial.index()))
    }
}

type Places = HashMap<Option<(Epoch, Index)>, Vec<Arc<Live>>>;

/// All of a listener's.
#[derive(Debug, Default)]
pub(super) struct Registry {
    places: Mutex<Places>,
    count: AtomicUsize,
}

/// A connection that is in the registry until this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    live: Arc<Live>,
}

impl Registry {
    /// From now on news finds it.
    pub(super) fn register(self: &Arc<Self>, live: Live) -> Registered {
        let live = Arc::new(live);
        self.places().entry(live.place()).or_default().push(Arc::clone(&live));
        self.count.fetch_add(1, Ordering::Relaxed);
        Registered { registry: Arc::clone(self), live }
    }

    /// Those with one of these certificates: by looking up each certificate, or at each connection, whichever is less work.
    pub(super) fn of(&self, certificates: &IndexSet) -> Vec<Arc<Live>> {
        let places = self.places();
        if usize::try_from(certificates.len()).is_ok_and(|count| count <= places.len()) {
            return certificates.certificates().filter_map(|place| places.get(&Some(place))).flatten().cloned().collect();
        }
        let named = |place: &Option<(Epoch, Index)>| place.is_some_and(|place| contains(certificates, place));
        places.iter().filter(|(place, _)| named(place)).flat_map(|(_, live)| live).cloned().collect()
    }

    /// All.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.places().values().flatten().cloned().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Registered {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let place = self.live.place();
        let mut places = self.registry.places();
        if let Some(there) = places.get_mut(&place) {
            there.retain(|live| !Arc::ptr_eq(live, &self.live));
            if there.is_empty() {
                places.remove(&place);
            }
        }
        self.registry.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The ranges ascend and are disjoint: only the last one that begins at or before the place can hold it.
fn contains(certificates: &IndexSet, (epoch, index): (Epoch, Index)) -> bool {
    let ranges = certificates.ranges();
    let after = ranges.partition_point(|range| (range.epoch, range.first) <= (epoch, index));
    let before = after.checked_sub(1).and_then(|at| ranges.get(at));
    before.is_some_and(|range| range.epoch == epoch && index.0.wrapping_sub(range.first.0) < range.count)
}
