//! What orders ask of a store: what is picked and counted, and how an order is kept.

use std::collections::BTreeMap;

use fleetmark_domain::{
    CertificateEvent, Epoch, FleetName, Index, KeyHash, Kind, LedgerName, RevocationReason, Standing, Timestamp,
};

use super::{certificate, subject};
use crate::store::model::{Among, Certificate, Condition, Order, OrderState, Pick, Reach, Selector, Subject, SubjectState};
use crate::store::rows::{Rows, certificate_id};

const EPOCH: u32 = 177;

fn ledger() -> LedgerName {
    LedgerName::Fleet("orders".parse::<FleetName>().unwrap())
}

fn pick(among: Among) -> Pick {
    Pick { ledger: ledger(), standings: vec![0, 1, 2, 3, 4], among }
}

fn place(index: u32) -> u64 {
    certificate_id(Epoch(EPOCH), Index(index))
}

/// Three devices with two certificates each, and one of the installation's own.
fn fill(rows: &mut dyn Rows) -> Vec<u64> {
    let mut ids = Vec::new();
    let lives = [("Line-4_a", "1.2", Some(9)), ("line-4xb", "1.20", None), ("other", "1.2", Some(8))];
    for (number, (name, firmware, group)) in lives.into_iter().enumerate() {
        let attributes =
            BTreeMap::from([("a".to_owned(), "\"fw\":\"1.2\"".to_owned()), ("fw".to_owned(), firmware.to_owned())]);
        let holder = subject(Kind::Device, Some("orders"), name);
        let state = if number == 2 { SubjectState::Active } else { SubjectState::Registered };
        let id = rows.insert_subject(&Subject { attributes, group, state, confirmed_generation: 101, ..holder }).unwrap();
        // No other check holds such generations of whatever subject.
        for generation in 101..=102 {
            let index = u32::try_from(number).unwrap() * 2 + generation - 101;
            let standing = if generation == 101 { Standing::Good } else { Standing::Unconfirmed };
            let made = certificate(EPOCH, index, Some(id));
            let issued_at = Timestamp(i64::from(index));
            rows.insert_certificate(&Certificate { generation, standing, ledger: ledger(), issued_at, ..made }).unwrap();
        }
        ids.push(id);
    }
    rows.insert_certificate(&Certificate { generation: 0, ledger: ledger(), ..certificate(EPOCH, 90, None) }).unwrap();
    ids
}

fn indices(rows: &mut dyn Rows, pick: &Pick) -> Vec<u32> {
    let found = rows.pick(pick, 0, 100).unwrap();
    let holders: std::collections::BTreeSet<_> = found.iter().map(|picked| picked.subject).collect();
    let reach = Reach { certificates: u64::try_from(found.len()).unwrap(), holders: u64::try_from(holders.len()).unwrap() };
    assert_eq!(rows.reach(pick).unwrap(), reach);
    found.iter().map(|picked| picked.serial.index().0).collect()
}

