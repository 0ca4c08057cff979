//! Other authorities: their rows, and the acts on them.

use std::time::Duration;

use fleetmark_domain::{
    CertificateEvent, Epoch, Fingerprint, KeyHash, Kind, LedgerName, Refusal, RevocationReason, Standing, Timestamp,
};
use fleetmark_external::{FIRST_ID, Foreign, Said};

use super::enrollment::details;
use super::{fleet_name, subject};
use crate::store::acts::external::expect::{Expect, Expectation, Unexpect};
use crate::store::acts::external::{
    Adopt, Arrival, ChangeExternal, CreateExternal, Fate, MergeForeign, Permit, PutForeignList,
};
use crate::store::acts::revocations::applies_to;
use crate::store::acts::standing::{ChangeStanding, Scope};
use crate::store::model::{
    AdoptWhen, Adopting, Among, Expected, External, ExternalCertificate, ExternalRules, ExternalSwitch, ForeignList, Pick,
    Sighted, StatusSource,
};
use crate::store::rows::Rows;
use crate::store::{Store, StoreError, commit, read};

const NOW: Timestamp = Timestamp(5_000);

/// A self-signed CA certificate with the subject CN=s, made by openssl.
const CA: &str = concat!(
    "3082016f30820115a00302010202147c1195114692911856d28bcad9a9fb2bad09e507300a06082a8648ce3d040302300c310a30080603",
    "5504030c01733020170d3236313132333037353330385a180f32313236313033303037353330385a300c310a300806035504030c017330",
    "59301306072a8648ce3d020106082a8648ce3d030107034200041c91d2b019de733a486639393f2888d462eaffb881859ed2c1c2d45f73",
    "fd76834e61da5ad98b2382920ae1eca82f0ac1a42558ed356176ef1f7231a3b11a385ca3533051301d0603551d0e04160414c8afe6d8e8",
    "4e3ccb344bd88d01249479780ca2e2301f0603551d23041830168014c8afe6d8e84e3ccb344bd88d01249479780ca2e2300f0603551d13",
    "0101ff040530030101ff300a06082a8648ce3d0403020348003045022100a625b7c97ca5690282f54750e284b5516c251ea599145a481b",
    "80dfcb0bc0c0de02201ed6bd2c78dd8bb7daca3278b73671887e85f3d535e8864ecbd66138628efd18",
);

fn external(fleet: &str, name: &str) -> External {
    External {
        id: 0,
        fleet: fleet_name(fleet),
        name: name.parse().unwrap(),
        switch: ExternalSwitch::Enabled,
        stale: false,
        rules: ExternalRules { interval: 3_600, ..ExternalRules::default() },
        material: hex::decode(CA).unwrap(),
        epoch: None,
        next_index: 0,
        sighted: Sighted::default(),
        created_at: NOW,
        created_by: 1,
        version: 1,
    }
}

fn adopted(number: u8, authority: u32) -> ExternalCertificate {
    ExternalCertificate {
        fingerprint: Fingerprint([number; 32]),
        place: u64::from(number) << 32,
        authority,
        issuer: [7; 32],
        serial: vec![0x80, number],
        key_hash: KeyHash([number; 32]),
        own: Standing::Good,
        foreign: Standing::Good,
        not_after: Timestamp(9_000),
        next_update: None,
    }
}

