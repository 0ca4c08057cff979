//! The fleet's hook: what it is asked, what its answers do, and that everything else refuses and burns nothing.

use std::fs;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Role;
use fleetmark_ledger::details::Details;
use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::device::{enroll, sha256};
use crate::harness::hook::Mode;
use crate::harness::server::{free_port, text};
use crate::harness::{Device, Hook, Key, Server, run, shared, until};
use crate::matrix::operator;

/// Sets a fleet's hook.
async fn put(server: &Server, fleet: &str, more: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[("content-type", "application/json")], more].concat();
    server.owner().send("PUT", &format!("/v1/fleets/{fleet}/hook"), &headers, Some(body.to_string().into())).await
}

/// A fleet with a hook that it trusts; its secret.
async fn hooked(server: &Server) -> (String, Hook, String) {
    let (fleet, hook) = (server.fleet(json!({})).await, Hook::start().await);
    let set = put(server, &fleet, &[], &json!({"url": hook.url(), "roots": hook.roots})).await.is(200).json();
    let secret = text(&set, "secret");
    assert_eq!(secret.len(), 64);
    hook.knows(&secret);
    (fleet, hook, secret)
}

async fn outcomes(server: &Server, outcome: &str) -> f64 {
    server.metric("fleetmark_hook_answers_total", &[("outcome", outcome)]).await
}

/// A device as operators see it.
async fn device(server: &Server, fleet: &str, name: &str) -> Value {
    server.owner().get(&format!("/v1/fleets/{fleet}/devices/{name}")).await.is(200).json()
}

#[test]
fn the_owner_is_asked_and_allows_refuses_or_amends() {
    let server = shared();
    run(async {
        let (fleet, hook, secret) = hooked(&server).await;
        let client = server.device_client(None);
        hook.says(json!({"decision": "allow"}));
        let (token, key) = (server.open_token(&fleet).await, Key::new());
        let first = enroll(&client, &fleet, &token, &key, Some("a")).await.is(200).json();
        let asked = hook.asked();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].is_signed_by(&secret) && !asked[0].is_signed_by(&"00".repeat(32)));
        assert!(asked[0].head.starts_with("post /fleetmark?a=b http/1.1"), "{}", asked[0].head);
        let question = asked[0].json();
        let id = format!("token {}", &token[4..20]);
        let expected = json!({
            "id": question["id"], "time": question["time"], "fleet": fleet, "device": "a", "proof": id,
            "key": {"type": "P-256", "sha256": question["key"]["sha256"]}, "attributes": {}, "source": "127.0.0.1",
            "csr": {"common_name": question["csr"]["common_name"], "uris": []},
        });
        assert_eq!(question, expected);
        assert_eq!(question["key"]["sha256"], sha256(&spki(&key)));

        // Neither a replay nor a renewal asks again.
        let again = enroll(&client, &fleet, &token, &key, Some("a")).await.is(200).json();
        assert_eq!(first["certificate"], again["certificate"]);
        hook.says(json!({"decision": "refuse", "reason": "not\nours"}));
        let known = hook.asked().len();
        enroll(&client, &fleet, &token, &key, Some("a")).await.is(200);
        assert_eq!(hook.asked().len(), known, "a replay was asked for");

        let token = server.token(&fleet, "b").await;
        let key = Key::new();
        let refused = enroll(&client, &fleet, &token, &key, None).await.refused(403, "hook_refused");
        assert_eq!(refused.json()["detail"], "notours");
        hook.says(json!({"decision": "refuse"}));
        enroll(&client, &fleet, &token, &key, None).await.refused(403, "hook_refused");

        // A device that is known, and one that is not; both in the ledger.
        hook.says(json!({"decision": "amend", "attributes": {"site": "north", "line": "4"}}));
        let before = device(&server, &fleet, "b").await;
        enroll(&client, &fleet, &token, &key, None).await.is(200);
        let open = server.open_token(&fleet).await;
        enroll(&client, &fleet, &open, &Key::new(), Some("c")).await.is(200);
        for name in ["b", "c"] {
            assert_eq!(device(&server, &fleet, name).await["attributes"], json!({"site": "north", "line": "4"}));
        }
        let after = device(&server, &fleet, "b").await;
        assert_eq!(after["version"].as_u64(), before["version"].as_u64().map(|version| version + 1));
        let entries = server.owner().get(&format!("/v1/ledgers/{fleet}/entries?from=0&limit=200")).await.is(200).json();
        let details = entries["items"].as_array().unwrap().iter().filter_map(|entry| entry["details"].as_str());
        let details = details.map(|text| Details::decode(&STANDARD.decode(text).unwrap()).unwrap());
        let noted =
            |details: &Details| details.note.as_ref().is_some_and(|note| note.ends_with(", attributes by the fleet's hook"));
        let amended =
            details.filter(|details| noted(details) && details.attributes.get("site").is_some_and(|site| site == "north"));
        assert_eq!(amended.count(), 2, "b changed, c came to be");
        // The same attributes again change nothing.
        let token = server.token(&fleet, "b2").await;
        server
            .owner()
            .patch(&format!("/v1/fleets/{fleet}/devices/b2"), &[], &json!({"attributes": {"site": "north", "line": "4"}}))
            .await
            .is(200);
        let before = device(&server, &fleet, "b2").await;
        enroll(&client, &fleet, &token, &Key::new(), None).await.is(200);
        assert_eq!(device(&server, &fleet, "b2").await["version"], before["version"]);
        assert_eq!(hook.asked().last().unwrap().json()["attributes"], json!({"site": "north", "line": "4"}));
    });
}

