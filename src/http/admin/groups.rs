//! `/v1/fleets/{fleet}/groups`

use actix_web::{HttpRequest, HttpResponse, delete, get, patch, post, put, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{FleetName, Name, Refusal, RevocationReason, Terms};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use super::certificates::MAX_REMARK;
use super::extract::{By, IdempotencyKey, IfMatch, Json, Path, Query, name, page, refuse, text};
use super::fleets::{FleetPath, PageQuery};
use super::openapi::{Act, Change, Delete, List, Look};
use super::{Answer, created, ok, page_of, schema, versioned, wire};
use crate::http::State;
use crate::http::limits::read_body;
use crate::http::problem::Problem;
use crate::pki::bundle;
use crate::pki::csr::VerifiedCsr;
use crate::pki::{anchors, issue};
use crate::registrar::claims::Claim;
use crate::registrar::groups::{GroupChange, GroupView, MadeGroup, NewGroup, Way};
use crate::store::model::{Certificate, GroupProof, GroupRules, GroupState, ListedSerial};

mod serials;

/// A group in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct GroupPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The group.
    #[param(value_type = schema::Name)]
    pub group: Name,
}

/// A listed serial in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct SerialPath {
    /// The fleet.
    #[param(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// The group.
    #[param(value_type = schema::Name)]
    pub group: Name,
    /// The serial number.
    pub serial: String,
}

/// What becomes of serials that are listed already.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SerialsQuery {
    /// Keep those that the body does not list; they are taken off unless given.
    pub keep: Option<bool>,
}

/// List a fleet's enrollment groups
#[utoipa::path(
    tag = "groups",
    params(FleetPath, PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Group>), List)
)]
#[get("/v1/fleets/{fleet}/groups")]
pub async fn list_groups(state: web::Data<State>, by: By, path: Path<FleetPath>, query: Query<PageQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let groups = state.registrar.groups(&by.0, &path.0.fleet, &request).await?;
    Ok(ok(&page_of(groups, shown)))
}

/// Create an enrollment group
///
/// A group's key that the server makes is in this answer alone.
#[utoipa::path(
    tag = "groups",
    params(FleetPath, IdempotencyKey),
    responses(
        (status = 201, description = "Created", body = wire::MadeGroup, headers(("Location" = String), ("ETag" = String))),
        Act
    )
)]
#[post("/v1/fleets/{fleet}/groups")]
pub async fn create_group(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    key: IdempotencyKey,
    body: Json<wire::NewGroup>,
) -> Answer {
    let idempotency = key.over(&body);
    let wire::NewGroup { name: called, proof, ca, key, rules } = body.value;
    let new = NewGroup { fleet: path.0.fleet, name: name("name", &called)?, way: way(proof, ca, key)?, rules: rules.into() };
    let MadeGroup { view, key } = state.registrar.create_group(&by.0, new, idempotency, state.clock.now()).await?;
    let location = format!("/v1/fleets/{}/groups/{}", view.group.fleet, view.group.name);
    let version = view.group.version;
    let key = key.map(|key| STANDARD.encode(&*key).into());
    Ok(created(&wire::MadeGroup { record: shown(view), key }, location, Some(version)))
}

/// One enrollment group
#[utoipa::path(
    tag = "groups",
    params(GroupPath),
    responses((status = 200, description = "As it is now", body = wire::Group, headers(("ETag" = String))), Look)
)]
#[get("/v1/fleets/{fleet}/groups/{group}")]
pub async fn show_group(state: web::Data<State>, by: By, path: Path<GroupPath>) -> Answer {
    Ok(answer(state.registrar.group(&by.0, &path.0.fleet, &path.0.group).await?))
}

/// Change an enrollment group's rules
#[utoipa::path(
    tag = "groups",
    params(GroupPath, IfMatch),
    responses((status = 200, description = "As it is now", body = wire::Group, headers(("ETag" = String))), Change)
)]
#[patch("/v1/fleets/{fleet}/groups/{group}")]
pub async fn change_group(
    state: web::Data<State>,
    by: By,
    path: Path<GroupPath>,
    read: IfMatch,
    body: Json<wire::GroupChange>,
) -> Answer {
    let GroupPath { fleet, group } = path.0;
    let wire::GroupChange { ca: anchors, rules } = body.value;
    let current = state.registrar.group(&by.0, &fleet, &group).await?.group;
    let rules = rules.map(|change| merged(&current.rules, change)).transpose()?;
    let version = read.0.or(Some(current.version));
    let change = GroupChange { rules, anchors };
    Ok(answer(state.registrar.change_group(&by.0, &fleet, &group, change, version).await?))
}