/// Every column comes back as it went in, and lists are in order.
pub fn rows(rows: &mut dyn Rows) {
    let first = External { id: FIRST_ID + 700, ..external("rows-a", "Old-CA") };
    let second = External {
        id: FIRST_ID + 701,
        switch: ExternalSwitch::Disabled,
        stale: true,
        rules: ExternalRules {
            usages: vec!["1.2.3".to_owned()],
            status: StatusSource::Crl { urls: vec!["http://a.example/".to_owned()] },
            adopt: Adopting { when: AdoptWhen::OnSight, hourly: 3, most: u32::MAX },
            ..external("rows-b", "x").rules
        },
        epoch: Some(Epoch(900)),
        next_index: 8,
        sighted: Sighted { all: u32::MAX, hour: Timestamp(77), within: 2 },
        ..external("rows-b", "old-ca")
    };
    for one in [&first, &second] {
        rows.insert_external(one).unwrap();
        assert_eq!(rows.external(one.id).unwrap().as_ref(), Some(one));
    }
    assert_eq!(rows.external_by_name(&first.fleet, "old-ca").unwrap().as_ref(), Some(&first));
    assert_eq!(rows.externals(Some(&second.fleet)).unwrap(), std::slice::from_ref(&second));
    assert_eq!(rows.externals(None).unwrap(), [first.clone(), second.clone()]);
    assert_eq!(rows.highest_epoch().unwrap(), Epoch(900));
    let closed = External { epoch: None, sighted: Sighted::default(), ..second };
    rows.update_external(&closed).unwrap();
    assert_eq!(rows.external(closed.id).unwrap(), Some(closed));

    let known = [adopted(1, first.id), adopted(2, first.id), adopted(3, first.id + 1)];
    for one in known.iter().rev() {
        rows.insert_external_certificate(one).unwrap();
        assert_eq!(rows.external_certificate(&one.fingerprint).unwrap().as_ref(), Some(one));
        assert_eq!(rows.external_at(one.place).unwrap().as_ref(), Some(one));
        let by_serial = rows.external_by_serial(one.authority, &one.issuer, &one.serial).unwrap();
        assert_eq!(by_serial.as_ref(), Some(one));
    }
    assert_eq!(rows.external_certificates(&[first.id], 0, 10).unwrap(), known[..2]);
    assert_eq!(rows.external_certificates(&[first.id, first.id + 1], known[0].place, 1).unwrap(), known[1..2]);
    let merged = ExternalCertificate {
        own: Standing::Held,
        foreign: Standing::Revoked(RevocationReason::KeyCompromise),
        next_update: Some(Timestamp(4)),
        ..known[0].clone()
    };
    rows.update_external_certificate(&merged).unwrap();
    assert_eq!(rows.external_certificate(&merged.fingerprint).unwrap(), Some(merged));

    let list = |url: &str, number: u8| ForeignList {
        authority: first.id,
        url: url.to_owned(),
        issuer: [number; 32],
        number: vec![number],
        this_update: Timestamp(1),
        next_update: Timestamp(2),
        etag: "\"a\"".to_owned(),
        modified: String::new(),
        fetched_at: Timestamp(3),
        der: vec![number; 70_000],
    };
    for one in [list("http://b.example/", 1), list("http://a.example/", 2), list("http://b.example/", 3)] {
        rows.put_foreign_list(&one).unwrap();
    }
    assert_eq!(rows.foreign_lists(first.id).unwrap(), [list("http://a.example/", 2), list("http://b.example/", 3)]);
    assert_eq!(rows.foreign_lists(first.id + 1).unwrap(), []);
    expected_rows(rows, first.id);
}

fn expected_rows(rows: &mut dyn Rows, authority: u32) {
    let expected = |number: u8, device: Option<&str>| Expected {
        fingerprint: Fingerprint([number; 32]),
        authority: authority + u32::from(number / 10),
        device: device.map(|name| name.parse().unwrap()),
        at: NOW,
    };
    let all = [expected(4, None), expected(5, Some("pump")), expected(16, None)];
    for one in all.iter().rev() {
        rows.put_expected(one).unwrap();
        assert_eq!(rows.expected(&one.fingerprint).unwrap().as_ref(), Some(one));
    }
    assert_eq!(rows.expected_of(&[authority], &[], 10).unwrap(), all[..2]);
    assert_eq!(rows.expected_of(&[authority, authority + 1], &[4; 32], 1).unwrap(), all[1..2]);
    rows.put_expected(&expected(5, None)).unwrap();
    assert_eq!(rows.expected(&Fingerprint([5; 32])).unwrap(), Some(expected(5, None)));
    for one in &all {
        assert!(rows.delete_expected(&one.fingerprint).unwrap());
        assert!(!rows.delete_expected(&one.fingerprint).unwrap());
    }
}

