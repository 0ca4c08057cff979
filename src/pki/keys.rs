//! Private keys: encrypted PKCS#8 at rest, a [`Signer`] in memory.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use der::Encode;
use der::pem::{LineEnding, PemLabel};
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::{self, EncryptionScheme};
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{PkiError, encoding};

/// The largest key file that is read, in octets.
const MAX_KEY_FILE: u64 = 16 * 1024;
/// scrypt's cost of the files that we write: N = 2^14, r = 8, p = 1, 16 MiB of memory.
const SCRYPT_LOG_N: u8 = 14;
/// The largest scrypt N that a file may ask for: 1 GiB of memory with r = 8.
const MAX_SCRYPT_N: u64 = 1 << 20;
/// The largest PBKDF2 count that a file may ask for.
const MAX_PBKDF2_ITERATIONS: u32 = 10_000_000;

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
/// A label is 1 to 64 of `[a-z0-9-]`.
pub struct KeyFiles {
    directory: PathBuf,
    passphrase: SecretString,
}

impl std::fmt::Debug for KeyFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFiles").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl KeyFiles {
    /// Keys in `directory`, which is created with mode 0700 where it is not there.
    pub fn open(directory: &Path, passphrase: SecretString) -> Result<Self, PkiError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file_error(directory))?;
        Ok(Self { directory: directory.to_owned(), passphrase })
    }

    /// Makes a key, writes it durably (temporary file, fsync, rename, fsync of the directory), and returns its signer.
    /// Refuses to overwrite.
    ///
    /// # Errors
    /// [`PkiError::KeyLabel`], [`PkiError::KeyExists`], [`PkiError::KeyFile`]; RSA is [`PkiError::Encoding`].
    pub fn create(&self, label: &str, algorithm: KeyAlgorithm) -> Result<Arc<dyn Signer>, PkiError> {
        let path = self.path(label)?;
        if path.exists() {
            return Err(PkiError::KeyExists(path));
        }
        let random = SystemRandom::new();
        let pkcs8 = generate(algorithm, &random)?;
        let signer = signer(&pkcs8).ok_or_else(|| PkiError::DamagedKey(path.clone()))?;
        let text = encrypt(&pkcs8, &self.passphrase, &random)?;
        self.write(&path, text.as_bytes())?;
        Ok(signer)
    }

    /// Opens a key.
    ///
    /// # Errors
    /// [`PkiError::KeyLabel`], [`PkiError::KeyMissing`], [`PkiError::KeyPermissions`], [`PkiError::WrongPassphrase`],
    /// [`PkiError::DamagedKey`], [`PkiError::KeyFile`].
    pub fn load(&self, label: &str) -> Result<Arc<dyn Signer>, PkiError> {
        let pkcs8 = self.load_pkcs8(label)?;
        signer(&pkcs8).ok_or(PkiError::DamagedKey(self.path(label)?))
    }

    /// The decrypted PKCS#8 of a key: for keys that must be handed to a library (TLS, the ledger's Ed25519).
    /// Ed25519 keys are of version 1 (RFC 8410 7), which ring opens with `from_pkcs8_maybe_unchecked`.
    pub fn load_pkcs8(&self, label: &str) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let path = self.path(label)?;
        decrypt(&path, &read(&path)?, &self.passphrase)
    }

    /// Removes a key that nothing uses any more. One that is not there is no error.
    ///
    /// # Errors
    /// [`PkiError::KeyFile`].
    pub fn remove(&self, label: &str) -> Result<(), PkiError> {
        let path = self.path(label)?;
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(PkiError::KeyFile { path, source }),
            _ => Ok(()),
        }
    }

    /// Whether there is a key of this label.
    pub fn contains(&self, label: &str) -> bool {
        self.path(label).is_ok_and(|path| path.exists())
    }

    fn path(&self, label: &str) -> Result<PathBuf, PkiError> {
        let fits = |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'-';
        if label.is_empty() || label.len() > 64 || !label.bytes().all(fits) {
            return Err(PkiError::KeyLabel(label.chars().take(64).collect()));
        }
        Ok(self.directory.join(format!("{label}.key.pem")))
    }

    fn write(&self, path: &Path, text: &[u8]) -> Result<(), PkiError> {
        // The temporary file has mode 0600 from its first octet.
        let mut file = tempfile::Builder::new().prefix(".key-").tempfile_in(&self.directory).map_err(file_error(path))?;
        file.write_all(text).and_then(|()| file.as_file().sync_all()).map_err(file_error(path))?;
        file.persist_noclobber(path).map_err(|failed| match failed.error.kind() {
            std::io::ErrorKind::AlreadyExists => PkiError::KeyExists(path.to_owned()),
            _ => file_error(path)(failed.error),
        })?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(file_error(&self.directory))
    }
}

