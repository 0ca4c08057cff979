//! What an auditor can find.

use std::fmt;

/// A rule that an entry or a checkpoint breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The octets are no entry in deterministic form.
    NotAnEntry,
    /// The octets beside the entry are no details in deterministic form.
    NotDetails,
    /// The details are not those that the entry commits to.
    OtherDetails,
    /// The first entry does not open a ledger.
    NotOpened,
    /// The first entry states another origin than the pinned key's name.
    OtherOrigin,
    /// The first entry states another key than the pinned one.
    OtherKey,
    /// The ledger is opened a second time.
    OpenedAgain,
    /// An epoch is opened a second time.
    EpochReused,
    /// A revoked authority opens an epoch or issues; or a tainted one opens an epoch, or issues to a subject other than 0.
    AuthorityEnded,
    /// An authority issues for something else than it did before.
    AuthorityKindChanged,
    /// An authority's state goes back: to prepared, from tainted to anything but revoked, or from revoked.
    AuthorityStateBack,
    /// A certificate's epoch was never opened.
    EpochUnknown,
    /// A certificate is issued by another authority than its epoch's.
    OtherAuthority,
    /// An index is issued a second time.
    IndexReused,
    /// The standing of a certificate changes that was never issued.
    CertificateUnknown,
    /// A certificate is confirmed that is not unconfirmed.
    NotUnconfirmed,
    /// A standing changes to one that it may not become.
    StandingForbidden,
    /// A snapshot is of more entries than there are before it.
    SnapshotAhead,
    /// A certificate is adopted of an external authority that is not there or has ended; or one is issued by an external authority.
    ExternalUnknown,
    /// An external authority that has ended changes, or one names its devices by another rule than before.
    ExternalChanged,
    /// A certificate is adopted a second time.
    AdoptedAgain,
    /// The checkpoint is of another ledger.
    AnotherLedger,
    /// The checkpoint states another size.
    SizeDiffers,
    /// The checkpoint states another root.
    RootDiffers,
}

impl Rule {
    /// The rule's stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAnEntry => "not_an_entry",
            Self::NotDetails => "not_details",
            Self::OtherDetails => "other_details",
            Self::NotOpened => "not_opened",
            Self::OtherOrigin => "other_origin",
            Self::OtherKey => "other_key",
            Self::OpenedAgain => "opened_again",
            Self::EpochReused => "epoch_reused",
            Self::AuthorityEnded => "authority_ended",
            Self::AuthorityKindChanged => "authority_kind_changed",
            Self::AuthorityStateBack => "authority_state_back",
            Self::EpochUnknown => "epoch_unknown",
            Self::OtherAuthority => "other_authority",
            Self::IndexReused => "index_reused",
            Self::CertificateUnknown => "certificate_unknown",
            Self::NotUnconfirmed => "not_unconfirmed",
            Self::StandingForbidden => "standing_forbidden",
            Self::SnapshotAhead => "snapshot_ahead",
            Self::ExternalUnknown => "external_unknown",
            Self::ExternalChanged => "external_changed",
            Self::AdoptedAgain => "adopted_again",
            Self::AnotherLedger => "another_ledger",
            Self::SizeDiffers => "size_differs",
            Self::RootDiffers => "root_differs",
        }
    }

    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotAnEntry => "this is no entry in deterministic form",
            Self::NotDetails => "these are no details in deterministic form",
            Self::OtherDetails => "the details are not those that the entry commits to",
            Self::NotOpened => "the first entry does not open a ledger",
            Self::OtherOrigin => "the first entry states another origin",
            Self::OtherKey => "the first entry states another key than the pinned one",
            Self::OpenedAgain => "the ledger is opened a second time",
            Self::EpochReused => "an epoch is opened a second time",
            Self::AuthorityEnded => "an authority acts that issues no more",
            Self::AuthorityKindChanged => "an authority issues for something else than before",
            Self::AuthorityStateBack => "an authority's state goes back",
            Self::EpochUnknown => "the certificate's epoch was never opened",
            Self::OtherAuthority => "the epoch belongs to another authority",
            Self::IndexReused => "an index is issued a second time",
            Self::CertificateUnknown => "the certificate was never issued",
            Self::NotUnconfirmed => "a certificate is confirmed that does not wait for it",
            Self::StandingForbidden => "a certificate of that standing may not come to have this one",
            Self::SnapshotAhead => "a snapshot is of more entries than there are before it",
            Self::ExternalUnknown => "a certificate is of an external authority that is not there, has ended, or issues here",
            Self::ExternalChanged => "an external authority has ended, or names devices otherwise than before",
            Self::AdoptedAgain => "a certificate is adopted a second time",
            Self::AnotherLedger => "the checkpoint is of another ledger",
            Self::SizeDiffers => "the checkpoint is of another size than what was read",
            Self::RootDiffers => "the checkpoint has another root than what was read",
        }
    }
}

/// The first thing that is wrong with a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// The entry's position, from 0; of a checkpoint, how many entries were read.
    pub position: u64,
    /// What it breaks.
    pub rule: Rule,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {}: {} ({})", self.position, self.rule.text(), self.rule.name())
    }
}
