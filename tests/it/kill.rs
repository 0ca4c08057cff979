//! SIGKILL in the middle of enrollments, confirmations and revocations: nothing acknowledged is lost, nothing is issued twice, the
//! ledger goes on from where it was, and every device's retry succeeds.
//!
//! `KILL_ROUNDS` says how often (20 unless set; `scripts/kill9` takes 1,000).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::harness::server::text;
use crate::harness::{Client, Key, Server, run};

/// Devices that enroll at once in one round.
const DEVICES: usize = 12;

/// Within what time the devices begin, and the kill comes, in milliseconds.
const LONGEST: u16 = 120;

/// A device, and what the server has acknowledged to it.
struct Device {
    name: String,
    token: String,
    key: Arc<Key>,
    /// The fingerprint that it was answered with.
    issued: Option<String>,
    confirmed: bool,
    revoked: bool,
}

#[derive(Default)]
struct Tally {
    issued: usize,
    unanswered: usize,
    confirmed: usize,
    revoked: usize,
    replayed: usize,
}

#[test]
fn kill_loses_nothing() {
    let rounds = match std::env::var("KILL_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("KILL_ROUNDS is a number"),
        Err(_) => 20,
    };
    run(kill(rounds));
}

async fn kill(rounds: usize) {
    let began = Instant::now();
    let mut server = Server::start(&[]);
    let fleet = server.fleet(json!({})).await;
    let state = server.scratch("fleet.state");
    let system = server.scratch("system.state");
    let mut known: BTreeMap<String, Device> = BTreeMap::new();
    let mut tally = Tally::default();
    for round in 0..rounds {
        let mut devices = Vec::new();
        for number in 0..DEVICES {
            let name = format!("r{round}-d{number}");
            let token = server.token(&fleet, &name).await;
            devices.push(Device { name, token, key: Arc::new(Key::new()), issued: None, confirmed: false, revoked: false });
        }
        // The checkpoint of before: what comes after the kill must have grown from it.
        verify(&server, &fleet, &state);
        verify(&server, "system", &system);
        let victim = known.values().find(|device| device.confirmed && !device.revoked).map(|device| device.name.clone());
        let revocation = victim.clone().map(|name| tokio::spawn(revoke(server.owner().clone(), fleet.clone(), name)));
        let begun = Arc::new(AtomicUsize::new(0));
        let client = server.device_client(None);
        let tasks: Vec<_> = devices
            .into_iter()
            .map(|device| tokio::spawn(live(client.clone(), fleet.clone(), device, begun.clone())))
            .collect();
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(up_to(LONGEST))).await;
        server.kill_and_start();
        for task in tasks {
            let device = task.await.expect("no panic");
            tally.issued += usize::from(device.issued.is_some());
            tally.unanswered += usize::from(device.issued.is_none());
            tally.confirmed += usize::from(device.confirmed);
            known.insert(device.name.clone(), device);
        }
        if let (Some(name), Some(revocation)) = (victim, revocation)
            && revocation.await.expect("no panic")
        {
            known.get_mut(&name).expect("known").revoked = true;
            tally.revoked += 1;
        }
        verify(&server, &fleet, &state);
        verify(&server, "system", &system);
        check_round(&server, &fleet, &format!("r{round}-"), &mut known, &mut tally).await;
        // All of it, from time to time: it grows.
        if round % 20 == 19 || round + 1 == rounds {
            check_all(&server, &fleet, &known).await;
            eprintln!(
                "{} rounds in {} s: {} issued, {} unanswered of which {} were issued all the same, {} confirmed, {} revoked",
                round + 1,
                began.elapsed().as_secs(),
                tally.issued,
                tally.unanswered,
                tally.replayed,
                tally.confirmed,
                tally.revoked
            );
        }
    }
    if rounds >= 20 {
        assert!(tally.issued > 0 && tally.unanswered > 0, "the kills came all too early or all too late");
    }
}

/// What a device does, until the server is gone.
async fn live(client: Client, fleet: String, mut device: Device, begun: Arc<AtomicUsize>) -> Device {
    begun.fetch_add(1, Ordering::Relaxed);
    // Spread out, so that the kill meets some before, some in the middle and some after.
    tokio::time::sleep(Duration::from_millis(up_to(LONGEST))).await;
    let Ok(answer) = enroll(&client, &fleet, &device).await else { return device };
    let fingerprint = text(&answer, "fingerprint");
    device.issued = Some(fingerprint.clone());
    let headers = [("content-type", "application/json"), ("authorization", &*format!("Bearer {}", device.token))];
    let body = json!({"fingerprint": fingerprint}).to_string().into_bytes();
    let confirmed = client.try_send("POST", &format!("/v1/fleets/{fleet}/confirm"), &headers, Some(body)).await;
    device.confirmed = confirmed.is_ok_and(|answer| answer.status == 200);
    device
}

