//! What SQLite's errors mean. Diesel gives its message alone, not its code.

use std::io::{ErrorKind, Write};
use std::path::Path;

use diesel::result::{DatabaseErrorKind, Error};

use crate::store::{BoxError, StoreError};

/// The error of a statement on the database in the file `path`.
pub fn store_error(error: Error, path: &Path) -> StoreError {
    match &error {
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => StoreError::Collision,
        Error::DatabaseError(_, information) => {
            let message = information.message().to_owned();
            from_message(&message, Box::new(error), path)
        }
        Error::DeserializationError(_) => StoreError::Unreadable { what: "column" },
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// The error of opening the database in the file `path`.
pub fn connection_error(error: diesel::ConnectionError, path: &Path) -> StoreError {
    let message = error.to_string();
    from_message(&message, Box::new(error), path)
}

/// The error of the migrations, whose type is private to their crate.
pub fn boxed(error: BoxError, path: &Path) -> StoreError {
    let message = error.to_string();
    from_message(&message, error, path)
}

/// The messages are those of `sqlite3ErrStr` in SQLite's main.c.
fn from_message(message: &str, source: BoxError, path: &Path) -> StoreError {
    let has = |text| message.contains(text);
    if has("database or disk is full") {
        StoreError::Full(source)
    } else if has("is locked") {
        StoreError::Locked(source)
    } else if has("malformed") || has("file is not a database") {
        StoreError::Damaged(source)
    } else if (has("disk I/O error") || has("unable to open database file")) && is_full(path) {
        StoreError::Full(source)
    } else {
        StoreError::Unavailable(source)
    }
}

/// Whether the disk takes no more: SQLite tells this of its main file, and only of an I/O error where the WAL's index
/// cannot grow.
fn is_full(path: &Path) -> bool {
    let Some(directory) = path.parent() else { return false };
    let attempt = || {
        let mut file = tempfile::tempfile_in(directory)?;
        file.write_all(&[0; 16_384])?;
        file.sync_all()
    };
    matches!(attempt(), Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}
