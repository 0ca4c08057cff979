//! Faults: a full disk, clocks that are set, servers that die, a ledger that breaks its own rules.

use super::*;
use crate::clock::tests::FakeClock;
use crate::disk::faults;

const ALL_WELL: i64 = 1_800_000_000;

/// Waits until the newest checkpoint is on disk: a write that outlives its follower would meet the next one, as no two processes do.
async fn settled(dir: &Path, fake: &Fake) {
    let head = dir.join("ledgers/default/head");
    let note = || {
        let head: serde_json::Value = serde_json::from_slice(&std::fs::read(&head).ok()?).ok()?;
        head["note"].as_str().map(ToOwned::to_owned)
    };
    until("the newest checkpoint is on disk", || note() == Some(fake.note("default", 0))).await;
}

#[tokio::test]
async fn a_full_disk_costs_nothing_but_a_restart_without_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let clock = Arc::new(FakeClock::new(ALL_WELL));
    let with_clock = || Setup { clock: clock.clone(), ..setup(dir.path(), &fake) };
    let running = run(with_clock());
    let ledger = dir.path().join("ledgers/default");
    until("attributes are on disk", || reads(&ledger, "group") && reads(&ledger, r#""wanted":null"#)).await;
    let head = || std::fs::read(ledger.join("head")).unwrap();
    let before = head();
    faults::fill(dir.path(), true);
    fake.add("default", revoked(1), None);
    fake.tell("default");
    until("it is revoked", || standing(&running.knowledge, 1) == Some(REVOKED)).await;
    fake.issue(2, 9, Standing::Good);
    fake.tell("default");
    until("knowledge goes on", || standing(&running.knowledge, 2).is_some()).await;
    assert_eq!(head(), before);
    // A restart on the full disk begins where the disk was, and learns the rest from the server.
    drop(running);
    let running = run(with_clock());
    assert_eq!(standing(&running.knowledge, 1), Some(Standing::Good), "what was on disk counts, until the server says more");
    fake.pass(1);
    until("it is revoked again", || {
        fake.tell("default");
        standing(&running.knowledge, 1) == Some(REVOKED)
    })
    .await;
    // There is room again: a minute later all is written.
    faults::fill(dir.path(), false);
    clock.pass(61, 61, 61);
    until("it is on disk", || {
        fake.tell("default");
        head() != before
    })
    .await;
    fake.issue(3, 9, Standing::Good);
    fake.tell("default");
    settled(dir.path(), &fake).await;
    drop(running);
    fake.stop();
    let knowledge = Follower::open(with_clock()).unwrap().knowledge();
    until("the last write is over", || {
        let knowledge = Follower::open(with_clock()).unwrap().knowledge();
        standing(&knowledge, 1) == Some(REVOKED)
    })
    .await;
    assert!(!is_broken(&knowledge) && !evidence(dir.path(), "disk_differs"));
}

fn group(knowledge: &Knowledge, subject: u64) -> Option<String> {
    knowledge.attributes(&fleet(), subject).get("group").cloned()
}

#[tokio::test]
async fn details_that_had_not_come_before_a_restart_are_fetched_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    fake.tamper("tile/details", |_| Reply::Status(503));
    let running = follow(dir.path(), &fake);
    settled(dir.path(), &fake).await;
    // The first is below what was written whole, the second is in the log.
    fake.put_into(Event::Registered { subject: 9, kind: fleetmark_domain::Kind::Device }, "b");
    fake.tell("default");
    settled(dir.path(), &fake).await;
    drop(running);
    let running = follow(dir.path(), &fake);
    assert_eq!(position(&running.knowledge), u64::try_from(fake.entries("default").len()).unwrap());
    assert_eq!((group(&running.knowledge, 8), group(&running.knowledge, 9)), (None, None));
    fake.honest();
    until("attributes are here", || {
        fake.tell("default");
        (group(&running.knowledge, 8), group(&running.knowledge, 9)) == (Some("a".to_owned()), Some("b".to_owned()))
    })
    .await;
}

