//! Our root under a corporate authority: the request that goes there, the certificates that come back, and the lists of what stands above.
//!
//! Our root is then an intermediate whose key is here. It is what devices, gateways and operators pin: whoever pinned the corporate
//! root would take every server that any branch of the corporation certifies for ours.

use std::sync::Arc;

use fleetmark_domain::{Action, Epoch, Fingerprint, Index, Kind, Refusal, Serial, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

use super::caller::Caller;
use super::install::{ITSELF, ROOT};
use super::{Error, Registrar, Result};
use crate::ceremony::judge::cross_profile;
use crate::ceremony::request::pointers;
use crate::ceremony::{authority_names, root_names};
use crate::pki::above::{judge, list_of};
use crate::pki::anchors::split;
use crate::pki::issue::{Issuer, Template, facts, issue};
use crate::pki::keys::{Keys, Signer};
use crate::pki::request::{self, lists};
use crate::store::acts::ceremony::{AddForeignRoot, AskRoot};
use crate::store::acts::lists::SetValue;
use crate::store::model::{AuthorityRecord, EpochRecord, RootRequest, StoredCrl};
use crate::store::{commit, read};

/// The installation's value that holds the certificates above our root, upwards.
pub(super) const CHAIN: &str = "corporate-chain";
/// The installation's value that holds their lists.
pub(super) const LISTS: &str = "corporate-lists";

impl Registrar {
    /// Makes the key of our root under a corporate authority, and the request for it, in DER. The same again gives the same.
    ///
    /// # Errors
    /// `NameTaken` where there is a root already.
    pub async fn ask_corporate(&self, now: Timestamp) -> Result<Vec<u8>> {
        if self.authorities.root().is_ok() {
            return Err(Error::with_detail(Refusal::NameTaken, "There is an installation here already."));
        }
        if let Some(known) = self.corporate_request().await? {
            return Ok(known.csr);
        }
        let unavailable = |cause| Error::caused(Refusal::AuthorityUnavailable, cause);
        // One level below it: corporations give no more than is needed.
        let profile = cross_profile(self.authorities.profiles()).ok_or(Refusal::AuthorityUnavailable)?;
        let (label, signer) = self.authority_key("intermediate", &profile, None).await?;
        let id = Keys::name(&label).to_owned();
        let (organization, common_name) = root_names(&self.trust_domain, None);
        let csr = request::request(&*signer, &profile, &organization, &common_name).map_err(unavailable)?;
        let (kind, fleet, epoch, index) = (AuthorityKind::Root, None, Epoch(1), Index(0));
        let asked = RootRequest { id, kind, fleet, epoch, index, csr, certificate: None, asked_at: now };
        Ok(commit(&*self.store, AskRoot { request: asked }).await?.csr)
    }

    async fn corporate_request(&self) -> Result<Option<RootRequest>> {
        let asked = read(&*self.store, |rows| rows.root_requests()).await?;
        Ok(asked.into_iter().find(|request| request.kind == AuthorityKind::Root))
    }

    /// Whether a corporate authority is asked for our root.
    pub async fn waits_for_corporate(&self) -> Result<bool> {
        Ok(self.corporate_request().await?.is_some())
    }

    /// Takes the corporate authority's certificate in, with those above it up to the root whose SHA-256 is `root`, and their lists.
    ///
    /// # Errors
    /// The refusals of [`judge`]; `CorporateExtension` where a certificate under it would not pass our linter; `RootListInvalid`.
    pub async fn found_by_corporate(&self, pem: &[u8], root: &Fingerprint, list: &[u8], now: Timestamp) -> Result<()> {
        if let Ok(known) = self.authorities.root() {
            // What died in between goes on, by the same certificate.
            let text = String::from_utf8_lossy(pem).replace('\r', "");
            let same = text.contains(&crate::pki::bundle::pem(&[&known.record.certificate]));
            return if same { Ok(()) } else { Err(Refusal::NameTaken.into()) };
        }
        let nothing = || {
            Error::with_detail(
                Refusal::RootAnswerMismatch,
                "No corporate authority was asked: `fleetmark init --root corporate`.",
            )
        };
        let asked = self.corporate_request().await?.ok_or_else(nothing)?;
        let unavailable = |cause| Error::caused(Refusal::AuthorityUnavailable, cause);
        let key_label = self.key_of_request(&asked.id);
        let signer = self.authorities.keys().load(&key_label).map_err(unavailable)?;
        let chain = judge(pem, signer.public_key(), root, now).map_err(|(refusal, why)| Error::with_detail(refusal, why))?;
        self.try_out(&chain.own, signer, now)?;
        let lists = newest_lists(list, &chain.above, &[], now)?;
        let known = facts(&chain.own).map_err(unavailable)?;
        let authority = AuthorityRecord {
            id: ROOT,
            kind: AuthorityKind::Root,
            fleet: None,
            state: AuthorityState::Active,
            key_label,
            certificate: chain.own,
            issuer: None,
            created_at: now,
        };
        let epoch = EpochRecord { number: Epoch(1), authority: ROOT, opened_at: now, closed_at: None, next_index: 0 };
        let details = self.details(ITSELF.to_owned(), Some(format!("{} root", self.trust_domain)), None, None)?;
        let ders = |lists: &[Arc<StoredCrl>]| lists.iter().flat_map(|list| list.der.iter().copied()).collect::<Vec<u8>>();
        let values = vec![(CHAIN, chain.above.concat()), (LISTS, ders(&lists))];
        let fingerprint = known.fingerprint;
        let act = AddForeignRoot { authority: authority.clone(), fingerprint, epoch, values, details, at: now };
        commit(&*self.store, act).await?;
        self.authorities.set_above(chain.above);
        self.authorities.add(authority)?;
        self.above.store(Arc::new(lists));
        Ok(())
    }

    /// Signs a certificate that nobody gets: whatever the corporate authority did to names and extensions, what stands under it must
    /// pass the linter.
    fn try_out(&self, own: &[u8], signer: Arc<dyn Signer>, now: Timestamp) -> Result<()> {
        let profile = self.find_profile("authority-operator")?;
        let root = Issuer { certificate: own.into(), signer };
        let (organization, common_name) = authority_names(&self.trust_domain, Kind::Operator, None, None);
        let end = facts(own).map_err(|cause| Error::caused(Refusal::CorporateExtension, cause))?.not_after;
        let spki = root.signer.public_key().to_vec();
        let template = Template {
            profile,
            serial: Serial::new(Epoch(1), Index(0), self.random()?),
            common_name: &common_name,
            organization: &organization,
            uri: None,
            dns_names: &[],
            addresses: &[],
            not_before: now - profile.backdate,
            not_after: (now + profile.lifetime).min(end),
            spki: &spki,
            pointers: &pointers(self.authorities.public_url(), ROOT),
        };
        issue(&root, &template).map(drop).map_err(|cause| Error {
            refusal: Refusal::CorporateExtension,
            detail: Some(format!("What the certificate issues cannot be used: {cause}.")),
            cause: Some(cause.into()),
        })
    }

    /// The newest lists of the authorities above our root.
    pub fn lists_above(&self) -> Vec<Arc<StoredCrl>> {
        self.above.load().to_vec()
    }

    /// Takes in newer lists of the authorities above our root; gives all that are there then.
    ///
    /// # Errors
    /// `NotPermitted`; `RootListInvalid` for a list that is none of theirs, is older than the one here, or does not hold now.
    pub async fn accept_corporate_lists(&self, caller: &Caller, text: &[u8], now: Timestamp) -> Result<Vec<Arc<StoredCrl>>> {
        caller.may(Action::ManageFleets, None)?;
        let above = self.authorities.above();
        let next = newest_lists(text, &above, &self.lists_above(), now)?;
        let value = next.iter().flat_map(|list| list.der.iter().copied()).collect();
        commit(&*self.store, SetValue { name: LISTS.to_owned(), value }).await?;
        self.above.store(Arc::new(next.clone()));
        Ok(next)
    }

    /// What the store knows of a corporate authority, at the start.
    pub(super) async fn open_corporate(&self) -> Result<()> {
        let (chain, known) = read(&*self.store, |rows| Ok((rows.value(CHAIN)?, rows.value(LISTS)?))).await?;
        let parts = |value: Option<Vec<u8>>| -> Result<Vec<Vec<u8>>> {
            let parts = split(&value.unwrap_or_default()).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            Ok(parts.into_iter().map(|part| part.to_vec()).collect())
        };
        let above = parts(chain)?;
        let lists = parts(known)?.iter().map(|der| read_list(der, &above)).collect::<Result<Vec<_>>>()?;
        self.authorities.set_above(above);
        self.above.store(Arc::new(lists.into_iter().map(|(_, list)| Arc::new(list)).collect()));
        Ok(())
    }
}

/// The lists in `text`, each judged, and those known of other authorities.
fn newest_lists(text: &[u8], above: &[Vec<u8>], known: &[Arc<StoredCrl>], now: Timestamp) -> Result<Vec<Arc<StoredCrl>>> {
    let refused = |why: String| Error::with_detail(Refusal::RootListInvalid, why);
    if text.is_empty() {
        return Ok(known.to_vec());
    }
    let mut next: Vec<(Vec<u8>, Arc<StoredCrl>)> = Vec::new();
    for list in known {
        next.push((read_list(&list.der, above)?.0, list.clone()));
    }
    for der in lists(text).map_err(|error| refused(format!("The file is refused: {error}.")))? {
        let (issuer, list) = read_list(&der, above)?;
        if list.next_update <= now || list.this_update > now {
            return Err(refused(format!("List {} does not hold now.", list.number)));
        }
        let before = next.iter().position(|(known, _)| *known == issuer);
        match before.and_then(|at| next.get_mut(at)) {
            Some((_, before)) if (before.number, before.this_update) > (list.number, list.this_update) => {
                return Err(refused(format!("List {} is older than list {}, which is here.", list.number, before.number)));
            }
            Some((_, before)) => *before = Arc::new(list),
            None => next.push((issuer, Arc::new(list))),
        }
    }
    Ok(next.into_iter().map(|(_, list)| list).collect())
}

/// A list with the certificate of whom it is by.
fn read_list(der: &[u8], above: &[Vec<u8>]) -> Result<(Vec<u8>, StoredCrl)> {
    let foreign = || Error::with_detail(Refusal::RootListInvalid, "The list is by none of the authorities above our root.");
    let (issuer, facts) = list_of(der, above).ok_or_else(foreign)?;
    let list = StoredCrl {
        authority: 0,
        number: facts.number,
        this_update: facts.this_update,
        // RFC 5280 5.1.2.5 wants one; a list without it is read as one that holds a day.
        next_update: facts.next_update.unwrap_or(facts.this_update + std::time::Duration::from_secs(86_400)),
        position: 0,
        der: der.to_vec(),
    };
    Ok((issuer.to_vec(), list))
}
