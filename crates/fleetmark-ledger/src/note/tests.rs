use base64::prelude::{BASE64_STANDARD, Engine as _};
use fleetmark_domain::Timestamp;
use proptest::prelude::*;
use signed_note::{Note, Signer, StandardVerifier, Verifier, VerifierList};

use super::*;
use crate::merkle::{Hash, empty_root, leaf_hash};

const ORIGIN: &str = "fleet.example/ledger/default";

/// Of RFC 8032 7.1, test 1; the public key stands there too.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// PKCS#8 as openssl writes it, without the public key (RFC 8410 7).
fn pkcs8(seed: &str) -> Vec<u8> {
    hex::decode(format!("302e020100300506032b657004220420{seed}")).unwrap()
}

fn key() -> LedgerKey {
    LedgerKey::from_pkcs8(ORIGIN, &pkcs8(SEED)).unwrap()
}

fn head() -> Head {
    Head { size: 3, root: leaf_hash(b"root") }
}

/// Signature type 0x04 in the terms of the crate `signed_note`.
struct Cosigner {
    verifier: VerifierKey,
}

impl Verifier for Cosigner {
    fn name(&self) -> &str {
        &self.verifier.name
    }

    fn key_id(&self) -> u32 {
        signed_note::key_id(&self.verifier.name, &[&[4], &self.verifier.key[..]].concat())
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let (time, signature) = signature.split_at(8);
        let time = u64::from_be_bytes(time.try_into().unwrap());
        let message = [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat();
        StandardVerifier::new(&self.verifier.to_vkey()).unwrap().verify(&message, signature)
    }
}

#[test]
fn a_stranger_verifies_both_signatures_and_reads_the_checkpoint() {
    let signed = key().sign(&head(), Timestamp(1_763_769_600));
    let note = Note::from_bytes(signed.as_bytes()).unwrap();
    let plain = StandardVerifier::new(&key().verifier().to_vkey()).unwrap();
    let cosigner = Cosigner { verifier: key().verifier() };
    let (verified, unknown) = note.verify(&VerifierList::new(vec![Box::new(plain), Box::new(cosigner)])).unwrap();
    assert_eq!((verified.len(), unknown.len()), (2, 0));
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size(), checkpoint.hash().0), (ORIGIN, 3, head().root.0));
    let expected = Checkpoint { origin: ORIGIN.to_owned(), head: head(), at: Timestamp(1_763_769_600) };
    assert_eq!(key().verifier().open(&signed), Ok(expected));
}

#[test]
fn a_strangers_plain_signature_is_taken_and_others_are_ignored() {
    let octets = [&[1], &hex::decode(SEED).unwrap()[..]].concat();
    let id = signed_note::key_id(ORIGIN, &[&[1], &hex::decode(PUBLIC).unwrap()[..]].concat());
    let theirs = format!("PRIVATE+KEY+{ORIGIN}+{id:08x}+{}", BASE64_STANDARD.encode(octets));
    let theirs = signed_note::StandardSigner::new(&theirs).unwrap();
    let signed = key().sign(&head(), Timestamp(5));
    let mut note = Note::from_bytes(signed.as_bytes()).unwrap();
    note.add_sigs(&[&theirs as &dyn Signer]).unwrap();
    let other = LedgerKey::from_pkcs8(ORIGIN, &pkcs8(&"11".repeat(32))).unwrap().sign(&head(), Timestamp(900));
    let others_lines = other.split_once("\n\n").unwrap().1;
    let text = String::from_utf8(note.to_bytes()).unwrap() + others_lines;
    let opened = key().verifier().open(&text).unwrap();
    assert_eq!(opened.at, Timestamp(5), "another key's time does not count");
}

#[test]
fn keys_are_those_of_the_specifications() {
    assert_eq!(hex::encode(key().verifier().key), PUBLIC);
    let go = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let verifier = VerifierKey::from_vkey(go).unwrap();
    assert_eq!((verifier.name.as_str(), verifier.to_vkey().as_str()), ("PeterNeumann", go));
    let ours = key().verifier();
    assert_eq!(VerifierKey::from_vkey(&ours.to_vkey()), Ok(ours));
    let ring = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    assert!(LedgerKey::from_pkcs8(ORIGIN, ring.as_ref()).is_ok());
}

