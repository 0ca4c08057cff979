//! The admin door: the operators' REST API. Who may do what is asked in the registrar; here a request is read, handed
//! on, and its answer written.
//!
//! - [`wire`], [`schema`]: the bodies, and the domain's words in the `OpenAPI` document.
//! - [`extract`]: caller, path, query, body and headers, each within limits.
//! - [`openapi`]: the document that is generated from the handlers.
//! - [`routes`]: what there is, and which right it takes.
//! - the other modules: one resource each.

pub mod allowances;
pub mod authorities;
pub mod backups;
pub mod blocked;
pub mod certificates;
pub mod devices;
pub mod external;
pub mod extract;
pub mod fleets;
pub mod groups;
pub mod hardware;
pub mod hooks;
pub mod imports;
pub mod ledgers;
pub mod lifecycle;
pub mod members;
pub mod openapi;
pub mod policies;
pub mod requests;
pub mod revocations;
pub mod root;
pub mod routes;
pub mod schema;
pub mod status;
pub mod tokens;
pub mod waves;
pub mod wire;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{ALLOW, CACHE_CONTROL, ETAG, HeaderValue, LOCATION};
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use fleetmark_domain::Refusal;
use serde::Serialize;
use utoipa_actix_web::service_config::ServiceConfig;

pub use routes::ROUTES;

use super::caller::Operator;
use super::problem::Problem;
use crate::registrar::Page;

/// Everything behind the admin door. Nothing of it, unknown paths included, is answered to anybody but an operator in
/// good standing.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(web::scope("").wrap(from_fn(authenticate)).configure(resources).default_service(web::to(elsewhere)));
}

/// The resources, without the question who calls.
fn resources(config: &mut web::ServiceConfig) {
    documented(&mut ServiceConfig::new(config));
}

