//! Fleets.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{Action, FleetName, Kind, LedgerName, Refusal, Timestamp};

use super::caller::Caller;
use super::install::NewAuthority;
use super::policies::first_set;
use super::{Error, Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::acts::Repeatable;
use crate::store::acts::fleets::{ChangeFleet, CreateFleet};
use crate::store::model::{Fleet, PolicySet};
use crate::store::{commit, read};

/// What to create.
#[derive(Debug, Clone)]
pub struct NewFleet {
    /// Its name.
    pub name: FleetName,
    /// The profile of its devices; `device` unless given.
    pub profile: Option<String>,
    /// Overrides the profile's time to live of unconfirmed certificates.
    pub unconfirmed_ttl: Option<Duration>,
    /// What its views list.
    pub choices: Choices,
    /// 15 min unless given; 10 s to 30 d.
    pub max_age: Option<Duration>,
    /// How many devices one operator may change in an hour; the larger of 10 and 1 % unless given.
    pub blast_radius: Option<u64>,
}

/// What to change; None leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct FleetChange {
    /// Whether it takes enrollments.
    pub open: Option<bool>,
    /// The profile.
    pub profile: Option<String>,
    /// The time to live; `Some(None)` takes the profile's.
    pub unconfirmed_ttl: Option<Option<Duration>>,
    /// What its views list.
    pub list_superseded: Option<bool>,
    /// What its views list.
    pub list_quarantined: Option<bool>,
    /// The bound for gateways that are cut off.
    pub max_age: Option<Duration>,
    /// How many devices one operator may change in an hour; `Some(None)`: the larger of 10 and 1 %.
    pub blast_radius: Option<Option<u64>>,
}

/// The bounds of `max_age`.
const MAX_AGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(30 * 86_400);
/// What `max_age` is unless given.
pub(super) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// The bounds of an unconfirmed certificate's time to live.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3660 * 86_400);

