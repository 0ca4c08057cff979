//! CA certificates and CRLs, in DER and PEM.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource, guard};
use fleetmark_domain::{AuthorityState, Fingerprint, Refusal, Timestamp};
use ring::digest::{SHA256, digest};

use super::cache::Validators;
use crate::http::State;
use crate::http::problem::{Problem, not_allowed};
use crate::pki::bundle::{crl_pem, pem};
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
        .service(readable("/crl/{file}", web::route().to(list)));
}

/// A resource for GET and HEAD.
pub fn readable(path: &str, route: actix_web::Route) -> Resource {
    web::resource(path).route(route.guard(guard::Any(guard::Get()).or(guard::Head()))).default_service(not_allowed("GET, HEAD"))
}

async fn certificate(request: HttpRequest, state: Data<State>, file: Path<String>) -> Result<HttpResponse, Problem> {
    let (which, form) = file_name(&file, "crt").ok_or(Refusal::NotFound)?;
    let authorities = state.registrar.authorities().all();
    let crosses = state.registrar.authorities().crosses();
    let root = state.registrar.authorities().root()?;
    let records = authorities.iter().map(|authority| &authority.record).chain(crosses.iter().map(|cross| &**cross));
    let chosen: Vec<&AuthorityRecord> = match which {
        Which::Root => vec![&root.record],
        _ => records.filter(|record| which.is(record)).collect(),
    };
    let newest = chosen.iter().map(|record| record.created_at).max().ok_or(Refusal::NotFound)?;
    let chosen: Vec<&[u8]> = chosen.into_iter().map(|record| &*record.certificate).collect();
    let validators = Validators { tag: tag(&chosen, form), modified: newest, max_age: CERTIFICATE_AGE };
    Ok(match form {
        Form::Der => validators.answer(&request, CERTIFICATE, || chosen.concat()),
        Form::Pem => validators.answer(&request, PEM, || pem(&chosen).into_bytes()),
    })
}

async fn list(request: HttpRequest, state: Data<State>, file: Path<String>) -> Result<HttpResponse, Problem> {
    let (which, form) = file_name(&file, "crl").ok_or(Refusal::NotFound)?;
    let lists = match which {
        Which::All => state.registrar.crls(),
        Which::Of(authority) => state.registrar.crl(authority).into_iter().collect(),
        Which::Root => {
            let root = state.registrar.authorities().root()?;
            state.registrar.crl(root.record.id).into_iter().collect()
        }
    };
    let modified = lists.iter().map(|list| list.this_update).max().ok_or(Refusal::NotFound)?;
    let validators = Validators { tag: numbers(&lists, form), modified, max_age: age(&lists, state.clock.now()) };
    Ok(match form {
        Form::Der => validators.answer(&request, CRL, || lists.iter().flat_map(|list| list.der.iter().copied()).collect()),
        Form::Pem => {
            validators.answer(&request, PEM, || lists.iter().map(|list| crl_pem(&list.der)).collect::<String>().into())
        }
    })
}

impl Which {
    fn is(self, record: &AuthorityRecord) -> bool {
        match self {
            Self::Of(id) => record.id == id,
            Self::Root => record.is_root() && record.state == AuthorityState::Active,
            Self::All => record.state != AuthorityState::Revoked,
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
        // One name a file: `07` and `+7` are none.
        id => Which::Of(id.parse().ok().filter(|number: &AuthorityId| number.to_string() == id)?),
    };
    Some((which, form))
}

fn age(lists: &[Arc<StoredCrl>], now: Timestamp) -> Duration {
    lists.iter().map(|list| list.next_update.since(now)).min().unwrap_or_default().min(CRL_AGE)
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
    let octets: Vec<u8> = parts.concat();
    let digest: [u8; 32] = digest(&SHA256, &octets).as_ref().try_into().unwrap_or_default();
    let form = if form == Form::Pem { "pem" } else { "der" };
    Fingerprint(digest).to_string().chars().take(32).chain("-".chars()).chain(form.chars()).collect()
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
        let list = |next_update| {
            let (der, this_update) = (Vec::new(), Timestamp(0));
            Arc::new(StoredCrl { authority: 1, number: 1, this_update, next_update: Timestamp(next_update), position: 0, der })
        };
        let age = |lists: &[Arc<StoredCrl>]| age(lists, Timestamp(1000));
        assert_eq!(age(&[list(1_000_000)]), CRL_AGE);
        assert_eq!(age(&[list(1_000_000), list(1010)]), Duration::from_secs(10));
        assert_eq!(age(&[list(500)]), Duration::ZERO);
        assert_ne!(numbers(&[list(1)], Form::Der), numbers(&[list(1)], Form::Pem));
    }
}
