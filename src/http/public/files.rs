//! CA certificates and CRLs, in DER and PEM.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::web::{self, Bytes, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource, guard};
use fleetmark_domain::{AuthorityState, Epoch, Fingerprint, Refusal, Timestamp};
use ring::digest::{SHA256, digest};

use super::cache::{Validators, settled};
use crate::http::State;
use crate::http::problem::{Problem, not_allowed};
use crate::pki::bundle::{crl_pem, pem};
use crate::registrar::publish::shards::Shard;
use crate::store::model::{AuthorityId, AuthorityRecord, StoredCrl};

/// RFC 2585 4.1
const CERTIFICATE: &str = "application/pkix-cert";
/// RFC 2585 4.2
const CRL: &str = "application/pkix-crl";
const PEM: &str = "application/x-pem-file";

/// A CA certificate changes never, a bundle when an authority is added.
const CERTIFICATE_AGE: Duration = Duration::from_secs(3600);
/// A list holds until nextUpdate, but a newer one is there as soon as somebody is revoked: caches ask again after this.
const CRL_AGE: Duration = Duration::from_secs(60);

/// A text that is kept is so large, in octets, or larger.
const LARGE_TEXT: usize = 256 * 1024;
/// So many are kept.
const TEXTS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Der,
    Pem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Root,
    Of(AuthorityId),
    All,
}

/// The resources.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(readable("/ca/{file}", web::route().to(certificate)))
        .service(readable("/crl/{file}", web::route().to(list)))
        .service(readable("/crl/{authority}/{file}", web::route().to(shard)));
}

/// A resource for GET and HEAD.
pub fn readable(path: &str, route: actix_web::Route) -> Resource {
    web::resource(path).route(route.guard(guard::Any(guard::Get()).or(guard::Head()))).default_service(not_allowed("GET, HEAD"))
}

async fn certificate(request: HttpRequest, state: Data<State>, file: Path<String>) -> Result<HttpResponse, Problem> {
    let (which, form) = file_name(&file, "crt").ok_or(Refusal::NotFound)?;
    let authorities = state.registrar.authorities().all();
    let above = state.registrar.authorities().above();
    let crosses = state.registrar.authorities().crosses();
    let root = state.registrar.authorities().root()?;
    let records = authorities.iter().map(|authority| &authority.record).chain(crosses.iter().map(|cross| &**cross));
    let chosen: Vec<&AuthorityRecord> = match which {
        Which::Root => vec![&root.record],
        _ => records.filter(|record| which.is(record)).collect(),
    };
    if chosen.is_empty() {
        return Err(Refusal::NotFound.into());
    }
    let mut chosen: Vec<&[u8]> = chosen.into_iter().map(|record| &*record.certificate).collect();
    if which == Which::All {
        chosen.extend(above.iter().map(Vec::as_slice));
    }
    let validators = Validators { tag: tag(&chosen, form), modified: None, max_age: CERTIFICATE_AGE };
    Ok(match form {
        Form::Der => validators.answer(&request, CERTIFICATE, || chosen.concat().into()),
        Form::Pem => validators.answer(&request, PEM, || pem(&chosen).into()),
    })
}

async fn list(request: HttpRequest, state: Data<State>, file: Path<String>) -> Result<HttpResponse, Problem> {
    let (which, form) = file_name(&file, "crl").ok_or(Refusal::NotFound)?;
    let lists = match which {
        Which::All => [state.registrar.crls(), state.registrar.lists_above()].concat(),
        Which::Of(authority) => state.registrar.crl(authority).into_iter().collect(),
        Which::Root => {
            let root = state.registrar.authorities().root()?;
            state.registrar.crl(root.record.id).into_iter().collect()
        }
    };
    let (now, end) = (state.clock.now(), lists.iter().map(|list| list.next_update).min().ok_or(Refusal::NotFound)?);
    // A bundle changes when a list leaves it, and another root's list may be older: there a date tells nothing.
    let modified = match (which, lists.as_slice()) {
        (Which::Of(_), [one]) => settled(one.this_update, now),
        _ => None,
    };
    let validators = Validators { tag: numbers(&lists, form), modified, max_age: age(end, now) };
    Ok(match form {
        Form::Der => validators.answer(&request, CRL, || match lists.as_slice() {
            [one] => Bytes::from_owner(Plain(one.clone())),
            // A bundle has no DER form.
            _ => Bytes::new(),
        }),
        Form::Pem => {
            let make = || lists.iter().map(|list| crl_pem(&list.der)).collect::<String>();
            validators.answer(&request, PEM, || state.texts.text(&validators.tag, make))
        }
    })
}

async fn shard(request: HttpRequest, state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (authority, epoch, slice, form) = shard_name(&path.0, &path.1).ok_or(Refusal::NotFound)?;
    let shard = state.registrar.shard(authority, epoch, slice).await?.ok_or(Refusal::NotFound)?;
    let list = &shard.list;
    let name = format!("{authority}/{}-{slice}:{}:{}", epoch.0, list.number, list.this_update.0);
    let now = state.clock.now();
    let (modified, max_age) = (settled(list.this_update, now), age(list.next_update, now));
    let validators = Validators { tag: tag(&[name.as_bytes()], form), modified, max_age };
    Ok(match form {
        Form::Der => validators.answer(&request, CRL, || Bytes::from_owner(Sliced(shard.clone()))),
        Form::Pem => validators.answer(&request, PEM, || state.texts.text(&validators.tag, || crl_pem(&list.octets))),
    })
}

/// A list's octets, which are given out without a copy.
struct Plain(Arc<StoredCrl>);

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        &self.0.der
    }
}

/// The same of a shard.
struct Sliced(Arc<Shard>);

