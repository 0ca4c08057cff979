//! The first contact (RFC 7030 4.1.1): fetch the authorities from a server that is not verified yet, and keep the one
//! whose fingerprint was given. Nothing is sent but the request, and nothing else is accepted.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Fingerprint;

use crate::door::ServerUrl;
use crate::error::Error;
use crate::http::{Answer, Connection, provider};
use crate::pkcs7::certificates;
use crate::trust::Roots;
use crate::verifier::{Seen, UnverifiedVerifier};

const CACERTS: &str = "/.well-known/est/cacerts";
const BUNDLES: &str = "/v1/trust-bundle";

/// Fetches the root whose fingerprint is `pin`.
///
/// # Errors
/// [`Error::Untrusted`] when the server's authorities do not include it, or the answer is none of EST's.
pub async fn fetch_root(server: &ServerUrl, pin: &Fingerprint) -> Result<Roots, Error> {
    let verifier = Arc::new(UnverifiedVerifier::new(provider()));
    let connection = Connection::new(verifier, Arc::new(Mutex::new(Seen::default())), None)?;
    let answer = connection.get(server.at(CACERTS)).await.map_err(|error| match error {
        // Not verified, so its refusals are not believed to be final.
        Error::Refused(refused) if !refused.is_temporary() => {
            Error::Untrusted(format!("it does not tell its authorities at {CACERTS} (status {})", refused.status))
        }
        Error::BadAnswer(reason) => Error::Untrusted(reason),
        other => other,
    })?;
    read(&answer, pin)
}

/// Fetches the trust bundles that lead from the root with this fingerprint to those of today. Who gives them does not matter, so the
/// server is not verified: it may be that this is what the device needs to verify it.
///
/// # Errors
/// [`Error::TrustBundle`] `trust_bundle_unavailable` where the server has none for this root; those of a server that is not reached.
pub async fn fetch_bundles(server: &ServerUrl, from: &Fingerprint) -> Result<Vec<u8>, Error> {
    let verifier = Arc::new(UnverifiedVerifier::new(provider()));
    let connection = Connection::new(verifier, Arc::new(Mutex::new(Seen::default())), None)?;
    let mut url = server.at(BUNDLES);
    url.set_query(Some(&format!("form=der&from={from}")));
    let answer = connection.get(url).await;
    answer.map(|answer| answer.body).map_err(|error| match error {
        Error::Refused(refused) if !refused.is_temporary() => Error::TrustBundle {
            name: "trust_bundle_unavailable",
            why: format!("the server has none that leads on from {from} (status {})", refused.status),
        },
        other => other,
    })
}

fn read(answer: &Answer, pin: &Fingerprint) -> Result<Roots, Error> {
    if !answer.content_type.starts_with("application/pkcs7-mime") {
        return Err(Error::Untrusted(format!("its answer at {CACERTS} is not application/pkcs7-mime")));
    }
    // RFC 8951 3.1: base64, with or without line breaks.
    let text: Vec<u8> = answer.body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let message = STANDARD.decode(text).map_err(|_| Error::Untrusted(format!("its answer at {CACERTS} is not base64")))?;
    let found = certificates(&message).map_err(|error| Error::Untrusted(error.to_string()))?;
    Roots::pinned(found, pin)
}
