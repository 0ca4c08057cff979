//! Other authorities of fleets: CA certificates of another PKI whose devices' certificates a fleet takes. docs/external.md says how
//! it is used, and ADR 22 why it is so.
//!
//! - `rules`: what an external authority may be asked for.
//! - `adopt`: certificates are imported, shown and changed.
//! - `expect`: certificates that are adopted when they are first seen, by their fingerprints.
//! - `sight`: certificates that are adopted because they are seen, here or by gateways.
//! - `follow`: what the authorities say of their certificates is asked for in time, and merged.
//! - `lists`: the same by their lists.
//! - `responder`: the same by their OCSP responders.
//! - `fetch`: the exchange over HTTP; the one place here that knows it.

mod adopt;
mod expect;
mod fetch;
mod follow;
mod lists;
mod responder;
mod rules;
mod sight;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use fleetmark_domain::{Action, Fingerprint, FleetName, Name, Refusal, Timestamp};
use fleetmark_ledger::entry::ExternalState;

pub use crate::store::acts::external::Fate;
pub use crate::store::acts::external::expect::Expectation;
pub use adopt::{AdoptedView, Import, MAX_CERTIFICATES, MAX_IMPORT};
pub use expect::{ExpectedView, Expecting, MAX_EXPECTED, MAX_LIST, expecting};
pub use follow::Failure;
pub use rules::{DEFAULT_INTERVAL, INTERVAL};
pub use sight::MAX_REPORTED;

use super::caller::Caller;
use super::standing::checked_note;
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::pki::anchors;
use crate::pki::foreign::Externals;
use crate::store::acts::external::{ChangeExternal, CreateExternal, rules_hash};
use crate::store::model::{
    Certificate, External, ExternalRules, ExternalSwitch, ForeignList, OnStale, Sighted, StatusSource, Subject,
};
use crate::store::rows::Rows;
use crate::store::{StoreError, commit, look_up, read};

/// What the server keeps of external authorities in memory.
#[derive(Default)]
pub struct Watch {
    trust: Trust,
    follow: follow::State,
    calls: fetch::Calls,
    sight: sight::Pace,
    /// Held while they are read, so that what was read earlier does not come later.
    reading: tokio::sync::Mutex<()>,
}

/// The external authorities that are not ended or disabled, for the handshake.
#[derive(Default)]
pub struct Trust {
    current: ArcSwap<Externals>,
    observer: Mutex<Option<Observer>>,
}

/// Who is told of every set of them.
pub type Observer = Box<dyn Fn(&Arc<Externals>) + Send>;

impl Trust {
    /// Has `observer` told of every set from now on, this one first.
    pub fn observe(&self, observer: Observer) {
        let mut place = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer(&self.current.load_full());
        *place = Some(observer);
    }

    /// As it is now.
    pub fn current(&self) -> Arc<Externals> {
        self.current.load_full()
    }

    fn swap(&self, externals: Externals) {
        let externals = Arc::new(externals);
        let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.store(Arc::clone(&externals));
        if let Some(observer) = &*observer {
            observer(&externals);
        }
    }
}

/// An external authority to make.
#[derive(Debug, Clone)]
pub struct NewExternal {
    /// In this fleet.
    pub fleet: FleetName,
    /// Under this name.
    pub name: Name,
    /// 1 to 8 CA certificates in PEM.
    pub ca: String,
    /// What it is asked for.
    pub rules: ExternalRules,
}

/// What to change; None leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct ExternalChange {
    /// The rules, all of them; the naming rule must be the same.
    pub rules: Option<ExternalRules>,
    /// The CA certificates, PEM.
    pub ca: Option<String>,
}

/// An external authority, and how what it says is followed.
#[derive(Debug, Clone)]
pub struct ExternalView {
    /// The record.
    pub external: External,
    /// Its newest lists, without their octets.
    pub lists: Vec<ForeignList>,
    /// What failed when it was asked last.
    pub failures: Vec<Failure>,
    /// What the ledger has of its rules and CA certificates.
    pub rules_hash: [u8; 32],
}

impl Registrar {
    /// The external authorities whose certificates the handshake takes.
    pub const fn external_trust(&self) -> &Trust {
        &self.externals.trust
    }

