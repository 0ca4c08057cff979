//! The handlers over a registrar and a store: what operators do in a day.

use std::sync::Arc;

use actix_web::App;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::test::{self, TestRequest};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::http::State;
use crate::ledger::Publisher;
use crate::pki::csr::VerifiedCsr;
use crate::pki::issue::facts;
use crate::pki::keys::Keys;
use crate::pki::profile::Profiles;
use crate::registrar::Registrar;
use crate::registrar::caller::{Caller, Peer};
use crate::registrar::enroll::EnrollRequest;
use crate::registrar::install::Parts;
use crate::registrar::proofs::Shown;
use crate::registrar::tokens::PresentedToken;
use crate::store::SharedHeadSigner;
use crate::store::location::{StoreLocation, open};
use crate::telemetry::clock::{SharedClock, SystemClock};

/// The registrar of the installation in a directory.
async fn registrar(directory: &std::path::Path) -> Registrar {
    let clock: SharedClock = Arc::new(SystemClock);
    let now = clock.now();
    let publisher = Arc::new(Publisher::new(Arc::clone(&clock)));
    let place: StoreLocation = format!("sqlite:{}", directory.join("store").display()).parse().unwrap();
    let signer: SharedHeadSigner = publisher.clone();
    // The threads of a store that was stopped a moment ago may hold its lock still.
    let mut opened = open(place.clone(), signer.clone()).await;
    for _ in 0..500 {
        if !matches!(opened, Err(crate::store::StoreError::Locked(_))) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        opened = open(place.clone(), signer.clone()).await;
    }
    let parts = Parts {
        store: opened.unwrap(),
        keys: Arc::new(Keys::open(&directory.join("keys"), "passphrase".to_owned().into()).unwrap()),
        profiles: Profiles::load(None).unwrap(),
        weak_lists: crate::pki::weak::lists::WeakLists::default(),
        publisher,
        snapshots: crate::registrar::snapshots::Snapshots::new(directory.join("snapshots"), 1),
        trust_domain: "fleet.example".parse().unwrap(),
        rates: crate::registrar::rates::RateSettings::default(),
        public_url: "http://localhost".to_owned(),
    };
    Registrar::open(parts, now).await.unwrap()
}

/// A fresh installation with its first operator, an owner.
async fn installation() -> (TempDir, State, Caller) {
    let directory = tempfile::tempdir().unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let now = clock.now();
    let registrar = registrar(directory.path()).await;
    registrar.install(&"default".parse().unwrap(), now).await.unwrap();
    registrar.renew_responders(now).await.unwrap();
    registrar.refresh_crls(now).await.unwrap();
    let enrollment = registrar.first_operator(&"alice".parse().unwrap(), &csr(), now).await.unwrap().unwrap();
    let peer =
        Peer { authority: enrollment.certificate.authority, facts: Arc::new(facts(&enrollment.certificate.der).unwrap()) };
    let caller = registrar.identify(&peer, now).await.unwrap();
    let state = State {
        registrar: Arc::new(registrar),
        clock,
        default_fleet: "default".parse().unwrap(),
        enrollments: None,
        pulse: Arc::default(),
        texts: Arc::default(),
        started_at: now,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        backups: Arc::new(backups::Backups {
            data: crate::config::Layout::new(directory.path().to_owned()),
            passphrase: "passphrase".to_owned().into(),
        }),
        followers: Arc::new(crate::http::device::feed::followers::Followers::new(1)),
    };
    (directory, state, caller)
}

fn csr() -> VerifiedCsr {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    VerifiedCsr::from_body(request.pem().unwrap().as_bytes()).unwrap()
}

/// The admin door without TLS before it: every request is this caller's.
macro_rules! door {
    ($state:expr, $caller:expr) => {{
        let caller = $caller.clone();
        let admitted = move |request: ServiceRequest, next: Next<BoxBody>| {
            request.extensions_mut().insert(Operator(caller.clone()));
            next.call(request)
        };
        let app = App::new()
            .app_data(web::Data::new($state.clone()))
            .wrap(from_fn(admitted))
            .configure(resources)
            .default_service(web::to(elsewhere));
        test::init_service(app).await
    }};
}

