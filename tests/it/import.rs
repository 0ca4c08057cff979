//! Devices registered in bulk: over the admin door, and from the command line.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::device::enroll;
use crate::harness::openssl::openssl;
use crate::harness::server::text;
use crate::harness::{Key, Server, run, shared};

async fn import(server: &Server, fleet: &str, query: &str, media_type: &str, body: &str) -> Answer {
    let path = format!("/v1/fleets/{fleet}/devices/import{query}");
    server.owner().send("POST", &path, &[("content-type", media_type)], Some(body.as_bytes().to_vec())).await
}

async fn csv(server: &Server, fleet: &str, query: &str, body: &str) -> Value {
    import(server, fleet, query, "text/csv", body).await.is(200).json()
}

/// Registered, updated, unchanged, failed.
fn counts(report: &Value) -> [u64; 4] {
    ["registered", "updated", "unchanged", "failed"].map(|field| report[field].as_u64().unwrap())
}

fn errors(report: &Value) -> Vec<String> {
    let error = |error: &Value| format!("{} {} {}", error["line"], text(error, "column"), text(error, "code"));
    report["errors"].as_array().unwrap().iter().map(error).collect()
}

async fn devices(server: &Server, fleet: &str) -> Vec<String> {
    let list = server.owner().get(&format!("/v1/fleets/{fleet}/devices?limit=500")).await.is(200).json();
    list["items"].as_array().unwrap().iter().map(|device| text(device, "name")).collect()
}

async fn ledger_size(server: &Server, fleet: &str) -> u64 {
    server.owner().get(&format!("/v1/ledgers/{fleet}")).await.is(200).json()["size"].as_u64().unwrap()
}

#[test]
fn a_list_is_taken_line_by_line_and_once() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let list = "name,attr.site,attr.batch\r\nsensor-1,north,7\r\n../x,north,7\r\nsensor-2,\"a, \"\"b\"\"\",\r\nSENSOR-1,north,7\r\n";
        let dry = csv(&server, &fleet, "?dry_run=true", list).await;
        assert_eq!((counts(&dry), &dry["applied"]), ([2, 0, 0, 2], &json!(false)));
        assert!(devices(&server, &fleet).await.is_empty());
        let whole = csv(&server, &fleet, "?all_or_nothing=true", list).await;
        assert_eq!((counts(&whole), &whole["applied"]), ([2, 0, 0, 2], &json!(false)));
        assert!(devices(&server, &fleet).await.is_empty());
        let before = ledger_size(&server, &fleet).await;
        let report = csv(&server, &fleet, "", list).await;
        assert_eq!((counts(&report), &report["applied"], &report["lines"]), ([2, 0, 0, 2], &json!(true), &json!(5)));
        assert_eq!(errors(&report), ["3 name invalid_name", "5 name name_taken"]);
        assert_eq!(ledger_size(&server, &fleet).await, before + 2, "one entry a device");
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/sensor-2")).await.is(200).json();
        assert_eq!((&record["attributes"], &record["state"]), (&json!({"site": "a, \"b\""}), &json!("registered")));

        assert_eq!(counts(&csv(&server, &fleet, "", list).await), [0, 0, 2, 2]);
        assert_eq!(ledger_size(&server, &fleet).await, before + 2, "a repeat is written down");
        let changed = "name,attr.site\nsensor-1,south\nsensor-2,south\nSensor-2,south\nsensor-3,south\n";
        let report = csv(&server, &fleet, "", changed).await;
        assert_eq!((counts(&report), errors(&report)[0].as_str()), ([1, 0, 0, 3], "2 name name_taken"));
        assert_eq!(counts(&csv(&server, &fleet, "?update=true", changed).await), [0, 2, 1, 1]);
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/sensor-1")).await.is(200).json();
        assert_eq!((&record["attributes"], &record["version"]), (&json!({"site": "south"}), &json!(2)));
    });
}

