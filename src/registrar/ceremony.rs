//! The root elsewhere: what is asked of its ceremony, and what its answers bring.
//!
//! Whoever needs an authority certified calls `new_authority`. Where the root's key is not here, that leaves a request in the store and
//! refuses by `waits_for_root`; the same call succeeds once an answer brought the certificate.

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{
    Action, Epoch, Fingerprint, FleetName, Index, Kind, LedgerName, Refusal, Sight, Standing, Timestamp, View,
};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

use super::authorities::Authority;
use super::caller::{Caller, alarm};
use super::install::{ITSELF, ROOT};
use super::{Error, Registrar, Result};
use crate::ceremony::answer::{RootAnswer, Verified};
use crate::ceremony::judge::{Expected, fits, root_fits};
use crate::ceremony::request::{Asked, RootRequest as RequestFile, ToRevoke, pointers};
use crate::ceremony::{CeremonyError, authority_names};
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::keys::{Home, Keys};
use crate::pki::request::{self, verified_list};
use crate::store::acts::ceremony::{AcceptAnswer, AskRoot};
use crate::store::acts::found::AddAuthority;
use crate::store::acts::lease::LeaseIndices;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, EpochRecord, RootRequest, StoredCrl};
use crate::store::{commit, read};

/// The installation's value that holds number and hash of the newest record.
const RECORD: &str = "root-record";
/// The label of a root's key that this machine never had.
const KEY_ELSEWHERE: &str = "root-elsewhere";
/// A place in the root's numbering that is asked for is nobody else's for so long: for ever.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 86_400);
/// A list is to be renewed when this part of its life is left.
const LAST_PART: u32 = 4;

