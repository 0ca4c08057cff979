//! Lists of RSA keys that are known to all, in the form of Debian's package openssl-blacklist.
//!
//! Files `blacklist.RSA-*`; lines that begin with `#` are comments; every other line is 20 hexadecimal digits, the last 80 bits of
//! SHA-1 over what `openssl rsa -noout -modulus` prints (openssl-vulnkey(1)).

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use der::Decode as _;
use fleetmark_domain::Refusal;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use spki::SubjectPublicKeyInfoRef;

use super::rsa::RsaNumbers;
use crate::pki::PkiError;
use crate::pki::csr::VerifiedCsr;
use crate::pki::keys::KeyAlgorithm;

/// The most files in a directory.
const MAX_FILES: usize = 32;
/// The largest file, in octets; Debian's largest has 4 MB.
const MAX_FILE: u64 = 16 * 1024 * 1024;
const PREFIX: &str = "blacklist.RSA-";

/// The last 80 bits of a fingerprint.
type Tail = [u8; 10];

/// RSA keys that are known to all: ten octets of memory each.
#[derive(Clone, Default)]
pub struct WeakLists {
    /// Sorted.
    tails: Arc<[Tail]>,
}

impl WeakLists {
    /// Reads all lists of a directory; without a directory nothing is listed.
    ///
    /// # Errors
    /// [`PkiError::WeakList`] where the directory or a list cannot be read, has no list, or a line is no fingerprint.
    pub fn load(directory: Option<&Path>) -> Result<Self, PkiError> {
        let Some(directory) = directory else { return Ok(Self::default()) };
        let wrong = |why: String| PkiError::WeakList { path: directory.to_owned(), why };
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(|error| wrong(error.to_string()))? {
            let path = entry.map_err(|error| wrong(error.to_string()))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
                files.push(path);
            }
        }
        if files.is_empty() || files.len() > MAX_FILES {
            return Err(wrong(format!("the directory holds 1 to {MAX_FILES} files called {PREFIX}*")));
        }
        let mut tails = Vec::new();
        for path in files {
            read(&path, &mut tails).map_err(|why| PkiError::WeakList { path, why })?;
        }
        tails.sort_unstable();
        tails.dedup();
        Ok(Self { tails: tails.into() })
    }

    /// How many keys are listed.
    pub fn len(&self) -> usize {
        self.tails.len()
    }

    /// Whether no key is listed.
    pub fn is_empty(&self) -> bool {
        self.tails.is_empty()
    }

    /// Whether the request's key is none of them.
    ///
    /// # Errors
    /// `KeyDebianWeak`.
    pub fn check_request(&self, csr: &VerifiedCsr) -> Result<(), Refusal> {
        let key = SubjectPublicKeyInfoRef::from_der(csr.spki()).map_err(|_| Refusal::CsrMalformed)?;
        self.check(csr.algorithm(), key.subject_public_key.raw_bytes())
    }

    /// Whether a key is none of them: one hash and a binary search. `raw` is the content of the BIT STRING.
    ///
    /// # Errors
    /// `KeyDebianWeak`.
    pub(super) fn check(&self, algorithm: KeyAlgorithm, raw: &[u8]) -> Result<(), Refusal> {
        if self.is_empty() || algorithm != KeyAlgorithm::Rsa {
            return Ok(());
        }
        let key = RsaNumbers::read(raw).ok_or(Refusal::CsrMalformed)?;
        if self.holds(key.modulus) { Err(Refusal::KeyDebianWeak) } else { Ok(()) }
    }

    pub(super) fn holds(&self, modulus: &[u8]) -> bool {
        self.tails.binary_search(&tail(modulus)).is_ok()
    }
}

impl fmt::Debug for WeakLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeakLists({})", self.len())
    }
}

fn read(path: &Path, tails: &mut Vec<Tail>) -> Result<(), String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE.saturating_add(1)).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(format!("a list has at most {MAX_FILE} octets"));
    }
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let mut tail = Tail::default();
        hex::decode_to_slice(line.trim_end(), &mut tail)
            .map_err(|_| format!("line {} is not 20 hexadecimal digits", at.saturating_add(1)))?;
        tails.push(tail);
    }
    Ok(())
}

/// The last 80 bits of SHA-1 over `Modulus=`, the modulus in upper-case hexadecimal, and a line feed.
fn tail(modulus: &[u8]) -> Tail {
    let digits = hex::encode_upper(modulus);
    let printed = format!("Modulus={}\n", digits.trim_start_matches('0'));
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, printed.as_bytes());
    let mut tail = Tail::default();
    if let Some(last) = hash.as_ref().last_chunk() {
        tail = *last;
    }
    tail
}