#[tokio::test]
async fn details_that_cannot_be_used_keep_no_others_waiting() {
    for status in [404, 500, 503] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start().await;
        fake.furnish();
        fake.put_into(Event::Registered { subject: 9, kind: fleetmark_domain::Kind::Device }, "a");
        (2..270).for_each(|index| fake.issue(index, u64::from(index), Standing::Good));
        fake.put_into(Event::Changed { subject: 8 }, "b");
        fake.tamper("tile/details/000", move |_| Reply::Status(status));
        fake.tell_all();
        let running = follow(dir.path(), &fake);
        until("the other device's are here", || group(&running.knowledge, 8).as_deref() == Some("b")).await;
        assert_eq!(group(&running.knowledge, 9), None);
        fake.honest();
        until("they are here", || {
            fake.tell("default");
            group(&running.knowledge, 9).is_some()
        })
        .await;
        assert_eq!(group(&running.knowledge, 8).as_deref(), Some("b"), "the newest count");
    }
}

#[tokio::test]
async fn details_that_were_replaced_do_not_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tamper("tile/details/000", |_| Reply::Status(404));
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    for (indices, group_of_9) in [(2..260, "b"), (260..520, "c")] {
        indices.for_each(|index| fake.issue(index, u64::from(index), Standing::Good));
        fake.put_into(Event::Changed { subject: 9 }, group_of_9);
        fake.tell("default");
        until("it is changed", || group(&running.knowledge, 9).as_deref() == Some(group_of_9)).await;
    }
    assert_eq!(group(&running.knowledge, 8), None);
    fake.issue(520, 9, Standing::Good);
    fake.tell("default");
    settled(dir.path(), &fake).await;
    drop(running);
    // What was wanted from the first entry on that is: both changes are behind it.
    let before = fake.asked("tile/details/002");
    fake.tamper("tile/details/002", |_| Reply::Status(404));
    let running = follow(dir.path(), &fake);
    until("the last are asked for again", || {
        fake.tell("default");
        fake.asked("tile/details/002") > before
    })
    .await;
    assert_eq!(group(&running.knowledge, 8).as_deref(), Some("a"));
    assert_eq!(group(&running.knowledge, 9).as_deref(), Some("c"));
}

#[tokio::test]
async fn a_clock_set_back_and_forth_by_an_hour_makes_nothing_stale_or_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let clock = Arc::new(FakeClock::new(ALL_WELL));
    let with_clock = || Setup { clock: clock.clone(), ..setup(dir.path(), &fake) };
    let running = run(with_clock());
    let freshness = |knowledge: &Knowledge| knowledge.freshness(&fleet(), crate::clock::Clock::now(&*clock)).unwrap();
    until("the fleet is here", || standing(&running.knowledge, 1).is_some()).await;
    for (index, wall) in [(2, -3_600), (3, 7_200), (4, -3_600)] {
        let age = freshness(&running.knowledge).age;
        clock.pass(wall, 0, 0);
        assert_eq!(freshness(&running.knowledge).age, age, "{wall}");
        // News goes on to count.
        fake.issue(index, 9, Standing::Good);
        fake.add("default", revoked(index), None);
        fake.tell("default");
        until("news counts", || standing(&running.knowledge, index) == Some(REVOKED)).await;
        assert!(!freshness(&running.knowledge).is_stale());
    }
    settled(dir.path(), &fake).await;
    // An hour that really passes without the server counts, whatever the wall clock says of it.
    fake.stop();
    clock.pass(-3_600, 3_600, 3_600);
    assert!(freshness(&running.knowledge).is_stale());
    drop(running);
    // So it does after a restart.
    let knowledge = Follower::open(with_clock()).unwrap().knowledge();
    assert!(freshness(&knowledge).is_stale() && !freshness(&knowledge).broken);
    // And a new checkpoint makes it good, at this clock as at any other.
    fake.begin_again().await;
    let running = run(with_clock());
    until("it is fresh again", || {
        fake.tell("default");
        !freshness(&running.knowledge).is_stale()
    })
    .await;
    let evidence: Vec<_> = std::fs::read_dir(dir.path().join("evidence")).into_iter().flatten().flatten().collect();
    assert!(evidence.is_empty(), "a clock was taken for an attack: {evidence:?}");
}

