use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::web::Bytes;
use fleetmark_domain::LedgerName;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use super::follower::Follower;
use super::*;
use crate::http::testing::Installation;
use crate::pki::issue::facts;
use crate::registrar::caller::Peer;
use crate::registrar::feed::{Missed, RESUME_MOST};

#[test]
fn a_bundle_is_lengths_and_items() {
    let long = vec![7; 258];
    let octets = bundle([&b"ab"[..], b"", &long]).unwrap();
    assert_eq!(octets, [&[0, 2, b'a', b'b', 0, 0, 1, 2][..], &long].concat());
    assert_eq!(bundle([]).unwrap(), b"");
    assert_eq!(bundle([&vec![0; 65_536][..]]), Err(Refusal::StorageDamaged));
}

fn default() -> LedgerName {
    "default".parse().unwrap()
}

/// A follower of both ledgers, whose connection takes one event at a time.
fn follow(stage: &Installation, since: BTreeMap<LedgerName, u64>) -> (Receiver<Bytes>, JoinHandle<()>) {
    let der = CertificateDer::from_pem_file(stage.path("alice.pem")).unwrap();
    let peer = Peer { authority: stage.operator.certificate.authority, facts: Arc::new(facts(&der).unwrap()) };
    let (events, received) = channel(1);
    let ledgers = [LedgerName::System, default()].into();
    let follower = Follower::new(Arc::new(stage.state.clone()), peer, stage.operator.clone(), ledgers, false, since, events);
    (received, tokio::spawn(follower.run()))
}

/// An event's id and name, and its ledger.
async fn next(events: &mut Receiver<Bytes>) -> Option<(Option<String>, String, String)> {
    let event = String::from_utf8(events.recv().await?.to_vec()).unwrap();
    assert!(event.ends_with("\n\n") && !event.trim_end().contains("\n\n"), "{event}");
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let data: serde_json::Value = serde_json::from_str(&field("data: ").unwrap()).unwrap();
    Some((field("id: "), field("event: ").unwrap(), data["ledger"].as_str().unwrap().to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_far_behind_is_told_to_fetch_and_then_goes_on() {
    let stage = Installation::open(0).await;
    let (mut events, task) = follow(&stage, BTreeMap::new());
    let first = next(&mut events).await.unwrap();
    assert_eq!((first.1.as_str(), first.2.as_str()), ("checkpoint", "system"));
    let publisher = stage.registrar.publisher();
    let sizes = [LedgerName::System, default()].map(|ledger| publisher.newest(&ledger).unwrap().head.size);
    let id = format!("system@{},default@{}", sizes[0], sizes[1]);
    assert_eq!(first.0.as_deref(), Some(id.as_str()));
    // More than are kept, while its connection takes nothing.
    for _ in 0..600 {
        publisher.heartbeat(stage.state.clock.now());
    }
    let mut told = Vec::new();
    while told.len() < 4 {
        let event = next(&mut events).await.unwrap();
        if !told.is_empty() || event.1 == "resync" {
            told.push(event);
        }
    }
    let told: Vec<_> = told.iter().map(|(id, name, ledger)| (id.as_deref(), name.as_str(), ledger.as_str())).collect();
    let id = Some(id.as_str());
    let expected =
        [(None, "resync", "system"), (id, "checkpoint", "system"), (None, "resync", "default"), (id, "checkpoint", "default")];
    assert_eq!(told, expected);
    publisher.heartbeat(stage.state.clock.now());
    assert_eq!(next(&mut events).await.unwrap().1, "checkpoint");
    drop(events);
    task.await.unwrap();
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_stream_that_nobody_reads() {
    let stage = Installation::open(0).await;
    // It is ahead of both ledgers: told to fetch, then the checkpoints.
    let (mut events, task) = follow(&stage, [(LedgerName::System, u64::MAX), (default(), 1_000_000)].into());
    assert_eq!(next(&mut events).await.unwrap().1, "resync");
    stage.running.stop().await;
    task.await.unwrap();
    while next(&mut events).await.is_some() {}
    let refused = stage.state.followers.admit(1).err();
    assert_eq!(refused, Some(Refusal::Stopping));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_looked_through_within_bounds() {
    let stage = Installation::open(0).await;
    let size = stage.registrar.publisher().newest(&LedgerName::System).unwrap().head.size;
    let missed = |from, size| stage.registrar.missed(&LedgerName::System, from, size);
    assert!(matches!(missed(0, size).await.unwrap(), Missed::Entries(urgent) if urgent.is_empty()));
    assert!(matches!(missed(0, RESUME_MOST).await.unwrap(), Missed::Entries(_)));
    assert!(matches!(missed(0, RESUME_MOST + 1).await.unwrap(), Missed::TooMuch));
    assert!(matches!(missed(size + 1, size).await.unwrap(), Missed::TooMuch));
    stage.running.stop().await;
}
