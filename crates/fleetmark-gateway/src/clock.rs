//! The gateway's clocks, and the rule by which knowledge grows old.
//!
//! Nothing here trusts the gateway's wall clock while the gateway runs:
//! - How old a checkpoint was on arrival is told by the server's clock alone: by its signed time, and by what the server said its
//!   time was when it was last asked over TLS ([`ServerTime`]). The time between asking and answering counts against the
//!   gateway, so that an answer or a feed that somebody delays makes knowledge older, never younger.
//! - From arrival on, the clocks that nobody can set count: the larger of the monotonic clock's and the boot clock's advance
//!   ([`Received`]); the latter goes on while the machine sleeps.
//! - A checkpoint whose signed time is not newer than the newest one seen changes nothing: a replayed one makes nothing fresh.
//!
//! Across a restart ([`Mark`]): on the same boot the boot clock counts on. After a reboot only the wall clock is left. It is
//! believed as far as it makes knowledge older; when it stands before the newest time that it was seen at, it was set back and
//! knowledge is stale until a new checkpoint comes.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use fleetmark_domain::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a signed time may be ahead of the server's own clock, as it was last told (several servers differ a little).
pub const MOST_AHEAD: Duration = Duration::from_secs(300);

/// The clocks of a machine.
pub trait Clock: fmt::Debug + Send + Sync {
    /// What the wall clock says. It may be wrong, and may be set.
    fn wall(&self) -> Timestamp;
    /// The monotonic clock.
    fn now(&self) -> Instant;
    /// Time since the machine was started, sleep included; never goes back.
    fn boot(&self) -> Duration;
    /// Names this boot of the machine; empty where the machine cannot tell.
    fn boot_id(&self) -> String;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the gateway's one place that reads the wall clock")]
    fn wall(&self) -> Timestamp {
        Timestamp(0) + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn boot_id(&self) -> String {
        // random(4): a UUID made at each boot.
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
    }
}

/// What the server said its time was, and when it was asked.
#[derive(Debug, Clone, Copy)]
pub struct ServerTime {
    told: Timestamp,
    asked: Moment,
}

/// One moment by both clocks that nobody can set.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    now: Instant,
    boot: Duration,
}

impl Moment {
    /// Now.
    pub fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), boot: clock.boot() }
    }

    /// Time since `earlier`: the larger of the two clocks' advances.
    fn since(self, earlier: Self) -> Duration {
        self.now.saturating_duration_since(earlier.now).max(self.boot.saturating_sub(earlier.boot))
    }
}

impl ServerTime {
    /// `told` is what the server answered to a question that was asked at `asked`.
    pub const fn new(told: Timestamp, asked: Moment) -> Self {
        Self { told, asked }
    }

    /// The latest time that the server's clock can show at `moment`.
    fn at(&self, moment: Moment) -> Timestamp {
        // `told` is in whole seconds, rounded down.
        self.told + moment.since(self.asked)
    }

    /// How old a checkpoint that was signed at `signed` is at `moment`; None when it is signed too far in the future.
    pub fn age(&self, signed: Timestamp, moment: Moment) -> Option<Duration> {
        let server = self.at(moment);
        if signed > server + MOST_AHEAD { None } else { Some(server.since(signed)) }
    }
}

/// The newest verified checkpoint: how old it was when it came, and when that was.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Its signed time.
    pub signed: Timestamp,
    age: Duration,
    moment: Moment,
}

impl Received {
    /// A checkpoint signed at `signed` that came at `moment` and was `age` old then.
    pub const fn new(signed: Timestamp, age: Duration, moment: Moment) -> Self {
        Self { signed, age, moment }
    }

    /// Its age now. `now` is the monotonic clock's; the boot clock is read.
    pub fn age(&self, now: Instant, clock: &dyn Clock) -> Duration {
        self.age.saturating_add(Moment { now, boot: clock.boot() }.since(self.moment))
    }
}

/// The high-water mark on disk: how old the knowledge was, by every clock, when it was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Signed time of the newest verified checkpoint.
    pub signed: Timestamp,
    /// Its age when the mark was saved, in milliseconds.
    pub age_ms: u64,
    /// The wall clock then, never less than in an earlier mark.
    pub wall: Timestamp,
    /// The boot clock then, in milliseconds.
    pub boot_ms: u64,
    /// The boot.
    pub boot_id: String,
}

impl Mark {
    /// The mark for what is known now; `earlier` is the mark that it replaces.
    pub fn take(received: &Received, clock: &dyn Clock, earlier: Option<&Self>) -> Self {
        let wall = clock.wall();
        Self {
            signed: received.signed,
            age_ms: millis(received.age(clock.now(), clock)),
            wall: earlier.map_or(wall, |earlier| wall.max(earlier.wall)),
            boot_ms: millis(clock.boot()),
            boot_id: clock.boot_id(),
        }
    }

    /// Whether this mark is hardly newer than one that is saved: less than `every`, by the boot clock.
    pub fn is_within(&self, saved: &Self, every: Duration) -> bool {
        self.boot_id == saved.boot_id && u128::from(self.boot_ms.saturating_sub(saved.boot_ms)) < every.as_millis()
    }

