//! What a person should look at, because of a certificate that somebody shows.

use std::time::Instant;

use crate::quiet::Quiet;

/// Log lines a second, of each alarm: one attacker can show many certificates.
const LINES: u32 = 4;

/// The alarms of verdicts. Each is counted, and logged a few times a second.
#[derive(Debug)]
pub(super) struct Alarms {
    forged: Quiet,
    wrong_authority: Quiet,
}

impl Default for Alarms {
    fn default() -> Self {
        Self { forged: Quiet::new(LINES), wrong_authority: Quiet::new(LINES) }
    }
}

impl Alarms {
    /// The ledger gave the serial to another certificate.
    pub(super) fn forged(&self, now: Instant, what: impl FnOnce() -> String) {
        raise("forged_certificate", &self.forged, now, what);
    }

    /// Its authority is not bound to its kind and fleet.
    pub(super) fn wrong_authority(&self, now: Instant, what: impl FnOnce() -> String) {
        raise("wrong_authority", &self.wrong_authority, now, what);
    }
}

fn raise(name: &'static str, quiet: &Quiet, now: Instant, what: impl FnOnce() -> String) {
    metrics::counter!("fleetmark_gateway_alarms_total", "alarm" => name).increment(1);
    if let Some(unsaid) = quiet.unsaid(now) {
        tracing::warn!(alarm = name, unsaid, "{}", what());
    }
}
