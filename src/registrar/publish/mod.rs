//! CRLs and OCSP answers: views of the ledger, for anybody.
//!
//! - `crl`: each authority's plain list: complete, without critical extensions.
//! - [`shards`]: the list of each slice of an epoch, which its certificates name as their distribution point.
//! - `changes`: what the ledgers said since the lists were made.
//! - [`ocsp`]: answers, kept and signed.
//! - `standings`: the standings behind the answers, in memory.

mod changes;
mod crl;
pub mod ocsp;
pub mod shards;
mod standings;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fleetmark_domain::standing::Choices;
use fleetmark_domain::{FleetName, LedgerName, Refusal, RevocationReason, Sight, Timestamp, View};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use tokio::sync::Notify;

use self::changes::Pass;
use self::ocsp::Answers;
use self::shards::Shard;
use self::standings::Standings;
use super::authorities::Authority;
use super::caller::alarm;
use super::{Error, Registrar, Result};
use crate::pki::crl::RevokedCertificate;
use crate::pki::issue::Issuer;
use crate::pki::ocsp::Responder;
use crate::store::model::{AuthorityId, CertificateStanding, ListKey, PublishedList, StoredCrl};
use crate::store::rows::Rows;
use crate::store::{StoreError, read};

pub use self::ocsp::OcspAnswer;

/// How long a list holds (DESIGN §3.3).
const CRL_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// How long the root's holds: its key may lie in a safe.
const ROOT_CRL_LIFETIME: Duration = Duration::from_secs(180 * 86_400);
/// A list's number is at most so far ahead of the seconds since 1970, so that a number after a restore is above all that were
/// given before the backup's loss.
const NUMBER_AHEAD: u64 = 30;

/// What is published now.
#[derive(Default)]
pub struct Published {
    crls: ArcSwap<BTreeMap<AuthorityId, Arc<StoredCrl>>>,
    shards: ArcSwap<BTreeMap<ListKey, Arc<Shard>>>,
    responders: ArcSwap<BTreeMap<AuthorityId, Arc<Responder>>>,
    answers: Answers,
    standings: Standings,
    /// Held while lists are made anew, by one at a time.
    pass: tokio::sync::Mutex<Pass>,
    /// Held while the first list of a slice is made.
    founding: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Published {
    /// Completes when a standing changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the authority's OCSP responder answers with this certificate already.
    pub(super) fn responds_with(&self, authority: AuthorityId, certificate: &[u8]) -> bool {
        self.responders.load().get(&authority).is_some_and(|responder| responder.certificate() == certificate)
    }

    /// Takes on an authority's OCSP responder.
    pub(super) fn set_responder(&self, authority: AuthorityId, responder: Issuer) -> Result<()> {
        let responder = Responder::new(responder).map_err(|cause| Error::caused(Refusal::AuthorityUnavailable, cause))?;
        let responder = Arc::new(responder);
        self.responders.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.insert(authority, responder.clone());
            next
        });
        self.answers.forget();
        Ok(())
    }

    /// An authority is trusted no more: nobody answers for it.
    pub(super) fn drop_responder(&self, authority: AuthorityId) {
        self.responders.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.remove(&authority);
            next
        });
        self.answers.forget();
    }

    /// A standing changed: lists want to be made anew. OCSP answers that were kept are held against the standings with each question.
    pub(super) fn standing_changed(&self) {
        self.changed.notify_one();
    }

    /// Drops the lists of every other authority: nobody keeps the list of a revoked one from its end.
    fn keep_only(&self, listed: &[&Arc<Authority>]) {
        let is_listed = |id: AuthorityId| listed.iter().any(|authority| authority.record.id == id);
        if self.crls.load().keys().any(|id| !is_listed(*id)) {
            self.crls.rcu(|current| {
                let mut next = BTreeMap::clone(current);
                next.retain(|id, _| is_listed(*id));
                next
            });
        }
        if self.shards.load().keys().any(|key| !is_listed(key.authority)) {
            self.change_shards(|shards| shards.retain(|key, _| is_listed(key.authority)));
        }
    }

    pub(super) fn set_crl(&self, crl: StoredCrl) {
        let crl = Arc::new(crl);
        self.crls.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.insert(crl.authority, crl.clone());
            next
        });
    }
}

/// What one pass over the lists came to.
#[derive(Default)]
struct Work {
    made: usize,
    /// Something was put off: the next pass is due at once.
    is_left: bool,
    failure: Option<Error>,
}