impl AsRef<[u8]> for Sliced {
    fn as_ref(&self) -> &[u8] {
        &self.0.list.octets
    }
}

/// Large lists in PEM, by their tags, for all threads: anybody may ask for one, and writing one of a million takes 60 MB.
#[derive(Default)]
pub struct Texts(Mutex<VecDeque<(String, Bytes)>>);

impl Texts {
    fn text(&self, tag: &str, make: impl FnOnce() -> String) -> Bytes {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = kept.iter().find(|(known, _)| known == tag) {
            return text.clone();
        }
        let text = Bytes::from(make());
        if text.len() >= LARGE_TEXT {
            kept.truncate(TEXTS - 1);
            kept.push_front((tag.to_owned(), text.clone()));
        }
        text
    }
}

impl Which {
    fn is(self, record: &AuthorityRecord) -> bool {
        match self {
            Self::Of(id) => record.id == id,
            Self::Root => record.is_root() && record.state == AuthorityState::Active,
            // One root's key by another has no list of its own, and goes in the chains of those who need it.
            Self::All => record.state != AuthorityState::Revoked && !record.is_cross(),
        }
    }
}

/// `root.crt`, `7.pem`, `bundle.pem`; a bundle has no DER form.
fn file_name(file: &str, extension: &str) -> Option<(Which, Form)> {
    let (stem, suffix) = file.rsplit_once('.')?;
    let form = match suffix {
        "pem" => Form::Pem,
        suffix if suffix == extension => Form::Der,
        _ => return None,
    };
    let which = match stem {
        "root" => Which::Root,
        "bundle" if form == Form::Pem => Which::All,
        id => Which::Of(plain_number(id)?),
    };
    Some((which, form))
}

/// `7`, `3-0.crl` or `3-0.pem`.
fn shard_name(authority: &str, file: &str) -> Option<(AuthorityId, Epoch, u32, Form)> {
    let (stem, suffix) = file.rsplit_once('.')?;
    let form = match suffix {
        "pem" => Form::Pem,
        "crl" => Form::Der,
        _ => return None,
    };
    let (epoch, slice) = stem.split_once('-')?;
    Some((plain_number(authority)?, Epoch(plain_number(epoch)?), plain_number(slice)?, form))
}

/// One name a file: `07` and `+7` are none.
fn plain_number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

fn age(end: Timestamp, now: Timestamp) -> Duration {
    end.since(now).min(CRL_AGE)
}

/// A list's number never goes back, so the numbers tell one state of the lists from any other.
fn numbers(lists: &[Arc<StoredCrl>], form: Form) -> String {
    let text: Vec<u8> = lists
        .iter()
        .flat_map(|list| format!("{}:{}:{};", list.authority, list.number, list.this_update.0).into_bytes())
        .collect();
    tag(&[&text], form)
}

fn tag(parts: &[&[u8]], form: Form) -> String {
    let form = if form == Form::Pem { "pem" } else { "der" };
    format!("{}-{form}", digest_of(parts))
}

/// What tells these octets from others, for a tag.
pub fn digest_of(parts: &[&[u8]]) -> String {
    let digest: [u8; 32] = digest(&SHA256, &parts.concat()).as_ref().try_into().unwrap_or_default();
    Fingerprint(digest).to_string().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_name() {
        assert_eq!(file_name("root.crt", "crt"), Some((Which::Root, Form::Der)));
        assert_eq!(file_name("7.pem", "crt"), Some((Which::Of(7), Form::Pem)));
        assert_eq!(file_name("7.crl", "crl"), Some((Which::Of(7), Form::Der)));
        assert_eq!(file_name("bundle.pem", "crl"), Some((Which::All, Form::Pem)));
        for file in ["", ".", "7", "07.crt", "+7.crt", "7.crl", "7.crt.crt", "-1.pem", "4294967296.pem", "bundle.crt", "root."]
        {
            assert_eq!(file_name(file, "crt"), None, "{file}");
        }
    }

    #[test]
    fn a_list_is_kept_no_longer_than_it_holds() {
        let age = |end| age(Timestamp(end), Timestamp(1000));
        assert_eq!(age(1_000_000), CRL_AGE);
        assert_eq!(age(1010), Duration::from_secs(10));
        assert_eq!(age(500), Duration::ZERO);
        let (der, this_update, next_update) = (Vec::new(), Timestamp(0), Timestamp(1));
        let list = [Arc::new(StoredCrl { authority: 1, number: 1, this_update, next_update, position: 0, der })];
        assert_ne!(numbers(&list, Form::Der), numbers(&list, Form::Pem));
    }

    #[test]
    fn a_shard_has_one_name() {
        assert_eq!(shard_name("7", "3-0.crl"), Some((7, Epoch(3), 0, Form::Der)));
        assert_eq!(shard_name("7", "3-12.pem"), Some((7, Epoch(3), 12, Form::Pem)));
        for (authority, file) in
            [("07", "3-0.crl"), ("7", "03-0.crl"), ("7", "3-+1.crl"), ("7", "3.crl"), ("7", "3-0"), ("7", "3-0.crt")]
        {
            assert_eq!(shard_name(authority, file), None, "{authority}/{file}");
        }
    }

    #[test]
    fn large_texts_are_made_once_and_few_are_kept() {
        let texts = Texts::default();
        let large = |letter: &str| letter.repeat(LARGE_TEXT);
        assert_eq!(texts.text("a", || large("a")), large("a"));
        assert_eq!(texts.text("a", || panic!("made twice")), large("a"));
        for tag in ["b", "c", "d", "e"] {
            texts.text(tag, || large(tag));
        }
        assert_eq!(texts.text("a", || "again".to_owned()), "again");
        assert_eq!(texts.text("a", || "small ones are not kept".to_owned()), "small ones are not kept");
    }
}
