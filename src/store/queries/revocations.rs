//! Orders, and what they select: certificates without their octets.

use diesel::prelude::*;
use fleetmark_domain::{CertificateEvent, RevocationReason, Serial, Standing, Timestamp};
use fleetmark_external::FIRST_ID;

use super::certificates::{standing, standing_columns};
use super::codes::{Coded, from_json, json, number, parsed, signed, word};
use crate::store::StoreError;
use crate::store::model::{Order, Picked};
use crate::store::schema::revocations;

diesel::define_sql_function! {
    /// The same in both databases, and, other than LIKE, with regard to case.
    fn replace(text: diesel::sql_types::Text, from: diesel::sql_types::Text, to: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = revocations, treat_none_as_default_value = false)]
pub struct OrderRow {
    id: i64,
    ledger: String,
    state: i16,
    act: i16,
    reason: Option<i16>,
    selector: String,
    selection: String,
    note: String,
    ordered_by: i64,
    ordered_at: i64,
    approved_by: Option<i64>,
    approved_at: Option<i64>,
    cancelled_by: Option<i64>,
    runs_at: i64,
    expires_at: Option<i64>,
    devices: i64,
    certificates: i64,
    covered: i64,
    sweep: bool,
    place: i64,
    changed: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    failure: String,
}

impl From<&Order> for OrderRow {
    fn from(order: &Order) -> Self {
        let (act, reason) = standing_columns(comes_of(order.change));
        Self {
            id: signed(order.id),
            ledger: order.ledger.as_str().to_owned(),
            state: order.state.code(),
            act,
            reason,
            selector: json(&order.selector),
            selection: order.selection.clone(),
            note: order.note.clone(),
            ordered_by: signed(order.ordered_by),
            ordered_at: order.ordered_at.0,
            approved_by: order.approved_by.map(signed),
            approved_at: order.approved_at.map(|at| at.0),
            cancelled_by: order.cancelled_by.map(signed),
            runs_at: order.runs_at.0,
            expires_at: order.expires_at.map(|at| at.0),
            devices: signed(order.devices),
            certificates: signed(order.certificates),
            covered: signed(order.covered),
            sweep: order.sweep,
            place: signed(order.place),
            changed: signed(order.changed),
            started_at: order.started_at.map(|at| at.0),
            ended_at: order.ended_at.map(|at| at.0),
            failure: order.failure.clone(),
        }
    }
}

impl TryFrom<OrderRow> for Order {
    type Error = StoreError;

    fn try_from(row: OrderRow) -> Result<Self, StoreError> {
        const WHAT: &str = "order";
        Ok(Self {
            id: number(row.id, WHAT)?,
            ledger: parsed(&row.ledger, WHAT)?,
            state: word(row.state, WHAT)?,
            change: brought_by(standing(row.act, row.reason)?)?,
            selector: from_json(&row.selector, WHAT)?,
            selection: row.selection,
            note: row.note,
            ordered_by: number(row.ordered_by, WHAT)?,
            ordered_at: Timestamp(row.ordered_at),
            approved_by: row.approved_by.map(|id| number(id, WHAT)).transpose()?,
            approved_at: row.approved_at.map(Timestamp),
            cancelled_by: row.cancelled_by.map(|id| number(id, WHAT)).transpose()?,
            runs_at: Timestamp(row.runs_at),
            expires_at: row.expires_at.map(Timestamp),
            devices: number(row.devices, WHAT)?,
            certificates: number(row.certificates, WHAT)?,
            covered: number(row.covered, WHAT)?,
            sweep: row.sweep,
            place: number(row.place, WHAT)?,
            changed: number(row.changed, WHAT)?,
            started_at: row.started_at.map(Timestamp),
            ended_at: row.ended_at.map(Timestamp),
            failure: row.failure,
        })
    }
}

/// What an event of an order makes of a certificate.
const fn comes_of(change: CertificateEvent) -> Standing {
    match change {
        CertificateEvent::Revoked(reason) => Standing::Revoked(reason),
        CertificateEvent::Held => Standing::Held,
        CertificateEvent::Quarantined => Standing::Quarantined,
        CertificateEvent::Succeeded => Standing::Superseded,
        CertificateEvent::Lapsed => Standing::Unconfirmed,
        CertificateEvent::Released | CertificateEvent::Confirmed => Standing::Good,
    }
}

