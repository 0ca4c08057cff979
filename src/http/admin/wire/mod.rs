//! The bodies of the admin door, as its clients see them. Requests refuse unknown fields; clients must pass over
//! fields of answers that they do not know. Points in time are RFC 3339, spans are in seconds.

mod blocked;
mod certificates;
mod external;
mod fleets;
mod groups;
mod hardware;
mod imports;
mod lifecycle;
mod policies;
mod requests;
mod revocations;
mod root;
mod subjects;
mod system;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

pub use blocked::*;
pub use certificates::*;
pub use external::*;
pub use fleets::*;
pub use groups::*;
pub use hardware::*;
pub use imports::*;
pub use lifecycle::*;
pub use policies::*;
pub use requests::*;
pub use revocations::*;
pub use root::*;
pub use subjects::*;
pub use system::*;

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null at the end.
    pub next: Option<String>,
}

/// A secret that an answer shows once. Its `Debug` shows nothing.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(from = "String", into = "String")]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<SecretText> for String {
    fn from(secret: SecretText) -> Self {
        secret.expose().to_owned()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// For serde: tells null (`Some(None)`) from a field that is not there (`None`).
#[expect(clippy::option_option, reason = "null and nothing mean different things in a merge patch (RFC 7396)")]
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
