//! First certificates: tokens, replays, races, names, confirmation and its lapse.

use std::collections::HashSet;

use fleetmark_domain::Fingerprint;
use serde_json::json;

use crate::harness::device::{confirm_by_token, enroll, sha256};
use crate::harness::server::text;
use crate::harness::{Connection, Device, Key, run, shared, until};

#[test]
fn a_device_enrolls_by_token_and_confirms_by_token_and_fingerprint() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::unconfirmed(&server, &fleet, "sensor.01").await;
        assert_eq!(device.answer["identity"], format!("spiffe://fleet.test/device/{fleet}/sensor.01"));
        assert_eq!(device.answer["generation"], 1);
        assert_eq!(device.answer["replayed"], false);
        assert_eq!(device.fingerprint(), sha256(device.identity.leaf()));
        assert!(device.answer["confirm_before"].is_string(), "{}", device.answer);
        assert_eq!(device.standing(&server).await, "unconfirmed");

        let client = server.device_client(None);
        let other = Fingerprint([7; 32]).to_string();
        confirm_by_token(&client, &fleet, &device.token, &other).await.refused(403, "not_on_ledger");
        confirm_by_token(&client, &fleet, &device.token, "zz").await.refused(422, "invalid_value");
        assert_eq!(device.standing(&server).await, "unconfirmed");
        for _ in 0..2 {
            let answer = confirm_by_token(&client, &fleet, &device.token, &device.fingerprint()).await.is(200).json();
            assert_eq!((answer["standing"].as_str(), answer["serial"].as_str()), (Some("good"), Some(&*device.serial())));
        }
        assert_eq!(device.standing(&server).await, "good");
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/sensor.01")).await.is(200).json();
        assert_eq!((record["state"].as_str(), record["standing"].as_str()), (Some("active"), Some("good")));
    });
}

#[test]
fn a_certificate_is_confirmed_by_an_explicit_mtls_call() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        for _ in 0..2 {
            let answer = device.confirm(&server).await.is(200).json();
            assert_eq!(answer["standing"], "good");
        }
        assert_eq!(device.standing(&server).await, "good");
        let device = Device::unconfirmed(&server, &fleet, "b").await;
        let mut connection = device.connect(&server).await;
        connection.request("POST", "/v1/confirm", &[], b"").await.unwrap().is(200);
        assert_eq!(device.standing(&server).await, "good");
    });
}

#[test]
fn the_first_mtls_use_confirms_a_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        assert_eq!(device.verdict(&server).await, "ok");
        assert_eq!(device.standing(&server).await, "good");
        let used = server.owner().get(&format!("/v1/fleets/{fleet}/tokens")).await.is(200).json();
        assert_eq!(used["items"][0]["state"], "used");
    });
}

#[test]
fn confirming_without_a_proof_is_refused() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let path = format!("/v1/fleets/{fleet}/confirm");
        client.post(&path, &json!({})).await.refused(401, "certificate_required");
        let authorization = [("authorization", "Bearer fmt_0011223344556677_nobody")];
        client.post_with(&path, &authorization, &json!({"fingerprint": "00"})).await.refused(422, "invalid_value");
        let body = json!({"fingerprint": "00".repeat(32)});
        client.post_with(&path, &authorization, &body).await.refused(401, "token_unknown");
    });
}

#[test]
fn a_replay_gives_the_same_certificate_octet_for_octet_before_and_after_confirmation() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        let client = server.device_client(None);
        let again = enroll(&client, &fleet, &device.token, &device.key, Some("a")).await.is(200).json();
        assert_eq!(again["certificate"], device.answer["certificate"]);
        assert_eq!((again["replayed"].as_bool(), again["standing"].as_str()), (Some(true), Some("unconfirmed")));
        device.confirm(&server).await.is(200);
        let again = enroll(&client, &fleet, &device.token, &device.key, None).await.is(200).json();
        assert_eq!(again["certificate"], device.answer["certificate"]);
        assert_eq!((again["replayed"].as_bool(), again["standing"].as_str()), (Some(true), Some("good")));
        let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device")).await.is(200).json();
        assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
    });
}

