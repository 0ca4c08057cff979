//! Other authorities, and what is known of their certificates that a fleet adopted.

use fleetmark_domain::{Epoch, Fingerprint, FleetName, KeyHash, Name, Naming, Standing, Timestamp};
use fleetmark_ledger::entry::ExternalState;
use serde::{Deserialize, Serialize};

use super::{AuthorityId, SubjectId};

/// What operators say of an external authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalSwitch {
    /// Its certificates count.
    Enabled,
    /// They do not for now.
    Disabled,
    /// They never will again.
    Ended,
}

/// What happens when what an external authority says of its certificates is past its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStale {
    /// Its certificates are refused until there is news.
    #[default]
    Refuse,
    /// They are taken by what was said last; an alarm is raised all the same.
    GoOn,
}

/// Where an external authority says what its certificates are worth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StatusSource {
    /// Nowhere: only what we say counts.
    #[default]
    None,
    /// In revocation lists at these URLs; together they hold all that is revoked.
    Crl {
        /// 1 to 8 of them.
        urls: Vec<String>,
    },
    /// In answers of this OCSP responder, one for each certificate.
    Ocsp {
        /// Where it is.
        url: String,
        /// Whether an answer must bring the question's nonce (RFC 9654).
        #[serde(default)]
        nonce: bool,
    },
}

/// What an external authority is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalRules {
    /// How the devices of its certificates are called; never changes.
    pub naming: Naming,
    /// Extended key usages, as dotted numbers, that a certificate must have.
    pub usages: Vec<String>,
    /// Where the certificates' status comes from.
    pub status: StatusSource,
    /// What happens when that is past its end.
    pub on_stale: OnStale,
    /// After how long it is asked for at the latest, in seconds.
    pub interval: u32,
}

/// An external authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its id; 2^30 or more. The store sets it.
    pub id: AuthorityId,
    /// The one fleet that takes its certificates.
    pub fleet: FleetName,
    /// Its name, unique within the fleet without regard to case.
    pub name: Name,
    /// What operators say of it.
    pub switch: ExternalSwitch,
    /// What it says of its certificates is past its end, and that counts.
    pub stale: bool,
    /// Its rules.
    pub rules: ExternalRules,
    /// Its CA certificates in DER, one after the other.
    pub material: Vec<u8>,
    /// The numbering space that is open.
    pub epoch: Option<Epoch>,
    /// The lowest index in it that was not used.
    pub next_index: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: SubjectId,
    /// Rises with every change by an operator; the entity tag (RFC 9110 8.8.3).
    pub version: u64,
}

impl External {
    /// What the ledger says of it.
    pub const fn state(&self) -> ExternalState {
        match (self.switch, self.stale) {
            (ExternalSwitch::Ended, _) => ExternalState::Ended,
            (ExternalSwitch::Disabled, _) => ExternalState::Disabled,
            (ExternalSwitch::Enabled, true) => ExternalState::Stale,
            (ExternalSwitch::Enabled, false) => ExternalState::Active,
        }
    }
}

/// What is known of an adopted certificate beside its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalCertificate {
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// The place of its record: [`crate::store::rows::certificate_id`].
    pub place: u64,
    /// Its external authority.
    pub authority: AuthorityId,
    /// SHA-256 over its issuer's Name.
    pub issuer: [u8; 32],
    /// Its serial number's octets.
    pub serial: Vec<u8>,
    /// SHA-256 over its public key.
    pub key_hash: KeyHash,
    /// What we say that it is worth.
    pub own: Standing,
    /// What its authority says: good, held or revoked.
    pub foreign: Standing,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Until when the last answer about it alone (OCSP) holds.
    pub next_update: Option<Timestamp>,
}

/// The newest revocation list at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignList {
    /// The external authority.
    pub authority: AuthorityId,
    /// Where it was fetched.
    pub url: String,
    /// SHA-256 over its issuer's Name.
    pub issuer: [u8; 32],
    /// The octets of its CRLNumber; empty where it has none.
    pub number: Vec<u8>,
    /// When it was made.
    pub this_update: Timestamp,
    /// Until when it holds.
    pub next_update: Timestamp,
    /// The entity tag that it came with; empty: none.
    pub etag: String,
    /// The Last-Modified that it came with; empty: none.
    pub modified: String,
    /// When it was fetched, or found unchanged.
    pub fetched_at: Timestamp,
    /// The list.
    pub der: Vec<u8>,
}
