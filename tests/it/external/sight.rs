//! Certificates of another CA that are adopted because they are seen: at a gateway that reports them, and at the device door.

use serde_json::{Value, json};

use super::{ForeignCa, authorities, by_list, certificates, check, create, import, serve, standings, verify};
use crate::harness::device::{sha256, verdict};
use crate::harness::gateway::Gateway;
use crate::harness::openssl::pem;
use crate::harness::server::text;
use crate::harness::{Connection, Identity, Key, Server, run, shared, until};

/// What a gateway could not or may not report, by why.
const UNREPORTED: &str = "fleetmark_gateway_external_unreported_total";
/// What it reported, by what came of it.
const REPORTED: &str = "fleetmark_gateway_external_reported_total";

fn on_sight(url: &str, hourly: u32, most: u32) -> Value {
    let mut rules = by_list(url);
    rules["adopt"] = json!({"when": "on-sight", "hourly": hourly, "most": most});
    rules
}

async fn change(server: &Server, fleet: &str, rules: &Value) -> Value {
    let path = format!("{}/silo", authorities(fleet));
    server.owner().post_as("PUT", &path, &json!({"rules": rules})).await.is(200).json()
}

fn counted(found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.5, "{found} instead of {expected}");
}

/// The devices whose certificates are adopted.
async fn adopted(server: &Server, fleet: &str) -> Vec<String> {
    let shown = server.owner().get(&certificates(fleet)).await.is(200).json();
    let names = shown["items"].as_array().unwrap().iter().map(|one| text(one, "identity"));
    names.map(|identity| identity.rsplit('/').next().unwrap().to_owned()).collect()
}

/// Comes to the gateway until it is let in.
async fn comes_in(gateway: &Gateway, identity: &Identity) {
    until("to be let in", 30, || async { gateway.dial(identity).await.ok() }).await;
}

/// Comes to the gateway, and is refused, until the gateway has counted this.
async fn refused_until(gateway: &Gateway, identity: &Identity, metric: &str, label: (&str, &str)) {
    until(label.1, 30, || async {
        assert!(!gateway.admits(identity).await, "{label:?}: it came in");
        (gateway.metric(metric, &[label]).await >= 1.0).then_some(())
    })
    .await;
}

#[test]
fn what_a_gateway_sees_is_adopted_where_that_is_allowed() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-sight");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        create(&server, &fleet, &ca, by_list(&url)).await;
        let gateway = Gateway::start(&server, "gw-silo-sight", &[&fleet]).await;
        let pump = ca.device("pump-a");
        // Not allowed unless it is said.
        refused_until(&gateway, &pump, UNREPORTED, ("reason", "not_allowed")).await;
        gateway.says("external_unknown", &pump, 5).await;
        assert_eq!(verdict(&server, &pump, &fleet).await, "external_unknown");
        counted(gateway.metric(REPORTED, &[]).await, 0.0);
        assert_eq!(adopted(&server, &fleet).await, [""; 0]);

        let changed = change(&server, &fleet, &on_sight(&url, 100, 1_000)).await;
        assert_eq!(changed["rules"]["adopt"]["when"], "on-sight", "{changed}");
        comes_in(&gateway, &pump).await;
        gateway.dial(&pump).await.unwrap();
        assert_eq!(adopted(&server, &fleet).await, ["pump-a"]);
        counted(gateway.metric(REPORTED, &[("outcome", "adopted")]).await, 1.0);
        let shown = server.owner().get(&format!("{}/silo", authorities(&fleet))).await.is(200).json();
        assert_eq!(shown["adopted_on_sight"], 1, "{shown}");

        // Signed by a CA of the same name: nobody is told.
        let forged = ForeignCa::new(&server, "silo-sight").device("pump-f");
        refused_until(&gateway, &forged, UNREPORTED, ("reason", "chain")).await;
        counted(gateway.metric(REPORTED, &[]).await, 1.0);
        // Nor does the CA's own key give anybody a device that is here; the device's own key may be certified again.
        let impostor = ca.issue("impostor", "/O=Silo/CN=pump-a", "leaf");
        refused_until(&gateway, &impostor, REPORTED, ("outcome", "refused")).await;
        assert_eq!(verdict(&server, &impostor, &fleet).await, "external_name_taken");
        comes_in(&gateway, &ca.certify("pump-a", "again.pem", "leaf")).await;
        assert_eq!(adopted(&server, &fleet).await, ["pump-a", "pump-a"]);
        // On its authority's list.
        let revoked = ca.device("pump-r");
        ca.revoke("pump-r", "keyCompromise");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        assert!(!gateway.admits(&revoked).await);
        assert_eq!(verdict(&server, &revoked, &fleet).await, "revoked");
        assert!(!gateway.admits(&revoked).await);
        assert_eq!(adopted(&server, &fleet).await, ["pump-a", "pump-a"]);
        // What was adopted is judged as any other.
        let live = gateway.dial(&pump).await.unwrap();
        ca.revoke("pump-a", "keyCompromise");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        live.ends().await;
        assert_eq!(standings(&server, &fleet, &pump).await, ["revoked", "good", "revoked"]);
        let (verified, told) = verify(&server, &fleet);
        assert!(verified, "{told}");
    });
}

