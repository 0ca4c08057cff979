//! Makers' certificates (IEEE 802.1AR): who comes in by one, under which name, and what a factory reset changes.

use std::fs;
use std::process::Command;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::forge::{Maker, hardware_module_name};
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Connection, Identity, Key, Server, handshake_ends, run, shared};

/// Makes a maker's group named `line` that trusts these certificates.
async fn group(server: &Server, fleet: &str, ca: &str, rules: Value) {
    let body = json!({"name": "line", "proof": "maker", "ca": ca, "rules": rules});
    server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &body).await.is(201);
}

async fn switch(server: &Server, fleet: &str, act: &str) {
    server.owner().post(&format!("/v1/fleets/{fleet}/groups/line/{act}"), &json!({})).await.is(200);
}

async fn open(server: &Server, device: &Identity) -> Result<Connection, String> {
    Connection::open(server.device_port, &server.trust(), Some(device)).await
}

/// Asks for a certificate for this key with the maker's certificate of the connection.
async fn enroll(server: &Server, fleet: &str, device: &Identity, key: &Key, name: Option<&str>) -> Answer {
    let mut body = json!({"csr": key.csr()});
    if let Some(name) = name {
        body["device"] = name.into();
    }
    let mut connection = open(server, device).await.unwrap();
    connection.post(&format!("/v1/fleets/{fleet}/enroll"), &body).await.unwrap()
}

/// Whether the handshake takes this certificate; else its alert.
async fn handshake(server: &Server, device: &Identity) -> Result<(), String> {
    open(server, device).await?.get("/v1/time").await.map(|answer| drop(answer.is(200)))
}

async fn confirm(server: &Server, fleet: &str, identity: &Identity) {
    let mut connection = open(server, identity).await.unwrap();
    connection.request("POST", &format!("/v1/fleets/{fleet}/confirm"), &[], b"").await.unwrap().is(200);
}

/// Standing of each certificate of a fleet's devices, by serial, as issued.
async fn standings(server: &Server, fleet: &str) -> Vec<String> {
    let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device")).await.is(200).json();
    all["items"].as_array().unwrap().iter().map(|one| text(one, "standing")).collect()
}

async fn device(server: &Server, fleet: &str, name: &str) -> Value {
    server.owner().get(&format!("/v1/fleets/{fleet}/devices/{name}")).await.is(200).json()
}

#[test]
fn an_idevid_yields_an_ldevid_and_nothing_else() {
    let server = shared();
    run(async {
        let maker = Maker::new("Acme");
        for (ca, prefix) in [(maker.root_pem(), "root-"), (maker.line_pem(), "line-")] {
            let fleet = server.fleet(json!({})).await;
            group(&server, &fleet, &ca, json!({"prefix": prefix, "attributes": {"model": "mk4"}})).await;
            let idevid = maker.device("SN-1001");
            let key = Key::new();
            let answer = enroll(&server, &fleet, &idevid, &key, None).await.is(200).json();
            let name = format!("{prefix}SN-1001");
            assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/{name}"));
            assert_eq!(answer["standing"], "unconfirmed");
            // The same request, the same answer.
            let again = enroll(&server, &fleet, &idevid, &key, Some(&name)).await.is(200).json();
            assert_eq!((&again["certificate"], &again["replayed"]), (&answer["certificate"], &json!(true)));
            let record = device(&server, &fleet, &name).await;
            assert_eq!(record["attributes"], json!({"model": "mk4", "serial": "SN-1001"}), "{record}");
            confirm(&server, &fleet, &key.identity(&answer)).await;
            assert_eq!(standings(&server, &fleet).await, ["good"]);

            // The maker's certificate is nobody's anywhere else.
            let mut connection = open(&server, &idevid).await.unwrap();
            for act in ["renew", "confirm"] {
                let path = format!("/v1/fleets/{fleet}/{act}");
                connection.post(&path, &json!({"csr": key.csr()})).await.unwrap().refused(403, "certificate_foreign");
            }
            let admin = Connection::open(server.admin_port, &server.trust(), Some(&idevid)).await;
            if let Ok(admin) = admin {
                assert!(admin.ended_by().await.contains("UnknownCA"));
            }
            // A token in the head counts before it.
            let token = server.token(&fleet, "by-token").await;
            let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "application/json")];
            let body = json!({"csr": Key::new().csr()}).to_string();
            let path = format!("/v1/fleets/{fleet}/enroll");
            let answer = connection.request("POST", &path, &headers, body.as_bytes()).await.unwrap().is(200).json();
            assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/by-token"));
            let shown = server.owner().get(&format!("/v1/fleets/{fleet}/groups/line")).await.is(200).json();
            assert_eq!(shown["admitted"], 1, "{shown}");
        }
    });
}

