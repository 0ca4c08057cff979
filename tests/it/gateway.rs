//! Before any telemetry is accepted: the real gateway beside the real server.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::forge::{Stolen, Wanted, serial};
use crate::harness::gateway::Gateway;
use crate::harness::{Device, Key, Server, run, shared, until};

#[test]
fn a_revoked_device_is_cut_and_refused_and_the_others_are_not_touched() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (a, b) = (Device::good(&server, &fleet, "a").await, Device::good(&server, &fleet, "b").await);
        let gateway = Gateway::start(&server, "gw-cut", &[&fleet]).await;
        let (gone, mut stays) = (gateway.dial(&a.identity).await.unwrap(), gateway.dial(&b.identity).await.unwrap());
        a.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        gone.ends().await;
        assert!(!gateway.admits(&a.identity).await, "a revoked device came back in");
        let verdict = gateway.verdict(a.identity.leaf()).await;
        assert_eq!((&verdict["decision"], &verdict["reason"]), (&json!("deny"), &json!("revoked")), "{verdict}");
        stays.echo().await.unwrap();
        let verdict = gateway.verdict(b.identity.leaf()).await;
        assert_eq!((&verdict["decision"], &verdict["reason"]), (&json!("allow"), &json!("allowed")), "{verdict}");
        assert_eq!(verdict["identity"], format!("spiffe://fleet.test/device/{fleet}/b"));
        assert_eq!(verdict["ledger"], fleet.as_str());
        assert!(gateway.metric("fleetmark_proxy_cut_total", &[("reason", "revoked")]).await >= 1.0, "the cut is not counted");
    });
}

#[test]
fn a_held_device_is_cut_and_let_in_again_after_its_release() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let gateway = Gateway::start(&server, "gw-hold", &[&fleet]).await;
        let live = gateway.dial(&device.identity).await.unwrap();
        device.act(&server, "hold", json!({})).await;
        live.ends().await;
        gateway.says("held", &device.identity, 2).await;
        device.act(&server, "release", json!({})).await;
        gateway.says("allowed", &device.identity, 10).await;
        gateway.dial(&device.identity).await.unwrap();
    });
}

#[test]
fn who_enrolled_a_moment_ago_gets_in_and_is_confirmed_by_being_seen() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let gateway = Gateway::start(&server, "gw-newcomer", &[&fleet]).await;
        let device = Device::unconfirmed(&server, &fleet, "a").await;
        gateway.dial(&device.identity).await.unwrap();
        until("the sighting", 10, || async { (device.standing(&server).await == "good").then_some(()) }).await;
    });
}

#[test]
fn what_a_stolen_authority_signs_is_not_on_the_ledger() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let device = Device::good(&server, &fleet, "a").await;
        let stranger = Device::good(&server, &other, "a").await;
        let gateway = Gateway::start(&server, "gw-forged", &[&fleet]).await;
        gateway.dial(&device.identity).await.unwrap();
        let stolen = Stolen::take(&server, "device", Some(&fleet)).await;
        let copied = hex::decode(device.serial()).unwrap();
        let epoch = u32::from_be_bytes(copied[1..5].try_into().unwrap());
        let forgeries = [
            ("an exact copy of a good serial", copied.clone(), "not_on_ledger"),
            ("a fresh serial", serial(epoch, 9_000, [7; 8]), "not_on_ledger"),
            ("the good index, other random octets", [&copied[..9], &[7; 8]].concat(), "not_on_ledger"),
            ("no serial of ours", vec![0x42; 17], "not_on_ledger"),
        ];
        for (what, serial, reason) in forgeries {
            let forged = stolen.sign(&Wanted::device(&fleet, "a", serial), &Key::new());
            assert_eq!(gateway.verdict(forged.leaf()).await["reason"], reason, "{what}");
            assert!(!gateway.admits(&forged).await, "{what} came in");
        }
        assert!(!gateway.admits(&stranger.identity).await, "a device of a fleet that the gateway was not granted came in");
        gateway.dial(&device.identity).await.unwrap();
    });
}

