//! How large, how long and how often.
//!
//! Heads are actix-http's own: at most 96 header lines and 128 KiB. A head that is not there within [`HEAD_TIME`] is answered with 408 by actix itself, without a body.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::{JsonPayloadError, PayloadError};
use actix_web::http::Uri;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{self, Bytes, JsonConfig, PathConfig, QueryConfig, ServiceConfig};
use fleetmark_domain::{Network, Refusal};
use futures_util::{Stream, StreamExt};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::de::DeserializeOwned;
use tokio::time::Sleep;

use super::problem::Problem;
use crate::registrar::Error;

/// The largest JSON body, in octets.
pub const MAX_JSON: usize = 64 * 1024;
/// The largest body of an EST request, in octets.
pub const MAX_EST: usize = 32 * 1024;
/// The longest path, and the longest query, in octets.
pub const MAX_URI_PART: usize = 2 * 1024;
/// The longest query of the feed, which names ledgers, in octets: actix takes no request target of 64 KiB.
pub const MAX_FEED_QUERY: usize = 60 * 1024;
/// How long a request's body may take.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// How long a request's head may take.
pub const HEAD_TIME: Duration = Duration::from_secs(5);
/// The most that is read of a body that nobody wants, in octets.
const MAX_DRAIN: usize = 256 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The longest detail that a problem document repeats of a parser's words, in characters.
const MAX_DETAIL: usize = 200;

/// Extractors of JSON, paths and queries with these limits; what they refuse becomes a problem document.
pub fn extractors(config: &mut ServiceConfig) {
    config
        .app_data(
            JsonConfig::default()
                .limit(MAX_JSON)
                .content_type(|mime| mime.essence_str() == "application/json")
                .error_handler(|error, _| Problem(json_refusal(&error)).into()),
        )
        .app_data(PathConfig::default().error_handler(|_, _| Problem::from(Refusal::NotFound).into()))
        .app_data(QueryConfig::default().error_handler(|error, _| Problem(malformed(&error.to_string())).into()));
}

/// Refuses a path or a query that is too long.
///
/// # Errors
/// `UriTooLong`.
pub fn check_uri(uri: &Uri) -> Result<(), Refusal> {
    let most = if uri.path() == "/v1/feed" { MAX_FEED_QUERY } else { MAX_URI_PART };
    let fits = uri.path().len() <= MAX_URI_PART && uri.query().is_none_or(|query| query.len() <= most);
    if fits { Ok(()) } else { Err(Refusal::UriTooLong) }
}

/// A request's body, of which whoever answers may read less than there is.
pub struct Body(Option<Rc<RefCell<Payload>>>);

impl Body {
    /// Bounds the time that the request's body may take.
    pub fn bound(request: &mut ServiceRequest) -> Self {
        let payload = request.parts_mut().1.take();
        if matches!(payload, Payload::None) {
            return Self(None);
        }
        let payload = Rc::new(RefCell::new(payload));
        let timed = Timed { payload: Rc::clone(&payload), deadline: None };
        request.set_payload(Payload::Stream { payload: Box::pin(timed) });
        Self(Some(payload))
    }

    /// Reads what nobody read, up to [`MAX_DRAIN`] octets: the connection could not be used again otherwise.
    pub async fn drain(&self) {
        let Some(payload) = &self.0 else { return };
        drain(|context| Pin::new(&mut *payload.borrow_mut()).poll_next(context)).await;
    }
}

/// See [`Body::drain`]; `next` polls for the next part.
pub async fn drain(mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>>) {
    let mut left = MAX_DRAIN;
    let rest = async {
        while let Some(Ok(part)) = poll_fn(&mut next).await {
            let Some(fewer) = left.checked_sub(part.len()) else { break };
            left = fewer;
        }
    };
    // A client that is slow even now is answered all the same.
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}

