//! `fleetmark device`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::arguments::{Listing, Why, WhyRevoked, object, pair};
use super::client::Ask;
use super::failure::Failure;
use super::hardware::HardwareCommand;
use super::imports::ImportArguments;
use super::lifecycle::LifecycleCommand;
use super::session::Session;
use super::table::Column;

const COLUMNS: [Column; 6] = [
    Column("DEVICE", "name"),
    Column("STATE", "state"),
    Column("STANDING", "standing"),
    Column("GENERATION", "generation"),
    Column("ENDS", "not_after"),
    Column("CERTIFICATE", "certificate"),
];
/// What of a device is shown first.
pub const FIRST: [&str; 6] = ["identity", "fleet", "name", "state", "standing", "certificate"];

/// `fleetmark device`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List devices
    List {
        #[command(flatten)]
        fleet: Fleet,
        /// Whose name holds this text
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// In this state
        #[arg(long)]
        state: Option<DeviceState>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a device
    Show(Device),
    /// Register a device before it enrolls
    Register {
        #[command(flatten)]
        device: Device,
        /// What to write down about it; may be repeated
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
        attributes: Vec<(String, String)>,
    },
    /// Register devices in bulk, from a list
    Import(ImportArguments),
    /// Replace what is written down about a device
    Change {
        #[command(flatten)]
        device: Device,
        /// All that is written down from now on; may be repeated
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair, required = true)]
        attributes: Vec<(String, String)>,
    },
    /// Revoke a device's certificates, for ever
    Revoke {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: WhyRevoked,
    },
    /// Suspend a device's certificates
    Hold {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: Why,
    },
    /// Let a suspended device in again
    Release {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: Why,
    },
    /// Put a device out: its certificates are revoked and it gets no other
    Retire {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: WhyRevoked,
    },
    #[command(flatten)]
    Lifecycle(LifecycleCommand),
    /// Which hardware a device is: its TPM
    #[command(subcommand)]
    Hardware(HardwareCommand),
}

/// Which fleet.
#[derive(Debug, Args)]
pub struct Fleet {
    /// The fleet
    #[arg(id = "fleet", long = "fleet", default_value = "default", value_name = "FLEET")]
    pub name: String,
}

/// Which device.
#[derive(Debug, Args)]
pub struct Device {
    /// The device's name
    pub name: String,
    #[command(flatten)]
    fleet: Fleet,
}

/// Where a device is in its life.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DeviceState {
    /// Known; has no confirmed certificate yet
    Registered,
    /// Has, or had, a confirmed certificate
    Active,
    /// Put out
    Retired,
    /// Released for a move into another fleet
    Released,
}

impl DeviceState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Released => "released",
        }
    }
}

impl Device {
    /// Where it is in the API.
    pub fn path(&self) -> [&str; 5] {
        ["v1", "fleets", &self.fleet.name, "devices", &self.name]
    }

    /// An act on it that changes its certificates, or retires it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn act(&self, session: &Session, act: &str, body: Value) -> Result<(), Failure> {
        let [v1, fleets, fleet, devices, name] = self.path();
        let ask = Ask::path(&[v1, fleets, fleet, devices, name, act]).body(body);
        let answer = session.client.post(ask).await?;
        // Who retires a device changes its record; the other acts change certificates.
        if act == "retire" { session.print_record(&answer, &FIRST) } else { session.print_standing(&answer) }
    }
}

impl DeviceCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { fleet, search, state, listing } => {
                let state = state.map(|state| state.as_str().to_owned());
                let path = Ask::path(&["v1", "fleets", &fleet.name, "devices"]);
                session.list(Ask { query: vec![("search", search), ("state", state)], ..path }, listing, &COLUMNS).await
            }
            Self::Show(device) => session.show(&device.path(), &FIRST).await,
            Self::Register { device, attributes } => {
                let path = Ask::path(&["v1", "fleets", &device.fleet.name, "devices"]);
                let ask = path.body(json!({"name": device.name, "attributes": attributes_of(attributes)})).creates();
                session.print_record(&session.client.post(ask).await?, &FIRST)
            }
            Self::Import(arguments) => arguments.run(session).await,
            Self::Change { device, attributes } => {
                let body = object([("attributes", Some(attributes_of(attributes)))]);
                session.print_record(&session.client.change(&device.path(), body).await?, &FIRST)
            }
            Self::Revoke { device, why } => device.act(session, "revoke", why.body()).await,
            Self::Hold { device, why } => device.act(session, "hold", why.body()).await,
            Self::Release { device, why } => device.act(session, "release", why.body()).await,
            Self::Retire { device, why } => device.act(session, "retire", why.body()).await,
            Self::Lifecycle(command) => command.run(session).await,
            Self::Hardware(command) => command.run(session).await,
        }
    }
}

fn attributes_of(attributes: Vec<(String, String)>) -> Value {
    Value::Object(attributes.into_iter().map(|(key, value)| (key, Value::from(value))).collect())
}
