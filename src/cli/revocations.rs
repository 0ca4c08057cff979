//! `fleetmark revocation`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use fleetmark_domain::{Fingerprint, Timestamp};
use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value};

use super::arguments::{Listing, Why, object, pair, reason};
use super::client::{Answer, Ask};
use super::failure::Failure;
use super::files;
use super::keys::key_hash;
use super::lifecycle::instant;
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 7] = [
    Column("ORDER", "id"),
    Column("LEDGER", "ledger"),
    Column("ACT", "act"),
    Column("STATE", "state"),
    Column("CHANGED", "changed"),
    Column("OF", "certificates"),
    Column("SELECTION", "selection"),
];
const FIRST: [&str; 8] = ["id", "state", "ledger", "act", "reason", "selection", "certificates", "changed"];
const COUNTED: [&str; 7] = ["ledger", "selection", "devices", "certificates", "needs_approval", "used", "limit"];
/// How often a running order is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The largest list, in octets.
const MAX_LIST: usize = 1 << 20;

/// `fleetmark revocation`
#[derive(Debug, Subcommand)]
pub enum RevocationCommand {
    /// Revoke, hold, quarantine or release many certificates at once
    Order(Box<Order>),
    /// List orders, the newest first
    List {
        /// Of this fleet
        #[arg(long)]
        fleet: Option<String>,
        /// In this state
        #[arg(long)]
        state: Option<State>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an order, and how far it is
    Show {
        /// Its id
        id: String,
        /// Wait until it has ended, or waits for approval or its time
        #[arg(long)]
        wait: bool,
    },
    /// Approve an order that another operator gave
    Approve {
        /// Its id
        id: String,
        /// Do not wait for its end
        #[arg(long)]
        no_wait: bool,
    },
    /// Cancel an order; what was done of it stays done
    Cancel {
        /// Its id
        id: String,
    },
}

/// An order to give.
#[derive(Debug, Args)]
pub struct Order {
    /// What is to happen
    act: Act,
    /// The fleet; not needed with --cert, --key and --authority
    #[arg(long, value_name = "FLEET")]
    fleet: Option<String>,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    query: Query,
    /// A reason of RFC 5280: keyCompromise, cessationOfOperation, superseded, affiliationChanged, privilegeWithdrawn …
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<String>,
    #[command(flatten)]
    why: Why,
    /// Not before this, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = instant)]
    at: Option<Timestamp>,
    /// Count what it would reach, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for its end
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
}

/// What happens to the certificates.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Act {
    /// They end for ever
    Revoke,
    /// They are suspended
    Hold,
    /// Policy decides what their holders may still do
    Quarantine,
    /// Suspension or quarantine ends
    Release,
}

/// Where an order is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum State {
    /// It runs at its time
    Scheduled,
    /// A second operator must approve it
    AwaitingApproval,
    /// It is under way
    Running,
    /// All of it was done
    Done,
    /// It was cancelled
    Cancelled,
    /// Nobody approved it in time
    Expired,
    /// When its time came, whoever ordered it had lost the right to
    Failed,
}

/// Which certificates, but for a query.
#[derive(Debug, Args)]
#[group(id = "selector", multiple = false)]
pub struct Select {
    /// This certificate; may be repeated
    #[arg(long = "cert", value_name = "SERIAL")]
    certs: Vec<String>,
    /// The certificates whose serials a file lists, one a line
    #[arg(long, value_name = "FILE")]
    certs_from: Option<PathBuf>,
    /// This device; may be repeated
    #[arg(long = "device", value_name = "NAME")]
    devices: Vec<String>,
    /// The devices whose names a file lists, one a line
    #[arg(long, value_name = "FILE")]
    devices_from: Option<PathBuf>,
    /// Devices that came in by a group that takes this maker's CA: its certificate in PEM, or the SHA-256 fingerprint of that
    #[arg(long, value_name = "FILE|HEX")]
    maker: Option<String>,
    /// The certificate of this public key: a file in PEM, or SHA-256 over its `SubjectPublicKeyInfo`
    #[arg(long, value_name = "FILE|HEX")]
    key: Option<String>,
    /// All that this authority issued
    #[arg(long, value_name = "ID")]
    authority: Option<u32>,
}

