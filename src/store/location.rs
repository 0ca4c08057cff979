//! Where the database is, and how it is opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::backend::Backend;
use super::engine::{Engine, on_a_thread};
use super::postgres::{Postgres, PostgresLocation, PostgresLocationError};
use super::sqlite::Sqlite;
use super::{SharedHeadSigner, Store, StoreError};

/// Where the database is: `sqlite:PATH`, or `postgres://…` (see [`PostgresLocation`]).
#[derive(Clone, PartialEq)]
pub enum StoreLocation {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<PostgresLocation>),
}

/// Not a place of a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Neither of the two forms.
    #[error("a store is sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Form,
    /// A PostgreSQL URL that is refused.
    #[error(transparent)]
    Postgres(#[from] PostgresLocationError),
}

impl FromStr for StoreLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(Box::new(text.parse()?))),
            _ => Err(LocationError::Form),
        }
    }
}

impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(location) => location.fmt(f),
        }
    }
}

/// Opens the database, brings its schema up to date, and starts the store. `signer` is told every head that a commit made
/// durable, before the commit's callers are answered.
///
/// # Errors
/// See [`Sqlite::open`], [`Postgres::open`] and [`Postgres::alone`].
pub async fn open(location: StoreLocation, signer: SharedHeadSigner) -> Result<Arc<dyn Store>, StoreError> {
    on_a_thread(move || match location {
        StoreLocation::Sqlite(path) => started(Sqlite::open(&path)?, signer),
        StoreLocation::Postgres(location) => started(Postgres::open(*location)?.alone()?, signer),
    })
    .await
}

fn started<B: Backend>(backend: B, signer: SharedHeadSigner) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(Engine::start(backend, signer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        assert_eq!("sqlite:/var/lib/f.db".parse(), Ok(StoreLocation::Sqlite("/var/lib/f.db".into())));
        assert!(matches!("postgres://u@127.0.0.1/f".parse(), Ok(StoreLocation::Postgres(_))));
        for text in ["", "sqlite:", "mysql://x", "/var/lib/f.db"] {
            assert_eq!(text.parse::<StoreLocation>(), Err(LocationError::Form), "{text}");
        }
    }
}
