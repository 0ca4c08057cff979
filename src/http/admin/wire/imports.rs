//! Devices registered in bulk.

use fleetmark_domain::Name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SecretText;
use crate::http::admin::schema;

/// What became of a list of devices.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImportReport {
    /// Whether it counts; not with `dry_run`, nor where a bad line kept all out.
    pub applied: bool,
    /// Lines read; empty ones and the head of CSV among them.
    pub lines: u64,
    /// Devices registered.
    pub registered: u64,
    /// Devices whose record was changed.
    pub updated: u64,
    /// Devices that were there already, as the list has them.
    pub unchanged: u64,
    /// Lines refused.
    pub failed: u64,
    /// Why, by line: the first 1,000.
    pub errors: Vec<ImportError>,
    /// How many more there were.
    pub errors_left_out: u64,
    /// The tokens that the list asked for.
    pub tokens: Vec<ImportedToken>,
}

/// Why a line is refused.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImportError {
    /// The line, from 1.
    pub line: u64,
    /// The column of CSV, or the member of the object; empty: the whole line.
    pub column: String,
    /// The refusal's stable name.
    pub code: String,
    /// One sentence.
    pub text: String,
}

/// A device's token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImportedToken {
    /// The device.
    #[schema(value_type = schema::Name)]
    pub device: Name,
    /// The text for the device: shown this once.
    #[schema(value_type = String)]
    pub token: SecretText,
}
