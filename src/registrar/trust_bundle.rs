//! Trust bundles: which roots are trusted, signed by those that were before, each kept and served for ever. A device that knows one
//! former root follows them, one by one, to those of today.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::{Fingerprint, Refusal, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};

use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::ceremony::request::{AskedBundle, BundleRevoked, BundleRoot, BundleState};
use crate::pki::PkiError;
use crate::pki::issue::{Issuer, facts};
use crate::pki::trust_bundle::{Content, assemble, content, sign, voice};
use crate::store::acts::authorities::PutBundle;
use crate::store::model::{AuthorityRecord, StoredBundle};
use crate::store::{commit, read};

/// All bundles, as they are known here, ascending by number.
#[derive(Default)]
pub(super) struct Bundles(ArcSwap<Vec<Arc<StoredBundle>>>);

/// The installation's value that holds the bundle that waits for signatures; empty where none does.
pub(super) const WANTED: &str = "trust-bundle-wanted";

/// A bundle that is to be made, with the signatures that are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub number: u64,
    pub made_at: Timestamp,
    /// The roots that are trusted, with their certificates in DER.
    pub roots: Vec<(BundleState, Vec<u8>)>,
    /// Those that are trusted no more.
    pub revoked: Vec<BundleRevoked>,
    /// Signatures, by the root whose they are.
    pub voices: Vec<(Fingerprint, Vec<u8>)>,
}

impl Wanted {
    /// What is asked of a root's ceremony.
    pub fn asked(&self) -> AskedBundle {
        let root =
            |(state, der): &(BundleState, Vec<u8>)| BundleRoot { state: *state, certificate: crate::pki::bundle::pem(&[der]) };
        let (roots, revoked) = (self.roots.iter().map(root).collect(), self.revoked.clone());
        AskedBundle { number: self.number, made_at: self.made_at, roots, revoked }
    }

    /// The octets that are signed for.
    pub fn content(&self, domain: &TrustDomain) -> Result<Vec<u8>> {
        let said = Content {
            number: self.number,
            made_at: self.made_at,
            trust_domain: domain.as_str(),
            roots: self.roots.iter().map(|(state, der)| ((*state).into(), der.as_slice())).collect(),
            revoked: self.revoked.iter().map(|one| (one.fingerprint, one.key)).collect(),
        };
        content(&said).map_err(unsigned)
    }

    /// The roots whose word counts from here on, and who have not signed: a tainted one need not.
    pub fn missing(&self) -> Vec<Fingerprint> {
        let counts = self.roots.iter().filter(|(state, _)| *state != BundleState::Tainted);
        counts.map(|(_, der)| Fingerprint(sha256(der))).filter(|root| !self.is_signed_by(root)).collect()
    }

    /// Whether this root is among those that may sign, and has not.
    pub fn waits_for(&self, root: &Fingerprint) -> bool {
        self.roots.iter().any(|(_, der)| sha256(der) == root.0) && !self.is_signed_by(root)
    }

    fn is_signed_by(&self, root: &Fingerprint) -> bool {
        self.voices.iter().any(|(voice, _)| voice == root)
    }

    /// Signs with this root's key, where it is to.
    pub fn sign(&mut self, domain: &TrustDomain, root: &Issuer) -> Result<()> {
        let fingerprint = Fingerprint(sha256(&root.certificate));
        if self.waits_for(&fingerprint) {
            let voice = sign(&self.content(domain)?, &root.certificate, &*root.signer).map_err(unsigned)?;
            self.voices.push((fingerprint, voice.signature));
        }
        Ok(())
    }

