//! Fleets and tokens.

use fleetmark_domain::{FleetName, Kind, Name, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SecretText, present};
use crate::http::admin::schema;

/// Whether a fleet takes enrollments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FleetState {
    /// It does.
    Open,
    /// It does not.
    Closed,
}

/// A fleet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Fleet {
    /// Its name, which is also its ledger's.
    #[schema(value_type = schema::FleetName)]
    pub name: FleetName,
    /// Whether it takes enrollments.
    pub state: FleetState,
    /// The profile of its devices' certificates.
    pub profile: String,
    /// The time to live of unconfirmed certificates; null: the profile's.
    pub unconfirmed_ttl_seconds: Option<u64>,
    /// Whether revocation lists name superseded certificates.
    pub list_superseded: bool,
    /// Whether revocation lists name quarantined certificates, as held.
    pub list_quarantined: bool,
    /// After how long without news a gateway refuses.
    pub max_age_seconds: u64,
    /// When it was created.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// Rises with every change; the `ETag`.
    pub version: u64,
    /// How many devices one operator may change in an hour; null: the larger of 10 and 1 % of the fleet's.
    pub blast_radius: Option<u64>,
}

/// A fleet to create.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFleet {
    /// Its name.
    #[schema(value_type = schema::FleetName)]
    pub name: String,
    /// The profile of its devices' certificates; `device` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63)]
    pub profile: Option<String>,
    /// The time to live of unconfirmed certificates; the profile's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub unconfirmed_ttl_seconds: Option<u64>,
    /// Whether revocation lists name superseded certificates; false unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_superseded: Option<bool>,
    /// Whether revocation lists name quarantined certificates, as held; false unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_quarantined: Option<bool>,
    /// After how long without news a gateway refuses; 900 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 2_592_000)]
    pub max_age_seconds: Option<u64>,
    /// How many devices one operator may change in an hour; the larger of 10 and 1 % of the fleet's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub blast_radius: Option<u64>,
}

/// What to change of a fleet; what is not named stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetChange {
    /// Whether it takes enrollments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<FleetState>,
    /// The profile of its devices' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63)]
    pub profile: Option<String>,
    /// The time to live of unconfirmed certificates; null: the profile's.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 315_360_000)]
    pub unconfirmed_ttl_seconds: Option<Option<u64>>,
    /// Whether revocation lists name superseded certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_superseded: Option<bool>,
    /// Whether revocation lists name quarantined certificates, as held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_quarantined: Option<bool>,
    /// After how long without news a gateway refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 2_592_000)]
    pub max_age_seconds: Option<u64>,
    /// How many devices one operator may change in an hour; null: the larger of 10 and 1 % of the fleet's.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 10_000_000)]
    pub blast_radius: Option<Option<u64>>,
}

/// What one operator allowed another beyond a fleet's blast radius.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Allowance {
    /// Whom: an operator's name.
    #[schema(value_type = schema::Name)]
    pub operator: Name,
    /// How many more devices in an hour.
    pub devices: u64,
    /// Who allowed it: an operator's name.
    #[schema(value_type = schema::Name)]
    pub allowed_by: Name,
    /// When.
    #[schema(value_type = schema::Time)]
    pub allowed_at: Timestamp,
    /// Until when it holds.
    #[schema(value_type = schema::Time)]
    pub expires_at: Timestamp,
}

/// An allowance to give; never to oneself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAllowance {
    /// Whom: an operator's name.
    #[schema(value_type = schema::Name)]
    pub operator: String,
    /// How many more devices in an hour.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub devices: u64,
    /// For how many hours; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 24)]
    pub hours: Option<u64>,
}

/// Where a token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// Not used yet.
    Fresh,
    /// Used, and bound to that key until its certificate is confirmed.
    Reserved,
    /// Used up.
    Used,
    /// Withdrawn by an operator.
    Withdrawn,
    /// Not used in time.
    Expired,
}

/// An enrollment token, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its public id: 16 hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub id: String,
    /// What it admits.
    #[schema(value_type = schema::Kind)]
    pub kind: Kind,
    /// For which fleet; null: an invitation of a gateway, service or operator.
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// The one name that it admits; null: whoever comes first, under the name that it asks for.
    #[schema(value_type = Option<schema::Name>)]
    pub device: Option<Name>,
    /// Where it is in its life.
    pub state: TokenState,
    /// For how many devices it is.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub uses: u64,
    /// How many came in by it.
    pub spent: u64,
    /// How many more may.
    pub remaining: u64,
    /// Patterns, of which a name must fit one; none: any name.
    pub names: Vec<String>,
    /// Networks, in one of which a device must be; none: any.
    pub networks: Vec<String>,
    /// From when on it may be used.
    #[schema(value_type = Option<schema::Time>)]
    pub opens_at: Option<Timestamp>,
    /// Whether a person approves each device.
    pub approval: bool,
    /// When it ends.
    #[schema(value_type = schema::Time)]
    pub expires_at: Timestamp,
    /// When it was minted.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// What the operator wrote.
    pub note: String,
}

/// A token just minted, with its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MintedToken {
    /// The record.
    #[serde(flatten)]
    pub record: Token,
    /// The text for the device: shown this once.
    #[schema(value_type = String)]
    pub token: SecretText,
}

/// A token to mint.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The one device that it admits, which is registered if it is not known; whoever comes first unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Name>)]
    pub device: Option<String>,
    /// For how many devices it is; 1 unless given. One that is bound to a device is for that one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub uses: Option<u64>,
    /// Patterns, of which a name must fit one: `sensor-*`, `cam-??`; any name unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub names: Vec<String>,
    /// Networks, in one of which a device must be: `10.0.0.0/8`, `2001:db8::/32`; any unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub networks: Vec<String>,
    /// From when on it may be used; at once unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub opens_at: Option<Timestamp>,
    /// Whether a person approves each device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
    /// For how long it holds; 86,400 (a day) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub note: Option<String>,
}