/// Reads a body of at most `limit` octets within [`BODY_TIME`], where no application reads it.
///
/// # Errors
/// See [`read_body`].
pub async fn read_bare(headers: &HeaderMap, payload: &mut Payload, limit: usize) -> Result<Vec<u8>, Refusal> {
    let announced = announced(headers);
    let mut body = Vec::with_capacity(announced.min(limit));
    let whole = read_stream(announced, payload, limit, |part| {
        body.extend_from_slice(part);
        Ok(())
    });
    tokio::time::timeout(BODY_TIME, whole).await.map_err(|_| Refusal::RequestTimeout)??;
    Ok(body)
}

/// Reads a body of at most `limit` octets.
///
/// # Errors
/// `BodyTooLarge`, `RequestTimeout`, `MalformedRequest` for one that breaks off.
pub async fn read_body(request: &HttpRequest, payload: web::Payload, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::with_capacity(announced(request.headers()).min(limit));
    read_parts(request, payload, limit, |part| {
        body.extend_from_slice(part);
        Ok(())
    })
    .await?;
    Ok(body)
}

/// Reads a body of at most `limit` octets, part by part as it comes.
///
/// # Errors
/// See [`read_body`]; and what `each` refuses.
pub async fn read_parts<E: From<Refusal>>(
    request: &HttpRequest,
    mut payload: web::Payload,
    limit: usize,
    each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    read_stream(announced(request.headers()), &mut payload, limit, each).await
}

async fn read_stream<E: From<Refusal>>(
    announced: usize,
    payload: &mut (impl Stream<Item = Result<Bytes, PayloadError>> + Unpin),
    limit: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if announced > limit {
        return Err(Refusal::BodyTooLarge.into());
    }
    let mut read = 0_usize;
    while let Some(part) = payload.next().await {
        let part = part.map_err(|error| payload_refusal(&error))?;
        read = read.saturating_add(part.len());
        if read > limit {
            return Err(Refusal::BodyTooLarge.into());
        }
        each(&part)?;
    }
    Ok(())
}

/// The length that a request announces, in octets; 0 where it announces none.
fn announced(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX)
}

/// Reads a JSON body of at most [`MAX_JSON`] octets, where the extractor does not fit.
///
/// # Errors
/// `MediaTypeNotSupported`, `BodyTooLarge`, `RequestTimeout`, `MalformedRequest`.
pub async fn read_json<T: DeserializeOwned>(request: &HttpRequest, payload: web::Payload) -> Result<T, Error> {
    read_json_within(request, payload, MAX_JSON).await
}

/// Reads a JSON body of at most `limit` octets.
///
/// # Errors
/// See [`read_json`].
pub async fn read_json_within<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
    limit: usize,
) -> Result<T, Error> {
    if !is_of_type(request, "application/json") {
        return Err(Refusal::MediaTypeNotSupported.into());
    }
    let body = read_body(request, payload, limit).await?;
    serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))
}

/// Whether the body is of this type; parameters do not matter.
pub fn is_of_type(request: &HttpRequest, essence: &str) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(essence))
}

fn json_refusal(error: &JsonPayloadError) -> Error {
    match error {
        JsonPayloadError::ContentType => Refusal::MediaTypeNotSupported.into(),
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => Refusal::BodyTooLarge.into(),
        JsonPayloadError::Payload(error) => payload_refusal(error).into(),
        JsonPayloadError::Deserialize(error) => malformed(&error.to_string()),
        _ => Refusal::MalformedRequest.into(),
    }
}

fn payload_refusal(error: &PayloadError) -> Refusal {
    match error {
        PayloadError::Overflow => Refusal::BodyTooLarge,
        PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Refusal::RequestTimeout,
        _ => Refusal::MalformedRequest,
    }
}

/// The parser's words without the values that it saw: a detail is logged, and a value might be a secret.
fn malformed(words: &str) -> Error {
    let safe = match words.find("expected ") {
        Some(expected) if words.contains("invalid type: ") || words.contains("invalid value: ") => {
            words.get(expected..).unwrap_or_default()
        }
        _ => words,
    };
    let safe: String = safe.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    Error::with_detail(Refusal::MalformedRequest, safe)
}

