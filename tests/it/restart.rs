//! What must survive: an orderly stop, and kill -9. A server of its own, stopped and started in one directory. Its log is looked
//! through for secrets at the end.

use std::fs;

use serde_json::json;

use crate::ceremony::{SERVERS, fleetmark};
use crate::harness::device::{confirm_by_token, enroll};
use crate::harness::forge::authority_id;
use crate::harness::server::text;
use crate::harness::{Device, Key, Server, run};
use crate::standing::{list, listed_within};

#[test]
fn certificates_standings_tokens_and_lists_survive_a_restart_and_no_secret_is_in_the_log() {
    let mut server = Server::start(&["--log-level", "debug"]);
    let mut tokens = Vec::new();
    let (unconfirmed, good, held, revoked, number, minted, fresh) = run(async {
        let fleet = "default";
        let unconfirmed = Device::unconfirmed(&server, fleet, "unconfirmed").await;
        let good = Device::good(&server, fleet, "good").await;
        let held = Device::good(&server, fleet, "held").await;
        held.act(&server, "hold", json!({})).await;
        let revoked = Device::good(&server, fleet, "revoked").await;
        revoked.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        let number = listed_within(&server, fleet, &revoked.serial(), Some(1)).await.number;
        let header = [("idempotency-key", "before-the-restart")];
        let minted =
            server.owner().post_with("/v1/fleets/default/tokens", &header, &json!({"device": "later"})).await.is(201).json();
        let fresh = server.token(fleet, "fresh").await;
        // Wrong secrets and malformed bodies are refusals, and refusals are logged.
        let client = server.device_client(None);
        let wrong = format!("{}x", &fresh[..fresh.len() - 1]);
        enroll(&client, fleet, &wrong, &Key::new(), None).await.is(401);
        let authorization = format!("Bearer {fresh}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = format!("{{\"csr\": 1, \"device\": \"{fresh}\"}}").into_bytes();
        client.send("POST", "/v1/fleets/default/enroll", &headers, Some(body)).await.is(400);
        client.send("POST", &format!("/v1/fleets/default/enroll?token={fresh}"), &headers, Some(b"{}".to_vec())).await.is(400);
        client.post("/v1/fleets/default/enroll", &json!({"csr": fresh})).await.is(401);
        enroll(&client, "no-such-fleet", &fresh, &Key::new(), None).await.is(403);
        (unconfirmed, good, held, revoked, number, minted, fresh)
    });
    tokens.extend([unconfirmed.token.clone(), good.token.clone(), held.token.clone(), text(&minted, "token"), fresh.clone()]);
    let root = server.root();

    for restart in ["stop", "kill"] {
        if restart == "stop" {
            server.restart();
        } else {
            server.kill_and_start();
        }
        assert_eq!(server.root(), root, "another root");
        run(async {
            let client = server.device_client(None);
            for device in [&unconfirmed, &good] {
                let again = enroll(&client, "default", &device.token, &device.key, None).await.is(200).json();
                assert_eq!(again["certificate"], device.answer["certificate"], "{restart}: {}", device.name);
                assert_eq!(again["replayed"], true);
            }
            assert_eq!(good.verdict(&server).await, "ok");
            assert_eq!(held.verdict(&server).await, "held");
            assert_eq!(revoked.verdict(&server).await, "revoked");
            let after = list(&server, "default").await;
            assert!(after.number >= number, "the list's number went back from {number} to {}", after.number);
            assert_eq!(after.entries.get(&revoked.serial()), Some(&1));
            assert_eq!(after.entries.get(&held.serial()), Some(&6));
            let header = [("idempotency-key", "before-the-restart")];
            let again = server.owner().post_with("/v1/fleets/default/tokens", &header, &json!({"device": "later"})).await;
            assert_eq!(again.is(201).json(), minted, "{restart}");
        });
    }
    run(async {
        let client = server.device_client(None);
        let again = unconfirmed.confirm(&server).await.is(200).json();
        assert_eq!(again["standing"], "good");
        let key = Key::new();
        let late = enroll(&client, "default", &fresh, &key, None).await.is(200).json();
        confirm_by_token(&client, "default", &fresh, &text(&late, "fingerprint")).await.is(200);
        let newly = Device::good(&server, "default", "newly-revoked").await;
        newly.act(&server, "revoke", json!({})).await;
        let next = listed_within(&server, "default", &newly.serial(), None).await.number;
        assert!(next > number, "{next} after {number}");
        // Indices go on: no serial came twice.
        let all = server.owner().get("/v1/certificates?limit=500").await.is(200).json();
        let items = all["items"].as_array().unwrap();
        let places: std::collections::HashSet<_> = items.iter().map(|item| text(item, "serial")[..18].to_owned()).collect();
        assert_eq!(places.len(), items.len());
        assert!(authority_id(&server, "root", None).await == 1);
        tokens.push(newly.token);
    });
    let log = server.log();
    assert!(log.contains("refused"), "the log says nothing of refusals, so it proves nothing of secrets");
    let passphrase = fs::read_to_string(server.data().join("passphrase")).unwrap();
    assert!(!log.contains(passphrase.trim()), "the passphrase is in the log");
    assert!(!log.contains("PRIVATE KEY"), "a private key is in the log");
    for token in &tokens {
        let secret = token.rsplit_once('_').unwrap().1;
        // A secret may hold '_' itself: its longest part must not be there either.
        assert!(!log.contains(token.as_str()), "a token is in the log");
        assert!(secret.len() < 12 || !log.contains(secret), "a token's secret is in the log");
    }
}

#[test]
fn a_server_that_is_told_to_stop_ends_in_time_with_requests_open() {
    let mut server = Server::start(&[]);
    let device = run(Device::good(&server, "default", "a"));
    let open = run(async {
        let mut open = device.connect(&server).await;
        open.get("/v1/time").await.unwrap().is(200);
        open
    });
    let started = std::time::Instant::now();
    assert_eq!(server.stop(), Some(0), "{}", server.log());
    assert!(started.elapsed() < std::time::Duration::from_secs(11), "{:?}", started.elapsed());
    drop(open);
}

#[test]
fn a_second_server_on_the_same_doors_says_which_port_is_in_use_and_harms_nothing() {
    let server = Server::start(&[]);
    let other = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(["up", "--data", other.path().join("data").to_str().unwrap(), "--name", "localhost"])
        .args([
            "--device-door",
            &format!("127.0.0.1:{}", server.device_port),
            "--admin-door",
            "127.0.0.1:0",
            "--public-door",
            "127.0.0.1:0",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("device door") && said.contains(&server.device_port.to_string()), "{said}");
    run(async { server.owner().get("/v1/whoami").await.is(200) });
}

#[test]
fn an_init_that_was_cut_off_is_finished_by_init() {
    let server = Server::laid_out("init", &[], &[SERVERS]);
    let data = server.data();
    let path = data.display().to_string();
    let options: Vec<_> = server.options().iter().map(String::as_str).collect();
    let init = || fleetmark(&[&["init"], &options[..]].concat(), SERVERS, "");
    let serve = || fleetmark(&["serve", "--data", &path], SERVERS, "");

    // With the ledger's key, and nothing else.
    fs::create_dir_all(data.join("keys")).unwrap();
    fs::write(data.join("keys/other"), "").unwrap();
    let served = fleetmark(&[&["serve"], &options[..]].concat(), SERVERS, "");
    assert!(served.0 == 1 && served.1.contains("run `fleetmark init` first"), "{}", served.1);
    assert!(data.join("keys/ledger-system.key.pem").exists());

    // With all but the first operator's profile.
    fs::write(data.join("operator"), "in the way").unwrap();
    let (code, said) = init();
    assert!(code == 1 && said.contains("the first operator's files cannot be written"), "{said}");
    fs::remove_file(data.join("operator")).unwrap();
    let (code, said) = init();
    assert_eq!(code, 0, "{said}");
    assert!(data.join("operator/cert.pem").exists());

    // What is whole is not made again, not even where the profile was taken away.
    let (code, said) = init();
    assert!(code == 1 && said.contains("there is an installation here already"), "{said}");
    fs::rename(data.join("operator"), data.join("elsewhere")).unwrap();
    let (code, said) = init();
    assert!(code == 1 && said.contains("there is an installation here already"), "{said}");
    let (code, said) = serve();
    assert!(code == 1 && said.contains("the root's key"), "{said}");
}
