//! `fleetmark fleet renewal-wave`.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleetmark_domain::Timestamp;
use serde_json::Value;

use super::arguments::{Why, duration, object};
use super::client::Ask;
use super::failure::Failure;
use super::lifecycle::instant;
use super::session::Session;
use crate::telemetry::clock::{Clock as _, SystemClock};

const FIRST: [&str; 9] =
    ["waiting", "renewed", "unconfirmed", "suspended", "from", "until", "devices_per_hour", "paused_at", "note"];

/// `fleetmark fleet renewal-wave`
#[derive(Debug, Subcommand)]
pub enum WaveCommand {
    /// Have devices renew before their time, spread over a window
    Start(Start),
    /// Show the wave that was started, and how far it is
    Show {
        /// The fleet
        fleet: String,
    },
    /// Ask nobody else to renew, until the wave goes on
    Pause {
        /// The fleet
        fleet: String,
        #[command(flatten)]
        why: Why,
    },
    /// Let the wave go on where it was
    Resume {
        /// The fleet
        fleet: String,
        #[command(flatten)]
        why: Why,
    },
    /// End the wave; what was renewed stays renewed
    Stop {
        /// The fleet
        fleet: String,
    },
}

/// A wave to start.
#[derive(Debug, Args)]
pub struct Start {
    /// The fleet
    fleet: String,
    /// How long the window is, such as 3d
    #[arg(long, value_name = "TIME", value_parser = duration, required_unless_present = "rate")]
    over: Option<Duration>,
    /// In place of that: how many devices an hour
    #[arg(long, value_name = "DEVICES", conflicts_with = "over")]
    rate: Option<u64>,
    /// Move every device whose certificate is of an authority that issues no more
    #[arg(long, conflicts_with = "issued_before")]
    to_active_authority: bool,
    /// When it begins, such as 2027-01-31T00:00:00Z; now unless given
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    from: Option<Timestamp>,
    /// Certificates issued before this renew; now unless given
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    issued_before: Option<Timestamp>,
    #[command(flatten)]
    why: Why,
}

impl WaveCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Start(Start { fleet, over, rate, to_active_authority, from, issued_before, why }) => {
                let text = |when: Timestamp| Value::from(when.to_string());
                let begin = from.unwrap_or_else(|| SystemClock.now());
                let body = object([
                    ("from", from.map(text)),
                    ("until", over.map(|over| text(begin + over))),
                    ("devices_per_hour", rate.map(Value::from)),
                    ("to_active_authority", to_active_authority.then_some(Value::Bool(true))),
                    ("issued_before", issued_before.map(text)),
                    ("note", why.note.map(Value::from)),
                ]);
                session.print_record(&session.client.put(Ask::path(&path(&fleet)).body(body)).await?, &FIRST)
            }
            Self::Show { fleet } => session.show(&path(&fleet), &FIRST).await,
            Self::Pause { fleet, why } => act(session, &fleet, "pause", &why).await,
            Self::Resume { fleet, why } => act(session, &fleet, "resume", &why).await,
            Self::Stop { fleet } => session.print_record(&session.client.delete(Ask::path(&path(&fleet))).await?, &FIRST),
        }
    }
}

async fn act(session: &Session, fleet: &str, act: &str, why: &Why) -> Result<(), Failure> {
    let path = ["v1", "fleets", fleet, "renewal-wave", act];
    session.print_record(&session.client.post(Ask::path(&path).body(why.body())).await?, &FIRST)
}

fn path(fleet: &str) -> [&str; 4] {
    ["v1", "fleets", fleet, "renewal-wave"]
}
