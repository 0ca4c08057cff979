//! `fleetmark external`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use fleetmark_domain::Fingerprint;
use serde_json::{Map, Value, json};

use super::arguments::{Listing, Why, WhyRevoked, object};
use super::client::Ask;
use super::devices::Fleet;
use super::failure::Failure;
use super::files::unreadable;
use super::session::{Session, print, print_json};
use super::table::{Column, table};

const AUTHORITIES: [Column; 4] =
    [Column("AUTHORITY", "name"), Column("STATE", "state"), Column("ID", "id"), Column("CREATED", "created_at")];
const CERTIFICATES: [Column; 5] = [
    Column("IDENTITY", "identity"),
    Column("STANDING", "standing"),
    Column("AUTHORITY", "authority"),
    Column("FINGERPRINT", "fingerprint"),
    Column("NOT AFTER", "not_after"),
];
const IMPORTED: [Column; 3] = [Column("DEVICE", "device"), Column("OUTCOME", "outcome"), Column("FINGERPRINT", "fingerprint")];
const EXPECTED: [Column; 4] = [
    Column("FINGERPRINT", "fingerprint"),
    Column("DEVICE", "device"),
    Column("AUTHORITY", "authority"),
    Column("SINCE", "expected_at"),
];
const FIRST: [&str; 5] = ["name", "fleet", "state", "rules", "failures"];
const FIRST_EXPECTED: [&str; 3] = ["fingerprint", "device", "authority"];
const FIRST_CERTIFICATE: [&str; 5] = ["identity", "standing", "own_standing", "foreign_standing", "authority"];
/// How a PEM certificate ends.
const END: &str = "-----END CERTIFICATE-----";
/// So many certificates one request has at most.
const AT_ONCE: usize = 500;
/// So many lines of fingerprints.
const LINES_AT_ONCE: usize = 5_000;
const AUTHORITY_PATH: &str = "external-authorities";
const CERTIFICATE_PATH: &str = "external-certificates";
const EXPECTED_PATH: &str = "expected-certificates";

/// `fleetmark external`
#[derive(Debug, Subcommand)]
pub enum ExternalCommand {
    /// List a fleet's external authorities
    List {
        #[command(flatten)]
        fleet: Fleet,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an external authority, its lists, and what failed
    Show(Authority),
    /// Make an external authority of another CA's certificates
    Create(Box<Create>),
    /// Change an external authority's CA certificates or rules, all of which must be named; its naming never changes
    Change(Box<Change>),
    /// Take its certificates again
    Enable(Switch),
    /// Take none of its certificates for now
    Disable(Switch),
    /// End it for ever: none of its certificates counts any more
    End(Switch),
    /// Ask it now for what it says of its certificates
    Check(Authority),
    /// Adopt certificates: each becomes an identity of the fleet
    Import {
        #[command(flatten)]
        authority: Authority,
        /// Certificates in PEM, as many as there are
        #[arg(value_name = "FILE", required_unless_present = "fingerprints", conflicts_with = "fingerprints")]
        file: Option<PathBuf>,
        /// Instead: CSV of fingerprint and device; each certificate is adopted when it is first seen
        #[arg(long, value_name = "FILE")]
        fingerprints: Option<PathBuf>,
    },
    /// The certificates that are adopted when they are first seen
    #[command(subcommand)]
    Expected(ExpectedCommand),
    /// The adopted certificates
    #[command(subcommand)]
    Cert(CertificateCommand),
}

/// `fleetmark external expected`
#[derive(Debug, Subcommand)]
pub enum ExpectedCommand {
    /// List them
    List {
        /// Of this external authority alone
        #[arg(long, value_name = "NAME")]
        authority: Option<String>,
        #[command(flatten)]
        fleet: Fleet,
        #[command(flatten)]
        listing: Listing,
    },
    /// Expect one no longer
    Remove(Adopted),
}

/// `fleetmark external cert`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// List adopted certificates
    List {
        /// Of this external authority alone
        #[arg(long, value_name = "NAME")]
        authority: Option<String>,
        #[command(flatten)]
        fleet: Fleet,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one
    Show(Adopted),
    /// Revoke one here, for ever, whatever its authority says
    Revoke {
        #[command(flatten)]
        adopted: Adopted,
        #[command(flatten)]
        why: WhyRevoked,
    },
    /// Suspend one here
    Hold {
        #[command(flatten)]
        adopted: Adopted,
        #[command(flatten)]
        why: Why,
    },
    /// End our suspension of one; its authority's goes on
    Release {
        #[command(flatten)]
        adopted: Adopted,
        #[command(flatten)]
        why: Why,
    },
}

/// Which external authority.
#[derive(Debug, Args)]
pub struct Authority {
    /// The external authority's name
    name: String,
    #[command(flatten)]
    fleet: Fleet,
}

/// Which adopted certificate.
#[derive(Debug, Args)]
pub struct Adopted {
    /// SHA-256 over the certificate, hexadecimal
    fingerprint: Fingerprint,
    #[command(flatten)]
    fleet: Fleet,
}

/// Which one, and why.
#[derive(Debug, Args)]
pub struct Switch {
    #[command(flatten)]
    authority: Authority,
    #[command(flatten)]
    why: Why,
}

/// An external authority to make.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    authority: Authority,
    /// A file of its CA certificates in PEM, 1 to 8: those that issue the devices' certificates
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    #[command(flatten)]
    rules: Rules,
}

