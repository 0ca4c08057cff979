//! What the admin door says of a ledger, decoded and within limits.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_ledger::entry::MAX_ENTRY;
use fleetmark_ledger::merkle::Hash;
use fleetmark_ledger::note::{MAX_NOTE, VerifierKey};
use serde_json::Value;

use crate::cli::client::{Ask, Client};
use crate::cli::failure::Failure;

/// The most entries of one answer.
pub(super) const MAX_ENTRIES: u64 = 256;

/// The most hashes of a proof: a tree has fewer than 2^63 leaves, and a consistency proof one hash more than it is high.
const MAX_PROOF: usize = 64;

/// An entry as it came.
pub(super) struct Fetched {
    pub position: u64,
    pub entry: Vec<u8>,
    pub details: Option<Vec<u8>>,
}

impl Fetched {
    /// Reads an item of `/entries`.
    pub(super) fn read(item: &Value) -> Result<Self, Failure> {
        let octets = |field: &str| item.get(field).and_then(Value::as_str).map(|text| base64(text, MAX_ENTRY)).transpose();
        Ok(Self {
            position: item.get("position").and_then(Value::as_u64).ok_or_else(|| odd("an entry has no position"))?,
            entry: octets("entry")?.ok_or_else(|| odd("an entry is missing"))?,
            details: octets("details")?,
        })
    }
}

/// The newest checkpoint, not verified.
pub(super) async fn note(client: &Client, ledger: &str) -> Result<String, Failure> {
    let answer = client.get(Ask::path(&["v1", "ledgers", ledger, "checkpoint"])).await?;
    if answer.body.len() > MAX_NOTE {
        return Err(odd("the checkpoint is too long"));
    }
    String::from_utf8(answer.body).map_err(|_| odd("the checkpoint is not text"))
}

/// The key that the server gives for the ledger; no better than the server.
pub(super) async fn vkey(client: &Client, ledger: &str) -> Result<String, Failure> {
    let value = client.get(Ask::path(&["v1", "ledgers", ledger])).await?.json()?;
    value.get("vkey").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| odd("the ledger has no key"))
}

/// A key line, read.
pub(super) fn key(vkey: &str) -> Result<VerifierKey, Failure> {
    VerifierKey::from_vkey(vkey.trim()).map_err(|error| Failure::of(&error))
}

/// Items of `/entries`, as they are.
pub(super) async fn raw_entries(client: &Client, ledger: &str, from: u64, limit: u64) -> Result<Vec<Value>, Failure> {
    let query = vec![("from", Some(from.to_string())), ("limit", Some(limit.min(MAX_ENTRIES).to_string()))];
    let ask = Ask { query, ..Ask::path(&["v1", "ledgers", ledger, "entries"]) };
    match client.get(ask).await?.json()?.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(odd("the entries are no list")),
    }
}

/// Entries from `from` on, without a gap.
pub(super) async fn entries(client: &Client, ledger: &str, from: u64, limit: u64) -> Result<Vec<Fetched>, Failure> {
    let items = raw_entries(client, ledger, from, limit).await?;
    let fetched = items.iter().map(Fetched::read).collect::<Result<Vec<_>, _>>()?;
    let in_order = fetched.iter().zip(from..).all(|(entry, position)| entry.position == position);
    if in_order { Ok(fetched) } else { Err(odd("the entries are not in order, or there is a gap")) }
}

/// A proof: `kind` is `inclusion` or `consistency`.
pub(super) async fn proof(
    client: &Client,
    ledger: &str,
    kind: &str,
    query: [(&'static str, u64); 2],
) -> Result<Vec<Hash>, Failure> {
    let query = query.into_iter().map(|(name, value)| (name, Some(value.to_string()))).collect();
    let ask = Ask { query, ..Ask::path(&["v1", "ledgers", ledger, "proofs", kind]) };
    let value = client.get(ask).await?.json()?;
    let hashes = value.get("hashes").and_then(Value::as_array).ok_or_else(|| odd("the proof has no hashes"))?;
    if hashes.len() > MAX_PROOF {
        return Err(odd("the proof is too long"));
    }
    hashes.iter().map(|hash| read_hash(hash.as_str().unwrap_or_default())).collect()
}

fn read_hash(text: &str) -> Result<Hash, Failure> {
    let octets = base64(text, 32)?;
    octets.try_into().map(Hash).map_err(|_| odd("a hash has not 32 octets"))
}

fn base64(text: &str, most: usize) -> Result<Vec<u8>, Failure> {
    if text.len() > most.saturating_mul(2) {
        return Err(odd("something is too long"));
    }
    BASE64_STANDARD.decode(text).map_err(|_| odd("something is not base64"))
}

fn odd(what: &str) -> Failure {
    Failure::Failed(format!("the server's answer about the ledger is not of its form: {what}"), None)
}
