//! Certificates of other authorities that are adopted because they are seen: shown at the device door, or at a gateway that reports
//! them. Who shows one has proved that it holds the key, to the door or to the gateway; what remains is what an import asks too, a
//! permit, and a word of its authority that holds.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleetmark_domain::{Fingerprint, FleetName, LedgerName, Name, Refusal, Timestamp};
use fleetmark_external::Foreign;
use futures_util::future::join_all;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use rustls_pki_types::CertificateDer;

use super::adopt::{Allowed as _, Import, named};
use crate::pki::foreign::Externals;
use crate::registrar::caller::Caller;
use crate::registrar::feed::may_follow;
use crate::registrar::install::ITSELF;
use crate::registrar::{Error, Registrar, Result};
use crate::store::acts::external::{Adopt, Fate, Permit, rules_document};
use crate::store::model::{AdoptWhen, AuthorityId, External, ExternalRules, ExternalSwitch, OnStale};
use crate::store::{commit, look_up, read};

/// The most certificates of one report.
pub const MAX_REPORTED: usize = 16;
/// So many certificates of one authority are judged in a second, once their chains were verified: each may be a question to its
/// responder.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// So many may come at once.
const BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// The alarm about too many is raised no oftener than this.
const QUIET: Duration = Duration::from_secs(60);
/// After so many questions authorities that have their whole burst again are forgotten.
const SWEEP_EVERY: u32 = 1_024;

/// How often certificates are judged.
pub(super) struct Pace {
    authorities: DefaultKeyedRateLimiter<AuthorityId>,
    asked: AtomicU32,
    /// When the alarm about too many was raised last.
    alarmed: Mutex<HashMap<AuthorityId, Timestamp>>,
}

impl Default for Pace {
    fn default() -> Self {
        let quota = Quota::per_second(PER_SECOND).allow_burst(BURST);
        Self { authorities: RateLimiter::keyed(quota), asked: AtomicU32::new(0), alarmed: Mutex::default() }
    }
}

impl Pace {
    fn admit(&self, authority: AuthorityId) -> std::result::Result<(), Refusal> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            self.authorities.retain_recent();
        }
        self.authorities.check_key(&authority).map_err(|_| Refusal::RateLimited)
    }

    /// Whether an alarm is to be raised: whoever has the other CA's key can cause as many as he likes.
    fn may_alarm(&self, authority: AuthorityId, now: Timestamp) -> bool {
        let mut alarmed = self.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
        let may = alarmed.get(&authority).is_none_or(|at| now < *at || now.since(*at) >= QUIET);
        if may {
            alarmed.insert(authority, now);
        }
        may
    }
}

/// A certificate that was seen.
#[derive(Clone, Copy)]
struct Seen<'a> {
    der: &'a [u8],
    /// In this fleet alone; None: wherever its authority is.
    fleet: Option<&'a FleetName>,
    /// By whom; None: here.
    by: Option<&'a Caller>,
}

impl Registrar {
    /// Adopts the certificate of another authority that a client showed and that is not known, where its authority allows that.
    /// `chain`: DER, its own first. The handshake verified it, and that the client holds its key.
    ///
    /// # Errors
    /// `ExternalUnknown` where nothing allows it; `ExternalAdoptionLimit`; `RateLimited`; else what an import says of it.
    pub async fn adopt_shown(&self, chain: &[Vec<u8>], now: Timestamp) -> Result<()> {
        let der = chain.first().ok_or(Refusal::ExternalUnknown)?;
        self.adopt_seen(Seen { der, fleet: None, by: None }, now).await.map(drop)
    }

