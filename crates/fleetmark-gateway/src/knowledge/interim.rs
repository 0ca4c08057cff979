//! Stands in for the ledger crate's `State` until that is filled.
use std::collections::HashMap;

use fleetmark_domain::{Epoch, Index};
use fleetmark_ledger::entry::Event;
use fleetmark_ledger::state::{Authority, Holding, ShortFingerprint};

#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    size: u64,
    epochs: HashMap<Epoch, u32>,
    authorities: HashMap<u32, Authority>,
    certificates: HashMap<(Epoch, Index), Holding>,
}

impl State {
    pub(crate) fn append_event(&mut self, event: &Event) {
        self.size += 1;
        match event {
            Event::EpochOpened { authority, epoch } => {
                self.epochs.insert(*epoch, *authority);
            }
            Event::AuthorityChanged { authority, kind, state, fingerprint } => {
                self.authorities.insert(*authority, Authority { kind: *kind, state: *state, fingerprint: *fingerprint });
            }
            Event::Issued(issued) => {
                let holding = Holding {
                    fingerprint: ShortFingerprint::from(&issued.fingerprint),
                    standing: issued.standing,
                    subject: issued.subject,
                };
                self.certificates.insert((issued.epoch, issued.index), holding);
            }
            Event::StandingChanged { standing, certificates } => {
                for place in certificates.certificates() {
                    if let Some(holding) = self.certificates.get_mut(&place) {
                        holding.standing = *standing;
                    }
                }
            }
            _ => {}
        }
    }
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
    pub(crate) fn certificate(&self, epoch: Epoch, index: Index) -> Option<Holding> {
        self.certificates.get(&(epoch, index)).copied()
    }
    pub(crate) fn authority_of(&self, epoch: Epoch) -> Option<u32> {
        self.epochs.get(&epoch).copied()
    }
    pub(crate) fn authority(&self, id: u32) -> Option<Authority> {
        self.authorities.get(&id).copied()
    }
    pub(crate) fn authorities(&self) -> Vec<(u32, Authority)> {
        self.authorities.iter().map(|(id, authority)| (*id, *authority)).collect()
    }
}
