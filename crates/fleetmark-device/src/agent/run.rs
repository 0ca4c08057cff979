//! Run: enroll, confirm, and renew for as long as the device lives.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetmark_domain::Timestamp;

use super::{Agent, Setup};
use crate::backoff;
use crate::clock::Clock;
use crate::error::Error;
use crate::proof::Proof;
use crate::store::Generation;

/// The longest sleep: the wall clock may be put right while we sleep, and timers may stand still in suspend.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// A fleet whose certificates fall due together, after a power cut say, spreads over this much at most.
const MOST_SPREAD: Duration = Duration::from_secs(600);
/// A device that was just started asks about its renewal within this.
const FIRST_POLL: Duration = Duration::from_secs(60);
/// How often it asks where the server says nothing else.
const POLL: Duration = Duration::from_secs(6 * 3600);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    SetUp,
    Enroll,
    Confirm,
    Renew,
    AskTime,
    /// Ask whether an operator pulled the renewal forward.
    AskRenewal,
    Sleep(Duration),
}

/// Failures in a row, and which one was logged last.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    logged: String,
}

impl Agent {
    /// [`Agent::set_up`], tried again until the server shows its root. Ends with the errors that [`Agent::run`] ends with.
    pub async fn set_up_patiently(dir: &Path, setup: &Setup, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut failures = Failures::default();
        loop {
            match Self::set_up(dir, setup, clock.clone()).await {
                Ok(agent) => return Ok(agent),
                Err(error) => tokio::time::sleep(failures.pause(error, &Step::SetUp, backoff::roll())?).await,
            }
        }
    }

