//! One question, in Fleetmark's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetmark_domain::{Action, FleetName, Identity, Role, Standing, Timestamp};

/// Who asks.
#[derive(Debug, Clone)]
pub struct Principal<'a> {
    /// The identity of its certificate.
    pub identity: &'a Identity,
    /// What its certificate is worth; of a device without one, `Unconfirmed`. Whether an unconfirmed one has lapsed is the
    /// caller's to judge before it asks.
    pub standing: Standing,
    /// What its record says; the policies' tags. The attribute `group` puts a device into a `Group`.
    pub attributes: &'a BTreeMap<String, String>,
    /// An operator's role.
    pub role: Option<Role>,
}

/// What it wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Get a first certificate.
    Enroll,
    /// Get the next one.
    Renew,
    /// Open a connection through a gateway.
    Connect,
    /// Send to a topic.
    Publish,
    /// Receive from a topic.
    Subscribe,
    /// Send a command to a device.
    Command,
    /// An operator's act at the admin door.
    Admin(Action),
}

impl Act {
    /// Every act.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = [Self::Enroll, Self::Renew, Self::Connect, Self::Publish, Self::Subscribe, Self::Command];
        own.into_iter().chain(Action::ALL.into_iter().map(Self::Admin))
    }

    /// The name of the action in the schema, `Action::"…"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "Enroll",
            Self::Renew => "Renew",
            Self::Connect => "Connect",
            Self::Publish => "Publish",
            Self::Subscribe => "Subscribe",
            Self::Command => "Command",
            Self::Admin(action) => action.as_str(),
        }
    }
}

impl std::str::FromStr for Act {
    type Err = UnknownAct;

    fn from_str(text: &str) -> Result<Self, UnknownAct> {
        Self::all().find(|act| act.as_str() == text).ok_or(UnknownAct)
    }
}

/// The text is the name of no action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an action is Enroll, Renew, Connect, Publish, Subscribe, Command or an admin act such as Read")]
pub struct UnknownAct;

/// To what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// A fleet.
    Fleet(&'a FleetName),
    /// The installation.
    Installation,
    /// A topic or topic filter; its levels are parted by `/`.
    Topic(&'a str),
}

/// Under which circumstances.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// Now.
    pub time: Timestamp,
    /// The peer's address. An IPv4 address inside an IPv6 one is taken as IPv4.
    pub source: Option<IpAddr>,
    /// `mqtt`, `https`, …: what the gateway was told that it speaks.
    pub protocol: Option<&'a str>,
    /// The device's firmware version, where it is known.
    pub firmware: Option<&'a str>,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who.
    pub principal: Principal<'a>,
    /// What.
    pub act: Act,
    /// To what.
    pub resource: Resource<'a>,
    /// Under which circumstances.
    pub context: Context<'a>,
}
