//! Logs: one line an event on standard error, for people or for programs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none.
    #[error("the log level `{0}` is none")]
    Level(String),
    /// Something in this process logs already.
    #[error("logs are set up already")]
    Twice,
}

/// Starts logging. `json` writes an object a line; `level` is a level or directives such as `info,fleetmark=debug`.
///
/// # Errors
/// [`LogError`].
pub fn start(json: bool, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(level).map_err(|_| LogError::Level(level.to_owned()))?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    started.map_err(|_| LogError::Twice)
}
