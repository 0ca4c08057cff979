//! `/v1/ledgers`

use actix_web::{HttpResponse, get, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::LedgerName;
use fleetmark_ledger::merkle::Hash;
use fleetmark_ledger::note::VerifierKey;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, DEFAULT_LIMIT, Path, Query, page, parsed, within};
use super::fleets::PageQuery;
use super::openapi::{List, Look};
use super::{Answer, ok, wire};
use crate::http::State;
use crate::registrar::audit::MAX_ENTRIES;
use crate::store::model::{LedgerRecord, StoredEntry};

/// A ledger in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct LedgerPath {
    /// `system`, or a fleet's name.
    #[param(value_type = String)]
    #[serde(deserialize_with = "parsed")]
    pub ledger: LedgerName,
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EntriesQuery {
    /// The first position; 0 unless given.
    #[serde(default)]
    pub from: u64,
    /// At most so many; 50 unless given.
    #[param(minimum = 1, maximum = 256)]
    pub limit: Option<u32>,
}

/// Which inclusion proof.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct InclusionQuery {
    /// The entry's position.
    pub index: u64,
    /// The size of the tree that it is proved to be in.
    pub size: u64,
}

/// Which consistency proof.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    /// The older size.
    pub old: u64,
    /// The newer size.
    pub new: u64,
}

/// List ledgers
///
/// One page holds them all.
#[utoipa::path(
    tag = "ledgers",
    params(PageQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Ledger>), List)
)]
#[get("/v1/ledgers")]
pub async fn list_ledgers(state: web::Data<State>, by: By, query: Query<PageQuery>) -> Answer {
    page(query.0.cursor, query.0.limit)?;
    let ledgers = state.registrar.ledgers(&by.0).await?;
    Ok(ok(&wire::Page { items: ledgers.into_iter().map(wire::Ledger::from).collect(), next: None }))
}

/// One ledger
#[utoipa::path(
    tag = "ledgers",
    params(LedgerPath),
    responses((status = 200, description = "As it is now", body = wire::Ledger), Look)
)]
#[get("/v1/ledgers/{ledger}")]
pub async fn show_ledger(state: web::Data<State>, by: By, path: Path<LedgerPath>) -> Answer {
    Ok(ok(&wire::Ledger::from(state.registrar.ledger(&by.0, &path.0.ledger).await?)))
}

/// The newest signed checkpoint
#[utoipa::path(
    tag = "ledgers",
    params(LedgerPath),
    responses(
        (status = 200, description = "A signed note (C2SP tlog-checkpoint)", body = String, content_type = "text/plain"),
        Look
    )
)]
#[get("/v1/ledgers/{ledger}/checkpoint")]
pub async fn show_checkpoint(state: web::Data<State>, by: By, path: Path<LedgerPath>) -> Answer {
    let note = state.registrar.checkpoint(&by.0, &path.0.ledger)?;
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(note.to_string()))
}

/// Entries from a position on
#[utoipa::path(
    tag = "ledgers",
    params(LedgerPath, EntriesQuery),
    responses((status = 200, description = "In order, without a gap", body = wire::LedgerEntries), List)
)]
#[get("/v1/ledgers/{ledger}/entries")]
pub async fn list_entries(state: web::Data<State>, by: By, path: Path<LedgerPath>, query: Query<EntriesQuery>) -> Answer {
    let limit = within("limit", query.0.limit, 1, MAX_ENTRIES)?.unwrap_or(DEFAULT_LIMIT);
    let entries = state.registrar.entries(&by.0, &path.0.ledger, query.0.from, limit).await?;
    Ok(ok(&wire::LedgerEntries { items: entries.into_iter().map(wire::LedgerEntry::from).collect() }))
}

/// The proof that an entry is in the tree of some size
#[utoipa::path(
    tag = "ledgers",
    params(LedgerPath, InclusionQuery),
    responses((status = 200, description = "Hashes, from the leaf up", body = wire::Proof), List)
)]
#[get("/v1/ledgers/{ledger}/proofs/inclusion")]
pub async fn prove_inclusion(state: web::Data<State>, by: By, path: Path<LedgerPath>, query: Query<InclusionQuery>) -> Answer {
    let InclusionQuery { index, size } = query.0;
    let hashes = state.registrar.inclusion_proof(&by.0, &path.0.ledger, index, size).await?;
    Ok(ok(&wire::Proof::from(hashes)))
}

/// The proof that a newer tree goes on from an older one
#[utoipa::path(
    tag = "ledgers",
    params(LedgerPath, ConsistencyQuery),
    responses((status = 200, description = "Hashes, from the leaf up", body = wire::Proof), List)
)]
#[get("/v1/ledgers/{ledger}/proofs/consistency")]
pub async fn prove_consistency(
    state: web::Data<State>,
    by: By,
    path: Path<LedgerPath>,
    query: Query<ConsistencyQuery>,
) -> Answer {
    let ConsistencyQuery { old, new } = query.0;
    let hashes = state.registrar.consistency_proof(&by.0, &path.0.ledger, old, new).await?;
    Ok(ok(&wire::Proof::from(hashes)))
}

impl From<LedgerRecord> for wire::Ledger {
    fn from(record: LedgerRecord) -> Self {
        let head = record.head();
        let vkey = VerifierKey { name: record.origin.clone(), key: record.key }.to_vkey();
        Self { name: record.name.to_string(), origin: record.origin, vkey, size: head.size, root: STANDARD.encode(head.root.0) }
    }
}

impl From<StoredEntry> for wire::LedgerEntry {
    fn from(stored: StoredEntry) -> Self {
        Self {
            position: stored.position,
            entry: STANDARD.encode(stored.entry),
            details: stored.details.map(|details| STANDARD.encode(details)),
        }
    }
}

impl From<Vec<Hash>> for wire::Proof {
    fn from(hashes: Vec<Hash>) -> Self {
        Self { hashes: hashes.into_iter().map(|hash| STANDARD.encode(hash.0)).collect() }
    }
}
