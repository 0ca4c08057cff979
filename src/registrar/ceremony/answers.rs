//! What the ceremonies of roots answer.

use std::time::Duration;

use fleetmark_domain::{Action, Epoch, Fingerprint, Index, LedgerName, Refusal, RevocationReason, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};

use super::super::authorities::Authority;
use super::super::caller::{Caller, alarm};
use super::super::install::{ITSELF, ROOT, root_of};
use super::super::rollover::by_list::Named;
use super::super::rollover::plan::{PLAN, Plan};
use super::super::trust_bundle::{WANTED, Wanted};
use super::super::{Error, Registrar, Result};
use super::{of_roots, record_key};
use crate::ceremony::answer::{RootAnswer, Verified};
use crate::ceremony::judge::{Cross, Expected, cross_profile, fits, number_of, root_fits};
use crate::ceremony::request::{BundleState, pointers};
use crate::ceremony::{CeremonyError, root_names};
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::request::{self, verified_list};
use crate::pki::trust_bundle::voice;
use crate::store::acts::ceremony::AcceptAnswer;
use crate::store::acts::found::AddAuthority;
use crate::store::acts::lists::SetValue;
use crate::store::model::{AuthorityId, EpochRecord, RootRequest, StoredCrl};
use crate::store::{commit, read};

/// The label of a root's key that this machine never had.
const KEY_ELSEWHERE: &str = "root-elsewhere";
/// A list is to be renewed when this part of its life is left.
const LAST_PART: u32 = 4;
/// The clocks of two machines may differ by so much.
const CLOCKS: Duration = Duration::from_secs(86_400);

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
    /// Authorities that the list names, and that were revoked here now.
    pub revoked: Vec<AuthorityId>,
}

/// What of an answer fits what was asked for.
#[derive(Default)]
struct Answered {
    /// Authorities, with their certificates.
    requests: Vec<RootRequest>,
    /// The planned root, with what the answer adds.
    plan: Option<Plan>,
    /// The bundle that is waited for, with the root's word.
    wanted: Option<Wanted>,
    /// What else was answered.
    names: Vec<String>,
}

impl Registrar {
    /// Takes a root's answer in, for an operator. `new_root` is SHA-256 over the certificate of a root that the answer brings.
    ///
    /// # Errors
    /// `NotPermitted`, and those of [`Self::found_by_answer`].
    pub async fn accept_root_answer(
        &self,
        caller: &Caller,
        (octets, new_root): (&[u8], Option<Fingerprint>),
        now: Timestamp,
    ) -> Result<Accepted> {
        caller.may(Action::ManageFleets, None)?;
        let answer = verified(octets)?;
        self.refresh_authorities().await?;
        let _one_at_a_time = self.founding.lock().await;
        let known = self.authorities.roots().into_iter().find(|root| root.fingerprint == answer.fingerprint);
        let accepted = match known {
            Some(root) => self.take_answer(&root, &answer, Some(caller), now).await?,
            None => self.take_new_root(&answer, new_root, now).await?,
        };
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
        let last = read(&*self.store, |rows| rows.value(&record_key(ROOT))).await?;
        if self.authorities.root().is_err() {
            self.check_answer(&answer, None, now).await?;
            self.add_root_elsewhere(&answer, now).await?;
        } else if last.is_some_and(|last| Some(&last[..]) == record_value(&answer).as_deref()) {
            return Ok(());
        }
        let known = self.authorities.root()?;
        self.take_answer(&known, &answer, None, now).await.map(drop)
    }

    /// Adds the root that an answer brings.
    async fn add_root_elsewhere(&self, answer: &Verified, now: Timestamp) -> Result<()> {
        let profile = self.find_profile("root")?;
        root_fits(&answer.root, &self.trust_domain, &root_names(&self.trust_domain, None).1, profile).map_err(|why| {
            Error::with_detail(Refusal::RootAnswerForeign, format!("The root's certificate is refused: {why}."))
        })?;
        let highest = read(&*self.store, |rows| Ok(rows.root_requests()?.iter().map(|one| one.index.0).max())).await?;
        let next_index = highest.unwrap_or(0).saturating_add(1);
        let epoch = EpochRecord { number: Epoch(1), authority: ROOT, opened_at: now, closed_at: None, next_index };
        let (authority, certificate) = root_of(KEY_ELSEWHERE.to_owned(), &answer.root, now)?;
        let details = self.details(ITSELF.to_owned(), Some(format!("{} root", self.trust_domain)), None, None)?;
        let act = AddAuthority { authority: authority.clone(), certificate, epoch: Some(epoch), details, at: now };
        commit(&*self.store, act).await?;
        self.authorities.add(authority)?;
        Ok(())
    }

