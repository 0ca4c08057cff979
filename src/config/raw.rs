//! The configuration as it is written, before it is checked.

use std::fmt;
use std::path::Path;

use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::{Figment, Provider};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{AuthorityAlgorithm, ConfigError, KeyHome, LogFormat};

/// Variables with our prefix that are no keys of the configuration; `log` and `gateway_config` are the agent's and the gateway's.
const OTHER_VARIABLES: [&str; 7] = ["data", "gateway_config", "log", "operator", "passphrase", "pkcs11_pin", "token"];

/// Prefix of the environment's variables; `__` stands between a table and its key.
const PREFIX: &str = "FLEETMARK_";

/// The longest configuration file that is read, in octets.
const MAX_FILE: u64 = 256 * 1024;

/// All keys. What is not given has its default in `check`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub trust_domain: Option<String>,
    #[serde(default)]
    pub doors: RawDoors,
    pub names: Option<Words>,
    pub public_url: Option<String>,
    pub store: Option<String>,
    pub default_fleet: Option<String>,
    pub workers: Option<u32>,
    #[serde(default)]
    pub limits: RawLimits,
    #[serde(default)]
    pub ledger: RawLedger,
    #[serde(default)]
    pub log: RawLog,
    #[serde(default)]
    pub keys: RawKeys,
    pub profiles: Option<String>,
    pub passphrase_file: Option<String>,
    #[serde(default)]
    pub danger_online_root: bool,
    #[serde(default)]
    pub danger_async_replication: bool,
    #[serde(default)]
    pub danger_plaintext_postgres: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDoors {
    pub device: Option<String>,
    pub admin: Option<String>,
    pub public: Option<String>,
}

