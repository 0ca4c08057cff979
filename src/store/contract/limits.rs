//! The blast radius by the acts, over any store in which [`enrollment`](super::enrollment) founded fleet `alpha`.

use fleetmark_domain::{Kind, LedgerName, Refusal, Role, Timestamp};
use fleetmark_ledger::details::Details;
use futures_util::future::join_all;

use super::{fleet_name, subject};
use crate::store::acts::fleets::ChangeFleet;
use crate::store::acts::limits::{Allow, Usage, usage};
use crate::store::acts::subjects::{ChangeSubject, Register};
use crate::store::model::{Allowance, Fleet, Subject, SubjectId};
use crate::store::{Store, StoreError, commit, read};

const NOW: Timestamp = Timestamp(10_000);
const LATER: Timestamp = Timestamp(10_000 + 3_600);

fn details() -> Details {
    Details {
        salt: [3; 16],
        actor: "fleetmark".to_owned(),
        subject: None,
        reason: None,
        note: None,
        attributes: std::collections::BTreeMap::new(),
    }
}

async fn register(store: &dyn Store, subject: Subject) -> Subject {
    let act = Register { subject, invitation: None, repeatable: None, details: details(), at: NOW };
    commit(store, act).await.unwrap().0
}

async fn operator(store: &dyn Store, name: &str) -> SubjectId {
    let operator = Subject { role: Some(Role::SecurityOfficer), ..subject(Kind::Operator, None, name) };
    register(store, operator).await.id
}

/// Changes a device's record, as whoever has read it.
async fn change(store: &dyn Store, id: SubjectId, by: Option<SubjectId>, at: Timestamp) -> Result<(), Refusal> {
    let subject = read(store, move |rows| rows.subject(id)).await.unwrap().unwrap();
    match commit(store, ChangeSubject { subject, by, details: details(), at }).await {
        Ok(_) => Ok(()),
        Err(StoreError::Refused(refusal)) => Err(refusal),
        Err(error) => panic!("{error}"),
    }
}

/// Changes each of them at once; how many changes were taken, and that the others were refused by name.
async fn changed(store: &dyn Store, devices: &[Subject], by: Option<SubjectId>, at: Timestamp) -> usize {
    let outcomes = join_all(devices.iter().map(|device| change(store, device.id, by, at))).await;
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Refusal::BlastRadiusExceeded))));
    taken
}

async fn set(store: &dyn Store, blast_radius: Option<u64>) {
    let fleet = read(store, |rows| rows.fleet(&fleet_name("alpha"))).await.unwrap().unwrap();
    let fleet = Fleet { blast_radius, ..fleet };
    assert_eq!(commit(store, ChangeFleet { fleet, details: details(), at: NOW }).await.unwrap().blast_radius, blast_radius);
}

async fn allow(store: &dyn Store, operator: SubjectId, by: SubjectId, devices: u64) -> Result<Allowance, StoreError> {
    let allowance = Allowance {
        id: 7 + devices,
        fleet: fleet_name("alpha"),
        operator,
        devices,
        allowed_by: by,
        allowed_at: NOW,
        expires_at: Timestamp(NOW.0 + 60),
    };
    commit(store, Allow { allowance, repeatable: None, details: details() }).await
}

/// Runs the checks.
pub async fn works(store: &dyn Store) {
    let (alice, bob, carol) = (operator(store, "alice").await, operator(store, "bob").await, operator(store, "carol").await);
    let names = (0..1_200).map(|number| format!("pump-{number}"));
    let devices = join_all(names.map(|name| register(store, subject(Kind::Device, Some("alpha"), &name)))).await;

    a_limit_holds(store, &devices, alice, carol).await;
    an_allowance_adds(store, &devices, alice, bob).await;
    assert_eq!(changed(store, &devices[..30], None, NOW).await, 30, "the server itself has no limit");

    // An hour later the count begins again.
    assert_eq!(changed(store, &devices[20..50], Some(alice), LATER).await, 12);
    // So it does once a clock that was ahead is put right.
    assert_eq!(changed(store, &devices[50..80], Some(carol), Timestamp(NOW.0 - 4_000)).await, 12);
}

async fn a_limit_holds(store: &dyn Store, devices: &[Subject], alice: SubjectId, carol: SubjectId) {
    set(store, Some(3)).await;
    assert_eq!(changed(store, &devices[..20], Some(carol), NOW).await, 3);
    // 1,201 devices: 1 % is 12. All at once: no two take the last place.
    set(store, None).await;
    assert_eq!(changed(store, &devices[..40], Some(alice), NOW).await, 12);
    let mut touched = 0;
    for id in devices[..40].iter().map(|device| device.id) {
        let now = read(store, move |rows| rows.subject(id)).await.unwrap().unwrap();
        let by_carol = read(store, move |rows| rows.touched_at(carol, &fleet_name("alpha"), id)).await.unwrap().is_some();
        touched += now.version - 1 - u64::from(by_carol);
    }
    assert_eq!(touched, 12, "a refusal changes nothing");
    // What was changed already may be changed again; what was not, may not.
    let mut again = Vec::new();
    for device in &devices[..40] {
        again.push(change(store, device.id, Some(alice), NOW).await.is_ok());
    }
    assert_eq!(again.iter().filter(|taken| **taken).count(), 12);
}

async fn an_allowance_adds(store: &dyn Store, devices: &[Subject], alice: SubjectId, bob: SubjectId) {
    let own = allow(store, alice, alice, 5).await;
    assert!(matches!(own, Err(StoreError::Refused(Refusal::NotPermitted))));
    let unknown = allow(store, 999_999, bob, 5).await;
    assert!(matches!(unknown, Err(StoreError::Refused(Refusal::NotFound))));
    let before = read(store, |rows| rows.ledger(&LedgerName::System)).await.unwrap().unwrap().frontier.size();
    let allowance = allow(store, alice, bob, 5).await.unwrap();
    let after = read(store, |rows| rows.ledger(&LedgerName::System)).await.unwrap().unwrap().frontier.size();
    assert_eq!(after, before + 1, "an allowance is in the ledger");
    let listed = read(store, |rows| rows.allowances(&fleet_name("alpha"), NOW)).await.unwrap();
    assert_eq!(listed, [allowance]);
    assert_eq!(changed(store, &devices[100..140], Some(alice), NOW).await, 5);
    let used = move |at| read(store, move |rows| usage(rows, alice, &fleet_name("alpha"), at));
    assert_eq!(used(NOW).await.unwrap(), Usage { used: 17, limit: 17 });
    // The allowance has ended; what was done under it still counts.
    let later = Timestamp(NOW.0 + 60);
    assert_eq!(read(store, move |rows| rows.allowances(&fleet_name("alpha"), later)).await.unwrap(), []);
    assert_eq!(used(later).await.unwrap(), Usage { used: 17, limit: 12 });
    assert_eq!(changed(store, &devices[200..205], Some(alice), later).await, 0);
}
