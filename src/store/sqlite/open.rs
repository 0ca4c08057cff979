//! Opening a database file.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::fault::{boxed, connection_error};
use super::{MIGRATIONS, SqliteRows};
use crate::store::StoreError;
use crate::store::migrations::bring_up_to_date;

/// Up to this size in octets the whole database is checked at opening; that takes under a second.
const WHOLE_CHECK: i64 = 256 << 20;

/// The lock that keeps a second process out. It ends with the process, however that ends.
pub struct ProcessLock {
    _file: File,
}

/// Takes the lock of the database in the file `path`.
pub fn lock(path: &Path) -> Result<ProcessLock, StoreError> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| io_error(&error, directory))?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
    let file = file.map_err(|error| io_error(&error, &name))?;
    match file.try_lock() {
        Ok(()) => Ok(ProcessLock { _file: file }),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::Locked(format!("{} is held by another process", name.display()).into()))
        }
        Err(TryLockError::Error(error)) => Err(io_error(&error, &name)),
    }
}

/// Makes the file if it is not there, and keeps others from reading it. SQLite gives its other files the same mode.
pub fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).read(true).mode(0o600).open(path);
    let file = file.map_err(|error| io_error(&error, path))?;
    let mode = file.metadata().map_err(|error| io_error(&error, path))?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| io_error(&error, path))?;
    }
    Ok(())
}

/// Makes a file that must not be there yet.
pub fn create_private(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    file.map_err(|error| io_error(&error, path))
}

/// Makes durable that `path` is in its directory.
pub fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| io_error(&error, directory))
}

/// The path as SQLite takes it.
pub fn text(path: &Path) -> Result<&str, StoreError> {
    path.to_str().ok_or_else(|| StoreError::Unavailable(format!("the path {} is not UTF-8", path.display()).into()))
}

/// Connects to the file at the absolute `path`.
pub fn establish(path: &Path) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::establish(text(path)?).map_err(|error| connection_error(error, path))
}

/// Whether the database holds together: all of it, or of a large one what every start reads.
pub fn check(rows: &mut SqliteRows) -> Result<(), StoreError> {
    let size = "SELECT page_count * page_size AS value FROM pragma_page_count(), pragma_page_size()";
    let size: i64 =
        diesel::sql_query(size).get_result::<Number>(&mut rows.connection).map_err(|error| rows.fault(error))?.value;
    if size > WHOLE_CHECK {
        tracing::info!(octets = size, "the database is large: only its schema was checked at opening");
        return rows.connection.batch_execute("SELECT count(*) FROM sqlite_schema").map_err(|error| rows.fault(error));
    }
    let query = diesel::sql_query("PRAGMA quick_check(1)");
    let findings: Vec<Finding> = query.load(&mut rows.connection).map_err(|error| rows.fault(error))?;
    match findings.as_slice() {
        [only] if only.value == "ok" => Ok(()),
        others => {
            let found: Vec<_> = others.iter().map(|finding| finding.value.as_str()).collect();
            Err(StoreError::Damaged(found.join("; ").into()))
        }
    }
}

/// Brings the schema up to date.
pub fn migrate(rows: &mut SqliteRows) -> Result<(), StoreError> {
    let path = rows.path.clone();
    bring_up_to_date(&mut rows.connection, MIGRATIONS, |error| boxed(error, &path))
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct Finding {
    #[diesel(sql_type = Text, column_name = quick_check)]
    value: String,
}

fn io_error(error: &Error, path: &Path) -> StoreError {
    let kind = error.kind();
    let told = Error::new(kind, format!("{}: {error}", path.display()));
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full(Box::new(told)),
        _ => StoreError::Unavailable(Box::new(told)),
    }
}
