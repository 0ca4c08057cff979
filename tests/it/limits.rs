//! The blast radius: what one operator may do to a fleet in an hour, and what a second one allows it beyond.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::Role;
use fleetmark_ledger::details::Details;
use serde_json::json;

use crate::harness::{Device, run, shared};
use crate::matrix::operator;

#[test]
fn one_operator_alone_changes_ten_devices_and_a_second_one_allows_more() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"blast_radius": null})).await;
        let path = |rest: &str| format!("/v1/fleets/{fleet}/{rest}");
        let client = async |name: &str, role, fleets| server.admin_client(Some(&operator(&server, name, role, fleets).await.0));
        let mallory = client("mallory", Role::SecurityOfficer, json!([fleet])).await;
        let second = client("second", Role::SecurityOfficer, json!([fleet])).await;
        let elsewhere = client("elsewhere", Role::SecurityOfficer, json!([])).await;
        let lesser = client("lesser", Role::Operator, json!([fleet])).await;

        // Each kind of change counts once a device, and what changes nothing does not count.
        let kept = Device::good(&server, &fleet, "kept").await;
        for act in ["hold", "hold", "release", "revoke", "revoke"] {
            mallory.post(&path(&format!("devices/kept/{act}")), &json!({})).await.is(200);
        }
        for number in 0..10 {
            let name = format!("d{number}");
            server.owner().post(&path("devices"), &json!({"name": name})).await.is(201);
        }
        mallory.patch(&path("devices/d0"), &[], &json!({"attributes": {"a": "b"}})).await.is(200);
        for number in 1..9 {
            mallory.post(&path(&format!("devices/d{number}/retire")), &json!({})).await.is(200);
        }
        let victim = Device::good(&server, &fleet, "victim").await;
        let before = server.refused("blast_radius_exceeded").await;
        let cases =
            [("devices/victim/revoke", json!({})), ("devices/victim/hold", json!({})), ("devices/victim/retire", json!({}))];
        for (act, body) in &cases {
            let refused = mallory.post(&path(act), body).await.refused(403, "blast_radius_exceeded");
            let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(
                detail.contains("10 devices") && detail.contains("0 are left") && detail.contains("allowances"),
                "{detail}"
            );
        }
        let serial = victim.serial();
        mallory.post(&format!("/v1/certificates/{serial}/revoke"), &json!({})).await.refused(403, "blast_radius_exceeded");
        let attributes = json!({"attributes": {"a": "b"}});
        mallory.patch(&path("devices/victim"), &[], &attributes).await.refused(403, "blast_radius_exceeded");
        assert_eq!(victim.standing(&server).await, "good");
        assert!(server.refused("blast_radius_exceeded").await >= before + 5.0);
        // What it changed already it may change again.
        mallory.patch(&path("devices/d0"), &[], &json!({"attributes": {"a": "c"}})).await.is(200);
        assert_eq!(kept.standing(&server).await, "revoked");

        let more = |name: &str, devices: u64| json!({"operator": name, "devices": devices, "hours": 2});
        let allowances = path("allowances");
        let own = mallory.post(&allowances, &more("mallory", 5)).await.refused(403, "not_permitted");
        assert!(own.json()["detail"].as_str().unwrap_or_default().contains("themselves"));
        mallory.post(&allowances, &more("MALLORY", 5)).await.refused(403, "not_permitted");
        lesser.post(&allowances, &more("mallory", 5)).await.refused(403, "not_permitted");
        elsewhere.post(&allowances, &more("mallory", 5)).await.refused(404, "fleet_unknown");
        second.post(&allowances, &more("nobody", 5)).await.refused(404, "not_found");
        second.post(&allowances, &more("mallory", 0)).await.refused(422, "invalid_value");
        second
            .post(&allowances, &json!({"operator": "mallory", "devices": 1, "hours": 25}))
            .await
            .refused(422, "invalid_value");
        second.post(&allowances, &more("mallory", 1)).await.is(201);
        let listed = mallory.get(&allowances).await.is(200).json();
        let first = &listed["items"][0];
        assert_eq!(
            (&first["operator"], &first["devices"], &first["allowed_by"]),
            (&json!("mallory"), &json!(1), &json!("second"))
        );

        mallory.post(&path("devices/victim/revoke"), &json!({})).await.is(200);
        mallory.post(&path("devices/d9/retire"), &json!({})).await.refused(403, "blast_radius_exceeded");
        // The other one has its own ten, and an owner may set the fleet's.
        second.post(&path("devices/d9/retire"), &json!({})).await.is(200);
        server.owner().patch(&format!("/v1/fleets/{fleet}"), &[], &json!({"blast_radius": 50})).await.is(200);
        server.owner().post(&path("devices"), &json!({"name": "d10"})).await.is(201);
        mallory.post(&path("devices/d10/retire"), &json!({})).await.is(200);

        // An auditor reads of it in the installation's ledger.
        let size = server.owner().get("/v1/ledgers/system").await.is(200).json()["size"].as_u64().unwrap();
        let from = size.saturating_sub(200);
        let entries = server.owner().get(&format!("/v1/ledgers/system/entries?from={from}&limit=200")).await.is(200).json();
        let details = entries["items"].as_array().unwrap().iter().filter_map(|entry| entry["details"].as_str());
        let note = format!("may change 1 more devices an hour of fleet {fleet} until ");
        let found = details.map(|text| Details::decode(&STANDARD.decode(text).unwrap()).unwrap()).find(|details| {
            details.note.as_ref().is_some_and(|written| written.starts_with(&note))
                && details.actor.ends_with("/operator/second")
                && details.subject.as_ref().is_some_and(|whom| whom.ends_with("/operator/mallory"))
        });
        assert!(found.is_some(), "the allowance is not in the ledger");
    });
}