#[test]
fn a_maker_is_taken_and_left_at_the_next_handshake() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Switch");
        let idevid = maker.device("S1");
        let trust = server.trust();
        let alert = || handshake_ends(server.device_port, std::sync::Arc::new(trust.config(Some(&idevid))));
        let refused = || async { server.handshakes_refused("device", "certificate_foreign").await };
        let before = refused().await;
        assert!(alert().await.contains("UnknownCA"));
        assert!(refused().await > before);

        group(&server, &fleet, &maker.root_pem(), json!({})).await;
        handshake(&server, &idevid).await.unwrap();
        let mut kept = open(&server, &idevid).await.unwrap();
        kept.get("/v1/time").await.unwrap().is(200);

        switch(&server, &fleet, "disable").await;
        assert!(alert().await.contains("UnknownCA"));
        // A connection of before is asked again.
        let body = json!({"csr": Key::new().csr()});
        let path = format!("/v1/fleets/{fleet}/enroll");
        kept.post(&path, &body).await.unwrap().refused(403, "group_disabled");
        let elsewhere = server.fleet(json!({})).await;
        kept.post(&format!("/v1/fleets/{elsewhere}/enroll"), &body).await.unwrap().refused(401, "maker_unknown");

        switch(&server, &fleet, "enable").await;
        kept.post(&path, &body).await.unwrap().is(200);
        handshake(&server, &idevid).await.unwrap();
    });
}

#[test]
fn names_and_serial_numbers_are_found_where_the_group_says() {
    let server = shared();
    run(async {
        let maker = Maker::new("Where");
        let module = |serial: &'static [u8], critical: bool| {
            maker.idevid(&Key::new(), |params| params.custom_extensions.push(hardware_module_name(serial, critical)))
        };
        // An empty subject with a critical subjectAltName is what RFC 5280 4.1.2.6 asks for.
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, &maker.root_pem(), json!({"serial_from": "hardware-module-name"})).await;
        for (serial, critical, name) in
            [(&b"HW-7"[..], true, "HW-7"), (b"HW-8", false, "HW-8"), (b"\x00\xff\x10", true, "00ff10")]
        {
            let answer = enroll(&server, &fleet, &module(serial, critical), &Key::new(), None).await.is(200).json();
            assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/{name}"));
        }
        let plain = maker.device("no-module");
        enroll(&server, &fleet, &plain, &Key::new(), None).await.refused(422, "serial_missing");
        enroll(&server, &fleet, &module(b"HW 9", true), &Key::new(), None).await.refused(422, "invalid_name");
        enroll(&server, &fleet, &module(b"HW-10", true), &Key::new(), Some("HW-11")).await.refused(403, "name_not_allowed");

        let fleet = server.fleet(json!({})).await;
        let rules = json!({"serial_from": "common-name", "mapping": "sanitized", "prefix": "cam-", "names": ["cam-*"]});
        group(&server, &fleet, &maker.line_pem(), rules).await;
        let named = maker.idevid(&Key::new(), |params| params.distinguished_name.push(DnType::CommonName, "SN 17/4"));
        let answer = enroll(&server, &fleet, &named, &Key::new(), None).await.is(200).json();
        assert!(text(&answer, "identity").contains("/cam-SN-17-4-"), "{answer}");

        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, &maker.root_pem(), json!({"listed_only": true})).await;
        let list = json!({"serial": "L1", "device": "hall"}).to_string() + "\n" + &json!({"serial": "L2"}).to_string() + "\n";
        let path = format!("/v1/fleets/{fleet}/groups/line/serials");
        server.owner().send("PUT", &path, &[("content-type", "application/jsonl")], Some(list.into())).await.is(200);
        for (serial, name) in [("L1", "hall"), ("L2", "L2")] {
            let answer = enroll(&server, &fleet, &maker.device(serial), &Key::new(), None).await.is(200).json();
            assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/{name}"));
        }
        enroll(&server, &fleet, &maker.device("L3"), &Key::new(), None).await.refused(403, "serial_not_listed");
        enroll(&server, &fleet, &module(b"L1", true), &Key::new(), None).await.refused(422, "serial_missing");
    });
}

