//! Details: what an entry commits to and does not hold.

use fleetmark_domain::RevocationReason;

/// `SHA-256(salt || CBOR)`: tells nothing of the details to who lacks the salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commitment(pub [u8; 32]);

/// Names, reasons and who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// 16 octets of a CSPRNG.
    pub salt: [u8; 16],
    /// Who did it: a SPIFFE ID, or `fleetmark` for the server by itself.
    pub actor: String,
    /// Whom it concerns: a SPIFFE ID, a fleet's or an authority's name.
    pub subject: Option<String>,
    /// RFC 5280 reason, of a revocation.
    pub reason: Option<RevocationReason>,
    /// What the actor wrote, or what the server says of it.
    pub note: Option<String>,
}

impl Details {
    /// Deterministic CBOR, the salt within.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads details; at most 16 KiB.
    pub fn decode(_octets: &[u8]) -> Result<Self, crate::entry::EntryError> {
        todo!()
    }

    /// The commitment that the entry holds.
    pub fn commitment(&self) -> Commitment {
        todo!()
    }
}
