//! The ledger after a storm: read whole, judged by the auditor, proven.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark_domain::{Fingerprint, Serial};
use fleetmark_ledger::audit::Auditor;
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{Entry, Event};
use fleetmark_ledger::merkle::{Hash, leaf_hash};
use fleetmark_ledger::note::{Checkpoint, VerifierKey};
use fleetmark_ledger::proof::{verify_consistency, verify_inclusion};
use fleetmark_ledger::snapshot;
use fleetmark_ledger::state::State;
use serde_json::{Value, json};

use crate::harness::device::{confirm_by_token, enroll};
use crate::harness::server::text;
use crate::harness::{Client, Device, Key, Server, run, until};

async fn key(client: &Client, ledger: &str) -> VerifierKey {
    let vkey = text(&client.get(&format!("/v1/ledgers/{ledger}")).await.is(200).json(), "vkey");
    VerifierKey::from_vkey(&vkey).unwrap()
}

async fn checkpoint(client: &Client, ledger: &str, key: &VerifierKey) -> Checkpoint {
    key.open(&client.get(&format!("/v1/ledgers/{ledger}/checkpoint")).await.is(200).text()).unwrap()
}

fn hashes(answer: &Value) -> Vec<Hash> {
    let hashes = answer["hashes"].as_array().unwrap().iter();
    hashes.map(|hash| Hash(STANDARD.decode(hash.as_str().unwrap()).unwrap().try_into().unwrap())).collect()
}

/// All entries, in order, with their details.
async fn entries(client: &Client, ledger: &str, size: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    while (all.len() as u64) < size {
        let path = format!("/v1/ledgers/{ledger}/entries?from={}&limit=100", all.len());
        let page = client.get(&path).await.is(200).json();
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty(), "the ledger ends at {} of {size}", all.len());
        for item in items {
            assert_eq!(item["position"].as_u64(), Some(all.len() as u64), "a gap");
            let decoded = |field: &str| item[field].as_str().map(|octets| STANDARD.decode(octets).unwrap());
            all.push((decoded("entry").unwrap(), decoded("details")));
        }
    }
    all.truncate(usize::try_from(size).unwrap());
    all
}

/// One worker's acts on its own devices, chosen by a small generator of its own, so that a run can be repeated.
async fn storm(server: Arc<Server>, fleet: String, worker: u64, acts: u32) {
    let mut state = worker * 7_919 + 1;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut devices: Vec<Device> = Vec::new();
    for number in 0..acts {
        if devices.is_empty() || random(3) == 0 {
            let name = format!("storm-name-{worker}-{number}");
            let device = if random(2) == 0 {
                Device::unconfirmed(&server, &fleet, &name).await
            } else {
                Device::good(&server, &fleet, &name).await
            };
            devices.push(device);
            continue;
        }
        let chosen = usize::try_from(random(devices.len() as u64)).unwrap();
        let device = &devices[chosen];
        match random(8) {
            0 => drop(device.act(&server, "hold", json!({"note": "storm-note"})).await),
            1 => {
                // May be refused: what never was held cannot be released after its end.
                let path = format!("/v1/fleets/{fleet}/devices/{}/release", device.name);
                server.owner().post(&path, &json!({})).await;
            }
            2 => drop(device.act(&server, "revoke", json!({"reason": "keyCompromise", "note": "storm-note"})).await),
            3 | 4 => {
                let mut connection = device.connect(&server).await;
                let new = Key::new();
                let body = json!({"csr": new.csr()});
                let answer = connection.post(&format!("/v1/fleets/{fleet}/renew"), &body).await.unwrap();
                if answer.status == 200 {
                    let answer = answer.json();
                    let identity = new.identity(&answer);
                    let (fleet, name, token) = (fleet.clone(), device.name.clone(), device.token.clone());
                    devices[chosen] = Device { fleet, name, token, key: new, answer, identity };
                }
            }
            5 => drop(device.verdict(&server).await),
            6 => {
                let client = server.device_client(None);
                enroll(&client, &fleet, &device.token, &device.key, None).await;
                confirm_by_token(&client, &fleet, &device.token, &device.fingerprint()).await;
            }
            _ => {
                let path = format!("/v1/fleets/{fleet}/devices/{}", device.name);
                server.owner().patch(&path, &[], &json!({"attributes": {"storm-attribute": "storm-value"}})).await;
            }
        }
    }
}

