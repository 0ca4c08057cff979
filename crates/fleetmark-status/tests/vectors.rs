//! The vectors that docs/status-list.md points to: made from a fixed key, the same octets each time, judged by the reader here, by a second
//! reader in Python, and by the firmware of `tests/firmware.rs`.
//!
//! After a change of the format that is meant: `FLEETMARK_WRITE_VECTORS=1 cargo test -p fleetmark-status --test vectors`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetmark_status::encoder::{Heading, Standings, encode, point_of_spki, raw_signature};
use fleetmark_status::header::{Header, MAGIC};
use fleetmark_status::key::{P256Key, key_id};
use fleetmark_status::{Answer, List, Refusal, Scope, Terms};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::json;
use sha2::{Digest, Sha256};

const SECRET: [u8; 32] = *b"fleetmark status list vectors 01";
const OTHER_SECRET: [u8; 32] = *b"fleetmark status list vectors 02";
const MADE: u64 = 1_800_000_000;
const TERMS: Terms = Terms { now: MADE + 3_600, lowest_sequence: 41, max_age: 86_400 };

/// One file, what is asked of it, and what must be said.
struct Case {
    name: &'static str,
    why: &'static str,
    octets: Vec<u8>,
    point: [u8; 65],
    scope: Scope,
    terms: Terms,
    refusal: Option<Refusal>,
    standings: Option<Standings>,
}

fn scope() -> Scope {
    Scope {
        fleet: *Sha256::digest(b"example.org/turbines").first_chunk().unwrap(),
        authority: *Sha256::digest(b"an authority's key").first_chunk().unwrap(),
        epoch: 7,
        slice: 0,
    }
}

fn key(secret: &[u8; 32]) -> SigningKey {
    SigningKey::from_bytes(secret.into()).unwrap()
}

fn point(secret: &[u8; 32]) -> [u8; 65] {
    key(secret).verifying_key().to_encoded_point(false).as_bytes().try_into().unwrap()
}

/// RFC 6979: the same octets get the same signature.
fn sign(octets: &[u8], secret: &[u8; 32]) -> [u8; 64] {
    let signature: Signature = key(secret).sign(octets);
    signature.to_bytes().into()
}

fn heading() -> Heading {
    Heading { key_id: key_id(&point(&SECRET)), scope: scope(), sequence: 42, this_update: MADE, next_update: MADE + 86_400 }
}

fn header(count: u32, shift: u8, width: u8) -> Header {
    let Heading { key_id, scope, sequence, this_update, next_update } = heading();
    Header { key_id, scope, sequence, this_update, next_update, count, shift, width }
}

fn signed(mut octets: Vec<u8>) -> Vec<u8> {
    let signature = sign(&octets, &SECRET);
    octets.extend_from_slice(&signature);
    octets
}

fn list(heading: &Heading, standings: &Standings) -> Vec<u8> {
    encode::<()>(heading, standings, |octets| Ok(sign(octets, &SECRET))).unwrap()
}

/// One index in so many, at random as it looks.
fn one_in(share: u32, index: u32) -> bool {
    mixed(index).is_multiple_of(share)
}

/// A number that looks random, the same everywhere.
fn mixed(number: u32) -> u32 {
    let mut mixed = number.wrapping_add(0x9e37_79b9);
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        mixed = (mixed ^ (mixed >> 15)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 16)
}

fn standings(count: u32, good: impl Fn(u32) -> bool) -> Standings {
    let mut standings = Standings::none_good(count);
    (0..count).filter(|index| good(*index)).for_each(|index| standings.set_good(index));
    standings
}

fn good(name: &'static str, why: &'static str, standings: Standings) -> Case {
    let octets = list(&heading(), &standings);
    Case { standings: Some(standings), refusal: None, ..bad(name, why, octets, Refusal::Malformed) }
}

fn bad(name: &'static str, why: &'static str, octets: Vec<u8>, refusal: Refusal) -> Case {
    Case { name, why, octets, point: point(&SECRET), scope: scope(), terms: TERMS, refusal: Some(refusal), standings: None }
}

