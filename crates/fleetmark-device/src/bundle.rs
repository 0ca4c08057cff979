//! Trust bundles: which roots are trusted, signed by roots that were trusted before (docs/authorities.md). By them a device that knows
//! one former root finds those of today; who carried the bundle does not matter.
//!
//! A root's word counts while it is active or prepared. Once a bundle has said that a root is tainted or revoked, nothing that it signs
//! makes this device trust another one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{Fingerprint, Timestamp};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::pkcs7::{Signed, Signer};
use crate::trust::{MAX_ROOTS, Roots, fingerprint, parse, sha256};

/// The word that tells a bundle from anything else that a root's key may sign.
const FORM: &str = "fleetmark-trust-bundle/v1";
/// The most bundles that are followed at once.
pub const MAX_BUNDLES: usize = 32;
/// The most roots that a bundle may name as revoked.
const MAX_REVOKED: usize = 64;

/// Where a root is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootState {
    /// Trusted, does not issue yet.
    Prepared,
    /// Issues.
    Active,
    /// Issues no more; its word introduces nobody.
    Tainted,
}

/// A root that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Where it is in its life.
    pub state: RootState,
    /// Its certificate, DER in base64.
    certificate: String,
}

/// A root that is trusted no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// SHA-256 over its certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 over its `SubjectPublicKeyInfo`: the key may stand in other roots' certificates.
    pub key: Fingerprint,
}

/// What the newest bundle said: `trust.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the domain's word, and the wire's")]
pub struct Trust {
    form: String,
    trust_domain: String,
    /// Never goes back.
    pub number: u64,
    /// When the bundle was made.
    pub made_at: Timestamp,
    /// The roots that are trusted.
    pub roots: Vec<Root>,
    /// Those that are not any more.
    pub revoked: Vec<Revoked>,
}

fn refused(name: &'static str, why: impl Into<String>) -> Error {
    Error::TrustBundle { name, why: why.into() }
}

#[expect(clippy::needless_pass_by_value, reason = "map_err gives it by value")]
fn malformed(why: impl ToString) -> Error {
    refused("trust_bundle_malformed", why.to_string())
}

impl Root {
    fn der(&self) -> Result<CertificateDer<'static>, Error> {
        STANDARD.decode(&self.certificate).map(CertificateDer::from).map_err(malformed)
    }

    /// Whether it may introduce others.
    const fn counts(&self) -> bool {
        !matches!(self.state, RootState::Tainted)
    }
}

impl Trust {
    fn chosen(&self, which: impl Fn(&Root) -> bool) -> Result<Roots, Error> {
        let certificates = self.roots.iter().filter(|root| which(root)).map(Root::der).collect::<Result<Vec<_>, _>>()?;
        let keys = self.revoked.iter().map(|revoked| *revoked.key.octets()).collect();
        Ok(Roots::new(certificates)?.refusing(keys))
    }

    /// The roots by which this device believes its server: those that are active or prepared.
    pub fn server_roots(&self) -> Result<Roots, Error> {
        self.chosen(Root::counts)
    }

    /// All that are trusted, for the device's other programs: what tainted roots' authorities issued holds until it ends.
    pub fn all_roots(&self) -> Result<Roots, Error> {
        self.chosen(|_| true)
    }

    /// The fingerprints of the roots whose word counts, active ones first.
    pub fn counting(&self) -> Result<Vec<Fingerprint>, Error> {
        let mut roots: Vec<_> = self.roots.iter().filter(|root| root.counts()).collect();
        roots.sort_by_key(|root| root.state != RootState::Active);
        roots.into_iter().map(|root| root.der().map(|der| fingerprint(&der))).collect()
    }

    /// What is read must be what this program would have written.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.form != FORM {
            return Err(malformed("it is no trust bundle"));
        }
        if self.roots.len() > MAX_ROOTS || self.revoked.len() > MAX_REVOKED {
            return Err(malformed("it names too many roots"));
        }
        self.server_roots().and(self.all_roots()).map(drop).map_err(malformed)
    }
}