#[test]
fn after_a_storm_the_ledger_holds_what_was_done_and_proves_it() {
    let server = Arc::new(Server::start(&[]));
    run(async {
        let fleet = server.fleet(json!({"unconfirmed_ttl_seconds": 3})).await;
        let owner = server.owner().clone();
        let pinned = key(&owner, &fleet).await;
        let early = checkpoint(&owner, &fleet, &pinned).await;
        let workers: Vec<_> = (0..6).map(|worker| tokio::spawn(storm(server.clone(), fleet.clone(), worker, 45))).collect();
        let mut seen = vec![early];
        for worker in workers {
            worker.await.unwrap();
            seen.push(checkpoint(&owner, &fleet, &pinned).await);
        }
        // What lapses meanwhile is written too; then the ledger is quiet.
        tokio::time::sleep(std::time::Duration::from_millis(4_500)).await;
        let newest = checkpoint(&owner, &fleet, &pinned).await;
        assert!(newest.head.size > 200, "a storm of {} entries is none", newest.head.size);

        let wanted = BTreeMap::from([("storm-attribute".to_owned(), "storm-value".to_owned())]);
        let mut attributes = false;
        for ledger in [fleet.as_str(), "system", "default"] {
            let key = key(&owner, ledger).await;
            let newest = checkpoint(&owner, ledger, &key).await;
            let mut auditor = Auditor::new(key);
            let all = entries(&owner, ledger, newest.head.size).await;
            for (entry, details) in &all {
                auditor.append(entry, details.as_deref()).unwrap_or_else(|violation| panic!("{ledger}: {violation}"));
                let decoded = Entry::decode(entry).unwrap();
                // Whatever the entry commits to is here, and is what it commits to.
                let commitment = details.as_deref().map(|details| Details::decode(details).unwrap().commitment());
                assert_eq!(decoded.details, commitment, "{ledger}");
                let changes = matches!(decoded.event, Event::Changed { .. });
                attributes |=
                    changes && details.as_deref().is_some_and(|details| Details::decode(details).unwrap().attributes == wanted);
                for name in ["storm-name", "storm-note", "storm-attribute", "storm-value", "spiffe://", "admin"] {
                    let found = entry.windows(name.len()).any(|window| window == name.as_bytes());
                    assert!(!found, "{ledger}: {name} stands in an entry");
                }
            }
            auditor.finish(&newest).unwrap_or_else(|violation| panic!("{ledger}: {violation}"));
            // The auditor must be able to say no: the last entry twice is not this ledger.
            let last = all.last().unwrap();
            assert!(auditor.append(&last.0, last.1.as_deref()).is_err() || auditor.finish(&newest).is_err());
        }
        assert!(attributes, "no attributes came back in the details");
        let all = entries(&owner, &fleet, newest.head.size).await;
        let by_details = all.iter().filter_map(|(_, details)| Details::decode(details.as_deref()?).ok());
        let noted = by_details.filter(|details| details.note.as_deref() == Some("storm-note")).count();
        assert!(noted > 0, "no note came back in the details");

        for older in &seen {
            let path = format!("/v1/ledgers/{fleet}/proofs/consistency?old={}&new={}", older.head.size, newest.head.size);
            let proof = hashes(&owner.get(&path).await.is(200).json());
            verify_consistency(&proof, &older.head, &newest.head).unwrap();
        }
        included(&server, &owner, &fleet, &newest, &all).await;
        for path in [
            "inclusion?index=0&size=999999",
            "inclusion?index=9&size=9",
            "consistency?old=5&new=4",
            "consistency?old=1&new=999999",
        ] {
            let answer = owner.get(&format!("/v1/ledgers/{fleet}/proofs/{path}")).await;
            assert!(matches!(answer.status, 400 | 404 | 422), "{path}: {}", answer.text());
        }
    });
}

