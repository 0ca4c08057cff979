//! Log lines that whoever is outside can cause: some a second are written, the others counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets some lines a second through.
#[derive(Debug)]
pub(crate) struct Quiet {
    most: u32,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    ends: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Quiet {
    /// At most `most` lines a second.
    pub(crate) const fn new(most: u32) -> Self {
        Self { most, window: Mutex::new(Window { ends: None, said: 0, unsaid: 0 }) }
    }

    /// Whether a line may be written: then how many were not since the last one that was.
    pub(crate) fn unsaid(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.ends.is_none_or(|ends| now >= ends) {
            (window.ends, window.said) = (Some(now + Duration::from_secs(1)), 0);
        }
        if window.said >= self.most {
            window.unsaid = window.unsaid.saturating_add(1);
            return None;
        }
        window.said += 1;
        Some(std::mem::take(&mut window.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_said_and_the_others_counted() {
        let (quiet, start) = (Quiet::new(2), Instant::now());
        let at = |millis| quiet.unsaid(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1_000), at(1_001), at(1_002)], [Some(2), Some(0), None]);
        assert_eq!(at(9_000), Some(1));
    }
}
