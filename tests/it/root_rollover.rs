//! Roots whose keys are elsewhere are replaced: nothing but files goes between the server and the roots' machines, and openssl judges.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::authorities::{Agent, KINDS, act, active, audit, ca, read_bundles, s_client, states};
use crate::ceremony::{Ceremony, ROOTS, SERVERS, fleetmark, judged};
use crate::harness::device::sha256;
use crate::harness::forge::Maker;
use crate::harness::openssl::{openssl, pem};
use crate::harness::server::text;
use crate::harness::{Device, Server, run, shared, until};

/// A root's machine.
pub struct Safe {
    dir: PathBuf,
}

impl Safe {
    pub fn new(server: &Server, name: &str) -> Self {
        Self { dir: server.scratch(name).join("root") }
    }

    pub fn does(&self, command: &str, more: &[&str]) -> (i32, String) {
        let dir = self.dir.display().to_string();
        let who = ["root", command, "--dir", &dir, "--by", "Ada Lovelace", "--witness", "Grace Hopper"];
        fleetmark(&[&who[..], more].concat(), ROOTS, "")
    }

    /// Its fingerprint, by openssl.
    pub fn fingerprint(&self) -> String {
        let (good, said) = openssl(&["x509", "-in", &self.certificate(), "-noout", "-fingerprint", "-sha256"], b"");
        assert!(good, "{said}");
        said.trim().split('=').next_back().unwrap().replace(':', "").to_lowercase()
    }

    pub fn certificate(&self) -> String {
        self.dir.join("root.pem").display().to_string()
    }
}

fn waiting(server: &Server) -> Vec<String> {
    let asked = run(server.owner().get("/v1/root/requests")).is(200).json();
    let items = asked["items"].as_array().unwrap();
    items.iter().filter(|item| item["state"] == "waiting").map(|item| text(item, "id")).collect()
}

/// `root request`, `root sign` on the machine, `root accept`; what the request asked for.
fn asked_and_answered(ceremony: &Ceremony, safe: &Safe, more: &[&str], name: &str) -> Value {
    let (request, answer) = (ceremony.scratch(&format!("{name}-request.json")), ceremony.scratch(&format!("{name}.json")));
    let (code, said) = ceremony.operator(&[&["root", "request", "--out", &request], more].concat());
    assert_eq!(code, 0, "{name}: {said}");
    let (code, said) = safe.does("sign", &[&request, "--out", &answer, "--yes"]);
    assert_eq!(code, 0, "{name}: {said}");
    let (code, said) = ceremony.operator(&["root", "accept", &answer]);
    assert_eq!(code, 0, "{name}: {said}");
    Ceremony::read(&request)
}

/// A prepared root's id, once it was asked for; what the command said.
fn planned(ceremony: &Ceremony) -> String {
    let ids = waiting(&ceremony.server);
    let id = ids.iter().find_map(|id| id.strip_prefix("root-")).unwrap_or_else(|| panic!("{ids:?}"));
    id.split('-').next().unwrap().to_owned()
}

