//! Rows and ledger tails within one transaction.

use std::collections::BTreeMap;

use fleetmark_domain::{LedgerName, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Entry, Event};
use fleetmark_ledger::merkle::{Hash, Head, Node, leaf_hash};

use super::StoreError;
use super::model::{LedgerRecord, StoredEntry};
use super::rows::Rows;

/// A transaction that is open: the rows, and the tails of the ledgers that were locked for it.
pub struct Transaction<'a> {
    /// The rows.
    pub rows: &'a mut dyn Rows,
    tails: BTreeMap<LedgerName, Tail>,
}

/// What was appended to one ledger and is not written yet.
struct Tail {
    record: LedgerRecord,
    entries: Vec<StoredEntry>,
    /// Which of `entries` are urgent.
    urgent: Vec<usize>,
    nodes: Vec<(Node, Hash)>,
}

/// What is durable of one ledger after the commit.
pub struct Appended {
    /// Where.
    pub ledger: LedgerName,
    /// Its head from here on.
    pub head: Head,
    /// The urgent ones of the new entries.
    pub urgent: Vec<StoredEntry>,
}

impl Tail {
    const fn new(record: LedgerRecord) -> Self {
        Self { record, entries: Vec::new(), urgent: Vec::new(), nodes: Vec::new() }
    }
}

impl<'a> Transaction<'a> {
    /// Begins with no ledger locked.
    pub fn new(rows: &'a mut dyn Rows) -> Self {
        Self { rows, tails: BTreeMap::new() }
    }

    /// Locks these ledgers, in sorted order; one that is not there yet is passed over.
    pub fn lock(&mut self, ledgers: impl IntoIterator<Item = LedgerName>) -> Result<(), StoreError> {
        let sorted: std::collections::BTreeSet<_> = ledgers.into_iter().collect();
        for name in sorted {
            if let Some(record) = self.rows.lock_ledger(&name)? {
                self.tails.insert(name, Tail::new(record));
            }
        }
        Ok(())
    }

    /// Whether this ledger was locked for the transaction.
    pub fn holds(&self, ledger: &LedgerName) -> bool {
        self.tails.contains_key(ledger)
    }

    /// Makes a new ledger, which may be appended to at once.
    pub fn open_ledger(&mut self, record: LedgerRecord) -> Result<(), StoreError> {
        self.rows.insert_ledger(&record)?;
        self.tails.insert(record.name.clone(), Tail::new(record));
        Ok(())
    }

    /// The position that the next entry of `ledger` gets.
    pub fn position(&self, ledger: &LedgerName) -> Result<u64, StoreError> {
        self.tails.get(ledger).map(|tail| tail.record.frontier.size()).ok_or(StoreError::Unreadable { what: "ledger" })
    }

    /// Appends an entry, and returns its position.
    pub fn append(
        &mut self,
        ledger: &LedgerName,
        at: Timestamp,
        event: Event,
        details: Option<&Details>,
    ) -> Result<u64, StoreError> {
        let tail = self.tails.get_mut(ledger).ok_or(StoreError::Unreadable { what: "ledger" })?;
        let is_urgent = event.is_urgent();
        let entry = Entry { at, event, details: details.map(Details::commitment) };
        let octets = entry.encode().map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        let position = tail.record.frontier.size();
        let nodes = &mut tail.nodes;
        tail.record.frontier.append(leaf_hash(&octets), |node, hash| nodes.push((node, hash)));
        if is_urgent {
            tail.urgent.push(tail.entries.len());
        }
        tail.entries.push(StoredEntry { position, entry: octets, details: details.map(Details::encode) });
        Ok(position)
    }

    /// Writes entries, nodes and tails. The last step before the commit; returns what is durable with it, of ledgers without new
    /// entries too: a commit before may have lost its answer, and who repeats the act finds it done, but nobody signed its head.
    pub fn finish(self) -> Result<Vec<Appended>, StoreError> {
        let mut appended = Vec::new();
        for (name, tail) in self.tails {
            if !tail.entries.is_empty() {
                self.rows.insert_entries(&name, &tail.entries)?;
                if !tail.nodes.is_empty() {
                    self.rows.insert_nodes(&name, &tail.nodes)?;
                }
                self.rows.set_frontier(&tail.record)?;
            }
            if tail.record.frontier.size() > 0 {
                let urgent = tail.urgent.iter().filter_map(|place| tail.entries.get(*place).cloned()).collect();
                appended.push(Appended { head: tail.record.head(), ledger: name, urgent });
            }
        }
        Ok(appended)
    }
}
