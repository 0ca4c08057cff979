use fleetmark_domain::{Epoch, Index, Kind, Standing, Timestamp};
use fleetmark_ledger::details::Commitment;
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState, Entry, Event, Issued};
use fleetmark_ledger::note::LedgerKey;

use super::*;
use crate::disk::faults::{fail_after, has_failed};

/// A ledger that grows, and its key.
struct Growing {
    key: LedgerKey,
    state: State,
}

impl Growing {
    fn new() -> Self {
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let key = LedgerKey::from_pkcs8("fleet.test/ledger/default", pkcs8.as_ref()).unwrap();
        let verifier = key.verifier();
        let mut growing = Self { state: State::new(verifier.clone()), key };
        growing.add(Event::Opened { origin: verifier.name, key: verifier.key });
        let (kind, state, fingerprint) = (AuthorityKind::Of(Kind::Device), AuthorityState::Active, Fingerprint([1; 32]));
        growing.add(Event::AuthorityChanged { authority: 2, kind, state, fingerprint });
        growing.add(Event::EpochOpened { authority: 2, epoch: Epoch(1) });
        growing
    }

    fn add(&mut self, event: Event) -> Record {
        let entry = Entry { at: Timestamp(1_800_000_000), event, details: None }.encode().unwrap();
        self.state.append(&entry).unwrap();
        Record::Entry(entry)
    }

    fn issue(&mut self, index: u32) -> Record {
        self.add(Event::Issued(Issued {
            authority: 2,
            epoch: Epoch(1),
            index: Index(index),
            fingerprint: Fingerprint([7; 32]),
            subject: 7,
            generation: 1,
            standing: Standing::Good,
            not_after: Timestamp(2_000_000_000),
        }))
    }

    fn note(&self) -> String {
        self.key.sign(&self.state.frontier().head(), Timestamp(1_800_000_000))
    }
}

fn mark() -> Mark {
    Mark { signed: Timestamp(1_800_000_000), age_ms: 0, wall: Timestamp(1_800_000_000), boot_ms: 0, boot_id: "boot".to_owned() }
}

fn attributes() -> Attributes {
    HashMap::from([(7, Arc::new(BTreeMap::from([("group".to_owned(), "a".to_owned())])))])
}

/// How many certificates are on disk; None where nothing is.
fn certificates(dir: &Path, growing: &Growing) -> Result<Option<u64>, DiskError> {
    let (_, restored) = LedgerDisk::open(dir, &growing.key.verifier())?;
    Ok(restored.map(|restored| restored.state.certificates()))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A directory with a snapshot of one certificate, and a second one in the log.
fn written(dir: &Path) -> Growing {
    let mut growing = Growing::new();
    growing.issue(0);
    let (mut disk, none) = LedgerDisk::open(dir, &growing.key.verifier()).unwrap();
    assert!(none.is_none() && disk.wants_whole());
    disk.write(&growing.state, &attributes(), &BTreeMap::new(), &growing.note(), mark()).unwrap();
    let record = growing.issue(1);
    let more = attributes_record(8, &BTreeMap::from([("group".to_owned(), "b".to_owned())])).unwrap();
    disk.append(&[record, more], None, &growing.note(), mark()).unwrap();
    growing
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let growing = written(dir.path());
    let (disk, restored) = LedgerDisk::open(dir.path(), &growing.key.verifier()).unwrap();
    let restored = restored.unwrap();
    assert_eq!(restored.state.frontier().head(), growing.state.frontier().head());
    assert_eq!((restored.note, restored.mark), (growing.note(), mark()));
    assert_eq!(restored.attributes.len(), 2);
    assert_eq!(restored.attributes[&8]["group"], "b");
    assert!(!disk.wants_whole());
}

#[test]
fn entries_whose_details_are_wanted_are_named_until_they_are_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut growing = Growing::new();
    let register = |growing: &mut Growing, subject| {
        let entry = Entry {
            at: Timestamp(1_800_000_000),
            event: Event::Registered { subject, kind: Kind::Device },
            details: Some(Commitment([9; 32])),
        };
        let octets = entry.encode().unwrap();
        let wanted = Wanted::of(&entry, growing.state.frontier().size()).unwrap();
        growing.state.append(&octets).unwrap();
        (wanted, Record::Entry(octets))
    };
    let read = |growing: &Growing| {
        let (disk, restored) = LedgerDisk::open(dir.path(), &growing.key.verifier()).unwrap();
        (disk, restored.map(|restored| restored.wanted.into_values().collect::<Vec<_>>()))
    };
    let (in_snapshot, _) = register(&mut growing, 7);
    let bare = Wanted { position: 1, subject: 6, commitment: None };
    let wanted = [bare, in_snapshot].map(|one| (one.position, one)).into();
    read(&growing).0.write(&growing.state, &attributes(), &wanted, &growing.note(), mark()).unwrap();
    let (in_log, record) = register(&mut growing, 8);
    read(&growing).0.append(&[record], Some(bare.position), &growing.note(), mark()).unwrap();
    assert_eq!(read(&growing).1.unwrap(), [bare, in_snapshot, in_log]);
    for (first, left) in [(in_snapshot.position, &[in_snapshot, in_log][..]), (in_log.position, &[in_log])] {
        read(&growing).0.append(&[], Some(first), &growing.note(), mark()).unwrap();
        assert_eq!(read(&growing).1.unwrap(), left);
    }
    read(&growing).0.append(&[], None, &growing.note(), mark()).unwrap();
    assert_eq!(read(&growing).1.unwrap(), []);
}

