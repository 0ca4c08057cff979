//! Row operations. A backend implements them; acts and readings are written over them, once, for both backends.

use fleetmark_domain::{Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_ledger::merkle::{Hash, Node};

use super::StoreError;
use super::model::Expected;
use super::model::{
    Allowance, ApprovalRequest, AuthorityId, AuthorityRecord, BlockedKey, Certificate, CertificateFilter, EpochRecord,
    External, ExternalCertificate, Fleet, ForeignList, Group, GroupId, Hardware, HardwareId, InHands, LeaseRecord,
    LedgerRecord, ListedSerial, PolicyActivation, PolicySet, PolicyVersion, Remembered, RequestState, RootRequest,
    StoredBundle, StoredCrl, StoredEntry, Subject, SubjectFilter, SubjectId, Token, TokenId,
};
use super::model::{CertificateStanding, ListKey, ListKind, PublishedList};
use super::model::{Order, OrderId, OrderState, Pick, Picked, Reach};

/// A certificate's place as one number, ascending by epoch and index: `epoch << 32 | index`. Cursors of lists too.
pub type CertificateId = u64;

/// The place of `index` in `epoch`.
pub fn certificate_id(epoch: Epoch, index: Index) -> CertificateId {
    (u64::from(epoch.0) << 32) | u64::from(index.0)
}

/// A change of one certificate's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingUpdate {
    /// Which.
    pub serial: Serial,
    /// To what.
    pub standing: Standing,
    /// When.
    pub at: Timestamp,
}

