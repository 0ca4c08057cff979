//! Why a command failed: what is printed, what to do about it, and the exit code.

use std::fmt;

use fleetmark_domain::Refusal;
use serde::{Deserialize, Serialize};

use crate::backup::BackupError;
use crate::ceremony::CeremonyError;
use crate::config::ConfigError;
use crate::config::passphrase::PassphraseError;
use crate::config::profile::ProfileError;

/// The exit codes; docs/operators.md has the same table.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Refused by the server, or failed here.
    pub const FAILED: u8 = 1;
    /// The command line cannot be read, or asks for what makes no sense.
    pub const USAGE: u8 = 2;
    /// There is no such thing.
    pub const NOT_FOUND: u8 = 3;
    /// The server cannot be reached.
    pub const UNREACHABLE: u8 = 4;
    /// The server is not trusted, or does not trust the certificate shown to it.
    pub const NOT_TRUSTED: u8 = 5;
}

/// The longest text of a server's that is shown, in characters.
const MAX_SHOWN: usize = 600;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server said no.
    Refused(ProblemDocument),
    /// The server cannot be reached.
    Unreachable(String),
    /// The server did not prove who it is, or did not take the certificate.
    NotTrusted(String),
    /// The command line asks for what makes no sense.
    Usage(String),
    /// There is no such thing here.
    NotFound(String),
    /// Something failed here; with what to do, where that is known.
    Failed(String, Option<&'static str>),
}

/// An RFC 9457 problem document, as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProblemDocument {
    /// One sentence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable name.
    pub code: String,
    /// One more sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ProblemDocument {
    /// Reads what a server answered beside `status`; an answer that is no problem document is told by its status alone.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_default();
        problem.status = status;
        if problem.code.is_empty() {
            problem.code = format!("http_{status}");
        }
        if problem.title.is_empty() {
            "The server answered with no more than its status.".clone_into(&mut problem.title);
        }
        problem.code = harmless(&problem.code);
        problem.title = harmless(&problem.title);
        problem.detail = problem.detail.as_deref().map(harmless);
        problem
    }
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused(problem) if refuses_certificate(&problem.code) => exit::NOT_TRUSTED,
            Self::Refused(problem) if problem.status == 404 => exit::NOT_FOUND,
            Self::Refused(_) | Self::Failed(..) => exit::FAILED,
            Self::Unreachable(_) => exit::UNREACHABLE,
            Self::NotTrusted(_) => exit::NOT_TRUSTED,
            Self::Usage(_) => exit::USAGE,
            Self::NotFound(_) => exit::NOT_FOUND,
        }
    }

    /// The stable name.
    fn name(&self) -> &str {
        match self {
            Self::Refused(problem) => &problem.code,
            Self::Unreachable(_) => "server_unreachable",
            Self::NotTrusted(_) => "not_trusted",
            Self::Usage(_) => "usage",
            Self::NotFound(_) => "not_found",
            Self::Failed(..) => "failed",
        }
    }

    fn title(&self) -> &str {
        match self {
            Self::Refused(problem) => problem.title.trim_end_matches('.'),
            Self::Unreachable(_) => "The server cannot be reached",
            Self::NotTrusted(_) => "There is no trust between this profile and the server",
            Self::Usage(text) | Self::NotFound(text) | Self::Failed(text, _) => text.trim_end_matches('.'),
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => problem.detail.as_deref(),
            Self::Unreachable(text) | Self::NotTrusted(text) => Some(text),
            Self::Usage(_) | Self::NotFound(_) | Self::Failed(..) => None,
        }
    }

    /// What to do, where that is known.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Refused(problem) => advice_on(&problem.code),
            Self::Unreachable(_) => {
                Some("Check that the server runs (fleetmark doctor) and the address in the profile's operator.toml.")
            }
            Self::NotTrusted(_) => Some(
                "Check ca.pem and cert.pem of the profile and this machine's clock. An operator whose key or certificate is lost is \
                 let in again on the server's machine: fleetmark operator recover NAME.",
            ),
            Self::Usage(_) => Some("See --help."),
            Self::NotFound(_) => None,
            Self::Failed(_, advice) => *advice,
        }
    }

    /// The failure as JSON, for `--json`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "code": self.name(),
            "title": self.title(),
            "detail": self.detail(),
            "advice": self.advice(),
            "exit_code": self.code(),
        })
    }

    /// A failure of something here, with all its causes.
    pub fn of(error: &dyn std::error::Error) -> Self {
        Self::Failed(chain(error), None)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(_) | Self::NotFound(_) | Self::Failed(..) => write!(f, "error: {}", self.title())?,
            _ => write!(f, "error: {} ({})", self.title(), self.name())?,
        }
        let more = [self.detail(), self.advice()];
        more.into_iter().flatten().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// An error with its causes: `what: why: why`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in std::iter::successors(Some(error), |error| error.source()) {
        let text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !texts.last().is_some_and(|last| last.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

/// Text from elsewhere without what a terminal would act on, and not too long.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).take(MAX_SHOWN).collect()
}

/// Control characters, and those that turn the direction of writing.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

fn refusal(code: &str) -> Option<Refusal> {
    Refusal::ALL.iter().copied().find(|refusal| refusal.code() == code)
}

fn refuses_certificate(code: &str) -> bool {
    use Refusal as R;
    matches!(
        refusal(code),
        Some(
            R::CertificateRequired
                | R::CertificateForeign
                | R::CertificateExpired
                | R::CertificateNotYetValid
                | R::NotOnLedger
                | R::WrongAuthority
                | R::Revoked
                | R::Held
                | R::Superseded
                | R::Quarantined
                | R::Lapsed
                | R::IdentityOut
                | R::AuthorityRevoked
        )
    )
}

