//! `fleetmark authority`.

use clap::Subcommand;

use super::arguments::Listing;
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
        }
    }
}