#[test]
fn without_its_server_the_gateway_goes_on_until_stale_even_after_a_restart() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({"max_age_seconds": 10})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let mut gateway = Gateway::start(&server, "gw-offline", &[&fleet]).await;
        gateway.says("allowed", &device.identity, 10).await;
        let mut live = gateway.dial(&device.identity).await.unwrap();
        server.stop();
        live.echo().await.unwrap();
        gateway.dial(&device.identity).await.unwrap();
        assert_eq!(gateway.stop(), Some(0), "SIGTERM did not end it as it should");
        gateway.begin().await;
        gateway.says("allowed", &device.identity, 3).await;
        let live = gateway.dial(&device.identity).await.unwrap();
        gateway.says("ledger_stale", &device.identity, 15).await;
        assert!(!gateway.admits(&device.identity).await, "let in on stale knowledge");
        live.ends().await;
        server.start_again();
        gateway.says("allowed", &device.identity, 30).await;
        gateway.dial(&device.identity).await.unwrap();
    });
}

#[test]
fn killed_while_a_fleet_enrolls_it_comes_back_with_a_state_that_verifies() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let mut gateway = Gateway::start(&server, "gw-killed", &[&fleet]).await;
        let mut devices = Vec::new();
        for round in 0..4 {
            for number in 0..8 {
                devices.push(Device::good(&server, &fleet, &format!("d-{round}-{number}")).await);
                if number == 2 * round {
                    gateway.kill();
                    gateway.begin().await;
                }
            }
        }
        for device in &devices {
            gateway.says("allowed", &device.identity, 10).await;
        }
        assert!(evidence(&gateway).is_empty(), "a crash was taken for an attack: {:?}", evidence(&gateway));
    });
}

#[test]
fn a_damaged_state_is_set_aside_and_fetched_anew() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let mut gateway = Gateway::start(&server, "gw-damaged", &[&fleet]).await;
        gateway.says("allowed", &device.identity, 10).await;
        gateway.stop();
        let mut damaged = 0;
        for file in files(&gateway.state().join("ledgers").join(&fleet)) {
            let mut octets = fs::read(&file).unwrap();
            let Some(middle) = octets.len().checked_div(2).filter(|middle| *middle > 0) else { continue };
            octets[middle] ^= 0x41;
            fs::write(&file, octets).unwrap();
            damaged += 1;
        }
        assert!(damaged > 0, "there was nothing to damage");
        gateway.begin().await;
        gateway.says("allowed", &device.identity, 15).await;
        gateway.dial(&device.identity).await.unwrap();
    });
}

#[test]
fn a_policy_that_forbids_cuts_live_connections_and_rolling_it_back_lets_in() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (a, b) = (Device::good(&server, &fleet, "a").await, Device::good(&server, &fleet, "b").await);
        let gateway = Gateway::start(&server, "gw-policy", &[&fleet]).await;
        let (live, mut stays) = (gateway.dial(&a.identity).await.unwrap(), gateway.dial(&b.identity).await.unwrap());
        let path = format!("/v1/policies/{fleet}");
        let active = server.owner().get(&path).await.is(200).json();
        let forbid = "@id(\"not-a\")\nforbid (principal is Device, action == Action::\"Connect\", resource) when { principal.name == \"a\" };";
        let set = format!("{}\n{forbid}\n", active["text"].as_str().unwrap());
        let made = server.owner().post(&format!("{path}/versions"), &json!({"text": set, "note": "out"})).await.is(201).json();
        activate(&server, &path, &made["version"]).await;
        live.ends().await;
        let verdict = gateway.verdict(a.identity.leaf()).await;
        assert_eq!(verdict["reason"], "policy_denied", "{verdict}");
        assert!(verdict["policies"].to_string().contains("not-a"), "{verdict}");
        stays.echo().await.unwrap();
        activate(&server, &path, &active["version"]).await;
        gateway.says("allowed", &a.identity, 10).await;
        gateway.dial(&a.identity).await.unwrap();
    });
}

async fn activate(server: &Server, path: &str, version: &Value) {
    let etag = server.owner().get(path).await.is(200).header("etag").to_owned();
    let path = format!("{path}/versions/{version}/activate");
    server.owner().post_with(&path, &[("if-match", &etag)], &json!({})).await.is(200);
}

