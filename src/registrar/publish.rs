//! CRLs and OCSP answers: views of the ledger, for anybody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::standing::Choices;
use fleetmark_domain::{LedgerName, Refusal, Sight, Timestamp, View};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState, Entry, Event};
use tokio::sync::Notify;

use super::authorities::Authority;
use super::caller::alarm;
use super::{Error, Registrar, Result};
use crate::pki::crl::{CrlHeader, RevokedCertificate, build};
use crate::pki::issue::Issuer;
use crate::pki::ocsp::{self, Failure, Question, Status};
use crate::store::acts::lists::PutCrl;
use crate::store::model::{AuthorityId, StoredCrl};
use crate::store::rows::{Rows, certificate_id};
use crate::store::{StoreError, commit, read};

/// How long a list holds (DESIGN §3.3).
const CRL_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// How long the root's holds: its key may lie in a safe.
const ROOT_CRL_LIFETIME: Duration = Duration::from_secs(180 * 86_400);
/// How long an OCSP answer holds (DESIGN §3.3).
const OCSP_LIFETIME: Duration = Duration::from_secs(3_600);
/// How many OCSP answers are kept.
const OCSP_KEPT: usize = 65_536;
/// Rows read at once.
const PAGE: u32 = 1_000;

/// An OCSP answer in DER.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// The octets.
    pub der: Vec<u8>,
    /// How long a cache may keep it; None: not at all (nonce, or an unsigned failure).
    pub fresh_until: Option<Timestamp>,
    /// When the statuses were read.
    pub at: Timestamp,
}

/// What is published now.
#[derive(Default)]
pub struct Published {
    crls: ArcSwap<BTreeMap<AuthorityId, Arc<StoredCrl>>>,
    responders: ArcSwap<BTreeMap<AuthorityId, Arc<Issuer>>>,
    answers: Mutex<HashMap<Vec<u8>, OcspAnswer>>,
    changed: Notify,
}

impl Published {
    /// Completes when a standing changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the authority's OCSP responder answers with this certificate already.
    pub(super) fn responds_with(&self, authority: AuthorityId, certificate: &[u8]) -> bool {
        self.responders.load().get(&authority).is_some_and(|responder| *responder.certificate == *certificate)
    }

    /// Takes on an authority's OCSP responder.
    pub(super) fn set_responder(&self, authority: AuthorityId, responder: Issuer) {
        let responder = Arc::new(responder);
        self.responders.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.insert(authority, responder.clone());
            next
        });
        self.forget_answers();
    }

    /// An authority is trusted no more: nobody answers for it.
    pub(super) fn drop_responder(&self, authority: AuthorityId) {
        self.responders.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.remove(&authority);
            next
        });
        self.forget_answers();
    }

    /// A standing changed: answers that were kept are void, lists want to be made anew.
    pub(super) fn standing_changed(&self) {
        self.forget_answers();
        self.changed.notify_one();
    }

    fn forget_answers(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn set_crl(&self, crl: StoredCrl) {
        let crl = Arc::new(crl);
        self.crls.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.insert(crl.authority, crl.clone());
            next
        });
    }
}

impl Registrar {
    /// What is published now.
    pub const fn published(&self) -> &Published {
        &self.published
    }

    /// The authority's list as it was last made; it is made anew at once by [`Self::refresh_crls`] when a standing changed.
    pub fn crl(&self, authority: AuthorityId) -> Option<Arc<StoredCrl>> {
        self.published.crls.load().get(&authority).cloned()
    }

    /// Every authority's list, the root's with them.
    pub fn crls(&self) -> Vec<Arc<StoredCrl>> {
        self.published.crls.load().values().cloned().collect()
    }

