//! An installation under a corporate authority, which is openssl: requests out, certificates and lists in, and everybody who must live
//! with the longer chain.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::ceremony::fleetmark;
use crate::harness::device::sha256;
use crate::harness::gateway::Gateway;
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Device, Server, run};

const SECRET: (&str, &str) = ("FLEETMARK_PASSPHRASE", "the server's own passphrase");

/// A corporate authority in a directory: a root with an RSA key, and an issuing authority under it.
struct Corporate(PathBuf);

const CONFIG: &str = "\
[ca]\ndefault_ca = here\n[here]\ndatabase = DIR/NAME.index\nserial = DIR/NAME.serial\ncrlnumber = DIR/NAME.number\n\
new_certs_dir = DIR\ncertificate = DIR/NAME.pem\nprivate_key = DIR/NAME.key\ndefault_md = sha256\ndefault_days = 3000\n\
default_crl_days = 30\npolicy = any\nunique_subject = no\ncopy_extensions = none\n[any]\ncommonName = supplied\norganizationName = optional\n\
[below]\nbasicConstraints = critical,CA:true,pathlen:2\nkeyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\n\
authorityKeyIdentifier = keyid\n[fleet]\nbasicConstraints = critical,CA:true,pathlen:1\nkeyUsage = critical,digitalSignature,keyCertSign,cRLSign\n\
subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\ncrlDistributionPoints = URI:http://pki.example/issuing.crl\n\
[narrow]\nbasicConstraints = critical,CA:true,pathlen:0\nkeyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\n\
[leaf]\nbasicConstraints = critical,CA:false\nkeyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\n\
[bound]\nbasicConstraints = critical,CA:true\nkeyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\nnameConstraints = critical,permitted;DNS:.example\n";

