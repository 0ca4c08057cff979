//! Search and look-up of certificates.

use fleetmark_domain::{Action, Fingerprint, FleetName, Identity, Kind, LedgerName, Refusal, Serial, Standing, Timestamp};

use super::caller::Caller;
use super::subjects::Who;
use super::{Error, Page, PageRequest, Registrar, Result};
use crate::store::model::{Certificate, CertificateFilter, Subject};
use crate::store::rows::{Rows, certificate_id};
use crate::store::{StoreError, read};

/// A certificate with its holder.
#[derive(Debug, Clone)]
pub struct CertificateView {
    /// The record.
    pub certificate: Certificate,
    /// The holder; None: the installation itself.
    pub holder: Option<Identity>,
}

/// Which certificates. All conditions hold together.
#[derive(Debug, Clone, Default)]
pub struct CertificateSearch {
    /// Of this fleet's devices.
    pub fleet: Option<FleetName>,
    /// Of this kind of holder.
    pub kind: Option<Kind>,
    /// Of this holder.
    pub holder: Option<Who>,
    /// Of this standing, by its name.
    pub standing: Option<String>,
    /// That end within so long, and have not ended yet.
    pub expiring_within: Option<std::time::Duration>,
    /// With this fingerprint.
    pub fingerprint: Option<Fingerprint>,
}

impl Registrar {
    /// Certificates of holders that the caller may know of.
    pub async fn certificates(
        &self,
        caller: &Caller,
        search: CertificateSearch,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<CertificateView>> {
        caller.may(Action::Read, search.fleet.as_ref())?;
        let mut filter = CertificateFilter {
            kind: search.kind,
            fingerprint: search.fingerprint,
            ledgers: visible_ledgers(caller, search.fleet),
            expiring_before: search.expiring_within.map(|within| now + within),
            expiring_after: search.expiring_within.map(|_| now),
            ..CertificateFilter::default()
        };
        if let Some(standing) = search.standing {
            let mut codes = 0..=5;
            let code = codes.find(|code| Standing::from_code(*code, None).is_some_and(|known| known.as_str() == standing));
            filter.standing =
                Some(code.ok_or_else(|| Error::with_detail(Refusal::InvalidValue, "There is no such standing."))?);
        }
        if let Some(holder) = search.holder {
            caller.may(Action::Read, holder.fleet.as_ref())?;
            filter.subject = Some(self.find(&holder).await?.id);
        }
        let (after, limit) = (page.after()?, page.limit);
        let items = read(&*self.store, move |rows| {
            let found = rows.certificates(&filter, after, limit)?;
            found.into_iter().map(|certificate| with_holder(rows, certificate)).collect::<std::result::Result<Vec<_>, _>>()
        })
        .await?;
        let page = Page::of(items, limit, |(last, _)| certificate_id(last.serial.epoch(), last.serial.index()).to_string());
        let views = page.items.into_iter().map(view).collect::<Result<_>>()?;
        Ok(Page { items: views, next: page.next })
    }

    /// One certificate.
    pub async fn certificate(&self, caller: &Caller, serial: &Serial) -> Result<CertificateView> {
        caller.may(Action::Read, None)?;
        let serial = *serial;
        let found = read(&*self.store, move |rows| {
            let found = rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
            let found = found.filter(|certificate| certificate.serial == serial);
            found.map(|certificate| with_holder(rows, certificate)).transpose()
        });
        let (certificate, holder) = found.await?.ok_or(Refusal::NotFound)?;
        if let LedgerName::Fleet(fleet) = &certificate.ledger
            && !caller.reaches(fleet)
        {
            return Err(Refusal::NotFound.into());
        }
        view((certificate, holder))
    }
}

/// The ledgers whose certificates the caller may see: all, or the fleets granted and the system's.
fn visible_ledgers(caller: &Caller, fleet: Option<FleetName>) -> Option<Vec<LedgerName>> {
    match (fleet, &caller.subject.grants) {
        (Some(fleet), _) => Some(vec![LedgerName::Fleet(fleet)]),
        (None, None) => None,
        (None, Some(grants)) => Some(grants.iter().cloned().map(LedgerName::Fleet).chain([LedgerName::System]).collect()),
    }
}

type WithHolder = (Certificate, Option<Subject>);

fn with_holder(rows: &mut dyn Rows, certificate: Certificate) -> std::result::Result<WithHolder, StoreError> {
    let holder = match certificate.subject {
        Some(id) => rows.subject(id)?,
        None => None,
    };
    Ok((certificate, holder))
}

fn view((certificate, holder): WithHolder) -> Result<CertificateView> {
    let holder = holder.as_ref().map(super::subjects::identity_of).transpose()?;
    Ok(CertificateView { certificate, holder })
}