    /// What is known after a restart; None while no clock can say how old it is: it is stale then.
    pub fn restore(&self, clock: &dyn Clock) -> Option<Received> {
        let (wall, boot) = (clock.wall(), millis(clock.boot()));
        let passed = if !self.boot_id.is_empty() && self.boot_id == clock.boot_id() {
            Duration::from_millis(boot.checked_sub(self.boot_ms)?)
        } else if wall < self.wall {
            return None;
        } else {
            wall.since(self.wall)
        };
        let age = Duration::from_millis(self.age_ms).saturating_add(passed);
        Some(Received::new(self.signed, age, Moment::of(clock)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Clocks that a test sets.
    #[derive(Debug)]
    pub(crate) struct FakeClock {
        start: Instant,
        set: Mutex<(Timestamp, Duration, Duration, String)>,
    }

    impl FakeClock {
        pub(crate) fn new(wall: i64) -> Self {
            let set = (Timestamp(wall), Duration::ZERO, Duration::from_secs(1_000), "boot-1".to_owned());
            Self { start: Instant::now(), set: Mutex::new(set) }
        }

        /// Time passes: by the wall clock, the monotonic clock, and the boot clock.
        pub(crate) fn pass(&self, wall: i64, monotonic: u64, boot: u64) {
            let mut set = self.set.lock().unwrap();
            set.0 = Timestamp(set.0.0 + wall);
            set.1 += Duration::from_secs(monotonic);
            set.2 += Duration::from_secs(boot);
        }

        pub(crate) fn reboot(&self) {
            let mut set = self.set.lock().unwrap();
            (set.2, set.3) = (Duration::ZERO, "boot-2".to_owned());
        }
    }

    impl Clock for FakeClock {
        fn wall(&self) -> Timestamp {
            self.set.lock().unwrap().0
        }

        fn now(&self) -> Instant {
            self.start + self.set.lock().unwrap().1
        }

        fn boot(&self) -> Duration {
            self.set.lock().unwrap().2
        }

        fn boot_id(&self) -> String {
            self.set.lock().unwrap().3.clone()
        }
    }

    const SIGNED: Timestamp = Timestamp(1_800_000_000);

    fn seconds(received: &Received, clock: &FakeClock) -> u64 {
        received.age(clock.now(), clock).as_secs()
    }

    #[test]
    fn the_wall_clock_changes_nothing_while_the_gateway_runs_and_sleep_counts() {
        let clock = FakeClock::new(0);
        let server = ServerTime::new(SIGNED + Duration::from_secs(7), Moment::of(&clock));
        let age = server.age(SIGNED, Moment::of(&clock)).unwrap();
        let received = Received::new(SIGNED, age, Moment::of(&clock));
        assert_eq!(seconds(&received, &clock), 7);
        for wall in [3_600, -7_200] {
            clock.pass(wall, 0, 0);
            assert_eq!(seconds(&received, &clock), 7);
        }
        clock.pass(0, 10, 10);
        assert_eq!(seconds(&received, &clock), 17);
        clock.pass(0, 0, 3_600);
        assert_eq!(seconds(&received, &clock), 3_617, "the machine slept for an hour");
    }

    #[test]
    fn what_somebody_delayed_is_old_when_it_comes() {
        let clock = FakeClock::new(0);
        let server = ServerTime::new(SIGNED, Moment::of(&clock));
        clock.pass(0, 3_600, 3_600);
        assert_eq!(server.age(SIGNED + Duration::from_secs(5), Moment::of(&clock)), Some(Duration::from_secs(3_595)));
        let now = SIGNED + Duration::from_secs(3_600);
        assert_eq!(server.age(now + MOST_AHEAD, Moment::of(&clock)), Some(Duration::ZERO));
        assert_eq!(server.age(now + MOST_AHEAD + Duration::from_secs(1), Moment::of(&clock)), None);
    }

    #[test]
    fn a_restart_makes_nothing_younger() {
        let saved =
            |clock: &FakeClock| Mark::take(&Received::new(SIGNED, Duration::from_secs(20), Moment::of(clock)), clock, None);
        // On the same boot the wall clock has no say.
        for wall in [-3_600, 0, 3_600] {
            let clock = FakeClock::new(SIGNED.0);
            let mark = saved(&clock);
            clock.pass(wall, 0, 30);
            assert_eq!(seconds(&mark.restore(&clock).unwrap(), &clock), 50, "{wall}");
        }
        // After a reboot it is believed forwards, and not backwards.
        for (wall, age) in [(-3_600, None), (-1, None), (0, Some(20)), (3_600, Some(3_620))] {
            let clock = FakeClock::new(SIGNED.0);
            let mark = saved(&clock);
            clock.reboot();
            clock.pass(wall, 0, 5);
            let restored = mark.restore(&clock);
            assert_eq!(restored.map(|received| seconds(&received, &clock)), age, "{wall}");
        }
    }

    #[test]
    fn the_high_water_mark_does_not_go_back() {
        let clock = FakeClock::new(SIGNED.0);
        let received = Received::new(SIGNED, Duration::ZERO, Moment::of(&clock));
        let first = Mark::take(&received, &clock, None);
        clock.pass(-3_600, 1, 1);
        let second = Mark::take(&received, &clock, Some(&first));
        assert_eq!(second.wall, first.wall);
        clock.reboot();
        assert!(second.restore(&clock).is_none());
    }
}
