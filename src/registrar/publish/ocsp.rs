//! OCSP answers: kept while what they say still holds, else signed.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fleetmark_domain::{Serial, Timestamp};
use metrics::Counter;

use super::super::Registrar;
use super::super::authorities::Authority;
use super::super::caller::alarm;
use crate::pki::ocsp::{self, Failure, Question, Responder, Signed, Status};

/// How long an answer holds (DESIGN §3.3).
const LIFETIME: Duration = Duration::from_secs(3_600);
/// One that is kept is given out for so long: who gets it has the other half of its life before him.
const KEPT_FOR: Duration = Duration::from_secs(1_800);
/// How many answers are kept.
const KEPT: usize = 65_536;
/// The longest request whose answer is kept, in octets, where it asks about one certificate. RFC 5019 2.1.1 has about 110; whoever
/// varies what need not be understood fills no more memory than others.
const KEPT_REQUEST: usize = 256;

/// An OCSP answer.
#[derive(Debug, Clone)]
pub struct OcspAnswer {
    /// The answer in DER.
    pub der: Vec<u8>,
    /// What is the same in no other answer; None for an unsigned failure.
    pub tag: Option<[u8; 16]>,
    /// How long a cache may keep it; None: not at all (nonce, a certificate that is not issued yet, or an unsigned failure).
    pub fresh_until: Option<Timestamp>,
    /// When the statuses were read.
    pub at: Timestamp,
}

/// The answers that were given, by the request's octets.
#[derive(Default)]
pub(super) struct Answers {
    kept: Mutex<HashMap<Vec<u8>, Arc<KeptAnswer>>>,
    counted: OnceLock<Counted>,
}

/// What counts the answers.
struct Counted {
    kept: Counter,
    signed: Counter,
    not_cacheable: Counter,
}

/// An answer, as it was signed.
struct Given {
    signed: Signed,
    by: Arc<Responder>,
    fresh_until: Option<Timestamp>,
    at: Timestamp,
}

impl Given {
    fn answer(&self) -> OcspAnswer {
        OcspAnswer {
            der: self.by.whole(&self.signed),
            tag: Some(self.signed.tag()),
            fresh_until: self.fresh_until,
            at: self.at,
        }
    }
}

/// An answer, and what it was made of.
struct KeptAnswer {
    given: Given,
    authority: Arc<Authority>,
    serial: Option<Serial>,
    status: Status,
}

impl Answers {
    /// Asked for once: to look a counter up costs many times what it costs to count.
    fn counted(&self) -> &Counted {
        let counter = |outcome: &'static str| metrics::counter!("fleetmark_ocsp_total", "outcome" => outcome);
        self.counted.get_or_init(|| Counted {
            kept: counter("kept"),
            signed: counter("signed"),
            not_cacheable: counter("not_cacheable"),
        })
    }

    /// None is worth anything any more.
    pub(super) fn forget(&self) {
        let kept = mem::take(&mut *self.lock());
        drop(kept);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<KeptAnswer>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, request: &[u8], answer: KeptAnswer) {
        let mut kept = self.lock();
        // Dropped once the lock is free again: that takes milliseconds.
        let _full = (kept.len() >= KEPT).then(|| mem::take(&mut *kept));
        kept.insert(request.to_vec(), Arc::new(answer));
        drop(kept);
    }
}

impl Registrar {
    /// Answers an OCSP request in DER. Every failure is an answer too (RFC 6960 2.3).
    pub async fn ocsp(&self, request: &[u8], now: Timestamp) -> OcspAnswer {
        let counted = self.published.answers.counted();
        if let Some(answer) = self.kept_answer(request, now).await {
            counted.kept.increment(1);
            return answer;
        }
        let answer = match self.answer(request, now).await {
            Ok(answer) => answer,
            Err(failed) => OcspAnswer { der: ocsp::failure(failed), tag: None, fresh_until: None, at: now },
        };
        let outcome = if answer.fresh_until.is_some() { &counted.signed } else { &counted.not_cacheable };
        outcome.increment(1);
        answer
    }

    /// The answer to the same request, while all that it says is still so.
    async fn kept_answer(&self, request: &[u8], now: Timestamp) -> Option<OcspAnswer> {
        let kept = self.published.answers.lock().get(request).cloned()?;
        let Given { at, fresh_until, .. } = kept.given;
        // A clock that was set back makes it an answer from the future, which clients refuse.
        let is_of_now = (at..at + KEPT_FOR).contains(&now);
        if !is_of_now || fresh_until.is_none_or(|until| until <= now) {
            return None;
        }
        let statuses = self.statuses(&kept.authority, &[kept.serial], now).await;
        statuses.is_ok_and(|statuses| statuses == [kept.status]).then(|| kept.given.answer())
    }

    async fn answer(&self, der: &[u8], now: Timestamp) -> Result<OcspAnswer, Failure> {
        let request = ocsp::parse(der)?;
        let (authority, responder) = self.responder_for(&request.questions)?;
        if responder.not_after <= now {
            alarm("ocsp_failed", &format!("the responder of authority {} has ended", authority.record.id));
            return Err(Failure::TryLater);
        }
        let fits = |question: &Question<'_>| question.serial.filter(|_| authority.hashes.fits(question));
        let serials: Vec<_> = request.questions.iter().map(fits).collect();
        let statuses = self.statuses(&authority, &serials, now).await.map_err(|error| {
            alarm("ocsp_failed", error.refusal.code());
            Failure::TryLater
        })?;
        let next_update = (now + LIFETIME).min(responder.not_after);
        let answers = request.questions.iter().zip(statuses.iter().copied());
        let signed = responder.respond(answers, request.nonce, now, next_update).map_err(|error| {
            alarm("ocsp_failed", &error.to_string());
            Failure::InternalError
        })?;
        // A certificate that is unknown now may be issued in a moment.
        let is_kept = request.nonce.is_none() && !statuses.contains(&Status::Unknown);
        let fresh_until = is_kept.then_some(next_update);
        let given = Given { signed, by: responder, fresh_until, at: now };
        let answer = given.answer();
        if let (true, [serial], [status]) = (is_kept && der.len() <= KEPT_REQUEST, &*serials, &*statuses) {
            self.published.answers.keep(der, KeptAnswer { given, authority, serial: *serial, status: *status });
        }
        Ok(answer)
    }

    /// Who answers: the responder of the first authority of ours that is asked about. Of other authorities' certificates it says
    /// `unknown`, since it may speak for one authority only (RFC 6960 2.2, 4.2.2.2). Where none of ours is asked about, nobody
    /// answers (RFC 5019 2.2.3).
    fn responder_for(&self, questions: &[Question<'_>]) -> Result<(Arc<Authority>, Arc<Responder>), Failure> {
        let all = self.authorities.all();
        let ours = |question: &Question<'_>| all.iter().find(|authority| authority.hashes.fits(question)).cloned();
        let authority = questions.iter().find_map(ours).ok_or(Failure::Unauthorized)?;
        let responder = self.published.responders.load().get(&authority.record.id).cloned().ok_or(Failure::Unauthorized)?;
        Ok((authority, responder))
    }
}
