//! `fleetmark fleet`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::arguments::{Listing, duration, object};
use super::client::Ask;
use super::failure::Failure;
use super::hooks::HookCommand;
use super::session::Session;
use super::table::Column;
use super::waves::WaveCommand;

const COLUMNS: [Column; 5] = [
    Column("FLEET", "name"),
    Column("STATE", "state"),
    Column("PROFILE", "profile"),
    Column("MAX AGE (S)", "max_age_seconds"),
    Column("CREATED", "created_at"),
];
const ALLOWANCES: [Column; 4] = [
    Column("OPERATOR", "operator"),
    Column("DEVICES", "devices"),
    Column("ALLOWED BY", "allowed_by"),
    Column("UNTIL", "expires_at"),
];
const FIRST: [&str; 3] = ["name", "state", "profile"];

/// `fleetmark fleet`
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// List fleets
    List(Listing),
    /// Show a fleet
    Show {
        /// Its name
        name: String,
    },
    /// Create a fleet with its own authority and ledger
    Create {
        /// Its name: lower case
        name: String,
        #[command(flatten)]
        rules: Rules,
    },
    /// Change a fleet's rules
    Change {
        /// Its name
        name: String,
        /// Whether it takes enrollments
        #[arg(long)]
        state: Option<FleetState>,
        #[command(flatten)]
        rules: Rules,
    },
    /// Have a fleet's devices renew before their time
    #[command(subcommand)]
    RenewalWave(WaveCommand),
    /// Allow another operator to change more devices of a fleet than its blast radius
    Allow(Allowance),
    /// Whom the server asks before it issues
    #[command(subcommand)]
    Hook(HookCommand),
    /// List what operators may change beyond a fleet's blast radius now
    Allowances {
        /// The fleet
        fleet: String,
    },
}

/// An allowance to give.
#[derive(Debug, Args)]
pub struct Allowance {
    /// The fleet
    fleet: String,
    /// Another operator's name
    operator: String,
    /// How many more devices in an hour
    #[arg(long)]
    devices: u64,
    /// For how many hours, at most 24
    #[arg(long, default_value_t = 1)]
    hours: u64,
}

/// Whether a fleet takes enrollments.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FleetState {
    /// It does
    Open,
    /// It does not
    Closed,
}

/// A fleet's rules.
#[derive(Debug, Args)]
pub struct Rules {
    /// The profile of its devices' certificates
    #[arg(long)]
    profile: Option<String>,
    /// How long a certificate may stay unconfirmed, such as 24h; `profile` takes the profile's
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    unconfirmed_ttl: Option<Value>,
    /// Whether revocation lists name superseded certificates
    #[arg(long, value_name = "BOOL")]
    list_superseded: Option<bool>,
    /// Whether revocation lists name quarantined certificates
    #[arg(long, value_name = "BOOL")]
    list_quarantined: Option<bool>,
    /// After how long without news a gateway refuses, such as 15m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_age: Option<Duration>,
    /// How many devices one operator may change in an hour; `default` takes the larger of 10 and 1 %
    #[arg(long, value_name = "DEVICES", value_parser = blast_radius)]
    blast_radius: Option<Value>,
}

impl Rules {
    fn body(&self, name: Option<&str>, state: Option<FleetState>) -> Value {
        let state = state.map(|state| Value::from(if matches!(state, FleetState::Open) { "open" } else { "closed" }));
        object([
            ("name", name.map(Value::from)),
            ("state", state),
            ("profile", self.profile.clone().map(Value::from)),
            ("unconfirmed_ttl_seconds", self.unconfirmed_ttl.clone()),
            ("list_superseded", self.list_superseded.map(Value::from)),
            ("list_quarantined", self.list_quarantined.map(Value::from)),
            ("max_age_seconds", self.max_age.map(|age| Value::from(age.as_secs()))),
            ("blast_radius", self.blast_radius.clone()),
        ])
    }
}

impl FleetCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(listing) => session.list(Ask::path(&["v1", "fleets"]), listing, &COLUMNS).await,
            Self::Show { name } => session.show(&["v1", "fleets", &name], &FIRST).await,
            Self::Create { name, rules } => {
                let ask = Ask::path(&["v1", "fleets"]).body(rules.body(Some(&name), None)).creates();
                session.print_record(&session.client.post(ask).await?, &FIRST)
            }
            Self::Change { name, state, rules } => {
                let changed = session.client.change(&["v1", "fleets", &name], rules.body(None, state)).await?;
                session.print_record(&changed, &FIRST)
            }
            Self::RenewalWave(command) => command.run(session).await,
            Self::Allow(Allowance { fleet, operator, devices, hours }) => {
                let body = object([
                    ("operator", Some(Value::from(operator))),
                    ("devices", Some(Value::from(devices))),
                    ("hours", Some(Value::from(hours))),
                ]);
                let ask = Ask::path(&["v1", "fleets", &fleet, "allowances"]).body(body).creates();
                session.print_record(&session.client.post(ask).await?, &["operator", "devices", "expires_at"])
            }
            Self::Hook(command) => command.run(session).await,
            Self::Allowances { fleet } => {
                let listing = Listing { limit: u32::MAX, all: true };
                session.list(Ask::path(&["v1", "fleets", &fleet, "allowances"]), listing, &ALLOWANCES).await
            }
        }
    }
}

fn blast_radius(text: &str) -> Result<Value, String> {
    if text == "default" {
        return Ok(Value::Null);
    }
    text.parse::<u64>().map(Value::from).map_err(|_| "a number of devices, or `default`".to_owned())
}

fn ttl(text: &str) -> Result<Value, String> {
    if text == "profile" { Ok(Value::Null) } else { duration(text).map(|time| Value::from(time.as_secs())) }
}
