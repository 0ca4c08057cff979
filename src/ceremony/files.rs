//! What lies in a root's directory: read and written whole, held against the records, and finished where a process died.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::record::Record;
use super::{CeremonyError, from_pem, sha256};
use crate::pki::detached;
use crate::pki::issue::facts;

/// The root's certificate, its newest list, what it knows beside its key, and where its records lie.
pub(super) const CERTIFICATE: &str = "root.pem";
pub(super) const LIST: &str = "root.crl.pem";
pub(super) const STATE: &str = "root.json";
pub(super) const RECORDS: &str = "records";
/// The largest file of a root's directory, in octets.
const MAX_KEPT: u64 = 16 * 1024 * 1024;
/// The records that go with an answer are so large together, in octets: some hundred of them.
const MAX_BEFORE: usize = 128 * 1024;
/// What a file is called until the record that names it is there.
pub(super) const NEXT: &str = ".next";

/// Verifies a directory's records: each signed by the root's key, each naming the one before it, none missing, and the newest naming the
/// files as they are. Gives the records. It needs no passphrase.
///
/// # Errors
/// [`CeremonyError::Record`] with what is wrong, [`CeremonyError::File`].
pub fn verify(path: &Path) -> Result<Vec<Record>, CeremonyError> {
    let root = certificate(path)?;
    let (newest, _) = newest(path)?;
    let wrong = |number: u64, why: &str| CeremonyError::Record(format!("record {number} {why}"));
    let (mut records, mut previous): (Vec<Record>, Option<String>) = (Vec::new(), None);
    for number in 1..=newest {
        let file = record_file(path, number);
        let text = String::from_utf8(read(&file)?).map_err(|_| wrong(number, "is no text"))?;
        let signature = String::from_utf8(read(&file.with_extension("cms"))?).unwrap_or_default();
        let signature = from_pem("a record's signature", "CMS", &signature)?;
        detached::verify(&root, text.as_bytes(), &signature).map_err(|_| wrong(number, "is not signed by the root's key"))?;
        let record = Record::parse(&text)?;
        if record.number != number || record.previous != previous {
            return Err(wrong(number, "does not name the one before it"));
        }
        if record.root != facts(&root)?.fingerprint {
            return Err(wrong(number, "is of another root"));
        }
        previous = Some(sha256(text.as_bytes()));
        records.push(record);
    }
    let Some(last) = records.last() else { return Err(CeremonyError::Record("there is none".to_owned())) };
    for (hash, name) in &last.files {
        let is_known = [CERTIFICATE, LIST, STATE].contains(&name.as_str());
        if !is_known || sha256(&read(&path.join(name))?) != *hash {
            return Err(wrong(last.number, &format!("names another {name} than the one that is there")));
        }
    }
    Ok(records)
}

pub(super) fn certificate(path: &Path) -> Result<Vec<u8>, CeremonyError> {
    let text = String::from_utf8(read(&path.join(CERTIFICATE))?).unwrap_or_default();
    from_pem("root.pem", "CERTIFICATE", &text)
}

pub(super) fn record_file(path: &Path, number: u64) -> PathBuf {
    path.join(RECORDS).join(format!("{number:04}.txt"))
}

/// The newest record's number and hash; 0 where there is none.
pub(super) fn newest(path: &Path) -> Result<(u64, Option<String>), CeremonyError> {
    let mut number: u64 = 0;
    while record_file(path, number.saturating_add(1)).exists() {
        number = number.saturating_add(1);
    }
    let hash = if number == 0 { None } else { Some(sha256(&read(&record_file(path, number))?)) };
    Ok((number, hash))
}

/// The texts of the newest records up to this number, the oldest first: as many as [`MAX_BEFORE`] has room for.
pub(super) fn texts_before(path: &Path, number: u64) -> Result<Vec<String>, CeremonyError> {
    let (mut texts, mut room) = (Vec::new(), MAX_BEFORE);
    for number in (1..=number).rev() {
        let text = String::from_utf8(read(&record_file(path, number))?)
            .map_err(|_| CeremonyError::Record(format!("record {number} is no text")))?;
        let Some(left) = room.checked_sub(text.len()) else { break };
        room = left;
        texts.push(text);
    }
    texts.reverse();
    Ok(texts)
}

/// Makes the directory where it is not there, and keeps other processes out of it.
pub(super) fn lock(path: &Path) -> Result<File, CeremonyError> {
    let failed = |source| CeremonyError::File { path: path.to_owned(), source };
    let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    make(path).and_then(|()| make(&path.join(RECORDS))).map_err(failed)?;
    let file = File::options().create(true).append(true).open(path.join(".lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(CeremonyError::Busy(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Finishes or forgets what a process that died left: files that the newest record names take their place, others never were.
pub(super) fn settle(path: &Path) -> Result<(), CeremonyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CeremonyError::File { path, source }
    };
    let (number, _) = newest(path)?;
    let named = if number == 0 {
        Vec::new()
    } else {
        Record::parse(&String::from_utf8(read(&record_file(path, number))?).unwrap_or_default())?.files
    };
    for name in [CERTIFICATE, LIST, STATE] {
        let next = path.join(format!("{name}{NEXT}"));
        if !next.exists() {
            continue;
        }
        let hash = sha256(&read(&next)?);
        let counts = named.iter().any(|(named_hash, named)| named == name && *named_hash == hash);
        let settled = if counts { fs::rename(&next, path.join(name)) } else { fs::remove_file(&next) };
        settled.map_err(failed(&next))?;
    }
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed(path))
}

/// Reads a file of the directory: at most 16 MiB, which `root.json` reaches with some ten thousand authorities.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CeremonyError> {
    use std::io::Read as _;
    let failed = |source| CeremonyError::File { path: path.to_owned(), source };
    let mut octets = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_KEPT.saturating_add(1)).read_to_end(&mut octets)).map_err(failed)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_KEPT {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 16 MiB")));
    }
    Ok(octets)
}

/// Writes a file whole or not at all: temporary file, fsync, rename, fsync of the directory.
pub(super) fn write(path: &Path, octets: &[u8]) -> Result<(), CeremonyError> {
    let failed = |source| CeremonyError::File { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(path);
    let mut file = tempfile::Builder::new().prefix(".root-").tempfile_in(directory).map_err(failed)?;
    file.write_all(octets).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
