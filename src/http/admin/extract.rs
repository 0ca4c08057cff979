//! What a request says, parsed once and within limits: caller, path, query, body, and the headers of conditional and
//! repeatable requests. Whatever cannot be read is a problem document.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use fleetmark_domain::Refusal;
use ring::digest;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{Object, Required, Type};

use crate::http::caller::Operator;
use crate::http::limits;
use crate::http::problem::Problem;
use crate::registrar::caller::Caller;
use crate::registrar::{Error, Idempotency, PageRequest};

/// The longest cursor, in octets.
const MAX_CURSOR: usize = 256;

/// The longest Idempotency-Key, in octets.
const MAX_IDEMPOTENCY_KEY: usize = 128;

/// How much of a parser's message is shown.
const MAX_DETAIL: usize = 200;

/// The most items of one page.
pub const MAX_LIMIT: u32 = 500;

/// The items of one page, unless the caller says otherwise.
pub const DEFAULT_LIMIT: u32 = 50;

/// A refusal with one more sentence.
pub fn refuse(refusal: Refusal, detail: impl Into<String>) -> Problem {
    Error::with_detail(refusal, detail).into()
}

/// The request cannot be read; `message` is a parser's and is cut short.
fn malformed(message: &(impl ToString + ?Sized)) -> Problem {
    let detail: String = message.to_string().chars().take(MAX_DETAIL).collect();
    refuse(Refusal::MalformedRequest, detail)
}

/// The operator who calls. `authenticate` let it in before any handler saw the request.
#[derive(Debug, Clone)]
pub struct By(pub Caller);

impl FromRequest for By {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let operator = request.extensions().get::<Operator>().map(|operator| Self(operator.0.clone()));
        ready(operator.ok_or_else(|| Refusal::CertificateRequired.into()))
    }
}

/// The variable segments of the path. A path whose segments cannot name anything is not found.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Path<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let segments = web::Path::<T>::from_request(request, &mut Payload::None).into_inner();
        ready(segments.map(|path| Self(path.into_inner())).map_err(|_| Refusal::NotFound.into()))
    }
}

/// The query string; unknown and repeated parameters are refused.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + 'static> Query<T> {
    fn parse(text: &str) -> Result<Self, Problem> {
        web::Query::<T>::from_query(text).map(|query| Self(query.into_inner())).map_err(|error| malformed(&error))
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.query_string()))
    }
}

/// A JSON body, at most [`limits::MAX_JSON`] octets, with the hash of the whole request. No body is read as `{}`.
#[derive(Debug)]
pub struct Json<T> {
    /// What it says.
    pub value: T,
    /// SHA-256 over method, path and body.
    pub request_hash: [u8; 32],
}

impl<T: DeserializeOwned> Json<T> {
    fn parse(body: &[u8], method: &Method, path: &str) -> Result<Self, Problem> {
        let text = if body.is_empty() { b"{}" } else { body };
        let value = serde_json::from_slice(text).map_err(|error| malformed(&error))?;
        Ok(Self { value, request_hash: request_hash(method, path, body) })
    }

    /// Reads a body of at most `limit` octets.
    pub fn read(
        request: &HttpRequest,
        payload: &mut Payload,
        limit: usize,
    ) -> impl Future<Output = Result<Self, Problem>> + use<T> {
        let request = request.clone();
        let payload = web::Payload::from_request(&request, payload).into_inner();
        async move {
            let payload = payload.map_err(|error| malformed(&error))?;
            let body = limits::read_body(&request, payload, limit).await?;
            if !body.is_empty() {
                check_media_type(request.method(), request.headers())?;
            }
            Self::parse(&body, request.method(), request.path())
        }
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Box::pin(Self::read(request, payload, limits::MAX_JSON))
    }
}

/// JSON, or with PATCH a merge patch (RFC 7396); neither compressed.
fn check_media_type(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = media_type == "application/json" || (*method == Method::PATCH && media_type == "application/merge-patch+json");
    if !fits {
        return Err(refuse(Refusal::MediaTypeNotSupported, "send application/json"));
    }
    match text(CONTENT_ENCODING) {
        "" | "identity" => Ok(()),
        _ => Err(refuse(Refusal::MediaTypeNotSupported, "send the body without a content encoding")),
    }
}

