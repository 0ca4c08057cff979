//! The auditor: reads a ledger's entries in order, keeps the tree and a model of what they mean, and names the first
//! that could not have been written by an honest server.

mod model;
mod standings;
mod violation;

use crate::details::Details;
use crate::entry::Entry;
use crate::merkle::{Frontier, leaf_hash};
use crate::note::{Checkpoint, VerifierKey};
use standings::Standings;

pub(crate) use model::{Model, Places};
pub use violation::{Rule, Violation};

/// Reads a ledger and judges it. It needs about one octet for each certificate.
#[derive(Debug, Clone)]
pub struct Auditor {
    key: VerifierKey,
    frontier: Frontier,
    model: Model<Standings>,
    found: Option<Violation>,
}

impl Auditor {
    /// From position 0. `key` is the pinned key of the ledger: the first entry must state it and its name.
    pub fn new(key: VerifierKey) -> Self {
        Self { key, frontier: Frontier::default(), model: Model::new(true), found: None }
    }

    /// From a saved frontier, which the caller has checked against a checkpoint. What happened before it is not known:
    /// a rule that needs it is then not applied. An auditor who wants every rule begins at position 0.
    pub fn resume(key: VerifierKey, frontier: Frontier) -> Self {
        let model = Model::new(frontier.size() == 0);
        Self { key, frontier, model, found: None }
    }

    /// The next entry, with its details where the auditor has them (they may be erased, or not be for this reader).
    ///
    /// # Errors
    /// The first violation. From then on every call gives it again: nothing after it can be judged.
    pub fn append(&mut self, octets: &[u8], details: Option<&[u8]>) -> Result<Entry, Violation> {
        if let Some(found) = self.found {
            return Err(found);
        }
        let entry = self.judge(octets, details).map_err(|rule| self.violated(rule))?;
        self.frontier.append(leaf_hash(octets), |_, _| {});
        Ok(entry)
    }

    /// Compares what was read with a signed checkpoint, which has to be as large as what was read. It can be asked again
    /// after more entries.
    ///
    /// # Errors
    /// The first violation of an entry, or [`Rule::AnotherLedger`], [`Rule::SizeDiffers`], [`Rule::RootDiffers`].
    pub fn finish(&self, checkpoint: &Checkpoint) -> Result<(), Violation> {
        if let Some(found) = self.found {
            return Err(found);
        }
        let head = self.frontier.head();
        let rule = if checkpoint.origin != self.key.name {
            Rule::AnotherLedger
        } else if checkpoint.head.size != head.size {
            Rule::SizeDiffers
        } else if checkpoint.head.root != head.root {
            Rule::RootDiffers
        } else {
            return Ok(());
        };
        Err(Violation { position: head.size, rule })
    }

    /// The tree so far: its size is the position of the next entry.
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    fn judge(&mut self, octets: &[u8], details: Option<&[u8]>) -> Result<Entry, Rule> {
        let entry = Entry::decode(octets).map_err(|_| Rule::NotAnEntry)?;
        if let Some(details) = details {
            let commitment = Details::decode(details).map_err(|_| Rule::NotDetails)?.commitment();
            if entry.details != Some(commitment) {
                return Err(Rule::OtherDetails);
            }
        }
        self.model.apply(&entry.event, self.frontier.size(), &self.key)?;
        Ok(entry)
    }

    fn violated(&mut self, rule: Rule) -> Violation {
        let violation = Violation { position: self.frontier.size(), rule };
        self.found = Some(violation);
        violation
    }
}

#[cfg(test)]
mod tests;
