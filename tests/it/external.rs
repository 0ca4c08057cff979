//! Other authorities: a foreign PKI made by openssl (RSA-2048, SHA-256, serial numbers of 20 octets, no URI), judged by our gateway under
//! our policy, with its lists and answers followed.

mod orders;
mod several;
mod sight;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::approval::sql;
use crate::harness::device::sha256;
use crate::harness::gateway::Gateway;
use crate::harness::openssl::{openssl, pem};
use crate::harness::server::{free_port, text};
use crate::harness::{Connection, Identity, Key, Server, run, shared, until};

/// A CA that knows nothing of us.
pub struct ForeignCa {
    directory: PathBuf,
}

impl ForeignCa {
    pub fn new(server: &Server, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let directory = server.scratch(&format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&directory).unwrap();
        let path = |file: &str| directory.join(file).display().to_string();
        let config = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={}\nnew_certs_dir={}\ncrlnumber={}\nrand_serial=yes\ndefault_md=sha256\n\
             default_days=30\ndefault_crl_days=7\ncertificate={}\nprivate_key={}\npolicy=p\nx509_extensions=leaf\ncopy_extensions=none\n\
             crl_extensions=list\nunique_subject=no\n[p]\norganizationName=optional\ncommonName=optional\nserialNumber=optional\n\
             [leaf]\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n\
             authorityKeyIdentifier=keyid\nsubjectAltName=DNS:unit.silo.example\n[bare]\nbasicConstraints=CA:FALSE\n\
             [server]\nextendedKeyUsage=serverAuth\n[responder]\nextendedKeyUsage=OCSPSigning\nkeyUsage=digitalSignature\n\
             [list]\nauthorityKeyIdentifier=keyid\n[req]\ndistinguished_name=dn\nx509_extensions=root\n[dn]\n\
             [root]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n",
            path("index"),
            directory.display(),
            path("number"),
            path("ca.pem"),
            path("ca.key")
        );
        for (file, content) in [("ca.cnf", config.as_str()), ("index", ""), ("number", "1000\n")] {
            fs::write(directory.join(file), content).unwrap();
        }
        let ca = Self { directory };
        ca.openssl(&[
            "req",
            "-config",
            "ca.cnf",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &format!("/O=Silo/CN={name}"),
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        ca
    }

    /// Runs openssl; words that name our files are put into our directory.
    fn openssl(&self, words: &[&str]) -> String {
        let ours = |word: &&str| {
            let is_file =
                [".cnf", ".key", ".pem", ".csr", "index"].iter().any(|end| word.ends_with(end)) && !word.contains('/');
            if is_file { self.directory.join(word).display().to_string() } else { (*word).to_owned() }
        };
        let words: Vec<String> = words.iter().map(ours).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (done, text) = openssl(&words, b"");
        assert!(done, "{words:?}: {text}");
        text
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    pub fn ca_pem(&self) -> String {
        self.file("ca.pem")
    }

    /// Issues to a new key.
    pub fn issue(&self, file: &str, subject: &str, extensions: &str) -> Identity {
        let (key, csr, certificate) = (format!("{file}.key"), format!("{file}.csr"), format!("{file}.pem"));
        self.openssl(&[
            "req", "-config", "ca.cnf", "-new", "-newkey", "rsa:2048", "-nodes", "-sha256", "-subj", subject, "-keyout", &key,
            "-out", &csr,
        ]);
        self.certify(file, &certificate, extensions)
    }

    /// Certifies the request of `file` once more, or for the first time.
    fn certify(&self, file: &str, certificate: &str, extensions: &str) -> Identity {
        self.openssl(&[
            "ca",
            "-config",
            "ca.cnf",
            "-batch",
            "-notext",
            "-extensions",
            extensions,
            "-in",
            &format!("{file}.csr"),
            "-out",
            certificate,
        ]);
        Identity::from_pem(self.file(certificate).as_bytes(), self.file(&format!("{file}.key")).as_bytes())
    }

    pub fn device(&self, name: &str) -> Identity {
        self.issue(name, &format!("/O=Silo/CN={name}"), "leaf")
    }

    fn revoke(&self, name: &str, reason: &str) {
        self.openssl(&["ca", "-config", "ca.cnf", "-revoke", &format!("{name}.pem"), "-crl_reason", reason]);
    }

    /// As if nothing had been revoked.
    fn forgive(&self) {
        let index = self.file("index");
        let lines = index.lines().map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            format!("V\t{}\t\t{}\n", fields[1], fields[3..].join("\t"))
        });
        fs::write(self.directory.join("index"), lines.collect::<String>()).unwrap();
    }

