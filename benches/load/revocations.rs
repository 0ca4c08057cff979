//! One order for very many certificates, while others enroll.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::Client;
use crate::proofs::named;
use crate::report::Report;
use crate::rounds::{self, Way, count, percentile};
use crate::server::Server;

/// Seconds that an order for 100,000 certificates may take: the goal.
const GOAL: f64 = 10.0;
/// Enrollments a second beside it.
const RATE: f64 = 200.0;
/// Single revocations a second beside it.
const SINGLES: Duration = Duration::from_millis(100);
const ORDERS: &str = "/v1/revocations";

/// How large the run is.
pub struct Size {
    /// Certificates of an order.
    pub certificates: usize,
    /// Devices that are revoked one by one beside it.
    pub singles: usize,
}

/// Takes all figures.
pub async fn run(server: &Server, size: &Size, report: &Report) -> Outcome<()> {
    server.patch("/v1/fleets/default", &serde_json::json!({ "blast_radius": 1_000_000 })).await?;
    for prefix in ["alone", "beside"] {
        enroll(server, prefix, size.certificates, None).await?;
    }
    enroll(server, "single", size.singles, None).await?;
    let quiet = enroll(server, "quiet", enrollments(1.0), Some(RATE)).await?;
    told(report, "enroll at 200/s", &quiet);

    let what = format!("one order for {} certificates", size.certificates);
    let goal = GOAL * count(size.certificates) / 100_000.0;
    let (cpu, begin) = (server.cpu()?, Instant::now());
    order(server, "alone", size.certificates).await?;
    let elapsed = begin.elapsed().as_secs_f64();
    report.figure(&format!("{what}: whole time, beside the goal"), elapsed, "s", Some(goal));
    report.figure(
        &format!("{what}: server CPU a certificate"),
        (server.cpu()? - cpu) * 1e6 / count(size.certificates),
        "µs",
        None,
    );

    let ordering = async {
        let begin = Instant::now();
        order(server, "beside", size.certificates).await?;
        Outcome::Ok(begin.elapsed().as_secs_f64())
    };
    let enrolling = enroll(server, "meanwhile", enrollments(elapsed), Some(RATE));
    let (ordered, taken, singles) = tokio::join!(ordering, enrolling, revoke_singly(server, size.singles));
    report.figure(&format!("{what}, while others enroll: whole time, beside the goal"), ordered?, "s", Some(goal));
    told(report, &format!("enroll at 200/s beside {what}"), &taken?);
    let singles = singles?;
    for percent in [50, 100] {
        let which = if percent == 100 { "longest" } else { "p50" };
        report.figure(&format!("revoke one device beside {what}, {which}"), percentile(&singles, percent), "ms", None);
    }
    Ok(())
}

/// As many as come in the time that an order takes, and some more.
fn enrollments(seconds: f64) -> usize {
    // A span of some seconds fits.
    let millis = Duration::from_secs_f64(seconds.clamp(2.0, 60.0)).as_millis();
    usize::try_from(millis).unwrap_or(60_000) / 5
}

fn told(report: &Report, what: &str, taken: &rounds::Taken) {
    for percent in [50, 99] {
        report.figure(&format!("{what}, p{percent}"), taken.percentile(percent), "ms", None);
    }
    report.figure(&format!("{what}, longest"), taken.percentile(100), "ms", None);
}

async fn enroll(server: &Server, prefix: &str, number: usize, rate: Option<f64>) -> Outcome<rounds::Taken> {
    let token = server.token_for(number).await?;
    let devices = named(prefix, number)?.into_iter().map(|device| device.with_token(token.clone())).collect();
    rounds::run(server, devices, Way::KeepAlive, rate).await
}

/// Revokes all devices whose names begin so, and waits for the end.
async fn order(server: &Server, prefix: &str, number: usize) -> Outcome<()> {
    let mut operator = server.operator_client().await?;
    let select = serde_json::json!({ "query": { "name": format!("{prefix}-*") } });
    let body = serde_json::json!({ "fleet": "default", "reason": "cessationOfOperation", "select": select }).to_string();
    let id = operator.post(ORDERS, "", &body).await?.field("id")?;
    loop {
        let answer = operator.get(&format!("{ORDERS}/{id}")).await?;
        match answer.field("state")?.as_str() {
            "running" => tokio::time::sleep(Duration::from_millis(50)).await,
            "done" => {
                let told: serde_json::Value = serde_json::from_slice(&answer.0)?;
                let is_all = told.get("changed") == Some(&number.into());
                return if is_all { Ok(()) } else { Err(format!("not all were revoked: {told}").into()) };
            }
            state => return Err(format!("the order is {state}").into()),
        }
    }
}

/// Milliseconds of each, ascending.
async fn revoke_singly(server: &Server, number: usize) -> Outcome<Vec<f64>> {
    let mut operator: Client = server.operator_client().await?;
    let mut taken = Vec::with_capacity(number);
    for device in 0..number {
        let begin = Instant::now();
        operator.post(&format!("/v1/fleets/default/devices/single-{device}/revoke"), "", "{}").await?;
        taken.push(begin.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(SINGLES).await;
    }
    taken.sort_unstable_by(f64::total_cmp);
    Ok(taken)
}
