//! `fleetmark policy`. `check`, `schema` and `test --file` need no server: the same code decides here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use fleetmark_domain::{LedgerName, Role};
use fleetmark_policy::{DEFAULT_INSTALLATION, MAX_TEXT, Policies, SCHEMA, Set};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::arguments::{Listing, Why, object, pair};
use super::client::Ask;
use super::failure::Failure;
use super::files::{open, unreadable};
use super::session::{Session, print, print_json};
use super::table::Column;
use crate::http::admin::wire::{PolicyAnswer, PolicyCheck, PolicyQuestion};
use crate::telemetry::clock::{Clock as _, SystemClock};

const COLUMNS: [Column; 5] = [
    Column("VERSION", "version"),
    Column("ACTIVE", "active"),
    Column("PUT", "created_at"),
    Column("BY", "created_by"),
    Column("NOTE", "note"),
];
const FIRST: [&str; 5] = ["scope", "version", "changed", "activated_at", "by"];

/// `fleetmark policy`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say what is wrong with a policy set; needs no server
    Check {
        /// The set, in Cedar; `-` reads standard input
        file: PathBuf,
    },
    /// Print the schema that sets are checked against; needs no server
    Schema,
    /// Print the set that counts, or a version
    Show {
        #[command(flatten)]
        scope: Scope,
        /// Which version; the one that counts, unless given
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// List the sets that were put
    Versions {
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        listing: Listing,
    },
    /// Put a set and make it count, or go back to an earlier version
    Activate {
        /// The set, in Cedar; `-` reads standard input
        #[arg(required_unless_present = "version", conflicts_with = "version")]
        file: Option<PathBuf>,
        /// A version that was put before
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        why: Why,
    },
    /// Ask what the policies say of one act
    Test(Box<Question>),
}

/// Whose policies.
#[derive(Debug, Clone, Args)]
pub struct Scope {
    /// A fleet, or `system` for the installation's policies
    #[arg(long = "scope", value_name = "SCOPE", default_value = "default")]
    name: LedgerName,
}

/// A question.
#[derive(Debug, Args)]
pub struct Question {
    /// Who, such as `spiffe://fleet.example/device/default/sensor-01`
    #[arg(long, value_name = "SPIFFE-ID")]
    principal: String,
    /// What: Enroll, Renew, Connect, Publish, Subscribe, Command, or an act at the admin door
    #[arg(long)]
    action: String,
    /// To which topic, or topic filter
    #[arg(long)]
    topic: Option<String>,
    /// What its certificate is worth [default: good]
    #[arg(long)]
    standing: Option<String>,
    /// An operator's role
    #[arg(long)]
    role: Option<Role>,
    /// What its record says; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// What it speaks, such as mqtt
    #[arg(long)]
    protocol: Option<String>,
    /// The version of its firmware
    #[arg(long)]
    firmware: Option<String>,
    /// The address that it comes from
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// When, in RFC 3339 [default: now]
    #[arg(long, value_parser = instant)]
    time: Option<OffsetDateTime>,
    /// Ask this set, beside the built-in one of the other scope, without a server; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    scope: Scope,
}

impl PolicyCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, profile: Option<&Path>, json: bool) -> Result<(), Failure> {
        let session = || Session::open(profile, json);
        match self {
            Self::Check { file } => check(&file, json),
            Self::Schema => print(SCHEMA),
            Self::Show { scope, version } => show(&session()?, scope.name.as_str(), version).await,
            Self::Versions { scope, listing } => {
                session()?.list(Ask::path(&["v1", "policies", scope.name.as_str(), "versions"]), listing, &COLUMNS).await
            }
            Self::Activate { file, version, scope, why } => {
                activate(&session()?, scope.name.as_str(), file.as_deref(), version, &why).await
            }
            Self::Test(question) => question.run(profile, json).await,
        }
    }
}

fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let text = read(file)?;
    let findings = Set::compile(&text).err().unwrap_or_default();
    let count = findings.len();
    if json {
        print_json(&json!(PolicyCheck::from(findings)))?;
    } else if count == 0 {
        print(&format!("{}: nothing is wrong with it.\n", file.display()))?;
    } else {
        let lines: Vec<_> = findings.iter().map(|finding| format!("{}:{finding}\n", file.display())).collect();
        print(&lines.concat())?;
    }
    if count == 0 { Ok(()) } else { Err(Failure::Failed(format!("the policy set has errors: {count}"), None)) }
}

async fn show(session: &Session, scope: &str, version: Option<u64>) -> Result<(), Failure> {
    let number = version.map(|version| version.to_string());
    let mut path = vec!["v1", "policies", scope];
    path.extend(number.iter().flat_map(|number| ["versions", number.as_str()]));
    let shown = session.client.get(Ask::path(&path)).await?.json()?;
    if session.json {
        return print_json(&shown);
    }
    print(shown.get("text").and_then(Value::as_str).unwrap_or_default())
}

