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

const FIRST: [&str; 4] = ["issued_before", "from", "until", "note"];

/// `fleetmark fleet renewal-wave`
#[derive(Debug, Subcommand)]
pub enum WaveCommand {
    /// Have devices renew before their time, spread over a window
    Start(Start),
    /// Show the wave that was started
    Show {
        /// The fleet
        fleet: String,
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
    #[arg(long, value_name = "TIME", value_parser = duration)]
    over: Duration,
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
            Self::Start(Start { fleet, over, from, issued_before, why }) => {
                let text = |when: Timestamp| Value::from(when.to_string());
                let begin = from.unwrap_or_else(|| SystemClock.now());
                let body = object([
                    ("from", from.map(text)),
                    ("until", Some(text(begin + over))),
                    ("issued_before", issued_before.map(text)),
                    ("note", why.note.map(Value::from)),
                ]);
                session.print_record(&session.client.put(Ask::path(&path(&fleet)).body(body)).await?, &FIRST)
            }
            Self::Show { fleet } => session.show(&path(&fleet), &FIRST).await,
            Self::Stop { fleet } => session.print_record(&session.client.delete(Ask::path(&path(&fleet))).await?, &FIRST),
        }
    }
}

fn path(fleet: &str) -> [&str; 4] {
    ["v1", "fleets", fleet, "renewal-wave"]
}
