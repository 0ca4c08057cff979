//! Our gateway: the real program before an upstream that echoes, and devices' connections through it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Client, Identity, Trust};
use super::server::{Server, free_port, text};
use super::until;

/// A connection is cut, refused or answered within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway with a directory of its own.
pub struct Gateway {
    directory: PathBuf,
    trust: Trust,
    process: Option<Child>,
    proxy: u16,
    endpoint: u16,
    metrics: u16,
}

/// The program, which `cargo build --workspace` puts beside the server's.
fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fleetmark")).with_file_name("fleetmark-gateway");
    assert!(program.exists(), "{} is not built: cargo build --workspace", program.display());
    program
}

impl Gateway {
    /// Admits a gateway for these fleets, enrolls it, and starts it.
    pub async fn start(server: &Server, name: &str, fleets: &[&str]) -> Self {
        let admission = json!({"name": name, "fleets": fleets, "dns_names": ["localhost"]});
        let token = text(&server.owner().post("/v1/gateways", &admission).await.is(201).json(), "token");
        let directory = server.scratch(name);
        let device_door = format!("https://localhost:{}", server.device_port);
        let root = super::device::sha256(&server.root());
        let enrolled = Command::new(program())
            .args(["enroll", "--server", &device_door, "--ca-fingerprint", &root, "--dir"])
            .arg(directory.join("state"))
            .env("FLEETMARK_TOKEN", token)
            .output()
            .unwrap();
        assert!(enrolled.status.success(), "enroll: {}", String::from_utf8_lossy(&enrolled.stderr));
        let (proxy, endpoint, metrics) = (free_port(), free_port(), free_port());
        let upstream = echo().await;
        let config = format!(
            "dir = \"state\"\nservers = [\"{device_door}\"]\n[verdict]\nlisten = \"127.0.0.1:{endpoint}\"\n\
             [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n[[proxy]]\nlisten = \"127.0.0.1:{proxy}\"\n\
             upstream = \"127.0.0.1:{upstream}\"\nprotocol = \"echo\"\n"
        );
        fs::write(directory.join("gateway.toml"), config).unwrap();
        let mut gateway = Self { directory, trust: server.trust(), process: None, proxy, endpoint, metrics };
        gateway.begin().await;
        gateway
    }

    /// Starts the program, and waits for its doors.
    pub async fn begin(&mut self) {
        let log = File::options().create(true).append(true).open(self.directory.join("log")).unwrap();
        let process = Command::new(program())
            .args(["run", "--config"])
            .arg(self.directory.join("gateway.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(process.unwrap());
        for port in [self.proxy, self.endpoint, self.metrics] {
            until("the gateway's doors", 20, || async move { TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        let id = process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        process.wait().unwrap().code()
    }

    /// Where it keeps its state.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// A connection through the proxy on which an octet went to the upstream and back; or why there is none.
    pub async fn dial(&self, identity: &Identity) -> Result<Live, String> {
        let tcp = TcpStream::connect(("127.0.0.1", self.proxy)).await.map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(self.trust.config(Some(identity))));
        let connected = timeout(PATIENCE, connector.connect(ServerName::try_from("localhost").unwrap(), tcp));
        let stream = connected.await.map_err(|_| "no handshake in time")?.map_err(|error| error.to_string())?;
        let mut live = Live(stream);
        live.echo().await?;
        Ok(live)
    }

    /// Whether the proxy lets this certificate in.
    pub async fn admits(&self, identity: &Identity) -> bool {
        self.dial(identity).await.is_ok()
    }

    /// The verdict endpoint's answer for connecting with this certificate.
    pub async fn verdict(&self, certificate: &[u8]) -> Value {
        self.ask(json!({"certificate": STANDARD.encode(certificate), "action": "connect", "protocol": "echo"})).await
    }

    /// Any question to the verdict endpoint.
    pub async fn ask(&self, question: Value) -> Value {
        self.local(self.endpoint).post("/v1/verdict", &question).await.is(200).json()
    }

    /// Waits until connecting with this certificate has this reason.
    pub async fn says(&self, reason: &str, identity: &Identity, seconds: u64) -> Value {
        until(reason, seconds, || async {
            let verdict = self.verdict(identity.leaf()).await;
            (verdict["reason"] == reason).then_some(verdict)
        })
        .await
    }

    /// Metrics, summed over all series of this name that have these labels.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.local(self.metrics).get("/metrics").await.is(200).text();
        super::server::sum_of_metric(&page, name, labels)
    }

    fn local(&self, port: u16) -> Client {
        Client::new(&format!("http://127.0.0.1:{port}"), &self.trust, None)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("---- the end of the gateway's log ----\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        self.kill();
    }
}

/// A connection through the proxy.
pub struct Live(TlsStream<TcpStream>);

impl Live {
    /// An octet to the upstream and back.
    pub async fn echo(&mut self) -> Result<(), String> {
        let mut octet = [7];
        let exchange = async {
            self.0.write_all(&octet).await?;
            self.0.read_exact(&mut octet).await
        };
        timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time")?.map(drop).map_err(|error| error.to_string())
    }

    /// Waits for its end.
    pub async fn ends(mut self) {
        let read = timeout(PATIENCE, self.0.read(&mut [0; 1])).await.expect("the connection lives on");
        assert!(!matches!(read, Ok(1..)), "octets came that nobody sent");
    }
}

/// Sends back what comes.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    port
}
