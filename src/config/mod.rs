//! Configuration: `fleetmark.toml` in the data directory, then `FLEETMARK_*` in the environment, then the command
//! line. Read once, unknown keys refused; from then on it is a checked type.
//!
//! - [`layout`]: what lies where in the data directory.
//! - [`passphrase`]: where the passphrase of the key files comes from.
//! - [`pin`]: where the PIN of the PKCS#11 token comes from.
//! - [`profile`]: an operator's profile: where the server is, and with what key to talk to it.

mod check;
mod error;
pub mod layout;
pub mod passphrase;
pub mod pin;
pub mod profile;
mod raw;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use fleetmark_domain::{FleetName, TrustDomain};
use secrecy::SecretString;

pub use error::ConfigError;
pub use layout::Layout;
pub use raw::{KeyOverrides, Overrides};

/// The data directory, where neither the command line nor the environment names one.
pub const DEFAULT_DATA_DIRECTORY: &str = "fleetmark-data";

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory and what lies in it.
    pub data: Layout,
    /// The root that all identities hang from.
    pub trust_domain: TrustDomain,
    /// Where the server listens.
    pub doors: Doors,
    /// By what the doors are reached.
    pub names: Names,
    /// What certificates name as the place of revocation lists, OCSP and issuers: `http://HOST[:PORT][/PATH]`, no slash at the end.
    pub public_url: String,
    /// Where records are kept.
    pub store: StoreLocation,
    /// The fleet of EST's default label, made at the first start.
    pub default_fleet: FleetName,
    /// Worker threads of the doors.
    pub workers: NonZeroUsize,
    /// Bounds on what callers may take.
    pub limits: Limits,
    /// A ledger's snapshot is made anew after so many entries (or an eighth of the ledger, where that is more).
    pub snapshot_every: NonZeroU32,
    /// How to log.
    pub log: Log,
    /// Certificate profiles that replace or add to the built-in ones.
    pub profiles: Option<PathBuf>,
    /// A directory with lists of keys that are known to all, such as those of Debian's openssl-blacklist.
    pub weak_lists: Option<PathBuf>,
    /// Where new authorities' keys are made, and the token.
    pub keys: KeySettings,
    /// The file with the passphrase, where one is named.
    pub passphrase_file: Option<PathBuf>,
    /// `serve` accepts a root key that lies on this machine.
    pub danger_online_root: bool,
    /// `PostgreSQL` may answer for a commit before its standby has it.
    pub danger_async_replication: bool,
    /// `PostgreSQL` may be spoken to without TLS.
    pub danger_plaintext_postgres: bool,
}

/// The addresses of the three doors; all differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doors {
    /// TLS, for devices, gateways, services: enrollment and renewal.
    pub device: SocketAddr,
    /// TLS with an operator's certificate: REST.
    pub admin: SocketAddr,
    /// Plain HTTP: revocation lists, OCSP, authorities' certificates.
    pub public: SocketAddr,
}

/// DNS names and IP addresses for the doors' certificates. At least one in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// DNS names, lower case, without wildcards.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The first as it was given: what the server is called in URLs.
    pub first: String,
}

/// Where records are kept. Its `Debug` and `Display` tell no password.
#[derive(Clone)]
pub enum StoreLocation {
    /// A file.
    Sqlite(PathBuf),
    /// A `postgres://` URL.
    Postgres(SecretString),
}

/// Where new authorities' keys are made, of which algorithm, and the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// Where the root's key is made.
    pub root: KeyHome,
    /// Where all other authorities' are.
    pub authorities: KeyHome,
    /// The root's algorithm; None: what its profile names first.
    pub root_algorithm: Option<AuthorityAlgorithm>,
    /// All other authorities'; None: what each one's profile names first.
    pub algorithm: Option<AuthorityAlgorithm>,
    /// The PKCS#11 token, where there is one.
    pub pkcs11: Option<Pkcs11>,
}

/// Where a key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyHome {
    /// In an encrypted file in the data directory.
    Files,
    /// In the PKCS#11 token.
    Pkcs11,
}

/// What an authority's key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityAlgorithm {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// A PKCS#11 token. Label or serial number, or both, are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11 {
    /// The module: a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub token: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The file with the user's PIN, where one is named.
    pub pin_file: Option<PathBuf>,
    /// Sessions in use at once, at most.
    pub sessions: NonZeroUsize,
}

/// Bounds on what callers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are open at a door at once.
    pub connections: NonZeroU32,
    /// Streams of the ledger feed that are open at once.
    pub followers: NonZeroU32,
    /// Enrollments of one address a second; None: no bound.
    pub enroll: Option<EnrollRate>,
    /// Certificates a second by one token, group or piece of hardware; None: no bound.
    pub proof: Option<NonZeroU32>,
    /// Certificates a second in one fleet; None: no bound.
    pub fleet: Option<NonZeroU32>,
    /// Certificates a second in all; None: no bound.
    pub installation: Option<NonZeroU32>,
    /// Renewals of one identity an hour; None: no bound.
    pub renewal: Option<NonZeroU32>,
}

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrollRate {
    /// Enrollments of one address a second, in the long run.
    pub per_second: NonZeroU32,
    /// How many may come at once.
    pub burst: NonZeroU32,
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// For people or for programs.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,fleetmark=debug`.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks the configuration of the data directory `data`.
    ///
    /// # Errors
    /// The first key that is unknown, of another type, or outside what it takes: by file or variable, key, and what
    /// was expected.
    pub fn load(data: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let data = std::path::absolute(data).map_err(|error| ConfigError::DataDirectory(data.to_owned(), error))?;
        let layout = Layout::new(data);
        raw::read(&layout.config_file(), overrides).and_then(|read| check::check(layout, &read))
    }

    /// Whether the store is the data directory's own database, by whatever path: a link leads there too.
    pub fn has_own_database(&self) -> bool {
        let own = self.data.database();
        let StoreLocation::Sqlite(place) = &self.store else { return false };
        *place == own || matches!((place.canonicalize(), own.canonicalize()), (Ok(place), Ok(own)) if place == own)
    }

    /// `https://HOST:PORT` of a door, by the first name.
    pub fn door_url(&self, door: SocketAddr) -> String {
        format!("https://{}:{}", host(&self.names.first), door.port())
    }
}

impl StoreLocation {
    /// Where it is, without user and password.
    fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(_) => "postgres://…".to_owned(),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// RFC 3986 3.2.2: an IPv6 address stands in brackets.
fn host(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}
