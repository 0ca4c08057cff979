//! The reader as firmware: its size, and a C program that lets devices in by it, run by qemu on a Cortex-M4 and a Cortex-M0.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The lines of `main.c` that tell what the issue asks for.
const STORY: &[&str] = &[
    "a good device",
    "a revoked device",
    "a hole",
    "beyond the list",
    "a rolled-back list",
    "a bad signature",
    "a stale list",
    "another fleet's list",
    "another authority's list",
    "another epoch's list",
    "another slice's list",
    "refused lists change nothing",
];

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn root() -> PathBuf {
    home().join("../..")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the script, which builds the libraries too, and gives the figures.
fn sizes() -> Vec<Value> {
    let output = Command::new(root().join("scripts/status-size")).arg("--json").output().expect("scripts/status-size");
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a figure")).collect()
}

fn library(triple: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path));
    target.join(triple).join("firmware/libfleetmark_status.a").canonicalize().expect("a library")
}

/// What the program on this machine said.
fn run(machine: &str, program: &Path) -> String {
    let output = Command::new("timeout")
        .args(["120", "qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-kernel"])
        .arg(program)
        .output()
        .expect("qemu-system-arm");
    let said = said(&output);
    assert!(output.status.success(), "{machine}: {}\n{said}", output.status);
    said
}

fn vectors() -> BTreeSet<String> {
    let text = fs::read_to_string(home().join("vectors/vectors.json")).expect("vectors");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    cases.iter().map(|case| format!("ok vector: {}", case["name"].as_str().expect("a name"))).collect()
}

/// One test, since all of it needs the two libraries.
#[test]
fn a_firmware_lets_in_whom_it_should_and_is_small() {
    let figures = sizes();
    assert_eq!(figures.len(), 8, "{figures:?}");
    for figure in &figures {
        assert!(figure["ratio"].as_f64().is_some_and(|ratio| ratio > 0.01 && ratio <= 1.0), "{figure}");
    }
    let made = tempfile::tempdir().expect("a directory");
    let output = Command::new("make")
        .arg("--directory")
        .arg(home().join("firmware"))
        .arg(format!("OUT={}", made.path().display()))
        .arg(format!("M4={}", library("thumbv7em-none-eabi").display()))
        .arg(format!("M0={}", library("thumbv6m-none-eabi").display()))
        .output()
        .expect("make");
    assert!(output.status.success(), "{}", said(&output));
    for (machine, program) in [("mps2-an386", "m4.elf"), ("microbit", "m0.elf")] {
        let said = run(machine, &made.path().join(program));
        assert!(!said.contains("FAIL"), "{machine}: {said}");
        let lines: BTreeSet<_> = said.lines().map(str::to_owned).collect();
        for name in STORY {
            assert!(lines.contains(&format!("ok gate: {name}")), "{machine}: no word of {name}\n{said}");
        }
        assert_eq!(said.matches("ok misuse: nobody in").count(), 4, "{machine}: {said}");
        assert_eq!(vectors().difference(&lines).collect::<Vec<_>>(), Vec::<&String>::new(), "{machine}: every vector\n{said}");
        let stack = lines.iter().find_map(|line| line.strip_prefix("stack ")?.strip_suffix(" octets"));
        let stack: u32 = stack.expect("the stack").parse().expect("a number");
        assert!(stack < 8_192, "{machine}: {stack} octets of stack");
    }
}