    /// A list that holds for so many seconds.
    fn list(&self, seconds: u32) -> Vec<u8> {
        self.openssl(&["ca", "-config", "ca.cnf", "-gencrl", "-crlsec", &seconds.to_string(), "-out", "list.pem"]);
        fs::read(self.directory.join("list.pem")).unwrap()
    }
}

/// What a web server serves, and how often it was asked for it.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<(Vec<u8>, usize, usize)>>);

impl Served {
    fn is(&self, octets: Vec<u8>) {
        self.0.lock().unwrap().0 = octets;
    }

    /// How often it was given, and how often found unchanged.
    fn asked(&self) -> (usize, usize) {
        let inner = self.0.lock().unwrap();
        (inner.1, inner.2)
    }

    fn answer(&self, stream: &mut TcpStream) {
        let mut head = Vec::new();
        let mut octet = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut octet).is_ok() {
            head.push(octet[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let mut inner = self.0.lock().unwrap();
        let tag = format!("\"{}\"", &sha256(&inner.0)[..16]);
        let answer = if inner.0.is_empty() {
            b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        } else if head.contains(&format!("if-none-match: {tag}")) {
            inner.2 += 1;
            b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec()
        } else {
            inner.1 += 1;
            let head =
                format!("HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", inner.0.len());
            [head.as_bytes(), &inner.0].concat()
        };
        // Whoever asked may have gone.
        let _ = stream.write_all(&answer);
    }
}

/// A web server that serves one thing until the tests end.
fn serve() -> (Served, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/silo.crl", listener.local_addr().unwrap().port());
    let served = Served::default();
    let shown = served.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            shown.answer(&mut stream);
        }
    });
    (served, url)
}

fn authorities(fleet: &str) -> String {
    format!("/v1/fleets/{fleet}/external-authorities")
}

fn certificates(fleet: &str) -> String {
    format!("/v1/fleets/{fleet}/external-certificates")
}

async fn create(server: &Server, fleet: &str, ca: &ForeignCa, rules: Value) -> Value {
    let body = json!({"name": "silo", "ca": ca.ca_pem(), "rules": rules});
    server.owner().post(&authorities(fleet), &body).await.is(201).json()
}

fn by_list(url: &str) -> Value {
    json!({"status": {"kind": "crl", "urls": [url]}})
}

async fn import(server: &Server, fleet: &str, pem: &str) -> Value {
    let path = format!("{}?authority=silo", certificates(fleet));
    let media = [("content-type", "application/x-pem-file")];
    server.owner().send("POST", &path, &media, Some(pem.as_bytes().to_vec())).await.is(200).json()
}

async fn adopt(server: &Server, fleet: &str, identity: &Identity) {
    let imported = import(server, fleet, &pem("CERTIFICATE", identity.leaf())).await;
    assert_eq!(imported["adopted"], 1, "{imported}");
}

/// The outcome of importing this one certificate.
async fn outcome(server: &Server, fleet: &str, certificate: &[u8]) -> String {
    text(&import(server, fleet, &pem("CERTIFICATE", certificate)).await["certificates"][0], "outcome")
}

async fn check(server: &Server, fleet: &str) -> Value {
    server.owner().post(&format!("{}/silo/check", authorities(fleet)), &json!({})).await.is(200).json()
}

