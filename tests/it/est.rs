//! EST whole (RFC 7030, RFC 8951, RFC 9908): what it grants and what it refuses; openssl judges what is encoded.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::device::{confirm_by_token, sha256};
use crate::harness::openssl::{openssl, pem};
use crate::harness::{Client, Connection, Device, Identity, Key, Server, run, shared, until};

const DEVICE: &str = include_str!("../../certs/profiles/device.toml");

/// A server with profiles of every rule of `[est]`.
fn est_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut server = Server::start(&[]);
        assert_eq!(server.stop(), Some(0));
        let directory = server.data().join("profiles");
        fs::create_dir(&directory).unwrap();
        for (name, rules) in [
            ("served", "server_key_generation = true"),
            ("bound", "channel_binding = \"required\""),
            ("unbound", "channel_binding = \"ignored\""),
            ("quiet", "csr_attributes = false"),
        ] {
            fs::write(directory.join(format!("{name}.toml")), format!("{DEVICE}\n[est]\n{rules}\n")).unwrap();
        }
        let configuration = server.data().join("fleetmark.toml");
        let text = fs::read_to_string(&configuration).unwrap_or_default();
        fs::write(&configuration, format!("profiles = \"profiles\"\n{text}")).unwrap();
        server.start_again();
        server
    })
}

fn basic(name: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{token}")))
}

/// Sends a request to an operation of EST; `authorization` where it is not empty.
async fn est(client: &Client, fleet: &str, operation: &str, authorization: &str, csr: &[u8]) -> Answer {
    let mut headers = vec![("content-type", "application/pkcs10")];
    if !authorization.is_empty() {
        headers.push(("authorization", authorization));
    }
    let path = format!("/.well-known/est/{fleet}/{operation}");
    client.send("POST", &path, &headers, Some(STANDARD.encode(csr).into_bytes())).await
}

/// One line of text that begins with the code.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!((answer.status, text.split(':').next().unwrap()), (status, code), "{text}");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(text.ends_with('\n') && text.len() > code.len() + 3, "{text}");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
}

/// A certs-only answer as PEM.
fn certificates(octets: &[u8]) -> String {
    let text = std::str::from_utf8(octets).unwrap();
    assert!(!text.contains(char::is_whitespace), "base64 is one line: {text}");
    let der = STANDARD.decode(text).unwrap();
    let (read, printed) = openssl(&["cms", "-inform", "DER", "-cmsout", "-print", "-noout"], &der);
    assert!(read, "{printed}");
    let (read, printed) = openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &der);
    assert!(read, "{printed}");
    printed
}

/// A request by openssl for this key file; `names` is a subjectAltName, `attributes` lines of a section; either may be empty.
fn request(directory: &Path, key: &Path, subject: &str, names: &str, attributes: &str) -> Vec<u8> {
    let file = directory.join("request.cnf");
    let mut text = "[req]\ndistinguished_name=dn\nprompt=no\n".to_owned();
    if !names.is_empty() {
        text += "req_extensions=extensions\n";
    }
    if !attributes.is_empty() {
        text += "attributes=attributes\n";
    }
    text += &format!("[extensions]\nsubjectAltName={names}\n[attributes]\n{attributes}\n[dn]\n");
    for (at, part) in subject.split('/').filter(|part| !part.is_empty()).enumerate() {
        text += &format!("{at}.{part}\n");
    }
    fs::write(&file, text).unwrap();
    let mut arguments =
        vec!["req", "-new", "-outform", "DER", "-config", file.to_str().unwrap(), "-key", key.to_str().unwrap()];
    // With -subj openssl leaves the attributes out; an empty subject is to be had by it alone.
    if subject == "/" {
        arguments.extend(["-subj", "/"]);
    }
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A request with an empty subject.
fn nameless(key: &Key) -> Vec<u8> {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(&key.0).unwrap().der().to_vec()
}

/// A fresh P-256 key in a file.
fn key_file(directory: &Path, name: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    let file = path.to_str().unwrap();
    let (made, said) = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file], b"");
    assert!(made, "{said}");
    path
}

const MISMATCH: &str = "channel_binding_mismatch";
const REQUIRED: &str = "channel_binding_required";

