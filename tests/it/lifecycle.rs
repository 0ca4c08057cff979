//! The lives of devices and certificates: the drawings of docs/lifecycle.md, moves between fleets, letting in again, permits,
//! renewal waves.

use std::fs;
use std::path::Path;

use fleetmark_domain::{CertificateEvent, DeviceEvent, DeviceState, Refusal, RevocationReason, Role, Standing};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::harness::device::{confirm_by_token, enroll};
use crate::harness::server::text;
use crate::harness::{Connection, Device, Key, Server, run, shared};
use crate::matrix::operator;

/// The drawing and the table of a state machine, as the manual has them.
fn drawn<S: Copy + PartialEq, E: Copy>(
    states: &[(S, &str)],
    events: &[(E, &str)],
    next: impl Fn(S, E) -> Result<S, Refusal>,
    is_same: impl Fn(S, S) -> bool,
) -> String {
    let word = |state: S| states.iter().find(|(known, _)| is_same(*known, state)).unwrap().1;
    let mut drawing = format!("```mermaid\nstateDiagram-v2\n    [*] --> {}\n", states[0].1);
    let heads: Vec<_> = events.iter().map(|(_, word)| *word).collect();
    let mut table = format!("| | {} |\n{}|\n", heads.join(" | "), "|---".repeat(events.len() + 1));
    for (from, name) in states {
        let mut cells = Vec::new();
        for (event, label) in events {
            cells.push(match next(*from, *event) {
                Ok(to) if is_same(*from, to) => "stays".to_owned(),
                Ok(to) => {
                    drawing += &format!("    {name} --> {} : {label}\n", word(to));
                    word(to).to_owned()
                }
                Err(refusal) => format!("`{}`", refusal.code()),
            });
        }
        table += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    format!("{drawing}```\n\n{table}")
}

#[test]
fn the_manual_draws_both_lives_as_the_tables_have_them() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lifecycle.md")).unwrap();
    let states = DeviceState::ALL.map(|state| (state, state.as_str()));
    let events = DeviceEvent::ALL.map(|event| (event, event.as_str()));
    let device = drawn(&states, &events, DeviceState::next, |a, b| a == b);
    assert!(manual.contains(&device), "docs/lifecycle.md should hold\n{device}");

    let revoked = Standing::Revoked(RevocationReason::Unspecified);
    let standings =
        [Standing::Unconfirmed, Standing::Good, Standing::Superseded, Standing::Held, Standing::Quarantined, revoked];
    let states = standings.map(|standing| (standing, standing.as_str()));
    let events = CertificateEvent::ALL.map(|event| (event, event.as_str()));
    let certificate = drawn(&states, &events, Standing::next, |a, b| a.as_str() == b.as_str());
    assert!(manual.contains(&certificate), "docs/lifecycle.md should hold\n{certificate}");
}

/// An act of the owner on a device, whatever comes of it.
async fn act(server: &Server, device: &Device, act: &str, body: Value) -> crate::harness::client::Answer {
    let path = format!("/v1/fleets/{}/devices/{}/{act}", device.fleet, device.name);
    server.owner().post(&path, &body).await
}

async fn shown(server: &Server, fleet: &str, name: &str) -> Value {
    server.owner().get(&format!("/v1/fleets/{fleet}/devices/{name}")).await.is(200).json()
}

fn in_days(days: i64) -> String {
    (OffsetDateTime::now_utc() + Duration::days(days)).format(&Rfc3339).unwrap()
}

/// What a device gets with its transfer token; not confirmed.
async fn arrive(server: &Server, fleet: &str, name: &str, token: &str) -> Device {
    let key = Key::new();
    let answer = enroll(&server.device_client(None), fleet, token, &key, None).await.is(200).json();
    let identity = key.identity(&answer);
    Device { fleet: fleet.to_owned(), name: name.to_owned(), token: token.to_owned(), key, answer, identity }
}

