//! `/v1/certificates`

use std::time::Duration;

use actix_web::{HttpResponse, get, post, web};
use fleetmark_domain::{Fingerprint, FleetName, Identity, Kind, Name, Refusal, RevocationReason, Serial, TrustDomain};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, Json, Path, Query, page, parsed, parsed_option, refuse, text, within};
use super::openapi::{Act, List, Look};
use super::{Answer, ok, page_of, schema, wire};
use crate::http::State;
use crate::http::problem::Problem;
use crate::pki::bundle;
use crate::registrar::certificates::{CertificateSearch, CertificateView};
use crate::registrar::standing::{Change, Changed, Target};
use crate::registrar::subjects::Who;
use crate::registrar::{Page, PageRequest};

/// The most characters of a note beside a change of standing.
pub(super) const MAX_REMARK: usize = 1_024;

/// 100 years, in seconds.
const LONGEST_EXPIRING: u64 = 3_153_600_000;

/// A certificate in a path.
#[derive(Debug, Deserialize, IntoParams)]
pub struct CertificatePath {
    /// The serial, as openssl prints it: either case, colons allowed.
    #[param(value_type = schema::Serial)]
    #[serde(deserialize_with = "parsed")]
    pub serial: Serial,
}

/// Which certificates; all conditions hold together.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct CertificateQuery {
    /// Of this fleet's devices.
    #[param(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// Of this kind of holder.
    #[param(value_type = Option<schema::Kind>)]
    pub kind: Option<Kind>,
    /// Of this standing.
    #[param(value_type = Option<schema::Standing>)]
    pub standing: Option<String>,
    /// Of this holder: its SPIFFE ID; or its name, with `kind`, or for a device with `fleet`.
    pub subject: Option<String>,
    /// That end within so long, and have not ended yet.
    #[param(minimum = 0, maximum = 3_153_600_000_u64)]
    pub expiring_within_seconds: Option<u64>,
    /// With this serial. Stands alone.
    #[param(value_type = Option<schema::Serial>)]
    #[serde(default, deserialize_with = "parsed_option")]
    pub serial: Option<Serial>,
    /// With this SHA-256 fingerprint, as openssl prints it: either case, colons allowed.
    #[param(value_type = Option<schema::Fingerprint>)]
    pub fingerprint: Option<Fingerprint>,
    /// Where the page begins, as the page before said.
    pub cursor: Option<String>,
    /// At most so many items; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// What is looked for.
#[derive(Debug)]
enum Search {
    One(Serial),
    Many(CertificateSearch, PageRequest),
}

impl CertificateQuery {
    fn parse(self, domain: &TrustDomain) -> Result<Search, Problem> {
        let request = page(self.cursor, self.limit)?;
        if let Some(standing) = self.standing.as_deref().filter(|word| !schema::STANDINGS.contains(word)) {
            let standing: String = standing.chars().take(32).collect();
            return Err(refuse(Refusal::InvalidValue, format!("standing: there is no standing {standing:?}")));
        }
        let expiring = within("expiring_within_seconds", self.expiring_within_seconds, 0, LONGEST_EXPIRING)?;
        let search = CertificateSearch {
            holder: self.subject.map(|text| holder(&text, self.kind, self.fleet.as_ref(), domain)).transpose()?,
            fleet: self.fleet,
            kind: self.kind,
            standing: self.standing,
            expiring_within: expiring.map(Duration::from_secs),
            fingerprint: self.fingerprint,
        };
        match self.serial {
            None => Ok(Search::Many(search, request)),
            Some(serial) if is_unconditional(&search) => Ok(Search::One(serial)),
            Some(_) => Err(refuse(Refusal::InvalidValue, "serial: goes with no other condition")),
        }
    }
}

fn is_unconditional(search: &CertificateSearch) -> bool {
    let CertificateSearch { fleet, kind, holder, standing, expiring_within, fingerprint } = search;
    fleet.is_none()
        && kind.is_none()
        && holder.is_none()
        && standing.is_none()
        && expiring_within.is_none()
        && fingerprint.is_none()
}

fn holder(text: &str, kind: Option<Kind>, fleet: Option<&FleetName>, domain: &TrustDomain) -> Result<Who, Problem> {
    if text.starts_with("spiffe://") {
        let (of, identity) = Identity::parse(text).map_err(|error| invalid_subject(&error.to_string()))?;
        if of != *domain {
            return Err(invalid_subject("this is an identity of another trust domain"));
        }
        return Ok(Who { kind: identity.kind(), fleet: identity.fleet().cloned(), name: identity.name().clone() });
    }
    let name: Name = text.parse().map_err(|error: fleetmark_domain::name::NameError| invalid_subject(&error.to_string()))?;
    match (kind, fleet) {
        (None | Some(Kind::Device), Some(fleet)) => Ok(Who { kind: Kind::Device, fleet: Some(fleet.clone()), name }),
        (Some(kind), None) if kind != Kind::Device => Ok(Who { kind, fleet: None, name }),
        _ => Err(invalid_subject("a name goes with kind, or for a device with fleet")),
    }
}

fn invalid_subject(why: &str) -> Problem {
    refuse(Refusal::InvalidValue, format!("subject: {why}"))
}