/// What a device believes before it reads a bundle.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// The roots, where no bundle was read yet; each one's word counts.
    pub roots: &'a Roots,
    /// What the newest bundle said that was read.
    pub trust: Option<&'a Trust>,
}

/// Follows bundles, the oldest first, from what is known. None: they say nothing new.
///
/// # Errors
/// [`Error::TrustBundle`]: `trust_bundle_malformed`; `trust_bundle_unsigned` where no root whose word counts signed one, or a new root
/// did not; `trust_bundle_rolled_back` where the newest is older than what was read before.
pub fn follow(known: &Known<'_>, bundles: &[&[u8]]) -> Result<Option<Trust>, Error> {
    if bundles.is_empty() || bundles.len() > MAX_BUNDLES {
        return Err(malformed("there are none, or too many"));
    }
    let mut newest: Option<Trust> = None;
    let mut last = 0;
    for message in bundles {
        let trust = newest.as_ref().or(known.trust);
        let signed = Signed::parse(message).map_err(malformed)?;
        let said: Trust = serde_json::from_slice(signed.content).map_err(malformed)?;
        said.check()?;
        last = said.number;
        if trust.is_some_and(|trust| said.number <= trust.number) {
            continue;
        }
        judge(&Known { roots: known.roots, trust }, &signed, &said)?;
        newest = Some(said);
    }
    if known.trust.is_some_and(|trust| last < trust.number) {
        return Err(refused("trust_bundle_rolled_back", format!("it has number {last}, and a newer one was here before")));
    }
    Ok(newest)
}

fn judge(known: &Known<'_>, signed: &Signed<'_>, said: &Trust) -> Result<(), Error> {
    let (counting, held) = match known.trust {
        Some(trust) => (trust.server_roots()?, trust.all_roots()?),
        None => (known.roots.clone(), known.roots.clone()),
    };
    if let Some(trust) = known.trust {
        if trust.trust_domain != said.trust_domain {
            return Err(malformed("it is of another trust domain"));
        }
        let gone = |revoked: &Revoked| said.revoked.iter().any(|now| now.key == revoked.key);
        if !trust.revoked.iter().all(gone) {
            return Err(malformed("a root that was revoked is not any more"));
        }
    }
    let revoked = |key: &[u8; 32]| said.revoked.iter().any(|revoked| revoked.key.octets() == key);
    let mut spoke = false;
    for root in counting.certificates() {
        spoke |= has_signed(root, signed)?;
    }
    if !spoke {
        return Err(refused("trust_bundle_unsigned", "no root whose word counts here signed it"));
    }
    for root in &said.roots {
        let root = root.der()?;
        let parsed = parse(&root).map_err(malformed)?;
        if revoked(&sha256(parsed.public_key().raw)) {
            return Err(malformed("a root is trusted and revoked at once"));
        }
        if !held.certificates().contains(&root) && !has_signed(&root, signed)? {
            return Err(refused("trust_bundle_unsigned", format!("the new root {} did not sign it", fingerprint(&root))));
        }
    }
    Ok(())
}

/// Whether the root's key signed the message.
fn has_signed(root: &CertificateDer<'_>, signed: &Signed<'_>) -> Result<bool, Error> {
    let parsed = parse(root).map_err(malformed)?;
    let key = &*parsed.public_key().subject_public_key.data;
    Ok(signed.signers.iter().any(|signer| signer.covers(signed.content) && is_by(signer, key)))
}

/// The kinds of key differ in length, so that a signature is only ever tried with a key of its own kind.
fn is_by(signer: &Signer<'_>, key: &[u8]) -> bool {
    let algorithm: &dyn VerificationAlgorithm = match (signer.algorithm, key.len()) {
        (crate::pkcs7::ECDSA_SHA256, 65) => &ECDSA_P256_SHA256_ASN1,
        (crate::pkcs7::ECDSA_SHA384, 97) => &ECDSA_P384_SHA384_ASN1,
        (crate::pkcs7::ED25519, 32) => &ED25519,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, key).verify(&signer.attributes, signer.signature).is_ok()
}

#[cfg(test)]
mod tests;