/// Octets of bits written as text; blanks are for the eye.
fn bits(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|digit| *digit != b' ').map(|digit| digit - b'0').collect();
    digits.chunks(8).map(|octet| octet.iter().enumerate().fold(0, |sum, (at, bit)| sum | bit << (7 - at))).collect()
}

/// Two blocks of 512 and 488 indices by hand; offsets of 5 bits. The sound form lists 100 of the first block, and 300 of the second.
fn by_hand(directory: &str, codes: &str) -> Vec<u8> {
    let mut octets = header(1_000, 9, 5).octets();
    octets.extend_from_slice(&bits(&format!("{directory}{codes}")));
    signed(octets)
}

const DIRECTORY: &str = "00000 000111  01000 000111  10010 000000";
const CODES: &str = "1 1100100  001 0101100";

fn opened() -> Vec<Case> {
    let mut elsewhere =
        good("fifth-slice", "an index is counted from the slice's first", standings(300, |index| !index.is_multiple_of(7)));
    elsewhere.scope.slice = 5;
    elsewhere.octets = list(&Heading { scope: elsewhere.scope, ..heading() }, elsewhere.standings.as_ref().unwrap());
    let mut hand = good(
        "by-hand",
        "another encoder's blocks: the reader takes any that are sound",
        standings(1_000, |i| i != 100 && i != 812),
    );
    hand.octets = by_hand(DIRECTORY, CODES);
    let mut high = good("high-s", "the other of the two signatures that verify: s is n - s", standings(10, |index| index != 3));
    let (signed, signature) = high.octets.split_at(high.octets.len() - 64);
    let low = Signature::from_slice(signature).unwrap();
    let (r, s) = low.split_scalars();
    high.octets = [signed, &Signature::from_scalars(r, -s).unwrap().to_bytes()].concat();
    let mut at_the_edge = good("last-second", "next update is the last second", standings(10, |_| true));
    at_the_edge.terms = Terms { now: MADE + 86_400, lowest_sequence: 42, max_age: 86_400 };
    let mut ahead = good("ahead", "the signer's clock is 300 s ahead", standings(10, |_| true));
    ahead.terms.now = MADE - 300;
    vec![
        good("one-good", "the smallest list", standings(1, |_| true)),
        good("one-hole", "the smallest list that lets nobody in", standings(1, |_| false)),
        good("all-good", "a full slice without a gap", standings(1 << 20, |_| true)),
        good("thousandth", "1 in 1,000 is not good", standings(100_000, |index| !one_in(1_000, index))),
        good("hundredth", "1 in 100 is not good", standings(100_000, |index| !one_in(100, index))),
        good("tenth", "1 in 10 is not good", standings(50_000, |index| !one_in(10, index))),
        good("half", "a bitmap, since no code is smaller", standings(5_003, |index| !one_in(2, index))),
        good("most", "9 in 10 are not good: blocks that list the good ones", standings(20_000, |index| one_in(10, index))),
        good(
            "ranges",
            "a batch revoked as one, a lease never used, and single ones",
            standings(60_000, |index| {
                !(10_000..22_000).contains(&index) && !(40_960..45_056).contains(&index) && !one_in(100, index)
            }),
        ),
        good("last-is-not", "the highest index is not good", standings(4_097, |index| index != 4_096)),
        elsewhere,
        hand,
        high,
        at_the_edge,
        ahead,
    ]
}

