//! What other authorities say of their certificates: fetched in time, verified, merged with what we say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetmark_domain::{Fingerprint, FleetName, LedgerName, Refusal, Standing, Timestamp};
use fleetmark_external::issuer_hash;
use rustls_pki_types::CertificateDer;

use super::lists::Lists;
use crate::pki::anchors::split;
use crate::registrar::install::ITSELF;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::external::{ChangeExternal, MergeForeign};
use crate::store::model::{AdoptWhen, AuthorityId, External, ExternalCertificate, ExternalSwitch, OnStale, StatusSource};
use crate::store::{commit, read};

/// After a failure it is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// A list that holds for a short time is asked for no oftener than this.
const SOONEST: Duration = Duration::from_secs(2);
/// Certificates that are merged in one transaction.
const PAGE: u32 = 500;

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
    asked: BTreeMap<AuthorityId, Asked>,
    /// What their lists say.
    lists: BTreeMap<AuthorityId, Arc<Lists>>,
    failures: BTreeMap<AuthorityId, Vec<Failure>>,
    /// One at a time asks an authority.
    turns: BTreeMap<AuthorityId, Arc<tokio::sync::Mutex<()>>>,
}

/// When an authority was asked last, and when it is to be asked again.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Timestamp,
    due: Timestamp,
}

impl Asked {
    /// Where the clock was set back behind the last question, nobody knows when that was.
    const fn is_due(self, now: Timestamp) -> bool {
        self.due.0 <= now.0 || now.0 < self.at.0
    }
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

    /// Those that are to be asked now, and that nobody is asking.
    fn due(&self, now: Timestamp) -> Vec<AuthorityId> {
        let inner = self.inner();
        let asked = |external: &&External| {
            external.switch != ExternalSwitch::Ended && (external.rules.status != StatusSource::None || external.stale)
        };
        let is_free = |id: &AuthorityId| inner.turns.get(id).is_none_or(|turn| turn.try_lock().is_ok());
        let ids = inner.all.iter().filter(asked).map(|external| external.id);
        ids.filter(|id| inner.asked.get(id).is_none_or(|asked| asked.is_due(now))).filter(is_free).collect()
    }

    fn is_due(&self, id: AuthorityId, now: Timestamp) -> bool {
        self.inner().asked.get(&id).is_none_or(|asked| asked.is_due(now))
    }

