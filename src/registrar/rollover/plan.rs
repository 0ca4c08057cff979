//! A root that is to be prepared, while signatures for it are missing: its own certificate, where it is made elsewhere; its key by the
//! old root, and the old root's by it; the words of both for the trust bundle.

use std::time::Duration;

use fleetmark_domain::{AuthorityState, Fingerprint, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ceremony::request::{AskedRoot, BundleState, NewRoot, RootRequest as RequestFile};
use crate::pki::bundle;
use crate::registrar::tokens::sha256;
use crate::registrar::trust_bundle::Wanted;
use crate::registrar::{Error, Registrar, Result};
use crate::store::model::AuthorityId;
use crate::store::read;

/// The installation's value that holds the plan; empty where there is none.
pub(in crate::registrar) const PLAN: &str = "root-planned";

/// The plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::registrar) struct Plan {
    /// The root's id: it stands in what the root certifies.
    pub id: AuthorityId,
    /// Its subject's common name.
    pub name: String,
    /// Its key's.
    pub key_label: String,
    /// Whether its key is not to be here.
    pub elsewhere: bool,
    /// Its numbering space.
    pub epoch: u32,
    pub asked_at: Timestamp,
    /// Who asked, for the ledger's details.
    pub actor: String,
    pub note: Option<String>,
    /// Its certificate in DER, once there is one.
    pub root: Option<Vec<u8>>,
    /// The first list of one that is elsewhere, in DER, and the value of its first record.
    pub first: Option<(Vec<u8>, Vec<u8>)>,
    /// `NewWithOld` and `OldWithNew`.
    pub crosses: Vec<PlannedCross>,
    /// The bundle that tells of it. Before there is its certificate, without it.
    pub bundle: Wanted,
}

/// A root's key that another root is to certify.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::registrar) struct PlannedCross {
    /// The request's name.
    pub id: String,
    /// Who is to certify,
    pub by: AuthorityId,
    /// and whose key.
    pub of: AuthorityId,
    /// The place of the certificate's serial: numbering space, and index in it.
    pub place: (u32, u32),
    /// How long it lasts at most.
    pub lifetime_seconds: u64,
    /// In DER, once it is there.
    pub certificate: Option<Vec<u8>>,
}

impl PlannedCross {
    pub const fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_seconds)
    }
}

impl Plan {
    /// As the store keeps it.
    pub fn value(&self) -> Vec<u8> {
        // Only maps whose keys are no text make this fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// SHA-256 over the root's certificate.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.root.as_ref().map(|der| Fingerprint(sha256(der)))
    }
}

impl Registrar {
    /// The root that is planned. A plan that was made while the other roots were in other states is none any more: what it asks to be
    /// signed tells of them.
    pub(in crate::registrar) async fn planned_root(&self) -> Result<Option<Plan>> {
        Ok(self.kept_plan().await?.filter(|plan| self.is_of_today(plan)))
    }

    /// The plan that the store keeps, whether it still holds or not.
    pub(super) async fn kept_plan(&self) -> Result<Option<Plan>> {
        let value = read(&*self.store, |rows| rows.value(PLAN)).await?.filter(|value| !value.is_empty());
        let damaged = |cause: serde_json::Error| Error::caused(Refusal::StorageDamaged, cause);
        value.map(|value| serde_json::from_slice(&value).map_err(damaged)).transpose()
    }

    /// Whether the trusted roots are those that the plan's bundle tells of, each in the same state.
    pub(super) fn is_of_today(&self, plan: &Plan) -> bool {
        let all = self.authorities.all();
        let roots = all.iter().map(|root| &root.record).filter(|record| record.is_root());
        let today: Vec<_> = roots.filter_map(|root| Some((BundleState::of(root.state)?, &root.certificate))).collect();
        let then = plan.bundle.roots.iter().filter(|(_, der)| plan.root.as_ref() != Some(der));
        let then: Vec<_> = then.map(|(state, der)| (*state, der)).collect();
        then.len() == today.len() && then.iter().all(|root| today.contains(root))
    }

    /// Whether this root's signatures are waited for: one that is suspected, and whose key is not here, need not give any.
    pub(in crate::registrar) fn is_asked(&self, root: AuthorityId) -> bool {
        let state = self.authorities.by_id(root).map(|authority| (authority.record.state, authority.has_key));
        !matches!(state, Some((AuthorityState::Tainted | AuthorityState::Revoked, false)))
    }

