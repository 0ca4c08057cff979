//! What lies where in the data directory (mode 0700).

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{ConfigError, Overrides};

/// What stands at the head of a configuration that we write.
const HEAD: &str = "# Written at the first start from what the command line said.\n\
    # All keys, with their defaults, are in docs/configuration.md.\n";

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

    /// Remembers a PIN that the PKCS#11 token refused.
    pub fn refused_pin(&self) -> PathBuf {
        self.0.join("pin-refused")
    }

    /// What an offline root is asked for, as `init` writes it.
    pub fn root_request(&self) -> PathBuf {
        self.0.join("root-request.json")
    }

    /// What a corporate authority is asked for, as `init` writes it.
    pub fn corporate_request(&self) -> PathBuf {
        self.0.join("fleetmark-root.csr.pem")
    }

    /// What a restore leaves for the next start.
    pub fn restored_marker(&self) -> PathBuf {
        self.0.join("restored.json")
    }

    /// The ledgers' snapshots; what is missing is made again.
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// The database, unless the configuration names another.
    pub fn database(&self) -> PathBuf {
        self.0.join("fleetmark.db")
    }

    /// Whether an installation was made here: there is a key.
    pub fn is_initialised(&self) -> bool {
        std::fs::read_dir(self.keys()).is_ok_and(|mut keys| keys.next().is_some())
    }

    /// Makes the directory with mode 0700, where it is not there.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn create(&self) -> Result<(), ConfigError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|error| ConfigError::Unwritable(self.0.clone(), error))
    }

    /// Keeps what the command line said as the configuration file, where there is none; says whether it did.
    ///
    /// # Errors
    /// [`ConfigError::Unwritable`].
    pub fn keep(&self, overrides: &Overrides) -> Result<bool, ConfigError> {
        let path = self.config_file();
        let failed = |error| ConfigError::Unwritable(path.clone(), error);
        let text = toml::to_string(overrides).map_err(|error| failed(std::io::Error::other(error)))?;
        let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        file.write_all(HEAD.as_bytes())
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        Ok(true)
    }
}
