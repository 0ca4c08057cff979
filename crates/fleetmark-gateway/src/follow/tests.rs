//! The follower beside a server that can misbehave.

mod changes;
mod fake;
mod faults;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetmark_device::{DeviceTime, Roots};
use fleetmark_domain::{Epoch, FleetName, Index, LedgerName, RevocationReason, Serial, Standing};
use fleetmark_ledger::entry::{Event, IndexSet};
use tokio::task::JoinHandle;

use super::*;
use crate::clock::SystemClock;
use crate::knowledge::{Change, Sighting};
use fake::{Fake, Operator, Reply};

const REVOKED: Standing = Standing::Revoked(RevocationReason::Unspecified);

/// A running follower.
struct Running {
    knowledge: Knowledge,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn setup(dir: &Path, fake: &Fake) -> Setup {
    Setup {
        dir: dir.to_owned(),
        servers: vec![fake.url()],
        fleets: Vec::new(),
        roots: watch::Sender::new(Roots::new(vec![fake.root()]).unwrap()).subscribe(),
        time: DeviceTime::new(Arc::new(fleetmark_device::SystemClock::default()), None),
        identity: Arc::new(fake::NoIdentity),
        clock: Arc::new(SystemClock),
    }
}

fn follow(dir: &Path, fake: &Fake) -> Running {
    run(setup(dir, fake))
}

/// A follower that has all of a furnished server's ledgers, an operator among their subjects.
async fn follow_with_operator(dir: &Path) -> (Fake, Operator, Running) {
    let fake = Fake::start().await;
    fake.furnish();
    let operator = fake.enroll_operator();
    fake.tell_all();
    let running = follow(dir, &fake);
    until("all is here", || standing(&running.knowledge, 1).is_some() && running.knowledge.authorities().len() == 2).await;
    (fake, operator, running)
}

fn run(setup: Setup) -> Running {
    let follower = Follower::open(setup).unwrap();
    let knowledge = follower.knowledge();
    Running { knowledge, task: tokio::spawn(async move { follower.run().await }) }
}

/// Waits until it is so; a test that waits in vain fails.
async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..600 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("in vain: {what}");
}

fn fleet() -> LedgerName {
    "default".parse().unwrap()
}

fn standing(knowledge: &Knowledge, index: u32) -> Option<Standing> {
    knowledge.certificate(Epoch(1), Index(index)).map(|known| known.standing)
}

fn position(knowledge: &Knowledge) -> u64 {
    knowledge.freshness(&fleet(), std::time::Instant::now()).map_or(0, |freshness| freshness.position)
}

fn is_broken(knowledge: &Knowledge) -> bool {
    knowledge.freshness(&fleet(), std::time::Instant::now()).is_some_and(|freshness| freshness.broken)
}

/// Whether there is evidence of this kind.
fn evidence(dir: &Path, kind: &str) -> bool {
    let names = std::fs::read_dir(dir.join("evidence")).into_iter().flatten().flatten();
    names.map(|file| file.file_name().into_string().unwrap()).any(|name| name.contains(kind))
}

fn revoked(index: u32) -> Event {
    let certificates = IndexSet::from_certificates([(Epoch(1), Index(index))]);
    Event::StandingChanged { standing: REVOKED, certificates }
}

#[tokio::test]
async fn all_that_is_known_comes_from_the_ledgers_and_outlives_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    let knowledge = running.knowledge.clone();
    let full = |knowledge: &Knowledge| {
        standing(knowledge, 1) == Some(Standing::Good)
            && !knowledge.attributes(&fleet(), 8).is_empty()
            && knowledge.authorities().len() == 1
            && knowledge.policies(Some(&"default".parse::<FleetName>().unwrap())).is_some()
    };
    until("everything is here", || full(&knowledge)).await;
    let known = knowledge.certificate(Epoch(1), Index(1)).unwrap();
    assert_eq!((known.subject, known.ledger.clone()), (8, fleet()));
    assert_eq!(known.authority.unwrap().id, 2);
    assert_eq!(knowledge.attributes(&fleet(), 8).get("group").map(String::as_str), Some("a"));
    assert_eq!(knowledge.ledgers(), [LedgerName::System, fleet()]);
    assert!(!knowledge.freshness(&fleet(), std::time::Instant::now()).unwrap().is_stale());
    // The attributes are the last to come to disk.
    let log = dir.path().join("ledgers/default");
    until("attributes are on disk", || reads(&log, "group")).await;
    drop(running);
    fake.stop();
    let follower = Follower::open(setup(dir.path(), &fake)).unwrap();
    let knowledge = follower.knowledge();
    assert!(full(&knowledge), "without the server");
    let freshness = knowledge.freshness(&fleet(), std::time::Instant::now()).unwrap();
    assert!(!freshness.broken && !freshness.is_stale());
}

