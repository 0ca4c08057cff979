//! Orders: many certificates at once. Every selector, what a dry run says, who may and who must approve, schedules that survive a
//! restart, and a kill in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetmark::store::acts::lease::LeaseIndices;
use fleetmark::store::acts::record::{Holder, Proof, RecordCertificate};
use fleetmark::store::location::{StoreLocation, open};
use fleetmark::store::model::{Certificate, Permits, StoredEntry, Subject, SubjectState};
use fleetmark::store::{HeadSigner, commit, read};
use fleetmark_domain::{Fingerprint, FleetName, KeyHash, Kind, LedgerName, Role, Serial, Standing, Timestamp};
use fleetmark_ledger::details::Details;
use fleetmark_ledger::entry::{AuthorityKind, Entry, Event};
use fleetmark_ledger::merkle::Head;
use futures_util::future::join_all;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::approval::sql;
use crate::harness::client::Answer;
use crate::harness::device::sha256;
use crate::harness::forge::{Maker, authority_id};
use crate::harness::gateway::Gateway;
use crate::harness::server::text;
use crate::harness::{Client, Connection, Device, Key, Server, run, shared, until};
use crate::kill::verify;
use crate::matrix::operator;
use crate::policies::{activate, put, with};

const ORDERS: &str = "/v1/revocations";
const TRY: &str = "/v1/revocations/dry-run";

fn now() -> Timestamp {
    Timestamp(OffsetDateTime::now_utc().unix_timestamp())
}

fn later(seconds: i64) -> String {
    Timestamp(now().0 + seconds).to_string()
}

