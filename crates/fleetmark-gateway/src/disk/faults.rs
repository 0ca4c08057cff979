//! A disk that fails from some act on, or is full below some directory.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

static FULL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// After so many acts every act of this thread fails, as on a full disk; None: none fails.
pub(crate) fn fail_after(acts: Option<u32>) {
    LEFT.set(acts);
}

/// Whether it has come to that.
pub(crate) fn has_failed() -> bool {
    LEFT.get() == Some(0)
}

/// No file below `dir` can be made any more, by any thread; or it can again.
pub(crate) fn fill(dir: &Path, is_full: bool) {
    let mut full = FULL.lock().unwrap();
    full.retain(|one| one != dir);
    if is_full {
        full.push(dir.to_owned());
    }
}

pub(super) fn create(path: &Path) -> io::Result<()> {
    let is_full = FULL.lock().unwrap().iter().any(|dir| path.starts_with(dir));
    if is_full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
}

pub(super) fn step() -> io::Result<()> {
    match LEFT.get() {
        Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
        None => Ok(()),
    }
}
