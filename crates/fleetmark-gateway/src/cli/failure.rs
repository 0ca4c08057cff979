//! What is printed when a command fails, and its exit code. The codes are those of `fleetmark-device`.

use std::error::Error as StdError;
use std::fmt;

use fleetmark_device::Error;
use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::follow::Trouble;

/// A failure, ready to be shown.
#[derive(Debug)]
pub(super) struct Failure {
    code: String,
    message: String,
    advice: &'static str,
    pub(super) exit: u8,
}

impl Failure {
    pub(super) fn new(code: &str, message: impl Into<String>, advice: &'static str, exit: u8) -> Self {
        Self { code: code.to_owned(), message: message.into(), advice, exit }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "ok": false, "code": self.code, "message": self.message, "advice": self.advice, "exit_code": self.exit })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  {}", self.code, self.message, self.advice)
    }
}

/// An error and its causes, in one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code(), chain(&error), error.advice(), error.exit_code())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new("configuration", chain(&error), "docs/gateway.md has every key of gateway.toml.", 2)
    }
}

impl From<Trouble> for Failure {
    fn from(error: Trouble) -> Self {
        let message = chain(&error);
        match error {
            Trouble::Setup(error) => error.into(),
            Trouble::Unreachable(_) => Self::new(
                "server_unreachable",
                message,
                "Check the URL, the network and whether the server runs; then try again.",
                4,
            ),
            Trouble::Refused { status, .. } if status == 429 || status >= 500 => {
                Self::new("refused", message, "Try again later.", 4)
            }
            Trouble::Refused { .. } => Self::new("refused", message, "Ask an operator to admit this gateway.", 3),
            Trouble::Answer(_) | Trouble::NotSigned => {
                Self::new("bad_answer", message, "Keep the message and ask the server's operator.", 5)
            }
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let message = chain(&error);
        match error {
            DaemonError::Identity(error) => error.into(),
            DaemonError::Follow(error) => error.into(),
            DaemonError::Bind(_) | DaemonError::Proxy(..) => Self::new(
                "cannot_listen",
                message,
                "Check the address or path, who else listens there, and what this user may.",
                6,
            ),
            DaemonError::Metrics(_) | DaemonError::Ended(_) => {
                Self::new("failed", message, "Report this with the log: it should not happen.", 6)
            }
        }
    }
}
