//! Verdicts: after the chain, the authority's binding, the fingerprint, the standing, and policy.

use std::net::IpAddr;
use std::time::Duration;

use fleetmark_domain::{Fingerprint, Identity, LedgerName, Serial, Standing, Timestamp};
use fleetmark_policy::Act;

use crate::knowledge::Knowledge;

/// Why a verdict is as it is. docs/gateway.md has the list; names are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Policy allows it.
    Allowed,
    /// The certificate cannot be read.
    CertificateMalformed,
    /// The certificate's time is over.
    CertificateExpired,
    /// The certificate's time has not come.
    CertificateNotYetValid,
    /// Not the certificate that a followed ledger holds at that serial.
    NotOnLedger,
    /// Its authority may not issue for this kind or fleet.
    WrongAuthority,
    /// Revoked.
    Revoked,
    /// Held by an operator.
    Held,
    /// Its holder has a newer one.
    Superseded,
    /// Quarantined, and policy does not allow this to the quarantined.
    Quarantined,
    /// What is known is older than the fleet allows.
    LedgerStale,
    /// The ledger contradicted itself, or nothing of it was verified yet.
    LedgerBroken,
    /// No policy permits it, or one forbids it.
    PolicyDenied,
    /// A policy could not be evaluated.
    PolicyError,
    /// The policies' text is not here yet.
    PolicyMissing,
}

impl Reason {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::CertificateMalformed => "certificate_malformed",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::NotOnLedger => "not_on_ledger",
            Self::WrongAuthority => "wrong_authority",
            Self::Revoked => "revoked",
            Self::Held => "held",
            Self::Superseded => "superseded",
            Self::Quarantined => "quarantined",
            Self::LedgerStale => "ledger_stale",
            Self::LedgerBroken => "ledger_broken",
            Self::PolicyDenied => "policy_denied",
            Self::PolicyError => "policy_error",
            Self::PolicyMissing => "policy_missing",
        }
    }
}

/// A certificate that was presented, parsed once.
#[derive(Debug, Clone)]
pub struct Presented {
    /// Its serial; None: none of ours.
    pub serial: Option<Serial>,
    /// SHA-256 over it.
    pub fingerprint: Fingerprint,
    /// The identity of its one URI SAN; None: none of ours.
    pub identity: Option<Identity>,
    /// Its authority key identifier.
    pub authority_key: Vec<u8>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

impl Presented {
    /// Parses a certificate; at most 16 KiB of DER, nothing after it.
    ///
    /// # Errors
    /// [`Reason::CertificateMalformed`].
    pub fn parse(_der: &[u8]) -> Result<Self, Reason> {
        todo!()
    }
}

/// What is wanted, and how.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The act.
    pub act: Act,
    /// The topic, of publish and subscribe.
    pub topic: Option<&'a str>,
    /// The peer's address.
    pub source: Option<IpAddr>,
    /// What the listener speaks.
    pub protocol: Option<&'a str>,
    /// The device's firmware version, where it is known.
    pub firmware: Option<&'a str>,
}

/// The answer for one identity and one act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may.
    pub allow: bool,
    /// Why.
    pub reason: Reason,
    /// Whose certificate it is, once that is sure.
    pub identity: Option<Identity>,
    /// Its standing, once that is sure.
    pub standing: Option<Standing>,
    /// The policies that decided.
    pub policies: Vec<std::sync::Arc<str>>,
    /// The ledger that it is by.
    pub ledger: Option<LedgerName>,
    /// Entries of it that were verified.
    pub position: u64,
    /// How old that knowledge is.
    pub age: Duration,
    /// Until when the verdict holds if nothing is heard: the certificate's end, or the knowledge's.
    pub valid_until: Timestamp,
}

/// Gives verdicts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Judge {}

impl Judge {
    /// A judge over this knowledge.
    pub fn new(_knowledge: Knowledge) -> Self {
        todo!()
    }

    /// Judges by what is known now. `now` is the wall clock's, for the certificate's dates alone.
    pub fn judge(&self, _presented: &Presented, _wanted: &Wanted<'_>, _now: Timestamp) -> Verdict {
        todo!()
    }

    /// The same, and where the certificate is not known yet, has what is new fetched first.
    pub async fn judge_patiently(&self, _presented: &Presented, _wanted: &Wanted<'_>, _now: Timestamp) -> Verdict {
        todo!()
    }
}
