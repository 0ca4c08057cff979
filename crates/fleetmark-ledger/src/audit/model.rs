//! What the entries mean, as far as one can be wrong about them.

use std::collections::BTreeMap;

use fleetmark_domain::{Epoch, Index, Standing};

use super::Rule;
use super::standings::Standings;
use crate::entry::{AuthorityKind, AuthorityState, Event, IndexSet, Issued};
use crate::note::VerifierKey;

/// Epochs, authorities and standings after the entries so far.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Whether the ledger was read from position 0: what was not seen then does not exist.
    whole: bool,
    /// The authority of each epoch.
    epochs: BTreeMap<Epoch, u32>,
    authorities: BTreeMap<u32, (AuthorityKind, AuthorityState)>,
    standings: Standings,
}

impl Model {
    pub(super) fn new(whole: bool) -> Self {
        Self { whole, epochs: BTreeMap::new(), authorities: BTreeMap::new(), standings: Standings::default() }
    }

    /// Takes the event at `position`. After a refusal the model is of no more use.
    pub(super) fn apply(&mut self, event: &Event, position: u64, pinned: &VerifierKey) -> Result<(), Rule> {
        match event {
            Event::Opened { origin, key } => opened(origin, key, position, pinned),
            _ if position == 0 => Err(Rule::NotOpened),
            Event::EpochOpened { authority, epoch } => self.epoch_opened(*authority, *epoch),
            Event::AuthorityChanged { authority, kind, state, .. } => self.authority_changed(*authority, *kind, *state),
            Event::Issued(issued) => self.issued(issued),
            Event::Confirmed { epoch, index } => self.confirmed(*epoch, *index),
            Event::StandingChanged { standing, certificates } => self.standing_changed(*standing, certificates),
            Event::SnapshotMade { size, .. } if *size > position => Err(Rule::SnapshotAhead),
            Event::SnapshotMade { .. } => Ok(()),
            Event::Registered { .. } | Event::Changed { .. } | Event::PolicyActivated { .. } | Event::FleetChanged { .. } => {
                Ok(())
            }
        }
    }

    fn epoch_opened(&mut self, authority: u32, epoch: Epoch) -> Result<(), Rule> {
        if matches!(self.state(authority), Some(AuthorityState::Tainted | AuthorityState::Revoked)) {
            return Err(Rule::AuthorityEnded);
        }
        if self.epochs.insert(epoch, authority).is_some() { Err(Rule::EpochReused) } else { Ok(()) }
    }

    fn authority_changed(&mut self, authority: u32, kind: AuthorityKind, state: AuthorityState) -> Result<(), Rule> {
        use AuthorityState::{Active, Prepared, Revoked, Tainted};
        let Some((kind_before, before)) = self.authorities.insert(authority, (kind, state)) else {
            return Ok(());
        };
        if kind_before != kind {
            return Err(Rule::AuthorityKindChanged);
        }
        // A repeated state is no step back: the authority's certificate was renewed.
        match (before, state) {
            (Prepared, _) | (Active, Active | Tainted | Revoked) | (Tainted, Tainted | Revoked) => Ok(()),
            _ => Err(Rule::AuthorityStateBack),
        }
    }

    fn issued(&mut self, issued: &Issued) -> Result<(), Rule> {
        match self.state(issued.authority) {
            Some(AuthorityState::Revoked) => return Err(Rule::AuthorityEnded),
            // Subject 0: a tainted authority still certifies its OCSP responder.
            Some(AuthorityState::Tainted) if issued.subject != 0 => return Err(Rule::AuthorityEnded),
            _ => {}
        }
        match self.epochs.get(&issued.epoch) {
            Some(authority) if *authority != issued.authority => return Err(Rule::OtherAuthority),
            Some(_) => {}
            None if self.whole => return Err(Rule::EpochUnknown),
            None => {
                self.epochs.insert(issued.epoch, issued.authority);
            }
        }
        if self.standings.of(issued.epoch, issued.index).is_some() {
            return Err(Rule::IndexReused);
        }
        self.standings.set(issued.epoch, issued.index, issued.standing);
        Ok(())
    }

    fn confirmed(&mut self, epoch: Epoch, index: Index) -> Result<(), Rule> {
        match self.standings.of(epoch, index) {
            Some(Standing::Unconfirmed) => self.standings.set(epoch, index, Standing::Good),
            Some(_) => return Err(Rule::NotUnconfirmed),
            None if self.whole => return Err(Rule::CertificateUnknown),
            None => {}
        }
        Ok(())
    }

    fn standing_changed(&mut self, next: Standing, certificates: &IndexSet) -> Result<(), Rule> {
        for range in certificates.ranges() {
            let known = self.standings.known(*range);
            if self.whole && u32::try_from(known.len()) != Ok(range.count) {
                return Err(Rule::CertificateUnknown);
            }
            for index in known {
                let before = self.standings.of(range.epoch, index);
                if !before.is_some_and(|before| before.may_become(next)) {
                    return Err(Rule::StandingForbidden);
                }
                self.standings.set(range.epoch, index, next);
            }
        }
        Ok(())
    }

    fn state(&self, authority: u32) -> Option<AuthorityState> {
        self.authorities.get(&authority).map(|(_, state)| *state)
    }
}

/// The first entry, and no other, opens the ledger with the pinned key.
fn opened(origin: &str, key: &[u8; 32], position: u64, pinned: &VerifierKey) -> Result<(), Rule> {
    if position != 0 {
        Err(Rule::OpenedAgain)
    } else if origin != pinned.name {
        Err(Rule::OtherOrigin)
    } else if *key != pinned.key {
        Err(Rule::OtherKey)
    } else {
        Ok(())
    }
}
