//! `/v1/policies`

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, get, post, web};
use fleetmark_domain::{LedgerName, Refusal};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::extract::{By, IdempotencyKey, IfMatch, Json, Path, Query, page, parsed, refuse, text};
use super::fleets::PageQuery;
use super::openapi::{Act, Change, List, Look};
use super::{Answer, created, ok, page_of, versioned, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::registrar::policies::sets::{Activated, ActiveSet};
use crate::store::model;

/// The largest body that holds a policy set, in octets: 256 KiB of text, with what JSON adds to it.
const MAX_BODY: usize = 512 * 1024;

/// The most characters of a note.
const MAX_NOTE: usize = 256;

/// A scope in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct ScopePath {
    /// `system` for the installation's policies, or a fleet's name.
    #[param(value_type = String)]
    #[serde(deserialize_with = "parsed")]
    pub scope: LedgerName,
}

/// A version in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct VersionPath {
    /// `system` for the installation's policies, or a fleet's name.
    #[param(value_type = String)]
    #[serde(deserialize_with = "parsed")]
    pub scope: LedgerName,
    /// The version.
    pub version: u64,
}

/// A JSON body that may hold a policy set: at most [`MAX_BODY`] octets.
#[derive(Debug)]
pub struct PolicyBody<T>(Json<T>);

impl<T: DeserializeOwned + 'static> FromRequest for PolicyBody<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let read = Json::read(request, payload, MAX_BODY);
        Box::pin(async move { read.await.map(Self) })
    }
}

/// The schema of policies
#[utoipa::path(
    tag = "policies",
    responses((status = 200, description = "Cedar's schema syntax", body = String, content_type = "text/plain"), Look)
)]
#[get("/v1/policies/schema")]
pub async fn show_policy_schema(state: web::Data<State>, by: By) -> Answer {
    let schema = state.registrar.policy_schema(&by.0)?;
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(schema))
}

/// Check a text without keeping it
#[utoipa::path(
    tag = "policies",
    request_body = wire::PolicyText,
    responses((status = 200, description = "What is wrong with it", body = wire::PolicyCheck), Act)
)]
#[post("/v1/policies/check")]
pub async fn check_policy(state: web::Data<State>, by: By, body: PolicyBody<wire::PolicyText>) -> Answer {
    let findings = state.registrar.check_policy(&by.0, body.0.value.text).await?;
    Ok(ok(&wire::PolicyCheck::from(findings)))
}

/// The policy set that counts
#[utoipa::path(
    tag = "policies",
    params(ScopePath),
    responses((status = 200, description = "As it is now", body = wire::ActivePolicy, headers(("ETag" = String))), Look)
)]
#[get("/v1/policies/{scope}")]
pub async fn show_active_policy(state: web::Data<State>, by: By, path: Path<ScopePath>) -> Answer {
    let active = state.registrar.active_policy(&by.0, &path.0.scope).await?;
    let number = active.activation.number;
    Ok(versioned(&wire::ActivePolicy::from(active), number))
}

/// List policy sets
#[utoipa::path(
    tag = "policies",
    params(ScopePath, PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::PolicyVersion>), List)
)]
#[get("/v1/policies/{scope}/versions")]
pub async fn list_policy_versions(state: web::Data<State>, by: By, path: Path<ScopePath>, query: Query<PageQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let versions = state.registrar.policy_versions(&by.0, &path.0.scope, &request).await?;
    Ok(ok(&page_of(versions.page, |version| shown(version, versions.active))))
}

/// One policy set
#[utoipa::path(
    tag = "policies",
    params(VersionPath),
    responses((status = 200, description = "As it was put", body = wire::PolicySet), Look)
)]
#[get("/v1/policies/{scope}/versions/{version}")]
pub async fn show_policy_set(state: web::Data<State>, by: By, path: Path<VersionPath>) -> Answer {
    let set = state.registrar.policy_set(&by.0, &path.0.scope, path.0.version).await?;
    Ok(ok(&wire::PolicySet::from(set)))
}

