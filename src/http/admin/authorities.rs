//! `/v1/authorities`

use actix_web::{get, post, web};
use fleetmark_domain::{AuthorityEvent, AuthorityState, Kind, Refusal, RevocationReason};
use fleetmark_ledger::entry::AuthorityKind;
use serde::Deserialize;
use utoipa::IntoParams;

use super::certificates::MAX_REMARK;
use super::extract::{By, Json, Path, Query, page, text};
use super::fleets::PageQuery;
use super::openapi::{Act, List, Look};
use super::{Answer, created, ok, wire};
use crate::http::State;
use crate::http::problem::{Problem, ProblemDocument};
use crate::pki::keys::{Home, KeyAlgorithm};
use crate::registrar::overview::AuthorityView;
use crate::registrar::rollover::{Change, Successor};
use crate::store::model::{AuthorityId, InHands};

/// An authority in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct AuthorityPath {
    /// Its id.
    #[param(value_type = u32)]
    pub id: AuthorityId,
}

/// List authorities
///
/// There are few; one page holds them all.
#[utoipa::path(
    tag = "authorities",
    params(PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Authority>), List)
)]
#[get("/v1/authorities")]
pub async fn list_authorities(state: web::Data<State>, by: By, query: Query<PageQuery>) -> Answer {
    page(query.0.cursor, query.0.limit)?;
    let authorities = state.registrar.authority_views(&by.0).await?;
    let items: Vec<_> = authorities.into_iter().map(wire::Authority::from).collect();
    Ok(ok(&wire::Page { items, next: None }))
}

/// One authority
#[utoipa::path(
    tag = "authorities",
    params(AuthorityPath),
    responses((status = 200, description = "As it is now", body = wire::Authority), Look)
)]
#[get("/v1/authorities/{id}")]
pub async fn show_authority(state: web::Data<State>, by: By, path: Path<AuthorityPath>) -> Answer {
    Ok(ok(&view(&state, &by, path.0.id).await?))
}

/// Prepare a successor
///
/// An authority for the same kind and fleet, or another root. It is trusted from now on, and issues nothing until it is activated.
#[utoipa::path(
    tag = "authorities",
    responses(
        (status = 201, description = "Prepared", body = wire::Authority),
        (
            status = 202,
            description = "Not yet: a root's ceremony is asked (`waits_for_root`).",
            body = ProblemDocument,
            content_type = "application/problem+json"
        ),
        Act
    )
)]
#[post("/v1/authorities")]
pub async fn prepare_authority(state: web::Data<State>, by: By, body: Json<wire::NewAuthority>) -> Answer {
    let wire::NewAuthority { kind, fleet, algorithm, key, note } = body.value;
    let new = Successor {
        kind: kind.into(),
        fleet,
        algorithm: algorithm.map(Into::into),
        elsewhere: key.map(|key| key == wire::RootKey::Elsewhere),
        note: text("note", note, MAX_REMARK)?,
    };
    let record = state.registrar.prepare_authority(&by.0, new, state.clock.now()).await?;
    Ok(created(&view(&state, &by, record.id).await?, format!("/v1/authorities/{}", record.id), None))
}

/// Activate a prepared authority
///
/// It issues from now on, and the one that did is tainted: trusted for what the ledger holds, and issues no more.
#[utoipa::path(
    tag = "authorities",
    params(AuthorityPath),
    responses((status = 200, description = "As it is now", body = wire::Authority), Act)
)]
#[post("/v1/authorities/{id}/activate")]
pub async fn activate_authority(
    state: web::Data<State>,
    by: By,
    path: Path<AuthorityPath>,
    body: Json<wire::Remark>,
) -> Answer {
    let note = text("note", body.value.note, MAX_REMARK)?;
    let change = Change { event: AuthorityEvent::Activated, forced: false, reason: RevocationReason::Unspecified, note };
    changed(&state, &by, path.0.id, change).await
}

/// Taint an authority
///
/// It issues no more. Without an active successor that is refused, unless it is an emergency: then nothing is issued in its place until
/// there is one.
#[utoipa::path(
    tag = "authorities",
    params(AuthorityPath),
    responses((status = 200, description = "As it is now", body = wire::Authority), Act)
)]
#[post("/v1/authorities/{id}/taint")]
pub async fn taint_authority(state: web::Data<State>, by: By, path: Path<AuthorityPath>, body: Json<wire::Taint>) -> Answer {
    let wire::Taint { emergency: forced, note } = body.value;
    let note = text("note", note, MAX_REMARK)?;
    let change = Change { event: AuthorityEvent::Tainted, forced, reason: RevocationReason::Unspecified, note };
    changed(&state, &by, path.0.id, change).await
}

