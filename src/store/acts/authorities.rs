//! Authorities change their state, and a root is prepared: the authority, its certificate, whatever hangs from it, and the trust
//! bundle that tells devices of it, in one transaction.

use std::collections::BTreeMap;

use fleetmark_domain::{
    AuthorityEvent, AuthorityState, CertificateEvent, Epoch, Fingerprint, LedgerName, Refusal, RevocationReason, Serial,
    Standing, Timestamp,
};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::Event;

use super::found::{AddAuthority, add_authority, mark_changed};
use super::lease::{EPOCH_FLOOR, next_epoch};
use super::standing::set_standing;
use crate::store::model::{AuthorityId, AuthorityRecord, Certificate, StoredBundle, StoredCrl};
use crate::store::rows::certificate_id;
use crate::store::transaction::Transaction;
use crate::store::{Act, Lane, StoreError};

/// Changes an authority's state.
#[derive(Debug)]
pub struct ChangeAuthority {
    /// Which.
    pub authority: AuthorityId,
    /// What happens to it: activated, tainted or revoked.
    pub event: AuthorityEvent,
    /// Tainted although nothing issues in its place; revoked although authorities hang from it, which are revoked with it.
    pub forced: bool,
    /// The reason of a revocation, for the list of who issued it.
    pub reason: RevocationReason,
    /// Of a root: which roots are trusted from here on.
    pub bundle: Option<StoredBundle>,
    /// Values of the installation that change with it.
    pub values: Vec<(String, Vec<u8>)>,
    /// What the certificates of all that may change say: SHA-256 over it, and its serial where that is one of ours.
    pub certificates: BTreeMap<AuthorityId, (Fingerprint, Option<Serial>)>,
    /// Who did it, and why.
    pub details: Details,
    /// Now.
    pub at: Timestamp,
}

/// An authority, and what it becomes.
type Change = (AuthorityRecord, AuthorityState);

impl Act for ChangeAuthority {
    /// The authorities that changed, as they are now; empty for a repeat.
    type Outcome = Vec<AuthorityRecord>;

    fn lane(&self) -> Lane {
        if self.event == AuthorityEvent::Activated { Lane::Ordinary } else { Lane::Urgent }
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Vec<AuthorityRecord>, StoreError> {
        let all = transaction.rows.authorities()?;
        let changes = changes(&all, self.authority, self.event, self.forced)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut ended = Vec::new();
        for (record, state) in &changes {
            self.said(record)?;
            if *state == AuthorityState::Revoked {
                ended.extend(self.certificate(transaction, record)?);
            }
        }

        for (record, state) in &changes {
            transaction.rows.set_authority_state(record.id, *state)?;
            let (fingerprint, _) = self.said(record)?;
            let event = Event::AuthorityChanged { authority: record.id, kind: record.kind, state: *state, fingerprint };
            transaction.append(&LedgerName::System, self.at, event, Some(&self.details))?;
        }
        let revoked = Standing::Revoked(self.reason);
        set_standing(transaction, &ended, revoked, self.at, Some(&self.details))?;
        if let Some(bundle) = &self.bundle {
            transaction.rows.insert_trust_bundle(bundle)?;
        }
        set_values(transaction, &self.values)?;
        let is_new_root = |(record, state): &Change| record.is_root() && *state == AuthorityState::Active;
        if changes.iter().any(is_new_root) {
            // What the root before was asked for has its place in that one's numbering: it is asked for anew.
            for request in transaction.rows.root_requests()? {
                transaction.rows.delete_root_request(request.kind, request.fleet.as_ref())?;
            }
        }
        mark_changed(transaction)?;
        Ok(changes.into_iter().map(|(record, state)| AuthorityRecord { state, ..record }).collect())
    }
}

impl ChangeAuthority {
    /// One that came meanwhile is not among those that were read: it is to be read again.
    fn said(&self, record: &AuthorityRecord) -> Result<(Fingerprint, Option<Serial>), StoreError> {
        self.certificates.get(&record.id).copied().ok_or(StoreError::Collision)
    }