/// A change of an external authority.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    authority: Authority,
    /// A file of its CA certificates in PEM, 1 to 8
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    rules: Rules,
}

/// Where a name stands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NameFrom {
    /// The subject's common name
    CommonName,
    /// The subject's serialNumber
    SerialNumber,
    /// The one DNS name
    Dns,
    /// The one URI
    Uri,
    /// The one mail address
    Email,
    /// The serial number of the hardwareModuleName
    HardwareModuleName,
}

/// Which part of it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Part {
    /// All of it
    Whole,
    /// What stands before the first separator
    First,
    /// What stands behind the last one
    Last,
}

/// What is made of it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Form {
    /// The name as it is
    Exact,
    /// In small letters
    Lowercase,
    /// Always a name: other characters become `-`, and a hash follows
    Sanitized,
}

/// How its certificates come to be adopted.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AdoptWhen {
    /// When they are imported
    Import,
    /// Also when one is seen whose fingerprint was imported
    Listed,
    /// Also when one is seen, within limits; takes --crl or --ocsp
    OnSight,
}

/// What happens when its word is past its end.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OnStale {
    /// Its certificates are refused
    Refuse,
    /// They are taken by what was said last
    GoOn,
}

/// What it is asked for.
#[derive(Debug, Args)]
pub struct Rules {
    /// Where in a certificate the device's name stands
    #[arg(long, value_name = "WHERE", default_value = "common-name")]
    name_from: NameFrom,
    /// Which part of it
    #[arg(long, value_name = "PART", default_value = "whole")]
    name_part: Part,
    /// What is made of it
    #[arg(long, value_name = "FORM", default_value = "exact")]
    name_form: Form,
    /// What the value begins with and is cut off
    #[arg(long, value_name = "TEXT", default_value = "")]
    strip_prefix: String,
    /// What the value ends with and is cut off
    #[arg(long, value_name = "TEXT", default_value = "")]
    strip_suffix: String,
    /// Put before the name
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// An extended key usage that certificates must have, as dotted numbers; may be given again
    #[arg(long = "usage", value_name = "OID")]
    usages: Vec<String>,
    /// The URL of a revocation list, http://…; may be given again
    #[arg(long = "crl", value_name = "URL", conflicts_with = "ocsp")]
    lists: Vec<String>,
    /// The URL of an OCSP responder, http://…
    #[arg(long, value_name = "URL")]
    ocsp: Option<String>,
    /// The responder's answers must bring our nonce
    #[arg(long, requires = "ocsp")]
    ocsp_nonce: bool,
    /// What happens when what it says is past its end
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_stale: OnStale,
    /// After how many seconds it is asked again at the latest, 10 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    interval: u32,
    /// How its certificates come to be adopted
    #[arg(long, value_name = "WHEN", default_value = "import")]
    adopt: AdoptWhen,
    /// The most that are adopted on sight within an hour
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    adopt_hourly: u32,
    /// The most that are adopted on sight in all
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
    adopt_most: u32,
}

