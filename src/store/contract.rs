//! What every backend must do, asked of each with the same code.

pub mod confirm;
pub mod enrollment;
pub mod external;
pub mod lifecycle;
pub mod limits;
pub mod lists;
pub mod policies;
pub mod reenrollment;
pub mod revocations;
pub mod roots;
pub mod served;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetmark_domain::standing::Choices;
use fleetmark_domain::{
    Epoch, Fingerprint, FleetName, Index, KeyHash, Kind, LedgerName, RevocationReason, Role, Serial, Standing, Terms, Timestamp,
};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_ledger::merkle::{Frontier, Hash, Node, leaf_hash};

use super::StoreError;
use super::backend::{Backend, Connection};
use super::model::*;
use super::rows::{Rows, StandingUpdate, certificate_id};

/// Runs every check on `backend`, which must be empty.
pub fn holds(backend: &impl Backend) {
    let mut connection = backend.connect_writer().unwrap();
    let checks: [fn(&mut dyn Rows); 15] = [
        values_and_fleets,
        authorities_and_epochs,
        leases,
        subjects,
        certificates,
        tokens,
        ledgers,
        lists_and_requests,
        lists::published,
        policies::rows,
        touched_and_allowed,
        reenrollment::table,
        revocations::rows,
        external::rows,
        roots::rows,
    ];
    for check in checks {
        connection.begin_write().unwrap();
        check(&mut connection);
        connection.commit().unwrap();
    }
    collisions(&mut connection);
    transactions(backend, &mut connection);
}

pub fn fleet_name(name: &str) -> FleetName {
    name.parse().unwrap()
}

pub fn fleet(name: &str) -> Fleet {
    Fleet {
        name: fleet_name(name),
        open: true,
        profile: "device".to_owned(),
        unconfirmed_ttl: None,
        choices: Choices::default(),
        max_age: Duration::from_secs(900),
        created_at: Timestamp(1_000),
        version: 1,
        blast_radius: None,
        hook: None,
        wave: None,
    }
}

pub fn authority(id: AuthorityId) -> AuthorityRecord {
    AuthorityRecord {
        id,
        kind: AuthorityKind::Root,
        fleet: None,
        state: AuthorityState::Active,
        key_label: format!("key-{id}"),
        certificate: vec![0x30, 0, 0xff],
        issuer: None,
        created_at: Timestamp(5),
    }
}

pub fn subject(kind: Kind, fleet: Option<&str>, name: &str) -> Subject {
    Subject {
        id: 0,
        kind,
        fleet: fleet.map(fleet_name),
        name: name.parse().unwrap(),
        state: SubjectState::Registered,
        role: None,
        grants: None,
        dns_names: Vec::new(),
        addresses: Vec::new(),
        attributes: BTreeMap::new(),
        last_generation: 0,
        confirmed_generation: 0,
        created_at: Timestamp(7),
        version: 1,
        group: None,
        permits: Permits::default(),
        moved_from: None,
    }
}

pub fn certificate(epoch: u32, index: u32, subject: Option<SubjectId>) -> Certificate {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&certificate_id(Epoch(epoch), Index(index)).to_be_bytes());
    Certificate {
        serial: Serial::new(Epoch(epoch), Index(index), [9; 8]),
        authority: 1,
        subject,
        generation: index + 1,
        key_hash: KeyHash(hash),
        fingerprint: Fingerprint([index.to_le_bytes()[0]; 32]),
        standing: Standing::Unconfirmed,
        not_before: Timestamp(-3_600),
        not_after: Timestamp(10_000 + i64::from(index)),
        renew_after: Timestamp(6_000),
        confirm_before: Some(Timestamp(100 + i64::from(index))),
        issued_at: Timestamp(50),
        changed_at: Timestamp(50),
        ledger: LedgerName::Fleet(fleet_name("alpha")),
        position: 3,
        token: Some([1, 2, 3, 4, 5, 6, 7, 0xff]),
        der: vec![0x30; 40],
    }
}

