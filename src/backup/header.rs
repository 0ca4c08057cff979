//! The header: how the passphrase becomes the keys.

use std::io::{self, Read};

use ring::hmac;
use ring::rand::SecureRandom;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::BackupError;

const MAGIC: &[u8; 8] = b"FMBACKUP";
const VERSION: u8 = 1;

/// Octets before the check.
const COVERED: usize = 8 + 1 + 1 + 4 + 4 + 32 + 7;

/// Octets in all.
pub(super) const LENGTH: usize = COVERED + 32;

/// scrypt's cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub log_n: u8,
    pub r: u32,
    pub p: u32,
}

impl Cost {
    /// N = 2^17, r = 8, p = 1: 128 MiB and a few tenths of a second.
    pub(super) const OURS: Self = Self { log_n: 17, r: 8, p: 1 };

    /// A file may ask for at most 1 GiB.
    const fn is_bearable(self) -> bool {
        self.log_n >= 1 && self.log_n <= 20 && self.r >= 1 && self.r <= 8 && self.p >= 1 && self.p <= 4
    }
}

/// A header with the key that it leads to. No `Debug`: it holds the key.
pub(super) struct Header {
    /// As it is written: the chunks' associated data.
    pub octets: [u8; LENGTH],
    /// The STREAM nonce.
    pub nonce: [u8; 7],
    /// The ChaCha20-Poly1305 key.
    pub key: Zeroizing<[u8; 32]>,
}

impl Header {
    /// A new header with fresh salt and nonce.
    pub(super) fn new(passphrase: &SecretString, cost: Cost, random: &dyn SecureRandom) -> Result<Self, BackupError> {
        let mut fresh = [0; 39];
        random.fill(&mut fresh).map_err(|_| BackupError::Random)?;
        let covered = [MAGIC.as_slice(), &[VERSION, cost.log_n], &cost.r.to_be_bytes(), &cost.p.to_be_bytes(), &fresh].concat();
        let (salt, nonce) = fresh.split_at(32);
        let nonce = nonce.try_into().map_err(|_| BackupError::Random)?;
        let keys = Keys::derive(passphrase, salt, cost)?;
        let check = hmac::sign(&keys.check, &covered);
        let octets = [covered.as_slice(), check.as_ref()].concat().try_into().map_err(|_| BackupError::Cost)?;
        Ok(Self { octets, nonce, key: keys.cipher })
    }

    /// Passes over a header, and says whether there was one.
    pub(super) fn skip(input: &mut impl Read) -> Result<bool, BackupError> {
        match read_header(input, &mut [0; LENGTH]) {
            Ok(()) => Ok(true),
            Err(BackupError::NotABackup | BackupError::Truncated) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a header and derives the key.
    pub(super) fn read(input: &mut impl Read, passphrase: &SecretString) -> Result<Self, BackupError> {
        let mut octets = [0; LENGTH];
        read_header(input, &mut octets)?;
        let mut rest = octets.as_slice();
        if take::<8>(&mut rest)? != *MAGIC {
            return Err(BackupError::NotABackup);
        }
        let [version, log_n] = take::<2>(&mut rest)?;
        if version != VERSION {
            return Err(BackupError::Version(version));
        }
        let cost = Cost { log_n, r: u32::from_be_bytes(take(&mut rest)?), p: u32::from_be_bytes(take(&mut rest)?) };
        if !cost.is_bearable() {
            return Err(BackupError::Cost);
        }
        let salt: [u8; 32] = take(&mut rest)?;
        let nonce: [u8; 7] = take(&mut rest)?;
        let keys = Keys::derive(passphrase, &salt, cost)?;
        let (covered, check) = octets.split_at(COVERED);
        hmac::verify(&keys.check, covered, check).map_err(|_| BackupError::WrongPassphrase)?;
        Ok(Self { octets, nonce, key: keys.cipher })
    }
}

struct Keys {
    cipher: Zeroizing<[u8; 32]>,
    check: hmac::Key,
}

impl Keys {
    fn derive(passphrase: &SecretString, salt: &[u8], cost: Cost) -> Result<Self, BackupError> {
        let params = scrypt::Params::new(cost.log_n, cost.r, cost.p, 64).map_err(|_| BackupError::Cost)?;
        let mut derived = Zeroizing::new([0; 64]);
        scrypt::scrypt(passphrase.expose_secret().as_bytes(), salt, &params, derived.as_mut_slice())
            .map_err(|_| BackupError::Cost)?;
        let (cipher, check) = derived.split_at(32);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(cipher);
        Ok(Self { cipher: key, check: hmac::Key::new(hmac::HMAC_SHA256, check) })
    }
}

/// A file that begins like ours and ends is truncated; any other short file is none of ours.
fn read_header(input: &mut impl Read, octets: &mut [u8; LENGTH]) -> Result<(), BackupError> {
    let mut filled = 0;
    while let Some(rest) = octets.get_mut(filled..)
        && !rest.is_empty()
    {
        match input.read(rest) {
            Ok(0) if filled >= MAGIC.len() && octets.starts_with(MAGIC) => return Err(BackupError::Truncated),
            Ok(0) => return Err(BackupError::NotABackup),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BackupError::Stream(error)),
        }
    }
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BackupError> {
    let (first, after) = rest.split_first_chunk::<N>().ok_or(BackupError::NotABackup)?;
    *rest = after;
    Ok(*first)
}
