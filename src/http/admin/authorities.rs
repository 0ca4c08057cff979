//! `/v1/authorities`

use actix_web::{get, web};
use fleetmark_domain::{Kind, Refusal};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, Path, Query, page};
use super::fleets::PageQuery;
use super::openapi::{List, Look};
use super::{Answer, ok, wire};
use crate::http::State;
use crate::pki::keys::Home;
use crate::registrar::overview::AuthorityView;
use crate::store::model::AuthorityId;

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
    let authorities = state.registrar.authority_views(&by.0).await?;
    let authority = authorities.into_iter().find(|authority| authority.record.id == path.0.id).ok_or(Refusal::NotFound)?;
    Ok(ok(&wire::Authority::from(authority)))
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
