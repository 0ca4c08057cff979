//! Makes a backup.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::PathBuf;

use ring::rand::SecureRandom;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::cipher::Encrypting;
use super::frame::{FileHead, write_end, write_file_head, write_manifest};
use super::header::{Cost, Header};
use super::manifest::{FileName, Manifest};
use super::{BackupError, MAX_FILES, MAX_TOTAL};

/// A file to back up.
pub struct Item {
    /// Its name in the backup and, below the data directory, after a restore.
    pub name: FileName,
    /// Where its octets are.
    pub content: Content,
}

/// Where a file's octets are.
pub enum Content {
    /// On the disk; nobody may write to it meanwhile.
    File(PathBuf),
    /// In memory.
    Octets(Zeroizing<Vec<u8>>),
}

/// Writes a backup of `items` under `passphrase`. It blocks, for a few tenths of a second for scrypt alone.
///
/// # Errors
/// [`BackupError`]; what was written till then is no backup: it lacks its end mark.
pub fn write<W: Write>(
    manifest: &Manifest,
    items: &[Item],
    passphrase: &SecretString,
    random: &dyn SecureRandom,
    out: W,
) -> Result<W, BackupError> {
    write_with(Cost::OURS, manifest, items, passphrase, random, out)
}

/// As [`write()`], at another cost.
pub(super) fn write_with<W: Write>(
    cost: Cost,
    manifest: &Manifest,
    items: &[Item],
    passphrase: &SecretString,
    random: &dyn SecureRandom,
    out: W,
) -> Result<W, BackupError> {
    let files = u32::try_from(items.len()).ok().filter(|files| *files <= MAX_FILES);
    let files = files.ok_or(BackupError::TooLarge("10,000 files"))?;
    let header = Header::new(passphrase, cost, random)?;
    let mut out = Encrypting::new(out, &header)?;
    write_manifest(&mut out, manifest)?;
    let mut left = MAX_TOTAL;
    for item in items {
        let size = write_item(&mut out, item)?;
        left = left.checked_sub(size).ok_or(BackupError::TooLarge("256 GiB"))?;
    }
    write_end(&mut out, files)?;
    out.finish()
}

/// Writes a file and gives its size.
fn write_item(out: &mut impl Write, item: &Item) -> Result<u64, BackupError> {
    match &item.content {
        Content::Octets(octets) => {
            let size = u64::try_from(octets.len()).map_err(|_| BackupError::TooLarge("256 GiB"))?;
            write_file_head(out, &FileHead { name: item.name.clone(), size })?;
            out.write_all(octets).map_err(BackupError::Stream)?;
            Ok(size)
        }
        Content::File(path) => {
            let file = File::open(path).map_err(BackupError::at(path))?;
            let size = file.metadata().map_err(BackupError::at(path))?.len();
            write_file_head(out, &FileHead { name: item.name.clone(), size })?;
            // One octet more is asked for, so that a file that grew is noticed.
            let copied = std::io::copy(&mut file.take(size + 1), out).map_err(BackupError::Stream)?;
            if copied == size { Ok(size) } else { Err(BackupError::Changed(path.clone())) }
        }
    }
}