pub fn token(id: u8) -> Token {
    Token {
        id: [id; 8],
        secret_hash: [id; 32],
        kind: Kind::Device,
        fleet: Some(fleet_name("alpha")),
        subject: None,
        state: TokenState::Fresh,
        expires_at: Timestamp(900),
        created_at: Timestamp(1),
        created_by: 0,
        note: "für Halle 3".to_owned(),
        terms: Terms::default(),
        spent: 0,
        origin: None,
    }
}

pub fn ledger(name: LedgerName) -> LedgerRecord {
    LedgerRecord {
        origin: format!("fleet.example/{name}"),
        key_label: format!("ledger-{name}"),
        key: [4; 32],
        frontier: Frontier::default(),
        name,
    }
}

fn values_and_fleets(rows: &mut dyn Rows) {
    assert_eq!(rows.value("domain").unwrap(), None);
    rows.set_value("domain", &[]).unwrap();
    rows.set_value("domain", &[0, 1, 255]).unwrap();
    assert_eq!(rows.value("domain").unwrap(), Some(vec![0, 1, 255]));

    let alpha = fleet("alpha");
    let beta = Fleet {
        open: false,
        unconfirmed_ttl: Some(Duration::from_secs(86_400)),
        choices: Choices { list_superseded: true, list_quarantined: false },
        ..fleet("beta")
    };
    rows.insert_fleet(&beta).unwrap();
    rows.insert_fleet(&alpha).unwrap();
    assert_eq!(rows.fleet(&beta.name).unwrap().as_ref(), Some(&beta));
    assert_eq!(rows.fleet(&fleet_name("gamma")).unwrap(), None);
    assert_eq!(rows.fleets(None, 9).unwrap(), [alpha.clone(), beta.clone()]);
    assert_eq!(rows.fleets(None, 1).unwrap(), [alpha]);
    assert_eq!(rows.fleets(Some("alpha"), 9).unwrap(), std::slice::from_ref(&beta));

    let changed = Fleet { unconfirmed_ttl: None, open: true, version: 2, profile: "other".to_owned(), ..beta };
    rows.update_fleet(&changed).unwrap();
    assert_eq!(rows.fleet(&changed.name).unwrap(), Some(changed));
    assert!(matches!(rows.update_fleet(&fleet("gamma")), Err(StoreError::Unreadable { .. })));
}

fn authorities_and_epochs(rows: &mut dyn Rows) {
    let root = authority(1);
    let device = AuthorityRecord {
        kind: AuthorityKind::Of(Kind::Device),
        fleet: Some(fleet_name("alpha")),
        state: AuthorityState::Prepared,
        issuer: Some(1),
        ..authority(2)
    };
    rows.insert_authority(&root).unwrap();
    rows.insert_authority(&device).unwrap();
    assert_eq!(rows.authorities().unwrap(), [root.clone(), device.clone()]);
    rows.set_authority_state(2, AuthorityState::Tainted).unwrap();
    assert_eq!(rows.authority_state(2).unwrap(), Some(AuthorityState::Tainted));
    assert_eq!(rows.authority_state(77).unwrap(), None);
    assert_eq!(rows.trust_bundles().unwrap(), []);
    let bundle = |number: u8| StoredBundle {
        number: number.into(),
        made_at: Timestamp(9),
        signers: vec![Fingerprint([number; 32])],
        roots: vec![Fingerprint([number; 32]), Fingerprint([8; 32])],
        der: vec![number; 3_000],
    };
    rows.insert_trust_bundle(&bundle(7)).unwrap();
    rows.insert_trust_bundle(&bundle(3)).unwrap();
    assert_eq!(rows.trust_bundles().unwrap(), [bundle(3), bundle(7)]);
    assert_eq!(rows.authorities().unwrap(), [root, AuthorityRecord { state: AuthorityState::Tainted, ..device }]);

    assert_eq!(rows.highest_epoch().unwrap(), Epoch(0));
    assert_eq!(rows.open_epoch(1).unwrap(), None);
    let first = EpochRecord { number: Epoch(7), authority: 1, opened_at: Timestamp(10), closed_at: None, next_index: 1 << 24 };
    rows.insert_epoch(&first).unwrap();
    assert_eq!(rows.open_epoch(1).unwrap(), Some(first));
    let closed = EpochRecord { closed_at: Some(Timestamp(20)), ..first };
    rows.update_epoch(&closed).unwrap();
    assert_eq!(rows.open_epoch(1).unwrap(), None);
    assert_eq!(rows.epoch(Epoch(7)).unwrap(), Some(closed));
    let second = EpochRecord { number: Epoch(8), closed_at: None, ..first };
    rows.insert_epoch(&second).unwrap();
    assert_eq!(rows.open_epoch(1).unwrap(), Some(second));
    assert_eq!(rows.open_epoch(2).unwrap(), None);
    assert_eq!(rows.highest_epoch().unwrap(), Epoch(8));
    assert_eq!(rows.epoch(Epoch(9)).unwrap(), None);
}

