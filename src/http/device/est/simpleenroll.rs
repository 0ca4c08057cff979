//! `simpleenroll` (RFC 7030 4.2.1): with a token in place of a password, or by the certificate of the connection.

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::{EstProblem, binding, certificates, label, proof, read_csr};
use crate::http::State;
use crate::http::device::proof::admit;
use crate::http::device::rest::source;
use crate::registrar::enroll::EnrollRequest;

/// Enrolls a device.
pub(super) async fn answer(
    request: HttpRequest,
    state: Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, EstProblem> {
    admit(&request)?;
    let (said, shown) = proof::of(&request)?;
    let fleet = label(&request, &state)?;
    let csr = read_csr(&request, payload).await?;
    binding::require(&request, state.registrar.fleet_profile(&fleet).await?, &csr)?;
    let name = proof::name(said, &shown, &csr);
    let wanted = EnrollRequest { fleet: Some(fleet), name, group: None, shown, csr, source: source(&request) };
    let enrollment = state.registrar.enroll(wanted, state.clock.now()).await?;
    certificates(&[enrollment.certificate.der])
}
