//! The directory after a power cut between any two steps.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::answer::{Expected, accept};
use crate::testing::Authority;
use crate::wire::Issued;

/// What another test starts has the lock too, for a moment: between fork and exec.
fn open(dir: &Path) -> Result<Store, Error> {
    let busy = |opened: &Result<Store, Error>| matches!(opened, Err(Error::Busy(_)));
    let mut tries = (0..1_000).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        Store::open(dir)
    });
    tries.find(|opened| !busy(opened)).unwrap_or_else(|| Store::open(dir))
}

fn purpose() -> Purpose {
    Purpose::Enroll { door: crate::door::Door::Installation, name: None }
}

fn accepted(authority: &Authority, key: &DeviceKey, index: u32) -> Accepted {
    let issued: Issued =
        serde_json::from_value(authority.issue(&key.public(), "spiffe://t/gateway/edge", index)).expect("issued");
    let roots = Roots::new(vec![authority.root.clone()]).expect("roots");
    accept(&issued, key, &Expected::Same(issued.identity.clone()), &roots).expect("accepted")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("dir").map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs the first `steps` steps of an enrollment, as a process that is killed then.
fn killed_after(steps: usize, dir: &Path, authority: &Authority) {
    let store = open(dir).expect("open");
    let mut left = steps;
    let mut next = || {
        left = left.wrapping_sub(1);
        left != usize::MAX
    };
    if !next() {
        return;
    }
    let pending = store.stage(purpose()).expect("stage");
    if !next() {
        return;
    }
    let generation = store.keep(&accepted(authority, &pending.key, 1), &pending.key).expect("keep");
    if !next() {
        return;
    }
    // The steps within `adopt`.
    let roots = fs::read_to_string(store.path_of(generation.number).join("ca.pem")).expect("roots");
    store.save_roots(&Roots::from_pem(&roots).expect("roots")).expect("save");
    if !next() {
        return;
    }
    store.point_to(generation.number).expect("link");
    if !next() {
        return;
    }
    store.discard_answered(&generation).expect("discard");
    if !next() {
        return;
    }
    store.confirmed(&generation, generation.record.renew_after).expect("confirmed");
}

#[test]
fn it_goes_on_after_a_cut_between_any_two_steps() {
    let authority = Authority::new("ca");
    for steps in 0..=6 {
        let dir = TempDir::new().expect("dir");
        killed_after(steps, dir.path(), &authority);
        let staged = View::new(dir.path()).pending().expect("read").map(|pending| pending.key.hash());
        let store = open(dir.path()).expect("open again");
        match steps {
            0 => assert!(store.pending().expect("read").is_none() && store.current().expect("read").is_none()),
            1 => {
                assert_eq!(Some(store.stage(purpose()).expect("stage").key.hash()), staged, "the same key");
                assert!(store.current().expect("read").is_none());
            }
            _ => {
                let current = store.current().expect("read").expect("identity");
                assert_eq!(current.record.confirmed, steps == 6);
                assert!(store.pending().expect("read").is_none() && store.roots().expect("read").is_some());
                assert!(staged.is_none_or(|staged| store.key(&current).expect("key").hash() == staged));
            }
        }
        assert!(names(dir.path()).iter().all(|name| !name.starts_with(".tmp-")));
    }
}

#[test]
fn half_written_files_are_swept() {
    let dir = TempDir::new().expect("dir");
    drop(open(dir.path()).expect("open"));
    fs::create_dir(dir.path().join(".tmp-pending")).expect("dir");
    fs::write(dir.path().join(".tmp-pending/key.pem"), "half").expect("write");
    fs::write(dir.path().join("generations/.tmp-1"), "half").expect("write");
    let store = open(dir.path()).expect("open");
    assert_eq!(names(dir.path()), ["generations", "lock"]);
    assert!(names(&dir.path().join("generations")).is_empty());
    // And one that appeared after the sweep does not stand in the way.
    fs::create_dir(dir.path().join(".tmp-pending")).expect("dir");
    store.stage(purpose()).expect("stage");
}

#[test]
fn a_cut_while_giving_up_is_made_good() {
    let (dir, authority) = (TempDir::new().expect("dir"), Authority::new("ca"));
    let store = open(dir.path()).expect("open");
    let mut kept = Vec::new();
    for index in 1..=2 {
        let key = DeviceKey::generate().expect("key");
        let generation = store.keep(&accepted(&authority, &key, index), &key).expect("keep");
        store.adopt(&generation).expect("adopt");
        kept.push(generation);
    }
    // Only the first half of `abandon`.
    store.point_to(1).expect("link");
    drop(store);
    let store = open(dir.path()).expect("open");
    let current = store.current().expect("read").expect("identity");
    assert_eq!(current, kept[1], "it is there again, and will be refused again");
    store.abandon(&current).expect("abandon");
    drop(store);
    let store = open(dir.path()).expect("open");
    assert_eq!(store.current().expect("read").expect("identity"), kept[0]);
    store.abandon(&kept[0]).expect("abandon");
    assert!(store.current().expect("read").is_none());
}

#[test]
fn what_a_bundle_said_reaches_other_programs_after_a_cut_and_a_step_back_too() {
    let (dir, old, new) = (TempDir::new().expect("dir"), Authority::new("old"), Authority::new("new"));
    let store = open(dir.path()).expect("open");
    for index in 1..=2 {
        let key = DeviceKey::generate().expect("key");
        store.adopt(&store.keep(&accepted(&old, &key, index), &key).expect("keep")).expect("adopt");
    }
    let root = serde_json::json!({ "state": "active", "certificate": STANDARD.encode(&new.root) });
    let trust: Trust = serde_json::from_value(serde_json::json!({
        "form": "fleetmark-trust-bundle/v1", "trust_domain": "t", "number": 1, "made_at": Timestamp(0), "roots": [root], "revoked": [],
    }))
    .expect("a bundle");
    // Only the first step of `save_trust`.
    replace(dir.path(), TRUST_STATE, &json(&trust).expect("JSON"), PUBLIC).expect("write");
    drop(store);
    let roots = trust.all_roots().expect("roots").pem();
    let read = |file: &str| fs::read_to_string(dir.path().join(file)).expect("a file");
    let store = open(dir.path()).expect("open again");
    assert_eq!((read("trust.pem"), read("current/ca.pem")), (roots.clone(), roots.clone()));
    assert_ne!(read("generations/1/ca.pem"), roots, "nobody uses it");
    store.abandon(&store.current().expect("read").expect("identity")).expect("abandon");
    assert_eq!(read("current/ca.pem"), roots);
    assert_eq!(read("generations/1/ca.pem"), roots);
}

#[test]
fn another_purpose_gets_another_key() {
    let dir = TempDir::new().expect("dir");
    let store = open(dir.path()).expect("open");
    let one = store.stage(purpose()).expect("stage").key.hash();
    assert_eq!(store.stage(purpose()).expect("stage").key.hash(), one);
    let renew = Purpose::Renew(fleetmark_domain::Fingerprint([1; 32]));
    assert_ne!(store.stage(renew).expect("stage").key.hash(), one);
}

#[test]
fn a_damaged_staged_key_is_replaced_and_a_damaged_identity_is_not() {
    let (dir, authority) = (TempDir::new().expect("dir"), Authority::new("ca"));
    let store = open(dir.path()).expect("open");
    let one = store.stage(purpose()).expect("stage").key.hash();
    fs::write(dir.path().join("pending/key.pem"), "").expect("write");
    assert_ne!(store.stage(purpose()).expect("stage").key.hash(), one);
    let key = DeviceKey::generate().expect("key");
    let generation = store.keep(&accepted(&authority, &key, 1), &key).expect("keep");
    store.adopt(&generation).expect("adopt");
    fs::write(dir.path().join("current/identity.json"), "{").expect("write");
    drop(store);
    let error = open(dir.path()).expect_err("damaged");
    assert_eq!((error.code(), error.exit_code()), ("file_damaged", 6));
    assert!(error.to_string().contains("identity.json"), "{error}");
}

#[test]
fn a_directory_that_everybody_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().expect("dir");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    assert_eq!(open(dir.path()).expect_err("open to all").code(), "file_damaged");
}
