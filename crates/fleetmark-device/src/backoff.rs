//! How long to wait before the next try.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The first bound.
const FIRST: Duration = Duration::from_secs(1);
/// The last bound, and the pace for what an operator has to put right.
pub const SLOW: Duration = Duration::from_secs(15 * 60);
/// No wait is shorter: a server that refuses connections at once is not asked in a tight loop.
const LEAST: Duration = Duration::from_millis(250);

/// A random number from 0 up to and without 1, in 2^-32 steps; 1/2 when the system has no randomness to give.
pub fn roll() -> f64 {
    let mut octets = [0; 4];
    match SystemRandom::new().fill(&mut octets) {
        Ok(()) => f64::from(u32::from_be_bytes(octets)) / 4_294_967_296.0,
        Err(_) => 0.5,
    }
}

/// The wait after the `failures`-th failure in a row (from 1): full jitter below a bound that doubles from 1 s to 15 min.
pub fn after(failures: u32, roll: f64) -> Duration {
    let bound = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(SLOW);
    bound.mul_f64(roll.clamp(0.0, 1.0)).max(LEAST)
}

/// The wait that a server asked for, and up to a quarter more, so that a fleet told the same does not return as one.
pub fn asked(retry_after: Duration, roll: f64) -> Duration {
    retry_after.max(LEAST).mul_f64(1.0 + roll.clamp(0.0, 1.0) / 4.0)
}

/// The slow pace, up to a tenth shorter or longer.
pub fn slow(roll: f64) -> Duration {
    SLOW.mul_f64(0.9 + roll.clamp(0.0, 1.0) / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_and_stops() {
        assert_eq!(after(1, 1.0), Duration::from_secs(1));
        assert_eq!(after(4, 1.0), Duration::from_secs(8));
        assert_eq!(after(4, 0.5), Duration::from_secs(4));
        assert_eq!(after(11, 1.0), SLOW);
        assert_eq!(after(u32::MAX, 1.0), SLOW);
        assert_eq!(after(9, 0.0), LEAST);
    }

    #[test]
    fn a_server_is_never_asked_sooner_than_it_said() {
        let said = Duration::from_secs(100);
        assert_eq!(asked(said, 0.0), said);
        assert_eq!(asked(said, 1.0), Duration::from_secs(125));
    }

    #[test]
    fn rolls_differ() {
        assert!((0..8).map(|_| roll()).any(|one| (one - roll()).abs() > f64::EPSILON));
    }
}
