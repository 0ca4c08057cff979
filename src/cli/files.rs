//! Files that commands read and make.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::failure::Failure;

/// Why a file that is to be read cannot be.
pub fn unreadable(path: &Path) -> impl Fn(Error) -> Failure + '_ {
    |error| match error.kind() {
        ErrorKind::NotFound => Failure::NotFound(format!("{}: there is no such file", path.display())),
        _ => Failure::Failed(format!("{}: {error}", path.display()), None),
    }
}

/// Opens a file to be read.
///
/// # Errors
/// [`Failure::NotFound`], [`Failure::Failed`].
pub fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(unreadable(path))
}

/// A file of at most `most` octets.
///
/// # Errors
/// As [`open`]; [`Failure::Usage`] for a larger one.
pub fn read(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut octets = Vec::new();
    open(path)?.take(limit).read_to_end(&mut octets).map_err(unreadable(path))?;
    if octets.len() > most {
        return Err(Failure::Usage(format!("{}: it is larger than {most} octets", path.display())));
    }
    Ok(octets)
}

/// The same of text.
///
/// # Errors
/// As [`read`]; [`Failure::Usage`] for what is no text.
pub fn text(path: &Path, most: usize) -> Result<String, Failure> {
    String::from_utf8(read(path, most)?).map_err(|_| Failure::Usage(format!("{}: this is no text", path.display())))
}

/// Writes a file that is not there yet, with this mode, durably.
///
/// # Errors
/// [`Failure::Failed`].
pub fn write_new(path: &Path, octets: &[u8], mode: u32) -> Result<(), Failure> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file
        .and_then(|mut file| file.write_all(octets).and_then(|()| file.sync_all()))
        .and_then(|()| File::open(directory)?.sync_all());
    written.map_err(|error| Failure::Failed(format!("{}: {error}", path.display()), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        assert_eq!(read(&path, 3).expect_err("not there").code(), 3);
        assert_eq!(read(directory.path(), 3).expect_err("a directory").code(), 1);
        write_new(&path, b"\xff123", 0o600).expect("written");
        assert_eq!(read(&path, 3).expect_err("too large").code(), 2);
        assert_eq!(text(&path, 4).expect_err("no text").code(), 2);
        assert_eq!(write_new(&path, b"", 0o600).expect_err("there").code(), 1);
        assert_eq!(read(&path, 4).expect("read"), b"\xff123");
    }
}
