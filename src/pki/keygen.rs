//! Keys made for devices that cannot make their own (RFC 7030 4.4). They are in memory alone: nothing here writes one.

use fleetmark_domain::KeyHash;
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use super::csr::VerifiedCsr;
use super::encoding::{SEQUENCE, signed, tlv};
use super::keys::{KeyAlgorithm, generate, signer};
use super::{PkiError, encoding};

/// `INTEGER 0`, the version of a request (RFC 2986 4.1).
const VERSION: &[u8] = &[0x02, 0x01, 0x00];
/// `[0] { }`: no attributes.
const NO_ATTRIBUTES: &[u8] = &[0xa0, 0x00];

/// A key made for a device, and the request for its certificate. Cleared when it is dropped.
pub struct MadeKey {
    pkcs8: Zeroizing<Vec<u8>>,
    /// The request, which names nobody.
    pub csr: VerifiedCsr,
}

impl std::fmt::Debug for MadeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeKey").field("key_hash", &self.csr.key_hash()).finish_non_exhaustive()
    }
}

impl MadeKey {
    /// Makes a key of the first of these algorithms that is not RSA.
    ///
    /// # Errors
    /// [`PkiError::Encoding`] where there is none; [`PkiError::Signing`] without randomness.
    pub fn new(algorithms: &[KeyAlgorithm]) -> Result<Self, PkiError> {
        let makeable = algorithms.iter().find(|algorithm| **algorithm != KeyAlgorithm::Rsa);
        let algorithm = *makeable.ok_or_else(|| PkiError::Encoding("RSA keys are not made here".to_owned()))?;
        let pkcs8 = generate(algorithm, &SystemRandom::new())?;
        let key = signer(&pkcs8).ok_or(PkiError::Signing)?;
        let info = tlv(SEQUENCE, &[VERSION, &tlv(SEQUENCE, &[]), key.public_key(), NO_ATTRIBUTES]);
        let request = signed(&info, algorithm, &key.sign(&info)?);
        let csr = VerifiedCsr::from_der(&request).map_err(|refusal| PkiError::Encoding(refusal.code().to_owned()))?;
        Ok(Self { pkcs8, csr })
    }

    /// The private key, PKCS#8 in DER (RFC 5958; Ed25519: RFC 8410 7, version 1).
    pub fn expose_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// By what a request for a key is known again: SHA-256 over these parts, each with its length, under a name of its own, so that it
/// is no key's hash.
pub fn digest(parts: &[&[u8]]) -> KeyHash {
    let mut octets = b"fleetmark serverkeygen".to_vec();
    for part in parts {
        octets.extend_from_slice(&part.len().to_be_bytes());
        octets.extend_from_slice(part);
    }
    KeyHash(encoding::sha256(&octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::openssl;

    #[test]
    fn openssl_takes_the_key_for_that_of_the_request() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            let made = MadeKey::new(&[KeyAlgorithm::Rsa, algorithm]).unwrap();
            assert_eq!(made.csr.algorithm(), algorithm);
            let public = openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], made.expose_pkcs8()).unwrap();
            assert_eq!(public, made.csr.spki());
            openssl(&["req", "-inform", "DER", "-verify", "-noout"], made.csr.der()).unwrap();
            let told = format!("{made:?}");
            assert!(!told.contains(&hex::encode(&made.expose_pkcs8()[20..40])), "{told}");
        }
        assert!(MadeKey::new(&[KeyAlgorithm::Rsa]).is_err());
        let (one, other) = (MadeKey::new(&[KeyAlgorithm::P256]).unwrap(), MadeKey::new(&[KeyAlgorithm::P256]).unwrap());
        assert_ne!(one.csr.key_hash(), other.csr.key_hash());
        assert_ne!(digest(&[one.csr.spki()]), digest(&[other.csr.spki()]));
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }
}
