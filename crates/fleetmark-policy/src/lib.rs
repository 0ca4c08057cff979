//! Policy: Cedar sets, their schema, checks, slices and decisions; the same code at server and gateway. No I/O, no clock.
//!
//! Two sets count for every question: the installation's and the fleet's. Default deny; forbid wins over permit.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fleetmark_domain::{Action, FleetName, Identity, Role, Standing, Timestamp};

/// The Cedar schema that every set is checked against; published at `GET /v1/policy/schema`.
pub const SCHEMA: &str = "";
/// The set that a new fleet begins with.
pub const DEFAULT_FLEET: &str = "";
/// The set that an installation begins with; operators' rights are in it.
pub const DEFAULT_INSTALLATION: &str = "";
/// The longest set, in octets of UTF-8.
pub const MAX_TEXT: usize = 256 * 1024;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Principal<'a> {
    /// The identity of its certificate.
    pub identity: &'a Identity,
    /// What its certificate is worth.
    pub standing: Standing,
    /// What its record says.
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
    /// The peer's address.
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

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allow: bool,
    /// The ids of the policies that decided, `installation/…` or `fleet/…`; none when nothing permitted.
    pub policies: Vec<Arc<str>>,
    /// What went wrong in evaluation; then the answer is no.
    pub errors: Vec<String>,
    /// Whether a policy that was looked at speaks of the time: such an answer is not kept.
    pub timed: bool,
}

/// One thing that is wrong with a set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Line, from 1; 0 where it is about the whole.
    pub line: usize,
    /// Column, from 1; 0 where it is about the whole.
    pub column: usize,
    /// The policy's id, where it is about one.
    pub policy: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// A policy set that was parsed, checked against the schema and sliced by action.
#[derive(Debug)]
pub struct Set {}

impl Set {
    /// Parses and checks a set.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(_text: &str) -> Result<Self, Vec<Finding>> {
        todo!()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        todo!()
    }

    /// SHA-256 over its text: what the ledger's entry holds.
    pub fn hash(&self) -> [u8; 32] {
        todo!()
    }

    /// The ids of its policies: the annotation `@id("…")`, or `policy0`, `policy1` … in the order of the text.
    pub fn ids(&self) -> Vec<String> {
        todo!()
    }
}

/// The sets that count for one fleet, or for the installation alone.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The installation's.
    pub installation: Arc<Set>,
    /// The fleet's.
    pub fleet: Option<Arc<Set>>,
}

impl Policies {
    /// Decides. Never panics; an error in evaluation is a no.
    pub fn decide(&self, _request: &Request<'_>) -> Decision {
        todo!()
    }
}