fn leases(rows: &mut dyn Rows) {
    let lease =
        |epoch, first, end| LeaseRecord { epoch: Epoch(epoch), first: Index(first), count: 64, expires_at: Timestamp(end) };
    let (late, early, other) = (lease(7, 0, 300), lease(7, 64, 200), lease(8, 0, 100));
    for each in [&late, &early, &other] {
        rows.insert_lease(each).unwrap();
    }
    assert_eq!(rows.expired_lease(Epoch(7), Timestamp(199)).unwrap(), None);
    assert_eq!(rows.expired_lease(Epoch(7), Timestamp(200)).unwrap(), Some(early));
    assert_eq!(rows.expired_lease(Epoch(7), Timestamp(999)).unwrap(), Some(early));
    rows.delete_lease(Epoch(7), Index(64)).unwrap();
    assert_eq!(rows.expired_lease(Epoch(7), Timestamp(999)).unwrap(), Some(late));
    assert_eq!(rows.expired_lease(Epoch(8), Timestamp(999)).unwrap(), Some(other));
    assert_eq!(rows.expired_lease(Epoch(6), Timestamp(999)).unwrap(), None);
}

fn subjects(rows: &mut dyn Rows) {
    let sensor = subject(Kind::Device, Some("alpha"), "Sensor_1");
    let twin = subject(Kind::Device, Some("beta"), "sensor_1");
    let full = Subject {
        role: Some(Role::Owner),
        grants: Some(vec![fleet_name("alpha"), fleet_name("beta")]),
        dns_names: vec!["a.example".to_owned()],
        addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        attributes: BTreeMap::from([("site \"x\"".to_owned(), "Köln".to_owned())]),
        last_generation: u32::MAX,
        confirmed_generation: 2,
        ..subject(Kind::Operator, None, "alice")
    };
    let sensor = Subject { id: rows.insert_subject(&sensor).unwrap(), ..sensor };
    let twin = Subject { id: rows.insert_subject(&twin).unwrap(), ..twin };
    let full = Subject { id: rows.insert_subject(&full).unwrap(), ..full };
    assert!(0 < sensor.id && sensor.id < twin.id && twin.id < full.id);
    assert_eq!(rows.subject(full.id).unwrap().as_ref(), Some(&full));
    assert_eq!(rows.subject(999).unwrap(), None);
    assert_eq!(rows.subject(u64::MAX).unwrap(), None);
    let by_name = rows.subject_by_name(Kind::Device, Some(&fleet_name("alpha")), "sensor_1").unwrap();
    assert_eq!(by_name.as_ref(), Some(&sensor));
    assert_eq!(rows.subject_by_name(Kind::Device, None, "sensor_1").unwrap(), None);
    assert_eq!(rows.subject_by_name(Kind::Operator, None, "alice").unwrap().as_ref(), Some(&full));

    let devices = SubjectFilter { kind: Kind::Device, fleet: None, search: None, state: None, group: None };
    assert_eq!(rows.subjects(&devices, 0, 9).unwrap(), [sensor.clone(), twin.clone()]);
    assert_eq!(rows.subjects(&devices, 0, 1).unwrap(), std::slice::from_ref(&sensor));
    assert_eq!(rows.subjects(&devices, sensor.id, 9).unwrap(), std::slice::from_ref(&twin));
    assert_eq!(rows.subjects(&devices, u64::MAX, 9).unwrap(), []);
    let of_beta = SubjectFilter { fleet: Some(fleet_name("beta")), ..devices.clone() };
    assert_eq!(rows.subjects(&of_beta, 0, 9).unwrap(), std::slice::from_ref(&twin));
    for (search, found) in [("SOR_", 2), ("%", 0), ("or1", 0), ("s%1", 0), ("_", 2), ("\\", 0), ("'", 0), ("", 2)] {
        let filter = SubjectFilter { search: Some(search.to_owned()), ..devices.clone() };
        assert_eq!(rows.subjects(&filter, 0, 9).unwrap().len(), found, "{search}");
    }

    let ahead = Subject { state: SubjectState::Active, last_generation: 4, confirmed_generation: 3, version: 99, ..sensor };
    rows.advance_subject(&ahead).unwrap();
    let advanced = Subject { version: 1, ..ahead };
    assert_eq!(rows.subject(advanced.id).unwrap().as_ref(), Some(&advanced));
    let active = SubjectFilter { state: Some(SubjectState::Active), ..devices };
    assert_eq!(rows.subjects(&active, 0, 9).unwrap(), [advanced]);

    // An owner who was only invited is none yet.
    assert_eq!(rows.owners().unwrap(), 0);
    rows.update_subject(&Subject { state: SubjectState::Active, ..full.clone() }).unwrap();
    assert_eq!(rows.owners().unwrap(), 1);
    let viewer = Subject { role: Some(Role::Viewer), grants: None, version: 2, ..full.clone() };
    rows.update_subject(&viewer).unwrap();
    assert_eq!(rows.subject(viewer.id).unwrap(), Some(viewer));
    assert_eq!(rows.owners().unwrap(), 0);
    rows.update_subject(&Subject { state: SubjectState::Out, ..full.clone() }).unwrap();
    assert_eq!(rows.owners().unwrap(), 0);
    assert!(matches!(rows.advance_subject(&Subject { id: 999, ..full }), Err(StoreError::Unreadable { .. })));
}

