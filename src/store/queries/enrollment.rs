//! Enrollment groups, listed serials, hardware, requests for approval, blocked keys.

use diesel::prelude::*;
use fleetmark_domain::{KeyHash, Timestamp};

use super::codes::{Coded, from_json, json, number, octets, optional, parsed, signed, word};
use crate::store::StoreError;
use crate::store::model::{ApprovalRequest, BlockedKey, Group, Hardware, ListedSerial};
use crate::store::schema::{blocked_keys, enrollment_groups, enrollment_requests, enrollment_serials, hardware};

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = enrollment_groups, treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct GroupRow {
    id: i64,
    fleet: String,
    name: String,
    folded: String,
    proof: i16,
    state: i16,
    rules: String,
    material: Vec<u8>,
    key_hash: Option<Vec<u8>>,
    admitted: i64,
    created_at: i64,
    created_by: i64,
    version: i64,
}

impl From<&Group> for GroupRow {
    fn from(group: &Group) -> Self {
        Self {
            id: signed(group.id),
            fleet: group.fleet.as_str().to_owned(),
            name: group.name.as_str().to_owned(),
            folded: group.name.folded(),
            proof: group.proof.code(),
            state: group.state.code(),
            rules: json(&group.rules),
            material: group.material.clone(),
            key_hash: group.key_hash.map(|key| key.0.to_vec()),
            admitted: signed(group.admitted),
            created_at: group.created_at.0,
            created_by: signed(group.created_by),
            version: signed(group.version),
        }
    }
}

impl TryFrom<GroupRow> for Group {
    type Error = StoreError;

    fn try_from(row: GroupRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(row.id, "group")?,
            fleet: parsed(&row.fleet, "group")?,
            name: parsed(&row.name, "group")?,
            proof: word(row.proof, "group")?,
            state: word(row.state, "group")?,
            rules: from_json(&row.rules, "group")?,
            material: row.material,
            key_hash: row.key_hash.map(|key| octets(&key, "group").map(KeyHash)).transpose()?,
            admitted: number(row.admitted, "group")?,
            created_at: Timestamp(row.created_at),
            created_by: number(row.created_by, "group")?,
            version: number(row.version, "group")?,
        })
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = enrollment_serials)]
pub struct SerialRow {
    pub group_id: i64,
    pub serial: String,
    pub device: String,
}

impl TryFrom<SerialRow> for ListedSerial {
    type Error = StoreError;

    fn try_from(row: SerialRow) -> Result<Self, StoreError> {
        Ok(Self { serial: row.serial, device: optional(&row.device, "serial")? })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = hardware)]
pub struct HardwareRow {
    id: Vec<u8>,
    subject: i64,
    source: i16,
    since: i64,
}

impl From<&Hardware> for HardwareRow {
    fn from(hardware: &Hardware) -> Self {
        Self {
            id: hardware.id.to_vec(),
            subject: signed(hardware.subject),
            source: hardware.source.code(),
            since: hardware.since.0,
        }
    }
}

impl TryFrom<HardwareRow> for Hardware {
    type Error = StoreError;

    fn try_from(row: HardwareRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: octets(&row.id, "hardware")?,
            subject: number(row.subject, "hardware")?,
            source: word(row.source, "hardware")?,
            since: Timestamp(row.since),
        })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = enrollment_requests, treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct RequestRow {
    id: i64,
    fleet: String,
    name: String,
    folded: String,
    key_hash: Vec<u8>,
    state: i16,
    proof: String,
    source: String,
    key_type: String,
    reason: String,
    asked_at: i64,
    decided_at: Option<i64>,
    decided_by: Option<i64>,
    expires_at: i64,
}

impl From<&ApprovalRequest> for RequestRow {
    fn from(request: &ApprovalRequest) -> Self {
        Self {
            id: signed(request.id),
            fleet: request.fleet.as_str().to_owned(),
            name: request.name.as_str().to_owned(),
            folded: request.name.folded(),
            key_hash: request.key_hash.0.to_vec(),
            state: request.state.code(),
            proof: request.proof.clone(),
            source: request.source.map(|source| source.to_string()).unwrap_or_default(),
            key_type: request.key_type.clone(),
            reason: request.reason.clone(),
            asked_at: request.asked_at.0,
            decided_at: request.decided_at.map(|at| at.0),
            decided_by: request.decided_by.map(signed),
            expires_at: request.expires_at.0,
        }
    }
}

impl TryFrom<RequestRow> for ApprovalRequest {
    type Error = StoreError;

    fn try_from(row: RequestRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(row.id, "request")?,
            fleet: parsed(&row.fleet, "request")?,
            name: parsed(&row.name, "request")?,
            key_hash: KeyHash(octets(&row.key_hash, "request")?),
            state: word(row.state, "request")?,
            proof: row.proof,
            source: optional(&row.source, "request")?,
            key_type: row.key_type,
            reason: row.reason,
            asked_at: Timestamp(row.asked_at),
            decided_at: row.decided_at.map(Timestamp),
            decided_by: row.decided_by.map(|id| number(id, "request")).transpose()?,
            expires_at: Timestamp(row.expires_at),
        })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = blocked_keys, primary_key(key_hash))]
