//! Ledgers, who calls, how the server is.

use fleetmark_domain::{FleetName, Role, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::certificates::{AuthorityKind, AuthorityState, KeyHome};
use crate::http::admin::schema;

/// A ledger.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// `system`, or the fleet's name.
    pub name: String,
    /// The first line of its checkpoints.
    pub origin: String,
    /// The key that verifies them (C2SP signed-note).
    pub vkey: String,
    /// How many entries.
    pub size: u64,
    /// The Merkle tree hash over them, in base64.
    pub root: String,
}

/// A ledger's entry.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// From 0.
    pub position: u64,
    /// Deterministic CBOR, in base64 (docs/ledger.md).
    pub entry: String,
    /// The details that it commits to, CBOR in base64; null where there are none or where they were erased.
    pub details: Option<String>,
}

/// Entries of a ledger.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntries {
    /// In order, without a gap.
    pub items: Vec<LedgerEntry>,
}

/// A Merkle proof (RFC 6962 2.1).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// Its hashes, in base64.
    pub hashes: Vec<String>,
}

/// Who calls.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// Your SPIFFE ID.
    pub identity: String,
    /// Your role.
    #[schema(value_type = Option<schema::Role>)]
    pub role: Option<Role>,
    /// The fleets granted; null: all.
    #[schema(value_type = Option<Vec<schema::FleetName>>)]
    pub fleets: Option<Vec<FleetName>>,
    /// Your certificate.
    #[schema(value_type = schema::Serial)]
    pub serial: String,
    /// Its end.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
    /// When to renew it.
    #[schema(value_type = schema::Time)]
    pub renew_after: Timestamp,
}

/// How the server is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The installation's trust domain.
    pub trust_domain: String,
    /// When the process started.
    #[schema(value_type = schema::Time)]
    pub started_at: Timestamp,
    /// The server's clock.
    #[schema(value_type = schema::Time)]
    pub now: Timestamp,
    /// Acts that wait for the writer.
    pub queue: Queue,
    /// The ledgers that you may read.
    pub ledgers: Vec<LedgerHead>,
    /// The newest revocation list of each authority.
    pub crls: Vec<CrlStatus>,
    /// The authorities.
    pub authorities: Vec<AuthorityStatus>,
    /// Whether the PKCS#11 token answers, as far as is known; null where there is none.
    pub token_reachable: Option<bool>,
}

/// Acts that wait for the writer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Revocations, holds, quarantines.
    pub urgent: usize,
    /// All else.
    pub ordinary: usize,
}

/// A ledger's size.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LedgerHead {
    /// `system`, or the fleet's name.
    pub name: String,
    /// How many entries.
    pub size: u64,
}

/// A revocation list's age.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CrlStatus {
    /// Whose.
    pub authority: u32,
    /// Its number.
    pub number: u64,
    /// When it was made.
    #[schema(value_type = schema::Time)]
    pub this_update: Timestamp,
    /// Until when it holds.
    #[schema(value_type = schema::Time)]
    pub next_update: Timestamp,
}

/// An authority's end.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuthorityStatus {
    /// Its id.
    pub id: u32,
    /// What it issues for.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// Where its key lives.
    pub key: KeyHome,
    /// End of validity.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
}
