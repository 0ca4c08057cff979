//! Keys that are refused by name, whoever brings them. docs/keys.md says which and why.
//!
//! Three questions, by what they cost: [`check_form`] is a few comparisons, [`check_value`] a few divisions, [`check_factors`]
//! costs more than a signature's verification and comes after it.
//!
//! - [`rsa`]: lengths, exponents, factors that anyone finds.
//! - [`roca`]: the fingerprint of CVE-2017-15361.
//! - [`curve`]: points off the curve and of small order.
//! - [`lists`]: lists of keys that are known to all, such as those of CVE-2008-0166.

mod curve;
pub mod lists;
mod roca;
mod rsa;
#[cfg(test)]
mod tests;

use der::Decode;
use fleetmark_domain::Refusal;
use spki::SubjectPublicKeyInfoRef;

use super::encoding;
use super::keys::KeyAlgorithm;
use lists::WeakLists;
use rsa::RsaNumbers;

/// All of it, of a key that comes without a request: a maker's device's. `spki` is its `SubjectPublicKeyInfo` in DER.
///
/// # Errors
/// `KeyTypeNotAllowed`, also for what is no key; those of [`check_form`], [`check_value`], [`check_factors`] and
/// [`WeakLists::check`].
pub fn check_all(spki: &[u8], lists: &WeakLists) -> Result<(), Refusal> {
    let key = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| Refusal::KeyTypeNotAllowed)?;
    let algorithm = encoding::key_algorithm(&key.algorithm).ok_or(Refusal::KeyTypeNotAllowed)?;
    let raw = key.subject_public_key.as_bytes().ok_or(Refusal::KeyTypeNotAllowed)?;
    check_form(algorithm, raw)?;
    check_value(algorithm, raw)?;
    lists.check(algorithm, raw)?;
    check_factors(algorithm, raw)
}

/// What the key's encoding shows: type, length, exponent. `raw` is the content of the BIT STRING.
pub(super) fn check_form(algorithm: KeyAlgorithm, raw: &[u8]) -> Result<(), Refusal> {
    match algorithm {
        KeyAlgorithm::P256 => curve::check_form(&curve::P256, raw),
        KeyAlgorithm::P384 => curve::check_form(&curve::P384, raw),
        KeyAlgorithm::Ed25519 if raw.len() == 32 => Ok(()),
        KeyAlgorithm::Ed25519 => Err(Refusal::KeyWeak),
        KeyAlgorithm::Rsa => RsaNumbers::read(raw).ok_or(Refusal::CsrMalformed)?.check_form(),
    }
}

/// Weaknesses that a few divisions show: points off the curve, small factors, the fingerprint of ROCA.
pub(super) fn check_value(algorithm: KeyAlgorithm, raw: &[u8]) -> Result<(), Refusal> {
    match algorithm {
        KeyAlgorithm::P256 => curve::check_point(&curve::P256, raw),
        KeyAlgorithm::P384 => curve::check_point(&curve::P384, raw),
        KeyAlgorithm::Ed25519 => curve::check_ed25519(raw),
        KeyAlgorithm::Rsa => {
            let key = RsaNumbers::read(raw).ok_or(Refusal::CsrMalformed)?;
            if roca::is_marked(&key) {
                return Err(Refusal::KeyRoca);
            }
            if key.has_small_factor() { Err(Refusal::RsaFactorable) } else { Ok(()) }
        }
    }
}

/// A search for two factors that lie close together; of other keys than RSA there is nothing to ask.
pub(super) fn check_factors(algorithm: KeyAlgorithm, raw: &[u8]) -> Result<(), Refusal> {
    if algorithm != KeyAlgorithm::Rsa {
        return Ok(());
    }
    let key = RsaNumbers::read(raw).ok_or(Refusal::CsrMalformed)?;
    if key.has_close_factors() { Err(Refusal::RsaFactorable) } else { Ok(()) }
}
