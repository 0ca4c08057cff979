//! Names: one segment of an identity, parsed once at the door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in octets.
pub const MAX_NAME: usize = 63;

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name has at least one character")]
    Empty,
    /// The text is longer than [`MAX_NAME`].
    #[error("a name has at most {MAX_NAME} characters")]
    TooLong,
    /// A character outside `[A-Za-z0-9._-]`, or a first one outside `[A-Za-z0-9]`.
    #[error("a name starts with a letter or digit and goes on with letters, digits, '.', '_' or '-'")]
    Character,
    /// The name is one that Fleetmark keeps for itself.
    #[error("this name is reserved")]
    Reserved,
}

/// One segment of an identity: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
///
/// It holds no path separator, no percent sign, no MQTT wildcard and no control character, so it may stand
/// in a URL path, a topic, a file name and a log line as it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which names are compared: two names that differ only in case are the same name.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        let mut octets = text.bytes();
        let first = octets.next().ok_or(NameError::Empty)?;
        let rest_fits = octets.all(|o| o.is_ascii_alphanumeric() || matches!(o, b'.' | b'_' | b'-'));
        if first.is_ascii_alphanumeric() && rest_fits { Ok(Self(text.to_owned())) } else { Err(NameError::Character) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A fleet's name: a [`Name`], lower case, and not `system`, which is the installation's own ledger.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FleetName(Name);

/// The name of the ledger of operators, gateways, services, fleets and authorities.
pub const SYSTEM: &str = "system";

impl FleetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for FleetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name: Name = text.parse()?;
        if text == SYSTEM {
            return Err(NameError::Reserved);
        }
        if name.folded() != text {
            return Err(NameError::Character);
        }
        Ok(Self(name))
    }
}

impl TryFrom<String> for FleetName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<FleetName> for String {
    fn from(name: FleetName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Which ledger: a fleet's own, or the installation's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LedgerName {
    /// Operators, gateways, services, fleets, authorities.
    System,
    /// The devices of one fleet.
    Fleet(FleetName),
}

impl LedgerName {
    /// The name as text: `system`, or the fleet's.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => SYSTEM,
            Self::Fleet(fleet) => fleet.as_str(),
        }
    }
}

impl From<Option<&FleetName>> for LedgerName {
    fn from(fleet: Option<&FleetName>) -> Self {
        fleet.map_or(Self::System, |fleet| Self::Fleet(fleet.clone()))
    }
}

impl FromStr for LedgerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == SYSTEM { Ok(Self::System) } else { text.parse().map(Self::Fleet) }
    }
}

impl fmt::Display for LedgerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let hostile = [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a\\b",
            "../etc",
            "a b",
            "a\nb",
            "a\0b",
            "a#",
            "+",
            "a+b",
            "$SYS",
            "%2e",
            "ä",
            "a:b",
            "a@b",
            "a,b",
            "a=b",
            "\u{202e}a",
        ];
        for text in hostile {
            assert!(text.parse::<Name>().is_err(), "{text:?} was taken for a name");
        }
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong));
    }

    #[test]
    fn ordinary_names_are_taken() {
        for text in ["a", "0", "sensor-01", "SN.12_3", &"a".repeat(63)] {
            assert_eq!(text.parse::<Name>().map(String::from).as_deref(), Ok(text));
        }
    }

    #[test]
    fn fleets_are_lower_case_and_never_system() {
        assert!("default".parse::<FleetName>().is_ok());
        assert_eq!("system".parse::<FleetName>(), Err(NameError::Reserved));
        assert_eq!("Default".parse::<FleetName>(), Err(NameError::Character));
    }
}
