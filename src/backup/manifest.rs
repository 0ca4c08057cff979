//! What a backup says of itself, and how its files are called.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use fleetmark_domain::{Epoch, Name, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};

use super::BackupError;

/// The most parts of a file's name.
const MAX_PARTS: usize = 4;

/// Windows aside, names that a restore makes itself.
const RESERVED: [&str; 1] = ["restored.json"];

/// What a backup says of itself: enough to know what a restore loses, without the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// When the database was copied.
    pub made_at: Timestamp,
    /// The version of Fleetmark that made it.
    pub software: String,
    /// The installation.
    pub trust_domain: TrustDomain,
    /// The highest epoch that was opened: a restored server opens new ones far above it, since certificates may have been
    /// issued after the backup was made.
    pub highest_epoch: Epoch,
    /// How far each ledger was.
    pub ledgers: Vec<LedgerHead>,
    /// The labels of authorities' keys that are in a PKCS#11 token, and so not in the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<String>,
}

/// How far a ledger was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHead {
    /// `system` or a fleet's name.
    pub name: String,
    /// How many entries.
    pub size: u64,
    /// The Merkle root over them, hexadecimal.
    pub root: String,
}

/// A file's name in a backup: parts of `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`, so never absolute, never `..`, never hidden.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// The name, with `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same as a relative path.
    pub fn path(&self) -> PathBuf {
        self.0.split('/').collect()
    }
}

impl FromStr for FileName {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self, BackupError> {
        let parts_fit = text.split('/').count() <= MAX_PARTS && text.split('/').all(|part| part.parse::<Name>().is_ok());
        if parts_fit && !RESERVED.contains(&text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BackupError::Name(text.chars().take(100).collect()))
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
