//! Tokens for several devices, and what a token's terms let in.

use serde_json::{Value, json};

use crate::harness::device::{confirm_by_token, enroll};
use crate::harness::server::text;
use crate::harness::{Client, Device, Key, Server, run, shared, until};

/// A token of these terms, and its record.
async fn minted(server: &Server, fleet: &str, body: Value) -> (String, String) {
    let minted = server.mint(fleet, body).await;
    (text(&minted, "token"), text(&minted, "id"))
}

async fn record(server: &Server, fleet: &str, id: &str) -> Value {
    let list = server.owner().get(&format!("/v1/fleets/{fleet}/tokens?limit=500")).await.is(200).json();
    list["items"].as_array().unwrap().iter().find(|token| token["id"] == id).unwrap().clone()
}

fn counts(record: &Value) -> (u64, u64, &str) {
    (record["spent"].as_u64().unwrap(), record["remaining"].as_u64().unwrap(), record["state"].as_str().unwrap())
}

/// Enrolls a device and confirms it by its certificate.
async fn come(server: &Server, client: &Client, fleet: &str, token: &str, name: &str) -> Device {
    let key = Key::new();
    let answer = enroll(client, fleet, token, &key, Some(name)).await.is(200).json();
    let identity = key.identity(&answer);
    let device = Device { fleet: fleet.into(), name: name.into(), token: token.into(), key, answer, identity };
    device.confirm(server).await.is(200);
    device
}

#[test]
fn a_token_for_several_devices_counts_each_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let (token, id) = minted(&server, &fleet, json!({"uses": 2})).await;
        assert_eq!(counts(&record(&server, &fleet, &id).await), (0, 2, "fresh"));
        enroll(&client, &fleet, &token, &Key::new(), None).await.refused(422, "invalid_name");
        let one = come(&server, &client, &fleet, &token, "a").await;
        assert_eq!(counts(&record(&server, &fleet, &id).await), (1, 1, "fresh"));
        // A confirmed name is not taken over, in no case of its letters.
        enroll(&client, &fleet, &token, &Key::new(), Some("a")).await.refused(409, "name_taken");
        enroll(&client, &fleet, &token, &Key::new(), Some("A")).await.refused(409, "name_taken");
        // Nor one that came by another token.
        Device::unconfirmed(&server, &fleet, "foreign").await;
        enroll(&client, &fleet, &token, &Key::new(), Some("foreign")).await.refused(409, "name_taken");
        let two = come(&server, &client, &fleet, &token, "b").await;
        assert_eq!(counts(&record(&server, &fleet, &id).await), (2, 0, "used"));
        enroll(&client, &fleet, &token, &Key::new(), Some("c")).await.refused(409, "token_used");
        // What was given is given again, though the token is used up.
        for device in [&one, &two] {
            let again = enroll(&client, &fleet, &token, &device.key, Some(&device.name)).await.is(200).json();
            assert_eq!(again["certificate"], device.answer["certificate"]);
        }
        // A key of one is not another's.
        enroll(&client, &fleet, &token, &one.key, Some("b")).await.refused(409, "key_of_another_device");
        server.owner().delete(&format!("/v1/fleets/{fleet}/tokens/{id}")).await.is(200);
        enroll(&client, &fleet, &token, &one.key, Some("a")).await.refused(401, "token_withdrawn");
    });
}

#[test]
fn a_second_key_waits_until_the_first_certificate_lapsed_and_is_not_counted_again() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"unconfirmed_ttl_seconds": 60})).await;
        let client = server.device_client(None);
        let (token, id) = minted(&server, &fleet, json!({"uses": 2})).await;
        enroll(&client, &fleet, &token, &Key::new(), Some("slow")).await.is(200);
        let alarms = || async { server.metric("fleetmark_alarms_total", &[("alarm", "token_second_key")]).await };
        let before = alarms().await;
        enroll(&client, &fleet, &token, &Key::new(), Some("slow")).await.refused(409, "token_bound_to_other_key");
        assert!(alarms().await > before, "a second key raises no alarm");

        // The shortest time to live is a second; the job that revokes what lapsed may come before or after.
        let brief = server.fleet(json!({"unconfirmed_ttl_seconds": 1})).await;
        let (token, brief_id) = minted(&server, &brief, json!({"uses": 1_000})).await;
        let one = enroll(&client, &brief, &token, &Key::new(), Some("late")).await.is(200).json();
        let again = until("the certificate lapses", 30, || async {
            let answer = enroll(&client, &brief, &token, &Key::new(), Some("late")).await;
            if answer.status != 200 {
                answer.refused(409, "token_bound_to_other_key");
                return None;
            }
            Some(answer.json())
        })
        .await;
        assert_eq!(again["generation"], 2);
        assert_ne!(again["certificate"], one["certificate"]);
        assert_eq!(record(&server, &brief, &brief_id).await["spent"], 1, "it was counted again");
        assert_eq!(record(&server, &fleet, &id).await["spent"], 1);
    });
}

