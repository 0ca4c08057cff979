//! `/v1/fleets/{fleet}/hook`

use actix_web::http::header::ETAG;
use actix_web::{HttpResponse, delete, get, post, put, web};
use secrecy::ExposeSecret;

use super::extract::{By, IfMatch, Json, Path};
use super::fleets::FleetPath;
use super::openapi::{Act, Change, Look};
use super::{Answer, etag, ok, versioned, wire};
use crate::http::State;
use crate::registrar::hook::{HookView, NewHook};

/// A fleet's hook
#[utoipa::path(
    tag = "hook",
    params(FleetPath),
    responses((status = 200, description = "As it is now", body = wire::Hook, headers(("ETag" = String))), Look)
)]
#[get("/v1/fleets/{fleet}/hook")]
pub async fn show_hook(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let view = state.registrar.hook(&by.0, &path.0.fleet).await?;
    let version = view.version;
    Ok(versioned(&wire::Hook::from(view), version))
}

/// Set a fleet's hook
///
/// The `ETag` is the fleet's. A new secret is in this answer alone.
#[utoipa::path(
    tag = "hook",
    params(FleetPath, IfMatch),
    responses((status = 200, description = "As it is now", body = wire::HookSet, headers(("ETag" = String))), Change)
)]
#[put("/v1/fleets/{fleet}/hook")]
pub async fn set_hook(
    state: web::Data<State>,
    by: By,
    path: Path<FleetPath>,
    read: IfMatch,
    body: Json<wire::NewHook>,
) -> Answer {
    let wire::NewHook { url, roots, keep_secret } = body.value;
    let new = NewHook { url, roots, keep_secret };
    let set = state.registrar.put_hook(&by.0, &path.0.fleet, new, read.0, state.clock.now()).await?;
    let version = set.hook.version;
    let secret = set.secret.map(|secret| secret.expose_secret().to_owned().into());
    let body = wire::HookSet { hook: set.hook.into(), secret };
    Ok(HttpResponse::Ok().insert_header((ETAG, etag(version))).json(body))
}

/// Remove a fleet's hook
///
/// Devices are enrolled without asking anybody from then on. The answer shows the hook as it was.
#[utoipa::path(
    tag = "hook",
    params(FleetPath, IfMatch),
    responses((status = 200, description = "As it was", body = wire::Hook, headers(("ETag" = String))), Change)
)]
#[delete("/v1/fleets/{fleet}/hook")]
pub async fn remove_hook(state: web::Data<State>, by: By, path: Path<FleetPath>, read: IfMatch) -> Answer {
    let view = state.registrar.remove_hook(&by.0, &path.0.fleet, read.0, state.clock.now()).await?;
    let version = view.version;
    Ok(versioned(&wire::Hook::from(view), version))
}

/// Ask a fleet's hook on trial
///
/// The question has `ping` in the place of a device; what came back is shown.
#[utoipa::path(
    tag = "hook",
    params(FleetPath),
    responses((status = 200, description = "What came back", body = wire::HookTrial), Act)
)]
#[post("/v1/fleets/{fleet}/hook/test")]
pub async fn test_hook(state: web::Data<State>, by: By, path: Path<FleetPath>) -> Answer {
    let trial = state.registrar.test_hook(&by.0, &path.0.fleet, state.clock.now()).await?;
    let usable = matches!(trial.outcome, "allow" | "refuse" | "amend");
    Ok(ok(&wire::HookTrial { usable, outcome: trial.outcome.to_owned(), detail: trial.detail }))
}

impl From<HookView> for wire::Hook {
    fn from(view: HookView) -> Self {
        Self { url: view.url, roots: view.roots, version: view.version }
    }
}