    /// Takes in what a root that is known answered.
    async fn take_answer(
        &self,
        root: &Authority,
        answer: &Verified,
        caller: Option<&Caller>,
        now: Timestamp,
    ) -> Result<Accepted> {
        let Answered { requests, plan, wanted, names } = self.check_answer(answer, Some(root), now).await?;
        let position = read(&*self.store, |rows| Ok(rows.ledger(&LedgerName::System)?.map_or(0, |tail| tail.frontier.size())));
        let stored = stored_list(root.record.id, answer, position.await?);
        let (number, value) = (answer.record.number, record_value(answer).ok_or(Refusal::RootRecordInvalid)?);
        let hash = value.get(8..).and_then(|hash| hash.try_into().ok()).ok_or(Refusal::RootRecordInvalid)?;
        let mut values: Vec<_> = plan.iter().map(|plan| (PLAN.to_owned(), plan.value())).collect();
        let mut bundle = None;
        if let Some(wanted) = wanted {
            let is_whole = self.missing_voices(&wanted).is_empty();
            bundle = if is_whole { Some(self.made_bundle(&wanted, &self.trusted_crosses())?) } else { None };
            values.push((WANTED.to_owned(), if is_whole { Vec::new() } else { wanted.value() }));
        }
        let named = self.named_by(answer, caller);
        values.push((Named::key(root.record.id), named.value()));
        let (key, list, answered) = (record_key(root.record.id), stored.clone(), requests.clone());
        commit(&*self.store, AcceptAnswer { key, number, hash, answered, list, bundle, values }).await?;
        self.published.set_crl(stored);
        self.refresh_bundles().await?;
        let (revoked, failure) = self.end_by_list(&named, now).await;
        if let Some(error) = failure {
            let (code, cause) = (error.refusal.code(), error.chain());
            tracing::error!(code, cause, "what the root's list names is not revoked yet");
        }
        let others = names.into_iter().map(|name| of_roots(name, now, Some(Vec::new())));
        Ok(accepted(answer, requests.into_iter().chain(others).collect(), revoked))
    }

    /// Takes in what a root answered that was made for this installation a moment ago. It is believed because a person read its
    /// fingerprint on its ceremony's record.
    async fn take_new_root(&self, answer: &Verified, named: Option<Fingerprint>, now: Timestamp) -> Result<Accepted> {
        let foreign = |why: String| Error::with_detail(Refusal::RootAnswerForeign, why);
        let planned = self.planned_root().await?.filter(|plan| plan.elsewhere && plan.root.is_none());
        let mut plan = planned.ok_or(Refusal::RootAnswerForeign)?;
        if named != Some(answer.fingerprint) {
            let why = "It brings a new root: name its fingerprint, as it was read out at its ceremony, by --root-fingerprint";
            return Err(foreign(format!("{why}. The answer says {}.", answer.fingerprint)));
        }
        let known = facts(&answer.root).map_err(|cause| Error::caused(Refusal::RootAnswerForeign, cause))?;
        root_fits(&answer.root, &self.trust_domain, &plan.name, self.find_profile("root")?)
            .map_err(|why| foreign(format!("The root's certificate is refused: {why}.")))?;
        let place = known.serial.map(|serial| (serial.epoch(), serial.index()));
        let all = self.authorities.all();
        let is_known = all.iter().any(|one| facts(&one.record.certificate).is_ok_and(|one| one.key_hash == known.key_hash));
        if place != Some((Epoch(plan.epoch), Index(0))) || is_known || answer.record.trust_domain != self.trust_domain {
            return Err(foreign(
                "It is not the root that was asked for: another place, installation, or a key that is known.".to_owned(),
            ));
        }
        check_list(&answer.list_facts, &no_list(), now)?;
        plan.root = Some(answer.root.clone());
        plan.bundle.roots.push((BundleState::Prepared, answer.root.clone()));
        let id = plan.id;
        for (name, der) in &answer.authorities {
            self.take_cross(&mut plan, (name, der), (id, &answer.root), now)?;
        }
        let open = plan.crosses.iter().find(|cross| cross.by == plan.id && cross.certificate.is_none());
        if let Some(open) = open {
            return Err(Error::with_detail(Refusal::RootAnswerMismatch, format!("{} is missing.", open.id)));
        }
        if !self.hear(&mut plan.bundle, answer)? {
            return Err(Error::with_detail(Refusal::RootAnswerMismatch, "Its signature for the trust bundle is missing."));
        }
        let last = record_value(answer).ok_or(Refusal::RootRecordInvalid)?;
        plan.first = Some((answer.list.clone(), last));
        self.sign_plan(&mut plan, now)?;
        commit(&*self.store, SetValue { name: PLAN.to_owned(), value: plan.value() }).await?;
        Ok(accepted(answer, vec![of_roots(format!("root-{}", plan.id), now, Some(Vec::new()))], Vec::new()))
    }