/// Every route, grouped by resource. What is registered here is what the `OpenAPI` document shows.
#[expect(clippy::too_many_lines, reason = "a list of what there is, a line each")]
fn documented(config: &mut ServiceConfig<'_>) {
    config
        .service(fleets::list_fleets)
        .service(fleets::create_fleet)
        .service(fleets::show_fleet)
        .service(fleets::change_fleet)
        .service(allowances::list_allowances)
        .service(allowances::allow)
        .service(groups::list_groups)
        .service(groups::create_group)
        .service(groups::show_group)
        .service(groups::change_group)
        .service(groups::enable_group)
        .service(groups::disable_group)
        .service(groups::end_group)
        .service(groups::list_serials)
        .service(groups::put_serials)
        .service(groups::remove_serial)
        .service(groups::issue_claim)
        .service(external::list_external_authorities)
        .service(external::create_external_authority)
        .service(external::show_external_authority)
        .service(external::change_external_authority)
        .service(external::enable_external_authority)
        .service(external::disable_external_authority)
        .service(external::end_external_authority)
        .service(external::check_external_authority)
        .service(external::expected::list_expected_certificates)
        .service(external::expected::expect_certificates)
        .service(external::expected::unexpect_certificate)
        .service(external::list_external_certificates)
        .service(external::import_external_certificates)
        .service(external::show_external_certificate)
        .service(external::revoke_external_certificate)
        .service(external::hold_external_certificate)
        .service(external::release_external_certificate)
        .service(requests::list_requests)
        .service(requests::show_request)
        .service(requests::approve_request)
        .service(requests::refuse_request)
        .service(hooks::show_hook)
        .service(hooks::set_hook)
        .service(hooks::remove_hook)
        .service(hooks::test_hook)
        .service(waves::show_wave)
        .service(waves::start_wave)
        .service(waves::end_wave)
        .service(tokens::list_tokens)
        .service(tokens::mint_token)
        .service(tokens::withdraw_token)
        .service(devices::list_devices)
        .service(devices::register_device)
        .service(imports::import_devices)
        .service(devices::show_device)
        .service(devices::change_device)
        .service(devices::revoke_device)
        .service(devices::hold_device)
        .service(devices::release_device)
        .service(devices::retire_device)
        .service(lifecycle::quarantine_device)
        .service(lifecycle::readmit_device)
        .service(lifecycle::permit_renewal)
        .service(lifecycle::permit_enrollment)
        .service(lifecycle::move_device)
        .service(lifecycle::cancel_move)
        .service(hardware::list_hardware)
        .service(hardware::add_hardware)
        .service(hardware::remove_hardware)
        .service(certificates::list_certificates)
        .service(certificates::show_certificate)
        .service(certificates::show_pem)
        .service(certificates::revoke_certificate)
        .service(certificates::hold_certificate)
        .service(certificates::release_certificate)
        .service(revocations::list_revocations)
        .service(revocations::order_revocation)
        .service(revocations::try_revocation)
        .service(revocations::show_revocation)
        .service(revocations::approve_revocation)
        .service(revocations::cancel_revocation)
        .configure(members::operators::documented)
        .configure(members::gateways::documented)
        .configure(members::services::documented)
        .service(authorities::list_authorities)
        .service(authorities::show_authority)
        .service(root::list_root_requests)
        .service(root::show_root_request)
        .service(root::accept_root_answer)
        .service(root::accept_root_lists)
        .service(authorities::prepare_authority)
        .service(authorities::activate_authority)
        .service(authorities::taint_authority)
        .service(authorities::revoke_authority)
        .service(authorities::show_authority_use)
        .service(waves::pause_wave)
        .service(waves::resume_wave)
        .service(ledgers::list_ledgers)
        .service(ledgers::show_ledger)
        .service(ledgers::show_checkpoint)
        .service(ledgers::list_entries)
        .service(ledgers::prove_inclusion)
        .service(ledgers::prove_consistency)
        .service(policies::show_policy_schema)
        .service(policies::check_policy)
        .service(policies::show_active_policy)
        .service(policies::list_policy_versions)
        .service(policies::show_policy_set)
        .service(policies::put_policy_set)
        .service(policies::activate_policy_set)
        .service(policies::test_policy)
        .service(blocked::list_blocked_keys)
        .service(blocked::block_keys)
        .service(blocked::unblock_key)
        .service(status::show_whoami)
        .service(status::show_status)
        .service(status::show_metrics)
        .service(backups::make_backup)
        .service(openapi::show_document);
}

/// Lets operators in good standing in, before anything else of the request is looked at.
async fn authenticate(
    operator: Operator,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    request.extensions_mut().insert(operator);
    let mut response = next.call(request).await?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// No resource, or none of this method.
async fn elsewhere(request: HttpRequest) -> HttpResponse {
    let methods = routes::methods(request.path());
    if methods.is_empty() {
        return Problem::from(Refusal::NotFound).error_response();
    }
    let mut response = Problem::from(Refusal::MethodNotAllowed).error_response();
    if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// What a handler gives.
type Answer = Result<HttpResponse, Problem>;

/// 200 with a body.
fn ok(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(body)
}

/// 200 with a body and its `ETag`.
fn versioned(body: &impl Serialize, version: u64) -> HttpResponse {
    HttpResponse::Ok().insert_header((ETAG, etag(version))).json(body)
}

/// 201 with a body and where it is found from now on.
fn created(body: &impl Serialize, location: String, version: Option<u64>) -> HttpResponse {
    let mut response = HttpResponse::Created();
    if let Some(version) = version {
        response.insert_header((ETAG, etag(version)));
    }
    response.insert_header((LOCATION, location)).json(body)
}

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// A page, each item as the wire shows it.
fn page_of<T, W>(page: Page<T>, show: impl Fn(T) -> W) -> wire::Page<W> {
    wire::Page { items: page.items.into_iter().map(show).collect(), next: page.next }
}

#[cfg(test)]
mod flows;
#[cfg(test)]
mod tests;