#[test]
fn cacerts_holds_the_fleets_authority_and_the_root() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let answer = client.get(&format!("/.well-known/est/{fleet}/cacerts")).await.is(200);
        assert_eq!(answer.header("content-type"), "application/pkcs7-mime; smime-type=certs-only");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let held = certificates(&answer.body);
        assert_eq!(held.matches("BEGIN CERTIFICATE").count(), 2, "{held}");
        assert!(held.contains(&pem("CERTIFICATE", &server.root())), "{held}");
        assert!(held.contains(&format!("{fleet} device authority")), "{held}");
        // A device's certificate leads to what is in it.
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        let bundle = server.write_scratch(&format!("{fleet}.pem"), held.as_bytes());
        let leaf = server.write_scratch(&format!("{fleet}-leaf.pem"), pem("CERTIFICATE", device.identity.leaf()).as_bytes());
        let arguments = ["verify", "-x509_strict", "-CAfile", bundle.to_str().unwrap(), leaf.to_str().unwrap()];
        let (leads, said) = openssl(&arguments, b"");
        assert!(leads, "{said}");
        refused(&client.get("/.well-known/est/nowhere/cacerts").await, 404, "fleet_unknown");
        refused(&client.get("/.well-known/est/-a/cacerts").await, 422, "invalid_name");
        let of_default = client.get("/.well-known/est/cacerts").await.is(200);
        assert_eq!(of_default.body, client.get("/.well-known/est/default/cacerts").await.is(200).body);
        assert_ne!(of_default.body, answer.body);
    });
}

#[test]
fn csrattrs_is_what_the_profile_says_by_openssls_reading() {
    let server = est_server();
    run(async {
        let client = server.device_client(None);
        let told = async |profile: &str| {
            let fleet = server.fleet(json!({"profile": profile})).await;
            client.get(&format!("/.well-known/est/{fleet}/csrattrs")).await
        };
        let parsed = |answer: &Answer| {
            assert_eq!(answer.header("content-type"), "application/csrattrs");
            let der = STANDARD.decode(&answer.body).unwrap();
            let (read, printed) = openssl(&["asn1parse", "-inform", "DER"], &der);
            assert!(read, "{printed}");
            printed
        };
        let device = parsed(&told("device").await.is(200));
        for wanted in [":id-ecPublicKey", ":prime256v1", ":secp384r1", ":ED25519", ":ecdsa-with-SHA256", ":ecdsa-with-SHA384"] {
            assert_eq!(device.matches(wanted).count(), 1, "{wanted}: {device}");
        }
        assert!(!device.contains("challengePassword") && !device.contains("rsaEncryption"), "{device}");
        let legacy = parsed(&told("device-legacy").await.is(200));
        assert!(legacy.contains(":rsaEncryption") && legacy.contains(":0800"), "{legacy}");
        assert!(parsed(&told("bound").await.is(200)).contains(":challengePassword"));
        let quiet = told("quiet").await.is(204);
        assert!(quiet.body.is_empty());
        refused(&client.get("/.well-known/est/nowhere/csrattrs").await, 404, "fleet_unknown");
    });
}

#[test]
fn a_renewal_that_names_somebody_else_is_refused_and_one_that_names_nobody_is_not() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "pump.1").await;
        let client = server.device_client(Some(&device.identity));
        let directory = server.scratch(&format!("{fleet}-renewal"));
        fs::create_dir_all(&directory).unwrap();
        let key = key_file(&directory, "new.key");
        let uri = format!("URI:spiffe://fleet.test/device/{fleet}/pump.1");
        for (subject, names) in [
            ("/CN=pump.2", ""),
            ("/CN=PUMP.1", ""),
            ("/O=other/CN=pump.1", ""),
            ("/CN=pump.1/OU=more", ""),
            ("/CN=pump.1/CN=pump.2", ""),
            ("/CN=pump.1/emailAddress=a@b.example", ""),
            ("/", "URI:spiffe://fleet.test/device/other/pump.1"),
            ("/CN=pump.1", "DNS:pump.1"),
            ("/CN=pump.1", "IP:192.0.2.1"),
            ("/CN=pump.1", "email:a@b.example"),
            ("/CN=pump.1", "otherName:1.3.6.1.5.5.7.8.4;UTF8:x"),
            ("/CN=pump.1", &format!("{uri},DNS:more.example")),
        ] {
            let csr = request(&directory, &key, subject, names, "");
            refused(&est(&client, &fleet, "simplereenroll", "", &csr).await, 422, "subject_changed");
        }
        assert_eq!(device.standing(&server).await, "good");
        let own = format!("/O={fleet}/CN=pump.1");
        for (at, (subject, names)) in [("/", ""), ("/CN=pump.1", ""), (&*own, &*uri), ("/", &*uri)].into_iter().enumerate() {
            let key = key_file(&directory, &format!("new-{at}.key"));
            let csr = request(&directory, &key, subject, names, "");
            let answer = est(&client, &fleet, "simplereenroll", "", &csr).await.is(200);
            let printed = certificates(&answer.body);
            assert_eq!(printed.matches("BEGIN CERTIFICATE").count(), 1);
            let (_, names) = openssl(&["x509", "-noout", "-subject", "-ext", "subjectAltName"], printed.as_bytes());
            assert!(names.contains("CN = pump.1") && names.contains(&uri) && names.contains(&fleet), "{names}");
        }
        let other = server.fleet(json!({})).await;
        let csr = request(&directory, &key, "/", "", "");
        refused(&est(&client, &other, "simplereenroll", "", &csr).await, 403, "wrong_fleet");
        let nobody = server.device_client(None);
        refused(&est(&nobody, &fleet, "simplereenroll", "", &csr).await, 401, "certificate_required");
    });
}

