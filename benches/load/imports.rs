//! Devices registered in bulk, as `fleetmark device import` sends them; and who enrolls meanwhile.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::Outcome;
use crate::client::Client;
use crate::proofs::named;
use crate::report::Report;
use crate::rounds::{self, Device, Taken, Way, count};
use crate::server::Server;

/// Lines of a request, as the command line sends them.
const PART_LINES: usize = 2_000;
/// Seconds that the import of 100,000 devices may take: the goal.
const GOAL: f64 = 60.0;
/// Enrollments a second beside an import.
const RATE: f64 = 200.0;

/// How large the run is.
pub struct Size {
    /// Devices of a list.
    pub devices: usize,
    /// Enrollments beside imports.
    pub beside: usize,
}

/// How a list is sent.
#[derive(Clone, Copy)]
enum Sending {
    /// In parts, of which each counts by itself.
    Parts,
    /// All or nothing: in one request, and one transaction.
    Whole,
}

/// Takes all figures.
pub async fn run(server: &Server, size: &Size, report: &Report) -> Outcome<()> {
    let goal = GOAL * count(size.devices) / 100_000.0;
    for (how, sending) in [("in parts of 2,000", Sending::Parts), ("all or nothing", Sending::Whole)] {
        let what = format!("import of {} devices, {how}", size.devices);
        let (cpu, begin) = (server.cpu()?, Instant::now());
        import(server, sending, "list", size.devices, &AtomicBool::new(false)).await?;
        let elapsed = begin.elapsed().as_secs_f64();
        let cpu = (server.cpu()? - cpu) * 1e6 / count(size.devices);
        report.figure(&what, count(size.devices) / elapsed, "1/s", None);
        report.figure(&format!("{what}: whole time, beside the goal"), elapsed, "s", Some(goal));
        report.figure(&format!("{what}: server CPU a device"), cpu, "µs", None);
    }
    told(report, "enroll at 200/s", &enroll(server, "quiet", size.beside).await?);
    let taken = beside(server, Sending::Parts, size).await?;
    told(report, "enroll at 200/s beside imports in parts", &taken);
    let taken = beside(server, Sending::Whole, size).await?;
    told(report, &format!("enroll at 200/s beside an import of {}, all or nothing", size.devices), &taken);
    Ok(())
}

fn told(report: &Report, what: &str, taken: &Taken) {
    for percent in [50, 99] {
        report.figure(&format!("{what}, p{percent}"), taken.percentile(percent), "ms", None);
    }
    report.figure(&format!("{what}, longest"), taken.percentile(100), "ms", None);
}

impl Sending {
    const fn name(self) -> &'static str {
        match self {
            Self::Parts => "parts",
            Self::Whole => "whole",
        }
    }
}

/// Enrolls by one token while lists are imported: in parts one list after the other, until the last device has enrolled; all or
/// nothing one list, since nobody enrolls while that is written.
async fn beside(server: &Server, sending: Sending, size: &Size) -> Outcome<Taken> {
    let is_over = AtomicBool::new(false);
    let importing = async {
        for number in 0.. {
            import(server, sending, &format!("beside-{number}"), size.devices, &is_over).await?;
            if matches!(sending, Sending::Whole) || is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        Outcome::Ok(())
    };
    let enrolling = async {
        let taken = enroll(server, sending.name(), size.beside).await;
        is_over.store(true, Ordering::Relaxed);
        taken
    };
    let (imported, taken) = tokio::join!(importing, enrolling);
    imported?;
    taken
}

async fn enroll(server: &Server, prefix: &str, number: usize) -> Outcome<Taken> {
    let token = server.token_for(number).await?;
    let devices: Vec<Device> =
        named(&format!("while-{prefix}"), number)?.into_iter().map(|device| device.with_token(token.clone())).collect();
    rounds::run(server, devices, Way::KeepAlive, Some(RATE)).await
}

/// Imports a list, or as much of it as there is time for.
async fn import(server: &Server, sending: Sending, list: &str, devices: usize, is_over: &AtomicBool) -> Outcome<()> {
    let (lines, query) = match sending {
        Sending::Parts => (PART_LINES, ""),
        Sending::Whole => (devices, "?all_or_nothing=true"),
    };
    let path = format!("/v1/fleets/default/devices/import{query}");
    let mut operator = server.operator_client().await?;
    for first in (0..devices).step_by(lines) {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let number = lines.min(devices - first);
        send(&mut operator, &path, &part(&format!("{list}-{}", sending.name()), first, number)?, number).await?;
    }
    Ok(())
}

/// Lines of a list: a name, and two attributes.
fn part(list: &str, first: usize, number: usize) -> Outcome<String> {
    let mut text = "name,attr.model,attr.serial\n".to_owned();
    for number in first..first + number {
        writeln!(text, "{list}-{number},mk4,SN-2026-{number:07}")?;
    }
    Ok(text)
}

/// Sends them; all must be new to the server.
async fn send(operator: &mut Client, path: &str, lines: &str, number: usize) -> Outcome<()> {
    let answer = operator.post_octets(path, "text/csv", lines.as_bytes()).await?;
    let told: serde_json::Value = serde_json::from_slice(&answer.0)?;
    if told.get("registered") != Some(&number.into()) {
        return Err(format!("not all devices were registered: {told}").into());
    }
    Ok(())
}
