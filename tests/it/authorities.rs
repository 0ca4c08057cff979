//! Authorities and roots that are replaced: prepared, activated, tainted, revoked; the devices that move, and those that were away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::harness::device::{ask_verdict, sha256};
use crate::harness::forge::authorities;
use crate::harness::openssl::{openssl, pem};
use crate::harness::server::text;
use crate::harness::{Connection, Device, Server, run, shared, until};
use crate::standing::{Strangers, read_list};

/// Prepares a successor, and gives its id.
pub async fn prepare(server: &Server, kind: &str, fleet: Option<&str>) -> u64 {
    let made = server.owner().post("/v1/authorities", &json!({"kind": kind, "fleet": fleet})).await.is(201).json();
    assert_eq!(made["state"], "prepared", "{made}");
    made["id"].as_u64().unwrap()
}

/// Activates, taints or revokes.
pub async fn act(server: &Server, id: u64, act: &str, body: Value) -> Value {
    server.owner().post(&format!("/v1/authorities/{id}/{act}"), &body).await.is(200).json()
}

/// A new authority for the same, which issues.
pub async fn replace(server: &Server, kind: &str, fleet: Option<&str>) -> u64 {
    let id = prepare(server, kind, fleet).await;
    assert_eq!(act(server, id, "activate", json!({})).await["state"], "active");
    id
}

/// The authorities for this kind and fleet: id and state, ascending.
pub async fn states(server: &Server, kind: &str, fleet: Option<&str>) -> Vec<(u64, String)> {
    let all = authorities(server).await;
    let own = all.iter().filter(|authority| authority["kind"] == kind && authority["fleet"].as_str() == fleet);
    own.map(|authority| (authority["id"].as_u64().unwrap(), text(authority, "state"))).collect()
}

/// The one of this kind and fleet that issues.
pub async fn active(server: &Server, kind: &str, fleet: Option<&str>) -> u64 {
    let states = states(server, kind, fleet).await;
    states.into_iter().find(|(_, state)| state == "active").expect("one that issues").0
}

pub async fn authority_of(server: &Server, device: &Device) -> u64 {
    device.record(server).await["authority"].as_u64().unwrap()
}

pub async fn ca(server: &Server, file: &str) -> Vec<u8> {
    server.public_client().get(&format!("/ca/{file}")).await.is(200).body
}

