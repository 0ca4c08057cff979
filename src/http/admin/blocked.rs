//! `/v1/blocked-keys`

use actix_web::{delete, get, post, web};
use fleetmark_domain::{KeyHash, Refusal};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, Json, Path, Query, page};
use super::fleets::PageQuery;
use super::openapi::{Act, Delete, List};
use super::{Answer, ok, page_of, wire};
use crate::http::State;
use crate::registrar::Error;
use crate::store::model::BlockedKey;

/// A key in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct KeyPath {
    /// SHA-256 over the key's `SubjectPublicKeyInfo`: 64 hexadecimal digits.
    pub key: String,
}

/// List keys that nobody gets a certificate for
#[utoipa::path(
    tag = "blocked keys",
    params(PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::BlockedKey>), List)
)]
#[get("/v1/blocked-keys")]
pub async fn list_blocked_keys(state: web::Data<State>, by: By, query: Query<PageQuery>) -> Answer {
    let request = page(query.0.cursor, query.0.limit)?;
    let keys = state.registrar.blocked_keys(&by.0, &request).await?;
    Ok(ok(&page_of(keys, wire::BlockedKey::from)))
}

/// Put keys on the block list
///
/// One that is on it already stays as it is. Certificates that these keys have stay good: revoke them.
#[utoipa::path(
    tag = "blocked keys",
    responses((status = 200, description = "What was put on it", body = Vec<wire::BlockedKey>), Act)
)]
#[post("/v1/blocked-keys")]
pub async fn block_keys(state: web::Data<State>, by: By, body: Json<wire::BlockKeys>) -> Answer {
    let wire::BlockKeys { keys, reason } = body.value;
    let keys = keys.iter().map(|key| parsed(key)).collect::<Result<Vec<_>, _>>()?;
    let blocked = state.registrar.block_keys(&by.0, keys, &reason, state.clock.now()).await?;
    Ok(ok(&blocked.into_iter().map(wire::BlockedKey::from).collect::<Vec<_>>()))
}

/// Take a key off the block list
#[utoipa::path(
    tag = "blocked keys",
    params(KeyPath),
    responses((status = 200, description = "It is off the list", body = wire::UnblockedKey), Delete)
)]
#[delete("/v1/blocked-keys/{key}")]
pub async fn unblock_key(state: web::Data<State>, by: By, path: Path<KeyPath>) -> Answer {
    let key: KeyHash = path.0.key.parse().map_err(|_| Refusal::NotFound)?;
    state.registrar.unblock_key(&by.0, key, state.clock.now()).await?;
    Ok(ok(&wire::UnblockedKey { key: key.to_string() }))
}

fn parsed(key: &str) -> Result<KeyHash, Error> {
    let detail = "A key is named by SHA-256 over its SubjectPublicKeyInfo: 64 hexadecimal digits.";
    key.parse().map_err(|_| Error::with_detail(Refusal::InvalidValue, detail))
}

impl From<BlockedKey> for wire::BlockedKey {
    fn from(key: BlockedKey) -> Self {
        Self { key: key.key_hash.to_string(), reason: key.reason, blocked_at: key.blocked_at }
    }
}