/// After [`subjects`]: 1 is a device, 3 an operator.
fn certificates(rows: &mut dyn Rows) {
    let first = certificate(7, 0, Some(1));
    let own = Certificate {
        subject: None,
        generation: 0,
        standing: Standing::Good,
        confirm_before: None,
        token: None,
        ledger: LedgerName::System,
        ..certificate(7, 1, None)
    };
    let operators = Certificate { authority: 2, ..certificate(7, 2, Some(3)) };
    let later = certificate(8, 5, Some(1));
    let all = [first.clone(), own.clone(), operators.clone(), later.clone()];
    for each in all.iter().rev() {
        rows.insert_certificate(each).unwrap();
    }
    rows.insert_certificate(&Certificate { generation: 0, confirm_before: None, ..certificate(9, 0, None) }).unwrap();

    let id = |c: &Certificate| certificate_id(c.serial.epoch(), c.serial.index());
    for each in &all {
        assert_eq!(rows.certificate(id(each)).unwrap().as_ref(), Some(each));
        assert_eq!(rows.certificate_by_key(&each.key_hash).unwrap().as_ref(), Some(each));
    }
    let held = |standing| {
        let of =
            |c: &&Certificate| c.authority == 1 && c.subject.is_some() && c.ledger == first.ledger && c.standing == standing;
        u64::try_from(all.iter().filter(of).count()).unwrap()
    };
    let expected = InHands { good: held(Standing::Good), unconfirmed: held(Standing::Unconfirmed), suspended: 0 };
    assert!(expected.all() > 0);
    assert_eq!(rows.in_hands(1, &first.ledger, None, Timestamp(0)).unwrap(), expected);
    assert_eq!(rows.in_hands(1, &first.ledger, None, first.not_after.max(later.not_after)).unwrap(), InHands::default());
    assert_eq!(rows.in_hands(1, &first.ledger, Some(first.issued_at), Timestamp(0)).unwrap(), InHands::default());
    assert_eq!(rows.certificate(u64::MAX).unwrap(), None);
    assert_eq!(rows.certificate_by_key(&KeyHash([0xee; 32])).unwrap(), None);
    assert_eq!(rows.certificate_of(1, 6).unwrap().as_ref(), Some(&later));
    assert_eq!(rows.certificate_of(1, 2).unwrap(), None);
    assert_eq!(rows.taken(Epoch(7), Index(1), 2).unwrap(), [Index(1), Index(2)]);
    assert_eq!(rows.taken(Epoch(7), Index(3), 100).unwrap(), []);
    certificate_lists(rows, &all);

    assert_eq!(rows.lapsed(Timestamp(99), 9).unwrap(), []);
    assert_eq!(rows.lapsed(Timestamp(100), 9).unwrap(), std::slice::from_ref(&first));
    assert_eq!(rows.lapsed(Timestamp(999), 2).unwrap().len(), 2);
    let to = |c: &Certificate, standing, at| StandingUpdate { serial: c.serial, standing, at: Timestamp(at) };
    let revoked = Standing::Revoked(RevocationReason::AaCompromise);
    rows.update_standing(&to(&first, revoked, 77)).unwrap();
    rows.update_standing(&to(&later, Standing::Held, 78)).unwrap();
    let first = Certificate { standing: revoked, changed_at: Timestamp(77), ..first };
    let later = Certificate { standing: Standing::Held, changed_at: Timestamp(78), ..later };
    lists::standings(rows, &first, &own, &later);
    assert_eq!(rows.live_certificates_of(1).unwrap(), std::slice::from_ref(&later));
    rows.update_standing(&to(&later, Standing::Good, 79)).unwrap();
    assert_eq!(rows.certificate(id(&later)).unwrap().unwrap().standing, Standing::Good);
    let other = Serial::new(Epoch(7), Index(0), [8; 8]);
    let foreign = StandingUpdate { serial: other, standing: revoked, at: Timestamp(1) };
    assert!(matches!(rows.update_standing(&foreign), Err(StoreError::Unreadable { .. })));
}