fn arrival(number: u8, name: &str, permit: Permit) -> Arrival {
    let foreign = Foreign {
        fingerprint: Fingerprint([number; 32]),
        issuer: [7; 32],
        subject: [8; 32],
        serial: vec![0x80, number],
        spki: vec![number],
        key_hash: KeyHash([number; 32]),
        said: Said::default(),
        usages: Vec::new(),
        lists: Vec::new(),
        responders: Vec::new(),
        not_before: Timestamp(1),
        not_after: Timestamp(90_000),
    };
    let device = subject(Kind::Device, Some("alpha"), name);
    Arrival { foreign, der: vec![number], device, permit, next_update: None, details: details() }
}

async fn adopt(store: &dyn Store, authority: u32, at: Timestamp, arrivals: Vec<Arrival>) -> Vec<Result<Fate, Refusal>> {
    commit(store, Adopt { fleet: fleet_name("alpha"), authority, arrivals, at }).await.unwrap()
}

fn change(external: &External) -> ChangeExternal {
    ChangeExternal {
        fleet: external.fleet.clone(),
        id: external.id,
        version: None,
        rules: None,
        material: None,
        switch: None,
        stale: None,
        details: details(),
        at: NOW,
    }
}

async fn size(store: &dyn Store) -> u64 {
    let alpha = LedgerName::Fleet(fleet_name("alpha"));
    read(store, move |rows| rows.ledger(&alpha)).await.unwrap().unwrap().frontier.size()
}

fn refusal<T>(outcome: Result<T, StoreError>) -> Option<Refusal> {
    outcome.err().map(|error| error.refusal())
}

/// In a founded store, as [`super::enrollment::works`] leaves it.
pub async fn works(store: &dyn Store) {
    let create =
        |name: &str| CreateExternal { external: external("alpha", name), repeatable: None, details: details(), at: NOW };
    let made = commit(store, create("silo")).await.unwrap();
    assert!(made.id >= FIRST_ID);
    assert_eq!(refusal(commit(store, create("SILO")).await), Some(Refusal::NameTaken));
    assert_eq!(refusal(commit(store, create("other")).await), Some(Refusal::ExternalAuthorityTaken));
    imported_and_merged(store, &made).await;
    seen(store, &made).await;
    suspended(store, &made).await;
    let ended = commit(store, ChangeExternal { switch: Some(ExternalSwitch::Ended), ..change(&made) }).await.unwrap();
    assert_eq!(ended.switch, ExternalSwitch::Ended);
    assert_eq!(refusal(commit(store, change_rules(&made, AdoptWhen::Import)).await), Some(Refusal::TransitionNotAllowed));
    // Its CA certificate is free again.
    assert!(commit(store, create("other")).await.is_ok());
}

fn change_rules(made: &External, when: AdoptWhen) -> ChangeExternal {
    let adopt = Adopting { when, hourly: 2, most: 3 };
    ChangeExternal { rules: Some(ExternalRules { adopt, ..made.rules.clone() }), ..change(made) }
}