/// Put a policy set
///
/// It is checked first, and counts only once it is activated.
#[utoipa::path(
    tag = "policies",
    params(ScopePath, IdempotencyKey),
    request_body = wire::NewPolicySet,
    responses((status = 201, description = "Created", body = wire::PolicySet, headers(("Location" = String))), Act)
)]
#[post("/v1/policies/{scope}/versions")]
pub async fn put_policy_set(
    state: web::Data<State>,
    by: By,
    path: Path<ScopePath>,
    key: IdempotencyKey,
    body: PolicyBody<wire::NewPolicySet>,
) -> Answer {
    let idempotency = key.over(&body.0);
    let wire::NewPolicySet { text: cedar, note } = body.0.value;
    let note = text("note", note, MAX_NOTE)?;
    let scope = &path.0.scope;
    let set = state.registrar.put_policy_set(&by.0, scope, cedar, note, idempotency, state.clock.now()).await?;
    let location = format!("/v1/policies/{scope}/versions/{}", set.version);
    Ok(created(&wire::PolicySet::from(set), location, None))
}

/// Make a policy set count
///
/// An earlier version brings back what counted then. A version that counts already is left alone.
#[utoipa::path(
    tag = "policies",
    params(VersionPath, IfMatch),
    responses((status = 200, description = "Done", body = wire::ActivatedPolicy, headers(("ETag" = String))), Change)
)]
#[post("/v1/policies/{scope}/versions/{version}/activate")]
pub async fn activate_policy_set(
    state: web::Data<State>,
    by: By,
    path: Path<VersionPath>,
    read: IfMatch,
    body: Json<wire::Activation>,
) -> Answer {
    let note = body.value.note.map(|note| text("note", Some(note), MAX_NOTE)).transpose()?;
    let VersionPath { scope, version } = path.0;
    let activated = state.registrar.activate_policy_set(&by.0, &scope, version, read.0, note, state.clock.now()).await?;
    let number = activated.activation.number;
    Ok(versioned(&wire::ActivatedPolicy::from(activated), number))
}

/// Try a question
///
/// The installation's set and the fleet's answer together; `text` is tried in the place of the scope's own.
#[utoipa::path(
    tag = "policies",
    params(ScopePath),
    request_body = wire::PolicyQuestion,
    responses((status = 200, description = "What the policies say", body = wire::PolicyAnswer), Act)
)]
#[post("/v1/policies/{scope}/test")]
pub async fn test_policy(
    state: web::Data<State>,
    by: By,
    path: Path<ScopePath>,
    body: PolicyBody<wire::PolicyQuestion>,
) -> Answer {
    let mut question = body.0.value;
    let scope = &path.0.scope;
    let policies = state.registrar.policies_to_test(&by.0, scope, question.text.take()).await?;
    let answer = question.ask(&policies, scope, state.clock.now());
    Ok(ok(&answer.map_err(|what| refuse(Refusal::InvalidValue, what))?))
}

fn shown(version: model::PolicyVersion, active: Option<u64>) -> wire::PolicyVersion {
    wire::PolicyVersion {
        active: active == Some(version.version),
        version: version.version,
        hash: hex::encode(version.hash),
        note: version.note,
        created_at: version.created_at,
        created_by: version.created_by,
    }
}

impl From<model::PolicySet> for wire::PolicySet {
    fn from(set: model::PolicySet) -> Self {
        Self {
            scope: set.ledger.to_string(),
            version: set.version,
            hash: hex::encode(set.hash),
            text: set.text,
            note: set.note,
            created_at: set.created_at,
            created_by: set.created_by,
        }
    }
}

impl From<ActiveSet> for wire::ActivePolicy {
    fn from(active: ActiveSet) -> Self {
        let ActiveSet { activation, set, is_usable } = active;
        Self {
            scope: set.ledger.to_string(),
            version: set.version,
            hash: hex::encode(set.hash),
            text: set.text,
            activated_at: activation.at,
            by: activation.by,
            usable: is_usable,
        }
    }
}

impl From<Activated> for wire::ActivatedPolicy {
    fn from(activated: Activated) -> Self {
        let Activated { activation, set, position } = activated;
        Self {
            scope: activation.ledger.to_string(),
            version: activation.version,
            hash: hex::encode(set.hash),
            activated_at: activation.at,
            by: activation.by,
            changed: position.is_some(),
            ledger: activation.ledger.to_string(),
            position,
        }
    }
}
