//! Standing: what a certificate is worth now, and the one table of how each view shows it.
//!
//! [`Standing::seen_by`] is that table. The server, its gateways, CRL, OCSP and status lists all ask it; none
//! has a rule of its own. [`Standing::may_become`] is the other half: which change of standing is allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// RFC 5280 5.3.1 reason codes that an operator may give. `removeFromCRL` is for delta lists, which we never make;
/// `certificateHold` is [`Standing::Held`], a standing of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevocationReason {
    /// No reason given.
    Unspecified,
    /// The device's key is, or may be, known to somebody else.
    KeyCompromise,
    /// The issuing authority's key is, or may be, known to somebody else.
    #[serde(rename = "cACompromise")]
    CaCompromise,
    /// The names in the certificate are no longer right.
    AffiliationChanged,
    /// A newer certificate took its place.
    Superseded,
    /// The device is out of use, or never confirmed its certificate.
    CessationOfOperation,
    /// A right that the certificate stated was withdrawn.
    PrivilegeWithdrawn,
    /// The attribute authority's key is, or may be, known to somebody else.
    #[serde(rename = "aACompromise")]
    AaCompromise,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The number in a CRL entry's `reasonCode` and in OCSP's `RevokedInfo`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The reason with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The name that RFC 5280 gives it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no reason of RFC 5280, or no standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownWord(&'static str);

impl FromStr for RevocationReason {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(UnknownWord("a reason is one of RFC 5280's, such as keyCompromise or cessationOfOperation"))
    }
}

/// What a certificate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Issued; its holder has not yet shown that it keeps it.
    Unconfirmed,
    /// Confirmed and in use.
    Good,
    /// Its holder confirmed a newer one.
    Superseded,
    /// Suspended by an operator; may be released.
    Held,
    /// Suspected; policy decides what its holder may still do.
    Quarantined,
    /// Ended for ever.
    Revoked(RevocationReason),
}

/// The places where a standing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// The server's own doors and the gateways' verdicts.
    Verdict,
    /// The certificate revocation list, RFC 5280.
    Crl,
    /// The OCSP answer, RFC 6960.
    Ocsp,
    /// The firmware's status list.
    StatusList,
}

/// How a view shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sight {
    /// Good: let it in, do not list it.
    Good,
    /// Policy decides: update and enroll only.
    Restricted,
    /// Not good now; may become good again (`certificateHold`).
    Held,
    /// Refused, without being listed as revoked anywhere.
    Refused,
    /// Not good for ever.
    Revoked(RevocationReason),
}

impl Sight {
    /// Whether a list that names the certificates that are not good names this one.
    pub const fn is_listed(self) -> bool {
        matches!(self, Self::Held | Self::Revoked(_))
    }
}

/// What a fleet chose where the table leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Choices {
    /// Superseded certificates are listed as revoked, instead of staying good until they expire.
    pub list_superseded: bool,
    /// Quarantined certificates are listed as held.
    pub list_quarantined: bool,
}

