//! The lives of a device and of a certificate, as two tables: what may happen in which state, and what comes of it.
//!
//! [`DeviceState::next`] and [`Standing::next`] are the tables. Every act that changes a state or a standing asks them; what is
//! not in them is refused by name. docs/lifecycle.md draws them, and a test compares the drawing with the tables.

use serde::Deserialize;

use crate::{Refusal, RevocationReason, Standing};

/// Whether a device is let in. Gateways, services and operators live by the same table; they are never released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// Known; has no confirmed certificate, or was let in again and is to enroll anew.
    Registered,
    /// Has, or had, a confirmed certificate.
    Active,
    /// Put out, retired, or moved away: gets no certificate any more.
    Out,
    /// Active, and released for a move into another fleet; ends when it confirms its certificate there.
    Released,
}

/// What happens to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceEvent {
    /// It confirmed a certificate.
    Confirmed,
    /// An operator released it for a move into another fleet.
    Released,
    /// An operator took the release back.
    ReleaseCancelled,
    /// It confirmed a certificate in the other fleet.
    Moved,
    /// An operator put it out.
    Retired,
    /// An operator let it in again.
    Readmitted,
}

impl DeviceState {
    /// Every state, in the order of docs/lifecycle.md.
    pub const ALL: [Self; 4] = [Self::Registered, Self::Active, Self::Released, Self::Out];

    /// The table. The same state again means that nothing changes: a repeat.
    ///
    /// # Errors
    /// `IdentityOut`, `NotReleased`, `TransitionNotAllowed`.
    #[expect(clippy::match_same_arms, reason = "a table: one rule a line")]
    pub const fn next(self, event: DeviceEvent) -> Result<Self, Refusal> {
        match (self, event) {
            (Self::Registered | Self::Active, DeviceEvent::Confirmed) => Ok(Self::Active),
            // It works on in its old fleet, renewals included.
            (Self::Released, DeviceEvent::Confirmed) => Ok(Self::Released),
            (Self::Out, DeviceEvent::Confirmed) => Err(Refusal::IdentityOut),

            (Self::Active | Self::Released, DeviceEvent::Released) => Ok(Self::Released),
            // One that never confirmed a certificate has nothing to take along: register it in the other fleet.
            (Self::Registered, DeviceEvent::Released) => Err(Refusal::TransitionNotAllowed),
            (Self::Out, DeviceEvent::Released) => Err(Refusal::IdentityOut),

            (Self::Released, DeviceEvent::ReleaseCancelled) => Ok(Self::Active),
            (_, DeviceEvent::ReleaseCancelled) => Err(Refusal::NotReleased),

            (Self::Released, DeviceEvent::Moved) => Ok(Self::Out),
            (Self::Out, DeviceEvent::Moved) => Err(Refusal::IdentityOut),
            (_, DeviceEvent::Moved) => Err(Refusal::NotReleased),

            (_, DeviceEvent::Retired) => Ok(Self::Out),

            (Self::Out | Self::Registered, DeviceEvent::Readmitted) => Ok(Self::Registered),
            (_, DeviceEvent::Readmitted) => Err(Refusal::TransitionNotAllowed),
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Released => "released",
            Self::Out => "retired",
        }
    }
}

impl DeviceEvent {
    /// Every event, in the order of docs/lifecycle.md.
    pub const ALL: [Self; 6] =
        [Self::Confirmed, Self::Released, Self::ReleaseCancelled, Self::Moved, Self::Retired, Self::Readmitted];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirms",
            Self::Released => "move",
            Self::ReleaseCancelled => "cancel-move",
            Self::Moved => "confirms elsewhere",
            Self::Retired => "retire",
            Self::Readmitted => "readmit",
        }
    }
}

/// What happens to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateEvent {
    /// Its holder showed that it keeps it.
    Confirmed,
    /// Its holder confirmed a newer one.
    Succeeded,
    /// It was suspended.
    Held,
    /// It is suspected.
    Quarantined,
    /// An operator ended its suspension or quarantine.
    Released,
    /// It was ended for ever.
    Revoked(RevocationReason),
    /// Its time to be confirmed is over.
    Lapsed,
}

impl CertificateEvent {
    /// Every event, in the order of docs/lifecycle.md, with one reason for all.
    pub const ALL: [Self; 7] = [
        Self::Confirmed,
        Self::Succeeded,
        Self::Held,
        Self::Quarantined,
        Self::Released,
        Self::Revoked(RevocationReason::Unspecified),
        Self::Lapsed,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirms",
            Self::Succeeded => "confirms a newer one",
            Self::Held => "hold",
            Self::Quarantined => "quarantine",
            Self::Released => "release",
            Self::Revoked(_) => "revoke",
            Self::Lapsed => "not confirmed in time",
        }
    }
}

