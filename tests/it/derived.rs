//! Devices that enroll by keys derived from a group's key. openssl derives, and answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::process::Command;

use crate::harness::client::Answer;
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Key, Server, run, shared};
use crate::tpm::spki_hash;

const GROUP_KEY: [u8; 32] = [0x5a; 32];

/// HMAC-SHA256 by openssl, hexadecimal.
fn hmac(key: &str, message: &[u8]) -> String {
    let (done, said) = openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}")], message);
    assert!(done, "{said}");
    said.trim().rsplit(' ').next().unwrap().to_owned()
}

fn device_key(device: &str) -> String {
    hmac(&hex::encode(GROUP_KEY), device.as_bytes())
}

/// A group of derived keys with these rules.
async fn group(server: &Server, fleet: &str, rules: Value) {
    let body = json!({"name": "line-4", "proof": "derived-key", "key": STANDARD.encode(GROUP_KEY), "rules": rules});
    server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &body).await.is(201);
}

async fn ask(server: &Server, fleet: &str, group: &str, device: &str, key: &str) -> Answer {
    let body = json!({"kind": "derived-key", "group": group, "device": device, "key": key});
    server.device_client(None).post(&format!("/v1/fleets/{fleet}/challenge"), &body).await
}

fn body(key: &Key, group: &str, device: &str, nonce: &str, device_key: &str) -> Value {
    let hash = hex::decode(spki_hash(key)).unwrap();
    let answer = hmac(device_key, &[b"fleetmark derived key v1", nonce.as_bytes(), &hash].concat());
    let answer = STANDARD.encode(hex::decode(answer).unwrap());
    let proof = json!({"kind": "derived-key", "nonce": nonce, "answer": answer});
    json!({"csr": key.csr(), "device": device, "group": group, "proof": proof})
}

async fn send(server: &Server, fleet: &str, body: &Value) -> Answer {
    server.device_client(None).post(&format!("/v1/fleets/{fleet}/enroll"), body).await
}

/// Asks and answers as the device of this name and key.
async fn enroll(server: &Server, fleet: &str, device: &str, device_key: &str, key: &Key) -> Answer {
    let nonce = text(&ask(server, fleet, "line-4", device, &spki_hash(key)).await.is(200).json(), "nonce");
    send(server, fleet, &body(key, "line-4", device, &nonce, device_key)).await
}

#[test]
fn a_device_enrolls_by_its_derived_key_and_again_after_a_factory_reset() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, json!({"attributes": {"line": "4"}})).await;
        let key = Key::new();
        let first = enroll(&server, &fleet, "Sensor-1", &device_key("Sensor-1"), &key).await.is(200).json();
        assert_eq!(first["identity"], format!("spiffe://fleet.test/device/{fleet}/Sensor-1"));
        let again = enroll(&server, &fleet, "Sensor-1", &device_key("Sensor-1"), &key).await.is(200).json();
        assert_eq!((&again["certificate"], &again["replayed"]), (&first["certificate"], &json!(true)));
        let identity = key.identity(&first);
        assert_eq!(crate::harness::device::verdict(&server, &identity, &fleet).await, "ok");
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/sensor-1")).await.is(200).json();
        assert_eq!((&record["standing"], &record["attributes"]["line"]), (&json!("good"), &json!("4")), "{record}");
        let reset = enroll(&server, &fleet, "Sensor-1", &device_key("Sensor-1"), &Key::new()).await.is(200).json();
        assert_eq!(reset["generation"], 2, "{reset}");
        // The same name in another case is another key, and the name is taken.
        enroll(&server, &fleet, "sensor-1", &device_key("sensor-1"), &Key::new()).await.refused(409, "name_taken");
        let shown = server.owner().get(&format!("/v1/fleets/{fleet}/devices/sensor-1/hardware")).await.is(200).json();
        assert_eq!(shown["items"][0]["source"], "derived-key", "{shown}");
    });
}