#[test]
fn changes_count_against_the_operators_limit() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"blast_radius": 2})).await;
        csv(&server, &fleet, "", "name\na\nb\nc\n").await;
        let change = "name,attr.x\na,1\nb,1\nc,1\n";
        let kept_out = csv(&server, &fleet, "?update=true&all_or_nothing=true", change).await;
        assert_eq!((counts(&kept_out)[3], &kept_out["applied"]), (1, &json!(false)));
        let report = csv(&server, &fleet, "?update=true", change).await;
        assert_eq!((counts(&report), errors(&report)), ([0, 2, 0, 1], vec!["4 name blast_radius_exceeded".to_owned()]));
        // What counts already counts once.
        assert_eq!(counts(&csv(&server, &fleet, "?update=true", "name,attr.x\na,2\nb,2\n").await), [0, 2, 0, 0]);

        // What a dry run says of a list is what becomes of it, however many transactions it takes.
        let fleet = server.fleet(json!({"blast_radius": 2})).await;
        let list = |end: &str| (0..1_100).map(|number| format!("d{number}{end}\n")).collect::<Vec<_>>().concat();
        csv(&server, &fleet, "", &format!("name\n{}", list(""))).await;
        let change = format!("name,attr.x\n{}", list(",1"));
        let foreseen = csv(&server, &fleet, "?update=true&dry_run=true", &change).await;
        let done = csv(&server, &fleet, "?update=true", &change).await;
        assert_eq!((counts(&foreseen), counts(&done)), ([0, 2, 0, 1_098], [0, 2, 0, 1_098]));
    });
}

#[test]
fn a_list_may_ask_for_tokens_and_names_hardware() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        // A stranger makes the keys, and writes them as PEM.
        let key = |name: &str| {
            let path = server.scratch(&format!("{fleet}-{name}.key"));
            let bits = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-quiet", "-out", shown(&path)];
            assert!(openssl(&bits, b"").0 || openssl(&["genrsa", "-out", shown(&path), "2048"], b"").0);
            let (made, public) = openssl(&["pkey", "-in", shown(&path), "-pubout"], b"");
            assert!(made, "{public}");
            public
        };
        let (one, two) = (key("one"), key("two"));
        let lines = [
            json!({"name": "a", "attributes": {"site": "north"}, "endorsement_key": one, "token": true}),
            json!({"name": "b", "token": true}),
            json!({"name": "c"}),
        ];
        let body = lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
        let report = import(&server, &fleet, "", "application/jsonl", &body).await.is(200).json();
        assert_eq!(counts(&report), [3, 0, 0, 0], "{report}");
        let tokens = report["tokens"].as_array().unwrap();
        assert_eq!(tokens.iter().map(|token| text(token, "device")).collect::<Vec<_>>(), ["a", "b"]);
        let client = server.device_client(None);
        enroll(&client, &fleet, &text(&tokens[0], "token"), &Key::new(), Some("b")).await.refused(403, "token_wrong_name");
        for token in tokens {
            enroll(&client, &fleet, &text(token, "token"), &Key::new(), None).await.is(200);
        }
        // Who has a certificate gets no other token.
        let report = import(&server, &fleet, "", "application/jsonl", &body).await.is(200).json();
        assert_eq!((counts(&report), &report["tokens"]), ([0, 0, 3, 0], &json!([])));

        let hardware = |name: &str, key: &str| format!("{}\n", json!({"name": name, "endorsement_key": key}));
        let report = import(&server, &fleet, "", "application/jsonl", &hardware("d", &one)).await.is(200).json();
        assert_eq!(errors(&report), ["1 endorsement_key hardware_of_another_device"]);
        let report = import(&server, &fleet, "", "application/jsonl", &hardware("c", &two)).await.is(200).json();
        assert_eq!(errors(&report), ["1 name name_taken"]);
        let report = import(&server, &fleet, "?update=true", "application/jsonl", &hardware("c", &two)).await.is(200).json();
        assert_eq!(counts(&report), [0, 1, 0, 0]);
        let report = import(&server, &fleet, "", "application/jsonl", &hardware("c", &two)).await.is(200).json();
        assert_eq!(counts(&report), [0, 0, 1, 0]);
        // A retired device comes in by no list; its hardware may become another.
        server.owner().post(&format!("/v1/fleets/{fleet}/devices/a/retire"), &json!({})).await.is(200);
        let report = import(&server, &fleet, "", "application/jsonl", &body).await.is(200).json();
        assert_eq!(errors(&report)[0], "1 name identity_out");
        let report = import(&server, &fleet, "", "application/jsonl", &hardware("d", &one)).await.is(200).json();
        assert_eq!(counts(&report), [1, 0, 0, 0]);
    });
}

