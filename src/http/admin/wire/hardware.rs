//! Which hardware a device is.

use fleetmark_domain::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::admin::schema;

/// What a piece of hardware is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HardwareSource {
    /// The key of a maker's certificate.
    MakerKey,
    /// A TPM's endorsement key.
    EndorsementKey,
    /// A key derived from an enrollment group's.
    DerivedKey,
}

/// A piece of hardware.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Hardware {
    /// SHA-256 over what it is known by, hexadecimal: of a key, over its `SubjectPublicKeyInfo` in DER.
    pub id: String,
    /// What that is.
    pub source: HardwareSource,
    /// Since when it is this device.
    #[schema(value_type = schema::Time)]
    pub since: Timestamp,
}

/// A device's hardware; there is one page.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HardwareList {
    /// At most 16 pieces.
    pub items: Vec<Hardware>,
    /// Null.
    pub next: Option<String>,
}

/// Hardware to register.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHardware {
    /// A TPM's endorsement key, RSA 2048 or ECC P-256: its public key in PEM, or its `TPM2B_PUBLIC` in base64.
    pub endorsement_key: String,
}
