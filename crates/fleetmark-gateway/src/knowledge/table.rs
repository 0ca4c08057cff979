//! One ledger's part of the knowledge.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fleetmark_domain::{Epoch, Index, LedgerName};
pub(crate) use fleetmark_ledger::state::State;
use fleetmark_ledger::state::{ActivePolicy, Authority, Holding};
use fleetmark_policy::Set;

use super::pushed::Pushed;
use super::{Freshness, KnownExternal};
use crate::clock::{Clock, Received};
use crate::disk::Attributes;

/// A followed ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) name: LedgerName,
    table: RwLock<Table>,
}

/// What is known of it. All of `state` is verified.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) state: State,
    pub(crate) pushed: Pushed,
    /// The newest verified checkpoint; None before the first, and after a restart at which no clock could be believed.
    pub(crate) received: Option<Received>,
    pub(crate) max_age: Duration,
    /// A fork, a gap or a step back was seen.
    pub(crate) broken: bool,
    /// The active policy set, compiled; None while its text is not here or does not compile.
    pub(crate) set: Option<Arc<Set>>,
    /// The set that `set` was compiled from, or was tried to be.
    pub(crate) compiled: Option<ActivePolicy>,
    pub(crate) attributes: Attributes,
}

impl Ledger {
    pub(crate) fn new(name: LedgerName, table: Table) -> Self {
        Self { name, table: RwLock::new(table) }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    pub(crate) fn new(state: State, max_age: Duration) -> Self {
        let (pushed, attributes) = (Pushed::default(), HashMap::new());
        Self { state, pushed, received: None, max_age, broken: false, set: None, compiled: None, attributes }
    }

    /// The certificate at a place with its pushed standing, and the authority of its epoch.
    pub(crate) fn certificate(&self, epoch: Epoch, index: Index) -> Option<(Holding, Option<u32>)> {
        let mut holding = self.state.certificate(epoch, index)?;
        holding.standing = self.pushed.standing(epoch, index, holding.standing);
        Some((holding, self.state.authority_of(epoch)))
    }

    /// An authority with its pushed state.
    pub(crate) fn authority(&self, id: u32) -> Option<Authority> {
        let mut authority = self.state.authority(id)?;
        authority.state = self.pushed.authority(id, authority.state);
        Some(authority)
    }

    /// An external authority with its pushed state.
    pub(crate) fn external(&self, id: u32) -> Option<KnownExternal> {
        let external = self.state.external(id)?;
        Some(KnownExternal { state: self.pushed.external(id, external.state), naming: external.naming.clone() })
    }

    pub(crate) fn attributes(&self, subject: u64) -> Option<Arc<BTreeMap<String, String>>> {
        self.attributes.get(&subject).cloned()
    }

    pub(crate) fn freshness(&self, now: Instant, clock: &dyn Clock) -> Freshness {
        let position = self.state.frontier().size();
        let age = self.received.map_or(Duration::MAX, |received| received.age(now, clock));
        Freshness { position, age, max_age: self.max_age, broken: self.broken || position == 0 }
    }
}
