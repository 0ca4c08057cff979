//! Moves between fleets, permits, renewal waves.

use fleetmark_domain::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::admin::schema;

/// A move into another fleet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Into which.
    #[schema(value_type = schema::FleetName)]
    pub to: String,
    /// For how long the token there holds; 86,400 (a day) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: Option<u64>,
    /// For the ledgers' details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// What one device is permitted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// Until when; null or not given: no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub until: Option<Timestamp>,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// A renewal wave to start.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWave {
    /// Certificates issued before this renew; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub issued_before: Option<Timestamp>,
    /// From when on; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub from: Option<Timestamp>,
    /// Until when: at most 366 days from now.
    #[schema(value_type = schema::Time)]
    pub until: Timestamp,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// A renewal wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wave {
    /// Certificates issued before this renew.
    #[schema(value_type = schema::Time)]
    pub issued_before: Timestamp,
    /// From when on.
    #[schema(value_type = schema::Time)]
    pub from: Timestamp,
    /// Until when.
    #[schema(value_type = schema::Time)]
    pub until: Timestamp,
    /// What the operator wrote.
    pub note: String,
}