/// What the auditor says of a fleet's ledger.
fn verify(server: &Server, fleet: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(["ledger", "verify", fleet, "--operator"])
        .arg(server.data().join("operator"))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Standing, what we say, what the other authority says.
async fn standings(server: &Server, fleet: &str, identity: &Identity) -> [String; 3] {
    let path = format!("{}/{}", certificates(fleet), sha256(identity.leaf()));
    let shown = server.owner().get(&path).await.is(200).json();
    ["standing", "own_standing", "foreign_standing"].map(|field| text(&shown, field))
}

async fn act(server: &Server, fleet: &str, identity: &Identity, act: &str) -> Value {
    let path = format!("{}/{}/{act}", certificates(fleet), sha256(identity.leaf()));
    server.owner().post(&path, &json!({})).await.is(200).json()
}

#[test]
fn a_foreign_pki_is_judged_under_our_policy_and_both_may_revoke() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-judged");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        let made = create(&server, &fleet, &ca, by_list(&url)).await;
        assert_eq!((&made["state"], &made["failures"]), (&json!("active"), &json!([])), "{made}");
        let [a, b, stranger] = ["pump-a", "pump-b", "pump-c"].map(|name| ca.device(name));
        let gateway = Gateway::start(&server, "gw-silo", &[&fleet]).await;
        assert!(!gateway.admits(&a).await, "let in before it was adopted");
        gateway.says("external_unknown", &a, 5).await;
        adopt(&server, &fleet, &a).await;
        adopt(&server, &fleet, &b).await;

        let verdict = gateway.says("allowed", &a, 5).await;
        assert_eq!(verdict["identity"], format!("spiffe://fleet.test/device/{fleet}/pump-a"));
        assert_eq!((&verdict["standing"], &verdict["ledger"]), (&json!("good"), &json!(fleet)), "{verdict}");
        let certificate = pem("CERTIFICATE", a.leaf());
        for (topic, decision) in [(format!("{fleet}/pump-a/flow"), "allow"), (format!("{fleet}/pump-b/flow"), "deny")] {
            let asked = gateway.ask(json!({"certificate": certificate, "action": "publish", "topic": topic})).await;
            assert_eq!(asked["decision"], decision, "{topic}: {asked}");
        }
        let (gone, ours, mut stays) =
            (gateway.dial(&a).await.unwrap(), gateway.dial(&b).await.unwrap(), gateway.dial(&b).await.unwrap());
        assert!(!gateway.admits(&stranger).await, "one that was not adopted came in");
        assert_eq!(gateway.verdict(stranger.leaf()).await["reason"], "external_unknown");
        stays.echo().await.unwrap();

        // The other authority revokes one, we the other.
        ca.revoke("pump-a", "keyCompromise");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        gone.ends().await;
        assert!(!gateway.admits(&a).await, "revoked by its own authority, and it came back in");
        assert_eq!(gateway.verdict(a.leaf()).await["reason"], "revoked");
        assert_eq!(standings(&server, &fleet, &a).await, ["revoked", "good", "revoked"]);
        stays.echo().await.unwrap();
        let changed = act(&server, &fleet, &b, "revoke").await;
        assert_eq!(changed["changed"], 1, "{changed}");
        ours.ends().await;
        stays.ends().await;
        assert_eq!(gateway.verdict(b.leaf()).await["reason"], "revoked");
        assert_eq!(standings(&server, &fleet, &b).await, ["revoked", "revoked", "good"]);
        // For ever: neither list nor operator brings one back.
        ca.forgive();
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        assert_eq!(standings(&server, &fleet, &a).await, ["revoked", "good", "revoked"]);
        assert!(!gateway.admits(&a).await);
        assert!(!gateway.admits(&b).await);
    });
}

