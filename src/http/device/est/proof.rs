//! What a client shows at `simpleenroll` and `serverkeygen` (RFC 7030 3.2.3, 3.3.2).

use actix_web::HttpRequest;
use fleetmark_domain::{Name, Refusal};

use crate::http::device::proof::{Basic, has_credentials};
use crate::registrar::proofs::Shown;
use crate::tls::connection::Presented;

/// The name that it asks for, where it gave one, and its proof: a token by HTTP Basic; without one the certificate of the
/// connection, which is a maker's or a claim. Who sends both is judged by the token.
///
/// # Errors
/// `ProofRequired` where there is neither, which asks for Basic; what [`Basic::of`] refuses.
pub(super) fn of(request: &HttpRequest) -> Result<(Option<Name>, Shown), Refusal> {
    if !has_credentials(request)
        && let Some(Presented(chain)) = request.conn_data::<Presented>()
    {
        return Ok((None, Shown::Certificate(chain.clone())));
    }
    let Basic { name, token } = Basic::of(request)?;
    Ok((name, Shown::Token(token)))
}
