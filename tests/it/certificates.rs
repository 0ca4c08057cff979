//! Client certificates at the doors: foreign, out of time, out of standing, out of place, forged.

use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::HandshakeKind;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::harness::device::{ask_verdict, verdict};
use crate::harness::forge::{Stolen, Wanted, foreign, serial};
use crate::harness::server::text;
use crate::harness::{Connection, Device, Identity, Key, Server, handshake_ends, run, shared};

/// The handshake must fail with this alert, counted under this name; at the device door there is no answer either.
async fn shut_out(server: &Server, port: u16, door: &str, identity: &Identity, code: &str, alert: &str) {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let counted = server.handshakes_refused(door, code).await;
        let trust = server.trust().only(version);
        let told = handshake_ends(port, Arc::new(trust.config(Some(identity)))).await;
        assert!(told.contains("alert"), "{code}: {told}");
        assert!(told.contains(alert), "{code}: {told}");
        assert!(server.handshakes_refused(door, code).await > counted, "{code} is not counted at the {door} door");
    }
}

#[test]
fn a_certificate_of_a_foreign_authority_ends_the_handshake() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let key = Key::new();
        let copy = Wanted::device(&fleet, "a", hex::decode(device.serial()).unwrap());
        let identity = foreign(&copy, &key);
        shut_out(&server, server.device_port, "device", &identity, "certificate_foreign", "UnknownCA").await;
        shut_out(&server, server.admin_port, "admin", &identity, "certificate_foreign", "UnknownCA").await;
    });
}

#[test]
fn expired_and_not_yet_valid_certificates_end_the_handshake() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let key = Key::new();
        let now = OffsetDateTime::now_utc();
        let in_time = Wanted::device(&fleet, "a", serial(1, 1, [1; 8]));
        let expired = Wanted { from: now - Duration::days(9), to: now - Duration::minutes(1), ..in_time };
        let identity = stolen.sign(&expired, &key);
        shut_out(&server, server.device_port, "device", &identity, "certificate_expired", "CertificateExpired").await;
        let early = Wanted { from: now + Duration::hours(1), to: now + Duration::days(9), ..expired };
        let identity = stolen.sign(&early, &key);
        shut_out(&server, server.device_port, "device", &identity, "certificate_not_yet_valid", "CertificateExpired").await;
    });
}

#[test]
fn a_device_or_gateway_certificate_is_refused_in_the_admin_doors_handshake() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        shut_out(&server, server.admin_port, "admin", &device.identity, "wrong_kind", "").await;
        let gateway = member(&server, "gateways", "gw-admin-door").await;
        shut_out(&server, server.admin_port, "admin", &gateway, "wrong_kind", "").await;
        let told = handshake_ends(server.admin_port, Arc::new(server.trust().config(None))).await;
        assert!(told.contains("CertificateRequired") || told.contains("HandshakeFailure"), "{told}");
    });
}

/// Admits a gateway or service and enrolls it.
pub async fn member(server: &Server, kind: &str, name: &str) -> Identity {
    let admitted = server.owner().post(&format!("/v1/{kind}"), &json!({"name": name})).await.is(201).json();
    let key = Key::new();
    let authorization = format!("Bearer {}", text(&admitted, "token"));
    let client = server.device_client(None);
    let answer = client.post_with("/v1/enroll", &[("authorization", &authorization)], &json!({"csr": key.csr()})).await;
    key.identity(&answer.is(200).json())
}

#[test]
fn a_device_is_refused_at_another_fleets_door_and_a_gateway_at_a_devices() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let device = Device::good(&server, &fleet, "a").await;
        let gateway = member(&server, "gateways", "gw-at-device-door").await;
        for act in ["renew", "confirm"] {
            let path = format!("/v1/fleets/{other}/{act}");
            let body = json!({"csr": Key::new().csr()});
            device.connect(&server).await.post(&path, &body).await.unwrap().refused(403, "wrong_fleet");
            let mut connection = Connection::open(server.device_port, &server.trust(), Some(&gateway)).await.unwrap();
            connection.post(&path, &body).await.unwrap().refused(403, "wrong_kind");
        }
        let est = format!("/.well-known/est/{other}/simplereenroll");
        let mut connection = device.connect(&server).await;
        let answer = connection.request("POST", &est, &[("content-type", "application/pkcs10")], b"x").await.unwrap().is(403);
        assert!(answer.text().starts_with("wrong_fleet: "), "{}", answer.text());
        assert_eq!(device.verdict(&server).await, "ok");
    });
}