/// One is adopted by import, and both sides say what it is worth.
async fn imported_and_merged(store: &dyn Store, made: &External) {
    let id = made.id;
    let before = size(store).await;
    let outcomes =
        adopt(store, id, NOW, vec![arrival(101, "silo-1", Permit::Import), arrival(102, "SILO-1", Permit::Import)]).await;
    assert_eq!(outcomes, [Ok(Fate::Adopted), Err(Refusal::NameTaken)]);
    // The epoch, the device, and its certificate.
    assert_eq!(size(store).await, before + 3);
    assert_eq!(adopt(store, id, NOW, vec![arrival(101, "silo-1", Permit::Import)]).await, [Ok(Fate::Known)]);
    let known = read(store, |rows| rows.external_certificate(&Fingerprint([101; 32]))).await.unwrap().unwrap();
    let place = known.place;
    let standing = async || read(store, move |rows| rows.certificate(place)).await.unwrap().unwrap().standing;
    assert_eq!(standing().await, Standing::Good);
    let merge = |said| MergeForeign {
        fleet: made.fleet.clone(),
        authority: id,
        said: vec![(Fingerprint([101; 32]), said, None), (Fingerprint([250; 32]), said, None)],
        details: details(),
        at: NOW,
    };
    assert_eq!(commit(store, merge(Standing::Held)).await.unwrap(), 1);
    assert_eq!(standing().await, Standing::Held);
    assert_eq!(commit(store, merge(Standing::Held)).await.unwrap(), 0);
    // Orders go by what we say: it can be held once more, and there is nothing to release.
    let picked = async |change| {
        let among = Among::Certificates(vec![place]);
        let pick = Pick { ledger: LedgerName::Fleet(fleet_name("alpha")), standings: applies_to(change), among };
        read(store, move |rows| rows.pick(&pick, 0, 9)).await.unwrap().into_iter().map(|one| one.authority).collect::<Vec<_>>()
    };
    assert_eq!(picked(CertificateEvent::Held).await, [id]);
    assert!(picked(CertificateEvent::Released).await.is_empty());
    assert_eq!(commit(store, merge(Standing::Good)).await.unwrap(), 1);
    assert_eq!(standing().await, Standing::Good);
    let revoked = Standing::Revoked(RevocationReason::KeyCompromise);
    assert_eq!(commit(store, merge(revoked)).await.unwrap(), 1);
    assert_eq!(commit(store, merge(Standing::Good)).await.unwrap(), 0);
    assert_eq!(standing().await, revoked);
    assert!(picked(CertificateEvent::Held).await.is_empty());
    let list = ForeignList {
        authority: id,
        url: "http://a.example/".to_owned(),
        issuer: [7; 32],
        number: vec![1],
        this_update: NOW,
        next_update: NOW + Duration::from_secs(9),
        etag: String::new(),
        modified: String::new(),
        fetched_at: NOW,
        der: vec![1],
    };
    commit(store, PutForeignList { fleet: made.fleet.clone(), list: list.clone() }).await.unwrap();
    assert_eq!(read(store, move |rows| rows.foreign_lists(id)).await.unwrap(), [list]);
}

/// What is seen is adopted by a permit, as many as the limits say, and without one nothing is.
async fn seen(store: &dyn Store, made: &External) {
    let (fleet, id) = (made.fleet.clone(), made.id);
    let expect = |number: u8| Expect {
        fleet: fleet.clone(),
        authority: id,
        expected: vec![Expected { fingerprint: Fingerprint([number; 32]), authority: id, device: None, at: NOW }],
    };
    let shown = |number: u8, permit| arrival(number, &format!("silo-{number}"), permit);
    let none = adopt(store, id, NOW, vec![shown(110, Permit::Sight), shown(111, Permit::Listed)]).await;
    assert_eq!(none, [Err(Refusal::ExternalUnknown), Err(Refusal::ExternalUnknown)]);
    assert_eq!(refusal(commit(store, expect(111)).await), Some(Refusal::TransitionNotAllowed));

    commit(store, change_rules(made, AdoptWhen::Listed)).await.unwrap();
    assert_eq!(commit(store, expect(111)).await.unwrap(), [Ok(Expectation::Expected)]);
    assert_eq!(commit(store, expect(101)).await.unwrap(), [Ok(Expectation::Known)]);
    let listed = vec![shown(110, Permit::Sight), shown(111, Permit::Listed), shown(112, Permit::Listed)];
    let told = adopt(store, id, NOW, listed).await;
    assert_eq!(told, [Err(Refusal::ExternalUnknown), Ok(Fate::Adopted), Err(Refusal::ExternalUnknown)]);
    assert_eq!(read(store, |rows| rows.expected(&Fingerprint([111; 32]))).await.unwrap(), None);
    commit(store, expect(112)).await.unwrap();
    let remove = || Unexpect { fleet: fleet.clone(), fingerprint: Fingerprint([112; 32]) };
    assert_eq!(commit(store, remove()).await.unwrap().1, made.name);
    assert_eq!(refusal(commit(store, remove()).await), Some(Refusal::NotFound));

    // Two an hour and three in all; one that was listed counts nowhere.
    commit(store, change_rules(made, AdoptWhen::OnSight)).await.unwrap();
    let full = Err(Refusal::ExternalAdoptionLimit);
    let first = (120..123).map(|number| shown(number, Permit::Sight)).collect();
    assert_eq!(adopt(store, id, NOW, first).await, [Ok(Fate::Adopted), Ok(Fate::Adopted), full]);
    let later = NOW + Duration::from_secs(3_600);
    // Not under the name of a device that is here, but for the key that it has.
    let mut ended = arrival(127, "silo-1", Permit::Sight);
    ended.foreign.key_hash = KeyHash([101; 32]);
    let taken = vec![arrival(125, "silo-120", Permit::Sight), arrival(126, "other-sensor", Permit::Sight), ended];
    let name_taken = Err(Refusal::ExternalNameTaken);
    assert_eq!(adopt(store, id, later, taken).await, [name_taken, name_taken, Err(Refusal::KeyEnded)]);
    let second = (122..124).map(|number| shown(number, Permit::Sight)).collect();
    assert_eq!(adopt(store, id, later, second).await, [Ok(Fate::Adopted), full]);
    let now = read(store, move |rows| rows.external(id)).await.unwrap().unwrap();
    assert_eq!(now.sighted, Sighted { all: 3, hour: later, within: 1 });
    let imported = adopt(store, id, later, vec![shown(123, Permit::Import)]).await;
    assert_eq!(imported, [Ok(Fate::Adopted)]);

    let disable = |switch| ChangeExternal { switch: Some(switch), ..change(made) };
    commit(store, disable(ExternalSwitch::Disabled)).await.unwrap();
    assert_eq!(adopt(store, id, later, vec![shown(124, Permit::Sight)]).await, [Err(Refusal::ExternalDisabled)]);
    commit(store, disable(ExternalSwitch::Enabled)).await.unwrap();
}