    /// As the store keeps it.
    pub fn value(&self) -> Vec<u8> {
        // Only maps whose keys are no text make this fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn unsigned(cause: PkiError) -> Error {
    Error::caused(Refusal::AuthorityUnavailable, cause)
}

impl Registrar {
    /// The bundles that lead from the root with this fingerprint to those of today, the oldest first; without one the newest alone.
    ///
    /// # Errors
    /// `NotFound`: no root with this fingerprint ever signed one, or there is none.
    pub fn trust_bundles(&self, from: Option<Fingerprint>) -> Result<Vec<Arc<StoredBundle>>> {
        let all = self.bundles.0.load();
        let path = match from {
            None => all.last().cloned().into_iter().collect(),
            Some(from) => path(&all, from),
        };
        if path.is_empty() { Err(Refusal::NotFound.into()) } else { Ok(path) }
    }

    /// The newest bundle's number; 0 before the first.
    pub fn trust_bundle_number(&self) -> u64 {
        self.bundles.0.load().last().map_or(0, |newest| newest.number)
    }

    /// Reads the bundles that are kept, another process's among them, and which number is promised to a root that is planned.
    pub(super) async fn refresh_bundles(&self) -> Result<()> {
        let bundles = read(&*self.store, |rows| rows.trust_bundles()).await?;
        self.authorities.reserve(self.planned_root().await?.map_or(0, |plan| plan.id));
        self.bundles.0.store(Arc::new(bundles.into_iter().map(Arc::new).collect()));
        Ok(())
    }

    /// Makes the first bundle, where there is none and the root's key is here. With a key that is elsewhere the ceremony brings it.
    pub async fn ensure_trust_bundle(&self, now: Timestamp) -> Result<()> {
        self.refresh_bundles().await?;
        let roots = self.authorities.all();
        let here: Vec<_> = roots.iter().filter(|root| root.record.is_root() && root.record.state.is_trusted()).collect();
        if self.trust_bundle_number() > 0 || !here.iter().any(|root| root.has_key) {
            return Ok(());
        }
        let records: Vec<_> = roots.iter().map(|root| root.record.clone()).filter(AuthorityRecord::is_root).collect();
        let wanted = self.wanted_bundle(&records, 0, now)?;
        let crosses = self.authorities.crosses();
        let trusted = crosses.iter().filter(|cross| cross.state.is_trusted());
        let bundle = self.made_bundle(&wanted, &trusted.map(|cross| cross.certificate.clone()).collect::<Vec<_>>())?;
        commit(&*self.store, PutBundle { bundle }).await?;
        self.refresh_bundles().await
    }

    /// The bundle that waits for signatures.
    pub(super) async fn awaited_bundle(&self) -> Result<Option<Wanted>> {
        let value = read(&*self.store, |rows| rows.value(WANTED)).await?.filter(|value| !value.is_empty());
        let damaged = |cause: serde_json::Error| Error::caused(Refusal::StorageDamaged, cause);
        value.map(|value| serde_json::from_slice(&value).map_err(damaged)).transpose()
    }

    /// A bundle that tells of these roots, signed by those whose keys are here. Its number is above `above` and every one before.
    pub(super) fn wanted_bundle(&self, roots: &[AuthorityRecord], above: u64, now: Timestamp) -> Result<Wanted> {
        let number = self.bundle_number(above, now);
        let key = |root: &AuthorityRecord| {
            let known = facts(&root.certificate).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            Ok(BundleRevoked { fingerprint: known.fingerprint, key: known.key_hash })
        };
        let trusted = roots.iter().filter_map(|root| Some((BundleState::of(root.state)?, root.certificate.clone())));
        let mut wanted = Wanted {
            number,
            made_at: now,
            roots: trusted.collect(),
            revoked: roots.iter().filter(|root| !root.state.is_trusted()).map(key).collect::<Result<_>>()?,
            voices: Vec::new(),
        };
        self.sign_bundle_here(&mut wanted)?;
        Ok(wanted)
    }

    /// A number for a bundle, above `above` and every one before: it never goes back, through a restore neither.
    pub(super) fn bundle_number(&self, above: u64, now: Timestamp) -> u64 {
        let after = self.trust_bundle_number().max(above).saturating_add(1);
        after.max(u64::try_from(now.0).unwrap_or(0))
    }

