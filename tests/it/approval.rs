//! Approval by a person: what waits, who decides, and that the same request then succeeds, once.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Role;
use fleetmark_ledger::details::Details;
use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::device::{enroll, sha256};
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Device, Key, Server, run, shared, until};
use crate::matrix::operator;

/// Changes the server's database behind its back.
pub fn sql(server: &Server, statement: &str) {
    let database = server.data().join("fleetmark.db");
    let output = Command::new("sqlite3").args(["-cmd", ".timeout 10000"]).arg(database).arg(statement).output();
    let output = output.expect("sqlite3 is installed");
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An enabled enrollment group that takes a person's approval as its proof.
pub fn group(server: &Server, fleet: &str, name: &str, rules: &Value) {
    let id = u64::from_str_radix(&sha256(format!("{fleet} {name}").as_bytes())[..15], 16).unwrap();
    let values = format!("{id}, '{fleet}', '{name}', '{name}', 3, 0, '{rules}', x'', NULL, 0, 0, 1, 1");
    sql(server, &format!("INSERT INTO enrollment_groups VALUES ({values})"));
}

/// A token whose devices a person approves.
async fn approval_token(server: &Server, fleet: &str, device: &str) -> String {
    let minted = server.mint(fleet, json!({"device": device})).await;
    sql(server, &format!("UPDATE tokens SET terms = '{{\"approval\":true}}' WHERE id = x'{}'", text(&minted, "id")));
    text(&minted, "token")
}

/// Asks without any proof.
pub async fn ask(server: &Server, fleet: &str, name: &str, key: &Key) -> Answer {
    let body = json!({"csr": key.csr(), "device": name});
    server.device_client(None).post(&format!("/v1/fleets/{fleet}/enroll"), &body).await
}

/// The fleet's requests in a state.
async fn requests(server: &Server, fleet: &str, state: &str) -> Vec<Value> {
    let list = server.owner().get(&format!("/v1/fleets/{fleet}/requests?state={state}&limit=500")).await.is(200).json();
    list["items"].as_array().unwrap().clone()
}

/// The id of the one request that waits for this name.
pub async fn waiting(server: &Server, fleet: &str, name: &str) -> String {
    let found: Vec<_> = requests(server, fleet, "waiting").await.into_iter().filter(|r| r["device"] == name).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    text(&found[0], "id")
}

pub async fn decide(server: &Server, fleet: &str, id: &str, act: &str, body: Value) -> Answer {
    server.owner().post(&format!("/v1/fleets/{fleet}/requests/{id}/{act}"), &body).await
}

#[test]
fn a_person_approves_and_the_same_request_succeeds() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({"attributes": {"site": "north"}}));
        let key = Key::new();
        for _ in 0..3 {
            let pending = ask(&server, &fleet, "cam-1", &key).await.refused(202, "approval_pending");
            assert_eq!(pending.header("retry-after"), "30");
            // openssl says the same of the key as what the operator and the device see.
            let (_, public) = openssl(&["req", "-pubkey", "-noout"], key.csr().as_bytes());
            let der = STANDARD.decode(public.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
            assert_eq!(pending.json()["detail"], format!("SHA-256 of the key: {}", sha256(&der)));
            let listed = requests(&server, &fleet, "waiting").await;
            assert_eq!(listed.len(), 1, "a retry made a second request");
            assert_eq!(listed[0]["key_sha256"], sha256(&der));
            assert_eq!(
                (&listed[0]["device"], &listed[0]["key_type"], &listed[0]["proof"], &listed[0]["source"]),
                (&json!("cam-1"), &json!("P-256"), &json!("group by-hand"), &json!("127.0.0.1"))
            );
        }
        let labels = [("fleet", fleet.as_str())];
        until("the gauge of waiting requests", 30, async || {
            (server.metric("fleetmark_requests_waiting", &labels).await > 0.5).then_some(())
        })
        .await;
        let id = waiting(&server, &fleet, "cam-1").await;
        let path = format!("/v1/fleets/{fleet}/requests/{id}");
        let viewer = server.admin_client(Some(&operator(&server, "approval-viewer", Role::Viewer, json!([fleet])).await.0));
        viewer.get(&path).await.is(200);
        viewer.post(&format!("{path}/approve"), &json!({})).await.refused(403, "not_permitted");
        let approved = decide(&server, &fleet, &id, "approve", json!({"note": "seen on line 4"})).await.is(200).json();
        assert_eq!((&approved["state"], &approved["decided_by"]), (&json!("approved"), &json!("admin")));
        decide(&server, &fleet, &id, "approve", json!({})).await.is(200);
        decide(&server, &fleet, &id, "refuse", json!({})).await.refused(409, "transition_not_allowed");

        let first = ask(&server, &fleet, "cam-1", &key).await.is(200).json();
        let again = ask(&server, &fleet, "cam-1", &key).await.is(200).json();
        assert_eq!(first["certificate"], again["certificate"]);
        assert_eq!((&first["replayed"], &again["replayed"]), (&json!(false), &json!(true)));
        assert_eq!(server.owner().get(&path).await.is(200).json()["state"], "done");
        decide(&server, &fleet, &id, "refuse", json!({"take_back": true})).await.refused(409, "transition_not_allowed");
        let device = server.owner().get(&format!("/v1/fleets/{fleet}/devices/cam-1")).await.is(200).json();
        assert_eq!(device["attributes"], json!({"site": "north"}));

        // An auditor reads who approved it.
        let entries = server.owner().get(&format!("/v1/ledgers/{fleet}/entries?from=0&limit=200")).await.is(200).json();
        let details = entries["items"].as_array().unwrap().iter().filter_map(|entry| entry["details"].as_str());
        let mut notes = details.filter_map(|text| Details::decode(&STANDARD.decode(text).unwrap()).unwrap().note);
        let wanted = "group by-hand, approved by spiffe://fleet.test/operator/admin";
        assert!(notes.any(|note| note == wanted), "the approval is not in the ledger");
    });
}