impl Registrar {
    /// Creates a fleet with its device authority and ledger.
    pub async fn create_fleet(
        &self,
        caller: &Caller,
        new: NewFleet,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<Fleet> {
        caller.may(Action::ManageFleets, None)?;
        let fleet = Fleet {
            profile: new.profile.unwrap_or_else(|| Kind::Device.as_str().to_owned()),
            name: new.name,
            open: true,
            unconfirmed_ttl: new.unconfirmed_ttl,
            choices: new.choices,
            max_age: new.max_age.unwrap_or(DEFAULT_MAX_AGE),
            created_at: now,
            version: 1,
            blast_radius: new.blast_radius,
            hook: None,
            wave: None,
        };
        self.check(&fleet)?;
        let repeatable = idempotency.map(|key| key.repeatable(caller, fleet.name.to_string(), now));
        self.make_fleet(fleet, caller.actor(self), repeatable, now).await
    }

    /// Makes a fleet's keys, authority and ledger, and records them in one act.
    pub(super) async fn make_fleet(
        &self,
        fleet: Fleet,
        actor: String,
        repeatable: Option<Repeatable>,
        now: Timestamp,
    ) -> Result<Fleet> {
        let one_at_a_time = Arc::clone(&self.founding).lock_owned().await;
        let name = fleet.name.clone();
        let known = read(&*self.store, {
            let name = name.clone();
            move |rows| rows.fleet(&name)
        });
        if let Some(known) = known.await? {
            // What made it may have failed after its commit.
            self.take_on_fleet(&name).await?;
            // The same request again is answered with what it made; the store compares the requests.
            return match repeatable {
                Some(repeatable) if self.is_repeat(&repeatable).await? => Ok(known),
                _ => Err(Refusal::NameTaken.into()),
            };
        }
        // Asked first: without the root nothing else is begun, and no key file is left behind but that of the request.
        self.root_at_hand(Kind::Device, Some(&name), now).await?;
        let policy = first_set(&LedgerName::Fleet(name.clone()), self.random()?, actor.clone(), now);
        let first = PolicySet { version: 1, ..policy.set.clone() };
        // Before the ledger's key: this is what a token may refuse.
        let authority = self.new_authority(NewAuthority::first(Kind::Device, Some(name.clone())), actor, now).await?;
        let (ledger, key) = self.new_ledger(&LedgerName::Fleet(name.clone()))?;
        // Before the commit, which has its head signed.
        self.publisher.add(LedgerName::Fleet(name.clone()), key, None);
        let record = authority.authority.clone();
        let create = CreateFleet { fleet: fleet.clone(), authority, ledger, policy, repeatable };
        let (store, policies, authorities) =
            (Arc::clone(&self.store), Arc::clone(&self.policies), Arc::clone(&self.authorities));
        // A task of its own: when the caller hangs up after the commit, all is taken on the same.
        let task = tokio::spawn(async move {
            let _one_at_a_time = one_at_a_time;
            let created = commit(&*store, create).await?;
            if created.is_some() {
                policies.take_on(&first);
                authorities.add(record)?;
            }
            Ok::<_, Error>(created)
        });
        let Some(created) = task.await.map_err(|cause| Error::caused(Refusal::InternalError, cause))?? else {
            self.take_on_fleet(&name).await?;
            return Ok(fleet);
        };
        // The fleet is there, whatever befalls its lists or another's.
        self.publish_change(now).await;
        Ok(created)
    }

    /// Takes on a fleet that the store has, as far as it is not known here.
    async fn take_on_fleet(&self, name: &FleetName) -> Result<()> {
        let ledger = LedgerName::Fleet(name.clone());
        self.policies.recall(&*self.store, &ledger).await?;
        self.refresh_authorities().await?;
        self.take_on_ledger(&ledger).await
    }

    async fn is_repeat(&self, repeatable: &Repeatable) -> Result<bool> {
        let (caller, key, hash) = (repeatable.caller, repeatable.key.clone(), repeatable.value.request_hash);
        let earlier = read(&*self.store, move |rows| rows.remembered(caller, &key)).await?;
        match earlier {
            None => Ok(false),
            Some(earlier) if earlier.request_hash == hash => Ok(true),
            Some(_) => Err(Refusal::IdempotencyKeyReused.into()),
        }
    }

    /// The fleets that the caller may know of.
    pub async fn fleets(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Fleet>> {
        caller.may(Action::Read, None)?;
        let (cursor, limit) = (page.cursor.clone(), page.limit);
        let found = read(&*self.store, move |rows| rows.fleets(cursor.as_deref(), limit)).await?;
        let mut page = Page::of(found, limit, |last| last.name.to_string());
        page.items.retain(|fleet| caller.reaches(&fleet.name));
        Ok(page)
    }

    /// One fleet.
    pub async fn fleet(&self, caller: &Caller, name: &FleetName) -> Result<Fleet> {
        caller.may(Action::Read, Some(name))?;
        let name = name.clone();
        let found = read(&*self.store, move |rows| rows.fleet(&name)).await?;
        found.ok_or_else(|| Refusal::FleetUnknown.into())
    }

    /// Changes a fleet; `version` is what the caller read, where it said so.
    pub async fn change_fleet(
        &self,
        caller: &Caller,
        name: &FleetName,
        change: FleetChange,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<Fleet> {
        let mut fleet = self.fleet(caller, name).await?;
        caller.may(Action::ManageFleets, Some(name))?;
        if version.is_some_and(|version| version != fleet.version) {
            return Err(Refusal::EtagMismatch.into());
        }
        let FleetChange { open, profile, unconfirmed_ttl, list_superseded, list_quarantined, max_age, blast_radius } = change;
        fleet.open = open.unwrap_or(fleet.open);
        fleet.profile = profile.unwrap_or(fleet.profile);
        fleet.unconfirmed_ttl = unconfirmed_ttl.unwrap_or(fleet.unconfirmed_ttl);
        fleet.choices.list_superseded = list_superseded.unwrap_or(fleet.choices.list_superseded);
        fleet.choices.list_quarantined = list_quarantined.unwrap_or(fleet.choices.list_quarantined);
        fleet.max_age = max_age.unwrap_or(fleet.max_age);
        fleet.blast_radius = blast_radius.unwrap_or(fleet.blast_radius);
        self.check(&fleet)?;
        let details = self.details(caller.actor(self), Some(name.to_string()), None, None)?;
        Ok(commit(&*self.store, ChangeFleet { fleet, details, at: now }).await?)
    }

    fn check(&self, fleet: &Fleet) -> Result<()> {
        let profile = self.authorities.profiles().find(&fleet.profile);
        if profile.is_none_or(|profile| profile.ca.is_some() || !profile.identity) {
            let detail = format!("{} is no profile for devices.", fleet.profile);
            return Err(Error::with_detail(Refusal::InvalidValue, detail));
        }
        if !MAX_AGE.contains(&fleet.max_age) {
            return Err(Error::with_detail(Refusal::InvalidValue, "max_age lies between 10 seconds and 30 days."));
        }
        if fleet.unconfirmed_ttl.is_some_and(|ttl| !TTL.contains(&ttl)) {
            return Err(Error::with_detail(Refusal::InvalidValue, "unconfirmed_ttl lies between 1 second and 10 years."));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::ledger::Publisher;
    use crate::registrar::publish::tests::{World, opened_on};
    use crate::telemetry::clock::SystemClock;

    fn second() -> NewFleet {
        NewFleet {
            name: "second".parse().unwrap(),
            profile: None,
            unconfirmed_ttl: None,
            choices: Choices::default(),
            max_age: None,
            blast_radius: None,
        }
    }

    /// Whether the fleet's ledger is signed as far as it goes, and its authority is known.
    async fn is_known(registrar: &Registrar) -> bool {
        let name = second().name;
        let ledger = LedgerName::Fleet(name.clone());
        let signed = registrar.publisher.size(&ledger);
        let durable = read(&*registrar.store, move |rows| rows.ledger(&ledger)).await.unwrap();
        signed == durable.map(|record| record.head().size) && registrar.authorities.issuing(Kind::Device, Some(&name)).is_ok()
    }

    #[tokio::test]
    async fn a_fleet_whose_caller_hangs_up_is_signed_and_known() {
        let world = World::new().await;
        {
            let mut creating = pin!(world.registrar.create_fleet(&world.owner, second(), None, world.now));
            let name = second().name;
            let is_there = async || {
                let name = name.clone();
                read(&*world.registrar.store, move |rows| rows.fleet(&name)).await.unwrap().is_some()
            };
            while !is_there().await {
                // Not polled any more once the fleet is durable.
                std::future::poll_fn(|context| Poll::Ready(creating.as_mut().poll(context).is_pending())).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(is_known(&world.registrar).await);
    }

    #[tokio::test]
    async fn the_same_request_again_takes_on_what_was_left() {
        let world = World::new().await;
        let publisher = std::sync::Arc::new(Publisher::new(std::sync::Arc::new(SystemClock)));
        let other = opened_on(world.directory.path(), world.registrar.store.clone(), &publisher, world.now).await;
        let key = || Some(Idempotency { key: "one".to_owned(), request_hash: [1; 32] });
        let made = world.registrar.create_fleet(&world.owner, second(), key(), world.now).await.unwrap();
        assert!(!is_known(&other).await);
        let again = other.create_fleet(&world.owner, second(), key(), world.now).await.unwrap();
        assert_eq!(again.name, made.name);
        assert!(is_known(&other).await);
    }
}
