//! What operators changed in the last hour, and what they were allowed beyond their limit.

use diesel::prelude::*;
use fleetmark_domain::Timestamp;

use super::codes::{number, parsed, signed};
use crate::store::StoreError;
use crate::store::model::Allowance;
use crate::store::schema::allowances;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = allowances)]
pub struct AllowanceRow {
    id: i64,
    fleet: String,
    operator: i64,
    devices: i64,
    allowed_by: i64,
    allowed_at: i64,
    expires_at: i64,
}

impl From<&Allowance> for AllowanceRow {
    fn from(allowance: &Allowance) -> Self {
        Self {
            id: signed(allowance.id),
            fleet: allowance.fleet.as_str().to_owned(),
            operator: signed(allowance.operator),
            devices: signed(allowance.devices),
            allowed_by: signed(allowance.allowed_by),
            allowed_at: allowance.allowed_at.0,
            expires_at: allowance.expires_at.0,
        }
    }
}

impl TryFrom<AllowanceRow> for Allowance {
    type Error = StoreError;

    fn try_from(row: AllowanceRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(row.id, "allowance")?,
            fleet: parsed(&row.fleet, "allowance")?,
            operator: number(row.operator, "allowance")?,
            devices: number(row.devices, "allowance")?,
            allowed_by: number(row.allowed_by, "allowance")?,
            allowed_at: Timestamp(row.allowed_at),
            expires_at: Timestamp(row.expires_at),
        })
    }
}

/// The minute of 1970 in which devices are counted.
pub fn minute(at: Timestamp) -> i64 {
    at.0.div_euclid(60)
}

macro_rules! limit_rows {
    () => {
        fn touched(
            &mut self,
            operator: SubjectId,
            fleet: &FleetName,
            since: Timestamp,
            until: Timestamp,
        ) -> Result<u64, StoreError> {
            let query = touched_minutes::table
                .filter(touched_minutes::operator.eq(signed(operator)))
                .filter(touched_minutes::fleet.eq(fleet.as_str()))
                .filter(touched_minutes::minute.gt(minute(since)))
                .filter(touched_minutes::minute.le(minute(until)))
                .select(touched_minutes::devices);
            // At most 121 rows.
            let devices: Vec<i64> = query.load(&mut self.connection).map_err(|error| self.fault(error))?;
            codes::number(devices.into_iter().fold(0, i64::saturating_add), "count")
        }

        fn count_touched(
            &mut self,
            operator: SubjectId,
            fleet: &FleetName,
            at: Timestamp,
            devices: u64,
        ) -> Result<(), StoreError> {
            let query = diesel::insert_into(touched_minutes::table)
                .values((
                    touched_minutes::operator.eq(signed(operator)),
                    touched_minutes::fleet.eq(fleet.as_str()),
                    touched_minutes::minute.eq(minute(at)),
                    touched_minutes::devices.eq(signed(devices)),
                ))
                .on_conflict((touched_minutes::operator, touched_minutes::fleet, touched_minutes::minute))
                .do_update()
                .set(touched_minutes::devices.eq(touched_minutes::devices + signed(devices)));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn touched_at(
            &mut self,
            operator: SubjectId,
            fleet: &FleetName,
            subject: SubjectId,
        ) -> Result<Option<Timestamp>, StoreError> {
            let query = touched::table.find((signed(operator), fleet.as_str(), signed(subject))).select(touched::at);
            let at: Option<i64> = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            Ok(at.map(Timestamp))
        }

        fn touch(
            &mut self,
            operator: SubjectId,
            fleet: &FleetName,
            subject: SubjectId,
            at: Timestamp,
        ) -> Result<(), StoreError> {
            let known = touched::table.find((signed(operator), fleet.as_str(), signed(subject))).select(touched::at);
            let before: Option<i64> = known.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            if let Some(before) = before {
                let counted = (signed(operator), fleet.as_str(), minute(Timestamp(before)));
                let counted = touched_minutes::table.find(counted).filter(touched_minutes::devices.gt(0));
                let query = diesel::update(counted).set(touched_minutes::devices.eq(touched_minutes::devices - 1));
                query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            }
            self.count_touched(operator, fleet, at, 1)?;
            let query = diesel::insert_into(touched::table)
                .values((
                    touched::operator.eq(signed(operator)),
                    touched::fleet.eq(fleet.as_str()),
                    touched::subject.eq(signed(subject)),
                    touched::at.eq(at.0),
                ))
                .on_conflict((touched::operator, touched::fleet, touched::subject))
                .do_update()
                .set(touched::at.eq(at.0));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn forget_touched(&mut self, before: Timestamp, after: Timestamp) -> Result<u64, StoreError> {
            let is_void = touched_minutes::minute.le(minute(before)).or(touched_minutes::minute.gt(minute(after)));
            let minutes = diesel::delete(touched_minutes::table.filter(is_void));
            minutes.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            let query = diesel::delete(touched::table.filter(touched::at.le(before.0).or(touched::at.gt(after.0))));
            let forgotten = query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            Ok(u64::try_from(forgotten).unwrap_or(u64::MAX))
        }

        fn devices(&mut self, fleet: &FleetName) -> Result<u64, StoreError> {
            let query = subjects::table
                .filter(subjects::kind.eq(Kind::Device.code()))
                .filter(subjects::fleet.eq(fleet.as_str()))
                .count();
            let count: i64 = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            codes::number(count, "count")
        }

        fn allowances(&mut self, fleet: &FleetName, now: Timestamp) -> Result<Vec<Allowance>, StoreError> {
            let query = allowances::table
                .filter(allowances::fleet.eq(fleet.as_str()))
                .filter(allowances::expires_at.gt(now.0))
                .order((allowances::expires_at, allowances::id))
                .select(AllowanceRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_allowance(&mut self, allowance: &Allowance) -> Result<(), StoreError> {
            let query = diesel::insert_into(allowances::table).values(AllowanceRow::from(allowance));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }
    };
}