/// Standing of each certificate, by its holder's name.
async fn standings(server: &Server, fleet: &str) -> BTreeMap<String, String> {
    let (mut all, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = server.owner().get(&format!("/v1/certificates?fleet={fleet}&limit=500{cursor}")).await.is(200).json();
        for one in page["items"].as_array().unwrap() {
            // The fleet's OCSP responder's is nobody's.
            let Some(identity) = one["identity"].as_str() else { continue };
            all.insert(identity.rsplit('/').next().unwrap().to_owned(), text(one, "standing"));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn ledger_size(server: &Server, ledger: &str) -> u64 {
    server.owner().get(&format!("/v1/ledgers/{ledger}")).await.is(200).json()["size"].as_u64().unwrap()
}

async fn order(client: &Client, body: &Value) -> Answer {
    client.post(ORDERS, body).await
}

/// Waits until an order is in this state.
async fn comes_to(client: &Client, id: &str, state: &str) -> Value {
    until(&format!("order {id} {state}"), 120, || async {
        let order = client.get(&format!("{ORDERS}/{id}")).await.is(200).json();
        (order["state"] == state).then_some(order)
    })
    .await
}

/// Orders, and waits for its end.
async fn done(client: &Client, body: &Value) -> Value {
    let placed = order(client, body).await.is(201);
    let id = text(&placed.json(), "id");
    assert_eq!(placed.header("location"), format!("{ORDERS}/{id}"));
    comes_to(client, &id, "done").await
}

/// SHA-256 over the device's public key.
fn key_hash(device: &Device) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(device.identity.leaf()).unwrap();
    sha256(certificate.public_key().raw)
}

#[test]
fn every_selector_reaches_what_it_names_and_no_more() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let a = Device::good(&server, &fleet, "a").await;
        let b = Device::good(&server, &fleet, "B-side").await;
        let pump = Device::good(&server, &fleet, "pump-1").await;
        let fresh = Device::unconfirmed(&server, &fleet, "pump-2").await;
        for (name, attributes) in
            [("a", json!({"fw": "1.2", "site": "x"})), ("B-side", json!({"fw": "1.20"})), ("pump-1", json!({"fw": "1.2"}))]
        {
            let path = format!("/v1/fleets/{fleet}/devices/{name}");
            server.owner().patch(&path, &[], &json!({"attributes": attributes})).await.is(200);
        }
        let maker = Maker::new("Orders");
        let group = json!({"name": "line", "proof": "maker", "ca": maker.root_pem()});
        server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &group).await.is(201);
        let (idevid, key) = (maker.device("made"), Key::new());
        let mut connection = Connection::open(server.device_port, &server.trust(), Some(&idevid)).await.unwrap();
        let enrolled = connection.post(&format!("/v1/fleets/{fleet}/enroll"), &json!({"csr": key.csr()})).await.unwrap();
        enrolled.is(200);
        let other = Device::good(&server, &server.fleet(json!({})).await, "pump-1").await;
        let ca = sha256(&CertificateDer::from_pem_slice(maker.root_pem().as_bytes()).unwrap());
        let public_key = key_hash(&b);
        let authority = authority_id(&server, "device", Some(&fleet)).await;

        let all: &[&str] = &["B-side", "a", "made", "pump-1", "pump-2"];
        let query = |conditions: Value| json!({"query": conditions});
        let table: Vec<(Value, &[&str])> = vec![
            (json!({"certificates": [a.serial(), b.serial().to_uppercase(), a.serial()]}), &["B-side", "a"]),
            (json!({"devices": ["b-SIDE", "pump-2"]}), &["B-side", "pump-2"]),
            (json!({"group": "LINE"}), &["made"]),
            (json!({"maker": ca}), &["made"]),
            (json!({"public_key": public_key}), &["B-side"]),
            (json!({"authority": authority}), all),
            (query(json!({"everything": true})), all),
            (query(json!({"name": "PUMP-*"})), &["pump-1", "pump-2"]),
            (query(json!({"name": "pump_1"})), &[]),
            (query(json!({"name": "*-*"})), &["B-side", "pump-1", "pump-2"]),
            (query(json!({"attributes": {"fw": "1.2"}})), &["a", "pump-1"]),
            (query(json!({"attributes": {"fw": "1.2", "site": "x"}})), &["a"]),
            (query(json!({"attributes": {"FW": "1.2"}})), &[]),
            (query(json!({"state": "registered"})), &["made", "pump-2"]),
            (query(json!({"standing": "unconfirmed"})), &["made", "pump-2"]),
            (query(json!({"standing": "superseded"})), &[]),
            (query(json!({"group": "line", "state": "registered"})), &["made"]),
            (query(json!({"group": "line", "name": "pump-*"})), &[]),
            (query(json!({"issued_before": later(-3_600)})), &[]),
            (query(json!({"issued_after": later(-3_600)})), all),
            (query(json!({"ends_before": later(3_600)})), &[]),
        ];
        for (select, wanted) in table {
            let before = standings(&server, &fleet).await;
            let size = ledger_size(&server, &fleet).await;
            let body = json!({"fleet": fleet, "act": "hold", "select": select});
            let told = server.owner().post(TRY, &body).await.is(200).json();
            assert_eq!(
                (&told["certificates"], &told["devices"]),
                (&json!(wanted.len()), &json!(wanted.len())),
                "{body}: {told}"
            );
            assert_eq!(told["needs_approval"], false, "{told}");
            assert_eq!(standings(&server, &fleet).await, before, "a dry run changed a standing");
            let order = done(server.owner(), &body).await;
            assert_eq!((&order["changed"], &order["certificates"]), (&json!(wanted.len()), &json!(wanted.len())), "{order}");
            let now = standings(&server, &fleet).await;
            let held: Vec<_> = now.iter().filter(|(_, standing)| *standing == "held").map(|(name, _)| name.as_str()).collect();
            assert_eq!(held, wanted, "{body}");
            let entries = ledger_size(&server, &fleet).await - size;
            assert_eq!(entries, u64::from(!wanted.is_empty()), "one entry for all, and none for a dry run");
            // Back as they were: what was never confirmed would be confirmed by a release.
            sql(
                &server,
                &format!(
                    "UPDATE certificates SET standing = CASE WHEN (SELECT confirmed_generation FROM subjects WHERE subjects.id = subject) = 0 THEN 0 ELSE 1 END WHERE ledger = '{fleet}'"
                ),
            );
        }
        assert_eq!(other.standing(&server).await, "good");
        assert_eq!(fresh.verdict(&server).await, "ok", "its first use confirms it");

        // A public key whose secret leaked is also kept from another certificate. Fleet and certificate tell each other.
        let body = json!({"select": {"public_key": key_hash(&pump)}, "reason": "keyCompromise", "note": "published"});
        let order = done(server.owner(), &body).await;
        assert_eq!((&order["ledger"], &order["reason"]), (&json!(fleet), &json!("keyCompromise")));
        assert_eq!(pump.verdict(&server).await, "revoked");
        let blocked = server.owner().get("/v1/blocked-keys?limit=500").await.is(200).text();
        assert!(blocked.contains(&key_hash(&pump)));
        assert_eq!(done(server.owner(), &body).await["changed"], 0, "a repeat changes nothing");
    });
}

