//! OCSP over HTTP (RFC 6960 A, RFC 5019 5 and 6). Whatever is wrong with a request is answered as OCSP answers it.

use std::pin::Pin;

use actix_http::Request;
use actix_web::dev::{Payload, RequestHead};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, Expires, Header, IfNoneMatch, LastModified};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpMessage, HttpResponse};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use fleetmark_domain::Timestamp;
use futures_util::Stream;

use super::cache::system_time;
use crate::http::State;
use crate::http::limits::{check_uri, drain, read_bare};
use crate::http::problem::not_allowed;
use crate::pki::ocsp::{Failure, MAX_REQUEST, failure};
use crate::registrar::publish::OcspAnswer;

const RESPONSE: &str = "application/ocsp-response";
const BY_PATH: &str = "/ocsp/{request:.*}";

/// Clients differ in whether they send the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What there is for other methods; see [`route`].
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(web::resource("/ocsp").default_service(not_allowed("POST")))
        .service(web::resource(BY_PATH).default_service(not_allowed("GET, HEAD")));
}

/// The route of a question, which [`answer`] answers; None for any other request.
pub fn route(head: &RequestHead) -> Option<&'static str> {
    let path = head.uri.path();
    let route = match head.method {
        Method::POST => (path == "/ocsp").then_some("/ocsp"),
        Method::GET | Method::HEAD => path.starts_with("/ocsp/").then_some(BY_PATH),
        _ => None,
    };
    route.filter(|_| check_uri(&head.uri).is_ok())
}

/// Answers a question. RFC 6960 A.1.1: by GET it is the request's DER in base64, percent-encoded, as the rest of the path.
pub async fn answer(state: &State, request: &Request, payload: &mut Payload) -> HttpResponse {
    let is_post = request.method() == Method::POST;
    let der = if is_post { read_bare(request.headers(), payload, MAX_REQUEST).await.ok() } else { from_path(request.path()) };
    if !is_post || der.is_none() {
        drain(|context| Pin::new(&mut *payload).poll_next(context)).await;
    }
    let Some(der) = der else { return malformed() };
    let now = state.clock.now();
    // RFC 9110 13.1.2: conditions are for GET and HEAD here.
    respond((!is_post).then_some(request), state.registrar.ocsp(&der, now).await, now)
}

/// The path is taken raw: a router would make `%2F` and `/` two things, and here they are one.
fn from_path(path: &str) -> Option<Vec<u8>> {
    let encoded = percent_decoded(path.strip_prefix("/ocsp/")?)?;
    LENIENT.decode(encoded).ok().filter(|der| der.len() <= MAX_REQUEST)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(if octet == b'%' {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok().filter(|d| !d.contains('+'))?, 16).ok()?
        } else {
            octet
        });
    }
    Some(octets)
}

/// RFC 5019 6.2: a signed answer may be kept until nextUpdate, by whoever keeps answers, and never forbids it altogether. One that
/// holds for its request alone, or that may be another in a moment, is stale at once.
fn respond(conditional: Option<&Request>, answer: OcspAnswer, now: Timestamp) -> HttpResponse {
    let Some(tag) = answer.tag else { return uncached(answer.der) };
    let until = answer.fresh_until.unwrap_or(answer.at);
    let tag = hex::encode(tag);
    let known = conditional.is_some_and(|request| match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.tag() == tag),
        _ => false,
    });
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, format!("\"{tag}\"")))
        .insert_header(LastModified(system_time(answer.at).into()))
        .insert_header(Expires(system_time(until).into()))
        .insert_header((
            CACHE_CONTROL,
            format!("max-age={}, public, no-transform, must-revalidate", until.since(now).as_secs()),
        ));
    if known { response.finish() } else { response.insert_header((CONTENT_TYPE, RESPONSE)).body(answer.der) }
}

fn malformed() -> HttpResponse {
    metrics::counter!("fleetmark_refused_total", "code" => "ocsp_malformed").increment(1);
    uncached(failure(Failure::MalformedRequest))
}

fn uncached(der: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, RESPONSE)).insert_header((CACHE_CONTROL, "no-store")).body(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_clients_write_them() {
        // 3e 3f ff, whose base64 holds both special characters: Pj//
        for path in ["/ocsp/Pj//", "/ocsp/Pj%2F/", "/ocsp/Pj%2f%2F"] {
            assert_eq!(from_path(path), Some(vec![0x3e, 0x3f, 0xff]), "{path}");
        }
        for path in ["/ocsp/+w==", "/ocsp/%2Bw%3D%3d", "/ocsp/+w"] {
            assert_eq!(from_path(path), Some(vec![0xfb]), "{path}");
        }
        for path in ["/ocsp/%", "/ocsp/%2", "/ocsp/%+1", "/ocsp/%-1", "/ocsp/%zz", "/ocsp/-_", "/ocsp/ä", "/other"] {
            assert_eq!(from_path(path), None, "{path}");
        }
        // Three octets in four characters.
        let of_length = |octets: usize| from_path(&format!("/ocsp/{}", "AAAA".repeat(octets.div_ceil(3)))).map(|der| der.len());
        assert_eq!([of_length(4_095), of_length(4_098)], [Some(4_095), None]);
    }
}
