//! The live connections, found by their certificate's place.

use std::collections::HashMap;
use std::net::IpAddr;
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
    }
}

/// The ranges ascend and are disjoint: only the last one that begins at or before the place can hold it.
fn contains(certificates: &IndexSet, (epoch, index): (Epoch, Index)) -> bool {
    let ranges = certificates.ranges();
    let after = ranges.partition_point(|range| (range.epoch, range.first) <= (epoch, index));
    let before = after.checked_sub(1).and_then(|at| ranges.get(at));
    before.is_some_and(|range| range.epoch == epoch && index.0.wrapping_sub(range.first.0) < range.count)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fleetmark_domain::{Fingerprint, Serial, Timestamp};

    use super::*;

    fn live(epoch: u32, index: u32) -> Live {
        let presented = Presented {
            serial: Some(Serial::new(Epoch(epoch), Index(index), [0; 8])),
            fingerprint: Fingerprint([0; 32]),
            identity: None,
            trust_domain: None,
            authority_key: Vec::new(),
            not_before: Timestamp(0),
            not_after: Timestamp(0),
            foreign: None,
        };
        Live::new(presented, Ipv4Addr::LOCALHOST.into(), None, &CancellationToken::new())
    }

    fn found(registry: &Registry, certificates: &IndexSet) -> Vec<(Epoch, Index)> {
        let mut found: Vec<_> = registry.of(certificates).iter().filter_map(|live| live.place()).collect();
        found.sort_unstable();
        found
    }

    /// Both ways of looking, against a plain search.
    #[test]
    fn exactly_the_named_ones_are_found() {
        let registry = Arc::new(Registry::default());
        let kept: Vec<_> = (0..10_000).map(|number| registry.register(live(1 + number % 3, number / 3 * 2))).collect();
        let sets: [Vec<(u32, u32)>; 5] = [
            vec![],
            vec![(1, 4)],
            vec![(1, 5), (2, 0), (3, 6_664), (4, 0)],
            (0..20_000).map(|index| (2, index)).collect(),
            (0..12_000).filter(|index| index % 5 != 0).map(|index| (3, index)).collect(),
        ];
        for set in sets {
            let set = IndexSet::from_certificates(set.into_iter().map(|(epoch, index)| (Epoch(epoch), Index(index))));
            let named: std::collections::BTreeSet<_> = set.certificates().collect();
            let mut expected: Vec<_> =
                kept.iter().filter_map(|kept| kept.place()).filter(|place| named.contains(place)).collect();
            expected.sort_unstable();
            assert_eq!(found(&registry, &set), expected);
        }
        drop(kept);
        assert!(registry.places().is_empty());
    }

    #[test]
    fn one_certificate_may_have_several_connections() {
        let registry = Arc::new(Registry::default());
        let (first, second) = (registry.register(live(1, 7)), registry.register(live(1, 7)));
        let set = IndexSet::from_certificates([(Epoch(1), Index(7))]);
        assert_eq!(registry.of(&set).len(), 2);
        drop(first);
        assert!(Arc::ptr_eq(&registry.of(&set)[0], &second.live));
        assert_eq!(registry.all().len(), 1);
    }
}
