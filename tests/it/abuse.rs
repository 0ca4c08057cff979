//! Who asks too much, and what nobody gets a certificate for.

use fleetmark_ledger::entry::{Entry, Event};
use serde_json::{Value, json};

use crate::approval::{ask, decide, group, waiting};
use crate::harness::device::{enroll, sha256};
use crate::harness::server::text;
use crate::harness::{Device, Key, Server, run, shared, until};

/// The names of the alarms in a fleet's ledger.
async fn alarms(server: &Server, fleet: &str) -> Vec<String> {
    use base64::Engine as _;
    let page = server.owner().get(&format!("/v1/ledgers/{fleet}/entries?from=0&limit=256")).await.is(200).json();
    let entries = page["items"].as_array().unwrap().iter().map(|item| {
        let octets = base64::engine::general_purpose::STANDARD.decode(text(item, "entry")).unwrap();
        Entry::decode(&octets).unwrap().event
    });
    entries.filter_map(|event| if let Event::Alarmed { alarm, .. } = event { Some(alarm) } else { None }).collect()
}

#[test]
fn a_blocked_key_gets_no_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (key, other) = (Key::new(), Key::new());
        let hash = sha256(&key.spki());
        let body = json!({"keys": [hash.to_uppercase()], "reason": "found in a repository"});
        server.owner().post("/v1/blocked-keys", &body).await.is(200);
        server.owner().post("/v1/blocked-keys", &body).await.is(200);
        let listed = server.owner().get("/v1/blocked-keys?limit=500").await.is(200).json();
        let found: Vec<&Value> = listed["items"].as_array().unwrap().iter().filter(|item| item["key"] == *hash).collect();
        assert_eq!(found.len(), 1, "{listed}");
        assert_eq!(found[0]["reason"], "found in a repository");

        // The token is not burnt by the refusal.
        let token = server.token(&fleet, "blocked").await;
        let device = server.device_client(None);
        enroll(&device, &fleet, &token, &key, None).await.refused(409, "key_blocked");
        enroll(&device, &fleet, &token, &other, None).await.is(200);

        server.owner().delete(&format!("/v1/blocked-keys/{hash}")).await.is(200);
        server.owner().delete(&format!("/v1/blocked-keys/{hash}")).await.refused(404, "not_found");
        let token = server.token(&fleet, "released").await;
        enroll(&device, &fleet, &token, &key, None).await.is(200);

        for keys in [json!([]), json!(["00"]), json!(vec![hash; 501])] {
            server.owner().post("/v1/blocked-keys", &json!({"keys": keys})).await.refused(422, "invalid_value");
        }
    });
}

#[test]
fn a_key_revoked_for_compromise_is_refused_by_that_name() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (key, device) = (Key::new(), server.device_client(None));
        let token = server.token(&fleet, "stolen").await;
        enroll(&device, &fleet, &token, &key, None).await.is(200);
        let body = json!({"reason": "keyCompromise"});
        server.owner().post(&format!("/v1/fleets/{fleet}/devices/stolen/revoke"), &body).await.is(200);
        let token = server.token(&fleet, "stolen").await;
        let again = enroll(&device, &fleet, &token, &key, None).await;
        again.refused(409, "key_compromised");
        enroll(&device, &fleet, &token, &Key::new(), None).await.is(200);
    });
}

#[test]
fn one_alarm_is_one_entry_of_the_ledger() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (token, device) = (server.token(&fleet, "sensor").await, server.device_client(None));
        enroll(&device, &fleet, &token, &Key::new(), None).await.is(200);
        for _ in 0..5 {
            enroll(&device, &fleet, &token, &Key::new(), None).await.refused(409, "token_bound_to_other_key");
        }
        until("the alarm in the ledger", 10, async || (!alarms(&server, &fleet).await.is_empty()).then_some(())).await;
        // Time for a second one, which must not come.
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        assert_eq!(alarms(&server, &fleet).await, ["token_second_key"]);
    });
}

#[test]
fn who_has_no_proof_locks_nobody_out_and_one_proof_has_its_share() {
    let limits = [("FLEETMARK_LIMITS__PROOF_PER_SECOND", "1"), ("FLEETMARK_LIMITS__FLEET_PER_SECOND", "2")];
    let server = Server::start_with(&[], &limits);
    run(async {
        let (fleet, device) = ("default", server.device_client(None));
        // A flood of guesses, and of wrong requests, uses nothing up.
        for _ in 0..60 {
            let guess = format!("fmt_{}_{}", "0".repeat(16), "A".repeat(27));
            enroll(&device, fleet, &guess, &Key::new(), Some("guess")).await.refused(401, "token_unknown");
        }
        let body = json!({"uses": 200, "note": "shared"});
        let minted = server.owner().post(&format!("/v1/fleets/{fleet}/tokens"), &body).await.is(201).json();
        let (mut issued, mut refused) = (0, 0);
        for number in 0..30 {
            let answer = enroll(&device, fleet, &text(&minted, "token"), &Key::new(), Some(&format!("s{number}"))).await;
            match answer.status {
                200 => issued += 1,
                _ => {
                    assert!(!answer.header("retry-after").is_empty());
                    answer.refused(429, "rate_limited");
                    refused += 1;
                }
            }
        }
        assert!(issued >= 10 && refused >= 5, "{issued} issued, {refused} refused");
        // Another proof of the same fleet gets in.
        let token = server.token(fleet, "alone").await;
        enroll(&device, fleet, &token, &Key::new(), None).await.is(200);

        // Who waits for approval has shown nothing, and whom a person approved gets in.
        group(&server, fleet, "by-hand", &json!({}));
        let (waits, approved) = (Key::new(), Key::new());
        for _ in 0..30 {
            ask(&server, fleet, "waits", &waits).await.refused(202, "approval_pending");
        }
        ask(&server, fleet, "approved", &approved).await.refused(202, "approval_pending");
        let id = waiting(&server, fleet, "approved").await;
        decide(&server, fleet, &id, "approve", json!({})).await.is(200);
        ask(&server, fleet, "approved", &approved).await.is(200);
    });
}

#[test]
fn a_device_renews_so_often_an_hour_and_the_same_key_again_is_no_renewal() {
    let server = Server::start_with(&[], &[("FLEETMARK_LIMITS__RENEW_PER_HOUR", "3")]);
    run(async {
        let (one, other) = (Device::good(&server, "default", "one").await, Device::good(&server, "default", "other").await);
        let mut connection = one.connect(&server).await;
        let path = "/v1/fleets/default/renew";
        for _ in 0..3 {
            let body = json!({"csr": Key::new().csr()});
            connection.post(path, &body).await.unwrap().is(200);
            connection.post(path, &body).await.unwrap().is(200);
        }
        connection.post(path, &json!({"csr": Key::new().csr()})).await.unwrap().refused(429, "rate_limited");
        other.renew(&server).await.confirm(&server).await.is(200);
    });
}
