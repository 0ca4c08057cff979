//! Whole files, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system's word.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file is not of the form that this program writes.
    #[error("{0} is not as this program writes it")]
    Form(&'static str),
    /// It would not be read back.
    #[error("{0} would be longer than what is read back")]
    TooLong(&'static str),
}

/// A file of at most `limit` octets; None where there is none.
///
/// # Errors
/// Those of the file system, and [`DiskError::Form`] for a longer file.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut octets = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut octets)?;
    if u64::try_from(octets.len()).is_ok_and(|length| length <= limit) {
        Ok(Some(octets))
    } else {
        Err(DiskError::Form("a file that is too long"))
    }
}

/// Replaces a file: temporary file, fsync, rename, fsync of the directory. After a crash it is the old or the new one.
///
/// # Errors
/// Those of the file system.
pub fn replace(path: &Path, octets: &[u8]) -> Result<(), DiskError> {
    let temporary = path.with_extension("new");
    let mut file = create(&temporary)?;
    step()?;
    file.write_all(octets)?;
    step()?;
    file.sync_all()?;
    step()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Before each act on the file system: in tests, where it may fail.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "it fails in tests alone"))]
pub(super) fn step() -> io::Result<()> {
    #[cfg(test)]
    super::faults::step()?;
    Ok(())
}

/// A new, empty file that only this user reads.
pub(super) fn create(path: &Path) -> io::Result<File> {
    step()?;
    #[cfg(test)]
    super::faults::create(path)?;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes names in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), DiskError> {
    step()?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