    /// Makes anew each list that is past half of its life, or whose authority's certificates changed their standing.
    /// Returns how many were made. One that cannot be made keeps no other from being made.
    ///
    /// # Errors
    /// The first failure, after all lists were tried.
    pub async fn refresh_crls(&self, now: Timestamp) -> Result<usize> {
        let mut made = 0;
        let mut failure = None;
        for authority in self.authorities.all().iter().filter(|authority| authority.record.state != AuthorityState::Revoked) {
            match self.refresh_crl(authority, now).await {
                Ok(is_new) => made += usize::from(is_new),
                Err(error) => {
                    alarm("crl_not_made", &format!("authority {}: {}", authority.record.id, error.refusal));
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(made), Err)
    }

    async fn refresh_crl(&self, authority: &Authority, now: Timestamp) -> Result<bool> {
        if !self.wants_crl(authority, now).await? {
            return Ok(false);
        }
        // An offline root's list is brought by its ceremony; until then the one that is there holds.
        let holds = self.crl(authority.record.id).is_some_and(|crl| now < crl.next_update);
        if !authority.has_key && holds {
            return Ok(false);
        }
        self.make_crl(authority, now).await
    }

    /// Whether the authority's list is missing, past half of its life, or behind its ledger's changes of standing.
    async fn wants_crl(&self, authority: &Authority, now: Timestamp) -> Result<bool> {
        let id = authority.record.id;
        let newest = match self.crl(id) {
            Some(newest) => newest,
            None => match read(&*self.store, move |rows| rows.crl(id)).await? {
                Some(stored) => {
                    self.published.set_crl(stored);
                    self.crl(id).ok_or(Refusal::Overloaded)?
                }
                None => return Ok(true),
            },
        };
        let half = newest.next_update.since(newest.this_update) / 2;
        if newest.this_update + half <= now {
            return Ok(true);
        }
        let (ledger, mut from) = (authority.ledger(), newest.position);
        loop {
            let name = ledger.clone();
            let entries = read(&*self.store, move |rows| rows.entries(&name, from, PAGE)).await?;
            let Some(last) = entries.last() else { break };
            from = last.position + 1;
            for stored in &entries {
                let entry = Entry::decode(&stored.entry).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))?;
                if self.concerns(authority, &entry.event).await? {
                    self.published.forget_answers();
                    return Ok(true);
                }
            }
        }
        if from > newest.position {
            self.published.set_crl(StoredCrl { position: from, ..StoredCrl::clone(&newest) });
        }
        Ok(false)
    }

