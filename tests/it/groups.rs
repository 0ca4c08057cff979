//! Enrollment groups as operators keep them: creating, changing, lists of serials, and what is refused.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Role;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::harness::server::text;
use crate::harness::{Server, run, shared};
use crate::matrix::operator;

/// A maker's root in PEM.
fn maker(name: &str, is_ca: bool) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.self_signed(&key).unwrap().pem()
}

async fn put(server: &Server, path: &str, media_type: &str, list: &str) -> crate::harness::client::Answer {
    server.owner().send("PUT", path, &[("content-type", media_type)], Some(list.into())).await
}

async fn listed(server: &Server, path: &str) -> Vec<(String, Value)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.owner().get(&format!("{path}?limit=500{cursor}")).await.is(200).json();
        let items = page["items"].as_array().unwrap();
        all.extend(items.iter().map(|item| (text(item, "serial"), item["device"].clone())));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn groups_of_all_kinds_are_made_shown_changed_and_ended() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let groups = format!("/v1/fleets/{fleet}/groups");
        let owner = server.owner();
        let two = format!("{}{}", maker("Maker Root", true), maker("Maker Root 2", true));
        let made = owner.post(&groups, &json!({"name": "Makers", "proof": "maker", "ca": two})).await.is(201);
        assert_eq!(made.header("location"), format!("{groups}/Makers"));
        assert_eq!(made.header("etag"), "\"1\"");
        assert_eq!(made.json()["makers"].as_array().unwrap().len(), 2);
        let rules = json!({"quota": 3, "names": ["cam-*"], "networks": ["10.0.0.0/8"], "opens_at": "2026-01-01T00:00:00Z",
            "closes_at": "2126-01-01T00:00:00Z", "approval": true, "listed_only": true, "alarm_per_hour": 2,
            "attributes": {"site": "north", "line": "4"}});
        owner.post(&groups, &json!({"name": "batch", "proof": "claim", "rules": rules})).await.is(201);
        owner.post(&groups, &json!({"name": "person", "proof": "approval"})).await.is(201);

        // The key that the server makes is shown once; a repeat of the request is the same answer.
        let header = [("idempotency-key", "derived-1")];
        let body = json!({"name": "derived", "proof": "derived-key"});
        let first = owner.post_with(&groups, &header, &body).await.is(201).json();
        assert_eq!(STANDARD.decode(text(&first, "key")).unwrap().len(), 32);
        assert_eq!(owner.post_with(&groups, &header, &body).await.is(201).json(), first);
        let shown = owner.get(&format!("{groups}/derived")).await.is(200).json();
        assert_eq!(shown.get("key"), None);
        let given = json!({"name": "given", "proof": "derived-key", "key": STANDARD.encode([7; 64])});
        assert_eq!(owner.post(&groups, &given).await.is(201).json().get("key"), None);

        // Names differ in more than case; a group is found under any.
        owner.post(&groups, &json!({"name": "BATCH", "proof": "claim"})).await.refused(409, "name_taken");
        let batch = owner.get(&format!("{groups}/BATCH")).await.is(200);
        assert_eq!(batch.json()["rules"]["attributes"], json!({"site": "north", "line": "4"}));

        // A merge patch: what is not named stays, null takes away.
        let change = json!({"rules": {"quota": 5, "closes_at": null, "attributes": {"line": null, "row": "1"}}});
        let path = format!("{groups}/batch");
        let changed = owner.patch(&path, &[("if-match", "\"1\"")], &change).await.is(200);
        assert_eq!(changed.header("etag"), "\"2\"");
        let now = changed.json()["rules"].clone();
        assert_eq!((&now["quota"], &now["closes_at"]), (&json!(5), &Value::Null));
        assert_eq!((&now["names"], &now["attributes"]), (&json!(["cam-*"]), &json!({"site": "north", "row": "1"})));
        owner.patch(&path, &[("if-match", "\"1\"")], &change).await.refused(412, "etag_mismatch");
        owner.patch(&path, &[], &json!({"rules": {"quota": 0}})).await.refused(422, "invalid_value");
        owner.patch(&path, &[], &json!({"rules": {"more": 1}})).await.refused(400, "malformed_request");
        owner.patch(&path, &[], &json!({"ca": two})).await.refused(422, "invalid_value");
        let one = owner.patch(&format!("{groups}/makers"), &[], &json!({"ca": maker("New Root", true)})).await.is(200);
        assert_eq!(one.json()["makers"].as_array().unwrap().len(), 1);

        // Closed, open, and closed for ever.
        let act = |act: &'static str| server_act(&server, &fleet, "batch", act);
        assert_eq!(act("disable").await.is(200).json()["state"], "disabled");
        assert_eq!(act("disable").await.is(200).json()["version"], 3, "a repeat changed something");
        assert_eq!(act("enable").await.is(200).json()["state"], "enabled");
        assert_eq!(act("end").await.is(200).json()["state"], "ended");
        assert_eq!(act("end").await.is(200).json()["state"], "ended");
        act("enable").await.refused(409, "transition_not_allowed");
        owner.patch(&path, &[], &json!({"rules": {"quota": 6}})).await.refused(409, "transition_not_allowed");
        let all = owner.get(&groups).await.is(200).json();
        assert_eq!(all["items"].as_array().unwrap().len(), 5);
    });
}

