//! Several external authorities and several keys beside each other: none is in another's way.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::{ForeignCa, Responder, Served, adopt, authorities, by_list, check, create, import, outcome, serve, standings};
use crate::harness::openssl::pem;
use crate::harness::server::{free_port, text};
use crate::harness::{Server, run, shared, until};

/// So many questions to a responder are under way.
const QUESTIONS: usize = 32;

/// What a responder was asked that never answers: how often the other authority was asked when the question came, and when whoever asked
/// gave up, and the question.
type Heard = Arc<Mutex<Vec<(usize, usize, Vec<u8>)>>>;

fn silent(other: &Served) -> (Heard, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let heard = Heard::default();
    let (shown, other) = (Arc::clone(&heard), other.clone());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (shown, other) = (Arc::clone(&shown), other.clone());
            std::thread::spawn(move || {
                let total = || other.asked().0 + other.asked().1;
                let (opened, mut octets) = (total(), Vec::new());
                // Whoever asked may have reset the connection.
                let _ = stream.read_to_end(&mut octets);
                shown.lock().unwrap().push((opened, total(), octets));
            });
        }
    });
    (heard, url)
}

#[test]
fn a_responder_that_never_answers_keeps_no_other_authority_waiting() {
    let server = shared();
    run(async {
        let (fleet, other) = (server.fleet(json!({})).await, server.fleet(json!({})).await);
        let (ca, lively) = (ForeignCa::new(&server, "silo-silent"), ForeignCa::new(&server, "silo-lively"));
        let (list, list_url) = serve();
        // One that ends soon is asked for often.
        list.is(lively.list(4));
        let mut rules = by_list(&list_url);
        rules["on_stale"] = "go-on".into();
        create(&server, &other, &lively, rules).await;
        let (heard, url) = silent(&list);
        let rules =
            json!({"status": {"kind": "ocsp", "url": url, "nonce": false}, "on_stale": "go-on", "interval_seconds": 10});
        create(&server, &fleet, &ca, rules).await;
        let mut all = vec![ca.device("pump")];
        while all.len() < QUESTIONS + 4 {
            all.push(ca.certify("pump", &format!("again-{}.pem", all.len()), "leaf"));
        }
        let bundle: String = all.iter().map(|one| pem("CERTIFICATE", one.leaf())).collect();
        let imported = import(&server, &fleet, &bundle).await;
        assert_eq!(imported["adopted"], all.len(), "{imported}");

        // The import asks once about each. While the server asks the silent one by itself, the other is asked again and again.
        until("the other authority to be asked meanwhile", 180, || async {
            let heard = heard.lock().unwrap();
            heard.iter().skip(all.len()).any(|(opened, closed, _)| *closed >= opened + 2).then_some(())
        })
        .await;
        // After so many questions without any answer the others are not asked.
        let serials = all.iter().map(|one| x509_parser::parse_x509_certificate(one.leaf()).unwrap().1.raw_serial().to_vec());
        let heard = heard.lock().unwrap();
        let asked: Vec<_> = serials
            .map(|serial| heard.iter().any(|(_, _, octets)| octets.windows(serial.len()).any(|part| part == serial)))
            .collect();
        let expected: Vec<_> = (0..all.len()).map(|number| number < QUESTIONS).collect();
        assert_eq!(asked, expected);
    });
}

#[test]
fn two_keys_of_one_name_are_asked_about_each_by_its_own() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let [first, second] = ["silo-keys", "silo-keys"].map(|name| ForeignCa::new(&server, name));
        for ca in [&first, &second] {
            ca.issue("responder", "/CN=responder", "responder");
        }
        let port = free_port();
        let rules = json!({"status": {"kind": "ocsp", "url": format!("http://127.0.0.1:{port}/"), "nonce": true}});
        let body = json!({"name": "silo", "ca": format!("{}{}", first.ca_pem(), second.ca_pem()), "rules": rules});
        server.owner().post(&authorities(&fleet), &body).await.is(201);
        let (one, two) = (first.device("pump-1"), second.device("pump-2"));
        {
            let _responder = Responder::start(&second, "responder", port, 60).await;
            assert_eq!(outcome(&server, &fleet, two.leaf()).await, "adopted");
            let shown = check(&server, &fleet).await;
            assert_eq!(shown["failures"], json!([]), "{shown}");
            assert_eq!(standings(&server, &fleet, &two).await, ["good", "good", "good"]);
            second.revoke("pump-2", "certificateHold");
        }
        {
            let _responder = Responder::start(&second, "responder", port, 60).await;
            check(&server, &fleet).await;
            assert_eq!(standings(&server, &fleet, &two).await, ["held", "good", "held"]);
        }
        let _responder = Responder::start(&first, "responder", port, 60).await;
        adopt(&server, &fleet, &one).await;
        check(&server, &fleet).await;
        assert_eq!(standings(&server, &fleet, &one).await, ["good", "good", "good"]);
    });
}

/// When the store says that the list at this URL was fetched.
fn stored(server: &Server, url: &str) -> String {
    let query = format!("SELECT fetched_at FROM foreign_lists WHERE url = '{url}'");
    let database = server.data().join("fleetmark.db");
    let output = Command::new("sqlite3").args(["-cmd", ".timeout 10000"]).arg(database).arg(query).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_list_that_is_as_it_was_is_not_written_again() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let ca = ForeignCa::new(&server, "silo-unchanged");
        let (list, url) = serve();
        list.is(ca.list(3_600));
        let made = create(&server, &fleet, &ca, by_list(&url)).await;
        let (fetched, written) = (text(&made["lists"][0], "fetched_at"), stored(&server, &url));
        assert!(!written.is_empty());
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let shown = check(&server, &fleet).await;
        assert_eq!(list.asked(), (1, 1));
        assert!(text(&shown["lists"][0], "fetched_at") > fetched, "{shown}");
        assert_eq!(stored(&server, &url), written);
        // What it says is kept nevertheless.
        let device = ca.device("pump-a");
        ca.revoke("pump-a", "certificateHold");
        list.is(ca.list(3_600));
        check(&server, &fleet).await;
        assert_ne!(stored(&server, &url), written);
        assert_eq!(outcome(&server, &fleet, device.leaf()).await, "held");
        check(&server, &fleet).await;
        assert_eq!(outcome(&server, &fleet, device.leaf()).await, "held");
    });
}