    /// Whether an answer is this root's, newer than those before, and fits what was asked for: the requests with their certificates.
    async fn check_answer(&self, answer: &Verified, root: Option<&Authority>, now: Timestamp) -> Result<Answered> {
        if root.is_some_and(|root| root.fingerprint != answer.fingerprint) || answer.record.trust_domain != self.trust_domain {
            return Err(Refusal::RootAnswerForeign.into());
        }
        let (id, key) = root.map_or((ROOT, record_key(ROOT)), |root| (root.record.id, record_key(root.record.id)));
        let (last, crl, asked) =
            read(&*self.store, move |rows| Ok((rows.value(&key)?, rows.crl(id)?, rows.root_requests()?))).await?;
        check_record(answer, last.as_deref())?;
        let before = match crl.filter(|_| root.is_some()) {
            Some(crl) => {
                verified_list(&crl.der, &answer.root).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?
            }
            None => no_list(),
        };
        check_list(&answer.list_facts, &before, now)?;
        let mut plan = self.planned_root().await?;
        let mut answered = Answered::default();
        for (name, der) in &answer.authorities {
            if let Some(plan) = plan.as_mut().filter(|plan| plan.crosses.iter().any(|cross| cross.id == *name)) {
                self.take_cross(plan, (name, der), (id, &answer.root), now)?;
                answered.names.push(name.clone());
                continue;
            }
            let request = asked.iter().find(|request| request.id == *name);
            let request = request.ok_or_else(|| mismatch(name, "nothing of this name is asked for"))?;
            let certificate = Some(self.certified(request, der, (id, &answer.root))?);
            answered.requests.push(RootRequest { certificate, ..request.clone() });
        }
        if answer.bundle.is_some() {
            let mut awaited = self.awaited_bundle().await?;
            let is_of_plan = plan.as_mut().map_or(Ok(false), |plan| self.hear(&mut plan.bundle, answer))?;
            if !is_of_plan && !awaited.as_mut().map_or(Ok(false), |wanted| self.hear(wanted, answer))? {
                return Err(mismatch("the trust bundle", "another one is asked for by now, or none: fetch the request again"));
            }
            answered.names.push(format!("trust-bundle-by-{id}"));
            answered.wanted = awaited.filter(|_| !is_of_plan);
        }
        answered.plan = plan;
        Ok(answered)
    }

    /// The certificate of an authority, held against its request.
    fn certified(&self, request: &RootRequest, der: &[u8], (id, root): (AuthorityId, &[u8])) -> Result<Vec<u8>> {
        if request.certificate.is_some() {
            return Err(Refusal::RootAnswerReplayed.into());
        }
        let AuthorityKind::Of(kind) = request.kind else { return Err(mismatch(&request.id, "it is not for the ceremony")) };
        let csr = VerifiedCsr::from_der(&request.csr).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
        let expected = Expected {
            domain: &self.trust_domain,
            kind,
            fleet: request.fleet.as_ref(),
            number: number_of(&request.csr),
            epoch: request.epoch,
            index: request.index,
            spki: csr.spki(),
            profile: self.find_profile(&format!("authority-{kind}"))?,
            pointers: &pointers(self.authorities.public_url(), id),
        };
        fits(der, &expected, root).map_err(|why| mismatch(&request.id, &why))?;
        Ok(der.to_vec())
    }

