//! `fleetmark ledger`.
//!
//! - [`wire`]: checkpoints, entries and proofs from the admin door, decoded.
//! - [`verify`]: a whole ledger against its key, its rules, and what was seen before.
//! - [`prove`]: one certificate against the newest checkpoint.
//! - [`restore`]: an operator's word for gateways that a server was restored from a backup.

mod prove;
mod restore;
mod verify;
mod wire;

use std::path::PathBuf;

use clap::Subcommand;
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Entry, Event};
use serde_json::{Value, json};

use super::arguments::Listing;
use super::client::Ask;
use super::failure::Failure;
use super::session::{Session, print, print_json};
use super::table::{Column, table};

const COLUMNS: [Column; 4] =
    [Column("LEDGER", "name"), Column("ENTRIES", "size"), Column("ORIGIN", "origin"), Column("ROOT", "root")];
const ENTRY_COLUMNS: [Column; 6] = [
    Column("POSITION", "position"),
    Column("AT", "at"),
    Column("EVENT", "event"),
    Column("SUBJECT", "subject"),
    Column("BY", "actor"),
    Column("NOTE", "note"),
];

/// `fleetmark ledger`
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// List ledgers
    List(Listing),
    /// Print the newest signed checkpoint
    Checkpoint {
        /// `system` or a fleet's name
        ledger: String,
    },
    /// Show entries
    Entries {
        /// `system` or a fleet's name
        ledger: String,
        /// The first position
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u64,
    },
    /// Verify a ledger from its first entry to its newest checkpoint
    Verify {
        /// `system` or a fleet's name
        #[arg(default_value = "default")]
        ledger: String,
        /// Where to keep what was seen: pins the key, and makes the next run go on from here
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// The ledger's key, known from elsewhere
        #[arg(long, value_name = "VKEY")]
        vkey: Option<String>,
        /// Read all entries again, in spite of --state
        #[arg(long, requires = "state")]
        whole: bool,
    },
    /// Sign your word that the server was restored from a backup, so that gateways go on from its shorter ledger
    AcceptRestore {
        /// `system` or a fleet's name
        ledger: String,
        /// The file to make; without it, standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// A state of `ledger verify`, for the key that it pinned
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// The ledger's key, known from elsewhere
        #[arg(long, value_name = "VKEY", conflicts_with = "state")]
        vkey: Option<String>,
    },
    /// Prove that a certificate's issue is on the ledger
    Prove {
        /// The certificate's serial
        serial: String,
        /// The ledger's key, known from elsewhere
        #[arg(long, value_name = "VKEY")]
        vkey: Option<String>,
    },
}

impl LedgerCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(listing) => session.list(Ask::path(&["v1", "ledgers"]), listing, &COLUMNS).await,
            Self::Checkpoint { ledger } => {
                let note = wire::note(&session.client, &ledger).await?;
                if session.json { print_json(&json!({"ledger": ledger, "checkpoint": note})) } else { print(&note) }
            }
            Self::Entries { ledger, from, limit } => entries(session, &ledger, from, limit).await,
            Self::Verify { ledger, state, vkey, whole } => {
                let how = verify::How { state: state.as_deref(), vkey: vkey.as_deref(), whole };
                verify::run(session, &ledger, &how).await
            }
            Self::AcceptRestore { ledger, out, state, vkey } => {
                let how = restore::How { state: state.as_deref(), vkey: vkey.as_deref(), out: out.as_deref() };
                restore::run(session, &ledger, &how).await
            }
            Self::Prove { serial, vkey } => prove::run(session, &serial, vkey.as_deref()).await,
        }
    }
}

async fn entries(session: &Session, ledger: &str, from: u64, limit: u64) -> Result<(), Failure> {
    let mut items = Vec::new();
    let mut next = from;
    while next < from.saturating_add(limit) {
        let most = (from.saturating_add(limit) - next).min(wire::MAX_ENTRIES);
        let page = wire::raw_entries(&session.client, ledger, next, most).await?;
        let got = u64::try_from(page.len()).unwrap_or(0);
        items.extend(page);
        next += got;
        if got < most {
            break;
        }
    }
    if session.json {
        return print_json(&json!({"items": items}));
    }
    let rows = items.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    print(&table(&ENTRY_COLUMNS, &rows))
}

/// An entry as a row for people.
fn row(item: &Value) -> Result<Value, Failure> {
    let fetched = wire::Fetched::read(item)?;
    let entry = Entry::decode(&fetched.entry).map_err(|error| Failure::of(&error))?;
    let details = fetched.details.as_deref().and_then(|octets| Details::decode(octets).ok());
    let reason = details.as_ref().and_then(|details| details.reason).map(|reason| format!(" ({reason})")).unwrap_or_default();
    Ok(json!({
        "position": fetched.position,
        "at": entry.at,
        "event": told(&entry.event) + &reason,
        "subject": details.as_ref().and_then(|details| details.subject.clone()),
        "actor": details.as_ref().map(|details| details.actor.clone()),
        "note": details.as_ref().and_then(|details| details.note.clone()),
    }))
}

/// An event in a few words.
fn told(event: &Event) -> String {
    match event {
        Event::Opened { .. } => "ledger opened".to_owned(),
        Event::EpochOpened { authority, epoch } => format!("epoch {} opened for authority {authority}", epoch.0),
        Event::AuthorityChanged { authority, state, .. } => format!("authority {authority}: {state:?}").to_lowercase(),
        Event::Registered { subject, kind } => format!("{kind} {subject} registered"),
        Event::Changed { subject } => format!("subject {subject} changed"),
        Event::Issued(issued) => format!("issued {}/{}, {}", issued.epoch.0, issued.index.0, issued.standing.as_str()),
        Event::Confirmed { epoch, index } => format!("confirmed {}/{}", epoch.0, index.0),
        Event::StandingChanged { standing, certificates } => {
            let first = certificates.certificates().next().map(|(epoch, index)| format!("{}/{}", epoch.0, index.0));
            let first = first.unwrap_or_default();
            match certificates.len() {
                1 => format!("{first} {}", standing.as_str()),
                count => format!("{count} certificates from {first} on {}", standing.as_str()),
            }
        }
        Event::PolicyActivated { version, .. } => format!("policy {version} activated"),
        Event::FleetChanged { version } => format!("fleet's rules, version {version}"),
        Event::SnapshotMade { size, .. } => format!("snapshot of {size} entries made"),
        Event::ExternalAuthorityChanged(external) => {
            format!("external authority {}: {}", external.authority, external.state.as_str())
        }
        Event::ExternalAdopted(adopted) => {
            let (place, fingerprint) = (format!("{}/{}", adopted.epoch.0, adopted.index.0), adopted.fingerprint.to_string());
            format!("adopted {place}, certificate {}", fingerprint.get(..16).unwrap_or_default())
        }
        Event::Alarmed { alarm, subject: 0 } => format!("alarm {alarm}"),
        Event::Alarmed { alarm, subject } => format!("alarm {alarm}, subject {subject}"),
    }
}
