//! The queries, each written once. A file holds a record's row, its conversions, and a macro with the methods of
//! [`Rows`](super::rows::Rows) about it; `rows!` puts the methods together for a backend.
//!
//! They are macros since diesel checks a query against one backend's types: a generic function would have to repeat the
//! bounds of every query.

pub mod codes;
pub mod update;
#[macro_use]
pub mod fleets;
#[macro_use]
pub mod authorities;
#[macro_use]
pub mod subjects;
#[macro_use]
pub mod certificates;
#[macro_use]
pub mod tokens;
#[macro_use]
pub mod ledgers;
#[macro_use]
pub mod kept;
#[macro_use]
pub mod lists;
#[macro_use]
pub mod limits;
#[macro_use]
pub mod policies;
#[macro_use]
pub mod enrollment;
#[macro_use]
pub mod revocations;
#[macro_use]
pub mod ceremony;
#[macro_use]
pub mod external;

/// Implements [`Rows`](super::rows::Rows) for a type with a field `connection` and a method `fault` that makes a diesel
/// error ours. `$at_once`: how many ledger entries a statement inserts; `$for_update`: diesel's method that locks a row.
macro_rules! rows {
    ($rows:ty, $at_once:expr $(, $for_update:ident)?) => {
        const _: () = {
            use diesel::dsl::sql;
            use diesel::prelude::*;
            use diesel::sql_types::Bool;
            use fleetmark_domain::{Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, Role, Standing, Timestamp};
            use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
            use fleetmark_ledger::merkle::{Hash, Node};
            use $crate::store::StoreError;
            use $crate::store::model::{
                Allowance, ApprovalRequest, AuthorityId, AuthorityRecord, BlockedKey, Certificate, CertificateFilter, EpochRecord, External, ExternalCertificate, Fleet, ForeignList, Group,
                GroupId, Hardware, HardwareId, InHands, LeaseRecord, LedgerRecord, ListedSerial, RequestState,
                PolicyActivation, PolicySet, PolicyVersion, Remembered, StoredBundle, StoredCrl, StoredEntry, Subject, SubjectFilter, SubjectId, SubjectState, Token, TokenId,
            };
            use $crate::store::model::{Among, Order, OrderId, OrderState, Pick, Picked, Reach};
            use $crate::store::model::{Expected, RootRequest};
            use $crate::store::queries::ceremony::RootRequestRow;
            use $crate::store::queries::authorities::{AuthorityRow, BundleRow, EpochRow, LeaseRow, sum};
            use $crate::store::queries::certificates::CertificateRow;
            use $crate::store::queries::codes::{self, Coded, met, records, signed};
            use $crate::store::queries::enrollment::{BlockedKeyRow, GroupRow, HardwareRow, RequestRow, SerialRow};
            use $crate::store::queries::external::{ExpectedRow, ExternalCertificateRow, ExternalRow, ForeignListRow};
            use $crate::store::queries::fleets::FleetRow;
            use $crate::store::queries::kept::{CrlRow, RememberedColumns};
            use $crate::store::queries::ledgers::{EntryColumns, LedgerRow, NewEntry, NewNode};
            use $crate::store::queries::limits::{AllowanceRow, minute};
            use $crate::store::model::{CertificateStanding, ListKey, ListKind, PublishedList};
            use $crate::store::queries::certificates::{StandingRow};
            use $crate::store::queries::lists::{self as list_row, PublishedListRow};
            use $crate::store::queries::policies::{PolicyActivationRow, PolicySetRow, PolicyVersionColumns};
            use $crate::store::queries::revocations::{self as order_row, OrderRow};
            use $crate::store::queries::subjects::SubjectRow;
            use $crate::store::queries::tokens::TokenRow;
            use $crate::store::queries::update::update;
            use $crate::store::queries::{certificates as certificate_row, ledgers as ledger_row, subjects as subject_row, tokens as token_row};
            use $crate::store::rows::{CertificateId, Rows, StandingUpdate, certificate_id};
            use $crate::store::schema::*;

            /// What [`fleetmark_domain::Standing::code`] gives for revoked.
            const REVOKED: i16 = 5;

            impl Rows for $rows {
                fleet_rows!();
                authority_rows!();
                subject_rows!();
                certificate_rows!();
                token_rows!();
                ledger_rows!($at_once $(, $for_update)?);
                kept_rows!();
                policy_rows!();
                limit_rows!();
                list_rows!();
                enrollment_rows!();
                revocation_rows!();
                ceremony_rows!();
                external_rows!();
            }
        };
    };
}