    /// Judges certificates that a gateway saw, refused as unknown, and reports; each by itself.
    ///
    /// # Errors
    /// `WrongKind` for who is neither gateway nor service, `NotFound` for a ledger that it was not granted; `InvalidValue` for none, or
    /// more than 16.
    pub async fn adopt_reported(
        &self,
        caller: &Caller,
        ledger: &LedgerName,
        reported: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<Vec<Import>> {
        may_follow(caller, ledger)?;
        let LedgerName::Fleet(fleet) = ledger else { return Err(Refusal::NotFound.into()) };
        if !(1..=MAX_REPORTED).contains(&reported.len()) {
            return Err(Error::with_detail(Refusal::InvalidValue, "A report has 1 to 16 certificates."));
        }
        let judged = reported.iter().map(|der| async move {
            let seen = Seen { der, fleet: Some(fleet), by: Some(caller) };
            let fingerprint = Fingerprint(fleetmark_external::sha256(&[der]));
            let outcome = match self.adopt_seen(seen, now).await {
                Ok(fate) => Ok(fate),
                // Of one certificate alone: the others are none the worse for it.
                Err(error) => {
                    let (actor, code) = (caller.actor(self), error.refusal.code());
                    tracing::info!(actor, %fingerprint, code, cause = error.chain(), "a certificate that was seen is not adopted");
                    Err(error.refusal)
                }
            };
            Import { fingerprint, device: None, outcome }
        });
        Ok(join_all(judged).await)
    }

    /// The rules and CA certificates of a fleet's external authority as one document, by its SHA-256 in the fleet's ledger.
    ///
    /// # Errors
    /// As [`Self::adopt_reported`]; `NotFound` for any but those that count now.
    pub async fn followed_rules(&self, caller: &Caller, ledger: &LedgerName, hash: Fingerprint) -> Result<Vec<u8>> {
        may_follow(caller, ledger)?;
        let LedgerName::Fleet(fleet) = ledger.clone() else { return Err(Refusal::NotFound.into()) };
        let all = read(&*self.store, move |rows| rows.externals(Some(&fleet))).await?;
        let mut documents = all.iter().map(rules_document);
        let found = documents.find(|document| fleetmark_external::sha256(&[document]) == hash.0);
        found.ok_or_else(|| Refusal::NotFound.into())
    }

    async fn adopt_seen(&self, seen: Seen<'_>, now: Timestamp) -> Result<Fate> {
        let outcome = self.judge_seen(seen, now).await;
        let told = match &outcome {
            Ok(Fate::Adopted) => "adopted",
            Ok(Fate::Known) => "known",
            Err(error) => error.refusal.code(),
        };
        metrics::counter!("fleetmark_external_seen_total", "outcome" => told).increment(1);
        outcome
    }

    /// Whatever costs more comes later: what is in memory, the chain, the pace, the permit, and its authority's word.
    async fn judge_seen(&self, seen: Seen<'_>, now: Timestamp) -> Result<Fate> {
        let foreign = Foreign::parse(seen.der).map_err(|_| Refusal::CertificateForeign)?;
        let (external, name) = self.adopting(seen, &foreign, now)?;
        self.externals.sight.admit(external.id)?;
        let (id, fingerprint) = (external.id, foreign.fingerprint);
        let found = look_up(&*self.store, move |rows| {
            let is_known = rows.external_certificate(&fingerprint)?.is_some();
            Ok((is_known, rows.external(id)?, rows.expected(&fingerprint)?))
        });
        let (is_known, external, expected) = found.await?;
        if is_known {
            return Ok(Fate::Known);
        }
        // As it is now: what is in memory was read a while ago.
        let external = external.ok_or(Refusal::ExternalUnknown)?;
        let expected = expected.filter(|expected| expected.authority == external.id);
        let permit = permit(&external, expected.is_some())?;
        if expected.and_then(|expected| expected.device).is_some_and(|device| device != name) {
            return Err(Refusal::NameNotAllowed.into());
        }
        if permit == Permit::Sight && external.sighted.one_more(&external.rules.adopt, now).is_none() {
            return Err(self.too_many(&external, now));
        }
        let words = self.words_of(&strict(&external), &[CertificateDer::from(seen.der)], now).await?;
        let word = words.first().copied().ok_or(Refusal::ExternalStatusStale)?;
        word.standing.allowed()?;
        let (actor, at) = match seen.by {
            Some(caller) => (caller.actor(self), "seen by this gateway"),
            None => (ITSELF.to_owned(), "seen at the device door"),
        };
        let how = if permit == Permit::Listed { ", as listed" } else { "" };
        let note = format!("certificate {fingerprint} of external authority {}, {at}{how}", external.name);
        let arrival = self.arrival(&external, (foreign, seen.der), name, word.next_update, (permit, actor, note), now)?;
        let act = Adopt { fleet: external.fleet.clone(), authority: external.id, arrivals: vec![arrival], at: now };
        let fate = match commit(&*self.store, act).await?.into_iter().next() {
            Some(Ok(fate)) => fate,
            Some(Err(Refusal::ExternalAdoptionLimit)) => return Err(self.too_many(&external, now)),
            Some(Err(refusal)) => return Err(refusal.into()),
            None => return Err(Refusal::InternalError.into()),
        };
        let (fleet, authority) = (&external.fleet, &external.name);
        let by = seen.by.map(|caller| caller.actor(self)).unwrap_or_default();
        tracing::info!(%fleet, %authority, %fingerprint, by, "a certificate of another authority was adopted because it was seen");
        Ok(fate)
    }

    /// The external authority that signed it and adopts what is seen, and the device that it names.
    fn adopting(&self, seen: Seen<'_>, foreign: &Foreign, now: Timestamp) -> std::result::Result<(External, Name), Refusal> {
        let mut why = Refusal::ExternalUnknown;
        for external in self.externals.follow.adopting(&foreign.issuer, seen.fleet) {
            let mut trusted = Externals::default();
            trusted.add(&external.material).map_err(|_| Refusal::StorageDamaged)?;
            match self.judge_foreign(&external, &trusted, seen.der, foreign, now) {
                // Another one of this name signed it, or nobody.
                Err(Refusal::CertificateForeign) => why = Refusal::CertificateForeign,
                Err(refusal) => return Err(refusal),
                Ok(()) if external.switch != ExternalSwitch::Enabled => return Err(Refusal::ExternalDisabled),
                Ok(()) => return named(&external, foreign).map(|name| (external, name)),
            }
        }
        Err(why)
    }

    fn too_many(&self, external: &External, now: Timestamp) -> Error {
        if !self.externals.sight.may_alarm(external.id, now) {
            return Refusal::ExternalAdoptionLimit.into();
        }
        let limits = external.rules.adopt;
        let what = format!(
            "external authority {}: more certificates are shown than the {} an hour and {} in all that are adopted on sight",
            external.name, limits.hourly, limits.most
        );
        self.raise("external_adoption_limit", LedgerName::Fleet(external.fleet.clone()), 0, &what, now);
        Refusal::ExternalAdoptionLimit.into()
    }
}

/// By what right one that was seen is adopted.
fn permit(external: &External, is_expected: bool) -> std::result::Result<Permit, Refusal> {
    match external.rules.adopt.when {
        AdoptWhen::Import => Err(Refusal::ExternalUnknown),
        _ if is_expected => Ok(Permit::Listed),
        AdoptWhen::Listed => Err(Refusal::ExternalUnknown),
        AdoptWhen::OnSight => Ok(Permit::Sight),
    }
}

/// No operator looked at the certificate, so its authority's word must hold, even where the fleet goes on without.
fn strict(external: &External) -> External {
    External { rules: ExternalRules { on_stale: OnStale::Refuse, ..external.rules.clone() }, ..external.clone() }
}
