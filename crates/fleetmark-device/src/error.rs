//! Everything that can go wrong on the device's side, and what the caller should do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetmark_domain::Refusal;

/// A `code` longer than this is not one of Fleetmark's.
const MAX_CODE: usize = 64;
/// A server's explanation is cut after this many characters.
const MAX_DETAIL: usize = 400;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not fit together, or not the directory they are used on.
    #[error("{0}")]
    Usage(String),
    /// The server answered, and said no.
    #[error("{0}")]
    Refused(Refused),
    /// The server ended the TLS handshake because of the client certificate.
    #[error("the server did not take the client certificate: TLS alert {alert}")]
    CertificateNotTaken {
        /// The alert's name, RFC 8446 6.2.
        alert: String,
    },
    /// The server could not be reached, or the connection broke.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server could not prove who it is.
    #[error("the server is not trusted: {0}")]
    Untrusted(String),
    /// What should lead to new roots does not, or not from what this device trusts.
    #[error("the trust bundle is refused: {why}")]
    TrustBundle {
        /// The stable name of the reason.
        name: &'static str,
        /// The reason, for people.
        why: String,
    },
    /// The server proved who it is, and its answer is none that this device may use.
    #[error("the server's answer is not usable: {0}")]
    BadAnswer(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory's content is not what this program wrote.
    #[error("{path}: {reason}")]
    Damaged {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process works on the directory.
    #[error("{0}: another process is using this directory")]
    Busy(PathBuf),
    /// The cryptographic library failed.
    #[error("cryptography: {0}")]
    Crypto(String),
}

/// An answer that says no: an RFC 9457 problem document, or what stood in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the reason, or `http_<status>` when the answer had none.
    pub code: String,
    /// What the code means, where this version knows it, and what the server said about it: of that at most 400 characters, no control
    /// characters.
    pub detail: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server refused: {} ({})", self.code, self.status)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl Refused {
    /// Makes a refusal of what a server sent, which is not to be trusted in a terminal or a log as it is.
    pub fn new(status: u16, code: Option<&str>, detail: Option<&str>, retry_after: Option<Duration>) -> Self {
        let is_code = |text: &&str| {
            let fits = |o: u8| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'_';
            !text.is_empty() && text.len() <= MAX_CODE && text.bytes().all(fits)
        };
        let code = code.filter(is_code).map_or_else(|| format!("http_{status}"), str::to_owned);
        let said: String = detail.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
        let detail = match Self::known(&code) {
            // Such as why a person, or the fleet's owner, refused.
            Some(refusal) if !said.is_empty() && said != refusal.text() => format!("{} {said}", refusal.text()),
            Some(refusal) => refusal.text().to_owned(),
            None => said,
        };
        Self { status, code, detail, retry_after }
    }

    fn known(code: &str) -> Option<Refusal> {
        Refusal::ALL.iter().copied().find(|refusal| refusal.code() == code)
    }

    /// The refusal, if it is one that this version knows.
    pub fn refusal(&self) -> Option<Refusal> {
        Self::known(&self.code)
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub const fn is_temporary(&self) -> bool {
        matches!(self.status, 202 | 408 | 425 | 429 | 500..)
    }

    /// Whether an operator can make the same request succeed, so that it is worth asking again slowly.
    pub fn is_operators_to_fix(&self) -> bool {
        matches!(
            self.refusal(),
            Some(
                Refusal::FleetClosed
                    | Refusal::FleetUnknown
                    | Refusal::DeviceUnknown
                    | Refusal::IdentityOut
                    | Refusal::TokenUnknown
                    | Refusal::TokenExpired
                    | Refusal::TokenWithdrawn
                    | Refusal::TokenUsed
                    | Refusal::TokenBoundToOtherKey
                    | Refusal::TokenWrongFleet
                    | Refusal::TokenWrongName
                    | Refusal::OutsideWindow
                    | Refusal::NetworkNotAllowed
                    | Refusal::NameNotAllowed
                    | Refusal::SerialNotListed
                    | Refusal::QuotaUsed
                    | Refusal::GroupUnknown
                    | Refusal::GroupDisabled
                    | Refusal::MakerUnknown
                    | Refusal::ClaimEnded
                    | Refusal::HardwareOfAnother
                    | Refusal::HardwareMismatch
                    | Refusal::ReenrollmentDenied
                    | Refusal::RenewalHeld
                    | Refusal::Held
                    | Refusal::Quarantined
                    | Refusal::CertificateExpired
            )
        )
    }

    /// Whether it is the key that the server refuses, so that a new key is the remedy.
    pub fn is_about_key(&self) -> bool {
        matches!(
            self.refusal(),
            Some(
                Refusal::KeyOfAnother | Refusal::KeyEnded | Refusal::KeyReused | Refusal::KeyBlocked | Refusal::KeyCompromised
            )
        )
    }

    /// Whether a certificate that was never confirmed is beyond confirming.
    pub fn ends_unconfirmed(&self) -> bool {
        matches!(self.refusal(), Some(Refusal::Lapsed | Refusal::Revoked | Refusal::NotOnLedger))
    }
}

impl Error {
    /// An error of the operating system at `path`.
    pub fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    /// A file that this program did not write like that.
    pub fn damaged(path: &Path, reason: &(impl ToString + ?Sized)) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }

    /// The program's exit code; the table is in docs/device-agent.md.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(refused) if refused.is_temporary() => 4,
            Self::Refused(_) | Self::CertificateNotTaken { .. } => 3,
            Self::Unreachable(_) => 4,
            Self::Untrusted(_) | Self::TrustBundle { .. } | Self::BadAnswer(_) => 5,
            Self::File { .. } | Self::Damaged { .. } | Self::Busy(_) | Self::Crypto(_) => 6,
        }
    }

    /// The stable name of the error: the server's `code` when the server refused.
    pub fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Refused(refused) => &refused.code,
            Self::CertificateNotTaken { .. } => "certificate_not_taken",
            Self::Unreachable(_) => "server_unreachable",
            Self::Untrusted(_) => "server_not_trusted",
            Self::TrustBundle { name, .. } => name,
            Self::BadAnswer(_) => "bad_answer",
            Self::File { .. } => "file_error",
            Self::Damaged { .. } => "file_damaged",
            Self::Busy(_) => "directory_busy",
            Self::Crypto(_) => "crypto_failed",
        }
    }

    /// One sentence: what to do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Usage(_) => "See fleetmark-device --help.",
            Self::Refused(refused) if refused.status == 202 => {
                "An operator must approve this device; the same command goes on then. --wait waits for it."
            }
            Self::Refused(refused) if refused.is_temporary() => "Try again later; the same key and request are kept.",
            Self::Refused(refused) => refused_advice(refused),
            Self::CertificateNotTaken { .. } => "Enroll again with a new token: fleetmark-device enroll --replace --token T.",
            Self::Unreachable(_) => "Check the URL, the network and whether the server runs; then try again.",
            Self::Untrusted(_) => "Check --ca-fingerprint, the host in --server and this device's clock. Nothing was sent.",
            Self::TrustBundle { .. } => {
                "What this device trusts stays as it was. Ask the operator for today's root; with its fingerprint, enroll into another directory."
            }
            Self::BadAnswer(_) => "Keep the message and ask the server's operator. Nothing was replaced.",
            Self::File { .. } => "Check that the directory exists, is writable by this user, and that its disk has room.",
            Self::Damaged { .. } => "Restore the file, or enroll into a new directory with a new token.",
            Self::Busy(_) => "Stop the other process, or let it do the work.",
            Self::Crypto(_) => "Report this with the message: it should not happen.",
        }
    }
}

