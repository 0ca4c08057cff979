use std::any::Any;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fleetmark_domain::{AuthorityEvent, RevocationReason, Serial};
use fleetmark_status::header::SIGNATURE_LENGTH;
use fleetmark_status::key::P256Key;
use fleetmark_status::reason::Answer;
use fleetmark_status::{List, Terms};
use x509_parser::parse_x509_certificate;

use super::*;
use crate::registrar::publish::tests::World;
use crate::registrar::standing::Change as Order;
use crate::store::model::Certificate;
use crate::store::{ErasedAct, ErasedRead, Store};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The list with this certificate; none that is not given out.
fn list_of(world: &World, certificate: &Certificate) -> Option<Arc<MadeList>> {
    let slice = certificate.serial.index().0 >> SLICE_SHIFT;
    let (authority, epoch) = (certificate.authority, certificate.serial.epoch());
    world.registrar.status_list(&ListKey { kind: ListKind::StatusList, authority, epoch, slice })
}

/// What firmware says of a serial that knows the key of this certificate and has seen a list with this sequence.
fn says(list: &[u8], signer: &[u8], seen: u64, now: Timestamp, serial: &Serial) -> Answer {
    let (_, signer) = parse_x509_certificate(signer).unwrap();
    let key = P256Key::from_point(signer.public_key().subject_public_key.data.as_ref().try_into().unwrap()).unwrap();
    let header = fleetmark_status::header::Header::parse(list).unwrap();
    let terms = Terms { now: u64::try_from(now.0).unwrap(), lowest_sequence: seen, max_age: 86_400 };
    List::open(list, &header.scope, &terms, &key).unwrap().query_serial(serial.octets())
}

/// The same with the key that signs now.
fn told(world: &World, certificate: &Certificate, seen: u64) -> Answer {
    let made = list_of(world, certificate).expect("a list");
    let signer = world.registrar.status_signer(certificate.authority).unwrap();
    says(&made.list.octets, &signer.certificate, seen, world.now, &certificate.serial)
}

/// What the installation's own certificates need besides is made too; how many lists were.
async fn refresh(world: &World) -> usize {
    world.registrar.refresh_status_lists(world.now).await.unwrap()
}

#[tokio::test]
async fn of_a_revoked_authority_nothing_is_good_from_the_next_round_on_and_after_a_restart() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    refresh(&world).await;
    assert_eq!(told(&world, &device, 0), Answer::Good);
    let old = world.replaced().await;
    let successors = world.device("b").await;
    world.now = world.now + Duration::from_secs(10);
    refresh(&world).await;
    assert_eq!(told(&world, &device, 0), Answer::Good, "tainted, its certificates hold");
    let (good, other) = (list_of(&world, &device).unwrap(), list_of(&world, &successors).unwrap());

    world.becomes(old.record.id, AuthorityEvent::Revoked).await;
    world.now = world.now + Duration::from_secs(10);
    refresh(&world).await;
    assert_eq!(told(&world, &device, good.list.number + 1), Answer::NotGood);
    assert_eq!(list_of(&world, &successors).unwrap().list, other.list, "the others' are as they were");
    let bad = list_of(&world, &device).unwrap();
    world.now = world.now + Duration::from_secs(10);
    refresh(&world).await;
    assert_eq!(list_of(&world, &device).unwrap().list, bad.list, "once");

    // Whoever asks later must be told too: the list of before would hold for a day.
    let mut world = world.again().await;
    world.now = world.now + Duration::from_secs(10);
    refresh(&world).await;
    assert_eq!(told(&world, &device, bad.list.number), Answer::NotGood);
    world.now = world.now + DAY * 2;
    refresh(&world).await;
    assert_eq!(told(&world, &device, bad.list.number + 1), Answer::NotGood, "made anew by age");
    // The key says that to its end, and has no successor.
    let key = world.registrar.status_signer(old.record.id).unwrap();
    assert!(key.successor.is_none());
    world.now = world.now + DAY * 250;
    world = world.again().await;
    assert_eq!(world.registrar.status_signer(old.record.id).unwrap().certificate, key.certificate);
    world.now = world.now + DAY * 116;
    let world = world.again().await;
    assert!(world.registrar.status_signer(old.record.id).is_none());
}

#[tokio::test]
async fn a_server_that_died_before_it_told_of_a_revoked_authority_tells_it_after_its_start() {
    let world = World::new().await;
    let device = world.device("a").await;
    refresh(&world).await;
    let good = list_of(&world, &device).unwrap();
    let old = world.replaced().await;
    world.becomes(old.record.id, AuthorityEvent::Revoked).await;
    let world = world.again().await;
    refresh(&world).await;
    assert_eq!(told(&world, &device, good.list.number + 1), Answer::NotGood);
}

