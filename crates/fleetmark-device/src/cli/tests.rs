//! The program as a process: its exit codes, its signals, its death, and a machine without a clock.

use std::path::Path;
use std::process::{Child, Command as Process, Output, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::testing::{Server, Trick};

/// The arguments for [`as_program`], one a line.
const ARGUMENTS: &str = "FLEETMARK_TEST_ARGUMENTS";

/// Is the program, when a test below starts this test binary again with arguments.
#[test]
fn as_program() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let arguments = std::iter::once("fleetmark-device").chain(arguments.lines());
    std::process::exit(program(&Arguments::try_parse_from(arguments).expect("arguments")).into());
}

/// The program, to be started; `clock` is for faketime (Debian package `faketime`).
fn process(clock: Option<&str>, arguments: &[&str]) -> Process {
    let this = std::env::current_exe().expect("this binary");
    let mut process = match clock {
        Some(clock) => {
            let mut process = Process::new("faketime");
            process.args(["-f", clock]).arg(this);
            process
        }
        None => Process::new(this),
    };
    process.args(["--exact", "cli::tests::as_program", "--nocapture"]);
    process.env(ARGUMENTS, arguments.join("\n")).env_remove(TOKEN_VARIABLE).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    // The test harness begins the line with its own words.
    let found = text.find('{').map(|at| serde_json::from_str(text[at..].trim()).expect("JSON"));
    found.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn enroll<'a>(server: &'a Server, pin: &'a str, dir: &'a Path, token: &'a str) -> Vec<&'a str> {
    let dir = dir.to_str().expect("text");
    vec!["enroll", "--json", "--server", &server.url, "--ca-fingerprint", pin, "--token", token, "--dir", dir, "--name", "a"]
}

#[test]
fn arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn exit_codes_are_as_documented() {
    let (server, dir) = (Server::start(), TempDir::new().expect("dir"));
    let (pin, other) = (server.authority.pin().to_string(), "00".repeat(32));
    let run = |arguments: &[&str]| {
        let output = process(None, arguments).output().expect("run");
        (output.status.code(), answer(&output))
    };
    let path = dir.path().to_str().expect("text");
    assert_eq!(run(&["renew", "--json", "--dir", path]).0, Some(2), "nothing there yet");
    assert_eq!(run(&enroll(&server, &other, dir.path(), "good")).0, Some(5));
    let (code, said) = run(&enroll(&server, &pin, dir.path(), "bad"));
    assert_eq!((code, said["code"].as_str(), said["status"].as_u64()), (Some(3), Some("token_unknown"), Some(401)));
    server.play([Trick::Refuse(503, "overloaded", Some(9))]);
    let (code, said) = run(&enroll(&server, &pin, dir.path(), "good"));
    assert_eq!((code, said["retry_after_seconds"].as_u64()), (Some(4), Some(9)));
    assert_eq!(run(&enroll(&server, &pin, Path::new("/proc/nowhere"), "good")).0, Some(6));
    let (code, said) = run(&enroll(&server, &pin, dir.path(), "good"));
    assert_eq!((code, said["outcome"].as_str(), said["confirmed"].as_bool()), (Some(0), Some("enrolled"), Some(true)));
    let (code, said) = run(&["renew", "--json", "--dir", path]);
    assert_eq!((code, said["outcome"].as_str()), (Some(0), Some("not_due")));
    let (code, said) = run(&["status", "--json", "--dir", path]);
    assert_eq!((code, said["state"].as_str()), (Some(0), Some("good")));
    // The directory knows the server.
    let (code, said) = run(&["enroll", "--json", "--dir", path, "--token", "good", "--replace"]);
    assert_eq!((code, said["outcome"].as_str()), (Some(0), Some("enrolled")));
    let missing = Arguments::try_parse_from(["fleetmark-device", "enroll"]).expect_err("missing");
    assert_eq!(missing.exit_code(), 2);
}

#[test]
fn a_machine_whose_clock_stands_at_1970_enrolls_and_renews() {
    let (server, dir) = (Server::start(), TempDir::new().expect("dir"));
    let pin = server.authority.pin().to_string();
    let output = process(Some("@1970-01-01 00:00:10"), &enroll(&server, &pin, dir.path(), "good")).output();
    let output = output.expect("faketime is installed");
    let said = answer(&output);
    assert_eq!(said["outcome"], "enrolled", "{said}");
    assert!(said["clock_behind_seconds"].as_i64().expect("number") > 1_700_000_000, "{said}");
    let path = dir.path().to_str().expect("text");
    let output = process(Some("@1970-01-01 00:00:10"), &["renew", "--force", "--json", "--dir", path]).output().expect("run");
    let said = answer(&output);
    assert_eq!(said["outcome"], "renewed", "{said}");
    // The TLS certificate of the test server ends in 60 days.
    let output = process(Some("+1000d"), &["renew", "--force", "--json", "--dir", path]).output().expect("run");
    assert_eq!((output.status.code(), answer(&output)["code"].as_str()), (Some(5), Some("server_not_trusted")));
}

fn wait(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if let Some(status) = child.try_wait().expect("wait") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("kill");
    None
}

#[test]
fn run_enrolls_stops_at_sigterm_and_starts_again() {
    let (server, dir) = (Server::start(), TempDir::new().expect("dir"));
    let pin = server.authority.pin().to_string();
    let mut arguments = enroll(&server, &pin, dir.path(), "good");
    arguments[0] = "run";
    let mut child = process(None, &arguments).spawn().expect("run");
    let began = Instant::now();
    let path = dir.path().to_str().expect("text");
    while status(dir.path(), &SystemClock::default()).map_or("", |status| status.state) != "good" {
        assert!(began.elapsed() < Duration::from_secs(20), "not enrolled in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Process::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    assert_eq!(wait(&mut child), Some(0));
    // The directory says the rest.
    let mut child = process(None, &["run", "--dir", path]).spawn().expect("run");
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().expect("wait").is_none(), "it sleeps until the renewal is due");
    assert!(Process::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    assert_eq!(wait(&mut child), Some(0));
}

/// Killed at any moment, the next start goes on with the same key: one certificate, never two.
#[test]
fn a_killed_enrollment_is_finished_by_the_next() {
    let server = Server::start();
    let pin = server.authority.pin().to_string();
    for round in 0..12_u64 {
        let dir = TempDir::new().expect("dir");
        let mut child = process(None, &enroll(&server, &pin, dir.path(), "good")).spawn().expect("run");
        std::thread::sleep(Duration::from_millis(4 * round));
        child.kill().expect("kill -9");
        child.wait().expect("wait");
        let before = server.issued();
        let output = process(None, &enroll(&server, &pin, dir.path(), "good")).output().expect("run");
        assert_eq!(answer(&output)["confirmed"], true, "round {round}");
        let issued_later = server.issued() - before;
        let total = u64::try_from(server.issued()).expect("few");
        assert!(issued_later <= 1 && total == round + 1, "round {round}: {total} certificates");
    }
}