#[test]
fn what_a_stolen_foreign_key_signs_is_unknown() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-stolen");
        create(&server, &fleet, &ca, json!({})).await;
        let device = ca.device("pump-a");
        adopt(&server, &fleet, &device).await;
        let gateway = Gateway::start(&server, "gw-silo-stolen", &[&fleet]).await;
        gateway.says("allowed", &device, 5).await;
        // The CA's own key, the same names, another key of the device; and the same key again.
        let forged = ca.issue("forged", "/O=Silo/CN=pump-a", "leaf");
        let copied = ca.certify("pump-a", "copied.pem", "leaf");
        let other = ForeignCa::new(&server, "silo-stolen");
        let lookalike = other.device("pump-a");
        for (what, identity) in [("forged", &forged), ("copied", &copied), ("another CA of the same name", &lookalike)] {
            assert_eq!(gateway.verdict(identity.leaf()).await["reason"], "external_unknown", "{what}");
            assert!(!gateway.admits(identity).await, "{what} came in");
        }
        gateway.dial(&device).await.unwrap();
    });
}

#[test]
fn a_word_past_its_end_refuses_unless_the_fleet_goes_on() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let (ca, lax) = (ForeignCa::new(&server, "silo-stale"), ForeignCa::new(&server, "silo-lax"));
        let ((list, url), (lax_list, lax_url)) = (serve(), serve());
        list.is(ca.list(3_600));
        lax_list.is(lax.list(1));
        create(&server, &fleet, &ca, by_list(&url)).await;
        let mut rules = by_list(&lax_url);
        rules["on_stale"] = "go-on".into();
        create(&server, &other, &lax, rules).await;
        let (device, goes_on) = (ca.device("pump-a"), lax.device("pump-b"));
        adopt(&server, &fleet, &device).await;
        adopt(&server, &other, &goes_on).await;
        let gateway = Gateway::start(&server, "gw-silo-stale", &[&fleet, &other]).await;
        gateway.says("allowed", &device, 5).await;
        gateway.says("allowed", &goes_on, 5).await;
        let (cut, mut stays) = (gateway.dial(&device).await.unwrap(), gateway.dial(&goes_on).await.unwrap());
        // A list that ends, and after it none.
        list.is(ca.list(2));
        check(&server, &fleet).await;
        list.is(Vec::new());
        lax_list.is(Vec::new());
        gateway.says("external_status_stale", &device, 20).await;
        cut.ends().await;
        assert!(!gateway.admits(&device).await, "let in by a word that is past its end");
        let shown = server.owner().get(&format!("{}/silo", authorities(&fleet))).await.is(200).json();
        assert_eq!(shown["state"], "stale", "{shown}");
        assert!(shown["failures"].to_string().contains("503"), "{shown}");
        // The device door says the same, and nothing is adopted meanwhile.
        assert_eq!(crate::harness::device::verdict(&server, &device, &fleet).await, "external_status_stale");
        assert_eq!(outcome(&server, &fleet, ca.device("pump-z").leaf()).await, "external_status_stale");
        stays.echo().await.unwrap();
        assert_eq!(server.owner().get(&format!("{}/silo", authorities(&other))).await.is(200).json()["state"], "active");
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "external_status_stale")]).await >= 1.0);
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        gateway.says("allowed", &device, 10).await;
        gateway.dial(&device).await.unwrap();
    });
}