fn of_another_scope() -> Vec<Case> {
    let octets = || list(&heading(), &standings(1_000, |index| !one_in(100, index)));
    let about = |name, scope: Scope, refusal| Case { scope, ..bad(name, "asked for another", octets(), refusal) };
    let on = |name, why, terms: Terms, refusal| Case { terms, ..bad(name, why, octets(), refusal) };
    let with = |name, why, point: [u8; 65], refusal| Case { point, ..bad(name, why, octets(), refusal) };
    let mut off_the_curve = point(&SECRET);
    off_the_curve[64] ^= 1;
    let mut compressed = point(&SECRET);
    compressed[0] = 2 + (compressed[64] & 1);
    vec![
        about("other-fleet", Scope { fleet: [1; 16], ..scope() }, Refusal::OtherFleet),
        about("other-authority", Scope { authority: [1; 20], ..scope() }, Refusal::OtherAuthority),
        about("other-epoch", Scope { epoch: 8, ..scope() }, Refusal::OtherEpoch),
        about("other-slice", Scope { slice: 1, ..scope() }, Refusal::OtherSlice),
        on("rolled-back", "43 was accepted before", Terms { lowest_sequence: 43, ..TERMS }, Refusal::RolledBack),
        on("not-yet", "301 s in the future", Terms { now: MADE - 301, ..TERMS }, Refusal::NotYet),
        on("no-clock", "a device in 1970", Terms { now: 0, ..TERMS }, Refusal::NotYet),
        on("stale", "a second after the next update", Terms { now: MADE + 86_401, max_age: u32::MAX, ..TERMS }, Refusal::Stale),
        on(
            "too-old",
            "a second older than the reader allows",
            Terms { now: MADE + 7_201, max_age: 7_200, ..TERMS },
            Refusal::TooOld,
        ),
        with("other-key", "another key is trusted", point(&OTHER_SECRET), Refusal::OtherKey),
        with("key-off-the-curve", "the trusted key is no point", off_the_curve, Refusal::BadKey),
        with("key-compressed", "the trusted key is not written uncompressed", compressed, Refusal::BadKey),
    ]
}

fn with_other_octets() -> Vec<Case> {
    let sound = list(&heading(), &standings(1_000, |index| !one_in(100, index)));
    let unsigned = &sound[..sound.len() - 64];
    let changed = |at: usize| {
        let mut octets = sound.clone();
        octets[at] ^= 1;
        octets
    };
    let forged = [unsigned, &sign(unsigned, &OTHER_SECRET)].concat();
    let mut zero_r = sound.clone();
    zero_r[unsigned.len()..unsigned.len() + 32].fill(0);
    let mut next_version = sound.clone();
    next_version[..4].copy_from_slice(b"FMS2");
    assert_eq!(&MAGIC, b"FMS1");
    let version = Refusal::UnknownVersion;
    let signature = Refusal::BadSignature;
    vec![
        bad("empty", "no octet at all", Vec::new(), Refusal::Malformed),
        bad("header-cut", "less than a header and a signature", sound[..147].to_vec(), Refusal::Malformed),
        bad("next-version", "FMS2", next_version, version),
        bad("end-cut", "the last octet is missing", sound[..sound.len() - 1].to_vec(), signature),
        bad("octet-more", "an octet after the signature", [&sound[..], &[0]].concat(), signature),
        bad("header-changed", "a later next update", changed(79), signature),
        bad("count-changed", "an index more", changed(83), signature),
        bad("body-changed", "a bit of the body", changed(90), signature),
        bad("signature-changed", "a bit of the signature", changed(sound.len() - 1), signature),
        bad("signature-zero", "r is zero", zero_r, signature),
        bad("forged", "the trusted key's id, another key's signature", forged, signature),
    ]
}

