//! `fleetmark authority`.

use clap::Subcommand;
use serde_json::Value;

use super::arguments::{Listing, Why, WhyRevoked, object};
use super::client::Ask;
use super::failure::Failure;
use super::session::Session;
use super::table::Column;

const COLUMNS: [Column; 7] = [
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("FLEET", "fleet"),
    Column("STATE", "state"),
    Column("KEY", "key"),
    Column("ENDS", "not_after"),
    Column("SUBJECT", "subject"),
];
const USE: [&str; 3] = ["good", "unconfirmed", "suspended"];
const FIRST: [&str; 6] = ["id", "kind", "fleet", "state", "key", "subject"];

/// `fleetmark authority`
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// List authorities
    List(Listing),
    /// Show an authority
    Show {
        /// Its id
        id: u32,
    },
    /// Count the certificates of an authority that are in use
    Use {
        /// Its id
        id: u32,
    },
    /// Prepare a successor: trusted from now on, issues nothing yet
    Prepare {
        /// What it is to issue for: root, device, gateway, service or operator
        kind: String,
        /// The one fleet, of a device authority
        #[arg(long)]
        fleet: Option<String>,
        /// Its key's: p256, p384 or ed25519; as the profile says unless given
        #[arg(long)]
        algorithm: Option<String>,
        /// Of a root: here, or elsewhere on a machine of its own; as that of the root before unless given
        #[arg(long, value_parser = ["here", "elsewhere"])]
        key: Option<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Have a prepared authority issue from now on; the one that did is tainted
    Activate {
        /// Its id
        id: u32,
        #[command(flatten)]
        why: Why,
    },
    /// Have an authority issue no more; what the ledger holds of it stays trusted
    Taint {
        /// Its id
        id: u32,
        /// Although nothing issues in its place
        #[arg(long)]
        emergency: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Trust an authority no more, nor anything of it
    Revoke {
        /// Its id
        id: u32,
        /// Although certificates of it are in use; of a root: with the authorities that it issued
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        why: WhyRevoked,
    },
}

impl AuthorityCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(listing) => session.list(Ask::path(&["v1", "authorities"]), listing, &COLUMNS).await,
            Self::Show { id } => session.show(&["v1", "authorities", &id.to_string()], &FIRST).await,
            Self::Use { id } => session.show(&["v1", "authorities", &id.to_string(), "use"], &USE).await,
            Self::Prepare { kind, fleet, algorithm, key, why } => {
                let body = object([
                    ("kind", Some(Value::from(kind))),
                    ("fleet", fleet.map(Value::from)),
                    ("algorithm", algorithm.map(Value::from)),
                    ("key", key.map(Value::from)),
                    ("note", why.note.map(Value::from)),
                ]);
                let answer = session.client.post(Ask::path(&["v1", "authorities"]).body(body)).await?;
                session.print_record(&answer, &FIRST)
            }
            Self::Activate { id, why } => act(session, id, "activate", why.body()).await,
            Self::Taint { id, emergency, why } => {
                let emergency = emergency.then_some(Value::Bool(true));
                act(session, id, "taint", object([("emergency", emergency), ("note", why.note.map(Value::from))])).await
            }
            Self::Revoke { id, force, why: WhyRevoked { reason, why } } => {
                let body = object([
                    ("force", force.then_some(Value::Bool(true))),
                    ("reason", reason.map(Value::from)),
                    ("note", why.note.map(Value::from)),
                ]);
                act(session, id, "revoke", body).await
            }
        }
    }
}

async fn act(session: &Session, id: u32, act: &str, body: Value) -> Result<(), Failure> {
    let answer = session.client.post(Ask::path(&["v1", "authorities", &id.to_string(), act]).body(body)).await?;
    session.print_record(&answer, &FIRST)
}
