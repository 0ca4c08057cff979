//! How standings are published: OCSP beside a bare signature and beside nginx with the same octets, lists of a million, and what a
//! revocation costs where a million are revoked already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetmark::pki::crl::{CrlHeader, RevokedCertificate, build, entries};
use fleetmark::store::model::Certificate;
use fleetmark_domain::{Epoch, Index, Kind, RevocationReason, Serial};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::client::Client;
use crate::limits::{Bare, beside_signatures, cores, cpu};
use crate::listed::Listed;
use crate::nginx;
use crate::ocsp::{self, Taken};
use crate::report::Report;
use crate::rounds::{self, Way, count};
use crate::server::{Server, cpu_of};

/// Connections that ask for what is kept.
const CLIENTS: usize = 32;
/// So many times first questions and the limit take turns.
const PARTS: usize = 5;
/// An answer that is so old is made anew.
const AGED: Duration = Duration::from_secs(3_000);
/// A shard's most certificates.
const SHARD: u32 = 1 << 14;

/// How large the run is.
pub struct Size {
    /// Certificates that are asked about for the first time.
    pub misses: usize,
    /// Questions that were asked before.
    pub hits: usize,
    /// Revoked certificates on the list.
    pub listed: u32,
    /// Revocations whose time is taken.
    pub acts: usize,
}

/// Takes all figures.
pub async fn run(size: &Size, report: &Report) -> Outcome<()> {
    let number = size.misses;
    let (misses, bare) = tokio::task::spawn_blocking(move || in_process(number)).await??;
    share(report, "OCSP misses in process, beside bare signatures", misses.micros(), bare.sign);
    over_http(size, report).await?;
    lists(size, report).await
}

/// A figure a second of CPU, beside the limit's: what is asked for is a share of the limit.
fn share(report: &Report, what: &str, micros: f64, limit: f64) {
    report.figure(what, 1e6 / micros, "1/s", Some(1e6 / limit));
}

/// First questions, and the limit, which `threads` take: by turns, since a shared machine's pace changes from minute to minute.
async fn in_turns(
    requests: &[Arc<[u8]>],
    threads: usize,
    ask: impl AsyncFn(&[Arc<[u8]>]) -> Outcome<Taken>,
) -> Outcome<(Taken, Bare)> {
    let (mut taken, mut bare) = (Taken::default(), Vec::new());
    for some in requests.chunks(requests.len().div_ceil(PARTS)) {
        let (part, beside) = beside_signatures(threads, ask(some)).await?;
        taken += part;
        bare.push(beside);
    }
    Ok((taken, Bare::mean(&bare)))
}

/// The whole of a miss but the sockets, by the CPU of this thread; and the limit.
fn in_process(number: usize) -> Outcome<(Taken, Bare)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listed = Listed::with(0).await?;
        let mut certificates = Vec::with_capacity(number);
        for device in 0..number {
            certificates.push(listed.device(&format!("d{device}")).await?);
        }
        let requests = requests(&listed, &certificates)?;
        // As on a server that runs for a while: standings are in memory, and what is kept takes the place of what was kept before.
        for request in &requests {
            listed.registrar.ocsp(request, listed.now()).await;
        }
        let now = listed.now() + AGED;
        let ask = async |some: &[Arc<[u8]>]| {
            let answers = async {
                let mut octets = 0;
                for request in some {
                    octets += listed.registrar.ocsp(request, now).await.der.len();
                }
                if octets < some.len() * 300 { Err("the answers are failures".into()) } else { Ok(()) }
            };
            ocsp::timed(some, || Ok(cpu().as_secs_f64()), answers).await
        };
        in_turns(&requests, 1, ask).await
    })
}

fn requests(listed: &Listed, certificates: &[Certificate]) -> Outcome<Vec<Arc<[u8]>>> {
    let authority = listed.registrar.authorities().issuing(Kind::Device, Some(&"default".parse()?))?;
    certificates.iter().map(|certificate| ocsp::request_of(&authority.record.certificate, &certificate.der)).collect()
}

