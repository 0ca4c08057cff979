//! Verdicts: after the chain, the authority's binding, the fingerprint, the standing, and policy.
//!
//! A certificate of another authority is known by its fingerprint, which a fleet's ledger adopted; its holder's name comes of the
//! rule that the ledger has for that authority. What follows is the same.
//!
//! The order, and so the name of a refusal where several would fit: the certificate's dates; its place and fingerprint in the
//! ledger; its authority's binding; revoked; what is known is broken or stale; the other standings; policy.

mod alarms;
mod answers;
mod keys;
mod presented;
mod reason;
mod tally;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{FleetName, Identity, LedgerName, Serial, Sight, Standing, Timestamp, View};
use fleetmark_external::Foreign;
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState, ExternalState};
use fleetmark_ledger::state::ShortFingerprint;
use fleetmark_policy::{Act, Context, Decision, Principal, Request, Resource};

use self::alarms::Alarms;
use self::answers::{Answer, Answers, Question};
use self::keys::AuthorityKeys;
pub use self::presented::Presented;
pub use self::reason::Reason;
use self::tally::Tally;
use crate::knowledge::{Freshness, Knowledge, Known, Sighting};

/// How long a certificate that is not known yet is waited for, while what is new is fetched.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// A policy that speaks of the time is asked again after so long.
const TIMED: Duration = Duration::from_secs(60);

/// What is wanted, and how.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The act.
    pub act: Act,
    /// The topic, of publish, subscribe and command.
    pub topic: Option<&'a str>,
    /// The peer's address.
    pub source: Option<IpAddr>,
    /// What the listener speaks.
    pub protocol: Option<&'a str>,
    /// The device's firmware version, where it is known.
    pub firmware: Option<&'a str>,
    /// Whether the peer showed that it holds the certificate's key: a first use, which confirms it, is reported then.
    pub shown: bool,
}

/// The answer for one identity and one act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may.
    pub allow: bool,
    /// Why.
    pub reason: Reason,
    /// Whose certificate it is, once that is sure.
    pub identity: Option<Identity>,
    /// Its standing, once that is sure.
    pub standing: Option<Standing>,
    /// The policies that decided.
    pub policies: Vec<Arc<str>>,
    /// The ledger that it is by.
    pub ledger: Option<LedgerName>,
    /// Entries of it that were verified.
    pub position: u64,
    /// How old that knowledge is; of the two ledgers that it rests on, the certificate's and `system`, the older.
    pub age: Duration,
    /// Until when the verdict holds if nothing is heard: the certificate's end, the knowledge's, or, where a policy speaks of
    /// the time, a minute, whichever is first.
    pub valid_until: Timestamp,
}

impl Verdict {
    /// A refusal of what nothing is known of.
    pub const fn refusal(reason: Reason, now: Timestamp) -> Self {
        Self {
            allow: false,
            reason,
            identity: None,
            standing: None,
            policies: Vec::new(),
            ledger: None,
            position: 0,
            age: Duration::ZERO,
            valid_until: now,
        }
    }
}

/// Gives verdicts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Judge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    knowledge: Knowledge,
    answers: Answers,
    keys: AuthorityKeys,
    tally: Tally,
    alarms: Alarms,
}

/// A refusal, with what the ledger holds of the certificate if that is sure.
type Refused = (Reason, Option<Known>);

impl Judge {
    /// A judge over this knowledge. Its counters are those of the metrics recorder that is installed by then.
    pub fn new(knowledge: Knowledge) -> Self {
        let (answers, keys, tally, alarms) = Default::default();
        Self(Arc::new(Inner { knowledge, answers, keys, tally, alarms }))
    }

    /// Judges by what is known now. `now` is the wall clock's: for the certificate's dates, and for policies that speak of the
    /// time. The age of the knowledge is the monotonic clock's.
    pub fn judge(&self, presented: &Presented, wanted: &Wanted<'_>, now: Timestamp) -> Verdict {
        self.0.tally.count(self.0.judge(presented, wanted, now))
    }

    /// The verdict on what [`Presented::parse`] refused.
    pub fn unreadable(&self, now: Timestamp) -> Verdict {
        self.0.tally.count(Verdict::refusal(Reason::CertificateMalformed, now))
    }

    /// The same, and where the certificate or its authority is not known yet, has what is new fetched first, at most
    /// [`PATIENCE`] long.
    pub async fn judge_patiently(&self, presented: &Presented, wanted: &Wanted<'_>, now: Timestamp) -> Verdict {
        let is_news = match &presented.foreign {
            Some(foreign) => self.0.is_news_abroad(foreign),
            None => presented.serial.is_some_and(|serial| self.0.is_news(&serial)),
        };
        if presented.in_time(now).is_ok() && is_news {
            self.0.knowledge.refresh(PATIENCE).await;
        }
        self.judge(presented, wanted, now)
    }

