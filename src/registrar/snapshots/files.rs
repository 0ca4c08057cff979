//! One ledger's snapshots on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleetmark_domain::LedgerName;
use fleetmark_ledger::note::VerifierKey;
use fleetmark_ledger::snapshot::{self, SnapshotError};
use fleetmark_ledger::state::State;
use ring::digest::{Context, SHA256};

use super::SnapshotFile;

/// The ending of a whole file.
const ENDING: &str = ".snapshot";
/// The file that is being written; there is one maker.
const UNFINISHED: &str = "unfinished";
/// Read and written at once, in octets.
const BUFFER: usize = 1 << 20;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("a snapshot's file cannot be used")]
pub struct FileError(#[from] io::Error);

/// Where a ledger's snapshots lie.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

impl Files {
    /// In the ledger's directory; nothing is made yet.
    pub fn new(directory: &Path, ledger: &LedgerName) -> Self {
        Self(directory.join(ledger.as_str()))
    }

    /// The snapshot of `size` entries, if its file is there and has this hash.
    pub fn find(&self, size: u64, hash: [u8; 32]) -> Result<Option<SnapshotFile>, FileError> {
        let path = self.path(size);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut context = Context::new(&SHA256);
        let mut file = BufReader::with_capacity(BUFFER, file);
        let mut length = 0;
        let mut octets = vec![0; BUFFER];
        loop {
            let count = file.read(&mut octets)?;
            let Some(read) = octets.get(..count).filter(|read| !read.is_empty()) else { break };
            context.update(read);
            length += u64::try_from(count).unwrap_or(0);
        }
        let found = SnapshotFile { size, hash, path, length };
        Ok((context.finish().as_ref() == hash).then_some(found))
    }

    /// The state in a snapshot; None where the file is gone or is not what it was.
    pub fn load(key: VerifierKey, file: &SnapshotFile) -> Option<State> {
        let read = File::open(&file.path)
            .map_err(SnapshotError::from)
            .and_then(|from| snapshot::read(key, &mut BufReader::with_capacity(BUFFER, from), file.length));
        match read {
            Ok((state, hash)) if hash == file.hash => Some(state),
            Ok(_) => {
                tracing::warn!(file = %file.path.display(), "the snapshot's file was changed; it is made again");
                None
            }
            Err(error) => {
                tracing::warn!(file = %file.path.display(), %error, "the snapshot's file cannot be read; it is made again");
                None
            }
        }
    }

    /// Writes a snapshot: whole on the disk, or not under its name.
    pub fn write(&self, state: &State) -> Result<SnapshotFile, FileError> {
        let size = state.frontier().size();
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let unfinished = self.0.join(UNFINISHED);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        let mut to = BufWriter::with_capacity(BUFFER, file);
        let hash = snapshot::write(state, &mut to)?;
        to.flush()?;
        let file = to.get_ref();
        file.sync_all()?;
        let length = file.metadata()?.len();
        let path = self.path(size);
        fs::rename(&unfinished, &path)?;
        File::open(&self.0)?.sync_all()?;
        Ok(SnapshotFile { size, hash, path, length })
    }

    /// Keeps the newest snapshot and the one before it, and removes all other files.
    pub fn keep(&self, newest: u64) -> Result<(), FileError> {
        let mut sizes = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let size = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ENDING));
            match size.and_then(|size| size.parse::<u64>().ok()) {
                Some(size) if size <= newest => sizes.push(size),
                // Ahead of what the ledger names: left by a start that died, or by a ledger that a restore took back.
                _ => fs::remove_file(path)?,
            }
        }
        sizes.sort_unstable();
        for size in sizes.iter().rev().skip(2) {
            fs::remove_file(self.path(*size))?;
        }
        Ok(())
    }

    fn path(&self, size: u64) -> PathBuf {
        self.0.join(format!("{size}{ENDING}"))
    }
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::Timestamp;
    use fleetmark_ledger::entry::{Entry, Event};

    use super::*;

    fn key() -> VerifierKey {
        VerifierKey { name: "fleet.example/ledger/default".to_owned(), key: [7; 32] }
    }

    /// The state after so many entries.
    fn state(size: u64) -> State {
        let mut state = State::new(key());
        for version in 0..size {
            let opened = Event::Opened { origin: key().name, key: key().key };
            let event = if version == 0 { opened } else { Event::FleetChanged { version } };
            state.append(&Entry { at: Timestamp(1), event, details: None }.encode().unwrap()).unwrap();
        }
        state
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory.join("default")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_written_is_found_by_its_hash() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path(), &"default".parse().unwrap());
        let written = files.write(&state(5)).unwrap();
        assert_eq!(names(directory.path()), ["5.snapshot"], "nothing unfinished is left");
        assert_eq!(files.find(5, written.hash).unwrap(), Some(written.clone()));
        assert_eq!(files.find(5, [0; 32]).unwrap(), None);
        assert_eq!(files.find(6, written.hash).unwrap(), None);
        assert_eq!(Files::load(key(), &written).unwrap().frontier(), state(5).frontier());
        assert!(Files::load(VerifierKey { key: [8; 32], ..key() }, &written).is_none());

        let mut octets = fs::read(&written.path).unwrap();
        *octets.last_mut().unwrap() ^= 1;
        fs::write(&written.path, octets).unwrap();
        assert!(Files::load(key(), &written).is_none(), "changed");
        assert_eq!(files.find(5, written.hash).unwrap(), None);
        fs::remove_file(&written.path).unwrap();
        assert!(Files::load(key(), &written).is_none(), "gone");
    }

    #[test]
    fn the_newest_two_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path(), &"default".parse().unwrap());
        for size in [3, 9, 10, 11, 200] {
            files.write(&state(size)).unwrap();
        }
        fs::write(directory.path().join("default").join(UNFINISHED), b"half").unwrap();
        files.keep(11).unwrap();
        assert_eq!(names(directory.path()), ["10.snapshot", "11.snapshot"]);
    }
}
