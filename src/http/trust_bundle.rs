//! `GET /v1/trust-bundle`: which roots are trusted, signed by roots themselves. At the public door and at the device door, to anybody:
//! whoever reads it believes the signatures and not the door.

use std::time::Duration;

use actix_web::web::{self, Data, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use fleetmark_domain::{Fingerprint, Refusal};
use serde::Deserialize;

use super::State;
use super::problem::Problem;
use super::public::cache::Validators;
use super::public::files::readable;
use crate::pki::trust_bundle::pem;

/// As the public door serves certificates in PEM.
const PEM: &str = "application/x-pem-file";
/// RFC 5652 in DER (RFC 8551 9).
const DER: &str = "application/pkcs7-mime; smime-type=signed-data";
/// Roots change once in years; in an emergency a device asks the device door, which no cache is before.
const AGE: Duration = Duration::from_secs(300);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// SHA-256 over the certificate of a root that the caller trusts, hexadecimal.
    from: Option<String>,
    /// `pem`, which it is unless said, or `der`.
    form: Option<String>,
}

/// The resource.
pub fn configure(config: &mut ServiceConfig) {
    config.service(readable("/v1/trust-bundle", web::route().to(bundles)));
}

/// The newest bundle; with `from` all that lead from that root to it, the oldest first, one after the other.
async fn bundles(request: HttpRequest, state: Data<State>, wanted: Query<Wanted>) -> Result<HttpResponse, Problem> {
    let from = wanted.from.as_deref().map(str::parse::<Fingerprint>).transpose().map_err(|_| Refusal::MalformedRequest)?;
    let in_der = match wanted.form.as_deref() {
        None | Some("pem") => false,
        Some("der") => true,
        Some(_) => return Err(Refusal::MalformedRequest.into()),
    };
    let bundles = state.registrar.trust_bundles(from)?;
    let newest = bundles.last().ok_or(Refusal::NotFound)?;
    // Bundles are never changed: the path is told by its ends.
    let first = bundles.first().map_or(0, |first| first.number);
    let tag = format!("{first}-{}-{}", newest.number, if in_der { "der" } else { "pem" });
    let validators = Validators { tag, modified: Some(newest.made_at), max_age: AGE };
    Ok(if in_der {
        validators.answer(&request, DER, || bundles.iter().flat_map(|bundle| bundle.der.clone()).collect())
    } else {
        validators.answer(&request, PEM, || bundles.iter().map(|bundle| pem(&bundle.der)).collect::<String>().into())
    })
}