/// Signed by the trusted key, and still refused: its encoder is broken.
fn with_blocks_that_lie() -> Vec<Case> {
    let headed = |name, why, header: Header, body: &[u8], refusal| {
        bad(name, why, signed([&header.octets()[..], body].concat()), refusal)
    };
    let lie = |name, why, directory: &str, codes: &str| bad(name, why, by_hand(directory, codes), Refusal::BadBlocks);
    let times = Header { next_update: MADE, ..header(8, 0, 0) };
    let slice = Header { scope: Scope { slice: 4_096, ..scope() }, ..header(8, 0, 0) };
    // 2^12 zeros of 2^20 each, and 5: in 32 bits, 5.
    let wrapping = bits(&format!("{:016b} 0 10100  {:016b} 000000  {}1 {:020b}", 0, 4_117, "0".repeat(4_096), 5));
    vec![
        headed("gap-wraps", "a gap of 2^32 + 5 is not one of 5", header(100_000, 17, 16), &wrapping, Refusal::BadBlocks),
        headed("times-reversed", "next update is not later", times, &[0], Refusal::Malformed),
        headed("slice-beyond", "no index of 32 bits is in it", slice, &[0], Refusal::Malformed),
        headed("count-zero", "no index", header(0, 0, 0), &[], Refusal::Malformed),
        headed("count-beyond", "more than 2^20 indices", header((1 << 20) + 1, 20, 0), &[0, 0, 0], Refusal::Malformed),
        headed("shift-beyond", "blocks of 2^21 indices", header(1_000, 21, 0), &[0, 0], Refusal::Malformed),
        headed("width-beyond", "offsets of 22 bits", header(1_000, 20, 22), &[0; 7], Refusal::Malformed),
        headed("bitmap-with-width", "a bitmap has no offsets", header(8, 0, 1), &[0], Refusal::Malformed),
        headed("longer-than-bitmap", "two octets for 8 indices", header(8, 0, 0), &[0, 0], Refusal::Malformed),
        headed("bitmap-short", "one octet for 9 indices", header(9, 0, 0), &[0], Refusal::BadBlocks),
        headed("bitmap-padding", "a bit after the last index", header(7, 0, 0), &[1], Refusal::BadBlocks),
        headed("directory-cut", "the directory is longer than the body", header(1_000, 1, 21), &[0; 20], Refusal::BadBlocks),
        lie("padding", "a bit after the last code", DIRECTORY, "1 1100100  001 0101100 1"),
        lie("body-octet-more", "an octet after the last code", DIRECTORY, "1 1100100  001 0101100  00000 00000000"),
        lie("body-octet-less", "the last octet is missing", DIRECTORY, "1 1100100"),
        lie("first-offset", "the first block begins at 1", "00001 000111  01000 000111  10010 000000", CODES),
        lie(
            "skipped",
            "octets before the first code that no block has",
            "01000 000111  10000 000111  11010 000000",
            "11111111  1 1100100  001 0101100",
        ),
        lie("end-parameters", "the end has parameters", "00000 000111  01000 000111  10010 000001", CODES),
        lie("offset-early", "a code of the first block ends in the second", "00000 000111  00111 000111  10010 000000", CODES),
        lie("offset-late", "the first block ends within a code", "00000 000111  01001 000111  10010 000000", CODES),
        lie("offsets-back", "the second block ends before it begins", "00000 000111  10010 000111  01000 000000", CODES),
        lie(
            "beyond-block",
            "the last block has 488 indices, 500 is listed",
            "00000 000111  01000 000111  10011 000000",
            "1 1100100  0001 1110100",
        ),
        lie("zeros", "a code without its one", DIRECTORY, "1 1100100  000 0000000"),
        lie("rice-21", "a Rice parameter above 20", "00000 010101  10110 000111  10110 000000", "1 000000000000001100100"),
        lie(
            "rice-31",
            "a Rice parameter above 20, in a block that lists nothing of its range",
            "00000 011111  01000 000111  10010 000000",
            CODES,
        ),
    ]
}

fn cases() -> Vec<Case> {
    let all: Vec<Case> =
        [opened(), of_another_scope(), with_other_octets(), with_blocks_that_lie()].into_iter().flatten().collect();
    let names: BTreeSet<_> = all.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), all.len(), "names are unique");
    all
}

