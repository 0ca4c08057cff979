//! External authorities, their adopted certificates, and their lists.

use diesel::prelude::*;
use fleetmark_domain::{Epoch, Fingerprint, KeyHash, Timestamp};

use super::certificates::{standing, standing_columns};
use super::codes::{Coded, from_json, json, number, octets, parsed, signed, word};
use crate::store::StoreError;
use crate::store::model::{Expected, External, ExternalCertificate, ForeignList, Sighted};
use crate::store::schema::{expected_certificates, external_authorities, external_certificates, foreign_lists};

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = external_authorities, treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct ExternalRow {
    id: i64,
    fleet: String,
    name: String,
    folded: String,
    state: i16,
    stale: bool,
    rules: String,
    material: Vec<u8>,
    epoch: Option<i64>,
    next_index: i64,
    created_at: i64,
    created_by: i64,
    version: i64,
    sighted: i64,
    sighted_hour: i64,
    sighted_within: i64,
}

impl From<&External> for ExternalRow {
    fn from(external: &External) -> Self {
        Self {
            id: external.id.into(),
            fleet: external.fleet.as_str().to_owned(),
            name: external.name.as_str().to_owned(),
            folded: external.name.folded(),
            state: external.switch.code(),
            stale: external.stale,
            rules: json(&external.rules),
            material: external.material.clone(),
            epoch: external.epoch.map(|epoch| epoch.0.into()),
            next_index: external.next_index.into(),
            created_at: external.created_at.0,
            created_by: signed(external.created_by),
            version: signed(external.version),
            sighted: external.sighted.all.into(),
            sighted_hour: external.sighted.hour.0,
            sighted_within: external.sighted.within.into(),
        }
    }
}

impl TryFrom<ExternalRow> for External {
    type Error = StoreError;

