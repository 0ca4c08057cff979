//! Orders: a change of the standing of many certificates at once, and how far it is.

use std::collections::BTreeMap;

use fleetmark_domain::{CertificateEvent, KeyHash, LedgerName, Serial, Standing, Timestamp};
use serde::{Deserialize, Serialize};

use super::{AuthorityId, GroupId, SubjectId, SubjectState};
use crate::store::queries::codes::Coded;

/// An order's id, below 2^63: the second of 1970 in which it was given, and 31 random bits, so that orders ascend in time.
pub type OrderId = u64;

/// Where an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderState {
    /// It runs at its time.
    Scheduled,
    /// It reaches more devices than its operator may change alone; a second one must approve it.
    AwaitingApproval,
    /// It is under way.
    Running,
    /// All of it was done.
    Done,
    /// An operator cancelled it. What was done before stays done.
    Cancelled,
    /// Nobody approved it in time.
    Expired,
    /// When its time came it could not run.
    Failed,
}

impl OrderState {
    /// Whether something may still come of it.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Scheduled | Self::AwaitingApproval | Self::Running)
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
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

/// A change of standing of many certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose certificates: a fleet's devices', or the installation's gateways', services' and operators'.
    pub ledger: LedgerName,
    /// Where it is.
    pub state: OrderState,
    /// What happens to them: held, quarantined, released or revoked.
    pub change: CertificateEvent,
    /// Which.
    pub selector: Selector,
    /// Which, for people.
    pub selection: String,
    /// What the operator wrote.
    pub note: String,
    /// Who ordered it.
    pub ordered_by: SubjectId,
    /// When.
    pub ordered_at: Timestamp,
    /// The second operator.
    pub approved_by: Option<SubjectId>,
    /// When that one approved it.
    pub approved_at: Option<Timestamp>,
    /// Who cancelled it.
    pub cancelled_by: Option<SubjectId>,
    /// Not before this.
    pub runs_at: Timestamp,
    /// Until when it may be approved, where it waits for that.
    pub expires_at: Option<Timestamp>,
    /// How many holders were counted last.
    pub devices: u64,
    /// How many certificates were counted last.
    pub certificates: u64,
    /// How many holders the approval covers; 0 where there is none.
    pub covered: u64,
    /// Whether it goes over the selection for the second time, for what came in between.
    pub sweep: bool,
    /// What of the selection was looked at: certificates up to this place, or so many of a list.
    pub place: u64,
    /// How many certificates were changed.
    pub changed: u64,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed: a refusal's code; empty otherwise.
    pub failure: String,
}

/// Which certificates. What is named was found, and is kept by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// These, by epoch and index.
    Certificates(Vec<u64>),
    /// All of these holders'.
    Subjects(Vec<SubjectId>),
    /// The one of this public key, by epoch and index.
    Key(u64, KeyHash),
    /// Those that all of this holds for.
    Where(Condition),
}

/// Conditions, which hold together; one that is not there is met by all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// The holder came in by one of these groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupId>>,
    /// This authority issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityId>,
    /// The holder's name is like this, without regard to case; `*` stands for any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The holder has these attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The holder is in this state, by code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<i16>,
    /// It is of this standing, by code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<u8>,
    /// It was issued before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<Timestamp>,
    /// It was issued at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_after: Option<Timestamp>,
    /// It ends before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_before: Option<Timestamp>,
}

impl Condition {
    /// With the holder in this state.
    #[must_use]
    pub fn of_state(self, state: Option<SubjectState>) -> Self {
        Self { state: state.map(Coded::code), ..self }
    }
}

/// Which certificates to read.
#[derive(Debug, Clone)]
pub struct Pick {
    /// In this ledger.
    pub ledger: LedgerName,
    /// Of these standings, by code; adopted ones by what we say of them, unless they are revoked.
    pub standings: Vec<u8>,
    /// And of these.
    pub among: Among,
}

/// Among which certificates.
#[derive(Debug, Clone)]
pub enum Among {
    /// These, by epoch and index; at most 1,000.
    Certificates(Vec<u64>),
    /// These holders'; at most 1,000.
    Subjects(Vec<SubjectId>),
    /// All of which this holds.
    Where(Condition),
}

/// What an order must know of a certificate; the certificate itself is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Its serial.
    pub serial: Serial,
    /// Who issued it.
    pub authority: AuthorityId,
    /// Who holds it.
    pub subject: SubjectId,
    /// Which of the holder's.
    pub generation: u32,
    /// What it is worth, without the reason where it is revoked.
    pub standing: Standing,
    /// The holder's newest confirmed generation.
    pub confirmed_generation: u32,
}

/// How much an order reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Certificates that the change applies to.
    pub certificates: u64,
    /// Who hold them.
    pub holders: u64,
}