#[test]
fn a_device_that_moves_ends_where_it_was_when_it_confirms_where_it_goes() {
    let server = shared();
    run(async {
        let (a, b) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let old = Device::good(&server, &a, "mover").await;
        act(&server, &old, "move", json!({"to": a})).await.refused(422, "invalid_value");
        act(&server, &old, "move", json!({"to": "nowhere"})).await.refused(404, "fleet_unknown");
        act(&server, &old, "cancel-move", json!({})).await.refused(409, "not_released");
        let released = act(&server, &old, "move", json!({"to": b})).await.is(201).json();
        let token = text(&released, "token");
        assert_eq!((released["fleet"].as_str(), released["device"].as_str()), (Some(b.as_str()), Some("mover")));
        let record = shown(&server, &a, "mover").await;
        assert_eq!((record["state"].as_str(), record["moving_to"].as_str()), (Some("released"), Some(b.as_str())));
        assert_eq!(old.verdict(&server).await, "ok", "a released device works on");

        // The same key is another identity's.
        let client = server.device_client(None);
        enroll(&client, &b, &token, &old.key, None).await.refused(409, "key_of_another_device");
        enroll(&client, &a, &token, &Key::new(), None).await.refused(403, "token_wrong_fleet");
        let new = arrive(&server, &b, "mover", &token).await;
        assert_eq!(old.verdict(&server).await, "ok", "until it confirms");
        // It renews where it is, meanwhile.
        let renewed = old.renew(&server).await;
        renewed.confirm(&server).await.is(200);
        assert_eq!(shown(&server, &a, "mover").await["state"], "released");

        confirm_by_token(&client, &b, &token, &new.fingerprint()).await.is(200);
        confirm_by_token(&client, &b, &token, &new.fingerprint()).await.is(200);
        assert_eq!(new.verdict(&server).await, "ok");
        assert_eq!(renewed.verdict(&server).await, "device_moved");
        for ended in [&old, &renewed] {
            let ended = ended.record(&server).await;
            let told = (ended["standing"].as_str(), ended["reason"].as_str());
            assert_eq!(told, (Some("revoked"), Some("affiliationChanged")));
        }
        let record = shown(&server, &a, "mover").await;
        assert_eq!((record["state"].as_str(), record["moving_to"].as_str()), (Some("retired"), Some(b.as_str())));
        assert_eq!(shown(&server, &b, "mover").await["state"], "active");
        act(&server, &old, "cancel-move", json!({})).await.refused(409, "device_moved");
        act(&server, &old, "readmit", json!({})).await.refused(409, "device_moved");
        act(&server, &old, "move", json!({"to": b})).await.refused(403, "identity_out");

        // And home again, under its old record.
        let released = act(&server, &new, "move", json!({"to": a})).await.is(201).json();
        let home = arrive(&server, &a, "mover", &text(&released, "token")).await;
        assert_eq!(home.answer["generation"], 3);
        assert_eq!(home.verdict(&server).await, "ok", "its first use confirms it");
        assert_eq!(new.verdict(&server).await, "device_moved");
        assert_eq!(shown(&server, &a, "mover").await["state"], "active");
    });
}

