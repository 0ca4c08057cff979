//! First uses of unconfirmed certificates, kept until the server has taken them.

use std::collections::BTreeMap;

use fleetmark_domain::LedgerName;

use super::Sighting;

/// The most that wait; what comes beyond is dropped, and seen again at the certificate's next use.
const MAX_WAITING: usize = 65_536;

/// The sightings that wait to be reported.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    waiting: BTreeMap<Sighting, LedgerName>,
}

impl Sightings {
    /// Takes one; returns whether it is new.
    pub(crate) fn take(&mut self, ledger: LedgerName, sighting: Sighting) -> bool {
        self.waiting.len() < MAX_WAITING && self.waiting.insert(sighting, ledger).is_none()
    }

    /// At most `most` of one ledger's, to be reported. They stay until [`Self::done`].
    pub(crate) fn batch(&self, ledger: &LedgerName, most: usize) -> Vec<Sighting> {
        self.waiting.iter().filter(|(_, of)| *of == ledger).map(|(sighting, _)| *sighting).take(most).collect()
    }

    /// The server has these.
    pub(crate) fn done(&mut self, reported: &[Sighting]) {
        for sighting in reported {
            self.waiting.remove(sighting);
        }
    }
}