#[test]
fn revocation_hold_and_release_count_on_the_next_request_of_an_open_connection() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let mut open = device.connect(&server).await;
        assert_eq!(ask_verdict(&mut open, &fleet).await, "ok");
        for (act, expected, standing) in [("hold", "held", "held"), ("release", "ok", "good"), ("revoke", "revoked", "revoked")]
        {
            let counted = server.refused(expected).await;
            device.act(&server, act, json!({})).await;
            assert_eq!(ask_verdict(&mut open, &fleet).await, expected, "{act}, on the connection that was open");
            assert_eq!(device.verdict(&server).await, expected, "{act}, on a new connection");
            assert_eq!(device.standing(&server).await, standing);
            assert!(expected == "ok" || server.refused(expected).await >= counted + 2.0, "{expected} is not counted");
        }
        // Repeats change nothing; what is revoked stays so.
        let path = format!("/v1/certificates/{}/", device.serial());
        let again = server.owner().post(&format!("{path}revoke"), &json!({})).await.is(200).json();
        assert_eq!(again["changed"], 0);
        server.owner().post(&format!("{path}release"), &json!({})).await.refused(409, "transition_not_allowed");
        server.owner().post(&format!("{path}hold"), &json!({})).await.refused(409, "transition_not_allowed");
        assert_eq!(ask_verdict(&mut open, &fleet).await, "revoked");
    });
}

#[test]
fn a_held_device_gets_no_new_certificate_and_a_retired_one_never() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        device.act(&server, "hold", json!({"note": "a look at it"})).await;
        let client = server.device_client(None);
        let token = server.token(&fleet, "a").await;
        let enroll = |token: String, key: Key| {
            let (client, fleet) = (client.clone(), fleet.clone());
            async move { crate::harness::device::enroll(&client, &fleet, &token, &key, None).await }
        };
        enroll(token.clone(), Key::new()).await.refused(403, "held");
        enroll(device.token.clone(), Key(rcgen::KeyPair::from_pem(&device.key.0.serialize_pem()).unwrap()))
            .await
            .refused(403, "held");
        device.act(&server, "release", json!({})).await;
        assert_eq!(device.verdict(&server).await, "ok");

        let retired = device.act(&server, "retire", json!({})).await;
        assert_eq!(retired["state"], "retired");
        let verdict = device.verdict(&server).await;
        assert!(["identity_out", "revoked"].contains(&verdict.as_str()), "{verdict}");
        assert_eq!(device.standing(&server).await, "revoked");
        enroll(token, Key::new()).await.refused(403, "identity_out");
        let open = server.open_token(&fleet).await;
        let answer = crate::harness::device::enroll(&client, &fleet, &open, &Key::new(), Some("A")).await;
        assert!(["identity_out", "name_taken"].contains(&answer.code().as_str()), "{}", answer.text());
    });
}

#[test]
fn a_fresh_serial_signed_with_a_stolen_key_is_not_on_the_ledger() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let known = hex::decode(device.serial()).unwrap();
        let epoch = u32::from_be_bytes(known[1..5].try_into().unwrap());
        let key = Key::new();
        let alarms = server.metric("fleetmark_alarms_total", &[("alarm", "forged_certificate")]).await;
        for (what, serial) in [
            ("a next index", serial(epoch, 7_000, [7; 8])),
            ("another epoch", serial(4_000_000, 1, [7; 8])),
            ("the index of a good one", [&known[..9], &[7; 8]].concat()),
            ("a serial of another form", vec![0x42; 17]),
            ("a short serial", vec![0x42]),
        ] {
            let identity = stolen.sign(&Wanted::device(&fleet, "a", serial.clone()), &key);
            assert_eq!(verdict(&server, &identity, &fleet).await, "not_on_ledger", "{what}");
        }
        assert!(server.metric("fleetmark_alarms_total", &[("alarm", "forged_certificate")]).await > alarms, "no alarm");
        assert_eq!(device.verdict(&server).await, "ok");
    });
}

#[test]
fn an_exact_copy_of_serial_and_names_under_another_key_is_not_on_the_ledger() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let (_, real) = x509_parser::parse_x509_certificate(device.identity.leaf()).unwrap();
        let copy = Wanted {
            from: real.validity().not_before.to_datetime(),
            to: real.validity().not_after.to_datetime(),
            ..Wanted::device(&fleet, "a", real.raw_serial().to_vec())
        };
        assert_eq!(verdict(&server, &stolen.sign(&copy, &Key::new()), &fleet).await, "not_on_ledger");
        // Even the device's own key under a certificate that is not the one recorded.
        let own = Key(rcgen::KeyPair::from_pem(&device.key.0.serialize_pem()).unwrap());
        assert_eq!(verdict(&server, &stolen.sign(&copy, &own), &fleet).await, "not_on_ledger");
        assert_eq!(device.verdict(&server).await, "ok");
    });
}