/// A signer of a PKCS#8 key in memory; None for one of an algorithm that we do not sign with, or a broken one.
pub fn signer(pkcs8: &[u8]) -> Option<Arc<dyn Signer>> {
    let random = SystemRandom::new();
    let (algorithm, key) = match algorithm_of(pkcs8)? {
        KeyAlgorithm::P256 => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).ok()?;
            (KeyAlgorithm::P256, SecretKey::Ecdsa(key))
        }
        KeyAlgorithm::P384 => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8, &random).ok()?;
            (KeyAlgorithm::P384, SecretKey::Ecdsa(key))
        }
        KeyAlgorithm::Ed25519 => {
            (KeyAlgorithm::Ed25519, SecretKey::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?))
        }
        KeyAlgorithm::Rsa => return None,
    };
    let public_key = encoding::public_key_info(algorithm, key.public())?;
    Some(Arc::new(MemorySigner { algorithm, key, public_key, random }))
}

enum SecretKey {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SecretKey {
    fn public(&self) -> &[u8] {
        match self {
            Self::Ecdsa(key) => key.public_key().as_ref(),
            Self::Ed25519(key) => key.public_key().as_ref(),
        }
    }
}

struct MemorySigner {
    algorithm: KeyAlgorithm,
    key: SecretKey,
    public_key: Vec<u8>,
    random: SystemRandom,
}

impl std::fmt::Debug for MemorySigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("algorithm", &self.algorithm)
            .field("public_key", &hex::encode(&self.public_key))
            .finish_non_exhaustive()
    }
}

impl Signer for MemorySigner {
    fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        match &self.key {
            SecretKey::Ecdsa(key) => {
                key.sign(&self.random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| PkiError::Signing)
            }
            SecretKey::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> PkiError + '_ {
    |source| PkiError::KeyFile { path: path.to_owned(), source }
}

/// A new key as PKCS#8, in memory alone.
pub(crate) fn generate(algorithm: KeyAlgorithm, random: &SystemRandom) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    let ecdsa = |curve| {
        EcdsaKeyPair::generate_pkcs8(curve, random)
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| PkiError::Signing)
    };
    match algorithm {
        KeyAlgorithm::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyAlgorithm::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyAlgorithm::Ed25519 => {
            // RFC 8410 7, version 1: OpenSSL 3.0 does not read the version 2 that ring generates.
            const HEAD: [u8; 16] =
                [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
            let mut seed = Zeroizing::new([0; 32]);
            random.fill(seed.as_mut()).map_err(|_| PkiError::Signing)?;
            let mut pkcs8 = Zeroizing::new(Vec::with_capacity(HEAD.len() + seed.len()));
            pkcs8.extend_from_slice(&HEAD);
            pkcs8.extend_from_slice(seed.as_ref());
            Ok(pkcs8)
        }
        KeyAlgorithm::Rsa => Err(PkiError::Encoding("RSA keys are not made here".to_owned())),
    }
}

fn algorithm_of(pkcs8: &[u8]) -> Option<KeyAlgorithm> {
    let key = PrivateKeyInfo::try_from(pkcs8).ok()?;
    encoding::key_algorithm(&key.algorithm)
}

