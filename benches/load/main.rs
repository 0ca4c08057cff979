//! The load benchmark behind `scripts/bench`: a real server in a process of its own, clients beside it on the same
//! machine, and every figure beside a limit that was taken in the same run.
//!
//! CPU is counted, not felt: the server's from `/proc/PID/stat`, the limits' by the thread's CPU clock. So the ratios hold
//! on a busy machine, while the rates are of this machine at this moment.

mod client;
mod floor;
mod gateway;
mod imports;
mod limits;
mod listed;
mod maker;
mod nginx;
mod ocsp;
mod proofs;
mod report;
mod revocations;
mod rounds;
mod server;
mod standing;

use std::error::Error;

use limits::{beside_signatures, cores};
use mimalloc::MiMalloc;
use report::Report;
use rounds::Way;

/// The server's: what is taken in process is taken as the server does it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Any error: a benchmark stops at the first.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How large the run is.
struct Size {
    /// Enrollments over connections that stay open.
    keep_alive: usize,
    /// Enrollments each over a connection of its own.
    connecting: usize,
    /// The ways in.
    proofs: proofs::Size,
    /// Devices registered in bulk.
    imports: imports::Size,
    /// Our gateway.
    gateway: gateway::Size,
    /// Orders for many certificates.
    revocations: revocations::Size,
    /// Lists and OCSP.
    standing: standing::Size,
}

impl Size {
    const fn short() -> Self {
        Self {
            keep_alive: 2_000,
            connecting: 1_000,
            proofs: proofs::Size { keep_alive: 1_000, connecting: 500 },
            imports: imports::Size { devices: 5_000, beside: 400 },
            gateway: gateway::Size { live: 100, cut: 50, followers: 50, handshakes: 500, revoked: 2_000 },
            revocations: revocations::Size { certificates: 5_000, singles: 10 },
            standing: standing::Size { misses: 500, hits: 5_000, listed: 40_000, acts: 50 },
        }
    }

    const fn long() -> Self {
        Self {
            keep_alive: 20_000,
            connecting: 5_000,
            proofs: proofs::Size { keep_alive: 10_000, connecting: 5_000 },
            imports: imports::Size { devices: 100_000, beside: 2_000 },
            gateway: gateway::Size { live: 1_000, cut: 300, followers: 500, handshakes: 3_000, revoked: 100_000 },
            revocations: revocations::Size { certificates: 100_000, singles: 20 },
            standing: standing::Size { misses: 20_000, hits: 100_000, listed: 1_000_000, acts: 300 },
        }
    }
}

fn main() -> Outcome<()> {
    // `cargo bench` and `cargo test --benches` add flags of their own.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let size = if has("--short") { Size::short() } else { Size::long() };
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "a TLS provider is set already")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = Report::new(has("--json"));
    runtime.block_on(async {
        report.machine()?;
        let all = !has("--enroll") && !has("--gateway") && !has("--standing");
        if all || has("--standing") {
            standing::run(&size.standing, &report).await?;
        }
        let server = server::Server::start().await?;
        if all || has("--enroll") {
            let limits = limits::measure()?;
            limits.report(&report);
            if all {
                run(&server, &size, &limits, &report).await?;
            }
            // A server of their own: what they register does not weigh on the gateway's figures.
            let server = server::Server::start().await?;
            proofs::run(&server, &size.proofs, &limits, &report).await?;
            imports::run(&server, &size.imports, &report).await?;
        }
        if all || has("--gateway") {
            gateway::run(&server, &size.gateway, &report).await?;
        }
        if all || has("--standing") {
            let server = server::Server::start().await?;
            revocations::run(&server, &size.revocations, &report).await?;
        }
        Ok(())
    })
}

async fn run(server: &server::Server, size: &Size, limits: &limits::Limits, report: &Report) -> Outcome<()> {
    let tokens = server.tokens("bench", size.keep_alive + size.connecting + size.keep_alive / 4 + 1).await?;
    let mut devices = rounds::devices(tokens.into_iter().map(|token| token.text).collect())?;

    let first = devices.pop().ok_or("no device")?;
    let known = rounds::first_device(server, first).await?;

    let connecting = devices.split_off(devices.len() - size.connecting);
    let latency = devices.split_off(size.keep_alive);
    let (kept, bare) = beside_signatures(cores(), rounds::run(server, devices, Way::KeepAlive, None)).await?;
    let rate = kept.per_second();
    report.figure("enroll and confirm, 64 keep-alive clients", rate, "1/s", None);
    report.figure("enroll and confirm, keep-alive: server CPU", kept.cpu, "µs", Some(bare.both()));
    let (fresh, bare) = beside_signatures(cores(), rounds::run(server, connecting, Way::Connecting(&known), None)).await?;
    report.figure("enroll and confirm, new mTLS connection each", fresh.per_second(), "1/s", None);
    let limit = bare.both() + limits.handshake;
    report.figure("enroll and confirm, new mTLS connection each: server CPU", fresh.cpu, "µs", Some(limit));
    let kept = floor::keep_alive(server, size.keep_alive).await?;
    report.figure("its floor: two requests for the time, verification, signature", kept + bare.both(), "µs", Some(bare.both()));
    let fresh = floor::connecting(server, &known, size.connecting).await?;
    report.figure("its floor, new mTLS connection each", fresh + bare.both(), "µs", Some(limit));
    let half = rounds::run(server, latency, Way::KeepAlive, Some(rate / 2.0)).await?;
    report.figure("enroll at half load, p50", half.percentile(50), "ms", None);
    report.figure("enroll at half load, p99", half.percentile(99), "ms", None);
    Ok(())
}
