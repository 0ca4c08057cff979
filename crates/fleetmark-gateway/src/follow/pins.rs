//! The ledgers' keys, pinned at first sight in `DIR/pins.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fleetmark_domain::{FleetName, LedgerName, TrustDomain};
use fleetmark_ledger::note::{VerifierKey, origin};
use serde::{Deserialize, Serialize};

use super::alarm::Alarm;
use super::wire::{Ledgers, Offered};
use crate::disk::{self, DiskError};

/// The longest `pins.json`, in octets.
const MAX_PINS: u64 = 1024 * 1024;
/// Whatever the server says, knowledge older than this counts for nothing.
const LONGEST_MAX_AGE: u64 = 30 * 24 * 3600;
/// Where the server has not said.
const USUAL_MAX_AGE: u64 = 900;

/// What is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The installation's trust domain.
    #[serde(default)]
    pub trust_domain: Option<TrustDomain>,
    /// Verifier keys (C2SP signed-note) by ledger.
    #[serde(default)]
    pub ledgers: BTreeMap<String, String>,
    /// Seconds, by ledger: how old knowledge may be, as the server said last.
    #[serde(default)]
    pub max_age: BTreeMap<String, u64>,
}

/// A ledger to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) ledger: LedgerName,
    pub(crate) key: VerifierKey,
    pub(crate) max_age: Duration,
}

impl Pins {
    /// Reads `DIR/pins.json`; nothing is pinned where there is none.
    ///
    /// # Errors
    /// Where it cannot be read or is malformed: pins that were lost are not made anew in silence.
    pub fn load(dir: &Path) -> Result<Self, DiskError> {
        match disk::read(&dir.join("pins.json"), MAX_PINS)? {
            Some(octets) => serde_json::from_slice(&octets).map_err(|_| DiskError::Form("pins.json")),
            None => Ok(Self::default()),
        }
    }

    /// Writes `DIR/pins.json`, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, dir: &Path) -> Result<(), DiskError> {
        let octets = serde_json::to_vec_pretty(self).map_err(|_| DiskError::Form("pins.json"))?;
        disk::replace(&dir.join("pins.json"), &octets)
    }

    /// The verifier key that is pinned for a ledger.
    pub fn key(&self, ledger: &LedgerName) -> Option<VerifierKey> {
        VerifierKey::from_vkey(self.ledgers.get(ledger.as_str())?).ok()
    }

    /// The ledgers of the server's list that are to be followed; new keys are pinned, changed ones refused. `fleets` empty: all.
    pub(crate) fn admit(&mut self, list: &Ledgers, fleets: &[FleetName]) -> Vec<Followed> {
        let domain = self.trust_domain.get_or_insert_with(|| list.trust_domain.clone()).clone();
        let mut followed = Vec::new();
        for offered in &list.offered {
            let Ok(ledger) = offered.ledger.parse::<LedgerName>() else {
                continue;
            };
            if is_wanted(&ledger, fleets) {
                followed.extend(self.admit_one(&domain, ledger, offered));
            }
        }
        followed
    }

    fn admit_one(&mut self, domain: &TrustDomain, ledger: LedgerName, offered: &Offered) -> Option<Followed> {
        let key = VerifierKey::from_vkey(&offered.key).ok().filter(|key| key.name == origin(domain, &ledger));
        match (key, self.key(&ledger)) {
            (Some(key), None) if !self.ledgers.contains_key(ledger.as_str()) => {
                tracing::info!(ledger = ledger.as_str(), key = key.to_vkey(), "the ledger's key is pinned");
                self.ledgers.insert(ledger.to_string(), key.to_vkey());
            }
            (Some(key), Some(pinned)) if key == pinned => {}
            _ => Alarm::WrongKey.raise(Some(&ledger), "the server offers another key than the pinned one, which stays"),
        }
        self.pinned(ledger, offered)
    }

    fn pinned(&mut self, ledger: LedgerName, offered: &Offered) -> Option<Followed> {
        self.max_age.insert(ledger.to_string(), offered.max_age.min(LONGEST_MAX_AGE));
        self.followed(ledger)
    }

    fn followed(&self, ledger: LedgerName) -> Option<Followed> {
        let key = self.key(&ledger)?;
        let max_age = self.max_age.get(ledger.as_str()).copied().unwrap_or(USUAL_MAX_AGE);
        Some(Followed { ledger, key, max_age: Duration::from_secs(max_age) })
    }

    /// What is pinned and wanted, as far as it is known without the server.
    pub(crate) fn known(&self, fleets: &[FleetName]) -> Vec<Followed> {
        let ledgers = self.ledgers.keys().filter_map(|name| name.parse::<LedgerName>().ok());
        ledgers.filter(|ledger| is_wanted(ledger, fleets)).filter_map(|ledger| self.followed(ledger)).collect()
    }
}

fn is_wanted(ledger: &LedgerName, fleets: &[FleetName]) -> bool {
    match ledger {
        LedgerName::System => true,
        LedgerName::Fleet(fleet) => fleets.is_empty() || fleets.contains(fleet),
    }
}
