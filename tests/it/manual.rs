//! What the manual says of the code: every metric stands in a table, and every test that the threat model names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

/// The text of all sources below `directory`.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        if path.is_dir() {
            sources(&path)
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            vec![(path, text)]
        } else {
            Vec::new()
        }
    };
    entries.flat_map(read).collect()
}

/// Words of `text` that begin with one of `prefixes` and stand between quotes or backticks.
fn metrics(text: &str, quote: char) -> BTreeSet<String> {
    let words = text.split(quote).map(|word| word.split('{').next().unwrap_or_default());
    let is_metric = |word: &&str| {
        let family = ["fleetmark_gateway_", "fleetmark_proxy_"].iter().any(|family| word.starts_with(family));
        let ends = ["_total", "_seconds", "_acts", "_followers", "_left"].iter().any(|end| word.ends_with(end));
        let plain = word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        let part = word.ends_with('_') || word.ends_with("_seconds_count");
        word.starts_with("fleetmark_") && plain && !part && (family || ends)
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_in_the_manual_and_the_other_way_round() {
    let in_code = |directory: &str| -> BTreeSet<String> {
        sources(&repository().join(directory)).iter().flat_map(|(_, text)| metrics(text, '"')).collect()
    };
    let in_manual = |name: &str| metrics(&page(name), '`');
    assert_eq!(in_manual("docs/operators.md"), in_code("src"));
    let gateways: BTreeSet<_> = in_manual("docs/gateway.md").into_iter().collect();
    assert_eq!(gateways, in_code("crates/fleetmark-gateway/src"));
}

/// `room::test`, and what follows it as `…::test`.
fn named_tests(text: &str) -> Vec<(String, String)> {
    let mut room = String::new();
    let mut found = Vec::new();
    for word in text.split('`').filter(|word| word.contains("::")) {
        let Some((path, name)) = word.rsplit_once("::") else { continue };
        if path != "…" {
            path.clone_into(&mut room);
        }
        // `Type::method` is no test.
        if name.contains('_') && room.chars().all(|letter| letter.is_ascii_lowercase() || ":_".contains(letter)) {
            found.push((room.clone(), name.to_owned()));
        }
    }
    found
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = page("SECURITY.md");
    let tables = text.split("## Keys and secrets").nth(1).unwrap();
    let named = named_tests(tables);
    assert!(named.len() > 40, "the threat model names {} tests", named.len());
    for (room, name) in named {
        let (first, rest) = room.split_once("::").unwrap_or((&room, ""));
        let places = match first {
            "it" => vec![repository().join("tests/it").join(format!("{}.rs", rest.replace("::", "/")))],
            "device" | "domain" | "ledger" | "policy" | "gateway" => {
                ["src", "tests"].map(|part| repository().join(format!("crates/fleetmark-{first}/{part}"))).to_vec()
            }
            room => vec![repository().join("src").join(room)],
        };
        let is_there = places.iter().filter(|place| place.exists()).any(|place| {
            let texts = if place.is_dir() { sources(place) } else { vec![(place.clone(), fs::read_to_string(place).unwrap())] };
            texts.iter().any(|(_, text)| text.contains(&format!("fn {name}(")))
        });
        assert!(is_there, "SECURITY.md names {room}::{name}, which is not there");
    }
}
