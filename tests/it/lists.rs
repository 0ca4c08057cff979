//! Revocation lists and OCSP answers, read by everybody who reads such things: openssl, GnuTLS, webpki, mbedTLS, wolfSSL, nginx,
//! `HAProxy`, Mosquitto, curl. Each lets a good device in and keeps a revoked one out; who cannot read shards reads the plain list.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use serde_json::json;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::authorities::{act, active, replace};
use crate::harness::forge::authority_id;
use crate::harness::openssl::{openssl, pem};
use crate::harness::server::free_port;
use crate::harness::{Device, Server, run, shared, until};
use crate::standing::{List, Strangers, dated, list, listed_within, read_list};

/// A device's one distribution point, as the path at the public door.
fn shard_path(device: &Device) -> String {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(device.identity.leaf()).unwrap();
    let points: Vec<String> = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => Some(points),
            _ => None,
        })
        .flat_map(|points| points.points.iter())
        .filter_map(|point| match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names.iter()),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect();
    let [point] = points.as_slice() else { panic!("not one distribution point: {points:?}") };
    // The name in front is the public door's, as the configuration has it.
    let at = point.find("/crl/").unwrap_or_else(|| panic!("{point}"));
    point[at..].to_owned()
}

async fn shard(server: &Server, device: &Device) -> List {
    read_list(&server.public_client().get(&shard_path(device)).await.is(200).body)
}

/// Waits until the device's shard names it.
async fn in_shard_within(server: &Server, device: &Device) -> List {
    until("the shard", 10, || async {
        let list = shard(server, device).await;
        list.entries.contains_key(&device.serial()).then_some(list)
    })
    .await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A good device and a revoked one in one shard, and the files by which clients judge them.
struct Scene<'a> {
    server: &'a Server,
    good: Device,
    revoked: Device,
    root: PathBuf,
    issuer: PathBuf,
    /// Root and issuer in one file.
    authorities: PathBuf,
    /// The issuer's plain list, and the shard.
    plain: PathBuf,
    shard: PathBuf,
    /// The same, each with the root's.
    plain_bundle: PathBuf,
    shard_bundle: PathBuf,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a Server) -> Self {
        let fleet = server.fleet(json!({})).await;
        let good = Device::good(server, &fleet, "good").await;
        let revoked = Device::good(server, &fleet, "revoked").await;
        assert_eq!(shard_path(&good), shard_path(&revoked));
        revoked.act(server, "revoke", json!({"reason": "keyCompromise"})).await;
        in_shard_within(server, &revoked).await;
        listed_within(server, &fleet, &revoked.serial(), Some(1)).await;
        let id = authority_id(server, "device", Some(&fleet)).await;
        let public = server.public_client();
        let fetch = |path: String| {
            let public = public.clone();
            async move { public.get(&path).await.is(200).body }
        };
        let file = |name: &str, parts: &[&[u8]]| server.write_scratch(&format!("{fleet}-{name}"), &parts.concat());
        let root = fetch("/ca/root.pem".to_owned()).await;
        let issuer = fetch(format!("/ca/{id}.pem")).await;
        let plain = fetch(format!("/crl/{id}.pem")).await;
        let roots = fetch("/crl/root.pem".to_owned()).await;
        let shard = fetch(shard_path(&good).replace(".crl", ".pem")).await;
        Self {
            root: file("root.pem", &[&root]),
            issuer: file("issuer.pem", &[&issuer]),
            authorities: file("authorities.pem", &[&root, &issuer]),
            plain: file("plain.pem", &[&plain]),
            shard: file("shard.pem", &[&shard]),
            plain_bundle: file("plain-bundle.pem", &[&plain, &roots]),
            shard_bundle: file("shard-bundle.pem", &[&shard, &roots]),
            server,
            good,
            revoked,
        }
    }

    fn certificate(&self, device: &Device) -> PathBuf {
        let name = format!("{}-{}.pem", device.fleet, device.name);
        self.server.write_scratch(&name, pem("CERTIFICATE", device.identity.leaf()).as_bytes())
    }

    fn key(&self, device: &Device) -> PathBuf {
        let name = format!("{}-{}.key", device.fleet, device.name);
        self.server.write_scratch(&name, device.key.0.serialize_pem().as_bytes())
    }
}

