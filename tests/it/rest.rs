//! The conventions of the admin door: repeats, versions, pages, searches, what is hidden.

use std::collections::HashSet;

use fleetmark_domain::Role;
use serde_json::{Value, json};

use crate::harness::server::text;
use crate::harness::{Client, Device, run, shared};
use crate::matrix::operator;

#[test]
fn a_create_that_is_repeated_with_its_key_gives_the_same_answer_and_nothing_twice() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let owner = server.owner();
        let cases = [
            (format!("/v1/fleets/{fleet}/tokens"), json!({"device": "a"}), json!({"device": "b"})),
            (format!("/v1/fleets/{fleet}/tokens"), json!({}), json!({"note": "x"})),
            (format!("/v1/fleets/{fleet}/devices"), json!({"name": "d1"}), json!({"name": "d2"})),
            ("/v1/fleets".to_owned(), json!({"name": "repeated"}), json!({"name": "repeated", "max_age_seconds": 60})),
            ("/v1/operators".to_owned(), json!({"name": "erin", "role": "viewer"}), json!({"name": "erin", "role": "owner"})),
            (
                format!("/v1/fleets/{fleet}/allowances"),
                json!({"operator": "erin", "devices": 5}),
                json!({"operator": "erin", "devices": 6}),
            ),
            ("/v1/gateways".to_owned(), json!({"name": "gw-r"}), json!({"name": "gw-s"})),
            ("/v1/services".to_owned(), json!({"name": "sv-r"}), json!({"name": "sv-s"})),
        ];
        for (number, (path, body, other)) in cases.iter().enumerate() {
            let key = format!("key-{number}-of-{fleet}");
            let header = [("idempotency-key", key.as_str())];
            let first = owner.post_with(path, &header, body).await.is(201);
            let second = owner.post_with(path, &header, body).await.is(201);
            assert_eq!(first.json(), second.json(), "{path}");
            assert_eq!(first.header("location"), second.header("location"), "{path}");
            owner.post_with(path, &header, other).await.refused(422, "idempotency_key_reused");
            // The key is of this caller alone.
        }
        let tokens = owner.get(&format!("/v1/fleets/{fleet}/tokens")).await.is(200).json();
        assert_eq!(tokens["items"].as_array().unwrap().len(), 2, "a repeat minted another token");
        let long = "k".repeat(129);
        for key in ["", "a b", "ä", &long] {
            let answer = owner.post_with(&cases[0].0, &[("idempotency-key", key)], &cases[0].1).await;
            answer.refused(400, "malformed_request");
        }
        // The token that came twice is one token, and it works.
        let key = format!("key-0-of-{fleet}");
        let token = owner.post_with(&cases[0].0, &[("idempotency-key", &key)], &cases[0].1).await.is(201).json();
        let client = server.device_client(None);
        let device = crate::harness::Key::new();
        crate::harness::device::enroll(&client, &fleet, &text(&token, "token"), &device, Some("a")).await.is(200);
    });
}

#[test]
fn another_operators_idempotency_key_is_another_key() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (identity, _) = operator(&server, "frank", Role::Owner, Value::Null).await;
        let frank = server.admin_client(Some(&identity));
        let path = format!("/v1/fleets/{fleet}/tokens");
        let header = [("idempotency-key", "the-same")];
        let mine = server.owner().post_with(&path, &header, &json!({})).await.is(201).json();
        let his = frank.post_with(&path, &header, &json!({})).await.is(201).json();
        assert_ne!(mine["token"], his["token"]);
        assert_ne!(mine["id"], his["id"]);
    });
}

#[test]
fn the_same_idempotent_create_sent_many_times_at_once_is_done_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let path = format!("/v1/fleets/{fleet}/tokens");
        let tries: Vec<_> = (0..16)
            .map(|_| {
                let (client, path) = (server.owner().clone(), path.clone());
                tokio::spawn(async move {
                    let header = [("idempotency-key", "at-once")];
                    client.post_with(&path, &header, &json!({"device": "only"})).await.is(201).json()
                })
            })
            .collect();
        let mut answers = HashSet::new();
        for attempt in tries {
            answers.insert(attempt.await.unwrap().to_string());
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    });
}

