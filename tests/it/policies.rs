//! Policy sets: put, checked, activated, rolled back; what they say counts at both doors, and stands in the ledger.

use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Role;
use fleetmark_ledger::entry::{Entry, Event};
use serde_json::{Value, json};

use crate::certificates::member;
use crate::harness::client::{Answer, Client};
use crate::harness::device::{enroll, sha256};
use crate::harness::server::text;
use crate::harness::{Device, Key, Server, run, shared};
use crate::matrix::operator;

/// What the fleet's set is, with `more`.
pub async fn with(server: &Server, scope: &str, more: &str) -> String {
    let active = server.owner().get(&format!("/v1/policies/{scope}")).await.is(200).json();
    format!("{}\n{more}\n", text(&active, "text"))
}

pub async fn put(client: &Client, scope: &str, cedar: &str) -> u64 {
    let put = client.post(&format!("/v1/policies/{scope}/versions"), &json!({"text": cedar})).await.is(201).json();
    assert_eq!(text(&put, "hash"), sha256(cedar.as_bytes()));
    put["version"].as_u64().unwrap()
}

pub async fn activate(client: &Client, scope: &str, version: u64) -> Answer {
    client.post(&format!("/v1/policies/{scope}/versions/{version}/activate"), &json!({"note": "test"})).await
}

/// The activations in a ledger: version and hash.
async fn activations(server: &Server, scope: &str) -> Vec<(u64, String)> {
    let entries = server.owner().get(&format!("/v1/ledgers/{scope}/entries?limit=256")).await.is(200).json();
    let decoded = entries["items"].as_array().unwrap().iter().map(|item| {
        assert!(item["position"].is_u64());
        Entry::decode(&STANDARD.decode(text(item, "entry")).unwrap()).unwrap().event
    });
    decoded
        .filter_map(|event| match event {
            Event::PolicyActivated { version, hash } => Some((version, hex::encode(hash))),
            _ => None,
        })
        .collect()
}

