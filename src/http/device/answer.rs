//! What a client gets with its certificate.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use fleetmark_domain::{Fingerprint, Timestamp, TrustDomain};
use serde::Serialize;

use crate::pki::bundle::pem;
use crate::registrar::enroll::{Confirmation, Enrollment};

/// The answer to enroll, renew and recover.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EnrollmentAnswer {
    /// SPIFFE ID.
    pub identity: String,
    /// The certificate in PEM.
    pub certificate: String,
    /// The issuing authority's certificate in PEM, then those up to the root exclusive.
    pub chain: String,
    /// Roots in PEM.
    pub trust_bundle: String,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 over the certificate, hexadecimal.
    #[schema(value_type = String)]
    pub fingerprint: Fingerprint,
    /// Which of the holder's certificates, from 1.
    pub generation: u32,
    /// `unconfirmed` or `good`.
    pub standing: &'static str,
    /// Start of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// When to renew.
    #[schema(value_type = String, format = DateTime)]
    pub renew_after: Timestamp,
    /// Until when to confirm; null: no limit, or confirmed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub confirm_before: Option<Timestamp>,
    /// The server's clock.
    #[schema(value_type = String, format = DateTime)]
    pub server_time: Timestamp,
    /// Whether this is an earlier answer given again.
    pub replayed: bool,
}

/// The answer to confirm.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ConfirmationAnswer {
    /// SPIFFE ID.
    pub identity: String,
    /// Hexadecimal.
    pub serial: String,
    /// `good`.
    pub standing: &'static str,
    /// Which of the holder's certificates, from 1.
    pub generation: u32,
    /// When to renew.
    #[schema(value_type = String, format = DateTime)]
    pub renew_after: Timestamp,
    /// The server's clock.
    #[schema(value_type = String, format = DateTime)]
    pub server_time: Timestamp,
}

/// The server's clock.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TimeAnswer {
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    pub server_time: Timestamp,
}

impl EnrollmentAnswer {
    /// The answer at `now`.
    pub fn new(enrollment: &Enrollment, domain: &TrustDomain, now: Timestamp) -> Self {
        let certificate = &enrollment.certificate;
        Self {
            identity: enrollment.identity.uri(domain),
            certificate: pem(&[&certificate.der]),
            chain: pem(&enrollment.chain),
            trust_bundle: pem(&enrollment.trust_bundle),
            serial: certificate.serial.to_string(),
            fingerprint: certificate.fingerprint,
            generation: certificate.generation,
            standing: certificate.standing.as_str(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            renew_after: certificate.renew_after,
            confirm_before: certificate.confirm_before,
            server_time: now,
            replayed: enrollment.replayed,
        }
    }
}

impl ConfirmationAnswer {
    /// The answer at `now`.
    pub fn new(confirmation: &Confirmation, domain: &TrustDomain, now: Timestamp) -> Self {
        let certificate = &confirmation.certificate;
        Self {
            identity: confirmation.identity.uri(domain),
            serial: certificate.serial.to_string(),
            standing: certificate.standing.as_str(),
            generation: certificate.generation,
            renew_after: certificate.renew_after,
            server_time: now,
        }
    }
}

/// 200 with JSON for its caller alone.
pub fn private_json(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(body)
}

/// 200 with one line of base64 (RFC 8951 3: no line breaks needed; strongSwan reads no other form).
pub fn base64_line(content_type: &'static str, octets: &[u8]) -> HttpResponse {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(octets);
    HttpResponse::Ok().insert_header((CONTENT_TYPE, content_type)).insert_header((CACHE_CONTROL, "no-store")).body(body)
}
