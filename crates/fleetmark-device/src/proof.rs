//! What a device shows to be allowed to enroll. docs/enrollment has a page for each.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{KeyHash, Name};
use ring::hmac;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::client::Token;
use crate::error::Error;
use crate::http::ClientIdentity;
use crate::trust::certificates_of;

/// A file of a certificate or a key is not larger, in octets.
const MAX_FILE: u64 = 64 * 1024;
/// The label before what a derived key signs.
const DERIVED_LABEL: &[u8] = b"fleetmark derived key v1";

/// A proof. Its `Debug` shows no secret.
#[derive(Debug)]
pub enum Proof {
    /// An enrollment token.
    Token(Token),
    /// A maker's certificate (IEEE 802.1AR IDevID), or a claim certificate.
    Certificate(Presented),
    /// A key that was derived from a group's key and this device's name.
    DerivedKey(DerivedKey),
    /// Nothing: a person is to approve this device.
    Approval {
        /// The enrollment group, where the fleet has several.
        group: Option<Name>,
    },
}

impl From<Token> for Proof {
    fn from(token: Token) -> Self {
        Self::Token(token)
    }
}

/// A certificate to connect with, and its key. The key never gets a certificate of Fleetmark's: the device makes its own.
pub struct Presented {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Presented {
    /// Reads PEM files: the certificate with those that lead to the maker's root behind it, and the private key (PKCS#8,
    /// SEC 1 or PKCS#1).
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Damaged`] for files that hold something else or more than 64 KiB.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = certificates_of(&text_of(certificate)?).map_err(|error| Error::damaged(certificate, &error))?;
        let key = PrivateKeyDer::from_pem_slice(text_of(key)?.as_bytes())
            .map_err(|_| Error::damaged(key, "it holds no private key in PEM that is not encrypted"))?;
        Ok(Self { chain, key })
    }

    pub(crate) fn identity(&self) -> ClientIdentity {
        ClientIdentity { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// HMAC-SHA256 over the device's name under its group's key, made in the factory (docs/enrollment/derived-key.md).
pub struct DerivedKey {
    /// The enrollment group.
    pub group: Name,
    key: hmac::Key,
}

impl std::fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DerivedKey").field("group", &self.group).finish_non_exhaustive()
    }
}

impl DerivedKey {
    /// From 32 octets, in hexadecimal as `fleetmark group derive` writes them, or in base64; white space around them is allowed.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn new(group: Name, text: &str) -> Result<Self, Error> {
        let text = text.trim();
        // 64 hexadecimal digits are 48 octets in base64: neither can be taken for the other.
        let octets = Zeroizing::new(hex::decode(text).or_else(|_| STANDARD.decode(text)).unwrap_or_default());
        if octets.len() != 32 {
            return Err(Error::Usage("a derived key is 32 octets in hexadecimal or base64".to_owned()));
        }
        Ok(Self { group, key: hmac::Key::new(hmac::HMAC_SHA256, &octets) })
    }

    /// From a file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Damaged`], [`Error::Usage`].
    pub fn from_file(group: Name, path: &Path) -> Result<Self, Error> {
        Self::new(group, &text_of(path)?)
    }

    /// The answer to the server's question, in base64: it is bound to the question and to the key to be certified.
    pub(crate) fn answer(&self, nonce: &str, key: &KeyHash) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [DERIVED_LABEL, nonce.as_bytes(), key.octets()] {
            context.update(part);
        }
        STANDARD.encode(context.sign())
    }
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, Error> {
    let size = std::fs::metadata(path).map_err(|error| Error::file(path, error))?.len();
    if size > MAX_FILE {
        return Err(Error::damaged(path, "it is larger than 64 KiB"));
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| Error::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_answers_as_written_by_hand() {
        let group = "line-4".parse().expect("name");
        let derived = DerivedKey::new(group, &STANDARD.encode([7; 32])).expect("key");
        let mut message = b"fleetmark derived key v1".to_vec();
        message.extend_from_slice(b"nonce");
        message.extend_from_slice(&[9; 32]);
        let by_hand = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), &message);
        assert_eq!(derived.answer("nonce", &KeyHash([9; 32])), STANDARD.encode(by_hand));
        assert!(!format!("{derived:?}").contains("Key("), "{derived:?}");
        let hexadecimal =
            DerivedKey::new("line-4".parse().expect("name"), &format!("{}\n", hex::encode([7; 32]))).expect("key");
        assert_eq!(hexadecimal.answer("nonce", &KeyHash([9; 32])), derived.answer("nonce", &KeyHash([9; 32])));
        for text in ["", "AAAA", "not base64", &STANDARD.encode([7; 33]), &hex::encode([7; 31])] {
            assert!(DerivedKey::new("g".parse().expect("name"), text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_its_path() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("cert.pem");
        std::fs::write(&path, "nothing").expect("written");
        let error = Presented::from_files(&path, &path).expect_err("no certificate");
        assert!(error.to_string().contains("cert.pem"), "{error}");
        assert!(Presented::from_files(&directory.path().join("none"), &path).is_err());
        std::fs::write(&path, "x".repeat(65_537)).expect("written");
        assert!(Presented::from_files(&path, &path).expect_err("too large").to_string().contains("64 KiB"));
    }
}