#[test]
fn wrong_keys_and_names_are_refused() {
    for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b", &"a".repeat(513)] {
        assert!(LedgerKey::from_pkcs8(name, &pkcs8(SEED)).is_err(), "{name:?}");
    }
    assert_eq!(LedgerKey::from_pkcs8(ORIGIN, b"no key").unwrap_err(), NoteError::Key);
    let good = key().verifier().to_vkey();
    for line in [
        good.replace("default", "other"),
        good.replace("+AddamA", "+BNdamA"),
        good.replace("+AddamA", "+Addama"),
        format!("{good} "),
        good[..good.len() - 4].to_owned(),
        String::new(),
        "a+00000000+".to_owned(),
    ] {
        assert_ne!(line, good, "the test changes nothing");
        assert!(VerifierKey::from_vkey(&line).is_err(), "{line}");
    }
}

#[test]
fn debug_shows_the_name_alone() {
    assert_eq!(format!("{:?}", key()), format!("LedgerKey {{ name: {ORIGIN:?}, .. }}"));
}

/// The checkpoint text and the two signature lines.
fn parts() -> (String, String, String) {
    let signed = key().sign(&head(), Timestamp(7));
    let (text, lines) = signed.split_once("\n\n").unwrap();
    let (plain, timestamped) = lines.split_once('\n').unwrap();
    (format!("{text}\n"), format!("{plain}\n"), timestamped.to_owned())
}

#[test]
fn both_signatures_are_demanded() {
    let (text, plain, timestamped) = parts();
    let open = |lines: &str| key().verifier().open(&format!("{text}\n{lines}"));
    assert!(open(&format!("{plain}{timestamped}")).is_ok());
    assert!(open(&format!("{timestamped}{plain}")).is_ok(), "in any order");
    assert_eq!(open(&plain), Err(NoteError::Unsigned));
    assert_eq!(open(&timestamped), Err(NoteError::Unsigned));
    assert_eq!(open(&format!("{plain}{plain}")), Err(NoteError::Unsigned));
}

#[test]
fn of_several_timestamps_the_newest_counts() {
    let (text, plain, timestamped) = parts();
    let newer = key().sign(&head(), Timestamp(9));
    let newer = newer.lines().last().unwrap();
    for lines in [format!("{timestamped}{newer}\n"), format!("{newer}\n{timestamped}")] {
        assert_eq!(key().verifier().open(&format!("{text}\n{plain}{lines}")).unwrap().at, Timestamp(9));
    }
}