/// The server's own command line, as its first operator.
pub fn operator(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
    let output = command.arg("--operator").arg(server.data().join("operator")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn command(server: &Server, arguments: &[&str]) -> Value {
    let (done, said) = operator(server, &[&["--json"], arguments].concat());
    assert!(done, "{arguments:?}: {said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
}

/// Reads a whole ledger as an auditor does.
pub fn audit(server: &Server, ledger: &str) {
    let (done, said) = operator(server, &["ledger", "verify", ledger]);
    assert!(done, "{ledger}: {said}");
}

#[test]
fn a_device_authority_is_replaced_while_its_devices_go_on() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = active(&server, "device", Some(&fleet)).await;
        let (a, c) = (Device::good(&server, &fleet, "a").await, Device::good(&server, &fleet, "c").await);
        let new = prepare(&server, "device", Some(&fleet)).await;
        let fresh = ca(&server, &format!("{new}.crt")).await;
        let held = server.device_client(None).get(&format!("/.well-known/est/{fleet}/cacerts")).await.is(200).text();
        let held = base64::engine::general_purpose::STANDARD.decode(held.trim()).unwrap();
        assert!(held.windows(fresh.len()).any(|window| window == fresh), "who is prepared is told to devices already");
        let b = Device::good(&server, &fleet, "b").await;
        assert_eq!(authority_of(&server, &b).await, old, "who is prepared issues nothing");

        assert_eq!(act(&server, new, "activate", json!({"note": "yearly"})).await["state"], "active");
        assert_eq!(states(&server, "device", Some(&fleet)).await, [(old, "tainted".into()), (new, "active".into())]);
        assert_eq!(act(&server, new, "activate", json!({})).await["state"], "active", "a repeat");
        let d = Device::good(&server, &fleet, "d").await;
        assert_eq!(authority_of(&server, &d).await, new);
        for device in [&a, &b, &d] {
            assert_eq!(device.verdict(&server).await, "ok", "{}", device.name);
        }
        // What issues no more goes on to tell what became of its certificates.
        assert_eq!(Strangers::of(&server, &fleet).await.ocsp(&a.serial(), false), "good");
        let moved = a.renew(&server).await;
        assert_eq!(authority_of(&server, &moved).await, new);
        moved.confirm(&server).await.is(200);
        let moved_b = b.renew(&server).await;
        moved_b.confirm(&server).await.is(200);

        let path = format!("/v1/authorities/{old}/revoke");
        server.owner().post(&path, &json!({})).await.refused(409, "authority_in_use");
        let counted = server.owner().get(&format!("/v1/authorities/{old}/use")).await.is(200).json();
        assert_eq!(counted, json!({"good": 1, "unconfirmed": 0, "suspended": 0}));
        let mut kept_open = c.connect(&server).await;
        assert_eq!(ask_verdict(&mut kept_open, &fleet).await, "ok");
        assert_eq!(act(&server, old, "revoke", json!({"force": true, "reason": "keyCompromise"})).await["state"], "revoked");
        assert_eq!(ask_verdict(&mut kept_open, &fleet).await, "authority_revoked", "on a connection that was open");
        let refused = c.verdict(&server).await;
        assert!(refused.starts_with("handshake"), "{refused}");
        assert!(server.handshakes_refused("device", "authority_revoked").await >= 1.0);
        for device in [&moved, &moved_b, &d] {
            assert_eq!(device.verdict(&server).await, "ok", "{}", device.name);
        }
        let ended = ca(&server, &format!("{old}.crt")).await;
        let (_, parsed) = x509_parser::parse_x509_certificate(&ended).unwrap();
        let serial = hex::encode(parsed.raw_serial());
        let list = read_list(&server.public_client().get("/crl/root.crl").await.is(200).body);
        assert_eq!(list.entries.get(&serial), Some(&1), "keyCompromise on the root's list");
        audit(&server, "system");
        audit(&server, &fleet);
    });
}

#[test]
fn what_may_not_happen_to_an_authority_is_refused_by_name() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = active(&server, "device", Some(&fleet)).await;
        let path = |id: u64, act: &str| format!("/v1/authorities/{id}/{act}");
        let owner = server.owner();
        owner.post(&path(old, "taint"), &json!({})).await.refused(409, "no_successor");
        owner.post(&path(old, "revoke"), &json!({"force": true})).await.refused(409, "authority_active");
        owner.post("/v1/authorities", &json!({"kind": "device"})).await.refused(422, "invalid_value");
        owner.post("/v1/authorities", &json!({"kind": "gateway", "fleet": fleet})).await.refused(422, "invalid_value");
        owner.post("/v1/authorities", &json!({"kind": "device", "fleet": "nobodys"})).await.refused(404, "fleet_unknown");
        owner.post(&path(9_999, "taint"), &json!({})).await.refused(404, "not_found");

        assert_eq!(act(&server, old, "taint", json!({"emergency": true})).await["state"], "tainted");
        let token = server.token(&fleet, "b").await;
        let (client, key) = (server.device_client(None), crate::harness::Key::new());
        let asked = crate::harness::device::enroll(&client, &fleet, &token, &key, None).await;
        asked.refused(503, "authority_unavailable");
        owner.post(&path(old, "activate"), &json!({})).await.refused(409, "transition_not_allowed");

        let new = prepare(&server, "device", Some(&fleet)).await;
        owner.post("/v1/authorities", &json!({"kind": "device", "fleet": fleet})).await.refused(409, "successor_prepared");
        owner.post(&path(new, "taint"), &json!({"emergency": true})).await.refused(409, "transition_not_allowed");
        act(&server, new, "activate", json!({})).await;
        crate::harness::device::enroll(&client, &fleet, &token, &key, None).await.is(200);
        assert_eq!(act(&server, old, "revoke", json!({})).await["state"], "revoked", "nothing of it is in use");
        owner.post(&path(old, "activate"), &json!({})).await.refused(403, "authority_revoked");

        let algorithm = json!({"kind": "device", "fleet": fleet, "algorithm": "p384"});
        let made = owner.post("/v1/authorities", &algorithm).await;
        let made = made.is(201).json()["id"].as_u64().unwrap();
        let certificate = pem("CERTIFICATE", &ca(&server, &format!("{made}.crt")).await);
        let (_, said) = openssl(&["x509", "-noout", "-text"], certificate.as_bytes());
        assert!(said.contains("P-384") && said.contains(&format!("{fleet} device authority 3")), "{said}");
        act(&server, made, "revoke", json!({})).await;
    });
}