fn encrypt(pkcs8: &[u8], passphrase: &SecretString, random: &SystemRandom) -> Result<Zeroizing<String>, PkiError> {
    let failed = |_| PkiError::Encoding("the key could not be encrypted".to_owned());
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    random.fill(&mut salt).and_then(|()| random.fill(&mut iv)).map_err(|_| PkiError::Signing)?;
    let cost = scrypt::Params::new(SCRYPT_LOG_N, 8, 1, 32).map_err(|_| PkiError::Encoding("scrypt".to_owned()))?;
    let parameters = Parameters::scrypt_aes256cbc(cost, &salt, &iv).map_err(failed)?;
    let encrypted_data = parameters.encrypt(passphrase.expose_secret(), pkcs8).map_err(failed)?;
    let info = EncryptedPrivateKeyInfo { encryption_algorithm: parameters.into(), encrypted_data: &encrypted_data };
    let der = info.to_der().map_err(|error| PkiError::Encoding(error.to_string()))?;
    der::pem::encode_string(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF, &der)
        .map(Zeroizing::new)
        .map_err(|error| PkiError::Encoding(error.to_string()))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => PkiError::KeyMissing(path.to_owned()),
        _ => file_error(path)(error),
    })?;
    let metadata = file.metadata().map_err(file_error(path))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(PkiError::KeyPermissions(path.to_owned()));
    }
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE {
        return Err(PkiError::DamagedKey(path.to_owned()));
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(MAX_KEY_FILE).read_to_end(&mut text).map_err(file_error(path))?;
    Ok(text)
}