fn certificate_lists(rows: &mut dyn Rows, all: &[Certificate; 4]) {
    let [first, own, operators, later] = all;
    let alpha = LedgerName::Fleet(fleet_name("alpha"));
    let none = CertificateFilter::default;
    let mut list = |filter: CertificateFilter, after, limit| {
        // The last one, of epoch 9, is there for the installation's second generation 0 alone.
        let mut found = rows.certificates(&filter, after, limit).unwrap();
        found.retain(|c| c.serial.epoch() != Epoch(9));
        found.into_iter().map(|c| c.serial).collect::<Vec<_>>()
    };
    let serials = |which: &[&Certificate]| which.iter().map(|c| c.serial).collect::<Vec<_>>();
    assert_eq!(list(none(), 0, 9), serials(&[first, own, operators, later]));
    assert_eq!(list(none(), 0, 2), serials(&[first, own]));
    assert_eq!(list(none(), certificate_id(Epoch(7), Index(1)), 9), serials(&[operators, later]));
    assert_eq!(list(CertificateFilter { authority: Some(2), ..none() }, 0, 9), serials(&[operators]));
    assert_eq!(list(CertificateFilter { subject: Some(1), ..none() }, 0, 9), serials(&[first, later]));
    assert_eq!(list(CertificateFilter { kind: Some(Kind::Device), ..none() }, 0, 9), serials(&[first, later]));
    assert_eq!(list(CertificateFilter { kind: Some(Kind::Operator), ..none() }, 0, 9), serials(&[operators]));
    assert_eq!(list(CertificateFilter { ledgers: Some(vec![]), ..none() }, 0, 9), []);
    assert_eq!(list(CertificateFilter { ledgers: Some(vec![LedgerName::System]), ..none() }, 0, 9), serials(&[own]));
    let both = CertificateFilter { ledgers: Some(vec![alpha, LedgerName::System]), ..none() };
    assert_eq!(list(both, 0, 9).len(), 4);
    assert_eq!(list(CertificateFilter { standing: Some(1), ..none() }, 0, 9), serials(&[own]));
    assert_eq!(list(CertificateFilter { expiring_before: Some(own.not_after), ..none() }, 0, 9), serials(&[first]));
    let between = CertificateFilter { expiring_after: Some(first.not_after), expiring_before: Some(later.not_after), ..none() };
    assert_eq!(list(between, 0, 9), serials(&[own, operators]));
    assert_eq!(list(CertificateFilter { fingerprint: Some(later.fingerprint), ..none() }, 0, 9), serials(&[later]));
}

