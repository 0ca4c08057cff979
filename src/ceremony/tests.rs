use std::path::Path;

use fleetmark_domain::{RevocationReason, Timestamp};
use secrecy::SecretString;

use super::answer::RootAnswer;
use super::directory::{Done, LIST_LIFETIME, People, RootDirectory};
use super::files::verify;
use super::record::Record;
use super::request::{Asked, RootRequest, ToRevoke};
use super::*;
use crate::pki::keys::KeyAlgorithm;
use crate::pki::request::{pem, request};
use crate::pki::testing::{key, now};

fn secret() -> SecretString {
    SecretString::from("a passphrase for tests".to_owned())
}

fn people() -> People {
    People {
        by: "Ada Lovelace".to_owned(),
        witnesses: vec!["Grace Hopper".to_owned()],
        machine: "vault".to_owned(),
        software: "fleetmark 0".to_owned(),
    }
}

fn create(path: &Path, algorithm: &str) -> (RootDirectory, Done) {
    let profiles = profiles(None).unwrap();
    let domain = "fleet.example".parse().unwrap();
    RootDirectory::create(path, secret(), &profiles, (domain, Some(algorithm)), &people(), now()).unwrap()
}

/// A request for the authority of the fleet `pumps`, at this place.
fn asked(index: u32) -> RootRequest {
    let domain: TrustDomain = "fleet.example".parse().unwrap();
    let (profiles, fleet) = (profiles(None).unwrap(), "pumps".parse().unwrap());
    let profile = profiles.find("authority-device").unwrap();
    let (organization, name) = authority_names(&domain, Kind::Device, Some(&fleet), None);
    let csr = request(&*key(KeyAlgorithm::P256), profile, &organization, &name).unwrap();
    let mut file = RootRequest::new(domain, None, 1, "http://fleet.example:8080".to_owned());
    file.authorities.push(Asked {
        id: format!("authority-device-{index}"),
        kind: Kind::Device,
        fleet: Some(fleet),
        epoch: 1,
        index,
        lifetime_seconds: profile.lifetime.as_secs(),
        path_length: 0,
        exclude_addresses: false,
        number: None,
        csr: pem(&csr),
    });
    file
}

fn sign(root: &mut RootDirectory, file: &RootRequest, at: Timestamp) -> Result<Done, CeremonyError> {
    let profiles = profiles(None).unwrap();
    let items = root.judge(file, &profiles)?;
    root.sign(file, &items, &people(), at)
}

#[test]
fn an_answer_says_what_its_record_says_and_nothing_else() {
    for algorithm in ["p256", "p384"] {
        let directory = tempfile::tempdir().unwrap();
        let (mut root, first) = create(directory.path(), algorithm);
        let done = sign(&mut root, &asked(1), now()).unwrap();
        let answer = RootAnswer::read(&done.answer.file()).unwrap();
        let verified = answer.verified().unwrap();
        assert_eq!((verified.record.number, verified.list_facts.number, verified.authorities.len()), (2, 2, 1));
        assert_eq!(verified.record.previous, Some(sha256(first.record.as_bytes())));
        let first = RootAnswer::read(&first.answer.file()).unwrap();
        for change in [
            |answer: &mut RootAnswer, _: &RootAnswer| answer.authorities.clear(),
            |answer: &mut RootAnswer, _: &RootAnswer| answer.authorities[0].id = "another".to_owned(),
            |answer: &mut RootAnswer, first: &RootAnswer| answer.list.clone_from(&first.list),
            |answer: &mut RootAnswer, first: &RootAnswer| answer.record.clone_from(&first.record),
            |answer: &mut RootAnswer, first: &RootAnswer| answer.signature.clone_from(&first.signature),
            |answer: &mut RootAnswer, _: &RootAnswer| answer.record = answer.record.replace("Grace", "Eve"),
        ] {
            let mut other = answer.clone();
            change(&mut other, &first);
            assert!(matches!(other.verified(), Err(CeremonyError::Record(_))), "{other:?}");
        }
        assert!(RootAnswer::read(b"{}").is_err() && RootAnswer::read(&vec![b' '; MAX_FILE + 1]).is_err());
    }
}

#[test]
fn a_record_is_read_as_it_is_written_and_no_name_breaks_out_of_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let (mut root, _) = create(directory.path(), "p256");
    let done = sign(&mut root, &asked(1), now()).unwrap();
    let record = Record::parse(&done.record).unwrap();
    assert_eq!(record.text(), done.record);
    for spoiled in [
        done.record.replace("number: 2", "number: 02"),
        done.record.replace("by: ", "by:  "),
        done.record.replace("act: ", "act: x\nact: "),
        done.record.replace("Signature", "signature"),
        done.record.clone() + "\n",
        done.record.replace("\n\n", "\nmore: x\n\n"),
    ] {
        assert!(Record::parse(&spoiled).is_err(), "{spoiled}");
    }
    for name in ["", " ", "a\nroot: x", "a\rb", "\u{202e}a", &"a".repeat(129)] {
        let other = People { by: name.to_owned(), ..people() };
        assert!(matches!(root.list(Vec::new(), LIST_LIFETIME, &other, now()), Err(CeremonyError::Name(_))), "{name:?}");
    }
}