    fn try_from(row: ExternalRow) -> Result<Self, StoreError> {
        const WHAT: &str = "external authority";
        Ok(Self {
            id: number(row.id, WHAT)?,
            fleet: parsed(&row.fleet, WHAT)?,
            name: parsed(&row.name, WHAT)?,
            switch: word(row.state, WHAT)?,
            stale: row.stale,
            rules: from_json(&row.rules, WHAT)?,
            material: row.material,
            epoch: row.epoch.map(|epoch| number(epoch, WHAT).map(Epoch)).transpose()?,
            next_index: number(row.next_index, WHAT)?,
            created_at: Timestamp(row.created_at),
            created_by: number(row.created_by, WHAT)?,
            version: number(row.version, WHAT)?,
            sighted: Sighted {
                all: number(row.sighted, WHAT)?,
                hour: Timestamp(row.sighted_hour),
                within: number(row.sighted_within, WHAT)?,
            },
        })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = external_certificates, primary_key(fingerprint), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct ExternalCertificateRow {
    fingerprint: Vec<u8>,
    certificate: i64,
    authority: i64,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    key_hash: Vec<u8>,
    own_standing: i16,
    own_reason: Option<i16>,
    foreign_standing: i16,
    foreign_reason: Option<i16>,
    not_after: i64,
    next_update: Option<i64>,
}

impl From<&ExternalCertificate> for ExternalCertificateRow {
    fn from(known: &ExternalCertificate) -> Self {
        let (own_standing, own_reason) = standing_columns(known.own);
        let (foreign_standing, foreign_reason) = standing_columns(known.foreign);
        Self {
            fingerprint: known.fingerprint.0.to_vec(),
            certificate: signed(known.place),
            authority: known.authority.into(),
            issuer: known.issuer.to_vec(),
            serial: known.serial.clone(),
            key_hash: known.key_hash.0.to_vec(),
            own_standing,
            own_reason,
            foreign_standing,
            foreign_reason,
            not_after: known.not_after.0,
            next_update: known.next_update.map(|at| at.0),
        }
    }
}

impl TryFrom<ExternalCertificateRow> for ExternalCertificate {
    type Error = StoreError;

    fn try_from(row: ExternalCertificateRow) -> Result<Self, StoreError> {
        const WHAT: &str = "external certificate";
        Ok(Self {
            fingerprint: Fingerprint(octets(&row.fingerprint, WHAT)?),
            place: number(row.certificate, WHAT)?,
            authority: number(row.authority, WHAT)?,
            issuer: octets(&row.issuer, WHAT)?,
            serial: row.serial,
            key_hash: KeyHash(octets(&row.key_hash, WHAT)?),
            own: standing(row.own_standing, row.own_reason)?,
            foreign: standing(row.foreign_standing, row.foreign_reason)?,
            not_after: Timestamp(row.not_after),
            next_update: row.next_update.map(Timestamp),
        })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = expected_certificates, primary_key(fingerprint), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct ExpectedRow {
    fingerprint: Vec<u8>,
    authority: i64,
    device: Option<String>,
    expected_at: i64,
}

impl From<&Expected> for ExpectedRow {
    fn from(expected: &Expected) -> Self {
        Self {
            fingerprint: expected.fingerprint.0.to_vec(),
            authority: expected.authority.into(),
            device: expected.device.as_ref().map(|name| name.as_str().to_owned()),
            expected_at: expected.at.0,
        }
    }
}

impl TryFrom<ExpectedRow> for Expected {
    type Error = StoreError;

    fn try_from(row: ExpectedRow) -> Result<Self, StoreError> {
        const WHAT: &str = "expected certificate";
        Ok(Self {
            fingerprint: Fingerprint(octets(&row.fingerprint, WHAT)?),
            authority: number(row.authority, WHAT)?,
            device: row.device.map(|name| parsed(&name, WHAT)).transpose()?,
            at: Timestamp(row.expected_at),
        })
    }
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = foreign_lists, primary_key(authority, url))]
pub struct ForeignListRow {
    authority: i64,
    url: String,
    issuer: Vec<u8>,
    number: Vec<u8>,
    this_update: i64,
    next_update: i64,
    etag: String,
    modified: String,
    fetched_at: i64,
    der: Vec<u8>,
}

impl From<&ForeignList> for ForeignListRow {
    fn from(list: &ForeignList) -> Self {
        Self {
            authority: list.authority.into(),
            url: list.url.clone(),
            issuer: list.issuer.to_vec(),
            number: list.number.clone(),
            this_update: list.this_update.0,
            next_update: list.next_update.0,
            etag: list.etag.clone(),
            modified: list.modified.clone(),
            fetched_at: list.fetched_at.0,
            der: list.der.clone(),
        }
    }
}

impl TryFrom<ForeignListRow> for ForeignList {
    type Error = StoreError;

    fn try_from(row: ForeignListRow) -> Result<Self, StoreError> {
        const WHAT: &str = "list of an external authority";
        Ok(Self {
            authority: number(row.authority, WHAT)?,
            url: row.url,
            issuer: octets(&row.issuer, WHAT)?,
            number: row.number,
            this_update: Timestamp(row.this_update),
            next_update: Timestamp(row.next_update),
            etag: row.etag,
            modified: row.modified,
            fetched_at: Timestamp(row.fetched_at),
            der: row.der,
        })
    }
}

macro_rules! external_rows {
    () => {
        fn external(&mut self, id: AuthorityId) -> Result<Option<External>, StoreError> {
            let query = external_authorities::table.find(i64::from(id)).select(ExternalRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(External::try_from).transpose()
        }

        fn external_by_name(&mut self, fleet: &FleetName, folded: &str) -> Result<Option<External>, StoreError> {
            let query = external_authorities::table
                .filter(external_authorities::fleet.eq(fleet.as_str()))
                .filter(external_authorities::folded.eq(folded))
                .select(ExternalRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(External::try_from).transpose()
        }

        fn externals(&mut self, fleet: Option<&FleetName>) -> Result<Vec<External>, StoreError> {
            let mut query =
                external_authorities::table.order(external_authorities::id).select(ExternalRow::as_select()).into_boxed();
            if let Some(fleet) = fleet {
                query = query.filter(external_authorities::fleet.eq(fleet.as_str()));
            }
            records(query.load::<ExternalRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_external(&mut self, external: &External) -> Result<(), StoreError> {
            let query = diesel::insert_into(external_authorities::table).values(ExternalRow::from(external));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_external(&mut self, external: &External) -> Result<(), StoreError> {
            let row = ExternalRow::from(external);
            let query = diesel::update(external_authorities::table.find(i64::from(external.id))).set(row);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "external authority")
        }

        fn external_certificate(&mut self, fingerprint: &Fingerprint) -> Result<Option<ExternalCertificate>, StoreError> {
            let query =
                external_certificates::table.find(fingerprint.octets().as_slice()).select(ExternalCertificateRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(ExternalCertificate::try_from).transpose()
        }

        fn external_at(&mut self, place: CertificateId) -> Result<Option<ExternalCertificate>, StoreError> {
            let query = external_certificates::table
                .filter(external_certificates::certificate.eq(signed(place)))
                .select(ExternalCertificateRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(ExternalCertificate::try_from).transpose()
        }

        fn external_by_serial(
            &mut self,
            authority: AuthorityId,
            issuer: &[u8; 32],
            serial: &[u8],
        ) -> Result<Option<ExternalCertificate>, StoreError> {
            let query = external_certificates::table
                .filter(external_certificates::authority.eq(i64::from(authority)))
                .filter(external_certificates::issuer.eq(issuer.as_slice()))
                .filter(external_certificates::serial.eq(serial))
                .select(ExternalCertificateRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(ExternalCertificate::try_from).transpose()
        }

        fn external_certificates(
            &mut self,
            authorities: &[AuthorityId],
            after: CertificateId,
            limit: u32,
        ) -> Result<Vec<ExternalCertificate>, StoreError> {
            let authorities: Vec<_> = authorities.iter().map(|id| i64::from(*id)).collect();
            let query = external_certificates::table
                .filter(external_certificates::certificate.gt(signed(after)))
                .filter(external_certificates::authority.eq_any(authorities))
                .order(external_certificates::certificate)
                .limit(limit.into())
                .select(ExternalCertificateRow::as_select());
            records(query.load::<ExternalCertificateRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_external_certificate(&mut self, certificate: &ExternalCertificate) -> Result<(), StoreError> {
            let row = ExternalCertificateRow::from(certificate);
            let query = diesel::insert_into(external_certificates::table).values(row);
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_external_certificate(&mut self, certificate: &ExternalCertificate) -> Result<(), StoreError> {
            let place = external_certificates::table.find(certificate.fingerprint.0.to_vec());
            let query = diesel::update(place).set(ExternalCertificateRow::from(certificate));
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "external certificate")
        }

        fn expected(&mut self, fingerprint: &Fingerprint) -> Result<Option<Expected>, StoreError> {
            let query = expected_certificates::table.find(fingerprint.octets().as_slice()).select(ExpectedRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Expected::try_from).transpose()
        }

        fn expected_of(&mut self, authorities: &[AuthorityId], after: &[u8], limit: u32) -> Result<Vec<Expected>, StoreError> {
            let authorities: Vec<_> = authorities.iter().map(|id| i64::from(*id)).collect();
            let query = expected_certificates::table
                .filter(expected_certificates::fingerprint.gt(after))
                .filter(expected_certificates::authority.eq_any(authorities))
                .order(expected_certificates::fingerprint)
                .limit(limit.into())
                .select(ExpectedRow::as_select());
            records(query.load::<ExpectedRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn put_expected(&mut self, expected: &Expected) -> Result<(), StoreError> {
            let row = ExpectedRow::from(expected);
            let query = diesel::insert_into(expected_certificates::table)
                .values(&row)
                .on_conflict(expected_certificates::fingerprint)
                .do_update()
                .set(&row);
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn delete_expected(&mut self, fingerprint: &Fingerprint) -> Result<bool, StoreError> {
            let query = diesel::delete(expected_certificates::table.find(fingerprint.octets().as_slice()));
            query.execute(&mut self.connection).map(|rows| rows > 0).map_err(|error| self.fault(error))
        }

        fn foreign_lists(&mut self, authority: AuthorityId) -> Result<Vec<ForeignList>, StoreError> {
            let query = foreign_lists::table
                .filter(foreign_lists::authority.eq(i64::from(authority)))
                .order(foreign_lists::url)
                .select(ForeignListRow::as_select());
            records(query.load::<ForeignListRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn put_foreign_list(&mut self, list: &ForeignList) -> Result<(), StoreError> {
            let row = ForeignListRow::from(list);
            let query = diesel::insert_into(foreign_lists::table)
                .values(&row)
                .on_conflict((foreign_lists::authority, foreign_lists::url))
                .do_update()
                .set(&row);
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }
    };
}