/// Row operations, synchronous: a writer thread or a reader thread runs them. Lists are ascending, and give what follows
/// `after`, at most `limit`.
///
/// Every method fails with a [`StoreError`] of the database alone, never with a refusal; an insertion that meets a unique
/// value fails with [`StoreError::Collision`].
#[rustfmt::skip]
#[expect(missing_docs, reason = "name and types of most methods say all that there is")]
pub trait Rows {
    // Installation-wide values: trust domain, installation id, restore marks.
    fn value(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
    fn set_value(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    fn fleet(&mut self, name: &FleetName) -> Result<Option<Fleet>, StoreError>;
    fn fleets(&mut self, after: Option<&str>, limit: u32) -> Result<Vec<Fleet>, StoreError>;
    fn insert_fleet(&mut self, fleet: &Fleet) -> Result<(), StoreError>;
    fn update_fleet(&mut self, fleet: &Fleet) -> Result<(), StoreError>;

    /// Every authority, by id. There are few.
    fn authorities(&mut self) -> Result<Vec<AuthorityRecord>, StoreError>;
    fn insert_authority(&mut self, authority: &AuthorityRecord) -> Result<(), StoreError>;
    fn set_authority_state(&mut self, id: AuthorityId, state: AuthorityState) -> Result<(), StoreError>;
    fn authority_state(&mut self, id: AuthorityId) -> Result<Option<AuthorityState>, StoreError>;
    /// Certificates of `authority` with a holder, in this ledger, that end after `now` and are neither superseded nor revoked; issued
    /// before `issued_before`, where that is said. Counts them all.
    fn in_hands(&mut self, authority: AuthorityId, ledger: &LedgerName, issued_before: Option<Timestamp>, now: Timestamp) -> Result<InHands, StoreError>;
    /// Every trust bundle, ascending. There are few.
    fn trust_bundles(&mut self) -> Result<Vec<StoredBundle>, StoreError>;
    fn insert_trust_bundle(&mut self, bundle: &StoredBundle) -> Result<(), StoreError>;

    /// The epoch of this authority that is not closed, if there is one.
    fn open_epoch(&mut self, authority: AuthorityId) -> Result<Option<EpochRecord>, StoreError>;
    fn epoch(&mut self, number: Epoch) -> Result<Option<EpochRecord>, StoreError>;
    /// All epochs that this authority ever had. There are few.
    fn epochs_of(&mut self, authority: AuthorityId) -> Result<Vec<EpochRecord>, StoreError>;
    /// The highest epoch number ever used; 0 before the first.
    fn highest_epoch(&mut self) -> Result<Epoch, StoreError>;
    fn insert_epoch(&mut self, epoch: &EpochRecord) -> Result<(), StoreError>;
    fn update_epoch(&mut self, epoch: &EpochRecord) -> Result<(), StoreError>;
    /// The lease of this epoch that expired first, before `now`.
    fn expired_lease(&mut self, epoch: Epoch, now: Timestamp) -> Result<Option<LeaseRecord>, StoreError>;
    fn insert_lease(&mut self, lease: &LeaseRecord) -> Result<(), StoreError>;
    fn delete_lease(&mut self, epoch: Epoch, first: Index) -> Result<(), StoreError>;

    fn subject(&mut self, id: SubjectId) -> Result<Option<Subject>, StoreError>;
    /// `folded` is [`fleetmark_domain::Name::folded`].
    fn subject_by_name(&mut self, kind: Kind, fleet: Option<&FleetName>, folded: &str) -> Result<Option<Subject>, StoreError>;
    fn subjects(&mut self, filter: &SubjectFilter, after: SubjectId, limit: u32) -> Result<Vec<Subject>, StoreError>;
    /// Inserts, and returns the new id; `subject.id` is not read.
    fn insert_subject(&mut self, subject: &Subject) -> Result<SubjectId, StoreError>;
    fn update_subject(&mut self, subject: &Subject) -> Result<(), StoreError>;
    /// Sets generations and state alone: what enrollment and confirmation change.
    fn advance_subject(&mut self, subject: &Subject) -> Result<(), StoreError>;
    /// How many operators hold the role owner, have had a certificate, and are not out.
    fn owners(&mut self) -> Result<u64, StoreError>;

    /// The certificate of this epoch and index.
    fn certificate(&mut self, id: CertificateId) -> Result<Option<Certificate>, StoreError>;
    fn certificate_by_key(&mut self, key: &KeyHash) -> Result<Option<Certificate>, StoreError>;
    /// The certificate of this subject and generation.
    fn certificate_of(&mut self, subject: SubjectId, generation: u32) -> Result<Option<Certificate>, StoreError>;
    /// The subject's certificates that are not revoked, by generation.
    fn live_certificates_of(&mut self, subject: SubjectId) -> Result<Vec<Certificate>, StoreError>;
    fn certificates(&mut self, filter: &CertificateFilter, after: CertificateId, limit: u32) -> Result<Vec<Certificate>, StoreError>;
    /// Certificates of `authority` from `from` to `to` of a standing other than unconfirmed and good, that end after `now`.
    fn not_good(&mut self, authority: AuthorityId, from: CertificateId, to: CertificateId, now: Timestamp) -> Result<Vec<CertificateStanding>, StoreError>;
    /// The standings of all certificates from `from` to `to`.
    fn standings(&mut self, from: CertificateId, to: CertificateId) -> Result<Vec<CertificateStanding>, StoreError>;
    /// The latest end of the certificates from `from` to `to`; None where there is none.
    fn latest_end(&mut self, from: CertificateId, to: CertificateId) -> Result<Option<Timestamp>, StoreError>;
    /// Unconfirmed certificates whose time to live ended at or before `now`.
    fn lapsed(&mut self, now: Timestamp, limit: u32) -> Result<Vec<Certificate>, StoreError>;
    /// Which of these places hold a certificate.
    fn taken(&mut self, epoch: Epoch, first: Index, count: u32) -> Result<Vec<Index>, StoreError>;
    fn insert_certificate(&mut self, certificate: &Certificate) -> Result<(), StoreError>;
    fn update_standing(&mut self, update: &StandingUpdate) -> Result<(), StoreError>;

    fn token(&mut self, id: &TokenId) -> Result<Option<Token>, StoreError>;
    fn tokens(&mut self, kind: Kind, fleet: Option<&FleetName>, after: Option<&TokenId>, limit: u32) -> Result<Vec<Token>, StoreError>;
    fn insert_token(&mut self, token: &Token) -> Result<(), StoreError>;
    fn set_token_state(&mut self, token: &Token) -> Result<(), StoreError>;

    fn ledgers(&mut self) -> Result<Vec<LedgerRecord>, StoreError>;
    fn ledger(&mut self, name: &LedgerName) -> Result<Option<LedgerRecord>, StoreError>;
    /// Like [`Self::ledger`], and keeps others from appending until the transaction ends.
    fn lock_ledger(&mut self, name: &LedgerName) -> Result<Option<LedgerRecord>, StoreError>;
    fn insert_ledger(&mut self, ledger: &LedgerRecord) -> Result<(), StoreError>;
    fn set_frontier(&mut self, ledger: &LedgerRecord) -> Result<(), StoreError>;
    fn insert_entries(&mut self, ledger: &LedgerName, entries: &[StoredEntry]) -> Result<(), StoreError>;
    fn entries(&mut self, ledger: &LedgerName, from: u64, limit: u32) -> Result<Vec<StoredEntry>, StoreError>;
    fn insert_nodes(&mut self, ledger: &LedgerName, nodes: &[(Node, Hash)]) -> Result<(), StoreError>;
    /// `count` stored nodes of `node.level` (8, 16, …) from `node.index`.
    fn nodes(&mut self, ledger: &LedgerName, node: Node, count: u16) -> Result<Vec<Hash>, StoreError>;

    fn crl(&mut self, authority: AuthorityId) -> Result<Option<StoredCrl>, StoreError>;
    fn put_crl(&mut self, crl: &StoredCrl) -> Result<(), StoreError>;
    /// The number of the authority's newest list, without the list.
    fn crl_number(&mut self, authority: AuthorityId) -> Result<Option<u64>, StoreError>;

    fn published_list(&mut self, key: &ListKey) -> Result<Option<PublishedList>, StoreError>;
    fn list_number(&mut self, key: &ListKey) -> Result<Option<u64>, StoreError>;
    /// Every list of this kind, with its number.
    fn list_numbers(&mut self, kind: ListKind) -> Result<Vec<(ListKey, u64)>, StoreError>;
    /// Inserts, or replaces the one with this key.
    fn put_list(&mut self, list: &PublishedList) -> Result<(), StoreError>;
    /// Whether it was there.
    fn delete_list(&mut self, key: &ListKey) -> Result<bool, StoreError>;

    fn policy_set(&mut self, ledger: &LedgerName, version: u64) -> Result<Option<PolicySet>, StoreError>;
    fn policy_versions(&mut self, ledger: &LedgerName, after: u64, limit: u32) -> Result<Vec<PolicyVersion>, StoreError>;
    /// The highest version ever put for this ledger; 0 before the first.
    fn highest_policy(&mut self, ledger: &LedgerName) -> Result<u64, StoreError>;
    fn insert_policy_set(&mut self, set: &PolicySet) -> Result<(), StoreError>;
    /// The newest activation.
    fn active_policy(&mut self, ledger: &LedgerName) -> Result<Option<PolicyActivation>, StoreError>;
    fn insert_policy_activation(&mut self, activation: &PolicyActivation) -> Result<(), StoreError>;

    fn remembered(&mut self, subject: SubjectId, key: &str) -> Result<Option<Remembered>, StoreError>;
    fn remember(&mut self, subject: SubjectId, key: &str, value: &Remembered) -> Result<(), StoreError>;
    /// Forgets what was remembered before `before`.
    fn forget(&mut self, before: Timestamp) -> Result<u64, StoreError>;

    /// How many devices of `fleet` this operator changed after the minute of `since`, up to that of `until`. What [`Self::count_touched`]
    /// counted and one of these devices changed singly count twice.
    fn touched(&mut self, operator: SubjectId, fleet: &FleetName, since: Timestamp, until: Timestamp) -> Result<u64, StoreError>;
    /// When it changed this one last.
    fn touched_at(&mut self, operator: SubjectId, fleet: &FleetName, subject: SubjectId) -> Result<Option<Timestamp>, StoreError>;
    /// Counts devices that it changed at once.
    fn count_touched(&mut self, operator: SubjectId, fleet: &FleetName, at: Timestamp, devices: u64) -> Result<(), StoreError>;
    fn touch(&mut self, operator: SubjectId, fleet: &FleetName, subject: SubjectId, at: Timestamp) -> Result<(), StoreError>;
    /// Forgets what was changed at or before `before`, or after `after`.
    fn forget_touched(&mut self, before: Timestamp, after: Timestamp) -> Result<u64, StoreError>;
    /// How many devices the fleet has, those that are out among them. Counts them all.
    fn devices(&mut self, fleet: &FleetName) -> Result<u64, StoreError>;
    /// The fleet's allowances that have not expired. There are few.
    fn allowances(&mut self, fleet: &FleetName, now: Timestamp) -> Result<Vec<Allowance>, StoreError>;
    fn insert_allowance(&mut self, allowance: &Allowance) -> Result<(), StoreError>;

    fn group(&mut self, id: GroupId) -> Result<Option<Group>, StoreError>;
    fn group_by_name(&mut self, fleet: &FleetName, folded: &str) -> Result<Option<Group>, StoreError>;
    /// The group whose claim certificate is for this key.
    fn group_by_key(&mut self, key: &KeyHash) -> Result<Option<Group>, StoreError>;
    /// Groups by id; None: of all fleets.
    fn groups(&mut self, fleet: Option<&FleetName>, after: GroupId, limit: u32) -> Result<Vec<Group>, StoreError>;
    fn insert_group(&mut self, group: &Group) -> Result<(), StoreError>;
    fn update_group(&mut self, group: &Group) -> Result<(), StoreError>;
    /// Sets how many devices came in: what an enrollment changes.
    fn set_admitted(&mut self, id: GroupId, admitted: u64) -> Result<(), StoreError>;
    fn listed_serial(&mut self, group: GroupId, serial: &str) -> Result<Option<ListedSerial>, StoreError>;
    fn listed_serials(&mut self, group: GroupId, after: &str, limit: u32) -> Result<Vec<ListedSerial>, StoreError>;
    fn put_serial(&mut self, group: GroupId, listed: &ListedSerial) -> Result<(), StoreError>;
    /// Whether it was there.
    fn delete_serial(&mut self, group: GroupId, serial: &str) -> Result<bool, StoreError>;

    fn hardware(&mut self, id: &HardwareId) -> Result<Option<Hardware>, StoreError>;
    /// The subject's hardware, at most 16 pieces.
    fn hardware_of(&mut self, subject: SubjectId) -> Result<Vec<Hardware>, StoreError>;
    /// From now on this hardware is this subject.
    fn put_hardware(&mut self, known: &Hardware) -> Result<(), StoreError>;
    fn delete_hardware(&mut self, id: &HardwareId) -> Result<bool, StoreError>;

    fn request(&mut self, id: u64) -> Result<Option<ApprovalRequest>, StoreError>;
    fn request_by_key(&mut self, fleet: &FleetName, folded: &str, key: &KeyHash) -> Result<Option<ApprovalRequest>, StoreError>;
    fn requests(&mut self, fleet: &FleetName, state: Option<RequestState>, after: u64, limit: u32) -> Result<Vec<ApprovalRequest>, StoreError>;
    /// Those of one name, of whatever key.
    fn requests_of_name(&mut self, fleet: &FleetName, folded: &str) -> Result<Vec<ApprovalRequest>, StoreError>;
    fn waiting_requests(&mut self, fleet: &FleetName) -> Result<u64, StoreError>;
    /// Inserts, or replaces the one with this id.
    fn put_request(&mut self, request: &ApprovalRequest) -> Result<(), StoreError>;
    /// Forgets those that expired at or before `before`.
    fn forget_requests(&mut self, before: Timestamp) -> Result<u64, StoreError>;

    fn blocked_key(&mut self, key: &KeyHash) -> Result<Option<BlockedKey>, StoreError>;
    fn blocked_keys(&mut self, after: Option<&KeyHash>, limit: u32) -> Result<Vec<BlockedKey>, StoreError>;
    /// Does nothing where it is blocked already.
    fn block_key(&mut self, key: &BlockedKey) -> Result<(), StoreError>;
    fn unblock_key(&mut self, key: &KeyHash) -> Result<bool, StoreError>;

    /// What is picked, after a place; the octets of certificates are not read. The installation's own certificates are nobody's and
    /// never picked.
    fn pick(&mut self, pick: &Pick, after: CertificateId, limit: u32) -> Result<Vec<Picked>, StoreError>;
    /// How much is picked. Counts it all.
    fn reach(&mut self, pick: &Pick) -> Result<Reach, StoreError>;
    /// Sets the standing of every certificate from `first` to `last`; how many there are.
    fn set_standings(&mut self, first: CertificateId, last: CertificateId, standing: Standing, at: Timestamp) -> Result<u64, StoreError>;
    fn order(&mut self, id: OrderId) -> Result<Option<Order>, StoreError>;
    /// Orders before this one, the newest first.
    fn orders(&mut self, ledgers: Option<&[LedgerName]>, state: Option<OrderState>, before: OrderId, limit: u32) -> Result<Vec<Order>, StoreError>;
    /// Orders that run, whose time has come, or that nobody approved in time.
    fn due_orders(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(OrderId, OrderState)>, StoreError>;
    /// How many orders of this ledger are scheduled, wait for approval, or run.
    fn open_orders(&mut self, ledger: &LedgerName) -> Result<u64, StoreError>;
    fn insert_order(&mut self, order: &Order) -> Result<(), StoreError>;
    /// Writes what changes of an order: not what it is to do.
    fn update_order(&mut self, order: &Order) -> Result<(), StoreError>;
    /// What the root is asked for, by id. There are few.
    fn root_requests(&mut self) -> Result<Vec<RootRequest>, StoreError>;
    /// Inserts, or replaces the one with this id; a second one for a kind and fleet is a collision.
    fn put_root_request(&mut self, request: &RootRequest) -> Result<(), StoreError>;
    fn delete_root_request(&mut self, kind: AuthorityKind, fleet: Option<&FleetName>) -> Result<(), StoreError>;
    fn external(&mut self, id: AuthorityId) -> Result<Option<External>, StoreError>;
    fn external_by_name(&mut self, fleet: &FleetName, folded: &str) -> Result<Option<External>, StoreError>;
    /// The external authorities of a fleet, or all, by id. There are few.
    fn externals(&mut self, fleet: Option<&FleetName>) -> Result<Vec<External>, StoreError>;
    fn insert_external(&mut self, external: &External) -> Result<(), StoreError>;
    fn update_external(&mut self, external: &External) -> Result<(), StoreError>;
    fn external_certificate(&mut self, fingerprint: &Fingerprint) -> Result<Option<ExternalCertificate>, StoreError>;
    /// The adopted certificate at this place.
    fn external_at(&mut self, place: CertificateId) -> Result<Option<ExternalCertificate>, StoreError>;
    fn external_by_serial(&mut self, authority: AuthorityId, issuer: &[u8; 32], serial: &[u8]) -> Result<Option<ExternalCertificate>, StoreError>;
    /// By place.
    fn external_certificates(&mut self, authorities: &[AuthorityId], after: CertificateId, limit: u32) -> Result<Vec<ExternalCertificate>, StoreError>;
    fn insert_external_certificate(&mut self, certificate: &ExternalCertificate) -> Result<(), StoreError>;
    fn update_external_certificate(&mut self, certificate: &ExternalCertificate) -> Result<(), StoreError>;
    /// The certificate that is expected by this fingerprint.
    fn expected(&mut self, fingerprint: &Fingerprint) -> Result<Option<Expected>, StoreError>;
    /// Those that are expected of these authorities, by fingerprint, behind `after`.
    fn expected_of(&mut self, authorities: &[AuthorityId], after: &[u8], limit: u32) -> Result<Vec<Expected>, StoreError>;
    /// Inserts, or replaces the one with this fingerprint.
    fn put_expected(&mut self, expected: &Expected) -> Result<(), StoreError>;
    /// Whether there was one.
    fn delete_expected(&mut self, fingerprint: &Fingerprint) -> Result<bool, StoreError>;
    fn foreign_lists(&mut self, authority: AuthorityId) -> Result<Vec<ForeignList>, StoreError>;
    /// Inserts, or replaces the one of this authority and URL.
    fn put_foreign_list(&mut self, list: &ForeignList) -> Result<(), StoreError>;
}
