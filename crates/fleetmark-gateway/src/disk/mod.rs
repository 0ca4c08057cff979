//! The knowledge on disk: crash-safe, and verified when it is read.
//!
//! Everything under `DIR/ledgers/LEDGER/` is reached through `head`, which is replaced whole: it names the generation (`log.N`,
//! `attributes.N`, and `snapshot.N` where N is not 0), holds the signed checkpoint that the replayed entries must give, and the
//! clocks' high-water mark. What does not give the checkpoint's root is set aside as evidence and fetched anew.

mod evidence;
#[cfg(test)]
pub(crate) mod faults;
mod files;
mod ledger;
mod log;
mod wanted;

pub use evidence::Evidence;
pub use files::{DiskError, read, replace};
pub(crate) use ledger::{Attributes, LedgerDisk, MAX_ATTRIBUTES, NAMED, Restored, attributes_record, sha256};
pub(crate) use log::Record;
pub(crate) use wanted::Wanted;
