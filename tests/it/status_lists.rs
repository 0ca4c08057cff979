//! Status lists and statements of standing, as the server gives them out: read by the Python reader, the C functions' Rust side, curl and
//! openssl.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_status::key::P256Key;
use fleetmark_status::reason::Answer;
use fleetmark_status::{List, Scope, Terms};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::authorities::{act, operator, replace};
use crate::gateway::restore;
use crate::harness::device::Device;
use crate::harness::forge::authority_id;
use crate::harness::openssl::openssl;
use crate::harness::{Server, run, shared};

/// What firmware was given beside the list: whose it must be, and the key that signs it.
pub struct Firmware {
    scope: Scope,
    point: [u8; 65],
    authority: u64,
}

impl Firmware {
    pub async fn of(server: &Server, fleet: &str) -> Self {
        Self::of_authority(server, fleet, authority_id(server, "device", Some(fleet)).await).await
    }

    async fn of_authority(server: &Server, fleet: &str, authority: u64) -> Self {
        let index = server.public_client().get(&format!("/status/{authority}/index.json")).await.is(200).json();
        let key_id = hex::decode(index["key_id"].as_str().unwrap()).unwrap();
        let pem = server.public_client().get(&format!("/status/{authority}/signers.pem")).await.is(200).text();
        let (done, key) = openssl(&["x509", "-noout", "-pubkey"], pem.as_bytes());
        assert!(done, "{key}");
        let (_, der) = x509_parser::pem::parse_x509_pem(key.as_bytes()).unwrap();
        let point = *der.contents.last_chunk().unwrap();
        let name = format!("fleet.test/{fleet}");
        let fleet = *Sha256::digest(name.as_bytes()).first_chunk().unwrap();
        let scope = Scope { fleet, authority: key_id.try_into().unwrap(), epoch: 0, slice: 0 };
        Self { scope, point, authority }
    }

    /// The list with this device's epoch, as it is now.
    async fn fetch(&self, server: &Server, device: &Device) -> Option<Vec<u8>> {
        let path = format!("/status/{}/{}-0.fms", self.authority, epoch(device));
        let answer = server.public_client().get(&path).await;
        (answer.status == 200).then_some(answer.body)
    }

    pub fn read(&self, octets: &[u8], device: &Device) -> (u64, Answer) {
        let scope = Scope { epoch: epoch(device), ..self.scope };
        let terms = Terms { now: now(), lowest_sequence: 0, max_age: 86_400 };
        let key = P256Key::from_point(&self.point).unwrap();
        let list = List::open(octets, &scope, &terms, &key).unwrap();
        (list.header().sequence, list.query_serial(&hex::decode(device.serial()).unwrap()))
    }

