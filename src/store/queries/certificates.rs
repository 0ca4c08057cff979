//! Certificates.

use diesel::prelude::*;
use fleetmark_domain::standing::RevocationReason;
use fleetmark_domain::{Fingerprint, KeyHash, Serial, Standing, Timestamp};

use super::codes::{number, octets, parsed, signed};
use crate::store::StoreError;
use crate::store::model::{Certificate, CertificateStanding};
use crate::store::rows::{StandingUpdate, certificate_id};
use crate::store::schema::certificates;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = certificates, treat_none_as_default_value = false)]
pub struct CertificateRow {
    id: i64,
    serial: Vec<u8>,
    authority: i64,
    subject: Option<i64>,
    generation: i64,
    key_hash: Vec<u8>,
    fingerprint: Vec<u8>,
    standing: i16,
    reason: Option<i16>,
    not_before: i64,
    not_after: i64,
    renew_after: i64,
    confirm_before: Option<i64>,
    issued_at: i64,
    changed_at: i64,
    ledger: String,
    position: i64,
    token: Option<Vec<u8>>,
    der: Vec<u8>,
}

impl From<&Certificate> for CertificateRow {
    fn from(certificate: &Certificate) -> Self {
        let (standing, reason) = standing_columns(certificate.standing);
        Self {
            id: place(&certificate.serial),
            serial: certificate.serial.octets().to_vec(),
            authority: certificate.authority.into(),
            subject: certificate.subject.map(signed),
            generation: certificate.generation.into(),
            key_hash: certificate.key_hash.0.to_vec(),
            fingerprint: certificate.fingerprint.0.to_vec(),
            standing,
            reason,
            not_before: certificate.not_before.0,
            not_after: certificate.not_after.0,
            renew_after: certificate.renew_after.0,
            confirm_before: certificate.confirm_before.map(|at| at.0),
            issued_at: certificate.issued_at.0,
            changed_at: certificate.changed_at.0,
            ledger: certificate.ledger.as_str().to_owned(),
            position: signed(certificate.position),
            token: certificate.token.map(Into::into),
            der: certificate.der.clone(),
        }
    }
}

impl TryFrom<CertificateRow> for Certificate {
    type Error = StoreError;