    fn turn(&self, id: AuthorityId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.inner().turns.entry(id).or_default())
    }

    fn asked(&self, id: AuthorityId, failures: Vec<Failure>, at: Timestamp, due: Timestamp) {
        let mut inner = self.inner();
        inner.asked.insert(id, Asked { at, due });
        inner.failures.insert(id, failures);
    }

    /// What an authority's lists said last.
    pub(super) fn lists(&self, id: AuthorityId) -> Option<Arc<Lists>> {
        self.inner().lists.get(&id).cloned()
    }

    pub(super) fn keep(&self, id: AuthorityId, lists: Arc<Lists>) {
        self.inner().lists.insert(id, lists);
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of asking an authority.
pub(super) struct Heard {
    /// Whether anything that it says is past its end.
    pub stale: bool,
    /// The first end of what it says.
    pub holds_until: Option<Timestamp>,
    pub failures: Vec<Failure>,
}

impl Registrar {
    /// The external authorities that are to be asked now, and that nobody is asking. Each by itself: one that does not answer keeps
    /// no other waiting.
    pub fn externals_to_ask(&self, now: Timestamp) -> Vec<AuthorityId> {
        self.externals.follow.due(now)
    }

    /// Asks an external authority what it says of its certificates, unless somebody did so in between.
    ///
    /// # Errors
    /// The first failure of the store, and it is tried again; what an authority fails in is told by alarms and shown with it.
    pub async fn follow_external(&self, id: AuthorityId, now: Timestamp) -> Result<()> {
        let turn = self.externals.follow.turn(id);
        let _turn = turn.lock().await;
        if !self.externals.follow.is_due(id, now) {
            return Ok(());
        }
        let followed = self.follow(id, now).await;
        if followed.is_err() {
            let failures = self.externals.follow.failures(id);
            self.externals.follow.asked(id, failures, now, now + AGAIN);
        }
        followed
    }

    /// The same of one, whether it is due or not; a failure is told and tried again.
    pub(super) async fn follow_now(&self, id: AuthorityId, now: Timestamp) {
        let turn = self.externals.follow.turn(id);
        let _turn = turn.lock().await;
        if let Err(error) = self.follow(id, now).await {
            tracing::warn!(authority = id, %error, cause = error.chain(), "an external authority was not followed; tried again");
        }
    }

    /// In its turn.
    async fn follow(&self, id: AuthorityId, now: Timestamp) -> Result<()> {
        let Some(external) = read(&*self.store, move |rows| rows.external(id)).await? else { return Ok(()) };
        if external.switch == ExternalSwitch::Ended {
            return Ok(());
        }
        let heard = match external.rules.status.clone() {
            StatusSource::None => {
                self.release_lapsed(&external, now).await?;
                Heard { stale: false, holds_until: None, failures: Vec::new() }
            }
            StatusSource::Crl { urls } => self.hear_lists(&external, &urls, now).await?,
            StatusSource::Ocsp { .. } => self.hear_responder(&external, now).await?,
        };
        for Failure { url, what, .. } in &heard.failures {
            let what = format!("external authority {}, {url}: {what}", external.name);
            self.raise("external_status_failed", LedgerName::Fleet(external.fleet.clone()), 0, &what, now);
        }
        let due = self.next_question(&external, &heard, now)?;
        let stale = heard.stale;
        self.externals.follow.asked(id, heard.failures, now, due);
        self.settle_stale(&external, stale, now).await
    }

    /// Where nobody is asked any more, what we held for want of an answer is let in again.
    async fn release_lapsed(&self, external: &External, now: Timestamp) -> Result<()> {
        let mut after = 0;
        loop {
            let known = self.adopted_after(external, after).await?;
            let Some(last) = known.last() else { return Ok(()) };
            after = last.place;
            let lapsed = known.iter().filter(|known| known.is_lapsed());
            let said = lapsed.map(|known| (known.fingerprint, Standing::Good, None)).collect();
            self.merge(external, said, now).await?;
        }
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

    pub(super) async fn adopted_after(&self, external: &External, after: u64) -> Result<Vec<ExternalCertificate>> {
        let id = external.id;
        Ok(read(&*self.store, move |rows| rows.external_certificates(&[id], after, PAGE)).await?)
    }

    pub(super) async fn merge(
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
        match &external.rules.status {
            StatusSource::None => Ok(vec![Word { standing: Ok(Standing::Good), next_update: None }; batch.len()]),
            StatusSource::Crl { urls } => self.listed_words(external, urls, batch, unknown, now).await,
            StatusSource::Ocsp { .. } => self.answered_words(external, batch, unknown, now).await,
        }
    }
}

pub(super) fn certificates_of(external: &External) -> Result<Vec<CertificateDer<'static>>> {
    split(&external.material).map_err(|cause| Error::caused(Refusal::StorageDamaged, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_asks_at_once() {
        let asked = Asked { at: Timestamp(100_000), due: Timestamp(103_600) };
        for (now, is_due) in [(100_000, false), (103_599, false), (103_600, true), (99_999, true), (5, true)] {
            assert_eq!(asked.is_due(Timestamp(now)), is_due, "{now}");
        }
    }

    #[test]
    fn an_authority_that_is_being_asked_is_not_due() {
        let (state, id) = (State::default(), 7);
        let external = crate::store::model::External {
            id,
            fleet: "f".parse().unwrap(),
            name: "silo".parse().unwrap(),
            switch: ExternalSwitch::Enabled,
            stale: true,
            rules: crate::store::model::ExternalRules::default(),
            material: Vec::new(),
            epoch: None,
            next_index: 0,
            sighted: crate::store::model::Sighted::default(),
            created_at: Timestamp(1),
            created_by: 1,
            version: 1,
        };
        state.take(vec![external]);
        assert_eq!(state.due(Timestamp(9)), [id]);
        let turn = state.turn(id);
        let asking = turn.try_lock().unwrap();
        assert!(state.due(Timestamp(9)).is_empty());
        drop(asking);
        state.asked(id, Vec::new(), Timestamp(9), Timestamp(20));
        assert_eq!((state.due(Timestamp(19)), state.due(Timestamp(20)), state.due(Timestamp(8))), (vec![], vec![id], vec![id]));
    }
}
