//! The root elsewhere: what is asked of its ceremony, and what its answers bring.
//!
//! Whoever needs an authority certified calls `new_authority`. Where the root's key is not here, that leaves a request in the store and
//! refuses by `waits_for_root`; the same call succeeds once an answer brought the certificate.

mod answers;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{Action, Epoch, FleetName, Index, Kind, Refusal, Serial, Sight, Standing, Timestamp, View};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

pub use answers::Accepted;

use super::authorities::Authority;
use super::caller::Caller;
use super::install::ROOT;
use super::{Error, Registrar, Result};
use crate::ceremony::authority_names;
use crate::ceremony::judge::{common_name, number_of};
use crate::ceremony::request::{Asked, RootRequest as RequestFile, ToRevoke};
use crate::pki::issue::facts;
use crate::pki::keys::{Home, Keys};
use crate::pki::request::{self, verified_list};
use crate::store::acts::ceremony::AskRoot;
use crate::store::acts::found::AddAuthority;
use crate::store::acts::lease::LeaseIndices;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, RootRequest};
use crate::store::{commit, read};

/// The installation's value that holds number and hash of the newest record of the root with this id.
pub(super) fn record_key(root: AuthorityId) -> String {
    if root == ROOT { "root-record".to_owned() } else { format!("root-record-{root}") }
}

/// A place in the root's numbering that is asked for is nobody else's for so long: for ever.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 86_400);
impl Registrar {
    /// Whether an authority of this kind can be made now: the root's key is here, or its ceremony certified one. Else the request for
    /// it is left, once.
    ///
    /// # Errors
    /// `WaitsForRoot`.
    pub(super) async fn root_at_hand(&self, kind: Kind, fleet: Option<&FleetName>, now: Timestamp) -> Result<()> {
        if self.authorities.root().is_ok_and(|root| root.has_key) {
            return Ok(());
        }
        let request = self.ask_root(kind, fleet, now).await?;
        if request.certificate.is_some() { Ok(()) } else { Err(waits(&request)) }
    }

    /// The authority that the root's ceremony certified.
    ///
    /// # Errors
    /// `WaitsForRoot`.
    pub(super) async fn by_ceremony(
        &self,
        kind: Kind,
        fleet: Option<FleetName>,
        actor: String,
        now: Timestamp,
    ) -> Result<AddAuthority> {
        let request = self.ask_root(kind, fleet.as_ref(), now).await?;
        let Some(der) = request.certificate.clone() else { return Err(waits(&request)) };
        let root = self.authorities.root()?;
        let damaged = |cause| Error::caused(Refusal::StorageDamaged, cause);
        let known = facts(&der).map_err(damaged)?;
        let certificate = Certificate {
            serial: known.serial.ok_or(Refusal::StorageDamaged)?,
            authority: root.record.id,
            subject: None,
            generation: 0,
            key_hash: known.key_hash,
            fingerprint: known.fingerprint,
            standing: Standing::Good,
            not_before: known.not_before,
            not_after: known.not_after,
            renew_after: known.not_after,
            confirm_before: None,
            issued_at: now,
            changed_at: now,
            ledger: root.ledger(),
            position: 0,
            token: None,
            der: der.clone(),
        };
        let common_name = common_name(&der).map_err(damaged)?;
        let authority = AuthorityRecord {
            id: self.authorities.next_id(),
            kind: AuthorityKind::Of(kind),
            fleet,
            state: AuthorityState::Active,
            key_label: self.key_of_request(&request.id),
            certificate: der,
            issuer: Some(root.record.id),
            created_at: now,
        };
        let details = self.details(actor, Some(common_name), None, None)?;
        Ok(AddAuthority { authority, certificate, epoch: None, details, at: now })
    }

