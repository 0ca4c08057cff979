//! Stands in for the ledger crate's `State` until that is filled.
use std::collections::HashMap;

use fleetmark_domain::{Epoch, Index};
use fleetmark_ledger::audit::{Auditor, Violation};
use fleetmark_ledger::entry::{Entry, Event};
use fleetmark_ledger::merkle::Frontier;
use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::state::{ActivePolicy, Authority, Holding, ShortFingerprint};

#[derive(Debug, Clone)]
pub(crate) struct State {
    key: VerifierKey,
    auditor: Auditor,
    policy: Option<ActivePolicy>,
    epochs: HashMap<Epoch, u32>,
    authorities: HashMap<u32, Authority>,
    certificates: HashMap<(Epoch, Index), Holding>,
}

impl State {
    pub(crate) fn new(key: VerifierKey) -> Self {
        let auditor = Auditor::new(key.clone());
        Self { key, auditor, policy: None, epochs: HashMap::new(), authorities: HashMap::new(), certificates: HashMap::new() }
    }
    pub(crate) fn append(&mut self, octets: &[u8]) -> Result<Entry, Violation> {
        let entry = self.auditor.append(octets, None)?;
        self.take(&entry.event);
        Ok(entry)
    }
    pub(crate) fn key(&self) -> &VerifierKey {
        &self.key
    }
    pub(crate) fn frontier(&self) -> &Frontier {
        self.auditor.frontier()
    }
    fn take(&mut self, event: &Event) {
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
            Event::Confirmed { epoch, index } => {
                if let Some(holding) = self.certificates.get_mut(&(*epoch, *index)) {
                    holding.standing = fleetmark_domain::Standing::Good;
                }
            }
            Event::StandingChanged { standing, certificates } => {
                for place in certificates.certificates() {
                    if let Some(holding) = self.certificates.get_mut(&place) {
                        holding.standing = *standing;
                    }
                }
            }
            Event::PolicyActivated { version, hash } => self.policy = Some(ActivePolicy { version: *version, hash: *hash }),
            _ => {}
        }
    }
    pub(crate) fn policy(&self) -> Option<ActivePolicy> {
        self.policy
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