async fn over_http(size: &Size, report: &Report) -> Outcome<()> {
    let server = Server::start().await?;
    let tokens = server.tokens("standing", size.misses).await?;
    let devices = rounds::devices(tokens.into_iter().map(|token| token.text).collect())?;
    let kept = rounds::run(&server, devices, Way::KeepAlive, None).await?;
    let certificates = kept.holders.into_iter().map(|holder| holder.certificate).collect();
    let asked = ocsp::requests(&server, certificates, size.hits).await?;
    let first = asked.first_time.first().ok_or("no devices")?.clone();
    ocsp::run(&server, std::slice::from_ref(&first)).await?;
    let rest = asked.first_time.get(1..).unwrap_or_default();
    let (misses, bare) = in_turns(rest, cores(), async |some| ocsp::run(&server, some).await).await?;
    share(report, "OCSP misses over HTTP, by server CPU, beside bare signatures", misses.micros(), bare.sign);
    report.figure("OCSP misses by POST", misses.per_second(), "1/s", None);
    let hits = ocsp::run(&server, &asked.again).await?;
    report.figure("OCSP hits by POST", hits.per_second(), "1/s", None);
    report.figure("OCSP hit by POST: server CPU", hits.micros(), "µs", None);

    let path = STANDARD.encode(&first).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let path = format!("/ocsp/{path}");
    let answer = Client::plain(server.public).await?.get(&path).await?.0;
    let begin = server.cpu()?;
    let ours = gets(server.public, &path, size.hits).await?;
    let ours_cpu = (server.cpu()? - begin) * 1e6 / count(size.hits);
    let nginx = nginx::giving(&answer).await?;
    let begin = cpu_of(nginx.id())?;
    let theirs = gets(nginx.port, "/answer", size.hits).await?;
    let theirs_cpu = (cpu_of(nginx.id())? - begin) * 1e6 / count(size.hits);
    report.figure("OCSP hits by GET, beside nginx with the same octets", ours, "1/s", Some(theirs));
    share(report, "the same by CPU", ours_cpu, theirs_cpu);
    Ok(())
}

/// Answers a second.
async fn gets(port: u16, path: &str, number: usize) -> Outcome<f64> {
    let mut clients = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..CLIENTS {
        let path = path.to_owned();
        clients.spawn(async move {
            let mut client = Client::plain(port).await?;
            for _ in 0..number / CLIENTS {
                client.get(&path).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok(count(number / CLIENTS * CLIENTS) / begin.elapsed().as_secs_f64())
}

async fn lists(size: &Size, report: &Report) -> Outcome<()> {
    let empty = Listed::with(0).await?;
    let full = Listed::with(size.listed).await?;
    let before = memory("VmRSS")?;
    let first = full.lists().await?;
    let what = format!("a list of {} and its shards, from the store", size.listed);
    report.figure(&what, first * 1e3, "ms", None);
    report.figure("memory for it", memory("VmRSS")? - before, "MiB", None);
    report.figure("memory at the most", memory("VmHWM")?, "MiB", None);
    report.figure("the list", count(full.list_size()?) / f64::from(1 << 20), "MiB", None);
    shard(&full, report)?;

    full.device("one").await?;
    full.revoke("one").await?;
    report.figure("one more: its shard and the list anew", full.lists().await? * 1e3, "ms", None);

    let none = revocations(&empty, size.acts).await?;
    let many = revocations(&full, size.acts).await?;
    report.figure("a revocation, nobody revoked", none, "ms", None);
    let what = format!("a revocation, {} revoked", size.listed);
    report.figure(&what, many, "ms", Some(none));
    Ok(())
}

/// A full shard, encoded and signed.
fn shard(listed: &Listed, report: &Report) -> Outcome<()> {
    let authority = listed.registrar.authorities().issuing(Kind::Device, Some(&"default".parse()?))?;
    let now = listed.now();
    let line = |index| RevokedCertificate {
        serial: Serial::new(Epoch(1), Index(index), [7; 8]),
        since: now,
        reason: Some(RevocationReason::KeyCompromise),
    };
    let lines: Vec<_> = (0..SHARD).map(line).collect();
    let header = CrlHeader {
        number: 1,
        this_update: now,
        next_update: now + Duration::from_secs(7 * 86_400),
        point: Some("http://localhost/crl/2/1-0.crl"),
    };
    let begin = cpu();
    let list = build(&authority.issuer, &header, &[&entries(&lines)])?;
    let taken = cpu().saturating_sub(begin).as_secs_f64() * 1e3;
    report.figure("a full shard, encoded and signed", taken, "ms", None);
    report.figure("a full shard", count(list.len()) / 1024.0, "KiB", None);
    Ok(())
}

/// What an operator waits for a revocation on average, in milliseconds, while the lists are made beside.
async fn revocations(listed: &Listed, number: usize) -> Outcome<f64> {
    for device in 0..number {
        listed.device(&format!("r{device}")).await?;
    }
    listed.lists().await?;
    let (registrar, now) = (listed.registrar.clone(), listed.now());
    let lists = tokio::spawn(async move {
        loop {
            registrar.published().changed().await;
            if registrar.refresh_crls(now).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut taken = 0.0;
    for device in 0..number {
        taken += listed.revoke(&format!("r{device}")).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let failed = lists.is_finished();
    lists.abort();
    if failed { Err("the lists could not be made".into()) } else { Ok(taken / count(number)) }
}

/// This process' memory, in MiB.
fn memory(field: &str) -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).ok_or("no such field")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}