/// Runs a program; its exit code and both streams.
pub fn ran(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let both = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&both).into_owned())
}

/// Compiles one of `tests/clients`.
pub fn client(server: &Server, name: &str, libraries: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/clients/{name}.c"));
    let program = server.scratch(name);
    let (code, said) =
        ran("cc", &[&["-O1", "-Wall", "-Wextra", "-Werror", "-o", text(&program), text(&source)], libraries].concat());
    assert_eq!(code, 0, "{said}");
    program
}

#[test]
fn openssl_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        for (what, list, depth) in [
            ("plain", &scene.plain, "-crl_check"),
            ("shard", &scene.shard, "-crl_check"),
            ("plain, chain", &scene.plain_bundle, "-crl_check_all"),
            ("shard, chain", &scene.shard_bundle, "-crl_check_all"),
        ] {
            let judge = |device: &Device| {
                let leaf = scene.certificate(device);
                let files = ["-CAfile", text(&scene.root), "-untrusted", text(&scene.issuer), "-CRLfile", text(list)];
                openssl(
                    &[&["verify", "-x509_strict", "-purpose", "sslclient", depth][..], &files, &[text(&leaf)]].concat(),
                    b"",
                )
            };
            let (accepted, said) = judge(&scene.good);
            assert!(accepted, "{what}: {said}");
            let (accepted, said) = judge(&scene.revoked);
            assert!(!accepted && said.contains("certificate revoked"), "{what}: {said}");
        }
        let (read, said) = openssl(&["crl", "-in", text(&scene.shard), "-CAfile", text(&scene.issuer), "-noout", "-text"], b"");
        assert!(read && said.contains("verify OK"), "{said}");
        assert!(said.contains("X509v3 Issuing Distribution Point: critical"), "{said}");
    });
}

#[test]
fn gnutls_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        for (what, list) in [("plain", &scene.plain_bundle), ("shard", &scene.shard_bundle)] {
            let judge = |device: &Device| {
                let leaf = scene.certificate(device);
                let chain = server.write_scratch(
                    &format!("{}-{}-chain.pem", device.fleet, device.name),
                    &[fs::read(leaf).unwrap(), fs::read(&scene.issuer).unwrap()].concat(),
                );
                let files = ["--load-ca-certificate", text(&scene.root), "--load-crl", text(list), "--infile", text(&chain)];
                ran("certtool", &[&["--verify"][..], &files].concat())
            };
            let (code, said) = judge(&scene.good);
            assert!(code == 0 && said.contains("Chain verification output: Verified"), "{what}: {said}");
            let (code, said) = judge(&scene.revoked);
            assert!(code != 0 && said.contains("revoked"), "{what}: {said}");
        }
    });
}

#[test]
fn webpki_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let id = authority_id(&server, "device", Some(&scene.good.fleet)).await;
        let public = server.public_client();
        let issuer = public.get(&format!("/ca/{id}.crt")).await.is(200).body;
        let root = server.root();
        for path in [format!("/crl/{id}.crl"), shard_path(&scene.good)] {
            let list = public.get(&path).await.is(200).body;
            let list: webpki::CertRevocationList<'_> = webpki::OwnedCertRevocationList::from_der(&list).unwrap().into();
            let lists = [&list];
            let judge = |device: &Device| {
                let options = webpki::RevocationOptionsBuilder::new(&lists)
                    .unwrap()
                    .with_status_policy(webpki::UnknownStatusPolicy::Deny)
                    .with_depth(webpki::RevocationCheckDepth::EndEntity)
                    .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                    .build();
                let leaf = rustls_pki_types::CertificateDer::from(device.identity.leaf());
                let anchors = [webpki::anchor_from_trusted_cert(&root).unwrap()];
                webpki::EndEntityCert::try_from(&leaf)
                    .unwrap()
                    .verify_for_usage(
                        webpki::ALL_VERIFICATION_ALGS,
                        &anchors,
                        &[issuer.as_slice().into()],
                        rustls_pki_types::UnixTime::now(),
                        webpki::KeyUsage::client_auth(),
                        Some(options),
                        None,
                    )
                    .map(drop)
            };
            judge(&scene.good).unwrap_or_else(|error| panic!("{path}: {error:?}"));
            assert_eq!(judge(&scene.revoked), Err(webpki::Error::CertRevoked), "{path}");
        }
    });
}