#[test]
fn a_wave_moves_a_fleet_to_the_active_authority_and_stands_still_when_it_is_told_to() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let mut devices = Vec::new();
        for name in ["a", "b", "c"] {
            devices.push(Device::good(&server, &fleet, name).await);
        }
        replace(&server, "device", Some(&fleet)).await;
        let newcomer = Device::good(&server, &fleet, "newcomer").await;
        let wave = ["fleet", "renewal-wave"];
        let cli = |rest: &[&str]| command(&server, &[&wave[..], rest].concat());
        let started = cli(&["start", &fleet, "--to-active-authority", "--rate", "3"]);
        assert_eq!((&started["devices"], &started["devices_per_hour"]), (&json!(3), &json!(3)), "{started}");
        let shown = cli(&["show", &fleet]);
        assert_eq!((&shown["waiting"], &shown["renewed"]), (&json!(3), &json!(1)), "{shown}");
        let advice = async |device: &Device| {
            let mut connection = device.connect(&server).await;
            connection.get(&format!("/v1/fleets/{fleet}/renewal")).await.unwrap().is(200).json()
        };
        assert_eq!(advice(&devices[0]).await["reason"], "wave");
        assert_eq!(advice(&newcomer).await["reason"], Value::Null);
        assert!(cli(&["pause", &fleet])["paused_at"].is_string());
        assert_eq!(advice(&devices[0]).await["reason"], Value::Null);
        assert_eq!(advice(&devices[0]).await["renew_after"], devices[0].answer["renew_after"], "its own time again");
        assert!(cli(&["resume", &fleet])["paused_at"].is_null());
        assert_eq!(advice(&devices[0]).await["reason"], "wave");
        let moved = devices[0].renew(&server).await;
        moved.confirm(&server).await.is(200);
        devices[1].act(&server, "hold", json!({})).await;
        let shown = cli(&["show", &fleet]);
        let numbers = ["waiting", "suspended", "renewed", "unconfirmed"].map(|field| shown[field].as_u64().unwrap());
        assert_eq!(numbers, [2, 1, 2, 0], "{shown}");
        for wrong in
            [json!({}), json!({"until": "2099-01-01T00:00:00Z", "devices_per_hour": 5}), json!({"devices_per_hour": 0})]
        {
            let put = server.owner().post_as("PUT", &format!("/v1/fleets/{fleet}/renewal-wave"), &wrong).await;
            put.refused(422, "invalid_value");
        }
    });
}

/// A device's agent with a directory of its own.
pub struct Agent {
    directory: PathBuf,
}

impl Agent {
    pub fn new(server: &Server, name: &str) -> Self {
        Self { directory: server.scratch(name) }
    }

    /// The same directory, as it is now, at another place: what lies in a drawer.
    pub fn put_away(&self, name: &str) -> Self {
        let directory = self.directory.with_file_name(name);
        assert!(Command::new("cp").arg("-a").args([&self.directory, &directory]).status().unwrap().success());
        Self { directory }
    }

    pub fn run(&self, arguments: &[&str]) -> (i32, Value) {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-device");
        let mut command = Command::new(program);
        command.arg("--json").args(arguments).arg("--dir").arg(&self.directory);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), json)
    }

    #[track_caller]
    pub fn does(&self, arguments: &[&str]) -> Value {
        let (code, said) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    pub fn enroll(&self, server: &Server, fleet: &str, token: &str, pin: &str) -> Value {
        let url = format!("https://localhost:{}", server.device_port);
        self.does(&["enroll", "--fleet", fleet, "--server", &url, "--ca-fingerprint", pin, "--token", token])
    }

    pub fn roots(&self) -> String {
        fs::read_to_string(self.directory.join("trust.pem")).unwrap()
    }
}

