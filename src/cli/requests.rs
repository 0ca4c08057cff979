//! `fleetmark request`.

use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use super::arguments::{Listing, object};
use super::client::Ask;
use super::devices::Fleet;
use super::failure::Failure;
use super::session::Session;
use super::table::Column;

const COLUMNS: [Column; 6] = [
    Column("REQUEST", "id"),
    Column("DEVICE", "device"),
    Column("STATE", "state"),
    Column("PROOF", "proof"),
    Column("FROM", "source"),
    Column("SINCE", "asked_at"),
];
const FIRST: [&str; 6] = ["device", "key_sha256", "key_type", "proof", "source", "asked_at"];

/// `fleetmark request`
#[derive(Debug, Subcommand)]
pub enum RequestCommand {
    /// List requests that a person decides
    List {
        #[command(flatten)]
        fleet: Fleet,
        /// In this state
        #[arg(long, default_value = "waiting")]
        state: State,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a request; compare `key_sha256` with what the device shows
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        fleet: Fleet,
    },
    /// Approve a request; those of other keys under the same name are refused
    Approve {
        /// Its id
        id: String,
        #[command(flatten)]
        fleet: Fleet,
        /// For people
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Refuse a request
    Refuse {
        /// Its id
        id: String,
        #[command(flatten)]
        fleet: Fleet,
        /// Why; whoever holds the key is told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Refuse it even where it was approved, as long as it has no certificate
        #[arg(long)]
        take_back: bool,
    },
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Not decided
    Waiting,
    /// Approved, and without a certificate yet
    Approved,
    /// Refused
    Refused,
    /// It has its certificate
    Done,
    /// Whatever its state
    Any,
}

impl State {
    const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Waiting => Some("waiting"),
            Self::Approved => Some("approved"),
            Self::Refused => Some("refused"),
            Self::Done => Some("done"),
            Self::Any => None,
        }
    }
}

impl RequestCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { fleet, state, listing } => {
                let query = vec![("state", state.as_str().map(str::to_owned))];
                let ask = Ask { query, ..Ask::path(&["v1", "fleets", &fleet.name, "requests"]) };
                session.list(ask, listing, &COLUMNS).await
            }
            Self::Show { id, fleet } => session.show(&["v1", "fleets", &fleet.name, "requests", &id], &FIRST).await,
            Self::Approve { id, fleet, note } => {
                let body = object([("note", note.map(Value::from))]);
                decide(session, &fleet.name, &id, "approve", body).await
            }
            Self::Refuse { id, fleet, reason, take_back } => {
                let take_back = take_back.then_some(Value::from(true));
                let body = object([("reason", reason.map(Value::from)), ("take_back", take_back)]);
                decide(session, &fleet.name, &id, "refuse", body).await
            }
        }
    }
}

async fn decide(session: &Session, fleet: &str, id: &str, act: &str, body: Value) -> Result<(), Failure> {
    let decided = session.client.post(Ask::path(&["v1", "fleets", fleet, "requests", id, act]).body(body)).await?;
    session.print_record(&decided, &["device", "state", "key_sha256", "reason"])
}
