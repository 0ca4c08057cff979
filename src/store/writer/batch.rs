//! One batch: begin, perform, commit, sign, answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Job};
use crate::store::backend::{Backend, Connection};
use crate::store::transaction::{Appended, Transaction};
use crate::store::{SharedHeadSigner, StoreError};

/// The writer thread's belongings.
pub struct Performer<B: Backend> {
    backend: Arc<B>,
    /// None after it broke, until the next batch.
    connection: Option<B::Connection>,
    signer: SharedHeadSigner,
}

/// How far a batch came.
enum Outcome {
    /// Durable and signed; an answer for each act.
    Done(Vec<Answer>),
    /// An act, or the bookkeeping around them, failed before the commit. Nothing is left of it.
    Spoiled(StoreError),
    /// It cannot be known whether the commit was, or it is known that it was not: nobody may be told success.
    Lost(StoreError),
}

impl<B: Backend> Performer<B> {
    pub fn new(backend: Arc<B>, connection: B::Connection, signer: SharedHeadSigner) -> Self {
        Self { backend, connection: Some(connection), signer }
    }

    /// Performs a batch and answers every caller in it.
    pub fn perform(&mut self, jobs: Vec<Job>) {
        metrics::histogram!("fleetmark_store_batch_acts").record(f64::from(u32::try_from(jobs.len()).unwrap_or(u32::MAX)));
        let started = Instant::now();
        match self.attempt(&jobs) {
            Outcome::Done(answers) => answer(jobs, answers),
            Outcome::Spoiled(error) if jobs.len() > 1 => {
                tracing::debug!(error = %Chain(&error), acts = jobs.len(), "a batch is run again singly");
                self.perform_singly(jobs);
            }
            Outcome::Spoiled(error) | Outcome::Lost(error) => refuse(jobs, &error),
        }
        metrics::histogram!("fleetmark_store_batch_seconds").record(started.elapsed().as_secs_f64());
    }

    fn perform_singly(&mut self, jobs: Vec<Job>) {
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            let single = vec![job];
            match self.attempt(&single) {
                Outcome::Done(answers) => answer(single, answers),
                Outcome::Spoiled(error) | Outcome::Lost(error) => {
                    refuse(single, &error);
                    if self.connection.is_none() {
                        // One more attempt to connect, in the next batch, is enough: the others need not wait for theirs.
                        return refuse(jobs.by_ref().collect(), &error);
                    }
                }
            }
        }
    }

    fn attempt(&mut self, jobs: &[Job]) -> Outcome {
        let mut connection = match self.connection.take().map_or_else(|| self.backend.connect_writer(), Ok) {
            Ok(connection) => connection,
            Err(error) => return Outcome::Spoiled(error),
        };
        let outcome = match catch_unwind(AssertUnwindSafe(|| perform_all(&mut connection, jobs))) {
            Ok(Ok((answers, appended))) => self.seal(&mut connection, answers, &appended),
            Ok(Err(error)) => undo(&mut connection, error),
            Err(panic) => {
                tracing::error!(panic = panic_text(&*panic), "an act panicked");
                undo(&mut connection, StoreError::Unavailable("the act panicked".into()))
            }
        };
        if connection.stands() && !matches!(outcome, Outcome::Lost(_)) {
            self.connection = Some(connection);
        }
        outcome
    }

    /// Commits, and has the heads signed.
    fn seal(&self, connection: &mut B::Connection, answers: Vec<Answer>, appended: &[Appended]) -> Outcome {
        if let Err(error) = connection.commit() {
            // The caller drops the connection, and with it whatever the transaction left behind.
            if let Err(second) = connection.rollback() {
                tracing::warn!(error = %Chain(&second), "after a failed commit the rollback failed too");
            }
            return Outcome::Lost(error);
        }
        metrics::counter!("fleetmark_store_commits_total").increment(1);
        let sign = || appended.iter().for_each(|it| self.signer.committed(&it.ledger, &it.head, &it.urgent));
        match catch_unwind(AssertUnwindSafe(sign)) {
            Ok(()) => Outcome::Done(answers),
            Err(panic) => {
                tracing::error!(panic = panic_text(&*panic), "the checkpoint signer panicked");
                Outcome::Lost(StoreError::Unavailable("the checkpoint could not be signed".into()))
            }
        }
    }
}

/// Performs the acts within one transaction, up to its commit.
fn perform_all(connection: &mut impl Connection, jobs: &[Job]) -> Result<(Vec<Answer>, Vec<Appended>), StoreError> {
    connection.begin_write()?;
    let mut transaction = Transaction::new(connection);
    transaction.lock(jobs.iter().flat_map(|job| job.act.ledgers()))?;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        match job.act.perform(&mut transaction) {
            // It wrote nothing: acts check before they write.
            Err(error @ (StoreError::Refused(_) | StoreError::NeedsLedger(_))) => answers.push(Err(error)),
            Err(error) => return Err(error),
            outcome => answers.push(outcome),
        }
    }
    Ok((answers, transaction.finish()?))
}

fn undo(connection: &mut impl Connection, error: StoreError) -> Outcome {
    match connection.rollback() {
        Ok(()) => Outcome::Spoiled(error),
        // A connection in an unknown state is not used again.
        Err(second) => {
            tracing::warn!(error = %Chain(&second), "a rollback failed");
            Outcome::Lost(error)
        }
    }
}

/// A caller that went away misses its answer, nothing else.
fn answer(jobs: Vec<Job>, answers: Vec<Answer>) {
    for (job, answer) in jobs.into_iter().zip(answers) {
        let _ = job.answer.send(answer);
    }
}

fn refuse(jobs: Vec<Job>, error: &StoreError) {
    let kind = error.refusal().code();
    if matches!(error, StoreError::Collision) {
        tracing::debug!(kind, "an act collided with another");
    } else {
        tracing::error!(kind, error = %Chain(error), acts = jobs.len(), "acts failed");
    }
    metrics::counter!("fleetmark_store_failures_total", "kind" => kind).increment(u64::try_from(jobs.len()).unwrap_or(0));
    for job in jobs {
        let _ = job.answer.send(Err(error.again()));
    }
}

/// An error with those below it, for the log.
struct Chain<'a>(&'a StoreError);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}
