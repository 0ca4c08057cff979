//! The server under load: the release binary in a process of its own, in a directory that goes with it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::client::Client;

/// Linux counts CPU time of a process in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;
/// Operators' connections that mint tokens at the same time.
const MINTERS: usize = 32;

/// The server.
pub struct Server {
    process: Child,
    directory: TempDir,
    pub device: u16,
    pub admin: u16,
    pub public: u16,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub async fn start() -> Outcome<Self> {
        let directory = tempfile::tempdir_in(std::env::current_dir()?.join("target"))?;
        let [device, admin, public] = free_ports()?;
        let log = fs::File::create(directory.path().join("log"))?;
        let process = Command::new(env!("CARGO_BIN_EXE_fleetmark"))
            .args(["up", "--name", "localhost", "--log-level", "warn", "--data"])
            .arg(directory.path().join("data"))
            .args(["--device-door", &format!("127.0.0.1:{device}"), "--admin-door", &format!("127.0.0.1:{admin}")])
            .args(["--public-door", &format!("127.0.0.1:{public}")])
            .env("FLEETMARK_LIMITS__ENROLL_PER_SECOND", "0")
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()?;
        let server = Self { process, directory, device, admin, public };
        for _ in 0..150 {
            if let Ok(mut client) = Client::plain(public).await
                && client.get("/readyz").await.is_ok()
            {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("the server does not start: {}", fs::read_to_string(server.directory.path().join("log"))?).into())
    }

    /// CPU seconds that the server used so far.
    pub fn cpu(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<_> = stat.rsplit(')').next().ok_or("no stat")?.split_whitespace().collect();
        let ticks = |field: usize| -> Outcome<f64> { Ok(fields.get(field).ok_or("short stat")?.parse()?) };
        Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    fn operator(&self, file: &str) -> std::path::PathBuf {
        self.directory.path().join("data/operator").join(file)
    }

    /// The roots that its doors are verified against.
    pub fn roots(&self) -> Outcome<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.operator("ca.pem"))? {
            roots.add(certificate?)?;
        }
        Ok(Arc::new(roots))
    }

    /// TLS without a client certificate.
    pub fn anonymous(&self) -> Outcome<Arc<ClientConfig>> {
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(self.roots()?).with_no_client_auth()))
    }

    fn as_operator(&self) -> Outcome<Arc<ClientConfig>> {
        let chain = read_chain(&self.operator("cert.pem"))?;
        let key = PrivateKeyDer::from_pem_file(self.operator("key.pem"))?;
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(self.roots()?).with_client_auth_cert(chain, key)?))
    }

    /// Mints tokens, each for a device of its own.
    pub async fn tokens(&self, count: usize) -> Outcome<Vec<String>> {
        let config = self.as_operator()?;
        let mut minters = JoinSet::new();
        for minter in 0..MINTERS {
            let (config, admin) = (config.clone(), self.admin);
            let share = count / MINTERS + usize::from(minter < count % MINTERS);
            minters.spawn(async move {
                let mut client = Client::tls(admin, &config).await?;
                let mut tokens = Vec::with_capacity(share);
                for number in 0..share {
                    let body = format!(r#"{{"device":"bench-{minter}-{number}"}}"#);
                    let answer = client.post("/v1/fleets/default/tokens", "", &body).await?;
                    tokens.push(answer.field("token")?);
                }
                Outcome::Ok(tokens)
            });
        }
        let mut tokens = Vec::with_capacity(count);
        while let Some(minted) = minters.join_next().await {
            tokens.extend(minted??);
        }
        Ok(tokens)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing worth keeping.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_chain(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

fn free_ports() -> Outcome<[u16; 3]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [device, admin, public] = &listeners;
    Ok([device.local_addr()?.port(), admin.local_addr()?.port(), public.local_addr()?.port()])
}
