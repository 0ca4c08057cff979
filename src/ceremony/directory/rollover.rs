//! A root beside others: made by a server's request, it certifies their keys and they its own, and it signs for the trust bundles that
//! tell of them.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use fleetmark_domain::{Epoch, Index, Serial, Timestamp};
use secrecy::SecretString;

use super::{Act, Certified, Done, LIST_LIFETIME, Making, People, RootDirectory, Wanted, octets};
use crate::ceremony::judge::{Cross, Crossable, Judged, crossable, new_root};
use crate::ceremony::request::RootRequest;
use crate::ceremony::{CeremonyError, sha256};
use crate::pki::issue::facts;
use crate::pki::profile::Profiles;
use crate::pki::trust_bundle;

impl RootDirectory {
    /// Makes a root by a server's request: as [`RootDirectory::create`], in the place that the request gives it, and answers the
    /// request.
    ///
    /// # Errors
    /// As [`RootDirectory::create`]; [`CeremonyError::Refused`].
    pub fn create_for(
        path: &Path,
        passphrase: SecretString,
        profiles: &Profiles,
        (request, algorithm): (&RootRequest, Option<&str>),
        people: &People,
        now: Timestamp,
    ) -> Result<(Self, Done), CeremonyError> {
        let people = people.checked()?;
        let items = new_root(request, profiles)?;
        let new = request.new_root.as_ref();
        let (common_name, epoch) = new.map_or(("", Epoch(0)), |new| (new.name.as_str(), Epoch(new.epoch)));
        let making = Making { domain: request.trust_domain.clone(), common_name, epoch, algorithm };
        let mut directory = Self::make(path, passphrase, profiles, &making, now)?;
        let certified = directory.certify_roots(request, &items, now)?;
        let own = directory.root.certificate.to_vec();
        let content = request.bundle.as_ref().map(|bundle| bundle.content(&request.trust_domain, Some(&own))).transpose()?;
        let bundle = request.bundle.as_ref().map(|bundle| bundle.number).zip(content);
        let request_hash = Some(request.digest());
        let act = Act { name: "root made", request: request_hash, certified: &certified, list_holds: LIST_LIFETIME, bundle };
        let done = directory.finish(act, Vec::new(), &people, now)?;
        Ok((directory, done))
    }

    /// The other roots' keys that may be certified.
    pub(super) fn judge_roots<'a>(
        &self,
        request: &'a RootRequest,
        profiles: &Profiles,
    ) -> Result<Vec<Crossable<'a>>, CeremonyError> {
        let items = request.roots.iter().map(|asked| {
            let item = crossable(asked, &self.state.trust_domain, profiles)?;
            if facts(&item.of)?.key_hash == facts(&self.root.certificate)?.key_hash {
                return Err(CeremonyError::Refused { item: asked.id.clone(), why: "it is this root's own key".to_owned() });
            }
            self.issued_before(&wanted(&item)?)?;
            Ok(item)
        });
        items.collect()
    }

    /// The content of the bundle to sign: this root is among those that it names, and it does not go back.
    pub(super) fn judge_bundle(&self, request: &RootRequest) -> Result<Option<Vec<u8>>, CeremonyError> {
        let Some(bundle) = &request.bundle else { return Ok(None) };
        let refused = |why: &str| CeremonyError::Refused { item: "the trust bundle".to_owned(), why: why.to_owned() };
        let content = bundle.content(&self.state.trust_domain, None)?;
        let own = crate::pki::bundle::pem(&[&self.root.certificate]);
        if !bundle.roots.iter().any(|root| root.certificate.trim() == own.trim()) {
            return Err(refused("this root is not among those that it trusts"));
        }
        let goes_back =
            |(number, hash): &(u64, String)| bundle.number < *number || (bundle.number == *number && *hash != sha256(&content));
        if self.state.bundle.as_ref().is_some_and(goes_back) {
            return Err(refused("this root signed a newer one"));
        }
        Ok(Some(content))
    }

    /// Certifies the keys of other roots.
    pub(super) fn certify_roots(
        &mut self,
        request: &RootRequest,
        items: &Judged<'_>,
        now: Timestamp,
    ) -> Result<Vec<Certified>, CeremonyError> {
        let (mut certified, pointers) = (Vec::new(), request.pointers());
        for item in &items.roots {
            let wanted = wanted(item)?;
            let der = if let Some(before) = self.issued_before(&wanted)? {
                before
            } else {
                let domain = self.state.trust_domain.clone();
                let cross = Cross { profile: &item.profile, domain: &domain, of: &item.of, pointers: &pointers };
                let serial = Serial::new(wanted.place.0, wanted.place.1, octets(&self.random)?);
                let not_after = now + Duration::from_secs(item.asked.lifetime_seconds);
                cross.certify(&self.root, serial, not_after, now)?.der
            };
            self.issued(&wanted.title, &der)?;
            certified.push((wanted.id, wanted.title, der));
        }
        Ok(certified)
    }

    /// Signs for a trust bundle, in base64, and remembers which.
    pub(super) fn sign_bundle(&mut self, bundle: Option<&(u64, Vec<u8>)>) -> Result<Option<String>, CeremonyError> {
        let Some((number, content)) = bundle else { return Ok(None) };
        let voice = trust_bundle::sign(content, &self.root.certificate, &*self.root.signer)?;
        self.state.bundle = Some((*number, sha256(content)));
        Ok(Some(base64::engine::general_purpose::STANDARD.encode(voice.signature)))
    }
}

fn wanted(item: &Crossable<'_>) -> Result<Wanted, CeremonyError> {
    let known = facts(&item.of)?;
    let place = (Epoch(item.asked.epoch), Index(item.asked.index));
    let title = format!("key of the root {}", known.fingerprint);
    Ok(Wanted { id: item.asked.id.clone(), title, place, key: known.key_hash })
}