    fn try_from(row: CertificateRow) -> Result<Self, StoreError> {
        const WHAT: &str = "certificate";
        let serial = Serial::from_octets(&row.serial).map_err(|_| StoreError::Unreadable { what: WHAT })?;
        if place(&serial) != row.id {
            return Err(StoreError::Unreadable { what: WHAT });
        }
        Ok(Self {
            serial,
            authority: number(row.authority, WHAT)?,
            subject: row.subject.map(|id| number(id, WHAT)).transpose()?,
            generation: number(row.generation, WHAT)?,
            key_hash: KeyHash(octets(&row.key_hash, WHAT)?),
            fingerprint: Fingerprint(octets(&row.fingerprint, WHAT)?),
            standing: standing(row.standing, row.reason)?,
            not_before: Timestamp(row.not_before),
            not_after: Timestamp(row.not_after),
            renew_after: Timestamp(row.renew_after),
            confirm_before: row.confirm_before.map(Timestamp),
            issued_at: Timestamp(row.issued_at),
            changed_at: Timestamp(row.changed_at),
            ledger: parsed(&row.ledger, WHAT)?,
            position: number(row.position, WHAT)?,
            token: row.token.map(|id| octets(&id, WHAT)).transpose()?,
            der: row.der,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = certificates)]
pub struct StandingRow {
    id: i64,
    serial: Vec<u8>,
    authority: i64,
    standing: i16,
    reason: Option<i16>,
    confirm_before: Option<i64>,
    changed_at: i64,
}

impl TryFrom<StandingRow> for CertificateStanding {
    type Error = StoreError;

    fn try_from(row: StandingRow) -> Result<Self, StoreError> {
        const WHAT: &str = "certificate";
        let serial = Serial::from_octets(&row.serial).map_err(|_| StoreError::Unreadable { what: WHAT })?;
        if place(&serial) != row.id {
            return Err(StoreError::Unreadable { what: WHAT });
        }
        Ok(Self {
            serial,
            authority: number(row.authority, WHAT)?,
            standing: standing(row.standing, row.reason)?,
            changed_at: Timestamp(row.changed_at),
            confirm_before: row.confirm_before.map(Timestamp),
        })
    }
}

/// The primary key of the certificate with this serial.
pub fn place(serial: &Serial) -> i64 {
    signed(certificate_id(serial.epoch(), serial.index()))
}

/// A change of standing as columns: standing, reason, when.
pub fn change(update: &StandingUpdate) -> (i16, Option<i16>, i64) {
    let (standing, reason) = standing_columns(update.standing);
    (standing, reason, update.at.0)
}

fn standing_columns(standing: Standing) -> (i16, Option<i16>) {
    (standing.code().into(), standing.reason().map(|reason| reason.code().into()))
}

/// The standing of its two columns. A reason where there should be none, or none where there should be one, is nonsense.
fn standing(code: i16, reason: Option<i16>) -> Result<Standing, StoreError> {
    let unreadable = || StoreError::Unreadable { what: "standing" };
    let known = |code: i16| u8::try_from(code).ok().and_then(RevocationReason::from_code).ok_or_else(unreadable);
    let reason = reason.map(known).transpose()?;
    let standing = u8::try_from(code).ok().and_then(|code| Standing::from_code(code, reason)).ok_or_else(unreadable)?;
    if standing.reason() == reason { Ok(standing) } else { Err(unreadable()) }
}

macro_rules! certificate_rows {
    () => {
        fn certificate(&mut self, id: CertificateId) -> Result<Option<Certificate>, StoreError> {
            let query = certificates::table.find(signed(id)).select(CertificateRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Certificate::try_from).transpose()
        }

        fn certificate_by_key(&mut self, key: &KeyHash) -> Result<Option<Certificate>, StoreError> {
            let query = certificates::table
                .filter(certificates::key_hash.eq(key.octets().as_slice()))
                .select(CertificateRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Certificate::try_from).transpose()
        }

        fn certificate_of(&mut self, subject: SubjectId, generation: u32) -> Result<Option<Certificate>, StoreError> {
            let query = certificates::table
                .filter(certificates::subject.eq(signed(subject)))
                .filter(certificates::generation.eq(i64::from(generation)))
                .select(CertificateRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Certificate::try_from).transpose()
        }

        fn live_certificates_of(&mut self, subject: SubjectId) -> Result<Vec<Certificate>, StoreError> {
            let query = certificates::table
                .filter(certificates::subject.eq(signed(subject)))
                .filter(certificates::standing.ne(REVOKED))
                .order(certificates::generation)
                .select(CertificateRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn certificates(
            &mut self,
            filter: &CertificateFilter,
            after: CertificateId,
            limit: u32,
        ) -> Result<Vec<Certificate>, StoreError> {
            let mut query = certificates::table
                .filter(certificates::id.gt(signed(after)))
                .order(certificates::id)
                .limit(limit.into())
                .select(CertificateRow::as_select())
                .into_boxed();
            if let Some(authority) = filter.authority {
                query = query.filter(certificates::authority.eq(i64::from(authority)));
            }
            if let Some(subject) = filter.subject {
                query = query.filter(certificates::subject.eq(signed(subject)));
            }
            if let Some(kind) = filter.kind {
                let of_kind = subjects::table.filter(subjects::kind.eq(kind.code())).select(subjects::id.nullable());
                query = query.filter(certificates::subject.eq_any(of_kind));
            }
            if let Some(ledgers) = &filter.ledgers {
                query = query.filter(certificates::ledger.eq_any(ledgers.iter().map(|name| name.as_str())));
            }
            if let Some(standing) = filter.standing {
                query = query.filter(certificates::standing.eq(i16::from(standing)));
            }
            if let Some(end) = filter.expiring_before {
                query = query.filter(certificates::not_after.lt(end.0));
            }
            if let Some(start) = filter.expiring_after {
                query = query.filter(certificates::not_after.gt(start.0));
            }
            if let Some(fingerprint) = &filter.fingerprint {
                query = query.filter(certificates::fingerprint.eq(fingerprint.octets().as_slice()));
            }
            records(query.load::<CertificateRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn not_good(
            &mut self,
            authority: AuthorityId,
            from: CertificateId,
            to: CertificateId,
            now: Timestamp,
        ) -> Result<Vec<CertificateStanding>, StoreError> {
            let query = certificates::table
                .filter(certificates::authority.eq(i64::from(authority)))
                // In these words, with no parameter, so that the index over these alone serves.
                .filter(sql::<Bool>("standing >= 2"))
                .filter(certificates::not_after.gt(now.0))
                .filter(certificates::id.ge(signed(from)))
                .filter(certificates::id.le(signed(to)))
                .order(certificates::id)
                .select(StandingRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn standings(&mut self, from: CertificateId, to: CertificateId) -> Result<Vec<CertificateStanding>, StoreError> {
            let query = certificates::table
                .filter(certificates::id.ge(signed(from)))
                .filter(certificates::id.le(signed(to)))
                .order(certificates::id)
                .select(StandingRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn latest_end(&mut self, from: CertificateId, to: CertificateId) -> Result<Option<Timestamp>, StoreError> {
            let query = certificates::table
                .filter(certificates::id.ge(signed(from)))
                .filter(certificates::id.le(signed(to)))
                .select(diesel::dsl::max(certificates::not_after));
            let latest: Option<i64> = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            Ok(latest.map(Timestamp))
        }

        fn lapsed(&mut self, now: Timestamp, limit: u32) -> Result<Vec<Certificate>, StoreError> {
            let query = certificates::table
                .filter(sql::<Bool>("standing = 0 AND confirm_before IS NOT NULL"))
                .filter(certificates::confirm_before.le(now.0))
                .order((certificates::confirm_before, certificates::id))
                .limit(limit.into())
                .select(CertificateRow::as_select());
            records(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn taken(&mut self, epoch: Epoch, first: Index, count: u32) -> Result<Vec<Index>, StoreError> {
            let from = signed(certificate_id(epoch, first));
            let query = certificates::table
                .filter(certificates::id.ge(from))
                .filter(certificates::id.lt(from.saturating_add(count.into())))
                .order(certificates::id)
                .select(certificates::id);
            let places: Vec<i64> = query.load(&mut self.connection).map_err(|error| self.fault(error))?;
            places.into_iter().map(|id| codes::number(id & i64::from(u32::MAX), "certificate").map(Index)).collect()
        }

        fn insert_certificate(&mut self, certificate: &Certificate) -> Result<(), StoreError> {
            let query = diesel::insert_into(certificates::table).values(CertificateRow::from(certificate));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_standing(&mut self, change: &StandingUpdate) -> Result<(), StoreError> {
            let (standing, reason, at) = certificate_row::change(change);
            let place = certificates::id.eq(certificate_row::place(&change.serial));
            let same = certificates::serial.eq(change.serial.octets().as_slice());
            let changes =
                (certificates::standing.eq(standing), certificates::reason.eq(reason), certificates::changed_at.eq(at));
            let query = update(certificates::table, place.and(same), changes);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "certificate")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_standing() {
        assert_eq!(standing(5, Some(1)).unwrap(), Standing::Revoked(RevocationReason::KeyCompromise));
        assert_eq!(standing(1, None).unwrap(), Standing::Good);
        for (code, reason) in [(5, None), (5, Some(7)), (5, Some(-1)), (5, Some(300)), (1, Some(1)), (6, None), (-1, None)] {
            assert!(standing(code, reason).is_err(), "{code} {reason:?}");
        }
    }
}