/// `openssl s_client` at the device door, trusting this alone.
pub fn s_client(server: &Server, trusted: &Path) -> (bool, String) {
    let address = format!("localhost:{}", server.device_port);
    let trusted = trusted.display().to_string();
    let verify = ["-verify_return_error", "-verify_hostname", "localhost", "-x509_strict", "-CAfile", &trusted];
    openssl(&[&["s_client", "-connect", &address][..], &verify].concat(), b"")
}

/// `openssl cms -verify` of the bundles from this root on, trusting it alone; what the first and the last of them say.
pub async fn read_bundles(server: &Server, from: &[u8], trusted: &Path) -> Vec<Value> {
    let path = format!("/v1/trust-bundle?from={}", sha256(from));
    let answer = server.public_client().get(&path).await.is(200);
    let all = answer.text();
    let blocks: Vec<_> = all.split_inclusive("-----END CMS-----\n").collect();
    let first = server.write_scratch("bundle.pem", blocks[0].as_bytes()).display().to_string();
    let trusted = trusted.display().to_string();
    let arguments = ["cms", "-verify", "-inform", "PEM", "-in", &first, "-purpose", "any", "-CAfile", &trusted];
    let out = server.scratch("said.json").display().to_string();
    let (believed, said) = openssl(&[&arguments[..], &["-out", &out]].concat(), b"");
    assert!(believed, "{said}");
    let first: Value = serde_json::from_slice(&fs::read(out).unwrap()).unwrap();
    let rest = blocks.iter().skip(1).map(|block| {
        let (_, said) = openssl(&["cms", "-verify", "-inform", "PEM", "-noverify"], block.as_bytes());
        // What openssl says beside it follows on the same line.
        serde_json::Deserializer::from_str(&said).into_iter().next().unwrap().unwrap()
    });
    std::iter::once(first).chain(rest).collect()
}

/// All kinds but devices.
pub const KINDS: [&str; 3] = ["service", "gateway", "operator"];