/// `change` makes a certificate that the handshake must not take; without it the same one is taken.
async fn not_taken(server: &Server, maker: &Maker, what: &str, change: impl Fn(&mut CertificateParams)) {
    handshake(server, &maker.device("taken")).await.unwrap();
    let idevid = maker.idevid(&Key::new(), change);
    assert!(handshake(server, &idevid).await.is_err(), "{what}");
}

#[test]
fn what_no_idevid_is_does_not_come_through_the_handshake() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Strict");
        group(&server, &fleet, &maker.root_pem(), json!({})).await;
        let client = maker.idevid(&Key::new(), |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        handshake(&server, &client).await.unwrap();
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            handshake(&server, &maker.idevid(&Key::of(algorithm), |_| {})).await.unwrap();
        }
        let (made, told) = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], b"");
        assert!(made, "{told}");
        let end = "-----END PRIVATE KEY-----\n";
        let rsa = rcgen::KeyPair::from_pem(&format!("{}{end}", told.split(end).next().unwrap())).unwrap();
        handshake(&server, &maker.idevid(&Key(rsa), |_| {})).await.unwrap();
        not_taken(&server, &maker, "a server's", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
        .await;
        not_taken(&server, &maker, "an authority's", |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
            .await;
        not_taken(&server, &maker, "a key that signs no handshake", |params| {
            params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        })
        .await;
        not_taken(&server, &maker, "ended", |params| params.not_after = time::macros::datetime!(2021-01-01 0:00 UTC)).await;
        not_taken(&server, &maker, "not begun", |params| params.not_before = time::macros::datetime!(9000-01-01 0:00 UTC))
            .await;
        let other = Maker::new("Strict");
        assert!(handshake(&server, &other.device("copy")).await.is_err(), "a maker of the same name");
        let mut torn = maker.device("torn");
        torn.chain.truncate(1);
        assert!(handshake(&server, &torn).await.is_err(), "without the line's certificate");
    });
}

#[test]
fn the_makers_own_key_gets_no_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Own");
        group(&server, &fleet, &maker.root_pem(), json!({"mapping": "requested"})).await;
        let key = Key::new();
        let idevid = maker.idevid(&key, |_| {});
        enroll(&server, &fleet, &idevid, &key, Some("a")).await.refused(409, "key_of_maker_certificate");
        enroll(&server, &fleet, &idevid, &Key::new(), None).await.refused(422, "invalid_name");
        enroll(&server, &fleet, &idevid, &Key::new(), Some("a")).await.is(200);
    });
}

#[test]
fn a_request_that_names_its_group_comes_in_by_no_other() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Named");
        group(&server, &fleet, &maker.root_pem(), json!({"mapping": "requested"})).await;
        let other = json!({"name": "other", "proof": "maker", "ca": maker.root_pem(), "rules": {"prefix": "o-"}});
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &other).await.is(201);
        let idevid = maker.device("N1");
        let by = |group: &str, name: &str| json!({"csr": Key::new().csr(), "group": group, "device": name});
        let ask = async |body: &Value| {
            open(&server, &idevid).await.unwrap().post(&format!("/v1/fleets/{fleet}/enroll"), body).await.unwrap()
        };
        ask(&by("nobodys", "o-N1")).await.refused(401, "maker_unknown");
        ask(&by("OTHER", "any")).await.refused(403, "name_not_allowed");
        switch(&server, &fleet, "disable").await;
        ask(&by("line", "o-N1")).await.refused(403, "group_disabled");
        ask(&by("other", "o-N1")).await.is(200);
    });
}

#[test]
fn a_device_whose_own_key_is_known_to_all_proves_nothing() {
    let mut server = Server::start(&[]);
    server.stop();
    let (made, told) = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], b"");
    assert!(made, "{told}");
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----\n");
    let pem = &told[told.find(begin).unwrap()..told.find(end).unwrap() + end.len()];
    let (_, modulus) = openssl(&["rsa", "-noout", "-modulus"], pem.as_bytes());
    let (_, hash) = openssl(&["dgst", "-sha1", "-r"], modulus.as_bytes());
    let data = server.data();
    fs::create_dir(data.join("lists")).unwrap();
    fs::write(data.join("lists/blacklist.RSA-2048"), format!("{}\n", &hash[20..40])).unwrap();
    fs::write(data.join("fleetmark.toml"), "[keys]\nweak_lists = \"lists\"\n").unwrap();
    server.start_again();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Weak");
        group(&server, &fleet, &maker.root_pem(), json!({"mapping": "requested"})).await;
        let listed = maker.idevid(&Key(rcgen::KeyPair::from_pem(pem).unwrap()), |_| {});
        let answer = enroll(&server, &fleet, &listed, &Key::new(), Some("a")).await.refused(422, "key_debian_weak");
        assert!(text(&answer.json(), "detail").contains("maker's certificate"), "{:?}", answer.json());
        enroll(&server, &fleet, &maker.device("sound"), &Key::new(), Some("a")).await.is(200);
    });
}

