//! Search and look-up of certificates.

use fleetmark_domain::{Fingerprint, FleetName, Identity, Kind, Serial, Timestamp};

use super::caller::Caller;
use super::subjects::Who;
use super::{Page, PageRequest, Registrar, Result};
use crate::store::model::Certificate;

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
        _caller: &Caller,
        _search: CertificateSearch,
        _page: &PageRequest,
        _now: Timestamp,
    ) -> Result<Page<CertificateView>> {
        todo!()
    }

    /// One certificate.
    pub async fn certificate(&self, _caller: &Caller, _serial: &Serial) -> Result<CertificateView> {
        todo!()
    }
}