/// A body that must be there within [`BODY_TIME`] of the moment when it was first waited for.
struct Timed {
    payload: Rc<RefCell<Payload>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stream for Timed {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = Pin::new(&mut *self.payload.borrow_mut()).poll_next(context);
        if item.is_ready() {
            return item;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_TIME)));
        deadline.as_mut().poll(context).map(|()| Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))))
    }
}

/// How often one address may do something; those of one customer count together ([`Network::of_customer`]).
pub struct AddressLimit {
    limiter: DefaultKeyedRateLimiter<Network>,
    asked: AtomicU32,
}

impl AddressLimit {
    /// After so many questions it is looked whether the table has grown.
    const SWEEP_EVERY: u32 = 1024;
    /// A table larger than this forgets the addresses that have their whole burst again.
    const MANY: usize = 16 * 1024;

    /// `per_second` on average, `burst` at once; None where either is 0: no limit.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(per_second)?).allow_burst(NonZeroU32::new(burst)?);
        Some(Self { limiter: RateLimiter::keyed(quota), asked: AtomicU32::new(0) })
    }

    /// Counts one act of this address.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit(&self, address: IpAddr) -> Result<(), Refusal> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked.is_multiple_of(Self::SWEEP_EVERY) && self.limiter.len() > Self::MANY {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&Network::of_customer(address)).map_err(|_| Refusal::RateLimited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_burst_and_others_have_theirs() {
        let limit = AddressLimit::new(1, 3).unwrap();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let admitted = (0..10).filter(|_| limit.admit(one).is_ok()).count();
        assert!((3..=4).contains(&admitted), "{admitted}");
        assert_eq!(limit.admit(one), Err(Refusal::RateLimited));
        assert_eq!(limit.admit(other), Ok(()));
        assert!(AddressLimit::new(0, 3).is_none() && AddressLimit::new(3, 0).is_none());
    }

    #[test]
    fn the_feed_alone_takes_a_long_query() {
        let check = |path: &str, octets: usize| {
            let uri = format!("{path}?{}", "a".repeat(octets));
            check_uri(&uri.parse().unwrap())
        };
        assert_eq!((check("/v1/feed", MAX_FEED_QUERY), check("/v1/ledgers", MAX_URI_PART)), (Ok(()), Ok(())));
        assert_eq!(check("/v1/feed", MAX_FEED_QUERY + 1), Err(Refusal::UriTooLong));
        assert_eq!(check("/v1/ledgers", MAX_URI_PART + 1), Err(Refusal::UriTooLong));
    }

    #[test]
    fn the_table_of_addresses_does_not_grow_for_ever() {
        let limit = AddressLimit::new(1_000_000, 1).unwrap();
        for number in 0..60_000_u32 {
            let _ = limit.admit(IpAddr::V4(number.into()));
        }
        assert!(limit.limiter.len() < 20_000, "{}", limit.limiter.len());
    }

    #[test]
    fn a_detail_holds_no_value_of_the_body() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            #[expect(dead_code, reason = "only read by the parser")]
            number: u32,
        }
        let detail = |body: &str| {
            let error = serde_json::from_str::<Wanted>(body).unwrap_err();
            malformed(&error.to_string()).detail.unwrap()
        };
        for body in ["\"fmt_secret\"", "{\"number\":\"fmt_secret\"}", "{\"number\":-1234567}", "[\"fmt_secret\"]"] {
            let detail = detail(body);
            assert!(!detail.contains("secret") && !detail.contains("1234567") && detail.contains("expected"), "{detail}");
        }
        assert!(detail("{}").starts_with("missing field `number`"));
        assert!(detail(&format!("{{\"{}\":1}}", "a".repeat(900))).chars().count() <= MAX_DETAIL);
        assert!(!detail("{\"a\\u0007\\nb\":1}").contains(char::is_control));
    }
}