/// What an answer brought.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The record's number.
    pub record: u64,
    /// SHA-256 over its text, in hexadecimal.
    pub record_hash: String,
    /// The requests that were answered.
    pub answered: Vec<RootRequest>,
    /// The number of the root's list.
    pub list: u64,
    /// Until when it holds.
    pub list_holds_until: Timestamp,
    /// Authorities that the list names, and that are not revoked here.
    pub revoked: Vec<AuthorityId>,
}

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
        let (_, common_name) = authority_names(&self.trust_domain, kind, fleet.as_ref());
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
            Ok(root) => self.place_for_ever(&root, now).await?,
            // Before there is a root: its own place is 0, and those that it certifies first follow.
            Err(_) => (Epoch(1), Index(u32::try_from(known.len()).unwrap_or(u32::MAX).saturating_add(1))),
        };
        let (label, signer) = self.authority_key(&format!("authority-{kind}"), profile, None).await?;
        let id = Keys::name(&label).to_owned();
        let (organization, common_name) = authority_names(&self.trust_domain, kind, fleet);
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
    async fn place_for_ever(&self, root: &Authority, now: Timestamp) -> Result<(Epoch, Index)> {
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
        Ok(found)
    }

    /// The file that goes to the root's ceremony, for an operator: without the fleets that it may not know of.
    ///
    /// # Errors
    /// `NotPermitted`.
    pub async fn root_request_for(&self, caller: &Caller, now: Timestamp) -> Result<RequestFile> {
        caller.may(Action::Read, None)?;
        let mut file = self.root_request(now).await?;
        file.authorities.retain(|asked| asked.fleet.as_ref().is_none_or(|fleet| caller.reaches(fleet)));
        Ok(file)
    }

    /// The file that goes to the root's ceremony: authorities to certify, and certificates to put on the list.
    pub async fn root_request(&self, now: Timestamp) -> Result<RequestFile> {
        let root = self.authorities.root().ok();
        let (id, fingerprint) = root.as_ref().map_or((ROOT, None), |root| (root.record.id, Some(root.fingerprint)));
        let public_url = self.authorities.public_url().to_owned();
        let mut file = RequestFile::new(self.trust_domain.clone(), fingerprint, id, public_url);
        let (asked, crl, out) =
            read(&*self.store, move |rows| Ok((rows.root_requests()?, rows.crl(id)?, rows.not_good(id, 0, u64::MAX, now)?)))
                .await?;
        let mut listed = Vec::new();
        if let (Some(crl), Some(root)) = (crl, &root) {
            file.list = crl.number;
            let damaged = |cause| Error::caused(Refusal::StorageDamaged, cause);
            listed = verified_list(&crl.der, &root.record.certificate).map_err(damaged)?.serials;
        }
        for certificate in out.iter().filter(|one| !listed.iter().any(|serial| *serial == one.serial.octets())) {
            if let Sight::Revoked(reason) = certificate.standing.seen_by(View::Crl, false, Choices::default()) {
                let (serial, since) = (certificate.serial.to_string(), certificate.changed_at);
                file.revoke.push(ToRevoke { serial, reason, since });
            }
        }
        for request in asked.into_iter().filter(|request| request.certificate.is_none()) {
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
                csr: request::pem(&request.csr),
            });
        }
        Ok(file)
    }

    /// Takes a root's answer in, for an operator.
    ///
    /// # Errors
    /// `NotPermitted`, and those of [`Self::found_by_answer`].
    pub async fn accept_root_answer(&self, caller: &Caller, octets: &[u8], now: Timestamp) -> Result<Accepted> {
        caller.may(Action::ManageFleets, None)?;
        let accepted = self.take_answer(&verified(octets)?, now).await?;
        tracing::info!(
            record = accepted.record,
            list = accepted.list,
            by = caller.actor(self),
            "an answer of the root's ceremony was accepted"
        );
        Ok(accepted)
    }

    /// Takes the first answer in, which brings the root itself: believed because a person read its fingerprint on the ceremony's record.
    /// An answer that was taken in before is no error, so that what died in between can go on.
    ///
    /// # Errors
    /// `RootAnswerUnreadable`, `RootAnswerForeign`, `RootAnswerMismatch`, `RootAnswerReplayed`, `RootRecordInvalid`,
    /// `RootListInvalid`.
    pub async fn found_by_answer(&self, octets: &[u8], root: &Fingerprint, now: Timestamp) -> Result<()> {
        let answer = verified(octets)?;
        if answer.fingerprint != *root {
            let detail = format!("The answer brings the root {}, which is not the one that was named.", answer.fingerprint);
            return Err(Error::with_detail(Refusal::RootAnswerForeign, detail));
        }
        let last = read(&*self.store, |rows| rows.value(RECORD)).await?;
        if self.authorities.root().is_err() {
            self.check_answer(&answer, None, now).await?;
            self.add_root_elsewhere(&answer, now).await?;
        } else if last.is_some_and(|last| Some(&last[..]) == record_value(&answer).as_deref()) {
            return Ok(());
        }
        self.take_answer(&answer, now).await.map(drop)
    }

    /// Adds the root that an answer brings.
    async fn add_root_elsewhere(&self, answer: &Verified, now: Timestamp) -> Result<()> {
        let profile = self.find_profile("root")?;
        root_fits(&answer.root, &self.trust_domain, profile).map_err(|why| {
            Error::with_detail(Refusal::RootAnswerForeign, format!("The root's certificate is refused: {why}."))
        })?;
        let highest = read(&*self.store, |rows| Ok(rows.root_requests()?.iter().map(|one| one.index.0).max())).await?;
        let next_index = highest.unwrap_or(0).saturating_add(1);
        let epoch = EpochRecord { number: Epoch(1), authority: ROOT, opened_at: now, closed_at: None, next_index };
        let (authority, certificate) = super::install::root_of(KEY_ELSEWHERE.to_owned(), &answer.root, now)?;
        let details = self.details(ITSELF.to_owned(), Some(format!("{} root", self.trust_domain)), None, None)?;
        let act = AddAuthority { authority: authority.clone(), certificate, epoch: Some(epoch), details, at: now };
        commit(&*self.store, act).await?;
        self.authorities.add(authority)?;
        Ok(())
    }

    async fn take_answer(&self, answer: &Verified, now: Timestamp) -> Result<Accepted> {
        let root = self.authorities.root()?;
        let answered = self.check_answer(answer, Some(&root), now).await?;
        let position = read(&*self.store, |rows| Ok(rows.ledger(&LedgerName::System)?.map_or(0, |tail| tail.frontier.size())));
        let list = &answer.list_facts;
        let next_update = list.next_update.unwrap_or(list.this_update);
        let stored = StoredCrl {
            authority: root.record.id,
            number: list.number,
            this_update: list.this_update,
            next_update,
            position: position.await?,
            der: answer.list.clone(),
        };
        let (number, value) = (answer.record.number, record_value(answer).ok_or(Refusal::RootRecordInvalid)?);
        let hash = value.get(8..).and_then(|hash| hash.try_into().ok()).ok_or(Refusal::RootRecordInvalid)?;
        let act = AcceptAnswer { key: RECORD, number, hash, answered: answered.clone(), list: stored.clone() };
        commit(&*self.store, act).await?;
        self.published.set_crl(stored);
        let revoked = self.revoked_by(&list.serials);
        for id in &revoked {
            alarm("root_revoked_authority", &format!("authority {id} is on the root's list, and not revoked here"));
        }
        let record_hash = answer.record_hash.clone();
        Ok(Accepted { record: number, record_hash, answered, list: list.number, list_holds_until: next_update, revoked })
    }

    /// Whether an answer is this root's, newer than those before, and fits what was asked for: the requests with their certificates.
    async fn check_answer(&self, answer: &Verified, root: Option<&Authority>, now: Timestamp) -> Result<Vec<RootRequest>> {
        if root.is_some_and(|root| root.fingerprint != answer.fingerprint) || answer.record.trust_domain != self.trust_domain {
            return Err(Refusal::RootAnswerForeign.into());
        }
        let id = root.map_or(ROOT, |root| root.record.id);
        let (last, crl, asked) =
            read(&*self.store, move |rows| Ok((rows.value(RECORD)?, rows.crl(id)?, rows.root_requests()?))).await?;
        check_record(answer, last.as_deref())?;
        let before = match crl.filter(|_| root.is_some()) {
            Some(crl) => {
                verified_list(&crl.der, &answer.root).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?
            }
            None => request::ListFacts { number: 0, this_update: Timestamp(0), next_update: None, serials: Vec::new() },
        };
        check_list(&answer.list_facts, &before, now)?;
        let pointers = pointers(self.authorities.public_url(), id);
        let mut answered = Vec::new();
        for (name, der) in &answer.authorities {
            let mismatch = |why: &str| Error::with_detail(Refusal::RootAnswerMismatch, format!("{name}: {why}."));
            let request = asked.iter().find(|request| request.id == *name);
            let request = request.ok_or_else(|| mismatch("nothing of this name is asked for"))?;
            if request.certificate.is_some() {
                return Err(Refusal::RootAnswerReplayed.into());
            }
            let AuthorityKind::Of(kind) = request.kind else { return Err(mismatch("it is not for the ceremony")) };
            let csr = VerifiedCsr::from_der(&request.csr).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
            let expected = Expected {
                domain: &self.trust_domain,
                kind,
                fleet: request.fleet.as_ref(),
                epoch: request.epoch,
                index: request.index,
                spki: csr.spki(),
                profile: self.find_profile(&format!("authority-{kind}"))?,
                pointers: &pointers,
            };
            fits(der, &expected, &answer.root).map_err(|why| mismatch(&why))?;
            answered.push(RootRequest { certificate: Some(der.clone()), ..request.clone() });
        }
        Ok(answered)
    }

    /// The authorities whose certificates these serials are, and that are not revoked here.
    fn revoked_by(&self, serials: &[Vec<u8>]) -> Vec<AuthorityId> {
        let all = self.authorities.all();
        let live = all.iter().filter(|authority| authority.record.state != AuthorityState::Revoked);
        let serial_of = |authority: &Authority| facts(&authority.record.certificate).ok().and_then(|facts| facts.serial);
        live.filter(|authority| {
            serial_of(authority).is_some_and(|serial| serials.iter().any(|listed| *listed == serial.octets()))
        })
        .map(|authority| authority.record.id)
        .collect()
    }

    /// Raises an alarm where a list that comes from a ceremony, or from above our root, is within a quarter of its end.
    pub fn watch_root_lists(&self, now: Timestamp) {
        let root = self.authorities.root().ok().filter(|root| !root.has_key);
        let own = root.and_then(|root| self.crl(root.record.id));
        let Some(soonest) = own.into_iter().chain(self.lists_above()).min_by_key(|list| list.next_update) else { return };
        let seconds = u32::try_from(soonest.next_update.since(now).as_secs()).unwrap_or(u32::MAX);
        metrics::gauge!("fleetmark_root_list_seconds_left").set(f64::from(seconds));
        if is_in_last_part(&soonest, now) {
            let whose = if soonest.authority == 0 { "a corporate authority's" } else { "the root's" };
            let what = format!("{whose} revocation list {} ends at {}: fetch a new one", soonest.number, soonest.next_update);
            alarm("root_list_ends", &what);
        }
    }
}

