use clap::{CommandFactory as _, Parser as _};

use super::*;

fn parsed(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_of_the_manual_is_taken() {
    let manual = include_str!("../../docs/operators.md");
    let lines: Vec<_> = manual.lines().filter(|line| line.starts_with("fleetmark ")).collect();
    assert!(lines.len() > 40, "the manual has a table of commands");
    for line in lines {
        let line = line.split("  #").next().unwrap_or(line).trim();
        if let Err(error) = parsed(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn nonsense_is_refused_as_usage() {
    for line in [
        "fleetmark",
        "fleetmark fleets",
        "fleetmark device revoke a --reason because",
        "fleetmark cert expiring --within soon",
        "fleetmark token create --expires-in 1y",
        "fleetmark device list --limit 0",
        "fleetmark device list --limit 5 --all",
        "fleetmark operator create a --role root --all-fleets",
        "fleetmark gateway create a --fleet b --all-fleets",
        "fleetmark ledger verify --whole",
        "fleetmark backup inspect a.backup --log-level debug",
        "fleetmark backup restore a.backup --store sqlite:a.db",
        "fleetmark policy activate",
        "fleetmark policy activate set.cedar --version 1",
        "fleetmark policy show --scope No/Fleet",
        "fleetmark policy test --principal a",
        "fleetmark accept --server http://a --ca-fingerprint 00 --token t --dir d",
    ] {
        let error = parsed(line).map(|_| ()).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn global_options_may_stand_anywhere() {
    let arguments = parsed("fleetmark device --json show sensor-01 --operator /x --fleet other").expect("parse");
    assert!(arguments.json);
    assert_eq!(arguments.profile, Some(PathBuf::from("/x")));
}

#[test]
fn completions_name_the_commands() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "fleetmark", &mut script);
        let script = String::from_utf8(script).expect("text");
        assert!(script.contains("doctor") && script.contains("recover"), "{shell}");
    }
}
