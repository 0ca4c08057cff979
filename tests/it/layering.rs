//! Rooms look down only. Read from the sources: who names whom, in the crate and among the crates.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room of `src`, and what it may name by `crate::`: a room, or one module of it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["http::admin::wire", "config", "backup", "telemetry", "server", "ceremony"]),
    ("server", &["http", "tls", "jobs", "registrar", "ledger", "store", "pki", "backup", "config", "telemetry", "ceremony"]),
    ("jobs", &["http::public::health", "tls", "registrar", "store::BoxError", "telemetry"]),
    ("http", &["tls", "registrar", "store::model", "store::BoxError", "pki", "backup", "config::Layout", "telemetry"]),
    ("tls", &["registrar::caller", "store::model", "pki"]),
    ("registrar", &["store", "pki", "ledger", "backup", "telemetry::clock", "ceremony"]),
    ("ledger", &["store::HeadSigner", "store::model", "telemetry::clock"]),
    ("store", &[]),
    ("ceremony", &["pki"]),
    ("pki", &[]),
    ("backup", &[]),
    ("config", &[]),
    ("telemetry", &[]),
];

/// Crates that only these rooms may name: a framework, a database or an encoder has one home.
const HOMES: &[(&str, &[&str])] = &[
    ("actix_web", &["http", "tls"]),
    ("actix_http", &["http"]),
    ("actix_service", &["http"]),
    ("actix_tls", &["http", "tls"]),
    ("utoipa", &["http"]),
    ("governor", &["http", "registrar"]),
    ("diesel", &["store"]),
    ("diesel_async", &["store"]),
    ("tokio_postgres", &["store"]),
    ("libsqlite3_sys", &["store"]),
    ("clap", &["cli"]),
    ("figment", &["config"]),
    ("cms", &["pki"]),
    ("x509_ocsp", &["pki"]),
    ("pkcs8", &["pki"]),
    ("cryptoki", &["pki"]),
    ("rcgen", &["pki", "tls", "server"]),
    ("rustls_native_certs", &["registrar"]),
    ("rsa", &["pki"]),
    ("p256", &["pki"]),
    ("aes", &["pki"]),
    ("cfb_mode", &["pki"]),
    ("fleetmark_device", &["cli"]),
    ("fleetmark_policy", &["registrar", "http", "cli"]),
    ("fleetmark_status", &["pki", "registrar", "http", "cli"]),
    ("cedar_policy", &[]),
];

/// The crates of the workspace, and which others of it they may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("fleetmark-domain", &[]),
    ("fleetmark-ledger", &["fleetmark-domain"]),
    ("fleetmark-policy", &["fleetmark-domain"]),
    ("fleetmark-device", &["fleetmark-domain", "fleetmark-status"]),
    ("fleetmark-status", &[]),
    ("fleetmark-external", &["fleetmark-domain"]),
    (
        "fleetmark-gateway",
        &["fleetmark-domain", "fleetmark-ledger", "fleetmark-policy", "fleetmark-device", "fleetmark-external"],
    ),
    (
        "fleetmark",
        &[
            "fleetmark-domain",
            "fleetmark-ledger",
            "fleetmark-policy",
            "fleetmark-device",
            "fleetmark-external",
            "fleetmark-status",
        ],
    ),
];

/// A use that the tables forbid.
fn judge(room: &str, depth: usize, line: &str) -> Vec<String> {
    let line = without_comment(line);
    let mut found = rooms_named(line, room, depth, may_use);
    for (name, rooms) in HOMES {
        if room != "main" && !rooms.contains(&room) && !paths_after(line, name).is_empty() {
            found.push(format!("`{room}` may not use the crate `{name}`"));
        }
    }
    found
}

/// The same for tests, which build what is below them from all that is below.
fn judge_test(room: &str, depth: usize, line: &str) -> Vec<String> {
    let below = reach(room);
    rooms_named(without_comment(line), room, depth, |_, path| {
        path.split("::").next().is_some_and(|head| head == room || below.contains(head))
    })
}

fn rooms_named(line: &str, room: &str, depth: usize, allowed: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths_after(line, "crate") {
        if !allowed(room, &path) {
            found.push(format!("`{room}` may not use `crate::{path}`"));
        }
    }
    for path in climbs(line, depth) {
        if MAY_USE.iter().any(|(name, _)| path.split("::").next() == Some(name)) && !allowed(room, &path) {
            found.push(format!("`{room}` may not climb to `{path}`"));
        }
    }
    found
}

fn may_use(room: &str, path: &str) -> bool {
    let path = path.trim_end_matches("::self");
    let within = |allowed: &str| path == allowed || path.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::"));
    within(room) || MAY_USE.iter().any(|(name, allowed)| *name == room && allowed.iter().any(|allowed| within(allowed)))
}

/// Comments and documentation may name whom they like.
fn without_comment(line: &str) -> &str {
    line.find("//").filter(|at| !line[..*at].ends_with(':')).map_or(line, |at| &line[..at])
}

/// Every path that follows `head::`, with the branches of one pair of braces as paths of their own.
fn paths_after(line: &str, head: &str) -> Vec<String> {
    let start = format!("{head}::");
    let mut paths = Vec::new();
    for (at, _) in line.match_indices(&start) {
        if line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &line[at + start.len()..];
        let path = leading_path(rest);
        match rest[path.len()..].strip_prefix('{') {
            Some(branches) => {
                let branches = branches.split('}').next().unwrap_or_default();
                paths.extend(branches.split(',').map(|branch| format!("{path}{}", leading_path(branch.trim()))));
            }
            None => paths.push(path.to_owned()),
        }
    }
    paths
}