fn reads(dir: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read(file.path()).ok()).any(|octets| String::from_utf8_lossy(&octets).contains(text))
}

#[tokio::test]
async fn bad_news_counts_before_its_proof_and_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 0) == Some(Standing::Good)).await;
    let mut changes = running.knowledge.changes();
    let before = position(&running.knowledge);
    fake.add("default", revoked(0), None);
    fake.push("default", before);
    until("it is revoked", || standing(&running.knowledge, 0) == Some(REVOKED)).await;
    assert_eq!(position(&running.knowledge), before, "not proved yet");
    fake.tell("default");
    until("it is proved", || position(&running.knowledge) == before + 1).await;
    assert_eq!(standing(&running.knowledge, 0), Some(REVOKED));
    let told =
        std::iter::from_fn(|| changes.try_recv().ok()).filter(|change| matches!(change, Change::Worsened { .. })).count();
    assert_eq!(told, 1);
    assert!(!evidence(dir.path(), "pushed_entry_differs"));
}

#[tokio::test]
async fn what_was_pushed_and_is_not_on_the_ledger_is_taken_back_with_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 0) == Some(Standing::Good)).await;
    fake.push_event("default", position(&running.knowledge), revoked(0));
    until("it is revoked", || standing(&running.knowledge, 0) == Some(REVOKED)).await;
    fake.add("default", Event::FleetChanged { version: 2 }, None);
    fake.tell("default");
    until("it is taken back", || standing(&running.knowledge, 0) == Some(Standing::Good)).await;
    until("evidence is kept", || evidence(dir.path(), "pushed_entry_differs")).await;
}

#[tokio::test]
async fn a_fork_and_a_step_back_break_the_ledger_for_good() {
    for kind in ["fork", "rollback"] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        fake.furnish();
        fake.tell_all();
        let running = follow(dir.path(), &fake);
        until("the fleet is here", || standing(&running.knowledge, 0).is_some()).await;
        let honest = fake.entries("default");
        fake.truncate("default", honest.len() - 1);
        if kind == "fork" {
            fake.add("default", Event::FleetChanged { version: 99 }, None);
        }
        fake.pass(30);
        fake.tell("default");
        until(kind, || is_broken(&running.knowledge)).await;
        assert!(evidence(dir.path(), kind));
        // Even the honest ledger is not believed again, nor after a restart.
        fake.set_entries("default", honest);
        fake.add("default", Event::FleetChanged { version: 2 }, None);
        drop(running);
        let running = follow(dir.path(), &fake);
        assert!(is_broken(&running.knowledge));
        fake.tell_all();
        until("the system ledger is fresh", || running.knowledge.ledgers().len() == 2).await;
        running.knowledge.refresh(Duration::from_secs(20)).await;
        assert!(is_broken(&running.knowledge));
    }
}

#[tokio::test]
async fn tampered_answers_change_nothing_and_are_overcome() {
    for (path, alarm) in [
        ("tile/entries", "root_mismatch"),
        ("tile/details", "details_differ"),
        ("policies/1", "policy_differs"),
        ("/v1/authorities", "authority_differs"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        fake.furnish();
        fake.tell_all();
        fake.tamper(path, |mut octets| {
            // The last octet that is not the length of an empty one.
            if let Some(last) = octets.iter_mut().rev().find(|octet| **octet != 0) {
                *last ^= 1;
            }
            Reply::Ok(octets)
        });
        let running = follow(dir.path(), &fake);
        until(alarm, || evidence(dir.path(), alarm)).await;
        let fleet_name: FleetName = "default".parse().unwrap();
        let seen = |knowledge: &Knowledge| match alarm {
            "root_mismatch" => standing(knowledge, 0).is_some(),
            "details_differ" => !knowledge.attributes(&fleet(), 8).is_empty(),
            "policy_differs" => knowledge.policies(Some(&fleet_name)).is_some(),
            _ => !knowledge.authorities().is_empty(),
        };
        assert!(!seen(&running.knowledge), "{alarm}");
        fake.honest();
        fake.pass(1);
        fake.tell_all();
        until("honest again", || {
            fake.tell_all();
            seen(&running.knowledge)
        })
        .await;
        assert!(!is_broken(&running.knowledge));
    }
}

#[tokio::test]
async fn truncated_and_malformed_bundles_are_refused() {
    for cut in [1, 2, 40] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        fake.furnish();
        fake.tell_all();
        fake.tamper("tile/entries", move |mut octets| {
            octets.truncate(octets.len() - cut);
            Reply::Ok(octets)
        });
        let running = follow(dir.path(), &fake);
        until("an alarm", || evidence(dir.path(), "bundle_refused")).await;
        assert_eq!(position(&running.knowledge), 0);
        assert!(is_broken(&running.knowledge), "nothing is verified yet");
    }
}

