//! The ways in, one beside the other: a token each, one token for all, one claim certificate, a maker's certificate each.

use serde_json::json;

use crate::Outcome;
use crate::limits::Limits;
use crate::maker::Maker;
use crate::report::Report;
use crate::rounds::{self, Device, Way};
use crate::server::Server;

/// How large the run is.
pub struct Size {
    /// Enrollments over connections that stay open, by each proof.
    pub keep_alive: usize,
    /// Enrollments each over a connection of its own.
    pub connecting: usize,
}

/// Takes all figures. Of tokens and claims, confirmation is not in them: a device confirms over a connection with its new
/// certificate, whatever proof it came with, and that has a figure of its own.
pub async fn run(server: &Server, size: &Size, limits: &Limits, report: &Report) -> Outcome<()> {
    let told = |what: &str, taken: &rounds::Taken, limit: f64| {
        report.figure(what, taken.per_second(), "1/s", None);
        report.figure(&format!("{what}: server CPU"), taken.cpu, "µs", Some(limit));
    };
    let tokens = server.tokens("single", size.keep_alive).await?;
    let singles = tokens.into_iter().map(|token| Ok(Device::new(None, None)?.with_token(token.text)));
    let taken = rounds::run(server, singles.collect::<Outcome<_>>()?, Way::KeepAlive, None).await?;
    told("enroll alone, a token each, 64 keep-alive clients", &taken, limits.bare.both());

    let common = server.token_for(size.keep_alive).await?;
    let sharing = named("shared", size.keep_alive)?.into_iter().map(|device| device.with_token(common.clone()));
    let taken = rounds::run(server, sharing.collect(), Way::KeepAlive, None).await?;
    told("enroll alone, one token for all, 64 keep-alive clients", &taken, limits.bare.both());

    server.group(&json!({ "name": "batch", "proof": "claim" })).await?;
    let claim = server.claim("batch").await?;
    let taken = rounds::run(server, named("claimed", size.keep_alive)?, Way::Sharing(&claim), None).await?;
    told("enroll alone, one claim certificate, 64 keep-alive clients", &taken, limits.bare.both());

    let maker = Maker::new()?;
    server.group(&json!({ "name": "line", "proof": "maker", "ca": maker.root.pem() })).await?;
    let roots = server.roots()?;
    let made = |number| Device::new(None, Some(maker.device(&format!("SN-{number}"), &roots)?));
    let devices = (0..size.connecting).map(made).collect::<Outcome<_>>()?;
    let taken = rounds::run(server, devices, Way::Own, None).await?;
    told("enroll alone, a maker's certificate and connection each", &taken, limits.bare.both() + limits.maker_handshake);

    let holders = taken.holders.into_iter().map(|holder| holder.confirming(server));
    let taken = rounds::run(server, holders.collect::<Outcome<_>>()?, Way::Own, None).await?;
    told("confirm, the new certificate and connection each", &taken, limits.handshake);
    Ok(())
}

/// Devices that say their names.
pub fn named(prefix: &str, number: usize) -> Outcome<Vec<Device>> {
    (0..number).map(|number| Device::new(Some(&format!("{prefix}-{number}")), None)).collect()
}