/// Let devices in by an enrollment group
#[utoipa::path(
    tag = "groups",
    params(GroupPath),
    responses((status = 200, description = "As it is now", body = wire::Group, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/groups/{group}/enable")]
pub async fn enable_group(state: web::Data<State>, by: By, path: Path<GroupPath>, _: Json<wire::Nothing>) -> Answer {
    Ok(answer(state.registrar.open_group(&by.0, &path.0.fleet, &path.0.group, true).await?))
}

/// Let no devices in by an enrollment group for now
#[utoipa::path(
    tag = "groups",
    params(GroupPath),
    responses((status = 200, description = "As it is now", body = wire::Group, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/groups/{group}/disable")]
pub async fn disable_group(state: web::Data<State>, by: By, path: Path<GroupPath>, _: Json<wire::Nothing>) -> Answer {
    Ok(answer(state.registrar.open_group(&by.0, &path.0.fleet, &path.0.group, false).await?))
}

/// End an enrollment group, for ever
///
/// Its claim certificate is revoked. Devices that came in by it stay.
#[utoipa::path(
    tag = "groups",
    params(GroupPath),
    responses((status = 200, description = "As it is now", body = wire::Group, headers(("ETag" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/groups/{group}/end")]
pub async fn end_group(state: web::Data<State>, by: By, path: Path<GroupPath>, body: Json<wire::Revocation>) -> Answer {
    let wire::Revocation { reason, note } = body.value;
    let reason = reason.unwrap_or(RevocationReason::CessationOfOperation);
    let note = text("note", note, MAX_REMARK)?;
    let now = state.clock.now();
    Ok(answer(state.registrar.end_group(&by.0, &path.0.fleet, &path.0.group, (reason, &note), now).await?))
}

/// List the serials that an enrollment group admits
#[utoipa::path(
    tag = "groups",
    params(GroupPath, PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::ListedSerial>), List)
)]
#[get("/v1/fleets/{fleet}/groups/{group}/serials")]
pub async fn list_serials(state: web::Data<State>, by: By, path: Path<GroupPath>, query: Query<PageQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let serials = state.registrar.serials(&by.0, &path.0.fleet, &path.0.group, &request).await?;
    Ok(ok(&page_of(serials, |ListedSerial { serial, device }| wire::ListedSerial { serial, device })))
}

/// Replace the serials that an enrollment group admits
///
/// `text/csv`: lines `serial,device`, the device may be left out; or `application/x-ndjson`: lines of JSON. At most 100,000
/// lines and 16 MiB. A line that is wrong is named, and nothing is changed then.
#[utoipa::path(
    tag = "groups",
    params(GroupPath, SerialsQuery),
    request_body(content((String = "text/csv"), (wire::ListedSerial = "application/x-ndjson"))),
    responses((status = 200, description = "What was changed", body = wire::SerialsChange), Act)
)]
#[put("/v1/fleets/{fleet}/groups/{group}/serials")]
pub async fn put_serials(
    http: HttpRequest,
    state: web::Data<State>,
    by: By,
    path: Path<GroupPath>,
    query: Query<SerialsQuery>,
    payload: web::Payload,
) -> Answer {
    let form = serials::Form::of(&http)?;
    let listing = state.registrar.begin_serials(&by.0, &path.0.fleet, &path.0.group).await?;
    let body = read_body(&http, payload, serials::MAX_BODY).await?;
    let listed = form.parse(&body)?;
    let changed = listing.put(listed, query.0.keep.unwrap_or(false)).await?;
    Ok(ok(&wire::SerialsChange { listed: changed.listed, removed: changed.removed }))
}

/// Take a serial off an enrollment group's list
#[utoipa::path(
    tag = "groups",
    params(SerialPath),
    responses((status = 200, description = "What was changed", body = wire::SerialsChange), Delete)
)]
#[delete("/v1/fleets/{fleet}/groups/{group}/serials/{serial}")]
pub async fn remove_serial(state: web::Data<State>, by: By, path: Path<SerialPath>) -> Answer {
    let SerialPath { fleet, group, serial } = path.0;
    state.registrar.remove_serial(&by.0, &fleet, &group, &serial).await?;
    Ok(ok(&wire::SerialsChange { listed: 0, removed: 1 }))
}

/// Issue an enrollment group's claim certificate
///
/// The same key gets the same certificate. There is one at a time.
#[utoipa::path(
    tag = "groups",
    params(GroupPath),
    responses((status = 201, description = "Issued", body = wire::Claim, headers(("Location" = String))), Act)
)]
#[post("/v1/fleets/{fleet}/groups/{group}/claims")]
pub async fn issue_claim(state: web::Data<State>, by: By, path: Path<GroupPath>, body: Json<wire::NewClaim>) -> Answer {
    let csr = VerifiedCsr::from_body(body.value.csr.as_bytes())?;
    let place = (&path.0.fleet, &path.0.group);
    let claim = state.registrar.issue_claim(&by.0, place, &csr, body.value.replace, state.clock.now()).await?;
    let location = format!("/v1/certificates/{}", claim.certificate.serial);
    Ok(created(&wire::Claim::from(claim), location, None))
}

