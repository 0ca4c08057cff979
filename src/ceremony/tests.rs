use std::path::Path;

use fleetmark_domain::{RevocationReason, Timestamp};
use secrecy::SecretString;

use super::answer::RootAnswer;
use super::directory::{Done, LIST_LIFETIME, People, RootDirectory};
use super::files::verify;
use super::record::Record;
use super::request::{Asked, AskedBundle, AskedRoot, BundleRoot, BundleState, NewRoot, RootRequest, ToRevoke};
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
        assert_eq!((answer.before.as_slice(), first.answer.before.len()), (&[first.record.clone()][..], 0));
        assert_eq!(verified.chain, [(1, None), (2, verified.record.previous.clone())]);
        let first = RootAnswer::read(&first.answer.file()).unwrap();
        for change in [
            |answer: &mut RootAnswer, _: &RootAnswer| answer.authorities.clear(),
            |answer: &mut RootAnswer, _: &RootAnswer| answer.authorities[0].id = "another".to_owned(),
            |answer: &mut RootAnswer, first: &RootAnswer| answer.list.clone_from(&first.list),
            |answer: &mut RootAnswer, first: &RootAnswer| answer.record.clone_from(&first.record),
            |answer: &mut RootAnswer, first: &RootAnswer| answer.signature.clone_from(&first.signature),
            |answer: &mut RootAnswer, _: &RootAnswer| answer.record = answer.record.replace("Grace", "Eve"),
            |answer: &mut RootAnswer, _: &RootAnswer| answer.before[0] = answer.before[0].replace("Grace", "Eve"),
            |answer: &mut RootAnswer, _: &RootAnswer| answer.before.push(answer.record.clone()),
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
    assert_eq!((once.list_facts.revoked.len(), once.record.revoked.len(), once.record.list.entries), (1, 1, 1));
    let twice = listed(vec![line.clone()]).unwrap();
    assert_eq!((twice.list_facts.revoked.len(), twice.record.revoked.len()), (1, 0));
    assert!(twice.list_facts.number > once.list_facts.number);
    let unknown = ToRevoke { serial: "01".to_owned() + &"09".repeat(16), ..line.clone() };
    assert!(matches!(listed(vec![unknown]), Err(CeremonyError::Refused { .. })));
    assert!(matches!(listed(vec![ToRevoke { serial: "x".to_owned(), ..line }]), Err(CeremonyError::Refused { .. })));
}

#[test]
fn what_is_taken_over_keeps_its_reasons_and_dates_and_what_is_refused_leaves_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (mut root, _) = create(&path("server"), "p256");
    let (_, other) = create(&path("other"), "p256");
    let answer = sign(&mut root, &asked(1), now()).unwrap().answer.verified().unwrap();
    let serial = crate::pki::issue::facts(&answer.authorities[0].1).unwrap().serial.unwrap();
    let since = now() - std::time::Duration::from_secs(30 * 86_400);
    let line = ToRevoke { serial: serial.to_string(), reason: RevocationReason::KeyCompromise, since };
    let done = root.list(vec![line], LIST_LIFETIME, &people(), now()).unwrap();
    let before = done.answer.verified().unwrap();
    let (list, other_list) = (before.list.clone(), other.answer.verified().unwrap().list);
    let key = |root: &str| std::fs::read(path(root).join("keys/root.key.pem")).unwrap();
    let take = |key: &[u8], list: &[u8]| {
        RootDirectory::take_over(&path("vault"), secret(), (key, &before.root, list), &people(), now())
    };
    assert!(matches!(take(&key("other"), &list), Err(CeremonyError::Foreign(_))));
    assert!(matches!(take(&key("server"), &other_list), Err(CeremonyError::Foreign(_))));
    let kept = path("vault").join("keys/root.key.pem");
    assert!(!kept.exists(), "the key of a root that was not taken over");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    std::fs::write(&kept, key("other")).unwrap();
    assert!(matches!(take(&key("server"), &list), Err(CeremonyError::Pki(crate::pki::PkiError::KeyExists(_)))));
    assert_eq!(std::fs::read(&kept).unwrap(), key("other"));
    std::fs::remove_file(&kept).unwrap();
    let (_, taken) = take(&key("server"), &list).unwrap();
    let taken = taken.answer.verified().unwrap().list_facts;
    assert!(taken.number > before.list_facts.number);
    assert_eq!(taken.revoked, before.list_facts.revoked);
    assert_eq!((taken.revoked[0].since, taken.revoked[0].reason), (since, RevocationReason::KeyCompromise));
}

