//! Policy sets: the rows, and the acts over any store.

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use fleetmark_ledger::entry::{Entry, Event};

use super::enrollment::details;
use super::fleet_name;
use crate::store::acts::Repeatable;
use crate::store::acts::policies::{ActivatePolicySet, FirstPolicySet, PutPolicySet};
use crate::store::model::{PolicyActivation, PolicySet, PolicyVersion, Remembered};
use crate::store::rows::Rows;
use crate::store::{Store, StoreError, commit, read};

/// A set of `ledger`.
pub fn policy_set(ledger: &LedgerName, version: u64) -> PolicySet {
    PolicySet {
        ledger: ledger.clone(),
        version,
        text: format!("// für {version}\npermit (principal, action, resource);\n"),
        hash: [u8::try_from(version).unwrap(); 32],
        note: "für Halle 3".to_owned(),
        created_at: Timestamp(40),
        created_by: "spiffe://fleet.example/operator/alice".to_owned(),
    }
}

/// A scope's first set.
pub fn first(ledger: &LedgerName, at: Timestamp) -> FirstPolicySet {
    FirstPolicySet { set: PolicySet { created_at: at, ..policy_set(ledger, 0) }, details: details() }
}

pub fn rows(rows: &mut dyn Rows) {
    let (alpha, system) = (LedgerName::Fleet(fleet_name("alpha")), LedgerName::System);
    assert_eq!(rows.highest_policy(&alpha).unwrap(), 0);
    assert_eq!(rows.active_policy(&alpha).unwrap(), None);
    let (one, two, other) = (policy_set(&alpha, 1), policy_set(&alpha, 2), policy_set(&system, 7));
    for set in [&two, &one, &other] {
        rows.insert_policy_set(set).unwrap();
        assert_eq!(rows.policy_set(&set.ledger, set.version).unwrap().as_ref(), Some(set));
    }
    assert_eq!(rows.policy_set(&alpha, 7).unwrap(), None);
    assert_eq!(rows.policy_set(&alpha, u64::MAX).unwrap(), None);
    assert_eq!(rows.highest_policy(&alpha).unwrap(), 2);
    assert_eq!(rows.highest_policy(&system).unwrap(), 7);
    let listed = |set: &PolicySet| PolicyVersion {
        version: set.version,
        hash: set.hash,
        note: set.note.clone(),
        created_at: set.created_at,
        created_by: set.created_by.clone(),
    };
    assert_eq!(rows.policy_versions(&alpha, 0, 9).unwrap(), [listed(&one), listed(&two)]);
    assert_eq!(rows.policy_versions(&alpha, 0, 1).unwrap(), [listed(&one)]);
    assert_eq!(rows.policy_versions(&alpha, 1, 9).unwrap(), [listed(&two)]);
    assert_eq!(rows.policy_versions(&alpha, 2, 9).unwrap(), []);

    let activation = |ledger: &LedgerName, number, version| PolicyActivation {
        ledger: ledger.clone(),
        number,
        version,
        at: Timestamp(50),
        by: "fleetmark".to_owned(),
    };
    for (ledger, number, version) in [(&alpha, 1, 1), (&system, 1, 7), (&alpha, 2, 2), (&alpha, 3, 1)] {
        let activation = activation(ledger, number, version);
        rows.insert_policy_activation(&activation).unwrap();
        assert_eq!(rows.active_policy(ledger).unwrap(), Some(activation));
    }
    assert_eq!(rows.active_policy(&system).unwrap(), Some(activation(&system, 1, 7)));
}

/// Puts and activates in `store`, where the fleet `alpha` has its first set.
pub async fn works(store: &dyn Store) {
    let alpha = LedgerName::Fleet(fleet_name("alpha"));
    let size = size(store, &alpha).await;
    let repeatable = Repeatable {
        caller: 1,
        key: "put".to_owned(),
        value: Remembered { request_hash: [1; 32], resource: String::new(), at: Timestamp(70) },
    };
    let put = || PutPolicySet { set: policy_set(&alpha, 2), repeatable: Some(repeatable.clone()) };
    let second = commit(store, put()).await.unwrap();
    assert_eq!(second, policy_set(&alpha, 2));
    assert_eq!(commit(store, put()).await.unwrap(), second, "a repeat makes no other version");
    let third = commit(store, PutPolicySet { set: policy_set(&alpha, 2), repeatable: None }).await.unwrap();
    assert_eq!(third.version, 3);
    let nowhere = LedgerName::Fleet(fleet_name("nowhere"));
    let put = PutPolicySet { set: policy_set(&nowhere, 1), repeatable: None };
    refused(commit(store, put).await, Refusal::FleetUnknown);
    assert_eq!(self::size(store, &alpha).await, size, "what was only put stands in no ledger");

    let activate = |version, expected| ActivatePolicySet {
        ledger: alpha.clone(),
        version,
        expected,
        by: "alice".to_owned(),
        details: details(),
        at: Timestamp(80),
    };
    refused(commit(store, activate(2, Some(7))).await, Refusal::EtagMismatch);
    refused(commit(store, activate(9, None)).await, Refusal::NotFound);
    assert_eq!(self::size(store, &alpha).await, size);
    let done = commit(store, activate(2, Some(1))).await.unwrap();
    assert_eq!((done.activation.number, done.activation.version, done.position), (2, 2, Some(size)));
    assert_eq!(done.set, second);
    let again = commit(store, activate(2, Some(2))).await.unwrap();
    assert_eq!((again.activation, again.position), (done.activation, None));
    refused(commit(store, activate(1, Some(1))).await, Refusal::EtagMismatch);
    let back = commit(store, activate(1, None)).await.unwrap();
    assert_eq!((back.activation.number, back.activation.version, back.position), (3, 1, Some(size + 1)));
    commit(store, first(&alpha, Timestamp(90))).await.unwrap();
    assert_eq!(self::size(store, &alpha).await, size + 2, "a scope has one first set");

    let ledger = alpha.clone();
    let (entries, active) =
        read(store, move |rows| Ok((rows.entries(&ledger, size, 9)?, rows.active_policy(&ledger)?))).await.unwrap();
    assert_eq!(active, Some(back.activation));
    let events: Vec<_> = entries.iter().map(|stored| Entry::decode(&stored.entry).unwrap().event).collect();
    let expected = [Event::PolicyActivated { version: 2, hash: [2; 32] }, Event::PolicyActivated { version: 1, hash: [0; 32] }];
    assert_eq!(events, expected);
    assert!(entries.iter().all(|stored| stored.details.is_some()));
}

async fn size(store: &dyn Store, ledger: &LedgerName) -> u64 {
    let ledger = ledger.clone();
    read(store, move |rows| rows.ledger(&ledger)).await.unwrap().unwrap().frontier.size()
}

fn refused<T>(result: Result<T, StoreError>, expected: Refusal) {
    let refusal = result.err().map(|error| error.refusal());
    assert_eq!(refusal, Some(expected));
}
