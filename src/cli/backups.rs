//! `fleetmark backup`.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use secrecy::SecretString;
use serde_json::json;

use super::client::Ask;
use super::failure::Failure;
use super::serve::ServerArguments;
use super::session::{Session, print, print_json};
use crate::backup::{self, Inspection, Manifest};
use crate::config::passphrase::{self, Surroundings};
use crate::telemetry::clock::{Clock as _, SystemClock};

/// `fleetmark backup`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Have the server write a backup, encrypted under its own passphrase
    Create {
        /// The file to make
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Restore a backup into an empty data directory
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        server: Box<ServerArguments>,
    },
    /// Check a backup and say what is in it
    Inspect {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        server: Box<ServerArguments>,
    },
}

impl BackupCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, profile: Option<&Path>, json: bool) -> Result<(), Failure> {
        match self {
            Self::Create { out } => create(&Session::open(profile, json)?, &out).await,
            Self::Restore { file, server } => restore(&file, &server, json),
            Self::Inspect { file, server } => inspect(&file, &server, json),
        }
    }
}

/// Streams the backup into a temporary file beside `out`, which it becomes when it is whole and synced.
async fn create(session: &Session, out: &Path) -> Result<(), Failure> {
    if out.exists() {
        return Err(Failure::Usage(format!("{}: there is a file here already", out.display())));
    }
    let directory = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", out.display()), None);
    // tempfile makes it with mode 0600, and removes it when anything below fails.
    let mut file = tempfile::Builder::new().prefix(".fleetmark-backup-").tempfile_in(directory).map_err(failed)?;
    let size = session.client.download(Ask::path(&["v1", "backups"]), file.as_file_mut()).await?;
    if !backup::is_whole(file.path())? {
        return Err(Failure::Failed(
            "the server ended the backup before its end".to_owned(),
            Some("Look at the server's log; nothing was kept."),
        ));
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(out).map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    if session.json {
        return print_json(&json!({"file": out, "octets": size}));
    }
    print(&format!("{}: {size} octets, encrypted under the server's passphrase.\n", out.display()))
}

fn restore(file: &Path, server: &ServerArguments, json: bool) -> Result<(), Failure> {
    let passphrase = passphrase_of(server)?;
    let restored = backup::restore(open(file)?, &passphrase, &server.data, SystemClock.now())?;
    if json {
        return print_json(&serde_json::to_value(&restored).unwrap_or_default());
    }
    print(&described(&restored.backup))?;
    print(&format!(
        "Restored into {}. Certificates issued after {} are not in it: at its next start the server opens new epochs far above the \
         highest one, and says what was lost.\nStop any server that still runs on the old data before you start this one.\n",
        server.data.display(),
        restored.backup.made_at,
    ))
}

fn inspect(file: &Path, server: &ServerArguments, json: bool) -> Result<(), Failure> {
    let inspection: Inspection = backup::inspect(open(file)?, &passphrase_of(server)?)?;
    if json {
        return print_json(&serde_json::to_value(&inspection).unwrap_or_default());
    }
    print(&described(&inspection.manifest))?;
    for file in &inspection.files {
        print(&format!("{:>12}  {}\n", file.size, file.name))?;
    }
    print("The backup is whole and unchanged.\n")
}

fn described(manifest: &Manifest) -> String {
    let head = format!(
        "Backup of {} made at {} by Fleetmark {}; highest epoch {}.\n",
        manifest.trust_domain, manifest.made_at, manifest.software, manifest.highest_epoch.0
    );
    let ledgers = manifest.ledgers.iter().map(|ledger| format!("Ledger {}: {} entries.\n", ledger.name, ledger.size));
    std::iter::once(head).chain(ledgers).collect()
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("{}: there is no such file", path.display())),
        _ => Failure::Failed(format!("{}: {error}", path.display()), None),
    })
}

/// The passphrase that the installation had when the backup was made.
fn passphrase_of(server: &ServerArguments) -> Result<SecretString, Failure> {
    Ok(passphrase::read(&server.config()?, &Surroundings::of_process(), false)?.secret)
}