#[test]
fn quarantine_and_release_go_through_and_a_release_confirms_what_never_was() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let (a, b) = (Device::good(&server, &fleet, "a").await, Device::unconfirmed(&server, &fleet, "b").await);
        let everything = |act: &str| json!({"fleet": fleet, "act": act, "select": {"query": {"everything": true}}});
        assert_eq!(done(server.owner(), &everything("quarantine")).await["changed"], 2);
        assert_eq!(a.verdict(&server).await, "quarantined");
        assert_eq!(done(server.owner(), &everything("hold")).await["changed"], 2);
        assert_eq!(b.verdict(&server).await, "held");
        assert_eq!(done(server.owner(), &everything("release")).await["changed"], 2);
        assert_eq!((a.standing(&server).await, b.standing(&server).await), ("good".into(), "good".into()));
        let record = server.owner().get(&format!("/v1/fleets/{fleet}/devices/b")).await.is(200).json();
        assert_eq!(record["state"], "active", "its release confirmed it");
        // It renews, and the old one is superseded: a revocation of the device's reaches both.
        let newer = b.renew(&server).await;
        newer.confirm(&server).await.is(200);
        let order = done(server.owner(), &json!({"fleet": fleet, "select": {"devices": ["b"]}})).await;
        assert_eq!((&order["changed"], &order["devices"]), (&json!(2), &json!(1)));
        assert_eq!(newer.verdict(&server).await, "revoked");
        verify(&server, &fleet, &server.scratch("orders-release.state"));
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_ordered() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let elsewhere = server.fleet(json!({})).await;
        let (a, b) = (Device::good(&server, &fleet, "a").await, Device::good(&server, &elsewhere, "b").await);
        let authority = authority_id(&server, "device", Some(&elsewhere)).await;
        let operators = authority_id(&server, "operator", None).await;
        let root = authority_id(&server, "root", None).await;
        let with = |select: Value| json!({"fleet": fleet, "select": select});
        let cases = [
            (json!({"fleet": "nowhere", "select": {"devices": ["a"]}}), 404, "fleet_unknown"),
            (json!({"select": {"devices": ["a"]}}), 422, "invalid_value"),
            (json!({"select": {"query": {"everything": true}}}), 422, "invalid_value"),
            (with(json!({})), 422, "invalid_value"),
            (with(json!({"group": "a", "maker": "00"})), 422, "invalid_value"),
            (with(json!({"devices": ["a", "nobody"]})), 404, "device_unknown"),
            (with(json!({"devices": ["b"]})), 404, "device_unknown"),
            (with(json!({"group": "nothing"})), 404, "not_found"),
            (with(json!({"maker": "00".repeat(32)})), 404, "not_found"),
            (with(json!({"public_key": "00".repeat(32)})), 404, "not_found"),
            (with(json!({"certificates": [b.serial()]})), 404, "not_found"),
            (json!({"select": {"certificates": [a.serial(), b.serial()]}}), 422, "invalid_value"),
            (with(json!({"authority": authority})), 404, "not_found"),
            (json!({"select": {"authority": operators}}), 422, "invalid_value"),
            (json!({"select": {"authority": root}}), 422, "invalid_value"),
            (with(json!({"query": {}})), 422, "invalid_value"),
            (with(json!({"query": {"everything": true, "name": "a"}})), 422, "invalid_value"),
            (with(json!({"query": {"name": "a%"}})), 422, "invalid_value"),
            (with(json!({"query": {"standing": "gone"}})), 422, "invalid_value"),
            (with(json!({"query": {"serial": "1"}})), 400, "malformed_request"),
            (
                json!({"fleet": fleet, "act": "hold", "reason": "keyCompromise", "select": {"devices": ["a"]}}),
                422,
                "invalid_value",
            ),
            (json!({"fleet": fleet, "at": later(400 * 86_400), "select": {"devices": ["a"]}}), 422, "invalid_value"),
        ];
        for (body, status, code) in cases {
            for path in [ORDERS, TRY] {
                let answer = server.owner().post(path, &body).await;
                assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
            }
        }
        let listed = server.owner().get(&format!("{ORDERS}?fleet={fleet}")).await.is(200).json();
        assert_eq!(listed["items"], json!([]));
        // The same request with the same key is one order.
        let body = with(json!({"devices": ["a"]}));
        let key = [("idempotency-key", "orders-1")];
        let first = server.owner().post_with(ORDERS, &key, &body).await.is(201).json();
        comes_to(server.owner(), &text(&first, "id"), "done").await;
        let again = server.owner().post_with(ORDERS, &key, &body).await.is(201).json();
        assert_eq!(again["id"], first["id"]);
        server.owner().post_with(ORDERS, &key, &with(json!({"devices": ["A"]}))).await.refused(422, "idempotency_key_reused");
    });
}

/// Callers of one fleet, with what each may.
struct People {
    viewer: Client,
    lesser: Client,
    alice: Client,
    second: Client,
    elsewhere: Client,
}