#[test]
fn a_device_moves_over_to_a_certificate_of_ours() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-moves");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        create(&server, &fleet, &ca, by_list(&url)).await;
        let (device, stranger) = (ca.device("pump-a"), ca.device("pump-b"));
        let path = format!("/v1/fleets/{fleet}/enroll");
        let (port, trust) = (server.device_port, server.trust());
        let open = async |identity: Identity| Connection::open(port, &trust, Some(&identity)).await.unwrap();
        let body = |key: &Key| json!({"csr": key.csr()});
        let key = Key::new();
        open(device.clone()).await.post(&path, &body(&key)).await.unwrap().refused(403, "external_unknown");
        adopt(&server, &fleet, &device).await;
        open(stranger).await.post(&path, &body(&key)).await.unwrap().refused(403, "external_unknown");
        assert_eq!(crate::harness::device::verdict(&server, &device, &fleet).await, "ok");
        let elsewhere = server.fleet(json!({})).await;
        let mut connection = open(device.clone()).await;
        connection.post(&format!("/v1/fleets/{elsewhere}/enroll"), &body(&key)).await.unwrap().refused(403, "wrong_fleet");
        let named = json!({"csr": key.csr(), "device": "pump-x"});
        connection.post(&path, &named).await.unwrap().refused(403, "name_not_allowed");
        let same_key = json!({"csr": ca.file("pump-a.csr")});
        connection.post(&path, &same_key).await.unwrap().refused(409, "key_reused");

        let answer = connection.post(&path, &body(&key)).await.unwrap().is(200).json();
        assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/pump-a"));
        let again = connection.post(&path, &body(&key)).await.unwrap().is(200).json();
        assert_eq!((&again["certificate"], &again["replayed"]), (&answer["certificate"], &json!(true)));
        let ours = key.identity(&answer);
        let gateway = Gateway::start(&server, "gw-silo-moves", &[&fleet]).await;
        gateway.says("allowed", &device, 5).await;
        let live = gateway.dial(&device).await.unwrap();
        open(ours.clone()).await.request("POST", &format!("/v1/fleets/{fleet}/confirm"), &[], b"").await.unwrap().is(200);
        live.ends().await;
        gateway.says("superseded", &device, 5).await;
        gateway.says("allowed", &ours, 5).await;
        gateway.dial(&ours).await.unwrap();
        assert_eq!(standings(&server, &fleet, &device).await, ["superseded", "superseded", "good"]);
        connection.post(&path, &body(&Key::new())).await.unwrap().refused(403, "superseded");
        // The other authority cannot take the device back.
        let next = ca.issue("again", "/O=Silo/CN=pump-a", "leaf");
        assert_eq!(outcome(&server, &fleet, next.leaf()).await, "external_name_taken");
        // Nor does its word about the old certificate change anything of the new one.
        ca.revoke("pump-a", "superseded");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        gateway.says("revoked", &device, 5).await;
        gateway.dial(&ours).await.unwrap();
    });
}

#[test]
fn holds_of_both_sides_are_lifted_each_by_its_own() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-holds");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        create(&server, &fleet, &ca, by_list(&url)).await;
        let device = ca.device("pump-a");
        adopt(&server, &fleet, &device).await;
        let foreign = |held: bool| {
            if held {
                ca.revoke("pump-a", "certificateHold");
            } else {
                ca.forgive();
            }
            list.is(ca.list(3_600));
        };
        let is = |expected: [&'static str; 3]| {
            let (server, fleet, device) = (&server, fleet.clone(), device.clone());
            async move { assert_eq!(standings(server, &fleet, &device).await, expected) }
        };
        foreign(true);
        check(&server, &fleet).await;
        is(["held", "good", "held"]).await;
        // A hold of ours beside theirs changes nothing to be seen, and is kept.
        act(&server, &fleet, &device, "hold").await;
        is(["held", "held", "held"]).await;
        foreign(false);
        check(&server, &fleet).await;
        is(["held", "held", "good"]).await;
        foreign(true);
        check(&server, &fleet).await;
        let released = act(&server, &fleet, &device, "release").await;
        is(["held", "good", "held"]).await;
        assert_eq!(released["certificates"][0]["standing"], "held", "{released}");
        foreign(false);
        check(&server, &fleet).await;
        is(["good", "good", "good"]).await;
        // By the device's name as by the certificate.
        let path = format!("/v1/fleets/{fleet}/devices/pump-a/hold");
        server.owner().post(&path, &json!({})).await.is(200);
        is(["held", "held", "good"]).await;
        let (verified, told) = verify(&server, &fleet);
        assert!(verified, "{told}");
    });
}