    /// Whether the event changes what the authority's list names: authorities of the installation share the system ledger.
    async fn concerns(&self, authority: &Authority, event: &Event) -> Result<bool> {
        let certificates = match event {
            Event::FleetChanged { .. } => return Ok(authority.record.fleet.is_some()),
            Event::StandingChanged { certificates, .. } => certificates,
            _ => return Ok(false),
        };
        let epochs: BTreeSet<_> = certificates.ranges().iter().map(|range| range.epoch).collect();
        let id = authority.record.id;
        let concerned = read(&*self.store, move |rows| {
            for epoch in epochs {
                if rows.epoch(epoch)?.is_some_and(|epoch| epoch.authority == id) {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        Ok(concerned.await?)
    }

    async fn make_crl(&self, authority: &Authority, now: Timestamp) -> Result<bool> {
        let (id, ledger, fleet) = (authority.record.id, authority.ledger(), authority.record.fleet.clone());
        let (position, number, revoked) = read(&*self.store, move |rows| {
            let choices = match &fleet {
                Some(fleet) => rows.fleet(fleet)?.map(|fleet| fleet.choices).unwrap_or_default(),
                None => Choices::default(),
            };
            let position = rows.ledger(&ledger)?.map_or(0, |tail| tail.frontier.size());
            let number = rows.crl(id)?.map_or(1, |newest| newest.number + 1);
            Ok((position, number, listed(rows, id, choices, now)?))
        })
        .await?;
        let is_root = authority.record.kind == AuthorityKind::Root;
        let next_update = now + if is_root { ROOT_CRL_LIFETIME } else { CRL_LIFETIME };
        let header = CrlHeader { number, this_update: now, next_update };
        let der =
            build(&authority.issuer, &header, &revoked).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        let crl = StoredCrl { authority: id, number, this_update: now, next_update, position, der };
        if commit(&*self.store, PutCrl { crl: crl.clone() }).await? {
            tracing::info!(authority = id, number, revoked = revoked.len(), position, "revocation list made");
            self.published.set_crl(crl);
            return Ok(true);
        }
        // Another server made one with this number: take that.
        if let Some(newest) = read(&*self.store, move |rows| rows.crl(id)).await? {
            self.published.set_crl(newest);
        }
        Ok(false)
    }

    /// Answers an OCSP request.
    pub async fn ocsp(&self, request: &[u8], now: Timestamp) -> OcspAnswer {
        let kept = self.published.answers.lock().unwrap_or_else(PoisonError::into_inner).get(request).cloned();
        if let Some(kept) = kept.filter(|kept| kept.fresh_until.is_some_and(|until| now < until)) {
            metrics::counter!("fleetmark_ocsp_total", "outcome" => "kept").increment(1);
            return kept;
        }
        let (der, fresh_until) = match self.answer(request, now).await {
            Ok(answer) => answer,
            Err(failure) => (ocsp::failure(failure), None),
        };
        let outcome = if fresh_until.is_some() { "signed" } else { "not_cacheable" };
        metrics::counter!("fleetmark_ocsp_total", "outcome" => outcome).increment(1);
        let answer = OcspAnswer { der, fresh_until, at: now };
        if fresh_until.is_some() {
            let mut answers = self.published.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() >= OCSP_KEPT {
                answers.clear();
            }
            answers.insert(request.to_vec(), answer.clone());
        }
        answer
    }

    async fn answer(&self, der: &[u8], now: Timestamp) -> std::result::Result<(Vec<u8>, Option<Timestamp>), Failure> {
        let request = ocsp::parse(der)?;
        let all = self.authorities.all();
        let ours = |question: &Question| all.iter().find(|authority| authority.hashes.fits(question)).cloned();
        let authority = request.questions.iter().find_map(ours).ok_or(Failure::Unauthorized)?;
        let responder = self.published.responders.load().get(&authority.record.id).cloned().ok_or(Failure::Unauthorized)?;
        let statuses = self.statuses(&authority, &request.questions, now).await.map_err(|error| {
            alarm("ocsp_failed", error.refusal.code());
            Failure::TryLater
        })?;
        let has_unknown = statuses.contains(&Status::Unknown);
        let answers: Vec<_> = request.questions.into_iter().zip(statuses).collect();
        let next_update = now + OCSP_LIFETIME;
        let der = ocsp::respond(&responder, &answers, request.nonce.as_deref(), now, next_update)
            .map_err(|_| Failure::InternalError)?;
        // A certificate that is unknown now may be issued in a moment.
        let keep = request.nonce.is_none() && !has_unknown;
        Ok((der, keep.then_some(next_update)))
    }

    async fn statuses(&self, authority: &Arc<Authority>, questions: &[Question], now: Timestamp) -> Result<Vec<Status>> {
        let serials: Vec<_> =
            questions.iter().map(|question| question.serial.filter(|_| authority.hashes.fits(question))).collect();
        let authority = authority.clone();
        let statuses = read(&*self.store, move |rows| {
            let choices = match &authority.record.fleet {
                Some(fleet) => rows.fleet(fleet)?.map(|fleet| fleet.choices).unwrap_or_default(),
                None => Choices::default(),
            };
            let mut statuses = Vec::with_capacity(serials.len());
            for serial in serials {
                let found = match serial {
                    Some(serial) => rows.certificate(certificate_id(serial.epoch(), serial.index()))?,
                    None => None,
                };
                let found = found.filter(|found| Some(found.serial) == serial && found.authority == authority.record.id);
                statuses.push(found.map_or(Status::Unknown, |found| {
                    let sight = found.standing.seen_by(View::Ocsp, found.has_lapsed(now), choices);
                    match sight {
                        Sight::Good | Sight::Restricted | Sight::Refused => Status::Good,
                        Sight::Held => Status::Revoked(found.changed_at, None),
                        Sight::Revoked(reason) => Status::Revoked(found.changed_at, Some(reason)),
                    }
                }));
            }
            Ok(statuses)
        });
        Ok(statuses.await?)
    }

    /// The ledgers' names, for views that need them all.
    pub async fn ledger_names(&self) -> Result<Vec<LedgerName>> {
        let ledgers = read(&*self.store, |rows| rows.ledgers()).await?;
        Ok(ledgers.into_iter().map(|ledger| ledger.name).collect())
    }
}

/// The certificates that the authority's list names, by the table.
fn listed(
    rows: &mut dyn Rows,
    authority: AuthorityId,
    choices: Choices,
    now: Timestamp,
) -> std::result::Result<Vec<RevokedCertificate>, StoreError> {
    let mut revoked = Vec::new();
    let mut after = None;
    loop {
        let page = rows.not_good(authority, now, after.unwrap_or(0), PAGE)?;
        let Some(last) = page.last() else { return Ok(revoked) };
        after = Some(certificate_id(last.serial.epoch(), last.serial.index()));
        for certificate in page {
            let reason = match certificate.standing.seen_by(View::Crl, false, choices) {
                Sight::Revoked(reason) => Some(reason),
                Sight::Held => None,
                Sight::Good | Sight::Restricted | Sight::Refused => continue,
            };
            revoked.push(RevokedCertificate { serial: certificate.serial, since: certificate.changed_at, reason });
        }
    }
}