impl Standing {
    /// The worse of two, by how much each takes away; of equals `self`.
    #[must_use]
    pub const fn or_worse(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    const fn weight(self) -> u8 {
        match self {
            Self::Unconfirmed | Self::Good => 0,
            Self::Quarantined => 1,
            Self::Held => 2,
            Self::Superseded => 3,
            Self::Revoked(_) => 4,
        }
    }

    /// The table standing × view.
    ///
    /// `lapsed` says that an unconfirmed certificate's time to live is over: every view then shows what the
    /// store is about to record, so that no view is better than another for the seconds in between.
    #[expect(clippy::match_same_arms, reason = "a table: one row a line, in the order of the standings")]
    pub const fn seen_by(self, view: View, lapsed: bool, choices: Choices) -> Sight {
        match (self, view) {
            (Self::Unconfirmed, _) if lapsed => Sight::Revoked(RevocationReason::CessationOfOperation),
            (Self::Unconfirmed | Self::Good, _) => Sight::Good,
            (Self::Superseded, View::Verdict) => Sight::Refused,
            (Self::Superseded, _) if choices.list_superseded => Sight::Revoked(RevocationReason::Superseded),
            (Self::Superseded, _) => Sight::Good,
            (Self::Held, _) => Sight::Held,
            (Self::Quarantined, View::Verdict) => Sight::Restricted,
            (Self::Quarantined, _) if choices.list_quarantined => Sight::Held,
            (Self::Quarantined, _) => Sight::Good,
            (Self::Revoked(reason), _) => Sight::Revoked(reason),
        }
    }

    /// Whether a certificate of this standing may come to be of standing `next`. Revoked is for ever.
    #[expect(clippy::match_same_arms, reason = "a table: one rule a line")]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Revoked(_), _) | (_, Self::Unconfirmed) => false,
            (_, Self::Revoked(_)) => true,
            (Self::Unconfirmed | Self::Held | Self::Quarantined, Self::Good) => true,
            (Self::Good | Self::Held | Self::Quarantined, Self::Superseded) => true,
            (Self::Good | Self::Unconfirmed, Self::Held | Self::Quarantined) => true,
            (Self::Quarantined, Self::Held) | (Self::Held, Self::Quarantined) => true,
            _ => false,
        }
    }

    /// Whether a change from this standing to `next` takes something away from the holder: bad news, which
    /// travels before proof.
    pub const fn worsens_to(self, next: Self) -> bool {
        matches!(next, Self::Superseded | Self::Held | Self::Quarantined | Self::Revoked(_)) && self.may_become(next)
    }

    /// The standing's name, without the reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Good => "good",
            Self::Superseded => "superseded",
            Self::Held => "held",
            Self::Quarantined => "quarantined",
            Self::Revoked(_) => "revoked",
        }
    }

    /// The number under which the store and the ledger keep it; the reason is kept beside it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unconfirmed => 0,
            Self::Good => 1,
            Self::Superseded => 2,
            Self::Held => 3,
            Self::Quarantined => 4,
            Self::Revoked(_) => 5,
        }
    }

    /// The standing with this number; `reason` counts for a revoked one alone.
    pub fn from_code(code: u8, reason: Option<RevocationReason>) -> Option<Self> {
        Some(match code {
            0 => Self::Unconfirmed,
            1 => Self::Good,
            2 => Self::Superseded,
            3 => Self::Held,
            4 => Self::Quarantined,
            5 => Self::Revoked(reason.unwrap_or(RevocationReason::Unspecified)),
            _ => return None,
        })
    }

    /// The reason, of a revoked certificate.
    pub const fn reason(self) -> Option<RevocationReason> {
        match self {
            Self::Revoked(reason) => Some(reason),
            _ => None,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Choices = Choices { list_superseded: false, list_quarantined: false };
    const ALL: Choices = Choices { list_superseded: true, list_quarantined: true };
    const KEY: Standing = Standing::Revoked(RevocationReason::KeyCompromise);
    const STANDINGS: [Standing; 6] =
        [Standing::Unconfirmed, Standing::Good, Standing::Superseded, Standing::Held, Standing::Quarantined, KEY];

    /// The table of DESIGN §6, written out: verdict, then CRL, OCSP and status list, which must agree.
    #[test]
    fn the_table_is_as_written() {
        let revoked = Sight::Revoked(RevocationReason::KeyCompromise);
        let rows = [
            (Standing::Unconfirmed, NONE, Sight::Good, Sight::Good),
            (Standing::Good, NONE, Sight::Good, Sight::Good),
            (Standing::Superseded, NONE, Sight::Refused, Sight::Good),
            (Standing::Superseded, ALL, Sight::Refused, Sight::Revoked(RevocationReason::Superseded)),
            (Standing::Held, NONE, Sight::Held, Sight::Held),
            (Standing::Quarantined, NONE, Sight::Restricted, Sight::Good),
            (Standing::Quarantined, ALL, Sight::Restricted, Sight::Held),
            (KEY, NONE, revoked, revoked),
        ];
        for (standing, choices, verdict, lists) in rows {
            assert_eq!(standing.seen_by(View::Verdict, false, choices), verdict, "{standing}");
            for view in [View::Crl, View::Ocsp, View::StatusList] {
                assert_eq!(standing.seen_by(view, false, choices), lists, "{standing} in {view:?}");
            }
        }
        for view in [View::Verdict, View::Crl, View::Ocsp, View::StatusList] {
            let lapsed = Standing::Unconfirmed.seen_by(view, true, NONE);
            assert_eq!(lapsed, Sight::Revoked(RevocationReason::CessationOfOperation));
        }
    }

    /// Rows: from; columns: to, in the order of `STANDINGS`.
    #[test]
    fn transitions_are_as_written() {
        let table = [
            ("unconfirmed", ".G.HQR"),
            ("good", "..SHQR"),
            ("superseded", ".....R"),
            ("held", ".GS.QR"),
            ("quarantined", ".GSH.R"),
            ("revoked", "......"),
        ];
        for (from, (name, row)) in STANDINGS.into_iter().zip(table) {
            assert_eq!(from.as_str(), name);
            for (to, mark) in STANDINGS.into_iter().zip(row.chars()) {
                assert_eq!(from.may_become(to), mark != '.', "{from} to {to}");
            }
        }
    }

    #[test]
    fn codes_come_back() {
        for standing in STANDINGS {
            assert_eq!(Standing::from_code(standing.code(), standing.reason()), Some(standing));
        }
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::from_code(reason.code()), Some(reason));
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert_eq!(RevocationReason::from_code(7), None);
    }
}
