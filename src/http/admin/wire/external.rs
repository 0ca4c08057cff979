//! Other authorities of fleets, and the certificates of theirs that were adopted.

use fleetmark_domain::{Fingerprint, FleetName, Name, RevocationReason, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::admin::schema;

/// How the device of a certificate is called. It never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalNaming {
    /// Where in the certificate the name stands.
    #[schema(value_type = schema::NameSource)]
    pub from: fleetmark_domain::NameSource,
    /// What the value begins with and is cut off.
    #[schema(max_length = 128)]
    pub strip_prefix: String,
    /// What the value ends with and is cut off.
    #[schema(max_length = 128)]
    pub strip_suffix: String,
    /// Which part of what is left.
    #[schema(value_type = schema::NamePart)]
    pub part: fleetmark_domain::NamePart,
    /// What is made of that part.
    #[schema(value_type = schema::NameForm)]
    pub form: fleetmark_domain::NameForm,
    /// Put before it.
    #[schema(max_length = 40)]
    pub prefix: String,
}

/// Where an external authority says what its certificates are worth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ExternalStatus {
    /// Nowhere: only what we say counts.
    #[default]
    None,
    /// In revocation lists; together they hold all that is revoked.
    Crl {
        /// `http://…`, from 1 to 8.
        #[schema(min_items = 1, max_items = 8)]
        urls: Vec<String>,
    },
    /// In answers of this OCSP responder, one for each certificate.
    Ocsp {
        /// `http://…`
        url: String,
        /// Whether an answer must bring the question's nonce (RFC 9654).
        #[serde(default)]
        nonce: bool,
    },
}

/// What happens when that is past its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalOnStale {
    /// Certificates are refused until there is news.
    #[default]
    Refuse,
    /// They are taken by what was said last.
    GoOn,
}

/// How certificates come to be adopted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalAdoptWhen {
    /// An operator imports them.
    #[default]
    Import,
    /// Also when one is seen whose fingerprint was given before.
    Listed,
    /// Also when one is seen; takes a status.
    OnSight,
}

/// How certificates come to be adopted, and how many without an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalAdopting {
    /// How.
    pub when: ExternalAdoptWhen,
    /// The most that are adopted on sight within an hour; 100 unless given.
    #[schema(minimum = 1, maximum = 100_000)]
    pub hourly: Option<u32>,
    /// The most that are adopted on sight in all; 1,000 unless given.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub most: Option<u32>,
}

/// What an external authority is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalRules {
    /// How the devices are called.
    pub naming: ExternalNaming,
    /// Extended key usages that a certificate must have, as dotted numbers.
    #[schema(max_items = 8)]
    pub usages: Vec<String>,
    /// Where the certificates' status comes from.
    pub status: ExternalStatus,
    /// What happens when that is past its end.
    pub on_stale: ExternalOnStale,
    /// After how many seconds it is asked again at the latest; 3,600 unless given.
    #[schema(minimum = 10, maximum = 86_400)]
    pub interval_seconds: Option<u32>,
    /// How its certificates come to be adopted.
    pub adopt: ExternalAdopting,
}

/// An external authority to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExternalAuthority {
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: String,
    /// 1 to 8 CA certificates in PEM: those that issue the devices' certificates.
    pub ca: String,
    /// What it is asked for.
    #[serde(default)]
    pub rules: ExternalRules,
}

/// Rules and CA certificates anew; what is not there stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAuthorityChange {
    /// 1 to 8 CA certificates in PEM.
    #[serde(default)]
    pub ca: Option<String>,
    /// What it is asked for; the naming must be the same.
    #[serde(default)]
    pub rules: Option<ExternalRules>,
}

/// Whether an external authority's certificates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExternalState {
    /// They do.
    Active,
    /// What it says of them is past its end: not now.
    Stale,
    /// Not now, an operator said.
    Disabled,
    /// Never again.
    Ended,
}

