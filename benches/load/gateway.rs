//! Our gateway: how soon a revoked device is out, and what a handshake through it costs, beside nginx.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Outcome;
use crate::client::Client;
use crate::report::Report;
use crate::rounds::{self, Way, count};
use crate::server::{Server, cpu_of, free_port};

/// Feed connections that one identity may have.
const FEEDS_EACH: usize = 4;
/// Operators' connections that revoke at the same time.
const REVOKERS: usize = 8;
/// A revoked device has so long to be out; longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// How large the run is.
pub struct Size {
    /// Live connections.
    pub live: usize,
    /// How many of them are revoked, one after the other.
    pub cut: usize,
    /// Other followers of the feed, in the second round.
    pub followers: usize,
    /// Handshakes.
    pub handshakes: usize,
    /// Revoked certificates, where many are.
    pub revoked: usize,
}

/// Takes all figures.
pub async fn run(server: &Server, size: &Size, report: &Report) -> Outcome<()> {
    server.patch("/v1/fleets/default", &serde_json::json!({ "blast_radius": 1_000_000 })).await?;
    let gateway = Gateway::start(server, "edge-1").await?;

    let lone = devices(server, "alone", size.live).await?;
    let alone = cut(server, &gateway, &lone, size.cut).await?;
    alone.report(report, &format!("{} live connections", size.live));

    let followers = follow(server, size.followers).await?;
    let crowd = devices(server, "crowd", size.live).await?;
    let crowded = cut(server, &gateway, &crowd, size.cut).await?;
    crowded.report(report, &format!("{} live, {} followers", size.live, size.followers));
    drop(followers);

    let good = Arc::clone(&lone.last().ok_or("no device")?.config);
    let nginx_1 = crate::nginx::handshakes(1, size.handshakes).await?;
    let nginx_many = crate::nginx::handshakes(size.revoked, size.handshakes).await?;
    report.figure("nginx, ssl_crl of 1: CPU a handshake and request", nginx_1, "µs", None);
    report.figure(&format!("nginx, ssl_crl of {}: CPU a handshake and request", size.revoked), nginx_many, "µs", None);
    let few = gateway.handshakes(&good, size.handshakes).await?;
    report.figure("gateway: CPU a handshake and round trip", few, "µs", Some(nginx_1));
    eprintln!("{} devices are enrolled and revoked", size.revoked);
    revoke_many(server, size.revoked).await?;
    gateway.has_caught_up(server).await?;
    let many = gateway.handshakes(&good, size.handshakes).await?;
    report.figure(&format!("gateway, {} revoked: CPU a handshake and round trip", size.revoked), many, "µs", Some(few));
    Ok(())
}

/// A device with its certificate.
struct Device {
    name: String,
    config: Arc<ClientConfig>,
}

async fn devices(server: &Server, prefix: &str, number: usize) -> Outcome<Vec<Device>> {
    let tokens = server.tokens(prefix, number).await?;
    let mut waiting = rounds::devices(tokens.iter().map(|token| token.text.clone()).collect())?;
    let mut devices = Vec::with_capacity(number);
    for token in tokens.into_iter().rev() {
        let device = waiting.pop().ok_or("no device")?;
        devices.push(Device { name: token.device, config: rounds::first_device(server, device).await? });
    }
    Ok(devices)
}

/// The gateway's process, before an upstream that echoes.
struct Gateway {
    process: Child,
    /// Where its listeners are.
    proxy: u16,
    metrics: u16,
    _upstream: JoinHandle<()>,
}

impl Gateway {
    async fn start(server: &Server, name: &str) -> Outcome<Self> {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-gateway");
        let directory = server.path(name);
        let token = server.invite_gateway(name).await?;
        let enrolled = Command::new(&program)
            .args(["enroll", "--server", &format!("https://localhost:{}", server.device), "--ca-fingerprint"])
            .args([&server.root_fingerprint()?, "--dir"])
            .arg(&directory)
            .env("FLEETMARK_TOKEN", token)
            .output()?;
        if !enrolled.status.success() {
            return Err(format!("the gateway does not enroll: {}", String::from_utf8_lossy(&enrolled.stderr)).into());
        }
        let (upstream, port) = echo().await?;
        let (proxy, metrics, verdict) = (free_port()?, free_port()?, free_port()?);
        let config = server.path(&format!("{name}.toml"));
        let directory = directory.display().to_string();
        fs::write(
            &config,
            format!(
                "dir = {directory:?}\nservers = [\"https://localhost:{}\"]\n\n[log]\nlevel = \"warn\"\n\n\
                 [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n\n[verdict]\nlisten = \"127.0.0.1:{verdict}\"\n\n\
                 [[proxy]]\nlisten = \"127.0.0.1:{proxy}\"\nupstream = \"127.0.0.1:{port}\"\nprotocol = \"echo\"\n\
                 handshakes_per_second = 100000\naddress_handshakes_per_second = 0\nmax_handshakes = 4096\n",
                server.device
            ),
        )?;
        let log = fs::File::create(server.path(&format!("{name}.log")))?;
        let process = Command::new(&program)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let gateway = Self { process, proxy, metrics, _upstream: upstream };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", proxy)).await.is_ok() {
                return Ok(gateway);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = fs::read_to_string(server.path(&format!("{name}.log")))?;
        Err(format!("the gateway does not start: {log}").into())
    }

