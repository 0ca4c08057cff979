//! Many at once: two keys for one device, a batch on one claim, fifty on the last use of a token, a clone that renews beside its
//! original. In the end each device is one live identity, what was counted is exact, and who lost left nothing behind.
//!
//! `RACE_DEVICES` says how many devices come by one claim (200 unless set).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use ring::hmac;
use serde_json::{Value, json};

use crate::harness::client::Answer;
use crate::harness::device::{enroll as enroll_by_token, sha256};
use crate::harness::forge::Maker;
use crate::harness::server::text;
use crate::harness::{Device, Identity, Key, Server, run, shared};
use crate::kill::{certificates, verify};

/// How often two keys race for one device by each proof.
const ROUNDS: usize = 6;
/// How many of a batch come at once: the server gives a handshake three seconds, also on a machine that is busy.
const AT_ONCE: usize = 40;
/// The name of each fleet's group.
const GROUP: &str = "batch";
/// The group's key of the derived keys.
const GROUP_KEY: [u8; 32] = [0x5a; 32];

/// What a device shows.
#[derive(Clone)]
enum Shown {
    Token(String),
    /// A maker's certificate or a claim.
    Certificate(Identity),
    Derived,
}

/// Makes a group of this proof.
async fn group(server: &Server, fleet: &str, proof: &str, more: Value) {
    let mut body = json!({"name": GROUP, "proof": proof, "rules": {}});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    server.owner().post(&format!("/v1/fleets/{fleet}/groups"), &body).await.is(201);
}

/// The group's claim certificate.
async fn claim(server: &Server, fleet: &str) -> Identity {
    let key = Key::new();
    let path = format!("/v1/fleets/{fleet}/groups/{GROUP}/claims");
    key.identity(&server.owner().post(&path, &json!({"csr": key.csr()})).await.is(201).json())
}

async fn admitted(server: &Server, fleet: &str) -> u64 {
    let shown = server.owner().get(&format!("/v1/fleets/{fleet}/groups/{GROUP}")).await.is(200).json();
    shown["admitted"].as_u64().unwrap()
}

/// Asks for a certificate over a connection of its own.
async fn enroll(server: &Server, fleet: &str, shown: &Shown, name: &str, key: &Key) -> Answer {
    let path = format!("/v1/fleets/{fleet}/enroll");
    let mut body = json!({"csr": key.csr(), "device": name});
    match shown {
        Shown::Token(token) => enroll_by_token(&server.device_client(None), fleet, token, key, Some(name)).await,
        Shown::Certificate(identity) => server.device_client(Some(identity)).post(&path, &body).await,
        Shown::Derived => {
            let client = server.device_client(None);
            let hash = sha256(&key.spki());
            let question = json!({"kind": "derived-key", "group": GROUP, "device": name, "key": hash});
            let nonce = client.post(&format!("/v1/fleets/{fleet}/challenge"), &question).await.is(200).json();
            let nonce = text(&nonce, "nonce");
            let sign = |key: &[u8], message: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
            let own = sign(&GROUP_KEY, name.as_bytes());
            let message = [b"fleetmark derived key v1", nonce.as_bytes(), &hex::decode(&hash).unwrap()].concat();
            let answer = STANDARD.encode(sign(own.as_ref(), &message));
            body["group"] = GROUP.into();
            body["proof"] = json!({"kind": "derived-key", "nonce": nonce, "answer": answer});
            client.post(&path, &body).await
        }
    }
}

/// Enrolls, and confirms with what it got: by its certificate. The serial, where it is confirmed; else the refusal's name.
async fn arrive(server: &Server, fleet: &str, shown: &Shown, name: &str) -> Result<String, String> {
    let key = Key::new();
    let answer = enroll(server, fleet, shown, name, &key).await;
    if answer.status != 200 {
        return Err(answer.code());
    }
    let answer = answer.json();
    let own = server.device_client(Some(&key.identity(&answer)));
    let confirmed = own.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await;
    if confirmed.status == 200 { Ok(text(&answer, "serial")) } else { Err(confirmed.code()) }
}