#[test]
fn a_set_is_checked_put_activated_and_rolled_back() {
    let server = shared();
    run(async {
        let owner = server.owner();
        let fleet = server.fleet(json!({})).await;
        let good = Device::good(&server, &fleet, "good").await;
        let active = owner.get(&format!("/v1/policies/{fleet}")).await.is(200);
        let first = active.json();
        assert_eq!((first["version"].as_u64(), first["usable"].as_bool()), (Some(1), Some(true)));
        assert_eq!(text(&first, "hash"), sha256(text(&first, "text").as_bytes()));
        assert_eq!(active.header("etag"), "\"1\"");

        let wrong = json!({"text": "permit (principal, action == Action::\"Fly\", resource);"});
        let check = owner.post("/v1/policies/check", &wrong).await.is(200).json();
        assert_eq!((check["ok"].as_bool(), check["findings"][0]["line"].as_u64()), (Some(false), Some(1)), "{check}");
        owner.post(&format!("/v1/policies/{fleet}/versions"), &wrong).await.refused(422, "policy_invalid");

        let cedar = with(&server, &fleet, "@id(\"none\") forbid (principal, action == Action::\"Enroll\", resource);").await;
        let check = owner.post("/v1/policies/check", &json!({"text": cedar})).await.is(200).json();
        assert_eq!(check, json!({"ok": true, "findings": []}));
        let version = put(owner, &fleet, &cedar).await;
        assert_eq!(version, 2);
        Device::good(&server, &fleet, "before").await;

        let path = format!("/v1/policies/{fleet}/versions/2/activate");
        owner.post_with(&path, &[("if-match", "\"7\"")], &json!({})).await.refused(412, "etag_mismatch");
        let done = owner.post_with(&path, &[("if-match", "\"1\"")], &json!({})).await.is(200);
        assert_eq!(done.header("etag"), "\"2\"");
        let done = done.json();
        assert_eq!((done["version"].as_u64(), done["changed"].as_bool()), (Some(2), Some(true)));
        let again = activate(owner, &fleet, 2).await.is(200).json();
        assert_eq!((again["changed"].as_bool(), &again["position"]), (Some(false), &Value::Null));
        owner.post_with(&path, &[("if-match", "\"1\"")], &json!({})).await.refused(412, "etag_mismatch");

        // What the set forbids is refused, and the token is as it was; what it permits goes on; so do other fleets.
        let refused = server.refused("policy_denied").await;
        let (token, key) = (server.token(&fleet, "after").await, Key::new());
        let client = server.device_client(None);
        enroll(&client, &fleet, &token, &key, None).await.refused(403, "policy_denied");
        assert!(server.refused("policy_denied").await > refused);
        good.renew(&server).await.confirm(&server).await.is(200);
        let other = server.fleet(json!({})).await;
        Device::good(&server, &other, "elsewhere").await;

        activate(owner, &fleet, 1).await.is(200);
        enroll(&client, &fleet, &token, &key, None).await.is(200);
        let versions = owner.get(&format!("/v1/policies/{fleet}/versions")).await.is(200).json();
        let listed: Vec<_> = versions["items"].as_array().unwrap().iter().map(|item| &item["active"]).collect();
        assert_eq!(listed, [true, false]);
        let set = owner.get(&format!("/v1/policies/{fleet}/versions/2")).await.is(200).json();
        assert_eq!(
            (text(&set, "text"), text(&set, "created_by")),
            (cedar.clone(), "spiffe://fleet.test/operator/admin".to_owned())
        );
        owner.get(&format!("/v1/policies/{fleet}/versions/3")).await.refused(404, "not_found");
        owner.get("/v1/policies/no-such-fleet").await.refused(404, "fleet_unknown");
        activate(owner, &fleet, 3).await.refused(404, "not_found");

        // Gateways fetch what the ledger names.
        let gateway = server.device_client(Some(&member(&server, "gateways", "policy-gateway").await));
        let path = format!("/v1/ledgers/{fleet}/policies");
        assert_eq!(gateway.get(&format!("{path}/2")).await.is(200).text(), cedar);
        for nothing in ["3", "0", "x", "18446744073709551616"] {
            gateway.get(&format!("{path}/{nothing}")).await.refused(404, "not_found");
        }
        gateway.get("/v1/ledgers/no-such-fleet/policies/1").await.refused(404, "not_found");
        let device = Device::good(&server, &fleet, "curious").await;
        let device = server.device_client(Some(&device.identity));
        device.get(&format!("{path}/2")).await.refused(403, "wrong_kind");

        let (one, two) = (text(&first, "hash"), sha256(cedar.as_bytes()));
        assert_eq!(activations(&server, &fleet).await, [(1, one.clone()), (2, two), (1, one)]);
    });
}

#[test]
fn renewal_is_asked_for_too_and_a_repeat_makes_no_second_version() {
    let server = shared();
    run(async {
        let owner = server.owner();
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "old-model").await;
        let other = Device::good(&server, &fleet, "new-model").await;
        let more = "forbid (principal, action == Action::\"Renew\", resource) when { principal is Device && principal.name == \"old-model\" };";
        let body = json!({"text": with(&server, &fleet, more).await, "note": "old models run out"});
        let (path, key) = (format!("/v1/policies/{fleet}/versions"), [("idempotency-key", "renew-1")]);
        let put = owner.post_with(&path, &key, &body).await.is(201);
        let again = owner.post_with(&path, &key, &body).await.is(201);
        assert_eq!(put.json(), again.json());
        assert_eq!(put.header("location"), format!("/v1/policies/{fleet}/versions/2"));
        activate(owner, &fleet, 2).await.is(200);

        let mut connection = device.connect(&server).await;
        let path = format!("/v1/fleets/{fleet}/renew");
        let answer = connection.post(&path, &json!({"csr": Key::new().csr()})).await.unwrap();
        answer.refused(403, "policy_denied");
        assert_eq!(device.verdict(&server).await, "ok");
        other.renew(&server).await.confirm(&server).await.is(200);
    });
}

