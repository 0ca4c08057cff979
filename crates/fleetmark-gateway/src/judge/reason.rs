//! Why a verdict is as it is: a closed list of stable names.

use fleetmark_domain::Sight;

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
    /// Of another authority that this fleet knows, and not adopted.
    ExternalUnknown,
    /// Adopted, and its authority's certificates are not taken now.
    ExternalDisabled,
    /// Adopted, and what its authority says of it is past its end.
    ExternalStatusStale,
    /// Only issuer and serial were given: they tell a standing, and never who it is that policy could allow.
    CertificateRequired,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Allowed,
        Self::CertificateMalformed,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::NotOnLedger,
        Self::WrongAuthority,
        Self::Revoked,
        Self::Held,
        Self::Superseded,
        Self::Quarantined,
        Self::LedgerStale,
        Self::LedgerBroken,
        Self::PolicyDenied,
        Self::PolicyError,
        Self::PolicyMissing,
        Self::ExternalUnknown,
        Self::ExternalDisabled,
        Self::ExternalStatusStale,
        Self::CertificateRequired,
    ];

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
            Self::ExternalUnknown => "external_unknown",
            Self::ExternalDisabled => "external_disabled",
            Self::ExternalStatusStale => "external_status_stale",
            Self::CertificateRequired => "certificate_required",
        }
    }

    /// What a standing that refuses is called; None for one that does not refuse by itself.
    pub const fn of(sight: Sight) -> Option<Self> {
        match sight {
            Sight::Good | Sight::Restricted => None,
            Sight::Held => Some(Self::Held),
            Sight::Refused => Some(Self::Superseded),
            Sight::Revoked(_) => Some(Self::Revoked),
        }
    }
}