async fn people(server: &Server, fleet: &str) -> People {
    let client = async |name: &str, role, fleets| {
        server.admin_client(Some(&operator(server, &format!("{fleet}-{name}"), role, fleets).await.0))
    };
    People {
        viewer: client("viewer", Role::Viewer, json!([fleet])).await,
        lesser: client("lesser", Role::Operator, json!([fleet])).await,
        alice: client("alice", Role::SecurityOfficer, json!([fleet])).await,
        second: client("second", Role::SecurityOfficer, json!([fleet])).await,
        elsewhere: client("elsewhere", Role::SecurityOfficer, json!([])).await,
    }
}

#[test]
fn beyond_the_blast_radius_a_second_operator_decides() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"blast_radius": 3})).await;
        let People { viewer, lesser, alice, second, elsewhere } = people(&server, &fleet).await;
        let mut devices = Vec::new();
        for number in 0..5 {
            devices.push(Device::good(&server, &fleet, &format!("d{number}")).await);
        }
        let everything = json!({"fleet": fleet, "act": "hold", "select": {"query": {"everything": true}}, "note": "recall 7"});
        let told = alice.post(TRY, &everything).await.is(200).json();
        assert_eq!(
            (&told["devices"], &told["needs_approval"], &told["used"], &told["limit"]),
            (&json!(5), &json!(true), &json!(0), &json!(3))
        );
        order(&viewer, &everything).await.refused(403, "not_permitted");
        order(&lesser, &everything).await.refused(403, "not_permitted");
        order(&elsewhere, &everything).await.refused(404, "fleet_unknown");

        let placed = order(&alice, &everything).await.is(201).json();
        assert_eq!(placed["state"], "awaiting_approval", "{placed}");
        let id = text(&placed, "id");
        let approve = format!("{ORDERS}/{id}/approve");
        let own = alice.post(&approve, &json!({})).await.refused(403, "not_permitted");
        assert!(own.text().contains("their own"));
        for act in ["approve", "cancel"] {
            let path = format!("{ORDERS}/{id}/{act}");
            viewer.post(&path, &json!({})).await.refused(403, "not_permitted");
            lesser.post(&path, &json!({})).await.refused(403, "not_permitted");
            elsewhere.post(&path, &json!({})).await.refused(404, "not_found");
        }
        elsewhere.get(&format!("{ORDERS}/{id}")).await.refused(404, "not_found");
        assert_eq!(elsewhere.get(ORDERS).await.is(200).json()["items"].as_array().unwrap().len(), 0);
        assert_eq!(devices[0].standing(&server).await, "good");
        second.post(&approve, &json!({})).await.is(200);
        let ended = comes_to(&viewer, &id, "done").await;
        assert_eq!(
            (&ended["changed"], &ended["ordered_by"], &ended["approved_by"]),
            (&json!(5), &json!(format!("{fleet}-alice")), &json!(format!("{fleet}-second")))
        );
        second.post(&approve, &json!({})).await.is(200);
        server.owner().post(&approve, &json!({})).await.refused(409, "transition_not_allowed");
        alice.post(&format!("{ORDERS}/{id}/cancel"), &json!({})).await.refused(409, "transition_not_allowed");
        // The ledger names both of them.
        let entries = server.owner().get(&format!("/v1/ledgers/{fleet}/entries?from=0&limit=256")).await.is(200).json();
        let details = entries["items"].as_array().unwrap().iter().filter_map(|entry| entry["details"].as_str());
        let found = details.map(|text| Details::decode(&STANDARD.decode(text).unwrap()).unwrap()).find(|details| {
            let note = details.note.clone().unwrap_or_default();
            details.actor.ends_with("-alice") && note.contains(&id) && note.contains("-second") && note.contains("recall 7")
        });
        assert!(found.is_some(), "no entry tells who ordered and who approved");

        // What two did counts against nobody; what one does alone, against that one.
        let some = |act: &str, names: Value| json!({"fleet": fleet, "act": act, "select": {"devices": names}});
        done(&alice, &some("release", json!(["d0", "d1"]))).await;
        let placed = order(&alice, &some("release", json!(["d2", "d3"]))).await.is(201).json();
        assert_eq!(placed["state"], "awaiting_approval", "{placed}");
        alice.post(&format!("/v1/fleets/{fleet}/devices/d2/release"), &json!({})).await.is(200);
        alice.post(&format!("/v1/fleets/{fleet}/devices/d3/release"), &json!({})).await.refused(403, "blast_radius_exceeded");
        let id = text(&placed, "id");
        lesser.post(&format!("{ORDERS}/{id}/cancel"), &json!({})).await.refused(403, "not_permitted");
        let cancelled = alice.post(&format!("{ORDERS}/{id}/cancel"), &json!({})).await.is(200).json();
        assert_eq!((&cancelled["state"], &cancelled["cancelled_by"]), (&json!("cancelled"), &json!(format!("{fleet}-alice"))));
        second.post(&format!("{ORDERS}/{id}/approve"), &json!({})).await.refused(409, "transition_not_allowed");
        done(&second, &some("release", json!(["d3", "d4"]))).await;

        // Nobody approves it in time.
        let placed = order(&alice, &everything).await.is(201).json();
        let id = text(&placed, "id");
        sql(&server, &format!("UPDATE revocations SET expires_at = {} WHERE id = 0x{id}", now().0));
        comes_to(&alice, &id, "expired").await;
        second.post(&format!("{ORDERS}/{id}/approve"), &json!({})).await.refused(409, "transition_not_allowed");
        let open = alice.get(&format!("{ORDERS}?fleet={fleet}&state=expired")).await.is(200).json();
        assert_eq!(open["items"].as_array().unwrap().len(), 1);
        assert_eq!(devices[4].standing(&server).await, "good");
    });
}

