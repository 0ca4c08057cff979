//! What is wrong enough for an operator: each has a stable name, is logged, counted, and leaves evidence where there is some.

use fleetmark_domain::LedgerName;

/// Why an operator is called. docs/gateway.md has the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The server offers another key than the pinned one for a ledger.
    WrongKey,
    /// A checkpoint is not signed by the pinned key, or is none.
    CheckpointRefused,
    /// A checkpoint is signed more than five minutes in the future of the server's own clock.
    FarFuture,
    /// A checkpoint's time went back while the ledger grew.
    TimeWentBack,
    /// The ledger is shorter than it was.
    Rollback,
    /// Two checkpoints of one size with different roots, both signed.
    Fork,
    /// Entries that do not give the signed root.
    RootMismatch,
    /// Signed entries that break a rule of the ledger.
    RuleViolated,
    /// A bundle is not of the form, or has another number of entries.
    BundleRefused,
    /// A pushed entry is none.
    EntryRefused,
    /// What was pushed is not what the ledger holds.
    PushedEntryDiffers,
    /// Details are not those that the entry commits to.
    DetailsDiffer,
    /// A policy set's text is not the one that was activated.
    PolicyDiffers,
    /// A policy set does not compile.
    PolicyUnusable,
    /// An authority's certificate is not the one in the ledger.
    AuthorityDiffers,
    /// A snapshot is malformed, or the ledger does not vouch for it.
    SnapshotRefused,
    /// What was on disk could not be read back as it was signed.
    DiskDiffers,
    /// The disk takes nothing.
    DiskFailed,
    /// An operator's word to accept a restored server was not accepted.
    RestoreRefused,
}

impl Alarm {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongKey => "wrong_key",
            Self::CheckpointRefused => "checkpoint_refused",
            Self::FarFuture => "far_future",
            Self::TimeWentBack => "time_went_back",
            Self::Rollback => "rollback",
            Self::Fork => "fork",
            Self::RootMismatch => "root_mismatch",
            Self::RuleViolated => "rule_violated",
            Self::BundleRefused => "bundle_refused",
            Self::EntryRefused => "entry_refused",
            Self::PushedEntryDiffers => "pushed_entry_differs",
            Self::DetailsDiffer => "details_differ",
            Self::PolicyDiffers => "policy_differs",
            Self::PolicyUnusable => "policy_unusable",
            Self::AuthorityDiffers => "authority_differs",
            Self::SnapshotRefused => "snapshot_refused",
            Self::DiskDiffers => "disk_differs",
            Self::DiskFailed => "disk_failed",
            Self::RestoreRefused => "restore_refused",
        }
    }

    /// Logs and counts it.
    pub fn raise(self, ledger: Option<&LedgerName>, what: &str) {
        let ledger = ledger.map_or("", LedgerName::as_str);
        tracing::error!(alarm = self.as_str(), ledger, "{what}");
        metrics::counter!("fleetmark_gateway_alarms_total", "alarm" => self.as_str()).increment(1);
    }
}