/// Conditions, which hold together.
#[derive(Debug, Args)]
pub struct Query {
    /// Devices that came in by this enrollment group
    #[arg(long, conflicts_with = "selector")]
    group: Option<String>,
    /// Devices whose name is like this, such as 'pump-4*'
    #[arg(long, value_name = "PATTERN", conflicts_with = "selector")]
    name: Option<String>,
    /// Devices with this attribute; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair, conflicts_with = "selector")]
    attributes: Vec<(String, String)>,
    /// Devices in this state: registered, active, released
    #[arg(long, conflicts_with = "selector")]
    state: Option<String>,
    /// Certificates of this standing: unconfirmed, good, superseded, held, quarantined
    #[arg(long, conflicts_with = "selector")]
    standing: Option<String>,
    /// Certificates issued before this
    #[arg(long, value_name = "WHEN", value_parser = instant, conflicts_with = "selector")]
    issued_before: Option<Timestamp>,
    /// Certificates issued at or after this
    #[arg(long, value_name = "WHEN", value_parser = instant, conflicts_with = "selector")]
    issued_after: Option<Timestamp>,
    /// Certificates that end before this
    #[arg(long, value_name = "WHEN", value_parser = instant, conflicts_with = "selector")]
    ends_before: Option<Timestamp>,
    /// All of the fleet
    #[arg(
        long,
        conflicts_with_all = ["selector", "group", "name", "attributes", "state", "standing", "issued_before", "issued_after",
            "ends_before"]
    )]
    everything: bool,
}

impl Act {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Hold => "hold",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
        }
    }
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Failed => "failed",
        }
    }
}