/// The answer to an enrollment, or what was in the way: a refusal is none of that.
async fn enroll(client: &Client, fleet: &str, device: &Device) -> Result<Value, String> {
    let headers = [("content-type", "application/json"), ("authorization", &*format!("Bearer {}", device.token))];
    let body = json!({"csr": device.key.csr()}).to_string().into_bytes();
    let answer = client.try_send("POST", &format!("/v1/fleets/{fleet}/enroll"), &headers, Some(body)).await?;
    match answer.status {
        200 => Ok(answer.json()),
        503 => Err(answer.text()),
        status => panic!("{}: {status} {}", device.name, answer.text()),
    }
}

/// Whether the revocation was acknowledged.
async fn revoke(owner: Client, fleet: String, name: String) -> bool {
    let headers = [("content-type", "application/json")];
    let body = json!({"reason": "keyCompromise"}).to_string().into_bytes();
    let path = format!("/v1/fleets/{fleet}/devices/{name}/revoke");
    owner.try_send("POST", &path, &headers, Some(body)).await.is_ok_and(|answer| answer.status == 200)
}

/// What was acknowledged in this round is there, and every device's retry succeeds: with the certificate that it was given.
async fn check_round(server: &Server, fleet: &str, prefix: &str, known: &mut BTreeMap<String, Device>, tally: &mut Tally) {
    let client = server.device_client(None);
    let before = certificates(server, fleet).await;
    for device in known.values_mut().filter(|device| device.name.starts_with(prefix)) {
        let identity = format!("/{}", device.name);
        let listed: Vec<_> =
            before.iter().filter(|found| found["identity"].as_str().is_some_and(|found| found.ends_with(&identity))).collect();
        match &device.issued {
            Some(fingerprint) => {
                assert_eq!(listed.len(), 1, "{} was answered and has {} certificates", device.name, listed.len());
                assert_eq!(&text(listed[0], "fingerprint"), fingerprint, "{}", device.name);
                let standing = text(listed[0], "standing");
                assert!(!device.confirmed || standing == "good", "{} was confirmed and is {standing}", device.name);
            }
            None => {
                assert!(listed.len() <= 1, "{} has {} certificates", device.name, listed.len());
                tally.replayed += listed.len();
            }
        }
        let answer = enroll(&client, fleet, device).await.unwrap_or_else(|error| panic!("{}'s retry: {error}", device.name));
        let fingerprint = text(&answer, "fingerprint");
        if let Some(listed) = listed.first() {
            assert_eq!(fingerprint, text(listed, "fingerprint"), "{}'s retry got another certificate", device.name);
        }
        device.issued = Some(fingerprint);
    }
}

/// All certificates there are, the OCSP responder's among them: one a device, no serial and no index twice, and the standings that were acknowledged.
async fn check_all(server: &Server, fleet: &str, known: &BTreeMap<String, Device>) {
    let all = certificates(server, fleet).await;
    let serials: BTreeSet<_> = all.iter().map(|found| text(found, "serial")).collect();
    assert_eq!(serials.len(), all.len(), "a serial was issued twice");
    // Serial: 01, epoch and index of four octets each, eight random octets.
    let indices: BTreeSet<_> = serials.iter().map(|serial| serial[2..18].to_owned()).collect();
    assert_eq!(indices.len(), all.len(), "an index was issued twice");
    let of_devices: Vec<_> = all.iter().filter(|found| found["kind"] == "device").collect();
    assert_eq!(of_devices.len(), known.len(), "as many certificates as devices");
    for found in of_devices {
        let name = text(found, "identity").rsplit('/').next().expect("a name").to_owned();
        let device = &known[&name];
        assert_eq!(Some(text(found, "fingerprint")), device.issued, "{name}");
        let standing = text(found, "standing");
        assert!(!device.revoked || standing == "revoked", "{name} was revoked and is {standing}");
        assert!(!device.confirmed || device.revoked || standing != "unconfirmed", "{name} was confirmed and is {standing}");
    }
}

/// All certificates of a fleet's devices.
pub async fn certificates(server: &Server, fleet: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page =
            server.owner().get(&format!("/v1/certificates?fleet={fleet}&kind=device&limit=500{cursor}")).await.is(200).json();
        all.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// The operators' own tool, with what it saw before.
pub fn verify(server: &Server, ledger: &str, state: &Path) {
    let operator = server.data().join("operator");
    let output = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
        .arg("--operator")
        .arg(operator)
        .args(["ledger", "verify", ledger, "--state"])
        .arg(state)
        .output()
        .expect("fleetmark runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ledger {ledger}: {}{said}", String::from_utf8_lossy(&output.stdout));
}

fn up_to(most: u16) -> u64 {
    let mut octets = [0; 2];
    SystemRandom::new().fill(&mut octets).expect("random octets");
    u64::from(u16::from_be_bytes(octets) % most)
}