#[test]
fn what_est_refuses_is_a_line_of_text_and_counted() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let csr = nameless(&Key::new());
        let token = server.token(&fleet, "a").await;
        let own = basic("a", &token);
        let two = [csr.clone(), csr.clone()].concat();
        let large = vec![0x30; 30 * 1024];
        let cases: [(&str, &str, &[u8], u16, &str); 9] = [
            ("simpleenroll", "", &csr, 401, "proof_required"),
            ("simpleenroll", "Bearer x", &csr, 401, "proof_required"),
            ("simpleenroll", &basic("b", &token), &csr, 403, "token_wrong_name"),
            ("simpleenroll", &basic("a", "no token"), &csr, 401, "token_unknown"),
            ("simpleenroll", &own, b"", 400, "csr_malformed"),
            ("simpleenroll", &own, &two, 400, "csr_trailing_octets"),
            ("simpleenroll", &own, &large[..17 * 1024], 413, "csr_too_large"),
            ("simpleenroll", &own, &large, 413, "body_too_large"),
            ("serverkeygen", &own, &csr, 403, "server_keygen_off"),
        ];
        for (operation, authorization, csr, status, code) in cases {
            let counted = server.refused(code).await;
            let answer = est(&client, &fleet, operation, authorization, csr).await;
            refused(&answer, status, code);
            let challenge = if status == 401 { "Basic realm=\"fleetmark\"" } else { "" };
            assert_eq!(answer.header("www-authenticate"), challenge);
            assert!(server.refused(code).await > counted, "{code} is not counted");
        }
        for (operation, method) in [("cacerts", "POST"), ("csrattrs", "POST"), ("simpleenroll", "GET"), ("serverkeygen", "GET")]
        {
            let path = format!("/.well-known/est/{fleet}/{operation}");
            let answer = client.send(method, &path, &[], None).await;
            refused(&answer, 405, "method_not_allowed");
            assert_eq!(answer.header("allow"), if method == "GET" { "POST" } else { "GET" });
        }
        refused(&client.get(&format!("/.well-known/est/{fleet}/fullcmc")).await, 404, "not_found");
        refused(&client.get(&format!("/.well-known/est/{}/cacerts", "a".repeat(3_000))).await, 414, "uri_too_long");
        // Nothing of this touched the token; and who shows a token by Basic is not judged by a certificate.
        let device = Device::good(&server, &fleet, "other").await;
        let client = server.device_client(Some(&device.identity));
        certificates(&est(&client, &fleet, "simpleenroll", &own, &csr).await.is(200).body);
        refused(&est(&client, &fleet, "simpleenroll", "", &csr).await, 401, "proof_required");
    });
}