    /// Asks until the list says so of the device; the sequence of the list that does.
    pub async fn until(&self, server: &Server, device: &Device, wanted: Answer) -> (u64, Vec<u8>) {
        for _ in 0..240 {
            if let Some(octets) = self.fetch(server, device).await {
                let (sequence, answer) = self.read(&octets, device);
                if answer == wanted {
                    return (sequence, octets);
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("no list within a minute says {wanted} of {}", device.name);
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn epoch(device: &Device) -> u32 {
    u32::from_str_radix(&device.serial()[2..10], 16).unwrap()
}

fn index(device: &Device) -> u32 {
    u32::from_str_radix(&device.serial()[10..18], 16).unwrap()
}

#[test]
fn a_status_list_follows_the_ledger_and_strangers_read_it() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (good, revoked, held) = (
            Device::good(&server, &fleet, "good").await,
            Device::good(&server, &fleet, "revoked").await,
            Device::good(&server, &fleet, "held").await,
        );
        let firmware = Firmware::of(&server, &fleet).await;
        let (first, _) = firmware.until(&server, &held, Answer::Good).await;
        revoked.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        held.act(&server, "hold", json!({})).await;
        let (second, octets) = firmware.until(&server, &held, Answer::NotGood).await;
        assert!(first < second, "{first} {second}");
        assert_eq!(firmware.read(&octets, &good).1, Answer::Good);
        assert_eq!(firmware.read(&octets, &revoked).1, Answer::NotGood);

        // The same octets by a reader that shares no line with ours.
        let list = server.write_scratch("list.fms", &octets);
        let case = json!({"point": hex::encode(firmware.point), "fleet": hex::encode(firmware.scope.fleet), "slice": 0,
            "authority": hex::encode(firmware.scope.authority), "epoch": epoch(&good), "lowest_sequence": second,
            "now": now(), "max_age": 86_400});
        let devices = [&good, &revoked, &held].map(index);
        let program = "import json, sys; from status_list import *\n\
            octets = open(sys.argv[1], 'rb').read()\n\
            header, listed = open_list(octets, json.loads(sys.argv[2]))\n\
            print([answer(header, listed, index) for index in json.loads(sys.argv[3]) + [header.count]])";
        let told = Command::new("python3")
            .args(["-c", program, list.to_str().unwrap(), &case.to_string(), &json!(devices).to_string()])
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/crates/fleetmark-status/python"))
            .output()
            .unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "[0, 1, 1, 2]");

        // Caches ask for what changed.
        let path = format!("/status/{}/{}-0.fms", firmware.authority, epoch(&good));
        let answer = server.public_client().get(&path).await.is(200);
        assert_eq!(answer.header("content-type"), "application/vnd.fleetmark.status-list");
        let tag = answer.header("etag").to_owned();
        server.public_client().send("GET", &path, &[("if-none-match", &tag)], None).await.is(304);
        server.public_client().get(&format!("/status/{}/{}-1.fms", firmware.authority, epoch(&good))).await.is(404);

        // Released, it is good again.
        held.act(&server, "release", json!({})).await;
        firmware.until(&server, &held, Answer::Good).await;
    });
}

#[test]
fn when_an_authority_is_revoked_its_list_and_its_devices_standing_say_so_also_after_a_restart() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let firmware = Firmware::of(&server, &fleet).await;
        let (first, _) = firmware.until(&server, &device, Answer::Good).await;
        let next = replace(&server, "device", Some(&fleet)).await;
        let moved = device.renew(&server).await;
        moved.confirm(&server).await.is(200);
        let left = Device::good(&server, &fleet, "b").await;
        let nonce = "5a".repeat(32);
        let told = async |server: &Server, device: &Device| ask(server, &device.serial(), &nonce).await.is(200).json();
        let pair = |standing: &str, action: &str| (standing.to_owned(), action.to_owned());

        let body = json!({"force": true, "reason": "keyCompromise"});
        assert_eq!(act(&server, firmware.authority, "revoke", body).await["state"], "revoked");
        // At once to who asks, within a minute to who reads the list; the old certificate's device has another.
        let old = told(&server, &device).await;
        assert_eq!(said(&old), pair("superseded", "use_newer"));
        let (second, _) = firmware.until(&server, &device, Answer::NotGood).await;
        assert!(second > first, "{second} after {first}");
        for device in [&moved, &left] {
            assert_eq!(said(&told(&server, device).await), pair("good", "go_on"));
        }
        let successors = Firmware::of_authority(&server, &fleet, next).await;
        successors.until(&server, &left, Answer::Good).await;

        // The next authority ends with a device that has no other certificate.
        replace(&server, "device", Some(&fleet)).await;
        act(&server, next, "revoke", json!({"force": true, "reason": "keyCompromise"})).await;
        for restart in [false, true] {
            if restart {
                server.restart();
            }
            let answer = told(&server, &left).await;
            assert_eq!(said(&answer), pair("revoked", "enroll"), "restarted: {restart}");
            assert_eq!(answer["reason"], "cACompromise");
            successors.until(&server, &left, Answer::NotGood).await;
            let (third, _) = firmware.until(&server, &device, Answer::NotGood).await;
            assert!(third >= second, "{third} after {second}");
        }
    });
}

