//! Threads that call the module, so that nobody waits longer than he wants to for a call that does not come back. A call cannot be ended
//! from outside: its thread is left to it, and ends when the call does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::error::TokenError;

/// So many calls that do not come back are borne; then the module is not called until one of them does.
pub(super) const MOST_STUCK: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// Threads, as many as are needed at once; they are used again.
#[derive(Default)]
pub(super) struct Hands {
    free: Mutex<Vec<Hand>>,
    /// Calls that nobody waits for any more.
    stuck: Arc<AtomicUsize>,
}

/// A thread, which ends when nobody can give it work any more.
struct Hand {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

/// What passes between who waits and who works.
struct Turn<T> {
    outcome: Mutex<Outcome<T>>,
    is_done: Condvar,
}

enum Outcome<T> {
    Awaited,
    /// None: the work panicked.
    Done(Option<T>),
    /// Nobody waits for it.
    GivenUp,
}

impl Hands {
    /// Does this work on a thread of its own, and waits for it so long.
    ///
    /// # Errors
    /// [`TokenError::Hung`] where it takes longer; what it then still comes to is dropped where it was done. The same at once where
    /// [`MOST_STUCK`] calls do not come back.
    pub(super) fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TokenError> {
        let hung = || TokenError::Hung { seconds: limit.as_secs(), stuck: self.stuck() };
        if self.stuck() >= MOST_STUCK {
            return Err(hung());
        }
        let hand = self.hand()?;
        let turn = Arc::new(Turn { outcome: Mutex::new(Outcome::Awaited), is_done: Condvar::new() });
        let (worker, stuck) = (turn.clone(), self.stuck.clone());
        let job: Job = Box::new(move || worker.finish(catch_unwind(AssertUnwindSafe(work)).ok(), &stuck));
        let died = || TokenError::Refused("the call ended its thread".to_owned());
        hand.jobs.send(job).map_err(|_| died())?;
        let Outcome::Done(done) = turn.wait(limit, &self.stuck) else { return Err(hung()) };
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(hand);
        done.ok_or_else(died)
    }

    /// Ends the threads that have nothing to do, and waits until they are gone.
    pub(super) fn rest(&self) {
        let free = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        for Hand { jobs, thread } in free {
            drop(jobs);
            // A job that panics does not end its thread.
            let _ = thread.join();
        }
    }

    /// How many calls did not come back yet.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.load(Ordering::Relaxed)
    }

    fn hand(&self) -> Result<Hand, TokenError> {
        if let Some(free) = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(free);
        }
        let (jobs, given) = channel::<Job>();
        let work = move || given.into_iter().for_each(|job| job());
        let begun = Builder::new().name("pkcs11".to_owned()).spawn(work);
        let thread = begun.map_err(|error| TokenError::Refused(format!("no thread for it: {error}")))?;
        Ok(Hand { jobs, thread })
    }
}

impl Drop for Hands {
    /// A module may tidy up after a thread that ends, which it cannot once it ends itself, with the process.
    fn drop(&mut self) {
        self.rest();
    }
}

impl<T> Turn<T> {
    fn finish(&self, outcome: Option<T>, stuck: &AtomicUsize) {
        let mut state = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, Outcome::GivenUp) {
            drop(state);
            // It counts until what it came to is dropped too: closing a session is a call.
            drop(outcome);
            stuck.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        *state = Outcome::Done(outcome);
        self.is_done.notify_one();
    }

    /// What was done; given up where it took too long.
    fn wait(&self, limit: Duration, stuck: &AtomicUsize) -> Outcome<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Outcome::Done(outcome) = &mut *state {
                return Outcome::Done(outcome.take());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                *state = Outcome::GivenUp;
                stuck.fetch_add(1, Ordering::Relaxed);
                return Outcome::GivenUp;
            }
            (state, _) = self.is_done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_call_that_does_not_come_back_is_given_up_and_ends_by_itself() {
        let hands = Hands::default();
        assert_eq!(hands.within(LONG, || 7), Ok(7));
        let (wake, asleep) = channel::<()>();
        let gone = hands.within(Duration::from_millis(10), move || asleep.recv().is_ok());
        assert_eq!(gone, Err(TokenError::Hung { seconds: 0, stuck: 1 }));
        assert_eq!(hands.within(LONG, || 8), Ok(8), "others are not held up");
        wake.send(()).unwrap();
        while hands.stuck() > 0 {
            thread::yield_now();
        }
        assert_eq!(hands.within(LONG, || 9), Ok(9));
        assert_eq!(hands.free.lock().unwrap().len(), 1, "one thread did all that came back in time");
        hands.rest();
        assert!(hands.free.lock().unwrap().is_empty());
        assert_eq!(hands.within(LONG, || 10), Ok(10));
    }

    #[test]
    fn calls_that_do_not_come_back_are_bounded() {
        let hands = Hands::default();
        let sleepers: Vec<_> = (0..MOST_STUCK)
            .map(|_| {
                let (wake, asleep) = channel::<()>();
                assert!(hands.within(Duration::ZERO, move || asleep.recv()).is_err());
                wake
            })
            .collect();
        let refused = hands.within(LONG, || 1);
        assert_eq!(refused, Err(TokenError::Hung { seconds: 60, stuck: MOST_STUCK }));
        drop(sleepers);
        while hands.stuck() > 0 {
            thread::yield_now();
        }
        assert_eq!(hands.within(LONG, || 1), Ok(1));
    }

    #[test]
    fn a_panic_is_a_refusal() {
        let hands = Hands::default();
        let refused = hands.within(LONG, || -> u8 { panic!("of a test") });
        assert!(matches!(refused, Err(TokenError::Refused(_))), "{refused:?}");
        assert_eq!(hands.within(LONG, || 1), Ok(1));
    }
}