#[tokio::test]
async fn a_list_is_made_anew_by_age_and_says_the_same() {
    let mut world = World::new().await;
    let (good, bad) = (world.device("a").await, world.device("b").await);
    world.change("b", Order::Revoke(RevocationReason::KeyCompromise)).await;
    assert!(refresh(&world).await > 1);
    let lists = world.registrar.status_lists();
    let first = list_of(&world, &good).unwrap();
    world.now = first.list.this_update + REFRESH - Duration::from_secs(1);
    assert_eq!(refresh(&world).await, 0, "before twelve hours");
    world.now = first.list.this_update + LIFETIME / 8 + REFRESH;
    assert_eq!(refresh(&world).await, lists.len(), "all of them within fifteen");
    let next = list_of(&world, &good).unwrap();
    assert!(next.list.number > first.list.number);
    assert_eq!((next.list.this_update, next.list.next_update), (world.now, world.now + LIFETIME));
    let body = |made: &MadeList| made.list.octets[80..made.list.octets.len() - SIGNATURE_LENGTH].to_vec();
    assert_eq!(body(&next), body(&first), "nothing changed");
    world.now = world.now + HOUR;
    assert_eq!([&good, &bad].map(|one| told(&world, one, next.list.number)), [Answer::Good, Answer::NotGood]);
    assert_eq!(refresh(&world).await, 0);
    // Also those that were made before a restart.
    let mut world = world.again().await;
    assert_eq!(refresh(&world).await, 0, "a restart makes nothing anew");
    world.now = world.now + LIFETIME / 8 + REFRESH;
    assert_eq!(refresh(&world).await, lists.len());
    assert_eq!([&good, &bad].map(|one| told(&world, one, next.list.number + 1)), [Answer::Good, Answer::NotGood]);
}

#[tokio::test]
async fn lists_of_the_future_are_made_anew_when_the_clock_was_set_back() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    let right = world.now;
    refresh(&world).await;
    world.now = right + HOUR * 16;
    assert!(refresh(&world).await > 1);
    let future = list_of(&world, &device).unwrap();
    world.now = right + Duration::from_secs(60);
    let count = refresh(&world).await;
    assert_eq!(count, world.registrar.status_lists().len());
    assert!(world.registrar.status_lists().values().all(|made| made.list.this_update == world.now));
    assert_eq!(told(&world, &device, future.list.number + 1), Answer::Good, "whoever has seen the other takes it");
    assert_eq!(refresh(&world).await, 0);
    // The same of a list that was made before the server started.
    world.now = right + HOUR * 40;
    refresh(&world).await;
    let future = list_of(&world, &device).unwrap();
    world.now = right + Duration::from_secs(120);
    let world = world.again().await;
    assert_eq!(refresh(&world).await, count);
    assert_eq!(told(&world, &device, future.list.number + 1), Answer::Good);
}

#[tokio::test]
async fn the_sequence_rises_through_restarts_and_restores() {
    let mut world = World::new().await;
    let (held, quiet) = (world.device("a").await, world.device("b").await);
    refresh(&world).await;
    let backup = world.backup().await;
    let mut seen = list_of(&world, &held).unwrap().list.number;
    for round in 0..4 {
        world.change("a", if round % 2 == 0 { Order::Hold } else { Order::Release }).await;
        // Several within a second: the sequence runs ahead of the clock.
        refresh(&world).await;
        if round % 2 == 0 {
            world = world.again().await;
            assert_eq!(refresh(&world).await, 0, "taken up as it was");
        }
        let number = list_of(&world, &held).unwrap().list.number;
        assert!(number > seen, "{number} after {seen}");
        seen = number;
    }
    world.now = world.now + HOUR;
    let mut world = Box::pin(world.restored(backup)).await;
    world.now = world.now + Duration::from_secs(10);
    // The backup's list is not due, and firmware would call it rolled back.
    assert!(list_of(&world, &held).is_none());
    assert!(refresh(&world).await > 1);
    assert_eq!([&held, &quiet].map(|one| told(&world, one, seen + 1)), [Answer::Good; 2]);
    let restored = list_of(&world, &held).unwrap();
    let mut world = world.again().await;
    assert_eq!(refresh(&world).await, 0, "once");
    assert_eq!(list_of(&world, &held).unwrap().list, restored.list);
    world.now = world.now + Duration::from_secs(1);
    world.change("a", Order::Hold).await;
    refresh(&world).await;
    assert_eq!(told(&world, &held, restored.list.number + 1), Answer::NotGood);
}

#[tokio::test]
async fn after_a_handover_the_successor_signs_who_was_published_long_before() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    world.change("a", Order::Revoke(RevocationReason::KeyCompromise)).await;
    refresh(&world).await;
    let key = |world: &World| world.registrar.status_signer(device.authority).unwrap();
    let first = key(&world);
    world.now = world.now + DAY * 190;
    world.registrar.renew_status_signers(world.now).await.unwrap();
    // The device's certificate has ended by then: its list is of the authority's own certificates' slice all the same.
    let successor = key(&world).successor.clone().expect("at half of its life");
    refresh(&world).await;
    let before = list_of(&world, &device).unwrap();
    assert_eq!(before.key_id, first.key_id, "it does not sign yet");
    world.now = world.now + DAY * 116;
    world.registrar.renew_status_signers(world.now).await.unwrap();
    assert_eq!(key(&world).certificate, successor);
    refresh(&world).await;
    let after = list_of(&world, &device).unwrap();
    assert!(after.key_id != first.key_id && after.list.number > before.list.number);
    let said = says(&after.list.octets, &successor, before.list.number + 1, world.now, &device.serial);
    assert_eq!(said, Answer::NotGood);
    // The new one signs even where the old list is minutes old.
    world.now = world.now + Duration::from_secs(60);
    assert_eq!(refresh(&world).await, 0);
}