#[test]
fn gateways_and_operators_take_the_rights_over_them() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let gateway = crate::certificates::member(&server, "gateways", &format!("{fleet}-gw")).await;
        let serial = |identity: &crate::harness::Identity| {
            hex::encode(x509_parser::parse_x509_certificate(identity.leaf()).unwrap().1.raw_serial())
        };
        let (victim, _) = operator(&server, &format!("{fleet}-victim"), Role::Viewer, Value::Null).await;
        let officer =
            server.admin_client(Some(&operator(&server, &format!("{fleet}-so"), Role::SecurityOfficer, Value::Null).await.0));
        let local = server
            .admin_client(Some(&operator(&server, &format!("{fleet}-so-1"), Role::SecurityOfficer, json!([fleet])).await.0));
        let hold = |identity| json!({"act": "hold", "select": {"certificates": [serial(identity)]}});
        order(&local, &hold(&gateway)).await.refused(403, "not_permitted");
        order(&officer, &hold(&victim)).await.refused(403, "not_permitted");
        order(&officer, &json!({"act": "hold", "select": {"certificates": [serial(&gateway), serial(&victim)]}}))
            .await
            .refused(403, "not_permitted");
        assert_eq!(done(&officer, &hold(&gateway)).await["ledger"], "system");
        done(server.owner(), &hold(&victim)).await;
        server.admin_client(Some(&victim)).get("/v1/whoami").await.refused(403, "held");
        // The server's own certificates are nobody's to change.
        let own = sql_value(&server, "SELECT hex(serial) FROM certificates WHERE subject IS NULL LIMIT 1");
        order(server.owner(), &json!({"select": {"certificates": [own]}})).await.refused(404, "not_found");
    });
}