/// A request for a root that is to replace `old`, as a server writes it.
fn asked_for_new(old: &[u8]) -> RootRequest {
    let domain: TrustDomain = "fleet.example".parse().unwrap();
    let mut file = RootRequest::new(domain, None, 9, "http://fleet.example:8080".to_owned());
    let certificate = crate::pki::bundle::pem(&[old]);
    file.new_root = Some(NewRoot { name: "fleet.example root 2".to_owned(), epoch: 7 });
    let (id, lifetime_seconds) = ("root-1-by-9".to_owned(), 400 * 86_400);
    file.roots.push(AskedRoot { id, certificate: certificate.clone(), epoch: 7, index: 1, lifetime_seconds });
    let roots = vec![BundleRoot { state: BundleState::Active, certificate }];
    file.bundle = Some(AskedBundle { number: 5, made_at: now(), roots, revoked: Vec::new() });
    file
}

fn create_for(path: &Path, file: &RootRequest) -> Result<(RootDirectory, Done), CeremonyError> {
    RootDirectory::create_for(path, secret(), &profiles(None).unwrap(), (file, None), &people(), now())
}

fn der(pem: &str) -> Vec<u8> {
    from_pem("a certificate", "CERTIFICATE", pem).unwrap()
}

#[test]
fn a_new_root_and_the_old_one_certify_each_other_and_sign_for_the_same_bundle() {
    use base64::Engine as _;
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut old, first) = create(there.path(), "p256");
    let old_der = der(&first.answer.root);
    let file = RootRequest::read(&asked_for_new(&old_der).file()).unwrap();
    let (_, made) = create_for(here.path(), &file).unwrap();
    let said = RootAnswer::read(&made.answer.file()).unwrap().verified().unwrap();
    assert_eq!(said.record.act, "root made");
    assert_eq!(said.record.request, Some(file.digest()));
    let place = crate::pki::issue::facts(&said.root).unwrap().serial.map(|serial| (serial.epoch().0, serial.index().0));
    assert_eq!(place, Some((7, 0)));
    let pointers = file.pointers();
    let profile = judge::cross_profile(&profiles(None).unwrap()).unwrap();
    let shape = |of| judge::Cross { profile: &profile, domain: &file.trust_domain, of, pointers: &pointers };
    let at = (fleetmark_domain::Epoch(7), fleetmark_domain::Index(1));
    let cross = &said.authorities[0].1;
    let longest = now() + std::time::Duration::from_secs(400 * 86_400);
    shape(&old_der).fits(cross, &said.root, at, longest).unwrap();
    assert!(shape(&old_der).fits(cross, &old_der, at, longest).is_err(), "by another root");
    assert!(shape(&said.root).fits(cross, &said.root, at, longest).is_err(), "another root's key");
    assert!(shape(&old_der).fits(cross, &said.root, (at.0, fleetmark_domain::Index(2)), longest).is_err(), "another place");
    assert!(shape(&old_der).fits(cross, &said.root, at, now()).is_err(), "for longer");

    // The old root's part: the same bundle, with the new root in it.
    let mut bundle = file.bundle.clone().unwrap();
    let mut file = RootRequest::new(file.trust_domain.clone(), None, 1, "http://fleet.example:8080".to_owned());
    let certificate = made.answer.root.clone();
    let lifetime_seconds = 20 * 365 * 86_400;
    file.roots.push(AskedRoot { id: "root-9-by-1".to_owned(), certificate, epoch: 1, index: 4, lifetime_seconds });
    bundle.roots.push(BundleRoot { state: BundleState::Prepared, certificate: made.answer.root.clone() });
    let content = bundle.content(&file.trust_domain, None).unwrap();
    file.bundle = Some(bundle.clone());
    let done = sign(&mut old, &RootRequest::read(&file.file()).unwrap(), now()).unwrap().answer.verified().unwrap();
    for answer in [&said, &done] {
        let (hash, signature) = answer.bundle.clone().unwrap();
        assert_eq!(hash, sha256(&content), "both sign for the same");
        crate::pki::trust_bundle::voice(&content, &answer.root, &signature).unwrap();
        let other = base64::engine::general_purpose::STANDARD.encode(&signature);
        assert!(!other.is_empty() && crate::pki::trust_bundle::voice(b"{}", &answer.root, &signature).is_err());
    }
    let again = sign(&mut old, &file, now()).unwrap().answer.verified().unwrap();
    assert_eq!(again.authorities, done.authorities, "the same request, the same certificate");

    // It does not go back, and does not sign for what it is not in.
    let refused = |old: &mut RootDirectory, change: &dyn Fn(&mut AskedBundle)| {
        let mut other = file.clone();
        change(other.bundle.as_mut().unwrap());
        matches!(sign(old, &other, now()), Err(CeremonyError::Refused { .. }))
    };
    assert!(refused(&mut old, &|bundle| bundle.number = 4));
    assert!(refused(&mut old, &|bundle| bundle.roots[1].state = BundleState::Tainted), "another one of this number");
    assert!(refused(&mut old, &|bundle| drop(bundle.roots.remove(0))), "this root is not in it");
    assert!(!refused(&mut old, &|bundle| bundle.number = 6));
}

