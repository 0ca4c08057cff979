//! `fleetmark fleet`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::arguments::{Listing, duration, object};
use super::client::Ask;
use super::failure::Failure;
use super::session::Session;
use super::table::Column;

const COLUMNS: [Column; 5] = [
    Column("FLEET", "name"),
    Column("STATE", "state"),
    Column("PROFILE", "profile"),
    Column("MAX AGE (S)", "max_age_seconds"),
    Column("CREATED", "created_at"),
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
        }
    }
}

fn ttl(text: &str) -> Result<Value, String> {
    if text == "profile" { Ok(Value::Null) } else { duration(text).map(|time| Value::from(time.as_secs())) }
}