    /// The request for an authority of this kind and fleet; makes it, and the authority's key, where there is none.
    async fn ask_root(&self, kind: Kind, fleet: Option<&FleetName>, now: Timestamp) -> Result<RootRequest> {
        let wanted = (AuthorityKind::Of(kind), fleet.cloned());
        let known = read(&*self.store, |rows| rows.root_requests()).await?;
        if let Some(known) = known.iter().find(|known| (known.kind, &known.fleet) == (wanted.0, &wanted.1)) {
            return Ok(known.clone());
        }
        let unavailable = |cause| Error::caused(Refusal::AuthorityUnavailable, cause);
        let profile = self.find_profile(&format!("authority-{kind}"))?;
        let (epoch, index) = match self.authorities.root() {
            Ok(root) if !root.issues() => {
                let detail = "No root is active: prepare one and activate it.";
                return Err(Error::with_detail(Refusal::AuthorityUnavailable, detail));
            }
            Ok(root) => self.place_for_ever(&root, now).await?,
            // Before there is a root: its own place is 0, and those that it certifies first follow.
            Err(_) => (Epoch(1), Index(u32::try_from(known.len()).unwrap_or(u32::MAX).saturating_add(1))),
        };
        let (label, signer) = self.authority_key(&format!("authority-{kind}"), profile, None).await?;
        let id = Keys::name(&label).to_owned();
        let number = self.successor_number(kind, fleet);
        let (organization, common_name) = authority_names(&self.trust_domain, kind, fleet, number);
        let csr = request::request(&*signer, profile, &organization, &common_name).map_err(unavailable)?;
        let (kind, fleet) = wanted;
        let request = RootRequest { id: id.clone(), kind, fleet, epoch, index, csr, certificate: None, asked_at: now };
        let kept = commit(&*self.store, AskRoot { request }).await?;
        if kept.id == id {
            tracing::warn!(request = id, "the root is asked to certify an authority: its ceremony is needed");
        } else {
            // Somebody asked for the same at the same time.
            self.authorities.keys().remove(&label).map_err(unavailable)?;
        }
        Ok(kept)
    }

    /// The label of the key that a request is about: its id, and where the key lives.
    pub(super) fn key_of_request(&self, id: &str) -> String {
        let in_token = Keys::label(Home::Token, id);
        if self.authorities.keys().contains(&in_token) { in_token } else { id.to_owned() }
    }

    /// An index of the root's epoch that nobody else is given.
    pub(super) async fn place_for_ever(&self, root: &Authority, now: Timestamp) -> Result<(Epoch, Index)> {
        let act = LeaseIndices {
            authority: root.record.id,
            ledger: root.ledger(),
            count: 1,
            window: self.authorities.profiles().longest_lifetime() / 4,
            expires_at: now + FOR_EVER,
            at: now,
        };
        let lease = commit(&*self.store, act).await?;
        let index = lease.indices.first().copied().ok_or(Refusal::Overloaded)?;
        Ok((lease.epoch, index))
    }

    /// Asks the root for all that an installation begins with.
    ///
    /// # Errors
    /// `NameTaken` where there is a root already.
    pub async fn ask_for_all(&self, first_fleet: &FleetName, now: Timestamp) -> Result<()> {
        if self.authorities.root().is_ok() {
            return Err(Error::with_detail(Refusal::NameTaken, "There is an installation here already."));
        }
        for kind in [Kind::Service, Kind::Operator, Kind::Gateway] {
            self.ask_root(kind, None, now).await?;
        }
        self.ask_root(Kind::Device, Some(first_fleet), now).await?;
        Ok(())
    }

    /// Whether an installation was begun whose root did not answer yet.
    pub async fn waits_for_root(&self) -> Result<bool> {
        let asked = read(&*self.store, |rows| rows.root_requests()).await?;
        Ok(self.authorities.root().is_err() && !asked.is_empty())
    }

    /// What the root is asked for.
    ///
    /// # Errors
    /// `NotPermitted`.
    pub async fn root_requests(&self, caller: &Caller) -> Result<Vec<RootRequest>> {
        caller.may(Action::Read, None)?;
        let mut found = read(&*self.store, |rows| rows.root_requests()).await?;
        found.retain(|request| request.fleet.as_ref().is_none_or(|fleet| caller.reaches(fleet)));
        found.extend(self.missing_of_roots().await?.into_iter().map(|(id, at)| of_roots(id, at, None)));
        Ok(found)
    }

