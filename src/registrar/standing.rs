//! Revoke, hold, release; the lapse of what was never confirmed.

use fleetmark_domain::{LedgerName, RevocationReason, Serial, Timestamp};

use super::caller::Caller;
use super::subjects::Who;
use super::{Registrar, Result};
use crate::store::model::Certificate;

/// What to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// End for ever.
    Revoke(RevocationReason),
    /// Suspend.
    Hold,
    /// End a suspension or quarantine.
    Release,
}

/// Of which certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Certificate(Serial),
    /// All of this subject's that the change applies to.
    Subject(Who),
}

/// What was changed.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The certificates, as they are now. Empty where all were so already.
    pub certificates: Vec<Certificate>,
    /// In which ledger it is written.
    pub ledger: LedgerName,
    /// At which position; None where nothing was changed.
    pub position: Option<u64>,
}

impl Registrar {
    /// Changes the standing of certificates. A repeat changes nothing and succeeds.
    pub async fn change_standing(
        &self,
        _caller: &Caller,
        _target: Target,
        _change: Change,
        _note: &str,
        _now: Timestamp,
    ) -> Result<Changed> {
        todo!()
    }

    /// Revokes what was not confirmed in time, at most 1,000 a call; returns how many.
    pub async fn revoke_lapsed(&self, _now: Timestamp) -> Result<usize> {
        todo!()
    }
}
