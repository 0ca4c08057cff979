//! The policies that count, compiled and in memory, and what is asked of them: who may do what at the admin door, and who may
//! enroll and renew. What gateways decide, they decide themselves with the same sets.
//!
//! - [`sets`]: policy sets are put, checked, tried, activated.

pub mod sets;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use fleetmark_domain::{Action, FleetName, Kind, LedgerName, Refusal, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_policy::{
    Act, Context, DEFAULT_FLEET, DEFAULT_INSTALLATION, Decision, Policies, Principal, Request, Resource, Set,
};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::caller::{Caller, alarm};
use super::install::ITSELF;
use super::subjects::identity_of;
use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::store::acts::policies::FirstPolicySet;
use crate::store::acts::record::Proof;
use crate::store::model::{PolicySet, Subject};
use crate::store::{Store, commit, read};

/// Stands before the ids of the installation's policies in a decision.
const OF_INSTALLATION: &str = "installation/";

/// A scope's set: compiled, or None where its text, written by another version of Fleetmark, does not compile here.
type Slot = Option<Arc<Set>>;

/// All sets that count at one moment.
pub struct Table {
    installation: Slot,
    fleets: BTreeMap<FleetName, Slot>,
    /// The built-in sets: the first of each scope, and the operators' rights where the installation's set cannot be used.
    built_in: Arc<BuiltIn>,
}

/// The built-in sets, and what they say of certificates.
struct BuiltIn {
    installation: Arc<Set>,
    fleet: Arc<Set>,
    /// Under the built-in sets alone the answer to Enroll and Renew hangs on nothing but kind, act and standing.
    certifies: Mutex<HashMap<(Kind, Act, Standing), bool>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("fleets", &self.fleets.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Whether an operator may do `action` to something of `fleet`; None: of the installation.
    ///
    /// What permits is the installation's set alone; a fleet's set may forbid, so that who writes a fleet's policy gives nobody,
    /// himself included, a right over the fleet. Where the installation's set does not compile, the built-in one takes its place,
    /// and where a fleet's does not, it is left out: what is broken can be repaired, and devices can be revoked meanwhile.
    pub fn permits(&self, caller: &Caller, action: Action, fleet: Option<&FleetName>) -> bool {
        let policies = Policies {
            installation: self.installation.as_ref().unwrap_or(&self.built_in.installation).clone(),
            fleet: fleet.and_then(|fleet| self.fleets.get(fleet)).cloned().flatten(),
        };
        let request = Request {
            principal: Principal {
                identity: &caller.identity,
                standing: caller.certificate.standing,
                attributes: &caller.subject.attributes,
                role: caller.subject.role,
            },
            act: Act::Admin(action),
            resource: fleet.map_or(Resource::Installation, Resource::Fleet),
            context: Context { source: caller.source, ..at(caller.at) },
        };
        let decision = decide(&policies, &request);
        decision.allow && decision.policies.iter().any(|id| id.starts_with(OF_INSTALLATION))
    }

    /// Asks whether `subject` may get a certificate by this proof, asked for from `source`, where that is known. What the installation does by itself, on its own machine, is
    /// not asked for: it is the way back from a policy that lets nobody in.
    ///
    /// # Errors
    /// `PolicyDenied`; where a set does not compile, for everybody.
    pub fn admit(
        &self,
        subject: &Subject,
        proof: &Proof,
        is_quarantined: bool,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<()> {
        let (act, standing) = match proof {
            // It would leave quarantine by this.
            proof if proof.enrolls() && is_quarantined => (Act::Enroll, Standing::Quarantined),
            // That of the certificate that is asked for.
            Proof::Token(_) | Proof::Group(_) | Proof::Hardware(_) => (Act::Enroll, Standing::Unconfirmed),
            // No other standing comes through the door.
            Proof::Current(_) => (Act::Renew, Standing::Good),
            Proof::Installation | Proof::Rescue => return Ok(()),
        };
        let context = Context { source, ..at(now) };
        if self.certifies(subject, act, standing, context)? { Ok(()) } else { Err(Refusal::PolicyDenied.into()) }
    }

    fn certifies(&self, subject: &Subject, act: Act, standing: Standing, context: Context<'_>) -> Result<bool> {
        let Some(policies) = self.of(subject.fleet.as_ref()) else { return Ok(false) };
        let question = (subject.kind, act, standing);
        let is_built_in = self.built_in.are(&policies);
        if is_built_in && let Some(known) = self.built_in.lock().get(&question) {
            return Ok(*known);
        }
        let identity = identity_of(subject)?;
        let request = Request {
            principal: Principal { identity: &identity, standing, attributes: &subject.attributes, role: subject.role },
            act,
            resource: subject.fleet.as_ref().map_or(Resource::Installation, Resource::Fleet),
            context,
        };
        let decision = decide(&policies, &request);
        if is_built_in {
            self.built_in.lock().insert(question, decision.allow);
        }
        Ok(decision.allow)
    }

    /// The sets that count for something of `fleet`; None where one of them cannot be used.
    fn of(&self, fleet: Option<&FleetName>) -> Option<Policies> {
        let installation = self.installation.clone()?;
        let fleet = match fleet {
            Some(fleet) => Some(self.fleets.get(fleet)?.clone()?),
            None => None,
        };
        Some(Policies { installation, fleet })
    }

    /// The same, with another set for one scope.
    fn with(&self, scope: &LedgerName, slot: Slot) -> Self {
        let mut next =
            Self { installation: self.installation.clone(), fleets: self.fleets.clone(), built_in: Arc::clone(&self.built_in) };
        match scope {
            LedgerName::System => next.installation = slot,
            LedgerName::Fleet(fleet) => drop(next.fleets.insert(fleet.clone(), slot)),
        }
        next
    }

    /// Whether the scope's set can be used.
    fn is_usable(&self, scope: &LedgerName) -> bool {
        match scope {
            LedgerName::System => self.installation.is_some(),
            LedgerName::Fleet(fleet) => self.fleets.get(fleet).is_some_and(Option::is_some),
        }
    }
}

impl BuiltIn {
    fn compile() -> Result<Self> {
        let compiled = |text| Set::compile(text).map(Arc::new).map_err(|findings| unusable("the built-in policy", &findings));
        Ok(Self { installation: compiled(DEFAULT_INSTALLATION)?, fleet: compiled(DEFAULT_FLEET)?, certifies: Mutex::default() })
    }

    fn are(&self, policies: &Policies) -> bool {
        Arc::ptr_eq(&self.installation, &policies.installation)
            && policies.fleet.as_ref().is_none_or(|fleet| Arc::ptr_eq(&self.fleet, fleet))
    }

    /// The compiled set of a text that was kept.
    fn or_compiled(&self, set: &PolicySet) -> Slot {
        for built_in in [&self.installation, &self.fleet] {
            if built_in.hash() == set.hash && built_in.text() == set.text {
                return Some(Arc::clone(built_in));
            }
        }
        let what = format!("{}, version {}", set.ledger, set.version);
        if sha256(set.text.as_bytes()) != set.hash {
            alarm("policy_damaged", &what);
            return None;
        }
        match Set::compile(&set.text) {
            Ok(compiled) => Some(Arc::new(compiled)),
            Err(findings) => {
                let first = findings.first().map(ToString::to_string).unwrap_or_default();
                alarm("policy_unusable", &format!("{what}: {first}"));
                None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Kind, Act, Standing), bool>> {
        self.certifies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decide(policies: &Policies, request: &Request<'_>) -> Decision {
    let decision = policies.decide(request);
    for error in &decision.errors {
        alarm("policy_error", error);
    }
    decision
}

const fn at(time: Timestamp) -> Context<'static> {
    Context { time, source: None, protocol: None, firmware: None }
}

fn unusable(what: &str, findings: &[fleetmark_policy::Finding]) -> Error {
    let first = findings.first().map(ToString::to_string).unwrap_or_default();
    Error::caused(Refusal::InternalError, format!("{what} does not compile: {first}"))
}

/// The table in use, and who may swap it.
pub struct InForce {
    current: ArcSwap<Table>,
    /// Held from an activation's commit to its swap: two at once must not swap in the other order.
    activating: tokio::sync::Mutex<()>,
}

impl InForce {
    /// Reads the sets that count, of all scopes. A scope without one, as every one is that an earlier version of Fleetmark made,
    /// begins with the built-in set.
    pub(super) async fn open(store: &dyn Store, random: &SystemRandom, now: Timestamp) -> Result<Self> {
        let built_in = Arc::new(BuiltIn::compile()?);
        let mut table = Table { installation: None, fleets: BTreeMap::new(), built_in: Arc::clone(&built_in) };
        for ledger in read(store, |rows| rows.ledgers()).await? {
            let scope = ledger.name;
            if active_set(store, &scope).await?.is_none() {
                let mut salt = [0; 16];
                random.fill(&mut salt).map_err(|_| Refusal::InternalError)?;
                commit(store, first_set(&scope, salt, ITSELF.to_owned(), now)).await?;
            }
            let active = active_set(store, &scope).await?.ok_or(Refusal::InternalError)?;
            table = table.with(&scope, built_in.or_compiled(&active));
        }
        Ok(Self { current: ArcSwap::from_pointee(table), activating: tokio::sync::Mutex::default() })
    }

    /// The sets that count now.
    pub fn table(&self) -> Arc<Table> {
        self.current.load_full()
    }

    /// From now on this set counts.
    pub(super) fn take_on(&self, set: &PolicySet) {
        let slot = self.table().built_in.or_compiled(set);
        self.current.rcu(|table| table.with(&set.ledger, slot.clone()));
    }

    /// What the store holds active in a scope counts from now on.
    pub(super) async fn recall(&self, store: &dyn Store, scope: &LedgerName) -> Result<()> {
        let _in_order = self.activating.lock().await;
        if let Some(active) = active_set(store, scope).await? {
            self.take_on(&active);
        }
        Ok(())
    }
}

/// The set that counts in a scope.
async fn active_set(store: &dyn Store, scope: &LedgerName) -> Result<Option<PolicySet>> {
    let scope = scope.clone();
    let found = read(store, move |rows| {
        let Some(active) = rows.active_policy(&scope)? else { return Ok(None) };
        rows.policy_set(&scope, active.version)
    });
    Ok(found.await?)
}

/// The built-in set as the first of a scope.
pub(super) fn first_set(scope: &LedgerName, salt: [u8; 16], actor: String, now: Timestamp) -> FirstPolicySet {
    let text = if *scope == LedgerName::System { DEFAULT_INSTALLATION } else { DEFAULT_FLEET };
    let note = "built-in policy".to_owned();
    let set = PolicySet {
        ledger: scope.clone(),
        version: 0,
        text: text.to_owned(),
        hash: sha256(text.as_bytes()),
        note: note.clone(),
        created_at: now,
        created_by: actor.clone(),
    };
    let details = Details { salt, actor, subject: None, reason: None, note: Some(note), attributes: BTreeMap::new() };
    FirstPolicySet { set, details }
}

impl Registrar {
    /// The policies that count now.
    pub fn policies(&self) -> Arc<Table> {
        self.policies.table()
    }
}

#[cfg(test)]
mod tests;
