//! Requests that a person decides, and fleets' hooks.

use fleetmark_domain::{Name, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SecretText;
use crate::http::admin::schema;

/// Where a request for approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Not decided.
    Waiting,
    /// The same request will succeed.
    Approved,
    /// It will not.
    Refused,
    /// It has its certificate.
    Done,
}

/// A request that a person decides.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrollmentRequest {
    /// Its id: 16 hexadecimal digits.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub id: String,
    /// The name that the device asks for.
    #[schema(value_type = schema::Name)]
    pub device: Name,
    /// Where it is.
    pub state: RequestState,
    /// SHA-256 over the key's `SubjectPublicKeyInfo`: to be compared with what the device shows.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub key_sha256: String,
    /// The key's algorithm: `P-256`, `P-384`, `Ed25519` or `RSA`.
    pub key_type: String,
    /// By what proof it came: `token 0123…`, `group NAME`.
    pub proof: String,
    /// The address that it came from first.
    pub source: Option<String>,
    /// When it came first.
    #[schema(value_type = schema::Time)]
    pub asked_at: Timestamp,
    /// When it is forgotten.
    #[schema(value_type = schema::Time)]
    pub expires_at: Timestamp,
    /// When it was decided.
    #[schema(value_type = Option<schema::Time>)]
    pub decided_at: Option<Timestamp>,
    /// Who decided it: an operator's name.
    #[schema(value_type = Option<schema::Name>)]
    pub decided_by: Option<Name>,
    /// Why it was refused, or what the operator wrote.
    pub reason: String,
}

/// An approval.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub note: Option<String>,
}

/// A refusal.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoApproval {
    /// Why; whoever holds the key is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub reason: Option<String>,
    /// Refuse it even where it was approved, as long as it has no certificate.
    #[serde(default)]
    pub take_back: bool,
}

/// A hook to set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHook {
    /// Where: `https://…`, without user, password and fragment.
    #[schema(max_length = 2048)]
    pub url: String,
    /// 1 to 16 root certificates in PEM that its server is verified against; the machine's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// Whether the secret stays as it is; else there is a new one.
    #[serde(default)]
    pub keep_secret: bool,
}

/// A fleet's hook.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Where.
    pub url: String,
    /// Root certificates in PEM that its server is verified against; null: the machine's.
    pub roots: Option<String>,
    /// The fleet's version; the `ETag`.
    pub version: u64,
}

/// A hook just set, with its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HookSet {
    /// As it is now.
    #[serde(flatten)]
    pub hook: Hook,
    /// The key of the signatures, 32 octets in hexadecimal: shown this once. Null where the old one stays.
    #[schema(value_type = Option<String>)]
    pub secret: Option<SecretText>,
}

/// What came of asking a hook on trial.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HookTrial {
    /// Whether it answered so that the answer counts.
    pub usable: bool,
    /// Its decision: `allow`, `refuse`, `amend`; or what was in the way: `busy`, `timeout`, `unreachable`, `tls`, `status`,
    /// `too_large`, `signature`, `unreadable`, `unusable`.
    pub outcome: String,
    /// Its reason, or more about what was in the way.
    pub detail: Option<String>,
}