fn slices(entries: &[((u32, u32, u32), bool)]) -> BTreeMap<(Epoch, u32), Vec<Change>> {
    let mut slices = BTreeMap::new();
    for ((epoch, first, count), is_good) in entries {
        note(&mut slices, (Epoch(*epoch), Index(*first), *count), *is_good);
    }
    slices
}

#[test]
fn what_reaches_over_a_slice_is_told_in_both() {
    let told = slices(&[((3, SLICE_INDICES - 2, 5), false)]);
    let of = |slice| told[&(Epoch(3), slice)].iter().map(|change| (change.first, change.count)).collect::<Vec<_>>();
    assert_eq!(of(0), [(SLICE_INDICES - 2, 2)]);
    assert_eq!(of(1), [(0, 3)]);
    assert_eq!(told.len(), 2);
}

#[test]
fn news_are_applied_in_their_order() {
    let mut before = Standings::none_good(4);
    for index in [0, 1, 3] {
        before.set_good(index);
    }
    // Issued, held, released; held and left so; revoked; the hole stays one.
    let told = slices(&[
        ((1, 5, 1), true),
        ((1, 5, 1), false),
        ((1, 5, 1), true),
        ((1, 6, 1), true),
        ((1, 6, 1), false),
        ((1, 0, 2), false),
    ]);
    let after = applied(&before, &told[&(Epoch(1), 0)]);
    assert_eq!(after.count(), 7);
    let good: Vec<u32> = (0..8).filter(|index| after.is_good(*index)).collect();
    assert_eq!(good, [3, 5]);
}

#[test]
fn lists_come_of_age_at_moments_of_their_own_and_with_their_key() {
    let made = |slice| MadeList {
        list: PublishedList {
            key: ListKey { kind: ListKind::StatusList, authority: 3, epoch: Epoch(9), slice },
            number: 1,
            this_update: Timestamp(0),
            next_update: Timestamp(0) + LIFETIME,
            position: 0,
            octets: Vec::new(),
        },
        key_id: [1; 8],
        is_of_revoked: false,
        standings: None,
    };
    let age = |slice| {
        let kept = made(slice);
        (0..LIFETIME.as_secs()).find(|at| is_due(&kept, [1; 8], false, Timestamp(i64::try_from(*at).unwrap()))).unwrap()
    };
    let ages: BTreeSet<u64> = (0..16).map(age).collect();
    assert_eq!(ages.len(), 16, "at once: {ages:?}");
    assert!(ages.iter().all(|age| (REFRESH.as_secs()..LIFETIME.as_secs()).contains(age)));
    assert!(is_due(&made(0), [2; 8], false, Timestamp(0)), "another key signs now");
    assert!(is_due(&made(0), [1; 8], false, Timestamp(-1)), "it is from the future");
    let (mut kept, at) = (made(0), Timestamp(9));
    assert_eq!([false, true].map(|is_revoked| is_due(&kept, [1; 8], is_revoked, at)), [false, true]);
    kept.is_of_revoked = true;
    assert!(!is_due(&kept, [1; 8], true, at), "it says so already");
}

/// A store that does not take the first list.
struct Faulty {
    store: Arc<dyn Store>,
    failed: AtomicBool,
}

#[async_trait::async_trait]
impl Store for Faulty {
    async fn write(&self, act: Box<dyn ErasedAct>) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        if act.ledgers().is_empty() && !self.failed.swap(true, Ordering::SeqCst) {
            return Err(StoreError::Full("the disk is full".into()));
        }
        self.store.write(act).await
    }

    async fn look(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.store.look(read).await
    }

    async fn look_up(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.store.look_up(read).await
    }

    fn waiting(&self) -> (usize, usize) {
        self.store.waiting()
    }

    async fn copy_to(&self, file: &Path) -> std::result::Result<(), StoreError> {
        self.store.copy_to(file).await
    }

    async fn stop(&self) {
        self.store.stop().await;
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_made_keeps_no_other_from_being_made() {
    let mut world = World::new().await;
    let device = world.device("a").await;
    world.registrar.store = Arc::new(Faulty { store: world.registrar.store.clone(), failed: AtomicBool::new(false) });
    assert!(world.registrar.refresh_status_lists(world.now).await.is_err());
    let made = world.registrar.status_lists().len();
    assert!(made > 1 && list_of(&world, &device).is_some());
    // That one alone is made in the next round.
    assert_eq!(refresh(&world).await, 1);
    assert_eq!((world.registrar.status_lists().len(), refresh(&world).await), (made + 1, 0));
}
