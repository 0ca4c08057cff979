//! The block list of keys.

use fleetmark_domain::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A key that nobody gets a certificate for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BlockedKey {
    /// SHA-256 over its `SubjectPublicKeyInfo`, hexadecimal.
    pub key: String,
    /// What the operator wrote.
    pub reason: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub blocked_at: Timestamp,
}

/// Keys to put on the block list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockKeys {
    /// SHA-256 over each `SubjectPublicKeyInfo`, hexadecimal; at most 500.
    #[schema(min_items = 1, max_items = 500)]
    pub keys: Vec<String>,
    /// For people; at most 256 characters.
    #[serde(default)]
    #[schema(max_length = 256)]
    pub reason: String,
}

/// A key that is off the block list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnblockedKey {
    /// SHA-256 over its `SubjectPublicKeyInfo`, hexadecimal.
    pub key: String,
}
