//! Why a configuration is refused: which file or variable, which key, what was expected.

use std::path::PathBuf;

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The data directory's path cannot be made absolute.
    #[error("the data directory {}: its path cannot be made absolute", .0.display())]
    DataDirectory(PathBuf, #[source] std::io::Error),
    /// The file cannot be read.
    #[error("{}: it cannot be read", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// The data directory or its configuration cannot be made.
    #[error("{}: it cannot be written; name another data directory with --data, or correct its owner and mode", .0.display())]
    Unwritable(PathBuf, #[source] std::io::Error),
    /// The file is no TOML.
    #[error("{origin}: it is no TOML: {reason}")]
    Syntax {
        /// File or environment.
        origin: String,
        /// The parser's words, with the line.
        reason: String,
    },
    /// A key that is not known.
    #[error("{origin}: `{key}` is no key of the configuration; expected one of: {expected}")]
    UnknownKey {
        /// File or environment.
        origin: String,
        /// The key with its tables.
        key: String,
        /// The keys that are known there.
        expected: String,
    },
    /// A value that is not taken.
    #[error("{origin}: `{key}` is {found}; expected {expected}")]
    Value {
        /// File, environment or command line.
        origin: String,
        /// The key with its tables.
        key: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
}