impl Standing {
    /// The table. The same standing again means that nothing changes: a repeat. What is revoked stays so, with its first reason.
    ///
    /// # Errors
    /// `Superseded`, `Held`, `Quarantined`, `Revoked` for one that comes to be confirmed; else `TransitionNotAllowed`.
    #[expect(clippy::match_same_arms, reason = "a table: one rule a line")]
    pub const fn next(self, event: CertificateEvent) -> Result<Self, Refusal> {
        match (self, event) {
            (Self::Unconfirmed | Self::Good, CertificateEvent::Confirmed) => Ok(Self::Good),
            (Self::Superseded, CertificateEvent::Confirmed) => Err(Refusal::Superseded),
            (Self::Held, CertificateEvent::Confirmed) => Err(Refusal::Held),
            (Self::Quarantined, CertificateEvent::Confirmed) => Err(Refusal::Quarantined),
            (Self::Revoked(_), CertificateEvent::Confirmed) => Err(Refusal::Revoked),

            (Self::Revoked(reason), CertificateEvent::Revoked(_)) => Ok(Self::Revoked(reason)),
            (_, CertificateEvent::Revoked(reason)) => Ok(Self::Revoked(reason)),
            (Self::Revoked(_), _) => Err(Refusal::TransitionNotAllowed),

            (Self::Good | Self::Superseded | Self::Held | Self::Quarantined, CertificateEvent::Succeeded) => {
                Ok(Self::Superseded)
            }
            // A newer one can only be made after this one was revoked.
            (Self::Unconfirmed, CertificateEvent::Succeeded) => Err(Refusal::TransitionNotAllowed),

            (Self::Unconfirmed, CertificateEvent::Lapsed) => Ok(Self::Revoked(RevocationReason::CessationOfOperation)),
            (_, CertificateEvent::Lapsed) => Err(Refusal::TransitionNotAllowed),

            (Self::Superseded, _) => Err(Refusal::TransitionNotAllowed),
            (_, CertificateEvent::Held) => Ok(Self::Held),
            (_, CertificateEvent::Quarantined) => Ok(Self::Quarantined),

            (Self::Good | Self::Held | Self::Quarantined, CertificateEvent::Released) => Ok(Self::Good),
            (Self::Unconfirmed, CertificateEvent::Released) => Err(Refusal::TransitionNotAllowed),
        }
    }
}

/// What the server does by itself where a superseded certificate is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// It raises the alarm and does no more.
    #[default]
    Alarm,
    /// The device gets no renewal until an operator looked at it.
    HoldRenewals,
    /// The device's current certificate is quarantined.
    Quarantine,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Standing = Standing::Revoked(RevocationReason::KeyCompromise);
    const STANDINGS: [Standing; 6] =
        [Standing::Unconfirmed, Standing::Good, Standing::Superseded, Standing::Held, Standing::Quarantined, KEY];

    /// Rows: from; columns: the events, in the order of `ALL`. A letter: the next state. `o`: `identity_out`, `n`: `not_released`,
    /// `-`: `transition_not_allowed`.
    #[test]
    fn a_devices_life_is_as_written() {
        let rows = [
            (DeviceState::Registered, "A-nnOR"),
            (DeviceState::Active, "ALnnO-"),
            (DeviceState::Released, "LLAOO-"),
            (DeviceState::Out, "oonoOR"),
        ];
        for (from, row) in rows {
            for (event, mark) in DeviceEvent::ALL.into_iter().zip(row.chars()) {
                let expected = match mark {
                    'R' => Ok(DeviceState::Registered),
                    'A' => Ok(DeviceState::Active),
                    'L' => Ok(DeviceState::Released),
                    'O' => Ok(DeviceState::Out),
                    'o' => Err(Refusal::IdentityOut),
                    'n' => Err(Refusal::NotReleased),
                    _ => Err(Refusal::TransitionNotAllowed),
                };
                assert_eq!(from.next(event), expected, "{} when {}", from.as_str(), event.as_str());
            }
        }
        assert_eq!(rows.map(|(state, _)| state), DeviceState::ALL);
    }

    /// The same for a certificate. `s`, `h`, `q`, `r`: refused by that standing's name.
    #[test]
    fn a_certificates_life_is_as_written() {
        let rows = ["G-HQ-RL", "GSHQGR-", "sS---R-", "hSHQGR-", "qSHQGR-", "r----K-"];
        for (from, row) in STANDINGS.into_iter().zip(rows) {
            for (event, mark) in CertificateEvent::ALL.into_iter().zip(row.chars()) {
                let expected = match mark {
                    'G' => Ok(Standing::Good),
                    'S' => Ok(Standing::Superseded),
                    'H' => Ok(Standing::Held),
                    'Q' => Ok(Standing::Quarantined),
                    'R' => Ok(Standing::Revoked(RevocationReason::Unspecified)),
                    'L' => Ok(Standing::Revoked(RevocationReason::CessationOfOperation)),
                    'K' => Ok(KEY),
                    's' => Err(Refusal::Superseded),
                    'h' => Err(Refusal::Held),
                    'q' => Err(Refusal::Quarantined),
                    'r' => Err(Refusal::Revoked),
                    _ => Err(Refusal::TransitionNotAllowed),
                };
                assert_eq!(from.next(event), expected, "{from} when {}", event.as_str());
            }
        }
    }

    /// Auditors ask [`Standing::may_become`]; it must say what the events can bring about, no more and no less.
    #[test]
    fn both_tables_of_standing_agree() {
        for from in STANDINGS {
            for to in STANDINGS {
                let events = CertificateEvent::ALL.into_iter().filter_map(|event| from.next(event).ok());
                let is_reached = events.into_iter().any(|next| next != from && next.as_str() == to.as_str());
                assert_eq!(from.may_become(to), is_reached, "{from} to {to}");
            }
        }
    }
}
