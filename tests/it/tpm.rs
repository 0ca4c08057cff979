//! Devices whose key lives in a TPM 2.0: swtpm is the TPM, tpm2-tools and openssl's provider use it, and none of them knows us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::Answer;
use crate::harness::device::sha256;
use crate::harness::server::text;
use crate::harness::{Key, Server, run, shared};

const FIXED: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";

/// A TPM of its own, with a directory for what its tools write.
struct Tpm {
    directory: TempDir,
    process: Child,
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Tpm {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("fleetmark-tpm-").tempdir().unwrap();
        let (state, socket) = (directory.path().join("state"), directory.path().join("socket"));
        fs::create_dir(&state).unwrap();
        let place = |kind: &str, path: &Path| format!("type=unixio,path={}{kind}", path.display());
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear,not-need-init", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &place("", &socket), "--ctrl", &place(".ctrl", &socket)])
            .stdout(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        let started = Instant::now();
        while !socket.exists() || !directory.path().join("socket.ctrl").exists() {
            assert!(started.elapsed() < Duration::from_secs(30), "swtpm does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { directory, process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self, program: &str) -> Command {
        let place = format!("swtpm:path={}", self.path("socket").display());
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("TPM2TOOLS_TCTI", &place).env("TPM2OPENSSL_TCTI", &place);
        command
    }

    /// Runs a tool, words apart by spaces, and gives what it said; what it loaded is flushed.
    fn try_tool(&self, line: &str) -> Result<String, String> {
        let mut words = line.split(' ');
        let output = self.command(words.next().unwrap()).args(words).output().expect("tpm2-tools are installed");
        let _ = self.command("tpm2_flushcontext").arg("-t").output();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    fn tool(&self, line: &str) -> String {
        self.try_tool(line).unwrap_or_else(|said| panic!("{line}: {said}"))
    }

    /// Runs the script of the manual, behind a resource manager as on a machine: a TPM alone has three places, and openssl wants more.
    fn script(&self, algorithm: &str, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tpm-enroll");
        let managed = format!(
            "tpm2-abrmd --session --allow-root --tcti swtpm:path={} >abrmd.log 2>&1 &
            trap \"kill $!; wait\" EXIT
            export TPM2TOOLS_TCTI=tabrmd:bus_type=session TPM2OPENSSL_TCTI=tabrmd:bus_type=session
            for _ in $(seq 100); do tpm2_getcap properties-fixed >/dev/null 2>&1 && break; sleep 0.1; done
            \"$@\"",
            self.path("socket").display()
        );
        let mut command = self.command("dbus-run-session");
        command.args(["--", "bash", "-c", &managed, "script"]).arg(script).args(arguments).env("EK", algorithm);
        command.output().expect("dbus and tpm2-abrmd are installed")
    }

    /// Makes the endorsement key as `ek.pub`, `ek.pem`, `ek.ctx`.
    fn endorsement_key(&self, algorithm: &str) {
        self.tool(&format!("tpm2_createek -G {algorithm} -c ek.ctx -u ek.pub"));
        self.tool("tpm2_readpublic -c ek.ctx -f pem -o ek.pem");
    }

    /// Makes a key with these attributes as `NAME.pub`, kept at `handle`.
    fn key(&self, name: &str, algorithm: &str, attributes: &str, handle: &str) {
        self.tool("tpm2_createprimary -C o -G ecc -c parent.ctx");
        self.tool(&format!("tpm2_create -C parent.ctx -G {algorithm} -a {attributes} -u {name}.pub -r {name}.priv"));
        self.tool(&format!("tpm2_load -C parent.ctx -u {name}.pub -r {name}.priv -c {name}.ctx"));
        self.tool(&format!("tpm2_evictcontrol -C o -c {name}.ctx {handle}"));
    }

    /// A request by the key at `handle`, in PEM.
    fn csr(&self, handle: &str) -> String {
        self.tool(&format!(
            "openssl req -new -provider tpm2 -provider default -propquery ?provider=tpm2 -key handle:{handle} -subj /CN=x -out csr"
        ));
        String::from_utf8(self.read("csr")).unwrap()
    }

    /// SHA-256 over the public key at `handle`.
    fn key_hash(&self, handle: &str) -> Vec<u8> {
        self.tool(&format!("tpm2_readpublic -c {handle} -f der -o key.der"));
        hex::decode(sha256(&self.read("key.der"))).unwrap()
    }

    async fn try_ask(&self, server: &Server, fleet: &str, device: &str, key: &[u8]) -> Answer {
        let body = json!({
            "kind": "tpm",
            "device": device,
            "endorsement_key": STANDARD.encode(self.read("ek.pub")),
            "key": STANDARD.encode(key),
        });
        server.device_client(None).post(&format!("/v1/fleets/{fleet}/challenge"), &body).await
    }

    /// Asks for a question; its credential is `credential`.
    async fn ask(&self, server: &Server, fleet: &str, device: &str, key: &str) -> String {
        let question = self.try_ask(server, fleet, device, &self.read(key)).await.is(200).json();
        fs::write(self.path("credential"), STANDARD.decode(text(&question, "credential")).unwrap()).unwrap();
        text(&question, "nonce")
    }

    /// What the TPM reads of `credential` with the key at `handle`.
    fn activate(&self, handle: &str) -> Result<Vec<u8>, String> {
        let _ = fs::remove_file(self.path("secret"));
        self.tool("tpm2_startauthsession --policy-session -S session.ctx");
        self.tool("tpm2_policysecret -S session.ctx -c e");
        let said = self
            .try_tool(&format!("tpm2_activatecredential -c {handle} -C ek.ctx -i credential -o secret -P session:session.ctx"));
        self.tool("tpm2_flushcontext session.ctx");
        said.map(|_| self.read("secret"))
    }
}

fn body(csr: &str, device: &str, nonce: &str, secret: &[u8], key_hash: &[u8]) -> Value {
    let message = [b"fleetmark tpm v1", nonce.as_bytes(), key_hash].concat();
    let answer = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &message);
    json!({"csr": csr, "device": device, "proof": {"kind": "tpm", "nonce": nonce, "answer": STANDARD.encode(answer.as_ref())}})
}

/// SHA-256 over a key's `SubjectPublicKeyInfo`.
pub fn spki_hash(key: &Key) -> String {
    use rustls_pki_types::pem::PemObject;
    sha256(rustls_pki_types::SubjectPublicKeyInfoDer::from_pem_slice(key.0.public_key_pem().as_bytes()).unwrap().as_ref())
}

async fn enroll(server: &Server, fleet: &str, body: &Value) -> Answer {
    server.device_client(None).post(&format!("/v1/fleets/{fleet}/enroll"), body).await
}

/// Registers the device with the TPM's endorsement key.
async fn register(server: &Server, tpm: &Tpm, fleet: &str, device: &str) -> Value {
    server.owner().post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": device})).await.is(201);
    let key = String::from_utf8(tpm.read("ek.pem")).unwrap();
    let path = format!("/v1/fleets/{fleet}/devices/{device}/hardware");
    server.owner().post(&path, &json!({"endorsement_key": key})).await.is(201).json()
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_device_enrolls_confirms_and_after_a_factory_reset_enrolls_again_as_the_manual_says() {
    let server = shared();
    run(async {
        for algorithm in ["ecc", "rsa"] {
            let tpm = Tpm::start();
            let fleet = server.fleet(json!({})).await;
            fs::copy(server.data().join("operator/ca.pem"), tpm.path("root.crt")).unwrap();
            let script = |arguments: &[&str]| tpm.script(algorithm, arguments);
            let pem = told(&script(&["endorsement-key"]));
            server.owner().post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": "pump-1"})).await.is(201);
            fs::write(tpm.path("operators.pem"), &pem).unwrap();
            let file = tpm.path("operators.pem").display().to_string();
            let added = cli(&server, &["device", "hardware", "add", "pump-1", "--fleet", &fleet, "--endorsement-key", &file]);
            assert!(added.contains("endorsement-key"), "{added}");
            let door = format!("https://localhost:{}", server.device_port);
            let enrolled = told(&script(&["enroll", &door, &fleet, "pump-1"]));
            let identity = format!("spiffe://fleet.test/device/{fleet}/pump-1");
            assert!(enrolled.starts_with(&format!("{identity} unconfirmed ")), "{enrolled}");
            assert_eq!(told(&script(&["confirm", &door, &fleet])), format!("{identity} good\n"));
            // The TPM forgets the key: what a factory reset does.
            tpm.tool("tpm2_evictcontrol -C o -c 0x81000100");
            told(&script(&["enroll", &door, &fleet, "pump-1"]));
            assert_eq!(told(&script(&["confirm", &door, &fleet])), format!("{identity} good\n"));
            let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/pump-1")).await.is(200).json();
            assert_eq!((&record["generation"], &record["standing"]), (&json!(2), &json!("good")), "{record}");
        }
    });
}

fn cli(server: &Server, arguments: &[&str]) -> String {
    let operator = server.data().join("operator");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetmark"));
    told(&command.arg("--operator").arg(operator).args(arguments).output().unwrap())
}

#[test]
fn the_command_line_adds_lists_and_removes_hardware() {
    let server = shared();
    run(async {
        let tpm = Tpm::start();
        tpm.endorsement_key("ecc");
        let fleet = server.fleet(json!({})).await;
        server.owner().post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": "a"})).await.is(201);
        server.owner().post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": "b"})).await.is(201);
        tpm.tool("tpm2_readpublic -c ek.ctx -f der -o ek.der");
        let id = sha256(&tpm.read("ek.der"));
        for form in ["ek.pem", "ek.pub"] {
            let file = tpm.path(form).display().to_string();
            let added =
                cli(&server, &["--json", "device", "hardware", "add", "a", "--fleet", &fleet, "--endorsement-key", &file]);
            let added: Value = serde_json::from_str(&added).unwrap();
            assert_eq!(added["id"], id, "{form}");
        }
        let list = cli(&server, &["--json", "device", "hardware", "list", "a", "--fleet", &fleet]);
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
        let key = json!({"endorsement_key": String::from_utf8(tpm.read("ek.pem")).unwrap()});
        let other = format!("/v1/fleets/{fleet}/devices/b/hardware");
        server.owner().post(&other, &key).await.refused(409, "hardware_of_another_device");
        server.owner().delete(&format!("{other}/{id}")).await.refused(404, "not_found");
        cli(&server, &["device", "hardware", "remove", "a", "--fleet", &fleet, "--id", &id]);
        server.owner().post(&other, &key).await.is(201);
        for wrong in ["", "x", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            let answer = server.owner().post(&other, &json!({"endorsement_key": wrong})).await;
            assert!(matches!(answer.status, 400 | 422), "{wrong}: {}", answer.text());
        }
        // Each change is in the ledger.
        let entries = server.owner().get(&format!("/v1/ledgers/{fleet}/entries?from=0&limit=50")).await.is(200).json();
        let details =
            entries["items"].as_array().unwrap().iter().filter_map(|entry| STANDARD.decode(entry["details"].as_str()?).ok());
        let notes: Vec<_> =
            details.filter(|details| String::from_utf8_lossy(details).contains(&format!("hardware {id} "))).collect();
        assert_eq!(notes.len(), 3, "{entries}");
    });
}

#[test]
fn an_answer_is_worth_what_it_is_bound_to_alone() {
    let server = shared();
    run(async {
        let (tpm, fleet, other) = (Tpm::start(), server.fleet(json!({})).await, server.fleet(json!({})).await);
        tpm.endorsement_key("ecc");
        tpm.key("key", "ecc256", FIXED, "0x81000100");
        let (csr, key_hash) = (tpm.csr("0x81000100"), tpm.key_hash("0x81000100"));
        let nonce = tpm.ask(&server, &fleet, "a", "key.pub").await;
        let secret = tpm.activate("0x81000100").unwrap();
        // What tpm2_makecredential writes has the same form.
        fs::write(tpm.path("plain"), [7; 32]).unwrap();
        let name = tpm.tool("tpm2_readpublic -c 0x81000100");
        let name = name.lines().find_map(|line| line.strip_prefix("name: ")).unwrap();
        tpm.tool(&format!("tpm2_makecredential -T none -u ek.pub -s plain -n {name} -o theirs"));
        let (ours, theirs) = (tpm.read("credential"), tpm.read("theirs"));
        assert_eq!((ours.len(), &ours[..12]), (theirs.len(), &theirs[..12]));

        let good = body(&csr, "a", &nonce, &secret, &key_hash);
        enroll(&server, &fleet, &good).await.refused(401, "endorsement_key_unknown");
        register(&server, &tpm, &fleet, "a").await;
        // Another device, fleet or key than the one that was asked about.
        enroll(&server, &fleet, &body(&csr, "b", &nonce, &secret, &key_hash)).await.refused(401, "nonce_expired");
        enroll(&server, &fleet, &body(&csr, "A", &nonce, &secret, &key_hash)).await.refused(401, "nonce_expired");
        enroll(&server, &other, &good).await.refused(401, "nonce_expired");
        let foreign = Key::new();
        let foreign_hash = hex::decode(spki_hash(&foreign)).unwrap();
        enroll(&server, &fleet, &body(&foreign.csr(), "a", &nonce, &secret, &foreign_hash)).await.refused(401, "nonce_expired");
        let before = server.metric("fleetmark_alarms_total", &[("alarm", "answer_wrong")]).await;
        enroll(&server, &fleet, &body(&csr, "a", &nonce, &[0; 32], &key_hash)).await.refused(401, "answer_wrong");
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "answer_wrong")]).await > before);
        let mut kind = good.clone();
        kind["proof"]["kind"] = "derived-key".into();
        kind["group"] = "g".into();
        enroll(&server, &fleet, &kind).await.refused(401, "nonce_expired");
        // The same request gets the same certificate, as often as it comes.
        let first = enroll(&server, &fleet, &good).await.is(200).json();
        let again = enroll(&server, &fleet, &good).await.is(200).json();
        assert_eq!((&first["certificate"], &again["replayed"]), (&again["certificate"], &json!(true)));
        // Under a name that is not the TPM's.
        let nonce = tpm.ask(&server, &fleet, "b", "key.pub").await;
        let secret = tpm.activate("0x81000100").unwrap();
        enroll(&server, &fleet, &body(&csr, "b", &nonce, &secret, &key_hash)).await.refused(409, "hardware_of_another_device");
        // In another fleet it is not known.
        let nonce = tpm.ask(&server, &other, "a", "key.pub").await;
        let secret = tpm.activate("0x81000100").unwrap();
        enroll(&server, &other, &body(&csr, "a", &nonce, &secret, &key_hash)).await.refused(401, "endorsement_key_unknown");
    });
}

