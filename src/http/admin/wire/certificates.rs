//! Certificates, changes of standing, authorities.

use fleetmark_domain::{Fingerprint, FleetName, Kind, RevocationReason, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::admin::schema;

/// Why something is revoked or put out.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// A reason of RFC 5280 5.3.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// Why something is held or released.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Remark {
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// What a change of standing did. A repeat changes nothing and succeeds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StandingChange {
    /// How many certificates changed.
    pub changed: usize,
    /// Which, as they are now.
    pub certificates: Vec<CertificateStanding>,
    /// The ledger where it is written.
    pub ledger: String,
    /// The entry's position; null where nothing changed.
    pub position: Option<u64>,
}

/// A certificate and what it is worth.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CertificateStanding {
    /// Which.
    #[schema(value_type = schema::Serial)]
    pub serial: String,
    /// What it is worth.
    #[schema(value_type = schema::Standing)]
    pub standing: String,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// Its serial.
    #[schema(value_type = schema::Serial)]
    pub serial: String,
    /// SHA-256 over it.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// The id of the authority that issued it.
    pub authority: u32,
    /// Its holder's SPIFFE ID; null: the installation itself.
    pub identity: Option<String>,
    /// Its holder's kind.
    #[schema(value_type = Option<schema::Kind>)]
    pub kind: Option<Kind>,
    /// Its holder's fleet.
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// Which of its holder's certificates, from 1; 0 for the installation's own.
    pub generation: u32,
    /// What it is worth.
    #[schema(value_type = schema::Standing)]
    pub standing: String,
    /// Why it was revoked.
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// Start of validity.
    #[schema(value_type = schema::Time)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
    /// When its holder should renew.
    #[schema(value_type = schema::Time)]
    pub renew_after: Timestamp,
    /// Until when it must be confirmed, while it is unconfirmed; null: no limit.
    #[schema(value_type = Option<schema::Time>)]
    pub confirm_before: Option<Timestamp>,
    /// When it was issued.
    #[schema(value_type = schema::Time)]
    pub issued_at: Timestamp,
    /// When its standing last changed.
    #[schema(value_type = schema::Time)]
    pub changed_at: Timestamp,
    /// The ledger that holds its entries.
    pub ledger: String,
    /// The position of the entry that issued it.
    pub position: u64,
}

/// What an authority issues for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityKind {
    /// Authorities alone.
    Root,
    /// Devices of one fleet.
    Device,
    /// Gateways.
    Gateway,
    /// Services.
    Service,
    /// Operators.
    Operator,
}

/// Where an authority is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityState {
    /// Trusted, does not issue yet.
    Prepared,
    /// Issues.
    Active,
    /// Trusted for what the ledger holds, issues no more.
    Tainted,
    /// Trusted no more.
    Revoked,
}

/// Where a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyHome {
    /// In an encrypted file on the server's machine.
    File,
    /// In the server's PKCS#11 token.
    Pkcs11,
    /// Not where the server can use it.
    Elsewhere,
}

/// An authority.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// Its id, as in `/ca/ID.crt` and `/crl/ID.crl`.
    pub id: u32,
    /// What it issues for.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// Where its key lives.
    pub key: KeyHome,
    /// The id of the root that issued it; null for a root.
    pub issuer: Option<u32>,
    /// Its certificate's subject.
    pub subject: String,
    /// SHA-256 over its certificate.
    #[schema(value_type = schema::Fingerprint)]
    pub fingerprint: Fingerprint,
    /// Start of validity.
    #[schema(value_type = schema::Time)]
    pub not_before: Timestamp,
    /// End of validity.
    #[schema(value_type = schema::Time)]
    pub not_after: Timestamp,
    /// The epoch that it issues in; null before its first certificate.
    pub epoch: Option<u32>,
}

/// A successor to prepare.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAuthority {
    /// What it is to issue for.
    pub kind: AuthorityKind,
    /// The one fleet, of a device authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::FleetName>)]
    pub fleet: Option<FleetName>,
    /// Its key's; the profile's first unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AuthorityAlgorithm>,
    /// Of a root: where its key is to be; where that of the root before is, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RootKey>,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// Where a root's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RootKey {
    /// Where the server's other keys are.
    Here,
    /// On a machine of its own, which is asked by files.
    Elsewhere,
}

/// The algorithm of an authority's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// ECDSA on P-384 with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// Why an authority is tainted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// Although nothing issues in its place.
    #[serde(default)]
    pub emergency: bool,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// Why an authority is revoked.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityRevocation {
    /// A reason of RFC 5280 5.3.1; cessationOfOperation unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Reason>)]
    pub reason: Option<RevocationReason>,
    /// Although certificates of it are in use; of a root: with the authorities that it issued.
    #[serde(default)]
    pub force: bool,
    /// For the ledger's details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub note: Option<String>,
}

/// An authority's certificates that are in their holders' hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityUse {
    /// Confirmed and good.
    pub good: u64,
    /// Not confirmed yet.
    pub unconfirmed: u64,
    /// Suspended or quarantined.
    pub suspended: u64,
}