#[tokio::test]
async fn another_key_is_refused_and_the_pinned_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    let pins = pin(&setup(dir.path(), &fake)).await.unwrap();
    let honest = fake.entries("default");
    fake.rekey("default");
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the checkpoint is refused", || evidence(dir.path(), "checkpoint_refused")).await;
    assert_eq!(position(&running.knowledge), 0);
    assert_eq!(Pins::load(dir.path()).unwrap().ledgers, pins.ledgers);
    assert_eq!(fake.entries("default"), honest);
}

#[tokio::test]
async fn a_time_in_the_future_and_a_replayed_checkpoint_make_nothing_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 0).is_some()).await;
    let old = fake.note("default", 0);
    fake.tell_note("default", &fake.note("default", 100_000));
    until("it is refused", || evidence(dir.path(), "far_future")).await;
    // The signed time in force is still the old one: a younger checkpoint counts, the same one again does not.
    let age = |knowledge: &Knowledge| knowledge.freshness(&fleet(), std::time::Instant::now()).unwrap().age;
    // What is applied is there a moment before its checkpoint counts.
    until("a checkpoint counts", || age(&running.knowledge) < Duration::MAX).await;
    let before = age(&running.knowledge);
    fake.tell_note("default", &old);
    fake.add("system", Event::FleetChanged { version: 9 }, None);
    fake.tell("system");
    until("the feed went on", || {
        fake.tell("system");
        running.knowledge.freshness(&LedgerName::System, std::time::Instant::now()).unwrap().position == 5
    })
    .await;
    assert!(age(&running.knowledge) >= before);
}

#[tokio::test]
async fn a_fetch_that_is_waited_for_brings_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 0).is_some()).await;
    fake.issue(2, 9, Standing::Unconfirmed);
    fake.pass(1);
    assert_eq!(standing(&running.knowledge, 2), None);
    running.knowledge.refresh(Duration::from_secs(20)).await;
    assert_eq!(standing(&running.knowledge, 2), Some(Standing::Unconfirmed));
}

#[tokio::test]
async fn sightings_are_reported_until_the_server_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    fake.tamper("sightings", |_| Reply::Status(503));
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 0).is_some()).await;
    let sighting = Sighting { serial: Serial::new(Epoch(1), Index(0), [7; 8]), fingerprint: [1; 32] };
    running.knowledge.saw(sighting);
    running.knowledge.saw(sighting);
    until("it was tried", || fake.asked("sightings") > 0).await;
    assert!(fake.reports().is_empty());
    fake.honest();
    until("it is reported", || !fake.reports().is_empty()).await;
    let report: serde_json::Value = serde_json::from_slice(&fake.reports()[0]).unwrap();
    assert_eq!(report["sightings"].as_array().unwrap().len(), 1);
    assert_eq!(report["sightings"][0]["serial"], sighting.serial.to_string());
}