    /// A connection that the gateway let through: an octet went to the upstream and back. None: it was refused.
    async fn dial(&self, config: &Arc<ClientConfig>) -> Outcome<Option<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(("127.0.0.1", self.proxy)).await?;
        stream.set_nodelay(true)?;
        let connect = TlsConnector::from(config.clone()).connect("localhost".try_into()?, stream);
        let Ok(mut stream) = connect.await else { return Ok(None) };
        let mut octet = [7];
        if stream.write_all(&octet).await.is_err() || stream.read_exact(&mut octet).await.is_err() {
            return Ok(None);
        }
        Ok(Some(stream))
    }

    /// Microseconds of CPU for a handshake with an octet there and back.
    async fn handshakes(&self, config: &Arc<ClientConfig>, number: usize) -> Outcome<f64> {
        self.dial(config).await?.ok_or("a good device was refused")?;
        let begin = cpu_of(self.process.id())?;
        for _ in 0..number {
            self.dial(config).await?.ok_or("a good device was refused")?;
        }
        Ok((cpu_of(self.process.id())? - begin) * 1e6 / count(number))
    }

    /// Waits until it has verified all that the server has.
    async fn has_caught_up(&self, server: &Server) -> Outcome<()> {
        let size = server.ledger_size("default").await?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            let metrics = Client::plain(self.metrics).await?.get("/metrics").await?;
            let lines = BufReader::new(metrics.0.as_slice()).lines().collect::<Result<Vec<_>, _>>()?;
            let position =
                lines.iter().find_map(|line| line.strip_prefix("fleetmark_gateway_ledger_position{ledger=\"default\"} "));
            if position.is_some_and(|position| position.parse().is_ok_and(|position: f64| position >= size)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("the gateway does not catch up".into())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has nothing worth keeping.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends back what comes.
async fn echo() -> Outcome<(JoinHandle<()>, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok((task, port))
}

/// Milliseconds from the revocation's answer, ascending.
struct Cut {
    cut: Vec<f64>,
    refused: Vec<f64>,
}

impl Cut {
    fn report(&self, report: &Report, with: &str) {
        for (what, times) in [("cut", &self.cut), ("refused", &self.refused)] {
            for percent in [50, 99] {
                let name = format!("revocation answered to {what}, {with}, p{percent}");
                report.figure(&name, rounds::percentile(times, percent), "ms", None);
            }
        }
    }
}

/// Connects all devices, revokes some, one after the other, and sees when each is out.
async fn cut(server: &Server, gateway: &Gateway, devices: &[Device], number: usize) -> Outcome<Cut> {
    let mut live = Vec::with_capacity(devices.len());
    for device in devices {
        let mut stream = gateway.dial(&device.config).await?.ok_or("a good device was refused")?;
        live.push(tokio::spawn(async move {
            // It ends when nothing more can be read.
            let _ = stream.read(&mut [0; 16]).await;
            Instant::now()
        }));
    }
    let mut operator = server.operator_client().await?;
    let mut times = Cut { cut: Vec::with_capacity(number), refused: Vec::with_capacity(number) };
    for (device, connection) in devices.iter().zip(live.drain(..number)) {
        let path = format!("/v1/fleets/default/devices/{}/revoke", device.name);
        operator.post(&path, "", r#"{"reason":"keyCompromise"}"#).await?;
        let answered = Instant::now();
        let ended = tokio::time::timeout(PATIENCE, connection).await??;
        times.cut.push(ended.saturating_duration_since(answered).as_secs_f64() * 1e3);
        while gateway.dial(&device.config).await?.is_some() {
            if answered.elapsed() > PATIENCE {
                return Err("a revoked device still comes in".into());
            }
        }
        times.refused.push(answered.elapsed().as_secs_f64() * 1e3);
    }
    if live.iter().any(JoinHandle::is_finished) {
        return Err("a good device was cut".into());
    }
    live.iter().for_each(JoinHandle::abort);
    times.cut.sort_by(f64::total_cmp);
    times.refused.sort_by(f64::total_cmp);
    Ok(times)
}

/// Opens feeds whose octets are read and thrown away.
async fn follow(server: &Server, number: usize) -> Outcome<JoinSet<()>> {
    let mut followers = JoinSet::new();
    for gateway in 0..number.div_ceil(FEEDS_EACH) {
        let config = server.gateway_config(&format!("follower-{gateway}")).await?;
        for _ in 0..FEEDS_EACH.min(number - gateway * FEEDS_EACH) {
            let stream = TcpStream::connect(("127.0.0.1", server.device)).await?;
            let mut stream = TlsConnector::from(config.clone()).connect("localhost".try_into()?, stream).await?;
            stream.write_all(b"GET /v1/feed HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await?;
            if length == 0 || !buffer.starts_with(b"HTTP/1.1 200") {
                return Err(format!("no feed: {}", String::from_utf8_lossy(&buffer)).into());
            }
            followers.spawn(async move { while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {} });
        }
    }
    Ok(followers)
}

/// Enrolls and revokes so many devices.
async fn revoke_many(server: &Server, number: usize) -> Outcome<()> {
    let tokens = server.tokens("revoked", number).await?;
    let names: Vec<_> = tokens.iter().map(|token| token.device.clone()).collect();
    let devices = rounds::devices(tokens.into_iter().map(|token| token.text).collect())?;
    rounds::run(server, devices, Way::KeepAlive, None).await?;
    eprintln!("enrolled");
    let mut revokers = JoinSet::new();
    for share in names.chunks(number.div_ceil(REVOKERS)) {
        let (share, mut operator) = (share.to_vec(), server.operator_client().await?);
        revokers.spawn(async move {
            for name in share {
                let path = format!("/v1/fleets/default/devices/{name}/revoke");
                operator.post(&path, "", r#"{"reason":"cessationOfOperation"}"#).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = revokers.join_next().await {
        done??;
        eprintln!("{} of {REVOKERS} shares to be revoked", revokers.len());
    }
    Ok(())
}
