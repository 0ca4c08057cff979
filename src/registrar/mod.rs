//! The use cases: who may do what, to whom, and what must hold before and after. Knows no framework and no wire format;
//! now is an argument.
//!
//! - [`caller`]: from a verified peer certificate to a caller in good standing, asked on every request.
//! - [`enroll`]: enroll, renew, confirm.
//! - [`external`]: other authorities of fleets: their certificates adopted, their word followed.
//! - [`alarms`]: what a person should look at, written into the ledgers.
//! - [`blocked`]: keys that nobody gets a certificate for.
//! - [`rates`]: how often certificates are issued by one proof, in one fleet, in all.
//! - [`challenge`]: questions to devices that prove themselves by an answer.
//! - [`proofs`]: what a device shows to be allowed to enroll, one file a proof.
//! - [`requests`]: approval by a person.
//! - [`hook`]: the fleet's owner is asked before a certificate is issued.
//! - [`secrets`]: secrets that the server must read again, encrypted.
//! - [`made_keys`]: enrollment with a key that the server makes.
//! - [`status`]: status lists and statements of standing, for firmware.
//! - [`standing`]: revoke, hold, quarantine, release; lapse of what was never confirmed.
//! - [`revocations`]: the same for many certificates at once, by whatever they have in common.
//! - [`lifecycle`]: moves between fleets, permits, late renewal, the reaction to superseded certificates.
//! - [`waves`]: renewals pulled forward, and when a device is to renew.
//! - [`fleets`], [`tokens`], [`subjects`]: what operators keep records of.
//! - [`groups`], [`claims`]: enrollment groups, and the certificates by which a batch of devices claims its place.
//! - [`imports`]: devices registered in bulk, from a list.
//! - [`hardware`]: which hardware a device is.
//! - [`limits`]: how many devices one operator may change in an hour.
//! - [`certificates`]: search and look-up.
//! - [`authorities`]: the issuing authorities in memory: keys, certificates, index leases.
//! - [`publish`]: CRLs and OCSP answers as views of the ledger.
//! - [`policies`]: the policies that count: operators' rights, who may enroll and renew; sets are put and activated.
//! - [`profiles`]: which profile a fleet's devices have.
//! - [`overview`]: the authorities with what their certificates say, and the writer's queue.
//! - [`backup`]: a consistent copy of the store.
//! - [`audit`]: the ledgers' checkpoints, entries and proofs, for operators.
//! - [`feed`]: the same for gateways and services, and what they need beside it.
//! - [`snapshots`]: the ledgers' snapshots, as files.
//! - [`rollover`]: authorities and roots prepared, activated, tainted, revoked.
//! - [`trust_bundle`]: which roots are trusted, signed by those that were before.
//! - `issue`: one certificate, from a holder's record to a certificate's record.
//! - `signing`: where authorities' keys are used, so that a slow token holds up nobody.
//! - [`own`]: the server's own certificates: doors, OCSP responders.
//! - [`ceremony`], [`corporate`]: the root elsewhere: on a machine of its own, or under a corporate authority.
//! - [`install`]: what the first start makes.

pub mod alarms;
pub mod audit;
pub mod authorities;
pub mod backup;
pub mod blocked;
pub mod caller;
pub mod ceremony;
pub mod certificates;
pub mod challenge;
pub mod claims;
pub mod corporate;
pub mod enroll;
pub mod external;
pub mod feed;
pub mod fleets;
pub mod groups;
pub mod hardware;
pub mod hook;
pub mod imports;
pub mod install;
mod issue;
pub mod lifecycle;
pub mod limits;
pub mod made_keys;
#[cfg(test)]
mod model;
pub mod overview;
pub mod own;
pub mod policies;
pub mod profiles;
pub mod proofs;
pub mod publish;
pub mod rates;
pub mod requests;
pub mod revocations;
pub mod rollover;
pub mod secrets;
mod signing;
pub mod snapshots;
pub mod standing;
pub mod status;
pub mod subjects;
pub mod tokens;
pub mod trust_bundle;
pub mod waves;

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetmark_domain::{Refusal, RevocationReason, Timestamp, TrustDomain};
use fleetmark_ledger::details::Details;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::ledger::Publisher;
use crate::pki::weak::lists::WeakLists;
use crate::store::acts::Repeatable;
use crate::store::model::Remembered;
use crate::store::{BoxError, Store, StoreError};

/// A use case's no: by name, with what may be said to the caller, and with what is for the log alone.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct Error {
    /// The stable name.
    pub refusal: Refusal,
    /// One more sentence for the caller, where there is one; safe to show.
    pub detail: Option<String>,
    /// The cause, for the log alone.
    #[source]
    pub cause: Option<BoxError>,
}