fn refused_advice(refused: &Refused) -> &'static str {
    if refused.is_about_key() {
        return "Run the command again: the refused key is thrown away and a new one made.";
    }
    match refused.refusal() {
        Some(
            Refusal::TokenUnknown
            | Refusal::TokenExpired
            | Refusal::TokenWithdrawn
            | Refusal::TokenUsed
            | Refusal::TokenBoundToOtherKey,
        ) => "Ask an operator for a new token.",
        Some(Refusal::TokenWrongFleet) => "Give the token's own fleet with --fleet.",
        Some(Refusal::TokenWrongName) => "Give the token's own name with --name, or leave it out.",
        Some(Refusal::FleetClosed) => "Ask an operator to open the fleet.",
        Some(Refusal::FleetUnknown) => "Check --fleet.",
        Some(Refusal::ReenrollmentDenied | Refusal::HardwareOfAnother | Refusal::HardwareMismatch | Refusal::RenewalHeld) => {
            "Ask an operator to permit this device to enroll anew."
        }
        Some(Refusal::OutsideWindow | Refusal::NetworkNotAllowed | Refusal::NameNotAllowed | Refusal::SerialNotListed) => {
            "Ask an operator whether this way in is meant for this device, from here and now."
        }
        Some(Refusal::NonceExpired) => "Run the command again: it asks the server anew.",
        Some(Refusal::Held | Refusal::IdentityOut | Refusal::Quarantined) => "Ask an operator to let this device in again.",
        Some(Refusal::Revoked | Refusal::Lapsed | Refusal::CertificateExpired | Refusal::NotOnLedger | Refusal::Superseded) => {
            "Enroll again with a new token: fleetmark-device enroll --replace --token T."
        }
        _ => "Look the code up in the server's documentation, or ask its operator.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_made_harmless() {
        let hostile = format!("\u{1b}[2Jboo\n{}", "x".repeat(1000));
        let refused = Refused::new(418, Some("../etc"), Some(&hostile), None);
        assert_eq!(refused.code, "http_418");
        assert!(refused.detail.starts_with("[2Jboox"));
        assert_eq!(refused.detail.chars().count(), MAX_DETAIL);
    }

    #[test]
    fn a_reason_is_shown_beside_what_the_code_means() {
        let refused = |detail| Refused::new(403, Some("hook_refused"), detail, None).detail;
        assert_eq!(refused(Some("not one\nof ours")), format!("{} not oneof ours", Refusal::HookRefused.text()));
        assert_eq!(refused(None), Refusal::HookRefused.text());
    }

    #[test]
    fn statuses_decide_what_is_final() {
        for (status, exit) in
            [(202, 4), (400, 3), (401, 3), (403, 3), (409, 3), (422, 3), (408, 4), (425, 4), (429, 4), (500, 4), (503, 4)]
        {
            assert_eq!(Error::Refused(Refused::new(status, None, None, None)).exit_code(), exit, "{status}");
        }
    }

    #[test]
    fn every_token_refusal_is_an_operators_to_fix() {
        for refusal in Refusal::ALL.iter().filter(|refusal| refusal.code().starts_with("token_")) {
            assert!(Refused::new(401, Some(refusal.code()), None, None).is_operators_to_fix(), "{refusal}");
        }
        assert!(!Refused::new(403, Some("revoked"), None, None).is_operators_to_fix());
    }
}