#[test]
fn publish_and_subscribe_are_judged_by_topic() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let gateway = Gateway::start(&server, "gw-topics", &[&fleet]).await;
        gateway.says("allowed", &device.identity, 10).await;
        let pem = crate::harness::openssl::pem("CERTIFICATE", device.identity.leaf());
        for (action, topic, decision) in [
            ("publish", format!("{fleet}/a/temperature"), "allow"),
            ("subscribe", format!("{fleet}/a/#"), "allow"),
            ("publish", format!("{fleet}/b/temperature"), "deny"),
            ("publish", "other/a/temperature".to_owned(), "deny"),
            ("subscribe", format!("{fleet}/+/temperature"), "deny"),
            ("subscribe", "#".to_owned(), "deny"),
            ("command", format!("{fleet}/a"), "deny"),
        ] {
            let verdict = gateway.ask(json!({"certificate": pem, "action": action, "topic": topic})).await;
            assert_eq!(verdict["decision"], decision, "{action} {topic}: {verdict}");
        }
    });
}

#[test]
fn a_server_restored_from_a_backup_is_believed_on_an_operators_word_alone() {
    let mut server = Server::start(&[]);
    let stranger = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let stays = Device::good(&server, &fleet, "b").await;
        let gateway = Gateway::start(&server, "gw-restored", &[&fleet]).await;
        gateway.says("allowed", &device.identity, 10).await;
        let backup = server.scratch("backup");
        operator(&server, &["backup", "create", "--out", &backup.display().to_string()]);
        let early = word(&server, &fleet, "early");
        let late = Device::good(&server, &fleet, "late").await;
        device.act(&server, "revoke", json!({})).await;
        // `system` goes on too: it holds gateways' certificates. Only who heard of it can find it shorter.
        let heard = || gateway.metric("fleetmark_gateway_ledger_position", &[("ledger", "system")]);
        let before = heard().await;
        drop(Gateway::start(&server, "gw-lost", &[&fleet]).await);
        until("what was added to `system`", 30, || async { (heard().await > before).then_some(()) }).await;
        gateway.says("revoked", &device.identity, 10).await;
        gateway.says("allowed", &late.identity, 10).await;
        restore(&mut server, &backup);

        // The server has forgotten the revocation; who knew of it does not.
        gateway.says("ledger_broken", &late.identity, 40).await;
        gateway.says("revoked", &device.identity, 5).await;
        for identity in [&device.identity, &stays.identity, &late.identity] {
            assert!(!gateway.admits(identity).await);
        }
        assert!(!evidence(&gateway).is_empty(), "no evidence was kept");

        let (good, system) = (word(&server, &fleet, "good"), word(&server, "system", "system"));
        let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
        let mut forged = read(&good);
        let lines: Vec<_> = forged["statement"].as_str().unwrap().lines().map(str::to_owned).collect();
        let later = lines[4].parse::<i64>().unwrap() + 1;
        forged["statement"] = format!("{}\n{later}\n", lines[..4].join("\n")).into();
        // The right statement, signed by somebody with a certificate, but not of this installation's.
        let mut foreign = read(&word(&stranger, "default", "foreign"));
        foreign["statement"] = read(&good)["statement"].clone();
        let write = |name: &str, value: &Value| server.write_scratch(name, value.to_string().as_bytes());
        for (what, word) in [
            ("a word of before the loss", early),
            ("a word about another ledger", system.clone()),
            ("a changed word", write("forged", &forged)),
            ("another installation's operator's word", write("strange", &foreign)),
        ] {
            let refused = gateway.metric("fleetmark_gateway_alarms_total", &[("alarm", "restore_refused")]).await;
            gateway.accept_restored(&fleet, &word);
            until(what, 15, || async {
                let now = gateway.metric("fleetmark_gateway_alarms_total", &[("alarm", "restore_refused")]).await;
                (now > refused).then_some(())
            })
            .await;
            assert!(!gateway.admits(&stays.identity).await, "{what} counted");
        }

        gateway.accept_restored("system", &system);
        gateway.accept_restored(&fleet, &good);
        let words = gateway.state().join("accept-restore");
        until("both words", 30, || async { files(&words).is_empty().then_some(()) }).await;
        gateway.says("allowed", &stays.identity, 40).await;
        gateway.dial(&stays.identity).await.unwrap();
        gateway.says("not_on_ledger", &late.identity, 10).await;
        // What was revoked after the backup must be revoked again, and counts again.
        device.act(&server, "revoke", json!({})).await;
        gateway.says("revoked", &device.identity, 10).await;
    });
}

