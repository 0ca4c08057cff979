//! The root's ceremony.

use fleetmark_domain::{FleetName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::certificates::AuthorityKind;
use crate::http::admin::schema;

/// What the root is asked for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RootRequest {
    /// Its name, in request and answer.
    pub id: String,
    /// What the authority is to issue for; `root` where a corporate authority is asked to certify our root.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// Whether the ceremony answered.
    pub state: RootRequestState,
    /// When.
    #[schema(value_type = schema::Time)]
    pub asked_at: Timestamp,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RootRequestState {
    /// For the ceremony.
    Waiting,
    /// The authority is certified; what waited for it can be asked for again.
    Answered,
}

/// The answer of the root's ceremony, as `fleetmark root sign` writes it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RootAnswer {
    /// `fleetmark root answer 1`.
    pub format: String,
    /// The root's certificate, in PEM.
    pub root: String,
    /// The authorities that were certified.
    pub authorities: Vec<CertifiedAuthority>,
    /// The root's newest revocation list, in PEM.
    pub list: String,
    /// The record of the ceremony.
    pub record: String,
    /// The root's signature over the record: detached CMS, in PEM.
    pub signature: String,
    /// The root's signature for a trust bundle, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The records before this one, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
}

/// An authority that was certified.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertifiedAuthority {
    /// The request's name.
    pub id: String,
    /// The certificate, in PEM.
    pub certificate: String,
}

/// What an answer brought.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AcceptedAnswer {
    /// The record's number.
    pub record: u64,
    /// SHA-256 over its text, hexadecimal.
    pub record_sha256: String,
    /// The requests that were answered.
    pub answered: Vec<RootRequest>,
    /// The number of the root's revocation list.
    pub list: u64,
    /// Until when the list holds.
    #[schema(value_type = schema::Time)]
    pub list_holds_until: Timestamp,
    /// Authorities that the list names, and that were revoked here by it.
    pub revoked: Vec<u32>,
}

/// Revocation lists of the corporate authorities above the root.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RootLists {
    /// 1 to 16 lists in PEM.
    pub lists: String,
}

/// The corporate authorities' lists.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CorporateLists {
    /// The newest of each.
    pub lists: Vec<CorporateList>,
}

/// A corporate authority's list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CorporateList {
    /// Its number.
    pub number: u64,
    /// When it was made.
    #[schema(value_type = schema::Time)]
    pub this_update: Timestamp,
    /// Until when it holds.
    #[schema(value_type = schema::Time)]
    pub next_update: Timestamp,
}
