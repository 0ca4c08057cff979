//! Values as columns: numbers for words, signed for unsigned. A code is never given to another word.

use fleetmark_domain::{Kind, Role};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

use crate::store::StoreError;
use crate::store::model::{GroupProof, GroupState, HardwareSource, ListKind, RequestState, SubjectState};

/// A word with its number in the database.
pub trait Coded: Sized {
    /// Its number.
    fn code(self) -> i16;
    /// The word of a number.
    fn from_code(code: i16) -> Option<Self>;
}

macro_rules! coded {
    ($($type:ty { $($word:path = $code:literal),* $(,)? })*) => {
        $(impl Coded for $type {
            fn code(self) -> i16 {
                match self { $($word => $code,)* }
            }

            fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some($word),)* _ => None }
            }
        })*
    };
}

coded! {
    Kind { Kind::Device = 0, Kind::Gateway = 1, Kind::Service = 2, Kind::Operator = 3 }
    Role { Role::Viewer = 0, Role::Operator = 1, Role::SecurityOfficer = 2, Role::Owner = 3 }
    SubjectState { SubjectState::Registered = 0, SubjectState::Active = 1, SubjectState::Out = 2, SubjectState::Released = 3 }
    ListKind { ListKind::CrlShard = 1, ListKind::StatusList = 2 }
    GroupProof { GroupProof::Maker = 0, GroupProof::Claim = 1, GroupProof::DerivedKey = 2, GroupProof::Approval = 3 }
    GroupState { GroupState::Enabled = 0, GroupState::Disabled = 1, GroupState::Ended = 2 }
    HardwareSource { HardwareSource::MakerKey = 0, HardwareSource::EndorsementKey = 1, HardwareSource::DerivedKey = 2 }
    RequestState {
        RequestState::Waiting = 0,
        RequestState::Approved = 1,
        RequestState::Refused = 2,
        RequestState::Done = 3,
    }
    AuthorityState {
        AuthorityState::Prepared = 0,
        AuthorityState::Active = 1,
        AuthorityState::Tainted = 2,
        AuthorityState::Revoked = 3,
    }
}

impl Coded for AuthorityKind {
    fn code(self) -> i16 {
        match self {
            Self::Root => 0,
            Self::Of(kind) => 1 + Coded::code(kind),
        }
    }

    fn from_code(code: i16) -> Option<Self> {
        if code == 0 { Some(Self::Root) } else { <Kind as Coded>::from_code(code.checked_sub(1)?).map(Self::Of) }
    }
}

/// The word of a column.
pub fn word<T: Coded>(code: i16, what: &'static str) -> Result<T, StoreError> {
    T::from_code(code).ok_or(StoreError::Unreadable { what })
}

/// A number for a column, or to look for. What does not fit, which no writer of ours makes, becomes the largest.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The number of a column.
pub fn number<T: TryFrom<i64>>(value: i64, what: &'static str) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| StoreError::Unreadable { what })
}

/// The octets of a column whose length is fixed.
pub fn octets<const N: usize>(value: &[u8], what: &'static str) -> Result<[u8; N], StoreError> {
    value.try_into().map_err(|_| StoreError::Unreadable { what })
}

/// The value of a column of text.
pub fn parsed<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Unreadable { what })
}

/// The value of a column in which '' stands for none.
pub fn optional<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<Option<T>, StoreError> {
    if text.is_empty() { Ok(None) } else { parsed(text, what).map(Some) }
}

/// A list or map as JSON.
pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Only maps whose keys are no text and writers that fail make this fail; we have neither.
    serde_json::to_string(value).unwrap_or_default()
}

/// The list or map of a column of JSON.
pub fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable { what })
}

/// Rows as records; the first that cannot be read is the error.
pub fn records<R, T: TryFrom<R, Error = StoreError>>(rows: Vec<R>) -> Result<Vec<T>, StoreError> {
    rows.into_iter().map(T::try_from).collect()
}

/// Whether an update met its row. Rows are not deleted, so that one which is missing was lost.
pub fn met(rows: usize, what: &'static str) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::Unreadable { what }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use AuthorityKind::{Of, Root};
    use AuthorityState as State;

    use super::*;

    fn comes_back<T: Coded + Copy + PartialEq + std::fmt::Debug>(words: &[T]) {
        for (place, word) in words.iter().enumerate() {
            assert_eq!(word.code(), i16::try_from(place).unwrap(), "{word:?}");
            assert_eq!(T::from_code(word.code()), Some(*word));
        }
        assert_eq!(T::from_code(i16::try_from(words.len()).unwrap()), None);
        assert_eq!(T::from_code(-1), None);
        assert_eq!(T::from_code(i16::MIN), None);
    }

    #[test]
    fn codes_are_as_they_always_were() {
        comes_back(&[Kind::Device, Kind::Gateway, Kind::Service, Kind::Operator]);
        comes_back(&[Role::Viewer, Role::Operator, Role::SecurityOfficer, Role::Owner]);
        comes_back(&[SubjectState::Registered, SubjectState::Active, SubjectState::Out, SubjectState::Released]);
        comes_back(&[GroupProof::Maker, GroupProof::Claim, GroupProof::DerivedKey, GroupProof::Approval]);
        comes_back(&[GroupState::Enabled, GroupState::Disabled, GroupState::Ended]);
        comes_back(&[HardwareSource::MakerKey, HardwareSource::EndorsementKey, HardwareSource::DerivedKey]);
        comes_back(&[RequestState::Waiting, RequestState::Approved, RequestState::Refused, RequestState::Done]);
        comes_back(&[State::Prepared, State::Active, State::Tainted, State::Revoked]);
        comes_back(&[Root, Of(Kind::Device), Of(Kind::Gateway), Of(Kind::Service), Of(Kind::Operator)]);
    }
}
