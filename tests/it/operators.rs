//! Operators' lives: invitation, renewal, revocation, the last owner, the rescue socket. One server of their own, since the first
//! operator loses its key here.

use fleetmark_domain::Role;
use serde_json::{Value, json};

use crate::harness::client::over_socket;
use crate::harness::server::text;
use crate::harness::{Connection, Key, Server, run, shared};
use crate::matrix::{accept, operator};

#[test]
fn an_invited_operator_works_with_its_role_renews_and_is_put_out() {
    let server = shared();
    run(async {
        let body = json!({"name": "alice", "role": "operator"});
        let admitted = server.owner().post("/v1/operators", &body).await.is(201).json();
        assert_eq!((admitted["state"].as_str(), admitted["role"].as_str()), (Some("registered"), Some("operator")));
        let token = text(&admitted, "token");
        let (identity, answer) = accept(&server, &token).await;
        assert_eq!(answer["identity"], "spiffe://fleet.test/operator/alice");

        let alice = server.admin_client(Some(&identity));
        let whoami = alice.get("/v1/whoami").await.is(200).json();
        assert_eq!(
            (&whoami["identity"], &whoami["role"], &whoami["fleets"]),
            (&answer["identity"], &json!("operator"), &Value::Null)
        );
        assert_eq!(whoami["serial"], answer["serial"]);
        alice.post("/v1/fleets/default/tokens", &json!({})).await.is(201);
        alice.post("/v1/fleets", &json!({"name": "not-hers"})).await.refused(403, "not_permitted");
        let client = server.device_client(None);
        let again = json!({"csr": Key::new().csr()});
        let authorization = format!("Bearer {token}");
        client.post_with("/v1/enroll", &[("authorization", &authorization)], &again).await.refused(409, "token_used");

        // Renewal is at the device door; the first use of the new certificate, here at the admin door, ends the old one.
        let key = Key::new();
        let mut connection = Connection::open(server.device_port, &server.trust(), Some(&identity)).await.unwrap();
        let renewed = connection.post("/v1/renew", &json!({"csr": key.csr()})).await.unwrap().is(200).json();
        assert_eq!(renewed["generation"], 2);
        alice.get("/v1/whoami").await.is(200);
        let renewed_identity = key.identity(&renewed);
        let renewed_alice = server.admin_client(Some(&renewed_identity));
        renewed_alice.get("/v1/whoami").await.is(200);
        alice.get("/v1/whoami").await.refused(403, "superseded");

        // A change of role counts at once.
        server.owner().patch("/v1/operators/alice", &[], &json!({"role": "viewer"})).await.is(200);
        renewed_alice.post("/v1/fleets/default/tokens", &json!({})).await.refused(403, "not_permitted");
        renewed_alice.get("/v1/fleets").await.is(200);

        let out = server.owner().post("/v1/operators/alice/revoke", &json!({"note": "left"})).await.is(200).json();
        assert_eq!((out["state"].as_str(), out["standing"].as_str()), (Some("retired"), Some("revoked")));
        let told = renewed_alice.get("/v1/whoami").await.is(403).code();
        assert!(["identity_out", "revoked"].contains(&told.as_str()), "{told}");
        let minted = server.owner().post("/v1/operators/alice/invite", &json!({})).await;
        if minted.status == 201 {
            let authorization = format!("Bearer {}", text(&minted.json(), "token"));
            let body = json!({"csr": Key::new().csr()});
            client.post_with("/v1/enroll", &[("authorization", &authorization)], &body).await.refused(403, "identity_out");
        }
    });
}

#[test]
fn an_operator_who_lost_the_key_is_invited_again_and_the_old_certificate_ends() {
    let server = shared();
    run(async {
        let (old, _) = operator(&server, "bob", Role::SecurityOfficer, Value::Null).await;
        server.admin_client(Some(&old)).get("/v1/whoami").await.is(200);
        let minted = server.owner().post("/v1/operators/bob/invite", &json!({"expires_in_seconds": 60})).await.is(201).json();
        let (new, answer) = accept(&server, &text(&minted, "token")).await;
        assert_eq!(answer["generation"], 2);
        server.admin_client(Some(&new)).get("/v1/whoami").await.is(200);
        server.admin_client(Some(&old)).get("/v1/whoami").await.refused(403, "superseded");
    });
}