#[test]
fn mbedtls_takes_the_plain_list_and_refuses_to_load_a_shard() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let program = client(&server, "mbedtls_crl", &["-lmbedx509", "-lmbedcrypto"]);
        let judge = |list: &Path, device: &Device| {
            ran(text(&program), &[text(&scene.authorities), text(list), text(&scene.certificate(device))])
        };
        for list in [&scene.plain, &scene.plain_bundle] {
            let (code, said) = judge(list, &scene.good);
            assert_eq!(code, 0, "{said}");
            let (code, said) = judge(list, &scene.revoked);
            assert_eq!(code, 1, "{said}");
        }
        // docs/standing.md says so: a firmware with mbedTLS fetches the plain list.
        let (code, said) = judge(&scene.shard, &scene.good);
        assert_eq!(code, 2, "{said}");
    });
}

#[test]
fn wolfssl_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let program = client(&server, "wolfssl_crl", &["-lwolfssl"]);
        let judge = |list: &Path, device: &Device| {
            ran(text(&program), &[text(&scene.authorities), text(list), text(&scene.certificate(device))])
        };
        for (what, list) in [("plain", &scene.plain), ("shard", &scene.shard)] {
            let (code, said) = judge(list, &scene.good);
            assert_eq!(code, 0, "{what}: {said}");
            let (code, said) = judge(list, &scene.revoked);
            assert_eq!(code, 1, "{what}: {said}");
        }
    });
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a TLS server in the foreground, and waits until somebody listens.
async fn started(program: &str, arguments: &[&str], port: u16, log: &Path) -> Running {
    let file = fs::File::create(log).unwrap();
    let child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn();
    let running = Running(child.unwrap_or_else(|error| panic!("{program}: {error}")));
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{program} does not listen: {}", fs::read_to_string(log).unwrap_or_default());
}

impl Scene<'_> {
    /// A certificate for a TLS server, signed by nobody, with its key in the same file.
    fn server_certificate(&self) -> PathBuf {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let both = certificate.pem() + &key.serialize_pem();
        self.server.write_scratch(&format!("{}-tls.pem", self.good.fleet), both.as_bytes())
    }

    /// What curl gets with the device's certificate: the status, 0 for a handshake that failed.
    fn curl(&self, port: u16, device: &Device) -> (i32, String) {
        let (certificate, key) = (self.certificate(device), self.key(device));
        let url = format!("https://localhost:{port}/");
        let arguments =
            ["-sk", "-m", "10", "--cert", text(&certificate), "--key", text(&key), "-w", "%{http_code}", "-o", "/dev/null"];
        let (_, said) = ran("curl", &[&arguments[..], &[&url]].concat());
        (said.trim().parse().unwrap_or(-1), said)
    }
}

#[test]
fn haproxy_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let certificate = scene.server_certificate();
        for (what, list) in [("plain", &scene.plain_bundle), ("shard", &scene.shard_bundle)] {
            let port = free_port();
            let configuration = format!(
                "global\n  tune.ssl.cachesize 0\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
                 frontend devices\n  bind 127.0.0.1:{port} ssl crt {} ca-file {} verify required crl-file {} no-tls-tickets\n  \
                 http-request return status 200\n",
                text(&certificate),
                text(&scene.authorities),
                text(list)
            );
            let file = server.write_scratch(&format!("{}-haproxy-{what}.cfg", scene.good.fleet), configuration.as_bytes());
            let log = server.scratch(&format!("{}-haproxy-{what}.log", scene.good.fleet));
            let _haproxy = started("/usr/sbin/haproxy", &["-db", "-f", text(&file)], port, &log).await;
            let said = |answer: (i32, String)| format!("{what}: {answer:?} {}", fs::read_to_string(&log).unwrap_or_default());
            let good = scene.curl(port, &scene.good);
            assert_eq!(good.0, 200, "{}", said(good.clone()));
            let revoked = scene.curl(port, &scene.revoked);
            assert_eq!(revoked.0, 0, "{}", said(revoked.clone()));
        }
    });
}