#[test]
fn a_list_that_cannot_be_read_leaves_nothing_behind() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        import(&server, &fleet, "", "application/json", "{}").await.refused(415, "media_type_not_supported");
        import(&server, &fleet, "?dry=1", "text/csv", "name\na").await.refused(400, "malformed_request");
        import(&server, &fleet, "", "text/csv", "").await.refused(400, "malformed_request");
        import(&server, &fleet, "", "text/csv", "site\na").await.refused(400, "malformed_request");
        import(&server, "no-such-fleet", "", "text/csv", "name\na").await.refused(404, "fleet_unknown");
        let wide = format!("name{}\na", ",attr.x".repeat(1_000_000));
        import(&server, &fleet, "", "text/csv", &wide).await.refused(413, "body_too_large");
        let long = format!("name\na\n{}", "\n".repeat(100_001));
        import(&server, &fleet, "", "text/csv", &long).await.refused(413, "body_too_large");
        let large = format!("name\na\n{}", "x".repeat(33 << 20));
        let answer = server
            .owner()
            .try_send(
                "POST",
                &format!("/v1/fleets/{fleet}/devices/import"),
                &[("content-type", "text/csv")],
                Some(large.into_bytes()),
            )
            .await;
        // A client that still writes may lose the answer with the connection.
        if let Ok(answer) = answer {
            answer.refused(413, "body_too_large");
        }
        assert!(devices(&server, &fleet).await.is_empty());
    });
}

fn fleetmark(server: &Server, arguments: &[&str]) -> Output {
    let profile = server.data().join("operator");
    Command::new(env!("CARGO_BIN_EXE_fleetmark")).arg("--operator").arg(profile).args(arguments).output().unwrap()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_command_sends_a_list_in_parts_and_tells_each_bad_line() {
    let server = shared();
    let fleet = run(async { server.fleet(json!({})).await });
    let mut list = "\u{feff}name,token,attr.batch\r\n".to_owned();
    for number in 0..4_500 {
        let token = if number % 1_500 == 7 { "true" } else { "" };
        list.push_str(&format!("meter-{number},{token},7\r\n"));
    }
    list.push_str("b/ad,,\r\nmeter-0,,7\r\n");
    let file = server.write_scratch(&format!("{fleet}.csv"), list.as_bytes());
    let tokens = server.scratch(&format!("{fleet}-tokens.csv"));
    let arguments = ["device", "import", shown(&file), "--fleet", &fleet, "--tokens", shown(&tokens)];
    let output = fleetmark(&server, &arguments);
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{told}{errors}");
    assert_eq!(told, "4500 registered, 0 changed, 1 unchanged, 1 refused.\n");
    assert!(errors.starts_with("line 4502: name: "), "{errors}");
    let minted = std::fs::read_to_string(&tokens).unwrap();
    assert_eq!(minted.lines().count(), 4, "{minted}");
    assert_eq!(std::fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o600);
    let (device, token) = minted.lines().nth(2).unwrap().split_once(',').unwrap();
    assert_eq!(device, "meter-1507");
    run(async {
        enroll(&server.device_client(None), &fleet, token, &Key::new(), None).await.is(200);
        assert_eq!(ledger_size(&server, &fleet).await, 4_501 + entries_of_a_fleet(&server).await);
    });
    // The same command adds to its own file of tokens; a stranger's is left alone.
    let output = fleetmark(&server, &arguments);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 registered, 0 changed, 4501 unchanged, 1 refused.\n");
    let added = std::fs::read_to_string(&tokens).unwrap();
    assert!(added.starts_with(&minted) && added.lines().count() == 6, "{added}");
    let strange = server.write_scratch("strange.csv", b"a stranger's\n");
    let arguments = ["device", "import", shown(&file), "--fleet", &fleet, "--tokens", shown(&strange)];
    let output = fleetmark(&server, &arguments);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("exists"));
    assert_eq!(std::fs::read_to_string(&strange).unwrap(), "a stranger's\n");
    let again = fleetmark(&server, &["--json", "device", "import", shown(&file), "--fleet", &fleet, "--dry-run"]);
    let report: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((counts(&report), &report["lines"]), ([0, 0, 4_501, 1], &json!(4_503)));
    let whole = fleetmark(&server, &["device", "import", shown(&file), "--fleet", &fleet, "--all-or-nothing"]);
    assert_eq!(whole.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&whole.stdout).starts_with("Nothing was done."));
}

/// How many entries a ledger has that no device came into.
async fn entries_of_a_fleet(server: &Server) -> u64 {
    let fleet = server.fleet(json!({})).await;
    ledger_size(server, &fleet).await
}