#[test]
fn attributes_that_would_not_be_read_back_are_not_written() {
    let length = u64::try_from(encode_attributes(&attributes(), u64::MAX).unwrap().len()).unwrap();
    assert!(encode_attributes(&attributes(), length).is_ok());
    assert!(matches!(encode_attributes(&attributes(), length - 1), Err(DiskError::TooLong(_))));
}

#[test]
fn a_disk_that_fails_at_any_act_leaves_the_old_or_the_new() {
    let base = tempfile::tempdir().unwrap();
    let original = base.path().join("original");
    written(&original);
    for whole in [false, true] {
        let mut failures = 0;
        for acts in 0.. {
            let dir = base.path().join(format!("{whole}-{acts}"));
            let mut growing = written(&dir);
            let (mut disk, _) = LedgerDisk::open(&dir, &growing.key.verifier()).unwrap();
            let record = growing.issue(2);
            fail_after(Some(acts));
            let outcome = if whole {
                disk.write(&growing.state, &attributes(), &BTreeMap::new(), &growing.note(), mark())
            } else {
                disk.append(&[record], None, &growing.note(), mark())
            };
            let failed = has_failed();
            fail_after(None);
            let found = certificates(&dir, &growing).unwrap();
            assert!(matches!(found, Some(2 | 3)), "{found:?} after {acts} acts");
            if outcome.is_ok() {
                assert_eq!(found, Some(3));
            }
            if outcome.is_ok() && !failed {
                break;
            }
            failures += 1;
            // The disk has room again: everything is written anew.
            disk.write(&growing.state, &attributes(), &BTreeMap::new(), &growing.note(), mark()).unwrap();
            assert_eq!(certificates(&dir, &growing).unwrap(), Some(3), "after {acts} acts");
        }
        assert!(failures > 5, "every act was made to fail");
    }
}

#[test]
fn files_cut_at_any_length_or_flipped_anywhere_are_found_out() {
    let base = tempfile::tempdir().unwrap();
    let original = base.path().join("original");
    let growing = written(&original);
    for name in ["head", "log.1", "snapshot.1", "attributes.1"] {
        let whole = fs::read(original.join(name)).unwrap();
        let copied = base.path().join(name);
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            for octets in [whole[..at].to_vec(), flipped] {
                copy(&original, &copied);
                fs::write(copied.join(name), &octets).unwrap();
                // The last record is of attributes, which the signed root does not cover; a torn one is cut.
                let found = certificates(&copied, &growing);
                assert!(matches!(found, Err(_) | Ok(Some(2))), "{name} at {at}: {found:?}");
            }
        }
    }
}

#[test]
fn entries_beyond_the_signed_head_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut growing = written(dir.path());
    let note = growing.note();
    let (mut disk, _) = LedgerDisk::open(dir.path(), &growing.key.verifier()).unwrap();
    let record = growing.issue(2);
    disk.append(&[record], None, &note, mark()).unwrap();
    assert_eq!(certificates(dir.path(), &growing).unwrap(), Some(2));
    // What was cut is gone: the log goes on from the signed head.
    assert_eq!(certificates(dir.path(), &growing).unwrap(), Some(2));
}

#[test]
fn a_ledger_of_another_key_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    assert!(LedgerDisk::open(dir.path(), &Growing::new().key.verifier()).is_err());
}

#[test]
fn broken_stays_until_it_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(LedgerDisk::broken(dir.path()), None);
    LedgerDisk::set_broken(dir.path(), Some("fork")).unwrap();
    assert_eq!(LedgerDisk::broken(dir.path()).as_deref(), Some("fork"));
    LedgerDisk::set_broken(dir.path(), None).unwrap();
    assert_eq!(LedgerDisk::broken(dir.path()), None);
}