pub struct BlockedKeyRow {
    key_hash: Vec<u8>,
    reason: String,
    blocked_at: i64,
    blocked_by: i64,
}

impl From<&BlockedKey> for BlockedKeyRow {
    fn from(key: &BlockedKey) -> Self {
        Self {
            key_hash: key.key_hash.0.to_vec(),
            reason: key.reason.clone(),
            blocked_at: key.blocked_at.0,
            blocked_by: signed(key.blocked_by),
        }
    }
}

impl TryFrom<BlockedKeyRow> for BlockedKey {
    type Error = StoreError;

    fn try_from(row: BlockedKeyRow) -> Result<Self, StoreError> {
        Ok(Self {
            key_hash: KeyHash(octets(&row.key_hash, "blocked key")?),
            reason: row.reason,
            blocked_at: Timestamp(row.blocked_at),
            blocked_by: number(row.blocked_by, "blocked key")?,
        })
    }
}

macro_rules! enrollment_rows {
    () => {
        fn group(&mut self, id: GroupId) -> Result<Option<Group>, StoreError> {
            let query = enrollment_groups::table.find(signed(id)).select(GroupRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Group::try_from).transpose()
        }

        fn group_by_name(&mut self, fleet: &FleetName, folded: &str) -> Result<Option<Group>, StoreError> {
            let query = enrollment_groups::table
                .filter(enrollment_groups::fleet.eq(fleet.as_str()))
                .filter(enrollment_groups::folded.eq(folded))
                .select(GroupRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Group::try_from).transpose()
        }

        fn group_by_key(&mut self, key: &KeyHash) -> Result<Option<Group>, StoreError> {
            let query = enrollment_groups::table
                .filter(enrollment_groups::key_hash.eq(key.0.as_slice()))
                .select(GroupRow::as_select())
                .limit(1);
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Group::try_from).transpose()
        }

        fn groups(&mut self, fleet: Option<&FleetName>, after: GroupId, limit: u32) -> Result<Vec<Group>, StoreError> {
            let mut query = enrollment_groups::table
                .filter(enrollment_groups::id.gt(signed(after)))
                .order(enrollment_groups::id)
                .limit(limit.into())
                .select(GroupRow::as_select())
                .into_boxed();
            if let Some(fleet) = fleet {
                query = query.filter(enrollment_groups::fleet.eq(fleet.as_str()));
            }
            records(query.load::<GroupRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_group(&mut self, group: &Group) -> Result<(), StoreError> {
            let query = diesel::insert_into(enrollment_groups::table).values(GroupRow::from(group));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_group(&mut self, group: &Group) -> Result<(), StoreError> {
            let query = diesel::update(enrollment_groups::table.find(signed(group.id))).set(GroupRow::from(group));
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "group")
        }

        fn set_admitted(&mut self, id: GroupId, admitted: u64) -> Result<(), StoreError> {
            let changes = enrollment_groups::admitted.eq(signed(admitted));
            let query = update(enrollment_groups::table, enrollment_groups::id.eq(signed(id)), changes);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "group")
        }

        fn listed_serial(&mut self, group: GroupId, serial: &str) -> Result<Option<ListedSerial>, StoreError> {
            let query = enrollment_serials::table.find((signed(group), serial)).select(SerialRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(ListedSerial::try_from).transpose()
        }

        fn listed_serials(&mut self, group: GroupId, after: &str, limit: u32) -> Result<Vec<ListedSerial>, StoreError> {
            let query = enrollment_serials::table
                .filter(enrollment_serials::group_id.eq(signed(group)))
                .filter(enrollment_serials::serial.gt(after))
                .order(enrollment_serials::serial)
                .limit(limit.into())
                .select(SerialRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn put_serial(&mut self, group: GroupId, listed: &ListedSerial) -> Result<(), StoreError> {
            let device = listed.device.as_ref().map(ToString::to_string).unwrap_or_default();
            let row = SerialRow { group_id: signed(group), serial: listed.serial.clone(), device: device.clone() };
            let query = diesel::insert_into(enrollment_serials::table)
                .values(row)
                .on_conflict((enrollment_serials::group_id, enrollment_serials::serial))
                .do_update()
                .set(enrollment_serials::device.eq(device));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn delete_serial(&mut self, group: GroupId, serial: &str) -> Result<bool, StoreError> {
            let query = diesel::delete(enrollment_serials::table.find((signed(group), serial)));
            query.execute(&mut self.connection).map(|rows| rows > 0).map_err(|error| self.fault(error))
        }

        fn hardware(&mut self, id: &HardwareId) -> Result<Option<Hardware>, StoreError> {
            let query = hardware::table.find(id.as_slice()).select(HardwareRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Hardware::try_from).transpose()
        }

        fn hardware_of(&mut self, subject: SubjectId) -> Result<Vec<Hardware>, StoreError> {
            let query = hardware::table
                .filter(hardware::subject.eq(signed(subject)))
                .order(hardware::id)
                .limit(16)
                .select(HardwareRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn put_hardware(&mut self, known: &Hardware) -> Result<(), StoreError> {
            let query = diesel::insert_into(hardware::table)
                .values(HardwareRow::from(known))
                .on_conflict(hardware::id)
                .do_update()
                .set((hardware::subject.eq(signed(known.subject)), hardware::since.eq(known.since.0)));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn delete_hardware(&mut self, id: &HardwareId) -> Result<bool, StoreError> {
            let query = diesel::delete(hardware::table.find(id.as_slice()));
            query.execute(&mut self.connection).map(|rows| rows > 0).map_err(|error| self.fault(error))
        }

        fn request(&mut self, id: u64) -> Result<Option<ApprovalRequest>, StoreError> {
            let query = enrollment_requests::table.find(signed(id)).select(RequestRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(ApprovalRequest::try_from).transpose()
        }

        fn request_by_key(
            &mut self,
            fleet: &FleetName,
            folded: &str,
            key: &KeyHash,
        ) -> Result<Option<ApprovalRequest>, StoreError> {
            let query = enrollment_requests::table
                .filter(enrollment_requests::fleet.eq(fleet.as_str()))
                .filter(enrollment_requests::folded.eq(folded))
                .filter(enrollment_requests::key_hash.eq(key.0.as_slice()))
                .select(RequestRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(ApprovalRequest::try_from).transpose()
        }

        fn requests(
            &mut self,
            fleet: &FleetName,
            state: Option<RequestState>,
            after: u64,
            limit: u32,
        ) -> Result<Vec<ApprovalRequest>, StoreError> {
            let mut query = enrollment_requests::table
                .filter(enrollment_requests::fleet.eq(fleet.as_str()))
                .filter(enrollment_requests::id.gt(signed(after)))
                .order(enrollment_requests::id)
                .limit(limit.into())
                .select(RequestRow::as_select())
                .into_boxed();
            if let Some(state) = state {
                query = query.filter(enrollment_requests::state.eq(state.code()));
            }
            records(query.load::<RequestRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn requests_of_name(&mut self, fleet: &FleetName, folded: &str) -> Result<Vec<ApprovalRequest>, StoreError> {
            let query = enrollment_requests::table
                .filter(enrollment_requests::fleet.eq(fleet.as_str()))
                .filter(enrollment_requests::folded.eq(folded))
                .order(enrollment_requests::id)
                .select(RequestRow::as_select());
            records(query.load::<RequestRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn waiting_requests(&mut self, fleet: &FleetName) -> Result<u64, StoreError> {
            let query = enrollment_requests::table
                .filter(enrollment_requests::fleet.eq(fleet.as_str()))
                .filter(enrollment_requests::state.eq(RequestState::Waiting.code()))
                .count();
            let count: i64 = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            codes::number(count, "count")
        }

        fn put_request(&mut self, request: &ApprovalRequest) -> Result<(), StoreError> {
            let query = diesel::insert_into(enrollment_requests::table)
                .values(RequestRow::from(request))
                .on_conflict(enrollment_requests::id)
                .do_update()
                .set(RequestRow::from(request));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn forget_requests(&mut self, before: Timestamp) -> Result<u64, StoreError> {
            let query = diesel::delete(enrollment_requests::table.filter(enrollment_requests::expires_at.le(before.0)));
            let forgotten = query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            Ok(u64::try_from(forgotten).unwrap_or(u64::MAX))
        }

        fn blocked_key(&mut self, key: &KeyHash) -> Result<Option<BlockedKey>, StoreError> {
            let query = blocked_keys::table.find(key.0.as_slice()).select(BlockedKeyRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(BlockedKey::try_from).transpose()
        }

        fn blocked_keys(&mut self, after: Option<&KeyHash>, limit: u32) -> Result<Vec<BlockedKey>, StoreError> {
            let query = blocked_keys::table
                .filter(blocked_keys::key_hash.gt(after.map_or(&[][..], |key| key.0.as_slice())))
                .order(blocked_keys::key_hash)
                .limit(limit.into())
                .select(BlockedKeyRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn block_key(&mut self, key: &BlockedKey) -> Result<(), StoreError> {
            let query = diesel::insert_into(blocked_keys::table).values(BlockedKeyRow::from(key)).on_conflict_do_nothing();
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn unblock_key(&mut self, key: &KeyHash) -> Result<bool, StoreError> {
            let query = diesel::delete(blocked_keys::table.find(key.0.as_slice()));
            query.execute(&mut self.connection).map(|rows| rows > 0).map_err(|error| self.fault(error))
        }
    };
}