#[tokio::test]
async fn a_cold_start_takes_a_snapshot_that_the_ledger_vouches_for() {
    for (what, taken) in [("honest", true), ("flipped", false), ("not vouched for", false)] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        fake.furnish();
        (3..700).for_each(|index| fake.issue(index, u64::from(index), Standing::Good));
        fake.snapshot(what == "not vouched for");
        fake.add("default", revoked(5), None);
        fake.tell_all();
        if what == "flipped" {
            fake.tamper("snapshot", |mut octets| {
                let middle = octets.len() / 2;
                octets[middle] ^= 1;
                Reply::Ok(octets)
            });
        }
        let running = follow(dir.path(), &fake);
        if taken {
            until("the fleet is here", || standing(&running.knowledge, 5) == Some(REVOKED)).await;
            assert_eq!(standing(&running.knowledge, 699), Some(Standing::Good));
            assert_eq!(running.knowledge.attributes(&fleet(), 8).get("group").map(String::as_str), Some("a"));
            assert_eq!(fake.asked("tile/entries/000"), 1, "of system alone: the snapshot spared the rest");
        } else {
            let refused = || ["snapshot_refused", "root_mismatch"].iter().any(|kind| evidence(dir.path(), kind));
            until("it is refused", refused).await;
            assert_eq!(position(&running.knowledge), 0, "{what}");
        }
    }
}

#[tokio::test]
async fn pages_of_attributes_that_do_not_end_are_given_up_and_empty_ones_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    (3..700).for_each(|index| fake.issue(index, u64::from(index), Standing::Good));
    fake.snapshot(false);
    let pages = AtomicU64::new(1);
    fake.tamper("/attributes", move |honest| match pages.fetch_add(1, Ordering::SeqCst) {
        page @ ..50 => Reply::Ok(format!(r#"{{"subjects": [], "next": {page}}}"#).into_bytes()),
        _ => Reply::Ok(honest),
    });
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 699).is_some()).await;
    assert_eq!(running.knowledge.attributes(&fleet(), 8).get("group").map(String::as_str), Some("a"));
    assert_eq!((fake.asked("/snapshot"), fake.asked("/attributes")), (3, 50));
}

#[tokio::test]
async fn a_long_way_without_a_snapshot_is_shown_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    (2..800).for_each(|index| fake.issue(index, u64::from(index), Standing::Good));
    fake.tamper("tile/entries/003", |octets| Reply::Ok([octets, vec![0]].concat()));
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the last tile is refused", || evidence(dir.path(), "bundle_refused")).await;
    assert_eq!(position(&running.knowledge), 0);
    fake.honest();
    until("the fleet is here", || standing(&running.knowledge, 799).is_some()).await;
    until("attributes are here", || !running.knowledge.attributes(&fleet(), 8).is_empty()).await;
    until("it is on disk", || dir.path().join("ledgers/default/head").exists()).await;
    drop(running);
    let again = Follower::open(setup(dir.path(), &fake)).unwrap();
    assert_eq!(standing(&again.knowledge(), 799), Some(Standing::Good), "from the snapshot on disk");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_stop_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ledgers"), b"no directory").unwrap();
    std::fs::write(dir.path().join("evidence"), b"no directory").unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 1) == Some(Standing::Good)).await;
    fake.add("default", revoked(1), None);
    fake.tell("default");
    until("it is revoked", || standing(&running.knowledge, 1) == Some(REVOKED)).await;
    fake.truncate("default", 4);
    fake.pass(30);
    fake.tell("default");
    until("it is broken all the same", || is_broken(&running.knowledge)).await;
}

#[tokio::test]
async fn files_that_differ_are_set_aside_and_all_is_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    let head = dir.path().join("ledgers/default/head");
    until("it is on disk", || head.exists()).await;
    drop(running);
    std::fs::write(&head, b"{}").unwrap();
    let running = follow(dir.path(), &fake);
    assert!(evidence(dir.path(), "disk_differs"));
    assert_eq!(position(&running.knowledge), 0);
    until("the fleet is here", || standing(&running.knowledge, 1) == Some(Standing::Good)).await;
}

#[tokio::test]
async fn the_feed_is_resumed_where_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 0).is_some()).await;
    fake.cut_feeds();
    until("the follower is back", || fake.asked("/v1/feed") == 2).await;
    assert_eq!(fake.last_ids(), [String::new(), "default@1,system@1".to_owned()]);
    fake.add("default", revoked(0), None);
    fake.pass(1);
    until("news comes again", || {
        fake.tell("default");
        standing(&running.knowledge, 0) == Some(REVOKED)
    })
    .await;
}