/// Whether a list is in the last quarter of its life, or past its end.
fn is_in_last_part(list: &StoredCrl, now: Timestamp) -> bool {
    list.next_update.since(now) < list.next_update.since(list.this_update) / LAST_PART
}

/// A record goes on from the newest one: its number is higher, and where it is the next one, it names that by its hash.
fn check_record(answer: &Verified, last: Option<&[u8]>) -> Result<()> {
    let record = &answer.record;
    let Some((number, hash)) = last.and_then(|last| last.split_first_chunk::<8>()) else { return Ok(()) };
    let number = u64::from_be_bytes(*number);
    if record.number <= number {
        let detail = format!("Record {number} was accepted already; this answer is of record {}.", record.number);
        return Err(Error::with_detail(Refusal::RootAnswerReplayed, detail));
    }
    if record.number == number.saturating_add(1) && record.previous != Some(hex::encode(hash)) {
        let detail = format!(
            "Record {} does not go on from record {number} as it was accepted: there are two copies of the root.",
            record.number
        );
        return Err(Error::with_detail(Refusal::RootRecordInvalid, detail));
    }
    Ok(())
}

/// A list holds now, and takes nothing back.
fn check_list(list: &request::ListFacts, before: &request::ListFacts, now: Timestamp) -> Result<()> {
    let refused = |why: String| Err(Error::with_detail(Refusal::RootListInvalid, why));
    if list.number <= before.number {
        let (there, here) = (list.number, before.number);
        return Err(Error::with_detail(
            Refusal::RootAnswerReplayed,
            format!("List {here} is here already; the answer's is {there}."),
        ));
    }
    if list.this_update > now || list.next_update.is_none_or(|end| end <= now) {
        return refused("The list does not hold now: look at the clocks of both machines.".to_owned());
    }
    match before.serials.iter().find(|serial| !list.serials.contains(serial)) {
        Some(missing) => refused(format!("The list does not name {}, which the one before it names.", hex::encode(missing))),
        None => Ok(()),
    }
}