fn leading_path(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    &text[..end]
}

/// What stands after so many `super::` that the path may have left the room.
fn climbs(line: &str, depth: usize) -> Vec<String> {
    let start = "super::".repeat(depth);
    line.match_indices(&start)
        .map(|(at, _)| leading_path(&line[at + start.len()..]).trim_start_matches("super::").to_owned())
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// The room of a file and its depth: 1 for the room itself.
fn room_of(file: &Path) -> (String, usize) {
    let inside = file.strip_prefix(root().join("src")).expect("a source").with_extension("");
    let mut parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    (parts[0].clone(), parts.len())
}

/// Files that are compiled for tests alone: `#[cfg(test)] mod name;` in their parent, and what lies below them.
fn test_files(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source");
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let home = if file.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs" || name == "main.rs") {
            file.parent().expect("a directory").to_owned()
        } else {
            file.with_extension("")
        };
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[cfg(test)]") {
            let declared = lines[at + 1..].iter().find(|line| !line.starts_with("#["));
            let module = declared.and_then(|line| line.split("mod ").nth(1)).and_then(|name| name.strip_suffix(';'));
            found.extend(module.map(|name| home.join(name)));
        }
    }
    found
}

#[test]
fn rooms_look_down_only() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let for_tests = test_files(&files);
    assert!(!for_tests.is_empty(), "test modules are recognised");
    let mut forbidden = Vec::new();
    let mut rooms = BTreeSet::new();
    for file in files {
        let (room, depth) = room_of(&file);
        if room == "lib" || room == "bin" {
            continue;
        }
        let mut in_tests = for_tests.iter().any(|test| file.with_extension("").starts_with(test));
        for (number, line) in fs::read_to_string(&file).expect("a source").lines().enumerate() {
            // A test module stands at the end of its file.
            in_tests = in_tests || line.starts_with("mod tests {");
            let shown = file.strip_prefix(root()).expect("a source").display();
            let found = if in_tests { judge_test(&room, depth, line) } else { judge(&room, depth, line) };
            forbidden.extend(found.into_iter().map(|what| format!("{shown}:{}: {what}", number + 1)));
        }
        rooms.insert(room);
    }
    let known: BTreeSet<_> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(rooms, known, "every room of src has a row in MAY_USE, and every row a room");
    assert!(forbidden.is_empty(), "\n{}\n", forbidden.join("\n"));
}

/// All rooms below this one.
fn reach(room: &str) -> BTreeSet<&'static str> {
    let mut below = BTreeSet::new();
    let mut next = vec![room];
    while let Some(room) = next.pop() {
        for (_, allowed) in MAY_USE.iter().filter(|(name, _)| *name == room) {
            for head in allowed.iter().filter_map(|path| path.split("::").next()) {
                if below.insert(head) {
                    next.push(head);
                }
            }
        }
    }
    below
}

#[test]
fn no_room_is_below_itself() {
    for (room, _) in MAY_USE {
        assert!(!reach(room).contains(room), "`{room}` is below itself");
    }
}

#[test]
fn crates_depend_downwards_only() {
    for (name, allowed) in CRATES {
        let directory = if *name == "fleetmark" { root() } else { root().join("crates").join(name) };
        let file = directory.join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(&file).expect("a manifest").parse().expect("TOML");
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
            for dependency in dependencies.keys().filter(|dependency| dependency.starts_with("fleetmark")) {
                assert!(
                    allowed.contains(&dependency.as_str()),
                    "{}: [{table}] {dependency} is not below {name}",
                    file.display()
                );
            }
        }
    }
    let mut listed: Vec<_> = CRATES.iter().map(|(name, _)| (*name).to_owned()).filter(|name| name != "fleetmark").collect();
    let entries = fs::read_dir(root().join("crates")).expect("crates");
    let mut present: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    listed.sort();
    present.sort();
    assert_eq!(present, listed, "every crate has a row in CRATES");
}

/// The judge is judged: a test that reads sources must see what it is there for.
#[test]
fn forbidden_uses_are_seen() {
    for (room, depth, line) in [
        ("pki", 2, "use crate::store::model::Certificate;"),
        ("registrar", 1, "    let state = crate::http::State::new();"),
        ("store", 2, "use crate::{pki::keys, store::model};"),
        ("store", 1, "use super::registrar::Registrar;"),
        ("pki", 2, "use super::super::store;"),
        ("http", 2, "use crate::store::StoreError;"),
        ("registrar", 1, "use actix_web::HttpRequest;"),
        ("http", 3, "use diesel::prelude::*;"),
        ("cli", 1, "use crate::store::location;"),
        ("http", 1, "use crate::ledgers;"),
    ] {
        assert!(!judge(room, depth, line).is_empty(), "{room}: {line}");
    }
    for (room, depth, line) in [
        ("registrar", 1, "use crate::store::model::{Certificate, Token};"),
        ("http", 2, "use crate::store::model;"),
        ("store", 2, "use super::super::model;"),
        ("pki", 1, "//! See [`crate::registrar`]."),
        ("store", 1, "    use super::*;"),
        ("registrar", 2, "use crate::pki::{csr, keys}; // crate::http says how"),
        ("store", 1, "let url = \"https://x\"; crate::store::open(url)"),
    ] {
        assert_eq!(judge(room, depth, line), Vec::<String>::new(), "{room}: {line}");
    }
    assert!(!judge_test("store", 1, "use crate::registrar::Registrar;").is_empty());
    assert!(judge_test("http", 1, "use crate::store::location::open;").is_empty());
}
