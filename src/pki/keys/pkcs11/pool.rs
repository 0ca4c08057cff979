//! A bounded pool of sessions over one device that may go and come back. It knows nothing of PKCS#11.
//!
//! Whoever finds a session broken throws all of them away, connects anew, and tries once more, since a session may have ended
//! for want of use. Where that fails too the device is lost: it is said once, every caller is refused at once, and one of them
//! tries again after [`Limits::retry`]. A device that refused the PIN is not asked again.
//!
//! Whatever asks the device is done on threads of its own ([`Hands`]), and waited for so long and no longer. A session whose call does not
//! come back is given up with all others of its connection, and counts no more.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::TokenError;
use super::hands::Hands;

/// Who ends waits no longer for sessions to be closed.
const LEAVING: Duration = Duration::from_secs(1);

/// What sessions are opened at.
pub(super) trait Device: Send + Sync + 'static {
    /// A session; dropped, it is closed.
    type Session: Send + 'static;

    /// Finds the device and logs in, after what was before is closed. `alone`: no session is in use anywhere, so that the
    /// device may be started anew.
    fn connect(&self, alone: bool) -> Result<(), TokenError>;

    /// Opens a session.
    fn open(&self) -> Result<Self::Session, TokenError>;

    /// Closes what it holds open itself.
    fn leave(&self);
}

/// The pool's bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// So many sessions at most.
    pub sessions: usize,
    /// Who waits longer for one is refused.
    pub patience: Duration,
    /// A lost device is tried again after so long.
    pub retry: Duration,
    /// A call that does not come back within this time is given up.
    pub call: Duration,
    /// The same of what is done with a session once, such as to make a key.
    pub slow: Duration,
    /// A device that took no more sessions is asked for more again after so long: others that held them may be gone.
    pub rest: Duration,
}

/// The pool.
pub(super) struct Pool<D: Device> {
    device: Arc<D>,
    hands: Hands,
    limits: Limits,
    state: Mutex<State<D::Session>>,
    changed: Condvar,
}

struct State<S> {
    link: Link,
    /// Counts connections, so that a late failure of an earlier one breaks no later one.
    connection: u64,
    idle: Vec<S>,
    /// Sessions in use, of whatever connection.
    lent: usize,
    /// Where the device took fewer than [`Limits::sessions`].
    lowered: Option<Lowered>,
    /// Whether it was said that the device is lost.
    is_lost: bool,
}

/// The device took no more than so many sessions.
#[derive(Clone, Copy)]
struct Lowered {
    ceiling: usize,
    /// Till then.
    until: Instant,
}

enum Link {
    Up,
    Connecting,
    Down { again_at: Instant, why: String },
    Barred(TokenError),
}

/// A session in use; it counts until it is dropped.
struct Lent<'a, D: Device> {
    pool: &'a Pool<D>,
    session: Option<D::Session>,
    connection: u64,
}

impl<D: Device> Drop for Lent<'_, D> {
    fn drop(&mut self) {
        // Closed before it stops to count, and outside of the lock: closing asks the device.
        if let Some(session) = self.session.take() {
            // One that cannot be closed in time is given up, and counts no more.
            let _ = self.pool.hands.within(self.pool.limits.call, move || drop(session));
        }
        self.pool.lock().lent -= 1;
        self.pool.changed.notify_all();
    }
}

