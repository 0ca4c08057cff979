//! Devices, gateways, services, operators.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetmark_domain::{FleetName, Kind, Name, Role, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SecretText, present};
use crate::http::admin::schema;

/// Whether somebody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubjectState {
    /// Known; has no confirmed certificate yet.
    Registered,
    /// Has, or had, a confirmed certificate.
    Active,
    /// Put out; gets no certificate any more.
    Retired,
    /// Released for a move into another fleet.
    Released,
}

/// A device, with the certificate that counts: the newest confirmed one, or before the first its newest.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its SPIFFE ID.
    pub identity: String,
    /// Its fleet.
    #[schema(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: Name,
    /// Whether it is let in.
    pub state: SubjectState,
    /// What operators wrote down about it.
    pub attributes: BTreeMap<String, String>,
    /// Which of its certificates it is, from 1; 0: it has none.
    pub generation: u32,
    /// That certificate's serial.
    #[schema(value_type = Option<schema::Serial>)]
    pub certificate: Option<String>,
    /// That certificate's standing.
    #[schema(value_type = Option<schema::Standing>)]
    pub standing: Option<String>,
    /// That certificate's end.
    #[schema(value_type = Option<schema::Time>)]
    pub not_after: Option<Timestamp>,
    /// Where it is released to; of one that is retired: where it moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::FleetName>)]
    pub moving_to: Option<FleetName>,
    /// Until then its expired certificate may still be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub renewal_permitted_until: Option<Timestamp>,
    /// Until then it may enroll anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub enrollment_permitted_until: Option<Timestamp>,
    /// It gets no renewal until an operator permits it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewals_held: bool,
    /// When it was registered.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// Rises with every change of the record; the `ETag`.
    pub version: u64,
}

/// A device to register.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// At most 32; keys and values of at most 256 characters.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// What to change of a device's record; what is not named stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// All attributes anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
}

/// A gateway, service or operator, with the certificate that counts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its SPIFFE ID.
    pub identity: String,
    /// Its kind.
    #[schema(value_type = schema::Kind)]
    pub kind: Kind,
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: Name,
    /// Whether it is let in.
    pub state: SubjectState,
    /// An operator's role.
    #[schema(value_type = Option<schema::Role>)]
    pub role: Option<Role>,
    /// The fleets granted; null: all.
    #[schema(value_type = Option<Vec<schema::FleetName>>)]
    pub fleets: Option<Vec<FleetName>>,
    /// DNS names in its certificate.
    pub dns_names: Vec<String>,
    /// Addresses in its certificate.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Which of its certificates it is, from 1; 0: it has none.
    pub generation: u32,
    /// That certificate's serial.
    #[schema(value_type = Option<schema::Serial>)]
    pub certificate: Option<String>,
    /// That certificate's standing.
    #[schema(value_type = Option<schema::Standing>)]
    pub standing: Option<String>,
    /// That certificate's end.
    #[schema(value_type = Option<schema::Time>)]
    pub not_after: Option<Timestamp>,
    /// When it was admitted.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// Rises with every change of the record; the `ETag`.
    pub version: u64,
}

/// A member just admitted, with its invitation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Admitted {
    /// The record.
    #[serde(flatten)]
    pub member: Member,
    /// The invitation's text: shown this once.
    #[schema(value_type = String)]
    pub token: SecretText,
    /// When the invitation ends.
    #[schema(value_type = schema::Time)]
    pub token_expires_at: Timestamp,
}

/// An operator to admit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// Its role.
    #[schema(value_type = schema::Role)]
    pub role: Role,
    /// The fleets granted; null or not given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::FleetName>>)]
    pub fleets: Option<Vec<String>>,
    /// For how long the invitation holds; 86,400 (a day) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: Option<u64>,
}

/// A gateway or service to admit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEndpoint {
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// The fleets granted; null or not given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::FleetName>>)]
    pub fleets: Option<Vec<String>>,
    /// DNS names for its certificate.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub dns_names: Vec<String>,
    /// Addresses for its certificate.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 16)]
    pub addresses: Vec<IpAddr>,
    /// For how long the invitation holds; 86,400 (a day) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: Option<u64>,
}

/// What to change of an operator; what is not named stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorChange {
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Role>)]
    pub role: Option<Role>,
    /// The fleets granted; null: all.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::FleetName>>)]
    pub fleets: Option<Option<Vec<String>>>,
}

/// What to change of a gateway or service; what is not named stays. Names and addresses count from the next
/// certificate on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChange {
    /// The fleets granted; null: all.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::FleetName>>)]
    pub fleets: Option<Option<Vec<String>>>,
    /// DNS names for its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 16)]
    pub dns_names: Option<Vec<String>>,
    /// Addresses for its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, max_items = 16)]
    pub addresses: Option<Vec<IpAddr>>,
}

/// A fresh invitation to mint.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// For how long it holds; 86,400 (a day) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: Option<u64>,
}