/// A suspended device is let in by no other certificate for its key, whoever shows or imports it.
async fn suspended(store: &dyn Store, made: &External) {
    let adopt_rules = Adopting { when: AdoptWhen::OnSight, hourly: 100, most: 100 };
    let rules = ExternalRules { adopt: adopt_rules, ..made.rules.clone() };
    commit(store, ChangeExternal { rules: Some(rules), ..change(made) }).await.unwrap();
    let (fleet, id) = (made.fleet.clone(), made.id);
    assert_eq!(adopt(store, id, NOW, vec![arrival(130, "silo-130", Permit::Import)]).await, [Ok(Fate::Adopted)]);
    let place = read(store, |rows| rows.external_certificate(&Fingerprint([130; 32]))).await.unwrap().unwrap().place;
    let serial = read(store, move |rows| rows.certificate(place)).await.unwrap().unwrap().serial;
    let listed = Expected { fingerprint: Fingerprint([132; 32]), authority: id, device: None, at: NOW };
    commit(store, Expect { fleet: fleet.clone(), authority: id, expected: vec![listed] }).await.unwrap();
    let ours = async |change| {
        let ledger = LedgerName::Fleet(fleet_name("alpha"));
        let scope = Scope::Certificate(serial);
        let (by, departure) = (None, None);
        let act = ChangeStanding { scope, ledger, change, by, details: details(), departure, at: NOW };
        commit(store, act).await.unwrap();
    };
    let theirs = async |said| {
        let said = vec![(Fingerprint([130; 32]), said, None)];
        let act = MergeForeign { fleet: fleet_name("alpha"), authority: id, said, details: details(), at: NOW };
        commit(store, act).await.unwrap();
    };
    let renewed = async |at| {
        let arrivals = [(131, Permit::Sight), (132, Permit::Listed), (133, Permit::Import)].map(|(number, permit)| {
            let mut renewed = arrival(number, "silo-130", permit);
            renewed.foreign.key_hash = KeyHash([130; 32]);
            renewed
        });
        adopt(store, id, at, arrivals.into()).await
    };
    ours(CertificateEvent::Held).await;
    assert_eq!(renewed(NOW).await, [Err(Refusal::Held); 3]);
    let ended = Timestamp(90_001);
    assert_eq!(renewed(ended).await, [Err(Refusal::Held); 3]);
    ours(CertificateEvent::Quarantined).await;
    assert_eq!(renewed(NOW).await, [Err(Refusal::Quarantined); 3]);
    ours(CertificateEvent::Released).await;
    theirs(Standing::Held).await;
    assert_eq!(renewed(NOW).await, [Err(Refusal::Held); 3]);
    // Nobody lifts their hold of what has ended.
    assert_eq!(renewed(ended).await, [Ok(Fate::Adopted); 3]);
}
