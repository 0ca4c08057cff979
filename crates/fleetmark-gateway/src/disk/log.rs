//! The log: what came since the snapshot. Each record is `length u32 || kind u8 || payload || checksum`, the checksum being the
//! first 8 octets of SHA-256 over the offset, kind and payload. A torn tail is cut.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write as _};
use std::path::Path;

use ring::digest::{Context, SHA256};

use super::files::{DiskError, create, step, sync_parent};

/// The longest payload, in octets.
const MAX_PAYLOAD: usize = 1024 * 1024;
const ENTRY: u8 = 1;
const ATTRIBUTES: u8 = 2;
const WANTED: u8 = 3;

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The next entry of the ledger.
    Entry(Vec<u8>),
    /// One device's attributes, as JSON.
    Attributes(Vec<u8>),
    /// An entry below the snapshot's size whose details are wanted.
    Wanted(Vec<u8>),
}

impl Record {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Entry(octets) => (ENTRY, octets),
            Self::Attributes(octets) => (ATTRIBUTES, octets),
            Self::Wanted(octets) => (WANTED, octets),
        }
    }
}

/// A log that is appended to.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    length: u64,
}

impl Log {
    /// A new, empty log.
    pub(crate) fn create(path: &Path) -> Result<Self, DiskError> {
        let file = create(path)?;
        file.sync_all()?;
        sync_parent(path)?;
        Ok(Self { file, length: 0 })
    }

    /// Reads a log record by record, cuts what is torn, and goes on behind it. `take` says whether a record is wanted: the
    /// log is cut before the first one that is not.
    pub(crate) fn open(path: &Path, mut take: impl FnMut(Record) -> bool) -> Result<Self, DiskError> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut length = 0;
        while let Some((record, end)) = next(&mut reader, length) {
            if !take(record) {
                break;
            }
            length = end;
        }
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(length)?;
        Ok(Self { file, length })
    }

    /// Appends, durably.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), DiskError> {
        let mut octets = Vec::new();
        let mut length = self.length;
        for record in records {
            let before = octets.len();
            write(&mut octets, record, length)?;
            length += u64::try_from(octets.len() - before).unwrap_or(u64::MAX);
        }
        step()?;
        self.file.write_all(&octets)?;
        step()?;
        self.file.sync_data()?;
        self.length = length;
        Ok(())
    }

    /// In octets.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }
}

fn write(to: &mut Vec<u8>, record: &Record, offset: u64) -> Result<(), DiskError> {
    let (kind, payload) = record.parts();
    let length =
        u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD).ok_or(DiskError::Form("a record"))?;
    to.extend(length.to_be_bytes());
    to.push(kind);
    to.extend_from_slice(payload);
    to.extend(checksum(offset, kind, payload));
    Ok(())
}

/// The next whole record, and the offset behind it.
fn next(reader: &mut impl Read, offset: u64) -> Option<(Record, u64)> {
    let mut head = [0; 5];
    reader.read_exact(&mut head).ok()?;
    let [a, b, c, d, kind] = head;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok().filter(|length| *length <= MAX_PAYLOAD)?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).ok()?;
    let mut sum = [0; 8];
    reader.read_exact(&mut sum).ok()?;
    if sum != checksum(offset, kind, &payload) {
        return None;
    }
    let end = offset + 13 + u64::try_from(length).ok()?;
    match kind {
        ENTRY => Some((Record::Entry(payload), end)),
        ATTRIBUTES => Some((Record::Attributes(payload), end)),
        WANTED => Some((Record::Wanted(payload), end)),
        _ => None,
    }
}

fn checksum(offset: u64, kind: u8, payload: &[u8]) -> [u8; 8] {
    let mut context = Context::new(&SHA256);
    context.update(&offset.to_be_bytes());
    context.update(&[kind]);
    context.update(payload);
    let mut sum = [0; 8];
    sum.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<Record> {
        let mut records = Vec::new();
        Log::open(path, |record| {
            records.push(record);
            true
        })
        .unwrap();
        records
    }

    #[test]
    fn a_log_cut_at_any_length_or_flipped_anywhere_gives_whole_records_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let records = [Record::Entry(b"one".to_vec()), Record::Attributes(b"{}".to_vec()), Record::Entry(Vec::new())];
        Log::create(&path).unwrap().append(&records).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let ends = [0, 16, 31, 44];
        assert_eq!(whole.len(), 44);
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(read(&path), records[..kept], "cut at {cut}");
            let mut log = Log::open(&path, |_| true).unwrap();
            log.append(&[Record::Entry(b"next".to_vec())]).unwrap();
            assert_eq!(read(&path).len(), kept + 1);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let kept = ends.iter().filter(|end| **end <= at).count() - 1;
            assert_eq!(read(&path), records[..kept], "flipped at {at}");
        }
    }
}
