//! `fleetmark doctor`: what is wrong and what to do, with the server up or down.
//!
//! - [`local`]: configuration, data directory, keys, passphrase, disk.
//! - [`doors`]: the doors as anybody sees them, their certificates, revocation lists, clock.
//! - [`admin`]: what the admin door tells an operator: authorities, ledgers.

mod admin;
mod doors;
mod local;

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::serve::ServerArguments;
use super::session::{print, print_json};
use crate::config::profile::Profile;
use crate::telemetry::clock::{Clock as _, SystemClock};

/// `fleetmark doctor`
#[derive(Debug, Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    server: ServerArguments,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, and deserves a look.
    Warn,
    /// Does not work, or will not for long.
    Bad,
}

/// What was found at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, found: found.into(), advice: None }
    }

    /// Something deserves a look.
    pub fn warn(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    /// Something is wrong.
    pub fn bad(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}

impl DoctorArguments {
    /// Looks and prints.
    ///
    /// # Errors
    /// [`Failure::Failed`] where anything is bad.
    pub async fn run(self, profile: Option<&Path>, json: bool) -> Result<(), Failure> {
        let now = SystemClock.now();
        let mut findings = Vec::new();
        let installation = local::look(&self.server, &mut findings);
        let profile = Profile::find(profile);
        if let Some(config) = &installation {
            doors::look(config, profile.as_ref().ok(), now, &mut findings).await;
        }
        match profile {
            Ok(profile) => admin::look(profile, json, now, &mut findings).await,
            Err(error) => {
                let failure = Failure::from(error);
                findings.push(Finding::warn(
                    "operator's profile",
                    told(&failure),
                    "Without one, the server cannot be asked how it is.",
                ));
            }
        }
        report(&findings, json)
    }
}

fn report(findings: &[Finding], json: bool) -> Result<(), Failure> {
    if json {
        print_json(&serde_json::json!({ "findings": findings }))?;
    } else {
        for finding in findings {
            print(&line(finding))?;
        }
    }
    let bad = findings.iter().filter(|finding| finding.state == State::Bad).count();
    match bad {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing is bad".to_owned(), None)),
        count => Err(Failure::Failed(format!("{count} things are bad"), None)),
    }
}

fn line(finding: &Finding) -> String {
    let state = match finding.state {
        State::Ok => "ok  ",
        State::Warn => "warn",
        State::Bad => "BAD ",
    };
    let advice = finding.advice.as_ref().map(|advice| format!("      {advice}\n")).unwrap_or_default();
    format!("{state}  {}: {}\n{advice}", finding.check, finding.found)
}

/// A failure as a finding tells it: its first line without `error: `, then the detail.
fn told(failure: &Failure) -> String {
    let text = failure.to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    match lines.next() {
        Some(detail) if failure.advice() != Some(detail) => format!("{first}: {detail}"),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_finding_fails_and_a_warning_does_not() {
        let ok = Finding::ok("disk", "10 GiB free");
        let warn = Finding::warn("disk", "900 MiB free", "Make room.");
        let bad = Finding::bad("disk", "1 MiB free", "Make room.");
        assert!(report(&[ok.clone(), warn.clone()], false).is_ok());
        assert_eq!(report(&[ok, warn.clone(), bad], true).expect_err("bad").code(), 1);
        assert_eq!(line(&warn), "warn  disk: 900 MiB free\n      Make room.\n");
    }
}
