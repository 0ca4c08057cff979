//! Installation-wide values and fleets.

use std::time::Duration;

use diesel::prelude::*;
use fleetmark_domain::Timestamp;
use fleetmark_domain::standing::Choices;

use super::codes::{from_json, json, number, parsed, signed};
use crate::store::StoreError;
use crate::store::model::Fleet;
use crate::store::schema::fleets;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = fleets, primary_key(name), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct FleetRow {
    pub name: String,
    open: bool,
    profile: String,
    unconfirmed_ttl: Option<i64>,
    list_superseded: bool,
    list_quarantined: bool,
    max_age: i64,
    created_at: i64,
    version: i64,
    blast_radius: Option<i64>,
    hook: Option<String>,
    wave: Option<String>,
}

impl From<&Fleet> for FleetRow {
    fn from(fleet: &Fleet) -> Self {
        Self {
            name: fleet.name.as_str().to_owned(),
            open: fleet.open,
            profile: fleet.profile.clone(),
            unconfirmed_ttl: fleet.unconfirmed_ttl.map(|ttl| signed(ttl.as_secs())),
            list_superseded: fleet.choices.list_superseded,
            list_quarantined: fleet.choices.list_quarantined,
            max_age: signed(fleet.max_age.as_secs()),
            created_at: fleet.created_at.0,
            version: signed(fleet.version),
            blast_radius: fleet.blast_radius.map(signed),
            hook: fleet.hook.as_ref().map(json),
            wave: fleet.wave.as_ref().map(json),
        }
    }
}

impl TryFrom<FleetRow> for Fleet {
    type Error = StoreError;

    fn try_from(row: FleetRow) -> Result<Self, StoreError> {
        let seconds = |value| number(value, "fleet").map(Duration::from_secs);
        Ok(Self {
            name: parsed(&row.name, "fleet")?,
            open: row.open,
            profile: row.profile,
            unconfirmed_ttl: row.unconfirmed_ttl.map(seconds).transpose()?,
            choices: Choices { list_superseded: row.list_superseded, list_quarantined: row.list_quarantined },
            max_age: seconds(row.max_age)?,
            created_at: Timestamp(row.created_at),
            version: number(row.version, "fleet")?,
            blast_radius: row.blast_radius.map(|devices| number(devices, "fleet")).transpose()?,
            hook: row.hook.map(|text| from_json(&text, "fleet")).transpose()?,
            wave: row.wave.map(|text| from_json(&text, "fleet")).transpose()?,
        })
    }
}

macro_rules! fleet_rows {
    () => {
        fn value(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
            let query = installation::table.find(key).select(installation::value);
            query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))
        }

        fn set_value(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
            let query = diesel::insert_into(installation::table)
                .values((installation::name.eq(key), installation::value.eq(value)))
                .on_conflict(installation::name)
                .do_update()
                .set(installation::value.eq(value));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn fleet(&mut self, name: &FleetName) -> Result<Option<Fleet>, StoreError> {
            let query = fleets::table.find(name.as_str()).select(FleetRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Fleet::try_from).transpose()
        }

        fn fleets(&mut self, after: Option<&str>, limit: u32) -> Result<Vec<Fleet>, StoreError> {
            let query = fleets::table
                .filter(fleets::name.gt(after.unwrap_or_default()))
                .order(fleets::name)
                .limit(limit.into())
                .select(FleetRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_fleet(&mut self, fleet: &Fleet) -> Result<(), StoreError> {
            let query = diesel::insert_into(fleets::table).values(FleetRow::from(fleet));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_fleet(&mut self, fleet: &Fleet) -> Result<(), StoreError> {
            let query = diesel::update(fleets::table.find(fleet.name.as_str())).set(FleetRow::from(fleet));
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "fleet")
        }
    };
}
