use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleetmark_domain::{Epoch, Timestamp};
use ring::rand::SystemRandom;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::header::{Cost, LENGTH};
use super::write::write_with;
use super::*;

const CHEAP: Cost = Cost { log_n: 4, r: 8, p: 1 };

fn passphrase() -> SecretString {
    "correct horse battery".into()
}

fn manifest() -> Manifest {
    Manifest {
        made_at: Timestamp(1_800_000_000),
        software: "0.1.0".to_owned(),
        trust_domain: "fleetmark.local".parse().unwrap(),
        highest_epoch: Epoch(7),
        ledgers: vec![LedgerHead { name: "system".to_owned(), size: 12, root: "ab".repeat(32) }],
        token_keys: Vec::new(),
    }
}

fn item(name: &str, octets: &[u8]) -> Item {
    Item { name: name.parse().unwrap(), content: Content::Octets(Zeroizing::new(octets.to_vec())) }
}

fn backup(items: &[Item]) -> Vec<u8> {
    write_with(CHEAP, &manifest(), items, &passphrase(), &SystemRandom::new(), Vec::new()).unwrap()
}

/// Sizes at the chunks' edges: the manifest and heads shift them, so some hit an edge within.
fn samples() -> BTreeMap<String, Vec<u8>> {
    let sizes = [0, 1, 65_535, 65_536, 65_537, 200_000];
    let octets = |size: u32| (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>();
    sizes.into_iter().map(|size| (format!("keys/file-{size}.pem"), octets(size))).collect()
}

fn sample_items() -> Vec<Item> {
    samples().iter().map(|(name, octets)| item(name, octets)).collect()
}

fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_backed_up_is_restored() {
    let source = tempfile::tempdir().unwrap();
    let database = source.path().join("copy");
    std::fs::write(&database, vec![9; 100_000]).unwrap();
    let mut items = sample_items();
    items.push(Item { name: "fleetmark.db".parse().unwrap(), content: Content::File(database) });
    let octets = backup(&items);
    assert!(!octets.windows(9).any(|window| window == b"fleetmark"), "a name stands in clear");

    let inspection = inspect(octets.as_slice(), &passphrase()).unwrap();
    assert_eq!(inspection.manifest, manifest());
    assert_eq!(inspection.files.len(), 7);

    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("new/data");
    let restored = restore(octets.as_slice(), &passphrase(), &data, Timestamp(1_800_000_500)).unwrap();
    assert_eq!(listing(&data), ["fleetmark.db", "keys", "restored.json"]);
    for (name, octets) in samples() {
        let path = data.join(name);
        assert_eq!(std::fs::read(&path).unwrap(), octets);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read(data.join("fleetmark.db")).unwrap(), vec![9; 100_000]);
    for directory in [&data, &data.join("keys")] {
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(restored::pending(&data).unwrap(), Some(restored.clone()));
    restored::settle(&data, &restored).unwrap();
    assert_eq!(restored::pending(&data).unwrap(), None);
}

#[test]
fn the_marker_of_the_manual_is_read() {
    let manual = include_str!("../../docs/backup.md");
    let (_, marker) = manual.split_once("```json\n").unwrap();
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("restored.json"), marker.split_once("```").unwrap().0).unwrap();
    let restored = restored::pending(data.path()).unwrap().unwrap();
    assert_eq!((restored.backup.highest_epoch, restored.backup.trust_domain.as_str()), (Epoch(12), "fleet.example"));
}

#[test]
fn a_database_that_belongs_elsewhere_is_moved_and_replaces_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (restored, place) = (parent.path().join("fleetmark.db"), parent.path().join("other/disk.db"));
    std::fs::write(&restored, b"restored").unwrap();
    std::fs::create_dir(parent.path().join("other")).unwrap();
    for old in ["disk.db", "disk.db-wal"] {
        let old = place.with_file_name(old);
        std::fs::write(&old, b"old").unwrap();
        let refused = move_database(&restored, &place).unwrap_err().to_string();
        assert!([&old, &restored].iter().all(|path| refused.contains(path.to_str().unwrap())), "{refused}");
        assert_eq!(std::fs::read(&old).unwrap(), b"old");
        std::fs::remove_file(old).unwrap();
    }
    move_database(&restored, &place).unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), b"restored");
    assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        (listing(parent.path()), listing(place.parent().unwrap())),
        (vec!["other".to_owned()], vec!["disk.db".to_owned()])
    );
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let octets = backup(&sample_items());
    let wrong = "another passphrase".into();
    assert!(matches!(inspect(octets.as_slice(), &wrong), Err(BackupError::WrongPassphrase)));
    let parent = tempfile::tempdir().unwrap();
    assert!(matches!(restore(octets.as_slice(), &wrong, parent.path(), Timestamp(0)), Err(BackupError::WrongPassphrase)));
    assert!(listing(parent.path()).is_empty());
}

