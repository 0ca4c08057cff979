//! Rules and outcomes between the wire and the registrar.

use fleetmark_domain::Naming;

use crate::http::admin::wire;
use crate::registrar::external::{DEFAULT_INTERVAL, Expectation, ExpectedView, Expecting, Fate, Import};
use crate::store::model::{AdoptWhen, Adopting, ExternalRules, OnStale, StatusSource};

impl From<Vec<Expecting>> for wire::ExternalExpectation {
    fn from(told: Vec<Expecting>) -> Self {
        let count = |wanted: Expectation| told.iter().filter(|one| one.outcome == Ok(wanted)).count();
        let (expected, known) = (count(Expectation::Expected), count(Expectation::Known));
        let refused = told.len().saturating_sub(expected).saturating_sub(known);
        let certificates = told.into_iter().map(|Expecting { fingerprint, device, outcome }| wire::ImportedCertificate {
            fingerprint,
            device,
            outcome: match outcome {
                Ok(Expectation::Expected) => "expected".to_owned(),
                Ok(Expectation::Known) => "known".to_owned(),
                Err(refusal) => refusal.code().to_owned(),
            },
        });
        Self { expected, known, refused, certificates: certificates.collect() }
    }
}

impl From<ExpectedView> for wire::ExpectedCertificate {
    fn from(ExpectedView { expected, authority }: ExpectedView) -> Self {
        Self { fingerprint: expected.fingerprint, authority, device: expected.device, expected_at: expected.at }
    }
}

impl From<Vec<Import>> for wire::ExternalImport {
    fn from(imported: Vec<Import>) -> Self {
        let count = |wanted: Fate| imported.iter().filter(|one| one.outcome == Ok(wanted)).count();
        let (adopted, known) = (count(Fate::Adopted), count(Fate::Known));
        let refused = imported.len().saturating_sub(adopted).saturating_sub(known);
        let certificates = imported.into_iter().map(|Import { fingerprint, device, outcome }| wire::ImportedCertificate {
            fingerprint,
            device,
            outcome: match outcome {
                Ok(Fate::Adopted) => "adopted".to_owned(),
                Ok(Fate::Known) => "known".to_owned(),
                Err(refusal) => refusal.code().to_owned(),
            },
        });
        Self { adopted, known, refused, certificates: certificates.collect() }
    }
}

impl From<wire::ExternalRules> for ExternalRules {
    fn from(rules: wire::ExternalRules) -> Self {
        let wire::ExternalNaming { from, strip_prefix, strip_suffix, part, form, prefix } = rules.naming;
        Self {
            naming: Naming { from, strip_prefix, strip_suffix, part, form, prefix },
            usages: rules.usages,
            status: match rules.status {
                wire::ExternalStatus::None => StatusSource::None,
                wire::ExternalStatus::Crl { urls } => StatusSource::Crl { urls },
                wire::ExternalStatus::Ocsp { url, nonce } => StatusSource::Ocsp { url, nonce },
            },
            on_stale: match rules.on_stale {
                wire::ExternalOnStale::Refuse => OnStale::Refuse,
                wire::ExternalOnStale::GoOn => OnStale::GoOn,
            },
            interval: rules.interval_seconds.unwrap_or(DEFAULT_INTERVAL),
            adopt: Adopting {
                when: match rules.adopt.when {
                    wire::ExternalAdoptWhen::Import => AdoptWhen::Import,
                    wire::ExternalAdoptWhen::Listed => AdoptWhen::Listed,
                    wire::ExternalAdoptWhen::OnSight => AdoptWhen::OnSight,
                },
                hourly: rules.adopt.hourly.unwrap_or(Adopting::default().hourly),
                most: rules.adopt.most.unwrap_or(Adopting::default().most),
            },
        }
    }
}

impl From<ExternalRules> for wire::ExternalRules {
    fn from(rules: ExternalRules) -> Self {
        let Naming { from, strip_prefix, strip_suffix, part, form, prefix } = rules.naming;
        Self {
            naming: wire::ExternalNaming { from, strip_prefix, strip_suffix, part, form, prefix },
            usages: rules.usages,
            status: match rules.status {
                StatusSource::None => wire::ExternalStatus::None,
                StatusSource::Crl { urls } => wire::ExternalStatus::Crl { urls },
                StatusSource::Ocsp { url, nonce } => wire::ExternalStatus::Ocsp { url, nonce },
            },
            on_stale: match rules.on_stale {
                OnStale::Refuse => wire::ExternalOnStale::Refuse,
                OnStale::GoOn => wire::ExternalOnStale::GoOn,
            },
            interval_seconds: Some(rules.interval),
            adopt: wire::ExternalAdopting {
                when: match rules.adopt.when {
                    AdoptWhen::Import => wire::ExternalAdoptWhen::Import,
                    AdoptWhen::Listed => wire::ExternalAdoptWhen::Listed,
                    AdoptWhen::OnSight => wire::ExternalAdoptWhen::OnSight,
                },
                hourly: Some(rules.adopt.hourly),
                most: Some(rules.adopt.most),
            },
        }
    }
}