async fn server_act(server: &Server, fleet: &str, group: &str, act: &str) -> crate::harness::client::Answer {
    server.owner().post(&format!("/v1/fleets/{fleet}/groups/{group}/{act}"), &json!({})).await
}

#[test]
fn a_group_that_contradicts_itself_is_not_made() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let groups = format!("/v1/fleets/{fleet}/groups");
        let root = maker("Maker Root", true);
        let nine = maker("Maker", true).repeat(9);
        let of = |proof: &str, rules: Value| json!({"name": "x", "proof": proof, "rules": rules});
        for (body, code) in [
            (json!({"name": "x", "proof": "maker"}), "invalid_value"),
            (json!({"name": "x", "proof": "maker", "ca": "no PEM"}), "invalid_value"),
            (json!({"name": "x", "proof": "maker", "ca": maker("Leaf", false)}), "invalid_value"),
            (json!({"name": "x", "proof": "maker", "ca": nine}), "invalid_value"),
            (json!({"name": "x", "proof": "maker", "ca": root.repeat(2)}), "invalid_value"),
            (json!({"name": "x", "proof": "claim", "ca": root}), "invalid_value"),
            (json!({"name": "x", "proof": "claim", "key": "AAAA"}), "invalid_value"),
            (json!({"name": "x", "proof": "derived-key", "key": "no base64!"}), "invalid_value"),
            (json!({"name": "x", "proof": "derived-key", "key": STANDARD.encode([7; 31])}), "invalid_value"),
            (json!({"name": "x", "proof": "derived-key", "key": STANDARD.encode([7; 65])}), "invalid_value"),
            (json!({"name": "x/y", "proof": "claim"}), "invalid_name"),
            (json!({"name": "x", "proof": "hope"}), "malformed_request"),
            (of("claim", json!({"quota": 0})), "invalid_value"),
            (of("claim", json!({"names": ["a b"]})), "malformed_request"),
            (of("claim", json!({"names": vec!["a*"; 17]})), "invalid_value"),
            (of("claim", json!({"networks": ["10.1.1.1/8"]})), "malformed_request"),
            (of("claim", json!({"opens_at": "2026-01-02T00:00:00Z", "closes_at": "2026-01-01T00:00:00Z"})), "invalid_value"),
            (of("claim", json!({"prefix": "a-"})), "invalid_value"),
            (of("claim", json!({"mapping": "sanitized"})), "invalid_value"),
            (of("claim", json!({"attributes": {"": "x"}})), "invalid_value"),
            (of("approval", json!({"approval": true})), "invalid_value"),
            (of("approval", json!({"listed_only": true})), "invalid_value"),
        ] {
            let status = if code == "malformed_request" { 400 } else { 422 };
            server.owner().post(&groups, &body).await.refused(status, code);
        }
        let prefixed = json!({"name": "x", "proof": "maker", "ca": root, "rules": {"prefix": "-a"}});
        server.owner().post(&groups, &prefixed).await.refused(422, "invalid_value");
        server
            .owner()
            .post("/v1/fleets/nowhere/groups", &json!({"name": "x", "proof": "claim"}))
            .await
            .refused(404, "fleet_unknown");
        server.owner().get(&format!("{groups}/x")).await.refused(404, "not_found");
    });
}

#[test]
fn a_list_of_serials_is_replaced_added_to_and_shortened() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &json!({"name": "g", "proof": "claim"})).await.is(201);
        let path = format!("/v1/fleets/{fleet}/groups/g/serials");
        let many = (0..2_500).map(|number| format!("S-{number:05},cam-{number}\n")).collect::<Vec<_>>().concat();
        let answer = put(&server, &path, "text/csv", &format!("serial,device\n{many}")).await.is(200).json();
        assert_eq!(answer, json!({"listed": 2_500, "removed": 0}));
        let all = listed(&server, &path).await;
        assert_eq!((all.len(), &all[7]), (2_500, &("S-00007".to_owned(), json!("cam-7"))));

        let lines = "{\"serial\": \"S-00007\"}\n{\"serial\": \"N/1, x\", \"device\": \"n-1\"}\n";
        let answer = put(&server, &format!("{path}?keep=true"), "application/x-ndjson", lines).await.is(200).json();
        assert_eq!(answer, json!({"listed": 2, "removed": 0}));
        let answer = put(&server, &path, "application/x-ndjson", lines).await.is(200).json();
        assert_eq!(answer, json!({"listed": 2, "removed": 2_499}));
        let all = listed(&server, &path).await;
        assert_eq!(all, [("N/1, x".to_owned(), json!("n-1")), ("S-00007".to_owned(), Value::Null)]);

        server.owner().delete(&format!("{path}/N%2F1%2C%20x")).await.is(200);
        server.owner().delete(&format!("{path}/N%2F1%2C%20x")).await.refused(404, "not_found");
        assert_eq!(listed(&server, &path).await.len(), 1);
        // Nothing is changed by a list with one wrong line.
        let wrong = put(&server, &path, "text/csv", "S-1\nS-2,no/name\n").await.refused(422, "invalid_value");
        assert!(wrong.text().contains("line 2"), "{}", wrong.text());
        // Who may not change it is told so before the list is read.
        let viewer = operator(&server, "serials-viewer", Role::Viewer, json!([fleet])).await.0;
        let (viewer, list) = (server.admin_client(Some(&viewer)), Some("no/list,,\n".into()));
        viewer.send("PUT", &path, &[("content-type", "text/csv")], list).await.refused(403, "not_permitted");
        put(&server, &path, "application/json", "[]").await.refused(415, "media_type_not_supported");
        put(&server, &path, "text/csv", &"x".repeat(17 << 20)).await.refused(413, "body_too_large");
        assert_eq!(listed(&server, &path).await.len(), 1);
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &json!({"name": "p", "proof": "approval"})).await.is(201);
        put(&server, &format!("/v1/fleets/{fleet}/groups/p/serials"), "text/csv", "a").await.refused(422, "invalid_value");
    });
}