/// Runs the checks.
pub fn rows(rows: &mut dyn Rows) {
    let ids = fill(rows);
    let condition = |change: &dyn Fn(&mut Condition)| {
        let mut condition = Condition::default();
        change(&mut condition);
        pick(Among::Where(condition))
    };
    let cases: Vec<(Pick, &[u32])> = vec![
        (condition(&|_| ()), &[0, 1, 2, 3, 4, 5]),
        (condition(&|it| it.name = Some("LINE-4*".to_owned())), &[0, 1, 2, 3]),
        (condition(&|it| it.name = Some("line-4_*".to_owned())), &[0, 1]),
        (condition(&|it| it.attributes = BTreeMap::from([("fw".to_owned(), "1.2".to_owned())])), &[0, 1, 4, 5]),
        (condition(&|it| it.attributes = BTreeMap::from([("FW".to_owned(), "1.2".to_owned())])), &[]),
        (condition(&|it| it.attributes = BTreeMap::from([("a".to_owned(), "\"fw\":\"1.2\"".to_owned())])), &[0, 1, 2, 3, 4, 5]),
        (condition(&|it| it.groups = Some(vec![8, 9])), &[0, 1, 4, 5]),
        (condition(&|it| it.groups = Some(vec![])), &[]),
        (condition(&|it| it.authority = Some(1)), &[0, 1, 2, 3, 4, 5]),
        (condition(&|it| it.authority = Some(2)), &[]),
        (condition(&|it| it.issued_before = Some(Timestamp(2))), &[0, 1]),
        (condition(&|it| it.issued_after = Some(Timestamp(4))), &[4, 5]),
        (condition(&|it| it.ends_before = Some(Timestamp(10_001))), &[0]),
        (pick(Among::Where(Condition::default().of_state(Some(SubjectState::Active)))), &[4, 5]),
        (pick(Among::Certificates(vec![place(5), place(2), place(90), place(91)])), &[2, 5]),
        (pick(Among::Subjects(vec![ids[2], ids[0], 999_999])), &[0, 1, 4, 5]),
        (Pick { standings: vec![0], ..pick(Among::Where(Condition::default())) }, &[1, 3, 5]),
        (Pick { ledger: LedgerName::System, ..pick(Among::Certificates(vec![place(0)])) }, &[]),
    ];
    for (pick, wanted) in &cases {
        assert_eq!(indices(rows, pick), *wanted, "{pick:?}");
    }
    let all = pick(Among::Where(Condition::default()));
    let page = rows.pick(&all, place(1), 2).unwrap();
    assert_eq!(page.iter().map(|picked| picked.serial.index().0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((page[1].generation, page[1].standing, page[1].confirmed_generation), (102, Standing::Unconfirmed, 101));

    let revoked = Standing::Revoked(RevocationReason::KeyCompromise);
    assert_eq!(rows.set_standings(place(1), place(3), revoked, Timestamp(9)).unwrap(), 3);
    assert_eq!(indices(rows, &all), [0, 4, 5]);
    let changed = rows.certificate(place(3)).unwrap().unwrap();
    assert_eq!((changed.standing, changed.changed_at), (revoked, Timestamp(9)));
    kept(rows);
}

fn order(id: u64) -> Order {
    Order {
        id,
        ledger: ledger(),
        state: OrderState::Scheduled,
        change: CertificateEvent::Revoked(RevocationReason::AaCompromise),
        selector: Selector::Where(Condition { name: Some("a*".to_owned()), ..Condition::default() }),
        selection: "name a*".to_owned(),
        note: "why".to_owned(),
        ordered_by: 1,
        ordered_at: Timestamp(1),
        approved_by: None,
        approved_at: None,
        cancelled_by: None,
        runs_at: Timestamp(50),
        expires_at: None,
        devices: 3,
        certificates: 6,
        covered: 0,
        sweep: false,
        place: 0,
        changed: 0,
        started_at: None,
        ended_at: None,
        failure: String::new(),
    }
}

fn kept(rows: &mut dyn Rows) {
    let selectors = [
        Selector::Certificates(vec![place(1)]),
        Selector::Subjects(vec![1, 2]),
        Selector::Key(place(3), KeyHash([7; 32])),
        Selector::Where(Condition { issued_before: Some(Timestamp(5)), groups: Some(vec![1]), ..Condition::default() }),
    ];
    let changes = [CertificateEvent::Held, CertificateEvent::Quarantined, CertificateEvent::Released];
    for (id, (selector, change)) in (10..).zip(selectors.into_iter().zip(changes.into_iter().cycle())) {
        let order = Order { change, selector, ..order(id) };
        rows.insert_order(&order).unwrap();
        assert_eq!(rows.order(id).unwrap(), Some(order));
    }
    let waits = Order { state: OrderState::AwaitingApproval, expires_at: Some(Timestamp(60)), ..order(20) };
    rows.insert_order(&waits).unwrap();
    assert_eq!(rows.order(999).unwrap(), None);
    assert_eq!(rows.open_orders(&ledger()).unwrap(), 5);
    assert_eq!(rows.due_orders(Timestamp(49), 10).unwrap(), []);
    assert_eq!(rows.due_orders(Timestamp(50), 10).unwrap().len(), 4);
    assert_eq!(rows.due_orders(Timestamp(60), 10).unwrap().last(), Some(&(20, OrderState::AwaitingApproval)));
    let moved = Order {
        state: OrderState::Running,
        approved_by: Some(2),
        approved_at: Some(Timestamp(2)),
        expires_at: None,
        covered: 3,
        sweep: true,
        place: place(2),
        changed: 4,
        started_at: Some(Timestamp(3)),
        ..waits
    };
    rows.update_order(&moved).unwrap();
    assert_eq!(rows.order(20).unwrap().as_ref(), Some(&moved));
    assert_eq!(rows.due_orders(Timestamp(0), 10).unwrap(), [(20, OrderState::Running)]);
    let done = Order {
        state: OrderState::Failed,
        cancelled_by: Some(3),
        ended_at: Some(Timestamp(9)),
        failure: "x".to_owned(),
        ..moved
    };
    rows.update_order(&done).unwrap();
    assert_eq!(rows.open_orders(&ledger()).unwrap(), 4);
    let ledgers = [ledger()];
    let ids = |orders: Vec<Order>| orders.into_iter().map(|order| order.id).collect::<Vec<_>>();
    assert_eq!(ids(rows.orders(None, None, u64::MAX, 3).unwrap()), [20, 13, 12]);
    assert_eq!(ids(rows.orders(Some(&ledgers), Some(OrderState::Scheduled), 12, 9).unwrap()), [11, 10]);
    assert_eq!(ids(rows.orders(Some(&[]), None, u64::MAX, 9).unwrap()), Vec::<u64>::new());
}