/// A request of a device on its own connection, with that connection's binding, or something else, as its challengePassword.
async fn enroll_bound(server: &Server, fleet: &str, name: &str, version: Version, challenge: Challenge) -> Answer {
    let trust = match version {
        Version::Tls13 => server.trust(),
        Version::Tls12 => server.trust().only(&rustls::version::TLS12),
    };
    let mut connection = Connection::open(server.device_port, &trust, None).await.unwrap();
    let text = match challenge {
        Challenge::Nothing => String::new(),
        Challenge::Exporter => STANDARD.encode(connection.exporter(b"EXPORTER-Channel-Binding")),
        Challenge::OtherLabel => STANDARD.encode(connection.exporter(b"EXPORTER-Something-Else")),
        Challenge::Text(text) => text.to_owned(),
    };
    let directory = server.scratch(&format!("{fleet}-{name}"));
    fs::create_dir_all(&directory).unwrap();
    let attributes = if text.is_empty() { String::new() } else { format!("challengePassword={text}") };
    let csr = request(&directory, &key_file(&directory, "key"), &format!("/CN={name}"), "", &attributes);
    let authorization = basic(name, &server.token(fleet, name).await);
    let headers = [("content-type", "application/pkcs10"), ("authorization", authorization.as_str())];
    let path = format!("/.well-known/est/{fleet}/simpleenroll");
    connection.request("POST", &path, &headers, STANDARD.encode(csr).as_bytes()).await.unwrap()
}

#[derive(Clone, Copy)]
enum Version {
    Tls12,
    Tls13,
}

#[derive(Clone, Copy)]
enum Challenge {
    Nothing,
    Exporter,
    OtherLabel,
    Text(&'static str),
}

#[test]
fn a_channel_binding_counts_as_the_profile_says() {
    use Challenge::{Exporter, Nothing, OtherLabel, Text};
    use Version::{Tls12, Tls13};
    let server = est_server();
    // 12 octets, as tls-unique of TLS 1.2; 32 octets; a password.
    let (unique, foreign, password) =
        (Text("MDEyMzQ1Njc4OWFi"), Text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), Text("hello"));
    run(async {
        let fleets = [
            server.fleet(json!({"profile": "device"})).await,
            server.fleet(json!({"profile": "bound"})).await,
            server.fleet(json!({"profile": "unbound"})).await,
        ];
        // What became of it where the profile says if-sent, and where it says required; empty: granted.
        let cases = [
            (Tls13, Exporter, "", ""),
            (Tls13, Nothing, "", REQUIRED),
            (Tls13, password, "", REQUIRED),
            (Tls13, OtherLabel, MISMATCH, MISMATCH),
            (Tls13, unique, MISMATCH, MISMATCH),
            (Tls13, foreign, MISMATCH, MISMATCH),
            (Tls12, Exporter, MISMATCH, MISMATCH),
            (Tls12, unique, MISMATCH, MISMATCH),
            (Tls12, Nothing, "", REQUIRED),
        ];
        for (at, (version, challenge, if_sent, required)) in cases.into_iter().enumerate() {
            for (fleet, code) in fleets.iter().zip([if_sent, required, ""]) {
                let answer = enroll_bound(server, fleet, &format!("device-{at}"), version, challenge).await;
                match code {
                    "" => assert_eq!(answer.status, 200, "{at}: {}", answer.text()),
                    code => refused(&answer, 422, code),
                }
            }
        }
        // Renewal and keys made by the server are judged alike.
        let device = Device::good(server, &fleets[1], "renewing").await;
        let client = server.device_client(Some(&device.identity));
        refused(&est(&client, &fleets[1], "simplereenroll", "", &nameless(&Key::new())).await, 422, REQUIRED);
    });
}

/// openssl tells the keying material of its own connection, and the request goes over that connection.
#[test]
fn the_binding_is_that_which_openssl_derives() {
    let server = est_server();
    run(async {
        let fleet = server.fleet(json!({"profile": "bound"})).await;
        let authorization = basic("bound-1", &server.token(&fleet, "bound-1").await);
        let root = server.write_scratch("root.pem", pem("CERTIFICATE", &server.root()).as_bytes());
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &format!("localhost:{}", server.device_port), "-CAfile", root.to_str().unwrap()])
            .args(["-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32", "-tls1_3", "-ign_eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let material = loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "openssl tells no keying material");
            if let Some(("Keying material", material)) = line.trim().split_once(": ") {
                break hex::decode(material).unwrap();
            }
        };
        let directory = server.scratch(&format!("{fleet}-openssl"));
        fs::create_dir_all(&directory).unwrap();
        let key = key_file(&directory, "key");
        let challenge = format!("challengePassword={}", STANDARD.encode(material));
        let body = STANDARD.encode(request(&directory, &key, "/CN=bound-1", "", &challenge));
        let head = format!(
            "POST /.well-known/est/{fleet}/simpleenroll HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: {authorization}\r\ncontent-type: application/pkcs10\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stdin.flush().unwrap();
        let mut answer = String::new();
        lines.read_to_string(&mut answer).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    });
}