/// The command line, with the owner's profile.
pub fn fleetmark(server: &Server, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(arguments)
        .env("FLEETMARK_OPERATOR", server.data().join("operator"))
        .output()
        .unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn the_command_line_does_what_the_manual_says() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let directory = server.scratch("group-cli");
        fs::create_dir_all(&directory).unwrap();
        let at = |name: &str| directory.join(name).display().to_string();
        fs::write(at("maker.pem"), maker("Maker Root", true)).unwrap();
        fs::write(at("group.key"), [9; 32]).unwrap();
        fs::write(at("serials.csv"), "serial,device\nA-1,cam-1\nA-2\n").unwrap();
        let done = |words: &[&str]| {
            let (ok, said) = fleetmark(&server, &[words, &["--fleet", &fleet]].concat());
            assert!(ok, "{words:?}: {said}");
            said
        };
        let (maker, key) = (at("maker.pem"), at("group.key"));
        done(&["group", "create", "acme", "--proof", "maker", "--ca", &maker, "--mapping", "sanitized", "--prefix", "acme-"]);
        let rules = ["--quota", "100", "--names", "cam-*", "--network", "127.0.0.0/8", "--alarm-per-hour", "50"];
        done(&[&["group", "create", "batch-7", "--proof", "claim", "--listed-only"][..], &rules].concat());
        done(&["group", "create", "line-4", "--proof", "derived-key", "--key-file", &key]);
        assert!(done(&["group", "create", "line-5", "--proof", "derived-key"]).contains("key "));
        done(&["group", "create", "walk-in", "--proof", "approval"]);
        let list = done(&["group", "list"]);
        assert_eq!(list.lines().count(), 6, "{list}");
        done(&[
            "group",
            "change",
            "batch-7",
            "--quota",
            "none",
            "--names",
            "none",
            "--listed-only",
            "false",
            "--attribute",
            "site=north",
        ]);
        let shown: Value = serde_json::from_str(&done(&["group", "show", "batch-7", "--json"])).unwrap();
        assert_eq!((&shown["rules"]["quota"], &shown["rules"]["names"]), (&Value::Null, &json!([])));
        assert_eq!((&shown["rules"]["alarm_per_hour"], &shown["rules"]["attributes"]), (&json!(50), &json!({"site": "north"})));
        done(&["group", "serials", "put", "batch-7", &at("serials.csv")]);
        done(&["group", "serials", "remove", "batch-7", "A-2"]);
        let serials = done(&["group", "serials", "list", "batch-7"]);
        assert!(serials.contains("A-1") && !serials.contains("A-2"), "{serials}");
        done(&["group", "disable", "batch-7"]);
        done(&["group", "enable", "batch-7"]);
        let out = at("claim");
        done(&["group", "claim", "batch-7", "--out", &out]);
        let key = fs::read_to_string(directory.join("claim/claim.key")).unwrap();
        // The same key again is the same certificate; another key takes a word.
        let first = fs::read_to_string(directory.join("claim/claim.pem")).unwrap();
        done(&["group", "claim", "batch-7", "--out", &out]);
        assert_eq!(fs::read_to_string(directory.join("claim/claim.pem")).unwrap(), first);
        assert_eq!(fs::read_to_string(directory.join("claim/claim.key")).unwrap(), key);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory.join("claim/claim.key")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let (ok, said) = fleetmark(&server, &["group", "claim", "batch-7", "--fleet", &fleet, "--out", &at("claim-2")]);
        assert!(!ok && said.contains("replace"), "{said}");
        done(&["group", "claim", "batch-7", "--out", &at("claim-2"), "--replace"]);
        done(&["group", "end", "batch-7", "--reason", "keyCompromise", "--note", "the image leaked"]);
        let shown: Value = serde_json::from_str(&done(&["group", "show", "batch-7", "--json"])).unwrap();
        assert_eq!((&shown["state"], &shown["claim"]["reason"]), (&json!("ended"), &json!("keyCompromise")));
    });
}