#[test]
fn who_may_write_a_fleets_policy_gains_nothing_by_it() {
    let server = shared();
    run(async {
        let owner = server.owner();
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let of = |name: &str, role, fleets| {
            let (server, name) = (&server, format!("policy-{name}"));
            async move { server.admin_client(Some(&operator(server, &name, role, fleets).await.0)) }
        };
        let officer = of("officer", Role::SecurityOfficer, json!([fleet])).await;
        let everywhere = of("everywhere", Role::SecurityOfficer, Value::Null).await;
        let viewer = of("viewer", Role::Viewer, Value::Null).await;
        let elsewhere = of("elsewhere", Role::Owner, json!([other])).await;

        let cedar = with(&server, &fleet, "permit (principal is Operator, action, resource);").await;
        let body = json!({"text": cedar});
        let path = format!("/v1/policies/{fleet}/versions");
        viewer.get(&format!("/v1/policies/{fleet}")).await.is(200);
        viewer.post(&path, &body).await.refused(403, "not_permitted");
        activate(&viewer, &fleet, 1).await.refused(403, "not_permitted");
        elsewhere.get(&format!("/v1/policies/{fleet}")).await.refused(404, "fleet_unknown");
        elsewhere.post(&path, &body).await.refused(404, "fleet_unknown");
        for client in [&officer, &everywhere, &viewer, &elsewhere] {
            client.post("/v1/policies/system/versions", &json!({"text": ""})).await.refused(403, "not_permitted");
            activate(client, "system", 1).await.refused(403, "not_permitted");
            client.get("/v1/policies/system").await.is(200);
        }

        // The fleet's set permits everything to operators, and that permits nothing.
        let version = put(&officer, &fleet, &cedar).await;
        activate(&officer, &fleet, version).await.is(200);
        let rename = json!({"max_age_seconds": 600});
        for client in [&officer, &everywhere] {
            client.patch(&format!("/v1/fleets/{fleet}"), &[], &rename).await.refused(403, "not_permitted");
        }
        viewer.post(&format!("/v1/fleets/{fleet}/tokens"), &json!({})).await.refused(403, "not_permitted");

        // What it forbids is forbidden to owners too.
        let cedar = with(&server, &fleet, "forbid (principal, action == Action::\"MintToken\", resource);").await;
        let version = put(&officer, &fleet, &cedar).await;
        activate(&officer, &fleet, version).await.is(200);
        owner.post(&format!("/v1/fleets/{fleet}/tokens"), &json!({})).await.refused(403, "not_permitted");
        owner.post(&format!("/v1/fleets/{other}/tokens"), &json!({})).await.is(201);
        owner.patch(&format!("/v1/fleets/{fleet}"), &[], &rename).await.is(200);

        // Nobody shuts owners out of a fleet's policy.
        let cedar = with(&server, &fleet, "forbid (principal, action == Action::\"ManagePolicy\", resource);").await;
        let version = put(&officer, &fleet, &cedar).await;
        activate(&officer, &fleet, version).await.refused(409, "policy_locks_out");
        let out = "forbid (principal == Operator::\"policy-officer\", action, resource);";
        let version = put(&officer, &fleet, &with(&server, &fleet, out).await).await;
        activate(&officer, &fleet, version).await.refused(409, "policy_locks_out");
        activate(owner, &fleet, version).await.is(200);
        officer.get(&format!("/v1/fleets/{fleet}")).await.refused(403, "not_permitted");
    });
}

