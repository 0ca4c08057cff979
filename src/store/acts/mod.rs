//! Named transactions: the checks and writes of every use case, written once over [`Rows`].
//!
//! Each checks all it must before its first write, so that a refusal leaves nothing behind.
//!
//! - [`found`]: authorities and ledgers come to be.
//! - [`authorities`]: authorities are activated, tainted, revoked; a root is prepared.
//! - [`lease`]: index leases and epochs.
//! - [`admit`]: who may come in by an enrollment group, or by its own hardware.
//! - [`alarms`]: an alarm is written into its ledger.
//! - [`blocked`]: the block list of keys.
//! - [`ceremony`]: the root is asked, and answers.
//! - [`requests`]: requests that a person decides.
//! - [`record`]: a certificate is recorded: enrollment, renewal, the installation's own.
//! - [`confirm`]: the holder keeps the certificate; what it replaces is superseded.
//! - [`external`]: other authorities, and the adoption of their certificates.
//! - [`standing`]: revoke, hold, release, put out; the lapse of what was never confirmed.
//! - [`fleets`], [`subjects`], [`tokens`]: operators' records.
//! - [`imports`]: devices registered in bulk.
//! - [`lifecycle`]: moves between fleets, permits, the reaction to superseded certificates.
//! - [`hardware`]: which hardware a device is.
//! - [`snapshots`]: a ledger names its snapshot.
//! - [`policies`]: policy sets are put and activated.
//! - [`limits`]: how many devices one operator may change in an hour.
//! - [`revocations`]: orders for many certificates at once, done in parts.
//! - [`lists`]: revocation lists and remembered requests.

pub mod admit;
pub mod alarms;
pub mod authorities;
pub mod blocked;
pub mod ceremony;
pub mod confirm;
pub mod external;
pub mod fleets;
pub mod found;
pub mod groups;
pub mod hardware;
pub mod imports;
pub mod lease;
pub mod lifecycle;
pub mod limits;
pub mod lists;
pub mod policies;
pub mod record;
pub mod requests;
pub mod revocations;
pub mod served;
pub mod snapshots;
pub mod standing;
pub mod subjects;
pub mod tokens;

use fleetmark_domain::Refusal;

use super::StoreError;
use super::model::{Remembered, SubjectId};
use super::rows::Rows;

/// A create that may be repeated under its caller's key.
#[derive(Debug, Clone)]
pub struct Repeatable {
    /// Who asked.
    pub caller: SubjectId,
    /// The Idempotency-Key.
    pub key: String,
    /// What to remember.
    pub value: Remembered,
}

/// What the same key made before. A different request under it is refused.
fn made_before(rows: &mut dyn Rows, repeatable: Option<&Repeatable>) -> Result<Option<String>, StoreError> {
    let Some(repeatable) = repeatable else { return Ok(None) };
    match rows.remembered(repeatable.caller, &repeatable.key)? {
        None => Ok(None),
        Some(earlier) if earlier.request_hash == repeatable.value.request_hash => Ok(Some(earlier.resource)),
        Some(_) => Err(Refusal::IdempotencyKeyReused.into()),
    }
}

/// Remembers what was made, for a repeat.
fn remember(rows: &mut dyn Rows, repeatable: Option<&Repeatable>) -> Result<(), StoreError> {
    match repeatable {
        Some(repeatable) => rows.remember(repeatable.caller, &repeatable.key, &repeatable.value),
        None => Ok(()),
    }
}