/// What came of one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Made,
    /// The one that is there is as it should be, or another server's was taken.
    Kept,
    /// It wants to be made, and not yet.
    PutOff,
}

impl Work {
    fn count(&mut self, what: &str, outcome: Result<Outcome>) -> bool {
        match outcome {
            Ok(outcome) => {
                self.made += usize::from(outcome == Outcome::Made);
                self.is_left |= outcome == Outcome::PutOff;
                outcome != Outcome::PutOff
            }
            Err(error) => {
                alarm("crl_not_made", &format!("{what}: {}", error.refusal));
                self.failure.get_or_insert(error);
                false
            }
        }
    }
}

impl Registrar {
    /// What is published now.
    pub const fn published(&self) -> &Published {
        &self.published
    }

    /// The authority's plain list as it was last made; it is made anew at once by [`Self::refresh_crls`] when a standing changed.
    pub fn crl(&self, authority: AuthorityId) -> Option<Arc<StoredCrl>> {
        self.published.crls.load().get(&authority).cloned()
    }

    /// The plain list of every authority that is not revoked, the root's with them.
    pub fn crls(&self) -> Vec<Arc<StoredCrl>> {
        let all = self.authorities.all();
        let lists = self.published.crls.load();
        let revoked = |id: AuthorityId| all.iter().any(|authority| authority.record.id == id && !is_listed(authority));
        lists.values().filter(|list| !revoked(list.authority)).cloned().collect()
    }

    /// Makes anew each list that is past half of its life, or whose certificates changed their standing: first the shards with
    /// changes, then the plain lists over them, then some of the shards that are only old. Returns how many were made. One that
    /// cannot be made keeps no other from being made.
    ///
    /// # Errors
    /// The first failure, after all lists were tried.
    pub async fn refresh_crls(&self, now: Timestamp) -> Result<usize> {
        let mut pass = self.published.pass.lock().await;
        let mut work = Work::default();
        let all = self.authorities.all();
        let listed: Vec<&Arc<Authority>> = all.iter().filter(|authority| is_listed(authority)).collect();
        self.published.keep_only(&listed);
        self.settle_shards(&mut pass, &listed, now).await?;
        for authority in &listed {
            let scanned = self.scan(&mut pass, authority).await;
            if let Err(error) = scanned {
                work.count(&format!("ledger {}", authority.ledger()), Err(error));
            }
        }
        for authority in &listed {
            let is_current = self.refresh_changed_shards(&mut pass, authority, now, &mut work).await;
            if is_current {
                let outcome = self.refresh_crl(&mut pass, authority, now).await;
                work.count(&format!("authority {}", authority.record.id), outcome);
            }
        }
        self.refresh_old_shards(&mut pass, &listed, now, &mut work).await;
        if work.failure.is_none() && !work.is_left {
            self.remember_scanned(&mut pass).await?;
        }
        self.watch_ends(&listed, now);
        if work.is_left {
            self.published.changed.notify_one();
        }
        work.failure.map_or(Ok(work.made), Err)
    }

    /// Tells how long the lists still hold, and raises an alarm for each that is near its end: whoever reads it then refuses
    /// everybody.
    fn watch_ends(&self, listed: &[&Arc<Authority>], now: Timestamp) {
        let (mut plain, mut sharded) = (Vec::new(), Vec::new());
        let shards = self.published.shards.load();
        for authority in listed {
            let id = authority.record.id;
            let crl = self.crl(id).map(|crl| (crl.this_update, crl.next_update));
            let of_shards = shards.range(shards::of(id)).map(|(_, shard)| (shard.list.this_update, shard.list.next_update));
            let of_shards: Vec<_> = of_shards.collect();
            let is_near = |(made, end): &(Timestamp, Timestamp)| end.since(now) < end.since(*made) / 8;
            let near = crl.iter().chain(&of_shards).filter(|list| is_near(list)).map(|(_, end)| *end).min();
            if let Some(end) = near {
                let what = format!("the lists of authority {id} hold until {end} and could not be made anew");
                self.raise("crl_near_end", authority.ledger(), 0, &what, now);
            }
            plain.extend(crl.map(|(_, end)| end));
            sharded.extend(of_shards.into_iter().map(|(_, end)| end));
        }
        for (kind, ends) in [("crl", plain), ("shard", sharded)] {
            if let Some(end) = ends.into_iter().min() {
                let left = u32::try_from(end.since(now).as_secs()).unwrap_or(u32::MAX);
                metrics::gauge!("fleetmark_list_seconds_left", "kind" => kind).set(f64::from(left));
            }
        }
    }