#[test]
fn questions_are_tried_before_anything_counts() {
    let server = shared();
    run(async {
        let owner = server.owner();
        let fleet = server.fleet(json!({})).await;
        let path = format!("/v1/policies/{fleet}/test");
        let question = |more: Value| {
            let mut question = json!({"principal": format!("spiffe://fleet.test/device/{fleet}/a"), "action": "Publish"});
            question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            question
        };
        let own = format!("{fleet}/a/temperature");
        let yes = owner.post(&path, &question(json!({"topic": own}))).await.is(200).json();
        assert_eq!((yes["allow"].as_bool(), &yes["errors"]), (Some(true), &json!([])));
        assert!(yes["policies"][0].as_str().unwrap().starts_with("fleet/"), "{yes}");
        for no in [
            json!({"topic": format!("{fleet}/b/temperature")}),
            json!({"topic": own, "standing": "quarantined"}),
            json!({"topic": own, "text": ""}),
            json!({"topic": own, "principal": "spiffe://fleet.test/device/other/a"}),
        ] {
            let answer = owner.post(&path, &question(no.clone())).await.is(200).json();
            assert_eq!(answer["allow"].as_bool(), Some(false), "{no}");
        }
        let roles = [("viewer", false), ("operator", true)];
        for (role, may) in roles {
            let asked = json!({"principal": "spiffe://fleet.test/operator/o", "role": role, "action": "MintToken"});
            assert_eq!(owner.post(&path, &asked).await.is(200).json()["allow"].as_bool(), Some(may), "{role}");
        }
        for (wrong, code) in [
            (json!({"topic": own, "principal": "alice"}), "invalid_value"),
            (json!({"topic": own, "action": "Fly"}), "invalid_value"),
            (json!({"topic": own, "standing": "fine"}), "invalid_value"),
            (json!({}), "invalid_value"),
            (json!({"topic": own, "text": "permit"}), "policy_invalid"),
        ] {
            owner.post(&path, &question(wrong)).await.refused(422, code);
        }
        let schema = owner.get("/v1/policies/schema").await.is(200).text();
        assert!(schema.contains("Publish"), "{schema}");
        // A long set has room, an endless one has not.
        let long = format!("// {}\n", "a".repeat(200 * 1024));
        assert_eq!(owner.post("/v1/policies/check", &json!({"text": long})).await.is(200).json()["ok"], true);
        let endless = json!({"text": "a".repeat(600 * 1024)});
        assert_eq!(owner.post("/v1/policies/check", &endless).await.status, 413);
    });
}

#[test]
fn the_installations_policy_cannot_lock_its_owners_out_and_survives_kill_9() {
    let mut server = Server::start(&[]);
    let (token, fleet_version, fleet_size) = run(async {
        let owner = server.owner();
        let active = owner.get("/v1/policies/system").await.is(200).json();
        assert_eq!((active["version"].as_u64(), active["by"].as_str()), (Some(1), Some("fleetmark")));
        let built_in = text(&active, "text");
        for out in [
            String::new(),
            format!("{built_in} forbid (principal, action == Action::\"ManageInstallationPolicy\", resource);"),
            format!("{built_in} forbid (principal == Operator::\"admin\", action, resource);"),
        ] {
            let version = put(owner, "system", &out).await;
            activate(owner, "system", version).await.refused(409, "policy_locks_out");
        }
        assert_eq!(activations(&server, "system").await.len(), 1);

        // Operators' rights are policies: viewers lose one, everywhere.
        let (viewer, _) = operator(&server, "viewer", Role::Viewer, Value::Null).await;
        let viewer = server.admin_client(Some(&viewer));
        viewer.get("/v1/ledgers").await.is(200);
        let more = "forbid (principal, action == Action::\"ReadLedger\", resource) unless { principal in Role::\"owner\" };";
        let version = put(owner, "system", &with(&server, "system", more).await).await;
        activate(owner, "system", version).await.is(200);
        viewer.get("/v1/ledgers").await.refused(403, "not_permitted");
        viewer.get("/v1/fleets").await.is(200);

        let cedar = with(&server, "default", "forbid (principal, action == Action::\"Enroll\", resource);").await;
        let version = put(owner, "default", &cedar).await;
        activate(owner, "default", version).await.is(200);
        let token = server.token("default", "a").await;
        (token, version, size(&server, "default").await)
    });
    for restart in ["kill", "stop"] {
        if restart == "stop" {
            server.restart();
        } else {
            server.kill_and_start();
        }
        run(async {
            let owner = server.owner();
            let active = owner.get("/v1/policies/default").await.is(200).json();
            assert_eq!(active["version"].as_u64(), Some(fleet_version), "{restart}");
            enroll(&server.device_client(None), "default", &token, &Key::new(), None).await.refused(403, "policy_denied");
            assert_eq!(activations(&server, "system").await.len(), 2, "{restart}");
            assert_eq!(activations(&server, "default").await.len(), 2, "{restart}");
            assert_eq!(size(&server, "default").await, fleet_size, "{restart}");
        });
    }
    run(async {
        activate(server.owner(), "default", 1).await.is(200);
        enroll(&server.device_client(None), "default", &token, &Key::new(), None).await.is(200);
    });
}