    /// The authority's own certificate, where it is not revoked yet.
    fn certificate(
        &self,
        transaction: &mut Transaction<'_>,
        record: &AuthorityRecord,
    ) -> Result<Option<Certificate>, StoreError> {
        let (fingerprint, serial) = self.said(record)?;
        // A corporate root's certificate has a number of its own, and is not among ours.
        let Some(serial) = serial else { return Ok(None) };
        let found = transaction.rows.certificate(certificate_id(serial.epoch(), serial.index()))?;
        let changes =
            |standing: Standing| standing.next(CertificateEvent::Revoked(self.reason)).is_ok_and(|next| next != standing);
        Ok(found.filter(|found| found.fingerprint == fingerprint && changes(found.standing)))
    }
}

/// All that changes by an event of one authority, itself first; empty for a repeat.
///
/// # Errors
/// `NotFound`; those of [`AuthorityState::next`]; `NoSuccessor`, `AuthorityActive`, `AuthorityInUse`.
pub fn changes(
    all: &[AuthorityRecord],
    authority: AuthorityId,
    event: AuthorityEvent,
    forced: bool,
) -> Result<Vec<Change>, Refusal> {
    let record = all.iter().find(|record| record.id == authority && !record.is_cross()).ok_or(Refusal::NotFound)?;
    let next = record.state.next(event)?;
    if next == record.state {
        return Ok(Vec::new());
    }
    let mut changes = vec![(record.clone(), next)];
    let is_peer = |other: &&AuthorityRecord| {
        other.id != record.id && !other.is_cross() && other.kind == record.kind && other.fleet == record.fleet
    };
    match event {
        AuthorityEvent::Activated => {
            for peer in all.iter().filter(is_peer) {
                let state = peer.state.next(AuthorityEvent::Succeeded)?;
                if state != peer.state {
                    changes.push((peer.clone(), state));
                }
            }
        }
        AuthorityEvent::Tainted => {
            let has_successor = all.iter().filter(is_peer).any(|peer| peer.state == AuthorityState::Active);
            if !has_successor && !forced {
                return Err(Refusal::NoSuccessor);
            }
        }
        AuthorityEvent::Revoked if record.is_root() => changes.extend(below(all, record, forced)?),
        AuthorityEvent::Revoked | AuthorityEvent::Succeeded => {}
    }
    Ok(changes)
}

/// What ends with a root: its key's certificates by other roots and theirs by it; forced, the authorities that it issued.
fn below(all: &[AuthorityRecord], root: &AuthorityRecord, forced: bool) -> Result<Vec<Change>, Refusal> {
    let trusted = || all.iter().filter(|other| other.state.is_trusted());
    let issued = || trusted().filter(|other| other.issuer == Some(root.id) && !other.is_cross());
    if issued().any(|other| other.state == AuthorityState::Active) {
        return Err(Refusal::AuthorityActive);
    }
    if issued().next().is_some() && !forced {
        return Err(Refusal::AuthorityInUse);
    }
    let crosses =
        trusted().filter(|other| other.is_cross() && (other.issuer == Some(root.id) || other.key_label == root.key_label));
    Ok(issued().chain(crosses).map(|other| (other.clone(), AuthorityState::Revoked)).collect())
}

/// Takes on a new root with its certificates by the others and theirs by it (RFC 4210 4.4), and the trust bundle that tells of it.
#[derive(Debug)]
pub struct PrepareRoot {
    /// The root, with its first epoch.
    pub root: AddAuthority,
    /// `NewWithOld` and `OldWithNew`.
    pub crosses: Vec<AddAuthority>,
    /// The roots that are there, each in the state in which the crosses and the bundle were made. Where another act changed one
    /// meanwhile, nothing is kept: a key that is suspected by now would be vouched for.
    pub roots: Vec<(AuthorityId, AuthorityState)>,
    /// Which roots are trusted from here on.
    pub bundle: Option<StoredBundle>,
    /// The first list of a root whose key is elsewhere.
    pub list: Option<StoredCrl>,
    /// Values of the installation that change with it.
    pub values: Vec<(String, Vec<u8>)>,
}

impl Act for PrepareRoot {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        // Its number stands in the certificates already, and was reserved for it.
        let next = next_epoch(transaction)?;
        let Some(epoch) = self.root.epoch.filter(|epoch| epoch.number < next) else { return Err(StoreError::Collision) };
        if transaction.rows.epoch(epoch.number)?.is_some() {
            return Err(StoreError::Collision);
        }
        let all = transaction.rows.authorities()?;
        let there: Vec<_> = all.iter().filter(|one| one.is_root()).map(|one| (one.id, one.state)).collect();
        if there.len() != self.roots.len() || there.iter().any(|root| !self.roots.contains(root)) {
            return Err(StoreError::Collision);
        }
        add_authority(transaction, &self.root)?;
        for cross in &self.crosses {
            add_authority(transaction, cross)?;
        }
        if let Some(bundle) = &self.bundle {
            transaction.rows.insert_trust_bundle(bundle)?;
        }
        if let Some(list) = &self.list {
            transaction.rows.put_crl(list)?;
        }
        set_values(transaction, &self.values)
    }
}

pub(super) fn set_values(transaction: &mut Transaction<'_>, values: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
    values.iter().try_for_each(|(name, value)| transaction.rows.set_value(name, value))
}