#[test]
fn a_refusal_names_its_reason_and_another_key_is_another_request() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        let (first, second, third) = (Key::new(), Key::new(), Key::new());
        ask(&server, &fleet, "a", &first).await.refused(202, "approval_pending");
        let id = waiting(&server, &fleet, "a").await;
        decide(&server, &fleet, &id, "refuse", json!({"reason": "not ours"})).await.is(200);
        let refused = ask(&server, &fleet, "a", &first).await.refused(403, "approval_refused");
        assert_eq!(refused.json()["detail"], "not ours");
        decide(&server, &fleet, &id, "refuse", json!({})).await.is(200);
        decide(&server, &fleet, &id, "approve", json!({})).await.refused(409, "transition_not_allowed");

        // Two more keys under the name, in any case of its letters; approving one refuses the other.
        ask(&server, &fleet, "a", &second).await.refused(202, "approval_pending");
        let approved = waiting(&server, &fleet, "a").await;
        ask(&server, &fleet, "A", &third).await.refused(202, "approval_pending");
        assert_eq!(requests(&server, &fleet, "waiting").await.len(), 2);
        decide(&server, &fleet, &approved, "approve", json!({})).await.is(200);
        let refused = ask(&server, &fleet, "A", &third).await.refused(403, "approval_refused");
        assert_eq!(refused.json()["detail"], "Another key was approved for this name.");

        // Taken back before it was used.
        decide(&server, &fleet, &approved, "refuse", json!({})).await.refused(409, "transition_not_allowed");
        decide(&server, &fleet, &approved, "refuse", json!({"take_back": true, "reason": "stolen"})).await.is(200);
        let refused = ask(&server, &fleet, "a", &second).await.refused(403, "approval_refused");
        assert_eq!(refused.json()["detail"], "stolen");

        let path = format!("/v1/fleets/{fleet}/requests");
        for id in ["0000000000000001", "zz", &approved.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")] {
            server.owner().get(&format!("{path}/{id}")).await.refused(404, "not_found");
            server.owner().post(&format!("{path}/{id}/approve"), &json!({})).await.refused(404, "not_found");
        }
        let other = server.fleet(json!({})).await;
        decide(&server, &other, &approved, "approve", json!({})).await.refused(404, "not_found");
        let long = json!({"reason": "x".repeat(257)});
        decide(&server, &fleet, &approved, "refuse", long).await.refused(422, "invalid_value");
    });
}

