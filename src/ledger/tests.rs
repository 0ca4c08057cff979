use fleetmark_ledger::merkle::{Frontier, leaf_hash};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::sync::broadcast::error::TryRecvError;

use super::*;
use crate::telemetry::clock::SystemClock;

fn publisher(sizes: &[(LedgerName, u64)]) -> Publisher {
    let publisher = Publisher::new(Arc::new(SystemClock));
    for (ledger, size) in sizes {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = LedgerKey::from_pkcs8(&format!("fleet.test/ledger/{ledger}"), pkcs8.as_ref()).unwrap();
        publisher.add(ledger.clone(), key, Some(head(*size)));
    }
    publisher
}

fn head(size: u64) -> Head {
    let mut frontier = Frontier::default();
    (0..size).for_each(|leaf| frontier.append(leaf_hash(&leaf.to_be_bytes()), |_, _| {}));
    frontier.head()
}

fn stored(position: u64) -> StoredEntry {
    StoredEntry { position, entry: position.to_be_bytes().to_vec(), details: Some(vec![1]) }
}

fn fleet() -> LedgerName {
    "alpha".parse().unwrap()
}

/// What was told: an entry's position, or a checkpoint's size.
fn told(news: &mut broadcast::Receiver<News>) -> Vec<(LedgerName, &'static str, u64)> {
    let mut told = Vec::new();
    while let Ok(news) = news.try_recv() {
        told.push(match news {
            News::Urgent { ledger, position, entry } => {
                assert_eq!(*entry, position.to_be_bytes());
                (ledger, "entry", position)
            }
            News::Checkpoint { ledger, size, note } => {
                assert!(note.lines().nth(1) == Some(size.to_string().as_str()), "{note}");
                (ledger, "checkpoint", size)
            }
        });
    }
    told
}

#[test]
fn urgent_entries_are_told_at_once_before_their_checkpoint_and_the_rest_when_it_is_time() {
    let publisher = publisher(&[(LedgerName::System, 2), (fleet(), 3)]);
    let (heads, mut news) = publisher.follow(&[LedgerName::System, fleet(), "beta".parse().unwrap()]);
    let sizes: Vec<_> = heads.iter().map(|(ledger, newest)| (ledger.clone(), newest.head.size)).collect();
    assert_eq!(sizes, [(LedgerName::System, 2), (fleet(), 3)]);
    publisher.announce();
    told(&mut news);

    publisher.committed(&fleet(), &head(5), &[]);
    publisher.committed(&fleet(), &head(6), &[]);
    assert_eq!(told(&mut news), []);
    publisher.announce();
    assert_eq!(told(&mut news), [(fleet(), "checkpoint", 6)]);
    publisher.announce();
    assert_eq!(told(&mut news), []);

    publisher.committed(&fleet(), &head(10), &[stored(7), stored(9)]);
    assert_eq!(told(&mut news), [(fleet(), "entry", 7), (fleet(), "entry", 9), (fleet(), "checkpoint", 10)]);
    publisher.announce();
    assert_eq!(told(&mut news), []);
    // A step back is neither signed nor told.
    publisher.committed(&fleet(), &head(4), &[stored(3)]);
    publisher.announce();
    assert_eq!((told(&mut news), publisher.newest(&fleet()).unwrap().head.size), (vec![], 10));

    publisher.heartbeat(Timestamp(9));
    assert_eq!(told(&mut news), [(LedgerName::System, "checkpoint", 2), (fleet(), "checkpoint", 10)]);
}

#[test]
fn a_receiver_that_does_not_take_its_news_keeps_nobody_waiting() {
    let publisher = publisher(&[(fleet(), 1)]);
    let (_, mut slow) = publisher.follow(&[fleet()]);
    let kept = u64::try_from(NEWS_KEPT).unwrap();
    let tree = head(2);
    let urgent: Vec<_> = (0..2 * kept).map(stored).collect();
    publisher.committed(&fleet(), &tree, &urgent);
    assert!(matches!(slow.try_recv(), Err(TryRecvError::Lagged(missed)) if missed > kept));
    let (_, mut quick) = publisher.follow(&[fleet()]);
    assert_eq!(told(&mut quick), []);
}

#[test]
fn times_do_not_go_back_where_the_clock_is_set_back_by_little() {
    let publisher = publisher(&[(fleet(), 1)]);
    let start = publisher.newest(&fleet()).unwrap().at;
    let at = |publisher: &Publisher| publisher.newest(&fleet()).unwrap().at - Duration::from_secs(start.0.unsigned_abs());
    let beat = |seconds: i64| {
        publisher.heartbeat(Timestamp(start.0 + seconds));
        at(&publisher).0
    };
    assert_eq!([beat(1_000), beat(800), beat(805)], [1_000, 1_001, 1_002]);
    // Later than the last one until the clock caught up, and no further ahead than gateways take.
    assert_eq!([beat(1_002), beat(1_007), beat(768), beat(768)], [1_002, 1_007, 1_008, 1_008]);
    // Back by more: times go on as the clock is.
    assert_eq!([beat(700), beat(705)], [700, 705]);
    let signed = publisher.verifier(&fleet()).unwrap().open(&publisher.checkpoint(&fleet()).unwrap()).unwrap();
    assert_eq!(signed.at, start + Duration::from_secs(705));
}