#[test]
fn a_request_for_a_root_says_no_more_than_it_may() {
    let directory = tempfile::tempdir().unwrap();
    let (root, first) = create(directory.path(), "p256");
    let old = der(&first.answer.root);
    let refused = |change: &dyn Fn(&mut RootRequest)| {
        let (mut file, path) = (asked_for_new(&old), tempfile::tempdir().unwrap());
        change(&mut file);
        let refused = create_for(path.path(), &file).is_err();
        assert!(!refused || !path.path().join("root.pem").exists());
        refused
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|file| file.new_root = None), "no root is asked for");
    assert!(refused(&|file| file.new_root.as_mut().unwrap().name = "other.example root".to_owned()));
    assert!(refused(&|file| file.new_root.as_mut().unwrap().name = "fleet.example root 02".to_owned()));
    assert!(refused(&|file| file.roots[0].index = 0), "its own place");
    assert!(refused(&|file| file.roots[0].epoch = 8), "another root's numbering");
    assert!(refused(&|file| file.roots[0].lifetime_seconds = u64::MAX));
    assert!(refused(&|file| file.authorities = asked(3).authorities));
    assert!(refused(&|file| file.trust_domain = "other.example".parse().unwrap()), "another installation's root");
    // A root that is there makes no other one, and certifies no key whose owner does not show that he has it, and not its own.
    let judged = |file: &RootRequest| root.judge(file, &profiles(None).unwrap()).map(drop);
    assert!(matches!(judged(&asked_for_new(&old)), Err(CeremonyError::Foreign(_))));
    let own = RootRequest { new_root: None, ..asked_for_new(&old) };
    assert!(matches!(judged(&own), Err(CeremonyError::Refused { .. })), "its own key");
    let other = tempfile::tempdir().unwrap();
    let (_, made) = create_for(other.path(), &asked_for_new(&old)).unwrap();
    let mut crossed = own;
    crossed.roots[0].certificate = made.answer.authorities[0].certificate.clone();
    assert!(matches!(judged(&crossed), Err(CeremonyError::Refused { .. })), "a certificate that another root signed");

    let mut many = asked_for_new(&old);
    many.roots = (0..17).map(|at| AskedRoot { id: format!("r-{at}"), ..many.roots[0].clone() }).collect();
    assert!(RootRequest::read(&many.file()).is_err());
    let mut many = asked_for_new(&old);
    many.bundle.as_mut().unwrap().roots = vec![many.bundle.as_ref().unwrap().roots[0].clone(); 17];
    assert!(RootRequest::read(&many.file()).is_err());
}

#[test]
fn names_of_roots_and_successors() {
    let domain: TrustDomain = "fleet.example".parse().unwrap();
    for (name, fits) in [
        ("fleet.example root", true),
        ("fleet.example root 2", true),
        ("fleet.example root 1", false),
        ("fleet.example root 02", false),
        ("fleet.example root x", false),
        ("other.example root", false),
    ] {
        assert_eq!(is_root_name(&domain, name), fits, "{name}");
    }
    let long: TrustDomain = format!("{}.example", "a".repeat(60)).parse().unwrap();
    let name = root_names(&long, Some(12)).1;
    assert!(name.len() == 64 && name.ends_with(" 12") && is_root_name(&long, &name), "{name}");
    let (fleet, none) = ("pumps".parse().unwrap(), None);
    assert_eq!(authority_names(&domain, Kind::Device, Some(&fleet), Some(3)).1, "pumps device authority 3");
    assert_eq!(number_in("pumps device authority 3"), Some(3));
    assert_eq!([number_in("pumps device authority"), number_in("x 1"), number_in("gateway authority 1")], [none; 3]);
}
