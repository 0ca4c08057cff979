//! What contradicted itself, kept for whoever looks into it: `DIR/evidence/TIME-KIND/`, never overwritten.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fleetmark_domain::Timestamp;
use ring::digest::{SHA256, digest};

use super::files::{DiskError, replace, step, sync_parent};
use super::ledger::{BROKEN, NAMED};

/// The most pieces of evidence: who sends nonsense fills no disk with it.
const MAX_KEPT: usize = 256;

/// The directory for evidence.
#[derive(Debug)]
pub struct Evidence {
    dir: PathBuf,
    /// SHA-256 of what was kept: the same thing is kept once a run.
    kept: Mutex<HashSet<Vec<u8>>>,
}

impl Evidence {
    /// Evidence goes to `DIR/evidence`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("evidence"), kept: Mutex::default() }
    }

    /// Keeps these files together. Failing to is logged, and changes nothing else.
    pub fn keep(&self, at: Timestamp, kind: &str, files: &[(&str, &[u8])]) {
        let all: Vec<u8> = files.iter().flat_map(|(name, octets)| [name.as_bytes(), octets]).flatten().copied().collect();
        let hash = digest(&SHA256, &all).as_ref().to_vec();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT || !kept.insert(hash) {
            return;
        }
        if let Err(error) = self.write(at, kind, files) {
            tracing::error!(kind, %error, "evidence could not be kept");
        }
    }

    fn write(&self, at: Timestamp, kind: &str, files: &[(&str, &[u8])]) -> Result<(), DiskError> {
        let dir = self.place(at, kind)?;
        for (name, octets) in files {
            replace(&dir.join(name), octets)?;
        }
        Ok(())
    }

    /// Moves what is known of a ledger here. What an operator is asked for, or said, stays in its directory.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_aside(&self, at: Timestamp, kind: &str, dir: &Path) -> Result<(), DiskError> {
        let place = self.place(at, kind)?.join("state");
        fs::create_dir(&place)?;
        let names = fs::read_dir(dir)?.map(|file| file.map(|file| file.file_name())).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = names.into_iter().filter(|name| *name != *BROKEN && *name != *NAMED).collect();
        // Without `head` the others do not count.
        names.sort_by_key(|name| *name != *"head");
        for name in names {
            step()?;
            fs::rename(dir.join(&name), place.join(&name))?;
        }
        sync_parent(&dir.join("head"))
    }

    /// A new directory.
    fn place(&self, at: Timestamp, kind: &str) -> Result<PathBuf, DiskError> {
        fs::create_dir_all(&self.dir)?;
        if fs::read_dir(&self.dir)?.count() >= MAX_KEPT {
            return Err(DiskError::Form("the directory for evidence, which is full,"));
        }
        let time = at.to_string().replace(':', "");
        for number in 0..MAX_KEPT {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let dir = self.dir.join(format!("{time}-{kind}{suffix}"));
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(dir),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(DiskError::Form("the directory for evidence"))
    }
}
