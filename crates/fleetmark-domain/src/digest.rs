//! Digests that name things: certificates and keys. Two types, so that one is never compared with the other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 hexadecimal digits")]
pub struct DigestError;

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The octets of the digest.
            pub const fn octets(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            /// Reads hexadecimal as openssl prints it: either case, colons allowed.
            fn from_str(text: &str) -> Result<Self, DigestError> {
                if text.len() > 96 {
                    return Err(DigestError);
                }
                let digits: String = text.chars().filter(|c| *c != ':').collect();
                let octets = hex::decode(digits).map_err(|_| DigestError)?;
                Ok(Self(octets.try_into().map_err(|_| DigestError)?))
            }
        }

        impl TryFrom<String> for $name {
            type Error = DigestError;

            fn try_from(text: String) -> Result<Self, DigestError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.to_string()
            }
        }
    };
}

digest!(
    /// SHA-256 over a whole certificate in DER.
    Fingerprint
);
digest!(
    /// SHA-256 over a `SubjectPublicKeyInfo` in DER.
    KeyHash
);
