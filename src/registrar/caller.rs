//! From a verified peer certificate to a caller in good standing.

use std::sync::Arc;

use fleetmark_domain::{FleetName, Identity, Timestamp};

use super::{Registrar, Result};
use crate::pki::issue::CertificateFacts;
use crate::store::model::{AuthorityId, Certificate, Subject};

/// A client certificate whose chain the TLS handshake verified to one of our authorities.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The authority that its chain was verified to.
    pub authority: AuthorityId,
    /// What it says.
    pub facts: Arc<CertificateFacts>,
}

/// Who calls: a subject with a certificate of ours in good standing at this moment.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// Its record.
    pub subject: Subject,
    /// The certificate that it came with.
    pub certificate: Certificate,
}

impl Registrar {
    /// Asks who the peer is and whether its certificate is in good standing now. Called for every request; a first use of
    /// an unconfirmed certificate confirms it.
    ///
    /// # Errors
    /// `NotOnLedger`, `WrongAuthority`, `CertificateExpired`, `CertificateNotYetValid`, `Revoked`, `Held`, `Superseded`,
    /// `Quarantined`, `Lapsed`, `IdentityOut`.
    pub async fn identify(&self, _peer: &Peer, _now: Timestamp) -> Result<Caller> {
        todo!()
    }
}

impl Caller {
    /// Whether an operator's, gateway's or service's grants reach `fleet`; a device reaches its own.
    pub fn reaches(&self, fleet: &FleetName) -> bool {
        match self.identity.fleet() {
            Some(own) => own == fleet,
            None => self.subject.grants.as_ref().is_none_or(|grants| grants.contains(fleet)),
        }
    }
}
