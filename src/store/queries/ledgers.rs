//! Ledger tails, entries and nodes.
#![expect(clippy::ref_option_ref, reason = "in what diesel derives")]

use diesel::prelude::*;
use fleetmark_domain::LedgerName;
use fleetmark_ledger::merkle::{Frontier, Hash, Node};

use super::codes::{number, octets, parsed, signed};
use crate::store::StoreError;
use crate::store::model::{LedgerRecord, StoredEntry};
use crate::store::schema::{ledger_entries, ledger_nodes, ledgers};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = ledgers)]
pub struct LedgerRow {
    name: String,
    origin: String,
    key_label: String,
    key: Vec<u8>,
    pub size: i64,
    pub root: Vec<u8>,
    pub frontier: Vec<u8>,
}

impl From<&LedgerRecord> for LedgerRow {
    fn from(ledger: &LedgerRecord) -> Self {
        let head = ledger.head();
        Self {
            name: ledger.name.as_str().to_owned(),
            origin: ledger.origin.clone(),
            key_label: ledger.key_label.clone(),
            key: ledger.key.to_vec(),
            size: signed(head.size),
            root: head.root.0.to_vec(),
            frontier: ledger.frontier.encode(),
        }
    }
}

impl TryFrom<LedgerRow> for LedgerRecord {
    type Error = StoreError;

    /// Root and size stand beside the frontier for whoever looks into the database; they must agree with it.
    fn try_from(row: LedgerRow) -> Result<Self, StoreError> {
        let frontier = Frontier::decode(&row.frontier).ok_or(StoreError::Unreadable { what: "ledger" })?;
        let head = frontier.head();
        if signed(head.size) != row.size || head.root.0.as_slice() != row.root {
            return Err(StoreError::Unreadable { what: "ledger" });
        }
        Ok(Self {
            name: parsed(&row.name, "ledger")?,
            origin: row.origin,
            key_label: row.key_label,
            key: octets(&row.key, "ledger")?,
            frontier,
        })
    }
}

#[derive(Insertable)]
#[diesel(table_name = ledger_entries, treat_none_as_default_value = false)]
pub struct NewEntry<'a> {
    ledger: &'a str,
    position: i64,
    entry: &'a [u8],
    details: Option<&'a [u8]>,
}

impl<'a> NewEntry<'a> {
    pub fn new(ledger: &'a LedgerName, entry: &'a StoredEntry) -> Self {
        Self {
            ledger: ledger.as_str(),
            position: signed(entry.position),
            entry: &entry.entry,
            details: entry.details.as_deref(),
        }
    }
}

/// Position, entry and details as they are read.
pub type EntryColumns = (i64, Vec<u8>, Option<Vec<u8>>);

impl TryFrom<EntryColumns> for StoredEntry {
    type Error = StoreError;

    fn try_from((position, entry, details): EntryColumns) -> Result<Self, StoreError> {
        Ok(Self { position: number(position, "ledger entry")?, entry, details })
    }
}

#[derive(Insertable)]
#[diesel(table_name = ledger_nodes)]
pub struct NewNode<'a> {
    ledger: &'a str,
    level: i16,
    place: i64,
    hash: &'a [u8],
}

impl<'a> NewNode<'a> {
    pub fn new(ledger: &'a LedgerName, (node, hash): &'a (Node, Hash)) -> Self {
        Self { ledger: ledger.as_str(), level: node.level.into(), place: signed(node.index), hash: &hash.0 }
    }
}

/// Hashes as they are read.
pub fn hashes(rows: Vec<Vec<u8>>) -> Result<Vec<Hash>, StoreError> {
    rows.into_iter().map(|hash| octets(&hash, "ledger node").map(Hash)).collect()
}

macro_rules! ledger_rows {
    ($at_once:expr $(, $for_update:ident)?) => {
        fn ledgers(&mut self) -> Result<Vec<LedgerRecord>, StoreError> {
            let query = ledgers::table.order(ledgers::name).select(LedgerRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn ledger(&mut self, name: &LedgerName) -> Result<Option<LedgerRecord>, StoreError> {
            let query = ledgers::table.find(name.as_str()).select(LedgerRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(LedgerRecord::try_from).transpose()
        }

        fn lock_ledger(&mut self, name: &LedgerName) -> Result<Option<LedgerRecord>, StoreError> {
            let query = ledgers::table.find(name.as_str()).select(LedgerRow::as_select())$(.$for_update())?;
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(LedgerRecord::try_from).transpose()
        }

        fn insert_ledger(&mut self, ledger: &LedgerRecord) -> Result<(), StoreError> {
            let query = diesel::insert_into(ledgers::table).values(LedgerRow::from(ledger));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn set_frontier(&mut self, ledger: &LedgerRecord) -> Result<(), StoreError> {
            let row = LedgerRow::from(ledger);
            let changes =
                (ledgers::size.eq(row.size), ledgers::root.eq(row.root), ledgers::frontier.eq(row.frontier));
            let query = update(ledgers::table, ledgers::name.eq(ledger.name.as_str()), changes);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "ledger")
        }

        fn insert_entries(&mut self, ledger: &LedgerName, entries: &[StoredEntry]) -> Result<(), StoreError> {
            for chunk in entries.chunks($at_once) {
                // One row is one prepared statement for ever; the text of many rows depends on how many.
                if let [entry] = chunk {
                    let query = diesel::insert_into(ledger_entries::table).values(NewEntry::new(ledger, entry));
                    query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
                } else {
                    let rows: Vec<_> = chunk.iter().map(|entry| NewEntry::new(ledger, entry)).collect();
                    let query = diesel::insert_into(ledger_entries::table).values(rows);
                    query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
                }
            }
            Ok(())
        }

        fn entries(&mut self, ledger: &LedgerName, from: u64, limit: u32) -> Result<Vec<StoredEntry>, StoreError> {
            let query = ledger_entries::table
                .filter(ledger_entries::ledger.eq(ledger.as_str()))
                .filter(ledger_entries::position.ge(signed(from)))
                .order(ledger_entries::position)
                .limit(limit.into())
                .select((ledger_entries::position, ledger_entries::entry, ledger_entries::details));
            records::<EntryColumns, _>(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_nodes(&mut self, ledger: &LedgerName, nodes: &[(Node, Hash)]) -> Result<(), StoreError> {
            for node in nodes {
                let query = diesel::insert_into(ledger_nodes::table).values(NewNode::new(ledger, node));
                query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            }
            Ok(())
        }

        fn nodes(&mut self, ledger: &LedgerName, node: Node, count: u16) -> Result<Vec<Hash>, StoreError> {
            let first = signed(node.index);
            let query = ledger_nodes::table
                .filter(ledger_nodes::ledger.eq(ledger.as_str()))
                .filter(ledger_nodes::level.eq(i16::from(node.level)))
                .filter(ledger_nodes::place.ge(first))
                .filter(ledger_nodes::place.lt(first.saturating_add(count.into())))
                .order(ledger_nodes::place)
                .select(ledger_nodes::hash);
            ledger_row::hashes(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }
    };
}