/// Makes the new root on its machine by the server's request, and brings the answer.
fn made(ceremony: &Ceremony, safe: &Safe, id: &str) -> String {
    let (request, answer) = (ceremony.scratch("new-root-request.json"), ceremony.scratch("new-root.json"));
    let (code, said) = ceremony.operator(&["root", "request", "--root", id, "--out", &request]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = safe.does("create", &["--request", &request, "--out", &answer, "--yes", "--digest", &"0".repeat(64)]);
    assert!(code == 1 && said.contains("request_changed"), "{said}");
    let digest = sha256(&fs::read(&request).unwrap());
    let (code, said) = safe.does("create", &["--request", &request, "--out", &answer, "--yes", "--digest", &digest]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("act: root made") && said.contains(&format!("request: {digest}")), "{said}");
    let (code, said) = ceremony.operator(&["root", "accept", &answer]);
    assert!(code == 1 && said.contains("root_answer_foreign") && said.contains("--root-fingerprint"), "{said}");
    let (code, said) = ceremony.operator(&["root", "accept", &answer, "--root-fingerprint", &"ab".repeat(32)]);
    assert!(code == 1 && said.contains("root_answer_foreign"), "{said}");
    let (code, said) = ceremony.operator(&["root", "accept", &answer, "--root-fingerprint", &safe.fingerprint()]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = ceremony.operator(&["root", "accept", &answer, "--root-fingerprint", &safe.fingerprint()]);
    assert!(code == 1 && said.contains("root_answer_foreign"), "again: {said}");
    safe.fingerprint()
}

/// Successors for all kinds and the first fleet, certified by the root's ceremony.
fn successors(ceremony: &Ceremony, safe: &Safe, name: &str) {
    let wanted: Vec<Vec<&str>> = KINDS
        .iter()
        .map(|kind| vec!["authority", "prepare", kind])
        .chain([vec!["authority", "prepare", "device", "--fleet", "default"]])
        .collect();
    for words in &wanted {
        let (code, said) = ceremony.operator(words);
        assert!(code == 1 && said.contains("waits_for_root"), "{words:?}: {said}");
    }
    let asked = asked_and_answered(ceremony, safe, &[], name);
    assert_eq!(asked["authorities"].as_array().unwrap().len(), wanted.len(), "{asked}");
    for words in &wanted {
        let (code, said) = ceremony.operator(&[&["--json"], &words[..]].concat());
        assert_eq!(code, 0, "{words:?}: {said}");
        let id = serde_json::from_str::<Value>(&said).unwrap()["id"].to_string();
        let (code, said) = ceremony.operator(&["authority", "activate", &id]);
        assert_eq!(code, 0, "{words:?}: {said}");
    }
}

fn root_states(bundle: &Value) -> Vec<String> {
    bundle["roots"].as_array().unwrap().iter().map(|root| text(root, "state")).collect()
}

fn der_of(path: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(&fs::read(path).unwrap()).unwrap().1.contents
}

#[test]
fn a_root_elsewhere_is_replaced_by_another_root_elsewhere() {
    let mut ceremony = Ceremony::whole();
    let old = Safe { dir: ceremony.root.clone() };
    let new = Safe::new(&ceremony.server, "new-safe");
    let old_der = der_of(&old.certificate());
    let old_pem = PathBuf::from(old.certificate());
    let agent = |name: &str| {
        let agent = Agent::new(&ceremony.server, name);
        agent.enroll(&ceremony.server, "default", &run(ceremony.server.token("default", name)), &sha256(&old_der));
        agent
    };
    // One that follows in time, and one that lies in a drawer till the old root is gone: both know the old root alone.
    let (drawer, late) = (agent("drawer"), agent("late"));
    let device = run(Device::good(&ceremony.server, "default", "plain"));

    // Prepared: the new root's own answer, then the old one's.
    let (code, said) = ceremony.operator(&["authority", "prepare", "root"]);
    assert!(code == 1 && said.contains("waits_for_root") && said.contains("root create"), "{said}");
    let id = planned(&ceremony);
    let new_pin = made(&ceremony, &new, &id);
    let (code, said) = ceremony.operator(&["authority", "prepare", "root"]);
    assert!(code == 1 && said.contains("waits_for_root"), "{said}");
    assert_eq!(waiting(&ceremony.server), [format!("root-{id}-by-1"), "trust-bundle-by-1".to_owned()]);
    let asked = asked_and_answered(&ceremony, &old, &[], "old-1");
    assert_eq!(
        (asked["roots"].as_array().unwrap().len(), asked["bundle"]["roots"].as_array().unwrap().len()),
        (1, 2),
        "{asked}"
    );
    let (code, said) = ceremony.operator(&["authority", "prepare", "root"]);
    assert_eq!(code, 0, "{said}");
    assert!(waiting(&ceremony.server).is_empty());
    let record = fs::read_to_string(old.dir.join("records/0003.txt")).unwrap();
    assert!(record.contains("\nbundle: ") && record.contains(&format!("key of the root {new_pin}")), "{record}");

    let server = &ceremony.server;
    let (new_der, new_pem) = (der_of(&new.certificate()), PathBuf::from(new.certificate()));
    let (_, subjects) = openssl(&["x509", "-noout", "-subject", "-in", &new.certificate()], b"");
    assert!(subjects.contains("fleet.test root 2"), "a root has a name of its own: {subjects}");
    run(async {
        assert_eq!(ca(server, &format!("{id}.crt")).await, new_der);
        until("the new root's word in the doors' chain", 20, || async { s_client(server, &new_pem).0.then_some(()) }).await;
        assert!(s_client(server, &old_pem).0);
        // RFC 7030 4.1.3: OldWithOld, NewWithNew, and each one's key by the other.
        let held = server.device_client(None).get("/.well-known/est/default/cacerts").await.is(200).text();
        let packed: String = held.split_ascii_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
        let (_, listed) = openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &der);
        let of = |subject: &str, issuer: &str| {
            let blocks: Vec<_> = listed.split("subject=").filter(|block| block.contains("issuer=")).collect();
            blocks.iter().any(|block| {
                let (by, whose) = (block.split("issuer=").nth(1).unwrap(), block.split("issuer=").next().unwrap());
                whose.trim_end().ends_with(subject) && by.lines().next().unwrap().trim_end().ends_with(issuer)
            })
        };
        let (old_name, new_name) = ("CN = fleet.test root", "CN = fleet.test root 2");
        for (subject, issuer) in [(old_name, old_name), (new_name, new_name), (old_name, new_name), (new_name, old_name)] {
            assert!(of(subject, issuer), "{subject} by {issuer}: {listed}");
        }
        fetched(server);
        let stranger = server.write_scratch("stranger.pem", Maker::new("x").root_pem().as_bytes());
        assert!(!s_client(server, &stranger).0);
        for (from, trusted) in [(&old_der, &old_pem), (&new_der, &new_pem)] {
            let said = read_bundles(server, from, trusted).await;
            assert_eq!(root_states(said.last().unwrap()), ["active", "prepared"]);
        }
    });

    // Activated: at once; the bundle that tells of it waits for the new root's word.
    let (code, said) = ceremony.operator(&["authority", "activate", &id]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(waiting(server), [format!("trust-bundle-by-{id}")]);
    successors(&ceremony, &new, "new-1");
    assert!(waiting(server).is_empty());
    run(async {
        assert_eq!(states(server, "root", None).await, [(1, "tainted".into()), (id.parse().unwrap(), "active".into())]);
        let said = read_bundles(server, &old_der, &old_pem).await;
        assert_eq!(root_states(said.last().unwrap()), ["tainted", "active"]);
        until("the doors' certificate under the new root", 20, || async {
            let (done, said) = s_client(server, &new_pem);
            (done && said.contains("service authority 2")).then_some(())
        })
        .await;
        assert!(s_client(server, &old_pem).0, "who knows the old root alone finds the way");
    });

    // A device that knows the old root alone: it verifies the doors' new certificate, gets the bundles, and one of the new ones itself.
    assert_eq!(drawer.does(&["renew", "--force"])["outcome"], "renewed");
    drawer.does(&["trust", "update"]);
    assert!(drawer.roots().contains(&pem("CERTIFICATE", &new_der)));
    let moved = run(device.renew(server));
    run(async { moved.confirm(server).await.is(200) });
    let (good, said) = run(judged(server, &moved));
    assert!(good, "{said}");
    let (known_old, said) = verified_by(server, &old_pem, &moved);
    assert!(known_old, "by the new root's key under the old one: {said}");
    fetched(server);
    for holder in [&device, &moved] {
        let (good, said) = judged_by_fetched(server, holder);
        assert!(good, "{said}");
    }

    revoke_all(&mut ceremony, &old, &new, &id);

    let server = &ceremony.server;
    run(async {
        let said = read_bundles(server, &old_der, &old_pem).await;
        let newest = said.last().unwrap();
        assert_eq!(
            (root_states(newest), &newest["revoked"][0]["fingerprint"]),
            (vec!["active".into()], &json!(sha256(&old_der)))
        );
        until("the doors without the old root", 20, || async { (!s_client(server, &old_pem).0).then_some(()) }).await;
    });
    fetched(server);
    assert!(judged_by_fetched(server, &moved).0 && !judged_by_fetched(server, &device).0);
    // The old root is nobody here any more.
    let out = ceremony.scratch("old-last.json");
    let (code, said) = old.does("crl", &["--out", &out]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = ceremony.operator(&["root", "accept", &out]);
    assert!(code == 1 && said.contains("root_answer_foreign"), "{said}");
    assert!(run(device.verdict(server)).starts_with("handshake"), "what hangs from the old root is refused");
    assert_eq!(run(moved.verdict(server)), "ok");
    drawer.does(&["trust", "update"]);
    assert!(!drawer.roots().contains(&pem("CERTIFICATE", &old_der)));
    // Out of the drawer: by the old root's word to the new one's; its certificate is not taken any more.
    let (code, said) = late.run(&["renew", "--force"]);
    assert_eq!((code, &said["code"]), (3, &json!("certificate_not_taken")), "{said}");
    assert_eq!(late.roots(), pem("CERTIFICATE", &new_der));
    let again = late.does(&["enroll", "--replace", "--token", &run(server.token("default", "late"))]);
    assert_eq!(again["outcome"], "enrolled", "{again}");
    for safe in [&old, &new] {
        let (code, said) = fleetmark(&["root", "verify", "--dir", &safe.dir.display().to_string()], ROOTS, "");
        assert_eq!(code, 0, "{said}");
    }
    audit(server, "system");
    audit(server, "default");
    ceremony.server.restart();
}

/// `openssl verify` by what goes with the certificate, trusting this root alone.
fn verified_by(server: &Server, root: &Path, device: &Device) -> (bool, String) {
    let chain = server.write_scratch("moved-chain.pem", text(&device.answer, "chain").as_bytes());
    let leaf = server.write_scratch("moved.pem", text(&device.answer, "certificate").as_bytes());
    let [root, chain, leaf] = [root, &chain, &leaf].map(|path| path.display().to_string());
    openssl(&["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &chain, &leaf], b"")
}

/// The old root's authorities, then the old root.
fn revoke_all(ceremony: &mut Ceremony, old: &Safe, new: &Safe, id: &str) {
    let (code, said) = ceremony.operator(&["operator", "renew"]);
    assert_eq!(code, 0, "{said}");
    ceremony.server.forget_owner();
    let server = &ceremony.server;
    run(async {
        for (kind, fleet) in KINDS.iter().map(|kind| (*kind, None)).chain([("device", Some("default"))]) {
            let (id, state) = states(server, kind, fleet).await.remove(0);
            assert_eq!(state, "tainted", "{kind}");
            act(server, id, "revoke", json!({"force": true})).await;
        }
    });
    // They go on the old root's last list.
    let asked = asked_and_answered(ceremony, old, &["--root", "1"], "old-2");
    assert_eq!(asked["revoke"].as_array().unwrap().len(), 4, "{asked}");
    let (code, said) = ceremony.operator(&["authority", "revoke", "1", "--reason", "superseded"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(waiting(&ceremony.server), [format!("trust-bundle-by-{id}")]);
    // With the new root's word for the bundle, the old root's key by it goes on its list.
    let asked = asked_and_answered(ceremony, new, &[], "new-2");
    assert_eq!(asked["revoke"].as_array().unwrap().len(), 1, "{asked}");
}

#[test]
fn a_root_moves_elsewhere_and_back_by_the_same_path() {
    let mut server = Server::laid_out("up", &[], &[SERVERS]);
    server.start_again();
    let root = server.scratch("unused");
    let ceremony = Ceremony { server, root };
    let server = &ceremony.server;
    let first = run(active(server, "root", None));
    let old_pem = server.write_scratch("old.pem", pem("CERTIFICATE", &server.root()).as_bytes());
    let safe = Safe::new(server, "safe");

    let (code, said) = ceremony.operator(&["authority", "prepare", "root", "--key", "elsewhere"]);
    assert!(code == 1 && said.contains("waits_for_root"), "{said}");
    let elsewhere = planned(&ceremony);
    made(&ceremony, &safe, &elsewhere);
    assert!(waiting(server).is_empty(), "the old root's key is here");
    let (code, said) = ceremony.operator(&["authority", "prepare", "root"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(ceremony.operator(&["authority", "activate", &elsewhere]).0, 0);
    successors(&ceremony, &safe, "first");
    let device = run(Device::good(server, "default", "a"));
    let (good, said) = run(judged(server, &device));
    assert!(good, "{said}");
    assert!(verified_by(server, &old_pem, &device).0);

    // Back: the new root's key is here, and the one before it is asked.
    let (code, said) = ceremony.operator(&["authority", "prepare", "root", "--key", "here"]);
    assert!(code == 1 && said.contains("waits_for_root"), "{said}");
    let back = planned(&ceremony);
    asked_and_answered(&ceremony, &safe, &[], "second");
    let (code, said) = ceremony.operator(&["authority", "prepare", "root"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(ceremony.operator(&["authority", "activate", &back]).0, 0);
    assert!(waiting(server).is_empty(), "its key is here");
    run(async {
        let states = states(server, "root", None).await;
        assert_eq!(
            states,
            [
                (first, "tainted".to_owned()),
                (elsewhere.parse().unwrap(), "tainted".to_owned()),
                (back.parse().unwrap(), "active".to_owned())
            ]
        );
        let fleet = crate::authorities::replace(server, "device", Some("default")).await;
        let device = Device::good(server, "default", "b").await;
        assert_eq!(crate::authorities::authority_of(server, &device).await, fleet);
        let (good, said) = judged(server, &device).await;
        assert!(good, "{said}");
    });
}

/// Makes a root by openssl, with its list and a certificate under it; the names of the files.
fn made_by_openssl(server: &Server, directory: &str, name: &str) -> [PathBuf; 3] {
    let dir = server.scratch(directory);
    fs::create_dir_all(&dir).unwrap();
    let path = |file: &str| dir.join(file).display().to_string();
    fs::write(path("index.txt"), "").unwrap();
    fs::write(path("number"), "01\n").unwrap();
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/index.txt\ncrlnumber={0}/number\ndefault_md=sha256\ndefault_crl_days=30\n\
         crl_extensions=x\n[x]\nauthorityKeyIdentifier=keyid\n",
        dir.display()
    );
    fs::write(path("ca.conf"), config).unwrap();
    let does = |arguments: &[&str]| {
        let (good, said) = openssl(arguments, b"");
        assert!(good, "{arguments:?}: {said}");
    };
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let subject = format!("/O=fleet.test/CN={name}");
    let root = ["req", "-x509", "-days", "30", "-subj", &subject, "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    does(&[&root[..], &new_key, &["-keyout", &path("root.key"), "-out", &path("root.pem")]].concat());
    does(
        &[&["req", "-new", "-subj", "/CN=leaf"][..], &new_key, &["-keyout", &path("leaf.key"), "-out", &path("leaf.csr")]]
            .concat(),
    );
    fs::write(path("leaf.conf"), "authorityKeyIdentifier=keyid\n").unwrap();
    let (csr, ca, key) = (path("leaf.csr"), path("root.pem"), path("root.key"));
    let signs = ["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &key, "-days", "20", "-CAcreateserial"];
    does(&[&signs[..], &["-extfile", &path("leaf.conf"), "-out", &path("leaf.pem")]].concat());
    does(&[
        "ca",
        "-config",
        &path("ca.conf"),
        "-gencrl",
        "-keyfile",
        &path("root.key"),
        "-cert",
        &path("root.pem"),
        "-out",
        &path("crl.pem"),
    ]);
    ["root.pem", "crl.pem", "leaf.pem"].map(|file| dir.join(file))
}

#[test]
fn two_roots_of_one_name_are_too_many_for_mbedtls_and_of_two_names_are_not() {
    let server = shared();
    let program = crate::lists::client(&server, "mbedtls_crl", &["-lmbedx509", "-lmbedcrypto"]);
    let judged = |names: [&str; 2], directory: &str| {
        let made: Vec<_> =
            names.iter().enumerate().map(|(at, name)| made_by_openssl(&server, &format!("{directory}-{at}"), name)).collect();
        let joined = |which: usize, name: &str| {
            let parts: Vec<_> = made.iter().map(|files| fs::read(&files[which]).unwrap()).collect();
            server.write_scratch(&format!("{directory}-{name}"), &parts.concat()).display().to_string()
        };
        let (roots, lists) = (joined(0, "roots.pem"), joined(1, "lists.pem"));
        let verdicts = made.iter().map(|files| {
            let leaf = files[2].display().to_string();
            let (good, said) = openssl(&["verify", "-crl_check_all", "-CAfile", &roots, "-CRLfile", &lists, &leaf], b"");
            assert!(good, "openssl looks at the key identifier too: {said}");
            crate::lists::ran(program.to_str().unwrap(), &[&roots, &lists, &leaf]).0
        });
        verdicts.collect::<Vec<_>>()
    };
    // It takes the first list with the issuer's name for the issuer's, and refuses what is good (MBEDTLS_X509_BADCRL_NOT_TRUSTED).
    assert!(judged(["fleet.test root", "fleet.test root"], "one-name").contains(&3));
    assert_eq!(judged(["fleet.test root", "fleet.test root 2"], "two-names"), [0, 0]);
}

#[test]
fn mbedtls_reads_the_lists_of_both_roots() {
    let server = Server::start(&[]);
    run(async {
        let before = Device::good(&server, "default", "before").await;
        crate::authorities::replace(&server, "root", None).await;
        crate::authorities::replace(&server, "device", Some("default")).await;
        let after = Device::good(&server, "default", "after").await;
        let program = crate::lists::client(&server, "mbedtls_crl", &["-lmbedx509", "-lmbedcrypto"]);
        let roots = states(&server, "root", None).await;
        let devices = states(&server, "device", Some("default")).await;
        let mut files = [Vec::new(), Vec::new()];
        for (id, _) in roots.iter().chain(&devices) {
            for (file, path) in files.iter_mut().zip([format!("/ca/{id}.pem"), format!("/crl/{id}.pem")]) {
                file.extend(server.public_client().get(&path).await.is(200).body);
            }
        }
        let authorities = server.write_scratch("both.pem", &files[0]).display().to_string();
        let lists = server.write_scratch("both-lists.pem", &files[1]).display().to_string();
        for device in [&before, &after] {
            let leaf = server.write_scratch("leaf.pem", text(&device.answer, "certificate").as_bytes()).display().to_string();
            let (code, said) = crate::lists::ran(program.to_str().unwrap(), &[&authorities, &lists, &leaf]);
            assert_eq!(code, 0, "{said}");
        }
    });
}

/// Runs the lines of docs/standing.md that fetch lists, as they stand there, in this directory.
fn runs_the_pages_lines(directory: &Path, public: &str) -> (bool, String) {
    let page = include_str!("../../docs/standing.md");
    let lines =
        page.split("```sh\n").map(|block| block.split("```").next().unwrap()).find(|block| block.starts_with("set -eu"));
    let lines = lines.unwrap().replace("http://fleetmark.example:8080", public);
    // What is not here is told to do nothing.
    let script = format!("systemctl() {{ echo \"asked to $1 $2\"; }}\n{lines}");
    let output = std::process::Command::new("sh").arg("-c").arg(script).current_dir(directory).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Fetches as docs/standing.md says, into the directory `consumer`.
fn fetched(server: &Server) {
    let directory = server.scratch("consumer");
    fs::create_dir_all(&directory).unwrap();
    let (done, said) = runs_the_pages_lines(&directory, &server.public_url(""));
    assert!(done && said.contains("asked to reload nginx"), "{said}");
}

/// `openssl verify` by what was fetched last, and nothing else.
fn judged_by_fetched(server: &Server, device: &Device) -> (bool, String) {
    let leaf = server.write_scratch("judged.pem", text(&device.answer, "certificate").as_bytes()).display().to_string();
    let [ca, crl] = ["ca.pem", "crl.pem"].map(|name| server.scratch("consumer").join(name).display().to_string());
    openssl(&["verify", "-purpose", "sslclient", "-crl_check_all", "-CAfile", &ca, "-CRLfile", &crl, &leaf], b"")
}

#[test]
fn consumers_of_lists_fetch_them_all_through_the_replacement_of_a_root() {
    let mut server = Server::start(&[]);
    let (before, first) =
        run(async { (Device::good(&server, "default", "before").await, active(&server, "root", None).await) });
    let good = |server: &Server, devices: &[&Device]| {
        fetched(server);
        for device in devices {
            let (good, said) = judged_by_fetched(server, device);
            assert!(good, "{said}");
        }
    };
    good(&server, &[&before]);
    let next = run(crate::authorities::prepare(&server, "root", None));
    good(&server, &[&before]);
    run(act(&server, next, "activate", json!({})));
    good(&server, &[&before]);
    let after = run(async {
        for kind in KINDS {
            crate::authorities::replace(&server, kind, None).await;
        }
        crate::authorities::replace(&server, "device", Some("default")).await;
        Device::good(&server, "default", "after").await
    });
    good(&server, &[&before, &after]);
    let (done, said) = crate::authorities::operator(&server, &["operator", "renew"]);
    assert!(done, "{said}");
    server.forget_owner();
    run(act(&server, first, "revoke", json!({"force": true, "reason": "superseded"})));
    good(&server, &[&after]);
    assert!(!judged_by_fetched(&server, &before).0, "what hangs from the old root alone");
}

#[test]
fn the_pages_lines_take_two_roots_of_one_name_and_nothing_that_is_cut_short() {
    let server = shared();
    let made: Vec<_> = (0..2).map(|at| made_by_openssl(&server, &format!("page-{at}"), "fleet.test root")).collect();
    let parts = |which: usize| made.iter().map(|files| fs::read(&files[which]).unwrap()).collect::<Vec<_>>();
    let (roots, lists) = (parts(0), parts(1));
    let (served, consumer) = (server.scratch("page-served"), server.scratch("page-consumer"));
    for directory in [&served.join("ca"), &served.join("crl"), &consumer] {
        fs::create_dir_all(directory).unwrap();
    }
    let runs = |roots: &[u8], lists: &[u8]| {
        fs::write(served.join("ca/bundle.pem"), roots).unwrap();
        fs::write(served.join("crl/bundle.pem"), lists).unwrap();
        runs_the_pages_lines(&consumer, &format!("file://{}", served.display()))
    };
    let (done, said) = runs(&roots.concat(), &lists.concat());
    assert!(done, "{said}");
    let (done, said) = runs(&roots.concat(), &[&lists[1][..], &lists[0]].concat());
    assert!(done, "in another order: {said}");
    let kept = [fs::read(consumer.join("ca.pem")).unwrap(), fs::read(consumer.join("crl.pem")).unwrap()];
    let cut = &lists[1][..lists[1].len() - 80];
    for (what, lists) in [
        ("one list is missing", lists[0].clone()),
        ("one twice", [&lists[0][..], &lists[0]].concat()),
        ("one is cut short", [&lists[0][..], cut].concat()),
        ("nothing", Vec::new()),
    ] {
        let (done, said) = runs(&roots.concat(), &lists);
        assert!(!done, "{what}: {said}");
        assert_eq!(kept, [fs::read(consumer.join("ca.pem")).unwrap(), fs::read(consumer.join("crl.pem")).unwrap()], "{what}");
    }
    assert!(!runs(b"", &lists.concat()).0);
}

#[test]
fn a_root_that_is_tainted_while_another_is_planned_is_vouched_for_by_nobody() {
    let mut server = Server::laid_out("up", &[], &[SERVERS]);
    server.start_again();
    let root = server.scratch("unused");
    let ceremony = Ceremony { server, root };
    let server = &ceremony.server;
    let old = run(active(server, "root", None)).to_string();
    let asks = |id: &str| {
        let file = ceremony.scratch(&format!("planned-{id}.json"));
        let _ = fs::remove_file(&file);
        let (code, said) = ceremony.operator(&["root", "request", "--root", id, "--out", &file]);
        assert_eq!(code, 0, "{said}");
        let asked = Ceremony::read(&file);
        (asked["roots"].as_array().map_or(0, Vec::len), root_states(&asked["bundle"]))
    };
    let prepare = || ceremony.operator(&["authority", "prepare", "root", "--key", "elsewhere"]);
    assert!(prepare().1.contains("waits_for_root"));
    let first = planned(&ceremony);
    assert_eq!(asks(&first), (1, vec!["active".to_owned()]), "the old root's key is to be certified");
    assert!(prepare().1.contains("waits_for_root"));
    assert_eq!(planned(&ceremony), first, "the same plan goes on");

    let (code, said) = ceremony.operator(&["authority", "taint", &old, "--emergency"]);
    assert_eq!(code, 0, "{said}");
    assert!(waiting(server).is_empty(), "nobody is asked to vouch for it");
    let file = ceremony.scratch("stale.json");
    let (code, said) = ceremony.operator(&["root", "request", "--root", &first, "--out", &file]);
    assert!(code != 0 && said.contains("not_found"), "{said}");
    assert!(prepare().1.contains("waits_for_root"));
    let second = planned(&ceremony);
    assert_eq!(asks(&second), (0, vec!["tainted".to_owned()]));
    let safe = Safe::new(server, "safe");
    made(&ceremony, &safe, &second);
    let (code, said) = prepare();
    assert_eq!(code, 0, "{said}");
    run(async {
        let states = states(server, "root", None).await;
        assert_eq!(states, [(old.parse().unwrap(), "tainted".to_owned()), (second.parse().unwrap(), "prepared".to_owned())]);
    });
}
