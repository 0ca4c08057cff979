//! Authorities' keys in a PKCS#11 token (`SoftHSM2`), and authorities of other algorithms. pkcs11-tool, openssl and curl judge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::device::{confirm_by_token, enroll};
use crate::harness::forge::{authorities, authority_id};
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Client, Device, Key, Server, run, until};
use crate::standing::{Strangers, listed_within};

const PIN: &str = "fleetmark-71";
const LABEL: &str = "fleetmark-test";

/// Debian's `SoftHSM2`.
fn module() -> &'static str {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    places.into_iter().find(|place| Path::new(place).exists()).expect("softhsm2 is installed")
}

/// `SoftHSM2` with a directory of its own.
struct Soft {
    directory: TempDir,
}

impl Soft {
    /// With one token.
    fn new() -> Self {
        let soft = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(soft.tokens()).unwrap();
        let tokens = soft.tokens();
        let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(soft.configuration(), text).unwrap();
        soft.add(LABEL);
        soft
    }

    fn tokens(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    fn command(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(program);
        let output = command.args(arguments).env("SOFTHSM2_CONF", self.configuration()).output().expect(program);
        let both = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&both).into_owned())
    }

    /// Makes a token of this label.
    fn add(&self, label: &str) {
        let arguments = ["--init-token", "--free", "--label", label, "--so-pin", "87654321", "--pin", PIN];
        let (done, said) = self.command("softhsm2-util", &arguments);
        assert!(done, "{said}");
    }

    /// pkcs11-tool, logged in.
    fn tool(&self, arguments: &[&str]) -> String {
        let (done, said) = self.command("pkcs11-tool", &[&["--module", module(), "--token-label", LABEL], arguments].concat());
        assert!(done, "{arguments:?}: {said}");
        said
    }

    /// The private keys, a block of lines each, as pkcs11-tool shows them.
    fn private_keys(&self) -> Vec<String> {
        let said = self.tool(&["--login", "--pin", PIN, "--list-objects", "--type", "privkey"]);
        said.split("Private Key Object;").skip(1).map(str::to_owned).collect()
    }

    /// The label of the one key that begins so.
    fn label(&self, beginning: &str) -> String {
        let labels = self.private_keys();
        let mut labels = labels.iter().filter_map(|key| key.lines().find_map(|line| line.trim().strip_prefix("label:")));
        labels.find(|label| label.trim().starts_with(beginning)).expect("a key").trim().to_owned()
    }

    /// A server's configuration: all authorities' keys in the token.
    fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = [
            ("FLEETMARK_KEYS__ROOT", "pkcs11"),
            ("FLEETMARK_KEYS__AUTHORITIES", "pkcs11"),
            ("FLEETMARK_KEYS__PKCS11__MODULE", module()),
            ("FLEETMARK_KEYS__PKCS11__TOKEN", LABEL),
            ("FLEETMARK_PKCS11_PIN", PIN),
        ];
        let mut all: Vec<_> = pairs.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).collect();
        all.extend(more);
        let mut all: Vec<_> = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.push(("SOFTHSM2_CONF".to_owned(), self.configuration().display().to_string()));
        all
    }

    fn server(&self, arguments: &[&str], more: &[(&str, &str)]) -> Server {
        let environment = self.environment(more);
        let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Server::start_with(arguments, &environment)
    }

    /// `fleetmark init` into a directory of its own; its exit code and what it said.
    fn init(&self, data: &Path, more: &[(&str, &str)]) -> (Option<i32>, String) {
        self.fleetmark(&["init", "--data", data.to_str().unwrap()], more)
    }

    fn fleetmark(&self, arguments: &[&str], more: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
        command.args(arguments).env("FLEETMARK_PASSPHRASE", "a passphrase of tests").envs(self.environment(more));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

fn fetch(server: &Server, name: &str, octets: &[u8]) -> String {
    server.write_scratch(name, octets).display().to_string()
}

/// openssl judges a device's chain, its authority's list and OCSP; curl the doors' chain, with the device's certificate.
async fn judged(server: &Server, device: &Device) {
    let id = authority_id(server, "device", Some(&device.fleet)).await;
    let public = server.public_client();
    let root = fetch(server, "judge-root.pem", &public.get("/ca/root.pem").await.is(200).body);
    let issuer = fetch(server, "judge-issuer.pem", &public.get(&format!("/ca/{id}.pem")).await.is(200).body);
    let lists = fetch(server, "judge-lists.pem", &public.get("/crl/bundle.pem").await.is(200).body);
    let leaf = fetch(server, "judge-leaf.pem", text(&device.answer, "certificate").as_bytes());
    let verify = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", &root, "-untrusted", &issuer];
    let (done, said) = openssl(&[&verify[..], &["-crl_check_all", "-CRLfile", &lists, &leaf]].concat(), b"");
    assert!(done, "{said}");
    assert_eq!(Strangers::of(server, &device.fleet).await.ocsp(&device.serial(), true), "good");

    let key = fetch(server, "judge-key.pem", device.key.0.serialize_pem().as_bytes());
    let url = format!("https://localhost:{}/v1/fleets/{}/renewal", server.device_port, device.fleet);
    let output = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &root, "--cert", &leaf, "--key", &key, &url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{}", String::from_utf8_lossy(&output.stderr));
}

/// A key that openssl reads: rcgen makes Ed25519 keys in a form that OpenSSL 3.0 does not.
fn key_of(algorithm: &'static rcgen::SignatureAlgorithm) -> Key {
    if *algorithm != rcgen::PKCS_ED25519 {
        return Key::of(algorithm);
    }
    let (_, pem) = openssl(&["genpkey", "-algorithm", "ed25519"], b"");
    Key(rcgen::KeyPair::from_pem(&pem).unwrap())
}

/// What openssl says of an authority's public key and signature.
async fn algorithms(server: &Server, kind: &str, fleet: Option<&str>) -> (String, String) {
    let id = authority_id(server, kind, fleet).await;
    let certificate = server.public_client().get(&format!("/ca/{id}.crt")).await.is(200).body;
    let (_, said) = openssl(&["x509", "-inform", "DER", "-noout", "-text"], &certificate);
    let after = |label: &str| said.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap_or_default().to_owned();
    let curve = after("NIST CURVE: ");
    (if curve.is_empty() { after("Public Key Algorithm: ") } else { curve }, after("Signature Algorithm: "))
}

#[test]
fn with_all_authorities_keys_in_the_token_devices_enroll_and_openssl_agrees() {
    let soft = Soft::new();
    let mut server = soft.server(&[], &[("FLEETMARK_KEYS__PKCS11__SESSIONS", "2")]);
    let device = run(async {
        let device = Device::good(&server, "default", "first").await;
        judged(&server, &device).await;
        // A second fleet's authority is made while the server serves.
        let fleet = server.fleet(json!({})).await;
        let other = Device::good(&server, &fleet, "a").await;
        judged(&server, &other).await;
        device.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        listed_within(&server, "default", &device.serial(), Some(1)).await;
        assert_eq!(Strangers::of(&server, "default").await.ocsp(&device.serial(), true), "revoked 1");
        for authority in authorities(&server).await {
            assert_eq!(authority["key"], "pkcs11", "{authority}");
        }
        // More at once than there are sessions.
        let client = server.device_client(None);
        let token = text(&server.mint("default", json!({"uses": 24})).await, "token");
        let many = (0..24).map(|number| {
            let (client, token) = (client.clone(), token.clone());
            async move { enroll(&client, "default", &token, &Key::new(), Some(&format!("many-{number}"))).await.is(200) }
        });
        futures_util::future::join_all(many).await;
        other
    });
    let keys = soft.private_keys();
    assert_eq!(keys.len(), 6, "root, services, operators, gateways, two fleets: {keys:?}");
    for key in &keys {
        assert!(key.contains("EC") && key.contains("sensitive, always sensitive, never extractable, local"), "{key}");
        assert!(key.contains("Usage:      sign"), "{key}");
    }
    let files = fs::read_dir(server.data().join("keys")).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    assert!(files.iter().all(|name| !name.starts_with("root-") && !name.starts_with("authority-")), "{files:?}");
    // They are found again.
    server.restart();
    run(async {
        assert_eq!(device.verdict(&server).await, "ok");
        Device::good(&server, "default", "after").await;
    });
    assert_eq!(soft.private_keys().len(), 6);

    assert_eq!(server.stop(), Some(0));
    let data = server.data().display().to_string();
    let passphrase = format!("{data}/passphrase");
    let arguments = ["serve", "--data", &data, "--passphrase-file", &passphrase];
    let (code, said) = soft.fleetmark(&arguments, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("danger_online_root") && said.contains("token"), "{said}");
}

/// The token is back: what could not be issued is, and what was revoked meanwhile comes into the list.
async fn issues_again(server: &Server, client: &Client, token: &str, key: &Key, revoked: &Device) {
    let answer = until("the token's return", 30, || async {
        let answer = enroll(client, "default", token, key, None).await;
        (answer.status == 200).then_some(answer)
    });
    let identity = key.identity(&answer.await.json());
    assert_eq!(crate::harness::device::verdict(server, &identity, "default").await, "ok");
    listed_within(server, "default", &revoked.serial(), Some(1)).await;
    assert_eq!(server.owner().get("/v1/status").await.is(200).json()["token_reachable"], true);
}

#[test]
fn a_lost_token_refuses_by_name_and_comes_back_by_itself() {
    let soft = Soft::new();
    let server = soft.server(&[], &[]);
    let away = soft.directory.path().join("away");
    run(async {
        let device = Device::good(&server, "default", "before").await;
        let waiting = Device::unconfirmed(&server, "default", "waiting").await;
        let client = server.device_client(None);
        let token = server.token("default", "during").await;

        fs::rename(soft.tokens(), &away).unwrap();
        let key = Key::new();
        for _ in 0..3 {
            let refused = enroll(&client, "default", &token, &key, None).await;
            assert!(!refused.header("retry-after").is_empty());
            refused.refused(503, "hsm_unavailable");
        }
        // All that needs no authority's key goes on: revocation above all.
        assert_eq!(device.verdict(&server).await, "ok");
        confirm_by_token(&client, "default", &waiting.token, &waiting.fingerprint()).await.is(200);
        device.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        assert_eq!(device.verdict(&server).await, "revoked");
        assert_eq!(Strangers::of(&server, "default").await.ocsp(&device.serial(), true), "revoked 1");
        let status = server.owner().get("/v1/status").await.is(200).json();
        assert_eq!(status["token_reachable"], false);
        assert!(server.metric("fleetmark_pkcs11_lost_total", &[]).await >= 1.0);
        assert!(server.metric("fleetmark_pkcs11_failures_total", &[("kind", "lost")]).await >= 1.0);
        assert!(server.refused("hsm_unavailable").await >= 3.0);

        fs::rename(&away, soft.tokens()).unwrap();
        issues_again(&server, &client, &token, &key, &device).await;
    });
    let log = server.log();
    let said = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((said("the token is lost"), said("the token is back")), (1, 1), "{log}");
}

/// The wrapper around `SoftHSM2` that sleeps while its file is there.
fn sleepy_module(soft: &Soft) -> String {
    let built = soft.directory.path().join("sleepy.so").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sleepy_pkcs11.c");
    let done = Command::new("cc").args(["-Wall", "-Wextra", "-shared", "-fPIC", "-o", &built, source, "-ldl"]).status();
    assert!(done.expect("a C compiler").success());
    built
}

#[test]
fn a_module_that_hangs_is_given_up_by_name_and_taken_up_again() {
    let soft = Soft::new();
    let (sleepy, file) = (sleepy_module(&soft), soft.directory.path().join("sleep"));
    let server = soft.server(
        &[],
        &[
            ("FLEETMARK_KEYS__PKCS11__MODULE", &sleepy),
            ("FLEETMARK_KEYS__PKCS11__SESSIONS", "3"),
            ("SLEEPY_MODULE", module()),
            ("SLEEPY_FILE", file.to_str().unwrap()),
        ],
    );
    run(async {
        let device = Device::good(&server, "default", "before").await;
        let client = server.device_client(None);
        let token = text(&server.mint("default", json!({"uses": 24})).await, "token");
        let ask = |name: String| {
            let (client, token) = (client.clone(), token.clone());
            async move { enroll(&client, "default", &token, &Key::new(), Some(&name)).await }
        };
        fs::write(&file, "").unwrap();
        // More than there are sessions: those that hang, and those that wait for one.
        let answers = futures_util::future::join_all((0..8).map(|number| ask(format!("hung-{number}")))).await;
        let codes: Vec<_> = answers.iter().map(|answer| (answer.status, answer.code())).collect();
        assert!(codes.iter().all(|(status, _)| *status == 503), "{codes:?}");
        assert!(codes.iter().any(|(_, code)| code == "hsm_unavailable"), "{codes:?}");
        assert!(codes.iter().all(|(_, code)| code == "hsm_unavailable" || code == "overloaded"), "{codes:?}");
        assert!(server.metric("fleetmark_pkcs11_hung_total", &[]).await >= 1.0);
        // All that needs no authority's key goes on.
        assert_eq!(device.verdict(&server).await, "ok");
        device.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        assert_eq!(Strangers::of(&server, "default").await.ocsp(&device.serial(), true), "revoked 1");
        assert_eq!(server.owner().get("/v1/status").await.is(200).json()["token_reachable"], false);

        // The calls come back, and the pool has its sessions again.
        fs::remove_file(&file).unwrap();
        let back = until("the module's return", 60, || async { (ask("back".to_owned()).await.status == 200).then_some(()) });
        back.await;
        let answers = futures_util::future::join_all((0..8).map(|number| ask(format!("after-{number}")))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        listed_within(&server, "default", &device.serial(), Some(1)).await;
    });
    let log = server.log();
    assert!(log.contains("a call of the token's module is given up") && log.contains("did not come back within 10 s"), "{log}");
    assert!(log.contains("the token is back"), "{log}");
}

#[test]
fn a_server_starts_without_its_token_and_issues_when_it_comes() {
    let soft = Soft::new();
    let mut server = soft.server(&[], &[]);
    let away = soft.directory.path().join("away");
    let (device, waiting, token) = run(async {
        let device = Device::good(&server, "default", "before").await;
        (device, Device::unconfirmed(&server, "default", "waiting").await, server.token("default", "during").await)
    });
    assert_eq!(server.stop(), Some(0));
    fs::rename(soft.tokens(), &away).unwrap();
    server.start_again();
    let key = Key::new();
    run(async {
        let client = server.device_client(None);
        enroll(&client, "default", &token, &key, None).await.refused(503, "hsm_unavailable");
        server.owner().post("/v1/fleets", &json!({"name": "new"})).await.refused(503, "hsm_unavailable");
        assert_eq!(server.owner().get("/v1/status").await.is(200).json()["token_reachable"], false);
        // The doors judge, and answer.
        assert_eq!(device.verdict(&server).await, "ok");
        assert_eq!(Strangers::of(&server, "default").await.ocsp(&device.serial(), true), "good");
        confirm_by_token(&client, "default", &waiting.token, &waiting.fingerprint()).await.is(200);
        device.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        assert_eq!(device.verdict(&server).await, "revoked");
        assert_eq!(Strangers::of(&server, "default").await.ocsp(&device.serial(), true), "revoked 1");

        fs::rename(&away, soft.tokens()).unwrap();
        issues_again(&server, &client, &token, &key, &device).await;
    });
    let log = server.log();
    let said = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((said("the token is not there"), said("the token is back")), (1, 1), "{log}");

    // The token comes with another key under the label: nothing is signed with it.
    assert_eq!(server.stop(), Some(0));
    let label = soft.label("authority-device-");
    let tool = |arguments: &[&str]| soft.tool(&[&["--login", "--pin", PIN, "--label", &label], arguments].concat());
    for half in ["privkey", "pubkey"] {
        tool(&["--delete-object", "--type", half]);
    }
    tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign"]);
    fs::rename(soft.tokens(), &away).unwrap();
    server.start_again();
    run(async {
        let token = server.token("default", "after").await;
        fs::rename(&away, soft.tokens()).unwrap();
        until("the token", 30, || async {
            (server.owner().get("/v1/status").await.is(200).json()["token_reachable"] == true).then_some(())
        })
        .await;
        let client = server.device_client(None);
        enroll(&client, "default", &token, &Key::new(), None).await.refused(503, "hsm_unavailable");
    });
    assert!(server.log().contains("is not the one that its certificate is for"), "{}", server.log());
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let soft = Soft::new();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let wrong = [("FLEETMARK_PKCS11_PIN", "not-the-pin")];
    let (code, said) = soft.init(&data, &wrong);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("refuses the PIN") && said.contains("correct the PIN"), "{said}");
    assert!(!said.contains("not-the-pin"), "{said}");
    let mark = fs::read_to_string(data.join("pin-refused")).unwrap();
    assert!(!mark.contains("not-the-pin"), "{mark}");

    // It would be right now, and is not tried all the same: nothing says so but a person.
    soft.tool(&["--login", "--pin", PIN, "--change-pin", "--new-pin", "not-the-pin"]);
    let (code, said) = soft.init(&data, &wrong);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("refused this PIN before") && said.contains("pin-refused"), "{said}");
    fs::remove_file(data.join("pin-refused")).unwrap();
    let (code, said) = soft.init(&data, &wrong);
    assert_eq!(code, Some(0), "{said}");
    assert!(!data.join("pin-refused").exists());
}

