//! Time on a device: a wall clock that may stand at 1970, a monotonic clock, and what a verified server said.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fleetmark_domain::Timestamp;

/// The two clocks of a machine.
pub trait Clock: Send + Sync {
    /// What the wall clock says. It may be wrong by decades.
    fn wall(&self) -> Timestamp;
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the device's one place that reads the wall clock")]
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(0) + since
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What the server's clock said, and when.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    server: Timestamp,
    monotonic: Duration,
    wall: Timestamp,
}

/// Wall and monotonic clock may drift apart by this much before the machine must have slept or its clock been set.
const MOST_DRIFT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Known {
    /// The newest server time that earlier runs saw: time is never before it.
    floor: Option<Timestamp>,
    sighting: Option<Sighting>,
}

/// The device's best idea of the time. Cheap to clone; all clones share what was learnt.
#[derive(Clone)]
pub struct DeviceTime {
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<Known>>,
}

impl std::fmt::Debug for DeviceTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl DeviceTime {
    /// Time by `clock`, not before `floor`, the newest server time that earlier runs saw.
    pub fn new(clock: Arc<dyn Clock>, floor: Option<Timestamp>) -> Self {
        Self { clock, known: Arc::new(Mutex::new(Known { floor, sighting: None })) }
    }

    /// Now: the server's time carried on by the monotonic clock, once a verified answer told it; until then the
    /// wall clock, but never before the newest server time that earlier runs saw.
    pub fn now(&self) -> Timestamp {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match (known.sighting, known.floor) {
            (Some(seen), _) => seen.server + self.clock.monotonic().saturating_sub(seen.monotonic),
            (None, Some(floor)) => self.clock.wall().max(floor),
            (None, None) => self.clock.wall(),
        }
    }

    /// Learns the server's time from a verified answer.
    ///
    /// Only within `dates`, the server certificate's validity: a server may not move a device's clock further
    /// than its own certificate reaches. Returns whether the time was taken.
    pub fn learn(&self, server: Timestamp, dates: Dates) -> bool {
        if server < dates.not_before || server > dates.not_after {
            return false;
        }
        let (monotonic, wall) = (self.clock.monotonic(), self.clock.wall());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.sighting = Some(Sighting { server, monotonic, wall });
        known.floor = known.floor.max(Some(server));
        true
    }

    /// Seconds by which the wall clock is behind the best known time; negative when it is ahead.
    pub fn wall_behind(&self) -> i64 {
        self.now().0.saturating_sub(self.clock.wall().0)
    }

    /// Whether a verified server told the time in this process.
    pub fn is_learnt(&self) -> bool {
        self.sighting().is_some()
    }

    /// Whether what a verified server told can still be relied on: not after the machine slept, since the monotonic clock
    /// may have stood still, nor after its clock was set, which cannot be told apart from sleep.
    pub fn is_fresh(&self) -> bool {
        self.sighting().is_some_and(|seen| {
            let by_monotonic = seen.wall + self.clock.monotonic().saturating_sub(seen.monotonic);
            let wall = self.clock.wall();
            wall.since(by_monotonic).max(by_monotonic.since(wall)) <= MOST_DRIFT
        })
    }

    fn sighting(&self) -> Option<Sighting> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).sighting
    }
}

/// A certificate's validity, both ends included (RFC 5280 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// A clock that tests move.
    pub(crate) struct FakeClock {
        pub(crate) wall: AtomicI64,
        pub(crate) monotonic: AtomicI64,
    }

    impl FakeClock {
        pub(crate) fn at(wall: i64) -> Arc<Self> {
            Arc::new(Self { wall: AtomicI64::new(wall), monotonic: AtomicI64::new(0) })
        }
    }

    impl Clock for FakeClock {
        fn wall(&self) -> Timestamp {
            Timestamp(self.wall.load(Ordering::SeqCst))
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(u64::try_from(self.monotonic.load(Ordering::SeqCst)).expect("positive"))
        }
    }

    const DATES: Dates = Dates { not_before: Timestamp(1_000_000), not_after: Timestamp(2_000_000) };

    #[test]
    fn after_a_verified_answer_the_wall_clock_no_longer_counts() {
        let clock = FakeClock::at(5);
        let time = DeviceTime::new(clock.clone(), None);
        assert_eq!(time.now(), Timestamp(5));
        assert!(time.learn(Timestamp(1_500_000), DATES));
        assert_eq!(time.wall_behind(), 1_499_995);
        clock.monotonic.store(60, Ordering::SeqCst);
        clock.wall.store(1, Ordering::SeqCst);
        assert_eq!(time.now(), Timestamp(1_500_060));
    }

    #[test]
    fn after_sleep_the_time_is_no_longer_fresh() {
        let clock = FakeClock::at(1_200_000);
        let time = DeviceTime::new(clock.clone(), None);
        assert!(!time.is_fresh());
        assert!(time.learn(Timestamp(1_200_005), DATES) && time.is_fresh());
        clock.wall.store(1_203_600, Ordering::SeqCst);
        assert!(!time.is_fresh() && time.is_learnt(), "an hour passed and the monotonic clock stood still");
        clock.monotonic.store(3600, Ordering::SeqCst);
        assert!(time.is_fresh());
    }

    #[test]
    fn a_server_moves_the_clock_only_within_its_certificate() {
        let time = DeviceTime::new(FakeClock::at(1_200_000), None);
        assert!(!time.learn(Timestamp(2_000_001), DATES));
        assert!(!time.learn(Timestamp(999_999), DATES));
        assert_eq!(time.now(), Timestamp(1_200_000));
    }

    #[test]
    fn time_does_not_go_back_behind_what_earlier_runs_saw() {
        let time = DeviceTime::new(FakeClock::at(5), Some(Timestamp(1_400_000)));
        assert_eq!(time.now(), Timestamp(1_400_000));
        let ahead = DeviceTime::new(FakeClock::at(1_400_001), Some(Timestamp(1_400_000)));
        assert_eq!(ahead.now(), Timestamp(1_400_001));
    }
}
