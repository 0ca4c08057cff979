//! Claim certificates: a batch of devices comes in by one, each once, and nobody takes it for anything else.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::forge::authority_id;
use crate::harness::gateway::Gateway;
use crate::harness::openssl::openssl;
use crate::harness::server::{free_port, text};
use crate::harness::{Client, Identity, Key, Server, handshake_ends, run, shared, until};
use crate::standing::{Strangers, listed_within};

/// A claim group with its certificate.
struct Batch {
    fleet: String,
    name: String,
    answer: Value,
    identity: Identity,
    key: Key,
}

impl Batch {
    async fn new(server: &Server, fleet: &str, name: &str, rules: Value) -> Self {
        let groups = format!("/v1/fleets/{fleet}/groups");
        server.owner().post(&groups, &json!({"name": name, "proof": "claim", "rules": rules})).await.is(201);
        let key = Key::new();
        let answer = claim(server, fleet, name, &key, false).await.is(201).json();
        let identity = key.identity(&answer);
        Self { fleet: fleet.to_owned(), name: name.to_owned(), answer, identity, key }
    }

    fn client(&self, server: &Server) -> Client {
        server.device_client(Some(&self.identity))
    }

    async fn enroll(&self, server: &Server, name: &str, key: &Key) -> Answer {
        enroll(&self.client(server), &self.fleet, Some(name), key).await
    }

    async fn act(&self, server: &Server, act: &str, body: Value) -> Value {
        server.owner().post(&format!("/v1/fleets/{}/groups/{}/{act}", self.fleet, self.name), &body).await.is(200).json()
    }

    async fn record(&self, server: &Server) -> Value {
        server.owner().get(&format!("/v1/fleets/{}/groups/{}", self.fleet, self.name)).await.is(200).json()
    }
}

async fn claim(server: &Server, fleet: &str, group: &str, key: &Key, replace: bool) -> Answer {
    let path = format!("/v1/fleets/{fleet}/groups/{group}/claims");
    server.owner().post(&path, &json!({"csr": key.csr(), "replace": replace})).await
}

async fn enroll(client: &Client, fleet: &str, name: Option<&str>, key: &Key) -> Answer {
    let mut body = json!({"csr": key.csr()});
    if let Some(name) = name {
        body["device"] = name.into();
    }
    client.post(&format!("/v1/fleets/{fleet}/enroll"), &body).await
}

#[test]
fn many_devices_at_once_come_in_by_one_claim_and_the_quota_is_exact() {
    const ASKED: usize = 200;
    const QUOTA: usize = 150;
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({"quota": QUOTA, "attributes": {"batch": "7"}})).await;
        let keys: Vec<Key> = (0..ASKED).map(|_| Key::new()).collect();
        let client = batch.client(&server);
        let asked = keys.iter().enumerate().map(|(number, key)| {
            let (client, fleet) = (client.clone(), fleet.clone());
            async move { enroll(&client, &fleet, Some(&format!("cam-{number}")), key).await }
        });
        let answers = futures_util::future::join_all(asked).await;
        let mut counts: BTreeMap<(u16, String), usize> = BTreeMap::new();
        for answer in &answers {
            let code = if answer.status == 200 { String::new() } else { answer.code() };
            *counts.entry((answer.status, code)).or_default() += 1;
        }
        let expected = BTreeMap::from([((200, String::new()), QUOTA), ((409, "quota_used".to_owned()), ASKED - QUOTA)]);
        assert_eq!(counts, expected);
        assert_eq!(batch.record(&server).await["admitted"], QUOTA);

        // Who came in is a device like any other, and its own key is its own.
        let number = answers.iter().position(|answer| answer.status == 200).unwrap();
        let identity = keys[number].identity(&answers[number].json());
        let own = server.device_client(Some(&identity));
        own.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.is(200);
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/cam-{number}")).await.is(200).json();
        assert_eq!((record["standing"].as_str(), &record["attributes"]), (Some("good"), &json!({"batch": "7"})));
        let again = batch.enroll(&server, &format!("cam-{number}"), &keys[number]).await.is(200).json();
        assert_eq!(again["serial"], answers[number].json()["serial"]);
        // More room lets the next one in, and no more.
        let path = format!("/v1/fleets/{fleet}/groups/batch");
        server.owner().patch(&path, &[], &json!({"rules": {"quota": QUOTA + 1}})).await.is(200);
        batch.enroll(&server, "cam-x", &Key::new()).await.is(200);
        batch.enroll(&server, "cam-y", &Key::new()).await.refused(409, "quota_used");
    });
}