#[test]
fn no_more_are_adopted_on_sight_than_may_be() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-cap");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        create(&server, &fleet, &ca, on_sight(&url, 100, 2)).await;
        let gateway = Gateway::start(&server, "gw-silo-cap", &[&fleet]).await;
        let [a, b, c, d] = ["pump-a", "pump-b", "pump-c", "pump-d"].map(|name| ca.device(name));
        comes_in(&gateway, &a).await;
        assert_eq!(verdict(&server, &b, &fleet).await, "ok");
        // The CA's key is in the wrong hands, say.
        let alarm = [("alarm", "external_adoption_limit")];
        counted(server.metric("fleetmark_alarms_total", &alarm).await, 0.0);
        refused_until(&gateway, &c, REPORTED, ("outcome", "refused")).await;
        assert_eq!(verdict(&server, &c, &fleet).await, "external_adoption_limit");
        assert!(server.metric("fleetmark_alarms_total", &alarm).await >= 1.0);
        assert_eq!(adopted(&server, &fleet).await, ["pump-a", "pump-b"]);
        // An import is an operator's own act, and no sight.
        assert_eq!(import(&server, &fleet, &pem("CERTIFICATE", d.leaf())).await["adopted"], 1);
        change(&server, &fleet, &on_sight(&url, 3, 9)).await;
        comes_in(&gateway, &c).await;
        assert_eq!(verdict(&server, &ca.device("pump-e"), &fleet).await, "external_adoption_limit", "three in the hour");
        // Rules that nobody can keep to are none.
        let bad = json!({"name": "bad", "ca": ForeignCa::new(&server, "silo-bad").ca_pem(), "rules": {"adopt": {"when": "on-sight"}}});
        server.owner().post(&authorities(&fleet), &bad).await.refused(422, "invalid_value");
    });
}

#[test]
fn the_device_door_adopts_what_it_sees_too() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-door");
        let (list, url) = serve();
        let mut rules = on_sight(&url, 100, 1_000);
        rules["on_stale"] = "go-on".into();
        create(&server, &fleet, &ca, rules).await;
        let [asks, moves, other] = ["pump-a", "pump-b", "pump-c"].map(|name| ca.device(name));
        // Without a word of its authority nothing is adopted by itself, even where the fleet goes on without one.
        assert_eq!(verdict(&server, &asks, &fleet).await, "external_status_stale");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        let path = format!("/v1/fleets/{fleet}/renewal");
        let open =
            async |identity: &Identity| Connection::open(server.device_port, &server.trust(), Some(identity)).await.unwrap();
        open(&asks).await.get(&path).await.unwrap().is(200);
        let key = Key::new();
        let enroll = format!("/v1/fleets/{fleet}/enroll");
        let answer = open(&moves).await.post(&enroll, &json!({"csr": key.csr()})).await.unwrap().is(200).json();
        assert_eq!(answer["identity"], format!("spiffe://fleet.test/device/{fleet}/pump-b"));
        assert_eq!(adopted(&server, &fleet).await, ["pump-a", "pump-b"]);
        // Where its authority is disabled, nothing is.
        server.owner().post(&format!("{}/silo/disable", authorities(&fleet)), &json!({})).await.is(200);
        let told = verdict(&server, &other, &fleet).await;
        assert!(told.starts_with("handshake") || told == "external_disabled", "{told}");
        assert_eq!(adopted(&server, &fleet).await.len(), 2);
    });
}

/// Runs the operators' program.
fn fleetmark(server: &Server, words: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(words)
        .arg("--operator")
        .arg(server.data().join("operator"))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_fingerprint_is_a_permit() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-listed");
        create(&server, &fleet, &ca, json!({})).await;
        let [listed, named, stranger, gone] = ["pump-a", "pump-b", "pump-c", "pump-d"].map(|name| ca.device(name));
        let lines = format!(
            "fingerprint,device\n{},pump-a\n{},pump-x\n{}\n",
            sha256(listed.leaf()),
            sha256(named.leaf()).to_uppercase(),
            sha256(gone.leaf())
        );
        let file = server.write_scratch(&format!("{fleet}.csv"), lines.as_bytes());
        let words = ["external", "import", "silo", "--fleet", &fleet, "--fingerprints", file.to_str().unwrap()];
        let (done, told) = fleetmark(&server, &words);
        assert!(!done && told.contains("adopt.when"), "{told}");
        change(&server, &fleet, &json!({"adopt": {"when": "listed"}})).await;
        let (done, told) = fleetmark(&server, &words);
        assert!(done && told.contains("3 expected, 0 known before, 0 refused."), "{told}");
        let (done, told) = fleetmark(&server, &["external", "expected", "remove", &sha256(gone.leaf()), "--fleet", &fleet]);
        assert!(done, "{told}");

        let gateway = Gateway::start(&server, "gw-silo-listed", &[&fleet]).await;
        comes_in(&gateway, &listed).await;
        refused_until(&gateway, &stranger, REPORTED, ("outcome", "refused")).await;
        for (identity, code) in [(&stranger, "external_unknown"), (&gone, "external_unknown"), (&named, "name_not_allowed")] {
            assert!(!gateway.admits(identity).await);
            assert_eq!(verdict(&server, identity, &fleet).await, code);
        }
        assert_eq!(adopted(&server, &fleet).await, ["pump-a"]);
        let shown = fleetmark(&server, &["external", "expected", "list", "--fleet", &fleet, "--json"]).1;
        assert!(shown.contains(&sha256(named.leaf())) && !shown.contains(&sha256(listed.leaf())), "{shown}");
        let again = fleetmark(&server, &words).1;
        assert!(again.contains("2 expected, 1 known before, 0 refused."), "{again}");
        let path = format!("/v1/fleets/{fleet}/expected-certificates?authority=silo");
        let csv = [("content-type", "text/csv")];
        server.owner().send("POST", &path, &csv, Some(b"pump-a".to_vec())).await.refused(400, "malformed_request");
        server.owner().post(&path, &json!({})).await.refused(415, "media_type_not_supported");
    });
}