#[test]
fn every_truncation_is_noticed() {
    let octets = backup(&[item("a", &vec![5; 150_000])]);
    let edges = [9, LENGTH - 1, LENGTH, LENGTH + 3, LENGTH + 4, LENGTH + 4 + 65_536 + 16, octets.len() - 1];
    for length in edges.into_iter().chain((LENGTH..octets.len()).step_by(7_919)) {
        let result = inspect(&octets[..length], &passphrase());
        assert!(matches!(result, Err(BackupError::Truncated)), "{length}: {result:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    for (length, whole) in [(0, false), (5, false), (LENGTH, false), (octets.len() - 1, false), (octets.len(), true)] {
        std::fs::write(&path, &octets[..length]).unwrap();
        assert_eq!(is_whole(&path).unwrap(), whole, "{length}");
    }
    for length in [0, 5] {
        assert!(matches!(inspect(&octets[..length], &passphrase()), Err(BackupError::NotABackup)));
    }
}

#[test]
fn every_change_is_noticed() {
    let octets = backup(&[item("a", &vec![5; 70_000]), item("b", b"short")]);
    for position in (0..octets.len()).filter(|position| *position < LENGTH + 40 || position % 997 == 0) {
        let mut changed = octets.clone();
        changed[position] ^= 1;
        let Err(error) = inspect(changed.as_slice(), &passphrase()) else { panic!("octet {position} does not count") };
        let fits = match position {
            0..8 => matches!(error, BackupError::NotABackup),
            8 => matches!(error, BackupError::Version(0)),
            9..18 => matches!(error, BackupError::WrongPassphrase | BackupError::Cost),
            _ if position < LENGTH => matches!(error, BackupError::WrongPassphrase),
            _ => matches!(error, BackupError::Tampered(_) | BackupError::Truncated),
        };
        assert!(fits, "octet {position}: {error:?}");
    }
    let mut longer = octets.clone();
    longer.push(0);
    assert!(matches!(inspect(longer.as_slice(), &passphrase()), Err(BackupError::Tampered(_))));
}

#[test]
fn chunks_cannot_be_swapped_or_taken_from_another_backup() {
    let content = vec![5; 65_536 * 4];
    let octets = backup(&[item("a", &content)]);
    let chunk = 4 + 65_536 + 16;
    let mut swapped = octets.clone();
    swapped[LENGTH..LENGTH + chunk].copy_from_slice(&octets[LENGTH + chunk..LENGTH + 2 * chunk]);
    assert!(matches!(inspect(swapped.as_slice(), &passphrase()), Err(BackupError::Tampered(_))));
    let mut mixed = backup(&[item("a", &content)]);
    mixed[LENGTH..LENGTH + chunk].copy_from_slice(&octets[LENGTH..LENGTH + chunk]);
    assert!(matches!(inspect(mixed.as_slice(), &passphrase()), Err(BackupError::Tampered(_))));
}

#[test]
fn a_failed_restore_leaves_nothing() {
    let octets = backup(&sample_items());
    let parent = tempfile::tempdir().unwrap();
    let cut = &octets[..octets.len() - 1];
    assert!(matches!(restore(cut, &passphrase(), parent.path(), Timestamp(0)), Err(BackupError::Truncated)));
    assert!(listing(parent.path()).is_empty());
    std::fs::write(parent.path().join("something"), "").unwrap();
    let refused = restore(octets.as_slice(), &passphrase(), parent.path(), Timestamp(0));
    assert!(matches!(refused, Err(BackupError::NotEmpty(_))));
    assert_eq!(listing(parent.path()), ["something"]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in
        ["", ".", "..", "../a", "a/../b", "/etc/passwd", "a//b", "a/", ".hidden", "a\\b", "a\0", "restored.json", "a/b/c/d/e"]
    {
        assert!(name.parse::<FileName>().is_err(), "{name:?} was taken");
    }
    // The same on reading: a backup made by a hostile holder of the passphrase.
    let forged = forge(|out| {
        frame::write_manifest(out, &manifest()).unwrap();
        let name = b"../../escaped";
        let head = [&[2][..], &u16::try_from(name.len()).unwrap().to_be_bytes(), name, &0_u64.to_be_bytes()].concat();
        std::io::Write::write_all(out, &head).unwrap();
        frame::write_end(out, 1).unwrap();
    });
    let parent = tempfile::tempdir().unwrap();
    let refused = restore(forged.as_slice(), &passphrase(), &parent.path().join("a/b"), Timestamp(0));
    assert!(matches!(refused, Err(BackupError::Name(_))), "{refused:?}");
    assert_eq!(listing(parent.path()), ["a"]);
}

fn forge(write: impl FnOnce(&mut cipher::Encrypting<Vec<u8>>)) -> Vec<u8> {
    let header = header::Header::new(&passphrase(), CHEAP, &SystemRandom::new()).unwrap();
    let mut out = cipher::Encrypting::new(Vec::new(), &header).unwrap();
    write(&mut out);
    out.finish().unwrap()
}

#[test]
fn hostile_content_is_refused() {
    let head = |name: &str, size| frame::FileHead { name: name.parse().unwrap(), size };
    let huge = forge(|out| {
        frame::write_manifest(out, &manifest()).unwrap();
        frame::write_file_head(out, &head("a", u64::MAX)).unwrap();
    });
    assert!(matches!(inspect(huge.as_slice(), &passphrase()), Err(BackupError::TooLarge(_))));
    let count = forge(|out| {
        frame::write_manifest(out, &manifest()).unwrap();
        frame::write_end(out, 3).unwrap();
    });
    assert!(matches!(inspect(count.as_slice(), &passphrase()), Err(BackupError::Form(_))));
    let short = forge(|out| {
        frame::write_manifest(out, &manifest()).unwrap();
        frame::write_file_head(out, &head("a", 100)).unwrap();
    });
    assert!(matches!(inspect(short.as_slice(), &passphrase()), Err(BackupError::Form(_))));
    let twice = backup(&[item("a", b"1"), item("a", b"2")]);
    let parent = tempfile::tempdir().unwrap();
    assert!(restore(twice.as_slice(), &passphrase(), parent.path(), Timestamp(0)).is_err());
    assert!(matches!(inspect(&b"no backup at all, and long enough to hold a whole header of one of ours, or more........................................"[..], &passphrase()), Err(BackupError::NotABackup)));
}

#[test]
fn a_header_that_asks_for_too_much_is_refused_before_scrypt_runs() {
    let mut octets = backup(&[]);
    octets[9] = 40;
    assert!(matches!(inspect(octets.as_slice(), &passphrase()), Err(BackupError::Cost)));
}
