//! Private keys: where they live, and a [`Signer`] for each.
//!
//! - [`files`]: encrypted PKCS#8 that openssl reads, one file a key.
//! - `encryption`: how these files are encrypted.
//! - `memory`: keys in memory, made and opened.
//! - [`pkcs11`]: keys in a PKCS#11 token, which signs by itself and does not give them away.
//!
//! A key is named by its label. One in the token is `pkcs11:LABEL`, which no key file can be called; so whoever keeps a label
//! keeps where the key is with it.

mod encryption;
pub mod files;
mod memory;
pub mod pkcs11;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use der::{Decode as _, Encode as _};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::encryption::decrypt;
use self::files::Files;
use self::pkcs11::{Token, TokenError};
use super::PkiError;
pub(crate) use memory::generate;
pub use memory::signer;

/// What the label of a key in the token begins with.
const IN_TOKEN: &str = "pkcs11:";

/// A key's algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// ECDSA on P-384 with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA with SHA-256; in requests of legacy fleets only, never for our own keys.
    Rsa,
}

impl std::fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        })
    }
}

/// A private key that signs: a file's, or a PKCS#11 token's. Implementations' `Debug` tells the public key alone.
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// The key's algorithm.
    fn algorithm(&self) -> KeyAlgorithm;
    /// `SubjectPublicKeyInfo` in DER.
    fn public_key(&self) -> &[u8];
    /// The signature over `message`, as X.509 carries it (ECDSA: DER).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError>;
    /// Whether [`Self::sign`] waits for something other than this processor. Such a key is used where nobody else is held up.
    fn waits(&self) -> bool {
        false
    }
}

/// Where a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Home {
    /// In an encrypted file.
    #[default]
    Files,
    /// In the PKCS#11 token.
    Token,
}

/// How a new authority's key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    /// Where.
    pub home: Home,
    /// Of which algorithm; None: the first that the authority's profile names.
    pub algorithm: Option<KeyAlgorithm>,
}

/// How new authorities' keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choices {
    /// The root's.
    pub root: Choice,
    /// All others'.
    pub authorities: Choice,
}

/// Where keys live: files, and a token where there is one.
#[derive(Debug)]
pub struct Keys {
    files: Files,
    token: Option<Token>,
    choices: Choices,
}

impl Keys {
    /// Keys in files in `directory`, which is created with mode 0700 where it is not there.
    ///
    /// # Errors
    /// [`PkiError::KeyFile`].
    pub fn open(directory: &Path, passphrase: SecretString) -> Result<Self, PkiError> {
        Ok(Self { files: Files::open(directory, passphrase)?, token: None, choices: Choices::default() })
    }

    /// The same with a token, and with these choices for new keys of authorities.
    #[must_use]
    pub fn with(self, token: Option<Token>, choices: Choices) -> Self {
        Self { token, choices, ..self }
    }

    /// How a new authority's key is made.
    pub const fn choice(&self, is_root: bool) -> Choice {
        if is_root { self.choices.root } else { self.choices.authorities }
    }

    /// The label of a key that is to live there.
    pub fn label(home: Home, name: &str) -> String {
        match home {
            Home::Files => name.to_owned(),
            Home::Token => format!("{IN_TOKEN}{name}"),
        }
    }

    /// The label without what says where the key lives: what a token calls it.
    pub fn name(label: &str) -> &str {
        label.strip_prefix(IN_TOKEN).unwrap_or(label)
    }

    /// Where the key of this label lives.
    pub fn home(label: &str) -> Home {
        if label.starts_with(IN_TOKEN) { Home::Token } else { Home::Files }
    }

    /// The token, where there is one.
    pub const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The file that the key of this label is in; None for one in the token.
    pub fn file(&self, label: &str) -> Option<PathBuf> {
        self.files.path(label).ok()
    }

