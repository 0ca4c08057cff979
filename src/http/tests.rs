//! The doors of a whole installation, judged by curl and openssl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::RevocationReason;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::testing::{Answer, Installation};
use crate::pki::testing::openssl;
use crate::registrar::standing::{Change, Target};
use crate::telemetry::clock::{Clock, SystemClock};

const JSON: [&str; 2] = ["-H", "content-type: application/json"];

fn post(stage: &Installation, url: &str, body: &Value, more: &[&str]) -> Answer {
    let body = body.to_string();
    stage.curl(&[&JSON[..], &["-d", &body, url], more].concat())
}

/// Enrolls a device over REST and keeps its certificate as `NAME.pem`.
async fn enroll(stage: &Installation, name: &str) -> Answer {
    let (token, csr) = (stage.token(None).await, stage.key(name));
    let bearer = format!("authorization: Bearer {token}");
    let url = stage.device("/v1/fleets/default/enroll");
    let answer = post(stage, &url, &json!({ "csr": csr, "device": name }), &["-H", &bearer]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    std::fs::write(stage.path(&format!("{name}.pem")), answer.json()["certificate"].as_str().unwrap()).unwrap();
    answer
}

/// curl's arguments to come with the certificate of `name`.
fn with(stage: &Installation, name: &str) -> [String; 4] {
    let file = |suffix| stage.path(&format!("{name}.{suffix}")).display().to_string();
    ["--cert".to_owned(), file("pem"), "--key".to_owned(), file("key")]
}

fn text(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrolls_confirms_and_renews_over_rest() {
    let stage = Installation::open(0).await;
    let token = stage.token(Some("sensor-01")).await;
    let csr = stage.key("sensor-01");
    let bearer = format!("authorization: bearer {token}");
    let url = stage.device("/v1/fleets/default/enroll");
    let first = post(&stage, &url, &json!({ "csr": csr }), &["-H", &bearer]);
    assert_eq!(first.status, 200, "{}", first.text());
    let body = first.json();
    assert_eq!(body["identity"], "spiffe://fleet.example/device/default/sensor-01");
    assert_eq!((&body["standing"], &body["generation"], &body["replayed"]), (&json!("unconfirmed"), &json!(1), &json!(false)));
    assert_eq!(first.header("cache-control").as_deref(), Some("no-store"));
    assert_eq!(first.header("x-content-type-options").as_deref(), Some("nosniff"));
    assert!(first.header("x-request-id").is_some());
    let again = post(&stage, &url, &json!({ "csr": csr }), &["-H", &bearer]).json();
    assert_eq!((&again["serial"], &again["replayed"]), (&body["serial"], &json!(true)));

    let confirm = stage.device("/v1/fleets/default/confirm");
    let confirmed = post(&stage, &confirm, &json!({ "fingerprint": body["fingerprint"] }), &["-H", &bearer]);
    assert_eq!((confirmed.status, &confirmed.json()["standing"]), (200, &json!("good")), "{}", confirmed.text());
    std::fs::write(stage.path("sensor-01.pem"), body["certificate"].as_str().unwrap()).unwrap();
    let own = with(&stage, "sensor-01");
    let by_certificate = stage.curl(&[&text(&own)[..], &["-X", "POST", &confirm]].concat());
    assert_eq!(by_certificate.status, 200, "{}", by_certificate.text());

    let renewal = json!({ "csr": stage.key("next") });
    let renewed = post(&stage, &stage.device("/v1/fleets/default/renew"), &renewal, &text(&own));
    assert_eq!((renewed.status, &renewed.json()["generation"]), (200, &json!(2)), "{}", renewed.text());
    let other_fleet = post(&stage, &stage.device("/v1/fleets/other/renew"), &renewal, &text(&own));
    assert_eq!((other_fleet.status, other_fleet.code().as_str()), (403, "wrong_fleet"));
    let nobody = post(&stage, &stage.device("/v1/fleets/default/renew"), &renewal, &[]);
    assert_eq!((nobody.status, nobody.code().as_str()), (401, "certificate_required"));
    assert!(stage.curl(&[&stage.device("/v1/time")]).json()["server_time"].as_str().unwrap().ends_with('Z'));
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrolls_and_renews_over_est() {
    let stage = Installation::open(0).await;
    let anchors = stage.curl(&[&stage.device("/.well-known/est/cacerts")]);
    assert_eq!(anchors.status, 200);
    assert_eq!(anchors.header("content-type").as_deref(), Some("application/pkcs7-mime; smime-type=certs-only"));
    assert!(!anchors.text().contains('\n'), "base64 is one line");
    let listed = openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &STANDARD.decode(&anchors.body).unwrap()).unwrap();
    assert_eq!(String::from_utf8_lossy(&listed).matches("BEGIN CERTIFICATE").count(), 2);

    let token = stage.token(Some("sensor-02")).await;
    stage.key("sensor-02");
    let der = |name: &str| {
        let key = stage.path(&format!("{name}.key")).display().to_string();
        openssl(&["req", "-new", "-key", &key, "-subj", "/CN=sensor-02", "-outform", "DER"], b"").unwrap()
    };
    let line = STANDARD.encode(der("sensor-02"));
    let lines: Vec<_> = line.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let wrapped = lines.join(
        "
",
    );
    let type_ = ["-H", "content-type: application/pkcs10; charset=us-ascii"];
    let (user, url) = (format!("sensor-02:{token}"), stage.device("/.well-known/est/default/simpleenroll"));
    for body in [&line, &wrapped] {
        let answer = stage.curl(&[&type_[..], &["-u", &user, "--data-binary", body, &url]].concat());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-length").unwrap(), answer.body.len().to_string());
        let der = STANDARD.decode(&answer.body).unwrap();
        let pem = openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &der).unwrap();
        assert!(String::from_utf8_lossy(&pem).contains("CN = sensor-02"));
        std::fs::write(stage.path("sensor-02.pem"), pem).unwrap();
    }
    let own = with(&stage, "sensor-02");
    let again = stage.device("/.well-known/est/simplereenroll");
    stage.key("next");
    let renewed = stage.curl(&[&text(&own)[..], &type_, &["--data-binary", &STANDARD.encode(der("next")), &again]].concat());
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let named = stage.key("sensor-03");
    let other = stage.curl(&[&text(&own)[..], &type_, &["--data-binary", &named, &again]].concat());
    assert_eq!((other.status, other.text().split(':').next().unwrap()), (422, "subject_changed"), "{}", other.text());
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn est_refuses_in_one_line_of_text() {
    let stage = Installation::open(0).await;
    let csr = stage.key("x");
    let large = "A".repeat(40_000);
    let type_ = "content-type: application/pkcs10";
    let user = format!("x:{}", stage.token(None).await);
    let long = "a".repeat(3000);
    let cases: [(&str, &[&str], u16, &str); 12] = [
        ("simpleenroll", &["-H", type_, "-d", &csr], 401, "proof_required"),
        ("simpleenroll", &["-H", type_, "-u", "x:nothing", "-d", &csr], 401, "token_unknown"),
        ("simpleenroll", &["-H", type_, "-u", "../x:nothing", "-d", &csr], 422, "invalid_name"),
        ("simpleenroll", &["-H", type_, "-H", "authorization: Basic %%%", "-d", &csr], 400, "malformed_request"),
        ("simpleenroll", &["-u", &user, "-d", &csr], 415, "media_type_not_supported"),
        ("simpleenroll", &["-H", type_, "-u", &user, "-d", &large], 413, "body_too_large"),
        ("simpleenroll", &["-H", type_, "-u", &user, "-d", "no request"], 400, "csr_malformed"),
        ("simplereenroll", &["-H", type_, "-d", &csr], 401, "certificate_required"),
        ("serverkeygen", &["-H", type_, "-u", &user, "-d", &csr], 403, "server_keygen_off"),
        ("fullcmc", &["-H", type_, "-d", &csr], 404, "not_found"),
        ("simpleenroll", &[], 405, "method_not_allowed"),
        (&long, &[], 414, "uri_too_long"),
    ];
    for (operation, arguments, status, code) in cases {
        let answer = stage.curl(&[arguments, &[&stage.device(&format!("/.well-known/est/{operation}"))]].concat());
        let line = answer.text();
        assert_eq!((answer.status, line.split(':').next().unwrap()), (status, code), "{operation} {line}");
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(answer.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        let challenge = (status == 401).then_some("Basic realm=\"fleetmark\"");
        assert_eq!(answer.header("www-authenticate").as_deref(), challenge);
        assert_eq!(answer.header("allow").as_deref(), (status == 405).then_some("POST"));
    }
    let label = |label: &str| stage.curl(&[&stage.device(&format!("/.well-known/est/{label}/cacerts"))]);
    assert!(label("nowhere").text().starts_with("fleet_unknown: "));
    assert!(label("..%2fdefault").text().starts_with("invalid_name: "));
    assert!(stage.curl(&[&stage.device("/.well-known/est/nowhere/csrattrs")]).text().starts_with("fleet_unknown: "));
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_get_problem_documents() {
    let stage = Installation::open(0).await;
    let csr = stage.key("x");
    let good = json!({ "csr": csr, "device": "x" }).to_string();
    let large = json!({ "csr": "A".repeat(70_000) }).to_string();
    let unknown = json!({ "csr": csr, "admin": true }).to_string();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let bearer = format!("authorization: Bearer {}", stage.token(None).await);
    let long = format!("/v1/{}", "a".repeat(3000));
    let name = |name: &str| json!({ "csr": csr, "device": name }).to_string();
    let (path, slash, control) = (name("../x"), name("a/b"), name("a\u{7}b"));
    let enroll = "/v1/fleets/default/enroll";
    let (json, proof) = (JSON[1], bearer.as_str());
    let cases: [(&str, &[&str], u16, &str); 19] = [
        (enroll, &["-H", json, "-d", &good], 401, "proof_required"),
        (enroll, &["-H", json, "-H", "authorization: Bearer fmt_x", "-d", &good], 401, "token_unknown"),
        (enroll, &["-H", json, "-H", "authorization: Digest x", "-d", &good], 401, "proof_required"),
        (enroll, &["-H", json, "-H", "authorization: Bearer", "-d", &good], 400, "malformed_request"),
        (enroll, &["-H", "content-type: text/plain", "-H", proof, "-d", &good], 415, "media_type_not_supported"),
        (enroll, &["-H", json, "-H", proof, "-d", &large], 413, "body_too_large"),
        (enroll, &["-H", json, "-H", "transfer-encoding: chunked", "-H", proof, "-d", &large], 413, "body_too_large"),
        (enroll, &["-H", json, "-H", proof, "-d", &unknown], 400, "malformed_request"),
        (enroll, &["-H", json, "-H", proof, "-d", &deep], 400, "malformed_request"),
        (enroll, &["-H", json, "-H", proof, "-d", "{"], 400, "malformed_request"),
        (enroll, &["-H", json, "-H", proof, "-d", "{\"csr\":\"x\",\"csr\":\"y\"}"], 400, "malformed_request"),
        (enroll, &["-H", json, "-H", proof, "-d", "{\"csr\":\"\"}"], 400, "csr_malformed"),
        (enroll, &["-H", json, "-H", proof, "-d", &path], 422, "invalid_name"),
        (enroll, &["-H", json, "-H", proof, "-d", &slash], 422, "invalid_name"),
        (enroll, &["-H", json, "-H", proof, "-d", &control], 422, "invalid_name"),
        ("/v1/fleets/a%2fb/enroll", &["-H", json, "-H", proof, "-d", &good], 422, "invalid_name"),
        (enroll, &[], 405, "method_not_allowed"),
        ("/v1/nothing", &[], 404, "not_found"),
        (&long, &[], 414, "uri_too_long"),
    ];
    for (path, arguments, status, code) in cases {
        let answer = stage.curl(&[arguments, &[&stage.device(path)]].concat());
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {:.200}", answer.text());
        assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
        assert_eq!(answer.json()["status"], json!(status));
        assert_eq!(answer.header("www-authenticate").as_deref(), (status == 401).then_some("Bearer"));
        assert_eq!(answer.header("allow").as_deref(), (status == 405).then_some("POST"));
    }
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_door_publishes_what_openssl_reads() {
    let stage = Installation::open(0).await;
    let device = enroll(&stage, "sensor-01").await.json();
    let root = stage.curl(&[&stage.public("/ca/root.crt")]);
    assert_eq!(root.header("content-type").as_deref(), Some("application/pkix-cert"));
    openssl(&["x509", "-inform", "DER", "-noout"], &root.body).unwrap();
    let authorities = stage.registrar.authorities().all().len();
    assert_eq!(stage.curl(&[&stage.public("/ca/bundle.pem")]).text().matches("BEGIN CERTIFICATE").count(), authorities);
    let lists = stage.curl(&[&stage.public("/crl/bundle.pem")]);
    assert_eq!(lists.text().matches("BEGIN X509 CRL").count(), authorities, "the root's is among them");
    let chain = stage.curl(&[&stage.public("/ca/bundle.pem")]).text();
    std::fs::write(stage.path("ca.pem"), &chain).unwrap();
    std::fs::write(stage.path("crl.pem"), lists.text()).unwrap();
    let file = |name: &str| stage.path(name).display().to_string();
    let (ca, crl, leaf) = (file("ca.pem"), file("crl.pem"), file("sensor-01.pem"));
    openssl(&["verify", "-x509_strict", "-crl_check_all", "-CAfile", &ca, "-CRLfile", &crl, &leaf], b"").unwrap();

    let tag = lists.header("etag").unwrap();
    let not_modified = |header: String| stage.curl(&["-H", &header, &stage.public("/crl/bundle.pem")]);
    assert_eq!(not_modified(format!("if-none-match: \"x\", {tag}")).status, 304);
    assert_eq!(not_modified("if-none-match: \"x\"".to_owned()).status, 200);
    assert_eq!(lists.header("last-modified"), None, "a list that leaves the bundle changes it");
    assert!(lists.header("cache-control").unwrap().contains("max-age="));
    assert_eq!(stage.curl(&["-I", &stage.public("/crl/1.crl")]).status, 200);
    for (path, status) in [("/ca/01.crt", 404), ("/ca/99.crt", 404), ("/crl/root.crt", 404), ("/ca/bundle.crt", 404)] {
        assert_eq!(stage.curl(&[&stage.public(path)]).status, status, "{path}");
    }
    std::fs::write(stage.path("issuer.pem"), device["chain"].as_str().unwrap()).unwrap();
    ocsp(&stage, &file("issuer.pem"), &leaf, &ca);
    assert_eq!(stage.curl(&[&stage.public("/healthz")]).json(), json!({ "alive": true }));
    let ready = stage.curl(&[&stage.public("/readyz")]);
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)), "{}", ready.text());
    stage.running.stop().await;
}

/// OCSPResponseStatus malformedRequest (RFC 6960 4.2.1)
const MALFORMED: &[u8] = &[0x30, 3, 0x0a, 1, 1];

/// GET and POST, judged by `openssl ocsp`.
fn ocsp(stage: &Installation, issuer: &str, leaf: &str, ca: &str) {
    let question = stage.path("question.der").display().to_string();
    let url = stage.public("/ocsp");
    let ask = ["ocsp", "-issuer", issuer, "-cert", leaf, "-url", &url, "-CAfile", ca, "-resp_text"];
    let verdict = String::from_utf8(openssl(&ask, b"").unwrap()).unwrap();
    assert!(verdict.contains(": good"), "{verdict}");
    openssl(&["ocsp", "-issuer", issuer, "-cert", leaf, "-no_nonce", "-reqout", &question], b"").unwrap();
    let der = std::fs::read(&question).unwrap();
    let (plain, unpadded) = (STANDARD.encode(&der), STANDARD.encode(&der).trim_end_matches('=').to_owned());
    let encoded = plain.replace('/', "%2F").replace('+', "%2b").replace('=', "%3D");
    for path in [plain, unpadded, encoded] {
        let answer = stage.curl(&[&stage.public(&format!("/ocsp/{path}"))]);
        let file = stage.path("answer.der").display().to_string();
        std::fs::write(&file, &answer.body).unwrap();
        let read = ["ocsp", "-respin", &file, "-issuer", issuer, "-cert", leaf, "-CAfile", ca];
        assert!(String::from_utf8(openssl(&read, b"").unwrap()).unwrap().contains(": good"));
        assert!(answer.header("cache-control").unwrap().contains("no-transform"));
        assert_eq!(answer.header("content-type").as_deref(), Some("application/ocsp-response"));
        // What is around every request is around those that go past the application.
        assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
        assert!(answer.header("x-request-id").is_some());
        let tag = format!("if-none-match: {}", answer.header("etag").unwrap());
        assert_eq!(stage.curl(&["-H", &tag, &stage.public(&format!("/ocsp/{path}"))]).status, 304);
        let head = stage.curl(&["-I", &stage.public(&format!("/ocsp/{path}"))]);
        assert_eq!((head.status, head.header("content-length")), (200, answer.header("content-length")));
    }
    let large = "A".repeat(5000);
    assert_eq!(stage.curl(&["--data-binary", "nothing", &stage.public("/ocsp")]).body, MALFORMED);
    assert_eq!(stage.curl(&["--data-binary", &large, &stage.public("/ocsp")]).body, MALFORMED);
    assert_eq!(
        stage.curl(&["-H", "transfer-encoding: chunked", "--data-binary", &large, &stage.public("/ocsp")]).body,
        MALFORMED
    );
    assert_eq!(stage.curl(&[&stage.public("/ocsp/%zz")]).body, MALFORMED);
    for (path, method, allow) in
        [("/ocsp", "GET", "POST"), ("/ocsp/AAAA", "POST", "GET, HEAD"), ("/ocsp/AAAA", "DELETE", "GET, HEAD")]
    {
        let answer = stage.curl(&["-X", method, &stage.public(path)]);
        assert_eq!(
            (answer.code().as_str(), answer.header("allow").as_deref()),
            ("method_not_allowed", Some(allow)),
            "{method} {path}"
        );
    }
    assert_eq!(stage.curl(&[&stage.public(&format!("/ocsp/{}", "A".repeat(3_000)))]).code(), "uri_too_long");
    // A body that nobody wants does not end the connection: the second request needs no other.
    let second = ["--next", "-sS", "-w", "%{num_connects}", "--data-binary", "nothing", &url];
    let answers = stage.curl(&[&["--data-binary", &large, &url][..], &second].concat());
    assert_eq!(answers.body, [MALFORMED, MALFORMED, b"0"].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rescue_socket_gives_an_operator_a_new_key() {
    let stage = Installation::open(0).await;
    let socket = stage.path("rescue.sock").display().to_string();
    let body = json!({ "operator": "alice", "csr": stage.key("new") });
    let answer = post(&stage, "http://rescue/v1/recover", &body, &["--unix-socket", &socket]);
    assert_eq!((answer.status, &answer.json()["identity"]), (200, &json!("spiffe://fleet.example/operator/alice")));
    let nobody = json!({ "operator": "nobody", "csr": stage.key("newer") });
    assert_eq!(post(&stage, "http://rescue/v1/recover", &nobody, &["--unix-socket", &socket]).status, 404);
    stage.running.stop().await;
    assert!(!stage.path("rescue.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_enroll_are_limited_by_address() {
    let stage = Installation::open(3).await;
    let url = stage.device("/v1/fleets/default/enroll");
    let attempt = || post(&stage, &url, &json!({ "csr": "" }), &["-H", "authorization: Bearer fmt_x"]);
    let answers: Vec<Answer> = (0..6).map(|_| attempt()).collect();
    assert!(answers.iter().take(3).all(|answer| answer.status == 401));
    let limited = answers.iter().find(|answer| answer.status == 429).expect("the fourth in a second is refused");
    assert_eq!(limited.code(), "rate_limited");
    assert!(limited.header("retry-after").is_some());
    assert_eq!(stage.curl(&[&stage.device("/v1/time")]).status, 200, "nothing else is limited");
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doors_speak_http_1_1_alone() {
    let stage = Installation::open(0).await;
    for url in [stage.device("/v1/time"), stage.public("/healthz")] {
        let answer = stage.curl(&["--http2", &url]);
        assert!(answer.head.starts_with("HTTP/1.1 200"), "{}", answer.head);
    }
    assert!(stage.try_curl(&["--http2-prior-knowledge", &stage.public("/healthz")]).is_err());
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_cannot_resume_a_session() {
    let stage = Installation::open(0).await;
    enroll(&stage, "sensor-01").await;
    let address = format!("localhost:{}", stage.addresses.device[0].port());
    let own = with(&stage, "sensor-01");
    let root = stage.path("root.pem").display().to_string();
    let connect = ["s_client", "-connect", &address, "-CAfile", &root, "-cert", &own[1], "-key", &own[3]];
    for version in ["-tls1_2", "-tls1_3"] {
        let seen = openssl(&[&connect[..], &[version, "-reconnect"]].concat(), b"").unwrap();
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.contains("New, TLS") && seen.contains("Verify return code: 0 (ok)"), "{seen}");
        assert!(!seen.contains("Reused, TLS"), "{seen}");
        assert!(!seen.contains("New Session Ticket arrived"), "{seen}");
    }
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_open_the_doors_that_they_are_for() {
    let stage = Installation::open(0).await;
    enroll(&stage, "sensor-01").await;
    let admin = format!("https://localhost:{}/v1/whoami", stage.addresses.admin[0].port());
    let (operator, device) = (with(&stage, "alice"), with(&stage, "sensor-01"));
    let answer = stage.curl(&[&text(&operator)[..], &[&admin]].concat());
    assert_eq!((answer.status, &answer.json()["role"]), (200, &json!("owner")), "{}", answer.text());
    assert!(stage.try_curl(&[&text(&device)[..], &[&admin]].concat()).is_err(), "refused at the handshake");
    assert!(stage.try_curl(&[&admin]).is_err(), "refused at the handshake");
    let renewal = post(&stage, &stage.device("/v1/fleets/default/renew"), &json!({ "csr": stage.key("b") }), &text(&operator));
    assert_eq!((renewal.status, renewal.code().as_str()), (403, "wrong_kind"));

    let file = |name: &str| stage.path(name).display().to_string();
    let (key, certificate) = (file("foreign.key"), file("foreign.pem"));
    let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", &key, "-out", &certificate];
    openssl(&make, b"").unwrap();
    let foreign = with(&stage, "foreign");
    assert!(stage.try_curl(&[&text(&foreign)[..], &[&stage.device("/v1/time")]].concat()).is_err());
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_counts_on_a_connection_that_is_open() {
    let stage = Installation::open(0).await;
    let device = enroll(&stage, "sensor-01").await.json();
    let own = with(&stage, "sensor-01");
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(rustls_client(&stage, &own))
        .pool_max_idle_per_host(1)
        .build()
        .unwrap();
    let confirm = || async {
        let answer = client.post(stage.device("/v1/fleets/default/confirm")).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].clone())
    };
    assert_eq!(confirm().await, (200, Value::Null));
    let serial = device["serial"].as_str().unwrap().parse().unwrap();
    let (target, change) = (Target::Certificate(serial), Change::Revoke(RevocationReason::KeyCompromise));
    stage.registrar.change_standing(&stage.operator, target, change, "", SystemClock.now()).await.unwrap();
    assert_eq!(confirm().await, (403, json!("revoked")));
    stage.running.stop().await;
}

/// A client with the certificate and key in `own` (as [`with`] gives them).
fn rustls_client(stage: &Installation, own: &[String; 4]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(stage.path("root.pem")).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&own[1]).unwrap()],
            PrivateKeyDer::from_pem_file(&own[3]).unwrap(),
        )
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_and_others_are_served() {
    let stage = Installation::open(0).await;
    let (address, socket) = (stage.addresses.public[0], stage.path("rescue.sock"));
    let head = std::thread::spawn(move || talk(TcpStream::connect(address).unwrap(), "GET /healthz HTTP/1.1\r\nhost: x\r\n"));
    let body = std::thread::spawn(move || {
        let request = "POST /v1/recover HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
        talk(UnixStream::connect(socket).unwrap(), request)
    });
    assert_eq!(stage.curl(&[&stage.public("/healthz")]).status, 200);
    let (answer, took) = head.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && took < Duration::from_secs(9), "{took:?} {answer}");
    let (answer, took) = body.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"request_timeout\""), "{answer}");
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(40), "{took:?}");
    stage.running.stop().await;
}

/// Says these words, and reads until the server hangs up.
fn talk(mut stream: impl Read + Write, words: &str) -> (String, Duration) {
    let started = Instant::now();
    stream.write_all(words.as_bytes()).unwrap();
    let mut answer = String::new();
    // An end by reset is an end too.
    let _ = stream.read_to_string(&mut answer);
    (answer, started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_no_more_in_and_ends_in_time() {
    let stage = Installation::open(0).await;
    // A client that keeps its connection open does not hold the server.
    let mut idle = TcpStream::connect(stage.addresses.public[0]).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut octets = [0; 512];
    assert!(idle.read(&mut octets).unwrap() > 0);
    let started = Instant::now();
    stage.running.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(stage.try_curl(&[&stage.public("/healthz")]).unwrap_err().status.code(), Some(7), "connection refused");
}
