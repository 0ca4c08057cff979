//! What a client shows at `simpleenroll` and `serverkeygen` (RFC 7030 3.2.3, 3.3.2).

use actix_web::HttpRequest;
use fleetmark_domain::{Name, Refusal};

use crate::http::device::proof::{Basic, certificate, has_credentials};
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::registrar::proofs::Shown;

/// The name that it asks for, where it gave one, and its proof: a token by HTTP Basic; without one the certificate of the
/// connection, which is a maker's or a claim. Who sends both is judged by the token.
///
/// # Errors
/// `ProofRequired` where there is neither, which asks for Basic; what [`Basic::of`] refuses.
pub(super) fn of(request: &HttpRequest) -> Result<(Option<Name>, Shown), Refusal> {
    if !has_credentials(request)
        && let Some(shown) = certificate(request)
    {
        return Ok((None, shown));
    }
    let Basic { name, token } = Basic::of(request)?;
    Ok((name, Shown::Token(token)))
}

/// The name to enroll under. A claim certificate is shared and names no device, and without Basic there is no user name: then the
/// common name of the request says it. A maker's certificate names its device, whatever the request says.
pub(super) fn name(said: Option<Name>, shown: &Shown, csr: &VerifiedCsr) -> Option<Name> {
    let is_claim = |chain: &[Vec<u8>]| chain.first().is_some_and(|own| facts(own).is_ok_and(|facts| facts.is_claim));
    match shown {
        Shown::Certificate(chain) if is_claim(chain) => csr.common_name()?.parse().ok(),
        _ => said,
    }
}