#[test]
fn a_token_stays_bound_to_the_first_key_and_is_used_up_by_confirmation() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        let client = server.device_client(None);
        let alarms = || async { server.metric("fleetmark_alarms_total", &[("alarm", "token_second_key")]).await };
        let before = alarms().await;
        enroll(&client, &fleet, &device.token, &Key::new(), None).await.refused(409, "token_bound_to_other_key");
        assert!(alarms().await > before, "a second key raises no alarm");
        device.confirm(&server).await.is(200);
        enroll(&client, &fleet, &device.token, &Key::new(), None).await.refused(409, "token_used");
        let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device")).await.is(200).json();
        assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
    });
}

#[test]
fn each_token_that_is_no_proof_is_refused_by_its_name() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let client = server.device_client(None);
        let key = Key::new();

        let short = server.mint(&fleet, json!({"device": "short", "expires_in_seconds": 1})).await;
        let withdrawn = server.mint(&fleet, json!({"device": "withdrawn"})).await;
        let path = format!("/v1/fleets/{fleet}/tokens/{}", text(&withdrawn, "id"));
        assert_eq!(server.owner().delete(&path).await.is(200).json()["state"], "withdrawn");
        let good = text(&server.mint(&fleet, json!({"device": "good"})).await, "token");

        let unknown = format!("fmt_{}_{}", "00".repeat(8), "A".repeat(27));
        let wrong_secret = format!("{}A", &good[..good.len() - 1]);
        let wrong_secret = if wrong_secret == good { format!("{}B", &good[..good.len() - 1]) } else { wrong_secret };
        for (token, status, code) in [
            (text(&withdrawn, "token"), 401, "token_withdrawn"),
            (unknown, 401, "token_unknown"),
            (wrong_secret, 401, "token_unknown"),
            (good[..20].to_owned(), 401, "token_unknown"),
            (format!("{good}{}", "A".repeat(200)), 401, "token_unknown"),
            (String::new(), 401, "token_unknown"),
        ] {
            let counted = server.refused(code).await;
            let answer = enroll(&client, &fleet, &token, &key, None).await;
            if token.is_empty() {
                // "Bearer " without anything behind it is no credential at all, or an unknown one.
                assert!(matches!(answer.status, 400 | 401), "{}", answer.text());
                continue;
            }
            answer.refused(status, code);
            assert!(server.refused(code).await > counted, "{code} is not counted");
        }
        enroll(&client, &other, &good, &key, None).await.refused(403, "token_wrong_fleet");
        enroll(&client, &fleet, &good, &key, Some("bad")).await.refused(403, "token_wrong_name");
        enroll(&client, "no-such-fleet", &good, &key, None).await.refused(403, "token_wrong_fleet");
        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
        enroll(&client, &fleet, &text(&short, "token"), &Key::new(), None).await.refused(401, "token_expired");
        let body = json!({"csr": key.csr()});
        let path = format!("/v1/fleets/{fleet}/enroll");
        client.post(&path, &body).await.refused(401, "proof_required");
        client.post_with(&path, &[("authorization", "Basic Zm9v")], &body).await.refused(401, "proof_required");
        client.post_with(&path, &[("authorization", "Bearer")], &body).await.refused(400, "malformed_request");
        client
            .post_with("/v1/enroll", &[("authorization", &format!("Bearer {good}"))], &body)
            .await
            .refused(403, "token_wrong_fleet");
        // None of this spent the token.
        enroll(&client, &fleet, &good, &key, Some("good")).await.is(200);
    });
}

/// The short token above must be of use while it lasts: else its refusal proves nothing.
#[test]
fn a_short_token_admits_before_its_end() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let short = server.mint(&fleet, json!({"device": "a", "expires_in_seconds": 30})).await;
        enroll(&server.device_client(None), &fleet, &text(&short, "token"), &Key::new(), None).await.is(200);
    });
}