#[test]
fn an_invitation_is_of_no_use_at_a_fleets_door_nor_to_another_kind() {
    let server = shared();
    run(async {
        let body = json!({"name": "carol", "role": "viewer"});
        let token = text(&server.owner().post("/v1/operators", &body).await.is(201).json(), "token");
        let client = server.device_client(None);
        let key = Key::new();
        crate::harness::device::enroll(&client, "default", &token, &key, Some("carol")).await.refused(403, "token_wrong_fleet");
        accept(&server, &token).await;
        for (kind, body) in [("gateways", json!({"name": "carol"})), ("services", json!({"name": "carol"}))] {
            // Names are taken within a kind alone.
            server.owner().post(&format!("/v1/{kind}"), &body).await.is(201);
            server.owner().post(&format!("/v1/{kind}"), &body).await.refused(409, "name_taken");
        }
        server.owner().post("/v1/operators", &json!({"name": "CAROL", "role": "viewer"})).await.refused(409, "name_taken");
        server.owner().post("/v1/operators", &json!({"name": "dave", "role": "root"})).await.refused(400, "malformed_request");
        server.owner().post("/v1/operators", &json!({"name": "dave"})).await.refused(400, "malformed_request");
        server.owner().post("/v1/gateways", &json!({"name": "dave", "role": "owner"})).await.refused(400, "malformed_request");
    });
}

#[test]
fn the_last_owner_stays_and_a_lost_key_is_recovered_on_the_servers_machine() {
    let server = Server::start(&[]);
    run(async {
        let owner = server.owner();
        owner.post("/v1/operators/admin/revoke", &json!({})).await.refused(409, "last_owner");
        owner.patch("/v1/operators/admin", &[], &json!({"role": "viewer"})).await.refused(409, "last_owner");
        // With a second owner the first may go down, and the second is the last then.
        let (second, _) = operator(&server, "second", Role::Owner, Value::Null).await;
        let second = server.admin_client(Some(&second));
        second.patch("/v1/operators/admin", &[], &json!({"role": "viewer"})).await.is(200);
        second.post("/v1/operators/second/revoke", &json!({})).await.refused(409, "last_owner");
        second.patch("/v1/operators/admin", &[], &json!({"role": "owner"})).await.is(200);

        // The rescue socket.
        let socket = server.data().join("rescue.sock");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "the rescue socket is open to others");
        let key = Key::new();
        let body = |operator: &str, key: &Key| json!({"operator": operator, "csr": key.csr()});
        over_socket(&socket, "POST", "/v1/recover", &body("nobody", &key)).await.refused(404, "not_found");
        over_socket(&socket, "POST", "/v1/recover", &body("../admin", &key)).await.refused(422, "invalid_name");
        over_socket(&socket, "POST", "/v1/recover", &json!({"operator": "admin", "csr": "x"}))
            .await
            .refused(400, "csr_malformed");
        over_socket(&socket, "GET", "/v1/recover", &json!({})).await.refused(405, "method_not_allowed");
        over_socket(&socket, "GET", "/v1/fleets", &json!({})).await.refused(404, "not_found");
        owner.get("/v1/whoami").await.is(200);

        let old = text(&owner.get("/v1/whoami").await.is(200).json(), "serial");
        let answer = over_socket(&socket, "POST", "/v1/recover", &body("admin", &key)).await.is(200).json();
        assert_eq!((answer["standing"].as_str(), answer["replayed"].as_bool()), (Some("good"), Some(false)));
        owner.get("/v1/whoami").await.refused(403, "revoked");
        let recovered = server.admin_client(Some(&key.identity(&answer)));
        assert_eq!(recovered.get("/v1/whoami").await.is(200).json()["role"], "owner");
        let record = recovered.get(&format!("/v1/certificates/{old}")).await.is(200).json();
        assert_eq!(record["standing"], "revoked");
        let again = over_socket(&socket, "POST", "/v1/recover", &body("admin", &key)).await.is(200).json();
        assert_eq!((&again["certificate"], again["replayed"].as_bool()), (&answer["certificate"], Some(true)));
        assert!(server.log().contains("rescue socket"), "the log says nothing of the rescue");
    });
}

#[test]
fn a_file_that_is_not_there_is_no_such_thing() {
    let server = shared();
    let operator = server.data().join("operator").display().to_string();
    let ends_with = |operator: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fleetmark"));
        let output = command.args(["--operator", operator]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let order = ["revocation", "order", "revoke", "--fleet", "default"];
    let orders = ["--key", "--maker", "--certs-from", "--devices-from"].map(|by| [&order[..], &[by, "gone"]].concat());
    let others = [
        &["key", "block", "--public-key", "gone"][..],
        &["device", "import", "gone", "--format", "csv"],
        &["fleet", "hook", "set", "default", "--url", "https://localhost", "--roots", "gone"],
        &["group", "derive", "line-4", "a", "--key-file", "gone"],
        &["policy", "check", "gone"],
    ];
    for arguments in orders.iter().map(Vec::as_slice).chain(others) {
        let (code, said) = ends_with(&operator, arguments);
        assert_eq!((code, said.contains("gone: there is no such file")), (Some(3), true), "{arguments:?}: {said}");
    }
    assert_eq!(ends_with("gone", &["whoami"]).0, Some(3));
}
