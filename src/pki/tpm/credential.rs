//! `TPM2_MakeCredential` (Part 1, 24; B.10.4 and C.6.4): a secret that is read by the TPM alone that holds both the endorsement key and a
//! key of this name.

use aes::Aes128;
use cfb_mode::Encryptor;
use cfb_mode::cipher::{AsyncStreamCipher, KeyIvInit};
use p256::ecdh::EphemeralSecret;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rand_core::CryptoRngCore;
use ring::{digest, hmac};
use rsa::{BigUint, Oaep, RsaPublicKey};
use zeroize::Zeroizing;

use super::public::{EndorsementKey, Material};
use super::{CertifiableKey, TpmError};

/// The head of the file that `tpm2_activatecredential` reads: magic, version 1.
const FILE_HEAD: [u8; 8] = [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];

/// The bits of a seed, and of an HMAC key: those of the endorsement key's name algorithm, SHA-256.
const DIGEST_BITS: u32 = 256;

/// Encrypts `secret` for the TPM that holds `endorsement`, under the condition that `key` is in it too. Gives the file that
/// `tpm2_activatecredential` of tpm2-tools reads: a head of 8 octets, `TPM2B_ID_OBJECT`, `TPM2B_ENCRYPTED_SECRET`.
///
/// # Errors
/// [`TpmError::NotEndorsementKey`] where the key cannot encrypt.
pub fn make_credential(
    endorsement: &EndorsementKey,
    key: &CertifiableKey,
    secret: &[u8; 32],
    random: &mut impl CryptoRngCore,
) -> Result<Vec<u8>, TpmError> {
    let (seed, encrypted_seed) = match &endorsement.key {
        Material::Rsa { modulus, exponent } => rsa_seed(modulus, *exponent, random)?,
        Material::Ecc { x, y, .. } => ecc_seed(x, y, random)?,
    };
    let object = id_object(&seed, key.name(), secret);
    let mut file = FILE_HEAD.to_vec();
    put_sized(&mut file, &object);
    put_sized(&mut file, &encrypted_seed);
    Ok(file)
}

/// `TPMS_ID_OBJECT` (Part 2, 12.4.2): an HMAC, then the secret, encrypted (Part 1, 24.4 and 24.5).
fn id_object(seed: &[u8], name: &[u8], secret: &[u8; 32]) -> Vec<u8> {
    let mut identity = Vec::new();
    put_sized(&mut identity, secret);
    let symmetric = kdfa(seed, "STORAGE", name, 128);
    let mut key = Zeroizing::new([0; 16]);
    key.iter_mut().zip(symmetric.iter()).for_each(|(to, from)| *to = *from);
    Encryptor::<Aes128>::new((&*key).into(), &[0; 16].into()).encrypt(&mut identity);
    let integrity = hmac::Key::new(hmac::HMAC_SHA256, &kdfa(seed, "INTEGRITY", &[], DIGEST_BITS));
    let tag = hmac::sign(&integrity, &[&identity, name].concat());
    let mut object = Vec::new();
    put_sized(&mut object, tag.as_ref());
    object.extend_from_slice(&identity);
    object
}

/// A random seed, and the same encrypted by RSAES-OAEP (Part 1, B.10.4). Encryption alone uses the public key alone: the timing of
/// RUSTSEC-2023-0071 is one of private keys.
fn rsa_seed(modulus: &[u8], exponent: u32, random: &mut impl CryptoRngCore) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), TpmError> {
    let unusable = |_| TpmError::NotEndorsementKey("its RSA key cannot be used");
    let mut seed = Zeroizing::new(vec![0; 32]);
    random.fill_bytes(&mut seed);
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(exponent)).map_err(unusable)?;
    let encrypted = key.encrypt(random, Oaep::new_with_label::<sha2::Sha256, _>("IDENTITY\0"), &seed).map_err(unusable)?;
    Ok((seed, encrypted))
}

/// A seed by ECDH with a key for this once, and that key's point (Part 1, C.6.4).
fn ecc_seed(x: &[u8], y: &[u8], random: &mut impl CryptoRngCore) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), TpmError> {
    let unusable = || TpmError::NotEndorsementKey("its point cannot be used");
    let theirs = p256::PublicKey::from_sec1_bytes(&[&[4], x, y].concat()).map_err(|_| unusable())?;
    let own = EphemeralSecret::random(random);
    let point = own.public_key().to_encoded_point(false);
    let (own_x, own_y) = (point.x().ok_or_else(unusable)?, point.y().ok_or_else(unusable)?);
    let shared = own.diffie_hellman(&theirs);
    let seed = kdfe(shared.raw_secret_bytes(), "IDENTITY", own_x, x);
    let mut encoded = Vec::new();
    put_sized(&mut encoded, own_x);
    put_sized(&mut encoded, own_y);
    Ok((seed, encoded))
}

/// `KDFa` (Part 1, 11.4.10.2), with HMAC-SHA256 and for at most its 256 bits, so that there is one round: a counter, the label with its final
/// zero, the context, the bits.
fn kdfa(key: &[u8], label: &str, context: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    let message = [&1_u32.to_be_bytes()[..], label.as_bytes(), &[0], context, &bits.to_be_bytes()].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message);
    Zeroizing::new(tag.as_ref().iter().copied().take(usize::try_from(bits / 8).unwrap_or(0)).collect())
}

/// `KDFe` (Part 1, 11.4.10.3), with SHA-256 and for its 256 bits.
fn kdfe(shared: &[u8], label: &str, own_x: &[u8], their_x: &[u8]) -> Zeroizing<Vec<u8>> {
    let message = Zeroizing::new([&1_u32.to_be_bytes()[..], shared, label.as_bytes(), &[0], own_x, their_x].concat());
    Zeroizing::new(digest::digest(&digest::SHA256, &message).as_ref().to_vec())
}

/// A `TPM2B_` structure. What is written here is shorter than 64 KiB.
fn put_sized(to: &mut Vec<u8>, octets: &[u8]) {
    to.extend_from_slice(&u16::try_from(octets.len()).unwrap_or(u16::MAX).to_be_bytes());
    to.extend_from_slice(octets);
}