#[test]
fn a_factory_reset_goes_by_the_profiles_rule() {
    let profiles = tempfile::tempdir().unwrap();
    let plain = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/certs/profiles/device.toml")).unwrap();
    for rule in ["deny", "same-hardware", "permit", "always"] {
        let text = plain.replacen("identity = true", &format!("identity = true\nreenroll = \"{rule}\""), 1);
        assert_ne!(text, plain);
        fs::write(profiles.path().join(format!("{rule}.toml")), text).unwrap();
    }
    let mut server = Server::start(&[]);
    server.stop();
    let config = server.data().join("fleetmark.toml");
    let kept = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, format!("profiles = \"{}\"\n{kept}", profiles.path().display())).unwrap();
    server.start_again();
    run(async {
        let maker = Maker::new("Reset");
        for (rule, same, other) in [
            ("deny", "reenrollment_denied", "reenrollment_denied"),
            ("same-hardware", "ok", "hardware_mismatch"),
            ("permit", "reenrollment_denied", "reenrollment_denied"),
            ("always", "ok", "ok"),
        ] {
            let fleet = server.fleet(json!({"profile": rule})).await;
            group(&server, &fleet, &maker.root_pem(), json!({})).await;
            // Hardware is one device, also across fleets.
            let serial = format!("R-{rule}");
            let idevid = maker.device(&serial);
            let first = Key::new();
            let answer = enroll(&server, &fleet, &idevid, &first, None).await.is(200).json();
            // Not confirmed yet: the same hardware goes on with another key, whatever the rule.
            let second = Key::new();
            let answer_of_second = enroll(&server, &fleet, &idevid, &second, None).await.is(200).json();
            assert_ne!(answer["serial"], answer_of_second["serial"]);
            enroll(&server, &fleet, &maker.device(&serial), &Key::new(), None).await.refused(409, "hardware_mismatch");
            enroll(&server, &fleet, &idevid, &first, None).await.refused(409, "key_ended");
            confirm(&server, &fleet, &second.identity(&answer_of_second)).await;
            assert_eq!(standings(&server, &fleet).await, ["revoked", "good"]);

            // All is wiped but the maker's key.
            let third = Key::new();
            let anew = enroll(&server, &fleet, &idevid, &third, None).await;
            if same == "ok" {
                let anew = anew.is(200).json();
                assert_eq!(standings(&server, &fleet).await, ["revoked", "good", "unconfirmed"], "{rule}");
                confirm(&server, &fleet, &third.identity(&anew)).await;
                assert_eq!(standings(&server, &fleet).await, ["revoked", "superseded", "good"], "{rule}");
            } else {
                anew.refused(409, same);
                assert_eq!(standings(&server, &fleet).await, ["revoked", "good"], "{rule}");
            }
            let board = enroll(&server, &fleet, &maker.device(&serial), &Key::new(), None).await;
            if other == "ok" {
                board.is(200)
            } else {
                board.refused(409, other)
            };
        }
    });
}

#[test]
fn cloned_hardware_is_noticed() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Clone");
        group(&server, &fleet, &maker.root_pem(), json!({"mapping": "requested"})).await;
        let idevid = maker.device("C1");
        let alarms = || async { server.metric("fleetmark_alarms_total", &[("alarm", "hardware_conflict")]).await };
        let before = alarms().await;
        enroll(&server, &fleet, &idevid, &Key::new(), Some("one")).await.is(200);
        enroll(&server, &fleet, &idevid, &Key::new(), Some("two")).await.refused(409, "hardware_of_another_device");
        enroll(&server, &fleet, &idevid, &Key::new(), Some("ONE")).await.refused(409, "name_taken");
        enroll(&server, &fleet, &maker.device("C2"), &Key::new(), Some("one")).await.refused(409, "hardware_mismatch");
        assert!(alarms().await >= before + 2.0);

        // In another fleet it is the same hardware.
        let elsewhere = server.fleet(json!({})).await;
        group(&server, &elsewhere, &maker.root_pem(), json!({"mapping": "requested"})).await;
        enroll(&server, &elsewhere, &idevid, &Key::new(), Some("one")).await.refused(409, "hardware_of_another_device");
        // A device that was put out takes its hardware with it, whatever name that asks for.
        server
            .owner()
            .post(&format!("/v1/fleets/{fleet}/devices/one/retire"), &json!({"reason": "keyCompromise"}))
            .await
            .is(200);
        assert_eq!(device(&server, &fleet, "one").await["state"], "retired");
        enroll(&server, &fleet, &idevid, &Key::new(), Some("two")).await.refused(403, "identity_out");
        enroll(&server, &elsewhere, &idevid, &Key::new(), Some("one")).await.refused(403, "identity_out");
    });
}