/// Reads what counts first: what somebody else activated meanwhile is not overwritten.
async fn activate(session: &Session, scope: &str, file: Option<&Path>, version: Option<u64>, why: &Why) -> Result<(), Failure> {
    let active = session.client.get(Ask::path(&["v1", "policies", scope])).await?;
    let version = match (file, version) {
        (Some(file), _) => put(session, scope, &read(file)?, why).await?,
        (None, Some(version)) => version,
        (None, None) => return Err(Failure::Usage("name a file, or a version".to_owned())),
    };
    let version = version.to_string();
    let path = ["v1", "policies", scope, "versions", &version, "activate"];
    let ask = Ask { if_match: active.etag, ..Ask::path(&path).body(why.body()) };
    session.print_record(&session.client.post(ask).await?, &FIRST)
}

async fn put(session: &Session, scope: &str, text: &str, why: &Why) -> Result<u64, Failure> {
    let body = object([("text", Some(Value::from(text))), ("note", why.note.clone().map(Value::from))]);
    let put = session.client.post(Ask::path(&["v1", "policies", scope, "versions"]).body(body).creates()).await?.json()?;
    let version = put.get("version").and_then(Value::as_u64);
    version.ok_or_else(|| Failure::Failed("the server's answer names no version".to_owned(), None))
}

impl Question {
    async fn run(self, profile: Option<&Path>, json: bool) -> Result<(), Failure> {
        let (scope, file) = (self.scope.name.clone(), self.file.clone());
        let question = self.into_wire()?;
        let answer = match file {
            Some(file) => {
                let policies = beside_built_in(&scope, &read(&file)?)?;
                question.ask(&policies, &scope, SystemClock.now()).map_err(Failure::Usage)?
            }
            None => ask(&Session::open(profile, json)?, &scope, &question).await?,
        };
        if json {
            return print_json(&json!(answer));
        }
        print(&told(&answer))
    }

    fn into_wire(self) -> Result<PolicyQuestion, Failure> {
        let time = self.time.map(|time| json!(time.format(&Rfc3339).unwrap_or_default()));
        Ok(PolicyQuestion {
            principal: self.principal,
            role: self.role,
            standing: self.standing,
            attributes: self.attributes.into_iter().collect::<BTreeMap<_, _>>(),
            action: self.action,
            topic: self.topic,
            protocol: self.protocol,
            firmware: self.firmware,
            source: self.source,
            time: time.map(serde_json::from_value).transpose().map_err(|error| Failure::of(&error))?,
            text: None,
        })
    }
}

async fn ask(session: &Session, scope: &LedgerName, question: &PolicyQuestion) -> Result<PolicyAnswer, Failure> {
    let path = ["v1", "policies", scope.as_str(), "test"];
    let answer = session.client.post(Ask::path(&path).body(json!(question))).await?.json()?;
    serde_json::from_value(answer).map_err(|error| Failure::of(&error))
}

/// The set for its scope, with the built-in one of the other.
fn beside_built_in(scope: &LedgerName, text: &str) -> Result<Policies, Failure> {
    let compiled = |text: &str| {
        Set::compile(text).map(Arc::new).map_err(|findings| {
            let first = findings.first().map(ToString::to_string).unwrap_or_default();
            Failure::Failed(
                format!("the policy set has errors: {first}"),
                Some("Ask `fleetmark policy check FILE` for all of them."),
            )
        })
    };
    Ok(match scope {
        LedgerName::System => Policies { installation: compiled(text)?, fleet: None },
        LedgerName::Fleet(_) => Policies { installation: compiled(DEFAULT_INSTALLATION)?, fleet: Some(compiled(text)?) },
    })
}

fn told(answer: &PolicyAnswer) -> String {
    let mut lines = vec![if answer.allow { "allow".to_owned() } else { "deny".to_owned() }];
    lines.extend(answer.policies.iter().map(|policy| format!("  by {policy}")));
    lines.extend(answer.errors.iter().map(|error| format!("  error: {error}")));
    if !answer.allow && answer.policies.is_empty() && answer.errors.is_empty() {
        lines.push("  no policy permits it".to_owned());
    }
    lines.join("\n") + "\n"
}

fn read(file: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let at = unreadable(file);
    let limit = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text).map_err(at)?;
    } else {
        open(file)?.take(limit).read_to_string(&mut text).map_err(at)?;
    }
    Ok(text)
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "expected a time such as 2026-11-22T08:00:00Z".to_owned())
}