impl RawDoors {
    /// Whether somebody wrote this key.
    pub(super) fn is_given(&self, key: &str) -> bool {
        match key {
            "doors.device" => self.device.is_some(),
            "doors.admin" => self.admin.is_some(),
            _ => self.public.is_some(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub connections: Option<u32>,
    pub followers: Option<u32>,
    pub enroll_per_second: Option<u32>,
    pub enroll_burst: Option<u32>,
    pub proof_per_second: Option<u32>,
    pub fleet_per_second: Option<u32>,
    pub installation_per_second: Option<u32>,
    pub renew_per_hour: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLedger {
    pub snapshot_every: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub format: Option<LogFormat>,
    pub level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeys {
    pub weak_lists: Option<String>,
    pub authorities: Option<KeyHome>,
    pub root: Option<KeyHome>,
    pub algorithm: Option<AuthorityAlgorithm>,
    pub root_algorithm: Option<AuthorityAlgorithm>,
    pub pkcs11: Option<RawPkcs11>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPkcs11 {
    pub module: Option<String>,
    pub token: Option<String>,
    pub serial: Option<String>,
    pub pin_file: Option<String>,
    pub sessions: Option<u32>,
}

/// What the command line says; the same keys, and stronger than file and environment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overrides {
    /// `trust_domain`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// `names`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// `public_url`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// `store`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// `passphrase_file`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<String>,
    /// `danger_online_root`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub danger_online_root: Option<bool>,
    /// `keys`
    #[serde(skip_serializing_if = "KeyOverrides::is_empty")]
    pub keys: KeyOverrides,
    /// `doors`
    #[serde(skip_serializing_if = "DoorOverrides::is_empty")]
    pub doors: DoorOverrides,
    /// `log`
    #[serde(skip_serializing_if = "LogOverrides::is_empty")]
    pub log: LogOverrides,
}

/// `keys`
#[derive(Debug, Clone, Default, Serialize)]
pub struct KeyOverrides {
    /// `keys.algorithm`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// `keys.root_algorithm`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_algorithm: Option<String>,
}

impl KeyOverrides {
    fn is_empty(&self) -> bool {
        self.algorithm.is_none() && self.root_algorithm.is_none()
    }
}

/// `doors`
#[derive(Debug, Clone, Default, Serialize)]
pub struct DoorOverrides {
    /// `doors.device`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `doors.admin`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// `doors.public`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
}

impl DoorOverrides {
    fn is_empty(&self) -> bool {
        [&self.device, &self.admin, &self.public].into_iter().all(Option::is_none)
    }
}

/// `log`
#[derive(Debug, Clone, Default, Serialize)]
pub struct LogOverrides {
    /// `log.format`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `log.level`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

impl LogOverrides {
    fn is_empty(&self) -> bool {
        self.format.is_none() && self.level.is_none()
    }
}

/// A list, written as a list or, in the environment, with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordsVisitor;

        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts, or one text with commas")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }

        deserializer.deserialize_any(WordsVisitor)
    }
}

/// What was read, and where each key came from.
pub(super) struct Read {
    pub raw: Raw,
    figment: Figment,
}

impl Read {
    /// Where the value of this key came from, for an error.
    pub(super) fn origin(&self, key: &str) -> String {
        self.figment.find_metadata(key).map_or_else(|| "default".to_owned(), origin)
    }
}

/// Reads file, environment and command line, the later the stronger.
pub(super) fn read(file: &Path, overrides: &Overrides) -> Result<Read, ConfigError> {
    read_with(file, environment(), overrides)
}

/// As [`read`], with another source in the environment's place.
pub(super) fn read_with(file: &Path, environment: impl Provider, overrides: &Overrides) -> Result<Read, ConfigError> {
    let mut figment = Figment::new();
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            let reason = format!("it is longer than {MAX_FILE} octets");
            return Err(ConfigError::Syntax { origin: file.display().to_string(), reason });
        }
        Ok(_) => {
            // Read here, so that a file that cannot be read is not taken for one that is not there.
            std::fs::read_to_string(file).map_err(|error| ConfigError::File(file.to_owned(), error))?;
            figment = figment.merge(Toml::file_exact(file));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(ConfigError::File(file.to_owned(), error)),
    }
    let figment = figment.merge(environment).merge(Serialized::defaults(overrides));
    let raw = figment.extract().map_err(|error| refused(&error))?;
    Ok(Read { raw, figment })
}

fn environment() -> Env {
    Env::prefixed(PREFIX).ignore(&OTHER_VARIABLES).split("__")
}

/// The first thing that is wrong, in our words.
fn refused(error: &figment::Error) -> ConfigError {
    let from = error.metadata.as_ref().map_or_else(|| "configuration".to_owned(), origin);
    let key = error.path.join(".");
    match &error.kind {
        Kind::UnknownField(field, expected) => {
            // The path may or may not end with the field itself, by provider.
            let key = if error.path.last().is_some_and(|last| last == field) || key.is_empty() {
                if key.is_empty() { field.clone() } else { key }
            } else {
                format!("{key}.{field}")
            };
            ConfigError::UnknownKey { origin: from, key, expected: expected.join(", ") }
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            ConfigError::Value { origin: from, key, found: found.to_string(), expected: expected.clone() }
        }
        Kind::UnknownVariant(found, expected) => {
            ConfigError::Value { origin: from, key, found: format!("`{found}`"), expected: expected.join(" or ") }
        }
        Kind::ISizeOutOfRange(found) => out_of_range(from, key, found.to_string()),
        Kind::USizeOutOfRange(found) => out_of_range(from, key, found.to_string()),
        other => ConfigError::Syntax { origin: from, reason: other.to_string() },
    }
}

fn out_of_range(origin: String, key: String, found: String) -> ConfigError {
    ConfigError::Value { origin, key, found, expected: "a number that fits".to_owned() }
}

/// The file's path; the environment and the command line by name.
fn origin(metadata: &figment::Metadata) -> String {
    if let Some(path) = metadata.source.as_ref().and_then(figment::Source::file_path) {
        return path.display().to_string();
    }
    if metadata.name.contains("Overrides") { "command line".to_owned() } else { format!("environment ({PREFIX}…)") }
}
