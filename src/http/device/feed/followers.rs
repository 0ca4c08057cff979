//! How many may follow, and the end of all streams when the server stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetmark_domain::Refusal;
use tokio::sync::watch;

use crate::store::model::SubjectId;

/// Streams of one gateway or service.
const MOST_OF_ONE: usize = 4;

/// Who follows now.
#[derive(Debug)]
pub struct Followers {
    most: usize,
    open: Mutex<HashMap<SubjectId, usize>>,
    stopping: watch::Sender<bool>,
}

impl Followers {
    /// At most `most` streams in all.
    pub fn new(most: usize) -> Self {
        Self { most, open: Mutex::default(), stopping: watch::Sender::new(false) }
    }

    /// Counts one stream more, for as long as what is returned lives.
    ///
    /// # Errors
    /// `Stopping`; `Overloaded` beyond the most in all; `RateLimited` beyond four of one gateway or service.
    pub fn admit(self: &Arc<Self>, subject: SubjectId) -> Result<Admitted, Refusal> {
        if *self.stopping.borrow() {
            return Err(Refusal::Stopping);
        }
        let mut open = self.lock();
        if open.values().sum::<usize>() >= self.most {
            return Err(Refusal::Overloaded);
        }
        let own = open.entry(subject).or_default();
        if *own >= MOST_OF_ONE {
            return Err(Refusal::RateLimited);
        }
        *own += 1;
        metrics::gauge!("fleetmark_feed_followers").increment(1.0);
        Ok(Admitted { followers: Arc::clone(self), subject })
    }

    /// Ends all streams, and admits no more.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Becomes true when the streams must end.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SubjectId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's place.
pub struct Admitted {
    followers: Arc<Followers>,
    subject: SubjectId,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        metrics::gauge!("fleetmark_feed_followers").decrement(1.0);
        let mut open = self.followers.lock();
        if let Some(own) = open.get_mut(&self.subject) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_identity_and_given_back() {
        let followers = Arc::new(Followers::new(6));
        let mut first: Vec<_> = (0..4).map(|_| followers.admit(1).unwrap()).collect();
        assert_eq!(followers.admit(1).err(), Some(Refusal::RateLimited));
        let second: Vec<_> = (0..2).map(|_| followers.admit(2).unwrap()).collect();
        assert_eq!(followers.admit(2).err(), Some(Refusal::Overloaded));
        assert_eq!(followers.admit(3).err(), Some(Refusal::Overloaded));
        first.pop();
        let third = followers.admit(1).unwrap();
        assert_eq!(followers.admit(1).err(), Some(Refusal::Overloaded));
        drop((first, second, third));
        assert!(followers.lock().is_empty());
    }

    #[test]
    fn a_stopping_server_admits_nobody() {
        let followers = Arc::new(Followers::new(1));
        let stopping = followers.stopping();
        assert!(!*stopping.borrow());
        followers.stop();
        assert!(*stopping.borrow());
        assert_eq!(followers.admit(1).err(), Some(Refusal::Stopping));
    }
}
