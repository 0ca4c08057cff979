//! Files that survive a power cut: whole and synced, or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// For private keys.
pub(super) const SECRET: u32 = 0o600;
/// For everything else.
pub(super) const PUBLIC: u32 = 0o644;
/// What is being written, or thrown away, begins like this; it is swept when the store is opened.
const TEMPORARY: &str = ".tmp-";
/// No file of this store is larger, in octets.
const MAX_FILE: u64 = 1024 * 1024;

/// Makes the directory's entries durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::file(dir, error))
}

/// Makes a directory, and those above it, for its owner alone, unless it is there.
pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| Error::file(dir, error))?;
    // The key in it must not vanish with it. A parent that this user may not read cannot be synced.
    if let Some(parent) = dir.parent() {
        let _ = sync_dir(parent);
    }
    Ok(())
}

/// Writes a new file and syncs it. It must not be there.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| Error::file(path, error))
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{TEMPORARY}{name}"))
}

/// Replaces `dir/name` in one step.
pub(super) fn replace(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
    let new = temporary(dir, name);
    remove(&new)?;
    write_new(&new, content, mode)?;
    rename(&new, &dir.join(name))?;
    sync_dir(dir)
}

/// One file of a directory that appears whole.
pub(super) struct Part<'a> {
    pub(super) name: &'static str,
    pub(super) content: &'a [u8],
    pub(super) mode: u32,
}

/// Makes the directory `dir/name` with all of `parts` in one step. It must not be there.
pub(super) fn make_whole_dir(dir: &Path, name: &str, parts: &[Part<'_>]) -> Result<(), Error> {
    let new = temporary(dir, name);
    remove(&new)?;
    make_dir(&new)?;
    for part in parts {
        write_new(&new.join(part.name), part.content, part.mode)?;
    }
    sync_dir(&new)?;
    rename(&new, &dir.join(name))?;
    sync_dir(dir)
}

/// Points the symbolic link `dir/name` to `target` in one step.
pub(super) fn relink(dir: &Path, name: &str, target: &Path) -> Result<(), Error> {
    let new = temporary(dir, name);
    remove(&new)?;
    std::os::unix::fs::symlink(target, &new).map_err(|error| Error::file(&new, error))?;
    rename(&new, &dir.join(name))?;
    sync_dir(dir)
}

/// Takes away `dir/name`, a file or a whole directory, in one step; nothing happens when it is not there.
pub(super) fn take_away(dir: &Path, name: &str) -> Result<(), Error> {
    let path = dir.join(name);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let gone = temporary(dir, &format!("gone-{name}"));
    remove(&gone)?;
    rename(&path, &gone)?;
    sync_dir(dir)?;
    remove(&gone)
}

/// Removes what an interrupted write or removal left in `dir`.
pub(super) fn sweep(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(|error| Error::file(dir, error))? {
        let entry = entry.map_err(|error| Error::file(dir, error))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| Error::file(to, error))
}

fn remove(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(()) };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| Error::file(path, error))
}

/// Reads a file of text, or says that it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path, error)),
        Ok(metadata) if metadata.len() > MAX_FILE => return Err(Error::damaged(path, "larger than 1 MiB")),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| Error::file(path, error))
}

/// Reads a file that must be there.
pub(super) fn read_needed(path: &Path) -> Result<String, Error> {
    read(path)?.ok_or_else(|| Error::damaged(path, "the file is missing"))
}

/// Reads JSON, or says that the file is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| Error::damaged(path, &error))
}

/// A value as JSON for a person to read.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::Crypto(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}
