//! The rescue socket: an operator whose key is lost gets a certificate for a new one. Whoever may open the socket (mode
//! 0600) is the server's own user or root, who could read the keys anyway; so no other proof is asked.

use actix_web::HttpResponse;
use actix_web::web::{self, Data, Json, ServiceConfig};
use fleetmark_domain::{Name, Refusal};
use serde::Deserialize;

use super::State;
use super::device::answer::{EnrollmentAnswer, private_json};
use super::problem::{Problem, not_allowed};
use crate::pki::csr::VerifiedCsr;

/// The body of recover.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recovery {
    operator: String,
    csr: String,
}

/// The socket's resources.
pub fn configure(config: &mut ServiceConfig) {
    config.service(web::resource("/v1/recover").route(web::post().to(recover)).default_service(not_allowed("POST")));
}

async fn recover(state: Data<State>, body: Json<Recovery>) -> Result<HttpResponse, Problem> {
    let name: Name = body.operator.parse().map_err(|_| Refusal::InvalidName)?;
    let csr = VerifiedCsr::from_body(body.csr.as_bytes())?;
    let enrollment = state.registrar.recover_operator(&name, &csr, state.clock.now()).await?;
    tracing::warn!(operator = %name, "an operator's key was replaced over the rescue socket");
    Ok(private_json(&EnrollmentAnswer::new(&enrollment, state.registrar.trust_domain(), state.clock.now())))
}