    /// Keeps the identity alive until `shutdown` is ready. `proof` is needed until the device is enrolled.
    ///
    /// # Errors
    /// Only what trying again cannot mend: a refusal for good that is no operator's to fix, local files, no proof. All
    /// else is logged, once for each change, and tried again.
    pub async fn run(&mut self, proof: Option<&Proof>, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let mut shutdown = pin!(shutdown);
        let mut failures = Failures::default();
        let spread = backoff::roll();
        let mut poll = Instant::now() + FIRST_POLL.mul_f64(backoff::roll());
        loop {
            let current = self.store.current()?;
            let step = next_step(current.as_ref(), self.time.now(), self.time.is_fresh(), spread);
            let step = polled(step, poll.saturating_duration_since(Instant::now()));
            let pause = match step {
                Step::Sleep(pause) => pause,
                step => {
                    let outcome = tokio::select! {
                        () = &mut shutdown => return Ok(()),
                        outcome = self.act(&step, proof, &mut poll) => outcome,
                    };
                    match outcome {
                        Ok(()) => {
                            failures = Failures::default();
                            continue;
                        }
                        Err(error) => failures.pause(error, &step, backoff::roll())?,
                    }
                }
            };
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn act(&mut self, step: &Step, proof: Option<&Proof>, poll: &mut Instant) -> Result<(), Error> {
        match step {
            Step::Enroll => {
                let needed = || Error::Usage("this device is not enrolled and there is no proof, such as a token".to_owned());
                self.enroll(proof.ok_or_else(needed)?, false).await?;
            }
            Step::Confirm => {
                self.confirm().await?;
            }
            Step::Renew => {
                self.renew(true).await?;
            }
            Step::AskTime => return self.ask_time_patiently().await,
            Step::AskRenewal => {
                // A failure is no reason to ask at once again; the renewal itself does not hang on it.
                *poll = Instant::now() + POLL;
                let asked = match self.ask_renewal().await {
                    Err(error) if self.may_mend(&error).await => self.ask_renewal().await,
                    asked => asked,
                };
                *poll = Instant::now() + asked?;
                return Ok(());
            }
            Step::SetUp | Step::Sleep(_) => return Ok(()),
        }
        if let Some(Generation { record, .. }) = self.store.current()? {
            let (identity, serial, renew_after) = (&record.identity, record.serial, record.renew_after);
            tracing::info!(%identity, %serial, %renew_after, confirmed = record.confirmed, "{step:?} done");
        }
        Ok(())
    }
}

/// A sleep ends where the server is to be asked about the renewal.
fn polled(step: Step, poll: Duration) -> Step {
    match step {
        Step::Sleep(_) if poll.is_zero() => Step::AskRenewal,
        Step::Sleep(pause) => Step::Sleep(pause.min(poll)),
        step => step,
    }
}

/// Decides by what is in the directory and the time. `fresh` says that a server told the time: nobody sleeps on a guess,
/// since a device without a clock that restarts every day would never come to its renewal. `spread` is this
/// process's share of the spread, from 0 to 1.
fn next_step(current: Option<&Generation>, now: Timestamp, fresh: bool, spread: f64) -> Step {
    let Some(Generation { record, .. }) = current else { return Step::Enroll };
    if !record.confirmed {
        return Step::Confirm;
    }
    let left = record.not_after.since(record.renew_after);
    let due = record.renew_after + (left / 10).min(MOST_SPREAD).mul_f64(spread);
    match due.since(now) {
        Duration::ZERO => Step::Renew,
        _ if !fresh => Step::AskTime,
        wait => Step::Sleep(wait.min(LONGEST_SLEEP)),
    }
}

impl Failures {
    /// How long to wait after `error`, or the error itself when waiting does not help.
    fn pause(&mut self, error: Error, step: &Step, roll: f64) -> Result<Duration, Error> {
        self.count = self.count.saturating_add(1);
        let pause = match &error {
            Error::Refused(refused) => match refused.retry_after {
                Some(asked) if refused.is_temporary() => backoff::asked(asked, roll),
                _ if refused.is_temporary() => backoff::after(self.count, roll),
                _ if refused.is_operators_to_fix() => backoff::slow(roll),
                // An old server that tells no time is no reason to stop.
                _ if matches!(step, Step::AskTime | Step::AskRenewal) => backoff::slow(roll),
                // What could not be confirmed was given up: the next step starts anew.
                _ if *step == Step::Confirm && refused.ends_unconfirmed() => backoff::slow(roll),
                _ => return Err(error),
            },
            Error::Unreachable(_) | Error::Untrusted(_) | Error::TrustBundle { .. } | Error::BadAnswer(_) => {
                backoff::after(self.count, roll)
            }
            // A server that is being set up may not know its own authorities yet; an operator can tell it.
            Error::CertificateNotTaken { .. } => backoff::slow(roll),
            _ => return Err(error),
        };
        let text = error.to_string();
        if text == self.logged {
            tracing::debug!(%error, ?pause, "{step:?} failed again");
        } else {
            tracing::warn!(code = error.code(), advice = error.advice(), ?pause, "{step:?} failed: {error}");
            self.logged = text;
        }
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Record;
    use crate::error::Refused;
    use fleetmark_domain::{Epoch, Fingerprint, Index, Serial};

    fn generation(confirmed: bool) -> Generation {
        let record = Record {
            identity: "spiffe://fleet.example/device/default/a".to_owned(),
            serial: Serial::new(Epoch(1), Index(1), [0; 8]),
            fingerprint: Fingerprint([0; 32]),
            generation: 1,
            confirmed,
            not_before: Timestamp(0),
            not_after: Timestamp(90_000),
            renew_after: Timestamp(60_000),
            renew_at_last: None,
            confirm_before: None,
            issued_at: Timestamp(0),
        };
        Generation { number: 1, record }
    }

    #[test]
    fn the_directory_decides_what_is_next() {
        let good = generation(true);
        assert_eq!(next_step(None, Timestamp(0), true, 0.0), Step::Enroll);
        assert_eq!(next_step(Some(&generation(false)), Timestamp(70_000), true, 0.0), Step::Confirm);
        assert_eq!(next_step(Some(&good), Timestamp(0), true, 0.0), Step::Sleep(LONGEST_SLEEP));
        assert_eq!(next_step(Some(&good), Timestamp(59_999), true, 0.0), Step::Sleep(Duration::from_secs(1)));
        assert_eq!(next_step(Some(&good), Timestamp(60_000), true, 0.0), Step::Renew);
        assert_eq!(next_step(Some(&good), Timestamp(60_000), true, 0.5), Step::Sleep(Duration::from_secs(300)));
        assert_eq!(next_step(Some(&good), Timestamp(100_000), true, 1.0), Step::Renew);
        assert_eq!(next_step(Some(&good), Timestamp(0), false, 0.0), Step::AskTime);
        assert_eq!(next_step(Some(&good), Timestamp(60_000), false, 0.0), Step::Renew);
    }

    #[test]
    fn nobody_sleeps_past_the_next_question() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(polled(Step::Sleep(hour), Duration::ZERO), Step::AskRenewal);
        assert_eq!(polled(Step::Sleep(hour), hour / 2), Step::Sleep(hour / 2));
        assert_eq!(polled(Step::Renew, Duration::ZERO), Step::Renew);
    }

    #[test]
    fn each_failure_has_its_pace() {
        let mut failures = Failures::default();
        let mut pause = |status: u16, code: Option<&str>, retry_after| {
            let refused = Refused::new(status, code, None, retry_after);
            failures.pause(Error::Refused(refused), &Step::Enroll, 0.5).ok()
        };
        assert_eq!(pause(503, None, Some(Duration::from_secs(8))), Some(Duration::from_secs(9)));
        assert_eq!(pause(503, None, None), Some(Duration::from_secs(1)));
        assert_eq!(pause(403, Some("fleet_closed"), None), Some(backoff::SLOW));
        assert_eq!(pause(409, Some("token_used"), None), Some(backoff::SLOW));
        assert_eq!(pause(422, Some("csr_bad_signature"), None), None);
        assert_eq!(pause(403, Some("revoked"), None), None);
        assert_eq!(pause(404, None, None), None);
        assert!(failures.pause(Error::Unreachable(String::new()), &Step::Renew, 0.5).is_ok());
        assert!(failures.pause(Error::Usage(String::new()), &Step::Renew, 0.5).is_err());
    }
}