fn sql_value(server: &Server, query: &str) -> String {
    let database = server.data().join("fleetmark.db");
    let output =
        Command::new("sqlite3").args(["-readonly", "-cmd", ".timeout 10000"]).arg(database).arg(query).output().unwrap();
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn what_is_scheduled_runs_at_its_time_whether_or_not_the_server_was_there() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({})).await;
        let People { alice, second, .. } = people(&server, &fleet).await;
        let mut devices = Vec::new();
        for name in ["past", "kept", "soon", "lost", "many"] {
            devices.push(Device::good(&server, &fleet, name).await);
        }
        let at = |name: &str, seconds| json!({"fleet": fleet, "select": {"devices": [name]}, "at": later(seconds)});
        let placed = async |client: &Client, body: &Value| {
            let placed = order(client, body).await.is(201).json();
            assert_eq!(placed["state"], "scheduled", "{placed}");
            text(&placed, "id")
        };
        let past = placed(&alice, &at("past", 3)).await;
        let kept = placed(&alice, &at("kept", 3)).await;
        let soon = placed(&second, &at("soon", 3_600)).await;
        let lost = placed(&alice, &at("lost", 3_600)).await;
        let barred = placed(&second, &at("kept", 3_600)).await;
        let many = placed(&second, &json!({"fleet": fleet, "select": {"query": {"name": "m*"}}, "at": later(3_600)})).await;
        alice.post(&format!("{ORDERS}/{kept}/cancel"), &json!({})).await.is(200);
        server.stop();
        tokio::time::sleep(Duration::from_secs(4)).await;
        server.start_again();
        let owner = server.owner();
        let ran = comes_to(owner, &past, "done").await;
        assert_eq!(ran["changed"], 1);
        assert_eq!(owner.get(&format!("{ORDERS}/{kept}")).await.is(200).json()["state"], "cancelled");
        let standing = async |place: usize| devices[place].standing(&server).await;
        assert_eq!((standing(0).await.as_str(), standing(1).await.as_str()), ("revoked", "good"));

        // The one who ordered it is out, or may no more; the others' orders run.
        server.owner().post(&format!("/v1/operators/{fleet}-alice/revoke"), &json!({})).await.is(200);
        // By then it reaches more than one may change alone.
        owner.patch(&format!("/v1/fleets/{fleet}"), &[], &json!({"blast_radius": 1})).await.is(200);
        Device::good(&server, &fleet, "many-2").await;
        let due = now().0;
        for id in [&soon, &lost, &many] {
            sql(&server, &format!("UPDATE revocations SET runs_at = {due} WHERE id = 0x{id}"));
        }
        comes_to(owner, &soon, "done").await;
        assert_eq!(comes_to(owner, &lost, "failed").await["failure"], "not_permitted");
        let waits = comes_to(owner, &many, "awaiting_approval").await;
        assert_eq!(waits["devices"], 2);
        assert_eq!(
            (standing(2).await.as_str(), standing(3).await.as_str(), standing(4).await.as_str()),
            ("revoked", "good", "good")
        );
        owner.post(&format!("{ORDERS}/{many}/approve"), &json!({})).await.is(200);
        comes_to(owner, &many, "done").await;
        assert_eq!(standing(4).await, "revoked");

        // So are those whose operator the policies forbid it by then.
        let forbids =
            "@id(\"none\") forbid (principal, action == Action::\"ChangeStanding\", resource) unless { context has source };";
        let version = put(owner, &fleet, &with(&server, &fleet, forbids).await).await;
        activate(owner, &fleet, version).await.is(200);
        order(&second, &at("kept", 3_600)).await.refused(403, "not_permitted");
        sql(&server, &format!("UPDATE revocations SET runs_at = {} WHERE id = 0x{barred}", now().0));
        assert_eq!(comes_to(owner, &barred, "failed").await["failure"], "not_permitted");
        assert_eq!(standing(1).await, "good");
    });
}

/// Signs nothing: the server signs what it finds at its start.
struct Unsigned;

impl HeadSigner for Unsigned {
    fn committed(&self, _: &LedgerName, _: &Head, _: &[StoredEntry]) {}
}

/// Devices with good certificates in a fleet of a server that does not run, by the store's own acts. Their octets are no certificates.
async fn seed(server: &Server, fleet: &str, count: u32) {
    let location = StoreLocation::Sqlite(server.data().join("fleetmark.db"));
    let store = open(location, Arc::new(Unsigned)).await.unwrap();
    let name: FleetName = fleet.parse().unwrap();
    let ledger = LedgerName::Fleet(name.clone());
    let authorities = read(&*store, |rows| rows.authorities()).await.unwrap();
    let is_ours = |kind| kind == AuthorityKind::Of(Kind::Device);
    let authority = authorities.iter().find(|it| is_ours(it.kind) && it.fleet.as_ref() == Some(&name)).unwrap().id;
    let (at, mut places) = (now(), Vec::new());
    while places.len() < usize::try_from(count).unwrap() {
        let window = Duration::from_secs(365 * 86_400);
        let expires_at = at + Duration::from_secs(600);
        let count = count - u32::try_from(places.len()).unwrap();
        let lease = LeaseIndices { authority, ledger: ledger.clone(), count, window, expires_at, at };
        let lease = commit(&*store, lease).await.unwrap();
        places.extend(lease.indices.into_iter().map(|index| (lease.epoch, index)));
    }
    let acts: Vec<_> = places
        .into_iter()
        .enumerate()
        .map(|(number, (epoch, index))| {
            let hash = |what: &str| -> [u8; 32] {
                hex::decode(sha256(format!("{fleet} {what} {number}").as_bytes())).unwrap().try_into().unwrap()
            };
            let attributes = BTreeMap::from([("lot".to_owned(), ["even", "odd"][number % 2].to_owned())]);
            let subject = Subject {
                id: 0,
                kind: Kind::Device,
                fleet: Some(name.clone()),
                name: format!("seed-{number}").parse().unwrap(),
                state: SubjectState::Registered,
                role: None,
                grants: None,
                dns_names: Vec::new(),
                addresses: Vec::new(),
                attributes,
                last_generation: 0,
                confirmed_generation: 0,
                created_at: at,
                version: 1,
                group: None,
                permits: Permits::default(),
                moved_from: None,
            };
            let certificate = Certificate {
                serial: Serial::new(epoch, index, [7; 8]),
                authority,
                subject: None,
                generation: 0,
                key_hash: KeyHash(hash("key")),
                fingerprint: Fingerprint(hash("certificate")),
                standing: Standing::Good,
                not_before: at,
                not_after: at + Duration::from_secs(90 * 86_400),
                renew_after: at + Duration::from_secs(60 * 86_400),
                confirm_before: None,
                issued_at: at,
                changed_at: at,
                ledger: ledger.clone(),
                position: 0,
                token: None,
                der: vec![0x30; 700],
            };
            let details = Details {
                salt: [1; 16],
                actor: "fleetmark".to_owned(),
                subject: None,
                reason: None,
                note: None,
                attributes: BTreeMap::new(),
            };
            RecordCertificate {
                certificate,
                holder: Holder::ByName(Box::new(subject)),
                proof: Proof::Installation,
                approval: None,
                attributes: None,
                was_quarantined: false,
                credential: None,
                made_for: None,
                details,
                at,
            }
        })
        .collect();
    let mut acts = acts.into_iter().peekable();
    while acts.peek().is_some() {
        let batch: Vec<_> = acts.by_ref().take(512).map(|act| commit(&*store, act)).collect();
        for recorded in join_all(batch).await {
            recorded.unwrap();
        }
    }
    store.stop().await;
}