fn tokens(rows: &mut dyn Rows) {
    let invitation = Token { kind: Kind::Operator, fleet: None, subject: Some(3), created_by: 3, ..token(0xf0) };
    let (one, two) = (token(1), token(2));
    for each in [&two, &one, &invitation] {
        rows.insert_token(each).unwrap();
        assert_eq!(rows.token(&each.id).unwrap().as_ref(), Some(each));
    }
    assert_eq!(rows.token(&[3; 8]).unwrap(), None);
    let alpha = fleet_name("alpha");
    assert_eq!(rows.tokens(Kind::Device, Some(&alpha), None, 9).unwrap(), [one.clone(), two.clone()]);
    assert_eq!(rows.tokens(Kind::Device, Some(&alpha), None, 1).unwrap(), std::slice::from_ref(&one));
    assert_eq!(rows.tokens(Kind::Device, Some(&alpha), Some(&one.id), 9).unwrap(), [two]);
    assert_eq!(rows.tokens(Kind::Operator, None, None, 9).unwrap(), [invitation]);
    let key = KeyHash([5; 32]);
    for state in [TokenState::Reserved(key), TokenState::Used(key), TokenState::Withdrawn, TokenState::Fresh] {
        let changed = Token { state, ..one.clone() };
        rows.set_token_state(&changed).unwrap();
        assert_eq!(rows.token(&one.id).unwrap(), Some(changed));
    }
}

fn ledgers(rows: &mut dyn Rows) {
    let system = ledger(LedgerName::System);
    let mut alpha = ledger(LedgerName::Fleet(fleet_name("alpha")));
    rows.insert_ledger(&system).unwrap();
    rows.insert_ledger(&alpha).unwrap();
    assert_eq!(rows.ledgers().unwrap(), [alpha.clone(), system.clone()]);
    assert_eq!(rows.ledger(&alpha.name).unwrap().as_ref(), Some(&alpha));
    assert_eq!(rows.lock_ledger(&LedgerName::Fleet(fleet_name("gamma"))).unwrap(), None);

    let mut nodes = Vec::new();
    let entries: Vec<_> = (0..600_u64)
        .map(|position| {
            let entry = position.to_le_bytes().to_vec();
            alpha.frontier.append(leaf_hash(&entry), |node, hash| nodes.push((node, hash)));
            StoredEntry { position, entry, details: (position % 2 == 0).then(|| vec![0xd0, 0]) }
        })
        .collect();
    assert_eq!(nodes.len(), 2);
    rows.insert_entries(&alpha.name, &entries).unwrap();
    rows.insert_nodes(&alpha.name, &nodes).unwrap();
    rows.set_frontier(&alpha).unwrap();
    assert_eq!(rows.lock_ledger(&alpha.name).unwrap(), Some(alpha.clone()));
    assert_eq!(rows.ledger(&system.name).unwrap(), Some(system.clone()));
    assert_eq!(rows.entries(&alpha.name, 0, 1_000).unwrap(), entries);
    assert_eq!(rows.entries(&alpha.name, 598, 1_000).unwrap(), entries[598..]);
    assert_eq!(rows.entries(&alpha.name, 10, 3).unwrap(), entries[10..13]);
    assert_eq!(rows.entries(&system.name, 0, 9).unwrap(), []);
    let hashes: Vec<Hash> = nodes.iter().map(|(_, hash)| *hash).collect();
    assert_eq!(rows.nodes(&alpha.name, Node { level: 8, index: 0 }, 256).unwrap(), hashes);
    assert_eq!(rows.nodes(&alpha.name, Node { level: 8, index: 1 }, 1).unwrap(), hashes[1..]);
    assert_eq!(rows.nodes(&alpha.name, Node { level: 16, index: 0 }, 256).unwrap(), []);
}

