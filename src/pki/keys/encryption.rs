//! Encrypted PKCS#8 (RFC 5958) by PBES2 with scrypt (RFC 7914), as openssl reads it.

use std::path::Path;

use der::Encode;
use der::pem::{LineEnding, PemLabel};
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::{self, EncryptionScheme};
use pkcs8::{EncryptedPrivateKeyInfo, PrivateKeyInfo};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::pki::PkiError;

/// scrypt's cost of the files that we write: N = 2^14, r = 8, p = 1, 16 MiB of memory.
const SCRYPT_LOG_N: u8 = 14;
/// The largest scrypt N that a file may ask for: 1 GiB of memory with r = 8.
const MAX_SCRYPT_N: u64 = 1 << 20;
/// The largest PBKDF2 count that a file may ask for.
const MAX_PBKDF2_ITERATIONS: u32 = 10_000_000;

/// PKCS#8 in DER, as encrypted PEM.
pub(super) fn encrypt(pkcs8: &[u8], passphrase: &SecretString, random: &SystemRandom) -> Result<Zeroizing<String>, PkiError> {
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

/// A changed ciphertext and a wrong passphrase look alike (CBC has no checksum); both are `WrongPassphrase`. What is
/// damaged around the ciphertext is `DamagedKey`.
pub(super) fn decrypt(path: &Path, text: &[u8], passphrase: &SecretString) -> Result<Zeroizing<Vec<u8>>, PkiError> {
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
