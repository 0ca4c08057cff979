//! `/v1/fleets`

use std::time::Duration;

use actix_web::{get, patch, post, web};
use fleetmark_domain::FleetName;
use fleetmark_domain::standing::Choices;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, IdempotencyKey, IfMatch, Json, Path, Query, name, page, text, within};
use super::openapi::{Act, Change, List, Look};
use super::{Answer, created, ok, page_of, schema, versioned, wire};
use crate::http::State;
use crate::http::problem::{Problem, ProblemDocument};
use crate::registrar::fleets::{FleetChange, NewFleet};
use crate::store::model;

/// Ten years, in seconds.
const LONGEST_TTL: u64 = 315_360_000;

/// 30 days, in seconds.
const LONGEST_AGE: u64 = 2_592_000;

/// The largest blast radius, in devices.
pub(super) const MOST_DEVICES: u64 = 10_000_000;

/// A fleet in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct FleetPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
}

/// A page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where it begins, as the page before said.
    pub cursor: Option<String>,
    /// At most so many items; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// List fleets
#[utoipa::path(
    tag = "fleets",
    params(PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Fleet>), List)
)]
#[get("/v1/fleets")]
pub async fn list_fleets(state: web::Data<State>, by: By, query: Query<PageQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let fleets = state.registrar.fleets(&by.0, &request).await?;
    Ok(ok(&page_of(fleets, wire::Fleet::from)))
}

/// Create a fleet, with its device authority and ledger
#[utoipa::path(
    tag = "fleets",
    params(IdempotencyKey),
    responses(
        (status = 201, description = "Created", body = wire::Fleet, headers(("Location" = String), ("ETag" = String))),
        (
            status = 202,
            description = "Not yet: the root's ceremony is asked (`waits_for_root`).",
            body = ProblemDocument,
            content_type = "application/problem+json"
        ),
        Act
    )
)]
#[post("/v1/fleets")]
pub async fn create_fleet(state: web::Data<State>, by: By, key: IdempotencyKey, body: Json<wire::NewFleet>) -> Answer {
    let idempotency = key.over(&body);
    let fleet = state.registrar.create_fleet(&by.0, body.value.try_into()?, idempotency, state.clock.now()).await?;
    let location = format!("/v1/fleets/{}", fleet.name);
    let version = fleet.version;
    Ok(created(&wire::Fleet::from(fleet), location, Some(version)))
}

/// One fleet
#[utoipa::path(
    tag = "fleets",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Fleet, headers(("ETag" = String))), Look)
)]
#[get("/v1/fleets/{fleet}")]
pub async fn show_fleet(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let fleet = state.registrar.fleet(&by.0, &path.0.fleet).await?;
    let version = fleet.version;
    Ok(versioned(&wire::Fleet::from(fleet), version))
}

/// Change a fleet's rules
#[utoipa::path(
    tag = "fleets",
    params(FleetPath, IfMatch),
    responses((status = 200, description = "As it is now", body = wire::Fleet, headers(("ETag" = String))), Change)
)]
#[patch("/v1/fleets/{fleet}")]
pub async fn change_fleet(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    read: IfMatch,
    body: Json<wire::FleetChange>,
) -> Answer {
    let change = body.value.try_into()?;
    let fleet = state.registrar.change_fleet(&by.0, &path.0.fleet, change, read.0, state.clock.now()).await?;
    let version = fleet.version;
    Ok(versioned(&wire::Fleet::from(fleet), version))
}

impl From<model::Fleet> for wire::Fleet {
    fn from(fleet: model::Fleet) -> Self {
        Self {
            name: fleet.name,
            state: if fleet.open { wire::FleetState::Open } else { wire::FleetState::Closed },
            profile: fleet.profile,
            unconfirmed_ttl_seconds: fleet.unconfirmed_ttl.map(|span| span.as_secs()),
            list_superseded: fleet.choices.list_superseded,
            list_quarantined: fleet.choices.list_quarantined,
            max_age_seconds: fleet.max_age.as_secs(),
            created_at: fleet.created_at,
            version: fleet.version,
            blast_radius: fleet.blast_radius,
        }
    }
}

impl TryFrom<wire::NewFleet> for NewFleet {
    type Error = Problem;

    fn try_from(new: wire::NewFleet) -> Result<Self, Problem> {
        Ok(Self {
            name: name("name", &new.name)?,
            profile: profile(new.profile)?,
            unconfirmed_ttl: ttl(new.unconfirmed_ttl_seconds)?,
            choices: Choices {
                list_superseded: new.list_superseded.unwrap_or_default(),
                list_quarantined: new.list_quarantined.unwrap_or_default(),
            },
            max_age: max_age(new.max_age_seconds)?,
            blast_radius: blast_radius(new.blast_radius)?,
        })
    }
}

impl TryFrom<wire::FleetChange> for FleetChange {
    type Error = Problem;

    fn try_from(change: wire::FleetChange) -> Result<Self, Problem> {
        Ok(Self {
            open: change.state.map(|state| state == wire::FleetState::Open),
            profile: profile(change.profile)?,
            unconfirmed_ttl: change.unconfirmed_ttl_seconds.map(ttl).transpose()?,
            list_superseded: change.list_superseded,
            list_quarantined: change.list_quarantined,
            max_age: max_age(change.max_age_seconds)?,
            blast_radius: change.blast_radius.map(blast_radius).transpose()?,
        })
    }
}

fn profile(profile: Option<String>) -> Result<Option<String>, Problem> {
    profile.map(|profile| text("profile", Some(profile), fleetmark_domain::name::MAX_NAME)).transpose()
}

fn ttl(seconds: Option<u64>) -> Result<Option<Duration>, Problem> {
    Ok(within("unconfirmed_ttl_seconds", seconds, 1, LONGEST_TTL)?.map(Duration::from_secs))
}

fn blast_radius(devices: Option<u64>) -> Result<Option<u64>, Problem> {
    within("blast_radius", devices, 1, MOST_DEVICES)
}

fn max_age(seconds: Option<u64>) -> Result<Option<Duration>, Problem> {
    Ok(within("max_age_seconds", seconds, 10, LONGEST_AGE)?.map(Duration::from_secs))
}
