//! `fleetmark token`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::accept::root_fingerprint;
use super::arguments::{Listing, duration, object};
use super::client::Ask;
use super::devices::Fleet;
use super::failure::Failure;
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 5] = [
    Column("TOKEN", "id"),
    Column("STATE", "state"),
    Column("DEVICE", "device"),
    Column("ENDS", "expires_at"),
    Column("NOTE", "note"),
];
const FIRST: [&str; 5] = ["token", "id", "fleet", "device", "expires_at"];

/// `fleetmark token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for one device; it is shown this once
    Create {
        #[command(flatten)]
        fleet: Fleet,
        /// The one device that it admits; whoever comes first, unless given
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// For how long it holds, at most 30d
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
        expires_in: Duration,
        /// For people
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// List tokens, without their secrets
    List {
        #[command(flatten)]
        fleet: Fleet,
        #[command(flatten)]
        listing: Listing,
    },
    /// Withdraw a token
    Withdraw {
        /// Its public id: the 16 digits after `fmt_`
        id: String,
        #[command(flatten)]
        fleet: Fleet,
    },
}

impl TokenCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create { fleet, device, expires_in, note } => {
                let body = object([
                    ("device", device.clone().map(Value::from)),
                    ("expires_in_seconds", Some(Value::from(expires_in.as_secs()))),
                    ("note", note.map(Value::from)),
                ]);
                create(session, &fleet.name, device.as_deref(), body).await
            }
            Self::List { fleet, listing } => {
                session.list(Ask::path(&["v1", "fleets", &fleet.name, "tokens"]), listing, &COLUMNS).await
            }
            Self::Withdraw { id, fleet } => {
                let withdrawn = session.client.delete(Ask::path(&["v1", "fleets", &fleet.name, "tokens", &id])).await?;
                if session.json {
                    return session.print_record(&withdrawn, &FIRST);
                }
                print(&format!("Token {id} is withdrawn.\n"))
            }
        }
    }
}

async fn create(session: &Session, fleet: &str, device: Option<&str>, body: Value) -> Result<(), Failure> {
    // Without an Idempotency-Key: a secret that is shown once cannot be shown again.
    let created = session.client.post(Ask::path(&["v1", "fleets", fleet, "tokens"]).body(body)).await?;
    session.print_record(&created, &FIRST)?;
    if session.json {
        return Ok(());
    }
    let value = created.json()?;
    let token = value.get("token").and_then(Value::as_str).unwrap_or("TOKEN");
    let name = if device.is_some() { "" } else { " --name NAME" };
    print(&format!(
        "\nOn the device:\n  fleetmark-device enroll --server {} --ca-fingerprint {} --fleet {fleet}{name} --token {token} --dir DIR\n",
        session.profile.settings.device_door,
        root_fingerprint(&session.profile)?,
    ))
}