#[test]
fn a_lists_sequence_rises_through_a_kill_and_a_restore() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let firmware = Firmware::of(&server, &fleet).await;
        firmware.until(&server, &device, Answer::Good).await;
        let backup = server.scratch("status-backup");
        let (done, told) = operator(&server, &["backup", "create", "--out", &backup.display().to_string()]);
        assert!(done, "{told}");
        device.act(&server, "hold", json!({})).await;
        let (held, _) = firmware.until(&server, &device, Answer::NotGood).await;
        server.kill_and_start();
        let (again, _) = firmware.until(&server, &device, Answer::NotGood).await;
        assert!(again >= held, "{again} after {held}");
        device.act(&server, "release", json!({})).await;
        let (seen, _) = firmware.until(&server, &device, Answer::Good).await;
        assert!(seen > again, "{seen} after {again}");
        // What the backup's list says is what the server holds again, but firmware has seen a newer one.
        restore(&mut server, &backup);
        let (restored, _) = firmware.until(&server, &device, Answer::Good).await;
        assert!(restored > seen, "{restored} after {seen}: firmware would call it rolled back");
    });
}

#[test]
fn a_status_key_is_for_nothing_else() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let authority = authority_id(&server, "device", Some(&fleet)).await;
        let pem = server.public_client().get(&format!("/status/{authority}/signers.pem")).await.is(200).body;
        let root = server.public_client().get("/ca/root.pem").await.is(200).body;
        let (pem, root) = (server.write_scratch("signers.pem", &pem), server.write_scratch("status-root.pem", &root));
        let (pem, root) = (pem.to_str().unwrap(), root.to_str().unwrap());
        let (done, told) = openssl(&["verify", "-CAfile", root, "-untrusted", pem, pem], b"");
        assert!(done, "{told}");
        for purpose in ["sslclient", "sslserver", "ocsphelper", "smimesign"] {
            let (done, _) = openssl(&["verify", "-purpose", purpose, "-CAfile", root, "-untrusted", pem, pem], b"");
            assert!(!done || purpose == "ocsphelper", "{purpose}");
        }
        let (_, told) = openssl(&["x509", "-in", pem, "-noout", "-ext", "extendedKeyUsage"], b"");
        assert!(told.contains("2.25.257790598835804158408139993016795951822"), "{told}");
    });
}

/// `fleetmark status …`; its exit code, what it printed, and what it said of a failure.
fn status(server: &Server, arguments: &[&str]) -> (i32, Value, Value) {
    let operator = server.data().join("operator").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
    let output = command.args(["--json", "--operator", &operator, "status"]).args(arguments).output().unwrap();
    let read = |octets: &[u8]| serde_json::from_slice(octets).unwrap_or(Value::Null);
    (output.status.code().unwrap(), read(&output.stdout), read(&output.stderr))
}

