//! `fleetmark gateway` and `fleetmark service`, and what operators have in common with them.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::accept::root_fingerprint;
use super::arguments::{Listing, WhyRevoked, duration, object};
use super::client::{Answer, Ask};
use super::failure::Failure;
use super::session::{Session, print};
use super::table::Column;

const COLUMNS: [Column; 6] = [
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("STANDING", "standing"),
    Column("FLEETS", "fleets"),
    Column("ENDS", "not_after"),
    Column("DNS NAMES", "dns_names"),
];
/// The fields that a member's record shows first.
pub const FIRST: [&str; 5] = ["identity", "name", "state", "role", "standing"];

/// `fleetmark gateway`, `fleetmark service`
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List them
    List(Listing),
    /// Show one
    Show {
        /// Its name
        name: String,
    },
    /// Admit one; prints an invitation
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        fleets: Fleets,
        #[command(flatten)]
        addresses: Addresses,
        #[command(flatten)]
        invitation: Invitation,
    },
    /// Make a fresh invitation
    Invite {
        /// Its name
        name: String,
        #[command(flatten)]
        invitation: Invitation,
    },
    /// Change one's fleets, names or addresses
    Change {
        /// Its name
        name: String,
        #[command(flatten)]
        fleets: Fleets,
        #[command(flatten)]
        addresses: Addresses,
    },
    /// Put one out
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        why: WhyRevoked,
    },
}

/// The fleets granted.
#[derive(Debug, Args)]
pub struct Fleets {
    /// A fleet that it may see; may be repeated
    #[arg(long = "fleet", value_name = "FLEET")]
    fleets: Vec<String>,
    /// All fleets, those to come included
    #[arg(long, conflicts_with = "fleets")]
    all_fleets: bool,
}

/// Names and addresses in the certificate.
#[derive(Debug, Args)]
pub struct Addresses {
    /// A DNS name in its certificate; may be repeated
    #[arg(long = "dns-name", value_name = "NAME")]
    dns_names: Vec<String>,
    /// An IP address in its certificate; may be repeated
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
}

/// An invitation.
#[derive(Debug, Args)]
pub struct Invitation {
    /// For how long the invitation holds, at most 30d
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    expires_in: Duration,
}

impl Fleets {
    /// What stands in the body; None: nothing was said.
    pub fn value(&self) -> Option<Value> {
        if self.all_fleets {
            return Some(Value::Null);
        }
        (!self.fleets.is_empty()).then(|| Value::from(self.fleets.clone()))
    }

    /// What stands in the body of a creation: all or some must be said, since all is much.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn required(&self) -> Result<Value, Failure> {
        self.value()
            .ok_or_else(|| Failure::Usage("say which fleets: --fleet FLEET (may be repeated) or --all-fleets".to_owned()))
    }
}

impl Invitation {
    /// The body's field.
    pub fn value(&self) -> Value {
        Value::from(self.expires_in.as_secs())
    }
}

impl EndpointCommand {
    /// Does it; `plural` is the resource.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session, plural: &str) -> Result<(), Failure> {
        let texts = |list: &[String]| (!list.is_empty()).then(|| Value::from(list.to_vec()));
        let ips = |list: &[IpAddr]| texts(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        match self {
            Self::List(listing) => session.list(Ask::path(&["v1", plural]), listing, &COLUMNS).await,
            Self::Show { name } => session.show(&["v1", plural, &name], &FIRST).await,
            Self::Create { name, fleets, addresses, invitation } => {
                let body = object([
                    ("name", Some(Value::from(name))),
                    ("fleets", Some(fleets.required()?)),
                    ("dns_names", texts(&addresses.dns_names)),
                    ("addresses", ips(&addresses.addresses)),
                    ("expires_in_seconds", Some(invitation.value())),
                ]);
                invited(session, &session.client.post(Ask::path(&["v1", plural]).body(body)).await?)
            }
            Self::Invite { name, invitation } => invite(session, plural, &name, &invitation).await,
            Self::Change { name, fleets, addresses } => {
                let body = object([
                    ("fleets", fleets.value()),
                    ("dns_names", texts(&addresses.dns_names)),
                    ("addresses", ips(&addresses.addresses)),
                ]);
                session.print_record(&session.client.change(&["v1", plural, &name], body).await?, &FIRST)
            }
            Self::Revoke { name, why } => put_out(session, plural, &name, &why).await,
        }
    }
}

/// Makes a fresh invitation.
///
/// # Errors
/// [`Failure`].
pub async fn invite(session: &Session, plural: &str, name: &str, invitation: &Invitation) -> Result<(), Failure> {
    let body = object([("expires_in_seconds", Some(invitation.value()))]);
    invited(session, &session.client.post(Ask::path(&["v1", plural, name, "invite"]).body(body)).await?)
}

/// Puts a member out.
///
/// # Errors
/// [`Failure`].
pub async fn put_out(session: &Session, plural: &str, name: &str, why: &WhyRevoked) -> Result<(), Failure> {
    session.print_record(&session.client.post(Ask::path(&["v1", plural, name, "revoke"]).body(why.body())).await?, &FIRST)
}

/// Prints a member with its invitation, and how to take that up.
///
/// # Errors
/// [`Failure`].
pub fn invited(session: &Session, answer: &Answer) -> Result<(), Failure> {
    session.print_record(answer, &["token", "identity", "name", "role"])?;
    if session.json {
        return Ok(());
    }
    let value = answer.json()?;
    let token = value.get("token").and_then(Value::as_str).unwrap_or("TOKEN");
    let settings = &session.profile.settings;
    let root = root_fingerprint(&session.profile)?;
    let (device_door, admin_door) = (&settings.device_door, &settings.server);
    let command = if value.get("kind").and_then(Value::as_str) == Some("gateway") {
        format!("fleetmark-gateway enroll --server {device_door} --ca-fingerprint {root} --token {token} --dir DIR")
    } else {
        let command = format!("fleetmark accept --server {device_door} --admin {admin_door}");
        format!("{command} --ca-fingerprint {root} --token {token} --dir DIR")
    };
    print(&format!("\nWhere its key shall live:\n  {command}\n"))
}