    /// The ledgers' names, for views that need them all.
    pub async fn ledger_names(&self) -> Result<Vec<LedgerName>> {
        let ledgers = read(&*self.store, |rows| rows.ledgers()).await?;
        Ok(ledgers.into_iter().map(|ledger| ledger.name).collect())
    }
}

/// Whether the authority has lists: a revoked one is on another's, and its own would be believed by nobody.
fn is_listed(authority: &Authority) -> bool {
    authority.record.state != AuthorityState::Revoked
}

/// When a list is made anew though nothing changed: at half of its life, or up to an eighth of it earlier, each at its own moment, so
/// that those that were made together are not due together; at once where it is from the future, since the clock was set back:
/// whoever has the right time refuses everybody by a list that is not yet valid. `place` tells the list from others.
fn is_due((this_update, next_update): (Timestamp, Timestamp), place: u64, now: Timestamp) -> bool {
    let life = next_update.since(this_update);
    // Fibonacci hashing: neighbours end far apart.
    let share = u32::try_from(place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).unwrap_or(0);
    let earlier = life / 8 * share / (1 << 16);
    this_update > now || this_update + (life / 2).saturating_sub(earlier) <= now
}

/// RFC 5280 3.3: an entry stays on one regular list that is issued after the end of its certificate. So those are listed that have
/// not ended since this instant; by then a list that holds for `lifetime` was made anew.
fn ended_since(lifetime: Duration, now: Timestamp) -> Timestamp {
    now - lifetime - Duration::from_secs(86_400)
}

/// Whether the authority's certificates are listed in shards. The root's are few, and its key may lie in a safe.
fn is_sharded(authority: &Authority) -> bool {
    authority.record.kind != AuthorityKind::Root
}

/// The number of the next list; None while it would be too far ahead of the clock.
fn next_number(last: Option<u64>, now: Timestamp) -> Option<u64> {
    let seconds = u64::try_from(now.0).unwrap_or(0);
    let number = last.map_or(seconds, |last| seconds.max(last.saturating_add(1)));
    // One that is ahead already, since the clock was set back, still rises by one for each list.
    let is_ahead = number > seconds.saturating_add(NUMBER_AHEAD);
    let is_clock_behind = last.is_some_and(|last| last > seconds.saturating_add(NUMBER_AHEAD));
    (!is_ahead || is_clock_behind).then_some(number)
}

/// What a fleet lists beside what everybody lists.
/// When a backup was restored last, in seconds since 1970, 8 octets.
pub(in crate::registrar) const RESTORED: &str = "lists/restored";

/// A list as the store has it, unless it came with a backup: whoever asks may have a newer one, so it is made anew first.
pub(in crate::registrar) fn kept_list(
    rows: &mut dyn Rows,
    key: &ListKey,
) -> std::result::Result<Option<PublishedList>, StoreError> {
    let restored = restored_at(rows)?;
    Ok(rows.published_list(key)?.filter(|list| list.this_update > restored))
}

/// Until when lists may have come with a backup.
fn restored_at(rows: &mut dyn Rows) -> std::result::Result<Timestamp, StoreError> {
    let seconds = rows.value(RESTORED)?.and_then(|value| value.try_into().ok()).map_or(i64::MIN, i64::from_be_bytes);
    Ok(Timestamp(seconds))
}

fn choices_of(rows: &mut dyn Rows, fleet: Option<&FleetName>) -> std::result::Result<Choices, StoreError> {
    Ok(match fleet {
        Some(fleet) => rows.fleet(fleet)?.map(|fleet| fleet.choices).unwrap_or_default(),
        None => Choices::default(),
    })
}

/// How many entries the ledger has.
fn size_of(rows: &mut dyn Rows, ledger: &LedgerName) -> std::result::Result<u64, StoreError> {
    Ok(rows.ledger(ledger)?.map_or(0, |tail| tail.frontier.size()))
}

/// The lines of a list, by the table.
fn lines(standings: &[CertificateStanding], choices: Choices) -> Vec<RevokedCertificate> {
    let line = |one: &CertificateStanding| {
        let reason: Option<RevocationReason> = match one.standing.seen_by(View::Crl, false, choices) {
            Sight::Revoked(reason) => Some(reason),
            Sight::Held => None,
            Sight::Good | Sight::Restricted | Sight::Refused => return None,
        };
        Some(RevokedCertificate { serial: one.serial, since: one.changed_at, reason })
    };
    standings.iter().filter_map(line).collect()
}
