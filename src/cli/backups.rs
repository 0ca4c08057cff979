//! `fleetmark backup`.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::client::Ask;
use super::failure::{Failure, chain};
use super::files::open;
use super::serve::Installation;
use super::session::{Session, print, print_json};
use crate::backup::{self, Inspection, Manifest};
use crate::config::passphrase::{self, Surroundings};
use crate::config::{Config, StoreLocation, pin};
use crate::server::missing_in_token;
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
        installation: Installation,
    },
    /// Check a backup and say what is in it
    Inspect {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        installation: Installation,
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
            Self::Restore { file, installation } => restore(&file, &installation, json),
            Self::Inspect { file, installation } => inspect(&file, &installation, json),
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
    let left_out = authorities_in_token(session).await?;
    if session.json {
        return print_json(&json!({"file": out, "octets": size, "authorities_in_token": left_out}));
    }
    print(&format!("{}: {size} octets, encrypted under the server's passphrase.\n", out.display()))?;
    if left_out.is_empty() {
        return Ok(());
    }
    let left_out: Vec<_> = left_out.iter().map(ToString::to_string).collect();
    print(&format!(
        "NOT in it are the keys of the authorities {}: they are in the PKCS#11 token, and never leave it. Back the token up with its own \
         tools; without these keys a restored server does not start (docs/hsm.md).\n",
        left_out.join(", ")
    ))
}

/// The authorities whose keys are in the token.
async fn authorities_in_token(session: &Session) -> Result<Vec<u64>, Failure> {
    let list = session.client.list(Ask::path(&["v1", "authorities"]), None).await?;
    let all = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let in_token = all.filter(|authority| authority.get("key").and_then(Value::as_str) == Some("pkcs11"));
    Ok(in_token.filter_map(|authority| authority.get("id").and_then(Value::as_u64)).collect())
}

fn restore(file: &Path, installation: &Installation, json: bool) -> Result<(), Failure> {
    let passphrase = passphrase_of(installation)?;
    let restored = backup::restore(open(file)?, &passphrase, &installation.data, SystemClock.now())?;
    let rest = installation.config().and_then(|config| {
        place_database(&config)?;
        check_token(&config, &passphrase, &restored.backup.token_keys)
    });
    if json {
        print_json(&serde_json::to_value(&restored).unwrap_or_default())?;
        return rest;
    }
    print(&described(&restored.backup))?;
    print(&format!(
        "Restored into {}. Certificates issued after {} are not in it: at its next start the server opens new epochs far above the \
         highest one, and says what was lost.\nStop any server that still runs on the old data before you start this one.\n",
        installation.data.display(),
        restored.backup.made_at,
    ))?;
    rest
}

/// Brings the database to where the restored configuration has it.
fn place_database(config: &Config) -> Result<(), Failure> {
    const ADVICE: &str = "All else is restored; the server does not start before its database is in place (docs/backup.md).";
    let restored = config.data.database();
    let moved = match &config.store {
        StoreLocation::Sqlite(_) if config.has_own_database() => return Ok(()),
        StoreLocation::Sqlite(place) => backup::move_database(&restored, place).map_err(|error| chain(&error)),
        StoreLocation::Postgres(_) => {
            Err(format!("the configuration's store is {}, and {} is a database of SQLite's", config.store, restored.display()))
        }
    };
    moved.map_err(|why| Failure::Failed(why, Some(ADVICE)))
}

/// Whether the token of the restored configuration has the keys that the backup does not.
fn check_token(config: &Config, passphrase: &SecretString, labels: &[String]) -> Result<(), Failure> {
    const ADVICE: &str =
        "Everything else is restored. Bring the token, or restore its own backup, before the server is started (docs/hsm.md).";
    if labels.is_empty() {
        return Ok(());
    }
    let failed = |why: String| Failure::Failed(format!("{} keys are in the PKCS#11 token: {why}", labels.len()), Some(ADVICE));
    let pin = config.keys.pkcs11.as_ref().map(|token| pin::find(token, &Surroundings::of_process())).transpose();
    let pin = pin.map_err(|error| failed(chain(&error)))?.flatten();
    let missing = missing_in_token(config, passphrase, pin.as_ref().map(|pin| &pin.secret), labels);
    let missing = missing.map_err(|error| failed(chain(&error)))?;
    if missing.is_empty() {
        // On standard error, so that `--json` stays JSON.
        eprintln!("The token has all {} keys that are not in the backup.", labels.len());
        return Ok(());
    }
    Err(failed(format!("it lacks {}", missing.join(", "))))
}

fn inspect(file: &Path, installation: &Installation, json: bool) -> Result<(), Failure> {
    let inspection: Inspection = backup::inspect(open(file)?, &passphrase_of(installation)?)?;
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
    let token = match manifest.token_keys.len() {
        0 => None,
        count => Some(format!("Not in it: {count} keys of authorities, which are in a PKCS#11 token.\n")),
    };
    let ledgers = manifest.ledgers.iter().map(|ledger| format!("Ledger {}: {} entries.\n", ledger.name, ledger.size));
    std::iter::once(head).chain(ledgers).chain(token).collect()
}

/// The passphrase that the installation had when the backup was made.
fn passphrase_of(installation: &Installation) -> Result<SecretString, Failure> {
    Ok(passphrase::read(&installation.config()?, &Surroundings::of_process(), false)?.secret)
}
