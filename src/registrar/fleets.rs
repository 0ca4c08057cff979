//! Fleets.

use std::time::Duration;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{FleetName, Timestamp};

use super::caller::Caller;
use super::{Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::model::Fleet;

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
}

impl Registrar {
    /// Creates a fleet with its device authority and ledger.
    pub async fn create_fleet(
        &self,
        _caller: &Caller,
        _new: NewFleet,
        _idempotency: Option<Idempotency>,
        _now: Timestamp,
    ) -> Result<Fleet> {
        todo!()
    }

    /// The fleets that the caller may know of.
    pub async fn fleets(&self, _caller: &Caller, _page: &PageRequest) -> Result<Page<Fleet>> {
        todo!()
    }

    /// One fleet.
    pub async fn fleet(&self, _caller: &Caller, _name: &FleetName) -> Result<Fleet> {
        todo!()
    }

    /// Changes a fleet; `version` is what the caller read, where it said so.
    pub async fn change_fleet(
        &self,
        _caller: &Caller,
        _name: &FleetName,
        _change: FleetChange,
        _version: Option<u64>,
        _now: Timestamp,
    ) -> Result<Fleet> {
        todo!()
    }
}
