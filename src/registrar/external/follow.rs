//! What other authorities say of their certificates: fetched in time, verified, merged with what we say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetmark_domain::{Fingerprint, FleetName, LedgerName, Refusal, Standing, Timestamp};
use fleetmark_external::{Foreign, issuer_hash};
use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;

use super::fetch::Answer;
use crate::pki::anchors::split;
use crate::pki::foreign::{crl, ocsp};
use crate::registrar::install::ITSELF;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::external::{ChangeExternal, MergeForeign, PutForeignList, merged};
use crate::store::model::{
    AdoptWhen, AuthorityId, External, ExternalCertificate, ExternalSwitch, ForeignList, OnStale, StatusSource,
};
use crate::store::{commit, read};

/// After a failure it is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// A list that holds for a short time is asked for no oftener than this.
const SOONEST: Duration = Duration::from_secs(2);
/// Certificates that are merged in one transaction, and asked about at once.
const PAGE: u32 = 500;
/// So many questions to a responder are under way.
const QUESTIONS: usize = 32;

/// Something that failed when an authority was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub url: String,
    /// What was wrong.
    pub what: String,
    /// When.
    pub at: Timestamp,
}

/// What is said of one certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Good, held or revoked; or that nothing is known that still holds.
    pub standing: std::result::Result<Standing, Refusal>,
    /// Until when, where it is said of this one alone.
    pub next_update: Option<Timestamp>,
}

/// Who is to be asked when, and what failed.
#[derive(Default)]
pub(super) struct State(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    all: Vec<External>,
    due: BTreeMap<AuthorityId, Timestamp>,
    failures: BTreeMap<AuthorityId, Vec<Failure>>,
    /// One at a time asks an authority.
    turns: BTreeMap<AuthorityId, Arc<tokio::sync::Mutex<()>>>,
}

impl State {
    /// Takes the external authorities as they are now.
    pub(super) fn take(&self, all: Vec<External>) {
        self.inner().all = all;
    }

    pub(super) fn failures(&self, id: AuthorityId) -> Vec<Failure> {
        self.inner().failures.get(&id).cloned().unwrap_or_default()
    }

    /// Those whose certificates name this issuer and may be adopted when they are seen; `fleet`: of this one alone.
    pub(super) fn adopting(&self, issuer: &[u8; 32], fleet: Option<&FleetName>) -> Vec<External> {
        let names = |external: &&External| {
            let all = fleetmark_external::split(&external.material).unwrap_or_default();
            all.into_iter().any(|der| issuer_hash(der).is_ok_and(|hash| hash == *issuer))
        };
        let may = |external: &&External| {
            let is_here = fleet.is_none_or(|fleet| external.fleet == *fleet);
            is_here && external.rules.adopt.when != AdoptWhen::Import && external.switch != ExternalSwitch::Ended
        };
        self.inner().all.iter().filter(may).filter(names).cloned().collect()
    }

    /// Those that are to be asked now.
    fn due(&self, now: Timestamp) -> Vec<AuthorityId> {
        let inner = self.inner();
        let asked = |external: &&External| {
            external.switch != ExternalSwitch::Ended && (external.rules.status != StatusSource::None || external.stale)
        };
        let is_due = |external: &&External| inner.due.get(&external.id).is_none_or(|at| *at <= now);
        inner.all.iter().filter(asked).filter(is_due).map(|external| external.id).collect()
    }

