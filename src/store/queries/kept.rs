//! Revocation lists, and what Idempotency-Keys were used for.

use diesel::prelude::*;
use fleetmark_domain::Timestamp;

use super::codes::{number, octets, signed};
use crate::store::StoreError;
use crate::store::model::{Remembered, StoredCrl};
use crate::store::schema::crls;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = crls, primary_key(authority))]
pub struct CrlRow {
    authority: i64,
    number: i64,
    this_update: i64,
    next_update: i64,
    position: i64,
    der: Vec<u8>,
}

impl From<&StoredCrl> for CrlRow {
    fn from(crl: &StoredCrl) -> Self {
        Self {
            authority: crl.authority.into(),
            number: signed(crl.number),
            this_update: crl.this_update.0,
            next_update: crl.next_update.0,
            position: signed(crl.position),
            der: crl.der.clone(),
        }
    }
}

impl TryFrom<CrlRow> for StoredCrl {
    type Error = StoreError;

    fn try_from(row: CrlRow) -> Result<Self, StoreError> {
        Ok(Self {
            authority: number(row.authority, "revocation list")?,
            number: number(row.number, "revocation list")?,
            this_update: Timestamp(row.this_update),
            next_update: Timestamp(row.next_update),
            position: number(row.position, "revocation list")?,
            der: row.der,
        })
    }
}

/// Request hash, resource and time as they are read.
pub type RememberedColumns = (Vec<u8>, String, i64);

impl TryFrom<RememberedColumns> for Remembered {
    type Error = StoreError;

    fn try_from((request_hash, resource, at): RememberedColumns) -> Result<Self, StoreError> {
        Ok(Self { request_hash: octets(&request_hash, "idempotency key")?, resource, at: Timestamp(at) })
    }
}

macro_rules! kept_rows {
    () => {
        fn crl(&mut self, authority: AuthorityId) -> Result<Option<StoredCrl>, StoreError> {
            let query = crls::table.find(i64::from(authority)).select(CrlRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(StoredCrl::try_from).transpose()
        }

        fn put_crl(&mut self, crl: &StoredCrl) -> Result<(), StoreError> {
            let query = diesel::insert_into(crls::table)
                .values(CrlRow::from(crl))
                .on_conflict(crls::authority)
                .do_update()
                .set(CrlRow::from(crl));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn crl_number(&mut self, authority: AuthorityId) -> Result<Option<u64>, StoreError> {
            let query = crls::table.find(i64::from(authority)).select(crls::number);
            let number: Option<i64> = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            number.map(|number| codes::number(number, "revocation list")).transpose()
        }

        fn remembered(&mut self, subject: SubjectId, key: &str) -> Result<Option<Remembered>, StoreError> {
            let query = remembered::table.find((signed(subject), key)).select((
                remembered::request_hash,
                remembered::resource,
                remembered::at,
            ));
            let row: Option<RememberedColumns> =
                query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Remembered::try_from).transpose()
        }

        fn remember(&mut self, subject: SubjectId, key: &str, value: &Remembered) -> Result<(), StoreError> {
            let query = diesel::insert_into(remembered::table).values((
                remembered::subject.eq(signed(subject)),
                remembered::key.eq(key),
                remembered::request_hash.eq(value.request_hash.as_slice()),
                remembered::resource.eq(value.resource.as_str()),
                remembered::at.eq(value.at.0),
            ));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn forget(&mut self, before: Timestamp) -> Result<u64, StoreError> {
            let query = diesel::delete(remembered::table.filter(remembered::at.lt(before.0)));
            let forgotten = query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            Ok(u64::try_from(forgotten).unwrap_or(u64::MAX))
        }
    };
}