    /// Every root signs that is to, and whose key is here.
    pub(super) fn sign_bundle_here(&self, wanted: &mut Wanted) -> Result<()> {
        let all = self.authorities.all();
        let mut here = all.iter().filter(|root| root.record.is_root() && root.has_key);
        here.try_for_each(|root| wanted.sign(&self.trust_domain, &root.issuer))
    }

    /// The bundle, whole; `crosses` are the roots' keys under other roots, as far as they are trusted. It counts once it is
    /// committed.
    pub(super) fn made_bundle(&self, wanted: &Wanted, crosses: &[Vec<u8>]) -> Result<StoredBundle> {
        let said = wanted.content(&self.trust_domain)?;
        let (mut voices, mut signers) = (Vec::new(), Vec::new());
        for (fingerprint, signature) in &wanted.voices {
            let Some((_, root)) = wanted.roots.iter().find(|(_, der)| sha256(der) == fingerprint.0) else { continue };
            let named = crosses.iter().find(|cross| is_same_key(cross, root)).unwrap_or(root);
            voices.push(voice(&said, named, signature).map_err(unsigned)?);
            signers.push(*fingerprint);
        }
        // No root's own certificate beside those by other roots: openssl would take it for a signer's issuer, and end there.
        let beside: BTreeSet<_> = voices.iter().map(|voice| voice.certificate.clone()).chain(crosses.iter().cloned()).collect();
        let der = assemble(&said, &voices, &Vec::from_iter(beside)).map_err(unsigned)?;
        let counts = |(state, _): &&(BundleState, Vec<u8>)| *state != BundleState::Tainted;
        let roots = wanted.roots.iter().filter(counts).map(|(_, der)| Fingerprint(sha256(der))).collect();
        Ok(StoredBundle { number: wanted.number, made_at: wanted.made_at, signers, roots, der })
    }
}

fn is_same_key(one: &[u8], other: &[u8]) -> bool {
    let key = |der: &[u8]| facts(der).map(|known| known.key_hash).ok();
    key(one).is_some_and(|hash| Some(hash) == key(other))
}

/// From each point on, the newest bundle that was signed by a root whose word counts there.
fn path(all: &[Arc<StoredBundle>], from: Fingerprint) -> Vec<Arc<StoredBundle>> {
    let mut path: Vec<Arc<StoredBundle>> = Vec::new();
    let mut known = vec![from];
    loop {
        let reached = path.last().map_or(0, |last| last.number);
        let later = all.iter().rev().take_while(|bundle| bundle.number > reached);
        let mut signed = later.filter(|bundle| bundle.signers.iter().any(|signer| known.contains(signer)));
        let Some(next) = signed.next() else { return path };
        known.clone_from(&next.roots);
        path.push(next.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_former_root_leads_to_the_newest() {
        let root = |number: u8| Fingerprint([number; 32]);
        let bundle = |number: u64, signers: &[u8], roots: &[u8]| {
            let list = |numbers: &[u8]| numbers.iter().map(|number| root(*number)).collect();
            let (made_at, der) = (Timestamp(0), Vec::new());
            Arc::new(StoredBundle { number, made_at, signers: list(signers), roots: list(roots), der })
        };
        let all = [
            bundle(1, &[1], &[1]),
            bundle(2, &[1, 2], &[1, 2]),
            bundle(5, &[1, 2], &[2]),
            bundle(6, &[2], &[2]),
            bundle(7, &[2, 3], &[2, 3]),
            bundle(9, &[2, 3], &[3]),
            bundle(10, &[3], &[3]),
        ];
        let numbers = |from: u8| path(&all, root(from)).iter().map(|bundle| bundle.number).collect::<Vec<_>>();
        assert_eq!(numbers(1), [5, 9, 10]);
        assert_eq!(numbers(2), [9, 10]);
        assert_eq!(numbers(3), [10]);
        assert_eq!(numbers(4), [0; 0]);
    }
}