    /// Takes a root's key by another root into the plan.
    fn take_cross(
        &self,
        plan: &mut Plan,
        (name, der): (&str, &[u8]),
        (by, root): (AuthorityId, &[u8]),
        now: Timestamp,
    ) -> Result<()> {
        let asked = plan.crosses.iter().position(|cross| cross.id == name && cross.by == by && cross.certificate.is_none());
        let asked = asked.ok_or_else(|| mismatch(name, "nothing of this name is asked of this root"))?;
        let cross = plan.crosses.get(asked).cloned().ok_or(Refusal::RootAnswerMismatch)?;
        let of = self.root_certificate(plan, cross.of).ok_or_else(|| mismatch(name, "there is no such root yet"))?;
        let profile = cross_profile(self.authorities.profiles()).ok_or(Refusal::AuthorityUnavailable)?;
        let pointers = pointers(self.authorities.public_url(), by);
        let shape = Cross { profile: &profile, domain: &self.trust_domain, of: &of, pointers: &pointers };
        let place = (Epoch(cross.place.0), Index(cross.place.1));
        // The clocks of two machines differ.
        let longest = now + cross.lifetime() + CLOCKS;
        shape.fits(der, root, place, longest).map_err(|why| mismatch(name, &why))?;
        if let Some(cross) = plan.crosses.get_mut(asked) {
            cross.certificate = Some(der.to_vec());
        }
        Ok(())
    }

    /// Takes the answer's word for this bundle; whether it is for this one.
    fn hear(&self, wanted: &mut Wanted, answer: &Verified) -> Result<bool> {
        let content = wanted.content(&self.trust_domain)?;
        let Some((_, signature)) = answer.bundle.as_ref().filter(|(hash, _)| *hash == crate::ceremony::sha256(&content)) else {
            return Ok(false);
        };
        if wanted.waits_for(&answer.fingerprint) {
            let heard = voice(&content, &answer.root, signature);
            heard.map_err(|_| mismatch("the trust bundle", "its signature is not the root's"))?;
            wanted.voices.push((answer.fingerprint, signature.clone()));
        }
        Ok(true)
    }

    /// What the list names that is to end here. The authority of the caller's own certificate is left to them, since nobody could act
    /// any more: they renew under a successor, and revoke it.
    fn named_by(&self, answer: &Verified, caller: Option<&Caller>) -> Named {
        let is_own = |id| caller.is_some_and(|caller| caller.certificate.authority == id);
        let (own, authorities): (Vec<_>, Vec<_>) = self.revoked_by(answer).into_iter().partition(|(id, _)| is_own(*id));
        for (id, _) in own {
            let what =
                format!("authority {id} is on the root's list, and your own certificate is of it: renew, then revoke it");
            alarm("root_revoked_authority", &what);
        }
        let by = caller.map_or_else(|| ITSELF.to_owned(), |caller| caller.actor(self));
        Named { list: answer.list_facts.number, by, authorities }
    }

    /// The authorities whose certificates the list names, and that are not revoked here, each with the reason that the record gives.
    fn revoked_by(&self, answer: &Verified) -> Vec<(AuthorityId, RevocationReason)> {
        let all = self.authorities.all();
        let live = all.iter().filter(|one| one.record.state != AuthorityState::Revoked && !one.record.is_root());
        let named = live.filter_map(|authority| {
            let serial = facts(&authority.record.certificate).ok()?.serial?;
            let is_listed = answer.list_facts.names(serial.octets());
            let reason = answer.record.revoked.iter().find(|(named, _)| *named == serial).map(|(_, reason)| *reason);
            is_listed.then(|| (authority.record.id, reason.unwrap_or(RevocationReason::Unspecified)))
        });
        named.collect()
    }