#[test]
fn lists_that_cannot_be_used_are_told_and_the_last_one_counts() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (ca, other) = (ForeignCa::new(&server, "silo-lists"), ForeignCa::new(&server, "silo-lists-other"));
        let (list, url) = serve();
        let made = create(&server, &fleet, &ca, by_list(&url)).await;
        assert_eq!(made["state"], "stale", "{made}");
        let first = ca.list(3_600);
        list.is(first.clone());
        let shown = check(&server, &fleet).await;
        assert_eq!((&shown["state"], &shown["lists"][0]["number"]), (&json!("active"), &json!("1000")), "{shown}");
        let device = ca.device("pump-a");
        adopt(&server, &fleet, &device).await;
        let before = list.asked();
        check(&server, &fleet).await;
        assert!(list.asked().1 > before.1, "an unchanged list was fetched again");
        assert_eq!(list.asked().0, before.0);
        ca.revoke("pump-a", "cessationOfOperation");
        let second = ca.list(3_600);
        for (octets, why) in [
            (other.list(3_600), "issuer"),
            (b"nothing".to_vec(), "no revocation list"),
            ([second.clone(), vec![b'x'; 33 * 1024 * 1024]].concat(), "more than"),
        ] {
            list.is(octets);
            let shown = check(&server, &fleet).await;
            assert!(shown["failures"][0]["what"].as_str().unwrap().contains(why), "{why}: {shown}");
            assert_eq!(shown["state"], "active", "the last list holds");
            assert_eq!(standings(&server, &fleet, &device).await[0], "good");
        }
        list.is(second);
        let shown = check(&server, &fleet).await;
        assert_eq!((&shown["failures"], &shown["lists"][0]["number"]), (&json!([]), &json!("1001")), "{shown}");
        assert_eq!(standings(&server, &fleet, &device).await[0], "revoked");
        list.is(first);
        let shown = check(&server, &fleet).await;
        assert!(shown["failures"].to_string().contains("goes back"), "{shown}");
    });
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (ca, other) = (ForeignCa::new(&server, "silo-refuses"), ForeignCa::new(&server, "silo-refuses-other"));
        let (list, url) = serve();
        list.is(ca.list(3_600));
        let mut rules = by_list(&url);
        rules["naming"] = json!({"from": "common-name", "strip_prefix": "unit ", "prefix": "u-"});
        rules["usages"] = json!(["1.3.6.1.5.5.7.3.2"]);
        create(&server, &fleet, &ca, rules.clone()).await;
        let taken = json!({"name": "other", "ca": ca.ca_pem()});
        server
            .owner()
            .post(&authorities(&server.fleet(json!({})).await), &taken)
            .await
            .refused(409, "external_authority_taken");
        let good = ca.issue("good", "/CN=unit 7", "leaf");
        adopt(&server, &fleet, &good).await;
        let revoked = ca.issue("revoked", "/CN=unit 8", "leaf");
        ca.revoke("revoked", "keyCompromise");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        server.owner().post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": "u-ours"})).await.is(201);
        let held = crate::harness::Device::good(&server, &fleet, "u-mine").await;
        let blocked = ca.issue("blocked", "/CN=unit 9", "leaf");
        let spki = openssl(&["x509", "-pubkey", "-noout"], pem("CERTIFICATE", blocked.leaf()).as_bytes()).1;
        let spki: String = spki.lines().filter(|line| !line.starts_with("-----")).collect();
        let spki = STANDARD.decode(spki).unwrap();
        server.owner().post("/v1/blocked-keys", &json!({"keys": [sha256(&spki)]})).await.is(200);
        for (what, certificate, expected) in [
            ("again", good.clone(), "known"),
            ("registered before, without a certificate", ca.issue("ours", "/CN=unit ours", "leaf"), "adopted"),
            ("another CA's", other.issue("x", "/CN=unit 1", "leaf"), "certificate_foreign"),
            ("no such value", ca.issue("nothing", "/CN=7", "leaf"), "external_name_missing"),
            ("no name", ca.issue("noname", "/CN=unit a b", "leaf"), "invalid_name"),
            ("no usage", ca.issue("bare", "/CN=unit 2", "bare"), "external_usage"),
            ("a server's", ca.issue("server", "/CN=unit 3", "server"), "wrong_kind"),
            ("on the list", revoked, "revoked"),
            ("of a device with a certificate of ours", ca.issue("mine", "/CN=unit mine", "leaf"), "external_name_taken"),
            ("differs in case", ca.issue("case", "/CN=unit OURS", "leaf"), "name_taken"),
            ("a blocked key", blocked, "key_blocked"),
            ("one of ours", held.identity.clone(), "external_name_missing"),
        ] {
            assert_eq!(outcome(&server, &fleet, certificate.leaf()).await, expected, "{what}");
        }
        // Renewed by the other authority for the same key: both count.
        let renewed = ca.certify("good", "renewed.pem", "leaf");
        adopt(&server, &fleet, &renewed).await;
        assert_eq!(standings(&server, &fleet, &good).await[0], "good");
        let media = [("content-type", "application/x-pem-file")];
        let path = format!("{}?authority=silo", certificates(&fleet));
        server.owner().send("POST", &path, &media, Some(b"no PEM".to_vec())).await.refused(400, "malformed_request");
        server.owner().post(&path, &json!({})).await.refused(415, "media_type_not_supported");
        let nobody = format!("{}?authority=nobody", certificates(&fleet));
        server.owner().send("POST", &nobody, &media, Some(Vec::new())).await.refused(404, "not_found");
        // Rules change, names do not.
        let one = format!("{}/silo", authorities(&fleet));
        rules["naming"]["prefix"] = "v-".into();
        server.owner().post_as("PUT", &one, &json!({"rules": rules})).await.refused(409, "transition_not_allowed");
        rules["naming"]["prefix"] = "u-".into();
        rules["usages"] = json!([]);
        server.owner().post_as("PUT", &one, &json!({"rules": rules})).await.is(200);
        assert_eq!(outcome(&server, &fleet, ca.issue("later", "/CN=unit 4", "bare").leaf()).await, "adopted");
        for url in ["https://crl.example/", "file:///etc/passwd", "http://user:pw@crl.example/"] {
            let bad = json!({"name": "bad", "ca": other.ca_pem(), "rules": by_list(url)});
            server.owner().post(&authorities(&fleet), &bad).await.refused(422, "invalid_value");
        }
    });
}