/// The key and the certificate of a multipart answer.
struct Served {
    pkcs8: Vec<u8>,
    certificate: String,
}

impl Served {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let boundary = answer.header("content-type").strip_prefix("multipart/mixed; boundary=").unwrap().to_owned();
        assert_eq!(answer.header("cache-control"), "no-store");
        let text = answer.text();
        let body = text.strip_suffix(&format!("--{boundary}--\r\n")).unwrap();
        let parts: Vec<_> = body.split(&format!("--{boundary}\r\n")).filter(|part| !part.is_empty()).collect();
        assert_eq!(parts.len(), 2, "{text}");
        let part = |at: usize, of: &str| {
            let (head, content) = parts[at].split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Type: {of}")), "{head}");
            assert!(head.contains("Content-Transfer-Encoding: base64"), "{head}");
            content.trim_end().to_owned()
        };
        let pkcs8 = STANDARD.decode(part(0, "application/pkcs8")).unwrap();
        let certificate = certificates(part(1, "application/pkcs7-mime; smime-type=certs-only").as_bytes());
        Self { pkcs8, certificate }
    }

    /// The public key, as openssl sees it.
    fn public_key(&self) -> String {
        let (read, of_key) = openssl(&["pkey", "-inform", "DER", "-pubout"], &self.pkcs8);
        assert!(read, "{of_key}");
        let (read, of_certificate) = openssl(&["x509", "-noout", "-pubkey"], self.certificate.as_bytes());
        assert!(read, "{of_certificate}");
        assert_eq!(of_key, of_certificate, "the key is not the certificate's");
        of_key
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(self.certificate.as_bytes(), pem("PRIVATE KEY", &self.pkcs8).as_bytes())
    }
}

/// Every certificate of the fleet's devices: its standing by its fingerprint.
async fn standings(server: &Server, fleet: &str) -> Vec<(String, String)> {
    let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device")).await.is(200).json();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    all["items"].as_array().unwrap().iter().map(|item| (text(item, "fingerprint"), text(item, "standing"))).collect()
}

#[test]
fn a_key_made_by_the_server_matches_its_certificate_and_a_repeat_leaves_one_certificate() {
    let server = est_server();
    run(async {
        let fleet = server.fleet(json!({"profile": "served"})).await;
        let client = server.device_client(None);
        let own = Key::new();
        // The first certificate of an open token registers the device; a repeat must find it again.
        for (name, token) in
            [("bound-to-a", server.token(&fleet, "bound-to-a").await), ("open", server.open_token(&fleet).await)]
        {
            let authorization = basic(name, &token);
            let ask = async || est(&client, &fleet, "serverkeygen", &authorization, &nameless(&own)).await;
            let mut keys = Vec::new();
            let mut newest = None;
            for _ in 0..3 {
                let served = Served::of(&ask().await);
                assert!(served.certificate.contains(&format!("CN = {name}")), "{}", served.certificate);
                keys.push(served.public_key());
                newest = Some(served);
            }
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 3, "a key was kept");
            let newest = newest.unwrap();
            let identity = newest.identity();
            let live = standings(server, &fleet).await.into_iter().filter(|(_, standing)| standing == "unconfirmed");
            assert_eq!(live.map(|(fingerprint, _)| fingerprint).collect::<Vec<_>>(), [sha256(identity.leaf())]);

            // The proof stays bound: another key in the request, or a key of the device's own, is another request.
            let other = nameless(&Key::new());
            for operation in ["serverkeygen", "simpleenroll"] {
                refused(&est(&client, &fleet, operation, &authorization, &other).await, 409, "token_bound_to_other_key");
            }

            // It is confirmed by its use, or by the token with its fingerprint; from then on nobody gets another by this proof.
            let device = server.device_client(Some(&identity));
            if name == "open" {
                confirm_by_token(&client, &fleet, &token, &sha256(identity.leaf())).await.is(200);
            } else {
                device.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.is(200);
            }
            refused(&ask().await, 409, "token_used");
            let good = standings(server, &fleet).await.into_iter().filter(|(_, standing)| standing == "good");
            assert!(good.map(|(fingerprint, _)| fingerprint).any(|good| good == sha256(identity.leaf())));

            // It renews so too, by its certificate.
            let renewed = Served::of(&est(&device, &fleet, "serverkeygen", "", &nameless(&Key::new())).await);
            let again = Served::of(&est(&device, &fleet, "serverkeygen", "", &nameless(&Key::new())).await);
            assert_ne!(renewed.public_key(), again.public_key());
            let successor = server.device_client(Some(&again.identity()));
            successor.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.is(200);
            let lost = server.device_client(Some(&renewed.identity()));
            lost.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await.refused(403, "revoked");
        }
        refused(&est(&client, &fleet, "serverkeygen", "", &nameless(&own)).await, 401, "proof_required");
    });
}