/// The last snapshot that a ledger's entries name, once there is one beyond `size` entries: its own position, size, and hash.
async fn named_snapshot(client: &Client, ledger: &str, beyond: u64) -> (u64, [u8; 32]) {
    until("a snapshot", 60, || async {
        let newest = checkpoint(client, ledger, &key(client, ledger).await).await;
        let all = entries(client, ledger, newest.head.size).await;
        all.iter().rev().find_map(|(entry, _)| match Entry::decode(entry).unwrap().event {
            Event::SnapshotMade { size, hash } if size > beyond => Some((size, hash)),
            _ => None,
        })
    })
    .await
}

#[test]
fn a_snapshot_and_the_entries_after_it_lead_to_the_signed_checkpoint() {
    let mut server = Server::start(&[]);
    server.stop();
    let file = server.data().join("fleetmark.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "\n[ledger]\nsnapshot_every = 20\n").unwrap();
    server.start_again();
    let (fleet, (size, hash), gateway) = run(async {
        let fleet = server.fleet(json!({})).await;
        let owner = server.owner().clone();
        for number in 0..8 {
            let device = Device::good(&server, &fleet, &format!("snap-{number}")).await;
            if number % 3 == 0 {
                drop(device.act(&server, "hold", json!({"note": "n"})).await);
            }
        }
        let named = named_snapshot(&owner, &fleet, 20).await;
        let device = Device::unconfirmed(&server, &fleet, "snap-after").await;
        drop(device.act(&server, "revoke", json!({"reason": "keyCompromise", "note": "n"})).await);
        let gateway = crate::certificates::member(&server, "gateways", "gw-snapshot").await;
        (fleet, named, gateway)
    });
    let path = server.data().join("snapshots").join(&fleet).join(format!("{size}.snapshot"));
    let octets = std::fs::read(&path).unwrap();
    run(async {
        let owner = server.owner().clone();
        let pinned = key(&owner, &fleet).await;
        let newest = checkpoint(&owner, &fleet, &pinned).await;
        let all = entries(&owner, &fleet, newest.head.size).await;
        let (mut state, read) = snapshot::read(pinned.clone(), &mut &octets[..], octets.len() as u64).unwrap();
        assert_eq!((state.frontier().size(), read), (size, hash));
        let mut named = false;
        for (entry, _) in &all[usize::try_from(size).unwrap()..] {
            let event = state.append(entry).unwrap().event;
            named |= event == (Event::SnapshotMade { size, hash });
        }
        assert!(named, "the ledger does not name it after its entries");
        assert_eq!(state.frontier().head(), newest.head);

        let mut whole = State::new(pinned);
        for (entry, _) in &all {
            whole.append(entry).unwrap();
        }
        let mut standings = BTreeMap::new();
        for (epoch, _) in whole.epochs() {
            for index in (0..20).map(fleetmark_domain::Index) {
                let holding = state.certificate(epoch, index);
                assert_eq!(holding, whole.certificate(epoch, index));
                let standing = holding.map(|holding| holding.standing.as_str().to_owned());
                assert_eq!(standing, standing_on_the_ledger(&all, epoch, index));
                *standings.entry(standing).or_insert(0) += 1;
            }
        }
        let count = |standing: &str| standings.get(&Some(standing.to_owned())).copied();
        assert_eq!(
            (count("good"), count("held"), count("revoked")),
            (Some(5 + 2), Some(3), Some(1)),
            "the OCSP responder and the status key beside the devices"
        );
    });

    // What is lost is made again, the same; a gateway gets it.
    std::fs::remove_file(&path).unwrap();
    server.restart();
    run(async {
        until("the file", 60, || async { path.exists().then_some(()) }).await;
        assert_eq!(std::fs::read(&path).unwrap(), octets);
        let client = server.device_client(Some(&gateway));
        let answer = until("the snapshot at the device door", 30, || async {
            let answer = client.get(&format!("/v1/ledgers/{fleet}/snapshot")).await;
            (answer.status != 404).then_some(answer)
        })
        .await;
        assert_eq!(answer.is(200).body, octets);
        client.get("/v1/ledgers/another/snapshot").await.is(404);
    });
}

/// Every certificate that the server lists was issued on the ledger, where it says, and nothing else was; and its standing is the
/// one that the ledger leads to.
async fn included(server: &Server, owner: &Client, fleet: &str, newest: &Checkpoint, all: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let mut cursor = String::new();
    let mut listed = HashSet::new();
    loop {
        let page = owner.get(&format!("/v1/certificates?fleet={fleet}&limit=100{cursor}")).await.is(200).json();
        for item in page["items"].as_array().unwrap() {
            let serial: Serial = text(item, "serial").parse().unwrap();
            let fingerprint: Fingerprint = text(item, "fingerprint").parse().unwrap();
            let position = item["position"].as_u64().unwrap();
            let entry = &all[usize::try_from(position).unwrap()].0;
            let Event::Issued(issued) = Entry::decode(entry).unwrap().event else { panic!("{position} is no issue") };
            assert_eq!((issued.epoch, issued.index, issued.fingerprint), (serial.epoch(), serial.index(), fingerprint));
            let path = format!("/v1/ledgers/{fleet}/proofs/inclusion?index={position}&size={}", newest.head.size);
            let proof = hashes(&owner.get(&path).await.is(200).json());
            verify_inclusion(&proof, leaf_hash(entry), position, &newest.head).unwrap();
            listed.insert((issued.epoch, issued.index));
            let standing = standing_on_the_ledger(all, issued.epoch, issued.index);
            assert_eq!(standing.as_deref(), item["standing"].as_str(), "{serial}");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let issued: Vec<_> = all
        .iter()
        .filter_map(|(entry, _)| match Entry::decode(entry).unwrap().event {
            Event::Issued(issued) => Some((issued.epoch, issued.index)),
            _ => None,
        })
        .collect();
    assert_eq!(issued.len(), issued.iter().collect::<HashSet<_>>().len(), "an index was issued twice");
    assert_eq!(issued.into_iter().collect::<HashSet<_>>(), listed, "ledger and list differ");
    let revoked = all.iter().filter(|(entry, _)| matches!(Entry::decode(entry).unwrap().event, Event::StandingChanged { .. }));
    assert!(revoked.count() > 10);
    // The list of revoked certificates is a view of the same ledger.
    let wanted: HashSet<_> = listed
        .iter()
        .filter(|(epoch, index)| matches!(standing_on_the_ledger(all, *epoch, *index).as_deref(), Some("revoked" | "held")))
        .copied()
        .collect();
    until("the list of the ledger", 10, || async {
        let list = crate::standing::list(server, fleet).await;
        let on_list = list.entries.keys().map(|serial| {
            let serial: Serial = serial.parse().unwrap();
            (serial.epoch(), serial.index())
        });
        (on_list.collect::<HashSet<_>>() == wanted).then_some(())
    })
    .await;
}

/// What the ledger's entries alone say of a certificate.
fn standing_on_the_ledger(
    all: &[(Vec<u8>, Option<Vec<u8>>)],
    epoch: fleetmark_domain::Epoch,
    index: fleetmark_domain::Index,
) -> Option<String> {
    let mut now = None;
    for (entry, _) in all {
        match Entry::decode(entry).unwrap().event {
            Event::Issued(issued) if (issued.epoch, issued.index) == (epoch, index) => {
                now = Some(issued.standing.as_str().to_owned());
            }
            Event::Confirmed { epoch: e, index: i } if (e, i) == (epoch, index) => now = Some("good".to_owned()),
            Event::StandingChanged { standing, certificates }
                if certificates.certificates().any(|place| place == (epoch, index)) =>
            {
                now = Some(standing.as_str().to_owned());
            }
            _ => {}
        }
    }
    now
}