/// An answer: status, headers, body.
struct Answer(u16, HeaderMap, Value);

/// Calls the door: method, path, body, headers.
macro_rules! call {
    ($door:expr, $($part:expr),+ $(,)?) => {
        answer(test::call_service($door, request($($part),+).to_request()).await).await
    };
}

fn request(method: &str, path: &str, body: Option<Value>, headers: &[(&'static str, &str)]) -> TestRequest {
    let mut request = TestRequest::with_uri(path).method(Method::from_bytes(method.as_bytes()).unwrap());
    for (name, value) in headers {
        request = request.insert_header((*name, *value));
    }
    match body {
        Some(body) => request.set_json(body),
        None => request,
    }
}

async fn answer(response: ServiceResponse) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let octets = test::read_body(response).await;
    let body = serde_json::from_slice(&octets).unwrap_or_else(|_| String::from_utf8_lossy(&octets).into_owned().into());
    Answer(status, headers, body)
}

fn header(answer: &Answer, name: &str) -> String {
    answer.1.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[actix_web::test]
async fn fleets_are_created_once_and_changed_by_version() {
    let (_directory, state, caller) = installation().await;
    let door = door!(state, caller);
    let new = json!({"name": "pumps", "max_age_seconds": 60});
    let key = [("idempotency-key", "k-1")];
    let first = call!(&door, "POST", "/v1/fleets", Some(new.clone()), &key);
    assert_eq!((first.0, header(&first, "location").as_str()), (201, "/v1/fleets/pumps"), "{}", first.2);
    assert_eq!(
        (&first.2["max_age_seconds"], &first.2["state"], &first.2["profile"]),
        (&json!(60), &json!("open"), &json!("device"))
    );
    let again = call!(&door, "POST", "/v1/fleets", Some(new.clone()), &key);
    assert_eq!((again.0, &again.2), (201, &first.2), "a repeat gives the same answer");
    let other = call!(&door, "POST", "/v1/fleets", Some(json!({"name": "valves"})), &key);
    assert_eq!((other.0, &other.2["code"]), (422, &json!("idempotency_key_reused")));
    let taken = call!(&door, "POST", "/v1/fleets", Some(new), &[]);
    assert_eq!((taken.0, &taken.2["code"]), (409, &json!("name_taken")));
    let seen = call!(&door, "GET", "/v1/fleets/pumps", None, &[]);
    let etag = header(&seen, "etag");
    assert_eq!(etag, format!("\"{}\"", seen.2["version"]));
    let change = Some(json!({"state": "closed", "unconfirmed_ttl_seconds": 3600}));
    let changed = call!(&door, "PATCH", "/v1/fleets/pumps", change.clone(), &[("if-match", &etag)]);
    assert_eq!((changed.0, &changed.2["state"], &changed.2["unconfirmed_ttl_seconds"]), (200, &json!("closed"), &json!(3600)));
    assert_ne!(header(&changed, "etag"), etag);
    let stale = call!(&door, "PATCH", "/v1/fleets/pumps", change, &[("if-match", &etag)]);
    assert_eq!((stale.0, &stale.2["code"]), (412, &json!("etag_mismatch")));
    let reset = Some(json!({"unconfirmed_ttl_seconds": null}));
    let reset = call!(&door, "PATCH", "/v1/fleets/pumps", reset, &[("if-match", "*")]);
    assert_eq!((reset.0, &reset.2["unconfirmed_ttl_seconds"], &reset.2["state"]), (200, &Value::Null, &json!("closed")));
    let first_page = call!(&door, "GET", "/v1/fleets?limit=1", None, &[]);
    assert_eq!(first_page.2["items"][0]["name"], "default");
    let cursor = first_page.2["next"].as_str().expect("a cursor").to_owned();
    let rest = call!(&door, "GET", &format!("/v1/fleets?limit=500&cursor={cursor}"), None, &[]);
    assert_eq!((&rest.2["items"][0]["name"], &rest.2["next"]), (&json!("pumps"), &Value::Null));
}

#[actix_web::test]
async fn a_device_is_admitted_held_released_revoked_and_retired() {
    let (_directory, state, caller) = installation().await;
    let door = door!(state, caller);
    let minted = call!(&door, "POST", "/v1/fleets/default/tokens", Some(json!({"device": "sensor-01", "note": "line 4"})), &[]);
    assert_eq!(
        (minted.0, &minted.2["state"], &minted.2["device"]),
        (201, &json!("fresh"), &json!("sensor-01")),
        "{}",
        minted.2
    );
    let token = PresentedToken::parse(minted.2["token"].as_str().unwrap()).unwrap();
    let request = EnrollRequest {
        fleet: "default".parse().ok(),
        name: None,
        group: None,
        shown: Shown::Token(token),
        csr: csr(),
        source: None,
    };
    let enrollment = state.registrar.enroll(request, state.clock.now()).await.unwrap();
    let serial = enrollment.certificate.serial.to_string();
    let device = "/v1/fleets/default/devices/SENSOR-01";
    let seen = call!(&door, "GET", device, None, &[]);
    assert_eq!((seen.0, &seen.2["name"], &seen.2["certificate"]), (200, &json!("sensor-01"), &json!(serial)), "{}", seen.2);
    assert_eq!(seen.2["identity"], "spiffe://fleet.example/device/default/sensor-01");
    let found = call!(&door, "GET", "/v1/certificates?fleet=default&subject=sensor-01&standing=unconfirmed", None, &[]);
    assert_eq!((found.0, &found.2["items"][0]["serial"]), (200, &json!(serial)), "{}", found.2);
    let one = call!(&door, "GET", &format!("/v1/certificates?serial={serial}"), None, &[]);
    assert_eq!(one.2["items"][0]["fingerprint"], enrollment.certificate.fingerprint.to_string());
    let none = call!(&door, "GET", "/v1/certificates?serial=01ffffffff000000000000000000000000", None, &[]);
    assert_eq!((none.0, none.2["items"].as_array().map(Vec::len)), (200, Some(0)));
    let pem = call!(&door, "GET", &format!("/v1/certificates/{serial}/pem"), None, &[]);
    assert_eq!(pem.2, Value::from(crate::pki::bundle::pem(&[&enrollment.certificate.der])));
    for (act, standing) in [("hold", "held"), ("release", "good"), ("revoke", "revoked")] {
        let changed = call!(&door, "POST", &format!("{device}/{act}"), None, &[]);
        assert_eq!((changed.0, &changed.2["changed"]), (200, &json!(1)), "{act}: {}", changed.2);
        assert_eq!(changed.2["certificates"], json!([{"serial": serial, "standing": standing}]), "{act}");
        assert!(changed.2["position"].is_u64() && changed.2["ledger"] == "default", "{act}: {}", changed.2);
    }
    let again = call!(&door, "POST", &format!("/v1/certificates/{serial}/revoke"), Some(json!({"note": "again"})), &[]);
    assert_eq!((again.0, &again.2["changed"], &again.2["position"]), (200, &json!(0), &Value::Null), "{}", again.2);
    let retired = call!(&door, "POST", &format!("{device}/retire"), Some(json!({"reason": "keyCompromise"})), &[]);
    assert_eq!((retired.0, &retired.2["state"]), (200, &json!("retired")), "{}", retired.2);
    let tokens = call!(&door, "GET", "/v1/fleets/default/tokens", None, &[]);
    assert!(tokens.2["items"][0]["token"].is_null() && tokens.2["items"][0]["id"] == minted.2["id"], "{}", tokens.2);
}

#[actix_web::test]
async fn records_of_devices_and_members_are_kept() {
    let (_directory, state, caller) = installation().await;
    let door = door!(state, caller);
    let new = json!({"name": "Sensor-02", "attributes": {"site": "north"}});
    let device = call!(&door, "POST", "/v1/fleets/default/devices", Some(new), &[]);
    assert_eq!((device.0, header(&device, "location").as_str()), (201, "/v1/fleets/default/devices/Sensor-02"), "{}", device.2);
    let twin = call!(&door, "POST", "/v1/fleets/default/devices", Some(json!({"name": "sensor-02"})), &[]);
    assert_eq!((twin.0, &twin.2["code"]), (409, &json!("name_taken")), "{}", twin.2);
    let hostile = call!(&door, "POST", "/v1/fleets/default/devices", Some(json!({"name": "../etc"})), &[]);
    assert_eq!((hostile.0, &hostile.2["code"]), (422, &json!("invalid_name")));
    let many: serde_json::Map<_, _> = (0..33).map(|i| (format!("k{i}"), json!("v"))).collect();
    let many = call!(&door, "PATCH", "/v1/fleets/default/devices/sensor-02", Some(json!({"attributes": many})), &[]);
    assert_eq!((many.0, &many.2["code"]), (422, &json!("invalid_value")));
    let list = call!(&door, "GET", "/v1/fleets/default/devices?search=NSOR&state=registered", None, &[]);
    assert_eq!(list.2["items"][0]["attributes"], json!({"site": "north"}), "{}", list.2);
    for (path, new) in [
        ("/v1/operators", json!({"name": "bob", "role": "viewer", "fleets": ["default"]})),
        ("/v1/gateways", json!({"name": "bob", "dns_names": ["gw.example"], "addresses": ["192.0.2.7"]})),
        ("/v1/services", json!({"name": "bob", "fleets": []})),
    ] {
        let admitted = call!(&door, "POST", path, Some(new.clone()), &[]);
        assert_eq!((admitted.0, header(&admitted, "location")), (201, format!("{path}/bob")), "{}", admitted.2);
        assert!(admitted.2["token"].as_str().is_some_and(|text| text.starts_with("fmt_")), "{path}");
        for (field, value) in new.as_object().unwrap() {
            assert_eq!(&admitted.2[field], value, "{path}");
        }
        let again = call!(&door, "POST", &format!("{path}/bob/invite"), None, &[]);
        assert_eq!(again.0, 201, "{}", again.2);
        assert_ne!(again.2["token"], admitted.2["token"], "{path}");
        let (one, two) = (format!("{path}-1"), format!("{path}-2"));
        let repeated = |key| [("idempotency-key", key)];
        let first = call!(&door, "POST", &format!("{path}/bob/invite"), None, &repeated(one.as_str()));
        let second = call!(&door, "POST", &format!("{path}/bob/invite"), None, &repeated(one.as_str()));
        let other = call!(&door, "POST", &format!("{path}/bob/invite"), None, &repeated(two.as_str()));
        assert_eq!((first.0, second.0, &first.2["token"]), (201, 201, &second.2["token"]), "{}", second.2);
        assert_ne!(first.2["token"], other.2["token"], "{path}");
        let all = call!(&door, "PATCH", &format!("{path}/bob"), Some(json!({"fleets": null})), &[("if-match", "\"1\"")]);
        assert_eq!((all.0, &all.2["fleets"]), (200, &Value::Null), "{}", all.2);
        let out = call!(&door, "POST", &format!("{path}/bob/revoke"), Some(json!({"note": "left"})), &[]);
        assert_eq!((out.0, &out.2["state"]), (200, &json!("retired")), "{}", out.2);
    }
    let last = call!(&door, "POST", "/v1/operators/alice/revoke", None, &[]);
    assert_eq!((last.0, &last.2["code"]), (409, &json!("last_owner")));
}

#[actix_web::test]
async fn the_installation_is_looked_at() {
    let (_directory, state, caller) = installation().await;
    let door = door!(state, caller);
    let me = call!(&door, "GET", "/v1/whoami", None, &[]);
    assert_eq!((&me.2["identity"], &me.2["role"]), (&json!("spiffe://fleet.example/operator/alice"), &json!("owner")));
    let authorities = call!(&door, "GET", "/v1/authorities", None, &[]);
    let authorities = authorities.2["items"].as_array().expect("authorities");
    let kinds: std::collections::BTreeSet<_> = authorities.iter().filter_map(|one| one["kind"].as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["device", "gateway", "operator", "root", "service"]);
    let id = &authorities[0]["id"];
    let one = call!(&door, "GET", &format!("/v1/authorities/{id}"), None, &[]);
    assert_eq!((one.0, &one.2), (200, &authorities[0]));
    let ledger = call!(&door, "GET", "/v1/ledgers/system", None, &[]);
    let size = ledger.2["size"].as_u64().expect("a size");
    let note = call!(&door, "GET", "/v1/ledgers/system/checkpoint", None, &[]);
    let vkey = fleetmark_ledger::note::VerifierKey::from_vkey(ledger.2["vkey"].as_str().unwrap()).unwrap();
    assert_eq!(vkey.open(note.2.as_str().unwrap()).expect("a checkpoint").head.size, size);
    let entries = call!(&door, "GET", "/v1/ledgers/system/entries?from=1&limit=2", None, &[]);
    let positions: Vec<_> = entries.2["items"].as_array().unwrap().iter().map(|one| one["position"].clone()).collect();
    assert_eq!(positions, [json!(1), json!(2)]);
    for path in [format!("inclusion?index=0&size={size}"), format!("consistency?old=1&new={size}")] {
        let proof = call!(&door, "GET", &format!("/v1/ledgers/system/proofs/{path}"), None, &[]);
        assert!(proof.2["hashes"].as_array().is_some_and(|hashes| !hashes.is_empty()), "{path}: {}", proof.2);
    }
    let beyond = call!(&door, "GET", &format!("/v1/ledgers/system/proofs/inclusion?index=0&size={}", size + 1), None, &[]);
    assert_eq!(beyond.0, 404, "{}", beyond.2);
    let status = call!(&door, "GET", "/v1/status", None, &[]);
    let read: wire::Status = serde_json::from_value(status.2).expect("a status");
    assert_eq!((read.queue.urgent, read.queue.ordinary, read.authorities.len()), (0, 0, authorities.len()));
    assert_eq!(read.crls.len(), authorities.len(), "every authority has a list");
    assert!(read.ledgers.iter().any(|ledger| ledger.name == "system" && ledger.size == size));
    let document = call!(&door, "GET", "/v1/openapi.json", None, &[]);
    assert_eq!(document.2["openapi"], "3.1.0");
    assert_eq!(call!(&door, "GET", "/metrics", None, &[]).0, 200);
}

/// What version 0.1.0 left behind: fleets without policy sets, and no tables for them.
#[actix_web::test]
async fn an_installation_of_before_policies_gets_the_built_in_sets() {
    let (directory, state, caller) = installation().await;
    state.registrar.stop().await;
    drop(state);
    crate::store::sqlite::forget_policies(&directory.path().join("store"));

    for start in 1..=2 {
        let again = registrar(directory.path()).await;
        let caller = Caller { policies: again.policies(), ..caller.clone() };
        for scope in ["system", "default"] {
            let active = again.active_policy(&caller, &scope.parse().unwrap()).await.unwrap();
            let told = (active.activation.number, active.set.version, active.activation.by.as_str(), active.is_usable);
            assert_eq!(told, (1, 1, "fleetmark", true), "{scope}, start {start}");
        }
        again.stop().await;
    }
}
