//! Arguments that several commands share.

use std::time::Duration;

use clap::Args;
use fleetmark_domain::RevocationReason;
use serde_json::{Map, Value};

/// How much of a list to show.
#[derive(Debug, Clone, Copy, Args)]
pub struct Listing {
    /// Show at most so many
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Show all
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
}

impl Listing {
    /// The number of items to fetch; None: all.
    pub fn most(self) -> Option<usize> {
        if self.all { None } else { usize::try_from(self.limit).ok() }
    }
}

/// Why, for the ledger.
#[derive(Debug, Clone, Args)]
pub struct Why {
    /// What to write down in the ledger's details
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

/// Why something is revoked.
#[derive(Debug, Clone, Args)]
pub struct WhyRevoked {
    /// A reason of RFC 5280: keyCompromise, cessationOfOperation, superseded, affiliationChanged, privilegeWithdrawn …
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Option<String>,
    #[command(flatten)]
    pub why: Why,
}

impl Why {
    /// The body.
    pub fn body(&self) -> Value {
        object([("note", self.note.clone().map(Value::from))])
    }
}

impl WhyRevoked {
    /// The body.
    pub fn body(&self) -> Value {
        object([("reason", self.reason.clone().map(Value::from)), ("note", self.why.note.clone().map(Value::from))])
    }
}

/// A JSON object of the fields that have a value.
pub fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
    Value::Object(given.collect::<Map<_, _>>())
}

/// A number and a unit: `90s`, `15m`, `24h`, `30d`; seconds without one.
///
/// # Errors
/// What is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number of seconds, or with a unit: 90s, 15m, 24h, 30d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.get(digits.len()..) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

/// `KEY=VALUE`.
///
/// # Errors
/// What is expected.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A reason of RFC 5280.
///
/// # Errors
/// What is expected.
pub fn reason(text: &str) -> Result<String, String> {
    if text.parse::<RevocationReason>().is_ok() {
        return Ok(text.to_owned());
    }
    let all: Vec<_> = RevocationReason::ALL.iter().map(|reason| reason.as_str()).collect();
    Err(format!("expected one of: {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "1w", "-1d", "1.5h", "1h30m", "99999999999999999999d", "9999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_fields_with_a_value_are_sent() {
        let why = WhyRevoked { reason: Some("keyCompromise".to_owned()), why: Why { note: None } };
        assert_eq!(why.body(), serde_json::json!({"reason": "keyCompromise"}));
        assert!(reason("keycompromise!").is_err());
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
