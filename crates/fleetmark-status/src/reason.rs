//! Answers and refusals. Their codes are an interface: firmware stores and reports them, so a code never changes its meaning.

/// What a list says of a certificate. Only [`Answer::Good`] lets a device in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// Issued, and neither revoked nor held.
    Good = 0,
    /// Revoked, held, or never issued: a hole in the numbering.
    NotGood = 1,
    /// Not in this list's range: issued after it was made, in another slice, or never.
    Beyond = 2,
    /// A certificate of another epoch than the list's.
    OtherEpoch = 3,
    /// No serial number of ours: not 17 octets, or not beginning with 01.
    ForeignSerial = 4,
    /// The list's memory changed since it was opened.
    Unreadable = 5,
}

/// Why a list is not used. Whoever has no list that opens lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Too short, too long, trailing octets, or a header that contradicts itself.
    Malformed = 16,
    /// Does not begin with `FMS1`: another version, or no status list.
    UnknownVersion = 17,
    /// Signed by another key than the trusted one.
    OtherKey = 18,
    /// About another fleet.
    OtherFleet = 19,
    /// About another authority's certificates.
    OtherAuthority = 20,
    /// About another epoch.
    OtherEpoch = 21,
    /// About another slice of the epoch.
    OtherSlice = 22,
    /// Older than a list that was accepted before.
    RolledBack = 23,
    /// Made in the future: the device's clock is behind, or the signer's ahead.
    NotYet = 24,
    /// Its next update is past.
    Stale = 25,
    /// Older than the reader allows, though its signer would.
    TooOld = 26,
    /// The signature is not the trusted key's over these octets.
    BadSignature = 27,
    /// Blocks that contradict each other or the header, under a signature that holds: a broken encoder.
    BadBlocks = 28,
    /// The trusted key is no point of P-256.
    BadKey = 29,
}

impl Answer {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Good, Self::NotGood, Self::Beyond, Self::OtherEpoch, Self::ForeignSerial, Self::Unreadable];

    /// The stable code, below 16.
    #[expect(clippy::as_conversions, reason = "the discriminant is the code")]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name of the code, as documentation and logs have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NotGood => "not_good",
            Self::Beyond => "beyond",
            Self::OtherEpoch => "certificate_of_other_epoch",
            Self::ForeignSerial => "foreign_serial",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::UnknownVersion,
        Self::OtherKey,
        Self::OtherFleet,
        Self::OtherAuthority,
        Self::OtherEpoch,
        Self::OtherSlice,
        Self::RolledBack,
        Self::NotYet,
        Self::Stale,
        Self::TooOld,
        Self::BadSignature,
        Self::BadBlocks,
        Self::BadKey,
    ];

    /// The stable code, 16 or more.
    #[expect(clippy::as_conversions, reason = "the discriminant is the code")]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name of the code, as documentation and logs have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVersion => "unknown_version",
            Self::OtherKey => "other_key",
            Self::OtherFleet => "other_fleet",
            Self::OtherAuthority => "other_authority",
            Self::OtherEpoch => "other_epoch",
            Self::OtherSlice => "other_slice",
            Self::RolledBack => "rolled_back",
            Self::NotYet => "not_yet",
            Self::Stale => "stale",
            Self::TooOld => "too_old",
            Self::BadSignature => "bad_signature",
            Self::BadBlocks => "bad_blocks",
            Self::BadKey => "bad_key",
        }
    }
}

impl core::fmt::Display for Answer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Refusal {}
