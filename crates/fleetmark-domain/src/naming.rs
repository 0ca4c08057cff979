//! How the device of a foreign certificate is called: the rule, without what applies it.

use serde::{Deserialize, Serialize};

/// The longest text of a rule, in octets.
pub const MAX_TEXT: usize = 128;

/// Where in a foreign certificate the name of its device stands. A value that is there more than once counts as not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    /// The subject's common name.
    #[default]
    CommonName,
    /// The subject's serialNumber.
    SerialNumber,
    /// The one dNSName.
    Dns,
    /// The one uniformResourceIdentifier.
    Uri,
    /// The one rfc822Name.
    Email,
    /// hwSerialNum of the one hardwareModuleName (RFC 4108 5).
    HardwareModuleName,
}

/// Which part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamePart {
    /// All of it.
    #[default]
    Whole,
    /// What stands before the first separator: `.` of a DNS name, `@` of an address, `/` or `:` of a URI.
    First,
    /// What stands behind the last one.
    Last,
}

/// What is made of that part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameForm {
    /// It is the name; what is no name is refused.
    #[default]
    Exact,
    /// The same in small letters (ASCII).
    Lowercase,
    /// Each run of other characters becomes `-`, and 8 hexadecimal digits of its SHA-256 follow: always a name, and two values
    /// never the same.
    Sanitized,
}

/// A naming rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Naming {
    /// Where the name stands.
    pub from: NameSource,
    /// Cut off its beginning first; a value that does not begin so is refused. At most 128 octets.
    pub strip_prefix: String,
    /// Cut off its end; a value that does not end so is refused. At most 128 octets.
    pub strip_suffix: String,
    /// Which part of what is left.
    pub part: NamePart,
    /// What is made of it.
    pub form: NameForm,
    /// What the name begins with. At most 40 octets.
    pub prefix: String,
}

macro_rules! codes {
    ($($type:ident { $($word:ident = $code:literal),* })*) => {
        $(impl $type {
            /// Its number in the ledger.
            pub const fn code(self) -> u8 {
                match self { $(Self::$word => $code,)* }
            }

            /// The word of a number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$word),)* _ => None }
            }
        })*
    };
}

codes! {
    NameSource { CommonName = 0, SerialNumber = 1, Dns = 2, Uri = 3, Email = 4, HardwareModuleName = 5 }
    NamePart { Whole = 0, First = 1, Last = 2 }
    NameForm { Exact = 0, Lowercase = 1, Sanitized = 2 }
}

impl Naming {
    /// Whether its texts are within their limits and hold no control characters.
    pub fn fits(&self) -> bool {
        let plain = |text: &String, most: usize| text.len() <= most && !text.chars().any(char::is_control);
        plain(&self.strip_prefix, MAX_TEXT) && plain(&self.strip_suffix, MAX_TEXT) && plain(&self.prefix, 40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_there_are_no_others() {
        for code in 0..=u8::MAX {
            assert_eq!(NameSource::from_code(code).map(NameSource::code), (code < 6).then_some(code));
            assert_eq!(NamePart::from_code(code).map(NamePart::code), (code < 3).then_some(code));
            assert_eq!(NameForm::from_code(code).map(NameForm::code), (code < 3).then_some(code));
        }
    }
}
