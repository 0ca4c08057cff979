//! What operators change is followed without a restart: policies, grants, rules, roots.

use std::sync::atomic::{AtomicUsize, Ordering};

use fleetmark_policy::Set;

use super::*;

const OTHER: &str = "forbid(principal, action, resource);";

async fn furnished() -> (tempfile::TempDir, Fake) {
    let fake = Fake::start().await;
    fake.furnish();
    fake.tell_all();
    (tempfile::tempdir().unwrap(), fake)
}

/// The set that counts for the fleet.
fn set(knowledge: &Knowledge) -> Option<Arc<Set>> {
    knowledge.policies(Some(&"default".parse().unwrap()))?.fleet.clone()
}

#[tokio::test]
async fn an_activated_policy_is_here_before_its_proof_and_counts_with_it() {
    let (dir, fake) = furnished().await;
    let running = follow(dir.path(), &fake);
    until("a policy counts", || set(&running.knowledge).is_some()).await;
    let (before, at) = (set(&running.knowledge).unwrap(), position(&running.knowledge));
    fake.activate("default", 2, OTHER);
    fake.push("default", at);
    until("its text is fetched", || fake.asked("policies/2") == 1).await;
    assert_eq!(position(&running.knowledge), at);
    assert!(Arc::ptr_eq(&before, &set(&running.knowledge).unwrap()), "it counts before its proof");
    // Whoever asks again gets nothing.
    fake.tamper("policies/2", |_| Reply::Status(503));
    fake.tell("default");
    until("it counts", || set(&running.knowledge).is_some_and(|set| !Arc::ptr_eq(&before, &set))).await;
    assert_eq!(fake.asked("policies/2"), 1, "it was here");
}

#[tokio::test]
async fn a_text_that_does_not_come_at_once_is_asked_for_again_while_the_old_set_counts() {
    let (dir, fake) = furnished().await;
    let running = follow(dir.path(), &fake);
    until("a policy counts", || set(&running.knowledge).is_some()).await;
    let before = set(&running.knowledge).unwrap();
    let tries = AtomicUsize::new(0);
    fake.tamper("policies/2", move |text| match tries.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::Status(503),
        _ => Reply::Ok(text),
    });
    fake.activate("default", 2, OTHER);
    fake.tell("default");
    until("it counts", || !Arc::ptr_eq(&before, &set(&running.knowledge).expect("no policy counts"))).await;
    assert_eq!(fake.asked("policies/2"), 3);
}

#[tokio::test]
async fn a_text_that_never_comes_ends_the_old_set() {
    let (dir, fake) = furnished().await;
    let running = follow(dir.path(), &fake);
    until("a policy counts", || set(&running.knowledge).is_some()).await;
    fake.tamper("policies/2", |_| Reply::Status(503));
    fake.activate("default", 2, OTHER);
    fake.tell("default");
    until("none counts", || set(&running.knowledge).is_none()).await;
    fake.honest();
    until("it counts", || {
        fake.tell("default");
        set(&running.knowledge).is_some()
    })
    .await;
}

#[tokio::test]
async fn what_was_granted_is_followed_and_what_was_taken_away_is_not() {
    let (dir, fake) = furnished().await;
    fake.offer(None);
    let running = follow(dir.path(), &fake);
    let both = [LedgerName::System, fleet()];
    until("system is here", || {
        running.knowledge.freshness(&LedgerName::System, std::time::Instant::now()).is_some_and(|freshness| !freshness.broken)
    })
    .await;
    assert_eq!(running.knowledge.ledgers(), [LedgerName::System]);
    let mut number = 100;
    let mut change = || {
        number += 1;
        fake.add("system", Event::Registered { subject: number, kind: fleetmark_domain::Kind::Gateway }, None);
        fake.add("system", Event::Changed { subject: number }, None);
        fake.tell("system");
    };
    fake.offer(Some(900));
    change();
    until("the fleet is followed", || standing(&running.knowledge, 1) == Some(Standing::Good)).await;
    assert_eq!(running.knowledge.ledgers(), both);
    fake.offer(None);
    change();
    until("it is followed no more", || running.knowledge.ledgers() == [LedgerName::System]).await;
    assert_eq!(standing(&running.knowledge, 1), None);
    // Nor is it after a restart without the server, though its key stays pinned.
    drop(running);
    fake.stop();
    let follower = Follower::open(setup(dir.path(), &fake)).unwrap();
    assert_eq!(follower.knowledge().ledgers(), [LedgerName::System]);
    assert!(Pins::load(dir.path()).unwrap().key(&fleet()).is_some());
    drop(follower);
    fake.begin_again().await;
    fake.offer(Some(900));
    let running = follow(dir.path(), &fake);
    until("it is followed again", || standing(&running.knowledge, 1) == Some(Standing::Good)).await;
}

#[tokio::test]
async fn a_changed_rule_of_how_old_knowledge_may_be_is_learnt() {
    let (dir, fake) = furnished().await;
    let running = follow(dir.path(), &fake);
    let max_age = || running.knowledge.freshness(&fleet(), std::time::Instant::now()).map(|freshness| freshness.max_age);
    until("the fleet is here", || standing(&running.knowledge, 1).is_some()).await;
    assert_eq!(max_age(), Some(Duration::from_secs(900)));
    fake.offer(Some(60));
    fake.add("default", Event::FleetChanged { version: 2 }, None);
    fake.tell("default");
    until("it is learnt", || max_age() == Some(Duration::from_secs(60))).await;
}

#[tokio::test]
async fn a_new_root_counts_without_a_restart() {
    let (dir, fake) = furnished().await;
    let stranger = Fake::start().await;
    let roots = watch::Sender::new(Roots::new(vec![stranger.root()]).unwrap());
    let running = run(Setup { roots: roots.subscribe(), ..setup(dir.path(), &fake) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(running.knowledge.ledgers().is_empty() && fake.asked("/v1") == 0, "a server was believed that no root vouches for");
    roots.send_replace(Roots::new(vec![stranger.root(), fake.root()]).unwrap());
    until("the fleet is here", || standing(&running.knowledge, 1).is_some()).await;
    // The identity was renewed: the feed is connected anew.
    let before = fake.asked("/v1/feed");
    roots.send_modify(|_| {});
    until("the feed is connected anew", || fake.asked("/v1/feed") == before + 1).await;
}
