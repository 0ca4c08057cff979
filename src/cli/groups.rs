//! `fleetmark group`.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use fleetmark_device::DeviceKey;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::arguments::{Listing, WhyRevoked, pair};
use super::client::Ask;
use super::derive::DeriveArguments;
use super::devices::Fleet;
use super::failure::Failure;
use super::files;
use super::session::{Session, print};
use super::table::Column;
use crate::config::profile::write_durably;

const COLUMNS: [Column; 5] = [
    Column("GROUP", "name"),
    Column("PROOF", "proof"),
    Column("STATE", "state"),
    Column("ADMITTED", "admitted"),
    Column("CREATED", "created_at"),
];
const SERIALS: [Column; 2] = [Column("SERIAL", "serial"), Column("DEVICE", "device")];
const FIRST: [&str; 6] = ["name", "fleet", "proof", "state", "admitted", "key"];
/// The largest file that is read, in octets.
const MAX_FILE: usize = 16 * 1024 * 1024;
/// The longest key of a group, in octets.
const MAX_KEY: usize = 64;

/// `fleetmark group`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List enrollment groups
    List {
        #[command(flatten)]
        fleet: Fleet,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an enrollment group
    Show(Group),
    /// Create an enrollment group
    Create(Box<Create>),
    /// Change an enrollment group's rules; what is not named stays
    Change(Box<Change>),
    /// Let devices in by a group
    Enable(Group),
    /// Let no devices in by a group for now
    Disable(Group),
    /// End a group for ever: its claim certificate is revoked; devices that came in by it stay
    End {
        #[command(flatten)]
        group: Group,
        #[command(flatten)]
        why: WhyRevoked,
    },
    /// The serials that a group admits
    #[command(subcommand)]
    Serials(SerialsCommand),
    /// Derive devices' keys from a group's key, for the factory; asks no server
    Derive(DeriveArguments),
    /// Make a key here, and have it certified as the claim certificate that a batch of devices shares
    Claim {
        #[command(flatten)]
        group: Group,
        /// Where to put claim.key, claim.pem and ca.pem; a key that lies there is used again
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Revoke the claim certificate that still holds
        #[arg(long)]
        replace: bool,
    },
}

/// `fleetmark group serials`
#[derive(Debug, Subcommand)]
pub enum SerialsCommand {
    /// List the serials
    List {
        #[command(flatten)]
        group: Group,
        #[command(flatten)]
        listing: Listing,
    },
    /// Replace the list by a file's
    Put {
        #[command(flatten)]
        group: Group,
        /// Lines `serial,device` (the device may be left out), or of a *.jsonl file JSON; at most 100,000
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Keep the serials that the file does not list
        #[arg(long)]
        keep: bool,
    },
    /// Take one serial off the list
    Remove {
        #[command(flatten)]
        group: Group,
        /// The serial
        serial: String,
    },
}

/// Which group.
#[derive(Debug, Args)]
pub struct Group {
    /// The group's name
    name: String,
    #[command(flatten)]
    fleet: Fleet,
}

/// A group to create.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    group: Group,
    /// By what its devices come in
    #[arg(long)]
    proof: Proof,
    /// Of a maker: a file of its CA certificates in PEM, 1 to 8
    #[arg(long, value_name = "FILE", required_if_eq("proof", "maker"))]
    ca: Option<PathBuf>,
    /// Of derived keys: a file of the group's key, 32 to 64 octets; the server makes one unless given
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    rules: Rules,
}

/// A change of a group.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    group: Group,
    /// Of a maker: a file of its CA certificates in PEM, all of them anew
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    rules: Rules,
}

/// By what the devices of a group come in.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Proof {
    /// A maker's certificate (IDevID)
    Maker,
    /// A claim certificate that a batch shares
    Claim,
    /// A key derived from the group's key and the device's name
    DerivedKey,
    /// A person's approval
    Approval,
}

