//! How many verdicts were given, by decision and reason.

use super::{Reason, Verdict};

/// One counter a reason, looked up once: the macro would look it up each time.
pub(super) struct Tally(Vec<(Reason, metrics::Counter)>);

impl Default for Tally {
    fn default() -> Self {
        let counter = |reason: Reason| {
            let decision = if reason == Reason::Allowed { "allow" } else { "deny" };
            let counter =
                metrics::counter!("fleetmark_gateway_verdicts_total", "decision" => decision, "reason" => reason.as_str());
            (reason, counter)
        };
        Self(Reason::ALL.into_iter().map(counter).collect())
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tally")
    }
}

impl Tally {
    /// Counts a verdict and gives it back.
    pub(super) fn count(&self, verdict: Verdict) -> Verdict {
        if let Some((_, counter)) = self.0.iter().find(|(reason, _)| *reason == verdict.reason) {
            counter.increment(1);
        }
        verdict
    }
}
