//! Second certificates: renewal with a new key, supersession, replay.

use serde_json::json;

use crate::harness::device::ask_verdict;
use crate::harness::{Device, Key, run, shared};

#[test]
fn a_renewed_certificate_supersedes_the_old_one_only_when_it_is_confirmed() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = Device::good(&server, &fleet, "a").await;
        let mut kept_open = old.connect(&server).await;
        assert_eq!(ask_verdict(&mut kept_open, &fleet).await, "ok");
        let new = old.renew(&server).await;
        assert_eq!((new.answer["generation"].as_u64(), new.answer["standing"].as_str()), (Some(2), Some("unconfirmed")));
        assert_eq!(new.answer["identity"], old.answer["identity"]);
        assert_ne!(new.serial(), old.serial());

        assert_eq!(old.standing(&server).await, "good");
        assert_eq!(old.verdict(&server).await, "ok");
        assert_eq!(ask_verdict(&mut kept_open, &fleet).await, "ok");
        assert_eq!(new.standing(&server).await, "unconfirmed", "asking about the old one does not confirm the new one");

        let counted = server.refused("superseded").await;
        new.confirm(&server).await.is(200);
        assert_eq!(old.standing(&server).await, "superseded");
        assert_eq!(old.verdict(&server).await, "superseded", "on a new connection");
        assert_eq!(ask_verdict(&mut kept_open, &fleet).await, "superseded", "on a connection that was open");
        assert!(server.refused("superseded").await >= counted + 2.0);
        assert_eq!(new.verdict(&server).await, "ok");
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "superseded_certificate_used")]).await >= 2.0);
    });
}

#[test]
fn a_renewal_is_replayed_with_the_same_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = Device::good(&server, &fleet, "a").await;
        let new = old.renew(&server).await;
        let body = json!({"csr": new.key.csr()});
        let path = format!("/v1/fleets/{fleet}/renew");
        let again = old.connect(&server).await.post(&path, &body).await.unwrap().is(200).json();
        assert_eq!(again["certificate"], new.answer["certificate"]);
        assert_eq!(again["replayed"], true);
        new.confirm(&server).await.is(200);
        // The answer got lost and the device asks with the new certificate itself.
        let again = new.connect(&server).await.post(&path, &body).await.unwrap().is(200).json();
        assert_eq!(
            (again["certificate"].clone(), again["standing"].as_str()),
            (new.answer["certificate"].clone(), Some("good"))
        );
    });
}

#[test]
fn a_second_renewal_revokes_the_first_that_was_not_confirmed() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = Device::good(&server, &fleet, "a").await;
        let lost = old.renew(&server).await;
        let new = old.renew(&server).await;
        assert_eq!(new.answer["generation"], 3);
        let record = lost.record(&server).await;
        assert_eq!((record["standing"].as_str(), record["reason"].as_str()), (Some("revoked"), Some("superseded")));
        assert_eq!(lost.verdict(&server).await, "revoked");
        assert_eq!(old.verdict(&server).await, "ok");
        assert_eq!(new.verdict(&server).await, "ok");
        assert_eq!(old.verdict(&server).await, "superseded");
    });
}

#[test]
fn renewal_takes_neither_a_foreign_key_nor_a_foreign_fleet_nor_nobody() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let a = Device::good(&server, &fleet, "a").await;
        let b = Device::good(&server, &fleet, "b").await;
        let mut connection = a.connect(&server).await;
        let path = format!("/v1/fleets/{fleet}/renew");
        connection.post(&path, &json!({"csr": b.key.csr()})).await.unwrap().refused(409, "key_of_another_device");
        let elsewhere = format!("/v1/fleets/{other}/renew");
        connection.post(&elsewhere, &json!({"csr": Key::new().csr()})).await.unwrap().refused(403, "wrong_fleet");
        let nobody = server.device_client(None);
        nobody.post(&path, &json!({"csr": Key::new().csr()})).await.refused(401, "certificate_required");
        nobody.post("/v1/renew", &json!({"csr": Key::new().csr()})).await.refused(401, "certificate_required");
        // The same key again is no renewal: the same certificate comes back.
        let again = connection.post(&path, &json!({"csr": a.key.csr()})).await.unwrap().is(200).json();
        assert_eq!((again["certificate"].clone(), again["replayed"].as_bool()), (a.answer["certificate"].clone(), Some(true)));
    });
}

#[test]
fn of_many_renewals_at_once_exactly_one_certificate_ends_up_good() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = Device::good(&server, &fleet, "a").await;
        let path = format!("/v1/fleets/{fleet}/renew");
        let tries = (0..12).map(|_| {
            let (key, path) = (Key::new(), path.clone());
            let client = server.device_client(Some(&old.identity));
            tokio::spawn(async move {
                let answer = client.post(&path, &json!({"csr": key.csr()})).await;
                (key, answer)
            })
        });
        let tries: Vec<_> = tries.collect();
        let mut newest = None;
        for attempt in tries {
            let (key, answer) = attempt.await.unwrap();
            let answer = answer.is(200).json();
            let generation = answer["generation"].as_u64().unwrap();
            if newest.as_ref().is_none_or(|(highest, _, _)| generation > *highest) {
                newest = Some((generation, key, answer));
            }
        }
        let (generation, key, answer) = newest.unwrap();
        assert_eq!(generation, 13);
        let identity = key.identity(&answer);
        assert_eq!(crate::harness::device::verdict(&server, &identity, &fleet).await, "ok");
        let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device&limit=100")).await.is(200).json();
        let standings: Vec<_> =
            all["items"].as_array().unwrap().iter().map(|item| item["standing"].as_str().unwrap()).collect();
        assert_eq!(standings.iter().filter(|standing| **standing == "good").count(), 1, "{standings:?}");
        assert_eq!(standings.iter().filter(|standing| **standing == "superseded").count(), 1, "{standings:?}");
        assert_eq!(standings.iter().filter(|standing| **standing == "revoked").count(), 11, "{standings:?}");
    });
}