/// `fleetmark` as the server's first operator.
fn operator(server: &Server, arguments: &[&str]) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .arg("--operator")
        .arg(server.data().join("operator"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An operator's word about the ledger as it is now.
fn word(server: &Server, ledger: &str, name: &str) -> PathBuf {
    let file = server.scratch(&format!("word-{name}"));
    operator(server, &["ledger", "accept-restore", ledger, "--out", &file.display().to_string()]);
    file
}

/// Puts the backup in the place of all data; the operator's profile and the passphrase are not in it.
pub fn restore(server: &mut Server, backup: &Path) {
    server.stop();
    let lost = server.scratch("lost");
    fs::rename(server.data(), &lost).unwrap();
    let restored = std::process::Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .args(["backup", "restore"])
        .arg(backup)
        .arg("--data")
        .arg(server.data())
        .arg("--passphrase-file")
        .arg(lost.join("passphrase"))
        .output()
        .unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    copy_all(&lost.join("passphrase"), &server.data().join("passphrase"));
    copy_all(&lost.join("operator"), &server.data().join("operator"));
    server.start_again();
}

#[test]
fn a_revoked_gateway_hears_nothing_more() {
    let server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({"max_age_seconds": 10})).await;
        let device = Device::good(&server, &fleet, "a").await;
        let gateway = Gateway::start(&server, "gw-out", &[&fleet]).await;
        gateway.says("allowed", &device.identity, 10).await;
        server.owner().post("/v1/gateways/gw-out/revoke", &json!({})).await.is(200);
        gateway.says("ledger_stale", &device.identity, 25).await;
    });
}

#[test]
fn its_own_certificate_is_renewed_while_connections_live_and_the_feed_goes_on_by_the_new_one() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (a, b) = (Device::good(&server, &fleet, "a").await, Device::good(&server, &fleet, "b").await);
        let mut gateway = Gateway::start(&server, "gw-renewed", &[&fleet]).await;
        gateway.stop();
        gateway.renews_in(4);
        gateway.begin().await;
        let (mut stays, gone) = (gateway.dial(&a.identity).await.unwrap(), gateway.dial(&b.identity).await.unwrap());
        let (old, before) = (stays.certificate(), gateway.status().await["identity"]["renew_after"].clone());
        let new = until("the new certificate", 30, || async {
            let shown = gateway.dial(&a.identity).await.unwrap().certificate();
            (shown != old).then_some(shown)
        })
        .await;
        stays.echo().await.unwrap();
        until("the renewal's confirmation", 10, || async {
            (gateway.verdict(&new).await["standing"] == "good" && gateway.verdict(&old).await["standing"] == "superseded")
                .then_some(())
        })
        .await;
        assert_ne!(gateway.status().await["identity"]["renew_after"], before);
        // The server answers the old certificate no more: what comes now comes by the new one.
        b.act(&server, "revoke", json!({})).await;
        gone.ends().await;
        assert_eq!(gateway.verdict(b.identity.leaf()).await["reason"], "revoked");
        stays.echo().await.unwrap();
        assert!(evidence(&gateway).is_empty());
    });
}

#[test]
fn a_grant_and_a_changed_rule_are_followed_without_a_restart() {
    let server = shared();
    run(async {
        let (first, second) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let device = Device::good(&server, &second, "a").await;
        let gateway = Gateway::start(&server, "gw-granted", &[&first]).await;
        gateway.says("not_on_ledger", &device.identity, 10).await;
        let path = "/v1/gateways/gw-granted";
        let grant = async |fleets: Value| {
            let etag = server.owner().get(path).await.is(200).header("etag").to_owned();
            server.owner().patch(path, &[("if-match", &etag)], &json!({"fleets": fleets})).await.is(200);
        };
        grant(json!([first, second])).await;
        gateway.says("allowed", &device.identity, 30).await;
        // The proxy also needs the certificate of the fleet's authority.
        let live = until("the proxy", 10, || async { gateway.dial(&device.identity).await.ok() }).await;
        server.owner().patch(&format!("/v1/fleets/{second}"), &[], &json!({"max_age_seconds": 77})).await.is(200);
        until("the rule", 30, || async {
            let status = gateway.status().await;
            let ledgers = status["ledgers"].as_array().unwrap();
            ledgers.iter().any(|one| one["ledger"] == second.as_str() && one["max_age_ms"] == 77_000).then_some(())
        })
        .await;
        grant(json!([first])).await;
        live.ends().await;
        gateway.says("not_on_ledger", &device.identity, 30).await;
    });
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn evidence(gateway: &Gateway) -> Vec<PathBuf> {
    files(&gateway.state().join("evidence"))
}

fn copy_all(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}
