//! Validators and their answers (RFC 9110 13, RFC 9111).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{
    CacheControl, CacheDirective, ETag, EntityTag, Header, IfModifiedSince, IfNoneMatch, LastModified,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::Timestamp;

/// A public answer's validators, and how long it may be kept.
#[derive(Debug, Clone)]
pub struct Validators {
    /// A strong tag, without quotes: `[A-Za-z0-9.-]`.
    pub tag: String,
    /// When it was made; None where that does not tell it from what was there before: of things that are put together of others,
    /// and of what is newer than [`settled`] has it.
    pub modified: Option<Timestamp>,
    /// How long a cache may give it without asking.
    pub max_age: Duration,
}

impl Validators {
    /// 304 where the client has this already, else 200 with the octets.
    pub fn answer(&self, request: &HttpRequest, content_type: &'static str, body: impl FnOnce() -> Bytes) -> HttpResponse {
        let mut response = if self.is_known_to(request) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response.insert_header(ETag(self.entity_tag())).insert_header(CacheControl(vec![
            CacheDirective::Public,
            CacheDirective::MaxAge(u32::try_from(self.max_age.as_secs()).unwrap_or(u32::MAX)),
        ]));
        if let Some(modified) = self.modified {
            response.insert_header(LastModified(system_time(modified).into()));
        }
        if self.is_known_to(request) { response.finish() } else { response.content_type(content_type).body(body()) }
    }

    /// RFC 9110 13.2.2: where there is If-None-Match, If-Modified-Since does not count. The date must be the very one: an older thing
    /// may be the newer one, after the clock was set back.
    fn is_known_to(&self, request: &HttpRequest) -> bool {
        match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) if !tags.is_empty() => tags.iter().any(|tag| tag.weak_eq(&self.entity_tag())),
            _ => self.modified.is_some_and(|modified| {
                IfModifiedSince::parse(request).is_ok_and(|since| SystemTime::from(since.0) == system_time(modified))
            }),
        }
    }

    fn entity_tag(&self) -> EntityTag {
        EntityTag::new_strong(self.tag.clone())
    }
}

/// The date of what was made at `made`, once no other can be made at the same second (RFC 9110 8.8.2.2). Nobody is given a date that
/// two things share, nor one of the future.
pub fn settled(made: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (made + Duration::from_secs(2) <= now).then_some(made)
}

/// The instant as HTTP's date types take it.
pub fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(at.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::http::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
    use actix_web::test::TestRequest;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn asked(modified: Option<Timestamp>, header: (HeaderName, &str)) -> HttpResponse {
        let request = TestRequest::get().insert_header((header.0, header.1)).to_http_request();
        let validators = Validators { tag: "tag".to_owned(), modified, max_age: SECOND };
        validators.answer(&request, "text/plain", Bytes::new)
    }

    #[test]
    fn a_date_counts_where_it_is_the_very_one() {
        // 1_000_000_000 is Sun, 09 Sep 2001 01:46:40 GMT.
        let made = Some(Timestamp(1_000_000_000));
        let date = |second: u8| format!("Sun, 09 Sep 2001 01:46:{second} GMT");
        for (second, expected) in [(39, StatusCode::OK), (40, StatusCode::NOT_MODIFIED), (41, StatusCode::OK)] {
            let answer = asked(made, (IF_MODIFIED_SINCE, &date(second)));
            assert_eq!((answer.status(), answer.headers().contains_key(LAST_MODIFIED)), (expected, true), "{second}");
            let undated = asked(None, (IF_MODIFIED_SINCE, &date(second)));
            assert_eq!((undated.status(), undated.headers().contains_key(LAST_MODIFIED)), (StatusCode::OK, false));
        }
        for modified in [made, None] {
            assert_eq!(asked(modified, (IF_NONE_MATCH, "\"tag\"")).status(), StatusCode::NOT_MODIFIED);
            assert_eq!(asked(modified, (IF_NONE_MATCH, "\"other\"")).status(), StatusCode::OK);
        }
    }

    #[test]
    fn what_may_share_its_second_with_another_has_no_date() {
        let made = Timestamp(1_000);
        for (now, expected) in [(900, None), (1_000, None), (1_001, None), (1_002, Some(made)), (9_000, Some(made))] {
            assert_eq!(settled(made, Timestamp(now)), expected, "{now}");
        }
    }
}