#[test]
fn an_operator_reads_a_list_as_firmware_does() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (good, revoked) = (Device::good(&server, &fleet, "good").await, Device::good(&server, &fleet, "revoked").await);
        let firmware = Firmware::of(&server, &fleet).await;
        revoked.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        let (sequence, octets) = firmware.until(&server, &revoked, Answer::NotGood).await;
        let public = server.public_client();
        let url = server.public_url(&format!("/status/{}/{}-0.fms", firmware.authority, epoch(&good)));

        let (code, shown, _) = status(&server, &["show", &url]);
        assert_eq!(code, 0, "{shown}");
        let not_good: u64 = (0..shown["certificates"].as_u64().unwrap())
            .map(|at| {
                let scope = Scope { epoch: epoch(&good), ..firmware.scope };
                let terms = Terms { now: now(), lowest_sequence: 0, max_age: 86_400 };
                let list = List::open(&octets, &scope, &terms, &P256Key::from_point(&firmware.point).unwrap()).unwrap();
                u64::from(list.query(u32::try_from(at).unwrap()) != Answer::Good)
            })
            .sum();
        assert_eq!(
            (&shown["list"], &shown["not_good"], &shown["octets"]),
            (&json!("opened"), &json!(not_good), &json!(octets.len()))
        );
        assert_eq!(shown["fleet"], hex::encode(firmware.scope.fleet));

        let leaf = |name: &str, device: &Device| {
            server.write_scratch(name, device.answer["certificate"].as_str().unwrap().as_bytes()).display().to_string()
        };
        let (good_pem, revoked_pem) = (leaf("status-good.pem", &good), leaf("status-revoked.pem", &revoked));
        let check = |source: &str, cert: &str, more: &[&str]| {
            let (code, told, failure) = status(&server, &[&["check", source, "--cert", cert], more].concat());
            (
                code,
                told["answer"].as_str().unwrap_or_default().to_owned(),
                failure["code"].as_str().unwrap_or_default().to_owned(),
            )
        };
        let is = |code: i32, answer: &str, failure: &str| (code, answer.to_owned(), failure.to_owned());
        assert_eq!(check(&url, &good_pem, &[]), is(0, "good", ""));
        assert_eq!(check(&url, &revoked_pem, &[]), is(1, "not_good", "not_good"));
        let of = format!("FLEET.test/{fleet}");
        assert_eq!(check(&url, &good_pem, &["--of", &of]), is(0, "good", ""));
        assert_eq!(check(&url, &good_pem, &["--of", "fleet.test/else"]), is(1, "other_fleet", "other_fleet"));
        let above = (sequence + 1_000_000).to_string();
        assert_eq!(check(&url, &good_pem, &["--lowest-sequence", &above]), is(1, "rolled_back", "rolled_back"));

        // As files, with nobody asked; and spoiled.
        let signers = public.get(&format!("/status/{}/signers.pem", firmware.authority)).await.is(200).body;
        let root = public.get("/ca/root.pem").await.is(200).body;
        let write = |name: &str, octets: &[u8]| server.write_scratch(name, octets).display().to_string();
        let (signers, root) = (write("status-signers.pem", &signers), write("status-ca.pem", &root));
        let list = write("status.fms", &octets);
        let trusted = ["--signers", &signers, "--ca", &root];
        assert_eq!(check(&list, &good_pem, &trusted), is(0, "good", ""));
        let spoiled = |name: &str, at: usize| {
            let mut octets = octets.clone();
            octets[at] ^= 1;
            write(name, &octets)
        };
        for (name, at, why) in [
            ("magic", 3, "unknown_version"),
            ("key", 11, "other_key"),
            ("body", 84, "bad_signature"),
            ("fleet", 12, "other_fleet"),
        ] {
            let (code, _, failure) = check(&spoiled(name, at), &good_pem, &trusted);
            assert_eq!((code, failure.as_str()), (1, why));
        }
        let (code, _, failure) = check(&write("short.fms", &octets[..147]), &good_pem, &trusted);
        assert_eq!((code, failure.as_str()), (1, "malformed"));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(check(&list, &good_pem, &[&trusted[..], &["--max-age", "0"]].concat()), is(1, "too_old", "too_old"));

        // Another fleet's list, another installation's root, a certificate of the serial's but not of the authority's.
        let other = server.fleet(json!({})).await;
        let stranger = Device::good(&server, &other, "stranger").await;
        assert_eq!(check(&url, &leaf("status-other.pem", &stranger), &[]).2, "other_fleet");
        let foreign = rcgen::KeyPair::generate().unwrap();
        let foreign = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&foreign).unwrap().pem();
        let foreign = write("status-foreign.pem", foreign.as_bytes());
        assert_eq!(check(&list, &good_pem, &["--signers", &signers, "--ca", &foreign]), is(5, "", "not_trusted"));
        // The good one's octets but for the last of its signature: a list cannot see that.
        let (_, der) = x509_parser::pem::parse_x509_pem(good.answer["certificate"].as_str().unwrap().as_bytes()).unwrap();
        let mut forged = der.contents;
        *forged.last_mut().unwrap() ^= 1;
        let forged = write("status-forged.pem", crate::harness::openssl::pem("CERTIFICATE", &forged).as_bytes());
        assert_eq!(check(&url, &forged, &[]), is(1, "good", "not_signed_by_authority"));
    });
}