/// Number and hash of an answer's record, as the store keeps them.
fn record_value(answer: &Verified) -> Option<Vec<u8>> {
    let hash = hex::decode(&answer.record_hash).ok()?;
    Some([&answer.record.number.to_be_bytes()[..], &hash].concat())
}

fn waits(request: &RootRequest) -> Error {
    let detail = format!(
        "Request {} waits for the root: `fleetmark root request --out FILE` fetches what its ceremony needs. Ask again when its \
         answer was accepted.",
        request.id
    );
    Error::with_detail(Refusal::WaitsForRoot, detail)
}

/// Reads an answer and verifies its record.
fn verified(octets: &[u8]) -> Result<Verified> {
    RootAnswer::read(octets).and_then(|answer| answer.verified()).map_err(|error| {
        let refusal = match &error {
            CeremonyError::Record(_) => Refusal::RootRecordInvalid,
            CeremonyError::Pki(crate::pki::PkiError::BadSignature | crate::pki::PkiError::List(_)) => Refusal::RootListInvalid,
            _ => Refusal::RootAnswerUnreadable,
        };
        let text = error.to_string();
        let mut letters = text.trim_start_matches("record_invalid: ").chars();
        let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
        Error::with_detail(refusal, format!("{first}{}.", letters.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use request::ListFacts;

    fn list(number: u64, from: i64, to: i64, serials: &[u8]) -> ListFacts {
        let serials = serials.iter().map(|serial| vec![*serial]).collect();
        ListFacts { number, this_update: Timestamp(from), next_update: Some(Timestamp(to)), serials }
    }

    #[test]
    fn a_list_goes_on_holds_now_and_forgets_nothing() {
        let before = list(3, 0, 1_000, &[1, 2]);
        let verdict = |next: &ListFacts| check_list(next, &before, Timestamp(500)).map_err(|error| error.refusal);
        assert_eq!(verdict(&list(4, 100, 2_000, &[2, 1, 3])), Ok(()));
        assert_eq!(verdict(&list(3, 100, 2_000, &[1, 2])), Err(Refusal::RootAnswerReplayed));
        assert_eq!(verdict(&list(2, 100, 2_000, &[1, 2])), Err(Refusal::RootAnswerReplayed));
        assert_eq!(verdict(&list(4, 501, 2_000, &[1, 2])), Err(Refusal::RootListInvalid), "from tomorrow");
        assert_eq!(verdict(&list(4, 100, 500, &[1, 2])), Err(Refusal::RootListInvalid), "ended");
        assert_eq!(verdict(&list(4, 100, 2_000, &[1])), Err(Refusal::RootListInvalid), "forgot one");
        assert_eq!(verdict(&ListFacts { next_update: None, ..list(4, 100, 0, &[1, 2]) }), Err(Refusal::RootListInvalid));
    }

    #[test]
    fn a_list_is_warned_of_in_the_last_quarter_of_its_life() {
        let (this_update, next_update) = (Timestamp(0), Timestamp(400));
        let list = StoredCrl { authority: 1, number: 1, this_update, next_update, position: 0, der: Vec::new() };
        assert_eq!(
            [0, 299, 300, 301, 399, 400, 900].map(|now| is_in_last_part(&list, Timestamp(now))),
            [false, false, false, true, true, true, true]
        );
    }
}
