//! SQLite: one file, one process.

mod fault;
mod open;

use std::path::{Path, PathBuf};

use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::StoreError;
use super::backend::{Backend, Connection};
use open::ProcessLock;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// A database file that this process has to itself.
pub struct Sqlite {
    path: PathBuf,
    #[cfg(test)]
    max_pages: Option<u32>,
    _lock: ProcessLock,
}

impl Sqlite {
    /// Opens the database in the file `path`, or makes it; mode 0600. Brings the schema up to date.
    ///
    /// # Errors
    /// - [`StoreError::Locked`]: another process has it open.
    /// - [`StoreError::Damaged`]: it is no database, or does not hold together.
    /// - [`StoreError::NewerSchema`]: a newer Fleetmark wrote it.
    /// - [`StoreError::Full`]: no room to make it.
    /// - [`StoreError::Unavailable`]: file or directory cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(|source| StoreError::Unavailable(Box::new(source)))?;
        let lock = open::lock(&path)?;
        open::prepare_file(&path)?;
        let sqlite = Self {
            path,
            #[cfg(test)]
            max_pages: None,
            _lock: lock,
        };
        let mut rows = sqlite.connect_writer()?;
        open::check(&mut rows)?;
        open::migrate(&mut rows)?;
        Ok(sqlite)
    }

    /// Lets the file grow to `pages` pages only.
    #[cfg(test)]
    pub fn limit_pages(&mut self, pages: u32) {
        self.max_pages = Some(pages);
    }

    /// Connects, and runs `pragmas` first.
    fn connect(&self, pragmas: &str) -> Result<SqliteRows, StoreError> {
        let connection = open::establish(&self.path)?;
        let mut rows = SqliteRows { connection, path: self.path.clone() };
        rows.run(pragmas)?;
        Ok(rows)
    }
}

impl Backend for Sqlite {
    type Connection = SqliteRows;

    const EMBEDDED: bool = true;

    fn connect_writer(&self) -> Result<SqliteRows, StoreError> {
        // The WAL is moved into the database, which costs an fsync, every 16 MiB.
        #[cfg_attr(not(test), expect(unused_mut, reason = "tests limit the file's size"))]
        let mut rows = self.connect(
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 4096; \
             PRAGMA journal_size_limit = 67108864; PRAGMA trusted_schema = OFF",
        )?;
        #[cfg(test)]
        if let Some(pages) = self.max_pages {
            rows.run(&format!("PRAGMA max_page_count = {pages}"))?;
        }
        Ok(rows)
    }

    /// In WAL mode a reading waits for nobody, except while another connection recovers the WAL. Look-ups run on the server's
    /// own runtimes, so such a wait is short.
    fn connect_reader(&self) -> Result<SqliteRows, StoreError> {
        self.connect(
            "PRAGMA busy_timeout = 250; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384; \
             PRAGMA trusted_schema = OFF",
        )
    }

    /// Makes a new file with mode 0600, durable when this returns. A file that is there already is an error.
    fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        let copy = open::create_private(file)?;
        let result = self.connect("PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY").and_then(|mut rows| {
            let target = open::text(file)?.to_owned();
            let query = diesel::sql_query("VACUUM INTO ?").bind::<diesel::sql_types::Text, _>(target);
            query.execute(&mut rows.connection).map_err(|error| fault::store_error(error, file))?;
            copy.sync_all().map_err(|source| StoreError::Unavailable(Box::new(source)))?;
            open::sync_directory(file)
        });
        if result.is_err() {
            // Best effort: half a copy is worth nothing, and the error says that there is none.
            let _ = std::fs::remove_file(file);
        }
        result
    }
}

/// A connection to the database file.
pub struct SqliteRows {
    connection: SqliteConnection,
    path: PathBuf,
}

impl SqliteRows {
    fn fault(&self, error: diesel::result::Error) -> StoreError {
        fault::store_error(error, &self.path)
    }

    fn run(&mut self, statements: &str) -> Result<(), StoreError> {
        self.connection.batch_execute(statements).map_err(|error| self.fault(error))
    }
}

impl Connection for SqliteRows {
    fn begin_write(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE")
    }

    fn begin_read(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN DEFERRED")
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT")
    }

    /// SQLite has rolled back by itself after some errors, such as a full disk; there is nothing left to do then.
    fn rollback(&mut self) -> Result<(), StoreError> {
        match self.connection.batch_execute("ROLLBACK") {
            Err(error) if !error.to_string().contains("no transaction is active") => Err(self.fault(error)),
            _ => Ok(()),
        }
    }

    fn stands(&self) -> bool {
        true
    }
}

// Each entry is the same prepared statement again: that is quicker here than a new text for every number of rows.
rows!(SqliteRows, 1);

/// Takes back the migration that brought policies.
///
/// # Panics
/// Where the database cannot be written.
#[cfg(test)]
pub fn forget_policies(path: &Path) {
    let mut connection = open::establish(path).unwrap();
    let statements = "PRAGMA busy_timeout = 10000; DROP TABLE policy_activations; DROP TABLE policy_sets; \
                      DELETE FROM __diesel_schema_migrations WHERE version = '00000000000002'";
    // Whoever had it open before may be on the way out still.
    let mut tried = connection.batch_execute(statements);
    for _ in 0..100 {
        if tried.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        tried = connection.batch_execute(statements);
    }
    tried.unwrap();
}

#[cfg(test)]
mod tests;
