//! Enroll, renew, confirm.

use fleetmark_domain::{Fingerprint, FleetName, Identity, Name, Timestamp};

use super::caller::Caller;
use super::tokens::PresentedToken;
use super::{Registrar, Result};
use crate::pki::csr::VerifiedCsr;
use crate::store::model::Certificate;

/// A request to enroll with a token.
#[derive(Debug)]
pub struct EnrollRequest {
    /// The fleet whose door it came through; None: the installation's (gateways, services, operators).
    pub fleet: Option<FleetName>,
    /// The name that it asks for, where it gave one.
    pub name: Option<Name>,
    /// Its proof.
    pub token: PresentedToken,
    /// Its key.
    pub csr: VerifiedCsr,
}

/// A certificate for its holder, with what must go with it.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// Whose.
    pub identity: Identity,
    /// Its record, the DER in it.
    pub certificate: Certificate,
    /// The issuing authority's certificate in DER, then those up to the root exclusive.
    pub chain: Vec<Vec<u8>>,
    /// Roots in DER.
    pub trust_bundle: Vec<Vec<u8>>,
    /// Whether this is an earlier answer given again.
    pub replayed: bool,
}

/// A certificate that is confirmed.
#[derive(Debug, Clone)]
pub struct Confirmation {
    /// Whose.
    pub identity: Identity,
    /// Its record.
    pub certificate: Certificate,
}

impl Registrar {
    /// Enrolls by token. The same request with the same key gets the same certificate.
    pub async fn enroll(&self, _request: EnrollRequest, _now: Timestamp) -> Result<Enrollment> {
        todo!()
    }

    /// Renews for the holder of a current certificate, with a new key (or gives the certificate of this key again).
    pub async fn renew(&self, _caller: &Caller, _csr: &VerifiedCsr, _now: Timestamp) -> Result<Enrollment> {
        todo!()
    }

    /// Confirms the certificate that the caller came with.
    pub async fn confirm(&self, _caller: &Caller, _now: Timestamp) -> Result<Confirmation> {
        todo!()
    }

    /// Confirms the certificate with this fingerprint, enrolled with this token.
    pub async fn confirm_by_token(
        &self,
        _fleet: Option<&FleetName>,
        _token: &PresentedToken,
        _fingerprint: Fingerprint,
        _now: Timestamp,
    ) -> Result<Confirmation> {
        todo!()
    }

    /// Gives an operator a new key on the server's own machine: revokes the old certificates and issues for this key.
    /// The door that calls this is the rescue socket alone.
    pub async fn recover_operator(&self, _name: &Name, _csr: &VerifiedCsr, _now: Timestamp) -> Result<Enrollment> {
        todo!()
    }
}
