//! Embedded migrations: run at opening, added to and never edited. An unknown schema is refused.

use diesel::backend::Backend;
use diesel::migration::MigrationSource;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};

use super::{BoxError, StoreError};

/// Runs the migrations that are missing.
///
/// # Errors
/// [`StoreError::NewerSchema`] if the database has a migration that this program does not; else what `fault` makes of the
/// database's error.
pub fn bring_up_to_date<B: Backend>(
    connection: &mut impl MigrationHarness<B>,
    known: EmbeddedMigrations,
    fault: impl Fn(BoxError) -> StoreError,
) -> Result<(), StoreError> {
    let applied = connection.applied_migrations().map_err(&fault)?;
    let ours = MigrationSource::<B>::migrations(&known).map_err(&fault)?;
    let ours: Vec<String> = ours.iter().map(|migration| migration.name().version().to_string()).collect();
    if let Some(found) = applied.iter().map(ToString::to_string).filter(|version| !ours.contains(version)).max() {
        return Err(StoreError::NewerSchema { found, known: ours.into_iter().max().unwrap_or_default() });
    }
    connection.run_pending_migrations(known).map(drop).map_err(fault)
}
