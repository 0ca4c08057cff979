//! What enrollment keeps beside subjects and tokens: groups, listed serials, hardware, requests for approval, blocked keys.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetmark_domain::{FleetName, KeyHash, Name, Terms, Timestamp};
use serde::{Deserialize, Serialize};

use super::SubjectId;

/// An enrollment group's id: a random number below 2^63.
pub type GroupId = u64;

/// By what proof the devices of an enrollment group come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProof {
    /// A maker's certificate, IEEE 802.1AR IDevID.
    Maker,
    /// A claim certificate that a batch shares.
    Claim,
    /// A key derived from the group's key and the device's name.
    DerivedKey,
    /// None but a person's approval.
    Approval,
}

/// Whether an enrollment group lets devices in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// It does.
    Enabled,
    /// Not now.
    Disabled,
    /// Never again; its claim certificates are revoked. Certificates of its devices stay.
    Ended,
}

/// Where a maker's certificate holds the device's serial number (IEEE 802.1AR 8.6, 8.10.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialFrom {
    /// The subject's serialNumber attribute (RFC 5280 4.1.2.4).
    #[default]
    SubjectSerialNumber,
    /// hwSerialNum of a hardwareModuleName (RFC 4108 5) in the subjectAltName, as text or in hexadecimal.
    HardwareModuleName,
    /// The subject's common name.
    CommonName,
}

/// How a maker's serial number becomes a device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameMapping {
    /// As it is; one that is no name is refused.
    #[default]
    Exact,
    /// Each run of other characters becomes one `-`, ends are trimmed, and the first 8 hexadecimal digits of SHA-256 over the serial
    /// number follow, so that two serial numbers never become one name.
    Sanitized,
    /// The device says its name itself, within the terms.
    Requested,
}

/// What an enrollment group asks, beside its proof.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupRules {
    /// Names, networks, window, quota, approval.
    pub terms: Terms,
    /// Only serials that are listed (`enrollment_serials`) come in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub listed_only: bool,
    /// Of a maker's group: where the serial number stands.
    pub serial_from: SerialFrom,
    /// Of a maker's group: how it becomes a name.
    pub mapping: NameMapping,
    /// Put before the name, where the mapping makes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// More devices in an hour than this raise an alarm; they are let in all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm_per_hour: Option<u64>,
    /// Attributes that its devices get.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// An enrollment group: a way in that many devices share.
#[derive(Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its fleet.
    pub fleet: FleetName,
    /// Its name, unique in the fleet without regard to case.
    pub name: Name,
    /// By what its devices come in.
    pub proof: GroupProof,
    /// Whether it lets devices in.
    pub state: GroupState,
    /// What it asks beside the proof.
    pub rules: GroupRules,
    /// Of a maker: its CA certificates in DER, one after the other. Of a derived key: the group's key, encrypted.
    pub material: Vec<u8>,
    /// Of a claim: the key of its newest claim certificate.
    pub key_hash: Option<KeyHash>,
    /// How many devices came in.
    pub admitted: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: SubjectId,
    /// Rises with every change by an operator; the entity tag (RFC 9110 8.8.3).
    pub version: u64,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("fleet", &self.fleet)
            .field("name", &self.name)
            .field("proof", &self.proof)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A serial that a group admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSerial {
    /// The maker's serial number, 1 to 128 characters, as it stands in the certificate, or as the device says it.
    pub serial: String,
    /// The name under which it enrolls; None: as the group's mapping says.
    pub device: Option<Name>,
}

/// SHA-256 over what a piece of hardware proved to be.
pub type HardwareId = [u8; 32];

/// What a [`HardwareId`] is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HardwareSource {
    /// The public key (`SubjectPublicKeyInfo`) of a maker's certificate.
    MakerKey,
    /// The public key (`SubjectPublicKeyInfo`) of a TPM's endorsement key.
    EndorsementKey,
    /// Group id and device name, of a derived key.
    DerivedKey,
}

/// Which hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// What it proves to be.
    pub id: HardwareId,
    /// The device.
    pub subject: SubjectId,
    /// What the id is of.
    pub source: HardwareSource,
    /// Since when.
    pub since: Timestamp,
}

/// Where a request for approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestState {
    /// Not decided.
    Waiting,
    /// The same request will succeed.
    Approved,
    /// It will not.
    Refused,
    /// It has its certificate.
    Done,
}

/// A request that a person decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// A random number below 2^63.
    pub id: u64,
    /// In this fleet.
    pub fleet: FleetName,
    /// The device's name.
    pub name: Name,
    /// Its key. Fleet, name and key are the request: another key is another request.
    pub key_hash: KeyHash,
    /// Where it is.
    pub state: RequestState,
    /// By what proof it came: `token 0123…`, `group NAME`.
    pub proof: String,
    /// From where, where that is known.
    pub source: Option<IpAddr>,
    /// The key's algorithm.
    pub key_type: String,
    /// Why it was refused, or what the operator wrote.
    pub reason: String,
    /// When it came first.
    pub asked_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// By whom.
    pub decided_by: Option<SubjectId>,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}

/// A public key that nobody gets a certificate for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedKey {
    /// SHA-256 over its `SubjectPublicKeyInfo`.
    pub key_hash: KeyHash,
    /// What the operator wrote.
    pub reason: String,
    /// When.
    pub blocked_at: Timestamp,
    /// By whom.
    pub blocked_by: SubjectId,
}