#[test]
fn the_same_request_gets_the_same_certificate_and_a_place_has_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let (mut root, _) = create(directory.path(), "p256");
    let file = asked(1);
    let once = sign(&mut root, &file, now()).unwrap().answer;
    let again = sign(&mut root, &file, now() + LIST_LIFETIME).unwrap().answer;
    assert_eq!(once.authorities, again.authorities);
    assert!(matches!(sign(&mut root, &asked(1), now()), Err(CeremonyError::Refused { .. })), "another key for the place");
    let mut moved = file.clone();
    moved.authorities[0].index = 2;
    assert!(matches!(sign(&mut root, &moved, now()), Err(CeremonyError::Refused { .. })), "another place for the key");
    assert!(matches!(sign(&mut root, &asked(0), now()), Err(CeremonyError::Refused { .. })), "the root's own place");
    sign(&mut root, &asked(2), now()).unwrap();
}

#[test]
fn a_process_that_died_leaves_a_directory_that_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (mut root, _) = create(path, "p256");
    // Another process finds it locked, and this one has it whole.
    assert!(matches!(RootDirectory::open(path, secret()), Err(CeremonyError::Busy(_))));
    let before = std::fs::read(path.join("root.json")).unwrap();
    sign(&mut root, &asked(1), now()).unwrap();
    drop(root);
    let after = std::fs::read(path.join("root.json")).unwrap();

    // Died after the record, before the files took their place: they take it.
    std::fs::write(path.join("root.json"), &before).unwrap();
    std::fs::write(path.join("root.json.next"), &after).unwrap();
    drop(RootDirectory::open(path, secret()).unwrap());
    assert_eq!(std::fs::read(path.join("root.json")).unwrap(), after);

    // Died before the record: what was written is forgotten.
    std::fs::write(path.join("root.json.next"), b"{}").unwrap();
    std::fs::write(path.join("records/0003.cms"), b"").unwrap();
    let mut root = RootDirectory::open(path, secret()).unwrap();
    assert_eq!(root.list(Vec::new(), LIST_LIFETIME, &people(), now()).unwrap().answer.verified().unwrap().record.number, 3);
    assert_eq!(verify(path).unwrap().len(), 3);
    drop(root);

    // Died at the very first act, after the key was kept.
    let other = tempfile::tempdir().unwrap();
    let (made, _) = create(other.path(), "p256");
    drop(made);
    for file in ["root.pem", "root.json", "root.crl.pem", "records/0001.txt"] {
        std::fs::remove_file(other.path().join(file)).unwrap();
    }
    assert!(matches!(RootDirectory::open(other.path(), secret()), Err(CeremonyError::Missing(_))));
    create(other.path(), "p256");
}

#[test]
fn what_lies_beside_the_records_is_held_against_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (mut root, _) = create(path, "p256");
    sign(&mut root, &asked(1), now()).unwrap();
    drop(root);
    let other = tempfile::tempdir().unwrap();
    drop(create(other.path(), "p256"));
    for file in ["root.json", "root.crl.pem", "root.pem", "records/0001.txt", "records/0001.cms", "records/0002.txt"] {
        let good = std::fs::read(path.join(file)).unwrap();
        let mut spoiled = good.clone();
        let middle = spoiled.len() / 2;
        spoiled[middle] ^= 1;
        let foreign = std::fs::read(other.path().join(file)).unwrap_or_default();
        // The certificates that a signature brings are not looked at, and the middle of one is there.
        let changed = if file.contains(".cms") { vec![foreign] } else { vec![spoiled, foreign] };
        for text in changed {
            std::fs::write(path.join(file), text).unwrap();
            assert!(verify(path).is_err(), "{file}");
            assert!(RootDirectory::open(path, secret()).is_err(), "{file}");
        }
        std::fs::write(path.join(file), good).unwrap();
    }
    verify(path).unwrap();
    std::fs::remove_file(path.join("records/0001.txt")).unwrap();
    assert!(verify(path).is_err());
}

#[test]
fn a_list_names_what_was_revoked_once_and_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let (mut root, _) = create(directory.path(), "p256");
    let answer = sign(&mut root, &asked(1), now()).unwrap().answer.verified().unwrap();
    let serial = crate::pki::issue::facts(&answer.authorities[0].1).unwrap().serial.unwrap();
    let line = ToRevoke { serial: serial.to_string(), reason: RevocationReason::KeyCompromise, since: now() };
    let mut listed =
        |lines: Vec<ToRevoke>| root.list(lines, LIST_LIFETIME, &people(), now()).map(|done| done.answer.verified().unwrap());
    let once = listed(vec![line.clone()]).unwrap();
    assert_eq!((once.list_facts.serials.len(), once.record.revoked.len(), once.record.list.entries), (1, 1, 1));
    let twice = listed(vec![line.clone()]).unwrap();
    assert_eq!((twice.list_facts.serials.len(), twice.record.revoked.len()), (1, 0));
    assert!(twice.list_facts.number > once.list_facts.number);
    let unknown = ToRevoke { serial: "01".to_owned() + &"09".repeat(16), ..line.clone() };
    assert!(matches!(listed(vec![unknown]), Err(CeremonyError::Refused { .. })));
    assert!(matches!(listed(vec![ToRevoke { serial: "x".to_owned(), ..line }]), Err(CeremonyError::Refused { .. })));
}