/// What a group asks. `none` takes a rule away.
#[derive(Debug, Args)]
pub struct Rules {
    /// How many devices may come in, or `none`
    #[arg(long, value_name = "N", value_parser = number)]
    quota: Option<Value>,
    /// A pattern of names, such as `cam-*`; may be repeated; `none` for any name
    #[arg(long = "names", value_name = "PATTERN")]
    names: Vec<String>,
    /// A source network, such as 10.0.0.0/8; may be repeated; `none` for any
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    /// From when on, such as 2026-01-31T00:00:00Z, or `none`
    #[arg(long, value_name = "TIME", value_parser = word)]
    opens_at: Option<Value>,
    /// Until when, or `none`
    #[arg(long, value_name = "TIME", value_parser = word)]
    closes_at: Option<Value>,
    /// Whether a person approves each device
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    approval: Option<bool>,
    /// Whether only devices whose serial is listed come in
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    listed_only: Option<bool>,
    /// Of a maker: where its certificate holds the serial number
    #[arg(long)]
    serial_from: Option<SerialFrom>,
    /// Of a maker: how the serial number becomes a name
    #[arg(long)]
    mapping: Option<Mapping>,
    /// Of a maker: put before a name that the mapping makes
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// More devices in an hour raise an alarm, or `none`
    #[arg(long, value_name = "N", value_parser = number)]
    alarm_per_hour: Option<Value>,
    /// An attribute of the devices that the group registers; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
}

/// Where a maker's certificate holds the serial number.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SerialFrom {
    /// The subject's serialNumber
    SubjectSerialNumber,
    /// hwSerialNum of a hardwareModuleName
    HardwareModuleName,
    /// The subject's common name
    CommonName,
}

/// How a maker's serial number becomes a name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Mapping {
    /// As it is
    Exact,
    /// With `-` for what a name cannot hold, and 8 digits of its hash
    Sanitized,
    /// The device says its name itself
    Requested,
}

impl Rules {
    fn body(self) -> Value {
        let list = |items: Vec<String>| match items.as_slice() {
            [] => None,
            [none] if none == "none" => Some(Value::Array(Vec::new())),
            _ => Some(Value::from(items)),
        };
        let attributes: Map<_, _> = self.attributes.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        let fields = [
            ("quota", self.quota),
            ("names", list(self.names)),
            ("networks", list(self.networks)),
            ("opens_at", self.opens_at),
            ("closes_at", self.closes_at),
            ("approval", self.approval.map(Value::from)),
            ("listed_only", self.listed_only.map(Value::from)),
            ("serial_from", self.serial_from.map(|from| choice(&from))),
            ("mapping", self.mapping.map(|mapping| choice(&mapping))),
            ("prefix", self.prefix.map(Value::from)),
            ("alarm_per_hour", self.alarm_per_hour),
            ("attributes", (!attributes.is_empty()).then_some(Value::Object(attributes))),
        ];
        super::arguments::object(fields)
    }
}

impl Group {
    fn path(&self) -> [&str; 5] {
        ["v1", "fleets", &self.fleet.name, "groups", &self.name]
    }

    fn ask<'a>(&'a self, more: &[&'a str]) -> Ask<'a> {
        Ask::path(&[self.path().as_slice(), more].concat())
    }
}

impl GroupCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { fleet, listing } => {
                session.list(Ask::path(&["v1", "fleets", &fleet.name, "groups"]), listing, &COLUMNS).await
            }
            Self::Show(group) => session.show(&group.path(), &FIRST).await,
            Self::Create(create) => create.run(session).await,
            Self::Change(change) => {
                let Change { group, ca, rules } = *change;
                let mut body = Map::from_iter([("rules".to_owned(), rules.body())]);
                if let Some(ca) = ca {
                    body.insert("ca".to_owned(), files::text(&ca, MAX_FILE)?.into());
                }
                session.print_record(&session.client.change(&group.path(), Value::Object(body)).await?, &FIRST)
            }
            Self::Enable(group) => act(session, &group, "enable", json!({})).await,
            Self::Disable(group) => act(session, &group, "disable", json!({})).await,
            Self::End { group, why } => act(session, &group, "end", why.body()).await,
            Self::Derive(arguments) => arguments.run(session.json),
            Self::Serials(command) => command.run(session).await,
            Self::Claim { group, out, replace } => claim(session, &group, &out, replace).await,
        }
    }
}