#[test]
fn nginx_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let certificate = scene.server_certificate();
        for (what, list) in [("plain", &scene.plain_bundle), ("shard", &scene.shard_bundle)] {
            let port = free_port();
            let at = server.scratch(&format!("{}-nginx-{what}", scene.good.fleet));
            fs::create_dir_all(&at).unwrap();
            let (at, log) = (text(&at).to_owned(), at.join("error"));
            let user = if ran("id", &["-u"]).1.trim() == "0" { "user root;" } else { "" };
            let configuration = format!(
                "{user} daemon off; master_process off; pid {at}/pid; error_log {at}/error info; events {{}}\n\
                 http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
                 server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {tls}; ssl_certificate_key {tls};\n\
                 ssl_client_certificate {ca}; ssl_crl {crl}; ssl_verify_client on; ssl_verify_depth 3;\n\
                 ssl_session_tickets off; ssl_session_cache off; location / {{ return 200 ok; }} }} }}\n",
                tls = text(&certificate),
                ca = text(&scene.authorities),
                crl = text(list)
            );
            let file = server.write_scratch(&format!("{}-nginx-{what}.conf", scene.good.fleet), configuration.as_bytes());
            let arguments = ["-e", text(&log), "-p", &at, "-c", text(&file)];
            let _nginx = started("/usr/sbin/nginx", &arguments, port, &server.scratch("nginx.out")).await;
            let said = |answer: (i32, String)| format!("{what}: {answer:?} {}", fs::read_to_string(&log).unwrap_or_default());
            let good = scene.curl(port, &scene.good);
            assert_eq!(good.0, 200, "{}", said(good.clone()));
            let revoked = scene.curl(port, &scene.revoked);
            assert_eq!(revoked.0, 400, "{}", said(revoked.clone()));
            assert!(fs::read_to_string(&log).unwrap().contains("certificate revoked"));
        }
    });
}

#[test]
fn mosquitto_takes_either_list() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let certificate = scene.server_certificate();
        for (what, list) in [("plain", &scene.plain_bundle), ("shard", &scene.shard_bundle)] {
            let port = free_port();
            let user = ran("id", &["-un"]).1;
            let configuration = format!(
                "user {}\nlistener {port} 127.0.0.1\ncafile {}\ncertfile {tls}\nkeyfile {tls}\ncrlfile {}\nrequire_certificate true\n\
                 use_identity_as_username true\nallow_anonymous false\n",
                user.trim(),
                text(&scene.authorities),
                text(list),
                tls = text(&certificate)
            );
            let file = server.write_scratch(&format!("{}-mosquitto-{what}.conf", scene.good.fleet), configuration.as_bytes());
            let log = server.scratch(&format!("{}-mosquitto-{what}.log", scene.good.fleet));
            let _mosquitto = started("/usr/sbin/mosquitto", &["-v", "-c", text(&file)], port, &log).await;
            let publish = |device: &Device| {
                let (leaf, key, port) = (scene.certificate(device), scene.key(device), port.to_string());
                let connection = ["-h", "localhost", "-p", &port, "--cafile", text(&certificate), "--cert", text(&leaf)];
                ran(
                    "timeout",
                    &[&["10", "mosquitto_pub"][..], &connection, &["--key", text(&key), "-t", "t", "-m", "1", "-q", "1"]]
                        .concat(),
                )
            };
            let (code, said) = publish(&scene.good);
            assert_eq!(code, 0, "{what}: {said} {}", fs::read_to_string(&log).unwrap());
            let (code, said) = publish(&scene.revoked);
            assert_ne!(code, 0, "{what}: {said}");
        }
    });
}