#[test]
fn a_token_may_need_a_person_too_and_is_not_spent_by_waiting() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (client, key) = (server.device_client(None), Key::new());
        let token = approval_token(&server, &fleet, "pump").await;
        for _ in 0..2 {
            enroll(&client, &fleet, &token, &key, None).await.refused(202, "approval_pending");
        }
        let tokens = server.owner().get(&format!("/v1/fleets/{fleet}/tokens")).await.is(200).json();
        assert_eq!(tokens["items"][0]["state"], "fresh");
        let id = waiting(&server, &fleet, "pump").await;
        let shown = server.owner().get(&format!("/v1/fleets/{fleet}/requests/{id}")).await.is(200).json();
        assert!(text(&shown, "proof").starts_with("token "), "{shown}");
        decide(&server, &fleet, &id, "approve", json!({})).await.is(200);
        enroll(&client, &fleet, &token, &Key::new(), None).await.refused(202, "approval_pending");
        enroll(&client, &fleet, &token, &key, None).await.is(200);
        enroll(&client, &fleet, &token, &key, None).await.is(200);
        enroll(&client, &fleet, &token, &Key::new(), None).await.refused(409, "token_bound_to_other_key");
        // Whoever shows a token that is none gets nobody's attention.
        let stranger = format!("fmt_{}_{}", "ab".repeat(8), "A".repeat(27));
        enroll(&client, &fleet, &stranger, &Key::new(), Some("b")).await.refused(401, "token_unknown");
        let waiting = requests(&server, &fleet, "waiting").await;
        assert_eq!(waiting.len(), 1, "{waiting:?}");
    });
}

#[test]
fn what_shows_nothing_comes_in_by_an_open_group_alone_and_within_its_terms() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let path = format!("/v1/fleets/{fleet}/enroll");
        ask(&server, &fleet, "a", &Key::new()).await.refused(401, "proof_required");
        ask(&server, "no-such-fleet", "a", &Key::new()).await.refused(401, "proof_required");
        group(&server, &fleet, "cams", &json!({"terms": {"names": ["cam-*"]}}));
        client.post(&path, &json!({"csr": Key::new().csr()})).await.refused(422, "invalid_name");
        client.post(&path, &json!({"csr": "?", "device": "cam-1"})).await.refused(400, "csr_malformed");
        ask(&server, &fleet, "a", &Key::new()).await.refused(403, "name_not_allowed");
        ask(&server, &fleet, "cam-1", &Key::new()).await.refused(202, "approval_pending");
        group(&server, &fleet, "far", &json!({"terms": {"networks": ["203.0.113.0/24"]}}));
        group(&server, &fleet, "listed", &json!({"listed_only": true}));
        ask(&server, &fleet, "cam-2", &Key::new()).await.refused(401, "group_unknown");
        for (group, status, code) in [
            ("cams", 202, "approval_pending"),
            ("far", 403, "network_not_allowed"),
            ("listed", 403, "serial_not_listed"),
            ("none", 401, "group_unknown"),
        ] {
            let body = json!({"csr": Key::new().csr(), "device": "cam-2", "group": group});
            client.post(&path, &body).await.refused(status, code);
        }
        sql(&server, &format!("UPDATE enrollment_groups SET state = 1 WHERE fleet = '{fleet}' AND name = 'far'"));
        let body = json!({"csr": Key::new().csr(), "device": "cam-2", "group": "far"});
        client.post(&path, &body).await.refused(403, "group_disabled");

        // Nobody is asked to approve what would be refused afterwards.
        let enrolled = Device::good(&server, &fleet, "cam-9").await;
        let anew = |key: Key| json!({"csr": key.csr(), "device": "cam-9", "group": "cams"});
        client.post(&path, &anew(Key::new())).await.refused(409, "reenrollment_denied");
        let permits = r#"{"reenroll_until":"2099-01-01T00:00:00Z"}"#;
        let whom = format!("fleet = '{fleet}' AND name = 'cam-9'");
        sql(&server, &format!("UPDATE subjects SET permits = '{permits}' WHERE {whom}"));
        client.post(&path, &anew(Key::new())).await.refused(202, "approval_pending");
        enrolled.act(&server, "retire", json!({})).await;
        client.post(&path, &anew(Key::new())).await.refused(403, "identity_out");
        server.owner().patch(&format!("/v1/fleets/{fleet}"), &[], &json!({"state": "closed"})).await.is(200);
        let body = json!({"csr": Key::new().csr(), "device": "cam-3", "group": "cams"});
        client.post(&path, &body).await.refused(403, "fleet_closed");
    });
}