/// One live certificate for each of these devices and nobody else, and a whole ledger.
async fn settled(server: &Server, fleet: &str, names: &[String]) {
    let all = certificates(server, fleet).await;
    let mut live: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in &all {
        let standing = text(one, "standing");
        if !["revoked", "superseded"].contains(&standing.as_str()) {
            let name = text(one, "identity").rsplit('/').next().unwrap().to_owned();
            live.entry(name).or_default().push(standing);
        }
    }
    let expected: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), vec!["good".to_owned()])).collect();
    assert_eq!(live, expected);
    let mut known = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.owner().get(&format!("/v1/fleets/{fleet}/devices?limit=500{cursor}")).await.is(200).json();
        known.extend(page["items"].as_array().unwrap().iter().map(|device| text(device, "name")));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    known.sort();
    assert_eq!(known, expected.into_keys().collect::<Vec<_>>(), "a loser left a device behind");
    verify(server, fleet, &server.scratch(&format!("{fleet}.state")));
}

/// Two keys race for each device of `shown`; who may lose by what.
async fn two_keys(server: &Server, fleet: &str, shown: Vec<(String, Shown)>, losses: &[&str]) {
    for (name, shown) in &shown {
        let (one, other) = tokio::join!(arrive(server, fleet, shown, name), arrive(server, fleet, shown, name));
        assert!(one.is_ok() || other.is_ok(), "{name}: {one:?}, {other:?}");
        for lost in [one, other].into_iter().filter_map(Result::err) {
            assert!(losses.contains(&lost.as_str()), "{name}: {lost}");
        }
    }
    let names: Vec<_> = shown.into_iter().map(|(name, _)| name).collect();
    settled(server, fleet, &names).await;
}

fn named(shown: impl Fn() -> Shown) -> Vec<(String, Shown)> {
    (0..ROUNDS).map(|number| (format!("d-{number}"), shown())).collect()
}

#[test]
fn two_keys_for_one_device_by_a_token() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let mut shown = Vec::new();
        for number in 0..ROUNDS {
            let name = format!("d-{number}");
            shown.push((name.clone(), Shown::Token(server.token(&fleet, &name).await)));
        }
        two_keys(&server, &fleet, shown, &["token_bound_to_other_key", "token_used"]).await;

        let fleet = server.fleet(json!({})).await;
        let minted = server.mint(&fleet, json!({"uses": ROUNDS})).await;
        let token = text(&minted, "token");
        let losses = ["token_bound_to_other_key", "name_taken", "token_used"];
        two_keys(&server, &fleet, named(|| Shown::Token(token.clone())), &losses).await;
        let list = server.owner().get(&format!("/v1/fleets/{fleet}/tokens")).await.is(200).json();
        assert_eq!(list["items"][0]["spent"], ROUNDS);
    });
}

#[test]
fn two_keys_for_one_device_by_its_makers_certificate() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let maker = Maker::new("Race");
        group(&server, &fleet, "maker", json!({"ca": maker.root_pem(), "rules": {"mapping": "requested"}})).await;
        let shown = named(|| Shown::Certificate(maker.idevid(&Key::new(), |_| {})));
        // The same hardware may go on with another key; the certificate of the first is revoked then.
        two_keys(&server, &fleet, shown, &["revoked", "superseded"]).await;
        assert_eq!(admitted(&server, &fleet).await, ROUNDS as u64);
    });
}

#[test]
fn two_keys_for_one_device_by_a_derived_key() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "derived-key", json!({"key": STANDARD.encode(GROUP_KEY)})).await;
        two_keys(&server, &fleet, named(|| Shown::Derived), &["revoked", "superseded"]).await;
        assert_eq!(admitted(&server, &fleet).await, ROUNDS as u64);
    });
}