async fn ask(server: &Server, serial: &str, nonce: &str) -> crate::harness::client::Answer {
    server.public_client().post("/v1/standing", &json!({"serial": serial, "nonce": nonce})).await
}

fn said(answer: &Value) -> (String, String) {
    let field = |name: &str| answer[name].as_str().unwrap().to_owned();
    (field("standing"), field("action"))
}

#[test]
fn a_device_learns_what_its_certificate_is_worth_over_plain_http() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::unconfirmed(&server, &fleet, "asks").await;
        let nonce = "5a".repeat(32);
        let told = async |device: &Device| said(&ask(&server, &device.serial(), &nonce).await.is(200).json());
        let pair = |standing: &str, action: &str| (standing.to_owned(), action.to_owned());
        assert_eq!(told(&device).await, pair("unconfirmed", "confirm"));
        assert_eq!(device.verdict(&server).await, "ok");
        assert_eq!(told(&device).await, pair("good", "go_on"));
        let newer = device.renew(&server).await;
        newer.confirm(&server).await.is(200);
        assert_eq!(told(&device).await, pair("superseded", "use_newer"));
        newer.act(&server, "hold", json!({})).await;
        assert_eq!(told(&newer).await, pair("held", "wait"));
        newer.act(&server, "quarantine", json!({})).await;
        assert_eq!(told(&newer).await, pair("quarantined", "update"));
        newer.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        let answer = ask(&server, &newer.serial(), &nonce).await.is(200).json();
        assert_eq!(said(&answer), pair("revoked", "enroll"));
        assert_eq!(answer["reason"], "keyCompromise");
        newer.act(&server, "retire", json!({})).await;
        assert_eq!(told(&newer).await, pair("revoked", "stop"));

        // openssl verifies the statement, and it is this request's.
        let statement = STANDARD.decode(answer["statement"].as_str().unwrap()).unwrap();
        assert_eq!(statement.len(), 144);
        assert_eq!(hex::encode(&statement[12..44]), nonce);
        assert_eq!(hex::encode(&statement[44..61]), newer.serial());
        let (signed, raw) = statement.split_at(80);
        let integer = |octets: &[u8]| {
            let mut octets: Vec<u8> = octets.iter().copied().skip_while(|octet| *octet == 0).collect();
            if octets.first().is_none_or(|first| *first >= 0x80) {
                octets.insert(0, 0);
            }
            [&[2, u8::try_from(octets.len()).unwrap()], &octets[..]].concat()
        };
        let both = [integer(&raw[..32]), integer(&raw[32..])].concat();
        let der = [&[0x30, u8::try_from(both.len()).unwrap()], &both[..]].concat();
        let (_, key) = openssl(&["x509", "-noout", "-pubkey"], answer["signer"].as_str().unwrap().as_bytes());
        let (key, der) = (server.write_scratch("signer.pub", key.as_bytes()), server.write_scratch("statement.sig", &der));
        let arguments = ["dgst", "-sha256", "-verify", key.to_str().unwrap(), "-signature", der.to_str().unwrap()];
        let (done, told) = openssl(&arguments, signed);
        assert!(done, "{told}");

        // Firmware sends octets and gets octets.
        let request = [hex::decode(&nonce).unwrap(), hex::decode(newer.serial()).unwrap()].concat();
        let octets = [("content-type", "application/octet-stream")];
        let answer = server.public_client().send("POST", "/v1/standing", &octets, Some(request.clone())).await.is(200);
        assert_eq!(answer.body.len(), 144);
        for wrong in [&request[1..], &[&request[..], &[0]].concat()] {
            let answer = server.public_client().send("POST", "/v1/standing", &octets, Some(wrong.to_vec())).await;
            assert!([400, 404, 413].contains(&answer.status), "{} octets: {}", wrong.len(), answer.status);
        }
    });
}

