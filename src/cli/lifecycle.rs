//! `fleetmark device`: moves between fleets, permits, quarantine, letting in again.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleetmark_domain::Timestamp;
use serde_json::{Value, json};

use super::accept::root_fingerprint;
use super::arguments::{Why, duration, object};
use super::client::Ask;
use super::devices::{Device, FIRST};
use super::failure::Failure;
use super::session::{Session, print};
use crate::telemetry::clock::{Clock as _, SystemClock};

/// What may happen to a device beside revocation.
#[derive(Debug, Subcommand)]
pub enum LifecycleCommand {
    /// Leave to policy what a suspected device may still do: to enroll anew, which ends it, unless it says otherwise
    Quarantine {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: Why,
    },
    /// Let a retired device in again; it must enroll anew
    Readmit {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: Why,
    },
    /// Permit a device to renew its expired certificate; lets renewals go on that were held back
    PermitRenewal {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        until: Until,
        #[command(flatten)]
        why: Why,
    },
    /// Permit a device that was enrolled before to enroll anew, once
    PermitEnrollment {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        until: Until,
        #[command(flatten)]
        why: Why,
    },
    /// Release a device for a move into another fleet; its token for there is shown this once
    Move {
        #[command(flatten)]
        device: Device,
        /// Into which fleet
        #[arg(long, value_name = "FLEET")]
        to: String,
        /// For how long the token holds, at most 30d
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
        expires_in: Duration,
        #[command(flatten)]
        why: Why,
    },
    /// Take the release for a move back
    CancelMove {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        why: Why,
    },
}

/// Until when.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Until {
    /// For how long from now, such as 30d
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    span: Option<Duration>,
    /// Until when, such as 2027-01-31T00:00:00Z
    #[arg(long = "until", value_name = "WHEN", value_parser = instant)]
    instant: Option<Timestamp>,
    /// Withdraw what was permitted
    #[arg(long)]
    withdraw: bool,
}

impl Until {
    fn value(&self) -> Option<Value> {
        let until = self.instant.or_else(|| self.span.map(|span| SystemClock.now() + span));
        until.map(|until| Value::from(until.to_string()))
    }
}

/// RFC 3339.
///
/// # Errors
/// What is expected.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    serde_json::from_value(json!(text)).map_err(|_| "expected a time such as 2027-01-31T00:00:00Z".to_owned())
}

impl LifecycleCommand {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Quarantine { device, why } => device.act(session, "quarantine", why.body()).await,
            Self::Readmit { device, why } => record(session, &device, "readmit", why.body()).await,
            Self::CancelMove { device, why } => record(session, &device, "cancel-move", why.body()).await,
            Self::PermitRenewal { device, until, why } => {
                record(session, &device, "permit-renewal", permit(&until, &why)).await
            }
            Self::PermitEnrollment { device, until, why } => {
                record(session, &device, "permit-enrollment", permit(&until, &why)).await
            }
            Self::Move { device, to, expires_in, why } => {
                let body = object([
                    ("to", Some(Value::from(to.as_str()))),
                    ("expires_in_seconds", Some(Value::from(expires_in.as_secs()))),
                    ("note", why.note.map(Value::from)),
                ]);
                release(session, &device, &to, body).await
            }
        }
    }
}

fn permit(until: &Until, why: &Why) -> Value {
    object([("until", until.value()), ("note", why.note.clone().map(Value::from))])
}

/// An act whose answer is the device's record.
async fn record(session: &Session, device: &Device, act: &str, body: Value) -> Result<(), Failure> {
    let [v1, fleets, fleet, devices, name] = device.path();
    let ask = Ask::path(&[v1, fleets, fleet, devices, name, act]).body(body);
    session.print_record(&session.client.post(ask).await?, &FIRST)
}

async fn release(session: &Session, device: &Device, to: &str, body: Value) -> Result<(), Failure> {
    let [v1, fleets, fleet, devices, name] = device.path();
    // Without an Idempotency-Key: a secret that is shown once cannot be shown again.
    let created = session.client.post(Ask::path(&[v1, fleets, fleet, devices, name, "move"]).body(body)).await?;
    session.print_record(&created, &["token", "id", "fleet", "device", "expires_at"])?;
    if session.json {
        return Ok(());
    }
    let value = created.json()?;
    let token = value.get("token").and_then(Value::as_str).unwrap_or("TOKEN");
    print(&format!(
        "\nOn the device, with a directory of its own for the new identity:\n  fleetmark-device enroll --server {} --ca-fingerprint {} --fleet {to} --token {token} --dir DIR\n",
        session.profile.settings.device_door,
        root_fingerprint(&session.profile)?,
    ))
}