#[test]
fn a_disabled_authority_lets_nobody_in_and_an_ended_one_never_again() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-ends");
        create(&server, &fleet, &ca, json!({})).await;
        let device = ca.device("pump-a");
        adopt(&server, &fleet, &device).await;
        let mut gateway = Gateway::start(&server, "gw-silo-ends", &[&fleet]).await;
        gateway.says("allowed", &device, 5).await;
        let live = gateway.dial(&device).await.unwrap();
        let one = format!("{}/silo", authorities(&fleet));
        let switch =
            async |word: &str| server.owner().post(&format!("{one}/{word}"), &json!({"note": "drill"})).await.is(200).json();
        let disabled = switch("disable").await;
        assert_eq!(disabled["state"], "disabled");
        live.ends().await;
        gateway.says("external_disabled", &device, 5).await;
        assert!(!gateway.admits(&device).await);
        // On disk too.
        gateway.stop();
        gateway.begin().await;
        gateway.says("external_disabled", &device, 10).await;
        switch("enable").await;
        gateway.says("allowed", &device, 10).await;
        let live = gateway.dial(&device).await.unwrap();
        switch("end").await;
        live.ends().await;
        server.owner().post(&format!("{one}/enable"), &json!({})).await.refused(409, "transition_not_allowed");
        gateway.says("external_disabled", &device, 5).await;
        let (verified, told) = verify(&server, &fleet);
        assert!(verified, "{told}");
        // Its CA certificate is free for another one.
        let again = json!({"name": "silo-2", "ca": ca.ca_pem()});
        server.owner().post(&authorities(&fleet), &again).await.is(201);
    });
}

/// openssl as a responder, until it is dropped.
struct Responder(Child);

