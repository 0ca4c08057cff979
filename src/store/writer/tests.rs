use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use fleetmark_domain::{LedgerName, Refusal, Timestamp};
use fleetmark_ledger::entry::{AuthorityState, Event};
use fleetmark_ledger::merkle::Head;

use super::*;
use crate::store::engine::Engine;
use crate::store::model::StoredEntry;
use crate::store::sqlite::Sqlite;
use crate::store::transaction::Transaction;
use crate::store::{Act, HeadSigner, Lane, Store, commit, contract, read};

/// Keeps what it was told.
#[derive(Default)]
struct Signed(Mutex<Vec<Head>>);

impl HeadSigner for Signed {
    fn committed(&self, _: &LedgerName, head: &Head, _: &[StoredEntry]) {
        self.0.lock().unwrap().push(*head);
    }
}

/// Sets a value and appends an entry, unless told otherwise.
struct Put {
    key: String,
    octets: usize,
    lane: Lane,
    does: Does,
}

enum Does {
    Well,
    Refuse,
    Collide,
    Panic,
    /// Tells that it began, and waits to go on.
    Wait(Mutex<(mpsc::Sender<()>, mpsc::Receiver<()>)>),
}

fn put(key: impl std::fmt::Display, does: Does) -> Put {
    Put { key: key.to_string(), octets: 8, lane: Lane::Ordinary, does }
}

impl Act for Put {
    type Outcome = u64;

    fn lane(&self) -> Lane {
        self.lane
    }

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        match &self.does {
            Does::Refuse => return Err(Refusal::NotPermitted.into()),
            Does::Wait(gate) => {
                let gate = gate.lock().unwrap();
                gate.0.send(()).unwrap();
                gate.1.recv().unwrap();
            }
            Does::Well | Does::Collide | Does::Panic => {}
        }
        transaction.rows.set_value(&self.key, &vec![1; self.octets])?;
        let event = Event::AuthorityChanged {
            authority: 1,
            kind: fleetmark_ledger::entry::AuthorityKind::Root,
            state: AuthorityState::Active,
            fingerprint: fleetmark_domain::Fingerprint([0; 32]),
        };
        let position = transaction.append(&LedgerName::System, Timestamp(1), event, None)?;
        match self.does {
            Does::Collide => Err(StoreError::Collision),
            Does::Panic => panic!("as told"),
            _ => Ok(position),
        }
    }
}

struct OpenLedger;

impl Act for OpenLedger {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.open_ledger(contract::ledger(LedgerName::System))
    }
}

fn engine(sqlite: Sqlite) -> (Arc<Engine<Sqlite>>, Arc<Signed>) {
    let signed = Arc::new(Signed::default());
    let engine = Engine::start(sqlite, Arc::<Signed>::clone(&signed)).unwrap();
    (Arc::new(engine), signed)
}

async fn new_engine(directory: &tempfile::TempDir) -> (Arc<Engine<Sqlite>>, Arc<Signed>) {
    let (engine, signed) = engine(Sqlite::open(&directory.path().join("fleetmark.db")).unwrap());
    commit(&*engine, OpenLedger).await.unwrap();
    (engine, signed)
}

/// Occupies the writer, so that what is queued meanwhile becomes one batch. Dropping the sender lets it fail; sending, go on.
async fn hold_writer(engine: &Arc<Engine<Sqlite>>) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<u64, StoreError>>) {
    let (began, has_begun) = mpsc::channel();
    let (go_on, gate) = mpsc::channel();
    let task = queue(engine, put("gate", Does::Wait(Mutex::new((began, gate)))));
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    (go_on, task)
}

fn queue(engine: &Arc<Engine<Sqlite>>, act: Put) -> tokio::task::JoinHandle<Result<u64, StoreError>> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { commit(&*engine, act).await })
}