impl<D: Device> Pool<D> {
    /// Over this device, which is connected to at the first use.
    pub(super) fn new(device: Arc<D>, hands: Hands, limits: Limits) -> Self {
        let state = State {
            link: Link::Down { again_at: Instant::now(), why: String::new() },
            connection: 0,
            idle: Vec::new(),
            lent: 0,
            lowered: None,
            is_lost: false,
        };
        Self { device, hands, limits, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The device is not there, and is waited for: until then everybody is refused as where it was lost.
    pub(super) fn await_device(&self, error: &TokenError) {
        let mut state = self.lock();
        state.link = Link::Down { again_at: Instant::now() + self.limits.retry, why: error.to_string() };
        state.is_lost = true;
        metrics::counter!("fleetmark_pkcs11_lost_total").increment(1);
        tracing::error!(%error, "the token is not there; whatever needs its keys is refused till it is");
    }

    /// Closes the sessions that are not in use and leaves the device, and ends the threads that have nothing to do.
    pub(super) fn rest(&self) {
        let idle = std::mem::take(&mut self.lock().idle);
        let device = self.device.clone();
        // What cannot be closed in time is given up.
        let _ = self.hands.within(self.limits.call.min(LEAVING), move || {
            drop(idle);
            device.leave();
        });
        self.hands.rest();
    }

    /// Counts the connections: after a loss it is another.
    pub(super) fn connection(&self) -> u64 {
        self.lock().connection
    }

    /// Whether the device answers, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        !self.lock().is_lost
    }

    /// Does this work with a session, and once more on a new connection where the session was broken.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut D::Session) -> Result<T, TokenError> + Clone + Send + 'static,
    ) -> Result<T, TokenError> {
        match self.attempt(work.clone(), self.limits.call, Duration::ZERO) {
            Err(TokenError::Lost(_)) => self.attempt(work, self.limits.call, self.limits.retry),
            other => other,
        }
    }

