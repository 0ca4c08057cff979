//! The life of an authority, as a table: what may happen to it in which state, and what comes of it.
//!
//! [`AuthorityState::next`] is the table. docs/authorities.md draws it, and a test compares the drawing with it. What certificates
//! hang from an authority, and whether there is another one, is asked by who changes the state; the table knows one authority alone.

use crate::Refusal;

/// Where an authority is in its life. It never goes back: a later state is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthorityState {
    /// Trusted, does not issue yet.
    Prepared,
    /// Issues.
    Active,
    /// Trusted for what the ledger holds, issues no more.
    Tainted,
    /// Trusted no more.
    Revoked,
}

/// What happens to an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityEvent {
    /// An operator has it issue from now on.
    Activated,
    /// Another authority for the same is activated.
    Succeeded,
    /// An operator takes its right to issue away.
    Tainted,
    /// An operator takes all trust away.
    Revoked,
}

impl AuthorityState {
    /// Every state, in the order of docs/authorities.md.
    pub const ALL: [Self; 4] = [Self::Prepared, Self::Active, Self::Tainted, Self::Revoked];

    /// The table. The same state again means that nothing changes: a repeat.
    ///
    /// # Errors
    /// `AuthorityActive` where it must issue no more first, `AuthorityRevoked`, `TransitionNotAllowed`.
    #[expect(clippy::match_same_arms, reason = "a table: one rule a line")]
    pub const fn next(self, event: AuthorityEvent) -> Result<Self, Refusal> {
        match (self, event) {
            (Self::Prepared | Self::Active, AuthorityEvent::Activated) => Ok(Self::Active),
            // What is suspected once never issues again.
            (Self::Tainted, AuthorityEvent::Activated) => Err(Refusal::TransitionNotAllowed),

            (Self::Active | Self::Tainted, AuthorityEvent::Succeeded) => Ok(Self::Tainted),
            // It goes on waiting.
            (Self::Prepared, AuthorityEvent::Succeeded) => Ok(Self::Prepared),
            (Self::Revoked, AuthorityEvent::Succeeded) => Ok(Self::Revoked),

            (Self::Active | Self::Tainted, AuthorityEvent::Tainted) => Ok(Self::Tainted),
            // It has issued nothing that would be worth trusting: revoke it.
            (Self::Prepared, AuthorityEvent::Tainted) => Err(Refusal::TransitionNotAllowed),

            (Self::Prepared | Self::Tainted | Self::Revoked, AuthorityEvent::Revoked) => Ok(Self::Revoked),
            // Two steps: whoever revokes has seen that it issues no more.
            (Self::Active, AuthorityEvent::Revoked) => Err(Refusal::AuthorityActive),

            (Self::Revoked, _) => Err(Refusal::AuthorityRevoked),
        }
    }

    /// Whether certificates of it are believed, as far as the ledger holds them.
    pub const fn is_trusted(self) -> bool {
        !matches!(self, Self::Revoked)
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Tainted => "tainted",
            Self::Revoked => "revoked",
        }
    }
}

impl AuthorityEvent {
    /// Every event, in the order of docs/authorities.md.
    pub const ALL: [Self; 4] = [Self::Activated, Self::Succeeded, Self::Tainted, Self::Revoked];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activated => "activate",
            Self::Succeeded => "successor activated",
            Self::Tainted => "taint",
            Self::Revoked => "revoke",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: states; columns: events, in the order of `ALL`.
    fn table() -> Vec<(AuthorityState, Vec<String>)> {
        let cell = |state: AuthorityState, event| match state.next(event) {
            Ok(next) if next == state => "-".to_owned(),
            Ok(next) => next.as_str().to_owned(),
            Err(refusal) => format!("`{refusal}`"),
        };
        let row = |state| (state, AuthorityEvent::ALL.into_iter().map(|event| cell(state, event)).collect());
        AuthorityState::ALL.into_iter().map(row).collect()
    }

    #[test]
    fn every_transition_is_as_written() {
        let expected = [
            ["active", "-", "`transition_not_allowed`", "revoked"],
            ["-", "tainted", "tainted", "`authority_active`"],
            ["`transition_not_allowed`", "-", "-", "revoked"],
            ["`authority_revoked`", "-", "`authority_revoked`", "-"],
        ];
        for ((state, found), expected) in table().into_iter().zip(expected) {
            assert_eq!(found, expected, "{}", state.as_str());
        }
    }

    #[test]
    fn nothing_goes_back_and_what_is_revoked_stays_so() {
        let rank = |state| AuthorityState::ALL.iter().position(|one| *one == state).unwrap();
        for state in AuthorityState::ALL {
            for event in AuthorityEvent::ALL {
                let Ok(next) = state.next(event) else { continue };
                assert!(rank(next) >= rank(state), "{state:?} {event:?}");
                assert!(state.is_trusted() || !next.is_trusted());
            }
        }
    }

    #[test]
    fn the_manual_draws_the_same_table() {
        let manual = include_str!("../../../docs/authorities.md");
        for (state, cells) in table() {
            let line = format!("| {} | {} |", state.as_str(), cells.join(" | "));
            assert!(manual.contains(&line), "docs/authorities.md has no line\n{line}");
        }
        let head: Vec<_> = AuthorityEvent::ALL.iter().map(|event| event.as_str()).collect();
        assert!(manual.contains(&format!("| state | {} |", head.join(" | "))));
    }
}
