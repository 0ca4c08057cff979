//! docs/status-list.md and the header file say what the code says.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use fleetmark_status::header::{HEADER_LENGTH, SIGNATURE_LENGTH};
use fleetmark_status::{Answer, Refusal};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn codes() -> Vec<(u8, &'static str)> {
    let answers = Answer::ALL.into_iter().map(|answer| (answer.code(), answer.name()));
    let mut codes: Vec<_> = answers.chain(Refusal::ALL.into_iter().map(|refusal| (refusal.code(), refusal.name()))).collect();
    codes.sort_unstable();
    codes
}

#[test]
fn the_manual_has_every_code() {
    let manual = read("../../docs/status-list.md");
    let mut told: Vec<(u8, String)> = manual
        .lines()
        .filter_map(|line| {
            let (code, rest) = line.strip_prefix("| ")?.split_once(" | `")?;
            Some((code.parse().ok()?, rest.split_once('`')?.0.to_owned()))
        })
        .filter(|(_, name)| name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'))
        .collect();
    told.sort_unstable();
    let told: Vec<_> = told.iter().map(|(code, name)| (*code, name.as_str())).collect();
    assert_eq!(told, codes());
}

#[test]
fn the_header_file_has_every_code() {
    let header = read("include/fleetmark_status.h");
    for (code, name) in codes() {
        let line = format!("FLEETMARK_STATUS_{} = {code}", name.to_uppercase());
        assert!(
            header.lines().any(|found| found.trim().split([',', '/']).next().is_some_and(|found| found.trim() == line)),
            "{line}"
        );
    }
    let told = header.lines().filter(|line| line.trim().starts_with("FLEETMARK_STATUS_") && line.contains(" = ")).count();
    // OPENED is GOOD's number for the other functions.
    assert_eq!(told, codes().len() + 1);
}

#[test]
fn the_example_is_the_vector() {
    let vector = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/by-hand.fms")).expect("a vector");
    let body = vector.get(HEADER_LENGTH..vector.len() - SIGNATURE_LENGTH).expect("a body");
    let text: Vec<_> = body.iter().map(|octet| format!("{octet:02x}")).collect();
    assert!(read("../../docs/status-list.md").contains(&format!("body        {}", text.join(" "))), "{text:?}");
}