fn request_hash(method: &Method, path: &str, body: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [method.as_str().as_bytes(), b" ", path.as_bytes(), b"\n", body] {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The `Idempotency-Key` header, where there is one: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The header's name.
    pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

    /// The key, bound to this request.
    pub fn over<T>(self, body: &Json<T>) -> Option<Idempotency> {
        self.0.map(|key| Idempotency { key, request_hash: body.request_hash })
    }

    fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = single(headers, &Self::HEADER)? else { return Ok(Self(None)) };
        let octets = value.as_bytes();
        if octets.is_empty() || octets.len() > MAX_IDEMPOTENCY_KEY || !octets.iter().all(u8::is_ascii_graphic) {
            return Err(malformed("an Idempotency-Key has 1 to 128 visible ASCII characters"));
        }
        Ok(Self(Some(value)))
    }
}

impl FromRequest for IdempotencyKey {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.headers()))
    }
}

impl utoipa::IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = Object::builder().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_IDEMPOTENCY_KEY));
        vec![header("Idempotency-Key", "A repeat of the same request with the same key gives the same answer.", schema)]
    }
}

/// The `If-Match` header, where there is one: the version that the caller read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub Option<u64>);

impl IfMatch {
    /// RFC 9110 13.1.1. A tag that is not one of ours, or a weak one, matches nothing.
    fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = single(headers, &IF_MATCH)? else { return Ok(Self(None)) };
        let value = value.trim();
        if value == "*" {
            return Ok(Self(None));
        }
        if value.starts_with("W/\"") {
            return Err(Refusal::EtagMismatch.into());
        }
        let tag = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let tag = tag.filter(|tag| !tag.contains('"')).ok_or_else(|| malformed("If-Match holds one entity tag, or *"))?;
        let version = tag.parse::<u64>().ok().filter(|version| version.to_string() == tag);
        version.map(|version| Self(Some(version))).ok_or_else(|| Refusal::EtagMismatch.into())
    }
}

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.headers()))
    }
}

impl utoipa::IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = Object::builder().schema_type(Type::String);
        vec![header("If-Match", "The ETag that was read, or *; 412 if it was changed since.", schema)]
    }
}

fn header(name: &str, description: &str, schema: utoipa::openapi::ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// The one value of a header; None where it is missing, refused where it is repeated or no ASCII.
fn single(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(&format!("{name} is given twice")));
    }
    let text = value.to_str().map_err(|_| malformed(&format!("{name} is not ASCII")))?;
    Ok(Some(text.to_owned()))
}

/// Which page: `cursor` as an earlier page gave it, `limit` from 1 to 500, 50 unless given.
pub fn page(cursor: Option<String>, limit: Option<u32>) -> Result<PageRequest, Problem> {
    let limit = within("limit", limit, 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    if cursor.as_deref().is_some_and(|text| text.is_empty() || text.len() > MAX_CURSOR || !is_graphic(text)) {
        return Err(refuse(Refusal::InvalidValue, "cursor: this is not a cursor that a page gave"));
    }
    Ok(PageRequest { cursor, limit })
}

fn is_graphic(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_graphic())
}

/// A number between two bounds, both included.
pub fn within<N: PartialOrd + std::fmt::Display + Copy>(
    field: &str,
    value: Option<N>,
    least: N,
    most: N,
) -> Result<Option<N>, Problem> {
    match value {
        Some(value) if value < least || value > most => {
            Err(refuse(Refusal::InvalidValue, format!("{field}: from {least} to {most}")))
        }
        value => Ok(value),
    }
}

/// A name in a body: `Name` or `FleetName`.
///
/// # Errors
/// `invalid_name`, with the field and the rule that it breaks.
pub fn name<N: FromStr<Err = fleetmark_domain::name::NameError>>(field: &str, text: &str) -> Result<N, Problem> {
    text.parse().map_err(|error| refuse(Refusal::InvalidName, format!("{field}: {error}")))
}

/// Text for people, at most `most` characters, none of them a control character.
pub fn text(field: &str, text: Option<String>, most: usize) -> Result<String, Problem> {
    let text = text.unwrap_or_default();
    if text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(refuse(Refusal::InvalidValue, format!("{field}: at most {most} characters, no control characters")));
    }
    Ok(text)
}

/// For serde: what is read from text.
pub fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// For serde: what is read from text, where there is any.
pub fn parsed_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

#[cfg(test)]
mod tests;