    /// Gives a certificate of another authority that is adopted its place in the ledger and its holder's identity, so that it is
    /// found and named as one of ours.
    pub fn recognize(&self, presented: &mut Presented) {
        let Some(foreign) = presented.foreign.clone() else { return };
        let Some((place, known)) = self.0.knowledge.adopted(&foreign.fingerprint) else { return };
        if let Some(identity) = known.named(&foreign) {
            presented.serial = Some(Serial::new(place.0, place.1, [0; 8]));
            presented.trust_domain = self.0.knowledge.trust_domain();
            presented.identity = Some(identity);
        }
    }

    /// The standing of the certificate with this serial, of the authority with this key identifier. Never allows: who has only
    /// seen a certificate is not its holder, and the ledger knows no names that policy could ask for.
    pub async fn standing(&self, issuer: &[u8], serial: &Serial, now: Timestamp) -> Verdict {
        if self.0.is_news(serial) {
            self.0.knowledge.refresh(PATIENCE).await;
        }
        self.0.tally.count(self.0.standing(issuer, serial, now))
    }
}

impl Inner {
    /// Whether a fetch could change the answer: no ledger here has the serial, or its authority is not known yet.
    fn is_news(&self, serial: &Serial) -> bool {
        self.knowledge.certificate(serial.epoch(), serial.index()).is_none_or(|known| known.authority.is_none())
    }

    /// Whether a fetch could change the answer about a certificate of another authority: it names one that a ledger here knows, and
    /// is not adopted.
    fn is_news_abroad(&self, foreign: &Foreign) -> bool {
        self.knowledge.has_issuer(&foreign.issuer) && self.knowledge.adopted(&foreign.fingerprint).is_none()
    }

    fn judge(&self, presented: &Presented, wanted: &Wanted<'_>, now: Timestamp) -> Verdict {
        let (known, identity) = match self.known(presented, now) {
            Ok(known) => known,
            Err((reason, None)) => return Verdict::refusal(reason, now),
            Err((reason, Some(known))) => return self.draft(reason, &known, now, None),
        };
        let draft = |reason| Verdict {
            identity: Some(identity.as_ref().clone()),
            ..self.draft(reason, &known, now, Some(presented.not_after))
        };
        let sight = match self.check_worth(&known) {
            Ok(sight) => sight,
            Err(reason) => return draft(reason),
        };
        let answer = self.ask(presented, &known, &identity, wanted, now);
        let allow = answer.reason == Reason::Allowed;
        let reason = if sight == Sight::Restricted && !allow { Reason::Quarantined } else { answer.reason };
        if allow && wanted.shown && known.standing == Standing::Unconfirmed {
            self.report(presented);
        }
        let mut verdict = draft(reason);
        if answer.timed {
            verdict.valid_until = verdict.valid_until.min(now + TIMED);
        }
        Verdict { allow, policies: answer.policies.to_vec(), ..verdict }
    }

