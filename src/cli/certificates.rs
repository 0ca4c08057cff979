//! `fleetmark cert`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::arguments::{Listing, Why, WhyRevoked, duration};
use super::client::Ask;
use super::failure::Failure;
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 5] = [
    Column("SERIAL", "serial"),
    Column("IDENTITY", "identity"),
    Column("STANDING", "standing"),
    Column("GENERATION", "generation"),
    Column("ENDS", "not_after"),
];
const FIRST: [&str; 5] = ["serial", "identity", "standing", "not_before", "not_after"];

/// `fleetmark cert`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// List certificates
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        listing: Listing,
    },
    /// List certificates that end soon
    Expiring {
        /// How soon, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30d")]
        within: Duration,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a certificate's record
    Show {
        /// Its serial
        serial: String,
    },
    /// Print a certificate in PEM
    Pem {
        /// Its serial
        serial: String,
    },
    /// Revoke a certificate, for ever
    Revoke {
        /// Its serial
        serial: String,
        #[command(flatten)]
        why: WhyRevoked,
    },
    /// Suspend a certificate
    Hold {
        /// Its serial
        serial: String,
        #[command(flatten)]
        why: Why,
    },
    /// Release a suspended certificate
    Release {
        /// Its serial
        serial: String,
        #[command(flatten)]
        why: Why,
    },
}

/// Which certificates. All conditions hold together.
#[derive(Debug, Args)]
pub struct Filter {
    /// Of this fleet
    #[arg(long)]
    fleet: Option<String>,
    /// Of this kind: device, gateway, service, operator
    #[arg(long)]
    kind: Option<String>,
    /// Of this standing: unconfirmed, good, superseded, held, quarantined, revoked
    #[arg(long)]
    standing: Option<String>,
    /// Of this holder, by SPIFFE ID
    #[arg(long, value_name = "IDENTITY")]
    subject: Option<String>,
    /// With this SHA-256 fingerprint
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
}

impl Filter {
    async fn list(self, session: &Session, within: Option<Duration>, listing: Listing) -> Result<(), Failure> {
        let query = vec![
            ("fleet", self.fleet),
            ("kind", self.kind),
            ("standing", self.standing),
            ("subject", self.subject),
            ("fingerprint", self.fingerprint),
            ("expiring_within_seconds", within.map(|time| time.as_secs().to_string())),
        ];
        session.list(Ask { query, ..Ask::path(&["v1", "certificates"]) }, listing, &COLUMNS).await
    }
}

impl CertificateCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { filter, listing } => filter.list(session, None, listing).await,
            Self::Expiring { within, filter, listing } => filter.list(session, Some(within), listing).await,
            Self::Show { serial } => session.show(&["v1", "certificates", &serial], &FIRST).await,
            Self::Pem { serial } => {
                let answer = session.client.get(Ask::path(&["v1", "certificates", &serial, "pem"])).await?;
                print(&String::from_utf8_lossy(&answer.body))
            }
            Self::Revoke { serial, why } => act(session, &serial, "revoke", why.body()).await,
            Self::Hold { serial, why } => act(session, &serial, "hold", why.body()).await,
            Self::Release { serial, why } => act(session, &serial, "release", why.body()).await,
        }
    }
}

async fn act(session: &Session, serial: &str, act: &str, body: Value) -> Result<(), Failure> {
    let ask = Ask::path(&["v1", "certificates", serial, act]).body(body);
    session.print_standing(&session.client.post(ask).await?)
}