/// Search certificates
#[utoipa::path(
    tag = "certificates",
    params(CertificateQuery),
    responses((status = 200, description = "One page", body = wire::Page<wire::Certificate>), List)
)]
#[get("/v1/certificates")]
pub async fn list_certificates(state: web::Data<State>, by: By, query: Query<CertificateQuery>) -> Answer {
    let found = match query.0.parse(state.registrar.trust_domain())? {
        Search::Many(search, request) => state.registrar.certificates(&by.0, search, &request, state.clock.now()).await?,
        Search::One(serial) => match state.registrar.certificate(&by.0, &serial).await {
            Ok(view) => Page { items: vec![view], next: None },
            Err(error) if error.refusal == Refusal::NotFound => Page { items: Vec::new(), next: None },
            Err(error) => return Err(error.into()),
        },
    };
    Ok(ok(&page_of(found, |view| shown(state.registrar.trust_domain(), view))))
}

/// One certificate
#[utoipa::path(
    tag = "certificates",
    params(CertificatePath),
    responses((status = 200, description = "As it is now", body = wire::Certificate), Look)
)]
#[get("/v1/certificates/{serial}")]
pub async fn show_certificate(state: web::Data<State>, by: By, path: Path<CertificatePath>) -> Answer {
    let view = state.registrar.certificate(&by.0, &path.0.serial).await?;
    Ok(ok(&shown(state.registrar.trust_domain(), view)))
}

/// One certificate in PEM
#[utoipa::path(
    tag = "certificates",
    params(CertificatePath),
    responses((status = 200, description = "As it is now", body = String, content_type = "application/x-pem-file"), Look)
)]
#[get("/v1/certificates/{serial}/pem")]
pub async fn show_pem(state: web::Data<State>, by: By, path: Path<CertificatePath>) -> Answer {
    let view = state.registrar.certificate(&by.0, &path.0.serial).await?;
    Ok(HttpResponse::Ok().content_type("application/x-pem-file").body(bundle::pem(&[view.certificate.der])))
}

/// Revoke a certificate, for ever
#[utoipa::path(
    tag = "certificates",
    params(CertificatePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/certificates/{serial}/revoke")]
pub async fn revoke_certificate(
    state: web::Data<State>,
    by: By,
    path: Path<CertificatePath>,
    body: Json<wire::Revocation>,
) -> Answer {
    let reason = body.value.reason.unwrap_or(RevocationReason::Unspecified);
    apply(&state, &by, Target::Certificate(path.0.serial), Change::Revoke(reason), body.value.note).await
}

/// Suspend a certificate
#[utoipa::path(
    tag = "certificates",
    params(CertificatePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/certificates/{serial}/hold")]
pub async fn hold_certificate(
    state: web::Data<State>,
    by: By,
    path: Path<CertificatePath>,
    body: Json<wire::Remark>,
) -> Answer {
    apply(&state, &by, Target::Certificate(path.0.serial), Change::Hold, body.value.note).await
}

/// End a certificate's suspension or quarantine
#[utoipa::path(
    tag = "certificates",
    params(CertificatePath),
    responses((status = 200, description = "What was changed", body = wire::StandingChange), Act)
)]
#[post("/v1/certificates/{serial}/release")]
pub async fn release_certificate(
    state: web::Data<State>,
    by: By,
    path: Path<CertificatePath>,
    body: Json<wire::Remark>,
) -> Answer {
    apply(&state, &by, Target::Certificate(path.0.serial), Change::Release, body.value.note).await
}

/// Changes standings, for devices and certificates alike.
pub(super) async fn apply(state: &State, by: &By, target: Target, change: Change, note: Option<String>) -> Answer {
    let note = text("note", note, MAX_REMARK)?;
    let changed = state.registrar.change_standing(&by.0, target, change, &note, state.clock.now()).await?;
    Ok(ok(&wire::StandingChange::from(changed)))
}

impl From<Changed> for wire::StandingChange {
    fn from(changed: Changed) -> Self {
        let certificates: Vec<_> = changed
            .certificates
            .iter()
            .map(|certificate| wire::CertificateStanding {
                serial: certificate.serial.to_string(),
                standing: certificate.standing.to_string(),
            })
            .collect();
        Self { changed: certificates.len(), certificates, ledger: changed.ledger.to_string(), position: changed.position }
    }
}

fn shown(domain: &TrustDomain, view: CertificateView) -> wire::Certificate {
    let CertificateView { certificate, holder } = view;
    wire::Certificate {
        serial: certificate.serial.to_string(),
        fingerprint: certificate.fingerprint,
        authority: certificate.authority,
        identity: holder.as_ref().map(|holder| holder.uri(domain)),
        kind: holder.as_ref().map(Identity::kind),
        fleet: holder.as_ref().and_then(Identity::fleet).cloned(),
        generation: certificate.generation,
        standing: certificate.standing.to_string(),
        reason: certificate.standing.reason(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        renew_after: certificate.renew_after,
        confirm_before: certificate.confirm_before,
        issued_at: certificate.issued_at,
        changed_at: certificate.changed_at,
        ledger: certificate.ledger.to_string(),
        position: certificate.position,
    }
}

#[cfg(test)]
mod tests;
