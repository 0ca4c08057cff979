//! Enrollment groups, their serials and their claim certificates.

use std::collections::BTreeMap;

use fleetmark_domain::terms::{NamePattern, Network};
use fleetmark_domain::{Fingerprint, FleetName, Name, RevocationReason, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SecretText;
use crate::http::admin::schema;
use crate::store::model::{GroupProof, NameMapping, SerialFrom};

/// Whether a group lets devices in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    /// It does.
    Enabled,
    /// Not now.
    Disabled,
    /// Never again.
    Ended,
}

/// What a group asks beside its proof. All rules hold together; what is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupRules {
    /// How many devices may come in.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub quota: Option<u64>,
    /// Patterns of names: `*` is any number of characters, `?` one; empty: any name.
    #[schema(value_type = Vec<String>, max_items = 16)]
    pub names: Vec<NamePattern>,
    /// Source networks, as `10.0.0.0/8`; empty: any.
    #[schema(value_type = Vec<String>, max_items = 16)]
    pub networks: Vec<Network>,
    /// From when on.
    #[schema(value_type = Option<schema::Time>)]
    pub opens_at: Option<Timestamp>,
    /// Until when.
    #[schema(value_type = Option<schema::Time>)]
    pub closes_at: Option<Timestamp>,
    /// A person approves each device.
    pub approval: bool,
    /// Only devices whose serial is listed come in; of a maker's or a claim group.
    pub listed_only: bool,
    /// Where a maker's certificate holds the serial number.
    #[schema(value_type = schema::SerialFrom)]
    pub serial_from: SerialFrom,
    /// How a maker's serial number becomes a name.
    #[schema(value_type = schema::NameMapping)]
    pub mapping: NameMapping,
    /// Put before a name that the mapping makes.
    #[schema(max_length = 40)]
    pub prefix: String,
    /// More devices in an hour raise an alarm; they are let in all the same.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub alarm_per_hour: Option<u64>,
    /// Attributes of the devices that the group registers.
    pub attributes: BTreeMap<String, String>,
}

/// A group to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// By what its devices come in.
    #[schema(value_type = schema::GroupProof)]
    pub proof: GroupProof,
    /// Of a maker: 1 to 8 CA certificates in PEM.
    #[serde(default)]
    pub ca: Option<String>,
    /// Of derived keys: the group's key, 32 to 64 octets in base64; the server makes one unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub key: Option<SecretText>,
    /// What it asks beside its proof.
    #[serde(default)]
    pub rules: GroupRules,
}

/// What to change of a group; what is not named stays.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// Of a maker: the CA certificates anew, 1 to 8 in PEM.
    #[serde(default)]
    pub ca: Option<String>,
    /// Rules to change, a merge patch (RFC 7396): null takes a rule away.
    #[serde(default)]
    #[schema(value_type = Option<GroupRules>)]
    pub rules: Option<serde_json::Map<String, serde_json::Value>>,
}

/// An enrollment group.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: Name,
    /// Its fleet.
    #[schema(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// By what its devices come in.
    #[schema(value_type = schema::GroupProof)]
    pub proof: GroupProof,
    /// Whether it lets devices in.
    pub state: GroupState,
    /// What it asks beside its proof.
    pub rules: GroupRules,
    /// How many devices came in.
    pub admitted: u64,
    /// Of a maker: its CA certificates.
    pub makers: Vec<MakerCertificate>,
    /// Of a claim: the newest claim certificate.
    pub claim: Option<ClaimCertificate>,
    /// When it was made.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// Rises with every change; the `ETag`.
    pub version: u64,
}

/// A group just made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeGroup {
    /// The record.
    #[serde(flatten)]
    pub record: Group,
    /// Of derived keys, where the server made it: the group's key in base64, shown this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<SecretText>,
}

/// A maker's CA certificate.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MakerCertificate {
    /// SHA-256 over it.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// End of its validity.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
}

/// A claim certificate's record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimCertificate {
    /// Its serial.
    #[schema(value_type = schema::Serial)]
    pub serial: String,
    /// SHA-256 over it.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// What it is worth.
    #[schema(value_type = schema::Standing)]
    pub standing: String,
    /// Why it was revoked.
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// End of its validity.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
}

/// A claim certificate to issue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClaim {
    /// PKCS#10 in PEM, or its DER in base64.
    pub csr: String,
    /// Whether to revoke the group's claim certificate that still holds; refused otherwise.
    #[serde(default)]
    pub replace: bool,
}

/// A claim certificate just issued.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// Its group.
    #[schema(value_type = schema::Name)]
    pub group: Name,
    /// The record.
    #[serde(flatten)]
    pub record: ClaimCertificate,
    /// The certificate in PEM, then its authority's.
    pub certificate: String,
    /// The root in PEM.
    pub trust_bundle: String,
}

/// A serial that a group lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedSerial {
    /// The serial number, as it stands in the maker's certificate, or as the device says it for its name.
    #[schema(min_length = 1, max_length = 128)]
    pub serial: String,
    /// The name under which that device enrolls; null: as the group's mapping, or the device, says.
    #[serde(default)]
    #[schema(value_type = Option<schema::Name>)]
    pub device: Option<Name>,
}

/// What a change of a list of serials did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SerialsChange {
    /// How many the request listed.
    pub listed: u64,
    /// How many were taken off.
    pub removed: u64,
}

/// A body that says nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}