impl Drop for Responder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Responder {
    /// `minutes`: for how long its answers hold.
    async fn start(ca: &ForeignCa, signer: &str, port: u16, minutes: u32) -> Self {
        let file = |name: &str| ca.directory.join(name).display().to_string();
        let log = ca.directory.join("responder.log");
        let child = Command::new("openssl")
            .args(["ocsp", "-port", &port.to_string(), "-nmin", &minutes.to_string(), "-index", &file("index")])
            .args([
                "-CA",
                &file("ca.pem"),
                "-rsigner",
                &file(&format!("{signer}.pem")),
                "-rkey",
                &file(&format!("{signer}.key")),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let responder = Self(child);
        // A connection without a question would keep it from answering any other.
        until("the responder", 10, || async { fs::read_to_string(&log).ok().filter(|log| log.contains("waiting")) }).await;
        responder
    }
}

#[test]
fn an_ocsp_responder_is_asked_about_each_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-ocsp");
        ca.issue("responder", "/CN=responder", "responder");
        ca.issue("impostor", "/CN=impostor", "leaf");
        let (a, b) = (ca.device("pump-a"), ca.device("pump-b"));
        let port = free_port();
        let rules = json!({"status": {"kind": "ocsp", "url": format!("http://127.0.0.1:{port}/"), "nonce": true}});
        create(&server, &fleet, &ca, rules).await;
        assert_eq!(outcome(&server, &fleet, a.leaf()).await, "external_status_stale", "nobody answered for it");
        {
            let _impostor = Responder::start(&ca, "impostor", port, 60).await;
            assert_eq!(
                outcome(&server, &fleet, a.leaf()).await,
                "external_status_stale",
                "signed by whom it does not delegate to"
            );
        }
        {
            let _responder = Responder::start(&ca, "responder", port, 60).await;
            adopt(&server, &fleet, &a).await;
            adopt(&server, &fleet, &b).await;
            ca.revoke("pump-b", "keyCompromise");
        }
        // The responder reads its index when it starts.
        let responder = Responder::start(&ca, "responder", port, 60).await;
        let shown = check(&server, &fleet).await;
        assert_eq!((&shown["state"], &shown["failures"]), (&json!("active"), &json!([])), "{shown}");
        assert_eq!(standings(&server, &fleet, &a).await, ["good", "good", "good"]);
        assert_eq!(standings(&server, &fleet, &b).await, ["revoked", "good", "revoked"]);
        drop(responder);
        // What was said last holds until its end.
        let shown = check(&server, &fleet).await;
        assert_eq!(shown["failures"].as_array().map(Vec::len), Some(1), "{shown}");
        assert_eq!(standings(&server, &fleet, &a).await[0], "good");
    });
}

#[test]
fn what_is_held_for_want_of_an_answer_is_let_in_by_whoever_goes_on_without() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-unanswered");
        ca.issue("responder", "/CN=responder", "responder");
        let (unanswered, held) = (ca.device("pump-a"), ca.device("pump-b"));
        let port = free_port();
        let status = json!({"kind": "ocsp", "url": format!("http://127.0.0.1:{port}/"), "nonce": true});
        let path = format!("{}/silo", authorities(&fleet));
        let change = async |rules: Value| {
            server.owner().post_as("PUT", &path, &json!({"rules": rules})).await.is(200);
        };
        create(&server, &fleet, &ca, json!({})).await;
        adopt(&server, &fleet, &unanswered).await;
        adopt(&server, &fleet, &held).await;
        ca.revoke("pump-b", "certificateHold");
        {
            let _responder = Responder::start(&ca, "responder", port, 60).await;
            change(json!({"status": status})).await;
        }
        let is = async |expected: [&str; 3]| {
            assert_eq!(standings(&server, &fleet, &unanswered).await, expected);
            assert_eq!(standings(&server, &fleet, &held).await, ["held", "good", "held"], "its authority holds it");
        };
        is(["good", "good", "good"]).await;
        for device in [&unanswered, &held] {
            let place = format!("fingerprint = x'{}'", sha256(device.leaf()));
            sql(&server, &format!("UPDATE external_certificates SET next_update = 1 WHERE {place}"));
        }
        check(&server, &fleet).await;
        is(["held", "good", "held"]).await;
        change(json!({"status": status, "on_stale": "go-on"})).await;
        is(["good", "good", "good"]).await;
        change(json!({"status": status})).await;
        is(["held", "good", "held"]).await;
        // Nor is it held where nobody is asked any more.
        change(json!({})).await;
        is(["good", "good", "good"]).await;
    });
}