/// What a use case gives.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None, cause: None }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let refusal = error.refusal();
        let cause = (!matches!(error, StoreError::Refused(_))).then(|| BoxError::from(error));
        Self { refusal, detail: None, cause }
    }
}

impl Error {
    /// A refusal with one more sentence for the caller.
    pub fn with_detail(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { refusal, detail: Some(detail.into()), cause: None }
    }

    /// A refusal because something below failed.
    pub fn caused(refusal: Refusal, cause: impl Into<BoxError>) -> Self {
        Self { refusal, detail: None, cause: Some(cause.into()) }
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Where the next page begins; None at the end. Opaque to clients.
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Where it begins; as an earlier page said.
    pub cursor: Option<String>,
    /// At most so many items, 1 to 500.
    pub limit: u32,
}

/// A create that may be repeated: `Idempotency-Key` and SHA-256 over the request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The header's value, 1 to 128 visible ASCII characters.
    pub key: String,
    /// SHA-256 over method, path and body.
    pub request_hash: [u8; 32],
}

impl Idempotency {
    /// What the store remembers of it.
    fn repeatable(self, caller: &caller::Caller, resource: String, now: Timestamp) -> Repeatable {
        let value = Remembered { request_hash: self.request_hash, resource, at: now };
        Repeatable { caller: caller.subject.id, key: self.key, value }
    }
}

impl Error {
    /// The causes, from the outermost on, for the log.
    pub fn chain(&self) -> String {
        let first = std::error::Error::source(self);
        let causes = std::iter::successors(first, |cause| cause.source()).map(ToString::to_string);
        causes.collect::<Vec<_>>().join(": ")
    }

    /// Whether another request took the same place at the same time, so that a second try may find things settled.
    fn is_race(&self) -> bool {
        self.cause
            .as_ref()
            .and_then(|cause| cause.downcast_ref::<StoreError>())
            .is_some_and(|e| matches!(e, StoreError::Collision))
    }
}

impl<T> Page<T> {
    /// A page of `items`; there is a next one if this one is full.
    fn of(items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let is_full = u32::try_from(items.len()).is_ok_and(|count| count >= limit);
        let next = if is_full { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

impl PageRequest {
    /// The cursor as a number; 0 before the first page.
    fn after(&self) -> Result<u64> {
        match &self.cursor {
            Some(cursor) => {
                cursor.parse().map_err(|_| Error::with_detail(Refusal::MalformedRequest, "The cursor is none of ours."))
            }
            None => Ok(0),
        }
    }
}

/// The use cases, over their store, keys and profiles.
pub struct Registrar {
    store: Arc<dyn Store>,
    authorities: Arc<authorities::Authorities>,
    publisher: Arc<Publisher>,
    snapshots: snapshots::Snapshots,
    published: publish::Published,
    status: status::StatusViews,
    policies: Arc<policies::InForce>,
    weak_lists: WeakLists,
    trust_domain: TrustDomain,
    random: SystemRandom,
    secrets: secrets::Secrets,
    turns: signing::Turns,
    rates: rates::Rates,
    alarms: alarms::Alarms,
    groups: groups::Watch,
    hooks: hook::Calls,
    orders: revocations::Watch,
    makers: proofs::maker::KnownMakers,
    externals: external::Watch,
    /// Derives the secrets of tokens minted with an Idempotency-Key.
    token_key: hmac::Key,
    /// Held while a fleet is made: two at once would take the same authority's id.
    founding: Arc<tokio::sync::Mutex<()>>,
    /// Held while responders and status keys are looked at: two at once would make each twice.
    renewing: tokio::sync::Mutex<()>,
    /// The newest lists of what stands above our root.
    above: arc_swap::ArcSwap<Vec<Arc<crate::store::model::StoredCrl>>>,
    bundles: trust_bundle::Bundles,
    /// The number under which the store told of the authorities as they are known here.
    authorities_seen: std::sync::Mutex<Option<Vec<u8>>>,
    /// What the store kept of the roots' lists when all that they name had ended.
    lists_seen: std::sync::Mutex<Vec<Option<Vec<u8>>>>,
}

impl Registrar {
    /// The installation's trust domain.
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The authorities.
    pub fn authorities(&self) -> &authorities::Authorities {
        &self.authorities
    }

    /// The ledgers' publisher.
    pub const fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    /// Details of an entry, under a fresh salt.
    fn details(
        &self,
        actor: String,
        subject: Option<String>,
        reason: Option<RevocationReason>,
        note: Option<String>,
    ) -> Result<Details> {
        Ok(Details { salt: self.random()?, actor, subject, reason, note, attributes: BTreeMap::new() })
    }
}
