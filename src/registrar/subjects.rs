//! Devices, gateways, services and operators: their records, invitations, and putting them out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fleetmark_domain::{FleetName, Identity, Kind, Name, RevocationReason, Role, Timestamp};

use super::caller::Caller;
use super::tokens::MintedToken;
use super::{Idempotency, Page, PageRequest, Registrar, Result};
use crate::store::model::{Certificate, Subject, SubjectState};

/// A subject with its newest confirmed certificate (or, before the first, its newest).
#[derive(Debug, Clone)]
pub struct SubjectView {
    /// Who.
    pub identity: Identity,
    /// The record.
    pub subject: Subject,
    /// The certificate.
    pub certificate: Option<Certificate>,
}

/// A device to register.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// In this fleet.
    pub fleet: FleetName,
    /// Under this name.
    pub name: Name,
    /// At most 32, keys and values at most 256 characters.
    pub attributes: BTreeMap<String, String>,
}

/// A gateway, service or operator to admit.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// Any kind but device.
    pub kind: Kind,
    /// Under this name.
    pub name: Name,
    /// An operator's role.
    pub role: Option<Role>,
    /// The fleets granted; None: all.
    pub grants: Option<Vec<FleetName>>,
    /// DNS names for its certificate (gateways and services), at most 16.
    pub dns_names: Vec<String>,
    /// Addresses for its certificate (gateways and services), at most 16.
    pub addresses: Vec<IpAddr>,
    /// For how long the invitation holds; 1 s to 30 d.
    pub lifetime: Duration,
}

/// What to change; None leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct SubjectChange {
    /// All attributes anew.
    pub attributes: Option<BTreeMap<String, String>>,
    /// An operator's role.
    pub role: Option<Role>,
    /// The fleets granted; `Some(None)`: all.
    pub grants: Option<Option<Vec<FleetName>>>,
    /// DNS names for its next certificate.
    pub dns_names: Option<Vec<String>>,
    /// Addresses for its next certificate.
    pub addresses: Option<Vec<IpAddr>>,
}

/// Which subjects to list.
#[derive(Debug, Clone, Default)]
pub struct SubjectSearch {
    /// Whose name holds this text.
    pub search: Option<String>,
    /// In this state.
    pub state: Option<SubjectState>,
}

/// Whom a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its kind.
    pub kind: Kind,
    /// Its fleet, of a device.
    pub fleet: Option<FleetName>,
    /// Its name, in any case.
    pub name: Name,
}

impl Registrar {
    /// Registers a device, without a certificate.
    pub async fn register_device(
        &self,
        _caller: &Caller,
        _new: NewDevice,
        _idempotency: Option<Idempotency>,
        _now: Timestamp,
    ) -> Result<SubjectView> {
        todo!()
    }

    /// Admits a gateway, service or operator, and mints its invitation.
    pub async fn admit(
        &self,
        _caller: &Caller,
        _new: NewMember,
        _idempotency: Option<Idempotency>,
        _now: Timestamp,
    ) -> Result<(SubjectView, MintedToken)> {
        todo!()
    }

    /// Mints a fresh invitation for a gateway, service or operator, for one who lost key or certificate.
    pub async fn invite_again(
        &self,
        _caller: &Caller,
        _who: &Who,
        _lifetime: Duration,
        _now: Timestamp,
    ) -> Result<MintedToken> {
        todo!()
    }

    /// Subjects of a kind; devices of one fleet.
    pub async fn subjects(
        &self,
        _caller: &Caller,
        _kind: Kind,
        _fleet: Option<&FleetName>,
        _search: SubjectSearch,
        _page: &PageRequest,
    ) -> Result<Page<SubjectView>> {
        todo!()
    }

    /// One subject.
    pub async fn subject(&self, _caller: &Caller, _who: &Who) -> Result<SubjectView> {
        todo!()
    }

    /// Changes a record; `version` is what the caller read, where it said so.
    pub async fn change_subject(
        &self,
        _caller: &Caller,
        _who: &Who,
        _change: SubjectChange,
        _version: Option<u64>,
        _now: Timestamp,
    ) -> Result<SubjectView> {
        todo!()
    }

    /// Puts a subject out for good: revokes all its certificates and admits it no more.
    pub async fn put_out(
        &self,
        _caller: &Caller,
        _who: &Who,
        _reason: RevocationReason,
        _note: &str,
        _now: Timestamp,
    ) -> Result<SubjectView> {
        todo!()
    }
}