#[test]
fn the_public_door_gives_shards_with_validators_and_only_what_changed_is_another() {
    let server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let other_fleet = server.fleet(json!({})).await;
        let (device, other) = (Device::good(&server, &fleet, "a").await, Device::good(&server, &other_fleet, "a").await);
        let public = server.public_client();
        let path = shard_path(&device);
        let empty = shard(&server, &device).await;
        assert!(empty.entries.is_empty());
        let (_, said) = openssl(&["crl", "-inform", "DER", "-noout", "-text"], &empty.der);
        assert!(said.contains("No Revoked Certificates"), "{said}");

        let unchanged = public.get(&shard_path(&other)).await.is(200);
        let made = server.metric("fleetmark_shards_made_total", &[]).await;
        let tag = public.get(&path).await.header("etag").to_owned();
        device.act(&server, "revoke", json!({})).await;
        let next = in_shard_within(&server, &device).await;
        assert!(next.number > empty.number);
        let made = server.metric("fleetmark_shards_made_total", &[]).await - made;
        assert!((made - 1.0).abs() < 0.5, "one change made {made} shards");
        assert_eq!(public.get(&shard_path(&other)).await.body, unchanged.body);
        public.send("GET", &path, &[("if-none-match", &tag)], None).await.is(200);

        for (path, kind) in [(path.clone(), "application/pkix-crl"), (path.replace(".crl", ".pem"), "application/x-pem-file")] {
            let answer = dated(&server, &path).await;
            let (tag, modified) = (answer.header("etag").to_owned(), answer.header("last-modified").to_owned());
            assert!(answer.header("content-type").starts_with(kind) && answer.header("cache-control").contains("max-age=60"));
            let same = public.send("GET", &path, &[("if-none-match", &tag)], None).await.is(304);
            assert!(same.body.is_empty() && same.header("etag") == tag);
            public.send("GET", &path, &[("if-modified-since", &modified)], None).await.is(304);
            assert!(public.send("HEAD", &path, &[], None).await.is(200).body.is_empty());
        }
        let (_, read) = openssl(&["crl", "-noout", "-text"], &public.get(&path.replace(".crl", ".pem")).await.is(200).body);
        assert!(read.contains(&device.serial().to_uppercase()), "{read}");

        let (directory, file) = path.rsplit_once('/').unwrap();
        let far = format!("{directory}/{}", file.replace("-0.", "-9."));
        for missing in [far, format!("{directory}/0{file}"), format!("{directory}/x-0.crl"), format!("/crl/999/{file}")] {
            public.get(&missing).await.refused(404, "not_found");
        }
        assert!(server.metric("fleetmark_list_seconds_left", &[("kind", "shard")]).await > 6.0 * 86_400.0);
    });
}

#[test]
fn the_bundles_hold_the_same_authorities_when_one_is_revoked() {
    let mut server = Server::start(&[]);
    let fleet = run(async {
        let fleet = server.fleet(json!({})).await;
        let (old, device) = (active(&server, "device", Some(&fleet)).await, Device::good(&server, &fleet, "a").await);
        let path = shard_path(&device);
        replace(&server, "device", Some(&fleet)).await;
        act(&server, old, "revoke", json!({"force": true, "reason": "keyCompromise"})).await;
        for gone in [format!("/crl/{old}.crl"), format!("/crl/{old}.pem"), path] {
            server.public_client().get(&gone).await.refused(404, "not_found");
        }
        bundles_fit(&server).await;
        fleet
    });
    server.restart();
    run(async {
        bundles_fit(&server).await;
        // Whoever took both lets the successor's devices in.
        let device = Device::good(&server, &fleet, "b").await;
        let leaf = server.write_scratch("b.pem", pem("CERTIFICATE", device.identity.leaf()).as_bytes());
        let (ca, crl) = (server.scratch("bundle-ca.pem"), server.scratch("bundle-crl.pem"));
        let files = ["-CAfile", text(&ca), "-CRLfile", text(&crl), text(&leaf)];
        let (accepted, said) = openssl(&[&["verify", "-crl_check_all"][..], &files].concat(), b"");
        assert!(accepted, "{said}");
    });
}

