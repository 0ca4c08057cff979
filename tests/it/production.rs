//! An installation as production has it: `init`, the root's key in a safe, `serve`; and one that comes back from a backup.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::device::enroll;
use crate::harness::server::text;
use crate::harness::{Device, Key, Server, run};
use crate::standing::listed_within;

/// Where the root's key lies.
fn root_key(data: &Path) -> std::path::PathBuf {
    let keys = fs::read_dir(data.join("keys")).unwrap().map(|entry| entry.unwrap().path());
    keys.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("root-")).last().expect("a root key")
}

fn fleetmark(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fleetmark")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn with_the_roots_key_in_a_safe_the_server_revokes_and_publishes_and_makes_no_authority() {
    let mut server = Server::start(&[]);
    let (device, other) =
        run(async { (Device::good(&server, "default", "first").await, Device::good(&server, "default", "second").await) });
    assert_eq!(server.stop(), Some(0));

    // `serve` does not run with the root's key beside it, unless that is permitted by its frightening name.
    let data = server.data().display().to_string();
    let (code, said) = fleetmark(&["serve", "--data", &data]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("danger_online_root") && said.contains("root-"), "{said}");

    let key = root_key(&server.data());
    let safe = server.scratch("root.key.pem");
    fs::rename(&key, &safe).unwrap();
    server.serve();
    run(async {
        // An act in the ledger that the root shares does not keep the fleet's list from being made.
        server.owner().post("/v1/operators", &json!({"name": "helper", "role": "viewer"})).await.is(201);
        server.owner().post("/v1/operators/helper/revoke", &json!({})).await.is(200);
        device.act(&server, "revoke", json!({"reason": "keyCompromise"})).await;
        listed_within(&server, "default", &device.serial(), Some(1)).await;
        assert_eq!(other.verdict(&server).await, "ok");
        Device::good(&server, "default", "third").await;
        let refused = server.owner().post("/v1/fleets", &json!({"name": "another"})).await;
        refused.refused(202, "waits_for_root");
    });
    let keys = fs::read_dir(server.data().join("keys")).unwrap().count();
    server.restart();
    run(async { listed_within(&server, "default", &device.serial(), Some(1)).await });
    assert_eq!(fs::read_dir(server.data().join("keys")).unwrap().count(), keys, "a refused fleet left keys behind");
}

#[test]
fn after_a_restore_no_epoch_is_used_again_and_what_came_after_the_backup_is_refused() {
    let mut server = Server::start(&[]);
    let before = run(Device::good(&server, "default", "before"));
    let (operator, backup) = (server.data().join("operator"), server.scratch("backup"));
    let (operator_path, backup_path) = (operator.display().to_string(), backup.display().to_string());
    let (code, said) = fleetmark(&["--operator", &operator_path, "backup", "create", "--out", &backup_path]);
    assert_eq!(code, Some(0), "{said}");
    let after = run(Device::good(&server, "default", "after"));
    assert_eq!(server.stop(), Some(0));

    let lost = server.scratch("lost");
    fs::rename(server.data(), &lost).unwrap();
    let data = server.data().display().to_string();
    let passphrase = lost.join("passphrase").display().to_string();
    let restore =
        |file: &str, secret: &str| fleetmark(&["backup", "restore", file, "--data", &data, "--passphrase-file", secret]);
    let wrong = server.write_scratch("wrong", b"not the passphrase at all");
    fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (code, said) = restore(&backup_path, wrong.to_str().unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("passphrase"), "{said}");
    let mut octets = fs::read(&backup).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    let tampered = server.write_scratch("tampered", &octets);
    let (code, said) = restore(tampered.to_str().unwrap(), &passphrase);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = restore(&backup_path, &passphrase);
    assert_eq!(code, Some(0), "{said}");
    // What a backup leaves out: the operator's profile and the passphrase, which lie elsewhere in production.
    fs::copy(lost.join("passphrase"), server.data().join("passphrase")).unwrap();
    copy_profile(&lost.join("operator"), &operator);

    server.start_again();
    assert!(server.log().contains("estored from a backup"), "{}", server.log());
    run(async {
        assert_eq!(before.verdict(&server).await, "ok");
        assert_eq!(after.verdict(&server).await, "not_on_ledger");
        let key = Key::new();
        let token = server.token("default", "newcomer").await;
        let answer = enroll(&server.device_client(None), "default", &token, &key, None).await.is(200).json();
        let epoch = |serial: &str| u32::from_str_radix(&serial[2..10], 16).unwrap();
        let (old, new) = (epoch(&after.serial()), epoch(&text(&answer, "serial")));
        assert!(new > old + 60_000, "epoch {new} after {old}");
    });
}

#[test]
fn a_database_outside_the_data_directory_is_restored_to_its_place_and_no_other_is_served() {
    let disk = tempfile::tempdir().unwrap();
    let place = disk.path().join("other.db");
    let mut server = Server::start(&["--store", &format!("sqlite:{}", place.display())]);
    let (operator, backup) =
        (server.data().join("operator").display().to_string(), server.scratch("backup").display().to_string());
    let (code, said) = fleetmark(&["--operator", &operator, "backup", "create", "--out", &backup]);
    assert_eq!(code, Some(0), "{said}");
    let after = run(Device::good(&server, "default", "after"));
    assert_eq!(server.stop(), Some(0));

    let lost = server.scratch("lost");
    fs::rename(server.data(), &lost).unwrap();
    let (data, passphrase) = (server.data().display().to_string(), lost.join("passphrase").display().to_string());
    let restore = || fleetmark(&["backup", "restore", &backup, "--data", &data, "--passphrase-file", &passphrase]);
    let starts = |command: &str| fleetmark(&[command, "--data", &data, "--passphrase-file", &passphrase]);
    // The old database is there: neither is it overwritten, nor served as if it were the restored one.
    let (code, said) = restore();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(place.to_str().unwrap()) && said.contains(&format!("{data}/fleetmark.db")), "{said}");
    for command in ["serve", "up"] {
        let (code, said) = starts(command);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("its database is not where the configuration has the store"), "{said}");
    }
    // On a new machine it is put in place; without it none is made.
    fs::remove_dir_all(server.data()).unwrap();
    let old = server.scratch("old");
    fs::create_dir(&old).unwrap();
    for file in fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(file.path(), old.join(file.file_name())).unwrap();
        fs::remove_file(file.path()).unwrap();
    }
    let (code, said) = restore();
    assert_eq!(code, Some(0), "{said}");
    fs::rename(&place, disk.path().join("away.db")).unwrap();
    let (code, said) = starts("up");
    assert_eq!(code, Some(1), "{said}");
    assert!(!place.exists() && said.contains("its database is not where"), "{said}");
    fs::rename(disk.path().join("away.db"), &place).unwrap();

    fs::copy(lost.join("passphrase"), server.data().join("passphrase")).unwrap();
    copy_profile(&lost.join("operator"), &server.data().join("operator"));
    server.start_again();
    assert!(server.log().contains("estored from a backup"), "{}", server.log());
    assert_eq!(run(after.verdict(&server)), "not_on_ledger");
}

fn copy_profile(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