#[test]
fn of_many_repeats_at_once_one_certificate_is_left() {
    let server = est_server();
    run(async {
        let fleet = server.fleet(json!({"profile": "served"})).await;
        let authorization = basic("raced", &server.token(&fleet, "raced").await);
        let csr = nameless(&Key::new());
        let tries = (0..12).map(|_| {
            let (fleet, authorization, csr) = (fleet.clone(), authorization.clone(), csr.clone());
            let client = server.device_client(None);
            tokio::spawn(async move { est(&client, &fleet, "serverkeygen", &authorization, &csr).await })
        });
        let tries: Vec<_> = tries.collect();
        let mut given = Vec::new();
        for attempt in tries {
            given.push(sha256(Served::of(&attempt.await.unwrap()).identity().leaf()));
        }
        let all = standings(server, &fleet).await;
        assert_eq!(all.len(), 12);
        let live: Vec<_> = all.iter().filter(|(_, standing)| standing == "unconfirmed").collect();
        assert!(live.len() == 1 && given.contains(&live[0].0), "{all:?}");
        assert!(all.iter().all(|(_, standing)| standing == "unconfirmed" || standing == "revoked"), "{all:?}");
    });
}

#[test]
fn a_key_made_by_the_server_is_kept_nowhere() {
    let server = est_server();
    run(async {
        let fleet = server.fleet(json!({"profile": "served"})).await;
        let token = server.token(&fleet, "a").await;
        let client = server.device_client(None);
        let answer = est(&client, &fleet, "serverkeygen", &basic("a", &token), &nameless(&Key::new())).await;
        let served = Served::of(&answer);
        // P-256 in PKCS#8 by ring: the scalar's 32 octets stand at 36.
        let scalar = &served.pkcs8[36..68];
        let (_, told) = openssl(&["pkey", "-inform", "DER", "-text", "-noout"], &served.pkcs8);
        let printed: String = told.split("priv:").nth(1).unwrap().split("pub:").next().unwrap().replace([':', ' ', '\n'], "");
        assert!(printed.ends_with(&hex::encode(scalar)), "{told}");
        let forms = [scalar.to_vec(), hex::encode(scalar).into_bytes(), STANDARD.encode(&served.pkcs8).into_bytes()];
        let mut places = vec![server.data()];
        let mut seen = 0;
        while let Some(place) = places.pop() {
            for entry in fs::read_dir(place).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    places.push(path);
                } else if let Ok(octets) = fs::read(&path) {
                    seen += 1;
                    for form in &forms {
                        let found = octets.windows(form.len()).any(|window| window == form.as_slice());
                        assert!(!found, "the key is in {}", path.display());
                    }
                }
            }
        }
        assert!(seen > 3, "only {seen} files were looked at");
        assert!(!forms.iter().skip(1).any(|form| server.log().contains(std::str::from_utf8(form).unwrap())));
    });
}

#[test]
fn a_key_that_was_to_be_encrypted_or_is_not_to_be_made_is_refused() {
    let server = est_server();
    run(async {
        let served = server.fleet(json!({"profile": "served"})).await;
        let plain = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let directory = server.scratch(&format!("{served}-encrypted"));
        fs::create_dir_all(&directory).unwrap();
        let key = key_file(&directory, "key");
        let authorization = basic("a", &server.token(&served, "a").await);
        for attribute in ["1.2.840.113549.1.9.16.2.37", "1.2.840.113549.1.9.16.2.54"] {
            let csr = request(&directory, &key, "/CN=a", "", &format!("{attribute}=ASN1:OCTETSTRING:key"));
            let answer = est(&client, &served, "serverkeygen", &authorization, &csr).await;
            refused(&answer, 422, "server_keygen_encryption");
        }
        let off = basic("a", &server.token(&plain, "a").await);
        refused(&est(&client, &plain, "serverkeygen", &off, &nameless(&Key::new())).await, 403, "server_keygen_off");
        // Nothing of this touched the tokens.
        Served::of(&est(&client, &served, "serverkeygen", &authorization, &nameless(&Key::new())).await).public_key();
        est(&client, &plain, "simpleenroll", &off, &nameless(&Key::new())).await.is(200);
    });
}

