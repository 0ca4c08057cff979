//! Bundles signed by openssl, which made none of ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::*;

/// A root with its files: `N.pem`, `N.key`.
fn root(dir: &Path, number: u32) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(rcgen::SerialNumber::from(u64::from(number)));
    let certificate = params.self_signed(&key).unwrap();
    fs::write(dir.join(format!("{number}.pem")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{number}.key")), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

/// What openssl signs, with these roots' keys.
fn signed(dir: &Path, content: &serde_json::Value, by: &[u32]) -> Vec<u8> {
    fs::write(dir.join("content"), content.to_string()).unwrap();
    let mut command = Command::new("openssl");
    command.current_dir(dir).args([
        "cms",
        "-sign",
        "-binary",
        "-nodetach",
        "-in",
        "content",
        "-outform",
        "DER",
        "-out",
        "message",
    ]);
    for number in by {
        command.args(["-signer", &format!("{number}.pem"), "-inkey", &format!("{number}.key")]);
    }
    assert!(command.status().unwrap().success());
    fs::read(dir.join("message")).unwrap()
}

fn said(number: u64, roots: &[(&str, &CertificateDer<'_>)], revoked: &[&CertificateDer<'_>]) -> serde_json::Value {
    let root = |(state, der): &(&str, &CertificateDer<'_>)| json!({"state": state, "certificate": STANDARD.encode(der)});
    let gone = |der: &&CertificateDer<'_>| json!({"fingerprint": fingerprint(der), "key": Fingerprint(sha256(parse(der).unwrap().public_key().raw))});
    json!({"form": FORM, "trust_domain": "fleet.test", "number": number, "made_at": "2026-11-24T00:00:00Z",
        "roots": roots.iter().map(root).collect::<Vec<_>>(), "revoked": revoked.iter().map(gone).collect::<Vec<_>>()})
}

fn code(outcome: Result<Option<Trust>, Error>) -> String {
    outcome.expect_err("it was taken").code().to_owned()
}

#[test]
fn a_former_root_leads_on_step_by_step_and_its_word_ends_with_its_taint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (old, new, newest, evil) = (root(dir, 1), root(dir, 2), root(dir, 3), root(dir, 9));
    let roots = Roots::new(vec![old.clone()]).unwrap();
    let drawer = Known { roots: &roots, trust: None };
    let first = signed(dir, &said(5, &[("tainted", &old), ("active", &new)], &[]), &[1, 2]);
    let second = signed(dir, &said(7, &[("active", &new), ("prepared", &newest)], &[&old]), &[2, 3]);
    let third = signed(dir, &said(9, &[("active", &newest)], &[&old, &new]), &[3]);

    let all = follow(&drawer, &[&first, &second, &third]).unwrap().unwrap();
    assert_eq!((all.number, all.server_roots().unwrap().certificates()), (9, std::slice::from_ref(&newest)));
    assert_eq!(all.server_roots().unwrap().refused().len(), 2);
    assert_eq!(code(follow(&drawer, &[&second])), "trust_bundle_unsigned", "a step is missing");
    assert_eq!(code(follow(&drawer, &[&first, &third])), "trust_bundle_unsigned", "a step is missing");

    // Who read the first one does not believe the old key any more, whatever number it writes.
    let told = follow(&drawer, &[&first]).unwrap().unwrap();
    assert_eq!(told.all_roots().unwrap().certificates().len(), 2);
    assert_eq!(told.server_roots().unwrap().certificates(), std::slice::from_ref(&new));
    assert_eq!(told.counting().unwrap(), [fingerprint(&new)]);
    let knows = Known { roots: &roots, trust: Some(&told) };
    let thief = signed(dir, &said(99, &[("active", &evil)], &[]), &[1, 9]);
    assert_eq!(code(follow(&knows, &[&thief])), "trust_bundle_unsigned");
    assert_eq!(code(follow(&knows, &[&signed(dir, &said(99, &[("active", &old)], &[]), &[1])])), "trust_bundle_unsigned");
    // One that was in the drawer cannot tell: docs/authorities.md says so.
    assert!(follow(&drawer, &[&thief]).unwrap().is_some());

    // It goes on from where it is, passes over what it knows, and does not go back.
    assert_eq!(follow(&knows, &[&first, &second, &third]).unwrap().unwrap(), all);
    assert_eq!(follow(&knows, &[&first]).unwrap(), None);
    let knows = Known { roots: &roots, trust: Some(&all) };
    assert_eq!(code(follow(&knows, &[&first, &second])), "trust_bundle_rolled_back");
    let forgiving = signed(dir, &said(10, &[("active", &newest), ("active", &old)], &[&new]), &[3, 1]);
    assert_eq!(code(follow(&knows, &[&forgiving])), "trust_bundle_malformed", "what was revoked stays so");
}

#[test]
fn a_new_root_speaks_for_itself_and_nothing_that_was_changed_counts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (old, new) = (root(dir, 1), root(dir, 2));
    let roots = Roots::new(vec![old.clone()]).unwrap();
    let known = Known { roots: &roots, trust: None };
    let alone = signed(dir, &said(5, &[("active", &old), ("prepared", &new)], &[]), &[1]);
    assert_eq!(code(follow(&known, &[&alone])), "trust_bundle_unsigned", "the new root did not sign");
    let good = signed(dir, &said(5, &[("active", &old), ("prepared", &new)], &[]), &[1, 2]);
    let other = signed(dir, &json!({"form": "another"}), &[1]);
    assert_eq!(code(follow(&known, &[&other])), "trust_bundle_malformed");
    assert_eq!(code(follow(&known, &[])), "trust_bundle_malformed");
    assert_eq!(code(follow(&known, &vec![&good[..]; MAX_BUNDLES + 1])), "trust_bundle_malformed");
    for length in (0..good.len()).step_by(7) {
        assert!(follow(&known, &[&good[..length]]).is_err(), "cut after {length} octets");
    }
    let expected = follow(&known, &[&good]).unwrap();
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        // Octets that nobody signs, such as the certificates beside, may differ; what is believed may not.
        if let Ok(taken) = follow(&known, &[&damaged]) {
            assert_eq!(taken, expected, "octet {at}");
        }
    }
}
