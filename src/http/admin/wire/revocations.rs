//! Orders: the standing of many certificates is changed at once.

use std::collections::BTreeMap;

use fleetmark_domain::{Name, RevocationReason, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SubjectState;
use crate::http::admin::schema;

/// What is to happen to the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderAct {
    /// They end for ever.
    #[default]
    Revoke,
    /// They are suspended.
    Hold,
    /// Policy decides what their holders may still do.
    Quarantine,
    /// Suspension or quarantine ends.
    Release,
}

/// Where an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// It runs at its time.
    Scheduled,
    /// A second operator must approve it.
    AwaitingApproval,
    /// It is under way.
    Running,
    /// All of it was done.
    Done,
    /// It was cancelled; what was done before stays done.
    Cancelled,
    /// Nobody approved it in time.
    Expired,
    /// When its time came, whoever ordered or approved it had lost the right to.
    Failed,
}

/// An order to give.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRevocationOrder {
    /// Whose devices. May be left out where a certificate, a public key or an authority tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<String>,
    /// What is to happen; `revoke` unless given.
    #[serde(default)]
    pub act: OrderAct,
    /// A reason of RFC 5280 5.3.1, of a revocation; `unspecified` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// Which certificates.
    pub select: Selection,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
    /// Not before this, at most 366 days ahead; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub at: Option<Timestamp>,
}

/// Which certificates: exactly one of these.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// These, by serial; at most 10,000, all of one fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Serial>>)]
    pub certificates: Option<Vec<String>>,
    /// All of these devices', by name; at most 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Name>>)]
    pub devices: Option<Vec<String>>,
    /// All of the devices' that came in by this enrollment group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Name>)]
    pub group: Option<String>,
    /// All of the devices' that came in by a group that takes certificates of this maker's CA: SHA-256 over the CA's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Fingerprint>)]
    pub maker: Option<String>,
    /// The one of this public key: SHA-256 over its `SubjectPublicKeyInfo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub public_key: Option<String>,
    /// All that this authority issued, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<u32>,
    /// All of the fleet's that meet conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<RevocationQuery>,
}

/// Conditions, which hold together.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationQuery {
    /// The device's name, in any case; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub name: Option<String>,
    /// The device has these attributes; at most 8.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The device is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SubjectState>,
    /// The device came in by this enrollment group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Name>)]
    pub group: Option<String>,
    /// The certificate is of this standing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Standing>)]
    pub standing: Option<String>,
    /// It was issued before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub issued_before: Option<Timestamp>,
    /// It was issued at or after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub issued_after: Option<Timestamp>,
    /// It ends before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub ends_before: Option<Timestamp>,
    /// All of the fleet; goes with no condition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
}

/// What an order would do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevocationPreview {
    /// The ledger where it would be written: a fleet's, or `system`.
    pub ledger: String,
    /// Which certificates, for people.
    pub selection: String,
    /// How many devices (gateways, services) it reaches.
    pub devices: u64,
    /// How many certificates it would change.
    pub certificates: u64,
    /// Whether a second operator would have to approve it.
    pub needs_approval: bool,
    /// How many devices the caller changed in the last hour; null where the order is no fleet's.
    pub used: Option<u64>,
    /// How many the caller may change in an hour alone; null where the order is no fleet's.
    pub limit: Option<u64>,
}

/// An order.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevocationOrder {
    /// Its id: 16 hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub id: String,
    /// Where it is.
    pub state: OrderState,
    /// The ledger where it is written: a fleet's, or `system`.
    pub ledger: String,
    /// What happens to the certificates.
    pub act: OrderAct,
    /// Why, of a revocation.
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// Which certificates, for people.
    pub selection: String,
    /// What the operator wrote.
    pub note: String,
    /// How many devices (gateways, services) it reached when it was counted last: when it was ordered, approved, begun.
    pub devices: u64,
    /// How many certificates it was to change by then.
    pub certificates: u64,
    /// How many it has changed.
    pub changed: u64,
    /// Who ordered it.
    #[schema(value_type = schema::Name)]
    pub ordered_by: Name,
    /// When.
    #[schema(value_type = schema::Time)]
    pub ordered_at: Timestamp,
    /// Not before this.
    #[schema(value_type = schema::Time)]
    pub runs_at: Timestamp,
    /// Until when it may be approved, while it waits for that.
    #[schema(value_type = Option<schema::Time>)]
    pub approve_before: Option<Timestamp>,
    /// The second operator.
    #[schema(value_type = Option<schema::Name>)]
    pub approved_by: Option<Name>,
    /// When that one approved it.
    #[schema(value_type = Option<schema::Time>)]
    pub approved_at: Option<Timestamp>,
    /// Who cancelled it.
    #[schema(value_type = Option<schema::Name>)]
    pub cancelled_by: Option<Name>,
    /// When it began.
    #[schema(value_type = Option<schema::Time>)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<schema::Time>)]
    pub ended_at: Option<Timestamp>,
    /// Why it failed: the code of a refusal.
    pub failure: Option<String>,
}