#[test]
fn a_device_authoritys_key_buys_neither_an_operator_nor_another_fleets_device() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let victim = Device::good(&server, &other, "victim").await;
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let (_, owner) = {
            let identity = server.owner_identity();
            let serial = x509_parser::parse_x509_certificate(identity.leaf()).unwrap().1.raw_serial().to_vec();
            (identity, serial)
        };
        // An operator's names: not even the handshake at the admin door, and nobody at the device door.
        for serial in [owner, serial(1, 1, [3; 8])] {
            let wanted = Wanted::of("spiffe://fleet.test/operator/admin", "fleet.test", "admin", serial);
            let identity = stolen.sign(&wanted, &Key::new());
            shut_out(&server, server.admin_port, "admin", &identity, "wrong_kind", "").await;
            let told = verdict(&server, &identity, &fleet).await;
            assert!(["not_on_ledger", "wrong_authority"].contains(&told.as_str()), "{told}");
        }
        // Another fleet's device, by a fresh serial and by a copy of its own.
        for serial in [hex::decode(victim.serial()).unwrap(), serial(1, 2, [3; 8])] {
            let identity = stolen.sign(&Wanted::device(&other, "victim", serial), &Key::new());
            for at in [&fleet, &other] {
                let told = verdict(&server, &identity, at).await;
                assert!(["not_on_ledger", "wrong_authority"].contains(&told.as_str()), "at {at}: {told}");
            }
        }
        assert_eq!(victim.verdict(&server).await, "ok");
    });
}

#[test]
fn a_certificate_of_ours_that_is_not_for_clients_is_refused() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let wanted =
            Wanted { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..Wanted::device(&fleet, "a", serial(1, 3, [5; 8])) };
        let identity = stolen.sign(&wanted, &Key::new());
        shut_out(&server, server.device_port, "device", &identity, "wrong_kind", "").await;
    });
}

#[test]
fn a_certificate_shown_without_its_key_is_refused() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let thief = Identity::new(device.identity.leaf().to_vec(), &Key::new().0);
        // rustls refuses to build such a client by itself: the resolver hands the pair over unchecked.
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let mut config = server.trust().only(version).config(None);
            let key = rustls::crypto::ring::sign::any_supported_type(&thief.key).unwrap();
            let pair = rustls::sign::CertifiedKey::new(thief.chain.clone(), key);
            config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
            let counted = server.handshakes_refused("device", "certificate_not_held").await;
            let told = handshake_ends(server.device_port, Arc::new(config)).await;
            assert!(told.contains("alert"), "{told}");
            assert!(server.handshakes_refused("device", "certificate_not_held").await > counted);
        }
    });
}

#[test]
fn no_session_is_resumed_on_any_door_in_any_version() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let owner = server.owner_identity();
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            for (port, identity, path) in
                [(server.device_port, &device.identity, "/v1/time"), (server.admin_port, &owner, "/v1/whoami")]
            {
                // One configuration, so that the second connection has the first one's sessions.
                let config = Arc::new(server.trust().only(version).remembering().config(Some(identity)));
                for _ in 0..3 {
                    let mut connection = Connection::connect(port, config.clone()).await.unwrap();
                    connection.get(path).await.unwrap().is(200);
                    let (kind, spoken) = connection.handshake();
                    assert_eq!(kind, Some(HandshakeKind::Full), "{spoken:?}");
                }
            }
        }
    });
}

#[test]
fn openssl_gets_no_session_to_resume_from() {
    let server = shared();
    let session = server.scratch("session.pem");
    let connect = format!("localhost:{}", server.device_port);
    for version in ["-tls1_3", "-tls1_2"] {
        let _ = std::fs::remove_file(&session);
        let path = session.to_str().unwrap();
        let request = b"GET /v1/time HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let arguments = ["s_client", "-connect", &connect, version, "-sess_out", path, "-ign_eof"];
        let (_, first) = crate::harness::openssl::openssl(&arguments, request);
        assert!(first.contains("HTTP/1.1 200 OK"), "{first}");
        if session.exists() {
            let arguments = ["s_client", "-connect", &connect, version, "-sess_in", path, "-ign_eof"];
            let (_, second) = crate::harness::openssl::openssl(&arguments, request);
            assert!(second.contains("New, "), "{second}");
            assert!(!second.contains("Reused, "), "{second}");
        }
    }
}