async fn until_waiting(engine: &Engine<Sqlite>, count: (usize, usize)) {
    while engine.waiting() != count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn value(engine: &Engine<Sqlite>, key: &str) -> Option<Vec<u8>> {
    let key = key.to_owned();
    read(engine, move |rows| rows.value(&key)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_act_in_a_batch_harms_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, signed) = new_engine(&directory).await;
    let (go_on, gate) = hold_writer(&engine).await;
    let mut acts = Vec::new();
    for (place, does) in [Does::Well, Does::Refuse, Does::Collide, Does::Well, Does::Panic, Does::Well].into_iter().enumerate()
    {
        acts.push(queue(&engine, put(place, does)));
        until_waiting(&engine, (0, place + 1)).await;
    }
    go_on.send(()).unwrap();
    assert_eq!(gate.await.unwrap().unwrap(), 0);
    let mut results = Vec::new();
    for act in acts {
        results.push(act.await.unwrap());
    }
    assert!(
        matches!(
            results.as_slice(),
            [
                Ok(1),
                Err(StoreError::Refused(Refusal::NotPermitted)),
                Err(StoreError::Collision),
                Ok(2),
                Err(StoreError::Unavailable(_)),
                Ok(3)
            ]
        ),
        "{results:?}"
    );
    for (key, there) in [("0", true), ("1", false), ("2", false), ("3", true), ("4", false), ("5", true)] {
        assert_eq!(value(&engine, key).await.is_some(), there, "{key}");
    }
    let entries = read(&*engine, |rows| rows.entries(&LedgerName::System, 0, 99)).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // Every head was told, in order, by an act that was refused too; the last is the ledger's.
    let heads = signed.0.lock().unwrap().clone();
    assert_eq!(heads.iter().map(|head| head.size).collect::<Vec<_>>(), [1, 2, 2, 3, 4]);
    let record = read(&*engine, |rows| rows.ledger(&LedgerName::System)).await.unwrap().unwrap();
    assert_eq!(heads.last(), Some(&record.head()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_commit_and_the_urgent_overtakes() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, signed) = new_engine(&directory).await;
    let (go_on, gate) = hold_writer(&engine).await;
    let ordinary: Vec<_> = (0..300).map(|place| queue(&engine, put(place, Does::Well))).collect();
    until_waiting(&engine, (0, 300)).await;
    let urgent = queue(&engine, Put { lane: Lane::Urgent, ..put("urgent", Does::Well) });
    until_waiting(&engine, (1, 300)).await;
    go_on.send(()).unwrap();
    assert_eq!(gate.await.unwrap().unwrap(), 0);
    assert_eq!(urgent.await.unwrap().unwrap(), 1);
    for act in ordinary {
        assert!(act.await.unwrap().unwrap() > 1);
    }
    let sizes: Vec<_> = signed.0.lock().unwrap().iter().map(|head| head.size).collect();
    assert_eq!(sizes, [1, 257, 302]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lane_is_refused_at_once_and_the_urgent_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = new_engine(&directory).await;
    let (go_on, gate) = hold_writer(&engine).await;
    let waiting: Vec<_> = (0..4_096).map(|_| queue(&engine, put("same", Does::Refuse))).collect();
    until_waiting(&engine, (0, 4_096)).await;
    assert!(matches!(commit(&*engine, put("late", Does::Well)).await, Err(StoreError::Busy)));
    let urgent = queue(&engine, Put { lane: Lane::Urgent, ..put("urgent", Does::Well) });
    until_waiting(&engine, (1, 4_096)).await;
    go_on.send(()).unwrap();
    gate.await.unwrap().unwrap();
    urgent.await.unwrap().unwrap();
    for act in waiting {
        assert!(matches!(act.await.unwrap(), Err(StoreError::Refused(_))));
    }
    assert_eq!(value(&engine, "late").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stop_finishes_what_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = new_engine(&directory).await;
    let (go_on, gate) = hold_writer(&engine).await;
    let queued = queue(&engine, put("queued", Does::Well));
    until_waiting(&engine, (0, 1)).await;
    let stopping = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.stop().await }
    });
    // Until the stop has begun, acts are still queued; these wait behind the gate, and are given up.
    let late = || tokio::time::timeout(Duration::from_millis(20), commit(&*engine, put("late", Does::Refuse)));
    while !matches!(late().await, Ok(Err(StoreError::Stopping))) {}
    assert!(!stopping.is_finished());
    go_on.send(()).unwrap();
    gate.await.unwrap().unwrap();
    queued.await.unwrap().unwrap();
    stopping.await.unwrap();
    assert!(matches!(commit(&*engine, put("late", Does::Well)).await, Err(StoreError::Stopping)));
    assert!(matches!(read(&*engine, |rows| rows.value("queued")).await, Err(StoreError::Stopping)));
}

/// Fills the database until it says that it is full, then reads back all that was acknowledged.
async fn fills_up(path: &std::path::Path, sqlite: Sqlite) {
    let (engine, signed) = engine(sqlite);
    commit(&*engine, OpenLedger).await.unwrap();
    let mut acknowledged = Vec::new();
    let full = loop {
        let acts: Vec<_> = (0..8)
            .map(|number| {
                let key = format!("{}-{number}", acknowledged.len());
                (key.clone(), queue(&engine, Put { octets: 30_000, ..put(key, Does::Well) }))
            })
            .collect();
        let mut failed = None;
        for (key, act) in acts {
            match act.await.unwrap() {
                Ok(position) => acknowledged.push((key, position)),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            break error;
        }
        assert!(acknowledged.len() < 10_000, "the disk never filled");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert_eq!(full.refusal(), Refusal::StorageFull);
    assert!(acknowledged.len() > 8, "full from the start");
    engine.stop().await;
    drop(engine);

    let sqlite = reopened(path).await;
    let (engine, _) = self::engine(sqlite);
    for (key, _) in &acknowledged {
        assert_eq!(value(&engine, key).await.map(|octets| octets.len()), Some(30_000), "{key}");
    }
    let record = read(&*engine, |rows| rows.ledger(&LedgerName::System)).await.unwrap().unwrap();
    let last = *signed.0.lock().unwrap().last().unwrap();
    assert_eq!(record.head(), last);
    assert_eq!(record.head().size, u64::try_from(acknowledged.len()).unwrap());
}

/// The lock of the file ends with the last thread of the engine before.
async fn reopened(path: &std::path::Path) -> Sqlite {
    for _ in 0..500 {
        match Sqlite::open(path) {
            Err(StoreError::Locked(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => return other.unwrap(),
        }
    }
    panic!("still locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleetmark.db");
    let mut sqlite = Sqlite::open(&path).unwrap();
    sqlite.limit_pages(400);
    fills_up(&path, sqlite).await;
}

/// A file system of 4 MiB, where the tests may mount one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(directory.path())
        .stderr(std::process::Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("may not mount a file system here: the limit on pages stands in for it");
        return;
    }
    let path = directory.path().join("fleetmark.db");
    let sqlite = Sqlite::open(&path).unwrap();
    let result = tokio::spawn({
        let path = path.clone();
        async move { fills_up(&path, sqlite).await }
    })
    .await;
    std::process::Command::new("umount").arg("-l").arg(directory.path()).status().unwrap();
    result.unwrap();
}

/// Keeps the positions of the urgent entries that it was told of, commit by commit.
#[derive(Default)]
struct Urgent(Mutex<Vec<Vec<u64>>>);

impl HeadSigner for Urgent {
    fn committed(&self, _: &LedgerName, _: &Head, urgent: &[StoredEntry]) {
        self.0.lock().unwrap().push(urgent.iter().map(|stored| stored.position).collect());
    }
}

/// Appends an authority's states in this order.
struct States(Vec<AuthorityState>);

impl Act for States {
    type Outcome = ();

    fn ledgers(&self) -> Vec<LedgerName> {
        vec![LedgerName::System]
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        for state in &self.0 {
            let event = Event::AuthorityChanged {
                authority: 1,
                kind: fleetmark_ledger::entry::AuthorityKind::Root,
                state: *state,
                fingerprint: fleetmark_domain::Fingerprint([0; 32]),
            };
            transaction.append(&LedgerName::System, Timestamp(1), event, None)?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signer_is_told_of_the_urgent_entries_of_each_commit() {
    use AuthorityState::{Active, Prepared, Revoked, Tainted};
    let directory = tempfile::tempdir().unwrap();
    let urgent = Arc::new(Urgent::default());
    let sqlite = Sqlite::open(&directory.path().join("fleetmark.db")).unwrap();
    let engine = Engine::start(sqlite, Arc::<Urgent>::clone(&urgent)).unwrap();
    commit(&engine, OpenLedger).await.unwrap();
    commit(&engine, States(vec![Prepared, Active])).await.unwrap();
    commit(&engine, States(vec![Active, Tainted, Active, Revoked])).await.unwrap();
    assert_eq!(*urgent.0.lock().unwrap(), [vec![], vec![3, 5]]);
    engine.stop().await;
}

/// Fails once, after the commit.
#[derive(Default)]
struct Fails(Mutex<Vec<u64>>);

impl HeadSigner for Fails {
    fn committed(&self, _: &LedgerName, head: &Head, _: &[StoredEntry]) {
        let mut sizes = self.0.lock().unwrap();
        sizes.push(head.size);
        let count = sizes.len();
        drop(sizes);
        assert_ne!(count, 1, "the first time it fails");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_that_finds_itself_done_has_the_head_signed_that_was_not() {
    let directory = tempfile::tempdir().unwrap();
    let fails = Arc::new(Fails::default());
    let sqlite = Sqlite::open(&directory.path().join("fleetmark.db")).unwrap();
    let engine = Engine::start(sqlite, Arc::<Fails>::clone(&fails)).unwrap();
    commit(&engine, OpenLedger).await.unwrap();
    commit(&engine, States(vec![AuthorityState::Tainted])).await.unwrap_err();
    commit(&engine, States(Vec::new())).await.unwrap();
    assert_eq!(*fails.0.lock().unwrap(), [1, 1]);
    engine.stop().await;
}
