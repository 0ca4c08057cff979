//! `fleetmark operator`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use fleetmark_domain::Role;
use serde_json::Value;

use super::accept::{recover, renew};
use super::arguments::{Listing, WhyRevoked, object};
use super::client::Ask;
use super::failure::Failure;
use super::members::{FIRST, Fleets, Invitation, invite, invited, put_out};
use super::serve::ServerArguments;
use super::session::Session;
use super::table::Column;

const PLURAL: &str = "operators";
const COLUMNS: [Column; 6] = [
    Column("OPERATOR", "name"),
    Column("ROLE", "role"),
    Column("STATE", "state"),
    Column("STANDING", "standing"),
    Column("FLEETS", "fleets"),
    Column("ENDS", "not_after"),
];

/// `fleetmark operator`
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// List operators
    List(Listing),
    /// Show an operator
    Show {
        /// The operator's name
        name: String,
    },
    /// Admit an operator; prints an invitation
    Create {
        /// The operator's name
        name: String,
        /// viewer, operator, security-officer or owner
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        fleets: Fleets,
        #[command(flatten)]
        invitation: Invitation,
    },
    /// Make a fresh invitation
    Invite {
        /// The operator's name
        name: String,
        #[command(flatten)]
        invitation: Invitation,
    },
    /// Change an operator's role or fleets
    Change {
        /// The operator's name
        name: String,
        /// viewer, operator, security-officer or owner
        #[arg(long)]
        role: Option<Role>,
        #[command(flatten)]
        fleets: Fleets,
    },
    /// Put an operator out
    Revoke {
        /// The operator's name
        name: String,
        #[command(flatten)]
        why: WhyRevoked,
    },
    /// Renew the certificate of this profile with a new key
    Renew,
    /// On the server's machine, while it runs: give an operator whose key is lost a new certificate
    Recover {
        /// The operator's name
        name: String,
        /// Where to make the operator's profile; replaces the one that is there
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        server: Box<ServerArguments>,
    },
}

impl OperatorCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, profile: Option<&Path>, json: bool) -> Result<(), Failure> {
        if let Self::Recover { name, dir, server } = &self {
            return recover(name, dir, server, json).await;
        }
        let session = Session::open(profile, json)?;
        match self {
            Self::List(listing) => session.list(Ask::path(&["v1", PLURAL]), listing, &COLUMNS).await,
            Self::Show { name } => session.show(&["v1", PLURAL, &name], &FIRST).await,
            Self::Create { name, role, fleets, invitation } => {
                let body = object([
                    ("name", Some(Value::from(name))),
                    ("role", Some(Value::from(role.as_str()))),
                    ("fleets", Some(fleets.required()?)),
                    ("expires_in_seconds", Some(invitation.value())),
                ]);
                invited(&session, &session.client.post(Ask::path(&["v1", PLURAL]).body(body)).await?)
            }
            Self::Invite { name, invitation } => invite(&session, PLURAL, &name, &invitation).await,
            Self::Change { name, role, fleets } => {
                let body = object([("role", role.map(|role| Value::from(role.as_str()))), ("fleets", fleets.value())]);
                session.print_record(&session.client.change(&["v1", PLURAL, &name], body).await?, &FIRST)
            }
            Self::Revoke { name, why } => put_out(&session, PLURAL, &name, &why).await,
            Self::Renew => renew(&session).await,
            // Taken above: it needs no profile.
            Self::Recover { .. } => Ok(()),
        }
    }
}