#[test]
fn two_keys_for_one_device_by_a_claim() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "claim", json!({})).await;
        let claim = claim(&server, &fleet).await;
        let losses = ["claim_bound_to_other_key", "reenrollment_denied"];
        two_keys(&server, &fleet, named(|| Shown::Certificate(claim.clone())), &losses).await;
        assert_eq!(admitted(&server, &fleet).await, ROUNDS as u64);
    });
}

#[test]
fn a_whole_batch_at_once_on_one_claim() {
    let devices: usize =
        std::env::var("RACE_DEVICES").map_or(200, |devices| devices.parse().expect("RACE_DEVICES is a number"));
    let quota = devices * 3 / 4;
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        group(&server, &fleet, "claim", json!({"rules": {"quota": quota}})).await;
        let shown = Shown::Certificate(claim(&server, &fleet).await);
        let names: Vec<_> = (0..devices).map(|number| format!("d-{number}")).collect();
        let coming = names.iter().map(|name| arrive(&server, &fleet, &shown, name));
        let outcomes: Vec<_> = stream::iter(coming).buffered(AT_ONCE).collect().await;
        let mut inside = Vec::new();
        for (name, outcome) in names.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => inside.push(name),
                Err(lost) => assert_eq!(lost, "quota_used", "{name}"),
            }
        }
        assert_eq!((inside.len(), admitted(&server, &fleet).await), (quota, quota as u64));
        settled(&server, &fleet, &inside).await;
    });
}

#[test]
fn fifty_on_the_last_use_of_a_token() {
    let server = shared();
    run(async {
        for (uses, before) in [(1, 0), (3, 2)] {
            let fleet = server.fleet(json!({})).await;
            let minted = server.mint(&fleet, json!({"uses": uses})).await;
            let shown = Shown::Token(text(&minted, "token"));
            let mut inside = Vec::new();
            for number in 0..before {
                let name = format!("early-{number}");
                arrive(&server, &fleet, &shown, &name).await.unwrap();
                inside.push(name);
            }
            let names: Vec<_> = (0..50).map(|number| format!("d-{number}")).collect();
            let outcomes = join_all(names.iter().map(|name| arrive(&server, &fleet, &shown, name))).await;
            for (name, outcome) in names.into_iter().zip(outcomes) {
                match outcome {
                    Ok(_) => inside.push(name),
                    Err(lost) => assert!(["token_used", "token_bound_to_other_key"].contains(&lost.as_str()), "{name}: {lost}"),
                }
            }
            assert_eq!(inside.len(), uses);
            let list = server.owner().get(&format!("/v1/fleets/{fleet}/tokens")).await.is(200).json();
            assert_eq!((&list["items"][0]["spent"], &list["items"][0]["remaining"]), (&json!(uses), &json!(0)));
            settled(&server, &fleet, &inside).await;
        }
    });
}

#[test]
fn a_clone_that_renews_beside_its_original() {
    let server = shared();
    run(async {
        let fleet = server.fleet(json!({})).await;
        let mut names = Vec::new();
        for number in 0..ROUNDS {
            let old = Arc::new(Device::good(&server, &fleet, &format!("d-{number}")).await);
            let renewal = async || {
                let key = Key::new();
                let client = server.device_client(Some(&old.identity));
                let answer = client.post(&format!("/v1/fleets/{fleet}/renew"), &json!({"csr": key.csr()})).await;
                if answer.status != 200 {
                    return Err(answer.code());
                }
                let own = server.device_client(Some(&key.identity(&answer.json())));
                let confirmed = own.post(&format!("/v1/fleets/{fleet}/confirm"), &json!({})).await;
                if confirmed.status == 200 { Ok(()) } else { Err(confirmed.code()) }
            };
            let (one, other) = tokio::join!(renewal(), renewal());
            assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
            for lost in [one, other].into_iter().filter_map(Result::err) {
                assert!(["superseded", "revoked"].contains(&lost.as_str()), "{lost}");
            }
            assert_eq!(old.verdict(&server).await, "superseded");
            names.push(old.name.clone());
        }
        settled(&server, &fleet, &names).await;
    });
}
