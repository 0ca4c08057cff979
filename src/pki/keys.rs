//! Private keys: encrypted PKCS#8 at rest, a [`Signer`] in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::PkiError;

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

/// A private key that signs: a file's, or later a PKCS#11 token's. Implementations' `Debug` tells the public key alone.
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// The key's algorithm.
    fn algorithm(&self) -> KeyAlgorithm;
    /// `SubjectPublicKeyInfo` in DER.
    fn public_key(&self) -> &[u8];
    /// The signature over `message`, as X.509 carries it (ECDSA: DER).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError>;
}

/// The directory of encrypted key files: `LABEL.key.pem`, mode 0600, PBES2 with scrypt, readable by openssl.
pub struct KeyFiles {
    directory: PathBuf,
    passphrase: SecretString,
}

impl KeyFiles {
    /// Keys in `directory`, which is created with mode 0700 where it is not there.
    pub fn open(_directory: &Path, _passphrase: SecretString) -> Result<Self, PkiError> {
        todo!()
    }

    /// Makes a key, writes it durably (temporary file, fsync, rename, fsync of the directory), and returns its signer.
    /// Refuses to overwrite.
    pub fn create(&self, _label: &str, _algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, PkiError> {
        todo!()
    }

    /// Opens a key.
    pub fn load(&self, _label: &str) -> Result<Arc<dyn Signer>, PkiError> {
        todo!()
    }

    /// The decrypted PKCS#8 of a key: for keys that must be handed to a library (TLS, the ledger's Ed25519).
    pub fn load_pkcs8(&self, _label: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, PkiError> {
        todo!()
    }

    /// Whether there is a key of this label.
    pub fn contains(&self, label: &str) -> bool {
        let _ = &self.passphrase;
        self.directory.join(format!("{label}.key.pem")).exists()
    }
}