#[test]
fn a_name_that_was_claimed_stays_with_its_key() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({"names": ["cam-*"]})).await;
        let key = Key::new();
        let first = batch.enroll(&server, "cam-1", &key).await.is(200).json();
        let again = batch.enroll(&server, "cam-1", &key).await.is(200).json();
        assert_eq!(first["serial"], again["serial"]);
        batch.enroll(&server, "cam-1", &Key::new()).await.refused(409, "claim_bound_to_other_key");
        batch.enroll(&server, "cam-2", &key).await.refused(409, "key_of_another_device");
        batch.enroll(&server, "CAM-1", &Key::new()).await.refused(409, "name_taken");
        batch.enroll(&server, "pump-1", &Key::new()).await.refused(403, "name_not_allowed");
        enroll(&batch.client(&server), &fleet, None, &Key::new()).await.refused(422, "invalid_name");
        let own = server.device_client(Some(&key.identity(&first)));
        own.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.is(200);
        batch.enroll(&server, "cam-1", &Key::new()).await.refused(409, "reenrollment_denied");
        // The claim's own key is no device's.
        batch.enroll(&server, "cam-3", &batch.key).await.refused(409, "key_of_another_device");
        assert_eq!(batch.record(&server).await["admitted"], 1);
    });
}

#[test]
fn only_listed_serials_come_in_and_the_list_names_them() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({"listed_only": true})).await;
        let path = format!("/v1/fleets/{fleet}/groups/batch/serials");
        let list = Some(b"A-1,cam-1\nA-2\n".to_vec());
        server.owner().send("PUT", &path, &[("content-type", "text/csv")], list).await.is(200);
        let named = batch.enroll(&server, "A-1", &Key::new()).await.is(200).json();
        assert_eq!(named["identity"], format!("spiffe://fleet.test/device/{fleet}/cam-1"));
        let plain = batch.enroll(&server, "A-2", &Key::new()).await.is(200).json();
        assert_eq!(plain["identity"], format!("spiffe://fleet.test/device/{fleet}/A-2"));
        for other in ["A-3", "cam-1", "cam-2"] {
            batch.enroll(&server, other, &Key::new()).await.refused(403, "serial_not_listed");
        }
        server.owner().delete(&format!("{path}/A-2")).await.is(200);
        batch.enroll(&server, "A-2", &Key::new()).await.refused(403, "serial_not_listed");
    });
}

#[test]
fn the_kill_switch_ends_the_claim_and_leaves_the_devices() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({})).await;
        let key = Key::new();
        let device = key.identity(&batch.enroll(&server, "cam-1", &key).await.is(200).json());
        server.device_client(Some(&device)).post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.is(200);
        let serial = text(&batch.answer, "serial");
        let strangers = Strangers::of(&server, &fleet).await;
        assert_eq!(strangers.ocsp(&serial, false), "good");

        let open = batch.client(&server);
        let of_another = json!({"csr": Key::new().csr(), "device": "cam-2", "group": "another"});
        open.post(&format!("/v1/fleets/{fleet}/enroll"), &of_another).await.refused(401, "group_unknown");
        batch.act(&server, "disable", json!({})).await;
        enroll(&open, &fleet, Some("cam-2"), &Key::new()).await.refused(403, "group_disabled");
        batch.act(&server, "enable", json!({})).await;
        enroll(&open, &fleet, Some("cam-2"), &Key::new()).await.is(200);

        let ended = batch.act(&server, "end", json!({"reason": "keyCompromise", "note": "the image leaked"})).await;
        assert_eq!((&ended["state"], &ended["claim"]["standing"]), (&json!("ended"), &json!("revoked")));
        // On a connection that is open, and on a new one.
        enroll(&open, &fleet, Some("cam-3"), &Key::new()).await.refused(403, "claim_ended");
        batch.enroll(&server, "cam-3", &Key::new()).await.refused(403, "claim_ended");
        claim(&server, &fleet, "batch", &Key::new(), true).await.refused(403, "claim_ended");
        assert_eq!(strangers.ocsp(&serial, false), "revoked 1");
        listed_within(&server, &fleet, &serial, Some(1)).await;
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/cam-1")).await.is(200).json();
        assert_eq!(record["standing"], "good");
        let renewed = json!({"csr": Key::new().csr()});
        server.device_client(Some(&device)).post(&format!("/v1/fleets/{fleet}/renew"), &renewed).await.is(200);
    });
}