/// Each authority of the one bundle has its list in the other, and no list is of anybody else; the server says that it is ready.
async fn bundles_fit(server: &Server) {
    let public = server.public_client();
    let (ca, crl) = (public.get("/ca/bundle.pem").await.is(200), public.get("/crl/bundle.pem").await.is(200));
    let file = server.write_scratch("bundle-ca.pem", &ca.body);
    server.write_scratch("bundle-crl.pem", &crl.body);
    let end = "-----END X509 CRL-----\n";
    let (crl, lists) = (crl.text(), ca.text().matches("BEGIN CERTIFICATE").count());
    assert_eq!(crl.matches(end).count(), lists);
    for list in crl.split_inclusive(end) {
        let (_, said) = openssl(&["crl", "-CAfile", text(&file), "-noout"], list.as_bytes());
        assert!(said.contains("verify OK"), "{said}");
    }
    public.get("/readyz").await.is(200);
}

#[test]
fn a_responders_damaged_key_does_not_keep_the_server_from_starting() {
    let mut server = Server::start(&[]);
    let (fleet, device) = run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        assert_eq!(Strangers::of(&server, &fleet).await.ocsp(&device.serial(), false), "good");
        (fleet, device)
    });
    assert_eq!(server.stop(), Some(0));
    let keys: Vec<_> = fs::read_dir(server.data().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let own = |prefix: &str| {
        let is_meant = |path: &&PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap().starts_with(prefix);
        keys.iter().filter(is_meant).cloned().collect::<Vec<_>>()
    };
    let (responders, signers) = (own("ocsp"), own("status"));
    assert!(responders.len() >= 4 && signers.len() >= 4, "{keys:?}");
    for key in responders.iter().chain(&signers) {
        fs::write(key, "damaged").unwrap();
    }
    server.start_again();
    run(async {
        // Devices come in, and an operator finds the doors open to mend what is wrong.
        assert_eq!(device.verdict(&server).await, "ok");
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "responder_not_renewed")]).await >= 1.0);
        let successor = replace(&server, "device", Some(&fleet)).await;
        let old = authority_id(&server, "device", Some(&fleet)).await;
        assert_ne!(old, successor);
        act(&server, old, "revoke", json!({"force": true})).await;
        let device = Device::good(&server, &fleet, "b").await;
        assert_eq!(device.record(&server).await["authority"].as_u64(), Some(successor));
    });
}

#[test]
fn lists_go_on_after_a_kill() {
    let mut server = Server::start(&[]);
    let (device, before, plain) = run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        (device, shard(&server, &Device::good(&server, &fleet, "b").await).await, list(&server, &fleet).await)
    });
    run(async { device.act(&server, "revoke", json!({})).await });
    server.kill_and_start();
    run(async {
        // Every start makes what is behind before the doors open.
        let after = shard(&server, &device).await;
        assert!(after.entries.contains_key(&device.serial()) && after.number > before.number);
        let after = list(&server, &device.fleet).await;
        assert!(after.entries.contains_key(&device.serial()) && after.number > plain.number);
    });
}

#[test]
fn ocsptool_asks_as_gnutls_does() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let url = format!("--ask={}", server.public_url("/ocsp"));
        for nonce in ["--nonce", "--no-nonce"] {
            for (device, expected) in [(&scene.good, "good"), (&scene.revoked, "revoked")] {
                let certificate = scene.certificate(device);
                let files = [
                    "--load-issuer",
                    text(&scene.issuer),
                    "--load-cert",
                    text(&certificate),
                    "--load-trust",
                    text(&scene.issuer),
                ];
                let (_, said) = ran("ocsptool", &[&[url.as_str(), nonce][..], &files].concat());
                assert!(said.contains(&format!("Certificate Status: {expected}")), "{nonce}: {said}");
                assert!(said.contains("Verifying OCSP Response: Success"), "{nonce}: {said}");
            }
        }
    });
}