#[test]
fn strangers_cannot_fill_the_list() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        let first = Key::new();
        ask(&server, &fleet, "d0", &first).await.refused(202, "approval_pending");
        for number in 1..10 {
            ask(&server, &fleet, &format!("d{number}"), &Key::new()).await.refused(202, "approval_pending");
        }
        let alarms = async || server.metric("fleetmark_alarms_total", &[("alarm", "too_many_waiting")]).await;
        let before = alarms().await;
        ask(&server, &fleet, "d10", &Key::new()).await.refused(429, "too_many_waiting");
        assert!(alarms().await > before);
        // Who is on it goes on waiting, and what is decided makes room.
        ask(&server, &fleet, "d0", &first).await.refused(202, "approval_pending");
        let id = waiting(&server, &fleet, "d1").await;
        decide(&server, &fleet, &id, "refuse", json!({})).await.is(200);
        ask(&server, &fleet, "d10", &Key::new()).await.refused(202, "approval_pending");

        // A fleet's whole list, from as many networks.
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        let columns =
            format!("random() & 0x7fffffffffffffff, '{fleet}', 'n' || n, 'n' || n, randomblob(32), 0, 'group by-hand'");
        let rows = format!("{columns}, '2001:db8:' || n || '::1', 'P-256', '', 0, NULL, NULL, 9999999999");
        let numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 999)";
        sql(&server, &format!("{numbers} INSERT INTO enrollment_requests SELECT {rows} FROM c"));
        ask(&server, &fleet, "last", &Key::new()).await.refused(202, "approval_pending");
        ask(&server, &fleet, "one-more", &Key::new()).await.refused(429, "too_many_waiting");
        assert_eq!(requests(&server, &fleet, "waiting").await.len(), 500, "a page has 500");
    });
}

#[test]
fn two_operators_and_a_polling_device_race_and_there_is_one_outcome() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        for round in 0..6 {
            let (name, key) = (format!("d{round}"), Key::new());
            // Many at once make one request.
            let polls: Vec<_> = (0..8).map(|_| ask(&server, &fleet, &name, &key)).collect();
            for answer in futures_util::future::join_all(polls).await {
                answer.refused(202, "approval_pending");
            }
            let id = waiting(&server, &fleet, &name).await;
            let acts: Vec<_> = (0..6)
                .map(|n| decide(&server, &fleet, &id, if n % 2 == round % 2 { "approve" } else { "refuse" }, json!({})))
                .collect();
            let polls: Vec<_> = (0..8).map(|_| ask(&server, &fleet, &name, &key)).collect();
            let (decisions, polled) =
                futures_util::future::join(futures_util::future::join_all(acts), futures_util::future::join_all(polls)).await;
            let states: Vec<_> =
                decisions.iter().filter(|answer| answer.status == 200).map(|a| text(&a.json(), "state")).collect();
            assert_eq!(states.len(), 3, "one decision wins, and is given thrice: {states:?}");
            let is_approved = states[0] != "refused";
            assert!(states.iter().all(|state| (state != "refused") == is_approved), "{states:?}");
            for answer in decisions.into_iter().filter(|answer| answer.status != 200) {
                answer.refused(409, "transition_not_allowed");
            }
            let last = ask(&server, &fleet, &name, &key).await;
            for answer in &polled {
                assert!(matches!(answer.status, 200 | 202 | 403), "{}", answer.text());
                assert!(answer.status != 200 || answer.json()["certificate"] == last.json()["certificate"]);
            }
            assert_eq!(last.status, if is_approved { 200 } else { 403 });
        }
        let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device&limit=500")).await.is(200).json();
        let done = requests(&server, &fleet, "done").await.len();
        assert_eq!(all["items"].as_array().unwrap().iter().filter(|c| c["kind"] == "device").count(), done);
    });
}