#[test]
fn a_new_claim_certificate_takes_the_formers_place_where_that_is_said() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({})).await;
        let again = claim(&server, &fleet, "batch", &batch.key, false).await.is(201).json();
        assert_eq!(again["serial"], batch.answer["serial"]);
        let key = Key::new();
        claim(&server, &fleet, "batch", &key, false).await.refused(409, "transition_not_allowed");
        let new = claim(&server, &fleet, "batch", &key, true).await.is(201).json();
        batch.enroll(&server, "cam-1", &Key::new()).await.refused(403, "claim_ended");
        let client = server.device_client(Some(&key.identity(&new)));
        enroll(&client, &fleet, Some("cam-1"), &Key::new()).await.is(200);
        // The former's key is not taken again, nor is a device's.
        claim(&server, &fleet, "batch", &batch.key, true).await.refused(409, "key_of_another_device");
        assert_eq!(batch.record(&server).await["claim"]["serial"], new["serial"]);
        let groups = format!("/v1/fleets/{fleet}/groups");
        server.owner().post(&groups, &json!({"name": "person", "proof": "approval"})).await.is(201);
        claim(&server, &fleet, "person", &Key::new(), false).await.refused(422, "invalid_value");
    });
}

#[test]
fn more_devices_than_expected_raise_an_alarm_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({"alarm_per_hour": 2})).await;
        let alarms = || server.metric("fleetmark_alarms_total", &[("alarm", "claim_rate")]);
        let before = alarms().await;
        for number in 0..2 {
            batch.enroll(&server, &format!("cam-{number}"), &Key::new()).await.is(200);
        }
        assert!((alarms().await - before).abs() < 0.5);
        for number in 2..5 {
            batch.enroll(&server, &format!("cam-{number}"), &Key::new()).await.is(200);
        }
        assert!((alarms().await - before - 1.0).abs() < 0.5);
    });
}

#[test]
fn a_claim_is_nobody_anywhere_else() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let batch = Batch::new(&server, &fleet, "batch", json!({})).await;
        let client = batch.client(&server);
        enroll(&client, &other, Some("cam-1"), &Key::new()).await.refused(403, "wrong_fleet");
        let csr = json!({"csr": Key::new().csr()});
        client.post(&format!("/v1/fleets/{fleet}/renew"), &csr).await.refused(403, "wrong_kind");
        client.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.refused(403, "wrong_kind");
        client.post("/v1/renew", &csr).await.refused(403, "wrong_kind");
        client.get("/v1/ledgers").await.refused(403, "wrong_kind");
        let told = handshake_ends(server.admin_port, server.trust().config(Some(&batch.identity)).into()).await;
        assert!(told.contains("alert"), "{told}");
        // An operator revokes it with its group alone: it is no device's.
        let serial = text(&batch.answer, "serial");
        let record = server.owner().get(&format!("/v1/certificates/{serial}")).await.is(200).json();
        assert_eq!((&record["identity"], &record["standing"]), (&Value::Null, &json!("good")));
        server.owner().post(&format!("/v1/certificates/{serial}/revoke"), &json!({})).await.refused(404, "not_found");

        let gateway = Gateway::start(&server, "gw-claim", &[&fleet]).await;
        let key = Key::new();
        let device = key.identity(&batch.enroll(&server, "cam-1", &key).await.is(200).json());
        gateway.says("allowed", &device, 10).await;
        let verdict = gateway.verdict(batch.identity.leaf()).await;
        assert_eq!(verdict["decision"], "deny", "{verdict}");
        assert!(!gateway.admits(&batch.identity).await, "a gateway let a claim certificate in");
        assert!(gateway.admits(&device).await);
    });
}

