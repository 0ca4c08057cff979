//! Status lists, and the certificates of the keys that sign them (docs/status-list.md).

use std::time::Duration;

use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::{Epoch, Refusal, Timestamp};
use fleetmark_ledger::entry::AuthorityState;
use serde::Serialize;

use super::cache::{Validators, settled};
use super::files::{digest_of, readable};
use crate::http::State;
use crate::http::problem::Problem;
use crate::pki::bundle::pem;
use crate::registrar::authorities::Authority;
use crate::registrar::status::signers::StatusSigner;
use crate::store::model::{AuthorityId, ListKey, ListKind};

/// The media type of a list.
const LIST: &str = "application/vnd.fleetmark.status-list";
/// A newer list may be there a minute after a revocation: caches ask again after this.
const AGE: Duration = Duration::from_secs(60);
/// Keys change about once in ten months.
const KEYS_AGE: Duration = Duration::from_secs(3_600);

/// What there is for one authority.
#[derive(Debug, Serialize)]
struct Index {
    authority: AuthorityId,
    /// Its subject key identifier, which its certificates carry as authority key identifier.
    key_id: String,
    /// The id of the key that signs now: the first octets of SHA-256 over its point.
    signer: String,
    lists: Vec<Line>,
}

/// One list.
#[derive(Debug, Serialize)]
struct Line {
    file: String,
    epoch: u32,
    slice: u32,
    sequence: u64,
    this_update: Timestamp,
    next_update: Timestamp,
    octets: usize,
}

/// The resources.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(readable("/status/{authority}/signers.pem", web::route().to(signers)))
        .service(readable("/status/{authority}/index.json", web::route().to(index)))
        .service(readable("/status/{authority}/{file}", web::route().to(list)));
}

async fn list(request: HttpRequest, state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (authority, file) = path.into_inner();
    let key = number(&authority).and_then(|authority| list_key(authority, &file)).ok_or(Refusal::NotFound)?;
    let made = state.registrar.status_list(&key).ok_or(Refusal::NotFound)?;
    let list = &made.list;
    let now = state.clock.now();
    let (modified, max_age) = (settled(list.this_update, now), list.next_update.since(now).min(AGE));
    let tag = format!("{}-{}", list.number, hex::encode(made.key_id));
    Ok(Validators { tag, modified, max_age }.answer(&request, LIST, || list.octets.clone().into()))
}

/// The key that signs now, the one that will sign next where it is there, and their authority.
async fn signers(request: HttpRequest, state: Data<State>, path: Path<String>) -> Result<HttpResponse, Problem> {
    let (authority, signer) = signer(&state, &path)?;
    let mut chain: Vec<&[u8]> = vec![&signer.certificate];
    chain.extend(signer.successor.as_deref());
    chain.push(&authority.record.certificate);
    let validators = Validators { tag: digest_of(&chain), modified: None, max_age: KEYS_AGE };
    Ok(validators.answer(&request, "application/x-pem-file", || pem(&chain).into()))
}

async fn index(request: HttpRequest, state: Data<State>, path: Path<String>) -> Result<HttpResponse, Problem> {
    let (authority, signer) = signer(&state, &path)?;
    let all = state.registrar.status_lists();
    let own = all.values().filter(|made| made.list.key.authority == authority.record.id);
    let lists: Vec<Line> = own
        .map(|made| Line {
            file: format!("{}-{}.fms", made.list.key.epoch.0, made.list.key.slice),
            epoch: made.list.key.epoch.0,
            slice: made.list.key.slice,
            sequence: made.list.number,
            this_update: made.list.this_update,
            next_update: made.list.next_update,
            octets: made.list.octets.len(),
        })
        .collect();
    let sequences: u64 = lists.iter().fold(0, |sum, list| sum.wrapping_add(list.sequence));
    let tag = format!("{}-{sequences}-{}", lists.len(), hex::encode(signer.key_id));
    let (key_id, signer) = (hex::encode(&authority.key_id), hex::encode(signer.key_id));
    let index = Index { authority: authority.record.id, key_id, signer, lists };
    let json = serde_json::to_vec(&index).map_err(|_| Refusal::StorageDamaged)?;
    Ok(Validators { tag, modified: None, max_age: AGE }.answer(&request, "application/json", || json.into()))
}

fn signer(state: &State, authority: &str) -> Result<(std::sync::Arc<Authority>, std::sync::Arc<StatusSigner>), Refusal> {
    let id = number(authority).ok_or(Refusal::NotFound)?;
    let authority = state.registrar.authorities().by_id(id).ok_or(Refusal::NotFound)?;
    if authority.record.state == AuthorityState::Prepared {
        return Err(Refusal::NotFound);
    }
    Ok((authority, state.registrar.status_signer(id).ok_or(Refusal::NotFound)?))
}

/// `12-0.fms`: epoch 12, slice 0.
fn list_key(authority: AuthorityId, file: &str) -> Option<ListKey> {
    let (epoch, slice) = file.strip_suffix(".fms")?.split_once('-')?;
    Some(ListKey { kind: ListKind::StatusList, authority, epoch: Epoch(number(epoch)?), slice: number(slice)? })
}

/// One name a thing: `07` and `+7` are no numbers here.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_name() {
        let key = |file| list_key(3, file).map(|key| (key.epoch.0, key.slice));
        assert_eq!(key("12-0.fms"), Some((12, 0)));
        for file in ["12.fms", "12-0", "012-0.fms", "12-00.fms", "12--1.fms", "-0.fms", "12-0.fms.fms", "4294967296-0.fms"] {
            assert_eq!(key(file), None, "{file}");
        }
    }
}