    /// The certificate, in DER, of a root that is here or planned.
    pub(in crate::registrar) fn root_certificate(&self, plan: &Plan, id: AuthorityId) -> Option<Vec<u8>> {
        if id == plan.id {
            return plan.root.clone();
        }
        self.authorities.by_id(id).map(|root| root.record.certificate.clone())
    }

    /// What is still asked for, by name: a root that is to be made, keys to certify, words for a bundle.
    pub(in crate::registrar) async fn missing_of_roots(&self) -> Result<Vec<(String, Timestamp)>> {
        let mut missing = Vec::new();
        if let Some(plan) = self.planned_root().await? {
            if plan.root.is_none() {
                missing.push((format!("root-{}", plan.id), plan.asked_at));
            }
            let open = plan.crosses.iter().filter(|cross| cross.certificate.is_none() && cross.by != plan.id);
            let open = open.filter(|cross| plan.root.is_some() && self.is_asked(cross.by));
            missing.extend(open.map(|cross| (cross.id.clone(), plan.asked_at)));
            let voices = self.missing_voices(&plan.bundle).into_iter().filter(|_| plan.root.is_some());
            missing.extend(voices.map(|root| (format!("trust-bundle-by-{root}"), plan.asked_at)));
        }
        if let Some(wanted) = self.awaited_bundle().await? {
            let voices = self.missing_voices(&wanted);
            missing.extend(voices.into_iter().map(|root| (format!("trust-bundle-by-{root}"), wanted.made_at)));
        }
        missing.sort_unstable();
        missing.dedup_by(|one, other| one.0 == other.0);
        Ok(missing)
    }

    /// The roots, by id, whose words for this bundle are waited for.
    pub(in crate::registrar) fn missing_voices(&self, wanted: &Wanted) -> Vec<AuthorityId> {
        let (missing, all) = (wanted.missing(), self.authorities.all());
        let asked = all.iter().filter(|root| missing.contains(&root.fingerprint) && self.is_asked(root.record.id));
        asked.map(|root| root.record.id).collect()
    }

    /// What the ceremony of a root that exists is asked for besides authorities: other roots' keys, a trust bundle.
    pub(in crate::registrar) async fn ask_of_root(
        &self,
        file: &mut RequestFile,
        root: (AuthorityId, Fingerprint),
    ) -> Result<()> {
        let (id, fingerprint) = root;
        let mut bundles = Vec::from_iter(self.awaited_bundle().await?);
        if let Some(plan) = self.planned_root().await?.filter(|plan| plan.root.is_some()) {
            let open = plan.crosses.iter().filter(|cross| cross.by == id && cross.certificate.is_none());
            file.roots.extend(open.filter_map(|cross| self.asked_root(&plan, cross)));
            bundles.push(plan.bundle);
        }
        file.bundle = bundles.into_iter().find(|wanted| wanted.waits_for(&fingerprint)).map(|wanted| wanted.asked());
        Ok(())
    }

    /// The request for a root that is to be made elsewhere.
    ///
    /// # Errors
    /// `NotFound` where none is, or not this one.
    pub(in crate::registrar) async fn request_for_new_root(&self, id: AuthorityId) -> Result<RequestFile> {
        let plan = self.planned_root().await?.filter(|plan| plan.id == id && plan.root.is_none());
        let plan = plan.ok_or(Refusal::NotFound)?;
        let public_url = self.authorities.public_url().to_owned();
        let mut file = RequestFile::new(self.trust_domain.clone(), None, id, public_url);
        file.new_root = Some(NewRoot { name: plan.name.clone(), epoch: plan.epoch });
        file.roots = plan.crosses.iter().filter(|cross| cross.by == id).filter_map(|one| self.asked_root(&plan, one)).collect();
        file.bundle = Some(plan.bundle.asked());
        Ok(file)
    }

    fn asked_root(&self, plan: &Plan, cross: &PlannedCross) -> Option<AskedRoot> {
        Some(AskedRoot {
            id: cross.id.clone(),
            certificate: bundle::pem(&[&self.root_certificate(plan, cross.of)?]),
            epoch: cross.place.0,
            index: cross.place.1,
            lifetime_seconds: cross.lifetime_seconds,
        })
    }
}