#[test]
fn a_release_that_is_taken_back_leaves_one_identity() {
    let server = shared();
    run(async {
        let (a, b, c) = (server.fleet(json!({})).await, server.fleet(json!({})).await, server.fleet(json!({})).await);
        let stays = Device::good(&server, &a, "stays").await;
        let token = text(&act(&server, &stays, "move", json!({"to": b})).await.is(201).json(), "token");
        let begun = arrive(&server, &b, "stays", &token).await;
        act(&server, &stays, "cancel-move", json!({"note": "wrong one"})).await.is(200);
        assert_eq!(begun.verdict(&server).await, "revoked");
        let client = server.device_client(None);
        confirm_by_token(&client, &b, &token, &begun.fingerprint()).await.refused(403, "not_on_ledger");
        enroll(&client, &b, &token, &Key::new(), None).await.refused(401, "token_withdrawn");
        assert_eq!(stays.verdict(&server).await, "ok");
        assert_eq!(shown(&server, &a, "stays").await["state"], "active");

        // Released again, elsewhere and here: only the last token counts.
        let first = text(&act(&server, &stays, "move", json!({"to": b})).await.is(201).json(), "token");
        let begun = arrive(&server, &b, "stays", &first).await;
        let second = text(&act(&server, &stays, "move", json!({"to": c})).await.is(201).json(), "token");
        assert_eq!(begun.verdict(&server).await, "revoked", "it was released to another fleet meanwhile");
        enroll(&client, &b, &first, &Key::new(), None).await.refused(401, "token_withdrawn");
        let moved = arrive(&server, &c, "stays", &second).await;
        assert_eq!(moved.verdict(&server).await, "ok");
        assert_eq!(begun.verdict(&server).await, "revoked");
        assert_eq!(stays.verdict(&server).await, "device_moved");

        // One that is put out meanwhile is out, and its name in the other fleet is free for whoever is let in there.
        let lost = Device::good(&server, &a, "lost").await;
        let token = text(&act(&server, &lost, "move", json!({"to": b})).await.is(201).json(), "token");
        let begun = arrive(&server, &b, "lost", &token).await;
        lost.act(&server, "retire", json!({})).await;
        assert_eq!(begun.verdict(&server).await, "revoked");
        enroll(&client, &b, &token, &Key::new(), None).await.refused(401, "token_withdrawn");
        assert_eq!(lost.verdict(&server).await, "identity_out");
        let another = Device::good(&server, &b, "lost").await;
        assert_eq!(another.verdict(&server).await, "ok");
        lost.act(&server, "readmit", json!({})).await;

        // What the name's holder there got by a right of its own stays.
        let own = server.token(&b, "early").await;
        let early = arrive(&server, &b, "early", &own).await;
        let leaving = Device::good(&server, &a, "early").await;
        act(&server, &leaving, "move", json!({"to": b})).await.is(201);
        act(&server, &leaving, "cancel-move", json!({})).await.is(200);
        assert_eq!(early.verdict(&server).await, "ok");
        assert_eq!(leaving.verdict(&server).await, "ok");

        // A name that another device has there is its own.
        Device::good(&server, &b, "taken").await;
        let taken = Device::good(&server, &a, "taken").await;
        act(&server, &taken, "move", json!({"to": b})).await.refused(409, "name_taken");
    });
}

#[test]
fn who_moves_a_device_has_rights_in_both_fleets() {
    let server = shared();
    run(async {
        let (a, b) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        Device::good(&server, &a, "wanted").await;
        let path = format!("/v1/fleets/{a}/devices/wanted/move");
        let ask = async |name: &str, role, fleets| {
            let identity = operator(&server, name, role, fleets).await.0;
            server.admin_client(Some(&identity)).post(&path, &json!({"to": b})).await
        };
        ask("mover-a", Role::SecurityOfficer, json!([a])).await.refused(404, "fleet_unknown");
        ask("mover-b", Role::SecurityOfficer, json!([b])).await.refused(404, "fleet_unknown");
        ask("mover-viewer", Role::Viewer, json!([a, b])).await.refused(403, "not_permitted");
        ask("mover-both", Role::SecurityOfficer, json!([a, b])).await.is(201);
    });
}

#[test]
fn a_retired_device_is_let_in_again_and_enrolls_anew() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "back").await;
        act(&server, &device, "readmit", json!({})).await.refused(409, "transition_not_allowed");
        device.act(&server, "retire", json!({})).await;
        assert_eq!(device.verdict(&server).await, "identity_out");
        act(&server, &device, "permit-enrollment", json!({"until": in_days(1)})).await.refused(403, "identity_out");
        for _ in 0..2 {
            let record = act(&server, &device, "readmit", json!({"note": "not scrapped"})).await.is(200).json();
            assert_eq!(record["state"], "registered");
        }
        assert_eq!(device.verdict(&server).await, "revoked", "what was revoked stays so");
        // An open token does not get the name.
        let open = server.open_token(&fleet).await;
        let client = server.device_client(None);
        enroll(&client, &fleet, &open, &Key::new(), Some("back")).await.refused(409, "name_taken");
        let again = Device::good(&server, &fleet, "back").await;
        assert_eq!((again.verdict(&server).await.as_str(), &again.answer["generation"]), ("ok", &json!(2)));
        assert_eq!(shown(&server, &fleet, "back").await["state"], "active");
    });
}

