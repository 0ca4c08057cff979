//! What there is behind the admin door, and which right each takes: the rows of the caller × action × resource matrix.

use std::sync::OnceLock;

use actix_web::dev::ResourceDef;
use fleetmark_domain::Action;

/// Method, path pattern, and the action that the registrar asks the caller's role for. A test keeps this list and the
/// `OpenAPI` document alike.
pub const ROUTES: &[(&str, &str, Action)] = &[
    ("GET", "/v1/fleets", Action::Read),
    ("POST", "/v1/fleets", Action::ManageFleets),
    ("GET", "/v1/fleets/{fleet}", Action::Read),
    ("PATCH", "/v1/fleets/{fleet}", Action::ManageFleets),
    ("GET", "/v1/fleets/{fleet}/allowances", Action::Read),
    ("POST", "/v1/fleets/{fleet}/allowances", Action::ChangeStanding),
    ("GET", "/v1/fleets/{fleet}/groups", Action::Read),
    ("POST", "/v1/fleets/{fleet}/groups", Action::ManagePolicy),
    ("GET", "/v1/fleets/{fleet}/groups/{group}", Action::Read),
    ("PATCH", "/v1/fleets/{fleet}/groups/{group}", Action::ManagePolicy),
    ("POST", "/v1/fleets/{fleet}/groups/{group}/enable", Action::ManagePolicy),
    ("POST", "/v1/fleets/{fleet}/groups/{group}/disable", Action::ManagePolicy),
    ("POST", "/v1/fleets/{fleet}/groups/{group}/end", Action::ChangeStanding),
    ("GET", "/v1/fleets/{fleet}/groups/{group}/serials", Action::Read),
    ("PUT", "/v1/fleets/{fleet}/groups/{group}/serials", Action::MintToken),
    ("DELETE", "/v1/fleets/{fleet}/groups/{group}/serials/{serial}", Action::MintToken),
    ("POST", "/v1/fleets/{fleet}/groups/{group}/claims", Action::ManagePolicy),
    ("GET", "/v1/fleets/{fleet}/tokens", Action::Read),
    ("POST", "/v1/fleets/{fleet}/tokens", Action::MintToken),
    ("DELETE", "/v1/fleets/{fleet}/tokens/{id}", Action::MintToken),
    ("GET", "/v1/fleets/{fleet}/devices", Action::Read),
    ("POST", "/v1/fleets/{fleet}/devices", Action::RegisterDevice),
    ("GET", "/v1/fleets/{fleet}/devices/{name}", Action::Read),
    ("PATCH", "/v1/fleets/{fleet}/devices/{name}", Action::RegisterDevice),
    ("POST", "/v1/fleets/{fleet}/devices/{name}/revoke", Action::ChangeStanding),
    ("POST", "/v1/fleets/{fleet}/devices/{name}/hold", Action::ChangeStanding),
    ("POST", "/v1/fleets/{fleet}/devices/{name}/release", Action::ChangeStanding),
    ("POST", "/v1/fleets/{fleet}/devices/{name}/retire", Action::ChangeStanding),
    ("GET", "/v1/fleets/{fleet}/devices/{name}/hardware", Action::Read),
    ("POST", "/v1/fleets/{fleet}/devices/{name}/hardware", Action::RegisterDevice),
    ("DELETE", "/v1/fleets/{fleet}/devices/{name}/hardware/{id}", Action::RegisterDevice),
    ("GET", "/v1/certificates", Action::Read),
    ("GET", "/v1/certificates/{serial}", Action::Read),
    ("GET", "/v1/certificates/{serial}/pem", Action::Read),
    ("POST", "/v1/certificates/{serial}/revoke", Action::ChangeStanding),
    ("POST", "/v1/certificates/{serial}/hold", Action::ChangeStanding),
    ("POST", "/v1/certificates/{serial}/release", Action::ChangeStanding),
    ("GET", "/v1/operators", Action::Read),
    ("POST", "/v1/operators", Action::ManageOperators),
    ("GET", "/v1/operators/{name}", Action::Read),
    ("PATCH", "/v1/operators/{name}", Action::ManageOperators),
    ("POST", "/v1/operators/{name}/invite", Action::ManageOperators),
    ("POST", "/v1/operators/{name}/revoke", Action::ManageOperators),
    ("GET", "/v1/gateways", Action::Read),
    ("POST", "/v1/gateways", Action::ManageGateways),
    ("GET", "/v1/gateways/{name}", Action::Read),
    ("PATCH", "/v1/gateways/{name}", Action::ManageGateways),
    ("POST", "/v1/gateways/{name}/invite", Action::ManageGateways),
    ("POST", "/v1/gateways/{name}/revoke", Action::ManageGateways),
    ("GET", "/v1/services", Action::Read),
    ("POST", "/v1/services", Action::ManageGateways),
    ("GET", "/v1/services/{name}", Action::Read),
    ("PATCH", "/v1/services/{name}", Action::ManageGateways),
    ("POST", "/v1/services/{name}/invite", Action::ManageGateways),
    ("POST", "/v1/services/{name}/revoke", Action::ManageGateways),
    ("GET", "/v1/authorities", Action::Read),
    ("GET", "/v1/authorities/{id}", Action::Read),
    ("GET", "/v1/ledgers", Action::ReadLedger),
    ("GET", "/v1/ledgers/{ledger}", Action::ReadLedger),
    ("GET", "/v1/ledgers/{ledger}/checkpoint", Action::ReadLedger),
    ("GET", "/v1/ledgers/{ledger}/entries", Action::ReadLedger),
    ("GET", "/v1/ledgers/{ledger}/proofs/inclusion", Action::ReadLedger),
    ("GET", "/v1/ledgers/{ledger}/proofs/consistency", Action::ReadLedger),
    ("GET", "/v1/policies/schema", Action::Read),
    ("POST", "/v1/policies/check", Action::Read),
    ("GET", "/v1/policies/{scope}", Action::Read),
    ("GET", "/v1/policies/{scope}/versions", Action::Read),
    ("GET", "/v1/policies/{scope}/versions/{version}", Action::Read),
    // Of the scope `system`: ManageInstallationPolicy.
    ("POST", "/v1/policies/{scope}/versions", Action::ManagePolicy),
    ("POST", "/v1/policies/{scope}/versions/{version}/activate", Action::ManagePolicy),
    ("POST", "/v1/policies/{scope}/test", Action::Read),
    ("GET", "/v1/whoami", Action::Read),
    ("GET", "/v1/status", Action::Read),
    ("POST", "/v1/backups", Action::Backup),
    ("GET", "/v1/openapi.json", Action::Read),
    ("GET", "/metrics", Action::Read),
];

/// The methods that the resource at `path` has; none where there is no such resource.
pub fn methods(path: &str) -> Vec<&'static str> {
    static PATTERNS: OnceLock<Vec<(ResourceDef, &'static str)>> = OnceLock::new();
    let patterns = PATTERNS.get_or_init(|| ROUTES.iter().map(|(method, path, _)| (ResourceDef::new(*path), *method)).collect());
    patterns.iter().filter(|(pattern, _)| pattern.is_match(path)).map(|(_, method)| *method).collect()
}
