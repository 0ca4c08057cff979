//! What the OCSP responders of other authorities answer about each of their certificates.

use std::collections::BTreeMap;
use std::time::Instant;

use fleetmark_domain::{Refusal, Standing, Timestamp};
use fleetmark_external::Foreign;
use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;

use super::follow::{Failure, Heard, Word, certificates_of};
use crate::pki::foreign::{named, ocsp, signer};
use crate::registrar::{Registrar, Result};
use crate::store::model::{External, ExternalCertificate, OnStale, StatusSource};
use crate::store::read;

/// So many questions to a responder are under way.
const QUESTIONS: usize = 32;

/// Why nothing is known from a responder.
struct Unheard {
    failure: Failure,
    /// Nobody answered at all.
    is_silent: bool,
}

/// A certificate to ask about.
struct About<'a> {
    /// Its issuer's certificate, where that is known.
    issuer: Option<&'a CertificateDer<'a>>,
    serial: &'a [u8],
}

impl Registrar {
    /// Asks about each of an authority's certificates, and merges what is said.
    pub(super) async fn hear_responder(&self, external: &External, now: Timestamp) -> Result<Heard> {
        let authorities = certificates_of(external)?;
        let (mut after, mut silence, mut failures, mut holds_until) = (0, None, Vec::new(), None::<Timestamp>);
        let (start, begun) = (now, Instant::now());
        loop {
            // Many certificates take longer than a clock may be wrong: later answers were made after the start.
            let now = start + begun.elapsed();
            let known = self.adopted_after(external, after).await?;
            let Some(last) = known.last() else { return Ok(Heard { stale: false, holds_until, failures }) };
            after = last.place;
            let open = |known: &&ExternalCertificate| known.not_after >= now && !matches!(known.foreign, Standing::Revoked(_));
            let open: Vec<_> = known.iter().filter(open).collect();
            let shown = self.of_shared_names(&authorities, &open).await?;
            let about: Vec<_> = open
                .iter()
                .map(|known| About {
                    issuer: issuer_of(&authorities, &known.issuer, shown.get(&known.place).map(Vec::as_slice)),
                    serial: &known.serial,
                })
                .collect();
            let answers = self.ask_about(external, &about, &mut silence, now).await;
            let mut said = Vec::new();
            for (known, answer) in open.iter().zip(answers) {
                let word = match answer {
                    Ok(said) => (said.standing, Some(said.next_update)),
                    Err(failure) => {
                        // One of many: the first tells what is wrong.
                        if failures.is_empty() {
                            failures.push(failure);
                        }
                        unanswered(known, external.rules.on_stale, now)
                    }
                };
                // Of what is over already the failure says when it is tried again.
                holds_until = holds_until.into_iter().chain(word.1.filter(|end| *end >= now)).min();
                said.push((known.fingerprint, word.0, word.1));
            }
            self.merge(external, said, now).await?;
        }
    }