fn lists_and_requests(rows: &mut dyn Rows) {
    let crl = StoredCrl {
        authority: 2,
        number: 1,
        this_update: Timestamp(1),
        next_update: Timestamp(2),
        position: 3,
        der: vec![1; 5_000],
    };
    assert_eq!(rows.crl(2).unwrap(), None);
    rows.put_crl(&crl).unwrap();
    assert_eq!(rows.crl(2).unwrap().as_ref(), Some(&crl));
    let next = StoredCrl { number: 2, der: vec![], ..crl };
    rows.put_crl(&next).unwrap();
    assert_eq!(rows.crl(2).unwrap(), Some(next));

    let value = |at| Remembered { request_hash: [6; 32], resource: "r".to_owned(), at: Timestamp(at) };
    rows.remember(1, "key", &value(10)).unwrap();
    rows.remember(2, "key", &value(20)).unwrap();
    assert_eq!(rows.remembered(1, "key").unwrap(), Some(value(10)));
    assert_eq!(rows.remembered(1, "Key").unwrap(), None);
    assert_eq!(rows.forget(Timestamp(20)).unwrap(), 1);
    assert_eq!(rows.remembered(1, "key").unwrap(), None);
    assert_eq!(rows.remembered(2, "key").unwrap(), Some(value(20)));
}

fn touched_and_allowed(rows: &mut dyn Rows) {
    let (alpha, beta) = (fleet_name("alpha"), fleet_name("beta"));
    for (operator, fleet, subject, at) in
        [(1, &alpha, 5, 10), (1, &alpha, 6, 20), (1, &alpha, 5, 30), (1, &beta, 5, 30), (2, &alpha, 5, 30)]
    {
        rows.touch(operator, fleet, subject, Timestamp(at)).unwrap();
    }
    let touched = |rows: &mut dyn Rows, operator, since| {
        rows.touched(operator, &fleet_name("alpha"), Timestamp(since), Timestamp(179)).unwrap()
    };
    // A minute counts whole.
    assert_eq!(touched(rows, 1, -1), 2);
    assert_eq!(touched(rows, 1, 0), 0);
    assert_eq!(rows.touched_at(1, &alpha, 5).unwrap(), Some(Timestamp(30)));
    assert_eq!(rows.touched_at(2, &beta, 5).unwrap(), None);
    rows.touch(1, &alpha, 5, Timestamp(65)).unwrap();
    assert_eq!(touched(rows, 1, -1), 2, "a device counts once");
    assert_eq!(touched(rows, 1, 0), 1);
    for devices in [100_000, 7] {
        rows.count_touched(1, &alpha, Timestamp(119), devices).unwrap();
    }
    // Of a clock that was ahead.
    rows.touch(1, &alpha, 7, Timestamp(180)).unwrap();
    assert_eq!(touched(rows, 1, 59), 100_008);
    assert_eq!(rows.forget_touched(Timestamp(59), Timestamp(179)).unwrap(), 4);
    assert_eq!(touched(rows, 1, -1), 100_008);
    assert_eq!(touched(rows, 2, -1), 0);
    assert_eq!(rows.touched(1, &alpha, Timestamp(-1), Timestamp(999)).unwrap(), 100_008);

    let allowance = |id, expires_at| Allowance {
        id,
        fleet: fleet_name("alpha"),
        operator: 1,
        devices: 50,
        allowed_by: 2,
        allowed_at: Timestamp(1),
        expires_at: Timestamp(expires_at),
    };
    rows.insert_allowance(&allowance(i64::MAX.unsigned_abs(), 20)).unwrap();
    rows.insert_allowance(&allowance(3, 10)).unwrap();
    assert_eq!(rows.allowances(&alpha, Timestamp(9)).unwrap(), [allowance(3, 10), allowance(i64::MAX.unsigned_abs(), 20)]);
    assert_eq!(rows.allowances(&alpha, Timestamp(19)).unwrap().len(), 1);
    assert_eq!(rows.allowances(&alpha, Timestamp(20)).unwrap(), []);
    assert_eq!(rows.allowances(&beta, Timestamp(0)).unwrap(), []);
}

