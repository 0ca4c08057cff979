//! What lies where in the data directory (mode 0700).

use std::path::{Path, PathBuf};

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout of this directory, by its absolute path.
    pub const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("fleetmark.toml")
    }

    /// Encrypted keys of authorities, ledgers and doors.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The first operator's profile, as `up` and `init` make it.
    pub fn operator(&self) -> PathBuf {
        self.0.join("operator")
    }

    /// The passphrase, where `up` made it.
    pub fn passphrase_file(&self) -> PathBuf {
        self.0.join("passphrase")
    }

    /// The socket for an operator whose key is lost (mode 0600).
    pub fn rescue_socket(&self) -> PathBuf {
        self.0.join("rescue.sock")
    }

    /// What a restore leaves for the next start.
    pub fn restored_marker(&self) -> PathBuf {
        self.0.join("restored.json")
    }

    /// The database, unless the configuration names another.
    pub fn database(&self) -> PathBuf {
        self.0.join("fleetmark.db")
    }

    /// Whether an installation was made here: there is a key.
    pub fn is_initialised(&self) -> bool {
        std::fs::read_dir(self.keys()).is_ok_and(|mut keys| keys.next().is_some())
    }
}
