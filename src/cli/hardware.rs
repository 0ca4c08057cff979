//! `fleetmark device hardware`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::json;

use super::arguments::Listing;
use super::client::Ask;
use super::devices::Device;
use super::failure::Failure;
use super::files;
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 3] = [Column("HARDWARE", "id"), Column("KNOWN BY", "source"), Column("SINCE", "since")];
const FIRST: [&str; 3] = ["id", "source", "since"];
/// The largest file of a public key, in octets.
const MAX_FILE: usize = 2048;

/// `fleetmark device hardware`
#[derive(Debug, Subcommand)]
pub enum HardwareCommand {
    /// Register a TPM's endorsement key with a device, which enrolls by its TPM from then on
    Add {
        #[command(flatten)]
        device: Device,
        /// The key: PEM, or what `tpm2_createek --public` writes
        #[arg(long, value_name = "FILE")]
        endorsement_key: PathBuf,
    },
    /// List which hardware a device is
    List(Device),
    /// Take a piece of hardware from a device; its certificates stay
    Remove {
        #[command(flatten)]
        device: Device,
        /// The hardware, as `list` shows it
        #[arg(long, value_name = "ID")]
        id: String,
    },
}

impl HardwareCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Add { device, endorsement_key } => {
                let body = json!({"endorsement_key": read_key(&endorsement_key)?});
                let added = session.client.post(at(&device, None).body(body)).await?;
                session.print_record(&added, &FIRST)
            }
            Self::List(device) => session.list(at(&device, None), Listing { limit: 50, all: true }, &COLUMNS).await,
            Self::Remove { device, id } => {
                let removed = session.client.delete(at(&device, Some(&id))).await?;
                if session.json {
                    return session.print_record(&removed, &FIRST);
                }
                print(&format!("{} is hardware {id} no more.\n", device.name))
            }
        }
    }
}

fn at<'a>(device: &'a Device, id: Option<&'a str>) -> Ask<'a> {
    let mut path = device.path().to_vec();
    path.push("hardware");
    path.extend(id);
    Ask::path(&path)
}

/// A public key as it is sent: PEM as it is, all else in base64.
fn read_key(path: &Path) -> Result<String, Failure> {
    match String::from_utf8(files::read(path, MAX_FILE)?) {
        Ok(text) if text.starts_with("-----BEGIN PUBLIC KEY-----") => Ok(text),
        Ok(text) => Ok(STANDARD.encode(text.as_bytes())),
        Err(error) => Ok(STANDARD.encode(error.as_bytes())),
    }
}