/// Every change of standing in a ledger from a position on, as (epoch, index).
async fn changed_from(server: &Server, fleet: &str, from: u64) -> Vec<(u32, u32)> {
    let (mut places, mut from, size) = (Vec::new(), from, ledger_size(server, fleet).await);
    while from < size {
        let page = server.owner().get(&format!("/v1/ledgers/{fleet}/entries?from={from}&limit=256")).await.is(200).json();
        for item in page["items"].as_array().unwrap() {
            let entry = Entry::decode(&STANDARD.decode(text(item, "entry")).unwrap()).unwrap();
            if let Event::StandingChanged { certificates, .. } = entry.event {
                places.extend(certificates.certificates().map(|(epoch, index)| (epoch.0, index.0)));
            }
            from += 1;
        }
    }
    places
}

#[test]
fn a_kill_in_the_middle_of_a_big_order_is_made_good_and_nothing_is_done_twice() {
    // How long 100,000 take is measured by `scripts/bench --standing`.
    let count: u32 = std::env::var("ORDER_CERTIFICATES").map_or(12_000, |count| count.parse().unwrap());
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({"blast_radius": 100_000})).await;
        server.stop();
        seed(&server, &fleet, count).await;
        server.start_again();
        let state = server.scratch("big.state");
        verify(&server, &fleet, &state);
        let before = ledger_size(&server, &fleet).await;
        let body = json!({"fleet": fleet, "reason": "cessationOfOperation", "select": {"query": {"everything": true}}});
        let id = text(&order(server.owner(), &body).await.is(201).json(), "id");
        let mut kills = 0;
        let mut last = 0;
        let most = if std::env::var("ORDER_KILLS").is_ok_and(|kills| kills == "0") { 0 } else { 3 };
        for _ in 0..most {
            // Once it has gone on.
            let reached = until("the order goes on", 60, || async {
                let order = server.owner().get(&format!("{ORDERS}/{id}")).await.is(200).json();
                let changed = order["changed"].as_u64().unwrap();
                (changed > last || order["state"] == "done").then_some(order)
            })
            .await;
            if reached["state"] == "done" {
                break;
            }
            last = reached["changed"].as_u64().unwrap();
            server.kill_and_start();
            kills += 1;
        }
        assert!(kills > 0 || most == 0, "the order was done before it could be interrupted");
        // Meanwhile others enroll, and are reached or not; those that were there before all are.
        let newcomer = Device::good(&server, &fleet, "newcomer").await;
        let order = comes_to(server.owner(), &id, "done").await;
        let met = u64::from(newcomer.standing(&server).await == "revoked");
        assert_eq!(order["changed"].as_u64().unwrap(), u64::from(count) + met, "{order}");
        let left = sql_value(
            &server,
            &format!("SELECT COUNT(*) FROM certificates WHERE ledger = '{fleet}' AND standing <> 5 AND subject IS NOT NULL"),
        );
        assert_eq!(left, (1 - met).to_string());
        let reached = usize::try_from(order["changed"].as_u64().unwrap()).unwrap();
        let places = changed_from(&server, &fleet, before).await;
        let once: BTreeSet<_> = places.iter().copied().collect();
        // Confirmations of the newcomer are entries of another kind.
        assert_eq!((places.len(), once.len()), (reached, reached));
        verify(&server, &fleet, &state);
        let took = sql_value(&server, "SELECT ended_at - started_at FROM revocations");
        println!("{count} certificates in {took} s, with {kills} kills; {met} newcomers met");
    });
}