/// What is unique is unique. Each in a transaction of its own: PostgreSQL ends one with its first error.
fn collisions(connection: &mut impl Connection) {
    type Try = fn(&mut dyn Rows) -> Result<(), StoreError>;
    let tries: [(&str, Try); 11] = [
        ("fleet", |rows| rows.insert_fleet(&fleet("alpha"))),
        ("epoch", |rows| {
            let opened_at = Timestamp(0);
            rows.insert_epoch(&EpochRecord { number: Epoch(99), authority: 1, opened_at, closed_at: None, next_index: 0 })
        }),
        ("name", |rows| rows.insert_subject(&subject(Kind::Device, Some("alpha"), "SENSOR_1")).map(drop)),
        ("place", |rows| rows.insert_certificate(&Certificate { key_hash: KeyHash([1; 32]), ..certificate(7, 0, Some(9)) })),
        ("key", |rows| {
            let KeyHash(hash) = certificate(7, 0, None).key_hash;
            rows.insert_certificate(&Certificate { key_hash: KeyHash(hash), ..certificate(20, 0, Some(9)) })
        }),
        ("generation", |rows| rows.insert_certificate(&Certificate { generation: 1, ..certificate(21, 0, Some(1)) })),
        ("token", |rows| rows.insert_token(&token(1))),
        ("entry", |rows| {
            let entry = StoredEntry { position: 5, entry: vec![], details: None };
            rows.insert_entries(&LedgerName::Fleet(fleet_name("alpha")), &[entry])
        }),
        ("request", |rows| {
            rows.remember(2, "key", &Remembered { request_hash: [0; 32], resource: String::new(), at: Timestamp(0) })
        }),
        ("policy set", |rows| rows.insert_policy_set(&policies::policy_set(&LedgerName::System, 7))),
        ("activation", |rows| {
            let active = rows.active_policy(&LedgerName::System).unwrap().unwrap();
            rows.insert_policy_activation(&active)
        }),
    ];
    for (what, attempt) in tries {
        connection.begin_write().unwrap();
        let result = attempt(connection);
        connection.rollback().unwrap();
        assert!(matches!(result, Err(StoreError::Collision)), "{what}: {result:?}");
    }
    // An authority that is not there has no epoch.
    connection.begin_write().unwrap();
    let orphan = EpochRecord { number: Epoch(99), authority: 77, opened_at: Timestamp(0), closed_at: None, next_index: 0 };
    assert!(connection.insert_epoch(&orphan).is_err());
    connection.rollback().unwrap();
}

/// What was rolled back is not there; a reader sees one state; a reader cannot write.
fn transactions(backend: &impl Backend, writer: &mut impl Connection) {
    writer.begin_write().unwrap();
    writer.set_value("kept", &[1]).unwrap();
    writer.commit().unwrap();
    writer.begin_write().unwrap();
    writer.set_value("kept", &[2]).unwrap();
    writer.rollback().unwrap();

    let mut reader = backend.connect_reader().unwrap();
    reader.begin_read().unwrap();
    assert_eq!(reader.value("kept").unwrap(), Some(vec![1]));
    writer.begin_write().unwrap();
    writer.set_value("kept", &[3]).unwrap();
    writer.commit().unwrap();
    assert_eq!(reader.value("kept").unwrap(), Some(vec![1]));
    reader.rollback().unwrap();
    reader.begin_read().unwrap();
    assert_eq!(reader.value("kept").unwrap(), Some(vec![3]));
    assert!(reader.set_value("kept", &[4]).is_err());
    reader.rollback().unwrap();
}
