//! `simplereenroll` (RFC 7030 4.2.2), by the certificate of the connection.

use actix_web::web::{self, Data};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use fleetmark_domain::Refusal;

use super::{EstProblem, binding, certificates, label, read_csr};
use crate::http::State;
use crate::http::device::renewal::Renewing;
use crate::http::device::rest::require_fleet;
use crate::pki::csr::VerifiedCsr;
use crate::registrar::{self, caller::Caller};

/// Renews the caller's certificate.
pub(super) async fn answer(
    request: HttpRequest,
    state: Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, EstProblem> {
    let caller = Renewing::extract(&request).await?.0;
    let fleet = label(&request, &state)?;
    require_fleet(&caller, &fleet)?;
    let csr = read_csr(&request, payload).await?;
    same_names(&csr, &caller.0)?;
    binding::require(&request, state.registrar.fleet_profile(&fleet).await?, &csr)?;
    let enrollment = state.registrar.renew(&caller.0, &csr, state.clock.now()).await?;
    certificates(&[enrollment.certificate.der])
}

/// A request to renew names whom the current certificate names. It is compared where it names anybody: a request without a
/// subject, or without a subjectAltName, changes nothing, since nothing of it goes into the certificate.
///
/// # Errors
/// `SubjectChanged`.
pub(super) fn same_names(csr: &VerifiedCsr, caller: &Caller) -> Result<(), registrar::Error> {
    match csr.asked().is_within(&caller.certificate.der) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::SubjectChanged.into()),
        Err(error) => Err(registrar::Error::caused(Refusal::InternalError, error)),
    }
}
