//! `simpleenroll` (RFC 7030 4.2.1), with a token in place of a password.

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::{EstProblem, binding, certificates, label, read_csr};
use crate::http::State;
use crate::http::device::proof::{Basic, admit};
use crate::registrar::enroll::EnrollRequest;

/// Enrolls a device.
pub(super) async fn answer(
    request: HttpRequest,
    state: Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, EstProblem> {
    admit(&request)?;
    let Basic { name, token } = Basic::of(&request)?;
    let fleet = label(&request, &state)?;
    let csr = read_csr(&request, payload).await?;
    binding::require(&request, state.registrar.fleet_profile(&fleet).await?, &csr)?;
    let enrollment = state.registrar.enroll(EnrollRequest { fleet: Some(fleet), name, token, csr }, state.clock.now()).await?;
    certificates(&[enrollment.certificate.der])
}
