//! Requests that cannot be answered, as problem documents (RFC 9457). Logged and counted here, once.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError, Route, web};
use fleetmark_domain::Refusal;
use fleetmark_domain::refusal::Class;
use serde_json::json;

/// The longest detail, in characters.
const MAX_DETAIL: usize = 200;
/// Seconds after which a caller may try again, with 503.
const RETRY_SECONDS: u32 = 1;

/// A refusal on its way out. Its codes are those of the server.
#[derive(Debug)]
pub(super) struct Problem {
    refusal: Refusal,
    detail: Option<String>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.refusal.code())
    }
}

impl Problem {
    /// With one more sentence, which may repeat a parser's words.
    pub(super) fn because(refusal: Refusal, detail: &(impl ToString + ?Sized)) -> Self {
        let detail = detail.to_string().chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
        Self { refusal, detail: Some(detail) }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        match self.refusal.class() {
            Class::Unknown => StatusCode::NOT_FOUND,
            Class::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Class::WrongMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Class::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Class::Unacceptable => StatusCode::UNPROCESSABLE_ENTITY,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Faulty => StatusCode::INTERNAL_SERVER_ERROR,
            // Of the others the endpoint gives none.
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let code = self.refusal.code();
        metrics::counter!("fleetmark_gateway_requests_refused_total", "code" => code).increment(1);
        tracing::info!(code, detail = self.detail.as_deref(), "request refused");
        let status = self.status_code();
        let mut document = json!({ "type": format!("urn:fleetmark:problem:{code}"), "title": self.refusal.text(),
            "status": status.as_u16(), "code": code });
        if let (Some(fields), Some(detail)) = (document.as_object_mut(), &self.detail) {
            fields.insert("detail".to_owned(), detail.as_str().into());
        }
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, RETRY_SECONDS));
        }
        response.insert_header((CONTENT_TYPE, "application/problem+json")).body(document.to_string())
    }
}

/// The answer to every other method of a resource.
pub(super) fn not_allowed(allowed: &'static str) -> Route {
    web::route().to(move || async move {
        let mut response = Problem::from(Refusal::MethodNotAllowed).error_response();
        response.headers_mut().insert(ALLOW, actix_web::http::header::HeaderValue::from_static(allowed));
        response
    })
}

/// The answer to every other path.
pub(super) async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Refusal::NotFound.into())
}