impl Corporate {
    fn new(directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let corporate = Self(directory);
        for name in ["root", "issuing"] {
            let config = CONFIG.replace("DIR", corporate.0.to_str().unwrap()).replace("NAME", name);
            fs::write(corporate.at(&format!("{name}.conf")), config).unwrap();
            fs::write(corporate.at(&format!("{name}.index")), "").unwrap();
            fs::write(corporate.at(&format!("{name}.number")), "1000\n").unwrap();
            fs::write(corporate.at(&format!("{name}.serial")), "0A\n").unwrap();
        }
        let (key, root) = (corporate.at("root.key"), corporate.at("root.pem"));
        let subject = ["-subj", "/O=Example Corp/CN=Example Corp Root", "-days", "7000", "-keyout", &key, "-out", &root];
        let new = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        done(&[&new[..], &subject].concat());
        let (key, csr) = (corporate.at("issuing.key"), corporate.at("issuing.csr"));
        let subject = ["-subj", "/O=Example Corp/CN=Example Corp Issuing", "-keyout", &key, "-out", &csr];
        done(&[&["req", "-new", "-nodes", "-newkey", "rsa:2048"], &subject[..]].concat());
        corporate.certify("root", &csr, "below", "issuing.pem");
        corporate
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    /// `openssl ca`: the certificate for a request, as a person at the corporate authority makes it.
    fn certify(&self, by: &str, csr: &str, extensions: &str, out: &str) -> String {
        let (config, out) = (self.at(&format!("{by}.conf")), self.at(out));
        done(&["ca", "-batch", "-notext", "-config", &config, "-in", csr, "-extensions", extensions, "-out", &out]);
        out
    }

    fn list(&self, by: &str) -> Vec<u8> {
        let config = self.at(&format!("{by}.conf"));
        let (good, said) = openssl(&["ca", "-gencrl", "-config", &config, "-out", &self.at(&format!("{by}.crl"))], b"");
        assert!(good, "{said}");
        self.read(&format!("{by}.crl"))
    }

    /// Certificate, issuing authority, root: what comes back.
    fn chain(&self, own: &str) -> Vec<u8> {
        [fs::read(own).unwrap(), self.read("issuing.pem"), self.read("root.pem")].concat()
    }

    fn fingerprint(&self) -> String {
        fingerprint(&self.at("root.pem"))
    }
}

fn done(arguments: &[&str]) {
    let (good, said) = openssl(arguments, b"");
    assert!(good, "{arguments:?}: {said}");
}

fn fingerprint(file: &str) -> String {
    let (_, said) = openssl(&["x509", "-in", file, "-noout", "-fingerprint", "-sha256"], b"");
    said.trim().split('=').next_back().unwrap().replace(':', "").to_lowercase()
}

/// The agent's program.
fn agent(arguments: &[&str], token: &str) -> (bool, String) {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-device");
    let output = Command::new(program).args(arguments).env("FLEETMARK_TOKEN", token).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// `openssl verify` of a certificate up to the corporate root, every list looked at.
fn judged(server: &Server, corporate: &Corporate, certificate: &[u8], chain: &[u8]) -> (bool, String) {
    let lists = run(server.public_client().get("/crl/bundle.pem")).is(200).body;
    let [leaf, chain, lists] = [("leaf.pem", certificate), ("chain.pem", chain), ("lists.pem", &lists)]
        .map(|(name, octets)| server.write_scratch(name, octets).display().to_string());
    let root = corporate.at("root.pem");
    let arguments =
        ["verify", "-x509_strict", "-crl_check_all", "-CAfile", &root, "-untrusted", &chain, "-CRLfile", &lists, &leaf];
    openssl(&arguments, b"")
}

#[test]
fn under_a_corporate_root_everybody_works_with_the_longer_chain() {
    let mut server = Server::laid_out("serve", &[], &[SECRET]);
    let corporate = Corporate::new(server.scratch("corporate"));
    let options: Vec<String> = server.options().to_vec();
    let init = |more: &[&str]| {
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        fleetmark(&[&["init"], &options[..], more].concat(), SECRET, "")
    };
    let (code, said) = init(&["--root", "corporate"]);
    assert_eq!(code, 0, "{said}");
    let csr = server.data().join("fleetmark-root.csr.pem").display().to_string();
    let (good, said) = openssl(&["req", "-in", &csr, "-verify", "-noout", "-subject"], b"");
    assert!(good && said.contains("O = fleet.test, CN = fleet.test root"), "{said}");
    let data = server.data().display().to_string();
    let (code, said) = fleetmark(&["serve", "--data", &data], SECRET, "");
    assert!(code == 1 && said.contains("waits for its root"), "{said}");

    // What does not fit is refused by name, and costs nothing.
    let go_on = |chain: Vec<u8>, root: &str, lists: &[&str]| {
        let file = server.write_scratch("back.pem", &chain).display().to_string();
        let lists: Vec<&str> = lists.iter().flat_map(|list| ["--corporate-crl", list]).collect();
        init(&[&["--continue", &file, "--root-fingerprint", root], &lists[..]].concat())
    };
    let root = corporate.fingerprint();
    for (extensions, code) in
        [("narrow", "corporate_path_length"), ("leaf", "corporate_not_a_ca"), ("bound", "corporate_name_constraints")]
    {
        let own = corporate.certify("issuing", &csr, extensions, "spoiled.pem");
        let (exit, said) = go_on(corporate.chain(&own), &root, &[]);
        assert!(exit == 1 && said.contains(code), "{code}: {said}");
    }
    let own = corporate.certify("issuing", &csr, "fleet", "fleet.pem");
    for (chain, root, code) in [
        (fs::read(&own).unwrap(), root.as_str(), "corporate_chain_unreadable"),
        ([fs::read(&own).unwrap(), corporate.read("root.pem")].concat(), &root, "corporate_chain_broken"),
        ([corporate.read("issuing.pem"), corporate.read("root.pem")].concat(), &root, "corporate_key_mismatch"),
        (corporate.chain(&own), &"ab".repeat(32), "corporate_root_unknown"),
    ] {
        let (exit, said) = go_on(chain, root, &[]);
        assert!(exit == 1 && said.contains(code), "{code}: {said}");
    }
    corporate.list("root");
    corporate.list("issuing");
    let (lists, stranger) =
        ([corporate.at("root.crl"), corporate.at("issuing.crl")], Corporate::new(server.scratch("stranger")));
    stranger.list("root");
    let (exit, said) = go_on(corporate.chain(&own), &root, &[&stranger.at("root.crl")]);
    assert!(exit == 1 && said.contains("root_list_invalid"), "{said}");
    let (exit, said) = go_on(corporate.chain(&own), &root, &[&lists[0], &lists[1]]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains(&fingerprint(&own)), "what people pin is our own: {said}");

    // It serves: the key of an intermediate may be here, since the corporate authority can revoke it.
    server.start_again();
    let pin = sha256(&server.root());
    assert_eq!(pin, fingerprint(&own));
    let device = run(Device::good(&server, "default", "by-rest"));
    let (certificate, chain) = (text(&device.answer, "certificate"), text(&device.answer, "chain"));
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 3, "the device's authority, our root, the issuing authority");
    let (good, said) = judged(&server, &corporate, certificate.as_bytes(), chain.as_bytes());
    assert!(good, "{said}");

    // The agent, with our own root pinned, and with the corporate one.
    let url = format!("https://localhost:{}", server.device_port);
    for (name, pin) in [("ours", &pin), ("theirs", &root)] {
        let token = run(server.token("default", name));
        let dir = server.scratch(name).display().to_string();
        let (good, said) =
            agent(&["enroll", "--server", &url, "--fleet", "default", "--ca-fingerprint", pin, "--dir", &dir], &token);
        assert!(good, "{name}: {said}");
        let (good, said) = agent(&["renew", "--force", "--dir", &dir], "");
        assert!(good, "{name}: {said}");
        let cert = |file: &str| fs::read(server.scratch(name).join("current").join(file)).unwrap();
        let (good, said) = judged(&server, &corporate, &cert("cert.pem"), &cert("fullchain.pem"));
        assert!(good, "{name}: {said}");
    }

    // A gateway, and a new fleet, whose authority our intermediate certifies at once.
    run(async {
        server.owner().post("/v1/fleets", &json!({"name": "pumps"})).await.is(201);
        let gateway = Gateway::start(&server, "hall", &["default", "pumps"]).await;
        let pump = Device::good(&server, "pumps", "one").await;
        gateway.dial(&pump.identity).await.unwrap();
        gateway.dial(&device.identity).await.unwrap();
    });

    // curl as a client that knows the corporate root alone, without partial chains in its way: s_client.
    let (port, anchor) = (format!("localhost:{}", server.device_port), corporate.at("root.pem"));
    let (_, said) = openssl(
        &["s_client", "-connect", &port, "-CAfile", &anchor, "-verify_return_error", "-verify_hostname", "localhost"],
        b"",
    );
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");

    // Newer lists: an older one is refused, and one that revokes our intermediate counts for everybody who looks.
    let old = corporate.read("issuing.crl");
    let newer = corporate.list("issuing");
    let import = |octets: &[u8]| json!({"lists": String::from_utf8(octets.to_vec()).unwrap()});
    run(async {
        let owner = server.owner();
        let lists = owner.post("/v1/root/lists", &import(&newer)).await.is(200).json();
        assert_eq!(lists["lists"].as_array().unwrap().len(), 2, "{lists}");
        owner.post("/v1/root/lists", &import(&old)).await.refused(422, "root_list_invalid");
        owner.post("/v1/root/lists", &import(&stranger.list("root"))).await.refused(422, "root_list_invalid");
    });
    assert!(judged(&server, &corporate, certificate.as_bytes(), chain.as_bytes()).0);
    done(&["ca", "-config", &corporate.at("issuing.conf"), "-revoke", &own, "-crl_reason", "keyCompromise"]);
    let revoking = corporate.list("issuing");
    let operator = server.data().join("operator").display().to_string();
    for ledger in ["system", "default", "pumps"] {
        let (code, said) = fleetmark(&["--operator", &operator, "ledger", "verify", ledger], SECRET, "");
        assert_eq!(code, 0, "{ledger}: {said}");
    }
    let file = server.write_scratch("revoking.crl", &revoking).display().to_string();
    let (code, said) = fleetmark(&["--operator", &operator, "root", "import-crl", &file], SECRET, "");
    assert_eq!(code, 0, "{said}");
    let (good, said) = judged(&server, &corporate, certificate.as_bytes(), chain.as_bytes());
    assert!(!good && said.contains("revoked"), "{said}");

    // All of it is there after a restart.
    server.restart();
    let (good, said) = judged(&server, &corporate, certificate.as_bytes(), chain.as_bytes());
    assert!(!good && said.contains("revoked"), "{said}");
    assert_eq!(run(device.verdict(&server)), "ok", "our own doors go by the ledger");
}