impl Rules {
    fn body(&self) -> Value {
        let status = match (&self.ocsp, self.lists.is_empty()) {
            (Some(url), _) => json!({"kind": "ocsp", "url": url, "nonce": self.ocsp_nonce}),
            (None, false) => json!({"kind": "crl", "urls": self.lists}),
            (None, true) => json!({"kind": "none"}),
        };
        json!({
            "naming": {
                "from": word(self.name_from),
                "part": word(self.name_part),
                "form": word(self.name_form),
                "strip_prefix": self.strip_prefix,
                "strip_suffix": self.strip_suffix,
                "prefix": self.prefix,
            },
            "usages": self.usages,
            "status": status,
            "on_stale": word(self.on_stale),
            "interval_seconds": self.interval,
            "adopt": {"when": word(self.adopt), "hourly": self.adopt_hourly, "most": self.adopt_most},
        })
    }
}

impl ExternalCommand {
    /// # Errors
    /// [`Failure`].
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { fleet, listing } => {
                let path = ["v1", "fleets", &fleet.name, AUTHORITY_PATH];
                session.list(Ask::path(&path), *listing, &AUTHORITIES).await
            }
            Self::Show(authority) => session.show(&authority.path(), &FIRST).await,
            Self::Create(create) => {
                let body = json!({"name": create.authority.name, "ca": read(&create.ca)?, "rules": create.rules.body()});
                let path = ["v1", "fleets", &create.authority.fleet.name, AUTHORITY_PATH];
                let answer = session.client.post(Ask::path(&path).body(body).creates()).await?;
                session.print_record(&answer, &FIRST)
            }
            Self::Change(change) => {
                let ca = change.ca.as_deref().map(read).transpose()?;
                let body = object([("ca", ca.map(Value::from)), ("rules", Some(change.rules.body()))]);
                let answer = session.client.put(Ask::path(&change.authority.path()).body(body)).await?;
                session.print_record(&answer, &FIRST)
            }
            Self::Enable(switch) => switch.run(session, "enable").await,
            Self::Disable(switch) => switch.run(session, "disable").await,
            Self::End(switch) => switch.run(session, "end").await,
            Self::Check(authority) => {
                let path = [&authority.path()[..], &["check"]].concat();
                let answer = session.client.post(Ask::path(&path).body(json!({}))).await?;
                session.print_record(&answer, &FIRST)
            }
            Self::Import { authority, file, fingerprints } => match (file, fingerprints) {
                (_, Some(list)) => expect(session, authority, list).await,
                (Some(file), None) => import(session, authority, file).await,
                (None, None) => Err(Failure::Failed("name a file of certificates, or --fingerprints".to_owned(), None)),
            },
            Self::Expected(command) => command.run(session).await,
            Self::Cert(command) => command.run(session).await,
        }
    }
}

impl ExpectedCommand {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { authority, fleet, listing } => {
                let path = ["v1", "fleets", &fleet.name, EXPECTED_PATH];
                let query = vec![("authority", authority.clone())];
                session.list(Ask { query, ..Ask::path(&path) }, *listing, &EXPECTED).await
            }
            Self::Remove(adopted) => {
                let fingerprint = adopted.fingerprint.to_string();
                let path = ["v1", "fleets", &adopted.fleet.name, EXPECTED_PATH, &fingerprint];
                let removed = session.client.delete(Ask::path(&path)).await?;
                session.print_record(&removed, &FIRST_EXPECTED)
            }
        }
    }
}

