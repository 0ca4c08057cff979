//! A statement that stays prepared.

use diesel::backend::Backend;
use diesel::query_builder::{AsChangeset, AstPass, QueryFragment, QueryId};
use diesel::{QueryResult, RunQueryDsl, Table};

/// An UPDATE of some columns. diesel prepares its own `update` anew every time, since a changeset may name other columns the
/// next time; here the columns are always the same, and preparing costs several times what running does.
pub struct Update<T, C, F> {
    table: T,
    changes: C,
    filter: F,
}

/// Changes columns of the rows of `table` that `filter` finds.
pub fn update<T: Table, C: AsChangeset<Target = T>, F>(table: T, filter: F, changes: C) -> Update<T, C::Changeset, F> {
    Update { table, changes: changes.as_changeset(), filter }
}

impl<T, C, F, DB> QueryFragment<DB> for Update<T, C, F>
where
    DB: Backend,
    T: QueryFragment<DB>,
    C: QueryFragment<DB>,
    F: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        pass.push_sql("UPDATE ");
        self.table.walk_ast(pass.reborrow())?;
        pass.push_sql(" SET ");
        self.changes.walk_ast(pass.reborrow())?;
        pass.push_sql(" WHERE ");
        self.filter.walk_ast(pass)
    }
}

/// Told apart by its text.
impl<T, C, F> QueryId for Update<T, C, F> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T, C, F, Conn> RunQueryDsl<Conn> for Update<T, C, F> {}