#[test]
fn of_fifty_clients_that_race_no_more_come_in_than_the_quota_says() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (token, id) = minted(&server, &fleet, json!({"uses": 7, "names": ["racer-*"]})).await;
        let tries = (0..50).map(|number| {
            let (token, fleet, client) = (token.clone(), fleet.clone(), server.device_client(None));
            // Forty names: ten of them are asked for with two keys.
            let name = format!("racer-{}", number % 40);
            tokio::spawn(async move { (name.clone(), enroll(&client, &fleet, &token, &Key::new(), Some(&name)).await) })
        });
        let tries: Vec<_> = tries.collect();
        let mut names = std::collections::BTreeSet::new();
        for attempt in tries {
            let (name, answer) = attempt.await.unwrap();
            match answer.status {
                200 => assert!(names.insert(name), "a name came in twice"),
                _ => assert!(["token_used", "token_bound_to_other_key"].contains(&answer.code().as_str()), "{}", answer.text()),
            }
        }
        assert_eq!(names.len(), 7);
        assert_eq!(counts(&record(&server, &fleet, &id).await), (7, 0, "used"));
        let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device")).await.is(200).json();
        assert_eq!(all["items"].as_array().unwrap().len(), 7, "{all}");
    });
}

#[test]
fn a_token_for_several_devices_confirms_by_serial_and_fingerprint() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let (token, _) = minted(&server, &fleet, json!({"uses": 5})).await;
        let (other, _) = minted(&server, &fleet, json!({"uses": 5})).await;
        let answer = enroll(&client, &fleet, &token, &Key::new(), Some("a")).await.is(200).json();
        let (serial, fingerprint) = (text(&answer, "serial"), text(&answer, "fingerprint"));
        let confirm = |token: &str, body: Value| {
            let (client, path, token) = (&client, format!("/v1/fleets/{fleet}/confirm"), format!("Bearer {token}"));
            async move { client.post_with(&path, &[("authorization", &token)], &body).await }
        };
        confirm_by_token(&client, &fleet, &token, &fingerprint).await.refused(403, "not_on_ledger");
        let body = json!({"fingerprint": fingerprint, "serial": serial});
        confirm(&other, body.clone()).await.refused(403, "not_on_ledger");
        confirm(&token, json!({"fingerprint": "00".repeat(32), "serial": serial})).await.refused(403, "not_on_ledger");
        confirm(&token, json!({"fingerprint": fingerprint, "serial": "x"})).await.refused(422, "invalid_value");
        for _ in 0..2 {
            assert_eq!(confirm(&token, body.clone()).await.is(200).json()["standing"], "good");
        }
        // A token for one device takes the serial too, and needs none.
        let device = Device::unconfirmed(&server, &fleet, "b").await;
        let body = json!({"fingerprint": device.fingerprint(), "serial": device.serial()});
        confirm(&device.token, body).await.is(200);
    });
}

#[test]
fn the_terms_of_a_token_are_refused_by_their_names() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let (names, networks) = (json!(["sensor-*", "cam-??"]), json!(["203.0.113.0/24", "2001:db8::/32"]));
        let (named, id) = minted(&server, &fleet, json!({"uses": 9, "names": names})).await;
        for (name, code) in [("sensor-1", ""), ("CAM-01", ""), ("cam-1", "name_not_allowed"), ("pump", "name_not_allowed")] {
            let answer = enroll(&client, &fleet, &named, &Key::new(), Some(name)).await;
            assert_eq!(answer.code(), code, "{name}");
        }
        assert_eq!(record(&server, &fleet, &id).await["names"], names);
        let (elsewhere, id) = minted(&server, &fleet, json!({"networks": networks})).await;
        enroll(&client, &fleet, &elsewhere, &Key::new(), Some("x")).await.refused(403, "network_not_allowed");
        assert_eq!(record(&server, &fleet, &id).await["networks"], networks);
        let (here, _) = minted(&server, &fleet, json!({"networks": ["127.0.0.0/8", "::1"]})).await;
        enroll(&client, &fleet, &here, &Key::new(), Some("x")).await.is(200);
        let later = time::OffsetDateTime::now_utc() + time::Duration::hours(2);
        let later = later.format(&time::format_description::well_known::Rfc3339).unwrap();
        let (closed, _) = minted(&server, &fleet, json!({"opens_at": later})).await;
        enroll(&client, &fleet, &closed, &Key::new(), Some("y")).await.refused(403, "outside_window");
    });
}

#[test]
fn terms_that_no_token_can_have_are_refused() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        for body in [
            json!({"uses": 0}),
            json!({"uses": 1_000_001}),
            json!({"uses": 2, "device": "a"}),
            json!({"names": ["a-*"], "device": "a"}),
            json!({"names": ["a/b"]}),
            json!({"names": vec!["a"; 17]}),
            json!({"networks": ["10.0.0.1/8"]}),
            json!({"networks": vec!["10.0.0.0/8"; 17]}),
            json!({"opens_at": "2100-01-01T00:00:00Z"}),
        ] {
            let answer = server.owner().post(&format!("/v1/fleets/{fleet}/tokens"), &body).await;
            assert_eq!(answer.code(), "invalid_value", "{body}");
        }
        let devices = server.owner().get(&format!("/v1/fleets/{fleet}/devices")).await.is(200).json();
        assert_eq!(devices["items"], json!([]), "a refused token registered its device");
    });
}
