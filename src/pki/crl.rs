//! Certificate revocation lists (RFC 5280 5): plain, complete, without critical extensions, since mbedTLS takes no others.

use fleetmark_domain::{RevocationReason, Serial, Timestamp};

use super::PkiError;
use super::issue::Issuer;

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Which.
    pub serial: Serial,
    /// Since when.
    pub since: Timestamp,
    /// Why; None is `certificateHold`. `unspecified` is not encoded (RFC 5280 5.3.1).
    pub reason: Option<RevocationReason>,
}

/// A list's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlHeader {
    /// CRLNumber; never goes back.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when the next one is there.
    pub next_update: Timestamp,
}

/// Signs a list. An empty one omits revokedCertificates (RFC 5280 5.1.2.6).
pub fn build(_issuer: &Issuer, _header: &CrlHeader, _revoked: &[RevokedCertificate]) -> Result<Vec<u8>, PkiError> {
    todo!()
}
