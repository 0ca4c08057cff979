//! Authorities, their epochs, and leases of indices.

use diesel::prelude::*;
use fleetmark_domain::{Epoch, Fingerprint, Index, Standing, Timestamp};

use super::codes::{Coded, number, optional, signed, word};
use crate::store::StoreError;
use crate::store::model::{AuthorityRecord, EpochRecord, InHands, LeaseRecord, StoredBundle};
use crate::store::rows::certificate_id;
use crate::store::schema::{authorities, epochs, leases, trust_bundles};

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

/// Counts by standing, as they are read.
pub fn sum(counts: Vec<(i16, i64)>) -> Result<InHands, StoreError> {
    let mut sum = InHands::default();
    for (code, count) in counts {
        let unreadable = StoreError::Unreadable { what: "standing" };
        let standing = u8::try_from(code).ok().and_then(|code| Standing::from_code(code, None)).ok_or(unreadable)?;
        let count = number(count, "standing")?;
        match standing {
            Standing::Unconfirmed => sum.unconfirmed = count,
            Standing::Good => sum.good = count,
            Standing::Held | Standing::Quarantined => sum.suspended = sum.suspended.saturating_add(count),
            Standing::Superseded | Standing::Revoked(_) => {}
        }
    }
    Ok(sum)
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = trust_bundles)]
pub struct BundleRow {
    number: i64,
    made_at: i64,
    signers: Vec<u8>,
    roots: Vec<u8>,
    der: Vec<u8>,
}

impl From<&StoredBundle> for BundleRow {
    fn from(bundle: &StoredBundle) -> Self {
        let row = |fingerprints: &[Fingerprint]| fingerprints.iter().flat_map(|one| *one.octets()).collect();
        Self {
            number: signed(bundle.number),
            made_at: bundle.made_at.0,
            signers: row(&bundle.signers),
            roots: row(&bundle.roots),
            der: bundle.der.clone(),
        }
    }
}

impl TryFrom<BundleRow> for StoredBundle {
    type Error = StoreError;

    fn try_from(row: BundleRow) -> Result<Self, StoreError> {
        let read = |octets: &[u8]| {
            let whole = octets.chunks(32).map(|one| one.try_into().map(Fingerprint));
            whole.collect::<Result<Vec<_>, _>>().map_err(|_| StoreError::Unreadable { what: "trust bundle" })
        };
        Ok(Self {
            number: number(row.number, "trust bundle")?,
            made_at: Timestamp(row.made_at),
            signers: read(&row.signers)?,
            roots: read(&row.roots)?,
            der: row.der,
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

        fn authority_state(&mut self, id: AuthorityId) -> Result<Option<AuthorityState>, StoreError> {
            let query = authorities::table.find(i64::from(id)).select(authorities::state);
            let code: Option<i16> = query.first(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            code.map(|code| codes::word(code, "authority")).transpose()
        }

        fn in_hands(
            &mut self,
            authority: AuthorityId,
            ledger: &LedgerName,
            issued_before: Option<Timestamp>,
            now: Timestamp,
        ) -> Result<InHands, StoreError> {
            let query = certificates::table
                .filter(certificates::ledger.eq(ledger.as_str()))
                .filter(certificates::authority.eq(i64::from(authority)))
                .filter(certificates::subject.is_not_null())
                .filter(certificates::not_after.gt(now.0))
                .filter(certificates::issued_at.lt(issued_before.map_or(i64::MAX, |before| before.0)))
                .group_by(certificates::standing)
                .select((certificates::standing, diesel::dsl::count_star()));
            let counts: Vec<(i16, i64)> = query.load(&mut self.connection).map_err(|error| self.fault(error))?;
            sum(counts)
        }

        fn trust_bundles(&mut self) -> Result<Vec<StoredBundle>, StoreError> {
            let query = trust_bundles::table.order(trust_bundles::number).select(BundleRow::as_select());
            records::<BundleRow, _>(query.load(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_trust_bundle(&mut self, bundle: &StoredBundle) -> Result<(), StoreError> {
            let query = diesel::insert_into(trust_bundles::table).values(BundleRow::from(bundle));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
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
            let query = external_authorities::table
                .filter(external_authorities::epoch.is_not_null())
                .order(external_authorities::epoch.desc())
                .select(external_authorities::epoch);
            let external: Option<Option<i64>> =
                query.first(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            codes::number(highest.max(external.flatten()).unwrap_or(0), "epoch").map(Epoch)
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