#[tokio::test]
async fn of_several_servers_the_one_that_answers_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Fake::start().await;
    first.furnish();
    first.tell_all();
    let second = first.beside().await;
    first.stop();
    let running = run(Setup { servers: vec![first.url(), second.url()], ..setup(dir.path(), &first) });
    until("the second is followed", || standing(&running.knowledge, 1) == Some(Standing::Good)).await;
    second.stop();
    first.begin_again().await;
    first.add("default", revoked(1), None);
    first.tell("default");
    until("the first is followed", || standing(&running.knowledge, 1) == Some(REVOKED)).await;
    first.stop();
    second.begin_again().await;
    second.add("default", revoked(0), None);
    second.tell("default");
    until("the second is followed again", || standing(&running.knowledge, 0) == Some(REVOKED)).await;
    assert!(!is_broken(&running.knowledge));
}

#[tokio::test]
async fn a_signed_ledger_that_breaks_a_rule_is_broken_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 1).is_some()).await;
    // The index was used: a second certificate at the same place.
    fake.issue(1, 9, Standing::Good);
    fake.tell("default");
    until("it is broken", || is_broken(&running.knowledge)).await;
    until("evidence is kept", || evidence(dir.path(), "rule_violated")).await;
    drop(running);
    assert!(is_broken(&Follower::open(setup(dir.path(), &fake)).unwrap().knowledge()));
}

#[tokio::test]
async fn who_was_too_slow_fetches_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    let running = follow(dir.path(), &fake);
    until("the fleet is here", || standing(&running.knowledge, 1).is_some()).await;
    // Neither pushed nor told.
    fake.add("default", revoked(1), None);
    fake.pass(1);
    fake.resync("default");
    until("it is fetched", || standing(&running.knowledge, 1) == Some(REVOKED)).await;
    fake.resync("nobody's");
    fake.add("default", revoked(0), None);
    fake.tell("default");
    until("the feed goes on", || standing(&running.knowledge, 0) == Some(REVOKED)).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        let (file, copied) = (file.path(), to.join(file.file_name()));
        if file.is_dir() {
            copy(&file, &copied);
        } else {
            std::fs::copy(&file, &copied).unwrap();
        }
    }
}

#[tokio::test]
async fn a_word_whose_taking_is_cut_short_at_any_act_leaves_no_smaller_ledger_to_follow() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, operator, running) = follow_with_operator(dir.path()).await;
    settled(dir.path(), &fake).await;
    fake.truncate("default", fake.entries("default").len() - 1);
    fake.pass(30);
    fake.tell("default");
    until("it is broken", || dir.path().join("ledgers/default/broken").exists()).await;
    drop(running);
    restore::accept_restored(dir.path(), &fleet(), &operator.word(&fake.note("default", 0), 1_800_000_100)).unwrap();
    let mut failures = 0;
    for acts in 0.. {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let waits = || copied.path().join("accept-restore/default.json").exists();
        let start = || {
            let shared = Follower::open(setup(copied.path(), &fake)).unwrap().shared;
            let worker = shared.workers().into_iter().find(|worker| worker.name == fleet()).unwrap();
            (shared, worker)
        };
        let (shared, worker) = start();
        faults::fail_after(Some(acts));
        restore::look(&shared, &worker).await;
        let failed = faults::has_failed();
        faults::fail_after(None);
        let (shared, worker) = start();
        assert!(worker.heads().crosses() || waits() && worker.heads().verified().is_some(), "after {acts} acts");
        if waits() {
            // It contradicts itself again where it is not known any more that it did.
            worker.ledger.write(|table| table.broken = true);
            restore::look(&shared, &worker).await;
        }
        assert!(worker.heads().crosses() && !waits(), "after {acts} acts");
        if !failed {
            break;
        }
        failures += 1;
    }
    assert!(failures > 10, "every act was made to fail");
}