    /// Reads the external authorities again: at the start, after every change, and now and then, since another process may have
    /// changed one. The next handshake goes by them.
    pub async fn refresh_externals(&self) -> Result<()> {
        let _reading = self.externals.reading.lock().await;
        let all = read(&*self.store, |rows| rows.externals(None)).await?;
        let mut trusted = Externals::default();
        for external in all.iter().filter(|external| external.switch == ExternalSwitch::Enabled) {
            if let Err(error) = trusted.add(&external.material) {
                tracing::error!(fleet = %external.fleet, authority = %external.name, %error, "an external authority lets nobody in");
            }
        }
        self.externals.trust.swap(trusted);
        self.externals.follow.take(all);
        Ok(())
    }

    /// Makes an external authority, and asks at once for what it says of its certificates.
    pub async fn create_external(
        &self,
        caller: &Caller,
        new: NewExternal,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<ExternalView> {
        let NewExternal { fleet, name, ca, rules } = new;
        caller.may(Action::ManagePolicy, Some(&fleet))?;
        rules::check(&rules)?;
        let material = read_ca(&ca)?;
        let details = self.details(caller.actor(self), None, None, Some(format!("external authority {name}")))?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, String::new(), now));
        let external = External {
            id: 0,
            fleet,
            name,
            switch: ExternalSwitch::Enabled,
            // Until it was heard.
            stale: rules.status != StatusSource::None && rules.on_stale == OnStale::Refuse,
            rules,
            material,
            epoch: None,
            next_index: 0,
            sighted: Sighted::default(),
            created_at: now,
            created_by: caller.subject.id,
            version: 1,
        };
        let external = commit(&*self.store, CreateExternal { external, repeatable, details, at: now }).await?;
        self.changed_external(caller, &external, "made").await;
        self.follow_now(external.id, now).await;
        self.external_view(&external.fleet, &external.name).await
    }

    /// The fleet's external authorities. There are few.
    pub async fn external_authorities(
        &self,
        caller: &Caller,
        fleet: &FleetName,
        page: &PageRequest,
    ) -> Result<Page<ExternalView>> {
        caller.may(Action::Read, Some(fleet))?;
        let (after, limit, wanted) = (page.after()?, page.limit, fleet.clone());
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&wanted)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            let all = rows.externals(Some(&wanted))?;
            let some = all.into_iter().filter(|external| u64::from(external.id) > after);
            let some = some.take(usize::try_from(limit).unwrap_or(usize::MAX));
            some.map(|external| with_lists(rows, external)).collect::<std::result::Result<Vec<_>, _>>()
        });
        let views = found.await?.into_iter().map(|(external, lists)| self.viewed(external, lists)).collect();
        Ok(Page::of(views, limit, |last: &ExternalView| last.external.id.to_string()))
    }

    /// One external authority.
    pub async fn external_authority(&self, caller: &Caller, fleet: &FleetName, name: &Name) -> Result<ExternalView> {
        caller.may(Action::Read, Some(fleet))?;
        self.external_view(fleet, name).await
    }

    /// Changes an external authority; `version` is what the caller read, where it said so.
    pub async fn change_external(
        &self,
        caller: &Caller,
        (fleet, name): (&FleetName, &Name),
        change: ExternalChange,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<ExternalView> {
        let known = self.external_authority(caller, fleet, name).await?.external;
        caller.may(Action::ManagePolicy, Some(fleet))?;
        let ExternalChange { rules, ca } = change;
        if let Some(rules) = &rules {
            rules::check(rules)?;
            if rules.naming != known.rules.naming {
                let detail = "How devices are called never changes: make another external authority.";
                return Err(Error::with_detail(Refusal::TransitionNotAllowed, detail));
            }
        }
        let material = ca.map(|pem| read_ca(&pem)).transpose()?;
        let details = self.details(caller.actor(self), None, None, Some(format!("external authority {name}")))?;
        let (fleet, id) = (fleet.clone(), known.id);
        let act = ChangeExternal { fleet, id, version, rules, material, switch: None, stale: None, details, at: now };
        let external = commit(&*self.store, act).await?;
        self.changed_external(caller, &external, "changed").await;
        self.follow_now(id, now).await;
        self.external_view(&external.fleet, &external.name).await
    }

    /// Takes an external authority's certificates, takes them not for now, or never again. A repeat changes nothing and succeeds.
    pub async fn switch_external(
        &self,
        caller: &Caller,
        (fleet, name): (&FleetName, &Name),
        switch: ExternalSwitch,
        note: &str,
        now: Timestamp,
    ) -> Result<ExternalView> {
        let known = self.external_authority(caller, fleet, name).await?.external;
        let (action, word) = match switch {
            ExternalSwitch::Enabled => (Action::ManagePolicy, "enabled"),
            ExternalSwitch::Disabled => (Action::ManagePolicy, "disabled"),
            ExternalSwitch::Ended => (Action::ChangeStanding, "ended"),
        };
        caller.may(action, Some(fleet))?;
        let details =
            self.details(caller.actor(self), Some(format!("external authority {name}")), None, checked_note(note)?)?;
        let (fleet, id, switch) = (fleet.clone(), known.id, Some(switch));
        let (version, rules, material, stale) = (None, None, None, None);
        let act = ChangeExternal { fleet, id, version, rules, material, switch, stale, details, at: now };
        let external = commit(&*self.store, act).await?;
        self.changed_external(caller, &external, word).await;
        self.external_view(&external.fleet, &external.name).await
    }

    /// Asks an external authority at once for what it says of its certificates.
    pub async fn check_external(
        &self,
        caller: &Caller,
        (fleet, name): (&FleetName, &Name),
        now: Timestamp,
    ) -> Result<ExternalView> {
        let known = self.external_authority(caller, fleet, name).await?.external;
        caller.may(Action::ManagePolicy, Some(fleet))?;
        self.follow_now(known.id, now).await;
        self.external_view(fleet, name).await
    }

    /// The record of an adopted certificate, and its holder's, for who came with it.
    ///
    /// # Errors
    /// `ExternalUnknown`; `ExternalDisabled`, `ExternalStatusStale` by its authority's state.
    pub(super) async fn external_holder(&self, fingerprint: Fingerprint) -> Result<(Certificate, Subject)> {
        let found = look_up(&*self.store, move |rows| {
            let Some(known) = rows.external_certificate(&fingerprint)? else { return Ok(None) };
            let (external, certificate) = (rows.external(known.authority)?, rows.certificate(known.place)?);
            let subject = match certificate.as_ref().and_then(|certificate| certificate.subject) {
                Some(subject) => rows.subject(subject)?,
                None => None,
            };
            Ok(external.zip(certificate).zip(subject))
        });
        let ((external, certificate), subject) = found.await?.ok_or(Refusal::ExternalUnknown)?;
        match external.state() {
            ExternalState::Active => Ok((certificate, subject)),
            ExternalState::Stale => Err(Refusal::ExternalStatusStale.into()),
            ExternalState::Disabled | ExternalState::Ended => Err(Refusal::ExternalDisabled.into()),
        }
    }

    async fn external_view(&self, fleet: &FleetName, name: &Name) -> Result<ExternalView> {
        let (fleet, folded) = (fleet.clone(), name.folded());
        let found = read(&*self.store, move |rows| {
            if rows.fleet(&fleet)?.is_none() {
                return Err(Refusal::FleetUnknown.into());
            }
            rows.external_by_name(&fleet, &folded)?.map(|external| with_lists(rows, external)).transpose()
        });
        let (external, lists) = found.await?.ok_or(Refusal::NotFound)?;
        Ok(self.viewed(external, lists))
    }

    fn viewed(&self, external: External, mut lists: Vec<ForeignList>) -> ExternalView {
        if let Some(known) = self.externals.follow.lists(external.id) {
            for list in &mut lists {
                // That one was found unchanged is not written.
                list.fetched_at = known.fetched_at(list).map_or(list.fetched_at, |at| at.max(list.fetched_at));
            }
        }
        let failures = self.externals.follow.failures(external.id);
        ExternalView { rules_hash: rules_hash(&external), external, lists, failures }
    }

    /// Says so in the log, and to the doors. What was recorded stands, whatever becomes of that.
    async fn changed_external(&self, caller: &Caller, external: &External, what: &'static str) {
        let (actor, fleet, name) = (caller.actor(self), external.fleet.as_str(), external.name.as_str());
        tracing::info!(
            actor,
            fleet,
            authority = name,
            id = external.id,
            version = external.version,
            "external authority {what}"
        );
        if let Err(error) = self.refresh_externals().await {
            tracing::warn!(%error, cause = error.chain(), "the doors know the external authorities as they were before");
        }
    }
}

fn with_lists(rows: &mut dyn Rows, external: External) -> std::result::Result<(External, Vec<ForeignList>), StoreError> {
    let lists = rows.foreign_lists(external.id)?;
    let lists = lists.into_iter().map(|list| ForeignList { der: Vec::new(), ..list }).collect();
    Ok((external, lists))
}

fn read_ca(pem: &str) -> Result<Vec<u8>> {
    anchors::read(pem).map_err(|error| Error::with_detail(Refusal::InvalidValue, format!("ca: {error}")))
}