fn advice_on(code: &str) -> Option<&'static str> {
    use Refusal as R;
    Some(match refusal(code)? {
        R::CertificateExpired | R::Revoked | R::Superseded | R::Lapsed | R::NotOnLedger | R::AuthorityRevoked => {
            "On the server's machine, `fleetmark operator recover NAME` gives an operator a new certificate."
        }
        R::CertificateForeign | R::WrongAuthority | R::CertificateRequired => {
            "This profile is of another installation, or not an operator's: check --operator."
        }
        R::IdentityOut => {
            "An operator who was put out stays out; an owner may admit another name: fleetmark operator create NAME. A device is let in \
             again with fleetmark device readmit NAME."
        }
        R::NotPermitted => "`fleetmark whoami` shows your role and fleets; an owner may change them.",
        R::BlastRadiusExceeded => {
            "Another security officer or owner may allow more: fleetmark fleet allow FLEET YOUR-NAME --devices N."
        }
        R::EtagMismatch => "Somebody else changed it meanwhile: look at it again, then repeat the command.",
        R::KeyEnded => "Make a new key: give another directory, or move the old key away.",
        R::NameTaken => "Choose another name, or look at the one that is there.",
        R::LastOwner => "Admit another owner first: fleetmark operator create NAME --role owner.",
        R::FleetUnknown => "`fleetmark fleet list` shows the fleets.",
        R::StorageFull => "Make room on the server's disk; nothing was lost.",
        R::RateLimited | R::Overloaded | R::Stopping | R::StorageLocked | R::StorageUnavailable | R::AuthorityUnavailable => {
            "Try again in a moment."
        }
        _ => return None,
    })
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::Missing(_) => Self::NotFound(error.to_string()),
            error => Self::of(&error),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of(&error)
    }
}

impl From<PassphraseError> for Failure {
    fn from(error: PassphraseError) -> Self {
        Self::of(&error)
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::of(&error)
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        match error {
            CeremonyError::Missing(_) => Self::NotFound(error.to_string()),
            CeremonyError::Name(_) | CeremonyError::Exists(_) => Self::Usage(error.to_string()),
            error => Self::of(&error),
        }
    }
}

impl From<fleetmark_device::Error> for Failure {
    fn from(error: fleetmark_device::Error) -> Self {
        use fleetmark_device::Error;
        match error {
            Error::Usage(text) => Self::Usage(text),
            Error::Refused(refused) => {
                let title = refused.refusal().map_or("The server refused", Refusal::text).to_owned();
                let detail = refused.refusal().is_none().then_some(refused.detail).filter(|text| !text.is_empty());
                Self::Refused(ProblemDocument { title, status: refused.status, code: refused.code, detail })
            }
            Error::CertificateNotTaken { .. } | Error::Untrusted(_) => Self::NotTrusted(error.to_string()),
            Error::Unreachable(text) => Self::Unreachable(text),
            other => Self::of(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> Failure {
        let body = serde_json::json!({"title": "A title.", "code": code, "detail": "A detail.", "new_field": 1});
        Failure::Refused(ProblemDocument::read(status, body.to_string().as_bytes()))
    }

    #[test]
    fn a_problem_is_printed_with_title_code_detail_and_advice() {
        let text = refused(403, "not_permitted").to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "error: A title (not_permitted)");
        assert_eq!(lines[1], "  A detail.");
        assert!(lines[2].contains("fleetmark whoami"));
        assert_eq!(refused(403, "not_permitted").json()["exit_code"], 1);
    }

    #[test]
    fn exit_codes_are_as_documented() {
        for (status, code, expected) in [
            (404, "device_unknown", exit::NOT_FOUND),
            (403, "not_permitted", exit::FAILED),
            (409, "name_taken", exit::FAILED),
            (503, "storage_full", exit::FAILED),
            (403, "revoked", exit::NOT_TRUSTED),
            (403, "identity_out", exit::NOT_TRUSTED),
            (403, "authority_revoked", exit::NOT_TRUSTED),
            (401, "certificate_required", exit::NOT_TRUSTED),
            (502, "", exit::FAILED),
        ] {
            assert_eq!(refused(status, code).code(), expected, "{status} {code}");
        }
        assert_eq!(Failure::Unreachable(String::new()).code(), 4);
        assert_eq!(Failure::NotTrusted(String::new()).code(), 5);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
    }

    #[test]
    fn an_answer_that_is_no_problem_is_told_by_its_status() {
        let problem = ProblemDocument::read(502, b"<html>");
        assert_eq!((problem.status, problem.code.as_str()), (502, "http_502"));
    }

    #[test]
    fn what_a_server_says_cannot_drive_the_terminal() {
        let body = serde_json::json!({"title": "\u{1b}[2Jgone\n", "code": "x\ty", "detail": "a\u{202e}b".repeat(1000)});
        let text = Failure::Refused(ProblemDocument::read(400, body.to_string().as_bytes())).to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(['\u{1b}', '\t', '\u{202e}']) && text.len() < 8_000);
    }

    #[test]
    fn advice_is_given_only_for_codes_that_exist() {
        for refusal in Refusal::ALL {
            let _ = advice_on(refusal.code());
        }
        assert_eq!(advice_on("no_such_code"), None);
        assert!(advice_on("identity_out").is_some() && advice_on("authority_revoked").is_some());
    }
}
