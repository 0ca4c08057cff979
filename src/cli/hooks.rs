//! `fleetmark fleet hook`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::arguments::object;
use super::client::Ask;
use super::failure::Failure;
use super::files::unreadable;
use super::session::Session;

const FIRST: [&str; 3] = ["url", "secret", "version"];

/// `fleetmark fleet hook`
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Set whom the server asks before it issues; a new secret is shown this once
    Set(Settings),
    /// Show a fleet's hook, without its secret
    Show {
        /// The fleet
        fleet: String,
    },
    /// Remove a fleet's hook
    Remove {
        /// The fleet
        fleet: String,
    },
    /// Ask a fleet's hook without being about any device, and show what came back
    Test {
        /// The fleet
        fleet: String,
    },
}

/// A hook's settings.
#[derive(Debug, Args)]
pub struct Settings {
    /// The fleet
    fleet: String,
    /// Where: https://…
    #[arg(long)]
    url: String,
    /// A file with the root certificates in PEM that its server is verified against; the server's machine's unless given
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Leave the secret as it is
    #[arg(long)]
    keep_secret: bool,
}

impl HookCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Set(Settings { fleet, url, roots, keep_secret }) => {
                let roots = roots.map(|file| std::fs::read_to_string(&file).map_err(unreadable(&file)));
                let body = object([
                    ("url", Some(Value::from(url))),
                    ("roots", roots.transpose()?.map(Value::from)),
                    ("keep_secret", keep_secret.then_some(Value::from(true))),
                ]);
                let set = session.client.put(Ask::path(&["v1", "fleets", &fleet, "hook"]).body(body)).await?;
                session.print_record(&set, &FIRST)
            }
            Self::Show { fleet } => session.show(&["v1", "fleets", &fleet, "hook"], &FIRST).await,
            Self::Remove { fleet } => {
                let removed = session.client.delete(Ask::path(&["v1", "fleets", &fleet, "hook"])).await?;
                session.print_record(&removed, &FIRST)
            }
            Self::Test { fleet } => {
                let trial = session.client.post(Ask::path(&["v1", "fleets", &fleet, "hook", "test"])).await?;
                session.print_record(&trial, &["usable", "outcome", "detail"])
            }
        }
    }
}
