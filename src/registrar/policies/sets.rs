//! Policy sets are put, checked, tried, activated. A set is a text; it counts once it is activated.

use std::sync::Arc;

use fleetmark_domain::{Action, FleetName, LedgerName, Refusal, Timestamp};
use fleetmark_policy::{Finding, Policies, SCHEMA, Set, keeps_an_owner, keeps_an_owner_in};

use super::sha256;
use crate::registrar::caller::Caller;
use crate::registrar::feed::may_follow;
use crate::registrar::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::acts::policies::{ActivatePolicySet, PutPolicySet};
use crate::store::model::{PolicyActivation, PolicySet, PolicyVersion};
use crate::store::{StoreError, commit, read};

pub use crate::store::acts::policies::Activated;

/// The longest note, in characters.
const MAX_NOTE: usize = 256;

/// The set that counts in a scope.
#[derive(Debug, Clone)]
pub struct ActiveSet {
    /// Since when, and by whom.
    pub activation: PolicyActivation,
    /// The set.
    pub set: PolicySet,
    /// Whether this version of Fleetmark can use it; where not, the scope denies.
    pub is_usable: bool,
}

/// A page of a scope's versions.
pub struct Versions {
    /// The page.
    pub page: Page<PolicyVersion>,
    /// The version that counts.
    pub active: Option<u64>,
}

impl Registrar {
    /// The schema that every set is checked against.
    pub fn policy_schema(&self, caller: &Caller) -> Result<&'static str> {
        caller.may(Action::Read, None)?;
        Ok(SCHEMA)
    }

    /// What is wrong with a text; nothing where it could be put.
    pub async fn check_policy(&self, caller: &Caller, text: String) -> Result<Vec<Finding>> {
        caller.may(Action::Read, None)?;
        Ok(compile(text).await?.err().unwrap_or_default())
    }

    /// The set that counts.
    pub async fn active_policy(&self, caller: &Caller, scope: &LedgerName) -> Result<ActiveSet> {
        may_read(caller, scope)?;
        let name = scope.clone();
        let found = read(&*self.store, move |rows| {
            let Some(activation) = rows.active_policy(&name)? else { return Ok(None) };
            let set = rows.policy_set(&name, activation.version)?.ok_or(StoreError::Unreadable { what: "policy set" })?;
            Ok(Some((activation, set)))
        });
        let (activation, set) = found.await?.ok_or(Refusal::FleetUnknown)?;
        Ok(ActiveSet { activation, set, is_usable: self.policies().is_usable(scope) })
    }

    /// The sets of a scope, by their versions.
    pub async fn policy_versions(&self, caller: &Caller, scope: &LedgerName, page: &PageRequest) -> Result<Versions> {
        may_read(caller, scope)?;
        let (name, after, limit) = (scope.clone(), page.after()?, page.limit);
        let (items, active) = read(&*self.store, move |rows| {
            rows.ledger(&name)?.ok_or(Refusal::FleetUnknown)?;
            let active = rows.active_policy(&name)?.map(|active| active.version);
            Ok((rows.policy_versions(&name, after, limit)?, active))
        })
        .await?;
        Ok(Versions { page: Page::of(items, limit, |last| last.version.to_string()), active })
    }

    /// One set.
    pub async fn policy_set(&self, caller: &Caller, scope: &LedgerName, version: u64) -> Result<PolicySet> {
        may_read(caller, scope)?;
        let name = scope.clone();
        let found = read(&*self.store, move |rows| {
            rows.ledger(&name)?.ok_or(Refusal::FleetUnknown)?;
            rows.policy_set(&name, version)
        });
        found.await?.ok_or_else(|| Refusal::NotFound.into())
    }

    /// Keeps a set under the scope's next version. It counts only once it is activated.
    ///
    /// # Errors
    /// `PolicyInvalid`, which tells the first finding; `InvalidValue` for the note.
    pub async fn put_policy_set(
        &self,
        caller: &Caller,
        scope: &LedgerName,
        text: String,
        note: String,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<PolicySet> {
        may_manage(caller, scope)?;
        check_note(&note)?;
        compile(text.clone()).await?.map_err(|findings| invalid(&findings))?;
        let hash = sha256(text.as_bytes());
        let created_by = caller.actor(self);
        let set = PolicySet { ledger: scope.clone(), version: 0, text, hash, note, created_at: now, created_by };
        let repeatable = idempotency.map(|key| key.repeatable(caller, String::new(), now));
        Ok(commit(&*self.store, PutPolicySet { set, repeatable }).await?)
    }

    /// Makes a set count, here at once and at gateways as soon as they hear of it. An earlier version brings back what counted
    /// then. `expected` is the number of the activation that the caller read, where it said so.
    ///
    /// # Errors
    /// `NotFound`, `EtagMismatch`; `PolicyInvalid` for a set of another version of Fleetmark; `PolicyLocksOut`.
    pub async fn activate_policy_set(
        &self,
        caller: &Caller,
        scope: &LedgerName,
        version: u64,
        expected: Option<u64>,
        note: Option<String>,
        now: Timestamp,
    ) -> Result<Activated> {
        may_manage(caller, scope)?;
        check_note(note.as_deref().unwrap_or_default())?;
        let set = self.policy_set(caller, scope, version).await?;
        let compiled = Arc::new(compile(set.text).await?.map_err(|findings| invalid(&findings))?);
        let by = caller.actor(self);
        let details = self.details(by.clone(), None, None, note)?;
        let act = ActivatePolicySet { ledger: scope.clone(), version, expected, by, details, at: now };
        let (store, policies, caller) = (Arc::clone(&self.store), Arc::clone(&self.policies), caller.clone());
        // A task of its own: when the caller hangs up after the commit, the set is taken on all the same.
        let task = tokio::spawn(async move {
            let _in_order = policies.activating.lock().await;
            policies.check_way_back(&caller, &act.ledger, compiled)?;
            let activated = commit(&*store, act).await?;
            // Also where it was active already: the answer of the commit that made it so may have been lost.
            policies.take_on(&activated.set);
            Ok(activated)
        });
        task.await.map_err(|cause| Error::caused(Refusal::InternalError, cause))?
    }

    /// One set, for a gateway or service that follows the ledger which names it.
    ///
    /// # Errors
    /// `WrongKind`, `NotFound`.
    pub async fn followed_policy(&self, caller: &Caller, ledger: &LedgerName, version: u64) -> Result<PolicySet> {
        may_follow(caller, ledger)?;
        let name = ledger.clone();
        read(&*self.store, move |rows| rows.policy_set(&name, version)).await?.ok_or_else(|| Refusal::NotFound.into())
    }

    /// The sets that would decide for something of `scope`, with `text` in the place of the scope's own where it is given.
    ///
    /// # Errors
    /// `PolicyInvalid` for the text, or where a set that counts cannot be used.
    pub async fn policies_to_test(&self, caller: &Caller, scope: &LedgerName, text: Option<String>) -> Result<Policies> {
        may_read(caller, scope)?;
        let mut table = self.policies();
        if let Some(text) = text {
            let set = compile(text).await?.map_err(|findings| invalid(&findings))?;
            table = Arc::new(table.with(scope, Some(Arc::new(set))));
        }
        let fleet = match scope {
            LedgerName::System => None,
            LedgerName::Fleet(fleet) => {
                let name = fleet.clone();
                read(&*self.store, move |rows| rows.fleet(&name)).await?.ok_or(Refusal::FleetUnknown)?;
                Some(fleet)
            }
        };
        let unusable = || Error::with_detail(Refusal::PolicyInvalid, "A set that counts here cannot be used by this version.");
        table.of(fleet).ok_or_else(unusable)
    }
}