#[test]
fn of_many_enrollments_at_once_one_lives() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Race");
        group(&server, &fleet, &maker.root_pem(), json!({})).await;
        let idevid = maker.device("X1");
        let keys: Vec<_> = (0..8).map(|_| Key::new()).collect();
        let asked = keys.iter().map(|key| enroll(&server, &fleet, &idevid, key, None));
        let answers = futures_util::future::join_all(asked).await;
        let issued: Vec<_> = answers.into_iter().map(|answer| answer.is(200).json()).collect();
        let living = |standings: &[String]| standings.iter().filter(|standing| *standing != "revoked").count();
        let found = standings(&server, &fleet).await;
        assert_eq!((found.len(), living(&found)), (8, 1), "{found:?}");
        // Each loser is told so; the one that lives is confirmed.
        let mut confirmed = 0;
        for (key, answer) in keys.iter().zip(&issued) {
            let mut connection = open(&server, &key.identity(answer)).await.unwrap();
            let answer = connection.request("POST", &format!("/v1/fleets/{fleet}/confirm"), &[], b"").await.unwrap();
            match answer.status {
                200 => confirmed += 1,
                _ => drop(answer.refused(403, "revoked")),
            }
        }
        assert_eq!(confirmed, 1);
        let shown = server.owner().get(&format!("/v1/fleets/{fleet}/groups/line")).await.is(200).json();
        assert_eq!(shown["admitted"], 1, "{shown}");
    });
}

/// A shell script's output; it stops at the first command that fails.
fn shell(directory: &std::path::Path, script: &str, more: &[(&str, String)]) -> String {
    let mut command = Command::new("sh");
    command.arg("-euc").arg(script).current_dir(directory);
    for (name, value) in more {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    let both = String::from_utf8_lossy(&both).into_owned();
    assert!(output.status.success(), "{both}");
    both
}

/// The commands of the manual's page between ```` ```sh NAME ```` and the end of the block.
fn manual(name: &str) -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/enrollment/makers.md")).unwrap();
    let blocks = page.split(&format!("<!-- {name} -->\n```sh\n")).nth(1).unwrap_or_else(|| panic!("no {name}"));
    blocks.split("```").next().unwrap().to_owned()
}

#[test]
fn the_manuals_commands_bring_a_device_in_with_openssl_and_curl_alone() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let scratch = server.scratch(&fleet);
        fs::create_dir_all(&scratch).unwrap();
        shell(&scratch, &manual("maker"), &[]);
        let (_, dates) = openssl(&["x509", "-in", scratch.join("idevid.pem").to_str().unwrap(), "-noout", "-enddate"], b"");
        assert!(dates.contains("9999"), "{dates}");
        let variables = [
            ("FLEET", fleet.clone()),
            ("FLEETMARK_OPERATOR", server.data().join("operator").display().to_string()),
            ("CA", server.data().join("operator/ca.pem").display().to_string()),
            ("SERVER", format!("https://localhost:{}", server.device_port)),
            ("PATH", {
                let binary = std::path::Path::new(env!("CARGO_BIN_EXE_fleetmark")).parent().unwrap().display();
                format!("{binary}:{}", std::env::var("PATH").unwrap())
            }),
        ];
        shell(&scratch, &manual("group"), &variables);
        let told = shell(&scratch, &manual("device"), &variables);
        assert!(told.contains("good"), "{told}");
        let record = device(&server, &fleet, "acme-SN-2026-0001").await;
        assert_eq!((&record["state"], &record["attributes"]["serial"]), (&json!("active"), &json!("SN-2026-0001")), "{record}");
    });
}
