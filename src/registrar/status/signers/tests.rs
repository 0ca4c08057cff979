use std::any::Any;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::registrar::publish::tests::World;
use crate::store::{ErasedAct, ErasedRead, Store, StoreError};

const DAY: Duration = Duration::from_secs(86_400);

/// A store that dies after so many writes.
struct Dying(Arc<dyn Store>, AtomicUsize);

#[async_trait::async_trait]
impl Store for Dying {
    async fn write(&self, act: Box<dyn ErasedAct>) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        if self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            return Err(StoreError::Busy);
        }
        self.0.write(act).await
    }

    async fn look(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.0.look(read).await
    }

    async fn look_up(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.0.look_up(read).await
    }

    fn waiting(&self) -> (usize, usize) {
        self.0.waiting()
    }

    fn is_alone(&self) -> bool {
        self.0.is_alone()
    }

    async fn copy_to(&self, file: &Path) -> std::result::Result<(), StoreError> {
        self.0.copy_to(file).await
    }

    async fn stop(&self) {
        self.0.stop().await;
    }
}

/// The labels of the status keys whose files are there.
fn files(world: &World) -> Vec<String> {
    let all = std::fs::read_dir(world.directory.path().join("keys")).unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("status-")).collect()
}

/// The device authority's certificates: what signs, and what will.
fn signing(world: &World) -> (Vec<u8>, Option<Vec<u8>>) {
    let signer = world.registrar.status_signer(world.authority().record.id).unwrap();
    signer.sign(b"a list").unwrap();
    (signer.certificate.clone(), signer.successor.clone())
}

/// An installation whose status keys have successors, at the time when these take over.
async fn before_the_handover() -> (World, Vec<u8>) {
    let mut world = World::new().await;
    let (first, none) = signing(&world);
    assert_eq!((none, files(&world).len()), (None, 4), "services, operators, gateways, a fleet");
    world.now = world.now + DAY * 190;
    world.registrar.renew_status_signers(world.now).await.unwrap();
    let (current, successor) = signing(&world);
    assert_eq!((current, files(&world).len()), (first, 8));
    world.now = world.now + DAY * 120;
    (world, successor.unwrap())
}

#[tokio::test]
async fn a_successor_takes_over_wherever_the_server_dies() {
    // Before anything is written, after the names changed, after the former key's file was removed, never.
    for writes in [0, 1, 2, 99] {
        let (mut world, successor) = before_the_handover().await;
        world.registrar.store = Arc::new(Dying(world.registrar.store.clone(), AtomicUsize::new(writes)));
        let outcome = world.registrar.renew_status_signers(world.now).await;
        assert_eq!(outcome.is_err(), writes < 99);
        let mut world = world.again().await;
        assert_eq!(signing(&world), (successor.clone(), None), "{writes} writes");
        assert_eq!(files(&world).len(), 4, "the former keys' files are gone: {writes} writes");

        // It gets a successor of its own, and keeps its key.
        world.now = world.now + DAY * 90;
        world.registrar.renew_status_signers(world.now).await.unwrap();
        let mut world = world.again().await;
        let (current, next) = signing(&world);
        assert_eq!((current, next.is_some(), files(&world).len()), (successor, true, 8));
        world.now = world.now + DAY * 100;
        world.registrar.renew_status_signers(world.now).await.unwrap();
        assert_eq!((Some(signing(&world).0), files(&world).len()), (next, 4));
    }
}

#[tokio::test]
async fn the_last_key_of_an_authority_serves_to_its_end_and_is_not_made_again_and_again() {
    let mut world = World::new().await;
    let all = world.registrar.authorities.all();
    let ends = all.iter().filter(|authority| authority.record.kind != AuthorityKind::Root).map(|one| one.not_after);
    let ends = ends.min().unwrap();
    // As of a corporate authority that lives a year: its key has no more than 50 days.
    world.now = ends - DAY * 50;
    world.registrar.renew_status_signers(world.now).await.unwrap();
    let (last, kept) = (signing(&world), files(&world));
    assert_eq!((last.1.is_none(), kept.len()), (true, 4));
    for days in [0, 10, 26, 49] {
        world.now = ends - DAY * 50 + DAY * days + Duration::from_secs(600);
        world.registrar.renew_status_signers(world.now).await.unwrap();
        assert_eq!((signing(&world), files(&world)), (last.clone(), kept.clone()), "after {days} days");
    }
    world = world.again().await;
    assert_eq!((signing(&world), files(&world)), (last, kept));
    // Beyond its authority's end it is nobody's.
    let latest = all.iter().filter(|authority| authority.record.kind != AuthorityKind::Root).map(|one| one.not_after);
    world.now = latest.max().unwrap();
    let world = world.again().await;
    assert!(world.registrar.authorities.all().iter().all(|one| world.registrar.status_signer(one.record.id).is_none()));
}

#[test]
fn a_key_serves_till_its_successor_does_or_to_its_authoritys_end() {
    let dates = |issued: u64, ends: u64| Certificate {
        issued_at: Timestamp(0) + DAY * u32::try_from(issued).unwrap(),
        not_after: Timestamp(0) + DAY * u32::try_from(ends).unwrap(),
        ..crate::registrar::status::statements::tests::certificate(fleetmark_domain::Standing::Good)
    };
    let last_day = |own: &Certificate, authority: u32| {
        let until = (0..1_000).find(|day| !serves(own, Timestamp(0) + DAY * authority, Timestamp(0) + DAY * *day));
        until.unwrap()
    };
    assert_eq!(last_day(&dates(0, 365), 3_650), 305, "sixty days before");
    assert_eq!(last_day(&dates(0, 60), 3_650), 50, "the last sixth of a short life");
    assert_eq!(last_day(&dates(0, 365), 365), 365);
    assert_eq!(last_day(&dates(330, 365), 365), 365);
}

#[tokio::test]
async fn while_no_key_can_be_made_the_one_that_is_there_signs_to_its_end() {
    let mut world = World::new().await;
    let first = signing(&world);
    // Nothing was renewed for long, and now nothing can be.
    world.now = world.now + DAY * 330;
    let inner = world.registrar.store.clone();
    world.registrar.status = crate::registrar::status::StatusViews::default();
    world.registrar.store = Arc::new(Dying(inner.clone(), AtomicUsize::new(0)));
    assert!(world.registrar.renew_status_signers(world.now).await.is_err());
    assert_eq!(signing(&world), first);
    world.registrar.store = inner;
    world.registrar.renew_status_signers(world.now).await.unwrap();
    assert_ne!(signing(&world).0, first.0);
}

#[tokio::test]
async fn what_an_earlier_version_left_under_both_names_costs_no_key() {
    let (mut world, successor) = before_the_handover().await;
    for authority in world.registrar.authorities.all().iter() {
        let names = Names::of(authority.record.id);
        let next = names.next;
        let value = read(&*world.registrar.store, move |rows| rows.value(&next)).await.unwrap();
        let Some(value) = value else { continue };
        commit(&*world.registrar.store, SetValues(vec![(names.current, value)])).await.unwrap();
    }
    let mut again = world.again().await;
    assert_eq!(signing(&again), (successor.clone(), None));
    again.now = again.now + DAY * 90;
    again.registrar.renew_status_signers(again.now).await.unwrap();
    let (current, next) = signing(&again);
    assert_eq!((current, next.is_some()), (successor.clone(), true));
    world = again.again().await;
    assert_eq!(signing(&world).0, successor, "its key is still there");
}
