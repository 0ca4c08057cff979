//! Alarms: what a person should look at. Each is logged and counted at once; those about a fleet or a device are written into its
//! ledger too, where nobody takes them out again. An attacker may cause alarms as he likes, so a ledger gets at most one entry of
//! the same alarm about the same subject an hour, and at most [`PER_HOUR`] in all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use fleetmark_ledger::details::MAX_NOTE;

use super::caller::alarm;
use super::install::ITSELF;
use super::{Registrar, Result};
use crate::store::acts::alarms::RecordAlarm;
use crate::store::commit;
use crate::store::model::SubjectId;

/// The most entries of alarms in one ledger in an hour.
pub const PER_HOUR: usize = 100;
/// For so long the same alarm is not written again.
const QUIET: Duration = Duration::from_secs(3_600);
/// The most alarms that wait to be written.
const WAITING: usize = 256;

/// An alarm on its way into a ledger.
#[derive(Debug)]
struct Raised {
    name: &'static str,
    ledger: LedgerName,
    subject: SubjectId,
    what: String,
    at: Timestamp,
}

/// What was written in the last hour, and what waits.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Raised>,
    written: HashMap<(LedgerName, &'static str, SubjectId), Timestamp>,
}

impl Alarms {
    fn put(&self, raised: Raised) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As long ahead: of a clock that was put back. Who asks at one time may come a moment out of turn.
        state.written.retain(|_, at| raised.at.0.abs_diff(at.0) < QUIET.as_secs());
        let key = (raised.ledger.clone(), raised.name, raised.subject);
        let in_ledger = state.written.keys().filter(|(ledger, ..)| *ledger == raised.ledger).count();
        if state.written.contains_key(&key) || in_ledger >= PER_HOUR || state.waiting.len() >= WAITING {
            metrics::counter!("fleetmark_alarms_unwritten_total", "alarm" => raised.name).increment(1);
            return;
        }
        state.written.insert(key, raised.at);
        state.waiting.push_back(raised);
    }

    fn take(&self) -> Option<Raised> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    /// Puts one back that could not be written.
    fn back(&self, raised: Raised) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_front(raised);
    }
}

impl Registrar {
    /// Raises an alarm about `subject` (0: none), and has it written into `ledger`, where there is one.
    pub(super) fn raise(&self, name: &'static str, ledger: LedgerName, subject: SubjectId, what: &str, now: Timestamp) {
        // The entry says by its place which fleet it is about; the log must say it too.
        alarm(name, &format!("ledger {ledger}: {what}"));
        // Whoever likes may name a fleet that is not there. It has no ledger.
        if self.publisher.size(&ledger).is_none() {
            return;
        }
        let what = what.chars().filter(|c| !c.is_control()).take(MAX_NOTE).collect();
        self.alarms.put(Raised { name, ledger, subject, what, at: now });
    }

    /// Writes the alarms that wait into their ledgers; returns how many.
    pub async fn record_alarms(&self) -> Result<usize> {
        let mut written = 0;
        while let Some(raised) = self.alarms.take() {
            let details = self.details(ITSELF.to_owned(), None, None, Some(raised.what.clone()))?;
            let Raised { name, ledger, subject, at, .. } = &raised;
            let act = RecordAlarm { alarm: name, ledger: ledger.clone(), subject: *subject, details, at: *at };
            match commit(&*self.store, act).await {
                Ok(()) => written += 1,
                Err(error) if error.refusal() == Refusal::FleetUnknown => {}
                Err(error) => {
                    self.alarms.back(raised);
                    return Err(error.into());
                }
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(name: &'static str, subject: SubjectId, at: i64) -> Raised {
        Raised { name, ledger: LedgerName::System, subject, what: String::new(), at: Timestamp(at) }
    }

    fn waiting(alarms: &Alarms) -> usize {
        std::iter::from_fn(|| alarms.take()).count()
    }

    #[test]
    fn the_same_alarm_is_written_once_an_hour() {
        let alarms = Alarms::default();
        for second in 0..100 {
            alarms.put(raised("one", 1, second));
        }
        alarms.put(raised("one", 2, 50));
        alarms.put(raised("two", 1, 50));
        assert_eq!(waiting(&alarms), 3);
        alarms.put(raised("one", 1, 3_599));
        assert_eq!(waiting(&alarms), 0);
        alarms.put(raised("one", 1, 3_601));
        assert_eq!(waiting(&alarms), 1);
    }

    #[test]
    fn a_clock_that_is_put_back_silences_nothing() {
        let alarms = Alarms::default();
        alarms.put(raised("one", 1, 900_000));
        alarms.put(raised("one", 1, 899_999));
        alarms.put(raised("one", 1, 5));
        assert_eq!(waiting(&alarms), 2);
    }

    #[test]
    fn a_flood_is_bounded() {
        let alarms = Alarms::default();
        for subject in 0..10_000 {
            alarms.put(raised("flood", subject, 0));
        }
        assert_eq!(waiting(&alarms), PER_HOUR);
    }
}
