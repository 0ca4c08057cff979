//! Refusals as problem documents (RFC 9457). The one place where a refusal is logged and counted.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError, Route, web};
use fleetmark_domain::Refusal;
use fleetmark_domain::refusal::Class;
use serde::Serialize;

use crate::registrar;

/// Seconds after which a refused caller may try again, with 429 and 503.
const RETRY_SECONDS: u32 = 2;
/// Seconds after which a request that waits for a person may come again (RFC 7030 4.2.3).
const PENDING_SECONDS: u32 = 30;

/// A refusal on its way out.
#[derive(Debug)]
pub struct Problem(pub registrar::Error);

impl From<registrar::Error> for Problem {
    fn from(error: registrar::Error) -> Self {
        Self(error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.into())
    }
}

/// The body of a problem document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemDocument {
    /// `urn:fleetmark:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence for the person who must act on it.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The stable name, for programs.
    pub code: &'static str,
    /// One more sentence, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The HTTP status of a class of refusals.
pub const fn status(class: Class) -> StatusCode {
    match class {
        Class::Pending => StatusCode::ACCEPTED,
        Class::Malformed => StatusCode::BAD_REQUEST,
        Class::Unproven => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::Unknown => StatusCode::NOT_FOUND,
        Class::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        Class::Conflict => StatusCode::CONFLICT,
        Class::Stale => StatusCode::PRECONDITION_FAILED,
        Class::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::TooLong => StatusCode::URI_TOO_LONG,
        Class::WrongMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Class::Unacceptable => StatusCode::UNPROCESSABLE_ENTITY,
        Class::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Class::Faulty => StatusCode::INTERNAL_SERVER_ERROR,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Problem {
    /// Logs and counts the refusal, once.
    pub fn record(&self) {
        let refusal = self.0.refusal;
        metrics::counter!("fleetmark_refused_total", "code" => refusal.code()).increment(1);
        let Some(cause) = &self.0.cause else {
            tracing::info!(code = refusal.code(), detail = self.0.detail.as_deref(), "refused");
            return;
        };
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            source = error.source();
        }
        tracing::error!(code = refusal.code(), cause = chain, "refused");
    }

    /// Status and headers, without a body.
    pub fn head(&self) -> actix_web::HttpResponseBuilder {
        let class = self.0.refusal.class();
        let mut response = HttpResponse::build(status(class));
        match class {
            Class::Unproven => response.insert_header((WWW_AUTHENTICATE, "Bearer")),
            Class::TooMany | Class::Unavailable => response.insert_header((RETRY_AFTER, RETRY_SECONDS)),
            Class::Pending => response.insert_header((RETRY_AFTER, PENDING_SECONDS)),
            _ => &mut response,
        };
        response
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        status(self.0.refusal.class())
    }

    fn error_response(&self) -> HttpResponse {
        self.record();
        let refusal = self.0.refusal;
        let document = ProblemDocument {
            kind: format!("urn:fleetmark:problem:{}", refusal.code()),
            title: refusal.text(),
            status: self.status_code().as_u16(),
            code: refusal.code(),
            detail: self.0.detail.clone(),
        };
        let body = serde_json::to_string(&document).unwrap_or_default();
        self.head()
            .insert_header((CONTENT_TYPE, "application/problem+json"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(body)
    }
}

/// What a resource answers to methods that it does not take; `allow` names those that it takes (RFC 9110 15.5.6).
/// Goes into `Resource::default_service`.
pub fn not_allowed(allow: &'static str) -> Route {
    web::route().to(move || async move {
        let mut response = Problem::from(Refusal::MethodNotAllowed).error_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        response
    })
}

/// What a door answers for a path that is not there.
pub async fn not_found() -> HttpResponse {
    Problem::from(Refusal::NotFound).error_response()
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn every_refusal_is_a_whole_document() {
        for refusal in Refusal::ALL {
            let response = Problem::from(*refusal).error_response();
            let status = response.status();
            assert!(status.is_client_error() || status.is_server_error() || status == 202);
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), status == 401, "RFC 9110 15.5.2");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 202 || status == 429 || status == 503);
            let document: serde_json::Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
            assert_eq!(document["code"], refusal.code());
            assert_eq!(document["type"], format!("urn:fleetmark:problem:{}", refusal.code()));
            assert_eq!(document["status"], status.as_u16());
            assert_eq!(document["title"], refusal.text());
        }
    }

    #[actix_web::test]
    async fn a_cause_is_for_the_log_alone() {
        let cause = std::io::Error::other("/var/lib/secret is full");
        let problem = Problem(registrar::Error::caused(Refusal::StorageFull, cause));
        let body = to_bytes(problem.error_response().into_body()).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }
}