#[test]
fn permits_and_quarantine_show_and_have_bounds() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "p").await;
        let until = in_days(2);
        let record = act(&server, &device, "permit-renewal", json!({"until": until})).await.is(200).json();
        assert!(record["renewal_permitted_until"].is_string(), "{record}");
        let record = act(&server, &device, "permit-enrollment", json!({"until": until})).await.is(200).json();
        assert!(record["enrollment_permitted_until"].is_string() && record["renewal_permitted_until"].is_string(), "{record}");
        let record = act(&server, &device, "permit-renewal", json!({})).await.is(200).json();
        assert!(record["renewal_permitted_until"].is_null(), "{record}");
        for (permit, days) in [("permit-renewal", -1), ("permit-renewal", 3_651), ("permit-enrollment", 366)] {
            act(&server, &device, permit, json!({"until": in_days(days)})).await.refused(422, "invalid_value");
        }
        act(&server, &device, "permit-renewal", json!({"until": "tomorrow"})).await.refused(400, "malformed_request");

        let changed = device.act(&server, "quarantine", json!({"note": "odd traffic"})).await;
        assert_eq!(changed["certificates"][0]["standing"], "quarantined");
        assert_eq!(device.act(&server, "quarantine", json!({})).await["changed"], 0);
        assert_eq!(device.verdict(&server).await, "quarantined");
        device.act(&server, "release", json!({})).await;
        assert_eq!(device.verdict(&server).await, "ok");
    });
}

/// What a device is told about its renewal, without the time at which it was told.
async fn advice(connection: &mut Connection, path: &str) -> Value {
    let mut told = connection.get(path).await.unwrap().is(200).json();
    assert!(told.as_object_mut().unwrap().remove("server_time").is_some());
    told
}

#[test]
fn a_wave_reaches_the_devices_that_ask() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let device = Device::good(&server, &fleet, "w").await;
        let mut connection = device.connect(&server).await;
        let path = format!("/v1/fleets/{fleet}/renewal");
        let own = advice(&mut connection, &path).await;
        assert_eq!(own["renew_after"], device.answer["renew_after"]);
        assert_eq!(own["not_after"], device.answer["not_after"]);
        assert!(own["reason"].is_null() && own["poll_after_seconds"].as_u64().unwrap() >= 5 * 3_600, "{own}");
        connection.get(&format!("/v1/fleets/{other}/renewal")).await.unwrap().refused(403, "wrong_fleet");
        server.device_client(None).get(&path).await.refused(401, "certificate_required");

        let owner = server.owner();
        let wave = format!("/v1/fleets/{fleet}/renewal-wave");
        owner.get(&wave).await.refused(404, "not_found");
        owner.delete(&wave).await.refused(404, "not_found");
        for body in [
            json!({"until": in_days(-1)}),
            json!({"until": in_days(400)}),
            json!({"from": in_days(3), "until": in_days(2)}),
            json!({"issued_before": in_days(3), "until": in_days(2)}),
        ] {
            owner.post_as("PUT", &wave, &body).await.refused(422, "invalid_value");
        }
        let (from, until) = (in_days(1), in_days(3));
        let body = json!({"issued_before": in_days(1), "from": from, "until": until, "note": "new authority"});
        let started = owner.post_as("PUT", &wave, &body).await.is(200).json();
        let shown = owner.get(&wave).await.is(200).json();
        assert!(started.as_object().unwrap().iter().all(|(field, value)| shown[field] == *value), "{shown}");
        let pulled = advice(&mut connection, &path).await;
        let time = |value: &Value| OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap();
        let moment = time(&pulled["renew_after"]);
        assert_eq!(pulled["reason"], "wave");
        assert!(time(&started["from"]) <= moment && moment < time(&started["until"]), "{pulled}");
        assert!(pulled["poll_after_seconds"].as_u64().unwrap() < 2 * 3_600, "{pulled}");
        assert_eq!(advice(&mut connection, &path).await, pulled, "asked twice");

        // Only what was issued before is in the wave.
        owner.post_as("PUT", &wave, &json!({"issued_before": in_days(-1), "until": until})).await.is(200);
        assert_eq!(advice(&mut connection, &path).await, own);
        owner.post_as("PUT", &wave, &body).await.is(200);
        assert_eq!(owner.delete(&wave).await.is(200).json(), started);
        assert_eq!(advice(&mut connection, &path).await, own);
        owner.get(&wave).await.refused(404, "not_found");
    });
}
