//! Policy sets, and questions to try them with.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetmark_domain::{Identity, Kind, LedgerName, Role, Standing, Timestamp};
use fleetmark_policy::{Act, Context, Decision, Finding, Policies, Principal, Request, Resource};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::admin::schema;

/// A text to check.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// Cedar, at most 256 KiB.
    pub text: String,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyCheck {
    /// Whether it could be put.
    pub ok: bool,
    /// What is wrong with it; empty where nothing is.
    pub findings: Vec<PolicyFinding>,
}

/// One thing that is wrong with a text.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyFinding {
    /// From 1; 0 where it is about the whole.
    pub line: usize,
    /// In characters, from 1; 0 where it is about the whole.
    pub column: usize,
    /// The policy's id, where it is about one.
    pub policy: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// A policy set to put.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPolicySet {
    /// Cedar, at most 256 KiB.
    pub text: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub note: Option<String>,
}

/// A policy set, as it was put.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicySet {
    /// `system`, or the fleet's name.
    pub scope: String,
    /// From 1 in each scope.
    pub version: u64,
    /// SHA-256 over the text, in hexadecimal: what the ledger's entry holds.
    pub hash: String,
    /// Cedar.
    pub text: String,
    /// What the operator wrote.
    pub note: String,
    /// When it was put.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// By whom: a SPIFFE ID, or `fleetmark` for the server itself.
    pub created_by: String,
}

/// A policy set in a list, without its text.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyVersion {
    /// From 1 in each scope.
    pub version: u64,
    /// Whether it counts.
    pub active: bool,
    /// SHA-256 over the text, in hexadecimal.
    pub hash: String,
    /// What the operator wrote.
    pub note: String,
    /// When it was put.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// The policy set that counts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActivePolicy {
    /// `system`, or the fleet's name.
    pub scope: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over the text, in hexadecimal.
    pub hash: String,
    /// Cedar.
    pub text: String,
    /// Since when it counts.
    #[schema(value_type = schema::Time)]
    pub activated_at: Timestamp,
    /// By whom: a SPIFFE ID, or `fleetmark` for the server itself.
    pub by: String,
    /// Whether this version of Fleetmark can use it; where not, the scope denies.
    pub usable: bool,
}

/// Why a set is activated.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub note: Option<String>,
}

/// What an activation did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActivatedPolicy {
    /// `system`, or the fleet's name.
    pub scope: String,
    /// The version that counts now.
    pub version: u64,
    /// SHA-256 over its text, in hexadecimal.
    pub hash: String,
    /// Since when it counts.
    #[schema(value_type = schema::Time)]
    pub activated_at: Timestamp,
    /// By whom.
    pub by: String,
    /// Whether this call changed anything; false where this version counted already.
    pub changed: bool,
    /// The ledger with the entry.
    pub ledger: String,
    /// The entry's position; null where nothing changed.
    pub position: Option<u64>,
}

/// A question to try policies with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyQuestion {
    /// Who: a SPIFFE ID.
    pub principal: String,
    /// An operator's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Role>)]
    pub role: Option<Role>,
    /// What its certificate is worth; good unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Standing>)]
    pub standing: Option<String>,
    /// What its record says; nothing unless given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What: `Enroll`, `Renew`, `Connect`, `Publish`, `Subscribe`, `Command`, or an act at the admin door such as `Read`.
    pub action: String,
    /// To which topic, or topic filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub topic: Option<String>,
    /// What it speaks, such as `mqtt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub protocol: Option<String>,
    /// The version of its firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub firmware: Option<String>,
    /// The address that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// When; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub time: Option<Timestamp>,
    /// A text to try in the place of the scope's set; at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What the policies say.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyAnswer {
    /// Whether they permit it.
    pub allow: bool,
    /// The policies that decided, `installation/ID` or `fleet/ID`; none where nothing permitted it.
    pub policies: Vec<String>,
    /// What went wrong; then the answer is no.
    pub errors: Vec<String>,
}

impl PolicyQuestion {
    /// Asks `policies`, the sets that count for something of `scope`.
    ///
    /// # Errors
    /// The field that says nothing that could be asked, and what it should say.
    pub fn ask(&self, policies: &Policies, scope: &LedgerName, now: Timestamp) -> Result<PolicyAnswer, String> {
        let (_, identity) = Identity::parse(&self.principal).map_err(|error| format!("principal: {error}"))?;
        let act: Act = self.action.parse().map_err(|error| format!("action: {error}"))?;
        let decision = policies.decide(&Request {
            principal: Principal {
                identity: &identity,
                standing: self.standing()?,
                attributes: &self.attributes,
                role: self.role,
            },
            act,
            resource: self.resource(act, identity.kind(), scope)?,
            context: Context {
                time: self.time.unwrap_or(now),
                source: self.source,
                protocol: self.protocol.as_deref(),
                firmware: self.firmware.as_deref(),
            },
        });
        Ok(decision.into())
    }

    fn standing(&self) -> Result<Standing, String> {
        let Some(word) = &self.standing else { return Ok(Standing::Good) };
        let standings = (0..).map_while(|code| Standing::from_code(code, None));
        let mut found = standings.filter(|standing| standing.as_str() == word);
        found.next().ok_or_else(|| format!("standing: one of {}", schema::STANDINGS.join(", ")))
    }

    /// What the server and gateways ask of: a topic; the installation where what is asked for reaches beyond fleets; else the
    /// scope.
    fn resource<'a>(&'a self, act: Act, kind: Kind, scope: &'a LedgerName) -> Result<Resource<'a>, String> {
        match (act, &self.topic) {
            (Act::Publish | Act::Subscribe | Act::Command, Some(topic)) => return Ok(Resource::Topic(topic)),
            (Act::Publish | Act::Subscribe, None) => return Err("topic: say which".to_owned()),
            (_, Some(_)) => return Err("topic: for Publish, Subscribe and Command alone".to_owned()),
            (_, None) => {}
        }
        let is_installation_wide = match act {
            Act::Enroll | Act::Renew => kind != Kind::Device,
            Act::Admin(action) => action.is_installation_wide(),
            _ => false,
        };
        Ok(match scope {
            LedgerName::Fleet(fleet) if !is_installation_wide => Resource::Fleet(fleet),
            _ => Resource::Installation,
        })
    }
}

impl From<Decision> for PolicyAnswer {
    fn from(decision: Decision) -> Self {
        let policies = decision.policies.iter().map(ToString::to_string).collect();
        Self { allow: decision.allow, policies, errors: decision.errors }
    }
}

impl From<Finding> for PolicyFinding {
    fn from(finding: Finding) -> Self {
        let Finding { line, column, policy, message } = finding;
        Self { line, column, policy, message }
    }
}

impl From<Vec<Finding>> for PolicyCheck {
    fn from(findings: Vec<Finding>) -> Self {
        Self { ok: findings.is_empty(), findings: findings.into_iter().map(PolicyFinding::from).collect() }
    }
}