    /// The file that goes to a root's ceremony, for an operator: without the fleets that it may not know of. Without an id it is for
    /// the active root.
    ///
    /// # Errors
    /// `NotPermitted`; `NotFound` where there is no such root, and none is planned.
    pub async fn root_request_for(&self, caller: &Caller, root: Option<AuthorityId>, now: Timestamp) -> Result<RequestFile> {
        caller.may(Action::Read, None)?;
        self.refresh_authorities().await?;
        let known = match root {
            None => self.authorities.root().ok(),
            Some(id) => match self.authorities.by_id(id) {
                Some(known) if known.record.is_root() => Some(known),
                _ => return self.request_for_new_root(id).await,
            },
        };
        let mut file = self.request_of(known.as_deref(), now).await?;
        file.authorities.retain(|asked| asked.fleet.as_ref().is_none_or(|fleet| caller.reaches(fleet)));
        Ok(file)
    }

    /// The file that goes to the root's ceremony: authorities and other roots' keys to certify, a trust bundle to sign, and certificates
    /// to put on the list.
    pub async fn root_request(&self, now: Timestamp) -> Result<RequestFile> {
        self.request_of(self.authorities.root().ok().as_deref(), now).await
    }

    async fn request_of(&self, root: Option<&Authority>, now: Timestamp) -> Result<RequestFile> {
        let (id, fingerprint) = root.map_or((ROOT, None), |root| (root.record.id, Some(root.fingerprint)));
        let public_url = self.authorities.public_url().to_owned();
        let mut file = RequestFile::new(self.trust_domain.clone(), fingerprint, id, public_url);
        if let Some(root) = root {
            self.ask_of_root(&mut file, (id, root.fingerprint)).await?;
        }
        let (asked, crl, out) =
            read(&*self.store, move |rows| Ok((rows.root_requests()?, rows.crl(id)?, rows.not_good(id, 0, u64::MAX, now)?)))
                .await?;
        let mut listed = None;
        if let (Some(crl), Some(root)) = (crl, root) {
            file.list = crl.number;
            let damaged = |cause| Error::caused(Refusal::StorageDamaged, cause);
            listed = Some(verified_list(&crl.der, &root.record.certificate).map_err(damaged)?);
        }
        let is_listed = |serial: Serial| listed.as_ref().is_some_and(|list| list.names(serial.octets()));
        for certificate in out.iter().filter(|one| !is_listed(one.serial)) {
            if let Sight::Revoked(reason) = certificate.standing.seen_by(View::Crl, false, Choices::default()) {
                let (serial, since) = (certificate.serial.to_string(), certificate.changed_at);
                file.revoke.push(ToRevoke { serial, reason, since });
            }
        }
        // Authorities are the active root's to certify.
        let certifies = root.is_none_or(Authority::issues);
        for request in asked.into_iter().filter(|request| certifies && request.certificate.is_none()) {
            let AuthorityKind::Of(kind) = request.kind else { continue };
            let profile = self.find_profile(&format!("authority-{kind}"))?;
            let rules = profile.ca.ok_or(Refusal::AuthorityUnavailable)?;
            file.authorities.push(Asked {
                id: request.id,
                kind,
                fleet: request.fleet,
                epoch: request.epoch.0,
                index: request.index.0,
                lifetime_seconds: profile.lifetime.as_secs(),
                path_length: rules.path_length,
                exclude_addresses: rules.exclude_addresses,
                number: number_of(&request.csr),
                csr: request::pem(&request.csr),
            });
        }
        Ok(file)
    }
}

fn waits(request: &RootRequest) -> Error {
    let detail = format!(
        "Request {} waits for the root: `fleetmark root request --out FILE` fetches what its ceremony needs. Ask again when its \
         answer was accepted.",
        request.id
    );
    Error::with_detail(Refusal::WaitsForRoot, detail)
}

/// What is asked of a root besides authorities, as a request for people.
fn of_roots(id: String, asked_at: Timestamp, certificate: Option<Vec<u8>>) -> RootRequest {
    let (kind, csr) = (AuthorityKind::Root, Vec::new());
    RootRequest { id, kind, fleet: None, epoch: Epoch(0), index: Index(0), csr, certificate, asked_at }
}
