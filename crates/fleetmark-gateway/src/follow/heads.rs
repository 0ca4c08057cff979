//! Signed heads: which one to reach next, and whether they contradict each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::Timestamp;
use fleetmark_ledger::merkle::{Frontier, Head};

use super::alarm::Alarm;
use crate::clock::{Moment, Received};

/// Servers that share a store sign side by side: for so long a newer signature may be over a head that another has outgrown.
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
    verified: Option<Signed>,
    target: Option<Target>,
    /// Heads between the verified one and the target, by size.
    crossing: BTreeMap<u64, Signed>,
}

impl Heads {
    pub(crate) fn new(verified: Option<Signed>) -> Self {
        Self { verified, ..Self::default() }
    }

    /// Entries must give this head when its size is reached, and no snapshot may skip it.
    pub(crate) fn must_cross(&mut self, signed: Signed) {
        self.crossing.insert(signed.head.size, signed);
    }

    /// Whether a head must be seen on the way.
    pub(crate) fn crosses(&self) -> bool {
        !self.crossing.is_empty()
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
        let Some(newest) = self.target.as_ref().map(|target| &target.signed).or(self.verified.as_ref()) else {
            return self.aim(next);
        };
        let contradiction = |alarm| Judged::Contradicts(alarm, Box::new(newest.clone()));
        let (old, new) = (newest.head, next.signed.head);
        if new.size == old.size && new.root != old.root {
            return contradiction(Alarm::Fork);
        }
        if new.size < old.size {
            let stepped_back = next.signed.at.since(newest.at) > SIDE_BY_SIDE;
            return if stepped_back { contradiction(Alarm::Rollback) } else { Judged::Old };
        }
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
        match self.crossing.get(&frontier.size()) {
            Some(signed) if signed.head.root != frontier.head().root => Err(Box::new(signed.clone())),
            _ => Ok(()),
        }
    }

    /// The head was reached.
    pub(crate) fn reached(&mut self, target: &Target) {
        self.crossing = self.crossing.split_off(&target.signed.head.size.saturating_add(1));
        if self.target.as_ref().is_some_and(|current| current.signed.head == target.signed.head) {
            // Signed again in the meantime: the newer time is the one to keep.
            self.verified = self.target.take().map(|current| current.signed);
        } else {
            self.verified = Some(target.signed.clone());
        }
    }
}