#[test]
fn what_was_never_issued_is_not_found_and_what_is_malformed_is_named() {
    let server = shared();
    run(async {
        let nonce = "00".repeat(32);
        for serial in ["01000000010000000100000000000000ff", "02", ""] {
            ask(&server, serial, &nonce).await.refused(404, "not_found");
        }
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "never").await;
        let mut other = hex::decode(device.serial()).unwrap();
        *other.last_mut().unwrap() ^= 1;
        ask(&server, &hex::encode(other), &nonce).await.refused(404, "not_found");
        ask(&server, "zz", &nonce).await.refused(422, "invalid_value");
        ask(&server, &device.serial(), "00").await.refused(422, "invalid_value");
        server.public_client().get("/v1/standing").await.is(405);
        server.public_client().post("/v1/standing", &json!({"serial": "01"})).await.is(400);
    });
}

/// `fleetmark-device …` in this directory; `clock` is for faketime (Debian package `faketime`).
fn agent(clock: Option<&str>, directory: &std::path::Path, arguments: &[&str]) -> Value {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-device");
    let mut command = match clock {
        Some(clock) => {
            let mut command = Command::new("faketime");
            command.args(["-f", clock]).arg(program);
            command
        }
        None => Command::new(program),
    };
    let output = command.args(arguments).args(["--dir", directory.to_str().unwrap(), "--json"]).output().unwrap();
    let said = serde_json::from_slice::<Value>(&output.stdout);
    said.unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_device_whose_clock_stands_at_1970_asks_and_learns_the_time() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let token = server.token(&fleet, "clockless").await;
        let directory = tempfile::tempdir().unwrap();
        let agent = |arguments: &[&str]| agent(Some("@1970-01-01 00:00:10"), directory.path(), arguments);
        let url = format!("https://localhost:{}", server.device_port);
        let pin = hex::encode(Sha256::digest(server.root()));
        let enrolled = agent(&["enroll", "--server", &url, "--ca-fingerprint", &pin, "--fleet", &fleet, "--token", &token]);
        assert_eq!(enrolled["ok"], true, "{enrolled}");
        assert!(enrolled["clock_behind_seconds"].as_i64().unwrap() > 1_700_000_000, "{enrolled}");
        let asked = now();
        let told = agent(&["standing"]);
        assert_eq!((told["standing"].as_str(), told["action"].as_str()), (Some("good"), Some("go_on")), "{told}");
        let (at, again) = (seconds(&told["server_time"]), seconds(&told["ask_again_at"]));
        assert!((asked..=now()).contains(&at) && again > at, "{told}");
        let path = format!("/v1/fleets/{fleet}/devices/clockless/hold");
        server.owner().post(&path, &json!({})).await.is(200);
        assert_eq!(agent(&["standing"])["action"], "wait");
    });
}

/// A time of an answer, in seconds since 1970.
fn seconds(value: &Value) -> u64 {
    let time: fleetmark_domain::Timestamp = serde_json::from_value(value.clone()).unwrap();
    u64::try_from(time.0).unwrap()
}

#[test]
fn the_agent_asks_with_a_certificate_that_opens_no_door() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let token = server.token(&fleet, "agent").await;
        let directory = tempfile::tempdir().unwrap();
        let agent = |arguments: &[&str]| agent(None, directory.path(), arguments);
        let url = format!("https://localhost:{}", server.device_port);
        let pin = hex::encode(Sha256::digest(server.root()));
        let enrolled = agent(&["enroll", "--server", &url, "--ca-fingerprint", &pin, "--fleet", &fleet, "--token", &token]);
        assert_eq!(enrolled["ok"], true, "{enrolled}");
        assert_eq!(agent(&["standing"])["standing"], "good");
        let path = format!("/v1/fleets/{fleet}/devices/agent/revoke");
        server.owner().post(&path, &json!({"reason": "privilegeWithdrawn"})).await.is(200);
        let told = agent(&["standing"]);
        assert_eq!((told["standing"].as_str(), told["action"].as_str()), (Some("revoked"), Some("enroll")), "{told}");
        assert_eq!(told["reason"], "privilegeWithdrawn");
    });
}