async fn size(server: &Server, ledger: &str) -> u64 {
    server.owner().get(&format!("/v1/ledgers/{ledger}")).await.is(200).json()["size"].as_u64().unwrap()
}

fn fleetmark(server: &Server, arguments: &[&str]) -> Output {
    let profile = server.data().join("operator");
    Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(["--operator", profile.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_command_line_checks_tries_activates_and_goes_back() {
    let server = shared();
    let fleet = run(server.fleet(json!({})));
    let said =
        |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let file = |name: &str, text: &str| server.write_scratch(name, text.as_bytes()).display().to_string();
    let nowhere = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
        command.args(["--operator", "/nowhere"]).args(arguments).output().unwrap()
    };

    let wrong = file("wrong.cedar", "permit (principal, action == Action::\"Fly\", resource);\n");
    let output = nowhere(&["policy", "check", &wrong]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("wrong.cedar:1:"), "{}", said(&output));
    let shown = fleetmark(&server, &["policy", "show", "--scope", &fleet]);
    assert!(shown.status.success(), "{}", said(&shown));
    let more =
        "@id(\"night\") forbid (principal, action == Action::\"Connect\", resource) when { context.minute_of_day < 360 };";
    let set = file("set.cedar", &format!("{}\n{more}\n", String::from_utf8(shown.stdout).unwrap()));
    let output = nowhere(&["policy", "check", &set]);
    assert!(output.status.success(), "{}", said(&output));

    let principal = format!("spiffe://fleet.test/device/{fleet}/a");
    let question = ["--principal", &principal, "--action", "Connect", "--scope", &fleet];
    let night = [&question[..], &["--time", "2026-11-22T03:00:00Z"]].concat();
    let (day, with_file) = (["--time", "2026-11-22T12:00:00Z"], ["--file", &set]);
    let output = nowhere(&[&["policy", "test"], &night[..], &with_file].concat());
    assert_eq!(said(&output), "deny\n  by fleet/night\n");
    let output = nowhere(&[&["policy", "test"], &question[..], &day, &with_file].concat());
    assert!(said(&output).starts_with("allow\n  by fleet/"), "{}", said(&output));
    // The set that counts knows nothing of nights.
    let output = fleetmark(&server, &[&["policy", "test"], &night[..]].concat());
    assert!(said(&output).starts_with("allow\n"), "{}", said(&output));

    let output = fleetmark(&server, &["policy", "activate", &set, "--scope", &fleet, "--note", "nights off"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = fleetmark(&server, &[&["policy", "test"], &night[..]].concat());
    assert_eq!(said(&output), "deny\n  by fleet/night\n");
    let output = fleetmark(&server, &["policy", "activate", "--version", "1", "--scope", &fleet, "--json"]);
    let back: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!((back["version"].as_u64(), back["changed"].as_bool()), (Some(1), Some(true)));
    let output = fleetmark(&server, &["policy", "versions", "--scope", &fleet]);
    assert!(said(&output).contains("nights off"), "{}", said(&output));
}