#[test]
fn a_key_outside_the_tpm_gets_no_certificate() {
    let server = shared();
    run(async {
        let (tpm, other, fleet) = (Tpm::start(), Tpm::start(), server.fleet(json!({})).await);
        tpm.endorsement_key("ecc");
        other.endorsement_key("ecc");
        register(&server, &tpm, &fleet, "a").await;
        // Keys that may leave the TPM, and keys that do not sign what they are given.
        for (handle, attributes) in [
            ("0x81000101", "sensitivedataorigin|userwithauth|sign"),
            ("0x81000102", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|restricted"),
            ("0x81000103", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt"),
            ("0x81000104", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt"),
        ] {
            let algorithm = if attributes.ends_with("restricted") { "ecc256:ecdsa-sha256:null" } else { "ecc256" };
            tpm.key("loose", algorithm, attributes, handle);
            tpm.try_ask(&server, &fleet, "a", &tpm.read("loose.pub")).await.refused(422, "tpm_key_not_acceptable");
        }
        // A key from outside, loaded into the TPM.
        let key = Key::new();
        fs::write(tpm.path("soft.pem"), key.0.serialize_pem()).unwrap();
        tpm.tool("tpm2_loadexternal -C n -G ecc -r soft.pem -c soft.ctx");
        tpm.tool("tpm2_readpublic -c soft.ctx -o soft.pub");
        let area = tpm.read("soft.pub");
        tpm.try_ask(&server, &fleet, "a", &area).await.refused(422, "tpm_key_not_acceptable");
        // One whose public area lies: no TPM knows a key by that name, so the secret stays shut.
        let mut lie = area.clone();
        lie[6..10].copy_from_slice(&0x0004_0072_u32.to_be_bytes());
        let question = tpm.try_ask(&server, &fleet, "a", &lie).await.is(200).json();
        fs::write(tpm.path("credential"), STANDARD.decode(text(&question, "credential")).unwrap()).unwrap();
        tpm.tool("tpm2_loadexternal -C n -G ecc -r soft.pem -c soft.ctx");
        assert!(tpm.activate("soft.ctx").is_err(), "a credential for a key that lies was read");
        // Another TPM reads nothing, though it has the device's own question.
        tpm.key("key", "ecc256", FIXED, "0x81000100");
        tpm.ask(&server, &fleet, "a", "key.pub").await;
        fs::copy(tpm.path("credential"), other.path("credential")).unwrap();
        other.key("key", "ecc256", FIXED, "0x81000100");
        assert!(other.activate("0x81000100").is_err(), "another TPM read the secret");
        assert!(tpm.activate("0x81000100").is_ok(), "the TPM itself did not read the secret");
        // What is no TPM's structure, or has more behind it.
        let area = tpm.read("key.pub");
        for (wrong, status, code) in [
            ([&area[..], &[0]].concat(), 400, "malformed_request"),
            (area[..area.len() - 1].to_vec(), 400, "malformed_request"),
            (Vec::new(), 400, "malformed_request"),
            (vec![0; 1025], 422, "invalid_value"),
        ] {
            tpm.try_ask(&server, &fleet, "a", &wrong).await.refused(status, code);
        }
    });
}

#[test]
fn keys_of_every_kind_are_certified_as_the_tpm_made_them() {
    let server = shared();
    run(async {
        let (tpm, fleet) = (Tpm::start(), server.fleet(json!({})).await);
        tpm.endorsement_key("rsa");
        register(&server, &tpm, &fleet, "a").await;
        for (algorithm, handle) in [("ecc256", "0x81000100"), ("ecc384", "0x81000101"), ("rsa2048", "0x81000102")] {
            tpm.key("key", algorithm, FIXED, handle);
            let (csr, key_hash) = (tpm.csr(handle), tpm.key_hash(handle));
            let nonce = tpm.ask(&server, &fleet, "a", "key.pub").await;
            let secret = tpm.activate(handle).unwrap();
            let answer = enroll(&server, &fleet, &body(&csr, "a", &nonce, &secret, &key_hash)).await;
            assert!(answer.status == 200 || answer.code() == "key_type_not_allowed", "{algorithm}: {}", answer.text());
        }
    });
}