/// What the proof of a new group is judged by.
fn way(proof: GroupProof, ca: Option<String>, key: Option<wire::SecretText>) -> Result<Way, Problem> {
    let invalid = |detail: &str| Err(refuse(Refusal::InvalidValue, detail));
    match (proof, ca, key) {
        (GroupProof::Maker, Some(ca), None) => Ok(Way::Maker(ca)),
        (GroupProof::Maker, None, None) => invalid("ca: a maker's group needs the maker's CA certificates"),
        (GroupProof::Claim, None, None) => Ok(Way::Claim),
        (GroupProof::Approval, None, None) => Ok(Way::Approval),
        (GroupProof::DerivedKey, None, None) => Ok(Way::DerivedKey(None)),
        (GroupProof::DerivedKey, None, Some(key)) => match STANDARD.decode(key.expose()) {
            Ok(key) => Ok(Way::DerivedKey(Some(Zeroizing::new(key)))),
            Err(_) => invalid("key: it is not base64"),
        },
        (_, Some(_), _) => invalid("ca: only for a maker's group"),
        (_, None, Some(_)) => invalid("key: only for a group of derived keys"),
    }
}

/// The rules under a merge patch (RFC 7396): null takes away; of attributes each by itself.
fn merged(current: &GroupRules, change: serde_json::Map<String, Value>) -> Result<GroupRules, Problem> {
    let unreadable = |error: serde_json::Error| refuse(Refusal::MalformedRequest, format!("rules: {error}"));
    let mut rules = serde_json::to_value(wire::GroupRules::from(current.clone())).map_err(unreadable)?;
    // What null takes away must have been there to be read: a rule that is misspelt would be left on.
    if let Some(unknown) = change.keys().find(|key| rules.get(key.as_str()).is_none()) {
        return Err(refuse(Refusal::MalformedRequest, format!("rules: unknown field `{unknown}`")));
    }
    merge(&mut rules, Value::Object(change));
    let rules: wire::GroupRules = serde_json::from_value(rules).map_err(unreadable)?;
    Ok(rules.into())
}

fn merge(target: &mut Value, patch: Value) {
    let (Value::Object(target), patch) = (&mut *target, patch) else { return };
    let Value::Object(patch) = patch else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.remove(&key)),
            Value::Object(_) if target.get(&key).is_some_and(Value::is_object) => {
                if let Some(inner) = target.get_mut(&key) {
                    merge(inner, value);
                }
            }
            value => drop(target.insert(key, value)),
        }
    }
}

fn answer(view: GroupView) -> HttpResponse {
    let version = view.group.version;
    versioned(&shown(view), version)
}

fn shown(GroupView { group, claim }: GroupView) -> wire::Group {
    let makers = if group.proof == GroupProof::Maker { makers(&group.material) } else { Vec::new() };
    wire::Group {
        name: group.name,
        fleet: group.fleet,
        proof: group.proof,
        state: match group.state {
            GroupState::Enabled => wire::GroupState::Enabled,
            GroupState::Disabled => wire::GroupState::Disabled,
            GroupState::Ended => wire::GroupState::Ended,
        },
        rules: group.rules.into(),
        admitted: group.admitted,
        makers,
        claim: claim.map(wire::ClaimCertificate::from),
        created_at: group.created_at,
        version: group.version,
    }
}

fn makers(material: &[u8]) -> Vec<wire::MakerCertificate> {
    let certificates = anchors::split(material).unwrap_or_default();
    let facts = certificates.iter().filter_map(|certificate| issue::facts(certificate).ok());
    facts.map(|facts| wire::MakerCertificate { fingerprint: facts.fingerprint, not_after: facts.not_after }).collect()
}

impl From<Certificate> for wire::ClaimCertificate {
    fn from(certificate: Certificate) -> Self {
        Self {
            serial: certificate.serial.to_string(),
            fingerprint: certificate.fingerprint,
            standing: certificate.standing.to_string(),
            reason: certificate.standing.reason(),
            not_after: certificate.not_after,
        }
    }
}

impl From<Claim> for wire::Claim {
    fn from(claim: Claim) -> Self {
        let certificates: Vec<&Vec<u8>> = std::iter::once(&claim.certificate.der).chain(&claim.chain).collect();
        let certificate = bundle::pem(&certificates);
        Self {
            certificate,
            trust_bundle: bundle::pem(&claim.trust_bundle),
            group: claim.group.name,
            record: claim.certificate.into(),
        }
    }
}

impl From<wire::GroupRules> for GroupRules {
    fn from(rules: wire::GroupRules) -> Self {
        Self {
            terms: Terms {
                quota: rules.quota,
                names: rules.names,
                networks: rules.networks,
                opens_at: rules.opens_at,
                closes_at: rules.closes_at,
                approval: rules.approval,
            },
            listed_only: rules.listed_only,
            serial_from: rules.serial_from,
            mapping: rules.mapping,
            prefix: rules.prefix,
            alarm_per_hour: rules.alarm_per_hour,
            attributes: rules.attributes,
        }
    }
}

impl From<GroupRules> for wire::GroupRules {
    fn from(rules: GroupRules) -> Self {
        let Terms { quota, names, networks, opens_at, closes_at, approval } = rules.terms;
        Self {
            quota,
            names,
            networks,
            opens_at,
            closes_at,
            approval,
            listed_only: rules.listed_only,
            serial_from: rules.serial_from,
            mapping: rules.mapping,
            prefix: rules.prefix,
            alarm_per_hour: rules.alarm_per_hour,
            attributes: rules.attributes,
        }
    }
}

#[cfg(test)]
mod tests;