#[test]
fn of_fifty_clients_that_race_one_token_one_key_wins() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let token = server.token(&fleet, "raced").await;
        let keys: Vec<_> = (0..10).map(|_| std::sync::Arc::new(Key::new())).collect();
        let tries = (0..50).map(|i| {
            let (key, token, fleet) = (keys[i % 10].clone(), token.clone(), fleet.clone());
            let client = server.device_client(None);
            tokio::spawn(async move { (i % 10, enroll(&client, &fleet, &token, &key, None).await) })
        });
        let tries: Vec<_> = tries.collect();
        let mut won = HashSet::new();
        let mut certificates = HashSet::new();
        let mut wins = 0;
        for attempt in tries {
            let (key, answer) = attempt.await.unwrap();
            if answer.status == 200 {
                wins += 1;
                won.insert(key);
                certificates.insert(text(&answer.json(), "certificate"));
            } else {
                answer.refused(409, "token_bound_to_other_key");
            }
        }
        assert_eq!(
            (won.len(), certificates.len(), wins),
            (1, 1, 5),
            "one key, one certificate, all five clients with that key"
        );
        let all = server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device")).await.is(200).json();
        assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
    });
}

#[test]
fn a_key_of_one_device_is_refused_for_another() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let device = Device::good(&server, &fleet, "a").await;
        let client = server.device_client(None);
        for of in [&fleet, &other] {
            let token = server.token(of, "b").await;
            enroll(&client, of, &token, &device.key, None).await.refused(409, "key_of_another_device");
            let open = server.open_token(of).await;
            enroll(&client, of, &open, &device.key, Some("c")).await.refused(409, "key_of_another_device");
        }
    });
}

#[test]
fn an_open_token_admits_one_device_under_a_free_name() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let token = server.open_token(&fleet).await;
        let key = Key::new();
        enroll(&client, &fleet, &token, &key, None).await.refused(422, "invalid_name");
        let answer = enroll(&client, &fleet, &token, &key, Some("Pump-1")).await.is(200).json();
        assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/Pump-1"));
        let again = enroll(&client, &fleet, &token, &key, Some("Pump-1")).await.is(200).json();
        assert_eq!(again["certificate"], answer["certificate"]);
        // The same key under another name is a key of another device; another key is not what the token is bound to.
        enroll(&client, &fleet, &token, &key, Some("pump-2")).await.refused(409, "key_of_another_device");
        enroll(&client, &fleet, &token, &Key::new(), Some("pump-2")).await.refused(409, "token_bound_to_other_key");
        // A second open token takes over no name that somebody holds, in no case.
        for name in ["Pump-1", "pump-1", "PUMP-1"] {
            let token = server.open_token(&fleet).await;
            enroll(&client, &fleet, &token, &Key::new(), Some(name)).await.refused(409, "name_taken");
        }
    });
}

#[test]
fn case_twins_are_one_name() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let devices = format!("/v1/fleets/{fleet}/devices");
        server.owner().post(&devices, &json!({"name": "Valve"})).await.is(201);
        server.owner().post(&devices, &json!({"name": "vALVE"})).await.refused(409, "name_taken");
        let client = server.device_client(None);
        let token = server.open_token(&fleet).await;
        enroll(&client, &fleet, &token, &Key::new(), Some("valve")).await.refused(409, "name_taken");
        // Registered, and nobody holds a certificate: an open token may take it, as it is written.
        enroll(&client, &fleet, &token, &Key::new(), Some("Valve")).await.is(200);
        assert_eq!(server.owner().get(&format!("{devices}/VALVE")).await.is(200).json()["name"], "Valve");
    });
}

const HOSTILE_NAMES: [&str; 24] = [
    "",
    ".",
    "..",
    "../a",
    "a/b",
    "a\\b",
    "/a",
    "a\0",
    "a\n",
    "a\r\nx: y",
    "a\u{7f}",
    "+",
    "#",
    "a+",
    "a#",
    "$SYS",
    "a%2fb",
    "%00",
    "-a",
    "_a",
    "a b",
    "ä",
    "a\u{202e}b",
    "name-of-sixty-four-characters-----------------------------------4",
];

