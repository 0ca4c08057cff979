//! `restored.json`: what a restore leaves for the server's next start, which opens epochs above all that may have been issued
//! since the backup, says what was lost, and then settles the marker.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use fleetmark_domain::Timestamp;
use serde::{Deserialize, Serialize};

use super::BackupError;
use super::manifest::Manifest;

/// The marker's name in the data directory.
pub(super) const MARKER: &str = "restored.json";

/// The longest marker that is read, in octets.
const MAX_MARKER: u64 = 2 << 20;

/// What was restored, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When it was restored.
    pub restored_at: Timestamp,
    /// What the backup said of itself.
    pub backup: Manifest,
}

/// The marker in the data directory; None where there is none.
///
/// # Errors
/// [`BackupError::File`]; [`BackupError::Form`] for a file that no restore wrote. A server must not start then.
pub fn pending(data: &Path) -> Result<Option<Restored>, BackupError> {
    let path = data.join(MARKER);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::at(&path)(error)),
    };
    let mut text = String::new();
    file.take(MAX_MARKER).read_to_string(&mut text).map_err(BackupError::at(&path))?;
    serde_json::from_str(&text).map(Some).map_err(|_| BackupError::Form("restored.json cannot be read"))
}

/// Keeps the marker under another name, once its epochs are durably raised.
///
/// # Errors
/// [`BackupError::File`].
pub fn settle(data: &Path, restored: &Restored) -> Result<(), BackupError> {
    let settled = data.join(format!("restored-{}.json", restored.restored_at.0));
    fs::rename(data.join(MARKER), &settled).map_err(BackupError::at(&settled))?;
    File::open(data).and_then(|directory| directory.sync_all()).map_err(BackupError::at(data))
}

pub(super) fn write_marker(directory: &Path, restored: &Restored) -> Result<(), BackupError> {
    let path = directory.join(MARKER);
    let json = serde_json::to_vec_pretty(restored).map_err(|_| BackupError::Form("the manifest is no JSON"))?;
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    written.and_then(|mut file| file.write_all(&json).and_then(|()| file.sync_all())).map_err(BackupError::at(&path))
}