    /// Dates, place, fingerprint and authority: all that makes a certificate none of ours, however old the knowledge is.
    #[expect(clippy::result_large_err, reason = "it is taken apart where it is returned to")]
    fn known<'a>(&self, presented: &'a Presented, now: Timestamp) -> Result<(Known, Cow<'a, Identity>), Refused> {
        presented.in_time(now).map_err(|reason| (reason, None))?;
        if let Some(foreign) = &presented.foreign {
            return self.known_abroad(foreign).map(|(known, identity)| (known, Cow::Owned(identity)));
        }
        let foreign = (Reason::NotOnLedger, None);
        let (Some(serial), Some(identity)) = (presented.serial, &presented.identity) else { return Err(foreign) };
        let Some(known) = self.knowledge.certificate(serial.epoch(), serial.index()) else {
            return Err((self.unknown(&LedgerName::from(identity.fleet())), None));
        };
        if known.fingerprint != ShortFingerprint::from(&presented.fingerprint) {
            self.alarms.forged(Instant::now(), || format!("serial {serial}, fingerprint {}", presented.fingerprint));
            return Err(foreign);
        }
        if let Err(what) = self.check_binding(&known, identity, &presented.authority_key) {
            self.alarms.wrong_authority(Instant::now(), || format!("serial {serial}: {what}"));
            return Err((Reason::WrongAuthority, Some(known)));
        }
        Ok((known, Cow::Borrowed(identity)))
    }

    /// A certificate of another authority is the one that was adopted, by all of its octets; who holds it says the ledger's rule.
    #[expect(clippy::result_large_err, reason = "it is taken apart where it is returned to")]
    fn known_abroad(&self, foreign: &Foreign) -> Result<(Known, Identity), Refused> {
        let adopted = self.knowledge.adopted(&foreign.fingerprint);
        let named = adopted.and_then(|(_, known)| known.named(foreign).map(|identity| (known, identity)));
        named.ok_or_else(|| {
            let is_known = self.knowledge.has_issuer(&foreign.issuer);
            (if is_known { Reason::ExternalUnknown } else { Reason::NotOnLedger }, None)
        })
    }

    /// Why a place is not known: a ledger of which nothing could be verified has nothing to say about it.
    fn unknown(&self, ledger: &LedgerName) -> Reason {
        let broken = self.knowledge.freshness(ledger, Instant::now()).is_some_and(|freshness| freshness.broken);
        if broken { Reason::LedgerBroken } else { Reason::NotOnLedger }
    }

    /// A chain is not enough: the epoch's authority must issue for this kind, in this ledger, be trusted still, and be the one
    /// whose key the certificate names.
    fn check_binding(&self, known: &Known, identity: &Identity, authority_key: &[u8]) -> Result<(), &'static str> {
        if LedgerName::from(identity.fleet()) != known.ledger {
            return Err("its epoch is of another ledger");
        }
        let Some(authority) = &known.authority else { return Err("the system ledger does not have its authority") };
        if authority.kind != AuthorityKind::Of(identity.kind()) {
            return Err("its authority issues for another kind");
        }
        if authority.state == AuthorityState::Revoked {
            return Err("its authority was revoked");
        }
        if self.keys.differ(authority, authority_key) {
            return Err("it names another authority's key");
        }
        Ok(())
    }

    /// Revoked before all, since that is for ever; then what the knowledge is worth, and another authority; then the standing.
    fn check_worth(&self, known: &Known) -> Result<Sight, Reason> {
        let sight = known.standing.seen_by(View::Verdict, false, Choices::default());
        if let Sight::Revoked(_) = sight {
            return Err(Reason::Revoked);
        }
        match self.freshness(&known.ledger) {
            None => return Err(Reason::LedgerBroken),
            Some(freshness) if freshness.broken => return Err(Reason::LedgerBroken),
            Some(freshness) if freshness.is_stale() => return Err(Reason::LedgerStale),
            Some(_) => {}
        }
        match known.external.as_ref().map(|external| external.state) {
            Some(ExternalState::Disabled | ExternalState::Ended) => return Err(Reason::ExternalDisabled),
            Some(ExternalState::Stale) => return Err(Reason::ExternalStatusStale),
            Some(ExternalState::Active) | None => {}
        }
        Reason::of(sight).map_or(Ok(sight), Err)
    }

    /// How far a ledger is followed; age and faults are also those of `system`, which says what authorities are worth.
    fn freshness(&self, ledger: &LedgerName) -> Option<Freshness> {
        let now = Instant::now();
        let own = self.knowledge.freshness(ledger, now)?;
        if *ledger == LedgerName::System {
            return Some(own);
        }
        let system = self.knowledge.freshness(&LedgerName::System, now)?;
        let left = |freshness: &Freshness| freshness.max_age.saturating_sub(freshness.age);
        let (age, max_age) =
            if system.is_stale() || left(&system) < left(&own) { (system.age, system.max_age) } else { (own.age, own.max_age) };
        Some(Freshness { age, max_age, broken: own.broken || system.broken, ..own })
    }

    /// A refusal with all that is known of the certificate but whose it is. Without `end` it holds no longer than now.
    fn draft(&self, reason: Reason, known: &Known, now: Timestamp, end: Option<Timestamp>) -> Verdict {
        let freshness = self.freshness(&known.ledger);
        let left = freshness.map_or(Duration::ZERO, |freshness| freshness.max_age.saturating_sub(freshness.age));
        Verdict {
            standing: Some(known.standing),
            ledger: Some(known.ledger.clone()),
            position: freshness.map_or(0, |freshness| freshness.position),
            age: freshness.map_or(Duration::MAX, |freshness| freshness.age),
            valid_until: end.map_or(now, |end| end.min(now + left)),
            ..Verdict::refusal(reason, now)
        }
    }

    fn ask(
        &self,
        presented: &Presented,
        known: &Known,
        identity: &Identity,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Arc<Answer> {
        // Read before the policies: an answer by newer ones than its number says is thrown away too early, never too late.
        let generation = self.knowledge.policy_generation();
        let question = Question { fingerprint: &presented.fingerprint, standing: known.standing, wanted };
        if let Some(answer) = self.answers.find(&question, generation) {
            return answer;
        }
        let answer = Arc::new(self.decide(known, identity, wanted, now));
        if !answer.timed && answer.reason != Reason::PolicyMissing {
            self.answers.keep(&question, generation, &answer);
        }
        answer
    }

    /// A device asks of its own fleet. Who belongs to no fleet asks of the fleet that a topic's first level names, or, without a
    /// topic, of every fleet that is followed: one that permits it is enough.
    fn decide(&self, known: &Known, identity: &Identity, wanted: &Wanted<'_>, now: Timestamp) -> Answer {
        if let Some(fleet) = identity.fleet() {
            return self.decide_for(Some(fleet), known, identity, wanted, now);
        }
        let fleets = self.knowledge.ledgers().into_iter().filter_map(|ledger| match ledger {
            LedgerName::Fleet(fleet) => Some(fleet),
            LedgerName::System => None,
        });
        if let Some(topic) = wanted.topic {
            let first = topic.split('/').next();
            let fleet = fleets.into_iter().find(|fleet| Some(fleet.as_str()) == first);
            return self.decide_for(fleet.as_ref(), known, identity, wanted, now);
        }
        let mut refused = None;
        for fleet in fleets {
            let answer = self.decide_for(Some(&fleet), known, identity, wanted, now);
            if answer.reason == Reason::Allowed {
                return answer;
            }
            // Another minute may bring another answer by any of them.
            let timed = answer.timed || refused.as_ref().is_some_and(|earlier: &Answer| earlier.timed);
            refused = Some(Answer { timed, ..refused.unwrap_or(answer) });
        }
        refused.unwrap_or_else(|| Answer::bare(Reason::PolicyDenied))
    }

    fn decide_for(
        &self,
        fleet: Option<&FleetName>,
        known: &Known,
        identity: &Identity,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Answer {
        let Some(policies) = self.knowledge.policies(fleet) else { return Answer::bare(Reason::PolicyMissing) };
        let resource = match (wanted.act, wanted.topic, fleet) {
            (Act::Publish | Act::Subscribe | Act::Command, Some(topic), _) => Resource::Topic(topic),
            // Nothing can be permitted on a topic that is not named.
            (Act::Publish | Act::Subscribe, None, _) => return Answer::bare(Reason::PolicyDenied),
            (_, _, Some(fleet)) => Resource::Fleet(fleet),
            (_, _, None) => Resource::Installation,
        };
        let attributes = self.knowledge.attributes(&known.ledger, known.subject);
        let Wanted { source, protocol, firmware, .. } = *wanted;
        let decision = policies.decide(&Request {
            principal: Principal { identity, standing: known.standing, attributes: &attributes, role: None },
            act: wanted.act,
            resource,
            context: Context { time: now, source, protocol, firmware },
        });
        Answer::from(decision)
    }

    /// A first use, which confirms the certificate at the server.
    fn report(&self, presented: &Presented) {
        let Some(serial) = presented.serial else { return };
        let fingerprint = *presented.fingerprint.octets();
        self.knowledge.saw(Sighting { serial, fingerprint });
    }

    fn standing(&self, issuer: &[u8], serial: &Serial, now: Timestamp) -> Verdict {
        let Some(known) = self.knowledge.certificate(serial.epoch(), serial.index()) else {
            return Verdict::refusal(Reason::NotOnLedger, now);
        };
        // Without the authority's certificate nobody can say whose key identifier this is.
        let is_issuer = known.authority.as_ref().is_some_and(|authority| self.keys.is(authority, issuer));
        let reason = match self.check_worth(&known) {
            _ if !is_issuer => Reason::WrongAuthority,
            Err(reason) => reason,
            Ok(Sight::Restricted) => Reason::Quarantined,
            Ok(_) => Reason::CertificateRequired,
        };
        self.draft(reason, &known, now, None)
    }
}

impl From<Decision> for Answer {
    fn from(decision: Decision) -> Self {
        let reason = match decision {
            Decision { allow: true, .. } => Reason::Allowed,
            Decision { ref errors, .. } if errors.is_empty() => Reason::PolicyDenied,
            Decision { ref errors, .. } => {
                tracing::warn!(error = errors.first(), "a policy could not be evaluated");
                Reason::PolicyError
            }
        };
        Self { reason, policies: decision.policies.into(), timed: decision.timed }
    }
}