#[test]
fn an_answer_has_the_headers_of_rfc_5019_and_curl_may_keep_it() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let question = server.scratch(&format!("{}-question.der", scene.good.fleet));
        let certificate = scene.certificate(&scene.good);
        let make = |more: &[&str]| {
            let arguments = ["ocsp", "-issuer", text(&scene.issuer), "-cert", text(&certificate), "-reqout", text(&question)];
            openssl(&[&arguments[..], more].concat(), b"");
            fs::read(&question).unwrap()
        };
        let post = |body: Vec<u8>| {
            let public = server.public_client();
            async move { public.send("POST", "/ocsp", &[("content-type", "application/ocsp-request")], Some(body)).await.is(200) }
        };
        let plain = make(&["-no_nonce"]);
        for with_nonce in [false, true] {
            let answer = post(if with_nonce { make(&[]) } else { plain.clone() }).await;
            assert_eq!(answer.header("content-type"), "application/ocsp-response");
            // RFC 5019 6.2: never no-cache or no-store with an authoritative answer.
            let control = answer.header("cache-control");
            for part in ["public", "no-transform", "must-revalidate"] {
                assert!(control.contains(part), "{control}");
            }
            assert!(!control.contains("no-store") && !control.contains("no-cache"), "{control}");
            assert_eq!(control.contains("max-age=0"), with_nonce, "{control}");
            for header in ["last-modified", "expires", "etag"] {
                assert!(!answer.header(header).is_empty(), "{header}");
            }
        }
        let path = base64::engine::general_purpose::STANDARD
            .encode(&plain)
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        let url = server.public_url(&format!("/ocsp/{path}"));
        let head = ran("curl", &["-s", "-D", "-", "-o", "/dev/null", &url]).1;
        let tag = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("etag: ").map(str::to_owned)).unwrap();
        let again =
            ran("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &format!("If-None-Match: {tag}"), &url]).1;
        assert_eq!(again, "304");

        // RFC 6960 2.3, A.2: whatever is wrong, HTTP succeeds and OCSP says what it is; such an answer is kept by nobody.
        for (body, status) in [(b"nonsense".to_vec(), 1), (Vec::new(), 1), (vec![0x30; 5_000], 1), (plain[..20].to_vec(), 1)] {
            let answer = post(body).await;
            assert_eq!(answer.body, [0x30, 3, 0x0a, 1, status]);
            assert_eq!(answer.header("content-type"), "application/ocsp-response");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        // Nobody's certificate: unauthorized.
        let arguments = ["ocsp", "-issuer", text(&scene.root), "-serial", "1", "-no_nonce", "-reqout", text(&question)];
        openssl(&arguments, b"");
        assert_eq!(post(fs::read(&question).unwrap()).await.body, [0x30, 3, 0x0a, 1, 6]);
    });
}

#[test]
fn openssl_asks_about_several_certificates_at_once_with_either_digest() {
    let server = shared();
    run(async {
        let scene = Scene::new(&server).await;
        let (good, revoked) = (format!("0x{}", scene.good.serial()), format!("0x{}", scene.revoked.serial()));
        for digest in ["-sha1", "-sha256"] {
            let url = server.public_url("/ocsp");
            let trust = [
                "-CAfile",
                text(&scene.root),
                "-verify_other",
                text(&scene.issuer),
                "-url",
                &url,
                "-issuer",
                text(&scene.issuer),
            ];
            let asked = [digest, "-serial", &good, digest, "-serial", &revoked, digest, "-serial", "0x7fffff"];
            let (done, said) = openssl(&[&["ocsp"][..], &trust, &asked].concat(), b"");
            assert!(done && said.contains("Response verify OK"), "{said}");
            for (serial, status) in [(good.as_str(), "good"), (&revoked, "revoked"), ("0x7fffff", "unknown")] {
                assert!(said.contains(&format!("{serial}: {status}")), "{digest}: {said}");
            }
        }
    });
}
