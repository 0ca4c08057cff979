//! Keys in memory: made, and opened from PKCS#8.

use std::sync::Arc;

use pkcs8::PrivateKeyInfo;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::{KeyAlgorithm, Signer};
use crate::pki::{PkiError, encoding};

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
