//! Subjects.

use diesel::prelude::*;
use fleetmark_domain::Timestamp;

use super::codes::{Coded, from_json, json, number, optional, parsed, signed, word};
use crate::store::StoreError;
use crate::store::model::Subject;
use crate::store::schema::subjects;

/// All but the id, which the database gives.
#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = subjects, treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct SubjectRow {
    kind: i16,
    fleet: String,
    name: String,
    folded: String,
    state: i16,
    role: Option<i16>,
    grants: Option<String>,
    dns_names: String,
    addresses: String,
    attributes: String,
    last_generation: i64,
    confirmed_generation: i64,
    created_at: i64,
    version: i64,
    group_id: Option<i64>,
    permits: String,
    moved_from: Option<i64>,
}

impl From<&Subject> for SubjectRow {
    fn from(subject: &Subject) -> Self {
        Self {
            kind: subject.kind.code(),
            fleet: subject.fleet.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: subject.name.as_str().to_owned(),
            folded: subject.name.folded(),
            state: subject.state.code(),
            role: subject.role.map(Coded::code),
            grants: subject.grants.as_ref().map(json),
            dns_names: json(&subject.dns_names),
            addresses: json(&subject.addresses),
            attributes: json(&subject.attributes),
            last_generation: subject.last_generation.into(),
            confirmed_generation: subject.confirmed_generation.into(),
            created_at: subject.created_at.0,
            version: signed(subject.version),
            group_id: subject.group.map(signed),
            permits: json(&subject.permits),
            moved_from: subject.moved_from.map(signed),
        }
    }
}

impl TryFrom<(i64, SubjectRow)> for Subject {
    type Error = StoreError;

    fn try_from((id, row): (i64, SubjectRow)) -> Result<Self, StoreError> {
        Ok(Self {
            id: number(id, "subject")?,
            kind: word(row.kind, "subject")?,
            fleet: optional(&row.fleet, "subject")?,
            name: parsed(&row.name, "subject")?,
            state: word(row.state, "subject")?,
            role: row.role.map(|code| word(code, "subject")).transpose()?,
            grants: row.grants.map(|text| from_json(&text, "subject")).transpose()?,
            dns_names: from_json(&row.dns_names, "subject")?,
            addresses: from_json(&row.addresses, "subject")?,
            attributes: from_json(&row.attributes, "subject")?,
            last_generation: number(row.last_generation, "subject")?,
            confirmed_generation: number(row.confirmed_generation, "subject")?,
            created_at: Timestamp(row.created_at),
            version: number(row.version, "subject")?,
            group: row.group_id.map(|id| number(id, "subject")).transpose()?,
            permits: from_json(&row.permits, "subject")?,
            moved_from: row.moved_from.map(|id| number(id, "subject")).transpose()?,
        })
    }
}

/// The pattern of LIKE that finds `text` anywhere; `\` escapes.
pub fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.to_ascii_lowercase().chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

macro_rules! subject_rows {
    () => {
        fn subject(&mut self, id: SubjectId) -> Result<Option<Subject>, StoreError> {
            let query = subjects::table.find(signed(id)).select((subjects::id, SubjectRow::as_select()));
            let row: Option<(i64, SubjectRow)> =
                query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Subject::try_from).transpose()
        }

        fn subject_by_name(
            &mut self,
            kind: Kind,
            fleet: Option<&FleetName>,
            folded: &str,
        ) -> Result<Option<Subject>, StoreError> {
            let query = subjects::table
                .filter(subjects::kind.eq(kind.code()))
                .filter(subjects::fleet.eq(fleet.map_or("", FleetName::as_str)))
                .filter(subjects::folded.eq(folded))
                .select((subjects::id, SubjectRow::as_select()));
            let row: Option<(i64, SubjectRow)> =
                query.get_result(&mut self.connection).optional().map_err(|error| self.fault(error))?;
            row.map(Subject::try_from).transpose()
        }

        fn subjects(&mut self, filter: &SubjectFilter, after: SubjectId, limit: u32) -> Result<Vec<Subject>, StoreError> {
            let mut query = subjects::table
                .filter(subjects::kind.eq(filter.kind.code()))
                .filter(subjects::id.gt(signed(after)))
                .order(subjects::id)
                .limit(limit.into())
                .select((subjects::id, SubjectRow::as_select()))
                .into_boxed();
            if let Some(fleet) = &filter.fleet {
                query = query.filter(subjects::fleet.eq(fleet.as_str()));
            }
            if let Some(search) = &filter.search {
                query = query.filter(subjects::folded.like(subject_row::containing(search)).escape('\\'));
            }
            if let Some(group) = filter.group {
                query = query.filter(subjects::group_id.eq(signed(group)));
            }
            if let Some(state) = filter.state {
                query = query.filter(subjects::state.eq(state.code()));
            }
            records(query.load::<(i64, SubjectRow)>(&mut self.connection).map_err(|error| self.fault(error))?)
        }

        fn insert_subject(&mut self, subject: &Subject) -> Result<SubjectId, StoreError> {
            let query = diesel::insert_into(subjects::table).values(SubjectRow::from(subject)).returning(subjects::id);
            let id: i64 = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            codes::number(id, "subject")
        }

        fn update_subject(&mut self, subject: &Subject) -> Result<(), StoreError> {
            let query = diesel::update(subjects::table.find(signed(subject.id))).set(SubjectRow::from(subject));
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "subject")
        }

        fn advance_subject(&mut self, subject: &Subject) -> Result<(), StoreError> {
            let changes = (
                subjects::state.eq(subject.state.code()),
                subjects::last_generation.eq(i64::from(subject.last_generation)),
                subjects::confirmed_generation.eq(i64::from(subject.confirmed_generation)),
            );
            let query = update(subjects::table, subjects::id.eq(signed(subject.id)), changes);
            met(query.execute(&mut self.connection).map_err(|error| self.fault(error))?, "subject")
        }

        fn owners(&mut self) -> Result<u64, StoreError> {
            let query = subjects::table
                .filter(subjects::kind.eq(Kind::Operator.code()))
                .filter(subjects::role.eq(Role::Owner.code()))
                .filter(subjects::state.eq(SubjectState::Active.code()))
                .count();
            let count: i64 = query.get_result(&mut self.connection).map_err(|error| self.fault(error))?;
            codes::number(count, "subject")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_holds_no_pattern_of_the_searcher() {
        assert_eq!(containing(r"A%b_c\d"), r"%a\%b\_c\\d%");
    }
}
