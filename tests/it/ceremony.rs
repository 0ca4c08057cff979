//! The root's ceremony, with real files and processes: the server's directory and the root's apart, and nothing but files between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::device::sha256;
use crate::harness::gateway::Gateway;
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Device, Server, run, until};

/// The passphrase of the server's keys, and that of the root's.
pub const SERVERS: (&str, &str) = ("FLEETMARK_PASSPHRASE", "the server's own passphrase");
pub const ROOTS: (&str, &str) = ("FLEETMARK_PASSPHRASE", "known at the ceremony alone");

/// Runs `fleetmark`; its exit code, and both its streams.
pub fn fleetmark(arguments: &[&str], (name, secret): (&str, &str), input: &str) -> (i32, String) {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(arguments)
        .env(name, secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// An installation whose root is elsewhere.
pub struct Ceremony {
    pub server: Server,
    /// The root's directory; its machine.
    pub root: PathBuf,
}

impl Ceremony {
    fn new() -> Self {
        let server = Server::laid_out("serve", &[], &[SERVERS]);
        let root = server.scratch("safe").join("root");
        Self { server, root }
    }

    pub fn scratch(&self, name: &str) -> String {
        self.server.scratch(name).display().to_string()
    }

    pub fn dir(&self) -> String {
        self.root.display().to_string()
    }

    /// `fleetmark init` with the server's options and these.
    fn init(&self, more: &[&str]) -> (i32, String) {
        let options: Vec<_> = self.server.options().iter().map(String::as_str).collect();
        fleetmark(&[&["init"], &options[..], more].concat(), SERVERS, "")
    }

    /// `fleetmark root COMMAND --dir … --by Ada --witness Grace`
    pub fn at_the_root(&self, command: &str, more: &[&str], input: &str) -> (i32, String) {
        let dir = self.dir();
        let who = ["root", command, "--dir", &dir, "--by", "Ada Lovelace", "--witness", "Grace Hopper"];
        fleetmark(&[&who[..], more].concat(), ROOTS, input)
    }

    fn create(&self) {
        let (code, said) = self.at_the_root("create", &["--trust-domain", "fleet.test"], "");
        assert_eq!(code, 0, "{said}");
    }

    /// SHA-256 over the root's certificate, by openssl.
    pub fn fingerprint(&self) -> String {
        let root = self.root.join("root.pem").display().to_string();
        let (good, said) = openssl(&["x509", "-in", &root, "-noout", "-fingerprint", "-sha256"], b"");
        assert!(good, "{said}");
        said.trim().split('=').next_back().unwrap().to_owned()
    }

    /// Signs a request whole, and gives the answer's file.
    pub fn sign(&self, request: &str, answer: &str) -> String {
        let out = self.scratch(answer);
        let (code, said) = self.at_the_root("sign", &[request, "--out", &out, "--yes"], "");
        assert_eq!(code, 0, "{said}");
        out
    }

    /// An installation that its root answered, serving.
    pub fn whole() -> Self {
        let mut ceremony = Self::new();
        let (code, said) = ceremony.init(&["--root", "offline"]);
        assert_eq!(code, 0, "{said}");
        ceremony.create();
        let request = ceremony.server.data().join("root-request.json").display().to_string();
        let answer = ceremony.sign(&request, "answer-1.json");
        let (code, said) = ceremony.init(&["--continue", &answer, "--root-fingerprint", &ceremony.fingerprint()]);
        assert_eq!(code, 0, "{said}");
        ceremony.server.start_again();
        ceremony
    }

    /// The command line of the first operator.
    pub fn operator(&self, arguments: &[&str]) -> (i32, String) {
        let operator = self.server.data().join("operator").display().to_string();
        fleetmark(&[&["--operator", &operator], arguments].concat(), SERVERS, "")
    }

    pub async fn accept(&self, answer: &Value) -> crate::harness::client::Answer {
        self.server.owner().post("/v1/root/answers", answer).await
    }

    pub fn read(path: &str) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

/// `openssl verify -crl_check_all` of a device by what the public door gives: what it says.
pub async fn judged(server: &Server, device: &Device) -> (bool, String) {
    let fetched = |name: &'static str| async move { server.public_client().get(name).await.is(200).body };
    let root = server.write_scratch("anchor.pem", &fetched("/ca/root.pem").await);
    let chain = server.write_scratch("chain.pem", text(&device.answer, "chain").as_bytes());
    let lists = server.write_scratch("lists.pem", &fetched("/crl/bundle.pem").await);
    let leaf = server.write_scratch("leaf.pem", text(&device.answer, "certificate").as_bytes());
    let [root, chain, lists, leaf] = [&root, &chain, &lists, &leaf].map(|path| path.to_str().unwrap().to_owned());
    let arguments =
        ["verify", "-x509_strict", "-crl_check_all", "-CAfile", &root, "-untrusted", &chain, "-CRLfile", &lists, &leaf];
    openssl(&arguments, b"")
}

#[test]
fn an_installation_whose_root_is_elsewhere_is_made_in_two_steps() {
    let mut ceremony = Ceremony::new();
    let (code, said) = ceremony.init(&["--root", "offline"]);
    assert_eq!(code, 0, "{said}");
    let request = ceremony.server.data().join("root-request.json");
    let digest = sha256(&fs::read(&request).unwrap());
    let joined: String = said.split_whitespace().collect();
    assert!(joined.contains(&digest), "{said}");
    // Asked again before the answer: the same octets.
    assert_eq!(ceremony.init(&["--root", "offline"]).0, 0);
    assert_eq!(sha256(&fs::read(&request).unwrap()), digest);

    // Nothing is served before the root answered, and no other root is made meanwhile.
    let data = ceremony.server.data().display().to_string();
    let (code, said) = fleetmark(&["serve", "--data", &data], SERVERS, "");
    assert!(code == 1 && said.contains("waits for its root"), "{said}");
    let (code, said) = fleetmark(&["up", "--data", &data], SERVERS, "");
    assert!(code == 1 && said.contains("waits_for_root"), "{said}");

    ceremony.create();
    let (code, said) = ceremony.at_the_root("create", &["--trust-domain", "fleet.test"], "");
    assert!(code == 2 && said.contains("a root here already"), "{said}");

    // On the root's machine: another file than the one whose digest was read out, a person who says no, one who says yes.
    let (request, out) = (request.display().to_string(), ceremony.scratch("answer.json"));
    let (code, said) = ceremony.at_the_root("sign", &[&request, "--out", &out, "--digest", &"0".repeat(64)], "y\n");
    assert!(code == 1 && said.contains("request_changed"), "{said}");
    let (code, said) = ceremony.at_the_root("sign", &[&request, "--out", &out, "--digest", &digest], "y\ny\nn\ny\n");
    assert!(code == 1 && said.contains("nothing was signed"), "{said}");
    assert!(!Path::new(&out).exists());
    let (code, said) = ceremony.at_the_root("sign", &[&request, "--out", &out, "--digest", &digest], "y\ny\ny\ny\n");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("4 of 4") && said.contains("authority for devices of the fleet default"), "{said}");
    assert!(said.contains(&format!("request: {digest}")), "{said}");

    // At the server: the wrong root, then the right one.
    let (code, said) = ceremony.init(&["--continue", &out, "--root-fingerprint", &"ab".repeat(32)]);
    assert!(code == 1 && said.contains("root_answer_foreign"), "{said}");
    let (code, said) = ceremony.init(&["--continue", &out, "--root-fingerprint", &ceremony.fingerprint()]);
    assert_eq!(code, 0, "{said}");
    // What was done is done, and says so again.
    let (code, said) = ceremony.init(&["--continue", &out, "--root-fingerprint", &ceremony.fingerprint()]);
    assert_eq!(code, 0, "{said}");

    ceremony.server.start_again();
    let keys = fs::read_dir(ceremony.server.data().join("keys")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(keys.map(|name| name.into_string().unwrap()).all(|name| !name.starts_with("root")), "a root's key at the server");
    run(async {
        let device = Device::good(&ceremony.server, "default", "first").await;
        assert_eq!(device.verdict(&ceremony.server).await, "ok");
        let (good, said) = judged(&ceremony.server, &device).await;
        assert!(good, "{said}");
        let root = ceremony.server.public_client().get("/ca/root.pem").await.is(200).body;
        assert_eq!(root, fs::read(ceremony.root.join("root.pem")).unwrap());
    });
    ceremony.server.restart();
}

#[test]
fn a_new_fleet_waits_for_the_ceremony_and_is_made_after_it() {
    let ceremony = Ceremony::whole();
    let server = &ceremony.server;
    let body = json!({"name": "pumps"});
    run(async {
        server.owner().post("/v1/fleets", &body).await.refused(202, "waits_for_root");
        // Once is enough.
        server.owner().post("/v1/fleets", &body).await.refused(202, "waits_for_root");
        let waiting = server.owner().get("/v1/root/requests").await.is(200).json();
        assert_eq!(waiting["items"].as_array().unwrap().len(), 1, "{waiting}");
        assert_eq!((&waiting["items"][0]["fleet"], &waiting["items"][0]["state"]), (&json!("pumps"), &json!("waiting")));
        server.owner().get("/v1/fleets/pumps").await.refused(404, "fleet_unknown");
    });
    let (code, said) = ceremony.operator(&["fleet", "create", "pumps"]);
    assert!(code == 1 && said.contains("waits_for_root") && said.contains("root request"), "{said}");
    let (request, seen) = (ceremony.scratch("request-2.json"), ceremony.scratch("seen.json"));
    let (code, said) = ceremony.operator(&["root", "request", "--out", &request]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(ceremony.operator(&["root", "request", "--out", &seen]).0, 0);
    assert_eq!(fs::read(&request).unwrap(), fs::read(&seen).unwrap());
    let answer = ceremony.sign(&request, "answer-2.json");

    // An operator brings it.
    let (code, said) = ceremony.operator(&["root", "accept", &answer]);
    assert_eq!(code, 0, "{said}");
    assert!(ceremony.operator(&["root", "requests"]).1.contains("answered"));
    run(async {
        server.owner().post("/v1/fleets", &body).await.is(201);
        let device = Device::good(server, "pumps", "first").await;
        let (good, said) = judged(server, &device).await;
        assert!(good, "{said}");
        let left = server.owner().get("/v1/root/requests").await.is(200).json();
        assert_eq!(left["items"], json!([]));
    });

    for ledger in ["system", "pumps"] {
        let (code, said) = ceremony.operator(&["ledger", "verify", ledger]);
        assert_eq!(code, 0, "{ledger}: {said}");
    }

    // The record: printed, chained, and verified by a stranger.
    let records = ceremony.root.join("records");
    let record = fs::read_to_string(records.join("0003.txt")).unwrap();
    for line in ["number: 3", "by: Ada Lovelace", "witness: Grace Hopper", "act: request answered", "Name: Grace Hopper"] {
        assert!(record.contains(line), "{record}");
    }
    let before = sha256(&fs::read(records.join("0002.txt")).unwrap());
    assert!(record.contains(&format!("previous: {before}")), "{record}");
    assert!(record.contains(&format!("request: {}", sha256(&fs::read(&request).unwrap()))), "{record}");
    let root = ceremony.root.join("root.pem").display().to_string();
    let judge = |content: &Path| {
        let (signature, content) = (records.join("0003.cms").display().to_string(), content.display().to_string());
        let options = ["cms", "-verify", "-binary", "-inform", "PEM", "-purpose", "any", "-CAfile", &root, "-out", "/dev/null"];
        openssl(&[&options[..], &["-in", &signature, "-content", &content]].concat(), b"")
    };
    let (good, said) = judge(&records.join("0003.txt"));
    assert!(good, "{said}");
    assert!(!judge(&records.join("0002.txt")).0);

    // A record that was changed is found, by our own command too, and nothing is built upon it.
    let dir = ceremony.dir();
    let (code, said) = fleetmark(&["root", "verify", "--dir", &dir], ROOTS, "");
    assert!(code == 0 && said.contains("3 records"), "{said}");
    fs::write(records.join("0002.txt"), record.replace("Ada", "Eve")).unwrap();
    let (code, said) = fleetmark(&["root", "verify", "--dir", &dir], ROOTS, "");
    assert!(code == 1 && said.contains("record_invalid"), "{said}");
    let (code, said) = ceremony.at_the_root("crl", &["--out", &ceremony.scratch("never.json")], "");
    assert!(code == 1 && said.contains("record_invalid"), "{said}");
}

#[test]
fn what_was_tampered_with_or_comes_again_is_refused_by_name() {
    let ceremony = Ceremony::whole();
    let server = &ceremony.server;
    run(async { server.owner().post("/v1/fleets", &json!({"name": "pumps"})).await.refused(202, "waits_for_root") });
    let request = ceremony.scratch("request.json");
    assert_eq!(ceremony.operator(&["root", "request", "--out", &request]).0, 0);

    // Requests that say something else than the server may ask for.
    let asked = Ceremony::read(&request);
    let spoiled = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut other = asked.clone();
        change(&mut other);
        let file = server.write_scratch(name, format!("{other:#}\n").as_bytes());
        let out = ceremony.scratch(&format!("{name}.answer"));
        let (code, said) = ceremony.at_the_root("sign", &[file.to_str().unwrap(), "--out", &out, "--yes"], "");
        assert_eq!(code, 1, "{name}: {said}");
        said
    };
    let item = |other: &mut Value, field: &str, value: Value| other["authorities"][0][field] = value;
    for (name, change, code) in [
        (
            "longer",
            Box::new(|o: &mut Value| item(o, "lifetime_seconds", json!(u32::MAX))) as Box<dyn Fn(&mut Value)>,
            "request_refused",
        ),
        ("deeper", Box::new(|o: &mut Value| item(o, "path_length", json!(1))), "request_refused"),
        ("fleetless", Box::new(|o: &mut Value| item(o, "fleet", Value::Null)), "request_refused"),
        ("the root's place", Box::new(|o: &mut Value| item(o, "index", json!(0))), "request_refused"),
        ("a place that is taken", Box::new(|o: &mut Value| item(o, "index", json!(1))), "request_refused"),
        ("domain", Box::new(|o: &mut Value| o["trust_domain"] = json!("other.test")), "request_foreign"),
        ("root", Box::new(|o: &mut Value| o["root"] = json!("00".repeat(32))), "request_foreign"),
        ("old copy", Box::new(|o: &mut Value| o["list"] = json!(99)), "request_foreign"),
        ("field", Box::new(|o: &mut Value| o["more"] = json!(1)), "cannot be read"),
        (
            "stranger",
            Box::new(|o: &mut Value| {
                o["revoke"] = json!([{"serial": "01".repeat(17), "reason": "keyCompromise", "since": "2026-01-01T00:00:00Z"}]);
            }),
            "request_refused",
        ),
    ] {
        let said = spoiled(&name.replace([' ', '\''], "-"), &change);
        assert!(said.contains(code), "{name}: {said}");
    }
    let (dir, secret) = (ceremony.dir(), ("FLEETMARK_PASSPHRASE", "not that passphrase at all"));
    let wrong = ["root", "sign", "--dir", &dir, "--by", "Ada", &request, "--out", &ceremony.scratch("none"), "--yes"];
    let (code, said) = fleetmark(&wrong, secret, "");
    assert!(code == 1 && said.contains("passphrase"), "{said}");

    // Answers.
    let answer = Ceremony::read(&ceremony.sign(&request, "answer.json"));
    let first = Ceremony::read(&ceremony.scratch("answer-1.json"));
    let other = Ceremony::whole();
    let foreign = Ceremony::read(&other.scratch("answer-1.json"));
    run(async {
        server.owner().post("/v1/root/answers", &json!({"format": "x"})).await.refused(400, "malformed_request");
        let mut strange = answer.clone();
        strange["format"] = json!("fleetmark root answer 2");
        ceremony.accept(&strange).await.refused(400, "root_answer_unreadable");
        ceremony.accept(&foreign).await.refused(422, "root_answer_foreign");
        ceremony.accept(&first).await.refused(409, "root_answer_replayed");
        for (field, from) in
            [("list", &first), ("signature", &first), ("record", &first), ("authorities", &first), ("root", &foreign)]
        {
            let mut mixed = answer.clone();
            mixed[field] = from[field].clone();
            ceremony.accept(&mixed).await.refused(422, "root_record_invalid");
        }
        let mut renamed = answer.clone();
        renamed["record"] = json!(text(&answer, "record").replace("Grace", "Eve"));
        ceremony.accept(&renamed).await.refused(422, "root_record_invalid");
        // Nothing of all that was kept.
        let waiting = server.owner().get("/v1/root/requests").await.is(200).json();
        assert_eq!(waiting["items"][0]["state"], "waiting");
        ceremony.accept(&answer).await.is(200);
        ceremony.accept(&answer).await.refused(409, "root_answer_replayed");
        server.owner().post("/v1/fleets", &json!({"name": "pumps"})).await.is(201);
        ceremony.accept(&answer).await.refused(409, "root_answer_replayed");
    });

    // The same request again gives the same certificate: an answer that was lost on the way costs nothing.
    let again = Ceremony::read(&ceremony.sign(&request, "again.json"));
    assert_eq!(again["authorities"], answer["authorities"]);
    // A copy of the root's directory, and both used: the second one's record does not go on from what was accepted.
    let copy = ceremony.root.with_file_name("copy");
    let copied = Command::new("cp").arg("-a").arg(&ceremony.root).arg(&copy).status().unwrap();
    assert!(copied.success());
    run(async { ceremony.accept(&again).await.refused(422, "root_answer_mismatch") });
    let (one, two) = (ceremony.scratch("one.json"), ceremony.scratch("two.json"));
    assert_eq!(ceremony.at_the_root("crl", &["--out", &one], "").0, 0);
    let copy = copy.display().to_string();
    let three = ceremony.scratch("three.json");
    for out in [&ceremony.scratch("unseen.json"), &two, &three] {
        let (code, said) = fleetmark(&["root", "crl", "--dir", &copy, "--by", "Eve", "--out", out], ROOTS, "");
        assert_eq!(code, 0, "{said}");
    }
    run(async {
        ceremony.accept(&Ceremony::read(&one)).await.is(200);
        ceremony.accept(&Ceremony::read(&two)).await.refused(422, "root_record_invalid");
        // However far ahead the copy is; and who leaves out what tells so is not believed either.
        let three = Ceremony::read(&three);
        ceremony.accept(&three).await.refused(422, "root_record_invalid");
        let mut without = three.clone();
        without.as_object_mut().unwrap().remove("before").unwrap();
        ceremony.accept(&without).await.refused(422, "root_record_invalid");
        let mut mixed = three;
        let of_root = Ceremony::read(&one)["before"].as_array().unwrap().clone();
        mixed["before"] = json!([&of_root[..], &[Ceremony::read(&one)["record"].clone()]].concat());
        ceremony.accept(&mixed).await.refused(422, "root_record_invalid");
    });
    // Two answers that are lost on their way, and a third that arrives.
    let last = ceremony.scratch("last.json");
    for out in [&ceremony.scratch("lost-1.json"), &ceremony.scratch("lost-2.json"), &last] {
        assert_eq!(ceremony.at_the_root("crl", &["--out", out], "").0, 0);
    }
    run(async { ceremony.accept(&Ceremony::read(&last)).await.is(200) });
}

#[test]
fn the_roots_list_takes_an_authority_out() {
    let ceremony = Ceremony::whole();
    let server = &ceremony.server;
    let device = run(Device::good(server, "default", "first"));
    assert!(run(judged(server, &device)).0);
    let gateway = run(Gateway::start(server, "gw-list", &["default"]));
    let live = run(gateway.dial(&device.identity)).unwrap();
    // The serial of the fleet's authority, by openssl.
    let chain = server.write_scratch("authority.pem", text(&device.answer, "chain").as_bytes());
    let (_, said) = openssl(&["x509", "-in", chain.to_str().unwrap(), "-noout", "-serial"], b"");
    let serial = said.trim().trim_start_matches("serial=").to_owned();
    let out = ceremony.scratch("list.json");
    let (code, said) = ceremony.at_the_root("crl", &["--revoke", &"02".repeat(17), "--out", &out], "");
    assert!(code != 0, "{said}");
    let unknown = "01".to_owned() + &"07".repeat(16);
    let (code, said) = ceremony.at_the_root("crl", &["--revoke", &unknown, "--out", &out], "");
    assert!(code == 1 && said.contains("request_refused"), "{said}");
    let (code, said) = ceremony.at_the_root("crl", &["--revoke", &serial, "--reason", "cACompromise", "--out", &out], "");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("revoked: {} cACompromise", serial.to_lowercase())), "{said}");
    run(async {
        let accepted = ceremony.accept(&Ceremony::read(&out)).await.is(200).json();
        assert_eq!(accepted["revoked"].as_array().unwrap().len(), 1, "{accepted}");
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "root_revoked_authority")]).await >= 1.0);
        // The authority's own list is gone with it, so what openssl finds is that the authority is revoked.
        assert!(!judged(server, &device).await.0);
        let [root, lists] = ["anchor.pem", "lists.pem"].map(|name| ceremony.scratch(name));
        let authority = chain.display().to_string();
        let (good, said) = openssl(&["verify", "-crl_check", "-CAfile", &root, "-CRLfile", &lists, &authority], b"");
        assert!(!good && said.contains("revoked"), "{said}");
        // What the root's list names is revoked here by it: at the gateway, at the doors, in the ledger.
        let id = accepted["revoked"][0].to_string();
        let shown = server.owner().get(&format!("/v1/authorities/{id}")).await.is(200).json();
        assert_eq!((&shown["state"], &shown["kind"]), (&json!("revoked"), &json!("device")), "{shown}");
        live.ends().await;
        until("the authority's end at the gateway", 10, || async { (!gateway.admits(&device.identity).await).then_some(()) })
            .await;
        assert_eq!(gateway.verdict(device.identity.leaf()).await["decision"], "deny");
        let refused = device.verdict(server).await;
        assert!(refused.starts_with("handshake"), "{refused}");
        assert!(server.handshakes_refused("device", "authority_revoked").await >= 1.0);
        let asked = server.owner().get("/v1/root/request").await.is(200).json();
        assert_eq!(asked["revoke"], json!([]), "the root knows already");
        server
            .owner()
            .post("/v1/authorities", &json!({"kind": "device", "fleet": "default"}))
            .await
            .refused(202, "waits_for_root");
    });
    let (code, said) = ceremony.operator(&["ledger", "verify", "system"]);
    assert_eq!(code, 0, "{said}");
    // A list that forgets what the one before it named is none: as the root's own copy before the ceremony would make.
    let (code, said) = fleetmark(&["root", "verify", "--dir", &ceremony.dir()], ROOTS, "");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_root_that_the_server_made_is_taken_over() {
    let mut server = Server::laid_out("up", &[], &[SERVERS]);
    server.start_again();
    let root = server.scratch("safe").join("root");
    let (public, scratch) =
        (|path: &str| run(server.public_client().get(path)).is(200).body, |name: &str| server.scratch(name));
    fs::write(scratch("root.der"), public("/ca/root.crt")).unwrap();
    fs::write(scratch("root.crl"), public("/crl/root.crl")).unwrap();
    assert_eq!(server.stop(), Some(0));
    let keys = fs::read_dir(server.data().join("keys")).unwrap().map(|entry| entry.unwrap().path());
    let key = keys.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("root-")).unwrap();
    let safe = server.scratch("root.key.pem");
    fs::rename(&key, &safe).unwrap();
    "serve".clone_into(server.command());
    server.start_again();
    let ceremony = Ceremony { server, root };
    let path = |name: &str| ceremony.scratch(name);
    let dir = ceremony.dir();
    let out = path("taken.json");
    let (key, der, crl) = (path("root.key.pem"), path("root.der"), path("root.crl"));
    let arguments =
        ["root", "take-over", "--dir", &dir, "--by", "Ada", "--key", &key, "--certificate", &der, "--crl", &crl, "--out", &out];
    let (code, said) = fleetmark(&arguments, SERVERS, "");
    assert_eq!(code, 0, "{said}");
    run(async {
        ceremony.accept(&Ceremony::read(&out)).await.is(200);
        ceremony.server.owner().post("/v1/fleets", &json!({"name": "pumps"})).await.refused(202, "waits_for_root");
    });
    let request = path("request.json");
    assert_eq!(ceremony.operator(&["root", "request", "--out", &request]).0, 0);
    let out = path("answer.json");
    let (code, said) =
        fleetmark(&["root", "sign", "--dir", &dir, "--by", "Ada", &request, "--out", &out, "--yes"], SERVERS, "");
    assert_eq!(code, 0, "{said}");
    run(async {
        ceremony.accept(&Ceremony::read(&out)).await.is(200);
        ceremony.server.owner().post("/v1/fleets", &json!({"name": "pumps"})).await.is(201);
        let device = Device::good(&ceremony.server, "pumps", "first").await;
        let (good, said) = judged(&ceremony.server, &device).await;
        assert!(good, "{said}");
    });
}
