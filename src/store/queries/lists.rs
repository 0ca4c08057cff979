//! Published lists.

use diesel::prelude::*;
use fleetmark_domain::{Epoch, Timestamp};

use super::codes::{Coded, number, signed, word};
use crate::store::StoreError;
use crate::store::model::{ListKey, PublishedList};
use crate::store::schema::published_lists;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = published_lists, primary_key(kind, authority, epoch, slice))]
pub struct PublishedListRow {
    kind: i16,
    authority: i64,
    epoch: i64,
    slice: i64,
    number: i64,
    this_update: i64,
    next_update: i64,
    position: i64,
    octets: Vec<u8>,
}

impl From<&PublishedList> for PublishedListRow {
    fn from(list: &PublishedList) -> Self {
        let (kind, authority, epoch, slice) = key_columns(&list.key);
        Self {
            kind,
            authority,
            epoch,
            slice,
            number: signed(list.number),
            this_update: list.this_update.0,
            next_update: list.next_update.0,
            position: signed(list.position),
            octets: list.octets.clone(),
        }
    }
}

impl TryFrom<PublishedListRow> for PublishedList {
    type Error = StoreError;

    fn try_from(row: PublishedListRow) -> Result<Self, StoreError> {
        Ok(Self {
            key: key((row.kind, row.authority, row.epoch, row.slice))?,
            number: number(row.number, "published list")?,
            this_update: Timestamp(row.this_update),
            next_update: Timestamp(row.next_update),
            position: number(row.position, "published list")?,
            octets: row.octets,
        })
    }
}

/// The primary key's columns.
pub type KeyColumns = (i16, i64, i64, i64);

/// A key as columns.
pub fn key_columns(key: &ListKey) -> KeyColumns {
    (key.kind.code(), key.authority.into(), key.epoch.0.into(), key.slice.into())
}

/// The key of its columns.
pub fn key((kind, authority, epoch, slice): KeyColumns) -> Result<ListKey, StoreError> {
    const WHAT: &str = "published list";
    Ok(ListKey {
        kind: word(kind, WHAT)?,
        authority: number(authority, WHAT)?,
        epoch: Epoch(number(epoch, WHAT)?),
        slice: number(slice, WHAT)?,
    })
}

macro_rules! list_rows {
    () => {
        fn published_list(&mut self, key: &ListKey) -> Result<Option<PublishedList>, StoreError> {
            let query = published_lists::table.find(list_row::key_columns(key)).select(PublishedListRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(PublishedList::try_from).transpose()
        }

        fn list_number(&mut self, key: &ListKey) -> Result<Option<u64>, StoreError> {
            let query = published_lists::table.find(list_row::key_columns(key)).select(published_lists::number);
            let number: Option<i64> = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            number.map(|number| codes::number(number, "published list")).transpose()
        }

        fn list_numbers(&mut self, kind: ListKind) -> Result<Vec<(ListKey, u64)>, StoreError> {
            let query = published_lists::table
                .filter(published_lists::kind.eq(kind.code()))
                .order((published_lists::authority, published_lists::epoch, published_lists::slice))
                .select((
                    (published_lists::kind, published_lists::authority, published_lists::epoch, published_lists::slice),
                    published_lists::number,
                ));
            let rows: Vec<(list_row::KeyColumns, i64)> = query.load(&mut self.connection).map_err(|error| self.fault(error))?;
            let read = |(key, number)| Ok((list_row::key(key)?, codes::number(number, "published list")?));
            rows.into_iter().map(read).collect()
        }

        fn put_list(&mut self, list: &PublishedList) -> Result<(), StoreError> {
            let query = diesel::insert_into(published_lists::table)
                .values(PublishedListRow::from(list))
                .on_conflict((
                    published_lists::kind,
                    published_lists::authority,
                    published_lists::epoch,
                    published_lists::slice,
                ))
                .do_update()
                .set(PublishedListRow::from(list));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn delete_list(&mut self, key: &ListKey) -> Result<bool, StoreError> {
            let query = diesel::delete(published_lists::table.find(list_row::key_columns(key)));
            query.execute(&mut self.connection).map(|deleted| deleted > 0).map_err(|error| self.fault(error))
        }
    };
}