#[test]
fn nothing_is_kept_for_ever() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        let key = Key::new();
        ask(&server, &fleet, "a", &key).await.refused(202, "approval_pending");
        let first = waiting(&server, &fleet, "a").await;
        decide(&server, &fleet, &first, "approve", json!({})).await.is(200);
        // An approval that was not used in time is none.
        sql(&server, &format!("UPDATE enrollment_requests SET expires_at = 1 WHERE fleet = '{fleet}'"));
        server.owner().get(&format!("/v1/fleets/{fleet}/requests/{first}")).await.refused(404, "not_found");
        decide(&server, &fleet, &first, "approve", json!({})).await.refused(404, "not_found");
        ask(&server, &fleet, "a", &key).await.refused(202, "approval_pending");
        let second = waiting(&server, &fleet, "a").await;
        assert_ne!(first, second);
        sql(&server, &format!("UPDATE enrollment_requests SET expires_at = 1 WHERE fleet = '{fleet}'"));
        let database = server.data().join("fleetmark.db");
        until("the expired request is forgotten", 30, async || {
            let count = format!("SELECT count(*) FROM enrollment_requests WHERE fleet = '{fleet}'");
            let output = Command::new("sqlite3").args(["-cmd", ".timeout 10000"]).arg(&database).arg(count).output().unwrap();
            (String::from_utf8_lossy(&output.stdout).trim() == "0").then_some(())
        })
        .await;
    });
}

#[test]
fn requests_and_decisions_outlive_a_kill() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        let (approved, undecided) = (Key::new(), Key::new());
        ask(&server, &fleet, "a", &approved).await.refused(202, "approval_pending");
        ask(&server, &fleet, "b", &undecided).await.refused(202, "approval_pending");
        let id = waiting(&server, &fleet, "a").await;
        decide(&server, &fleet, &id, "approve", json!({})).await.is(200);
        server.kill_and_start();
        let first = ask(&server, &fleet, "a", &approved).await.is(200).json();
        ask(&server, &fleet, "b", &undecided).await.refused(202, "approval_pending");
        assert_eq!(requests(&server, &fleet, "waiting").await.len(), 1);
        server.kill_and_start();
        let again = ask(&server, &fleet, "a", &approved).await.is(200).json();
        assert_eq!(first["certificate"], again["certificate"]);
    });
}

#[test]
fn an_operator_decides_from_the_shell() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "by-hand", &json!({}));
        let (key, other) = (Key::new(), Key::new());
        ask(&server, &fleet, "cam-1", &key).await.refused(202, "approval_pending");
        ask(&server, &fleet, "cam-2", &other).await.refused(202, "approval_pending");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
            command.arg("--operator").arg(server.data().join("operator")).arg("request");
            let output = command.args(arguments).args(["--fleet", &fleet]).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let list = command(&["list"]);
        assert!(list.contains("cam-1") && list.contains("group by-hand"), "{list}");
        let (one, two) = (waiting(&server, &fleet, "cam-1").await, waiting(&server, &fleet, "cam-2").await);
        assert!(command(&["show", &one]).contains("key_sha256"));
        assert!(command(&["approve", &one, "--note", "seen"]).contains("approved"));
        let refused: Value = serde_json::from_str(&command(&["refuse", &two, "--reason", "no", "--json"])).unwrap();
        assert_eq!(refused["reason"], "no");
        ask(&server, &fleet, "cam-1", &key).await.is(200);
        assert!(command(&["list", "--state", "done"]).contains(&one));
        assert!(command(&["list", "--state", "any"]).lines().count() == 3);
    });
}