fn spki(key: &Key) -> Vec<u8> {
    use rcgen::PublicKeyData;
    key.0.subject_public_key_info()
}

#[test]
fn whatever_goes_wrong_refuses_and_burns_nothing() {
    let server = shared();
    run(async {
        let (fleet, hook, _) = hooked(&server).await;
        let client = server.device_client(None);
        hook.says(json!({"decision": "allow"}));
        Device::unconfirmed(&server, &fleet, "first").await;
        let (token, key) = (server.token(&fleet, "a").await, Key::new());
        let answer = |text: &str| Mode::Raw(text.as_bytes().to_vec());
        let cases = [
            ("signature", Mode::WrongKey),
            ("signature", Mode::Unsigned),
            ("signature", Mode::Recorded),
            ("unreadable", answer("yes")),
            ("unreadable", answer(r#"{"id":"00","decision":"allow"}"#)),
            ("unreadable", Mode::Say(json!({"decision": "perhaps"}))),
            ("unreadable", Mode::Say(json!({"decision": "allow", "profile": "operator"}))),
            ("unreadable", Mode::Say(json!({"decision": "amend", "attributes": {"a": "x".repeat(257)}}))),
            ("too_large", Mode::Raw(vec![b' '; 10 << 20])),
            ("status", Mode::Head("HTTP/1.1 302 Found\r\nLocation: https://localhost/")),
            ("status", Mode::Head("HTTP/1.1 500 Internal Server Error")),
            ("status", Mode::Head("HTTP/1.1 204 No Content")),
            ("unreachable", Mode::Close),
            ("timeout", Mode::Silent),
        ];
        let mut asked = hook.asked().len();
        for (outcome, mode) in cases {
            let before = outcomes(&server, outcome).await;
            let told = format!("{mode:?}").chars().take(80).collect::<String>();
            hook.answers(mode);
            let refused = enroll(&client, &fleet, &token, &key, None).await.refused(503, "hook_unavailable");
            assert_eq!(refused.json()["detail"], Value::Null, "the cause is for the log alone");
            assert!(outcomes(&server, outcome).await > before, "{told} was not counted as {outcome}");
            asked += 1;
            assert_eq!(hook.asked().len(), asked, "{told} was asked more than once");
        }
        let elsewhere = Hook::start().await;
        for (outcome, settings) in [
            ("tls", json!({"url": hook.url(), "roots": elsewhere.roots, "keep_secret": true})),
            ("tls", json!({"url": hook.url(), "keep_secret": true})),
            ("unreachable", json!({"url": format!("https://localhost:{}/", free_port()), "keep_secret": true})),
        ] {
            put(&server, &fleet, &[], &settings).await.is(200);
            let before = outcomes(&server, outcome).await;
            enroll(&client, &fleet, &token, &key, None).await.refused(503, "hook_unavailable");
            assert!(outcomes(&server, outcome).await > before, "{settings} was not counted as {outcome}");
        }
        let tokens = server.owner().get(&format!("/v1/fleets/{fleet}/tokens")).await.is(200).json();
        let states: Vec<_> = tokens["items"].as_array().unwrap().iter().map(|token| text(token, "state")).collect();
        assert!(states.contains(&"fresh".to_owned()), "{states:?}");
        assert_eq!(device(&server, &fleet, "a").await["standing"], Value::Null);
        hook.says(json!({"decision": "allow"}));
        put(&server, &fleet, &[], &json!({"url": hook.url(), "roots": hook.roots, "keep_secret": true})).await.is(200);
        enroll(&client, &fleet, &token, &key, None).await.is(200);
    });
}

#[test]
fn a_hook_is_set_shown_tried_and_removed_and_its_secret_is_shown_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let path = format!("/v1/fleets/{fleet}/hook");
        server.owner().get(&path).await.refused(404, "not_found");
        server.owner().delete(&path).await.refused(404, "not_found");
        server.owner().post(&format!("{path}/test"), &json!({})).await.refused(404, "not_found");
        for url in
            ["http://localhost/", "https://a:b@localhost/", "https://localhost/#x", "localhost", "file:///etc/passwd", ""]
        {
            put(&server, &fleet, &[], &json!({"url": url})).await.refused(422, "invalid_value");
        }
        for roots in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let body = json!({"url": "https://localhost/", "roots": roots});
            put(&server, &fleet, &[], &body).await.refused(422, "invalid_value");
        }
        let hook = Hook::start().await;
        let settings = json!({"url": hook.url(), "roots": hook.roots});
        put(&server, &fleet, &[("if-match", "\"9\"")], &settings).await.refused(412, "etag_mismatch");
        let set = put(&server, &fleet, &[("if-match", "\"1\"")], &settings).await.is(200);
        assert_eq!(set.header("etag"), "\"2\"");
        let first = text(&set.json(), "secret");
        let shown = server.owner().get(&path).await.is(200);
        assert_eq!((shown.header("etag"), shown.json()["url"].clone()), ("\"2\"", json!(hook.url())));
        let changed = put(&server, &fleet, &[], &settings).await.is(200).json();
        let second = text(&changed, "secret");
        assert_ne!(first, second);
        hook.knows(&second);
        hook.says(json!({"decision": "allow", "reason": "at your service"}));
        let kept = json!({"url": hook.url(), "roots": hook.roots, "keep_secret": true});
        assert_eq!(put(&server, &fleet, &[], &kept).await.is(200).json()["secret"], Value::Null);

        let profile = server.data().join("operator");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
            command.arg("--operator").arg(&profile).args(["fleet", "hook"]).args(arguments);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let tried: Value = serde_json::from_str(&command(&["test", &fleet, "--json"])).unwrap();
        assert_eq!(tried, json!({"usable": true, "outcome": "allow", "detail": "at your service"}));
        assert_eq!(hook.asked().last().unwrap().json()["ping"], true);
        hook.answers(Mode::Unsigned);
        let tried: Value = serde_json::from_str(&command(&["test", &fleet, "--json"])).unwrap();
        assert_eq!((&tried["usable"], &tried["outcome"]), (&json!(false), &json!("signature")));
        let roots = server.write_scratch(&format!("{fleet}.pem"), hook.roots.as_bytes());
        let set = command(&["set", &fleet, "--url", &hook.url(), "--roots", roots.to_str().unwrap()]);
        let third = set.lines().find_map(|line| line.strip_prefix("secret ")).unwrap().trim().to_owned();
        assert_eq!(third.len(), 64);
        assert!(command(&["show", &fleet]).contains(&hook.url()));
        let everything = [fs::read(server.data().join("fleetmark.db")).unwrap(), server.log().into_bytes()].concat();
        let shown = [server.owner().get(&path).await.body, command(&["show", &fleet]).into_bytes()].concat();
        for secret in [first, second, third] {
            let octets = hex::decode(&secret).unwrap();
            for place in [&everything, &shown] {
                assert!(!place.windows(64).any(|part| part == secret.as_bytes()), "a secret lies open");
                assert!(!place.windows(32).any(|part| part == octets), "a secret lies open");
            }
        }
        assert!(command(&["remove", &fleet]).contains(&hook.url()));
        server.owner().get(&path).await.refused(404, "not_found");
        Device::unconfirmed(&server, &fleet, "unasked").await;

        let lesser = server.admin_client(Some(&operator(&server, "hook-operator", Role::Operator, json!([fleet])).await.0));
        lesser.get(&path).await.refused(404, "not_found");
    });
}

