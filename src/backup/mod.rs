//! A backup: one encrypted file from which an installation is restored.
//!
//! ```text
//! header  "FMBACKUP" | version u8 = 1 | log2(N) u8 | r u32 | p u32 | salt [32] | nonce [7] | check [32]
//! chunk   last u1, length u31 | ciphertext and tag [length]
//! ```
//! Numbers are big-endian. scrypt (RFC 7914) over passphrase and salt gives 64 octets: the first half is the
//! ChaCha20-Poly1305 key (RFC 8439), the second the HMAC-SHA-256 key of `check`, which covers the header before it and tells
//! a wrong passphrase from a damaged file. Chunks hold at most 64 KiB of plaintext, in the STREAM construction (nonce:
//! 7 octets, counter u32, last u8); the header is their associated data. The plaintext is a manifest, then files; see
//! `frame`.
//!
//! - [`manifest`]: what a backup says of itself.
//! - [`restored`]: what a restore leaves for the server's next start.

mod cipher;
mod frame;
mod header;
pub mod manifest;
mod read;
pub mod restored;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::PathBuf;

pub use manifest::{FileName, LedgerHead, Manifest};
pub use read::{Inspection, inspect, is_whole, move_database, restore};
pub use restored::Restored;
pub use write::{Content, Item, write};

/// The most files in a backup.
pub const MAX_FILES: u32 = 10_000;

/// The most octets in all files of a backup together: 256 GiB.
pub const MAX_TOTAL: u64 = 256 << 30;

/// Why a backup cannot be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is none of ours.
    #[error("this is no Fleetmark backup")]
    NotABackup,
    /// A later version wrote it.
    #[error("the backup is of format {0}; this version reads format 1")]
    Version(u8),
    /// The header asks for more memory than a backup of ours does.
    #[error("the backup's header asks for scrypt costs that no backup of ours has")]
    Cost,
    /// The passphrase does not open it (or its header was changed).
    #[error("the passphrase is not that of this backup")]
    WrongPassphrase,
    /// The file ends too early.
    #[error("the backup is truncated: it ends before its end mark")]
    Truncated,
    /// An octet was changed, moved or added.
    #[error("the backup was changed or damaged at octet {0} or after it")]
    Tampered(u64),
    /// It was decrypted, and is not of the form that we write.
    #[error("the backup's content is not of the form that this version writes: {0}")]
    Form(&'static str),
    /// More than a backup may hold.
    #[error("the backup holds more than {0}")]
    TooLarge(&'static str),
    /// A file's name could lead out of the directory.
    #[error("`{0}` is no name of a file in a backup: at most four parts of letters, digits, '.', '_' and '-'")]
    Name(String),
    /// A file changed its length while it was read.
    #[error("{}: the file changed while it was backed up", .0.display())]
    Changed(PathBuf),
    /// The directory to restore into holds something.
    #[error("{}: a backup is restored into an empty directory, and this is none", .0.display())]
    NotEmpty(PathBuf),
    /// There is a database already where the restored one belongs.
    #[error(
        "{}: the configuration's database belongs here, and there is a file already. Move it away, and what lies beside it (-wal, -shm); \
         then move the restored one here: {}", there.display(), restored.display()
    )]
    DatabaseThere {
        /// What is there.
        there: PathBuf,
        /// The restored one.
        restored: PathBuf,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness for the backup's salt")]
    Random,
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The backup itself cannot be read or written.
    #[error("the backup cannot be read or written")]
    Stream(#[source] io::Error),
}

impl BackupError {
    fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}