    /// Makes a key where its label says, durably, and returns its signer. Refuses to overwrite. It blocks: for the cost of the
    /// file's encryption, or for the token.
    ///
    /// # Errors
    /// [`PkiError::KeyLabel`], [`PkiError::KeyExists`], [`PkiError::KeyFile`]; RSA is [`PkiError::Encoding`];
    /// [`PkiError::Token`].
    pub fn create(&self, label: &str, algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, PkiError> {
        match label.strip_prefix(IN_TOKEN) {
            Some(name) => self.token_for(label)?.create(checked(name)?, algorithm),
            None => self.files.create(label, algorithm),
        }
    }

    /// Opens a key. It blocks as [`Self::create`] does.
    ///
    /// # Errors
    /// [`PkiError::KeyLabel`], [`PkiError::KeyMissing`], [`PkiError::KeyPermissions`], [`PkiError::WrongPassphrase`],
    /// [`PkiError::DamagedKey`], [`PkiError::KeyFile`], [`PkiError::Token`].
    pub fn load(&self, label: &str) -> Result<Arc<dyn Signer>, PkiError> {
        match label.strip_prefix(IN_TOKEN) {
            Some(name) => self.token_for(label)?.load(checked(name)?),
            None => self.files.load(label),
        }
    }

    /// Opens a key file that is not in its place: `text` is what it holds, `path` where it belongs, for errors.
    ///
    /// # Errors
    /// [`PkiError::WrongPassphrase`], [`PkiError::DamagedKey`].
    pub fn of_file(path: &Path, text: &[u8], passphrase: &SecretString) -> Result<Arc<dyn Signer>, PkiError> {
        signer(&decrypt(path, text, passphrase)?).ok_or_else(|| PkiError::DamagedKey(path.to_owned()))
    }

    /// Opens the key that a certificate is for. One in a token that is not there now is taken as certified: the token is looked at
    /// before it signs for the first time, and until then it refuses.
    ///
    /// # Errors
    /// As [`Self::load`], but for a token that is not there; [`PkiError::Certificate`] for a certificate that cannot be read.
    pub fn load_for(&self, label: &str, certificate: &[u8]) -> Result<Arc<dyn Signer>, PkiError> {
        match (self.load(label), &self.token) {
            (Err(PkiError::Token(error)), Some(token)) if error.is_absence() => {
                let unreadable = |error: der::Error| PkiError::Certificate(error.to_string());
                let certificate = x509_cert::Certificate::from_der(certificate).map_err(unreadable)?;
                let public_key = certificate.tbs_certificate.subject_public_key_info.to_der().map_err(unreadable)?;
                token.expect(Self::name(label), &public_key)
            }
            (loaded, _) => loaded,
        }
    }

    /// The decrypted PKCS#8 of a key in a file: for keys that must be handed to a library (TLS, the ledger's Ed25519).
    /// Ed25519 keys are of version 1 (RFC 8410 7), which ring opens with `from_pkcs8_maybe_unchecked`.
    ///
    /// # Errors
    /// As [`Self::load`]; [`PkiError::Token`] for one in the token, which never leaves it.
    pub fn load_pkcs8(&self, label: &str) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        match Self::home(label) {
            Home::Files => self.files.load_pkcs8(label),
            Home::Token => Err(TokenError::NotExportable(label.to_owned()).into()),
        }
    }

    /// Removes the file of a key that nothing uses any more. One that is not there is no error. A key in the token stays: it
    /// is destroyed with the token's own tools.
    ///
    /// # Errors
    /// [`PkiError::KeyFile`].
    pub fn remove(&self, label: &str) -> Result<(), PkiError> {
        match Self::home(label) {
            Home::Files => self.files.remove(label),
            Home::Token => Ok(()),
        }
    }

    /// Whether there is a key of this label. A token that cannot be asked has none.
    pub fn contains(&self, label: &str) -> bool {
        match (label.strip_prefix(IN_TOKEN), &self.token) {
            (Some(name), Some(token)) => token.contains(name).unwrap_or(false),
            (Some(_), None) => false,
            (None, _) => self.files.contains(label),
        }
    }

    fn token_for(&self, label: &str) -> Result<&Token, PkiError> {
        self.token.as_ref().ok_or_else(|| TokenError::NotConfigured(label.to_owned()).into())
    }
}

/// 1 to 64 of `[a-z0-9-]`.
fn checked(name: &str) -> Result<&str, PkiError> {
    let fits = |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Err(PkiError::KeyLabel(name.chars().take(64).collect()));
    }
    Ok(name)
}
