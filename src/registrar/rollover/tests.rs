use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ceremony::directory::{LIST_LIFETIME, People, RootDirectory};
use crate::ceremony::request::ToRevoke;
use crate::registrar::publish::tests::{World, fleet};
use crate::store::{ErasedAct, ErasedRead, Store};

/// What befalls the act that records an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is committed, and its answer is lost.
    AnswerLost,
    /// It is committed and answered; nothing can be read from then on.
    ThenStopped,
    /// The queue is full: it is not begun.
    NotBegun,
}

/// A store to which this happens, once a key file more is there than at first.
struct Fated {
    store: Arc<dyn Store>,
    fate: Fate,
    keys: PathBuf,
    at_first: usize,
    stopped: AtomicBool,
}

impl Fated {
    fn of(world: &World, fate: Fate) -> Self {
        let keys = world.directory.path().join("keys");
        let (store, at_first) = (world.registrar.store.clone(), labels(&keys).len());
        Self { store, fate, keys, at_first, stopped: AtomicBool::new(false) }
    }

    async fn read(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        if self.stopped.load(Ordering::SeqCst) { Err(StoreError::Stopping) } else { self.store.look(read).await }
    }
}

#[async_trait::async_trait]
impl Store for Fated {
    async fn write(&self, act: Box<dyn ErasedAct>) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        let is_it = act.ledgers() == [LedgerName::System] && labels(&self.keys).len() > self.at_first;
        if !is_it {
            return self.store.write(act).await;
        }
        if self.fate == Fate::NotBegun {
            return Err(StoreError::Busy);
        }
        let outcome = self.store.write(act).await?;
        self.stopped.store(self.fate == Fate::ThenStopped, Ordering::SeqCst);
        if self.fate == Fate::AnswerLost { Err(StoreError::Unavailable("the connection broke".into())) } else { Ok(outcome) }
    }

    async fn look(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.read(read).await
    }

    async fn look_up(&self, read: ErasedRead) -> std::result::Result<Box<dyn Any + Send>, StoreError> {
        self.read(read).await
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

/// The key files of authorities.
fn labels(keys: &Path) -> Vec<String> {
    let names = std::fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = names.filter(|name| name.starts_with("root-") || name.starts_with("authority-")).collect();
    found.sort_unstable();
    found
}

fn successor(kind: AuthorityKind) -> Successor {
    let of = (kind == AuthorityKind::Of(Kind::Device)).then(fleet);
    Successor { kind, fleet: of, algorithm: None, elsewhere: None, note: String::new() }
}

#[tokio::test]
async fn the_key_of_an_authority_that_may_be_recorded_stays() {
    for kind in [AuthorityKind::Root, AuthorityKind::Of(Kind::Device)] {
        for fate in [Fate::AnswerLost, Fate::ThenStopped, Fate::NotBegun] {
            let mut world = World::new().await;
            let (whole, keys) = (world.registrar.store.clone(), world.directory.path().join("keys"));
            let before = labels(&keys);
            assert!(before.len() >= 4, "{before:?}");
            world.registrar.store = Arc::new(Fated::of(&world, fate));
            let outcome = world.registrar.prepare_authority(&world.owner, successor(kind), world.now).await;
            let may_be_well = fate == Fate::ThenStopped && kind != AuthorityKind::Root;
            assert!(outcome.is_err() || may_be_well, "{kind:?}, {fate:?}");
            world.registrar.store = whole;
            if fate == Fate::NotBegun {
                assert_eq!(labels(&keys), before, "{kind:?}: a key that nothing names is forgotten");
                world.registrar.prepare_authority(&world.owner, successor(kind), world.now).await.unwrap();
                continue;
            }
            assert_eq!(labels(&keys).len(), before.len() + 1, "{kind:?}, {fate:?}");
            // The authority is there, with its key, and goes on.
            let world = world.again().await;
            let all = world.registrar.authorities.all();
            let made = all.iter().find(|one| one.record.kind == kind && one.record.state == AuthorityState::Prepared);
            let made = made.unwrap_or_else(|| panic!("{kind:?}, {fate:?}"));
            assert!(made.has_key, "{kind:?}, {fate:?}");
            let change = Change {
                event: AuthorityEvent::Activated,
                forced: false,
                reason: RevocationReason::Unspecified,
                note: String::new(),
            };
            world.registrar.change_authority(&world.owner, made.record.id, change, world.now).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_key_is_not_forgotten_while_an_authority_or_a_request_has_it() {
    let world = World::new().await;
    let label = world.authority().record.key_label.clone();
    world.registrar.forget_key(&label).await;
    assert!(world.registrar.authorities.keys().contains(&label));
    let keys = world.registrar.authorities.keys();
    keys.create("nobodys", KeyAlgorithm::P256).unwrap();
    world.registrar.forget_key("nobodys").await;
    assert!(!keys.contains("nobodys"));
}

/// A list by the installation's root, whose key is taken to another machine, that names these authorities: the ceremony's answer.
fn list_that_names(world: &World, named: &[AuthorityId]) -> Vec<u8> {
    let (path, root) = (world.directory.path(), world.registrar.authorities.root().unwrap());
    let [name] = &labels(&path.join("keys")).into_iter().filter(|name| name.starts_with("root-")).collect::<Vec<_>>()[..]
    else {
        panic!("one root");
    };
    let file = path.join("keys").join(name);
    let (key, list) = (std::fs::read(&file).unwrap(), world.registrar.crl(root.record.id).unwrap());
    std::fs::remove_file(file).unwrap();
    let name = || "Ada Lovelace".to_owned();
    let people =
        People { by: name(), witnesses: vec![name()], machine: "vault".to_owned(), software: "fleetmark 0".to_owned() };
    let files = (&key[..], &root.record.certificate[..], &list.der[..]);
    let (mut directory, _) =
        RootDirectory::take_over(&path.join("vault"), "passphrase".to_owned().into(), files, &people, world.now).unwrap();
    let line = |id: &AuthorityId| {
        let serial = facts(&world.registrar.authorities.by_id(*id).unwrap().record.certificate).unwrap().serial.unwrap();
        ToRevoke { serial: serial.to_string(), reason: RevocationReason::CaCompromise, since: world.now }
    };
    directory.list(named.iter().map(line).collect(), LIST_LIFETIME, &people, world.now).unwrap().answer.file()
}

#[tokio::test]
async fn what_a_roots_list_names_ends_whatever_failed_after_the_list_was_kept() {
    for dies in [false, true] {
        let world = World::new().await;
        let (named, own) = (world.authority().record.id, world.owner.certificate.authority);
        let answer = list_that_names(&world, &[named, own]);
        let mut world = world.again().await;
        let whole = world.registrar.store.clone();
        world.registrar.store = Arc::new(Fated { at_first: 0, ..Fated::of(&world, Fate::NotBegun) });
        let accept = || world.registrar.accept_root_answer(&world.owner, (&answer, None), world.now);
        assert_eq!(accept().await.unwrap().revoked, [0; 0], "the store takes nothing more");
        assert_eq!(accept().await.unwrap_err().refusal, Refusal::RootAnswerReplayed);
        assert!(world.registrar.end_by_lists(world.now).await.is_err());
        if dies {
            drop(whole);
            world = world.again().await;
        } else {
            world.registrar.store = whole;
        }
        let state = |id| world.registrar.authorities.by_id(id).unwrap().record.state;
        assert_eq!(state(named), AuthorityState::Active);
        world.registrar.end_by_lists(world.now).await.unwrap();
        assert_eq!(state(named), AuthorityState::Revoked);
        assert_eq!(state(own), AuthorityState::Active, "who brought the list can act still");
        let size = world.registrar.publisher.size(&LedgerName::System);
        world.registrar.end_by_lists(world.now).await.unwrap();
        let world = world.again().await;
        world.registrar.end_by_lists(world.now).await.unwrap();
        assert_eq!(world.registrar.publisher.size(&LedgerName::System), size, "once");
    }
}