#[test]
fn strangers_refuse_a_claim_certificate_by_its_purpose() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let batch = Batch::new(&server, &fleet, "batch", json!({})).await;
        let id = authority_id(&server, "device", Some(&fleet)).await;
        let issuer = server.public_client().get(&format!("/ca/{id}.pem")).await.is(200).body;
        let issuer = server.write_scratch(&format!("claim-issuer-{fleet}.pem"), &issuer).display().to_string();
        let root = server.write_scratch("claim-root.pem", text(&batch.answer, "trust_bundle").as_bytes()).display().to_string();
        let chain = text(&batch.answer, "certificate");
        let leaf = server.write_scratch("claim.pem", chain.as_bytes()).display().to_string();
        let key = server.write_scratch("claim.key", batch.key.0.serialize_pem().as_bytes()).display().to_string();

        // It is a sound certificate: of our chain, and for our purpose alone.
        let verify = |more: &[&str]| {
            let arguments = [&["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &issuer], more, &[&leaf]].concat();
            openssl(&arguments, b"")
        };
        assert!(verify(&[]).0, "{}", verify(&[]).1);
        for purpose in ["sslclient", "sslserver", "smimesign", "timestampsign"] {
            let (trusted, said) = verify(&["-purpose", purpose]);
            assert!(!trusted && said.contains("purpose"), "{purpose}: {said}");
        }
        let (_, printed) =
            openssl(&["x509", "-in", &leaf, "-noout", "-subject", "-ext", "extendedKeyUsage,subjectAltName"], b"");
        assert!(printed.contains("2.25.190392001021574049915008306275167811568"), "{printed}");
        assert!(printed.contains("CN = batch") && !printed.contains("spiffe"), "{printed}");

        // A TLS server of openssl's (nginx and Mosquitto ask the same of it) that wants a certificate of our chain.
        let port = free_port();
        let door = Key::new();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&door.0).unwrap();
        let own = server.write_scratch("door.pem", certificate.pem().as_bytes()).display().to_string();
        let own_key = server.write_scratch("door.key", door.0.serialize_pem().as_bytes()).display().to_string();
        let both = server.public_client().get("/ca/root.pem").await.is(200).text() + &std::fs::read_to_string(&issuer).unwrap();
        let trusted = server.write_scratch("trusted.pem", both.as_bytes()).display().to_string();
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", &port.to_string(), "-cert", &own, "-key", &own_key, "-www"])
            .args(["-CAfile", &trusted, "-Verify", "3", "-verify_return_error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let device_key = Key::new();
        let device = batch.enroll(&server, "cam-1", &device_key).await.is(200).json();
        let device_pem = server.write_scratch("cam.pem", text(&device, "certificate").as_bytes()).display().to_string();
        let device_key = server.write_scratch("cam.key", device_key.0.serialize_pem().as_bytes()).display().to_string();
        let url = format!("https://localhost:{port}/");
        let curl = |certificate: &str, key: &str| {
            let output = Command::new("curl")
                .args([
                    "-s",
                    "-k",
                    "-m",
                    "10",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "--cert",
                    certificate,
                    "--key",
                    key,
                    &url,
                ])
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        until("openssl s_server", 10, || async { (curl(&device_pem, &device_key) == "200").then_some(()) }).await;
        let told = curl(&leaf, &key);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(told, "000", "openssl s_server let a claim certificate in");
    });
}

#[test]
fn a_device_with_curl_alone_comes_in_by_its_claim() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let groups = format!("/v1/fleets/{fleet}/groups");
        server.owner().post(&groups, &json!({"name": "batch", "proof": "claim"})).await.is(201);
        let directory = server.scratch("curl-claim");
        std::fs::create_dir_all(&directory).unwrap();
        let at = |name: &str| directory.join(name).display().to_string();
        let out = ["group", "claim", "batch", "--fleet", &fleet, "--out", &at("claim")];
        let (ok, said) = crate::groups::fleetmark(&server, &out);
        assert!(ok, "{said}");
        let new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=cam-1"];
        let (ok, said) = openssl(&[&new[..], &["-keyout", &at("cam.key"), "-out", &at("cam.csr")]].concat(), b"");
        assert!(ok, "{said}");
        let body = json!({"device": "cam-1", "csr": std::fs::read_to_string(at("cam.csr")).unwrap()});
        std::fs::write(at("body.json"), body.to_string()).unwrap();
        let url = format!("https://localhost:{}/v1/fleets/{fleet}/enroll", server.device_port);
        let output = Command::new("curl")
            .args(["-sS", "-m", "20", "--cacert", &at("claim/ca.pem"), "--cert", &at("claim/claim.pem")])
            .args(["--key", &at("claim/claim.key"), "-H", "Content-Type: application/json"])
            .args(["--data", &format!("@{}", at("body.json")), &url])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/cam-1"), "{answer}");
    });
}