#[tokio::test]
async fn a_restored_server_is_believed_on_an_operators_word_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, operator, running) = follow_with_operator(dir.path()).await;
    let knowledge = running.knowledge.clone();
    let honest = fake.note("default", 0);
    fake.truncate("default", fake.entries("default").len() - 1);
    fake.pass(30);
    fake.tell("default");
    until("it is broken", || is_broken(&knowledge)).await;
    let note = fake.note("default", 0);
    let word = operator.word(&note, 1_800_000_100);
    let forged = String::from_utf8(word.clone()).unwrap().replace("1800000100", "1800000101").into_bytes();
    let stranger = Fake::start().await.enroll_nobody().word(&note, 1_800_000_100);
    let refused = |what: &str| format!("{what} is refused");
    for (what, word) in [
        ("a changed statement", forged),
        ("a stranger's word", stranger),
        ("an old word", operator.word(&note, 1_800_000_000)),
        ("a word about another ledger", operator.word(&fake.note("system", 0), 1_800_000_100)),
    ] {
        restore::accept_restored(dir.path(), &fleet(), &word).unwrap();
        let path = dir.path().join("accept-restore/default.json");
        until(&refused(what), || !path.exists()).await;
        assert!(is_broken(&knowledge) && position(&knowledge) > 0, "{what}");
    }
    assert!(evidence(dir.path(), "restore_refused"));
    restore::accept_restored(dir.path(), &fleet(), &word).unwrap();
    until("it is followed anew", || {
        fake.tell("default");
        standing(&knowledge, 0) == Some(Standing::Good) && !is_broken(&knowledge)
    })
    .await;
    assert_eq!(standing(&knowledge, 1), None, "issued after the backup");
    assert!(evidence(dir.path(), "before_restore") && honest != note);
}

#[tokio::test]
async fn a_ledger_below_the_head_that_a_word_names_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, operator, running) = follow_with_operator(dir.path()).await;
    fake.truncate("default", fake.entries("default").len() - 1);
    fake.add("default", revoked(0), None);
    fake.pass(30);
    fake.tell("default");
    until("it is broken", || is_broken(&running.knowledge)).await;
    let honest = fake.entries("default");
    let word = operator.word(&fake.note("default", 0), 1_800_000_040);
    restore::accept_restored(dir.path(), &fleet(), &word).unwrap();
    let ledger = dir.path().join("ledgers/default");
    until("it is given up", || position(&running.knowledge) == 0 && reads(&ledger, "fleetmark-accept-restore")).await;
    drop(running);
    // Whoever answers leaves out what was revoked last, after a restart besides.
    fake.truncate("default", honest.len() - 1);
    fake.pass(30);
    fake.tell("default");
    let running = follow(dir.path(), &fake);
    until("it is a step back", || ledger.join("broken").exists()).await;
    assert_eq!((standing(&running.knowledge, 0), position(&running.knowledge)), (None, 0));
    drop(running);
    // The ledger is all there again.
    fake.set_entries("default", honest);
    let word = operator.word(&fake.note("default", 0), 1_800_000_080);
    restore::accept_restored(dir.path(), &fleet(), &word).unwrap();
    let running = follow(dir.path(), &fake);
    until("it is followed anew", || {
        fake.tell("default");
        standing(&running.knowledge, 0) == Some(REVOKED) && !is_broken(&running.knowledge)
    })
    .await;
}

#[tokio::test]
async fn a_restored_ledger_that_has_outgrown_what_was_known_is_believed_on_a_word_too() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, operator, running) = follow_with_operator(dir.path()).await;
    let knowledge = running.knowledge.clone();
    let known = fake.entries("default").len();
    fake.truncate("default", known - 1);
    for version in 7..10 {
        fake.add("default", Event::FleetChanged { version }, None);
    }
    assert!(fake.entries("default").len() > known, "it has not outgrown what was known");
    fake.pass(30);
    until("its entries lead elsewhere", || {
        fake.tell("default");
        evidence(dir.path(), "root_mismatch")
    })
    .await;
    assert_eq!(position(&knowledge), u64::try_from(known).unwrap(), "what was not verified counts");
    restore::accept_restored(dir.path(), &fleet(), &operator.word(&fake.note("default", 0), 1_800_000_100)).unwrap();
    until("it is followed anew", || {
        fake.tell("default");
        position(&knowledge) == u64::try_from(fake.entries("default").len()).unwrap() && !is_broken(&knowledge)
    })
    .await;
    assert_eq!(standing(&knowledge, 1), None, "issued after the backup");
}
