//! Secrets that the server must read again: encrypted in the store, under a key that lies with the other keys.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{Error, Result};
use crate::pki::keys::{KeyAlgorithm, Keys};
use fleetmark_domain::Refusal;

/// The label of the key file from which the others are derived. Its key signs nothing.
const LABEL: &str = "secrets";

/// Encrypts what the store keeps, and signs questions whose answers come back later.
pub struct Secrets {
    sealing: LessSafeKey,
    questions: hmac::Key,
}

impl Secrets {
    /// Derives the keys from the key file, which is made where it is not there.
    pub fn open(keys: &Keys) -> Result<Self> {
        let unavailable = |cause| Error::caused(Refusal::AuthorityUnavailable, cause);
        let master = match keys.load_pkcs8(LABEL) {
            Ok(master) => master,
            Err(crate::pki::PkiError::KeyMissing(_)) => {
                keys.create(LABEL, KeyAlgorithm::Ed25519).map_err(unavailable)?;
                keys.load_pkcs8(LABEL).map_err(unavailable)?
            }
            Err(error) => return Err(unavailable(error)),
        };
        let master = hmac::Key::new(hmac::HMAC_SHA256, &master);
        let sealing = Zeroizing::new(hmac::sign(&master, b"fleetmark: secrets in the store").as_ref().to_vec());
        let questions = Zeroizing::new(hmac::sign(&master, b"fleetmark: questions").as_ref().to_vec());
        let sealing = UnboundKey::new(&AES_256_GCM, &sealing).map_err(|_| Refusal::AuthorityUnavailable)?;
        Ok(Self { sealing: LessSafeKey::new(sealing), questions: hmac::Key::new(hmac::HMAC_SHA256, &questions) })
    }

    /// Encrypts (AES-256-GCM, RFC 5116, under a random nonce). `place` says what it is for; it opens for that alone.
    pub fn seal(&self, random: &SystemRandom, place: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce).map_err(|_| Refusal::AuthorityUnavailable)?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(place.as_bytes());
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| Refusal::AuthorityUnavailable)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Decrypts what [`Self::seal`] gave.
    ///
    /// # Errors
    /// `StorageDamaged` for anything else.
    pub fn unseal(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let damaged = || Error::caused(Refusal::StorageDamaged, format!("the secret of {place} cannot be decrypted"));
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.sealing.open_in_place(nonce, Aad::from(place.as_bytes()), &mut plain).map_err(|_| damaged())?.len();
        plain.truncate(length);
        Ok(plain)
    }

    /// The key under which questions are signed that the server does not keep.
    pub const fn questions(&self) -> &hmac::Key {
        &self.questions
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_where_it_belongs_alone() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path(), "passphrase".to_owned().into()).unwrap();
        let (secrets, random) = (Secrets::open(&keys).unwrap(), SystemRandom::new());
        let sealed = secrets.seal(&random, "group 7", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(**secrets.unseal("group 7", &sealed).unwrap(), *b"secret");
        assert_eq!(**Secrets::open(&keys).unwrap().unseal("group 7", &sealed).unwrap(), *b"secret");
        assert!(secrets.unseal("group 8", &sealed).is_err());
        for length in 0..sealed.len() {
            assert!(secrets.unseal("group 7", &sealed[..length]).is_err(), "{length}");
        }
        let mut changed = sealed;
        changed[14] ^= 1;
        assert!(secrets.unseal("group 7", &changed).is_err());
    }
}