/// The event of an order that makes this of a certificate.
const fn brought_by(standing: Standing) -> Result<CertificateEvent, StoreError> {
    match standing {
        Standing::Revoked(reason) => Ok(CertificateEvent::Revoked(reason)),
        Standing::Held => Ok(CertificateEvent::Held),
        Standing::Quarantined => Ok(CertificateEvent::Quarantined),
        Standing::Good => Ok(CertificateEvent::Released),
        Standing::Superseded | Standing::Unconfirmed => Err(StoreError::Unreadable { what: "order" }),
    }
}

/// Serial, issuer, holder, generation, standing, and the holder's newest confirmed generation, as they are read.
pub type PickedColumns = (Vec<u8>, i64, i64, i64, i16, i64);

impl TryFrom<PickedColumns> for Picked {
    type Error = StoreError;

    fn try_from((serial, authority, subject, generation, standing, confirmed): PickedColumns) -> Result<Self, StoreError> {
        const WHAT: &str = "certificate";
        let unreadable = || StoreError::Unreadable { what: WHAT };
        let standing = u8::try_from(standing).ok().and_then(|code| Standing::from_code(code, None));
        Ok(Self {
            serial: Serial::from_octets(&serial).map_err(|_| unreadable())?,
            authority: number(authority, WHAT)?,
            subject: number(subject, WHAT)?,
            generation: number(generation, WHAT)?,
            standing: standing.ok_or_else(unreadable)?,
            confirmed_generation: number(confirmed, WHAT)?,
        })
    }
}

