//! The records of the plaintext.
//!
//! ```text
//! manifest  0x01 | length u32 | JSON
//! file      0x02 | name length u16 | name | size u64 | octets
//! end       0x00 | number of files u32
//! ```
//! The manifest comes first and once; then files; then the end.

use std::io::{Read, Write};

use super::cipher::Decrypting;
use super::manifest::{FileName, Manifest};
use super::{BackupError, MAX_FILES, MAX_TOTAL};

const MANIFEST: u8 = 1;
const FILE: u8 = 2;
const END: u8 = 0;

/// The longest manifest, in octets.
const MAX_MANIFEST: u32 = 1 << 20;

/// The longest name, in octets: four parts of 63 and their separators.
const MAX_NAME: u16 = 255;

/// A file's record, before its octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileHead {
    pub name: FileName,
    pub size: u64,
}

pub(super) fn write_manifest(out: &mut impl Write, manifest: &Manifest) -> Result<(), BackupError> {
    let json = serde_json::to_vec(manifest).map_err(|_| BackupError::Form("the manifest is no JSON"))?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_MANIFEST);
    let length = length.ok_or(BackupError::TooLarge("1 MiB of manifest"))?;
    put(out, &[&[MANIFEST], &length.to_be_bytes(), &json])
}

pub(super) fn write_file_head(out: &mut impl Write, head: &FileHead) -> Result<(), BackupError> {
    let name = head.name.as_str().as_bytes();
    let length = u16::try_from(name.len()).map_err(|_| BackupError::TooLarge("255 octets of name"))?;
    put(out, &[&[FILE], &length.to_be_bytes(), name, &head.size.to_be_bytes()])
}

pub(super) fn write_end(out: &mut impl Write, files: u32) -> Result<(), BackupError> {
    put(out, &[&[END], &files.to_be_bytes()])
}

fn put(out: &mut impl Write, parts: &[&[u8]]) -> Result<(), BackupError> {
    parts.iter().try_for_each(|part| out.write_all(part)).map_err(BackupError::Stream)
}

/// Reads records in their order, within the limits.
pub(super) struct Records<R: Read> {
    input: Decrypting<R>,
    files: u32,
    total: u64,
    /// Octets of the current file that were not read yet.
    left: u64,
}

impl<R: Read> Records<R> {
    /// Reads the manifest.
    pub(super) fn open(mut input: Decrypting<R>) -> Result<(Manifest, Self), BackupError> {
        if number::<1, R>(&mut input)? != [MANIFEST] {
            return Err(BackupError::Form("it does not begin with a manifest"));
        }
        let length = u32::from_be_bytes(number(&mut input)?);
        if length > MAX_MANIFEST {
            return Err(BackupError::TooLarge("1 MiB of manifest"));
        }
        let mut json = vec![0; usize::try_from(length).unwrap_or(0)];
        input.fill(&mut json)?;
        let manifest = serde_json::from_slice(&json).map_err(|_| BackupError::Form("its manifest cannot be read"))?;
        Ok((manifest, Self { input, files: 0, total: 0, left: 0 }))
    }

    /// The next file, whose octets [`Self::octets`] gives; None at the end, which is then checked.
    pub(super) fn next(&mut self) -> Result<Option<FileHead>, BackupError> {
        while !self.octets()?.is_empty() {}
        match number::<1, R>(&mut self.input)? {
            [FILE] => self.file_head().map(Some),
            [END] if u32::from_be_bytes(number(&mut self.input)?) == self.files => Ok(None),
            [END] => Err(BackupError::Form("it holds another number of files than it says")),
            _ => Err(BackupError::Form("there is an unknown record in it")),
        }
    }

    /// Some octets of the current file; none at its end.
    pub(super) fn octets(&mut self) -> Result<&[u8], BackupError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let octets = self.input.some(self.left)?;
        if octets.is_empty() {
            return Err(BackupError::Form("it ends within a file"));
        }
        self.left -= u64::try_from(octets.len()).unwrap_or(0);
        Ok(octets)
    }

    /// Checks that nothing follows the end record.
    pub(super) fn finish(self) -> Result<(), BackupError> {
        self.input.finish()
    }

    fn file_head(&mut self) -> Result<FileHead, BackupError> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(BackupError::TooLarge("10,000 files"));
        }
        let length = u16::from_be_bytes(number(&mut self.input)?);
        if length > MAX_NAME {
            return Err(BackupError::Form("a name is too long"));
        }
        let mut name = vec![0; usize::from(length)];
        self.input.fill(&mut name)?;
        let name = String::from_utf8(name).map_err(|_| BackupError::Form("a name is not text"))?;
        let size = u64::from_be_bytes(number(&mut self.input)?);
        self.total = self.total.saturating_add(size);
        if self.total > MAX_TOTAL {
            return Err(BackupError::TooLarge("256 GiB"));
        }
        self.left = size;
        Ok(FileHead { name: name.parse()?, size })
    }
}

fn number<const N: usize, R: Read>(input: &mut Decrypting<R>) -> Result<[u8; N], BackupError> {
    let mut octets = [0; N];
    input.fill(&mut octets)?;
    Ok(octets)
}