/// The example of docs/enrollment/webhook.md, as written.
#[test]
fn the_example_of_the_manual_works() {
    let server = shared();
    run(async {
        let (fleet, hook, secret) = hooked(&server).await;
        let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/enrollment/webhook.md")).unwrap();
        let example = manual.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
        assert!(example.lines().count() <= 40, "it is a short example");
        let place = server.scratch(&format!("{fleet}-hook"));
        fs::create_dir_all(&place).unwrap();
        for (name, text) in [("hook.py", example), ("hook.pem", &hook.certificate), ("hook.key", &hook.key)] {
            fs::write(place.join(name), text).unwrap();
        }
        let port = free_port();
        let mut python = Command::new("python3")
            .args(["hook.py", &port.to_string()])
            .current_dir(&place)
            .env("HOOK_SECRET", &secret)
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is installed");
        let url = format!("https://localhost:{port}/");
        put(&server, &fleet, &[], &json!({"url": url, "roots": hook.roots, "keep_secret": true})).await.is(200);
        let path = format!("/v1/fleets/{fleet}/hook/test");
        let asked = until("the example answers", 30, async || {
            let trial = server.owner().post(&path, &json!({})).await.is(200).json();
            (trial["outcome"] != "unreachable").then_some(trial)
        });
        let asked = asked.await;
        let client = server.device_client(None);
        let token = server.open_token(&fleet).await;
        let refused = enroll(&client, &fleet, &token, &Key::new(), Some("stranger")).await;
        let ours = enroll(&client, &fleet, &token, &Key::new(), Some("pump-1")).await;
        python.kill().unwrap();
        python.wait().unwrap();
        assert_eq!(asked["outcome"], "allow", "{asked}");
        assert_eq!(refused.refused(403, "hook_refused").json()["detail"], "not one of ours");
        ours.is(200);
        assert_eq!(device(&server, &fleet, "pump-1").await["attributes"], json!({"site": "north"}));
    });
}
