//! `csrattrs` (RFC 7030 4.5).

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::{EstProblem, label};
use crate::http::State;
use crate::http::device::answer::base64_line;
use crate::pki::csrattrs::csr_attributes;

/// What the fleet's profile asks for; 204 where it has nothing to say (RFC 7030 4.5.2).
pub(super) async fn answer(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, EstProblem> {
    let fleet = label(&request, &state)?;
    let profile = state.registrar.fleet_profile(&fleet).await?;
    Ok(csr_attributes(profile)
        .map_or_else(|| HttpResponse::NoContent().finish(), |attributes| base64_line("application/csrattrs", &attributes)))
}