/// Indices worth asking for, in the epoch: the edges, and some of both kinds.
fn asked(case: &Case) -> Vec<u32> {
    let Some(standings) = &case.standings else { return Vec::new() };
    let count = standings.count();
    let mut within = BTreeSet::from([0, 1, 63, 64, count / 2, count - 1, count, count + 1, (1 << 20) - 1, 1 << 20]);
    for wanted in [true, false] {
        within.extend((0..count).filter(|index| standings.is_good(*index) == wanted).take(3));
        within.extend((0..count).rev().filter(|index| standings.is_good(*index) == wanted).take(3));
    }
    let first = u32::from(case.scope.slice) << 20;
    let outside = [0, first.wrapping_sub(1), u32::MAX];
    within.iter().map(|index| first + index).chain(outside).collect()
}

fn expected(case: &Case, index: u32) -> Answer {
    let standings = case.standings.as_ref().unwrap();
    match index.wrapping_sub(u32::from(case.scope.slice) << 20) {
        within if within >= standings.count() => Answer::Beyond,
        within if standings.is_good(within) => Answer::Good,
        _ => Answer::NotGood,
    }
}

/// SHA-256 over a bitmap, the most significant bit of an octet first, 1 for not good: all that a list says in 32 octets.
fn digest(standings: &Standings) -> String {
    let mut octets = vec![0_u8; usize::try_from(standings.count().div_ceil(8)).unwrap()];
    (0..standings.count())
        .filter(|index| !standings.is_good(*index))
        .for_each(|index| octets[usize::try_from(index / 8).unwrap()] |= 0x80 >> (index % 8));
    hex::encode(Sha256::digest(octets))
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn described(case: &Case) -> serde_json::Value {
    let mut value = json!({
        "name": case.name,
        "why": case.why,
        "file": format!("{}.fms", case.name),
        "point": hex::encode(case.point),
        "fleet": hex::encode(case.scope.fleet),
        "authority": hex::encode(case.scope.authority),
        "epoch": case.scope.epoch,
        "slice": case.scope.slice,
        "now": case.terms.now,
        "lowest_sequence": case.terms.lowest_sequence,
        "max_age": case.terms.max_age,
        "open": case.refusal.map_or("opened", Refusal::name),
        "code": case.refusal.map_or(0, Refusal::code),
    });
    if let Some(standings) = &case.standings {
        let queries: Vec<_> = asked(case).iter().map(|index| json!([index, expected(case, *index).code()])).collect();
        value["count"] = json!(standings.count());
        value["bitmap_sha256"] = json!(digest(standings));
        value["queries"] = json!(queries);
        value["by_the_rules"] = json!(case.name != "by-hand");
    }
    value
}

/// One line a case, so that a difference can be read; its fields in the order of their names, whatever order `serde_json` keeps.
fn table(cases: &[Case]) -> String {
    let sorted = |value: serde_json::Value| serde_json::from_value::<BTreeMap<String, serde_json::Value>>(value).unwrap();
    let line = |case| serde_json::to_string(&sorted(described(case))).unwrap();
    let lines: Vec<String> = cases.iter().map(|case| format!("  {}", line(case))).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

#[test]
fn the_reader_says_what_the_vectors_say() {
    for case in cases() {
        let outcome = P256Key::from_point(&case.point).and_then(|key| List::open(&case.octets, &case.scope, &case.terms, &key));
        assert_eq!(outcome.as_ref().err().copied(), case.refusal, "{}", case.name);
        let Ok(list) = outcome else { continue };
        for index in asked(&case) {
            assert_eq!(list.query(index), expected(&case, index), "{}: {index}", case.name);
        }
        let standings = case.standings.as_ref().unwrap();
        for within in 0..standings.count().min(70_000) {
            let answer = list.query((u32::from(case.scope.slice) << 20) + within);
            assert_eq!(answer == Answer::Good, standings.is_good(within), "{}: {within}", case.name);
        }
    }
}

#[test]
fn every_refusal_and_every_answer_is_in_the_vectors() {
    let cases = cases();
    let refused: BTreeSet<_> = cases.iter().filter_map(|case| case.refusal).map(Refusal::name).collect();
    let all: BTreeSet<_> = Refusal::ALL.into_iter().map(Refusal::name).collect();
    assert_eq!(refused, all);
    let answers: BTreeSet<_> = cases
        .iter()
        .filter(|case| case.standings.is_some())
        .flat_map(|case| asked(case).into_iter().map(|index| expected(case, index).name()))
        .collect();
    assert_eq!(answers, BTreeSet::from(["beyond", "good", "not_good"]));
}

#[test]
fn the_files_are_made_again_identically() {
    let cases = cases();
    let mut files: Vec<(String, Vec<u8>)> =
        cases.iter().map(|case| (format!("{}.fms", case.name), case.octets.clone())).collect();
    files.push(("vectors.json".to_owned(), table(&cases).into_bytes()));
    if std::env::var_os("FLEETMARK_WRITE_VECTORS").is_some() {
        let _ = fs::remove_dir_all(directory());
        fs::create_dir_all(directory()).unwrap();
        for (name, octets) in &files {
            fs::write(directory().join(name), octets).unwrap();
        }
    }
    for (name, octets) in &files {
        let kept = fs::read(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(kept == *octets, "{name} differs from what this code makes");
    }
    let kept: BTreeSet<_> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(kept, files.into_iter().map(|(name, _)| name).collect(), "no file but these");
}

/// The second reader shares no line with the first, and no library: P-256 in whole numbers.
#[test]
fn a_second_reader_agrees() {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/status_list.py");
    let output = Command::new("python3").arg(&reader).arg("vectors").arg(directory()).output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), cases().len(), "{said}");
}

/// The server's keys sign in DER; openssl signs here.
#[test]
fn signatures_in_der_become_a_lists() {
    let made = tempfile::tempdir().unwrap();
    let path = |name: &str| made.path().join(name);
    let run = |arguments: &[&str], input: &Path, output: &Path| {
        let done = Command::new("openssl").args(arguments).arg("-out").arg(output).arg(input).output().expect("openssl");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = path("key");
    let made_key = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(&key)
        .output()
        .expect("openssl");
    assert!(made_key.status.success());
    let public = Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&key).output().unwrap();
    let point = point_of_spki(&public.stdout).unwrap();
    assert_eq!(point_of_spki(&[&public.stdout[..], &[0]].concat()), None);
    assert_eq!(point_of_spki(&public.stdout[1..]), None);
    let heading = Heading { key_id: key_id(&point), ..heading() };
    // Often enough for an r or s that begins with zeros, or with a high bit.
    for round in 0..24 {
        let octets = encode::<()>(&heading, &standings(50, |index| index != round), |octets| {
            fs::write(path("message"), octets).unwrap();
            run(&["dgst", "-sha256", "-sign", key.to_str().unwrap()], &path("message"), &path("signature"));
            Ok(raw_signature(&fs::read(path("signature")).unwrap()).unwrap())
        });
        let octets = octets.unwrap();
        let list = List::open(&octets, &scope(), &TERMS, &P256Key::from_point(&point).unwrap()).unwrap();
        assert_eq!((list.query(round), list.query(49 - round)), (Answer::NotGood, Answer::Good));
    }
}

/// openssl judges the signatures.
#[test]
fn openssl_agrees_about_the_signature() {
    let made = tempfile::tempdir().unwrap();
    let octets = list(&heading(), &standings(100, |index| !index.is_multiple_of(9)));
    let (message, raw) = octets.split_at(octets.len() - 64);
    let signature = Signature::from_slice(raw).unwrap();
    // RFC 5480: the head of every P-256 SubjectPublicKeyInfo.
    let head = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    let path = |name: &str| made.path().join(name);
    fs::write(path("key"), [&head[..], &point(&SECRET)].concat()).unwrap();
    fs::write(path("message"), message).unwrap();
    fs::write(path("signature"), signature.to_der().as_bytes()).unwrap();
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-keyform", "DER", "-verify"])
        .arg(path("key"))
        .arg("-signature")
        .arg(path("signature"))
        .arg(path("message"))
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(raw_signature(signature.to_der().as_bytes()).unwrap(), raw);
}
