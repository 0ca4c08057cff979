//! What lies where in the data directory (mode 0700).

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::profile::write_durably;
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

    /// Keeps what the command line said in the configuration file, and gives the keys that it could not keep. A file that an earlier
    /// attempt wrote is brought up to date; one that a person wrote, or changed, is left alone.
    ///
    /// # Errors
    /// [`ConfigError::Unwritable`], [`ConfigError::File`].
    pub fn keep(&self, overrides: &Overrides) -> Result<Vec<String>, ConfigError> {
        let path = self.config_file();
        let unwritable = |error| ConfigError::Unwritable(path.clone(), error);
        let said = Table::try_from(overrides).map_err(|error| unwritable(std::io::Error::other(error)))?;
        let known = match std::fs::read_to_string(&path) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(ConfigError::File(path, error)),
        };
        let before: Table = known.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        if known.as_ref().is_some_and(|text| *text != written(&before)) {
            return Ok(missing(&before, &said, ""));
        }
        let mut now = before;
        add(&mut now, said);
        write_durably(&path, written(&now).as_bytes(), 0o600).map_err(|error| unwritable(std::io::Error::other(error)))?;
        Ok(Vec::new())
    }
}

/// A configuration as we write it.
fn written(table: &Table) -> String {
    format!("{HEAD}{table}")
}

/// Puts these keys in, and leaves those that are not said.
fn add(table: &mut Table, said: Table) {
    for (key, value) in said {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(said)) => add(known, said),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// The keys that the table has otherwise, or not at all.
fn missing(table: &Table, said: &Table, within: &str) -> Vec<String> {
    let of_key = |(key, value): (&String, &Value)| match (table.get(key), value) {
        (Some(Value::Table(known)), Value::Table(said)) => missing(known, said, &format!("{within}{key}.")),
        (None, Value::Table(said)) => missing(&Table::new(), said, &format!("{within}{key}.")),
        (Some(known), said) if known == said => Vec::new(),
        _ => vec![format!("{within}{key}")],
    };
    said.iter().flat_map(of_key).collect()
}
