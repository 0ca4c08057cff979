//! `fleetmark token`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::accept::root_fingerprint;
use super::arguments::{Listing, duration, object};
use super::client::Ask;
use super::devices::Fleet;
use super::failure::Failure;
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 7] = [
    Column("TOKEN", "id"),
    Column("STATE", "state"),
    Column("DEVICE", "device"),
    Column("USES", "uses"),
    Column("SPENT", "spent"),
    Column("ENDS", "expires_at"),
    Column("NOTE", "note"),
];
const FIRST: [&str; 6] = ["token", "id", "fleet", "device", "uses", "expires_at"];

/// `fleetmark token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for one device, or for several; it is shown this once
    #[command(visible_alias = "mint")]
    Create(NewToken),
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

/// What token to make.
#[derive(Debug, Args)]
pub struct NewToken {
    #[command(flatten)]
    fleet: Fleet,
    /// The one device that it admits; whoever comes first, unless given
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// For how many devices it is, at most 1,000,000
    #[arg(long, value_name = "N", conflicts_with = "device", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    uses: Option<u64>,
    /// What names it admits, such as 'sensor-*'; may be repeated
    #[arg(long = "name-pattern", value_name = "PATTERN", conflicts_with = "device")]
    names: Vec<String>,
    /// From which network it may be used, such as 10.0.0.0/8; may be repeated
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// From when on it may be used, such as 2027-01-31T08:00:00Z
    #[arg(long, value_name = "TIME")]
    opens_at: Option<String>,
    /// A person approves each device
    #[arg(long)]
    approval: bool,
    /// For how long it holds, at most 30d
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    expires_in: Duration,
    /// For people
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl NewToken {
    fn body(&self) -> Value {
        let list = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts.to_vec()));
        object([
            ("device", self.device.clone().map(Value::from)),
            ("uses", self.uses.map(Value::from)),
            ("names", list(&self.names)),
            ("networks", list(&self.networks)),
            ("opens_at", self.opens_at.clone().map(Value::from)),
            ("approval", self.approval.then(|| Value::from(true))),
            ("expires_in_seconds", Some(Value::from(self.expires_in.as_secs()))),
            ("note", self.note.clone().map(Value::from)),
        ])
    }
}

impl TokenCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(new) => create(session, &new.fleet.name, new.device.as_deref(), new.body()).await,
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