#[test]
fn a_gateway_takes_in_a_part_of_which_no_two_certificates_are_neighbours() {
    let mut server = Server::start(&[]);
    run(async {
        let fleet = server.fleet(json!({"blast_radius": 100_000})).await;
        server.stop();
        seed(&server, &fleet, 4_200).await;
        server.start_again();
        let attributes =
            |name: &str, lot: &str| (format!("/v1/fleets/{fleet}/devices/{name}"), json!({"attributes": {"lot": lot}}));
        let (bad, good) = (Device::good(&server, &fleet, "bad").await, Device::good(&server, &fleet, "good").await);
        for (name, lot) in [("bad", "odd"), ("good", "even")] {
            let (path, body) = attributes(name, lot);
            server.owner().patch(&path, &[], &body).await.is(200);
        }
        let gateway = Gateway::start(&server, "gw-orders", &[&fleet]).await;
        gateway.says("allowed", &bad.identity, 30).await;
        let live = gateway.dial(&bad.identity).await.unwrap();
        let mut stays = gateway.dial(&good.identity).await.unwrap();
        let resyncs = server.metric("fleetmark_feed_resyncs_total", &[]).await;
        let select = json!({"query": {"attributes": {"lot": "odd"}}});
        let order = done(server.owner(), &json!({"fleet": fleet, "select": select})).await;
        assert_eq!(order["changed"], 2_101);
        live.ends().await;
        gateway.says("revoked", &bad.identity, 2).await;
        stays.echo().await.unwrap();
        gateway.says("allowed", &good.identity, 2).await;
        assert!(
            (server.metric("fleetmark_feed_resyncs_total", &[]).await - resyncs).abs() < 0.5,
            "a pushed entry was too large"
        );
        let size = ledger_size(&server, &fleet).await;
        until("the gateway verifies it all", 20, || async {
            let status = gateway.status().await;
            let known = status["ledgers"].as_array()?.iter().find(|known| known["ledger"] == fleet.as_str())?;
            (known["position"].as_u64()? + 1 >= size).then_some(())
        })
        .await;
    });
}

#[test]
fn the_command_line_orders_waits_and_approves() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({"blast_radius": 2})).await;
        for name in ["one", "two", "three"] {
            Device::good(&server, &fleet, name).await;
        }
        let profile = server.data().join("operator");
        let fleetmark = |arguments: &[&str]| -> Output {
            Command::new(env!("CARGO_BIN_EXE_fleetmark")).arg("--operator").arg(&profile).args(arguments).output().unwrap()
        };
        let said =
            |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let list = server.write_scratch("orders.list", b"# the two\none\n\ntwo\n").display().to_string();
        let order = |rest: &[&str]| fleetmark(&[&["revocation", "order", "revoke", "--fleet", &fleet], rest].concat());

        let counted = order(&["--devices-from", &list, "--dry-run"]);
        assert!(counted.status.success() && said(&counted).contains("needs_approval  no"), "{}", said(&counted));
        let ended = order(&["--devices-from", &list, "--reason", "keyCompromise", "--note", "stolen"]);
        assert!(ended.status.success(), "{}", said(&ended));
        assert!(said(&ended).contains("done") && said(&ended).contains("2 devices"), "{}", said(&ended));

        let waits = order(&["--name", "t*"]);
        assert!(waits.status.success() && said(&waits).contains("fleetmark revocation approve"), "{}", said(&waits));
        let listed = fleetmark(&["revocation", "list", "--fleet", &fleet, "--state", "awaiting-approval", "--json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let id = text(&listed["items"][0], "id");
        let own = fleetmark(&["revocation", "approve", &id]);
        assert_eq!(own.status.code(), Some(1), "{}", said(&own));
        let shown = fleetmark(&["revocation", "show", &id, "--wait"]);
        assert!(shown.status.success() && said(&shown).contains("awaiting_approval"), "{}", said(&shown));
        let cancelled = fleetmark(&["revocation", "cancel", &id]);
        assert!(cancelled.status.success() && said(&cancelled).contains("cancelled"), "{}", said(&cancelled));

        let other = server.fleet(json!({})).await;
        Device::good(&server, &other, "four").await;
        let at = later(3_600);
        let later = fleetmark(&["revocation", "order", "hold", "--fleet", &other, "--device", "four", "--at", &at]);
        assert!(later.status.success() && said(&later).contains("It runs at"), "{}", said(&later));
        for nonsense in
            [&["--device", "one", "--group", "a"][..], &["--device", "one", "--key", "a"], &["--everything", "--name", "a"]]
        {
            assert_eq!(order(nonsense).status.code(), Some(2), "{nonsense:?}");
        }
        assert_eq!(order(&[]).status.code(), Some(2), "nothing is selected");
    });
}
