//! A disk that fails from some act on.

use std::cell::Cell;
use std::io;

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