#[test]
fn hostile_names_are_refused_at_every_door() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let token = server.open_token(&fleet).await;
        for name in HOSTILE_NAMES {
            enroll(&client, &fleet, &token, &Key::new(), Some(name)).await.refused(422, "invalid_name");
            let owner = server.owner();
            owner.post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": name})).await.refused(422, "invalid_name");
            owner.post(&format!("/v1/fleets/{fleet}/tokens"), &json!({"device": name})).await.refused(422, "invalid_name");
            owner.post("/v1/fleets", &json!({"name": name})).await.refused(422, "invalid_name");
            owner.post("/v1/gateways", &json!({"name": name})).await.refused(422, "invalid_name");
            owner.post("/v1/operators", &json!({"name": name, "role": "viewer"})).await.refused(422, "invalid_name");
        }
        for name in ["system", "Upper"] {
            server.owner().post("/v1/fleets", &json!({"name": name})).await.refused(422, "invalid_name");
        }
        for path in [
            "/v1/fleets/..%2f..%2fsystem/enroll",
            "/v1/fleets/%23/enroll",
            "/v1/fleets/a%00/enroll",
            "/v1/fleets/system/enroll",
        ] {
            let authorization = format!("Bearer {token}");
            let answer = client.post_with(path, &[("authorization", &authorization)], &json!({"csr": Key::new().csr()})).await;
            assert!(matches!(answer.code().as_str(), "invalid_name" | "not_found"), "{path}: {}", answer.text());
        }
        let devices = server.owner().get(&format!("/v1/fleets/{fleet}/devices")).await.is(200).json();
        assert_eq!(devices["items"], json!([]), "a hostile name was registered");
    });
}

#[test]
fn another_token_takes_the_place_of_an_unconfirmed_certificate_which_is_revoked() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let first = Device::unconfirmed(&server, &fleet, "a").await;
        let second = Device::unconfirmed(&server, &fleet, "a").await;
        assert_eq!(second.answer["generation"], 2);
        let record = first.record(&server).await;
        assert_eq!((record["standing"].as_str(), record["reason"].as_str()), (Some("revoked"), Some("superseded")));
        assert_eq!(first.verdict(&server).await, "revoked");
        confirm_by_token(&server.device_client(None), &fleet, &first.token, &first.fingerprint()).await.refused(403, "revoked");
        enroll(&server.device_client(None), &fleet, &first.token, &first.key, None).await.refused(409, "key_ended");
        assert_eq!(second.verdict(&server).await, "ok");
    });
}

#[test]
fn another_token_leaves_a_confirmed_certificate_good_until_the_new_one_is_confirmed() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let first = Device::good(&server, &fleet, "a").await;
        let second = Device::unconfirmed(&server, &fleet, "a").await;
        assert_eq!(first.verdict(&server).await, "ok");
        assert_eq!(first.standing(&server).await, "good");
        second.confirm(&server).await.is(200);
        assert_eq!(first.verdict(&server).await, "superseded");
    });
}

#[test]
fn what_is_not_confirmed_in_time_is_refused_and_then_revoked_on_the_list() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"unconfirmed_ttl_seconds": 2})).await;
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        let kept = Device::good(&server, &fleet, "b").await;
        // The job that revokes looks once a second: it is either still `confirmation_lapsed` or revoked already.
        tokio::time::sleep(std::time::Duration::from_millis(2_050)).await;
        let verdict = device.verdict(&server).await;
        assert!(["confirmation_lapsed", "revoked"].contains(&verdict.as_str()), "{verdict}");
        until("the lapse", 10, || async { (device.standing(&server).await == "revoked").then_some(()) }).await;
        assert_eq!(device.record(&server).await["reason"], "cessationOfOperation");
        assert_eq!(device.verdict(&server).await, "revoked");
        let answer = enroll(&server.device_client(None), &fleet, &device.token, &device.key, None).await;
        answer.refused(409, "key_ended");
        crate::standing::listed_within(&server, &fleet, &device.serial(), Some(5)).await;
        assert_eq!(kept.verdict(&server).await, "ok", "a confirmed certificate does not lapse");
    });
}