    /// The certificates of whose issuer's name there are several keys, as they are.
    async fn of_shared_names(
        &self,
        authorities: &[CertificateDer<'static>],
        open: &[&ExternalCertificate],
    ) -> Result<BTreeMap<u64, Vec<u8>>> {
        let shared = |known: &&&ExternalCertificate| named(authorities, &known.issuer).len() > 1;
        let places: Vec<_> = open.iter().filter(shared).map(|known| known.place).collect();
        if places.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = read(&*self.store, move |rows| {
            let mut found = BTreeMap::new();
            for place in places {
                found.extend(rows.certificate(place)?.map(|certificate| (place, certificate.der)));
            }
            Ok(found)
        });
        Ok(found.await?)
    }

    /// Asks about some certificates, a few at a time. Where nobody answers about any of those few, the responder is not asked about the
    /// others either: `silence` is why, and stays so for whoever asks next.
    async fn ask_about(
        &self,
        external: &External,
        about: &[About<'_>],
        silence: &mut Option<Failure>,
        now: Timestamp,
    ) -> Vec<std::result::Result<ocsp::Said, Failure>> {
        let mut answers = Vec::with_capacity(about.len());
        for some in about.chunks(QUESTIONS) {
            if let Some(failure) = silence {
                answers.extend(some.iter().map(|_| Err(failure.clone())));
                continue;
            }
            let asked = join_all(some.iter().map(|about| self.ask_responder(external, about, now))).await;
            if asked.iter().all(|answer| answer.as_ref().is_err_and(|unheard| unheard.is_silent)) {
                *silence = asked.iter().find_map(|answer| answer.as_ref().err()).map(|unheard| unheard.failure.clone());
            }
            answers.extend(asked.into_iter().map(|answer| answer.map_err(|unheard| unheard.failure)));
        }
        answers
    }

    async fn ask_responder(
        &self,
        external: &External,
        about: &About<'_>,
        now: Timestamp,
    ) -> std::result::Result<ocsp::Said, Unheard> {
        let StatusSource::Ocsp { url, nonce } = &external.rules.status else {
            let failure = Failure { url: String::new(), what: "it has no responder".to_owned(), at: now };
            return Err(Unheard { failure, is_silent: true });
        };
        let asked = async {
            let plain = |what: String| (what, false);
            let issuer =
                about.issuer.ok_or_else(|| plain("the certificate's issuer is none of the CA certificates".to_owned()))?;
            let fresh = self.random().map_err(|error| plain(error.to_string()))?;
            let question =
                ocsp::Question::new(issuer, about.serial, Some(fresh), *nonce).map_err(|error| plain(error.to_string()))?;
            let calls = &self.externals.calls;
            let answer = calls.post(external.id, url, "application/ocsp-request", question.der(), ocsp::MAX_ANSWER).await;
            let answer = answer.map_err(|miss| (miss.what, miss.is_silent))?;
            question.answer(&answer, now).map_err(|error| plain(error.to_string()))
        };
        let answer: std::result::Result<ocsp::Said, (String, bool)> = asked.await;
        let outcome = if answer.is_ok() { "fetched" } else { "failed" };
        metrics::counter!("fleetmark_external_asked_total", "outcome" => outcome).increment(1);
        answer.map_err(|(what, is_silent)| Unheard { failure: Failure { url: url.clone(), what, at: now }, is_silent })
    }

    /// What a responder says of certificates that are about to be adopted.
    pub(super) async fn answered_words(
        &self,
        external: &External,
        batch: &[CertificateDer<'_>],
        unknown: std::result::Result<Standing, Refusal>,
        now: Timestamp,
    ) -> Result<Vec<Word>> {
        let authorities = certificates_of(external)?;
        let foreign: Vec<_> = batch.iter().map(|der| Foreign::parse(der).ok()).collect();
        let about = batch.iter().zip(&foreign).filter_map(|(der, foreign)| {
            let foreign = foreign.as_ref()?;
            Some(About { issuer: issuer_of(&authorities, &foreign.issuer, Some(der)), serial: &foreign.serial })
        });
        let about: Vec<_> = about.collect();
        let mut answers = self.ask_about(external, &about, &mut None, now).await.into_iter();
        let words = foreign.iter().map(|foreign| {
            let answer = foreign.as_ref().and_then(|_| answers.next());
            match answer {
                Some(Ok(said)) => Word { standing: Ok(said.standing), next_update: Some(said.next_update) },
                Some(Err(failure)) => {
                    tracing::warn!(url = failure.url, what = failure.what, "no answer about a certificate");
                    Word { standing: unknown, next_update: None }
                }
                None => Word { standing: unknown, next_update: None },
            }
        });
        Ok(words.collect())
    }
}

/// What counts of a certificate about which there is no answer: what was said last. Past its end a fleet holds it, or goes on; what its
/// authority itself said to be held stays so.
fn unanswered(known: &ExternalCertificate, on_stale: OnStale, now: Timestamp) -> (Standing, Option<Timestamp>) {
    let is_over = known.next_update.is_none_or(|end| end < now);
    match on_stale {
        OnStale::Refuse if is_over && known.foreign != Standing::Held => (Standing::Held, Some(ExternalCertificate::LAPSED)),
        OnStale::GoOn if known.is_lapsed() => (Standing::Good, None),
        _ => (known.foreign, known.next_update),
    }
}

/// The CA certificate that issued a certificate, by its issuer's name; where several keys have that name, by its signature.
fn issuer_of<'a>(
    authorities: &'a [CertificateDer<'a>],
    issuer: &[u8; 32],
    certificate: Option<&[u8]>,
) -> Option<&'a CertificateDer<'a>> {
    let named = named(authorities, issuer);
    match (named.as_slice(), certificate) {
        ([one], _) => Some(one),
        (several, Some(certificate)) => signer(several, certificate),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::{Fingerprint, KeyHash};

    use super::*;

    #[test]
    fn only_what_its_authority_did_not_hold_is_let_in_without_an_answer() {
        use OnStale::{GoOn, Refuse};
        use Standing::{Good, Held};
        let known = |foreign, next_update| ExternalCertificate {
            fingerprint: Fingerprint([1; 32]),
            place: 1,
            authority: 1,
            issuer: [1; 32],
            serial: vec![1],
            key_hash: KeyHash([1; 32]),
            own: Good,
            foreign,
            not_after: Timestamp(9_000),
            next_update,
        };
        let (holds, over, lapsed) = (Some(Timestamp(100)), Some(Timestamp(99)), Some(ExternalCertificate::LAPSED));
        for (before, on_stale, after) in [
            ((Good, holds), Refuse, (Good, holds)),
            ((Good, holds), GoOn, (Good, holds)),
            ((Good, over), Refuse, (Held, lapsed)),
            ((Good, None), Refuse, (Held, lapsed)),
            ((Good, over), GoOn, (Good, over)),
            ((Held, over), Refuse, (Held, over)),
            ((Held, over), GoOn, (Held, over)),
            // By a list.
            ((Held, None), GoOn, (Held, None)),
            ((Held, lapsed), Refuse, (Held, lapsed)),
            ((Held, lapsed), GoOn, (Good, None)),
        ] {
            assert_eq!(unanswered(&known(before.0, before.1), on_stale, Timestamp(100)), after, "{before:?} {on_stale:?}");
        }
    }
}
