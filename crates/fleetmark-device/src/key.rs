//! The device's key: made here, kept here.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

use fleetmark_domain::{KeyHash, Name};

use crate::error::Error;
use crate::trust::sha256;

/// A P-256 key pair. It has no `Clone`, and its `Debug` names the public half alone.
pub struct DeviceKey(KeyPair);

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.hash()).finish()
    }
}

impl Drop for DeviceKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn crypto(error: &rcgen::Error) -> Error {
    Error::Crypto(error.to_string())
}

impl DeviceKey {
    /// Makes a new key from the operating system's randomness.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(|error| crypto(&error))
    }

    /// Reads the key from PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        KeyPair::from_pem(pem).map(Self).map_err(|error| crypto(&error))
    }

    /// The key as PKCS#8 PEM, erased from memory when dropped.
    pub fn expose_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The key for rustls.
    pub(crate) fn expose_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// The public key, as a `SubjectPublicKeyInfo` in DER.
    pub fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The hash of the public key.
    pub fn hash(&self) -> KeyHash {
        KeyHash(sha256(&self.public()))
    }

    /// A certificate request (PKCS#10, PEM) for this key. The server takes names from its own record; the common name is
    /// there for those who look at the request.
    pub fn request(&self, name: Option<&Name>) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        let request = params.serialize_request(&self.0).map_err(|error| crypto(&error))?;
        request.pem().map_err(|error| crypto(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn openssl(args: &str, input: &str) -> String {
        let mut child = Command::new("openssl")
            .args(args.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
        let out = child.wait_with_output().expect("openssl");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    #[test]
    fn openssl_reads_the_key_and_the_request() {
        let key = DeviceKey::generate().expect("key");
        let text = openssl("pkey -noout -text", &key.expose_pem());
        assert!(text.contains("prime256v1"), "{text}");
        let name = "sensor-01".parse().expect("name");
        let text = openssl("req -verify -noout -subject", &key.request(Some(&name)).expect("request"));
        assert!(text.contains("verify OK") && text.contains("sensor-01"), "{text}");
        assert_eq!(DeviceKey::from_pem(&key.expose_pem()).expect("read").hash(), key.hash());
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let key = DeviceKey::generate().expect("key");
        assert_eq!(format!("{key:?}"), format!("DeviceKey(KeyHash({}))", key.hash()));
    }
}
