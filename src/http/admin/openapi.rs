//! The `OpenAPI` 3.1 document, generated from the handlers.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use actix_web::{App, HttpResponse, get};
use utoipa::openapi::security::{SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, Ref, RefOr, Response};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_actix_web::AppExt;

use crate::http::problem::ProblemDocument;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($status:literal)*;)*) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    [$($status),*].into_iter().map(|status: u16| (status.to_string(), problem(status).into())).collect()
                }
            }
        )*
    };
}

refusals! {
    /// Of a look at one thing.
    Look: 401 403 404 405 414 429 500 503;
    /// Of a list, which has a query.
    List: 400 401 403 404 405 414 422 429 500 503;
    /// Of an act, which has a body.
    Act: 400 401 403 404 405 408 409 413 414 415 422 429 500 503;
    /// Of a change that may be conditional.
    Change: 400 401 403 404 405 408 409 412 413 414 415 422 429 500 503;
    /// Of an act without a body.
    Delete: 401 403 404 405 409 414 429 500 503;
}

fn problem(status: u16) -> Response {
    let description = match status {
        400 => "The request cannot be read.",
        401 => "No client certificate.",
        403 => "The certificate is not in good standing, or the role does not permit this.",
        404 => "There is no such thing, or none that you may know of.",
        405 => "This resource has no such method; `Allow` names those that it has.",
        408 => "The body did not come in time.",
        409 => "The state of things is against it.",
        412 => "It was changed since you read it.",
        413 => "The body is larger than 64 KiB; of one with a policy set, or of the root's ceremony: 512 KiB.",
        414 => "The path or the query is longer than 2 KiB.",
        415 => "The body is not JSON.",
        422 => "Readable, and not acceptable.",
        429 => "Too many requests; `Retry-After` says when to try again.",
        500 => "The server made a mistake; its log says more.",
        _ => "The server cannot do it now; `Retry-After` says when to try again.",
    };
    let content = Content::new(Some(Ref::from_schema_name("ProblemDocument")));
    Response::builder().description(description).content("application/problem+json", content).build()
}

/// What holds for all of it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fleetmark admin API",
        description = "Every request needs the certificate of an operator in good standing. Errors are RFC 9457 problems.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(ProblemDocument)),
    modifiers(&ClientCertificate)
)]
struct Document;

struct ClientCertificate;

impl Modify for ClientCertificate {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::MutualTls {
            description: Some("The certificate of an operator.".to_owned()),
            deprecated: None,
            extensions: None,
        };
        document.components.get_or_insert_with(Components::new).add_security_scheme("operator", scheme);
        document.security = Some(vec![SecurityRequirement::new("operator", std::iter::empty::<&str>())]);
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    App::new().into_utoipa_app().openapi(Document::openapi()).configure(super::documented).split_for_parts().1
}

/// This document
#[utoipa::path(
    tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"), Look)
)]
#[get("/v1/openapi.json")]
pub async fn show_document() -> HttpResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_json().unwrap_or_default());
    HttpResponse::Ok().content_type("application/json").body(text.as_str())
}