#[test]
fn every_fault_of_the_token_is_named_with_what_to_do() {
    let soft = Soft::new();
    let directory = tempfile::tempdir().unwrap();
    let refused = |more: &[(&str, &str)], expected: &[&str]| {
        let (code, said) = soft.init(&directory.path().join("data"), more);
        assert_eq!(code, Some(1), "{said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{expected:?} in {said}");
    };
    refused(&[("FLEETMARK_KEYS__PKCS11__MODULE", "/nowhere/module.so")], &["cannot be loaded", "keys.pkcs11.module"]);
    refused(&[("FLEETMARK_KEYS__PKCS11__MODULE", "module.so")], &["absolute path"]);
    refused(&[("FLEETMARK_KEYS__PKCS11__TOKEN", "another")], &["no token with the label \"another\"", LABEL]);
    refused(&[("FLEETMARK_KEYS__PKCS11__SESSIONS", "0")], &["keys.pkcs11.sessions"]);
    refused(&[("FLEETMARK_KEYS__ALGORITHM", "rsa")], &["keys.algorithm", "p256"]);
    let mut environment = soft.environment(&[]);
    environment.retain(|(name, _)| name != "FLEETMARK_PKCS11_PIN");
    let data = directory.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
    command.args(["init", "--data", data.to_str().unwrap()]).env("FLEETMARK_PASSPHRASE", "a passphrase of tests");
    let output = command.envs(environment).stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("wants a PIN") && said.contains("FLEETMARK_PKCS11_PIN"), "{said}");

    // SoftHSM2 without Ed25519, as many tokens are.
    let whole = fs::read_to_string(soft.configuration()).unwrap();
    fs::write(soft.configuration(), format!("{whole}slots.mechanisms = CKM_ECDSA,CKM_EC_KEY_PAIR_GEN\n")).unwrap();
    refused(
        &[("FLEETMARK_KEYS__ALGORITHM", "ed25519")],
        &["has no ed25519 keys", "CKM_EC_EDWARDS_KEY_PAIR_GEN", "keys.algorithm"],
    );
    fs::write(soft.configuration(), whole).unwrap();

    soft.add(LABEL);
    refused(&[], &["several tokens", "keys.pkcs11.serial"]);
    // Either one, by its serial number. In a variable it is quoted, so that one of digits alone is no number.
    let (_, slots) = soft.command("softhsm2-util", &["--show-slots"]);
    let serial = slots.lines().find_map(|line| line.trim().strip_prefix("Serial number:")).unwrap().trim().to_owned();
    let serial = format!("\"{serial}\"");
    let (code, said) = soft.init(&data, &[("FLEETMARK_KEYS__PKCS11__SERIAL", &serial)]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_key_that_is_missing_doubled_or_another_ends_the_start() {
    let soft = Soft::new();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let (code, said) = soft.init(Path::new(&data), &[]);
    assert_eq!(code, Some(0), "{said}");
    let label = soft.label("authority-operator-");
    let refused = |expected: &[&str]| {
        let (code, said) = soft.fleetmark(&["serve", "--data", &data, "--danger-online-root"], &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{expected:?} in {said}");
    };
    let tool = |arguments: &[&str]| soft.tool(&[&["--login", "--pin", PIN, "--label", &label], arguments].concat());
    let make = |kind: &str| drop(tool(&["--keypairgen", "--key-type", kind, "--usage-sign"]));
    let delete = || {
        for half in ["privkey", "pubkey"] {
            tool(&["--delete-object", "--type", half]);
        }
    };
    make("EC:prime256v1");
    refused(&["several private keys", &label]);
    delete();
    delete();
    refused(&["has no private key with the label", &label, "backup"]);
    make("EC:prime256v1");
    refused(&["is not the one that its certificate is for", &label]);
    delete();
    make("rsa:2048");
    refused(&["of the type", &label]);
    delete();
    make("EC:secp521r1");
    refused(&["neither P-256 nor P-384 nor Ed25519", &label]);
}

#[test]
fn p384_and_ed25519_authorities_sign_in_the_token() {
    for (algorithm, curve, signature) in [("p384", "P-384", "ecdsa-with-SHA384"), ("ed25519", "ED25519", "ED25519")] {
        let soft = Soft::new();
        let server = soft.server(&["--algorithm", algorithm, "--root-algorithm", algorithm], &[]);
        run(async {
            let device = Device::good(&server, "default", "a").await;
            judged(&server, &device).await;
            let found = algorithms(&server, "device", Some("default")).await;
            assert_eq!(found, (curve.to_owned(), signature.to_owned()));
        });
    }
}

#[test]
fn whole_installations_of_each_algorithm_and_of_two_work() {
    for (arguments, root, authority) in [
        (&["--algorithm", "p384", "--root-algorithm", "p384"][..], "P-384", "P-384"),
        (&["--algorithm", "ed25519", "--root-algorithm", "ed25519"][..], "ED25519", "ED25519"),
        (&["--root-algorithm", "p384"][..], "P-384", "P-256"),
    ] {
        let mut server = Server::start(arguments);
        run(async {
            assert_eq!(algorithms(&server, "root", None).await.0, root);
            let (key, signature) = algorithms(&server, "device", Some("default")).await;
            assert_eq!(key, authority);
            let expected = if root == "P-384" { "ecdsa-with-SHA384" } else { "ED25519" };
            assert_eq!(signature, expected);
            for kind in ["gateway", "service", "operator"] {
                assert_eq!(algorithms(&server, kind, None).await.0, authority, "{kind}");
            }
            for (name, algorithm) in [
                ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
                ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
                ("ed25519", &rcgen::PKCS_ED25519),
            ] {
                let token = server.token("default", name).await;
                let key = key_of(algorithm);
                let answer = enroll(&server.device_client(None), "default", &token, &key, None).await.is(200).json();
                let identity = key.identity(&answer);
                let device = Device { fleet: "default".to_owned(), name: name.to_owned(), token, key, answer, identity };
                device.confirm(&server).await.is(200);
                judged(&server, &device).await;
                let renewed = device.renew(&server).await;
                renewed.confirm(&server).await.is(200);
                renewed.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
                listed_within(&server, "default", &renewed.serial(), Some(1)).await;
                assert_eq!(Strangers::of(&server, "default").await.ocsp(&renewed.serial(), true), "revoked 1");
                assert_eq!(renewed.verdict(&server).await, "revoked");
            }
        });
        // The doors keep P-256, whatever signed their certificate, and openssl takes them.
        let (_, said) = openssl(&["s_client", "-connect", &format!("localhost:{}", server.device_port), "-brief"], b"");
        assert!(said.contains("Signature type: ECDSA"), "{said}");
        // What was said at the first start holds for fleets that are made later.
        server.restart();
        run(async {
            let fleet = server.fleet(json!({})).await;
            assert_eq!(algorithms(&server, "device", Some(&fleet)).await.0, authority);
        });
    }
}

#[test]
fn a_backup_says_that_keys_are_in_the_token_and_a_restore_looks_for_them() {
    let soft = Soft::new();
    let mut server = soft.server(&[], &[]);
    run(Device::good(&server, "default", "a"));
    let operator = server.data().join("operator").display().to_string();
    let backup = server.scratch("backup").display().to_string();
    let (code, said) = soft.fleetmark(&["--operator", &operator, "backup", "create", "--out", &backup], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("NOT in it") && said.contains("1, 2, 3, 4, 5"), "{said}");
    let doctor = ["--operator", &operator, "doctor", "--data", &server.data().display().to_string()];
    let (_, said) = soft.fleetmark(&doctor, &[]);
    assert!(said.contains("keys of authorities: root: pkcs11") && said.contains("the server reaches it"), "{said}");
    assert!(said.contains("it was not tried"), "{said}");
    assert_eq!(server.stop(), Some(0));

    let passphrase = server.data().join("passphrase").display().to_string();
    let restore = |name: &str| {
        let data = server.scratch(name).display().to_string();
        soft.fleetmark(&["backup", "restore", &backup, "--data", &data, "--passphrase-file", &passphrase], &[])
    };
    let (code, said) = restore("whole");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("has all 5 keys"), "{said}");
    let label = soft.label("authority-gateway-");
    soft.tool(&["--login", "--pin", PIN, "--label", &label, "--delete-object", "--type", "privkey"]);
    let (code, said) = restore("less");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&label) && said.contains("lacks"), "{said}");
}
