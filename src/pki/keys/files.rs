//! Keys in files: encrypted PKCS#8, one file a key.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::SystemRandom;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::encryption::{decrypt, encrypt};
use super::memory::{generate, signer};
use super::{KeyAlgorithm, Signer};
use crate::pki::PkiError;

/// The largest key file that is read, in octets.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// The directory of encrypted key files: `LABEL.key.pem`, mode 0600, PBES2 with scrypt, readable by openssl.
/// A label is 1 to 64 of `[a-z0-9-]`.
pub struct Files {
    directory: PathBuf,
    passphrase: SecretString,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Files {
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

    /// The file of the key of this label, there or not.
    pub(super) fn path(&self, label: &str) -> Result<PathBuf, PkiError> {
        Ok(self.directory.join(format!("{}.key.pem", super::checked(label)?)))
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

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> PkiError + '_ {
    |source| PkiError::KeyFile { path: path.to_owned(), source }
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
        let keys = Files::open(&directory.path().join("keys"), secret("correct horse")).unwrap();
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
        let keys = Files::open(directory.path(), secret("pass")).unwrap();
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
        let keys = Files::open(directory.path(), secret("right")).unwrap();
        keys.create("one", KeyAlgorithm::P256).unwrap();
        assert!(keys.contains("one") && !keys.contains("two") && !keys.contains("../one"));
        assert!(matches!(keys.create("one", KeyAlgorithm::P256), Err(PkiError::KeyExists(_))));
        assert!(matches!(keys.load("two"), Err(PkiError::KeyMissing(_))));
        for label in ["", "A", "a/b", "..", "a.b", "a b", &"a".repeat(65)] {
            assert!(matches!(keys.load(label), Err(PkiError::KeyLabel(_))), "{label}");
        }
        let other = Files::open(directory.path(), secret("wrong")).unwrap();
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
        let keys = Files::open(directory.path(), secret("the passphrase")).unwrap();
        let signer = keys.create("one", KeyAlgorithm::Ed25519).unwrap();
        let seed = hex::encode(keys.load_pkcs8("one").unwrap().get(16..).unwrap());
        assert!(!format!("{keys:?}{signer:?}").contains("passphrase"));
        assert!(!format!("{signer:?}").contains(&seed));
    }
}
