//! Inspects and restores a backup.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufReader, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fleetmark_domain::Timestamp;
use secrecy::SecretString;
use serde::Serialize;

use super::BackupError;
use super::cipher::Decrypting;
use super::frame::Records;
use super::header::Header;
use super::manifest::{FileName, Manifest};
use super::restored::{Restored, write_marker};

/// What a whole and unchanged backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its files.
    pub files: Vec<InspectedFile>,
}

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedFile {
    /// Its name below the data directory.
    pub name: String,
    /// Its size in octets.
    pub size: u64,
}

/// Reads a whole backup and says what is in it; nothing is written. It blocks.
///
/// # Errors
/// [`BackupError`]: a backup that passes can be restored.
pub fn inspect(input: impl Read, passphrase: &SecretString) -> Result<Inspection, BackupError> {
    let (manifest, mut records) = open(input, passphrase)?;
    let mut files = Vec::new();
    while let Some(head) = records.next()? {
        files.push(InspectedFile { name: head.name.as_str().to_owned(), size: head.size });
    }
    records.finish()?;
    Ok(Inspection { manifest, files })
}

/// Restores a backup into `directory`, which is made, or is empty, and leaves a marker for the server's next start. Files
/// come to lie in place only when the whole backup was read, decrypted and synced: after an error the directory is
/// empty again. It blocks.
///
/// # Errors
/// [`BackupError`].
pub fn restore(input: impl Read, passphrase: &SecretString, directory: &Path, now: Timestamp) -> Result<Restored, BackupError> {
    make_empty(directory)?;
    let staging = Staging::new(directory)?;
    let (manifest, mut records) = open(input, passphrase)?;
    while let Some(head) = records.next()? {
        let mut file = staging.create(&head.name)?;
        loop {
            let octets = records.octets()?;
            if octets.is_empty() {
                break;
            }
            file.write_all(octets).map_err(BackupError::at(&staging.0))?;
        }
        file.sync_all().map_err(BackupError::at(&staging.0))?;
    }
    records.finish()?;
    let restored = Restored { restored_at: now, backup: manifest };
    write_marker(&staging.0, &restored)?;
    staging.move_to(directory)?;
    Ok(restored)
}

/// Moves the restored database to where the configuration has it, which may be on another disk; it replaces nothing. It blocks.
///
/// # Errors
/// [`BackupError::DatabaseThere`], also for a log without its database: SQLite would add it to the restored one;
/// [`BackupError::File`].
pub fn move_database(restored: &Path, place: &Path) -> Result<(), BackupError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = place.as_os_str().to_owned();
        name.push(suffix);
        if Path::new(&name).exists() {
            return Err(BackupError::DatabaseThere { there: name.into(), restored: restored.to_owned() });
        }
    }
    let directory = place.parent().unwrap_or(Path::new("/"));
    let failed = || BackupError::at(place);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(BackupError::at(directory))?;
    // tempfile makes it with mode 0600, and removes it when anything below fails.
    let mut copy = tempfile::Builder::new().prefix(".restoring").tempfile_in(directory).map_err(failed())?;
    let mut database = File::open(restored).map_err(BackupError::at(restored))?;
    std::io::copy(&mut database, copy.as_file_mut()).map_err(failed())?;
    copy.as_file().sync_all().map_err(failed())?;
    copy.persist_noclobber(place).map_err(|error| failed()(error.error))?;
    sync(directory)?;
    fs::remove_file(restored).map_err(BackupError::at(restored))
}

/// Whether a file has a backup's header and ends with an end mark. It needs no passphrase, and so tells a backup that was
/// cut off, but not one that was changed.
///
/// # Errors
/// [`BackupError`].
pub fn is_whole(path: &Path) -> Result<bool, BackupError> {
    let mut input = BufReader::new(File::open(path).map_err(BackupError::at(path))?);
    if Header::skip(&mut input)? { super::cipher::ends_with_mark(&mut input) } else { Ok(false) }
}

fn open<R: Read>(input: R, passphrase: &SecretString) -> Result<(Manifest, Records<BufReader<R>>), BackupError> {
    let mut input = BufReader::with_capacity(128 * 1024, input);
    let header = Header::read(&mut input, passphrase)?;
    Records::open(Decrypting::new(input, &header))
}

fn make_empty(directory: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(BackupError::at(directory))?;
    if fs::read_dir(directory).map_err(BackupError::at(directory))?.next().is_some() {
        return Err(BackupError::NotEmpty(directory.to_owned()));
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(BackupError::at(directory))
}

/// The directory that a restore fills first; removed when it is dropped.
struct Staging(PathBuf);

impl Staging {
    fn new(directory: &Path) -> Result<Self, BackupError> {
        let staging = directory.join(".restoring");
        DirBuilder::new().mode(0o700).create(&staging).map_err(BackupError::at(&staging))?;
        Ok(Self(staging))
    }

    /// A new file; one of the same name is an error.
    fn create(&self, name: &FileName) -> Result<File, BackupError> {
        let path = self.0.join(name.path());
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(BackupError::at(parent))?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(BackupError::at(&path))
    }

    /// Moves all into the directory, the marker first: a server that starts between two moves sees that it is restored.
    fn move_to(self, directory: &Path) -> Result<(), BackupError> {
        sync_tree(&self.0)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(BackupError::at(&self.0))? {
            names.push(entry.map_err(BackupError::at(&self.0))?.file_name());
        }
        names.sort_by_key(|name| name != super::restored::MARKER);
        for name in names {
            let target = directory.join(&name);
            fs::rename(self.0.join(&name), &target).map_err(BackupError::at(&target))?;
        }
        fs::remove_dir(&self.0).map_err(BackupError::at(&self.0))?;
        sync(directory)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After move_to there is nothing to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sync(directory: &Path) -> Result<(), BackupError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(BackupError::at(directory))
}

/// Syncs a directory and those below it; a name has at most four parts, so the depth is bounded.
fn sync_tree(directory: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(directory).map_err(BackupError::at(directory))? {
        let path = entry.map_err(BackupError::at(directory))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    sync(directory)
}