/// An external authority.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalAuthority {
    /// Its id in the ledger.
    pub id: u32,
    /// Its name.
    #[schema(value_type = schema::Name)]
    pub name: Name,
    /// Its fleet.
    #[schema(value_type = schema::FleetName)]
    pub fleet: FleetName,
    /// Whether its certificates count.
    pub state: ExternalState,
    /// What it is asked for.
    pub rules: ExternalRules,
    /// What the ledger has of rules and CA certificates: SHA-256, hexadecimal.
    #[schema(value_type = schema::Fingerprint)]
    pub rules_hash: String,
    /// Its CA certificates.
    pub ca: Vec<super::MakerCertificate>,
    /// The newest revocation lists.
    pub lists: Vec<ExternalList>,
    /// What failed when it was asked last.
    pub failures: Vec<ExternalFailure>,
    /// How many certificates were adopted on sight.
    pub adopted_on_sight: u32,
    /// When it was made.
    #[schema(value_type = schema::Time)]
    pub created_at: Timestamp,
    /// Rises with every change.
    pub version: u64,
}

/// A revocation list of an external authority.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalList {
    /// Where it was fetched.
    pub url: String,
    /// Its CRLNumber, hexadecimal.
    pub number: String,
    /// When it was made.
    #[schema(value_type = schema::Time)]
    pub this_update: Timestamp,
    /// Until when it holds.
    #[schema(value_type = schema::Time)]
    pub next_update: Timestamp,
    /// When it was fetched, or found unchanged.
    #[schema(value_type = schema::Time)]
    pub fetched_at: Timestamp,
}

/// Something that failed when an external authority was asked.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalFailure {
    /// Where.
    pub url: String,
    /// What was wrong.
    pub what: String,
    /// When.
    #[schema(value_type = schema::Time)]
    pub at: Timestamp,
}

/// What became of an import of certificates.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalImport {
    /// How many count from now on.
    pub adopted: usize,
    /// How many were adopted before.
    pub known: usize,
    /// How many were refused.
    pub refused: usize,
    /// Each of them, in the order in which they came.
    pub certificates: Vec<ImportedCertificate>,
}

/// What became of one certificate.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImportedCertificate {
    /// SHA-256 over it.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// The device that it names, or must name.
    #[schema(value_type = Option<schema::Name>)]
    pub device: Option<Name>,
    /// `adopted`, `expected`, `known`, or the name of the refusal.
    pub outcome: String,
}

/// What became of a list of fingerprints.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalExpectation {
    /// How many are expected now.
    pub expected: usize,
    /// How many were adopted before.
    pub known: usize,
    /// How many were refused.
    pub refused: usize,
    /// Each of them, in the order in which they came.
    pub certificates: Vec<ImportedCertificate>,
}

/// A certificate of another authority that is adopted when it is first seen.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExpectedCertificate {
    /// SHA-256 over it.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// Its external authority.
    #[schema(value_type = schema::Name)]
    pub authority: Name,
    /// The device that it must name.
    #[schema(value_type = Option<schema::Name>)]
    pub device: Option<Name>,
    /// Since when it is expected.
    #[schema(value_type = schema::Time)]
    pub expected_at: Timestamp,
}

/// An adopted certificate of another authority.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExternalCertificate {
    /// SHA-256 over it.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// Its external authority.
    #[schema(value_type = schema::Name)]
    pub authority: Name,
    /// The serial number that its authority gave it, hexadecimal.
    pub foreign_serial: String,
    /// Under which it is here: in `/v1/certificates/{serial}`.
    #[schema(value_type = schema::Serial)]
    pub serial: String,
    /// Its holder's SPIFFE ID.
    pub identity: String,
    /// What it is worth: the worse of the two that follow.
    #[schema(value_type = schema::Standing)]
    pub standing: String,
    /// What we say.
    #[schema(value_type = schema::Standing)]
    pub own_standing: String,
    /// What its authority says.
    #[schema(value_type = schema::Standing)]
    pub foreign_standing: String,
    /// Why it was revoked.
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// Which of its holder's certificates, from 1.
    pub generation: u32,
    /// Start of validity.
    #[schema(value_type = schema::Time)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
    /// When it was adopted.
    #[schema(value_type = schema::Time)]
    pub adopted_at: Timestamp,
    /// The position of the entry that adopted it, in the fleet's ledger.
    pub position: u64,
}