    fn turn(&self, id: AuthorityId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.inner().turns.entry(id).or_default())
    }

    fn asked(&self, id: AuthorityId, failures: Vec<Failure>, due: Timestamp) {
        let mut inner = self.inner();
        inner.due.insert(id, due);
        inner.failures.insert(id, failures);
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of asking an authority.
struct Heard {
    /// Whether anything that it says is past its end.
    stale: bool,
    /// The first end of what it says.
    holds_until: Option<Timestamp>,
    failures: Vec<Failure>,
}

impl Registrar {
    /// Asks every external authority that is to be asked now.
    ///
    /// # Errors
    /// The first failure of the store; what an authority fails in is told by alarms and shown with it.
    pub async fn follow_externals(&self, now: Timestamp) -> Result<()> {
        let due = self.externals.follow.due(now);
        join_all(due.into_iter().map(|id| self.follow(id, now))).await.into_iter().collect()
    }

    /// The same of one, whether it is due or not; a failure is told and tried again.
    pub(super) async fn follow_now(&self, id: AuthorityId, now: Timestamp) {
        if let Err(error) = self.follow(id, now).await {
            tracing::warn!(authority = id, %error, cause = error.chain(), "an external authority was not followed; tried again");
        }
    }

    async fn follow(&self, id: AuthorityId, now: Timestamp) -> Result<()> {
        let turn = self.externals.follow.turn(id);
        let _turn = turn.lock().await;
        let Some(external) = read(&*self.store, move |rows| rows.external(id)).await? else { return Ok(()) };
        if external.switch == ExternalSwitch::Ended {
            return Ok(());
        }
        let heard = match external.rules.status.clone() {
            StatusSource::None => Heard { stale: false, holds_until: None, failures: Vec::new() },
            StatusSource::Crl { urls } => self.hear_lists(&external, &urls, now).await?,
            StatusSource::Ocsp { .. } => self.hear_responder(&external, now).await?,
        };
        for Failure { url, what, .. } in &heard.failures {
            let what = format!("external authority {}, {url}: {what}", external.name);
            self.raise("external_status_failed", LedgerName::Fleet(external.fleet.clone()), 0, &what, now);
        }
        let due = self.next_question(&external, &heard, now)?;
        let stale = heard.stale;
        self.externals.follow.asked(id, heard.failures, due);
        self.settle_stale(&external, stale, now).await
    }

    /// Half way to the end of what was said, and within the interval; sooner after a failure. A tenth more or less, so that many
    /// servers do not ask at one time.
    fn next_question(&self, external: &External, heard: &Heard, now: Timestamp) -> Result<Timestamp> {
        let mut wait = Duration::from_secs(external.rules.interval.into());
        if let Some(end) = heard.holds_until {
            wait = wait.min((end.since(now) / 2).max(SOONEST));
        }
        if !heard.failures.is_empty() || heard.stale {
            wait = wait.min(AGAIN);
        }
        let jitter = f64::from(u16::from_be_bytes(self.random()?)) / f64::from(u16::MAX);
        Ok(now + wait.mul_f64(0.9 + 0.2 * jitter).max(SOONEST))
    }

    /// What is past its end refuses, unless the fleet chose to go on.
    async fn settle_stale(&self, external: &External, stale: bool, now: Timestamp) -> Result<()> {
        if stale {
            let what = format!("external authority {}: what it says of its certificates is past its end", external.name);
            self.raise("external_status_stale", LedgerName::Fleet(external.fleet.clone()), 0, &what, now);
        }
        let gauge = metrics::gauge!("fleetmark_external_status_stale", "authority" => external.id.to_string());
        gauge.set(if stale { 1.0 } else { 0.0 });
        let stale = stale && external.rules.on_stale == OnStale::Refuse;
        if stale == external.stale {
            return Ok(());
        }
        let word = if stale { "its word is past its end" } else { "its word is here" };
        let details =
            self.details(ITSELF.to_owned(), None, None, Some(format!("external authority {}: {word}", external.name)))?;
        let (fleet, id) = (external.fleet.clone(), external.id);
        let (version, rules, material, switch) = (None, None, None, None);
        let act = ChangeExternal { fleet, id, version, rules, material, switch, stale: Some(stale), details, at: now };
        commit(&*self.store, act).await?;
        tracing::info!(fleet = %external.fleet, authority = %external.name, stale, "an external authority's word");
        self.refresh_externals().await
    }

    async fn hear_lists(&self, external: &External, urls: &[String], now: Timestamp) -> Result<Heard> {
        let authorities = certificates_of(external)?;
        let id = external.id;
        let mut stored = read(&*self.store, move |rows| rows.foreign_lists(id)).await?;
        stored.retain(|list| urls.contains(&list.url));
        let fetched = urls.iter().map(|url| {
            let before = stored.iter().find(|list| list.url == *url);
            self.fetch_list(external, &authorities, url, before, now)
        });
        let mut failures = Vec::new();
        for (url, fetched) in urls.iter().zip(join_all(fetched).await) {
            match fetched {
                Ok(list) => {
                    commit(&*self.store, PutForeignList { fleet: external.fleet.clone(), list: list.clone() }).await?;
                    stored.retain(|list| list.url != *url);
                    stored.push(list);
                }
                Err(what) => failures.push(Failure { url: url.clone(), what, at: now }),
            }
        }
        let lists = Lists::of(&stored, &authorities, now);
        let holds_until = stored.iter().map(|list| list.next_update).min().filter(|_| stored.len() == urls.len());
        let unheard = self.merge_lists(external, &lists, now).await?;
        let stale = unheard || holds_until.is_none_or(|end| end < now);
        Ok(Heard { stale, holds_until, failures })
    }

    /// The list at a URL, as it is now; or what is wrong with it.
    async fn fetch_list(
        &self,
        external: &External,
        authorities: &[CertificateDer<'_>],
        url: &str,
        before: Option<&ForeignList>,
        now: Timestamp,
    ) -> std::result::Result<ForeignList, String> {
        let (etag, modified) = before.map_or(("", ""), |list| (&*list.etag, &*list.modified));
        let answer = self.externals.calls.get(url, etag, modified, crl::MAX_LIST).await;
        let outcome = match (&answer, before) {
            (Ok(Answer::Unchanged), Some(_)) => "unchanged",
            (Ok(Answer::New { .. }), _) => "fetched",
            _ => "failed",
        };
        metrics::counter!("fleetmark_external_asked_total", "outcome" => outcome).increment(1);
        let (octets, etag, modified) = match (answer?, before) {
            (Answer::Unchanged, Some(before)) => return Ok(ForeignList { fetched_at: now, ..before.clone() }),
            (Answer::Unchanged, None) => return Err("it says that what it never gave is unchanged".to_owned()),
            (Answer::New { octets, etag, modified }, _) => (octets, etag, modified),
        };
        let list = crl::read(&octets, authorities, url, now).map_err(|error| error.to_string())?;
        if let Some(before) = before {
            list.follows(&before.number, before.this_update).map_err(|error| error.to_string())?;
        }
        let crl::List { issuer, number, this_update, next_update, der, .. } = list;
        let (authority, url) = (external.id, url.to_owned());
        Ok(ForeignList { authority, url, issuer, number, this_update, next_update, etag, modified, fetched_at: now, der })
    }

    /// Merges what lists say; whether there is a certificate of whose issuer there is none.
    async fn merge_lists(&self, external: &External, lists: &Lists, now: Timestamp) -> Result<bool> {
        let (mut after, mut unheard) = (0, false);
        loop {
            let known = self.adopted_after(external, after).await?;
            let Some(last) = known.last() else { return Ok(unheard) };
            after = last.place;
            let mut said = Vec::new();
            for known in known.iter().filter(|known| known.not_after >= now) {
                match lists.says(&known.issuer, &known.serial) {
                    Some(standing) if standing != known.foreign => said.push((known.fingerprint, standing, None)),
                    Some(_) => {}
                    None => unheard = true,
                }
            }
            self.merge(external, said, now).await?;
        }
    }

    async fn hear_responder(&self, external: &External, now: Timestamp) -> Result<Heard> {
        let (mut after, mut failures, mut holds_until) = (0, Vec::new(), None::<Timestamp>);
        loop {
            let known = self.adopted_after(external, after).await?;
            let Some(last) = known.last() else { return Ok(Heard { stale: false, holds_until, failures }) };
            after = last.place;
            let open = |known: &&ExternalCertificate| known.not_after >= now && !matches!(known.foreign, Standing::Revoked(_));
            let open: Vec<_> = known.iter().filter(open).collect();
            let mut said = Vec::new();
            for some in open.chunks(QUESTIONS) {
                let asked = some.iter().map(|known| self.ask_responder(external, &known.issuer, &known.serial, now));
                for (known, answer) in some.iter().zip(join_all(asked).await) {
                    let word = match answer {
                        Ok(said) => (said.standing, Some(said.next_update)),
                        Err(failure) => {
                            // One of many: the first tells what is wrong.
                            if failures.is_empty() {
                                failures.push(failure);
                            }
                            let is_over = known.next_update.is_none_or(|end| end < now);
                            let held = is_over && external.rules.on_stale == OnStale::Refuse;
                            (if held { Standing::Held } else { known.foreign }, known.next_update)
                        }
                    };
                    holds_until = holds_until.into_iter().chain(word.1).min();
                    said.push((known.fingerprint, word.0, word.1));
                }
            }
            self.merge(external, said, now).await?;
        }
    }

    async fn ask_responder(
        &self,
        external: &External,
        issuer: &[u8; 32],
        serial: &[u8],
        now: Timestamp,
    ) -> std::result::Result<ocsp::Said, Failure> {
        let StatusSource::Ocsp { url, nonce } = &external.rules.status else {
            return Err(Failure { url: String::new(), what: "it has no responder".to_owned(), at: now });
        };
        let asked = async {
            let authorities = certificates_of(external).map_err(|error| error.to_string())?;
            let named = |der: &&CertificateDer<'_>| issuer_hash(der).is_ok_and(|hash| hash == *issuer);
            let issuer = authorities.iter().find(named).ok_or("the certificate's issuer is none of the CA certificates")?;
            let fresh = self.random().map_err(|error| error.to_string())?;
            let question = ocsp::Question::new(issuer, serial, Some(fresh), *nonce).map_err(|error| error.to_string())?;
            let answer = self.externals.calls.post(url, "application/ocsp-request", question.der(), ocsp::MAX_ANSWER).await?;
            question.answer(&answer, now).map_err(|error| error.to_string())
        };
        let answer: std::result::Result<ocsp::Said, String> = asked.await;
        let outcome = if answer.is_ok() { "fetched" } else { "failed" };
        metrics::counter!("fleetmark_external_asked_total", "outcome" => outcome).increment(1);
        answer.map_err(|what| Failure { url: url.clone(), what, at: now })
    }

    async fn adopted_after(&self, external: &External, after: u64) -> Result<Vec<ExternalCertificate>> {
        let id = external.id;
        Ok(read(&*self.store, move |rows| rows.external_certificates(&[id], after, PAGE)).await?)
    }

    async fn merge(
        &self,
        external: &External,
        said: Vec<(Fingerprint, Standing, Option<Timestamp>)>,
        now: Timestamp,
    ) -> Result<()> {
        if said.is_empty() {
            return Ok(());
        }
        let note = format!("as external authority {} says", external.name);
        let details = self.details(ITSELF.to_owned(), None, None, Some(note))?;
        let (fleet, authority) = (external.fleet.clone(), external.id);
        let changed = commit(&*self.store, MergeForeign { fleet, authority, said, details, at: now }).await?;
        if changed > 0 {
            tracing::info!(fleet = %external.fleet, authority = %external.name, changed, "standings merged");
            metrics::counter!("fleetmark_external_merged_total").increment(u64::try_from(changed).unwrap_or(0));
            self.published.standing_changed();
        }
        Ok(())
    }

    /// What is said of certificates that are about to be adopted.
    pub(super) async fn words_of(
        &self,
        external: &External,
        batch: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Vec<Word>> {
        let goes_on = external.rules.on_stale == OnStale::GoOn;
        let unknown = if goes_on { Ok(Standing::Good) } else { Err(Refusal::ExternalStatusStale) };
        let plain = |standing| Word { standing, next_update: None };
        let foreign: Vec<_> = batch.iter().map(|der| Foreign::parse(der).ok()).collect();
        match &external.rules.status {
            StatusSource::None => Ok(vec![plain(Ok(Standing::Good)); batch.len()]),
            StatusSource::Crl { urls } => {
                let (id, authorities) = (external.id, certificates_of(external)?);
                let mut stored = read(&*self.store, move |rows| rows.foreign_lists(id)).await?;
                stored.retain(|list| urls.contains(&list.url));
                let fresh = stored.len() == urls.len() && stored.iter().all(|list| list.next_update >= now);
                let lists = Lists::of(&stored, &authorities, now);
                let word = |foreign: Option<Foreign>| match foreign.and_then(|one| lists.says(&one.issuer, &one.serial)) {
                    Some(Standing::Good) | None if !fresh => unknown,
                    Some(said) => Ok(said),
                    None => unknown,
                };
                Ok(foreign.into_iter().map(|foreign| plain(word(foreign))).collect())
            }
            StatusSource::Ocsp { .. } => {
                let mut words = Vec::with_capacity(batch.len());
                for some in foreign.chunks(QUESTIONS) {
                    let asked = some.iter().map(|foreign| async move {
                        let foreign = foreign.as_ref()?;
                        let asked = self.ask_responder(external, &foreign.issuer, &foreign.serial, now).await;
                        let told = |failure: &Failure| {
                            tracing::warn!(url = failure.url, what = failure.what, "no answer about a certificate");
                        };
                        asked.inspect_err(told).ok()
                    });
                    words.extend(join_all(asked).await.into_iter().map(|answer| match answer {
                        Some(said) => Word { standing: Ok(said.standing), next_update: Some(said.next_update) },
                        None => plain(unknown),
                    }));
                }
                Ok(words)
            }
        }
    }
}

/// The lists of an authority, by issuer.
struct Lists(Vec<crl::List>);

impl Lists {
    /// One that cannot be read any more, since the authority's certificates changed, is none.
    fn of(stored: &[ForeignList], authorities: &[CertificateDer<'_>], now: Timestamp) -> Self {
        Self(stored.iter().filter_map(|list| crl::read(&list.der, authorities, &list.url, now).ok()).collect())
    }

    /// The worst that the issuer's lists say; None where there is none.
    fn says(&self, issuer: &[u8; 32], serial: &[u8]) -> Option<Standing> {
        let of = self.0.iter().filter(|list| list.issuer == *issuer);
        of.map(|list| list.revoked.get(serial).copied().unwrap_or(Standing::Good)).reduce(merged)
    }
}

fn certificates_of(external: &External) -> Result<Vec<CertificateDer<'static>>> {
    split(&external.material).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))
}