#[test]
fn a_lapsed_certificate_is_refused_by_name_even_before_it_is_revoked() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"unconfirmed_ttl_seconds": 1})).await;
        // The job needs up to a second: of several devices one is asked in between.
        let mut seen = HashSet::new();
        for number in 0..12 {
            let device = Device::unconfirmed(&server, &fleet, &format!("d{number}")).await;
            let lapsed = until("the lapse", 10, || async {
                let client = server.device_client(None);
                lapse_code(&client, &device).await
            })
            .await;
            seen.insert(lapsed.clone());
            if lapsed == "confirmation_lapsed" {
                return;
            }
        }
        panic!("never refused as lapsed: {seen:?}");
    });
}

/// What a replay is told without confirming anything; None while it is still granted.
async fn lapse_code(client: &crate::harness::Client, device: &Device) -> Option<String> {
    let answer = enroll(client, &device.fleet, &device.token, &device.key, None).await;
    (answer.status != 200).then(|| answer.code())
}

#[test]
fn a_closed_fleet_takes_no_enrollment_and_what_is_enrolled_goes_on() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let token = server.token(&fleet, "b").await;
        server.owner().patch(&format!("/v1/fleets/{fleet}"), &[], &json!({"state": "closed"})).await.is(200);
        let client = server.device_client(None);
        enroll(&client, &fleet, &token, &Key::new(), None).await.refused(403, "fleet_closed");
        let mut connection = device.connect(&server).await;
        let answer = connection.post(&format!("/v1/fleets/{fleet}/renew"), &json!({"csr": Key::new().csr()})).await.unwrap();
        answer.is(200);
        device.confirm(&server).await.is(200);
        server.owner().patch(&format!("/v1/fleets/{fleet}"), &[], &json!({"state": "open"})).await.is(200);
        enroll(&client, &fleet, &token, &Key::new(), None).await.is(200);
    });
}

#[test]
fn p256_p384_and_ed25519_enroll_and_come_in_by_mtls() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let client = server.device_client(None);
        let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        for (number, algorithm) in algorithms.into_iter().enumerate() {
            let key = Key::of(algorithm);
            let token = server.token(&fleet, &format!("k{number}")).await;
            let answer = enroll(&client, &fleet, &token, &key, None).await.is(200).json();
            let identity = key.identity(&answer);
            let mut connection = Connection::open(server.device_port, &server.trust(), Some(&identity)).await.unwrap();
            connection.request("POST", &format!("/v1/fleets/{fleet}/confirm"), &[], b"").await.unwrap().is(200);
        }
    });
}

#[test]
fn names_in_a_request_do_not_come_into_the_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let key = Key::new();
        let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
        params.is_ca = rcgen::IsCa::NoCa;
        let csr = params.serialize_request(&key.0).unwrap().pem().unwrap();
        let token = server.token(&fleet, "honest").await;
        let authorization = format!("Bearer {token}");
        let path = format!("/v1/fleets/{fleet}/enroll");
        let client = server.device_client(None);
        let answer = client.post_with(&path, &[("authorization", &authorization)], &json!({"csr": csr})).await.is(200).json();
        let identity = key.identity(&answer);
        let (_, certificate) = x509_parser::parse_x509_certificate(identity.leaf()).unwrap();
        assert_eq!(certificate.subject().to_string(), format!("O={fleet}, CN=honest"));
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.iter();
        let names: Vec<_> = names.map(ToString::to_string).collect();
        assert_eq!(names, [format!("URI(spiffe://fleet.test/device/{fleet}/honest)")]);
    });
}