#[test]
fn a_root_is_replaced_and_everybody_finds_the_way_from_the_old_to_the_new() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = "default";
        let old = server.root().to_vec();
        let old_pem = server.write_scratch("old.pem", pem("CERTIFICATE", &old).as_bytes());
        let old_id = active(&server, "root", None).await;
        let agent = Agent::new(&server, "agent");
        agent.enroll(&server, fleet, &server.token(fleet, "agent").await, &sha256(&old));
        let drawer = agent.put_away("drawer");
        // What lies in a drawer: enrolled under the old root, and away until that is gone.
        let away = Agent::new(&server, "away");
        away.enroll(&server, fleet, &server.token(fleet, "away").await, &sha256(&old));
        let late = away.put_away("drawer-late");

        let new_id = prepare(&server, "root", None).await;
        let new = ca(&server, &format!("{new_id}.crt")).await;
        let new_pem = server.write_scratch("new.pem", pem("CERTIFICATE", &new).as_bytes());
        let stranger = server.write_scratch("stranger.pem", crate::harness::forge::Maker::new("x").root_pem().as_bytes());
        // Both are trusted from now on, whichever one a client knows.
        until("the new root's word in the doors' chain", 20, || async { s_client(&server, &new_pem).0.then_some(()) }).await;
        for (trusted, expected) in [(&old_pem, true), (&new_pem, true), (&stranger, false)] {
            let (done, said) = s_client(&server, trusted);
            assert_eq!(done, expected, "{}: {said}", trusted.display());
        }
        assert_eq!(ca(&server, "root.crt").await, old, "who is prepared issues nothing");
        let newcomer = Agent::new(&server, "newcomer");
        newcomer.enroll(&server, fleet, &server.token(fleet, "newcomer").await, &sha256(&new));

        act(&server, new_id, "activate", json!({})).await;
        assert_eq!(states(&server, "root", None).await, [(old_id, "tainted".into()), (new_id, "active".into())]);
        assert_eq!(ca(&server, "root.crt").await, new);
        for kind in KINDS {
            replace(&server, kind, None).await;
        }
        let device_authority = replace(&server, "device", Some(fleet)).await;
        let issued_by: Vec<_> = authorities(&server).await.iter().map(|one| one["issuer"].clone()).collect();
        assert!(issued_by.contains(&json!(new_id)), "{issued_by:?}");
        // The doors' certificate follows by itself.
        until("the doors' certificate under the new root", 20, || async {
            let (done, said) = s_client(&server, &new_pem);
            (done && said.contains("service authority 2")).then_some(())
        })
        .await;
        for trusted in [&old_pem, &new_pem] {
            let (done, said) = s_client(&server, trusted);
            assert!(done, "{}: {said}", trusted.display());
        }

        // An agent that knows the old root alone renews; so does one that knows the new one alone.
        assert_eq!(drawer.does(&["renew", "--force"])["outcome"], "renewed");
        assert_eq!(drawer.does(&["status"])["state"], "good");
        assert_eq!(newcomer.does(&["renew", "--force"])["outcome"], "renewed");

        // By openssl's judgement the bundles lead from either root to both.
        for (from, trusted) in [(&old, &old_pem), (&new, &new_pem)] {
            let said = read_bundles(&server, from, trusted).await;
            let newest = said.last().unwrap();
            let states: Vec<_> = newest["roots"].as_array().unwrap().iter().map(|root| text(root, "state")).collect();
            assert_eq!(states, ["tainted", "active"], "{newest}");
            assert_eq!(newest["trust_domain"], "fleet.test");
        }
        server.public_client().get(&format!("/v1/trust-bundle?from={}", "0".repeat(64))).await.refused(404, "not_found");
        let same = server.device_client(None).get("/v1/trust-bundle?form=der").await.is(200);
        assert_eq!(same.header("content-type"), "application/pkcs7-mime; smime-type=signed-data");

        let told = away.does(&["trust", "update"]);
        assert_eq!(told["outcome"], "updated", "{told}");
        assert_eq!(away.does(&["trust", "update"])["outcome"], "unchanged");

        let revoke = |id: u64| format!("/v1/authorities/{id}/revoke");
        server.owner().post(&revoke(old_id), &json!({})).await.refused(409, "authority_in_use");
        server.owner().post(&revoke(new_id), &json!({})).await.refused(409, "authority_active");
        // The owner's own certificate is of the old operators' authority: nobody locks himself out.
        let old_operators = states(&server, "operator", None).await[0].0;
        server.owner().post(&revoke(old_operators), &json!({"force": true})).await.refused(409, "authority_in_use");
        let (renewed, said) = operator(&server, &["operator", "renew"]);
        assert!(renewed, "{said}");
        let bundle = fs::read_to_string(server.data().join("operator/ca.pem")).unwrap();
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2, "an operator learns of both roots by renewing");
        server.forget_owner();
        for kind in KINDS {
            let (id, state) = states(&server, kind, None).await.remove(0);
            assert_eq!(state, "tainted");
            act(&server, id, "revoke", json!({"force": true})).await;
        }
        let old_devices = states(&server, "device", Some(fleet)).await[0].0;
        act(&server, old_devices, "revoke", json!({"force": true, "reason": "superseded"})).await;
        assert_eq!(act(&server, old_id, "revoke", json!({"reason": "superseded"})).await["state"], "revoked");
        until("the doors without the old root", 20, || async { (!s_client(&server, &old_pem).0).then_some(()) }).await;
        assert!(s_client(&server, &new_pem).0);

        let said = read_bundles(&server, &old, &old_pem).await;
        let newest = said.last().unwrap();
        assert_eq!((said.len(), &newest["revoked"][0]["fingerprint"]), (2, &json!(sha256(&old))), "{newest}");

        // The agents that were told go on, and the old root is gone from what they trust.
        newcomer.does(&["renew", "--force"]);
        drawer.does(&["trust", "update"]);
        assert_eq!(drawer.does(&["renew", "--force"])["outcome"], "renewed");
        assert!(!drawer.roots().contains(&pem("CERTIFICATE", &old)), "{}", drawer.roots());
        // One that was away follows by itself, from the old root's word to the new one's; its certificate is not taken any more.
        let (code, said) = late.run(&["renew", "--force"]);
        assert_eq!((code, &said["code"]), (3, &json!("certificate_not_taken")), "{said}");
        assert_eq!(late.roots(), pem("CERTIFICATE", &new));
        let token = server.token(fleet, "away").await;
        let again = late.does(&["enroll", "--replace", "--token", &token]);
        assert_eq!(again["outcome"], "enrolled", "{again}");
        let record = server.owner().get(&format!("/v1/certificates/{}", text(&again, "serial"))).await.is(200).json();
        assert_eq!(record["authority"], device_authority);
        // With the pin that stands in its unit file it starts as before.
        late.enroll(&server, fleet, "unused", &sha256(&old));
        audit(&server, "system");
        audit(&server, fleet);
    });
    // All of it is there after a restart, and a restart makes nothing of it again.
    let said = run(async { server.public_client().get("/v1/trust-bundle").await.is(200).text() });
    server.restart();
    assert_eq!(run(async { server.public_client().get("/v1/trust-bundle").await.is(200).text() }), said);
}