    /// The same for work that must not be done twice, and takes its time.
    pub(super) fn run_once<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut D::Session) -> Result<T, TokenError> + Send + 'static,
    ) -> Result<T, TokenError> {
        self.attempt(work, self.limits.slow, self.limits.retry)
    }

    fn attempt<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut D::Session) -> Result<T, TokenError> + Send + 'static,
        limit: Duration,
        again_after: Duration,
    ) -> Result<T, TokenError> {
        let mut lent = self.take(again_after)?;
        let Some(mut session) = lent.session.take() else { return Err(TokenError::Busy) };
        let done = self.hands.within(limit, move || {
            let done = work(&mut session);
            // After a failure an operation may be under way in it: it is closed here.
            let session = done.is_ok().then_some(session);
            (done, session)
        });
        let (done, session) = done.unwrap_or_else(|error| (Err(error), None));
        lent.session = session;
        match &done {
            Ok(_) => self.give_back(lent),
            Err(error) => {
                let connection = lent.connection;
                drop(lent);
                if error.is_loss() {
                    self.lose(connection, error, again_after);
                }
            }
        }
        done
    }

    /// A session: an idle one, or a new one, or the next that comes free.
    fn take(&self, again_after: Duration) -> Result<Lent<'_, D>, TokenError> {
        let deadline = Instant::now() + self.limits.patience;
        let mut state = self.lock();
        loop {
            match &state.link {
                Link::Barred(error) => return Err(error.clone()),
                Link::Down { again_at, why } if Instant::now() < *again_at => return Err(TokenError::Lost(why.clone())),
                Link::Down { .. } => {
                    state = self.connect(state)?;
                    continue;
                }
                Link::Up if !state.idle.is_empty() || state.lent < self.ceiling(&state) => {
                    let idle = state.idle.pop();
                    state.lent += 1;
                    let lent = Lent { pool: self, session: None, connection: state.connection };
                    drop(state);
                    match self.filled(lent, idle, again_after) {
                        // Those that were given up may be why: that passes.
                        Err(TokenError::TooManySessions) if self.hands.stuck() == 0 => {
                            state = self.lock();
                            self.lower(&mut state)?;
                            continue;
                        }
                        other => return other,
                    }
                }
                Link::Up | Link::Connecting => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let is_sought = matches!(state.link, Link::Connecting);
                return Err(if is_sought { TokenError::Lost("it is looked for".to_owned()) } else { TokenError::Busy });
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn filled<'a>(
        &'a self,
        mut lent: Lent<'a, D>,
        idle: Option<D::Session>,
        again_after: Duration,
    ) -> Result<Lent<'a, D>, TokenError> {
        let session = match idle {
            Some(session) => session,
            None => match self.ask(D::open) {
                Ok(session) => session,
                Err(error) => {
                    let connection = lent.connection;
                    drop(lent);
                    if error.is_loss() {
                        self.lose(connection, &error, again_after);
                    }
                    return Err(error);
                }
            },
        };
        lent.session = Some(session);
        Ok(lent)
    }

    /// Asks the device itself.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&D) -> Result<T, TokenError> + Send + 'static,
    ) -> Result<T, TokenError> {
        let device = self.device.clone();
        self.hands.within(self.limits.call, move || question(&device)).and_then(|answer| answer)
    }

    /// So many sessions are opened now.
    fn ceiling(&self, state: &State<D::Session>) -> usize {
        let lowered = state.lowered.filter(|lowered| Instant::now() < lowered.until);
        lowered.map_or(self.limits.sessions.max(1), |lowered| lowered.ceiling)
    }

    /// The device takes no more sessions than are there: for a while that is the bound.
    fn lower(&self, state: &mut State<D::Session>) -> Result<(), TokenError> {
        let there = state.lent + state.idle.len();
        if there == 0 {
            return Err(TokenError::TooManySessions);
        }
        if there < self.ceiling(state) {
            // Said once, not each time that it is asked for more in vain.
            if state.lowered.is_none_or(|before| there < before.ceiling) {
                tracing::warn!(sessions = there, "the token takes no more sessions than these");
            }
            state.lowered = Some(Lowered { ceiling: there, until: Instant::now() + self.limits.rest });
        }
        Ok(())
    }

    /// Connects, while others wait.
    fn connect<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<D::Session>>,
    ) -> Result<MutexGuard<'a, State<D::Session>>, TokenError> {
        state.link = Link::Connecting;
        // Beginning anew while a call is under way would break the module.
        let alone = state.lent == 0 && self.hands.stuck() == 0;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        let outcome = self.ask(move |device| {
            drop(idle);
            device.connect(alone)
        });
        let mut state = self.lock();
        self.changed.notify_all();
        match outcome {
            Ok(()) => {
                state.link = Link::Up;
                state.connection += 1;
                // It is another device, or it was started anew.
                state.lowered = None;
                if std::mem::take(&mut state.is_lost) {
                    metrics::counter!("fleetmark_pkcs11_returned_total").increment(1);
                    tracing::info!("the token is back");
                }
                Ok(state)
            }
            Err(error) if error.bars() => {
                if state.is_lost {
                    tracing::error!(%error, "the token is not asked again before the server is started anew");
                }
                state.link = Link::Barred(error.clone());
                Err(error)
            }
            Err(error) => {
                let again_at = Instant::now() + self.limits.retry;
                state.link = Link::Down { again_at, why: error.to_string() };
                // Before the first connection it is the start that fails, and says so.
                if state.connection == 0 && !state.is_lost { Err(error) } else { Err(TokenError::Lost(error.to_string())) }
            }
        }
    }

    fn give_back(&self, mut lent: Lent<'_, D>) {
        let mut state = self.lock();
        if state.connection == lent.connection && matches!(state.link, Link::Up) {
            state.idle.extend(lent.session.take());
        }
        drop(state);
    }

    /// Throws a connection away, unless that was done already.
    fn lose(&self, connection: u64, error: &TokenError, again_after: Duration) {
        let is_hung = matches!(error, TokenError::Hung { .. });
        // Nobody tries it again at once.
        let again_after = if is_hung { self.limits.retry } else { again_after };
        if is_hung {
            metrics::counter!("fleetmark_pkcs11_hung_total").increment(1);
            tracing::error!(%error, "a call of the token's module is given up");
        }
        let mut state = self.lock();
        if state.connection != connection || !matches!(state.link, Link::Up) {
            return;
        }
        state.link = Link::Down { again_at: Instant::now() + again_after, why: error.to_string() };
        // Sessions that lie idle are closed when it is connected to again.
        if !std::mem::replace(&mut state.is_lost, true) {
            metrics::counter!("fleetmark_pkcs11_lost_total").increment(1);
            tracing::error!(%error, "the token is lost; whatever needs its keys is refused till it is back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<D::Session>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