/// A maker's CA and a device's IDevID with this serial number, by openssl: the CA in PEM, and the device's identity.
fn idevid(directory: &Path, serial: &str) -> (String, Identity) {
    let (ca_key, key) = (key_file(directory, "maker.key"), key_file(directory, "idevid.key"));
    let said = |arguments: &[&str], input: &[u8]| {
        let (made, said) = openssl(arguments, input);
        assert!(made, "{said}");
        said
    };
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let extensions = "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n[device]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\n";
    fs::write(file("maker.cnf"), format!("[req]\ndistinguished_name=dn\n[dn]\n{extensions}")).unwrap();
    let config = file("maker.cnf");
    let (ca, ca_key, key) = (file("maker.pem"), ca_key.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned());
    let subject = format!("/O=Maker/serialNumber={serial}");
    said(
        &[
            "req",
            "-x509",
            "-new",
            "-key",
            &ca_key,
            "-subj",
            "/O=Maker/CN=Maker CA",
            "-days",
            "30",
            "-config",
            &config,
            "-extensions",
            "ca",
            "-out",
            &ca,
        ],
        b"",
    );
    let csr = file("idevid.csr");
    said(&["req", "-new", "-key", &key, "-subj", &subject, "-config", &config, "-out", &csr], b"");
    let certificate = file("idevid.pem");
    let arguments = ["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-set_serial", "7", "-days", "30"];
    said(&[&arguments[..], &["-extfile", &config, "-extensions", "device", "-out", &certificate]].concat(), b"");
    let identity = Identity::from_pem(&fs::read(certificate).unwrap(), &fs::read(key).unwrap());
    (fs::read_to_string(ca).unwrap(), identity)
}

#[test]
fn a_makers_certificate_is_a_proof_and_a_token_beside_it_counts() {
    let server = est_server();
    run(async {
        let fleet = server.fleet(json!({"profile": "served"})).await;
        let directory = server.scratch(&format!("{fleet}-maker"));
        fs::create_dir_all(&directory).unwrap();
        let (ca, identity) = idevid(&directory, "SN-0001");
        let group = json!({"name": "maker", "proof": "maker", "ca": ca});
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &group).await.is(201);
        let path = format!("/.well-known/est/{fleet}/cacerts");
        let client = until("the door trusts the maker", 20, || async {
            let client = server.device_client(Some(&identity));
            client.try_send("GET", &path, &[], None).await.is_ok().then_some(client)
        })
        .await;
        let own = Key::new();
        // The subject that the request names is not the device's name, and changes nothing.
        let csr = own.csr_der();
        let first = certificates(&est(&client, &fleet, "simpleenroll", "", &csr).await.is(200).body);
        assert!(first.contains("CN = SN-0001"), "{first}");
        assert_eq!(first, certificates(&est(&client, &fleet, "simpleenroll", "", &csr).await.is(200).body));
        let token = basic("by-token", &server.token(&fleet, "by-token").await);
        let other = certificates(&est(&client, &fleet, "simpleenroll", &token, &nameless(&Key::new())).await.is(200).body);
        assert!(other.contains("CN = by-token"), "{other}");
        // A key made by the server takes the place of the unconfirmed one; and the next one of that.
        let mut newest = String::new();
        for _ in 0..2 {
            let served = Served::of(&est(&client, &fleet, "serverkeygen", "", &csr).await);
            served.public_key();
            newest = sha256(served.identity().leaf());
        }
        let live = standings(server, &fleet).await.into_iter().filter(|(_, standing)| standing == "unconfirmed");
        let live: Vec<_> = live.map(|(fingerprint, _)| fingerprint).collect();
        assert!(live.len() == 2 && live.contains(&newest), "{live:?}");
        refused(&est(&client, &fleet, "simplereenroll", "", &csr).await, 403, "certificate_foreign");
    });
}
