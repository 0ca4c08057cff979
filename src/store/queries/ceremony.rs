//! What the root is asked for.

use diesel::prelude::*;
use fleetmark_domain::{Epoch, Index, Timestamp};

use super::codes::{Coded, number, optional, word};
use crate::store::StoreError;
use crate::store::model::RootRequest;
use crate::store::schema::root_requests;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = root_requests, treat_none_as_default_value = false, treat_none_as_null = true)]
pub struct RootRequestRow {
    id: String,
    kind: i16,
    fleet: String,
    epoch: i64,
    position: i64,
    csr: Vec<u8>,
    certificate: Option<Vec<u8>>,
    asked_at: i64,
}

impl From<&RootRequest> for RootRequestRow {
    fn from(request: &RootRequest) -> Self {
        Self {
            id: request.id.clone(),
            kind: request.kind.code(),
            fleet: request.fleet.as_ref().map(ToString::to_string).unwrap_or_default(),
            epoch: request.epoch.0.into(),
            position: request.index.0.into(),
            csr: request.csr.clone(),
            certificate: request.certificate.clone(),
            asked_at: request.asked_at.0,
        }
    }
}

impl TryFrom<RootRequestRow> for RootRequest {
    type Error = StoreError;

    fn try_from(row: RootRequestRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            kind: word(row.kind, "root request")?,
            fleet: optional(&row.fleet, "root request")?,
            epoch: Epoch(number(row.epoch, "root request")?),
            index: Index(number(row.position, "root request")?),
            csr: row.csr,
            certificate: row.certificate,
            asked_at: Timestamp(row.asked_at),
        })
    }
}

macro_rules! ceremony_rows {
    () => {
        fn root_requests(&mut self) -> Result<Vec<RootRequest>, StoreError> {
            let query = root_requests::table.order(root_requests::id).select(RootRequestRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn put_root_request(&mut self, request: &RootRequest) -> Result<(), StoreError> {
            let query = diesel::insert_into(root_requests::table)
                .values(RootRequestRow::from(request))
                .on_conflict(root_requests::id)
                .do_update()
                .set(RootRequestRow::from(request));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn delete_root_request(&mut self, kind: AuthorityKind, fleet: Option<&FleetName>) -> Result<(), StoreError> {
            let fleet = fleet.map(FleetName::as_str).unwrap_or_default();
            let query = diesel::delete(
                root_requests::table.filter(root_requests::kind.eq(kind.code())).filter(root_requests::fleet.eq(fleet)),
            );
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }
    };
}