#[test]
fn whoever_needs_a_root_whose_key_is_elsewhere_leaves_a_request() {
    let mut server = Server::start(&[]);
    let keys = server.data().join("keys");
    server.stop();
    let root = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path());
    let root = root.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("root-")).unwrap();
    let safe = server.scratch("safe.pem");
    fs::rename(&root, &safe).unwrap();
    server.start_again();
    run(async {
        server.owner().post("/v1/authorities", &json!({"kind": "root"})).await.refused(202, "waits_for_root");
        server.owner().post("/v1/authorities", &json!({"kind": "root", "key": "here"})).await.refused(202, "waits_for_root");
        server.owner().post("/v1/authorities", &json!({"kind": "gateway"})).await.refused(202, "waits_for_root");
        server.owner().post("/v1/authorities", &json!({"kind": "gateway", "key": "here"})).await.refused(422, "invalid_value");
        // The bundle that was made while the key was here is served on.
        server.public_client().get("/v1/trust-bundle").await.is(200);
    });
}

#[test]
fn what_another_process_of_the_installation_changed_counts_here() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = active(&server, "device", Some(&fleet)).await;
        let new = prepare(&server, "device", Some(&fleet)).await;
        // As another process would leave it behind, but for the ledger's entries, which do not matter here.
        let rows = format!(
            "BEGIN IMMEDIATE; UPDATE authorities SET state = 2 WHERE id = {old}; UPDATE authorities SET state = 1 WHERE id = {new}; \
             UPDATE installation SET value = randomblob(8) WHERE name = 'authorities-changed'; COMMIT"
        );
        crate::approval::sql(&server, &rows);
        // Whether it was noticed by then or not: nothing is issued by what issues no more.
        let device = Device::good(&server, &fleet, "a").await;
        assert_eq!(authority_of(&server, &device).await, new);
        until("the state", 10, || async {
            let states = states(&server, "device", Some(&fleet)).await;
            (states == [(old, "tainted".to_owned()), (new, "active".to_owned())]).then_some(())
        })
        .await;
    });
}

#[test]
fn the_command_line_does_what_the_doors_do() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let old = active(&server, "device", Some(&fleet)).await.to_string();
        let prepared = command(&server, &["authority", "prepare", "device", "--fleet", &fleet, "--note", "drill"]);
        assert_eq!(prepared["state"], "prepared");
        let new = prepared["id"].to_string();
        assert_eq!(command(&server, &["authority", "activate", &new])["state"], "active");
        assert_eq!(command(&server, &["authority", "taint", &old])["state"], "tainted");
        assert_eq!(command(&server, &["authority", "use", &old])["good"], 0);
        let revoked = command(&server, &["authority", "revoke", &old, "--reason", "keyCompromise"]);
        assert_eq!(revoked["state"], "revoked");
        let (done, said) = operator(&server, &["authority", "taint", &new]);
        assert!(!done && said.contains("no_successor"), "{said}");
        assert_eq!(command(&server, &["authority", "taint", &new, "--emergency"])["state"], "tainted");
        let connection = Connection::open(server.device_port, &server.trust(), None).await;
        assert!(connection.is_ok(), "the doors stand");
    });
}