async fn act(session: &Session, group: &Group, act: &str, body: Value) -> Result<(), Failure> {
    session.print_record(&session.client.post(group.ask(&[act]).body(body)).await?, &FIRST)
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { group, proof, ca, key_file, rules } = self;
        let mut body = Map::from_iter([
            ("name".to_owned(), group.name.clone().into()),
            ("proof".to_owned(), choice(&proof)),
            ("rules".to_owned(), rules.body()),
        ]);
        if let Some(ca) = ca {
            body.insert("ca".to_owned(), files::text(&ca, MAX_FILE)?.into());
        }
        if let Some(file) = key_file {
            let key = Zeroizing::new(files::read(&file, MAX_KEY)?);
            body.insert("key".to_owned(), STANDARD.encode(&*key).into());
        }
        let ask = Ask::path(&["v1", "fleets", &group.fleet.name, "groups"]).body(Value::Object(body)).creates();
        session.print_record(&session.client.post(ask).await?, &FIRST)
    }
}

impl SerialsCommand {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { group, listing } => session.list(group.ask(&["serials"]), listing, &SERIALS).await,
            Self::Put { group, file, keep } => {
                let is_json = file.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
                let media_type = if is_json { "application/x-ndjson" } else { "text/csv" };
                let query = vec![("keep", keep.then(|| "true".to_owned()))];
                let ask = Ask { query, ..group.ask(&["serials"]) };
                let changed = session.client.put_octets(ask, media_type, files::read(&file, MAX_FILE)?).await?;
                session.print_record(&changed, &["listed", "removed"])
            }
            Self::Remove { group, serial } => {
                let changed = session.client.delete(group.ask(&["serials", &serial])).await?;
                session.print_record(&changed, &["listed", "removed"])
            }
        }
    }
}

/// The key is kept before the request is sent: one whose answer was lost is repeated with it, and gets the same certificate.
async fn claim(session: &Session, group: &Group, directory: &Path, replace: bool) -> Result<(), Failure> {
    let at = |name: &str| directory.join(name);
    let failed = |path: &Path, error: &std::io::Error| Failure::Failed(format!("{}: {error}", path.display()), None);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(directory, &error)),
        _ => {}
    }
    let path = at("claim.key");
    let key = match fs::read_to_string(&path) {
        Ok(pem) => DeviceKey::from_pem(&Zeroizing::new(pem))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = DeviceKey::generate()?;
            write_durably(&path, key.expose_pem().as_bytes(), 0o600)?;
            key
        }
        Err(error) => return Err(failed(&path, &error)),
    };
    let body = json!({"csr": key.request(None)?, "replace": replace});
    let answer = session.client.post(group.ask(&["claims"]).body(body)).await?;
    let value = answer.json()?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    write_durably(&at("claim.pem"), field("certificate").as_bytes(), 0o644)?;
    write_durably(&at("ca.pem"), field("trust_bundle").as_bytes(), 0o644)?;
    if session.json {
        return session.print_record(&answer, &[]);
    }
    print(&format!(
        "claim.key (secret), claim.pem and ca.pem are in {}. Certificate {} holds until {}.\n",
        directory.display(),
        field("serial"),
        field("not_after"),
    ))
}

/// A choice as the API writes it.
fn choice(value: &impl ValueEnum) -> Value {
    value.to_possible_value().map_or(Value::Null, |value| value.get_name().into())
}

fn number(text: &str) -> Result<Value, String> {
    if text == "none" {
        return Ok(Value::Null);
    }
    text.parse::<u64>().map(Value::from).map_err(|_| "a number, or `none`".to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "a parser of clap's")]
fn word(text: &str) -> Result<Value, String> {
    Ok(if text == "none" { Value::Null } else { text.into() })
}