#[test]
fn a_change_goes_by_the_version_that_was_read() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let owner = server.owner();
        owner.post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": "a"})).await.is(201);
        owner.post("/v1/gateways", &json!({"name": format!("gw-{fleet}")})).await.is(201);
        owner.post("/v1/operators", &json!({"name": format!("op-{fleet}"), "role": "viewer"})).await.is(201);
        for (path, change) in [
            (format!("/v1/fleets/{fleet}"), json!({"max_age_seconds": 120})),
            (format!("/v1/fleets/{fleet}/devices/a"), json!({"attributes": {"k": "v"}})),
            (format!("/v1/gateways/gw-{fleet}"), json!({"dns_names": ["gw.example"]})),
            (format!("/v1/operators/op-{fleet}"), json!({"role": "operator"})),
        ] {
            let read = owner.get(&path).await.is(200);
            let tag = read.header("etag").to_owned();
            assert_eq!(tag, format!("\"{}\"", read.json()["version"]), "{path}");
            let changed = owner.patch(&path, &[("if-match", &tag)], &change).await.is(200);
            assert_ne!(changed.header("etag"), tag, "{path}");
            owner.patch(&path, &[("if-match", &tag)], &change).await.refused(412, "etag_mismatch");
            owner.patch(&path, &[("if-match", "\"nonsense\"")], &change).await.refused(412, "etag_mismatch");
            owner.patch(&path, &[("if-match", "*")], &change).await.is(200);
            owner.patch(&path, &[], &json!({"no_such_field": 1})).await.refused(400, "malformed_request");
            let (name, wanted) = change.as_object().unwrap().iter().next().unwrap();
            assert_eq!(&owner.get(&path).await.is(200).json()[name], wanted, "{path}");
        }
    });
}

/// All items of a list, page by page.
async fn pages(client: &Client, path: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut items, mut count, mut cursor) = (Vec::new(), 0, None::<String>);
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let after = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let page = client.get(&format!("{path}{joint}limit={limit}{after}")).await.is(200).json();
        let part = page["items"].as_array().unwrap();
        assert!(part.len() <= limit);
        items.extend(part.iter().cloned());
        count += 1;
        assert!(count < 100, "the pages of {path} never end");
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return (items, count),
        }
    }
}

#[test]
fn pages_hold_every_item_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let owner = server.owner();
        for number in 0..11 {
            let name = format!("device-{number:02}");
            owner.post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": name})).await.is(201);
            owner.post(&format!("/v1/fleets/{fleet}/tokens"), &json!({"device": name})).await.is(201);
        }
        for number in 0..5 {
            Device::good(&server, &fleet, &format!("enrolled-{number}")).await;
        }
        let lists = [
            (format!("/v1/fleets/{fleet}/devices"), "name", 16),
            (format!("/v1/fleets/{fleet}/tokens"), "id", 16),
            (format!("/v1/certificates?fleet={fleet}&kind=device"), "serial", 5),
        ];
        for (path, field, total) in lists {
            for limit in [1, 3, 4, 16, 500] {
                let (items, _) = pages(owner, &path, limit).await;
                let distinct: HashSet<_> = items.iter().map(|item| text(item, field)).collect();
                assert_eq!((items.len(), distinct.len()), (total, total), "{path} by {limit}");
            }
            for (query, status, code) in [
                ("limit=0", 422, "invalid_value"),
                ("limit=501", 422, "invalid_value"),
                ("limit=x", 400, "malformed_request"),
                ("no=1", 400, "malformed_request"),
            ] {
                let joint = if path.contains('?') { '&' } else { '?' };
                owner.get(&format!("{path}{joint}{query}")).await.refused(status, code);
            }
            let joint = if path.contains('?') { '&' } else { '?' };
            let told = owner.get(&format!("{path}{joint}cursor=nonsense")).await;
            assert!(matches!(told.status, 400 | 422), "{path}: {}", told.text());
        }
        let (fleets, _) = pages(owner, "/v1/fleets", 3).await;
        assert!(fleets.iter().any(|item| item["name"] == fleet) && fleets.iter().any(|item| item["name"] == "default"));
    });
}

