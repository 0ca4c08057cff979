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
    /// In place of that: certificates of the fleet's authorities that issue no more renew, and so come under the active one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_active_authority: bool,
    /// From when on; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub from: Option<Timestamp>,
    /// Until when: at most 366 days from now. This, or `devices_per_hour`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub until: Option<Timestamp>,
    /// How many devices an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub devices_per_hour: Option<u64>,
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
    /// In place of that: certificates of the fleet's authorities that issue no more renew.
    pub to_active_authority: bool,
    /// From when on.
    #[schema(value_type = schema::Time)]
    pub from: Timestamp,
    /// Until when.
    #[schema(value_type = schema::Time)]
    pub until: Timestamp,
    /// How many devices an hour, where it was started so.
    pub devices_per_hour: Option<u64>,
    /// How many devices it was for when it was started.
    pub devices: u64,
    /// Since when it stands still; null: it runs.
    #[schema(value_type = Option<schema::Time>)]
    pub paused_at: Option<Timestamp>,
    /// What the operator wrote.
    pub note: String,
}

/// A renewal wave, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaveProgress {
    /// The wave.
    #[serde(flatten)]
    pub wave: Wave,
    /// Devices whose certificate in use is one that it is for.
    pub waiting: u64,
    /// Of them, those that are suspended or quarantined, and cannot renew.
    pub suspended: u64,
    /// Devices whose certificate in use is none of those: they renewed, or enrolled since.
    pub renewed: u64,
    /// New certificates that are not confirmed yet.
    pub unconfirmed: u64,
}
