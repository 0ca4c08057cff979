//! Signed heads: which one to reach next, and whether they contradict each other.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::Timestamp;
use fleetmark_ledger::merkle::{Frontier, Head};

use super::alarm::Alarm;
use crate::clock::{Moment, Received};

/// Where one server takes over from another: for so long a newer signature may be over a head that the other has outgrown.
/// Such a checkpoint makes nothing fresh.
const SIDE_BY_SIDE: Duration = Duration::from_secs(10);
/// The most heads that are compared on the way to the newest.
const MAX_CROSSING: usize = 64;

/// A head, and the note that states it; its signatures were checked.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) head: Head,
    pub(crate) at: Timestamp,
    pub(crate) note: Arc<str>,
}

/// The newest signed head, and how old it was when it came.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) signed: Signed,
    pub(crate) age: Duration,
    pub(crate) moment: Moment,
}

impl Target {
    pub(crate) const fn received(&self) -> Received {
        Received::new(self.signed.at, self.age, self.moment)
    }
}

/// What a checkpoint says beside those before it.
#[derive(Debug, Clone)]
pub(crate) enum Judged {
    /// The head that is verified already, signed again: knowledge is fresh.
    Fresh,
    /// There are entries to fetch.
    Further,
    /// Nothing new.
    Old,
    /// It contradicts this one.
    Contradicts(Alarm, Box<Signed>),
}

/// What was signed so far.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// What an operator's word for a restored server names, until it is passed: nothing smaller counts.
    named: Option<Signed>,
    verified: Option<Signed>,
    target: Option<Target>,
    /// Heads between the verified one and the target, by size.
    crossing: BTreeMap<u64, Signed>,
}

impl Heads {
    /// Entries must give the `named` head when its size is reached, no snapshot may skip it, and no smaller ledger counts.
    pub(crate) fn new(verified: Option<Signed>, named: Option<Signed>) -> Self {
        let size = verified.as_ref().map_or(0, |verified| verified.head.size);
        Self { named: named.filter(|named| named.head.size > size), verified, ..Self::default() }
    }

    /// Whether a head must be seen on the way.
    pub(crate) fn crosses(&self) -> bool {
        self.named.is_some() || !self.crossing.is_empty()
    }

    /// The head to reach.
    pub(crate) fn target(&self) -> Option<Target> {
        self.target.clone()
    }

    /// The newest head that was verified.
    pub(crate) const fn verified(&self) -> Option<&Signed> {
        self.verified.as_ref()
    }

    /// Judges a checkpoint against the newest one.
    pub(crate) fn judge(&mut self, next: Target) -> Judged {
        if let Some(judged) = self.named.as_ref().and_then(|named| beside(named, &next.signed)) {
            return judged;
        }
        let Some(newest) = self.target.as_ref().map(|target| &target.signed).or(self.verified.as_ref()) else {
            return self.aim(next);
        };
        if let Some(judged) = beside(newest, &next.signed) {
            return judged;
        }
        let (old, new) = (newest.head, next.signed.head);
        if next.signed.at < newest.at {
            if new.size > old.size {
                Alarm::TimeWentBack.raise(None, "a checkpoint of a longer ledger is signed at an earlier time");
            }
            return Judged::Old;
        }
        if new.size == old.size && next.signed.at == newest.at {
            return Judged::Old;
        }
        self.aim(next)
    }

    fn aim(&mut self, next: Target) -> Judged {
        if self.verified.as_ref().is_some_and(|verified| verified.head == next.signed.head) {
            self.verified = Some(next.signed);
            self.target = None;
            return Judged::Fresh;
        }
        if let Some(passed) = self.target.replace(next)
            && self.crossing.len() < MAX_CROSSING
        {
            self.crossing.insert(passed.signed.head.size, passed.signed);
        }
        Judged::Further
    }

    /// Whether the tree at this size is what was signed; the head that it contradicts otherwise.
    pub(crate) fn check(&self, frontier: &Frontier) -> Result<(), Box<Signed>> {
        let named = self.named.as_ref().filter(|named| named.head.size == frontier.size());
        let mut signed = self.crossing.get(&frontier.size()).into_iter().chain(named);
        signed.find(|signed| signed.head != frontier.head()).map_or(Ok(()), |signed| Err(Box::new(signed.clone())))
    }

    /// The head was reached.
    pub(crate) fn reached(&mut self, target: &Target) {
        self.crossing = self.crossing.split_off(&target.signed.head.size.saturating_add(1));
        self.named.take_if(|named| named.head.size <= target.signed.head.size);
        if self.target.as_ref().is_some_and(|current| current.signed.head == target.signed.head) {
            // Signed again in the meantime: the newer time is the one to keep.
            self.verified = self.target.take().map(|current| current.signed);
        } else {
            self.verified = Some(target.signed.clone());
        }
    }
}

/// What a head is that cannot follow on one that counts; None where it can.
fn beside(old: &Signed, new: &Signed) -> Option<Judged> {
    let contradiction = |alarm| Some(Judged::Contradicts(alarm, Box::new(old.clone())));
    match new.head.size.cmp(&old.head.size) {
        Ordering::Equal if new.head.root != old.head.root => contradiction(Alarm::Fork),
        Ordering::Less if new.at.since(old.at) > SIDE_BY_SIDE => contradiction(Alarm::Rollback),
        Ordering::Less => Some(Judged::Old),
        Ordering::Equal | Ordering::Greater => None,
    }
}

#[cfg(test)]
mod tests {
    use fleetmark_ledger::merkle::Hash;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn signed(size: u64, root: u8, after: i64) -> Signed {
        Signed { head: Head { size, root: Hash([root; 32]) }, at: Timestamp(NOW + after), note: "".into() }
    }

    fn target(size: u64, root: u8, after: i64) -> Target {
        let moment = Moment::of(&crate::clock::SystemClock);
        Target { signed: signed(size, root, after), age: Duration::ZERO, moment }
    }

    #[test]
    fn nothing_below_the_named_head_counts_until_it_is_passed() {
        let heads = || Heads::new(None, Some(signed(5_000, 1, 0)));
        assert!(matches!(heads().judge(target(3_000, 7, 11)), Judged::Contradicts(Alarm::Rollback, _)));
        assert!(matches!(heads().judge(target(3_000, 7, 9)), Judged::Old), "it was under way");
        assert!(matches!(heads().judge(target(5_000, 2, 11)), Judged::Contradicts(Alarm::Fork, _)));
        // The clock of whoever gave the word may be ahead.
        for next in [target(5_000, 1, -60), target(5_001, 3, -60)] {
            let mut heads = heads();
            assert!(heads.crosses() && matches!(heads.judge(next.clone()), Judged::Further));
            heads.reached(&next);
            assert!(!heads.crosses());
        }
        assert!(!Heads::new(Some(signed(5_000, 1, 0)), Some(signed(5_000, 1, 0))).crosses(), "it was passed before");
    }

    #[test]
    fn another_head_of_the_named_size_does_not_take_its_place() {
        let mut heads = Heads::new(None, Some(signed(1, 1, 0)));
        assert!(matches!(heads.judge(target(2, 2, 1)), Judged::Further));
        assert!(matches!(heads.judge(target(3, 3, 2)), Judged::Further));
        let mut frontier = Frontier::default();
        frontier.append(Hash([9; 32]), |_, _| {});
        assert!(heads.check(&frontier).is_err());
    }
}
