//! Trust bundles: which roots are trusted, signed by those that were before, each kept and served for ever. A device that knows one
//! former root follows them, one by one, to those of today.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fleetmark_domain::{AuthorityState, Fingerprint, Refusal, Timestamp};

use super::tokens::sha256;
use super::{Error, Registrar, Result};
use crate::pki::issue::{Issuer, facts};
use crate::pki::trust_bundle::{Content, assemble, content, sign};
use crate::store::acts::authorities::PutBundle;
use crate::store::model::{AuthorityRecord, StoredBundle};
use crate::store::{commit, read};

/// All bundles, as they are known here, ascending by number.
#[derive(Default)]
pub(super) struct Bundles(ArcSwap<Vec<Arc<StoredBundle>>>);

/// The roots as they are to be, and who can sign for them.
pub(super) struct Signing<'a> {
    /// Every root, revoked ones among them.
    pub roots: Vec<AuthorityRecord>,
    /// Roots' keys under other roots, as far as they are trusted.
    pub crosses: Vec<Vec<u8>>,
    /// Trusted roots whose keys are here.
    pub issuers: Vec<&'a Issuer>,
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

    /// Reads the bundles that are kept, another process's among them.
    pub(super) async fn refresh_bundles(&self) -> Result<()> {
        let bundles = read(&*self.store, |rows| rows.trust_bundles()).await?;
        self.bundles.0.store(Arc::new(bundles.into_iter().map(Arc::new).collect()));
        Ok(())
    }

    /// Makes the first bundle, where there is none and the root's key is here. With a key that is elsewhere the ceremony brings it.
    pub async fn ensure_trust_bundle(&self, now: Timestamp) -> Result<()> {
        self.refresh_bundles().await?;
        let known = self.trust_bundle_number() > 0;
        let roots = self.authorities.all();
        let here: Vec<_> = roots.iter().filter(|root| root.record.is_root() && root.record.state.is_trusted()).collect();
        let signed_by: Vec<_> = here.iter().filter(|root| root.has_key).map(|root| &root.issuer).collect();
        if known || signed_by.is_empty() {
            return Ok(());
        }
        let crosses = self.authorities.crosses();
        let trusted = crosses.iter().filter(|cross| cross.state.is_trusted());
        let signing = Signing {
            roots: roots.iter().map(|root| root.record.clone()).filter(AuthorityRecord::is_root).collect(),
            crosses: trusted.map(|cross| cross.certificate.clone()).collect(),
            issuers: signed_by,
        };
        let bundle = self.new_bundle(&signing, now)?;
        commit(&*self.store, PutBundle { bundle }).await?;
        self.refresh_bundles().await
    }

    /// A bundle that tells of these roots. It counts once it is committed.
    pub(super) fn new_bundle(&self, signing: &Signing<'_>, now: Timestamp) -> Result<StoredBundle> {
        let Signing { roots, crosses, issuers } = signing;
        // It never goes back, through a restore neither.
        let number = self.trust_bundle_number().saturating_add(1).max(u64::try_from(now.0).unwrap_or(0));
        let trusted: Vec<_> = roots.iter().filter(|root| root.state.is_trusted()).collect();
        let fingerprint = |root: &AuthorityRecord| Fingerprint(sha256(&root.certificate));
        let key = |root: &AuthorityRecord| facts(&root.certificate).map(|facts| (facts.fingerprint, facts.key_hash));
        let revoked = roots.iter().filter(|root| !root.state.is_trusted()).map(key).collect::<std::result::Result<_, _>>();
        let revoked = revoked.map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
        let said = content(&Content {
            number,
            made_at: now,
            trust_domain: self.trust_domain.as_str(),
            roots: trusted.iter().map(|root| (root.state, root.certificate.as_slice())).collect(),
            revoked,
        });
        let unsigned = |cause| Error::caused(Refusal::AuthorityUnavailable, cause);
        let said = said.map_err(unsigned)?;
        let mut voices = Vec::new();
        for issuer in issuers {
            let named = crosses.iter().find(|cross| has_key_of(cross, issuer)).map_or(&*issuer.certificate, Vec::as_slice);
            voices.push(sign(&said, named, &*issuer.signer).map_err(unsigned)?);
        }
        // No root's own certificate beside those by other roots: openssl would take it for a signer's issuer, and end there.
        let beside: BTreeSet<Vec<u8>> = voices.iter().map(|voice| voice.certificate.clone()).chain(crosses.clone()).collect();
        let der = assemble(&said, &voices, &Vec::from_iter(beside)).map_err(unsigned)?;
        let counts = |root: &&&AuthorityRecord| root.state != AuthorityState::Tainted;
        Ok(StoredBundle {
            number,
            made_at: now,
            signers: issuers.iter().map(|issuer| Fingerprint(sha256(&issuer.certificate))).collect(),
            roots: trusted.iter().filter(counts).map(|root| fingerprint(root)).collect(),
            der,
        })
    }
}

fn has_key_of(certificate: &[u8], issuer: &Issuer) -> bool {
    use x509_parser::prelude::FromDer as _;
    let parsed = x509_parser::certificate::X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, parsed)| parsed.public_key().raw == issuer.signer.public_key())
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