impl RevocationCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`]; also where an order that was waited for did not come to its end.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Order(order) => order.run(session).await,
            Self::List { fleet, state, listing } => {
                let query = vec![("fleet", fleet), ("state", state.map(|state| state.as_str().to_owned()))];
                session.list(Ask { query, ..Ask::path(&["v1", "revocations"]) }, listing, &COLUMNS).await
            }
            Self::Show { id, wait } => {
                let answer = session.client.get(Ask::path(&["v1", "revocations", &id])).await?;
                if wait { follow(session, answer).await } else { session.print_record(&answer, &FIRST) }
            }
            Self::Approve { id, no_wait } => {
                let ask = Ask::path(&["v1", "revocations", &id, "approve"]);
                let answer = session.client.post(ask).await?;
                if no_wait { session.print_record(&answer, &FIRST) } else { follow(session, answer).await }
            }
            Self::Cancel { id } => {
                let answer = session.client.post(Ask::path(&["v1", "revocations", &id, "cancel"])).await?;
                session.print_record(&answer, &FIRST)
            }
        }
    }
}

impl Order {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let body = object([
            ("fleet", self.fleet.map(Value::from)),
            ("act", Some(Value::from(self.act.as_str()))),
            ("reason", self.reason.map(Value::from)),
            ("select", Some(self.select.with(self.query)?)),
            ("note", self.why.note.map(Value::from)),
            ("at", self.at.map(|at| Value::from(at.to_string()))),
        ]);
        if self.dry_run {
            let ask = Ask::path(&["v1", "revocations", "dry-run"]).body(body);
            return session.print_record(&session.client.post(ask).await?, &COUNTED);
        }
        let answer = session.client.post(Ask::path(&["v1", "revocations"]).body(body).creates()).await?;
        if self.no_wait { session.print_record(&answer, &FIRST) } else { follow(session, answer).await }
    }
}

impl Select {
    /// The body's `select`.
    fn with(self, query: Query) -> Result<Value, Failure> {
        let list = |file: Option<PathBuf>, given: Vec<String>| match file {
            Some(file) => lines(&file),
            None => Ok(given),
        };
        let certificates = list(self.certs_from, self.certs)?;
        let devices = list(self.devices_from, self.devices)?;
        let chosen = object([
            ("certificates", (!certificates.is_empty()).then_some(Value::from(certificates))),
            ("devices", (!devices.is_empty()).then_some(Value::from(devices))),
            ("maker", self.maker.map(|maker| maker_of(&maker)).transpose()?.map(Value::from)),
            ("public_key", self.key.map(|key| key_of(&key)).transpose()?.map(Value::from)),
            ("authority", self.authority.map(Value::from)),
        ]);
        if chosen.as_object().is_some_and(|chosen| !chosen.is_empty()) {
            return Ok(chosen);
        }
        let query = query.body();
        match query.as_object().map(|query| (query.len(), query.get("group"))) {
            Some((1, Some(group))) => Ok(object([("group", Some(group.clone()))])),
            Some((0, _)) | None => Err(Failure::Usage("say which certificates: --help lists the ways".to_owned())),
            Some(_) => Ok(object([("query", Some(query))])),
        }
    }
}

impl Query {
    fn body(self) -> Value {
        let text = |when: Timestamp| Value::from(when.to_string());
        let attributes: Map<String, Value> = self.attributes.into_iter().map(|(key, value)| (key, value.into())).collect();
        object([
            ("group", self.group.map(Value::from)),
            ("name", self.name.map(Value::from)),
            ("attributes", (!attributes.is_empty()).then_some(Value::Object(attributes))),
            ("state", self.state.map(Value::from)),
            ("standing", self.standing.map(Value::from)),
            ("issued_before", self.issued_before.map(text)),
            ("issued_after", self.issued_after.map(text)),
            ("ends_before", self.ends_before.map(text)),
            ("everything", self.everything.then_some(Value::from(true))),
        ])
    }
}

/// Lines that are not empty, and no comment.
fn lines(file: &Path) -> Result<Vec<String>, Failure> {
    let text = files::text(file, MAX_LIST)?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    if lines.is_empty() {
        return Err(Failure::Usage(format!("{} lists nothing", file.display())));
    }
    Ok(lines.into_iter().map(str::to_owned).collect())
}

/// A fingerprint, or that of the first certificate of a file.
fn maker_of(text: &str) -> Result<String, Failure> {
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        return Ok(fingerprint.to_string());
    }
    let certificate = CertificateDer::from_pem_slice(&files::read(Path::new(text), MAX_LIST)?);
    let certificate =
        certificate.map_err(|error| Failure::Usage(format!("{text}: no fingerprint, and no certificate: {error}")))?;
    Ok(hex::encode(digest(&SHA256, &certificate)))
}

/// A hash, or that of a file's public key.
fn key_of(text: &str) -> Result<String, Failure> {
    if let Ok(hash) = text.parse::<fleetmark_domain::KeyHash>() {
        return Ok(hash.to_string());
    }
    let pem = files::text(Path::new(text), MAX_LIST)?;
    key_hash(&pem).ok_or_else(|| Failure::Usage(format!("{text} holds no public key in PEM")))
}

/// Looks at an order until it has ended, or waits for something; a bar on a terminal shows how far it is.
async fn follow(session: &Session, answer: Answer) -> Result<(), Failure> {
    let mut answer = answer;
    let bar = if session.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let bar = match ProgressStyle::with_template("{bar:40} {percent:>3} %  {pos}/{len}  {per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    loop {
        let order = answer.json()?;
        let number = |field: &str| order.get(field).and_then(Value::as_u64).unwrap_or(0);
        bar.set_length(number("certificates").max(number("changed")));
        bar.set_position(number("changed"));
        let text = |field: &str| order.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, state) = (text("id"), text("state"));
        if state != "running" {
            bar.finish_and_clear();
            session.print_record(&answer, &FIRST)?;
            return told(session, &id, &state, &text("runs_at"));
        }
        tokio::time::sleep(LOOK).await;
        answer = session.client.get(Ask::path(&["v1", "revocations", &id])).await?;
    }
}

fn told(session: &Session, id: &str, state: &str, runs_at: &str) -> Result<(), Failure> {
    let hint = match state {
        "awaiting_approval" => format!("Another operator must approve it: fleetmark revocation approve {id}\n"),
        "scheduled" => format!("It runs at {runs_at}. Cancel it: fleetmark revocation cancel {id}\n"),
        "done" => return Ok(()),
        state => return Err(Failure::Failed(format!("the order is {state}"), None)),
    };
    if session.json { Ok(()) } else { print(&hint) }
}