impl super::InForce {
    /// A set under which owners, or whoever activates it, could not put another is not activated.
    fn check_way_back(&self, caller: &Caller, scope: &LedgerName, set: Arc<Set>) -> Result<()> {
        let table = self.table();
        let kept = match scope {
            LedgerName::System => keeps_an_owner(&set),
            LedgerName::Fleet(fleet) => {
                let installation = table.installation.as_ref().unwrap_or(&table.built_in.installation);
                keeps_an_owner_in(installation, fleet, &set)
            }
        };
        kept.map_err(|finding| Error::with_detail(Refusal::PolicyLocksOut, finding.to_string()))?;
        let (action, fleet) = managing(scope);
        if table.with(scope, Some(set)).permits(caller, action, fleet) {
            return Ok(());
        }
        Err(Error::with_detail(Refusal::PolicyLocksOut, "You yourself could not replace this set."))
    }
}

/// Compiles away from the threads that answer requests: a long text takes long.
async fn compile(text: String) -> Result<std::result::Result<Set, Vec<Finding>>> {
    let task = tokio::task::spawn_blocking(move || Set::compile(&text));
    task.await.map_err(|cause| Error::caused(Refusal::InternalError, cause))
}

fn invalid(findings: &[Finding]) -> Error {
    let more = match findings.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let first = findings.first().map(ToString::to_string).unwrap_or_default();
    Error::with_detail(Refusal::PolicyInvalid, format!("{first}{more}"))
}

fn check_note(note: &str) -> Result<()> {
    if note.chars().count() > MAX_NOTE {
        return Err(Error::with_detail(Refusal::InvalidValue, "A note has at most 256 characters."));
    }
    Ok(())
}

fn may_read(caller: &Caller, scope: &LedgerName) -> Result<()> {
    match scope {
        LedgerName::System => caller.may(Action::Read, None),
        LedgerName::Fleet(fleet) => caller.may(Action::Read, Some(fleet)),
    }
}

fn may_manage(caller: &Caller, scope: &LedgerName) -> Result<()> {
    let (action, fleet) = managing(scope);
    caller.may(action, fleet)
}

const fn managing(scope: &LedgerName) -> (Action, Option<&FleetName>) {
    match scope {
        LedgerName::System => (Action::ManageInstallationPolicy, None),
        LedgerName::Fleet(fleet) => (Action::ManagePolicy, Some(fleet)),
    }
}
