//! Orders over adopted certificates: what operators order stands beside what the other authority says, by its lists or its answers.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ForeignCa, Responder, adopt, by_list, certificates, check, create, serve, standings, verify};
use crate::approval::sql;
use crate::harness::device::sha256;
use crate::harness::forge::Maker;
use crate::harness::server::{free_port, text};
use crate::harness::{Identity, Server, run, shared, until};

/// How many certificates an order changed, once it is done.
async fn order(server: &Server, fleet: &str, act: &str, select: Value) -> u64 {
    let body = json!({"fleet": fleet, "act": act, "select": select});
    let tried = server.owner().post("/v1/revocations/dry-run", &body).await.is(200).json();
    let placed = server.owner().post("/v1/revocations", &body).await.is(201).json();
    let path = format!("/v1/revocations/{}", text(&placed, "id"));
    let done = until("the order", 60, || async {
        let order = server.owner().get(&path).await.is(200).json();
        (order["state"] == "done").then_some(order)
    })
    .await;
    assert_eq!(done["changed"], tried["certificates"], "{tried}: {done}");
    done["changed"].as_u64().unwrap()
}

#[test]
fn orders_stand_beside_the_other_authoritys_lists() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-orders");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        create(&server, &fleet, &ca, by_list(&url)).await;
        let [a, b, c] = ["pump-a", "pump-b", "pump-c"].map(|name| ca.device(name));
        for device in [&a, &b, &c] {
            adopt(&server, &fleet, device).await;
        }
        let listed = async || {
            list.is(ca.list(3_600));
            check(&server, &fleet).await;
        };
        let is = async |device: &Identity, expected: [&str; 3]| assert_eq!(standings(&server, &fleet, device).await, expected);
        let everything = || json!({"query": {"everything": true}});

        // An operator's hold is lifted by no list.
        assert_eq!(order(&server, &fleet, "hold", everything()).await, 3);
        listed().await;
        for device in [&a, &b, &c] {
            is(device, ["held", "held", "good"]).await;
        }
        ca.revoke("pump-a", "certificateHold");
        listed().await;
        is(&a, ["held", "held", "held"]).await;
        // Nor does an order let in what its own authority holds.
        let all = json!({"devices": ["pump-a", "pump-b", "pump-c"]});
        assert_eq!(order(&server, &fleet, "release", all).await, 3);
        is(&a, ["held", "good", "held"]).await;
        is(&b, ["good", "good", "good"]).await;
        listed().await;
        is(&a, ["held", "good", "held"]).await;
        for select in [everything(), json!({"query": {"standing": "held"}})] {
            assert_eq!(order(&server, &fleet, "release", select).await, 0, "we hold none of them");
        }
        // A hold where the other authority holds already is remembered.
        let shown = server.owner().get(&format!("{}/{}", certificates(&fleet), sha256(a.leaf()))).await.is(200).json();
        let by_serial = json!({"certificates": [text(&shown, "serial")]});
        assert_eq!(order(&server, &fleet, "hold", by_serial).await, 1);
        is(&a, ["held", "held", "held"]).await;
        ca.forgive();
        listed().await;
        is(&a, ["held", "held", "good"]).await;

        // By group, and of less weight than the other authority's hold.
        let group = json!({"name": "line", "proof": "maker", "ca": Maker::new("Silo").root_pem()});
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &group).await.is(201);
        let group = format!("SELECT id FROM enrollment_groups WHERE fleet = '{fleet}'");
        sql(&server, &format!("UPDATE subjects SET group_id = ({group}) WHERE fleet = '{fleet}' AND name = 'pump-a'"));
        assert_eq!(order(&server, &fleet, "quarantine", json!({"group": "line"})).await, 1);
        is(&a, ["quarantined", "quarantined", "good"]).await;
        ca.revoke("pump-a", "certificateHold");
        listed().await;
        is(&a, ["held", "quarantined", "held"]).await;
        ca.forgive();
        listed().await;
        is(&a, ["quarantined", "quarantined", "good"]).await;

        // What a query shows as held is held by whomever; revoked it is for ever, by either side.
        ca.revoke("pump-b", "certificateHold");
        ca.revoke("pump-c", "keyCompromise");
        listed().await;
        assert_eq!(order(&server, &fleet, "revoke", json!({"query": {"standing": "held"}})).await, 1);
        is(&b, ["revoked", "revoked", "held"]).await;
        is(&c, ["revoked", "good", "revoked"]).await;
        assert_eq!(order(&server, &fleet, "hold", json!({"devices": ["pump-b", "pump-c"]})).await, 0);
        assert_eq!(order(&server, &fleet, "revoke", everything()).await, 1);
        ca.forgive();
        listed().await;
        is(&a, ["revoked", "revoked", "good"]).await;
        is(&b, ["revoked", "revoked", "good"]).await;
        let (verified, told) = verify(&server, &fleet);
        assert!(verified, "{told}");
    });
}

#[test]
fn holds_by_answers_and_by_orders_are_lifted_each_by_its_own() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-answers");
        ca.issue("responder", "/CN=responder", "responder");
        let [a, b] = ["pump-a", "pump-b"].map(|name| ca.device(name));
        let port = free_port();
        let rules = json!({"status": {"kind": "ocsp", "url": format!("http://127.0.0.1:{port}/"), "nonce": true}});
        create(&server, &fleet, &ca, rules).await;
        {
            let _responder = Responder::start(&ca, "responder", port, 60).await;
            adopt(&server, &fleet, &a).await;
            adopt(&server, &fleet, &b).await;
        }
        // The responder reads its index when it starts. Its answers end later each time.
        let asked = async || {
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            let _responder = Responder::start(&ca, "responder", port, 60).await;
            let shown = check(&server, &fleet).await;
            assert_eq!(shown["failures"], json!([]), "{shown}");
        };
        let is = async |device: &Identity, expected: [&str; 3]| assert_eq!(standings(&server, &fleet, device).await, expected);

        // By answers alone.
        ca.revoke("pump-b", "certificateHold");
        asked().await;
        is(&b, ["held", "good", "held"]).await;
        ca.forgive();
        asked().await;
        is(&b, ["good", "good", "good"]).await;
        // An operator's hold is lifted by no answer.
        assert_eq!(order(&server, &fleet, "hold", json!({"devices": ["pump-a"]})).await, 1);
        is(&a, ["held", "held", "good"]).await;
        asked().await;
        is(&a, ["held", "held", "good"]).await;
        ca.revoke("pump-a", "certificateHold");
        ca.revoke("pump-b", "certificateHold");
        asked().await;
        is(&a, ["held", "held", "held"]).await;
        // Nor does an operator's release lift the other's, and the hold beside it is remembered.
        assert_eq!(order(&server, &fleet, "release", json!({"query": {"name": "pump-*"}})).await, 1);
        is(&a, ["held", "good", "held"]).await;
        assert_eq!(order(&server, &fleet, "hold", json!({"query": {"name": "pump-b"}})).await, 1);
        is(&b, ["held", "held", "held"]).await;
        ca.forgive();
        asked().await;
        is(&a, ["good", "good", "good"]).await;
        is(&b, ["held", "held", "good"]).await;
        assert_eq!(order(&server, &fleet, "release", json!({"devices": ["pump-b"]})).await, 1);
        is(&b, ["good", "good", "good"]).await;
        let (verified, told) = verify(&server, &fleet);
        assert!(verified, "{told}");
    });
}