#[test]
fn lists_are_searched_by_name_state_standing_holder_and_end() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let owner = server.owner();
        let good = Device::good(&server, &fleet, "pump-1").await;
        let held = Device::good(&server, &fleet, "pump-2").await;
        held.act(&server, "hold", json!({})).await;
        let revoked = Device::good(&server, &fleet, "Valve-1").await;
        revoked.act(&server, "retire", json!({})).await;
        owner.post(&format!("/v1/fleets/{fleet}/devices"), &json!({"name": "spare_1"})).await.is(201);

        let names = |query: &'static str| {
            let (owner, fleet) = (owner.clone(), fleet.clone());
            async move {
                let page = owner.get(&format!("/v1/fleets/{fleet}/devices?{query}")).await.is(200).json();
                let mut names: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| text(item, "name")).collect();
                names.sort();
                names
            }
        };
        assert_eq!(names("search=pump").await, ["pump-1", "pump-2"]);
        assert_eq!(names("search=PUMP-1").await, ["pump-1"]);
        assert_eq!(names("search=valve").await, ["Valve-1"]);
        // What a pattern means to the database is a letter here.
        assert_eq!(names("search=%25").await, [""; 0]);
        assert_eq!(names("search=_").await, ["spare_1"]);
        assert_eq!(names("search=%27").await, [""; 0]);
        assert_eq!(names("state=registered").await, ["spare_1"]);
        assert_eq!(names("state=active").await, ["pump-1", "pump-2"]);
        assert_eq!(names("state=retired").await, ["Valve-1"]);
        assert_eq!(names("state=active&search=2").await, ["pump-2"]);

        let serials = |query: String| {
            let owner = owner.clone();
            async move {
                let page = owner.get(&format!("/v1/certificates?{query}")).await.is(200).json();
                let serials = page["items"].as_array().unwrap().iter().map(|item| text(item, "serial"));
                serials.collect::<Vec<_>>()
            }
        };
        assert_eq!(serials(format!("fleet={fleet}&kind=device&standing=good")).await, [good.serial()]);
        assert_eq!(serials(format!("fleet={fleet}&standing=held")).await, [held.serial()]);
        assert_eq!(serials(format!("fleet={fleet}&standing=revoked")).await, [revoked.serial()]);
        assert_eq!(serials(format!("fleet={fleet}&subject=PUMP-2")).await, [held.serial()]);
        assert_eq!(serials(format!("subject=spiffe://fleet.test/device/{fleet}/pump-1")).await, [good.serial()]);
        assert_eq!(serials(format!("serial={}", good.serial())).await, [good.serial()]);
        assert_eq!(serials(format!("fingerprint={}", held.fingerprint())).await, [held.serial()]);
        assert_eq!(serials(format!("fingerprint={}", "00".repeat(32))).await, [""; 0]);
        // A device's certificate lasts 90 d, the OCSP responder's 14 d.
        assert_eq!(serials(format!("fleet={fleet}&kind=device&expiring_within_seconds=7689600")).await, [""; 0]);
        assert_eq!(serials(format!("fleet={fleet}&kind=device&expiring_within_seconds=7862400")).await.len(), 3);
        owner.get("/v1/certificates?standing=bad").await.refused(422, "invalid_value");
        owner.get("/v1/certificates?subject=pump-1").await.refused(422, "invalid_value");
        owner.get(&format!("/v1/certificates?serial={}&kind=device", good.serial())).await.refused(422, "invalid_value");
        let (pem, der) = (owner.get(&format!("/v1/certificates/{}/pem", good.serial())).await.is(200), good.identity.leaf());
        assert_eq!(pem.text().trim(), crate::harness::openssl::pem("CERTIFICATE", der).trim());
    });
}

#[test]
fn what_an_operator_was_not_granted_is_not_there() {
    let server = shared();
    run(async {
        let (mine, hidden) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let device = Device::good(&server, &hidden, "secret-device").await;
        let own = Device::good(&server, &mine, "own-device").await;
        let (identity, _) = operator(&server, &format!("scoped-{mine}"), Role::Owner, json!([mine])).await;
        let scoped = server.admin_client(Some(&identity));
        let authority = crate::harness::forge::authority_id(&server, "device", Some(&hidden)).await;
        for path in [
            format!("/v1/fleets/{hidden}"),
            format!("/v1/fleets/{hidden}/devices"),
            format!("/v1/fleets/{hidden}/devices/secret-device"),
            format!("/v1/fleets/{hidden}/tokens"),
            format!("/v1/certificates/{}", device.serial()),
            format!("/v1/certificates/{}/pem", device.serial()),
            format!("/v1/certificates?fleet={hidden}"),
            format!("/v1/certificates?subject=spiffe://fleet.test/device/{hidden}/secret-device"),
            format!("/v1/authorities/{authority}"),
            format!("/v1/ledgers/{hidden}"),
            format!("/v1/ledgers/{hidden}/checkpoint"),
            format!("/v1/ledgers/{hidden}/entries"),
            format!("/v1/ledgers/{hidden}/proofs/inclusion?index=0&size=1"),
        ] {
            let told = scoped.get(&path).await.is(404);
            // Told as of a fleet that there is none of.
            let never = path.replace(&hidden, "no-such-fleet").replace(&device.serial(), &"01".repeat(17));
            let never = never.replace(&format!("authorities/{authority}"), "authorities/99999");
            assert_eq!(told.body, scoped.get(&never).await.is(404).body, "{path}");
        }
        for act in ["revoke", "hold", "release"] {
            scoped.post(&format!("/v1/certificates/{}/{act}", device.serial()), &json!({})).await.is(404);
            scoped.post(&format!("/v1/fleets/{hidden}/devices/secret-device/{act}"), &json!({})).await.is(404);
        }
        assert_eq!(device.standing(&server).await, "good");
        for list in ["/v1/fleets", "/v1/certificates", "/v1/authorities", "/v1/ledgers", "/v1/status"] {
            let listed =
                scoped.get(&format!("{list}{}", if list == "/v1/status" { "" } else { "?limit=500" })).await.is(200).text();
            assert!(!listed.contains(&format!("\"{hidden}\"")) && !listed.contains("secret-device"), "{list}: {listed}");
            assert!(listed.contains(&format!("\"{mine}\"")), "{list} lacks what was granted");
        }
        let unknown = scoped.get(&format!("/v1/certificates?fingerprint={}", device.fingerprint())).await.is(200).json();
        assert_eq!(unknown["items"], json!([]));
        let unknown = scoped.get(&format!("/v1/certificates?serial={}", device.serial())).await.is(200).json();
        assert_eq!(unknown["items"], json!([]));
        scoped.get(&format!("/v1/certificates/{}", own.serial())).await.is(200);
    });
}