impl CertificateCommand {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { authority, fleet, listing } => {
                let path = ["v1", "fleets", &fleet.name, CERTIFICATE_PATH];
                let query = vec![("authority", authority.clone())];
                session.list(Ask { query, ..Ask::path(&path) }, *listing, &CERTIFICATES).await
            }
            Self::Show(adopted) => {
                let fingerprint = adopted.fingerprint.to_string();
                let path = ["v1", "fleets", &adopted.fleet.name, CERTIFICATE_PATH, &fingerprint];
                session.show(&path, &FIRST_CERTIFICATE).await
            }
            Self::Revoke { adopted, why } => adopted.act(session, "revoke", why.body()).await,
            Self::Hold { adopted, why } => adopted.act(session, "hold", why.body()).await,
            Self::Release { adopted, why } => adopted.act(session, "release", why.body()).await,
        }
    }
}

impl Authority {
    fn path(&self) -> [&str; 5] {
        ["v1", "fleets", &self.fleet.name, AUTHORITY_PATH, &self.name]
    }
}

impl Adopted {
    async fn act(&self, session: &Session, act: &str, body: Value) -> Result<(), Failure> {
        let fingerprint = self.fingerprint.to_string();
        let path = ["v1", "fleets", &self.fleet.name, CERTIFICATE_PATH, &fingerprint, act];
        let answer = session.client.post(Ask::path(&path).body(body)).await?;
        session.print_standing(&answer)
    }
}

impl Switch {
    async fn run(&self, session: &Session, act: &str) -> Result<(), Failure> {
        let path = [&self.authority.path()[..], &[act]].concat();
        let answer = session.client.post(Ask::path(&path).body(self.why.body())).await?;
        session.print_record(&answer, &FIRST)
    }
}

/// Sends a file's certificates, so many at a time; what was adopted before is told and harms nothing.
async fn import(session: &Session, authority: &Authority, file: &Path) -> Result<(), Failure> {
    let text = read(file)?;
    let certificates: Vec<&str> = text.split_inclusive(END).filter(|part| part.contains(END)).collect();
    if certificates.is_empty() {
        return Err(Failure::Failed(format!("{}: there is no certificate in PEM in it", file.display()), None));
    }
    let parts = certificates.chunks(AT_ONCE).map(<[&str]>::concat).collect();
    send(session, authority, (CERTIFICATE_PATH, "application/x-pem-file", "adopted"), parts).await
}

/// The same with fingerprints.
async fn expect(session: &Session, authority: &Authority, file: &Path) -> Result<(), Failure> {
    let text = read(file)?;
    let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(Failure::Failed(format!("{}: there is no fingerprint in it", file.display()), None));
    }
    let parts = lines.chunks(LINES_AT_ONCE).map(<[&str]>::concat).collect();
    send(session, authority, (EXPECTED_PATH, "text/csv", "expected"), parts).await
}

/// Sends the parts of a file one after the other; `counted`: what those are called that were taken.
async fn send(
    session: &Session,
    authority: &Authority,
    (to, media, counted): (&str, &'static str, &str),
    parts: Vec<String>,
) -> Result<(), Failure> {
    let mut items = Vec::new();
    let mut totals = Map::new();
    for part in parts {
        let path = ["v1", "fleets", &authority.fleet.name, to];
        let ask = Ask { query: vec![("authority", Some(authority.name.clone()))], ..Ask::path(&path) };
        let answer = session.client.upload(ask, media, part.into_bytes()).await?.json()?;
        for field in [counted, "known", "refused"] {
            let before = totals.get(field).and_then(Value::as_u64).unwrap_or(0);
            totals.insert(field.to_owned(), (before + answer.get(field).and_then(Value::as_u64).unwrap_or(0)).into());
        }
        items.extend(answer.get("certificates").and_then(Value::as_array).cloned().unwrap_or_default());
    }
    if session.json {
        totals.insert("certificates".to_owned(), items.into());
        return print_json(&totals.into());
    }
    print(&table(&IMPORTED, &items))?;
    let total = |field: &str| totals.get(field).and_then(Value::as_u64).unwrap_or(0);
    print(&format!("{} {counted}, {} known before, {} refused.\n", total(counted), total("known"), total("refused")))
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(unreadable(file))
}

/// The word of an option, as the API has it too.
#[expect(clippy::needless_pass_by_value, reason = "options are words, and copied")]
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