#[test]
fn a_wrong_answer_tells_nothing_and_raises_an_alarm() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, json!({})).await;
        let key = Key::new();
        let hash = spki_hash(&key);
        // A question is answered for any fleet, group and device, in the same form.
        let mut forms = Vec::new();
        for (fleet, group, device) in
            [(fleet.as_str(), "line-4", "a"), (fleet.as_str(), "nowhere", "a"), ("nowhere", "nobody", "b")]
        {
            let question = ask(&server, fleet, group, device, &hash).await.is(200).json();
            forms.push((question.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), text(&question, "nonce").len()));
        }
        assert!(forms.windows(2).all(|pair| pair[0] == pair[1]), "{forms:?}");
        let before = server.metric("fleetmark_alarms_total", &[("alarm", "answer_wrong")]).await;
        enroll(&server, &fleet, "a", &device_key("b"), &key).await.refused(401, "answer_wrong");
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "answer_wrong")]).await > before);
        let nonce = text(&ask(&server, &fleet, "nowhere", "a", &hash).await.json(), "nonce");
        send(&server, &fleet, &body(&key, "nowhere", "a", &nonce, &device_key("a"))).await.refused(401, "answer_wrong");
        // Another device, group or key than the question's.
        let nonce = text(&ask(&server, &fleet, "line-4", "a", &hash).await.json(), "nonce");
        send(&server, &fleet, &body(&key, "line-4", "b", &nonce, &device_key("b"))).await.refused(401, "nonce_expired");
        send(&server, &fleet, &body(&key, "nowhere", "a", &nonce, &device_key("a"))).await.refused(401, "nonce_expired");
        send(&server, &fleet, &body(&Key::new(), "line-4", "a", &nonce, &device_key("a"))).await.refused(401, "nonce_expired");
        for nonce in ["", "A", &"A".repeat(75), &"A".repeat(1_000)] {
            send(&server, &fleet, &body(&key, "line-4", "a", nonce, &device_key("a"))).await.refused(401, "nonce_expired");
        }
        send(&server, &fleet, &body(&key, "line-4", "a", &nonce, &device_key("a"))).await.is(200);
        for wrong in ["", "00", &"0".repeat(63), &"g".repeat(64)] {
            ask(&server, &fleet, "line-4", "a", wrong).await.refused(422, "invalid_value");
        }
    });
}

#[test]
fn the_groups_rules_hold_after_the_answer() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, json!({"names": ["ok-*"], "quota": 1})).await;
        enroll(&server, &fleet, "no-1", &device_key("no-1"), &Key::new()).await.refused(403, "name_not_allowed");
        enroll(&server, &fleet, "ok-1", &device_key("ok-1"), &Key::new()).await.is(200);
        enroll(&server, &fleet, "ok-2", &device_key("ok-2"), &Key::new()).await.refused(409, "quota_used");
        server.owner().post(&format!("/v1/fleets/{fleet}/groups/line-4/disable"), &json!({})).await.is(200);
        enroll(&server, &fleet, "ok-1", &device_key("ok-1"), &Key::new()).await.refused(403, "group_disabled");
        enroll(&server, &fleet, "ok-1", &device_key("ok-2"), &Key::new()).await.refused(401, "answer_wrong");
    });
}

#[test]
fn where_names_are_listed_no_other_comes_in() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, json!({"listed_only": true})).await;
        let serials = format!("/v1/fleets/{fleet}/groups/line-4/serials");
        let list = async |names: &str| {
            let head = [("content-type", "text/csv")];
            server.owner().send("PUT", &serials, &head, Some(names.into())).await.is(200);
        };
        list("ok-1\n").await;
        enroll(&server, &fleet, "no-1", &device_key("no-1"), &Key::new()).await.refused(403, "serial_not_listed");
        enroll(&server, &fleet, "ok-1", &device_key("ok-1"), &Key::new()).await.is(200);
        list("ok-2\n").await;
        enroll(&server, &fleet, "ok-1", &device_key("ok-1"), &Key::new()).await.refused(403, "serial_not_listed");
    });
}

#[test]
fn the_factory_derives_keys_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, octets: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, octets).unwrap();
        path
    };
    let derive = |key: &std::path::Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
        command.current_dir(directory.path()).args(["group", "derive", "line-4", "a", "B", "--key-file"]).arg(key).args(more);
        command.output().unwrap()
    };
    let key = file("group.key", &GROUP_KEY);
    let printed = derive(&key, &[]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed, format!("a {}\nB {}\n", device_key("a"), device_key("B")));
    let out = directory.path().display().to_string();
    let written = derive(&key, &["--out", &out, "--json"]);
    let written: serde_json::Value = serde_json::from_slice(&written.stdout).unwrap();
    let of_b = written["items"][1]["file"].as_str().unwrap();
    assert_eq!(std::path::Path::new(of_b), directory.path().join("B.key"));
    assert_eq!(std::fs::read_to_string(of_b).unwrap().trim(), device_key("B"));
    assert!(!derive(&key, &["--out", &out]).status.success(), "a key was overwritten");
    for wrong in [STANDARD.encode(GROUP_KEY).as_bytes(), &[1; 31], &[1; 65]] {
        assert!(!derive(&file("wrong.key", wrong), &[]).status.success(), "{wrong:?}");
    }
}