/// The pattern of LIKE for a name in which `*` stands for any text; `\` escapes.
pub fn like(name: &str) -> String {
    let mut pattern = String::new();
    for character in name.to_ascii_lowercase().chars() {
        match character {
            '*' => pattern.push('%'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            other => pattern.push(other),
        }
    }
    pattern
}

/// An attribute as it stands in the JSON of all of a subject's: as the first, or after another. Neither can stand anywhere else,
/// since a quotation mark within a text has `\` before it.
pub fn attribute(key: &str, value: &str) -> [String; 2] {
    let pair = format!("{}:{}", json(key), json(value));
    [format!("{{{pair}"), format!(",{pair}")]
}

/// The condition that a certificate is of one of these standings by our word. That of an adopted one stands beside its authority's, and
/// counts unless one of both revoked it.
pub fn worth(standings: &[u8]) -> String {
    // None is of this one: a list that is empty is no SQL.
    let codes = standings.iter().fold("-1".to_owned(), |codes, code| format!("{codes}, {code}"));
    let revoked = Standing::Revoked(RevocationReason::Unspecified).code();
    format!(
        "(certificates.authority < {FIRST_ID} AND certificates.standing IN ({codes}) OR certificates.authority >= {FIRST_ID} \
         AND certificates.standing <> {revoked} AND EXISTS (SELECT 1 FROM external_certificates \
         WHERE external_certificates.certificate = certificates.id AND external_certificates.own_standing IN ({codes})))"
    )
}

/// Narrows a boxed query over certificates and their holders down to what is picked.
macro_rules! picked {
    ($query:expr, $pick:expr) => {{
        let pick: &Pick = $pick;
        let mut query = $query
            .filter(certificates::ledger.eq(pick.ledger.as_str()))
            .filter(sql::<Bool>(&order_row::worth(&pick.standings)));
        match &pick.among {
            Among::Certificates(ids) => {
                query = query.filter(certificates::id.eq_any(ids.iter().copied().map(signed).collect::<Vec<_>>()));
            }
            Among::Subjects(ids) => {
                let ids: Vec<_> = ids.iter().copied().map(|id| Some(signed(id))).collect();
                query = query.filter(certificates::subject.eq_any(ids));
            }
            Among::Where(condition) => {
                if let Some(groups) = &condition.groups {
                    let groups: Vec<_> = groups.iter().copied().map(|id| Some(signed(id))).collect();
                    query = query.filter(subjects::group_id.eq_any(groups));
                }
                if let Some(authority) = condition.authority {
                    query = query.filter(certificates::authority.eq(i64::from(authority)));
                }
                if let Some(name) = &condition.name {
                    query = query.filter(subjects::folded.like(order_row::like(name)).escape('\\'));
                }
                for (key, value) in &condition.attributes {
                    let [first, later] = order_row::attribute(key, value);
                    let without = |text: String| order_row::replace(subjects::attributes, text, "");
                    let has = without(first).ne(subjects::attributes).or(without(later).ne(subjects::attributes));
                    query = query.filter(has);
                }
                if let Some(state) = condition.state {
                    query = query.filter(subjects::state.eq(state));
                }
                if let Some(standing) = condition.standing {
                    query = query.filter(certificates::standing.eq(i16::from(standing)));
                }
                if let Some(moment) = condition.issued_before {
                    query = query.filter(certificates::issued_at.lt(moment.0));
                }
                if let Some(moment) = condition.issued_after {
                    query = query.filter(certificates::issued_at.ge(moment.0));
                }
                if let Some(moment) = condition.ends_before {
                    query = query.filter(certificates::not_after.lt(moment.0));
                }
            }
        }
        query
    }};
}

macro_rules! revocation_rows {
    () => {
        fn pick(&mut self, pick: &Pick, after: CertificateId, limit: u32) -> Result<Vec<Picked>, StoreError> {
            let held = certificates::table.inner_join(subjects::table.on(certificates::subject.eq(subjects::id.nullable())));
            let query = held
                .filter(certificates::id.gt(signed(after)))
                .order(certificates::id)
                .limit(limit.into())
                .select((
                    certificates::serial,
                    certificates::authority,
                    subjects::id,
                    certificates::generation,
                    certificates::standing,
                    subjects::confirmed_generation,
                ))
                .into_boxed();
            let found = picked!(query, pick).load::<order_row::PickedColumns>(&mut self.connection);
            records(found.map_err(|error| self.fault(error))?)
        }

        fn reach(&mut self, pick: &Pick) -> Result<Reach, StoreError> {
            let held = certificates::table.inner_join(subjects::table.on(certificates::subject.eq(subjects::id.nullable())));
            let holders = sql::<diesel::sql_types::BigInt>("COUNT(DISTINCT subjects.id)");
            let query = held.select((diesel::dsl::count_star(), holders)).into_boxed();
            let found = picked!(query, pick).get_result::<(i64, i64)>(&mut self.connection);
            let (certificates, holders) = found.map_err(|error| self.fault(error))?;
            Ok(Reach { certificates: codes::number(certificates, "count")?, holders: codes::number(holders, "count")? })
        }

        fn set_standings(
            &mut self,
            first: CertificateId,
            last: CertificateId,
            standing: Standing,
            at: Timestamp,
        ) -> Result<u64, StoreError> {
            let (standing, reason) = certificate_row::standing_columns(standing);
            let places = certificates::id.ge(signed(first)).and(certificates::id.le(signed(last)));
            let changes =
                (certificates::standing.eq(standing), certificates::reason.eq(reason), certificates::changed_at.eq(at.0));
            let query = update(certificates::table, places, changes);
            let changed = query.execute(&mut self.connection).map_err(|error| self.fault(error))?;
            Ok(u64::try_from(changed).unwrap_or(u64::MAX))
        }

        fn order(&mut self, id: OrderId) -> Result<Option<Order>, StoreError> {
            let query = revocations::table.find(signed(id)).select(OrderRow::as_select());
            let row = query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Order::try_from).transpose()
        }

        fn orders(
            &mut self,
            ledgers: Option<&[LedgerName]>,
            state: Option<OrderState>,
            before: OrderId,
            limit: u32,
        ) -> Result<Vec<Order>, StoreError> {
            let mut query = revocations::table
                .filter(revocations::id.lt(signed(before)))
                .order(revocations::id.desc())
                .limit(limit.into())
                .select(OrderRow::as_select())
                .into_boxed();
            if let Some(ledgers) = ledgers {
                query = query.filter(revocations::ledger.eq_any(ledgers.iter().map(|name| name.as_str())));
            }
            if let Some(state) = state {
                query = query.filter(revocations::state.eq(state.code()));
            }
            records(query.load::<OrderRow>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn due_orders(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(OrderId, OrderState)>, StoreError> {
            let is_due = revocations::state
                .eq(OrderState::Running.code())
                .or(revocations::state.eq(OrderState::Scheduled.code()).and(revocations::runs_at.le(now.0)))
                .or(revocations::state
                    .eq(OrderState::AwaitingApproval.code())
                    .and(revocations::expires_at.le(now.0).assume_not_null()));
            let query = revocations::table
                // In these words, with no parameter, so that the index over these alone serves.
                .filter(sql::<Bool>("state <= 2"))
                .filter(is_due)
                .order(revocations::id)
                .limit(limit.into())
                .select((revocations::id, revocations::state));
            let found: Vec<(i64, i16)> = query.load(&mut self.connection).map_err(|error| self.fault(error))?;
            found.into_iter().map(|(id, state)| Ok((codes::number(id, "order")?, codes::word(state, "order")?))).collect()
        }

        fn open_orders(&mut self, ledger: &LedgerName) -> Result<u64, StoreError> {
            let query =
                revocations::table.filter(sql::<Bool>("state <= 2")).filter(revocations::ledger.eq(ledger.as_str())).count();
            let count: i64 = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            codes::number(count, "count")
        }

        fn insert_order(&mut self, order: &Order) -> Result<(), StoreError> {
            let query = diesel::insert_into(revocations::table).values(OrderRow::from(order));
            query.execute(&mut self.connection).map(drop).map_err(|error| self.fault(error))
        }

        fn update_order(&mut self, order: &Order) -> Result<(), StoreError> {
            let changes = (
                revocations::state.eq(order.state.code()),
                revocations::approved_by.eq(order.approved_by.map(signed)),
                revocations::approved_at.eq(order.approved_at.map(|at| at.0)),
                revocations::cancelled_by.eq(order.cancelled_by.map(signed)),
                revocations::expires_at.eq(order.expires_at.map(|at| at.0)),
                revocations::devices.eq(signed(order.devices)),
                revocations::certificates.eq(signed(order.certificates)),
                revocations::covered.eq(signed(order.covered)),
                revocations::sweep.eq(order.sweep),
                revocations::place.eq(signed(order.place)),
                revocations::changed.eq(signed(order.changed)),
                revocations::started_at.eq(order.started_at.map(|at| at.0)),
                revocations::ended_at.eq(order.ended_at.map(|at| at.0)),
                revocations::failure.eq(order.failure.as_str()),
            );
            let query = update(revocations::table, revocations::id.eq(signed(order.id)), changes);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "order")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_star_is_a_pattern() {
        assert_eq!(like(r"Line-4_*%"), r"line-4\_%\%");
    }

    #[test]
    fn an_attribute_is_found_where_it_stands_alone() {
        let all = |pairs: &[(&str, &str)]| json(&pairs.iter().copied().collect::<std::collections::BTreeMap<_, _>>());
        let has = |text: &str, key, value| attribute(key, value).iter().any(|part| text.contains(part.as_str()));
        assert!(has(&all(&[("fw", "1.2"), ("site", "a\"b")]), "fw", "1.2"));
        assert!(has(&all(&[("a", "1"), ("fw", "1.2")]), "fw", "1.2"));
        assert!(has(&all(&[("a\\", "\"")]), "a\\", "\""));
        let hostile = [
            all(&[("fw", "1.20")]),
            all(&[("xfw", "1.2")]),
            all(&[("a,\"fw", "1.2")]),
            all(&[("a", "{\"fw\":\"1.2\"}")]),
            all(&[("a", ",\"fw\":\"1.2\"")]),
            all(&[("FW", "1.2")]),
            all(&[]),
        ];
        for text in hostile {
            assert!(!has(&text, "fw", "1.2"), "{text}");
        }
    }
}
