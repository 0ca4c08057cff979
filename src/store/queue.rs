//! A bounded queue with two lanes, from tasks that must not wait to threads that may.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Lane, StoreError};

/// How many jobs each lane holds.
pub const CAPACITY: usize = 4_096;

/// The queue.
pub struct Queue<J> {
    lanes: Mutex<Lanes<J>>,
    filled: Condvar,
}

struct Lanes<J> {
    urgent: VecDeque<J>,
    ordinary: VecDeque<J>,
    stopping: bool,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        let lanes = Lanes { urgent: VecDeque::new(), ordinary: VecDeque::new(), stopping: false };
        Self { lanes: Mutex::new(lanes), filled: Condvar::new() }
    }
}

impl<J> Queue<J> {
    /// Puts a job at the end of its lane.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if the lane is full, [`StoreError::Stopping`] after [`Self::stop`].
    pub fn push(&self, lane: Lane, job: J) -> Result<(), StoreError> {
        let mut lanes = self.lanes();
        if lanes.stopping {
            return Err(StoreError::Stopping);
        }
        let queue = match lane {
            Lane::Urgent => &mut lanes.urgent,
            Lane::Ordinary => &mut lanes.ordinary,
        };
        if queue.len() >= CAPACITY {
            return Err(StoreError::Busy);
        }
        queue.push_back(job);
        drop(lanes);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes at most `limit`, the urgent first; None once it was stopped and is empty.
    pub fn take(&self, limit: usize) -> Option<Vec<J>> {
        let mut lanes = self.lanes();
        while lanes.urgent.is_empty() && lanes.ordinary.is_empty() {
            if lanes.stopping {
                return None;
            }
            lanes = self.filled.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
        let urgent = limit.min(lanes.urgent.len());
        let ordinary = limit.saturating_sub(urgent).min(lanes.ordinary.len());
        let mut jobs: Vec<J> = lanes.urgent.drain(..urgent).collect();
        jobs.extend(lanes.ordinary.drain(..ordinary));
        Some(jobs)
    }

    /// How many jobs wait: urgent, ordinary.
    pub fn waiting(&self) -> (usize, usize) {
        let lanes = self.lanes();
        (lanes.urgent.len(), lanes.ordinary.len())
    }

    /// Takes no more jobs; what is queued is still done.
    pub fn stop(&self) {
        self.lanes().stopping = true;
        self.filled.notify_all();
    }

    /// No code of ours panics while it holds the lock; were it so, the lanes would still be whole.
    fn lanes(&self) -> MutexGuard<'_, Lanes<J>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_go_first_and_a_full_lane_says_so_at_once() {
        let queue = Queue::default();
        for job in 0..CAPACITY {
            queue.push(Lane::Ordinary, job).unwrap();
        }
        assert!(matches!(queue.push(Lane::Ordinary, 0), Err(StoreError::Busy)));
        queue.push(Lane::Urgent, 9_999).unwrap();
        assert_eq!(queue.waiting(), (1, CAPACITY));
        assert_eq!(queue.take(3), Some(vec![9_999, 0, 1]));
        queue.push(Lane::Ordinary, 0).unwrap();
    }

    #[test]
    fn after_the_stop_what_is_queued_is_still_handed_out() {
        let queue = Queue::default();
        queue.push(Lane::Ordinary, 1).unwrap();
        queue.stop();
        assert!(matches!(queue.push(Lane::Urgent, 2), Err(StoreError::Stopping)));
        assert_eq!(queue.take(8), Some(vec![1]));
        assert_eq!(queue.take(8), None);
    }
}