    /// Raises an alarm where a list that comes from a ceremony, or from above our root, is within a quarter of its end.
    pub fn watch_root_lists(&self, now: Timestamp) {
        let elsewhere = self.authorities.roots().into_iter().filter(|root| !root.has_key);
        let own = elsewhere.filter_map(|root| self.crl(root.record.id));
        let Some(soonest) = own.chain(self.lists_above()).min_by_key(|list| list.next_update) else { return };
        let seconds = u32::try_from(soonest.next_update.since(now).as_secs()).unwrap_or(u32::MAX);
        metrics::gauge!("fleetmark_root_list_seconds_left").set(f64::from(seconds));
        if is_in_last_part(&soonest, now) {
            let whose = if soonest.authority == 0 { "a corporate authority's" } else { "the root's" };
            let what = format!("{whose} revocation list {} ends at {}: fetch a new one", soonest.number, soonest.next_update);
            alarm("root_list_ends", &what);
        }
    }
}

fn mismatch(name: &str, why: &str) -> Error {
    Error::with_detail(Refusal::RootAnswerMismatch, format!("{name}: {why}."))
}

/// Before a root's first list.
const fn no_list() -> request::ListFacts {
    request::ListFacts { number: 0, this_update: Timestamp(0), next_update: None, revoked: Vec::new() }
}

fn stored_list(authority: AuthorityId, answer: &Verified, position: u64) -> StoredCrl {
    let list = &answer.list_facts;
    StoredCrl {
        authority,
        number: list.number,
        this_update: list.this_update,
        next_update: list.next_update.unwrap_or(list.this_update),
        position,
        der: answer.list.clone(),
    }
}

fn accepted(answer: &Verified, answered: Vec<RootRequest>, revoked: Vec<AuthorityId>) -> Accepted {
    let list = &answer.list_facts;
    Accepted {
        record: answer.record.number,
        record_hash: answer.record_hash.clone(),
        answered,
        list: list.number,
        list_holds_until: list.next_update.unwrap_or(list.this_update),
        revoked,
    }
}

/// Whether a list is in the last quarter of its life, or past its end.
fn is_in_last_part(list: &StoredCrl, now: Timestamp) -> bool {
    list.next_update.since(now) < list.next_update.since(list.this_update) / LAST_PART
}

/// A record goes on from the newest one that was accepted: the answer holds every record since, and the first of them names that one by
/// its hash.
fn check_record(answer: &Verified, last: Option<&[u8]>) -> Result<()> {
    let Some((number, hash)) = last.and_then(|last| last.split_first_chunk::<8>()) else { return Ok(()) };
    let (number, this) = (u64::from_be_bytes(*number), answer.record.number);
    if this <= number {
        let detail = format!("Record {number} was accepted already; this answer is of record {this}.");
        return Err(Error::with_detail(Refusal::RootAnswerReplayed, detail));
    }
    let next = answer.chain.iter().find(|(held, _)| *held == number.saturating_add(1));
    let detail = match next {
        Some((_, previous)) if *previous == Some(hex::encode(hash)) => return Ok(()),
        Some(_) => {
            format!("Record {this} does not go on from record {number} as it was accepted: there are two copies of the root.")
        }
        None => format!(
            "Record {number} was accepted last, and the answer of record {this} does not hold all records since: bring the answers \
             between first."
        ),
    };
    Err(Error::with_detail(Refusal::RootRecordInvalid, detail))
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
    match before.revoked.iter().find(|line| !list.names(&line.serial)) {
        Some(missing) => {
            refused(format!("The list does not name {}, which the one before it names.", hex::encode(&missing.serial)))
        }
        None => Ok(()),
    }
}

/// Number and hash of an answer's record, as the store keeps them.
fn record_value(answer: &Verified) -> Option<Vec<u8>> {
    let hash = hex::decode(&answer.record_hash).ok()?;
    Some([&answer.record.number.to_be_bytes()[..], &hash].concat())
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
    use request::{ListFacts, Listed};

    fn list(number: u64, from: i64, to: i64, serials: &[u8]) -> ListFacts {
        let line =
            |serial: &u8| Listed { serial: vec![*serial], since: Timestamp(from), reason: RevocationReason::Unspecified };
        let revoked = serials.iter().map(line).collect();
        ListFacts { number, this_update: Timestamp(from), next_update: Some(Timestamp(to)), revoked }
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