/// Revoke an authority
///
/// It is trusted no more: its certificate is on its issuer's list, and everything of it is refused, at open connections too. Refused
/// while it issues, and while certificates of it are in use, unless that is forced.
#[utoipa::path(
    tag = "authorities",
    params(AuthorityPath),
    responses((status = 200, description = "As it is now", body = wire::Authority), Act)
)]
#[post("/v1/authorities/{id}/revoke")]
pub async fn revoke_authority(
    state: web::Data<State>,
    by: By,
    path: Path<AuthorityPath>,
    body: Json<wire::AuthorityRevocation>,
) -> Answer {
    let wire::AuthorityRevocation { reason, force: forced, note } = body.value;
    let note = text("note", note, MAX_REMARK)?;
    let reason = reason.unwrap_or(RevocationReason::CessationOfOperation);
    changed(&state, &by, path.0.id, Change { event: AuthorityEvent::Revoked, forced, reason, note }).await
}

async fn changed(state: &State, by: &By, id: AuthorityId, change: Change) -> Answer {
    let record = state.registrar.change_authority(&by.0, id, change, state.clock.now()).await?;
    Ok(ok(&view(state, by, record.id).await?))
}

async fn view(state: &State, by: &By, id: AuthorityId) -> Result<wire::Authority, Problem> {
    let authorities = state.registrar.authority_views(&by.0).await?;
    let authority = authorities.into_iter().find(|authority| authority.record.id == id).ok_or(Refusal::NotFound)?;
    Ok(wire::Authority::from(authority))
}

/// How many certificates of an authority are in use
///
/// Counts them all.
#[utoipa::path(
    tag = "authorities",
    params(AuthorityPath),
    responses((status = 200, description = "As it is now", body = wire::AuthorityUse), Look)
)]
#[get("/v1/authorities/{id}/use")]
pub async fn show_authority_use(state: web::Data<State>, by: By, path: Path<AuthorityPath>) -> Answer {
    let InHands { good, unconfirmed, suspended } = state.registrar.authority_use(&by.0, path.0.id, state.clock.now()).await?;
    Ok(ok(&wire::AuthorityUse { good, unconfirmed, suspended }))
}

impl From<wire::AuthorityKind> for AuthorityKind {
    fn from(kind: wire::AuthorityKind) -> Self {
        match kind {
            wire::AuthorityKind::Root => Self::Root,
            wire::AuthorityKind::Device => Self::Of(Kind::Device),
            wire::AuthorityKind::Gateway => Self::Of(Kind::Gateway),
            wire::AuthorityKind::Service => Self::Of(Kind::Service),
            wire::AuthorityKind::Operator => Self::Of(Kind::Operator),
        }
    }
}

impl From<wire::AuthorityAlgorithm> for KeyAlgorithm {
    fn from(algorithm: wire::AuthorityAlgorithm) -> Self {
        match algorithm {
            wire::AuthorityAlgorithm::P256 => Self::P256,
            wire::AuthorityAlgorithm::P384 => Self::P384,
            wire::AuthorityAlgorithm::Ed25519 => Self::Ed25519,
        }
    }
}

impl From<AuthorityView> for wire::Authority {
    fn from(view: AuthorityView) -> Self {
        let AuthorityView { record, home, subject, facts, epoch } = view;
        Self {
            id: record.id,
            kind: record.kind.into(),
            fleet: record.fleet,
            state: record.state.into(),
            key: home.into(),
            issuer: record.issuer,
            subject,
            fingerprint: facts.fingerprint,
            not_before: facts.not_before,
            not_after: facts.not_after,
            epoch: epoch.map(|epoch| epoch.0),
        }
    }
}

impl From<AuthorityView> for wire::AuthorityStatus {
    fn from(view: AuthorityView) -> Self {
        let AuthorityView { record, home, facts, .. } = view;
        Self {
            id: record.id,
            kind: record.kind.into(),
            fleet: record.fleet,
            state: record.state.into(),
            key: home.into(),
            not_after: facts.not_after,
        }
    }
}

impl From<Option<Home>> for wire::KeyHome {
    fn from(home: Option<Home>) -> Self {
        match home {
            Some(Home::Files) => Self::File,
            Some(Home::Token) => Self::Pkcs11,
            None => Self::Elsewhere,
        }
    }
}

impl From<AuthorityKind> for wire::AuthorityKind {
    fn from(kind: AuthorityKind) -> Self {
        match kind {
            AuthorityKind::Root => Self::Root,
            AuthorityKind::Of(Kind::Device) => Self::Device,
            AuthorityKind::Of(Kind::Gateway) => Self::Gateway,
            AuthorityKind::Of(Kind::Service) => Self::Service,
            AuthorityKind::Of(Kind::Operator) => Self::Operator,
        }
    }
}

impl From<AuthorityState> for wire::AuthorityState {
    fn from(state: AuthorityState) -> Self {
        match state {
            AuthorityState::Prepared => Self::Prepared,
            AuthorityState::Active => Self::Active,
            AuthorityState::Tainted => Self::Tainted,
            AuthorityState::Revoked => Self::Revoked,
        }
    }
}