/// A changed ciphertext and a wrong passphrase look alike (CBC has no checksum); both are `WrongPassphrase`. What is
/// damaged around the ciphertext is `DamagedKey`.
fn decrypt(path: &Path, text: &[u8], passphrase: &SecretString) -> Result<Zeroizing<Vec<u8>>, PkiError> {
    let damaged = || PkiError::DamagedKey(path.to_owned());
    let (label, der) = der::pem::decode_vec(text).map_err(|_| damaged())?;
    if label != EncryptedPrivateKeyInfo::PEM_LABEL {
        return Err(damaged());
    }
    let info = EncryptedPrivateKeyInfo::try_from(der.as_slice()).map_err(|_| damaged())?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else { return Err(damaged()) };
    let affordable = match &parameters.kdf {
        Kdf::Scrypt(scrypt) => scrypt.cost_parameter <= MAX_SCRYPT_N && scrypt.block_size <= 16 && scrypt.parallelization <= 16,
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= MAX_PBKDF2_ITERATIONS,
        _ => false,
    };
    if !affordable || info.encrypted_data.is_empty() || info.encrypted_data.len() % 16 != 0 {
        return Err(damaged());
    }
    let wrong = |_: pkcs5::Error| PkiError::WrongPassphrase(path.to_owned());
    let pkcs8 = Zeroizing::new(parameters.decrypt(passphrase.expose_secret(), info.encrypted_data).map_err(wrong)?);
    // One wrong passphrase in 256 leaves a padding that looks right; what it uncovers is no PKCS#8.
    PrivateKeyInfo::try_from(pkcs8.as_slice()).map_err(|_| PkiError::WrongPassphrase(path.to_owned()))?;
    Ok(pkcs8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::openssl;
    use std::os::unix::fs::PermissionsExt;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn openssl_reads_what_we_write_and_finds_the_same_public_key() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyFiles::open(&directory.path().join("keys"), secret("correct horse")).unwrap();
        for (label, algorithm) in
            [("a", KeyAlgorithm::P256), ("b", KeyAlgorithm::P384), ("device-authority-1", KeyAlgorithm::Ed25519)]
        {
            let made = keys.create(label, algorithm).unwrap();
            let path = directory.path().join(format!("keys/{label}.key.pem"));
            let path = path.to_str().unwrap();
            let public =
                openssl(&["pkey", "-in", path, "-passin", "pass:correct horse", "-pubout", "-outform", "DER"], b"").unwrap();
            assert_eq!(public, made.public_key(), "{label}");
            assert!(openssl(&["pkey", "-in", path, "-passin", "pass:other", "-noout"], b"").is_err());

            let opened = keys.load(label).unwrap();
            assert_eq!(opened.public_key(), made.public_key());
            assert_eq!(opened.algorithm(), algorithm);
            verifies(&*opened, algorithm);
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let left: Vec<_> = std::fs::read_dir(directory.path().join("keys")).unwrap().collect();
        assert_eq!(left.len(), 3, "no temporary file stays");
        assert_eq!(std::fs::metadata(directory.path().join("keys")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    fn verifies(signer: &dyn Signer, algorithm: KeyAlgorithm) {
        let info = spki::SubjectPublicKeyInfoRef::try_from(signer.public_key()).unwrap();
        let verification: &dyn ring::signature::VerificationAlgorithm = match algorithm {
            KeyAlgorithm::P256 => &ring::signature::ECDSA_P256_SHA256_ASN1,
            KeyAlgorithm::P384 => &ring::signature::ECDSA_P384_SHA384_ASN1,
            _ => &ring::signature::ED25519,
        };
        let key = ring::signature::UnparsedPublicKey::new(verification, info.subject_public_key.raw_bytes());
        key.verify(b"message", &signer.sign(b"message").unwrap()).unwrap();
        assert!(key.verify(b"other", &signer.sign(b"message").unwrap()).is_err());
    }

    #[test]
    fn keys_made_by_openssl_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyFiles::open(directory.path(), secret("pass")).unwrap();
        for (label, options) in
            [("ec", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..]), ("ed", &["-algorithm", "ED25519"][..])]
        {
            let path = directory.path().join(format!("{label}.key.pem"));
            let mut arguments = vec!["genpkey", "-aes-256-cbc", "-pass", "pass:pass", "-out", path.to_str().unwrap()];
            arguments.extend_from_slice(options);
            openssl(&arguments, b"").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            keys.load(label).unwrap().sign(b"x").unwrap();
        }
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyFiles::open(directory.path(), secret("right")).unwrap();
        keys.create("one", KeyAlgorithm::P256).unwrap();
        assert!(keys.contains("one") && !keys.contains("two") && !keys.contains("../one"));
        assert!(matches!(keys.create("one", KeyAlgorithm::P256), Err(PkiError::KeyExists(_))));
        assert!(matches!(keys.load("two"), Err(PkiError::KeyMissing(_))));
        for label in ["", "A", "a/b", "..", "a.b", "a b", &"a".repeat(65)] {
            assert!(matches!(keys.load(label), Err(PkiError::KeyLabel(_))), "{label}");
        }
        let other = KeyFiles::open(directory.path(), secret("wrong")).unwrap();
        assert!(matches!(other.load("one"), Err(PkiError::WrongPassphrase(_))));

        let path = directory.path().join("one.key.pem");
        let good = std::fs::read_to_string(&path).unwrap();
        let empty = String::new();
        let cut = good.get(..good.len() / 2).unwrap().to_owned();
        let relabelled = good.replace("ENCRYPTED PRIVATE", "PRIVATE");
        let long = "x".repeat(20_000);
        for damaged in [&empty, &cut, &relabelled, &long] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(keys.load("one"), Err(PkiError::DamagedKey(_))));
        }
        std::fs::write(&path, &good).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keys.load("one"), Err(PkiError::KeyPermissions(_))));
    }

    #[test]
    fn debug_tells_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyFiles::open(directory.path(), secret("the passphrase")).unwrap();
        let signer = keys.create("one", KeyAlgorithm::Ed25519).unwrap();
        let seed = hex::encode(keys.load_pkcs8("one").unwrap().get(16..).unwrap());
        assert!(!format!("{keys:?}{signer:?}").contains("passphrase"));
        assert!(!format!("{signer:?}").contains(&seed));
    }
}
