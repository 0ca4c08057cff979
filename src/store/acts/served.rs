//! Keys that the server made (RFC 7030 4.4). It does not keep them, so that the same request, sent again, cannot get the same
//! certificate: it gets another key, whose certificate takes the place of the unconfirmed one. By what is kept here the same
//! request is known.
//!
//! What is kept, some hundred octets, stays when the certificate was confirmed or lapsed, as the certificate's own record does,
//! which is several times as large. A proof that many devices share admits any new key: without it, a request that was answered
//! and comes once more would be taken for a new one, and its certificate would end the one that the device uses.

use fleetmark_domain::{KeyHash, Refusal, Standing, Timestamp};

use super::record::Holder;
use crate::store::StoreError;
use crate::store::model::{Certificate, Subject, Token, TokenState};
use crate::store::rows::Rows;

/// The key that was made last for the request of this mark.
pub fn key_made_for(rows: &mut dyn Rows, mark: &KeyHash) -> Result<Option<KeyHash>, StoreError> {
    let octets = rows.value(&name(mark))?;
    Ok(octets.and_then(|octets| octets.try_into().ok()).map(KeyHash))
}

/// From now on this is the key that was made last for the request.
pub(super) fn remember(rows: &mut dyn Rows, mark: &KeyHash, key: &KeyHash) -> Result<(), StoreError> {
    rows.set_value(&name(mark), key.octets())
}

/// The certificate whose place the next answer to the same request takes: one that nobody has used yet.
pub(super) fn replaced(rows: &mut dyn Rows, mark: Option<&KeyHash>, at: Timestamp) -> Result<Option<Certificate>, StoreError> {
    let Some(mark) = mark else { return Ok(None) };
    let Some(key) = key_made_for(rows, mark)? else { return Ok(None) };
    let certificate = rows.certificate_by_key(&key)?;
    Ok(certificate.filter(|certificate| certificate.standing == Standing::Unconfirmed && !certificate.has_lapsed(at)))
}

/// Whether the token that a request was answered by once may be shown with it again.
///
/// # Errors
/// `TokenWithdrawn`, `TokenUsed`; `TokenBoundToOtherKey` where the earlier answer was given for another token.
pub(super) fn token_admits_again(token: &Token, replaced: &Certificate) -> Result<(), Refusal> {
    match token.state {
        TokenState::Withdrawn => Err(Refusal::TokenWithdrawn),
        TokenState::Used(_) => Err(Refusal::TokenUsed),
        _ if replaced.token != Some(token.id) => Err(Refusal::TokenBoundToOtherKey),
        TokenState::Fresh => Ok(()),
        TokenState::Reserved(bound) if bound == replaced.key_hash => Ok(()),
        TokenState::Reserved(_) => Err(Refusal::TokenBoundToOtherKey),
    }
}

/// The holder of the certificate that is replaced, who must be whom the request is for.
///
/// # Errors
/// `DeviceUnknown`, `KeyOfAnother`.
pub(super) fn holder(rows: &mut dyn Rows, replaced: &Certificate, wanted: &Holder) -> Result<Subject, StoreError> {
    let id = replaced.subject.ok_or(Refusal::DeviceUnknown)?;
    let subject = rows.subject(id)?.ok_or(Refusal::DeviceUnknown)?;
    let is_same = match wanted {
        Holder::Installation => false,
        Holder::Known(id) => *id == subject.id,
        Holder::ByName(new) | Holder::Admitted(new, _) => {
            (new.kind, &new.fleet, &new.name) == (subject.kind, &subject.fleet, &subject.name)
        }
    };
    if is_same { Ok(subject) } else { Err(Refusal::KeyOfAnother.into()) }
}

fn name(mark: &KeyHash) -> String {
    format!("served/{mark}")
}
