//! The endpoint over a real socket, asked by another implementation of HTTP.

use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Epoch, Index, Kind, Serial, Standing, Timestamp};
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_policy::{DEFAULT_FLEET, DEFAULT_INSTALLATION, Set};
use metrics_exporter_prometheus::PrometheusBuilder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, SerialNumber};
use reqwest::{Client, Response};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Listener, Running, State};
use crate::config::Place;
use crate::judge::{Judge, Presented};
use crate::testing::Double;

const NOW: Timestamp = Timestamp(1_800_000_000);
const URI: &str = "spiffe://fleet.test/device/default/sensor-01";

/// A gateway that knows one device, and its endpoint at a Unix socket and at loopback.
struct World {
    double: Double,
    pem: String,
    der: Vec<u8>,
    issuer: String,
    serial: Serial,
    unix: Client,
    metrics: String,
    running: Option<Running>,
    directory: tempfile::TempDir,
}

fn certificates(serial: &Serial) -> (CertificateDer<'static>, rcgen::Certificate) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.octets()));
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW.0 - 60).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW.0 + 60).unwrap();
    params.subject_alt_names = vec![SanType::URI(URI.try_into().unwrap())];
    params.use_authority_key_identifier_extension = true;
    (authority, params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap())
}

impl World {
    fn start(max_requests: usize) -> Self {
        Self::knowing(Standing::Good, max_requests)
    }

