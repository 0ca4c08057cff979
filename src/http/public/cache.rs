//! Validators and their answers (RFC 9110 13, RFC 9111).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{
    CacheControl, CacheDirective, ETag, EntityTag, Header, HttpDate, IfModifiedSince, IfNoneMatch, LastModified,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::Timestamp;

/// A public answer's validators, and how long it may be kept.
#[derive(Debug, Clone)]
pub struct Validators {
    /// A strong tag, without quotes: `[A-Za-z0-9.-]`.
    pub tag: String,
    /// When it was made.
    pub modified: Timestamp,
    /// How long a cache may give it without asking.
    pub max_age: Duration,
}

impl Validators {
    /// 304 where the client has this already, else 200 with the octets.
    pub fn answer(&self, request: &HttpRequest, content_type: &'static str, body: impl FnOnce() -> Bytes) -> HttpResponse {
        let mut response = if self.is_known_to(request) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response.insert_header(ETag(self.entity_tag())).insert_header(LastModified(self.date())).insert_header(CacheControl(
            vec![CacheDirective::Public, CacheDirective::MaxAge(u32::try_from(self.max_age.as_secs()).unwrap_or(u32::MAX))],
        ));
        if self.is_known_to(request) { response.finish() } else { response.content_type(content_type).body(body()) }
    }

    /// RFC 9110 13.2.2: where there is If-None-Match, If-Modified-Since does not count.
    fn is_known_to(&self, request: &HttpRequest) -> bool {
        match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) if !tags.is_empty() => tags.iter().any(|tag| tag.weak_eq(&self.entity_tag())),
            _ => IfModifiedSince::parse(request).is_ok_and(|since| SystemTime::from(since.0) >= system_time(self.modified)),
        }
    }

    fn entity_tag(&self) -> EntityTag {
        EntityTag::new_strong(self.tag.clone())
    }

    fn date(&self) -> HttpDate {
        system_time(self.modified).into()
    }
}

/// The instant as HTTP's date types take it.
pub fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at.0).unwrap_or(0))
}
