//! Authorities, their epochs, and leases of indices.

use diesel::prelude::*;
use fleetmark_domain::{Epoch, Index, Timestamp};

use super::codes::{Coded, number, optional, signed, word};
use crate::store::StoreError;
use crate::store::model::{AuthorityRecord, EpochRecord, LeaseRecord};
use crate::store::rows::certificate_id;
use crate::store::schema::{authorities, epochs, leases};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = authorities, treat_none_as_default_value = false)]
pub struct AuthorityRow {
    id: i64,
    kind: i16,
    fleet: String,
    state: i16,
    key_label: String,
    certificate: Vec<u8>,
    issuer: Option<i64>,
    created_at: i64,
}

impl From<&AuthorityRecord> for AuthorityRow {
    fn from(authority: &AuthorityRecord) -> Self {
        Self {
            id: authority.id.into(),
            kind: authority.kind.code(),
            fleet: authority.fleet.as_ref().map(ToString::to_string).unwrap_or_default(),
            state: authority.state.code(),
            key_label: authority.key_label.clone(),
            certificate: authority.certificate.clone(),
            issuer: authority.issuer.map(Into::into),
            created_at: authority.created_at.0,
        }
    }
}

impl TryFrom<AuthorityRow> for AuthorityRecord {
    type Error = StoreError;

    fn try_from(row: AuthorityRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(row.id, "authority")?,
            kind: word(row.kind, "authority")?,
            fleet: optional(&row.fleet, "authority")?,
            state: word(row.state, "authority")?,
            key_label: row.key_label,
            certificate: row.certificate,
            issuer: row.issuer.map(|id| number(id, "authority")).transpose()?,
            created_at: Timestamp(row.created_at),
        })
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = epochs, treat_none_as_default_value = false)]
pub struct EpochRow {
    number: i64,
    authority: i64,
    opened_at: i64,
    closed_at: Option<i64>,
    next_index: i64,
}

impl From<&EpochRecord> for EpochRow {
    fn from(epoch: &EpochRecord) -> Self {
        Self {
            number: epoch.number.0.into(),
            authority: epoch.authority.into(),
            opened_at: epoch.opened_at.0,
            closed_at: epoch.closed_at.map(|at| at.0),
            next_index: epoch.next_index.into(),
        }
    }
}

impl TryFrom<EpochRow> for EpochRecord {
    type Error = StoreError;

    fn try_from(row: EpochRow) -> Result<Self, StoreError> {
        Ok(Self {
            number: Epoch(number(row.number, "epoch")?),
            authority: number(row.authority, "epoch")?,
            opened_at: Timestamp(row.opened_at),
            closed_at: row.closed_at.map(Timestamp),
            next_index: number(row.next_index, "epoch")?,
        })
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = leases)]
pub struct LeaseRow {
    id: i64,
    length: i64,
    expires_at: i64,
}

impl From<&LeaseRecord> for LeaseRow {
    fn from(lease: &LeaseRecord) -> Self {
        Self {
            id: signed(certificate_id(lease.epoch, lease.first)),
            length: lease.count.into(),
            expires_at: lease.expires_at.0,
        }
    }
}

impl TryFrom<LeaseRow> for LeaseRecord {
    type Error = StoreError;

    fn try_from(row: LeaseRow) -> Result<Self, StoreError> {
        Ok(Self {
            epoch: Epoch(number(row.id >> 32, "lease")?),
            first: Index(number(row.id & i64::from(u32::MAX), "lease")?),
            count: number(row.length, "lease")?,
            expires_at: Timestamp(row.expires_at),
        })
    }
}

macro_rules! authority_rows {
    () => {
        fn authorities(&mut self) -> Result<Vec<AuthorityRecord>, StoreError> {
            let query = authorities::table.order(authorities::id).select(AuthorityRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_authority(&mut self, authority: &AuthorityRecord) -> Result<(), StoreError> {
            let query = diesel::insert_into(authorities::table).values(AuthorityRow::from(authority));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn set_authority_state(&mut self, id: AuthorityId, state: AuthorityState) -> Result<(), StoreError> {
            let query = diesel::update(authorities::table.find(i64::from(id))).set(authorities::state.eq(state.code()));
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "authority")
        }

        fn open_epoch(&mut self, authority: AuthorityId) -> Result<Option<EpochRecord>, StoreError> {
            let query = epochs::table
                .filter(epochs::authority.eq(i64::from(authority)))
                .filter(epochs::closed_at.is_null())
                .select(EpochRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(EpochRecord::try_from).transpose()
        }

        fn epoch(&mut self, number: Epoch) -> Result<Option<EpochRecord>, StoreError> {
            let query = epochs::table.find(i64::from(number.0)).select(EpochRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(EpochRecord::try_from).transpose()
        }

        fn epochs_of(&mut self, authority: AuthorityId) -> Result<Vec<EpochRecord>, StoreError> {
            let query = epochs::table
                .filter(epochs::authority.eq(i64::from(authority)))
                .order(epochs::number)
                .select(EpochRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn highest_epoch(&mut self) -> Result<Epoch, StoreError> {
            let query = epochs::table.order(epochs::number.desc()).select(epochs::number);
            let highest: Option<i64> = query.first(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            codes::number(highest.unwrap_or(0), "epoch").map(Epoch)
        }

        fn insert_epoch(&mut self, epoch: &EpochRecord) -> Result<(), StoreError> {
            let query = diesel::insert_into(epochs::table).values(EpochRow::from(epoch));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_epoch(&mut self, epoch: &EpochRecord) -> Result<(), StoreError> {
            let query = diesel::update(epochs::table.find(i64::from(epoch.number.0))).set((
                epochs::closed_at.eq(epoch.closed_at.map(|at| at.0)),
                epochs::next_index.eq(i64::from(epoch.next_index)),
            ));
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "epoch")
        }

        fn expired_lease(&mut self, epoch: Epoch, now: Timestamp) -> Result<Option<LeaseRecord>, StoreError> {
            let first = signed(certificate_id(epoch, Index(0)));
            let query = leases::table
                .filter(leases::id.between(first, signed(certificate_id(epoch, Index(u32::MAX)))))
                .filter(leases::expires_at.le(now.0))
                .order((leases::expires_at, leases::id))
                .select(LeaseRow::as_select());
            let row = query.first(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(LeaseRecord::try_from).transpose()
        }

        fn insert_lease(&mut self, lease: &LeaseRecord) -> Result<(), StoreError> {
            let query = diesel::insert_into(leases::table).values(LeaseRow::from(lease));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn delete_lease(&mut self, epoch: Epoch, first: Index) -> Result<(), StoreError> {
            let query = diesel::delete(leases::table.find(signed(certificate_id(epoch, first))));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }
    };
}
