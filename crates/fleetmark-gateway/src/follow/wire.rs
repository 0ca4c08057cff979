//! The feed's JSON, as docs/feed.md gives it. Unknown fields are passed over: a newer server may say more.

use std::collections::BTreeMap;

use fleetmark_domain::{Fingerprint, Serial, Timestamp, TrustDomain};
use serde::{Deserialize, Serialize};

/// `GET /v1/ledgers`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Ledgers {
    pub(crate) server_time: Timestamp,
    pub(crate) trust_domain: TrustDomain,
    #[serde(rename = "ledgers")]
    pub(crate) offered: Vec<Offered>,
}

/// One ledger that this gateway may follow.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Offered {
    pub(crate) ledger: String,
    /// Verifier key of C2SP signed-note.
    pub(crate) key: String,
    /// Seconds.
    pub(crate) max_age: u64,
}

/// `event: checkpoint`.
#[derive(Debug, Deserialize)]
pub(crate) struct CheckpointEvent {
    pub(crate) ledger: String,
    pub(crate) checkpoint: String,
}

/// `event: entry`.
#[derive(Debug, Deserialize)]
pub(crate) struct EntryEvent {
    pub(crate) ledger: String,
    pub(crate) position: u64,
    /// Base64 of the entry's CBOR.
    pub(crate) entry: String,
}

/// `event: resync`.
#[derive(Debug, Deserialize)]
pub(crate) struct ResyncEvent {
    pub(crate) ledger: String,
}

/// `GET …/attributes`.
#[derive(Debug, Deserialize)]
pub(crate) struct AttributesPage {
    pub(crate) subjects: Vec<SubjectAttributes>,
    pub(crate) next: Option<u64>,
}

/// One device's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubjectAttributes {
    pub(crate) subject: u64,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// `POST …/external-sightings`.
#[derive(Debug, Serialize)]
pub(crate) struct ReportAbroad {
    /// DER in base64.
    pub(crate) certificates: Vec<String>,
}

/// What became of them.
#[derive(Debug, Deserialize)]
pub(crate) struct JudgedAbroad {
    pub(crate) certificates: Vec<Outcome>,
}

/// What became of one.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) fingerprint: String,
    pub(crate) outcome: String,
}

/// `POST …/sightings`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) sightings: Vec<Seen>,
}

/// One sighting.
#[derive(Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) serial: String,
    pub(crate) fingerprint: String,
}

impl Seen {
    pub(crate) fn new(serial: Serial, fingerprint: [u8; 32]) -> Self {
        Self { serial: serial.to_string(), fingerprint: Fingerprint(fingerprint).to_string() }
    }
}