    fn knowing(standing: Standing, max_requests: usize) -> Self {
        // Refused the second time, which changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let double = Double::new(&["default"]);
        let serial = Serial::new(Epoch(1), Index(0), [3; 8]);
        let (authority, device) = certificates(&serial);
        double.authority(1, AuthorityKind::Of(Kind::Device), AuthorityState::Active, &authority);
        double.certificate("default", Epoch(1), Index(0), 1, device.der(), standing, 7);
        double.policy("system", Arc::new(Set::compile(DEFAULT_INSTALLATION).unwrap()));
        double.policy("default", Arc::new(Set::compile(DEFAULT_FLEET).unwrap()));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("verdict.sock");
        let verdicts = Listener::bind(&Place::Unix(path.clone())).unwrap();
        let metrics = Listener::bind(&Place::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = metrics.address().unwrap();
        let state = State {
            judge: Judge::new(double.knowledge()),
            knowledge: double.knowledge(),
            max_requests,
            clock: Arc::new(|| NOW),
            report: Arc::new(|| (None, Vec::new())),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        };
        let running = super::start(verdicts, Some(metrics), state).unwrap();
        let issuer = hex::encode(Presented::parse(device.der()).unwrap().authority_key);
        Self {
            double,
            pem: device.pem(),
            der: device.der().to_vec(),
            issuer,
            serial,
            unix: Client::builder().no_proxy().unix_socket(path.as_path()).build().unwrap(),
            metrics: format!("http://{address}"),
            running: Some(running),
            directory,
        }
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        let request = self.unix.post("http://gateway/v1/verdict").header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    }

    async fn ask(&self, question: &Value) -> Value {
        let response = self.post(question.to_string()).await;
        assert_eq!(response.status(), 200, "{question}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        response.json().await.unwrap()
    }
}

#[actix_web::test]
async fn what_nobody_has_shown_the_key_of_is_not_reported() {
    let world = World::knowing(Standing::Unconfirmed, 10);
    let mut question = json!({ "certificate": world.pem, "action": "connect", "sighting": false });
    assert_eq!(world.ask(&question).await["decision"], "allow");
    assert_eq!(world.double.sightings("default"), 0);
    question["sighting"] = json!(true);
    assert_eq!(world.ask(&question).await["decision"], "allow");
    assert_eq!(world.double.sightings("default"), 1);
}

#[actix_web::test]
async fn verdicts_have_every_field() {
    use base64::Engine as _;
    let mut world = World::start(10);
    let answer = world.ask(&json!({ "certificate": world.pem, "action": "connect", "protocol": "mqtt" })).await;
    let fields = ["age_ms", "decision", "identity", "ledger", "policies", "position", "reason", "standing", "valid_until"];
    let mut told: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    told.sort_unstable();
    assert_eq!(told, fields);
    assert_eq!((&answer["decision"], &answer["reason"]), (&json!("allow"), &json!("allowed")));
    assert_eq!((&answer["identity"], &answer["standing"]), (&json!(URI), &json!("good")));
    assert_eq!((&answer["ledger"], &answer["policies"]), (&json!("default"), &json!(["fleet/connect"])));
    assert_eq!(answer["valid_until"], json!((NOW + Duration::from_secs(60)).to_string()));
    let der = base64::engine::general_purpose::STANDARD.encode(&world.der);
    let chain = format!("{}{}", world.pem, world.pem);
    for certificate in [der.as_str(), chain.as_str()] {
        let question = json!({ "certificate": certificate, "action": "publish", "topic": "default/sensor-01/t" });
        assert_eq!(world.ask(&question).await["decision"], "allow");
    }
    let topic = json!({ "certificate": world.pem, "action": "subscribe", "topic": "default/+/t", "source": "192.0.2.1" });
    assert_eq!(world.ask(&topic).await["reason"], "policy_denied");
    world.double.make_stale("default");
    assert_eq!(world.ask(&json!({ "certificate": world.pem, "action": "connect" })).await["reason"], "ledger_stale");
    world.running.take().unwrap().stop().await;
    assert_eq!(std::fs::read_dir(world.directory.path()).unwrap().count(), 0, "the socket is gone");
}

#[actix_web::test]
async fn what_is_no_certificate_is_denied_and_a_serial_never_allows() {
    let world = World::start(10);
    let long = "A".repeat(24_000);
    for certificate in ["", "MAA=", "no base64", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", &long] {
        let answer = world.ask(&json!({ "certificate": certificate, "action": "connect" })).await;
        assert_eq!((&answer["decision"], &answer["reason"]), (&json!("deny"), &json!("certificate_malformed")));
        assert_eq!((&answer["identity"], &answer["standing"]), (&Value::Null, &Value::Null));
    }
    let place = json!({ "issuer": world.issuer, "serial": world.serial.to_string(), "action": "connect" });
    let answer = world.ask(&place).await;
    assert_eq!((&answer["decision"], &answer["reason"]), (&json!("deny"), &json!("certificate_required")));
    assert_eq!((&answer["standing"], &answer["identity"]), (&json!("good"), &Value::Null));
}

#[actix_web::test]
async fn malformed_requests_are_problems() {
    let world = World::start(10);
    let good = json!({ "certificate": "MAA=", "action": "connect" });
    let with = |changes: Value| {
        let mut question = good.clone();
        for (key, value) in changes.as_object().unwrap() {
            question[key] = value.clone();
        }
        question.to_string()
    };
    let cases = [
        (400, "malformed_request", "{".to_owned()),
        (400, "malformed_request", "[]".to_owned()),
        (400, "malformed_request", "[".repeat(30_000)),
        (400, "malformed_request", "{}".to_owned()),
        (400, "malformed_request", json!({ "action": "connect" }).to_string()),
        (400, "malformed_request", with(json!({ "colour": "red" }))),
        (400, "malformed_request", with(json!({ "serial": world.serial.to_string() }))),
        (
            400,
            "malformed_request",
            json!({ "issuer": "zz", "serial": world.serial.to_string(), "action": "connect" }).to_string(),
        ),
        (400, "malformed_request", json!({ "issuer": "00", "serial": "02", "action": "connect" }).to_string()),
        (400, "malformed_request", with(json!({ "source": "localhost" }))),
        (422, "invalid_value", with(json!({ "action": "fly" }))),
        (422, "invalid_value", with(json!({ "action": "publish" }))),
        (422, "invalid_value", with(json!({ "topic": "a" }))),
        (422, "invalid_value", with(json!({ "action": "publish", "topic": "a\u{0}b" }))),
        (422, "invalid_value", with(json!({ "action": "publish", "topic": "x".repeat(5000) }))),
        (422, "invalid_value", with(json!({ "protocol": "" }))),
        (413, "body_too_large", format!("{}{}", " ".repeat(33_000), good)),
    ];
    for (status, code, body) in cases {
        let response = world.post(body.clone()).await;
        assert_eq!(response.status(), status, "{body:.60}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{body:.60}");
        assert_eq!(problem["type"], format!("urn:fleetmark:problem:{code}"));
    }
    // A page in a browser can send this one unasked; it is not read.
    let plain = world.unix.post("http://gateway/v1/verdict").header("content-type", "text/plain").body(good.to_string());
    assert_eq!(plain.send().await.unwrap().status(), 415);
    let response = world.unix.get("http://gateway/v1/verdict").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(world.unix.get("http://gateway/v1/x").send().await.unwrap().status(), 404);
    assert_eq!(world.unix.get("http://gateway/metrics").send().await.unwrap().status(), 404, "metrics have their own place");
}

#[actix_web::test]
async fn there_is_a_most_of_requests_at_a_time() {
    let world = Arc::new(World::start(1));
    // A serial that nobody knows makes the first wait for news.
    let unknown = Serial::new(Epoch(1), Index(9), [0; 8]).to_string();
    let question = json!({ "issuer": world.issuer, "serial": unknown, "action": "connect" });
    let (first, asked) = (Arc::clone(&world), question.clone());
    let first = actix_web::rt::spawn(async move { first.ask(&asked).await });
    while !world.double.is_fetch_wanted() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = world.post(question.to_string()).await;
    assert_eq!((second.status().as_u16(), second.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    world.double.answer_fetch();
    assert_eq!(first.await.unwrap()["reason"], "not_on_ledger");
    assert_eq!(world.post(json!({ "certificate": "MAA=", "action": "connect" }).to_string()).await.status(), 200);
}

#[actix_web::test]
async fn health_and_status_say_what_is_stale() {
    let world = World::start(10);
    let health = async || {
        let response = world.unix.get("http://gateway/healthz").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(health().await, (200, "ok\n".to_owned()));
    world.double.make_stale("default");
    world.double.broken("system", true);
    assert_eq!(health().await, (503, "ledger_broken system\nledger_stale default\n".to_owned()));
    let status: super::Status = world.unix.get("http://gateway/v1/status").send().await.unwrap().json().await.unwrap();
    let [system, default] = status.ledgers.as_slice() else { panic!("two ledgers: {status:?}") };
    assert!(system.ledger == "system" && system.broken && !system.stale && system.position > 0);
    assert!(default.ledger == "default" && default.stale && !default.broken);
    assert!(default.age_ms > Some(default.max_age_ms));
    assert_eq!(Client::new().get(format!("{}/metrics", world.metrics)).send().await.unwrap().status(), 200);
    assert_eq!(Client::new().get(format!("{}/v1/status", world.metrics)).send().await.unwrap().status(), 404);
}