#[test]
fn tampered_notes_are_refused() {
    let good = key().sign(&head(), Timestamp(7));
    let verifier = key().verifier();
    let mut refused = 0;
    for (place, _) in good.char_indices() {
        let mut octets = good.clone().into_bytes();
        octets[place] ^= 1;
        let Ok(text) = String::from_utf8(octets) else { continue };
        assert!(verifier.open(&text).is_err(), "octet {place} was changed and the note taken");
        refused += 1;
    }
    assert!(refused > 300);
    for end in 0..good.len() {
        if good.is_char_boundary(end) {
            assert!(verifier.open(&good[..end]).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn a_bad_line_of_the_pinned_key_refuses_the_note() {
    let good = key().sign(&head(), Timestamp(7));
    let other = key().sign(&Head { size: 4, ..head() }, Timestamp(7));
    for line in other.lines().rev().take(2) {
        assert_eq!(key().verifier().open(&format!("{good}{line}\n")), Err(NoteError::Unsigned));
    }
}

#[test]
fn another_ledger_and_another_key_are_refused() {
    let other_ledger = LedgerKey::from_pkcs8("fleet.example/ledger/other", &pkcs8(SEED)).unwrap();
    assert_eq!(key().verifier().open(&other_ledger.sign(&head(), Timestamp(7))), Err(NoteError::Origin));
    let other_key = LedgerKey::from_pkcs8(ORIGIN, &pkcs8(&"22".repeat(32))).unwrap();
    assert_eq!(key().verifier().open(&other_key.sign(&head(), Timestamp(7))), Err(NoteError::Unsigned));
}

#[test]
fn limits_hold_and_extension_lines_are_allowed() {
    let good = key().sign(&head(), Timestamp(7));
    let verifier = key().verifier();
    let line = "\u{2014} w AAAAAAA=\n";
    assert!(verifier.open(&(good.clone() + &line.repeat(62))).is_ok());
    assert!(matches!(verifier.open(&(good.clone() + &line.repeat(63))), Err(NoteError::Form(_))));
    let long = format!("{good}\u{2014} w {}\n", "AAAA".repeat(4_096));
    assert!(matches!(verifier.open(&long), Err(NoteError::Form(_))));
    assert!(matches!(verifier.open(&good.replace('\n', "\r\n")), Err(NoteError::Form(_))));
    let (_, parsed) = text::parse_checkpoint(&format!("a\n0\n{}\nmore\n", BASE64_STANDARD.encode([7; 32]))).unwrap();
    assert_eq!(parsed, Head { size: 0, root: Hash([7; 32]) });
    for size in ["", "00", "+1", "-1", "1 ", "0x1", "18446744073709551616"] {
        let body = format!("a\n{size}\n{}\n", BASE64_STANDARD.encode([7; 32]));
        assert!(text::parse_checkpoint(&body).is_err(), "{size:?}");
    }
}

#[test]
fn times_before_1970_are_written_as_1970() {
    let signed = key().sign(&Head { size: 0, root: empty_root() }, Timestamp(-5));
    assert_eq!(key().verifier().open(&signed).unwrap().at, Timestamp(0));
}

/// docs/ledger.md's example is what the code makes.
#[test]
fn the_documents_example_is_true() {
    let document = include_str!("../../../../docs/ledger.md");
    let entries = crate::entry::example::entries(&key().verifier());
    let mut frontier = crate::merkle::Frontier::default();
    for (number, (entry, _)) in entries.iter().enumerate() {
        let octets = entry.encode().unwrap();
        assert!(document.contains(&hex::encode(&octets)), "entry {number}: {}", hex::encode(&octets));
        assert_eq!(&crate::entry::Entry::decode(&octets).unwrap(), entry);
        frontier.append(leaf_hash(&octets), |_, _| {});
    }
    let signed = key().sign(&frontier.head(), Timestamp(1_795_305_602));
    assert!(document.contains(&signed), "{signed}");
    let mut state = crate::state::State::new(key().verifier());
    for (entry, _) in &entries {
        state.append(&entry.encode().unwrap()).unwrap();
    }
    let mut snapshot = Vec::new();
    let hash = hex::encode(crate::snapshot::write(&state, &mut snapshot).unwrap());
    let snapshot = hex::encode(snapshot);
    assert!(document.contains(&snapshot) && document.contains(&hash), "{snapshot} {hash}");
    assert!(document.contains(&key().verifier().to_vkey()), "{}", key().verifier().to_vkey());
    for (_, details) in entries {
        let Some(details) = details else { continue };
        let (cbor, commitment) = (hex::encode(details.encode()), hex::encode(details.commitment().0));
        assert!(document.contains(&cbor) && document.contains(&commitment), "{cbor} {commitment}");
    }
}

proptest! {
    #[test]
    fn hostile_notes_do_no_harm(
        text in "(fleet\\.example/ledger/default\n)?[0-9]{0,21}\n?[A-Za-z0-9+/=]{0,50}\n{0,3}",
        lines in "(\u{2014} [ -~]{0,80}\n){0,4}",
    ) {
        let note = text + &lines;
        prop_assert!(key().verifier().open(&note).is_err());
    }

    #[test]
    fn hostile_text_does_no_harm(note in any::<String>()) {
        prop_assert!(key().verifier().open(&note).is_err());
        let _ = VerifierKey::from_vkey(&note);
    }
}