/// Takes the next epoch's number for a root that is made later.
#[derive(Debug)]
pub struct ReserveEpoch;

impl Act for ReserveEpoch {
    type Outcome = Epoch;

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Epoch, StoreError> {
        let number = next_epoch(transaction)?;
        transaction.rows.set_value(EPOCH_FLOOR, &number.0.to_be_bytes())?;
        Ok(number)
    }
}

/// Keeps a trust bundle that only tells anew what is so already.
#[derive(Debug)]
pub struct PutBundle {
    /// The bundle.
    pub bundle: StoredBundle,
}

impl Act for PutBundle {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        Vec::new()
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.rows.insert_trust_bundle(&self.bundle)
    }
}

#[cfg(test)]
mod tests {
    use fleetmark_domain::Kind;
    use fleetmark_ledger::entry::AuthorityKind;

    use super::*;

    fn record(id: u32, kind: AuthorityKind, state: AuthorityState, issuer: Option<u32>, key: &str) -> AuthorityRecord {
        let fleet = (kind == AuthorityKind::Of(Kind::Device)).then(|| "a".parse().unwrap());
        let (key_label, certificate) = (key.to_owned(), Vec::new());
        AuthorityRecord { id, kind, fleet, state, key_label, certificate, issuer, created_at: Timestamp(0) }
    }

    fn told(changes: Result<Vec<Change>, Refusal>) -> Result<Vec<(u32, AuthorityState)>, Refusal> {
        changes.map(|changes| changes.into_iter().map(|(record, state)| (record.id, state)).collect())
    }

    #[test]
    fn one_issues_at_a_time_and_the_last_one_is_tainted_in_an_emergency_alone() {
        use AuthorityState::{Active, Prepared, Revoked, Tainted};
        let device = AuthorityKind::Of(Kind::Device);
        let all = [
            record(1, AuthorityKind::Root, Active, None, "r"),
            record(2, device, Active, Some(1), "a"),
            record(3, device, Prepared, Some(1), "b"),
            record(4, device, Tainted, Some(1), "c"),
            record(5, device, Revoked, Some(1), "d"),
            record(6, AuthorityKind::Of(Kind::Gateway), Active, Some(1), "e"),
        ];
        let act = |id, event, forced| told(changes(&all, id, event, forced));
        assert_eq!(act(3, AuthorityEvent::Activated, false), Ok(vec![(3, Active), (2, Tainted)]));
        assert_eq!(act(2, AuthorityEvent::Activated, false), Ok(vec![]), "a repeat");
        assert_eq!(act(2, AuthorityEvent::Tainted, false), Err(Refusal::NoSuccessor));
        assert_eq!(act(2, AuthorityEvent::Tainted, true), Ok(vec![(2, Tainted)]));
        assert_eq!(act(2, AuthorityEvent::Revoked, true), Err(Refusal::AuthorityActive));
        assert_eq!(act(4, AuthorityEvent::Revoked, false), Ok(vec![(4, Revoked)]));
        assert_eq!(act(5, AuthorityEvent::Tainted, true), Err(Refusal::AuthorityRevoked));
        assert_eq!(act(9, AuthorityEvent::Tainted, true), Err(Refusal::NotFound));
    }

    #[test]
    fn with_a_root_ends_what_hangs_from_it() {
        use AuthorityState::{Active, Prepared, Revoked, Tainted};
        let device = AuthorityKind::Of(Kind::Device);
        let mut all = [
            record(1, AuthorityKind::Root, Tainted, None, "old"),
            record(2, device, Active, Some(1), "a"),
            record(3, AuthorityKind::Root, Active, None, "new"),
            record(4, AuthorityKind::Root, Prepared, Some(1), "new"),
            record(5, AuthorityKind::Root, Prepared, Some(3), "old"),
            record(6, device, Prepared, Some(3), "b"),
        ];
        let revoke = |all: &[AuthorityRecord], forced| told(changes(all, 1, AuthorityEvent::Revoked, forced));
        assert_eq!(revoke(&all, true), Err(Refusal::AuthorityActive));
        all[1].state = Tainted;
        assert_eq!(revoke(&all, false), Err(Refusal::AuthorityInUse));
        assert_eq!(revoke(&all, true), Ok(vec![(1, Revoked), (2, Revoked), (4, Revoked), (5, Revoked)]));
        all[1].state = Revoked;
        assert_eq!(revoke(&all, false), Ok(vec![(1, Revoked), (4, Revoked), (5, Revoked)]));
        assert_eq!(told(changes(&all, 4, AuthorityEvent::Revoked, true)), Err(Refusal::NotFound), "a cross certificate");
    }
}
