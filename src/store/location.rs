//! Where the database is, and how it is opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::engine::{Engine, on_a_thread};
use super::sqlite::Sqlite;
use super::{SharedHeadSigner, Store, StoreError};

/// Where the database is: `sqlite:PATH`.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A file.
    Sqlite(PathBuf),
}

/// Not a place of a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Neither of the two forms.
    #[error("a store is sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Form,
}

impl FromStr for StoreLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => Err(LocationError::Form),
        }
    }
}

impl fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

/// Opens the database, brings its schema up to date, and starts the store. `signer` is told every head that a commit made
/// durable, before the commit's callers are answered.
///
/// # Errors
/// See [`Sqlite::open`].
pub async fn open(location: StoreLocation, signer: SharedHeadSigner) -> Result<Arc<dyn Store>, StoreError> {
    on_a_thread(move || match location {
        StoreLocation::Sqlite(path) => Ok(Arc::new(Engine::start(Sqlite::open(&path)?, signer)?) as Arc<dyn Store>),
    })
    .await
}
